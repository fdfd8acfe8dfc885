//! The families of speech encoders. A family is a file with its config, its forward pass and its published names; what
//! the rest of the program asks of it are the traits here, and the list of families is the call of `families!`.
//! docs/encoders.md has the guide to adding one.
#![allow(clippy::large_enum_variant, reason = "a model has one encoder")]

use std::{collections::BTreeMap, fmt::Debug, ops::Deref};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Tensor, backend::Backend},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Encoded, EncoderError, Wanted, wav2vec2, whisper};
use crate::{
    choices::Precision,
    hash,
    keys::{Key, Values},
    nn::Init,
    ops::{self, Lengths, Mode, Ops},
    profile::{self, Stage},
};

pub(super) const ENCODER: &str = "speech encoder";

/// How a family's published files call things.
#[derive(Clone, Copy, Debug)]
pub struct PublishedNames {
    /// From paths of fields to the names of the family's class in transformers, applied in this order: what begins with a
    /// dot is replaced wherever it stands, all else at the start of a path.
    pub parameters: &'static [(&'static str, &'static str)],
    /// What classes with heads put in front of those names.
    pub prefixes: &'static [&'static str],
    /// Beginnings of the published names of the convolutions that turn samples into frames.
    pub feature_encoder: &'static [&'static str],
    /// Published names of parameters that never train.
    pub fixed: &'static [&'static str],
    /// Beginnings of tensors that are no part of the encoder: heads, decoders, buffers.
    pub others: &'static [&'static str],
}

/// What a family's `config.json` says.
pub trait SpeechConfig {
    /// Width of the hidden states.
    fn hidden_size(&self) -> usize;

    fn attention_heads(&self) -> usize;

    /// Width inside the feed-forward blocks.
    fn feed_forward(&self) -> usize;

    /// Transformer layers.
    fn layers(&self) -> usize;

    /// Convolutions in front of them.
    fn convolutions(&self) -> usize;

    /// Frames of the hidden states of some samples; 0 where they are too few.
    fn frames(&self, samples: usize) -> usize;

    /// Multiplications and additions of the feature encoder over an utterance.
    fn feature_operations(&self, samples: usize) -> f64;

    /// Whether the norm beside the layers lies behind them.
    fn is_norm_last(&self) -> bool;

    /// Whether the encoder has a vector that replaces masked frames.
    fn has_mask_embedding(&self) -> bool {
        false
    }

    /// Seconds beyond which nothing is heard, where there is such a limit.
    fn most_seconds(&self) -> Option<f64> {
        None
    }

    /// What a folder without the file of a feature extractor says of it.
    fn feature_extractor(&self) -> FeatureExtractorKind {
        FeatureExtractorKind::Waveform
    }

    /// What training leaves out by chance, in words behind the sizes.
    fn randomness(&self) -> String;

    /// Why the feature encoder's outputs cannot stand for the waveforms, if so.
    fn uncacheable(&self) -> Option<&'static str> {
        None
    }
}

/// What makes a speech encoder's input of a waveform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureExtractorKind {
    /// The waveform itself, with mean 0 and variance 1 if the feature extractor's file says so (`Wav2Vec2FeatureExtractor`).
    Waveform,
    /// The log-mel spectrogram of the waveform as it is, with zeros behind it to a length (`WhisperFeatureExtractor`).
    LogMel { bins: usize, samples: usize },
}

/// A family of configs.
pub trait SpeechFamily: SpeechConfig + Clone + Debug + Sized {
    /// The values of `model_type`.
    const MODEL_TYPES: &'static [&'static str];
    /// The keys of `[speech.config]`.
    const CONFIG_KEYS: &'static [Key];
    const NAMES: PublishedNames;

    /// Reads a Hugging Face config.
    ///
    /// # Errors
    /// A value of the wrong type, out of range or not supported.
    fn from_json(json: &Value) -> Result<Self, EncoderError>;

    /// Every key of `[speech.config]` with what is set, or the default of the family.
    fn stated(values: &dyn Values) -> BTreeMap<String, Value>;

    /// The same encoder, no layer of which is left out in training.
    fn without_layer_drop(self) -> Self;
}

