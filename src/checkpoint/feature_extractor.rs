//! The feature extractor of a speech encoder: what its folder says is done to a waveform before the encoder hears it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{CheckpointError, published::read_json};
use crate::data::SAMPLE_RATE;

/// The file, in an encoder's folder and in a checkpoint.
pub const FILE: &str = "preprocessor_config.json";

/// Where newer versions of transformers put the same, under `feature_extractor`; it takes precedence there.
const PROCESSOR_FILE: &str = "processor_config.json";

/// What a speech encoder's folder says, with all that nothing here reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureExtractor(Map<String, Value>);

impl Default for FeatureExtractor {
    /// That of wav2vec 2.0, where a folder does not say.
    fn default() -> Self {
        let config = json!({
            "do_normalize": true,
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": true,
            "sampling_rate": SAMPLE_RATE,
        });
        Self(config.as_object().cloned().unwrap_or_default())
    }
}

impl FeatureExtractor {
    /// Reads that of a folder; one without the file has the usual one.
    ///
    /// # Errors
    /// The file cannot be read, or asks for what is not done here.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let processor = folder.join(PROCESSOR_FILE);
        if processor.exists()
            && let Some(Value::Object(config)) = read_json(&processor)?.remove("feature_extractor")
        {
            return Self(config).checked(&processor);
        }
        let path = folder.join(FILE);
        if path.exists() { Self(read_json(&path)?).checked(&path) } else { Ok(Self::default()) }
    }

    /// Whether each waveform is given mean 0 and variance 1.
    pub fn do_normalize(&self) -> bool {
        self.0.get("do_normalize").and_then(Value::as_bool).unwrap_or(true)
    }

    /// As it is written.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    fn checked(self, path: &Path) -> Result<Self, CheckpointError> {
        let refuse = |key: &str, value: &Value, only: &str| CheckpointError::Config {
            path: path.to_owned(),
            problem: format!("{key} = {value} is not supported; it must be {only}"),
        };
        let stated = |key: &str| self.0.get(key).filter(|value| !value.is_null());
        if let Some(kind) = stated("feature_extractor_type").filter(|kind| *kind != "Wav2Vec2FeatureExtractor") {
            return Err(refuse("feature_extractor_type", kind, "Wav2Vec2FeatureExtractor"));
        }
        if let Some(value) = stated("do_normalize").filter(|value| !value.is_boolean()) {
            return Err(refuse("do_normalize", value, "true or false"));
        }
        for (key, only) in [("sampling_rate", SAMPLE_RATE.into()), ("feature_size", 1.0)] {
            if let Some(value) = stated(key).filter(|value| value.as_f64() != Some(only)) {
                return Err(refuse(key, value, &only.to_string()));
            }
        }
        Ok(self)
    }
}
