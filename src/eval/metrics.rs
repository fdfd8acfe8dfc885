//! The confusion matrix and every number that is derived from it.
//!
//! Plain numbers only: a label is its position in the checkpoint's label list. A quotient 0/0 is 0 everywhere, as with
//! scikit-learn's `zero_division=0`.

use serde::{Deserialize, Serialize};

/// Why pairs of labels cannot be counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// A label lies outside the label set.
    #[error("label number {label} in example {example} is not among the {labels} labels (counted from 0)")]
    UnknownLabel {
        /// Position of the example.
        example: usize,
        /// The number that is too large.
        label: usize,
        /// Size of the label set.
        labels: usize,
    },
    /// There is nothing to compute an interval from.
    #[error("no examples to resample: an interval needs at least one example and one resample")]
    Nothing,
    /// The list of clusters does not match the list of examples.
    #[error("{clusters} cluster numbers for {examples} examples: give one for each example")]
    Clusters {
        /// Length of the list of clusters.
        clusters: usize,
        examples: usize,
    },
}

/// The four numbers that stand at the head of every report; `T` is the number, its interval or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Headline<T = f64> {
    /// Share of the examples whose prediction is right ("weighted accuracy" in part of the literature).
    pub accuracy: T,
    /// Mean recall over the classes in the truth ("unweighted accuracy" in part of the literature).
    pub balanced_accuracy: T,
    /// Mean of the classes' F1, weighted by how often each occurs in the truth.
    pub weighted_f1: T,
    /// Plain mean of the F1 of the classes that are in the truth or predicted, as scikit-learn's `f1_score` with its
    /// default labels: a class that is predicted and never true counts as 0.
    pub macro_f1: T,
}

impl<T> Headline<T> {
    /// The same four places filled with what `change` makes of each.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Headline<U> {
        Headline {
            accuracy: change(self.accuracy),
            balanced_accuracy: change(self.balanced_accuracy),
            weighted_f1: change(self.weighted_f1),
            macro_f1: change(self.macro_f1),
        }
    }

    /// Two headlines side by side.
    pub fn zip<U>(self, other: Headline<U>) -> Headline<(T, U)> {
        Headline {
            accuracy: (self.accuracy, other.accuracy),
            balanced_accuracy: (self.balanced_accuracy, other.balanced_accuracy),
            weighted_f1: (self.weighted_f1, other.weighted_f1),
            macro_f1: (self.macro_f1, other.macro_f1),
        }
    }

    /// The four numbers with the names that a reader sees.
    pub fn named(&self) -> [(&'static str, &T); 4] {
        [
            ("accuracy", &self.accuracy),
            ("balanced accuracy", &self.balanced_accuracy),
            ("weighted F1", &self.weighted_f1),
            ("macro F1", &self.macro_f1),
        ]
    }
}

/// Precision, recall, F1 and support of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Share of the predictions of this class that are right.
    pub precision: f64,
    /// Share of the examples of this class that are found.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// How many examples of this class there are.
    pub support: u64,
}

/// For each class how often it is true, predicted, and both: all that the headline numbers need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    support: Vec<u64>,
    predicted: Vec<u64>,
    correct: Vec<u64>,
}

impl Tally {
    /// Nothing counted yet.
    pub(crate) fn new(labels: usize) -> Self {
        Self { support: vec![0; labels], predicted: vec![0; labels], correct: vec![0; labels] }
    }

    /// Sets every count to 0.
    pub(crate) fn clear(&mut self) {
        for counts in [&mut self.support, &mut self.predicted, &mut self.correct] {
            counts.fill(0);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.support.iter().all(|&count| count == 0)
    }

    /// Adds `count` examples of one cell.
    pub(crate) fn add(&mut self, truth: usize, prediction: usize, count: u64) {
        self.support[truth] += count;
        self.predicted[prediction] += count;
        if truth == prediction {
            self.correct[truth] += count;
        }
    }

    fn classes(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.support
            .iter()
            .zip(&self.predicted)
            .zip(&self.correct)
            .map(|((&support, &predicted), &correct)| (support, predicted, correct))
    }

    pub(crate) fn headline(&self) -> Headline {
        let (mut total, mut right, mut true_classes, mut classes) = (0, 0, 0, 0);
        let (mut recalls, mut plain, mut weighted) = (0.0, 0.0, 0.0);
        for (support, predicted, correct) in self.classes() {
            let f1 = ratio(2 * correct, support + predicted);
            total += support;
            right += correct;
            true_classes += u64::from(support > 0);
            classes += u64::from(support + predicted > 0);
            recalls += ratio(correct, support);
            plain += f1;
            weighted += f1 * number(support);
        }
        Headline {
            accuracy: ratio(right, total),
            balanced_accuracy: share(recalls, true_classes),
            weighted_f1: share(weighted, total),
            macro_f1: share(plain, classes),
        }
    }
}

/// How often each true label met each predicted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    labels: usize,
    /// [truth × labels + prediction]
    counts: Vec<u64>,
}

