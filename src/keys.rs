//! What a key of a config is, and how one is declared.
//!
//! The way of a key: [`section!`] makes of each line the field of a struct, the entry in the table of all keys
//! ([`crate::config::table`]), the reading and the writing. A file and its `--set` flags are compared with the table
//! (`config::validate`: unknown keys, types, bounds), then every section is read (`config::resolve`, which also has the
//! rules between keys), and the program uses the field: `config.train.clip_norm` goes through `train::replica`
//! (`Objective`) to `train::gradients` (`Squares::clipping`). `config show --defaults` prints the table; a run's
//! `config.toml` has what the sections write, and `--resume` compares it but for the keys that may change. To add a key, add a line to its section: those of [`crate::config`], [`crate::loss::LossConfig`], or the
//! options of a method. Nothing else names it but what uses it.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use toml::Value;

/// Milliseconds of one frame of speech, of which the speech encoders need one at least.
pub const FRAME_MS: u32 = 25;

/// The range of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// Above zero.
    Positive,
    /// Seconds of at least one frame of speech.
    Frame,
    /// Zero or above.
    NotNegative,
    /// From 0 up to, but without, 1.
    BelowOne,
    /// From 0 to 1.
    Unit,
    /// Above 0, up to 1.
    Share,
}

impl Range {
    /// Whether the range holds a number; it never holds one that is not finite.
    #[must_use]
    pub fn holds(self, number: f64) -> bool {
        number.is_finite()
            && match self {
                Self::Positive => number > 0.0,
                Self::Frame => number >= f64::from(FRAME_MS) / 1000.0,
                Self::NotNegative => number >= 0.0,
                Self::BelowOne => (0.0..1.0).contains(&number),
                Self::Unit => (0.0..=1.0).contains(&number),
                Self::Share => number > 0.0 && number <= 1.0,
            }
    }

    /// As in `must be a number above 0`.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Positive => "a number above 0",
            Self::Frame => "a number of at least 0.025 (one frame of speech)",
            Self::NotNegative => "a number of 0 or more",
            Self::BelowOne => "a number from 0 up to, but without, 1",
            Self::Unit => "a number from 0 to 1",
            Self::Share => "a number above 0, at most 1",
        }
    }
}

/// The largest whole number that a key takes, but for seeds and where it says another: far above any use, and no machine
/// runs out of memory or patience before it can say so.
pub const MOST: usize = 1_000_000;

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number of at least the first and at most the second.
    Integer(usize, usize),
    /// A whole number from 0.
    Seed,
    /// A number.
    Number(Range),
    /// The share that a dropout leaves out; `model.dropout` sets all of these.
    Dropout,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file, relative to the config's folder; as of every path, the empty string counts as not set.
    File,
    /// A folder, relative to the config's folder, or a hub id.
    Model,
    /// A folder, relative to the current one.
    Folder,
    /// The word of a device, or of several.
    Devices,
    /// Two or more different labels.
    Labels,
    /// A list of whole numbers of at least 1.
    Integers,
    /// Which of an encoder's layers.
    Layers,
}

/// A whole number of at least this much, and at most [`MOST`].
#[must_use]
pub const fn at_least(least: usize) -> Kind {
    Kind::Integer(least, MOST)
}

impl Kind {
    /// What the key takes, in words that follow "must be".
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::Integer(least, _) => format!("a whole number of at least {least}"),
            Self::Seed => "a whole number of at least 0".to_owned(),
            Self::Number(range) => range.words().to_owned(),
            Self::Dropout => Range::BelowOne.words().to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::File | Self::Model | Self::Folder => "a string (a path)".to_owned(),
            Self::Devices => "one of auto, cpu, cuda, cuda:N, or several as in cuda:0,1".to_owned(),
            Self::Labels => "a list of two or more different strings, none of them empty".to_owned(),
            Self::Layers => "\"last\", \"mix\" or a whole number of at least 0".to_owned(),
            Self::Integers => format!("a list of whole numbers from 1 to {MOST}"),
        }
    }

    /// Whether the value may be a fraction.
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Number(_) | Self::Dropout)
    }

    /// Whether the value is a path.
    #[must_use]
    pub const fn is_path(self) -> bool {
        matches!(self, Self::File | Self::Model | Self::Folder)
    }

    /// Whether a bare word on the command line is meant as a string.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Choice(_) | Self::File | Self::Model | Self::Folder | Self::Devices | Self::Layers)
    }
}

/// What holds where a key is not set.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    /// This value.
    Value(fn() -> Json),
    /// Something that depends on other keys, in words.
    Depends(&'static str),
}

/// One key of a config; [`section!`] declares it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The full path, as in `train.epochs`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default.
    pub preset: Preset,
    /// Whether a run may be continued with another value: it changes no number of the run.
    pub is_free_on_resume: bool,
    /// Whether it may be set beside a checkpoint although that has a value for it: it changes no shape.
    pub is_free_beside_checkpoint: bool,
    /// One line on what it is for.
    pub about: &'static str,
}

