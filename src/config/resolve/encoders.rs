//! Resolves `[text]` and `[speech]`: where the weights and the tokenizer come from, and what may be set beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use toml::Value;

use super::super::problem::Fault;
use super::super::table;
use super::super::validate::show;
use super::super::{EncoderMap, EncoderSource, FeatureCacheConfig, Method, SpeechConfig, TextConfig, TokenizerSource};
use super::reader::Resolver;
use crate::data::text::SMALLEST_VOCABULARY;
use crate::encoder::{RobertaConfig, speech};
use crate::keys::{Key, Kind, Preset, number};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Modality {
    Text,
    Speech,
}

/// `[text]` of a method that reads no text.
pub(super) fn no_text() -> TextConfig {
    let (source, tokenizer) = (EncoderSource::Absent, TokenizerSource::Absent);
    TextConfig { source, tokenizer, pooling: None, layers: None, freeze: false, freeze_layers: 0 }
}

/// `[speech]` of a method that reads no speech.
pub(super) fn no_speech() -> SpeechConfig {
    let source = EncoderSource::Absent;
    SpeechConfig {
        source,
        pooling: None,
        layers: None,
        freeze: false,
        freeze_layers: 0,
        freeze_feature_encoder: Some(false),
        padded: false,
        feature_cache: None,
    }
}

/// Keys of a fresh encoder that are always stated and whose default is the family's; Whisper's are all stated.
const OF_FAMILY: [&str; 3] = ["vocab_size", "pad_token_id", "num_conv_pos_embeddings"];

