//! Any text is either a configuration or findings that point into it.
use proptest::prelude::*;

use super::*;

fn check_findings(text: &str, findings: &[Diagnostic]) {
    for finding in findings {
        let line = text.split('\n').nth(finding.line - 1);
        let line = line.unwrap_or_else(|| panic!("{finding}: no such line"));
        assert!(
            finding.column <= line.chars().count() + 1,
            "{finding}: no such column"
        );
        assert!(!finding.message.contains(char::is_control), "{finding:?}");
    }
    assert!(findings.is_sorted_by_key(|finding| (finding.line, finding.column)));
}

fn check<T>(text: &str, result: Result<Parsed<T>, ConfigErrors>) {
    match result {
        Ok(parsed) => check_findings(text, &parsed.warnings),
        Err(errors) => {
            assert!(errors.iter().next().is_some(), "refused without a reason");
            check_findings(text, &errors.0);
        }
    }
}

fn check_both(text: &str) {
    check(text, Gateway::parse(text, "F"));
    check(text, LanServer::parse(text, "F"));
}

/// A word that means something somewhere in a file.
fn word() -> impl Strategy<Value = String> {
    let words: Vec<String> = (gateway::KEYS.iter().chain(lan_server::KEYS))
        .flat_map(|table| table.keys.iter().map(|&key| key.to_owned()))
        .chain(
            [
                "[",
                "]",
                "[[",
                "]]",
                "=",
                "\n",
                ",",
                "{",
                "}",
                "\"",
                ".",
                "#",
                "0",
                "70000",
                "true",
                "1.5",
                "\"any\"",
                "\"cloudflare\"",
                "\"10.17.0.0/16\"",
                "\"10.17.0.1\"",
                "\"0.0.0.0/0\"",
                "\"::/0\"",
                "\"fd17::1/64\"",
                "\"80-90\"",
                "\"1:2\"",
                "\"10.17.5.10:6443/tcp\"",
                "\"tcp\"",
                "\"host:1\"",
                "\"é\"",
                "\r\n",
                "\t",
                "1979-05-27",
            ]
            .map(str::to_owned),
        )
        .collect();
    proptest::sample::select(words)
}

/// An example in which some pieces were replaced by other pieces of it or by words.
fn disturbed(base: &'static str) -> impl Strategy<Value = String> {
    let text = edited(base, &[]);
    let edit = (any::<prop::sample::Index>(), 0..40usize, word());
    proptest::collection::vec(edit, 1..6).prop_map(move |edits| {
        let mut characters: Vec<char> = text.chars().collect();
        for (index, length, word) in edits {
            let start = index.index(characters.len());
            let end = (start + length).min(characters.len());
            characters.splice(start..end, word.chars());
        }
        characters.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_findings(text in any::<String>()) {
        check_both(&text);
    }

    #[test]
    fn any_words_are_a_configuration_or_findings(words in proptest::collection::vec(word(), 0..40)) {
        check_both(&words.concat());
    }

    #[test]
    fn a_disturbed_gateway_file_is_a_configuration_or_findings(text in disturbed(GATEWAY)) {
        check_both(&text);
    }

    #[test]
    fn a_disturbed_lan_server_file_is_a_configuration_or_findings(text in disturbed(LAN_SERVER)) {
        check_both(&text);
    }
}
