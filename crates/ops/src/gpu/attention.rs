//! Scaled dot-product attention: the products are Burn's, the softmax with its mask and its dropout is one kernel, and so is
//! the way of all heads into stacks of matrices and back.
#![expect(clippy::used_underscore_binding, reason = "by what the kernels' macro writes")]

use burn::tensor::DType;
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::{prelude::*, server::Handle};

use super::{
    contiguous,
    elementwise::kept,
    kernels::{cubes_of_elements, cubes_of_rows, number, planes, row_of_plane, units},
    new_empty,
    product::{product, transposed},
};
use crate::{AttentionShape, Dropout, Lengths, dropout::MaskConstants};

/// The sizes of an attention.
#[derive(Clone, Copy)]
struct Size {
    batch: usize,
    time: usize,
    heads: usize,
    head_width: usize,
}

impl Size {
    fn new(width: usize, shape: AttentionShape<'_>) -> Self {
        let (batch, time) = (shape.lengths.batch(), shape.lengths.longest());
        Self { batch, time, heads: shape.heads, head_width: width / shape.heads }
    }

    fn elements(self) -> usize {
        self.batch * self.time * self.heads * self.head_width
    }

    /// Of all heads' rows, one below the other.
    fn stacked(self) -> [usize; 3] {
        [self.batch * self.heads, self.time, self.head_width]
    }

    fn rows(self) -> [usize; 2] {
        [self.batch * self.time, self.heads * self.head_width]
    }

    fn scores(self) -> [usize; 3] {
        [self.batch * self.heads, self.time, self.time]
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "head widths are small")]
    fn scale(self) -> f32 {
        (1.0 / (self.head_width as f64).sqrt()) as f32
    }
}

#[cube(launch_unchecked)]
fn heads_kernel<Number: Float>(
    from: &Sequence<Array<Number>>,
    to: &mut Sequence<Array<Number>>,
    elements: u32,
    time: u32,
    heads: u32,
    head_width: u32,
    #[comptime] are_stacked: bool,
    #[define(Number)] _dtype: StorageType,
) {
    let position = ABSOLUTE_POS as u32;
    if position < elements {
        // The place of the element among all heads' rows, one head below the other.
        let column = position % head_width;
        let row = position / head_width;
        let moment = row % time;
        let stack = row / time;
        let beside = ((stack / heads * time + moment) * heads + stack % heads) * head_width + column;
        #[unroll]
        for tensor in 0..from.len() {
            let from = from.index(tensor);
            let to = to.index_mut(tensor);
            if comptime![are_stacked] {
                to[beside as usize] = from[position as usize];
            } else {
                to[position as usize] = from[beside as usize];
            }
        }
    }
}

fn arguments<R: CubeRuntime, Number: Float>(tensors: &[CubeTensor<R>]) -> SequenceArg<R, Array<Number>> {
    let mut arguments = SequenceArg::new();
    for tensor in tensors {
        arguments.push(tensor.clone().into_array_arg());
    }
    arguments
}

/// From heads side by side [batch * time, width] to stacks [batch * heads, time, head width], or back.
fn moved<R: CubeRuntime, const N: usize>(
    from: [CubeTensor<R>; N],
    size: Size,
    are_stacked: bool,
) -> [CubeTensor<R>; N] {
    let from = from.map(contiguous);
    let to = from.each_ref().map(|from| {
        if are_stacked { new_empty(from, size.rows(), from.dtype) } else { new_empty(from, size.stacked(), from.dtype) }
    });
    let (Some(first), elements) = (to.first(), size.elements()) else { return to };
    let cubes = cubes_of_elements(elements);
    let sizes = [elements, size.time, size.heads, size.head_width].map(number);
    // SAFETY: all of them have as many elements.
    unsafe {
        heads_kernel::launch_unchecked::<R>(
            &first.client,
            cubes,
            units(),
            arguments(&from),
            arguments(&to),
            sizes[0],
            sizes[1],
            sizes[2],
            sizes[3],
            are_stacked,
            first.dtype.into(),
        );
    }
    to
}

