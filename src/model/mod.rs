//! CLASP: the whole forward pass on one page (paper, section 3; `scripts/clasp_torch.py`, class `Clasp`).

mod config;
mod fusion;

use burn::{
    module::Module,
    tensor::{Tensor, TensorData, backend::Backend},
};

use crate::{
    config::TextPooling,
    encoder::{SpeechEncoder, TextEncoder},
    nn::{Init, Linear},
    ops::{self, Lengths, Mode, Ops},
};

pub use config::ModelConfig;
pub use fusion::Fusion;

/// A batch of both modalities on the host, padded on the right.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Row-major [batch, tokens].
    pub tokens: Vec<i64>,
    /// Tokens of each example.
    pub text_lengths: Lengths,
    /// Row-major [batch, samples], each normalised over its own samples, zero behind them.
    pub waveforms: Vec<f32>,
    /// Samples of each example.
    pub speech_lengths: Lengths,
}

/// Every representation of a batch, by the words of the specification.
#[derive(Clone, Debug)]
pub struct ClaspOutput<B: Backend> {
    /// `r_t` [batch, hidden]
    pub text: Tensor<B, 2>,
    /// `r_a` [batch, hidden]
    pub speech: Tensor<B, 2>,
    /// `h_t,inv` [batch, hidden]
    pub text_invariant: Tensor<B, 2>,
    /// `h_a,inv` [batch, hidden]
    pub speech_invariant: Tensor<B, 2>,
    /// `h_t,spe` [batch, hidden]
    pub text_specific: Tensor<B, 2>,
    /// `h_a,spe` [batch, hidden]
    pub speech_specific: Tensor<B, 2>,
    /// `r̂_t` [batch, hidden]
    pub text_reconstructed: Tensor<B, 2>,
    /// `r̂_a` [batch, hidden]
    pub speech_reconstructed: Tensor<B, 2>,
    /// [batch, fused size]
    pub fused: Tensor<B, 2>,
    /// [batch, labels]
    pub logits_text: Tensor<B, 2>,
    /// [batch, labels]
    pub logits_speech: Tensor<B, 2>,
    /// [batch, labels]
    pub logits_fusion: Tensor<B, 2>,
}

impl<B: Backend> ClaspOutput<B> {
    /// The twelve tensors with their names, in the order of the specification.
    #[must_use]
    pub fn named(self) -> [(&'static str, Tensor<B, 2>); 12] {
        [
            ("text", self.text),
            ("speech", self.speech),
            ("text_invariant", self.text_invariant),
            ("speech_invariant", self.speech_invariant),
            ("text_specific", self.text_specific),
            ("speech_specific", self.speech_specific),
            ("text_reconstructed", self.text_reconstructed),
            ("speech_reconstructed", self.speech_reconstructed),
            ("fused", self.fused),
            ("logits_text", self.logits_text),
            ("logits_speech", self.logits_speech),
            ("logits_fusion", self.logits_fusion),
        ]
    }
}

/// The maps to the invariant space, shared by both modalities, and to each modality's own.
#[derive(Module, Debug)]
pub struct Projection<B: Backend> {
    invariant: Linear<B>,
    text_specific: Linear<B>,
    speech_specific: Linear<B>,
}

/// The maps back from a specific and the other modality's invariant vector.
#[derive(Module, Debug)]
pub struct Reconstruction<B: Backend> {
    text: Linear<B>,
    speech: Linear<B>,
}

/// One linear classifier each on the text, the speech and the fused vector.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    text: Linear<B>,
    speech: Linear<B>,
    fusion: Linear<B>,
}

/// The maps of encoders whose width is not the model's.
#[derive(Module, Debug)]
pub struct Adapter<B: Backend> {
    text: Option<Linear<B>>,
    speech: Option<Linear<B>>,
}

/// The model.
#[derive(Module, Debug)]
pub struct Clasp<B: Backend> {
    /// `RoBERTa`.
    pub text_encoder: TextEncoder<B>,
    /// wav2vec 2.0.
    pub speech_encoder: SpeechEncoder<B>,
    adapter: Adapter<B>,
    projection: Projection<B>,
    reconstruction: Reconstruction<B>,
    fusion: Fusion<B>,
    classifier: Classifier<B>,
    classifier_dropout: f64,
    #[module(skip)]
    text_pooling: TextPooling,
}

impl<B: Backend> Clasp<B> {
    /// A model with fresh parameters, or empty ones to be filled from a checkpoint.
    pub fn new(config: &ModelConfig, init: &mut Init<'_, B>) -> Self {
        let text_encoder = TextEncoder::new(&config.text_encoder, init);
        let speech_encoder = SpeechEncoder::new(&config.speech_encoder, init);
        Self::with_encoders(config, text_encoder, speech_encoder, init)
    }

