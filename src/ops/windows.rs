//! The grouped convolution that keeps the length, as one product of matrices for all groups: of the windows that the frames
//! see with the weights. For backends whose convolutions with groups are slow, and so is a launch for each group.

use burn::tensor::{Tensor, backend::Backend};

use super::ConvolutionGradients;

/// Elements of windows that are laid out at once, where an utterance does not have more.
const MOST: usize = 1 << 27;

/// See [`super::Ops::positional_convolution`].
#[must_use]
pub fn positional_convolution<B: Backend>(
    x: &Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 1>,
    groups: usize,
) -> Tensor<B, 3> {
    let [width, channels, kernel] = weight.dims();
    let matrices = weight.reshape([groups, width / groups, channels * kernel]).swap_dims(1, 2);
    correlated(x, &matrices, kernel, kernel / 2) + bias.unsqueeze()
}

/// See [`super::Ops::positional_convolution_backward`].
#[must_use]
pub fn positional_convolution_backward<B: Backend>(
    x: &Tensor<B, 3>,
    weight: Tensor<B, 3>,
    groups: usize,
    gradient: Tensor<B, 3>,
    [x_is_needed, weight_is_needed, bias_is_needed]: [bool; 3],
) -> ConvolutionGradients<B> {
    let [width, channels, kernel] = weight.dims();
    let outputs = width / groups;
    let x_gradient = x_is_needed.then(|| {
        // Each frame hears of the frames that saw it: the same with input and output exchanged and time turned round.
        let turned = weight.reshape([groups, outputs, channels, kernel]).flip([3]).swap_dims(1, 2);
        let matrices = turned.reshape([groups, channels, outputs * kernel]).swap_dims(1, 2);
        correlated(&gradient, &matrices, kernel, kernel - 1 - kernel / 2)
    });
    let weight_gradient = weight_is_needed.then(|| {
        let parts = parts(x, kernel).into_iter().zip(parts(&gradient, kernel)).map(|(x, gradient)| {
            let gradient = by_group(gradient, groups); // [groups, examples * time, outputs]
            gradient.swap_dims(1, 2).matmul(windows(x, groups, kernel, kernel / 2))
        });
        let sum = parts.reduce(|sum, part| sum + part);
        sum.map(|sum| sum.reshape([width, channels, kernel]))
    });
    let bias = bias_is_needed.then(|| gradient.sum_dim(0).sum_dim(1).reshape([width]));
    ConvolutionGradients { x: x_gradient, weight: weight_gradient.flatten(), bias }
}

/// For each frame the product of the window that begins `left` frames before it with its group's matrix
/// [channels * kernel, outputs]: x [batch, time, groups * channels] -> [batch, time, groups * outputs].
fn correlated<B: Backend>(x: &Tensor<B, 3>, matrices: &Tensor<B, 3>, kernel: usize, left: usize) -> Tensor<B, 3> {
    let [groups, _, outputs] = matrices.dims();
    let part = |x: Tensor<B, 3>| {
        let [batch, time, _] = x.dims();
        let y = windows(x, groups, kernel, left).matmul(matrices.clone());
        y.reshape([groups, batch, time, outputs]).permute([1, 2, 0, 3]).reshape([batch, time, groups * outputs])
    };
    let mut parts: Vec<Tensor<B, 3>> = parts(x, kernel).into_iter().map(part).collect();
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}

/// As many examples as may have their windows laid out at once, and the next ones, and so on.
fn parts<B: Backend>(x: &Tensor<B, 3>, kernel: usize) -> Vec<Tensor<B, 3>> {
    let [batch, time, width] = x.dims();
    x.clone().split((MOST / (time * width * kernel).max(1)).clamp(1, batch.max(1)), 0)
}

/// [batch, time, groups * channels] -> [groups, batch * time, channels]
fn by_group<B: Backend>(x: Tensor<B, 3>, groups: usize) -> Tensor<B, 3> {
    let [batch, time, width] = x.dims();
    let channels = width / groups;
    x.reshape([batch * time, groups, channels]).swap_dims(0, 1)
}

