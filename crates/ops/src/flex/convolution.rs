//! Convolution over time without copying windows: in `[time, channels]` the window of an output frame is one contiguous
//! piece of the input, so that all windows are the rows of a matrix whose rows overlap.

use burn::{backend::Flex, tensor::Tensor};
use rayon::prelude::*;

use super::{
    Base, ConvolutionGradients, Matrix, Target, contiguous, from_vec, linear::column_sums, multiply, to_be_written,
};

/// Multiply-adds above which one example is worth all threads.
const LARGE: usize = 1 << 26;

/// Sizes of a convolution.
#[derive(Clone, Copy)]
struct Size {
    batch: usize,
    time: usize,
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    frames: usize,
}

impl Size {
    fn new([batch, time, input]: [usize; 3], [output, _, kernel]: [usize; 3], stride: usize) -> Self {
        let frames = if time < kernel { 0 } else { (time - kernel) / stride + 1 };
        Self { batch, time, input, output, kernel, stride, frames }
    }

    /// Elements of a window.
    fn window(self) -> usize {
        self.kernel * self.input
    }

    /// The windows of one example as the rows of a matrix.
    fn windows(self, x: &[f32]) -> Matrix {
        Matrix::new(x, self.stride * self.input, 1)
    }

    /// Whether each example gets all threads, one after another, or a thread each.
    fn is_large(self) -> bool {
        self.frames * self.window() * self.output > LARGE
    }

    /// Runs `work` for each example.
    fn for_each(self, work: impl Fn(usize, bool) + Sync) {
        if self.is_large() {
            (0..self.batch).for_each(|example| work(example, true));
        } else {
            (0..self.batch).into_par_iter().for_each(|example| work(example, false));
        }
    }
}

/// [output, input, kernel] -> [output, kernel * input], each row in the order of a window.
fn by_window(weight: &[f32], size: Size) -> Vec<f32> {
    let mut rows = to_be_written(weight.len());
    rows.par_chunks_mut(size.window()).zip(weight.par_chunks(size.window())).for_each(|(row, weight)| {
        for (position, row) in row.chunks_mut(size.input).enumerate() {
            for (value, weight) in row.iter_mut().zip(weight.chunks(size.kernel)) {
                *value = weight[position];
            }
        }
    });
    rows
}

pub fn forward(
    x: Tensor<Flex, 3>,
    weight: Tensor<Flex, 3>,
    bias: Option<Tensor<Flex, 1>>,
    stride: usize,
) -> Tensor<Flex, 3> {
    let size = Size::new(x.dims(), weight.dims(), stride);
    let (x, weight, bias) = (contiguous(x), contiguous(weight), bias.map(contiguous));
    let x = x.storage::<f32>();
    let weight = by_window(weight.storage(), size);
    let mut y = to_be_written(size.batch * size.frames * size.output);
    let base = bias.as_ref().map_or(Base::Zero, |bias| Base::Row(bias.storage()));
    let target = Target::new(&mut y, size.output);
    let right = Matrix::new(&weight, size.window(), 1).transposed();
    size.for_each(|example, is_parallel| {
        let left = size.windows(&x[example * size.time * size.input..]);
        let shape = (size.frames, size.window(), size.output);
        // SAFETY: the last window ends within the example; each example has its own part of y.
        unsafe {
            let target = target.at(example * size.frames * size.output);
            multiply(shape, target, base, left, right, is_parallel);
        }
    });
    from_vec(y, [size.batch, size.frames, size.output])
}

pub fn backward(
    x: Tensor<Flex, 3>,
    weight: Tensor<Flex, 3>,
    stride: usize,
    gradient: Tensor<Flex, 3>,
    [needs_x, needs_weight, needs_bias]: [bool; 3],
) -> ConvolutionGradients<Flex> {
    let size = Size::new(x.dims(), weight.dims(), stride);
    let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
    let (x, gradient) = (x.storage::<f32>(), gradient.storage::<f32>());
    ConvolutionGradients {
        x: needs_x.then(|| x_gradient(weight.storage(), gradient, size)),
        weight: needs_weight.then(|| weight_gradient(x, gradient, size)),
        bias: needs_bias.then(|| from_vec(column_sums(gradient, size.output), [size.output])),
    }
}

/// The gradient of every window, added where windows overlap.
fn x_gradient(weight: &[f32], gradient: &[f32], size: Size) -> Tensor<Flex, 3> {
    let weight = by_window(weight, size);
    let right = Matrix::new(&weight, size.window(), 1);
    let length = size.time * size.input;
    let mut x_gradient = vec![0.0_f32; size.batch * length];
    x_gradient.par_chunks_mut(length.max(1)).enumerate().for_each(|(example, x_gradient)| {
        let mut windows = to_be_written(size.frames * size.window());
        let left = Matrix::new(&gradient[example * size.frames * size.output..], size.output, 1);
        let target = Target::new(&mut windows, size.window());
        // SAFETY: [frames, output] times [output, window] into [frames, window].
        unsafe { multiply((size.frames, size.output, size.window()), target, Base::Zero, left, right, false) };
        for (frame, window) in windows.chunks(size.window()).enumerate() {
            let start = frame * size.stride * size.input;
            super::kernels::add(window, &mut x_gradient[start..start + size.window()]);
        }
    });
    from_vec(x_gradient, [size.batch, size.time, size.input])
}

/// The sum over examples of each one's windows, transposed, times its gradient.
fn weight_gradient(x: &[f32], gradient: &[f32], size: Size) -> Tensor<Flex, 3> {
    let elements = size.window() * size.output;
    // Each example has a sum of its own, so that the order of adding does not depend on the number of threads.
    let mut parts = to_be_written(size.batch * elements);
    let target = Target::new(&mut parts, size.output);
    size.for_each(|example, is_parallel| {
        let left = size.windows(&x[example * size.time * size.input..]).transposed();
        let right = Matrix::new(&gradient[example * size.frames * size.output..], size.output, 1);
        let shape = (size.window(), size.frames, size.output);
        // SAFETY: as in `forward`; each example has its own part.
        unsafe { multiply(shape, target.at(example * elements), Base::Zero, left, right, is_parallel) };
    });
    let (sum, others) = parts.split_at_mut(elements);
    others.chunks(elements).for_each(|part| super::kernels::add(part, sum));
    // [kernel * input, output] -> [output, input, kernel]
    let mut weight = vec![0.0_f32; elements];
    weight.par_chunks_mut(size.window()).enumerate().for_each(|(output, values)| {
        for (place, value) in values.iter_mut().enumerate() {
            let (channel, position) = (place / size.kernel, place % size.kernel);
            *value = sum[(position * size.input + channel) * size.output + output];
        }
    });
    from_vec(weight, [size.output, size.input, size.kernel])
}
