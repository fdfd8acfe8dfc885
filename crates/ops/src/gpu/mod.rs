//! The fast forms on Burn's GPU backends: few launches, and a backward of few launches. A launch costs the host some ten
//! microseconds, so that a training step of many small operations takes the longer the more of them there are, whatever
//! the device could do.
//!
//! The functions here and in the files beside this one work on the backend's own tensors; [`crate::gpu_ops`] makes them [`crate::Ops`] of
//! a backend. Products and convolutions are the backend's own, which chooses among its kernels by trying them.

#![expect(clippy::cast_possible_truncation, reason = "the numbers of a kernel have 32 bits")]

mod attention;
mod elementwise;
mod kernels;
mod norm;
mod product;
mod sums;

use burn::tensor::{DType, Shape, Tensor, TensorPrimitive, backend::Backend};
use burn_cubecl::{
    BoolElement, CubeBackend, CubeRuntime, kernel::into_contiguous, ops::numeric::full_client, tensor::CubeTensor,
};
use cubecl::client::ComputeClient;

pub use attention::{backward as attention_backward, forward as attention};
pub use elementwise::{adam, dropped, gelu, gelu_backward};
pub use norm::{layer_norm, layer_norm_backward};
pub use sums::squared_norms;

use product::{product, transposed};

use super::{Dropout, gpu as generic};

/// See [`crate::Ops::linear`].
pub fn linear<R: CubeRuntime>(x: CubeTensor<R>, weight: CubeTensor<R>, bias: Option<CubeTensor<R>>) -> CubeTensor<R> {
    let shape = [x.meta.shape()[0], weight.meta.shape()[0]];
    let dtype = x.dtype;
    let y = product(x, transposed(weight), shape, dtype);
    if let Some(bias) = bias {
        elementwise::add_bias(&y, bias);
    }
    y
}

/// See [`crate::TrainOps::linear_backward`].
pub fn linear_backward<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    gradient: CubeTensor<R>,
    [x_is_needed, weight_is_needed, bias_is_needed]: [bool; 3],
) -> [Option<CubeTensor<R>>; 3] {
    let ([rows, inputs], outputs, dtype) = (matrix(&x), weight.meta.shape()[0], x.dtype);
    [
        x_is_needed.then(|| product(gradient.clone(), weight, [rows, inputs], dtype)),
        weight_is_needed.then(|| product(transposed(gradient.clone()), x, [outputs, inputs], dtype)),
        bias_is_needed.then(|| sums::column_sums(gradient)),
    ]
}

/// See [`crate::Ops::stacked_product`].
pub fn stacked_product<R: CubeRuntime>(x: CubeTensor<R>, y: CubeTensor<R>) -> CubeTensor<R> {
    let (shape, dtype) = ([x.meta.shape()[0], x.meta.shape()[1], y.meta.shape()[2]], x.dtype);
    product(x, y, shape, dtype)
}

/// See [`crate::Ops::dropout_mask`].
pub fn dropout_mask<R: CubeRuntime>(shape: Shape, dropout: Dropout, device: &R::Device) -> CubeTensor<R> {
    let mask = empty(R::client(device), device.clone(), shape, DType::F32);
    elementwise::fill_mask(&mask, dropout);
    mask
}

