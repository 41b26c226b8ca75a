//! What both daemons are made of: the composition of the pure core, the kernel and the command line. Each binary adds
//! its policy ([`product::Product`]) and nothing else.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | arguments, logging, exit codes |
//! | [`product`] | what a binary brings: name, parser, policy |
//! | [`model`], [`policy`] | the nouns and building blocks of a policy |
//! | [`app`] | composition root of `run`: builds every part once, owns the order of shutdown |
//! | [`uapi`], [`bare`] | `wg show`, `wg set`, and the device that knows nothing else |
//! | [`plane`] | configuration and members → model → kernel and device, or back |
//! | [`apply`], [`applies`] | who takes configurations, for good or on trial; how often that worked |
//! | [`reconcile`] | desired state → kernel, read back |
//! | [`plan`] | what a reload would do |
//! | [`simulation`] | what the rules of a configuration do with calls: its tests, `trace` |
//! | [`deviation`], [`drift`] | what others have changed since; that it is put right |
//! | [`cloudflare`] | the list of Cloudflare's networks kept up to date |
//! | [`readiness`] | whether all is as the configuration asks |
//! | [`report`], [`status`] | what the daemon knows of itself, and how a person reads it |
//! | [`pressure`] | what runs short before anything fails |
//! | [`probe`] | whether published services answer |
//! | [`doctor`], [`tls`] | which place on a path is broken; TLS as a client |
//! | [`history`], [`explain`] | the last minutes; what an error of Cloudflare's comes from |
//! | [`metrics`] | the status for Prometheus |
//! | [`admin`] | the admin API: status over the unix socket, and what a product adds |
//! | [`resolve`] | names of endpoints → addresses, again when handshakes fail |
//! | [`endpoints`] | where peers were, over a restart |
//! | [`watchdog`], [`fd_store`] | signs of life for systemd; what it keeps for the next process |
//! | [`down`] | removes everything that is ours |

pub mod admin;
pub mod app;
pub mod applies;
pub mod apply;
pub mod bare;
pub mod cli;
pub mod cloudflare;
pub mod deviation;
pub mod doctor;
pub mod down;
pub mod drift;
pub mod endpoints;
pub mod error;
pub mod explain;
pub mod fd_store;
pub mod history;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod obstacles;
pub mod plan;
pub mod plane;
pub mod policy;
pub mod pressure;
pub mod probe;
pub mod product;
pub mod readiness;
pub mod reconcile;
pub mod report;
pub mod resolve;
pub mod simulation;
pub mod status;
pub mod tls;
pub mod uapi;
pub mod watchdog;
