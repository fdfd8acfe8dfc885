//! Loops over slices, compiled for several instruction sets and chosen at run time. They are written so that the
//! compiler vectorises them: no calls that it cannot inline, sixteen separate sums in a reduction.

use crate::{adam::AdamFactors, dropout::MaskConstants};

/// Separate sums in a reduction: as many as an AVX-512 register holds.
const LANES: usize = 16;

/// Declares functions whose bodies are compiled for AVX-512, for AVX2 and for any machine.
macro_rules! vectorised {
    ($($(#[$about:meta])* pub fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => { $(
        $(#[$about])*
        pub fn $name($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn wide($($argument: $type),*) $(-> $result)? $body
                #[target_feature(enable = "avx2,fma")]
                fn middle($($argument: $type),*) $(-> $result)? $body
                if std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("fma")
                {
                    // SAFETY: the machine has just been asked for every feature.
                    return unsafe { wide($($argument),*) };
                }
                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                    // SAFETY: as above.
                    return unsafe { middle($($argument),*) };
                }
            }
            $body
        }
    )* };
}

/// The exponential, within 2 units in the last place: Cody and Waite's reduction and a polynomial of degree 6
/// (coefficients of the Cephes library's `expf`, S. Moshier 1984).
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must become part of the vectorised loops")]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.3, 88.0);
    let power = (x * std::f32::consts::LOG2_E).round_ties_even();
    let rest = power.mul_add(-0.693_359_4, x);
    let rest = power.mul_add(2.121_944_4e-4, rest);
    let sum = 1.987_569_1e-4_f32;
    let sum = sum.mul_add(rest, 1.398_199_9e-3);
    let sum = sum.mul_add(rest, 8.333_452e-3);
    let sum = sum.mul_add(rest, 4.166_579_6e-2);
    let sum = sum.mul_add(rest, 1.666_666_5e-1);
    let sum = sum.mul_add(rest, 0.5);
    let value = sum.mul_add(rest * rest, rest) + 1.0;
    // 2^23 + 127 + power has 127 + power in its lowest bits, which are the exponent of 2^power. No cast to an integer: its
    // checks would keep the loops from being vectorised.
    value * f32::from_bits((power + 8_388_735.0).to_bits() << 23)
}

