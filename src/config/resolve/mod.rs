//! From a validated document to the resolved [`Config`]: defaults, paths, and the rules between keys.
//!
//! The document's bad values are already reported; here they count as not set, and a rule that reads one stays silent.

mod encoders;
mod reader;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::Value;

use super::builtin::Source;
use super::document::Document;
use super::problem::{ConfigError, Problem};
use super::{
    Config, DataConfig, DataSource, EncoderMap, EncoderSource, LossConfig, Method, ModelKeys, RunConfig, TrainConfig,
    locate,
};
use crate::choices::{Ablation, FusionKind};
use crate::keys::{Kind, number};
use crate::method::ModelSizes;
use crate::run::{RunFolder, unfit};
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
    /// Where the config is the one that a run folder keeps: all its paths are relative to that folder.
    pub stored: Option<StoredConfig>,
}

/// The run folder of a stored config, which is `config_folder`.
#[derive(Clone, Debug)]
pub struct StoredConfig {
    /// Where it lay when the config was written.
    pub then: Option<PathBuf>,
}

impl Surroundings {
    /// Those of a config that was found: a built-in one lies in the current folder, as it were.
    pub fn of(source: &Source) -> Self {
        let current_folder = std::path::absolute(".").unwrap_or_else(|_| PathBuf::from("."));
        let run = source.folder.as_deref().map(RunFolder::new).filter(RunFolder::is_run);
        let is_stored = |run: &RunFolder| run.config().file_name() == Path::new(&source.name).file_name();
        Self {
            stored: run.filter(is_stored).map(|run| StoredConfig::of(&run)),
            config_folder: source.folder.clone().unwrap_or_else(|| current_folder.clone()),
            current_folder,
            hub_cache: locate::hub_cache(),
            name: source.stem().to_owned(),
        }
    }

    /// The run folder where the config names none.
    pub(super) fn run_dir(&self) -> PathBuf {
        if self.stored.is_some() {
            return self.config_folder.clone();
        }
        self.current_folder.join("runs").join(&self.name)
    }

    /// Those of the config in a run folder.
    pub(super) fn of_run(run: &RunFolder) -> Self {
        let config_folder = std::path::absolute(run.path()).unwrap_or_else(|_| run.path().to_owned());
        let source = Source { name: run.config().display().to_string(), text: String::new(), folder: None };
        Self { config_folder, stored: Some(StoredConfig::of(run)), ..Self::of(&source) }
    }

    /// Everything in one folder, and no cache: for tests.
    #[cfg(test)]
    pub(crate) fn plain(folder: &std::path::Path) -> Self {
        let folder = folder.to_owned();
        Self {
            config_folder: folder.clone(),
            current_folder: folder,
            hub_cache: "/no/cache".into(),
            name: "x".into(),
            stored: None,
        }
    }
}

impl StoredConfig {
    fn of(run: &RunFolder) -> Self {
        Self { then: run.load_manifest().ok().and_then(|manifest| manifest.folder) }
    }
}

