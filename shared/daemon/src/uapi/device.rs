//! The device behind the socket: a trait, and the running data path as its implementor.
use std::error::Error;

use shared::uapi::Errno;
use shared::wg::{DeviceChange, DeviceStatus};
use shared_datapath::{ApplyError, Control};
use shared_os::udp;

/// The device that a socket is about.
pub trait DeviceControl: Clone + Send + Sync + 'static {
    /// Make the whole change, or none of it.
    fn apply(&self, change: DeviceChange) -> impl Future<Output = Result<(), ControlError>> + Send;

    /// The device as it is.
    fn status(&self) -> impl Future<Output = Result<DeviceStatus, ControlError>> + Send;
}

/// Why the device did not do it.
#[derive(Debug, thiserror::Error)]
#[error("the device refused")]
pub struct ControlError {
    /// What the client is told.
    pub errno: Errno,
    /// The device's own words.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl DeviceControl for Control {
    async fn apply(&self, change: DeviceChange) -> Result<(), ControlError> {
        Control::apply(self, change)
            .await
            .map(drop)
            .map_err(|error| ControlError {
                errno: errno(&error),
                source: error.into(),
            })
    }

    async fn status(&self) -> Result<DeviceStatus, ControlError> {
        Control::status(self).await.map_err(|error| ControlError {
            errno: Errno::NoDevice,
            source: error.into(),
        })
    }
}

/// wireguard-go answers `EADDRINUSE` to a refused mark, too; we say what it was.
fn errno(error: &ApplyError) -> Errno {
    match error {
        ApplyError::Udp(udp::BindError::InUse { .. }) => Errno::AddressInUse,
        ApplyError::Udp(udp::BindError::Permission { .. } | udp::BindError::Mark { .. }) => {
            Errno::NotPermitted
        }
        ApplyError::Udp(
            udp::BindError::Setting { .. }
            | udp::BindError::Wait { .. }
            | udp::BindError::Other { .. },
        ) => Errno::Io,
        ApplyError::Gone(_) => Errno::NoDevice,
    }
}
