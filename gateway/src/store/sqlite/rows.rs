//! Records ↔ rows.
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Row, Transaction, params};
use serde::de::DeserializeOwned;
use shared::model::{PresharedKey, PublicKey};
use uuid::Uuid;

use super::super::{
    Change, IdempotentAnswer, InviteRecord, LanServerRecord, PeerRecord, RotationRecord,
    TokenRecord, UsageRecord,
};

/// Columns in the order of [`peer`].
pub(super) const PEERS: &str = "SELECT id, revision, name, public_key, preshared_key, addresses, networks, role, enabled, \
    expires_at, quota_bytes, labels, created_at, updated_at, next_public_key, next_preshared_key, rotation_until \
    FROM peers ORDER BY id";

pub(super) fn peer(row: &Row<'_>) -> rusqlite::Result<PeerRecord> {
    let next: Option<[u8; 32]> = row.get(14)?;
    let until = time_or_none(row, 16)?;
    let networks: Vec<String> = json(row, 6)?;
    Ok(PeerRecord {
        id: id(row, 0)?,
        revision: number(row, 1)?,
        name: row.get(2)?,
        public_key: PublicKey::from_bytes(row.get(3)?),
        preshared_key: key_or_none(row, 4)?,
        addresses: json(row, 5)?,
        networks: networks
            .iter()
            .map(|text| text.parse::<IpNetwork>().map_err(|_| nonsense(6)))
            .collect::<Result<_, _>>()?,
        role: row.get(7)?,
        enabled: row.get(8)?,
        expires_at: time_or_none(row, 9)?,
        quota_bytes: row
            .get::<_, Option<i64>>(10)?
            .map(|quota| u64::try_from(quota).map_err(|_| nonsense(10)))
            .transpose()?,
        labels: json(row, 11)?,
        created_at: time(row, 12)?,
        updated_at: time(row, 13)?,
        rotation: match (next, until) {
            (Some(key), Some(until)) => Some(RotationRecord {
                public_key: PublicKey::from_bytes(key),
                preshared_key: key_or_none(row, 15)?,
                until,
            }),
            (None, _) | (_, None) => None,
        },
    })
}

pub(super) const USAGE: &str = "SELECT id, rx_bytes, tx_bytes, quota_base_bytes, counted_since, latest_handshake_at FROM usage";

pub(super) fn usage(row: &Row<'_>) -> rusqlite::Result<(Uuid, UsageRecord)> {
    let usage = UsageRecord {
        rx_bytes: number(row, 1)?,
        tx_bytes: number(row, 2)?,
        quota_base_bytes: number(row, 3)?,
        counted_since: time_or_none(row, 4)?,
        latest_handshake_at: time_or_none(row, 5)?,
    };
    Ok((id(row, 0)?, usage))
}

pub(super) const TOKENS: &str = "SELECT id, revision, name, secret_hash, scopes, created_at, created_by, expires_at FROM tokens ORDER BY id";

pub(super) fn token(row: &Row<'_>) -> rusqlite::Result<TokenRecord> {
    Ok(TokenRecord {
        id: row.get(0)?,
        revision: number(row, 1)?,
        name: row.get(2)?,
        secret_hash: row.get(3)?,
        scopes: json(row, 4)?,
        created_at: time(row, 5)?,
        created_by: row.get(6)?,
        expires_at: time_or_none(row, 7)?,
    })
}

pub(super) const INVITES: &str = "SELECT id, lan_server, public_key, preshared_key, address, created_at, created_by, expires_at, used_by \
    FROM invites ORDER BY id";

pub(super) fn invite(row: &Row<'_>) -> rusqlite::Result<InviteRecord> {
    let used_by: Option<[u8; 32]> = row.get(8)?;
    Ok(InviteRecord {
        id: id(row, 0)?,
        lan_server: row.get(1)?,
        public_key: PublicKey::from_bytes(row.get(2)?),
        preshared_key: PresharedKey::from_bytes(row.get(3)?),
        address: address(row, 4)?,
        created_at: time(row, 5)?,
        created_by: row.get(6)?,
        expires_at: time(row, 7)?,
        used_by: used_by.map(PublicKey::from_bytes),
    })
}

pub(super) const LAN_SERVERS: &str =
    "SELECT name, public_key, preshared_key, joined_at FROM lan_servers ORDER BY name";

pub(super) fn lan_server(row: &Row<'_>) -> rusqlite::Result<LanServerRecord> {
    Ok(LanServerRecord {
        name: row.get(0)?,
        public_key: PublicKey::from_bytes(row.get(1)?),
        preshared_key: PresharedKey::from_bytes(row.get(2)?),
        joined_at: time(row, 3)?,
    })
}

pub(super) const RELEASED: &str = "SELECT address, at FROM released_addresses";

pub(super) fn released(row: &Row<'_>) -> rusqlite::Result<(IpAddr, Timestamp)> {
    Ok((address(row, 0)?, time(row, 1)?))
}

pub(super) const ANSWERS: &str = "SELECT actor, key, fingerprint, status, resource, at FROM idempotent_answers ORDER BY actor, key";

pub(super) fn answer(row: &Row<'_>) -> rusqlite::Result<IdempotentAnswer> {
    Ok(IdempotentAnswer {
        actor: row.get(0)?,
        key: row.get(1)?,
        fingerprint: row.get(2)?,
        status: row.get(3)?,
        resource: row.get(4)?,
        at: time(row, 5)?,
    })
}

