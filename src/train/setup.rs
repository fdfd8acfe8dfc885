//! From a config to what the loop needs: data sets, tokenizer, the settled config, and a model on a device. All of it
//! is checked before the first step.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use burn::{backend::Autodiff, module::Module};
use serde_json::Value;

use crate::{
    checkpoint::{
        self, CheckpointConfig,
        feature_extractor::FeatureExtractor,
        folder::{self, check_folder},
        parameters,
        published::{EncoderKind, load_encoder, read_config},
        source::TensorSource,
        sums,
    },
    config::{Config, ConfigError, DataSource, EncoderMap, EncoderSource, Problem, TokenizerSource, locate, table},
    data::{
        DataError,
        dataset::{Dataset, Limits, Needs},
        labels::Labels,
        manifest::{self, Row},
        names::look_alikes,
        text::{self, Tokenizer},
    },
    demo::{self, DemoOptions},
    encoder::{RobertaConfig, SpeechEncoder, SpeechEncoderConfig, TextEncoder},
    error::Problems,
    inference::pass::check_frames,
    keys::Kind,
    loss::class_weights,
    method::{Method, Reads},
    model::{Model, ModelConfig},
    nn::Init,
    ops::TrainOps,
    random::mix,
};

/// Everything of a run that does not depend on the device.
#[derive(Debug)]
pub struct Material {
    /// The config with nothing left open.
    pub config: Config,
    /// What the run's checkpoints state.
    pub checkpoint: CheckpointConfig,
    /// The typed form of it.
    pub model: ModelConfig,
    /// The tokenizer, where text is read.
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub labels: Labels,
    /// Weights of the labels in the task terms; `None` if all are alike.
    pub label_weights: Vec<f64>,
    pub splits: Splits,
    pub train: Arc<Dataset>,
    /// What picks the best epoch.
    pub dev: Option<Arc<Dataset>>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The manifests of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits {
    pub train: PathBuf,
    /// What picks the best epoch.
    pub dev: Option<PathBuf>,
    /// What is scored in the end.
    pub test: Option<PathBuf>,
}

impl Material {
    /// What a batch's texts are padded with.
    pub fn pad_token(&self) -> u32 {
        self.tokenizer.as_ref().map_or(0, |tokenizer| tokenizer.pad_token())
    }
}

impl Splits {
    /// The splits with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let dev = self.dev.as_deref().map(|path| ("dev", path));
        let test = self.test.as_deref().map(|path| ("test", path));
        [Some(("train", self.train.as_path())), dev, test].into_iter().flatten()
    }
}

/// Makes the demo's corpus where the config asks for it, and names the manifests.
///
/// # Errors
/// The corpus cannot be written.
pub fn splits(config: &Config) -> anyhow::Result<Splits> {
    Ok(match &config.data.source {
        DataSource::Manifests { train, dev, test } => {
            Splits { train: train.clone(), dev: dev.clone(), test: test.clone() }
        }
        DataSource::Demo { utterances, seed, folder } => {
            let corpus = demo::write_corpus(folder, &DemoOptions { utterances: *utterances, seed: *seed })?;
            Splits { train: corpus.train, dev: Some(corpus.dev), test: Some(corpus.test) }
        }
    })
}

