//! Facts about arguments, requests and what people read.
use clap::Parser as _;
use hyper::Method;
use jiff::Timestamp;
use shared::api::peer::{Connection, ManagedBy, PeerState, Usage};

use super::*;

#[derive(Debug, clap::Parser)]
struct Arguments {
    #[command(subcommand)]
    peer: Peer,
}

fn parsed(line: &str) -> Result<Peer, clap::Error> {
    let words = std::iter::once("peer").chain(line.split(' '));
    Arguments::try_parse_from(words).map(|arguments| arguments.peer)
}

fn now() -> Timestamp {
    "2026-11-23T00:00:00Z".parse().unwrap()
}

fn peer(name: &str) -> peer::Peer {
    peer::Peer {
        id: Uuid::from_u128(7),
        name: name.to_owned(),
        managed_by: ManagedBy::Api,
        public_key: "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=".to_owned(),
        has_preshared_key: true,
        addresses: vec!["10.17.255.254".parse().unwrap(), "fd17::3".parse().unwrap()],
        networks: vec![],
        role: Some("kube-admin".to_owned()),
        enabled: true,
        expires_at: None,
        quota_bytes: Some(50_000_000_000),
        labels: std::iter::once(("team".to_owned(), "ops".to_owned())).collect(),
        created_at: Some(now()),
        updated_at: Some(now()),
        rotation: None,
        state: PeerState::Active,
        problems: vec![],
        connection: Connection {
            online: true,
            endpoint: Some("198.51.100.7:40000".parse().unwrap()),
            latest_handshake_at: Some("2026-11-22T23:58:01Z".parse().unwrap()),
        },
        usage: Usage {
            rx_bytes: 1536,
            tx_bytes: u64::MAX,
            quota_used_bytes: 1 << 30,
            counted_since: Some(now()),
        },
    }
}

#[test]
fn a_list_fits_80_columns_with_the_longest_names() {
    let mut long = peer(&"x".repeat(64));
    long.role = Some("y".repeat(64));
    long.connection.online = false;
    long.connection.latest_handshake_at = None;
    long.state = PeerState::OverQuota;
    let text = list::listed(&[peer("alice"), long], now(), 80, false);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for line in &lines {
        assert!(line.chars().count() <= 80, "{text}");
    }
    for part in [
        "alice",
        "10.17.255.254",
        "kube-admin",
        "online",
        "1m",
        "1.50 KiB",
        "15.99 EiB",
    ] {
        assert!(lines[1].contains(part), "{part} is missing in\n{text}");
    }
    for part in ["xxx…", "yyy…", "over quota", "never"] {
        assert!(lines[2].contains(part), "{part} is missing in\n{text}");
    }
    assert_eq!(list::listed(&[], now(), 80, false), "no peers\n");
}

