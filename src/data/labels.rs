//! The label set of a run: ordered, so that a label's place is its class.

use std::collections::{BTreeSet, HashMap};

use super::{DataError, manifest::Row};

/// An ordered set of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    places: HashMap<String, usize>,
}

impl Labels {
    /// The labels in the order given.
    ///
    /// # Errors
    ///
    /// There are none, one is empty, or one is there twice.
    pub fn new(names: Vec<String>) -> Result<Self, DataError> {
        let refused = |names: Vec<String>, reason| Err(DataError::Labels { labels: names, reason });
        if names.is_empty() {
            return refused(names, "there is not a single one; give every utterance a label");
        }
        if names.iter().any(String::is_empty) {
            return refused(names, "one is empty; remove it");
        }
        let places: HashMap<String, usize> =
            names.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        if places.len() < names.len() {
            return refused(names, "one is there twice; remove it");
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

    /// The class of a row's label; none where the row has no label.
    ///
    /// # Errors
    ///
    /// The label is unknown: names id, line, label and the known ones.
    pub fn index_of_row(&self, row: &Row) -> Result<Option<usize>, DataError> {
        let Some(label) = &row.label else { return Ok(None) };
        match self.index(label) {
            Some(index) => Ok(Some(index)),
            None => Err(DataError::UnknownLabel {
                id: row.id.clone(),
                line: row.line,
                label: label.clone(),
                known: self.names.clone(),
            }),
        }
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
        assert!(message(&[]).contains("not a single one"));
        assert!(message(&["a", "a"]).contains("there twice"));
        assert!(message(&["a", ""]).contains("one is empty"));
    }

    #[test]
    fn an_unknown_label_names_the_row_and_the_known_ones() {
        let labels = Labels::new(vec!["sad".to_owned(), "angry".to_owned()]).unwrap();
        let error = labels.index_of_row(&row("u1", Some("Sad"))).unwrap_err().to_string();
        assert!(
            error.contains("utterance `u1` (line 3): unknown label `Sad`; the known labels are `sad`, `angry`"),
            "{error}"
        );
        assert_eq!(labels.index_of_row(&row("u1", None)).unwrap(), None);
    }
}
