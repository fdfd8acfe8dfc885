//! Reading the keys of a validated document, and reporting what does not fit.
//!
//! A section reads its keys through [`Values`]; the others are read here by their paths. A rejected value counts as not
//! set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::Value;

use super::super::document::Document;
use super::super::problem::{Fault, KeyOrigin, Problem};
use super::super::{locate, table};
use super::Surroundings;
use crate::files::found_from;
use crate::keys::{Key, Kind, Setting, Values};

/// The state of the resolver.
pub(super) struct Resolver<'a> {
    pub(super) document: &'a Document,
    pub(super) rejected: &'a BTreeSet<String>,
    pub(super) surroundings: &'a Surroundings,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(document: &'a Document, rejected: &'a BTreeSet<String>, surroundings: &'a Surroundings) -> Self {
        Self { document, rejected, surroundings, problems: Vec::new() }
    }

    /// The value that is set, unless it was rejected.
    pub(super) fn set(&self, path: &str) -> Option<&'a Value> {
        self.document.entries.get(path).filter(|_| !self.rejected.contains(path)).map(|entry| &entry.value)
    }

    /// The same as what it means: a number, a path in full.
    pub(super) fn get<T: Setting>(&self, path: &str) -> Option<T> {
        table::find(path).and_then(|key| T::read(self, key))
    }

    /// A path as typed; the empty string is not set.
    pub(super) fn text(&self, path: &str) -> Option<&'a str> {
        self.set(path).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn is_rejected(&self, paths: &[&str]) -> bool {
        paths.iter().any(|path| {
            let inside = |rejected: &String| rejected.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
            self.rejected.contains(*path) || self.rejected.iter().any(inside)
        })
    }

    pub(super) fn is_flag(&self, path: &str) -> bool {
        matches!(self.document.place(path), Some(KeyOrigin::Flag(_)))
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

impl Values for Resolver<'_> {
    fn value(&self, key: &Key) -> Option<&Value> {
        self.set(key.path)
    }

    fn path(&self, key: &Key) -> Option<PathBuf> {
        let text = self.text(key.path)?;
        let surroundings = self.surroundings;
        let path = match &surroundings.stored {
            Some(stored) => found_from(Path::new(text), &surroundings.config_folder, stored.then.as_deref()),
            None => surroundings.config_folder.join(text),
        };
        Some(match key.kind {
            Kind::Folder if surroundings.stored.is_none() || self.is_flag(key.path) => {
                surroundings.current_folder.join(text)
            }
            Kind::Model => locate::folder(path, text, &surroundings.hub_cache),
            _ => path,
        })
    }
}
