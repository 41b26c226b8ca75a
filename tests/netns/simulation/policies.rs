//! Random policies, as the text of a configuration file, and packets for which they may have something to say.
use std::net::IpAddr;
use std::sync::Arc;

use gateway::members::{Member, PeerModels};
use ipnetwork::IpNetwork;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use shared::config::common::Protocol;
use shared::config::policy_test::Target;
use shared::model::PublicKey;
use shared::simulate::Packet;

/// How many packets a policy gets at most.
pub(super) const PACKETS: usize = 500;
/// Source port of the first packet; the others count up, so that each opens a connection of its own.
const FIRST_PORT: u16 = 20_000;

/// A packet on its way in.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) link: &'static str,
    pub(super) packet: Packet,
}

/// A policy and its packets.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) text: Text,
    /// Peers of the API.
    pub(super) members: Vec<Arc<Member>>,
    pub(super) packets: Vec<Sent>,
}

/// A file, which a failure shows as it is.
#[derive(Clone)]
pub(super) struct Text(String);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\n{}", self.0)
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What the addresses of packets are taken from, for one family.
#[derive(Debug)]
struct Pool {
    sources: &'static [&'static str],
    destinations: &'static [&'static str],
    /// What policies below may let somebody reach.
    services: &'static [&'static str],
}

const GATEWAY_POOLS: [Pool; 2] = [
    Pool {
        sources: &[
            "198.51.100.7",  // office
            "192.0.2.70",    // named in an entry
            "173.245.48.10", // Cloudflare
            "8.8.8.8",       // nobody
            "203.0.113.10",  // the gateway's own
            "10.17.0.1",     // likewise
            "10.17.0.2",     // the LAN server
            "10.17.0.10",    // peers of the file
            "10.17.0.11",
            "10.17.0.12",
            "10.17.0.50", // peers of the API
            "10.17.0.51",
            "172.16.9.4", // a network behind one
            "10.17.8.5",  // likewise, in the tunnel network
            "10.17.0.99", // nobody in the tunnel network
            "10.17.5.30", // a VIP
        ],
        destinations: &[
            "203.0.113.10",
            "203.0.113.10",
            "203.0.113.10",
            "10.17.0.1",
            "10.17.5.30",
            "10.17.3.31",
            "192.168.7.9",
            "10.17.5.10",
            "10.17.3.11",
            "10.17.0.10",
            "10.17.0.50",
            "172.16.9.4",
            "8.8.8.8",
        ],
        services: &[
            "203.0.113.10:80/tcp",
            "203.0.113.10:80/udp",
            "203.0.113.10:443/tcp",
            "203.0.113.10:505/tcp",
            "203.0.113.10:1443/udp",
            "203.0.113.10:2080/tcp",
            "203.0.113.10:3505/tcp",
            "10.17.5.10:6443/tcp",
            "10.17.3.11:53/udp",
            "10.17.5.10:8005/tcp",
            "10.17.3.31:443/tcp",
            "10.17.0.1:8443/tcp",
            "10.17.0.10:22/tcp",
        ],
    },
    Pool {
        sources: &[
            "2001:db8:51::7",
            "2400:cb00::10",
            "2001:db8:99::1",
            "2001:db8:113::10",
            "fd17::1",
            "fd17::2",
            "fd17::10",
            "fd17::11",
            "fd17::99",
            "fd17:5::30",
        ],
        destinations: &[
            "2001:db8:113::10",
            "2001:db8:113::10",
            "fd17::1",
            "fd17:5::30",
            "fd17:5::10",
            "fd17::10",
            "2001:db8:99::1",
        ],
        services: &[
            "[2001:db8:113::10]:80/tcp",
            "[2001:db8:113::10]:443/udp",
            "[2001:db8:113::10]:1080/tcp",
            "[2001:db8:113::10]:2505/udp",
            "[fd17:5::10]:443/tcp",
            "[fd17:5::30]:53/udp",
            "[fd17::1]:22/tcp",
        ],
    },
];

