//! The documentation's commands do what it says: each page in a world of its own, block after block, as printed.
//!
//! A host has what a person has there: both programs in the search path, an `/etc` and `/var/lib` of its own (an overlay, of
//! which nothing reaches the machine), and a terminal with someone who says yes. What is written `TOKEN` is the one that was
//! printed last. There is no systemd: where a package's unit starts the daemon, the test does.
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::daemon::Daemon;
use tests::docs::{self, Block, Tested};
use tests::edge::{answer_of_lan_end, binary};
use tests::expect::eventually;
use tests::node::Node;
use tests::servers::ask_tcp;
use tests::world::addresses::public;
use tests::world::{LightWorld, SITE, World};

use crate::support::{SOON, in_light_world, in_reference_world};

/// From the start of the second end to the first packet, a lost handshake message among it.
const TUNNEL_UP: Duration = Duration::from_secs(10);
/// What a person types: yes, to each question.
const YES: &str = "y\ny\ny\n";
/// What a token begins with.
const TOKEN: &str = "edgejoin1_";

/// A host of the documentation.
struct Host<'a> {
    node: &'a Node,
    program: &'static str,
    own: PathBuf,
    daemon: Option<Daemon>,
    blocks: usize,
}

impl<'a> Host<'a> {
    fn new(node: &'a Node, program: &'static str) -> Result<Self> {
        let own = node.dir().join("own");
        std::fs::create_dir(&own)?;
        let script = format!(
            "set -e
            mount -t tmpfs tmpfs {own}
            cd {own}
            mkdir bin home etc etc.work lib lib.work
            ln -s {gateway} {lan_server} bin/
            mount -t overlay overlay -o lowerdir=/etc,upperdir=etc,workdir=etc.work /etc
            mount -t overlay overlay -o lowerdir=/var/lib,upperdir=lib,workdir=lib.work /var/lib",
            own = own.display(),
            gateway = binary("gateway")?,
            lan_server = binary("lan-server")?,
        );
        node.run(&["sh", "-c", &script])?;
        Ok(Self {
            node,
            program,
            own,
            daemon: None,
            blocks: 0,
        })
    }

    fn path(&self) -> String {
        let own = self.own.display();
        format!("PATH={own}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }

    /// The block as a file, and the words that run it in a terminal.
    fn words(&mut self, block: &Block, token: Option<&str>) -> Result<Vec<String>> {
        let mut script = block.script();
        if let Some(token) = token {
            script = script.replace("edgejoin1_…", token).replace("TOKEN", token);
        }
        self.blocks += 1;
        let home = self.own.join("home");
        let file = home.join(format!("block-{}", self.blocks));
        self.node
            .run_with_input(&["tee", &file.display().to_string()], &script)?;
        let file = file.display();
        let run = match block.kind.as_str() {
            "nft" => format!("nft -f {file}"),
            // A script's own argument, where it takes one: the name of an interface.
            _ => format!("cd {} && bash -eu -o pipefail {file} wg9", home.display()),
        };
        let words = ["env", &self.path(), "script", "-qefc", &run, "/dev/null"];
        Ok(words.map(str::to_owned).into())
    }

    /// Run it to its end; what it printed.
    fn run(&mut self, block: &Block, token: Option<&str>) -> Result<String> {
        let words = self.words(block, token)?;
        let output = self.node.enter(|| {
            let mut command = Command::new("env");
            let command = command.args(words.iter().skip(1)).stdin(Stdio::piped());
            let mut child = command.stdout(Stdio::piped()).spawn()?;
            // Open to the end: script(1) takes two seconds to pass on the end of what nobody has read.
            let mut keyboard = child.stdin.take().context("no standard input")?;
            let _not_read = keyboard.write_all(YES.as_bytes());
            Ok(child.wait_with_output()?)
        })?;
        let printed = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        ensure!(
            output.status.success(),
            "{}\nended with {} and printed\n{printed}",
            block.text,
            output.status
        );
        Ok(printed)
    }

    /// Run it on in the foreground of a terminal; what it has printed when it is up.
    fn stay(&mut self, block: &Block, token: Option<&str>) -> Result<String> {
        let words = self.words(block, token)?;
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let typing = format!(
            "(printf '{}'; exec sleep 600) | {}",
            YES.escape_default(),
            quoted.join(" ")
        );
        let mut daemon = Daemon::start(self.node, "foreground", &["bash", "-c", &typing])?;
        let up = match self.program {
            "gateway" => "ready",
            _ => "tunnel up after",
        };
        daemon.wait_for_log(TUNNEL_UP, 0, &[up])?;
        let printed = daemon.log().replace('\r', "");
        self.daemon = Some(daemon);
        Ok(printed)
    }

    /// What systemd does when the service is enabled.
    fn start_daemon(&mut self) -> Result<()> {
        let config = format!("/etc/wg-edge/{}.toml", self.program);
        let is_configured = self.node.run(&["test", "-e", &config]).is_ok();
        if self.daemon.is_none() && is_configured {
            let program = self.own.join("bin").join(self.program);
            let program = program.display().to_string();
            let mut daemon = Daemon::start(self.node, self.program, &[&program, "run"])?;
            daemon.wait_for_log(SOON, 0, &["ready"])?;
            self.daemon = Some(daemon);
        }
        Ok(())
    }
}

/// Both hosts, and the token of the last invitation.
struct Hosts<'a> {
    world: &'a World,
    vps: Host<'a>,
    lan: Host<'a>,
    token: Option<String>,
}

impl<'a> Hosts<'a> {
    fn new(world: &'a World) -> Result<Self> {
        Ok(Self {
            world,
            vps: Host::new(&world.vps, "gateway")?,
            lan: Host::new(&world.lan_host, "lan-server")?,
            token: None,
        })
    }

