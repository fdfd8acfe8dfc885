//! `clasp prepare magpie`: MAGPIE (Haagsma et al., MAGPIE: A Large Corpus of Potentially Idiomatic Expressions, LREC
//! 2020; github.com/hslh/magpie-corpus), text alone: whether an expression is used figuratively or literally.
//!
//! It trains the labeller of MIST. The files are the published JSON Lines or a table of them.

mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use super::audio::{AudioOptions, settle};
use super::folder::{Corpus, Fold};
use super::reading;
use super::split::are_shares;
use crate::data::DataError;
use crate::data::manifest::Row;
use crate::random::{Random, mix};
use crate::splits::overlap::plain_text;
use crate::splits::{Declaration, Kind, PARTS};

/// Rows of `MAGPIE_unfiltered` by label code, as published: idiomatic, literal, other, unclear.
pub const PUBLISHED: [(&str, usize); 4] = [("i", 40_011), ("l", 16_168), ("o", 436), ("?", 7)];

/// What to read and, where the files do not say it, how to split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MagpieOptions {
    /// JSON Lines (or a JSON file of one record or an array), or a table `.tsv`; either also with `.gz`.
    pub input: Vec<PathBuf>,
    /// Rows whose annotators agreed less are left out; the corpus's own filtered files have 0.75.
    pub min_confidence: Option<f64>,
    /// The same seed gives the same split.
    pub seed: u64,
    /// The shares of train, dev and test among the idioms.
    pub fractions: [f64; 3],
}

impl MagpieOptions {
    /// The defaults: every confidence; seed 1; 80% of the idioms for train, 10% for dev, 10% for test.
    pub fn new(input: Vec<PathBuf>) -> Self {
        Self { input, min_confidence: None, seed: 1, fractions: [0.8, 0.1, 0.1] }
    }
}

/// Reads the files, and splits them by idiom where they have no split.
///
/// # Errors
///
/// The options contradict each other; lines are malformed or occur twice; only some have a split.
pub fn prepare(
    options: &MagpieOptions,
    audio: &AudioOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Corpus, DataError> {
    check(options)?;
    let first = options.input.first().cloned().unwrap_or_default();
    let (mut reading, given) = read::read(options)?;
    let (rows, skipped) = settle(reading.rows, audio, progress)?;
    let (protocol, part_of) = if given.is_empty() {
        ("idiom-types", by_idiom(&rows, options))
    } else if let Some(row) = rows.iter().find(|row| !given.contains_key(&row.id)) {
        let reason = format!(
            "`{}` (line {}) has no split, and others have one; name files of one kind, so that no idiom crosses",
            row.id, row.line
        );
        return Err(DataError::Table { path: first, reason });
    } else {
        ("official", given)
    };
    let members = |name: &str| -> Vec<Row> {
        rows.iter().filter(|row| part_of.get(&row.id).is_some_and(|part| *part == name)).cloned().collect()
    };
    let mut fold = Fold::new(PARTS.map(|name| (name, members(name))));
    fold.shared = shared_texts(&fold.parts);
    reading.counts.insert("idioms".to_owned(), count_idioms(&fold.parts, &mut reading.notes));
    Ok(Corpus {
        name: "magpie",
        protocol: protocol.to_owned(),
        options: reading::json(options, &first)?,
        sources: reading.sources,
        folds: vec![fold],
        counts: reading.counts,
        notes: reading.notes,
        skipped,
    })
}

fn check(options: &MagpieOptions) -> Result<(), DataError> {
    let path = options.input.first().cloned().unwrap_or_default();
    let wrong = |reason: &str| Err(DataError::Table { path: path.clone(), reason: reason.to_owned() });
    let is_share = |share: &f64| (0.0..=1.0).contains(share);
    if options.input.is_empty() {
        return wrong("no input; name the files of MAGPIE");
    }
    if !options.min_confidence.iter().all(is_share) {
        return wrong("the least confidence must be 0 to 1, as 0.75");
    }
    if !are_shares(&options.fractions) {
        return wrong("the shares of train, dev and test must be 0 to 1 and sum to 1, as 0.8, 0.1 and 0.1");
    }
    Ok(())
}

fn idiom(row: &Row) -> &str {
    row.extra.get("idiom").and_then(Value::as_str).unwrap_or_default()
}

/// The part of every row by id: idioms are shuffled and cut into three, so that none crosses.
fn by_idiom(rows: &[Row], options: &MagpieOptions) -> HashMap<String, &'static str> {
    let idioms: BTreeSet<&str> = rows.iter().map(idiom).collect();
    let mut idioms: Vec<&str> = idioms.into_iter().collect();
    Random::new(mix(options.seed, 0)).shuffle(&mut idioms);
    let [train, dev, _] = options.fractions;
    let (until_train, until_dev) = (share(idioms.len(), train), share(idioms.len(), train + dev));
    let part = |place: usize| match place {
        _ if place < until_train => PARTS[0],
        _ if place < until_dev => PARTS[1],
        _ => PARTS[2],
    };
    let parts: BTreeMap<&str, &'static str> =
        idioms.iter().enumerate().map(|(place, idiom)| (*idiom, part(place))).collect();
    rows.iter().filter_map(|row| Some((row.id.clone(), *parts.get(idiom(row))?))).collect()
}

/// A share of a number, rounded.
#[expect(clippy::cast_precision_loss, reason = "a corpus has far fewer than 2^53 idioms")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `count`")]
fn share(count: usize, share: f64) -> usize {
    (count as f64 * share).round() as usize
}

/// A declaration for every pair of parts that has the same text, without regard to case and punctuation, in both.
fn shared_texts(parts: &[(String, Vec<Row>)]) -> Vec<Declaration> {
    let texts: Vec<(&str, BTreeSet<String>)> =
        parts.iter().map(|(name, rows)| (name.as_str(), rows.iter().filter_map(plain_text).collect())).collect();
    let pairs = texts.iter().enumerate().flat_map(|(i, left)| texts[i + 1..].iter().map(move |right| (left, right)));
    pairs
        .filter_map(|(left, right)| {
            let count = left.1.intersection(&right.1).count();
            let reason = format!("the corpus has {count} sentences in both");
            (count > 0).then(|| Declaration::new(Kind::Text, [left.0, right.0], &reason))
        })
        .collect()
}

/// How many idioms are in each part; a note where some are in more than one, as in the random split.
fn count_idioms(parts: &[(String, Vec<Row>)], notes: &mut Vec<String>) -> Value {
    let mut in_parts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, rows) in parts {
        let idioms: BTreeSet<&str> = rows.iter().map(idiom).collect();
        counts.insert(name, idioms.len());
        for idiom in idioms {
            *in_parts.entry(idiom).or_default() += 1;
        }
    }
    let crossing = in_parts.values().filter(|count| **count > 1).count();
    if crossing > 0 {
        notes.push(format!("idioms in more than one part, as in the random split: {crossing} of {}", in_parts.len()));
    }
    json!(counts)
}
