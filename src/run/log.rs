//! `log.jsonl`: one line for each optimiser step and one for each epoch, so that a run can be watched and plotted.
//!
//! Epochs and steps count from 1. A number that is not finite is written as null: the line stays valid JSON.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::eval::metrics::Headline;
use crate::files::{FileError, replace_file};

/// The terms that come first in the file, in this order; others follow by name.
const FIRST: [&str; 7] = ["task_text", "task_speech", "task_fusion", "semantic", "modality", "reconstruction", "kl"];

/// The losses of a step, or their means over an epoch, unweighted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossValues {
    /// The weighted sum that is minimised; it can be negative.
    #[serde(with = "number")]
    pub total: f64,
    /// The terms that the method has, in the file's order.
    #[serde(flatten)]
    terms: Map<String, Value>,
}

impl LossValues {
    /// The total and the terms, in any order.
    pub fn new<'a>(total: f64, terms: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let place = |name: &str| FIRST.iter().position(|&first| first == name).unwrap_or(FIRST.len());
        let mut terms: Vec<(&str, f64)> = terms.into_iter().collect();
        terms.sort_by_key(|&(name, _)| (place(name), name));
        Self { total, terms: terms.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect() }
    }

    /// The terms that are numbers, with their names.
    pub fn terms(&self) -> impl Iterator<Item = (&str, f64)> {
        self.terms.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))
    }
}

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepEntry {
    /// The epoch that the step belongs to.
    pub epoch: usize,
    /// The step, counted over the whole run.
    pub step: usize,
    /// The loss of the step.
    pub loss: LossValues,
    /// The rate that the step was taken with.
    #[serde(with = "number")]
    pub learning_rate: f64,
    /// Global norm of the gradient, before any clipping.
    #[serde(with = "number")]
    pub gradient_norm: f64,
    /// Examples per second since the last entry.
    #[serde(with = "number")]
    pub examples_per_second: f64,
    /// The norm of the gradient of each part of the model, by the first word of its parameters' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gradient_norms: BTreeMap<String, f64>,
}

/// The scores of a split at the end of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochScores {
    /// Mean loss over the split; left out where it was not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossValues>,
    /// The reported prediction's numbers; left out where the split was not scored.
    #[serde(flatten)]
    pub fusion: Option<Headline>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_only: Option<Headline>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speech_only: Option<Headline>,
}

/// The end of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochEntry {
    pub epoch: usize,
    /// The last step of the epoch.
    pub step: usize,
    /// The training split: means over the epoch's steps.
    pub train: EpochScores,
    /// The dev split; null where there is none.
    pub dev: Option<EpochScores>,
    /// Whether it is the best epoch so far.
    pub is_best: bool,
    /// Time that the epoch took, scoring included.
    #[serde(with = "number")]
    pub seconds: f64,
    /// Share of the training steps' time in which the next batch was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_wait: Option<f64>,
    /// Bytes of the process in memory at the end of the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_memory: Option<u64>,
    /// Bytes in use on the first CUDA device at the end of the epoch, by whichever process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_memory: Option<u64>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Entry {
    Step(StepEntry),
    Epoch(Box<EpochEntry>),
}

/// The log of a run, open for appending.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log, or starts it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::options().append(true).create(true).open(path);
        let file = file.map_err(|source| FileError::new("open", path, source))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one line, which is in the file when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, entry: &Entry) -> Result<(), FileError> {
        let failed = |source| FileError::new("write", &self.path, source);
        let mut line = serde_json::to_vec(entry).map_err(|error| failed(io::Error::from(error)))?;
        line.push(b'\n');
        // One write for the line: a kill leaves at most one torn line, the last.
        self.file.write_all(&line).map_err(failed)
    }

    /// Brings the log to the disk. Call it before `last/` is saved: a checkpoint must never know more steps than the log.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync_data().map_err(|source| FileError::new("write", &self.path, source))
    }
}

/// Where a restored run stands: what lies beyond it in the log is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Steps taken.
    pub step: usize,
    /// Epochs that are over, scored and in the log. At the last step of an epoch a checkpoint may lie before or after
    /// the epoch's end; this tells which.
    pub epochs: usize,
}

