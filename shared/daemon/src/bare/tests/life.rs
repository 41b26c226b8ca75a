//! How a device begins and ends.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::uapi::tests::is_unprivileged_run;

use super::world::{Device, Engine, Namespace, Pair, eventually, run, try_run, unique_name};

fn device() -> (Namespace, Device) {
    let namespace = Namespace::new();
    let device = Device::start(Engine::Ours, &namespace);
    (namespace, device)
}

#[track_caller]
fn ends_with_success_and_leaves_nothing(namespace: &Namespace, mut device: Device) {
    assert_eq!(device.exit_code(), Some(0), "{}", device.log());
    assert!(!device.socket().exists());
    assert!(!namespace.has_link(&device.interface));
}

#[test]
fn a_device_begins_down_with_mtu_1420_a_port_and_nothing_else() {
    if is_unprivileged_run() {
        return;
    }
    let (namespace, device) = device();
    let link = namespace.ip(&format!("-oneline link show {}", device.interface));
    assert!(link.contains("mtu 1420") && !link.contains(",UP"), "{link}");
    assert_eq!(device.show("private-key"), "(none)\n");
    assert_eq!(device.show("peers"), "");
    assert_ne!(device.show("listen-port"), "0\n");
}

#[test]
fn sigterm_and_sigint_end_it_with_success() {
    if is_unprivileged_run() {
        return;
    }
    for signal in ["-TERM", "-INT"] {
        let (namespace, device) = device();
        device.signal(signal);
        ends_with_success_and_leaves_nothing(&namespace, device);
    }
}

#[test]
fn deleting_the_link_ends_it_with_success() {
    if is_unprivileged_run() {
        return;
    }
    let (namespace, device) = device();
    namespace.ip(&format!("link delete {}", device.interface));
    ends_with_success_and_leaves_nothing(&namespace, device);
}

#[test]
fn deleting_a_link_that_is_up_ends_it_with_success() {
    if is_unprivileged_run() {
        return;
    }
    let (namespace, device) = device();
    namespace.ip(&format!("link set {} up", device.interface));
    namespace.ip(&format!("link delete {}", device.interface));
    ends_with_success_and_leaves_nothing(&namespace, device);
}

#[test]
fn removing_the_socket_ends_it_with_success() {
    if is_unprivileged_run() {
        return;
    }
    let (namespace, device) = device();
    fs::remove_file(device.socket()).unwrap();
    ends_with_success_and_leaves_nothing(&namespace, device);
}

#[test]
fn after_a_kill_the_next_one_takes_its_place() {
    if is_unprivileged_run() {
        return;
    }
    let (namespace, mut killed) = device();
    killed.signal("-KILL");
    assert_eq!(killed.exit_code(), None);
    assert!(killed.socket().exists());
    let next = Device::launch(Engine::Ours, &namespace, &killed.interface);
    eventually("the next one answers", || {
        try_run(&["wg", "show", &next.interface]).is_ok()
    });
}

#[test]
fn a_name_that_is_taken_is_told_in_words() {
    if is_unprivileged_run() {
        return;
    }
    let (namespace, mut first) = device();
    let mut second = Device::launch(Engine::Ours, &namespace, &first.interface);
    assert_ne!(second.exit_code(), Some(0));
    assert!(
        second.log().contains("in use by another process"),
        "{}",
        second.log()
    );

    // In another namespace the link's name is free, and the socket's is not.
    let elsewhere = Namespace::new();
    let mut third = Device::launch(Engine::Ours, &elsewhere, &first.interface);
    assert_ne!(third.exit_code(), Some(0));
    assert!(
        third.log().contains("another process already serves"),
        "{}",
        third.log()
    );
    assert!(!elsewhere.has_link(&first.interface));

    assert!(first.exit_status().is_none());
    assert!(try_run(&["wg", "show", &first.interface]).is_ok());
}

