//! The plain forms of the operations: Burn's own tensor operations, right on every backend. The fast forms are held
//! against these.

use burn::tensor::{Distribution, FloatDType, Tensor, activation, backend::Backend, module::conv1d, ops::ConvOptions};

pub use super::adam::plain as adam;
use super::{AttentionShape, Dropout, Lengths, Ops};

/// Added to the scores of padded keys: far below any score, so that their weight underflows to exactly 0.
pub const MASKED_SCORE: f64 = -1e9;

/// See [`Ops::linear`].
pub fn linear<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Tensor<B, 2> {
    let product = x.matmul(weight.transpose());
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

/// See [`Ops::gelu`].
pub fn gelu<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    // Composed, because the backward of Burn's own is a tanh approximation on CUDA.
    let bell = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0;
    x * bell * 0.5
}

/// See [`Ops::layer_norm`].
pub fn layer_norm<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, bias: Tensor<B, 1>, epsilon: f64) -> Tensor<B, 2> {
    let centred = x.clone() - x.mean_dim(1);
    let deviation = (centred.clone().square().mean_dim(1) + epsilon).sqrt();
    centred / deviation * weight.unsqueeze() + bias.unsqueeze()
}

/// See [`Ops::attention`]. Of bf16 inputs only the two products are computed in bf16.
#[expect(clippy::cast_precision_loss, reason = "head widths are small")]
pub fn attention<B: Ops>(
    query: Tensor<B, 2>,
    key: Tensor<B, 2>,
    value: Tensor<B, 2>,
    shape: AttentionShape<'_>,
    dropout: Option<Dropout>,
) -> Tensor<B, 2> {
    let [rows, width] = query.dims();
    let (batch, time) = (shape.lengths.batch(), shape.lengths.longest());
    let head_width = width / shape.heads;
    let device = query.device();
    let split = |x: Tensor<B, 2>| x.reshape([batch, time, shape.heads, head_width]).swap_dims(1, 2);
    let scale = 1.0 / (head_width as f64).sqrt();
    let products = split(query).matmul(split(key).transpose()); // [batch, heads, time, time]
    let mut scores = products.cast(FloatDType::F32) * scale;
    if !shape.lengths.is_full() {
        let padding = (shape.lengths.mask::<B>(&device) - 1.0) * -MASKED_SCORE;
        scores = scores + padding.reshape([batch, 1, 1, time]);
    }
    let weights = super::dropout(activation::softmax(scores, 3), dropout);
    weights.cast(value.dtype()).matmul(split(value)).swap_dims(1, 2).reshape([rows, width])
}

/// See [`Ops::convolution`].
pub fn convolution<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Option<Tensor<B, 1>>,
    stride: usize,
) -> Tensor<B, 3> {
    let ([batch, time, input], kernel) = (x.dims(), weight.dims()[2]);
    let options = ConvOptions::new([stride], [0], [1], 1);
    if stride > 1 && (kernel..kernel + stride).contains(&time) {
        // One frame comes out. Burn's gradient of that with strides is wrong on CUDA (its reshape of a gradient with a time
        // of one reads other places), so that a second frame is computed and left out.
        let zeros = Tensor::zeros([batch, stride, input], (&x.device(), x.dtype()));
        let x = Tensor::cat(vec![x, zeros], 1);
        return conv1d(x.swap_dims(1, 2), weight, bias, options).swap_dims(1, 2).narrow(1, 0, 1);
    }
    conv1d(x.swap_dims(1, 2), weight, bias, options).swap_dims(1, 2)
}

/// See [`Ops::positional_convolution`].
#[expect(clippy::needless_pass_by_value, reason = "as the other forms take theirs")]
pub fn positional_convolution<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 1>,
    groups: usize,
) -> Tensor<B, 3> {
    let [_, time, _] = x.dims();
    let [width, input, kernel] = weight.dims();
    let output = width / groups;
    let x = x.swap_dims(1, 2);
    // A group after the other: on CUDA only convolutions without groups have kernels that use the tensor cores.
    let group = |group: usize| {
        let x = x.clone().narrow(1, group * input, input);
        let weight = weight.clone().narrow(0, group * output, output);
        let bias = bias.clone().narrow(0, group * output, output);
        conv1d(x, weight, Some(bias), ConvOptions::new([1], [kernel / 2], [1], 1))
    };
    // An even kernel gives one frame more than went in: the last is dropped.
    Tensor::cat((0..groups).map(group).collect(), 1).swap_dims(1, 2).narrow(1, 0, time)
}

/// See [`Ops::masked_group_norm`].
pub fn masked_group_norm<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    lengths: &Lengths,
    epsilon: f64,
) -> Tensor<B, 3> {
    let [batch, frames, _] = x.dims();
    let device = x.device();
    let (centred, variance) = if lengths.is_full() {
        let centred = x.clone() - x.mean_dim(1);
        let variance = centred.clone().square().mean_dim(1);
        (centred, variance)
    } else {
        let mask = lengths.mask::<B>(&device).reshape([batch, frames, 1]);
        let counts = lengths.counts::<B>(&device).reshape([batch, 1, 1]);
        let mean = (x.clone() * mask.clone()).sum_dim(1) / counts.clone();
        let centred = (x - mean) * mask;
        let variance = centred.clone().square().sum_dim(1) / counts;
        (centred, variance)
    };
    centred / (variance + epsilon).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

/// See [`Ops::weight_norm`].
pub fn weight_norm<B: Backend>(direction: Tensor<B, 3>, length: Tensor<B, 3>) -> Tensor<B, 3> {
    let norm = direction.clone().square().sum_dim(0).sum_dim(1).sqrt();
    direction * (length / norm)
}

/// See [`Ops::dropout_mask`].
pub fn dropout_mask<B: Backend, const D: usize>(
    shape: [usize; D],
    dropout: Dropout,
    device: &B::Device,
) -> Tensor<B, D> {
    B::seed(device, dropout.key);
    let keep = 1.0 - dropout.probability;
    Tensor::random(shape, Distribution::Bernoulli(keep), device) / keep
}
