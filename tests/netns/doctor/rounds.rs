//! Nobody asks, and the hop that is broken is in the status, the metrics and the log.
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shared::api::diagnosis::HopKind;
use tests::api::Api;
use tests::edge::Setup;
use tests::expect::{eventually, holds};
use tests::world::addresses::{INGRESS_VIP, at};

use super::scene::{End, Scene, lines, with_scene};

/// Services are tried every ten seconds and have two to answer; then the doctor has some.
const TOLD: Duration = Duration::from_secs(20);

/// He may have come when the services took connections but had no answers yet, or when the attempt of every ten seconds had not
/// seen what he saw: then he comes again after a minute.
const WELL: Duration = Duration::from_secs(80);

fn metrics(scene: &Scene<'_>, end: End) -> Result<Vec<String>> {
    let instance = scene.instance(end);
    let page = Api::of(instance, end.name())?.get("/metrics")?;
    let page = page.as_str().context("text")?;
    let faults = page
        .lines()
        .filter(|line| line.starts_with("edge_path_fault{"));
    Ok(faults.map(str::to_owned).collect())
}

#[test]
fn a_path_that_breaks_is_looked_at_by_itself() {
    with_scene(Setup::new().unwrap(), |scene| {
        let well = |scene: &Scene<'_>, end: End| {
            eventually(WELL, "no fault in the status", || {
                let faults = scene.instance(end).status()?.faults;
                holds(faults.is_empty(), || lines(&faults))
            })
        };
        for end in End::BOTH {
            well(scene, end)?;
        }
        let rule = format!("ip daddr {INGRESS_VIP} tcp dport 443 reject with tcp reset");
        scene.world.backend.nft(&format!(
            "table inet deaf {{ chain input {{ type filter hook input priority filter; {rule}; }}; }}"
        ))?;
        let of = format!("ingress {}", at(INGRESS_VIP, 443));
        for end in End::BOTH {
            let instance = scene.instance(end);
            eventually(TOLD, "the fault in the status", || {
                let faults = instance.status()?.faults;
                let [fault] = &faults[..] else {
                    anyhow::bail!("not one fault: {}", lines(&faults))
                };
                holds(
                    fault.hop == HopKind::Connection && fault.of == of && fault.remedy.is_some(),
                    || lines(&faults),
                )
            })?;
            let told = metrics(scene, end)?;
            let sample = format!("edge_path_fault{{hop=\"connection\",of=\"{of}\"}} 1");
            ensure!(told == [sample], "{told:?}");
            let log = instance.daemon.log();
            // Before it there may be lines about services that were not there yet.
            let told = ["a published path is broken", "hop=\"connection\"", &of];
            let is_told = |line: &str| told.iter().all(|part| line.contains(part));
            ensure!(log.lines().any(is_told), "{log}");
        }
        scene.world.backend.nft("delete table inet deaf")?;
        for end in End::BOTH {
            let instance = scene.instance(end);
            well(scene, end)?;
            ensure!(metrics(scene, end)?.is_empty());
            ensure!(instance.daemon.log().contains("published paths work again"));
        }
        Ok(())
    });
}
