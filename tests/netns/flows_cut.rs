//! What `plan` says of open connections is what becomes of them when the change is made: those that it names are cut, and no
//! others.
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shared::api::plan::{Plan, PlanWarning};
use tests::edge::{Edge, Instance, Setup};
use tests::expect::{differing, eventually, lasting_state};
use tests::node::Node;
use tests::servers::{Conversation, ask_tcp};
use tests::world::LightWorld;
use tests::world::addresses::{API_PORT, API_VIP, OPERATOR, at, public};

use crate::support::{SOON, with_edge};

/// How long the answer on an open connection may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// What was not acknowledged is sent again after twice the time each time.
const UNTIL_ENDED: Duration = Duration::from_secs(30);
/// Open connections of each caller; more than are named.
const EACH: usize = 5;
const NAMED: usize = 3;

/// Callers with their open connections.
struct Caller {
    node: Node,
    called: SocketAddr,
    open: Vec<Conversation>,
}

impl Caller {
    fn new(node: &Node, called: SocketAddr) -> Self {
        Self {
            node: node.clone(),
            called,
            open: Vec::new(),
        }
    }

    /// Opens connections, as soon as one can.
    fn connect(&mut self) -> Result<()> {
        eventually(SOON, "a first connection", || {
            ask_tcp(&self.node, self.called).map(drop)
        })?;
        for _ in 0..EACH {
            let conversation = Conversation::open(&self.node, self.called)?;
            conversation.set_patience(PATIENCE)?;
            self.open.push(conversation);
        }
        Ok(())
    }

    /// How many of them still carry what is said.
    fn alive(&mut self) -> usize {
        let open = self.open.iter_mut();
        open.filter_map(|it| it.echo("still there?").ok()).count()
    }

    /// How many of them a warning names.
    fn named(&self, warning: &PlanWarning) -> Result<usize> {
        let mut named = 0;
        for conversation in &self.open {
            let from = conversation.local_address()?;
            named += usize::from(warning.text.contains(&format!("{from} to ")));
        }
        Ok(named)
    }
}

/// Those that were cut have ended as well, once their ends could tell each other.
fn ended(node: &Node) -> Result<()> {
    eventually(UNTIL_ENDED, "connections of before have ended", || {
        let tracked = node.run(&["conntrack", "-L", "-p", "tcp"])?;
        let open = ["SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT"];
        let is_open = open.iter().any(|state| tracked.contains(state));
        ensure!(!is_open, "{tracked}");
        Ok(())
    })
}

/// What the plan says of open connections; asking changes nothing.
fn cut(instance: &Instance) -> Result<Vec<PlanWarning>> {
    let node = instance.daemon.node();
    let before = lasting_state(node)?;
    let output = instance.output(&["plan", "--json"])?;
    let plan: Plan = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let after = lasting_state(node)?;
    ensure!(before == after, "{}", differing(&before, &after));
    let text = instance.output(&["plan"])?.stdout;
    let text = String::from_utf8(text)?;
    let mut warnings = plan.warnings;
    warnings.retain(|warning| warning.name == "flows_cut");
    for warning in &warnings {
        ensure!(
            text.contains(&format!("warning: {}\n", warning.text)),
            "{text}"
        );
    }
    Ok(warnings)
}

/// Something to change in a file, whose connections it cuts and why.
struct Change {
    old: &'static str,
    new: &'static str,
    /// Subject of the warning and a part of its text.
    visitors: Option<(&'static str, &'static str)>,
    operator: Option<(&'static str, &'static str)>,
}

