//! Which peer owns an address: longest prefix match over the allowed IPs of all peers, asked with the destination of
//! outbound and with the source of inbound packets.
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::peer_table::PeerSlot;

/// The allowed IPs of a device; every network has one owner.
#[derive(Debug)]
pub(super) struct AllowedIps {
    ipv4: Trie,
    ipv6: Trie,
    /// Answers of late, by address; emptied by every change.
    cache: [Option<(IpAddr, Option<PeerSlot>)>; CACHE_LEN],
    cache_is_empty: bool,
}

/// Who has a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) peer: PeerSlot,
    /// Place of the network in the peer's own list.
    pub(super) sequence: u64,
}

/// A power of two; at most as many destinations are looked up without the trie.
const CACHE_LEN: usize = 64;

impl AllowedIps {
    pub(super) const fn new() -> Self {
        Self {
            ipv4: Trie::new(),
            ipv6: Trie::new(),
            cache: [None; CACHE_LEN],
            cache_is_empty: true,
        }
    }

    /// The peer with the longest network that contains the address.
    pub(super) fn peer_of(&mut self, address: IpAddr) -> Option<PeerSlot> {
        let place = cache_place(address);
        if let Some(&Some((cached, peer))) = self.cache.get(place) {
            if cached == address {
                return peer;
            }
        }
        let owner = match address {
            IpAddr::V4(address) => self.ipv4.longest_match(left_aligned(address.into())),
            IpAddr::V6(address) => self.ipv6.longest_match(address.into()),
        };
        let peer = owner.map(|owner| owner.peer);
        if let Some(entry) = self.cache.get_mut(place) {
            *entry = Some((address, peer));
            self.cache_is_empty = false;
        }
        peer
    }

    /// The owner of exactly this network.
    pub(super) fn owner_of(&self, network: IpNetwork) -> Option<Owner> {
        let (trie, key) = match network {
            IpNetwork::V4(_) => (&self.ipv4, Key::of(network)),
            IpNetwork::V6(_) => (&self.ipv6, Key::of(network)),
        };
        trie.get(key)
    }

    /// Give a network to a peer; returns who had it.
    pub(super) fn insert(&mut self, network: IpNetwork, owner: Owner) -> Option<Owner> {
        self.forget_answers();
        self.trie_mut(network).insert(Key::of(network), owner)
    }

    /// Take a network away; returns who had it.
    pub(super) fn remove(&mut self, network: IpNetwork) -> Option<Owner> {
        self.forget_answers();
        self.trie_mut(network).remove(Key::of(network))
    }

    fn trie_mut(&mut self, network: IpNetwork) -> &mut Trie {
        match network {
            IpNetwork::V4(_) => &mut self.ipv4,
            IpNetwork::V6(_) => &mut self.ipv6,
        }
    }

    fn forget_answers(&mut self) {
        if !self.cache_is_empty {
            self.cache = [None; CACHE_LEN];
            self.cache_is_empty = true;
        }
    }
}

fn cache_place(address: IpAddr) -> usize {
    let low = match address {
        IpAddr::V4(address) => u32::from(address),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low bits are what is wanted"
        )]
        IpAddr::V6(address) => u128::from(address) as u32,
    };
    (low ^ (low >> 8)) as usize % CACHE_LEN
}

fn left_aligned(ipv4: u32) -> u128 {
    u128::from(ipv4) << 96
}

/// The first `length` bits of an address, the rest zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    bits: u128,
    length: u8,
}

impl Key {
    fn of(network: IpNetwork) -> Self {
        let bits = match network {
            IpNetwork::V4(network) => left_aligned(network.ip().into()),
            IpNetwork::V6(network) => network.ip().into(),
        };
        Self::new(bits, network.prefix())
    }

    fn new(bits: u128, length: u8) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Self {
            bits: bits & mask,
            length,
        }
    }

    fn contains(self, bits: u128) -> bool {
        Self::new(bits, self.length).bits == self.bits
    }

    /// The longest key that contains both.
    fn common(self, other: Self) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "at most 128")]
        let equal = (self.bits ^ other.bits).leading_zeros() as u8;
        Self::new(self.bits, equal.min(self.length).min(other.length))
    }

    /// On which side of a node of this length an address stands.
    fn side(self, bits: u128) -> usize {
        usize::from((bits << self.length) >> 127 == 1)
    }
}

