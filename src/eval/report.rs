//! The report of one split: `report-<split>.json`, made from saved predictions alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::metrics::{ClassScore, Headline, MetricsError};
use super::predictions::{Origin, Prediction, Row};
use super::scoring::{Example, System, clusters, groups, key_order, length_bin, scored_examples, scores, value_of};
use super::statistics::{Interval, LEVEL, RESAMPLES};
use crate::error::Problems;
use crate::files::{FileError, replace_file};
use crate::splits::record::SplitRecord;

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// No row has both a prediction and a true label.
    #[error(
        "the split {split} has nothing to score: {failed} rows failed and {unlabelled} have no true label; give the \
         manifest's rows a `label`"
    )]
    Nothing {
        split: String,
        /// Rows with an error.
        failed: usize,
        /// Rows without a true label.
        unlabelled: usize,
    },
    /// Labels that the checkpoint does not know.
    #[error("labels outside the checkpoint's set ({known}): {problems}")]
    UnknownLabels {
        known: String,
        /// One entry for each row.
        problems: Problems,
    },
    /// A key to group or cluster by that no row has.
    #[error("no row of the split {split} has the key `{key}`; there are: {available}")]
    UnknownKey {
        split: String,
        key: String,
        /// The keys that the rows have.
        available: String,
    },
    /// The numbers cannot be computed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// A number with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    /// Its interval: [low, high]; none of a single example or cluster.
    pub interval: Option<Interval>,
}

/// What one of the three classifiers reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// How many examples it was scored on.
    pub examples: usize,
    /// The headline numbers with their intervals.
    #[serde(flatten)]
    pub headline: Headline<Estimate>,
    /// Precision, recall, F1 and support, in label order.
    pub per_class: Vec<LabelledScore>,
    /// One row for each true label, one column for each predicted one.
    pub confusion: Vec<Vec<u64>>,
}

/// The score of a named class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelledScore {
    pub label: String,
    #[serde(flatten)]
    pub score: ClassScore,
}

/// The headline numbers of a part of the examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// What its examples have in common.
    pub value: String,
    pub examples: usize,
    pub fusion: Headline<Estimate>,
    /// The text classifier, where it was scored.
    pub text_only: Option<Headline<Estimate>>,
    /// The speech classifier, where it was scored.
    pub speech_only: Option<Headline<Estimate>>,
}

/// All groups by the value of one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breakdown {
    pub key: String,
    /// Its values: numbers in order, then other values in order, then `missing`.
    pub groups: Vec<Group>,
}

/// How often each provenance occurs among the scored examples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginCounts {
    pub text: BTreeMap<Origin, usize>,
    pub speech: BTreeMap<Origin, usize>,
}

/// What was done to inputs before they were scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputCounts {
    /// Texts longer than `max_tokens`, cut.
    pub cut_texts: usize,
    /// Audio longer than `max_seconds`, cut.
    pub cut_audio: usize,
    /// Empty texts.
    pub empty_texts: usize,
}

/// How the intervals were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Resamples drawn.
    pub resamples: usize,
    pub seed: u64,
    /// Coverage of the intervals.
    pub level: f64,
    /// The key whose values are drawn as whole clusters; null where examples are drawn.
    pub cluster: Option<String>,
    /// How many clusters there are; null where examples are drawn.
    #[serde(default)]
    pub clusters: Option<usize>,
}

/// Labels of the data that the model does not know, and what was done about them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownLabels {
    /// Whether their utterances were left out; else every answer to them is wrong.
    pub are_dropped: bool,
    /// Utterances by label.
    pub counts: BTreeMap<String, usize>,
}

/// What the caller knows and decides.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    pub split: String,
    /// The checkpoint's labels, in order.
    pub labels: Vec<String>,
    /// Keys of the rows to break the numbers down by; `provenance.text` and `provenance.speech` are keys too.
    pub keys: Vec<String>,
    /// A key whose values are resampled as whole clusters.
    pub cluster: Option<String>,
    /// Seed of the resamples.
    pub seed: u64,
    pub resamples: usize,
    /// What was done to the inputs.
    pub inputs: InputCounts,
    /// SHA-256 of the scored data, where the caller knows it.
    pub data_sha256: Option<String>,
    /// The split of the run that it belongs to, where the caller knows it.
    pub data_split: Option<SplitRecord>,
    /// How often the run's test split was scored, this time included; none for other data.
    pub test_uses: Option<usize>,
    /// Where labels of the data are unknown to the checkpoint; those that are scored are among `labels`.
    pub unknown_labels: Option<UnknownLabels>,
}

