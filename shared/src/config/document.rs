//! A TOML document read key by key. Every value keeps its place in the text, every mistake is noted and reading goes
//! on, so that one run names all of them.
//!
//! [`Reported`] is the proof that a mistake was noted: a field that could not be read is `Err(Reported)`, and later checks
//! leave it alone instead of complaining about the consequences.
use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigErrors, Diagnostic, Parsed};
use super::value::Quoted;

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

    fn push(&mut self, item: Result<T, Reported>) {
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
    errors: RefCell<Vec<Located<String>>>,
    warnings: RefCell<Vec<Located<String>>>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
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
        self.before(at).matches('\n').count() + 1
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
        // Line numbers are counted in one pass: a file can have as many mistakes as lines.
        let (mut line, mut line_start, mut counted) = (1, 0, 0);
        let mut diagnostics = Vec::with_capacity(findings.len());
        for Located { value, at } in findings {
            let before = self.before(at);
            for (offset, _) in before.get(counted..).unwrap_or("").match_indices('\n') {
                line += 1;
                line_start = counted + offset + 1;
            }
            counted = before.len();
            let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
            diagnostics.push(Diagnostic {
                file: self.file.to_owned(),
                line,
                column,
                message: value.replace(['\n', '\r'], " "),
            });
        }
        diagnostics
    }

    /// The text before an offset; an offset inside a character counts as the start of it.
    fn before(&self, at: usize) -> &'t str {
        let mut end = at.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        self.text.get(..end).unwrap_or("")
    }
}

/// Keys of one table of a file: what the parser reads, what a misspelt key is compared with, what the manual has to explain.
#[derive(Debug, Clone, Copy)]
pub struct TableKeys {
    /// Name of the table, empty for the top of the file.
    pub table: &'static str,
    /// Whether it may occur several times: `[[publish]]`.
    pub repeated: bool,
    /// Its keys; empty where the user chooses them (`[sets]`).
    pub keys: &'static [&'static str],
}

impl TableKeys {
    /// Where the keys stand, for remedies.
    fn place(&self) -> String {
        let name = self.table;
        match (name.is_empty(), self.repeated) {
            (true, _) => "the top of the file, above the first table".to_owned(),
            (false, false) => format!("[{name}]"),
            (false, true) => format!("[[{name}]]"),
        }
    }
}

/// Parses TOML and hands the top table to `read`.
pub(super) fn parse<T>(
    text: &str,
    file: &str,
    schema: &'static [TableKeys],
    read: impl FnOnce(&Report<'_>, &Table<'_>) -> Result<T, Reported>,
) -> Result<Parsed<T>, ConfigErrors> {
    let report = Report::new(file, text);
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    let mut reported = None;
    for error in syntax_errors {
        // Not its `Display`, which quotes the line and with it perhaps a secret.
        let at = error.span().map_or(0, |span| span.start);
        reported = Some(report.error(at, format!("not valid TOML: {}", error.message())));
    }
    let value = match reported {
        // What recovery made of the rest is a guess; complaints about it would mislead.
        Some(reported) => Err(reported),
        None => read(
            &report,
            &Table::open(
                &report,
                schema,
                "",
                String::new(),
                Some(root.get_ref()),
                root.span().start,
            ),
        ),
    };
    report.finish(value)
}

/// A table whose keys are known; opening it reports the unknown ones.
#[derive(Debug)]
pub(super) struct Table<'a> {
    report: &'a Report<'a>,
    schema: &'static [TableKeys],
    entries: Option<&'a DeTable<'a>>,
    at: usize,
    label: String,
}

impl<'a> Table<'a> {
    fn open(
        report: &'a Report<'a>,
        schema: &'static [TableKeys],
        name: &str,
        label: String,
        entries: Option<&'a DeTable<'a>>,
        at: usize,
    ) -> Self {
        let table = Self {
            report,
            schema,
            entries,
            at,
            label,
        };
        table.refuse_unknown_keys(name);
        table
    }

