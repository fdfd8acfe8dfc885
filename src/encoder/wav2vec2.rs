//! The speech encoder: wav2vec 2.0 (Baevski et al. 2020) in both published variants, as Hugging Face's
//! `Wav2Vec2Model`: group norm with post-norm layers (base), layer norm with pre-norm layers (large-lv60, XLSR). The
//! same networks, trained otherwise, are `HuBERT` (Hsu et al. 2021, `HubertModel`) and `UniSpeech-SAT` (Chen et al. 2022);
//! data2vec (Baevski et al. 2022, `Data2VecAudioModel`) has several positional convolutions, `WavLM` (`WavLMModel`) a
//! bias of attention (see the module of that name).
//!
//! *Departure* from Hugging Face's batching: padding never reaches a result. Group-norm statistics run over an
//! utterance's own frames, padded frames are zeroed before the positional convolution, and attention is masked.

pub use super::wav2vec2_config::Wav2Vec2Config as Config;
use super::{
    Encoded, Wanted, Wav2Vec2Config,
    layer::{LayerInit, TransformerLayer, freeze_lowest},
    spec_augment::SpanMask,
    speech::{Convolution, FeaturesHasher, SpeechConfig as _, SpeechForward, SpeechNetwork},
    through_layers,
    wavlm::RelativePositions,
    with_zeros, zero_padding,
};
use crate::{
    choices::Precision,
    nn::{Init, LayerNorm, Linear},
    ops::{self, Lengths, Mode, Ops},
    profile::{self, Stage},
};
use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};

/// Added to the variance in the feature encoder's norms (the default of `torch.nn.GroupNorm` and `LayerNorm`).
const FEATURE_EPSILON: f64 = 1e-5;

/// How a convolution of the feature encoder is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FeatureNorm {
    None,
    /// Each channel over an utterance's valid frames.
    Group,
    /// Each frame over its channels.
    Layer,
}

/// One convolution of the feature encoder with its norm.
#[derive(Module, Debug)]
pub struct FeatureLayer<B: Backend> {
    conv: Convolution<B>,
    layer_norm: Option<LayerNorm<B>>,
    stride: usize,
    kernel: usize,
    #[module(skip)]
    kind: FeatureNorm,
}

impl<B: Backend> FeatureLayer<B> {
    fn new(config: &Wav2Vec2Config, index: usize, init: &mut Init<'_, B>) -> Self {
        let (width, kernel) = (config.conv_dim[index], config.conv_kernel[index]);
        let input = if index == 0 { 1 } else { config.conv_dim[index - 1] };
        let kind = match (config.feat_extract_norm.as_str(), index) {
            ("layer", _) => FeatureNorm::Layer,
            (_, 0) => FeatureNorm::Group,
            _ => FeatureNorm::None,
        };
        Self {
            conv: Convolution::kaiming([width, input, kernel], config.conv_bias, init),
            layer_norm: (kind != FeatureNorm::None).then(|| LayerNorm::new(width, FEATURE_EPSILON, init)),
            stride: config.conv_stride[index],
            kernel,
            kind,
        }
    }
}

impl<B: Ops> FeatureLayer<B> {
    /// [batch, time, in] -> [batch, frames, out]
    fn forward(&self, x: Tensor<B, 3>, lengths: &Lengths, precision: Precision) -> (Tensor<B, 3>, Lengths) {
        let frames = |time: usize| if time < self.kernel { 0 } else { (time - self.kernel) / self.stride + 1 };
        let lengths =
            Lengths::new(lengths.valid().iter().map(|&time| frames(time)).collect(), frames(lengths.longest()));
        let x = self.conv.forward(x, self.stride, precision);
        let x = match &self.layer_norm {
            None => x,
            Some(norm) if self.kind == FeatureNorm::Group => {
                <B as Ops>::masked_group_norm(x, norm.weight.val(), norm.bias.val(), &lengths, norm.epsilon())
            }
            Some(norm) => {
                let [batch, frames, channels] = x.dims();
                norm.forward(x.reshape([batch * frames, channels])).reshape([batch, frames, channels])
            }
        };
        (<B as Ops>::gelu(x), lengths)
    }
}

/// The convolutions that turn samples into frames of 25 ms every 20 ms.
#[derive(Module, Debug)]
pub struct FeatureEncoder<B: Backend> {
    conv_layers: Vec<FeatureLayer<B>>,
}

