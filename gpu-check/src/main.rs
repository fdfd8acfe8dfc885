//! The operations on a GPU, or on what Vulkan shows as one, against the same on the CPU: values within 1e-5 of the largest
//! one, gradients within 1e-4. The kernels are those that CUDA gets; the compiler behind them is another one.

mod model;

use std::process::ExitCode;

use burn::{
    backend::{Autodiff, Flex, Wgpu, flex::FlexDevice, wgpu::WgpuDevice},
    tensor::{Tensor, TensorData, backend::AutodiffBackend},
};
use clasp::{
    ops::{AdamState, AdamStep, AttentionShape, Dropout, Lengths, Ops},
    random::Random,
};

type Cpu = Autodiff<Flex>;
type Gpu = Autodiff<Wgpu<f32, i32, u32>>;

/// What an operation gives: its result, and the gradients of its inputs.
type Outcome = Vec<(String, Vec<f32>)>;

fn normal(elements: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..elements).map(|_| random.normal() as f32).collect()
}

/// A tensor of random numbers that is tracked.
fn leaf<B: AutodiffBackend, const D: usize>(shape: [usize; D], seed: u64, device: &B::Device) -> Tensor<B, D> {
    let values = normal(shape.iter().product(), seed);
    Tensor::from_data(TensorData::new(values, shape), device).require_grad()
}

fn values<B: AutodiffBackend, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.into_data().to_vec().unwrap()
}

/// The result, and the gradients of three inputs for random gradients of the result.
fn outcome<B: AutodiffBackend, const D: usize, const X: usize, const Y: usize, const Z: usize>(
    result: Tensor<B, D>,
    x: &Tensor<B, X>,
    y: &Tensor<B, Y>,
    z: &Tensor<B, Z>,
) -> Outcome {
    let shape = result.dims();
    let weights =
        Tensor::<B, D>::from_data(TensorData::new(normal(shape.iter().product(), 77), shape), &result.device());
    let mut gradients = (result.clone() * weights).sum().backward();
    let mut all = vec![("value".to_owned(), values(result))];
    let mut add = |name: &str, data: Option<TensorData>| {
        if let Some(data) = data {
            all.push((name.to_owned(), data.to_vec().unwrap()));
        }
    };
    add("gradient of the 1st input", x.grad_remove(&mut gradients).map(|gradient| gradient.into_data()));
    add("gradient of the 2nd input", y.grad_remove(&mut gradients).map(|gradient| gradient.into_data()));
    add("gradient of the 3rd input", z.grad_remove(&mut gradients).map(|gradient| gradient.into_data()));
    all
}

