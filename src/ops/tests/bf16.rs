//! bf16, emulated and real: against loops in double precision over rounded numbers, and against each other.

use burn::tensor::FloatDType;

use super::*;
use crate::choices::Precision;

/// Distance of 1 to the next number of bf16.
const EPSILON: f64 = 1.0 / 128.0;

/// The nearest number with eight significant bits, ties to the even one.
fn round(value: f64) -> f64 {
    if value.abs() <= 0.0 {
        return value;
    }
    let unit = 2.0_f64.powf(value.abs().log2().floor()) * EPSILON;
    (value / unit).round_ties_even() * unit
}

fn rounded(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| round(f64::from(value))).collect()
}

/// All are within a unit of the last place of the largest, and next to none is off at all: sums in f32 and in f64 are
/// seldom on two sides of a tie. What is not rounded is off nearly everywhere.
#[track_caller]
fn assert_rounded(found: &[f64], expected: &[f64]) {
    assert_near(found, expected, EPSILON);
    let is_off = |(found, expected): &(&f64, &f64)| (*found - *expected).abs() > 1e-5 * expected.abs().max(1e-3);
    let off = found.iter().zip(expected).filter(is_off).count();
    assert!(off * 50 <= found.len(), "{off} of {} are not rounded as they should be", found.len());
}

/// Sign, eight bits of exponent, seven of fraction; then the sixteen bits that go.
#[test]
fn rounding_by_hand() {
    let cases: [(u32, u32); 24] = [
        (0x3f80_0000, 0x3f80_0000), // 1
        (0x3f80_7fff, 0x3f80_0000), // below the middle
        (0x3f80_8000, 0x3f80_0000), // the middle, the even one is below
        (0x3f80_8001, 0x3f81_0000), // above the middle
        (0x3f81_7fff, 0x3f81_0000),
        (0x3f81_8000, 0x3f82_0000), // the middle, the even one is above
        (0xbf81_8000, 0xbf82_0000), // the same below zero
        (0xbf80_8000, 0xbf80_0000),
        (0x3fff_ffff, 0x4000_0000), // the carry goes into the exponent
        (0x0000_0000, 0x0000_0000),
        (0x8000_0000, 0x8000_0000), // -0
        (0x7f80_0000, 0x7f80_0000), // infinities
        (0xff80_0000, 0xff80_0000),
        (0x7f7f_7fff, 0x7f7f_0000), // the largest number of bf16
        (0x7f7f_8000, 0x7f80_0000), // half a unit beyond it is infinite
        (0x7f7f_ffff, 0x7f80_0000), // the largest of f32
        (0xff7f_ffff, 0xff80_0000),
        (0x0000_0001, 0x0000_0000), // subnormal numbers
        (0x0000_8000, 0x0000_0000),
        (0x0000_8001, 0x0001_0000),
        (0x0001_8000, 0x0002_0000),
        (0x8001_8000, 0x8002_0000),
        (0x007f_7fff, 0x007f_0000),
        (0x007f_ffff, 0x0080_0000), // the least normal one
    ];
    let x: Vec<f32> = cases.iter().map(|case| f32::from_bits(case.0)).collect();
    let bits = |x: Tensor<Flex, 1>| -> Vec<u32> {
        x.into_data().to_vec::<f32>().unwrap().iter().map(|value| value.to_bits()).collect()
    };
    let found = bits(<Flex as Ops>::round_to_bf16(tensor(&x, [x.len()])));
    for ((from, expected), found) in cases.into_iter().zip(found) {
        assert_eq!(found, expected, "{from:#010x} became {found:#010x}");
    }
    // What is no number stays none, also where all that says so are the bits that go.
    let none = [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0x7fff_ffff, 0xffff_ffff].map(f32::from_bits);
    let found = values(<Flex as Ops>::round_to_bf16(tensor::<Flex, 1>(&none, [5])));
    assert!(found.iter().all(|value| value.is_nan()), "{found:?}");
}

#[test]
fn rounding_takes_any_tensor_and_rounds_the_gradient_too() {
    let x = normal(300 * 129, 40);
    let whole = tensor::<Flex, 2>(&x, [300, 129]);
    assert_eq!(values(<Flex as Ops>::round_to_bf16(whole.clone())), rounded(&x));
    for view in
        [whole.clone().transpose(), whole.clone().slice([3..5, 7..20]), whole.slice([0..1, 0..5]).expand([4, 5])]
    {
        let expected: Vec<f64> = values(view.clone()).iter().map(|&value| round(value)).collect();
        assert_eq!(values(<Flex as Ops>::round_to_bf16(view)), expected);
    }
    let (x, factor) = (normal(77, 41), normal(77, 42));
    let x = tensor::<Train, 1>(&x, [77]).require_grad();
    let y = <Train as Ops>::round_to_bf16(x.clone()) * tensor(&factor, [77]);
    assert_eq!(values(x.grad(&y.sum().backward()).unwrap()), rounded(&factor));
}

