//! The daemons as systemd runs them: an ordinary user with `CAP_NET_ADMIN` and nothing else, in directories that are his, with
//! `/proc/sys` read-only and what stands there preset by `packaging/sysctl.d`.
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::edge::{Edge, INTERFACE, Instance, START_TIMEOUT, Setup, Start, binary};
use tests::expect::kernel_state;
use tests::node::Node;
use tests::servers::ask_tcp;
use tests::world::addresses::{CLIENT, CLIENT6, public, public6};

use crate::support::{SOON, in_light_world};

/// User and group of the service; they need no name.
const SERVICE: u32 = 64_123;

/// What `packaging/sysctl.d/wg-edge.conf` sets, with what it leaves to those who have IPv6 in the tunnel.
fn presets() -> Result<Vec<(String, String)>> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../packaging/sysctl.d/wg-edge.conf"
    );
    let text = fs::read_to_string(path)?;
    let lines = text.lines().map(|line| line.trim_start_matches('#'));
    let set = lines.filter_map(|line| line.split_once(" = "));
    let set = set.filter(|(key, _)| key.starts_with("net.") && !key.contains(".eth0."));
    Ok(set
        .map(|(key, value)| (key.replace('.', "/"), value.to_owned()))
        .collect())
}

fn preset(node: &Node) -> Result<()> {
    presets()?
        .iter()
        .try_for_each(|(name, value)| node.set_sysctl(name, value))
}

/// As `ProtectKernelTunables=yes`.
fn protect_kernel_tunables(node: &Node) -> Result<()> {
    let script = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";
    node.run(&["sh", "-c", script]).map(drop)
}

/// The directories that the unit and `tmpfiles.d` make, and all that is in them, for the service. Returns where its user finds
/// the program, which may stand where only root looks.
fn prepare(node: &Node, name: &str) -> Result<String> {
    for (dir, mode) in [
        ("state", 0o700),
        ("run/wg-edge", 0o700),
        ("run/wireguard", 0o1770),
    ] {
        let dir = node.dir().join(dir);
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode))?;
        let owner = (mode == 0o700).then_some(SERVICE);
        chown(&dir, owner, Some(SERVICE))?;
        for entry in fs::read_dir(&dir)? {
            chown(entry?.path(), Some(SERVICE), Some(SERVICE))?;
        }
    }
    let place = node.dir().join(name);
    fs::write(&place, "")?;
    let place = place.to_str().context("its path is not UTF-8")?;
    node.run(&["mount", "--bind", &binary(name)?, place])?;
    // A host with udev lets everybody open this (50-udev-default.rules); what it is good for takes the capability.
    let script = "mknod -m 666 \"$1\" c 10 200 && mount --bind \"$1\" /dev/net/tun";
    let tun = node.dir().join("tun");
    let tun = tun.to_str().context("its path is not UTF-8")?;
    node.run(&["sh", "-c", script, "sh", tun])?;
    Ok(place.to_owned())
}

/// What a unit with `User=`, these capabilities and `NoNewPrivileges=yes` does.
fn as_service(capabilities: &str) -> Vec<String> {
    vec![
        "setpriv".to_owned(),
        format!("--reuid={SERVICE}"),
        format!("--regid={SERVICE}"),
        "--clear-groups".to_owned(),
        format!("--inh-caps={capabilities}"),
        format!("--ambient-caps={capabilities}"),
        format!("--bounding-set={capabilities}"),
        "--no-new-privs".to_owned(),
    ]
}

const NET_ADMIN_ALONE: &str = "-all,+net_admin";

fn start(node: &Node, name: &'static str, config: PathBuf, capabilities: &str) -> Result<Instance> {
    let start = Start {
        program: Some(prepare(node, name)?),
        by: as_service(capabilities),
    };
    Instance::start_with(node, name, config, start)
}

fn status_of(instance: &Instance, field: &str) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", instance.daemon.pid()))?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(value
        .with_context(|| format!("no {field}"))?
        .trim()
        .to_owned())
}

