//! The keys that matter here of the `config.json` of wav2vec 2.0 and the families that share its shape.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    EncoderError,
    layer::{Activation, LayerConfig},
    speech::{ENCODER, MODEL_TYPES, PublishedNames, SpeechConfig, SpeechFamily, convolution_operations},
};

use crate::keys::{
    Key,
    Kind::{Choice, Dropout, Integers, Number},
    Range, Unset, Values, at_least, section,
};

const WAVLM: &str = "wavlm";
const DATA2VEC: &str = "data2vec-audio";
const UNISPEECH_SAT: &str = "unispeech-sat";

section! {
    /// `[speech.config]`: a `config.json` with Hugging Face's defaults (those of the code of transformers 4.57 and 5, not
    /// of its docstring), of wav2vec 2.0 where those of data2vec differ.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct Wav2Vec2Config("speech.config") {
        /// family of the speech encoder
        model_type: String [Choice(&MODEL_TYPES)] = "wav2vec2".to_owned(), "\"wav2vec2\"";
        /// width of the speech encoder
        hidden_size: usize [at_least(1)] = 768;
        /// layers
        num_hidden_layers: usize [at_least(1)] = 12;
        /// attention heads; divides hidden_size
        num_attention_heads: usize [at_least(1)] = 12;
        /// inner width of a layer
        intermediate_size: usize [at_least(1)] = 3072;
        /// activation of the layers
        hidden_act: String [Choice(&["gelu"])] = "gelu".to_owned();
        /// dropout of the layers
        #[beside_checkpoint(free)]
        hidden_dropout: f64 [Dropout] = 0.1;
        /// dropout inside the feed-forward
        #[beside_checkpoint(free)]
        activation_dropout: f64 [Dropout] = 0.1;
        /// dropout of attention weights
        #[beside_checkpoint(free)]
        attention_dropout: f64 [Dropout] = 0.1;
        /// dropout after the feature projection
        #[beside_checkpoint(free)]
        feat_proj_dropout: f64 [Dropout] = 0.0;
        /// chance that a layer is left out of a training step
        #[beside_checkpoint(free)]
        layerdrop: f64 [Number(Range::BelowOne)] = 0.1;
        /// deviation of fresh weights
        initializer_range: f64 = 0.02;
        /// in layer norms
        layer_norm_eps: f64 [Number(Range::Positive)] = 1e-5;
        /// norm of the convolutions
        feat_extract_norm: String [Choice(&["group", "layer"])] = "group".to_owned();
        /// activation of the convolutions
        feat_extract_activation: String [Choice(&["gelu"])] = "gelu".to_owned();
        /// channels
        conv_dim: Vec<usize> [Integers] = vec![512, 512, 512, 512, 512, 512, 512];
        /// strides
        conv_stride: Vec<usize> [Integers] = vec![5, 2, 2, 2, 2, 2, 2];
        /// kernels
        conv_kernel: Vec<usize> [Integers] = vec![10, 3, 3, 3, 3, 2, 2];
        /// whether the convolutions have a bias
        conv_bias: bool = false;
        /// norm before the feature projection (hubert may be without)
        feat_proj_layer_norm: bool = true, "true";
        /// kernel of the positional convolution; data2vec-audio: their number (5)
        num_conv_pos_embeddings: usize [at_least(1)] = if model_type == DATA2VEC { 5 } else { 128 }, "128";
        /// kernel of each of data2vec-audio's positional convolutions
        conv_pos_kernel_size: usize [at_least(1)] = 19, "19";
        /// its groups; divides hidden_size
        num_conv_pos_embedding_groups: usize [at_least(1)] = 16;
        /// wavlm: buckets of the distances of two frames
        num_buckets: usize [at_least(4)] = 320, "320";
        /// wavlm: distance of the last bucket, in frames
        max_bucket_distance: usize [at_least(2)] = 800, "800";
        /// norms before the layers, as in large-lv60
        do_stable_layer_norm: bool = false;
        /// mask spans of frames in training
        #[beside_checkpoint(free)]
        apply_spec_augment: bool = true;
        /// share of masked frames; 0: none
        #[beside_checkpoint(free)]
        mask_time_prob: f64 [Number(Range::Unit)] = 0.05;
        /// frames a span
        #[beside_checkpoint(free)]
        mask_time_length: usize [at_least(1)] = 10;
        /// spans at least
        #[beside_checkpoint(free)]
        mask_time_min_masks: usize [at_least(0)] = 2;
        /// share of masked channels
        #[beside_checkpoint(free)]
        mask_feature_prob: f64 [Number(Range::Unit)] = 0.0;
        /// channels a span
        #[beside_checkpoint(free)]
        mask_feature_length: usize [at_least(1)] = 10;
        /// channel spans at least
        #[beside_checkpoint(free)]
        mask_feature_min_masks: usize [at_least(0)] = 0;
        /// only false: there is no such norm here
        conv_pos_batch_norm: bool = false, "false";
        /// only false: there is no such adapter here
        add_adapter: bool = false;
    }
}