#[test]
fn a_list_with_whole_ipv6_addresses_fits_80_columns_too() {
    let address = "fd17:1234:5678:9abc:def0:1234:5678:9abc";
    let mut long = peer(&"x".repeat(64));
    long.addresses = vec![address.parse().unwrap()];
    long.role = Some("y".repeat(64));
    long.state = PeerState::OverQuota;
    let text = list::listed(&[peer("alice"), long.clone()], now(), 80, false);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    for part in [address, "xxx…", "over quota", "alice", "10.17.255.254"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let wide = list::listed(&[long], now(), 250, false);
    assert!(
        wide.contains(&"y".repeat(64)) && wide.contains("15.99 EiB"),
        "{wide}"
    );
}

#[test]
fn a_peer_is_shown_with_everything_that_is_known() {
    let mut shadowed = peer("alice");
    shadowed.state = PeerState::Shadowed;
    shadowed.problems = vec!["the file gave its name to another".to_owned()];
    let text = show::shown(&shadowed);
    for part in [
        "name          alice\n",
        "status        shadowed\n",
        "problem       the file gave its name to another\n",
        "address       fd17::3\n",
        "quota         1.00 GiB of 46.56 GiB used\n",
        "expires       never\n",
        "handshake     2026-11-22 23:58:01 UTC\n",
        "label         team=ops\n",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn contradictions_and_secrets_in_arguments_are_refused() {
    for wrong in [
        "set alice",
        "set alice --role a --no-role",
        "set alice --enable --disable",
        "set alice --quota 1 --no-quota",
        "add alice --preshared-key 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
        "add alice --json --qr",
        "add alice --expires soon",
        "add alice --label team",
        "rotate alice --overlap much",
        "rotate alice --overlap -1s",
        "remove",
    ] {
        assert!(parsed(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_change_names_only_what_was_asked_for() {
    for (line, patch) in [
        (
            "set alice --role r --disable",
            r#"{"role":"r","enabled":false}"#,
        ),
        (
            "set alice --no-role --enable",
            r#"{"role":null,"enabled":true}"#,
        ),
        (
            "set alice --no-expiry --no-quota --no-networks",
            r#"{"networks":null,"expires_at":null,"quota_bytes":null}"#,
        ),
        (
            "set alice --expires 1d --label a=b --label c-",
            r#"{"expires_at":"2026-11-24T00:00:00Z","labels":{"a":"b","c":null}}"#,
        ),
        (
            "set alice --address 10.17.0.9 --network 10.1.0.0/16",
            r#"{"addresses":["10.17.0.9"],"networks":["10.1.0.0/16"]}"#,
        ),
    ] {
        let Ok(Peer::Set(set)) = parsed(line) else {
            panic!("{line}");
        };
        assert_eq!(
            serde_json::to_string(&set.changes.patch(now())).unwrap(),
            patch,
            "{line}"
        );
    }
}

/// A daemon that answers each request with the next of these, and tells what it was asked.
fn daemon(
    answers: Vec<(u16, &'static str, String)>,
) -> (
    tempfile::TempDir,
    Client,
    tokio::task::JoinHandle<Vec<String>>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("gateway.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for (status, headers, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 65_536];
            let mut length = 0;
            while !is_whole(&request[..length]) {
                length += stream.read(&mut request[length..]).await.unwrap();
            }
            asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (dir, Client::new(socket), asked)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| body.len() >= length.parse().unwrap())
}

fn page(peers: &[peer::Peer], next: Option<&str>) -> String {
    serde_json::to_string(&Page {
        items: peers.to_vec(),
        next_cursor: next.map(str::to_owned),
    })
    .unwrap()
}

#[tokio::test]
async fn a_list_follows_all_pages() {
    let (_dir, client, asked) = daemon(vec![
        (200, "", page(&[peer("a"), peer("b")], Some("b~1"))),
        (200, "", page(&[peer("c")], None)),
    ]);
    let peers = list::all(&client, "/v1/peers?limit=2").await.unwrap();
    assert_eq!(peers.len(), 3);
    let asked = asked.await.unwrap();
    assert!(
        asked[0].starts_with("GET /v1/peers?limit=2 HTTP"),
        "{asked:?}"
    );
    assert!(
        asked[1].starts_with("GET /v1/peers?limit=2&cursor=b%7E1 HTTP"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_name_becomes_an_identifier_and_the_etag_is_sent_with_the_change() {
    let found = serde_json::to_string(&peer("a b")).unwrap();
    let (_dir, client, asked) = daemon(vec![
        (200, "", page(&[peer("a b")], None)),
        (200, "etag: \"9\"\r\n", found.clone()),
        (204, "", String::new()),
    ]);
    let command = Peer::Remove(remove::Remove::of("a b"));
    run(command, client).await.unwrap();
    let asked = asked.await.unwrap();
    assert!(
        asked[0].starts_with("GET /v1/peers?name=a+b HTTP"),
        "{asked:?}"
    );
    let id = Uuid::from_u128(7);
    assert!(
        asked[1].starts_with(&format!("GET /v1/peers/{id} HTTP")),
        "{asked:?}"
    );
    assert!(
        asked[2].starts_with(&format!("{} /v1/peers/{id} HTTP", Method::DELETE)),
        "{asked:?}"
    );
    assert!(asked[2].contains("if-match: \"9\"\r\n"), "{asked:?}");
}

#[test]
fn what_a_change_means_for_the_client_is_told() {
    let config = |address: &str, allowed: &str| {
        format!("[Interface]\nAddress = {address}\n\n[Peer]\nAllowedIPs = {allowed}\n")
    };
    let before = config("10.17.0.3/32", "10.17.0.1/32");
    assert_eq!(change::client_changes(&before, &before), None);
    let after = config("10.17.0.3/32", "10.17.0.1/32, 10.17.5.10/32");
    let told = change::client_changes(&before, &after).unwrap();
    assert!(
        told.contains("AllowedIPs = 10.17.0.1/32, 10.17.5.10/32"),
        "{told}"
    );
    assert!(!told.contains("Address ="), "{told}");
    let after = config("10.17.0.4/32", "10.17.0.1/32");
    let told = change::client_changes(&before, &after).unwrap();
    assert!(told.contains("Address = 10.17.0.4/32"), "{told}");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_places_and_hint() {
    let problem = r#"{"type":"about:blank","title":"x","status":412,"detail":"it has changed","code":"stale_etag","hint":"read it again"}"#;
    let (_dir, client, _asked) = daemon(vec![
        (
            200,
            "etag: \"9\"\r\n",
            serde_json::to_string(&peer("a")).unwrap(),
        ),
        (412, "", problem.to_owned()),
    ]);
    let id = Uuid::from_u128(7);
    let command = parsed(&format!("set {id} --enable")).unwrap();
    let refused = run(command, client).await.unwrap_err();
    assert_eq!(refused.to_string(), "it has changed\n  hint: read it again");
}

#[tokio::test]
async fn a_missing_peer_is_told_by_its_name() {
    let (_dir, client, _asked) = daemon(vec![(200, "", page(&[], None))]);
    let refused = find(&client, "bob").await.unwrap_err().to_string();
    assert!(refused.contains("no peer \"bob\""), "{refused}");
}
