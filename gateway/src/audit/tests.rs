//! Facts about the chain.
use std::process::{Command, Stdio};

use super::*;

fn draft(number: u64) -> Draft {
    Draft {
        at: Timestamp::from_second(1_700_000_000 + i64::try_from(number).unwrap()).unwrap(),
        actor: "unix:uid=0,gid=0,pid=7".to_owned(),
        action: "peer.create".to_owned(),
        resource: format!("peers/{number}"),
        request: Some(AuditRequest {
            id: number.to_string(),
            method: "POST".to_owned(),
            path: "/v1/peers".to_owned(),
            remote: None,
        }),
        difference: differing(None, Some(json!({"name": "a", "b": {"z": 1, "ä": 2}}))),
    }
}

fn log(count: u64) -> Vec<AuditEntry> {
    let mut entries: Vec<AuditEntry> = Vec::new();
    for number in 1..=count {
        entries.push(seal(entries.last(), draft(number)));
    }
    entries
}

#[test]
fn a_log_as_written_is_verified_to_its_head() {
    let log = log(5);
    let head = verify(Head::default(), &log).unwrap();
    assert_eq!((head.sequence, &head.hash), (5, &log[4].hash));
    // In pieces, too.
    let half = verify(Head::default(), &log[..2]).unwrap();
    assert_eq!(verify(half, &log[2..]), Ok(head.clone()));
    assert_eq!(head.to_string().parse(), Ok(head));
    assert_eq!(verify(Head::default(), &[]), Ok(Head::default()));
}

#[test]
fn any_single_change_is_found_at_its_place() {
    let log = log(4);
    let changes: [fn(&mut AuditEntry); 9] = [
        |entry| entry.at = Timestamp::UNIX_EPOCH,
        |entry| entry.actor.push('0'),
        |entry| entry.action = "peer.delete".to_owned(),
        |entry| entry.resource.push('0'),
        |entry| entry.request = None,
        |entry| drop(entry.difference.remove("name")),
        |entry| entry.previous_hash = NO_HASH.replace('0', "1"),
        |entry| entry.hash = NO_HASH.to_owned(),
        |entry| entry.sequence += 1,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut forged = log.clone();
        change(&mut forged[1]);
        let broken = verify(Head::default(), &forged).unwrap_err();
        assert_eq!(broken.sequence, 2, "change {number}: {broken}");
    }
}

#[test]
fn a_changed_entry_with_a_new_hash_breaks_the_next_one() {
    let mut log = log(4);
    log[1].actor = "unix:uid=1000,gid=1000,pid=1".to_owned();
    log[1].hash = hash(&log[1]);
    assert_eq!(verify(Head::default(), &log).unwrap_err().sequence, 3);
}

#[test]
fn missing_inserted_and_exchanged_entries_are_found() {
    let log = log(4);
    let order = |places: &[usize]| -> Vec<AuditEntry> {
        places.iter().map(|&place| log[place].clone()).collect()
    };
    for (places, first_wrong) in [
        (&[1, 2, 3][..], 1),
        (&[0, 2, 3], 2),
        (&[0, 2, 1, 3], 2),
        (&[0, 1, 1, 2, 3], 3),
    ] {
        let broken = verify(Head::default(), &order(places)).unwrap_err();
        assert_eq!(broken.sequence, first_wrong, "{places:?}");
    }
}

#[test]
fn jq_and_sha256sum_come_to_the_same_hash() {
    for entry in log(2) {
        let script = "jq -cS 'del(.hash)' | tr -d '\\n' | sha256sum";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        serde_json::to_writer(child.stdin.take().unwrap(), &entry).unwrap();
        let output = child.wait_with_output().unwrap();
        let sum = String::from_utf8(output.stdout).unwrap();
        assert_eq!(sum.split_whitespace().next(), Some(entry.hash.as_str()));
    }
}