impl<B: Ops> FeatureEncoder<B> {
    /// [batch, samples] -> [batch, frames, features], and how many frames of each are valid.
    fn forward(&self, waveforms: Tensor<B, 2>, lengths: &Lengths, precision: Precision) -> (Tensor<B, 3>, Lengths) {
        let [batch, samples] = waveforms.dims();
        let mut features = waveforms.reshape([batch, samples, 1]);
        let mut lengths = lengths.clone();
        for layer in &self.conv_layers {
            (features, lengths) = layer.forward(features, &lengths, precision);
        }
        (features, lengths)
    }
}

/// Frames to the width of the layers.
#[derive(Module, Debug)]
pub struct FeatureProjection<B: Backend> {
    layer_norm: Option<LayerNorm<B>>,
    projection: Linear<B>,
}

/// The positional convolution, its weight split into direction and length (weight norm over the kernel's positions).
#[derive(Module, Debug)]
pub struct PositionalConvolution<B: Backend> {
    /// Length of the weight at each position: [1, 1, kernel].
    length: Param<Tensor<B, 3>>,
    /// [hidden, hidden / groups, kernel]
    direction: Param<Tensor<B, 3>>,
    bias: Param<Tensor<B, 1>>,
    groups: usize,
}

impl<B: Backend> PositionalConvolution<B> {
    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    fn new(config: &Wav2Vec2Config, init: &mut Init<'_, B>) -> Self {
        let (width, kernel) = (config.hidden_size, config.num_conv_pos_embeddings);
        let input = width / config.num_conv_pos_embedding_groups;
        let deviation = 2.0 / ((kernel * width) as f64).sqrt();
        Self {
            // The expected length of a fresh direction.
            length: init.constant([1, 1, kernel], deviation * ((width * input) as f64).sqrt()),
            direction: init.normal([width, input, kernel], deviation),
            bias: init.constant([width], 0.0),
            groups: config.num_conv_pos_embedding_groups,
        }
    }
}

impl<B: Ops> PositionalConvolution<B> {
    /// [batch, frames, hidden] -> the same.
    fn forward(&self, x: Tensor<B, 3>, precision: Precision) -> Tensor<B, 3> {
        let weight = <B as Ops>::weight_norm(self.direction.val(), self.length.val());
        <B as Ops>::gelu(ops::positional_convolution(x, weight, self.bias.val(), self.groups, precision))
    }
}

/// One of data2vec's positional convolutions; the norm behind it has no parameters.
#[derive(Module, Debug)]
pub struct PositionalLayer<B: Backend> {
    /// Its weight is [hidden, hidden / groups, kernel].
    conv: Convolution<B>,
    groups: usize,
}

impl<B: Backend> PositionalLayer<B> {
    fn new(config: &Wav2Vec2Config, init: &mut Init<'_, B>) -> Self {
        let (width, kernel, groups) =
            (config.hidden_size, config.conv_pos_kernel_size, config.num_conv_pos_embedding_groups);
        let input = width / groups;
        Self { conv: Convolution::kaiming([width, input, kernel], true, init), groups }
    }
}

impl<B: Ops> PositionalLayer<B> {
    /// [batch, frames, hidden] -> the same.
    fn forward(&self, x: Tensor<B, 3>, precision: Precision) -> Tensor<B, 3> {
        let [batch, frames, width] = x.dims();
        let zero = Tensor::zeros([width], &x.device());
        let (weight, bias) = (self.conv.weight.val(), self.conv.bias.as_ref().map_or_else(|| zero.clone(), Param::val));
        let x = ops::positional_convolution(x, weight, bias, self.groups, precision);
        let one = Tensor::ones([width], &x.device());
        let x = <B as Ops>::layer_norm(x.reshape([batch * frames, width]), one, zero, FEATURE_EPSILON);
        <B as Ops>::gelu(x.reshape([batch, frames, width]))
    }
}

/// What tells the layers where a frame is.
#[allow(clippy::large_enum_variant, reason = "an encoder has one of them")]
#[derive(Module, Debug)]
pub enum Positional<B: Backend> {
    One(PositionalConvolution<B>),
    Several(Vec<PositionalLayer<B>>),
}

impl<B: Ops> Positional<B> {
    /// [batch, frames, hidden], zero behind the valid frames -> the same.
    fn forward(&self, x: Tensor<B, 3>, lengths: &Lengths, precision: Precision) -> Tensor<B, 3> {
        match self {
            Self::One(convolution) => convolution.forward(x, precision),
            Self::Several(layers) => {
                layers.iter().fold(x, |x, layer| zero_padding(layer.forward(x, precision), lengths))
            }
        }
    }
}

