//! Intervals for the headline numbers.
//!
//! Percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13. Over
//! clusters (recordings of one sentence, utterances of one dialogue) whole clusters are drawn: Davison and Hinkley,
//! Bootstrap Methods and their Application (1997), section 3.8.
//!
//! The percentiles of few clusters are too narrow (Cameron, Gelbach and Miller, Bootstrap-based improvements for
//! inference with clustered errors, 2008): below [`FEW_CLUSTERS`] the interval is value ± t · s · √(k / (k − 1)), with
//! the 97.5% quantile t of Student's distribution with k − 1 degrees of freedom, k clusters, and the standard deviation
//! s of the resamples (Efron and Tibshirani, chapter 5 and section 12.2; the factor makes up for the bootstrap's division by k).

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

/// With fewer clusters than these, intervals are those of Student's t.
pub const FEW_CLUSTERS: usize = 10;

/// Few clusters whose standard error is no larger agree exactly, but for rounding: they say nothing of how far others lie
/// apart, so that there is no interval.
const SAME: f64 = 1e-12;

/// The 97.5% quantiles of Student's distribution with 1 to 8 degrees of freedom.
const T_QUANTILES: [f64; FEW_CLUSTERS - 2] = [
    12.706_204_736,
    4.302_652_730,
    3.182_446_305,
    2.776_445_105,
    2.570_581_836,
    2.446_911_851,
    2.364_624_252,
    2.306_004_135,
];

/// What a resample draws whole: each by its number, one for each example.
#[derive(Clone, Copy, Debug)]
pub enum Unit<'a> {
    Example,
    /// All answers to one utterance.
    Utterance(&'a [usize]),
    /// All examples that share a value.
    Cluster(&'a [usize]),
}

/// Bootstrap intervals (95%) of the four headline numbers for pairs of (truth, prediction), both positions
/// in a set of `labels` labels.
///
/// A resample draws as many examples as there are, with replacement; with `clusters` (a number for each example) it
/// draws as many clusters as there are, each with all of its examples. Each number is recomputed in full on every
/// resample, so the balanced accuracy of a resample is the mean over the classes that occur in it. The result is a
/// function of the arguments alone: resample `k` has its own generator, whatever the number of threads. One example, or
/// one cluster, has no interval.
///
/// # Errors
/// When a label is not in the set, when there is no example or no resample, or when `clusters` has another length.
pub fn bootstrap(
    labels: usize,
    pairs: &[(usize, usize)],
    clusters: Option<&[usize]>,
    resamples: usize,
    seed: u64,
) -> Result<Headline<Option<Interval>>, MetricsError> {
    check_pairs(labels, pairs)?;
    if pairs.is_empty() || resamples == 0 {
        return Err(MetricsError::Nothing);
    }
    let pool = Pool::new(pairs, clusters.map_or(Unit::Example, Unit::Cluster))?;
    let add = |tallies: &mut [Tally], &(truth, prediction): &(usize, usize), count| {
        for tally in tallies {
            tally.add(truth, prediction, count);
        }
    };
    let headline = |tallies: &[Tally]| tallies.iter().map(Tally::headline).next().unwrap_or_default();
    let (value, drawn) = pool.draw(&[Tally::new(labels)], add, headline, resamples, seed);
    Ok(intervals(value, &drawn, pool.form(), [0.0, 1.0]))
}

/// How intervals are made of what was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Not at all: there is one example, or one cluster.
    Single,
    /// By Student's t, with the number of clusters.
    Few(usize),
    /// Between the percentiles.
    Percentile,
}

/// The interval of each headline number, within what the number can be.
pub(super) fn intervals(
    value: Headline,
    drawn: &[Headline],
    form: Form,
    [least, most]: Interval,
) -> Headline<Option<Interval>> {
    each(drawn).zip(value).map(|(drawn, value)| match form {
        Form::Single => None,
        Form::Few(clusters) => {
            let error = standard_error(&drawn, clusters);
            let half = T_QUANTILES[clusters - 2] * error;
            (error > SAME).then(|| [(value - half).max(least), (value + half).min(most)])
        }
        Form::Percentile => Some(percentile_interval(drawn)),
    })
}

