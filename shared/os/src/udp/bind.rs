//! Making the sockets.
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::send::Alone;
use super::{
    Counters, Family, Limits, Options, SOCKET_BUFFER, SendRung, Socket, SocketOffloads, Sockets,
    address,
};
use crate::sys::message::SEND_BATCH;
use crate::sys::socket::{bind, set_option, udp};

/// Times that another port is tried when the kernel's choice for IPv6 is taken for IPv4.
const PORT_ATTEMPTS: usize = 16;

/// `SOL_UDP` of `include/linux/socket.h`.
const SOL_UDP: libc::c_int = 17;

/// Why sockets can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error(
        "UDP port {port} is in use by another program: `ss -ulpn sport = :{port}` shows which; stop it or choose another listen port"
    )]
    InUse {
        /// The port.
        port: u16,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The port is reserved for root.
    #[error(
        "UDP port {port} may not be bound: choose a port above 1023, or run with CAP_NET_BIND_SERVICE"
    )]
    Permission {
        /// The port.
        port: u16,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Marks are reserved for root.
    #[error("the mark {fwmark:#x} can't be set on a UDP socket: run as root or with CAP_NET_ADMIN")]
    Mark {
        /// The mark.
        fwmark: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A setting that packet I/O needs is refused.
    #[error("the kernel refuses the setting {setting} of a UDP socket")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no memory to wait for it with.
    #[error("the UDP sockets on port {port} can't be waited for")]
    Wait {
        /// The port.
        port: u16,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else.
    #[error("a UDP socket on port {port} can't be made")]
    Other {
        /// The port.
        port: u16,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Sockets {
    /// Bind both sockets. A kernel without IPv6 (or without IPv4) gives one.
    pub fn bind(options: Options) -> Result<Self, BindError> {
        let mut attempts = PORT_ATTEMPTS;
        loop {
            attempts -= 1;
            match Self::bind_once(options) {
                // The kernel chose a port for IPv6 that is taken for IPv4: let it choose again.
                Err(BindError::InUse { .. }) if options.port == 0 && attempts > 0 => {}
                result => return result,
            }
        }
    }

    fn bind_once(options: Options) -> Result<Self, BindError> {
        let ipv6 = Socket::bind(Family::Ipv6, options)?;
        let mut port = options.port;
        if let Some((_, bound)) = &ipv6 {
            port = *bound;
        }
        let ipv4 = Socket::bind(Family::Ipv4, Options { port, ..options })?;
        let port = match (&ipv4, &ipv6) {
            (Some((_, port)), _) | (None, Some((_, port))) => *port,
            (None, None) => {
                let source = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
                return Err(BindError::Other { port, source });
            }
        };
        Ok(Self {
            ipv4: ipv4.map(|(socket, _)| socket),
            ipv6: ipv6.map(|(socket, _)| socket),
            direct: None,
            left: Vec::new(),
            direct_changed: false,
            options: Options { port, ..options },
            counters: Counters::default(),
            alone: Alone::default(),
            outgoing: Vec::with_capacity(SEND_BATCH),
            marks: Vec::with_capacity(SEND_BATCH),
        })
    }

    /// Change the mark of outgoing datagrams.
    pub fn set_fwmark(&mut self, fwmark: u32) -> Result<(), BindError> {
        self.options.fwmark = fwmark;
        self.drop_direct();
        for socket in [&self.ipv4, &self.ipv6].into_iter().flatten() {
            set_mark(socket.fd.as_fd(), fwmark)?;
        }
        Ok(())
    }
}

impl Socket {
    /// A socket and its port; `None` when the kernel does not have the family.
    fn bind(family: Family, options: Options) -> Result<Option<(Self, u16)>, BindError> {
        let port = options.port;
        let fd = match udp(family.number()) {
            Ok(fd) => fd,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(source) => return Err(BindError::Other { port, source }),
        };
        family.prepare(fd.as_fd())?;
        set_mark(fd.as_fd(), options.fwmark)?;
        enlarge_buffers(fd.as_fd());
        match bind(fd.as_fd(), &address::encode(family.any(port))) {
            Ok(()) => {}
            Err(error) if is_absent(&error) => return Ok(None),
            Err(source) => return Err(bind_error(port, source)),
        }
        let (fd, port) = bound_port(fd).map_err(|source| BindError::Other { port, source })?;
        let offloads = probe(fd.as_fd(), options.limits);
        Ok(Some((Self { fd, offloads }, port)))
    }
}

impl Family {
    pub(super) const fn number(self) -> libc::c_int {
        match self {
            Self::Ipv4 => libc::AF_INET,
            Self::Ipv6 => libc::AF_INET6,
        }
    }

    pub(super) fn any(self, port: u16) -> SocketAddr {
        match self {
            Self::Ipv4 => (Ipv4Addr::UNSPECIFIED, port).into(),
            Self::Ipv6 => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    }

    /// Those of a connected socket: where its datagrams come from and go to is known.
    pub(super) fn prepare_connected(self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let ipv4 = libc::IPPROTO_IP;
        let ipv6 = libc::IPPROTO_IPV6;
        let settings: &[(libc::c_int, libc::c_int, libc::c_int)] = match self {
            Self::Ipv4 => &[
                (ipv4, libc::IP_RECVTOS, 1),
                (ipv4, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
            ],
            Self::Ipv6 => &[
                (ipv6, libc::IPV6_V6ONLY, 1),
                (ipv6, libc::IPV6_RECVTCLASS, 1),
                (ipv6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
            ],
        };
        for &(level, option, value) in settings {
            set_option(socket, level, option, value)?;
        }
        Ok(())
    }

    /// Settings without which datagrams could not be told apart or answered rightly.
    ///
    /// `PROBE` sets DF and sends even what the kernel believes to be too big for the path: WireGuard must not be
    /// fragmented, and a forged ICMP must not shrink it.
    fn prepare(self, socket: BorrowedFd<'_>) -> Result<(), BindError> {
        let ipv4 = libc::IPPROTO_IP;
        let ipv6 = libc::IPPROTO_IPV6;
        let settings: &[(&str, libc::c_int, libc::c_int, libc::c_int)] = match self {
            Self::Ipv4 => &[
                ("IP_PKTINFO", ipv4, libc::IP_PKTINFO, 1),
                ("IP_RECVTOS", ipv4, libc::IP_RECVTOS, 1),
                (
                    "IP_MTU_DISCOVER",
                    ipv4,
                    libc::IP_MTU_DISCOVER,
                    libc::IP_PMTUDISC_PROBE,
                ),
            ],
            Self::Ipv6 => &[
                ("IPV6_V6ONLY", ipv6, libc::IPV6_V6ONLY, 1),
                ("IPV6_RECVPKTINFO", ipv6, libc::IPV6_RECVPKTINFO, 1),
                ("IPV6_RECVTCLASS", ipv6, libc::IPV6_RECVTCLASS, 1),
                (
                    "IPV6_MTU_DISCOVER",
                    ipv6,
                    libc::IPV6_MTU_DISCOVER,
                    libc::IPV6_PMTUDISC_PROBE,
                ),
            ],
        };
        for &(setting, level, option, value) in settings {
            set_option(socket, level, option, value)
                .map_err(|source| BindError::Setting { setting, source })?;
        }
        Ok(())
    }
}

/// Whether the kernel lacks the address family, or has it switched off.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn bind_error(port: u16, source: io::Error) -> BindError {
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => BindError::InUse { port, source },
        Some(libc::EACCES) => BindError::Permission { port, source },
        _ => BindError::Other { port, source },
    }
}

fn bound_port(fd: OwnedFd) -> io::Result<(OwnedFd, u16)> {
    let socket = UdpSocket::from(fd);
    let port = socket.local_addr()?.port();
    Ok((socket.into(), port))
}

pub(super) fn set_mark(socket: BorrowedFd<'_>, fwmark: u32) -> Result<(), BindError> {
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_MARK,
        libc::c_int::from_ne_bytes(fwmark.to_ne_bytes()),
    )
    .or_else(|source| {
        // Without the right to set marks, a socket without one is as good as before.
        if fwmark == 0 {
            return Ok(());
        }
        Err(BindError::Mark { fwmark, source })
    })
}

/// As much as allowed: beyond `net.core.{r,w}mem_max` only with `CAP_NET_ADMIN`. Smaller ones lose datagrams in bursts,
/// but work.
pub(super) fn enlarge_buffers(socket: BorrowedFd<'_>) {
    for (force, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        let set = |option| set_option(socket, libc::SOL_SOCKET, option, SOCKET_BUFFER);
        if let Err(error) = set(force).or_else(|_| set(plain)) {
            tracing::debug!(%error, "the buffer of a UDP socket keeps its size");
        }
    }
}

/// Try what is allowed. Segmentation is known since 4.18; the option without a size changes nothing.
pub(super) fn probe(socket: BorrowedFd<'_>, limits: Limits) -> SocketOffloads {
    let segmented = limits.send == SendRung::Segmented
        && set_option(socket, SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
    let send = if segmented {
        SendRung::Segmented
    } else {
        limits.send.min(SendRung::Batch)
    };
    let gro = limits.gro && gro_is_sound() && set_option(socket, SOL_UDP, libc::UDP_GRO, 1).is_ok();
    SocketOffloads { send, gro }
}

/// `UDP_GRO` exists since 5.0, but merged wrongly before 5.12 (wireguard-go, `conn/features_linux.go`, has the same bound).
fn gro_is_sound() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .ok()
        .and_then(|release| parse_release(&release))
        .is_none_or(|release| release >= (5, 12))
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::parse_release;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse_release("6.18.44-fc-v782\n"), Some((6, 18)));
        assert_eq!(parse_release("5.9-rc1"), Some((5, 9)));
        assert_eq!(parse_release("linux"), None);
        assert!(parse_release("5.9.1") < parse_release("5.12.0"));
    }
}
