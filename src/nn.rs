//! Parameter containers in `PyTorch`'s layouts, and how fresh parameters are drawn. They hold tensors and call
//! [`Ops`]; they know nothing of files.

use burn::{
    module::{Module, Param, ParamId},
    tensor::{Int, Tensor, TensorData, backend::Backend},
};
use rayon::prelude::*;

use crate::{
    choices::Precision,
    ops::{self, Ops},
    random::{Random, mix},
};

/// Draws fresh parameters: a function of its seed and the order of the calls. With no seed every parameter is zero, to
/// be filled from a file.
#[derive(Debug)]
pub struct Init<'a, B: Backend> {
    device: &'a B::Device,
    seed: Option<u64>,
    drawn: u64,
}

impl<'a, B: Backend> Init<'a, B> {
    /// Fresh parameters for a seed.
    pub fn fresh(seed: u64, device: &'a B::Device) -> Self {
        Self { device, seed: Some(seed), drawn: 0 }
    }

    /// Zeros, to be filled from a file.
    pub fn empty(device: &'a B::Device) -> Self {
        Self { device, seed: None, drawn: 0 }
    }

    pub fn device(&self) -> &B::Device {
        self.device
    }

    /// Normal with mean 0.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], deviation: f64) -> Param<Tensor<B, D>> {
        self.drawn_tensor(shape, move |random| deviation * random.normal())
    }

    /// Uniform in [low, high).
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], low: f64, high: f64) -> Param<Tensor<B, D>> {
        self.drawn_tensor(shape, move |random| random.range(low, high))
    }

    /// All elements the same.
    pub fn constant<const D: usize>(&mut self, shape: [usize; D], value: f64) -> Param<Tensor<B, D>> {
        Param::from_tensor(Tensor::full(shape, value, self.device))
    }

    /// These values.
    pub fn fixed<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<B, D>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    #[expect(clippy::cast_possible_truncation, reason = "parameters are single precision")]
    fn drawn_tensor<const D: usize>(
        &mut self,
        shape: [usize; D],
        draw: impl Fn(&mut Random) -> f64 + Sync,
    ) -> Param<Tensor<B, D>> {
        const CHUNK: usize = 1 << 14;
        self.drawn += 1;
        let Some(seed) = self.seed else {
            let device = self.device.clone();
            return Param::uninitialized(
                ParamId::new(),
                move |device, _| Tensor::zeros(shape, device).require_grad(),
                device,
                true,
                shape.into(),
            );
        };
        let seed = mix(seed, self.drawn);
        let mut values = vec![0.0_f32; shape.iter().product()];
        values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
            let mut random = Random::new(mix(seed, chunk as u64));
            for value in values {
                *value = draw(&mut random) as f32;
            }
        });
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }
}

/// An affine map: weight [out, in], bias [out], where it has one.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// [out, in]
    pub weight: Param<Tensor<B, 2>>,
    /// [out]
    pub bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> Linear<B> {
    /// Normal weights and no bias: the encoders' way (Hugging Face's `initializer_range`).
    pub fn normal(input: usize, output: usize, deviation: f64, init: &mut Init<'_, B>) -> Self {
        Self { weight: init.normal([output, input], deviation), bias: Some(init.constant([output], 0.0)) }
    }

    /// Uniform within one over the root of the inputs: `torch.nn.Linear`'s way.
    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    pub fn uniform(input: usize, output: usize, init: &mut Init<'_, B>) -> Self {
        let bound = 1.0 / (input as f64).sqrt();
        Self { weight: init.uniform([output, input], -bound, bound), bias: Some(init.uniform([output], -bound, bound)) }
    }
}

impl<B: Ops> Linear<B> {
    /// [rows, in] -> [rows, out].
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.forward_in(x, Precision::F32)
    }

    /// As [`Linear::forward`], with the product in this number format.
    pub fn forward_in(&self, x: Tensor<B, 2>, precision: Precision) -> Tensor<B, 2> {
        ops::linear(x, self.weight.val(), self.bias.as_ref().map(Param::val), precision)
    }
}

/// Normalisation over the last axis, with a scale and a shift.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// [width]
    pub weight: Param<Tensor<B, 1>>,
    /// [width]
    pub bias: Param<Tensor<B, 1>>,
    epsilon: f64,
}

impl<B: Backend> LayerNorm<B> {
    /// Scale 1 and shift 0.
    pub fn new(width: usize, epsilon: f64, init: &mut Init<'_, B>) -> Self {
        Self { weight: init.constant([width], 1.0), bias: init.constant([width], 0.0), epsilon }
    }

    /// Added to the variance.
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }
}

impl<B: Ops> LayerNorm<B> {
    /// [rows, width] -> [rows, width].
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        <B as Ops>::layer_norm(x, self.weight.val(), self.bias.val(), self.epsilon)
    }
}

/// A table of vectors: weight [entries, width].
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    /// [entries, width]
    pub weight: Param<Tensor<B, 2>>,
}

impl<B: Backend> Embedding<B> {
    /// Normal rows.
    pub fn normal(entries: usize, width: usize, deviation: f64, init: &mut Init<'_, B>) -> Self {
        Self { weight: init.normal([entries, width], deviation) }
    }
}

impl<B: Ops> Embedding<B> {
    /// The rows of `indices` [rows] -> [rows, width].
    pub fn forward(&self, indices: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        <B as Ops>::rows(self.weight.val(), indices)
    }
}
