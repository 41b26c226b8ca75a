//! The command line as people and scripts have it: the real program, its output, its exit codes.
use std::process::Output;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::api::text;
use tests::daemon::Daemon;
use tests::edge::{Edge, INTERFACE, Instance, START_TIMEOUT, Setup};
use tests::expect::{eventually, holds};
use tests::keys::KeyPair;
use tests::node::Node;
use tests::world::addresses::{API_VIP, GATEWAY};

use crate::support::{SOON, in_reference_world, with_edge};

const BOLD: &str = "\x1b[1m";

/// Standard output and standard error of a command that has to end with this code.
fn ends(gateway: &Instance, code: i32, command: &[&str]) -> Result<(String, String)> {
    let output = gateway.output(command)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if output.status.code() != Some(code) {
        bail!(
            "{command:?} ended with {}, not {code}:\n{stdout}{stderr}",
            output.status
        );
    }
    Ok((stdout, stderr))
}

fn json(gateway: &Instance, command: &[&str]) -> Result<Value> {
    let (stdout, _) = ends(gateway, 0, command)?;
    serde_json::from_str(&stdout).with_context(|| format!("{command:?} printed no JSON: {stdout}"))
}

/// A value of a configuration in the format of `wg-quick`.
fn value<'a>(config: &'a str, name: &str) -> Result<&'a str> {
    let mut lines = config.lines().filter_map(|line| line.split_once(" = "));
    let found = lines.find(|(key, _)| *key == name);
    Ok(found.with_context(|| format!("no {name} in\n{config}"))?.1)
}

/// What the real `wg-quick` makes of a configuration, when it takes it.
fn stripped(node: &Node, config: &str) -> Result<String> {
    let path = node.write("told.conf", config)?;
    node.run(&[
        "wg-quick",
        "strip",
        path.to_str().context("its path is not UTF-8")?,
    ])
}

/// A line for `sh -c`, or for `script`, which runs it on a terminal of its own.
fn shell_line(gateway: &Instance, command: &[&str]) -> Result<String> {
    let words = gateway.command_line(command)?;
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    Ok(quoted.join(" "))
}

/// Standard output on a terminal of this many columns.
fn on_terminal(gateway: &Instance, columns: u16, env: &str, command: &[&str]) -> Result<String> {
    let line = shell_line(gateway, command)?;
    let line = format!("stty cols {columns}; exec env {env} {line}");
    let node = gateway.daemon.node();
    node.run(&["script", "-qec", &line, "/dev/null"])
}

