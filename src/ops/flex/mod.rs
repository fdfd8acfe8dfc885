//! The fast forms on the CPU backend: one pass over memory instead of many, all cores, and no gradient graph of small
//! operations. Sums are cut into pieces that do not depend on the number of threads, so that results do not either.

mod attention;
mod convolution;
mod kernels;
mod linear;
mod norm;
mod positional;

use burn::{
    backend::{
        Flex,
        flex::{FlexTensor, Layout},
    },
    tensor::{Bytes, DType, Shape, Tensor, TensorPrimitive, bf16},
};
use rayon::prelude::*;

use super::{
    AdamState, AdamStep, AttentionShape, ConvolutionGradients, Dropout, LinearGradients, NormGradients, Ops,
    plain::AdamConstants,
};

/// Elements that one task of a parallel element-wise loop handles.
const CHUNK: usize = 1 << 14;

impl Ops for Flex {
    const HAS_FAST_FORMS: bool = true;
    const HAS_BF16: bool = false;

    fn linear(x: Tensor<Self, 2>, weight: Tensor<Self, 2>, bias: Option<Tensor<Self, 1>>) -> Tensor<Self, 2> {
        linear::forward(x, weight, bias)
    }

    fn linear_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        gradient: Tensor<Self, 2>,
        needed: [bool; 3],
    ) -> LinearGradients<Self> {
        linear::backward(x, weight, gradient, needed)
    }

    fn gelu<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        let shape = x.dims();
        let x = contiguous(x);
        let x = x.storage::<f32>();
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| kernels::gelu(x, y));
        from_vec(y, shape)
    }

    fn gelu_backward<const D: usize>(x: Tensor<Self, D>, gradient: Tensor<Self, D>) -> Tensor<Self, D> {
        let shape = x.dims();
        let (x, gradient) = (contiguous(x), contiguous(gradient));
        let (x, gradient) = (x.storage::<f32>(), gradient.storage::<f32>());
        let mut y = vec![0.0; x.len()];
        let inputs = x.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK));
        y.par_chunks_mut(CHUNK).zip(inputs).for_each(|(y, (x, gradient))| kernels::gelu_backward(x, gradient, y));
        from_vec(y, shape)
    }

    fn layer_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, bias: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        norm::layer_norm(x, weight, bias, epsilon)
    }

    fn layer_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        epsilon: f64,
        gradient: Tensor<Self, 2>,
    ) -> NormGradients<Self, 2> {
        norm::layer_norm_backward(x, weight, epsilon, gradient)
    }

    fn masked_group_norm(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        lengths: &super::Lengths,
        epsilon: f64,
    ) -> Tensor<Self, 3> {
        norm::masked_group_norm(x, weight, bias, lengths, epsilon)
    }

    fn masked_group_norm_backward(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 1>,
        lengths: &super::Lengths,
        epsilon: f64,
        gradient: Tensor<Self, 3>,
    ) -> NormGradients<Self, 3> {
        norm::masked_group_norm_backward(x, weight, lengths, epsilon, gradient)
    }

    fn convolution(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        bias: Option<Tensor<Self, 1>>,
        stride: usize,
    ) -> Tensor<Self, 3> {
        convolution::forward(x, weight, bias, stride)
    }

    fn convolution_backward(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        stride: usize,
        gradient: Tensor<Self, 3>,
        needed: [bool; 3],
    ) -> ConvolutionGradients<Self> {
        convolution::backward(x, weight, stride, gradient, needed)
    }

    fn positional_convolution(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        bias: Tensor<Self, 1>,
        groups: usize,
    ) -> Tensor<Self, 3> {
        positional::forward(x, weight, bias, groups)
    }

    fn positional_convolution_backward(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        groups: usize,
        gradient: Tensor<Self, 3>,
        needed: [bool; 3],
    ) -> ConvolutionGradients<Self> {
        positional::backward(x, weight, groups, gradient, needed)
    }

    fn attention(
        query: Tensor<Self, 2>,
        key: Tensor<Self, 2>,
        value: Tensor<Self, 2>,
        shape: AttentionShape<'_>,
        dropout: Option<Dropout>,
    ) -> Tensor<Self, 2> {
        attention::forward(query, key, value, shape, dropout)
    }

    fn attention_backward(
        inputs: [Tensor<Self, 2>; 3],
        shape: AttentionShape<'_>,
        dropout: Option<Dropout>,
        gradient: Tensor<Self, 2>,
    ) -> [Tensor<Self, 2>; 3] {
        attention::backward(inputs, shape, dropout, gradient)
    }

    fn dropout_mask<const D: usize>(shape: [usize; D], dropout: Dropout, _: &Self::Device) -> Tensor<Self, D> {
        let mut mask = vec![0.0_f32; shape.iter().product()];
        mask.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, mask)| fill_mask(mask, chunk * CHUNK, dropout));
        from_vec(mask, shape)
    }

    fn round_to_bf16<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        // Not the backend's own casts: they go through f64 on one core, and their ties miss the last three bits.
        let shape = x.dims();
        let x = contiguous(x);
        let x = x.storage::<f32>();
        let mut y = vec![0.0; x.len()];
        let round =
            |(y, x): (&mut [f32], &[f32])| y.iter_mut().zip(x).for_each(|(y, &x)| *y = bf16::from_f32(x).into());
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(round);
        from_vec(y, shape)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a norm in f32, summed in f64")]
    fn squared_norm<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, 1> {
        let x = contiguous(x);
        let square = |values: &[f32]| values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>();
        // Collected in order before they are added: the same bits for any number of threads.
        let sums: Vec<f64> = x.storage::<f32>().par_chunks(CHUNK).map(square).collect();
        from_vec(vec![sums.iter().sum::<f64>() as f32], [1])
    }

    fn adam<const D: usize>(
        state: AdamState<Self, D>,
        gradient: Tensor<Self, D>,
        step: &AdamStep,
    ) -> AdamState<Self, D> {
        let mut weight = contiguous(state.weight);
        let mut first = contiguous(state.first);
        let mut second = contiguous(state.second);
        let gradient = contiguous(gradient);
        weight
            .storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(first.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(second.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(gradient.storage::<f32>().par_chunks(CHUNK))
            .for_each(|(((weight, first), second), gradient)| adam_chunk(weight, first, second, gradient, step));
        AdamState { weight: to_tensor(weight), first: to_tensor(first), second: to_tensor(second) }
    }
}

/// The primitive of a tensor, contiguous from the start of its storage, alone in it.
fn contiguous<const D: usize>(x: Tensor<Flex, D>) -> FlexTensor {
    let primitive = x.into_primitive().tensor();
    let elements: usize = primitive.layout().shape().iter().product();
    if primitive.is_contiguous() && primitive.storage::<f32>().len() == elements {
        primitive
    } else {
        primitive.to_contiguous()
    }
}

fn to_tensor<const D: usize>(primitive: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn from_vec<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    let layout = Layout::contiguous(Shape::from(shape));
    to_tensor(FlexTensor::new(Bytes::from_elems(values), layout, DType::F32))
}

/// Fills the part of a mask that starts at element `start`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the threshold is a probability times 2^32; positions count modulo 2^32"
)]
fn fill_mask(mask: &mut [f32], start: usize, dropout: Dropout) {
    let threshold = (dropout.probability * 4_294_967_296.0) as u32;
    let kept = (1.0 / (1.0 - dropout.probability)) as f32;
    let key = (dropout.key as u32, (dropout.key >> 32) as u32);
    kernels::dropout_mask(mask, start as u32, key, threshold, kept);
}

