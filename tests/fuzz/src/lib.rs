//! Bodies of the fuzz targets: plain functions that take bytes and panic when a promise is broken.
//!
//! A target is a function here, one line in `fuzz_targets/`, a `[[bin]]` in `Cargo.toml`, an entry in [`TARGETS`] and a folder in
//! `corpus/`. Ordinary builds replay the corpora as tests (`tests/replay.rs`); `just fuzz TARGET SECONDS` looks for new inputs.
mod config_file;
mod packet_path;

pub use config_file::config_file;
pub use packet_path::{datagrams, tun_frames, tun_packets};

/// A target: the name of its folder in `corpus/` and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("config_file", config_file),
    ("datagrams", datagrams),
    ("tun_frames", tun_frames),
    ("tun_packets", tun_packets),
];
