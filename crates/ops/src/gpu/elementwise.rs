//! Kernels with a unit for each element: biases, the activation, dropout and Adam.

use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    contiguous, empty_like,
    kernels::{cubes_of_elements, number, units},
    writable,
};
use crate::{AdamStep, Dropout, adam::AdamFactors, dropout::MaskConstants};

#[cube(launch_unchecked)]
fn add_bias_kernel(x: &mut Array<f32>, bias: &Array<f32>, elements: u32, width: u32) {
    let position = ABSOLUTE_POS as u32;
    if position < elements {
        x[position as usize] += bias[(position % width) as usize];
    }
}

/// Adds a row to every row of a matrix that nobody else has.
pub fn add_bias<R: CubeRuntime>(x: &CubeTensor<R>, bias: CubeTensor<R>) {
    let bias = contiguous(bias);
    let (elements, width) = (x.meta.num_elements(), bias.meta.num_elements());
    // SAFETY: `x` has as many elements as are written, and `bias` a row of them.
    unsafe {
        add_bias_kernel::launch_unchecked::<R>(
            &x.client,
            cubes_of_elements(elements),
            units(),
            x.clone().into_array_arg(),
            bias.into_array_arg(),
            number(elements),
            number(width),
        );
    }
}

#[cube(launch_unchecked)]
fn gelu_kernel(x: &Array<f32>, y: &mut Array<f32>, elements: u32) {
    let position = ABSOLUTE_POS;
    if (position as u32) < elements {
        let x = x[position];
        y[position] = x * 0.5 * (Erf::erf(x * std::f32::consts::FRAC_1_SQRT_2) + 1.0);
    }
}

/// See [`crate::Ops::gelu`].
pub fn gelu<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let x = contiguous(x);
    let y = empty_like(&x);
    let elements = x.meta.num_elements();
    // SAFETY: both have as many elements.
    unsafe {
        gelu_kernel::launch_unchecked::<R>(
            &y.client,
            cubes_of_elements(elements),
            units(),
            x.into_array_arg(),
            y.clone().into_array_arg(),
            number(elements),
        );
    }
    y
}

/// `1 / sqrt(2 pi)`, of the bell curve.
const BELL: f32 = 0.398_942_3;

#[cube(launch_unchecked)]
fn gelu_backward_kernel(x: &Array<f32>, gradient: &Array<f32>, y: &mut Array<f32>, elements: u32) {
    let position = ABSOLUTE_POS;
    if (position as u32) < elements {
        let x = x[position];
        let below = (Erf::erf(x * std::f32::consts::FRAC_1_SQRT_2) + 1.0) * 0.5;
        y[position] = gradient[position] * (below + x * BELL * f32::exp(x * x * -0.5));
    }
}

/// See [`crate::TrainOps::gelu_backward`].
pub fn gelu_backward<R: CubeRuntime>(x: CubeTensor<R>, gradient: CubeTensor<R>) -> CubeTensor<R> {
    let (x, gradient) = (contiguous(x), contiguous(gradient));
    let y = empty_like(&x);
    let elements = x.meta.num_elements();
    // SAFETY: all have as many elements.
    unsafe {
        gelu_backward_kernel::launch_unchecked::<R>(
            &y.client,
            cubes_of_elements(elements),
            units(),
            x.into_array_arg(),
            gradient.into_array_arg(),
            y.clone().into_array_arg(),
            number(elements),
        );
    }
    y
}

/// What an element is multiplied by, as on the CPU (`ops::flex`, `dropout_mask`).
#[cube]
pub fn kept(position: u32, low: u32, high: u32, threshold: u32, scale: f32) -> f32 {
    let mut bits = ((position ^ low) * 0x9E37_79B9u32) ^ high;
    bits ^= bits >> 16u32;
    bits *= 0x21F0_AAADu32;
    bits ^= bits >> 15u32;
    bits *= 0x735A_2D97u32;
    bits ^= bits >> 15u32;
    select(bits >= threshold, scale, 0.0f32)
}

