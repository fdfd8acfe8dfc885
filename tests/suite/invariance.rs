//! Padding and company never change a result: an utterance's outputs are the same alone, in any batch, in any order and
//! with any amount of padding, to within 1e-5 of each tensor's norm (docs/model.md).

use std::path::PathBuf;

use burn::backend::flex::FlexDevice;
use clasp::{
    checkpoint,
    encoder::{Encoded, Inputs, Wanted},
    method,
    model::Model,
    ops::{Lengths, Mode},
    random::{Random, mix},
};

use crate::{
    parity::FAMILIES,
    reference::{Cpu, relative_error, values},
};

/// Single precision, summed in another order.
const TOLERANCE: f64 = 1e-5;
const PAD: i64 = 1;
/// Entries of the fixtures' vocabulary.
const VOCABULARY: usize = 96;

fn fixtures() -> impl Iterator<Item = &'static str> {
    ["group-norm", "layer-norm", "adapters"].into_iter().chain(FAMILIES)
}

/// Tokens and normalised samples.
#[derive(Clone)]
struct Utterance {
    tokens: Vec<i64>,
    samples: Vec<f32>,
}

impl Utterance {
    /// `<s>`, words, `</s>`, and noise of zero mean and unit variance.
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers")]
    fn random(tokens: usize, samples: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let words = (2..tokens).map(|_| 4 + random.below(VOCABULARY - 4) as i64);
        let tokens = std::iter::once(0).chain(words).chain([2]).collect();
        let samples = (0..samples).map(|_| random.normal() as f32).collect();
        Self { tokens, samples }
    }
}

/// What lies behind the end of an utterance.
#[derive(Clone, Copy, Debug)]
enum Padding {
    /// What the loader puts there.
    Nothing,
    /// What nothing may look at.
    Garbage,
}

/// Utterances side by side, padded to the longest and some more.
fn batch(utterances: &[&Utterance], more_tokens: usize, more_samples: usize, padding: Padding) -> Inputs {
    let longest = |length: fn(&Utterance) -> usize| utterances.iter().map(|one| length(one)).max().unwrap();
    let longest_text = longest(|one| one.tokens.len()) + more_tokens;
    let longest_speech = longest(|one| one.samples.len()) + more_samples;
    let mut inputs = Inputs {
        tokens: Vec::new(),
        text_lengths: Lengths::new(utterances.iter().map(|one| one.tokens.len()).collect(), longest_text),
        waveforms: Vec::new(),
        speech_lengths: Lengths::new(utterances.iter().map(|one| one.samples.len()).collect(), longest_speech),
        features: None,
    };
    for one in utterances {
        let (tokens, samples) = match padding {
            Padding::Nothing => (vec![PAD; longest_text], vec![0.0; longest_speech]),
            Padding::Garbage => {
                let garbage = Utterance::random(longest_text, longest_speech, 999);
                (garbage.tokens, garbage.samples.iter().map(|sample| 5.0 + 3.0 * sample).collect())
            }
        };
        inputs.tokens.extend(one.tokens.iter().chain(&tokens[one.tokens.len()..]));
        inputs.waveforms.extend(one.samples.iter().chain(&samples[one.samples.len()..]));
    }
    inputs
}

/// The shortest that there is, and others; lengths that share no frame boundary.
fn utterances(seed: u64) -> Vec<Utterance> {
    [(2, 400), (9, 3301), (5, 1800), (12, 4007), (3, 719), (2, 2600)]
        .into_iter()
        .enumerate()
        .map(|(number, (tokens, samples))| Utterance::random(tokens, samples, mix(seed, number as u64)))
        .collect()
}

fn model(name: &str) -> Model<Cpu> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name);
    checkpoint::load(&folder, &FlexDevice).unwrap().model
}

/// Names and values of an utterance's tensors.
type Outputs = Vec<(String, Vec<f32>)>;

/// The outputs of the utterances of a batch, one after the other.
type Pass<'a> = &'a dyn Fn(&Inputs) -> Vec<Outputs>;

/// Every output of the model, a row an utterance.
fn whole(model: &Model<Cpu>, inputs: &Inputs) -> Vec<Outputs> {
    let mut rows = vec![Outputs::new(); inputs.text_lengths.batch()];
    for (name, tensor) in method::tensors(&*model.forward(inputs, Mode::evaluation(), &FlexDevice)) {
        let [batch, width] = tensor.dims();
        let tensor = values(tensor.into_data());
        assert_eq!(batch, rows.len());
        rows.iter_mut().zip(tensor.chunks(width)).for_each(|(row, values)| row.push((name.into(), values.to_vec())));
    }
    rows
}

