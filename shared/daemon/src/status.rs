//! The status of a daemon: who can say it, and how a person reads it.
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use shared::api::apply::{Apply, ApplyState};
use shared::api::diagnosis::{Diagnosis, Hop, ProbeRequest};
use shared::api::drift::{Drift, DriftSummary};
use shared::api::plan::{Plan, PlanRequest};
use shared::api::policy::CloudflareRanges;
use shared::api::probe::{Health, Probe, ProbeState};
use shared::api::status::{Peer, Publish, Status};
use shared::api::trace::Trace;
use shared::config::policy_test::{CallerName, Target};

use crate::cli::output::{COLUMNS, columns, size, span};
use crate::error::Failure;
use crate::history::Window;
use crate::readiness::Problems;

/// Who knows the status. A trait, so that the admin routes are tested without a kernel.
pub trait Reporter: Send + Sync {
    /// The status now.
    fn status(&self) -> Pin<Box<dyn Future<Output = Result<Status, Failure>> + Send + '_>>;

    /// What is wrong now; costs next to nothing, however often it is asked.
    fn problems(&self) -> Pin<Box<dyn Future<Output = Problems> + Send + '_>>;

    /// Published services now, as in the status.
    fn publishes(&self) -> Pin<Box<dyn Future<Output = Vec<Publish>> + Send + '_>>;

    /// Whether published services answer.
    fn probes(&self) -> Vec<Probe>;

