//! The manual explains every key.
use super::*;

const MANUAL: &str = include_str!("../../../../docs/configuration.md");

/// The part of the manual below `## heading`.
fn section(heading: &str) -> &'static str {
    let start = MANUAL.find(&format!("\n## {heading}\n"));
    let start = start.unwrap_or_else(|| panic!("the manual has no section {heading:?}"));
    let rest = &MANUAL[start + 1..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

fn explains(file: &str, schema: &[TableKeys]) {
    let section = section(file);
    for table in schema {
        let heading = match (table.table, table.repeated) {
            ("", _) => "### Top of the file".to_owned(),
            (name, false) => format!("### `[{name}]`"),
            (name, true) => format!("### `[[{name}]]`"),
        };
        let start = section.find(&heading);
        let start = start.unwrap_or_else(|| panic!("{file}: the manual has no {heading:?}"));
        let rest = &section[start..];
        let part = rest.find("\n### ").map_or(rest, |end| &rest[..end]);
        for key in table.keys {
            let is_table = schema.iter().any(|other| other.table == *key);
            assert!(
                is_table || part.contains(&format!("| `{key}` |")),
                "{file}: {heading} of the manual does not explain `{key}`"
            );
        }
    }
}

#[test]
fn every_key_of_both_files_is_explained() {
    explains("gateway.toml", gateway::KEYS);
    explains("lan-server.toml", lan_server::KEYS);
}
