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

use serde_json::{Map, Value};

pub use crate::choices::{
    Ablation, ClassWeights, Device, Devices, FeaturePrecision, FusionKind, FusionVectors, KlDirection, Layers,
    Negatives, OptimizerKind, Pooling, Precision, Schedule, Similarity,
};
pub use problem::{ConfigError, Fault, KeyOrigin, Problem};

pub use crate::{loss::LossConfig, method::Method, model::Architecture};

use crate::data::text::SMALLEST_VOCABULARY;
use crate::keys::{
    Kind::{self, Dropout, Number},
    Range, ZeroIsNone, at_least, section,
};

use crate::run::RunFolder;
use document::Document;
use resolve::Surroundings;

/// A Hugging Face config, or some of its keys, in the file's order.
pub type EncoderMap = Map<String, Value>;

/// A resolved config: every path absolute, every default filled in.
///
/// What is an `Option` in [`ModelKeys`] and the poolings is what a checkpoint decides where the file says nothing;
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
    pub model: ModelKeys,
    /// `[loss]`
    pub loss: LossConfig,
    /// `[train]`
    pub train: TrainConfig,
    /// `[run]`
    pub run: RunConfig,
}

section! {
    /// `[data]`: what is trained on.
    #[derive(Clone, Debug, PartialEq)]
    pub struct DataConfig("data") {
        by_hand {
            /// manifest to train on (JSON Lines)
            train [Kind::File], "required, unless [data.demo] is there";
            /// manifest that picks the best epoch
            dev [Kind::File], "none: the last epoch is the best";
            /// manifest that only `eval` and run.test_at_end read
            test [Kind::File], "none";
        } into {
            /// Where the utterances come from.
            source: DataSource;
        }
        /// the labels, in the order of the outputs
        labels: Option<Vec<String>> = None, "the sorted labels of train";
        /// longer audio is cut, and counted
        max_seconds: f64 [Number(Range::Frame)] = 30.0;
        /// longer text is cut, and counted
        max_tokens: Option<usize> [at_least(3)] = None, "512, or fewer where the text encoder has fewer positions";
    }
}

section! {
    /// The keys of `[data.demo]`: [`DataSource::Demo`].
    pub const DEMO("data.demo") {
        /// size of the corpus that the program makes
        utterances [at_least(40)], "1200";
        /// seed of that corpus
        seed [Kind::Seed], "1";
    }
}

/// Where the utterances come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSource {
    /// One manifest a split.
    Manifests {
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
    Fresh { config: EncoderMap },
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
    Train { vocab_size: usize },
    /// The clasp checkpoint of `train.init`.
    Initial,
    /// Nothing: the method does not read text.
    Absent,
}

section! {
    /// `[text]`: the text encoder.
    #[derive(Clone, Debug, PartialEq)]
    pub struct TextConfig("text", has_init: bool) {
        by_hand {
            /// RoBERTa: a folder or a hub id
            checkpoint [Kind::Model], "required, unless [text.config] or train.init is there";
            /// a folder, or "train": byte-level BPE on the training text
            tokenizer [Kind::Model], "the checkpoint's folder; required with fresh weights";
            /// size of a tokenizer that is trained (256 bytes and 5 special tokens at least)
            vocab_size [at_least(SMALLEST_VOCABULARY)],
                "text.config.vocab_size, else 1000, with tokenizer = \"train\"";
        } into {
            /// Its weights.
            source: EncoderSource;
            /// Its tokenizer.
            tokenizer: TokenizerSource;
        }
        /// the vector of the text: the state of <s>, the mean over tokens, or their sum by learned weights
        pooling: Option<Pooling> = (!has_init).then_some(Pooling::Cls), "\"cls\"";
        /// states that the heads see: the last layer's, those behind N layers, or a learned mix of all
        layers: Option<Layers> = (!has_init).then_some(Layers::Last), "\"last\"";
        /// keep the whole text encoder as it is
        freeze: bool = false;
        /// keep this many of the lowest layers as they are
        freeze_layers: usize = 0;
    }
}

section! {
    /// `[speech]`: the speech encoder.
    #[derive(Clone, Debug, PartialEq)]
    pub struct SpeechConfig("speech", has_init: bool, is_loaded: bool) {
        by_hand {
            /// wav2vec 2.0, or another of speech.config.model_type: a folder or a hub id
            checkpoint [Kind::Model], "required, unless [speech.config] or train.init is there";
        } into {
            /// Its weights.
            source: EncoderSource;
            /// Where what the convolutions make of each utterance is kept; only where they stay as they are.
            feature_cache: Option<FeatureCacheConfig>;
        }
        /// the vector of the speech: the mean over frames, their sum by learned weights, or the first
        pooling: Option<Pooling> = (!has_init).then_some(Pooling::Mean), "\"mean\"";
        /// states that the heads see: the last layer's, those behind N layers, or a learned mix of all
        layers: Option<Layers> = (!has_init).then_some(Layers::Last), "\"last\"";
        /// keep the whole speech encoder as it is
        freeze: bool = false;
        /// keep this many of the lowest layers as they are
        freeze_layers: usize = 0;
        /// keep the convolutions as they are
        freeze_feature_encoder: Option<bool> = (!is_loaded).then_some(false),
            "true for a loaded encoder, false for a fresh one and for Whisper";
        /// Whisper: hear the silence behind an utterance too, to 30 s, as it was trained
        padded: bool = false;
    }
}

