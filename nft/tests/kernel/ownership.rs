//! Who may change the table, and what happens when its owner dies.
use nft::{Applied, Error, Nftables, Ownership};

use crate::rulesets::{TABLE, gateway, lan};
use crate::world::{in_namespace, list, load, nft};

const FOREIGN: &str = "table ip foreign {
	set s {
		type ipv4_addr
		elements = { 192.0.2.1 }
	}

	chain input {
		type filter hook input priority filter; policy drop;
		ip saddr @s counter packets 0 bytes 0 accept
	}
}
";

#[test]
fn this_kernel_protects_the_table() {
    in_namespace(|| {
        assert_eq!(
            Nftables::open().unwrap().ownership(),
            Ownership::OwnerPersist
        )
    });
}

#[test]
fn opening_changes_nothing() {
    in_namespace(|| {
        let _nftables = Nftables::open().unwrap();
        assert_eq!(nft(&["list", "ruleset"]).stdout, "");
    });
}

#[test]
fn a_foreign_flush_ruleset_skips_the_table() {
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&gateway()).unwrap();
        load(FOREIGN);
        let before = list(TABLE);
        assert!(nft(&["flush", "ruleset"]).success);
        assert_eq!(list(TABLE), before);
        assert!(!nft(&["list", "table", "ip", "foreign"]).success);
    });
}

#[test]
fn a_foreign_delete_or_change_is_refused() {
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&gateway()).unwrap();
        for command in [
            &["delete", "table", "inet", TABLE][..],
            &["flush", "chain", "inet", TABLE, "forward"],
            &["add", "rule", "inet", TABLE, "forward", "accept"],
            &["add", "element", "inet", TABLE, "cf4", "{ 192.0.2.1 }"],
        ] {
            let output = nft(command);
            assert!(
                !output.success && output.stderr.contains("Operation not permitted"),
                "{command:?}: {output:?}"
            );
        }
        assert_eq!(nftables.replace(&gateway()).unwrap(), Applied::Unchanged);
    });
}

#[test]
fn the_table_outlives_its_owner_and_the_next_one_takes_it_over() {
    in_namespace(|| {
        let mut first = Nftables::open().unwrap();
        first.replace(&gateway()).unwrap();
        let handles = first
            .read(TABLE)
            .unwrap()
            .unwrap()
            .chains
            .iter()
            .map(|c| c.handle)
            .collect::<Vec<_>>();
        drop(first);

        let mut second = Nftables::open().unwrap();
        let orphan = second.read(TABLE).unwrap().unwrap();
        assert!(!orphan.has_owner() && orphan.persists());
        assert_eq!(second.replace(&gateway()).unwrap(), Applied::TakenOver);
        let taken = second.read(TABLE).unwrap().unwrap();
        assert!(taken.has_owner());
        assert_eq!(
            taken.chains.iter().map(|c| c.handle).collect::<Vec<_>>(),
            handles
        );
        assert_eq!(second.replace(&gateway()).unwrap(), Applied::Unchanged);
        assert!(!nft(&["delete", "table", "inet", TABLE]).success);
    });
}

#[test]
fn the_next_owner_can_change_what_it_takes_over() {
    in_namespace(|| {
        let mut changed = gateway();
        changed.chains.pop();
        Nftables::open().unwrap().replace(&gateway()).unwrap();
        let mut second = Nftables::open().unwrap();
        assert_eq!(second.replace(&changed).unwrap(), Applied::Replaced);
        assert!(second.read(TABLE).unwrap().unwrap().has_owner());
    });
}

#[test]
fn a_table_of_another_living_process_is_left_alone() {
    in_namespace(|| {
        let mut first = Nftables::open().unwrap();
        first.replace(&gateway()).unwrap();
        let before = list(TABLE);
        let mut second = Nftables::open().unwrap();
        let mut other = gateway();
        other.sets.pop();
        other.chains.clear();
        other.maps.clear();
        for error in [
            second.replace(&other).unwrap_err(),
            second.remove(TABLE).unwrap_err(),
        ] {
            let Error::OwnedByOther { table, owner } = error else {
                panic!("{error}")
            };
            assert_eq!(table, TABLE);
            assert_ne!(owner, 0);
        }
        assert_eq!(list(TABLE), before);
    });
}

#[test]
fn a_table_without_flags_is_replaced_and_its_counters_go_on() {
    in_namespace(|| {
        load(&gateway().to_string());
        load(&format!(
            "delete table inet {TABLE}\n{}",
            gateway().to_string().replace(
                "counter publish_ingress {\n\t}",
                "counter publish_ingress {\n\t\tpackets 7 bytes 420\n\t}"
            )
        ));
        let mut nftables = Nftables::open().unwrap();
        assert_eq!(nftables.replace(&gateway()).unwrap(), Applied::Replaced);
        let live = nftables.read(TABLE).unwrap().unwrap();
        assert!(live.has_owner() && live.persists());
        let count = live.counter("publish_ingress").unwrap();
        assert_eq!((count.packets, count.bytes), (7, 420));
    });
}

#[test]
fn foreign_tables_stay_byte_identical() {
    in_namespace(|| {
        load(FOREIGN);
        let foreign = || nft(&["list", "table", "ip", "foreign"]).stdout;
        assert_eq!(foreign(), FOREIGN);
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&gateway()).unwrap();
        nftables.replace(&lan()).unwrap();
        assert_eq!(foreign(), FOREIGN);
        let mut changed = gateway();
        changed.chains.swap(0, 1);
        nftables.replace(&changed).unwrap();
        assert_eq!(foreign(), FOREIGN);
        assert!(nftables.remove(TABLE).unwrap());
        assert!(nftables.remove(&lan().table).unwrap());
        assert_eq!(nft(&["list", "ruleset"]).stdout, FOREIGN);
    });
}

#[test]
fn both_tables_live_side_by_side() {
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&gateway()).unwrap();
        nftables.replace(&lan()).unwrap();
        assert_eq!(nftables.replace(&gateway()).unwrap(), Applied::Unchanged);
        assert_eq!(nftables.replace(&lan()).unwrap(), Applied::Unchanged);
    });
}
