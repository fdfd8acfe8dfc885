//! The one row format that `predict`, `eval` and every report share: a line of `predictions-<split>.jsonl`.
//!
//! A row has `id`, `label` (the predicted one), `probabilities` (label to number, in label order), `text_only` and
//! `speech_only` (the same two, or null), `provenance`, `truth` (the true label, where known), `words` (of the whole
//! text, where there is one), and the manifest's other keys. A row that failed has `id` and `error`.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::data::names::normal;
use crate::error::Problems;
use crate::files::{AtomicFile, FileError};

/// The names that a row gives a meaning to.
const FIXED_NAMES: [&str; 9] =
    ["id", "label", "probabilities", "text_only", "speech_only", "provenance", "truth", "words", "error"];

/// What is put before a key of the manifest that has one of the fixed names.
const RENAMED: &str = "manifest.";

/// Why predictions cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PredictionsError {
    /// The file cannot be opened or read.
    #[error("cannot read the predictions {path}: {cause}", path = path.display())]
    Read { path: PathBuf, cause: io::Error },
    /// Lines that are not rows.
    #[error("{path} does not hold predictions: {problems}", path = path.display())]
    Malformed {
        path: PathBuf,
        /// One entry for each bad line.
        problems: Problems,
    },
}

/// The probability of each label, in label order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probabilities(pub Vec<(String, f32)>);

impl Serialize for Probabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (label, probability) in &self.0 {
            map.serialize_entry(label, probability)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Probabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Probabilities;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a probability for each label")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Probabilities(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// What one classifier says of one utterance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    pub label: String,
    /// Every label's probability.
    pub probabilities: Probabilities,
}

impl Classification {
    /// The classification that `probabilities` (in the order of `labels`) give; the first of equal ones wins. Nothing
    /// where there is no label.
    pub fn new(labels: &[String], probabilities: &[f32]) -> Option<Self> {
        let entries: Vec<(String, f32)> = labels.iter().cloned().zip(probabilities.iter().copied()).collect();
        let mut best = entries.first()?;
        for entry in &entries {
            if entry.1 > best.1 {
                best = entry;
            }
        }
        Some(Self { label: best.0.clone(), probabilities: Probabilities(entries) })
    }
}

/// Where a modality's input came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Given,
    /// Text recognised from the speech.
    Asr,
    /// Speech synthesised from the text.
    Tts,
    /// There is none.
    Absent,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Given => "given",
            Self::Asr => "asr",
            Self::Tts => "tts",
            Self::Absent => "absent",
        })
    }
}

/// Where both modalities came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins {
    pub text: Origin,
    pub speech: Origin,
}

/// The manifest's other keys. One that has the name of a field of the row is kept as `manifest.<key>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Extra(Map<String, Value>);

impl Extra {
    /// The keys to carry through, in the manifest's order.
    pub fn from_manifest(keys: impl IntoIterator<Item = (String, Value)>) -> Self {
        let renamed = |key: String| if FIXED_NAMES.contains(&key.as_str()) { format!("{RENAMED}{key}") } else { key };
        Self(keys.into_iter().map(|(key, value)| (renamed(key), value)).collect())
    }

    /// The value of one key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The names of all keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The result of one utterance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    pub id: String,
    /// The prediction: the fusion classifier's, or that of the one modality that is there.
    #[serde(flatten)]
    pub fusion: Classification,
    /// What the text classifier says alone.
    pub text_only: Option<Classification>,
    /// What the speech classifier says alone.
    pub speech_only: Option<Classification>,
    /// Where the inputs came from.
    pub provenance: Origins,
    /// The true label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<String>,
    /// Words of the whole text (between white space, before any cut); nothing if there is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<usize>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Prediction {
    /// Labels as manifests have them, also in files of other programs.
    fn normalise(&mut self) {
        self.truth = self.truth.as_deref().map(normal);
        let classifications = [Some(&mut self.fusion), self.text_only.as_mut(), self.speech_only.as_mut()];
        for classification in classifications.into_iter().flatten() {
            classification.label = normal(&classification.label);
            for (label, _) in &mut classification.probabilities.0 {
                *label = normal(label);
            }
        }
    }
}

/// An utterance that could not be scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The manifest's id, where the line could be read that far.
    pub id: Option<String>,
    /// What is wrong, where, and what to do.
    pub error: String,
}

/// A line of a predictions file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Row {
    Prediction(Box<Prediction>),
    /// One that could not be scored.
    Failure(Failure),
}

