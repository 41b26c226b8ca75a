//! The parts of a rule, each as the instructions that nft makes of it. Every builder's documentation shows the line that
//! `nft list` prints.
//!
//! Family `inet` sees IPv4 and IPv6, so bytes of a header mean something only after a guard: `meta nfproto` before an IP
//! header, `meta l4proto` before a TCP, UDP or ICMP header. nft writes each guard once per rule and hides it in listings;
//! [`Builder`] does the same. One thing it leaves to nft: joining comparisons of neighbouring header fields (`tcp sport 1
//! tcp dport 2`) into one load of both; the rule matches the same packets and lists the same.
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nftnl_sys::libc;
use shared::config::common::{PortRange, Protocol};
use shared::model::InterfaceName;
use shared::plan::ruleset::{AddressRange, Family, Part, Side, merged_ports};

use crate::expr::{Expr, REG_1, REG_2, SetReference};
use crate::set::{SetState, octets};
use crate::sys::COUNTER;

/// `NFT_RT_TCPMSS`: the MSS that the route's MTU leaves room for.
const RT_TCP_MSS: u32 = 3;
/// `NFT_FIB_RESULT_OIFNAME`, `NFT_FIB_RESULT_ADDRTYPE`.
const FIB_OIFNAME: u32 = 2;
const FIB_ADDRTYPE: u32 = 3;
/// `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR`.
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
/// `RTN_LOCAL` of `linux/rtnetlink.h`.
const ADDRTYPE_LOCAL: u32 = 2;
/// `NF_CT_STATE_*` as nft's bits (`NF_CT_STATE_BIT` of `linux/netfilter/nf_conntrack_common.h`).
const STATE_INVALID: u32 = 1;
const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;
const STATE_NEW: u32 = 8;
/// `IPS_DST_NAT`.
const STATUS_DNAT: u32 = 0x20;
/// RFC 792 and RFC 4443 §4.1, RFC 4861 §4.5.
const ICMP_REDIRECT: u8 = 5;
const ICMP_ECHO_REQUEST: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_REDIRECT: u8 = 137;
/// The TCP flags are byte 13 of the header (RFC 9293 §3.1), SYN is bit 1.
const TCP_FLAGS_OFFSET: u32 = 13;
const TCP_SYN: u8 = 0x02;
/// TCP option 2 (RFC 9293 §3.2): kind, length, two bytes of MSS.
const TCP_OPTION_MSS: u8 = 2;
const TCP_OPTION_MSS_OFFSET: u32 = 2;
const TCP_OPTION_MSS_LEN: u32 = 2;
/// `IFNAMSIZ`: a name is compared with its padding of zeros, else it would match as a prefix.
const INTERFACE_NAME_LEN: usize = 16;

/// Why a rule can't match anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// `ip saddr … ip6 daddr …`.
    #[error("it asks for IPv4 and for IPv6")]
    Family,
    /// `tcp dport … udp sport …`.
    #[error("it asks for two different transport protocols")]
    Transport,
    /// `dnat to 10.0.0.1:443` without a match on TCP or UDP.
    #[error("it changes a port without matching TCP or UDP first")]
    PortWithoutTransport,
    /// An empty list of ports.
    #[error("it lists no ports")]
    NoPorts,
}

/// A rule under construction: its instructions so far and what they have made sure.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    expressions: Vec<Expr>,
    family: Option<Family>,
    transport: Option<i32>,
}

impl Builder {
    /// The instructions.
    pub(crate) fn finish(self) -> Vec<Expr> {
        self.expressions
    }

