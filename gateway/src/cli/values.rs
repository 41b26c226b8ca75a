//! Values of arguments as people write them.
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;

/// When something ends: `30d`, `12h`, or a time as in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// From now.
    In(Duration),
    /// Then.
    At(Timestamp),
}

impl Expiry {
    /// As the API wants it.
    pub(super) fn rfc3339(self, now: Timestamp) -> String {
        match self {
            // Further away than times go: the daemon says what it thinks of the last one.
            Self::In(span) => now.checked_add(span).unwrap_or(Timestamp::MAX).to_string(),
            Self::At(time) => time.to_string(),
        }
    }
}

impl FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = humantime::parse_duration(text);
        if let Ok(span) = span {
            return Ok(Self::In(span));
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| "neither a span (30d, 12h) nor a time (2027-01-31T00:00:00Z)".to_owned())
    }
}

/// A span that the API takes in seconds. Less than one becomes one: 0 has a meaning of its own.
pub(super) fn seconds(text: &str) -> Result<u64, humantime::DurationError> {
    let span = humantime::parse_duration(text)?;
    Ok(span.as_secs() + u64::from(span.subsec_nanos() > 0))
}

/// A number of bytes: `50GB`, `20GiB`, `1000000`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "not a number of bytes (50GB, 20GiB, 1000000)".to_owned())
}

/// `key=value`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("not key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `key=value`, or `key-` to remove it.
pub(super) fn label_change(text: &str) -> Result<(String, Option<String>), String> {
    if let Ok((key, value)) = label(text) {
        return Ok((key, Some(value)));
    }
    let key = text.strip_suffix('-').ok_or("neither key=value nor key-")?;
    Ok((key.to_owned(), None))
}

/// The preshared key of a new peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Preshared {
    /// A new one.
    Generate,
    /// None at all.
    None,
    /// The one in this file; `-` is standard input.
    File(std::path::PathBuf),
}

impl FromStr for Preshared {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix('@')) {
            ("generate", _) => Ok(Self::Generate),
            ("none", _) => Ok(Self::None),
            (_, Some(file)) if !file.is_empty() => Ok(Self::File(file.into())),
            _ => Err("neither generate, nor none, nor @FILE".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_spans_or_times() {
        let now: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<Expiry>().map(|end| end.rfc3339(now));
        assert_eq!(at("30d").unwrap(), "2026-12-23T00:00:00Z");
        assert_eq!(at("90m").unwrap(), "2026-11-23T01:30:00Z");
        assert_eq!(
            at("2027-01-31T00:00:00+01:00").unwrap(),
            "2027-01-30T23:00:00Z"
        );
        assert!(at("soon").unwrap_err().contains("30d"));
    }

    #[test]
    fn no_span_becomes_none_for_being_short() {
        assert_eq!(seconds("500ms").unwrap(), 1);
        assert_eq!(seconds("1s 1ns").unwrap(), 2);
        assert_eq!(seconds("1d").unwrap(), 86_400);
        assert_eq!(seconds("0s").unwrap(), 0);
        assert!(seconds("much").is_err());
    }

    #[test]
    fn sizes_take_both_kinds_of_units() {
        assert_eq!(bytes("50GB"), Ok(50_000_000_000));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes("1000"), Ok(1000));
        assert!(bytes("much").is_err());
    }

    #[test]
    fn labels_are_set_and_removed() {
        assert_eq!(
            label_change("a=b=c"),
            Ok(("a".to_owned(), Some("b=c".to_owned())))
        );
        assert_eq!(label_change("a-"), Ok(("a".to_owned(), None)));
        assert!(label_change("a").is_err() && label("a-").is_err());
    }

    #[test]
    fn secrets_are_not_arguments() {
        assert_eq!("@psk".parse(), Ok(Preshared::File("psk".into())));
        assert!(
            "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
                .parse::<Preshared>()
                .is_err()
        );
    }
}
