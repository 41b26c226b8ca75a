//! Publishes, roles, sets and the admin API of `gateway.toml`.
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
fn ports_out_of_range_are_refused() {
    refuses(
        &[(
            "ports     = [80, 443]",
            r#"ports     = [0, 70000, -1, 99999999999999999999, "65536", "8443:0"]"#,
        )],
        &[
            r#"28:14: publish "ingress": port 0 is out of range; ports are 1 to 65535"#,
            r#"28:17: publish "ingress": port 70000 is out of range; ports are 1 to 65535"#,
            r#"28:24: publish "ingress": port -1 is out of range; ports are 1 to 65535"#,
            r#"28:28: publish "ingress": port 99999999999999999999 is out of range; ports are 1 to 65535"#,
            r#"28:50: publish "ingress": port 65536 is out of range; ports are 1 to 65535"#,
            r#"28:59: publish "ingress": port 0 is out of range; ports are 1 to 65535"#,
        ],
    );
}

#[test]
fn malformed_ports_are_refused() {
    refuses(
        &[(
            "ports     = [80, 443]",
            r#"ports     = ["http", "80-", "", "1:2:3", true]"#,
        )],
        &[
            r#"28:14: publish "ingress": "http" is not a port; write a number, "30000-30100" or "8443:443" (listen:target)"#,
            r#"28:22: publish "ingress": "80-" is not a port; write a number, "30000-30100" or "8443:443" (listen:target)"#,
            r#"28:29: publish "ingress": "" is not a port; write a number, "30000-30100" or "8443:443" (listen:target)"#,
            r#"28:33: publish "ingress": "1:2:3" is not a port; write a number, "30000-30100" or "8443:443" (listen:target)"#,
            r#"28:42: publish "ingress": each entry of `ports` has to be an integer or a string, but this is a boolean"#,
        ],
    );
}

