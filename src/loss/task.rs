//! Cross-entropy with class weights and label smoothing, as `torch.nn.functional.cross_entropy`.

use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::{ClassWeights, log_softmax};

/// β of the effective number of examples (Cui et al. 2019, "Class-balanced loss").
const EFFECTIVE_BETA: f64 = 0.999;

/// The target distributions of a batch and what their sum is divided by.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Row-major [batch, classes].
    rows: Vec<f32>,
    classes: usize,
    /// Sum of the weights of the true classes.
    total_weight: f64,
}

impl Targets {
    /// `labels` of a batch; `weights` of the classes (all 1 where empty); `smoothing` in [0, 1).
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "class counts are small; the model computes in f32"
    )]
    pub fn new(labels: &[usize], classes: usize, weights: &[f64], smoothing: f64) -> Self {
        let weight = |class: usize| weights.get(class).copied().unwrap_or(1.0);
        let mut rows = Vec::with_capacity(labels.len() * classes);
        for &label in labels {
            for class in 0..classes {
                let smooth = smoothing / classes as f64 * weight(class);
                let sharp = if class == label { (1.0 - smoothing) * weight(class) } else { 0.0 };
                rows.push((sharp + smooth) as f32);
            }
        }
        let total_weight = Self::weight_of(labels, weights);
        Self { rows, classes, total_weight }
    }

    /// For a part of the examples that counts by `share`: with it, the parts' cross-entropies add up to that of all,
    /// whose class weights have this sum.
    pub fn part_of(self, total_weight: f64, share: f64) -> Self {
        Self { total_weight: total_weight * share, ..self }
    }

    /// The sum of the class weights of some labels; `weights` as for [`Targets::new`].
    pub fn weight_of(labels: &[usize], weights: &[f64]) -> f64 {
        labels.iter().map(|&label| weights.get(label).copied().unwrap_or(1.0)).sum()
    }
}

/// Cross-entropy of logits [batch, classes] -> [1].
pub fn cross_entropy<B: Backend>(logits: Tensor<B, 2>, targets: &Targets) -> Tensor<B, 1> {
    let [batch, _] = logits.dims();
    let device = logits.device();
    let rows = Tensor::<B, 2>::from_data(TensorData::new(targets.rows.clone(), [batch, targets.classes]), &device);
    -(log_softmax(logits) * rows).sum() / targets.total_weight
}