section! {
    /// The cache of what the feature encoder makes of each utterance; a part of `[speech]`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct FeatureCacheConfig("speech") {
        /// folder, relative to the current one, that keeps what frozen convolutions make of each utterance
        #[resume(free)]
        folder("feature_cache"): PathBuf [Kind::Folder] = PathBuf::new(), "none: the convolutions run in every epoch";
        /// number format of what is kept; f16 takes half the disk and rounds
        precision("feature_cache_precision"): FeaturePrecision = FeaturePrecision::F32;
        /// largest size of that folder; entries of other weights are removed for it, the oldest first
        #[resume(free)]
        gib("feature_cache_gib"): f64 [Number(Range::Positive)] = 20.0;
    }
}

impl FeatureCacheConfig {
    /// Its largest size in bytes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number; one that is too large becomes the largest"
    )]
    pub fn bytes(&self) -> u64 {
        (self.gib * f64::from(1 << 30)) as u64
    }
}

/// Where neither the config nor a checkpoint says.
const CLASSIFIER_DROPOUT: f64 = 0.1;

section! {
    /// `[model]`: what the config says about the architecture. [`Architecture`] is what comes of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ModelKeys("model") {
        by_hand {} into {
            /// `[model.<method>]`, `[model.fusion]` for clasp: what is stated of the method's options; all of them once the
            /// config is settled.
            options: Map<String, Value>;
        }
        /// the system
        method: Method = Method::Clasp;
        /// what is left out of clasp; it wins over the weights and the fusion of the file
        ablation: Ablation = Ablation::None;
        /// width of all vectors
        hidden_size: Option<usize> [at_least(1)] = None, "the text encoder's, else the speech encoder's";
        /// sets every dropout at once, also the encoders'
        dropout: Option<f64> [Dropout] = None, "none: each dropout as it is stated";
        /// dropout before each classifier
        classifier_dropout: Option<f64> [Dropout] = None, "0.1";
    }
}

section! {
    /// `[train]`: the course of training.
    #[derive(Clone, Debug, PartialEq)]
    pub struct TrainConfig("train") {
        /// the optimiser
        optimizer: OptimizerKind = OptimizerKind::Adam;
        /// rate of the new layers
        learning_rate: f64 [Number(Range::Positive)] = 1e-5;
        /// rate of both encoders
        encoder_learning_rate: f64 [Number(Range::Positive)] = learning_rate, "train.learning_rate";
        /// factor on the rate per encoder layer downwards
        layer_decay: f64 [Number(Range::Share)] = 1.0;
        /// weight decay; biases and other vectors have none
        weight_decay: f64 = 0.0;
        /// the rate after the warm-up
        schedule: Schedule = Schedule::Constant;
        /// steps in which the rate rises from 0
        warmup_steps: usize = 0;
        /// largest global gradient norm; 0: no limit
        clip_norm: ZeroIsNone<f64> = ZeroIsNone::NONE;
        /// batches an optimiser step
        accumulation_steps: usize [at_least(1)] = 1;
        /// stop after this many epochs without a better one; 0: never
        patience: ZeroIsNone<usize> = ZeroIsNone::NONE;
        /// utterances a batch, over all devices
        batch_size: usize [at_least(1)] = 4;
        /// largest padded seconds of audio a batch; 0: no limit
        batch_seconds: ZeroIsNone<f64> = ZeroIsNone::NONE;
        /// with several devices: contrast with the whole batch (true) or with a device's own part of it
        gather_negatives: bool = true;
        /// passes over the training data
        epochs: usize [at_least(1)] = 25;
        /// seed of the weights, the order and the dropout
        seed: u64 = 1;
        /// also save within an epoch; 0: only at its end
        #[resume(free)]
        save_every_steps: ZeroIsNone<usize> = ZeroIsNone::NONE;
        /// log each so many steps
        #[resume(free)]
        log_every_steps: usize [at_least(1)] = 1;
        /// start from this clasp checkpoint, which decides the architecture;
        /// text.checkpoint and speech.checkpoint are then not read
        init: Option<PathBuf> [Kind::Model] = None, "none";
    }
}

section! {
    /// `[run]`: where and on what.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RunConfig("run", surroundings: &Surroundings) {
        /// folder of the run, relative to the current folder
        #[resume(free)]
        dir: PathBuf [Kind::Folder] = surroundings.run_dir(), "runs/<name of the config>";
        /// auto, cpu, cuda, cuda:N, or several: cuda:0,1
        #[resume(free)]
        device: Devices = Devices::from(Device::Auto);
        /// number format of training; scoring is f32
        precision: Precision = Precision::F32;
        /// score the test data after training
        test_at_end: bool = false;
        /// threads that decode audio
        #[resume(free)]
        workers: usize [Kind::Integer(1, 256)] = 2;
    }
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

/// Resolves the config that a run folder keeps, from its text: paths are relative to that folder, which is `run.dir`.
///
/// # Errors
/// [`ConfigError`]; all problems of the config at once.
pub fn parse_stored(run: &RunFolder, text: &str) -> Result<Config, ConfigError> {
    parse(&run.config().display().to_string(), text, &[], &Surroundings::of_run(run))
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
