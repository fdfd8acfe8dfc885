//! The text encoder: `RoBERTa` (Liu et al. 2019) or BERT (Devlin et al. 2019) without a pooler, as Hugging Face's
//! `RobertaModel`, `XLMRobertaModel`, `CamembertModel` and `BertModel`. They differ in where positions begin.

use burn::{
    module::Module,
    tensor::{Int, Tensor, TensorData, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Encoded, EncoderError, Wanted,
    layer::{Activation, LayerConfig, LayerInit, TransformerLayer, freeze_lowest},
    through_layers,
};
use crate::{
    keys::{
        Kind::{Boolean, Choice, Dropout, Number},
        Range, Unset, at_least, section,
    },
    nn::{Embedding, Init, LayerNorm},
    ops::{self, Lengths, Mode, Ops},
    profile::{self, Stage},
};

const ENCODER: &str = "text encoder";

/// The values of `model_type` that this encoder is for; `DistilRoBERTa` is a `roberta`.
pub const TEXT_FAMILIES: [&str; 4] = ["roberta", "xlm-roberta", "camembert", BERT];
const BERT: &str = "bert";

section! {
    /// `[text.config]`: the keys of a `config.json` that matter here, with Hugging Face's defaults (those of transformers
    /// 4.57 and 5), of `RoBERTa` where those of BERT differ.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct RobertaConfig("text.config") {
        by_hand {
            /// only false: an encoder sees the whole text
            is_decoder [Boolean], "false";
            /// only false: there is no decoder here
            add_cross_attention [Boolean], "false";
        } into {}
        /// family of the text encoder
        model_type: String [Choice(&TEXT_FAMILIES)] = "roberta".to_owned(), "\"roberta\"";
        /// rows of the word embeddings (30522 in BERT)
        vocab_size: usize [at_least(1)] = if model_type == BERT { 30522 } else { 50265 }, "50265";
        /// width of the text encoder
        hidden_size: usize [at_least(1)] = 768;
        /// layers
        num_hidden_layers: usize [at_least(1)] = 12;
        /// attention heads; divides hidden_size
        num_attention_heads: usize [at_least(1)] = 12;
        /// inner width of a layer
        intermediate_size: usize [at_least(1)] = 3072;
        /// activation
        hidden_act: String [Choice(&["gelu"])] = "gelu".to_owned();
        /// dropout of embeddings and layers
        #[beside_checkpoint(free)]
        hidden_dropout_prob: f64 [Dropout] = 0.1;
        /// dropout of attention weights
        #[beside_checkpoint(free)]
        attention_probs_dropout_prob: f64 [Dropout] = 0.1;
        /// tokens, and pad_token_id + 1 more (BERT: tokens)
        max_position_embeddings: usize [at_least(5)] = 512;
        /// rows of the type embeddings (1 in RoBERTa base)
        type_vocab_size: usize [at_least(1)] = 2;
        /// in layer norms (1e-5 in base)
        layer_norm_eps: f64 [Number(Range::Positive)] = 1e-12;
        /// deviation of fresh weights
        initializer_range: f64 = 0.02;
        /// id of the padding token (0 in BERT)
        pad_token_id: usize [at_least(0)] = usize::from(model_type != BERT), "1";
        /// id of <s>
        bos_token_id: usize [at_least(0)] = 0;
        /// id of </s>
        eos_token_id: usize [at_least(0)] = 2;
        /// kind of positions
        position_embedding_type: String [Choice(&["absolute"])] = "absolute".to_owned();
    }
}

impl Default for RobertaConfig {
    fn default() -> Self {
        Self::read(&Unset)
    }
}

impl RobertaConfig {
    /// Reads a Hugging Face config.
    ///
    /// # Errors
    /// A value of the wrong type, out of range or not supported.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, EncoderError> {
        super::family_of(ENCODER, json, &TEXT_FAMILIES)?;
        let mut config: Self = super::read_keys(ENCODER, json)?;
        if config.model_type == BERT {
            // What BERT's own config leaves unsaid.
            let published = Self::read(&toml::Table::from_iter([("model_type".to_owned(), BERT.into())]));
            for (key, value, default) in [
                ("vocab_size", &mut config.vocab_size, published.vocab_size),
                ("pad_token_id", &mut config.pad_token_id, published.pad_token_id),
            ] {
                if json.get(key).is_none() {
                    *value = default;
                }
            }
        }
        config.check(json)?;
        Ok(config)
    }

    /// The most tokens of a text, the two special ones included.
    pub fn max_tokens(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.first_position())
    }

    /// The position of a text's first token: behind that of padding, and 0 in BERT.
    fn first_position(&self) -> usize {
        if self.model_type == BERT { 0 } else { self.pad_token_id.saturating_add(1) }
    }

    fn check(&self, json: &serde_json::Value) -> Result<(), EncoderError> {
        let unsupported = |key, found: &str, supported| EncoderError::Unsupported {
            encoder: ENCODER,
            key,
            found: found.into(),
            supported,
        };
        if self.hidden_act != "gelu" {
            return Err(unsupported("hidden_act", &self.hidden_act, "gelu"));
        }
        if self.position_embedding_type != "absolute" {
            return Err(unsupported("position_embedding_type", &self.position_embedding_type, "absolute"));
        }
        for key in ["is_decoder", "add_cross_attention"] {
            if json.get(key).and_then(serde_json::Value::as_bool) == Some(true) {
                return Err(unsupported(key, "true", "false"));
            }
        }
        let dropouts = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        super::check_below_one(ENCODER, &dropouts)?;
        super::check_epsilon(ENCODER, self.layer_norm_eps)?;
        let invalid = |problem: String| EncoderError::Invalid { encoder: ENCODER, problem };
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(invalid(format!(
                "num_attention_heads = {} must divide hidden_size = {}",
                self.num_attention_heads, self.hidden_size
            )));
        }
        for (key, size) in [
            ("hidden_size", self.hidden_size),
            ("vocab_size", self.vocab_size),
            ("intermediate_size", self.intermediate_size),
            ("type_vocab_size", self.type_vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("num_hidden_layers + 1", self.num_hidden_layers.saturating_add(1)),
        ] {
            if !(1..=super::MOST).contains(&size) {
                return Err(invalid(format!("{key} = {size} must be from 1 to {}", super::MOST)));
            }
        }
        if self.max_tokens() < 2 {
            return Err(invalid(format!(
                "max_position_embeddings = {} leaves no room for a text",
                self.max_position_embeddings
            )));
        }
        Ok(())
    }

    /// The shape of its layers.
    pub fn layer(&self) -> LayerConfig {
        LayerConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            feed_forward: self.intermediate_size,
            norm_first: false,
            has_key_bias: true,
            is_gated: false,
            activation: Activation::Gelu,
            attention_dropout: self.attention_probs_dropout_prob,
            hidden_dropout: self.hidden_dropout_prob,
            activation_dropout: 0.0,
            epsilon: self.layer_norm_eps,
        }
    }
}