/// A path-compressed binary trie in one vector. A node without owner always has two children.
#[derive(Debug)]
struct Trie {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
}

#[derive(Debug)]
struct Node {
    key: Key,
    owner: Option<Owner>,
    children: [u32; 2],
}

/// The place of no node.
const NONE: u32 = u32::MAX;

/// Where the number of a node is kept.
#[derive(Debug, Clone, Copy)]
enum Link {
    Root,
    Child { parent: u32, side: usize },
}

impl Trie {
    const fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NONE,
        }
    }

    fn longest_match(&self, bits: u128) -> Option<Owner> {
        let mut best = None;
        let mut next = self.root;
        while let Some(node) = self.node(next) {
            if !node.key.contains(bits) {
                break;
            }
            best = node.owner.or(best);
            if node.key.length == 128 {
                break;
            }
            next = child(node, node.key.side(bits));
        }
        best
    }

    fn get(&self, key: Key) -> Option<Owner> {
        let (_, place) = self.descend(key);
        self.node(place).filter(|node| node.key == key)?.owner
    }

    fn insert(&mut self, key: Key, owner: Owner) -> Option<Owner> {
        let (link, place) = self.descend(key);
        let Some(found) = self.node(place).map(|node| node.key) else {
            let leaf = self.allocate(key, Some(owner));
            self.set(link, leaf);
            return None;
        };
        if found == key {
            return self.node_mut(place)?.owner.replace(owner);
        }
        // The node found covers only a part of what is to be inserted, or differs from it: a node goes between.
        let common = key.common(found);
        let between = if common == key {
            self.allocate(key, Some(owner))
        } else {
            let leaf = self.allocate(key, Some(owner));
            let fork = self.allocate(common, None);
            self.set_child(fork, common.side(key.bits), leaf);
            fork
        };
        self.set_child(between, common.side(found.bits), place);
        self.set(link, between);
        None
    }

    fn remove(&mut self, key: Key) -> Option<Owner> {
        let (link, place) = self.descend(key);
        let node = self.node_mut(place).filter(|node| node.key == key)?;
        let owner = node.owner.take()?;
        self.splice_out(link, place);
        if let Link::Child { parent, .. } = link {
            let parent_key = self.node(parent)?.key;
            let (link, _) = self.descend(parent_key);
            self.splice_out(link, parent);
        }
        Some(owner)
    }

    /// Go down to the node of this key, or to the first one that doesn't contain it, or to an empty place.
    fn descend(&self, key: Key) -> (Link, u32) {
        let mut link = Link::Root;
        let mut place = self.root;
        while let Some(node) = self.node(place) {
            if node.key.length >= key.length || !node.key.contains(key.bits) {
                break;
            }
            let side = node.key.side(key.bits);
            link = Link::Child {
                parent: place,
                side,
            };
            place = child(node, side);
        }
        (link, place)
    }

    /// Remove a node that has neither owner nor two children.
    fn splice_out(&mut self, link: Link, place: u32) {
        let Some(node) = self.node(place) else { return };
        let (None, [NONE, successor] | [successor, NONE]) = (node.owner, node.children) else {
            return;
        };
        self.set(link, successor);
        self.free.push(place);
    }

    fn allocate(&mut self, key: Key, owner: Option<Owner>) -> u32 {
        let node = Node {
            key,
            owner,
            children: [NONE; 2],
        };
        if let Some(place) = self.free.pop() {
            if let Some(unused) = self.node_mut(place) {
                *unused = node;
                return place;
            }
        }
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("memory ends before 2^32 networks")
    }

    fn node(&self, place: u32) -> Option<&Node> {
        self.nodes.get(place as usize)
    }

    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.nodes.get_mut(place as usize)
    }

    fn set(&mut self, link: Link, place: u32) {
        match link {
            Link::Root => self.root = place,
            Link::Child { parent, side } => self.set_child(parent, side, place),
        }
    }

    fn set_child(&mut self, parent: u32, side: usize, place: u32) {
        if let Some(child) = self
            .node_mut(parent)
            .and_then(|node| node.children.get_mut(side))
        {
            *child = place;
        }
    }
}

