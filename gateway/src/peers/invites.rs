//! Invitations: from "a LAN host shall join" to its key. Pure but for the random numbers, which the caller brings.
use std::net::IpAddr;

use jiff::SignedDuration;
use shared::config::gateway::LanServerPeer;
use shared::model::{PresharedKey, PrivateKey, PublicKey};
use shared::pairing::{TOKEN_LIFE_SECS, Token};
use uuid::Uuid;

use super::change::{Context, Random};
use super::error::RequestError;
use crate::members::joined;
use crate::store::{Change, InviteRecord, LanServerRecord};

/// What an invitation comes to.
#[derive(Debug)]
pub struct Invited {
    /// The invitation.
    pub invite: InviteRecord,
    /// What the LAN host needs; told once.
    pub token: Token,
    /// What to change.
    pub changes: Vec<Change>,
    /// Invitations that come or go.
    pub touched: Vec<Uuid>,
}

impl Context<'_> {
    /// `POST /v1/invites`. Earlier invitations for the same LAN server are over.
    pub fn invite(
        &self,
        id: Uuid,
        lan_server: &str,
        actor: &str,
        random: Random<'_>,
    ) -> Result<Invited, RequestError> {
        let lan = self.waiting_lan_server(lan_server)?;
        let Some(gateway_key) = self.own_key else {
            return Err(RequestError::NotApplied("the device has no key".to_owned()));
        };
        let address = self.allocate()?.into_iter().next();
        let (address, gateway_address) = address
            .and_then(|address| Some((address, self.own_address_beside(address)?)))
            .ok_or_else(|| RequestError::NotApplied("the tunnel has no address".to_owned()))?;
        let life = SignedDuration::from_secs(i64::try_from(TOKEN_LIFE_SECS).unwrap_or(i64::MAX));
        // To the second, as the token has it.
        let expires_at = self.now.as_second().saturating_add(life.as_secs());
        let token = Token {
            private_key: PrivateKey::from_bytes(random()),
            gateway_key,
            address,
            gateway_address,
            expires_at: jiff::Timestamp::from_second(expires_at).unwrap_or(self.now),
            endpoint: self.config.wan.endpoint.clone(),
        };
        let invite = InviteRecord {
            id,
            lan_server: lan.name.clone(),
            public_key: token.private_key.public_key(),
            preshared_key: token.preshared_key(),
            address,
            created_at: self.now,
            created_by: actor.to_owned(),
            expires_at: token.expires_at,
            used_by: None,
        };
        let earlier = self.state.invites().values();
        let earlier: Vec<&InviteRecord> = earlier
            .map(AsRef::as_ref)
            .filter(|earlier| earlier.lan_server == invite.lan_server)
            .collect();
        let touched = earlier.iter().map(|earlier| earlier.id);
        let touched = touched.chain([id]).collect();
        let changes = earlier.iter().flat_map(|earlier| self.end_invite(earlier));
        let changes = changes
            .chain([
                Change::PutInvite(invite.clone()),
                Change::ForgetReleased(address),
            ])
            .collect();
        Ok(Invited {
            invite,
            token,
            changes,
            touched,
        })
    }

    /// A LAN host has called with the key that it has made: the LAN server has this key from now on.
    pub fn join(
        &self,
        invite: &InviteRecord,
        key: PublicKey,
        random: Random<'_>,
    ) -> Result<(LanServerRecord, Vec<Change>), RequestError> {
        if invite.expires_at <= self.now {
            let at = invite.expires_at;
            return Err(refused(
                "invite_expired",
                format!("the token expired at {at}"),
            ));
        }
        if invite.used_by.is_some() {
            let detail = "another host has used the token already".to_owned();
            return Err(refused("invite_used", detail));
        }
        let lan = self.waiting_lan_server(&invite.lan_server)?;
        if let Some(why) = self.key_problem(&key, &lan.name) {
            return Err(refused("public_key_taken", why));
        }
        let lan_server = LanServerRecord {
            name: lan.name.clone(),
            public_key: key,
            preshared_key: PresharedKey::from_bytes(random()),
            joined_at: self.now,
        };
        let used = InviteRecord {
            used_by: Some(key),
            ..invite.clone()
        };
        let changes = vec![
            Change::PutLanServer(lan_server.clone()),
            Change::PutInvite(used),
        ];
        Ok((lan_server, changes))
    }

    /// An invitation is over.
    pub fn end_invite(&self, invite: &InviteRecord) -> [Change; 2] {
        [
            Change::DeleteInvite(invite.id),
            Change::ReleaseAddress(invite.address, self.now),
        ]
    }

    /// The LAN server of the file with this name that gets its key by pairing.
    fn waiting_lan_server(&self, name: &str) -> Result<&LanServerPeer, RequestError> {
        let lans = &self.config.lan_servers;
        let Some(lan) = lans.iter().find(|lan| lan.name == name) else {
            let known: Vec<&str> = lans.iter().map(|lan| lan.name.as_str()).collect();
            let known = if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            };
            return Err(RequestError::invalid(
                "/lan_server",
                format!("the configuration file has no such [[lan_server]]; {known}"),
            ));
        };
        if lan.public_key.is_some() {
            return Err(RequestError::Conflict {
                code: "key_of_file",
                detail: format!("the configuration file gives the LAN server {name} its key"),
                errors: Vec::new(),
                hint: Some(
                    "take `public_key` and `preshared_key_file` out of its [[lan_server]] and reload: then a host can \
                     join by a token"
                        .to_owned(),
                ),
            });
        }
        Ok(lan)
    }

    /// The gateway's own address of the same family.
    fn own_address_beside(&self, address: IpAddr) -> Option<IpAddr> {
        let own = self.config.tunnel.addresses.iter();
        own.map(|own| own.address)
            .find(|own| own.is_ipv4() == address.is_ipv4())
    }

    /// Why a LAN server can't have this key.
    fn key_problem(&self, key: &PublicKey, lan_server: &str) -> Option<String> {
        let mut others = joined(self.config, self.state.lan_servers());
        let is_own = |(lan, record): (&LanServerPeer, &LanServerRecord)| {
            lan.name == lan_server && record.public_key == *key
        };
        if key.as_bytes().iter().all(|&byte| byte == 0) {
            Some("the key is all zeros".to_owned())
        } else if self.own_key == Some(*key) {
            Some("the key is the gateway's own".to_owned())
        } else if self.state.by_key(key).is_some() {
            Some("a peer has this key".to_owned())
        } else if self.claims.has_key(key) && !others.any(is_own) {
            Some("a LAN server or a peer of the configuration file has this key".to_owned())
        } else {
            None
        }
    }
}

fn refused(code: &'static str, detail: String) -> RequestError {
    RequestError::Conflict {
        code,
        detail,
        errors: Vec::new(),
        hint: Some("ask for a new one: `gateway invite NAME`".to_owned()),
    }
}

#[cfg(test)]
mod tests;
