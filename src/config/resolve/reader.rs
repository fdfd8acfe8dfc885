//! Reading the keys of a validated document, and reporting what does not fit.
//!
//! A value is the one that is set, else the default of the table; a rejected one counts as not set.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use toml::Value;

use super::super::document::Document;
use super::super::problem::{Fault, Place, Problem};
use super::super::{locate, table, validate};
use super::Surroundings;
use crate::keys::Preset;

/// The state of the resolver.
pub(super) struct Resolver<'a> {
    pub(super) document: &'a Document,
    pub(super) rejected: &'a BTreeSet<String>,
    pub(super) surroundings: &'a Surroundings,
    pub(super) problems: Vec<Problem>,
    /// The keys that were asked for: a test holds them against the table.
    pub(super) read: RefCell<BTreeSet<String>>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(document: &'a Document, rejected: &'a BTreeSet<String>, surroundings: &'a Surroundings) -> Self {
        Self { document, rejected, surroundings, problems: Vec::new(), read: RefCell::default() }
    }

    /// The value that is set, unless it was rejected.
    pub(super) fn set(&self, path: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(path.to_owned());
        self.document.entries.get(path).filter(|_| !self.rejected.contains(path)).map(|entry| &entry.value)
    }

    /// The value that is set, else the fixed default of the table.
    pub(super) fn value(&self, path: &str) -> Option<Value> {
        self.set(path).cloned().or_else(|| match table::find(path)?.preset {
            Preset::Value(text) => toml::de::ValueDeserializer::parse(text)
                .ok()
                .and_then(|value| serde::Deserialize::deserialize(value).ok()),
            Preset::Depends(_) => None,
        })
    }

    pub(super) fn number(&self, path: &str) -> f64 {
        self.stated_number(path).unwrap_or_default()
    }

    pub(super) fn stated_number(&self, path: &str) -> Option<f64> {
        self.value(path).as_ref().and_then(validate::number)
    }

    pub(super) fn integer(&self, path: &str) -> usize {
        self.stated_integer(path).unwrap_or_default()
    }

    pub(super) fn stated_integer(&self, path: &str) -> Option<usize> {
        self.value(path)?.as_integer().and_then(|number| number.try_into().ok())
    }

    pub(super) fn seed(&self, path: &str) -> Option<u64> {
        self.value(path)?.as_integer().and_then(|number| number.try_into().ok())
    }

    pub(super) fn boolean(&self, path: &str) -> bool {
        self.stated_boolean(path).unwrap_or_default()
    }

    pub(super) fn stated_boolean(&self, path: &str) -> Option<bool> {
        self.value(path)?.as_bool()
    }

    /// The word that is set, or the default, through `from_word`.
    pub(super) fn choice<T>(&self, path: &str, from_word: fn(&str) -> Option<T>) -> Option<T> {
        self.value(path).as_ref().and_then(Value::as_str).and_then(from_word)
    }

    /// A path as typed; the empty string is not set.
    pub(super) fn text(&self, path: &str) -> Option<&'a str> {
        self.set(path).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(|text| self.surroundings.config_folder.join(text))
    }

    /// A folder or a hub id.
    pub(super) fn folder(&self, path: &str) -> Option<PathBuf> {
        let (text, folder) = (self.text(path)?, self.path(path)?);
        Some(locate::folder(folder, text, &self.surroundings.hub_cache))
    }

    pub(super) fn is_rejected(&self, paths: &[&str]) -> bool {
        paths.iter().any(|path| {
            let inside = |rejected: &String| rejected.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
            self.rejected.contains(*path) || self.rejected.iter().any(inside)
        })
    }

    pub(super) fn is_flag(&self, path: &str) -> bool {
        matches!(self.document.place(path), Some(Place::Flag(_)))
    }

    pub(super) fn complain(&mut self, key: &str, fault: Fault) {
        self.problems.push(Problem { place: self.document.place(key), key: key.to_owned(), fault });
    }

    pub(super) fn conflict(&mut self, key: &str, reason: impl Into<String>) {
        self.complain(key, Fault::Conflict { reason: reason.into() });
    }

    pub(super) fn missing(&mut self, key: &str, hint: &str) {
        if !self.is_rejected(&[key]) {
            self.problems.push(Problem {
                place: None,
                key: key.to_owned(),
                fault: Fault::Missing { hint: hint.to_owned() },
            });
        }
    }
}
