//! Layer normalisation over rows, and group normalisation of each channel over an utterance's valid frames.

use burn::{backend::Flex, tensor::Tensor};
use rayon::prelude::*;

use super::{NormGradients, contiguous, from_vec, kernels, to_be_written, to_tensor, writable};
use crate::Lengths;

/// Rows that one task handles, and that one partial sum spans.
const ROWS: usize = 32;
/// The same for frames of a group norm, whose rows are short.
const FRAMES: usize = 256;

/// Mean and inverse deviation of a row.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "widths are small; f32 compute")]
fn statistics(row: &[f32], epsilon: f64) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = kernels::sum(row) / count;
    let variance = kernels::squared_deviation(row, mean) / count;
    (mean, 1.0 / (variance + epsilon as f32).sqrt())
}

pub fn layer_norm(x: Tensor<Flex, 2>, weight: Tensor<Flex, 1>, bias: Tensor<Flex, 1>, epsilon: f64) -> Tensor<Flex, 2> {
    let [rows, width] = x.dims();
    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let (weight, bias) = (weight.storage::<f32>(), bias.storage::<f32>());
    let mut y = to_be_written(rows * width);
    y.par_chunks_mut(ROWS * width).zip(x.storage::<f32>().par_chunks(ROWS * width)).for_each(|(y, x)| {
        for (y, x) in y.chunks_mut(width).zip(x.chunks(width)) {
            let (mean, inverse_deviation) = statistics(x, epsilon);
            kernels::normalise(x, mean, inverse_deviation, weight, bias, y);
        }
    });
    from_vec(y, [rows, width])
}

#[expect(clippy::cast_precision_loss, reason = "widths are small")]
pub fn layer_norm_backward(
    x: Tensor<Flex, 2>,
    weight: Tensor<Flex, 1>,
    epsilon: f64,
    gradient: Tensor<Flex, 2>,
) -> NormGradients<Flex, 2> {
    let [rows, width] = x.dims();
    let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
    let weight = weight.storage::<f32>();
    let mut x_gradient = to_be_written(rows * width);
    let inputs = x.storage::<f32>().par_chunks(ROWS * width).zip(gradient.storage::<f32>().par_chunks(ROWS * width));
    let parts: Vec<(Vec<f32>, Vec<f32>)> = x_gradient
        .par_chunks_mut(ROWS * width)
        .zip(inputs)
        .map(|(y, (x, gradient))| {
            let (mut weight_sum, mut bias_sum) = (vec![0.0; width], vec![0.0; width]);
            for ((y, x), gradient) in y.chunks_mut(width).zip(x.chunks(width)).zip(gradient.chunks(width)) {
                let (mean, inverse) = statistics(x, epsilon);
                let sums = kernels::norm_sums(x, mean, inverse, weight, gradient, &mut weight_sum, &mut bias_sum);
                let means = (sums.0 / width as f32, sums.1 / width as f32);
                kernels::norm_gradient(x, mean, inverse, weight, gradient, means, y);
            }
            (weight_sum, bias_sum)
        })
        .collect();
    gradients(from_vec(x_gradient, [rows, width]), &parts, width)
}

/// Adds the partial sums in their order.
fn gradients<const D: usize>(
    x: Tensor<Flex, D>,
    parts: &[(Vec<f32>, Vec<f32>)],
    width: usize,
) -> NormGradients<Flex, D> {
    let (mut weight, mut bias) = (vec![0.0; width], vec![0.0; width]);
    for (weight_part, bias_part) in parts {
        kernels::add(weight_part, &mut weight);
        kernels::add(bias_part, &mut bias);
    }
    NormGradients { x, weight: from_vec(weight, [width]), bias: from_vec(bias, [width]) }
}

/// Mean and inverse deviation of every channel over the valid frames of one example, row-major [frames, channels].
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "frames are few; f32 compute")]
fn channel_statistics(x: &[f32], channels: usize, epsilon: f64) -> (Vec<f32>, Vec<f32>) {
    let frames = (x.len() / channels).max(1) as f64;
    let mean = channel_sums(x, channels, kernels::add);
    let mean: Vec<f32> = mean.iter().map(|sum| (sum / frames) as f32).collect();
    let squares = channel_sums(x, channels, |row, sum| kernels::add_squared_deviation(row, &mean, sum));
    let inverse = squares.iter().map(|sum| (1.0 / (sum / frames + epsilon).sqrt()) as f32).collect();
    (mean, inverse)
}

/// Sums over the frames, in f32 within a piece of [`FRAMES`] and in f64 over the pieces.
fn channel_sums(x: &[f32], channels: usize, add: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f64> {
    let parts: Vec<Vec<f32>> = x
        .par_chunks(FRAMES * channels)
        .map(|frames| {
            let mut sum = vec![0.0; channels];
            frames.chunks(channels).for_each(|row| add(row, &mut sum));
            sum
        })
        .collect();
    let mut sums = vec![0.0_f64; channels];
    for part in &parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part));
    }
    sums
}