impl Default for Wav2Vec2Config {
    fn default() -> Self {
        Self::read(&Unset)
    }
}

impl Wav2Vec2Config {
    /// The same sizes with the norms and biases of the published large models.
    pub fn with_layer_norms(self) -> Self {
        Self { feat_extract_norm: "layer".into(), conv_bias: true, do_stable_layer_norm: true, ..self }
    }

    /// Whether the positional convolution is data2vec's: several with norms in place of one with a weight norm.
    pub fn is_data2vec(&self) -> bool {
        self.model_type == DATA2VEC
    }

    /// Whether attention has `WavLM`'s bias.
    pub fn is_wavlm(&self) -> bool {
        self.model_type == WAVLM
    }

    /// The shape of its layers.
    pub fn layer(&self) -> LayerConfig {
        LayerConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            feed_forward: self.intermediate_size,
            norm_first: self.do_stable_layer_norm,
            has_key_bias: true,
            is_gated: self.is_wavlm(),
            activation: Activation::Gelu,
            attention_dropout: self.attention_dropout,
            hidden_dropout: self.hidden_dropout,
            activation_dropout: self.activation_dropout,
            epsilon: self.layer_norm_eps,
        }
    }

    fn check_supported(&self, json: &serde_json::Value) -> Result<(), EncoderError> {
        let adapters = json.get("adapter_attn_dim").is_some_and(|width| !width.is_null());
        let checks = [
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
            (
                "feat_proj_layer_norm",
                self.feat_proj_layer_norm || self.model_type == "hubert",
                "false".to_owned(),
                "true",
            ),
            ("conv_pos_batch_norm", !self.conv_pos_batch_norm, "true".to_owned(), "false"),
            ("add_adapter", !self.add_adapter, "true".to_owned(), "false"),
            (
                "padded",
                json.get("padded").and_then(Value::as_bool) != Some(true),
                "true".to_owned(),
                "false (true is for whisper)",
            ),
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
        if self.num_conv_pos_embeddings == 0
            || self.conv_pos_kernel_size == 0
            || self.mask_time_length == 0
            || self.mask_feature_length == 0
        {
            return invalid("num_conv_pos_embeddings and the mask lengths must be 1 or more".into());
        }
        Ok(())
    }
}

