//! Layer normalisation: a plane for each row.

use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    contiguous, empty_like,
    kernels::{UNITS, cubes, cubes_of_rows, number, planes, row_of_plane, units},
    new_empty_f32,
    sums::{COLUMNS, column_sums, rows_at_once, shares, sum_of_column},
};

/// Mean and inverse deviation of a row.
#[cube]
fn statistics(x: &Array<f32>, start: u32, width: u32, epsilon: f32) -> (f32, f32) {
    let count = f32::cast_from(width);
    let mut sum = 0.0f32;
    for column in range_stepped(UNIT_POS_X, width, CUBE_DIM_X) {
        sum += x[(start + column) as usize];
    }
    let mean = plane_sum(sum) / count;
    let mut squares = 0.0f32;
    for column in range_stepped(UNIT_POS_X, width, CUBE_DIM_X) {
        let centred = x[(start + column) as usize] - mean;
        squares += centred * centred;
    }
    let variance = plane_sum(squares) / count;
    (mean, 1.0 / f32::sqrt(variance + epsilon))
}

#[cube(launch_unchecked)]
fn layer_norm_kernel(
    x: &Array<f32>,
    weight: &Array<f32>,
    bias: &Array<f32>,
    y: &mut Array<f32>,
    rows: u32,
    width: u32,
    epsilon: f32,
) {
    let row = row_of_plane();
    if row < rows {
        let start = row * width;
        let (mean, inverse) = statistics(x, start, width, epsilon);
        for column in range_stepped(UNIT_POS_X, width, CUBE_DIM_X) {
            let normal = (x[(start + column) as usize] - mean) * inverse;
            y[(start + column) as usize] = normal * weight[column as usize] + bias[column as usize];
        }
    }
}

/// See [`crate::Ops::layer_norm`].
pub fn layer_norm<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    bias: CubeTensor<R>,
    epsilon: f32,
) -> CubeTensor<R> {
    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let [rows, width] = [x.meta.shape()[0], x.meta.shape()[1]];
    let (y, planes) = (empty_like(&x), planes(&x.client));
    // SAFETY: both matrices have this many rows, and weight and bias one.
    unsafe {
        layer_norm_kernel::launch_unchecked::<R>(
            &y.client,
            cubes_of_rows(rows, planes),
            planes,
            x.into_array_arg(),
            weight.into_array_arg(),
            bias.into_array_arg(),
            y.clone().into_array_arg(),
            number(rows),
            number(width),
            epsilon,
        );
    }
    y
}

#[cube(launch_unchecked)]
fn x_gradient_kernel(
    x: &Array<f32>,
    weight: &Array<f32>,
    gradient: &Array<f32>,
    y: &mut Array<f32>,
    statistics_of_rows: &mut Array<f32>,
    rows: u32,
    width: u32,
    epsilon: f32,
) {
    let row = row_of_plane();
    if row < rows {
        let start = row * width;
        let (mean, inverse) = statistics(x, start, width, epsilon);
        if UNIT_POS_X == 0 {
            statistics_of_rows[(row * 2) as usize] = mean;
            statistics_of_rows[(row * 2 + 1) as usize] = inverse;
        }
        let mut sum = 0.0f32;
        let mut products = 0.0f32;
        for column in range_stepped(UNIT_POS_X, width, CUBE_DIM_X) {
            let scaled = gradient[(start + column) as usize] * weight[column as usize];
            sum += scaled;
            products += scaled * (x[(start + column) as usize] - mean) * inverse;
        }
        let sum = plane_sum(sum) / f32::cast_from(width);
        let products = plane_sum(products) / f32::cast_from(width);
        for column in range_stepped(UNIT_POS_X, width, CUBE_DIM_X) {
            let scaled = gradient[(start + column) as usize] * weight[column as usize];
            let normal = (x[(start + column) as usize] - mean) * inverse;
            y[(start + column) as usize] = inverse * (scaled - sum - normal * products);
        }
    }
}

#[cube(launch_unchecked)]
fn parameter_gradients_kernel(
    x: &Array<f32>,
    statistics_of_rows: &Array<f32>,
    gradient: &Array<f32>,
    weight: &mut Array<f32>,
    bias: &mut Array<f32>,
    rows: u32,
    width: u32,
    blocks: u32,
    at_once: u32,
) {
    let cube = CUBE_POS as u32;
    let (column, part) = (cube % blocks * COLUMNS + UNIT_POS % COLUMNS, cube / blocks);
    let end = min(rows, (part + 1) * at_once);
    let mut weight_sum = 0.0f32;
    let mut bias_sum = 0.0f32;
    if column < width {
        for row in range_stepped(part * at_once + UNIT_POS / COLUMNS, end, UNITS / COLUMNS) {
            let place = (row * width + column) as usize;
            let mean = statistics_of_rows[(row * 2) as usize];
            let inverse = statistics_of_rows[(row * 2 + 1) as usize];
            weight_sum += gradient[place] * (x[place] - mean) * inverse;
            bias_sum += gradient[place];
        }
    }
    let weight_sum = sum_of_column(weight_sum);
    let bias_sum = sum_of_column(bias_sum);
    if UNIT_POS < COLUMNS && column < width && part * at_once < rows {
        weight[(part * width + column) as usize] = weight_sum;
        bias[(part * width + column) as usize] = bias_sum;
    }
}

/// See [`crate::TrainOps::layer_norm_backward`]: the gradients of x, weight and bias.
pub fn layer_norm_backward<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    epsilon: f32,
    gradient: CubeTensor<R>,
) -> [CubeTensor<R>; 3] {
    let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
    let [rows, width] = [x.meta.shape()[0], x.meta.shape()[1]];
    let (y, planes) = (empty_like(&x), planes(&x.client));
    let statistics = new_empty_f32(&x, [rows, 2]);
    let (blocks, parts) = shares(rows, width);
    let [weights, biases] =
        [(); 2].map(|()| if parts == 1 { new_empty_f32(&x, [width]) } else { new_empty_f32(&x, [parts, width]) });
    // SAFETY: all matrices have this many rows; there are two statistics for each, and room for a row of each part.
    unsafe {
        x_gradient_kernel::launch_unchecked::<R>(
            &y.client,
            cubes_of_rows(rows, planes),
            planes,
            x.clone().into_array_arg(),
            weight.into_array_arg(),
            gradient.clone().into_array_arg(),
            y.clone().into_array_arg(),
            statistics.clone().into_array_arg(),
            number(rows),
            number(width),
            epsilon,
        );
        parameter_gradients_kernel::launch_unchecked::<R>(
            &y.client,
            cubes(blocks * parts),
            units(),
            x.into_array_arg(),
            statistics.into_array_arg(),
            gradient.into_array_arg(),
            weights.clone().into_array_arg(),
            biases.clone().into_array_arg(),
            number(rows),
            number(width),
            number(blocks),
            rows_at_once(),
        );
    }
    let [weight, bias] = [weights, biases].map(|sums| if parts == 1 { sums } else { column_sums(sums) });
    [y, weight, bias]
}
