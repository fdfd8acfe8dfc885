//! What a model is made of, as a checkpoint's `config.json` states it.

use serde::{Deserialize, Serialize};

use crate::{
    choices::{Layers, Pooling},
    encoder::{EncoderError, RobertaConfig, SpeechEncoderConfig, Wav2Vec2Config, check_below_one},
    method::{ClaspOptions, HeadOptions, Method, Misfit, ModelSizes, Options as _, Sizes},
};

/// The sizes and dropouts of the model beside its encoders, as `config.json` of a checkpoint has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Width of all utterance vectors.
    pub hidden_size: usize,
    /// How the text encoder's states become one vector.
    pub text_pooling: Pooling,
    /// How the speech encoder's states become one vector.
    pub speech_pooling: Pooling,
    /// Which of the text encoder's states the heads see.
    #[serde(default, skip_serializing_if = "Layers::is_last")]
    pub text_layers: Layers,
    /// Which of the speech encoder's states the heads see.
    #[serde(default, skip_serializing_if = "Layers::is_last")]
    pub speech_layers: Layers,
    /// Dropout before each classifier.
    pub classifier_dropout: f64,
    /// The method's options: CLASP's under this name, those of another method under its word.
    #[serde(rename = "fusion", skip_deserializing)]
    pub options: HeadOptions,
}

/// The whole model: the typed form of `config.json`.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    pub method: Method,
    /// The labels in the order of the logits.
    pub labels: Vec<String>,
    /// Sizes and dropouts beside the encoders.
    pub architecture: Architecture,
    /// The text encoder, where the method reads text.
    pub text_encoder: Option<RobertaConfig>,
    /// The speech encoder, where the method reads speech.
    pub speech_encoder: Option<SpeechEncoderConfig>,
}

impl ModelConfig {
    /// CLASP on encoders as small as they can be with every kind of part, and without layer drop and `SpecAugment`: what
    /// `clasp bench --size tiny` and `gpu-check` work on. `has_layer_norms` is as in the large wav2vec 2.0.
    pub fn tiny(has_layer_norms: bool) -> Self {
        let text = RobertaConfig {
            vocab_size: 512,
            hidden_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 96,
            max_position_embeddings: 66,
            type_vocab_size: 1,
            layer_norm_eps: 1e-5,
            ..RobertaConfig::default()
        };
        let speech = Wav2Vec2Config {
            hidden_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 96,
            conv_dim: vec![32; 7],
            num_conv_pos_embeddings: 16,
            num_conv_pos_embedding_groups: 4,
            layerdrop: 0.0,
            apply_spec_augment: false,
            ..Wav2Vec2Config::default()
        };
        let sizes = ModelSizes { hidden: 48, attention_heads: 4, vocabulary: text.vocab_size };
        let fusion = ClaspOptions { layers: 2, attention_heads: 4, feed_forward: 64, ..ClaspOptions::published(sizes) };
        let speech = if has_layer_norms { speech.with_layer_norms() } else { speech };
        Self::clasp(fusion, text, SpeechEncoderConfig::Wav2Vec2(speech))
    }

    /// CLASP with four labels, of the fusion's width.
    pub fn clasp(fusion: ClaspOptions, text: RobertaConfig, speech: SpeechEncoderConfig) -> Self {
        Self {
            method: Method::Clasp,
            labels: (0..4).map(|label| format!("label{label}")).collect(),
            architecture: Architecture {
                hidden_size: fusion.hidden_size,
                text_pooling: Pooling::Cls,
                speech_pooling: Pooling::Mean,
                text_layers: Layers::Last,
                speech_layers: Layers::Last,
                classifier_dropout: 0.1,
                options: HeadOptions::Clasp(fusion),
            },
            text_encoder: Some(text),
            speech_encoder: Some(speech),
        }
    }

    pub fn head(&self) -> &HeadOptions {
        &self.architecture.options
    }

    /// what a head knows of the encoders and the task.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            labels: self.labels.len(),
            hidden: self.architecture.hidden_size,
            text: self.text_encoder.as_ref().map_or(0, |encoder| encoder.hidden_size),
            speech: self.speech_encoder.as_ref().map_or(0, |encoder| encoder.hidden_size()),
            classifier_dropout: self.architecture.classifier_dropout,
        }
    }

    /// Width of the vectors of which terms compare different examples; 0 where no term does.
    pub fn contrasted_size(&self) -> usize {
        self.head().contrasted_size(self.architecture.hidden_size)
    }

    /// The names of the loss terms, without their sum.
    pub fn terms(&self) -> &'static [&'static str] {
        self.head().terms()
    }

    /// The most tokens of a text that it can take; `None` if it reads no text.
    pub fn max_tokens(&self) -> usize {
        let encoder = self.text_encoder.as_ref().map_or(usize::MAX, RobertaConfig::max_tokens);
        encoder.min(self.head().max_tokens())
    }

    /// The most layers of one of its stacks.
    pub fn layers(&self) -> usize {
        self.text_layers().max(self.speech_layers()).max(self.head().layers())
    }

    /// Those of the text encoder.
    pub fn text_layers(&self) -> usize {
        self.text_encoder.as_ref().map_or(0, |encoder| encoder.num_hidden_layers)
    }

    /// The Transformer layers of the speech encoder.
    pub fn transformer_layers(&self) -> usize {
        self.speech_encoder.as_ref().map_or(0, |encoder| encoder.layers())
    }

    /// Those of the speech encoder, or its convolutions, whichever are more.
    pub fn speech_layers(&self) -> usize {
        self.speech_encoder.as_ref().map_or(0, |encoder| encoder.layers().max(encoder.convolutions()))
    }

    /// Entries of the vocabulary; `None` if it reads no text.
    pub fn vocabulary(&self) -> Option<usize> {
        let encoder = self.text_encoder.as_ref().map(|encoder| encoder.vocab_size);
        encoder.or_else(|| self.head().vocabulary())
    }

    /// Frames that the speech encoder makes of this many samples; as many as one needs where it is not there.
    pub fn frames(&self, samples: usize) -> usize {
        self.speech_encoder.as_ref().map_or(1, |encoder| encoder.frames(samples))
    }

    /// This many seconds of an utterance, or as many as the speech encoder hears.
    pub fn max_seconds(&self, most: f64) -> f64 {
        let heard = self.speech_encoder.as_ref().and_then(|encoder| encoder.most_seconds());
        heard.map_or(most, |heard| heard.min(most))
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
        for (key, layers, most) in [
            ("text_layers", self.architecture.text_layers, self.text_layers()),
            ("speech_layers", self.architecture.speech_layers, self.transformer_layers()),
        ] {
            if let Layers::One(layer) = layers
                && layer > most
            {
                return invalid(format!("{key} = {layer}, but the encoder has {most} layers"));
            }
        }
        let (options, field) = (self.head(), self.method.field());
        for (key, value) in
            options.to_json().as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("dropout"))
        {
            check_below_one("model", &[(&format!("{field}.{key}"), value.as_f64().unwrap_or_default())])?;
        }
        let wrong = |Misfit { option, problem }| EncoderError::Invalid {
            encoder: "model",
            problem: format!("{field}.{option} {problem}"),
        };
        options.check(self.architecture.hidden_size).map_err(wrong)
    }
}
