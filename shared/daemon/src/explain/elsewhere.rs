//! What the errors mean, and what of them can't be seen from a host of ours. After Cloudflare's own words
//! (<https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/>) and its limits for
//! connections (<https://developers.cloudflare.com/fundamentals/reference/connection-limits/>).
use shared::api::explanation::{Cause, Likelihood};

/// What Cloudflare says by it.
pub(super) const fn meaning(number: u16) -> &'static str {
    match number {
        520 => "the origin ended the connection, or answered what is no HTTP",
        521 => "the origin refused the connection",
        522 => {
            "the origin did not take the connection within 19 s, or did not confirm data within 90 s"
        }
        523 => "there is no way to the origin",
        524 => "the origin took the request and did not answer for 100 s",
        525 => "TLS with the origin failed",
        526 => {
            "the certificate of the origin is not valid, and the zone wants it to be (Full (strict))"
        }
        _ => "none of the origin's",
    }
}

/// What and where to look.
const fn places(number: u16) -> &'static [(&'static str, &'static str)] {
    match number {
        520 => &[
            (
                "the service ends connections that Cloudflare keeps open",
                "its time-out for idle connections, and that of every proxy on the way, must be longer than 900 s",
            ),
            (
                "headers of more than 128 KB, or an answer without any",
                "the log of the service at that time",
            ),
        ],
        521 => &[(
            "the port is not published, so that the VPS itself refuses",
            "the origin's port in the rules of the zone against `[[publish]]`",
        )],
        522 => &[(
            "a firewall of the provider before the VPS",
            "its rules for TCP 80 and 443, and its protection against floods",
        )],
        523 => &[
            (
                "the A or AAAA record does not name this VPS",
                "the record in the zone against the address of the VPS",
            ),
            (
                "a route of the VPS or of its provider leads Cloudflare's networks elsewhere",
                "`ip route get 172.64.0.1` on the VPS",
            ),
        ],
        524 => &[(
            "the application is slow",
            "its own log and figures; what takes longer than 100 s can't be done while a visitor waits",
        )],
        525 => &[
            (
                "the service has no certificate for the name that visitors ask for",
                "`doctor --server-name` with that name",
            ),
            (
                "the PROXY protocol is spoken on one side only",
                "`send-proxy-v2` of the load balancer against `proxyProtocol.trustedIPs` of the ingress",
            ),
        ],
        526 => &[(
            "the name that visitors ask for is not on the certificate",
            "`doctor --server-name` with that name",
        )],
        _ => &[],
    }
}

pub(super) fn causes(number: u16) -> impl Iterator<Item = Cause> {
    places(number).iter().map(|&(what, look)| Cause {
        likelihood: Likelihood::Elsewhere,
        what: what.to_owned(),
        evidence: "can't be seen from here".to_owned(),
        remedy: Some(look.to_owned()),
    })
}
