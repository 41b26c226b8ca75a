//! The path cut between visitors and the published service, one place after the other.
use std::time::Duration;

use anyhow::Result;
use shared::api::diagnosis::HopKind::{Connection, Firewall, Http, Kernel, Reply, Route, Tls};
use tests::daemon::Daemon;
use tests::web::{Answer, Certificate};
use tests::world::addresses::{INGRESS_VIP, at};

use super::judge::{
    Cut, HOST, Told, each_is_named, foreign_table, remedied, told, without_foreign_table,
};
use super::scene::{Scene, names};

/// What is changed again and again is left within this.
const FOUGHT: Duration = Duration::from_secs(15);

/// The services of the IPv4 VIP.
const OVER_IPV4: &[&str] = &["ingress", "stun", "iperf"];
/// Those that are called over TCP.
const TCP_OVER_IPV4: &[&str] = &["ingress", "iperf"];
const HTTPS: &[&str] = &["ingress 10.17.5.30:443", "ingress6 [fd17:5::30]:443"];

#[test]
fn firewalls_of_others_in_the_visitors_way_are_named() {
    const ALL: &[&str] = &["ingress", "ingress6", "stun", "iperf"];
    each_is_named(&[
        Cut {
            name: "a firewall of the VPS drops what is forwarded",
            sever: |scene| {
                scene.world.vps.nft(&foreign_table(
                    "chain careful { type filter hook forward priority filter; policy drop; ct state established,related accept; }",
                ))
            },
            mend: |scene| without_foreign_table(&scene.world.vps),
            gateway: remedied(&[Firewall], ALL, &["inet strangers", "careful"]),
            lan_server: Told::Nothing,
        },
        Cut {
            name: "a firewall of the LAN host drops what is forwarded",
            sever: |scene| {
                scene.world.lan_host.nft(&foreign_table(
                    "chain careful { type filter hook forward priority filter; policy drop; ct state established,related accept; }",
                ))
            },
            mend: |scene| without_foreign_table(&scene.world.lan_host),
            gateway: told(&[Connection], &["ingress", "ingress6", "iperf"], &[]),
            lan_server: remedied(&[Firewall], ALL, &["inet strangers", "careful"]),
        },
        Cut {
            name: "libvirt rejects what it does not know",
            sever: |scene| {
                scene.world.lan_host.nft(
                    "table ip libvirt_network {
                        chain guest_input { oif virbr-vip ct state established,related accept
                            oif virbr-vip counter reject; }
                        chain forward { type filter hook forward priority filter; counter jump guest_input; }
                    }",
                )
            },
            mend: |scene| scene.world.lan_host.nft("delete table ip libvirt_network"),
            gateway: told(&[Connection], TCP_OVER_IPV4, &[]),
            lan_server: remedied(&[Firewall], OVER_IPV4, &["libvirt_network", "guest_input"]),
        },
    ]);
}

#[test]
fn what_is_missing_before_the_vip_is_named() {
    each_is_named(&[
        Cut {
            name: "the LAN host has no route to the VIP",
            sever: |scene| {
                let lan_host = &scene.world.lan_host;
                lan_host.ip("route del 10.17.5.0/24 dev virbr-vip\n")
            },
            mend: |scene| {
                let lan_host = &scene.world.lan_host;
                lan_host.ip(
                    "route add 10.17.5.0/24 dev virbr-vip proto kernel scope link src 10.17.5.1\n",
                )
            },
            gateway: told(&[Connection], TCP_OVER_IPV4, &[]),
            lan_server: told(&[Route], OVER_IPV4, &["10.17.5.30", "edge0"]),
        },
        Cut {
            name: "nobody holds the VIP",
            sever: |scene| {
                scene.world.backend.ip("addr del 10.17.5.30/24 dev vip\n")?;
                // As minutes later: the LAN host has forgotten who had it.
                scene.world.lan_host.ip("neigh flush dev virbr-vip\n")
            },
            mend: |scene| scene.world.backend.ip("addr add 10.17.5.30/24 dev vip\n"),
            gateway: told(&[Connection], TCP_OVER_IPV4, &[]),
            lan_server: told(&[Connection], TCP_OVER_IPV4, &["10.17.5.30", "no host"]),
        },
        Cut {
            name: "the answers to visitors leave by another router",
            sever: |scene| {
                let backend = &scene.world.backend;
                backend.ip("route replace default via 10.17.5.254\n")
            },
            mend: |scene| {
                let backend = &scene.world.backend;
                backend.ip("route replace default via 10.17.5.1\n")
            },
            // Its own address is as far away as a visitor's.
            gateway: told(&[Connection], TCP_OVER_IPV4, &["no answer"]),
            lan_server: told(&[Reply], TCP_OVER_IPV4, &["192.168.0.15", "virbr-vip"]),
        },
    ]);
}

