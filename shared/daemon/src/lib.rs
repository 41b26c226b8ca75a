//! What both daemons share.
pub mod datapath;
