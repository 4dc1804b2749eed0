//! Settings as they were written, each with its place: a tree of tables from a TOML file, with the variables of the
//! environment set over it. Does not know the types of settings.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Printable;

/// The place where a setting was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of the configuration file.
    Line {
        /// The file's path as it was given.
        file: Arc<str>,
        /// The line's number, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(Arc<str>),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}, line {line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value or table with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// Compares values, not places.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A value from the environment, whose type depends on the setting.
    Raw(String),
    Text(String),
    /// The digits without underscores, and their base.
    Number(String, u32),
    Bool(bool),
    /// A type that no setting has: a fraction, a date.
    Other(String),
    List(Vec<Node>),
    Table(Table),
}

pub(super) type Table = BTreeMap<String, Node>;

/// Parses a file.
pub(super) fn parse(file: &Path, text: &str) -> Result<Table, toml::de::Error> {
    let table = DeTable::parse(text)?;
    let file: Arc<str> = Printable::new(&file.display().to_string()).to_string().into();
    let ends: Vec<usize> = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at).collect();
    let line = |at| ends.partition_point(|&end| end < at) + 1;
    Ok(convert_table(table.get_ref(), &|at| Place::Line { file: Arc::clone(&file), line: line(at) }))
}

/// Parses a value written as TOML in a variable.
pub(super) fn parse_value(text: &str, place: &Place) -> Option<Value> {
    DeValue::parse(text).ok().map(|value| convert(value.get_ref(), &|_| place.clone()))
}

fn convert_table(table: &DeTable<'_>, place: &impl Fn(usize) -> Place) -> Table {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let node = Node { value: convert(value.get_ref(), place), place: place(key.span().start) };
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        (key.to_string(), node)
    };
    table.iter().map(entry).collect()
}

fn convert(value: &DeValue<'_>, place: &impl Fn(usize) -> Place) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Number(number.as_str().replace('_', ""), number.radix()),
        DeValue::Boolean(is_true) => Value::Bool(*is_true),
        DeValue::Float(number) => Value::Other(number.to_string()),
        DeValue::Datetime(date) => Value::Other(date.to_string()),
        DeValue::Array(list) => {
            let node = |item: &Spanned<DeValue<'_>>| Node {
                value: convert(item.get_ref(), place),
                place: place(item.span().start),
            };
            Value::List(list.iter().map(node).collect())
        }
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    }
}

/// Sets the value at a path. Returns it if a part of the path is not a table.
pub(super) fn set(table: &mut Table, path: &[&str], node: Node) -> Result<(), Node> {
    let Some((first, rest)) = path.split_first() else { return Err(node) };
    if rest.is_empty() {
        table.insert((*first).to_owned(), node);
        return Ok(());
    }
    let empty = || Node { value: Value::Table(Table::new()), place: node.place.clone() };
    match &mut table.entry((*first).to_owned()).or_insert_with(empty).value {
        Value::Table(table) => set(table, rest, node),
        _ => Err(node),
    }
}

/// Every setting that was set, by its name with its tables.
pub(super) fn settings(table: &Table) -> BTreeMap<String, &Node> {
    fn collect<'a>(table: &'a Table, before: &str, into: &mut BTreeMap<String, &'a Node>) {
        for (key, node) in table {
            let name = format!("{before}{key}");
            match &node.value {
                Value::Table(inner) => collect(inner, &format!("{name}."), into),
                _ => drop(into.insert(name, node)),
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(table, "", &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_line() {
        let text = "name = 'a'\n\n[limits]\nmax_clients = 1_0\n[[topics]]\npattern = '>'\n\
                    [tls]\ncert = '''\nx\ny'''\nkey = ''";
        let table = parse(Path::new("qws.toml"), text).expect("TOML");
        let places: Vec<_> =
            settings(&table).into_iter().map(|(name, node)| format!("{name}: {}", node.place)).collect();
        assert_eq!(
            places,
            [
                "limits.max_clients: qws.toml, line 4",
                "name: qws.toml, line 1",
                "tls.cert: qws.toml, line 8",
                "tls.key: qws.toml, line 11",
                "topics: qws.toml, line 5"
            ]
        );
        assert_eq!(settings(&table)["limits.max_clients"].value, Value::Number("10".into(), 10));
    }
}