/// Removes every line beyond `position` and every line that is torn, in one step, and says how many it removed. Lines
/// that stay are not changed. A log that does not exist has none. Call it before [`Log::open`].
///
/// # Errors
/// When the log cannot be read or written; then it stays as it was.
pub fn cut_back(path: &Path, position: Position) -> Result<usize, FileError> {
    let contents = match fs::read(path) {
        Ok(contents) => contents,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(FileError::new("read", path, source)),
    };
    let mut kept = Vec::with_capacity(contents.len());
    let mut removed = 0;
    for line in contents.split_inclusive(|&byte| byte == b'\n') {
        if line.ends_with(b"\n") && is_within(line, position) {
            kept.extend_from_slice(line);
        } else {
            removed += 1;
        }
    }
    if removed > 0 {
        replace_file(path, &kept)?;
    }
    Ok(removed)
}

fn is_within(line: &[u8], position: Position) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return false };
    let is_at_most =
        |key: &str, limit: usize| value.get(key).and_then(Value::as_u64).is_none_or(|number| number <= limit as u64);
    let is_epoch = value.get("event").and_then(Value::as_str) == Some("epoch");
    value.is_object() && is_at_most("step", position.step) && (!is_epoch || is_at_most("epoch", position.epochs))
}

/// Reads a log; a torn last line is passed over.
///
/// # Errors
/// When the file cannot be read, or a line other than the last is no entry.
pub fn read(path: &Path) -> Result<Vec<Entry>, FileError> {
    let failed = |source| FileError::new("read", path, source);
    let contents = fs::read(path).map_err(failed)?;
    let mut entries = Vec::new();
    for (index, line) in contents.split_inclusive(|&byte| byte == b'\n').enumerate() {
        match serde_json::from_slice(line) {
            Ok(entry) => entries.push(entry),
            Err(_) if !line.ends_with(b"\n") => {}
            Err(error) => {
                let problem = format!("line {} is no entry of a log: {error}", index + 1);
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, problem)));
            }
        }
    }
    Ok(entries)
}

