//! The operations against loops over their definitions in double precision, and the fast forms against the plain ones.
//! Everything runs with and without automatic differentiation: a backend may have forms of its own there.

mod bf16;
mod gradients;

use burn::{
    backend::{Autodiff, Flex, flex::FlexDevice},
    tensor::{Tensor, TensorData, backend::Backend},
};

use super::*;
use crate::random::Random;

type Train = Autodiff<Flex>;

/// Sums of some tens of terms in single precision.
const TOLERANCE: f64 = 1e-5;

/// Standard normal values that are the same for a seed.
#[expect(clippy::cast_possible_truncation, reason = "the model computes in f32")]
fn normal(elements: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..elements).map(|_| random.normal() as f32).collect()
}

fn tensor<B: Backend, const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &B::Device::default())
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().to_vec().unwrap()
}

fn double(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn real(number: usize) -> f64 {
    number as f64
}

/// Every element is within `tolerance` of the largest expected one.
#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * largest, "element {at} is {found} and should be {expected}");
    }
}

/// The Taylor series; exact to some ten digits up to 4.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= -x * x / real(n);
        sum += term / real(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

// --- the layers' operations -------------------------------------------------------------------------------------------

#[test]
fn linear_multiplies_by_the_transposed_weight() {
    fn holds<B: Ops>() {
        for (rows, input, output) in [(1, 1, 1), (3, 5, 2), (17, 9, 33)] {
            let (x, weight) = (normal(rows * input, 1), normal(output * input, 2));
            let bias = normal(output, 3);
            let expected: Vec<f64> = (0..rows * output)
                .map(|at| {
                    let (row, column) = (at / output, at % output);
                    (0..input).map(|k| f64::from(x[row * input + k]) * f64::from(weight[column * input + k])).sum()
                })
                .collect();
            let (x, weight) = (tensor(&x, [rows, input]), tensor(&weight, [output, input]));
            let without = <B as Ops>::linear(x.clone(), weight.clone(), None);
            assert_near(&values(without), &expected, TOLERANCE);
            let with = <B as Ops>::linear(x, weight, Some(tensor(&bias, [output])));
            let shifted: Vec<f64> =
                expected.iter().enumerate().map(|(at, value)| value + f64::from(bias[at % output])).collect();
            assert_near(&values(with), &shifted, TOLERANCE);
        }
    }
    holds::<Flex>();
    holds::<Train>();
}

/// x Φ(x): tables give Φ(1) = 0.841344746. The tanh approximation is off by 1e-4 around 2.
#[test]
fn gelu_is_the_exact_one() {
    fn holds<B: Ops>() {
        let x: Vec<f32> = (-40_i8..=40).map(|step| f32::from(step) / 10.0).collect();
        let expected: Vec<f64> = double(&x).iter().map(|x| x * (1.0 + erf(x / 2.0_f64.sqrt())) / 2.0).collect();
        assert!((expected[50] - 0.841_344_746).abs() < 1e-9);
        let found = values(<B as Ops>::gelu(tensor::<B, 2>(&x, [3, 27])));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{found} should be {expected}");
        }
        let far = values(<B as Ops>::gelu(tensor::<B, 1>(&[-1e4, 1e4, 0.0, -20.0], [4])));
        assert_near(&far, &[0.0, 1e4, 0.0, 0.0], 1e-7);
    }
    holds::<Flex>();
    holds::<Train>();
}

#[test]
fn layer_norm_normalises_each_row() {
    fn holds<B: Ops>() {
        for (rows, width, epsilon) in [(1, 1, 1e-5), (5, 7, 1e-12), (3, 65, 0.1)] {
            let x: Vec<f32> = normal(rows * width, 4).iter().map(|value| 5.0 + 2.0 * value).collect();
            let (weight, bias) = (normal(width, 5), normal(width, 6));
            let mut expected = Vec::new();
            for row in double(&x).chunks(width) {
                let mean = row.iter().sum::<f64>() / real(width);
                let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / real(width);
                let scaled = row.iter().map(|value| (value - mean) / (variance + epsilon).sqrt());
                expected.extend(scaled.enumerate().map(|(k, value)| value * double(&weight)[k] + double(&bias)[k]));
            }
            let found = <B as Ops>::layer_norm(
                tensor(&x, [rows, width]),
                tensor(&weight, [width]),
                tensor(&bias, [width]),
                epsilon,
            );
            assert_near(&values(found), &expected, TOLERANCE);
        }
    }
    holds::<Flex>();
    holds::<Train>();
}