    /// Appends a part.
    pub(crate) fn part(&mut self, part: &Part) -> Result<(), Contradiction> {
        match part {
            Part::InputInterface { name, negated } => {
                self.interface(libc::NFT_META_IIFNAME, name, *negated);
            }
            Part::OutputInterface { name, negated } => {
                self.interface(libc::NFT_META_OIFNAME, name, *negated);
            }
            Part::Address {
                side,
                network,
                negated,
            } => self.address(*side, *network, *negated)?,
            Part::AddressInSet {
                side,
                family,
                set,
                negated,
            } => self.address_in_set(*side, *family, set, *negated)?,
            Part::NetworkFamily(family) => self.network_family(*family)?,
            Part::Ports {
                protocol,
                side,
                ports,
            } => self.ports(*protocol, *side, ports)?,
            Part::TransportProtocol(protocol) => self.transport(transport_number(*protocol))?,
            Part::EchoRequest(Family::Ipv4) => self.icmp(ICMP_ECHO_REQUEST)?,
            Part::EchoRequest(Family::Ipv6) => self.icmpv6(ICMPV6_ECHO_REQUEST)?,
            Part::Redirect(Family::Ipv4) => self.icmp(ICMP_REDIRECT)?,
            Part::Redirect(Family::Ipv6) => self.icmpv6(ICMPV6_REDIRECT)?,
            Part::DestinationIsLocal => self.destination_is_local(),
            Part::SourceNotRoutedVia(link) => self.source_not_routed_via(link),
            Part::CtEstablishedRelated => {
                self.ct_flags(libc::NFT_CT_STATE, STATE_ESTABLISHED | STATE_RELATED);
            }
            Part::CtRelated => self.ct_flags(libc::NFT_CT_STATE, STATE_RELATED),
            Part::CtDirectionReply => self.ct_direction_reply(),
            Part::CtNew => self.ct_flags(libc::NFT_CT_STATE, STATE_NEW),
            Part::CtInvalid => self.ct_flags(libc::NFT_CT_STATE, STATE_INVALID),
            Part::CtStatusDnat => self.ct_flags(libc::NFT_CT_STATUS, STATUS_DNAT),
            Part::CtMark {
                mask,
                value,
                negated,
            } => self.ct_mark(*mask, *value, *negated),
            Part::SetCtMark { keep, value } => self.set_ct_mark(*keep, *value),
            Part::SetMarkFromCt { mask } => self.set_mark_from_ct(*mask),
            Part::ClampMss => self.clamp_mss()?,
            Part::Notrack => self.push(Expr::Notrack),
            Part::Counter => self.push(Expr::Counter),
            Part::NamedCounter(name) => self.push(Expr::ObjectReference {
                kind: COUNTER,
                name: name.clone(),
            }),
            Part::Dnat { address, port } => self.dnat(*address, *port)?,
            Part::Masquerade => self.push(Expr::Masquerade { flags: 0 }),
            Part::Snat(addresses) => self.snat(*addresses)?,
            Part::SourceVerdictMap { family, map } => self.source_verdict_map(*family, map)?,
            Part::Accept => self.verdict(libc::NF_ACCEPT, None),
            Part::Drop => self.verdict(libc::NF_DROP, None),
            Part::Return => self.verdict(libc::NFT_RETURN, None),
            Part::Jump(chain) => self.verdict(libc::NFT_JUMP, Some(chain)),
        }
        Ok(())
    }

    /// `iifname "edge0"`, `oifname != "edge0"`
    fn interface(&mut self, key: i32, name: &InterfaceName, negated: bool) {
        self.push(Expr::Meta {
            key: key.unsigned_abs(),
        });
        self.compare(negated, padded(name));
    }

    /// `ip saddr 10.17.0.0/16`, `ip6 daddr != fd00::1`
    ///
    /// A prefix of whole bytes loads and compares only these; any other is masked.
    fn address(
        &mut self,
        side: Side,
        network: IpNetwork,
        negated: bool,
    ) -> Result<(), Contradiction> {
        let family = Family::of_network(network);
        self.guard_family(family)?;
        let prefix = network.prefix();
        let mut value = octets(network.network());
        let whole_bytes = prefix % 8 == 0 && prefix > 0;
        if whole_bytes {
            value.truncate(usize::from(prefix / 8));
        }
        self.push(address_field(family, side, value.len()));
        if !whole_bytes {
            self.push(Expr::Bitwise {
                mask: octets(network.mask()),
                xor: vec![0; value.len()],
            });
        }
        self.compare(negated, value);
        Ok(())
    }