    fn at(&mut self, place: &str) -> &mut Host<'a> {
        if place == "vps" {
            &mut self.vps
        } else {
            &mut self.lan
        }
    }

    /// Run a block and look whether it printed what is shown.
    fn run(&mut self, place: &str, block: &Block, stays: bool) -> Result<()> {
        let token = self.token.clone();
        let host = self.at(place);
        let printed = if stays {
            host.stay(block, token.as_deref())?
        } else {
            host.run(block, token.as_deref())?
        };
        host.start_daemon()?;
        if place == "lan" && host.daemon.is_some() {
            eventually(TUNNEL_UP, "the tunnel", || answer_of_lan_end(self.world))?;
        }
        shows(block, &printed)?;
        if let Some(found) = printed
            .split_whitespace()
            .find(|word| word.starts_with(TOKEN))
        {
            self.token = Some(found.to_owned());
        }
        Ok(())
    }

    /// What most pages begin with.
    fn pair(&mut self) -> Result<()> {
        for (place, command) in [
            ("vps", "gateway init\n"),
            ("lan", "lan-server join TOKEN\n"),
        ] {
            self.run(place, &commands(command), false)?;
        }
        Ok(())
    }

    /// All blocks of a page that are for these hosts.
    fn page(
        &mut self,
        path: &str,
        mut beside: impl FnMut(&mut Self, &str, &str, &Block) -> Result<()>,
    ) -> Result<()> {
        let blocks = docs::page(path)?.blocks();
        let pairs_itself = blocks
            .iter()
            .any(|block| block.runs_at("lan") && block.text.contains("lan-server join"));
        if !pairs_itself {
            self.pair()?;
        }
        let mut count = 0;
        for block in &blocks {
            let Ok(Tested::Run {
                places,
                stays,
                beside: name,
            }) = block.tested()
            else {
                continue;
            };
            for place in places.iter().filter(|place| *place != "host") {
                count += 1;
                let done = match &name {
                    Some(name) => beside(self, place, name, block),
                    None => self.run(place, block, stays),
                };
                done.with_context(|| format!("{path}:{}, on {place}", block.line))?;
            }
        }
        ensure!(count > 0, "{path} has no block to run");
        Ok(())
    }
}

