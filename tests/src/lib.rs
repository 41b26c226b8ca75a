//! The namespace world: hosts as network namespaces joined by veth pairs, real traffic between them, and the two
//! binaries under test in the middle. The end-to-end tests (`tests/netns`) and the demo (`script/demo`) are both built on it.
//!
//! | module | what |
//! |---|---|
//! | [`topology`] | namespaces and links, removed on drop, several worlds side by side |
//! | [`node`] | one host: commands, files and threads inside its namespaces |
//! | [`api`] | a caller of the admin API |
//! | [`daemon`] | a long-running program of a node: its log, signals, processor time, memory |
//! | [`docs`] | the documentation as data, and how its commands are tested |
//! | [`expect`] | wait until something holds, with the last reason why it did not |
//! | [`servers`] | servers that answer "who am I", and bulk transfers with checksums |
//! | [`web`] | web servers that answer whatever a test tells them to |
//! | [`keys`] | key pairs |
//! | [`world`] | the deployment of the documentation: internet, VPS, home network, cluster |
//! | [`edge`] | configuration and start of `gateway` and `lan-server` |
//! | [`wireguard_go`] | Debian's `wireguard-go` as a peer of ours |
//! | [`standin`] | the tunnel without the product, which proves the world itself |
//!
//! Nothing here touches links, routes, rules or switches of the namespace that the tests are started in.
#![warn(missing_docs)]

pub mod api;
pub mod daemon;
pub mod docs;
pub mod edge;
pub mod expect;
pub mod keys;
pub mod node;
pub mod privilege;
pub mod servers;
pub mod standin;
pub mod topology;
pub mod web;
pub mod wireguard_go;
pub mod world;