/// A number that may not be finite: null in the file, NaN when it is read.
mod number {
    use super::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_none() }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize) -> Entry {
        let loss = LossValues::new(0.5, [("task_text", 1.25), ("kl", 0.25)]);
        Entry::Step(StepEntry {
            epoch: 1 + (step - 1) / 10,
            step,
            loss,
            learning_rate: 1e-5,
            gradient_norm: 2.0,
            gradient_norms: std::collections::BTreeMap::new(),
            examples_per_second: 8.0,
        })
    }

    fn epoch(epoch: usize) -> Entry {
        let headline = Headline { accuracy: 0.75, balanced_accuracy: 0.5, weighted_f1: 0.625, macro_f1: 0.25 };
        let dev = EpochScores { fusion: Some(headline), text_only: Some(headline), ..EpochScores::default() };
        Entry::Epoch(Box::new(EpochEntry {
            epoch,
            step: epoch * 10,
            train: EpochScores { loss: Some(LossValues::new(-1.0, [])), ..EpochScores::default() },
            dev: Some(dev),
            is_best: true,
            seconds: 1.5,
            data_wait: None,
            resident_memory: None,
            device_memory: None,
        }))
    }

    fn run_of(steps: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        for n in 1..=steps {
            entries.push(step(n));
            if n % 10 == 0 {
                entries.push(epoch(n / 10));
            }
        }
        entries
    }

    fn written(path: &Path, entries: &[Entry]) {
        let mut log = Log::open(path).unwrap();
        for entry in entries {
            log.append(entry).unwrap();
        }
        log.sync().unwrap();
    }

    #[test]
    fn lines_have_the_documented_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        written(&path, &[step(3), epoch(1)]);
        let expected = concat!(
            r#"{"event":"step","epoch":1,"step":3,"loss":{"total":0.5,"task_text":1.25,"kl":0.25},"#,
            r#""learning_rate":0.00001,"gradient_norm":2.0,"examples_per_second":8.0}"#,
            "\n",
            r#"{"event":"epoch","epoch":1,"step":10,"train":{"loss":{"total":-1.0}},"#,
            r#""dev":{"accuracy":0.75,"balanced_accuracy":0.5,"weighted_f1":0.625,"macro_f1":0.25,"#,
            r#""text_only":{"accuracy":0.75,"balanced_accuracy":0.5,"weighted_f1":0.625,"macro_f1":0.25}},"#,
            r#""is_best":true,"seconds":1.5}"#,
            "\n"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(read(&path).unwrap(), [step(3), epoch(1)]);
    }

    #[test]
    fn terms_of_any_method_are_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let loss = LossValues::new(0.5, [("similarity", 0.25), ("task_fusion", 2.0), ("difference", 4.0)]);
        let Entry::Step(good) = step(1) else { unreachable!("it is a step") };
        let entry = Entry::Step(StepEntry { loss, ..good });
        written(&path, std::slice::from_ref(&entry));
        let text = fs::read_to_string(&path).unwrap();
        let expected = r#""loss":{"total":0.5,"task_fusion":2.0,"difference":4.0,"similarity":0.25},"#;
        assert!(text.contains(expected), "{text}");
        assert_eq!(read(&path).unwrap(), [entry]);
    }

    #[test]
    fn numbers_that_are_not_finite_are_null() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let loss = LossValues::new(f64::NAN, [("semantic", f64::NEG_INFINITY)]);
        let Entry::Step(good) = step(1) else { unreachable!("it is a step") };
        written(&path, &[Entry::Step(StepEntry { loss, gradient_norm: f64::INFINITY, ..good })]);
        let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert!(value["loss"]["total"].is_null() && value["loss"]["semantic"].is_null());
        assert!(value["gradient_norm"].is_null());
        let entries = read(&path).unwrap();
        let Entry::Step(again) = &entries[0] else { unreachable!("it is a step") };
        assert!(again.loss.total.is_nan() && again.gradient_norm.is_nan());
    }

    #[test]
    fn a_log_that_is_cut_back_and_goes_on_is_that_of_a_run_that_was_not_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, path) = (folder.path().join("whole"), folder.path().join("log.jsonl"));
        written(&whole, &run_of(25));
        // Restored within an epoch, at its last step before its end, and after its end.
        for (position, entries, removed) in [
            (Position { step: 13, epochs: 1 }, 14, 13),
            (Position { step: 20, epochs: 1 }, 21, 6),
            (Position { step: 20, epochs: 2 }, 22, 5),
            (Position { step: 0, epochs: 0 }, 0, 27),
        ] {
            let torn = [fs::read(&whole).unwrap(), br#"{"event":"step","ep"#.to_vec()].concat();
            fs::write(&path, torn).unwrap();
            assert_eq!(read(&path).unwrap(), run_of(25));
            assert_eq!(cut_back(&path, position).unwrap(), removed + 1);
            assert_eq!(read(&path).unwrap(), run_of(25)[..entries]);
            written(&path, &run_of(25)[entries..]);
            assert_eq!(fs::read(&path).unwrap(), fs::read(&whole).unwrap());
        }
        assert_eq!(cut_back(&whole, Position { step: 25, epochs: 2 }).unwrap(), 0);
        assert_eq!(cut_back(&folder.path().join("none"), Position { step: 0, epochs: 0 }).unwrap(), 0);
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, "what\n{}\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("log.jsonl: line 1 is no entry"), "{error}");
    }

    #[test]
    fn no_bytes_panic_and_what_is_cut_back_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        written(&path, &run_of(12));
        let whole = fs::read(&path).unwrap();
        let first = whole.split_inclusive(|&byte| byte == b'\n').next().unwrap();
        crate::damage::each(&[&whole[..], first], 500, |bytes| {
            fs::write(&path, bytes).unwrap();
            let _ = read(&path);
            cut_back(&path, Position { step: 5, epochs: 1 }).unwrap();
            assert_eq!(cut_back(&path, Position { step: 5, epochs: 1 }).unwrap(), 0);
        });
    }
}
