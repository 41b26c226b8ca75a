//! What a base chain does with a packet, as far as it can be said.
//!
//! Every way through the chain is followed that what is not known leaves open. What all of them end with is certain; what
//! none of them ends with, can't happen.
use std::collections::BTreeMap;

use nftnl_sys::libc;

use super::bits::Truth;
use super::instruction::{Translation, leads_on};
use super::machine::{Machine, RuleEnd, Step};
use super::path::Packet;
use super::read::{ForeignChain, ForeignRule, ForeignTable};

/// How a packet's way through a base chain can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) kind: EndKind,
    pub(crate) place: Place,
    /// Whether everything that leads to it is known to be so, but for what would have ended the way before.
    pub(crate) is_sure: bool,
}

/// What becomes of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndKind {
    Accepted,
    Dropped,
    Rejected,
    Translated(Translation),
}

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Policy,
    /// By their positions.
    Rule {
        chain: usize,
        rule: usize,
    },
}

/// What the rules of a chain do.
#[derive(Debug, Clone, Default)]
struct Course {
    ends: Vec<End>,
    /// Whether a packet can come out of the chain again.
    goes_on: bool,
}

impl Course {
    fn add(&mut self, end: End) {
        if !self.ends.contains(&end) {
            self.ends.push(end);
        }
    }

    /// What a chain that is jumped to does; `is_sure` says whether the jump is.
    fn add_all(&mut self, ends: &[End], is_sure: bool) {
        for end in ends {
            self.add(End {
                is_sure: end.is_sure && is_sure,
                ..*end
            });
        }
    }
}

/// Every way in which a base chain's part of a packet's way can end.
pub(crate) fn ends(table: &ForeignTable, base: usize, packet: &Packet<'_>) -> Vec<End> {
    let mut interpreter = Interpreter {
        table,
        packet,
        known: BTreeMap::new(),
    };
    let mut course = interpreter.chain(base);
    if course.goes_on {
        let drops = table.chain(base).is_some_and(ForeignChain::drops_by_policy);
        course.add(End {
            kind: if drops {
                EndKind::Dropped
            } else {
                EndKind::Accepted
            },
            place: Place::Policy,
            is_sure: true,
        });
    }
    course.ends
}

struct Interpreter<'a> {
    table: &'a ForeignTable,
    packet: &'a Packet<'a>,
    /// What chains do that were followed already; of one that is being followed, nothing yet.
    known: BTreeMap<usize, Option<Course>>,
}

/// What a rule does with the packet.
#[derive(Debug, Default)]
struct RuleCourse {
    ends: Vec<(RuleEnd, bool)>,
    /// Whether the next rule may follow.
    goes_on: bool,
}

impl<'a> Interpreter<'a> {
    fn chain(&mut self, at: usize) -> Course {
        match self.known.get(&at) {
            Some(Some(course)) => return course.clone(),
            // The kernel has no loops: this dump is not of one moment. Nothing is said of it.
            Some(None) => return anything(at),
            None => {}
        }
        self.known.insert(at, None);
        let course = self.follow(at);
        self.known.insert(at, Some(course.clone()));
        course
    }

    fn follow(&mut self, at: usize) -> Course {
        let table: &'a ForeignTable = self.table;
        let mut course = Course::default();
        let rules = table.chain(at).map_or(&[][..], |chain| &chain.rules);
        for (number, rule) in rules.iter().enumerate() {
            let of_rule = self.rule(rule);
            let mut goes_on = of_rule.goes_on;
            for (end, is_sure) in of_rule.ends {
                let place = Place::Rule {
                    chain: at,
                    rule: number,
                };
                goes_on |= self.end(&mut course, &end, place, is_sure);
            }
            if !goes_on {
                return course;
            }
        }
        course.goes_on = true;
        course
    }

    /// Whether the next rule may follow.
    fn end(&mut self, course: &mut Course, end: &RuleEnd, place: Place, is_sure: bool) -> bool {
        let (code, chain) = match end {
            RuleEnd::Kind(kind) => {
                course.add(End {
                    kind: *kind,
                    place,
                    is_sure,
                });
                return false;
            }
            RuleEnd::Verdict { code, chain } => (*code, chain.as_deref()),
        };
        if leads_on(code) {
            let target = chain.and_then(|name| self.table.position(name));
            let of_chain = target.map(|target| self.chain(target));
            let of_chain = of_chain.unwrap_or_else(|| anything(0));
            course.add_all(&of_chain.ends, is_sure);
            if code == libc::NFT_JUMP {
                return of_chain.goes_on;
            }
            course.goes_on |= of_chain.goes_on;
            return false;
        }
        match code {
            libc::NFT_RETURN => {
                course.goes_on = true;
                false
            }
            libc::NFT_CONTINUE | libc::NFT_BREAK => true,
            libc::NF_DROP => {
                course.add(End {
                    kind: EndKind::Dropped,
                    place,
                    is_sure,
                });
                false
            }
            // Accepted, or given to a program that may accept it.
            _ => {
                course.add(End {
                    kind: EndKind::Accepted,
                    place,
                    is_sure,
                });
                false
            }
        }
    }

    fn rule(&self, rule: &ForeignRule) -> RuleCourse {
        let mut machine = Machine::new(self.table, self.packet);
        let mut course = RuleCourse::default();
        let mut so_far = Truth::Yes;
        for instruction in &rule.instructions {
            let matches = match machine.step(instruction) {
                Step::On(matches) => matches,
                Step::Next => {
                    course.goes_on = true;
                    return course;
                }
                Step::Unknown { may_accept } => {
                    if may_accept {
                        course.ends.push((RuleEnd::Kind(EndKind::Accepted), false));
                    }
                    Truth::Maybe
                }
                Step::Ends { ends, matches } => {
                    so_far = so_far.and(matches);
                    let is_sure = so_far == Truth::Yes && ends.len() == 1;
                    course
                        .ends
                        .extend(ends.into_iter().map(|end| (end, is_sure)));
                    course.goes_on = so_far != Truth::Yes;
                    return course;
                }
            };
            so_far = so_far.and(matches);
            if so_far == Truth::No {
                course.goes_on = true;
                return course;
            }
        }
        course.goes_on = true;
        course
    }
}

/// Nothing can be said: it may come out, and it may be accepted.
fn anything(chain: usize) -> Course {
    Course {
        ends: vec![End {
            kind: EndKind::Accepted,
            place: Place::Rule { chain, rule: 0 },
            is_sure: false,
        }],
        goes_on: true,
    }
}
