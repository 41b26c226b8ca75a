//! TUN links: packets of the kernel as bytes of a file.
//!
//! Every frame begins with a virtio-net header ([`shared::offload::VnetHdr`]); what the kernel may leave to us is asked
//! for on every open ([`Offload`]), since it is a property of the link that outlives the process on a persistent one.
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use shared::model::InterfaceName;
use shared::offload::{FRAME_TAILROOM, VNET_HDR_LEN};

use crate::sys;

const DEVICE: &str = "/dev/net/tun";

/// Room for any frame and the tailroom that segmentation asks for: a large packet has at most 65,535 bytes behind the
/// IPv6 header (`GSO_LEGACY_MAX_SIZE` of the kernel's `include/linux/netdevice.h` is 65,536 with all headers).
pub const FRAME_BUFFER_LEN: usize = VNET_HDR_LEN + 40 + 65_535 + FRAME_TAILROOM;

/// What the kernel may hand over unfinished, from nothing to everything: `TUN_F_*` of `include/uapi/linux/if_tun.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Offload {
    /// Complete packets.
    None,
    /// Packets without checksum.
    Checksum,
    /// And TCP segments of one flow as one large packet.
    Tso,
    /// And UDP datagrams likewise (kernel 6.2).
    #[default]
    Uso,
}

impl Offload {
    const fn mask(self) -> libc::c_uint {
        let tso = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        match self {
            Self::None => 0,
            Self::Checksum => libc::TUN_F_CSUM,
            Self::Tso => tso,
            Self::Uso => tso | libc::TUN_F_USO4 | libc::TUN_F_USO6,
        }
    }

    const fn next_lower(self) -> Option<Self> {
        match self {
            Self::Uso => Some(Self::Tso),
            Self::Tso => Some(Self::Checksum),
            Self::Checksum => Some(Self::None),
            Self::None => None,
        }
    }
}

/// What to open.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the link, which is made if there is none.
    pub name: InterfaceName,
    /// Whether the link stays when it is closed, also when an earlier opening said otherwise.
    pub persist: bool,
    /// The most to ask for.
    pub offload: Offload,
    /// Open one of several queues; all queues of a link must say so.
    pub multi_queue: bool,
}

