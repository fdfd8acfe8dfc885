//! The grouped convolution that keeps the length, as one product of matrices for all groups: of the windows that the frames
//! see with the weights. For backends whose convolutions with groups are slow, and so is a launch for each group.

use std::ops::Range;

use burn::tensor::{Tensor, backend::Backend};

use super::{ConvolutionGradients, Ops};

/// Elements of windows that are laid out at once, where one group of one utterance does not have more.
const MOST: usize = if cfg!(test) { 1 << 8 } else { 1 << 26 };

/// See [`super::Ops::positional_convolution`].
pub fn positional_convolution<B: Ops>(
    x: &Tensor<B, 3>,
    weight: Tensor<B, 3>,
    bias: Tensor<B, 1>,
    groups: usize,
) -> Tensor<B, 3> {
    let [width, channels, kernel] = weight.dims();
    let matrices = weight.reshape([groups, width / groups, channels * kernel]).swap_dims(1, 2);
    correlated(x, &matrices, kernel, kernel / 2) + bias.unsqueeze()
}

/// See [`super::TrainOps::positional_convolution_backward`].
pub fn positional_convolution_backward<B: Ops>(
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
        let (x, gradient) = (by_group(x, groups), by_group(&gradient, groups));
        let part = |groups: Range<usize>| {
            let parts = examples(&x, groups.len(), kernel).into_iter().map(|examples| {
                let x = x.clone().slice([groups.clone(), examples.clone()]);
                let gradient = gradient.clone().slice([groups.clone(), examples.clone()]);
                let rows = [groups.len(), examples.len() * x.dims()[2], outputs];
                B::stacked_product(gradient.reshape(rows).swap_dims(1, 2), windows(x, kernel, kernel / 2))
            });
            parts.reduce(|sum, part| sum + part)
        };
        let parts: Vec<Tensor<B, 3>> = together(&x, kernel).into_iter().filter_map(part).collect();
        joined(parts, 0).reshape([width, channels, kernel])
    });
    let bias = bias_is_needed.then(|| gradient.sum_dim(0).sum_dim(1).reshape([width]));
    ConvolutionGradients { x: x_gradient, weight: weight_gradient, bias }
}

/// For each frame the product of the window that begins `left` frames before it with its group's matrix
/// [channels * kernel, outputs]: x [batch, time, groups * channels] -> [batch, time, groups * outputs].
fn correlated<B: Ops>(x: &Tensor<B, 3>, matrices: &Tensor<B, 3>, kernel: usize, left: usize) -> Tensor<B, 3> {
    let [groups, _, outputs] = matrices.dims();
    let [batch, time, _] = x.dims();
    let x = by_group(x, groups);
    let part = |groups: Range<usize>| {
        let matrices = matrices.clone().slice([groups.clone()]);
        let parts = examples(&x, groups.len(), kernel).into_iter().map(|examples| {
            let count = examples.len();
            let windows = windows(x.clone().slice([groups.clone(), examples]), kernel, left);
            B::stacked_product(windows, matrices.clone()).reshape([groups.len(), count, time, outputs])
        });
        joined(parts.collect(), 1)
    };
    let y = joined(together(&x, kernel).into_iter().map(part).collect(), 0); // [groups, batch, time, outputs]
    y.permute([1, 2, 0, 3]).reshape([batch, time, groups * outputs])
}

/// The groups that may have the windows of an example laid out at once, and the next ones, and so on.
fn together<B: Backend>(x: &Tensor<B, 4>, kernel: usize) -> Vec<Range<usize>> {
    let [groups, _, time, channels] = x.dims();
    pieces(groups, MOST / (time * channels * kernel).max(1))
}

/// The same of the examples, for this many groups.
fn examples<B: Backend>(x: &Tensor<B, 4>, groups: usize, kernel: usize) -> Vec<Range<usize>> {
    let [_, batch, time, channels] = x.dims();
    pieces(batch, MOST / (groups * time * channels * kernel).max(1))
}

fn pieces(count: usize, at_once: usize) -> Vec<Range<usize>> {
    let at_once = at_once.max(1);
    (0..count).step_by(at_once).map(|start| start..count.min(start + at_once)).collect()
}

fn joined<B: Backend, const D: usize>(mut parts: Vec<Tensor<B, D>>, dim: usize) -> Tensor<B, D> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, dim) }
}

/// [batch, time, groups * channels] -> [groups, batch, time, channels]
fn by_group<B: Backend>(x: &Tensor<B, 3>, groups: usize) -> Tensor<B, 4> {
    let [batch, time, width] = x.dims();
    x.clone().reshape([batch, time, groups, width / groups]).permute([2, 0, 1, 3])
}

/// The windows of the frames, each beginning `left` frames before its own, with zeros around the utterance:
/// [groups, batch, time, channels] -> [groups, batch * time, channels * kernel].
fn windows<B: Backend>(x: Tensor<B, 4>, kernel: usize, left: usize) -> Tensor<B, 3> {
    let [groups, batch, time, channels] = x.dims();
    let zeros = Tensor::<B, 4>::zeros([groups, batch, time + kernel - 1, channels], (&x.device(), x.dtype()));
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

    /// Against the plain form, whose values are compared with loops by hand elsewhere, and what Burn derives from it.
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
    fn windows_that_are_too_many_are_laid_out_in_parts() {
        assert_eq!(pieces(3, 9).first(), Some(&(0..3)));
        assert_eq!(pieces(5, 2), [0..2, 2..4, 4..5]);
        assert_eq!(pieces(2, 0), [0..1, 1..2]);
        let x = normal([4, 3, 2, 8], 1);
        assert_eq!((together(&x, MOST / 32), together(&x, MOST)), (vec![0..2, 2..4], pieces(4, 1)));
        assert_eq!((examples(&x, 2, MOST / 64), examples(&x, 2, MOST / 32)), (vec![0..2, 2..3], pieces(3, 1)));
    }
}