impl Resolver<'_> {
    pub(super) fn text_encoder(&mut self, has_init: bool, dropout: Option<f64>) -> TextConfig {
        let source = self.encoder(Modality::Text, has_init, dropout);
        let tokenizer = self.tokenizer(&source);
        let source = match (source, &tokenizer) {
            (EncoderSource::Fresh { mut config }, TokenizerSource::Train { vocab_size }) => {
                config.insert("vocab_size".to_owned(), (*vocab_size).into());
                EncoderSource::Fresh { config }
            }
            (source, _) => source,
        };
        TextConfig::read(self, source, tokenizer, has_init)
    }

    pub(super) fn speech_encoder(&mut self, has_init: bool, dropout: Option<f64>) -> SpeechConfig {
        let source = self.encoder(Modality::Speech, has_init, dropout);
        let is_loaded = !matches!(source, EncoderSource::Fresh { .. });
        let mut speech = SpeechConfig::read(self, source, None, has_init, is_loaded);
        let is_frozen = speech.freeze || speech.freeze_layers > 0 || speech.freeze_feature_encoder.unwrap_or(is_loaded);
        speech.feature_cache = self.feature_cache(is_frozen);
        speech
    }

    /// The cache of what the convolutions make of speech; `is_frozen`: they stay as they are.
    fn feature_cache(&mut self, is_frozen: bool) -> Option<FeatureCacheConfig> {
        let cache = FeatureCacheConfig::read(self);
        if cache.folder == Path::new("") {
            for path in ["speech.feature_cache_precision", "speech.feature_cache_gib"] {
                if self.is_flag(path) && !self.is_rejected(&["speech.feature_cache"]) {
                    self.conflict(path, "is set, but there is no speech.feature_cache: set it, or remove this");
                }
            }
            return None;
        }
        let decisive = [
            "speech.freeze",
            "speech.freeze_layers",
            "speech.freeze_feature_encoder",
            "speech.checkpoint",
            "train.init",
        ];
        if !is_frozen && !self.is_rejected(&decisive) {
            let reason = "keeps what the convolutions make of speech, but they train: set speech.freeze_feature_encoder \
                          = true, or remove it";
            self.conflict("speech.feature_cache", reason);
        }
        Some(cache)
    }

    /// A file may serve several methods; a flag may not ask for a cache of what the method never computes.
    pub(super) fn check_no_feature_cache(&mut self, method: Method) {
        for path in ["speech.feature_cache", "speech.feature_cache_precision", "speech.feature_cache_gib"] {
            if self.set(path).is_some_and(|value| value.as_str() != Some("")) && self.is_flag(path) {
                let reason = format!("is of wav2vec 2.0, which model.method = {method} does not read: remove one");
                self.conflict(path, reason);
            }
        }
    }

    fn encoder(&mut self, modality: Modality, has_init: bool, dropout: Option<f64>) -> EncoderSource {
        let (section, checkpoint_key) = match modality {
            Modality::Text => ("text.config", "text.checkpoint"),
            Modality::Speech => ("speech.config", "speech.checkpoint"),
        };
        let checkpoint = self.get::<PathBuf>(checkpoint_key);
        let is_stated = self.document.has_section(section);
        let is_fresh = checkpoint.is_none() && !has_init && is_stated;
        // A loaded encoder is of a family that its folder says; its keys are looked at with it.
        let (table, of_family): (Vec<&Key>, _) = match modality {
            Modality::Text => {
                let mut stated = BTreeMap::new();
                RobertaConfig::read(self).write(&mut stated);
                (RobertaConfig::KEYS.iter().chain(RobertaConfig::BY_HAND).collect(), stated)
            }
            Modality::Speech if is_fresh => {
                let family = self.text("speech.config.model_type").unwrap_or(speech::MODEL_TYPES[0]);
                let (keys, stated) = speech::keys_of(family, self);
                self.check_family(family, keys);
                (keys.iter().collect(), stated)
            }
            Modality::Speech => (table::of_speech_encoders().collect(), BTreeMap::new()),
        };
        let mut map = EncoderMap::new();
        for key in table {
            let name = key.split().1;
            // Of a loaded speech encoder those of wav2vec 2.0: its family, known once it is read, may have others.
            let is_usual =
                || is_fresh || modality == Modality::Text || speech::KEYS[0].iter().any(|usual| usual.path == key.path);
            let dropout = dropout.filter(|_| key.kind == Kind::Dropout && is_usual());
            let default = match key.preset {
                Preset::Value(value) if is_fresh => Some(value()),
                Preset::Depends(_) if is_fresh && self.is_of_family(modality, name) => of_family.get(key.path).cloned(),
                _ => None,
            };
            let stated = self.set(key.path).map(|value| json(value, key.kind));
            if let Some(value) = dropout.map(Json::from).or(stated).or(default) {
                map.insert(name.to_owned(), value);
            }
            if !is_fresh && self.set(key.path).is_some() && !key.is_free_beside_checkpoint {
                let loaded = if has_init { "train.init" } else { checkpoint_key };
                if has_init || checkpoint.is_some() {
                    self.conflict(key.path, format!("is decided by the checkpoint of {loaded}: remove one of them"));
                }
            }
            self.check_dropout_flags(key.path, dropout);
        }
        if is_fresh {
            self.check_fresh(modality, &map);
        }
        match (checkpoint, has_init) {
            (unread, true) => EncoderSource::Initial { overrides: map, unread },
            (Some(folder), false) => EncoderSource::Checkpoint { folder, overrides: map },
            (None, false) => {
                if !is_stated {
                    let hint = format!("a folder or a hub id (or a [{section}] table: fresh weights; or train.init)");
                    self.missing(checkpoint_key, &hint);
                }
                EncoderSource::Fresh { config: map }
            }
        }
    }

    /// Whether the default of a key is stated although it depends on the family.
    fn is_of_family(&self, modality: Modality, name: &str) -> bool {
        let is_whisper = || self.text("speech.config.model_type") == Some("whisper");
        OF_FAMILY.contains(&name) || (modality == Modality::Speech && is_whisper())
    }

    /// Keys that are set but that the family does not have.
    fn check_family(&mut self, family: &str, keys: &[Key]) {
        let others: Vec<&str> = table::of_speech_encoders()
            .map(|key| key.path)
            .filter(|path| keys.iter().all(|key| key.path != *path) && self.set(path).is_some())
            .collect();
        for path in others {
            self.conflict(
                path,
                format!("is no key of the family {family}: remove it, or set speech.config.model_type"),
            );
        }
    }

    /// The rules between keys of a fresh encoder's config.
    fn check_fresh(&mut self, modality: Modality, map: &EncoderMap) {
        let section = if modality == Modality::Text { "text.config" } else { "speech.config" };
        if self.is_rejected(&[section]) {
            return;
        }
        let whole = |name: &str| map.get(name).and_then(Json::as_u64).unwrap_or(1).max(1);
        let length = |name: &str| map.get(name).and_then(Json::as_array).map_or(0, Vec::len);
        let is_whisper = modality == Modality::Speech && self.is_of_family(modality, "d_model");
        let (width, divisors): (_, &[&str]) = match modality {
            Modality::Text => ("hidden_size", &["num_attention_heads"]),
            Modality::Speech if is_whisper => ("d_model", &["encoder_attention_heads"]),
            Modality::Speech => ("hidden_size", &["num_attention_heads", "num_conv_pos_embedding_groups"]),
        };
        let hidden = whole(width);
        for name in divisors {
            if !hidden.is_multiple_of(whole(name)) {
                let reason = format!("is {}, which does not divide {section}.{width}, {hidden}", whole(name));
                self.conflict(&format!("{section}.{name}"), reason);
            }
        }
        match modality {
            Modality::Text => {
                let positions = whole("max_position_embeddings");
                let padding = map.get("pad_token_id").and_then(Json::as_u64).unwrap_or(1);
                let unused = if map.get("model_type").is_some_and(|family| family == "bert") { 0 } else { padding + 1 };
                if positions < unused.saturating_add(3) {
                    let reason = format!("is {positions}, too few for any text: positions start at {unused}");
                    self.conflict("text.config.max_position_embeddings", reason);
                }
                for name in ["is_decoder", "add_cross_attention"] {
                    self.check_off(&format!("text.config.{name}"), map.get(name));
                }
            }
            Modality::Speech if is_whisper => {}
            Modality::Speech => {
                let layers = length("conv_dim");
                for name in ["conv_stride", "conv_kernel"] {
                    if length(name) != layers {
                        let reason = format!("has {} entries, but conv_dim has {layers}", length(name));
                        self.conflict(&format!("speech.config.{name}"), reason);
                    }
                }
                self.check_off("speech.config.add_adapter", map.get("add_adapter"));
            }
        }
    }

    /// What no encoder here has may only be off.
    fn check_off(&mut self, key: &str, value: Option<&Json>) {
        if value.and_then(Json::as_bool) == Some(true) {
            self.complain(key, Fault::Unavailable { found: "true".to_owned(), available: "false".to_owned() });
        }
    }

    fn tokenizer(&mut self, source: &EncoderSource) -> TokenizerSource {
        let stated = self.text("text.tokenizer");
        let folder = self.get::<PathBuf>("text.tokenizer");
        let wants_training = stated == Some("train");
        let vocab_size = self.get::<usize>("text.vocab_size");
        if vocab_size.is_some() && !wants_training && !self.is_rejected(&["text.tokenizer"]) {
            self.conflict(
                "text.vocab_size",
                "is the size of a trained tokenizer: set tokenizer = \"train\", or remove it",
            );
        }
        let rows = self.get::<usize>("text.config.vocab_size");
        let is_trained = wants_training && matches!(source, EncoderSource::Fresh { .. });
        if is_trained && vocab_size.is_none() && rows.is_some_and(|rows| rows < SMALLEST_VOCABULARY) {
            let reason = format!(
                "is too small for a trained tokenizer, which has {SMALLEST_VOCABULARY} tokens at least (256 bytes and 5 \
                 special ones)"
            );
            self.conflict("text.config.vocab_size", reason);
        }
        let vocab_size = vocab_size.or(rows.filter(|_| is_trained)).unwrap_or(1000);
        match source {
            EncoderSource::Absent => TokenizerSource::Absent,
            EncoderSource::Initial { .. } => {
                if stated.is_some() {
                    self.conflict("text.tokenizer", "is decided by the checkpoint of train.init: remove one of them");
                }
                TokenizerSource::Initial
            }
            EncoderSource::Checkpoint { .. } if wants_training => {
                self.conflict(
                    "text.tokenizer",
                    "is \"train\", but a loaded encoder needs the tokenizer it was trained with: remove it",
                );
                TokenizerSource::Train { vocab_size }
            }
            EncoderSource::Checkpoint { folder: checkpoint, .. } => {
                TokenizerSource::Folder(folder.unwrap_or_else(|| checkpoint.clone()))
            }
            EncoderSource::Fresh { .. } if wants_training => {
                let is_other = rows.is_some_and(|rows| rows != vocab_size);
                if is_other && !self.is_rejected(&["text.vocab_size"]) {
                    let reason =
                        format!("differs from text.vocab_size, {vocab_size}: remove it, it follows the tokenizer");
                    self.conflict("text.config.vocab_size", reason);
                }
                TokenizerSource::Train { vocab_size }
            }
            EncoderSource::Fresh { .. } => {
                if folder.is_none() && self.document.has_section("text.config") {
                    self.missing("text.tokenizer", "fresh weights need one: a folder, or \"train\"");
                }
                TokenizerSource::Folder(folder.unwrap_or_default())
            }
        }
    }
}

/// A value of an encoder's config as JSON; numbers that may be fractions always are, so that a round trip is exact.
pub(super) fn json(value: &Value, kind: Kind) -> Json {
    match value {
        Value::Integer(_) if kind.is_number() => number(value).map_or(Json::Null, Json::from),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(flag) => (*flag).into(),
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => values.iter().map(|value| json(value, kind)).collect(),
        Value::Datetime(_) | Value::Table(_) => show(value).into(),
    }
}
