//! Two systems on the same utterances, from their saved predictions: differences, paired bootstrap and `McNemar`.
//!
//! With several seeds, the predictions of a seed (of all folds together) are scored by themselves, and a system's number
//! is the mean over its seeds: pooled seeds would look like one system that answers more evenly. The predictions of one
//! utterance depend on each other, so that the bootstrap draws an utterance with all of them. For `McNemar`'s test an
//! utterance counts once: for the system that is right about it under more of the seeds; equal counts are a tie. With
//! one seed, all of this is the usual.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::metrics::{Headline, MetricsError};
use super::paired::{Difference, Grouped, McNemar, Outcome, grouped_bootstrap};
use super::predictions::{Extra, Row};
use super::report::{Bootstrap, Estimate};
use super::scoring::value_of;
use super::statistics::{LEVEL, Unit};
use crate::data::manifest;
use crate::error::Problems;

/// Why two systems cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComparisonError {
    /// They were scored on different utterances.
    #[error("{first} and {second} were not scored on the same utterances: {problems}")]
    Utterances {
        /// The first one's name.
        first: String,
        /// The second one's name.
        second: String,
        problems: Problems,
    },
    /// They know different labels.
    #[error("{first} and {second} do not have the same labels: {problems}")]
    Labels {
        /// The first one's name.
        first: String,
        /// The second one's name.
        second: String,
        /// Labels that only one of them has.
        problems: Problems,
    },
    /// No row of the key that clusters are made of.
    #[error("no prediction of {name} has the key `{key}`, by which clusters were to be drawn")]
    NoCluster {
        /// Whose predictions.
        name: String,
        key: String,
    },
    /// Rows of the same utterance.
    #[error("the predictions of {name} have several rows of one id: {problems}")]
    Repeated {
        /// Whose predictions.
        name: String,
        problems: Problems,
    },
    /// The numbers cannot be computed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// What one run said of each utterance whose true label is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The run's name in messages.
    pub name: String,
    /// The labels in order: those of the probabilities, and any other that is true or predicted.
    pub labels: Vec<String>,
    by_id: BTreeMap<String, Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    /// The true label's place in the labels.
    truth: usize,
    label: usize,
    /// The value that it shares with the rows that are drawn with it.
    cluster: Option<String>,
}

impl Answers {
    /// Of the rows of a predictions file; `cluster` is the key whose values are drawn whole.
    ///
    /// # Errors
    /// When no row has the key to cluster by, or an id comes twice.
    pub fn new(name: &str, rows: &[Row], cluster: Option<&str>) -> Result<Self, ComparisonError> {
        let mut repeated = Vec::new();
        let mut answers = Self { name: name.to_owned(), ..Self::default() };
        for row in rows {
            let Row::Prediction(prediction) = row else { continue };
            let Some(truth) = &prediction.truth else { continue };
            if answers.labels.is_empty() {
                answers.labels = prediction.fusion.probabilities.0.iter().map(|(label, _)| label.clone()).collect();
            }
            let answer = Answer {
                truth: place_of(&mut answers.labels, truth),
                label: place_of(&mut answers.labels, &prediction.fusion.label),
                cluster: cluster.and_then(|key| value_of(prediction, key)),
            };
            if answers.by_id.insert(prediction.id.clone(), answer).is_some() {
                repeated.push(format!("`{}`", prediction.id));
            }
        }
        if !repeated.is_empty() {
            return Err(ComparisonError::Repeated { name: answers.name, problems: Problems(repeated) });
        }
        match cluster {
            Some(key) if answers.by_id.values().all(|answer| answer.cluster.is_none()) => {
                Err(ComparisonError::NoCluster { name: answers.name, key: key.to_owned() })
            }
            _ => Ok(answers),
        }
    }
}

impl Answers {
    /// The true label of each utterance.
    pub fn truths(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_id.iter().map(|(id, answer)| (id.as_str(), self.labels[answer.truth].as_str()))
    }

    /// How many utterances lack the key that clusters are made of, and are clusters of their own.
    pub fn lacking_cluster(&self) -> usize {
        self.by_id.values().filter(|answer| answer.cluster.is_none()).count()
    }

