//! `nftnl_rule`.
use std::ffi::c_void;
use std::ptr::NonNull;

use nftnl_sys as sys;

use super::expression::BorrowedExpression;
use super::{
    Expression, Message, OpenMessage, Payload, allocated, c_string, copied_bytes, copied_text,
};

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule(NonNull<sys::nftnl_rule>);

/// What a dump tells about a rule.
#[derive(Debug)]
pub(crate) struct ParsedRule {
    pub(crate) chain: String,
    pub(crate) handle: u64,
    /// nft's own data: type-length-value records, one of which may be a comment.
    pub(crate) userdata: Vec<u8>,
}

impl Rule {
    fn empty() -> Self {
        // SAFETY: takes no arguments; the result is checked.
        Self(allocated(unsafe { sys::nftnl_rule_alloc() }))
    }

    /// All rules of a table, or of one of its chains: what a dump or a flush names.
    pub(crate) fn all(table: &str, chain: Option<&str>) -> Self {
        let mut rule = Self::empty();
        rule.set_text(sys::NFTNL_RULE_TABLE, table);
        if let Some(chain) = chain {
            rule.set_text(sys::NFTNL_RULE_CHAIN, chain);
        }
        rule
    }

    /// A rule at the end of a chain.
    pub(crate) fn new(
        table: &str,
        chain: &str,
        expressions: impl IntoIterator<Item = Expression>,
        userdata: &[u8],
    ) -> Self {
        let rule = Self::all(table, Some(chain));
        for expression in expressions {
            // SAFETY: both are alive; the rule takes the expression over and frees it.
            unsafe { sys::nftnl_rule_add_expr(rule.0.as_ptr(), expression.into_raw()) };
        }
        if !userdata.is_empty() {
            let len = u32::try_from(userdata.len()).unwrap_or_default();
            let data = userdata.as_ptr().cast::<c_void>();
            // SAFETY: the rule is alive; libnftnl copies `len` bytes.
            unsafe {
                sys::nftnl_rule_set_data(
                    rule.0.as_ptr(),
                    sys::NFTNL_RULE_USERDATA as u16,
                    data,
                    len,
                )
            };
        }
        rule
    }

    /// Reads a `NFT_MSG_NEWRULE`; `expression` is called for each of its expressions in order.
    pub(crate) fn parse(
        message: Message<'_>,
        mut expression: impl FnMut(&BorrowedExpression<'_>),
    ) -> Option<ParsedRule> {
        let rule = Self::empty();
        // SAFETY: `Message` is a whole message; the rule is alive.
        let result = unsafe { sys::nftnl_rule_nlmsg_parse(message.header(), rule.0.as_ptr()) };
        if result < 0 {
            return None;
        }
        rule.for_each_expression(&mut expression)?;
        let mut len = 0;
        let attribute = sys::NFTNL_RULE_USERDATA as u16;
        // SAFETY: the rule is alive; libnftnl writes the length.
        let data = unsafe { sys::nftnl_rule_get_data(rule.0.as_ptr(), attribute, &raw mut len) };
        Some(ParsedRule {
            chain: rule.text(sys::NFTNL_RULE_CHAIN)?,
            // SAFETY: the rule is alive; the attribute is a u64.
            handle: unsafe {
                sys::nftnl_rule_get_u64(rule.0.as_ptr(), sys::NFTNL_RULE_HANDLE as u16)
            },
            // SAFETY: null, or `len` bytes that the rule owns.
            userdata: unsafe { copied_bytes(data, len) }.unwrap_or_default(),
        })
    }

    fn for_each_expression(
        &self,
        expression: &mut impl FnMut(&BorrowedExpression<'_>),
    ) -> Option<()> {
        // SAFETY: the rule is alive and outlives the iterator.
        let iterator = NonNull::new(unsafe { sys::nftnl_expr_iter_create(self.0.as_ptr()) })?;
        // SAFETY: the iterator is alive until it is destroyed below.
        while let Some(next) = NonNull::new(unsafe { sys::nftnl_expr_iter_next(iterator.as_ptr()) })
        {
            // SAFETY: the rule owns the expression and outlives this borrow.
            expression(&unsafe { BorrowedExpression::new(self, next) });
        }
        // SAFETY: created above and destroyed once.
        unsafe { sys::nftnl_expr_iter_destroy(iterator.as_ptr()) };
        Some(())
    }

    fn set_text(&mut self, attribute: sys::nftnl_rule_attr, text: &str) {
        let text = c_string(text);
        // SAFETY: the rule is alive; only attributes that are strings are set, and libnftnl copies the string.
        unsafe { sys::nftnl_rule_set_str(self.0.as_ptr(), attribute as u16, text.as_ptr()) };
    }

    fn text(&self, attribute: sys::nftnl_rule_attr) -> Option<String> {
        // SAFETY: the rule is alive; only attributes that are strings are asked for.
        let text = unsafe { sys::nftnl_rule_get_str(self.0.as_ptr(), attribute as u16) };
        // SAFETY: null or a string that the rule owns.
        unsafe { copied_text(text) }
    }
}

impl Payload for Rule {
    fn append(&self, message: &OpenMessage) {
        // SAFETY: an open message has room; the rule is alive.
        unsafe { sys::nftnl_rule_nlmsg_build_payload(message.0, self.0.as_ptr()) };
    }
}

impl Drop for Rule {
    fn drop(&mut self) {
        // SAFETY: allocated by libnftnl and freed once.
        unsafe { sys::nftnl_rule_free(self.0.as_ptr()) };
    }
}
