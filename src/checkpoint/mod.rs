//! Checkpoint folders: `model.safetensors` and `config.json` that `PyTorch` loads without this program, with the
//! tokenizer's and the feature extractor's files beside them (docs/formats.md).

pub mod feature_extractor;
pub mod folder;
pub mod names;
pub mod parameters;
mod pickle;
pub mod published;
mod pytorch;
mod safetensors;
pub mod source;
pub mod sums;
mod tensors;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::{module::Module, tensor::backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::LossConfig,
    encoder::{EncoderError, RobertaConfig, SpeechEncoderConfig},
    method::Method,
    model::{Architecture, Model, ModelConfig},
    ops::Ops,
};
use feature_extractor::FeatureExtractor;
use source::TensorSource;
pub use tensors::{LazyTensor, save_module, write_tensors};

/// The weights and the config of a checkpoint.
pub const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";

/// The format of `config.json` that this program reads and writes.
pub const FORMAT: &str = "clasp-1";

/// A checkpoint or an encoder folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file that cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    /// A file that cannot be written.
    #[error("cannot write {}: {cause}", path.display())]
    Write { path: PathBuf, cause: std::io::Error },
    /// A folder without weights.
    #[error(
        "{} holds no weights: put model.safetensors or pytorch_model.bin (or its shards with their index) there",
        folder.display()
    )]
    NoWeights { folder: PathBuf },
    /// A file that is cut or not what its name says.
    #[error("{} is damaged: {problem}; copy it again", path.display())]
    Damaged { path: PathBuf, problem: String },
    /// A file that is another one than was saved.
    #[error(
        "{} is not as it was saved (SHA-256); copy the folder again, or, where it was changed on purpose, remove its line \
         from SHA256SUMS beside it",
        path.display()
    )]
    Changed { path: PathBuf },
    /// A `config.json` with a wrong or missing value.
    #[error("{}: {problem}", path.display())]
    Config {
        path: PathBuf,
        /// What is wrong with which key.
        problem: String,
    },
    /// Tensors that do not fit the config.
    #[error("{}: its tensors do not fit its config.json: {mismatch}", path.display())]
    Mismatch { path: PathBuf, mismatch: Mismatch },
    /// An encoder that cannot be built.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
}

/// How the tensors of a file differ from those that are expected.
#[derive(Clone, Debug, Default)]
pub struct Mismatch {
    /// Expected and not there.
    pub missing: Vec<String>,
    /// There and not expected.
    pub unexpected: Vec<String>,
    /// Of another shape: name, expected, found.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Compares names and shapes.
    pub fn between(expected: &BTreeMap<String, Vec<usize>>, source: &TensorSource) -> Self {
        let mut mismatch = Self::default();
        let found: BTreeMap<&str, Vec<usize>> = source.shapes().collect();
        for (name, shape) in expected {
            match found.get(name.as_str()) {
                None => mismatch.missing.push(name.clone()),
                Some(other) if other != shape => {
                    mismatch.misshapen.push((name.clone(), shape.clone(), other.clone()));
                }
                Some(_) => {}
            }
        }
        mismatch.unexpected =
            found.keys().filter(|name| !expected.contains_key(**name)).map(|&name| name.to_owned()).collect();
        mismatch
    }

    /// What all names of the file have in front, where that alone makes them others.
    fn common_prefix(&self) -> Option<&str> {
        let first = self.missing.iter().max_by_key(|name| name.len())?;
        let prefix = self.unexpected.iter().find_map(|name| name.strip_suffix(first.as_str()))?;
        let is_there = |name: &String| self.unexpected.contains(&format!("{prefix}{name}"));
        (prefix.ends_with('.') && self.missing.iter().all(is_there)).then_some(prefix)
    }

