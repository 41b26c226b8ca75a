//! One transaction: its steps in order, and the kernel's verdict on each.
use std::io;

use nftnl::{Batch, MsgType};
use nftnl_sys::libc;

use crate::compile::{CompiledChain, CompiledRule};
use crate::error::Error;
use crate::netlink::{Answer, Netlink};
use crate::set::SetState;
use crate::sys::{
    BatchMessage, Chain, CounterObject, Element, Object, Payload, Rule, Set, SetElements, Table,
    Verb, unfinished,
};

const CREATE: i32 = libc::NLM_F_CREATE;
const APPEND: i32 = libc::NLM_F_CREATE | libc::NLM_F_APPEND;

/// The steps of a transaction on one table.
pub(crate) struct Transaction {
    table: String,
    steps: Vec<Step>,
    /// Last number given to a set: messages refer by it to a set that the same transaction creates.
    set_id: u32,
}

struct Step {
    verb: Verb,
    payload: Box<dyn Payload>,
    /// What it is about, for errors.
    object: String,
    /// What may help if it is refused.
    remedy: String,
}

/// What to do with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Carry it out.
    Commit,
    /// Only ask whether the kernel would.
    Check,
}

impl Transaction {
    /// No steps yet.
    pub(crate) fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            steps: Vec::new(),
            set_id: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Creates the table, or changes its flags.
    pub(crate) fn add_table(&mut self, flags: u32) {
        let table = Table::new(&self.table, Some(flags));
        self.step(
            libc::NFT_MSG_NEWTABLE,
            CREATE,
            table,
            format!("the table inet {}", self.table),
        );
    }

    /// Deletes the table and everything in it.
    pub(crate) fn delete_table(&mut self) {
        let table = Table::new(&self.table, None);
        self.step(
            libc::NFT_MSG_DELTABLE,
            0,
            table,
            format!("to delete the table inet {}", self.table),
        );
    }

    pub(crate) fn add_counter(&mut self, counter: &CounterObject) {
        let object = Object::counter(&self.table, counter);
        self.step(
            libc::NFT_MSG_NEWOBJ,
            CREATE,
            object,
            format!("the counter {}", counter.name),
        );
    }

    pub(crate) fn delete_counter(&mut self, name: &str) {
        let counter = CounterObject {
            name: name.to_owned(),
            packets: 0,
            bytes: 0,
        };
        let object = Object::counter(&self.table, &counter);
        self.step(
            libc::NFT_MSG_DELOBJ,
            0,
            object,
            format!("to delete the counter {name}"),
        );
    }

    /// Creates a chain without rules.
    pub(crate) fn add_chain(&mut self, chain: &CompiledChain) {
        let payload = Chain::new(&self.table, &chain.name, chain.hook.as_ref());
        self.step(
            libc::NFT_MSG_NEWCHAIN,
            CREATE,
            payload,
            format!("the chain {}", chain.name),
        );
        let is_nat = chain.hook.as_ref().is_some_and(|hook| hook.kind == "nat");
        if let Some(step) = self.steps.last_mut().filter(|_| is_nat) {
            step.remedy = module_remedy("nft_chain_nat");
        }
    }

    /// Deletes a chain without rules.
    pub(crate) fn delete_chain(&mut self, name: &str) {
        let payload = Chain::new(&self.table, name, None);
        self.step(
            libc::NFT_MSG_DELCHAIN,
            0,
            payload,
            format!("to delete the chain {name}"),
        );
    }

    /// Deletes the rules of a chain; of all chains without one.
    pub(crate) fn flush(&mut self, chain: Option<&str>) {
        let rules = Rule::all(&self.table, chain);
        let object = match chain {
            Some(chain) => format!("to delete the rules of chain {chain}"),
            None => "to delete all rules".to_owned(),
        };
        self.step(libc::NFT_MSG_DELRULE, 0, rules, object);
    }

    /// Creates a set with its elements; returns its number.
    pub(crate) fn add_set(&mut self, set: &SetState, object: &str) -> u32 {
        self.set_id += 1;
        let id = self.set_id;
        let payload = Set::new(&self.table, &set.header(), id);
        self.step(libc::NFT_MSG_NEWSET, CREATE, payload, object.to_owned());
        let elements: Vec<&Element> = set.elements.iter().collect();
        self.elements(
            libc::NFT_MSG_NEWSETELEM,
            &set.name,
            Some(id),
            &elements,
            object,
        );
        id
    }

    pub(crate) fn delete_set(&mut self, name: &str) {
        let payload = Set::named(&self.table, name);
        self.step(
            libc::NFT_MSG_DELSET,
            0,
            payload,
            format!("to delete the set {name}"),
        );
    }

    pub(crate) fn add_elements(&mut self, set: &str, elements: &[&Element]) {
        self.elements(
            libc::NFT_MSG_NEWSETELEM,
            set,
            None,
            elements,
            &format!("the set {set}"),
        );
    }

    pub(crate) fn delete_elements(&mut self, set: &str, elements: &[&Element]) {
        self.elements(
            libc::NFT_MSG_DELSETELEM,
            set,
            None,
            elements,
            &format!("the set {set}"),
        );
    }

