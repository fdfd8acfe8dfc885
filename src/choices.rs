//! The words a config may use where it must choose one of a few, and the name of a device.
//!
//! Each choice is an enum whose serde name is the word of the config file, of `config.json` and of the reports. It lies
//! beside [`crate::keys`], below every module that takes one; the table of keys takes the lists of words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::keys::{Key, Kind, Setting, Values};

/// Declares an enum whose variants are words of the config, with the list of the words.
macro_rules! choices {
    ($(#[$about:meta])* $name:ident { $($(#[$variant_about:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_about])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// Every choice, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word of the config file.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            /// The choice that a word names.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl $crate::keys::Setting for $name {
            const KIND: $crate::keys::Kind = $crate::keys::Kind::Choice(Self::WORDS);

            fn read(values: &dyn $crate::keys::Values, key: &$crate::keys::Key) -> Option<Self> {
                Self::from_word(values.value(key)?.as_str()?)
            }

            fn write(&self) -> serde_json::Value {
                self.word().into()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.word())
            }
        }
    };
}

pub(crate) use choices;

choices! {
    /// How an encoder's states become one vector.
    Pooling {
        /// The first: that of `<s>` or `[CLS]`.
        Cls = "cls",
        /// The mean over the utterance's own.
        Mean = "mean",
        /// The sum of the utterance's own, weighted by the softmax of a learned score.
        Attention = "attention",
    }
}

/// Which of an encoder's states the heads see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layers {
    /// The last layer's.
    #[default]
    Last,
    /// Those behind this many layers; 0 is in front of them.
    One(usize),
    /// The sum of all, weighted by the softmax of a learned scalar each.
    Mix,
}

impl Layers {
    fn from_json(json: &serde_json::Value) -> Option<Self> {
        match json.as_str() {
            Some("last") => Some(Self::Last),
            Some("mix") => Some(Self::Mix),
            Some(_) => None,
            None => json.as_u64().and_then(|layer| usize::try_from(layer).ok()).map(Self::One),
        }
    }

    fn to_json(self) -> serde_json::Value {
        match self {
            Self::Last => "last".into(),
            Self::One(layer) => layer.into(),
            Self::Mix => "mix".into(),
        }
    }

    /// Whether a value of a config is one.
    #[must_use]
    pub fn is_value(value: &toml::Value) -> bool {
        match value {
            toml::Value::String(word) => ["last", "mix"].contains(&word.as_str()),
            toml::Value::Integer(layer) => *layer >= 0,
            _ => false,
        }
    }

    /// Whether they are the last layer's: what older checkpoints do not say.
    #[must_use]
    pub fn is_last(&self) -> bool {
        *self == Self::Last
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_json() {
            serde_json::Value::String(word) => formatter.write_str(&word),
            number => write!(formatter, "{number}"),
        }
    }
}

impl Serialize for Layers {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        let expected =
            || serde::de::Error::custom(format!("layers: {json} is not \"last\", \"mix\" or a number of layers"));
        Self::from_json(&json).ok_or_else(expected)
    }
}

impl Setting for Layers {
    const KIND: Kind = Kind::Layers;

    fn read(values: &dyn Values, key: &Key) -> Option<Self> {
        match values.value(key)? {
            toml::Value::Integer(layer) => usize::try_from(*layer).ok().map(Self::One),
            value => Self::from_json(&value.as_str()?.into()),
        }
    }

    fn write(&self) -> serde_json::Value {
        self.to_json()
    }
}

choices! {
    /// What is left out of the paper's system.
    Ablation {
        /// Nothing.
        None = "none",
        /// The semantic contrastive term.
        NoSemantic = "no-semantic",
        /// The modality contrastive term.
        NoModality = "no-modality",
        /// Both contrastive terms.
        NoContrastive = "no-contrastive",
        /// The swap reconstruction term.
        NoReconstruction = "no-reconstruction",
        /// The divergence between fused and single-modality predictions.
        NoKl = "no-kl",
        /// The split into heads before the fusion.
        NoMultiHead = "no-multi-head",
        /// The projected vectors: only the two encoders' vectors are fused.
        RawOnly = "raw-only",
    }
}

choices! {
    /// What the fusion attends over.
    FusionKind {
        /// The six vectors, each cut into pieces.
        MultiHead = "multi_head",
        /// The six whole vectors: the ablation.
        Attention = "attention",
    }
}

choices! {
    /// Which vectors the fusion takes in.
    FusionVectors {
        /// The encoders' and those of the projections: six.
        All = "all",
        /// The encoders' alone: two, the ablation `raw-only`.
        Raw = "raw",
    }
}

choices! {
    /// The similarity of two vectors in the contrastive terms.
    Similarity {
        /// The cosine of the angle between them.
        Cosine = "cosine",
        /// Their dot product.
        Dot = "dot",
    }
}

choices! {
    /// What the matched pair is contrasted with.
    Negatives {
        /// In-modality pairs, the matched pair not in the sum: equation 1 as printed.
        Printed = "printed",
        /// In-modality pairs, the matched pair in the sum.
        WithPositive = "with_positive",
        /// Cross-modal pairs, in both directions.
        CrossModal = "cross_modal",
    }
}

choices! {
    /// Which distribution the divergence is measured from.
    KlDirection {
        /// KL(fusion ‖ single modality).
        FusionToUnimodal = "fusion_to_unimodal",
        /// KL(single modality ‖ fusion).
        UnimodalToFusion = "unimodal_to_fusion",
    }
}

choices! {
    /// How the cross-entropies weigh the labels.
    ClassWeights {
        /// All alike.
        None = "none",
        /// By one over the label's count.
        Inverse = "inverse",
        /// By one over the label's effective number (Cui et al., 2019).
        Effective = "effective",
    }
}

