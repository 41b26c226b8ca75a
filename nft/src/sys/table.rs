//! `nftnl_table`.
use std::ptr::NonNull;

use nftnl_sys as sys;

use super::{Message, OpenMessage, Payload, allocated, c_string, copied_text};

/// A table.
#[derive(Debug)]
pub(crate) struct Table(NonNull<sys::nftnl_table>);

impl Table {
    fn empty() -> Self {
        // SAFETY: takes no arguments; the result is checked.
        Self(allocated(unsafe { sys::nftnl_table_alloc() }))
    }

    /// The table of this name in family `inet`; `flags` of `None` don't mention any.
    pub(crate) fn new(name: &str, flags: Option<u32>) -> Self {
        let table = Self::empty();
        let name = c_string(name);
        // SAFETY: the table is alive, the name ends with a zero and is copied.
        unsafe {
            sys::nftnl_table_set_str(
                table.0.as_ptr(),
                sys::NFTNL_TABLE_NAME as u16,
                name.as_ptr(),
            )
        };
        if let Some(flags) = flags {
            // SAFETY: the table is alive; the attribute is a u32.
            unsafe {
                sys::nftnl_table_set_u32(table.0.as_ptr(), sys::NFTNL_TABLE_FLAGS as u16, flags);
            };
        }
        table
    }

    /// Reads a `NFT_MSG_NEWTABLE`.
    pub(crate) fn parse(message: Message<'_>) -> Option<Self> {
        let table = Self::empty();
        // SAFETY: `Message` is a whole message; the table is alive.
        let result = unsafe { sys::nftnl_table_nlmsg_parse(message.header(), table.0.as_ptr()) };
        (result >= 0).then_some(table)
    }

    /// Its name.
    pub(crate) fn name(&self) -> Option<String> {
        // SAFETY: the table is alive.
        let text =
            unsafe { sys::nftnl_table_get_str(self.0.as_ptr(), sys::NFTNL_TABLE_NAME as u16) };
        // SAFETY: null or a string that the table owns.
        unsafe { copied_text(text) }
    }

    /// `NFT_TABLE_F_*`.
    pub(crate) fn flags(&self) -> u32 {
        self.number(sys::NFTNL_TABLE_FLAGS)
    }

    /// Netlink port of the owner; 0 without one.
    pub(crate) fn owner(&self) -> u32 {
        self.number(sys::NFTNL_TABLE_OWNER)
    }

    fn number(&self, attribute: sys::nftnl_table_attr) -> u32 {
        // SAFETY: the table is alive; only attributes that are a u32 are asked for. An absent one reads as 0.
        unsafe { sys::nftnl_table_get_u32(self.0.as_ptr(), attribute as u16) }
    }
}

impl Payload for Table {
    fn append(&self, message: &OpenMessage) {
        // SAFETY: an open message has room; the table is alive.
        unsafe { sys::nftnl_table_nlmsg_build_payload(message.0, self.0.as_ptr()) };
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: allocated by libnftnl and freed once.
        unsafe { sys::nftnl_table_free(self.0.as_ptr()) };
    }
}