/// The weights of the classes for the number of training examples of each. A class without examples weighs 0.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn class_weights(kind: ClassWeights, counts: &[usize]) -> Vec<f64> {
    let examples: usize = counts.iter().sum();
    let present = counts.iter().filter(|&&count| count > 0).count() as f64;
    let weigh = |weight: &dyn Fn(f64) -> f64| -> Vec<f64> {
        counts.iter().map(|&count| if count == 0 { 0.0 } else { weight(count as f64) }).collect()
    };
    match kind {
        ClassWeights::None => Vec::new(),
        ClassWeights::Inverse => weigh(&|count| examples as f64 / (present * count)),
        ClassWeights::Effective => {
            let raw = weigh(&|count| (1.0 - EFFECTIVE_BETA) / (1.0 - EFFECTIVE_BETA.powf(count)));
            let mean = raw.iter().sum::<f64>() / present.max(1.0);
            raw.into_iter().map(|weight| weight / mean).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{
        GRADIENT_TOLERANCE, VALUE_TOLERANCE, assert_begins_with, assert_close, assert_finite, awkward_pairs, gradients,
        matrix, reordered, speech, value,
    };
    use super::*;

    const LABELS: [usize; 4] = [2, 0, 3, 1];
    const WEIGHTS: [f64; 4] = [0.5, 1.0, 2.0, 4.0];

    /// `sum_i w_y(i) ((1 - e) (-log p_iy(i)) + e / 4 sum_c w_c / w_y(i) (-log p_ic)) / sum_i w_y(i)`, in numpy; the
    /// same as `torch.nn.functional.cross_entropy`, whose tests name 1.552037 for the first.
    #[test]
    fn values_and_gradients_are_those_of_the_formula() {
        for (weights, smoothing, expected, by_first_row) in [
            (&[][..], 0.0, 1.552_036_758, [0.090_290_649, 0.096_627_207, -0.205_178_724, 0.018_260_868]),
            (&[], 0.1, 1.548_157_260, [0.084_040_649, 0.090_377_207, -0.186_428_724, 0.012_010_868]),
            (&WEIGHTS, 0.0, 1.860_494_360, [0.096_310_026, 0.103_069_021, -0.218_857_306, 0.019_478_259]),
            (&WEIGHTS, 0.1, 1.856_805_613, [0.094_041_422, 0.099_091_506, -0.199_156_115, 0.006_023_187]),
        ] {
            let logits = speech(4);
            let loss = cross_entropy(logits.clone(), &Targets::new(&LABELS, 4, weights, smoothing));
            assert_close(value(loss.clone()), expected, VALUE_TOLERANCE);
            let [gradient] = gradients(&loss, [&logits]).map(Option::unwrap);
            assert_begins_with(&gradient, &by_first_row, GRADIENT_TOLERANCE);
        }
    }

    /// Even logits: log of the number of classes, whatever the label; the gradient is (1/n - [label]) / batch.
    #[test]
    fn even_logits_by_hand() {
        let logits = matrix(2, 5, |_, _| -3.0);
        let loss = cross_entropy(logits.clone(), &Targets::new(&[4, 1], 5, &[], 0.0));
        assert_close(value(loss.clone()), 5.0_f64.ln(), VALUE_TOLERANCE);
        let [gradient] = gradients(&loss, [&logits]).map(Option::unwrap);
        assert_begins_with(&gradient, &[0.1, 0.1, 0.1, 0.1, -0.4, 0.1, -0.4, 0.1, 0.1, 0.1], GRADIENT_TOLERANCE);
    }

    #[test]
    fn the_order_of_the_batch_does_not_matter() {
        let in_order = value(cross_entropy(speech(4), &Targets::new(&LABELS, 4, &WEIGHTS, 0.1)));
        let targets = Targets::new(&[3, 2, 1, 0], 4, &WEIGHTS, 0.1);
        let found = value(cross_entropy(reordered(&speech(4), &[2, 0, 3, 1]), &targets));
        assert_close(found, in_order, VALUE_TOLERANCE);
    }

    #[test]
    fn awkward_logits_give_finite_values_and_gradients() {
        for (name, logits, _) in awkward_pairs(4) {
            println!("{name}");
            let [batch, _] = logits.dims();
            for (weights, smoothing) in [(&[][..], 0.0), (&WEIGHTS, 0.1)] {
                let loss = cross_entropy(logits.clone(), &Targets::new(&LABELS[..batch], 4, weights, smoothing));
                assert_finite(&loss, [&logits]);
            }
        }
    }

    /// Sure and wrong: the loss is the difference of the logits; sure and right: nothing is lost.
    #[test]
    fn certainty_by_hand() {
        let logits = matrix(1, 2, |_, j| 1e4 - 2e4 * j);
        assert_close(value(cross_entropy(logits.clone(), &Targets::new(&[1], 2, &[], 0.0))), 2e4, VALUE_TOLERANCE);
        assert!(value(cross_entropy(logits, &Targets::new(&[0], 2, &[], 0.0))).abs() <= 0.0);
    }

    /// inverse: examples / (classes there are * examples of the class), so that the mean over the examples is 1. With 4,
    /// 1, 0 and 5 examples: 10 / 12, 10 / 3, nothing, 10 / 15.
    /// effective (Cui et al. 2019): 1 / (1 + b + ... + b^(n-1)) with b = 0.999, here for 1, 2, 3 and no examples, divided
    /// by the mean of those that are there.
    #[test]
    fn class_weights_by_hand() {
        assert!(class_weights(ClassWeights::None, &[4, 1, 0, 5]).is_empty());
        let inverse = class_weights(ClassWeights::Inverse, &[4, 1, 0, 5]);
        assert_begins_with(&inverse, &[10.0 / 12.0, 10.0 / 3.0, 0.0, 10.0 / 15.0], 1e-12);
        let effective = class_weights(ClassWeights::Effective, &[1, 2, 3, 0]);
        let raw = [1.0, 1.0 / 1.999, 1.0 / 2.997_001];
        let mean = raw.iter().sum::<f64>() / 3.0;
        assert_begins_with(&effective, &[raw[0] / mean, raw[1] / mean, raw[2] / mean, 0.0], 1e-12);
        for kind in [ClassWeights::Inverse, ClassWeights::Effective] {
            assert_begins_with(&class_weights(kind, &[7, 7, 7]), &[1.0, 1.0, 1.0], 1e-12);
        }
    }
}
