//! Two systems on the same examples: paired bootstrap, `McNemar`'s test, and Holm's correction over several comparisons.
//!
//! Paired bootstrap: Koehn, Statistical Significance Tests for Machine Translation Evaluation (EMNLP 2004). `McNemar`
//! (1947): the discordant examples fall to either side with probability one half; exact, or approximated with Edwards'
//! correction (1948). Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).

use serde::{Deserialize, Serialize};

use super::metrics::{Headline, MetricsError, Tally, check_pairs};
use super::statistics::{Form, Interval, Pool, Unit, each, intervals, student_p_value};

/// How far the second system is above the first in one number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The second's number less the first's.
    pub value: f64,
    /// Its 95% interval; none of a single utterance or cluster.
    pub interval: Option<Interval>,
    /// Two-sided p: twice the share of the resamples that fall on the other side of 0 or on it; with few clusters that
    /// of Student's t, if it is larger.
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
    let outcomes: Vec<Outcome> =
        outcomes.iter().map(|&(truth, first, second)| Outcome { group: 0, truth, first, second, weight: 1 }).collect();
    let unit = clusters.map_or(Unit::Example, Unit::Cluster);
    Ok(grouped_bootstrap(labels, &outcomes, unit, resamples, seed)?.difference)
}

/// One example: its true label and two systems' predictions, each a position in the set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// What is scored by itself: a seed, from 0.
    pub group: usize,
    /// The true label.
    pub truth: usize,
    /// What the first system says.
    pub first: usize,
    /// What the second system says.
    pub second: usize,
    /// How often it counts.
    pub weight: u64,
}

/// Two systems' headline numbers, each the mean over the groups of the group's number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grouped {
    /// The first system's.
    pub first: Headline,
    pub first_intervals: Headline<Option<Interval>>,
    /// The second system's.
    pub second: Headline,
    /// How far the second is above the first.
    pub difference: Headline<Difference>,
}

/// Two systems whose examples fall into groups (seeds) that are scored each by itself: the means over the groups. A
/// resample draws units with all their examples, of whatever group.
///
/// # Errors
/// As of [`paired_bootstrap`].
pub fn grouped_bootstrap(
    labels: usize,
    outcomes: &[Outcome],
    unit: Unit,
    resamples: usize,
    seed: u64,
) -> Result<Grouped, MetricsError> {
    check_pairs(labels, &outcomes.iter().map(|outcome| (outcome.truth, outcome.first)).collect::<Vec<_>>())?;
    check_pairs(labels, &outcomes.iter().map(|outcome| (outcome.truth, outcome.second)).collect::<Vec<_>>())?;
    if resamples == 0 {
        return Err(MetricsError::Nothing);
    }
    let groups = outcomes.iter().map(|outcome| outcome.group + 1).max().unwrap_or_default();
    let empty = vec![Tally::new(labels); 2 * groups];
    let pool = Pool::new(outcomes, unit)?;
    let add = |tallies: &mut [Tally], outcome: &Outcome, count| {
        if let Some([first, second]) = tallies.chunks_exact_mut(2).nth(outcome.group) {
            first.add(outcome.truth, outcome.first, count * outcome.weight);
            second.add(outcome.truth, outcome.second, count * outcome.weight);
        }
    };
    let read = |tallies: &[Tally]| [mean(tallies.iter().step_by(2)), mean(tallies.iter().skip(1).step_by(2))];
    let ([first, second], drawn) = pool.draw(&empty, add, read, resamples, seed);
    let differs = |[first, second]: [Headline; 2]| second.zip(first).map(|(second, first)| second - first);
    let value = differs([first, second]);
    let differences: Vec<Headline> = drawn.iter().copied().map(differs).collect();
    let p_values = value.zip(each(&differences)).map(|(value, drawn)| match pool.form() {
        Form::Single => 1.0,
        Form::Few(clusters) => two_sided(&drawn).max(student_p_value(value, &drawn, clusters)),
        Form::Percentile => two_sided(&drawn),
    });
    let difference = value.zip(intervals(value, &differences, pool.form(), [-1.0, 1.0])).zip(p_values);
    let of_first: Vec<Headline> = drawn.iter().map(|[first, _]| *first).collect();
    Ok(Grouped {
        first,
        first_intervals: intervals(first, &of_first, pool.form(), [0.0, 1.0]),
        second,
        difference: difference.map(|((value, interval), p_value)| Difference { value, interval, p_value }),
    })
}

/// The mean of some tallies' numbers; those that hold nothing are left out.
fn mean<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Headline {
    let (mut sum, mut count): (Headline, f64) = (Headline::default(), 0.0);
    for tally in tallies.filter(|tally| !tally.is_empty()) {
        sum = sum.zip(tally.headline()).map(|(sum, number)| sum + number);
        count += 1.0;
    }
    sum.map(|sum| sum / count.max(1.0))
}

#[expect(clippy::cast_precision_loss, reason = "counts of resamples stay far below 2^53")]
fn two_sided(differences: &[f64]) -> f64 {
    let not_above = differences.iter().filter(|&&difference| difference <= 0.0).count();
    let not_below = differences.iter().filter(|&&difference| difference >= 0.0).count();
    // One more on both sides of the quotient: no finite number of resamples shows a p of 0.
    (2.0 * (not_above.min(not_below) + 1) as f64 / (differences.len() + 1) as f64).min(1.0)
}

/// Which form of `McNemar`'s test was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum McNemarForm {
    /// The binomial test of the discordant examples.
    Exact,
    /// χ² with the correction for continuity.
    Corrected,
}