#[test]
fn a_reversed_port_range_is_refused() {
    refuses(
        &[("ports     = [80, 443]", r#"ports     = ["30100-30000"]"#)],
        &[r#"28:14: publish "ingress": the range 30100-30000 runs backwards; write 30000-30100"#],
    );
}

#[test]
fn mapping_a_port_range_is_refused() {
    refuses(
        &[(
            "ports     = [80, 443]",
            r#"ports     = ["30000-30100:40000-40100"]"#,
        )],
        &[
            r#"28:14: publish "ingress": "30000-30100:40000-40100" maps a range, which is not possible; publish the range as it is ("30000-30100") or map single ports"#,
        ],
    );
}

#[test]
fn empty_ports_are_refused() {
    refuses(
        &[("ports     = [80, 443]", "ports     = []")],
        &[r#"28:13: publish "ingress": `ports` is empty; it needs at least one entry"#],
    );
}

#[test]
fn listen_ports_of_two_publishes_do_not_overlap() {
    refuses(
        &[(
            "tokens = true\n",
            r#"tokens = true

[[publish]]
name = "other"
vip = "10.17.5.30"
protocol = "tcp"
ports = ["400-500"]
allow = ["office"]
"#,
        )],
        &[
            r#"53:10: publish "other": IPv4 port 400-500/tcp is already taken by publish "ingress" on line 28; take another one"#,
        ],
    );
}

#[test]
fn a_listen_port_inside_a_wide_range_is_found_behind_others() {
    refuses(
        &[(
            "ports     = [80, 443]",
            r#"ports     = ["1000-2000", 1100, 1500]"#,
        )],
        &[
            r#"28:27: publish "ingress": IPv4 port 1100/tcp is already taken by publish "ingress" on line 28; take another one"#,
            r#"28:33: publish "ingress": IPv4 port 1500/tcp is already taken by publish "ingress" on line 28; take another one"#,
        ],
    );
}

#[test]
fn publishing_the_tunnels_own_port_is_refused() {
    refuses(
        &[(
            "tokens = true\n",
            r#"tokens = true

[[publish]]
name = "other"
vip = "10.17.5.30"
protocol = "udp"
ports = ["51000-52000"]
allow = ["office"]
"#,
        )],
        &[
            r#"53:10: publish "other": port 51820/udp is the tunnel's own `listen_port`; publish another one"#,
        ],
    );
}

#[test]
fn a_vip_outside_every_lan_network_is_refused() {
    refuses(
        &[(r#"vip       = "10.17.5.30""#, r#"vip       = "10.17.6.30""#)],
        &[
            r#"26:13: publish "ingress": 10.17.6.30 is in no network of a LAN server (10.17.3.0/24, 10.17.4.0/24, 10.17.5.0/24); correct it or add its network to `networks`"#,
        ],
    );
}

#[test]
fn a_vip_that_is_a_tunnel_address_is_refused() {
    refuses(
        &[(r#"vip       = "10.17.5.30""#, r#"vip       = "10.17.0.2""#)],
        &[
            r#"26:13: publish "ingress": 10.17.0.2 is the tunnel address of lan_server "home"; a VIP is an address behind a LAN server"#,
        ],
    );
}

#[test]
fn a_vip_is_left_alone_while_a_lan_network_is_unreadable() {
    refuses(
        &[
            (r#"vip       = "10.17.5.30""#, r#"vip       = "10.17.6.30""#),
            (r#""10.17.3.0/24", "10.17.4.0/24""#, r#""x""#),
        ],
        &[
            r#"22:15: lan_server "home": "x" is not a network; write address/length, e.g. "10.17.3.0/24""#,
        ],
    );
}

#[test]
fn a_vip_that_no_host_can_have_is_refused() {
    refuses(
        &[(r#"vip       = "10.17.5.30""#, r#"vip       = "224.0.0.1""#)],
        &[
            r#"26:13: publish "ingress": 224.0.0.1 is a multicast address; no host can be reached there from another"#,
        ],
    );
}

#[test]
fn masquerading_an_ipv6_vip_needs_an_ipv6_tunnel_address() {
    refuses(
        &[
            (r#"vip       = "10.17.5.30""#, r#"vip       = "fd00:5::30""#),
            (r#""10.17.4.0/24""#, r#""fd00:5::/64""#),
            (r#"source_ip = "preserve"  "#, r#"source_ip = "masquerade""#),
        ],
        &[
            r#"30:13: publish "ingress": the VIP is IPv6, but the tunnel has no IPv6 address to masquerade with; add one to `address` of [tunnel] or preserve the source"#,
        ],
    );
}

#[test]
fn an_unknown_source_ip_mode_is_refused() {
    refuses(
        &[
            (r#"source_ip = "preserve"  "#, r#"source_ip = "keep""#),
            (r#"protocol  = "tcp" "#, r#"protocol  = "sctp""#),
        ],
        &[
            r#"27:13: publish "ingress": "sctp" is not a protocol; write "tcp" or "udp""#,
            r#"30:13: publish "ingress": "keep" is not a source_ip mode; write "preserve", "masquerade" or addresses as "192.168.0.20-192.168.0.23""#,
        ],
    );
}

#[test]
fn addresses_that_stand_for_callers_are_the_lan_hosts() {
    refuses(
        &[(r#"source_ip = "preserve"  "#, r#"source_ip = "10.17.0.1""#)],
        &[
            r#"30:13: publish "ingress": the LAN host has addresses that stand for callers; write "preserve" here, and them in its lan-server.toml"#,
        ],
    );
}

#[test]
fn an_unknown_set_names_the_nearest_known_one() {
    refuses(
        &[(r#"allow     = ["cloudflare"]"#, r#"allow     = ["ofice"]"#)],
        &[r#"29:14: publish "ingress": there is no set "ofice"; did you mean "office"?"#],
    );
}

#[test]
fn an_unknown_set_that_resembles_nothing_lists_the_known_ones() {
    refuses(
        &[(
            r#"allow     = ["cloudflare"]"#,
            r#"allow     = ["partners"]"#,
        )],
        &[
            r#"29:14: publish "ingress": there is no set "partners"; add it to [sets], or write one of: office, cloudflare, any"#,
        ],
    );
}

#[test]
fn a_set_named_twice_is_refused() {
    refuses(
        &[(
            r#"allow     = ["cloudflare"]"#,
            r#"allow     = ["office", "cloudflare", "office"]"#,
        )],
        &[r#"29:38: publish "ingress": the set "office" is named twice; once is enough"#],
    );
}

#[test]
fn empty_allow_is_refused() {
    refuses(
        &[(r#"allow     = ["cloudflare"]"#, "allow     = []")],
        &[r#"29:13: publish "ingress": `allow` is empty; it needs at least one entry"#],
    );
}

#[test]
fn any_beside_others_is_refused() {
    refuses(
        &[(
            r#"allow     = ["cloudflare"]"#,
            r#"allow     = ["any", "cloudflare"]"#,
        )],
        &[
            r#"29:13: publish "ingress": "any" makes the other entries of `allow` meaningless; write either "any" or the others"#,
        ],
    );
}

#[test]
fn everybody_as_a_network_is_refused() {
    refuses(
        &[(
            r#"allow     = ["cloudflare"]"#,
            r#"allow     = ["0.0.0.0/0"]"#,
        )],
        &[
            r#"29:14: publish "ingress": 0.0.0.0/0 is everybody; if that is meant, write "any" as the only entry"#,
        ],
    );
}

#[test]
fn networks_of_one_allow_do_not_overlap() {
    refuses(
        &[(
            r#"allow     = ["cloudflare"]"#,
            r#"allow     = ["198.51.100.64/26", "203.0.113.0/24", "198.51.100.0/24"]"#,
        )],
        &[
            r#"29:52: publish "ingress": 198.51.100.0/24 overlaps 198.51.100.64/26 on line 29; keep one of them"#,
        ],
    );
}

#[test]
fn an_allow_without_the_vips_family_is_refused() {
    refuses(
        &[(
            r#"allow     = ["cloudflare"]"#,
            r#"allow     = ["2001:db8::/32"]"#,
        )],
        &[
            r#"29:13: publish "ingress": the VIP is IPv4, but no IPv4 network is listed here; add one, or nobody gets in"#,
        ],
    );
}

#[test]
fn networks_of_one_set_do_not_overlap() {
    refuses(
        &[(
            r#"office = ["198.51.100.0/24"]"#,
            r#"office = ["198.51.100.0/24", "198.51.100.7"]"#,
        )],
        &[
            r#"37:30: set "office": 198.51.100.7 overlaps 198.51.100.0/24 on line 37; keep one of them"#,
        ],
    );
}

#[test]
fn a_set_called_any_is_refused() {
    refuses(
        &[(
            r#"office = ["198.51.100.0/24"]"#,
            r#"any = ["198.51.100.0/24"]"#,
        )],
        &["37:1: [sets]: `any` is everybody and can't be the name of a set; take another name"],
    );
}

#[test]
fn malformed_sets_are_refused() {
    refuses(
        &[(
            r#"office = ["198.51.100.0/24"]"#,
            r#"office = "198.51.100.0/24"
empty = []"#,
        )],
        &[
            "37:10: [sets]: `office` has to be an array of networks, but this is a string",
            "38:9: [sets]: `empty` is empty; it needs at least one entry",
        ],
    );
}

#[test]
fn a_role_outside_lan_and_tunnel_networks_is_refused() {
    refuses(
        &[(r#""10.17.3.11:53/udp""#, r#""192.168.0.15:22/tcp""#)],
        &[
            r#"34:33: role "kube-admin": 192.168.0.15 is in no LAN network and not in the tunnel network (10.17.3.0/24, 10.17.4.0/24, 10.17.5.0/24, 10.17.0.0/16); correct it or add its network to `networks`"#,
        ],
    );
}

#[test]
fn services_of_a_role_do_not_overlap() {
    refuses(
        &[(r#""10.17.3.11:53/udp""#, r#""10.17.5.0/24:6000-7000/tcp""#)],
        &[
            r#"34:33: role "kube-admin": 10.17.5.0/24:6000-7000/tcp overlaps 10.17.5.10:6443/tcp on line 34; keep one of them"#,
        ],
    );
}

#[test]
fn malformed_services_are_refused() {
    refuses(
        &[(
            r#"allow = ["10.17.5.10:6443/tcp", "10.17.3.11:53/udp"]"#,
            r#"allow = ["10.17.5.10:6443", "10.17.5.10/tcp", "fd00::1:53/udp", "10.17.5.0/24:80", "10.17.5.10:x/tcp", "10.17.5.10:80/icmp", "10.17.5.300:80/tcp", "0.0.0.0/0:80/tcp"]"#,
        )],
        &[
            r#"34:10: role "kube-admin": "10.17.5.10:6443" is not a service; write address:port/protocol, e.g. "10.17.5.10:6443/tcp""#,
            r#"34:29: role "kube-admin": "10.17.5.10/tcp" is not a service; write address:port/protocol, e.g. "10.17.5.10:6443/tcp""#,
            r#"34:47: role "kube-admin": "fd00::1:53/udp" has an IPv6 address without brackets; write "[fd17::10]:6443/tcp""#,
            r#"34:65: role "kube-admin": "10.17.5.0/24:80" is not a service; write address:port/protocol, e.g. "10.17.5.10:6443/tcp""#,
            r#"34:84: role "kube-admin": "x" is neither a port nor a range; write for example 443 or 30000-30100"#,
            r#"34:104: role "kube-admin": "icmp" is not a protocol; write "tcp" or "udp""#,
            r#"34:126: role "kube-admin": "10.17.5.300" is not a network; write address/length, e.g. "10.17.3.0/24""#,
            r#"34:148: role "kube-admin": 0.0.0.0/0 is the whole internet; name the networks that are meant"#,
        ],
    );
}

#[test]
fn an_unknown_role_of_a_peer_names_the_nearest_known_one() {
    refuses(
        &[(r#"role = "kube-admin""#, r#"role = "kubeadmin""#)],
        &[r#"43:8: peer "alice": there is no role "kubeadmin"; did you mean "kube-admin"?"#],
    );
}

#[test]
fn an_unknown_role_without_any_role_says_how_to_add_it() {
    refuses(
        &[(
            r#"[[role]]                             # what tunnel peers may reach; nothing by default
name  = "kube-admin"
allow = ["10.17.5.10:6443/tcp", "10.17.3.11:53/udp"]"#,
            "",
        )],
        &[r#"41:8: peer "alice": there is no role "kube-admin"; add a [[role]] with that name"#],
    );
}

#[test]
fn an_admin_listener_outside_the_tunnel_is_refused() {
    refuses(
        &[(r#""10.17.0.1:8443""#, r#""0.0.0.0:8443""#)],
        &[
            r#"46:10: [admin]: 0.0.0.0 is not our address in the tunnel, and the admin API is never offered elsewhere; write "10.17.0.1:8443""#,
        ],
    );
}

#[test]
fn a_malformed_admin_listener_is_refused() {
    refuses(
        &[(r#""10.17.0.1:8443""#, r#""8443""#)],
        &[
            r#"46:10: [admin]: "8443" is not address:port with a port from 1 to 65535; write for example "10.17.0.1:8443""#,
        ],
    );
}

#[test]
fn an_admin_listener_that_a_role_allows_is_no_doubt() {
    let allowed = r#"allow = ["10.17.0.0/24:8440-8450/tcp", "#;
    let text = edited(
        GATEWAY,
        &[(
            "allow = [\"10.17.5.10:6443",
            &format!("{allowed}\"10.17.5.10:6443"),
        )],
    );
    let warnings = Gateway::parse(&text, "F").unwrap().warnings;
    assert!(
        !lines(&warnings).iter().any(|line| line.contains("[admin]")),
        "{warnings:?}"
    );
}

#[test]
fn admin_without_tokens_is_doubtful() {
    doubts(
        &[("tokens = true", "tokens = false")],
        &[
            "47:10: [admin]: without tokens every peer that reaches 10.17.0.1:8443 manages this gateway",
        ],
    );
}

#[test]
fn publishing_to_everybody_is_doubtful() {
    doubts(
        &[(r#"allow     = ["cloudflare"]"#, r#"allow     = ["any"]"#)],
        &[r#"29:13: publish "ingress": open to everybody, not only through Cloudflare"#],
    );
}

#[test]
fn publishing_the_kubernetes_api_to_everybody_is_doubtful() {
    doubts(
        &[
            (r#"allow     = ["cloudflare"]"#, r#"allow     = ["any"]"#),
            ("[80, 443]", "[443, 6443]"),
        ],
        &[
            r#"29:13: publish "ingress": port 6443 (the Kubernetes API) is open to everybody; a role gives it to tunnel peers only"#,
        ],
    );
}

#[test]
fn a_port_that_cloudflare_does_not_forward_is_doubtful() {
    doubts(
        &[("[80, 443]", "[443, 6443]")],
        &[
            r#"28:19: publish "ingress": Cloudflare forwards to port 6443 only where an Origin Rule or Spectrum says so"#,
        ],
    );
}

#[test]
fn udp_through_cloudflare_is_doubtful() {
    doubts(
        &[(r#"protocol  = "tcp" "#, r#"protocol  = "udp" "#)],
        &[
            r#"29:13: publish "ingress": Cloudflare's proxy never forwards UDP, so nobody can call this; list who may"#,
        ],
    );
}

#[test]
fn a_vip_on_the_last_address_of_its_network_is_refused() {
    refuses(
        &[(
            r#"vip       = "10.17.5.30""#,
            r#"vip       = "10.17.5.255""#,
        )],
        &[
            r#"26:13: publish "ingress": 10.17.5.255 is not an address of a host in 10.17.5.0/24; correct it"#,
        ],
    );
}

#[test]
fn a_set_with_a_bad_name_is_not_unknown_as_well() {
    refuses(
        &[
            (
                r#"office = ["198.51.100.0/24"]"#,
                r#""our.office" = ["198.51.100.0/24"]"#,
            ),
            (r#"allow     = ["cloudflare"]"#, r#"allow     = ["office"]"#),
        ],
        &[
            r#"37:1: [sets]: "our.office" is not a name; names have 1 to 63 letters, digits, '_' or '-'"#,
        ],
    );
}
