//! From a validated document to the resolved [`Config`]: defaults, paths, and the rules between keys.
//!
//! The document's bad values are already reported; here they count as not set, and a rule that reads one stays silent.

mod encoders;
mod reader;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::Value;

use super::architecture::{DROPOUT, FEED_FORWARD, fusion_depth};
use super::builtin::Source;
use super::document::Document;
use super::problem::{ConfigError, Problem};
use super::render::COMMON_LOSS;
use super::validate;
use super::{
    ClassWeights, Config, DataConfig, DataSource, Device, EncoderMap, EncoderSource, FusionConfig, KlDirection,
    LossConfig, Method, ModelConfig, Negatives, RunConfig, Similarity, TrainConfig, locate,
};
use crate::choices::{Ablation, FusionKind, OptimizerKind, Precision, Schedule};
use reader::Resolver;

/// What the meaning of paths depends on.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Data and checkpoints are relative to it: the config file's folder.
    pub config_folder: PathBuf,
    /// The run folder is relative to it.
    pub current_folder: PathBuf,
    /// Where hub ids are looked up.
    pub hub_cache: PathBuf,
    /// The name of the config without folder and ending.
    pub name: String,
}

impl Surroundings {
    /// Those of a config that was found: a built-in one lies in the current folder, as it were.
    #[must_use]
    pub fn of(source: &Source) -> Self {
        let current_folder = std::path::absolute(".").unwrap_or_else(|_| PathBuf::from("."));
        Self {
            config_folder: source.folder.clone().unwrap_or_else(|| current_folder.clone()),
            current_folder,
            hub_cache: locate::hub_cache(),
            name: source.stem().to_owned(),
        }
    }

    /// Everything in one folder, and no cache: for tests.
    #[cfg(test)]
    pub(crate) fn plain(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { config_folder: folder.clone(), current_folder: folder, hub_cache: "/no/cache".into(), name: "x".into() }
    }
}

/// Resolves a document. The config is only of use where no problem was found, here or before.
#[must_use]
pub fn resolve(
    document: &Document,
    rejected: &BTreeSet<String>,
    surroundings: &Surroundings,
) -> (Config, Vec<Problem>) {
    let mut resolver = Resolver::new(document, rejected, surroundings);
    let config = resolver.config();
    (config, resolver.problems)
}

