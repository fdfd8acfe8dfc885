//! The weight of a convolution from a direction and a length at each of its positions.

use burn::{backend::Flex, tensor::Tensor};
use rayon::prelude::*;

use super::{WeightNormGradients, contiguous, from_vec, kernels, to_be_written, to_tensor, writable};

/// Rows of a kernel's positions that one partial sum spans.
const ROWS: usize = 1024;

pub fn forward(direction: Tensor<Flex, 3>, length: Tensor<Flex, 3>) -> Tensor<Flex, 3> {
    let shape @ [_, _, kernel] = direction.dims();
    let (direction, length) = (contiguous(direction), contiguous(length));
    let direction = direction.storage::<f32>();
    let squares = product_sums(direction, direction, kernel);
    let scale: Vec<f32> =
        length.storage::<f32>().iter().zip(&squares).map(|(length, sum)| scale(*length, *sum)).collect();
    let mut weight = to_be_written(direction.len());
    let rows = weight.par_chunks_mut(ROWS * kernel).zip(direction.par_chunks(ROWS * kernel));
    rows.for_each(|(weight, direction)| {
        for (weight, direction) in weight.chunks_mut(kernel).zip(direction.chunks(kernel)) {
            weight.copy_from_slice(direction);
            kernels::multiply(weight, &scale);
        }
    });
    from_vec(weight, shape)
}

/// With `s` the length over the norm `n` and `p` the sum of gradient times direction at a position: the direction's
/// gradient is `s (gradient - direction p / n^2)`, the length's `p / n`.
#[expect(clippy::cast_possible_truncation, reason = "sums in f64, gradients in f32")]
pub fn backward(
    direction: Tensor<Flex, 3>,
    length: Tensor<Flex, 3>,
    gradient: Tensor<Flex, 3>,
) -> WeightNormGradients<Flex> {
    let [_, _, kernel] = direction.dims();
    let (direction, length, mut gradient) = (contiguous(direction), contiguous(length), writable(gradient));
    let direction = direction.storage::<f32>();
    let squares = product_sums(direction, direction, kernel);
    let products = product_sums(direction, gradient.storage(), kernel);
    let scale: Vec<f32> =
        length.storage::<f32>().iter().zip(&squares).map(|(length, sum)| scale(*length, *sum)).collect();
    let slope: Vec<f32> = scale
        .iter()
        .zip(products.iter().zip(&squares))
        .map(|(scale, (product, square))| (-f64::from(*scale) * product / square) as f32)
        .collect();
    let length_gradient: Vec<f32> =
        products.iter().zip(&squares).map(|(product, square)| (product / square.sqrt()) as f32).collect();
    let rows = gradient.storage_mut::<f32>().par_chunks_mut(ROWS * kernel).zip(direction.par_chunks(ROWS * kernel));
    rows.for_each(|(gradient, direction)| {
        for (gradient, direction) in gradient.chunks_mut(kernel).zip(direction.chunks(kernel)) {
            kernels::combine(gradient, &scale, direction, &slope);
        }
    });
    WeightNormGradients { direction: to_tensor(gradient), length: from_vec(length_gradient, [1, 1, kernel]) }
}

#[expect(clippy::cast_possible_truncation, reason = "sums in f64, weights in f32")]
fn scale(length: f32, squares: f64) -> f32 {
    (f64::from(length) / squares.sqrt()) as f32
}

/// Over all rows, the sum of the products of two tensors at each position: in f32 within a piece, in f64 over the pieces in
/// their order.
fn product_sums(first: &[f32], second: &[f32], kernel: usize) -> Vec<f64> {
    let sum = |(first, second): (&[f32], &[f32])| {
        let mut sum = vec![0.0; kernel];
        for (first, second) in first.chunks(kernel).zip(second.chunks(kernel)) {
            kernels::add_product(first, second, &mut sum);
        }
        sum
    };
    total(first.par_chunks(ROWS * kernel).zip(second.par_chunks(ROWS * kernel)).map(sum).collect(), kernel)
}

fn total(parts: Vec<Vec<f32>>, kernel: usize) -> Vec<f64> {
    let mut sums = vec![0.0; kernel];
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(part));
    }
    sums
}
