//! Facts about claims.
use super::*;

const FILE: &str = r#"
[wan]
interface = "eth0"
endpoint  = "203.0.113.10:51820"
[tunnel]
address = ["10.17.0.1/16", "fd17::1/64"]
[[lan_server]]
name       = "home"
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
address    = "10.17.0.2"
networks   = ["10.17.5.0/24"]
[[role]]
name  = "kube-admin"
allow = ["10.17.5.10:6443/tcp"]
[[peer]]
name       = "alice"
public_key = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
address    = "10.17.0.10"
role       = "kube-admin"
"#;

fn claims() -> Claims {
    Claims::of(
        &Gateway::parse(FILE, "gateway.toml").unwrap().config,
        &LanServers::new(),
    )
}

fn refused(name: &str, key: &str, addresses: &[&str], networks: &[&str]) -> Vec<Field> {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let networks: Vec<IpNetwork> = networks.iter().map(|n| n.parse().unwrap()).collect();
    let claim = Claim {
        name,
        public_key: &key.parse().unwrap(),
        next_public_key: None,
        addresses: &addresses,
        networks: &networks,
    };
    let refusals = claims().against(&claim);
    refusals.into_iter().map(|refusal| refusal.field).collect()
}

const NEW: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const ALICE: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

#[test]
fn what_nobody_has_is_granted() {
    let addresses = ["10.17.0.11", "fd17::11"];
    let networks = ["192.168.50.0/24", "10.17.9.0/24", "fd50::/48"];
    assert_eq!(refused("bob", NEW, &addresses, &networks), []);
}

#[test]
fn what_the_file_has_is_refused_at_its_place() {
    assert_eq!(refused("alice", NEW, &[], &[]), [Field::Name]);
    assert_eq!(
        refused("home", ALICE, &[], &[]),
        [Field::Name, Field::PublicKey]
    );
    for address in [
        "10.17.0.1",     // the gateway
        "10.17.0.2",     // the LAN server
        "10.17.0.10",    // alice
        "10.17.5.10",    // a VIP
        "10.17.0.0",     // the network
        "10.17.255.255", // its broadcast
        "192.0.2.7",     // foreign
        "fd17::",
        "fd18::1",
    ] {
        let fields = refused("bob", NEW, &["10.17.0.11", address], &[]);
        assert_eq!(fields, [Field::Address(1)], "{address}");
    }
    for network in [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/8",
        "10.17.0.0/16",
        "10.17.0.0/24",   // the gateway, the LAN server
        "10.17.5.10/32",  // a VIP
        "10.17.4.0/22",   // a LAN network
        "203.0.113.0/24", // where peers dial to
        "127.0.0.0/8",
        "224.0.0.0/8",
        "169.254.0.0/16",
        "fe80::/16",
        "fd17::/64",
        "8.8.8.8/32",      // a public resolver
        "173.245.48.0/20", // Cloudflare
        "169.0.0.0/8",     // link-local addresses among others
        "172.16.0.0/11",   // private only in part
        "2606:4700::/32",
    ] {
        let fields = refused("bob", NEW, &[], &[network]);
        assert_eq!(fields, [Field::Network(0)], "{network}");
    }
}

#[test]
fn a_network_of_a_family_that_the_tunnel_lacks_is_refused() {
    let file = FILE.replace("[\"10.17.0.1/16\", \"fd17::1/64\"]", "\"10.17.0.1/16\"");
    let claims = Claims::of(
        &Gateway::parse(&file, "gateway.toml").unwrap().config,
        &LanServers::new(),
    );
    let claim = Claim {
        name: "bob",
        public_key: &NEW.parse().unwrap(),
        next_public_key: None,
        addresses: &[],
        networks: &["fd50::/48".parse().unwrap()],
    };
    let refusals = claims.against(&claim);
    assert!(refusals[0].detail.contains("family"), "{refusals:?}");
}
