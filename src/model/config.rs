//! What a model is made of, as a checkpoint's `config.json` states it.

use crate::{
    choices::{FusionKind, FusionVectors},
    config::{Architecture, Fusion as FusionConfig},
    encoder::{
        EncoderError, RobertaConfig, Wav2Vec2Config, check_below_one,
        layer::{Activation, LayerConfig},
    },
    method::{HeadOptions, Method, Sizes},
};

/// Added to the variance in the fusion's norms (`torch.nn.LayerNorm`).
const FUSION_EPSILON: f64 = 1e-5;

impl FusionConfig {
    /// Pieces of each vector.
    #[must_use]
    pub fn pieces(&self) -> usize {
        if self.kind == FusionKind::MultiHead { self.split_heads } else { 1 }
    }

    /// Tokens of an example.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.pieces() * if self.vectors == FusionVectors::All { 6 } else { 2 }
    }

    /// Length of the fused vector.
    #[must_use]
    pub fn fused_size(&self) -> usize {
        self.tokens() * self.hidden_size
    }

    /// The shape of its layers.
    #[must_use]
    pub fn layer(&self) -> LayerConfig {
        LayerConfig {
            width: self.hidden_size,
            heads: self.attention_heads,
            feed_forward: self.feed_forward,
            norm_first: false,
            activation: Activation::Relu,
            attention_dropout: self.dropout,
            hidden_dropout: self.dropout,
            activation_dropout: self.dropout,
            epsilon: FUSION_EPSILON,
        }
    }
}

/// The whole model: the typed form of `config.json`.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The method.
    pub method: Method,
    /// The labels in the order of the logits.
    pub labels: Vec<String>,
    /// Sizes and dropouts beside the encoders.
    pub architecture: Architecture,
    /// The text encoder, where the method reads text.
    pub text_encoder: Option<RobertaConfig>,
    /// The speech encoder, where the method reads speech.
    pub speech_encoder: Option<Wav2Vec2Config>,
}

impl ModelConfig {
    /// The head's options; none of the paper's system.
    #[must_use]
    pub fn head(&self) -> Option<HeadOptions> {
        let fusion = &self.architecture.fusion;
        match self.method {
            Method::Clasp => (fusion.vectors == FusionVectors::Raw).then(|| HeadOptions::RawFusion(fusion.clone())),
            _ => self.architecture.options.clone(),
        }
    }

    /// What a head is told of the encoders and the task.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            labels: self.labels.len(),
            hidden: self.architecture.hidden_size,
            text: self.text_encoder.as_ref().map_or(0, |encoder| encoder.hidden_size),
            speech: self.speech_encoder.as_ref().map_or(0, |encoder| encoder.hidden_size),
            classifier_dropout: self.architecture.classifier_dropout,
        }
    }

    /// Width of the vectors of which terms compare different examples; 0 where no term does.
    #[must_use]
    pub fn contrasted_size(&self) -> usize {
        match self.head() {
            Some(options) => options.contrasted_size(),
            None => self.architecture.hidden_size,
        }
    }

    /// The names of the loss terms, without their sum.
    #[must_use]
    pub fn terms(&self) -> &'static [&'static str] {
        self.head().map_or(super::TERMS, |options| options.terms())
    }

    /// The most tokens of a text that it can take; none where it reads no text.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        let encoder = self.text_encoder.as_ref().map_or(usize::MAX, RobertaConfig::max_tokens);
        encoder.min(self.head().map_or(usize::MAX, |options| options.max_tokens()))
    }

    /// Entries of the vocabulary; none where it reads no text.
    #[must_use]
    pub fn vocabulary(&self) -> Option<usize> {
        let encoder = self.text_encoder.as_ref().map(|encoder| encoder.vocab_size);
        encoder.or_else(|| self.head()?.vocabulary())
    }

    /// Frames that the speech encoder makes of so many samples; as many as one needs where it is not there.
    #[must_use]
    pub fn frames(&self, samples: usize) -> usize {
        self.speech_encoder.as_ref().map_or(1, |encoder| encoder.frames(samples))
    }

    /// Checks the sizes of the parts against each other.
    ///
    /// # Errors
    /// A size that does not divide another, or is 0; no labels.
    pub fn check(&self) -> Result<(), EncoderError> {
        let invalid = |problem: String| Err(EncoderError::Invalid { encoder: "model", problem });
        if self.labels.is_empty() {
            return invalid("labels is empty".into());
        }
        check_below_one("model", &[("classifier_dropout", self.architecture.classifier_dropout)])?;
        let hidden = self.architecture.hidden_size;
        if let Some(options) = &self.architecture.options {
            let wrong = |misfit: crate::method::Misfit| EncoderError::Invalid {
                encoder: "model",
                problem: format!("{}.{} {}", self.method, misfit.option, misfit.problem),
            };
            let stated = options.to_json();
            for (key, value) in stated.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("dropout")) {
                check_below_one("model", &[(key, value.as_f64().unwrap_or_default())])?;
            }
            return options.check(hidden).map_err(wrong);
        }
        let fusion = &self.architecture.fusion;
        check_below_one("model", &[("fusion.dropout", fusion.dropout)])?;
        let pieces = fusion.pieces();
        if hidden == 0 || pieces == 0 || !hidden.is_multiple_of(pieces) {
            return invalid(format!("fusion.split_heads = {pieces} must divide hidden_size = {hidden}"));
        }
        if fusion.attention_heads == 0
            || fusion.hidden_size == 0
            || !fusion.hidden_size.is_multiple_of(fusion.attention_heads)
        {
            return invalid(format!(
                "fusion.attention_heads = {} must divide fusion.hidden_size = {}",
                fusion.attention_heads, fusion.hidden_size
            ));
        }
        if fusion.kind == FusionKind::Attention && fusion.hidden_size != hidden {
            return invalid(format!(
                "fusion.hidden_size = {} must be hidden_size = {hidden} where fusion.kind is \"attention\"",
                fusion.hidden_size
            ));
        }
        Ok(())
    }
}
