//! With which configuration a start begins: that of the file, unless it was never confirmed.
use std::path::Path;

use shared::config::Parsed;

use super::record::Record;
use crate::error::Failure;
use crate::product::{Product, Settings};
use crate::{cli, simulation};

/// What a start takes.
#[derive(Debug)]
pub struct First<P: Product> {
    /// The configuration.
    pub parsed: Parsed<P::Config>,
    /// Its text.
    pub text: String,
    /// As far as the daemon is concerned.
    pub settings: Settings,
    /// The latest apply that was not confirmed.
    pub record: Record,
    /// Why this is not what the file says; `None` when it is.
    pub instead: Option<String>,
}

/// The configuration file, or in its place the one that ran before what stands in it now was rolled back. Writes nothing.
///
/// # Errors
/// [`Failure::Configuration`].
pub fn first<P: Product>(config_path: &Path) -> Result<First<P>, Failure> {
    let text = cli::read(config_path)?;
    let parsed = cli::parse::<P>(&text, config_path)?;
    let settings = P::settings(&parsed.config);
    let record = Record::open(Record::path(&settings.state_dir, P::NAME));
    let before = record.instead_of(&text).map(str::to_owned);
    let path = config_path.display();
    let instead = match before.map(|text| (cli::parse::<P>(&text, config_path), text)) {
        None => None,
        Some((Ok(parsed), text)) => {
            return Ok(First {
                settings: P::settings(&parsed.config),
                parsed,
                text,
                record,
                instead: Some(format!(
                    "{path} was applied and not confirmed: the configuration of before is taken; `apply` tries the file again, a \
                     reload takes it for good"
                )),
            });
        }
        // Of an older version of this program, say.
        Some((Err(failure), _)) => Some(format!(
            "{path} was applied and not confirmed, but the configuration of before can't be used any more, so the file is \
             taken: {failure}"
        )),
    };
    Ok(First {
        parsed: simulation::tested::<P>(parsed)?,
        text,
        settings,
        record,
        instead,
    })
}
