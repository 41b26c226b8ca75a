//! The same by WireGuard's own configuration protocol, which a userspace implementation offers on a unix socket.
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::daemon::Daemon;
use tests::expect::holds;
use tests::keys::KeyPair;
use tests::node::Node;

use crate::measure::Samples;

/// How long the device may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Measure the additions and the memory of `program`, a command that makes an interface `wg0` in the foreground.
pub(crate) fn measure(
    node: &Node,
    name: &str,
    program: &[&str],
    keys: &[KeyPair],
    samples: &mut Samples,
) -> Result<()> {
    for (way, reconnects) in [("one connection each", true), ("one connection", false)] {
        let mut daemon = Daemon::start(node, name, program)?;
        let socket = node.dir().join("run/wireguard/wg0.sock");
        daemon.wait_until(START_TIMEOUT, "the socket of the device", || {
            holds(UnixStream::connect(&socket).is_ok(), || {
                "nobody answers".to_owned()
            })
        })?;
        let began = Instant::now();
        add(&socket, keys, reconnects)?;
        let rate = per_second(keys.len(), began.elapsed());
        samples.note(&format!("{name}: `set=1` a peer, {way}"), "peers/s", rate);
        ensure!(
            count(&socket)? == keys.len(),
            "{name} does not hold all peers"
        );
        let title = format!("{name}: resident memory with {} peers", keys.len());
        samples.note(&title, "MB", megabytes(daemon.resident_bytes()?));
        daemon.kill();
        std::fs::remove_file(&socket)?;
    }
    Ok(())
}

/// How many a second.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// 10⁶ bytes.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn add(socket: &PathBuf, keys: &[KeyPair], reconnects: bool) -> Result<()> {
    let mut stream = BufReader::new(UnixStream::connect(socket)?);
    let mut line = String::new();
    for (number, key) in (0_u32..).zip(keys) {
        if reconnects && number > 0 {
            stream = BufReader::new(UnixStream::connect(socket)?);
        }
        let mut request = String::from("set=1\npublic_key=");
        for byte in key.public.as_bytes() {
            write!(request, "{byte:02x}")?;
        }
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 17, 64, 0).to_bits() + number);
        write!(
            request,
            "\nreplace_allowed_ips=true\nallowed_ip={address}/32\n\n"
        )?;
        stream.get_mut().write_all(request.as_bytes())?;
        for expected in ["errno=0\n", "\n"] {
            line.clear();
            stream.read_line(&mut line)?;
            ensure!(line == expected, "the device answered {line:?}");
        }
    }
    Ok(())
}

fn count(socket: &Path) -> Result<usize> {
    let mut stream = BufReader::new(UnixStream::connect(socket)?);
    stream.get_mut().write_all(b"get=1\n\n")?;
    let mut count = 0;
    for line in stream.lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        count += usize::from(line.starts_with("public_key="));
    }
    Ok(count)
}
