//! `nftnl_set` and `nftnl_set_elem`.
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use nftnl_sys::{self as sys, libc};

use super::{Message, OpenMessage, Payload, allocated, c_string, copied_bytes, copied_text};

/// A set or map, with or without elements.
#[derive(Debug)]
pub(crate) struct Set(NonNull<sys::nftnl_set>);

/// The elements of a set in one message: the same C object, another payload.
#[derive(Debug)]
pub(crate) struct SetElements(Set);

/// What defines a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetHeader {
    pub(crate) name: String,
    /// `NFT_SET_*`.
    pub(crate) flags: u32,
    /// nft's number of the type, which the kernel only remembers (`enum datatypes` of nft's `include/datatype.h`).
    pub(crate) key_type: u32,
    /// Bytes of a key.
    pub(crate) key_len: u32,
    /// `NFT_DATA_VERDICT` for a verdict map; `None` for a set.
    pub(crate) data_type: Option<u32>,
    /// Number of elements, told in advance for anonymous sets.
    pub(crate) size: Option<u32>,
    /// nft's own data.
    pub(crate) userdata: Vec<u8>,
}

/// An element: a key, or one end of an interval.
///
/// The order is that of keys, and at the same key the end of one interval before the start of the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    /// Network byte order.
    pub(crate) key: Vec<u8>,
    /// `true`: an interval starts here (or the set has no intervals); `false`: this is the first key after one.
    pub(crate) starts: bool,
    /// The interval that starts here reaches the last key, so that no end follows.
    pub(crate) open: bool,
    /// Map only.
    pub(crate) target: Option<ElementTarget>,
}

/// Where a verdict map leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ElementTarget {
    /// `NFT_JUMP`, `NF_ACCEPT` …, as the kernel's signed number.
    pub(crate) verdict: u32,
    pub(crate) chain: Option<String>,
}

/// nft's record on the last element when its interval reaches the end of the key space:
/// `NFTNL_UDATA_SET_ELEM_FLAGS` = `NFTNL_SET_ELEM_F_INTERVAL_OPEN`.
const INTERVAL_OPEN: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [sys::NFTNL_UDATA_SET_ELEM_FLAGS as u8, 4, a, b, c, d]
};

impl Set {
    pub(super) fn empty() -> Self {
        // SAFETY: takes no arguments; the result is checked.
        Self(allocated(unsafe { sys::nftnl_set_alloc() }))
    }

    pub(super) const fn raw(&self) -> *mut sys::nftnl_set {
        self.0.as_ptr()
    }

    /// All sets of a table: what a dump asks for.
    pub(crate) fn all(table: &str) -> Self {
        let mut set = Self::empty();
        set.set_text(sys::NFTNL_SET_TABLE, table);
        set.set_number(sys::NFTNL_SET_FAMILY, nftnl::ProtoFamily::Inet as u32);
        set
    }

    /// A set by its name.
    pub(crate) fn named(table: &str, name: &str) -> Self {
        let mut set = Self::all(table);
        set.set_text(sys::NFTNL_SET_NAME, name);
        set
    }

    /// A set to create; `id` is how messages of the same transaction refer to it.
    pub(crate) fn new(table: &str, header: &SetHeader, id: u32) -> Self {
        let mut set = Self::named(table, &header.name);
        set.set_number(sys::NFTNL_SET_FLAGS, header.flags);
        set.set_number(sys::NFTNL_SET_KEY_TYPE, header.key_type);
        set.set_number(sys::NFTNL_SET_KEY_LEN, header.key_len);
        set.set_number(sys::NFTNL_SET_ID, id);
        if let Some(data_type) = header.data_type {
            set.set_number(sys::NFTNL_SET_DATA_TYPE, data_type);
        }
        if let Some(size) = header.size {
            set.set_number(sys::NFTNL_SET_DESC_SIZE, size);
        }
        let data = header.userdata.as_ptr().cast::<c_void>();
        let len = u32::try_from(header.userdata.len()).unwrap_or_default();
        // SAFETY: the set is alive; libnftnl copies `len` bytes.
        unsafe {
            sys::nftnl_set_set_data(set.0.as_ptr(), sys::NFTNL_SET_USERDATA as u16, data, len)
        };
        set
    }