    fn refuse_unknown_keys(&self, name: &str) {
        let known = keys_of(self.schema, name);
        if known.is_empty() {
            return;
        }
        for key in self.entries.into_iter().flat_map(DeTable::keys) {
            let text: &str = key.get_ref();
            if known.contains(&text) {
                continue;
            }
            let elsewhere = (self.schema.iter())
                .find(|table| table.table != name && table.keys.contains(&text))
                .map(TableKeys::place);
            let remedy = match (nearest(text, known.iter().copied()), elsewhere) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(place)) => format!("`{text}` belongs to {place}"),
                (None, None) => format!("known here: {}", known.join(", ")),
            };
            let message = format!("unknown key {}; {remedy}", Quoted::name(text));
            self.error(key.span().start, message);
        }
    }

    /// Where the table begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// How messages name the table: `publish "ingress"`, `[tunnel]`.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn error(&self, at: usize, message: impl fmt::Display) -> Reported {
        self.report.error(at, labelled(&self.label, &message))
    }

    /// Every key with its value, for tables whose keys the user chooses.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Located<&'a str>, Value<'_>)> {
        (self.entries.into_iter().flatten()).map(|(key, node)| {
            let text: &'a str = key.get_ref();
            let key = Located {
                value: text,
                at: key.span().start,
            };
            (key, self.value(text, node))
        })
    }

    /// The value of a key that may be missing.
    pub(super) fn get(&self, key: &'a str) -> Option<Value<'_>> {
        let node = self.entries?.get(key)?;
        Some(self.value(key, node))
    }

    /// The value of a key that must be there; `example` is what could stand in the file.
    pub(super) fn require(&self, key: &'a str, example: &str) -> Result<Value<'_>, Reported> {
        self.get(key).ok_or_else(|| {
            let message =
                format!("the key `{key}` is missing; write for example {key} = {example}");
            self.error(self.at, message)
        })
    }

    /// What `read` makes of the value, or the default.
    pub(super) fn get_or<T>(
        &self,
        key: &'a str,
        default: T,
        read: impl FnOnce(Value<'_>) -> Field<T>,
    ) -> Field<T> {
        self.get(key).map_or(
            Ok(Located {
                value: default,
                at: self.at,
            }),
            read,
        )
    }

    /// What `read` makes of the value, or nothing.
    pub(super) fn get_and<T>(
        &self,
        key: &'a str,
        read: impl FnOnce(Value<'_>) -> Field<T>,
    ) -> Result<Option<Located<T>>, Reported> {
        self.get(key).map(read).transpose()
    }

    /// The table `[name]`, which may be missing.
    pub(super) fn table_or_empty(&self, name: &'static str) -> Result<Table<'_>, Reported> {
        let label = format!("[{name}]");
        let Some(value) = self.get(name) else {
            return Ok(Table::open(
                self.report,
                self.schema,
                name,
                label,
                None,
                self.at,
            ));
        };
        let Some(entries) = value.node.get_ref().as_table() else {
            let message =
                format!("`{name}` has to be one table; write its keys below a line [{name}]");
            return Err(self.error(value.at(), message));
        };
        Ok(Table::open(
            self.report,
            self.schema,
            name,
            label,
            Some(entries),
            value.at(),
        ))
    }

    /// The table `[name]`, which must be there.
    pub(super) fn table(&self, name: &'static str) -> Result<Table<'_>, Reported> {
        if self.get(name).is_none() {
            let keys = keys_of(self.schema, name).join(", ");
            let message = format!("the table [{name}] is missing; its keys are: {keys}");
            return Err(self.error(self.at, message));
        }
        self.table_or_empty(name)
    }

    /// The tables `[[name]]`, none if there are none.
    pub(super) fn tables(&self, name: &'static str) -> List<Table<'_>> {
        let Some(value) = self.get(name) else {
            return List::empty(self.at);
        };
        let Some(array) = value.node.get_ref().as_array() else {
            let message = format!(
                "`{name}` can occur several times; write [[{name}]] with double brackets above each"
            );
            return List::unreadable(value.at(), self.error(value.at(), message));
        };
        let mut tables = List::empty(value.at());
        for (index, node) in array.iter().enumerate() {
            let at = node.span().start;
            let Some(entries) = node.get_ref().as_table() else {
                let message = format!("`{name}` is made of tables; write [[{name}]] above each");
                tables.push(Err(self.error(at, message)));
                continue;
            };
            let label = (entries.get("name"))
                .and_then(|name| name.get_ref().as_str())
                .map_or_else(
                    || format!("{name} number {}", index + 1),
                    |text| format!("{name} {}", Quoted::text(text)),
                );
            let table = Table::open(self.report, self.schema, name, label, Some(entries), at);
            tables.push(Ok(table));
        }
        tables
    }

    fn value<'v>(&'v self, key: &'v str, node: &'v Spanned<DeValue<'v>>) -> Value<'v> {
        Value {
            report: self.report,
            label: &self.label,
            key,
            node,
        }
    }
}

/// A value on its way to its meaning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    report: &'a Report<'a>,
    label: &'a str,
    key: &'a str,
    node: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    pub(super) fn at(&self) -> usize {
        self.node.span().start
    }

    /// Notes what is wrong with this value.
    pub(super) fn error(&self, message: impl fmt::Display) -> Reported {
        self.report.error(self.at(), labelled(self.label, &message))
    }

    fn wrong_type(&self, expected: &str) -> Reported {
        let found = with_article(self.node.get_ref().type_str());
        self.error(format!(
            "`{}` has to be {expected}, but this is {found}",
            self.key
        ))
    }

    pub(super) fn text(&self) -> Field<&'a str> {
        let text = self.node.get_ref().as_str();
        let value = text.ok_or_else(|| self.wrong_type("a string"))?;
        Ok(self.locate(value))
    }

    /// A string with a meaning; the message of the error has to be a whole sentence.
    pub(super) fn parse<T>(&self) -> Field<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        self.parse_with(T::from_str)
    }

    pub(super) fn parse_with<T, E: fmt::Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Field<T> {
        let text = self.text()?;
        let value = parse(text.value).map_err(|error| self.error(error))?;
        Ok(self.locate(value))
    }

    /// The digits of an integer that `i64` can't hold are given back as `Err`.
    pub(super) fn integer(&self) -> Field<Result<i64, String>> {
        let integer = self.node.get_ref().as_integer();
        let integer = integer.ok_or_else(|| self.wrong_type("an integer"))?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix());
        Ok(self.locate(number.map_err(|_| integer.to_string())))
    }

    pub(super) fn is_integer(&self) -> bool {
        self.node.get_ref().is_integer()
    }

    /// An integer within limits that `T` can hold.
    pub(super) fn integer_in<T: TryFrom<i64>>(&self, limits: RangeInclusive<i64>) -> Field<T> {
        let number = self.integer()?.value;
        let within = (number.as_ref().ok())
            .filter(|number| limits.contains(number))
            .and_then(|&number| T::try_from(number).ok());
        let value = within.ok_or_else(|| {
            let written = number.map_or_else(|digits| digits, |number| number.to_string());
            let (least, most) = (limits.start(), limits.end());
            self.error(format!(
                "`{}` is {written}, out of range; write {least} to {most}",
                self.key
            ))
        })?;
        Ok(self.locate(value))
    }

    pub(super) fn boolean(&self) -> Field<bool> {
        let value = self.node.get_ref().as_bool();
        let value = value.ok_or_else(|| self.wrong_type("true or false"))?;
        Ok(self.locate(value))
    }

    /// Each element of an array as `read` makes it; an empty array is an error.
    pub(super) fn elements<T>(
        &self,
        expected: &str,
        read: impl FnMut(Value<'_>) -> Result<T, Reported>,
    ) -> List<T> {
        match self.node.get_ref().as_array() {
            Some(array) => self.collect(array.iter(), read),
            None => List::unreadable(self.at(), self.wrong_type(expected)),
        }
    }

    /// Like [`Value::elements`], but a single value may stand without brackets.
    pub(super) fn one_or_more<T>(
        &self,
        read: impl FnMut(Value<'_>) -> Result<T, Reported>,
    ) -> List<T> {
        match self.node.get_ref().as_array() {
            Some(array) => self.collect(array.iter(), read),
            None => self.collect(std::iter::once(self.node), read),
        }
    }

    fn collect<T>(
        &self,
        nodes: impl ExactSizeIterator<Item = &'a Spanned<DeValue<'a>>>,
        mut read: impl FnMut(Value<'_>) -> Result<T, Reported>,
    ) -> List<T> {
        if nodes.len() == 0 {
            let message = format!("`{}` is empty; it needs at least one entry", self.key);
            return List::unreadable(self.at(), self.error(message));
        }
        let mut list = List::empty(self.at());
        for node in nodes {
            list.push(read(Value { node, ..*self }));
        }
        list
    }

    fn locate<T>(&self, value: T) -> Located<T> {
        Located {
            value,
            at: self.at(),
        }
    }
}

/// The candidate that a misspelt word most probably means, if one is near enough.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    const LONGEST_MISSPELT: usize = 64; // the comparison takes memory by the product of both lengths
    if word.len() > LONGEST_MISSPELT {
        return None;
    }
    // A third of the letters may be wrong: `adress` is `address`, `mtu` is not `name`.
    let tolerance = word.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= tolerance)
        .min()
        .map(|(_, candidate)| candidate)
}

fn keys_of(schema: &'static [TableKeys], name: &str) -> &'static [&'static str] {
    (schema.iter().find(|table| table.table == name)).map_or(&[], |table| table.keys)
}

fn labelled(label: &str, message: &dyn fmt::Display) -> String {
    if label.is_empty() {
        message.to_string()
    } else {
        format!("{label}: {message}")
    }
}

fn with_article(type_name: &'static str) -> String {
    let article = if type_name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {type_name}")
}
