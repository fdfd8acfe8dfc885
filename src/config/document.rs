//! A config as it is written: the TOML file and the `--set` flags, flattened to one list of keys with their places.
//!
//! Flags replace what the file says, key by key; nothing is interpreted here. Next: `validate`.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

use super::problem::{ConfigError, Fault, KeyOrigin, Problem};
use super::table;

/// Keys and tables of a file that are read: each that is wrong is compared with all that there are.
const MOST_KEYS: usize = 10_000;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value; never a table.
    pub value: Value,
    pub place: KeyOrigin,
}

/// The keys of a config with their values and places, and the tables that were opened.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// By full path, as `train.epochs`.
    pub entries: BTreeMap<String, Entry>,
    /// The tables, also empty ones, by full path.
    pub sections: BTreeMap<String, KeyOrigin>,
}

impl Document {
    /// Reads a file's text. `name` is the file's name in messages.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with line and column.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let table = DeTable::parse(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            let message = error.message().replace('\n', ", ");
            ConfigError::Syntax { name: name.to_owned(), line, column, message }
        })?;
        let mut document = Self::default();
        let ends: Vec<usize> = text.match_indices('\n').map(|(end, _)| end).collect();
        document.flatten("", table.get_ref(), &|start| KeyOrigin::Line(1 + ends.partition_point(|end| *end < start)));
        let count = document.entries.len() + document.sections.len();
        if count > MOST_KEYS {
            let message = format!("{count} keys and tables, and at most {MOST_KEYS} are read");
            return Err(ConfigError::Syntax { name: name.to_owned(), line: 1, column: 1, message });
        }
        Ok(document)
    }

    /// Applies one `--set key.path=value`.
    ///
    /// The value is read as TOML; where that fails, or where the key takes a word or a path, it is a string as typed.
    ///
    /// # Errors
    /// A problem where there is no `=` or no key before it.
    pub fn set(&mut self, assignment: &str) -> Result<(), Problem> {
        let place = KeyOrigin::Flag(assignment.to_owned());
        let parts = assignment.split_once('=').map(|(path, value)| (path.trim(), value.trim()));
        let Some((path, typed)) = parts.filter(|(path, _)| !path.is_empty()) else {
            return Err(Problem { place: Some(place), key: assignment.to_owned(), fault: Fault::Assignment });
        };
        let parsed = DeValue::parse(typed).ok();
        let wants_text = table::find(path).is_some_and(|key| key.kind.is_text());
        match parsed.as_ref().map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => {
                self.entries.remove(path);
                self.sections.insert(path.to_owned(), place.clone());
                self.flatten(path, table, &|_| place.clone());
            }
            Some(value) if !wants_text || matches!(value, DeValue::String(_) | DeValue::Array(_)) => {
                self.insert(path, plain(value), place);
            }
            _ => self.insert(path, Value::String(typed.to_owned()), place),
        }
        Ok(())
    }

    /// Where a key was written; for a section, where it or the first of its keys was.
    pub fn place(&self, path: &str) -> Option<KeyOrigin> {
        let within = |entry: &&String| entry.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        let first_inside =
            || self.entries.iter().filter(|(entry, _)| within(entry)).map(|(_, entry)| &entry.place).min();
        let own = self.entries.get(path).map(|entry| &entry.place);
        own.or_else(|| self.sections.get(path)).or_else(first_inside).cloned()
    }

    /// Whether a table was opened or any of its keys was set.
    pub fn has_section(&self, path: &str) -> bool {
        self.place(path).is_some()
    }

    fn insert(&mut self, path: &str, value: Value, place: KeyOrigin) {
        // A value for what the file has as a table replaces the table, so that only the flag is judged.
        self.sections.remove(path);
        self.entries.retain(|key, _| key.strip_prefix(path).is_none_or(|rest| !rest.starts_with('.')));
        self.entries.insert(path.to_owned(), Entry { value, place });
    }

    fn flatten(&mut self, prefix: &str, table: &DeTable<'_>, place: &dyn Fn(usize) -> KeyOrigin) {
        for (key, value) in table {
            let path =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            let place_here = place(key.span().start);
            if let DeValue::Table(inner) = value.get_ref() {
                self.sections.insert(path.clone(), place_here);
                self.flatten(&path, inner, place);
            } else {
                self.entries.insert(path, Entry { value: plain(value.get_ref()), place: place_here });
            }
        }
    }
}

/// A file's text as the table that it is, whichever keys it has.
///
/// # Errors
/// [`ConfigError::Syntax`]
pub fn table(name: &str, text: &str) -> Result<toml::Table, ConfigError> {
    Document::parse(name, text)?;
    text.trim_start_matches('\u{feff}').parse().map_err(|error: toml::de::Error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        ConfigError::Syntax { name: name.to_owned(), line, column, message: error.message().to_owned() }
    })
}

/// Line and column of a byte, both counted from 1.
pub(crate) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

