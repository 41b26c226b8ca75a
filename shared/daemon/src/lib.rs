//! WIP
pub mod uapi;
