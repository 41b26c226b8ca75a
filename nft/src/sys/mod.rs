//! The only module that calls libnftnl (and `fcntl`, `setsockopt` for its socket): everything above it is safe Rust.
//!
//! The crate `nftnl` builds batches ([`nftnl::Batch`], [`nftnl::NlMsg`]) but has no interval sets, maps, `fib`,
//! `exthdr`, `notrack`, named counters, table flags or parsing of dumps. Each file here wraps one libnftnl object for
//! both directions: built from plain data for a message, and read back to plain data from a dump.
#![expect(
    unsafe_code,
    reason = "libnftnl and socket options are C interfaces; each call is wrapped here"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "libnftnl takes attribute numbers as u16, its headers give them as u32, and all are below 32"
)]

mod chain;
mod counter;
mod expression;
mod rule;
mod set;
mod set_entry;
mod socket;
mod table;

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;

use nftnl_sys::{self as sys, libc};

pub(crate) use chain::{Chain, ChainHook};
pub(crate) use counter::{COUNTER, CounterObject, Object};
pub(crate) use expression::{Attribute, BorrowedExpression, Expression, attribute};
pub(crate) use rule::Rule;
pub(crate) use set::{Element, ElementTarget, Set, SetElements, SetHeader};
pub(crate) use set_entry::{SetEntry, parse_entries};
pub(crate) use socket::Socket;
pub(crate) use table::Table;

/// The kernel's header of every nftables message is `nlmsghdr` (16 bytes) and `nfgenmsg` (4 bytes).
const HEADERS_LEN: usize = 20;
/// Where `nfgenmsg` begins.
const NFGENMSG: usize = 16;

/// A complete netlink message, aligned and long enough for libnftnl's parsers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    /// `None` unless the bytes are one whole, aligned nftables message.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let length: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
        let whole = usize::try_from(u32::from_ne_bytes(length)) == Ok(bytes.len());
        let aligned = Self(bytes).header().is_aligned();
        (whole && aligned && bytes.len() >= HEADERS_LEN).then_some(Self(bytes))
    }

    /// The value of the first attribute, a number in network byte order.
    pub(crate) fn first_number(self) -> Option<u32> {
        let value = self.0.get(HEADERS_LEN + 4..HEADERS_LEN + 8)?;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    }

    /// `NFPROTO_*` of what the message is about: the first byte of `nfgenmsg`.
    pub(crate) fn family(self) -> u8 {
        self.0.get(NFGENMSG).copied().unwrap_or_default()
    }

    fn header(self) -> *const libc::nlmsghdr {
        self.0.as_ptr().cast()
    }
}

/// Which verb an nftables message has: type and netlink flags.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verb {
    /// `NFT_MSG_*` of `linux/netfilter/nf_tables.h`.
    pub(crate) message: i32,
    /// `NLM_F_*` of `linux/netlink.h`.
    pub(crate) flags: i32,
}

/// A message under construction, in a buffer with room for the largest nftables message. Only this module makes one.
#[derive(Debug)]
pub(crate) struct OpenMessage(*mut libc::nlmsghdr);

/// Something that can be the payload of an nftables message.
pub(crate) trait Payload {
    /// Appends the attributes to the message.
    fn append(&self, message: &OpenMessage);

    /// `NFPROTO_*` of the message: `inet` unless [`OfFamily`] says something else.
    fn family(&self) -> u8 {
        nftnl::ProtoFamily::Inet as u8
    }
}

/// A payload for another family than `inet`; the family 0 of a dump means all of them.
pub(crate) struct OfFamily<'a>(pub(crate) u8, pub(crate) &'a dyn Payload);

impl Payload for OfFamily<'_> {
    fn append(&self, message: &OpenMessage) {
        self.1.append(message);
    }

    fn family(&self) -> u8 {
        self.0
    }
}

/// A message without attributes.
#[derive(Debug)]
pub(crate) struct NoPayload;

impl Payload for NoPayload {
    fn append(&self, _: &OpenMessage) {}
}

/// Writes one message.
///
/// # Safety
/// `buffer` must have room for [`nftnl::nft_nlmsg_maxsize`] bytes.
unsafe fn write(buffer: *mut c_void, seq: u32, verb: Verb, payload: &dyn Payload) {
    let kind = u16::try_from(verb.message).unwrap_or_default();
    let flags = u16::try_from(verb.flags).unwrap_or_default();
    let family = u16::from(payload.family());
    // SAFETY: the caller vouches for the buffer; the header takes its first 20 bytes.
    let header =
        unsafe { sys::nftnl_nlmsg_build_hdr(buffer.cast::<c_char>(), kind, family, flags, seq) };
    payload.append(&OpenMessage(header));
}