    fn into_result(self, files: &[PathBuf]) -> Result<(), CheckpointError> {
        if self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty() {
            return Ok(());
        }
        Err(CheckpointError::Mismatch { path: files.first().cloned().unwrap_or_default(), mismatch: self })
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let misshapen: Vec<String> = self
            .misshapen
            .iter()
            .map(|(name, expected, found)| format!("{name} is {found:?} and should be {expected:?}"))
            .collect();
        if let Some(prefix) = self.common_prefix() {
            return write!(
                formatter,
                "its names begin with {prefix:?}, as those of a module that wraps the model do; \
                           save the model itself"
            );
        }
        let parts = [("missing", &self.missing), ("of another shape", &misshapen), ("not expected", &self.unexpected)];
        let mut separator = "";
        for (what, items) in parts {
            if !items.is_empty() {
                write!(formatter, "{separator}{} {what}: {}", items.len(), items.join(", "))?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

/// `config.json` of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckpointConfig {
    pub format: String,
    pub method: String,
    /// The labels in the order of the logits.
    pub labels: Vec<String>,
    /// Sizes and dropouts beside the encoders.
    #[serde(flatten)]
    pub architecture: Architecture,
    /// The losses it was trained with.
    pub loss: LossConfig,
    /// The text encoder's Hugging Face config; null where the method reads no text.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub text_encoder: Value,
    /// The speech encoder's Hugging Face config; null where the method reads no speech.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub speech_encoder: Value,
    /// What is done to a waveform first: a file of its own.
    #[serde(skip)]
    pub feature_extractor: FeatureExtractor,
    /// The most tokens of a text; longer texts are cut.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// The most seconds of an utterance; longer ones are cut.
    #[serde(default)]
    pub max_seconds: Option<f64>,
}

impl CheckpointConfig {
    /// Reads `config.json` of a checkpoint folder.
    ///
    /// # Errors
    /// The file is missing, damaged, of another format, or states something that cannot be built.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join("config.json");
        let json = published::read_config(folder)?;
        let problem = |problem: String| CheckpointError::Config { path: path.clone(), problem };
        match json.get("format").and_then(Value::as_str) {
            Some(FORMAT) => {}
            Some(other) => return Err(problem(format!("format is {other:?}; this program reads {FORMAT:?}"))),
            None => {
                return Err(problem(format!(
                    "it has no `format`: this is no checkpoint of clasp ({FORMAT:?}); an encoder's folder goes into \
                     text.checkpoint or speech.checkpoint of a config"
                )));
            }
        }
        let mut config: Self = serde_json::from_value(json.clone()).map_err(|source| problem(source.to_string()))?;
        let Some(method) = Method::from_word(&config.method) else {
            let known = Method::WORDS.join(", ");
            return Err(problem(format!("method {:?} is not in this version, which has {known}", config.method)));
        };
        for (key, is_needed) in [
            ("text_encoder", method.encodes_text()),
            ("speech_encoder", method.encodes_speech()),
            (Method::Clasp.field(), method == Method::Clasp),
        ] {
            if is_needed && json.get(key).is_none() {
                return Err(problem(format!("missing field `{key}`")));
            }
        }
        if method.encodes_speech() {
            let encoder = SpeechEncoderConfig::from_json(&config.speech_encoder);
            config.feature_extractor =
                FeatureExtractor::read(folder, &encoder.map_err(|source| problem(source.to_string()))?)?;
        }
        let field = method.field();
        let own = json.get(field).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        config.architecture.options =
            method.options_from(own).map_err(|source| problem(format!("{field}: {source}")))?;
        config.model().map_err(|source| problem(source.to_string()))?;
        let temperature = config.loss.temperature;
        if temperature.is_nan() || temperature <= 0.0 {
            return Err(problem(format!("loss.temperature = {temperature} must be above 0")));
        }
        crate::data::labels::Labels::new(config.labels.clone()).map_err(|source| problem(source.to_string()))?;
        if config.max_tokens.is_some_and(|tokens| tokens < 2) || config.max_seconds.is_some_and(|most| most < 0.025) {
            return Err(problem("max_tokens must be 2 or more and max_seconds 0.025 or more".into()));
        }
        Ok(config)
    }

    /// The typed form.
    ///
    /// # Errors
    /// An encoder or a fusion that cannot be built.
    pub fn model(&self) -> Result<ModelConfig, EncoderError> {
        let method = Method::from_word(&self.method).unwrap_or(Method::Clasp);
        let (text, speech) = (method.encodes_text(), method.encodes_speech());
        let config = ModelConfig {
            method,
            labels: self.labels.clone(),
            architecture: self.architecture.clone(),
            text_encoder: text.then(|| RobertaConfig::from_json(&self.text_encoder)).transpose()?,
            speech_encoder: speech.then(|| SpeechEncoderConfig::from_json(&self.speech_encoder)).transpose()?,
        };
        config.check()?;
        Ok(config)
    }

    /// As it is written: with the method's options under its name, and of the losses no more than it has.
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::json!(self);
        if let Value::Object(keys) = &mut json
            && self.method != Method::Clasp.word()
        {
            let options = keys.shift_remove(Method::Clasp.field()).unwrap_or_default();
            if let Some(Value::Object(loss)) = keys.get_mut("loss") {
                loss.retain(|key, _| ["class_weights", "label_smoothing"].contains(&key.as_str()));
            }
            if options.as_object().is_some_and(|options| !options.is_empty()) {
                keys.insert(self.method.clone(), options);
            }
        }
        json
    }
}

/// A checkpoint that was loaded.
#[derive(Debug)]
pub struct Checkpoint<B: Backend> {
    pub config: CheckpointConfig,
    /// The typed form of the config.
    pub model_config: ModelConfig,
    pub model: Model<B>,
}

/// Loads a checkpoint folder. Every tensor must be there, of its shape, and no other.
///
/// # Errors
/// See [`CheckpointConfig::read`]; tensors that do not fit, all of them listed.
pub fn load<B: Ops>(folder: &Path, device: &B::Device) -> Result<Checkpoint<B>, CheckpointError> {
    load_with(CheckpointConfig::read(folder)?, folder, device)
}

/// The same where the config was read before.
///
/// # Errors
/// Tensors that do not fit, all of them listed.
pub fn load_with<B: Ops>(
    config: CheckpointConfig,
    folder: &Path,
    device: &B::Device,
) -> Result<Checkpoint<B>, CheckpointError> {
    let model_config = config.model()?;
    let path = folder.join(WEIGHTS);
    // Before the modules are made, which this many of them would take the memory for.
    TensorSource::open_file(&path)?.check_layers(model_config.layers())?;
    // The one is as fast as memory or disk, the other as a thread.
    let (model, checked) = rayon::join(
        || load_parameters(Model::empty(&model_config, device), &path),
        || sums::check(folder, |name| [WEIGHTS, CONFIG, feature_extractor::FILE].contains(&name)),
    );
    let model = model?;
    checked?;
    Ok(Checkpoint { config, model_config, model })
}

/// Fills a module from a file of this program's own names, strictly.
///
/// # Errors
/// A missing or damaged file; tensors that do not fit, all of them listed.
pub fn load_parameters<B: Backend, M: Module<B>>(module: M, path: &Path) -> Result<M, CheckpointError> {
    load_parameters_but(module, path, |_| false)
}

/// The same, but for tensors that may be missing or too many.
///
/// # Errors
/// See [`load_parameters`].
pub fn load_parameters_but<B: Backend, M: Module<B>>(
    module: M,
    path: &Path,
    is_optional: impl Fn(&str) -> bool,
) -> Result<M, CheckpointError> {
    let source = TensorSource::open_file(path)?;
    let mut mismatch = Mismatch::between(&parameters::shapes(&module), &source);
    mismatch.missing.retain(|name| !is_optional(name));
    mismatch.unexpected.retain(|name| !is_optional(name));
    mismatch.into_result(source.files())?;
    parameters::fill_from(module, &source, |name| Some(name))
}

/// Writes a whole checkpoint into an empty folder: weights, config and, where speech is read, the feature extractor's
/// file. The tokenizer's files are the caller's.
///
/// # Errors
/// A file that cannot be written.
pub fn save<B: Backend, M: Module<B>>(
    model: &M,
    config: &CheckpointConfig,
    folder: &Path,
) -> Result<(), CheckpointError> {
    save_module(model, &folder.join("model.safetensors"))?;
    write_json(&folder.join("config.json"), &config.to_json())?;
    if config.speech_encoder.is_null() {
        return Ok(());
    }
    write_json(&folder.join(feature_extractor::FILE), &config.feature_extractor.to_json())
}

fn write_json(path: &Path, value: &Value) -> Result<(), CheckpointError> {
    let text = format!("{value:#}\n");
    std::fs::write(path, text).map_err(|cause| CheckpointError::Write { path: path.into(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_of_a_config_panic() {
        let folder = tempfile::tempdir().unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let goods = ["parity/group-norm", "loading/roberta-f16", "loading/wav2vec2-group-f16"]
            .map(|name| std::fs::read(fixtures.join(name).join("config.json")).unwrap());
        crate::damage::each(&goods, 1_000, |bytes| {
            std::fs::write(folder.path().join("config.json"), bytes).unwrap();
            let _ = CheckpointConfig::read(folder.path()).map_err(|error| error.to_string());
            if let Ok(config) = published::read_config(folder.path()) {
                let _ = RobertaConfig::from_json(&config).map_err(|error| error.to_string());
                let _ = SpeechEncoderConfig::from_json(&config).map_err(|error| error.to_string());
            }
        });
    }
}
