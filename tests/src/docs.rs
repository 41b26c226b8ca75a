//! The documentation as data: pages, headings, links, and the blocks of commands with what is said of each.
//!
//! Above a block of commands (` ```sh `, ` ```console `) stands a comment that says how the block is tested:
//!
//! | comment | what happens to the block |
//! |---|---|
//! | `<!-- run: vps -->` | it is run on that host of a world of namespaces, page by page, in order (`tests/netns/documented.rs`) |
//! | `<!-- run: lan, stays -->` | it is a daemon in the foreground, and goes on |
//! | `<!-- run: vps, beside docker -->` | it is run beside such rules of others, which stop the path before |
//! | `<!-- run: host -->` | `script/test-package` runs it where systemd is in charge |
//! | `<!-- tested by: FILE -->` | FILE runs it |
//! | `<!-- not run: reason -->` | nothing can; how many there are is written down in `tests/docs` |
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Pages whose every block is run by a test of their own.
pub const OWN_TEST: &[&str] = &["docs/admin-api.md"];

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// A page.
#[derive(Debug, Clone)]
pub struct Page {
    /// From the root: `docs/install.md`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// 1 for `#`.
    pub level: usize,
    /// What links call it, without `#`.
    pub anchor: String,
}

/// A fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    /// Line of the page on which it begins, from 1.
    pub line: usize,
    /// The word behind the fence: `sh`.
    pub kind: String,
    /// What stands in it.
    pub text: String,
    /// The comment above it, if one is there.
    pub comment: Option<String>,
}

/// What a comment says of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tested {
    /// It is run.
    Run {
        /// Where: `vps`, `lan`, `host`.
        places: Vec<String>,
        /// It is a daemon in the foreground.
        stays: bool,
        /// Whose rules are there.
        beside: Option<String>,
    },
    /// Another file does.
    By(String),
    /// Why not.
    Not(String),
}

impl Block {
    /// Whether it is commands for a person to type.
    pub fn is_commands(&self) -> bool {
        matches!(self.kind.as_str(), "sh" | "console")
    }

    /// What the comment above it says.
    ///
    /// # Errors
    /// There is none that can be understood.
    pub fn tested(&self) -> Result<Tested> {
        let comment = self.comment.as_deref().unwrap_or_default();
        let (how, what) = comment
            .split_once(": ")
            .context("no comment says how it is tested")?;
        match how {
            "run" => {
                let (mut places, mut stays, mut beside) = (Vec::new(), false, None);
                for word in what.split(", ") {
                    match (word, word.strip_prefix("beside ")) {
                        ("vps" | "lan" | "host", _) => places.push(word.to_owned()),
                        ("stays", _) => stays = true,
                        (_, Some(name)) => beside = Some(name.to_owned()),
                        _ => bail!("it can't be run on {word:?}"),
                    }
                }
                Ok(Tested::Run {
                    places,
                    stays,
                    beside,
                })
            }
            "tested by" => Ok(Tested::By(what.to_owned())),
            "not run" => Ok(Tested::Not(what.to_owned())),
            _ => bail!("{how:?} is not how a block is tested"),
        }
    }

    /// Whether it is run at `place`.
    pub fn runs_at(&self, place: &str) -> bool {
        matches!(self.tested(), Ok(Tested::Run { places, .. }) if places.iter().any(|at| at == place))
    }

    /// The commands, without the prompts and the output of a ` ```console ` block.
    pub fn script(&self) -> String {
        if self.kind != "console" {
            return self.text.clone();
        }
        let commands = self.text.lines().filter_map(|line| line.strip_prefix("$ "));
        commands.flat_map(|line| [line, "\n"]).collect()
    }

    /// What a ` ```console ` block shows of the output.
    pub fn shown(&self) -> Vec<&str> {
        let lines = self.text.lines();
        let shown = lines.filter(|line| self.kind == "console" && !line.starts_with("$ "));
        shown.collect()
    }
}

/// All pages of the repository.
pub fn pages() -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    collect(&root(), &root(), &mut pages)?;
    pages.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(pages)
}

/// One page.
pub fn page(path: &str) -> Result<Page> {
    let text = fs::read_to_string(root().join(path)).with_context(|| path.to_owned())?;
    Ok(Page {
        path: path.to_owned(),
        text,
    })
}

fn collect(root: &Path, dir: &Path, pages: &mut Vec<Page>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            // What is built, and what is git's.
            if !name.starts_with('.') && name != "target" {
                collect(root, &path, pages)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let path = path.strip_prefix(root)?.to_string_lossy().into_owned();
            pages.push(page(&path)?);
        }
    }
    Ok(())
}

impl Page {
    /// Whether it is the Spanish edition of another page.
    pub fn is_spanish(&self) -> bool {
        self.path.starts_with("docs/es/") || self.path.contains(".es.")
    }

