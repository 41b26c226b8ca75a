//! Every link within the repository leads to a file, and its anchor to a heading.
use std::collections::BTreeMap;

use tests::docs::{Heading, pages, root};

#[test]
fn links_and_their_anchors_lead_somewhere() {
    let pages = pages().unwrap();
    let headings: BTreeMap<String, Vec<Heading>> = pages
        .iter()
        .map(|page| (page.path.clone(), page.headings()))
        .collect();
    let mut broken = Vec::new();
    for page in &pages {
        for (line, target) in page.links() {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = page.resolve(&target);
            let known = |anchor: &str| {
                let headings = headings.get(&path);
                headings.is_some_and(|known| known.iter().any(|h| h.anchor == anchor))
            };
            let exists = root().join(&path).exists();
            if !exists || anchor.is_some_and(|anchor| !known(&anchor)) {
                broken.push(format!("{}:{line}: {target}", page.path));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "these lead nowhere:\n{}",
        broken.join("\n")
    );
    let links: usize = pages.iter().map(|page| page.links().len()).sum();
    assert!(links > 100, "only {links} links were found");
}