#[test]
fn a_constant_row_normalises_to_the_bias() {
    let found = <Flex as Ops>::layer_norm(
        tensor(&[3.0; 8], [2, 4]),
        tensor(&[2.0; 4], [4]),
        tensor(&[0.5, 1.0, 1.5, 2.0], [4]),
        1e-12,
    );
    assert_near(&values(found), &[0.5, 1.0, 1.5, 2.0, 0.5, 1.0, 1.5, 2.0], TOLERANCE);
}

// --- attention --------------------------------------------------------------------------------------------------------

/// Attention of one batch by its definition: the softmax over the valid keys alone.
fn attention_by_hand(inputs: &[Vec<f32>; 3], lengths: &Lengths, heads: usize, width: usize) -> Vec<f64> {
    let [query, key, value] = inputs.each_ref().map(|values| double(values));
    let (time, size) = (lengths.longest(), width / heads);
    let mut expected = vec![0.0; query.len()];
    for (example, &valid) in lengths.valid().iter().enumerate() {
        for head in 0..heads {
            let at = |position: usize| (example * time + position) * width + head * size;
            for position in 0..time {
                let score = |other: usize| -> f64 {
                    let product: f64 = (0..size).map(|k| query[at(position) + k] * key[at(other) + k]).sum();
                    (product / real(size).sqrt()).exp()
                };
                let total: f64 = (0..valid).map(score).sum();
                for other in 0..valid {
                    for k in 0..size {
                        expected[at(position) + k] += score(other) / total * value[at(other) + k];
                    }
                }
            }
        }
    }
    expected
}

#[test]
fn attention_weighs_the_valid_keys_alone() {
    fn holds<B: Ops>() {
        for (lengths, heads, width) in [
            (Lengths::full(1, 1), 1, 1),
            (Lengths::full(2, 5), 3, 6),
            (Lengths::new(vec![7, 1, 3], 7), 2, 10),
            (Lengths::new(vec![2, 33], 40), 4, 4),
        ] {
            let rows = lengths.batch() * lengths.longest();
            let inputs = [7, 8, 9].map(|seed| normal(rows * width, seed));
            let mut expected = attention_by_hand(&inputs, &lengths, heads, width);
            let [query, key, value] = inputs.each_ref().map(|values| tensor::<B, 2>(values, [rows, width]));
            let shape = AttentionShape { heads, lengths: &lengths };
            let mut found = values(<B as Ops>::attention(query, key, value, shape, None));
            // What comes out at padded queries means nothing.
            for (example, &valid) in lengths.valid().iter().enumerate() {
                let longest = lengths.longest();
                let padded = (example * longest + valid) * width..(example + 1) * longest * width;
                assert!(found[padded.clone()].iter().all(|value| value.is_finite()));
                found[padded.clone()].fill(0.0);
                expected[padded].fill(0.0);
            }
            assert_near(&found, &expected, TOLERANCE);
        }
    }
    holds::<Flex>();
    holds::<Train>();
}

/// What lies in the padding has no weight at all, however large it is.
#[test]
fn padded_keys_and_values_change_no_bit() {
    fn holds<B: Ops>() {
        let lengths = Lengths::new(vec![3, 5], 6);
        let width = 4;
        let attend = |garbage: f32| {
            let fill = |seed: u64| {
                let mut values = normal(12 * width, seed);
                for (example, &valid) in lengths.valid().iter().enumerate() {
                    values[(example * 6 + valid) * width..(example + 1) * 6 * width].fill(garbage);
                }
                tensor::<B, 2>(&values, [12, width])
            };
            let shape = AttentionShape { heads: 2, lengths: &lengths };
            let query = tensor(&normal(12 * width, 1), [12, width]);
            values(<B as Ops>::attention(query, fill(2), fill(3), shape, None))
        };
        assert_eq!(attend(0.0), attend(1e4));
    }
    holds::<Flex>();
    holds::<Train>();
}

