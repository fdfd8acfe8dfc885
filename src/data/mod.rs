//! From a manifest on disk to padded batches: `manifest -> labels, text, audio -> dataset -> batch -> loader`.
//!
//! Nothing here knows of models. Every failure is a [`DataError`] that holds the facts (path, line, id, key) and says
//! what happened, where, and what to do; problems are collected before they are reported.

mod aiff;
pub mod audio;
pub mod batch;
mod caf;
mod catch_panic;
mod container;
pub mod dataset;
mod decode;
pub mod features;
mod flac;
pub mod labels;
mod layout;
pub mod loader;
pub mod manifest;
mod mp4;
mod mpeg;
pub mod names;
mod ogg;
mod opus;
mod source;
pub mod text;
mod tokenizer_config;
mod wave;
mod webm;

use std::path::{Path, PathBuf};

pub use audio::AudioProblem;
use labels::UnknownLabel;
pub use manifest::LineProblem;

use crate::{
    error::{LISTED, Problems},
    keys,
};

/// The rate in Hz of every waveform that reaches a model.
pub const SAMPLE_RATE: u32 = 16_000;

/// The fewest samples at [`SAMPLE_RATE`] that give the speech encoder one frame.
pub const MIN_SAMPLES: usize = (keys::FRAME_MS * SAMPLE_RATE / 1000) as usize;

/// What is wrong with the user's data; exit code 3.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder cannot be read or written.
    #[error("{}: {problem}{}", path.display(), instead(path, problem))]
    File { path: PathBuf, problem: FileProblem },
    /// A file or folder cannot be written: the disk's fault, not the data's; exit code 1.
    #[error("cannot write {}: {problem}", path.display())]
    Write { path: PathBuf, problem: String },
    /// Manifests that a config names and that are not there.
    #[error("{missing}; check the paths (those of a config are relative to its folder)")]
    NotThere { missing: Problems },
    /// Audio of a corpus that cannot be used.
    #[error(
        "{} of {total} utterances have audio that cannot be used; repair it, or leave them out with --skip-bad:\n{}",
        problems.len(),
        many(problems)
    )]
    BadAudio {
        /// Utterances in all.
        total: usize,
        /// What is wrong with each.
        problems: Vec<DataError>,
    },
    /// One line of a manifest is malformed.
    #[error("{}: {problem}", place(path.as_deref(), *line))]
    Line {
        /// The manifest; none for standard input.
        path: Option<PathBuf>,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// A manifest without a single row.
    #[error("{}: the manifest is empty; write one JSON object a line, with id, audio and text", path.display())]
    EmptyManifest { path: PathBuf },
    /// A row lacks a key that this command needs.
    #[error("utterance `{id}` (line {line}): no `{key}`; {hint}")]
    Lacking {
        /// The row's id.
        id: String,
        /// Its line in the manifest.
        line: usize,
        /// The key that is missing.
        key: &'static str,
        hint: &'static str,
    },
    /// An audio file cannot be used.
    #[error("{}: {problem}", path.display())]
    Audio { path: PathBuf, problem: AudioProblem },
    /// A problem of one utterance of a manifest.
    #[error("utterance `{id}` (line {line}): {problem}")]
    Utterance {
        /// The row's id.
        id: String,
        /// Its line in the manifest.
        line: usize,
        problem: Box<DataError>,
    },
    /// Labels outside the label set, each on a line of its own where there are several.
    #[error(
        "{}the known labels are {}; correct the labels, list them in data.labels of a new training run, or score without \
         them (eval --unknown-labels wrong, or drop)",
        unknown_labels(unknown),
        list(known)
    )]
    UnknownLabels { unknown: Vec<UnknownLabel>, known: Vec<String> },
    /// A label set that cannot be one.
    #[error("the label set ({}) is not valid: {reason}", list(labels))]
    Labels { labels: Vec<String>, reason: &'static str },
    /// A folder without a tokenizer.
    #[error("{}: no tokenizer; put tokenizer.json, or vocab.json and merges.txt, there ({missing} missing)", folder.display())]
    NoTokenizer {
        folder: PathBuf,
        /// The files that are not there.
        missing: &'static str,
    },
    /// A tokenizer that cannot be used.
    #[error("{}: the tokenizer cannot be used: {reason}; copy RoBERTa's tokenizer files again", path.display())]
    Tokenizer {
        path: PathBuf,
        /// What the reader or the check said.
        reason: String,
    },
    /// A table lacks columns that were named.
    #[error("{}: no column `{column}` (for {role}); the columns are {}; name one of them", path.display(), list(found))]
    Column {
        path: PathBuf,
        column: String,
        /// What it was named for.
        role: &'static str,
        found: Vec<String>,
    },
    /// A row of a table cannot become an utterance.
    #[error("{}, line {line}: {reason}", path.display())]
    TableRow {
        path: PathBuf,
        /// From 1, the header included.
        line: usize,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A table or its options cannot be used as a whole.
    #[error("{}: {reason}", path.display())]
    Table {
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A thread of the loader cannot start.
    #[error("{problem}")]
    Thread { problem: String },
    /// A thread of the loader ended without giving its batch.
    #[error("a decoding thread ended early, before batch {batch}; this is a fault of the program, please report it")]
    LoaderStopped {
        /// The batch that is missing, from 0.
        batch: usize,
    },
    /// Audio too short for the convolutions of a speech encoder that is not of the published shape.
    #[error(
        "utterance `{id}` (line {line}): {}: its audio has {samples} samples at 16 kHz, too few for one frame of this \
         speech encoder; leave the row out, or use smaller speech.config.conv_kernel and conv_stride",
        path.display()
    )]
    NoFrame {
        /// The row's id.
        id: String,
        /// Its line in the manifest.
        line: usize,
        path: PathBuf,
        /// Samples at [`SAMPLE_RATE`].
        samples: usize,
    },
    /// Utterances of a manifest that cannot be scored.
    #[error("{}: {} utterances cannot be scored: {failures}", path.display(), failures.0.len())]
    Unscored { path: PathBuf, failures: Problems },
    /// The one utterance that was asked about.
    #[error("{problem}")]
    Unusable { problem: String },
    /// Manifests that failed a check.
    #[error("{}: {first}", if *errors == 1 { "a check failed".to_owned() } else { format!("{errors} checks failed; the first") })]
    Untrusted {
        errors: usize,
        /// What the first found.
        first: String,
    },
    /// Several problems at once, one a line.
    #[error("{}", many(problems))]
    Many {
        /// Every problem, in the order of the data.
        problems: Vec<DataError>,
    },
}

