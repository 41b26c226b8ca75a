//! Facts about lists: what is taken, what is refused, what stays.
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::config::cloudflare::{AS_OF, IPV4, IPV6, networks};

fn at(hours: i64) -> Timestamp {
    let start: Timestamp = "2026-11-26T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_hours(hours)
}

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn entries() -> Vec<String> {
    let entries = IPV4.iter().chain(&IPV6);
    entries.map(ToString::to_string).collect()
}

fn lines(entries: &[String]) -> String {
    entries.join("\n")
}

fn json(entries: &[String]) -> String {
    let (v6, v4): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.contains(':'));
    serde_json::json!({
        "result": {"ipv4_cidrs": v4, "ipv6_cidrs": v6, "etag": "38f79d050aa027e3be3865e495dcc9bc"},
        "success": true, "errors": [], "messages": [],
    })
    .to_string()
}

/// Offer a list to the bundled one.
fn offer(text: &str) -> Result<Changes, Refusal> {
    let mut list = List::bundled();
    let outcome = list.take(text, at(0), &[network("203.0.113.10/32")], at(0));
    if outcome.is_err() {
        assert_eq!(list, List::bundled(), "a refused list changes nothing");
    }
    outcome
}

fn refused(text: &str) -> String {
    offer(text).expect_err(text).to_string()
}

#[test]
fn cloudflares_own_formats_are_taken() {
    let entries = entries();
    for text in [
        lines(&entries),
        lines(&entries) + "\n",
        entries.join("\r\n") + "\r\n\r\n",
        json(&entries),
        format!("  {}\n", json(&entries)),
    ] {
        assert_eq!(offer(&text), Ok(Changes::default()), "{text}");
    }
}

#[test]
fn what_is_no_list_is_refused_with_the_reason() {
    let (whole, answer) = (lines(&entries()), json(&entries()));
    let with = |more: &str| format!("{whole}\n{more}\n");
    let page = "<!DOCTYPE html>\n<html><title>403 Forbidden</title></html>";
    for (text, reason) in [
        ("", "it is empty"),
        (" \r\n\n", "it is empty"),
        (page, "it is a web page"),
        (
            "Forbidden",
            "entry 1 is wrong: \"Forbidden\" is not a network",
        ),
        ("[]", "entry 1 is wrong"),
        ("{}", "not the JSON of Cloudflare's API"),
        (
            r#"{"success":false,"result":null}"#,
            "says that it could not answer",
        ),
        (
            &answer.replace("true", "false"),
            "says that it could not answer",
        ),
        (
            &answer[..answer.len() / 2],
            "not the JSON of Cloudflare's API",
        ),
        (
            &answer.replace("ipv6_cidrs", "ipv6"),
            "missing field `ipv6_cidrs`",
        ),
        (&whole[..whole.len() - 3], "has no prefix length"),
        (&whole[..whole.len() / 2], ""),
        (&lines(&entries()[..15]), "0 IPv6 networks"),
        (&with("0.0.0.0/0"), "0.0.0.0/0 is wider than any network"),
        (&with("::/0"), "::/0 is wider than any network"),
        (&with("112.0.0.0/11"), "112.0.0.0/11 is wider"),
        (&with("2a10::/27"), "2a10::/27 is wider"),
        (
            &with("10.17.0.0/16"),
            "10.17.0.0/16 has addresses of 10.0.0.0/8",
        ),
        (&with("fd17::/64"), "fd17::/64 has addresses of fc00::/7"),
        (
            &with("224.0.0.0/20"),
            "224.0.0.0/20 has addresses of 224.0.0.0/3",
        ),
        (
            &with("203.0.113.0/24"),
            "203.0.113.0/24 has addresses of 203.0.113.10/32, which is ours",
        ),
        (&with("104.16.0.1/13"), "has host bits set"),
        (&with("104.16.0.0/33"), "no valid prefix length"),
        (&with("104.16.0.0/1x"), "no valid prefix length"),
        (&with("# comment"), "is not a network"),
        (
            &whole.replace("131.0.72.0/22\n", "131.0.72.0/22"),
            "entry 15 is wrong",
        ),
        (&"9".repeat(LONGEST_TEXT + 1), "longer than 65536 bytes"),
    ] {
        let said = refused(text);
        assert!(said.contains(reason), "{text:.80}: {said}");
    }
}

#[test]
fn entries_that_repeat_do_not_make_a_list_longer() {
    let mut few = entries();
    few.drain(..6);
    few.extend(vec!["104.16.0.0/13".to_owned(); 6]);
    let said = refused(&lines(&few));
    assert!(
        said.contains("9 IPv4 networks, but Cloudflare has at least 10"),
        "{said}"
    );
}

#[test]
fn a_list_of_another_size_needs_an_operator() {
    let all = entries();
    let said = refused(&lines(&[&all[..11], &all[15..]].concat()));
    assert!(said.contains("from 15 to 11 networks"), "{said}");
    assert!(said.contains("[sets] on both ends"), "{said}");
    // As many networks, but only few of the addresses.
    let mut narrow = all.clone();
    for entry in &mut narrow {
        *entry = entry.replace("104.16.0.0/13", "104.16.0.0/24");
        *entry = entry.replace("172.64.0.0/13", "172.64.0.0/24");
    }
    let said = refused(&lines(&narrow));
    assert!(said.contains("addresses, more than is believed"), "{said}");
    let mut more = all.clone();
    more.extend((0..16).map(|number| format!("192.0.2.{number}/32")));
    let said = refused(&lines(&more));
    assert!(said.contains("from 15 to 31 networks"), "{said}");
    let mut wide = all;
    wide.extend(["112.0.0.0/12", "128.0.0.0/12"].map(str::to_owned));
    let said = refused(&lines(&wide));
    assert!(said.contains("addresses, more than is believed"), "{said}");
}