#[test]
fn both_ends_work_with_cap_net_admin_alone_and_preset_sysctls() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let configs = (
            setup.install_gateway(&world.vps)?,
            setup.install_lan_server(&world.lan_host)?,
        );
        for node in [&world.vps, &world.lan_host] {
            preset(node)?;
            protect_kernel_tunables(node)?;
        }
        let gateway = start(&world.vps, "gateway", configs.0, NET_ADMIN_ALONE)?;
        let lan_server = start(&world.lan_host, "lan-server", configs.1, NET_ADMIN_ALONE)?;
        let mut edge = Edge {
            gateway,
            lan_server,
            setup,
        };
        edge.wait_for_tunnel(world, START_TIMEOUT)?;
        for instance in [&edge.gateway, &edge.lan_server] {
            let uid = SERVICE.to_string();
            let uids = status_of(instance, "Uid")?;
            ensure!(uids.split_whitespace().all(|is| is == uid), "{uids}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                // Bit 12: CAP_NET_ADMIN.
                ensure!(status_of(instance, set)? == "0000000000001000", "{set}");
            }
            ensure!(status_of(instance, "NoNewPrivs")? == "1", "NoNewPrivs");
            // Root may ask.
            ensure!(
                instance.status()?.ready,
                "{:?}",
                instance.status()?.problems
            );
        }
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        assert_eq!(ask_tcp(&world.client, public6(443))?.ip(), CLIENT6);
        assert!(ask_tcp(&world.stranger, public(80)).is_err());
        let shown = world.vps.run(&["wg", "show", INTERFACE])?;
        ensure!(shown.contains("latest handshake"), "{shown}");

        edge.gateway.reload(str::to_owned)?;
        ensure!(
            edge.gateway.daemon.log().contains("configuration taken"),
            "not reloaded"
        );
        for end in [&mut edge.gateway, &mut edge.lan_server] {
            end.daemon.stop(Signal::SIGTERM, SOON)?;
            end.restart()?;
            end.daemon.wait_for_log(SOON, 0, &["ready"])?;
        }
        edge.wait_for_tunnel(world, START_TIMEOUT)?;
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        Ok(())
    });
}

#[test]
fn cap_net_admin_alone_sets_the_sysctls_where_proc_sys_is_writable() {
    in_light_world(|world| {
        let config = Setup::new()?.install_gateway(&world.vps)?;
        let mut gateway = start(&world.vps, "gateway", config, NET_ADMIN_ALONE)?;
        gateway.daemon.wait_for_log(SOON, 0, &["ready"])?;
        for (name, value) in presets()? {
            assert_eq!(world.vps.sysctl(&name)?, value, "{name}");
        }
        Ok(())
    });
}

#[test]
fn every_missing_sysctl_is_named_before_anything_is_made() {
    in_light_world(|world| {
        let config = Setup::new()?.install_gateway(&world.vps)?;
        protect_kernel_tunables(&world.vps)?;
        let before = kernel_state(&world.vps)?;
        let mut gateway = start(&world.vps, "gateway", config, NET_ADMIN_ALONE)?;
        let status = gateway.daemon.wait(SOON)?;
        let log = gateway.daemon.log();
        assert_eq!(status.code(), Some(4), "{log}");
        for (name, value) in presets()? {
            let line = format!(
                "put `{} = {value}` into a file in /etc/sysctl.d",
                name.replace('/', ".")
            );
            assert!(log.contains(&line), "{line}: {log}");
        }
        assert_eq!(kernel_state(&world.vps)?, before);
        Ok(())
    });
}

#[test]
fn missing_capability_is_named() {
    in_light_world(|world| {
        let config = Setup::new()?.install_gateway(&world.vps)?;
        let mut gateway = start(&world.vps, "gateway", config, "-all")?;
        let status = gateway.daemon.wait(SOON)?;
        let log = gateway.daemon.log();
        assert_eq!(status.code(), Some(4), "{log}");
        assert!(log.contains("AmbientCapabilities=CAP_NET_ADMIN"), "{log}");
        Ok(())
    });
}

#[test]
fn key_is_taken_from_a_credential_and_never_made_there() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let config = setup.install_gateway(&world.vps)?;
        let dir = world
            .vps
            .dir()
            .join("run/credentials/wg-edge-gateway.service");
        fs::create_dir_all(&dir)?;
        let text = fs::read_to_string(&config)?;
        let text = text.replace(
            "\"gateway.key\"",
            "\"/run/credentials/wg-edge-gateway.service/gateway.key\"",
        );
        fs::write(&config, text)?;
        let mut gateway = start(&world.vps, "gateway", config.clone(), NET_ADMIN_ALONE)?;
        let status = gateway.daemon.wait(SOON)?;
        let log = gateway.daemon.log();
        assert_eq!(status.code(), Some(4), "{log}");
        assert!(log.contains("LoadCredential=gateway.key:"), "{log}");

        // The mode that a credential has where systemd lets the user in by an access control list; the list itself is
        // played by the group here.
        let key = dir.join("gateway.key");
        setup.gateway.write(&key)?;
        chown(&key, Some(0), Some(SERVICE))?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o440))?;
        gateway.restart()?;
        gateway.daemon.wait_for_log(SOON, 0, &["ready"])?;
        let log = gateway.daemon.log();
        assert!(log.contains(&setup.gateway.public.to_string()), "{log}");
        Ok(())
    });
}
