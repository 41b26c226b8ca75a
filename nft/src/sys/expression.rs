//! `nftnl_expr`: one instruction of a rule.
//!
//! libnftnl copies as many bytes into an attribute as it is given and trusts the caller for the type. Here the type is
//! part of the attribute's constant, and an attribute fits only expressions of its own name, so that no safe call can
//! write or read past a field.
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use nftnl_sys as sys;

use super::{Rule, allocated, c_string, copied_bytes, copied_text};

/// `NFT_DATA_VALUE_MAXLEN`: the longest value of a register.
const MAX_VALUE_LEN: usize = 64;

/// An attribute of one kind of expression, with the type of its value.
#[derive(Debug)]
pub(crate) struct Attribute<T> {
    expression: &'static CStr,
    number: u16,
    value: PhantomData<T>,
}

/// The attributes that we use, by expression.
pub(crate) mod attribute {
    use nftnl_sys as sys;

    use super::Attribute;

    macro_rules! attributes {
        ($($module:ident $name:literal { $($attribute:ident: $value:ty = $raw:ident,)* })*) => { $(
            pub(crate) mod $module {
                /// The kernel's name of the expression.
                pub(crate) const NAME: &core::ffi::CStr = $name;
                $(pub(crate) const $attribute: super::Attribute<$value> = super::Attribute::new(NAME, super::sys::$raw);)*
            }
        )* };
    }

    attributes! {
        payload c"payload" {
            DREG: u32 = NFTNL_EXPR_PAYLOAD_DREG,
            BASE: u32 = NFTNL_EXPR_PAYLOAD_BASE,
            OFFSET: u32 = NFTNL_EXPR_PAYLOAD_OFFSET,
            LEN: u32 = NFTNL_EXPR_PAYLOAD_LEN,
        }
        meta c"meta" {
            KEY: u32 = NFTNL_EXPR_META_KEY,
            DREG: u32 = NFTNL_EXPR_META_DREG,
            SREG: u32 = NFTNL_EXPR_META_SREG,
        }
        ct c"ct" {
            KEY: u32 = NFTNL_EXPR_CT_KEY,
            DREG: u32 = NFTNL_EXPR_CT_DREG,
            DIR: u8 = NFTNL_EXPR_CT_DIR,
            SREG: u32 = NFTNL_EXPR_CT_SREG,
        }
        rt c"rt" {
            KEY: u32 = NFTNL_EXPR_RT_KEY,
            DREG: u32 = NFTNL_EXPR_RT_DREG,
        }
        fib c"fib" {
            DREG: u32 = NFTNL_EXPR_FIB_DREG,
            RESULT: u32 = NFTNL_EXPR_FIB_RESULT,
            FLAGS: u32 = NFTNL_EXPR_FIB_FLAGS,
        }
        cmp c"cmp" {
            SREG: u32 = NFTNL_EXPR_CMP_SREG,
            OP: u32 = NFTNL_EXPR_CMP_OP,
            DATA: Vec<u8> = NFTNL_EXPR_CMP_DATA,
        }
        range c"range" {
            SREG: u32 = NFTNL_EXPR_RANGE_SREG,
            OP: u32 = NFTNL_EXPR_RANGE_OP,
            FROM: Vec<u8> = NFTNL_EXPR_RANGE_FROM_DATA,
            TO: Vec<u8> = NFTNL_EXPR_RANGE_TO_DATA,
        }
        bitwise c"bitwise" {
            SREG: u32 = NFTNL_EXPR_BITWISE_SREG,
            DREG: u32 = NFTNL_EXPR_BITWISE_DREG,
            OP: u32 = NFTNL_EXPR_BITWISE_OP,
            LEN: u32 = NFTNL_EXPR_BITWISE_LEN,
            MASK: Vec<u8> = NFTNL_EXPR_BITWISE_MASK,
            XOR: Vec<u8> = NFTNL_EXPR_BITWISE_XOR,
        }
        byteorder c"byteorder" {
            SREG: u32 = NFTNL_EXPR_BYTEORDER_SREG,
            DREG: u32 = NFTNL_EXPR_BYTEORDER_DREG,
            OP: u32 = NFTNL_EXPR_BYTEORDER_OP,
            LEN: u32 = NFTNL_EXPR_BYTEORDER_LEN,
            SIZE: u32 = NFTNL_EXPR_BYTEORDER_SIZE,
        }
        lookup c"lookup" {
            SREG: u32 = NFTNL_EXPR_LOOKUP_SREG,
            DREG: u32 = NFTNL_EXPR_LOOKUP_DREG,
            SET: String = NFTNL_EXPR_LOOKUP_SET,
            SET_ID: u32 = NFTNL_EXPR_LOOKUP_SET_ID,
            FLAGS: u32 = NFTNL_EXPR_LOOKUP_FLAGS,
        }
        immediate c"immediate" {
            DREG: u32 = NFTNL_EXPR_IMM_DREG,
            DATA: Vec<u8> = NFTNL_EXPR_IMM_DATA,
            VERDICT: u32 = NFTNL_EXPR_IMM_VERDICT,
            CHAIN: String = NFTNL_EXPR_IMM_CHAIN,
        }
        counter c"counter" {
            PACKETS: u64 = NFTNL_EXPR_CTR_PACKETS,
            BYTES: u64 = NFTNL_EXPR_CTR_BYTES,
        }
        objref c"objref" {
            TYPE: u32 = NFTNL_EXPR_OBJREF_IMM_TYPE,
            OBJECT: String = NFTNL_EXPR_OBJREF_IMM_NAME,
        }
        exthdr c"exthdr" {
            SREG: u32 = NFTNL_EXPR_EXTHDR_SREG,
            TYPE: u8 = NFTNL_EXPR_EXTHDR_TYPE,
            OFFSET: u32 = NFTNL_EXPR_EXTHDR_OFFSET,
            LEN: u32 = NFTNL_EXPR_EXTHDR_LEN,
            OP: u32 = NFTNL_EXPR_EXTHDR_OP,
        }
        nat c"nat" {
            TYPE: u32 = NFTNL_EXPR_NAT_TYPE,
            FAMILY: u32 = NFTNL_EXPR_NAT_FAMILY,
            ADDRESS: u32 = NFTNL_EXPR_NAT_REG_ADDR_MIN,
            LAST_ADDRESS: u32 = NFTNL_EXPR_NAT_REG_ADDR_MAX,
            PORT: u32 = NFTNL_EXPR_NAT_REG_PROTO_MIN,
            FLAGS: u32 = NFTNL_EXPR_NAT_FLAGS,
        }
        masq c"masq" {
            FLAGS: u32 = NFTNL_EXPR_MASQ_FLAGS,
            PORT: u32 = NFTNL_EXPR_MASQ_REG_PROTO_MIN,
        }
        notrack c"notrack" {}
        xt_match c"match" {
            MATCH: String = NFTNL_EXPR_MT_NAME,
            REVISION: u32 = NFTNL_EXPR_MT_REV,
            INFO: Vec<u8> = NFTNL_EXPR_MT_INFO,
        }
        xt_target c"target" {
            TARGET: String = NFTNL_EXPR_TG_NAME,
        }
    }
}