impl ReportOptions {
    /// A report of `split` over `labels` with the default resamples, seed 1, and nothing else asked for.
    pub fn new(split: &str, labels: &[String]) -> Self {
        Self {
            split: split.to_owned(),
            labels: labels.to_vec(),
            keys: Vec::new(),
            cluster: None,
            seed: 1,
            resamples: RESAMPLES,
            inputs: InputCounts::default(),
            data_sha256: None,
            data_split: None,
            test_uses: None,
            unknown_labels: None,
        }
    }
}

/// The numbers of one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub split: String,
    /// How many examples were scored.
    pub examples: usize,
    /// Rows that could not be scored.
    pub failed: usize,
    /// Rows without a true label, which are not scored.
    pub unlabelled: usize,
    /// The labels, in the order of the tables.
    pub labels: Vec<String>,
    pub fusion: Scores,
    /// The text classifier alone, on the rows where it answered.
    pub text_only: Option<Scores>,
    /// The speech classifier alone, on the rows where it answered.
    pub speech_only: Option<Scores>,
    /// By words of the text: 0, 1, 2-3, 4-10, over 10 (the bins of the paper's table 6); bins without examples are
    /// left out.
    pub by_text_length: Vec<Group>,
    /// By each key that was asked for.
    pub by: Vec<Breakdown>,
    /// Where the inputs came from.
    pub provenance: OriginCounts,
    /// What was done to the inputs.
    pub inputs: InputCounts,
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
    /// SHA-256 of the scored data.
    pub data_sha256: Option<String>,
    /// The split that the scored data are a part of, and what this part shares with the others.
    #[serde(default)]
    pub data_split: Option<SplitRecord>,
    /// How often the run's test split was scored until then, this time included; null for other data.
    #[serde(default)]
    pub test_uses: Option<usize>,
    /// Labels that the model does not know, and what was done about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_labels: Option<UnknownLabels>,
}

impl Report {
    /// Scores the rows that have a prediction and a true label.
    ///
    /// # Errors
    /// When there is no such row, a label is not in the label set (all are listed), or no row has a key that is asked
    /// for.
    pub fn from_predictions(rows: &[Row], options: &ReportOptions) -> Result<Self, ReportError> {
        let predictions: Vec<&Prediction> = rows
            .iter()
            .filter_map(|row| match row {
                Row::Prediction(prediction) => Some(prediction.as_ref()),
                Row::Failure(_) => None,
            })
            .collect();
        let failed = rows.len() - predictions.len();
        let examples = scored_examples(&predictions, options)?;
        let unlabelled = predictions.len() - examples.len();
        if examples.is_empty() {
            return Err(ReportError::Nothing { split: options.split.clone(), failed, unlabelled });
        }
        let all: Vec<&Example> = examples.iter().collect();
        let scores = |system| scores(&all, system, options);
        let fusion =
            scores(System::Fusion)?.ok_or(ReportError::Nothing { split: options.split.clone(), failed, unlabelled })?;
        let mut provenance = OriginCounts::default();
        for example in &examples {
            *provenance.text.entry(example.prediction.provenance.text).or_default() += 1;
            *provenance.speech.entry(example.prediction.provenance.speech).or_default() += 1;
        }
        Ok(Self {
            split: options.split.clone(),
            examples: examples.len(),
            failed,
            unlabelled,
            labels: options.labels.clone(),
            fusion,
            text_only: scores(System::TextOnly)?,
            speech_only: scores(System::SpeechOnly)?,
            by_text_length: groups(&all, options, |example| length_bin(example.prediction.words))?,
            by: options
                .keys
                .iter()
                .map(|key| {
                    let groups = groups(&all, options, |example| key_order(value_of(example.prediction, key)))?;
                    Ok(Breakdown { key: key.clone(), groups })
                })
                .collect::<Result<_, ReportError>>()?,
            provenance,
            inputs: options.inputs,
            bootstrap: Bootstrap {
                resamples: options.resamples,
                seed: options.seed,
                level: LEVEL,
                cluster: options.cluster.clone(),
                clusters: options.cluster.is_some().then(|| clusters(&all)),
            },
            data_sha256: options.data_sha256.clone(),
            data_split: options.data_split.as_ref().map(|split| split.about(&options.split)),
            test_uses: options.test_uses,
            unknown_labels: options.unknown_labels.clone(),
        })
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When the file cannot be read or is no report.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::new("read", path, source);
        let text = std::fs::read(path).map_err(failed)?;
        serde_json::from_slice(&text).map_err(|error| failed(error.into()))
    }

