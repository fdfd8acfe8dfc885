//! The two encoders, or the one that a method reads, and the method's head on them.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};

use super::{Adapter, Inputs, ModelConfig, Speech, speech_states, speech_vector, text_vector};
use crate::{
    choices::TextPooling,
    encoder::{SpeechEncoder, TextEncoder},
    method::{Encoded, Head, HeadOptions, Output, Sequence},
    nn::Init,
    ops::{Lengths, Mode, Ops},
};

/// Every method but the paper's.
#[derive(Module, Debug)]
pub struct Baseline<B: Backend> {
    /// `RoBERTa`, where the method reads text.
    pub text_encoder: Option<TextEncoder<B>>,
    /// wav2vec 2.0, where the method reads speech.
    pub speech_encoder: Option<SpeechEncoder<B>>,
    adapter: Adapter<B>,
    head: Head<B>,
    #[module(skip)]
    text_pooling: TextPooling,
    #[module(skip)]
    terms: &'static [&'static str],
    #[module(skip)]
    has_encoders: bool,
}

impl<B: Ops> Baseline<B> {
    /// Given encoders, those that the method reads, and a head of `options`; what is not given is drawn from `init`.
    pub fn new(
        config: &ModelConfig,
        options: &HeadOptions,
        text_encoder: Option<TextEncoder<B>>,
        speech_encoder: Option<SpeechEncoder<B>>,
        init: &mut Init<'_, B>,
    ) -> Self {
        let sizes = config.sizes();
        // An encoder that is not there, or whose vector is not read, needs no map.
        let width = |own: usize| if own > 0 && options.reads_vectors() { own } else { sizes.hidden };
        Self {
            text_encoder,
            speech_encoder,
            adapter: Adapter::new(width(sizes.text), width(sizes.speech), sizes.hidden, init),
            head: Head::new(options, &sizes, init),
            text_pooling: config.architecture.text_pooling,
            terms: options.terms(),
            has_encoders: config.method.has_encoders(),
        }
    }

    /// The names of the loss terms, without their sum.
    #[must_use]
    pub fn terms(&self) -> &'static [&'static str] {
        self.terms
    }

    /// The whole forward pass.
    pub fn forward(&self, inputs: &Inputs, mode: Mode<'_>, device: &B::Device) -> Box<dyn Output<B>> {
        let text = self.encode_text(&inputs.tokens, &inputs.text_lengths, mode, device);
        let speech = self.encode_speech(inputs.speech(), mode, device);
        let inputs = (!self.has_encoders).then(|| inputs.clone());
        self.head.forward(&Encoded { text, speech, inputs }, mode)
    }

    /// Logits [batch, labels] of row-major tokens [batch, tokens] alone; none where the method has no classifier for it.
    pub fn classify_text(
        &self,
        tokens: &[i64],
        lengths: &Lengths,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Option<Tensor<B, 2>> {
        self.head.classify_text(&self.encode_text(tokens, lengths, mode, device)?, mode)
    }

    /// Logits [batch, labels] of row-major samples [batch, samples] alone; none where the method has no classifier for it.
    pub fn classify_speech(
        &self,
        samples: &[f32],
        lengths: &Lengths,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Option<Tensor<B, 2>> {
        self.head.classify_speech(&self.encode_speech(Speech::Samples(samples, lengths), mode, device)?, mode)
    }

    fn encode_text(
        &self,
        tokens: &[i64],
        lengths: &Lengths,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Option<Sequence<B>> {
        let encoded = self.text_encoder.as_ref()?.forward(tokens, lengths, mode, device);
        let (states, lengths) = (encoded.hidden.clone(), encoded.lengths.clone());
        Some(Sequence { states, lengths, vector: text_vector(encoded, self.text_pooling, &self.adapter) })
    }

    fn encode_speech(&self, speech: Speech<'_>, mode: Mode<'_>, device: &B::Device) -> Option<Sequence<B>> {
        let encoded = speech_states(self.speech_encoder.as_ref()?, speech, mode, device);
        let (states, lengths) = (encoded.hidden.clone(), encoded.lengths.clone());
        Some(Sequence { states, lengths, vector: speech_vector(encoded, &self.adapter) })
    }
}