    /// The blocks, in order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let (mut inside, mut comment) = (false, None);
        for (number, line) in self.text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), inside) {
                (Some(_), true) => inside = false,
                (Some(kind), false) => {
                    inside = true;
                    blocks.push(Block {
                        line: number + 1,
                        kind: kind.to_owned(),
                        text: String::new(),
                        comment: comment.take(),
                    });
                }
                (None, true) => {
                    if let Some(block) = blocks.last_mut() {
                        block.text.push_str(line);
                        block.text.push('\n');
                    }
                }
                (None, false) => {
                    let text = line.strip_prefix("<!-- ");
                    comment = text
                        .and_then(|text| text.strip_suffix(" -->"))
                        .map(str::to_owned);
                }
            }
        }
        blocks
    }

    /// The lines that stand in no block, with their numbers.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        let mut inside = false;
        let lines = self.text.lines().enumerate().filter(|(_, line)| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        });
        lines.map(|(number, line)| (number + 1, line)).collect()
    }

    /// The headings, in order.
    pub fn headings(&self) -> Vec<Heading> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut headings = Vec::new();
        for (_, line) in self.prose() {
            let level = line.chars().take_while(|&c| c == '#').count();
            let title = line.get(level..).and_then(|rest| rest.strip_prefix(' '));
            let Some(title) = title.filter(|_| level > 0) else {
                continue;
            };
            let mut anchor = anchor(title);
            let before = seen.entry(anchor.clone()).or_default();
            if *before > 0 {
                anchor = format!("{anchor}-{before}");
            }
            *before += 1;
            headings.push(Heading { level, anchor });
        }
        headings
    }

    /// Targets of the links, in order, with their lines.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let text = without_code(line);
            let parts = text.split("](").skip(1);
            let targets = parts.filter_map(|part| part.split_once(')'));
            links.extend(targets.map(|(target, _)| (number, target.to_owned())));
        }
        links
    }

    /// The pieces of code in the text, with their lines.
    pub fn code(&self) -> Vec<(usize, String)> {
        let mut code = Vec::new();
        for (number, line) in self.prose() {
            let spans = line.split('`').skip(1).step_by(2);
            code.extend(spans.map(|span| (number, span.to_owned())));
        }
        code
    }

    /// The file that a link of this page leads to, from the root, and the anchor in it.
    pub fn resolve(&self, target: &str) -> (String, Option<String>) {
        let (path, anchor) = match target.split_once('#') {
            Some((path, anchor)) => (path, Some(anchor.to_owned())),
            None => (target, None),
        };
        if path.is_empty() {
            return (self.path.clone(), anchor);
        }
        let dir = Path::new(&self.path).parent().unwrap_or(Path::new(""));
        let mut parts: Vec<String> = Vec::new();
        for part in dir.join(path).components() {
            let part = part.as_os_str().to_string_lossy();
            if part == ".." {
                parts.pop();
            } else {
                parts.push(part.into_owned());
            }
        }
        (parts.join("/"), anchor)
    }
}

/// As GitHub makes it: lower case, spaces to `-`, no punctuation.
fn anchor(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    let anchor: String = kept.flat_map(char::to_lowercase).collect();
    anchor.replace(' ', "-")
}

/// The line with its pieces of code emptied; in a link's text they are no link.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Page {
        let text = "# A `b`, c?\n[x](../README.md#two-words) `[no](link)` [`code`](#a-b-c)\n\n<!-- run: vps, lan -->\n\
                    ```sh\n# no heading\nls  # why\n```\n<!-- not run: since -->\n\n```console\n$ ls\nfile\n```\n## A b c\n## A b c\n";
        Page {
            path: "docs/x.md".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn headings_have_the_anchors_of_github() {
        let headings = example().headings();
        let anchors: Vec<&str> = headings.iter().map(|h| h.anchor.as_str()).collect();
        assert_eq!(anchors, ["a-b-c", "a-b-c-1", "a-b-c-2"]);
        assert_eq!(headings[2].level, 2);
    }

    #[test]
    fn links_are_resolved_from_their_page() {
        let page = example();
        let targets: Vec<String> = page.links().into_iter().map(|(_, target)| target).collect();
        assert_eq!(targets, ["../README.md#two-words", "#a-b-c"]);
        let (path, anchor) = page.resolve(&targets[0]);
        assert_eq!(
            (path.as_str(), anchor.as_deref()),
            ("README.md", Some("two-words"))
        );
        assert_eq!(page.resolve("es/x.md").0, "docs/es/x.md");
        assert_eq!(page.resolve("#a").0, "docs/x.md");
    }

    #[test]
    fn a_comment_belongs_to_the_block_right_below_it() {
        let blocks = example().blocks();
        let (first, second) = (&blocks[0], &blocks[1]);
        assert!(first.runs_at("vps") && first.runs_at("lan") && !first.runs_at("host"));
        assert_eq!(second.comment, None);
        assert!(second.tested().is_err());
        assert_eq!(
            (second.script().as_str(), second.shown()),
            ("ls\n", vec!["file"])
        );
        let beside = Block {
            comment: Some("run: vps, beside docker".to_owned()),
            ..first.clone()
        };
        assert!(
            matches!(beside.tested(), Ok(Tested::Run { beside: Some(name), .. }) if name == "docker")
        );
    }
}