/// With all values 1 the output of a row is the sum of its kept weights: 1 on average, and not always 1, as it would
/// be with a dropout in front of the softmax.
#[test]
fn attention_drops_weights_behind_the_softmax() {
    fn holds<B: Ops>() {
        let lengths = Lengths::new(vec![9, 6], 9);
        let (rows, width) = (18, 4);
        let (query, key) = (normal(rows * width, 10), normal(rows * width, 11));
        let value = normal(rows * width, 12);
        let attend = |value: &[f32], dropout: Option<Dropout>| {
            let [query, key, value] = [&query, &key, value].map(|values| tensor::<B, 2>(values, [rows, width]));
            values(<B as Ops>::attention(query, key, value, AttentionShape { heads: 2, lengths: &lengths }, dropout))
        };
        let probability = 0.25;
        let draws = 2000;
        let mut mean = vec![0.0; rows * width];
        for key in 0..draws {
            let dropout = Some(Dropout { probability, key: crate::random::mix(5, key) });
            let dropped = attend(&value, dropout);
            mean.iter_mut().zip(dropped).for_each(|(mean, value)| *mean += value / 2000.0);
            if key < 3 {
                assert_eq!(attend(&value, dropout), attend(&value, dropout), "a function of the key");
                let sums = attend(&vec![1.0; rows * width], dropout);
                assert!(sums.iter().any(|sum| (sum - 1.0).abs() > 0.1));
            }
        }
        // The deviation of a mean of 2000 draws: at most sqrt(p / (1 - p) / 2000) = 0.013 of the largest value.
        let expected = attend(&value, None);
        let largest = value.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        for (mean, expected) in mean.iter().zip(&expected) {
            assert!((mean - expected).abs() < 5.0 * 0.013 * f64::from(largest), "{mean} should be {expected}");
        }
    }
    holds::<Flex>();
    holds::<Train>();
}

// --- convolutions and their norm --------------------------------------------------------------------------------------

#[test]
fn convolution_slides_over_time() {
    fn holds<B: Ops>() {
        for (batch, time, input, output, kernel, stride) in
            [(1, 1, 1, 1, 1, 1), (2, 11, 3, 5, 3, 2), (1, 43, 1, 4, 10, 5), (3, 9, 2, 2, 2, 2), (1, 7, 2, 3, 2, 4)]
                .into_iter()
                // One frame alone, with and without samples that it does not see.
                .chain([(3, 3, 8, 8, 3, 2), (3, 4, 2, 3, 3, 2), (1, 14, 1, 4, 10, 5)])
        {
            let x = normal(batch * time * input, 13);
            let weight = normal(output * input * kernel, 14);
            let bias = normal(output, 15);
            let frames = (time - kernel) / stride + 1;
            let mut expected = Vec::new();
            for (example, frame, channel) in triples(batch, frames, output) {
                let mut sum = f64::from(bias[channel]);
                for k in 0..kernel {
                    for other in 0..input {
                        let sample = x[(example * time + frame * stride + k) * input + other];
                        sum += f64::from(sample) * f64::from(weight[(channel * input + other) * kernel + k]);
                    }
                }
                expected.push(sum);
            }
            let (x, weight) = (tensor::<B, 3>(&x, [batch, time, input]), tensor(&weight, [output, input, kernel]));
            let found = <B as Ops>::convolution(x.clone(), weight.clone(), Some(tensor(&bias, [output])), stride);
            assert_eq!(found.dims(), [batch, frames, output]);
            assert_near(&values(found), &expected, TOLERANCE);
            let without: Vec<f64> =
                expected.iter().enumerate().map(|(at, sum)| sum - f64::from(bias[at % output])).collect();
            assert_near(&values(<B as Ops>::convolution(x.clone(), weight.clone(), None, stride)), &without, TOLERANCE);
            assert_near(&values(plain::convolution(x, weight, None, stride)), &without, TOLERANCE);
        }
    }
    holds::<Flex>();
    holds::<Train>();
}