fn child(node: &Node, side: usize) -> u32 {
    node.children.get(side).copied().unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn owner(peer: u32) -> Owner {
        Owner {
            peer: PeerSlot::new(peer),
            sequence: 0,
        }
    }

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_network_wins_and_removal_uncovers_the_shorter_one() {
        let mut table = AllowedIps::new();
        table.insert(network("0.0.0.0/0"), owner(1));
        table.insert(network("10.0.0.0/8"), owner(2));
        table.insert(network("10.1.2.3/32"), owner(3));
        table.insert(network("::/0"), owner(4));
        let peer = |table: &mut AllowedIps, address: &str| {
            table.peer_of(address.parse().unwrap()).map(PeerSlot::get)
        };
        assert_eq!(peer(&mut table, "192.0.2.1"), Some(1));
        assert_eq!(peer(&mut table, "10.1.2.4"), Some(2));
        assert_eq!(peer(&mut table, "10.1.2.3"), Some(3));
        assert_eq!(peer(&mut table, "2001:db8::1"), Some(4));
        assert_eq!(table.remove(network("10.1.2.3/32")), Some(owner(3)));
        assert_eq!(peer(&mut table, "10.1.2.3"), Some(2));
        assert_eq!(table.remove(network("0.0.0.0/0")), Some(owner(1)));
        assert_eq!(peer(&mut table, "192.0.2.1"), None);
        assert_eq!(table.remove(network("0.0.0.0/0")), None);
    }

    #[test]
    fn an_emptied_table_keeps_no_node() {
        let mut table = AllowedIps::new();
        let networks: Vec<IpNetwork> = (0..65_536_u32)
            .map(|number| IpNetwork::new(Ipv4Addr::from(number << 8).into(), 24).unwrap())
            .collect();
        for &network in &networks {
            assert_eq!(table.insert(network, owner(1)), None);
        }
        for &network in &networks {
            assert_eq!(table.remove(network), Some(owner(1)));
        }
        assert_eq!(table.ipv4.root, NONE);
        assert_eq!(table.ipv4.free.len(), table.ipv4.nodes.len());
    }

    /// Addresses that share long prefixes, so that networks nest and fork at every depth.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u8..4, 0_u8..3, any::<u8>())
                .prop_map(|(a, b, c)| Ipv4Addr::new(10, a, b << 6, c).into()),
            (0_u16..4, any::<u8>()).prop_map(|(a, b)| Ipv6Addr::new(
                0x2001,
                a << 14,
                0,
                0,
                0,
                0,
                a,
                b.into()
            )
            .into()),
        ]
    }

    fn any_network() -> impl Strategy<Value = IpNetwork> {
        (address(), 0_u8..=128).prop_map(|(address, length)| {
            let length = if address.is_ipv4() {
                length / 4
            } else {
                length
            };
            let network = IpNetwork::new(address, length).unwrap();
            IpNetwork::new(network.network(), length).unwrap()
        })
    }

    fn naive(model: &BTreeMap<IpNetwork, Owner>, address: IpAddr) -> Option<PeerSlot> {
        model
            .iter()
            .filter(|(network, _)| network.contains(address))
            .max_by_key(|(network, _)| network.prefix())
            .map(|(_, owner)| owner.peer)
    }

    proptest! {
        #[test]
        fn table_agrees_with_a_linear_search(
            steps in prop::collection::vec((any_network(), 0_u32..5, any::<bool>()), 1..80),
            questions in prop::collection::vec(address(), 20),
        ) {
            let mut table = AllowedIps::new();
            let mut model = BTreeMap::new();
            for (network, peer, remove) in steps {
                let before = if remove {
                    prop_assert_eq!(table.owner_of(network), model.get(&network).copied());
                    (table.remove(network), model.remove(&network))
                } else {
                    (table.insert(network, owner(peer)), model.insert(network, owner(peer)))
                };
                prop_assert_eq!(before.0, before.1);
                for &question in &questions {
                    prop_assert_eq!(table.peer_of(question), naive(&model, question));
                    prop_assert_eq!(table.peer_of(question), naive(&model, question), "cached");
                }
            }
            for trie in [&table.ipv4, &table.ipv6] {
                let networks = trie.nodes.len() - trie.free.len();
                prop_assert!(networks <= 2 * model.len(), "{} nodes", networks);
            }
        }
    }
}