impl<T> Attribute<T> {
    const fn new(expression: &'static CStr, number: u32) -> Self {
        Self {
            expression,
            number: number as u16,
            value: PhantomData,
        }
    }
}

/// A type that an attribute can have.
pub(crate) trait Value: Sized {
    /// # Safety
    /// `expression` must be alive and have the attribute `number` with this type.
    unsafe fn set(&self, expression: NonNull<sys::nftnl_expr>, number: u16);

    /// # Safety
    /// As for `set`; the attribute must be present.
    unsafe fn get(expression: NonNull<sys::nftnl_expr>, number: u16) -> Option<Self>;
}

macro_rules! number_value {
    ($($number:ty: $set:ident $get:ident,)*) => { $(
        impl Value for $number {
            unsafe fn set(&self, expression: NonNull<sys::nftnl_expr>, number: u16) {
                // SAFETY: the caller vouches for liveness and type.
                unsafe { sys::$set(expression.as_ptr(), number, *self) };
            }

            unsafe fn get(expression: NonNull<sys::nftnl_expr>, number: u16) -> Option<Self> {
                // SAFETY: the caller vouches for liveness and type.
                Some(unsafe { sys::$get(expression.as_ptr(), number) })
            }
        }
    )* };
}

number_value! {
    u8: nftnl_expr_set_u8 nftnl_expr_get_u8,
    u32: nftnl_expr_set_u32 nftnl_expr_get_u32,
    u64: nftnl_expr_set_u64 nftnl_expr_get_u64,
}

impl Value for String {
    unsafe fn set(&self, expression: NonNull<sys::nftnl_expr>, number: u16) {
        let text = c_string(self);
        // SAFETY: the caller vouches for liveness and type; libnftnl copies the string.
        unsafe { sys::nftnl_expr_set_str(expression.as_ptr(), number, text.as_ptr()) };
    }

