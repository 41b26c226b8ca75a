//! Wrong configurations, through the real binaries: what is wrong, where, and what to do.
use anyhow::{Result, ensure};
use tests::edge::{Setup, binary};
use tests::expect::kernel_state;
use tests::node::Node;

use crate::support::in_topology;

/// Check a changed configuration; returns what the program said. It must fail with exit code 1 and name a place in the file.
fn refusal(node: &Node, program: &str, text: &str) -> Result<String> {
    let path = node
        .write(&format!("{program}.toml"), text)?
        .display()
        .to_string();
    let output = node.output(&[&binary(program)?, "check", "--config", &path])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1),
        "{program}: {} instead of a refusal: {said}",
        output.status
    );
    ensure!(
        said.lines().all(|line| line.contains(&format!("{path}:"))),
        "every line names the file: {said}"
    );
    Ok(said)
}

#[test]
fn documented_configurations_are_valid() {
    in_topology(|topology| {
        let [node] = topology.add_nodes(["host"])?;
        let setup = Setup::new()?;
        for (program, text) in [
            ("gateway", setup.gateway_toml(node.dir())),
            ("lan-server", setup.lan_server_toml(node.dir())),
        ] {
            let path = node
                .write(&format!("{program}.toml"), &text)?
                .display()
                .to_string();
            node.run(&[&binary(program)?, "check", "--config", &path])?;
        }
        Ok(())
    });
}

#[test]
fn each_mistake_in_gateway_toml_has_its_message() {
    in_topology(|topology| {
        let [node] = topology.add_nodes(["host"])?;
        let text = Setup::new()?.gateway_toml(node.dir());
        for (right, wrong, message) in [
            (
                "listen_port = 51820",
                "listen_prot = 51820",
                "did you mean `listen_port`?",
            ),
            ("listen_port = 51820", "listen_port = 70000", "out of range"),
            ("mtu         = 1420", "mtu         = 90", "out of range"),
            ("mtu         = 1420", r#"mtu         = "1420""#, "mtu"),
            ("[80, 443]", "[80, 70000]", "port 70000 is out of range"),
            ("[80, 443]", "[80, 80]", "80"),
            (
                r#"["cloudflare"]"#,
                r#"["cloudfare"]"#,
                "did you mean \"cloudflare\"?",
            ),
            (r#"["cloudflare"]"#, r#"["any", "cloudflare"]"#, "any"),
            (r#"["cloudflare"]"#, "[]", "is empty"),
            (
                r#"vip       = "10.17.5.30""#,
                r#"vip       = "10.99.5.30""#,
                "10.99.5.30",
            ),
            (
                r#""10.17.3.0/24", "#,
                r#""10.17.3.1/24", "#,
                "host bits set; the network is 10.17.3.0/24",
            ),
            (r#""10.17.3.0/24", "#, r#""0.0.0.0/0", "#, "whole internet"),
            (r#""10.17.3.0/24", "#, r#""8.8.8.0/24", "#, "is not private"),
            (
                r#"address    = "10.17.0.10""#,
                r#"address    = "10.18.0.10""#,
                "outside the tunnel network",
            ),
            (
                r#"address    = "10.17.0.10""#,
                r#"address    = "10.17.0.1""#,
                "gateway's own address",
            ),
            (
                r#"address    = "10.17.0.10""#,
                r#"address    = "10.17.0.11""#,
                "10.17.0.11",
            ),
            (
                r#"role       = "kube-admin""#,
                r#"role       = "kube-admn""#,
                "did you mean \"kube-admin\"?",
            ),
            (
                r#"endpoint  = "203.0.113.10:51820""#,
                r#"endpoint  = "104.16.1.1:51820""#,
                "Cloudflare",
            ),
            (
                r#"endpoint  = "203.0.113.10:51820""#,
                r#"endpoint  = "203.0.113.10""#,
                "has no port",
            ),
            (r#"interface = "eth0""#, r#"interface = "edge0""#, "edge0"),
            ("[wan]", "[wan", "not valid TOML"),
        ] {
            ensure!(
                text.contains(right),
                "`{right}` is not in the configuration any more"
            );
            let said = refusal(&node, "gateway", &text.replacen(right, wrong, 1))?;
            ensure!(
                said.contains(message),
                "{wrong}: expected `{message}`, got {said}"
            );
        }
        Ok(())
    });
}

#[test]
fn each_mistake_in_lan_server_toml_has_its_message() {
    in_topology(|topology| {
        let [node] = topology.add_nodes(["host"])?;
        let text = Setup::new()?.lan_server_toml(node.dir());
        for (right, wrong, message) in [
            (
                "persistent_keepalive = 25",
                "persistent_keepalive = -1",
                "persistent_keepalive",
            ),
            ("persistent_keepalive = 25", "keepalive = 25", "keepalive"),
            (
                r#"from = ["cloudflare"]"#,
                r#"from = ["192.168.0.0/24"]"#,
                "192.168.0.0/24",
            ),
            (
                r#"from = ["cloudflare"]"#,
                r#"allow = ["cloudflare"]"#,
                "allow",
            ),
            (r#"source_ip = "preserve""#, r#"source_ip = "keep""#, "keep"),
            (
                r#"to = ["10.17.5.10:6443/tcp""#,
                r#"to = ["10.17.5.10:6443""#,
                "10.17.5.10:6443",
            ),
        ] {
            ensure!(
                text.contains(right),
                "`{right}` is not in the configuration any more"
            );
            let said = refusal(&node, "lan-server", &text.replacen(right, wrong, 1))?;
            ensure!(
                said.contains(message),
                "{wrong}: expected `{message}`, got {said}"
            );
        }
        Ok(())
    });
}

#[test]
fn all_mistakes_are_told_at_once_and_nothing_is_done() {
    in_topology(|topology| {
        let [node] = topology.add_nodes(["host"])?;
        let text = Setup::new()?
            .gateway_toml(node.dir())
            .replacen("listen_port", "listen_prot", 1)
            .replacen("kube-admin\"\n\n[[peer]]", "kube-admn\"\n\n[[peer]]", 1)
            .replacen("[80, 443]", "[80, 70000]", 1);
        let said = refusal(&node, "gateway", &text)?;
        assert!(said.lines().count() >= 3, "{said}");
        let before = kernel_state(&node)?;
        let path = node.dir().join("gateway.toml").display().to_string();
        let output = node.output(&[&binary("gateway")?, "run", "--config", &path])?;
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(kernel_state(&node)?, before);
        Ok(())
    });
}

#[test]
fn keys_are_never_repeated() {
    in_topology(|topology| {
        let [node] = topology.add_nodes(["host"])?;
        let setup = Setup::new()?;
        let secret = setup.gateway.private.to_base64();
        let text = setup.gateway_toml(node.dir());
        for wrong in [
            text.replacen("gateway.key", &secret, 1),
            text.replacen(
                &format!("{}\"", setup.operator.public),
                &format!("{}=\"", secret.as_str()),
                1,
            ),
            text.replacen(
                "[wan]",
                &format!("private_key = \"{}\"\n[wan]", secret.as_str()),
                1,
            ),
        ] {
            let said = refusal(&node, "gateway", &wrong)?;
            assert!(!said.contains(secret.as_str()), "{said}");
        }
        Ok(())
    });
}

#[test]
fn missing_file_is_named() {
    in_topology(|topology| {
        let [node] = topology.add_nodes(["host"])?;
        let output = node.output(&[
            &binary("gateway")?,
            "check",
            "--config",
            "/nowhere/gateway.toml",
        ])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("/nowhere/gateway.toml"), "{said}");
        Ok(())
    });
}
