//! What can go wrong with the kernel.
use std::io;

use crate::compare::Difference;
use crate::compile::InvalidRuleset;

/// Why an operation on nftables failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("can't open a netlink socket for nftables")]
    Open(#[source] io::Error),
    /// The process may not use nftables.
    #[error(
        "nftables refuses this process: it needs the capability CAP_NET_ADMIN in its network namespace; run it as root, \
         or set AmbientCapabilities=CAP_NET_ADMIN in its systemd unit"
    )]
    NotPermitted,
    /// Another process that is alive owns the table.
    #[error(
        "table inet {table} belongs to another process (netlink port {owner}, which usually is its process id): stop it \
         first"
    )]
    OwnedByOther {
        /// The table.
        table: String,
        /// Netlink port of the owner; 0 when the kernel doesn't tell.
        owner: u32,
    },
    /// The ruleset is wrong in itself.
    #[error(transparent)]
    Invalid(#[from] InvalidRuleset),
    /// The kernel refused one object of a transaction, and with it the whole.
    #[error("the kernel refused {object}; nothing was changed{remedy}")]
    Refused {
        /// Which one, in words.
        object: String,
        /// What may help; empty if nothing is known.
        remedy: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The socket failed in the middle of an exchange.
    #[error("the exchange with nftables failed while {what}")]
    Exchange {
        /// What was going on.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel didn't answer, or not in full.
    #[error("nftables gave no complete answer while {what}")]
    NoAnswer {
        /// What was going on.
        what: &'static str,
    },
    /// The kernel sent something that libnftnl can't read.
    #[error("nftables sent a message that can't be understood while {what}")]
    Malformed {
        /// What was going on.
        what: &'static str,
    },
    /// Other processes changed the ruleset faster than it could be read.
    #[error("the ruleset changed during each of {attempts} attempts to read it; try again")]
    Unsteady {
        /// How often it was tried.
        attempts: u32,
    },
    /// The transaction went through, but the table isn't what was written.
    #[error("table inet {table} is not what was written to it: {}", sentences(.differences))]
    NotAsWritten {
        /// The table.
        table: String,
        /// What differs.
        differences: Vec<Difference>,
    },
}

fn sentences(differences: &[Difference]) -> String {
    let texts: Vec<_> = differences.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
