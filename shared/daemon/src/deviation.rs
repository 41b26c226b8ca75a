//! How the kernel differs from what is desired: read and compared, nothing is changed. What puts it right are
//! [`reconcile`](crate::reconcile) and, unasked, [`drift`](crate::drift).
use shared::plan::{Desired, difference};

use crate::error::chain;
use crate::reconcile::Kernel;

/// Deviations that are told; who removed a table's every rule need not be told of each.
const TOLD: usize = 5;

impl Kernel {
    /// How links, addresses, routes, rules, sysctls and the table differ from what is desired, in sentences; empty when they
    /// don't. What can't be read counts as a deviation: nobody knows better.
    ///
    /// Costs what there is, not what differs: thousands of elements of sets are read each time.
    pub async fn deviations(&mut self, desired: &Desired) -> Vec<String> {
        let mut found = match self.netlink().read(desired).await {
            Ok(actual) => {
                let changes = difference(desired, &actual);
                let wrong = changes.iter().map(|change| {
                    format!("the kernel is not as it was left: `{change}` puts it right")
                });
                let taken = changes.conflicts.iter().map(ToString::to_string);
                wrong.chain(taken).collect()
            }
            Err(error) => vec![format!("the network can't be read: {}", chain(&error))],
        };
        found.extend(self.table_deviations(desired));
        let more = found.len().saturating_sub(TOLD);
        if more > 0 {
            found.truncate(TOLD);
            found.push(format!("and {more} more"));
        }
        found
    }

    /// The same for the table alone.
    pub fn table_deviations(&mut self, desired: &Desired) -> Vec<String> {
        let table = &desired.ruleset.table;
        let live = match self.nftables().read(table) {
            Ok(Some(live)) => live,
            Ok(None) => {
                return vec![format!("the nftables table inet {table} is gone")];
            }
            Err(error) => {
                return vec![format!(
                    "the nftables table inet {table} can't be read: {}",
                    chain(&error)
                )];
            }
        };
        let Err(differences) = nft::matches(&desired.ruleset, &live) else {
            return Vec::new();
        };
        let told = differences.iter();
        told.map(|difference| format!("nftables table inet {table}: {difference}"))
            .collect()
    }
}
