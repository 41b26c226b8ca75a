//! The way of a call through the rules of both ends, simulated: `POST /v1/trace`, output of `trace --json`.
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whose call it is, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// `peer:NAME`, an address, or `internet`.
    pub from: String,
    /// `ADDRESS:PORT/PROTOCOL`; without a protocol it is TCP.
    pub to: String,
    /// Configuration files of the gateway's LAN servers, as absolute paths that the daemon can read. Only by the unix socket.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub lan_server_files: Vec<PathBuf>,
}

/// The way of a call, and of its answer when it arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// Address of the caller.
    #[schema(value_type = String)]
    pub from: IpAddr,
    /// What is called: `10.17.5.10:6443/tcp`.
    pub to: String,
    /// Whether the call arrives and its answer comes back.
    pub allowed: bool,
    /// What decides it: the rule, or the lack of one or of a route.
    pub reason: String,
    /// The way, in order.
    pub steps: Vec<TraceStep>,
    /// The LAN server whose rules would have had a say and are not known here; it is taken to let the call through.
    #[schema(required)]
    pub not_looked_at: Option<String>,
}

/// A step on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    /// Where: `gateway`, or `lan-server NAME`.
    pub end: String,
    /// Whether it is the answer that takes it.
    pub answer: bool,
    /// A chain of the firewall table, `tunnel` (which peer an address belongs to) or `route`.
    pub place: String,
    /// The rule as `nft` lists it, or what is so.
    pub text: String,
    /// What becomes of the packet.
    pub outcome: Outcome,
    /// What the text does not say: the chain to which a map leads, the address that a packet gets.
    #[schema(required)]
    pub note: Option<String>,
}

/// What becomes of a packet at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It goes on to the next rule or the next part of its way.
    GoesOn,
    /// The chain lets it pass.
    Accept,
    /// It ends here.
    Drop,
    /// It goes on in another chain.
    Jump,
    /// It goes back to the chain that it came from.
    Return,
}
