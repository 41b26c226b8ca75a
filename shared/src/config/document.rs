//! A TOML document read key by key. Every value keeps its place in the text, every mistake is noted and reading goes
//! on, so that one run names all of them.
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigErrors, Parsed, Place};
use super::report::{Field, List, Located, Report, Reported};
use super::value::Quoted;

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
    /// Known keys that unknown ones were probably meant to be: they are not missing as well.
    misspelt: Vec<(&'static str, Reported)>,
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
        let mut table = Self {
            report,
            schema,
            entries,
            at,
            label,
            misspelt: Vec::new(),
        };
        table.refuse_unknown_keys(name);
        table
    }

    fn refuse_unknown_keys(&mut self, name: &str) {
        let known = keys_of(self.schema, name);
        if known.is_empty() {
            return; // the user chooses the keys
        }
        for key in self.entries.into_iter().flat_map(DeTable::keys) {
            let text: &str = key.get_ref();
            if known.contains(&text) {
                continue;
            }
            let elsewhere = (self.schema.iter())
                .find(|table| table.table != name && table.keys.contains(&text))
                .map(TableKeys::place);
            let near = nearest(text, known.iter().copied());
            let remedy = match (near, elsewhere) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(place)) => format!("`{text}` belongs to {place}"),
                (None, None) => format!("known here: {}", known.join(", ")),
            };
            let message = format!("unknown key {}; {remedy}", Quoted::name(text));
            let reported = self.error(key.span().start, message);
            self.misspelt.extend(near.map(|near| (near, reported)));
        }
    }

    fn misspelt(&self, key: &str) -> Option<Reported> {
        let same = self.misspelt.iter().find(|(meant, _)| *meant == key);
        same.map(|&(_, reported)| reported)
    }

    /// Where the table begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The same as line and column.
    pub(super) fn place(&self) -> Place {
        self.report.place(self.at)
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
            self.misspelt(key).unwrap_or_else(|| {
                let message =
                    format!("the key `{key}` is missing; write for example {key} = {example}");
                self.error(self.at, message)
            })
        })
    }

    /// What `read` makes of the elements of a value that must be there.
    pub(super) fn require_list<T>(
        &self,
        key: &'a str,
        example: &str,
        read: impl FnOnce(Value<'_>) -> List<T>,
    ) -> List<T> {
        match self.require(key, example) {
            Ok(value) => read(value),
            Err(reported) => List::unreadable(self.at, reported),
        }
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
        if let Some(reported) = self.misspelt(name) {
            return Err(reported);
        }
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
            let mut none = List::empty(self.at);
            none.complete = self.misspelt(name).map_or(Ok(()), Err);
            return none;
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
            is_element: false,
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
    is_element: bool,
}

impl<'a> Value<'a> {
    pub(super) fn at(&self) -> usize {
        self.node.span().start
    }

    /// Notes what is wrong with this value.
    pub(super) fn error(&self, message: impl fmt::Display) -> Reported {
        self.report.error(self.at(), labelled(self.label, &message))
    }

    /// Notes that this is not what was `expected`.
    pub(super) fn wrong_type(&self, expected: &str) -> Reported {
        let found = with_article(self.node.get_ref().type_str());
        let subject = if self.is_element {
            "each entry of "
        } else {
            ""
        };
        let key = self.key;
        self.error(format!(
            "{subject}`{key}` has to be {expected}, but this is {found}"
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

    pub(super) fn is_text(&self) -> bool {
        self.node.get_ref().is_str()
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
            list.push(read(Value {
                node,
                is_element: true,
                ..*self
            }));
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