#[test]
fn peer_from_its_first_command_to_its_last() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let gateway = &edge.gateway;
        let vps = &world.vps;
        let add = [
            "peer",
            "add",
            "alice",
            "--role",
            "kube-admin",
            "--expires",
            "30d",
            "--quota",
            "50GB",
            "--label",
            "team=ops",
        ];
        let (config, said) = ends(gateway, 0, &add)?;
        assert_eq!(said, "");
        let kept = stripped(vps, &config)?;
        assert!(kept.contains("PresharedKey"), "{kept}");
        assert_eq!(
            value(&config, "PublicKey")?,
            edge.setup.gateway.public.to_string()
        );
        assert!(
            value(&config, "AllowedIPs")?.contains(&API_VIP.to_string()),
            "{config}"
        );
        let psk = value(&config, "PresharedKey")?;
        let private_key = value(&config, "PrivateKey")?;

        let (_, refused) = ends(gateway, 1, &add)?;
        assert!(refused.contains("alice"), "{refused}");
        let (_, refused) = ends(gateway, 1, &["peer", "add", "bob", "--role", "admins"])?;
        assert!(
            refused.contains("role") && refused.contains("kube-admin"),
            "{refused}"
        );

        let listed = ends(gateway, 0, &["peer", "list"])?.0;
        for part in ["NAME", "alice", "kube-admin", "operator", "offline"] {
            assert!(listed.contains(part), "{part} is missing in\n{listed}");
        }
        let shown = ends(gateway, 0, &["peer", "show", "alice"])?.0;
        for part in ["label         team=ops", "preshared key yes", "46.56 GiB"] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        let peer = json(gateway, &["peer", "show", "alice", "--json"])?;
        let (by_id, _) = ends(gateway, 0, &["peer", "show", text(&peer, "id")?])?;
        assert_eq!(by_id, shown);

        // The role decides what the client sends here: its configuration has to follow.
        let (_, told) = ends(gateway, 0, &["peer", "set", "alice", "--no-role"])?;
        assert!(
            told.contains("AllowedIPs = ") && !told.contains("10.17.5.10"),
            "{told}"
        );
        let (_, told) = ends(gateway, 0, &["peer", "set", "alice", "--disable"])?;
        assert_eq!(told, "");
        let set = json(
            gateway,
            &[
                "peer",
                "set",
                "alice",
                "--role",
                "kube-admin",
                "--enable",
                "--json",
            ],
        )?;
        assert_eq!(
            (&set["role"], &set["enabled"]),
            (&"kube-admin".into(), &true.into())
        );

        let file = |name: &str, text: &str| -> Result<String> {
            let path = vps.write(name, text)?;
            Ok(path.to_str().context("its path is not UTF-8")?.to_owned())
        };
        let (key_file, psk_file) = (file("alice.key", private_key)?, file("alice.psk", psk)?);
        let brought = [
            "peer",
            "config",
            "alice",
            "--private-key-file",
            &key_file,
            "--preshared-key-file",
            &psk_file,
        ];
        assert_eq!(ends(gateway, 0, &brought)?.0, config);
        let other = file(
            "other.psk",
            KeyPair::generate()?.private.to_base64().as_str(),
        )?;
        let wrong = ["peer", "config", "alice", "--preshared-key-file", &other];
        let (_, refused) = ends(gateway, 1, &wrong)?;
        assert!(refused.contains("preshared_key"), "{refused}");
        let (placeholders, _) = ends(gateway, 0, &["peer", "config", "alice"])?;
        assert!(placeholders.contains("REPLACE"), "{placeholders}");

        let rotate = [
            "peer",
            "rotate",
            "alice",
            "--overlap",
            "500ms",
            "--preshared-key",
            "none",
        ];
        let (rotated, told) = ends(gateway, 0, &rotate)?;
        assert!(told.contains("the old key works until"), "{told}");
        assert!(
            !stripped(vps, &rotated)?.contains("PresharedKey"),
            "{rotated}"
        );
        let (_, said) = ends(gateway, 0, &["peer", "reset-usage", "alice"])?;
        assert!(said.contains("alice"), "{said}");

        let (_, refused) = ends(gateway, 1, &["peer", "remove", "alice"])?;
        assert!(refused.contains("--yes"), "{refused}");
        let (_, refused) = ends(gateway, 1, &["peer", "remove", "--yes", "alice", "bob"])?;
        assert!(refused.contains("\"bob\""), "{refused}");
        let (nothing, said) = ends(gateway, 0, &["peer", "remove", "--yes", "alice"])?;
        assert_eq!(
            (nothing.as_str(), said.as_str()),
            ("", "alice is removed\n")
        );
        let (_, refused) = ends(gateway, 1, &["peer", "show", "alice"])?;
        assert!(refused.contains("no peer \"alice\""), "{refused}");
        let (_, refused) = ends(gateway, 1, &["peer", "remove", "--yes", "operator"])?;
        assert!(refused.contains("configuration file"), "{refused}");
        let many: Vec<String> = (0..25).map(|number| format!("many-{number}")).collect();
        for name in &many {
            ends(gateway, 0, &["peer", "add", name, "--json"])?;
        }
        let mut remove = vec!["peer", "remove", "--yes"];
        remove.extend(many.iter().map(String::as_str));
        let (_, said) = ends(gateway, 0, &remove)?;
        assert_eq!(said, "25 peers are removed\n");
        Ok(())
    });
}

