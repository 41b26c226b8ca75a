//! The metrics page of a running gateway, and what is built on it: alert rules and dashboard, each tried in the real tool.
mod dashboard;
mod page;
mod scrape;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::edge::{Edge, Setup};
use tests::expect::{eventually, holds};
use tests::servers::ask_tcp;
use tests::world::LightWorld;
use tests::world::addresses::public;

use self::page::Page;
use crate::support::{SOON, with_edge};

/// Whole files that name metrics.
const RULES: [&str; 2] = ["prometheus/alerts.yml", "prometheus/alerts.test.yml"];

/// The doctor comes for the first time after five seconds, and may need some.
const EXAMINED: Duration = Duration::from_secs(15);

/// A file under `packaging`.
fn packaging(path: &str) -> Result<PathBuf> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    let file = file.join(path);
    file.canonicalize()
        .with_context(|| format!("no {}", file.display()))
}

fn text_of(path: &str) -> Result<String> {
    Ok(fs::read_to_string(packaging(path)?)?)
}

/// The page by the admin socket, as it is now.
fn page_of(world: &LightWorld) -> Result<Page> {
    let socket = world.vps.dir().join("run/wg-edge/gateway.sock");
    let socket = socket.to_str().context("not UTF-8")?;
    let text = world.vps.run(&[
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--unix-socket",
        socket,
        "http://localhost/metrics",
    ])?;
    Page::parse(text)
}

fn with_page(test: impl FnOnce(&mut LightWorld, &mut Edge, Page) -> Result<()>) {
    let setup = Setup {
        // It fails, which is a sample, too.
        refresh: "/no/such/list".to_owned(),
        ..Setup::new().expect("keys can be made")
    };
    with_edge(setup, |world, edge| {
        let page = eventually(SOON, "services were tried", || {
            let page = page_of(world)?;
            holds(page.text().contains("\nedge_path_up{"), || {
                "none yet".to_owned()
            })?;
            Ok(page)
        })?;
        test(world, edge, page)
    });
}

#[test]
fn the_page_is_to_the_liking_of_promtool() {
    with_page(|world, _edge, page| {
        // Lints as well: units, suffixes, descriptions.
        let command = ["promtool", "check", "metrics"];
        let said = world.vps.run_with_input(&command, page.text())?;
        assert_eq!(said, "");
        Ok(())
    });
}

#[test]
fn rules_and_dashboard_name_only_what_the_page_has() {
    with_page(|world, _edge, _| {
        // Nobody listens on the port of iperf, which the doctor finds when he comes.
        let page = eventually(EXAMINED, "a path was found broken", || {
            let page = page_of(world)?;
            holds(page.text().contains("\nedge_path_fault{"), || {
                "none yet".to_owned()
            })?;
            Ok(page)
        })?;
        for file in RULES {
            page.has_all_of(file, &text_of(file)?)?;
        }
        for expression in dashboard::Dashboard::read()?.expressions()? {
            page.has_all_of("the dashboard", &expression)?;
        }
        Ok(())
    });
}

#[test]
fn a_reload_is_counted_and_no_counter_goes_back() {
    with_page(|world, edge, _| {
        ask_tcp(&world.client, public(80))?;
        ask_tcp(&world.stranger, public(80)).expect_err("the guard drops it");
        let before = page_of(world)?;
        let service = "edge_publish_packets_total{publish=\"ingress\",vip=\"10.17.5.30\"}";
        assert_eq!(before.value::<u64>(service)?, 1);
        let guard = "edge_origin_guard_dropped_total{family=\"ipv4\"}";
        assert!(before.value::<u64>(guard)? > 0);
        let applied = |page: &Page, result: &str| {
            page.value::<u64>(&format!("edge_apply_total{{result=\"{result}\"}}"))
        };
        assert_eq!(applied(&before, "ok")?, 0);
        edge.gateway.reload(|text| {
            text.replace("ports     = [80, 443]", "ports     = [80]")
                .replace("listen_port = 51820", "listen_port = 51821")
        })?;
        edge.gateway
            .reload(|text| text.replace("listen_port = 51821", "listen_port = 51820"))?;
        edge.gateway
            .reload(|text| text.replace("vip       =", "vips      ="))?;
        let after = page_of(world)?;
        assert_eq!(applied(&after, "ok")?, 2);
        assert_eq!(applied(&after, "failed")?, 1);
        for series in before.counters() {
            let (then, now): (f64, f64) = (before.value(series)?, after.value(series)?);
            assert!(now >= then, "{series} went from {then} to {now}");
        }
        Ok(())
    });
}

#[test]
fn the_page_tells_of_the_first_handshake_and_of_the_process() {
    with_page(|world, edge, page| {
        assert!(page.value::<u64>("edge_handshake_total{result=\"completed\"}")? >= 1);
        let online = "edge_peers{kind=\"lan_server\",state=\"online\"}";
        assert_eq!(page.value::<u64>(online)?, 1);
        let listed = format!("/proc/{}/fd", edge.gateway.daemon.pid());
        // Probes of services open one for a moment, which either count may see and the other not.
        eventually(
            SOON,
            "the count of open descriptors is the kernel's",
            || {
                let told: usize = page_of(world)?.value("process_open_fds")?;
                let open = fs::read_dir(&listed)?.count();
                // The connection that asked for the page was one more.
                holds((open..=open + 2).contains(&told), || {
                    format!("{told} told, {open} open")
                })
            },
        )?;
        let spent = edge.gateway.daemon.cpu_time()?.as_secs_f64();
        assert!(page.value::<f64>("process_cpu_seconds_total")? <= spent);
        Ok(())
    });
}

#[test]
fn the_page_of_a_lan_server_goes_through_a_text_collector() {
    with_page(|world, _edge, _| {
        // As documented; the collector's own process_* would be there twice.
        let socket = world.lan_host.dir().join("run/wg-edge/lan-server.sock");
        let command = format!(
            "curl -s --unix-socket {} http://localhost/metrics | grep -Ev '^(# (HELP|TYPE) )?process_'",
            socket.display()
        );
        let text = world.lan_host.run(&["sh", "-c", &command])?;
        assert!(!text.contains("process_"), "{text}");
        let check = ["promtool", "check", "metrics"];
        assert_eq!(world.lan_host.run_with_input(&check, &text)?, "");
        let page = Page::parse(text)?;
        assert_eq!(page.value::<u64>("edge_ready")?, 1);
        let online = "edge_peers{kind=\"gateway\",state=\"online\"}";
        assert_eq!(page.value::<u64>(online)?, 1);
        Ok(())
    });
}
