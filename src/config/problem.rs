//! What can be wrong with a config: one problem is one line, and all problems of a config are reported together.
//!
//! A problem knows where it stands (file and line, or the flag that set the key), which key it is about and what would
//! be right; [`ConfigError`] is what [`super::load`] and [`super::locate`] return. All of it ends the program with 2.

use std::fmt;
use std::path::PathBuf;

use crate::error::Problems;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyOrigin {
    /// A line of the config file, counted from 1.
    Line(usize),
    /// A `--set` flag, as typed.
    Flag(String),
}

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such key; the nearest one, and those of the same section.
    Unknown {
        /// The valid key that is meant, where one is near.
        nearest: Option<String>,
        /// What the section holds.
        valid: Vec<String>,
    },
    /// The value has the wrong type or is out of its range.
    Value { expected: String, found: String },
    /// The value is none of the words that the key takes.
    Choice {
        found: String,
        choices: &'static [&'static str],
        /// The word that is meant, where one is near.
        nearest: Option<&'static str>,
    },
    /// The value is right in itself, but this version cannot do it.
    Unavailable { found: String, available: String },
    /// A key that must be there is not.
    Missing { hint: String },
    /// The value disagrees with another one.
    Conflict {
        /// What disagrees and what to do.
        reason: String,
    },
    /// A `--set` that is not `key.path=value`.
    Assignment,
}

/// One thing that is wrong, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands; `None` if a key is missing.
    pub place: Option<KeyOrigin>,
    /// The full key, as in `train.epochs`.
    pub key: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl Problem {
    /// A conflict at a key whose place is not known yet.
    pub fn conflict(key: &str, reason: String) -> Self {
        Self { place: None, key: key.to_owned(), fault: Fault::Conflict { reason } }
    }

    /// The order in which problems are shown: by line, then by flag, then what is missing.
    pub(super) fn order(&self) -> (u8, Option<&KeyOrigin>, &str) {
        let rank = match self.place {
            Some(KeyOrigin::Line(_)) => 0,
            Some(KeyOrigin::Flag(_)) => 1,
            None => 2,
        };
        (rank, self.place.as_ref(), &self.key)
    }

    fn sentence(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.fault {
            Fault::Unknown { nearest: Some(nearest), .. } => {
                write!(formatter, "unknown key `{key}`; did you mean `{nearest}`?")
            }
            Fault::Unknown { nearest: None, valid } => {
                write!(formatter, "unknown key `{key}`; valid here: {}", valid.join(", "))
            }
            Fault::Value { expected, found } => write!(formatter, "`{key}` must be {expected}, found {found}"),
            Fault::Choice { found, choices, nearest } => {
                write!(formatter, "`{key}` must be one of {}, found {found}", choices.join(", "))?;
                nearest.map_or(Ok(()), |word| write!(formatter, "; did you mean \"{word}\"?"))
            }
            Fault::Unavailable { found, available } => {
                write!(formatter, "`{key}` = {found} is not available in this version; available: {available}")
            }
            Fault::Missing { hint } => write!(formatter, "`{key}` is missing: {hint}"),
            Fault::Conflict { reason } => write!(formatter, "`{key}` {reason}"),
            Fault::Assignment => write!(formatter, "expected key.path=value, as in --set train.epochs=3"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(KeyOrigin::Flag(flag)) = &self.place {
            write!(formatter, "--set {flag}: ")?;
        }
        self.sentence(formatter)
    }
}

/// A problem behind the name of the config that has it.
struct Placed<'a>(&'a str, &'a Problem);

impl fmt::Display for Placed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, problem) = self;
        match problem.place {
            Some(KeyOrigin::Line(line)) => write!(formatter, "{name}:{line}: {problem}"),
            Some(KeyOrigin::Flag(_)) => write!(formatter, "{problem}"),
            None => write!(formatter, "{name}: {problem}"),
        }
    }
}

fn list(name: &str, problems: &[Problem]) -> String {
    match problems {
        [problem] => Placed(name, problem).to_string(),
        _ => problems.iter().fold(format!("{name} has {} problems:", problems.len()), |text, problem| {
            format!("{text}\n  {}", Placed(name, problem))
        }),
    }
}

/// Why there is no config, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Data and encoders that a config names and that are not there.
    #[error("{missing}")]
    NotThere { missing: Problems },
    /// Neither a file nor a built-in config has this name.
    #[error("no config file {name}, and no built-in config of that name (built in: {built_in})")]
    NotFound {
        name: String,
        /// The names that there are.
        built_in: String,
    },
    /// Neither a file nor a built-in plan has this name.
    #[error("no plan {name}, and no built-in plan of that name (built in: {built_in})")]
    NoPlan {
        name: String,
        /// The names that there are.
        built_in: String,
    },
    /// The file cannot be read.
    #[error("cannot read the config {path}: {cause}")]
    Unreadable { path: PathBuf, cause: std::io::Error },
    /// The file is not TOML.
    #[error("{name}:{line}:{column}: not valid TOML: {message}")]
    Syntax {
        /// The file or the built-in config.
        name: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        message: String,
    },
    /// Some keys or values are wrong: all of them.
    #[error("{}", list(name, problems))]
    Invalid {
        /// The file or the built-in config.
        name: String,
        /// In the order of the file.
        problems: Vec<Problem>,
    },
    /// An encoder's folder is not there.
    #[error(
        "`{key}`: there is no folder {folder}, and the Hugging Face cache ({cache}) has no such model either; run \
         `clasp models fetch {name}`, then set `{key}` to {name}, or put {files} into the folder"
    )]
    NoFolder {
        key: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
        /// The cache that was looked in.
        cache: PathBuf,
        /// The model to fetch, where it can be told.
        name: &'static str,
        /// The files that belong there.
        files: String,
    },
    /// An encoder's folder lacks files.
    #[error(
        "`{key}`: the folder {folder} has no {missing}; put it there, or fetch the model (`clasp models fetch NAME`)"
    )]
    MissingFiles {
        key: &'static str,
        folder: PathBuf,
        /// All that it lacks.
        missing: String,
    },
    /// A config was to be written over a file.
    #[error("{path} exists already; name another file, or pass --force to replace it")]
    Exists { path: PathBuf },
    /// A config could not be written.
    #[error("cannot write the config {path}: {cause}")]
    Unwritable { path: PathBuf, cause: std::io::Error },
}

impl ConfigError {
    /// The error for a list of problems, put into the order in which they are read.
    pub fn invalid(name: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|left, right| left.order().cmp(&right.order()));
        Self::Invalid { name: name.to_owned(), problems }
    }
}
