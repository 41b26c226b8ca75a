//! Which place on the way of a visitor is broken: every hop of every published path is looked at, those that can be tried are
//! tried, and the first one that fails is named.
//!
//! | file | what |
//! |---|---|
//! | this | what is known before anything is sent; the order of hops; the faults |
//! | `hop` | how a hop is told |
//! | `host` | kernel, uplink, the tunnel's datagrams |
//! | `tunnel` | session, echo and path MTU of each other end |
//! | `echo` | ICMP echoes |
//! | `service` | callers, translation, firewalls and route of a service |
//! | `visit` | a connection to it, and whether answers come back |
//! | `certificate` | what a certificate is worth, pure |
//! | `web` | TLS and HTTP |
//! | `render` | a diagnosis on a terminal |
//! | `rounds` | he comes by himself when something does not work |
mod certificate;
mod echo;
mod hop;
mod host;
mod render;
pub mod rounds;
mod service;
mod tunnel;
mod visit;
mod web;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use nft::foreign::Foreign;
use shared::api::diagnosis::{Diagnosis, Hop, HopKind, ProbeRequest, Verdict};
use shared::plan::Host;
use shared::plan::desired::protocol;
use shared_datapath::Control;
use tokio::join;

use crate::model::{Environment, Model, PublishModel};
use crate::plan::Running;
use crate::plan::warnings::Asked;
use crate::plan::warnings::path;
use crate::product::{Expected, FarEnd, Settings};
use hop::milliseconds;
use service::Service;

pub use hop::not_running;
pub use render::render;

/// What is known of an end before anything is sent.
#[derive(Debug)]
pub struct Scene {
    /// `gateway` or `lan-server`.
    pub end: &'static str,
    /// Name of the host.
    pub host_name: String,
    /// What runs.
    pub settings: Settings,
    /// What the policy knows of the host.
    pub environment: Environment,
    /// What is in place.
    pub model: Arc<Model>,
    /// What it expects of the host.
    pub expected: Expected,
    /// Links and routes.
    pub host: Host,
    /// Tables of others, or why they can't be read.
    pub foreign: Result<Foreign, String>,
    /// Packets by counter of our table.
    pub counters: BTreeMap<String, u64>,
    /// What in the kernel is not as configured, in sentences.
    pub deviations: Vec<String>,
    /// What does not stay as configured, in sentences: somebody else changes it again and again.
    pub fought: Vec<String>,
    /// The device.
    pub control: Control,
}

impl Scene {
    fn is_gateway(&self) -> bool {
        self.model.desired.protocol == protocol::GATEWAY
    }

    /// The question that `plan` asks of neighbours.
    fn asked(&self) -> Asked<'_> {
        Asked {
            settings: &self.settings,
            environment: &self.environment,
            desired: &self.model.desired,
            expected: &self.expected,
            publishes: &self.model.publishes,
            running: Running::default(),
        }
    }
}

/// Look at everything, all paths at the same time.
pub async fn examine(scene: &Scene, request: &ProbeRequest) -> Diagnosis {
    let (at, began) = (Timestamp::now(), Instant::now());
    let paths = path::all(&scene.asked(), &scene.host);
    let wanted = |publish: &&PublishModel| {
        let only = request.publish.as_ref();
        only.is_none_or(|only| publish.name == *only)
    };
    let publishes = scene.model.publishes.iter().filter(wanted);
    let services = publishes.map(|publish| service::hops(scene, &paths, publish, request));
    let far_ends = scene.expected.far_ends.iter();
    let tunnels = far_ends.map(|far_end| tunnel::hops(scene, far_end));
    let (of_host, of_tunnels, of_services) = join!(
        host::hops(scene, &paths),
        join_all(tunnels),
        join_all(services)
    );
    let found = Found {
        is_gateway: scene.is_gateway(),
        host: of_host,
        tunnels: scene.expected.far_ends.iter().zip(of_tunnels).collect(),
        services: of_services,
    };
    found.diagnosis(scene.end, at, began.elapsed())
}

/// Hops by what they belong to.
struct Found<'a> {
    is_gateway: bool,
    host: Vec<Hop>,
    tunnels: Vec<(&'a FarEnd, Vec<Hop>)>,
    services: Vec<Service>,
}

impl Found<'_> {
    /// Of each path the first hop that failed.
    fn faults(&self) -> Vec<Hop> {
        if let Some(hop) = first_failed(&self.host) {
            return vec![hop.clone()];
        }
        let of_tunnels = self.tunnels.iter();
        let of_tunnels = of_tunnels.filter_map(|(_, hops)| first_failed(hops));
        let mut faults: Vec<Hop> = of_tunnels.cloned().collect();
        for service in &self.services {
            // Seen from here, nothing of a service is behind a tunnel that is down. The LAN end stands before its services.
            if self.is_gateway && self.is_cut_off(service) {
                continue;
            }
            if let Some(hop) = first_failed(&service.hops) {
                faults.push(hop.clone());
                continue;
            }
            let of_ports = service.ports.iter();
            faults.extend(of_ports.filter_map(|hops| first_failed(hops)).cloned());
        }
        faults
    }

    fn is_cut_off(&self, service: &Service) -> bool {
        let mut tunnels = self.tunnels.iter();
        let behind = tunnels.find(|(far_end, _)| {
            let mut networks = far_end.networks.iter();
            networks.any(|network| network.contains(service.vip))
        });
        behind.is_some_and(|(_, hops)| first_failed(hops).is_some())
    }

    fn diagnosis(self, end: &str, at: Timestamp, took: Duration) -> Diagnosis {
        let faults = self.faults();
        let of_services = self.services.into_iter();
        let of_services = of_services.flat_map(|service| {
            let of_ports = service.ports.into_iter().flatten();
            service.hops.into_iter().chain(of_ports)
        });
        let of_tunnels = self.tunnels.into_iter().flat_map(|(_, hops)| hops);
        let hops: Vec<Hop> = self
            .host
            .into_iter()
            .chain(of_tunnels)
            .chain(of_services)
            .collect();
        Diagnosis {
            end: end.to_owned(),
            at,
            took_milliseconds: milliseconds(took),
            verdict: hops
                .iter()
                .map(|hop| hop.verdict)
                .max()
                .unwrap_or(Verdict::Ok),
            faults,
            hops,
        }
    }
}

fn first_failed(hops: &[Hop]) -> Option<&Hop> {
    hops.iter().find(|hop| hop.verdict == Verdict::Failed)
}

/// The daemon itself: who asks it gets an answer, or [`not_running`].
fn daemon(scene: &Scene) -> Hop {
    let evidence = format!(
        "version {} runs as process {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    );
    hop::ok(HopKind::Daemon, &scene.host_name, evidence)
}