impl Confusion {
    /// Counts pairs of (truth, prediction), both positions in a set of `labels` labels.
    ///
    /// # Errors
    /// When a label is not in the set.
    pub fn from_pairs(labels: usize, pairs: &[(usize, usize)]) -> Result<Self, MetricsError> {
        check_pairs(labels, pairs)?;
        let mut counts = vec![0; labels * labels];
        for &(truth, prediction) in pairs {
            counts[truth * labels + prediction] += 1;
        }
        Ok(Self { labels, counts })
    }

    /// One row for each true label, one column for each predicted one.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        // A set without labels has no rows; `chunks` refuses a width of 0.
        self.counts.chunks(self.labels.max(1))
    }

    /// How many examples are counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn headline(&self) -> Headline {
        self.tally().headline()
    }

    /// Precision, recall, F1 and support of each class, in label order.
    pub fn classes(&self) -> Vec<ClassScore> {
        self.tally()
            .classes()
            .map(|(support, predicted, correct)| ClassScore {
                precision: ratio(correct, predicted),
                recall: ratio(correct, support),
                f1: ratio(2 * correct, support + predicted),
                support,
            })
            .collect()
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::new(self.labels);
        for (truth, row) in self.rows().enumerate() {
            for (prediction, &count) in row.iter().enumerate() {
                tally.add(truth, prediction, count);
            }
        }
        tally
    }
}

/// Refuses pairs with a label outside the set.
pub(crate) fn check_pairs(labels: usize, pairs: &[(usize, usize)]) -> Result<(), MetricsError> {
    for (example, &(truth, prediction)) in pairs.iter().enumerate() {
        let label = truth.max(prediction);
        if label >= labels {
            return Err(MetricsError::UnknownLabel { example, label, labels });
        }
    }
    Ok(())
}

fn ratio(part: u64, whole: u64) -> f64 {
    share(number(part), whole)
}

