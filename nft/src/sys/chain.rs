//! `nftnl_chain`.
use std::ptr::NonNull;

use nftnl_sys as sys;

use super::{Message, OpenMessage, Payload, allocated, c_string, copied_text};

/// A chain.
#[derive(Debug)]
pub(crate) struct Chain(NonNull<sys::nftnl_chain>);

/// What makes a chain a base chain, in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChainHook {
    /// `filter`, `nat`, `route`.
    pub(crate) kind: String,
    /// `NF_INET_*`.
    pub(crate) hook: u32,
    /// Lower ones come first.
    pub(crate) priority: i32,
    /// `NF_DROP` (0) or `NF_ACCEPT` (1).
    pub(crate) policy: u32,
}

impl Chain {
    fn empty() -> Self {
        // SAFETY: takes no arguments; the result is checked.
        Self(allocated(unsafe { sys::nftnl_chain_alloc() }))
    }

    /// A chain of a table; without a hook it is one that others jump to.
    pub(crate) fn new(table: &str, name: &str, hook: Option<&ChainHook>) -> Self {
        let mut chain = Self::empty();
        chain.set_text(sys::NFTNL_CHAIN_TABLE, table);
        chain.set_text(sys::NFTNL_CHAIN_NAME, name);
        if let Some(hook) = hook {
            chain.set_text(sys::NFTNL_CHAIN_TYPE, &hook.kind);
            chain.set_number(sys::NFTNL_CHAIN_HOOKNUM, hook.hook);
            chain.set_number(sys::NFTNL_CHAIN_POLICY, hook.policy);
            // SAFETY: the chain is alive; the attribute is an i32.
            unsafe {
                sys::nftnl_chain_set_s32(
                    chain.0.as_ptr(),
                    sys::NFTNL_CHAIN_PRIO as u16,
                    hook.priority,
                );
            };
        }
        chain
    }

    /// Reads a `NFT_MSG_NEWCHAIN`.
    pub(crate) fn parse(message: Message<'_>) -> Option<Self> {
        let chain = Self::empty();
        // SAFETY: `Message` is a whole message; the chain is alive.
        let result = unsafe { sys::nftnl_chain_nlmsg_parse(message.header(), chain.0.as_ptr()) };
        (result >= 0).then_some(chain)
    }

    /// Its table.
    pub(crate) fn table(&self) -> Option<String> {
        self.text(sys::NFTNL_CHAIN_TABLE)
    }

    /// Its name.
    pub(crate) fn name(&self) -> Option<String> {
        self.text(sys::NFTNL_CHAIN_NAME)
    }

    /// The kernel's number of it.
    pub(crate) fn handle(&self) -> u64 {
        // SAFETY: the chain is alive; the attribute is a u64. An absent one reads as 0.
        unsafe { sys::nftnl_chain_get_u64(self.0.as_ptr(), sys::NFTNL_CHAIN_HANDLE as u16) }
    }

    /// `None` for a chain that others jump to.
    pub(crate) fn hook(&self) -> Option<ChainHook> {
        Some(ChainHook {
            kind: self.text(sys::NFTNL_CHAIN_TYPE)?,
            hook: self.number(sys::NFTNL_CHAIN_HOOKNUM),
            // SAFETY: the chain is alive; the attribute is an i32.
            priority: unsafe {
                sys::nftnl_chain_get_s32(self.0.as_ptr(), sys::NFTNL_CHAIN_PRIO as u16)
            },
            policy: self.number(sys::NFTNL_CHAIN_POLICY),
        })
    }

    fn set_text(&mut self, attribute: sys::nftnl_chain_attr, text: &str) {
        let text = c_string(text);
        // SAFETY: the chain is alive; only attributes that are strings are set, and libnftnl copies the string.
        unsafe { sys::nftnl_chain_set_str(self.0.as_ptr(), attribute as u16, text.as_ptr()) };
    }

    fn set_number(&mut self, attribute: sys::nftnl_chain_attr, number: u32) {
        // SAFETY: the chain is alive; only attributes that are a u32 are set.
        unsafe { sys::nftnl_chain_set_u32(self.0.as_ptr(), attribute as u16, number) };
    }

    fn text(&self, attribute: sys::nftnl_chain_attr) -> Option<String> {
        // SAFETY: the chain is alive; only attributes that are strings are asked for.
        let text = unsafe { sys::nftnl_chain_get_str(self.0.as_ptr(), attribute as u16) };
        // SAFETY: null or a string that the chain owns.
        unsafe { copied_text(text) }
    }

    fn number(&self, attribute: sys::nftnl_chain_attr) -> u32 {
        // SAFETY: the chain is alive; only attributes that are a u32 are asked for. An absent one reads as 0.
        unsafe { sys::nftnl_chain_get_u32(self.0.as_ptr(), attribute as u16) }
    }
}

impl Payload for Chain {
    fn append(&self, message: &OpenMessage) {
        // SAFETY: an open message has room; the chain is alive.
        unsafe { sys::nftnl_chain_nlmsg_build_payload(message.0, self.0.as_ptr()) };
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: allocated by libnftnl and freed once.
        unsafe { sys::nftnl_chain_free(self.0.as_ptr()) };
    }
}
