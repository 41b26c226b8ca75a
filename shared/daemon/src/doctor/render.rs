//! A diagnosis on a terminal.
use shared::api::diagnosis::{Diagnosis, Hop, Verdict};

use crate::cli::output::columns;
use crate::status::wrapped;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// Evidence begins here, below its hop.
const INDENT: usize = 10;

/// Every hop with its evidence, then what is broken and what puts it right.
pub fn render(diagnosis: &Diagnosis, coloured: bool) -> String {
    let mut screen = Screen {
        text: String::new(),
        coloured,
        columns: usize::from(columns()),
    };
    let at = diagnosis.at.strftime("%Y-%m-%d %H:%M:%S UTC");
    let took = diagnosis.took_milliseconds;
    screen.line(&format!("{}, {at}, {took} ms", diagnosis.end));
    for hop in &diagnosis.hops {
        screen.hop(hop);
    }
    screen.text.push('\n');
    if diagnosis.faults.is_empty() {
        let (colour, verdict) = match diagnosis.verdict {
            Verdict::Ok | Verdict::Skipped => (GREEN, "every hop that was tried works"),
            Verdict::Warning => (YELLOW, "every hop works, but see the warnings"),
            Verdict::Failed => (RED, "something does not work"),
        };
        let verdict = screen.paint(colour, verdict);
        screen.line(&verdict);
    }
    for fault in &diagnosis.faults {
        let head = format!("broken: {} of {}", fault.hop.name(), fault.of);
        let head = screen.paint(BOLD, &head);
        screen.line(&head);
        screen.below(2, &fault.evidence);
        for remedy in fault.remedy.iter().flat_map(|remedy| remedy.lines()) {
            // Not wrapped: a command is copied.
            screen.line(&format!("  -> {remedy}"));
        }
    }
    screen.text
}

struct Screen {
    text: String,
    coloured: bool,
    columns: usize,
}

impl Screen {
    fn hop(&mut self, hop: &Hop) {
        let colour = match hop.verdict {
            Verdict::Ok => GREEN,
            Verdict::Skipped => PLAIN,
            Verdict::Warning => YELLOW,
            Verdict::Failed => RED,
        };
        let verdict = self.paint(colour, &format!("{:8}", hop.verdict.name()));
        let took = hop.milliseconds.map(|took| format!(" ({took} ms)"));
        let took = took.unwrap_or_default();
        self.line(&format!(
            "{verdict}  {} of {}{took}",
            hop.hop.name(),
            hop.of
        ));
        self.below(INDENT, &hop.evidence);
        if hop.verdict == Verdict::Warning {
            for remedy in hop.remedy.iter().flat_map(|remedy| remedy.lines()) {
                self.line(&format!("{:INDENT$}-> {remedy}", ""));
            }
        }
    }

    fn below(&mut self, indent: usize, text: &str) {
        for line in wrapped(text, self.columns.saturating_sub(indent)) {
            self.line(&format!("{:indent$}{line}", ""));
        }
    }

    fn line(&mut self, text: &str) {
        self.text.extend([text, "\n"]);
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}