impl Key {
    /// The section and the last part of the path: `model.fusion` and `kind`.
    #[must_use]
    pub fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

/// Where values are read from: the config's document, or the options that a method is given. What they return fits the
/// kind of the key.
pub trait Values {
    /// The value that is set.
    fn value(&self, key: &Key) -> Option<&Value>;

    /// The path that is set, in full.
    fn path(&self, key: &Key) -> Option<PathBuf>;
}

/// Sets nothing: what is read from it are the defaults.
pub struct Unset;

impl Values for Unset {
    fn value(&self, _: &Key) -> Option<&Value> {
        None
    }

    fn path(&self, _: &Key) -> Option<PathBuf> {
        None
    }
}

/// A method's options by their names, without the section.
impl Values for toml::Table {
    fn value(&self, key: &Key) -> Option<&Value> {
        self.get(key.split().1)
    }

    fn path(&self, key: &Key) -> Option<PathBuf> {
        self.value(key)?.as_str().map(PathBuf::from)
    }
}

/// A type of a section's fields.
pub trait Setting: Sized {
    /// What its key takes where the declaration does not say.
    const KIND: Kind;

    /// The value that is set.
    fn read(values: &dyn Values, key: &Key) -> Option<Self>;

    /// The value for a file; null where there is none.
    fn write(&self) -> Json;
}

/// The value as a number; whole numbers are numbers too.
#[expect(clippy::cast_precision_loss, reason = "a whole number where a fraction is asked for is far below 2^53")]
#[must_use]
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

macro_rules! setting {
    ($($type:ty, $kind:expr, $value:ident => $read:expr;)+) => {
        $(impl Setting for $type {
            const KIND: Kind = $kind;

            fn read(values: &dyn Values, key: &Key) -> Option<Self> {
                let $value = values.value(key)?;
                $read
            }

            fn write(&self) -> Json {
                json!(self)
            }
        })+
    };
}

setting! {
    bool, Kind::Boolean, value => value.as_bool();
    usize, at_least(0), value => value.as_integer()?.try_into().ok();
    u64, Kind::Seed, value => value.as_integer()?.try_into().ok();
    f64, Kind::Number(Range::NotNegative), value => number(value);
    String, Kind::File, value => value.as_str().map(str::to_owned);
    Vec<usize>, Kind::Integers, value => value.as_array()?.iter().map(|number| number.as_integer()?.try_into().ok()).collect();
    Vec<String>, Kind::Labels, value => value.as_array()?.iter().map(|label| label.as_str().map(str::to_owned)).collect();
}

impl Setting for PathBuf {
    const KIND: Kind = Kind::File;

    fn read(values: &dyn Values, key: &Key) -> Option<Self> {
        values.path(key)
    }

    /// TOML is UTF-8, so that another path is written as well as can be.
    fn write(&self) -> Json {
        self.to_string_lossy().into()
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(values: &dyn Values, key: &Key) -> Option<Self> {
        T::read(values, key).map(Some)
    }

    fn write(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::write)
    }
}

/// A number of which 0 in a file means that there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZeroIsNone<T>(pub Option<T>);

impl<T> ZeroIsNone<T> {
    /// 0 in a file.
    pub const NONE: Self = Self(None);
}

impl<T: Setting + Copy + PartialEq + Default> Setting for ZeroIsNone<T> {
    const KIND: Kind = T::KIND;

    fn read(values: &dyn Values, key: &Key) -> Option<Self> {
        T::read(values, key).map(|number| Self(Some(number).filter(|number| *number != T::default())))
    }

