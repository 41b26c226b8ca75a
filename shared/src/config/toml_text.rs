//! Values as configuration files have them, for commands that write such files. Whoever writes one reads it back with the
//! parser: what may not stand in a file is refused there.
use std::fmt::Display;

/// A string. What JSON escapes in a string, TOML reads alike.
pub fn quoted(value: impl Display) -> String {
    serde_json::Value::from(value.to_string()).to_string()
}

/// An array of strings.
pub fn list(values: impl Iterator<Item = impl Display>) -> String {
    format!("[{}]", joined(values.map(quoted)))
}

/// A string alone, or an array of several.
pub fn one_or_more(values: impl Iterator<Item = impl Display>) -> String {
    let mut texts: Vec<String> = values.map(quoted).collect();
    match texts.pop() {
        Some(only) if texts.is_empty() => only,
        last => format!("[{}]", joined(texts.into_iter().chain(last))),
    }
}

/// Texts with commas between them.
pub fn joined(values: impl Iterator<Item = impl Display>) -> String {
    let texts: Vec<String> = values.map(|value| value.to_string()).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stands_alone_and_none_or_several_in_an_array() {
        assert_eq!(one_or_more(["a"].iter()), "\"a\"");
        assert_eq!(one_or_more(["a", "b"].iter()), "[\"a\", \"b\"]");
        assert_eq!(one_or_more(std::iter::empty::<String>()), "[]");
    }

    #[test]
    fn no_text_leaves_its_quotes() {
        for text in ["a\"]\n[more]", "\\", "\u{7}", "ñ"] {
            let file = format!("key = {}", quoted(text));
            let table: toml::Table = toml::from_str(&file).unwrap();
            assert_eq!(table["key"].as_str(), Some(text));
        }
    }
}
