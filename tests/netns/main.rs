//! End-to-end tests: the two real binaries in a [world](tests::world), real traffic, the real kernel.
//!
//! Every file is one behaviour; a topology that differs from the world's is drawn in its header. A test has a world of its
//! own, so any number of them run at the same time. `WG_EDGE_PAUSE=1` leaves a failed world up to look around.
mod service_manager;
mod support;

mod api_cli;
mod api_documented;
mod api_durable;
mod api_limits;
mod api_listener;
mod api_lists;
mod api_peers;
mod api_refused;
mod api_repeats;
mod api_secrets;
mod api_undisturbed;
mod apply;
mod bare_device;
mod cloudflare;
mod configuration;
mod doctor;
mod documented;
mod drift;
mod explain;
mod failover;
mod fd_store;
mod floods;
mod flows_cut;
mod footprint;
mod guard;
mod interop;
mod junk;
mod lan_refuses;
mod lifecycle;
mod metrics;
mod neighbours;
mod no_gap;
mod pairing;
mod path_mtu;
mod plan;
mod plan_warnings;
mod policy_tests;
mod probes;
mod readiness;
mod reload;
mod roaming;
mod roles;
mod simulation;
mod source_pool;
mod source_ports;
mod transfer;
mod unprivileged;
mod vips;
mod watchdog;
mod world_itself;
