//! Elements of sets that are not ours: every kind of key there is, read and never written.
use std::ffi::{c_int, c_void};

use nftnl_sys::{self as sys, libc};

use super::set::Set;
use super::{ElementTarget, Message, copied_bytes, copied_text};

/// `NFT_SET_ELEM_CATCHALL` of `linux/netfilter/nf_tables.h`.
const CATCH_ALL: u32 = 2;

/// An element as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetEntry {
    /// Empty for the element that stands for all others.
    pub(crate) key: Vec<u8>,
    /// Of intervals of several fields: the last key.
    pub(crate) last: Option<Vec<u8>>,
    /// Of intervals of one field: `true` for the first key after one.
    pub(crate) ends: bool,
    /// Whether it stands for all others.
    pub(crate) catch_all: bool,
    /// Of verdict maps.
    pub(crate) target: Option<ElementTarget>,
}

/// Reads a `NFT_MSG_NEWSETELEM`.
pub(crate) fn parse_entries(message: Message<'_>) -> Option<Vec<SetEntry>> {
    let set = Set::empty();
    // SAFETY: `Message` is a whole message; the set is alive.
    let result = unsafe { sys::nftnl_set_elems_nlmsg_parse(message.header(), set.raw()) };
    if result < 0 {
        return None;
    }
    let mut entries: Vec<SetEntry> = Vec::new();
    let data = (&raw mut entries).cast::<c_void>();
    // SAFETY: the set is alive; `collect` gets `data` back as the vector that it is, which lives for the call.
    unsafe { sys::nftnl_set_elem_foreach(set.raw(), Some(collect), data) };
    Some(entries)
}

/// Callback for each element of a set.
///
/// # Safety
/// `element` must be alive and `data` a pointer to a `Vec<SetEntry>` that nobody else uses.
unsafe extern "C" fn collect(element: *mut sys::nftnl_set_elem, data: *mut c_void) -> c_int {
    // SAFETY: the caller vouches for it.
    let entries = unsafe { &mut *data.cast::<Vec<SetEntry>>() };
    // SAFETY: the caller vouches for it.
    entries.push(unsafe { SetEntry::from_raw(element) });
    0
}

impl SetEntry {
    /// # Safety
    /// `raw` must be alive.
    unsafe fn from_raw(raw: *mut sys::nftnl_set_elem) -> Self {
        // SAFETY: alive.
        let has = |attribute: u32| unsafe { sys::nftnl_set_elem_is_set(raw, attribute as u16) };
        let number = |attribute: u32| {
            // SAFETY: alive and present; only attributes that are a u32 are asked for.
            has(attribute).then(|| unsafe { sys::nftnl_set_elem_get_u32(raw, attribute as u16) })
        };
        let bytes = |attribute: u32| {
            if !has(attribute) {
                return None;
            }
            let mut len = 0;
            // SAFETY: alive; libnftnl writes the length.
            let data = unsafe { sys::nftnl_set_elem_get(raw, attribute as u16, &raw mut len) };
            // SAFETY: null, or `len` bytes that the element owns.
            unsafe { copied_bytes(data, len) }
        };
        let flags = number(sys::NFTNL_SET_ELEM_FLAGS).unwrap_or_default();
        let target = number(sys::NFTNL_SET_ELEM_VERDICT).map(|verdict| {
            let attribute = sys::NFTNL_SET_ELEM_CHAIN as u16;
            // SAFETY: alive; the attribute is a string, or absent and then null.
            let chain = unsafe { sys::nftnl_set_elem_get_str(raw, attribute) };
            ElementTarget {
                verdict,
                // SAFETY: null or a string that the element owns.
                chain: unsafe { copied_text(chain) },
            }
        });
        Self {
            key: bytes(sys::NFTNL_SET_ELEM_KEY).unwrap_or_default(),
            last: bytes(sys::NFTNL_SET_ELEM_KEY_END),
            ends: flags & libc::NFT_SET_ELEM_INTERVAL_END.unsigned_abs() != 0,
            catch_all: flags & CATCH_ALL != 0,
            target,
        }
    }
}
