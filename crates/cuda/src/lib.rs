//! Burn's CUDA backend behind functions without type parameters, so that it is compiled once, here.
//!
//! [`burn::backend::Cuda`] is generic down to its kernels: each crate that computes on it compiles all that it calls, the
//! search among some hundred kernels of a product included, which was two thirds of the program's code and of every rebuild.
//! [`Cuda`] has the same tensors and passes every operation on. Left out are the operations on images and on quantised
//! tensors, which no model here has: they panic with their name.

#![expect(clippy::min_ident_chars, reason = "the names of parameters that are only passed on")]

use std::pin::Pin;

use burn::{
    backend::cuda::CudaDevice,
    tensor::{
        BoolDType, DType, Distribution, FloatDType, IndexingUpdateOp, IntDType, Scalar, Shape, Slice, TensorData,
        backend::{Backend, BackendTypes, DTypeUsageSet, ExecutionError},
        ops::{
            ActivationOps, AttentionModuleOptions, BoolTensorOps, ConvOptions, ConvTransposeOptions,
            DeformConv2dBackward, DeformConvOptions, FloatTensorOps, GridSampleOptions, IntTensorOps,
            InterpolateOptions, MaxPool2dBackward, MaxPool2dWithIndices, ModuleOps, QTensorOps, TransactionOps,
            TransactionPrimitive, TransactionPrimitiveData,
        },
        quantization::{QuantScheme, QuantizationParametersPrimitive},
    },
};

type Inner = burn::backend::Cuda;

/// A tensor of the device.
type Gpu = <Inner as BackendTypes>::FloatTensorPrimitive;

/// CUDA devices, in f32 and bf16.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cuda;

/// Passes functions of a trait on: for each list of parameters and result the names of the functions that have it.
macro_rules! pass_on {
    ($operations:ident: $($parameters:tt -> $result:ty: $($name:ident)+;)+) => {
        $($(pass_on!(@one $operations $name $parameters $result);)+)+
    };
    (@one $operations:ident $name:ident ($($parameter:ident: $kind:ty),*) $result:ty) => {
        fn $name($($parameter: $kind),*) -> $result {
            <Inner as $operations<Inner>>::$name($($parameter),*)
        }
    };
}

/// Says of functions of a trait that they are left out.
macro_rules! left_out {
    ($($parameters:tt -> $result:ty: $($name:ident)+;)+) => {
        $($(left_out!(@one $name $parameters $result);)+)+
    };
    (@one $name:ident ($($kind:ty),*) $result:ty) => {
        fn $name($(_: $kind),*) -> $result {
            unimplemented!(concat!(stringify!($name), " on CUDA: see clasp_cuda"))
        }
    };
}