    /// Reads a `NFT_MSG_NEWSET`.
    pub(crate) fn parse(message: Message<'_>) -> Option<SetHeader> {
        let set = Self::empty();
        // SAFETY: `Message` is a whole message; the set is alive.
        let result = unsafe { sys::nftnl_set_nlmsg_parse(message.header(), set.0.as_ptr()) };
        if result < 0 {
            return None;
        }
        // SAFETY: the set is alive; the attribute is a string.
        let name = unsafe { sys::nftnl_set_get_str(set.0.as_ptr(), sys::NFTNL_SET_NAME as u16) };
        Some(SetHeader {
            // SAFETY: null or a string that the set owns.
            name: unsafe { copied_text(name) }?,
            flags: set.number(sys::NFTNL_SET_FLAGS).unwrap_or_default(),
            key_type: set.number(sys::NFTNL_SET_KEY_TYPE)?,
            key_len: set.number(sys::NFTNL_SET_KEY_LEN)?,
            data_type: set.number(sys::NFTNL_SET_DATA_TYPE),
            size: set.number(sys::NFTNL_SET_DESC_SIZE),
            userdata: Vec::new(),
        })
    }

    fn set_text(&mut self, attribute: sys::nftnl_set_attr, text: &str) {
        let text = c_string(text);
        // SAFETY: the set is alive; only attributes that are strings are set, and libnftnl copies the string.
        unsafe { sys::nftnl_set_set_str(self.0.as_ptr(), attribute as u16, text.as_ptr()) };
    }

    fn set_number(&mut self, attribute: sys::nftnl_set_attr, number: u32) {
        // SAFETY: the set is alive; only attributes that are a u32 are set.
        unsafe { sys::nftnl_set_set_u32(self.0.as_ptr(), attribute as u16, number) };
    }

    fn number(&self, attribute: sys::nftnl_set_attr) -> Option<u32> {
        // SAFETY: the set is alive.
        let present = unsafe { sys::nftnl_set_is_set(self.0.as_ptr(), attribute as u16) };
        // SAFETY: the set is alive; only attributes that are a u32 are asked for.
        present.then(|| unsafe { sys::nftnl_set_get_u32(self.0.as_ptr(), attribute as u16) })
    }
}

impl Payload for Set {
    fn append(&self, message: &OpenMessage) {
        // SAFETY: an open message has room; the set is alive.
        unsafe { sys::nftnl_set_nlmsg_build_payload(message.0, self.0.as_ptr()) };
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: allocated by libnftnl and freed once, with its elements.
        unsafe { sys::nftnl_set_free(self.0.as_ptr()) };
    }
}

impl SetElements {
    /// Most elements of one message. An element takes at most 330 bytes (a verdict with a chain name of 256), and the
    /// attribute that holds them all has a length of 16 bits.
    pub(crate) const MOST: usize = 128;

    /// All elements of a set: what a dump asks for.
    pub(crate) fn all(table: &str, set: &str) -> Self {
        Self(Set::named(table, set))
    }

    /// Elements to add or to delete; of a set created in the same transaction if `id` is given.
    pub(crate) fn new(table: &str, set: &str, id: Option<u32>, elements: &[&Element]) -> Self {
        assert!(
            elements.len() <= Self::MOST,
            "more elements than fit into one message"
        );
        let mut set = Set::named(table, set);
        if let Some(id) = id {
            set.set_number(sys::NFTNL_SET_ID, id);
        }
        for element in elements {
            // SAFETY: both are alive; the set takes the element over and frees it.
            unsafe { sys::nftnl_set_elem_add(set.0.as_ptr(), element.to_raw().as_ptr()) };
        }
        Self(set)
    }

    /// Reads a `NFT_MSG_NEWSETELEM`.
    pub(crate) fn parse(message: Message<'_>) -> Option<Vec<Element>> {
        let set = Set::empty();
        // SAFETY: `Message` is a whole message; the set is alive.
        let result = unsafe { sys::nftnl_set_elems_nlmsg_parse(message.header(), set.0.as_ptr()) };
        if result < 0 {
            return None;
        }
        let mut elements: Vec<Option<Element>> = Vec::new();
        let data = (&raw mut elements).cast::<c_void>();
        // SAFETY: the set is alive; `collect` gets `data` back as the vector that it is, which lives for the call.
        unsafe { sys::nftnl_set_elem_foreach(set.0.as_ptr(), Some(collect), data) };
        elements.into_iter().collect()
    }
}

/// Callback for each element of a set.
///
/// # Safety
/// `element` must be alive and `data` a pointer to a `Vec<Option<Element>>` that nobody else uses.
unsafe extern "C" fn collect(element: *mut sys::nftnl_set_elem, data: *mut c_void) -> c_int {
    // SAFETY: the caller vouches for it.
    let elements = unsafe { &mut *data.cast::<Vec<Option<Element>>>() };
    // SAFETY: the caller vouches for it.
    elements.push(NonNull::new(element).and_then(|element| unsafe { Element::from_raw(element) }));
    0
}

