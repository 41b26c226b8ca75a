//! `nftnl_obj`: stateful objects of a table, of which we use named counters.
use std::ptr::NonNull;

use nftnl_sys as sys;

use super::{Message, OpenMessage, Payload, allocated, c_string, copied_text};

/// A stateful object.
#[derive(Debug)]
pub(crate) struct Object(NonNull<sys::nftnl_obj>);

/// A named counter and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CounterObject {
    pub(crate) name: String,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// `NFT_OBJECT_COUNTER` of `linux/netfilter/nf_tables.h`.
pub(crate) const COUNTER: u32 = 1;

impl Object {
    fn empty() -> Self {
        // SAFETY: takes no arguments; the result is checked.
        Self(allocated(unsafe { sys::nftnl_obj_alloc() }))
    }

    /// All objects of a table: what a dump asks for.
    pub(crate) fn all(table: &str) -> Self {
        let mut object = Self::empty();
        object.set_text(sys::NFTNL_OBJ_TABLE, table);
        object
    }

    /// A named counter; `packets` and `bytes` are where it begins.
    pub(crate) fn counter(table: &str, counter: &CounterObject) -> Self {
        let mut object = Self::all(table);
        object.set_text(sys::NFTNL_OBJ_NAME, &counter.name);
        // The type comes first: libnftnl looks up the meaning of the attributes above NFTNL_OBJ_BASE by it.
        // SAFETY: the object is alive; the attribute is a u32.
        unsafe { sys::nftnl_obj_set_u32(object.0.as_ptr(), sys::NFTNL_OBJ_TYPE as u16, COUNTER) };
        for (attribute, value) in [
            (sys::NFTNL_OBJ_CTR_PKTS, counter.packets),
            (sys::NFTNL_OBJ_CTR_BYTES, counter.bytes),
        ] {
            // SAFETY: the object is alive and a counter; both attributes are a u64.
            unsafe { sys::nftnl_obj_set_u64(object.0.as_ptr(), attribute as u16, value) };
        }
        object
    }

    /// Reads a `NFT_MSG_NEWOBJ`.
    pub(crate) fn parse(message: Message<'_>) -> Option<Self> {
        let object = Self::empty();
        // SAFETY: `Message` is a whole message; the object is alive.
        let result = unsafe { sys::nftnl_obj_nlmsg_parse(message.header(), object.0.as_ptr()) };
        (result >= 0).then_some(object)
    }

    /// Its name.
    pub(crate) fn name(&self) -> Option<String> {
        // SAFETY: the object is alive; the attribute is a string.
        let text = unsafe { sys::nftnl_obj_get_str(self.0.as_ptr(), sys::NFTNL_OBJ_NAME as u16) };
        // SAFETY: null or a string that the object owns.
        unsafe { copied_text(text) }
    }

    /// `NFT_OBJECT_*`.
    pub(crate) fn kind(&self) -> u32 {
        // SAFETY: the object is alive; the attribute is a u32.
        unsafe { sys::nftnl_obj_get_u32(self.0.as_ptr(), sys::NFTNL_OBJ_TYPE as u16) }
    }

    /// Name and value; `None` if it is another kind of object.
    pub(crate) fn as_counter(&self) -> Option<CounterObject> {
        if self.kind() != COUNTER {
            return None;
        }
        let value = |attribute: u32| {
            // SAFETY: the object is alive and a counter; both attributes are a u64. An absent one reads as 0.
            unsafe { sys::nftnl_obj_get_u64(self.0.as_ptr(), attribute as u16) }
        };
        Some(CounterObject {
            name: self.name()?,
            packets: value(sys::NFTNL_OBJ_CTR_PKTS),
            bytes: value(sys::NFTNL_OBJ_CTR_BYTES),
        })
    }

    fn set_text(&mut self, attribute: u32, text: &str) {
        let text = c_string(text);
        // SAFETY: the object is alive; only attributes that are strings are set, and libnftnl copies the string.
        unsafe { sys::nftnl_obj_set_str(self.0.as_ptr(), attribute as u16, text.as_ptr()) };
    }
}

impl Payload for Object {
    fn append(&self, message: &OpenMessage) {
        // SAFETY: an open message has room; the object is alive.
        unsafe { sys::nftnl_obj_nlmsg_build_payload(message.0, self.0.as_ptr()) };
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: allocated by libnftnl and freed once.
        unsafe { sys::nftnl_obj_free(self.0.as_ptr()) };
    }
}
