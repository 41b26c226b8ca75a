//! A packet's passage through one host: hooks, connection tracking, translation and routing in the kernel's order.
//!
//! ```text
//! from a link:  prerouting ─► route ─┬─► input ─► delivered
//!                                    └─► forward ─► postrouting ─► sent
//! own packet:   route ─► output ─► route again, by its mark ─► postrouting ─► sent
//! ```
use super::chain::{self, Ending};
use super::host::{Destination, Host};
use super::packet::Packet;
use super::part::{Subject, Tracked, Tracking};
use crate::api::trace::Outcome;
use crate::model::InterfaceName;
use crate::plan::ruleset::{BaseChain, Chain, ChainKind, Hook, Side, priority};

/// Where connection tracking looks at a packet: `NF_IP_PRI_CONNTRACK` of `include/uapi/linux/netfilter_ipv4.h`.
const CONNTRACK: i32 = -200;

/// A rule that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Chain.
    pub chain: String,
    /// The rule, as `nft` lists it.
    pub rule: String,
    /// What became of the packet.
    pub outcome: Outcome,
    /// What the text of the rule does not say.
    pub note: Option<String>,
}

/// How a packet gets to a host.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'h> {
    /// Over a link.
    Link(&'h InterfaceName),
    /// It is the host's own.
    Own,
}

/// A packet's passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The rules that matched.
    pub steps: Vec<Step>,
    /// How it ended.
    pub end: End,
    /// What connection tracking knows now; `None` when nothing was tracked.
    pub connection: Option<Connection>,
}

/// How a passage ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By the last rule of the steps.
    DroppedByRule,
    /// By the kernel itself, for this reason.
    Dropped(String),
    /// To the host.
    Delivered(Packet),
    /// Over a link.
    Sent {
        /// The link.
        link: InterfaceName,
        /// As it leaves.
        packet: Packet,
    },
}

/// What connection tracking of a host remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// The first packet as it came.
    pub original: Packet,
    /// What answers it, as it comes: the first packet as it left, reversed.
    pub answer: Packet,
    /// Mark.
    pub mark: u32,
    /// Whether the destination was changed.
    pub has_dnat: bool,
}

impl Connection {
    /// As in the kernel, a packet belongs to the direction whose tuple it has; the only one that is not the first packet's
    /// answers it.
    fn is_answered_by(&self, packet: &Packet) -> bool {
        !self.original.is_of_same_tuple(packet)
    }
}

impl Host {
    /// What becomes of a packet. `known` is the connection that it belongs to, in either direction; without, it opens one.
    pub fn pass(&self, entry: Entry<'_>, packet: Packet, known: Option<&Connection>) -> Passage {
        let input = match entry {
            Entry::Link(link) => Some(link),
            Entry::Own => None,
        };
        let mut run = Run {
            original: packet,
            known,
            subject: Subject {
                host: self,
                input,
                output: None,
                packet,
                mark: 0,
                tracking: Tracking::NotYet,
            },
            steps: Vec::new(),
        };
        let end = match entry {
            Entry::Link(_) => run.receive(),
            Entry::Own => run.send(),
        };
        Passage {
            connection: run.connection(),
            steps: run.steps,
            end: end.unwrap_or_else(|end| end),
        }
    }
}

struct Run<'h> {
    original: Packet,
    known: Option<&'h Connection>,
    subject: Subject<'h>,
    steps: Vec<Step>,
}

impl<'h> Run<'h> {
    /// The packet comes over a link. An early end is an `Err`.
    fn receive(&mut self) -> Result<End, End> {
        self.hook(Hook::Prerouting)?;
        let host = self.subject.host;
        let packet = self.subject.packet;
        // `__fib_validate_source`; IPv6 knows no such rule.
        if packet.source.is_ipv4() && host.is_local(packet.source) {
            let source = packet.source;
            return Err(End::Dropped(format!(
                "{source} is an address of this host, which takes no packet from itself over a link"
            )));
        }
        match host.route(packet.destination, self.subject.mark) {
            Destination::Local => {
                self.hook(Hook::Input)?;
                Ok(End::Delivered(self.subject.packet))
            }
            Destination::Link(link) => {
                self.subject.output = Some(link);
                self.hook(Hook::Forward)?;
                self.leave(link)
            }
            Destination::Nowhere => Err(self.no_route()),
        }
    }

