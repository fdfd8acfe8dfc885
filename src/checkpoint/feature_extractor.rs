//! The feature extractor of a speech encoder: what its folder says is done to a waveform before the encoder hears it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{CheckpointError, published::read_json};
use crate::{
    data::SAMPLE_RATE,
    encoder::{FeatureExtractorKind, SpeechEncoderConfig},
};

const WAVEFORM: &str = "Wav2Vec2FeatureExtractor";
const LOG_MEL: &str = "WhisperFeatureExtractor";

/// The file, in an encoder's folder and in a checkpoint.
pub const FILE: &str = "preprocessor_config.json";

/// Where newer versions of transformers put the same, under `feature_extractor`; it takes precedence there.
const PROCESSOR_FILE: &str = "processor_config.json";

/// What a speech encoder's folder says, with all that nothing here reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureExtractor {
    values: Map<String, Value>,
    /// Whether waveforms are normalised where the file does not say.
    normalizes: bool,
}

impl Default for FeatureExtractor {
    /// That of wav2vec 2.0.
    fn default() -> Self {
        let config = json!({
            "do_normalize": true,
            "feature_extractor_type": WAVEFORM,
            "feature_size": 1,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": true,
            "sampling_rate": SAMPLE_RATE,
        });
        Self { values: config.as_object().cloned().unwrap_or_default(), normalizes: true }
    }
}

impl FeatureExtractor {
    /// The one that an encoder has where no file says.
    pub fn of(encoder: &SpeechEncoderConfig) -> Self {
        let FeatureExtractorKind::LogMel { bins, samples } = encoder.feature_extractor() else {
            return Self::default();
        };
        let config = json!({
            "chunk_length": samples / SAMPLE_RATE as usize,
            "do_normalize": false,
            "feature_extractor_type": LOG_MEL,
            "feature_size": bins,
            "hop_length": 160,
            "n_fft": 400,
            "n_samples": samples,
            "nb_max_frames": samples / 160,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": false,
            "sampling_rate": SAMPLE_RATE,
        });
        Self { values: config.as_object().cloned().unwrap_or_default(), normalizes: false }
    }

    /// Reads that of an encoder's folder; one without the file has the usual one.
    ///
    /// # Errors
    /// The file cannot be read, or asks for what is not done here.
    pub fn read(folder: &Path, encoder: &SpeechEncoderConfig) -> Result<Self, CheckpointError> {
        let processor = folder.join(PROCESSOR_FILE);
        let (path, config) = if processor.exists()
            && let Some(Value::Object(config)) = read_json(&processor)?.remove("feature_extractor")
        {
            (processor, config)
        } else {
            let path = folder.join(FILE);
            if !path.exists() {
                return Ok(Self::of(encoder));
            }
            let config = read_json(&path)?;
            (path, config)
        };
        let normalizes = encoder.feature_extractor() == FeatureExtractorKind::Waveform;
        Self { values: config, normalizes }.checked(&path, encoder)
    }

    /// Whether each waveform is given mean 0 and variance 1.
    pub fn do_normalize(&self) -> bool {
        self.values.get("do_normalize").and_then(Value::as_bool).unwrap_or(self.normalizes)
    }

    /// As it is written.
    pub fn to_json(&self) -> Value {
        Value::Object(self.values.clone())
    }

    fn checked(self, path: &Path, encoder: &SpeechEncoderConfig) -> Result<Self, CheckpointError> {
        let refuse = |key: &str, value: &Value, only: &str| CheckpointError::Config {
            path: path.to_owned(),
            problem: format!("{key} = {value} is not supported; it must be {only}"),
        };
        let stated = |key: &str| self.values.get(key).filter(|value| !value.is_null());
        let (kind, sizes) = match encoder.feature_extractor() {
            FeatureExtractorKind::Waveform => (WAVEFORM, vec![("feature_size", 1)]),
            FeatureExtractorKind::LogMel { bins, samples } => {
                let sizes = [("feature_size", bins), ("n_samples", samples), ("n_fft", 400), ("hop_length", 160)];
                (LOG_MEL, sizes.to_vec())
            }
        };
        if let Some(other) = stated("feature_extractor_type").filter(|stated| *stated != kind) {
            return Err(refuse("feature_extractor_type", other, kind));
        }
        if let Some(value) = stated("do_normalize").filter(|value| !value.is_boolean()) {
            return Err(refuse("do_normalize", value, "true or false"));
        }
        for (key, only) in [("sampling_rate", SAMPLE_RATE as usize)].into_iter().chain(sizes) {
            if let Some(value) = stated(key).filter(|value| value.as_f64() != Some(to_number(only))) {
                return Err(refuse(key, value, &only.to_string()));
            }
        }
        if let Some(value) = stated("dither").filter(|value| value.as_f64() != Some(0.0)) {
            return Err(refuse("dither", value, "0.0"));
        }
        Ok(self)
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are small")]
fn to_number(size: usize) -> f64 {
    size as f64
}