/// Reads and checks everything that a config names.
///
/// # Errors
/// A manifest, tokenizer, encoder config or checkpoint that is missing or does not fit.
pub fn prepare(config: &Config) -> anyhow::Result<Material> {
    let splits = splits(config)?;
    check_there(config, &splits)?;
    let train_rows = manifest::read(&splits.train).context("data.train")?;
    let dev_rows = splits.dev.as_deref().map(manifest::read).transpose().context("data.dev")?;
    if let Some(folder) = &config.train.init {
        check_folder(folder).context("train.init")?;
    }
    let initial = config.train.init.as_deref().map(CheckpointConfig::read).transpose().context("train.init")?;
    if let Some(initial) = &initial {
        check_same_method(config.model.method, initial)?;
    }
    let method = config.model.method;
    let reads = method.reads();
    let labels = labels(config, &train_rows, initial.as_ref())?;
    if let Some(test) = &splits.test
        && config.run.test_at_end
    {
        // Not scored before the end, but what would fail there is reported now.
        check_test(test, &labels, reads).context("data.test")?;
    }
    for (key, rows) in [("data.train", Some(&train_rows)), ("data.dev", dev_rows.as_ref())] {
        check_audio(rows.map_or(&[], Vec::as_slice), reads).context(key)?;
    }
    let tokenizer = tokenizer(config, &train_rows)?.map(Arc::new);
    let initial_encoder = |pick: fn(&CheckpointConfig) -> &Value| initial.as_ref().map(pick);
    let mut text_encoder =
        encoder_config(&config.text.source, "text.checkpoint", initial_encoder(|initial| &initial.text_encoder))?;
    let mut speech_encoder =
        encoder_config(&config.speech.source, "speech.checkpoint", initial_encoder(|initial| &initial.speech_encoder))?;
    if method.encodes_speech() {
        check_overrides(config, &mut speech_encoder)?;
        if config.speech.padded {
            speech_encoder.insert("padded".into(), true.into());
        }
    }
    if let (EncoderSource::Fresh { .. }, Some(tokenizer)) = (&config.text.source, &tokenizer) {
        fit_to_tokenizer(&mut text_encoder, tokenizer, matches!(config.text.tokenizer, TokenizerSource::Train { .. }));
    }
    // A value that no encoder can have is reported as such, and not as a misfit of what follows from it.
    if method.encodes_text() {
        RobertaConfig::from_json(&Value::Object(text_encoder.clone()))?;
    }
    if method.encodes_speech() {
        SpeechEncoderConfig::from_json(&Value::Object(speech_encoder.clone()))?;
    }
    let feature_extractor = feature_extractor(config, initial.as_ref(), &speech_encoder)?;
    let architecture = initial.as_ref().map(|initial| &initial.architecture);
    let (config, architecture) = config.settle(&text_encoder, &speech_encoder, architecture)?;
    let checkpoint = CheckpointConfig {
        format: checkpoint::FORMAT.into(),
        method: config.model.method.word().into(),
        labels: labels.names().to_vec(),
        architecture,
        loss: config.loss.clone(),
        text_encoder: if method.encodes_text() { Value::Object(text_encoder) } else { Value::Null },
        speech_encoder: if method.encodes_speech() { Value::Object(speech_encoder) } else { Value::Null },
        feature_extractor,
        max_tokens: config.data.max_tokens,
        max_seconds: Some(config.data.max_seconds),
    };
    let model = checkpoint.model()?;
    if let (Some(vocabulary), Some(tokenizer)) = (model.vocabulary(), &tokenizer) {
        anyhow::ensure!(
            tokenizer.vocab_size() <= vocabulary,
            checkpoint::CheckpointError::from(crate::encoder::EncoderError::Invalid {
                encoder: if method.has_encoders() { "text encoder" } else { method.word() },
                problem: format!("vocab_size = {vocabulary} is less than the tokenizer's {}", tokenizer.vocab_size()),
            })
        );
    }
    let limits = limits(&config, &model, &checkpoint.feature_extractor);
    let dataset = |rows: Vec<Row>| -> anyhow::Result<Arc<Dataset>> {
        let needs = Needs { text: reads.text(), audio: reads.speech(), label: true };
        let dataset = Dataset::new(rows, tokenizer.as_ref(), Some(&labels), limits, needs)?;
        check_frames(&dataset, &model)?;
        Ok(Arc::new(dataset))
    };
    let train = dataset(train_rows).context("data.train")?;
    let dev = dev_rows.map(dataset).transpose().context("data.dev")?;
    let label_weights = class_weights(config.loss.class_weights, &label_counts(&train, labels.len()));
    let is_of_encoder = limits.max_seconds < config.data.max_seconds;
    let limit = if is_of_encoder { "where the speech encoder hears no more" } else { "at data.max_seconds" };
    let mut warnings = warnings(&train, dev.as_deref(), limit)?;
    warnings.extend(unread(&config));
    check_labels(train.rows()).context("data.train")?;
    warnings.extend(label_warnings(&labels, splits.test.as_deref()));
    Ok(Material { config, checkpoint, model, tokenizer, labels, label_weights, splits, train, dev, warnings })
}

