//! The contrastive functional of equations 1 and 2: `semantic` is its value on the invariant vectors, `modality` its
//! negative on the specific ones.

use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::{LossConfig, Negatives, Similarity};

/// Square of the floor of a norm, 1e-12.
const SQUARED_NORM_FLOOR: f64 = 1e-24;

/// In place of a score that is not in the sum.
const LEFT_OUT: f32 = -1e30;

/// `mean_i [log sum of the scores that i is held against - log f(speech_i, text_i)]`, of speech and text
/// [batch, width] -> [1]. 0 for a batch of one: nothing to hold it against.
#[must_use]
pub fn contrastive<B: Backend>(speech: Tensor<B, 2>, text: Tensor<B, 2>, config: &LossConfig) -> Tensor<B, 1> {
    let [batch, _] = speech.dims();
    let device = speech.device();
    if batch < 2 {
        return Tensor::zeros([1], &device);
    }
    let (speech, text) = match config.similarity {
        Similarity::Cosine => (normalised(speech), normalised(text)),
        Similarity::Dot => (speech, text),
    };
    let inverse = 1.0 / config.temperature;
    let scores = |left: &Tensor<B, 2>, right: &Tensor<B, 2>| left.clone().matmul(right.clone().transpose()) * inverse;
    let matched = (speech.clone() * text.clone()).sum_dim(1) * inverse; // [batch, 1]
    let against = match config.negatives {
        Negatives::Printed | Negatives::WithPositive => {
            let others = others_only(batch, &device);
            let mut rows = vec![scores(&speech, &speech) + others.clone(), scores(&text, &text) + others];
            if config.negatives == Negatives::WithPositive {
                rows.push(matched.clone());
            }
            log_sum_exp(Tensor::cat(rows, 1))
        }
        Negatives::CrossModal => {
            let forward = scores(&speech, &text);
            (log_sum_exp(forward.clone()) + log_sum_exp(forward.transpose())) * 0.5
        }
    };
    (against - matched).mean()
}

/// Rows divided by their norm, floored at 1e-12.
fn normalised<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    // The floor is inside the root, so that the gradient of a zero vector is finite.
    let norm = x.clone().square().sum_dim(1).clamp_min(SQUARED_NORM_FLOOR).sqrt();
    x / norm
}

/// 0 off the diagonal and a very negative number on it, [batch, batch].
fn others_only<B: Backend>(batch: usize, device: &B::Device) -> Tensor<B, 2> {
    let mut values = vec![0.0_f32; batch * batch];
    values.iter_mut().step_by(batch + 1).for_each(|value| *value = LEFT_OUT);
    Tensor::from_data(TensorData::new(values, [batch, batch]), device)
}

/// [rows, columns] -> [rows, 1]
fn log_sum_exp<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let largest = x.clone().detach().max_dim(1);
    (x - largest.clone()).exp().sum_dim(1).log() + largest
}