impl Row {
    /// The row of one line.
    ///
    /// # Errors
    /// When the line is not a JSON object of either form.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        let value: Value = serde_json::from_str(line)?;
        if value.get("error").is_some() {
            return serde_json::from_value(value).map(Row::Failure);
        }
        let mut prediction: Prediction = serde_json::from_value(value)?;
        prediction.normalise();
        Ok(Row::Prediction(Box::new(prediction)))
    }

    /// The row as one line of JSON, its newline included.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_line(&self, writer: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *writer, self)?;
        writer.write_all(b"\n")
    }
}

/// Reads a predictions file; blank lines are passed over.
///
/// # Errors
/// When the file cannot be read, or some of its lines are not rows (all are listed).
pub fn read(path: &Path) -> Result<Vec<Row>, PredictionsError> {
    let failed = |cause| PredictionsError::Read { path: path.to_owned(), cause };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    for (index, line) in io::BufReader::new(file).split(b'\n').enumerate() {
        let line = line.map_err(failed)?;
        let line = String::from_utf8_lossy(&line);
        if line.trim().is_empty() {
            continue;
        }
        match Row::from_line(&line) {
            Ok(row) => rows.push(row),
            Err(error) => problems.push(format!("line {}: {error}", index + 1)),
        }
    }
    if problems.is_empty() {
        Ok(rows)
    } else {
        Err(PredictionsError::Malformed { path: path.to_owned(), problems: Problems(problems) })
    }
}

/// Writes a predictions file: the whole new one appears under its name, or the old one stays.
///
/// # Errors
/// When the file cannot be written.
pub fn write<'rows>(path: &Path, rows: impl IntoIterator<Item = &'rows Row>) -> Result<(), FileError> {
    let mut file = AtomicFile::create(path)?;
    for row in rows {
        row.write_line(&mut file).map_err(|source| FileError::new("write", path, source))?;
    }
    file.commit()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels() -> Vec<String> {
        ["sad", "happy"].map(String::from).to_vec()
    }

    fn prediction() -> Prediction {
        Prediction {
            id: "a1".into(),
            fusion: Classification::new(&labels(), &[0.1, 0.9]).unwrap(),
            text_only: Classification::new(&labels(), &[0.5, 0.5]),
            speech_only: None,
            provenance: Origins { text: Origin::Given, speech: Origin::Absent },
            truth: Some("sad".into()),
            words: Some(3),
            extra: Extra::from_manifest([
                ("speaker".to_owned(), json!("Ses01F")),
                ("words".to_owned(), json!(["a"])),
                ("turn".to_owned(), json!(7)),
            ]),
        }
    }

    #[test]
    fn a_row_has_the_documented_names_in_order() {
        let mut line = Vec::new();
        Row::Prediction(Box::new(prediction())).write_line(&mut line).unwrap();
        let expected = concat!(
            r#"{"id":"a1","label":"happy","probabilities":{"sad":0.1,"happy":0.9},"#,
            r#""text_only":{"label":"sad","probabilities":{"sad":0.5,"happy":0.5}},"speech_only":null,"#,
            r#""provenance":{"text":"given","speech":"absent"},"truth":"sad","words":3,"#,
            r#""speaker":"Ses01F","manifest.words":["a"],"turn":7}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions-test.jsonl");
        let unlabelled = Prediction { truth: None, words: None, ..prediction() };
        let rows = [
            Row::Prediction(Box::new(prediction())),
            Row::Failure(Failure { id: Some("b".into()), error: "audio is empty".into() }),
            Row::Failure(Failure { id: None, error: "line 3 is not JSON".into() }),
            Row::Prediction(Box::new(unlabelled)),
        ];
        write(&path, &rows).unwrap();
        assert_eq!(read(&path).unwrap(), rows);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions-test.jsonl");
        std::fs::write(&path, "{\"id\": \"a\", \"error\": \"x\"}\n\nnot json\n{\"id\": \"b\"}\n").unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("line 3: ") && message.contains("line 4: missing field"), "{message}");
        assert!(read(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn no_bytes_panic_and_what_is_read_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions-test.jsonl");
        let failure = Row::Failure(Failure { id: Some("b".into()), error: "audio is empty".into() });
        write(&path, &[Row::Prediction(Box::new(prediction())), failure]).unwrap();
        let good = std::fs::read(&path).unwrap();
        crate::damage::each(&[good], 1_000, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            if let Ok(rows) = read(&path) {
                write(&path, &rows).unwrap();
                assert_eq!(read(&path).unwrap(), rows);
            }
        });
    }
}