const LAN_POOLS: [Pool; 2] = [
    Pool {
        sources: &[
            "198.51.100.7",
            "192.0.2.70",
            "173.245.48.10",
            "8.8.8.8",
            "10.17.0.1",  // the gateway
            "10.17.0.10", // peers
            "10.17.0.11",
            "10.17.0.2",  // the LAN server's own
            "10.17.5.1",  // likewise
            "10.17.5.77", // hosts of the LAN
            "10.17.3.8",
            "192.168.0.9",
            "172.16.9.4", // nobody who could be public
        ],
        destinations: &[
            "10.17.5.30",
            "10.17.5.30",
            "10.17.3.31",
            "10.17.5.1",
            "10.17.5.10",
            "10.17.3.11",
            "192.168.0.20",
            "10.17.0.2",
            "10.17.0.1",
            "10.17.0.10",
            "10.17.9.9",
            "8.8.8.8",
        ],
        services: &[
            "10.17.5.30:80/tcp",
            "10.17.5.30:443/udp",
            "10.17.3.31:443/tcp",
            "10.17.3.31:505/tcp",
            "10.17.5.1:80/tcp",
            "10.17.5.10:6443/tcp",
            "10.17.3.11:53/udp",
            "10.17.5.10:8005/tcp",
        ],
    },
    Pool {
        sources: &[
            "2001:db8:51::7",
            "2400:cb00::10",
            "2001:db8:99::1",
            "fd17::1",
            "fd17::10",
            "fd17:5::77",
            "fd17:5::1",
        ],
        destinations: &[
            "fd17:5::30",
            "fd17:5::10",
            "fd17:5::1",
            "fd17::2",
            "fd17::1",
            "2001:db8:99::1",
        ],
        services: &[
            "[fd17:5::30]:80/tcp",
            "[fd17:5::30]:443/udp",
            "[fd17:5::10]:443/tcp",
            "[fd17:5::10]:53/udp",
        ],
    },
];

/// Ports that services of a gateway have, and some that none has.
const GATEWAY_PORTS: [u16; 14] = [
    22, 53, 80, 443, 505, 1080, 1443, 1505, 2080, 2443, 6443, 8005, 8443, 51820,
];
/// Likewise of a LAN server.
const LAN_PORTS: [u16; 8] = [53, 80, 443, 505, 6443, 8005, 22, 9];

fn packet(
    pools: &'static [Pool; 2],
    ports: &'static [u16],
    links: &'static [&'static str],
) -> impl Strategy<Value = Sent> {
    // IPv6 is the same rules with other addresses: a third of the packets.
    let pool = prop_oneof![2 => Just(&pools[0]), 1 => Just(&pools[1])];
    (pool, select(links)).prop_flat_map(move |(pool, link)| {
        let protocol = select(vec![Protocol::Tcp, Protocol::Udp]);
        let anything = (select(pool.destinations), select(ports), protocol).prop_map(
            |(address, port, protocol)| Target {
                address: address.parse().unwrap(),
                port,
                protocol,
            },
        );
        let service = select(pool.services).prop_map(|text| text.parse::<Target>().unwrap());
        let to = prop_oneof![1 => anything, 2 => service];
        (select(pool.sources), to).prop_map(move |(from, to)| {
            let from = (from.parse::<IpAddr>().unwrap(), FIRST_PORT);
            Sent {
                link,
                packet: Packet::opening(to.protocol, from, (to.address, to.port)),
            }
        })
    })
}

fn packets(
    pools: &'static [Pool; 2],
    ports: &'static [u16],
    links: &'static [&'static str],
) -> impl Strategy<Value = Vec<Sent>> {
    prop::collection::vec(packet(pools, ports, links), 1..=PACKETS).prop_map(|mut packets| {
        for (sent, port) in packets.iter_mut().zip(FIRST_PORT..) {
            let Packet {
                source,
                destination,
                ..
            } = sent.packet;
            let to = sent.packet.port(shared::plan::ruleset::Side::Destination);
            let protocol = sent.packet.protocol().unwrap();
            sent.packet = Packet::opening(protocol, (source, port), (destination, to.unwrap()));
        }
        packets
    })
}

fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