    /// `ip saddr @cf4`, `ip6 saddr != @cf6`
    fn address_in_set(
        &mut self,
        side: Side,
        family: Family,
        set: &str,
        negated: bool,
    ) -> Result<(), Contradiction> {
        self.guard_family(family)?;
        self.push(address_field(family, side, usize::from(family.bits() / 8)));
        self.push(Expr::Lookup {
            set: SetReference::Named(set.to_owned()),
            inverted: negated,
            verdict: false,
        });
        Ok(())
    }

    /// `ip saddr vmap @peers4`
    fn source_verdict_map(&mut self, family: Family, map: &str) -> Result<(), Contradiction> {
        self.guard_family(family)?;
        self.push(address_field(
            family,
            Side::Source,
            usize::from(family.bits() / 8),
        ));
        self.push(Expr::Lookup {
            set: SetReference::Named(map.to_owned()),
            inverted: false,
            verdict: true,
        });
        Ok(())
    }

    /// `meta nfproto ipv4`
    fn network_family(&mut self, family: Family) -> Result<(), Contradiction> {
        if self
            .family
            .replace(family)
            .is_some_and(|known| known != family)
        {
            return Err(Contradiction::Family);
        }
        self.push(Expr::Meta {
            key: libc::NFT_META_NFPROTO.unsigned_abs(),
        });
        self.compare(false, vec![nfproto(family)]);
        Ok(())
    }

    /// `meta l4proto tcp`
    fn transport(&mut self, protocol: i32) -> Result<(), Contradiction> {
        if self
            .transport
            .replace(protocol)
            .is_some_and(|known| known != protocol)
        {
            return Err(Contradiction::Transport);
        }
        self.push(Expr::Meta {
            key: libc::NFT_META_L4PROTO.unsigned_abs(),
        });
        self.compare(false, vec![u8::try_from(protocol).unwrap_or_default()]);
        Ok(())
    }

    /// `tcp dport 443`, `tcp dport 3000-3010`, `udp dport { 53, 3000-3010 }`
    fn ports(
        &mut self,
        protocol: Protocol,
        side: Side,
        ports: &[PortRange],
    ) -> Result<(), Contradiction> {
        self.guard_transport(transport_number(protocol))?;
        self.push(transport_field(
            match side {
                Side::Source => 0,
                Side::Destination => 2,
            },
            2,
        ));
        match merged_ports(ports).as_slice() {
            [] => return Err(Contradiction::NoPorts),
            [one] if one.first == one.last => self.compare(false, one.first.to_be_bytes().to_vec()),
            [range] => {
                self.push(Expr::Cmp {
                    op: libc::NFT_CMP_GTE.unsigned_abs(),
                    data: range.first.to_be_bytes().to_vec(),
                });
                self.push(Expr::Cmp {
                    op: libc::NFT_CMP_LTE.unsigned_abs(),
                    data: range.last.to_be_bytes().to_vec(),
                });
            }
            several => self.push(Expr::Lookup {
                set: SetReference::Anonymous(Box::new(SetState::of_ports(several))),
                inverted: false,
                verdict: false,
            }),
        }
        Ok(())
    }

    /// `icmp type echo-request`, `icmp type redirect`
    fn icmp(&mut self, kind: u8) -> Result<(), Contradiction> {
        self.guard_family(Family::Ipv4)?;
        self.guard_transport(libc::IPPROTO_ICMP)?;
        self.push(transport_field(0, 1));
        self.compare(false, vec![kind]);
        Ok(())
    }

    /// `icmpv6 type echo-request`, `icmpv6 type nd-redirect`
    fn icmpv6(&mut self, kind: u8) -> Result<(), Contradiction> {
        self.guard_family(Family::Ipv6)?;
        self.guard_transport(libc::IPPROTO_ICMPV6)?;
        self.push(transport_field(0, 1));
        self.compare(false, vec![kind]);
        Ok(())
    }

    /// `fib daddr type local`
    fn destination_is_local(&mut self) {
        self.push(Expr::Fib {
            result: FIB_ADDRTYPE,
            flags: FIB_DADDR,
        });
        self.compare(false, ADDRTYPE_LOCAL.to_ne_bytes().to_vec());
    }

