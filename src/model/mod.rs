//! CLASP: the whole forward pass on one page (paper, section 3; `scripts/clasp_torch.py`, class `Clasp`).

mod baseline;
mod config;
mod fusion;
mod system;

use burn::{
    module::Module,
    tensor::{Tensor, TensorData, backend::Backend},
};

use crate::{
    choices::TextPooling,
    encoder::{self, SpeechEncoder, TextEncoder},
    nn::{Init, Linear},
    ops::{self, Lengths, Mode, Ops},
    profile::{self, Part},
};

pub use baseline::Baseline;
pub use config::ModelConfig;
pub use fusion::Fusion;
pub use system::{AnySystem, System};

/// The names of the paper's loss terms, without their sum.
pub const TERMS: &[&str] = &["task_text", "task_speech", "task_fusion", "semantic", "modality", "reconstruction", "kl"];

/// A batch of both modalities on the host, padded on the right.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Row-major [batch, tokens].
    pub tokens: Vec<i64>,
    /// Tokens of each example.
    pub text_lengths: Lengths,
    /// Row-major [batch, samples], each normalised over its own samples, zero behind them; of no use where there are
    /// `features`.
    pub waveforms: Vec<f32>,
    /// Samples of each example.
    pub speech_lengths: Lengths,
    /// What the feature encoder makes of the waveforms, where that is known.
    pub features: Option<Frames>,
}

/// What the feature encoder makes of a batch, on the host, padded on the right.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Row-major [batch, frames, channels], zero behind the valid frames.
    pub values: Vec<f32>,
    /// Frames of each example.
    pub lengths: Lengths,
    /// Values of a frame.
    pub channels: usize,
}

/// A batch of speech: what the encoder begins with.
#[derive(Clone, Copy, Debug)]
pub enum Speech<'a> {
    /// Row-major samples [batch, samples].
    Samples(&'a [f32], &'a Lengths),
    /// What the feature encoder made of them.
    Frames(&'a Frames),
}

impl Inputs {
    /// The features where they are known, else the samples.
    #[must_use]
    pub fn speech(&self) -> Speech<'_> {
        match &self.features {
            Some(frames) => Speech::Frames(frames),
            None => Speech::Samples(&self.waveforms, &self.speech_lengths),
        }
    }
}

/// Every representation of a batch, by the names of docs/model.md.
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
    /// The twelve tensors with their names, in the order of docs/model.md.
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
    /// On the text vector.
    pub text: Linear<B>,
    /// On the speech vector.
    pub speech: Linear<B>,
    /// On the fused vector.
    pub fusion: Linear<B>,
}

impl<B: Backend> Classifier<B> {
    /// Classifiers of vectors of `hidden` and of `fused` elements.
    pub fn new(hidden: usize, fused: usize, labels: usize, init: &mut Init<'_, B>) -> Self {
        Self {
            text: Linear::uniform(hidden, labels, init),
            speech: Linear::uniform(hidden, labels, init),
            fusion: Linear::uniform(fused, labels, init),
        }
    }
}

/// The maps of encoders whose width is not the model's.
#[derive(Module, Debug)]
pub struct Adapter<B: Backend> {
    text: Option<Linear<B>>,
    speech: Option<Linear<B>>,
}

impl<B: Backend> Adapter<B> {
    /// Those that encoders of these widths need.
    fn new(text: usize, speech: usize, hidden: usize, init: &mut Init<'_, B>) -> Self {
        let adapter =
            |width: usize, init: &mut Init<'_, B>| (width != hidden).then(|| Linear::uniform(width, hidden, init));
        Self { text: adapter(text, init), speech: adapter(speech, init) }
    }
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
    /// A model with fresh parameters, or empty ones to be filled from a checkpoint; `config` has both encoders.
    pub fn new(config: &ModelConfig, init: &mut Init<'_, B>) -> Self {
        let (Some(text), Some(speech)) = (&config.text_encoder, &config.speech_encoder) else {
            unreachable!("the paper's system has both encoders")
        };
        let (text, speech) = (TextEncoder::new(text, init), SpeechEncoder::new(speech, init));
        Self::with_encoders(config, text, speech, init)
    }

