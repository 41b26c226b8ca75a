//! What we write is what `nft` would write, and `nft` lists it as we print it.
use nft::{Applied, Nftables, matches};
use shared::plan::Ruleset;

use crate::rulesets::{edges, every_part, gateway, lan};
use crate::world::{comparable, in_namespace, list, load};

/// Our listing, the text, and the listing of what `nft -f` made of the text, are the same.
fn assert_same_as_nft(ruleset: &Ruleset) {
    let ours = in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        assert_eq!(nftables.replace(ruleset).unwrap(), Applied::Replaced);
        list(&ruleset.table)
    });
    let Some(ours) = ours else { return };
    let theirs = in_namespace(|| {
        load(&ruleset.to_string());
        // We read a table of nft's as we read ours: the instructions are those that we compile.
        let live = Nftables::open()
            .unwrap()
            .read(&ruleset.table)
            .unwrap()
            .unwrap();
        assert_eq!(matches(ruleset, &live), Ok(()));
        list(&ruleset.table)
    });
    assert_eq!(comparable(&ours), comparable(&theirs.unwrap()));
    assert_eq!(comparable(&ours), comparable(&ruleset.to_string()));
}

#[test]
fn every_part_is_listed_as_printed_and_as_loaded_by_nft() {
    assert_same_as_nft(&every_part());
}

#[test]
fn the_gateway_is_listed_as_printed_and_as_loaded_by_nft() {
    assert_same_as_nft(&gateway());
}

#[test]
fn the_lan_host_is_listed_as_printed_and_as_loaded_by_nft() {
    assert_same_as_nft(&lan());
}

#[test]
fn intervals_at_the_edges_are_listed_as_printed_and_as_loaded_by_nft() {
    assert_same_as_nft(&edges());
}
