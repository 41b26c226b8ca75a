//! A host of the kernel: a network namespace with two TUN links.
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nft::Nftables;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use shared::model::InterfaceName;
use shared::offload::VNET_HDR_LEN;
use shared::plan::Desired;
use shared::simulate::Packet;
use shared_os::sysctl;
use shared_os::tun::{FRAME_BUFFER_LEN, Offload, Options, Tun};

use super::bytes;

/// Give this thread a network namespace of its own.
pub(super) fn unshare() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Delivered,
    Sent { link: InterfaceName, packet: Packet },
}

pub(super) struct Kernel {
    links: Vec<Tun>,
    /// One for each family and protocol: they get a copy of what is delivered to the host.
    sockets: Vec<OwnedFd>,
    /// Closed, it would leave the table without an owner.
    _nftables: Nftables,
    next_token: u32,
    buffer: Vec<u8>,
}

impl Kernel {
    /// In the namespace of this thread: the links of `desired` and the outer one, their addresses, routes and rules, and the
    /// table.
    pub(super) fn new(
        desired: &Desired,
        outer: &InterfaceName,
        others: &[(&str, &str)],
    ) -> Result<Self> {
        let names = desired.links.iter().map(|link| &link.name).chain([outer]);
        let links = names.map(|name| {
            let options = Options {
                name: name.clone(),
                persist: false,
                offload: Offload::None,
                multi_queue: false,
            };
            Tun::open(&options).context("a TUN link")
        });
        let links: Vec<Tun> = links.collect::<Result<_>>()?;
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.rp_filter", "0"),
        ] {
            set(key, value)?;
        }
        for link in &links {
            set(&format!("net.ipv4.conf.{}.rp_filter", link.name()), "0")?;
        }
        ip(&[], &commands(desired, outer, others))?;
        for (option, ipv6) in [("-4", false), ("-6", true)] {
            ip(&[option], &rules(desired, ipv6))?;
        }
        let mut nftables = Nftables::open()?;
        nftables.replace(&desired.ruleset)?;
        let mut sockets = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for protocol in [SockProtocol::Tcp, SockProtocol::Udp] {
                let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
                sockets.push(socket::socket(family, SockType::Raw, flags, protocol)?);
            }
        }
        Ok(Self {
            links,
            sockets,
            _nftables: nftables,
            next_token: 0x5eed_0000,
            buffer: vec![0; FRAME_BUFFER_LEN],
        })
    }

    /// Send a packet in over a link and see where it comes out.
    pub(super) fn pass(
        &mut self,
        link: &InterfaceName,
        packet: &Packet,
        is_answer: bool,
    ) -> Result<Seen> {
        self.next_token += 1;
        let token = self.next_token;
        let bytes = bytes::build(packet, is_answer, token);
        let input = self.links.iter().find(|tun| tun.name() == link);
        let input = input.with_context(|| format!("no link {link}"))?;
        input.write_behind(&[0; VNET_HDR_LEN], &bytes)?;
        let mut seen = Vec::new();
        for tun in &self.links {
            while let Some(frame) = read(|buffer| tun.read(buffer), &mut self.buffer)? {
                let bytes = frame.get(VNET_HDR_LEN..).unwrap_or_default();
                if bytes::token(bytes) == Some(token) {
                    // Others repeat it: what ICMP says of a packet ends with that packet.
                    seen.extend(bytes::parse(bytes).map(|packet| Seen::Sent {
                        link: tun.name().clone(),
                        packet,
                    }));
                }
            }
        }
        for socket in &self.sockets {
            let receive = |buffer: &mut [u8]| {
                use std::os::fd::AsRawFd as _;
                let received = socket::recv(socket.as_raw_fd(), buffer, MsgFlags::empty());
                received.map_err(|error: Errno| io::Error::from(error))
            };
            while let Some(bytes) = read(receive, &mut self.buffer)? {
                if bytes::token(bytes) == Some(token) {
                    seen.push(Seen::Delivered);
                }
            }
        }
        ensure!(
            seen.len() < 2,
            "it comes out {} times: {seen:?}",
            seen.len()
        );
        Ok(seen.pop().unwrap_or(Seen::Nothing))
    }
}

/// One message, if one is there.
fn read(
    receive: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    buffer: &mut [u8],
) -> Result<Option<&[u8]>> {
    match receive(buffer) {
        Ok(length) => Ok(buffer.get(..length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn set(key: &str, value: &str) -> Result<()> {
    let path: Vec<String> = key.split('.').map(str::to_owned).collect();
    sysctl::write(&path, value).with_context(|| key.to_owned())
}

/// For `ip -batch`.
fn commands(desired: &Desired, outer: &InterfaceName, others: &[(&str, &str)]) -> String {
    let mut lines = vec!["link set lo up".to_owned()];
    let up = |name: &InterfaceName| format!("link set {name} up");
    lines.extend(desired.links.iter().map(|link| up(&link.name)));
    lines.push(up(outer));
    let add = |link: &str, address: &str| {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        format!("addr add {address} dev {link}{nodad}")
    };
    lines.extend(desired.addresses.iter().map(|own| {
        let address = format!("{}/{}", own.address, own.prefix_len);
        add(own.link.as_str(), &address)
    }));
    lines.extend(others.iter().map(|(link, address)| add(link, address)));
    lines.extend(desired.routes.iter().map(|route| {
        let (link, table) = (&route.link, route.table);
        format!(
            "route replace {} dev {link} table {table}",
            route.destination
        )
    }));
    for everything in ["0.0.0.0/0", "::/0"] {
        lines.push(format!("route add {everything} dev {outer}"));
    }
    lines.join("\n")
}

fn rules(desired: &Desired, ipv6: bool) -> String {
    let rules = desired.rules.iter().filter(|rule| rule.ipv6 == ipv6);
    let lines = rules.map(|rule| {
        let (priority, mark, mask, table) = (rule.priority, rule.mark, rule.mask, rule.table);
        format!("rule add pref {priority} fwmark {mark:#x}/{mask:#x} lookup {table}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn ip(options: &[&str], commands: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip")?;
    let mut stdin = child.stdin.take().context("its input")?;
    stdin.write_all(commands.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip: {said}\n{commands}");
    Ok(())
}
