//! What the doctor found: `POST /v1/probes`, output of `doctor --json`.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// Only the published service of this name; `null` is all.
    #[serde(default)]
    pub publish: Option<String>,
    /// Host name that a visitor asks for: the certificate has to be for it, and HTTP is asked for it. Without one no name is asked
    /// for.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// Every hop of every published path, in the order in which a visitor's packets take them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// The end that has looked: `gateway` or `lan-server`.
    pub end: String,
    /// When it was begun.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// How long it took.
    pub took_milliseconds: u64,
    /// The worst verdict of all hops.
    pub verdict: Verdict,
    /// Where the paths are broken: of each, the first hop that failed. What failed behind it is a consequence of it as a rule.
    pub faults: Vec<Hop>,
    /// The hops: what all paths have in common first.
    pub hops: Vec<Hop>,
}

/// One of the places that packets pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "in JSON it stands alone")]
pub struct Hop {
    /// What it is.
    pub hop: HopKind,
    /// Whose: the name of a peer, a service with its address (`ingress 10.17.5.30:443`), or of the host itself.
    pub of: String,
    /// What was found.
    pub verdict: Verdict,
    /// How long the attempt took; `null` where nothing was sent.
    #[schema(required)]
    pub milliseconds: Option<u64>,
    /// What the verdict stands on.
    pub evidence: String,
    /// What puts it right, or where to look next; `null` when nothing has to.
    #[schema(required)]
    pub remedy: Option<String>,
    /// The error that Cloudflare shows to visitors because of it, as far as that can be said: 522.
    #[schema(required)]
    pub cloudflare_error: Option<u16>,
}

/// The kinds of places, in their order on a path.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum HopKind {
    /// The daemon of this end runs.
    Daemon,
    /// The kernel holds what the configuration asks for.
    Kernel,
    /// The link to the internet, and the way to the other end's public address.
    Uplink,
    /// The tunnel's UDP datagrams get past the firewalls of this host.
    Datagrams,
    /// The WireGuard session with the other end.
    Session,
    /// An echo through the tunnel.
    Ping,
    /// A packet as large as the tunnel's MTU, which must not be fragmented.
    PathMtu,
    /// Who may call, and whom the guard refuses.
    Guard,
    /// The translation of the public port to the VIP.
    Translation,
    /// The firewalls of others let visitors and their answers through.
    Firewall,
    /// The route to the VIP.
    Route,
    /// A TCP connection to the VIP.
    Connection,
    /// Answers of the service to visitors whose addresses are preserved come back by this host.
    Reply,
    /// The TLS handshake: name, chain and expiry of the certificate.
    Tls,
    /// The status of an HTTP request.
    Http,
}

impl HopKind {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Kernel => "kernel",
            Self::Uplink => "uplink",
            Self::Datagrams => "datagrams",
            Self::Session => "session",
            Self::Ping => "ping",
            Self::PathMtu => "path_mtu",
            Self::Guard => "guard",
            Self::Translation => "translation",
            Self::Firewall => "firewall",
            Self::Route => "route",
            Self::Connection => "connection",
            Self::Reply => "reply",
            Self::Tls => "tls",
            Self::Http => "http",
        }
    }
}

/// What was found at a hop, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It works.
    Ok,
    /// It could not be looked at, or there is nothing to look at.
    Skipped,
    /// It works, and will not for some visitors, or not for long.
    Warning,
    /// It does not work.
    Failed,
}

impl Verdict {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}
