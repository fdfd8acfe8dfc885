//! Which examples make a batch (a pure function of lengths, options, seed and epoch), and padding them into one.

use std::ops::Range;
use std::sync::Arc;

use super::SAMPLE_RATE;
use super::dataset::Example;
use super::features::Features;
use crate::random::{Random, mix};

/// Batches that are sorted by length together: enough to find alike lengths, few enough to keep the order random.
const WINDOW_BATCHES: usize = 50;

/// How far a length is shifted before sorting, as a share of it. Without it the batches of a corpus below one window
/// would be the same in every epoch.
const JITTER: f64 = 0.05;

/// One padded batch. Beside each padded table stand the lengths of its rows; padding is what lies behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Places in the dataset.
    pub indices: Vec<usize>,
    pub ids: Vec<String>,
    /// [batch, longest], row by row.
    pub tokens: Vec<i64>,
    /// Real tokens of each row.
    pub token_lengths: Vec<usize>,
    /// [batch, longest], row by row, padded with zeros; empty where the features of all examples are there.
    pub waveforms: Vec<f32>,
    /// What the feature encoder makes of each waveform, where a cache has that; empty where there is no cache.
    pub features: Vec<Option<Arc<Features>>>,
    /// Real samples of each row.
    pub sample_lengths: Vec<usize>,
    pub labels: Vec<Option<usize>>,
}

impl Batch {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The width of `tokens`.
    pub fn longest_tokens(&self) -> usize {
        self.token_lengths.iter().copied().max().unwrap_or(0)
    }

    /// The width of `waveforms`, where there are any.
    pub fn longest_samples(&self) -> usize {
        self.sample_lengths.iter().copied().max().unwrap_or(0)
    }
}

impl Batch {
    /// Some of the examples, padded to the longest of them.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let token_lengths = self.token_lengths[rows.clone()].to_vec();
        let sample_lengths = self.sample_lengths[rows.clone()].to_vec();
        Self {
            indices: self.indices[rows.clone()].to_vec(),
            ids: self.ids[rows.clone()].to_vec(),
            tokens: narrowed(&self.tokens, self.longest_tokens(), rows.clone(), &token_lengths),
            waveforms: if self.waveforms.is_empty() {
                Vec::new()
            } else {
                narrowed(&self.waveforms, self.longest_samples(), rows.clone(), &sample_lengths)
            },
            features: self.features.get(rows.clone()).map(<[_]>::to_vec).unwrap_or_default(),
            labels: self.labels[rows].to_vec(),
            token_lengths,
            sample_lengths,
        }
    }
}

/// Rows of a padded table, cut to the longest of `lengths`.
fn narrowed<T: Copy>(table: &[T], width: usize, rows: Range<usize>, lengths: &[usize]) -> Vec<T> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    rows.flat_map(|row| table[row * width..row * width + longest].iter().copied()).collect()
}

/// Pads examples into a batch. Waveforms are left out where nothing needs them any more.
pub fn collate(examples: &[Example], pad_token: u32) -> Batch {
    let mut batch = Batch {
        indices: examples.iter().map(|example| example.index).collect(),
        ids: examples.iter().map(|example| example.id.clone()).collect(),
        token_lengths: examples.iter().map(|example| example.tokens.len()).collect(),
        sample_lengths: examples.iter().map(|example| example.waveform.len()).collect(),
        labels: examples.iter().map(|example| example.label).collect(),
        ..Batch::default()
    };
    if examples.iter().any(|example| example.features.is_some()) {
        batch.features = examples.iter().map(|example| example.features.clone()).collect();
    }
    let needs_waveforms = examples.iter().any(|example| example.features.is_none());
    let (longest_tokens, longest_samples) = (batch.longest_tokens(), batch.longest_samples());
    batch.tokens.reserve_exact(examples.len() * longest_tokens);
    batch.waveforms.reserve_exact(if needs_waveforms { examples.len() * longest_samples } else { 0 });
    for (row, example) in examples.iter().enumerate() {
        batch.tokens.extend(example.tokens.iter().map(|token| i64::from(*token)));
        batch.tokens.resize((row + 1) * longest_tokens, i64::from(pad_token));
        if needs_waveforms {
            batch.waveforms.extend_from_slice(&example.waveform);
            batch.waveforms.resize((row + 1) * longest_samples, 0.0);
        }
    }
    batch
}

