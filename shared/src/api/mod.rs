//! What the admin API and `--json` say: used by server, command line and tests.
pub mod status;