    fn elements(
        &mut self,
        message: i32,
        set: &str,
        id: Option<u32>,
        elements: &[&Element],
        object: &str,
    ) {
        let flags = if message == libc::NFT_MSG_NEWSETELEM {
            CREATE
        } else {
            0
        };
        let verb = if message == libc::NFT_MSG_NEWSETELEM {
            "elements"
        } else {
            "to delete elements"
        };
        for chunk in elements.chunks(SetElements::MOST) {
            let payload = SetElements::new(&self.table, set, id, chunk);
            self.step(message, flags, payload, format!("{verb} of {object}"));
        }
    }

    /// Appends a rule to its chain, after creating its anonymous sets.
    pub(crate) fn add_rule(&mut self, chain: &str, number: usize, rule: &CompiledRule) {
        let object = format!("rule {number} of chain {chain} (`{}`)", rule.text);
        let mut expressions = Vec::with_capacity(rule.expressions.len());
        for expr in &rule.expressions {
            let id = expr
                .anonymous_set()
                .map(|set| self.add_set(set, &format!("the list of ports of {object}")));
            expressions.push(expr.encode(id.unwrap_or_default()));
        }
        let comment = rule
            .comment
            .as_deref()
            .map(comment_record)
            .unwrap_or_default();
        let payload = Rule::new(&self.table, chain, expressions, &comment);
        self.step(libc::NFT_MSG_NEWRULE, APPEND, payload, object);
        let modules: Vec<&str> = rule
            .expressions
            .iter()
            .filter_map(super::expr::Expr::kernel_module)
            .collect();
        if let Some(step) = self.steps.last_mut().filter(|_| !modules.is_empty()) {
            step.remedy = module_remedy(&modules.join(", "));
        }
    }

    fn step(&mut self, message: i32, flags: i32, payload: impl Payload + 'static, object: String) {
        let verb = Verb { message, flags };
        self.steps.push(Step {
            verb,
            payload: Box::new(payload),
            object,
            remedy: String::new(),
        });
    }

    /// Sends all steps as one batch: the kernel carries out all of them or none.
    pub(crate) fn send(mut self, netlink: &mut Netlink, mode: Mode) -> Result<(), Error> {
        let Some(last) = self.steps.last_mut() else {
            return Ok(());
        };
        // One acknowledgement, of the last step, proves that the kernel came to the end. (Kernels before 6.10 ignore the
        // flag on the batch's end.) Refusals come without being asked for.
        last.verb.flags |= libc::NLM_F_ACK;
        let messages: Vec<_> = self
            .steps
            .iter()
            .map(|s| BatchMessage::new(s.verb, &*s.payload))
            .collect();
        let mut batch = Batch::new();
        for message in &messages {
            batch.add(message, MsgType::Add);
        }
        let bytes = match mode {
            Mode::Commit => batch.finalize().iter().flatten().copied().collect(),
            Mode::Check => unfinished(&batch),
        };
        let answers = netlink.transact(&bytes)?;
        let numbers: Vec<u32> = messages.iter().map(BatchMessage::seq).collect();
        self.judge(&numbers, &answers)
    }

    /// The first refusal is the cause; later ones often follow from it.
    fn judge(&self, numbers: &[u32], answers: &[Answer]) -> Result<(), Error> {
        let step_of = |answer: &Answer| {
            let index = numbers.iter().position(|number| *number == answer.seq)?;
            self.steps.get(index)
        };
        match answers.iter().find(|answer| answer.errno != 0) {
            Some(refusal) => Err(self.refused(refusal, step_of(refusal))),
            None if answers
                .iter()
                .any(|answer| Some(&answer.seq) == numbers.last()) =>
            {
                Ok(())
            }
            None => Err(Error::NoAnswer {
                what: "writing a transaction",
            }),
        }
    }

    fn refused(&self, refusal: &Answer, step: Option<&Step>) -> Error {
        match (refusal.errno, step) {
            // The batch as a whole: refused before its first step was looked at.
            (libc::EPERM, None) => Error::NotPermitted,
            (libc::EPERM, Some(_)) => Error::OwnedByOther {
                table: self.table.clone(),
                owner: 0,
            },
            (_, None) => Error::Refused {
                object: format!("the transaction on table inet {} as a whole", self.table),
                remedy: String::new(),
                source: refusal.error(),
            },
            (errno, Some(step)) => {
                let missing = matches!(
                    errno,
                    libc::EOPNOTSUPP | libc::ENOENT | libc::EPROTONOSUPPORT
                );
                Error::Refused {
                    object: step.object.clone(),
                    remedy: if missing {
                        step.remedy.clone()
                    } else {
                        String::new()
                    },
                    source: refusal.error(),
                }
            }
        }
    }
}

fn module_remedy(modules: &str) -> String {
    format!("; is the kernel module {modules} missing?")
}

/// nft's record of a comment: type 0, length, text with a final zero. The compiler has checked that it is short.
fn comment_record(comment: &str) -> Vec<u8> {
    let len = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[0, len], comment.as_bytes(), &[0]].concat()
}

/// Whether the kernel knows these table flags, asked without changing anything.
pub(crate) fn knows_table_flags(netlink: &mut Netlink, flags: u32) -> Result<bool, Error> {
    let mut probe = Transaction::new(&format!("wg_edge_probe_{}", netlink.port()));
    probe.add_table(flags);
    match probe.send(netlink, Mode::Check) {
        Ok(()) => Ok(true),
        Err(Error::Refused { source, .. }) if is_unsupported(&source) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}
