//! A world that is well from end to end, and what the doctor of either end says of it.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use shared::api::diagnosis::{Diagnosis, Hop, Verdict};
use tests::daemon::Daemon;
use tests::edge::{Edge, Instance, Setup};
use tests::node::Node;
use tests::servers::Server;
use tests::web::{Answer, Certificate, WebServer};
use tests::world::LightWorld;
use tests::world::addresses::{INGRESS_VIP, INGRESS_VIP6, IPERF_PORT, at};

use crate::support::with_edge;

/// The name that visitors ask for.
pub(super) const SITE: &str = "www.example.org";

/// Whoever asks is answered within this (issue 6, item 4).
const ANSWERED: Duration = Duration::from_secs(5);

/// Exit code of `doctor` when it has found a fault.
const FAULT: i32 = 5;

/// Everything that a test of the doctor cuts and mends.
pub(super) struct Scene<'a> {
    pub(super) world: &'a mut LightWorld,
    pub(super) edge: &'a mut Edge,
    /// The web servers of both VIPs, by address.
    pub(super) web: BTreeMap<SocketAddr, WebServer>,
    /// A published service that speaks neither TLS nor HTTP.
    pub(super) plain: Option<Server>,
    /// What disturbs.
    pub(super) noise: Option<Daemon>,
}

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Gateway,
    LanServer,
}

impl End {
    pub(super) const BOTH: [Self; 2] = [Self::Gateway, Self::LanServer];

    /// Of its program and its socket.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::LanServer => "lan-server",
        }
    }
}

/// Run a test with both daemons running, and servers on every published TCP port that are what the port says.
#[track_caller]
pub(super) fn with_scene(setup: Setup, test: impl FnOnce(&mut Scene<'_>) -> Result<()>) {
    with_edge(setup, |world, edge| {
        world.end_servers();
        let mut scene = Scene {
            world,
            edge,
            web: BTreeMap::new(),
            plain: None,
            noise: None,
        };
        for address in published([80, 443]) {
            scene.serve_web(address)?;
        }
        scene.serve_plain()?;
        test(&mut scene)
    });
}

impl Scene<'_> {
    /// A web server that answers well.
    pub(super) fn serve_web(&mut self, address: SocketAddr) -> Result<()> {
        let well = Answer::Page("well".to_owned());
        let backend = &self.world.backend;
        let server = if address.port() == 443 {
            WebServer::https(backend, address, Certificate::of(&names())?, well)?
        } else {
            WebServer::http(backend, address, well)?
        };
        self.web.insert(address, server);
        Ok(())
    }

    pub(super) fn serve_plain(&mut self) -> Result<()> {
        let address = at(INGRESS_VIP, IPERF_PORT);
        self.plain = Some(Server::tcp(&self.world.backend, address)?);
        Ok(())
    }

    /// Every web server answers this from now on.
    pub(super) fn answer(&self, answer: &Answer) {
        for server in self.web.values() {
            server.answer(answer.clone());
        }
    }

    /// Every HTTPS server shows this from now on.
    pub(super) fn certify(&self, certificate: &Certificate) {
        let servers = self.web.iter().filter(|(at, _)| at.port() == 443);
        for (_, server) in servers {
            server.certify(certificate.clone());
        }
    }

    pub(super) fn instance(&self, end: End) -> &Instance {
        match end {
            End::Gateway => &self.edge.gateway,
            End::LanServer => &self.edge.lan_server,
        }
    }

    pub(super) fn node(&self, end: End) -> &Node {
        match end {
            End::Gateway => &self.world.vps,
            End::LanServer => &self.world.lan_host,
        }
    }

    /// What `doctor --json` says at this end, in time and in agreement with itself.
    pub(super) fn ask(&self, end: End) -> Result<Diagnosis> {
        self.ask_with(end, &["--server-name", SITE])
    }

    /// The same with other options.
    pub(super) fn ask_with(&self, end: End, options: &[&str]) -> Result<Diagnosis> {
        let mut command = vec!["doctor", "--json"];
        command.extend(options);
        let at = Instant::now();
        let output = self.instance(end).output(&command)?;
        let took = at.elapsed();
        let name = end.name();
        let diagnosis: Diagnosis = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{name}: `{command:?}` printed no diagnosis: {output:?}"))?;
        ensure!(took < ANSWERED, "{name} took {took:?}: {diagnosis:#?}");
        ensure!(diagnosis.end == name, "{name}: {diagnosis:#?}");
        let worst = diagnosis.hops.iter().map(|hop| hop.verdict).max();
        ensure!(
            Some(diagnosis.verdict) == worst
                && (worst == Some(Verdict::Failed)) != diagnosis.faults.is_empty(),
            "{name}: {diagnosis:#?}"
        );
        let code = if diagnosis.faults.is_empty() {
            0
        } else {
            FAULT
        };
        ensure!(output.status.code() == Some(code), "{name}: {output:?}");
        for fault in &diagnosis.faults {
            ensure!(
                fault.verdict == Verdict::Failed && diagnosis.hops.contains(fault),
                "{name}: {fault:#?} of {diagnosis:#?}"
            );
            let remedy = fault.remedy.as_deref().unwrap_or_default();
            ensure!(!remedy.is_empty(), "{name}: no remedy for {fault:#?}");
        }
        Ok(diagnosis)
    }

    /// Neither end finds a fault.
    pub(super) fn is_well(&self) -> Result<()> {
        for end in End::BOTH {
            let diagnosis = self.ask(end)?;
            ensure!(
                diagnosis.faults.is_empty(),
                "{}: {}",
                end.name(),
                lines(&diagnosis.faults)
            );
        }
        Ok(())
    }
}

/// These ports of both VIPs.
pub(super) fn published<const N: usize>(ports: [u16; N]) -> Vec<SocketAddr> {
    let ports = ports.into_iter();
    ports
        .flat_map(|port| [at(INGRESS_VIP, port), (INGRESS_VIP6, port).into()])
        .collect()
}

/// What a certificate of the site is for.
pub(super) fn names() -> [&'static str; 3] {
    [SITE, "10.17.5.30", "fd17:5::30"]
}

pub(super) fn sh(node: &Node, script: &str) -> Result<()> {
    node.run(&["sh", "-euc", script]).map(drop)
}

/// Hops, one a line, for a failure's report.
pub(super) fn lines(hops: &[Hop]) -> String {
    let lines = hops.iter().map(|hop| {
        let Hop {
            of,
            evidence,
            remedy,
            ..
        } = hop;
        format!(
            "\n  {} of {of}: {}: {evidence} → {remedy:?}",
            hop.hop.name(),
            hop.verdict.name()
        )
    });
    lines.collect()
}
