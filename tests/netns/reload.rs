//! SIGHUP with a changed configuration.
use tests::edge::{Setup, publish};
use tests::servers::{Conversation, ask_tcp};
use tests::world::addresses::{CLIENT, INGRESS_VIP, at, public};

use crate::support::with_edge;

#[test]
fn new_service_is_published_and_open_connections_go_on() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        world.serve_tcp(at(INGRESS_VIP, 8443))?;
        let mut conversation = Conversation::open(&world.client, public(80))?;
        assert!(ask_tcp(&world.client, public(8443)).is_err());
        edge.lan_server.reload(|text| {
            text.to_owned()
                + &publish(
                    "more",
                    "10.17.5.30",
                    "tcp",
                    "8443",
                    r#"from = ["cloudflare"]"#,
                    "preserve",
                )
        })?;
        edge.gateway.reload(|text| {
            text.to_owned()
                + &publish(
                    "more",
                    "10.17.5.30",
                    "tcp",
                    "8443",
                    r#"allow = ["cloudflare"]"#,
                    "preserve",
                )
        })?;
        assert_eq!(ask_tcp(&world.client, public(8443))?.ip(), CLIENT);
        conversation.echo("still here")
    });
}

#[test]
fn listen_port_is_mapped_to_another_port_of_the_vip() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        edge.gateway.reload(|text| {
            text.to_owned()
                + &publish(
                    "mapped",
                    "10.17.5.30",
                    "tcp",
                    r#""8080:80""#,
                    r#"allow = ["cloudflare"]"#,
                    "preserve",
                )
        })?;
        assert_eq!(ask_tcp(&world.client, public(8080))?.ip(), CLIENT);
        Ok(())
    });
}

#[test]
fn withdrawn_service_is_closed() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        assert!(ask_tcp(&world.client, public(443)).is_ok());
        edge.gateway
            .reload(|text| text.replace("ports     = [80, 443]", "ports     = [80]"))?;
        assert!(ask_tcp(&world.client, public(443)).is_err());
        assert!(ask_tcp(&world.client, public(80)).is_ok());
        Ok(())
    });
}

#[test]
fn wrong_file_changes_nothing() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut conversation = Conversation::open(&world.client, public(80))?;
        edge.gateway
            .reload(|text| text.replace("vip       =", "vips      ="))?;
        assert!(
            edge.gateway.daemon.log().contains("did you mean `vip`?"),
            "{}",
            edge.gateway.daemon.log()
        );
        conversation.echo("still here")?;
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        Ok(())
    });
}

#[test]
fn removed_peer_is_out_at_once() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let operator = tests::world::addresses::OPERATOR;
        let _laptop =
            edge.setup
                .dial_in(&world.road_warrior, &edge.setup.operator, operator.into())?;
        let gateway = tests::world::addresses::GATEWAY.to_string();
        world.road_warrior.pings(&gateway)?;
        edge.gateway.reload(|text| {
            let start = text.find("[[peer]]").unwrap_or_default();
            let end = text.rfind("[[peer]]").unwrap_or_default();
            format!("{}{}", &text[..start], &text[end..])
        })?;
        assert!(world.road_warrior.pings(&gateway).is_err());
        Ok(())
    });
}

#[test]
fn changed_key_file_is_read_although_the_file_that_names_it_is_the_same() {
    let psk = "preshared_key_file = \"home.psk\"";
    let setup = Setup::new().unwrap();
    with_edge(setup, |world, edge| {
        let path = world.vps.dir().join("state/home.psk");
        let write = |byte: u8| -> anyhow::Result<()> {
            use std::os::unix::fs::PermissionsExt as _;
            let key = shared::model::PresharedKey::from_bytes([byte; 32]);
            std::fs::write(&path, key.to_base64().as_str())?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok(())
        };
        let shown = || world.vps.run(&["wg", "show", "edge0", "preshared-keys"]);
        write(1)?;
        edge.gateway.reload(|text| {
            text.replacen("[[lan_server]]\n", &format!("[[lan_server]]\n{psk}\n"), 1)
        })?;
        let before = shown()?;
        write(2)?;
        edge.gateway.reload(str::to_owned)?;
        assert_ne!(shown()?, before);
        Ok(())
    });
}
