//! `explain`: the error that visitors see is led back to what is broken, and to what was.
use anyhow::{Context as _, Result, ensure};
use shared::api::explanation::{Cause, Explanation, Likelihood};
use shared::api::probe::{Probe, ProbeState};
use tests::api::Api;
use tests::edge::{Instance, Setup};
use tests::expect::{eventually, holds};
use tests::servers::Server;
use tests::world::addresses::{INGRESS_VIP, IPERF_PORT, at};

use crate::support::{SOON, with_edge};

fn explain(instance: &Instance, error: u16) -> Result<Vec<Cause>> {
    let output = instance.output(&["explain", &error.to_string(), "--json"])?;
    let explanation: Explanation = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(explanation.error.number() == error, "{explanation:?}");
    Ok(explanation.causes)
}

/// The likeliest cause, and that it was seen at this moment.
fn ensure_now(instance: &Instance, error: u16, what: &str) -> Result<()> {
    let causes = explain(instance, error)?;
    let first = causes.first().context("no cause")?;
    ensure!(
        first.likelihood == Likelihood::Now && first.what.contains(what),
        "{error}: {causes:?}"
    );
    Ok(())
}

/// The probe of the service without a server, as the daemon itself sees it.
fn until_it_is(instance: &Instance, state: ProbeState) -> Result<()> {
    eventually(
        2 * SOON,
        &format!("the probe says {}", state.name()),
        || {
            let status = instance.status()?;
            let is_it = |probe: &&Probe| probe.port == IPERF_PORT;
            let probe = status.probes.iter().find(is_it).context("no probe")?;
            // The first attempts may have come before the tunnel.
            let refused = probe
                .error
                .as_ref()
                .is_none_or(|why| why.contains("refused"));
            holds(probe.state == state && refused, || format!("{probe:?}"))
        },
    )
}

#[test]
fn what_is_broken_is_named_for_the_error_that_it_leads_to() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let of_iperf = format!("connection of iperf {INGRESS_VIP}:{IPERF_PORT}");
        for instance in [&edge.gateway, &edge.lan_server] {
            until_it_is(instance, ProbeState::Down)?;
            ensure_now(instance, 521, &of_iperf)?;
            // The servers of this world answer everything with who has called.
            ensure_now(instance, 525, "tls of ingress")?;
        }
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let answer = api.call("GET", "/v1/explain/527", &[], &serde_json::Value::Null)?;
        ensure!(matches!(answer.status, 404 | 422), "{answer:?}");

        // A reload writes the status, which is what is remembered.
        edge.gateway.reload(str::to_owned)?;
        let _server = Server::tcp(&world.backend, at(INGRESS_VIP, IPERF_PORT))?;
        until_it_is(&edge.gateway, ProbeState::Up)?;
        edge.gateway.reload(str::to_owned)?;
        let causes = explain(&edge.gateway, 521)?;
        let is_it =
            |cause: &&Cause| cause.what.contains("iperf") && cause.evidence.contains("refused");
        let outage = causes.iter().find(is_it);
        let outage = outage.with_context(|| format!("{causes:?}"))?;
        ensure!(outage.likelihood == Likelihood::Lately, "{outage:?}");

        edge.gateway.daemon.kill();
        ensure_now(&edge.gateway, 522, "daemon of gateway")?;
        let text = edge.lan_server.command(&["explain", "524"])?;
        ensure!(text.contains("the application is slow"), "{text}");
        Ok(())
    });
}