impl Payload for SetElements {
    fn append(&self, message: &OpenMessage) {
        // SAFETY: an open message has room, since there are at most `MOST` elements; the set is alive.
        unsafe { sys::nftnl_set_elems_nlmsg_build_payload(message.0, self.0.0.as_ptr()) };
    }
}

impl Element {
    /// A C element, which the caller must give to a set.
    fn to_raw(&self) -> NonNull<sys::nftnl_set_elem> {
        // SAFETY: takes no arguments; the result is checked.
        let raw = allocated(unsafe { sys::nftnl_set_elem_alloc() });
        set_bytes(raw, sys::NFTNL_SET_ELEM_KEY, &self.key);
        if !self.starts {
            let flags = libc::NFT_SET_ELEM_INTERVAL_END.unsigned_abs();
            // SAFETY: the element is alive; the attribute is a u32.
            unsafe {
                sys::nftnl_set_elem_set_u32(raw.as_ptr(), sys::NFTNL_SET_ELEM_FLAGS as u16, flags);
            };
        }
        if self.open {
            set_bytes(raw, sys::NFTNL_SET_ELEM_USERDATA, &INTERVAL_OPEN);
        }
        if let Some(target) = &self.target {
            let attribute = sys::NFTNL_SET_ELEM_VERDICT as u16;
            // SAFETY: the element is alive; the attribute is a u32.
            unsafe { sys::nftnl_set_elem_set_u32(raw.as_ptr(), attribute, target.verdict) };
            if let Some(chain) = &target.chain {
                let chain = c_string(chain);
                let attribute = sys::NFTNL_SET_ELEM_CHAIN as u16;
                // SAFETY: the element is alive; libnftnl copies the string.
                unsafe { sys::nftnl_set_elem_set_str(raw.as_ptr(), attribute, chain.as_ptr()) };
            }
        }
        raw
    }

    /// # Safety
    /// `raw` must be alive.
    unsafe fn from_raw(raw: NonNull<sys::nftnl_set_elem>) -> Option<Self> {
        let raw = raw.as_ptr();
        // SAFETY: alive.
        let has = |attribute: u32| unsafe { sys::nftnl_set_elem_is_set(raw, attribute as u16) };
        // SAFETY: alive; only attributes that are a u32 are asked for.
        let number = |attribute: u32| unsafe { sys::nftnl_set_elem_get_u32(raw, attribute as u16) };
        let bytes = |attribute: u32| {
            let mut len = 0;
            // SAFETY: alive; libnftnl writes the length.
            let data = unsafe { sys::nftnl_set_elem_get(raw, attribute as u16, &raw mut len) };
            // SAFETY: null, or `len` bytes that the element owns.
            unsafe { copied_bytes(data, len) }
        };
        let key = bytes(sys::NFTNL_SET_ELEM_KEY)?;
        let ends = has(sys::NFTNL_SET_ELEM_FLAGS)
            && number(sys::NFTNL_SET_ELEM_FLAGS) & libc::NFT_SET_ELEM_INTERVAL_END.unsigned_abs()
                != 0;
        let target = has(sys::NFTNL_SET_ELEM_VERDICT).then(|| {
            // SAFETY: alive; the attribute is a string, or absent and then null.
            let chain =
                unsafe { sys::nftnl_set_elem_get_str(raw, sys::NFTNL_SET_ELEM_CHAIN as u16) };
            ElementTarget {
                verdict: number(sys::NFTNL_SET_ELEM_VERDICT),
                // SAFETY: null or a string that the element owns.
                chain: unsafe { copied_text(chain) },
            }
        });
        let open = has(sys::NFTNL_SET_ELEM_USERDATA)
            && bytes(sys::NFTNL_SET_ELEM_USERDATA).is_some_and(|data| data == INTERVAL_OPEN);
        Some(Self {
            key,
            starts: !ends,
            open,
            target,
        })
    }
}

fn set_bytes(element: NonNull<sys::nftnl_set_elem>, attribute: u32, bytes: &[u8]) {
    assert!(bytes.len() <= 64, "a key has at most 64 bytes");
    let len = u32::try_from(bytes.len()).unwrap_or_default();
    let data = bytes.as_ptr().cast::<c_void>();
    // SAFETY: the element is alive; libnftnl copies `len` bytes, at most as many as a register has.
    unsafe { sys::nftnl_set_elem_set(element.as_ptr(), attribute as u16, data, len) };
}
