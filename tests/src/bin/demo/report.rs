//! What the demo prints: at most 100 columns, colours only on a terminal.
#![expect(clippy::print_stdout, reason = "a program whose output is its report")]
use std::io::IsTerminal as _;

use anyhow::Result;

/// Column where the finding begins.
const FINDING_COLUMN: usize = 46;
/// Widest line.
const COLUMNS: usize = 100;

/// Claims so far, and how to print them.
pub(crate) struct Report {
    colours: bool,
    held: usize,
    failed: usize,
}

impl Report {
    pub(crate) fn new() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            colours,
            held: 0,
            failed: 0,
        }
    }

    /// Claims that did not hold.
    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// Where everything is.
    pub(crate) fn introduction() {
        Self::line(INTRODUCTION);
    }

    pub(crate) fn section(&self, title: &str) {
        println!("\n{}", self.paint("1", title));
    }

    /// One claim: what it says, and what was found. An error is a claim that did not hold.
    pub(crate) fn claim(&mut self, claim: &str, found: Result<String>) {
        let (word, colour, finding) = match found {
            Ok(finding) => {
                self.held += 1;
                ("ok", "32", finding)
            }
            Err(error) => {
                self.failed += 1;
                let reasons: Vec<String> = error.chain().map(ToString::to_string).collect();
                ("FAILED", "31;1", reasons.join(": "))
            }
        };
        println!(
            "  {}{}",
            self.paint(colour, &format!("{word:<8}")),
            lay_out(claim, &finding)
        );
    }

    /// A figure, which is neither right nor wrong.
    pub(crate) fn figure(what: &str, figure: &str) {
        println!("  {:<8}{}", "", lay_out(what, figure));
    }

    pub(crate) fn line(text: &str) {
        println!("{text}");
    }

    pub(crate) fn verdict(&self) {
        let verdict = match self.failed {
            0 => self.paint("32;1", &format!("All {} claims held.", self.held)),
            failed => self.paint(
                "31;1",
                &format!("{failed} of {} claims FAILED.", failed + self.held),
            ),
        };
        println!("\n{verdict}");
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Two columns after the verdict's; a finding that is too long goes on below, broken between words.
fn lay_out(claim: &str, finding: &str) -> String {
    let mut text = format!("{claim:<0$}", FINDING_COLUMN - 10);
    let mut column = 10 + text.chars().count();
    for word in finding.split_whitespace() {
        if column + 1 + word.chars().count() > COLUMNS {
            text.push('\n');
            text.push_str(&" ".repeat(FINDING_COLUMN));
            column = FINDING_COLUMN;
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + word.chars().count();
    }
    text
}

const INTRODUCTION: &str = "\
wg-edge: a private cluster behind NAT, published through a VPS. Every host below is a network
namespace of this machine; both daemons, keepalived, HAProxy, nginx and the traffic are real.

   client 173.245.48.10        stranger 198.51.100.7       road-warrior 192.0.2.50
   (Cloudflare's range)                 |                  (operator, wireguard-go)
            `--------------------- internet ----------------------'
                                  |          |
   vps 203.0.113.10, gateway -----'          `----- home-router 198.18.0.2 (NAT)
   tunnel 10.17.0.1                                        |
                                               lan-host 192.168.0.15, lan-server
                                               tunnel 10.17.0.2
                          .--------------------------------+-----------------.
                     lb1, lb2 (keepalived, HAProxy)   master1-3 (API)   worker1 (web)
                     VIPs 10.17.5.10, 10.17.5.30      10.17.4.21-23     10.17.4.24";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_failed_is_counted() {
        let mut report = Report::new();
        report.claim("one", Ok("found".to_owned()));
        assert_eq!(report.failed(), 0);
        report.claim("two", Err(anyhow::anyhow!("not found")));
        assert_eq!(report.failed(), 1);
    }

    #[test]
    fn no_line_is_wider_than_100_columns() {
        let finding = "a finding that is much longer than the rest of the line ".repeat(4);
        for line in lay_out("a claim of some length", &finding).lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        assert!(
            INTRODUCTION
                .lines()
                .all(|line| line.chars().count() <= COLUMNS)
        );
    }
}