#[test]
fn programs_get_json_of_every_command_that_reads_and_every_one_that_makes() {
    with_edge(Setup::new().unwrap(), |_world, edge| {
        let gateway = &edge.gateway;
        let made = json(gateway, &["peer", "add", "alice", "--json"])?;
        assert!(made["secrets"]["private_key"].is_string(), "{made}");
        let token = json(
            gateway,
            &["token", "add", "ci", "--scope", "read", "--json"],
        )?;
        let secret = text(&token, "secret")?;
        assert!(secret.starts_with("edge_"), "{token}");
        for (command, field) in [
            ("peer list --json", "/items/0/name"),
            ("peer list --online --json", "/items"),
            ("peer show alice --json", "/public_key"),
            ("peer config alice --json", "/config"),
            ("peer rotate alice --json", "/secrets/private_key"),
            ("token list --json", "/items/0/id"),
            ("audit list --json", "/items/0/hash"),
            ("audit verify --json", "/hash"),
            ("status --json", "/peers"),
            ("check --json", "/valid"),
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            let printed = json(gateway, &words)?;
            assert!(printed.pointer(field).is_some(), "{command}: {printed}");
        }
        for command in [
            "status",
            "token list",
            "audit list",
            "audit verify",
            "check",
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            let (printed, _) = ends(gateway, 0, &words)?;
            assert!(
                !printed.is_empty() && !printed.contains('\x1b'),
                "{command}"
            );
            assert!(!printed.contains(secret), "{command}");
        }
        let id = text(&token["token"], "id")?;
        // Alone on standard output: a script takes it from there.
        let (printed, said) = ends(gateway, 0, &["token", "add", "two", "--scope", "admin"])?;
        assert!(
            printed.starts_with("edge_") && printed.lines().count() == 1,
            "{printed}"
        );
        assert!(
            said.contains("shown once") && !said.contains(printed.trim()),
            "{said}"
        );
        ends(gateway, 0, &["token", "revoke", id])?;
        let (_, refused) = ends(gateway, 1, &["token", "revoke", id])?;
        assert!(refused.contains("token"), "{refused}");
        ends(gateway, 2, &["token", "add", "three"])?;
        Ok(())
    });
}

#[test]
fn colours_are_for_terminals_whose_owner_likes_them() {
    with_edge(Setup::new().unwrap(), |_world, edge| {
        let gateway = &edge.gateway;
        let command = ["peer", "list"];
        let seen = on_terminal(gateway, 80, "TERM=xterm", &command)?;
        assert!(seen.contains(BOLD), "{seen:?}");
        let plain = on_terminal(gateway, 80, "NO_COLOR=1", &command)?;
        assert!(
            !plain.contains('\x1b') && plain.contains("operator"),
            "{plain:?}"
        );
        let piped = gateway.command(&command)?;
        assert!(
            !piped.contains('\x1b') && piped.contains("operator"),
            "{piped:?}"
        );
        // A narrow terminal is not overflown.
        let narrow = on_terminal(gateway, 50, "NO_COLOR=1", &command)?;
        assert!(
            narrow
                .lines()
                .all(|line| line.trim_end().chars().count() <= 50),
            "{narrow}"
        );
        Ok(())
    });
}

/// What a phone reads off a screen with one QR code: dark is what is inked on light paper, or what a dark screen leaves out.
fn scanned(screen: &str, inked_is_dark: bool) -> Result<String> {
    const SCALE: usize = 4;
    let line = |line: &str, half: char| -> Vec<bool> {
        line.chars().map(|c| c == '█' || c == half).collect()
    };
    let plain = screen.replace("\x1b[30;107m", "").replace("\x1b[0m", "");
    let rows: Vec<Vec<bool>> = plain
        .lines()
        .map(|text| text.trim_end_matches('\r'))
        .flat_map(|text| [line(text, '▀'), line(text, '▄')])
        .collect();
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let inked = |x: usize, y: usize| rows.get(y).and_then(|row| row.get(x)) == Some(&true);
    let pixel = |x: usize, y: usize| {
        if inked(x / SCALE, y / SCALE) == inked_is_dark {
            0
        } else {
            255
        }
    };
    let (width, height) = (width * SCALE, rows.len() * SCALE);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
    let grids = image.detect_grids();
    let grid = grids
        .first()
        .with_context(|| format!("no code in\n{screen}"))?;
    Ok(grid.decode().context("the code can't be read")?.1)
}

#[test]
fn code_that_is_printed_is_the_configuration() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let gateway = &edge.gateway;
        let path = world.vps.dir().join("alice.conf");
        let file = path.to_str().context("its path is not UTF-8")?;
        let add = [
            "peer",
            "add",
            "alice",
            "--role",
            "kube-admin",
            "--qr",
            "--output",
            file,
        ];
        let (screen, _) = ends(gateway, 0, &add)?;
        let config = std::fs::read_to_string(&path)?;
        assert_eq!(scanned(&screen, false)?, config);
        let width = screen.lines().map(|line| line.chars().count()).max();
        assert!(width <= Some(80), "{width:?} columns");
        let (_, refused) = ends(gateway, 1, &add)?;
        assert!(refused.contains("--force"), "{refused}");

        let other = world.vps.dir().join("bob.conf");
        let file = other.to_str().context("its path is not UTF-8")?;
        let add = ["peer", "add", "bob", "--qr", "--output", file];
        let screen = on_terminal(gateway, 100, "TERM=xterm", &add)?;
        let code: Vec<&str> = screen
            .lines()
            .filter(|line| line.contains("\x1b[30;107m"))
            .collect();
        assert_eq!(
            scanned(&code.join("\n"), true)?,
            std::fs::read_to_string(&other)?
        );
        Ok(())
    });
}

