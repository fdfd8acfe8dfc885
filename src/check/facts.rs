//! What is in a manifest: counts, lengths, and how they are spread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::sound::Sounds;
use crate::data::manifest::Row;

/// Upper bounds of the bins of durations, in seconds.
const SECONDS: [f64; 7] = [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0];

/// Upper bounds of the bins of words; the first four are those of the paper's table 6, and the empty text.
const WORDS: [f64; 6] = [0.0, 1.0, 3.0, 10.0, 20.0, 40.0];

/// What is in one manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Facts {
    /// Its name in the report.
    pub name: String,
    pub path: PathBuf,
    /// Its rows.
    pub utterances: usize,
    /// Utterances by label.
    pub labels: BTreeMap<String, usize>,
    /// Utterances by speaker.
    pub speakers: BTreeMap<String, usize>,
    /// Utterances that lack something.
    pub without: Without,
    /// Seconds of audio, of those whose length is known.
    pub seconds: Option<Spread>,
    /// Words of the texts.
    pub words: Option<Spread>,
    /// Texts that are there more than once, without regard to case and punctuation.
    pub repeated_texts: usize,
}

/// How many utterances lack a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Without {
    /// `label`
    pub label: usize,
    /// `text`
    pub text: usize,
    /// `audio`
    pub audio: usize,
    /// `speaker`
    pub speaker: usize,
}

/// How numbers are spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub total: f64,
    pub least: f64,
    pub median: f64,
    pub most: f64,
    /// How many there are in each range.
    pub histogram: Vec<Bin>,
}

/// A range of a histogram: above the bin before it, up to `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// The upper bound, included; none for the last bin.
    pub up_to: Option<f64>,
    pub count: usize,
}

impl Facts {
    /// Counts a manifest.
    pub(super) fn of(name: &str, path: &Path, rows: &[Row], sounds: &Sounds) -> Self {
        let without = |lacks: fn(&Row) -> bool| rows.iter().filter(|row| lacks(row)).count();
        let texts: Vec<String> = rows.iter().filter_map(crate::splits::overlap::plain_text).collect();
        let different: BTreeSet<&String> = texts.iter().collect();
        #[expect(clippy::cast_precision_loss, reason = "a text has far fewer than 2^53 words")]
        let words = rows
            .iter()
            .filter_map(|row| Some(row.text.as_ref()?.split_whitespace().count() as f64))
            .collect::<Vec<_>>();
        Self {
            name: name.to_owned(),
            path: path.to_path_buf(),
            utterances: rows.len(),
            labels: labels(rows),
            speakers: counted(rows.iter().filter_map(|row| row.speaker.as_ref())),
            without: Without {
                label: without(|row| row.label.is_none()),
                text: without(|row| row.text.is_none()),
                audio: without(|row| row.audio.is_none()),
                speaker: without(|row| row.speaker.is_none()),
            },
            seconds: Spread::of(rows.iter().filter_map(|row| sounds.seconds(row)).collect(), &SECONDS),
            words: Spread::of(words, &WORDS),
            repeated_texts: texts.len() - different.len(),
        }
    }
}

impl Spread {
    /// Of some numbers, in bins with these upper bounds and one above; `None` if empty.
    fn of(mut numbers: Vec<f64>, bounds: &[f64]) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        let (&least, &most) = (numbers.first()?, numbers.last()?);
        let middle = numbers.len() / 2;
        let median =
            if numbers.len() % 2 == 1 { numbers[middle] } else { f64::midpoint(numbers[middle - 1], numbers[middle]) };
        let mut below = 0;
        let mut histogram: Vec<Bin> = Vec::with_capacity(bounds.len() + 1);
        for bound in bounds.iter().map(|bound| Some(*bound)).chain([None]) {
            let until = bound.map_or(numbers.len(), |bound| numbers.partition_point(|number| *number <= bound));
            histogram.push(Bin { up_to: bound, count: until - below });
            below = until;
        }
        Some(Self { total: numbers.iter().sum(), least, median, most, histogram })
    }
}

/// Utterances by label.
pub(super) fn labels(rows: &[Row]) -> BTreeMap<String, usize> {
    counted(rows.iter().filter_map(|row| row.label.as_ref()))
}

fn counted<'a>(values: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    values.fold(BTreeMap::new(), |mut counts, value| {
        *counts.entry(value.clone()).or_default() += 1;
        counts
    })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "halves and whole numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_by_hand() {
        let spread = Spread::of(vec![3.0, 0.5, 1.0, 31.0], &[0.5, 1.0, 2.0]).unwrap();
        assert_eq!((spread.total, spread.least, spread.median, spread.most), (35.5, 0.5, 2.0, 31.0));
        let counts: Vec<usize> = spread.histogram.iter().map(|bin| bin.count).collect();
        assert_eq!(counts, [1, 1, 0, 2]);
        assert_eq!(Spread::of(vec![7.0], &[]).unwrap().median, 7.0);
        assert_eq!(Spread::of(Vec::new(), &[1.0]), None);
    }
}
