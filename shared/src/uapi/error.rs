//! What can be wrong with a request, and the number that tells the client.

/// The number in `errno=…` that ends each answer: zero, or a negated Linux error number
/// (`include/uapi/asm-generic/errno-base.h`, `errno.h`). `wg(8)` prints its `strerror`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// Done.
    Success,
    /// `EIO`: the device could not do it.
    Io,
    /// `E2BIG`: more than [`MAX_REQUEST_BYTES`](super::MAX_REQUEST_BYTES).
    TooBig,
    /// `ENODEV`: the device is gone.
    NoDevice,
    /// `EINVAL`: unknown key, or a value that the key can't have.
    Invalid,
    /// `EPROTO`: not the protocol's form.
    Protocol,
    /// `EADDRINUSE`: the listen port belongs to someone else.
    AddressInUse,
}

impl Errno {
    /// As it stands in the answer.
    pub const fn number(self) -> i32 {
        match self {
            Self::Success => 0,
            Self::Io => -5,
            Self::TooBig => -7,
            Self::NoDevice => -19,
            Self::Invalid => -22,
            Self::Protocol => -71,
            Self::AddressInUse => -98,
        }
    }

    /// The lines that end an answer.
    pub fn answer(self) -> String {
        format!("errno={}\n\n", self.number())
    }
}

/// Why a request is not carried out. Never contains a value: it may be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The first line is neither `get=1` nor `set=1`.
    #[error("a request begins with \"get=1\" or \"set=1\"; this one does not")]
    UnknownOperation,
    /// Something between `get=1` and the empty line.
    #[error("\"get=1\" must be followed by an empty line")]
    TrailingAfterGet,
    /// The connection ended before the empty line.
    #[error("the request ended before its empty line; nothing was changed")]
    Truncated,
    /// A line of more than [`MAX_LINE_BYTES`](super::MAX_LINE_BYTES).
    #[error("line {line} has more than {max} bytes", max = super::MAX_LINE_BYTES)]
    LineTooLong {
        /// Counted from 1, the operation.
        line: usize,
    },
    /// More than [`MAX_REQUEST_BYTES`](super::MAX_REQUEST_BYTES).
    #[error("the request has more than {max} bytes; send it in parts", max = super::MAX_REQUEST_BYTES)]
    TooLarge,
    /// A line without `=`, or not UTF-8.
    #[error("line {line} is not of the form key=value")]
    NotKeyValue {
        /// Counted from 1, the operation.
        line: usize,
    },
    /// A key that a device or peer does not have, or a device's key behind the first `public_key`.
    #[error("line {line}: a {section} has no key \"{key}\"")]
    UnknownKey {
        /// Counted from 1, the operation.
        line: usize,
        /// `device` before the first `public_key`, else `peer`.
        section: &'static str,
        /// Its beginning, control characters escaped.
        key: String,
    },
    /// A value that the key can't have.
    #[error("line {line}: {key} must be {expected}")]
    Value {
        /// Counted from 1, the operation.
        line: usize,
        /// Whose value.
        key: &'static str,
        /// What would be right.
        expected: &'static str,
    },
}

impl RequestError {
    /// What the client is told.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::UnknownOperation
            | Self::TrailingAfterGet
            | Self::UnknownKey { .. }
            | Self::Value { .. } => Errno::Invalid,
            Self::Truncated | Self::LineTooLong { .. } | Self::NotKeyValue { .. } => {
                Errno::Protocol
            }
            Self::TooLarge => Errno::TooBig,
        }
    }

    /// Whether it is unknown where the next request begins, so that the connection must end.
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::UnknownOperation
            | Self::TrailingAfterGet
            | Self::Truncated
            | Self::LineTooLong { .. }
            | Self::TooLarge => true,
            Self::NotKeyValue { .. } | Self::UnknownKey { .. } | Self::Value { .. } => false,
        }
    }
}