/// What was drawn, by number.
pub(super) fn each(drawn: &[Headline]) -> Headline<Vec<f64>> {
    let all = |number: fn(&Headline) -> f64| drawn.iter().map(number).collect();
    Headline {
        accuracy: all(|headline| headline.accuracy),
        balanced_accuracy: all(|headline| headline.balanced_accuracy),
        weighted_f1: all(|headline| headline.weighted_f1),
        macro_f1: all(|headline| headline.macro_f1),
    }
}

/// The standard error over few clusters, from what was drawn.
#[expect(clippy::cast_precision_loss, reason = "counts of resamples and clusters stay far below 2^53")]
fn standard_error(drawn: &[f64], clusters: usize) -> f64 {
    let (count, clusters) = (drawn.len() as f64, clusters as f64);
    let mean = drawn.iter().sum::<f64>() / count;
    let variance = drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (variance * clusters / (clusters - 1.0)).sqrt()
}

/// The two-sided p of a value over few clusters, by Student's t; 1 where they agree exactly, which tells nothing of others.
pub(super) fn student_p_value(value: f64, drawn: &[f64], clusters: usize) -> f64 {
    let error = standard_error(drawn, clusters);
    if error > SAME { two_sided_t(value / error, clusters - 1) } else { 1.0 }
}

