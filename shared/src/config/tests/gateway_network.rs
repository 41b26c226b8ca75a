//! Addresses, networks, endpoint and links of `gateway.toml`.
use super::*;

fn refuses(edits: &[(&str, &str)], expected: &[&str]) {
    let errors = Gateway::parse(&edited(GATEWAY, edits), "F").unwrap_err();
    assert_eq!(lines(&errors.0), expected);
}

fn doubts(edits: &[(&str, &str)], expected: &[&str]) {
    let parsed = Gateway::parse(&edited(GATEWAY, edits), "F").unwrap();
    assert_eq!(lines_beside_admin_note(&parsed.warnings), expected);
}

#[test]
fn addresses_are_unique_among_peers_and_lan_servers() {
    refuses(
        &[(r#"address = "10.17.0.10""#, r#"address = "10.17.0.2""#)],
        &[
            r#"42:11: peer "alice": the address 10.17.0.2 is already that of lan_server "home" on line 21; take another one"#,
        ],
    );
}

#[test]
fn an_address_has_no_prefix_length_in_a_peer() {
    refuses(
        &[(r#"address = "10.17.0.10""#, r#"address = "10.17.0.10/32""#)],
        &[
            r#"42:11: peer "alice": "10.17.0.10/32" is not an IP address; write the address without a prefix length"#,
        ],
    );
}

#[test]
fn a_peer_outside_the_tunnel_network_is_refused() {
    refuses(
        &[(r#"address = "10.17.0.10""#, r#"address = "10.18.0.10""#)],
        &[
            r#"42:11: peer "alice": 10.18.0.10 is outside the tunnel network; take one from 10.17.0.0/16"#,
        ],
    );
}

#[test]
fn a_peer_with_the_gateways_address_is_refused() {
    refuses(
        &[(r#"address = "10.17.0.10""#, r#"address = "10.17.0.1""#)],
        &[r#"42:11: peer "alice": 10.17.0.1 is the gateway's own address; take another one"#],
    );
}

#[test]
fn a_peer_inside_a_lan_network_is_refused() {
    refuses(
        &[(r#"address = "10.17.0.10""#, r#"address = "10.17.4.10""#)],
        &[
            r#"42:11: peer "alice": 10.17.4.10 is inside 10.17.4.0/24, a network of lan_server "home"; peers have addresses outside the LAN networks"#,
        ],
    );
}

#[test]
fn a_peer_on_the_networks_first_or_last_address_is_refused() {
    refuses(
        &[(r#"address = "10.17.0.10""#, r#"address = "10.17.255.255""#)],
        &[
            r#"42:11: peer "alice": 10.17.255.255 is not an address of a host in 10.17.0.0/16; take another one"#,
        ],
    );
}

#[test]
fn a_peer_has_one_address_per_family() {
    refuses(
        &[(
            r#"address = "10.17.0.10""#,
            r#"address = ["10.17.0.10", "10.17.0.11"]"#,
        )],
        &[
            r#"42:26: peer "alice": `address` already has an IPv4 entry; there can be one IPv4 and one IPv6 entry"#,
        ],
    );
}

#[test]
fn an_ipv4_address_in_ipv6_form_is_refused() {
    refuses(
        &[(
            r#"address = "10.17.0.10""#,
            r#"address = "::ffff:10.17.0.10""#,
        )],
        &[
            r#"42:11: peer "alice": "::ffff:10.17.0.10" is an IPv4 address in IPv6 form; write 10.17.0.10"#,
        ],
    );
}

#[test]
fn host_bits_are_refused_with_the_right_network() {
    refuses(
        &[(r#""10.17.4.0/24""#, r#""10.17.4.77/22""#)],
        &[
            r#"22:31: lan_server "home": "10.17.4.77/22" has host bits set; the network is 10.17.4.0/22"#,
        ],
    );
}

#[test]
fn malformed_networks_are_refused() {
    refuses(
        &[(
            r#""10.17.3.0/24", "10.17.4.0/24""#,
            r#""10.17.3.0/33", "lan", "10.17.4/24""#,
        )],
        &[
            r#"22:15: lan_server "home": "10.17.3.0/33" has no valid prefix length; it is 0 to 32 here"#,
            r#"22:31: lan_server "home": "lan" is not a network; write address/length, e.g. "10.17.3.0/24""#,
            r#"22:38: lan_server "home": "10.17.4/24" is not a network; write address/length, e.g. "10.17.3.0/24""#,
        ],
    );
}

#[test]
fn lan_networks_do_not_overlap() {
    refuses(
        &[(
            "tokens = true\n",
            r#"tokens = true

[[lan_server]]
name = "office"
public_key = "KEY2"
address = "10.17.0.3"
networks = ["10.17.5.128/25", "10.99.0.0/16"]
"#,
        )],
        &[
            r#"53:13: lan_server "office": 10.17.5.128/25 overlaps 10.17.5.0/24 of lan_server "home" on line 22; keep one of them"#,
        ],
    );
}

#[test]
fn a_lan_network_that_covers_the_tunnel_network_is_refused() {
    refuses(
        &[(r#""10.17.4.0/24""#, r#""10.0.0.0/8""#)],
        &[
            r#"22:31: lan_server "home": 10.0.0.0/8 covers the tunnel network 10.17.0.0/16; name the networks of the LAN more narrowly"#,
        ],
    );
}

#[test]
fn a_lan_network_with_the_gateways_address_is_refused() {
    refuses(
        &[(r#""10.17.4.0/24""#, r#""10.17.0.0/28""#)],
        &[
            r#"22:31: lan_server "home": 10.17.0.0/28 contains 10.17.0.1, the gateway's own address; name the networks of the LAN more narrowly"#,
        ],
    );
}

#[test]
fn a_lan_network_of_everything_is_refused() {
    refuses(
        &[(r#""10.17.4.0/24""#, r#""0.0.0.0/0""#)],
        &[
            r#"22:31: lan_server "home": 0.0.0.0/0 is the whole internet; name the networks of the LAN"#,
        ],
    );
}

#[test]
fn a_public_lan_network_is_refused() {
    refuses(
        &[(r#""10.17.4.0/24""#, r#""93.184.216.0/24""#)],
        &[
            r#"22:31: lan_server "home": 93.184.216.0/24 is not private: its traffic would be drawn into the tunnel; LAN networks are private (RFC 1918, RFC 6598, RFC 4193) or inside the tunnel network"#,
        ],
    );
}

#[test]
fn empty_lan_networks_are_refused() {
    refuses(
        &[(
            r#"networks   = ["10.17.3.0/24", "10.17.4.0/24", "10.17.5.0/24"]"#,
            "networks   = []",
        )],
        &[r#"22:14: lan_server "home": `networks` is empty; it needs at least one entry"#],
    );
}

#[test]
fn an_endpoint_inside_cloudflares_ranges_is_refused() {
    refuses(
        &[(r#""203.0.113.10:51820" "#, r#""104.16.1.1:51820" "#)],
        &[
            "7:13: [wan]: 104.16.1.1 belongs to Cloudflare, which never forwards WireGuard's UDP; write the gateway's own public address",
        ],
    );
}

#[test]
fn an_endpoint_without_port_is_refused() {
    refuses(
        &[(r#""203.0.113.10:51820" "#, r#""vpn.example.com""#)],
        &[
            r#"7:13: [wan]: "vpn.example.com" has no port; write host:port, e.g. "203.0.113.10:51820""#,
        ],
    );
}

#[test]
fn an_endpoint_with_port_0_is_refused() {
    refuses(
        &[(r#""203.0.113.10:51820" "#, r#""203.0.113.10:0" "#)],
        &["7:13: [wan]: port 0 is out of range; ports are 1 to 65535"],
    );
}

#[test]
fn an_ipv6_endpoint_needs_brackets() {
    refuses(
        &[(r#""203.0.113.10:51820" "#, r#""2001:db8::1:51820" "#)],
        &[
            r#"7:13: [wan]: "2001:db8::1:51820" has an IPv6 address without brackets; write "[2001:db8::10]:51820""#,
        ],
    );
}

#[test]
fn an_endpoint_that_nobody_can_dial_is_refused() {
    refuses(
        &[(r#""203.0.113.10:51820" "#, r#""127.0.0.1:51820" "#)],
        &[
            "7:13: [wan]: 127.0.0.1 is a loopback address; no host can be reached there from another",
        ],
    );
}

#[test]
fn an_endpoint_that_is_a_mistyped_address_is_refused() {
    refuses(
        &[(r#""203.0.113.10:51820" "#, r#""203.0.113.300:51820" "#)],
        &[r#"7:13: [wan]: "203.0.113.300" is neither an address nor a host name"#],
    );
}

#[test]
fn another_dialled_port_than_the_listen_port_is_doubtful() {
    doubts(
        &[(r#""203.0.113.10:51820" "#, r#""203.0.113.10:443" "#)],
        &[
            "7:13: [wan]: peers dial port 443, but the tunnel listens on 51820; right only if something in front translates it",
        ],
    );
}

#[test]
fn an_mtu_out_of_range_is_refused() {
    refuses(
        &[("mtu         = 1420", "mtu         = 575")],
        &["13:15: [tunnel]: `mtu` is 575, out of range; write 576 to 65455"],
    );
}

#[test]
fn an_mtu_too_small_for_ipv6_is_refused_where_there_is_ipv6() {
    let small = ("mtu         = 1420", "mtu         = 1279");
    doubts(&[small], &[]);
    refuses(
        &[
            small,
            (
                r#"address     = "10.17.0.1/16""#,
                r#"address     = ["10.17.0.1/16", "fd17::1/64"]"#,
            ),
        ],
        &[
            "13:15: [tunnel]: `mtu` is 1279, but IPv6 needs 1280; raise it, or leave IPv6 out of the tunnel",
        ],
    );
}

#[test]
fn more_than_one_thread_is_refused() {
    refuses(
        &[("mtu         = 1420", "threads     = 4")],
        &[
            "13:15: [tunnel]: `threads` is 4, but this version works with one thread; write 1 or leave the key out",
        ],
    );
}

#[test]
fn an_fwmark_out_of_range_is_refused() {
    refuses(
        &[("mtu         = 1420", "fwmark      = 0x1_0000_0000")],
        &["13:15: [tunnel]: `fwmark` is 4294967296, out of range; write 0 to 4294967295"],
    );
}

#[test]
fn listen_port_0_is_refused_on_the_gateway() {
    refuses(
        &[("listen_port = 51820", "listen_port = 0")],
        &["12:15: [tunnel]: `listen_port` is 0, out of range; write 1 to 65535"],
    );
}

#[test]
fn malformed_interface_names_are_refused() {
    refuses(
        &[
            (r#"interface   = "edge0""#, r#"interface   = "edge/0""#),
            (
                r#"interface = "eth0" "#,
                r#"interface = "an-interface-name""#,
            ),
        ],
        &[
            "6:13: [wan]: an interface name has at most 15 bytes",
            "10:15: [tunnel]: an interface name is made of letters, digits, '-', '_' and '.'",
        ],
    );
}

#[test]
fn reserved_interface_names_are_refused() {
    refuses(
        &[(r#"interface   = "edge0""#, r#"interface   = "all""#)],
        &[r#"10:15: [tunnel]: `all` can't be the tunnel's name; write for example "edge0""#],
    );
}

#[test]
fn wan_and_tunnel_are_different_links() {
    refuses(
        &[(r#"interface = "eth0" "#, r#"interface = "edge0" "#)],
        &[
            "10:15: `edge0` is the interface of [wan] and of [tunnel]; the tunnel makes a link of its own, name it differently",
        ],
    );
}

#[test]
fn a_tunnel_address_without_network_is_refused() {
    refuses(
        &[(r#""10.17.0.1/16""#, r#""10.17.0.1""#)],
        &[
            r#"11:15: [tunnel]: 10.17.0.1 alone leaves no address for peers; write the tunnel network's length, e.g. "10.17.0.1/16""#,
        ],
    );
}

#[test]
fn a_tunnel_address_that_is_the_network_is_refused() {
    refuses(
        &[(r#""10.17.0.1/16""#, r#""10.17.0.0/16""#)],
        &[
            "11:15: [tunnel]: 10.17.0.0 is not an address of a host in 10.17.0.0/16; take another one",
        ],
    );
}

#[test]
fn two_tunnel_addresses_of_one_family_are_refused() {
    refuses(
        &[(r#""10.17.0.1/16""#, r#"["10.17.0.1/16", "10.18.0.1/16"]"#)],
        &[
            "11:32: [tunnel]: `address` already has an IPv4 entry; there can be one IPv4 and one IPv6 entry",
        ],
    );
}

#[test]
fn an_endpoint_inside_the_tunnel_is_refused() {
    refuses(
        &[(r#""203.0.113.10:51820" "#, r#""10.17.9.9:51820" "#)],
        &[
            "7:13: [wan]: 10.17.9.9 is inside 10.17.0.0/16, which is reached through the tunnel; write the gateway's public address",
        ],
    );
}