    /// `fib saddr oifname != "edge0"`
    fn source_not_routed_via(&mut self, link: &InterfaceName) {
        self.push(Expr::Fib {
            result: FIB_OIFNAME,
            flags: FIB_SADDR,
        });
        self.compare(true, padded(link));
    }

    /// `ct direction reply`
    fn ct_direction_reply(&mut self) {
        /// `IP_CT_DIR_REPLY` of `linux/netfilter/nf_conntrack_tuple_common.h`.
        const REPLY: u8 = 1;
        self.push(Expr::Ct {
            key: libc::NFT_CT_DIRECTION.unsigned_abs(),
        });
        self.compare(false, vec![REPLY]);
    }

    /// `ct state established,related`, `ct state new`, `ct state invalid`, `ct status dnat`
    fn ct_flags(&mut self, key: i32, flags: u32) {
        self.push(Expr::Ct {
            key: key.unsigned_abs(),
        });
        self.push(Expr::Bitwise {
            mask: flags.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        });
        self.compare(true, vec![0; 4]);
    }

    /// `ct mark & 0x3f000000 == 0x01000000`, `ct mark != 0x01000000/8`, `ct mark 0x00000001`
    fn ct_mark(&mut self, mask: u32, value: u32, negated: bool) {
        self.push(Expr::Ct {
            key: libc::NFT_CT_MARK.unsigned_abs(),
        });
        if mask != u32::MAX {
            self.push(Expr::Bitwise {
                mask: mask.to_ne_bytes().to_vec(),
                xor: vec![0; 4],
            });
        }
        self.compare(negated, value.to_ne_bytes().to_vec());
    }

    /// `ct mark set ct mark & 0xc1ffffff | 0x01000000`, `ct mark set 0x00000001`
    fn set_ct_mark(&mut self, keep: u32, value: u32) {
        let mask = keep & !value;
        if mask == 0 {
            self.push(Expr::Immediate {
                register: REG_1,
                data: value.to_ne_bytes().to_vec(),
            });
        } else {
            self.push(Expr::Ct {
                key: libc::NFT_CT_MARK.unsigned_abs(),
            });
            if (mask, value) != (u32::MAX, 0) {
                self.push(Expr::Bitwise {
                    mask: mask.to_ne_bytes().to_vec(),
                    xor: value.to_ne_bytes().to_vec(),
                });
            }
        }
        self.push(Expr::CtSet {
            key: libc::NFT_CT_MARK.unsigned_abs(),
        });
    }

    /// `meta mark set ct mark & 0x3f000000`
    ///
    /// Keeping the other bits of the packet's mark needs a bitwise instruction with two registers (Linux 6.13).
    fn set_mark_from_ct(&mut self, mask: u32) {
        self.push(Expr::Ct {
            key: libc::NFT_CT_MARK.unsigned_abs(),
        });
        if mask != u32::MAX {
            self.push(Expr::Bitwise {
                mask: mask.to_ne_bytes().to_vec(),
                xor: vec![0; 4],
            });
        }
        self.push(Expr::MetaSet {
            key: libc::NFT_META_MARK.unsigned_abs(),
        });
    }

    /// `tcp flags syn tcp option maxseg size set rt mtu`
    fn clamp_mss(&mut self) -> Result<(), Contradiction> {
        self.guard_transport(libc::IPPROTO_TCP)?;
        self.push(transport_field(TCP_FLAGS_OFFSET, 1));
        self.push(Expr::Bitwise {
            mask: vec![TCP_SYN],
            xor: vec![0],
        });
        self.compare(true, vec![0]);
        self.push(Expr::Rt { key: RT_TCP_MSS });
        self.push(Expr::ToNetworkOrder {
            len: TCP_OPTION_MSS_LEN,
            size: TCP_OPTION_MSS_LEN,
        });
        self.push(Expr::TcpOptionSet {
            option: TCP_OPTION_MSS,
            offset: TCP_OPTION_MSS_OFFSET,
            len: TCP_OPTION_MSS_LEN,
        });
        Ok(())
    }

