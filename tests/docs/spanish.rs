//! The Spanish pages are kept in step with the English ones: headings, commands, links, tables.
use tests::docs::{Block, Page, page, pages};

/// English page, Spanish page.
const PAIRS: &[(&str, &str)] = &[
    ("README.md", "README.es.md"),
    ("docs/quick-start.md", "docs/es/quick-start.md"),
];

fn pairs() -> Vec<(Page, Page)> {
    let pair = |(english, spanish): &(&str, &str)| {
        let read = |path: &str| page(path).expect("a page");
        (read(english), read(spanish))
    };
    PAIRS.iter().map(pair).collect()
}

#[test]
fn every_spanish_page_has_an_english_one() {
    for page in pages().unwrap() {
        let is_known = PAIRS.iter().any(|(_, spanish)| *spanish == page.path);
        assert_eq!(page.is_spanish(), is_known, "{}", page.path);
    }
}

#[test]
fn headings_have_the_same_levels_in_the_same_order() {
    for (english, spanish) in pairs() {
        let levels =
            |page: &Page| -> Vec<usize> { page.headings().iter().map(|h| h.level).collect() };
        assert_eq!(levels(&english), levels(&spanish), "{}", spanish.path);
    }
}

/// Commands as they are typed: what is said behind `#` may be in another language.
fn typed(block: &Block) -> Vec<String> {
    let lines = block.text.lines().map(|line| match line.split_once(" #") {
        Some((command, _)) => command.trim_end().to_owned(),
        None => line.to_owned(),
    });
    lines.filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn commands_are_the_same() {
    for (english, spanish) in pairs() {
        // A block without a kind is a drawing.
        let blocks = |page: &Page| -> Vec<(String, Vec<String>)> {
            let blocks = page.blocks().into_iter();
            let blocks = blocks.map(|block| match block.kind.as_str() {
                "" => (String::new(), Vec::new()),
                _ => (block.kind.clone(), typed(&block)),
            });
            blocks.collect()
        };
        assert_eq!(blocks(&english), blocks(&spanish), "{}", spanish.path);
    }
}

/// Where a link leads: the file, and which of its headings.
fn place(from: &Page, target: &str) -> (String, Option<usize>) {
    if target.contains("://") {
        return (target.to_owned(), None);
    }
    let (path, anchor) = from.resolve(target);
    let heading = anchor.and_then(|anchor| {
        let headings = page(&path).ok()?.headings();
        headings.iter().position(|heading| heading.anchor == anchor)
    });
    (path, heading)
}

/// The same page in the other language, where there is one.
fn other_language(path: String) -> String {
    let other = PAIRS.iter().find_map(|(english, spanish)| {
        let to_spanish = (path == *english).then_some(*spanish);
        to_spanish.or((path == *spanish).then_some(*english))
    });
    other.map_or(path, str::to_owned)
}

#[test]
fn links_lead_to_the_same_places() {
    for (english, spanish) in pairs() {
        let places = |page: &Page| -> Vec<(String, Option<usize>)> {
            let links = page.links().into_iter();
            links.map(|(_, target)| place(page, &target)).collect()
        };
        let expected = places(&english).into_iter();
        let expected: Vec<_> = expected
            .map(|(path, heading)| (other_language(path), heading))
            .collect();
        assert_eq!(expected, places(&spanish), "{}", spanish.path);
    }
}

#[test]
fn tables_have_the_same_rows() {
    for (english, spanish) in pairs() {
        let rows = |page: &Page| -> Vec<Vec<String>> {
            let lines = page.prose().into_iter();
            let rows = lines.filter(|(_, line)| line.starts_with('|'));
            rows.map(|(_, row)| {
                let first = row.split('|').nth(1).unwrap_or_default();
                first
                    .split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect()
            })
            .collect()
        };
        assert_eq!(rows(&english), rows(&spanish), "{}", spanish.path);
    }
}

#[test]
fn what_is_typed_in_the_text_is_the_same() {
    for (english, spanish) in pairs() {
        let code = |page: &Page| {
            let mut code: Vec<String> = page.code().into_iter().map(|(_, code)| code).collect();
            // The order of words differs between languages.
            code.sort();
            code
        };
        assert_eq!(code(&english), code(&spanish), "{}", spanish.path);
    }
}