/// All numbers below the three, the last changing fastest.
fn triples(first: usize, second: usize, third: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..first).flat_map(move |i| (0..second).flat_map(move |j| (0..third).map(move |k| (i, j, k))))
}

/// Frame t sees the frames t - kernel / 2 to t - kernel / 2 + kernel - 1, zeros outside.
#[test]
fn positional_convolution_keeps_the_length() {
    fn holds<B: Ops>() {
        for (batch, time, width, groups, kernel) in
            [(1, 1, 2, 1, 4), (2, 9, 6, 3, 4), (2, 9, 6, 2, 5), (1, 3, 4, 4, 8), (1, 12, 4, 1, 1)]
        {
            let per_group = width / groups;
            let x = normal(batch * time * width, 16);
            let weight = normal(width * per_group * kernel, 17);
            let bias = normal(width, 18);
            let mut expected = Vec::new();
            for (example, frame, channel) in triples(batch, time, width) {
                let mut sum = f64::from(bias[channel]);
                for k in 0..kernel {
                    let Some(seen) = (frame + k).checked_sub(kernel / 2).filter(|&seen| seen < time) else { continue };
                    for other in 0..per_group {
                        let input = x[(example * time + seen) * width + channel / per_group * per_group + other];
                        sum += f64::from(input) * f64::from(weight[(channel * per_group + other) * kernel + k]);
                    }
                }
                expected.push(sum);
            }
            let found = <B as Ops>::positional_convolution(
                tensor(&x, [batch, time, width]),
                tensor(&weight, [width, per_group, kernel]),
                tensor(&bias, [width]),
                groups,
            );
            assert_eq!(found.dims(), [batch, time, width]);
            assert_near(&values(found), &expected, TOLERANCE);
        }
    }
    holds::<Flex>();
    holds::<Train>();
}

#[test]
fn group_norm_runs_over_the_valid_frames_of_each_example() {
    fn holds<B: Ops>() {
        for (lengths, channels, epsilon) in [
            (Lengths::full(2, 6), 3, 1e-5),
            (Lengths::new(vec![5, 1, 8], 8), 4, 1e-5),
            (Lengths::new(vec![3, 4], 50), 1, 0.1),
        ] {
            let (batch, frames) = (lengths.batch(), lengths.longest());
            let x: Vec<f32> = normal(batch * frames * channels, 19).iter().map(|value| 3.0 + value).collect();
            let (weight, bias) = (normal(channels, 20), normal(channels, 21));
            let found = <B as Ops>::masked_group_norm(
                tensor(&x, [batch, frames, channels]),
                tensor(&weight, [channels]),
                tensor(&bias, [channels]),
                &lengths,
                epsilon,
            );
            let found = values(found);
            assert!(found.iter().all(|value| value.is_finite()));
            for (example, &valid) in lengths.valid().iter().enumerate() {
                for channel in 0..channels {
                    let at = |frame: usize| (example * frames + frame) * channels + channel;
                    let column: Vec<f64> = (0..valid).map(|frame| f64::from(x[at(frame)])).collect();
                    let mean = column.iter().sum::<f64>() / real(valid);
                    let variance = column.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / real(valid);
                    let (weight, bias) = (f64::from(weight[channel]), f64::from(bias[channel]));
                    let expected: Vec<f64> = column
                        .iter()
                        .map(|value| (value - mean) / (variance + epsilon).sqrt() * weight + bias)
                        .collect();
                    let found: Vec<f64> = (0..valid).map(|frame| found[at(frame)]).collect();
                    assert_near(&found, &expected, TOLERANCE);
                }
            }
        }
    }
    holds::<Flex>();
    holds::<Train>();
}

