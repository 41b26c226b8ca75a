//! A store that forgets: for tests, which tell it when to fail.
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::api::audit::AuditEntry;

use super::{Change, Snapshot, Store, StoreError};

/// The store.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    snapshot: Snapshot,
    audit: Vec<AuditEntry>,
    failures: VecDeque<StoreError>,
    commits: usize,
}

impl MemoryStore {
    /// The next commits fail with these errors, one each.
    pub fn fail_next(&self, errors: impl IntoIterator<Item = StoreError>) {
        self.lock().failures.extend(errors);
    }

    /// Commits that succeeded.
    pub fn commits(&self) -> usize {
        self.lock().commits
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    async fn load(&self) -> Result<Snapshot, StoreError> {
        Ok(self.lock().snapshot.clone())
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if let Some(error) = inner.failures.pop_front() {
            return Err(error);
        }
        inner.commits += 1;
        for change in changes {
            inner.make(change);
        }
        Ok(())
    }

    async fn audit_after(
        &self,
        sequence: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let inner = self.lock();
        let later = inner.audit.iter().filter(|entry| entry.sequence > sequence);
        Ok(later.take(limit).cloned().collect())
    }
}

impl Inner {
    fn make(&mut self, change: Change) {
        let held = &mut self.snapshot;
        match change {
            Change::PutPeer(peer) => {
                held.peers.retain(|known| known.id != peer.id);
                held.peers.push(peer);
                held.peers.sort_by_key(|peer| peer.id);
            }
            Change::DeletePeer(id) => {
                held.peers.retain(|known| known.id != id);
                held.usage.remove(&id);
            }
            Change::PutUsage(id, usage) => {
                held.usage.insert(id, usage);
            }
            Change::DeleteUsage(id) => {
                held.usage.remove(&id);
            }
            Change::PutToken(token) => {
                held.tokens.retain(|known| known.id != token.id);
                held.tokens.push(token);
                held.tokens.sort_by(|a, b| a.id.cmp(&b.id));
            }
            Change::DeleteToken(id) => held.tokens.retain(|known| known.id != id),
            Change::PutInvite(invite) => {
                held.invites.retain(|known| known.id != invite.id);
                held.invites.push(invite);
                held.invites.sort_by_key(|invite| invite.id);
            }
            Change::DeleteInvite(id) => held.invites.retain(|known| known.id != id),
            Change::PutLanServer(lan_server) => {
                held.lan_servers
                    .retain(|known| known.name != lan_server.name);
                held.lan_servers.push(lan_server);
                held.lan_servers.sort_by(|a, b| a.name.cmp(&b.name));
            }
            Change::DeleteLanServer(name) => held.lan_servers.retain(|known| known.name != name),
            Change::ReleaseAddress(address, at) => {
                held.released_addresses.insert(address, at);
            }
            Change::ForgetReleased(address) => {
                held.released_addresses.remove(&address);
            }
            Change::PutIdempotentAnswer(answer) => {
                let same = (answer.actor.clone(), answer.key.clone());
                self.forget_answer(&same.0, &same.1);
                let answers = &mut self.snapshot.idempotent_answers;
                answers.push(answer);
                answers.sort_by(|a, b| (&a.actor, &a.key).cmp(&(&b.actor, &b.key)));
            }
            Change::DeleteIdempotentAnswer { actor, key } => self.forget_answer(&actor, &key),
            Change::Audit(entry) => {
                held.audit_head = Some(entry.clone());
                self.audit.push(entry);
            }
        }
    }

    fn forget_answer(&mut self, actor: &str, key: &str) {
        let answers = &mut self.snapshot.idempotent_answers;
        answers.retain(|known| known.actor != actor || known.key != key);
    }
}
