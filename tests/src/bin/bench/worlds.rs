//! The worlds of all implementations: made when they are needed, kept while they may be.
use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use crate::case::Variant;
use crate::implementation::Implementation;
use crate::likeness::Likeness;
use crate::product::Keys;
use crate::site::{Site, unfit};

/// The worlds, and what they are made from.
pub(crate) struct Worlds {
    pub(crate) keys: Keys,
    /// Whose rulesets and routes everybody gets.
    product: Implementation,
    /// By the number of further peers.
    likenesses: BTreeMap<usize, Likeness>,
    /// By variant and name; the reason, where one can't be made.
    sites: BTreeMap<(Variant, String), Result<Site, String>>,
}

impl Worlds {
    pub(crate) fn new(keys: Keys, product: Implementation) -> Self {
        Self {
            keys,
            product,
            likenesses: BTreeMap::new(),
            sites: BTreeMap::new(),
        }
    }

    /// The world of an implementation. Those of other variants go, but for the plain one that most tests use: a daemon
    /// with thousands of peers in the background would be part of every measurement.
    pub(crate) fn enter(
        &mut self,
        implementation: &Implementation,
        variant: Variant,
    ) -> Result<(&mut Site, &Keys)> {
        if let Some(reason) = unfit(implementation, variant) {
            return Err(anyhow!("{reason}"));
        }
        self.sites
            .retain(|(kept, _), _| *kept == variant || *kept == Variant::default());
        let place = (variant, implementation.name.clone());
        if !self.sites.contains_key(&place) {
            let site = self.build(implementation, variant);
            let site = site.map_err(|error| format!("{error:#}"));
            self.sites.insert(place.clone(), site);
        }
        match self.sites.get_mut(&place) {
            Some(Ok(site)) => Ok((site, &self.keys)),
            Some(Err(reason)) => Err(anyhow!("{reason}")),
            None => Err(anyhow!("its world is gone")),
        }
    }

    /// Remove the world of an implementation, whose daemon has ended: the next to enter gets a new one.
    pub(crate) fn leave(&mut self, implementation: &Implementation, variant: Variant) {
        self.sites.remove(&(variant, implementation.name.clone()));
    }

    fn build(&mut self, implementation: &Implementation, variant: Variant) -> Result<Site> {
        let likeness = self.likeness(variant.peers)?.clone();
        Site::start(implementation, variant, &self.keys, Some(&likeness))
    }

    /// What the product makes of a configuration with so many further peers, in a world that is made for that alone.
    fn likeness(&mut self, peers: usize) -> Result<&Likeness> {
        if !self.likenesses.contains_key(&peers) {
            let variant = Variant {
                peers,
                ..Variant::default()
            };
            let site = Site::start(&self.product, variant, &self.keys, None)?;
            let lan_server = self.keys.lan_server.public.to_string();
            let gateway = self.keys.gateway.public.to_string();
            let likeness = Likeness::of(&site, [&lan_server, &gateway])?;
            self.likenesses.insert(peers, likeness);
        }
        self.likenesses
            .get(&peers)
            .ok_or_else(|| anyhow!("nothing was taken down of the product"))
    }
}
