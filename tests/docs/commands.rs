//! Every block of commands is tested or says why it can't be, and our programs understand every command line of theirs.
use std::collections::BTreeMap;
use std::process::Command;

use clap::error::ErrorKind;
use gateway::Gateway;
use lan_server::LanServer;
use shared_daemon::cli::command;
use tests::docs::{Block, OWN_TEST, Page, Tested, pages, root};

/// Blocks that nothing runs, by page. Each says why; one more has to be argued for here.
const NOT_RUN: &[(&str, usize)] = &[
    ("CONTRIBUTING.md", 1),
    ("docs/benchmarks.md", 4),
    ("docs/containers.md", 2),
    ("docs/flatcar-microcloud.md", 3),
    ("docs/flatcar.md", 2),
    ("docs/install.md", 1),
    ("docs/neighbours.md", 4),
    ("docs/operations.md", 1),
];

/// Pages in English whose blocks are looked at here: the Spanish ones have the same commands.
fn english() -> Vec<Page> {
    let mut pages = pages().expect("pages");
    pages.retain(|page| !page.is_spanish());
    pages
}

fn command_blocks() -> Vec<(Page, Block)> {
    let mut found = Vec::new();
    for page in english() {
        if OWN_TEST.contains(&page.path.as_str()) {
            continue;
        }
        let blocks = page.blocks().into_iter();
        found.extend(
            blocks
                .filter(Block::is_commands)
                .map(|block| (page.clone(), block)),
        );
    }
    found
}

#[test]
fn every_block_of_commands_says_how_it_is_tested() {
    let blocks = command_blocks();
    assert!(blocks.len() > 40, "only {} blocks were found", blocks.len());
    for (page, block) in blocks {
        if let Err(error) = block.tested() {
            panic!("{}:{}: {error}", page.path, block.line);
        }
    }
}

#[test]
fn no_more_blocks_are_left_out_than_are_written_down() {
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    for (page, block) in command_blocks() {
        if let Ok(Tested::Not(reason)) = block.tested() {
            assert!(reason.len() > 5, "{}:{}: why?", page.path, block.line);
            *left_out.entry(page.path).or_default() += 1;
        }
    }
    let written_down = NOT_RUN
        .iter()
        .map(|(page, count)| ((*page).to_owned(), *count));
    assert_eq!(left_out, written_down.collect());
}

#[test]
fn files_that_test_a_block_exist() {
    for (page, block) in command_blocks() {
        if let Ok(Tested::By(file)) = block.tested() {
            assert!(
                root().join(&file).is_file(),
                "{}:{}: {file}",
                page.path,
                block.line
            );
        }
    }
}

/// What `script/test-package` runs on its host.
#[test]
fn pages_with_blocks_for_a_host_are_run_there() {
    let script = std::fs::read_to_string(root().join("script/test-package")).unwrap();
    let line = script
        .lines()
        .find_map(|line| line.strip_prefix("readonly DOCUMENTED='"));
    let line = line.and_then(|line| line.strip_suffix('\''));
    let mut run: Vec<&str> = line.expect("its list of pages").split(' ').collect();
    let mut pages: Vec<String> = command_blocks()
        .into_iter()
        .filter(|(_, block)| block.runs_at("host"))
        .map(|(page, _)| page.path)
        .collect();
    pages.dedup();
    run.sort_unstable();
    assert_eq!(run, pages);
}

/// The words of each command line of ours in this text.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        let line = line.split(" #").next().unwrap_or_default();
        for command in line.split(['|', ';', '&', '(', '`']) {
            let words = command
                .split_whitespace()
                .map(|word| word.trim_end_matches(')'));
            let words =
                words.take_while(|word| !word.starts_with(['>', '<']) && !word.starts_with("2>"));
            let words: Vec<String> = words.map(str::to_owned).collect();
            if matches!(
                words.first().map(String::as_str),
                Some("gateway" | "lan-server")
            ) && words.len() > 1
            {
                found.push(words);
            }
        }
    }
    found
}

/// Whether the program has such a command and such options. Values that stand for others (`NAME`), and what a text leaves
/// out, are no mistake.
fn understands(words: &[String]) -> Result<(), String> {
    let program = words.first().map(String::as_str).unwrap_or_default();
    let words = words.iter().filter(|word| !word.contains('…'));
    let parser = match program {
        "gateway" => command::<Gateway>(),
        _ => command::<LanServer>(),
    };
    let forgiven = [
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayVersion,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
        ErrorKind::MissingRequiredArgument,
        ErrorKind::ValueValidation,
    ];
    match parser.try_get_matches_from(words) {
        Err(error) if !forgiven.contains(&error.kind()) => Err(error.to_string()),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[test]
fn our_programs_understand_every_command_line_of_theirs() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages().unwrap() {
        let blocks = page.blocks().into_iter().filter(Block::is_commands);
        let blocks = blocks.map(|block| (block.line, block.script()));
        for (line, text) in blocks.chain(page.code()) {
            for words in command_lines(&text) {
                count += 1;
                if let Err(error) = understands(&words) {
                    wrong.push(format!(
                        "{}:{line}: {}\n{error}",
                        page.path,
                        words.join(" ")
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} were found");
    let misspelt = ["gateway", "peer", "add", "alice", "--rolle", "x"].map(str::to_owned);
    assert!(understands(&misspelt).is_err());
}

#[test]
fn blocks_of_yaml_are_yaml() {
    let mut count = 0;
    for page in english() {
        for block in page.blocks() {
            if block.kind != "yaml" {
                continue;
            }
            count += 1;
            let parsed = serde_yaml_ng::from_str::<serde_yaml_ng::Value>(&block.text);
            let value =
                parsed.unwrap_or_else(|error| panic!("{}:{}: {error}", page.path, block.line));
            // A manifest for Helm holds another one.
            if let Some(values) = value["spec"]["valuesContent"].as_str() {
                let inner = serde_yaml_ng::from_str::<serde_yaml_ng::Value>(values);
                inner.unwrap_or_else(|error| panic!("{}:{}: {error}", page.path, block.line));
            }
        }
    }
    assert!(count > 0, "there is none");
}

#[test]
fn blocks_for_haproxy_are_taken_by_haproxy() {
    let mut count = 0;
    for page in english() {
        for block in page.blocks() {
            if block.kind != "haproxy" {
                continue;
            }
            count += 1;
            let name = format!("wg-edge-docs-{}-{count}.cfg", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, &block.text).unwrap();
            let output = Command::new("haproxy")
                .args(["-c", "-f"])
                .arg(&path)
                .output();
            std::fs::remove_file(&path).unwrap();
            let output = output.unwrap();
            assert!(
                output.status.success(),
                "{}:{}: {output:?}",
                page.path,
                block.line
            );
        }
    }
    assert!(count > 0, "there is none");
}
