//! Reading a plan's tables: the values that are there and of the right type, and all that is wrong with the others.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::document::position;
use crate::config::{Fault, KeyOrigin, Problem};
use crate::keys::nearest_word;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub place: KeyOrigin,
}

/// The file's text, and what was found to be wrong with it.
pub(super) struct Reader<'a> {
    text: &'a str,
    pub problems: Vec<Problem>,
}

/// One table of the file.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    /// As in `system`; empty for the file itself.
    name: &'static str,
    table: &'a DeTable<'a>,
    start: usize,
}

impl<'a> Section<'a> {
    pub fn of_file(table: &'a DeTable<'a>) -> Self {
        Self { name: "", table, start: 0 }
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, problems: Vec::new() }
    }

    pub fn place(&self, byte: usize) -> KeyOrigin {
        KeyOrigin::Line(position(self.text, byte).0)
    }

    pub fn place_of(&self, section: Section) -> KeyOrigin {
        self.place(section.start)
    }

    pub fn complain(&mut self, place: KeyOrigin, key: &str, fault: Fault) {
        self.problems.push(Problem { place: Some(place), key: key.to_owned(), fault });
    }

    pub fn conflict(&mut self, place: KeyOrigin, key: &str, reason: impl Into<String>) {
        self.complain(place, key, Fault::Conflict { reason: reason.into() });
    }

    /// Reports the keys of a section that are none of these.
    pub fn allow(&mut self, section: Section, keys: &'static [&'static str]) {
        for key in section.table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref())) {
            let nearest = nearest_word(key.get_ref(), keys).map(|word| section.path(word));
            let valid = keys.iter().map(|&key| key.to_owned()).collect();
            let place = self.place(key.span().start);
            self.complain(place, &section.path(key.get_ref()), Fault::Unknown { nearest, valid });
        }
    }

    /// The sections of an array of tables.
    pub fn sections(&mut self, table: &'a DeTable<'a>, name: &'static str) -> Vec<Section<'a>> {
        let Some(value) = table.get(name) else { return Vec::new() };
        let DeValue::Array(values) = value.get_ref() else {
            self.wrong(Section::of_file(table), name, value, &format!("tables ([[{name}]])"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for value in values {
            match value.get_ref() {
                DeValue::Table(table) => sections.push(Section { name, table, start: value.span().start }),
                _ => self.wrong(Section::of_file(table), name, value, &format!("tables ([[{name}]])")),
            }
        }
        sections
    }

    fn wrong(&mut self, section: Section, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let span = value.span();
        let found: String = self.text.get(span.clone()).unwrap_or_default().chars().take(60).collect();
        let place = self.place(span.start);
        let fault = Fault::Value { expected: expected.to_owned(), found: found.replace('\n', " ") };
        self.complain(place, &section.path(key), fault);
    }

    /// The value of a key through `read`; a problem where it is there and `read` finds nothing.
    fn value<T>(
        &mut self,
        section: Section<'a>,
        key: &str,
        expected: &str,
        read: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        let value = section.table.get(key)?;
        let found = read(value.get_ref()).map(|read| At { value: read, place: self.place(value.span().start) });
        if found.is_none() {
            self.wrong(section, key, value, expected);
        }
        found
    }

    pub fn string(&mut self, section: Section<'a>, key: &str) -> Option<At<String>> {
        self.value(section, key, "a string that is not empty", string)
    }

    pub fn strings(&mut self, section: Section<'a>, key: &str) -> Option<At<Vec<String>>> {
        self.value(section, key, "a list of strings, none of them empty", |value| list(value, string))
    }

    /// One string or a list of them.
    pub fn string_or_strings(&mut self, section: Section<'a>, key: &str) -> Option<At<Vec<String>>> {
        self.value(section, key, "a string, or a list of strings", |value| {
            string(value).map(|one| vec![one]).or_else(|| list(value, string)).filter(|strings| !strings.is_empty())
        })
    }

    /// A whole number of at least 1.
    pub fn count(&mut self, section: Section<'a>, key: &str) -> Option<At<usize>> {
        self.value(section, key, "a whole number from 1 to 1000", |value| {
            integer(value).and_then(|number| usize::try_from(number).ok()).filter(|number| (1..=1000).contains(number))
        })
    }

    pub fn seeds(&mut self, section: Section<'a>, key: &str) -> Option<At<Vec<u64>>> {
        self.value(section, key, "a list of different whole numbers of at least 0, not empty", |value| {
            list(value, |value| integer(value).and_then(|number| u64::try_from(number).ok()))
                .filter(|seeds| !seeds.is_empty() && are_different(seeds))
        })
    }

    /// A list of values that are written as words.
    pub fn parsed<T: FromStr>(&mut self, section: Section<'a>, key: &str, expected: &str) -> Option<At<Vec<T>>> {
        self.value(section, key, expected, |value| list(value, |value| string(value)?.parse().ok()))
    }

    /// One of these words.
    pub fn choice(&mut self, section: Section<'a>, key: &str, words: &'static [&'static str]) -> Option<&'static str> {
        let word = self.string(section, key)?;
        self.chosen(&word.value, &word.place, &section.path(key), words)
    }

    /// Some of these words, each once.
    pub fn choices(
        &mut self,
        section: Section<'a>,
        key: &str,
        words: &'static [&'static str],
    ) -> Option<At<Vec<&'static str>>> {
        let found = self.strings(section, key)?;
        let path = section.path(key);
        let chosen: Vec<&'static str> =
            found.value.iter().filter_map(|word| self.chosen(word, &found.place, &path, words)).collect();
        if !are_different(&chosen) {
            self.conflict(found.place.clone(), &path, "has a word twice");
        }
        Some(At { value: chosen, place: found.place })
    }

    fn chosen(
        &mut self,
        word: &str,
        place: &KeyOrigin,
        path: &str,
        words: &'static [&'static str],
    ) -> Option<&'static str> {
        let found = words.iter().copied().find(|known| *known == word);
        if found.is_none() {
            let fault =
                Fault::Choice { found: format!("{word:?}"), choices: words, nearest: nearest_word(word, words) };
            self.complain(place.clone(), path, fault);
        }
        found
    }
}

fn are_different<T: Eq + Hash + Ord>(values: &[T]) -> bool {
    values.iter().collect::<BTreeSet<_>>().len() == values.len()
}

fn string(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) if !text.trim().is_empty() => Some(text.to_string()),
        _ => None,
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

fn list<T>(value: &DeValue<'_>, read: impl Fn(&DeValue<'_>) -> Option<T>) -> Option<Vec<T>> {
    match value {
        DeValue::Array(values) => values.iter().map(|value| read(value.get_ref())).collect(),
        _ => None,
    }
}