fn commands(text: &str) -> Block {
    Block {
        line: 0,
        kind: "sh".to_owned(),
        text: text.to_owned(),
        comment: None,
    }
}

/// Each line that is shown was printed, in this order; `…` is anything.
fn shows(block: &Block, printed: &str) -> Result<()> {
    // What is typed behind a question is echoed when it was typed, not where it stands.
    let printed = printed.replace("[y/N] ", "[y/N]\n");
    let mut rest = printed.lines();
    for line in block.shown() {
        let line = line
            .strip_suffix(" y")
            .filter(|line| line.ends_with("[y/N]"))
            .unwrap_or(line);
        let found = rest.any(|printed| matches(line, printed));
        ensure!(found, "the page shows\n{line}\nand printed was\n{printed}");
    }
    Ok(())
}

fn matches(shown: &str, printed: &str) -> bool {
    let mut rest = printed;
    let mut parts = shown.split('…');
    if !parts.next().is_some_and(|first| {
        let found = rest.strip_prefix(first);
        rest = found.unwrap_or_default();
        found.is_some()
    }) {
        return false;
    }
    parts.all(|part| match rest.split_once(part) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

fn no_neighbours(_: &mut Hosts<'_>, _: &str, name: &str, _: &Block) -> Result<()> {
    anyhow::bail!("this page has no neighbour {name}")
}

/// In the light world; afterwards visitors who may come do, and others don't.
#[track_caller]
fn run_page(path: &str) {
    in_light_world(|world| {
        let mut hosts = Hosts::new(world)?;
        hosts.page(path, no_neighbours)?;
        ask_tcp(&world.client, public(443))?;
        ensure!(
            ask_tcp(&world.stranger, public(443)).is_err(),
            "a stranger gets in"
        );
        Ok(())
    });
}

/// Pages that are run here; a test of this file looks that none is missing.
const PAGES: &[&str] = &[
    "docs/flatcar-microcloud.md",
    "docs/install.md",
    "docs/neighbours.md",
    "docs/operations.md",
    "docs/quick-start.md",
    "docs/troubleshooting.md",
];

#[test]
fn quick_start() {
    run_page("docs/quick-start.md");
}

#[test]
fn install() {
    run_page("docs/install.md");
}

#[test]
fn operations() {
    run_page("docs/operations.md");
}

#[test]
fn troubleshooting() {
    run_page("docs/troubleshooting.md");
}

/// What the KVM host has: a ruleset of its own, which lets nothing new pass.
const KVM_HOST: &str = r#"
flush ruleset
table inet filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname { "virbr-infra", "virbr-nodes", "virbr-vip" } accept
    }
}
"#;

#[test]
fn flatcar_microcloud() {
    in_reference_world(|world| {
        world.lan_host.nft(KVM_HOST)?;
        let mut hosts = Hosts::new(world)?;
        let ca = std::fs::read(&world.api_certificate)?;
        let ca = hosts
            .vps
            .node
            .run_with_input(&["base64", "-w0"], &String::from_utf8(ca)?)?;
        let k3s = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: default, cluster: {{server: 'https://127.0.0.1:6443', \
             certificate-authority-data: {ca}}}}}]\nusers: [{{name: default, user: {{token: secret}}}}]\n\
             contexts: [{{name: default, context: {{cluster: default, user: default}}}}]\ncurrent-context: default\n"
        );
        let file = hosts.vps.own.join("home/k3s.yaml").display().to_string();
        hosts.vps.node.run_with_input(&["tee", &file], &k3s)?;
        hosts.page("docs/flatcar-microcloud.md", no_neighbours)?;
        let page = world.visit(&world.client, &format!("https://{SITE}/"))?;
        ensure!(page == "you are 173.245.48.10\n", "{page}");
        Ok(())
    });
}

