//! `[cloudflare]`: where newer lists of Cloudflare's networks come from.
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::cloudflare;
use super::common::Endpoint;
use super::document::Table;
use super::report::{Located, Report, Reported};
use super::sources::Sets;
use super::value::Quoted;

/// Keys of `[cloudflare]` of either file.
pub(super) const KEYS: [&str; 1] = ["refresh"];

/// Where Cloudflare tells its networks to programs.
/// <https://developers.cloudflare.com/api/resources/ips/>
const DEFAULT: &str = "https://api.cloudflare.com/client/v4/ips";

/// Where newer lists come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    /// A web server, asked once a day.
    Url(ListUrl),
    /// A file, looked at again and again; an absolute path.
    File(PathBuf),
}

impl fmt::Display for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// `https://host[:port][/path][?query]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListUrl {
    /// Who is asked; the port is 443 unless it is written.
    pub server: Endpoint,
    /// What is asked for: path and query, as they stand in the request.
    pub target: String,
    text: String,
}

impl fmt::Display for ListUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ListUrl {
    /// Host and perhaps port as they are written, for the header `Host`.
    pub fn authority(&self) -> &str {
        let rest = self.text.get(SCHEME.len()..).unwrap_or_default();
        rest.split(['/', '?']).next().unwrap_or_default()
    }
}

const SCHEME: &str = "https://";

impl FromStr for ListUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            let shown = Quoted::text(text);
            format!("{shown} is no URL of a list: {why}; write for example {DEFAULT:?}")
        };
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| wrong("it does not begin with https://"))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains('#') {
            return Err(wrong(
                "it may hold printable ASCII without spaces and without #",
            ));
        }
        if authority.contains('@') {
            return Err(wrong("it may hold no user and no password"));
        }
        let has_port = match authority.rsplit_once(']') {
            Some((_, after)) => after.starts_with(':'),
            None => authority.contains(':'),
        };
        let with_port = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:443")
        };
        let server = with_port
            .parse()
            .map_err(|_| wrong("its host or port is none"))?;
        let target = if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/{target}")
        };
        Ok(Self {
            server,
            target,
            text: text.to_owned(),
        })
    }
}

/// `refresh` as written; `None` is `"off"`.
#[derive(Debug)]
pub(super) struct RefreshDraft(Result<Option<Located<Option<Refresh>>>, Reported>);

pub(super) fn refresh(root: &Table<'_>) -> RefreshDraft {
    let table = root.table_or_empty("cloudflare");
    RefreshDraft(table.and_then(|table| table.get_and("refresh", |value| value.parse_with(parse))))
}

fn parse(text: &str) -> Result<Option<Refresh>, String> {
    if text == "off" {
        Ok(None)
    } else if text.starts_with("http://") {
        let shown = Quoted::text(text);
        Err(format!(
            "{shown} can be changed on the way by anybody, and with it who may call; begin it with https://"
        ))
    } else if text.starts_with(SCHEME) {
        text.parse().map(|url| Some(Refresh::Url(url)))
    } else if Path::new(text).is_absolute() && !text.ends_with('/') && !text.contains('\0') {
        Ok(Some(Refresh::File(PathBuf::from(text))))
    } else {
        let shown = Quoted::text(text);
        Err(format!(
            "{shown} is neither a URL nor the absolute path of a file; write {DEFAULT:?}, for example \
             \"/etc/wg-edge/cloudflare.txt\", or \"off\""
        ))
    }
}

impl RefreshDraft {
    /// Refuses a refresh of what the file sets itself.
    pub(super) fn check(&self, report: &Report<'_>, sets: &Sets) {
        let Ok(Some(Located { value: Some(_), at })) = &self.0 else {
            return;
        };
        if sets.defines(cloudflare::SET_NAME) {
            report.error(
                *at,
                "[cloudflare]: `refresh` and the set `cloudflare` in [sets] contradict each other; keep one of them",
            );
        }
    }

    /// Where newer lists come from: Cloudflare itself unless the file says otherwise, nowhere when it has its own list.
    pub(super) fn build(self, sets: &Sets) -> Result<Option<Refresh>, Reported> {
        let written = self.0?;
        if sets.defines(cloudflare::SET_NAME) {
            return Ok(None);
        }
        Ok(match written {
            Some(written) => written.value,
            None => DEFAULT.parse().ok().map(Refresh::Url),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (text, server, target, authority) in [
            (
                DEFAULT,
                "api.cloudflare.com:443",
                "/client/v4/ips",
                "api.cloudflare.com",
            ),
            ("https://a.example", "a.example:443", "/", "a.example"),
            (
                "https://a.example:8443?v=1",
                "a.example:8443",
                "/?v=1",
                "a.example:8443",
            ),
            (
                "https://[2001:db8::1]/ips",
                "[2001:db8::1]:443",
                "/ips",
                "[2001:db8::1]",
            ),
            (
                "https://192.0.2.1:8443/a?b",
                "192.0.2.1:8443",
                "/a?b",
                "192.0.2.1:8443",
            ),
        ] {
            let url: ListUrl = text.parse().unwrap();
            assert_eq!(url.server.to_string(), server, "{text}");
            assert_eq!(url.target, target, "{text}");
            assert_eq!(url.authority(), authority, "{text}");
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "https://",
            "https:///ips",
            "https://a example/ips",
            "https://a.example/é",
            "https://a.example/#top",
            "https://user:word@a.example/",
            "https://a.example:0/",
            "https://a.example:99999/",
            "https://a.example:/",
            "https://2001:db8::1/",
        ] {
            assert!(text.parse::<ListUrl>().is_err(), "{text}");
        }
    }
}