/// The windows of so many frames, each `left` frames before its own, with zeros around the utterance:
/// [batch, time, groups * channels] -> [groups, batch * time, channels * kernel].
fn windows<B: Backend>(x: Tensor<B, 3>, groups: usize, kernel: usize, left: usize) -> Tensor<B, 3> {
    let [batch, time, width] = x.dims();
    let channels = width / groups;
    let zeros = Tensor::<B, 4>::zeros([groups, batch, time + kernel - 1, channels], (&x.device(), x.dtype()));
    let x = x.reshape([batch, time, groups, channels]).permute([2, 0, 1, 3]);
    let padded = zeros.slice_assign([0..groups, 0..batch, left..left + time, 0..channels], x);
    let windows: Tensor<B, 5> = padded.unfold(2, kernel, 1); // [groups, batch, time, channels, kernel]
    windows.reshape([groups, batch * time, channels * kernel])
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex, flex::FlexDevice};

    use super::{super::plain, *};
    use crate::random::Random;

    type Train = Autodiff<Flex>;

    #[expect(clippy::cast_possible_truncation, reason = "single precision")]
    fn normal<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<Flex, D> {
        let mut random = Random::new(seed);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
        Tensor::from_data(burn::tensor::TensorData::new(values, shape), &FlexDevice)
    }

    fn assert_near<const D: usize>(what: &str, found: Tensor<Flex, D>, expected: Tensor<Flex, D>, tolerance: f32) {
        assert_eq!(found.dims(), expected.dims(), "{what}");
        let largest = expected.clone().abs().max().into_scalar();
        let error = (found - expected).abs().max().into_scalar() / largest;
        assert!(error < tolerance, "{what} is off by {error:e}");
    }

    /// Against the plain form, whose values are held against loops by hand elsewhere, and what Burn derives from it.
    #[test]
    fn values_and_gradients_are_those_of_the_plain_form() {
        for (batch, time, width, groups, kernel) in
            [(1, 1, 2, 1, 4), (2, 9, 6, 3, 4), (2, 9, 6, 2, 5), (1, 3, 4, 4, 8), (1, 12, 4, 1, 1), (3, 37, 32, 4, 16)]
        {
            let what = format!("{batch} x {time} x {width}, {groups} groups, kernel {kernel}");
            let x = normal([batch, time, width], 1);
            let weight = normal([width, width / groups, kernel], 2);
            let bias = normal([width], 3);
            let gradient = normal([batch, time, width], 4);
            let tracked = |x: &Tensor<Flex, 3>| Tensor::<Train, 3>::from_inner(x.clone()).require_grad();
            let (plain_x, plain_weight) = (tracked(&x), tracked(&weight));
            let plain_bias = Tensor::<Train, 1>::from_inner(bias.clone()).require_grad();
            let expected =
                plain::positional_convolution(plain_x.clone(), plain_weight.clone(), plain_bias.clone(), groups);
            let found = positional_convolution(&x, weight.clone(), bias, groups);
            assert_near(&what, found, expected.clone().inner(), 1e-5);
            let gradients = (expected * Tensor::from_inner(gradient.clone())).sum().backward();
            let found = positional_convolution_backward(&x, weight, groups, gradient, [true; 3]);
            assert_near(&what, found.x.unwrap(), plain_x.grad(&gradients).unwrap(), 1e-4);
            assert_near(&what, found.weight.unwrap(), plain_weight.grad(&gradients).unwrap(), 1e-4);
            assert_near(&what, found.bias.unwrap(), plain_bias.grad(&gradients).unwrap(), 1e-4);
        }
    }

    #[test]
    fn a_batch_with_too_many_windows_is_done_in_parts() {
        let x = normal([3, 4, 8], 1);
        assert_eq!(parts(&x, MOST).len(), 3);
        assert_eq!(parts(&x, MOST / (4 * 8 * 2)).iter().map(|part| part.dims()[0]).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(parts(&x, 1).len(), 1);
    }
}
