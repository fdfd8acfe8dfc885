//! The pre-trained encoders: `RoBERTa` and its kin for text, wav2vec 2.0 and its kin or Whisper for speech, of the family
//! (`model_type`) and in the shapes that their Hugging Face `config.json` states.

mod inputs;
pub mod layer;
pub mod roberta;
pub mod spec_augment;
pub mod speech;
pub mod wav2vec2;
mod wav2vec2_config;
mod wavlm;
pub mod whisper;

use burn::tensor::{Tensor, backend::Backend};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::ops::Lengths;

pub use inputs::{Frames, Inputs, Speech};
pub use roberta::{RobertaConfig, TextEncoder};
pub use speech::{FeatureExtractorKind, SpeechConfig, SpeechEncoder, SpeechEncoderConfig};
pub use wav2vec2_config::Wav2Vec2Config;

/// The largest size that a config may state: what is larger is a damaged file, not a model.
const MOST: usize = 1_000_000;

/// An encoder's `config.json` that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// A value that asks for something that this program does not have.
    #[error("{encoder} config: {key} = {found} is not supported; it must be {supported}")]
    Unsupported { encoder: &'static str, key: &'static str, found: String, supported: &'static str },
    /// Values that contradict each other or are out of range.
    #[error("{encoder} config: {problem}")]
    Invalid {
        encoder: &'static str,
        /// What is wrong and with which key.
        problem: String,
    },
    /// A value of the wrong type.
    #[error("{encoder} config: {key}: {cause}")]
    Json {
        encoder: &'static str,
        key: String,
        /// What the JSON reader found.
        cause: serde_json::Error,
    },
}

/// The family of a `config.json`; without `model_type` it is the first.
///
/// # Errors
/// One that is not here.
fn family_of<'a>(encoder: &'static str, json: &'a Value, families: &[&'a str]) -> Result<&'a str, EncoderError> {
    match json.get("model_type") {
        None => Ok(families[0]),
        Some(Value::String(family)) if families.contains(&family.as_str()) => Ok(family),
        Some(family) => {
            let family = family.as_str().map_or_else(|| family.to_string(), str::to_owned);
            let problem = format!("model_type = {family} is not supported; it must be one of {}", families.join(", "));
            Err(EncoderError::Invalid { encoder, problem })
        }
    }
}

/// Reads the keys that an encoder has from its `config.json`.
fn read_keys<C: DeserializeOwned>(encoder: &'static str, json: &Value) -> Result<C, EncoderError> {
    serde_json::from_value(json.clone()).map_err(|source| {
        // The reader does not say which value it is; each is tried alone.
        let is_wrong = |key: &str, value: &Value| serde_json::from_value::<C>(json!({ key: value })).is_err();
        let wrong = json.as_object().and_then(|keys| keys.iter().find(|(key, value)| is_wrong(key, value)));
        EncoderError::Json {
            encoder,
            key: wrong.map_or_else(|| "the whole".into(), |(key, _)| key.clone()),
            cause: source,
        }
    })
}

/// Checks dropouts and the like.
///
/// # Errors
/// One that is not from 0 up to, but without, 1.
pub fn check_below_one(encoder: &'static str, values: &[(&str, f64)]) -> Result<(), EncoderError> {
    match values.iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
        None => Ok(()),
        Some((key, value)) => {
            let problem = format!("{key} = {value} must be from 0 up to, but without, 1");
            Err(EncoderError::Invalid { encoder, problem })
        }
    }
}

/// Checks what is added to a variance.
fn check_epsilon(encoder: &'static str, value: f64) -> Result<(), EncoderError> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(EncoderError::Invalid { encoder, problem: format!("layer_norm_eps = {value} must be above 0") })
}

/// Which hidden states of an encoder are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The last layer's.
    Last,
    /// Those behind this many layers; 0 is in front of them. What lies above does not run.
    One(usize),
    /// The last layer's and, beside them, all.
    All,
}

/// The hidden states of a batch and which of them are real.
#[derive(Clone, Debug)]
pub struct Encoded<B: Backend> {
    /// [batch * time, hidden]: the last layer's or the one that was wanted.
    pub hidden: Tensor<B, 2>,
    /// Where all are wanted: those in front of the layers, then each layer's, as `hidden_states` of transformers.
    pub states: Vec<Tensor<B, 2>>,
    /// The valid positions of each example.
    pub lengths: Lengths,
}

impl<B: Backend> Encoded<B> {
    /// The first position of each example: [batch, hidden].
    pub fn first(self) -> Tensor<B, 2> {
        let [_, width] = self.hidden.dims();
        let (batch, time) = (self.lengths.batch(), self.lengths.longest());
        self.hidden.reshape([batch, time, width]).narrow(1, 0, 1).reshape([batch, width])
    }