    unsafe fn get(expression: NonNull<sys::nftnl_expr>, number: u16) -> Option<Self> {
        // SAFETY: the caller vouches for liveness and type.
        let text = unsafe { sys::nftnl_expr_get_str(expression.as_ptr(), number) };
        // SAFETY: null or a string that the expression owns.
        unsafe { copied_text(text) }
    }
}

impl Value for Vec<u8> {
    unsafe fn set(&self, expression: NonNull<sys::nftnl_expr>, number: u16) {
        assert!(
            self.len() <= MAX_VALUE_LEN,
            "a register holds at most {MAX_VALUE_LEN} bytes"
        );
        let len = u32::try_from(self.len()).unwrap_or_default();
        let data = self.as_ptr().cast::<c_void>();
        // SAFETY: the caller vouches for liveness and type; libnftnl copies `len` bytes into a field of 64.
        unsafe { sys::nftnl_expr_set(expression.as_ptr(), number, data, len) };
    }

    unsafe fn get(expression: NonNull<sys::nftnl_expr>, number: u16) -> Option<Self> {
        let mut len = 0;
        // SAFETY: the caller vouches for liveness and type; libnftnl writes the length.
        let data = unsafe { sys::nftnl_expr_get(expression.as_ptr(), number, &raw mut len) };
        // SAFETY: null, or `len` bytes that the expression owns.
        unsafe { copied_bytes(data, len) }
    }
}

/// An expression under construction.
#[derive(Debug)]
pub(crate) struct Expression {
    raw: NonNull<sys::nftnl_expr>,
    name: &'static CStr,
}

impl Expression {
    /// An expression of this name (`attribute::…::NAME`).
    pub(crate) fn new(name: &'static CStr) -> Self {
        Self {
            // SAFETY: the name ends with a zero; null (unknown name, no memory) is caught.
            raw: allocated(unsafe { sys::nftnl_expr_alloc(name.as_ptr()) }),
            name,
        }
    }

    /// Sets an attribute.
    pub(crate) fn with<T: Value>(self, attribute: &Attribute<T>, value: &T) -> Self {
        assert_eq!(
            self.name, attribute.expression,
            "the attribute is one of another expression"
        );
        // SAFETY: the expression is alive, and it is of the kind whose attribute has this type.
        unsafe { value.set(self.raw, attribute.number) };
        self
    }

    /// Gives the expression away to a rule, which frees it.
    pub(super) fn into_raw(self) -> *mut sys::nftnl_expr {
        ManuallyDrop::new(self).raw.as_ptr()
    }
}

impl Drop for Expression {
    fn drop(&mut self) {
        // SAFETY: allocated by libnftnl, not given away, freed once.
        unsafe { sys::nftnl_expr_free(self.raw.as_ptr()) };
    }
}

/// An expression of a rule that was read.
#[derive(Debug)]
pub(crate) struct BorrowedExpression<'a> {
    raw: NonNull<sys::nftnl_expr>,
    rule: PhantomData<&'a Rule>,
}

impl<'a> BorrowedExpression<'a> {
    /// # Safety
    /// `raw` must belong to the rule.
    pub(super) unsafe fn new(_rule: &'a Rule, raw: NonNull<sys::nftnl_expr>) -> Self {
        Self {
            raw,
            rule: PhantomData,
        }
    }

    /// The kernel's name of the expression.
    pub(crate) fn name(&self) -> String {
        // SAFETY: the expression is alive; every expression has a name.
        let name: *const c_char =
            unsafe { sys::nftnl_expr_get_str(self.raw.as_ptr(), sys::NFTNL_EXPR_NAME as u16) };
        // SAFETY: a string that libnftnl owns.
        unsafe { copied_text(name) }.unwrap_or_default()
    }

    /// An attribute; `None` if it is absent or belongs to another expression.
    pub(crate) fn get<T: Value>(&self, attribute: &Attribute<T>) -> Option<T> {
        if self.name().as_bytes() != attribute.expression.to_bytes() {
            return None;
        }
        // SAFETY: the expression is alive.
        let present = unsafe { sys::nftnl_expr_is_set(self.raw.as_ptr(), attribute.number) };
        if !present {
            return None;
        }
        // SAFETY: alive, of the attribute's kind, and present.
        unsafe { T::get(self.raw, attribute.number) }
    }
}