    /// A model of given encoders, the rest from `init`.
    pub fn with_encoders(
        config: &ModelConfig,
        text_encoder: TextEncoder<B>,
        speech_encoder: SpeechEncoder<B>,
        init: &mut Init<'_, B>,
    ) -> Self {
        let architecture = &config.architecture;
        let sizes = config.sizes();
        let (hidden, labels) = (sizes.hidden, sizes.labels);
        let fusion = Fusion::new(&architecture.fusion, hidden, init);
        Self {
            text_encoder,
            speech_encoder,
            adapter: Adapter::new(sizes.text, sizes.speech, hidden, init),
            projection: Projection {
                invariant: Linear::uniform(hidden, hidden, init),
                text_specific: Linear::uniform(hidden, hidden, init),
                speech_specific: Linear::uniform(hidden, hidden, init),
            },
            reconstruction: Reconstruction {
                text: Linear::uniform(hidden, hidden, init),
                speech: Linear::uniform(hidden, hidden, init),
            },
            classifier: Classifier::new(hidden, architecture.fusion.fused_size(), labels, init),
            fusion,
            classifier_dropout: architecture.classifier_dropout,
            text_pooling: architecture.text_pooling,
        }
    }
}

/// [batch * tokens, width] -> [batch, hidden].
fn text_vector<B: Ops>(encoded: encoder::Encoded<B>, pooling: TextPooling, adapter: &Adapter<B>) -> Tensor<B, 2> {
    let pooled = match pooling {
        TextPooling::Cls => encoded.first(),
        TextPooling::Mean => encoded.mean(),
    };
    match &adapter.text {
        Some(adapter) => adapter.forward(pooled),
        None => pooled,
    }
}

/// [batch * frames, width] -> [batch, hidden].
fn speech_vector<B: Ops>(encoded: encoder::Encoded<B>, adapter: &Adapter<B>) -> Tensor<B, 2> {
    match &adapter.speech {
        Some(adapter) => adapter.forward(encoded.mean()),
        None => encoded.mean(),
    }
}

/// The hidden states of a batch of speech.
fn speech_states<B: Ops>(
    encoder: &SpeechEncoder<B>,
    speech: Speech<'_>,
    mode: Mode<'_>,
    device: &B::Device,
) -> encoder::Encoded<B> {
    match speech {
        Speech::Samples(samples, lengths) => {
            let shape = [lengths.batch(), lengths.longest()];
            let waveforms = || Tensor::from_data(TensorData::new(samples.to_vec(), shape), device);
            encoder.forward(profile::time::<B, _>(Part::Data, device, waveforms), lengths, mode)
        }
        Speech::Frames(Frames { values, lengths, channels }) => {
            let shape = [lengths.batch(), lengths.longest(), *channels];
            let features = || Tensor::from_data(TensorData::new(values.clone(), shape), device);
            encoder.encode(profile::time::<B, _>(Part::Data, device, features), lengths, mode)
        }
    }
}

impl<B: Ops> Clasp<B> {
    /// The whole forward pass.
    pub fn forward(&self, inputs: &Inputs, mode: Mode<'_>, device: &B::Device) -> ClaspOutput<B> {
        let text = self.encode_text(&inputs.tokens, &inputs.text_lengths, mode, device);
        let speech = self.encode_speech(inputs.speech(), mode, device);
        profile::time::<B, _>(Part::Fusion, device, || self.heads(text, speech, mode))
    }

    /// `r_t`: row-major tokens [batch, tokens] -> [batch, hidden].
    pub fn encode_text(&self, tokens: &[i64], lengths: &Lengths, mode: Mode<'_>, device: &B::Device) -> Tensor<B, 2> {
        text_vector(self.text_encoder.forward(tokens, lengths, mode, device), self.text_pooling, &self.adapter)
    }

    /// `r_a`: [batch, hidden].
    pub fn encode_speech(&self, speech: Speech<'_>, mode: Mode<'_>, device: &B::Device) -> Tensor<B, 2> {
        speech_vector(speech_states(&self.speech_encoder, speech, mode, device), &self.adapter)
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
        let fused = self.fusion.forward(&six, mode);
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
