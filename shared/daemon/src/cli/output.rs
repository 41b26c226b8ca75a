//! What commands print: for people, and with `--json` for programs.
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, presets};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;

use crate::error::Failure;

/// What fits everywhere.
pub const COLUMNS: u16 = 80;

/// How often it is looked whether somebody still reads.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What is left of an elastic column before another one is left out.
const NARROWEST: usize = 8;
/// Between two columns.
const GAP: usize = 2;

const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Whether standard output is for eyes, and these like colours (<https://no-color.org>).
pub fn is_coloured() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !refused
}

/// To standard output.
///
/// # Errors
/// It can't be written; that nobody reads any more (`status | head`) is none.
pub fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(drop)
}

/// To standard output, by a command that goes on until nobody reads. Returns whether somebody still does.
///
/// # Errors
/// As [`print()`].
pub fn print_on(text: &str) -> Result<bool, Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::other(&error)),
    }
}

/// Waits until nobody reads standard output any more: with nothing to print, only that tells that a command is to end. A
/// file is always read.
pub async fn nobody_reads() {
    while !is_abandoned() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Whether standard output is a pipe whose readers are gone: it is in error then (poll(2), POLLERR).
fn is_abandoned() -> bool {
    let stdout = io::stdout();
    let mut looked = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec::default();
    let [state] = match rustix::event::poll(&mut looked, Some(&at_once)) {
        Ok(_) => looked,
        Err(_) => return false,
    };
    state.revents().contains(PollFlags::ERR)
}

/// To standard output, as JSON.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::other(&error))?;
    print(&format!("{text}\n"))
}

/// To standard error: what a person should know beside the result.
pub fn note(text: &str) {
    // Nothing is left to be done when even standard error is gone.
    let _closed = writeln!(io::stderr().lock(), "{text}");
}

/// A table for a terminal of `columns`, one line per row. Of the columns in `elastic` what is too long ends with `…`.
pub fn table(
    head: &[&str],
    elastic: &[usize],
    rows: Vec<Vec<String>>,
    columns: u16,
    coloured: bool,
) -> String {
    table_without(head, elastic, &[], rows, columns, coloured)
}

/// The same; of the columns in `optional` as many are left out, the first ones first, as the others need room.
pub fn table_without(
    head: &[&str],
    elastic: &[usize],
    optional: &[usize],
    rows: Vec<Vec<String>>,
    columns: u16,
    coloured: bool,
) -> String {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let cells = rows.iter().filter_map(|row| row.get(number));
            let widths = cells.map(|cell| cell.chars().count());
            let width = widths.max().unwrap_or(0).max(name.chars().count());
            if elastic.contains(&number) {
                width.min(NARROWEST)
            } else {
                width
            }
        })
        .collect();
    let needed = |left_out: &[usize]| -> usize {
        let kept = widths.iter().enumerate();
        let kept = kept.filter(|(number, _)| !left_out.contains(number));
        kept.map(|(_, width)| width + GAP).sum::<usize>() - GAP
    };
    let fitting = (0..=optional.len())
        .filter_map(|count| optional.get(..count))
        .find(|left_out| needed(left_out) <= usize::from(columns));
    let left_out = fitting.unwrap_or(optional);
    let stays = |number: &usize| !left_out.contains(number);
    let kept: Vec<usize> = (0..head.len()).filter(stays).collect();
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(columns)
        .set_truncation_indicator("…")
        .set_header(one_line(
            kept.iter()
                .filter_map(|&number| head.get(number))
                .map(|&name| name.to_owned())
                .collect(),
        ));
    for mut row in rows {
        let cells = row.iter_mut().enumerate();
        let cells = cells.filter(|(number, _)| stays(number));
        table.add_row(one_line(
            cells.map(|(_, cell)| std::mem::take(cell)).collect(),
        ));
    }
    for (column, number) in table.column_iter_mut().zip(&kept) {
        column.set_padding((0, 2));
        // Should even that be too much, all are shortened.
        if !elastic.contains(number) && fitting.is_some() {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let mut text = String::new();
    for (number, line) in table.lines().enumerate() {
        let (before, after) = match (number, coloured) {
            (0, true) => (BOLD, PLAIN),
            (_, _) => ("", ""),
        };
        text.extend([before, line.trim_end(), after, "\n"]);
    }
    text
}

fn one_line(cells: Vec<String>) -> Row {
    let mut row = Row::from(cells);
    row.max_height(1);
    row
}

/// Columns of the terminal; 80 when standard output is none.
pub fn columns() -> u16 {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col,
        Ok(_) | Err(_) => COLUMNS,
    }
}

/// `1.50 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut hundredths = u128::from(bytes) * 100;
    let mut unit = "B";
    for next in UNITS {
        if hundredths < 102_400 {
            break;
        }
        hundredths /= 1024;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
    }
}

/// `1h 2m`: the two largest units.
pub fn span(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let parts: Vec<&str> = text.split(' ').take(2).collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits_behind_the_point() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.00 KiB");
        assert_eq!(size(1_572_864), "1.50 MiB");
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!(span(59), "59s");
        assert_eq!(span(90_061), "1day 1h");
    }

    #[test]
    fn a_table_fits_and_shortens_what_does_not() {
        let rows = vec![
            vec!["x".repeat(90), "10.17.0.10".to_owned(), "ok".to_owned()],
            vec![
                "alice".to_owned(),
                "10.17.255.254".to_owned(),
                String::new(),
            ],
        ];
        let text = table(&["NAME", "ADDRESS", "STATE"], &[0], rows, 80, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(
            lines[1].contains("xxx…") && lines[1].ends_with("10.17.0.10     ok"),
            "{text}"
        );
        assert!(
            lines[2].starts_with("alice ") && lines[2].ends_with("10.17.255.254"),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
        let wide = vec!["a".repeat(40), "b".repeat(40), "c".repeat(40)];
        let head = ["FIRST", "SECOND", "THIRD"];
        let rows = || vec![wide.clone()];
        let text = table_without(&head, &[0], &[2, 1], rows(), 80, false);
        assert!(text.contains(&wide[1]) && !text.contains("THIRD"), "{text}");
        let text = table_without(&head, &[], &[], rows(), 80, false);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(table(&["A"], &[], vec![], 80, true).starts_with("\x1b[1mA\x1b[0m"));
    }
}
