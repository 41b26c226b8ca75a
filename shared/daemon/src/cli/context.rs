//! Where a command finds configuration and daemon.
use std::marker::PhantomData;
use std::path::PathBuf;

use super::load;
use crate::admin;
use crate::admin::client::Client;
use crate::error::Failure;
use crate::product::{Product, Settings};

/// What the arguments that all commands have in common come to.
#[derive(Debug)]
pub struct Context<P> {
    /// The configuration file.
    pub config_path: PathBuf,
    socket: Option<PathBuf>,
    product: PhantomData<P>,
}

impl<P: Product> Context<P> {
    pub(super) fn new(config_path: PathBuf, socket: Option<PathBuf>) -> Self {
        Self {
            config_path,
            socket,
            product: PhantomData,
        }
    }

    /// What the configuration says about the daemon.
    ///
    /// # Errors
    /// [`Failure::Configuration`].
    pub fn settings(&self) -> Result<Settings, Failure> {
        Ok(P::settings(&load::<P>(&self.config_path)?.config))
    }

    /// The daemon. With `--socket` the configuration is not read: it may be half edited.
    ///
    /// # Errors
    /// [`Failure::Configuration`].
    pub fn client(&self) -> Result<Client, Failure> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => admin::socket_path(&self.settings()?.runtime_dir, P::NAME),
        };
        Ok(Client::new(socket))
    }
}
