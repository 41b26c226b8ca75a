//! What is told of connections that are cut.
use std::cmp::Reverse;
use std::time::Duration;

use shared::api::plan::PlanWarning;
use shared::simulate::Cause;
use shared_os::netlink::conntrack::Entry;

use super::judge::{Found, Group, Subject};
use crate::cli::output::span;

const NAME: &str = "flows_cut";

/// Groups that are told one by one, those with most connections. A role of a thousand peers may lose a service.
const SHOWN: usize = 8;

/// `now` is the time since 1970.
pub(super) fn warnings(found: &Found, now: Duration) -> Vec<PlanWarning> {
    let mut groups: Vec<_> = found.cut.iter().collect();
    groups.sort_by_key(|(_, group)| Reverse(group.count));
    let (shown, others) = groups.split_at(groups.len().min(SHOWN));
    let mut warnings: Vec<PlanWarning> = shown
        .iter()
        .map(|((subject, cause), group)| of_group(subject, cause, group, now))
        .collect();
    let count: u64 = others.iter().map(|(_, group)| group.count).sum();
    if count > 0 {
        let text = format!(
            "{} of {} other services and peers would be cut as well",
            connections(count),
            others.len()
        );
        warnings.push(warning("others", text));
    }
    if found.not_judged > 0 {
        let text = format!(
            "there are more connections than could be looked at: whether {} of them would be cut is not known",
            found.not_judged
        );
        warnings.push(warning("connections", text));
    }
    warnings
}

/// What to say when the rest of the plan is known.
pub(super) fn unread(error: &str) -> PlanWarning {
    let text = format!("which connections the change would cut is not known: {error}");
    warning("connections", text)
}

fn of_group(subject: &Subject, cause: &Cause, group: &Group, now: Duration) -> PlanWarning {
    let subject = match subject {
        Subject::Publish(name) => format!("publish {name}"),
        Subject::Peer(name) => format!("peer {name}"),
    };
    let named: Vec<String> = group.first.iter().map(|entry| told(entry, now)).collect();
    let named = named.join(", ");
    let named_count = u64::try_from(group.first.len()).unwrap_or_default();
    let more = match group.count.saturating_sub(named_count) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!(
        "{} of {subject} would be cut, since {}: {named}{more}",
        connections(group.count),
        why(cause)
    );
    warning(&subject, text)
}

fn warning(subject: &str, text: String) -> PlanWarning {
    PlanWarning {
        name: NAME.to_owned(),
        subject: subject.to_owned(),
        text,
        remedy: None,
    }
}

fn connections(count: u64) -> String {
    match count {
        1 => "1 open connection".to_owned(),
        count => format!("{count} open connections"),
    }
}

fn why(cause: &Cause) -> String {
    match cause {
        Cause::Rule { chain, rule } => format!("`{rule}` of chain {chain} drops their packets"),
        Cause::Peer => {
            "one of their addresses is no longer that of the same peer in the tunnel".to_owned()
        }
        Cause::Route => "their packets have no way any more, or another one".to_owned(),
    }
}

/// As it was opened.
fn told(entry: &Entry, now: Duration) -> String {
    let age = entry.began.map(|began| now.saturating_sub(began).as_secs());
    let age = age.map_or_else(String::new, |age| format!(" (since {})", span(age)));
    let (from, to) = (entry.original.source, entry.original.destination);
    format!("{from} to {to}/{}{age}", entry.protocol)
}