    /// What a reload would do.
    fn plan(
        &self,
        request: PlanRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Plan, Failure>> + Send + '_>>;

    /// The way of a call through the rules that run; [`Failure::Other`] when nobody is such a caller.
    fn trace(
        &self,
        from: CallerName,
        to: Target,
        lan_server_files: Vec<PathBuf>,
    ) -> Pin<Box<dyn Future<Output = Result<Trace, Failure>> + Send + '_>>;

    /// Every hop of every published path, tried now; [`Failure::Other`] when there is no such service.
    fn diagnose(
        &self,
        request: ProbeRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Diagnosis, Failure>> + Send + '_>>;

    /// What the last minutes have brought.
    fn lately(&self) -> Window;

    /// What others have changed and what became of it, the newest first.
    fn drifts(&self) -> Vec<Drift>;

    /// What the set `cloudflare` stands for.
    fn cloudflare_ranges(&self) -> CloudflareRanges;
}

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Peers that the screen shows; there may be thousands.
const PEERS_SHOWN: usize = 16;
/// Columns of names on 80 columns; a wider terminal gives them more.
const NAME_COLUMNS: usize = 20;
/// The longest name that there is.
const LONGEST_NAME: usize = 64;
/// What stands below a name begins here.
const INDENT: usize = 6;

/// One screen for the terminal, or of 80 columns when standard output is none.
pub fn render(status: &Status, colour: bool) -> String {
    render_in(status, colour, usize::from(columns()))
}

fn render_in(status: &Status, colour: bool, columns: usize) -> String {
    let mut screen = Screen {
        text: String::new(),
        colour,
        columns,
    };
    screen.daemon(status);
    screen.peers(status);
    screen.head("published", "");
    for publish in &status.publishes {
        screen.publish(publish);
    }
    screen.head("refused by the firewall (packets)", "");
    screen.counters(&status.refused_packets);
    screen.head("dropped by the tunnel (packets)", "");
    screen.counters(&status.dropped_packets);
    screen.text
}

/// That the configuration file is not, or not for good, what runs.
fn trial(apply: &Apply) -> Option<String> {
    match apply.state {
        ApplyState::Pending => Some(format!(
            "the configuration is on trial: unless it is confirmed, that of before comes back at {}",
            apply.confirm_by.strftime("%H:%M:%S UTC")
        )),
        ApplyState::Confirmed => None,
        ApplyState::RolledBack => Some(format!(
            "the configuration that was applied at {} was rolled back: {}",
            apply.applied_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
            apply.reason.as_deref().unwrap_or("nobody confirmed it")
        )),
    }
}

/// Text that fits into its columns. Cut first, coloured then: a terminal counts no colours.
struct Screen {
    text: String,
    colour: bool,
    columns: usize,
}

impl Screen {
    fn line(&mut self, text: &str) {
        self.text.push_str(&fit(text, self.columns));
        self.text.push('\n');
    }

    /// A sentence, on as many lines as it needs.
    fn sentence(&mut self, indent: usize, text: &str) {
        let room = self.columns.saturating_sub(indent);
        for line in wrapped(text, room) {
            self.line(&format!("{:indent$}{line}", ""));
        }
    }

    fn head(&mut self, title: &str, more: &str) {
        let title = self.paint(BOLD, title);
        self.text.extend(["\n", &title, more, "\n"]);
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour {
            format!("{style}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }

    fn name_columns(&self) -> usize {
        let wider = self.columns.saturating_sub(usize::from(COLUMNS));
        (NAME_COLUMNS + wider).min(LONGEST_NAME)
    }

    fn fault(&mut self, fault: &Hop) {
        let head = format!("broken: {} of {}", fault.hop.name(), fault.of);
        let head = self.paint(RED, &fit(&head, self.columns.saturating_sub(2)));
        self.text.extend(["  ", &head, "\n"]);
        self.sentence(6, &fault.evidence);
        for remedy in fault.remedy.iter().flat_map(|remedy| remedy.lines()) {
            // To be copied whole.
            self.text.extend(["      -> ", remedy, "\n"]);
        }
    }

    fn daemon(&mut self, status: &Status) {
        let state = if status.ready {
            self.paint(GREEN, "ready")
        } else {
            self.paint(RED, "not ready")
        };
        let product = self.paint(BOLD, &status.product);
        let line = format!(
            "{product} {}  {state}  pid {}, since {}\n",
            status.version, status.pid, status.started_at
        );
        self.text.push_str(&line);
        for problem in &status.problems {
            self.sentence(2, &format!("! {problem}"));
        }
        for warning in &status.warnings {
            self.sentence(2, &format!("warning: {warning}"));
        }
        for obstacle in &status.obstacles {
            self.sentence(2, &format!("warning: {}", obstacle.text));
            // To be copied whole.
            if let Some(remedy) = &obstacle.remedy {
                self.text.extend(["      -> ", remedy, "\n"]);
            }
        }
        for fault in &status.faults {
            self.fault(fault);
        }
        if let Some(sentence) = status.apply.as_ref().and_then(trial) {
            self.sentence(2, &sentence);
        }
        let interface = &status.interface;
        let name = self.paint(BOLD, &interface.name);
        let line = format!(
            "interface {name}  UDP port {}, MTU {}\n",
            interface.listen_port, interface.mtu
        );
        self.text.push_str(&line);
        if let Some(key) = &interface.public_key {
            self.line(&format!("  public key {key}"));
        }
        let off: Vec<&str> = interface
            .offloads
            .iter()
            .filter(|(_, on)| !**on)
            .map(|(name, _)| name.as_str())
            .collect();
        if !off.is_empty() {
            let text = format!("offloads that this kernel lacks: {}", off.join(", "));
            self.sentence(2, &text);
        }
        self.drift(&status.drift);
        let refresh = status.cloudflare_refresh.as_ref();
        if let Some(error) = refresh.and_then(|refresh| refresh.error.as_ref()) {
            let as_of = status.cloudflare_ranges_as_of.as_deref();
            let as_of = as_of.unwrap_or("an unknown day");
            let text =
                format!("no newer list of Cloudflare's networks than that of {as_of}: {error}");
            self.sentence(2, &text);
        }
        if !status.firewall_protected {
            self.line("  firewall table unprotected: this kernel lets others flush it");
        }
    }

    /// What others have changed, if they have.
    fn drift(&mut self, drift: &DriftSummary) {
        let found: Vec<String> = drift
            .found
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        if !found.is_empty() {
            let (found, healed) = (found.join(", "), drift.healed);
            self.sentence(
                2,
                &format!("changed by others: {found}; put right: {healed}"),
            );
        }
    }

    fn peers(&mut self, status: &Status) {
        let online = status.peers.iter().filter(|peer| peer.online).count();
        let offline = status.peers.len() - online;
        let counts = format!("  {} online, {} offline", grouped(online), grouped(offline));
        self.head("peers", &counts);
        let mut peers: Vec<&Peer> = status.peers.iter().collect();
        let more = peers.len().saturating_sub(PEERS_SHOWN);
        if more > 0 {
            // The other ends first, then who was heard from last.
            peers.sort_by_key(|peer| {
                let age = peer.latest_handshake_age_seconds.unwrap_or(u64::MAX);
                (peer.kind == "peer", !peer.online, age)
            });
            peers.truncate(PEERS_SHOWN);
        }
        for peer in peers {
            self.peer(peer);
        }
        if more > 0 {
            let rest = if status.product == "gateway" {
                "gateway peer list".to_owned()
            } else {
                format!("{} status --json", status.product)
            };
            self.line(&format!("  and {} more: {rest}", grouped(more)));
        }
    }

    fn peer(&mut self, peer: &Peer) {
        let short: String = peer.public_key.chars().take(8).collect();
        let name = peer.name.clone().unwrap_or_else(|| format!("{short}…"));
        let handshake = peer
            .latest_handshake_age_seconds
            .map_or_else(|| "never".to_owned(), |age| format!("{} ago", span(age)));
        let endpoint = peer
            .endpoint
            .map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string());
        let online = if peer.online { "online " } else { "offline" };
        let width = self.name_columns();
        let name = fit(&name, width);
        self.line(&format!("  {name:<width$} {online}  {endpoint}"));
        self.line(&format!(
            "{:INDENT$}handshake {handshake}, received {}, sent {}",
            "",
            size(peer.rx_bytes),
            size(peer.tx_bytes)
        ));
    }

    fn publish(&mut self, publish: &Publish) {
        let width = self.name_columns();
        let name = fit(&publish.name, width);
        let protocol = format!("/{}", publish.protocol);
        let to = format!("→ {}", publish.vip);
        let room = self.columns.saturating_sub(width + 3 + protocol.len());
        let beside = room.saturating_sub(1 + to.chars().count());
        if publish.ports.join(",").len() <= beside {
            let ports = publish.ports.join(",");
            self.line(&format!("  {name:<width$} {ports}{protocol} {to}"));
        } else {
            let ports = listed(&publish.ports, room);
            self.line(&format!("  {name:<width$} {ports}{protocol}"));
            self.line(&format!("{:INDENT$}{to}", ""));
        }
        let connections = publish
            .connections
            .map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        let is_down = publish
            .health
            .as_ref()
            .is_some_and(|health| health.state == ProbeState::Down);
        let text = format!(
            "{}, {connections} connections, {} only, {}",
            health(publish.health.as_ref()),
            publish.family,
            publish.source_ip
        );
        self.sentence(if is_down { INDENT - 2 } else { INDENT }, &text);
    }

    fn counters(&mut self, counters: &BTreeMap<String, u64>) {
        let mut none = true;
        for (name, count) in counters.iter().filter(|(_, count)| **count > 0) {
            none = false;
            self.line(&format!("  {:<40} {count}", fit(name, 40)));
        }
        if none {
            self.line("  none");
        }
    }
}

fn health(health: Option<&Health>) -> String {
    let Some(health) = health else {
        return "not tried".to_owned();
    };
    let since = health.since.as_deref().unwrap_or("now");
    match health.state {
        ProbeState::Up => {
            let took = health.connect_milliseconds.unwrap_or_default();
            format!("up since {since} ({took} ms)")
        }
        ProbeState::Down => {
            let error = health.error.as_deref().unwrap_or("no answer");
            format!("! down since {since} ({error})")
        }
        ProbeState::Unknown => "not tried yet".to_owned(),
    }
}

/// At most so many characters; what is cut off is a `…`.
fn fit(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// As many entries as there is room for.
fn listed(entries: &[String], room: usize) -> String {
    let mut text = String::new();
    for (number, entry) in entries.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let left = entries.len() - number;
        let more = format!("{comma}… {left} more");
        let is_last = left == 1;
        let needed = text.chars().count() + comma.len() + entry.chars().count();
        let reserved = if is_last { 0 } else { more.chars().count() };
        if needed + reserved > room && number > 0 {
            text.push_str(&more);
            return text;
        }
        text.extend([comma, entry.as_str()]);
    }
    text
}

/// Broken between words; a word that is longer than a line is one of its own.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `1,984`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use shared::api::diagnosis::{HopKind, Verdict};
    use shared::api::plan::PlanWarning;
    use shared::api::policy::CloudflareRefresh;
    use shared::api::status::Interface;

    use super::*;

    fn status() -> Status {
        Status {
            product: "gateway".to_owned(),
            version: "0.1.0".to_owned(),
            host: "vps".to_owned(),
            pid: 4_194_304,
            started_at: "2026-11-22T22:19:29Z".to_owned(),
            reported_at: "2026-11-22T22:20:29Z".to_owned(),
            ready: true,
            problems: Vec::new(),
            warnings: Vec::new(),
            obstacles: Vec::new(),
            faults: Vec::new(),
            firewall_protected: false,
            interface: Interface {
                name: "edge0".to_owned(),
                public_key: Some("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".to_owned()),
                listen_port: 51820,
                fwmark: 0,
                mtu: 1420,
                offloads: BTreeMap::from([("tun_uso".to_owned(), false)]),
            },
            peers: vec![Peer {
                name: Some("home".to_owned()),
                kind: "lan_server".to_owned(),
                public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".to_owned(),
                endpoint: Some("[2001:db8:1111:2222::3]:51820".parse().unwrap()),
                allowed_ips: vec!["10.17.0.2/32".to_owned()],
                latest_handshake_age_seconds: Some(119),
                online: true,
                rx_bytes: 1536,
                tx_bytes: u64::MAX,
            }],
            publishes: vec![Publish {
                name: "ingress".to_owned(),
                vip: "10.17.5.30".parse().unwrap(),
                family: "ipv4".to_owned(),
                protocol: "tcp".to_owned(),
                ports: vec!["80".to_owned(), "443".to_owned()],
                source_ip: "preserve".to_owned(),
                connections: Some(3),
                health: Some(Health {
                    state: ProbeState::Up,
                    since: Some("2026-11-22T22:19:30Z".to_owned()),
                    connect_milliseconds: Some(12),
                    error: None,
                }),
            }],
            probes: Vec::new(),
            cloudflare_ranges_as_of: None,
            cloudflare_refresh: None,
            refused_packets: BTreeMap::from([("guard_ipv4".to_owned(), 7)]),
            dropped_packets: BTreeMap::from([("invalid_mac1".to_owned(), 0)]),
            handshakes: BTreeMap::new(),
            applies: BTreeMap::new(),
            apply: None,
            drift: DriftSummary {
                found: BTreeMap::from([("link".to_owned(), 0), ("route".to_owned(), 3)]),
                healed: 2,
                fought: Vec::new(),
            },
            conntrack: None,
            source_ports: Vec::new(),
            io: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_broken_and_what_stands_in_the_way_is_told_with_its_remedy() {
        let mut status = status();
        let remedy = "nft insert rule inet filter forward iifname \"eth0\" oifname \"edge0\" ct status dnat accept";
        status.obstacles.push(PlanWarning {
            name: "foreign_firewall".to_owned(),
            subject: "inet filter forward".to_owned(),
            text:
                "visitors of ingress: the policy of chain forward of table inet filter drops them"
                    .to_owned(),
            remedy: Some(remedy.to_owned()),
        });
        status.faults.push(Hop {
            hop: HopKind::Connection,
            of: "ingress 10.17.5.30:443".to_owned(),
            verdict: Verdict::Failed,
            milliseconds: Some(1),
            evidence: "nobody listens there".to_owned(),
            remedy: Some("start it".to_owned()),
            cloudflare_error: Some(521),
        });
        let screen = render_in(&status, false, 80);
        for told in [
            "  warning: visitors of ingress: the policy of chain forward of table inet filter\n  drops them\n",
            &format!("      -> {remedy}\n"),
            "  broken: connection of ingress 10.17.5.30:443\n      nobody listens there\n      -> start it\n",
        ] {
            assert!(screen.contains(told), "{told}\n{screen}");
        }
    }

    #[test]
    fn the_screen_fits_80_columns_and_names_what_matters() {
        let screen = render_in(&status(), false, 80);
        for line in screen.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for part in [
            "gateway 0.1.0  ready",
            "home                 online   [2001:db8:1111:2222::3]:51820",
            "handshake 1m 59s ago, received 1.50 KiB",
            "ingress              80,443/tcp → 10.17.5.30",
            "up since 2026-11-22T22:19:30Z (12 ms), 3 connections, ipv4 only, preserve",
            "peers  1 online, 0 offline",
            "this kernel lets others flush it",
            "guard_ipv4                               7",
            "offloads that this kernel lacks: tun_uso",
            "changed by others: route 3; put right: 2",
        ] {
            assert!(screen.contains(part), "{part:?} is missing in\n{screen}");
        }
        assert!(!screen.contains("invalid_mac1"), "a zero counter is noise");
        assert!(!screen.contains('\x1b'), "no colours off a terminal");
    }

    fn fits(screen: &str) {
        for line in screen.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_refresh_that_fails_is_told_and_one_that_does_not_is_not() {
        let mut status = status();
        status.cloudflare_ranges_as_of = Some("2026-11-19".to_owned());
        let mut refresh = CloudflareRefresh {
            from: "https://a.example/ips".to_owned(),
            confirmed_at: None,
            checked_at: None,
            error: Some("it is a web page and no list of networks".to_owned()),
        };
        status.cloudflare_refresh = Some(refresh.clone());
        let screen = render_in(&status, false, 80);
        fits(&screen);
        assert!(
            screen.contains("networks than that of 2026-11-19: it"),
            "{screen}"
        );
        refresh.error = None;
        status.cloudflare_refresh = Some(refresh);
        assert!(!render_in(&status, false, 80).contains("2026-11-19"));
    }

    #[test]
    fn what_is_too_long_is_cut_or_goes_on_below() {
        let mut status = status();
        status.ready = false;
        status.problems = vec!["the kernel is not as it was left: ".repeat(4)];
        status.peers[0].name = Some("x".repeat(64));
        status.peers[0].endpoint = Some(
            "[2001:db8:1111:2222:3333:4444:5555:6666]:51820"
                .parse()
                .unwrap(),
        );
        status.peers[0].latest_handshake_age_seconds = Some(123_456_789);
        let publish = &mut status.publishes[0];
        publish.name = "y".repeat(64);
        publish.ports = (30_000..30_064).map(|port: u16| port.to_string()).collect();
        publish.vip = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
        publish.health = Some(Health {
            state: ProbeState::Down,
            since: Some("2026-11-22T22:19:30Z".to_owned()),
            connect_milliseconds: None,
            error: Some("port 30000: connection refused: nobody listens there".to_owned()),
        });
        status.refused_packets = BTreeMap::from([("z".repeat(90), u64::MAX)]);
        let screen = render_in(&status, false, 80);
        fits(&screen);
        for part in [
            "xxx… online ",
            "yyy… 30000,30001,30002,30003,30004,30005,30006,… 57 more/tcp\n",
            "\n      → 2001:db8:1111:2222:3333:4444:5555:6666\n",
            "! down since 2026-11-22T22:19:30Z (port 30000: connection refused:",
            "zzz… 18446744073709551615",
        ] {
            assert!(screen.contains(part), "{part:?} is missing in\n{screen}");
        }
        let wide = render_in(&status, false, 200);
        assert!(wide.contains(&"x".repeat(64)), "{wide}");
    }

    #[test]
    fn of_thousands_of_peers_those_that_matter_are_shown() {
        let mut status = status();
        let lan_server = status.peers.remove(0);
        status.peers = (0..2000_u64)
            .map(|number| Peer {
                name: Some(format!("peer-{number}")),
                kind: "peer".to_owned(),
                online: number % 100 == 7,
                latest_handshake_age_seconds: (number % 2 == 1).then_some(number),
                ..lan_server.clone()
            })
            .collect();
        // The last in the file, and offline.
        status.peers.push(Peer {
            online: false,
            ..lan_server
        });
        let screen = render_in(&status, false, 80);
        fits(&screen);
        assert!(screen.lines().count() < 60, "{screen}");
        let place = |text: &str| screen.find(text).unwrap_or(usize::MAX);
        assert!(
            place("home ") < place("peer-7 ") && place("peer-7 ") < place("peer-107 "),
            "{screen}"
        );
        assert!(
            screen.contains("peers  20 online, 1,981 offline"),
            "{screen}"
        );
        assert!(
            screen.contains("  and 1,985 more: gateway peer list"),
            "{screen}"
        );
    }
}
