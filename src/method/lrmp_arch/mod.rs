//! The network of LRMP (Kang et al. 2022) as it is fine-tuned, with encoders of its own in the place of `RoBERTa` and
//! wav2vec 2.0 (`scripts/lrmp_torch.py`). Its pre-training is no part of this, so that its results are not LRMP's:
//! the method is called `lrmp-arch`. Of `[text]` it needs the tokenizer and the size of its vocabulary.

pub mod features;
pub mod network;

#[cfg(test)]
mod tests;

use burn::{
    module::Module,
    tensor::{Tensor, activation, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{Contrasted, Encoded, HeadMethod, Logits, Misfit, ModelSizes, Options, Output, Reads, Sizes, Term, Terms};
use crate::{
    encoder::Inputs,
    keys::{Key, Kind, Values, at_least, section},
    loss::{LossConfig, Targets, cross_entropy},
    nn::{Init, Linear},
    ops::{self, Mode, Ops},
};
use network::{Given, Translator};

section! {
    /// `[model.lrmp-arch]`, with the published values.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct LrmpOptions("model.lrmp-arch", sizes: ModelSizes) {
        /// width of the states
        width: usize [at_least(1)] = 768;
        /// attention heads; divides the width
        attention_heads: usize [at_least(1)] = 12;
        /// width inside a feed-forward block
        feed_forward: usize [at_least(1)] = 3072;
        /// layers of each encoder and decoder
        layers: usize [at_least(1)] = 3;
        /// width of a token's own vector
        embedding: usize [at_least(1)] = 128;
        /// tokens of the vocabulary
        vocab_size: usize [at_least(1)] = sizes.vocabulary, "the tokenizer's";
        /// the most tokens
        text_positions: usize [at_least(3)] = 512;
        /// the most frames of 12.5 ms; those behind are left out
        speech_positions: usize [at_least(1)] = 3000;
        /// dropout in the layers
        dropout: f64 [Kind::Dropout] = 0.1;
        /// dropout in the classifier
        head_dropout: f64 [Kind::Dropout] = 0.2;
    }
}

impl Options for LrmpOptions {
    const READS: Reads = Reads::Both;
    const TERMS: &'static [&'static str] = &["task_fusion"];
    const KEYS: &'static [Key] = Self::KEYS;
    const ENCODERS: bool = false;

    fn read_from(values: &dyn Values, sizes: ModelSizes) -> Self {
        Self::read(values, sizes)
    }

    fn check(&self, _: usize) -> Result<(), Misfit> {
        Misfit::unless_positive(&[
            ("feed_forward", self.feed_forward),
            ("layers", self.layers),
            ("embedding", self.embedding),
            ("vocab_size", self.vocab_size),
            ("text_positions", self.text_positions),
            ("speech_positions", self.speech_positions),
        ])?;
        Misfit::unless_divides("attention_heads", self.attention_heads, "model.lrmp-arch.width", self.width)
    }

    fn vocabulary(&self) -> Option<usize> {
        Some(self.vocab_size)
    }

    fn layers(&self) -> usize {
        self.layers
    }

    fn max_tokens(&self) -> usize {
        self.text_positions
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
    pub fn of(&self, inputs: &Inputs, mode: Mode<'_>, device: &B::Device) -> LrmpOutput<B> {
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

impl<B: Ops> HeadMethod<B> for LrmpArch<B> {
    type Options = LrmpOptions;
    type Output = LrmpOutput<B>;

    fn new(options: &LrmpOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        let width = options.width;
        Self {
            speech_to_text: Translator::to_text(options, init),
            text_to_speech: Translator::to_speech(options, init),
            joint_head: [(2 * width, width), (width, width), (width, sizes.labels)]
                .map(|(input, output)| Linear::uniform(input, output, init))
                .into(),
            head_dropout: options.head_dropout,
            speech_positions: options.speech_positions,
        }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> LrmpOutput<B> {
        self.of(encoded.inputs(), mode, &self.joint_head[0].weight.device())
    }
}

impl<B: Backend> Output<B> for LrmpOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits::only("logits_fusion", self.logits.clone())
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        vec![
            ("text_decoded", self.text_decoded.clone()),
            ("speech_decoded", self.speech_decoded.clone()),
            ("fused", self.fused.clone()),
        ]
    }

    fn losses(&self, _: Option<Contrasted<B>>, targets: &Targets, _: &LossConfig) -> Terms<B> {
        Terms::sum(Term::mean("task_fusion", 1.0, cross_entropy(self.logits.clone(), targets)), [])
    }
}
