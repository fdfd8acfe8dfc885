//! What training, scoring and prediction know of a model, whichever method it is of.
#![expect(clippy::large_enum_variant, reason = "there is one model in a process")]

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};

use super::{Baseline, Clasp, ClaspOutput, Inputs, ModelConfig, Speech, TERMS};
use crate::{
    encoder::{SpeechEncoder, TextEncoder},
    loss::{Contrasted, LossConfig, Targets, losses_against},
    method::{Logits, Output, Terms},
    nn::Init,
    ops::{Lengths, Mode, Ops},
};

/// A whole model that can be trained.
pub trait System<B: Ops>: Module<B> {
    /// The names of its loss terms, without their sum.
    fn terms(&self) -> &'static [&'static str];

    /// wav2vec 2.0, where the method has it.
    fn speech_encoder(&self) -> Option<&SpeechEncoder<B>>;

    /// The whole forward pass.
    fn outputs(&self, inputs: &Inputs, mode: Mode<'_>, device: &B::Device) -> Box<dyn Output<B>>;
}

impl<B: Ops> System<B> for Clasp<B> {
    fn terms(&self) -> &'static [&'static str] {
        TERMS
    }

    fn speech_encoder(&self) -> Option<&SpeechEncoder<B>> {
        Some(&self.speech_encoder)
    }

    fn outputs(&self, inputs: &Inputs, mode: Mode<'_>, device: &B::Device) -> Box<dyn Output<B>> {
        Box::new(self.forward(inputs, mode, device))
    }
}

impl<B: Backend> Output<B> for ClaspOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits {
            name: "logits_fusion",
            main: self.logits_fusion.clone(),
            text: Some(self.logits_text.clone()),
            speech: Some(self.logits_speech.clone()),
        }
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        self.clone().named().into_iter().filter(|(name, _)| !name.starts_with("logits_")).collect()
    }

    fn contrasted(&self) -> Option<Contrasted<B>> {
        Some(Contrasted::from(self))
    }

    fn losses(&self, contrasted: Option<Contrasted<B>>, targets: &Targets, loss: &LossConfig) -> Terms<B> {
        let contrasted = contrasted.unwrap_or_else(|| Contrasted::from(self));
        let terms = losses_against(self, contrasted, targets, loss);
        let contrast = terms.semantic.clone() * loss.semantic + terms.modality.clone() * loss.modality;
        let total = terms.total.clone();
        Terms::new(total, terms.named().into_iter().filter(|(name, _)| *name != "total").collect(), contrast)
    }
}

/// A model of any method.
#[derive(Module, Debug)]
pub enum AnySystem<B: Backend> {
    /// The paper's.
    Clasp(Clasp<B>),
    /// Any other.
    Baseline(Baseline<B>),
}

impl<B: Ops> AnySystem<B> {
    /// A model whose encoders are given, those that the method reads; the rest from `init`.
    pub fn with_encoders(
        config: &ModelConfig,
        text_encoder: Option<TextEncoder<B>>,
        speech_encoder: Option<SpeechEncoder<B>>,
        init: &mut Init<'_, B>,
    ) -> Self {
        match (config.head(), text_encoder, speech_encoder) {
            (Some(options), text, speech) => Self::Baseline(Baseline::new(config, &options, text, speech, init)),
            (None, Some(text), Some(speech)) => Self::Clasp(Clasp::with_encoders(config, text, speech, init)),
            _ => unreachable!("the paper's system has both encoders"),
        }
    }

    /// A model to be filled from a checkpoint.
    pub fn empty(config: &ModelConfig, device: &B::Device) -> Self {
        let init = &mut Init::empty(device);
        let text = config.text_encoder.as_ref().map(|encoder| TextEncoder::new(encoder, init));
        let speech = config.speech_encoder.as_ref().map(|encoder| SpeechEncoder::new(encoder, init));
        Self::with_encoders(config, text, speech, init)
    }

    /// The model with other encoders in the place of its own.
    #[must_use]
    pub fn map_encoders(
        self,
        text: impl FnOnce(TextEncoder<B>) -> TextEncoder<B>,
        speech: impl FnOnce(SpeechEncoder<B>) -> SpeechEncoder<B>,
    ) -> Self {
        match self {
            Self::Clasp(mut model) => {
                model.text_encoder = text(model.text_encoder);
                model.speech_encoder = speech(model.speech_encoder);
                Self::Clasp(model)
            }
            Self::Baseline(mut model) => {
                model.text_encoder = model.text_encoder.map(text);
                model.speech_encoder = model.speech_encoder.map(speech);
                Self::Baseline(model)
            }
        }
    }

    /// Logits [batch, labels] of row-major tokens [batch, tokens] alone; none where the method has no classifier for it.
    pub fn classify_text(
        &self,
        tokens: &[i64],
        lengths: &Lengths,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Option<Tensor<B, 2>> {
        match self {
            Self::Clasp(model) => Some(model.classify_text(model.encode_text(tokens, lengths, mode, device), mode)),
            Self::Baseline(model) => model.classify_text(tokens, lengths, mode, device),
        }
    }

    /// Logits [batch, labels] of row-major samples [batch, samples] alone; none where the method has no classifier for it.
    pub fn classify_speech(
        &self,
        samples: &[f32],
        lengths: &Lengths,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Option<Tensor<B, 2>> {
        match self {
            Self::Clasp(model) => {
                let speech = model.encode_speech(Speech::Samples(samples, lengths), mode, device);
                Some(model.classify_speech(speech, mode))
            }
            Self::Baseline(model) => model.classify_speech(samples, lengths, mode, device),
        }
    }
}

impl<B: Ops> System<B> for AnySystem<B> {
    fn terms(&self) -> &'static [&'static str] {
        match self {
            Self::Clasp(model) => model.terms(),
            Self::Baseline(model) => model.terms(),
        }
    }

    fn speech_encoder(&self) -> Option<&SpeechEncoder<B>> {
        match self {
            Self::Clasp(model) => Some(&model.speech_encoder),
            Self::Baseline(model) => model.speech_encoder.as_ref(),
        }
    }

    fn outputs(&self, inputs: &Inputs, mode: Mode<'_>, device: &B::Device) -> Box<dyn Output<B>> {
        match self {
            Self::Clasp(model) => model.outputs(inputs, mode, device),
            Self::Baseline(model) => model.forward(inputs, mode, device),
        }
    }
}