fn callers() -> impl Strategy<Value = &'static str> {
    select(vec![
        r#"["cloudflare"]"#,
        r#"["office"]"#,
        r#"["office", "192.0.2.64/26", "2400:cb00::/32"]"#,
        r#"["any"]"#,
    ])
}

fn source_ip() -> impl Strategy<Value = &'static str> {
    select(vec!["preserve", "masquerade"])
}

/// The same, or an address of the pools: of one, since which of several the kernel takes nobody can say. IPv4 and IPv6.
fn source_ip_or(pools: [&'static str; 2]) -> impl Strategy<Value = [&'static str; 2]> {
    select(vec![["preserve"; 2], ["masquerade"; 2], pools])
}

/// The one for a VIP.
fn of_family<'a>(vip: &str, [ipv4, ipv6]: [&'a str; 2]) -> &'a str {
    if vip.contains(':') { ipv6 } else { ipv4 }
}

fn services() -> impl Strategy<Value = String> {
    let services = [
        "10.17.5.10:6443/tcp",
        "10.17.3.11:53/udp",
        "10.17.5.0/24:8000-8010/tcp",
        "10.17.3.31:443/tcp",
        "[fd17:5::10]:443/tcp",
        "[fd17:5::/64]:53/udp",
    ];
    subsequence(services.to_vec(), 1..=services.len()).prop_map(|chosen| list(&chosen))
}

fn list(texts: &[&str]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    format!("[{}]", texts.join(", "))
}

/// `[[publish]]` number `index`, which listens where no other does.
fn gateway_publish(index: usize) -> impl Strategy<Value = String> {
    let vip = select(vec![
        "10.17.5.30",
        "10.17.3.31",
        "192.168.7.9",
        "fd17:5::30",
    ]);
    let protocol = select(vec!["tcp", "udp"]);
    (vip, protocol, callers(), source_ip()).prop_map(move |(vip, protocol, allow, source_ip)| {
        let base = index * 1000;
        let [kept, mapped, first, last] = [80, 443, 500, 510].map(|port| base + port);
        format!(
            "[[publish]]\nname = \"p{index}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\n\
             ports = [{kept}, \"{mapped}:443\", \"{first}-{last}\"]\nallow = {allow}\nsource_ip = \"{source_ip}\"\n"
        )
    })
}

fn role(index: usize) -> impl Strategy<Value = String> {
    // The gateway itself, too, and one peer from another.
    let more = subsequence(
        vec![
            "10.17.0.1:8443/tcp",
            "10.17.0.10:22/tcp",
            "[fd17::1]:22/tcp",
        ],
        0..=3,
    );
    (services(), more).prop_map(move |(services, more)| {
        let more = more.iter().flat_map(|service| [", \"", *service, "\""]);
        let more: String = more.collect();
        let services = services.trim_end_matches(']');
        format!("[[role]]\nname = \"r{index}\"\nallow = {services}{more}]\n")
    })
}

fn peer(index: u8) -> impl Strategy<Value = String> {
    prop::option::of(0..2_u8).prop_map(move |role| {
        let role = role.map_or_else(String::new, |role| format!("role = \"r{role}\"\n"));
        let (key, host) = (key(100 + index), 10 + index);
        format!(
            "[[peer]]\nname = \"peer{index}\"\npublic_key = \"{key}\"\naddress = [\"10.17.0.{host}\", \"fd17::{host}\"]\n{role}"
        )
    })
}

fn member(index: u8, network: &'static str) -> impl Strategy<Value = Arc<Member>> {
    (prop::option::of(0..2_u8), any::<bool>()).prop_map(move |(role, has_network)| {
        let network: IpNetwork = network.parse().unwrap();
        let address = format!("10.17.0.{}", 50 + index);
        Arc::new(Member {
            id: "00000000-0000-0000-0000-000000000000".parse().unwrap(),
            name: format!("member{index}"),
            public_key: key(200 + index),
            preshared_key: None,
            addresses: vec![address.parse().unwrap()],
            networks: has_network.then_some(network).into_iter().collect(),
            role: role.map(|role| format!("r{role}")),
            is_invited: false,
            successor: None,
            models: PeerModels::default(),
        })
    })
}

