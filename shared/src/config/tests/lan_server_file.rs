//! What is special about `lan-server.toml`.
use super::*;

fn refuses(edits: &[(&str, &str)], expected: &[&str]) {
    let errors = LanServer::parse(&edited(LAN_SERVER, edits), "F").unwrap_err();
    assert_eq!(lines(&errors.0), expected);
}

fn doubts(edits: &[(&str, &str)], expected: &[&str]) {
    let parsed = LanServer::parse(&edited(LAN_SERVER, edits), "F").unwrap();
    assert_eq!(lines(&parsed.warnings), expected);
}

#[test]
fn a_gateway_endpoint_inside_the_tunnel_is_refused() {
    refuses(
        &[(r#""203.0.113.10:51820" "#, r#""10.17.9.9:51820" "#)],
        &[
            r#"10:14: gateway "vps1": 10.17.9.9 is inside 10.17.0.0/16, which is reached through the tunnel; write the gateway's public address"#,
        ],
    );
}

#[test]
fn a_gateway_endpoint_inside_cloudflares_ranges_is_refused() {
    refuses(
        &[(
            r#""203.0.113.10:51820" "#,
            r#""[2606:4700::6810:85e5]:51820" "#,
        )],
        &[
            r#"10:14: gateway "vps1": 2606:4700::6810:85e5 belongs to Cloudflare, which never forwards WireGuard's UDP; write the gateway's own public address"#,
        ],
    );
}

#[test]
fn unknown_keys_of_the_lan_server_name_the_nearest_known_one() {
    refuses(
        &[
            ("persistent_keepalive = 25", "persistent_keep_alive = 25"),
            ("from      =", "form      ="),
        ],
        &[
            r#"14:1: gateway "vps1": unknown key `persistent_keep_alive`; did you mean `persistent_keepalive`?"#,
            r#"21:1: publish "ingress": unknown key `form`; did you mean `from`?"#,
        ],
    );
}

#[test]
fn a_second_gateway_is_refused() {
    refuses(
        &[(
            "persistent_keepalive = 25",
            r#"[[gateway]]
name = "vps2"
endpoint = "vps2.example.com:51820"
public_key = "KEY1"
address = "10.17.0.3"
network = "10.17.0.0/16""#,
        )],
        &[r#"14:1: gateway "vps2": this version runs one gateway; keep one [[gateway]]"#],
    );
}

#[test]
fn a_missing_gateway_is_refused() {
    refuses(
        &[
            (
                "[[gateway]]  ",
                r#"[[access]]
to = ["10.17.5.9:80/tcp"]
#"#,
            ),
            (r#"name       = "vps1""#, "#"),
            ("endpoint   =", "#"),
            ("public_key =", "#"),
            (r#"address    = "10.17.0.1""#, "#"),
            ("network    =", "#"),
            ("persistent_", "#"),
        ],
        &["1:1: there is no [[gateway]]; name the gateway that this host dials"],
    );
}

#[test]
fn our_address_lies_in_the_gateways_network() {
    refuses(
        &[(r#""10.17.0.2/32""#, r#""10.18.0.2/32""#)],
        &[
            r#"4:13: [tunnel]: 10.18.0.2 is outside `network` of gateway "vps1" (10.17.0.0/16); correct one of them"#,
        ],
    );
}

#[test]
fn our_address_is_not_the_gateways() {
    refuses(
        &[(r#""10.17.0.2/32""#, r#""10.17.0.1/32""#)],
        &[
            r#"4:13: [tunnel]: 10.17.0.1 is the address of gateway "vps1"; this host needs one of its own"#,
        ],
    );
}

#[test]
fn our_address_is_not_the_networks_last() {
    refuses(
        &[(r#""10.17.0.2/32""#, r#""10.17.255.255/32""#)],
        &[
            "4:13: [tunnel]: 10.17.255.255 is not an address of a host in 10.17.0.0/16; take another one",
        ],
    );
}

#[test]
fn the_gateways_address_lies_in_its_network() {
    refuses(
        &[(r#"address    = "10.17.0.1""#, r#"address    = "10.16.0.1""#)],
        &[
            r#"12:14: gateway "vps1": 10.16.0.1 is outside `network` of gateway "vps1" (10.17.0.0/16); correct one of them"#,
        ],
    );
}

#[test]
fn a_keepalive_out_of_range_is_refused() {
    refuses(
        &[("persistent_keepalive = 25", "persistent_keepalive = 70000")],
        &[
            r#"14:24: gateway "vps1": `persistent_keepalive` is 70000, out of range; write 0 to 65535"#,
        ],
    );
}

#[test]
fn no_keepalive_is_doubtful() {
    doubts(
        &[("persistent_keepalive = 25", "persistent_keepalive = 0")],
        &[
            r#"14:24: gateway "vps1": without keepalives a NAT or firewall in front of this host forgets the tunnel when it is idle, and the gateway can't reach it"#,
        ],
    );
}

#[test]
fn mapping_ports_on_the_lan_end_is_refused() {
    refuses(
        &[("[80, 443]", r#"["8443:443"]"#)],
        &[
            r#"20:14: publish "ingress": "8443:443" maps a port, which only the gateway does; write the VIP's own port here"#,
        ],
    );
}

#[test]
fn a_vip_that_is_our_tunnel_address_is_refused() {
    refuses(
        &[(r#"vip       = "10.17.5.30""#, r#"vip       = "10.17.0.2""#)],
        &[
            r#"18:13: publish "ingress": 10.17.0.2 is the tunnel address of this host; a VIP is an address on the LAN"#,
        ],
    );
}

#[test]
fn the_same_port_of_a_vip_is_published_once() {
    refuses(
        &[(
            "[[access]]  ",
            r#"[[publish]]
name = "again"
vip = "10.17.5.30"
protocol = "tcp"
ports = ["400-500"]
from = ["198.51.100.0/24"]

[[access]]  "#,
        )],
        &[
            r#"28:10: publish "again": port 400-500/tcp of 10.17.5.30 is already taken by publish "ingress" on line 20; take another one"#,
        ],
    );
}

#[test]
fn private_sources_can_not_be_preserved() {
    refuses(
        &[(r#"["cloudflare"]"#, r#"["cloudflare", "192.168.0.0/16"]"#)],
        &[
            r#"21:28: publish "ingress": 192.168.0.0/16 is not public; such a source must never come out of the tunnel; take it out or write source_ip = "masquerade""#,
        ],
    );
}

#[test]
fn tunnel_sources_can_not_be_preserved() {
    refuses(
        &[(r#"["cloudflare"]"#, r#"["10.17.0.0/24"]"#)],
        &[
            r#"21:14: publish "ingress": 10.17.0.0/24 overlaps the tunnel network 10.17.0.0/16; such a source must never come out of the tunnel; take it out or write source_ip = "masquerade""#,
        ],
    );
}

#[test]
fn a_wide_source_that_contains_private_space_can_not_be_preserved() {
    refuses(
        &[(r#"["cloudflare"]"#, r#"["192.0.0.0/8"]"#)],
        &[
            r#"21:14: publish "ingress": 192.0.0.0/8 contains 192.168.0.0/16, which is not public; such a source must never come out of the tunnel; take it out or write source_ip = "masquerade""#,
        ],
    );
}

#[test]
fn a_source_that_contains_a_vip_can_not_be_preserved() {
    refuses(
        &[
            (r#"["cloudflare"]"#, r#"["93.184.216.0/24"]"#),
            (r#""10.17.5.30""#, r#""93.184.216.34""#),
        ],
        &[
            r#"21:14: publish "ingress": 93.184.216.0/24 contains the VIP 93.184.216.34; such a source must never come out of the tunnel; take it out or write source_ip = "masquerade""#,
        ],
    );
}

#[test]
fn private_sources_of_a_set_can_not_be_preserved() {
    refuses(
        &[
            (r#"["cloudflare"]"#, r#"["campus"]"#),
            (
                "[tunnel]",
                r#"[sets]
campus = ["203.0.113.0/24", "172.16.0.0/12", "10.0.0.0/8"]

[tunnel]"#,
            ),
        ],
        &[
            r#"24:14: publish "ingress": 172.16.0.0/12 is not public; such a source must never come out of the tunnel; take it out or write source_ip = "masquerade""#,
        ],
    );
}

#[test]
fn any_source_preserved_is_doubtful() {
    doubts(
        &[(r#"["cloudflare"]"#, r#"["any"]"#)],
        &[
            r#"21:13: publish "ingress": whoever takes over the gateway can then call with any public source address; list the sources if they are known"#,
        ],
    );
}

#[test]
fn a_pool_has_addresses_of_this_host() {
    let with = |pool: &str, message: &str| {
        refuses(
            &[(
                r#"source_ip = "preserve"  "#,
                &format!(r#"source_ip = "{pool}""#),
            )],
            &[&format!(r#"22:13: publish "ingress": {message}"#)],
        );
    };
    with(
        "10.17.0.1",
        r#"10.17.0.1 is the tunnel address of gateway "vps1"; write addresses of this host"#,
    );
    with(
        "10.17.5.28-10.17.5.31",
        "10.17.5.30 is a VIP; write addresses of this host",
    );
    with(
        "fd00::1",
        "fd00::1 is IPv6, but what is called is IPv4; write IPv4 addresses, or an entry of its own for it",
    );
    with(
        "192.168.0.4-192.168.0.1",
        "the range 192.168.0.4-192.168.0.1 runs backwards; write 192.168.0.1-192.168.0.4",
    );
    with(
        "192.168.0.1-fd00::1",
        "192.168.0.1 and fd00::1 are addresses of two families; write a range of one",
    );
    with(
        "192.168.0.0-192.168.1.0",
        r#""192.168.0.0-192.168.1.0" has 257 addresses; 256 are the most"#,
    );
    with(
        "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        r#""::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" has 340282366920938463463374607431768211455 addresses; 256 are the most"#,
    );
    with(
        "127.0.0.1",
        "127.0.0.1 is a loopback address; no host can be reached there from another",
    );
    for wrong in ["192.168.0.1-", "192.168.0.1-7", "192.168.0.0/30", "-"] {
        with(
            wrong,
            &format!(
                r#""{wrong}" is not a source_ip mode; write "preserve", "masquerade" or addresses as "192.168.0.20-192.168.0.23""#
            ),
        );
    }
    refuses(
        &[(
            r#"source_ip = "masquerade""#,
            r#"source_ip = "fd00::1-fd00::2""#,
        )],
        &[
            "26:13: access number 1: fd00::1 is IPv6, but what is called is IPv4; write IPv4 addresses, or an entry of its own for it",
        ],
    );
}

#[test]
fn services_of_all_access_entries_do_not_overlap() {
    refuses(
        &[(
            r#"source_ip = "masquerade""#,
            r#"
[[access]]
to = ["10.17.3.11:53/udp"]"#,
        )],
        &[
            "28:7: access number 2: 10.17.3.11:53/udp overlaps 10.17.3.11:53/udp on line 25; keep one of them",
        ],
    );
}

#[test]
fn missing_keys_of_access_are_named() {
    refuses(
        &[("to = [", "#")],
        &[
            r#"24:1: access number 1: the key `to` is missing; write for example to = ["10.17.5.10:6443/tcp"]"#,
        ],
    );
}