    /// The packet is the host's own.
    fn send(&mut self) -> Result<End, End> {
        let host = self.subject.host;
        let destination = self.subject.packet.destination;
        let link = match host.route(destination, self.subject.mark) {
            Destination::Local => return Ok(End::Delivered(self.subject.packet)),
            Destination::Link(link) => link,
            Destination::Nowhere => return Err(self.no_route()),
        };
        self.subject.output = Some(link);
        self.hook(Hook::Output)?;
        // A chain of the type `route` has the packet routed again when its mark has changed.
        match host.route(self.subject.packet.destination, self.subject.mark) {
            Destination::Local => Ok(End::Delivered(self.subject.packet)),
            Destination::Link(link) => self.leave(link),
            Destination::Nowhere => Err(self.no_route()),
        }
    }

    fn leave(&mut self, link: &'h InterfaceName) -> Result<End, End> {
        // The postrouting hook knows only where a packet goes.
        (self.subject.input, self.subject.output) = (None, Some(link));
        self.hook(Hook::Postrouting)?;
        Ok(End::Sent {
            link: link.clone(),
            packet: self.subject.packet,
        })
    }

    fn no_route(&self) -> End {
        let destination = self.subject.packet.destination;
        End::Dropped(format!("there is no route to {destination}"))
    }

    /// All chains of a hook by priority, with what the kernel itself does between them.
    fn hook(&mut self, hook: Hook) -> Result<(), End> {
        let host = self.subject.host;
        let ruleset = &host.ruleset;
        let here = |chain: &'h Chain| Some((chain.base.filter(|base| base.hook == hook)?, chain));
        let mut chains: Vec<(BaseChain, &Chain)> = ruleset.chains.iter().filter_map(here).collect();
        chains.sort_by_key(|(base, _)| base.priority);
        let mut done = i32::MIN;
        let mut is_translated = false;
        for (base, chain) in chains {
            self.kernel(hook, done, base.priority);
            done = base.priority;
            match base.kind {
                ChainKind::Filter | ChainKind::Route => {}
                // Only the first packet is looked at, and by no further chain once it is translated.
                ChainKind::Nat if self.is_new() && !is_translated => {}
                ChainKind::Nat => continue,
            }
            let before = self.subject.packet;
            match chain::run(ruleset, chain, &mut self.subject, &mut self.steps) {
                Ending::End | Ending::Accept => {}
                Ending::Drop => return Err(End::DroppedByRule),
            }
            is_translated |= base.kind == ChainKind::Nat && self.subject.packet != before;
        }
        self.kernel(hook, done, i32::MAX);
        Ok(())
    }

    /// What the kernel does at a hook itself, after what has the priority `after` and before what has `until`.
    fn kernel(&mut self, hook: Hook, after: i32, until: i32) {
        let is_due = |at: i32| after < at && at <= until;
        let (tracks, translates) = match hook {
            Hook::Prerouting | Hook::Output => (true, Some((priority::DSTNAT, Side::Destination))),
            Hook::Postrouting => (false, Some((priority::SRCNAT, Side::Source))),
            Hook::Input | Hook::Forward => (false, None),
        };
        if tracks && is_due(CONNTRACK) && self.subject.tracking == Tracking::NotYet {
            self.subject.tracking = Tracking::Tracked(match self.known {
                None => Tracked {
                    is_new: true,
                    is_reply: false,
                    mark: 0,
                    has_dnat: false,
                },
                Some(known) => Tracked {
                    is_new: false,
                    is_reply: known.is_answered_by(&self.original),
                    mark: known.mark,
                    has_dnat: known.has_dnat,
                },
            });
        }
        // Answers get the addresses of the first packet back, and what follows that packet gets what it got.
        if let (Some(known), Some((_, side))) =
            (self.known, translates.filter(|(at, _)| is_due(*at)))
        {
            let leaving = if known.is_answered_by(&self.original) {
                known.original.reversed()
            } else {
                known.answer.reversed()
            };
            let (address, port) = (leaving.address(side), leaving.port(side));
            self.subject.packet.rewrite(side, address, port);
        }
    }

    fn is_new(&self) -> bool {
        match self.subject.tracking {
            Tracking::Tracked(ct) => ct.is_new,
            Tracking::NotYet | Tracking::Untracked => false,
        }
    }

    fn connection(&self) -> Option<Connection> {
        match self.subject.tracking {
            Tracking::Tracked(ct) => {
                let opened = (self.original, self.subject.packet.reversed());
                let known = self.known.map(|known| (known.original, known.answer));
                let (original, answer) = known.unwrap_or(opened);
                Some(Connection {
                    original,
                    answer,
                    mark: ct.mark,
                    has_dnat: ct.has_dnat,
                })
            }
            Tracking::NotYet | Tracking::Untracked => None,
        }
    }
}
