//! Sums over the rows of a matrix and over all elements of many tensors.

use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    contiguous,
    kernels::{UNITS, cubes, number, sum_of_cube, units},
    new_empty_f32, zeros,
};

/// Columns that a cube adds up; its other units share the rows.
pub const COLUMNS: u32 = 32;
/// How often the units of a cube can be halved until each has a column of its own.
const HALVINGS: u32 = (UNITS / COLUMNS).ilog2();
/// Rows that a cube adds up.
const ROWS: usize = 1024;

/// What the units of a cube that have the same column add up to, for the first of them.
#[cube]
pub fn sum_of_column(value: f32) -> f32 {
    let mut sums = SharedMemory::<f32>::new(UNITS as usize);
    sums[UNIT_POS as usize] = value;
    sync_cube();
    #[unroll]
    for step in 0..HALVINGS {
        let half = comptime![UNITS >> (step + 1)];
        if UNIT_POS < half {
            let other = sums[(UNIT_POS + half) as usize];
            sums[UNIT_POS as usize] += other;
        }
        sync_cube();
    }
    let sum = sums[(UNIT_POS % COLUMNS) as usize];
    sync_cube();
    sum
}

#[cube(launch_unchecked)]
fn column_sums_kernel(x: &Array<f32>, y: &mut Array<f32>, rows: u32, width: u32, blocks: u32, at_once: u32) {
    let cube = CUBE_POS as u32;
    let (column, part) = (cube % blocks * COLUMNS + UNIT_POS % COLUMNS, cube / blocks);
    let end = min(rows, (part + 1) * at_once);
    let mut sum = 0.0f32;
    if column < width {
        for row in range_stepped(part * at_once + UNIT_POS / COLUMNS, end, UNITS / COLUMNS) {
            sum += x[(row * width + column) as usize];
        }
    }
    let sum = sum_of_column(sum);
    if UNIT_POS < COLUMNS && column < width && part * at_once < rows {
        y[(part * width + column) as usize] = sum;
    }
}

/// How the rows of a matrix are shared: blocks of columns, parts of rows.
pub fn shares(rows: usize, width: usize) -> (usize, usize) {
    (width.div_ceil(COLUMNS as usize), rows.div_ceil(ROWS).max(1))
}

/// Rows of a part.
pub fn rows_at_once() -> u32 {
    number(ROWS)
}

/// The sums of the columns of a matrix: [rows, width] -> [width].
pub fn column_sums<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let mut x = contiguous(x);
    loop {
        let [rows, width] = [x.meta.shape()[0], x.meta.shape()[1]];
        let (blocks, parts) = shares(rows, width);
        let y = if parts == 1 { new_empty_f32(&x, [width]) } else { new_empty_f32(&x, [parts, width]) };
        // SAFETY: there is room for a row of each part.
        unsafe {
            column_sums_kernel::launch_unchecked::<R>(
                &y.client,
                cubes(blocks * parts),
                units(),
                x.into_array_arg(),
                y.clone().into_array_arg(),
                number(rows),
                number(width),
                number(blocks),
                rows_at_once(),
            );
        }
        if parts == 1 {
            return y;
        }
        x = y;
    }
}

/// The most cubes that share a tensor.
const SHARES: usize = 256;
/// Elements of each unit, where there are not more.
const ELEMENTS: usize = 8;

#[cube(launch_unchecked)]
fn squares_kernel(x: &Array<f32>, parts: &mut Array<f32>, elements: u32, start: u32, cubes: u32) {
    let cube = CUBE_POS as u32;
    let mut sum = 0.0f32;
    for position in range_stepped(cube * UNITS + UNIT_POS, elements, cubes * UNITS) {
        let value = x[position as usize];
        sum += value * value;
    }
    let sum = sum_of_cube(sum);
    if UNIT_POS == 0 && cube < cubes {
        parts[(start + cube) as usize] = sum;
    }
}

#[cube(launch_unchecked)]
fn row_sums_kernel(x: &Array<f32>, y: &mut Array<f32>, rows: u32, width: u32) {
    let row = CUBE_POS as u32;
    let mut sum = 0.0f32;
    if row < rows {
        for column in range_stepped(UNIT_POS, width, UNITS) {
            sum += x[(row * width + column) as usize];
        }
    }
    let sum = sum_of_cube(sum);
    if UNIT_POS == 0 && row < rows {
        y[row as usize] = sum;
    }
}

/// See [`crate::Ops::squared_norms`]; there is at least one tensor.
pub fn squared_norms<R: CubeRuntime>(tensors: Vec<CubeTensor<R>>) -> CubeTensor<R> {
    let count = tensors.len();
    // What is not written stays zero.
    let (parts, y) = (zeros(&tensors[0], count * SHARES), new_empty_f32(&tensors[0], [count]));
    for (place, tensor) in tensors.into_iter().enumerate() {
        let x = contiguous(tensor);
        let elements = x.meta.num_elements();
        let shares = elements.div_ceil(UNITS as usize * ELEMENTS).clamp(1, SHARES);
        // SAFETY: there is room for this many shares of each tensor.
        unsafe {
            squares_kernel::launch_unchecked::<R>(
                &y.client,
                cubes(shares),
                units(),
                x.into_array_arg(),
                parts.clone().into_array_arg(),
                number(elements),
                number(place * SHARES),
                number(shares),
            );
        }
    }
    // SAFETY: a row of parts and an element for each tensor.
    unsafe {
        row_sums_kernel::launch_unchecked::<R>(
            &y.client,
            cubes(count),
            units(),
            parts.into_array_arg(),
            y.clone().into_array_arg(),
            number(count),
            number(SHARES),
        );
    }
    y
}