/// A matrix in memory: where it begins, and how far its next row and next column are.
#[derive(Clone, Copy)]
struct Matrix {
    start: *const f32,
    row: usize,
    column: usize,
}

// SAFETY: it is a place in memory that outlives the parallel loop that uses it, and is only read.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// `slice` from an element on, with the distance of its rows and columns.
    fn new(slice: &[f32], row: usize, column: usize) -> Self {
        Self { start: slice.as_ptr(), row, column }
    }

    fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }
}

/// A place that is written; tasks of a parallel loop write different parts of it.
#[derive(Clone, Copy)]
struct Target {
    start: *mut f32,
    row: usize,
}

// SAFETY: every task writes elements that no other task touches.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    fn new(slice: &mut [f32], row: usize) -> Self {
        Self { start: slice.as_mut_ptr(), row }
    }

    /// The place `elements` further on.
    ///
    /// # Safety
    /// It must lie within the slice.
    unsafe fn at(self, elements: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { start: unsafe { self.start.add(elements) }, ..self }
    }
}

/// `target = left right`, or `target += left right`, of [rows, inner] and [inner, columns].
///
/// # Safety
/// All three must lie within their slices for these sizes, and nobody else may touch the target.
#[expect(clippy::cast_possible_wrap, reason = "strides are far below the limit")]
unsafe fn multiply(
    size: (usize, usize, usize),
    target: Target,
    is_added: bool,
    left: Matrix,
    right: Matrix,
    is_parallel: bool,
) {
    let (rows, inner, columns) = size;
    let parallelism = if is_parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            target.start,
            1,
            target.row as isize,
            is_added,
            left.start,
            left.column as isize,
            left.row as isize,
            right.start,
            right.column as isize,
            right.row as isize,
            1.0_f32,
            1.0_f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the update is computed in f32, as in PyTorch")]
fn adam_chunk(weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], step: &AdamStep) {
    let constants = AdamConstants::new(step);
    let (beta1, beta2, epsilon) = (step.beta1 as f32, step.beta2 as f32, step.epsilon as f32);
    let (rest1, rest2) = ((1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32);
    let (rate, correction) = (constants.rate as f32, 1.0 / constants.second_correction as f32);
    let scale = step.gradient_scale as f32;
    let decay = if step.decoupled { 0.0 } else { step.weight_decay as f32 };
    let shrink = if step.decoupled { constants.shrink as f32 } else { 1.0 };
    let moments = first.iter_mut().zip(second.iter_mut());
    for ((weight, (first, second)), gradient) in weight.iter_mut().zip(moments).zip(gradient) {
        let decayed = *weight * shrink;
        let gradient = gradient * scale + decay * *weight;
        *first = *first * beta1 + rest1 * gradient;
        *second = *second * beta2 + rest2 * gradient * gradient;
        *weight = decayed - rate * *first / (second.sqrt() * correction + epsilon);
    }
}
