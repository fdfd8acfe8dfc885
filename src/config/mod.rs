//! The config: a TOML file and `--set` flags in, one resolved [`Config`] out.
//!
//! The steps, a file each: `builtin` finds the text, `document` reads it and applies the flags, `validate` holds it
//! against the table in `table`, `resolve` settles what depends on other keys. Every problem of a config is reported at
//! once. `architecture` settles the sizes that only the encoders know; `render` writes a config back as TOML.

pub mod architecture;
pub mod builtin;
pub mod document;
pub mod encoder_keys;
pub mod hub;
pub mod locate;
pub mod problem;
pub mod render;
pub mod resolve;
pub mod table;
pub mod validate;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use crate::choices::{
    Ablation, ClassWeights, Device, Devices, FeaturePrecision, FusionKind, FusionVectors, KlDirection, Negatives,
    OptimizerKind, Precision, Schedule, Similarity, SpeechPooling, TextPooling,
};
pub use architecture::{Architecture, Fusion};
pub use problem::{ConfigError, Fault, Place, Problem};

pub use crate::method::Method;

use document::Document;
use resolve::Surroundings;

/// A Hugging Face config, or some of its keys, in the file's order.
pub type EncoderMap = Map<String, Value>;

/// A resolved config: every path absolute, every default filled in.
///
/// What is an `Option` in [`ModelConfig`] and the poolings is what a checkpoint decides where the file says nothing;
/// [`Config::settle`] fills it in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[data]`
    pub data: DataConfig,
    /// `[text]`
    pub text: TextConfig,
    /// `[speech]`
    pub speech: SpeechConfig,
    /// `[model]`
    pub model: ModelConfig,
    /// `[loss]`
    pub loss: LossConfig,
    /// `[train]`
    pub train: TrainConfig,
    /// `[run]`
    pub run: RunConfig,
}

/// `[data]`: what is trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct DataConfig {
    /// Where the utterances come from.
    pub source: DataSource,
    /// The labels in the order of the outputs; none: the sorted labels of train.
    pub labels: Option<Vec<String>>,
    /// Longer audio is cut.
    pub max_seconds: f64,
    /// Longer text is cut (tokens, with `<s>` and `</s>`); none: see [`Config::settle`].
    pub max_tokens: Option<usize>,
}

/// Where the utterances come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSource {
    /// One manifest a split.
    Manifests {
        /// The training data.
        train: PathBuf,
        /// What picks the best epoch.
        dev: Option<PathBuf>,
        /// What is scored in the end.
        test: Option<PathBuf>,
    },
    /// The corpus that the program makes: `[data.demo]`.
    Demo {
        /// Utterances of all splits together.
        utterances: usize,
        /// Its seed.
        seed: u64,
        /// Where it is written: `corpus` in the run folder.
        folder: PathBuf,
    },
}

/// Where an encoder's weights come from.
#[derive(Clone, Debug, PartialEq)]
pub enum EncoderSource {
    /// A Hugging Face folder; [`locate::encoder`] finds its files.
    Checkpoint {
        /// Absolute; a hub id is resolved to its folder in the Hugging Face cache.
        folder: PathBuf,
        /// Keys that replace those of the folder's `config.json`; they change no shape.
        overrides: EncoderMap,
    },
    /// Fresh weights of this shape: every key that matters, with Hugging Face's defaults.
    Fresh {
        /// The Hugging Face config.
        config: EncoderMap,
    },
    /// Nothing: the method does not read that modality.
    Absent,
    /// The clasp checkpoint of `train.init`.
    Initial {
        /// Keys that replace those of the checkpoint's encoder config; they change no shape.
        overrides: EncoderMap,
        /// The encoder's folder that the config names as well, and that is not read.
        unread: Option<PathBuf>,
    },
}