/// Checks the manifests that a config names against its labels, the test split's too; reads no audio.
///
/// # Errors
/// A manifest that is missing or malformed, a label that is unknown, audio files that are not there.
pub fn check_splits(config: &Config) -> anyhow::Result<()> {
    let DataSource::Manifests { train, dev, test } = &config.data.source else { return Ok(()) };
    let initial = config.train.init.as_deref().map(CheckpointConfig::read).transpose().context("train.init")?;
    let reads = config.model.method.reads();
    let train_rows = manifest::read(train).context("data.train")?;
    let labels = labels(config, &train_rows, initial.as_ref())?;
    for (key, path) in [("data.train", Some(train)), ("data.dev", dev.as_ref()), ("data.test", test.as_ref())] {
        if let Some(path) = path {
            check_test(path, &labels, reads).context(key)?;
        }
    }
    check_labels(&train_rows).context("data.train")?;
    Ok(())
}

/// What a config names and is not there is reported at once; a single thing where it is read, with more words.
fn check_there(config: &Config, splits: &Splits) -> anyhow::Result<()> {
    let data = splits.named().filter(|(_, path)| !path.exists());
    let data: Vec<String> =
        data.map(|(name, path)| format!("data.{name}: there is no file {}", path.display())).collect();
    let mut models: Vec<String> = Vec::new();
    if let Some(folder) = &config.train.init {
        models.extend(check_folder(folder).err().map(|problem| format!("train.init: {problem}")));
    }
    for (key, source) in [("text.checkpoint", &config.text.source), ("speech.checkpoint", &config.speech.source)] {
        if let EncoderSource::Checkpoint { folder, .. } = source {
            models.extend(locate::encoder(key, folder).err().map(|problem| problem.to_string()));
        }
    }
    if let TokenizerSource::Folder(folder) = &config.text.tokenizer {
        let is_encoder = matches!(&config.text.source, EncoderSource::Checkpoint { folder: own, .. } if own == folder);
        // An encoder's folder that is not there is told as that.
        if !is_encoder || folder.is_dir() {
            models.extend(locate::tokenizer(folder).err().map(|problem| problem.to_string()));
        }
    }
    if data.len() + models.len() < 2 {
        return Ok(());
    }
    let has_models = !models.is_empty();
    let missing = Problems(data.into_iter().chain(models).collect());
    if has_models { Err(ConfigError::NotThere { missing }.into()) } else { Err(DataError::NotThere { missing }.into()) }
}

/// A checkpoint to start from is of the method that is trained.
fn check_same_method(method: Method, initial: &CheckpointConfig) -> Result<(), ConfigError> {
    if method.word() == initial.method {
        return Ok(());
    }
    let other = &initial.method;
    let words = format!("is {method}, but the checkpoint of train.init has {other}: set it to {other}");
    Err(ConfigError::invalid("config", vec![Problem::conflict("model.method", words)]))
}

/// Checks the labels of the manifests that a config names against each other; how many there are, and what to know.
///
/// # Errors
/// As of training: a single label, or one of dev, or of a test split that is scored at the end, that is unknown.
pub fn check_all_labels(config: &Config) -> anyhow::Result<(usize, Vec<String>)> {
    let splits = splits(config)?;
    let train = manifest::read(&splits.train).context("data.train")?;
    let initial = config.train.init.as_deref().map(CheckpointConfig::read).transpose().context("train.init")?;
    let labels = labels(config, &train, initial.as_ref())?;
    check_labels(&train).context("data.train")?;
    let is_tested = config.run.test_at_end;
    for (key, path) in [("data.dev", &splits.dev), ("data.test", &splits.test.clone().filter(|_| is_tested))] {
        if let Some(path) = path {
            labels.check(&manifest::read(path)?).context(key)?;
        }
    }
    Ok((labels.len(), label_warnings(&labels, splits.test.as_deref())))
}

/// Training needs two labels to tell apart, whatever the config lists.
fn check_labels(train: &[Row]) -> Result<(), DataError> {
    let mut labels = train.iter().filter_map(|row| row.label.as_ref());
    match labels.next() {
        Some(first) if labels.all(|label| label == first) => {
            let reason = "it is the only one that the utterances have; training needs at least two";
            Err(DataError::Labels { labels: vec![first.clone()], reason })
        }
        _ => Ok(()),
    }
}

/// Labels that look alike; and what `eval` will refuse, which need not be there yet.
fn label_warnings(labels: &Labels, test: Option<&Path>) -> Vec<String> {
    let rows = test.and_then(|path| manifest::read(path).ok()).unwrap_or_default();
    let mut warnings = look_alikes(labels.names().iter().chain(rows.iter().filter_map(|row| row.label.as_ref())));
    if let Err(problem) = labels.check(&rows) {
        warnings.extend(problem.to_string().lines().map(|line| format!("test: {line}")));
    }
    warnings
}