choices! {
    /// The optimiser.
    OptimizerKind {
        /// Adam; weight decay, if any, is added to the gradient.
        Adam = "adam",
        /// Adam with decoupled weight decay.
        AdamW = "adamw",
    }
}

choices! {
    /// The course of the learning rate after the warm-up.
    Schedule {
        /// It stays.
        Constant = "constant",
        /// It falls to zero along a line.
        Linear = "linear",
        /// It falls to zero along half a cosine.
        Cosine = "cosine",
    }
}

choices! {
    /// The number format in which a model trains. Scoring, `eval`, `predict` and `encode` are always in f32, so that the
    /// score that picks an epoch is the one that `eval` gives again.
    Precision {
        /// 32-bit floats.
        F32 = "f32",
        /// bfloat16 for the layers' matrix products, convolutions and attention; all else, weights too, in f32.
        Bf16 = "bf16",
    }
}

choices! {
    /// The number format in which the features of speech are stored.
    FeaturePrecision {
        /// As they are.
        F32 = "f32",
        /// Rounded to 16-bit floats (10 bits behind the point): half the disk.
        F16 = "f16",
    }
}

/// The device that computes: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A CUDA device where there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

/// Why a word names no device that this version can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A list of devices where one is asked for.
    #[error("several devices work together only in training: name one of auto, cpu, cuda, cuda:N")]
    Several,
    /// A list that no group can be made of.
    #[error(
        "several devices must be CUDA devices, each named once, as in cuda:0,1 (or cpu,cpu to try the same on the CPU)"
    )]
    Mixed,
    /// Anything else.
    #[error("no such device: expected auto, cpu, cuda or cuda:N (N a whole number, as in cuda:1)")]
    Unknown,
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(word: &str) -> Result<Self, DeviceError> {
        match word {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ if word.contains(',') => Err(DeviceError::Several),
            _ => word
                .strip_prefix("cuda:")
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or(DeviceError::Unknown),
        }
    }
}

impl Serialize for Device {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The devices that train together, each on its part of every batch: one, or several of a kind, as `cuda:0,1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices(Vec<Device>);

impl Devices {
    /// The devices; there is at least one.
    #[must_use]
    pub fn all(&self) -> &[Device] {
        &self.0
    }
}

impl From<Device> for Devices {
    fn from(device: Device) -> Self {
        Self(vec![device])
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, device) in self.0.iter().enumerate() {
            match device {
                Device::Cuda(number) if place > 0 => write!(formatter, ",{number}")?,
                device if place > 0 => write!(formatter, ",{device}")?,
                device => device.fmt(formatter)?,
            }
        }
        Ok(())
    }
}

impl FromStr for Devices {
    type Err = DeviceError;

    fn from_str(word: &str) -> Result<Self, DeviceError> {
        let mut devices: Vec<Device> = Vec::new();
        for part in word.split(',') {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let device: Device = match devices.first() {
                Some(Device::Cuda(_)) if is_number => format!("cuda:{part}").parse()?,
                _ => part.parse()?,
            };
            let fits = match (devices.first(), device) {
                (None, _) | (Some(Device::Cpu), Device::Cpu) => true,
                (Some(Device::Cuda(_)), Device::Cuda(_)) => !devices.contains(&device),
                _ => false,
            };
            if !fits {
                return Err(DeviceError::Mixed);
            }
            devices.push(device);
        }
        Ok(Self(devices))
    }
}

impl Setting for Devices {
    const KIND: Kind = Kind::Devices;

    fn read(values: &dyn Values, key: &Key) -> Option<Self> {
        values.value(key)?.as_str()?.parse().ok()
    }

    fn write(&self) -> serde_json::Value {
        self.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_serde_names_agree() {
        for word in Ablation::WORDS {
            let ablation = Ablation::from_word(word).unwrap();
            assert_eq!(ablation.word(), *word);
            assert_eq!(serde_json::to_string(&ablation).unwrap(), format!("\"{word}\""));
        }
        assert_eq!(Ablation::from_word("No-KL"), None);
    }

    #[test]
    fn devices_are_read_and_written() {
        for (word, device) in [
            ("auto", Device::Auto),
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(0)),
            ("cuda:0", Device::Cuda(0)),
            ("cuda:12", Device::Cuda(12)),
        ] {
            assert_eq!(word.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for word in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1x", "CPU", "cuda:99999999999999999999"] {
            assert_eq!(word.parse::<Device>(), Err(DeviceError::Unknown), "{word}");
        }
        assert_eq!("cuda:0,1".parse::<Device>(), Err(DeviceError::Several));
    }

    #[test]
    fn devices_that_train_together_are_of_one_kind() {
        for (word, devices) in [
            ("auto", vec![Device::Auto]),
            ("cuda:1", vec![Device::Cuda(1)]),
            ("cuda:0,1", vec![Device::Cuda(0), Device::Cuda(1)]),
            ("cuda:3,1,2", vec![Device::Cuda(3), Device::Cuda(1), Device::Cuda(2)]),
            ("cpu,cpu", vec![Device::Cpu; 2]),
        ] {
            let found: Devices = word.parse().unwrap();
            assert_eq!((found.all(), found.to_string().as_str()), (devices.as_slice(), word));
        }
        assert_eq!("cuda,cuda:1".parse::<Devices>().unwrap().to_string(), "cuda:0,1");
        for word in ["cuda:0,0", "cpu,cuda:0", "auto,auto", "cuda:0,cpu"] {
            assert_eq!(word.parse::<Devices>(), Err(DeviceError::Mixed), "{word}");
        }
        for word in ["", "cuda:0,", "cpu,1", ",cuda:1", "cuda:0,-1"] {
            assert_eq!(word.parse::<Devices>(), Err(DeviceError::Unknown), "{word}");
        }
    }
}
