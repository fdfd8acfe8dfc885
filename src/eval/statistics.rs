//! Intervals for the headline numbers.
//!
//! Percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13. Over
//! clusters (recordings of one sentence, utterances of one dialogue) whole clusters are drawn: Davison and Hinkley,
//! Bootstrap Methods and their Application (1997), section 3.8.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::metrics::{Headline, MetricsError, Tally, check_pairs};
use crate::random::{Random, mix};

/// A lower and an upper bound.
pub type Interval = [f64; 2];

/// How many resamples a report draws unless it is told otherwise.
pub const RESAMPLES: usize = 10_000;

/// Coverage of every interval.
pub const LEVEL: f64 = 0.95;

/// Percentile bootstrap intervals (95%) of the four headline numbers for pairs of (truth, prediction), both positions
/// in a set of `labels` labels.
///
/// A resample draws as many examples as there are, with replacement; with `clusters` (a number for each example) it
/// draws as many clusters as there are, each with all of its examples. Each number is recomputed in full on every
/// resample, so the balanced accuracy of a resample is the mean over the classes that occur in it. The result is a
/// function of the arguments alone: resample `k` has its own generator, whatever the number of threads.
///
/// # Errors
/// When a label is not in the set, when there is no example or no resample, or when `clusters` has another length.
pub fn bootstrap(
    labels: usize,
    pairs: &[(usize, usize)],
    clusters: Option<&[usize]>,
    resamples: usize,
    seed: u64,
) -> Result<Headline<Interval>, MetricsError> {
    check_pairs(labels, pairs)?;
    if pairs.is_empty() || resamples == 0 {
        return Err(MetricsError::Nothing);
    }
    let pool = Pool::new(pairs, clusters)?;
    let add = |tallies: &mut [Tally], &(truth, prediction): &(usize, usize), count| {
        for tally in tallies {
            tally.add(truth, prediction, count);
        }
    };
    let headline = |tallies: &[Tally]| tallies.iter().map(Tally::headline).next().unwrap_or_default();
    let (_, drawn) = pool.draw(&[Tally::new(labels)], add, headline, resamples, seed);
    Ok(intervals(&drawn))
}

/// The interval of each headline number between the tails of what was drawn.
pub(super) fn intervals(drawn: &[Headline]) -> Headline<Interval> {
    let bounds = |number: fn(&Headline) -> f64| percentile_interval(drawn.iter().map(number).collect());
    Headline {
        accuracy: bounds(|headline| headline.accuracy),
        balanced_accuracy: bounds(|headline| headline.balanced_accuracy),
        weighted_f1: bounds(|headline| headline.weighted_f1),
        macro_f1: bounds(|headline| headline.macro_f1),
    }
}

/// The examples to draw from, each reduced to the number of its cell in the table of outcomes: a draw is then one
/// increment, and cells that never occur cost nothing.
pub(super) struct Pool<Cell> {
    cells: Vec<Cell>,
    /// The cell of each example.
    examples: Vec<usize>,
    /// Where the clusters lie in `examples`; empty where each example is drawn alone.
    units: Vec<Range<usize>>,
}

impl<Cell: Ord + Copy + Sync> Pool<Cell> {
    /// A pool of examples, or of whole clusters of them.
    ///
    /// # Errors
    /// When there is no example, or `clusters` has another length.
    pub(super) fn new(outcomes: &[Cell], clusters: Option<&[usize]>) -> Result<Self, MetricsError> {
        if outcomes.is_empty() {
            return Err(MetricsError::Nothing);
        }
        let mut order: Vec<usize> = (0..outcomes.len()).collect();
        let mut units = Vec::new();
        if let Some(clusters) = clusters {
            if clusters.len() != outcomes.len() {
                return Err(MetricsError::Clusters { clusters: clusters.len(), examples: outcomes.len() });
            }
            order.sort_by_key(|&example| clusters[example]);
            let mut start = 0;
            for group in order.chunk_by(|&left, &right| clusters[left] == clusters[right]) {
                units.push(start..start + group.len());
                start += group.len();
            }
        }
        let mut numbers = BTreeMap::new();
        let mut cells = Vec::new();
        let examples = order
            .into_iter()
            .map(|example| outcomes[example])
            .map(|outcome| {
                *numbers.entry(outcome).or_insert_with(|| {
                    cells.push(outcome);
                    cells.len() - 1
                })
            })
            .collect();
        Ok(Self { cells, examples, units })
    }