/// Why a TUN link can't be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel has no TUN, or the container has no such file.
    #[error(
        "{DEVICE} does not exist: load the kernel module with `modprobe tun`, or give the container the device"
    )]
    NoDevice(#[source] io::Error),
    /// The file may not be opened.
    #[error(
        "{DEVICE} may not be opened: allow the device to the service or container (systemd: DeviceAllow={DEVICE}), and give \
         it the mode 0666, as udev does, for a user other than root"
    )]
    DeviceForbidden(#[source] io::Error),
    /// The link may not be made or attached to.
    #[error(
        "the TUN link {name} may not be made or attached to: run as root or with CAP_NET_ADMIN"
    )]
    Permission {
        /// Name of the link.
        name: InterfaceName,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the TUN link {name} is in use by another process: stop that process, or choose another interface name"
    )]
    InUse {
        /// Name of the link.
        name: InterfaceName,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is such a link, but it is not what we can attach to.
    #[error(
        "there is a link {name} that is no TUN link of this kind: choose another interface name, or remove it with `ip link delete {name}` if nobody needs it"
    )]
    NotTun {
        /// Name of the link.
        name: InterfaceName,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else.
    #[error("the TUN link {name} can't be set up ({operation})")]
    Other {
        /// Name of the link.
        name: InterfaceName,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// One queue of a TUN link. Closing it removes the link, unless that is persistent.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: InterfaceName,
    offload: Offload,
}

impl Tun {
    /// Make the link or attach to it, and set its offloads. The link is neither up nor has it addresses.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let file = open_device(Path::new(DEVICE))?;
        let name = &options.name;
        sys::tun::set_interface(file.as_fd(), name.as_str(), flags(options))
            .map_err(|source| attach_error(name.clone(), source))?;
        Self::set_up(file, options)
    }

    /// Go on with a queue that an earlier process had open: what the kernel has put into it since then is read first.
    ///
    /// # Errors
    /// It is no queue of this link, or the link it belonged to is no more.
    pub fn adopt(queue: OwnedFd, options: &Options) -> Result<Self, OpenError> {
        let name = &options.name;
        let not_this = |source| OpenError::NotTun {
            name: name.clone(),
            source,
        };
        let (attached_to, attached_as) = sys::tun::interface(queue.as_fd()).map_err(not_this)?;
        let expected = flags(options);
        if attached_to != name.as_str() || attached_as & expected != expected {
            return Err(not_this(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        // The one who opened it had it so, but what is not so would stand still with the first empty queue.
        rustix::io::ioctl_fionbio(&queue, true).map_err(|error| not_this(error.into()))?;
        Self::set_up(queue.into(), options)
    }

    fn set_up(file: File, options: &Options) -> Result<Self, OpenError> {
        let name = options.name.clone();
        let other = |operation| {
            let name = name.clone();
            move |source| OpenError::Other {
                name,
                operation,
                source,
            }
        };
        let header_len = libc::c_int::try_from(VNET_HDR_LEN).unwrap_or_default();
        sys::tun::set_vnet_hdr_len(file.as_fd(), header_len)
            .map_err(other("length of the virtio-net header"))?;
        sys::tun::set_persist(file.as_fd(), options.persist).map_err(other("persistence"))?;
        let offload = set_offload(&file, options.offload).map_err(other("offloads"))?;
        Ok(Self {
            file,
            name,
            offload,
        })
    }

    /// Name of the link.
    pub const fn name(&self) -> &InterfaceName {
        &self.name
    }

    /// What the kernel agreed to.
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    /// Change whether the link stays when it is closed.
    pub fn set_persist(&self, persist: bool) -> io::Result<()> {
        sys::tun::set_persist(self.file.as_fd(), persist)
    }

    /// Read one frame into a buffer of [`FRAME_BUFFER_LEN`]: its virtio-net header and the packet. `WouldBlock` when
    /// there is none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().saturating_sub(FRAME_TAILROOM);
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        Ok(rustix::io::read(&self.file, buffer)?)
    }

    /// Write one frame: its virtio-net header and the packet.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.file, frame)?;
        Ok(())
    }

    /// Write one frame whose header stands elsewhere.
    pub fn write_behind(&self, header: &[u8], packet: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(header), IoSlice::new(packet)];
        rustix::io::writev(&self.file, &parts)?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How a queue is attached (`IFF_*` of `include/uapi/linux/if_tun.h`).
fn flags(options: &Options) -> libc::c_short {
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if options.multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    libc::c_short::try_from(flags).unwrap_or_default() // all below 0x8000
}

fn open_device(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => OpenError::DeviceForbidden(source),
            _ => OpenError::NoDevice(source), // ENOENT: no such file; ENODEV, ENXIO: no such driver
        })
}

fn attach_error(name: InterfaceName, source: io::Error) -> OpenError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission { name, source },
        Some(libc::EBUSY) => OpenError::InUse { name, source },
        Some(libc::EINVAL) => OpenError::NotTun { name, source },
        _ => OpenError::Other {
            name,
            operation: "attach",
            source,
        },
    }
}

/// Ask for the most and go down until the kernel agrees (it answers `EINVAL` to flags that it does not know).
fn set_offload(file: &File, most: Offload) -> io::Result<Offload> {
    let mut offload = most;
    loop {
        match sys::tun::set_offload(file.as_fd(), offload.mask()) {
            Ok(()) => return Ok(offload),
            Err(error) => offload = offload.next_lower().ok_or(error)?,
        }
    }
}

#[cfg(test)]
mod tests;
