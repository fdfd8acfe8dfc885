//! The sequences of LFMIM: their blocks, what goes in, and the vector that is read from them.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};

use super::LfmimOptions;
use crate::{
    encoder::layer::{Activation, Attention, FeedForward},
    nn::{Init, LayerNorm, Linear},
    ops::{self, AttentionShape, Lengths, Mode, Ops},
};

/// Added to the variance in the norms (`torch.nn.LayerNorm`).
const EPSILON: f64 = 1e-5;
/// Inner width of a feed-forward block, in widths.
const EXPANSION: usize = 4;
/// Standard deviation of fresh tokens.
const TOKEN_DEVIATION: f64 = 0.02;

/// A pre-norm layer with a second norm on the output of each branch.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    attention_norm: LayerNorm<B>,
    attention: Attention<B>,
    attention_output_norm: LayerNorm<B>,
    feed_forward_norm: LayerNorm<B>,
    feed_forward: FeedForward<B>,
    feed_forward_output_norm: LayerNorm<B>,
    #[module(skip)]
    options: LfmimOptions,
}

impl<B: Ops> Block<B> {
    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    fn new(width: usize, options: &LfmimOptions, init: &mut Init<'_, B>) -> Self {
        let one = (width as f64).powf(-0.5);
        let residual = ((2 * options.stages * width) as f64).powf(-0.5);
        let norm = |init: &mut Init<'_, B>| LayerNorm::new(width, EPSILON, init);
        Self {
            attention_norm: norm(init),
            attention: Attention {
                query: Linear::normal(width, width, one, init),
                key: Linear::normal(width, width, one, init),
                value: Linear::normal(width, width, one, init),
                output: Linear::normal(width, width, residual, init),
            },
            attention_output_norm: norm(init),
            feed_forward_norm: norm(init),
            feed_forward: FeedForward {
                up: Linear::normal(width, EXPANSION * width, one / std::f64::consts::SQRT_2, init),
                down: Linear::normal(EXPANSION * width, width, residual, init),
            },
            feed_forward_output_norm: norm(init),
            options: options.clone(),
        }
    }

    /// [batch * length, width] -> the same.
    fn forward(&self, x: Tensor<B, 2>, lengths: &Lengths, mode: Mode<'_>) -> Tensor<B, 2> {
        let options = &self.options;
        let normed = self.attention_norm.forward(x.clone());
        let shape = AttentionShape { heads: options.attention_heads, lengths };
        let attended = self.attention.forward(&normed, None, shape, options.attention_dropout, mode);
        let x = x + self.attention_output_norm.forward(attended);
        let normed = self.feed_forward_norm.forward(x.clone());
        let mapped = self.feed_forward.forward(normed, Activation::Relu, options.feed_forward_dropout, mode);
        x + self.feed_forward_output_norm.forward(mapped)
    }
}

/// A sequence of fixed length behind learned tokens, its blocks, and the vector that is read from it.
#[derive(Module, Debug)]
pub struct Stream<B: Backend> {
    input: Option<Linear<B>>,
    /// [tokens, width]
    tokens: Param<Tensor<B, 2>>,
    scaled_norm: LayerNorm<B>,
    input_norm: LayerNorm<B>,
    blocks: Vec<Block<B>>,
    output_norm: LayerNorm<B>,
    /// [length]
    position_weights: Param<Tensor<B, 1>>,
    input_dropout: f64,
}

impl<B: Ops> Stream<B> {
    /// `input`: the encoder's width, where an encoder's states follow the tokens.
    #[expect(clippy::cast_precision_loss, reason = "lengths are small")]
    pub(super) fn new(
        input: Option<usize>,
        [tokens, length, width]: [usize; 3],
        options: &LfmimOptions,
        init: &mut Init<'_, B>,
    ) -> Self {
        Self {
            input: input.map(|input| Linear::uniform(input, width, init)),
            tokens: init.normal([tokens, width], TOKEN_DEVIATION),
            scaled_norm: LayerNorm::new(width, EPSILON, init),
            input_norm: LayerNorm::new(width, EPSILON, init),
            blocks: (0..options.stages).map(|_| Block::new(width, options, init)).collect(),
            output_norm: LayerNorm::new(width, EPSILON, init),
            position_weights: init.uniform([length], 0.0, (length as f64).powf(-0.5)),
            input_dropout: options.input_dropout,
        }
    }

    /// The tokens and, where there are any, the states [batch, positions, the encoder's width], ready for the blocks:
    /// [batch, length, width].
    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    pub(super) fn prepare(&self, batch: usize, states: Option<Tensor<B, 3>>, mode: Mode<'_>) -> Tensor<B, 3> {
        let tokens = self.tokens.val();
        let device = tokens.device();
        let [count, width] = tokens.dims();
        let tokens = tokens.reshape([1, count, width]).expand([batch, count, width]);
        let x = match (&self.input, states) {
            (Some(input), Some(states)) => {
                let [_, positions, own_width] = states.dims();
                let mapped = input.forward_in(states.reshape([batch * positions, own_width]), mode.precision());
                Tensor::cat(vec![tokens, mapped.reshape([batch, positions, width])], 1)
            }
            _ => tokens,
        };
        let [_, length, _] = x.dims();
        let flat = [batch * length, width];
        let x = self.scaled_norm.forward(x.reshape(flat) * (width as f64).sqrt());
        let x = x.reshape([batch, length, width]) + sinusoids(length, width, &device);
        let x = self.input_norm.forward(ops::dropout(x.reshape(flat), mode.dropout(self.input_dropout)));
        x.reshape([batch, length, width])
    }

    /// One block: [batch, length, width] -> the same.
    pub(super) fn advance(&self, stage: usize, x: Tensor<B, 3>, lengths: &Lengths, mode: Mode<'_>) -> Tensor<B, 3> {
        let shape = x.dims();
        let [batch, length, width] = shape;
        self.blocks[stage].forward(x.reshape([batch * length, width]), lengths, mode).reshape(shape)
    }

    /// The weighted sum over the positions: [batch, length, width] -> [batch, width].
    pub(super) fn read(&self, x: Tensor<B, 3>, lengths: &Lengths) -> Tensor<B, 2> {
        let [batch, length, width] = x.dims();
        let normed = self.output_norm.forward(x.reshape([batch * length, width]));
        let weights = self.position_weights.val().reshape([1, length]);
        let weights = if lengths.is_full() {
            weights.expand([batch, length])
        } else {
            lengths.mask::<B>(&normed.device()) * weights
        };
        let weighted = normed.reshape([batch, length, width]) * weights.reshape([batch, length, 1]);
        weighted.sum_dim(1).reshape([batch, width])
    }
}

/// Positions as sines at even and cosines at odd places (Vaswani et al. 2017): [1, length, width].
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "sizes are small; the model is f32")]
fn sinusoids<B: Backend>(length: usize, width: usize, device: &B::Device) -> Tensor<B, 3> {
    let value = |position: usize, place: usize| {
        let angle = position as f64 / 10_000_f64.powf((place - place % 2) as f64 / width as f64);
        (if place.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
    };
    let values: Vec<f32> = (0..length * width).map(|at| value(at / width, at % width)).collect();
    Tensor::from_data(TensorData::new(values, [1, length, width]), device)
}
