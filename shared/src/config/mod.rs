//! Configuration: the text of a file → [`gateway::Gateway`] or [`lan_server::LanServer`], or an error that
//! names file, line, column and remedy. What has been checked here cannot be wrong further down.
pub mod common;
pub mod gateway;
pub mod lan_server;
