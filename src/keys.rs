//! What a key of a config is: its path, what it takes, its default and a line of documentation.
//!
//! The ground floor: methods and losses declare keys of their own, [`crate::config`] puts all of them together.

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
                Self::Frame => number >= 0.025,
                Self::NotNegative => number >= 0.0,
                Self::BelowOne => (0.0..1.0).contains(&number),
                Self::Unit => (0.0..=1.0).contains(&number),
                Self::Share => number > 0.0 && number <= 1.0,
            }
    }

    const fn words(self) -> &'static str {
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

/// The largest whole number that a key takes, but for seeds: far above any use, and no machine runs out of memory or
/// patience before it can say so.
pub const MOST: i64 = 1_000_000;

/// The same for the threads that decode.
const MOST_THREADS: i64 = 256;

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number of at least this much, and at most [`MOST`].
    Integer(i64),
    /// A whole number from 0.
    Seed,
    /// A number.
    Number(Range),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file, folder or hub id; the empty string counts as not set.
    Path,
    /// The word of a device, or of several.
    Devices,
    /// Two or more different labels.
    Labels,
    /// A list of whole numbers of at least 1.
    Integers,
}

impl Kind {
    /// What the key takes, in words that follow "must be".
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::Integer(minimum) => format!("a whole number of at least {minimum}"),
            Self::Seed => "a whole number of at least 0".to_owned(),
            Self::Number(range) => range.words().to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Path => "a string (a path)".to_owned(),
            Self::Devices => "one of auto, cpu, cuda, cuda:N, or several as in cuda:0,1".to_owned(),
            Self::Labels => "a list of two or more different strings, none of them empty".to_owned(),
            Self::Integers => format!("a list of whole numbers from 1 to {MOST}"),
        }
    }

    /// Whether a bare word on the command line is meant as a string.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Choice(_) | Self::Path | Self::Devices)
    }
}

/// What holds where a key is not set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    /// This value, in TOML.
    Value(&'static str),
    /// Something that depends on other keys, in words.
    Depends(&'static str),
}

/// One key of a config.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// The full path, as in `train.epochs`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default.
    pub preset: Preset,
    /// One line.
    pub about: &'static str,
}

impl Key {
    /// A key with a fixed default.
    pub(crate) const fn fixed(path: &'static str, kind: Kind, value: &'static str, about: &'static str) -> Self {
        Self { path, kind, preset: Preset::Value(value), about }
    }

    /// A key whose default depends on other keys.
    pub(crate) const fn open(path: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Self {
        Self { path, kind, preset: Preset::Depends(default), about }
    }

    /// The largest whole number that it takes.
    #[must_use]
    pub fn most(&self) -> i64 {
        if self.path == "run.workers" { MOST_THREADS } else { MOST }
    }

    /// The section and the last part of the path: `model.fusion` and `kind`.
    #[must_use]
    pub fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

/// What a dropout takes.
pub const DROPOUT: Kind = Kind::Number(Range::BelowOne);

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