#[cube(launch_unchecked)]
fn dropped_kernel(x: &Array<f32>, y: &mut Array<f32>, elements: u32, low: u32, high: u32, threshold: u32, scale: f32) {
    let position = ABSOLUTE_POS as u32;
    if position < elements {
        y[position as usize] = x[position as usize] * kept(position, low, high, threshold, scale);
    }
}

/// See [`crate::Ops::dropped`].
pub fn dropped<R: CubeRuntime>(x: CubeTensor<R>, dropout: Dropout) -> CubeTensor<R> {
    let x = contiguous(x);
    let y = empty_like(&x);
    let elements = x.meta.num_elements();
    let MaskConstants { low, high, threshold, scale } = dropout.constants();
    // SAFETY: both have as many elements.
    unsafe {
        dropped_kernel::launch_unchecked::<R>(
            &y.client,
            cubes_of_elements(elements),
            units(),
            x.into_array_arg(),
            y.clone().into_array_arg(),
            number(elements),
            low,
            high,
            threshold,
            scale,
        );
    }
    y
}

#[cube(launch_unchecked)]
fn dropout_mask_kernel(y: &mut Array<f32>, elements: u32, low: u32, high: u32, threshold: u32, scale: f32) {
    let position = ABSOLUTE_POS as u32;
    if position < elements {
        y[position as usize] = kept(position, low, high, threshold, scale);
    }
}

/// Fills a tensor that nobody else has with [`crate::Ops::dropout_mask`].
pub fn fill_mask<R: CubeRuntime>(mask: &CubeTensor<R>, dropout: Dropout) {
    let elements = mask.meta.num_elements();
    let MaskConstants { low, high, threshold, scale } = dropout.constants();
    // SAFETY: it has as many elements.
    unsafe {
        dropout_mask_kernel::launch_unchecked::<R>(
            &mask.client,
            cubes_of_elements(elements),
            units(),
            mask.clone().into_array_arg(),
            number(elements),
            low,
            high,
            threshold,
            scale,
        );
    }
}

/// The constants of an update, in the order of [`AdamFactors`].
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Factors {
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    rate: f32,
    correction: f32,
    epsilon: f32,
    scale: f32,
    decay: f32,
    shrink: f32,
}

#[cube(launch_unchecked)]
fn adam_kernel(
    weight: &mut Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    gradient: &Array<f32>,
    elements: u32,
    factors: &Factors,
) {
    let position = ABSOLUTE_POS;
    if (position as u32) < elements {
        let old = weight[position] * factors.shrink;
        let gradient = gradient[position] * factors.scale + old * factors.decay;
        let mean = first[position] * factors.beta1 + gradient * factors.rest1;
        let square = second[position] * factors.beta2 + gradient * gradient * factors.rest2;
        first[position] = mean;
        second[position] = square;
        weight[position] = old - factors.rate * mean / (f32::sqrt(square) * factors.correction + factors.epsilon);
    }
}

/// See [`crate::Ops::adam`]: weight, first and second moment.
pub fn adam<R: CubeRuntime>(
    [weight, first, second]: [CubeTensor<R>; 3],
    gradient: CubeTensor<R>,
    step: &AdamStep,
) -> [CubeTensor<R>; 3] {
    let (state, gradient) = ([writable(weight), writable(first), writable(second)], contiguous(gradient));
    let elements = gradient.meta.num_elements();
    let factors = AdamFactors::new(step);
    let [weight, first, second] = state.clone().map(CubeTensor::into_array_arg);
    // SAFETY: all have as many elements.
    unsafe {
        adam_kernel::launch_unchecked::<R>(
            &gradient.client.clone(),
            cubes_of_elements(elements),
            units(),
            weight,
            first,
            second,
            gradient.into_array_arg(),
            number(elements),
            FactorsLaunch::new(
                factors.beta1,
                factors.beta2,
                factors.rest1,
                factors.rest2,
                factors.rate,
                factors.correction,
                factors.epsilon,
                factors.scale,
                factors.decay,
                factors.shrink,
            ),
        );
    }
    state
}
