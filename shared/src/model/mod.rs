//! Newtypes for what the whole workspace talks about: a value that exists is valid.
pub mod iface;
pub mod key;

pub use iface::InterfaceName;
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