/// Resolves a document. The config is only of use where no problem was found, here or before.
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
        let mut run = RunConfig::read(self, self.surroundings);
        if self.surroundings.stored.is_some() && !self.is_flag("run.dir") {
            // Older programs wrote where the folder lay then.
            run.dir = self.surroundings.run_dir();
        }
        let stated = self.set("run.dir").and_then(Value::as_str);
        if let Some(reason) = stated.and_then(|stated| unfit(stated, &run.dir)) {
            self.conflict("run.dir", reason);
        }
        let source = self.data_source(&run);
        let data = DataConfig::read(self, source);
        let train = TrainConfig::read(self);
        self.check_patience(&train, &data);
        let has_init = train.init.is_some();
        let mut model = ModelKeys::read(self, EncoderMap::new());
        let (method, dropout) = (model.method, model.dropout);
        let reads = method.reads();
        let text = if reads.text() { self.text_encoder(has_init, dropout) } else { encoders::no_text() };
        let speech = if method.encodes_speech() {
            self.speech_encoder(has_init, dropout)
        } else {
            self.check_no_feature_cache(method);
            encoders::no_speech()
        };
        self.model(&mut model, has_init);
        let loss = self.loss(&model);
        let config = Config { data, text, speech, model, loss, train, run };
        self.settle_fresh(config)
    }

    fn data_source(&mut self, run: &RunConfig) -> DataSource {
        let manifests = ["data.train", "data.dev", "data.test"];
        let [train, dev, test] = manifests.map(|path| self.get::<PathBuf>(path));
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
        if !is_demo {
            return DataSource::Manifests { train: train.unwrap_or_default(), dev, test };
        }
        DataSource::Demo {
            utterances: self.get("data.demo.utterances").unwrap_or(1200),
            seed: self.get("data.demo.seed").unwrap_or(1),
            folder: run.dir.join("corpus"),
        }
    }

    fn check_patience(&mut self, train: &TrainConfig, data: &DataConfig) {
        let has_dev = !matches!(data.source, DataSource::Manifests { dev: None, .. });
        if train.patience.0.is_some() && !has_dev && !self.is_rejected(&["data.dev"]) {
            self.conflict("train.patience", "is set, but there is no data.dev to judge by: set it, or set this to 0");
        }
    }

    /// Two flags that set the same dropout to different values contradict each other; the file's values just give way.
    pub(super) fn check_dropout_flags(&mut self, path: &str, dropout: Option<f64>) {
        let other = self.set(path).and_then(number);
        let differs = dropout.zip(other).is_some_and(|(all, one)| (all - one).abs() > 0.0);
        if differs && self.is_flag("model.dropout") && self.is_flag(path) {
            self.conflict(
                path,
                "and model.dropout, which sets every dropout, are both on the command line: remove one",
            );
        }
    }

    /// What of `[model]` depends on other keys; `model.dropout` wins over every other dropout.
    fn model(&mut self, model: &mut ModelKeys, has_init: bool) {
        let (method, dropout) = (model.method, model.dropout);
        self.check_dropout_flags("model.classifier_dropout", dropout);
        if method != Method::Clasp && model.ablation != Ablation::None {
            let reason = format!("leaves something out of the paper's system, but model.method is {method}");
            self.conflict("model.ablation", reason + ": set it to none, or the method to clasp");
            model.ablation = Ablation::None;
        }
        let default_dropout = (!has_init).then_some(super::CLASSIFIER_DROPOUT);
        model.classifier_dropout = dropout.or(model.classifier_dropout).or(default_dropout);
        model.options = self.options(method, dropout);
        if model.ablation == Ablation::NoMultiHead {
            self.replace_fusion(&mut model.options);
        }
        if !has_init {
            Self::add_known(method, &mut model.options);
        }
    }

    /// The stated options of the method; those of others are left alone, as a file may serve several methods.
    fn options(&mut self, method: Method, dropout: Option<f64>) -> EncoderMap {
        let mut stated = EncoderMap::new();
        for (own, key) in Method::ALL.iter().flat_map(|method| method.keys().iter().map(move |key| (*method, key))) {
            let value = self.set(key.path).cloned();
            let is_dropout = key.kind == Kind::Dropout;
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

    /// The fusion of the ablation without multi-head fusion: the sizes of the one that it replaces do not carry over.
    fn replace_fusion(&mut self, stated: &mut EncoderMap) {
        let kind = FusionKind::Attention.word();
        if stated.get("kind").is_some_and(|stated| stated == kind) {
            return;
        }
        if self.is_flag("model.ablation") && self.is_flag("model.fusion.kind") {
            self.conflict("model.fusion.kind", "is multi_head, but model.ablation = no-multi-head: remove one of them");
        }
        stated.retain(|name, _| ["feed_forward", "dropout", "slot_embeddings"].contains(&name.as_str()));
        stated.insert("kind".to_owned(), kind.into());
    }

    /// What is not stated and the same whatever the encoders are.
    fn add_known(method: Method, stated: &mut EncoderMap) {
        let of = |size| method.options(stated, ModelSizes { hidden: size, attention_heads: size, vocabulary: size });
        let (Ok(some), Ok(other)) = (of(1), of(2)) else { return };
        let (serde_json::Value::Object(some), other) = (some.to_json(), other.to_json()) else { return };
        stated.extend(some.into_iter().filter(|(name, value)| other.get(name) == Some(value)));
    }

    /// Keys of the paper's system alone contradict another method where they are flags.
    fn check_flags_of_clasp(&mut self, prefix: &str, method: Method) {
        let keys = super::table::all().map(|key| key.path);
        for path in keys.filter(|path| path.starts_with(prefix) && !LossConfig::COMMON.contains(path)) {
            if self.set(path).is_some() && self.is_flag(path) {
                self.conflict(path, format!("is an option of clasp, but model.method is {method}: remove one"));
            }
        }
    }

    fn loss(&mut self, model: &ModelKeys) -> LossConfig {
        let ablation = model.ablation;
        let mut loss = LossConfig::read(self);
        if model.method != Method::Clasp {
            self.check_flags_of_clasp("loss.", model.method);
            let LossConfig { class_weights, label_smoothing, .. } = loss;
            return LossConfig { class_weights, label_smoothing, ..LossConfig::default() };
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