#[test]
fn new_networks_count_at_once_and_missing_ones_go_after_a_week() {
    let mut list = List::bundled();
    let gone = network("131.0.72.0/22");
    let come = network("198.51.100.0/24");
    let mut newer = entries();
    newer.retain(|entry| *entry != gone.to_string());
    newer.push(come.to_string());
    let newer = lines(&newer);
    let changes = list.take(&newer, at(0), &[], at(0)).unwrap();
    assert_eq!((changes.added, changes.removed), (vec![come], vec![]));
    assert_eq!(list.leaving().collect::<Vec<_>>(), [(gone, at(0))]);
    assert!(list.networks().contains(&gone), "still in use");
    let changes = list.take(&newer, at(167), &[], at(167)).unwrap();
    assert_eq!(changes, Changes::default());
    let changes = list.take(&newer, at(168), &[], at(168)).unwrap();
    assert_eq!((changes.added, changes.removed), (vec![], vec![gone]));
    assert!(!list.networks().contains(&gone));
    assert_eq!(list.confirmed_at(), Some(at(168)));
}

#[test]
fn a_network_that_comes_back_stays_and_is_counted_anew_when_it_goes_again() {
    let mut list = List::bundled();
    let whole = lines(&entries());
    let without = lines(&entries()[1..]);
    list.take(&without, at(0), &[], at(0)).unwrap();
    list.take(&whole, at(100), &[], at(100)).unwrap();
    assert_eq!(list.leaving().count(), 0);
    list.take(&without, at(168), &[], at(168)).unwrap();
    assert_eq!(list.networks(), networks());
    // Nor does a clock that goes back remove anything.
    list.take(&without, at(0), &[], at(0)).unwrap();
    assert_eq!(list.networks(), networks());
}

#[test]
fn the_list_is_as_old_as_it_says_but_never_of_the_future() {
    let mut list = List::bundled();
    let whole = lines(&entries());
    assert_eq!(list.confirmed_at(), None);
    list.take(&whole, at(-30), &[], at(0)).unwrap();
    assert_eq!(list.confirmed_at(), Some(at(-30)));
    list.take(&whole, at(9), &[], at(0)).unwrap();
    assert_eq!(list.confirmed_at(), Some(at(0)));
}

#[test]
fn a_list_survives_as_text() {
    let mut list = List::bundled();
    list.take(&lines(&entries()[1..]), at(0), &[], at(0))
        .unwrap();
    assert_eq!(List::from_text(&list.to_text(), &[]), Ok(list.clone()));
    // What came with the program is newer than a list that was never confirmed, or before its day.
    let stored = list.to_text();
    for older in [
        stored.replace(
            "\"2026-11-26T00:00:00Z\",\n  \"networks\"",
            "null,\n  \"networks\"",
        ),
        stored.replace("2026-11-26", "2026-02-10"),
    ] {
        assert_ne!(older, stored);
        assert_eq!(List::from_text(&older, &[]), Ok(List::bundled()));
    }
    assert_eq!(AS_OF, "2026-02-11");
    for damaged in [
        "",
        "{}",
        &stored[..stored.len() / 2],
        &stored.replace("/13", "/1"),
        &stored.replace("103.21.244.0", "10.21.244.0"),
        r#"{"confirmed_at":"2026-11-26T00:00:00Z","networks":{}}"#,
    ] {
        assert!(List::from_text(damaged, &[]).is_err(), "{damaged}");
    }
    let ours = network("104.16.1.1/32");
    assert!(List::from_text(&stored, &[ours]).is_err());
}

/// A list that may lack some networks and have some more, of any size.
fn some_list() -> impl Strategy<Value = Vec<String>> {
    let kept = proptest::sample::subsequence(entries(), 19..=22);
    let more = proptest::collection::vec((0..=255u8, 8..=32u8), 0..4);
    (kept, more).prop_map(|(mut list, more)| {
        let more = more.into_iter().filter_map(|(byte, prefix)| {
            let address = std::net::Ipv4Addr::new(198, 51, byte, 0);
            let network = ipnetwork::Ipv4Network::new(address, prefix).ok()?;
            Some(format!("{}/{prefix}", network.network()))
        });
        list.extend(more);
        list
    })
}

proptest! {
    #[test]
    fn any_text_is_taken_or_changes_nothing(text in any::<String>()) {
        let _either = offer(&text);
    }

    #[test]
    fn whatever_was_in_use_stays_for_a_week(
        lists in proptest::collection::vec((some_list(), 0..100i64), 1..12),
    ) {
        let mut list = List::bundled();
        let mut now = 0;
        let mut seen: std::collections::BTreeMap<IpNetwork, i64> =
            networks().into_iter().map(|network| (network, 0)).collect();
        for (entries, hours) in lists {
            now += hours;
            let text = lines(&entries);
            let before = list.clone();
            if list.take(&text, at(now), &[], at(now)).is_ok() {
                for entry in &entries {
                    seen.insert(network(entry), now);
                    prop_assert!(list.networks().contains(&network(entry)), "{} counts at once", entry);
                }
                prop_assert_eq!(list.confirmed_at(), Some(at(now)));
            } else {
                prop_assert_eq!(&list, &before);
            }
            for (network, last) in &seen {
                if now - last < 168 {
                    prop_assert!(list.networks().contains(network), "{} went too early", network);
                }
            }
            let stored = List::from_text(&list.to_text(), &[]);
            prop_assert!(stored.is_ok(), "{:?}", stored);
        }
    }
}