    /// The mean over the valid positions of each example: [batch, hidden].
    pub fn mean(self) -> Tensor<B, 2> {
        let [_, width] = self.hidden.dims();
        let (batch, time) = (self.lengths.batch(), self.lengths.longest());
        let device = self.hidden.device();
        let hidden = self.hidden.reshape([batch, time, width]);
        let valid = if self.lengths.is_full() {
            hidden
        } else {
            hidden * self.lengths.mask::<B>(&device).reshape([batch, time, 1])
        };
        valid.sum_dim(1).reshape([batch, width]) / self.lengths.counts::<B>(&device).reshape([batch, 1])
    }
}

/// [batch, frames, width] with zeros behind the valid frames.
fn zero_padding<B: Backend>(x: Tensor<B, 3>, lengths: &Lengths) -> Tensor<B, 3> {
    if lengths.is_full() {
        return x;
    }
    let [batch, frames, _] = x.dims();
    let mask = lengths.mask::<B>(&x.device()).reshape([batch, frames, 1]);
    x * mask
}

/// [batch, time, channels] -> [batch, frames, channels], with zeros behind what there was.
fn with_zeros<B: Backend>(x: Tensor<B, 3>, frames: usize) -> Tensor<B, 3> {
    let [batch, time, channels] = x.dims();
    if time == frames {
        return x;
    }
    let zeros = Tensor::zeros([batch, frames - time, channels], (&x.device(), x.dtype()));
    Tensor::cat(vec![x, zeros], 1)
}

/// Runs an encoder's layers on `hidden` and keeps what is wanted; `last` is applied behind the last of them.
fn through_layers<B: Backend, L>(
    layers: &[L],
    mut hidden: Tensor<B, 2>,
    wanted: Wanted,
    mut run: impl FnMut(usize, &L, Tensor<B, 2>) -> Tensor<B, 2>,
    last: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>,
) -> (Tensor<B, 2>, Vec<Tensor<B, 2>>) {
    let mut states = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        match wanted {
            Wanted::One(layer) if layer == number => return (hidden, states),
            Wanted::All => states.push(hidden.clone()),
            _ => {}
        }
        hidden = run(number, layer, hidden);
    }
    hidden = last(hidden);
    if wanted == Wanted::All {
        states.push(hidden.clone());
    }
    (hidden, states)
}

#[cfg(test)]
mod tests {
    use burn::backend::{Flex, flex::FlexDevice};

    use super::*;

    #[test]
    fn frames_of_zeros_come_behind_the_others() {
        let x = Tensor::<Flex, 3>::from_floats([[[1.0, 2.0]], [[3.0, 4.0]]], &FlexDevice);
        let wide = with_zeros(x.clone(), 2).into_data().to_vec::<f32>().unwrap();
        assert_eq!(wide, [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0]);
        assert_eq!(with_zeros(x, 1).dims(), [2, 1, 2]);
    }

    /// PyTorch refuses dropouts that are no probabilities; a variance needs something above 0.
    #[test]
    fn what_a_config_cannot_state_names_its_key() {
        let text = |config: Value| RobertaConfig::from_json(&config).map(|_| ());
        let speech = |config: Value| SpeechEncoderConfig::from_json(&config).map(|_| ());
        for (result, words) in [
            (text(json!({ "is_decoder": true })), "text encoder config: is_decoder = true is not supported"),
            (text(json!({ "add_cross_attention": true })), "add_cross_attention = true is not supported"),
            (text(json!({ "hidden_size": 768, "bos_token_id": null })), "bos_token_id: invalid type: null"),
            (text(json!({ "hidden_dropout_prob": 1.0 })), "hidden_dropout_prob = 1 must be"),
            (text(json!({ "layer_norm_eps": -1.0 })), "layer_norm_eps = -1 must be above 0"),
            (text(json!({ "num_attention_heads": 5 })), "num_attention_heads = 5 must divide hidden_size = 768"),
            (speech(json!({ "conv_dim": 5 })), "speech encoder config: conv_dim: invalid type"),
            (speech(json!({ "attention_dropout": -0.5 })), "attention_dropout = -0.5 must be"),
            (speech(json!({ "layerdrop": 1.0 })), "layerdrop = 1 must be"),
            (speech(json!({ "mask_time_prob": -1.0 })), "mask_time_prob = -1 must be from 0 to 1"),
            (speech(json!({ "layer_norm_eps": 0.0 })), "layer_norm_eps = 0 must be above 0"),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        assert!(text(json!({ "is_decoder": false })).is_ok() && speech(json!({ "mask_time_prob": 1.0 })).is_ok());
    }
}
