//! The worlds of all implementations: made when they are needed, kept while they may be.
use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};

use crate::case::Variant;
use crate::implementation::Implementation;
use crate::likeness::Likeness;
use crate::product::Keys;
use crate::site::{Site, unfit};

/// How often it is tried to make a world.
const ATTEMPTS: usize = 3;

/// The worlds, and what they are made from.
pub(crate) struct Worlds {
    pub(crate) keys: Keys,
    /// Whose rulesets and routes everybody gets.
    product: Implementation,
    /// By the number of further peers.
    likenesses: BTreeMap<usize, Likeness>,
    /// By variant and name.
    sites: BTreeMap<(Variant, String), Site>,
    /// Those that could not be made: how often, and why.
    failures: BTreeMap<(Variant, String), (usize, String)>,
}

impl Worlds {
    pub(crate) fn new(keys: Keys, product: Implementation) -> Self {
        Self {
            keys,
            product,
            likenesses: BTreeMap::new(),
            sites: BTreeMap::new(),
            failures: BTreeMap::new(),
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
            let failed = self.failures.get(&place);
            let attempts = failed.map_or(0, |(attempts, _)| *attempts);
            if let Some((_, reason)) = failed.filter(|_| attempts >= ATTEMPTS) {
                return Err(anyhow!("{reason}"));
            }
            match self.build(implementation, variant) {
                Ok(site) => drop(self.sites.insert(place.clone(), site)),
                Err(error) => {
                    let failure = (attempts + 1, format!("{error:#}"));
                    self.failures.insert(place, failure);
                    return Err(error);
                }
            }
        }
        let site = self.sites.get_mut(&place);
        Ok((site.context("its world is gone")?, &self.keys))
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
            .context("nothing was taken down of the product")
    }
}
