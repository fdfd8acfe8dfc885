//! The numerical operations that a model is made of, behind one backend-extension trait: [`Ops`].
//!
//! Every operation has a plain body (in [`plain`]) that works on any backend and is differentiated by Burn; a backend may
//! replace it by a faster form with the same meaning (`flex` on the CPU, `gpu` on Burn's GPU backends), so that work on speed
//! does not touch the encoders; all that they do for it is to pad their positions by [`Lengths::padded_for`]. Activations
//! are two-dimensional, `[batch * time, channels]`, in the layers and `[batch, time, channels]` in the convolutions;
//! parameters have `PyTorch`'s layouts.
//!
//! A crate of its own, since it knows nothing of a model: a change of the program does not compile the kernels again.

mod adam;
mod autodiff;
mod dropout;
mod flex;
#[cfg(any(feature = "gpu", test))]
pub mod formulas;
#[cfg(feature = "gpu")]
pub mod gpu;
mod lengths;
pub mod plain;
pub mod random;
#[cfg(any(feature = "gpu", test))]
pub mod windows;

use burn::tensor::{FloatDType, Int, Tensor, backend::Backend};

pub use adam::{AdamState, AdamStep};
pub use dropout::{Dropout, StepRandom};
pub use lengths::Lengths;

/// How the heads of an attention lie in its inputs.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape<'a> {
    /// Number of heads; divides the width of the inputs.
    pub heads: usize,
    /// The valid keys of each example.
    pub lengths: &'a Lengths,
}

/// The gradients of a linear map, where they are needed.
#[derive(Debug)]
pub struct LinearGradients<B: Backend> {
    /// [rows, in]
    pub x: Option<Tensor<B, 2>>,
    /// [out, in]
    pub weight: Option<Tensor<B, 2>>,
    /// [out]
    pub bias: Option<Tensor<B, 1>>,
}

/// The gradients of a convolution, where they are needed.
#[derive(Debug)]
pub struct ConvolutionGradients<B: Backend> {
    /// [batch, time, in]
    pub x: Option<Tensor<B, 3>>,
    /// [out, in, kernel]
    pub weight: Option<Tensor<B, 3>>,
    /// [out]
    pub bias: Option<Tensor<B, 1>>,
}

/// The gradients of a weight that is normalised.
#[derive(Debug)]
pub struct WeightNormGradients<B: Backend> {
    /// [out, in, kernel]
    pub direction: Tensor<B, 3>,
    /// [1, 1, kernel]
    pub length: Tensor<B, 3>,
}

/// The gradients of a norm.
#[derive(Debug)]
pub struct NormGradients<B: Backend, const D: usize> {
    pub x: Tensor<B, D>,
    /// [channels]
    pub weight: Tensor<B, 1>,
    /// [channels]
    pub bias: Tensor<B, 1>,
}

/// The operations of the model on a backend. The default bodies are the plain forms.
///
/// Of a backend that is trained on, [`TrainOps`] has the backward of each operation.
pub trait Ops: Backend {
    /// The encoders' layers work on this many positions, or a multiple of it.
    const TIME_UNIT: usize = 1;

    /// Whether the operations take tensors of bf16. Where they do not, bf16 is emulated: values that are rounded by
    /// [`Ops::round_to_bf16`] and stay f32.
    const HAS_BF16: bool = true;

    /// `x weight^T + bias`: x [rows, in], weight [out, in], bias [out] -> [rows, out].
    fn linear(x: Tensor<Self, 2>, weight: Tensor<Self, 2>, bias: Option<Tensor<Self, 1>>) -> Tensor<Self, 2> {
        plain::linear(x, weight, bias)
    }

    /// The products of the matrices of two stacks: x [stacks, rows, inner], y [stacks, inner, columns] -> [stacks, rows,
    /// columns].
    fn stacked_product(x: Tensor<Self, 3>, y: Tensor<Self, 3>) -> Tensor<Self, 3> {
        x.matmul(y)
    }