    /// `dnat ip to 10.17.5.30`, `dnat ip to 10.17.5.30:443`, `dnat ip6 to [fd00::1]:443`
    ///
    /// The instruction itself skips packets of the other family.
    fn dnat(&mut self, address: IpAddr, port: Option<u16>) -> Result<(), Contradiction> {
        if port.is_some() && !matches!(self.transport, Some(libc::IPPROTO_TCP | libc::IPPROTO_UDP))
        {
            return Err(Contradiction::PortWithoutTransport);
        }
        let family = Family::of(address);
        if self.family.is_some_and(|known| known != family) {
            return Err(Contradiction::Family);
        }
        self.push(Expr::Immediate {
            register: REG_1,
            data: octets(address),
        });
        if let Some(port) = port {
            self.push(Expr::Immediate {
                register: REG_2,
                data: port.to_be_bytes().to_vec(),
            });
        }
        self.push(Expr::Nat {
            kind: libc::NFT_NAT_DNAT.unsigned_abs(),
            family: nfproto(family).into(),
            last: None,
            port: port.map(|_| REG_2),
            flags: 0,
        });
        Ok(())
    }

    /// `snat ip to 192.168.0.20`, `snat ip to 192.168.0.20-192.168.0.23`
    fn snat(&mut self, addresses: AddressRange) -> Result<(), Contradiction> {
        let family = addresses.family();
        if self.family.is_some_and(|known| known != family) {
            return Err(Contradiction::Family);
        }
        self.push(Expr::Immediate {
            register: REG_1,
            data: octets(addresses.first()),
        });
        let is_range = addresses.count() > 1;
        if is_range {
            self.push(Expr::Immediate {
                register: REG_2,
                data: octets(addresses.last()),
            });
        }
        self.push(Expr::Nat {
            kind: libc::NFT_NAT_SNAT.unsigned_abs(),
            family: nfproto(family).into(),
            last: is_range.then_some(REG_2),
            port: None,
            flags: 0,
        });
        Ok(())
    }

    /// `accept`, `drop`, `return`, `jump NAME`
    fn verdict(&mut self, code: i32, chain: Option<&String>) {
        self.push(Expr::Verdict {
            code,
            chain: chain.cloned(),
        });
    }

    fn guard_family(&mut self, family: Family) -> Result<(), Contradiction> {
        if self.family == Some(family) {
            return Ok(());
        }
        self.network_family(family)
    }

    fn guard_transport(&mut self, protocol: i32) -> Result<(), Contradiction> {
        if self.transport == Some(protocol) {
            return Ok(());
        }
        self.transport(protocol)
    }

    fn compare(&mut self, negated: bool, data: Vec<u8>) {
        let op = if negated {
            libc::NFT_CMP_NEQ
        } else {
            libc::NFT_CMP_EQ
        };
        self.push(Expr::Cmp {
            op: op.unsigned_abs(),
            data,
        });
    }

    fn push(&mut self, expr: Expr) {
        self.expressions.push(expr);
    }
}

fn padded(name: &InterfaceName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME_LEN, 0);
    bytes
}

fn nfproto(family: Family) -> u8 {
    let number = match family {
        Family::Ipv4 => libc::NFPROTO_IPV4,
        Family::Ipv6 => libc::NFPROTO_IPV6,
    };
    u8::try_from(number).unwrap_or_default()
}

const fn transport_number(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    }
}

/// The first `len` bytes of an address in the IP header (RFC 791 §3.1, RFC 8200 §3).
fn address_field(family: Family, side: Side, len: usize) -> Expr {
    let offset = match (family, side) {
        (Family::Ipv4, Side::Source) => 12,
        (Family::Ipv4, Side::Destination) => 16,
        (Family::Ipv6, Side::Source) => 8,
        (Family::Ipv6, Side::Destination) => 24,
    };
    Expr::Payload {
        base: libc::NFT_PAYLOAD_NETWORK_HEADER.unsigned_abs(),
        offset,
        len: u32::try_from(len).unwrap_or_default(),
    }
}

fn transport_field(offset: u32, len: u32) -> Expr {
    Expr::Payload {
        base: libc::NFT_PAYLOAD_TRANSPORT_HEADER.unsigned_abs(),
        offset,
        len,
    }
}