/// Makes functions on a backend's own tensors, those of the module `$kernels`, the operations of that backend.
#[macro_export]
macro_rules! gpu_ops {
    ([$($parameters:tt)*] $backend:ty, $kernels:ident) => {
        const _: () = {
            use burn::tensor::{IndexingUpdateOp, Int, Tensor};
            use $crate::{
                AdamState, AdamStep, AttentionShape, ConvolutionGradients, Dropout, Lengths, LinearGradients,
                NormGradients, Ops, TrainOps, WeightNormGradients, formulas,
                gpu::{primitive, tensor},
                windows,
            };

            impl<$($parameters)*> Ops for $backend {
                // A kernel that is chosen for one length is taken for all that round up to the same power of two, also
                // where it takes no such input; most of those that do not have odd lengths. With four utterances the
                // rows of a batch are then what all products can take (`product`).
                const TIME_UNIT: usize = 32;

                fn linear(x: Tensor<Self, 2>, weight: Tensor<Self, 2>, bias: Option<Tensor<Self, 1>>) -> Tensor<Self, 2> {
                    tensor($kernels::linear(primitive(x), primitive(weight), bias.map(primitive)))
                }

                fn stacked_product(x: Tensor<Self, 3>, y: Tensor<Self, 3>) -> Tensor<Self, 3> {
                    tensor($kernels::stacked_product(primitive(x), primitive(y)))
                }

                fn gelu<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
                    tensor($kernels::gelu(primitive(x)))
                }

                fn layer_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, bias: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
                    tensor($kernels::layer_norm(primitive(x), primitive(weight), primitive(bias), epsilon as f32))
                }

                fn attention(
                    query: Tensor<Self, 2>,
                    key: Tensor<Self, 2>,
                    value: Tensor<Self, 2>,
                    shape: AttentionShape<'_>,
                    dropout: Option<Dropout>,
                ) -> Tensor<Self, 2> {
                    tensor($kernels::attention([query, key, value].map(primitive), shape, dropout))
                }

                fn positional_convolution(
                    x: Tensor<Self, 3>,
                    weight: Tensor<Self, 3>,
                    bias: Tensor<Self, 1>,
                    groups: usize,
                ) -> Tensor<Self, 3> {
                    windows::positional_convolution(&x, weight, bias, groups)
                }

                fn dropped<const D: usize>(x: Tensor<Self, D>, dropout: Dropout) -> Tensor<Self, D> {
                    tensor($kernels::dropped(primitive(x), dropout))
                }

                fn dropout_mask<const D: usize>(shape: [usize; D], dropout: Dropout, device: &Self::Device) -> Tensor<Self, D> {
                    tensor($kernels::dropout_mask(shape.into(), dropout, device))
                }

                fn squared_norm<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, 1> {
                    let elements = x.dims().iter().product::<usize>();
                    Self::squared_norms(vec![x.reshape([elements])])
                }

                fn squared_norms(tensors: Vec<Tensor<Self, 1>>) -> Tensor<Self, 1> {
                    tensor($kernels::squared_norms(tensors.into_iter().map(primitive).collect()))
                }

                fn adam<const D: usize>(
                    state: AdamState<Self, D>,
                    gradient: Tensor<Self, D>,
                    step: &AdamStep,
                ) -> AdamState<Self, D> {
                    let state = [state.weight, state.first, state.second].map(primitive);
                    let [weight, first, second] = $kernels::adam(state, primitive(gradient), step).map(tensor);
                    AdamState { weight, first, second }
                }
            }

            impl<$($parameters)*> TrainOps for $backend {
                fn linear_backward(
                    x: Tensor<Self, 2>,
                    weight: Tensor<Self, 2>,
                    gradient: Tensor<Self, 2>,
                    needed: [bool; 3],
                ) -> LinearGradients<Self> {
                    let [x, weight, bias] =
                        $kernels::linear_backward(primitive(x), primitive(weight), primitive(gradient), needed);
                    LinearGradients { x: x.map(tensor), weight: weight.map(tensor), bias: bias.map(tensor) }
                }

                fn gelu_backward<const D: usize>(x: Tensor<Self, D>, gradient: Tensor<Self, D>) -> Tensor<Self, D> {
                    tensor($kernels::gelu_backward(primitive(x), primitive(gradient)))
                }

                fn layer_norm_backward(
                    x: Tensor<Self, 2>,
                    weight: Tensor<Self, 1>,
                    epsilon: f64,
                    gradient: Tensor<Self, 2>,
                ) -> NormGradients<Self, 2> {
                    let [x, weight, bias] =
                        $kernels::layer_norm_backward(primitive(x), primitive(weight), epsilon as f32, primitive(gradient));
                    NormGradients { x: tensor(x), weight: tensor(weight), bias: tensor(bias) }
                }

                fn attention_backward(
                    inputs: [Tensor<Self, 2>; 3],
                    shape: AttentionShape<'_>,
                    dropout: Option<Dropout>,
                    gradient: Tensor<Self, 2>,
                ) -> [Tensor<Self, 2>; 3] {
                    $kernels::attention_backward(inputs.map(primitive), shape, dropout, primitive(gradient)).map(tensor)
                }

                fn convolution_backward(
                    x: Tensor<Self, 3>,
                    weight: Tensor<Self, 3>,
                    stride: usize,
                    gradient: Tensor<Self, 3>,
                    needed: [bool; 3],
                ) -> ConvolutionGradients<Self> {
                    formulas::convolution_backward(x, weight, stride, gradient, needed)
                }

                fn positional_convolution_backward(
                    x: Tensor<Self, 3>,
                    weight: Tensor<Self, 3>,
                    groups: usize,
                    gradient: Tensor<Self, 3>,
                    needed: [bool; 3],
                ) -> ConvolutionGradients<Self> {
                    windows::positional_convolution_backward(&x, weight, groups, gradient, needed)
                }

                fn masked_group_norm_backward(
                    x: Tensor<Self, 3>,
                    weight: Tensor<Self, 1>,
                    lengths: &Lengths,
                    epsilon: f64,
                    gradient: Tensor<Self, 3>,
                ) -> NormGradients<Self, 3> {
                    formulas::masked_group_norm_backward(x, weight, lengths, epsilon, gradient)
                }

                fn weight_norm_backward(
                    direction: Tensor<Self, 3>,
                    length: Tensor<Self, 3>,
                    gradient: Tensor<Self, 3>,
                ) -> WeightNormGradients<Self> {
                    formulas::weight_norm_backward(direction, length, gradient)
                }

                fn rows_backward(entries: usize, indices: Tensor<Self, 1, Int>, gradient: Tensor<Self, 2>) -> Tensor<Self, 2> {
                    let [_, width] = gradient.dims();
                    let table = Tensor::zeros([entries, width], &gradient.device());
                    table.select_assign(0, indices, gradient, IndexingUpdateOp::Add)
                }
            }
        };
    };
}

