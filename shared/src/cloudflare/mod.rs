//! Lists of Cloudflare's networks: which may take the place of the one in use, and when. Pure; who fetches them and puts them
//! in place is the daemon.
//!
//! Whoever can change this list decides who may call the published services, so what arrives is not believed for being signed
//! by a web server's certificate:
//!
//! | step | module | what is refused |
//! |---|---|---|
//! | text → networks | `parse` | whatever is neither the JSON of Cloudflare's API nor one network a line, to the last byte |
//! | networks → a list that can be Cloudflare's | `check` | too few or too wide networks, private ones, ours, a list of another size |
//! | list → what is in use | `list` | nothing: new networks count at once, those that are missing go after a week |
mod check;
mod list;
mod parse;

#[cfg(test)]
mod tests;

use ipnetwork::IpNetwork;

use crate::config::value::NetworkError;

pub use list::{ABSENT_BEFORE_REMOVAL_DAYS, Changes, List};

/// Longest text of a list in bytes; Cloudflare's own have less than one thousand.
pub const LONGEST_TEXT: usize = 64 * 1024;

/// Why a list is not taken. The one in use stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing, or nothing but blank lines.
    #[error("it is empty")]
    Empty,
    /// More than [`LONGEST_TEXT`].
    #[error("it is longer than {LONGEST_TEXT} bytes, which no list of networks is")]
    TooLong,
    /// What servers answer when they have something else to say.
    #[error("it is a web page and no list of networks")]
    WebPage,
    /// Broken off, or of another format.
    #[error("it is not the JSON of Cloudflare's API: {0}")]
    Json(String),
    /// `"success": false`.
    #[error("Cloudflare's API says that it could not answer")]
    NotSuccessful,
    /// No network.
    #[error("entry {number} is wrong: {error}")]
    Entry {
        /// Which one, counted from 1 without blank lines.
        number: usize,
        /// Why.
        #[source]
        error: NetworkError,
    },
    /// An address without a length, as where a line broke off.
    #[error("entry {0} has no prefix length; the list may have been cut off")]
    NoPrefixLength(usize),
    /// It can't be all.
    #[error("it has {found} {family} networks, but Cloudflare has at least {least}")]
    TooFew {
        /// Address family.
        family: &'static str,
        /// How many there are.
        found: usize,
        /// How many there have to be.
        least: usize,
    },
    /// Too many addresses for one network of Cloudflare's.
    #[error("{0} is wider than any network of Cloudflare's")]
    TooWide(IpNetwork),
    /// Addresses that nobody on the internet has.
    #[error("{0} has addresses of {1}, from where nobody on the internet calls")]
    NotPublic(IpNetwork, IpNetwork),
    /// Addresses of this very edge.
    #[error("{0} has addresses of {1}, which is ours")]
    Ours(IpNetwork, IpNetwork),
    /// The size changed more than a provider's networks do in a day.
    #[error(
        "its {family} part went from {from} to {to} {measure}, more than is believed without an operator; if Cloudflare has \
         really changed that much, write its networks as `cloudflare` in [sets] on both ends"
    )]
    Size {
        /// Address family.
        family: &'static str,
        /// What is counted.
        measure: &'static str,
        /// In the list in use.
        from: u128,
        /// In the new one.
        to: u128,
    },
}