/// The normal distribution's cumulative function at `x` and `exp(-x²/2)`: Abramowitz and Stegun 7.1.26, absolute error
/// below 1.5e-7.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must become part of the vectorised loops")]
fn normal_cdf(x: f32) -> (f32, f32) {
    let scaled = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let bell = exp(-scaled * scaled);
    let ratio = 1.0 / scaled.mul_add(0.327_591_1, 1.0);
    let sum = 1.061_405_4_f32;
    let sum = sum.mul_add(ratio, -1.453_152_1);
    let sum = sum.mul_add(ratio, 1.421_413_8);
    let sum = sum.mul_add(ratio, -0.284_496_72);
    let sum = sum.mul_add(ratio, 0.254_829_6);
    let tail = 0.5 * sum * ratio * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

/// 1 / sqrt(2 pi).
const BELL_HEIGHT: f32 = 0.398_942_3;

/// The sum of the lanes, pairwise.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must become part of the vectorised loops")]
fn total(lanes: [f32; LANES]) -> f32 {
    lanes.iter().sum()
}

vectorised! {
    /// `y = gelu(x)`.
    pub fn gelu(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * normal_cdf(x).0;
        }
    }

    /// `x = gelu(x)`.
    pub fn gelu_in_place(x: &mut [f32]) {
        for x in x.iter_mut() {
            *x *= normal_cdf(*x).0;
        }
    }

    /// `gradient *= gelu'(x)`.
    pub fn gelu_backward(x: &[f32], gradient: &mut [f32]) {
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let (cdf, bell) = normal_cdf(x);
            *gradient *= (x * bell).mul_add(BELL_HEIGHT, cdf);
        }
    }

    /// The sum of a row.
    pub fn sum(x: &[f32]) -> f32 {
        let mut lanes = [0.0; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest: f32 = chunks.remainder().iter().sum();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += value;
            }
        }
        total(lanes) + rest
    }

    /// The sum of the squared differences from `centre`.
    pub fn squared_deviation(x: &[f32], centre: f32) -> f32 {
        let mut lanes = [0.0_f32; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest: f32 = chunks.remainder().iter().map(|value| (value - centre) * (value - centre)).sum();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                let difference = value - centre;
                *lane = difference.mul_add(difference, *lane);
            }
        }
        total(lanes) + rest
    }

    /// The sum of the products of two rows.
    pub fn dot(x: &[f32], y: &[f32]) -> f32 {
        let mut lanes = [0.0_f32; LANES];
        let (x_chunks, y_chunks) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
        let rest: f32 = x_chunks.remainder().iter().zip(y_chunks.remainder()).map(|(x, y)| x * y).sum();
        for (x, y) in x_chunks.zip(y_chunks) {
            for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
                *lane = x.mul_add(*y, *lane);
            }
        }
        total(lanes) + rest
    }

    /// `y = (x - mean) * deviation * weight + bias`, element by element: the affine part of a norm over a row.
    pub fn normalise(x: &[f32], mean: f32, inverse_deviation: f32, weight: &[f32], bias: &[f32], y: &mut [f32]) {
        for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
            *y = ((x - mean) * inverse_deviation).mul_add(*weight, *bias);
        }
    }

    /// The two sums of a norm's backward over a row, `gradient * weight` and that times the normalised values; adds the
    /// row's part to the gradients of weight and bias.
    pub fn norm_sums(
        x: &[f32],
        mean: f32,
        inverse_deviation: f32,
        weight: &[f32],
        gradient: &[f32],
        weight_gradient: &mut [f32],
        bias_gradient: &mut [f32],
    ) -> (f32, f32) {
        let mut first = [0.0_f32; LANES];
        let mut second = [0.0_f32; LANES];
        let whole = x.len() / LANES * LANES;
        let mut rest = (0.0, 0.0);
        for start in (0..whole).step_by(LANES) {
            let range = start..start + LANES;
            let rows = x[range.clone()].iter().zip(&weight[range.clone()]).zip(&gradient[range.clone()]);
            let sums = weight_gradient[range.clone()].iter_mut().zip(&mut bias_gradient[range]);
            for ((((x, weight), gradient), (weight_sum, bias_sum)), (first, second)) in
                rows.zip(sums).zip(first.iter_mut().zip(&mut second))
            {
                let normal = (x - mean) * inverse_deviation;
                let weighted = gradient * weight;
                *first += weighted;
                *second = weighted.mul_add(normal, *second);
                *weight_sum = gradient.mul_add(normal, *weight_sum);
                *bias_sum += gradient;
            }
        }
        for index in whole..x.len() {
            let normal = (x[index] - mean) * inverse_deviation;
            let weighted = gradient[index] * weight[index];
            rest.0 += weighted;
            rest.1 += weighted * normal;
            weight_gradient[index] += gradient[index] * normal;
            bias_gradient[index] += gradient[index];
        }
        (total(first) + rest.0, total(second) + rest.1)
    }

    /// A norm's gradient over a row: `deviation * (gradient * weight - mean1 - normalised * mean2)`.
    pub fn norm_gradient(
        x: &[f32],
        mean: f32,
        inverse_deviation: f32,
        weight: &[f32],
        gradient: &[f32],
        means: (f32, f32),
        y: &mut [f32],
    ) {
        for (((y, x), weight), gradient) in y.iter_mut().zip(x).zip(weight).zip(gradient) {
            let normal = (x - mean) * inverse_deviation;
            *y = inverse_deviation * (gradient * weight - means.0 - normal * means.1);
        }
    }

    /// `x = (x - centre) * scale + shift`, element by element.
    pub fn centre_scale_shift(x: &mut [f32], centre: &[f32], scale: &[f32], shift: &[f32]) {
        for (((x, centre), scale), shift) in x.iter_mut().zip(centre).zip(scale).zip(shift) {
            *x = (*x - centre).mul_add(*scale, *shift);
        }
    }

    /// `sum += x`, element by element.
    pub fn add(x: &[f32], sum: &mut [f32]) {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    }

    /// `sum += x * y`, element by element.
    pub fn add_product(x: &[f32], y: &[f32], sum: &mut [f32]) {
        for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
            *sum = x.mul_add(*y, *sum);
        }
    }

    /// `x = x * scale + y * slope`, element by element.
    pub fn combine(x: &mut [f32], scale: &[f32], y: &[f32], slope: &[f32]) {
        for (((x, scale), y), slope) in x.iter_mut().zip(scale).zip(y).zip(slope) {
            *x = x.mul_add(*scale, y * slope);
        }
    }

    /// `sum += (x - centre)^2`, element by element.
    pub fn add_squared_deviation(x: &[f32], centre: &[f32], sum: &mut [f32]) {
        for ((sum, x), centre) in sum.iter_mut().zip(x).zip(centre) {
            let difference = x - centre;
            *sum = difference.mul_add(difference, *sum);
        }
    }

    /// `sum += (x - centre) * y`, element by element.
    pub fn add_centred_product(x: &[f32], centre: &[f32], y: &[f32], sum: &mut [f32]) {
        for (((sum, x), centre), y) in sum.iter_mut().zip(x).zip(centre).zip(y) {
            *sum = (x - centre).mul_add(*y, *sum);
        }
    }

    /// `y = gradient * scale + (x - centre) * slope + shift`, element by element.
    pub fn linear_combination(
        gradient: &[f32],
        scale: &[f32],
        x: &[f32],
        centre: &[f32],
        slope: &[f32],
        shift: &[f32],
        y: &mut [f32],
    ) {
        let inputs = gradient.iter().zip(scale).zip(x.iter().zip(centre).zip(slope)).zip(shift);
        for (y, (((gradient, scale), ((x, centre), slope)), shift)) in y.iter_mut().zip(inputs) {
            *y = gradient.mul_add(*scale, (x - centre).mul_add(*slope, *shift));
        }
    }

    /// The softmax of `row * scale`, in place.
    pub fn softmax(row: &mut [f32], scale: f32) {
        let mut largest = [f32::NEG_INFINITY; LANES];
        let chunks = row.chunks_exact(LANES);
        let mut top = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for chunk in chunks {
            for (largest, value) in largest.iter_mut().zip(chunk) {
                *largest = if *value > *largest { *value } else { *largest };
            }
        }
        for value in largest {
            top = top.max(value);
        }
        for value in row.iter_mut() {
            *value = exp((*value - top) * scale);
        }
        let mut lanes = [0.0_f32; LANES];
        let chunks = row.chunks_exact(LANES);
        let rest: f32 = chunks.remainder().iter().sum();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += value;
            }
        }
        let inverse = 1.0 / (total(lanes) + rest);
        for value in row.iter_mut() {
            *value *= inverse;
        }
    }

    /// The softmax's backward in place: `gradient = scale * weight * (gradient - shift)`.
    pub fn softmax_backward(weights: &[f32], shift: f32, scale: f32, gradient: &mut [f32]) {
        for (gradient, weight) in gradient.iter_mut().zip(weights) {
            *gradient = scale * weight * (*gradient - shift);
        }
    }

    /// One update of Adam, element by element; see [`AdamFactors`].
    pub fn adam(weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], factors: &AdamFactors) {
        let AdamFactors { beta1, beta2, rest1, rest2, rate, correction, epsilon, scale, decay, shrink } = *factors;
        let moments = first.iter_mut().zip(second.iter_mut());
        for ((weight, (first, second)), gradient) in weight.iter_mut().zip(moments).zip(gradient) {
            let decayed = *weight * shrink;
            let gradient = gradient * scale + decay * *weight;
            *first = *first * beta1 + rest1 * gradient;
            *second = *second * beta2 + rest2 * gradient * gradient;
            *weight = decayed - rate * *first / (second.sqrt() * correction + epsilon);
        }
    }

    /// `x *= y`, element by element.
    pub fn multiply(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x *= y;
        }
    }

    /// `x *= mask`, of the mask that [`dropout_mask`] fills.
    pub fn drop(x: &mut [f32], start: u32, constants: &MaskConstants) {
        let MaskConstants { low, high, threshold, scale } = *constants;
        let mut position = start;
        for x in x.iter_mut() {
            let bits = hash(position, low, high);
            *x *= if bits >= threshold { scale } else { 0.0 };
            position = position.wrapping_add(1);
        }
    }

    /// Fills the part of a dropout mask that begins at element `start` (modulo 2^32): `kept` where the element's bits
    /// reach the threshold, 0 elsewhere.
    pub fn dropout_mask(mask: &mut [f32], start: u32, constants: &MaskConstants) {
        let MaskConstants { low, high, threshold, scale } = *constants;
        let mut position = start;
        for mask in mask.iter_mut() {
            let bits = hash(position, low, high);
            *mask = if bits >= threshold { scale } else { 0.0 };
            position = position.wrapping_add(1);
        }
    }
}

/// A counter-based generator: the bits of one element. The mixing steps are those of a 32-bit finaliser with good
/// avalanche (C. Wellons, "Prospecting for hash functions", 2018).
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must become part of the vectorised loops")]
fn hash(position: u32, low: u32, high: u32) -> u32 {
    let mut bits = (position ^ low).wrapping_mul(0x9E37_79B9) ^ high;
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(0x21F0_AAAD);
    bits ^= bits >> 15;
    bits = bits.wrapping_mul(0x735A_2D97);
    bits ^ (bits >> 15)
}