#[test]
fn reader_that_has_seen_enough_ends_the_events() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let gateway = &edge.gateway;
        let vps = &world.vps;
        for (reader, wakes) in [("head -n 1", true), ("true", false)] {
            let line = shell_line(gateway, &["events", "--json"])?;
            let script = format!("set -o pipefail; {line} | {reader}; echo ended with $?");
            let mut events = Daemon::start(vps, "pipe", &["bash", "-c", &script])?;
            if wakes {
                // It may not be connected yet: until it has heard of something.
                let mut number = 0;
                events.wait_until(SOON, "the first event", || {
                    number += 1;
                    let name = format!("wake-{number}");
                    gateway.command(&["peer", "add", &name, "--json"])?;
                    let log = std::fs::read_to_string(vps.dir().join("pipe.log"))?;
                    holds(log.contains("peer.created"), || "nothing yet".to_owned())
                })?;
            }
            let status = events.wait(SOON)?;
            assert!(status.success(), "{reader}: {status}");
            assert!(events.log().ends_with("ended with 0\n"), "{}", events.log());
        }
        Ok(())
    });
}

#[test]
fn backup_brings_back_what_was_there() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let dir = world.vps.dir().to_owned();
        let file = dir.join("today.backup").display().to_string();
        edge.gateway.command(&["peer", "add", "alice", "--json"])?;
        let head = edge.gateway.command(&["audit", "verify"])?;
        let (_, said) = ends(&edge.gateway, 0, &["backup", &file])?;
        assert!(
            said.contains("1 peers, 0 tokens") && said.contains(head.trim()),
            "{said}"
        );
        let (_, refused) = ends(&edge.gateway, 1, &["backup", &file])?;
        assert!(refused.contains("exists already"), "{refused}");
        let verified = edge
            .gateway
            .command(&["audit", "verify", "--file", &file])?;
        assert_eq!(verified, head);
        edge.gateway
            .command(&["peer", "remove", "--yes", "alice"])?;
        edge.gateway.command(&["peer", "add", "bob", "--json"])?;
        let newer = edge
            .gateway
            .command(&["audit", "verify", "--expect", head.trim()])?;
        assert_ne!(newer, head);

        let (_, refused) = ends(&edge.gateway, 4, &["restore", &file])?;
        assert!(refused.contains("stop the daemon"), "{refused}");
        // Killed: what is replaced has its last changes in the write-ahead log alone.
        edge.gateway.daemon.kill();
        let (_, refused) = ends(&edge.gateway, 3, &["peer", "list"])?;
        assert!(refused.contains("does not run"), "{refused}");
        let (_, said) = ends(&edge.gateway, 0, &["restore", &file])?;
        assert!(said.contains("restored 1 peers"), "{said}");
        let kept = dir
            .join("state/peers.db.before-restore")
            .display()
            .to_string();
        let verified = edge
            .gateway
            .command(&["audit", "verify", "--file", &kept])?;
        assert_eq!(verified, newer);
        edge.gateway.restart()?;
        eventually(START_TIMEOUT, "the daemon answers", || {
            edge.gateway.command(&["peer", "show", "alice"])
        })?;
        // Nothing was changed since the start, and yet it is whole.
        let (config, _) = ends(&edge.gateway, 0, &["peer", "config", "alice"])?;
        assert_eq!(
            value(&config, "PublicKey")?,
            edge.setup.gateway.public.to_string()
        );
        let (_, gone) = ends(&edge.gateway, 1, &["peer", "show", "bob"])?;
        assert!(gone.contains("no peer"), "{gone}");
        let shown = world.vps.run(&["wg", "show", INTERFACE, "peers"])?;
        let alice = json(&edge.gateway, &["peer", "show", "alice", "--json"])?;
        assert!(shown.contains(text(&alice, "public_key")?), "{shown}");
        Ok(())
    });
}

/// Standard error of a command that makes a kubeconfig, and what it made.
fn kubeconfig(edge: &Edge, command: &[&str], file: &str) -> Result<(String, serde_yaml_ng::Value)> {
    let output: Output = edge.gateway.output(command)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}: {said}", output.status);
    }
    let made = std::fs::read_to_string(file)?;
    Ok((said, serde_yaml_ng::from_str(&made)?))
}