    /// The same, with something in front of the ids.
    pub fn within(self, place: &str) -> Self {
        let by_id = self.by_id.into_iter().map(|(id, answer)| (format!("{place}/{id}"), answer)).collect();
        Self { by_id, ..self }
    }
}

fn place_of(labels: &mut Vec<String>, label: &str) -> usize {
    labels.iter().position(|known| known == label).unwrap_or_else(|| {
        labels.push(label.to_owned());
        labels.len() - 1
    })
}

/// What two systems came to on the same utterances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Pairs of predictions.
    pub pairs: usize,
    /// Different utterances.
    pub utterances: usize,
    /// Clusters that the intervals are made from; null where utterances are drawn.
    #[serde(default)]
    pub clusters: Option<usize>,
    /// The first system's numbers: those of each seed over all its predictions, then the mean over the seeds.
    pub first: Headline,
    /// The second system's numbers.
    pub second: Headline,
    /// The second's numbers less the first's.
    pub difference: Headline<Difference>,
    /// The utterances that only one of them got right.
    pub mcnemar: McNemar,
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
}

/// Pairs of predictions for the same utterances.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    labels: Vec<String>,
    outcomes: Vec<Outcome>,
    /// The utterance of each pair.
    utterances: Vec<usize>,
    /// What is drawn whole, of each pair.
    units: Vec<usize>,
    has_clusters: bool,
    known_utterances: BTreeMap<String, usize>,
    known_units: BTreeMap<String, usize>,
    known_seeds: BTreeMap<u64, usize>,
}

impl Pairs {
    /// Adds what two runs of one seed said of the same utterances; the first run that is added decides the order of the
    /// labels.
    ///
    /// # Errors
    /// When they were not scored on the same utterances with the same true labels, or know different labels.
    pub fn add(&mut self, seed: u64, first: &Answers, second: &Answers) -> Result<(), ComparisonError> {
        check_utterances(first, second)?;
        check_labels(first, second)?;
        let numbers = |answers: &Answers, labels: &mut Vec<String>| -> Vec<usize> {
            answers.labels.iter().map(|label| place_of(labels, label)).collect()
        };
        let (of_first, of_second) = (numbers(first, &mut self.labels), numbers(second, &mut self.labels));
        let group = numbered(&mut self.known_seeds, seed);
        for ((id, one), other) in first.by_id.iter().zip(second.by_id.values()) {
            // A row without the key is a cluster of its own, whose name no value can have.
            self.has_clusters |= one.cluster.is_some();
            let unit = one.cluster.clone().unwrap_or_else(|| format!("\u{0}{id}"));
            self.utterances.push(numbered(&mut self.known_utterances, id.clone()));
            self.units.push(numbered(&mut self.known_units, unit));
            self.outcomes.push(Outcome {
                group,
                truth: of_first[one.truth],
                first: of_first[one.label],
                second: of_second[other.label],
                weight: 1,
            });
        }
        Ok(())
    }

    /// Different utterances.
    pub fn utterances(&self) -> usize {
        self.known_utterances.len()
    }