impl SpeechFamily for Wav2Vec2Config {
    const MODEL_TYPES: &'static [&'static str] = &["wav2vec2", "hubert", DATA2VEC, UNISPEECH_SAT, WAVLM];
    const CONFIG_KEYS: &'static [Key] = Self::KEYS;
    const NAMES: PublishedNames = PublishedNames {
        parameters: &[
            ("feature_encoder.", "feature_extractor."),
            ("mask_embedding", "masked_spec_embed"),
            ("positional.One.length", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
            ("positional.One.direction", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
            ("positional.One.bias", "encoder.pos_conv_embed.conv.bias"),
            ("positional.Several.", "encoder.pos_conv_embed.layers."),
            ("relative_positions.table.", "encoder.layers.0.attention.rel_attn_embed."),
            ("norm.", "encoder.layer_norm."),
            ("layers.", "encoder.layers."),
            (".attention.query.", ".attention.q_proj."),
            (".attention.key.", ".attention.k_proj."),
            (".attention.value.", ".attention.v_proj."),
            (".attention.output.", ".attention.out_proj."),
            (".gate.constant", ".attention.gru_rel_pos_const"),
            (".gate.map.", ".attention.gru_rel_pos_linear."),
            (".attention_norm.", ".layer_norm."),
            (".feed_forward.up.", ".feed_forward.intermediate_dense."),
            (".feed_forward.down.", ".feed_forward.output_dense."),
            (".output_norm.", ".final_layer_norm."),
        ],
        feature_encoder: &["feature_extractor."],
        fixed: &[],
        prefixes: &[
            "wav2vec2.",
            "hubert.",
            "data2vec_audio.",
            "unispeech_sat.",
            "wavlm.",
            "w2v_encoder.w2v_model.",
            "w2v_model.",
        ],
        others: &[
            "quantizer.",
            "project_q.",
            "project_hid.",
            "lm_head.",
            "projector.",
            "classifier.",
            "layer_weights",
            "label_embs_concat",
            "label_embeddings_concat",
            "speaker_proj.",
            "final_proj.",
            "w2v_encoder.proj.",
            "masked_spec_embed",
        ],
    };

    fn from_json(json: &Value) -> Result<Self, EncoderError> {
        let mut config: Self = super::read_keys(ENCODER, json)?;
        if config.is_data2vec() {
            if json.get("num_conv_pos_embeddings").is_none() {
                config.num_conv_pos_embeddings = 5;
            }
            // It has no such keys: its convolutions have layer norms, its layers the norm behind.
            config.feat_extract_norm = "layer".into();
            config.do_stable_layer_norm = false;
        }
        config.check_supported(json)?;
        config.check_ranges()?;
        config.check_sizes()?;
        Ok(config)
    }

    fn stated(values: &dyn Values) -> BTreeMap<String, Value> {
        let mut stated = BTreeMap::new();
        Self::read(values).write(&mut stated);
        stated
    }

    fn without_layer_drop(self) -> Self {
        Self { layerdrop: 0.0, ..self }
    }
}

impl SpeechConfig for Wav2Vec2Config {
    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn attention_heads(&self) -> usize {
        self.num_attention_heads
    }

    fn feed_forward(&self) -> usize {
        self.intermediate_size
    }

    fn layers(&self) -> usize {
        self.num_hidden_layers
    }

    fn convolutions(&self) -> usize {
        self.conv_dim.len()
    }

    fn frames(&self, samples: usize) -> usize {
        self.conv_kernel
            .iter()
            .zip(&self.conv_stride)
            .fold(samples, |time, (&kernel, &stride)| if time < kernel { 0 } else { (time - kernel) / stride + 1 })
    }

    fn feature_operations(&self, samples: usize) -> f64 {
        let layers = self.conv_kernel.iter().zip(&self.conv_stride).zip(&self.conv_dim);
        convolution_operations(samples, 1, layers.map(|((&kernel, &stride), &width)| [kernel, stride, width]))
    }

    fn randomness(&self) -> String {
        format!(", layerdrop {}, mask_time_prob {}", self.layerdrop, self.mask_time_prob)
    }

    fn is_norm_last(&self) -> bool {
        self.do_stable_layer_norm
    }

    /// Hugging Face's `UniSpeechSatModel` always has one.
    fn has_mask_embedding(&self) -> bool {
        self.mask_time_prob > 0.0 || self.mask_feature_prob > 0.0 || self.model_type == UNISPEECH_SAT
    }
}