/// An operation whose results are sums of products of an element of x and one of the weight.
struct Products<'a> {
    shapes: ([usize; 3], [usize; 3]),
    /// Places in the result, x and the weight.
    terms: Vec<[usize; 3]>,
    run: &'a dyn Fn(Tensor<Train, 3>, Tensor<Train, 3>, Tensor<Train, 1>, Precision) -> Tensor<Train, 3>,
    /// As a backend that has bf16 runs it, without a bias.
    run_plain: &'a dyn Fn(Tensor<Train, 3>, Tensor<Train, 3>) -> Tensor<Train, 3>,
}

/// The result, and the gradients of x, weight and bias.
type Results = [Vec<f64>; 4];

impl Products<'_> {
    fn inputs(&self) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (x, weight) = self.shapes;
        (normal(x.iter().product(), 43), normal(weight.iter().product(), 44), normal(weight[0], 45))
    }

    /// The factor on each element of the result, and so its gradient.
    fn factor(&self) -> Vec<f32> {
        normal(self.terms.iter().map(|term| term[0] + 1).max().unwrap(), 46)
    }

    /// By the definition: operands, product and the gradients of both are rounded, what has to do with the bias is not.
    fn by_hand(&self) -> Results {
        let (x, weight, bias) = self.inputs();
        let factor = self.factor();
        let [x, weight, gradient] = [rounded(&x), rounded(&weight), rounded(&factor)];
        let [mut y, mut of_x, mut of_weight] = [&gradient, &x, &weight].map(|values| vec![0.0; values.len()]);
        for &[result, left, right] in &self.terms {
            y[result] += x[left] * weight[right];
            of_x[left] += gradient[result] * weight[right];
            of_weight[right] += gradient[result] * x[left];
        }
        let mut of_bias = vec![0.0; bias.len()];
        for (at, factor) in factor.iter().enumerate() {
            y[at] = round(y[at]) + f64::from(bias[at % bias.len()]);
            of_bias[at % bias.len()] += f64::from(*factor);
        }
        let [of_x, of_weight] = [of_x, of_weight].map(|values| values.into_iter().map(round).collect());
        [y, of_x, of_weight, of_bias]
    }

    fn results(
        &self,
        run: impl Fn(Tensor<Train, 3>, Tensor<Train, 3>, Tensor<Train, 1>) -> Tensor<Train, 3>,
    ) -> Results {
        let (x, weight, bias) = self.inputs();
        let x = tensor::<Train, 3>(&x, self.shapes.0).require_grad();
        let weight = tensor::<Train, 3>(&weight, self.shapes.1).require_grad();
        let bias = tensor::<Train, 1>(&bias, [bias.len()]).require_grad();
        let y = run(x.clone(), weight.clone(), bias.clone());
        let gradients = (y.clone() * tensor(&self.factor(), y.dims())).sum().backward();
        let of = |x: &Tensor<Train, 3>| values(x.grad(&gradients).unwrap());
        [values(y), of(&x), of(&weight), values(bias.grad(&gradients).unwrap())]
    }

    fn holds(&self) {
        let by_hand = self.by_hand();
        let emulated = self.results(|x, weight, bias| (self.run)(x, weight, bias, Precision::Bf16));
        let real = self.results(|x, weight, bias| {
            let [x, weight] = [x, weight].map(|operand| operand.cast(FloatDType::BF16));
            (self.run_plain)(x, weight).cast(FloatDType::F32) + bias.unsqueeze()
        });
        for found in [&emulated, &real] {
            found[..3].iter().zip(&by_hand).for_each(|(found, expected)| assert_rounded(found, expected));
            assert_near(&found[3], &by_hand[3], TOLERANCE);
        }
        // In f32 nothing is rounded.
        let single = self.results(|x, weight, bias| (self.run)(x, weight, bias, Precision::F32));
        for (single, emulated) in single.iter().zip(&emulated).take(3) {
            assert_near(single, emulated, 2.0 * EPSILON);
            assert!(single != emulated);
        }
    }
}

#[test]
fn linear_in_bf16() {
    let (rows, input, output) = (17, 9, 33);
    let terms =
        triples(rows, output, input).map(|(row, to, from)| [row * output + to, row * input + from, to * input + from]);
    let flat = |x: Tensor<Train, 3>| x.squeeze_dim::<2>(2);
    Products {
        shapes: ([rows, input, 1], [output, input, 1]),
        terms: terms.collect(),
        run: &|x, weight, bias, precision| {
            linear(flat(x), flat(weight), Some(bias), precision).reshape([1, rows, output])
        },
        run_plain: &|x, weight| plain::linear(flat(x), flat(weight), None).reshape([1, rows, output]),
    }
    .holds();
}

