//! What `WavLM` (Chen et al. 2022, section 3.1) adds to the layers of wav2vec 2.0, as Hugging Face's `WavLMAttention`:
//! attention scores have a bias that depends on the distance of two frames, by buckets, and that each frame gates.

use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor, TensorData, activation, backend::Backend},
};

use crate::{
    nn::{Embedding, Init, Linear},
    ops::{Mode, Ops},
};

/// Values that a gate's map gives a head: two sums of four.
const GATE_VALUES: usize = 8;

/// A head's bias for each bucket of distances; one table serves all layers.
#[derive(Module, Debug)]
pub struct RelativePositions<B: Backend> {
    /// [buckets, heads]
    table: Embedding<B>,
    buckets: usize,
    /// The last bucket begins here, in frames.
    most_distance: usize,
    heads: usize,
}

impl<B: Backend> RelativePositions<B> {
    pub fn new(buckets: usize, most_distance: usize, heads: usize, init: &mut Init<'_, B>) -> Self {
        Self { table: Embedding::normal(buckets, heads, 1.0, init), buckets, most_distance, heads }
    }
}

impl<B: Ops> RelativePositions<B> {
    /// The bias [heads, frames, frames] of each frame (second axis) for each that it looks at (third axis).
    #[expect(clippy::cast_possible_wrap, reason = "buckets are few")]
    pub fn bias(&self, frames: usize, device: &B::Device) -> Tensor<B, 3> {
        let buckets = (0..frames)
            .flat_map(|from| (0..frames).map(move |to| bucket(from, to, self.buckets, self.most_distance) as i64));
        let buckets = TensorData::new(buckets.collect::<Vec<i64>>(), [frames * frames]);
        let bias = self.table.forward(Tensor::<B, 1, Int>::from_data(buckets, device));
        bias.reshape([frames, frames, self.heads]).permute([2, 0, 1])
    }
}

/// Half of the buckets are for what lies behind. Of these, half have a distance each; the distances of the others grow
/// with the logarithm.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small counts, in single precision as in the reference"
)]
fn bucket(from: usize, to: usize, buckets: usize, most_distance: usize) -> usize {
    let half = buckets / 2;
    let exact = half / 2;
    let distance = from.abs_diff(to);
    let own = if distance < exact {
        distance
    } else {
        let share = (distance as f32 / exact as f32).ln() / (most_distance as f64 / exact as f64).ln() as f32;
        (exact + (share * (half - exact) as f32) as usize).min(half - 1)
    };
    if to > from { half + own } else { own }
}

/// How much of the bias a frame takes, in one layer.
#[derive(Module, Debug)]
pub struct Gate<B: Backend> {
    /// [1, heads, 1, 1]
    constant: Param<Tensor<B, 4>>,
    /// From a head's part of a frame to 8 values.
    map: Linear<B>,
}

impl<B: Backend> Gate<B> {
    pub fn new(heads: usize, head_width: usize, init: &mut Init<'_, B>) -> Self {
        Self {
            constant: init.constant([1, heads, 1, 1], 1.0),
            map: Linear::normal(head_width, GATE_VALUES, 0.02, init),
        }
    }
}

impl<B: Ops> Gate<B> {
    /// The bias [heads, frames, frames] as each frame of `x` [batch * frames, width], the input of attention, takes it:
    /// [batch, heads, frames, frames].
    pub fn gated(&self, x: &Tensor<B, 2>, bias: &Tensor<B, 3>, mode: Mode<'_>) -> Tensor<B, 4> {
        let ([rows, width], [heads, frames, _]) = (x.dims(), bias.dims());
        let batch = rows / frames;
        let parts = x.clone().reshape([rows * heads, width / heads]);
        let values = self.map.forward_in(parts, mode.precision()).reshape([batch, frames, heads, 2, GATE_VALUES / 2]);
        let gates = activation::sigmoid(values.sum_dim(4).reshape([batch, frames, heads, 2])).swap_dims(1, 2);
        let (update, reset) = (gates.clone().narrow(3, 0, 1), gates.narrow(3, 1, 1)); // [batch, heads, frames, 1]
        let gate = update * (reset * self.constant.val() - 1.0) + 2.0;
        gate * bias.clone().unsqueeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 8 buckets, 4 a direction, distances 0 and 1 alone, then up to 8 in two steps of the logarithm: 2 and 3
    /// (ln(3 / 2) / ln(8 / 2) * 2 = 0.58), from 4 on the last.
    #[test]
    fn buckets_are_those_of_the_arithmetic() {
        let behind: Vec<usize> = (0..6).map(|distance| bucket(distance, 0, 8, 8)).collect();
        assert_eq!(behind, [0, 1, 2, 2, 3, 3]);
        assert_eq!((bucket(0, 1, 8, 8), bucket(0, 100, 8, 8)), (5, 7));
    }
}