// --- dropout ----------------------------------------------------------------------------------------------------------

fn mask<const D: usize>(shape: [usize; D], probability: f64, key: u64) -> Vec<f64> {
    values(<Flex as Ops>::dropout_mask(shape, Dropout { probability, key }, &FlexDevice))
}

fn kept(mask: &[f64]) -> usize {
    mask.iter().filter(|&&value| value > 0.0).count()
}

#[test]
fn a_mask_keeps_its_share_and_scales_it() {
    for (probability, seed) in [(0.1, 1), (0.5, 2), (0.9, 3), (0.013, 4)] {
        let mask = mask([101, 997], probability, crate::random::mix(9, seed));
        let scale = 1.0 / (1.0 - probability);
        assert!(mask.iter().all(|&value| value.abs() <= 0.0 || (value - scale).abs() < 1e-6 * scale));
        // Five deviations of a binomial share of 100,697.
        let share = real(kept(&mask)) / real(mask.len());
        let deviation = (probability * (1.0 - probability) / real(mask.len())).sqrt();
        assert!((share - (1.0 - probability)).abs() < 5.0 * deviation, "{share} kept at {probability}");
    }
}

/// Two masks, and a mask and itself some elements on, agree as often as two independent ones: half the time.
#[test]
fn masks_of_different_keys_and_places_are_independent() {
    let elements = 90_001;
    let draw = |key: u64| mask([elements], 0.5, key);
    let first = draw(crate::random::mix(3, 1));
    assert_eq!(first, draw(crate::random::mix(3, 1)), "a function of the key");
    let agreement = |other: &[f64], shift: usize| {
        let same =
            first.iter().skip(shift).zip(other).filter(|(first, other)| (**first > 0.0) == (**other > 0.0)).count();
        real(same) / real(elements - shift)
    };
    // Five deviations of a share of 90,000 fair coins.
    for (step, key) in (2..12).enumerate() {
        let share = agreement(&draw(crate::random::mix(3, key)), 0);
        assert!((share - 0.5).abs() < 5.0 / 600.0, "{share} with the key {step} steps on");
    }
    for shift in [1, 2, 3, 64, 768, 32_768] {
        let share = agreement(&first, shift);
        assert!((share - 0.5).abs() < 5.0 / 600.0, "{share} over a distance of {shift}");
    }
}

#[test]
fn a_mask_does_not_depend_on_the_number_of_threads_or_the_shape() {
    let elements = 3 * 32_768 + 17;
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| mask([elements], 0.3, 77))
    };
    assert_eq!(with(1), with(5));
    assert_eq!(with(1)[..elements - elements % 7], mask([7, elements / 7], 0.3, 77));
}

#[test]
fn the_plain_mask_has_the_same_share_and_scale() {
    let mask = values(plain::dropout_mask::<Flex, 2>([101, 997], Dropout { probability: 0.2, key: 5 }, &FlexDevice));
    assert!(mask.iter().all(|&value| value.abs() <= 0.0 || (value - 1.25).abs() < 1e-6));
    assert!((real(kept(&mask)) / real(mask.len()) - 0.8).abs() < 5.0 * 0.4 / 317.0);
}

/// Under automatic differentiation the same elements go, and the gradient is the mask.
#[test]
fn dropout_is_a_multiplication_by_the_mask() {
    let given = Dropout { probability: 0.4, key: 123 };
    let x = tensor::<Train, 2>(&normal(12 * 31, 22), [12, 31]).require_grad();
    let dropped = dropout(x.clone(), Some(given));
    let mask = mask([12, 31], 0.4, 123);
    let expected: Vec<f64> = values(x.clone()).iter().zip(&mask).map(|(value, mask)| value * mask).collect();
    assert_near(&values(dropped.clone()), &expected, 1e-6);
    let gradient = x.grad(&dropped.sum().backward()).unwrap();
    assert_near(&values(gradient), &mask, 1e-6);
    assert_eq!(values(dropout(x.clone(), None)), values(x));
}

