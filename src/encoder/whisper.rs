//! The encoder of Whisper (Radford et al. 2023), as Hugging Face's `WhisperEncoder`: two convolutions over a log-mel
//! spectrogram, sinusoids as positions, pre-norm layers whose keys have no bias.
//!
//! *Departure*: the published encoder hears 30 s, silence behind a shorter utterance. Here the spectrogram is that of the
//! utterance with zeros behind it (its floor depends on the loudest frame), but only the utterance's own frames go through
//! the layers; `padded` in the config keeps all 1,500. docs/encoders.md says it in full.

use std::collections::BTreeMap;

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};
use clasp_signal::MelSpectrogram;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Encoded, EncoderError, Wanted, check_below_one,
    layer::{Activation, LayerConfig, LayerInit, TransformerLayer, freeze_lowest},
    spec_augment::SpanMask,
    speech::{
        Convolution, ENCODER, FeatureExtractorKind, FeaturesHasher, MODEL_TYPES, PublishedNames, SpeechConfig,
        SpeechFamily, SpeechForward, SpeechNetwork, convolution_operations,
    },
    through_layers, with_zeros,
};
use crate::{
    choices::Precision,
    data::SAMPLE_RATE,
    keys::{
        Key,
        Kind::{Choice, Dropout, Number},
        Range, Unset, Values, at_least, section,
    },
    nn::{Init, LayerNorm},
    ops::{self, Lengths, Mode, Ops},
    profile::{self, Stage},
};

/// Samples of a frame of the layers: two of the spectrogram.
const FRAME: usize = 320;
/// Added to the variance in the norms (the default of `torch.nn.LayerNorm`).
const EPSILON: f64 = 1e-5;
/// The smallest and the largest wave length of the positions' sinusoids are this far apart.
const MOST_TIMESCALE: f64 = 10_000.0;

section! {
    /// `[speech.config]` of Whisper: a `config.json` with Hugging Face's defaults.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct Config("speech.config") {
        by_hand {} into {
            /// Keep the silence behind an utterance, to 30 s: `speech.padded`.
            padded: bool;
        }
        /// family of the speech encoder
        model_type: String [Choice(&MODEL_TYPES)] = "whisper".to_owned(), "\"wav2vec2\"";
        /// whisper: width of the encoder
        d_model: usize [at_least(4)] = 384, "384";
        /// whisper: layers
        encoder_layers: usize [at_least(1)] = 4, "4";
        /// whisper: attention heads; divides d_model
        encoder_attention_heads: usize [at_least(1)] = 6, "6";
        /// whisper: inner width of a layer
        encoder_ffn_dim: usize [at_least(1)] = 1536, "1536";
        /// whisper: bins of the log-mel spectrogram (128 in large-v3)
        num_mel_bins: usize [at_least(1)] = 80, "80";
        /// whisper: rows of the positions, 20 ms each
        max_source_positions: usize [at_least(1)] = 1500, "1500";
        /// whisper: activation
        activation_function: String [Choice(&["gelu"])] = "gelu".to_owned(), "\"gelu\"";
        /// whisper: dropout of the layers
        #[beside_checkpoint(free)]
        dropout: f64 [Dropout] = 0.0, "0.0";
        /// dropout of attention weights
        #[beside_checkpoint(free)]
        attention_dropout: f64 [Dropout] = 0.0, "0.1";
        /// dropout inside the feed-forward
        #[beside_checkpoint(free)]
        activation_dropout: f64 [Dropout] = 0.0, "0.1";
        /// whisper: chance that a layer is left out of a training step
        #[beside_checkpoint(free)]
        encoder_layerdrop: f64 [Number(Range::BelowOne)] = 0.0, "0.0";
        /// whisper: deviation of fresh weights
        init_std: f64 = 0.02, "0.02";
        /// mask spans of frames in training
        #[beside_checkpoint(free)]
        apply_spec_augment: bool = false, "true";
        /// share of masked frames; 0: none
        #[beside_checkpoint(free)]
        mask_time_prob: f64 [Number(Range::Unit)] = 0.05, "0.05";
        /// frames a span
        #[beside_checkpoint(free)]
        mask_time_length: usize [at_least(1)] = 10, "10";
        /// spans at least
        #[beside_checkpoint(free)]
        mask_time_min_masks: usize [at_least(0)] = 2, "2";
        /// share of masked channels
        #[beside_checkpoint(free)]
        mask_feature_prob: f64 [Number(Range::Unit)] = 0.0, "0.0";
        /// channels a span
        #[beside_checkpoint(free)]
        mask_feature_length: usize [at_least(1)] = 10, "10";
        /// channel spans at least
        #[beside_checkpoint(free)]
        mask_feature_min_masks: usize [at_least(0)] = 0, "0";
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::read(&Unset, false)
    }
}

