//! Writes a resolved config back as TOML, and the table of keys as documentation.
//!
//! What is written loads again to the same config: it is what a run folder keeps, and what `--resume` compares.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::{Config, DataSource, EncoderMap, EncoderSource, FeaturePrecision, Method, TokenizerSource, table};
use crate::keys::Preset;

/// The keys of `[loss]` that every method reads.
pub(super) const COMMON_LOSS: [&str; 2] = ["loss.class_weights", "loss.label_smoothing"];

impl Config {
    /// The config as a TOML file with absolute paths, in the order of the table of keys.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let values = self.values();
        let mut text = String::new();
        let mut section = "";
        for key in table::all() {
            let Some((_, value)) = values.iter().find(|(path, _)| path == key.path) else { continue };
            if value.is_null() {
                continue;
            }
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

    /// Every key with its value; null where it is not set.
    fn values(&self) -> Vec<(String, Value)> {
        let mut values = self.data_values();
        values.extend(self.encoder_values());
        values.extend(self.model_values());
        values.extend(self.train_values());
        values.extend(keyed([
            ("run.dir", path(Some(&self.run.dir))),
            ("run.device", json!(self.run.device.to_string())),
            ("run.precision", json!(self.run.precision)),
            ("run.test_at_end", json!(self.run.test_at_end)),
            ("run.workers", json!(self.run.workers)),
        ]));
        values
    }

    fn data_values(&self) -> Vec<(String, Value)> {
        let mut values = keyed([
            ("data.labels", json!(self.data.labels)),
            ("data.max_seconds", json!(self.data.max_seconds)),
            ("data.max_tokens", json!(self.data.max_tokens)),
        ]);
        values.extend(match &self.data.source {
            DataSource::Manifests { train, dev, test } => keyed([
                ("data.train", path(Some(train))),
                ("data.dev", path(dev.as_deref())),
                ("data.test", path(test.as_deref())),
            ]),
            DataSource::Demo { utterances, seed, folder: _ } => {
                keyed([("data.demo.utterances", json!(utterances)), ("data.demo.seed", json!(seed))])
            }
        });
        values
    }

    fn encoder_values(&self) -> Vec<(String, Value)> {
        let (text, speech) = (&self.text, &self.speech);
        let (tokenizer, vocab_size) = match &text.tokenizer {
            TokenizerSource::Folder(folder) => (path(Some(folder)), Value::Null),
            TokenizerSource::Train { vocab_size } => (json!("train"), json!(vocab_size)),
            TokenizerSource::Initial | TokenizerSource::Absent => (Value::Null, Value::Null),
        };
        let mut values = keyed([
            ("text.tokenizer", tokenizer),
            ("text.vocab_size", vocab_size),
            ("text.pooling", json!(text.pooling)),
            ("text.freeze", json!(text.freeze)),
            ("text.freeze_layers", json!(text.freeze_layers)),
            ("speech.pooling", json!(speech.pooling)),
            ("speech.freeze", json!(speech.freeze)),
            ("speech.freeze_layers", json!(speech.freeze_layers)),
            ("speech.freeze_feature_encoder", json!(speech.freeze_feature_encoder)),
        ]);
        if let Some(cache) = &speech.feature_cache {
            values.extend(keyed([
                ("speech.feature_cache", path(Some(&cache.folder))),
                // In f32 the features are those of a run without a cache, so that nothing need be said of them.
                (
                    "speech.feature_cache_precision",
                    if cache.precision == FeaturePrecision::F32 { Value::Null } else { json!(cache.precision) },
                ),
                ("speech.feature_cache_gib", json!(cache.gib)),
            ]));
        }
        for (section, source) in [("text", &text.source), ("speech", &speech.source)] {
            let (folder, map) = match source {
                EncoderSource::Checkpoint { folder, overrides } => (Some(folder.as_path()), overrides),
                EncoderSource::Fresh { config } => (None, config),
                EncoderSource::Initial { overrides, unread } => (unread.as_deref(), overrides),
                EncoderSource::Absent => {
                    // What is not read has no keys.
                    values.retain(|(path, _)| path.split('.').next() != Some(section));
                    continue;
                }
            };
            values.push((format!("{section}.checkpoint"), path(folder)));
            values.extend(entries(section, map));
        }
        values
    }

    fn model_values(&self) -> Vec<(String, Value)> {
        let (model, fusion, loss) = (&self.model, &self.model.fusion, &self.loss);
        let mut values = keyed([
            ("model.method", json!(model.method)),
            ("model.ablation", json!(model.ablation)),
            ("model.hidden_size", json!(model.hidden_size)),
            ("model.dropout", json!(model.dropout)),
            ("model.classifier_dropout", json!(model.classifier_dropout)),
            ("model.fusion.kind", json!(fusion.kind)),
            ("model.fusion.split_heads", json!(fusion.split_heads)),
            ("model.fusion.hidden_size", json!(fusion.hidden_size)),
            ("model.fusion.layers", json!(fusion.layers)),
            ("model.fusion.attention_heads", json!(fusion.attention_heads)),
            ("model.fusion.feed_forward", json!(fusion.feed_forward)),
            ("model.fusion.dropout", json!(fusion.dropout)),
            ("model.fusion.slot_embeddings", json!(fusion.slot_embeddings)),
            ("loss.semantic", json!(loss.semantic)),
            ("loss.modality", json!(loss.modality)),
            ("loss.reconstruction", json!(loss.reconstruction)),
            ("loss.kl", json!(loss.kl)),
            ("loss.temperature", json!(loss.temperature)),
            ("loss.similarity", json!(loss.similarity)),
            ("loss.negatives", json!(loss.negatives)),
            ("loss.detach_target", json!(loss.detach_target)),
            ("loss.kl_direction", json!(loss.kl_direction)),
            ("loss.kl_detach", json!(loss.kl_detach)),
            ("loss.class_weights", json!(loss.class_weights)),
            ("loss.label_smoothing", json!(loss.label_smoothing)),
        ]);
        if model.method != Method::Clasp {
            // The terms and the fusion of the paper's system.
            values.retain(|(path, _)| {
                !path.starts_with("model.fusion.")
                    && (!path.starts_with("loss.") || COMMON_LOSS.contains(&path.as_str()))
            });
        }
        values.extend(
            model.options.iter().map(|(name, value)| (format!("model.{}.{name}", model.method), value.clone())),
        );
        values
    }

    fn train_values(&self) -> Vec<(String, Value)> {
        let train = &self.train;
        keyed([
            ("train.optimizer", json!(train.optimizer)),
            ("train.learning_rate", json!(train.learning_rate)),
            ("train.encoder_learning_rate", json!(train.encoder_learning_rate)),
            ("train.layer_decay", json!(train.layer_decay)),
            ("train.weight_decay", json!(train.weight_decay)),
            ("train.schedule", json!(train.schedule)),
            ("train.warmup_steps", json!(train.warmup_steps)),
            ("train.clip_norm", json!(train.clip_norm.unwrap_or(0.0))),
            ("train.accumulation_steps", json!(train.accumulation_steps)),
            ("train.patience", json!(train.patience.unwrap_or(0))),
            ("train.batch_size", json!(train.batch_size)),
            ("train.batch_seconds", json!(train.batch_seconds.unwrap_or(0.0))),
            ("train.gather_negatives", json!(train.gather_negatives)),
            ("train.epochs", json!(train.epochs)),
            ("train.seed", json!(train.seed)),
            ("train.save_every_steps", json!(train.save_every_steps.unwrap_or(0))),
            ("train.log_every_steps", json!(train.log_every_steps)),
            ("train.init", path(train.init.as_deref())),
        ])
    }
}

fn keyed<const N: usize>(pairs: [(&str, Value); N]) -> Vec<(String, Value)> {
    pairs.into_iter().map(|(path, value)| (path.to_owned(), value)).collect()
}

fn entries(section: &str, map: &EncoderMap) -> Vec<(String, Value)> {
    map.iter().map(|(name, value)| (format!("{section}.config.{name}"), value.clone())).collect()
}

/// A path; TOML is UTF-8, so that another path is written as well as can be.
fn path(path: Option<&Path>) -> Value {
    path.map_or(Value::Null, |path| path.to_string_lossy().into_owned().into())
}

/// A JSON value in TOML. Small numbers keep their exponent: 1e-5 reads better than 0.00001.
fn literal(value: &Value) -> String {
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
#[must_use]
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
            Preset::Value(value) => writeln!(text, "{name} = {value}"),
            Preset::Depends(words) => writeln!(text, "# {name}: {words}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
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
