//! How what is live differs from what a configuration asks for, without changing anything.
//!
//! | file | what |
//! |---|---|
//! | this | configuration and live state → [`Plan`] |
//! | `peers` | the part about the WireGuard device, pure |
//! | `warnings` | what on this host will not let it work |
//! | `flows` | open connections that it would cut |
//! | `render` | a plan on a terminal |
mod flows;
mod peers;
mod render;
pub(crate) mod warnings;

use std::collections::BTreeMap;

use nft::Difference;
use shared::api::plan::{Action, Plan, PlanWarning, PlannedChange};
use shared::config::Parsed;
use shared::plan::{Actual, Change, Desired, DriftKind, Ruleset, difference};
use shared::simulate::Results;
use shared::wg::DeviceStatus;

use crate::app;
use crate::cloudflare;
use crate::error::Failure;
use crate::model::Model;
use crate::product::{Product, Settings};
use crate::reconcile::Kernel;
use crate::simulation;

pub use render::render;

/// What a daemon has; nothing of it is there when none runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Running<'a> {
    /// Its settings.
    pub settings: Option<&'a Settings>,
    /// Its device.
    pub device: Option<&'a DeviceStatus>,
    /// What its configuration asks for.
    pub model: Option<&'a Model>,
}

/// What it would take to put this configuration in place.
///
/// # Errors
/// A file that the configuration names can't be read, or the kernel.
pub async fn plan<P: Product>(
    parsed: &Parsed<P::Config>,
    members: &P::Members,
    other_end: &P::OtherEnd,
    kernel: &mut Kernel,
    running: Running<'_>,
) -> Result<Plan, Failure> {
    let settings = P::settings(&parsed.config);
    // The list of a daemon that runs is the one that it has written down.
    let ranges = cloudflare::Record::open(&settings.state_dir, &settings.cloudflare);
    let environment = app::environment(&settings, kernel.netlink(), &ranges).await?;
    let model = P::model(&parsed.config, &environment, members);
    let preshared_keys = app::preshared_keys(&model)?;
    let desired = &model.desired;
    let actual = kernel.netlink().read(desired).await;
    let actual = actual.map_err(|error| Failure::other(&error))?;
    let changes = difference(desired, &actual);
    let of_peers = peers::changes(&model.peers, &preshared_keys, running.device);

    let mut planned = of_peers.before;
    planned.extend(changes.before_ruleset.iter().map(of_kernel));
    let ruleset = running.model.map(|model| &model.desired.ruleset);
    planned.extend(of_table(kernel, desired, ruleset)?);
    planned.extend(changes.after_ruleset.iter().map(of_kernel));
    planned.extend(of_sockets(&settings, running.device));
    planned.extend(of_peers.after);

    let mut warnings: Vec<PlanWarning> = parsed
        .warnings
        .iter()
        .map(|warning| PlanWarning {
            name: "configuration".to_owned(),
            subject: "configuration".to_owned(),
            text: warning.to_string(),
            remedy: None,
        })
        .collect();
    warnings.extend(of_neighbours(desired, &actual));
    let expected = P::expected(&parsed.config, &environment);
    let asked = warnings::Asked {
        settings: &settings,
        environment: &environment,
        desired,
        expected: &expected,
        publishes: &model.publishes,
        running,
    };
    warnings.extend(warnings::find(&asked, &actual, kernel).await?);
    warnings.extend(flows::cut(running, &model, kernel.netlink()).await?);
    let simulation = P::simulation(&parsed.config, &environment, Some(members), other_end);
    let tests = simulation.try_all(P::tests(&parsed.config));
    warnings.extend(of_tests(&tests));
    let needs_restart = running
        .settings
        .and_then(|now| app::needs_restart(now, &settings));
    Ok(Plan {
        changes: planned,
        conflicts: changes.conflicts.iter().map(ToString::to_string).collect(),
        needs_restart: needs_restart.map(str::to_owned),
        warnings,
        failed_tests: tests.failed.iter().map(ToString::to_string).collect(),
    })
}

