//! The keys of a wav2vec 2.0 `config.json` that matter here.

use serde::{Deserialize, Serialize};

use super::{
    EncoderError,
    layer::{Activation, LayerConfig},
};

const ENCODER: &str = "speech encoder";

/// A wav2vec 2.0 config with Hugging Face's defaults (`Wav2Vec2Config`).
#[expect(clippy::struct_excessive_bools, reason = "the file has them")]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Wav2Vec2Config {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of a layer; divides the width.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Non-linearity of the feed-forward block.
    pub hidden_act: String,
    /// On the output of each block and in front of the layers.
    pub hidden_dropout: f64,
    /// Inside the feed-forward block.
    pub activation_dropout: f64,
    /// On the attention weights.
    pub attention_dropout: f64,
    /// Behind the feature projection.
    pub feat_proj_dropout: f64,
    /// Probability that a layer is left out of a training step.
    pub layerdrop: f64,
    /// Deviation of fresh weights.
    pub initializer_range: f64,
    /// Added to the variance in the norms.
    pub layer_norm_eps: f64,
    /// `group` (one norm, behind the first convolution) or `layer` (one behind each).
    pub feat_extract_norm: String,
    /// Non-linearity of the convolutions.
    pub feat_extract_activation: String,
    /// Channels of each convolution.
    pub conv_dim: Vec<usize>,
    /// Stride of each convolution.
    pub conv_stride: Vec<usize>,
    /// Width of each convolution.
    pub conv_kernel: Vec<usize>,
    /// Whether the convolutions have a bias.
    pub conv_bias: bool,
    /// Width of the positional convolution.
    pub num_conv_pos_embeddings: usize,
    /// Groups of the positional convolution; divides the width.
    pub num_conv_pos_embedding_groups: usize,
    /// Pre-norm layers and one norm behind them (large-lv60, XLSR).
    pub do_stable_layer_norm: bool,
    /// Whether training masks features.
    pub apply_spec_augment: bool,
    /// Share of the frames that masked spans start at, times their length.
    pub mask_time_prob: f64,
    /// Frames of a span.
    pub mask_time_length: usize,
    /// The fewest spans of an utterance.
    pub mask_time_min_masks: usize,
    /// The same over the features.
    pub mask_feature_prob: f64,
    /// Features of a span.
    pub mask_feature_length: usize,
    /// The fewest feature spans of an utterance.
    pub mask_feature_min_masks: usize,
    /// Convolutions behind the encoder: not supported.
    pub add_adapter: bool,
}

impl Default for Wav2Vec2Config {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout: 0.1,
            activation_dropout: 0.1,
            attention_dropout: 0.1,
            feat_proj_dropout: 0.0,
            layerdrop: 0.1,
            initializer_range: 0.02,
            layer_norm_eps: 1e-5,
            feat_extract_norm: "group".into(),
            feat_extract_activation: "gelu".into(),
            conv_dim: vec![512; 7],
            conv_stride: vec![5, 2, 2, 2, 2, 2, 2],
            conv_kernel: vec![10, 3, 3, 3, 3, 2, 2],
            conv_bias: false,
            num_conv_pos_embeddings: 128,
            num_conv_pos_embedding_groups: 16,
            do_stable_layer_norm: false,
            apply_spec_augment: true,
            mask_time_prob: 0.05,
            mask_time_length: 10,
            mask_time_min_masks: 2,
            mask_feature_prob: 0.0,
            mask_feature_length: 10,
            mask_feature_min_masks: 0,
            add_adapter: false,
        }
    }
}

