//! The label set of a run: ordered, so that a label's place is its class.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::names::normal;
use super::{DataError, manifest::Row};

/// An ordered set of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    places: HashMap<String, usize>,
}

/// A label outside the label set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLabel {
    pub label: String,
    /// Utterances that have it.
    pub count: usize,
    /// The id of the first of them.
    pub id: String,
    /// Its line in the manifest.
    pub line: usize,
}

impl fmt::Display for UnknownLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { label, count, id, line } = self;
        let noun = if *count == 1 { "utterance" } else { "utterances" };
        write!(formatter, "unknown label `{label}`: {count} {noun}, the first is utterance `{id}` (line {line})")
    }
}

impl Labels {
    /// The labels in the order given, as manifests have them: trimmed and in one normal form.
    ///
    /// # Errors
    ///
    /// There are none, one is empty, or one is there twice.
    pub fn new(names: Vec<String>) -> Result<Self, DataError> {
        let names: Vec<String> = names.into_iter().map(|name| normal(&name)).collect();
        let refused = |names: Vec<String>, reason| Err(DataError::Labels { labels: names, reason });
        if names.is_empty() {
            return refused(names, "there are no labels; give every utterance a label");
        }
        if names.iter().any(String::is_empty) {
            return refused(names, "a label is empty; remove it");
        }
        let places: HashMap<String, usize> =
            names.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        if places.len() < names.len() {
            return refused(names, "a label is listed twice; remove one");
        }
        Ok(Self { names, places })
    }

    /// The sorted labels of a manifest.
    ///
    /// # Errors
    ///
    /// No row has a label.
    pub fn from_rows(rows: &[Row]) -> Result<Self, DataError> {
        let names: BTreeSet<&String> = rows.iter().filter_map(|row| row.label.as_ref()).collect();
        Self::new(names.into_iter().cloned().collect())
    }

    /// The class of a label.
    pub fn index(&self, label: &str) -> Option<usize> {
        self.places.get(label).copied()
    }

    /// The labels of rows that are not among these, sorted.
    pub fn unknown_in(&self, rows: &[Row]) -> Vec<UnknownLabel> {
        let mut unknown: BTreeMap<&str, UnknownLabel> = BTreeMap::new();
        for row in rows {
            if let Some(label) = row.label.as_deref().filter(|label| self.index(label).is_none()) {
                let first = || UnknownLabel { label: label.to_owned(), count: 0, id: row.id.clone(), line: row.line };
                unknown.entry(label).or_insert_with(first).count += 1;
            }
        }
        unknown.into_values().collect()
    }

    /// Checks that these labels are all that rows have.
    ///
    /// # Errors
    ///
    /// Those that are unknown, how often each occurs, and the known ones.
    pub fn check(&self, rows: &[Row]) -> Result<(), DataError> {
        let unknown = self.unknown_in(rows);
        if unknown.is_empty() { Ok(()) } else { Err(DataError::UnknownLabels { unknown, known: self.names.clone() }) }
    }

    /// The label of a class.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(String::as_str)
    }

    /// Every label in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, label: Option<&str>) -> Row {
        Row { id: id.to_owned(), label: label.map(ToOwned::to_owned), line: 3, ..Row::default() }
    }

    #[test]
    fn labels_of_rows_are_sorted_and_given_ones_keep_their_order() {
        let rows = [row("a", Some("sad")), row("b", None), row("c", Some("angry")), row("d", Some("sad"))];
        assert_eq!(Labels::from_rows(&rows).unwrap().names(), ["angry", "sad"]);
        let labels = Labels::new(vec!["sad".to_owned(), "angry".to_owned()]).unwrap();
        assert_eq!((labels.index("sad"), labels.index("angry"), labels.index("Sad")), (Some(0), Some(1), None));
        assert_eq!((labels.name(1), labels.len()), (Some("angry"), 2));
    }

    #[test]
    fn what_is_no_label_set_is_an_error() {
        let message = |names: &[&str]| {
            Labels::new(names.iter().map(|name| (*name).to_owned()).collect()).unwrap_err().to_string()
        };
        assert!(message(&[]).contains("there are no labels"));
        assert!(message(&["a", "a"]).contains("listed twice"));
        assert!(message(&["a", ""]).contains("a label is empty"));
    }

    #[test]
    fn an_unknown_label_is_told_once_with_its_count() {
        let labels = Labels::new(vec!["sad".to_owned(), "angry ".to_owned()]).unwrap();
        let rows = [row("u1", Some("Sad")), row("u2", None), row("u3", Some("angry")), row("u4", Some("Sad"))];
        let error = labels.check(&rows).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "unknown label `Sad`: 2 utterances, the first is utterance `u1` (line 3); the known labels are `sad`, \
                 `angry`; "
            ),
            "{error}"
        );
        let more = [&rows[..], &[row("u5", Some("bored"))]].concat();
        let error = labels.check(&more).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 3, "{error}");
        assert!(error.lines().nth(1).unwrap().starts_with("unknown label `bored`: 1 utterance, "), "{error}");
        assert!(labels.check(&rows[1..3]).is_ok());
    }
}
