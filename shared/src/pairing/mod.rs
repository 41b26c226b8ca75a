//! How a LAN host joins a gateway: one line of text carries it there, everything else is said inside of WireGuard. Pure.
//!
//! 1. `gateway invite` makes a key for the invitation, gives the device a peer with it that may call the pairing service and
//!    nothing else, and prints the private key with all that it takes to call: the [`Token`].
//! 2. `lan-server join` calls as that peer. It needs no TUN device, and changes nothing on its host: [`Caller`] makes the few
//!    packets itself.
//! 3. It asks for the [`Offer`], a person agrees, and it sends the public key that it has made. The gateway answers with a
//!    preshared key, and knows the LAN host by these keys from then on. The token is used.
//!
//! | file | what |
//! |---|---|
//! | `token.rs` | the line of text |
//! | `message.rs` | what is asked and answered, as JSON |
//! | `frame.rs` | a message in datagrams |
//! | `packet.rs` | a datagram as the IP packet that goes through the tunnel |
//! | `caller.rs` | the LAN host's side of the conversation |
pub mod caller;
pub mod frame;
pub mod message;
mod packet;
pub mod token;

pub use caller::Caller;
pub use message::{Offer, Publish, Reply, Request};
pub use token::{Token, TokenError};

/// UDP port of the pairing service, at the gateway's tunnel address. It can be called by invited peers alone.
pub const PORT: u16 = 50517;

/// How long a token works, in seconds.
pub const TOKEN_LIFE_SECS: u64 = 15 * 60;
