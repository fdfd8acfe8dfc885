//! An affine map: one matrix product into an output that already holds the bias.

use burn::{backend::Flex, tensor::Tensor};
use rayon::prelude::*;

use super::{Base, LinearGradients, Matrix, Target, contiguous, from_vec, kernels, multiply, to_be_written};

/// Rows that one task copies or sums.
const ROWS: usize = 64;

pub fn forward(x: Tensor<Flex, 2>, weight: Tensor<Flex, 2>, bias: Option<Tensor<Flex, 1>>) -> Tensor<Flex, 2> {
    let [rows, input] = x.dims();
    let [output, _] = weight.dims();
    let (x, weight, bias) = (contiguous(x), contiguous(weight), bias.map(contiguous));
    let mut y = to_be_written(rows * output);
    let base = bias.as_ref().map_or(Base::Zero, |bias| Base::Row(bias.storage()));
    let left = Matrix::new(x.storage(), input, 1);
    let right = Matrix::new(weight.storage(), input, 1).transposed();
    // SAFETY: x is [rows, input], the weight [output, input], the bias [output], y [rows, output].
    unsafe { multiply((rows, input, output), Target::new(&mut y, output), base, left, right, true) };
    from_vec(y, [rows, output])
}

pub fn backward(
    x: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
    gradient: Tensor<Flex, 2>,
    [needs_x, needs_weight, needs_bias]: [bool; 3],
) -> LinearGradients<Flex> {
    let [rows, input] = x.dims();
    let [output, _] = weight.dims();
    let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
    let gradient = gradient.storage::<f32>();
    let from_above = Matrix::new(gradient, output, 1);
    let x_gradient = needs_x.then(|| {
        let mut values = to_be_written(rows * input);
        let right = Matrix::new(weight.storage(), input, 1);
        // SAFETY: [rows, output] times [output, input] into [rows, input].
        unsafe {
            multiply((rows, output, input), Target::new(&mut values, input), Base::Zero, from_above, right, true);
        }
        from_vec(values, [rows, input])
    });
    let weight_gradient = needs_weight.then(|| {
        let mut values = to_be_written(output * input);
        let right = Matrix::new(x.storage(), input, 1);
        let left = from_above.transposed();
        // SAFETY: [output, rows] times [rows, input] into [output, input].
        unsafe { multiply((output, rows, input), Target::new(&mut values, input), Base::Zero, left, right, true) };
        from_vec(values, [output, input])
    });
    let bias_gradient = needs_bias.then(|| from_vec(column_sums(gradient, output), [output]));
    LinearGradients { x: x_gradient, weight: weight_gradient, bias: bias_gradient }
}

/// The sum over the rows of a matrix of `columns` columns.
pub fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = values
        .par_chunks(ROWS * columns)
        .map(|rows| {
            let mut sum = vec![0.0; columns];
            rows.chunks(columns).for_each(|row| kernels::add(row, &mut sum));
            sum
        })
        .collect();
    let mut sum = vec![0.0; columns];
    for part in &parts {
        kernels::add(part, &mut sum);
    }
    sum
}