/// One change, inside of its transaction.
pub(super) fn write(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql)?.execute(values).map(drop)
    };
    match change {
        Change::PutPeer(peer) => write_peer(transaction, peer),
        Change::DeletePeer(id) => {
            run("DELETE FROM peers WHERE id = ?", params![id.as_bytes()])?;
            run("DELETE FROM usage WHERE id = ?", params![id.as_bytes()])
        }
        Change::PutUsage(id, usage) => run(
            "INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?, ?, ?)",
            params![
                id.as_bytes(),
                saturated(usage.rx_bytes),
                saturated(usage.tx_bytes),
                saturated(usage.quota_base_bytes),
                usage.counted_since.map(millis),
                usage.latest_handshake_at.map(millis),
            ],
        ),
        Change::DeleteUsage(id) => run("DELETE FROM usage WHERE id = ?", params![id.as_bytes()]),
        Change::PutToken(token) => run(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                token.id,
                saturated(token.revision),
                token.name,
                token.secret_hash,
                text(&token.scopes)?,
                millis(token.created_at),
                token.created_by,
                token.expires_at.map(millis),
            ],
        ),
        Change::DeleteToken(id) => run("DELETE FROM tokens WHERE id = ?", params![id]),
        Change::PutInvite(invite) => run(
            // All but this stays as it was made.
            "INSERT INTO invites VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET used_by = excluded.used_by",
            params![
                invite.id.as_bytes(),
                invite.lan_server,
                invite.public_key.as_bytes(),
                invite.preshared_key.as_bytes(),
                invite.address.to_string(),
                millis(invite.created_at),
                invite.created_by,
                millis(invite.expires_at),
                invite.used_by.map(|key| *key.as_bytes()),
            ],
        ),
        Change::DeleteInvite(id) => run("DELETE FROM invites WHERE id = ?", params![id.as_bytes()]),
        Change::PutLanServer(lan_server) => run(
            "INSERT INTO lan_servers VALUES (?, ?, ?, ?) \
             ON CONFLICT (name) DO UPDATE SET public_key = excluded.public_key, \
             preshared_key = excluded.preshared_key, joined_at = excluded.joined_at",
            params![
                lan_server.name,
                lan_server.public_key.as_bytes(),
                lan_server.preshared_key.as_bytes(),
                millis(lan_server.joined_at),
            ],
        ),
        Change::DeleteLanServer(name) => {
            run("DELETE FROM lan_servers WHERE name = ?", params![name])
        }
        Change::ReleaseAddress(address, at) => run(
            "INSERT OR REPLACE INTO released_addresses VALUES (?, ?)",
            params![address.to_string(), millis(*at)],
        ),
        Change::ForgetReleased(address) => run(
            "DELETE FROM released_addresses WHERE address = ?",
            params![address.to_string()],
        ),
        Change::PutIdempotentAnswer(answer) => run(
            "INSERT OR REPLACE INTO idempotent_answers VALUES (?, ?, ?, ?, ?, ?)",
            params![
                answer.actor,
                answer.key,
                answer.fingerprint,
                answer.status,
                answer.resource,
                millis(answer.at),
            ],
        ),
        Change::DeleteIdempotentAnswer { actor, key } => run(
            "DELETE FROM idempotent_answers WHERE actor = ? AND key = ?",
            params![actor, key],
        ),
        Change::Audit(entry) => run(
            "INSERT INTO audit VALUES (?, ?)",
            params![saturated(entry.sequence), text(entry)?],
        ),
    }
}

fn write_peer(transaction: &Transaction<'_>, peer: &PeerRecord) -> rusqlite::Result<()> {
    let key = |key: &Option<PresharedKey>| key.as_ref().map(|key| *key.as_bytes());
    let networks: Vec<String> = peer.networks.iter().map(ToString::to_string).collect();
    let next = peer.rotation.as_ref();
    transaction
        .prepare_cached(
            // Not "or replace": that would silently remove another peer of the same name.
            "INSERT INTO peers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, name = excluded.name, \
             public_key = excluded.public_key, preshared_key = excluded.preshared_key, \
             addresses = excluded.addresses, networks = excluded.networks, role = excluded.role, \
             enabled = excluded.enabled, expires_at = excluded.expires_at, \
             quota_bytes = excluded.quota_bytes, labels = excluded.labels, \
             created_at = excluded.created_at, updated_at = excluded.updated_at, \
             next_public_key = excluded.next_public_key, \
             next_preshared_key = excluded.next_preshared_key, \
             rotation_until = excluded.rotation_until",
        )?
        .execute(params![
            peer.id.as_bytes(),
            saturated(peer.revision),
            peer.name,
            peer.public_key.as_bytes(),
            key(&peer.preshared_key),
            text(&peer.addresses)?,
            text(&networks)?,
            peer.role,
            peer.enabled,
            peer.expires_at.map(millis),
            peer.quota_bytes.map(saturated),
            text(&peer.labels)?,
            millis(peer.created_at),
            millis(peer.updated_at),
            next.map(|next| *next.public_key.as_bytes()),
            next.and_then(|next| key(&next.preshared_key)),
            next.map(|next| millis(next.until)),
        ])
        .map(drop)
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    Ok(Uuid::from_bytes(row.get(column)?))
}

fn address(row: &Row<'_>, column: usize) -> rusqlite::Result<IpAddr> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| nonsense(column))
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|_| nonsense(column))
}

fn key_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<PresharedKey>> {
    let bytes: Option<[u8; 32]> = row.get(column)?;
    Ok(bytes.map(PresharedKey::from_bytes))
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(row.get(column)?).map_err(|_| nonsense(column))
}

fn time_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let millis: Option<i64> = row.get(column)?;
    millis
        .map(|millis| Timestamp::from_millisecond(millis).map_err(|_| nonsense(column)))
        .transpose()
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|_| nonsense(column))
}

fn text(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn nonsense(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        column,
        Type::Text,
        "not what was written here".into(),
    )
}

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// `SQLite`'s integers have a sign; nobody moves 8 EiB.
fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