    /// The numbers of the pool itself and of each resample: `add` counts a cell into the tallies, of which `empty` are
    /// those to begin with, and `read` makes numbers of them.
    pub(super) fn draw<Numbers: Send>(
        &self,
        empty: &[Tally],
        add: impl Fn(&mut [Tally], &Cell, u64) + Sync,
        read: impl Fn(&[Tally]) -> Numbers + Sync,
        resamples: usize,
        seed: u64,
    ) -> (Numbers, Vec<Numbers>) {
        let numbers = |counts: &[u64], tallies: &mut [Tally]| {
            tallies.iter_mut().for_each(Tally::clear);
            for (cell, &count) in self.cells.iter().zip(counts) {
                add(tallies, cell, count);
            }
            read(tallies)
        };
        let start = || (vec![0_u64; self.cells.len()], empty.to_vec());
        let (mut counts, mut tallies) = start();
        self.count_all(&mut counts);
        let counted = numbers(&counts, &mut tallies);
        let drawn = (0..resamples as u64)
            .into_par_iter()
            .map_init(start, |(counts, tallies), resample| {
                self.resample(counts, &mut Random::new(mix(seed, resample)));
                numbers(counts, tallies)
            })
            .collect();
        (counted, drawn)
    }

    /// Fills `counts` with how often each cell occurs in the pool itself.
    fn count_all(&self, counts: &mut [u64]) {
        counts.fill(0);
        for &cell in &self.examples {
            counts[cell] += 1;
        }
    }

    /// Fills `counts` with how often each cell occurs in one resample.
    fn resample(&self, counts: &mut [u64], random: &mut Random) {
        counts.fill(0);
        if self.units.is_empty() {
            for _ in 0..self.examples.len() {
                counts[self.examples[random.below(self.examples.len())]] += 1;
            }
        } else {
            for _ in 0..self.units.len() {
                let unit = self.units[random.below(self.units.len())].clone();
                self.examples[unit].iter().for_each(|&cell| counts[cell] += 1);
            }
        }
    }
}

/// The interval between the tails of what was drawn.
fn percentile_interval(mut values: Vec<f64>) -> Interval {
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - LEVEL) / 2.0;
    [quantile(&values, tail), quantile(&values, 1.0 - tail)]
}

/// Quantile with linear interpolation (type 7 of Hyndman and Fan 1996, the default of `numpy.quantile`); NaN of nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position in a list, between 0 and its length"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * sorted.len().saturating_sub(1) as f64;
    let below = position.floor();
    match (sorted.get(below as usize), sorted.get(position.ceil() as usize)) {
        (Some(low), Some(high)) => low + (high - low) * (position - below),
        _ => f64::NAN,
    }
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "numbers as Python prints them")]
mod tests {
    use super::*;

    fn repeated(cells: &[(usize, usize, usize)]) -> Vec<(usize, usize)> {
        cells.iter().flat_map(|&(truth, prediction, n)| std::iter::repeat_n((truth, prediction), n)).collect()
    }

    /// [[60, 10, 5, 5], [8, 30, 2, 10], [4, 4, 40, 2], [1, 9, 0, 10]]
    fn table() -> Vec<(usize, usize)> {
        let rows = [[60, 10, 5, 5], [8, 30, 2, 10], [4, 4, 40, 2], [1, 9, 0, 10]];
        let mut cells = Vec::new();
        for (truth, row) in rows.into_iter().enumerate() {
            for (prediction, n) in row.into_iter().enumerate() {
                cells.push((truth, prediction, n));
            }
        }
        repeated(&cells)
    }

