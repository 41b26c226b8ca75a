//! Names of network interfaces.
use std::fmt;
use std::str::FromStr;

/// Longest name in bytes: `IFNAMSIZ` of the kernel's `include/uapi/linux/if.h` less the final zero.
pub const MAX_LEN: usize = 15;

/// A name that the kernel accepts for a link (`dev_valid_name` in `net/core/dev.c`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// Why a text is no interface name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceNameError {
    /// Nothing there.
    #[error("an interface name can't be empty")]
    Empty,
    /// Longer than the kernel's limit.
    #[error("an interface name has at most {MAX_LEN} bytes")]
    TooLong,
    /// `.`, `..`, or a character that the kernel or nftables refuses.
    #[error("an interface name is made of letters, digits, '-', '_' and '.'")]
    Character,
}

impl InterfaceName {
    /// The loopback link: packets of this host to itself.
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// The link of the default route as long as nobody has looked which that is, by the word that stands for it in a
    /// configuration; no tunnel can have this name.
    pub fn of_default_route() -> Self {
        Self("auto".to_owned())
    }

    /// A link into the LAN whose name does not matter.
    pub fn into_lan() -> Self {
        Self("lan".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        if text.is_empty() {
            return Err(InterfaceNameError::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(InterfaceNameError::TooLong);
        }
        // Stricter than the kernel, which forbids only '/', ':' and white space: a name also stands in rules, file
        // names and logs, where a quote or `*` would mean something else.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text == "." || text == ".." || !text.chars().all(plain) {
            return Err(InterfaceNameError::Character);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kernel_less_what_means_something_in_rules() {
        for good in ["edge0", "eth0.100", "br-lan", "a", "abcdefghijklmno"] {
            assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<InterfaceName>(), Err(InterfaceNameError::Empty));
        assert_eq!(
            "abcdefghijklmnop".parse::<InterfaceName>(),
            Err(InterfaceNameError::TooLong)
        );
        for bad in [".", "..", "a/b", "a b", "edge*", "a\"b", "eth0:1", "é"] {
            assert_eq!(
                bad.parse::<InterfaceName>(),
                Err(InterfaceNameError::Character),
                "{bad}"
            );
        }
    }
}
