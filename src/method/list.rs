//! The list of the methods. A method is added by one line at the end of this file (and by its `mod` in `mod.rs`).
#![expect(clippy::large_enum_variant, reason = "there is one head in a process")]

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Adapter, Encoded, HeadMethod, Misfit, ModelSizes, Options, Output, Reads, Sequence, Sizes};
use crate::{
    choices::choices,
    keys::Key,
    nn::Init,
    ops::{Mode, Ops},
};

/// Declares everything that goes by method: the words of `model.method`, the options and the heads.
macro_rules! methods {
    ($($(#[doc = $about:literal])+ $name:ident = $word:literal, $file:ident with $options:ident;)+) => {
        choices! {
            /// The system that is trained: the paper's, or one of those it is compared with.
            Method {
                $($(#[doc = $about])+ $name = $word,)+
            }
        }

        impl Method {
            /// What it reads.
            pub const fn reads(self) -> Reads {
                match self {
                    $(Self::$name => <super::$file::$options as Options>::READS,)+
                }
            }

            /// Whether it stands on the two encoders, or on those of what it reads.
            pub const fn has_encoders(self) -> bool {
                match self {
                    $(Self::$name => <super::$file::$options as Options>::ENCODERS,)+
                }
            }

            /// Whether it has a text encoder.
            pub const fn encodes_text(self) -> bool {
                self.has_encoders() && self.reads().text()
            }

            /// Whether it has a speech encoder.
            pub const fn encodes_speech(self) -> bool {
                self.has_encoders() && self.reads().speech()
            }

            /// The keys of its options.
            pub const fn keys(self) -> &'static [Key] {
                match self {
                    $(Self::$name => <super::$file::$options as Options>::KEYS,)+
                }
            }

            /// The table of `[model]` and the key of a checkpoint's `config.json` under which its options are.
            pub fn field(self) -> &'static str {
                let field = match self {
                    $(Self::$name => <super::$file::$options as Options>::FIELD,)+
                };
                field.unwrap_or(self.word())
            }

            /// Its options where these are stated and the others as published.
            ///
            /// # Errors
            /// A value that TOML does not have.
            pub fn options(self, stated: &Map<String, Value>, sizes: ModelSizes) -> Result<HeadOptions, toml::ser::Error> {
                match self {
                    $(Self::$name => Options::stated(stated, sizes).map(HeadOptions::$name),)+
                }
            }

            /// Its options as a checkpoint states them.
            ///
            /// # Errors
            /// An option that is missing or of the wrong type.
            pub fn options_from(self, json: Value) -> Result<HeadOptions, serde_json::Error> {
                match self {
                    $(Self::$name => serde_json::from_value(json).map(HeadOptions::$name),)+
                }
            }
        }

        /// The options of a head.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum HeadOptions {
            $($(#[doc = $about])+ $name(super::$file::$options),)+
        }

        impl HeadOptions {
            /// As a checkpoint states them; an empty object where there are none.
            pub fn to_json(&self) -> Value {
                serde_json::to_value(self).unwrap_or_default()
            }

            /// Checks the options against each other and the model's width.
            ///
            /// # Errors
            /// The option that does not fit.
            pub fn check(&self, hidden: usize) -> Result<(), Misfit> {
                match self {
                    $(Self::$name(options) => options.check(hidden),)+
                }
            }

            /// The names of the loss terms, without their sum.
            pub fn terms(&self) -> &'static [&'static str] {
                match self {
                    $(Self::$name(options) => options.terms(),)+
                }
            }

            /// See [`Options::vocabulary`].
            pub fn vocabulary(&self) -> Option<usize> {
                match self {
                    $(Self::$name(options) => options.vocabulary(),)+
                }
            }

            /// See [`Options::layers`].
            pub fn layers(&self) -> usize {
                match self {
                    $(Self::$name(options) => options.layers(),)+
                }
            }

            /// See [`Options::max_tokens`].
            pub fn max_tokens(&self) -> usize {
                match self {
                    $(Self::$name(options) => options.max_tokens(),)+
                }
            }

            /// See [`Options::contrasted_size`].
            pub fn contrasted_size(&self, hidden: usize) -> usize {
                match self {
                    $(Self::$name(options) => options.contrasted_size(hidden),)+
                }
            }
        }

        /// What stands on the encoders.
        #[derive(Module, Debug)]
        pub enum Head<B: Backend> {
            $($(#[doc = $about])+ $name(super::$file::$name<B>),)+
        }

        impl<B: Ops> Head<B> {
            /// See [`HeadMethod::with_adapter`].
            pub fn with_adapter(options: &HeadOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> (Adapter<B>, Self) {
                match options {
                    $(HeadOptions::$name(options) => {
                        let (adapter, head) = HeadMethod::with_adapter(options, sizes, init);
                        (adapter, Self::$name(head))
                    })+
                }
            }

            /// See [`HeadMethod::forward`].
            pub fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> Box<dyn Output<B>> {
                match self {
                    $(Self::$name(head) => Box::new(head.forward(encoded, mode)),)+
                }
            }

            /// See [`HeadMethod::classify_text`].
            pub fn classify_text(&self, text: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
                match self {
                    $(Self::$name(head) => head.classify_text(text, mode),)+
                }
            }

            /// See [`HeadMethod::classify_speech`].
            pub fn classify_speech(&self, speech: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
                match self {
                    $(Self::$name(head) => head.classify_speech(speech, mode),)+
                }
            }
        }
    };
}

/// Stands in until those of a file are read.
impl Default for HeadOptions {
    fn default() -> Self {
        Self::Clasp(Options::published(ModelSizes { hidden: 768, attention_heads: 12, vocabulary: 50_265 }))
    }
}

// A variant, the word of `model.method`, and the file with the head of the variant's name and its options.
methods! {
    /// The text encoder alone.
    Text = "text", unimodal with TextOptions;
    /// The speech encoder alone.
    Speech = "speech", unimodal with SpeechOptions;
    /// The mean of the two single systems' probabilities.
    LateFusion = "late-fusion", late_fusion with LateFusionOptions;
    /// The two vectors side by side.
    Concat = "concat", concat with ConcatOptions;
    /// Low-rank multimodal fusion.
    Lmf = "lmf", lmf with LmfOptions;
    /// Modality-invariant and -specific representations.
    Misa = "misa", misa with MisaOptions;
    /// Layer-wise fusion with modality independence modelling.
    Lfmim = "lfmim", lfmim with LfmimOptions;
    /// The network of LRMP without its pre-training.
    LrmpArch = "lrmp-arch", lrmp_arch with LrmpOptions;
    /// The paper's system.
    Clasp = "clasp", clasp with ClaspOptions;
}
