//! Configuration: the text of a file → [`Gateway`] or [`LanServer`], or everything that is wrong with it, each with
//! file, line, column and remedy. What has been checked here cannot be wrong further down.
//!
//! The route of a file, module by module:
//!
//! 1. `document`: TOML → tables and values that know their place; unknown keys and wrong types are refused
//! 2. [`value`]: the text of one value → its type
//! 3. `fields`, `sources`, `refresh` and [`policy_test`] (both files), `gateway::draft`, `lan_server::draft`: every key of every table → a draft
//! 4. `check` (both files), `gateway::check`, `lan_server::check`: what has to fit together
//! 5. [`gateway`], [`lan_server`], [`common`]: the checked types that the draft turns into
//!
//! `report` collects what is found on the way, [`error`] is what the caller sees of it.
pub(crate) mod address;
mod check;
pub mod cloudflare;
pub mod common;
mod document;
pub mod error;
mod fields;
pub mod gateway;
pub mod lan_server;
pub mod policy_test;
mod refresh;
mod report;
mod sources;
pub mod toml_text;
pub mod value;

pub use address::is_private;
pub use document::TableKeys;
pub use error::{ConfigErrors, Diagnostic, Parsed, Place};
pub use gateway::Gateway;
pub use lan_server::LanServer;
pub use refresh::{ListUrl, Refresh};

#[cfg(test)]
mod tests;