/// The value without its spans. A whole number beyond 64 bits becomes a float, which no key of whole numbers takes.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Float(number.as_str().parse().unwrap_or(f64::INFINITY)), Value::Integer),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(date) => Value::Datetime(*date),
        DeValue::Array(values) => Value::Array(values.iter().map(|value| plain(value.get_ref())).collect()),
        DeValue::Table(table) => {
            Value::Table(table.iter().map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref()))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, assignments: &[&str]) -> Document {
        let mut document = Document::parse("x.toml", text).unwrap();
        for assignment in assignments {
            document.set(assignment).unwrap();
        }
        document
    }

    #[test]
    fn keys_are_flattened_with_their_lines() {
        let document =
            document("\n[train]\nepochs = 3\n[model]\nfusion = { layers = 2,\n  kind = 'attention' }\n", &[]);
        let lines: Vec<_> = document.entries.iter().map(|(key, entry)| (key.as_str(), entry.place.clone())).collect();
        assert_eq!(
            lines,
            [
                ("model.fusion.kind", KeyOrigin::Line(6)),
                ("model.fusion.layers", KeyOrigin::Line(5)),
                ("train.epochs", KeyOrigin::Line(3)),
            ]
        );
        assert_eq!(document.place("train"), Some(KeyOrigin::Line(2)));
        assert!(document.has_section("model.fusion") && !document.has_section("loss"));
    }

    #[test]
    fn syntax_errors_have_line_and_column() {
        let error = Document::parse("a/b.toml", "[train]\nepochs = = 3\n").unwrap_err();
        assert!(matches!(&error, ConfigError::Syntax { line: 2, column: 10, .. }), "{error:?}");
        assert!(error.to_string().starts_with("a/b.toml:2:10: not valid TOML: "), "{error}");
        assert_eq!(error.to_string().lines().count(), 1);
        let twice = Document::parse("x", "[train]\nepochs = 1\nepochs = 2\n").unwrap_err();
        assert!(matches!(twice, ConfigError::Syntax { line: 3, .. }), "{twice}");
    }

    #[test]
    fn a_flag_is_toml_or_else_a_string() {
        let document = document(
            "[train]\nepochs = 3\n",
            &[
                "train.epochs=5",
                "train.learning_rate = 1e-3",
                "run.dir=runs/a=b",
                "run.test_at_end=true",
                "data.labels=[\"a\", 'b']",
                "data.train=\"x y.jsonl\"",
                "train.init=",
                "text.pooling=mean",
                "model.fusion={kind = \"attention\", layers = 2}",
            ],
        );
        let value = |path: &str| document.entries.get(path).unwrap().value.clone();
        assert_eq!(value("train.epochs"), Value::Integer(5));
        assert_eq!(value("train.learning_rate"), Value::Float(1e-3));
        assert_eq!(value("run.dir"), Value::String("runs/a=b".into()));
        assert_eq!(value("run.test_at_end"), Value::Boolean(true));
        assert_eq!(value("data.labels"), Value::Array(vec!["a".into(), "b".into()]));
        assert_eq!(value("data.train"), Value::String("x y.jsonl".into()));
        assert_eq!(value("train.init"), Value::String(String::new()));
        assert_eq!(value("text.pooling"), Value::String("mean".into()));
        assert_eq!(value("model.fusion.layers"), Value::Integer(2));
        assert_eq!(document.place("train.epochs"), Some(KeyOrigin::Flag("train.epochs=5".into())));
    }

    #[test]
    fn a_path_that_looks_like_a_number_stays_a_path() {
        let document = document("", &["run.dir=2024", "run.device=cpu", "train.seed=7"]);
        assert_eq!(document.entries.get("run.dir").unwrap().value, Value::String("2024".into()));
        assert_eq!(document.entries.get("train.seed").unwrap().value, Value::Integer(7));
    }

    #[test]
    fn an_assignment_needs_a_key_and_a_sign() {
        for assignment in ["train.epochs", "=3", "", "  = 3"] {
            let problem = Document::default().set(assignment).unwrap_err();
            assert_eq!(problem.fault, Fault::Assignment);
            assert!(problem.to_string().contains("expected key.path=value"), "{problem}");
        }
    }

    #[test]
    fn numbers_of_any_size_are_kept() {
        let document = document("a = 0xff\nb = 1_000\nc = 99999999999999999999\nd = nan\ne = 1e999\n", &[]);
        let value = |path: &str| document.entries.get(path).unwrap().value.clone();
        assert_eq!((value("a"), value("b")), (Value::Integer(255), Value::Integer(1000)));
        assert_eq!(value("c"), Value::Float(1e20));
        assert!(value("d").as_float().unwrap().is_nan() && value("e").as_float().unwrap().is_infinite());
    }

    #[test]
    fn no_text_panics() {
        let good = "\u{feff}[train]\nepochs = 3 # é\nx.\"y z\" = [0xff, {a = 1979-05-27T07:32:00Z}]\n[[model]]\nb = '''\n'''\n";
        let flags =
            ["train.epochs=5", "run.dir=runs/a=b", "model.fusion={kind = \"attention\", layers = 2}", "a.b=[1e9]"];
        let mut base = Document::parse("x.toml", "[train]\nepochs = 3\n[model.fusion]\nlayers = 1\n").unwrap();
        crate::damage::each(&[&[good][..], &flags].concat(), 2_000, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = Document::parse("x.toml", &text).map_err(|error| error.to_string());
            if base.set(&text).is_ok() {
                let (path, _) = text.split_once('=').unwrap();
                assert!(base.place(path.trim()).is_some());
            }
        });
    }
}