/// Where the tokenizer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerSource {
    /// A folder with `tokenizer.json`, or `vocab.json` and `merges.txt`.
    Folder(PathBuf),
    /// Byte-level BPE, trained on the training text.
    Train {
        /// Its largest size.
        vocab_size: usize,
    },
    /// The clasp checkpoint of `train.init`.
    Initial,
    /// Nothing: the method does not read text.
    Absent,
}

/// `[text]`: the text encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Its weights.
    pub source: EncoderSource,
    /// Its tokenizer.
    pub tokenizer: TokenizerSource,
    /// How its states become one vector; none: the checkpoint of `train.init` decides.
    pub pooling: Option<TextPooling>,
    /// Whether all of it stays as it is.
    pub freeze: bool,
    /// How many of the lowest layers stay as they are.
    pub freeze_layers: usize,
}

/// `[speech]`: the speech encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeechConfig {
    /// Its weights.
    pub source: EncoderSource,
    /// How its states become one vector; none: the checkpoint of `train.init` decides.
    pub pooling: Option<SpeechPooling>,
    /// Whether all of it stays as it is.
    pub freeze: bool,
    /// How many of the lowest layers stay as they are.
    pub freeze_layers: usize,
    /// Whether the convolutions stay as they are.
    pub freeze_feature_encoder: bool,
    /// Where what they make of each utterance is kept; only where they stay as they are.
    pub feature_cache: Option<FeatureCacheConfig>,
}

/// The cache of what the feature encoder makes of each utterance.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureCacheConfig {
    /// Its folder.
    pub folder: PathBuf,
    /// The number format in it.
    pub precision: FeaturePrecision,
    /// Its largest size in GiB.
    pub gib: f64,
}

impl FeatureCacheConfig {
    /// Its largest size in bytes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number; one that is too large becomes the largest"
    )]
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.gib * f64::from(1 << 30)) as u64
    }
}

/// `[model]`: what the config says about the architecture. [`Architecture`] is what comes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The system.
    pub method: Method,
    /// What is left out; already in the loss weights and in [`FusionConfig::kind`].
    pub ablation: Ablation,
    /// Width of all utterance vectors; none: the text encoder's, or the checkpoint's.
    pub hidden_size: Option<usize>,
    /// The dropout that was set everywhere; already in all the others.
    pub dropout: Option<f64>,
    /// Dropout before each classifier; none: the checkpoint's.
    pub classifier_dropout: Option<f64>,
    /// `[model.fusion]`
    pub fusion: FusionConfig,
    /// `[model.<method>]`: what is stated of the method's own options; all of them once the config is settled.
    pub options: Map<String, Value>,
}

/// `[model.fusion]`; what is none is the encoders' or the checkpoint's to decide.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FusionConfig {
    /// What it attends over.
    pub kind: Option<FusionKind>,
    /// Pieces of each vector (H); 1 with [`FusionKind::Attention`].
    pub split_heads: Option<usize>,
    /// Width of its layers.
    pub hidden_size: Option<usize>,
    /// Layers.
    pub layers: Option<usize>,
    /// Attention heads of a layer.
    pub attention_heads: Option<usize>,
    /// Inner width of a layer.
    pub feed_forward: Option<usize>,
    /// Dropout.
    pub dropout: Option<f64>,
    /// Whether each token has a learned vector.
    pub slot_embeddings: Option<bool>,
}

/// `[loss]`, and `loss` of a checkpoint's `config.json`: weights of the terms and their options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LossConfig {
    /// Weight of the semantic term (the paper's α).
    pub semantic: f64,
    /// Weight of the modality term (β).
    pub modality: f64,
    /// Weight of the reconstruction term (γ).
    pub reconstruction: f64,
    /// Weight of the divergence (δ, also printed ζ).
    pub kl: f64,
    /// Divides the similarities (τ).
    pub temperature: f64,
    /// Similarity of two vectors.
    pub similarity: Similarity,
    /// What a matched pair is contrasted with.
    pub negatives: Negatives,
    /// No gradient into the targets of the reconstruction.
    pub detach_target: bool,
    /// From which distribution the divergence is measured.
    pub kl_direction: KlDirection,
    /// No gradient of the divergence into the fusion's prediction.
    pub kl_detach: bool,
    /// Weights of the labels in the cross-entropies.
    pub class_weights: ClassWeights,
    /// Label smoothing of the cross-entropies.
    pub label_smoothing: f64,
}