/// A family's network.
pub trait SpeechNetwork<B: Backend>: Module<B> {
    type Config: SpeechFamily;

    /// An encoder with fresh parameters.
    fn new(config: &Self::Config, init: &mut Init<'_, B>) -> Self;

    /// The encoder with a fresh vector for masked frames, where it has one: for files that hold none.
    fn with_fresh_mask(self, _: &mut Init<'_, B>) -> Self {
        self
    }

    /// Stops gradients for the convolutions that turn samples into frames.
    fn freeze_feature_encoder(self) -> Self;

    /// Stops gradients for all in front of the layers and the lowest `count` layers.
    fn freeze_layers(self, count: usize) -> Self;
}

/// A family's forward pass.
pub trait SpeechForward<B: Ops>: SpeechNetwork<B> {
    /// Samples, row-major [batch, samples], zero behind the valid ones, to hidden states.
    fn forward(
        &self,
        samples: &[f32],
        lengths: &Lengths,
        wanted: Wanted,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Encoded<B> {
        let (features, frames) = self.features(samples, lengths, mode.precision(), device);
        self.encode(features, &frames, wanted, mode)
    }

    /// What the feature encoder makes of samples, row-major [batch, samples]: [batch, frames, channels], and the valid
    /// frames of each.
    fn features(
        &self,
        samples: &[f32],
        lengths: &Lengths,
        precision: Precision,
        device: &B::Device,
    ) -> (Tensor<B, 3>, Lengths);

    /// Features [batch, frames, channels], as [`SpeechForward::features`] gives them, to hidden states. What lies behind
    /// the valid frames may be any finite number.
    fn encode(&self, features: Tensor<B, 3>, lengths: &Lengths, wanted: Wanted, mode: Mode<'_>) -> Encoded<B> {
        let device = features.device();
        profile::time::<B, _>(Stage::SpeechLayers, &device, || self.hidden(features, lengths, wanted, mode))
    }

    /// What [`SpeechForward::encode`] does, but for measuring its time.
    fn hidden(&self, features: Tensor<B, 3>, lengths: &Lengths, wanted: Wanted, mode: Mode<'_>) -> Encoded<B>;

    /// What the features of a waveform depend on beside it, as the digits of a SHA-256: names, shapes and values of the
    /// feature encoder's parameters, how it is built, the number format of its products, and the backend that computes
    /// them.
    fn features_identity(&self, precision: Precision, backend: &str) -> String;
}

/// Makes the two types of all families, whose methods are those of the family.
macro_rules! families {
    ($($(#[$about:meta])* $family:ident: $config:ty, $network:ident;)+) => {
        /// The config of a speech encoder.
        #[derive(Clone, Debug)]
        pub enum SpeechEncoderConfig {
            $($(#[$about])* $family($config),)+
        }

        /// A speech encoder.
        #[derive(Module, Debug)]
        pub enum SpeechEncoder<B: Backend> {
            $($(#[$about])* $family($network::Encoder<B>),)+
        }

        /// The values of `model_type` of all families.
        pub const MODEL_TYPES: [&str; 0 $(+ <$config>::MODEL_TYPES.len())+] = joined([$(<$config>::MODEL_TYPES),+]);

        /// The keys of `[speech.config]`, a list a family. Families share some.
        pub const KEYS: &[&[Key]] = &[$(<$config>::CONFIG_KEYS),+];

        /// The names of the family whose variant of [`SpeechEncoder`] this is.
        pub fn names(variant: &str) -> Option<PublishedNames> {
            match variant {
                $(stringify!($family) => Some(<$config>::NAMES),)+
                _ => None,
            }
        }

        /// Whether a parameter of a speech encoder, by its name in a checkpoint, never trains.
        pub fn is_fixed(name: &str) -> bool {
            let own = name.strip_prefix("speech_encoder.");
            own.is_some_and(|own| [$(<$config>::NAMES.fixed),+].concat().contains(&own))
        }

        /// The keys of the family of this `model_type`, and every one with what is set or its default there.
        pub fn keys_of(model_type: &str, values: &dyn Values) -> (&'static [Key], BTreeMap<String, Value>) {
            $(if <$config>::MODEL_TYPES.contains(&model_type) {
                return (<$config>::CONFIG_KEYS, <$config>::stated(values));
            })+
            (&[], BTreeMap::new())
        }

        impl SpeechEncoderConfig {
            /// Reads a Hugging Face config; without `model_type` it is one of wav2vec 2.0.
            ///
            /// # Errors
            /// A family that is not here; a value of the wrong type, out of range or not supported.
            pub fn from_json(json: &Value) -> Result<Self, EncoderError> {
                let family = super::family_of(ENCODER, json, &MODEL_TYPES)?;
                $(if <$config>::MODEL_TYPES.contains(&family) {
                    return <$config as SpeechFamily>::from_json(json).map(Self::$family);
                })+
                Err(EncoderError::Invalid { encoder: ENCODER, problem: format!("model_type = {family} is not supported") })
            }

            /// See [`SpeechFamily::without_layer_drop`].
            pub fn without_layer_drop(self) -> Self {
                match self { $(Self::$family(config) => Self::$family(config.without_layer_drop()),)+ }
            }

            /// What its family's published files call things.
            pub fn names(&self) -> PublishedNames {
                match self { $(Self::$family(_) => <$config>::NAMES,)+ }
            }

            /// The keys of its family in `[speech.config]`.
            pub fn keys(&self) -> &'static [Key] {
                match self { $(Self::$family(_) => <$config>::CONFIG_KEYS,)+ }
            }
        }

        impl Deref for SpeechEncoderConfig {
            type Target = dyn SpeechConfig;

            fn deref(&self) -> &Self::Target {
                match self { $(Self::$family(config) => config,)+ }
            }
        }

        impl<B: Backend> SpeechEncoder<B> {
            /// See [`SpeechNetwork::new`].
            pub fn new(config: &SpeechEncoderConfig, init: &mut Init<'_, B>) -> Self {
                match config { $(SpeechEncoderConfig::$family(config) => Self::$family($network::Encoder::new(config, init)),)+ }
            }

            /// See [`SpeechNetwork::with_fresh_mask`].
            pub fn with_fresh_mask(self, init: &mut Init<'_, B>) -> Self {
                match self { $(Self::$family(encoder) => Self::$family(encoder.with_fresh_mask(init)),)+ }
            }

            /// See [`SpeechNetwork::freeze_feature_encoder`].
            pub fn freeze_feature_encoder(self) -> Self {
                match self { $(Self::$family(encoder) => Self::$family(encoder.freeze_feature_encoder()),)+ }
            }

            /// See [`SpeechNetwork::freeze_layers`].
            pub fn freeze_layers(self, count: usize) -> Self {
                match self { $(Self::$family(encoder) => Self::$family(encoder.freeze_layers(count)),)+ }
            }
        }

        impl<B: Ops> SpeechEncoder<B> {
            /// See [`SpeechForward::forward`].
            pub fn forward(
                &self,
                samples: &[f32],
                lengths: &Lengths,
                wanted: Wanted,
                mode: Mode<'_>,
                device: &B::Device,
            ) -> Encoded<B> {
                match self { $(Self::$family(encoder) => encoder.forward(samples, lengths, wanted, mode, device),)+ }
            }

            /// See [`SpeechForward::features`].
            pub fn features(
                &self,
                samples: &[f32],
                lengths: &Lengths,
                precision: Precision,
                device: &B::Device,
            ) -> (Tensor<B, 3>, Lengths) {
                match self { $(Self::$family(encoder) => encoder.features(samples, lengths, precision, device),)+ }
            }

            /// See [`SpeechForward::encode`].
            pub fn encode(
                &self,
                features: Tensor<B, 3>,
                lengths: &Lengths,
                wanted: Wanted,
                mode: Mode<'_>,
            ) -> Encoded<B> {
                match self { $(Self::$family(encoder) => encoder.encode(features, lengths, wanted, mode),)+ }
            }

            /// See [`SpeechForward::features_identity`].
            pub fn features_identity(&self, precision: Precision, backend: &str) -> String {
                match self { $(Self::$family(encoder) => encoder.features_identity(precision, backend),)+ }
            }
        }
    };
}

families! {
    /// And what has its shape.
    Wav2Vec2: wav2vec2::Config, wav2vec2;
    /// The encoder of Whisper.
    Whisper: whisper::Config, whisper;
}

/// Several lists as one.
const fn joined<const COUNT: usize, const LISTS: usize>(lists: [&[&'static str]; LISTS]) -> [&'static str; COUNT] {
    let mut all = [""; COUNT];
    let (mut list, mut count) = (0, 0);
    while list < LISTS {
        let mut entry = 0;
        while entry < lists[list].len() {
            all[count] = lists[list][entry];
            (entry, count) = (entry + 1, count + 1);
        }
        list += 1;
    }
    all
}

/// A convolution: weight [out, in, kernel], bias [out].
#[derive(Module, Debug)]
pub struct Convolution<B: Backend> {
    pub(super) weight: Param<Tensor<B, 3>>,
    pub(super) bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> Convolution<B> {
    /// Fresh weights as Kaiming's normal ones (He et al. 2015), biases as `torch.nn.Conv1d`'s.
    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    pub(super) fn kaiming(shape: [usize; 3], has_bias: bool, init: &mut Init<'_, B>) -> Self {
        let [width, input, kernel] = shape;
        let fan_in = (input * kernel) as f64;
        let bound = 1.0 / fan_in.sqrt();
        Self {
            weight: init.normal(shape, (2.0 / fan_in).sqrt()),
            bias: has_bias.then(|| init.uniform([width], -bound, bound)),
        }
    }
}

impl<B: Backend> Convolution<B> {
    /// Normal weights and no bias.
    pub(super) fn normal(shape: [usize; 3], deviation: f64, init: &mut Init<'_, B>) -> Self {
        Self { weight: init.normal(shape, deviation), bias: Some(init.constant([shape[0]], 0.0)) }
    }
}

impl<B: Ops> Convolution<B> {
    /// [batch, time, in] -> [batch, frames, out], without padding.
    pub(super) fn forward(&self, x: Tensor<B, 3>, stride: usize, precision: Precision) -> Tensor<B, 3> {
        ops::convolution(x, self.weight.val(), self.bias.as_ref().map(Param::val), stride, precision)
    }
}

/// Multiplications and additions of convolutions of [kernel, stride, width] over so many frames of so many channels.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
pub(super) fn convolution_operations(frames: usize, channels: usize, layers: impl Iterator<Item = [usize; 3]>) -> f64 {
    let (mut time, mut channels, mut operations) = (frames, channels, 0.0);
    for [kernel, stride, width] in layers {
        time = if time < kernel { 0 } else { (time - kernel) / stride + 1 };
        operations += 2.0 * time as f64 * (kernel * channels * width) as f64;
        channels = width;
    }
    operations
}

/// Takes in words and parameters. See [`SpeechForward::features_identity`].
pub(super) struct FeaturesHasher(Sha256);

impl FeaturesHasher {
    pub(super) fn new(precision: Precision, backend: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.put(backend);
        hasher.put(precision.word());
        hasher
    }

    /// Words end in a zero, so that no two lists of them are the same bytes.
    pub(super) fn put(&mut self, word: &str) {
        self.0.update(word);
        self.0.update([0]);
    }

    /// The digits of all that was put, and of a module's parameters.
    pub(super) fn digits_of<B: Backend, M: Module<B>>(mut self, module: &M) -> String {
        module.visit(&mut self);
        hash::hexadecimal(&self.0.finalize())
    }
}

impl<B: Backend> ModuleVisitor<B> for FeaturesHasher {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.put(name);
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        let data = parameter.val().into_data().convert::<f32>();
        self.put(&format!("{:?}", data.shape));
        self.0.update(data.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, for two layers over 20 samples: (20 - 4) / 2 + 1 = 9 frames of 4 x 1 x 8 products, then (9 - 3) / 3 + 1
    /// = 3 frames of 3 x 8 x 16.
    #[test]
    fn convolutions_are_counted_by_hand() {
        let operations = convolution_operations(20, 1, [[4, 2, 8], [3, 3, 16]].into_iter());
        assert!((operations - 2.0 * (9.0 * 32.0 + 3.0 * 384.0)).abs() < 1e-9);
    }
}