fn share(part: f64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part / number(whole) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of examples stay far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
#[expect(clippy::unreadable_literal, reason = "numbers as Python prints them")]
mod tests {
    use super::*;

    fn pairs_of(rows: &[&[usize]]) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for (truth, row) in rows.iter().enumerate() {
            for (prediction, &count) in row.iter().enumerate() {
                pairs.extend(std::iter::repeat_n((truth, prediction), count));
            }
        }
        pairs
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "found {found}, expected {expected}");
    }

    /// By hand: 3 of "a" (2 found), 1 of "b" (found), "c" never true but once predicted.
    #[test]
    fn numbers_are_those_worked_by_hand() {
        let confusion = Confusion::from_pairs(3, &[(0, 0), (0, 0), (0, 2), (1, 1)]).unwrap();
        let headline = confusion.headline();
        close(headline.accuracy, 3.0 / 4.0);
        // Recalls 2/3 and 1; "c" does not occur in the truth.
        close(headline.balanced_accuracy, 5.0 / 6.0);
        // F1: a = 2·1·(2/3)/(1 + 2/3) = 0.8, b = 1, c = 0.
        close(headline.weighted_f1, (3.0 * 0.8 + 1.0) / 4.0);
        close(headline.macro_f1, (0.8 + 1.0 + 0.0) / 3.0);
        let rows: Vec<&[u64]> = confusion.rows().collect();
        assert_eq!(rows, [&[2, 0, 1], &[0, 1, 0], &[0, 0, 0]]);
        assert_eq!(confusion.total(), 4);
        assert_eq!(confusion.classes()[2], ClassScore { precision: 0.0, recall: 0.0, f1: 0.0, support: 0 });
    }

    /// `f1_score([0, 0, 1], [0, 1, 1], average="macro")` of scikit-learn, whose labels are those that occur, is 2/3.
    #[test]
    fn a_class_that_is_nowhere_is_left_out_of_the_macro_f1() {
        let headline = Confusion::from_pairs(3, &[(0, 0), (0, 1), (1, 1)]).unwrap().headline();
        close(headline.macro_f1, 2.0 / 3.0);
        close(headline.balanced_accuracy, 0.75);
    }

    /// Random tables, from scikit-learn 1.9.1:
    /// `accuracy_score(t, p)`, `balanced_accuracy_score(t, p)`, `f1_score(t, p, average="weighted",
    /// zero_division=0)`, and the same with `average="macro"`.
    #[test]
    fn numbers_are_those_of_scikit_learn() {
        let tables: [(&[&[usize]], [f64; 4]); 5] = [
            (
                &[&[7, 1, 2, 3], &[0, 7, 1, 0], &[0, 0, 4, 1], &[1, 3, 0, 10]],
                [0.7, 0.7319368131868131, 0.6973684210526315, 0.6961152882205514],
            ),
            (&[&[9, 7], &[4, 10]], [0.6333333333333333, 0.6383928571428572, 0.6321097515758249, 0.6329254727474972]),
            (
                &[
                    &[1, 2, 0, 0, 2, 1],
                    &[0, 3, 1, 2, 1, 1],
                    &[0, 0, 2, 0, 1, 1],
                    &[1, 0, 0, 5, 1, 0],
                    &[0, 0, 0, 0, 0, 0],
                    &[0, 0, 0, 0, 0, 0],
                ],
                [0.44, 0.43898809523809523, 0.4991208791208791, 0.33287545787545786],
            ),
            (
                &[&[2, 3, 2], &[2, 2, 1], &[0, 0, 0]],
                [0.3333333333333333, 0.34285714285714286, 0.37878787878787873, 0.2545454545454546],
            ),
            (
                &[
                    &[4, 0, 1, 0, 0, 1, 0, 1],
                    &[0, 5, 0, 0, 0, 0, 0, 0],
                    &[1, 0, 9, 1, 0, 0, 0, 1],
                    &[1, 0, 0, 8, 0, 0, 0, 0],
                    &[0, 0, 0, 0, 7, 1, 0, 0],
                    &[2, 0, 1, 0, 1, 3, 0, 1],
                    &[0, 0, 0, 1, 0, 0, 4, 0],
                    &[0, 0, 1, 0, 0, 1, 0, 4],
                ],
                [0.7333333333333333, 0.7408730158730159, 0.7312934044512993, 0.7416604411670201],
            ),
        ];
        for (rows, expected) in tables {
            let headline = Confusion::from_pairs(rows.len(), &pairs_of(rows)).unwrap().headline();
            for ((_, &found), expected) in headline.named().into_iter().zip(expected) {
                close(found, expected);
            }
        }
    }

    /// `precision_recall_fscore_support(t, p, labels=range(6), zero_division=0)` of the third table above.
    #[test]
    fn class_scores_are_those_of_scikit_learn() {
        let rows: [&[usize]; 6] = [
            &[1, 2, 0, 0, 2, 1],
            &[0, 3, 1, 2, 1, 1],
            &[0, 0, 2, 0, 1, 1],
            &[1, 0, 0, 5, 1, 0],
            &[0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0],
        ];
        let precision = [0.5, 0.6, 0.6666666666666666, 0.7142857142857143, 0.0, 0.0];
        let recall = [0.16666666666666666, 0.375, 0.5, 0.7142857142857143, 0.0, 0.0];
        let f1 = [0.25, 0.46153846153846156, 0.5714285714285714, 0.7142857142857143, 0.0, 0.0];
        let support = [6, 8, 4, 7, 0, 0];
        let classes = Confusion::from_pairs(6, &pairs_of(&rows)).unwrap().classes();
        for (class, score) in classes.iter().enumerate() {
            close(score.precision, precision[class]);
            close(score.recall, recall[class]);
            close(score.f1, f1[class]);
            assert_eq!(score.support, support[class]);
        }
    }

    #[test]
    fn nothing_at_all_scores_zero() {
        assert_eq!(Confusion::from_pairs(4, &[]).unwrap().headline(), Headline::default());
        assert_eq!(Confusion::from_pairs(0, &[]).unwrap().headline(), Headline::default());
    }

    #[test]
    fn a_label_outside_the_set_is_refused() {
        let error = Confusion::from_pairs(2, &[(0, 1), (2, 0)]).unwrap_err();
        assert_eq!(error, MetricsError::UnknownLabel { example: 1, label: 2, labels: 2 });
    }
}