/// One after the other, each from the configuration of before.
fn each_does_what_the_plan_says(
    visitors: &mut Caller,
    operator: &mut Caller,
    instance: &mut Instance,
    changes: &[Change],
) -> Result<()> {
    let original = fs::read_to_string(&instance.config)?;
    for change in changes {
        let Change { old, new, .. } = change;
        ensure!(original.contains(old), "{old:?} is not in\n{original}");
        for caller in [&mut *visitors, &mut *operator] {
            caller.open.clear();
        }
        ended(instance.daemon.node())?;
        visitors.connect()?;
        operator.connect()?;
        let when = format!("{old:?} became {new:?}");
        ensure!(cut(instance)?.is_empty(), "before {when}");
        fs::write(&instance.config, original.replace(old, new))?;
        let told = cut(instance)?;
        let expected = [
            (&mut *visitors, change.visitors),
            (&mut *operator, change.operator),
        ];
        let count = expected.iter().filter(|(_, cut)| cut.is_some()).count();
        ensure!(told.len() == count, "{when}: {told:?}");
        for (caller, cut) in &expected {
            let Some((subject, why)) = cut else { continue };
            let warning = told.iter().find(|warning| warning.subject == *subject);
            let warning = warning.with_context(|| format!("{when}: {told:?}"))?;
            let begin = format!("{EACH} open connections of {subject} would be cut, since ");
            ensure!(
                warning.text.starts_with(&begin)
                    && warning.text.contains(why)
                    && warning.text.contains("/tcp (since ")
                    && warning.text.ends_with(" and 2 more")
                    && caller.named(warning)? == NAMED,
                "{when}: {warning:?}"
            );
        }
        instance.reload(str::to_owned)?;
        for (caller, cut) in expected {
            let alive = caller.alive();
            let survivors = if cut.is_some() { 0 } else { EACH };
            ensure!(alive == survivors, "{when}: {alive} survive; {told:?}");
        }
        instance.reload(|_| original.clone())?;
    }
    Ok(())
}

fn with_callers(test: impl FnOnce(&mut Caller, &mut Caller, &mut Edge) -> Result<()>) {
    // The office has no IPv6.
    let setup = Setup {
        ipv4_only: true,
        ..Setup::new().expect("keys can be made")
    };
    with_edge(setup, |world: &mut LightWorld, edge| {
        for node in [&world.vps, &world.lan_host] {
            node.set_sysctl("net/netfilter/nf_conntrack_timestamp", "1")?;
        }
        let _laptop =
            edge.setup
                .dial_in(&world.road_warrior, &edge.setup.operator, OPERATOR.into())?;
        let mut visitors = Caller::new(&world.client, public(443));
        let mut operator = Caller::new(&world.road_warrior, at(API_VIP, API_PORT));
        test(&mut visitors, &mut operator, edge)
    });
}

#[test]
fn a_change_of_the_gateway_cuts_the_connections_that_its_plan_names() {
    let role = Some((
        "peer operator",
        "`iifname \"edge0\" counter name \"refused_from_tunnel\" drop` of chain forward",
    ));
    let peer = Some(("peer operator", "no longer that of the same peer"));
    let changes = [
        // Established connections don't ask what is published.
        Change {
            old: "ports     = [80, 443]",
            new: "ports     = [80]",
            visitors: None,
            operator: None,
        },
        Change {
            old: "allow = [\"cloudflare\"]",
            new: "allow = [\"office\"]",
            visitors: Some(("publish ingress", "of chain guard drops")),
            operator: None,
        },
        Change {
            old: "\"10.17.5.10:6443/tcp\", ",
            new: "",
            visitors: None,
            operator: role,
        },
        Change {
            old: "role       = \"kube-admin\"",
            new: "",
            visitors: None,
            operator: role,
        },
        Change {
            old: "\"10.17.0.10\"",
            new: "\"10.17.0.12\"",
            visitors: None,
            operator: peer,
        },
    ];
    with_callers(|visitors, operator, edge| {
        each_does_what_the_plan_says(visitors, operator, &mut edge.gateway, &changes)
    });
}

#[test]
fn a_change_of_the_lan_end_cuts_the_connections_that_its_plan_names() {
    let changes = [
        Change {
            old: "ports     = [80, 443]",
            new: "ports     = [80]",
            visitors: None,
            operator: None,
        },
        Change {
            old: "\"10.17.5.10:6443/tcp\", ",
            new: "",
            visitors: None,
            operator: None,
        },
        // The tunnel takes the addresses of those who may call, and no others.
        Change {
            old: "from = [\"cloudflare\"]",
            new: "from = [\"office\"]",
            visitors: Some(("publish ingress", "no longer that of the same peer")),
            operator: None,
        },
    ];
    with_callers(|visitors, operator, edge| {
        each_does_what_the_plan_says(visitors, operator, &mut edge.lan_server, &changes)
    });
}