/// What is read from the device, behind a pointer: the type of what an `async` function gives would be compiled where it is
/// waited for.
fn boxed<T>(
    reading: impl Future<Output = Result<T, ExecutionError>> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Result<T, ExecutionError>> + Send>> {
    Box::pin(reading)
}

impl BackendTypes for Cuda {
    type Device = CudaDevice;
    type FloatTensorPrimitive = Gpu;
    type FloatElem = f32;
    type IntTensorPrimitive = Gpu;
    type IntElem = i32;
    type BoolTensorPrimitive = Gpu;
    type BoolElem = <Inner as BackendTypes>::BoolElem;
    type QuantizedTensorPrimitive = Gpu;
}

impl Backend for Cuda {
    fn name(device: &CudaDevice) -> String {
        Inner::name(device)
    }

    fn seed(device: &CudaDevice, seed: u64) {
        Inner::seed(device, seed);
    }

    fn sync(device: &CudaDevice) -> Result<(), ExecutionError> {
        Inner::sync(device)
    }

    fn memory_cleanup(device: &CudaDevice) {
        Inner::memory_cleanup(device);
    }

    fn staging<'a, Iter: Iterator<Item = &'a mut TensorData>>(data: Iter, device: &CudaDevice) {
        stage(data.collect(), device);
    }

    fn supports_dtype(device: &CudaDevice, dtype: DType) -> bool {
        Inner::supports_dtype(device, dtype)
    }

    fn dtype_usage(device: &CudaDevice, dtype: DType) -> DTypeUsageSet {
        Inner::dtype_usage(device, dtype)
    }

    fn device_count(type_id: u16) -> usize {
        Inner::device_count(type_id)
    }
}

fn stage(data: Vec<&mut TensorData>, device: &CudaDevice) {
    Inner::staging(data.into_iter(), device);
}

impl FloatTensorOps<Self> for Cuda {
    fn float_into_data(tensor: Gpu) -> impl Future<Output = Result<TensorData, ExecutionError>> + Send {
        boxed(<Inner as FloatTensorOps<Inner>>::float_into_data(tensor))
    }

    pass_on! { FloatTensorOps:
        (a: TensorData, b: &CudaDevice) -> Gpu: float_from_data;
        (a: Shape, b: Distribution, c: &CudaDevice, d: FloatDType) -> Gpu: float_random;
        (a: &Gpu) -> CudaDevice: float_device;
        (a: Gpu, b: &CudaDevice) -> Gpu: float_to_device;
        (a: Shape, b: &CudaDevice, c: FloatDType) -> Gpu: float_empty float_zeros float_ones;
        (a: Gpu, b: Gpu) -> Gpu: float_add float_sub float_mul float_div float_remainder float_matmul float_gather_nd
            float_atan2 float_powf;
        (a: Gpu, b: Scalar) -> Gpu: float_add_scalar float_sub_scalar float_mul_scalar float_div_scalar
            float_remainder_scalar float_powf_scalar_impl;
        (a: Shape, b: Scalar, c: &CudaDevice, d: FloatDType) -> Gpu: float_full;
        (a: Gpu, b: Gpu, c: usize) -> Gpu: float_cross;
        (a: Gpu, b: usize, c: usize) -> Gpu: float_swap_dims float_topk float_repeat_dim;
        (a: Gpu, b: Shape) -> Gpu: float_reshape float_expand;
        (a: usize, b: Gpu, c: Gpu) -> Gpu: float_gather;
        (a: usize, b: Gpu, c: Gpu, d: Gpu) -> Gpu: float_scatter_add;
        (a: Gpu, b: Gpu, c: Gpu, d: IndexingUpdateOp) -> Gpu: float_scatter_nd;
        (a: Gpu, b: usize, c: Gpu) -> Gpu: float_select;
        (a: Gpu, b: usize, c: Gpu, d: Gpu) -> Gpu: float_select_add;
        (a: Gpu, b: &[Slice]) -> Gpu: float_slice;
        (a: Gpu, b: &[Slice], c: Gpu) -> Gpu: float_slice_assign;
        (a: Gpu, b: Gpu, c: Gpu) -> Gpu: float_mask_where;
        (a: Gpu, b: Gpu, c: Scalar) -> Gpu: float_mask_fill;
        (a: Gpu, b: Gpu, c: BoolDType) -> Gpu: float_equal float_greater float_greater_equal float_lower
            float_lower_equal;
        (a: Gpu, b: Scalar, c: BoolDType) -> Gpu: float_equal_elem float_greater_elem float_greater_equal_elem
            float_lower_elem float_lower_equal_elem;
        (a: Gpu) -> Gpu: float_sum float_max float_min float_max_abs float_mean float_prod float_exp float_log
            float_log1p float_sqrt float_abs float_sign float_cos float_sin float_tan float_cosh float_sinh float_tanh
            float_acos float_acosh float_asin float_asinh float_atan float_atanh float_round float_floor float_ceil
            float_trunc float_erf float_recip;
        (a: Gpu, b: usize) -> Gpu: float_max_dim float_min_dim float_max_abs_dim float_sum_dim float_mean_dim
            float_cumsum float_cumprod float_cummin float_cummax float_prod_dim;
        (a: Gpu, b: usize, c: IntDType) -> Gpu: float_argmax float_argmin;
        (a: Gpu, b: usize, c: usize, d: IntDType) -> Gpu: float_argtopk;
        (a: Gpu, b: IntDType) -> Gpu: float_into_int;
        (a: Gpu, b: Scalar, c: Scalar) -> Gpu: float_clamp;
        (a: Gpu, b: &[usize]) -> Gpu: float_permute float_flip;
        (a: Gpu, b: FloatDType) -> Gpu: float_cast;
        (a: Gpu, b: usize, c: usize, d: usize) -> Gpu: float_unfold;
        (a: Gpu, b: BoolDType) -> Gpu: float_is_nan float_is_inf;
        (a: Gpu, b: Gpu, c: GridSampleOptions) -> Gpu: float_grid_sample_2d;
    }
}

impl IntTensorOps<Self> for Cuda {
    fn int_into_data(tensor: Gpu) -> impl Future<Output = Result<TensorData, ExecutionError>> + Send {
        boxed(<Inner as IntTensorOps<Inner>>::int_into_data(tensor))
    }

    pass_on! { IntTensorOps:
        (a: Shape, b: &CudaDevice, c: IntDType) -> Gpu: int_empty int_zeros int_ones;
        (a: TensorData, b: &CudaDevice) -> Gpu: int_from_data;
        (a: &Gpu) -> CudaDevice: int_device;
        (a: Gpu, b: &CudaDevice) -> Gpu: int_to_device;
        (a: Gpu, b: Shape) -> Gpu: int_reshape int_expand;
        (a: Gpu, b: &[Slice]) -> Gpu: int_slice;
        (a: Gpu, b: &[Slice], c: Gpu) -> Gpu: int_slice_assign;
        (a: Gpu, b: Gpu) -> Gpu: int_matmul int_gather_nd int_add int_sub int_mul int_div int_remainder bitwise_and
            bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift;
        (a: Gpu, b: Gpu, c: Gpu) -> Gpu: int_mask_where;
        (a: Gpu, b: Gpu, c: Scalar) -> Gpu: int_mask_fill;
        (a: usize, b: Gpu, c: Gpu) -> Gpu: int_gather;
        (a: usize, b: Gpu, c: Gpu, d: Gpu) -> Gpu: int_scatter_add;
        (a: Gpu, b: Gpu, c: Gpu, d: IndexingUpdateOp) -> Gpu: int_scatter_nd;
        (a: Gpu, b: usize, c: Gpu) -> Gpu: int_select;
        (a: Gpu, b: usize, c: Gpu, d: Gpu) -> Gpu: int_select_add;
        (a: Gpu, b: Gpu, c: BoolDType) -> Gpu: int_equal int_greater int_greater_equal int_lower int_lower_equal;
        (a: Gpu, b: Scalar, c: BoolDType) -> Gpu: int_equal_elem int_greater_elem int_greater_equal_elem
            int_lower_elem int_lower_equal_elem;
        (a: Gpu, b: Scalar) -> Gpu: int_add_scalar int_sub_scalar int_mul_scalar int_div_scalar int_remainder_scalar
            bitwise_and_scalar bitwise_or_scalar bitwise_xor_scalar bitwise_left_shift_scalar
            bitwise_right_shift_scalar;
        (a: Shape, b: Scalar, c: &CudaDevice, d: IntDType) -> Gpu: int_full;
        (a: Gpu) -> Gpu: int_sum int_prod int_max int_max_abs int_min int_abs int_sign bitwise_not;
        (a: Gpu, b: usize) -> Gpu: int_sum_dim int_prod_dim int_max_dim int_max_abs_dim int_min_dim int_mean_dim
            int_cumsum int_cumprod int_cummin int_cummax int_argmax int_argmin;
        (a: Gpu, b: usize, c: usize) -> Gpu: int_topk int_argtopk int_swap_dims int_repeat_dim;
        (a: Gpu, b: Scalar, c: Scalar) -> Gpu: int_clamp;
        (a: Gpu, b: FloatDType) -> Gpu: int_into_float;
        (a: Shape, b: Distribution, c: &CudaDevice, d: IntDType) -> Gpu: int_random;
        (a: Gpu, b: &[usize]) -> Gpu: int_permute int_flip;
        (a: Gpu, b: IntDType) -> Gpu: int_cast;
        (a: Gpu, b: usize, c: usize, d: usize) -> Gpu: int_unfold;
    }
}

impl BoolTensorOps<Self> for Cuda {
    fn bool_into_data(tensor: Gpu) -> impl Future<Output = Result<TensorData, ExecutionError>> + Send {
        boxed(<Inner as BoolTensorOps<Inner>>::bool_into_data(tensor))
    }

    pass_on! { BoolTensorOps:
        (a: Shape, b: &CudaDevice, c: BoolDType) -> Gpu: bool_empty bool_zeros bool_ones;
        (a: TensorData, b: &CudaDevice) -> Gpu: bool_from_data;
        (a: Gpu, b: IntDType) -> Gpu: bool_into_int;
        (a: &Gpu) -> CudaDevice: bool_device;
        (a: Gpu, b: &CudaDevice) -> Gpu: bool_to_device;
        (a: Gpu, b: Shape) -> Gpu: bool_reshape bool_expand;
        (a: Gpu, b: &[Slice]) -> Gpu: bool_slice;
        (a: Gpu, b: &[Slice], c: Gpu) -> Gpu: bool_slice_assign;
        (a: Gpu, b: Gpu) -> Gpu: bool_equal bool_and bool_or;
        (a: Gpu) -> Gpu: bool_not;
        (a: Gpu, b: FloatDType) -> Gpu: bool_into_float;
        (a: Gpu, b: usize, c: usize) -> Gpu: bool_swap_dims bool_repeat_dim;
        (a: Gpu, b: &[usize]) -> Gpu: bool_permute bool_flip;
        (a: Gpu, b: usize, c: Gpu) -> Gpu: bool_select;
        (a: Gpu, b: usize, c: Gpu, d: Gpu) -> Gpu: bool_select_or;
        (a: Gpu, b: usize, c: usize, d: usize) -> Gpu: bool_unfold;
        (a: Gpu, b: Gpu, c: Gpu) -> Gpu: bool_mask_where;
        (a: Gpu, b: Gpu, c: Scalar) -> Gpu: bool_mask_fill;
        (a: usize, b: Gpu, c: Gpu) -> Gpu: bool_gather;
        (a: usize, b: Gpu, c: Gpu, d: Gpu) -> Gpu: bool_scatter_or;
        (a: Gpu, b: Scalar) -> Gpu: bool_equal_elem;
    }
}

impl ModuleOps<Self> for Cuda {
    pass_on! { ModuleOps:
        (a: Gpu, b: Gpu, c: Option<Gpu>, d: ConvOptions<1>) -> Gpu: conv1d;
        (a: Gpu, b: Gpu, c: Gpu, d: ConvOptions<1>) -> Gpu: conv1d_x_backward conv1d_weight_backward;
    }

    left_out! {
        (Gpu, Gpu, Option<Gpu>, ConvOptions<2>) -> Gpu: conv2d;
        (Gpu, Gpu, Option<Gpu>, ConvOptions<3>) -> Gpu: conv3d;
        (Gpu, Gpu, Option<Gpu>, ConvTransposeOptions<2>) -> Gpu: conv_transpose2d;
        (Gpu, Gpu, Option<Gpu>, ConvTransposeOptions<3>) -> Gpu: conv_transpose3d;
        (Gpu, Gpu, Gpu, Option<Gpu>, Option<Gpu>, DeformConvOptions<2>) -> Gpu: deform_conv2d;
        (Gpu, Gpu, Gpu, Option<Gpu>, Option<Gpu>, Gpu, DeformConvOptions<2>) -> DeformConv2dBackward<Self>:
            deform_conv2d_backward;
        (Gpu, [usize; 2], [usize; 2], [usize; 2], bool, bool) -> Gpu: avg_pool2d;
        (Gpu, Gpu, [usize; 2], [usize; 2], [usize; 2], bool, bool) -> Gpu: avg_pool2d_backward;
        (Gpu, [usize; 2]) -> Gpu: adaptive_avg_pool2d;
        (Gpu, Gpu) -> Gpu: adaptive_avg_pool2d_backward;
        (Gpu, [usize; 2], [usize; 2], [usize; 2], [usize; 2], bool) -> Gpu: max_pool2d;
        (Gpu, [usize; 2], [usize; 2], [usize; 2], [usize; 2], bool) -> MaxPool2dWithIndices<Self>:
            max_pool2d_with_indices;
        (Gpu, [usize; 2], [usize; 2], [usize; 2], [usize; 2], bool, Gpu, Gpu) -> MaxPool2dBackward<Self>:
            max_pool2d_with_indices_backward;
        (Gpu, [usize; 2], InterpolateOptions) -> Gpu: interpolate;
        (Gpu, Gpu, [usize; 2], InterpolateOptions) -> Gpu: interpolate_backward;
        (Gpu, Gpu, Gpu, Option<Gpu>, Option<Gpu>, AttentionModuleOptions) -> Gpu: attention;
        (Gpu, usize, Option<usize>) -> (Gpu, Gpu): rfft;
        (Gpu, Gpu, usize, Option<usize>) -> Gpu: irfft;
    }
}

impl ActivationOps<Self> for Cuda {}

impl TransactionOps<Self> for Cuda {
    fn tr_execute(
        readings: TransactionPrimitive<Self>,
    ) -> impl Future<Output = Result<TransactionPrimitiveData, ExecutionError>> + Send {
        let TransactionPrimitive { read_floats, read_qfloats, read_ints, read_bools, .. } = readings;
        let readings = TransactionPrimitive::new(read_floats, read_qfloats, read_ints, read_bools);
        boxed(<Inner as TransactionOps<Inner>>::tr_execute(readings))
    }
}

impl QTensorOps<Self> for Cuda {
    #[expect(clippy::unimplemented, reason = "left out, as those below")]
    fn q_into_data(_: Gpu) -> impl Future<Output = Result<TensorData, ExecutionError>> + Send {
        boxed(async { unimplemented!("q_into_data on CUDA: see clasp_cuda") })
    }

    left_out! {
        (TensorData, &CudaDevice) -> Gpu: q_from_data;
        (Gpu, &QuantScheme, QuantizationParametersPrimitive<Self>) -> Gpu: quantize;
        (Gpu, FloatDType) -> Gpu: dequantize;
        (&Gpu) -> CudaDevice: q_device;
        (Gpu, &CudaDevice) -> Gpu: q_to_device;
        (Gpu, Shape) -> Gpu: q_reshape q_expand;
        (Gpu, usize, usize) -> Gpu: q_swap_dims;
        (Gpu, &[usize]) -> Gpu: q_permute q_flip;
        (Gpu, usize, Gpu) -> Gpu: q_select;
        (Gpu, &[Slice]) -> Gpu: q_slice;
    }
}

clasp_ops::gpu_ops!([] Cuda, kernels);

/// The functions of [`clasp_ops::gpu`] on CUDA.
mod kernels {
    use super::{CudaDevice, Gpu, Shape};
    use clasp_ops::{AdamStep, AttentionShape, Dropout, gpu};

    /// For each list of parameters and result the names of the functions that have it.
    macro_rules! compiled {
        ($($parameters:tt -> $result:ty: $($name:ident)+;)+) => { $($(compiled!(@one $name $parameters $result);)+)+ };
        (@one $name:ident ($($parameter:ident: $kind:ty),*) $result:ty) => {
            pub fn $name($($parameter: $kind),*) -> $result {
                gpu::$name($($parameter),*)
            }
        };
    }

    compiled! {
        (a: Gpu) -> Gpu: gelu;
        (a: Gpu, b: Gpu) -> Gpu: gelu_backward stacked_product;
        (a: Gpu, b: Gpu, c: Option<Gpu>) -> Gpu: linear;
        (a: Gpu, b: Gpu, c: Gpu, d: [bool; 3]) -> [Option<Gpu>; 3]: linear_backward;
        (a: Gpu, b: Gpu, c: Gpu, d: f32) -> Gpu: layer_norm;
        (a: Gpu, b: Gpu, c: f32, d: Gpu) -> [Gpu; 3]: layer_norm_backward;
        (a: [Gpu; 3], b: AttentionShape<'_>, c: Option<Dropout>) -> Gpu: attention;
        (a: [Gpu; 3], b: AttentionShape<'_>, c: Option<Dropout>, d: Gpu) -> [Gpu; 3]: attention_backward;
        (a: Gpu, b: Dropout) -> Gpu: dropped;
        (a: Shape, b: Dropout, c: &CudaDevice) -> Gpu: dropout_mask;
        (a: Vec<Gpu>) -> Gpu: squared_norms;
        (a: [Gpu; 3], b: Gpu, c: &AdamStep) -> [Gpu; 3]: adam;
    }
}
