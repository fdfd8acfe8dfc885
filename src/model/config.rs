//! What a model is made of, as a checkpoint's `config.json` states it.

use crate::{
    config::{Architecture, Fusion as FusionConfig, FusionKind},
    encoder::{
        EncoderError, RobertaConfig, Wav2Vec2Config,
        layer::{Activation, LayerConfig},
    },
};

/// Added to the variance in the fusion's norms (`torch.nn.LayerNorm`).
const FUSION_EPSILON: f64 = 1e-5;

impl FusionConfig {
    /// Tokens of an example.
    #[must_use]
    pub fn tokens(&self) -> usize {
        6 * if self.kind == FusionKind::MultiHead { self.split_heads } else { 1 }
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
    /// The labels in the order of the logits.
    pub labels: Vec<String>,
    /// Sizes and dropouts beside the encoders.
    pub architecture: Architecture,
    /// The text encoder.
    pub text_encoder: RobertaConfig,
    /// The speech encoder.
    pub speech_encoder: Wav2Vec2Config,
}

impl ModelConfig {
    /// Checks the sizes of the parts against each other.
    ///
    /// # Errors
    /// A size that does not divide another, or is 0; no labels.
    pub fn check(&self) -> Result<(), EncoderError> {
        let invalid = |problem: String| Err(EncoderError::Invalid { encoder: "model", problem });
        if self.labels.is_empty() {
            return invalid("labels is empty".into());
        }
        let hidden = self.architecture.hidden_size;
        let fusion = &self.architecture.fusion;
        let pieces = fusion.tokens() / 6;
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