    /// What is drawn whole for the intervals: clusters, or utterances.
    pub fn units(&self) -> usize {
        self.known_units.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// The first system's numbers, with their intervals.
    ///
    /// # Errors
    /// When there are no pairs, or no resamples.
    pub fn first(&self, resamples: usize, seed: u64) -> Result<Headline<Estimate>, ComparisonError> {
        let found = self.bootstrap(resamples, seed)?;
        Ok(found.first.zip(found.first_intervals).map(|(value, interval)| Estimate { value, interval }))
    }

    /// Compares the two systems over all pairs; `cluster` is the key that the answers were read with.
    ///
    /// # Errors
    /// When there are no pairs, or no resamples.
    pub fn compare(&self, cluster: Option<&str>, resamples: usize, seed: u64) -> Result<Comparison, ComparisonError> {
        let found = self.bootstrap(resamples, seed)?;
        Ok(Comparison {
            pairs: self.outcomes.len(),
            utterances: self.utterances(),
            clusters: cluster.map(|_| self.units()),
            first: found.first,
            second: found.second,
            difference: found.difference,
            mcnemar: self.mcnemar(),
            bootstrap: Bootstrap {
                resamples,
                seed,
                level: LEVEL,
                cluster: cluster.map(str::to_owned),
                clusters: cluster.map(|_| self.units()),
            },
        })
    }

    fn bootstrap(&self, resamples: usize, seed: u64) -> Result<Grouped, MetricsError> {
        let unit = if self.has_clusters { Unit::Cluster(&self.units) } else { Unit::Utterance(&self.units) };
        grouped_bootstrap(self.labels.len(), &self.weighted(), unit, resamples, seed)
    }

    /// The outcomes with weights by which an utterance counts once in each seed, in however many folds it was tested.
    fn weighted(&self) -> Vec<Outcome> {
        let mut tested: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        let keys = || self.outcomes.iter().map(|outcome| outcome.group).zip(self.utterances.iter().copied());
        keys().for_each(|key| *tested.entry(key).or_default() += 1);
        let all = tested.values().fold(1, |all, &times| least_common_multiple(all, times));
        keys().zip(&self.outcomes).map(|(key, outcome)| Outcome { weight: all / tested[&key], ..*outcome }).collect()
    }

    fn mcnemar(&self) -> McNemar {
        // Of each utterance: how much more often the second system is right.
        let mut gains = vec![0_i64; self.known_utterances.len()];
        for (&utterance, outcome) in self.utterances.iter().zip(&self.outcomes) {
            gains[utterance] += i64::from(outcome.second == outcome.truth) - i64::from(outcome.first == outcome.truth);
        }
        let count = |is_it: fn(&i64) -> bool| gains.iter().copied().filter(is_it).count() as u64;
        McNemar::of(count(|gain| *gain < 0), count(|gain| *gain > 0))
    }
}

fn least_common_multiple(one: u64, other: u64) -> u64 {
    let (mut divisor, mut rest) = (one, other);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    one / divisor * other
}

fn numbered<Name: Ord>(known: &mut BTreeMap<Name, usize>, name: Name) -> usize {
    let next = known.len();
    *known.entry(name).or_insert(next)
}

fn check_utterances(first: &Answers, second: &Answers) -> Result<(), ComparisonError> {
    let ids: BTreeSet<&String> = first.by_id.keys().chain(second.by_id.keys()).collect();
    let truth =
        |answers: &'_ Answers, id: &str| answers.by_id.get(id).map(|answer| answers.labels[answer.truth].clone());
    let problem = |id: &String| match (truth(first, id), truth(second, id)) {
        (Some(_), None) => Some(format!("`{id}` only in {}", first.name)),
        (None, Some(_)) => Some(format!("`{id}` only in {}", second.name)),
        (Some(one), Some(other)) if one != other => {
            Some(format!("`{id}` is `{one}` in {} and `{other}` in {}", first.name, second.name))
        }
        _ => None,
    };
    let problems: Vec<String> = ids.into_iter().filter_map(problem).collect();
    if problems.is_empty() {
        return Ok(());
    }
    let (first, second) = (first.name.clone(), second.name.clone());
    Err(ComparisonError::Utterances { first, second, problems: Problems(problems) })
}

fn check_labels(first: &Answers, second: &Answers) -> Result<(), ComparisonError> {
    let only = |one: &Answers, other: &Answers| -> Vec<String> {
        let missing = one.labels.iter().filter(|label| !other.labels.contains(label));
        missing.map(|label| format!("`{label}` only in {}", one.name)).collect()
    };
    let problems = [only(first, second), only(second, first)].concat();
    if problems.is_empty() {
        return Ok(());
    }
    let (first, second) = (first.name.clone(), second.name.clone());
    Err(ComparisonError::Labels { first, second, problems: Problems(problems) })
}

/// What a row of a manifest has under a key that it may be clustered by when it is scored.
pub fn key_of(row: &manifest::Row, key: &str) -> Option<String> {
    match key {
        "label" => row.label.clone(),
        "words" => row.text.as_ref().map(|text| text.split_whitespace().count().to_string()),
        "speaker" => row.speaker.clone(),
        "group" => row.group.clone(),
        // Known only then.
        "provenance.text" => Some(row.text.is_some().to_string()),
        "provenance.speech" => Some(row.audio.is_some().to_string()),
        _ => {
            let extra = Extra::from_manifest(row.extra.clone());
            extra.get(key).filter(|value| !value.is_null()).map(ToString::to_string)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::eval::paired::McNemarForm;
    use crate::eval::predictions::{Classification, Failure, Origin, Origins, Prediction, Probabilities};

    fn row(id: &str, truth: &str, says: &str) -> Row {
        let given = Origins { text: Origin::Given, speech: Origin::Given };
        let probabilities = ["a", "b"].map(|label| (label.to_owned(), 0.5)).to_vec();
        Row::Prediction(Box::new(Prediction {
            id: id.to_owned(),
            fusion: Classification { label: says.to_owned(), probabilities: Probabilities(probabilities) },
            text_only: None,
            speech_only: None,
            provenance: given,
            truth: Some(truth.to_owned()),
            words: None,
            extra: Extra::from_manifest([("scene".to_owned(), json!(&id[..1]))]),
        }))
    }

    /// Utterances 1 to `n`, all of class `a`: right where the letter of `says` is `a`.
    fn rows(says: &str) -> Vec<Row> {
        says.chars().enumerate().map(|(place, says)| row(&format!("{place:02}"), "a", &says.to_string())).collect()
    }

    fn added(pairs: &mut Pairs, first: &[Row], second: &[Row]) -> Result<(), ComparisonError> {
        let seed = pairs.known_seeds.len() as u64;
        pairs.add(seed, &Answers::new("one", first, None)?, &Answers::new("other", second, None)?)
    }

    #[test]
    fn one_run_against_another_is_the_usual_test() {
        let mut pairs = Pairs::default();
        added(&mut pairs, &rows("aaabbbbbaa"), &rows("aabaaaaaab")).unwrap();
        let found = pairs.compare(None, 500, 1).unwrap();
        assert_eq!((found.pairs, found.utterances), (10, 10));
        // Five of ten against eight of ten; two only the first, five only the second.
        assert!((found.first.accuracy - 0.5).abs() < 1e-12 && (found.second.accuracy - 0.8).abs() < 1e-12);
        assert!((found.difference.accuracy.value - 0.3).abs() < 1e-12);
        assert_eq!((found.mcnemar.only_first, found.mcnemar.only_second), (2, 5));
        // 2·(1 + 7 + 21)/2^7
        assert!((found.mcnemar.p_value - 58.0 / 128.0).abs() < 1e-12 && found.mcnemar.form == McNemarForm::Exact);
    }

    /// Two folds whose ids are the same: eight utterances, and not four twice.
    #[test]
    fn utterances_within_folds_count_apart() {
        let mut pairs = Pairs::default();
        for (fold, first, second) in [("fold1", "aabb", "aaab"), ("fold2", "abbb", "aaab")] {
            let answers = |says: &str| Answers::new("one", &rows(says), None).unwrap().within(fold);
            pairs.add(1, &answers(first), &answers(second)).unwrap();
        }
        let found = pairs.compare(None, 500, 1).unwrap();
        assert_eq!((found.pairs, found.utterances), (8, 8));
        assert_eq!((found.mcnemar.only_first, found.mcnemar.only_second), (0, 3));
        assert!((found.difference.accuracy.value - 3.0 / 8.0).abs() < 1e-12);
    }

    /// Two folds that test one utterance both, right in the one and wrong in the other: 1/2, and not 1 of 5 twice.
    #[test]
    fn an_utterance_that_two_folds_test_counts_once() {
        let mut pairs = Pairs::default();
        let answers = |rows: &[Row]| Answers::new("one", rows, None).unwrap();
        let folds = [[row("01", "a", "a"), row("02", "b", "a")], [row("02", "b", "b"), row("03", "b", "b")]];
        for fold in folds {
            pairs.add(1, &answers(&fold), &answers(&fold)).unwrap();
        }
        let found = pairs.compare(None, 100, 1).unwrap();
        assert_eq!((found.pairs, found.utterances), (4, 3));
        assert!((found.first.accuracy - (1.0 + 0.5 + 1.0) / 3.0).abs() < 1e-12, "{found:?}");
    }

    /// With three seeds, an utterance that one system gets right twice and the other once counts once.
    #[test]
    fn an_utterance_counts_once_over_several_seeds() {
        let mut pairs = Pairs::default();
        for (first, second) in [("aabb", "aaab"), ("abba", "aaba"), ("abbb", "bbab")] {
            added(&mut pairs, &rows(first), &rows(second)).unwrap();
        }
        let found = pairs.compare(None, 2_000, 1).unwrap();
        assert_eq!((found.pairs, found.utterances), (12, 4));
        let first = pairs.first(2_000, 1).unwrap().accuracy;
        assert!((first.value - 5.0 / 12.0).abs() < 1e-12, "{first:?}");
        // Four times the first utterance gives 1, four times the third 0.
        assert!(first.interval.unwrap()[0] < 0.1 && first.interval.unwrap()[1] > 0.8, "{first:?}");
        // By utterance, right of three: 3 to 2, 1 to 2, 0 to 2, 1 to 1.
        assert_eq!((found.mcnemar.only_first, found.mcnemar.only_second), (1, 2));
        // Utterances are drawn whole: a resample of the second utterance alone has a difference of 1/3.
        let gains = [-1.0, 1.0, 2.0, 0.0].map(|gain: f64| gain / 3.0);
        let [low, high] = found.difference.accuracy.interval.unwrap();
        assert!(low >= gains[0] - 1e-12 && high <= gains[2] + 1e-12 && high > 0.4, "[{low}, {high}]");
    }

    #[test]
    fn clusters_are_drawn_whole() {
        // Two scenes, 0 and 1, of ten utterances each; the second system wins one whole scene.
        let says = |letter: char| -> Vec<Row> {
            (0..20)
                .map(|n| row(&format!("{}{n}", n / 10), "a", &(if n < 10 { 'a' } else { letter }).to_string()))
                .collect()
        };
        let answers = |letter, key| Answers::new("one", &says(letter), Some(key));
        let mut pairs = Pairs::default();
        pairs.add(1, &answers('b', "scene").unwrap(), &answers('a', "scene").unwrap()).unwrap();
        let found = pairs.compare(Some("scene"), 500, 1).unwrap();
        // Student's t with one degree of freedom: two clusters tell nothing.
        let interval = found.difference.accuracy.interval.unwrap();
        assert_eq!(interval.map(f64::to_bits), [-1.0_f64, 1.0].map(f64::to_bits));
        assert!(found.difference.accuracy.p_value > 0.4, "{found:?}");
        assert_eq!(found.bootstrap.cluster.as_deref(), Some("scene"));
        let error = ComparisonError::NoCluster { name: "one".into(), key: "dialogue".into() };
        assert_eq!(answers('a', "dialogue"), Err(error));
    }

    #[test]
    fn what_differs_is_named() {
        let failed = [rows("aa"), vec![Row::Failure(Failure { id: Some("02".into()), error: "x".into() })]].concat();
        let message =
            |first: &[Row], second: &[Row]| added(&mut Pairs::default(), first, second).unwrap_err().to_string();
        assert_eq!(
            message(&failed, &rows("aaa")),
            "one and other were not scored on the same utterances: `02` only in other"
        );
        assert_eq!(
            message(&[row("x", "a", "a")], &[row("x", "b", "a")]),
            "one and other were not scored on the same utterances: `x` is `a` in one and `b` in other"
        );
        assert_eq!(
            message(&[row("x", "a", "c")], &[row("x", "a", "d")]),
            "one and other do not have the same labels: `c` only in one; `d` only in other"
        );
        let many: String = "a".repeat(30);
        assert!(message(&rows(&many), &rows("a")).ends_with("`10` only in one; and 19 more"));
        assert!(matches!(Pairs::default().compare(None, 10, 1), Err(ComparisonError::Metrics(MetricsError::Nothing))));
    }
}