/// Why a file cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// It does not exist.
    #[error("no such file; check the path (paths in a manifest are relative to its folder)")]
    Missing,
    /// It is a folder.
    #[error("this is a folder, a file is needed; name a file in it")]
    Folder,
    /// It is a device, a pipe or a socket.
    #[error("not a regular file; copy its content to a file first")]
    Special,
    #[error("permission denied; check the file's and its folders' permissions")]
    Permission,
    /// It is not UTF-8 where text must be.
    #[error("the path is not valid UTF-8 and cannot be written into a manifest; rename the file")]
    PathNotText,
    /// Anything else, as the system says it.
    #[error("{0}; check the disk and the path")]
    Other(String),
}

impl DataError {
    /// What the system said about `path`.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        let problem = match error.kind() {
            std::io::ErrorKind::NotFound => FileProblem::Missing,
            std::io::ErrorKind::PermissionDenied => FileProblem::Permission,
            std::io::ErrorKind::IsADirectory => FileProblem::Folder,
            _ => FileProblem::Other(error.to_string()),
        };
        Self::File { path: path.to_path_buf(), problem }
    }

    /// What the system said when `path` could not be written.
    pub fn write(path: &Path, error: &std::io::Error) -> Self {
        Self::Write { path: path.to_path_buf(), problem: error.to_string() }
    }

    /// Nothing where `problems` is empty, the problem itself where there is one, else all of them.
    ///
    /// # Errors
    ///
    /// The problems.
    pub fn check(problems: Vec<Self>) -> Result<(), Self> {
        let mut flat = Vec::with_capacity(problems.len());
        for problem in problems {
            match problem {
                Self::Many { problems } => flat.extend(problems),
                other => flat.push(other),
            }
        }
        match flat.pop() {
            None => Ok(()),
            Some(only) if flat.is_empty() => Err(only),
            Some(last) => {
                flat.push(last);
                Err(Self::Many { problems: flat })
            }
        }
    }
}

fn unknown_labels(unknown: &[UnknownLabel]) -> String {
    if let [only] = unknown {
        return format!("{only}; ");
    }
    let mut lines: Vec<String> = unknown.iter().take(LISTED).map(|label| format!("{label}\n")).collect();
    if unknown.len() > LISTED {
        lines.push(format!("and {} more unknown labels\n", unknown.len() - LISTED));
    }
    lines.concat()
}

/// What there is in the place of a missing file. Looked for only where the error is shown.
fn instead(path: &Path, problem: &FileProblem) -> String {
    let similar = if *problem == FileProblem::Missing { names::similar(path) } else { None };
    similar.map_or_else(String::new, |found| {
        format!("; there is {}, whose name differs in case, space or Unicode form", found.display())
    })
}

fn place(path: Option<&Path>, line: usize) -> String {
    path.map_or_else(|| format!("line {line}"), |path| format!("{}, line {line}", path.display()))
}

/// The items in backquotes, at most 20 of them, or the word none.
pub(crate) fn list(items: &[String]) -> String {
    const SHOWN: usize = 20;
    if items.is_empty() {
        return "none".to_owned();
    }
    let mut text: Vec<String> = items.iter().take(SHOWN).map(|item| format!("`{item}`")).collect();
    if items.len() > SHOWN {
        text.push(format!("and {} more", items.len() - SHOWN));
    }
    text.join(", ")
}

fn many(problems: &[DataError]) -> String {
    let mut lines: Vec<String> = problems.iter().take(LISTED).map(ToString::to_string).collect();
    if problems.len() > LISTED {
        lines.push(format!("and {} more ({} problems in all)", problems.len() - LISTED, problems.len()));
    } else {
        lines.push(format!("{} problems in all", problems.len()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_problems_show_ten_and_the_count() {
        let problem = |line| DataError::Line { path: None, line, problem: LineProblem::Blank };
        let error = DataError::check((1..=12).map(problem).collect()).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 11);
        assert!(error.starts_with("line 1: "), "{error}");
        assert!(error.ends_with("and 2 more (12 problems in all)"), "{error}");
        assert!(DataError::check(Vec::new()).is_ok());
        assert!(matches!(DataError::check(vec![problem(3)]), Err(DataError::Line { line: 3, .. })));
    }
}
