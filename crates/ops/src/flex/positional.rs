//! The grouped convolution that keeps the length. The channels of a group are laid side by side with zeros on both ends,
//! so that the window of an output frame is one contiguous piece: a matrix product for each example and group.

use burn::{backend::Flex, tensor::Tensor};
use rayon::prelude::*;

use super::{
    Base, ConvolutionGradients, Matrix, Target, contiguous, from_vec, linear::column_sums, multiply, to_be_written,
};

#[derive(Clone, Copy)]
struct Size {
    batch: usize,
    time: usize,
    width: usize,
    groups: usize,
    /// Channels of a group.
    channels: usize,
    kernel: usize,
}

impl Size {
    fn new([batch, time, width]: [usize; 3], kernel: usize, groups: usize) -> Self {
        Self { batch, time, width, groups, channels: width / groups, kernel }
    }

    /// Elements of a window.
    fn window(self) -> usize {
        self.kernel * self.channels
    }

    /// Elements of a group of one example with its zeros.
    fn padded(self) -> usize {
        (self.time + self.kernel - 1) * self.channels
    }

    /// Zeros in front of an utterance.
    fn left(self) -> usize {
        self.kernel / 2
    }
}

/// [batch, time, width] -> [batch, groups, zeros + time + zeros, channels], with `left` frames of zeros in front.
fn regroup(x: &[f32], size: Size, left: usize) -> Vec<f32> {
    let channels = size.channels;
    let mut padded = vec![0.0_f32; size.batch * size.groups * size.padded()];
    padded.par_chunks_mut(size.padded()).enumerate().for_each(|(part, padded)| {
        let (example, group) = (part / size.groups, part % size.groups);
        let frames = padded[left * channels..].chunks_mut(channels).take(size.time);
        for (frame, target) in frames.enumerate() {
            let start = (example * size.time + frame) * size.width + group * channels;
            target.copy_from_slice(&x[start..start + channels]);
        }
    });
    padded
}

/// For each group the matrix [window, channels] whose element for (position, from, to) `pick` finds in the weight.
fn by_window(size: Size, pick: impl Fn(usize, usize, usize, usize) -> f32 + Sync) -> Vec<f32> {
    let mut matrices = vec![0.0_f32; size.groups * size.window() * size.channels];
    matrices.par_chunks_mut(size.channels).enumerate().for_each(|(row, values)| {
        let (group, place) = (row / size.window(), row % size.window());
        let (position, from) = (place / size.channels, place % size.channels);
        for (to, value) in values.iter_mut().enumerate() {
            *value = pick(group, position, from, to);
        }
    });
    matrices
}

/// Every window times its group's matrix, added to `y` [batch, time, width].
fn slide(padded: &[f32], matrices: &[f32], size: Size, y: &mut [f32]) {
    let target = Target::new(y, size.width);
    (0..size.batch * size.groups).into_par_iter().for_each(|part| {
        let (example, group) = (part / size.groups, part % size.groups);
        let left = Matrix::new(&padded[part * size.padded()..], size.channels, 1);
        let right = Matrix::new(&matrices[group * size.window() * size.channels..], size.channels, 1);
        let shape = (size.time, size.window(), size.channels);
        // SAFETY: the last window ends with its group's padding; each part has its own columns of its example's rows.
        unsafe {
            let target = target.at(example * size.time * size.width + group * size.channels);
            multiply(shape, target, Base::Existing, left, right, false);
        }
    });
}

/// Where the weight [width, channels, kernel] holds an element.
fn place(size: Size, group: usize, output: usize, input: usize, position: usize) -> usize {
    ((group * size.channels + output) * size.channels + input) * size.kernel + position
}

pub fn forward(x: Tensor<Flex, 3>, weight: Tensor<Flex, 3>, bias: Tensor<Flex, 1>, groups: usize) -> Tensor<Flex, 3> {
    let shape = x.dims();
    let size = Size::new(shape, weight.dims()[2], groups);
    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let (weight, bias) = (weight.storage::<f32>(), bias.storage::<f32>());
    let padded = regroup(x.storage(), size, size.left());
    let matrices = by_window(size, |group, position, from, to| weight[place(size, group, to, from, position)]);
    let mut y = to_be_written(size.batch * size.time * size.width);
    y.par_chunks_mut(size.width).for_each(|row| row.copy_from_slice(bias));
    slide(&padded, &matrices, size, &mut y);
    from_vec(y, shape)
}

pub fn backward(
    x: Tensor<Flex, 3>,
    weight: Tensor<Flex, 3>,
    groups: usize,
    gradient: Tensor<Flex, 3>,
    [needs_x, needs_weight, needs_bias]: [bool; 3],
) -> ConvolutionGradients<Flex> {
    let shape = x.dims();
    let weight_shape = weight.dims();
    let size = Size::new(shape, weight_shape[2], groups);
    let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
    let (weight, gradient) = (weight.storage::<f32>(), gradient.storage::<f32>());
    let x_gradient = needs_x.then(|| {
        // The same with the kernel turned round and input and output exchanged.
        let padded = regroup(gradient, size, size.kernel - 1 - size.left());
        let matrices = by_window(size, |group, position, from, to| {
            weight[place(size, group, from, to, size.kernel - 1 - position)]
        });
        let mut values = vec![0.0_f32; gradient.len()];
        slide(&padded, &matrices, size, &mut values);
        from_vec(values, shape)
    });
    let weight_gradient = needs_weight.then(|| {
        let padded = regroup(x.storage(), size, size.left());
        from_vec(weight_sums(&padded, gradient, size), weight_shape)
    });
    let bias_gradient = needs_bias.then(|| from_vec(column_sums(gradient, size.width), [size.width]));
    ConvolutionGradients { x: x_gradient, weight: weight_gradient, bias: bias_gradient }
}

/// The windows of each group, transposed, times its gradient, summed over the examples in their order.
fn weight_sums(padded: &[f32], gradient: &[f32], size: Size) -> Vec<f32> {
    let elements = size.window() * size.channels;
    let mut weight = vec![0.0_f32; size.groups * elements];
    weight.par_chunks_mut(elements).enumerate().for_each(|(group, weight)| {
        let mut sums = vec![0.0_f32; elements];
        for example in 0..size.batch {
            let part = example * size.groups + group;
            let left = Matrix::new(&padded[part * size.padded()..], size.channels, 1).transposed();
            let start = example * size.time * size.width + group * size.channels;
            let right = Matrix::new(&gradient[start..], size.width, 1);
            let shape = (size.window(), size.time, size.channels);
            let target = Target::new(&mut sums, size.channels);
            let base = if example > 0 { Base::Existing } else { Base::Zero };
            // SAFETY: as in `slide`; the sums are this task's own.
            unsafe { multiply(shape, target, base, left, right, false) };
        }
        for (index, value) in weight.iter_mut().enumerate() {
            let (position, rest) = (index % size.kernel, index / size.kernel);
            let (input, output) = (rest % size.channels, rest / size.channels);
            *value = sums[(position * size.channels + input) * size.channels + output];
        }
    });
    weight
}
