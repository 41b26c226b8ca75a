//! A configuration's way with thousands of peers: what each change of the file, and each batch of the API, pays for again.
//!
//! `cargo bench -p gateway`.
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gateway::desired;
use gateway::members::Members;
use shared::config::cloudflare;
use shared::config::gateway::Gateway;
use shared_daemon::model::Environment;

criterion_group!(benches, parse, model);
criterion_main!(benches);

/// Peers of the file.
const PEERS: [u32; 2] = [1, 2000];

/// Text to checked configuration.
fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for peers in PEERS {
        let text = text(peers);
        group.bench_function(BenchmarkId::from_parameter(peers), |bencher| {
            bencher.iter(|| checked(black_box(&text)));
        });
    }
    group.finish();
}

/// Checked configuration to peers, routes and ruleset; none of it is text or netlink yet.
fn model(criterion: &mut Criterion) {
    let environment = Environment {
        wan: "eth0".parse().expect("a name"),
        wan_accepts_router_advertisements: false,
        cloudflare: cloudflare::networks(),
    };
    let mut group = criterion.benchmark_group("model");
    for peers in PEERS {
        let config = checked(&text(peers));
        let members = Members::default();
        group.bench_function(BenchmarkId::from_parameter(peers), |bencher| {
            bencher.iter(|| desired::model(black_box(&config), &environment, &members));
        });
    }
    group.finish();
}

fn checked(text: &str) -> Gateway {
    Gateway::parse(text, "gateway.toml")
        .expect("a valid configuration")
        .config
}

/// The configuration of the documentation, with as many peers that have a role.
fn text(peers: u32) -> String {
    let mut text = include_str!("../../packaging/examples/gateway.toml").to_owned();
    let first = Ipv4Addr::new(10, 17, 64, 0).to_bits();
    for number in 0..peers {
        let mut key = [7; 32];
        let (head, _) = key.split_at_mut(4);
        head.copy_from_slice(&number.to_be_bytes());
        write!(
            text,
            "\n[[peer]]\nname = \"peer-{number}\"\npublic_key = \"{}\"\naddress = \"{}\"\nrole = \"kube-admin\"\n",
            BASE64_STANDARD.encode(key),
            Ipv4Addr::from_bits(first + number),
        )
        .expect("a string takes all");
    }
    text
}