#[test]
fn kubeconfig_leads_to_the_api_and_says_when_its_certificate_does_not_fit() {
    in_reference_world(|world| {
        let mut setup = Setup::new()?;
        let access = "\n[[access]]\nto = [\"10.17.5.10:6444/tcp\"]\nsource_ip = \"masquerade\"\n";
        setup.more_lan_server = access.to_owned();
        let mut edge = Edge::start(world, setup)?;
        let dir = world.vps.dir().display().to_string();
        let file = format!("{dir}/alice.kubeconfig");
        let ca = world.api_certificate.display().to_string();
        let conf = format!("{dir}/alice.conf");
        let add = [
            "peer",
            "add",
            "alice",
            "--role",
            "kube-admin",
            "--output",
            &conf,
            "--kubeconfig",
            &file,
            "--api-ca",
            &ca,
        ];
        let (said, made) = kubeconfig(&edge, &add, &file)?;
        assert!(
            !said.contains("SAN") && !said.contains("could not be looked at"),
            "{said}"
        );
        let cluster = &made["clusters"][0]["cluster"];
        assert_eq!(cluster["server"], format!("https://{API_VIP}:6443"));
        assert_eq!(made["kind"], "Config");
        assert_eq!(made["current-context"], "alice");
        let data = cluster["certificate-authority-data"]
            .as_str()
            .context("no CA")?;
        let told = world.vps.run_with_input(&["base64", "-d"], data)?;
        assert_eq!(told.trim(), std::fs::read_to_string(&ca)?.trim());
        let mode = world.vps.run(&["stat", "-c", "%a", &file])?;
        assert_eq!(mode.trim(), "600");

        // Another API on the same VIP, whose certificate knows only the masters' names.
        let balancer = &world.load_balancers[0].node;
        let other = balancer.dir().join("other").display().to_string();
        let make = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=api \
             -addext subjectAltName=DNS:kubernetes,IP:10.17.4.21 -keyout {other}.key -out {other}.crt 2>&1"
        );
        balancer.run(&["sh", "-c", &make])?;
        let (key, certificate) = (format!("{other}.key"), format!("{other}.crt"));
        let serve = [
            "openssl",
            "s_server",
            "-quiet",
            "-accept",
            "10.17.5.10:6444",
            "-key",
            &key,
            "-cert",
            &certificate,
        ];
        let _server = Daemon::start(balancer, "s_server", &serve)?;
        let listens = ["sh", "-c", "ss -Hltn 'sport = :6444' | grep -q ."];
        eventually(SOON, "the other API listens", || balancer.run(&listens))?;
        let file = format!("{dir}/bob.kubeconfig");
        let server = format!("{API_VIP}:6444");
        let conf = format!("{dir}/bob.conf");
        let add = [
            "peer",
            "add",
            "bob",
            "--role",
            "kube-admin",
            "--output",
            &conf,
            "--kubeconfig",
            &file,
            "--api-server",
            &server,
        ];
        let (said, made) = kubeconfig(&edge, &add, &file)?;
        for part in [
            "lacks 10.17.5.10 in its SAN",
            "kubernetes",
            "tls-san: [10.17.5.10]",
            "without the CA",
        ] {
            assert!(said.contains(part), "{part} is missing in\n{said}");
        }
        assert_eq!(
            made["clusters"][0]["cluster"]["server"],
            format!("https://{server}")
        );

        // With both files a laptop reaches the API.
        let laptop = &world.road_warrior;
        let told = std::fs::read_to_string(format!("{dir}/alice.conf"))?;
        let told = stripped(laptop, &told)?;
        let mut lines = String::new();
        for line in std::fs::read_to_string(format!("{dir}/alice.conf"))?.lines() {
            match line.split_once(" = ") {
                Some(("Address", all)) => all.split(", ").for_each(|address| {
                    lines.extend(["addr add ", address, " dev ", INTERFACE, "\n"]);
                }),
                Some(("AllowedIPs", all)) => all.split(", ").for_each(|network| {
                    lines.extend(["route add ", network, " dev ", INTERFACE, "\n"]);
                }),
                Some(_) | None => {}
            }
        }
        let _tunnel = tests::wireguard_go::WireguardGo::start(laptop, INTERFACE, &told, &lines)?;
        laptop.pings(&GATEWAY.to_string())?;
        let health = world.ask_api(laptop)?;
        assert!(health.starts_with("ok from "), "{health}");
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        Ok(())
    });
}
