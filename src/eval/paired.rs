//! Two systems on the same examples: paired bootstrap, `McNemar`'s test, and Holm's correction over several comparisons.
//!
//! Paired bootstrap: Koehn, Statistical Significance Tests for Machine Translation Evaluation (EMNLP 2004). `McNemar`
//! (1947) in its exact form: the discordant examples fall to either side with probability one half. Holm, A Simple
//! Sequentially Rejective Multiple Test Procedure (1979).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::metrics::{Headline, MetricsError, Tally, check_pairs};
use super::statistics::{Interval, Pool, percentile_interval};
use crate::random::{Random, mix};

/// How far the second system is above the first in one number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The second's number less the first's.
    pub value: f64,
    /// Its 95% interval.
    pub interval: Interval,
    /// Two-sided p: twice the share of the resamples that fall on the other side of 0 or on it.
    pub p_value: f64,
}

/// The differences of the headline numbers of two systems. An outcome is (truth, first's prediction, second's
/// prediction), each a position in a set of `labels` labels; both systems see the same resamples.
///
/// # Errors
/// When a label is not in the set, there is no example or no resample, or `clusters` has another length.
pub fn paired_bootstrap(
    labels: usize,
    outcomes: &[(usize, usize, usize)],
    clusters: Option<&[usize]>,
    resamples: usize,
    seed: u64,
) -> Result<Headline<Difference>, MetricsError> {
    let of_first: Vec<_> = outcomes.iter().map(|&(truth, first, _)| (truth, first)).collect();
    let of_second: Vec<_> = outcomes.iter().map(|&(truth, _, second)| (truth, second)).collect();
    check_pairs(labels, &of_first)?;
    check_pairs(labels, &of_second)?;
    if resamples == 0 {
        return Err(MetricsError::Nothing);
    }
    let pool = Pool::new(outcomes, clusters)?;
    let compare = |tallies: &mut [Tally; 2], counts: &mut dyn Iterator<Item = u64>| {
        let [first, second] = tallies;
        first.clear();
        second.clear();
        for (&(truth, of_first, of_second), count) in pool.cells.iter().zip(counts) {
            first.add(truth, of_first, count);
            second.add(truth, of_second, count);
        }
        second.headline().zip(first.headline()).map(|(second, first)| second - first)
    };
    let mut tallies = [Tally::new(labels), Tally::new(labels)];
    let counted = {
        let mut counts = vec![0_u64; pool.cells.len()];
        pool.count_all(&mut counts);
        compare(&mut tallies, &mut counts.into_iter())
    };
    let drawn: Vec<Headline> = (0..resamples as u64)
        .into_par_iter()
        .map_init(
            || (vec![0_u64; pool.cells.len()], tallies.clone()),
            |(counts, tallies), resample| {
                pool.resample(counts, &mut Random::new(mix(seed, resample)));
                compare(tallies, &mut counts.iter().copied())
            },
        )
        .collect();
    let difference = |number: fn(&Headline) -> f64| {
        let values: Vec<f64> = drawn.iter().map(number).collect();
        Difference { value: number(&counted), p_value: two_sided(&values), interval: percentile_interval(values) }
    };
    Ok(Headline {
        accuracy: difference(|headline| headline.accuracy),
        balanced_accuracy: difference(|headline| headline.balanced_accuracy),
        weighted_f1: difference(|headline| headline.weighted_f1),
        macro_f1: difference(|headline| headline.macro_f1),
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of resamples stay far below 2^53")]
fn two_sided(differences: &[f64]) -> f64 {
    let not_above = differences.iter().filter(|&&difference| difference <= 0.0).count();
    let not_below = differences.iter().filter(|&&difference| difference >= 0.0).count();
    // One more on both sides of the quotient: no finite number of resamples shows a p of 0.
    (2.0 * (not_above.min(not_below) + 1) as f64 / (differences.len() + 1) as f64).min(1.0)
}

/// Two-sided p of `McNemar`'s exact test, from how many examples only the first and only the second system got right.
///
/// *Departure* from the usual advice to approximate by χ² from 25 discordant examples on: the exact sum is as cheap.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of examples stay far below 2^53")]
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let total = only_first + only_second;
    // Logarithms: 2^-total is not a double above 1074 examples.
    let mut logarithm = -(total as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for k in 0..=only_first.min(only_second) {
        sum += logarithm.exp();
        logarithm += ((total - k) as f64 / (k + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

/// Holm's corrected p-values, in the order given.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of comparisons are small")]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = p_values.iter().copied().enumerate().collect();
    order.sort_by(|left, right| left.1.total_cmp(&right.1));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, (place, p_value)) in order.into_iter().enumerate() {
        largest = largest.max(p_value * (p_values.len() - rank) as f64).min(1.0);
        if let Some(corrected) = corrected.get_mut(place) {
            *corrected = largest;
        }
    }
    corrected
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "numbers as Python prints them")]
mod tests {
    use super::*;

    /// `scipy.stats.binomtest(first, first + second, 0.5).pvalue`
    #[test]
    fn mcnemar_is_the_binomial_test_of_scipy() {
        for (first, second, expected) in [
            (3, 9, 0.14599609375),
            (10, 10, 1.0),
            (5, 30, 2.2361520677804947e-05),
            (700, 810, 0.005014536344358142),
            (1, 0, 1.0),
            (0, 0, 1.0),
        ] {
            let found = mcnemar(first, second);
            assert!((found - expected).abs() < 1e-9 * expected.max(1e-3), "{first}, {second}: {found} for {expected}");
        }
    }

    /// By hand: sorted 0.01·4, 0.02·3, 0.03·2 (raised to 0.06), 0.5·1.
    #[test]
    fn holm_corrects_in_order_of_size() {
        let found = holm(&[0.5, 0.01, 0.03, 0.02]);
        for (found, expected) in found.iter().zip([0.5, 0.04, 0.06, 0.06]) {
            assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
        }
        assert!((holm(&[0.9, 0.8])[0] - 1.0).abs() < 1e-12);
        assert!(holm(&[]).is_empty());
    }

    fn outcomes(both: usize, first: usize, second: usize, neither: usize) -> Vec<(usize, usize, usize)> {
        [((0, 0, 0), both), ((0, 0, 1), first), ((0, 1, 0), second), ((0, 1, 1), neither)]
            .into_iter()
            .flat_map(|(outcome, n)| std::iter::repeat_n(outcome, n))
            .collect()
    }

    /// 500 examples of which 30 are won and 10 lost: a difference of 0.04 with standard error
    /// √((0.06 + 0.02 - 0.04²)/500) = 0.01252, so z = 3.19 and p = 0.0014.
    #[test]
    fn the_difference_has_its_normal_interval() {
        let found = paired_bootstrap(2, &outcomes(400, 10, 30, 60), None, 10_000, 1).unwrap().accuracy;
        assert!((found.value - 0.04).abs() < 1e-12);
        let [low, high] = found.interval;
        assert!((low - 0.0155).abs() < 0.003 && (high - 0.0645).abs() < 0.003, "[{low}, {high}]");
        assert!(found.p_value < 0.005, "{}", found.p_value);
    }

    #[test]
    fn equal_systems_do_not_differ() {
        let found = paired_bootstrap(2, &outcomes(10, 0, 0, 10), Some(&[3; 20]), 100, 1).unwrap();
        for (name, difference) in found.named() {
            assert!(
                difference.value.abs() < 1e-12 && (difference.p_value - 1.0).abs() < 1e-12,
                "{name}: {difference:?}"
            );
        }
        assert_eq!(paired_bootstrap(2, &[], None, 100, 1), Err(MetricsError::Nothing));
        assert!(paired_bootstrap(1, &outcomes(1, 1, 0, 0), None, 100, 1).is_err());
    }
}
