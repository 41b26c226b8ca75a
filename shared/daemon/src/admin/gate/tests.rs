//! Facts about the gate.
use axum::body::Body;
use shared::api::scope::Scope;

use super::*;

struct OneToken;

impl Authenticator for OneToken {
    fn authenticate(&self, id: &str, secret: &str) -> Option<Actor> {
        ((id, secret) == ("ci", "right_one")).then(|| Actor::Token {
            id: id.to_owned(),
            scopes: vec![Scope::Read],
        })
    }
}

const LISTEN: &str = "10.17.0.1:8443";
const GOOD: &str = "Bearer edge_ci_right_one";

fn gate() -> Gate {
    Gate::tcp(Arc::new(OneToken), LISTEN.parse().unwrap(), true)
}

fn from(host: u8) -> Peer {
    Peer::Tcp(SocketAddr::from(([10, 17, 0, host], 40000)))
}

fn request(headers: &[(&str, &str)]) -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/v1/status".parse().unwrap();
    let headers = headers.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    });
    request.headers_mut().extend(headers);
    request
}

fn outcome(gate: &Gate, headers: &[(&str, &str)], at: Instant) -> u16 {
    match gate.admit(from(7), &request(headers), at) {
        Ok(_) => 200,
        Err(error) => error.status().as_u16(),
    }
}

#[test]
fn only_our_own_name_is_our_name() {
    let now = Instant::now();
    for (host, status) in [
        ("10.17.0.1:8443", 200),
        ("10.17.0.1", 200),
        ("evil.example", 421),
        ("10.17.0.1.evil.example:8443", 421),
        ("10.17.0.2:8443", 421),
        ("localhost:8443", 421),
        ("", 421),
    ] {
        let headers = [("host", host), ("authorization", GOOD)];
        assert_eq!(outcome(&gate(), &headers, now), status, "{host:?}");
    }
    assert_eq!(outcome(&gate(), &[("authorization", GOOD)], now), 421);
}

#[test]
fn the_unix_socket_is_for_root_and_our_own_user() {
    let mut gate = Gate::unix();
    gate.own_uid = 990;
    for (uid, may) in [(0, true), (990, true), (1000, false)] {
        let (gid, pid) = (0, 1);
        let from = Peer::Unix { uid, gid, pid };
        let admitted = gate.admit(from, &request(&[("host", "localhost")]), Instant::now());
        assert_eq!(admitted.is_ok(), may, "{uid}");
    }
}

#[test]
fn web_pages_are_refused_even_with_a_good_token() {
    let now = Instant::now();
    for (name, value, status) in [
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "none", 200),
    ] {
        let headers = [("host", LISTEN), ("authorization", GOOD), (name, value)];
        assert_eq!(outcome(&gate(), &headers, now), status, "{name}: {value}");
    }
}

#[test]
fn what_is_not_the_token_is_refused() {
    let now = Instant::now();
    for (token, status) in [
        (GOOD, 200),
        ("bearer edge_ci_right_one", 200),
        ("Bearer edge_ci_right", 401),
        ("Bearer edge_ci_", 401),
        ("Bearer edge__right_one", 401),
        ("Bearer right_one", 401),
        ("Basic ZWRnZQ==", 401),
        ("", 401),
    ] {
        let headers = [("host", LISTEN), ("authorization", token)];
        assert_eq!(outcome(&gate(), &headers, now), status, "{token:?}");
    }
    let error = gate().admit(from(7), &request(&[("host", LISTEN)]), now);
    let answer = error.unwrap_err().into_response();
    assert_eq!(
        answer.headers()[header::WWW_AUTHENTICATE],
        "Bearer realm=\"wg-edge\""
    );
}

#[test]
fn ten_bad_tokens_lock_an_address_out_for_a_minute_and_no_other() {
    let gate = gate();
    let start = Instant::now();
    let good = [("host", LISTEN), ("authorization", GOOD)];
    let bad = [("host", LISTEN), ("authorization", "Bearer edge_ci_wrong")];
    for number in 0..10 {
        let at = start + Duration::from_secs(number);
        assert_eq!(outcome(&gate, &good, at), 200, "before bad token {number}");
        assert_eq!(outcome(&gate, &bad, at), 401);
    }
    let locked = start + Duration::from_secs(9);
    let error = gate.admit(from(7), &request(&good), locked).unwrap_err();
    let answer = error.into_response();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "61");
    assert!(
        gate.admit(from(8), &request(&good), locked).is_ok(),
        "another address"
    );
    assert_eq!(outcome(&gate, &good, locked + Duration::from_secs(59)), 429);
    assert_eq!(outcome(&gate, &good, locked + Duration::from_secs(60)), 200);
}

#[test]
fn bad_tokens_of_many_addresses_take_no_more_memory() {
    let gate = gate();
    let start = Instant::now();
    for number in 0..20_000_u32 {
        let at = start + Duration::from_millis(u64::from(number));
        gate.note_bad_token(IpAddr::from(number.to_be_bytes()), at);
    }
    assert!(lock(&gate.bad_tokens).len() <= MAX_ADDRESSES);
}

#[test]
fn a_token_has_a_rate_that_recovers() {
    let gate = gate();
    let start = Instant::now();
    let good = [("host", LISTEN), ("authorization", GOOD)];
    let passed = (0..RATE_BURST + 50).filter(|_| outcome(&gate, &good, start) == 200);
    assert_eq!(passed.count(), RATE_BURST as usize);
    assert_eq!(outcome(&gate, &good, start), 429);
    let later = start + Duration::from_millis(100);
    let passed = (0..RATE_PER_SECOND).filter(|_| outcome(&gate, &good, later) == 200);
    assert_eq!(passed.count(), RATE_PER_SECOND as usize / 10);
}

#[test]
fn probes_need_no_token_and_tokens_can_be_switched_off() {
    let now = Instant::now();
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 401)] {
        let mut request = request(&[("host", LISTEN)]);
        *request.uri_mut() = path.parse().unwrap();
        let admitted = gate().admit(from(7), &request, now);
        let got = admitted.map_or_else(|error| error.status().as_u16(), |_| 200);
        assert_eq!(got, status, "{path}");
    }
    let open = Gate::tcp(Arc::new(NoTokens), LISTEN.parse().unwrap(), false);
    assert_eq!(outcome(&open, &[("host", LISTEN)], now), 200);
    assert_eq!(outcome(&open, &[("host", "evil.example")], now), 421);
}

#[test]
fn who_shows_no_token_gets_one_answer_by_its_connection() {
    let now = Instant::now();
    let (gate, open) = (
        gate(),
        Gate::tcp(Arc::new(OneToken), LISTEN.parse().unwrap(), false),
    );
    let stays = |gate: &Gate, path: &str, headers: &[(&str, &str)]| {
        let mut request = request(headers);
        *request.uri_mut() = path.parse().unwrap();
        gate.may_stay(Some(from(7)), &gate.admit(from(7), &request, now))
    };
    let host = ("host", LISTEN);
    let good = [host, ("authorization", GOOD)];
    assert!(stays(&gate, "/v1/status", &good));
    assert!(!stays(&gate, "/v1/status", &[host]));
    assert!(!stays(&gate, "/readyz", &[host]));
    let bad = [host, ("authorization", "Bearer edge_ci_wrong")];
    assert!(!stays(&gate, "/v1/status", &bad));
    assert!(stays(&open, "/v1/status", &[host]), "tokens = false");
}