gpu_ops!([R: CubeRuntime, Bool: BoolElement] CubeBackend<R, f32, i32, Bool>, generic);

/// A tensor as its backend has it.
pub fn primitive<B: Backend, const D: usize>(x: Tensor<B, D>) -> B::FloatTensorPrimitive {
    x.into_primitive().tensor()
}

/// A tensor of the backend.
pub fn tensor<B: Backend, const D: usize>(x: B::FloatTensorPrimitive) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

fn matrix<R: CubeRuntime>(x: &CubeTensor<R>) -> [usize; 2] {
    [x.meta.shape()[0], x.meta.shape()[1]]
}

/// The same with all elements one behind the other.
fn contiguous<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    into_contiguous(x)
}

/// The same, contiguous and nobody else's: a copy where somebody has it too.
fn writable<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let x = contiguous(x);
    if x.can_mut() { x } else { x.copy() }
}

/// An uninitialised contiguous tensor.
fn empty<R: CubeRuntime>(client: ComputeClient<R>, device: R::Device, shape: Shape, dtype: DType) -> CubeTensor<R> {
    let handle = client.empty(shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(client, device, shape, handle, dtype)
}

/// An uninitialised contiguous tensor on the device of another.
fn new_empty<R: CubeRuntime, const D: usize>(other: &CubeTensor<R>, shape: [usize; D], dtype: DType) -> CubeTensor<R> {
    empty(other.client.clone(), other.device.clone(), shape.into(), dtype)
}

fn new_empty_f32<R: CubeRuntime, const D: usize>(other: &CubeTensor<R>, shape: [usize; D]) -> CubeTensor<R> {
    new_empty(other, shape, DType::F32)
}

/// An uninitialised tensor of f32 with the shape and the device of another.
fn empty_like<R: CubeRuntime>(other: &CubeTensor<R>) -> CubeTensor<R> {
    empty(other.client.clone(), other.device.clone(), other.meta.shape().clone(), DType::F32)
}

fn zeros<R: CubeRuntime>(other: &CubeTensor<R>, elements: usize) -> CubeTensor<R> {
    full_client::<R, f32>(other.client.clone(), [elements].into(), other.device.clone(), 0.0)
}
