//! From rows to the numbers of a report: which rows are scored, what each classifier reaches on them, and in which groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::metrics::{Confusion, Headline};
use super::predictions::{Classification, Prediction};
use super::report::{Estimate, Group, LabelledScore, ReportError, ReportOptions, Scores};
use super::statistics::bootstrap;
use crate::error::Problems;

/// The group of the rows that lack the key by which rows are grouped.
const MISSING: &str = "missing";

/// A prediction whose true label is known.
pub(super) struct Example<'rows> {
    pub(super) prediction: &'rows Prediction,
    truth: usize,
    /// Predicted labels in the order of `System`.
    predicted: [Option<usize>; 3],
    cluster: usize,
}

/// The three classifiers.
#[derive(Clone, Copy)]
pub(super) enum System {
    Fusion,
    TextOnly,
    SpeechOnly,
}

pub(super) fn scored_examples<'rows>(
    predictions: &[&'rows Prediction],
    options: &ReportOptions,
) -> Result<Vec<Example<'rows>>, ReportError> {
    let numbers: BTreeMap<&str, usize> =
        options.labels.iter().enumerate().map(|(number, label)| (label.as_str(), number)).collect();
    let mut problems = Vec::new();
    let mut clusters: BTreeMap<String, usize> = BTreeMap::new();
    let mut examples = Vec::new();
    for &prediction in predictions {
        let Some(truth) = &prediction.truth else { continue };
        let mut number_of = |what: &str, label: &str| {
            let number = numbers.get(label).copied();
            if number.is_none() {
                problems.push(format!("{what} `{label}` of `{}`", prediction.id));
            }
            number
        };
        let truth = number_of("truth", truth);
        let classifications: [Option<&Classification>; 3] =
            [Some(&prediction.fusion), prediction.text_only.as_ref(), prediction.speech_only.as_ref()];
        let predicted = classifications.map(|entry| entry.and_then(|entry| number_of("prediction", &entry.label)));
        let cluster = match &options.cluster {
            None => 0,
            Some(key) => {
                // A row without the key is a cluster of its own.
                let value = value_of(prediction, key).unwrap_or_else(|| format!("\u{0}{}", prediction.id));
                let next = clusters.len();
                *clusters.entry(value).or_insert(next)
            }
        };
        if let Some(truth) = truth {
            examples.push(Example { prediction, truth, predicted, cluster });
        }
    }
    if !problems.is_empty() {
        let known = options.labels.join(", ");
        return Err(ReportError::UnknownLabels { known, problems: Problems(problems) });
    }
    for key in options.keys.iter().chain(&options.cluster) {
        if !examples.is_empty() && examples.iter().all(|example| value_of(example.prediction, key).is_none()) {
            let mut available: Vec<&str> =
                examples.iter().flat_map(|example| example.prediction.extra.keys()).collect();
            available.sort_unstable();
            available.dedup();
            available.extend(["label", "words", "provenance.text", "provenance.speech"]);
            return Err(ReportError::UnknownKey {
                split: options.split.clone(),
                key: key.clone(),
                available: available.join(", "),
            });
        }
    }
    Ok(examples)
}

/// The scores of one classifier on the examples where it answered; nothing if it answered none.
pub(super) fn scores(
    examples: &[&Example],
    system: System,
    options: &ReportOptions,
) -> Result<Option<Scores>, ReportError> {
    let (pairs, clusters) = pairs(examples, system);
    let Some(headline) = estimates(&pairs, &clusters, options)? else { return Ok(None) };
    let confusion = Confusion::from_pairs(options.labels.len(), &pairs)?;
    let per_class = confusion.classes().into_iter().zip(&options.labels);
    Ok(Some(Scores {
        examples: pairs.len(),
        headline,
        per_class: per_class.map(|(score, label)| LabelledScore { label: label.clone(), score }).collect(),
        confusion: confusion.rows().map(<[u64]>::to_vec).collect(),
    }))
}

fn pairs(examples: &[&Example], system: System) -> (Vec<(usize, usize)>, Vec<usize>) {
    examples
        .iter()
        .filter_map(|example| {
            let [fusion, text, speech] = example.predicted;
            let predicted = match system {
                System::Fusion => fusion,
                System::TextOnly => text,
                System::SpeechOnly => speech,
            };
            predicted.map(|predicted| ((example.truth, predicted), example.cluster))
        })
        .unzip()
}

fn estimates(
    pairs: &[(usize, usize)],
    clusters: &[usize],
    options: &ReportOptions,
) -> Result<Option<Headline<Estimate>>, ReportError> {
    if pairs.is_empty() {
        return Ok(None);
    }
    let labels = options.labels.len();
    let values = Confusion::from_pairs(labels, pairs)?.headline();
    let clusters = options.cluster.as_ref().map(|_| clusters);
    let intervals = bootstrap(labels, pairs, clusters, options.resamples, options.seed)?;
    Ok(Some(values.zip(intervals).map(|(value, interval)| Estimate { value, interval })))
}

/// How many clusters the examples are of.
pub(super) fn clusters(examples: &[&Example]) -> usize {
    examples.iter().map(|example| example.cluster).collect::<BTreeSet<usize>>().len()
}

/// Groups the examples by a name that sorts as the groups shall stand.
pub(super) fn groups(
    examples: &[&Example],
    options: &ReportOptions,
    name_of: impl Fn(&Example) -> Placed,
) -> Result<Vec<Group>, ReportError> {
    let mut members: BTreeMap<Placed, Vec<&Example>> = BTreeMap::new();
    for &example in examples {
        members.entry(name_of(example)).or_default().push(example);
    }
    let mut groups = Vec::new();
    for (name, members) in members {
        let headline = |system| {
            let (pairs, clusters) = pairs(&members, system);
            estimates(&pairs, &clusters, options)
        };
        let Some(fusion) = headline(System::Fusion)? else { continue };
        groups.push(Group {
            value: name.to_string(),
            examples: members.len(),
            fusion,
            text_only: headline(System::TextOnly)?,
            speech_only: headline(System::SpeechOnly)?,
        });
    }
    Ok(groups)
}

/// A group's name behind its place in the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Placed {
    place: u64,
    name: String,
}

impl fmt::Display for Placed {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

pub(super) fn length_bin(words: Option<usize>) -> Placed {
    let (place, name) = match words {
        Some(0) => (0, "0"),
        Some(1) => (1, "1"),
        Some(2..=3) => (2, "2-3"),
        Some(4..=10) => (3, "4-10"),
        Some(_) => (4, "over 10"),
        None => (5, "no text"),
    };
    Placed { place, name: name.to_owned() }
}

/// Numbers by size, then other values by name, then `missing`.
pub(super) fn key_order(value: Option<String>) -> Placed {
    let Some(name) = value else { return Placed { place: u64::MAX, name: MISSING.to_owned() } };
    let place = match name.parse::<f64>() {
        Ok(number) if number.is_finite() => {
            // The bits of a float sort as the number does once the sign is folded in.
            let bits = number.to_bits();
            if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
        }
        _ => u64::MAX - 1,
    };
    Placed { place, name }
}

pub(super) fn value_of(prediction: &Prediction, key: &str) -> Option<String> {
    match key {
        "label" => return prediction.truth.clone(),
        "words" => return prediction.words.map(|words| words.to_string()),
        "provenance.text" => return Some(prediction.provenance.text.to_string()),
        "provenance.speech" => return Some(prediction.provenance.speech.to_string()),
        _ => {}
    }
    match prediction.extra.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
