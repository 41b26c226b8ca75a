//! Findings about one file, and values that remember where they stand.
//!
//! [`Reported`] is the proof that a mistake was noted: a field that could not be read is `Err(Reported)`, and later checks
//! leave it alone instead of complaining about the consequences.
use std::cell::RefCell;

use super::error::{ConfigErrors, Diagnostic, Parsed, Place};

/// A value and where it stands: the offset in bytes of its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

impl<T> Located<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Located<U> {
        Located {
            value: f(self.value),
            at: self.at,
        }
    }
}

/// Proof that an error was noted in a [`Report`]; only [`Report::error`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reported(());

/// A field as far as it could be read.
pub(super) type Field<T> = Result<Located<T>, Reported>;

/// Elements of an array as far as they could be read.
#[derive(Debug)]
pub(super) struct List<T> {
    /// Where the array stands.
    pub(super) at: usize,
    /// The good ones.
    pub(super) items: Vec<T>,
    /// Whether these are all.
    pub(super) complete: Result<(), Reported>,
}

impl<T> List<Located<T>> {
    /// The values without their places, if all of them could be read.
    pub(super) fn into_values(self) -> Result<Vec<T>, Reported> {
        self.try_map(|item| Ok(item.value))
    }
}

impl<T> List<T> {
    pub(super) fn empty(at: usize) -> Self {
        Self {
            at,
            items: Vec::new(),
            complete: Ok(()),
        }
    }

    pub(super) fn unreadable(at: usize, reported: Reported) -> Self {
        Self {
            at,
            items: Vec::new(),
            complete: Err(reported),
        }
    }

    pub(super) fn push(&mut self, item: Result<T, Reported>) {
        match item {
            Ok(item) => self.items.push(item),
            Err(reported) => self.complete = Err(reported),
        }
    }

    /// The elements, if all of them could be read and turned into `U`.
    pub(super) fn try_map<U>(
        self,
        turn: impl FnMut(T) -> Result<U, Reported>,
    ) -> Result<Vec<U>, Reported> {
        self.complete?;
        self.items.into_iter().map(turn).collect()
    }

    pub(super) fn map<U>(self, turn: impl FnMut(T) -> U) -> List<U> {
        List {
            at: self.at,
            items: self.items.into_iter().map(turn).collect(),
            complete: self.complete,
        }
    }
}

/// Collects findings about one file.
#[derive(Debug)]
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    /// Offset of the first character of every line.
    line_starts: Vec<usize>,
    errors: RefCell<Vec<Located<String>>>,
    warnings: RefCell<Vec<Located<String>>>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Self {
            file,
            text,
            line_starts: std::iter::once(0).chain(after_breaks).collect(),
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(super) fn error(&self, at: usize, message: impl Into<String>) -> Reported {
        let value = message.into();
        self.errors.borrow_mut().push(Located { value, at });
        Reported(())
    }

    pub(super) fn warn(&self, at: usize, message: impl Into<String>) {
        let value = message.into();
        self.warnings.borrow_mut().push(Located { value, at });
    }

    /// Line of an offset, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= at)
    }

    /// The value, unless an error was noted.
    pub(super) fn finish<T>(self, value: Result<T, Reported>) -> Result<Parsed<T>, ConfigErrors> {
        let errors = self.diagnostics(self.errors.take());
        match value {
            Ok(config) if errors.is_empty() => Ok(Parsed {
                config,
                warnings: self.diagnostics(self.warnings.take()),
            }),
            Ok(_) | Err(Reported(())) => Err(ConfigErrors(errors)),
        }
    }

    fn diagnostics(&self, mut findings: Vec<Located<String>>) -> Vec<Diagnostic> {
        findings.sort_by_key(|finding| finding.at); // stable: findings about one place keep the order of the checks
        (findings.into_iter())
            .map(|Located { value, at }| self.place(at).finding(value))
            .collect()
    }

    /// Line and column of an offset.
    pub(super) fn place(&self, at: usize) -> Place {
        let line = self.line(at);
        let line_start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        Place {
            file: self.file.to_owned(),
            line,
            column: self.characters(line_start, at) + 1,
        }
    }

    fn characters(&self, from: usize, to: usize) -> usize {
        let offsets = self.text.get(from..).unwrap_or("").char_indices();
        offsets.take_while(|(offset, _)| from + offset < to).count()
    }
}
