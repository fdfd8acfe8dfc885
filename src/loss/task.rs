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
        let total_weight = labels.iter().map(|&label| weight(label)).sum();
        Self { rows, classes, total_weight }
    }
}

/// Cross-entropy of logits [batch, classes] -> [1].
#[must_use]
pub fn cross_entropy<B: Backend>(logits: Tensor<B, 2>, targets: &Targets) -> Tensor<B, 1> {
    let [batch, _] = logits.dims();
    let device = logits.device();
    let rows = Tensor::<B, 2>::from_data(TensorData::new(targets.rows.clone(), [batch, targets.classes]), &device);
    -(log_softmax(logits) * rows).sum() / targets.total_weight
}

/// The weights of the classes for the number of training examples of each. A class without examples weighs 0.
#[must_use]
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