    /// The exact Gaussian error linear unit, `x (1 + erf(x / sqrt 2)) / 2`.
    fn gelu<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        plain::gelu(x)
    }

    /// Layer normalisation over the last axis: x [rows, width], weight and bias [width].
    fn layer_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, bias: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        plain::layer_norm(x, weight, bias, epsilon)
    }

    /// Scaled dot-product attention with dropout after the softmax; query, key, value [batch * time, width] with the
    /// heads side by side in a row -> [batch * time, width]. Padded keys are not attended to; what
    /// comes out at padded queries is finite and means nothing.
    fn attention(
        query: Tensor<Self, 2>,
        key: Tensor<Self, 2>,
        value: Tensor<Self, 2>,
        shape: AttentionShape<'_>,
        dropout: Option<Dropout>,
    ) -> Tensor<Self, 2> {
        plain::attention(query, key, value, shape, dropout)
    }

    /// Convolution over time without padding: x [batch, time, in], weight [out, in, kernel], bias [out] ->
    /// [batch, frames, out] with `frames = (time - kernel) / stride + 1`.
    fn convolution(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        bias: Option<Tensor<Self, 1>>,
        stride: usize,
    ) -> Tensor<Self, 3> {
        plain::convolution(x, weight, bias, stride)
    }

    /// Grouped convolution that keeps the length (`kernel / 2` zeros on both sides, the last frame of an even kernel
    /// dropped): x [batch, time, width], weight [width, width / groups, kernel], bias [width] -> [batch, time, width].
    fn positional_convolution(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        bias: Tensor<Self, 1>,
        groups: usize,
    ) -> Tensor<Self, 3> {
        plain::positional_convolution(x, weight, bias, groups)
    }

    /// Group normalisation with one channel a group, over the valid frames of each example alone:
    /// x [batch, frames, channels], weight and bias [channels]. Padded frames come out as some finite value.
    fn masked_group_norm(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        lengths: &Lengths,
        epsilon: f64,
    ) -> Tensor<Self, 3> {
        plain::masked_group_norm(x, weight, bias, lengths, epsilon)
    }

    /// The weight of a convolution from its direction and its length at each position (weight norm over the kernel's
    /// positions, `torch.nn.utils.parametrizations.weight_norm` with `dim=2`): direction [out, in, kernel], length
    /// [1, 1, kernel] -> [out, in, kernel].
    fn weight_norm(direction: Tensor<Self, 3>, length: Tensor<Self, 3>) -> Tensor<Self, 3> {
        plain::weight_norm(direction, length)
    }

    /// Rows of a table [entries, width] by their indices [rows] -> [rows, width].
    fn rows(table: Tensor<Self, 2>, indices: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        table.select(0, indices)
    }

    /// Zeroes elements at random and scales the others: a product with [`Ops::dropout_mask`]. It is its own backward.
    fn dropped<const D: usize>(x: Tensor<Self, D>, dropout: Dropout) -> Tensor<Self, D> {
        let mask = Self::dropout_mask(x.dims(), dropout, &x.device());
        x * mask
    }

    /// A mask that holds `1 / (1 - p)` with probability `1 - p` and 0 elsewhere: a function of the key.
    fn dropout_mask<const D: usize>(shape: [usize; D], dropout: Dropout, device: &Self::Device) -> Tensor<Self, D> {
        plain::dropout_mask(shape, dropout, device)
    }

    /// The nearest number that bf16 has, ties to the even one, in f32. Its gradient is rounded in the same way, as that
    /// of two casts is.
    fn round_to_bf16<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        x.cast(FloatDType::BF16).cast(FloatDType::F32)
    }

    /// The sum of the squares of all elements, [1].
    fn squared_norm<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, 1> {
        x.square().sum()
    }

    /// The same of each of several tensors, [tensors]; there is at least one.
    fn squared_norms(tensors: Vec<Tensor<Self, 1>>) -> Tensor<Self, 1> {
        Tensor::cat(tensors.into_iter().map(Self::squared_norm).collect(), 0)
    }

    /// One update of Adam.
    fn adam<const D: usize>(
        state: AdamState<Self, D>,
        gradient: Tensor<Self, D>,
        step: &AdamStep,
    ) -> AdamState<Self, D> {
        plain::adam(state, gradient, step)
    }
}

/// A backend that can be trained on: the backward of each operation. Under automatic differentiation an operation is one
/// node of the graph, whatever its form.
pub trait TrainOps: Ops {
    /// The backward of [`Ops::linear`]; `needed` is for x, weight and bias.
    fn linear_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        gradient: Tensor<Self, 2>,
        needed: [bool; 3],
    ) -> LinearGradients<Self>;

    /// The backward of [`Ops::gelu`].
    fn gelu_backward<const D: usize>(x: Tensor<Self, D>, gradient: Tensor<Self, D>) -> Tensor<Self, D>;

    /// The backward of [`Ops::layer_norm`].
    fn layer_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        epsilon: f64,
        gradient: Tensor<Self, 2>,
    ) -> NormGradients<Self, 2>;

    /// The backward of [`Ops::attention`], of query, key and value.
    fn attention_backward(
        inputs: [Tensor<Self, 2>; 3],
        shape: AttentionShape<'_>,
        dropout: Option<Dropout>,
        gradient: Tensor<Self, 2>,
    ) -> [Tensor<Self, 2>; 3];

    /// The backward of [`Ops::convolution`]; `needed` is for x, weight and bias.
    fn convolution_backward(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        stride: usize,
        gradient: Tensor<Self, 3>,
        needed: [bool; 3],
    ) -> ConvolutionGradients<Self>;

    /// The backward of [`Ops::positional_convolution`]; `needed` is for x, weight and bias.
    fn positional_convolution_backward(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        groups: usize,
        gradient: Tensor<Self, 3>,
        needed: [bool; 3],
    ) -> ConvolutionGradients<Self>;

    /// The backward of [`Ops::masked_group_norm`].
    fn masked_group_norm_backward(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 1>,
        lengths: &Lengths,
        epsilon: f64,
        gradient: Tensor<Self, 3>,
    ) -> NormGradients<Self, 3>;

    /// The backward of [`Ops::weight_norm`].
    fn weight_norm_backward(
        direction: Tensor<Self, 3>,
        length: Tensor<Self, 3>,
        gradient: Tensor<Self, 3>,
    ) -> WeightNormGradients<Self>;

    /// The backward of [`Ops::rows`]: the gradient of a table of this many entries.
    fn rows_backward(entries: usize, indices: Tensor<Self, 1, Int>, gradient: Tensor<Self, 2>) -> Tensor<Self, 2>;
}

/// Zeroes elements at random and scales the others, where a dropout is given.
pub fn dropout<B: Ops, const D: usize>(x: Tensor<B, D>, dropout: Option<Dropout>) -> Tensor<B, D> {
    match dropout {
        Some(dropout) => <B as Ops>::dropped(x, dropout),
        None => x,
    }
}