/// Every operation for one set of sizes.
fn operations<B>(size: &Size, device: &B::Device) -> Vec<(String, Outcome)>
where
    B: Ops + AutodiffBackend,
    B::InnerBackend: Ops,
{
    let Size { rows, inputs, outputs, valid, time, heads, kernel, stride } = size.clone();
    let batch = valid.len();
    let lengths = Lengths::new(valid, time);
    let dropout = Dropout { probability: 0.1, key: 0x1234_5678_9ABC_DEF0 };
    let mut all = Vec::new();
    let mut add = |name: &str, outcome: Outcome| all.push((name.to_owned(), outcome));

    let x = leaf::<B, 2>([rows, inputs], 1, device);
    let weight = leaf::<B, 2>([outputs, inputs], 2, device);
    let bias = leaf::<B, 1>([outputs], 3, device);
    let y = <B as Ops>::linear(x.clone(), weight.clone(), Some(bias.clone()));
    add("linear", outcome(y, &x, &weight, &bias));
    let y = <B as Ops>::linear(x.clone(), weight.clone(), None);
    add("linear without bias", outcome(y, &x, &weight, &bias));
    add("gelu", outcome(<B as Ops>::gelu(x.clone()), &x, &weight, &bias));
    add("dropped", outcome(<B as Ops>::dropped(x.clone(), dropout), &x, &weight, &bias));
    let mask = <B as Ops>::dropout_mask([rows, inputs], dropout, device);
    add("dropout mask", vec![("value".into(), values(mask))]);

    let (scale, shift) = (leaf::<B, 1>([inputs], 4, device), leaf::<B, 1>([inputs], 5, device));
    let y = <B as Ops>::layer_norm(x.clone(), scale.clone(), shift.clone(), 1e-5);
    add("layer norm", outcome(y, &x, &scale, &shift));

    let width = heads * 8;
    let [query, key, value] = [6, 7, 8].map(|seed| leaf::<B, 2>([batch * time, width], seed, device));
    let shape = AttentionShape { heads, lengths: &lengths };
    for (name, dropout) in [("attention", None), ("attention with dropout", Some(dropout))] {
        let y = <B as Ops>::attention(query.clone(), key.clone(), value.clone(), shape, dropout);
        // What comes out at padded queries means nothing.
        let real = lengths.mask::<B>(device).reshape([batch * time, 1]);
        add(name, outcome(y * real, &query, &key, &value));
    }

    let channels = 6;
    let frames = leaf::<B, 3>([batch, time, channels], 9, device);
    let (scale, shift) = (leaf::<B, 1>([channels], 10, device), leaf::<B, 1>([channels], 11, device));
    let y = <B as Ops>::masked_group_norm(frames.clone(), scale.clone(), shift.clone(), &lengths, 1e-5);
    add("masked group norm", outcome(y, &frames, &scale, &shift));
    if time >= kernel {
        let weight = leaf::<B, 3>([4, channels, kernel], 12, device);
        let bias = leaf::<B, 1>([4], 13, device);
        let y = <B as Ops>::convolution(frames.clone(), weight.clone(), Some(bias.clone()), stride);
        add("convolution", outcome(y, &frames, &weight, &bias));
    }
    let weight = leaf::<B, 3>([channels, channels / 2, kernel], 14, device);
    let bias = leaf::<B, 1>([channels], 15, device);
    let y = <B as Ops>::positional_convolution(frames.clone(), weight.clone(), bias.clone(), 2);
    add("positional convolution", outcome(y, &frames, &weight, &bias));
    let length = leaf::<B, 3>([1, 1, kernel], 16, device);
    add("weight norm", outcome(<B as Ops>::weight_norm(weight.clone(), length.clone()), &weight, &length, &bias));

    let table = leaf::<B, 2>([outputs, inputs], 17, device);
    let indices: Vec<i32> = (0..rows).map(|row| (row * 7 % outputs.min(5)) as i32).collect();
    let indices = Tensor::from_data(TensorData::new(indices, [rows]), device);
    add("rows", outcome(<B as Ops>::rows(table.clone(), indices), &table, &x, &bias));

    let tensors = [(1, 18), (inputs, 19), (rows * inputs, 20)];
    let tensors = tensors.map(|(elements, seed)| leaf::<B, 1>([elements], seed, device).inner());
    let norms = <B::InnerBackend as Ops>::squared_norms(tensors.to_vec());
    add("squared norms", vec![("value".into(), norms.into_data().to_vec().unwrap())]);

    for (decoupled, weight_decay, step) in [(false, 0.0, 1), (false, 0.1, 2), (true, 0.1, 30)] {
        let [weight, first, second] = [21, 22, 23].map(|seed| leaf::<B, 2>([rows, inputs], seed, device).inner());
        let gradient = leaf::<B, 2>([rows, inputs], 24, device).inner();
        let step = AdamStep {
            learning_rate: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay,
            decoupled,
            gradient_scale: 0.5,
            step,
        };
        let before = weight.clone();
        let state = AdamState { weight, first, second: second.abs() };
        let after = <B::InnerBackend as Ops>::adam(state, gradient, &step);
        // The old weight is somebody else's too, and must be as it was.
        let tensors =
            [("the old weight", before), ("weight", after.weight), ("first", after.first), ("second", after.second)];
        let read = |(name, tensor): (&str, Tensor<B::InnerBackend, 2>)| {
            (name.to_owned(), tensor.into_data().to_vec().unwrap())
        };
        add("adam", tensors.into_iter().map(read).collect());
    }
    all
}