fn check_test(path: &Path, labels: &Labels, reads: Reads) -> anyhow::Result<()> {
    let rows = manifest::read(path)?;
    manifest::require(&rows, false, false, true)?;
    labels.check(&rows)?;
    Ok(check_audio(&rows, reads)?)
}

/// Files that are not there are reported at once, and not when their batch comes.
fn check_audio(rows: &[Row], reads: Reads) -> Result<(), DataError> {
    if !reads.speech() {
        return Ok(());
    }
    let missing = |row: &Row| {
        let path = row.audio.as_deref().filter(|path| !path.exists())?;
        let problem = Box::new(DataError::file(path, &std::io::Error::from(std::io::ErrorKind::NotFound)));
        Some(DataError::Utterance { id: row.id.clone(), line: row.line, problem })
    };
    DataError::check(rows.iter().filter_map(missing).collect())
}

fn label_counts(dataset: &Dataset, labels: usize) -> Vec<usize> {
    let mut counts = vec![0; labels];
    for &label in dataset.labels().iter().flatten() {
        counts[label] += 1;
    }
    counts
}

/// The limits on an utterance.
fn limits(config: &Config, model: &ModelConfig, feature_extractor: &FeatureExtractor) -> Limits {
    let max_tokens = config.data.max_tokens.unwrap_or(usize::MAX).min(model.max_tokens());
    let max_seconds = model.max_seconds(config.data.max_seconds);
    Limits { max_seconds, max_tokens, do_normalize: feature_extractor.do_normalize() }
}

/// What a config names beside a checkpoint to start from, which decides.
fn unread(config: &Config) -> Option<String> {
    let is_unread = |source: &EncoderSource| matches!(source, EncoderSource::Initial { unread: Some(_), .. });
    let sources = [("text.checkpoint", &config.text.source), ("speech.checkpoint", &config.speech.source)];
    let keys: Vec<&str> = sources.into_iter().filter(|(_, source)| is_unread(source)).map(|(key, _)| key).collect();
    let verb = if keys.len() > 1 { "are" } else { "is" };
    (!keys.is_empty()).then(|| format!("{} {verb} not read: train.init decides", keys.join(" and ")))
}

/// `limit`: where audio is cut.
fn warnings(train: &Dataset, dev: Option<&Dataset>, limit: &str) -> anyhow::Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (split, dataset) in [("train", Some(train)), ("dev", dev)] {
        let Some(dataset) = dataset else { continue };
        let counts = dataset.counts().with_context(|| format!("data.{split}"))?;
        for (count, what) in [
            (counts.text_empty, "have no words".to_owned()),
            (counts.text_cut, "have their text cut at data.max_tokens".to_owned()),
            (counts.audio_cut, format!("have their audio cut {limit}")),
        ] {
            if count > 0 {
                warnings.push(format!("{split}: {count} of {} utterances {what}", dataset.len()));
            }
        }
    }
    Ok(warnings)
}

fn labels(config: &Config, train: &[Row], initial: Option<&CheckpointConfig>) -> anyhow::Result<Labels> {
    let stated = config.data.labels.clone();
    Ok(match (stated, initial) {
        (Some(stated), Some(initial)) if Labels::new(stated.clone())? != Labels::new(initial.labels.clone())? => {
            return Err(ConfigError::invalid(
                "config",
                vec![Problem::conflict(
                    "data.labels",
                    format!("is {stated:?}, but the checkpoint of train.init has {:?}: remove the key", initial.labels),
                )],
            )
            .into());
        }
        (_, Some(initial)) => Labels::new(initial.labels.clone())?,
        (Some(stated), None) => Labels::new(stated)?,
        (None, None) => Labels::from_rows(train).context("data.train")?,
    })
}