fn of_kernel(change: &Change) -> PlannedChange {
    let drift = change.drift();
    let action = match change {
        Change::AddLink(_)
        | Change::AddAddress(_)
        | Change::AddRoute { .. }
        | Change::AddRule { .. } => Action::Add,
        Change::RemoveLink { .. }
        | Change::RemoveAddress(_)
        | Change::RemoveRoute(_)
        | Change::RemoveRule(_) => Action::Remove,
        Change::SetLinkAlias { .. }
        | Change::SetLinkMtu { .. }
        | Change::SetLinkTxQueueLen { .. }
        | Change::SetLinkUp { .. }
        | Change::SetSysctl { .. } => Action::Change,
    };
    PlannedChange {
        kind: drift.kind.name().to_owned(),
        action,
        subject: drift.subject,
        detail: change.to_string(),
    }
}

/// The whole table when there is none, else one change for each difference.
fn of_table(
    kernel: &mut Kernel,
    desired: &Desired,
    running: Option<&Ruleset>,
) -> Result<Vec<PlannedChange>, Failure> {
    let ruleset = &desired.ruleset;
    let live = kernel.nftables().read(&ruleset.table);
    let live = live.map_err(|error| Failure::environment(&error))?;
    let change = |action, detail| PlannedChange {
        kind: DriftKind::Nftables.name().to_owned(),
        action,
        subject: format!("table inet {}", ruleset.table),
        detail,
    };
    let Some(live) = live else {
        let rules: usize = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
        let detail = format!("{} chains, {rules} rules", ruleset.chains.len());
        return Ok(vec![change(Action::Add, detail)]);
    };
    let differences = nft::matches(ruleset, &live).err().unwrap_or_default();
    let ours = running.map(|running| nft::rules_of(running, &live));
    let ours = ours.unwrap_or_default();
    let changes = differences.iter();
    Ok(changes
        .map(|difference| change(Action::Change, in_words(difference, &ours)))
        .collect())
}

/// A rule that goes is told as `nft` lists it, when it is one of those that the daemon has made.
fn in_words(difference: &Difference, ours: &BTreeMap<(&str, u64), String>) -> String {
    if let Difference::SurplusRule { chain, handle, .. } = difference {
        if let Some(rule) = ours.get(&(chain.as_str(), *handle)) {
            return format!("chain {chain} loses its rule `{rule}` (handle {handle})");
        }
    }
    difference.to_string()
}

/// Port and mark. A port of 0 is any.
fn of_sockets(settings: &Settings, device: Option<&DeviceStatus>) -> Vec<PlannedChange> {
    let Some(device) = device else {
        return Vec::new();
    };
    let port = (settings.listen_port, device.listen_port);
    let mark = (settings.fwmark, device.fwmark);
    let mut changes = Vec::new();
    if port.0 != 0 && port.0 != port.1 {
        changes.push(("UDP port", format!("{}, was {}", port.0, port.1)));
    }
    if mark.0 != mark.1 {
        changes.push(("mark", format!("{:#x}, was {:#x}", mark.0, mark.1)));
    }
    changes
        .into_iter()
        .map(|(subject, detail)| PlannedChange {
            kind: "socket".to_owned(),
            action: Action::Change,
            subject: format!("socket {subject}"),
            detail,
        })
        .collect()
}

/// What the tests could not find out.
fn of_tests(tests: &Results) -> Vec<PlanWarning> {
    let warning = |name: &str, subject: &str, text: String| PlanWarning {
        name: name.to_owned(),
        subject: subject.to_owned(),
        text,
        remedy: None,
    };
    let undecided = tests.undecided.iter();
    let undecided = undecided.map(|test| warning("test_undecided", "test", test.to_string()));
    let notes = tests.not_looked_at.iter();
    let notes = notes.map(|name| {
        let text = simulation::not_looked_at(name);
        warning("lan_server_not_looked_at", name, text)
    });
    undecided.chain(notes).collect()
}

/// Routes that would lead the hosts next to this one into the tunnel.
fn of_neighbours(desired: &Desired, actual: &Actual) -> Vec<PlanWarning> {
    let routes = desired.routes.iter();
    routes
        .filter_map(|wanted| {
            let neighbours = actual.neighbours_taken_by(wanted)?;
            Some(PlanWarning {
                name: "neighbours_taken".to_owned(),
                subject: format!("route {}", wanted.destination),
                remedy: None,
                text: format!(
                    "{} goes into {}, but the hosts next to this one are there: `{neighbours}`; they will not be reached any more",
                    wanted.destination, wanted.link
                ),
            })
        })
        .collect()
}
