//! The fast forms on the CPU backend: one pass over memory instead of many, all cores, and no gradient graph of small
//! operations. Sums are cut into pieces that do not depend on the number of threads, so that results do not either.

mod attention;
mod convolution;
mod kernels;
mod linear;
mod norm;
mod positional;
mod product;
mod weight_norm;

use burn::{
    backend::{
        Flex,
        flex::{FlexTensor, Layout},
    },
    tensor::{Bytes, DType, Int, Shape, Tensor, TensorPrimitive, bf16},
};
use rayon::prelude::*;

use product::{Base, Matrix, Target, multiply};

use super::{
    AdamState, AdamStep, AttentionShape, ConvolutionGradients, Dropout, LinearGradients, NormGradients, Ops, TrainOps,
    WeightNormGradients, adam::AdamFactors,
};

/// Elements that one task of a parallel element-wise loop handles.
const CHUNK: usize = 1 << 14;

impl Ops for Flex {
    const HAS_BF16: bool = false;

    fn linear(x: Tensor<Self, 2>, weight: Tensor<Self, 2>, bias: Option<Tensor<Self, 1>>) -> Tensor<Self, 2> {
        linear::forward(x, weight, bias)
    }

    fn gelu<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        let shape = x.dims();
        let mut x = contiguous(x);
        if let Some(values) = x.try_storage_mut::<f32>() {
            values.par_chunks_mut(CHUNK).for_each(kernels::gelu_in_place);
            return to_tensor(x);
        }
        let x = x.storage::<f32>();
        let mut y = to_be_written(x.len());
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| kernels::gelu(x, y));
        from_vec(y, shape)
    }

    fn layer_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, bias: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        norm::layer_norm(x, weight, bias, epsilon)
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

    fn convolution(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        bias: Option<Tensor<Self, 1>>,
        stride: usize,
    ) -> Tensor<Self, 3> {
        convolution::forward(x, weight, bias, stride)
    }

    fn positional_convolution(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        bias: Tensor<Self, 1>,
        groups: usize,
    ) -> Tensor<Self, 3> {
        positional::forward(x, weight, bias, groups)
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

    fn weight_norm(direction: Tensor<Self, 3>, length: Tensor<Self, 3>) -> Tensor<Self, 3> {
        weight_norm::forward(direction, length)
    }

    fn dropped<const D: usize>(x: Tensor<Self, D>, dropout: Dropout) -> Tensor<Self, D> {
        let mut x = writable(x);
        x.storage_mut::<f32>().par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, x)| drop(x, chunk * CHUNK, dropout));
        to_tensor(x)
    }

    fn dropout_mask<const D: usize>(shape: [usize; D], dropout: Dropout, _: &Self::Device) -> Tensor<Self, D> {
        let mut mask = to_be_written(shape.iter().product());
        mask.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, mask)| fill_mask(mask, chunk * CHUNK, dropout));
        from_vec(mask, shape)
    }

    fn round_to_bf16<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        // Not the backend's own casts: they go through f64 on one core, and their ties miss the last three bits.
        let shape = x.dims();
        let x = contiguous(x);
        let x = x.storage::<f32>();
        let mut y = to_be_written(x.len());
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
        let factors = AdamFactors::new(step);
        weight
            .storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(first.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(second.storage_mut::<f32>().par_chunks_mut(CHUNK))
            .zip(gradient.storage::<f32>().par_chunks(CHUNK))
            .for_each(|(((weight, first), second), gradient)| kernels::adam(weight, first, second, gradient, &factors));
        AdamState { weight: to_tensor(weight), first: to_tensor(first), second: to_tensor(second) }
    }
}

impl TrainOps for Flex {
    fn linear_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        gradient: Tensor<Self, 2>,
        needed: [bool; 3],
    ) -> LinearGradients<Self> {
        linear::backward(x, weight, gradient, needed)
    }

    fn gelu_backward<const D: usize>(x: Tensor<Self, D>, gradient: Tensor<Self, D>) -> Tensor<Self, D> {
        let (x, mut gradient) = (contiguous(x), writable(gradient));
        let pieces = gradient.storage_mut::<f32>().par_chunks_mut(CHUNK).zip(x.storage::<f32>().par_chunks(CHUNK));
        pieces.for_each(|(gradient, x)| kernels::gelu_backward(x, gradient));
        to_tensor(gradient)
    }

    fn layer_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        epsilon: f64,
        gradient: Tensor<Self, 2>,
    ) -> NormGradients<Self, 2> {
        norm::layer_norm_backward(x, weight, epsilon, gradient)
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

    fn convolution_backward(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        stride: usize,
        gradient: Tensor<Self, 3>,
        needed: [bool; 3],
    ) -> ConvolutionGradients<Self> {
        convolution::backward(x, weight, stride, gradient, needed)
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

    fn attention_backward(
        inputs: [Tensor<Self, 2>; 3],
        shape: AttentionShape<'_>,
        dropout: Option<Dropout>,
        gradient: Tensor<Self, 2>,
    ) -> [Tensor<Self, 2>; 3] {
        attention::backward(inputs, shape, dropout, gradient)
    }

    fn weight_norm_backward(
        direction: Tensor<Self, 3>,
        length: Tensor<Self, 3>,
        gradient: Tensor<Self, 3>,
    ) -> WeightNormGradients<Self> {
        weight_norm::backward(direction, length, gradient)
    }

    fn rows_backward(entries: usize, indices: Tensor<Self, 1, Int>, gradient: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let [_, width] = gradient.dims();
        let gradient = contiguous(gradient);
        let mut table = to_be_written(entries * width);
        table.par_chunks_mut(CHUNK).for_each(|table| table.fill(0.0));
        let rows = gradient.storage::<f32>().chunks(width.max(1));
        for (index, row) in indices.into_data().iter::<u32>().zip(rows) {
            kernels::add(row, &mut table[index as usize * width..][..width]);
        }
        from_vec(table, [entries, width])
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

/// As [`contiguous`], and nobody else's: a copy where somebody holds the tensor too.
fn writable<const D: usize>(x: Tensor<Flex, D>) -> FlexTensor {
    let shape = x.dims();
    let mut x = contiguous(x);
    if x.try_storage_mut::<f32>().is_some() {
        return x;
    }
    let x = x.storage::<f32>();
    let mut copy = to_be_written(x.len());
    copy.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(copy, x)| copy.copy_from_slice(x));
    primitive_from_vec(copy, shape)
}

fn to_tensor<const D: usize>(primitive: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn from_vec<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    to_tensor(primitive_from_vec(values, shape))
}

fn primitive_from_vec<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape)), DType::F32)
}

/// Room for numbers, all of which are about to be written: clearing it would be one more pass over memory.
#[expect(clippy::uninit_vec, reason = "all bits are a number, and each is written before it is read")]
fn to_be_written(count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count);
    // SAFETY: there is room for as many.
    unsafe { values.set_len(count) };
    values
}

/// Fills the part of a mask that starts at element `start`.
fn fill_mask(mask: &mut [f32], start: usize, dropout: Dropout) {
    kernels::dropout_mask(mask, place(start), &dropout.constants());
}

/// Multiplies by the part of a mask that starts at element `start`.
fn drop(x: &mut [f32], start: usize, dropout: Dropout) {
    kernels::drop(x, place(start), &dropout.constants());
}

/// The number of an element of a mask.
#[expect(clippy::cast_possible_truncation, reason = "positions count modulo 2^32")]
fn place(start: usize) -> u32 {
    start as u32
}