impl Config {
    fn layer(&self) -> LayerConfig {
        LayerConfig {
            width: self.d_model,
            heads: self.encoder_attention_heads,
            feed_forward: self.encoder_ffn_dim,
            norm_first: true,
            has_key_bias: false,
            is_gated: false,
            activation: Activation::Gelu,
            attention_dropout: self.attention_dropout,
            hidden_dropout: self.dropout,
            activation_dropout: self.activation_dropout,
            epsilon: EPSILON,
        }
    }

    fn check(&self) -> Result<(), EncoderError> {
        if self.activation_function != "gelu" {
            let found = self.activation_function.clone();
            return Err(EncoderError::Unsupported {
                encoder: ENCODER,
                key: "activation_function",
                found,
                supported: "gelu",
            });
        }
        let dropouts = [
            ("dropout", self.dropout),
            ("attention_dropout", self.attention_dropout),
            ("activation_dropout", self.activation_dropout),
            ("encoder_layerdrop", self.encoder_layerdrop),
        ];
        check_below_one(ENCODER, &dropouts)?;
        let invalid = |problem: String| Err(EncoderError::Invalid { encoder: ENCODER, problem });
        for (key, share) in [("mask_time_prob", self.mask_time_prob), ("mask_feature_prob", self.mask_feature_prob)] {
            if !(0.0..=1.0).contains(&share) {
                return invalid(format!("{key} = {share} must be from 0 to 1"));
            }
        }
        for (key, size, least) in [
            ("d_model", self.d_model, 4),
            ("encoder_ffn_dim", self.encoder_ffn_dim, 1),
            ("encoder_layers + 1", self.encoder_layers.saturating_add(1), 1),
            ("num_mel_bins", self.num_mel_bins, 1),
            ("max_source_positions", self.max_source_positions, 1),
            ("mask_time_length", self.mask_time_length, 1),
            ("mask_feature_length", self.mask_feature_length, 1),
        ] {
            if !(least..=super::MOST).contains(&size) {
                return invalid(format!("{key} = {size} must be from {least} to {}", super::MOST));
            }
        }
        let heads = self.encoder_attention_heads;
        if heads == 0 || !self.d_model.is_multiple_of(heads) || !self.d_model.is_multiple_of(2) {
            return invalid(format!("encoder_attention_heads = {heads} and 2 must divide d_model = {}", self.d_model));
        }
        Ok(())
    }
}

impl SpeechFamily for Config {
    const MODEL_TYPES: &'static [&'static str] = &["whisper"];
    const CONFIG_KEYS: &'static [Key] = Self::KEYS;
    const NAMES: PublishedNames = PublishedNames {
        parameters: &[
            ("convolutions.0.", "conv1."),
            ("convolutions.1.", "conv2."),
            ("positions", "embed_positions.weight"),
            ("norm.", "layer_norm."),
            (".attention.query.", ".self_attn.q_proj."),
            (".attention.key.", ".self_attn.k_proj."),
            (".attention.value.", ".self_attn.v_proj."),
            (".attention.output.", ".self_attn.out_proj."),
            (".attention_norm.", ".self_attn_layer_norm."),
            (".feed_forward.up.", ".fc1."),
            (".feed_forward.down.", ".fc2."),
            (".output_norm.", ".final_layer_norm."),
        ],
        feature_encoder: &["conv1.", "conv2."],
        fixed: &["embed_positions.weight"],
        prefixes: &["model.encoder.", "encoder."],
        others: &["model.decoder.", "decoder.", "proj_out.", "projector.", "classifier.", "layer_weights"],
    };

    fn from_json(json: &Value) -> Result<Self, EncoderError> {
        let config: Self = super::read_keys(ENCODER, json)?;
        config.check()?;
        Ok(config)
    }

    fn stated(values: &dyn Values) -> BTreeMap<String, Value> {
        let mut stated = BTreeMap::new();
        Self::read(values, false).write(&mut stated);
        stated
    }

    fn without_layer_drop(self) -> Self {
        Self { encoder_layerdrop: 0.0, ..self }
    }
}