/// Of matrices that are large enough for every kind of kernel.
fn stacked_product<B: Ops + AutodiffBackend>(inner: usize, device: &B::Device) -> Outcome {
    let x = leaf::<B, 3>([2, 600, inner], 30, device);
    let y = leaf::<B, 3>([2, inner, 40], 31, device);
    outcome(B::stacked_product(x.clone(), y.clone()), &x, &y, &x)
}

#[derive(Clone, Debug)]
struct Size {
    rows: usize,
    inputs: usize,
    outputs: usize,
    valid: Vec<usize>,
    time: usize,
    heads: usize,
    kernel: usize,
    stride: usize,
}

fn size([rows, inputs, outputs]: [usize; 3], valid: &[usize], time: usize, rest: [usize; 3]) -> Size {
    let [heads, kernel, stride] = rest;
    Size { rows, inputs, outputs, valid: valid.to_vec(), time, heads, kernel, stride }
}

/// Prints how far two outcomes are apart; whether they are as near as they should be.
fn compare(operation: &str, expected: &Outcome, found: &Outcome, bounds: impl Fn(&str) -> f32) -> bool {
    let mut is_right = expected.len() == found.len();
    let mut words = Vec::new();
    for ((what, expected), (_, found)) in expected.iter().zip(found) {
        let largest = expected.iter().fold(1e-20_f32, |largest, value| largest.max(value.abs()));
        let differences = expected.iter().zip(found).map(|(expected, found)| (expected - found).abs());
        let has_all = expected.len() == found.len() && found.iter().all(|value| value.is_finite());
        let error = differences.fold(0.0, f32::max) / largest;
        let is_near = has_all && error <= bounds(what);
        is_right &= is_near;
        words.push(format!("{}{what} {error:.1e}", if is_near { "" } else { "WRONG: " }));
    }
    println!("  {operation}: {}{}", words.join(", "), if is_right { "" } else { " WRONG" });
    is_right
}

fn main() -> ExitCode {
    let sizes = [
        size([5, 8, 3], &[8, 8], 8, [2, 3, 2]),
        size([37, 24, 40], &[16, 5, 1], 16, [3, 4, 5]),
        size([300, 520, 33], &[288, 100], 288, [1, 2, 2]),
        size([1100, 72, 64], &[3], 3, [4, 3, 2]),
        size([2100, 7, 5], &[608, 1], 608, [2, 10, 1]),
    ];
    let mut is_right = true;
    let bounds = |what: &str| if what.starts_with("gradient") { 1e-4 } else { 1e-5 };
    for size in &sizes {
        println!("{size:?}");
        let expected = operations::<Cpu>(size, &FlexDevice);
        let found = operations::<Gpu>(size, &WgpuDevice::default());
        for ((operation, expected), (_, found)) in expected.iter().zip(&found) {
            is_right &= compare(operation, expected, found, bounds);
        }
    }
    println!("products, each by its inner size");
    for inner in [8, 72, 128, 232, 256, 600, 608, 904] {
        let expected = stacked_product::<Cpu>(inner, &FlexDevice);
        let found = stacked_product::<Gpu>(inner, &WgpuDevice::default());
        is_right &= compare(&inner.to_string(), &expected, &found, bounds);
    }
    for (name, is_stable) in [("group norm", false), ("layer norm", true)] {
        println!("training of a model whose speech encoder has {name}");
        let expected = model::training::<Flex>(is_stable, &FlexDevice);
        let found = model::training::<Wgpu<f32, i32, u32>>(is_stable, &WgpuDevice::default());
        is_right &= compare("four steps", &expected, &found, |_| 1e-3);
    }
    println!("{}", if is_right { "all as on the CPU" } else { "WRONG" });
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
