//! A whole model, whichever method it is of: the encoders that the method reads, the maps from their widths to the
//! model's, and the method's head on the utterance vectors.

mod config;
mod readout;

use burn::{
    module::Module,
    tensor::{Tensor, TensorData, backend::Backend},
};

use crate::{
    encoder::{self, Frames, Inputs, Speech, SpeechEncoder, TextEncoder, Wanted},
    method::{Adapter, Encoded, Head, Output, Sequence},
    nn::Init,
    ops::{Lengths, Mode, Ops},
    profile::{self, Stage},
};

pub use config::{Architecture, ModelConfig};
use readout::Readout;

/// The model.
#[derive(Module, Debug)]
pub struct Model<B: Backend> {
    /// Where the method reads text.
    pub text_encoder: Option<TextEncoder<B>>,
    /// Where the method reads speech.
    pub speech_encoder: Option<SpeechEncoder<B>>,
    text_readout: Option<Readout<B>>,
    speech_readout: Option<Readout<B>>,
    adapter: Adapter<B>,
    head: Head<B>,
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
        let Architecture { text_layers, text_pooling, speech_layers, speech_pooling, .. } = config.architecture;
        let text_readout = config.text_encoder.as_ref().map(|encoder| {
            Readout::new(text_layers, text_pooling, (encoder.num_hidden_layers, encoder.hidden_size), init)
        });
        let speech_readout = config.speech_encoder.as_ref().map(|encoder| {
            Readout::new(speech_layers, speech_pooling, (encoder.layers(), encoder.hidden_size()), init)
        });
        let (adapter, head) = Head::with_adapter(config.head(), &config.sizes(), init);
        Self {
            text_encoder,
            speech_encoder,
            text_readout,
            speech_readout,
            adapter,
            head,
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

    /// The model whose encoders stay as they are, if so: these run without dropout, `SpecAugment` and layer drop.
    pub fn with_frozen(mut self, text: bool, speech: bool) -> Self {
        self.text_readout = self.text_readout.map(|readout| readout.with_frozen(text));
        self.speech_readout = self.speech_readout.map(|readout| readout.with_frozen(speech));
        self
    }

    /// The vectors of all layers' states, those in front of the layers first: names and [batch, layers + 1, width].
    pub fn layer_vectors(&self, inputs: &Inputs, device: &B::Device) -> Vec<(&'static str, Tensor<B, 3>)> {
        let mode = Mode::evaluation();
        let text = self.text_encoder.as_ref().zip(self.text_readout.as_ref()).map(|(encoder, readout)| {
            let encoded = encoder.forward(&inputs.tokens, &inputs.text_lengths, Wanted::All, mode, device);
            ("text_layers", readout.pool_all(encoded))
        });
        let speech = self.speech_encoder.as_ref().zip(self.speech_readout.as_ref()).map(|(encoder, readout)| {
            let encoded = speech_states(encoder, inputs.speech(), Wanted::All, mode, device);
            ("speech_layers", readout.pool_all(encoded))
        });
        text.into_iter().chain(speech).collect()
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
        let (encoder, readout) = (self.text_encoder.as_ref()?, self.text_readout.as_ref()?);
        let seen = readout.states(encoder.forward(tokens, lengths, readout.wanted(), readout.mode(mode), device));
        let (states, lengths) = (seen.hidden.clone(), seen.lengths.clone());
        Some(Sequence { states, lengths, vector: self.adapter.text(readout.pool(seen)) })
    }

    fn encode_speech(&self, speech: Speech<'_>, mode: Mode<'_>, device: &B::Device) -> Option<Sequence<B>> {
        let (encoder, readout) = (self.speech_encoder.as_ref()?, self.speech_readout.as_ref()?);
        let seen = readout.states(speech_states(encoder, speech, readout.wanted(), readout.mode(mode), device));
        let (states, lengths) = (seen.hidden.clone(), seen.lengths.clone());
        Some(Sequence { states, lengths, vector: self.adapter.speech(readout.pool(seen)) })
    }
}

/// The hidden states of a batch of speech.
fn speech_states<B: Ops>(
    encoder: &SpeechEncoder<B>,
    speech: Speech<'_>,
    wanted: Wanted,
    mode: Mode<'_>,
    device: &B::Device,
) -> encoder::Encoded<B> {
    match speech {
        Speech::Samples(samples, lengths) => encoder.forward(samples, lengths, wanted, mode, device),
        Speech::Frames(Frames { values, lengths, channels }) => {
            let shape = [lengths.batch(), lengths.longest(), *channels];
            let features = || Tensor::from_data(TensorData::new(values.clone(), shape), device);
            encoder.encode(profile::time::<B, _>(Stage::Data, device, features), lengths, wanted, mode)
        }
    }
}