fn tokenizer(config: &Config, train: &[Row]) -> anyhow::Result<Option<Tokenizer>> {
    Ok(Some(match &config.text.tokenizer {
        TokenizerSource::Folder(path) => {
            // Where the two share a folder, the key that the config states is the one to name.
            if matches!(&config.text.source, EncoderSource::Checkpoint { folder: own, .. } if own == path) {
                locate::encoder("text.checkpoint", path)?;
            }
            locate::tokenizer(path)?;
            folder::tokenizer(path).context("text.tokenizer")?
        }
        TokenizerSource::Train { vocab_size } => {
            let texts: Vec<&str> = train.iter().filter_map(|row| row.text.as_deref()).collect();
            Tokenizer::train(&texts, *vocab_size)?
        }
        TokenizerSource::Initial => {
            let path = config.train.init.as_deref().unwrap_or(Path::new("."));
            folder::tokenizer(path).context("train.init")?
        }
        TokenizerSource::Absent => return Ok(None),
    }))
}

/// The Hugging Face config of an encoder, with what the config overrides.
fn encoder_config(source: &EncoderSource, key: &'static str, initial: Option<&Value>) -> anyhow::Result<EncoderMap> {
    let with = |value: &Value, overrides: &EncoderMap| {
        let mut map = value.as_object().cloned().unwrap_or_default();
        map.extend(overrides.clone());
        map
    };
    Ok(match source {
        EncoderSource::Fresh { config } => config.clone(),
        EncoderSource::Absent => EncoderMap::new(),
        EncoderSource::Checkpoint { folder, overrides } => {
            locate::encoder(key, folder)?;
            with(&read_config(folder)?, overrides)
        }
        EncoderSource::Initial { overrides, .. } => with(initial.unwrap_or(&Value::Null), overrides),
    })
}

/// Keys beside a loaded speech encoder must be of its family. `model.dropout` sets those of every family: what is not of
/// this one is left out.
fn check_overrides(config: &Config, encoder: &mut EncoderMap) -> anyhow::Result<()> {
    let (EncoderSource::Checkpoint { overrides, .. } | EncoderSource::Initial { overrides, .. }) =
        &config.speech.source
    else {
        return Ok(());
    };
    let family = SpeechEncoderConfig::from_json(&Value::Object(encoder.clone()))?;
    let mut problems = Vec::new();
    for name in overrides.keys() {
        let path = format!("speech.config.{name}");
        if family.keys().iter().any(|key| key.path == path) {
            continue;
        }
        encoder.remove(name);
        let is_dropout = table::find(&path).is_some_and(|key| key.kind == Kind::Dropout);
        if !(is_dropout && config.model.dropout.is_some()) {
            let words = "is no key of the family that the checkpoint is of: remove it";
            problems.push(Problem::conflict(&path, words.to_owned()));
        }
    }
    if let Some(dropout) = config.model.dropout {
        for key in family.keys().iter().filter(|key| key.kind == Kind::Dropout) {
            encoder.insert(key.split().1.to_owned(), dropout.into());
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::invalid("config", problems).into()) }
}

/// What is done to a waveform before the speech encoder hears it.
fn feature_extractor(
    config: &Config,
    initial: Option<&CheckpointConfig>,
    encoder: &EncoderMap,
) -> anyhow::Result<FeatureExtractor> {
    if !config.model.method.encodes_speech() {
        return Ok(FeatureExtractor::default());
    }
    let encoder = SpeechEncoderConfig::from_json(&Value::Object(encoder.clone()))?;
    Ok(match (&config.speech.source, initial) {
        (EncoderSource::Checkpoint { folder, .. }, _) => FeatureExtractor::read(folder, &encoder)?,
        (EncoderSource::Initial { .. }, Some(initial)) => initial.feature_extractor.clone(),
        _ => FeatureExtractor::of(&encoder),
    })
}

/// A fresh text encoder has the special tokens of its tokenizer, and the size of one that was trained for it.
fn fit_to_tokenizer(config: &mut EncoderMap, tokenizer: &Tokenizer, is_trained: bool) {
    if is_trained {
        config.insert("vocab_size".into(), tokenizer.vocab_size().into());
    }
    config.insert("pad_token_id".into(), tokenizer.pad_token().into());
}

