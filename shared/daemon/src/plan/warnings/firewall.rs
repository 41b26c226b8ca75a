//! Chains of others in the way of our packets.
use nft::foreign::{Action, Foreign, Obstacle};
use shared::api::plan::PlanWarning;

use super::path::Named;
use crate::error::chain;

/// How many kinds of packets are named.
const SHOWN: usize = 3;

/// Base chains that drop or reject them: one warning for each remedy.
pub(super) fn obstacles(foreign: &Foreign, paths: &[Named]) -> Vec<PlanWarning> {
    let mut found: Vec<(Obstacle, Vec<&str>)> = Vec::new();
    for named in paths {
        for obstacle in foreign.obstacles(&named.path) {
            add(&mut found, obstacle, &named.name);
        }
    }
    found
        .iter()
        .map(|(obstacle, names)| in_the_way(obstacle, names))
        .collect()
}

/// What to say when the rest of the plan is known, and the tables of others are not.
pub(super) fn unread(error: &nft::Error) -> PlanWarning {
    PlanWarning {
        name: "foreign_firewall".to_owned(),
        subject: "nftables".to_owned(),
        text: format!("the tables of others can't be judged: {}", chain(error)),
        remedy: None,
    }
}

/// Base chains that give preserved sources away.
pub(super) fn translations(foreign: &Foreign, paths: &[Named]) -> Vec<PlanWarning> {
    let mut found: Vec<(Obstacle, Vec<&str>)> = Vec::new();
    for named in paths.iter().filter(|named| named.is_preserved) {
        for obstacle in foreign.translations(&named.path) {
            add(&mut found, obstacle, &named.name);
        }
    }
    let warning = |(obstacle, names): &(Obstacle, Vec<&str>)| PlanWarning {
        name: "double_nat".to_owned(),
        subject: subject(obstacle),
        text: format!(
            "{}: {obstacle}{}, so the service does not see who calls",
            list(names),
            doubt(obstacle)
        ),
        remedy: Some(obstacle.remedy.clone()),
    };
    found.iter().map(warning).collect()
}

fn add<'a>(found: &mut Vec<(Obstacle, Vec<&'a str>)>, obstacle: Obstacle, name: &'a str) {
    match found.iter_mut().find(|(other, _)| *other == obstacle) {
        // Another port of the same.
        Some((_, names)) if names.contains(&name) => {}
        Some((_, names)) => names.push(name),
        None => found.push((obstacle, vec![name])),
    }
}

fn in_the_way(obstacle: &Obstacle, names: &[&str]) -> PlanWarning {
    PlanWarning {
        name: "foreign_firewall".to_owned(),
        subject: subject(obstacle),
        text: format!("{}: {obstacle}{}", list(names), doubt(obstacle)),
        remedy: Some(obstacle.remedy.clone()),
    }
}

/// What stands behind a finding that depends on something.
pub(crate) fn doubt(obstacle: &Obstacle) -> &'static str {
    match (obstacle.certain, obstacle.action) {
        (true, _) => "",
        (false, Action::Drop | Action::Reject) => {
            " unless a rule before it lets them pass that can't be judged from here"
        }
        (false, Action::TranslateSource) => {
            " unless a rule before it spares them that can't be judged from here"
        }
    }
}

fn subject(obstacle: &Obstacle) -> String {
    let family = obstacle.family.name();
    format!("{family} {} {}", obstacle.table, obstacle.chain)
}

fn list(names: &[&str]) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).copied().collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