#[test]
fn convolution_in_bf16() {
    for (batch, time, input, output, kernel, stride) in [(2, 31, 3, 5, 3, 2), (1, 143, 1, 4, 10, 5), (3, 9, 2, 2, 2, 2)]
    {
        let frames = (time - kernel) / stride + 1;
        let mut terms = Vec::new();
        for (example, frame, to) in triples(batch, frames, output) {
            for (from, k, _) in triples(input, kernel, 1) {
                let x = (example * time + frame * stride + k) * input + from;
                terms.push([(example * frames + frame) * output + to, x, (to * input + from) * kernel + k]);
            }
        }
        Products {
            shapes: ([batch, time, input], [output, input, kernel]),
            terms,
            run: &|x, weight, bias, precision| convolution(x, weight, Some(bias), stride, precision),
            run_plain: &|x, weight| plain::convolution(x, weight, None, stride),
        }
        .holds();
    }
}

#[test]
fn a_convolution_without_bias_in_bf16() {
    let (x, weight) = (normal(2 * 11 * 3, 47), normal(5 * 3 * 3, 48));
    let (x, weight) = (tensor::<Train, 3>(&x, [2, 11, 3]), tensor::<Train, 3>(&weight, [5, 3, 3]));
    let without = convolution(x.clone(), weight.clone(), None, 2, Precision::Bf16);
    let zero = Tensor::zeros([5], &FlexDevice);
    assert_eq!(values(without), values(convolution(x, weight, Some(zero), 2, Precision::Bf16)));
}

#[test]
fn positional_convolution_in_bf16() {
    for (batch, time, width, groups, kernel) in [(2, 9, 6, 3, 4), (2, 9, 6, 2, 5)] {
        let channels = width / groups;
        let mut terms = Vec::new();
        for (example, frame, to) in triples(batch, time, width) {
            for (from, k, _) in triples(channels, kernel, 1) {
                let Some(seen) = (frame + k).checked_sub(kernel / 2).filter(|&seen| seen < time) else { continue };
                let x = (example * time + seen) * width + to / channels * channels + from;
                terms.push([(example * time + frame) * width + to, x, (to * channels + from) * kernel + k]);
            }
        }
        Products {
            shapes: ([batch, time, width], [width, channels, kernel]),
            terms,
            run: &|x, weight, bias, precision| positional_convolution(x, weight, bias, groups, precision),
            run_plain: &|x, weight| {
                let zero = Tensor::<Train, 1>::zeros([width], &FlexDevice).cast(FloatDType::BF16);
                plain::positional_convolution(x, weight, zero, groups)
            },
        }
        .holds();
    }
}

/// The gradients of query, key and value for one of the result, by the chain rule: with weights P, dV = Pᵀ dY,
/// dP = dY Vᵀ, dS = P (dP - P·dP), dQ = dS K / √size, dK = dSᵀ Q / √size.
fn attention_gradients_by_hand(
    [query, key, value]: [&[f64]; 3],
    gradient: &[f64],
    lengths: &Lengths,
    heads: usize,
    width: usize,
) -> [Vec<f64>; 3] {
    let (time, size) = (lengths.longest(), width / heads);
    let scale = 1.0 / real(size).sqrt();
    let mut results = [(); 3].map(|()| vec![0.0; query.len()]);
    for (example, head, position) in triples(lengths.batch(), heads, time) {
        let valid = lengths.valid()[example];
        let at = |position: usize| (example * time + position) * width + head * size;
        let product = |left: &[f64], right: &[f64], other: usize| -> f64 {
            (0..size).map(|k| left[at(position) + k] * right[at(other) + k]).sum()
        };
        let powers: Vec<f64> = (0..valid).map(|other| (product(query, key, other) * scale).exp()).collect();
        let weights: Vec<f64> = powers.iter().map(|power| power / powers.iter().sum::<f64>()).collect();
        let of_weights: Vec<f64> = (0..valid).map(|other| product(gradient, value, other)).collect();
        let mean: f64 = weights.iter().zip(&of_weights).map(|(weight, of_weight)| weight * of_weight).sum();
        for other in 0..valid {
            let of_score = weights[other] * (of_weights[other] - mean) * scale;
            for k in 0..size {
                results[0][at(position) + k] += of_score * key[at(other) + k];
                results[1][at(other) + k] += of_score * query[at(position) + k];
                results[2][at(other) + k] += weights[other] * gradient[at(position) + k];
            }
        }
    }
    results
}