/// Rules like those that others make, as a script: each stops new connections into or out of the tunnel.
fn rules_of(neighbour: &str) -> Result<&'static str> {
    Ok(match neighbour {
        "nftables" => {
            "nft -f - <<'END'
table inet filter {
    chain input { type filter hook input priority filter; policy accept; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
    }
}
END"
        }
        // As Docker 28 lists them where it has switched forwarding on.
        "docker" => {
            "iptables -P FORWARD DROP
iptables -N DOCKER-USER
iptables -N DOCKER-FORWARD
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -j DOCKER-FORWARD
iptables -A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT"
        }
        // As libvirt's iptables backend makes them for a network with NAT.
        "libvirt-iptables" => {
            "for chain in FWI FWO FWX; do iptables -N LIBVIRT_$chain; iptables -A FORWARD -j LIBVIRT_$chain; done
iptables -A LIBVIRT_FWI -d 10.17.5.0/24 -o virbr-vip -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A LIBVIRT_FWI -o virbr-vip -j REJECT --reject-with icmp-port-unreachable
iptables -A LIBVIRT_FWO -s 10.17.5.0/24 -i virbr-vip -j ACCEPT
iptables -A LIBVIRT_FWO -i virbr-vip -j REJECT --reject-with icmp-port-unreachable
iptables -A LIBVIRT_FWX -i virbr-vip -o virbr-vip -j ACCEPT"
        }
        // The same by its nftables backend (`network_nftables.c`).
        "libvirt-nftables" => {
            "nft -f - <<'END'
table ip libvirt_network {
    chain guest_output {
        ip saddr 10.17.5.0/24 iif virbr-vip counter accept
        iif virbr-vip counter reject
    }
    chain guest_input {
        oif virbr-vip ip daddr 10.17.5.0/24 ct state established,related counter accept
        oif virbr-vip counter reject
    }
    chain guest_cross { iif virbr-vip oif virbr-vip counter accept; }
    chain forward {
        type filter hook forward priority filter; policy accept;
        counter jump guest_cross
        counter jump guest_input
        counter jump guest_output
    }
}
END"
        }
        other => anyhow::bail!("nobody knows the rules of {other}"),
    })
}

/// The path works, the neighbour's rules stop it, the block opens it again.
fn beside(
    world: &LightWorld,
    hosts: &mut Hosts<'_>,
    place: &str,
    neighbour: &str,
    block: &Block,
) -> Result<()> {
    let visit = || ask_tcp(&world.client, public(443));
    visit().context("before")?;
    let rules = commands(rules_of(neighbour)?);
    hosts.at(place).run(&rules, None)?;
    ensure!(visit().is_err(), "the rules of {neighbour} stop nothing");
    hosts.run(place, block, false)?;
    visit().context("with the lines of the page")?;
    // Peers as well, and answers of the other end.
    answer_of_lan_end(world)?;
    let line =
        "nft list tables | grep -v wg_edge | while read -r table; do nft delete $table; done\n";
    hosts.at(place).run(&commands(line), None).map(drop)
}

#[test]
fn neighbours() {
    in_light_world(|world| {
        let world = &*world;
        let mut hosts = Hosts::new(world)?;
        hosts.page("docs/neighbours.md", |hosts, place, neighbour, block| {
            beside(world, hosts, place, neighbour, block)
        })
    });
}

#[test]
fn no_page_is_left_out() {
    let mut pages = docs::pages().unwrap();
    pages.retain(|page| {
        let mut blocks = page.blocks().into_iter();
        !page.is_spanish() && blocks.any(|block| block.runs_at("vps") || block.runs_at("lan"))
    });
    let pages: Vec<&str> = pages.iter().map(|page| page.path.as_str()).collect();
    assert_eq!(pages, PAGES);
}

#[test]
fn what_is_shown_is_looked_for() {
    let shown = Block {
        text: "$ x\nwrite …? [y/N] y\nkey …= end\n".to_owned(),
        kind: "console".to_owned(),
        ..commands("")
    };
    assert!(shows(&shown, "a\nwrite /etc? [y/N] key abc= end\n").is_ok());
    for printed in [
        "key abc= end\nwrite /etc? [y/N] \n",
        "write x? [y/N] key abc=\n",
        "write x? [y/N] ",
    ] {
        assert!(shows(&shown, printed).is_err(), "{printed}");
    }
}