impl Wav2Vec2Config {
    /// Reads a Hugging Face config.
    ///
    /// # Errors
    /// A value of the wrong type, out of range or not supported.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, EncoderError> {
        let config: Self = super::read_keys(ENCODER, json)?;
        config.check_supported(json)?;
        config.check_ranges()?;
        config.check_sizes()?;
        Ok(config)
    }

    /// Frames that the feature encoder makes of some samples; 0 where they are too few.
    #[must_use]
    pub fn frames(&self, samples: usize) -> usize {
        self.conv_kernel
            .iter()
            .zip(&self.conv_stride)
            .fold(samples, |time, (&kernel, &stride)| if time < kernel { 0 } else { (time - kernel) / stride + 1 })
    }

    /// Whether the encoder has the vector that replaces masked frames.
    #[must_use]
    pub fn has_mask_embedding(&self) -> bool {
        self.mask_time_prob > 0.0 || self.mask_feature_prob > 0.0
    }

    /// The shape of its layers.
    #[must_use]
    pub fn layer(&self) -> LayerConfig {
        LayerConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            feed_forward: self.intermediate_size,
            norm_first: self.do_stable_layer_norm,
            activation: Activation::Gelu,
            attention_dropout: self.attention_dropout,
            hidden_dropout: self.hidden_dropout,
            activation_dropout: self.activation_dropout,
            epsilon: self.layer_norm_eps,
        }
    }

    fn check_supported(&self, json: &serde_json::Value) -> Result<(), EncoderError> {
        let kind = json.get("model_type").and_then(|kind| kind.as_str()).unwrap_or("wav2vec2");
        let adapters = json.get("adapter_attn_dim").is_some_and(|width| !width.is_null());
        let checks = [
            ("model_type", kind == "wav2vec2", kind.to_owned(), "wav2vec2"),
            ("hidden_act", self.hidden_act == "gelu", self.hidden_act.clone(), "gelu"),
            (
                "feat_extract_activation",
                self.feat_extract_activation == "gelu",
                self.feat_extract_activation.clone(),
                "gelu",
            ),
            (
                "feat_extract_norm",
                matches!(self.feat_extract_norm.as_str(), "group" | "layer"),
                self.feat_extract_norm.clone(),
                "group or layer",
            ),
            ("add_adapter", !self.add_adapter, "true".to_owned(), "false"),
            ("adapter_attn_dim", !adapters, "a number".to_owned(), "null"),
        ];
        for (key, is_supported, found, supported) in checks {
            if !is_supported {
                return Err(EncoderError::Unsupported { encoder: ENCODER, key, found, supported });
            }
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<(), EncoderError> {
        let dropouts = [
            ("hidden_dropout", self.hidden_dropout),
            ("activation_dropout", self.activation_dropout),
            ("attention_dropout", self.attention_dropout),
            ("feat_proj_dropout", self.feat_proj_dropout),
            ("layerdrop", self.layerdrop),
        ];
        super::check_below_one(ENCODER, &dropouts)?;
        super::check_epsilon(ENCODER, self.layer_norm_eps)?;
        for (key, share) in [("mask_time_prob", self.mask_time_prob), ("mask_feature_prob", self.mask_feature_prob)] {
            if !(0.0..=1.0).contains(&share) {
                let problem = format!("{key} = {share} must be from 0 to 1");
                return Err(EncoderError::Invalid { encoder: ENCODER, problem });
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), EncoderError> {
        let invalid = |problem: String| Err(EncoderError::Invalid { encoder: ENCODER, problem });
        let layers = self.conv_dim.len();
        if layers == 0 || self.conv_kernel.len() != layers || self.conv_stride.len() != layers {
            return invalid(format!(
                "conv_dim, conv_kernel and conv_stride must have one value a convolution; they have {layers}, {} and {}",
                self.conv_kernel.len(),
                self.conv_stride.len()
            ));
        }
        let convolutions = self.conv_dim.iter().chain(&self.conv_kernel).chain(&self.conv_stride);
        if convolutions
            .chain([&self.hidden_size, &self.intermediate_size, &self.num_hidden_layers.saturating_add(1)])
            .any(|size| !(1..=super::MOST).contains(size))
        {
            return invalid(format!("sizes, kernels, strides and layers must be from 1 to {}", super::MOST));
        }
        for (key, parts) in [
            ("num_attention_heads", self.num_attention_heads),
            ("num_conv_pos_embedding_groups", self.num_conv_pos_embedding_groups),
        ] {
            if parts == 0 || !self.hidden_size.is_multiple_of(parts) {
                return invalid(format!("{key} = {parts} must divide hidden_size = {}", self.hidden_size));
            }
        }
        if self.num_conv_pos_embeddings == 0 || self.mask_time_length == 0 || self.mask_feature_length == 0 {
            return invalid("num_conv_pos_embeddings and the mask lengths must be 1 or more".into());
        }
        Ok(())
    }
}