/// Samples to hidden states.
#[allow(clippy::struct_field_names, reason = "its own name is that of all families")]
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    feature_encoder: FeatureEncoder<B>,
    feature_projection: FeatureProjection<B>,
    /// What masked frames are replaced by in training.
    mask_embedding: Option<Param<Tensor<B, 1>>>,
    positional: Positional<B>,
    /// In front of the layers (post-norm) or behind them (pre-norm).
    norm: LayerNorm<B>,
    /// `WavLM`'s, of all layers.
    relative_positions: Option<RelativePositions<B>>,
    layers: Vec<TransformerLayer<B>>,
    #[module(skip)]
    config: Wav2Vec2Config,
}

impl<B: Backend> SpeechNetwork<B> for Encoder<B> {
    type Config = Wav2Vec2Config;

    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    fn new(config: &Wav2Vec2Config, init: &mut Init<'_, B>) -> Self {
        let (width, deviation) = (config.hidden_size, config.initializer_range);
        let features = config.conv_dim.last().copied().unwrap_or(width);
        let layer = config.layer();
        let bound = 1.0 / (features as f64).sqrt();
        Self {
            feature_encoder: FeatureEncoder {
                conv_layers: (0..config.conv_dim.len()).map(|index| FeatureLayer::new(config, index, init)).collect(),
            },
            feature_projection: FeatureProjection {
                layer_norm: config.feat_proj_layer_norm.then(|| LayerNorm::new(features, config.layer_norm_eps, init)),
                projection: Linear {
                    weight: init.uniform([width, features], -bound, bound),
                    bias: Some(init.uniform([width], -bound, bound)),
                },
            },
            mask_embedding: config.has_mask_embedding().then(|| init.uniform([width], 0.0, 1.0)),
            positional: if config.is_data2vec() {
                let layers = 0..config.num_conv_pos_embeddings;
                Positional::Several(layers.map(|_| PositionalLayer::new(config, init)).collect())
            } else {
                Positional::One(PositionalConvolution::new(config, init))
            },
            norm: LayerNorm::new(width, config.layer_norm_eps, init),
            relative_positions: config.is_wavlm().then(|| {
                let (buckets, distance) = (config.num_buckets, config.max_bucket_distance);
                RelativePositions::new(buckets, distance, config.num_attention_heads, init)
            }),
            layers: (0..config.num_hidden_layers)
                .map(|_| TransformerLayer::new(&layer, LayerInit::Normal(deviation), init))
                .collect(),
            config: config.clone(),
        }
    }

    fn with_fresh_mask(mut self, init: &mut Init<'_, B>) -> Self {
        self.mask_embedding = self.mask_embedding.map(|_| init.uniform([self.config.hidden_size], 0.0, 1.0));
        self
    }

    fn freeze_feature_encoder(mut self) -> Self {
        self.feature_encoder = self.feature_encoder.no_grad();
        self
    }

    fn freeze_layers(mut self, count: usize) -> Self {
        if count > 0 {
            self = self.freeze_feature_encoder();
            self.feature_projection = self.feature_projection.no_grad();
            self.mask_embedding = self.mask_embedding.no_grad();
            self.positional = self.positional.no_grad();
            self.relative_positions = self.relative_positions.no_grad();
            if !self.config.do_stable_layer_norm {
                self.norm = self.norm.no_grad();
            }
        }
        self.layers = freeze_lowest(self.layers, count);
        self
    }
}

impl<B: Ops> SpeechForward<B> for Encoder<B> {
    fn features(
        &self,
        samples: &[f32],
        lengths: &Lengths,
        precision: Precision,
        device: &B::Device,
    ) -> (Tensor<B, 3>, Lengths) {
        let shape = [lengths.batch(), lengths.longest()];
        let waveforms = || Tensor::from_data(TensorData::new(samples.to_vec(), shape), device);
        let waveforms = profile::time::<B, _>(Stage::Data, device, waveforms);
        let convolve = || self.feature_encoder.forward(waveforms, lengths, precision);
        profile::time::<B, _>(Stage::FeatureEncoder, device, convolve)
    }

