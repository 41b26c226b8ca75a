//! Sockets of this host that wait for callers, and whose they are.
//!
//! From `/proc/net` of the calling thread's network namespace, so everything here is synchronous.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{fs, io};

use shared::config::common::Protocol;

/// A socket that waits for callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Protocol.
    pub protocol: Protocol,
    /// Where it waits; unspecified is every address of the family.
    pub address: SocketAddr,
    /// The kernel's number of it, by which its process is found.
    pub inode: u64,
}

/// Every one of them.
///
/// # Errors
/// `/proc/net` can't be read.
pub fn listeners() -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for (file, protocol) in [
        ("tcp", Protocol::Tcp),
        ("tcp6", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("udp6", Protocol::Udp),
    ] {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => found.extend(text.lines().filter_map(|line| parse(line, protocol))),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The process that has a socket: `nginx (pid 4711)`. `None` when it is not visible for us.
pub fn owner(inode: u64) -> Option<String> {
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut processes = processes.filter_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        Some((pid, process.path()))
    });
    let (pid, path) = processes.find(|(_, path)| {
        let files = fs::read_dir(path.join("fd")).into_iter().flatten();
        let mut files = files.filter_map(Result::ok);
        files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
    })?;
    let name = fs::read_to_string(path.join("comm")).ok()?;
    Some(format!("{} (pid {pid})", name.trim()))
}

/// A line of `/proc/net/tcp` and its like (`Documentation/networking/proc_net_tcp.rst`): addresses in hexadecimal words of
/// this machine.
fn parse(line: &str, protocol: Protocol) -> Option<Listener> {
    /// `TCP_LISTEN`, and `TCP_CLOSE`: a UDP socket that is not connected.
    const LISTENS: &str = "0A";
    const UNCONNECTED: &str = "07";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let wanted = match protocol {
        Protocol::Tcp => LISTENS,
        Protocol::Udp => UNCONNECTED,
    };
    if *fields.get(3)? != wanted {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    Some(Listener {
        protocol,
        address: SocketAddr::new(self::address(address)?, u16::from_str_radix(port, 16).ok()?),
        inode: fields.get(9)?.parse().ok()?,
    })
}

fn address(hex: &str) -> Option<IpAddr> {
    let words = hex.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<[u8; 4]>>>()?.concat();
    if let Ok(address) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(address).into());
    }
    let address = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(Ipv6Addr::from(address).into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_is_found_with_its_process() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let all = listeners().unwrap();
        for (protocol, address) in [
            (Protocol::Tcp, tcp.local_addr().unwrap()),
            (Protocol::Udp, udp.local_addr().unwrap()),
        ] {
            let mut found = all.iter();
            let found = found.find(|of| (of.protocol, of.address) == (protocol, address));
            let owner = owner(found.unwrap().inode).unwrap();
            assert!(
                owner.ends_with(&format!("(pid {})", std::process::id())),
                "{owner}"
            );
        }
    }

    #[test]
    fn connections_and_headings_are_no_listeners() {
        const CONNECTED: &str =
            "0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 77 1";
        const HEADING: &str = "sl  local_address rem_address   st tx_queue rx_queue tr tm->when";
        assert_eq!(parse(CONNECTED, Protocol::Tcp), None);
        assert_eq!(parse(HEADING, Protocol::Tcp), None);
        assert_eq!(parse("", Protocol::Udp), None);
    }
}
