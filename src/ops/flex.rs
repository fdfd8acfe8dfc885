//! The fast forms on the CPU backend.

use burn::{
    backend::{
        Flex,
        flex::{FlexTensor, Layout},
    },
    tensor::{Bytes, DType, Shape, Tensor, TensorPrimitive},
};
use rayon::prelude::*;

use super::{AdamState, AdamStep, Dropout, Ops, plain::AdamConstants};

/// Elements that one task of a parallel element-wise loop handles.
const CHUNK: usize = 1 << 15;

impl Ops for Flex {
    fn dropout_mask<const D: usize>(shape: [usize; D], dropout: Dropout, _: &Self::Device) -> Tensor<Self, D> {
        let mut mask = vec![0.0_f32; shape.iter().product()];
        mask.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, mask)| fill_mask(mask, chunk * CHUNK, dropout));
        from_vec(mask, shape)
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
    reason = "the threshold is a probability times 2^32; the hash takes the position modulo 2^32"
)]
fn fill_mask(mask: &mut [f32], start: usize, dropout: Dropout) {
    let threshold = (dropout.probability * 4_294_967_296.0) as u32;
    let kept = (1.0 / (1.0 - dropout.probability)) as f32;
    let (low, high) = (dropout.key as u32, (dropout.key >> 32) as u32);
    for (position, mask) in mask.iter_mut().enumerate() {
        let bits = hash((start + position) as u32, low, high);
        *mask = if bits >= threshold { kept } else { 0.0 };
    }
}

/// A counter-based generator: the bits of one element. The mixing steps are those of a 32-bit finaliser with good
/// avalanche (C. Wellons, "Prospecting for hash functions", 2018).
fn hash(position: u32, low: u32, high: u32) -> u32 {
    let mut bits = (position ^ low).wrapping_mul(0x9E37_79B9) ^ high;
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(0x21F0_AAAD);
    bits ^= bits >> 15;
    bits = bits.wrapping_mul(0x735A_2D97);
    bits ^ (bits >> 15)
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