impl SpeechConfig for Config {
    fn hidden_size(&self) -> usize {
        self.d_model
    }

    fn attention_heads(&self) -> usize {
        self.encoder_attention_heads
    }

    fn feed_forward(&self) -> usize {
        self.encoder_ffn_dim
    }

    fn layers(&self) -> usize {
        self.encoder_layers
    }

    fn convolutions(&self) -> usize {
        2
    }

    fn frames(&self, samples: usize) -> usize {
        samples.div_ceil(FRAME).min(self.max_source_positions)
    }

    fn feature_operations(&self, samples: usize) -> f64 {
        let frames = if self.padded { self.max_source_positions } else { self.frames(samples) };
        convolution_operations(2 * frames, self.num_mel_bins, [[3, 1, self.d_model], [3, 2, self.d_model]].into_iter())
    }

    fn randomness(&self) -> String {
        format!(", encoder_layerdrop {}", self.encoder_layerdrop)
    }

    fn is_norm_last(&self) -> bool {
        true
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    fn most_seconds(&self) -> Option<f64> {
        Some((self.max_source_positions * FRAME) as f64 / f64::from(SAMPLE_RATE))
    }

    fn feature_extractor(&self) -> FeatureExtractorKind {
        FeatureExtractorKind::LogMel { bins: self.num_mel_bins, samples: self.max_source_positions * FRAME }
    }

    fn uncacheable(&self) -> Option<&'static str> {
        if self.padded {
            return Some("keeps an utterance's own frames, but speech.padded needs those of 30 s: remove one of them");
        }
        let masks = self.apply_spec_augment && (self.mask_time_prob > 0.0 || self.mask_feature_prob > 0.0);
        let reason = "keeps what the convolutions make of a whole spectrogram, but speech.config.apply_spec_augment masks \
                      it in front of them: set that to false, or remove this";
        masks.then_some(reason)
    }
}

/// The two convolutions, over zeros at both ends.
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    convolutions: Vec<Convolution<B>>,
    /// [positions, width]; they never train.
    positions: Param<Tensor<B, 2>>,
    layers: Vec<TransformerLayer<B>>,
    /// Behind the layers.
    norm: LayerNorm<B>,
    #[module(skip)]
    config: Config,
}

impl<B: Backend> SpeechNetwork<B> for Encoder<B> {
    type Config = Config;

    fn new(config: &Config, init: &mut Init<'_, B>) -> Self {
        let width = config.d_model;
        let (layer, deviation) = (config.layer(), config.init_std);
        Self {
            convolutions: vec![
                Convolution::normal([width, config.num_mel_bins, 3], deviation, init),
                Convolution::normal([width, width, 3], deviation, init),
            ],
            positions: init.fixed(sinusoids(config.max_source_positions, width), [config.max_source_positions, width]),
            layers: (0..config.encoder_layers)
                .map(|_| TransformerLayer::new(&layer, LayerInit::Normal(deviation), init))
                .collect(),
            norm: LayerNorm::new(width, EPSILON, init),
            config: config.clone(),
        }
    }

    fn freeze_feature_encoder(mut self) -> Self {
        self.convolutions = self.convolutions.no_grad();
        self
    }

    fn freeze_layers(mut self, count: usize) -> Self {
        if count > 0 {
            self = self.freeze_feature_encoder();
        }
        self.layers = freeze_lowest(self.layers, count);
        self
    }
}