    fn hidden(&self, features: Tensor<B, 3>, lengths: &Lengths, wanted: Wanted, mode: Mode<'_>) -> Encoded<B> {
        let lengths = lengths.padded_for::<B>();
        let features = with_zeros(features, lengths.longest());
        let [batch, frames, channels] = features.dims();
        let features = features.reshape([batch * frames, channels]);
        let features = match &self.feature_projection.layer_norm {
            Some(norm) => norm.forward(features),
            None => features,
        };
        let features = self.feature_projection.projection.forward_in(features, mode.precision());
        let features = ops::dropout(features, mode.dropout(self.config.feat_proj_dropout));
        let hidden = self.mask_spans(features.reshape([batch, frames, self.config.hidden_size]), &lengths, mode);
        let (hidden, states) = self.layers(hidden, &lengths, wanted, mode);
        Encoded { hidden, states, lengths }
    }

    fn features_identity(&self, precision: Precision, backend: &str) -> String {
        let mut hasher = FeaturesHasher::new(precision, backend);
        for layer in &self.feature_encoder.conv_layers {
            hasher.put(&format!("stride {} {:?}", layer.stride, layer.kind));
        }
        hasher.digits_of(&self.feature_encoder)
    }
}

impl<B: Ops> Encoder<B> {
    /// [batch, frames, hidden] -> [batch * frames, hidden], and those of all layers where they are wanted.
    fn layers(
        &self,
        hidden: Tensor<B, 3>,
        lengths: &Lengths,
        wanted: Wanted,
        mode: Mode<'_>,
    ) -> (Tensor<B, 2>, Vec<Tensor<B, 2>>) {
        let [batch, frames, width] = hidden.dims();
        let hidden = zero_padding(hidden, lengths);
        let hidden = hidden.clone() + self.positional.forward(hidden, lengths, mode.precision());
        let mut hidden = hidden.reshape([batch * frames, width]);
        if !self.config.do_stable_layer_norm {
            hidden = self.norm.forward(hidden);
        }
        hidden = ops::dropout(hidden, mode.dropout(self.config.hidden_dropout));
        let bias = self.relative_positions.as_ref().map(|positions| positions.bias(frames, &hidden.device()));
        let run = |number, layer: &TransformerLayer<B>, hidden| {
            let drawn = mode.generator().map(|mut generator| generator.uniform());
            let is_left_out = drawn.is_some_and(|drawn| drawn < self.config.layerdrop);
            // WavLM's first layer, which makes the bias of all, is never left out.
            if !is_left_out || (number == 0 && self.config.is_wavlm()) {
                layer.forward_beside(hidden, bias.as_ref(), lengths, mode)
            } else {
                hidden
            }
        };
        let last = |hidden| if self.config.do_stable_layer_norm { self.norm.forward(hidden) } else { hidden };
        through_layers(&self.layers, hidden, wanted, run, last)
    }

    /// `SpecAugment`: spans of frames become the mask embedding, spans of features become zero.
    fn mask_spans(&self, hidden: Tensor<B, 3>, lengths: &Lengths, mode: Mode<'_>) -> Tensor<B, 3> {
        let (Some(mut random), true) = (mode.generator(), self.config.apply_spec_augment) else { return hidden };
        let [batch, frames, width] = hidden.dims();
        let device = hidden.device();
        let config = &self.config;
        let mut hidden = hidden;
        if let (Some(embedding), true) = (&self.mask_embedding, config.mask_time_prob > 0.0) {
            let spans = SpanMask {
                probability: config.mask_time_prob,
                length: config.mask_time_length,
                min_spans: config.mask_time_min_masks,
            };
            let mut masked = Vec::with_capacity(batch * frames);
            for &valid in lengths.valid() {
                let mut row = spans.draw(valid, &mut random);
                row.resize(frames, false);
                masked.extend(row);
            }
            let masked = to_tensor::<B>(&masked, [batch, frames, 1], &device);
            let embedding = embedding.val().reshape([1, 1, width]);
            hidden = hidden * (masked.clone() * -1.0 + 1.0) + embedding * masked;
        }
        if config.mask_feature_prob > 0.0 {
            let spans = SpanMask {
                probability: config.mask_feature_prob,
                length: config.mask_feature_length,
                min_spans: config.mask_feature_min_masks,
            };
            let masked: Vec<bool> = (0..batch).flat_map(|_| spans.draw(width, &mut random)).collect();
            hidden = hidden * (to_tensor::<B>(&masked, [batch, 1, width], &device) * -1.0 + 1.0);
        }
        hidden
    }
}

/// 1 where `masked`.
fn to_tensor<B: Backend>(masked: &[bool], shape: [usize; 3], device: &B::Device) -> Tensor<B, 3> {
    let values: Vec<f32> = masked.iter().map(|&masked| f32::from(u8::from(masked))).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
