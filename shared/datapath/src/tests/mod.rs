//! Against the real kernel, in network namespaces of their own.
//!
//! ```text
//!   namespace "near"                            namespace "far"
//!   wg0 10.9.0.1, fd09::1                       wg0 10.9.0.2, fd09::2
//!     │ Datapath                                  │ Datapath
//!   veth 192.0.2.1, 2001:db8::1 ───────────── veth 192.0.2.2, 2001:db8::2
//! ```
mod end_to_end;
mod lifecycle;
mod under_load;
mod world;