impl<B: Ops> SpeechForward<B> for Encoder<B> {
    /// As usual, but for `SpecAugment`, which masks the spectrogram.
    fn forward(
        &self,
        samples: &[f32],
        lengths: &Lengths,
        wanted: Wanted,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Encoded<B> {
        let spectrogram = self.spectrogram(samples, lengths);
        let (features, frames) = self.convolve(self.masked(spectrogram, mode), mode.precision(), device);
        self.encode(features, &frames, wanted, mode)
    }

    fn features(
        &self,
        samples: &[f32],
        lengths: &Lengths,
        precision: Precision,
        device: &B::Device,
    ) -> (Tensor<B, 3>, Lengths) {
        self.convolve(self.spectrogram(samples, lengths), precision, device)
    }

    fn hidden(&self, features: Tensor<B, 3>, own: &Lengths, wanted: Wanted, mode: Mode<'_>) -> Encoded<B> {
        let lengths = if self.config.padded { Lengths::full(own.batch(), features.dims()[1]) } else { own.clone() };
        let lengths = lengths.padded_for::<B>();
        let features = with_zeros(features, lengths.longest());
        let [batch, frames, width] = features.dims();
        // A batch may be padded beyond the last position, where nothing is valid.
        let known = frames.min(self.config.max_source_positions);
        let positions = self.positions.val().narrow(0, 0, known).reshape([1, known, width]);
        let hidden = features + with_zeros(positions, frames);
        let hidden = hidden.reshape([batch * frames, width]);
        let hidden = ops::dropout(hidden, mode.dropout(self.config.dropout));
        let run = |_, layer: &TransformerLayer<B>, hidden| {
            let drawn = mode.generator().map(|mut generator| generator.uniform());
            let is_kept = drawn.is_none_or(|drawn| drawn >= self.config.encoder_layerdrop);
            if is_kept { layer.forward(hidden, &lengths, mode) } else { hidden }
        };
        let (hidden, states) = through_layers(&self.layers, hidden, wanted, run, |hidden| self.norm.forward(hidden));
        if !self.config.padded {
            return Encoded { hidden, states, lengths };
        }
        let own = own.padded_for::<B>();
        let kept = own.longest().min(frames);
        let cut = |hidden: Tensor<B, 2>| {
            hidden.reshape([batch, frames, width]).narrow(1, 0, kept).reshape([batch * kept, width])
        };
        let lengths = Lengths::new(own.valid().to_vec(), kept);
        Encoded { hidden: cut(hidden), states: states.into_iter().map(cut).collect(), lengths }
    }

    fn features_identity(&self, precision: Precision, backend: &str) -> String {
        let mut hasher = FeaturesHasher::new(precision, backend);
        hasher.put("log-mel");
        hasher.digits_of(&self.convolutions)
    }
}

/// Log-mel frames of a batch.
struct Spectrogram {
    /// Row-major [batch, frames, bins].
    values: Vec<f32>,
    /// Frames a row.
    frames: usize,
    /// Frames of the layers that each utterance has.
    lengths: Lengths,
}

impl<B: Ops> Encoder<B> {
    /// A row is as long as the convolutions need for the frames that are wanted.
    fn spectrogram(&self, samples: &[f32], lengths: &Lengths) -> Spectrogram {
        let own: Vec<usize> = lengths.valid().iter().map(|&samples| self.config.frames(samples)).collect();
        let longest = own.iter().copied().max().unwrap_or(0);
        let most = self.config.max_source_positions;
        let wanted = if self.config.padded { most } else { longest };
        // The last frame hears one of the spectrogram behind its two, where there is one.
        let frames = (2 * wanted + 1).min(2 * most);
        let mel = MelSpectrogram::new(self.config.num_mel_bins, most * FRAME);
        let rows = samples.par_chunks(lengths.longest().max(1)).zip(lengths.valid());
        let values: Vec<Vec<f32>> = rows.map(|(row, &valid)| mel.frames(&row[..valid], frames)).collect();
        Spectrogram { values: values.concat(), frames, lengths: Lengths::new(own, longest) }
    }