#[test]
fn a_step_gives_a_key_a_call_and_repeats_them_when_it_is_run_again() {
    let keys = |run: u64, step: u64| {
        let random = StepRandom::new(run, step);
        [random.key(), random.key(), random.key()]
    };
    assert_eq!(keys(1, 2), keys(1, 2));
    let mut all: Vec<u64> = [keys(1, 2), keys(1, 3), keys(2, 2)].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 9);
    let random = StepRandom::new(1, 2);
    assert!(Mode::training(&random).dropout(0.0).is_none() && Mode::evaluation().dropout(0.5).is_none());
    assert!(Mode::training(&random).dropout(0.5).is_some() && Mode::evaluation().generator().is_none());
}

// --- the optimiser's operations ---------------------------------------------------------------------------------------

const STEP: AdamStep = AdamStep {
    learning_rate: 0.1,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 0.0,
    decoupled: false,
    gradient_scale: 1.0,
    step: 1,
};

type Update = fn(AdamState<Flex, 1>, Tensor<Flex, 1>, &AdamStep) -> AdamState<Flex, 1>;

const UPDATES: [Update; 2] = [plain::adam, <Flex as Ops>::adam];

fn start(weight: &[f32]) -> AdamState<Flex, 1> {
    let weight = tensor(weight, [weight.len()]);
    AdamState { first: weight.zeros_like(), second: weight.zeros_like(), weight }
}

/// w = 1, g = 1/2: m = 0.05, v = 0.00025, corrected 0.5 and 0.25, so w falls by 0.1 * 0.5 / 0.5.
#[test]
fn the_first_step_of_adam_by_hand() {
    for update in UPDATES {
        let state = update(start(&[1.0]), tensor(&[0.5], [1]), &STEP);
        assert_near(&values(state.weight), &[0.9], 1e-6);
        assert_near(&values(state.first), &[0.05], 1e-6);
        assert_near(&values(state.second), &[0.000_25], 1e-6);
    }
}

/// Three steps in PyTorch at double precision:
///
/// ```python
/// w = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
/// o = torch.optim.Adam([w], lr=0.1, weight_decay=0)        # or 0.1, or AdamW with 0.1
/// for g in ([0.5, -1.0, 0.0], [-1.0, 0.25, 2.0], [0.125, 3.0, -4.0]): w.grad = torch.tensor(g); o.step()
/// print(w, o.state[w]["exp_avg"], o.state[w]["exp_avg_sq"])
/// ```
#[test]
fn three_steps_are_those_of_pytorch() {
    let gradients = [[0.5, -1.0, 0.0], [-1.0, 0.25, 2.0], [0.125, 3.0, -4.0]];
    for (weight_decay, decoupled, weight, first, second) in [
        (
            0.0,
            false,
            [0.957_632_683, -1.901_691_982, 0.457_014_935],
            [-0.037, 0.241_5, -0.22],
            [0.001_264_125, 0.010_060_439, 0.019_996],
        ),
        (
            0.1,
            false,
            [0.931_904_349, -1.876_407_026, 0.353_911_225],
            [-0.011_547_365, 0.189_832_042, -0.209_110_323],
            [0.001_233_870, 0.009_372_379, 0.019_901_809],
        ),
        (
            0.1,
            true,
            [0.929_555_579, -1.844_749_450, 0.442_908_572],
            [-0.037, 0.241_5, -0.22],
            [0.001_264_125, 0.010_060_439, 0.019_996],
        ),
    ] {
        for update in UPDATES {
            for scale in [1.0, 0.25] {
                let mut state = start(&[1.0, -2.0, 0.5]);
                for (number, gradient) in gradients.into_iter().enumerate() {
                    // A factor on the gradient that the gradients make up for.
                    let gradient = gradient.map(|value: f32| value / if scale < 1.0 { 0.25 } else { 1.0 });
                    let step = AdamStep { weight_decay, decoupled, gradient_scale: scale, step: number + 1, ..STEP };
                    state = update(state, tensor(&gradient, [3]), &step);
                }
                assert_near(&values(state.weight), &weight, 1e-6);
                assert_near(&values(state.first), &first, 1e-6);
                assert_near(&values(state.second), &second, 1e-6);
            }
        }
    }
}