#[test]
fn attention_in_bf16() {
    for (lengths, heads, width) in [(Lengths::full(2, 5), 3, 6), (Lengths::new(vec![7, 1, 3], 7), 2, 10)] {
        let rows = lengths.batch() * lengths.longest();
        let inputs = [49, 50, 51].map(|seed| normal(rows * width, seed));
        let mut factor = normal(rows * width, 52);
        // What comes out at padded queries means nothing.
        for (example, &valid) in lengths.valid().iter().enumerate() {
            factor[(example * lengths.longest() + valid) * width..(example + 1) * lengths.longest() * width].fill(0.0);
        }
        let is_padding = |values: Vec<f64>| -> Vec<f64> {
            values
                .into_iter()
                .zip(&factor)
                .map(|(value, factor)| if factor.abs() > 0.0 { value } else { 0.0 })
                .collect()
        };
        #[expect(clippy::cast_possible_truncation, reason = "numbers of bf16")]
        let single = inputs.each_ref().map(|values| rounded(values).iter().map(|&value| value as f32).collect());
        let y: Vec<f64> = attention_by_hand(&single, &lengths, heads, width).into_iter().map(round).collect();
        let operands = inputs.each_ref().map(|values| rounded(values));
        let operands = operands.each_ref().map(Vec::as_slice);
        let gradients = attention_gradients_by_hand(operands, &rounded(&factor), &lengths, heads, width);
        let expected =
            [is_padding(y)].into_iter().chain(gradients.map(|values| values.into_iter().map(round).collect()));
        let expected: Vec<Vec<f64>> = expected.collect();
        let shape = AttentionShape { heads, lengths: &lengths };
        let results = |run: &dyn Fn([Tensor<Train, 2>; 3]) -> Tensor<Train, 2>| -> Vec<Vec<f64>> {
            let inputs = inputs.each_ref().map(|values| tensor::<Train, 2>(values, [rows, width]).require_grad());
            let y = run(inputs.clone());
            let gradients = (y.clone() * tensor(&factor, [rows, width])).sum().backward();
            let of_inputs = inputs.map(|input| values(input.grad(&gradients).unwrap()));
            [is_padding(values(y))].into_iter().chain(of_inputs).collect()
        };
        let emulated = results(&|inputs| attention(inputs, shape, None, Precision::Bf16));
        emulated.iter().zip(&expected).for_each(|(found, expected)| assert_rounded(found, expected));
        // As a backend that has bf16 runs it: its scores and weights are rounded too.
        let real = results(&|inputs| {
            let [query, key, value] = inputs.map(|input| input.cast(FloatDType::BF16));
            plain::attention(query, key, value, shape, None).cast(FloatDType::F32)
        });
        real.iter().zip(&expected).for_each(|(found, expected)| assert_near(found, expected, 3.0 * EPSILON));
        let single = results(&|inputs| attention(inputs, shape, None, Precision::F32));
        for (single, emulated) in single.iter().zip(&emulated) {
            assert_near(single, emulated, 3.0 * EPSILON);
            assert!(single != emulated);
        }
    }
}

/// The mask is far below what bf16 tells apart, and is added in f32: padded keys get no weight in bf16 either.
#[test]
fn padded_keys_and_values_change_no_bit_in_bf16() {
    let lengths = Lengths::new(vec![3, 5], 6);
    let attend = |garbage: f32| {
        let fill = |seed: u64| {
            let mut values = normal(12 * 4, seed);
            for (example, &valid) in lengths.valid().iter().enumerate() {
                values[(example * 6 + valid) * 4..(example + 1) * 6 * 4].fill(garbage);
            }
            tensor::<Flex, 2>(&values, [12, 4]).cast(FloatDType::BF16)
        };
        let shape = AttentionShape { heads: 2, lengths: &lengths };
        let query = tensor::<Flex, 2>(&normal(12 * 4, 1), [12, 4]).cast(FloatDType::BF16);
        values(plain::attention(query, fill(2), fill(3), shape, None))
    };
    assert_eq!(attend(0.0), attend(1e4));
}

/// Dropout falls on the weights in f32: with p = 1/2 they are dropped or doubled, both of which bf16 has exactly.
#[test]
fn attention_in_bf16_drops_what_it_drops_in_f32() {
    let lengths = Lengths::full(2, 9);
    let dropout = Some(Dropout { probability: 0.5, key: 99 });
    let inputs = [53, 54, 55].map(|seed| tensor::<Train, 2>(&normal(18 * 4, seed), [18, 4]));
    let shape = AttentionShape { heads: 2, lengths: &lengths };
    let single =
        values(<Train as Ops>::attention(inputs[0].clone(), inputs[1].clone(), inputs[2].clone(), shape, dropout));
    let found = values(attention(inputs.clone(), shape, dropout, Precision::Bf16));
    assert_near(&found, &single, 3.0 * EPSILON);
    let [query, key, value] = inputs.map(|input| input.cast(FloatDType::BF16));
    let real = values(plain::attention(query, key, value, shape, dropout).cast(FloatDType::F32));
    assert_near(&real, &single, 3.0 * EPSILON);
}