/// The largest score of a row and the sum of the exponentials beside it, over the valid keys.
#[cube]
fn softmax_of_row(scores: &Array<f32>, start: u32, valid: u32, scale: f32) -> (f32, f32) {
    let mut largest = f32::new(-1.0e30);
    for column in range_stepped(UNIT_POS_X, valid, CUBE_DIM_X) {
        largest = max(largest, scores[(start + column) as usize] * scale);
    }
    let largest = plane_max(largest);
    let mut sum = 0.0f32;
    for column in range_stepped(UNIT_POS_X, valid, CUBE_DIM_X) {
        sum += f32::exp(scores[(start + column) as usize] * scale - largest);
    }
    (largest, plane_sum(sum))
}

/// The constants of a mask, with which nothing is dropped where the threshold is 0.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Mask {
    low: u32,
    high: u32,
    threshold: u32,
    scale: f32,
}

fn mask<R: CubeRuntime>(dropout: Option<Dropout>) -> MaskLaunch<R> {
    let none = MaskConstants { low: 0, high: 0, threshold: 0, scale: 1.0 };
    let MaskConstants { low, high, threshold, scale } = dropout.map_or(none, Dropout::constants);
    MaskLaunch::new(low, high, threshold, scale)
}

#[cube(launch_unchecked)]
fn softmax_kernel<Number: Float>(
    scores: &Array<f32>,
    lengths: &Array<u32>,
    weights: &mut Array<Number>,
    rows: u32,
    rows_of_example: u32,
    time: u32,
    scale: f32,
    mask: &Mask,
    #[define(Number)] _dtype: StorageType,
) {
    let row = row_of_plane();
    if row < rows {
        let valid = lengths[(row / rows_of_example) as usize];
        let start = row * time;
        let (largest, sum) = softmax_of_row(scores, start, valid, scale);
        for column in range_stepped(UNIT_POS_X, time, CUBE_DIM_X) {
            let place = start + column;
            let mut weight = 0.0f32;
            if column < valid {
                weight = f32::exp(scores[place as usize] * scale - largest) / sum
                    * kept(place, mask.low, mask.high, mask.threshold, mask.scale);
            }
            weights[place as usize] = Number::cast_from(weight);
        }
    }
}

/// Of the scores and of the gradients of the dropped weights: the dropped weights, and the gradients of the scores.
#[cube(launch_unchecked)]
fn softmax_backward_kernel<Number: Float>(
    scores: &Array<f32>,
    gradient: &Array<f32>,
    lengths: &Array<u32>,
    weights: &mut Array<Number>,
    scores_gradient: &mut Array<Number>,
    rows: u32,
    rows_of_example: u32,
    time: u32,
    scale: f32,
    mask: &Mask,
    #[define(Number)] _dtype: StorageType,
) {
    let row = row_of_plane();
    if row < rows {
        let valid = lengths[(row / rows_of_example) as usize];
        let start = row * time;
        let (largest, sum) = softmax_of_row(scores, start, valid, scale);
        let mut shift = 0.0f32;
        for column in range_stepped(UNIT_POS_X, valid, CUBE_DIM_X) {
            let place = start + column;
            let weight = f32::exp(scores[place as usize] * scale - largest) / sum;
            let kept = kept(place, mask.low, mask.high, mask.threshold, mask.scale);
            shift += weight * kept * gradient[place as usize];
        }
        let shift = plane_sum(shift);
        for column in range_stepped(UNIT_POS_X, time, CUBE_DIM_X) {
            let place = start + column;
            let mut dropped = 0.0f32;
            let mut slope = 0.0f32;
            if column < valid {
                let weight = f32::exp(scores[place as usize] * scale - largest) / sum;
                let kept = kept(place, mask.low, mask.high, mask.threshold, mask.scale);
                dropped = weight * kept;
                slope = weight * (kept * gradient[place as usize] - shift) * scale;
            }
            weights[place as usize] = Number::cast_from(dropped);
            scores_gradient[place as usize] = Number::cast_from(slope);
        }
    }
}