    /// A model of given encoders, the rest from `init`.
    pub fn with_encoders(
        config: &ModelConfig,
        text_encoder: TextEncoder<B>,
        speech_encoder: SpeechEncoder<B>,
        init: &mut Init<'_, B>,
    ) -> Self {
        let architecture = &config.architecture;
        let (hidden, labels) = (architecture.hidden_size, config.labels.len());
        let adapter =
            |width: usize, init: &mut Init<'_, B>| (width != hidden).then(|| Linear::uniform(width, hidden, init));
        let fusion = Fusion::new(&architecture.fusion, hidden, init);
        Self {
            text_encoder,
            speech_encoder,
            adapter: Adapter {
                text: adapter(config.text_encoder.hidden_size, init),
                speech: adapter(config.speech_encoder.hidden_size, init),
            },
            projection: Projection {
                invariant: Linear::uniform(hidden, hidden, init),
                text_specific: Linear::uniform(hidden, hidden, init),
                speech_specific: Linear::uniform(hidden, hidden, init),
            },
            reconstruction: Reconstruction {
                text: Linear::uniform(hidden, hidden, init),
                speech: Linear::uniform(hidden, hidden, init),
            },
            classifier: Classifier {
                text: Linear::uniform(hidden, labels, init),
                speech: Linear::uniform(hidden, labels, init),
                fusion: Linear::uniform(architecture.fusion.fused_size(), labels, init),
            },
            fusion,
            classifier_dropout: architecture.classifier_dropout,
            text_pooling: architecture.text_pooling,
        }
    }
}

impl<B: Ops> Clasp<B> {
    /// The whole forward pass.
    pub fn forward(&self, inputs: &Inputs, mode: Mode<'_>, device: &B::Device) -> ClaspOutput<B> {
        let text = self.encode_text(&inputs.tokens, &inputs.text_lengths, mode, device);
        let speech = self.encode_speech(&inputs.waveforms, &inputs.speech_lengths, mode, device);
        self.heads(text, speech, mode)
    }

    /// `r_t`: row-major tokens [batch, tokens] -> [batch, hidden].
    pub fn encode_text(&self, tokens: &[i64], lengths: &Lengths, mode: Mode<'_>, device: &B::Device) -> Tensor<B, 2> {
        let encoded = self.text_encoder.forward(tokens, lengths, mode, device);
        let pooled = match self.text_pooling {
            TextPooling::Cls => encoded.first(),
            TextPooling::Mean => encoded.mean(),
        };
        match &self.adapter.text {
            Some(adapter) => adapter.forward(pooled),
            None => pooled,
        }
    }

    /// `r_a`: row-major samples [batch, samples] -> [batch, hidden].
    pub fn encode_speech(
        &self,
        samples: &[f32],
        lengths: &Lengths,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Tensor<B, 2> {
        let shape = [lengths.batch(), lengths.longest()];
        let waveforms = Tensor::from_data(TensorData::new(samples.to_vec(), shape), device);
        let pooled = self.speech_encoder.forward(waveforms, lengths, mode).mean();
        match &self.adapter.speech {
            Some(adapter) => adapter.forward(pooled),
            None => pooled,
        }
    }

    /// The text classifier alone, where there is no speech: [batch, hidden] -> [batch, labels].
    pub fn classify_text(&self, text: Tensor<B, 2>, mode: Mode<'_>) -> Tensor<B, 2> {
        self.classifier.text.forward(ops::dropout(text, mode.dropout(self.classifier_dropout)))
    }

    /// The speech classifier alone, where there is no text: [batch, hidden] -> [batch, labels].
    pub fn classify_speech(&self, speech: Tensor<B, 2>, mode: Mode<'_>) -> Tensor<B, 2> {
        self.classifier.speech.forward(ops::dropout(speech, mode.dropout(self.classifier_dropout)))
    }

    /// All that follows from the two utterance vectors [batch, hidden].
    pub fn heads(&self, text: Tensor<B, 2>, speech: Tensor<B, 2>, mode: Mode<'_>) -> ClaspOutput<B> {
        let projection = &self.projection;
        let speech_invariant = projection.invariant.forward(speech.clone());
        let text_invariant = projection.invariant.forward(text.clone());
        let speech_specific = projection.speech_specific.forward(speech.clone());
        let text_specific = projection.text_specific.forward(text.clone());
        // Swapped: each modality's own vector with the other's invariant one.
        let text_reconstructed = self.reconstruction.text.forward(text_specific.clone() + speech_invariant.clone());
        let speech_reconstructed = self.reconstruction.speech.forward(speech_specific.clone() + text_invariant.clone());
        let six = [&speech, &text, &speech_invariant, &text_invariant, &speech_specific, &text_specific];
        let fused = self.fusion.forward(six, mode);
        let fused_dropped = ops::dropout(fused.clone(), mode.dropout(self.classifier_dropout));
        ClaspOutput {
            logits_text: self.classify_text(text.clone(), mode),
            logits_speech: self.classify_speech(speech.clone(), mode),
            logits_fusion: self.classifier.fusion.forward(fused_dropped),
            text,
            speech,
            text_invariant,
            speech_invariant,
            text_specific,
            speech_specific,
            text_reconstructed,
            speech_reconstructed,
            fused,
        }
    }
}
