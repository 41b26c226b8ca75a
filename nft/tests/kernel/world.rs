//! A fresh network namespace for each test, and the real `nft` in it.
#![expect(unsafe_code, reason = "unshare has no safe wrapper in std")]

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs `test` on a thread with a network namespace of its own, which vanishes with the thread.
///
/// Without root it fails with one clear line, unless `WG_EDGE_UNPRIVILEGED=1` says that this is meant.
pub(crate) fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: takes only flags and changes only this thread.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            if result == 0 {
                return Some(test());
            }
            assert!(
                std::env::var_os("WG_EDGE_UNPRIVILEGED").is_some_and(|value| value == "1"),
                "kernel tests need root (unshare: {}); WG_EDGE_UNPRIVILEGED=1 leaves them out",
                std::io::Error::last_os_error()
            );
            println!("unprivileged run: nothing was tested against the kernel");
            None
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What a call of the real `nft` gave.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `nft ARGUMENTS` in the namespace of this thread.
pub(crate) fn nft(arguments: &[&str]) -> Output {
    nft_with(arguments, "")
}

/// Loads a text as `nft -f` does.
pub(crate) fn load(text: &str) {
    let output = nft_with(&["-f", "-"], text);
    assert!(output.success, "nft -f: {}\n{text}", output.stderr);
}

/// `nft -s list table inet NAME`.
pub(crate) fn list(table: &str) -> String {
    let output = nft(&["-s", "list", "table", "inet", table]);
    assert!(output.success, "nft list: {}", output.stderr);
    output.stdout
}

fn nft_with(arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft is installed");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    Output {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Brings the loopback up.
pub(crate) fn loopback_up() {
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .expect("iproute2 is installed");
    assert!(status.success());
}

/// Takes all capabilities from this thread.
pub(crate) fn drop_capabilities() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    // _LINUX_CAPABILITY_VERSION_3; pid 0 is the calling thread.
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let none = [0_u32; 6];
    // SAFETY: both point to what capset(2) describes, and live for the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const none) };
    assert_eq!(result, 0, "capset: {}", std::io::Error::last_os_error());
}

/// A listing without what depends on the owner and on nft's version: a line of flags, an empty line or a comment with the
/// owner, and where lines of elements break.
pub(crate) fn comparable(listing: &str) -> String {
    const CONTINUED: &str = ",\n\t\t\t     ";
    let (_, body) = listing.split_once('\n').unwrap();
    let body = body
        .strip_prefix("\tflags owner")
        .and_then(|rest| rest.split_once('\n'))
        .map_or(body, |(_, rest)| rest);
    let body = body.trim_start_matches('\n').replace(CONTINUED, ", ");
    // nft 1.1 knows the name of this priority at every hook.
    let body = body.replace(
        "nat hook output priority -100;",
        "nat hook output priority dstnat;",
    );
    let lines = body.split('\n').map(with_whole_masks);
    lines.collect::<Vec<_>>().join("\n")
}

/// `ct mark != 0x01000000/8` → `ct mark & 0xff000000 != 0x01000000`, as nft 1.1 says it.
fn with_whole_masks(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for at in 1..words.len() {
        let prefix = words[at].split_once('/');
        let Some((value, bits)) = prefix.filter(|(value, _)| value.starts_with("0x")) else {
            continue;
        };
        let mask = u32::MAX << (32 - bits.parse::<u32>().unwrap());
        let compared = if words[at - 1] == "!=" {
            format!("& {mask:#010x} != {value}")
        } else {
            format!("& {mask:#010x} == {value}")
        };
        words[at] = compared;
        if words[at - 1] == "!=" {
            words[at - 1].clear();
        }
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}
