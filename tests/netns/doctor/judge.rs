//! How a cut is judged: what is cut, what mends it, and what each end has to say of it meanwhile.
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shared::api::diagnosis::HopKind::{Ping, Session};
use shared::api::diagnosis::{Hop, HopKind};
use tests::edge::Setup;
use tests::expect::{eventually, holds};
use tests::node::Node;

use super::scene::{End, Scene, lines, sh, with_scene};

/// What was mended works again within this, with handshakes that come by themselves.
const MENDED: Duration = Duration::from_secs(20);

/// A place where the path is cut.
pub(super) struct Cut {
    pub(super) name: &'static str,
    pub(super) sever: Step,
    pub(super) mend: Step,
    pub(super) gateway: Told,
    pub(super) lan_server: Told,
}

type Step = fn(&mut Scene<'_>) -> Result<()>;

/// What an end says of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    /// Nothing: it lies where only the other end sees it.
    Nothing,
    /// This, and nothing else.
    Fault(Fault),
    /// The same, and the remedies of the faults are lines for a shell which put it right.
    Remedied(Fault),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    /// One of these.
    pub(super) hop: &'static [HopKind],
    /// Whose: each of these, as a whole or before a space, has a fault, and nobody else; [`HOST`].
    pub(super) of: &'static [&'static str],
    /// What is part of every evidence, whatever its case.
    pub(super) evidence: &'static [&'static str],
}

/// The host's own; what its name is depends on where the test runs.
pub(super) const HOST: &[&str] = &[];

pub(super) const fn told(
    hop: &'static [HopKind],
    of: &'static [&'static str],
    evidence: &'static [&'static str],
) -> Told {
    Told::Fault(Fault { hop, of, evidence })
}

pub(super) const fn remedied(
    hop: &'static [HopKind],
    of: &'static [&'static str],
    evidence: &'static [&'static str],
) -> Told {
    Told::Remedied(Fault { hop, of, evidence })
}

/// The other end is not reached, whether a session is still kept or not.
pub(super) const fn silence(of: &'static [&'static str]) -> Told {
    told(&[Session, Ping], of, &[])
}

/// Each is named while it lasts, and forgotten when it is mended.
pub(super) fn each_is_named(cuts: &[Cut]) {
    with_scene(Setup::new().expect("random keys"), |scene| {
        // The first attempts may have come before the tunnel.
        eventually(MENDED, "well before any cut", || scene.is_well())?;
        for cut in cuts {
            is_named(scene, cut).context(cut.name)?;
        }
        Ok(())
    });
}

fn is_named(scene: &mut Scene<'_>, cut: &Cut) -> Result<()> {
    (cut.sever)(scene)?;
    let mut remedies = Vec::new();
    for (end, told) in [
        (End::Gateway, cut.gateway),
        (End::LanServer, cut.lan_server),
    ] {
        let faults = scene.ask(end)?.faults;
        judge(told, &faults).with_context(|| format!("{} says{}", end.name(), lines(&faults)))?;
        if matches!(told, Told::Remedied(_)) {
            let of_end = faults.into_iter().filter_map(|fault| fault.remedy);
            remedies.extend(of_end.map(|remedy| (end, remedy)));
        }
    }
    if !remedies.is_empty() {
        remedies.dedup();
        for (end, remedy) in &remedies {
            sh(scene.node(*end), remedy)?;
        }
        eventually(MENDED, "well with the remedies", || scene.is_well())
            .with_context(|| format!("{remedies:?}"))?;
    }
    (cut.mend)(scene)?;
    eventually(MENDED, "well after it was mended", || scene.is_well())
}

fn judge(told: Told, faults: &[Hop]) -> Result<()> {
    let (Told::Fault(fault) | Told::Remedied(fault)) = told else {
        return holds(faults.is_empty(), || "nothing is wrong here".to_owned());
    };
    let is_of = |hop: &Hop, of: &str| {
        let rest = hop.of.strip_prefix(of);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let own = [host.trim()];
    let of = if fault.of.is_empty() {
        own.as_slice()
    } else {
        fault.of
    };
    for &of in of {
        let mut faults = faults.iter();
        ensure!(faults.any(|hop| is_of(hop, of)), "no fault of {of}");
    }
    for hop in faults {
        ensure!(
            fault.hop.contains(&hop.hop) && of.iter().any(|of| is_of(hop, of)),
            "not {fault:?}: {}",
            hop.of
        );
        let evidence = hop.evidence.to_lowercase();
        for part in fault.evidence {
            ensure!(evidence.contains(part), "no `{part}` in {evidence}");
        }
    }
    Ok(())
}

/// Part of the rules of a host, made by somebody else.
pub(super) fn foreign_table(rules: &str) -> String {
    format!("table inet strangers {{ {rules}; }}")
}

pub(super) fn without_foreign_table(node: &Node) -> Result<()> {
    node.nft("delete table inet strangers")
}