#[test]
fn what_the_service_answers_is_named() {
    each_is_named(&[
        Cut {
            name: "no server listens",
            sever: |scene| {
                scene.web.remove(&at(INGRESS_VIP, 443));
                Ok(())
            },
            mend: |scene| scene.serve_web(at(INGRESS_VIP, 443)),
            gateway: told(
                &[Connection],
                &["ingress 10.17.5.30:443"],
                &["10.17.5.30", "refuses"],
            ),
            lan_server: told(
                &[Connection],
                &["ingress 10.17.5.30:443"],
                &["10.17.5.30", "refuses"],
            ),
        },
        Cut {
            name: "a server that is no web server ended",
            sever: |scene| {
                scene.plain = None;
                Ok(())
            },
            mend: |scene| scene.serve_plain(),
            gateway: told(
                &[Connection],
                &["iperf 10.17.5.30:5201"],
                &["10.17.5.30", "refuses"],
            ),
            lan_server: told(
                &[Connection],
                &["iperf 10.17.5.30:5201"],
                &["10.17.5.30", "refuses"],
            ),
        },
        Cut {
            name: "the certificate has expired",
            sever: |scene| {
                scene.certify(&Certificate::expired(&names())?);
                Ok(())
            },
            mend: certify,
            gateway: told(&[Tls], HTTPS, &["expired"]),
            lan_server: told(&[Tls], HTTPS, &["expired"]),
        },
        Cut {
            name: "the certificate is for another name",
            sever: |scene| {
                scene.certify(&Certificate::of(&["shop.example.net"])?);
                Ok(())
            },
            mend: certify,
            gateway: told(&[Tls], HTTPS, &["shop.example.net"]),
            lan_server: told(&[Tls], HTTPS, &["shop.example.net"]),
        },
        Cut {
            name: "the site says 503",
            sever: |scene| {
                scene.answer(&Answer::Status(503));
                Ok(())
            },
            mend: |scene| {
                scene.answer(&Answer::Status(200));
                Ok(())
            },
            gateway: told(&[Http], &["ingress", "ingress6"], &["503"]),
            lan_server: told(&[Http], &["ingress", "ingress6"], &["503"]),
        },
    ]);
}

fn certify(scene: &mut Scene<'_>) -> Result<()> {
    scene.certify(&Certificate::of(&names())?);
    Ok(())
}

#[test]
fn what_others_do_to_ours_is_named() {
    each_is_named(&[
        Cut {
            name: "another route in place of ours",
            sever: |scene| {
                // In one go: between the two ours would come back.
                scene.world.vps.ip("
                    route del 10.17.5.0/24 dev edge0
                    route add 10.17.5.0/24 dev eth0
                ")
            },
            mend: |scene| scene.world.vps.ip("route del 10.17.5.0/24 dev eth0\n"),
            gateway: told(&[Kernel], HOST, &["10.17.5.0/24"]),
            lan_server: Told::Nothing,
        },
        Cut {
            name: "somebody removes our route again and again",
            sever: |scene| {
                let removing =
                    "while :; do ip route del 10.17.5.0/24 dev edge0 2>/dev/null; sleep 0.05; done";
                let vps = &scene.world.vps;
                scene.noise = Some(Daemon::start(vps, "noise", &["sh", "-c", removing])?);
                // Until then it may be in place at any moment.
                let daemon = &mut scene.edge.gateway.daemon;
                daemon.wait_for_log(FOUGHT, 0, &["left for now"])
            },
            mend: |scene| {
                scene.noise = None;
                // Who reloads has looked at it.
                scene.edge.gateway.reload(str::to_owned)
            },
            gateway: told(&[Kernel], HOST, &["10.17.5.0/24"]),
            lan_server: Told::Nothing,
        },
    ]);
}
