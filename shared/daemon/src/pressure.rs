//! What runs short before anything fails.
mod source_ports;

use shared::api::status::Conntrack;
use shared_os::sysctl::{self, SysctlError};

pub use source_ports::{LIMIT as SOURCE_PORTS, Looks, warning as source_ports_warning};

/// Percent of the table from which it is worth a word.
const MUCH: u64 = 80;

/// How full the kernel's table of connections is; `None` where it tracks none.
///
/// # Errors
/// It can't be read.
pub fn conntrack() -> Result<Option<Conntrack>, SysctlError> {
    let number = |name: &str| -> Result<Option<u64>, SysctlError> {
        let path = ["net", "netfilter", name].map(str::to_owned);
        let value = sysctl::read(&path)?.value;
        Ok(value.and_then(|value| value.parse().ok()))
    };
    let (entries, limit) = (number("nf_conntrack_count")?, number("nf_conntrack_max")?);
    Ok(entries
        .zip(limit)
        .map(|(entries, limit)| Conntrack { entries, limit }))
}

/// That the table is nearly full, and what to do. A limit of 0 is none.
pub fn warning(conntrack: Conntrack) -> Option<String> {
    let Conntrack { entries, limit } = conntrack;
    let is_much = limit > 0 && entries >= limit.saturating_mul(MUCH) / 100;
    is_much.then(|| {
        format!(
            "the kernel tracks {entries} connections of the {limit} that it has room for, and drops new ones when there is none: \
             raise net.netfilter.nf_conntrack_max in /etc/sysctl.d, or find who opens so many (`conntrack -L`, package conntrack)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_of_the_table_are_worth_a_word() {
        let said = |entries, limit| warning(Conntrack { entries, limit });
        assert_eq!(said(79, 100), None);
        assert!(said(80, 100).unwrap().contains("80 connections of the 100"));
        assert_eq!(said(1_000_000, 0), None, "no limit");
    }
}
