//! What a method says of itself without a tensor in sight: what it reads, its terms, and its options.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::keys::{Key, Unset, Values};

/// Which modalities a method reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Only the text.
    Text,
    /// Only the speech.
    Speech,
    /// Both.
    Both,
}

impl Reads {
    /// Whether the text is read.
    pub const fn text(self) -> bool {
        matches!(self, Self::Text | Self::Both)
    }

    /// Whether the speech is read.
    pub const fn speech(self) -> bool {
        matches!(self, Self::Speech | Self::Both)
    }
}

/// The sizes that some published values go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSizes {
    /// Width of the model's vectors.
    pub hidden: usize,
    /// Attention heads of the text encoder.
    pub attention_heads: usize,
    /// Tokens of the text encoder's vocabulary.
    pub vocabulary: usize,
}

/// A method's own options: the table `[model.<method>]` of the config and `<method>` of a checkpoint's `config.json`,
/// with every value stated. CLASP's are `[model.fusion]` and `fusion` ([`Self::FIELD`]).
pub trait Options: Clone + std::fmt::Debug + PartialEq + Serialize + DeserializeOwned {
    /// What is read.
    const READS: Reads;
    /// The names of its loss terms, without their sum.
    const TERMS: &'static [&'static str];
    /// The name of that table and key, where it is not the method's word.
    const FIELD: Option<&'static str> = None;
    /// The keys of its options; a default that is fixed is that of [`Options::published`].
    const KEYS: &'static [Key] = &[];
    /// Whether the utterance vectors are read, and not only the encoders' states.
    const READS_VECTORS: bool = true;

    /// Whether it stands on `RoBERTa` and wav2vec 2.0, those of what it reads; else it reads the batch itself.
    const ENCODERS: bool = true;

    /// The values that are set, the others as published.
    fn read_from(values: &dyn Values, sizes: ModelSizes) -> Self;

    fn published(sizes: ModelSizes) -> Self {
        Self::read_from(&Unset, sizes)
    }

    /// Checks the options against each other and the model's width.
    ///
    /// # Errors
    /// The option that does not fit.
    fn check(&self, hidden: usize) -> Result<(), Misfit> {
        let _ = hidden;
        Ok(())
    }

    /// The names of the terms that these options have.
    fn terms(&self) -> &'static [&'static str] {
        Self::TERMS
    }

    /// Width of the vectors whose examples are compared, in a model of width `hidden`; 0 where none are.
    fn contrasted_size(&self, hidden: usize) -> usize {
        let _ = hidden;
        0
    }

    /// Tokens of a vocabulary of its own, where it has no text encoder.
    fn vocabulary(&self) -> Option<usize> {
        None
    }

    /// The most layers of one of its stacks.
    fn layers(&self) -> usize {
        0
    }

    /// The most tokens of a text, beside what the text encoder limits.
    fn max_tokens(&self) -> usize {
        usize::MAX
    }

    /// The published values but for those that are stated.
    ///
    /// # Errors
    /// A value that TOML does not have; the table of keys lets none through.
    fn stated(stated: &Map<String, Value>, sizes: ModelSizes) -> Result<Self, toml::ser::Error> {
        Ok(Self::read_from(&toml::Table::try_from(stated)?, sizes))
    }
}

/// An option whose value does not fit the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub option: &'static str,
    /// What is wrong, following the name: "is 3, which does not divide ...".
    pub problem: String,
}

impl Misfit {
    /// Checks that heads divide a width.
    ///
    /// # Errors
    /// They do not, or one of them is 0.
    pub fn unless_divides(option: &'static str, heads: usize, what: &str, width: usize) -> Result<(), Self> {
        if width > 0 && heads > 0 && width.is_multiple_of(heads) {
            return Ok(());
        }
        Err(Self { option, problem: format!("is {heads}, which does not divide {what}, {width}") })
    }

    /// Checks that sizes are above zero.
    ///
    /// # Errors
    /// The first that is 0.
    pub fn unless_positive(sizes: &[(&'static str, usize)]) -> Result<(), Self> {
        match sizes.iter().find(|(_, size)| *size == 0) {
            Some(&(option, _)) => Err(Self { option, problem: "is 0: it must be 1 or more".into() }),
            None => Ok(()),
        }
    }
}

/// Declares the options of a method that has none.
macro_rules! no_options {
    ($(#[$about:meta])* $name:ident, $reads:expr, $terms:expr) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name {}

        impl $crate::method::Options for $name {
            const READS: $crate::method::Reads = $reads;
            const TERMS: &'static [&'static str] = $terms;

            fn read_from(_: &dyn $crate::keys::Values, _: $crate::method::ModelSizes) -> Self {
                Self {}
            }
        }
    };
}
pub(super) use no_options;