/// How batches are cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchOptions {
    /// The most examples in a batch.
    pub batch_size: usize,
    /// The most seconds of audio in a batch, padding included; a longer utterance is a batch of its own.
    pub batch_seconds: Option<f64>,
}

/// The batches of an epoch: shuffled, then sorted by length in windows, then cut, then the batches shuffled. Every
/// index is in exactly one batch.
///
/// `lengths` are samples (or tokens, where nothing is heard; `batch_seconds` has no meaning then).
pub fn plan(lengths: &[usize], options: BatchOptions, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut random = Random::new(mix(seed, epoch));
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    random.shuffle(&mut order);
    #[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^53")]
    let mut keyed: Vec<(f64, usize)> = order
        .into_iter()
        .map(|index| (lengths[index] as f64 * random.range(1.0 - JITTER, 1.0 + JITTER), index))
        .collect();
    let mut batches = Vec::new();
    for window in keyed.chunks_mut(options.batch_size.max(1).saturating_mul(WINDOW_BATCHES)) {
        // Stable, so the shuffle breaks ties.
        window.sort_by(|left, right| left.0.total_cmp(&right.0));
        let indices: Vec<usize> = window.iter().map(|(_, index)| *index).collect();
        cut(&indices, lengths, options, &mut batches);
    }
    random.shuffle(&mut batches);
    batches
}

/// The batches for evaluation: longest first (memory that does not suffice shows at once), the same every time.
pub fn sequential_plan(lengths: &[usize], options: BatchOptions) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(lengths[*index]), *index));
    let mut batches = Vec::new();
    cut(&order, lengths, options, &mut batches);
    batches
}

fn cut(order: &[usize], lengths: &[usize], options: BatchOptions, batches: &mut Vec<Vec<usize>>) {
    let cap = options.batch_seconds.map_or(f64::INFINITY, |seconds| seconds * f64::from(SAMPLE_RATE));
    let mut batch: Vec<usize> = Vec::new();
    let mut longest = 0;
    for &index in order {
        let widened = longest.max(lengths[index]);
        #[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^53")]
        let padded = (widened * (batch.len() + 1)) as f64;
        if !batch.is_empty() && (batch.len() >= options.batch_size || padded > cap) {
            batches.push(std::mem::take(&mut batch));
            longest = lengths[index];
        } else {
            longest = widened;
        }
        batch.push(index);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "small made-up numbers"
)]
mod tests {
    use super::*;
    use crate::test_data::test_data;

    const FOUR: BatchOptions = BatchOptions { batch_size: 4, batch_seconds: None };

    fn padding(lengths: &[usize], batches: &[Vec<usize>]) -> f64 {
        let padded: usize =
            batches.iter().map(|batch| batch.len() * batch.iter().map(|i| lengths[*i]).max().unwrap()).sum();
        1.0 - lengths.iter().sum::<usize>() as f64 / padded as f64
    }

