//! Which parameters a config keeps as they are, by their checkpoint names.

use crate::{config::Config, model::ModelConfig};

/// What does not train. The same as `train::setup::freeze` does to a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Beginnings of the names.
    prefixes: Vec<String>,
}

impl Frozen {
    /// The feature encoder of wav2vec 2.0 alone, as in the paper's runs and in `clasp bench`.
    #[must_use]
    pub fn feature_encoder() -> Self {
        Self { prefixes: vec!["speech_encoder.feature_extractor.".into()] }
    }

    /// What a config freezes.
    #[must_use]
    pub fn of(config: &Config, model: &ModelConfig) -> Self {
        let mut prefixes = Vec::new();
        if config.text.freeze {
            prefixes.push("text_encoder.".to_owned());
        } else if config.text.freeze_layers > 0 {
            prefixes.push("text_encoder.embeddings.".to_owned());
            prefixes.extend((0..config.text.freeze_layers).map(|layer| format!("text_encoder.encoder.layer.{layer}.")));
        }
        if config.speech.freeze {
            prefixes.push("speech_encoder.".to_owned());
        } else if config.speech.freeze_layers > 0 {
            let front = ["feature_extractor.", "feature_projection.", "masked_spec_embed", "encoder.pos_conv_embed."];
            prefixes.extend(front.map(|name| format!("speech_encoder.{name}")));
            if model.speech_encoder.as_ref().is_some_and(|encoder| !encoder.do_stable_layer_norm) {
                prefixes.push("speech_encoder.encoder.layer_norm.".to_owned());
            }
            let layers = 0..config.speech.freeze_layers;
            prefixes.extend(layers.map(|layer| format!("speech_encoder.encoder.layers.{layer}.")));
        } else if config.speech.freeze_feature_encoder {
            return Self { prefixes: [prefixes, Self::feature_encoder().prefixes].concat() };
        }
        Self { prefixes }
    }

    /// Whether a parameter, or all below a name, stay as they are.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}
