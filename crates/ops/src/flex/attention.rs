//! Attention for each example and head alone: the scores of a head fit a core's cache, and inputs and outputs stay in
//! their rows. The backward computes the weights again instead of keeping them.

use burn::{backend::Flex, tensor::Tensor};
use rayon::prelude::*;

use super::{
    AttentionShape, Base, Dropout, Matrix, Target, contiguous, fill_mask, from_vec, kernels, multiply, to_be_written,
};

/// Where the parts of one head lie.
#[derive(Clone, Copy)]
struct Head {
    /// First element in a [batch * time, width] tensor.
    start: usize,
    /// Valid positions.
    valid: usize,
    /// First element of the head's weights in [batch, heads, time, time].
    weights: usize,
}

#[derive(Clone, Copy)]
struct Size {
    time: usize,
    width: usize,
    head_width: usize,
    scale: f32,
}

#[expect(clippy::cast_precision_loss, reason = "head widths are small")]
fn layout(width: usize, shape: AttentionShape<'_>) -> (Size, Vec<Head>) {
    let time = shape.lengths.longest();
    let head_width = width / shape.heads;
    let size = Size { time, width, head_width, scale: 1.0 / (head_width as f32).sqrt() };
    let mut heads = Vec::with_capacity(shape.lengths.batch() * shape.heads);
    for (example, &valid) in shape.lengths.valid().iter().enumerate() {
        for head in 0..shape.heads {
            heads.push(Head {
                start: example * time * width + head * head_width,
                valid,
                weights: (example * shape.heads + head) * time * time,
            });
        }
    }
    (size, heads)
}

/// The softmax of the scores of the valid positions, [valid, valid].
fn weights(query: &[f32], key: &[f32], head: Head, size: Size) -> Vec<f32> {
    let mut scores = to_be_written(head.valid * head.valid);
    let left = Matrix::new(&query[head.start..], size.width, 1);
    let right = Matrix::new(&key[head.start..], size.width, 1).transposed();
    let shape = (head.valid, size.head_width, head.valid);
    // SAFETY: the head's columns of its example's valid rows lie within the tensors.
    unsafe { multiply(shape, Target::new(&mut scores, head.valid), Base::Zero, left, right, false) };
    for row in scores.chunks_mut(head.valid) {
        kernels::softmax(row, size.scale);
    }
    scores
}

/// The dropout mask of the valid positions, as [`super::super::Ops::dropout_mask`] has it.
fn mask(head: Head, size: Size, dropout: Dropout) -> Vec<f32> {
    let mut mask = to_be_written(head.valid * head.valid);
    for (row, mask) in mask.chunks_mut(head.valid).enumerate() {
        fill_mask(mask, head.weights + row * size.time, dropout);
    }
    mask
}

/// For a result whose valid rows are all written: the others are zeros.
fn room(count: usize, shape: AttentionShape<'_>) -> Vec<f32> {
    if shape.lengths.is_full() { to_be_written(count) } else { vec![0.0; count] }
}

pub fn forward(
    query: Tensor<Flex, 2>,
    key: Tensor<Flex, 2>,
    value: Tensor<Flex, 2>,
    shape: AttentionShape<'_>,
    dropout: Option<Dropout>,
) -> Tensor<Flex, 2> {
    let [rows, width] = query.dims();
    let (query, key, value) = (contiguous(query), contiguous(key), contiguous(value));
    let (query, key, value) = (query.storage::<f32>(), key.storage::<f32>(), value.storage::<f32>());
    let (size, heads) = layout(width, shape);
    let mut output = room(rows * width, shape);
    let target = Target::new(&mut output, width);
    heads.into_par_iter().filter(|head| head.valid > 0).for_each(|head| {
        let mut weights = weights(query, key, head, size);
        if let Some(dropout) = dropout {
            kernels::multiply(&mut weights, &mask(head, size, dropout));
        }
        let left = Matrix::new(&weights, head.valid, 1);
        let right = Matrix::new(&value[head.start..], width, 1);
        // SAFETY: each head writes its own columns of its example's valid rows.
        unsafe {
            let target = target.at(head.start);
            multiply((head.valid, head.valid, size.head_width), target, Base::Zero, left, right, false);
        }
    });
    from_vec(output, [rows, width])
}

pub fn backward(
    [query, key, value]: [Tensor<Flex, 2>; 3],
    shape: AttentionShape<'_>,
    dropout: Option<Dropout>,
    gradient: Tensor<Flex, 2>,
) -> [Tensor<Flex, 2>; 3] {
    let [rows, width] = query.dims();
    let (query, key, value, gradient) = (contiguous(query), contiguous(key), contiguous(value), contiguous(gradient));
    let (query, key, value) = (query.storage::<f32>(), key.storage::<f32>(), value.storage::<f32>());
    let gradient = gradient.storage::<f32>();
    let (size, heads) = layout(width, shape);
    let [mut query_gradient, mut key_gradient, mut value_gradient] = [(); 3].map(|()| room(rows * width, shape));
    let targets = [&mut query_gradient, &mut key_gradient, &mut value_gradient].map(|slice| Target::new(slice, width));
    heads.into_par_iter().filter(|head| head.valid > 0).for_each(|head| {
        let rows_of = |slice: &[f32]| Matrix::new(&slice[head.start..], width, 1);
        let valid = head.valid;
        let weights = weights(query, key, head, size);
        let mask = dropout.map(|dropout| mask(head, size, dropout));
        let mut dropped = weights.clone();
        if let Some(mask) = &mask {
            kernels::multiply(&mut dropped, mask);
        }
        let mut scores = to_be_written(valid * valid);
        // SAFETY: all matrices are the head's columns of its example's valid rows, or [valid, valid]; each head
        // writes its own.
        unsafe {
            let [_, _, value_target] = targets.map(|target| target.at(head.start));
            let left = Matrix::new(&dropped, valid, 1).transposed();
            multiply((valid, valid, size.head_width), value_target, Base::Zero, left, rows_of(gradient), false);
            let right = rows_of(value).transposed();
            let target = Target::new(&mut scores, valid);
            multiply((valid, size.head_width, valid), target, Base::Zero, rows_of(gradient), right, false);
        }
        if let Some(mask) = &mask {
            kernels::multiply(&mut scores, mask);
        }
        for (weights, scores) in weights.chunks(valid).zip(scores.chunks_mut(valid)) {
            let shift = kernels::dot(weights, scores);
            kernels::softmax_backward(weights, shift, size.scale, scores);
        }
        let scores = Matrix::new(&scores, valid, 1);
        // SAFETY: as above.
        unsafe {
            let [query_target, key_target, _] = targets.map(|target| target.at(head.start));
            multiply((valid, valid, size.head_width), query_target, Base::Zero, scores, rows_of(key), false);
            multiply(
                (valid, valid, size.head_width),
                key_target,
                Base::Zero,
                scores.transposed(),
                rows_of(query),
                false,
            );
        }
    });
    [query_gradient, key_gradient, value_gradient].map(|values| from_vec(values, [rows, width]))
}
