//! What is known of a published service without calling it: its callers, its translation, firewalls and routes on its way.
use std::net::IpAddr;

use futures_util::future::join_all;
use shared::api::diagnosis::{Hop, HopKind, ProbeRequest};
use shared::config::common::SourceIp;
use shared::plan::Flow;
use shared::plan::host::WayTo;

use super::Scene;
use super::hop::{failed, ok, warning};
use super::host::past_others;
use super::visit::{self, Target};
use crate::model::PublishModel;
use crate::plan::warnings::path::Named;
use crate::plan::warnings::routes;
use crate::probe;

/// The hops of a service.
#[derive(Debug)]
pub(super) struct Service {
    /// Its address.
    pub(super) vip: IpAddr,
    /// What its ports have in common.
    pub(super) hops: Vec<Hop>,
    /// Each port that is tried.
    pub(super) ports: Vec<Vec<Hop>>,
}

pub(super) async fn hops(
    scene: &Scene,
    paths: &[Named],
    publish: &PublishModel,
    request: &ProbeRequest,
) -> Service {
    let mut hops = vec![guard(scene, publish)];
    if scene.is_gateway() {
        hops.push(translation(scene, publish));
    }
    hops.push(firewall(scene, paths, publish));
    hops.push(route(scene, paths, publish));
    let targets = probe::targets(publish);
    let ports = targets.map(|address| {
        let of = format!("{} {address}", publish.name);
        let target = Target {
            of,
            address,
            source_ip: publish.source_ip,
        };
        async move { visit::hops(scene, &target, request).await }
    });
    Service {
        vip: publish.vip,
        hops,
        ports: join_all(ports).await,
    }
}

/// What the configuration says of visitors, and what packets of theirs are called in [`Named`].
fn visitors<'a>(scene: &'a Scene, publish: &PublishModel) -> Option<&'a Flow> {
    let name = visitors_of(publish);
    scene.expected.flows.iter().find(|flow| flow.name == name)
}

fn visitors_of(publish: &PublishModel) -> String {
    format!("visitors of {}", publish.name)
}

fn guard(scene: &Scene, publish: &PublishModel) -> Hop {
    let Some(flow) = visitors(scene, publish) else {
        return failed(
            HopKind::Guard,
            &publish.name,
            "nobody may call: the sets that are named hold no address of its family",
            format!(
                "name callers in `[[publish]]` \"{}\" or in `[sets]`",
                publish.name
            ),
        );
    };
    let example = flow.source.map(|source| format!(", {source} among them"));
    let refused: u64 = scene
        .counters
        .iter()
        .filter(|(name, _)| name.starts_with("guard_"))
        .map(|(_, packets)| packets)
        .sum();
    let refused = if scene.is_gateway() {
        format!("; {refused} packets of others were refused by the guard so far")
    } else {
        String::new()
    };
    let evidence = format!(
        "its callers may call{}{refused}",
        example.unwrap_or_default()
    );
    ok(HopKind::Guard, &publish.name, evidence)
}

fn translation(scene: &Scene, publish: &PublishModel) -> Hop {
    let counter = format!("publish_{}", publish.name);
    let evidence = match scene.counters.get(&counter) {
        Some(0) | None => "no visitor has called yet".to_owned(),
        Some(connections) => format!("{connections} connections of visitors were led to the VIP"),
    };
    ok(HopKind::Translation, &publish.name, evidence)
}

fn firewall(scene: &Scene, paths: &[Named], publish: &PublishModel) -> Hop {
    let visitors = visitors_of(publish);
    let answers = format!("answers to {visitors}");
    let of_it = |named: &&Named| named.name == visitors || named.name == answers;
    let of_it: Vec<&Named> = paths.iter().filter(of_it).collect();
    let fine = "no firewall of others on this host drops visitors or answers";
    past_others(scene, HopKind::Firewall, &publish.name, &of_it, fine)
}

fn route(scene: &Scene, paths: &[Named], publish: &PublishModel) -> Hop {
    let vip = publish.vip;
    let tunnel = scene.settings.interface.as_str();
    let missing = routes::missing(&scene.asked(), &scene.host);
    if let Some(missing) = missing.iter().find(|of| of.subject == vip.to_string()) {
        let remedy =
            "add a route to the VIP's own link, and have it there after a restart of this host";
        return failed(
            HopKind::Route,
            &publish.name,
            without_name(&missing.text),
            remedy,
        );
    }
    if let Some(stray) = stray(scene, publish) {
        return stray;
    }
    let visitors = visitors_of(publish);
    let of_it: Vec<Named> = paths
        .iter()
        .filter(|named| named.name == visitors)
        .cloned()
        .collect();
    let filters = |link: &str| routes::reverse_path_filter(&scene.model.desired, link);
    if let Some(filtered) = routes::filtered(&of_it, &scene.host, filters).first() {
        let remedy = filtered.remedy.clone();
        let remedy = remedy.unwrap_or_else(|| "give this host a default route".to_owned());
        return failed(
            HopKind::Route,
            &publish.name,
            without_name(&filtered.text),
            remedy,
        );
    }
    match scene.host.way_to(vip) {
        WayTo::By(route) if scene.is_gateway() && route.link.as_deref() != Some(tunnel) => failed(
            HopKind::Route,
            &publish.name,
            format!("`{route}` leads past the tunnel"),
            format!("ip route delete {route}"),
        ),
        WayTo::By(route) => ok(HopKind::Route, &publish.name, format!("{vip} by `{route}`")),
        WayTo::Here => ok(
            HopKind::Route,
            &publish.name,
            format!("{vip} is this host's own"),
        ),
        WayTo::Nowhere => failed(
            HopKind::Route,
            &publish.name,
            format!("there is no route to {vip}"),
            "see `ip route`; those of the tunnel are made by the daemon",
        ),
    }
}

/// An address that stands for callers and is not this host's: the service is called, and its answers go astray.
fn stray(scene: &Scene, publish: &PublishModel) -> Option<Hop> {
    let SourceIp::Pool(pool) = publish.source_ip else {
        return None;
    };
    let told = routes::elsewhere(&scene.asked(), &scene.host);
    let mut told = told
        .iter()
        .filter_map(|of| Some((of, of.subject.parse::<IpAddr>().ok()?)));
    let (missing, address) = told.find(|(_, address)| pool.contains(*address))?;
    let remedy = missing.remedy.clone().unwrap_or_default();
    let remedy = format!("{remedy}\nand have it there after a restart of this host");
    let evidence = without_name(&missing.text);
    let name = &publish.name;
    Some(if routes::is_asked_for(&scene.host, publish.vip, address) {
        failed(HopKind::Route, name, evidence, remedy)
    } else {
        warning(HopKind::Route, name, evidence, remedy)
    })
}

/// Of several services only the first is named there.
fn without_name(text: &str) -> String {
    let (_, text) = text.split_once(": ").unwrap_or(("", text));
    text.to_owned()
}