/// Builds the model that training starts from, with frozen parts frozen. Returns what the weight files held beside.
///
/// # Errors
/// Weights that are missing, damaged or of another shape.
pub fn model<B: TrainOps>(
    material: &Material,
    device: &B::Device,
) -> anyhow::Result<(Model<Autodiff<B>>, Vec<String>)> {
    let mut notes = Vec::new();
    let config = &material.config;
    let seed = config.train.seed;
    let model = if let Some(folder) = &config.train.init {
        let source = TensorSource::open_file(&folder.join(checkpoint::WEIGHTS)).context("train.init")?;
        source.check_layers(material.model.layers()).context("train.init")?;
        sums::check(folder, |name| !text::FILES.contains(&name)).context("train.init")?;
        let empty = Model::<B>::empty(&material.model, device);
        // SpecAugment may be switched on or off: its embedding then starts fresh or is left behind.
        let mask = &mut Init::fresh(mix(seed, 4), device);
        let empty = empty.map_encoders(|text| text, |speech| speech.with_fresh_mask(mask));
        let is_optional = |name: &str| name == "speech_encoder.masked_spec_embed";
        checkpoint::load_parameters_but(empty, &folder.join(checkpoint::WEIGHTS), is_optional).context("train.init")?
    } else {
        for (source, key, layers) in [
            (&config.text.source, "text.checkpoint", material.model.text_layers()),
            (&config.speech.source, "speech.checkpoint", material.model.speech_layers()),
        ] {
            if let EncoderSource::Checkpoint { folder, .. } = source {
                TensorSource::open_folder(folder).and_then(|source| source.check_layers(layers)).context(key)?;
            }
        }
        let init = |source: &EncoderSource, stream: u64| match source {
            EncoderSource::Fresh { .. } => Init::<B>::fresh(mix(seed, stream), device),
            _ => Init::empty(device),
        };
        let ModelConfig { text_encoder, speech_encoder, .. } = &material.model;
        let text = text_encoder.as_ref().map(|text| TextEncoder::new(text, &mut init(&config.text.source, 1)));
        let mask = &mut Init::fresh(mix(seed, 4), device);
        let speech = speech_encoder.as_ref().map(|speech| {
            let encoder = SpeechEncoder::new(speech, &mut init(&config.speech.source, 2));
            // Stays where a file without it is loaded.
            let is_loaded = !matches!(config.speech.source, EncoderSource::Fresh { .. });
            if is_loaded { encoder.with_fresh_mask(mask) } else { encoder }
        });
        let heads = &mut Init::fresh(mix(seed, 3), device);
        let mut model = Model::with_encoders(&material.model, text, speech, heads);
        for (kind, source, key) in [
            (EncoderKind::Text, &config.text.source, "text.checkpoint"),
            (EncoderKind::Speech, &config.speech.source, "speech.checkpoint"),
        ] {
            // A method without encoders takes no more than the tokenizer from there.
            if let (EncoderSource::Checkpoint { folder, .. }, true) = (source, config.model.method.has_encoders()) {
                let report;
                (model, report) = load_encoder(model, kind, folder).context(key)?;
                if report.is_mask_fresh {
                    notes.push(format!(
                        "{}: it has no masked_spec_embed, which speech.config asks for: it starts fresh",
                        folder.display()
                    ));
                }
                if !report.wrapper.is_empty() {
                    notes.push(format!(
                        "{}: all its names begin with {:?}, which is left out",
                        folder.display(),
                        report.wrapper
                    ));
                }
                if !report.unused.is_empty() {
                    notes.push(format!(
                        "{}: {} tensors are no part of the encoder and are not used: {}",
                        folder.display(),
                        report.unused.len(),
                        report.unused.join(", ")
                    ));
                }
            }
        }
        model
    };
    Ok((freeze(parameters::trainable(model), config, true), notes))
}

/// Stops the gradients of what the config freezes. An encoder that is frozen as a whole then runs without dropout,
/// `SpecAugment` and layer drop, if `in_evaluation`.
pub fn freeze<B: TrainOps>(model: Model<Autodiff<B>>, config: &Config, in_evaluation: bool) -> Model<Autodiff<B>> {
    let text = |encoder: TextEncoder<Autodiff<B>>| {
        if config.text.freeze { encoder.no_grad() } else { encoder.freeze_layers(config.text.freeze_layers) }
    };
    let speech = |encoder: SpeechEncoder<Autodiff<B>>| {
        let encoder =
            if config.speech.freeze { encoder.no_grad() } else { encoder.freeze_layers(config.speech.freeze_layers) };
        if config.speech.freeze_feature_encoder == Some(true) { encoder.freeze_feature_encoder() } else { encoder }
    };
    let model = model.with_frozen(in_evaluation && config.text.freeze, in_evaluation && config.speech.freeze);
    model.map_encoders(text, speech)
}