/// A tensor for a seed.
type Make<'a> = &'a dyn Fn(u64) -> Tensor<Flex, 2>;

/// Sizes around the parallel chunk, and tensors that are views of others: turned round, cut out, repeated.
#[test]
fn the_fast_adam_is_the_plain_one() {
    let whole =
        |rows: usize, columns: usize, seed: u64| tensor::<Flex, 2>(&normal(rows * columns, seed), [rows, columns]);
    let makers: [(&str, Make<'_>); 6] = [
        ("one element", &|seed| whole(1, 1, seed)),
        ("odd", &|seed| whole(3, 7, seed)),
        ("a chunk and one", &|seed| whole(1, 32_769, seed)),
        ("transposed", &|seed| whole(129, 300, seed).transpose()),
        ("cut out", &|seed| whole(70, 9, seed).slice([11..37, 2..7])),
        ("repeated", &|seed| whole(1, 5, seed).expand([6, 5])),
    ];
    for (name, make) in makers {
        for (weight_decay, decoupled) in [(0.0, false), (0.01, false), (0.01, true)] {
            let step = AdamStep { weight_decay, decoupled, gradient_scale: 0.37, step: 4, learning_rate: 1e-3, ..STEP };
            let state = || AdamState { weight: make(1), first: make(2), second: make(3).square() };
            let (weight, gradient) = (make(1), make(4));
            let fast = <Flex as Ops>::adam(state(), gradient.clone(), &step);
            let plain = plain::adam(state(), gradient.clone(), &step);
            println!("{name}, decay {weight_decay}, decoupled {decoupled}");
            assert_near(&values(fast.weight), &values(plain.weight), 1e-6);
            assert_near(&values(fast.first), &values(plain.first), 1e-6);
            assert_near(&values(fast.second), &values(plain.second), 1e-6);
            // What else holds the same tensors is not written to.
            assert_eq!(values(weight), values(make(1)));
            assert_eq!(values(gradient), values(make(4)));
        }
    }
}

#[test]
fn adam_gives_the_same_bits_with_any_number_of_threads() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let state = start(&normal(100_003, 30));
            let gradient = tensor(&normal(100_003, 31), [100_003]);
            let norm = values(<Flex as Ops>::squared_norm(gradient.clone()));
            (values(<Flex as Ops>::adam(state, gradient, &STEP).weight), norm)
        })
    };
    assert_eq!(with(1), with(5));
}

#[test]
fn squared_norm_sums_squares() {
    let whole = tensor::<Flex, 2>(&normal(257 * 300, 32), [257, 300]);
    for x in [
        whole.clone(),
        whole.clone().transpose(),
        whole.clone().slice([3..5, 7..20]),
        whole.slice([0..1, 0..1]).expand([9, 4]),
    ] {
        let expected: f64 = values(x.clone()).iter().map(|value| value * value).sum();
        assert_near(&values(<Flex as Ops>::squared_norm(x.clone())), &[expected], 1e-6);
        let tracked = Tensor::<Train, 2>::from_inner(x);
        assert_near(&values(<Train as Ops>::squared_norm(tracked)), &[expected], 1e-5);
    }
}

// --- lengths ----------------------------------------------------------------------------------------------------------

#[test]
fn lengths_give_masks_and_counts() {
    let lengths = Lengths::new(vec![2, 9, 0], 3);
    assert_eq!(lengths.valid(), [2, 3, 0]);
    assert_eq!(values(lengths.mask::<Flex>(&FlexDevice)), [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(values(lengths.counts::<Flex>(&FlexDevice)), [2.0, 3.0, 0.0]);
    assert!(!lengths.is_full() && Lengths::full(2, 3).is_full());
}