/// A message on its own (not in a batch), as bytes.
pub(crate) fn to_bytes(seq: u32, verb: Verb, payload: &dyn Payload) -> Vec<u8> {
    let size = usize::try_from(nftnl::nft_nlmsg_maxsize()).unwrap_or(usize::MAX);
    // Words, because a netlink message must be aligned to four bytes.
    let mut buffer = vec![0_u32; size.div_ceil(4)];
    let start = buffer.as_mut_ptr();
    // SAFETY: the buffer has `nft_nlmsg_maxsize` bytes.
    unsafe { write(start.cast(), seq, verb, payload) };
    let length = usize::try_from(buffer.first().copied().unwrap_or_default()).unwrap_or_default();
    let words = buffer.iter().take(length.div_ceil(4));
    words
        .flat_map(|word| word.to_ne_bytes())
        .take(length)
        .collect()
}

/// A message of a batch, which remembers the number that the batch gave it.
pub(crate) struct BatchMessage<'a> {
    verb: Verb,
    payload: &'a dyn Payload,
    seq: Cell<u32>,
}

impl<'a> BatchMessage<'a> {
    pub(crate) fn new(verb: Verb, payload: &'a dyn Payload) -> Self {
        Self {
            verb,
            payload,
            seq: Cell::new(0),
        }
    }

    /// Its number, once it is in a batch.
    pub(crate) fn seq(&self) -> u32 {
        self.seq.get()
    }
}

// SAFETY: `write` writes one message, none of whose attributes is longer than netlink allows.
unsafe impl nftnl::NlMsg for BatchMessage<'_> {
    /// The verb is our own, since `nftnl` knows only adding and deleting.
    unsafe fn write(&self, buffer: *mut c_void, seq: u32, _: nftnl::MsgType) {
        self.seq.set(seq);
        // SAFETY: the caller vouches for the buffer.
        unsafe { write(buffer, seq, self.verb, self.payload) };
    }
}

/// A batch without its end, which the kernel checks and then drops: what `nft --check` sends.
pub(crate) fn unfinished(batch: &nftnl::Batch) -> Vec<u8> {
    let raw = batch.as_raw_batch().as_ptr();
    // SAFETY: the batch is alive.
    let pages = unsafe { sys::nftnl_batch_iovec_len(raw) }.unsigned_abs();
    let empty = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    let mut vectors = vec![empty; usize::try_from(pages).unwrap_or_default()];
    // SAFETY: the batch is alive; there is room for `pages` vectors.
    unsafe { sys::nftnl_batch_iovec(raw, vectors.as_mut_ptr(), pages) };
    let bytes = |v: &libc::iovec| {
        // SAFETY: each vector is a page of the batch.
        unsafe { std::slice::from_raw_parts(v.iov_base.cast::<u8>(), v.iov_len) }
    };
    vectors
        .iter()
        .filter(|v| !v.iov_base.is_null())
        .flat_map(bytes)
        .copied()
        .collect()
}

/// What libnftnl's allocators return. Out of memory ends the process, as it does everywhere in Rust.
fn allocated<T>(pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer)
        .unwrap_or_else(|| std::alloc::handle_alloc_error(std::alloc::Layout::new::<usize>()))
}

/// A name for C. Names are checked for zero bytes before they come here; one is cut at it rather than refused.
fn c_string(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

/// Copies a string that libnftnl lends.
///
/// # Safety
/// `pointer` must be null or point to a string that ends with a zero and lives for the call.
unsafe fn copied_text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(pointer) };
    Some(text.to_string_lossy().into_owned())
}

/// Copies bytes that libnftnl lends.
///
/// # Safety
/// `pointer` must be null or point to `len` bytes that live for the call.
unsafe fn copied_bytes(pointer: *const c_void, len: u32) -> Option<Vec<u8>> {
    if pointer.is_null() {
        return None;
    }
    let len = usize::try_from(len).ok()?;
    // SAFETY: not null, and the caller vouches for the length.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), len) };
    Some(bytes.to_vec())
}
