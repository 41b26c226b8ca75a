//! Who is measured: which there are, how each is started, and what it says of itself.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::options::Options;

/// The product, with its own configuration files.
pub(crate) const OURS: &str = "ours";
/// What ratios refer to.
pub(crate) const BASE: &str = "wireguard-go";
/// [`BASE`] with one processor of Go's scheduler, which makes it faster on two cores.
pub(crate) const BASE_1P: &str = "wireguard-go-1p";
/// A peer.
pub(crate) const BORINGTUN: &str = "boringtun";
/// A peer.
pub(crate) const GOTATUN: &str = "gotatun";
/// The ceiling: see `tests/src/bin/floor.rs`.
pub(crate) const FLOOR: &str = "floor";

/// No tunnel.
const NONE: &str = "none";
/// WireGuard of the kernel.
const KERNEL: &str = "kernel";
/// Our device without our daemons.
const OURS_BARE: &str = "ours-bare";
/// The order in which they are measured and shown.
pub(crate) const ORDER: [&str; 9] = [
    NONE, KERNEL, BASE, BASE_1P, BORINGTUN, GOTATUN, FLOOR, OURS_BARE, OURS,
];

/// One of those that are compared.
#[derive(Debug, Clone)]
pub(crate) struct Implementation {
    /// As it stands in results and tables.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Environment variables of the daemon.
    pub(crate) env: Vec<(String, String)>,
    /// What it says of its version; empty when it says nothing.
    pub(crate) version: String,
}

/// How it is started and configured.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// No tunnel at all: packets are routed over the cable.
    Plain,
    /// `ip link add type wireguard`.
    Kernel,
    /// A command that makes the interface `{if}` and is configured by `wg`.
    Uapi(Vec<String>),
    /// A command that configures itself from `WGB_*`.
    Itself(Vec<String>),
    /// Our two daemons, which make links, routes, rules and rulesets of their own.
    Ours { gateway: String, lan_server: String },
}

/// One that can't be had.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// All that were asked for.
pub(crate) fn chosen(options: &Options) -> Result<(Vec<Implementation>, Vec<Missing>)> {
    let mut known: Vec<(&str, Result<Implementation>)> = vec![
        (NONE, Ok(plain(NONE, Kind::Plain))),
        (KERNEL, kernel()),
        (BASE, peer(BASE, "wireguard-go", &["-f", "{if}"], &[])),
        (
            BASE_1P,
            peer(
                BASE_1P,
                "wireguard-go",
                &["-f", "{if}"],
                &[("GOMAXPROCS", "1")],
            ),
        ),
        (
            BORINGTUN,
            peer(
                BORINGTUN,
                "boringtun-cli",
                &["-f", "--disable-drop-privileges", "{if}"],
                &[],
            ),
        ),
        (
            GOTATUN,
            peer(
                GOTATUN,
                "gotatun",
                &["-f", "-v", "error", "--disable-drop-privileges", "{if}"],
                &[],
            ),
        ),
        (FLOOR, floor()),
        (OURS_BARE, bare(options)),
        (OURS, product(options)),
    ];
    let added = options
        .add
        .iter()
        .map(|text| added(text))
        .chain(options.add_ours.iter().map(|text| added_ours(text)))
        .collect::<Result<Vec<_>>>()?;
    let mut names: Vec<String> = if let Some(only) = &options.only {
        only.split(',').map(str::to_owned).collect()
    } else {
        // The bare device says little more than ours with a configuration: only for who asks for it.
        let standard = known.iter().map(|(name, _)| (*name).to_owned());
        standard.filter(|name| name != OURS_BARE).collect()
    };
    for one in &added {
        if !names.contains(&one.name) {
            names.push(one.name.clone()); // who adds one wants it measured
        }
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        if let Some(one) = added.iter().find(|one| one.name == name) {
            found.push(one.clone());
            continue;
        }
        let place = known.iter().position(|(known, _)| *known == name);
        let place = place.with_context(|| {
            format!("--only {name}: there is no such implementation, or it stands there twice")
        })?;
        match known.swap_remove(place).1 {
            Ok(one) => found.push(one),
            Err(error) => missing.push(Missing {
                name,
                reason: format!("{error:#}"),
            }),
        }
    }
    Ok((found, missing))
}

fn plain(name: &str, kind: Kind) -> Implementation {
    Implementation {
        name: name.to_owned(),
        kind,
        env: Vec::new(),
        version: String::new(),
    }
}