    /// Writes the report, in one step.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stays.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| FileError::new("write", path, error.into()))?;
        text.push(b'\n');
        replace_file(path, &text)
    }

    /// The classifiers with the names that a reader sees, the single modalities first.
    pub fn systems(&self) -> Vec<(&'static str, &Scores)> {
        [
            ("text only", self.text_only.as_ref()),
            ("speech only", self.speech_only.as_ref()),
            (self.reported(), Some(&self.fusion)),
        ]
        .into_iter()
        .filter_map(|(name, scores)| scores.map(|scores| (name, scores)))
        .collect()
    }

    /// What the reported prediction is called: the fusion's, where there are other classifiers to tell it from.
    pub fn reported(&self) -> &'static str {
        if self.text_only.is_some() || self.speech_only.is_some() { "fusion" } else { "prediction" }
    }

    /// The label that the reported prediction gives to every example, if there is one: the sign of a collapsed model.
    pub fn only_prediction(&self) -> Option<&str> {
        let given: Vec<usize> = (0..self.labels.len())
            .filter(|&column| self.fusion.confusion.iter().any(|row| row.get(column).is_some_and(|&count| count > 0)))
            .collect();
        match (given.as_slice(), self.labels.len()) {
            (&[only], 2..) => self.labels.get(only).map(String::as_str),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::eval::predictions::{Classification, Extra, Failure, Origins, Probabilities};

    fn labels() -> Vec<String> {
        ["a", "b"].map(String::from).to_vec()
    }

    fn says(label: &str) -> Classification {
        Classification { label: label.to_owned(), probabilities: Probabilities(Vec::new()) }
    }

    fn row(id: usize, truth: &str, fusion: &str, text: Option<&str>, words: Option<usize>, turn: Value) -> Row {
        Row::Prediction(Box::new(Prediction {
            id: id.to_string(),
            fusion: says(fusion),
            text_only: text.map(says),
            speech_only: None,
            provenance: Origins {
                text: if text.is_some() { Origin::Asr } else { Origin::Absent },
                speech: Origin::Given,
            },
            truth: (!truth.is_empty()).then(|| truth.to_owned()),
            words,
            extra: Extra::from_manifest([("turn".to_owned(), turn)]),
        }))
    }

    fn rows() -> Vec<Row> {
        vec![
            row(1, "a", "a", Some("b"), Some(0), json!(10)),
            row(2, "a", "a", Some("a"), Some(1), json!(9)),
            row(3, "b", "b", Some("a"), Some(3), json!("x")),
            row(4, "b", "a", Some("b"), Some(4), json!(9)),
            row(5, "b", "b", None, None, Value::Null),
            row(6, "b", "b", Some("b"), Some(11), json!(-2)),
            row(7, "", "b", Some("b"), Some(11), json!(9)),
            Row::Failure(Failure { id: None, error: "no audio".into() }),
        ]
    }

    fn options() -> ReportOptions {
        ReportOptions {
            keys: vec!["turn".into(), "provenance.text".into()],
            resamples: 300,
            ..ReportOptions::new("test", &labels())
        }
    }

    #[test]
    fn rows_are_counted_scored_and_grouped() {
        let report = Report::from_predictions(&rows(), &options()).unwrap();
        assert_eq!((report.examples, report.failed, report.unlabelled), (6, 1, 1));
        assert_eq!(report.fusion.confusion, [[2, 0], [1, 3]]);
        assert_eq!(report.text_only.as_ref().unwrap().confusion, [[1, 1], [1, 2]]);
        assert_eq!(report.speech_only, None);
        assert!((report.fusion.headline.accuracy.value - 5.0 / 6.0).abs() < 1e-12);
        let [low, high] = report.fusion.headline.accuracy.interval.unwrap();
        assert!(0.0 < low && low < 5.0 / 6.0 && (5.0 / 6.0..=1.0).contains(&high), "[{low}, {high}]");
        let found = |groups: &[Group]| -> Vec<(String, usize)> {
            groups.iter().map(|group| (group.value.clone(), group.examples)).collect()
        };
        let named = |expected: &[(&str, usize)]| -> Vec<(String, usize)> {
            expected.iter().map(|&(name, n)| (name.to_owned(), n)).collect()
        };
        let bins = named(&[("0", 1), ("1", 1), ("2-3", 1), ("4-10", 1), ("over 10", 1), ("no text", 1)]);
        assert_eq!(found(&report.by_text_length), bins);
        let turns = named(&[("-2", 1), ("9", 2), ("10", 1), ("x", 1), ("missing", 1)]);
        assert_eq!(found(&report.by[0].groups), turns);
        assert_eq!(found(&report.by[1].groups), named(&[("absent", 1), ("asr", 5)]));
        assert_eq!(report.by[1].groups[0].text_only, None);
        assert_eq!(report.provenance.text, [(Origin::Asr, 5), (Origin::Absent, 1)].into());
        assert_eq!(report.only_prediction(), None);
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report = Report::from_predictions(&rows(), &options()).unwrap();
        let text = serde_json::to_string_pretty(&report).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["fusion"]["per_class"][1]["support"], json!(4));
        assert!(value["fusion"]["weighted_f1"]["interval"][1].is_f64(), "{text}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report-test.json");
        report.save(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{text}\n"));
        let again = Report::load(&path).unwrap();
        assert_eq!(again.fusion.per_class, report.fusion.per_class);
        // serde_json reads the last digit of some numbers one off.
        let high = |report: &Report| report.by[0].groups[1].fusion.weighted_f1.interval.unwrap()[1];
        assert!((high(&again) - high(&report)).abs() < 1e-12);
        assert_eq!((again.by_text_length.len(), again.provenance), (6, report.provenance));
    }

    /// Twenty rows that are two clusters, one all right and one all wrong: an accuracy of 0.5 known only to [0, 1].
    #[test]
    fn clusters_widen_the_interval() {
        let rows: Vec<Row> =
            (0..20).map(|id| row(id, "a", if id < 10 { "a" } else { "b" }, None, None, json!(id / 10))).collect();
        let options = ReportOptions { keys: Vec::new(), cluster: Some("turn".into()), ..options() };
        let accuracy = Report::from_predictions(&rows, &options).unwrap().fusion.headline.accuracy;
        assert_eq!(accuracy, Estimate { value: 0.5, interval: Some([0.0, 1.0]) });
    }

    #[test]
    fn one_answer_for_all_is_noticed() {
        let rows = [row(1, "a", "b", None, None, Value::Null), row(2, "b", "b", None, None, Value::Null)];
        let options = ReportOptions { keys: Vec::new(), ..options() };
        assert_eq!(Report::from_predictions(&rows, &options).unwrap().only_prediction(), Some("b"));
    }

    #[test]
    fn what_cannot_be_scored_is_named() {
        let message =
            |rows: &[Row], options: &ReportOptions| Report::from_predictions(rows, options).unwrap_err().to_string();
        let unlabelled = [row(1, "", "a", None, None, Value::Null)];
        assert!(message(&unlabelled, &options()).contains("split test has nothing to score: 0 rows failed and 1"));
        let unknown = [row(1, "c", "a", Some("d"), None, Value::Null), row(2, "e", "a", None, None, Value::Null)];
        let expected =
            "labels outside the checkpoint's set (a, b): truth `c` of `1`; prediction `d` of `1`; truth `e` of `2`";
        assert_eq!(message(&unknown, &options()), expected);
        let speaker = ReportOptions { cluster: Some("speaker".into()), ..options() };
        let expected = "no row of the split test has the key `speaker`; there are: turn, label, words, provenance.text, \
             provenance.speech";
        assert_eq!(message(&rows(), &speaker), expected);
    }

    #[test]
    fn no_bytes_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report-test.json");
        Report::from_predictions(&rows(), &options()).unwrap().save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        crate::damage::each(&[good], 500, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            if let Ok(report) = Report::load(&path) {
                report.save(&path).unwrap();
                assert_eq!(Report::load(&path).unwrap(), report);
            }
        });
    }
}
