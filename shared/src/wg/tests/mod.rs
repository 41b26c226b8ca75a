//! Devices on a network in memory, with who listens on it. Time is what the test says.
mod configuration;
mod data;
mod flood;
mod handshake;
mod real_time;
mod time;
mod world;
