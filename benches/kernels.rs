//! `cargo bench --bench kernels -- [NAME]`: each operation of the model at the base model's sizes (batch 4, 4.5 seconds,
//! 20 tokens), in its fast form and its plain one. Milliseconds are medians; a product's row also says how many
//! floating-point operations a second it does.

use std::time::Instant;

use burn::{
    backend::{Flex, flex::FlexDevice},
    tensor::Tensor,
};

use clasp::{
    memory::allocator::ReportingAllocator,
    nn::Init,
    ops::{AdamState, AdamStep, AttentionShape, Dropout, Lengths, Ops, TrainOps, plain},
};

#[global_allocator]
static ALLOCATOR: ReportingAllocator = ReportingAllocator;

type B = Flex;

/// Seconds that an operation is measured for, and how often at least.
const SECONDS: f64 = 0.4;
const ROUNDS: usize = 5;

/// The shapes of the speech encoder's layers.
const ROWS: usize = BATCH * FRAMES;
const BATCH: usize = 4;
const FRAMES: usize = 224;
const WIDTH: usize = 768;
const INNER: usize = 3072;

struct Bench {
    only: Option<String>,
}

impl Bench {
    /// Measures and prints one row; `operations` is 0 where they are not what counts.
    #[expect(clippy::print_stdout, reason = "this is its output")]
    fn row<T>(&self, name: &str, operations: usize, mut work: impl FnMut() -> T) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        work();
        let began = Instant::now();
        let mut seconds = Vec::new();
        while seconds.len() < ROUNDS || began.elapsed().as_secs_f64() < SECONDS {
            let started = Instant::now();
            let result = work();
            seconds.push(started.elapsed().as_secs_f64());
            drop(result);
        }
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        #[expect(clippy::cast_precision_loss, reason = "a number that is shown")]
        let rate =
            if operations > 0 { format!("{:8.1} GFLOP/s", operations as f64 / median / 1e9) } else { String::new() };
        println!("{name:44} {:9.3} ms {rate}", median * 1e3);
    }
}

fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    Init::<B>::fresh(seed, &FlexDevice).uniform(shape, -1.0, 1.0).val()
}

fn main() {
    ReportingAllocator::keep_freed_memory();
    // Cargo adds `--bench`.
    let bench = Bench { only: std::env::args().skip(1).find(|argument| !argument.starts_with('-')) };
    linear(&bench);
    elementwise(&bench);
    attention(&bench);
    convolutions(&bench);
    optimizer(&bench);
}

fn linear(bench: &Bench) {
    // Rows of the speech encoder, of the text encoder, and of one utterance of two seconds.
    for (rows, input, output) in
        [(ROWS, WIDTH, INNER), (ROWS, INNER, WIDTH), (ROWS, WIDTH, WIDTH), (80, WIDTH, INNER), (99, WIDTH, INNER)]
    {
        let (x, weight, bias) = (random([rows, input], 1), random([output, input], 2), random([output], 3));
        let gradient = random([rows, output], 4);
        let operations = 2 * rows * input * output;
        let name = format!("linear {rows}x{input}x{output}");
        bench.row(&name, operations, || B::linear(x.clone(), weight.clone(), Some(bias.clone())));
        bench.row(&format!("{name} backward"), 2 * operations, || {
            B::linear_backward(x.clone(), weight.clone(), gradient.clone(), [true; 3])
        });
        bench
            .row(&format!("{name} plain"), operations, || plain::linear(x.clone(), weight.clone(), Some(bias.clone())));
    }
}

fn elementwise(bench: &Bench) {
    let x = random([ROWS, INNER], 1);
    bench.row("gelu 896x3072", 0, || <B as Ops>::gelu(x.clone()));
    bench.row("gelu 896x3072 backward", 0, || B::gelu_backward(x.clone(), x.clone()));
    bench.row("gelu 896x3072 plain", 0, || plain::gelu(x.clone()));
    let (x, weight, bias) = (random([ROWS, WIDTH], 1), random([WIDTH], 2), random([WIDTH], 3));
    bench.row("layer norm 896x768", 0, || <B as Ops>::layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5));
    bench.row("layer norm 896x768 backward", 0, || B::layer_norm_backward(x.clone(), weight.clone(), 1e-5, x.clone()));
    bench.row("layer norm 896x768 plain", 0, || plain::layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5));
    let dropout = Dropout { probability: 0.1, key: 7 };
    bench.row("dropout mask 896x768", 0, || B::dropout_mask([ROWS, WIDTH], dropout, &x.device()));
    bench.row("dropout mask 896x768 plain", 0, || plain::dropout_mask::<B, 2>([ROWS, WIDTH], dropout, &x.device()));
}