/// Policies of a gateway: `eth0` is its link to the internet.
pub(super) fn gateways() -> impl Strategy<Value = Case> {
    let publishes = [0, 1, 2, 3].map(gateway_publish);
    let roles = [0, 1].map(role);
    let peers = [0, 1, 2].map(peer);
    let members = [(0, "172.16.9.0/24"), (1, "10.17.8.0/24")];
    let members = members.map(|(index, network)| member(index, network));
    let packets = packets(&GATEWAY_POOLS, &GATEWAY_PORTS, &["eth0", "edge0"]);
    (publishes, 0..=4_usize, roles, peers, members, packets).prop_map(
        |(publishes, count, roles, peers, members, packets)| Case {
            text: Text(format!(
                "[wan]\ninterface = \"eth0\"\nendpoint = \"203.0.113.10:51820\"\n\
                 [tunnel]\naddress = [\"10.17.0.1/16\", \"fd17::1/64\"]\n\
                 [[lan_server]]\nname = \"home\"\npublic_key = \"{}\"\naddress = [\"10.17.0.2\", \"fd17::2\"]\n\
                 networks = [\"10.17.3.0/24\", \"10.17.5.0/24\", \"192.168.7.0/24\", \"fd17:5::/64\"]\n\
                 [sets]\noffice = [\"198.51.100.0/24\", \"2001:db8:51::/64\"]\n{}{}{}",
                key(1),
                publishes[..count].concat(),
                roles.concat(),
                peers.concat(),
            )),
            members: members.to_vec(),
            packets,
        },
    )
}

/// `[[publish]]` number `index`, of a VIP of its own.
fn lan_publish(index: usize) -> impl Strategy<Value = String> {
    // The last but one is an address of the host itself.
    const VIPS: [&str; 4] = ["10.17.5.30", "10.17.3.31", "10.17.5.1", "fd17:5::30"];
    let vip = VIPS[index];
    let protocol = select(vec!["tcp", "udp"]);
    let ports = select(vec!["80, 443", "443", "\"500-510\", 80"]);
    let source_ip = source_ip_or(["192.168.0.15", "fd17:5::1"]);
    (protocol, ports, callers(), source_ip).prop_map(move |(protocol, ports, from, source_ip)| {
        let source_ip = of_family(vip, source_ip);
        format!(
            "[[publish]]\nname = \"p{index}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nports = [{ports}]\n\
             from = {from}\nsource_ip = \"{source_ip}\"\n"
        )
    })
}

/// Policies of a LAN server: `lan0` is its link into the LAN.
pub(super) fn lan_servers() -> impl Strategy<Value = Case> {
    let publishes = [0, 1, 2, 3].map(lan_publish);
    let chosen = subsequence(vec![0, 1, 2, 3], 1..=4);
    let access = prop::option::weighted(0.8, (services(), source_ip()));
    let packets = packets(&LAN_POOLS, &LAN_PORTS, &["edge0", "edge0", "lan0"]);
    (publishes, chosen, access, packets).prop_map(|(publishes, chosen, access, packets)| {
        let publishes: String = chosen.into_iter().map(|index: usize| publishes[index].as_str()).collect();
        let access = access.map_or_else(String::new, |(to, source_ip)| {
            format!("[[access]]\nto = {to}\nsource_ip = \"{source_ip}\"\n")
        });
        Case {
            text: Text(format!(
                "[tunnel]\naddress = [\"10.17.0.2/32\", \"fd17::2/128\"]\n\
                 [[gateway]]\nname = \"vps\"\nendpoint = \"203.0.113.10:51820\"\npublic_key = \"{}\"\n\
                 address = [\"10.17.0.1\", \"fd17::1\"]\nnetwork = [\"10.17.0.0/16\", \"fd17::/64\"]\n\
                 [sets]\noffice = [\"198.51.100.0/24\", \"2001:db8:51::/64\"]\n{publishes}{access}",
                key(1),
            )),
            members: Vec::new(),
            packets,
        }
    })
}