    /// `SpecAugment` on the spectrogram: spans of an utterance's own frames and spans of bins become zero, as in
    /// `WhisperModel._mask_input_features`.
    fn masked(&self, mut spectrogram: Spectrogram, mode: Mode<'_>) -> Spectrogram {
        let config = &self.config;
        let (Some(mut random), true) = (mode.generator(), config.apply_spec_augment) else { return spectrogram };
        let bins = config.num_mel_bins;
        let in_time = SpanMask {
            probability: config.mask_time_prob,
            length: config.mask_time_length,
            min_spans: config.mask_time_min_masks,
        };
        let in_bins = SpanMask {
            probability: config.mask_feature_prob,
            length: config.mask_feature_length,
            min_spans: config.mask_feature_min_masks,
        };
        let rows = spectrogram.values.chunks_mut(spectrogram.frames * bins);
        for (row, &own) in rows.zip(spectrogram.lengths.valid()) {
            let times = in_time.draw(2 * own, &mut random);
            let channels = in_bins.draw(bins, &mut random);
            for (number, frame) in row.chunks_mut(bins).enumerate() {
                let is_masked = times.get(number).copied().unwrap_or(false);
                let masked = frame.iter_mut().zip(&channels).filter(|(_, channel)| is_masked || **channel);
                masked.for_each(|(value, _)| *value = 0.0);
            }
        }
        spectrogram
    }

    /// [batch, frames of the layers, width], and the frames of each utterance.
    fn convolve(&self, spectrogram: Spectrogram, precision: Precision, device: &B::Device) -> (Tensor<B, 3>, Lengths) {
        let Spectrogram { values, frames, lengths } = spectrogram;
        let (batch, bins) = (lengths.batch(), self.config.num_mel_bins);
        let upload = || Tensor::from_data(TensorData::new(values, [batch, frames, bins]), device);
        let spectrogram = profile::time::<B, _>(Stage::Data, device, upload);
        let convolve = || {
            // The published convolutions have a zero at either end; where the rows are cut, what is there is heard.
            let is_whole = frames == 2 * self.config.max_source_positions;
            let x = <B as Ops>::gelu(self.convolutions[0].forward(with_ends(spectrogram, is_whole), 1, precision));
            <B as Ops>::gelu(self.convolutions[1].forward(with_ends(x, is_whole), 2, precision))
        };
        (profile::time::<B, _>(Stage::FeatureEncoder, device, convolve), lengths)
    }
}

/// A zero in front of a spectrogram or features, and one behind where nothing is cut off.
fn with_ends<B: Backend>(x: Tensor<B, 3>, is_whole: bool) -> Tensor<B, 3> {
    let [batch, _, channels] = x.dims();
    let zero = Tensor::zeros([batch, 1, channels], (&x.device(), x.dtype()));
    let mut parts = vec![zero.clone(), x];
    if is_whole {
        parts.push(zero);
    }
    Tensor::cat(parts, 1)
}

/// The positions of the published models, row-major [positions, width]: sines, then cosines.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small counts; parameters are f32")]
fn sinusoids(positions: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = MOST_TIMESCALE.ln() / (half - 1) as f64;
    let angles = |position: usize| (0..half).map(move |place| position as f64 * (-step * place as f64).exp());
    let row = |position: usize| angles(position).map(f64::sin).chain(angles(position).map(f64::cos));
    (0..positions).flat_map(row).map(|value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sinusoids(3, 4)` of transformers 5.24: sin(p), sin(p / 10,000), cos(p), cos(p / 10,000).
    #[test]
    fn positions_are_sinusoids() {
        let expected =
            [0.0, 0.0, 1.0, 1.0, 0.841_471, 0.000_1, 0.540_302_3, 1.0, 0.909_297_4, 0.000_2, -0.416_146_84, 1.0];
        let found = sinusoids(3, 4);
        assert!(found.iter().zip(expected).all(|(found, expected): (&f32, f32)| (found - expected).abs() < 1e-6));
    }

    #[test]
    fn frames_are_of_20_ms_and_30_s_at_most() {
        let config = Config::default();
        assert_eq!([0, 1, 320, 321, 480_000, 480_001].map(|samples| config.frames(samples)), [0, 1, 1, 2, 1500, 1500]);
        assert!((config.most_seconds().unwrap() - 30.0).abs() < 1e-12);
    }
}