/// The three tables whose rows are summed for a token, and their norm.
#[derive(Module, Debug)]
pub struct TextEmbeddings<B: Backend> {
    word: Embedding<B>,
    position: Embedding<B>,
    token_type: Embedding<B>,
    norm: LayerNorm<B>,
}

/// Tokens to hidden states.
#[derive(Module, Debug)]
pub struct TextEncoder<B: Backend> {
    embeddings: TextEmbeddings<B>,
    layers: Vec<TransformerLayer<B>>,
    pad_token: usize,
    counts_padding: bool,
    dropout: f64,
}

impl<B: Backend> TextEncoder<B> {
    /// An encoder with fresh parameters.
    pub fn new(config: &RobertaConfig, init: &mut Init<'_, B>) -> Self {
        let (width, deviation) = (config.hidden_size, config.initializer_range);
        let layer = config.layer();
        Self {
            embeddings: TextEmbeddings {
                word: Embedding::normal(config.vocab_size, width, deviation, init),
                position: Embedding::normal(config.max_position_embeddings, width, deviation, init),
                token_type: Embedding::normal(config.type_vocab_size, width, deviation, init),
                norm: LayerNorm::new(width, config.layer_norm_eps, init),
            },
            layers: (0..config.num_hidden_layers)
                .map(|_| TransformerLayer::new(&layer, LayerInit::Normal(deviation), init))
                .collect(),
            pad_token: config.pad_token_id,
            counts_padding: config.model_type == BERT,
            dropout: config.hidden_dropout_prob,
        }
    }

    /// Stops gradients for the embeddings and the lowest `count` layers.
    pub fn freeze_layers(mut self, count: usize) -> Self {
        if count > 0 {
            self.embeddings = self.embeddings.no_grad();
        }
        self.layers = freeze_lowest(self.layers, count);
        self
    }
}

impl<B: Ops> TextEncoder<B> {
    /// `tokens` row-major [batch, tokens], padded on the right.
    pub fn forward(
        &self,
        tokens: &[i64],
        lengths: &Lengths,
        wanted: Wanted,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Encoded<B> {
        profile::time::<B, _>(Stage::TextLayers, device, || self.encode(tokens, lengths, wanted, mode, device))
    }

    #[expect(clippy::cast_possible_wrap, reason = "token numbers are small")]
    fn encode(
        &self,
        tokens: &[i64],
        lengths: &Lengths,
        wanted: Wanted,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Encoded<B> {
        let wide = lengths.padded_for::<B>();
        let tokens = lengths.pad(tokens, &wide, self.pad_token as i64);
        let lengths = &wide;
        let rows = tokens.len();
        let positions = self.positions(&tokens, lengths);
        let embeddings = &self.embeddings;
        let indices = |values: Vec<i64>| Tensor::<B, 1, Int>::from_data(TensorData::new(values, [rows]), device);
        let token_type = embeddings.token_type.weight.val().narrow(0, 0, 1); // [1, hidden]
        let summed =
            embeddings.word.forward(indices(tokens)) + embeddings.position.forward(indices(positions)) + token_type;
        let hidden = ops::dropout(embeddings.norm.forward(summed), mode.dropout(self.dropout));
        let run = |_, layer: &TransformerLayer<B>, hidden| layer.forward(hidden, lengths, mode);
        let (hidden, states) = through_layers(&self.layers, hidden, wanted, run, |hidden| hidden);
        Encoded { hidden, states, lengths: lengths.clone() }
    }

    /// Positions count the tokens that are not padding, from one behind the padding token's number; padding tokens
    /// have that number itself (`create_position_ids_from_input_ids` of Hugging Face). BERT counts all from 0.
    #[expect(clippy::cast_possible_wrap, reason = "token numbers are small")]
    fn positions(&self, tokens: &[i64], lengths: &Lengths) -> Vec<i64> {
        let pad = self.pad_token as i64;
        let mut positions = Vec::with_capacity(tokens.len());
        for row in tokens.chunks(lengths.longest().max(1)) {
            if self.counts_padding {
                positions.extend(0..row.len() as i64);
                continue;
            }
            let mut position = pad;
            for &token in row {
                if token == pad {
                    positions.push(pad);
                } else {
                    position += 1;
                    positions.push(position);
                }
            }
        }
        positions
    }
}