    /// From `SciPy` 1.17.1: `scipy.stats.bootstrap((t, p), metric, paired=True, vectorized=False, n_resamples=10000,
    /// method="percentile")`. The tolerance is several standard errors of a 2.5% quantile of 10,000 resamples.
    #[test]
    fn intervals_are_those_of_scipy() {
        let intervals = bootstrap(4, &table(), None, RESAMPLES, 1).unwrap();
        let expected = [
            [0.635, 0.76],
            [0.5859842444154363, 0.7365739429662802],
            [0.6458068044990237, 0.7695519208088094],
            [0.58039024491427, 0.7210241024797944],
        ];
        for ((name, found), expected) in intervals.named().into_iter().zip(expected) {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 0.006, "{name}: {found} for {expected}");
            }
        }
    }

    /// The half-width of a share of 0.77 in 5,531 examples is 1.96·√(0.77·0.23/5531) = 0.0111.
    #[test]
    fn accuracy_has_the_binomial_half_width() {
        let right = 4259;
        let pairs = repeated(&[(0, 0, right), (0, 1, 5531 - right)]);
        let [low, high] = bootstrap(2, &pairs, None, 2000, 7).unwrap().accuracy;
        assert!(((high - low) / 2.0 - 0.0111).abs() < 0.0008, "[{low}, {high}]");
    }

    /// By `NumPy`: `a = hits[index].sum(1) / sizes[index].sum(1)` over 100,000 draws of twelve clusters gives
    /// `numpy.quantile(a, [.025, .975])` = [0.351, 0.900]; the examples one by one would give about [0.47, 0.73].
    #[test]
    fn whole_clusters_are_drawn() {
        let sizes = [3, 5, 1, 8, 2, 6, 4, 7, 3, 9, 2, 5];
        let hits = [3, 1, 1, 2, 2, 6, 0, 7, 3, 1, 2, 5];
        let mut pairs = Vec::new();
        let mut clusters = Vec::new();
        for (cluster, (&size, &hit)) in sizes.iter().zip(&hits).enumerate() {
            for example in 0..size {
                pairs.push((0, usize::from(example >= hit)));
                clusters.push(cluster * 100);
            }
        }
        // The order of the examples in the file does not matter to what a cluster is.
        let mut shuffled: Vec<_> = pairs.into_iter().zip(clusters).collect();
        Random::new(5).shuffle(&mut shuffled);
        let (pairs, clusters): (Vec<_>, Vec<_>) = shuffled.into_iter().unzip();
        let [low, high] = bootstrap(2, &pairs, Some(&clusters), RESAMPLES, 3).unwrap().accuracy;
        assert!((low - 0.351).abs() < 0.02 && (high - 0.900).abs() < 0.02, "[{low}, {high}]");
    }

    #[test]
    fn the_result_depends_on_the_seed_and_not_on_the_threads() {
        let with = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bootstrap(4, &table(), None, 500, seed).unwrap())
        };
        assert_eq!(with(1, 1), with(3, 1));
        assert_ne!(with(1, 1), with(1, 2));
    }

    #[test]
    fn certainty_has_no_width() {
        let intervals = bootstrap(2, &repeated(&[(0, 0, 5), (1, 1, 5)]), None, 200, 1).unwrap();
        for (name, interval) in intervals.named() {
            assert!(interval.iter().all(|bound| (bound - 1.0).abs() < 1e-12), "{name}: {interval:?}");
        }
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0, 0.25, 0.5, 0.9, 1]) = [1, 1.75, 3, 6.8, 8]
        for (share, expected) in [(0.0, 1.0), (0.25, 1.75), (0.5, 3.0), (0.9, 6.8), (1.0, 8.0)] {
            assert!((quantile(&[1.0, 2.0, 4.0, 8.0], share) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn nothing_to_draw_from_is_an_error() {
        assert_eq!(bootstrap(2, &[], None, 10, 1), Err(MetricsError::Nothing));
        assert_eq!(bootstrap(2, &[(0, 0)], None, 0, 1), Err(MetricsError::Nothing));
        let error = MetricsError::Clusters { clusters: 2, examples: 1 };
        assert_eq!(bootstrap(2, &[(0, 0)], Some(&[0, 1]), 10, 1), Err(error));
    }
}
