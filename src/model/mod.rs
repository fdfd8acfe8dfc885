//! A whole model, whichever method it is of: the encoders that the method reads, the maps from their widths to the
//! model's, and the method's head on the utterance vectors.

mod config;

use burn::{
    module::Module,
    tensor::{Tensor, TensorData, backend::Backend},
};

use crate::{
    choices::TextPooling,
    encoder::{self, Frames, Inputs, Speech, SpeechEncoder, TextEncoder},
    method::{Adapter, Encoded, Head, Output, Sequence},
    nn::Init,
    ops::{Lengths, Mode, Ops},
    profile::{self, Stage},
};

pub use config::{Architecture, ModelConfig};

/// The model.
#[derive(Module, Debug)]
pub struct Model<B: Backend> {
    /// Where the method reads text.
    pub text_encoder: Option<TextEncoder<B>>,
    /// Where the method reads speech.
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

impl<B: Ops> Model<B> {
    /// A model with fresh parameters, or empty ones to be filled from a checkpoint.
    pub fn new(config: &ModelConfig, init: &mut Init<'_, B>) -> Self {
        let text = config.text_encoder.as_ref().map(|encoder| TextEncoder::new(encoder, init));
        let speech = config.speech_encoder.as_ref().map(|encoder| SpeechEncoder::new(encoder, init));
        Self::with_encoders(config, text, speech, init)
    }

    /// A model whose encoders are given, those that the method reads; the rest from `init`.
    pub fn with_encoders(
        config: &ModelConfig,
        text_encoder: Option<TextEncoder<B>>,
        speech_encoder: Option<SpeechEncoder<B>>,
        init: &mut Init<'_, B>,
    ) -> Self {
        let (adapter, head) = Head::with_adapter(config.head(), &config.sizes(), init);
        Self {
            text_encoder,
            speech_encoder,
            adapter,
            head,
            text_pooling: config.architecture.text_pooling,
            terms: config.terms(),
            has_encoders: config.method.has_encoders(),
        }
    }

    /// A model to be filled from a checkpoint.
    pub fn empty(config: &ModelConfig, device: &B::Device) -> Self {
        Self::new(config, &mut Init::empty(device))
    }

    /// The model with other encoders in the place of its own.
    pub fn map_encoders(
        mut self,
        text: impl FnOnce(TextEncoder<B>) -> TextEncoder<B>,
        speech: impl FnOnce(SpeechEncoder<B>) -> SpeechEncoder<B>,
    ) -> Self {
        self.text_encoder = self.text_encoder.map(text);
        self.speech_encoder = self.speech_encoder.map(speech);
        self
    }

    /// The names of the loss terms, without their sum.
    pub fn terms(&self) -> &'static [&'static str] {
        self.terms
    }

    pub fn forward(&self, inputs: &Inputs, mode: Mode<'_>, device: &B::Device) -> Box<dyn Output<B>> {
        let text = self.encode_text(&inputs.tokens, &inputs.text_lengths, mode, device);
        let speech = self.encode_speech(inputs.speech(), mode, device);
        let inputs = (!self.has_encoders).then(|| inputs.clone());
        let encoded = Encoded { text, speech, inputs };
        profile::time::<B, _>(Stage::Fusion, device, || self.head.forward(&encoded, mode))
    }

    /// Logits [batch, labels] of row-major tokens [batch, tokens] alone; `None` if the method has no classifier for it.
    pub fn classify_text(
        &self,
        tokens: &[i64],
        lengths: &Lengths,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Option<Tensor<B, 2>> {
        self.head.classify_text(&self.encode_text(tokens, lengths, mode, device)?, mode)
    }

    /// Logits [batch, labels] of row-major samples [batch, samples] alone; `None` if the method has no classifier for it.
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
        let pooled = match self.text_pooling {
            TextPooling::Cls => encoded.first(),
            TextPooling::Mean => encoded.mean(),
        };
        Some(Sequence { states, lengths, vector: self.adapter.text(pooled) })
    }

    fn encode_speech(&self, speech: Speech<'_>, mode: Mode<'_>, device: &B::Device) -> Option<Sequence<B>> {
        let encoded = speech_states(self.speech_encoder.as_ref()?, speech, mode, device);
        let (states, lengths) = (encoded.hidden.clone(), encoded.lengths.clone());
        Some(Sequence { states, lengths, vector: self.adapter.speech(encoded.mean()) })
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
        Speech::Samples(samples, lengths) => encoder.forward(samples, lengths, mode, device),
        Speech::Frames(Frames { values, lengths, channels }) => {
            let shape = [lengths.batch(), lengths.longest(), *channels];
            let features = || Tensor::from_data(TensorData::new(values.clone(), shape), device);
            encoder.encode(profile::time::<B, _>(Stage::Data, device, features), lengths, mode)
        }
    }
}
