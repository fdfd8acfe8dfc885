//! Backward passes in tensor operations, for backends with fast forms of the operations that most of the time goes to. What
//! is here comes once a forward pass, or only where a feature encoder is trained.

use burn::tensor::{
    Tensor, TensorPrimitive,
    backend::Backend,
    ops::{ConvOptions, FloatTensor},
};

use super::{ConvolutionGradients, Lengths, NormGradients, WeightNormGradients};

/// See [`super::TrainOps::convolution_backward`].
pub fn convolution_backward<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 3>,
    stride: usize,
    gradient: Tensor<B, 3>,
    [x_is_needed, weight_is_needed, bias_is_needed]: [bool; 3],
) -> ConvolutionGradients<B> {
    let ([batch, time, inputs], [outputs, _, kernel]) = (x.dims(), weight.dims());
    let [_, mut frames, _] = gradient.dims();
    let zeros = |time: usize, width: usize| Tensor::zeros([batch, time, width], (&x.device(), x.dtype()));
    // Where Burn's kernels are wrong on GPUs, zeros are added that change nothing. With one frame (its reshape of a gradient
    // with a time of one reads other places): a second frame without a gradient.
    let mut gradient = gradient;
    if stride > 1 && frames == 1 {
        frames += 1;
        gradient = Tensor::cat(vec![gradient, zeros(1, outputs)], 1);
    }
    // With strides that leave samples out: a kernel that reaches them.
    let mut weight = weight;
    if stride > kernel {
        let none = Tensor::zeros([outputs, inputs, stride - kernel], (&weight.device(), weight.dtype()));
        weight = Tensor::cat(vec![weight, none], 2);
    }
    let reached = (frames - 1) * stride + kernel.max(stride);
    let x = if reached > time { Tensor::cat(vec![x.clone(), zeros(reached - time, inputs)], 1) } else { x };
    let bias = bias_is_needed.then(|| gradient.clone().sum_dim(0).sum_dim(1).reshape([outputs]));
    let options = || ConvOptions::new([stride], [0], [1], 1);
    let (x, weight) = (float(x.swap_dims(1, 2)), float(weight));
    let gradient = float(gradient.swap_dims(1, 2));
    let x_gradient = x_is_needed.then(|| {
        let x = B::conv1d_x_backward(x.clone(), weight.clone(), gradient.clone(), options());
        tensor::<B, 3>(x).swap_dims(1, 2).narrow(1, 0, time)
    });
    let weight = weight_is_needed.then(|| {
        let weight = B::conv1d_weight_backward(x, weight, gradient, options());
        tensor::<B, 3>(weight).narrow(2, 0, kernel)
    });
    ConvolutionGradients { x: x_gradient, weight, bias }
}

/// See [`super::TrainOps::masked_group_norm_backward`].
pub fn masked_group_norm_backward<B: Backend>(
    x: Tensor<B, 3>,
    weight: Tensor<B, 1>,
    lengths: &Lengths,
    epsilon: f64,
    gradient: Tensor<B, 3>,
) -> NormGradients<B, 3> {
    let ([batch, frames, channels], device) = (x.dims(), x.device());
    let mask = lengths.mask::<B>(&device).reshape([batch, frames, 1]);
    let counts = lengths.counts::<B>(&device).clamp_min(1.0).reshape([batch, 1, 1]);
    let mean_of = |x: Tensor<B, 3>| (x * mask.clone()).sum_dim(1) / counts.clone();
    let centred = (x.clone() - mean_of(x)) * mask.clone();
    let inverse = (mean_of(centred.clone().square()) + epsilon).sqrt().recip();
    let normal = centred * inverse.clone();
    let over_all = |x: Tensor<B, 3>| x.sum_dim(0).sum_dim(1).reshape([channels]);
    // Padded frames come out as the bias alone: their gradient moves nothing else.
    let bias = over_all(gradient.clone());
    let weight_gradient = over_all(gradient.clone() * normal.clone());
    let scaled = gradient * weight.unsqueeze();
    let along = mean_of(scaled.clone() * normal.clone());
    let x = (scaled.clone() - mean_of(scaled) - normal * along) * inverse * mask;
    NormGradients { x, weight: weight_gradient, bias }
}

