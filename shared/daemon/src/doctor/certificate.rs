//! What the certificate of a service is worth to visitors and to Cloudflare.
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// Seconds before its end when a certificate should have been renewed; one for some days, in its last third.
const SOON: i64 = 14 * DAY;
const DAY: i64 = 24 * 3600;

/// How Cloudflare's own certificates for origins are signed
/// (<https://developers.cloudflare.com/ssl/origin-configuration/origin-ca/>).
const ORIGIN_CA: &str = "CloudFlare Origin";

/// What is to be said of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Worth {
    Good(String),
    /// It ends soon.
    NotForLong {
        evidence: String,
        remedy: String,
    },
    /// Not everybody takes it.
    NotForAll {
        evidence: String,
        remedy: String,
    },
    /// Nobody takes it.
    Bad {
        evidence: String,
        remedy: String,
    },
}

/// Of a chain, the server's own certificate first. `name` is what visitors ask for; without `roots` nobody asks who has signed it.
pub(super) fn worth(
    chain: &[CertificateDer<'_>],
    name: Option<&str>,
    roots: Option<RootCertStore>,
    now: SystemTime,
) -> Worth {
    let bad = |evidence: String, remedy: &str| Worth::Bad {
        evidence,
        remedy: remedy.to_owned(),
    };
    let Some((first, others)) = chain.split_first() else {
        return bad("it shows no certificate".to_owned(), "give it one");
    };
    let parsed = X509Certificate::from_der(first);
    let end_entity = webpki::EndEntityCert::try_from(first);
    let (Ok((_, parsed)), Ok(end_entity)) = (parsed, end_entity) else {
        return bad("its certificate can't be read".to_owned(), "make it anew");
    };
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let begins = parsed.validity().not_before.timestamp();
    let ends = parsed.validity().not_after.timestamp();
    if seconds > ends {
        let days = (seconds - ends) / DAY;
        return bad(
            format!("its certificate expired on {}, {days} days ago", date(ends)),
            "renew it; Cloudflare answers 526 with Full (strict)",
        );
    }
    if seconds < begins {
        return bad(
            format!("its certificate is not valid before {}", date(begins)),
            "look at the clocks of both hosts",
        );
    }
    let names: Vec<&str> = end_entity.valid_dns_names().collect();
    if let Some(name) = name {
        let server_name = ServerName::try_from(name);
        let is_for_it = server_name
            .is_ok_and(|name| end_entity.verify_is_valid_for_subject_name(&name).is_ok());
        if !is_for_it {
            let names = if names.is_empty() {
                "no name".to_owned()
            } else {
                names.join(", ")
            };
            return bad(
                format!("its certificate is not for {name} but for {names}"),
                "have the service show one for this name; Cloudflare answers 526 with Full (strict)",
            );
        }
    }
    let issuer = parsed.issuer().to_string();
    let whose = names.first().map(|name| format!(" for {name}"));
    let whose = whose.unwrap_or_default();
    if ends - seconds < SOON.min((ends - begins) / 3) {
        return Worth::NotForLong {
            evidence: format!("its certificate{whose} ends on {}", date(ends)),
            remedy: "renew it".to_owned(),
        };
    }
    let good = format!("its certificate{whose} ends on {}", date(ends));
    let Some(roots) = roots else {
        return Worth::Good(good);
    };
    if issuer.contains(ORIGIN_CA) {
        return Worth::Good(format!("{good}, and Cloudflare has signed it for origins"));
    }
    let name = name.or_else(|| names.first().copied());
    match untrusted(first, others, name, roots) {
        None => Worth::Good(format!("{good}, and is trusted")),
        Some(why) => Worth::NotForAll {
            evidence: format!("{good}, but is not trusted ({why}); {issuer} has signed it"),
            remedy: "fine for Cloudflare's Full; with Full (strict) it answers 526: take a certificate of Cloudflare's Origin CA \
                     or of a public one"
                .to_owned(),
        },
    }
}

/// Why nobody trusts it.
fn untrusted(
    first: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    name: Option<&str>,
    roots: RootCertStore,
) -> Option<String> {
    let Some(Ok(name)) = name.map(ServerName::try_from) else {
        return Some("it is for no name".to_owned());
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = match verifier {
        Ok(verifier) => verifier,
        Err(error) => return Some(error.to_string()),
    };
    let verified = verifier.verify_server_cert(first, others, &name, &[], UnixTime::now());
    verified.err().map(|error| error.to_string())
}

fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(
        |_| "a day far away".to_owned(),
        |at| at.strftime("%Y-%m-%d").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// For `www.example.com`, in the year 2026.
    fn certificate() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["www.example.com".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 12, 31);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn at(date: &str) -> SystemTime {
        let at: Timestamp = format!("{date}T12:00:00Z").parse().unwrap();
        UNIX_EPOCH + Duration::from_secs(at.as_second().try_into().unwrap())
    }

    #[test]
    fn what_counts_is_when_it_is_valid_and_for_whom() {
        let chain = [certificate()];
        let evidence = |name, date| match worth(&chain, name, None, at(date)) {
            Worth::Good(evidence) => format!("good: {evidence}"),
            Worth::NotForLong { evidence, .. } => format!("not for long: {evidence}"),
            Worth::NotForAll { evidence, .. } => format!("not for all: {evidence}"),
            Worth::Bad { evidence, .. } => format!("bad: {evidence}"),
        };
        for (name, date, expected) in [
            (
                None,
                "2026-06-01",
                "good: its certificate for www.example.com ends on 2026-12-31",
            ),
            (Some("www.example.com"), "2026-06-01", "good: "),
            (
                Some("shop.example.com"),
                "2026-06-01",
                "bad: its certificate is not for shop.example.com but for www.example.com",
            ),
            (
                None,
                "2026-12-25",
                "not for long: its certificate for www.example.com ends on 2026-12-31",
            ),
            (
                None,
                "2027-01-10",
                "bad: its certificate expired on 2026-12-31, 10 days ago",
            ),
            (
                None,
                "2025-06-01",
                "bad: its certificate is not valid before 2026-01-01",
            ),
        ] {
            let evidence = evidence(name, date);
            assert!(
                evidence.starts_with(expected),
                "{name:?} {date}: {evidence}"
            );
        }
        assert!(matches!(
            worth(&[], None, None, at("2026-06-01")),
            Worth::Bad { .. }
        ));
        let garbage = [CertificateDer::from(vec![0x30, 0x03, 1])];
        assert!(matches!(
            worth(&garbage, None, None, at("2026-06-01")),
            Worth::Bad { .. }
        ));
    }

    #[test]
    fn what_nobody_has_signed_is_good_enough_for_full_but_not_for_full_strict() {
        let chain = [certificate()];
        let worth = worth(&chain, None, Some(RootCertStore::empty()), at("2026-06-01"));
        assert!(matches!(worth, Worth::NotForAll { .. }), "{worth:?}");
    }
}