pub fn masked_group_norm(
    x: Tensor<Flex, 3>,
    weight: Tensor<Flex, 1>,
    bias: Tensor<Flex, 1>,
    lengths: &Lengths,
    epsilon: f64,
) -> Tensor<Flex, 3> {
    let [_, frames, channels] = x.dims();
    let (mut x, weight, bias) = (writable(x), contiguous(weight), contiguous(bias));
    let (weight, bias) = (weight.storage::<f32>(), bias.storage::<f32>());
    let size = frames * channels;
    // In place where nobody else has the input.
    x.storage_mut::<f32>().par_chunks_mut(size).zip(lengths.valid()).for_each(|(x, &valid)| {
        let (real, padded) = x.split_at_mut(valid * channels);
        let (mean, inverse) = channel_statistics(real, channels, epsilon);
        let scale: Vec<f32> = inverse.iter().zip(weight).map(|(inverse, weight)| inverse * weight).collect();
        real.par_chunks_mut(FRAMES * channels).for_each(|frames| {
            frames.chunks_mut(channels).for_each(|row| kernels::centre_scale_shift(row, &mean, &scale, bias));
        });
        padded.chunks_mut(channels).for_each(|row| row.copy_from_slice(bias));
    });
    to_tensor(x)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "frames are few; f32 compute")]
pub fn masked_group_norm_backward(
    x: Tensor<Flex, 3>,
    weight: Tensor<Flex, 1>,
    lengths: &Lengths,
    epsilon: f64,
    gradient: Tensor<Flex, 3>,
) -> NormGradients<Flex, 3> {
    let [batch, frames, channels] = x.dims();
    let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
    let (x, weight, gradient) = (x.storage::<f32>(), weight.storage::<f32>(), gradient.storage::<f32>());
    let size = frames * channels;
    let mut y = vec![0.0_f32; batch * size];
    let inputs = x.par_chunks(size).zip(gradient.par_chunks(size)).zip(lengths.valid());
    let parts: Vec<(Vec<f32>, Vec<f32>)> = y
        .par_chunks_mut(size)
        .zip(inputs)
        .map(|(y, ((x, gradient), &valid))| {
            let count = valid.max(1) as f64;
            // Padded frames come out as the bias alone: their gradient moves nothing else.
            let padded_bias = channel_sums(&gradient[valid * channels..], channels, kernels::add);
            let (x, gradient) = (&x[..valid * channels], &gradient[..valid * channels]);
            let (mean, inverse) = channel_statistics(x, channels, epsilon);
            let bias_sum = channel_sums(gradient, channels, kernels::add);
            let product = centred_products(x, &mean, gradient, channels);
            let weight_sum: Vec<f64> =
                product.iter().zip(&inverse).map(|(product, inverse)| product * f64::from(*inverse)).collect();
            // gradient * scale + (x - mean) * slope + shift
            let scale: Vec<f32> = inverse.iter().zip(weight).map(|(inverse, weight)| inverse * weight).collect();
            let slope: Vec<f32> = (0..channels)
                .map(|index| {
                    let inverse = f64::from(inverse[index]);
                    -(f64::from(scale[index]) * inverse * weight_sum[index] / count) as f32
                })
                .collect();
            let shift: Vec<f32> =
                scale.iter().zip(&bias_sum).map(|(scale, sum)| -(f64::from(*scale) * sum / count) as f32).collect();
            y[..valid * channels]
                .par_chunks_mut(FRAMES * channels)
                .zip(x.par_chunks(FRAMES * channels).zip(gradient.par_chunks(FRAMES * channels)))
                .for_each(|(y, (x, gradient))| {
                    let rows = x.chunks(channels).zip(gradient.chunks(channels));
                    for (y, (x, gradient)) in y.chunks_mut(channels).zip(rows) {
                        kernels::linear_combination(gradient, &scale, x, &mean, &slope, &shift, y);
                    }
                });
            let narrow = |sums: &[f64]| sums.iter().map(|&sum| sum as f32).collect::<Vec<f32>>();
            let all_bias: Vec<f64> = bias_sum.iter().zip(&padded_bias).map(|(real, padded)| real + padded).collect();
            (narrow(&weight_sum), narrow(&all_bias))
        })
        .collect();
    gradients(from_vec(y, [batch, frames, channels]), &parts, channels)
}

/// The sums of `(x - mean) * gradient` of every channel.
fn centred_products(x: &[f32], mean: &[f32], gradient: &[f32], channels: usize) -> Vec<f64> {
    let parts: Vec<Vec<f32>> = x
        .par_chunks(FRAMES * channels)
        .zip(gradient.par_chunks(FRAMES * channels))
        .map(|(x, gradient)| {
            let mut sum = vec![0.0; channels];
            for (x, gradient) in x.chunks(channels).zip(gradient.chunks(channels)) {
                kernels::add_centred_product(x, mean, gradient, &mut sum);
            }
            sum
        })
        .collect();
    let mut sums = vec![0.0_f64; channels];
    for part in &parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part));
    }
    sums
}
