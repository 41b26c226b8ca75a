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
    let parsed = simulation::parse_tested::<P>(&text, config_path)?;
    let settings = P::settings(&parsed.config);
    let record = Record::open(Record::path(&settings.state_dir, P::NAME));
    let file = First {
        parsed,
        text,
        settings,
        record,
        instead: None,
    };
    let Some(before) = file.record.instead_of(&file.text).map(str::to_owned) else {
        return Ok(file);
    };
    let path = config_path.display();
    match cli::parse::<P>(&before, config_path) {
        Ok(parsed) => Ok(First {
            settings: P::settings(&parsed.config),
            parsed,
            text: before,
            instead: Some(format!(
                "{path} was applied and not confirmed: the configuration of before is taken; `apply` tries the file again, a \
                 reload takes it for good"
            )),
            record: file.record,
        }),
        // Of an older version of this program, say.
        Err(failure) => Ok(First {
            instead: Some(format!(
                "{path} was applied and not confirmed, but the configuration of before can't be used any more, so the file is \
                 taken: {failure}"
            )),
            ..file
        }),
    }
}
