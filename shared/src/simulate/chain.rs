//! Rules in order.
use super::part::{Effect, Subject, Verdict};
use super::passage::Step;
use crate::api::trace::Outcome;
use crate::plan::Ruleset;
use crate::plan::ruleset::{Chain, Rule};

/// Deepest jump: `NFT_JUMP_STACK_SIZE` of the kernel's `net/netfilter/nf_tables.h`. It refuses a table with a deeper one,
/// and with a jump that leads back to itself.
const DEEPEST: usize = 16;

/// How a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With its last rule, or by `return`: the chain that jumped here goes on, a base chain lets the packet pass.
    End,
    Accept,
    Drop,
}

/// Every rule that matches becomes a step.
pub(super) fn run(
    ruleset: &Ruleset,
    chain: &Chain,
    subject: &mut Subject<'_>,
    steps: &mut Vec<Step>,
) -> Ending {
    run_at(0, ruleset, chain, subject, steps)
}

fn run_at(
    depth: usize,
    ruleset: &Ruleset,
    chain: &Chain,
    subject: &mut Subject<'_>,
    steps: &mut Vec<Step>,
) -> Ending {
    for rule in &chain.rules {
        let verdict = match evaluate(ruleset, rule, subject) {
            Effect::Fails => continue,
            Effect::Goes => None,
            Effect::Is(verdict) => Some(verdict),
        };
        let (outcome, note) = told(verdict.as_ref());
        steps.push(Step {
            chain: chain.name.clone(),
            rule: rule.to_string(),
            outcome,
            note,
        });
        match verdict {
            None => {}
            Some(Verdict::Accept(_)) => return Ending::Accept,
            Some(Verdict::Drop) => return Ending::Drop,
            Some(Verdict::Return) => return Ending::End,
            Some(Verdict::Jump { chain: name, .. }) => {
                let target = ruleset.chains.iter().find(|chain| chain.name == name);
                let Some(target) = target.filter(|_| depth < DEEPEST) else {
                    continue;
                };
                match run_at(depth + 1, ruleset, target, subject, steps) {
                    Ending::End => {}
                    ending @ (Ending::Accept | Ending::Drop) => return ending,
                }
            }
        }
    }
    Ending::End
}

/// What comes of the last part, or of the one that ends the rule.
fn evaluate(ruleset: &Ruleset, rule: &Rule, subject: &mut Subject<'_>) -> Effect {
    for part in &rule.parts {
        match subject.part(ruleset, part) {
            Effect::Goes => {}
            end @ (Effect::Fails | Effect::Is(_)) => return end,
        }
    }
    Effect::Goes
}

fn told(verdict: Option<&Verdict>) -> (Outcome, Option<String>) {
    match verdict {
        None => (Outcome::GoesOn, None),
        Some(Verdict::Accept(note)) => (Outcome::Accept, note.clone()),
        Some(Verdict::Drop) => (Outcome::Drop, None),
        Some(Verdict::Return) => (Outcome::Return, None),
        Some(Verdict::Jump { chain, by_map }) => {
            // The rule's text says it unless a map does.
            let note = by_map.then(|| format!("jump {chain}"));
            (Outcome::Jump, note)
        }
    }
}