    fn assert_whole(count: usize, batches: &[Vec<usize>]) {
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..count).collect::<Vec<_>>());
    }

    fn log_normal(count: usize) -> Vec<usize> {
        let mut random = Random::new(1);
        (0..count).map(|_| ((4.5 * (0.6 * random.normal()).exp()).clamp(0.3, 30.0) * 16_000.0) as usize).collect()
    }

    #[test]
    fn realistic_lengths_are_padded_by_less_than_a_tenth() {
        let lengths = log_normal(1_000);
        for epoch in 0..5 {
            let batches = plan(&lengths, FOUR, 1, epoch);
            assert_whole(1_000, &batches);
            assert_eq!(batches.len(), 250);
            assert!(padding(&lengths, &batches) < 0.1, "{}", padding(&lengths, &batches));
        }
        let Some(path) = test_data("lengths-64.json") else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let pairs: Vec<(usize, usize)> = serde_json::from_str(&text).unwrap();
        let lengths: Vec<usize> = pairs.iter().map(|pair| pair.1).collect();
        for epoch in 0..20 {
            let batches = plan(&lengths, FOUR, 1, epoch);
            assert_whole(64, &batches);
            println!("padding {}", padding(&lengths, &batches));
            assert!(padding(&lengths, &batches) < 0.1, "{}", padding(&lengths, &batches));
        }
    }

    #[test]
    fn the_plan_is_a_function_of_seed_and_epoch() {
        let lengths = log_normal(103);
        assert_eq!(plan(&lengths, FOUR, 1, 2), plan(&lengths, FOUR, 1, 2));
        assert_ne!(plan(&lengths, FOUR, 1, 2), plan(&lengths, FOUR, 1, 3));
        assert_ne!(plan(&lengths, FOUR, 1, 2), plan(&lengths, FOUR, 2, 2));
        assert_whole(103, &plan(&lengths, FOUR, 1, 2));
        // Who meets whom changes too, even where all fit one window.
        let sorted = |epoch| {
            let mut batches = plan(&lengths, FOUR, 1, epoch);
            for batch in &mut batches {
                batch.sort_unstable();
            }
            batches.sort();
            batches
        };
        assert_ne!(sorted(2), sorted(3));
    }

    #[test]
    fn a_cap_on_seconds_holds_with_padding() {
        let lengths = log_normal(500);
        let options = BatchOptions { batch_size: 16, batch_seconds: Some(20.0) };
        for batches in [plan(&lengths, options, 3, 0), sequential_plan(&lengths, options)] {
            assert_whole(500, &batches);
            for batch in batches {
                let longest = batch.iter().map(|i| lengths[*i]).max().unwrap();
                assert!(batch.len() <= 16 && (batch.len() == 1 || longest * batch.len() <= 320_000));
            }
        }
    }

    #[test]
    fn odd_inputs_are_no_trouble() {
        assert!(plan(&[], FOUR, 1, 0).is_empty());
        assert_eq!(plan(&[5], FOUR, 1, 0), [[0]]);
        assert_whole(9, &plan(&[0; 9], BatchOptions { batch_size: 0, batch_seconds: Some(0.0) }, 1, 0));
        assert_eq!(
            sequential_plan(&[3, 9, 9, 1], BatchOptions { batch_size: 3, batch_seconds: None }),
            [vec![1, 2, 0], vec![3]]
        );
    }

    #[test]
    fn examples_are_padded_row_by_row() {
        let example = |index, id: &str, tokens: &[u32], waveform: &[f32], label| Example {
            index,
            id: id.to_owned(),
            tokens: tokens.to_vec(),
            waveform: waveform.to_vec(),
            label,
            ..Example::default()
        };
        let batch =
            collate(&[example(7, "a", &[0, 5, 2], &[0.5], Some(1)), example(3, "b", &[0, 2], &[0.1, 0.2], None)], 1);
        assert_eq!(batch.tokens, [0, 5, 2, 0, 2, 1]);
        assert_eq!(batch.waveforms, [0.5, 0.0, 0.1, 0.2]);
        assert_eq!((batch.token_lengths, batch.sample_lengths), (vec![3, 2], vec![1, 2]));
        assert_eq!((batch.indices, batch.labels), (vec![7, 3], vec![Some(1), None]));
        assert!(collate(&[], 1).is_empty());
    }

    #[test]
    fn features_take_the_place_of_waveforms_where_all_are_there() {
        let example = |waveform: &[f32], value: Option<f32>| Example {
            tokens: vec![0, 2],
            waveform: waveform.to_vec(),
            features: value.map(|value| Arc::new(Features { frames: 1, channels: 1, values: vec![value] })),
            ..Example::default()
        };
        let values = |batch: &Batch| -> Vec<Option<Vec<f32>>> {
            batch.features.iter().map(|features| features.as_ref().map(|features| features.values.clone())).collect()
        };
        let (first, second) = (example(&[0.5], Some(7.0)), example(&[0.1, 0.2], Some(8.0)));
        let full = collate(&[first.clone(), second], 1);
        assert!(full.waveforms.is_empty());
        assert_eq!((full.sample_lengths.clone(), values(&full)), (vec![1, 2], vec![Some(vec![7.0]), Some(vec![8.0])]));
        let part = full.rows(1..2);
        assert!(part.waveforms.is_empty());
        assert_eq!((part.sample_lengths.clone(), values(&part)), (vec![2], vec![Some(vec![8.0])]));
        let mixed = collate(&[first, example(&[0.1, 0.2], None)], 1);
        assert_eq!(
            (mixed.waveforms.as_slice(), values(&mixed)),
            (&[0.5, 0.0, 0.1, 0.2][..], vec![Some(vec![7.0]), None])
        );
        assert_eq!(mixed.rows(0..1).waveforms, [0.5]);
        assert!(collate(&[example(&[0.1], None)], 1).features.is_empty());
    }
}