#[test]
fn a_link_of_another_kind_is_left_alone() {
    if is_unprivileged_run() {
        return;
    }
    let namespace = Namespace::new();
    let name = unique_name("v");
    namespace.ip(&format!("link add {name} type veth peer name other"));
    let mut device = Device::launch(Engine::Ours, &namespace, &name);
    assert_ne!(device.exit_code(), Some(0));
    assert!(device.log().contains("is no TUN link"), "{}", device.log());
    assert!(namespace.has_link(&name) && !device.socket().exists());
}

#[test]
fn a_busy_listen_port_leaves_the_device_as_it_was() {
    if is_unprivileged_run() {
        return;
    }
    let (namespace, device) = device();
    device.set("listen-port 2000");
    let other = unique_name("u");
    let mut second = Device::launch(Engine::Ours, &namespace, &other);
    eventually("ready", || try_run(&["wg", "show", &other]).is_ok());
    let error = try_run(&["wg", "set", &other, "listen-port", "2000", "fwmark", "5"]).unwrap_err();
    assert!(error.contains("Address already in use"), "{error}");
    assert_eq!(second.show("fwmark"), "off\n");
    assert_ne!(second.show("listen-port"), "2000\n");
    assert!(second.exit_status().is_none());
}

#[test]
fn handshakes_start_when_the_link_comes_up() {
    if is_unprivileged_run() {
        return;
    }
    let pair = Pair::new(Engine::Ours, Engine::Ours);
    let link = &pair.a.interface;
    pair.at_a.ip(&format!("link set {link} down"));
    pair.introduce();
    assert_eq!(pair.a.number("latest-handshakes"), 0);
    pair.at_a.ip(&format!("link set {link} up"));
    eventually("handshake without traffic", || {
        pair.a.number("latest-handshakes") > 0
    });
}

#[test]
fn it_drives_wg_quick() {
    if is_unprivileged_run() {
        return;
    }
    let (at_a, interface) = (Namespace::new(), unique_name("u"));
    let files = tempfile::TempDir::new().unwrap();
    let driver = files.path().join("driver");
    let device = std::env::current_exe().unwrap();
    // The second script of the module's documentation, with the test binary in the place of `gateway wg`.
    let script = format!(
        "#!/bin/sh\n\
         {}=$1 '{}' bare::tests::device_process --exact --ignored </dev/null >/dev/null 2>&1 &\n\
         until [ -S \"/run/wireguard/$1.sock\" ]; do kill -0 \"$!\" 2>/dev/null || exit 1; sleep 0.1; done\n",
        super::world::DEVICE_VARIABLE,
        device.display()
    );
    fs::write(&driver, script).unwrap();
    fs::set_permissions(&driver, fs::Permissions::from_mode(0o700)).unwrap();
    let configuration = files.path().join(format!("{interface}.conf"));
    let private_key = run(&["wg", "genkey"]);
    let peer = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
    let text = format!(
        "[Interface]\nPrivateKey = {private_key}Address = 10.9.0.1/24\nListenPort = 1001\n\
         [Peer]\nPublicKey = {peer}\nAllowedIPs = 10.9.0.0/16\n"
    );
    fs::write(&configuration, text).unwrap();
    fs::set_permissions(&configuration, fs::Permissions::from_mode(0o600)).unwrap();

    let wg_quick = |verb: &str| {
        let output = Command::new("ip")
            .args(["netns", "exec", &at_a.name, "wg-quick", verb])
            .arg(&configuration)
            .env("WG_QUICK_USERSPACE_IMPLEMENTATION", &driver)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    wg_quick("up");
    assert_eq!(run(&["wg", "show", &interface, "peers"]).trim(), peer);
    assert!(at_a.ip("route show").contains("10.9.0.0/16"));
    wg_quick("down");
    assert!(!at_a.has_link(&interface));
    let socket = format!("/run/wireguard/{interface}.sock");
    eventually("the socket goes", || fs::symlink_metadata(&socket).is_err());
}