    fn write(&self) -> Json {
        self.0.unwrap_or_default().write()
    }
}

/// Declares a section of the config: a struct and its keys.
///
/// ```text
/// section! {
///     /// What the struct is.
///     pub struct TrainConfig("train") {
///         /// what the key is for, as `config show --defaults` has it
///         #[resume(free)]                             // where it changes no number of a run
///         log_every_steps: usize [at_least(1)] = 1;   // field: type [what it takes] = default;
///         /// rate of both encoders
///         rate: f64 = other, "train.learning_rate";   // a default that depends, and how it is described
///     }
/// }
/// ```
///
/// What a key takes may be left out where the type says it. A default that depends may use the fields above it and
/// what is given to `read` (`struct TextConfig("text", has_init: bool)`). A key of another name than its field has it in
/// parentheses: `folder("feature_cache"): PathBuf`. Keys of which several make one field stand first, in
/// `by_hand { key [what it takes], "the default in words"; } into { field: Type; }`; the field is given to `read`. Keys
/// without a struct are declared in the same way, as `pub const DEMO("data.demo") { ... }`. Of the encoders' keys
/// `#[beside_checkpoint(free)]` marks those that may be set beside a checkpoint.
macro_rules! section {
    (@kind $type:ty) => { <$type as $crate::keys::Setting>::KIND };
    (@kind $type:ty, $kind:expr) => { $kind };
    (@preset $type:ty, $default:expr) => {
        $crate::keys::Preset::Value(|| <$type as $crate::keys::Setting>::write(&$default))
    };
    (@preset $type:ty, $default:expr, $words:literal) => { $crate::keys::Preset::Depends($words) };
    (@is_free) => { false };
    (@is_free free) => { true };
    (@list $section:literal $(
        $(#[doc = $about:literal])+
        $key:ident [$kind:expr], $words:literal;
    )*) => {
        &[$($crate::keys::Key {
            path: concat!($section, ".", stringify!($key)),
            kind: $kind,
            preset: $crate::keys::Preset::Depends($words),
            is_free_on_resume: false,
            is_free_beside_checkpoint: false,
            about: concat!($($about),+).trim_ascii_start(),
        }),*]
    };
    (
        $(#[$attribute:meta])*
        pub const $list:ident($section:literal) { $($keys:tt)* }
    ) => {
        $(#[$attribute])*
        pub const $list: &[$crate::keys::Key] = $crate::keys::section!(@list $section $($keys)*);
    };
    (@path $section:literal, $field:ident) => { concat!($section, ".", stringify!($field)) };
    (@path $section:literal, $field:ident, $name:literal) => { concat!($section, ".", $name) };
    (
        $(#[$attribute:meta])*
        pub struct $struct:ident($section:literal $(, $given:ident: $given_type:ty)*) {
            $(by_hand { $($parts:tt)* } into {
                $($(#[$made_about:meta])+ $made:ident: $made_type:ty;)*
            })?
            $(
                $(#[doc = $about:literal])+
                $(#[resume($free:ident)])?
                $(#[beside_checkpoint($free_beside:ident)])?
                $field:ident $(($name:literal))? : $type:ty $([$kind:expr])? = $default:expr $(, $words:literal)?;
            )*
        }
    ) => {
        $(#[$attribute])*
        #[allow(clippy::doc_markdown, rustdoc::invalid_html_tags, reason = "sentences for the terminal")]
        pub struct $struct {
            $($($(#[$made_about])+ pub $made: $made_type,)*)?
            $($(#[doc = $about])+ pub $field: $type,)*
        }

        impl $struct {
            /// The keys that are read by hand.
            pub const BY_HAND: &'static [$crate::keys::Key] =
                $crate::keys::section!(@list $section $($($parts)*)?);

            /// The others, each a field of the same name.
            pub const KEYS: &'static [$crate::keys::Key] = &[
                $($crate::keys::Key {
                    path: $crate::keys::section!(@path $section, $field $(, $name)?),
                    kind: $crate::keys::section!(@kind $type $(, $kind)?),
                    preset: $crate::keys::section!(@preset $type, $default $(, $words)?),
                    is_free_on_resume: $crate::keys::section!(@is_free $($free)?),
                    is_free_beside_checkpoint: $crate::keys::section!(@is_free $($free_beside)?),
                    about: concat!($($about),+).trim_ascii_start(),
                },)*
            ];

            /// Reads the section; what is not set has its default.
            pub fn read(
                values: &dyn $crate::keys::Values
                $($(, $made: $made_type)*)?
                $(, $given: $given_type)*
            ) -> Self {
                let find = |path| Self::KEYS.iter().find(|key| key.path == path);
                $(let $field: $type = find($crate::keys::section!(@path $section, $field $(, $name)?))
                    .and_then(|key| $crate::keys::Setting::read(values, key))
                    .unwrap_or_else(|| $default);)*
                Self { $($($made,)*)? $($field),* }
            }

            /// Writes every key that has a value, but for those that make one field.
            pub fn write(&self, values: &mut std::collections::BTreeMap<String, serde_json::Value>) {
                $(values.insert(
                    $crate::keys::section!(@path $section, $field $(, $name)?).to_owned(),
                    $crate::keys::Setting::write(&self.$field),
                );)*
            }
        }
    };
}

pub(crate) use section;

/// The nearest of some words, if one is near.
#[must_use]
pub fn nearest_word(word: &str, words: &'static [&'static str]) -> Option<&'static str> {
    nearest_by(word, words.iter().copied(), |candidate| candidate)
}

/// The nearest of some candidates by a part of each, if one is near.
pub fn nearest_by(
    word: &str,
    candidates: impl Iterator<Item = &'static str>,
    part: impl Fn(&'static str) -> &'static str,
) -> Option<&'static str> {
    let word = word.to_lowercase().replace('-', "_");
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &part(candidate).replace('-', "_")), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_named() {
        assert_eq!(nearest_word("cosin", &["cosine", "dot"]), Some("cosine"));
        assert_eq!(nearest_word("no_kl", &["none", "no-kl"]), Some("no-kl"));
        assert_eq!(nearest_word("manhattan", &["cosine", "dot"]), None);
    }

    #[test]
    fn ranges_hold_what_they_say() {
        for range in [Range::Positive, Range::NotNegative, Range::BelowOne, Range::Unit, Range::Share] {
            assert!(range.holds(0.5));
            for outside in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.1] {
                assert!(!range.holds(outside));
            }
        }
        assert!(!Range::Positive.holds(0.0) && Range::NotNegative.holds(0.0) && !Range::Share.holds(0.0));
        assert!(!Range::BelowOne.holds(1.0) && Range::Unit.holds(1.0) && Range::Share.holds(1.0));
    }
}