impl Default for LossConfig {
    /// The paper's; a test holds it against the table of keys.
    fn default() -> Self {
        Self {
            semantic: 0.01,
            modality: 0.01,
            reconstruction: 0.01,
            kl: 0.05,
            temperature: 0.1,
            similarity: Similarity::Cosine,
            negatives: Negatives::Printed,
            detach_target: false,
            kl_direction: KlDirection::FusionToUnimodal,
            kl_detach: false,
            class_weights: ClassWeights::None,
            label_smoothing: 0.0,
        }
    }
}

/// `[train]`: the course of training. What is none is off.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// The optimiser.
    pub optimizer: OptimizerKind,
    /// Rate of the new layers.
    pub learning_rate: f64,
    /// Rate of both encoders.
    pub encoder_learning_rate: f64,
    /// Factor on the rate per encoder layer downwards; 1: none.
    pub layer_decay: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// The rate after the warm-up.
    pub schedule: Schedule,
    /// Steps in which the rate rises from 0.
    pub warmup_steps: usize,
    /// Largest global gradient norm; 0 in the file is none.
    pub clip_norm: Option<f64>,
    /// Batches an optimiser step.
    pub accumulation_steps: usize,
    /// Epochs without a better one before the end; 0 in the file is none.
    pub patience: Option<usize>,
    /// Utterances a batch over all devices, at most.
    pub batch_size: usize,
    /// Padded seconds of audio a batch, at most; 0 in the file is none.
    pub batch_seconds: Option<f64>,
    /// Whether the contrastive terms see the whole batch where several devices share it.
    pub gather_negatives: bool,
    /// Passes over the data.
    pub epochs: usize,
    /// Seed of weights, order and dropout.
    pub seed: u64,
    /// Steps between checkpoints within an epoch; 0 in the file is none.
    pub save_every_steps: Option<usize>,
    /// Steps between log lines.
    pub log_every_steps: usize,
    /// A clasp checkpoint to start from.
    pub init: Option<PathBuf>,
}

/// `[run]`: where and on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// The run folder.
    pub dir: PathBuf,
    /// The devices.
    pub device: Devices,
    /// The number format of training.
    pub precision: Precision,
    /// Whether the test data are scored after training.
    pub test_at_end: bool,
    /// Threads that decode audio.
    pub workers: usize,
}

/// Loads a config: the file of this path, else the built-in config of this name, with the `--set` flags applied.
///
/// Whether data and encoders are there is not looked at: `train` and [`locate`] do.
///
/// # Errors
/// [`ConfigError`]; all problems of the config at once.
pub fn load(name_or_path: &str, overrides: &[String]) -> Result<Config, ConfigError> {
    let source = builtin::find(name_or_path)?;
    let surroundings = Surroundings::of(&source);
    parse(&source.name, &source.text, overrides, &surroundings)
}

/// Resolves a config's text; `name` is the file's in messages.
///
/// # Errors
/// [`ConfigError`]; all problems of the config at once.
pub fn parse(name: &str, text: &str, overrides: &[String], surroundings: &Surroundings) -> Result<Config, ConfigError> {
    let mut document = Document::parse(name, text)?;
    let mut problems: Vec<Problem> = overrides.iter().filter_map(|assignment| document.set(assignment).err()).collect();
    let findings = validate::validate(&document);
    problems.extend(findings.problems);
    let (config, conflicts) = resolve::resolve(&document, &findings.rejected, surroundings);
    problems.extend(conflicts);
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::invalid(name, problems)) }
}
