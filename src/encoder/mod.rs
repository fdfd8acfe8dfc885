//! The two pre-trained encoders: `RoBERTa` for text and wav2vec 2.0 for speech, in the shapes that their Hugging Face
//! `config.json` states.

pub mod layer;
pub mod roberta;
pub mod spec_augment;
pub mod wav2vec2;
mod wav2vec2_config;

use burn::tensor::{Tensor, backend::Backend};

use crate::ops::Lengths;

pub use roberta::{RobertaConfig, TextEncoder};
pub use wav2vec2::SpeechEncoder;
pub use wav2vec2_config::Wav2Vec2Config;

/// The largest size that a config may state: what is larger is a damaged file, not a model.
const MOST: usize = 1_000_000;

/// An encoder's `config.json` that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// A value that asks for something that this program does not have.
    #[error("{encoder} config: {key} = {found} is not supported; it must be {supported}")]
    Unsupported {
        /// Which encoder's config.
        encoder: &'static str,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is supported.
        supported: &'static str,
    },
    /// Values that contradict each other or are out of range.
    #[error("{encoder} config: {problem}")]
    Invalid {
        /// Which encoder's config.
        encoder: &'static str,
        /// What is wrong and with which key.
        problem: String,
    },
    /// A value of the wrong type.
    #[error("{encoder} config: {source}")]
    Json {
        /// Which encoder's config.
        encoder: &'static str,
        /// What the JSON reader found.
        source: serde_json::Error,
    },
}

/// The hidden states of a batch and which of them are real.
#[derive(Clone, Debug)]
pub struct Encoded<B: Backend> {
    /// [batch * time, hidden]
    pub hidden: Tensor<B, 2>,
    /// The valid positions of each example.
    pub lengths: Lengths,
}

impl<B: Backend> Encoded<B> {
    /// The first position of each example: [batch, hidden].
    #[must_use]
    pub fn first(self) -> Tensor<B, 2> {
        let [_, width] = self.hidden.dims();
        let (batch, time) = (self.lengths.batch(), self.lengths.longest());
        self.hidden.reshape([batch, time, width]).narrow(1, 0, 1).reshape([batch, width])
    }

    /// The mean over the valid positions of each example: [batch, hidden].
    #[must_use]
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