impl McNemarForm {
    pub fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Corrected => "corrected",
        }
    }
}

/// `McNemar`'s test of two systems.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Examples that only the first system got right.
    pub only_first: u64,
    /// Examples that only the second system got right.
    pub only_second: u64,
    /// The form: exact below 25 discordant examples.
    pub form: McNemarForm,
    /// Two-sided p.
    pub p_value: f64,
}

impl McNemar {
    /// Fewer discordant examples than these are tested exactly.
    const FEW: u64 = 25;

    /// The test for this many discordant examples.
    pub fn of(only_first: u64, only_second: u64) -> Self {
        let (form, p_value) = if only_first + only_second < Self::FEW {
            (McNemarForm::Exact, mcnemar_exact(only_first, only_second))
        } else {
            (McNemarForm::Corrected, mcnemar_corrected(only_first, only_second))
        };
        Self { only_first, only_second, form, p_value }
    }
}

/// Two-sided p of `McNemar`'s exact test, from how many examples only the first and only the second system got right.
#[expect(clippy::cast_precision_loss, reason = "counts of examples stay far below 2^53")]
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> f64 {
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

/// Two-sided p of `McNemar`'s test with Edwards' correction: (|b − c| − 1)² / (b + c) against χ² with one degree of
/// freedom, whose upper tail at x is erfc(√(x/2)). 1 where no example is discordant.
#[expect(clippy::cast_precision_loss, reason = "counts of examples stay far below 2^53")]
pub fn mcnemar_corrected(only_first: u64, only_second: u64) -> f64 {
    let total = only_first + only_second;
    if total == 0 {
        return 1.0;
    }
    let statistic = (only_first.abs_diff(only_second) as f64 - 1.0).powi(2) / total as f64;
    libm::erfc((statistic / 2.0).sqrt())
}

/// Holm's corrected p-values, in the order given.
#[expect(clippy::cast_precision_loss, reason = "counts of comparisons are small")]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = p_values.iter().copied().enumerate().collect();
    order.sort_by(|left, right| left.1.total_cmp(&right.1));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, (place, p_value)) in order.into_iter().enumerate() {
        largest = largest.max(p_value * (p_values.len() - rank) as f64).min(1.0);
        corrected[place] = largest;
    }
    corrected
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "numbers as Python prints them")]
mod tests {
    use super::*;

    /// `scipy.stats.binomtest(first, first + second, 0.5).pvalue`
    #[test]
    fn the_exact_test_is_the_binomial_test_of_scipy() {
        for (first, second, expected) in [
            (3, 9, 0.14599609375),
            (10, 10, 1.0),
            (5, 30, 2.2361520677804947e-05),
            (700, 810, 0.005014536344358142),
            (1, 0, 1.0),
            (0, 0, 1.0),
        ] {
            let found = mcnemar_exact(first, second);
            assert!((found - expected).abs() < 1e-9 * expected.max(1e-3), "{first}, {second}: {found} for {expected}");
        }
    }

    /// (|30 − 10| − 1)² / 40 = 9.025; `scipy.stats.chi2.sf(9.025, 1)` = 0.002663119259138558.
    #[test]
    fn few_discordant_examples_are_tested_exactly_and_many_with_the_correction() {
        let many = McNemar::of(30, 10);
        assert_eq!(many.form, McNemarForm::Corrected);
        assert!((many.p_value - 0.002663119259138558).abs() < 1e-12, "{}", many.p_value);
        let few = McNemar::of(3, 9);
        assert_eq!((few.form, few.only_first, few.only_second), (McNemarForm::Exact, 3, 9));
        assert_eq!((McNemar::of(12, 12).form, McNemar::of(12, 13).form), (McNemarForm::Exact, McNemarForm::Corrected));
        assert!((mcnemar_corrected(0, 0) - 1.0).abs() < 1e-12);
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
        let [low, high] = found.interval.unwrap();
        assert!((low - 0.0155).abs() < 0.003 && (high - 0.0645).abs() < 0.003, "[{low}, {high}]");
        assert!(found.p_value < 0.005, "{}", found.p_value);
    }

    /// Two seeds that each say one thing of all: pooled they would look like a system that tells the classes apart.
    #[test]
    fn seeds_are_scored_each_by_itself() {
        let outcome = |group, truth, first| Outcome { group, truth, first, second: truth, weight: 1 };
        // Four utterances of two classes; the first seed always says 0, the second always 1; the other system is right.
        let outcomes: Vec<Outcome> = [(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0), (1, 1), (1, 1)]
            .map(|(group, truth)| outcome(group, truth, group))
            .to_vec();
        let clusters = [0, 1, 2, 3, 0, 1, 2, 3];
        let found = grouped_bootstrap(2, &outcomes, Unit::Utterance(&clusters), 500, 1).unwrap();
        // Of each seed: F1 2/3 and 0, half each.
        assert!((found.first.weighted_f1 - 1.0 / 3.0).abs() < 1e-12, "{found:?}");
        assert!((found.first.accuracy - 0.5).abs() < 1e-12 && (found.second.accuracy - 1.0).abs() < 1e-12);
        assert!((found.difference.weighted_f1.value - 2.0 / 3.0).abs() < 1e-12);
        // Whichever utterances are drawn, one seed is right about each of them and the other is not.
        assert!(found.first_intervals.accuracy.unwrap().iter().all(|bound| (bound - 0.5).abs() < 1e-12), "{found:?}");
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