/// The hidden states of both encoders at the valid positions.
fn encoders(model: &Model<Cpu>, inputs: &Inputs) -> Vec<Outputs> {
    let device = FlexDevice;
    let text = model.text_encoder.as_ref().unwrap().forward(
        &inputs.tokens,
        &inputs.text_lengths,
        Wanted::Last,
        Mode::evaluation(),
        &device,
    );
    let encoder = model.speech_encoder.as_ref().unwrap();
    let speech = encoder.forward(&inputs.waveforms, &inputs.speech_lengths, Wanted::Last, Mode::evaluation(), &device);
    let mut rows = vec![Outputs::new(); inputs.speech_lengths.batch()];
    for (name, Encoded { hidden, lengths, .. }) in [("text hidden", text), ("speech hidden", speech)] {
        let [positions, width] = hidden.dims();
        assert_eq!(positions, lengths.batch() * lengths.longest());
        let hidden = values(hidden.into_data());
        for (row, (values, &valid)) in
            rows.iter_mut().zip(hidden.chunks(lengths.longest() * width).zip(lengths.valid()))
        {
            assert!(valid > 0);
            row.push((name.into(), values[..valid * width].to_vec()));
        }
    }
    rows
}

#[track_caller]
fn assert_same(found: &Outputs, expected: &Outputs, what: &str) {
    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        assert!(found.iter().all(|value| value.is_finite()), "{what}: {name} is not finite");
        let error = relative_error(found, expected, 1e-12);
        assert!(error < TOLERANCE, "{what}: {name} is off by {error:e}");
    }
}

/// Holds every batch that can be made of some utterances against each of them alone.
fn holds(name: &str, seed: u64, pass: Pass<'_>) {
    let utterances = utterances(seed);
    let alone: Vec<Outputs> =
        utterances.iter().map(|one| pass(&batch(&[one], 0, 0, Padding::Nothing)).remove(0)).collect();
    let check = |order: &[usize], more_tokens: usize, more_samples: usize, padding: Padding| {
        let chosen: Vec<&Utterance> = order.iter().map(|&number| &utterances[number]).collect();
        let found = pass(&batch(&chosen, more_tokens, more_samples, padding));
        assert_eq!(found.len(), order.len());
        for (found, &number) in found.iter().zip(order) {
            let what = format!(
                "{name}, utterance {number} in {order:?} with {more_tokens} tokens, {more_samples} samples and {padding:?} behind"
            );
            assert_same(found, &alone[number], &what);
        }
    };
    for number in 0..utterances.len() {
        for (more_tokens, more_samples) in [(1, 1), (7, 400), (20, 5000)] {
            check(&[number], more_tokens, more_samples, Padding::Nothing);
            check(&[number], more_tokens, more_samples, Padding::Garbage);
        }
    }
    let mut order: Vec<usize> = (0..utterances.len()).collect();
    let mut random = Random::new(seed);
    for size in [2, 3, 4, 6, 6] {
        random.shuffle(&mut order);
        check(&order[..size], 0, 0, Padding::Nothing);
        check(&order[..size], 3, 777, Padding::Garbage);
    }
    // The same one twice.
    check(&[1, 0, 1], 0, 0, Padding::Nothing);
}

#[test]
fn every_output_of_the_model_is_that_of_the_utterance_alone() {
    for name in fixtures() {
        let model = model(name);
        for seed in [1, 2] {
            holds(name, seed, &|inputs| whole(&model, inputs));
        }
    }
}

#[test]
fn every_hidden_state_of_both_encoders_is_that_of_the_utterance_alone() {
    for name in fixtures() {
        let model = model(name);
        for seed in [3, 4] {
            holds(name, seed, &|inputs| encoders(&model, inputs));
        }
    }
}

/// The comparison sees what it should: another utterance is not the same.
#[test]
fn different_utterances_differ() {
    for name in fixtures() {
        let model = model(name);
        let inputs = batch(&[&Utterance::random(5, 1800, 1), &Utterance::random(5, 1800, 2)], 0, 0, Padding::Nothing);
        let rows = whole(&model, &inputs);
        for ((tensor, first), (_, second)) in rows[0].iter().zip(&rows[1]) {
            assert!(relative_error(first, second, 1e-12) > 1e-3, "{name}: {tensor}");
        }
    }
}