impl Resolver<'_> {
    fn config(&mut self) -> Config {
        let run = self.run();
        let data = self.data(&run);
        let train = self.train(&data);
        let has_init = train.init.is_some();
        let dropout = self.dropout();
        let method = self.choice("model.method", Method::from_word).unwrap_or(Method::Clasp);
        let reads = method.reads();
        let text = if reads.text() { self.text_encoder(has_init, dropout) } else { encoders::no_text() };
        let speech = if method.encodes_speech() {
            self.speech_encoder(has_init, dropout)
        } else {
            self.check_no_feature_cache(method);
            encoders::no_speech()
        };
        let model = self.model(method, has_init, dropout);
        let loss = self.loss(&model);
        let config = Config { data, text, speech, model, loss, train, run };
        self.settle_fresh(config)
    }

    fn run(&mut self) -> RunConfig {
        let dir = self.text("run.dir").map_or_else(|| Path::new("runs").join(&self.surroundings.name), PathBuf::from);
        RunConfig {
            dir: self.surroundings.current_folder.join(dir),
            device: self.choice("run.device", |word| word.parse().ok()).unwrap_or_else(|| Device::Auto.into()),
            precision: self.choice("run.precision", Precision::from_word).unwrap_or(Precision::F32),
            test_at_end: self.boolean("run.test_at_end"),
            workers: self.integer("run.workers"),
        }
    }

    fn data(&mut self, run: &RunConfig) -> DataConfig {
        let manifests = ["data.train", "data.dev", "data.test"];
        let [train, dev, test] = manifests.map(|path| self.path(path));
        let demo = DataSource::Demo {
            utterances: self.stated_integer("data.demo.utterances").unwrap_or(1200),
            seed: self.seed("data.demo.seed").unwrap_or(1),
            folder: run.dir.join("corpus"),
        };
        let is_demo = self.document.has_section("data.demo");
        if is_demo {
            for path in manifests.into_iter().filter(|path| self.text(path).is_some()).collect::<Vec<_>>() {
                self.conflict(path, "and [data.demo] exclude each other: remove one of them");
            }
        } else if train.is_none() {
            self.missing("data.train", "the manifest to train on (or a [data.demo] table: the program makes a corpus)");
        }
        if run.test_at_end && !is_demo && test.is_none() && !self.is_rejected(&["data.test"]) {
            self.conflict(
                "run.test_at_end",
                "is true, but there is no data.test to score: set it, or set this to false",
            );
        }
        let source = if is_demo { demo } else { DataSource::Manifests { train: train.unwrap_or_default(), dev, test } };
        let words = |labels: &Value| -> Vec<String> {
            labels.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        DataConfig {
            source,
            labels: self.set("data.labels").map(words),
            max_seconds: self.number("data.max_seconds"),
            max_tokens: self.stated_integer("data.max_tokens"),
        }
    }

    fn train(&mut self, data: &DataConfig) -> TrainConfig {
        let learning_rate = self.number("train.learning_rate");
        let patience = self.stated_integer("train.patience").filter(|epochs| *epochs > 0);
        let has_dev = !matches!(data.source, DataSource::Manifests { dev: None, .. });
        if patience.is_some() && !has_dev && !self.is_rejected(&["data.dev"]) {
            self.conflict("train.patience", "is set, but there is no data.dev to judge by: set it, or set this to 0");
        }
        TrainConfig {
            optimizer: self.choice("train.optimizer", OptimizerKind::from_word).unwrap_or(OptimizerKind::Adam),
            learning_rate,
            encoder_learning_rate: self.stated_number("train.encoder_learning_rate").unwrap_or(learning_rate),
            layer_decay: self.number("train.layer_decay"),
            weight_decay: self.number("train.weight_decay"),
            schedule: self.choice("train.schedule", Schedule::from_word).unwrap_or(Schedule::Constant),
            warmup_steps: self.integer("train.warmup_steps"),
            clip_norm: self.stated_number("train.clip_norm").filter(|norm| *norm > 0.0),
            accumulation_steps: self.integer("train.accumulation_steps"),
            patience,
            batch_size: self.integer("train.batch_size"),
            batch_seconds: self.stated_number("train.batch_seconds").filter(|seconds| *seconds > 0.0),
            gather_negatives: self.boolean("train.gather_negatives"),
            epochs: self.integer("train.epochs"),
            seed: self.seed("train.seed").unwrap_or_default(),
            save_every_steps: self.stated_integer("train.save_every_steps").filter(|steps| *steps > 0),
            log_every_steps: self.integer("train.log_every_steps"),
            init: self.folder("train.init"),
        }
    }

    /// `model.dropout`, which wins over every other dropout.
    fn dropout(&mut self) -> Option<f64> {
        let dropout = self.stated_number("model.dropout");
        for path in ["model.classifier_dropout", "model.fusion.dropout"] {
            self.check_dropout_flags(path, dropout);
        }
        dropout
    }

    /// Two flags that set the same dropout to different values contradict each other; the file's values just give way.
    pub(super) fn check_dropout_flags(&mut self, path: &str, dropout: Option<f64>) {
        let other = self.set(path).and_then(validate::number);
        let differs = dropout.zip(other).is_some_and(|(all, one)| (all - one).abs() > 0.0);
        if differs && self.is_flag("model.dropout") && self.is_flag(path) {
            self.conflict(
                path,
                "and model.dropout, which sets every dropout, are both on the command line: remove one",
            );
        }
    }

    fn model(&mut self, method: Method, has_init: bool, dropout: Option<f64>) -> ModelConfig {
        let mut ablation = self.choice("model.ablation", Ablation::from_word).unwrap_or(Ablation::None);
        if method != Method::Clasp && ablation != Ablation::None {
            let reason = format!("leaves something out of the paper's system, but model.method is {method}");
            self.conflict("model.ablation", reason + ": set it to none, or the method to clasp");
            ablation = Ablation::None;
        }
        let classifier_dropout = self.stated_number("model.classifier_dropout");
        let default_dropout = (!has_init).then_some(DROPOUT);
        ModelConfig {
            method,
            ablation,
            hidden_size: self.stated_integer("model.hidden_size"),
            dropout,
            classifier_dropout: dropout.or(classifier_dropout).or(default_dropout),
            fusion: self.fusion(method, ablation, has_init, dropout),
            options: self.options(method, dropout),
        }
    }

    /// The stated options of the method; those of others are left alone, as a file may serve several methods.
    fn options(&mut self, method: Method, dropout: Option<f64>) -> EncoderMap {
        let mut stated = EncoderMap::new();
        for (own, key) in Method::ALL.iter().flat_map(|method| method.keys().iter().map(move |key| (*method, key))) {
            let value = self.set(key.path).cloned();
            let is_dropout = key.path.ends_with("dropout");
            self.check_dropout_flags(key.path, dropout.filter(|_| is_dropout));
            if own != method {
                if value.is_some() && self.is_flag(key.path) {
                    self.conflict(key.path, format!("is an option of {own}, but model.method is {method}: remove one"));
                }
            } else if let Some(value) = dropout.filter(|_| is_dropout).map(Value::Float).or(value) {
                stated.insert(key.split().1.to_owned(), encoders::json(&value, key.kind));
            }
        }
        stated
    }

    fn fusion(&mut self, method: Method, ablation: Ablation, has_init: bool, dropout: Option<f64>) -> FusionConfig {
        if method != Method::Clasp {
            self.check_flags_of_clasp("model.fusion.", method);
            return FusionConfig::default();
        }
        let stated_kind = self.choice("model.fusion.kind", FusionKind::from_word);
        let is_replaced = ablation == Ablation::NoMultiHead && stated_kind != Some(FusionKind::Attention);
        if is_replaced && self.is_flag("model.ablation") && stated_kind.is_some() && self.is_flag("model.fusion.kind") {
            self.conflict("model.fusion.kind", "is multi_head, but model.ablation = no-multi-head: remove one of them");
        }
        // The sizes of a multi-head fusion do not carry over to the one that replaces it.
        let size = |path: &str| self.stated_integer(path).filter(|_| !is_replaced);
        let kind = if is_replaced {
            Some(FusionKind::Attention)
        } else {
            stated_kind.or((!has_init).then_some(FusionKind::MultiHead))
        };
        let depth = kind.filter(|_| !has_init).map(fusion_depth);
        let fusion_dropout = self.stated_number("model.fusion.dropout");
        FusionConfig {
            kind,
            split_heads: size("model.fusion.split_heads"),
            hidden_size: size("model.fusion.hidden_size"),
            layers: size("model.fusion.layers").or(depth.map(|(layers, _)| layers)),
            attention_heads: size("model.fusion.attention_heads").or(depth.map(|(_, heads)| heads)),
            feed_forward: self.stated_integer("model.fusion.feed_forward").or((!has_init).then_some(FEED_FORWARD)),
            dropout: dropout.or(fusion_dropout).or((!has_init).then_some(DROPOUT)),
            slot_embeddings: self.stated_boolean("model.fusion.slot_embeddings").or((!has_init).then_some(false)),
        }
    }

    /// Keys of the paper's system alone contradict another method where they are flags.
    fn check_flags_of_clasp(&mut self, prefix: &str, method: Method) {
        let keys = super::table::all().map(|key| key.path);
        for path in keys.filter(|path| path.starts_with(prefix) && !COMMON_LOSS.contains(path)) {
            if self.set(path).is_some() && self.is_flag(path) {
                self.conflict(path, format!("is an option of clasp, but model.method is {method}: remove one"));
            }
        }
    }

    fn loss(&mut self, model: &ModelConfig) -> LossConfig {
        let ablation = model.ablation;
        let default = LossConfig::default();
        let mut loss = LossConfig {
            semantic: self.number("loss.semantic"),
            modality: self.number("loss.modality"),
            reconstruction: self.number("loss.reconstruction"),
            kl: self.number("loss.kl"),
            temperature: self.number("loss.temperature"),
            similarity: self.choice("loss.similarity", Similarity::from_word).unwrap_or(default.similarity),
            negatives: self.choice("loss.negatives", Negatives::from_word).unwrap_or(default.negatives),
            detach_target: self.boolean("loss.detach_target"),
            kl_direction: self.choice("loss.kl_direction", KlDirection::from_word).unwrap_or(default.kl_direction),
            kl_detach: self.boolean("loss.kl_detach"),
            class_weights: self.choice("loss.class_weights", ClassWeights::from_word).unwrap_or(default.class_weights),
            label_smoothing: self.number("loss.label_smoothing"),
        };
        if model.method != Method::Clasp {
            self.check_flags_of_clasp("loss.", model.method);
            let LossConfig { class_weights, label_smoothing, .. } = loss;
            return LossConfig { class_weights, label_smoothing, ..default };
        }
        let reconstruction = ("loss.reconstruction", &mut loss.reconstruction);
        let (semantic, modality) = (("loss.semantic", &mut loss.semantic), ("loss.modality", &mut loss.modality));
        let removed = match ablation {
            Ablation::NoSemantic => vec![semantic],
            Ablation::NoModality => vec![modality],
            Ablation::NoContrastive => vec![semantic, modality],
            Ablation::NoReconstruction => vec![reconstruction],
            Ablation::NoKl => vec![("loss.kl", &mut loss.kl)],
            Ablation::RawOnly => vec![semantic, modality, reconstruction],
            Ablation::None | Ablation::NoMultiHead => Vec::new(),
        };
        for (path, weight) in removed {
            if *weight > 0.0 && self.is_flag(path) && self.is_flag("model.ablation") {
                let reason = format!("is set, but model.ablation = {ablation} takes this term out: remove one of them");
                self.conflict(path, reason);
            }
            *weight = 0.0;
        }
        loss
    }

    /// With fresh encoders everything about the architecture is known here already.
    fn settle_fresh(&mut self, config: Config) -> Config {
        let sections = ["text", "speech", "model", "data.max_tokens"];
        let none = EncoderMap::new();
        let known = |source| match source {
            EncoderSource::Fresh { config } => Some(config),
            EncoderSource::Absent => Some(none.clone()),
            _ => None,
        };
        let (Some(text), Some(speech)) = (known(config.text.source.clone()), known(config.speech.source.clone()))
        else {
            return config;
        };
        if !self.problems.is_empty() || self.is_rejected(&sections) {
            return config;
        }
        match config.settle(&text, &speech, None) {
            Ok((settled, _)) => settled,
            Err(ConfigError::Invalid { problems, .. }) => {
                for problem in problems {
                    self.complain(&problem.key, problem.fault);
                }
                config
            }
            Err(_) => config,
        }
    }
}

#[cfg(test)]
mod tests;