/// The share of Student's distribution beyond ±`value` (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and
/// 26.7.4: the finite sums for whole degrees of freedom).
#[expect(clippy::cast_precision_loss, reason = "degrees of freedom are few")]
fn two_sided_t(value: f64, freedom: usize) -> f64 {
    let angle = (value.abs() / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    // The terms' cosines have even powers where the degrees are even, odd ones from 1 where they are odd.
    let is_odd = freedom % 2 == 1;
    let (mut term, mut sum) = if is_odd { (cosine, 0.0) } else { (1.0, 0.0) };
    let first = if is_odd { 2 } else { 1 };
    for step in 0..freedom / 2 {
        sum += term;
        let factor = (first + 2 * step) as f64;
        term *= cosine * cosine * factor / (factor + 1.0);
    }
    let within = if is_odd { (angle + sine * sum) * std::f64::consts::FRAC_2_PI } else { sine * sum };
    (1.0 - within).clamp(0.0, 1.0)
}

/// The examples to draw from, each reduced to the number of its cell in the table of outcomes: a draw is then one
/// increment, and cells that never occur cost nothing.
pub(super) struct Pool<Cell> {
    cells: Vec<Cell>,
    /// The cell of each example.
    examples: Vec<usize>,
    /// Where the units lie in `examples`; empty where each example is drawn alone.
    units: Vec<Range<usize>>,
    has_clusters: bool,
}

impl<Cell: Ord + Copy + Sync> Pool<Cell> {
    /// # Errors
    /// When there is no example, or there are not as many numbers of units.
    pub(super) fn new(outcomes: &[Cell], unit: Unit) -> Result<Self, MetricsError> {
        if outcomes.is_empty() {
            return Err(MetricsError::Nothing);
        }
        let mut order: Vec<usize> = (0..outcomes.len()).collect();
        let mut units = Vec::new();
        if let Unit::Utterance(clusters) | Unit::Cluster(clusters) = unit {
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
        Ok(Self { cells, examples, units, has_clusters: matches!(unit, Unit::Cluster(_)) })
    }

    /// How intervals are made of what is drawn from it.
    pub(super) fn form(&self) -> Form {
        match if self.units.is_empty() { self.examples.len() } else { self.units.len() } {
            1 => Form::Single,
            clusters if self.has_clusters && clusters < FEW_CLUSTERS => Form::Few(clusters),
            _ => Form::Percentile,
        }
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
            for (found, expected) in found.unwrap().iter().zip(expected) {
                assert!((found - expected).abs() < 0.006, "{name}: {found} for {expected}");
            }
        }
    }

    /// The half-width of a share of 0.77 in 5,531 examples is 1.96·√(0.77·0.23/5531) = 0.0111.
    #[test]
    fn accuracy_has_the_binomial_half_width() {
        let right = 4259;
        let pairs = repeated(&[(0, 0, right), (0, 1, 5531 - right)]);
        let [low, high] = bootstrap(2, &pairs, None, 2000, 7).unwrap().accuracy.unwrap();
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
        let [low, high] = bootstrap(2, &pairs, Some(&clusters), RESAMPLES, 3).unwrap().accuracy.unwrap();
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
            assert!(interval.unwrap().iter().all(|bound| (bound - 1.0).abs() < 1e-12), "{name}: {interval:?}");
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

    /// `2 * scipy.stats.t.sf(t, freedom)`
    #[test]
    fn the_tails_of_student_are_those_of_scipy() {
        for (value, freedom, expected) in [
            (0.5, 1, 0.7048327646991335),
            (2.0, 1, 0.2951672353008665),
            (-1.3, 2, 0.3232470318160403),
            (0.1, 3, 0.9266523488008059),
            (3.0, 3, 0.0576688856224373),
            (2.0, 4, 0.11611652351681556),
            (2.5, 5, 0.05449009934237626),
            (1.0, 8, 0.34659350708733416),
            (7.5, 8, 6.927744990507951e-05),
        ] {
            let found = two_sided_t(value, freedom);
            assert!((found - expected).abs() < 1e-12, "{value}, {freedom}: {found} for {expected}");
        }
        for (freedom, value) in (1..).zip(T_QUANTILES) {
            assert!((two_sided_t(value, freedom) - 0.05).abs() < 1e-9, "{freedom}: {value}");
        }
    }

    /// Four clusters of a hundred examples, right in 50, 60, 70 and 80 of them: the textbook's 0.65 ± t · s / √4 with
    /// s = 0.1291 (n − 1) and t = 3.1824 is [0.4446, 0.8554]. The percentiles would say [0.53, 0.77].
    #[test]
    fn few_clusters_have_the_interval_of_student() {
        let (mut pairs, mut clusters) = (Vec::new(), Vec::new());
        for (cluster, right) in [50, 60, 70, 80].into_iter().enumerate() {
            pairs.extend(repeated(&[(0, 0, right), (0, 1, 100 - right)]));
            clusters.extend([cluster; 100]);
        }
        let [low, high] = bootstrap(2, &pairs, Some(&clusters), RESAMPLES, 1).unwrap().accuracy.unwrap();
        assert!((low - 0.4446).abs() < 0.005 && (high - 0.8554).abs() < 0.005, "[{low}, {high}]");
    }

    /// Two clusters that are right in nine of ten each: the standard error is 0, and the formula would claim [0.9, 0.9].
    #[test]
    fn few_clusters_that_agree_exactly_have_no_interval() {
        let pairs = repeated(&[(0, 0, 9), (1, 0, 1), (0, 0, 18), (1, 0, 2)]);
        let clusters: Vec<usize> = (0..30).map(|example| usize::from(example >= 10)).collect();
        assert_eq!(bootstrap(2, &pairs, Some(&clusters), RESAMPLES, 1).unwrap().accuracy, None);
        assert!((student_p_value(0.1, &[0.1; 100], 2) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_single_example_or_cluster_has_no_interval() {
        assert_eq!(bootstrap(2, &[(0, 0)], None, 10, 1).unwrap().accuracy, None);
        assert_eq!(bootstrap(2, &[(0, 0), (0, 1)], Some(&[7, 7]), 10, 1).unwrap().macro_f1, None);
    }
}
