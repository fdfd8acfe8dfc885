//! The network of LRMP (Kang et al. 2022) as it is fine-tuned, with encoders of its own in the place of `RoBERTa` and
//! wav2vec 2.0 (`scripts/lrmp_torch.py`). Its pre-training is no part of this, so that its results are not LRMP's:
//! the method is called `lrmp-arch`.

pub mod features;
pub mod network;

#[cfg(test)]
mod tests;

use burn::{
    module::Module,
    tensor::{Tensor, activation, backend::Backend},
};
use serde::{Deserialize, Serialize};

use crate::{
    model::Inputs,
    nn::{Init, Linear},
    ops::{self, Mode, Ops},
};
use network::{Given, Translator};

/// `[model.lrmp-arch]`, with the published values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LrmpOptions {
    /// Width of the states.
    pub width: usize,
    /// Attention heads; divides the width.
    pub attention_heads: usize,
    /// Width inside a feed-forward block.
    pub feed_forward: usize,
    /// Layers of each encoder and decoder.
    pub layers: usize,
    /// Width of a token's own vector.
    pub embedding: usize,
    /// The most tokens.
    pub text_positions: usize,
    /// The most frames of 12.5 ms; those behind are left out.
    pub speech_positions: usize,
    /// Dropout in the layers.
    pub dropout: f64,
    /// Dropout in the classifier.
    pub head_dropout: f64,
}

impl Default for LrmpOptions {
    fn default() -> Self {
        Self {
            width: 768,
            attention_heads: 12,
            feed_forward: 3072,
            layers: 3,
            embedding: 128,
            text_positions: 512,
            speech_positions: 3000,
            dropout: 0.1,
            head_dropout: 0.2,
        }
    }
}

/// The network with its classifier.
#[derive(Module, Debug)]
pub struct LrmpArch<B: Backend> {
    speech_to_text: Translator<B>,
    text_to_speech: Translator<B>,
    joint_head: Vec<Linear<B>>,
    head_dropout: f64,
    speech_positions: usize,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct LrmpOutput<B: Backend> {
    /// The decoded text's vector [batch, width].
    pub text_decoded: Tensor<B, 2>,
    /// The decoded speech's vector [batch, width].
    pub speech_decoded: Tensor<B, 2>,
    /// Both [batch, 2 * width].
    pub fused: Tensor<B, 2>,
    /// [batch, labels]
    pub logits: Tensor<B, 2>,
}

impl<B: Ops> LrmpArch<B> {
    /// A network for a vocabulary and a number of labels.
    pub fn new(options: &LrmpOptions, vocabulary: usize, labels: usize, init: &mut Init<'_, B>) -> Self {
        let width = options.width;
        Self {
            speech_to_text: Translator::to_text(options, vocabulary, init),
            text_to_speech: Translator::to_speech(options, vocabulary, init),
            joint_head: [(2 * width, width), (width, width), (width, labels)]
                .map(|(input, output)| Linear::uniform(input, output, init))
                .into(),
            head_dropout: options.head_dropout,
            speech_positions: options.speech_positions,
        }
    }

    /// The whole forward pass.
    pub fn forward(&self, inputs: &Inputs, mode: Mode<'_>, device: &B::Device) -> LrmpOutput<B> {
        let heard = features::frames(&inputs.waveforms, &inputs.speech_lengths, self.speech_positions);
        let text = (Given::Tokens(&inputs.tokens), &inputs.text_lengths);
        let speech = (Given::Frames(&heard.values), &heard.lengths);
        let text_decoded = self.speech_to_text.forward(speech, text, mode, device);
        let speech_decoded = self.text_to_speech.forward(text, speech, mode, device);
        let fused = Tensor::cat(vec![text_decoded.clone(), speech_decoded.clone()], 1);
        let mut logits = fused.clone();
        for (place, layer) in self.joint_head.iter().enumerate() {
            if place > 0 {
                logits = ops::dropout(activation::relu(logits), mode.dropout(self.head_dropout));
            }
            logits = layer.forward(logits);
        }
        LrmpOutput { text_decoded, speech_decoded, fused, logits }
    }
}
