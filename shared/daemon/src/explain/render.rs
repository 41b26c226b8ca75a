//! An explanation on a terminal.
use shared::api::explanation::{Explanation, Likelihood};

use super::lately;
use crate::cli::output::columns;
use crate::status::wrapped;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// What stands below a cause begins here.
const INDENT: usize = 4;

/// The meaning, then the causes with what was seen of them.
pub fn render(explanation: &Explanation, coloured: bool) -> String {
    let columns = usize::from(columns());
    let paint = |colour: &str, text: &str| {
        if coloured {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    };
    let head = format!("error {}: {}", explanation.error, explanation.means);
    let mut text = paint(BOLD, &head);
    let mut before = None;
    for cause in &explanation.causes {
        if before.replace(cause.likelihood) != Some(cause.likelihood) {
            let (colour, class) = match cause.likelihood {
                Likelihood::Now => (RED, "seen now".to_owned()),
                Likelihood::Lately => (RED, format!("seen {}", lately(explanation.minutes))),
                Likelihood::Possible => (YELLOW, "possible".to_owned()),
                Likelihood::Elsewhere => (PLAIN, "elsewhere".to_owned()),
            };
            text.extend(["\n\n", &paint(colour, &class)]);
        }
        for (indent, line) in [(INDENT / 2, &cause.what), (INDENT, &cause.evidence)] {
            for line in wrapped(line, columns.saturating_sub(indent)) {
                text.extend(["\n", &format!("{:indent$}{line}", "")]);
            }
        }
        for remedy in cause.remedy.iter().flat_map(|remedy| remedy.lines()) {
            text.extend(["\n", &format!("{:INDENT$}-> {remedy}", "")]);
        }
    }
    text.push('\n');
    text
}
