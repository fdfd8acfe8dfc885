//! The layers' matrix products, convolutions and attention in the number format of a forward pass. In bf16 their operands
//! are rounded to bf16 and so are their results, forward and backward; all else, biases too, stays f32.
//!
//! A backend that has bf16 gets tensors of that type in all but convolutions. Elsewhere bf16 is emulated: the values are
//! rounded at the same places and stay f32, and sums are f32 in either case.

use burn::tensor::{FloatDType, Tensor, activation};

use super::{AttentionShape, Dropout, Ops, plain};
use crate::{choices::Precision, profile};

/// An operand, from f32.
fn enter<B: Ops, const D: usize>(x: Tensor<B, D>, precision: Precision) -> Tensor<B, D> {
    match precision {
        Precision::F32 => x,
        Precision::Bf16 if B::HAS_BF16 => x.cast(FloatDType::BF16),
        Precision::Bf16 => B::round_to_bf16(x),
    }
}

/// A result, to f32.
fn leave<B: Ops, const D: usize>(x: Tensor<B, D>, precision: Precision) -> Tensor<B, D> {
    match precision {
        Precision::F32 => x,
        Precision::Bf16 if B::HAS_BF16 => x.cast(FloatDType::F32),
        Precision::Bf16 => B::round_to_bf16(x),
    }
}

/// The products of two stacks of matrices.
pub fn product<B: Ops>(x: Tensor<B, 4>, y: Tensor<B, 4>, precision: Precision) -> Tensor<B, 4> {
    let [stacks, others, rows, inner] = x.dims();
    let columns = y.dims()[3];
    profile::count(&[stacks, others, rows, inner, columns]);
    let x = enter(x.reshape([stacks * others, rows, inner]), precision);
    let y = enter(y.reshape([stacks * others, inner, columns]), precision);
    leave(B::stacked_product(x, y), precision).reshape([stacks, others, rows, columns])
}

/// See [`Ops::linear`].
pub fn linear<B: Ops>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
    precision: Precision,
) -> Tensor<B, 2> {
    profile::count(&[x.dims()[0], weight.dims()[0], weight.dims()[1]]);
    if precision == Precision::F32 {
        return <B as Ops>::linear(x, weight, bias);
    }
    let product = leave(<B as Ops>::linear(enter(x, precision), enter(weight, precision), None), precision);
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

/// See [`Ops::convolution`].
pub fn convolution<B: Ops>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Option<Tensor<B, 1>>,
    stride: usize,
    precision: Precision,
) -> Tensor<B, 3> {
    let ([batch, time, _], [output, input, kernel]) = (x.dims(), weight.dims());
    profile::count(&[batch, (time.saturating_sub(kernel)) / stride + 1, output, input, kernel]);
    if precision == Precision::F32 {
        return <B as Ops>::convolution(x, weight, bias, stride);
    }
    // Rounded and not cast, on every backend: CUDA's convolutions of bf16 may also add up in bf16.
    let y = B::round_to_bf16(<B as Ops>::convolution(B::round_to_bf16(x), B::round_to_bf16(weight), None, stride));
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// See [`Ops::positional_convolution`].
pub fn positional_convolution<B: Ops>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 1>,
    groups: usize,
    precision: Precision,
) -> Tensor<B, 3> {
    let ([batch, time, _], [output, input, kernel]) = (x.dims(), weight.dims());
    profile::count(&[batch, time, output, input, kernel]);
    if precision == Precision::F32 {
        return <B as Ops>::positional_convolution(x, weight, bias, groups);
    }
    let zero = enter(bias.zeros_like(), precision);
    let y = <B as Ops>::positional_convolution(enter(x, precision), enter(weight, precision), zero, groups);
    leave(y, precision) + bias.unsqueeze()
}

/// See [`Ops::attention`]; the scores, their mask, softmax and dropout are f32.
pub fn attention<B: Ops>(
    [query, key, value]: [Tensor<B, 2>; 3],
    shape: AttentionShape<'_>,
    dropout: Option<Dropout>,
    precision: Precision,
) -> Tensor<B, 2> {
    // Scores, and what they weigh.
    shape.lengths.valid().iter().for_each(|&valid| profile::count(&[2, valid, valid, query.dims()[1]]));
    let [query, key, value] = [query, key, value].map(|x| enter(x, precision));
    leave(<B as Ops>::attention(query, key, value, shape, dropout), precision)
}

/// Attention of each position to the valid ones, as [`Ops::attention`], with a bias [batch, heads, time, time] of the
/// scores. The scores, their mask, softmax and dropout are f32.
#[expect(clippy::cast_precision_loss, reason = "head widths are small")]
pub fn biased_attention<B: Ops>(
    maps: [Tensor<B, 2>; 3],
    bias: Tensor<B, 4>,
    shape: AttentionShape<'_>,
    dropout: Option<Dropout>,
    precision: Precision,
) -> Tensor<B, 2> {
    let [rows, width] = maps[0].dims();
    let (batch, time) = (shape.lengths.batch(), shape.lengths.longest());
    let head_width = width / shape.heads;
    let split = |x: Tensor<B, 2>| x.reshape([batch, time, shape.heads, head_width]).swap_dims(1, 2);
    let [query, key, value] = maps.map(split);
    let scores = product(query, key.transpose(), precision) / (head_width as f64).sqrt();
    let mut scores = scores + bias;
    if !shape.lengths.is_full() {
        let padding = (shape.lengths.mask::<B>(&scores.device()) - 1.0) * -plain::MASKED_SCORE;
        scores = scores + padding.reshape([batch, 1, 1, time]);
    }
    let weights = super::dropout(activation::softmax(scores, 3), dropout);
    product(weights, value, precision).swap_dims(1, 2).reshape([rows, width])
}