/// A program that `script/bench-peers` has put in place.
fn peer(
    name: &str,
    program: &str,
    arguments: &[&str],
    env: &[(&str, &str)],
) -> Result<Implementation> {
    let variable = format!("WG_EDGE_BENCH_{}", program.replace('-', "_").to_uppercase());
    let path = match std::env::var_os(&variable) {
        Some(path) => PathBuf::from(path),
        None => beside("../bench-peers/bin")?.join(program),
    };
    let path = existing(&path).with_context(|| {
        format!("no {program}: run script/bench-peers, or set {variable} to another one")
    })?;
    let version = version(&path);
    let mut command = vec![path];
    command.extend(arguments.iter().map(|&word| word.to_owned()));
    // wireguard-go logs each handshake otherwise, and boringtun writes colours into its log.
    let env = [("LOG_LEVEL", "error"), ("NO_COLOR", "1")]
        .iter()
        .chain(env);
    Ok(Implementation {
        env: env
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        version,
        ..plain(name, Kind::Uapi(command))
    })
}

/// WireGuard of the running kernel, when it has it.
fn kernel() -> Result<Implementation> {
    let probe = |arguments: &[&str]| Command::new("ip").args(arguments).output();
    let name = format!("wgb{}", std::process::id());
    let output = probe(&["link", "add", &name, "type", "wireguard"])?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("the kernel makes no WireGuard link: {}", said.trim());
    }
    probe(&["link", "delete", &name])?;
    Ok(plain(KERNEL, Kind::Kernel))
}

fn floor() -> Result<Implementation> {
    let path = existing(&beside("floor")?).context("run script/bench, which builds it")?;
    Ok(plain(FLOOR, Kind::Itself(vec![path])))
}

fn bare(options: &Options) -> Result<Implementation> {
    let gateway = own(options.ours_gateway.as_deref(), "gateway")?;
    let version = version(&gateway);
    let command = [gateway, "wg".to_owned(), "{if}".to_owned()];
    Ok(Implementation {
        version,
        ..plain(OURS_BARE, Kind::Uapi(command.to_vec()))
    })
}

/// Our two daemons.
pub(crate) fn product(options: &Options) -> Result<Implementation> {
    let gateway = own(options.ours_gateway.as_deref(), "gateway")?;
    let lan_server = own(options.ours_lan_server.as_deref(), "lan-server")?;
    Ok(Implementation {
        version: version(&gateway),
        ..plain(
            OURS,
            Kind::Ours {
                gateway,
                lan_server,
            },
        )
    })
}

/// `NAME=COMMAND` or `NAME@self=COMMAND`.
fn added(text: &str) -> Result<Implementation> {
    let (name, command) = text
        .split_once('=')
        .with_context(|| format!("--add {text}: not NAME=COMMAND"))?;
    let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let Some(itself) = name.strip_suffix("@self") else {
        if !command.iter().any(|word| word.contains("{if}")) {
            bail!("--add {text}: the command must name the interface as {{if}}");
        }
        return Ok(plain(name, Kind::Uapi(command)));
    };
    Ok(plain(itself, Kind::Itself(command)))
}

/// `NAME=DIRECTORY[,KEY=VALUE]…`: another build of ours, or the same one with other settings.
fn added_ours(text: &str) -> Result<Implementation> {
    let wrong = || format!("--add-ours {text}: not NAME=DIRECTORY[,KEY=VALUE]…");
    let (name, rest) = text.split_once('=').with_context(wrong)?;
    let mut words = rest.split(',');
    let directory = PathBuf::from(words.next().with_context(wrong)?);
    let env = words
        .map(|word| {
            let (key, value) = word.split_once('=').with_context(wrong)?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect::<Result<_>>()?;
    let gateway = existing(&directory.join("gateway"))?;
    let lan_server = existing(&directory.join("lan-server"))?;
    Ok(Implementation {
        version: version(&gateway),
        env,
        ..plain(
            name,
            Kind::Ours {
                gateway,
                lan_server,
            },
        )
    })
}

/// One of our programs: that of the command line, or the one that the tests would take.
fn own(given: Option<&Path>, name: &str) -> Result<String> {
    given.map_or_else(|| tests::edge::binary(name), existing)
}

/// A path relative to the directory of this program.
fn beside(path: &str) -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directory = program.parent().context("this program lies nowhere")?;
    Ok(directory.join(path))
}

fn existing(path: &Path) -> Result<String> {
    let path = path
        .canonicalize()
        .with_context(|| format!("no program {}", path.display()))?;
    Ok(path.to_str().context("its path is not UTF-8")?.to_owned())
}

/// First line of what `--version` says, on whichever stream.
fn version(program: &str) -> String {
    let Ok(output) = Command::new(program).arg("--version").output() else {
        return String::new();
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or_default().trim().to_owned()
}
