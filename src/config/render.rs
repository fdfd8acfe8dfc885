//! Writes a resolved config back as TOML, and the table of keys as documentation.
//!
//! What is written loads again to the same config: it is what a run folder keeps, and what `--resume` compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{Config, DataSource, EncoderSource, FeaturePrecision, LossConfig, Method, TokenizerSource, table};
use crate::files::{absolute, relative};
use crate::keys::{Preset, Setting};

impl Config {
    /// The config as a TOML file with absolute paths, in the order of the table of keys.
    pub fn to_toml(&self) -> String {
        text_of(&self.values())
    }

    /// The config as its run folder keeps it: paths relative to that folder where they can be, and without `run.dir`,
    /// which is that folder wherever it lies.
    pub fn to_stored_toml(&self) -> String {
        let mut values = self.values();
        values.remove("run.dir");
        let folder = self.run.dir.canonicalize().unwrap_or_else(|_| self.run.dir.clone());
        for (path, value) in &mut values {
            let is_path = table::find(path).is_some_and(|key| key.kind.is_path());
            let target = value.as_str().map(Path::new).filter(|target| is_path && target.is_absolute());
            if let Some(Ok(target)) = target.map(absolute) {
                *value = relative(&target, &folder).write();
            }
        }
        text_of(&values)
    }

    /// Every key with its value; null where it is not set.
    pub fn values(&self) -> BTreeMap<String, Value> {
        let mut values = BTreeMap::new();
        self.data.write(&mut values);
        self.data.source.write(&mut values);
        if self.text.source != EncoderSource::Absent {
            self.text.write(&mut values);
            self.text.source.write("text", &mut values);
            self.text.tokenizer.write(&mut values);
        }
        if self.speech.source != EncoderSource::Absent {
            self.speech.write(&mut values);
            self.speech.source.write("speech", &mut values);
        }
        if let Some(cache) = &self.speech.feature_cache {
            cache.write(&mut values);
            if cache.precision == FeaturePrecision::F32 {
                // The features are those of a run without a cache, so that nothing need be said of them.
                values.remove("speech.feature_cache_precision");
            }
        }
        self.model.write(&mut values);
        self.loss.write(&mut values);
        if self.model.method != Method::Clasp {
            // The terms of the paper's system.
            values.retain(|path, _| !path.starts_with("loss.") || LossConfig::COMMON.contains(&path.as_str()));
        }
        let options = self.model.options.iter();
        values.extend(
            options.map(|(name, value)| (format!("model.{}.{name}", self.model.method.field()), value.clone())),
        );
        self.train.write(&mut values);
        self.run.write(&mut values);
        values
    }
}

impl DataSource {
    fn write(&self, values: &mut BTreeMap<String, Value>) {
        match self {
            Self::Manifests { train, dev, test } => {
                values.insert("data.train".to_owned(), train.write());
                values.insert("data.dev".to_owned(), dev.write());
                values.insert("data.test".to_owned(), test.write());
            }
            Self::Demo { utterances, seed, folder: _ } => {
                values.insert("data.demo.utterances".to_owned(), utterances.write());
                values.insert("data.demo.seed".to_owned(), seed.write());
            }
        }
    }
}

impl EncoderSource {
    fn write(&self, section: &str, values: &mut BTreeMap<String, Value>) {
        let (folder, map) = match self {
            Self::Checkpoint { folder, overrides } => (Some(folder), overrides),
            Self::Fresh { config } => (None, config),
            Self::Initial { overrides, unread } => (unread.as_ref(), overrides),
            Self::Absent => return,
        };
        values.insert(format!("{section}.checkpoint"), folder.map_or(Value::Null, Setting::write));
        values.extend(map.iter().map(|(name, value)| (format!("{section}.config.{name}"), value.clone())));
    }
}

impl TokenizerSource {
    fn write(&self, values: &mut BTreeMap<String, Value>) {
        match self {
            Self::Folder(folder) => {
                values.insert("text.tokenizer".to_owned(), folder.write());
            }
            Self::Train { vocab_size } => {
                values.insert("text.tokenizer".to_owned(), "train".into());
                values.insert("text.vocab_size".to_owned(), vocab_size.write());
            }
            Self::Initial | Self::Absent => {}
        }
    }
}

/// The values as a TOML file, in the order of the table of keys.
fn text_of(values: &BTreeMap<String, Value>) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in table::all() {
        let Some(value) = values.get(key.path).filter(|value| !value.is_null()) else { continue };
        let (own, name) = key.split();
        if own != section {
            section = own;
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{section}]");
        }
        let _ = writeln!(text, "{name} = {}", literal(value));
    }
    text
}

/// A JSON value in TOML. Small numbers keep their exponent: 1e-5 reads better than 0.00001.
pub fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            let is_small = number > 0.0 && number < 1e-3;
            if is_small { format!("{number:e}") } else { format!("{number:?}") }
        }
        other => other.to_string(),
    }
}

/// The table of keys as a commented config: every key with its default and what it is for.
pub fn defaults() -> String {
    let mut text = String::from(
        "# Every key with its default. A key that is commented out has none that is always the same.\n\
         # [text.config] and [speech.config] make fresh weights; beside a checkpoint they take only keys that change no\n\
         # shape (dropouts, layer drop, masks).\n",
    );
    let mut section = "";
    for key in table::all() {
        let (own, name) = key.split();
        if own != section {
            section = own;
            let _ = writeln!(text, "\n[{section}]");
        }
        let _ = writeln!(text, "# {}; takes {}", key.about, key.kind.expected());
        let _ = match key.preset {
            Preset::Value(value) => writeln!(text, "{name} = {}", literal(&value())),
            Preset::Depends(words) => writeln!(text, "# {name}: {words}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_toml() {
        for (value, text) in [
            (json!(1e-5), "1e-5"),
            (json!(0.05), "0.05"),
            (json!(30.0), "30.0"),
            (json!(0.0), "0.0"),
            (json!(3), "3"),
            (json!([1, 2]), "[1, 2]"),
            (json!(true), "true"),
            (json!("a\\b"), "'a\\b'"),
        ] {
            assert_eq!(literal(&value), text);
        }
        let odd = "line\nbreak \"quoted\" 'and' \\ tab\t é";
        let document = format!("a = {}", literal(&json!(odd)));
        assert_eq!(document.parse::<toml::Table>().unwrap().get("a").unwrap().as_str(), Some(odd));
    }

    #[test]
    fn the_documentation_is_itself_valid_toml_and_names_every_key() {
        let text = defaults();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table.get("train").unwrap().get("epochs").unwrap().as_integer(), Some(25));
        for key in table::all() {
            assert!(text.contains(key.split().1) && text.contains(key.about), "{}", key.path);
        }
    }
}