/// See [`super::TrainOps::weight_norm_backward`].
pub fn weight_norm_backward<B: Backend>(
    direction: Tensor<B, 3>,
    length: Tensor<B, 3>,
    gradient: Tensor<B, 3>,
) -> WeightNormGradients<B> {
    let over_kernel = |x: Tensor<B, 3>| x.sum_dim(0).sum_dim(1);
    let squared = over_kernel(direction.clone().square());
    let norm = squared.clone().sqrt();
    let along = over_kernel(gradient.clone() * direction.clone());
    WeightNormGradients {
        length: along.clone() / norm.clone(),
        direction: (gradient - direction * (along / squared)) * (length / norm),
    }
}

fn float<B: Backend, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

fn tensor<B: Backend, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::{Flex, flex::FlexDevice},
        tensor::TensorData,
    };

    use super::{super::TrainOps, *};
    use crate::random::Random;

    #[expect(clippy::cast_possible_truncation, reason = "single precision")]
    fn normal<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<Flex, D> {
        let mut random = Random::new(seed);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &FlexDevice)
    }

    #[track_caller]
    fn assert_near<const D: usize>(found: Tensor<Flex, D>, expected: Tensor<Flex, D>) {
        assert_eq!(found.dims(), expected.dims());
        let largest = expected.clone().abs().max().into_scalar().max(1e-6);
        let error = (found - expected).abs().max().into_scalar() / largest;
        assert!(error < 1e-4, "off by {error:e}");
    }

    /// Against the CPU's own, which are compared with the plain forms and `PyTorch` elsewhere.
    #[test]
    fn they_are_the_gradients_of_the_operations() {
        for (time, kernel, stride) in
            [(9, 3, 2), (4, 3, 2), (3, 3, 2), (7, 2, 2), (10, 10, 5), (6, 3, 1), (1, 1, 1), (9, 2, 4), (3, 2, 5)]
        {
            let (x, weight) = (normal([2, time, 3], 1), normal([4, 3, kernel], 2));
            let gradient = normal([2, (time - kernel) / stride + 1, 4], 3);
            let inputs = (x.clone(), weight.clone(), gradient.clone());
            let found = convolution_backward(inputs.0, inputs.1, stride, inputs.2, [true; 3]);
            let expected = Flex::convolution_backward(x, weight, stride, gradient, [true; 3]);
            assert_near(found.x.unwrap(), expected.x.unwrap());
            assert_near(found.weight.unwrap(), expected.weight.unwrap());
            assert_near(found.bias.unwrap(), expected.bias.unwrap());
        }
        for lengths in [Lengths::full(3, 7), Lengths::new(vec![7, 1, 4], 7)] {
            let (x, weight, gradient) = (normal([3, 7, 5], 4), normal([5], 5), normal([3, 7, 5], 6));
            let inputs = (x.clone(), weight.clone(), gradient.clone());
            let found = masked_group_norm_backward(inputs.0, inputs.1, &lengths, 1e-5, inputs.2);
            let expected = Flex::masked_group_norm_backward(x, weight, &lengths, 1e-5, gradient);
            assert_near(found.x, expected.x);
            assert_near(found.weight, expected.weight);
            assert_near(found.bias, expected.bias);
        }
        let (direction, length, gradient) = (normal([6, 3, 4], 7), normal([1, 1, 4], 8), normal([6, 3, 4], 9));
        let found = weight_norm_backward(direction.clone(), length.clone(), gradient.clone());
        let expected = Flex::weight_norm_backward(direction, length, gradient);
        assert_near(found.direction, expected.direction);
        assert_near(found.length, expected.length);
    }
}