fn attention(bench: &Bench) {
    let lengths = Lengths::full(BATCH, FRAMES);
    let shape = AttentionShape { heads: 12, lengths: &lengths };
    let [query, key, value, gradient] = [1, 2, 3, 4].map(|seed| random([ROWS, WIDTH], seed));
    let operations = 4 * BATCH * FRAMES * FRAMES * WIDTH;
    for (name, dropout) in [("", None), (" dropout", Some(Dropout { probability: 0.1, key: 7 }))] {
        let inputs = || (query.clone(), key.clone(), value.clone());
        bench.row(&format!("attention 4x224x768{name}"), operations, || {
            let (query, key, value) = inputs();
            B::attention(query, key, value, shape, dropout)
        });
        bench.row(&format!("attention 4x224x768{name} backward"), 2 * operations, || {
            let (query, key, value) = inputs();
            B::attention_backward([query, key, value], shape, dropout, gradient.clone())
        });
        bench.row(&format!("attention 4x224x768{name} plain"), operations, || {
            let (query, key, value) = inputs();
            plain::attention(query, key, value, shape, dropout)
        });
    }
}

fn convolutions(bench: &Bench) {
    // The first three of the feature encoder, of one utterance.
    for (time, input, output, kernel, stride) in
        [(72_000, 1, 512, 10, 5), (14_399, 512, 512, 3, 2), (7199, 512, 512, 3, 2)]
    {
        let (x, weight) = (random([1, time, input], 1), random([output, input, kernel], 2));
        let operations = 2 * ((time - kernel) / stride + 1) * input * output * kernel;
        let name = format!("convolution {time}x{input}x{output}, {kernel} by {stride}");
        bench.row(&name, operations, || <B as Ops>::convolution(x.clone(), weight.clone(), None, stride));
        bench.row(&format!("{name} plain"), operations, || plain::convolution(x.clone(), weight.clone(), None, stride));
    }
    let (x, weight, bias) = (random([1, 14_399, 512], 1), random([512], 2), random([512], 3));
    let lengths = Lengths::full(1, 14_399);
    bench.row("masked group norm 14399x512", 0, || {
        B::masked_group_norm(x.clone(), weight.clone(), bias.clone(), &lengths, 1e-5)
    });
    bench.row("masked group norm 14399x512 plain", 0, || {
        plain::masked_group_norm(x.clone(), weight.clone(), bias.clone(), &lengths, 1e-5)
    });
    let (groups, kernel) = (16, 128);
    let (x, weight, bias) =
        (random([BATCH, FRAMES, WIDTH], 1), random([WIDTH, WIDTH / groups, kernel], 2), random([WIDTH], 3));
    let operations = 2 * ROWS * WIDTH * WIDTH / groups * kernel;
    bench.row("positional convolution 4x224x768", operations, || {
        B::positional_convolution(x.clone(), weight.clone(), bias.clone(), groups)
    });
    bench.row("positional convolution 4x224x768 backward", 2 * operations, || {
        B::positional_convolution_backward(x.clone(), weight.clone(), groups, x.clone(), [true; 3])
    });
    bench.row("positional convolution 4x224x768 plain", operations, || {
        plain::positional_convolution(x.clone(), weight.clone(), bias.clone(), groups)
    });
}

fn optimizer(bench: &Bench) {
    let step = AdamStep {
        learning_rate: 1e-5,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        decoupled: false,
        gradient_scale: 1.0,
        step: 3,
    };
    let shape = [50_265, WIDTH];
    let gradient = random(shape, 4);
    let state =
        || AdamState::<B, 2> { weight: random(shape, 1), first: random(shape, 2), second: random(shape, 3).abs() };
    let mut kept = Some(state());
    bench.row("adam 50265x768", 0, || kept = kept.take().map(|state| B::adam(state, gradient.clone(), &step)));
    let mut kept = Some(state());
    bench.row("adam 50265x768 plain", 0, || {
        kept = kept.take().map(|state| plain::adam(state, gradient.clone(), &step));
    });
    bench.row("squared norm 50265x768", 0, || B::squared_norm(gradient.clone()));
}