/// The lengths on the device, sent there once for a batch.
fn lengths_on_device<R: CubeRuntime>(lengths: &Lengths, like: &CubeTensor<R>) -> ArrayArg<R> {
    let handle: Handle = lengths.kept(|valid| {
        let numbers: Vec<u32> = valid.iter().map(|&length| number(length)).collect();
        like.client.create_from_slice(u32::as_bytes(&numbers))
    });
    // SAFETY: it holds as many numbers.
    unsafe { ArrayArg::from_raw_parts(handle, lengths.batch()) }
}

/// What the queries have to do with the keys: stacks -> [batch * heads, time, time].
fn scores<R: CubeRuntime>(query: CubeTensor<R>, key: CubeTensor<R>, size: Size) -> CubeTensor<R> {
    product(query, transposed(key), size.scores(), DType::F32)
}

/// See [`crate::Ops::attention`].
pub fn forward<R: CubeRuntime>(
    inputs: [CubeTensor<R>; 3],
    shape: AttentionShape<'_>,
    dropout: Option<Dropout>,
) -> CubeTensor<R> {
    let size = Size::new(inputs[0].meta.shape()[1], shape);
    let [query, key, value] = moved(inputs, size, false);
    let (dtype, scores) = (value.dtype, scores(query, key, size));
    let weights = new_empty(&scores, size.scores(), dtype);
    let rows = size.batch * size.heads * size.time;
    let lengths = lengths_on_device(shape.lengths, &scores);
    let sizes = [rows, size.heads * size.time, size.time].map(number);
    let (client, planes) = (scores.client.clone(), planes(&scores.client));
    let (from, to, scale) = (scores.into_array_arg(), weights.clone().into_array_arg(), size.scale());
    // SAFETY: there are this many rows of both and a length for each example.
    unsafe {
        softmax_kernel::launch_unchecked::<R>(
            &client,
            cubes_of_rows(rows, planes),
            planes,
            from,
            lengths,
            to,
            sizes[0],
            sizes[1],
            sizes[2],
            scale,
            mask(dropout),
            dtype.into(),
        );
    }
    let [output] = moved([product(weights, value, size.stacked(), dtype)], size, true);
    output
}

/// See [`crate::TrainOps::attention_backward`].
pub fn backward<R: CubeRuntime>(
    [query, key, value]: [CubeTensor<R>; 3],
    shape: AttentionShape<'_>,
    dropout: Option<Dropout>,
    gradient: CubeTensor<R>,
) -> [CubeTensor<R>; 3] {
    let size = Size::new(query.meta.shape()[1], shape);
    let [query, key, value, gradient] = moved([query, key, value, gradient], size, false);
    let (dtype, scores) = (value.dtype, scores(query.clone(), key.clone(), size));
    let weights_gradient = product(gradient.clone(), transposed(value), size.scores(), DType::F32);
    let [weights, scores_gradient] = [(); 2].map(|()| new_empty(&scores, size.scores(), dtype));
    let rows = size.batch * size.heads * size.time;
    let lengths = lengths_on_device(shape.lengths, &scores);
    let sizes = [rows, size.heads * size.time, size.time].map(number);
    let (client, planes) = (scores.client.clone(), planes(&scores.client));
    let from = [scores, weights_gradient].map(CubeTensor::into_array_arg);
    let to = [weights.clone(), scores_gradient.clone()].map(CubeTensor::into_array_arg);
    let ([from, from_gradient], [to, to_gradient], scale) = (from, to, size.scale());
    // SAFETY: there are this many rows of all four and a length for each example.
    unsafe {
        softmax_backward_kernel::launch_unchecked::<R>(
            &client,
            cubes_of_rows(rows, planes),
            planes,
            from,
            from_gradient,
            lengths,
            to,
            to_gradient,
            sizes[0],
            sizes[1],
            sizes[2],
            scale,
            mask(dropout),
            dtype.into(),
        );
    }
    let gradients = [
        product(scores_gradient.clone(), key, size.stacked(), dtype),
        product(transposed(scores_gradient), query, size.stacked(), dtype),
        product(transposed(weights), gradient, size.stacked(), dtype),
    ];
    moved(gradients, size, true)
}
