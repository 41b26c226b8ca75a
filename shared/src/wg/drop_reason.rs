//! Every way in which a datagram or packet can end before its destination.

/// Why a datagram or packet was dropped; counted by variant, logged at TRACE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DropReason {
    /// No peer has the destination among its allowed IPs.
    NoPeerForDestination,
}
