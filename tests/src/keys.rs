//! Key pairs.
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use shared::model::{PrivateKey, PublicKey};

/// A private key and the public key that belongs to it.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// Secret half.
    pub private: PrivateKey,
    /// Identity.
    pub public: PublicKey,
}

impl KeyPair {
    /// A new random pair.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random bytes: {error}"))?;
        let private = PrivateKey::from_bytes(bytes);
        let public = private.public_key();
        Ok(Self { private, public })
    }

    /// Write the private key as the daemons and `wg` read it: 0600 in a directory of 0700.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(file, "{}", self.private.to_base64().as_str())?;
        Ok(())
    }
}
