//! Configuration files of both daemons.
use shared::config::{ConfigErrors, Diagnostic, Gateway, LanServer, Parsed};
use shared::model::PublicKey;

/// Any text is a configuration or findings that point into it; no finding shows a key.
pub fn config_file(data: &[u8]) {
    // A file that is not UTF-8 does not reach the parser.
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    check(text, Gateway::parse(text, "gateway.toml"));
    check(text, LanServer::parse(text, "lan-server.toml"));
}

fn check<T>(text: &str, result: Result<Parsed<T>, ConfigErrors>) {
    match result {
        Ok(parsed) => parsed
            .warnings
            .iter()
            .for_each(|finding| check_finding(text, finding)),
        Err(errors) => {
            assert!(errors.iter().next().is_some(), "refused without a reason");
            errors
                .iter()
                .for_each(|finding| check_finding(text, finding));
        }
    }
}

fn check_finding(text: &str, finding: &Diagnostic) {
    let line = finding
        .line
        .checked_sub(1)
        .and_then(|index| text.split('\n').nth(index));
    assert!(line.is_some(), "{finding}: no such line");
    let columns = line.map_or(0, |line| line.chars().count() + 1);
    assert!(
        (1..=columns).contains(&finding.column),
        "{finding}: no such column"
    );
    assert!(
        !finding.message.contains(char::is_control),
        "{finding}: more than a line"
    );
    assert!(!shows_key(&finding.message), "{finding}: shows a key");
}

/// Whether 44 characters in a row are a key.
fn shows_key(message: &str) -> bool {
    const KEY_CHARACTERS: usize = 44;
    let bytes = message.as_bytes();
    bytes.windows(KEY_CHARACTERS).any(|window| {
        window.ends_with(b"=")
            && std::str::from_utf8(window).is_ok_and(|text| text.parse::<PublicKey>().is_ok())
    })
}
