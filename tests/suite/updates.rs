//! Steps of the optimiser on a whole model: what is frozen, accumulation, decay, and going on from a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::PathBuf,
};

use burn::{backend::flex::FlexDevice, module::AutodiffModule, tensor::Tensor};
use clasp::{
    checkpoint::{self, parameters},
    encoder::Inputs,
    loss::Targets,
    method::{self, Terms},
    model::Model,
    ops::{Lengths, Mode, StepRandom},
    train::{
        gradients::GradientWindow,
        optimizer::{Optimizer, OptimizerConfig},
    },
};
use safetensors::SafeTensors;

use crate::reference::{Cpu, Reference, Train, norm, relative_error, values};

const FIXTURES: [&str; 3] = ["group-norm", "layer-norm", "adapters"];

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name)
}

fn load(name: &str) -> (Model<Train>, Reference, checkpoint::CheckpointConfig) {
    let loaded = checkpoint::load::<Cpu>(&folder(name), &FlexDevice).unwrap();
    (parameters::trainable(loaded.model), Reference::read(&folder(name)), loaded.config)
}

fn terms(
    model: &Model<Train>,
    inputs: &Inputs,
    labels: &[usize],
    config: &checkpoint::CheckpointConfig,
    mode: Mode<'_>,
) -> Terms<Train> {
    let output = model.forward(inputs, mode, &FlexDevice);
    let targets = Targets::new(labels, config.labels.len(), &[], config.loss.label_smoothing);
    output.losses(None, &targets, &config.loss)
}

fn optimizer() -> OptimizerConfig {
    OptimizerConfig {
        decoupled: true,
        weight_decay: 0.1,
        learning_rate: 1e-3,
        encoder_learning_rate: 5e-4,
        layer_decay: 0.5,
        text_layers: 2,
        speech_layers: 2,
        speech_norm_is_last: false,
    }
}

/// Every parameter's values by its name.
pub fn weights(model: &Model<Train>) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    checkpoint::save_module(&model.valid(), &path).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

/// One batch, backwards.
fn window(model: &Model<Train>, loss: &Tensor<Train, 1>) -> GradientWindow<Cpu> {
    let mut window = GradientWindow::default();
    window.add::<Train, _>(model, loss.backward());
    window
}

/// Names of the parameters that one step of all terms gives a gradient, and of those that it moves; without the vector
/// of masked frames, which is used only where a span is drawn.
fn touched(name: &str, freeze: impl Fn(Model<Train>) -> Model<Train>) -> (BTreeSet<String>, BTreeSet<String>) {
    let (model, reference, config) = load(name);
    let mut model = freeze(model);
    let before = weights(&model);
    let random = StepRandom::new(1, 1);
    let terms = terms(&model, &reference.inputs, &reference.labels, &config, Mode::training(&random));
    let mut window = window(&model, &terms.total);
    let is_used = |name: &&str| !name.ends_with("masked_spec_embed");
    let with_gradient = window.names().filter(is_used).map(str::to_owned).collect();
    model = Optimizer::<Train>::new(optimizer()).step(model, &mut window, 1.0, 1.0);
    let after = weights(&model);
    let has_moved = |(name, bytes): (&String, &Vec<u8>)| (after[name] != *bytes).then(|| name.clone());
    let mut moved: BTreeSet<String> = before.iter().filter_map(has_moved).collect();
    moved.retain(|name| is_used(&name.as_str()));
    (with_gradient, moved)
}

/// What is in one of two sets of names.
fn differences<'a>(left: &'a BTreeSet<String>, right: &'a BTreeSet<String>) -> Vec<&'a str> {
    left.symmetric_difference(right).map(String::as_str).collect()
}

#[test]
fn everything_moves_where_nothing_is_frozen() {
    for name in FIXTURES {
        let (with_gradient, moved) = touched(name, |model| model);
        let all: BTreeSet<String> = weights(&load(name).0).into_keys().collect();
        let left: Vec<&String> = all.difference(&moved).collect();
        assert!(left.iter().all(|name| name.ends_with("masked_spec_embed")), "{name}: {left:?} stayed");
        assert_eq!(differences(&with_gradient, &moved), [""; 0], "{name}");
    }
}

/// Freezes a part of a model.
type Freeze = fn(Model<Train>) -> Model<Train>;

/// Whether a parameter lies in that part.
type IsFrozen<'a> = &'a dyn Fn(&str) -> bool;

#[test]
fn frozen_parts_have_no_gradient_and_do_not_move() {
    let in_front = |name: &str, encoder: &str| {
        name.starts_with(encoder) && !name.contains(".layer.") && !name.contains(".layers.")
    };
    for name in FIXTURES {
        let is_pre_norm = name == "layer-norm";
        let cases: [(&str, Freeze, IsFrozen<'_>); 5] = [
            (
                "the text encoder",
                |model| model.map_encoders(burn::prelude::Module::no_grad, |speech| speech),
                &|name| name.starts_with("text_encoder."),
            ),
            ("the speech encoder", |model| model.map_encoders(|text| text, burn::prelude::Module::no_grad), &|name| {
                name.starts_with("speech_encoder.")
            }),
            (
                "the feature encoder",
                |model| model.map_encoders(|text| text, clasp::encoder::SpeechEncoder::freeze_feature_encoder),
                &|name| name.starts_with("speech_encoder.feature_extractor."),
            ),
            ("a layer of text", |model| model.map_encoders(|text| text.freeze_layers(1), |speech| speech), &|name| {
                in_front(name, "text_encoder.") || name.starts_with("text_encoder.encoder.layer.0.")
            }),
            ("a layer of speech", |model| model.map_encoders(|text| text, |speech| speech.freeze_layers(1)), &|name| {
                // With pre-norm layers the norm lies behind them.
                let is_last_norm = is_pre_norm && name.starts_with("speech_encoder.encoder.layer_norm.");
                let is_in_front =
                    in_front(name, "speech_encoder.") || name.starts_with("speech_encoder.feature_extractor.");
                (is_in_front && !is_last_norm) || name.starts_with("speech_encoder.encoder.layers.0.")
            }),
        ];
        for (what, freeze, is_frozen) in cases {
            let (with_gradient, moved) = touched(name, freeze);
            assert_eq!(differences(&with_gradient, &moved), [""; 0], "{name}, {what}");
            let frozen: BTreeSet<String> = weights(&load(name).0).into_keys().filter(|name| is_frozen(name)).collect();
            assert!(!frozen.is_empty());
            let wrong: Vec<&String> = moved.iter().filter(|name| is_frozen(name)).collect();
            assert!(wrong.is_empty(), "{name}, {what}: {wrong:?} moved");
            let (_, all) = touched(name, |model| model);
            let left: Vec<&String> = all.difference(&moved).filter(|name| !is_frozen(name)).collect();
            assert!(left.is_empty(), "{name}, {what}: {left:?} stayed");
        }
    }
}

/// What a frozen encoder gives is what it gives in evaluation, whatever is drawn: dropout is on in these configs.
#[test]
fn a_frozen_encoder_runs_as_in_evaluation() {
    let (model, reference, _) = load("group-norm");
    let vectors = |model: &Model<Train>, mode: Mode<'_>| {
        let output = model.forward(&reference.inputs, mode, &FlexDevice);
        let named = |name: &str| method::tensors(&*output).into_iter().find(|(other, _)| *other == name).unwrap().1;
        ["text", "speech"].map(|name| values(named(name).into_data()))
    };
    let evaluated = vectors(&model, Mode::evaluation());
    let random = StepRandom::new(1, 1);
    for (text, speech) in [(true, false), (false, true)] {
        let model = load("group-norm").0.with_frozen(text, speech);
        let trained = vectors(&model, Mode::training(&random));
        assert_eq!([trained[0] == evaluated[0], trained[1] == evaluated[1]], [text, speech]);
    }
}

/// A part of a batch, padded as the whole is.
fn part(inputs: &Inputs, examples: Range<usize>) -> Inputs {
    let (tokens, samples) = (inputs.text_lengths.longest(), inputs.speech_lengths.longest());
    Inputs {
        tokens: inputs.tokens[examples.start * tokens..examples.end * tokens].to_vec(),
        text_lengths: Lengths::new(inputs.text_lengths.valid()[examples.clone()].to_vec(), tokens),
        waveforms: inputs.waveforms[examples.start * samples..examples.end * samples].to_vec(),
        speech_lengths: Lengths::new(inputs.speech_lengths.valid()[examples].to_vec(), samples),
        features: None,
    }
}

/// The gradients of a window by parameter.
fn gradients(model: &Model<Train>, mut window: GradientWindow<Cpu>) -> BTreeMap<String, Vec<f32>> {
    let shapes = parameters::shapes(model).into_iter();
    shapes.filter_map(|(name, shape)| Some((name.clone(), values(window.take(&name)?.into_data(&shape))))).collect()
}

/// The task terms of a window of batches, each weighed by its share of the examples, are those of one batch.
#[test]
#[expect(clippy::cast_precision_loss, reason = "a handful of examples")]
fn a_window_of_batches_is_one_batch_to_the_task_terms() {
    for name in FIXTURES {
        let (model, reference, config) = load(name);
        let examples = reference.labels.len();
        let task = |range: Range<usize>| {
            let share = range.len() as f64 / examples as f64;
            let inputs = part(&reference.inputs, range.clone());
            let terms = terms(&model, &inputs, &reference.labels[range], &config, Mode::evaluation());
            let tasks = terms.named.into_iter().filter(|(name, _)| name.starts_with("task_"));
            tasks.map(|(_, term)| term).reduce(|sum, term| sum + term).unwrap() * share
        };
        let run = |ranges: &[Range<usize>]| {
            let mut window = GradientWindow::<Cpu>::default();
            let mut mean = 0.0;
            for range in ranges {
                let loss = task(range.clone());
                window.add::<Train, _>(&model, loss.backward());
                mean += f64::from(values(loss.into_data())[0]);
            }
            (mean, window.squares().unwrap().norms().total, gradients(&model, window))
        };
        let (mean, total, expected) = run(std::slice::from_ref(&(0..examples)));
        let ones: Vec<Range<usize>> = (0..examples).map(|one| one..one + 1).collect();
        // One at a time; and a window whose last batch is short.
        for ranges in [ones, vec![0..examples - 1, examples - 1..examples]] {
            let (found_mean, found_total, found) = run(&ranges);
            assert!((found_mean - mean).abs() < 1e-6 * mean, "{name}: {found_mean} should be {mean}");
            assert!((found_total - total).abs() < 1e-6 * total, "{name}: norm {found_total} should be {total}");
            assert!(found.keys().eq(expected.keys()));
            for (parameter, expected) in &expected {
                // Small gradients are sums that cancel: they are held against a hundredth of the whole.
                let error = relative_error(&found[parameter], expected, 1e-2 * total);
                assert!(error < 2e-6, "{name}: {parameter} is off by {error:e}");
            }
        }
    }
}

/// The norm over all gradients, which clipping goes by, is that of the gradients put one behind the other.
#[test]
fn the_global_norm_is_that_of_all_gradients() {
    let (model, reference, config) = load("group-norm");
    let terms = terms(&model, &reference.inputs, &reference.labels, &config, Mode::evaluation());
    let window = window(&model, &terms.total);
    let found = window.squares().unwrap().norms().total;
    let all: Vec<f32> = gradients(&model, window).into_values().flatten().collect();
    assert!((found - norm(&all)).abs() < 1e-6 * found, "{found}");
}

/// The first step of Adam moves an element by its rate, whatever its gradient, where that is well above epsilon.
#[test]
fn every_part_moves_at_its_own_rate() {
    let config = OptimizerConfig { decoupled: false, weight_decay: 0.0, ..optimizer() };
    let (mut model, reference, checkpoint) = load("layer-norm");
    let terms = terms(&model, &reference.inputs, &reference.labels, &checkpoint, Mode::evaluation());
    let before = weights(&model);
    let mut window = window(&model, &terms.total);
    let schedule = 0.5;
    model = Optimizer::<Train>::new(config.clone()).step(model, &mut window, schedule, 1.0);
    let after = weights(&model);
    let mut rates = BTreeSet::new();
    for (name, before) in &before {
        let moved = reals(before).zip(reals(&after[name])).map(|(before, after)| (after - before).abs());
        let moved = moved.fold(0.0, f64::max);
        let rate = config.rate(name) * schedule;
        // A key's bias has no gradient but rounding; the others move by the rate, rounded to their own size.
        let least = if name.ends_with("key.bias") || name.ends_with("k_proj.bias") { 0.0 } else { 0.98 * rate };
        assert!((least..1.02 * rate).contains(&moved), "{name} moved by {moved}, its rate is {rate}");
        rates.insert(format!("{rate:e}"));
    }
    // New layers; the higher layer, the lower and what lies in front of it.
    assert_eq!(rates.len(), 4, "{rates:?}");
}

fn reals(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.chunks_exact(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())))
}

/// Weights and moments from files go on as those in memory do, to the bit.
#[test]
fn an_optimiser_goes_on_from_its_file_to_the_bit() {
    for name in FIXTURES {
        let (mut model, reference, config) = load(name);
        let step = |model: Model<Train>, optimizer: &mut Optimizer<Train>, number: u64| {
            let random = StepRandom::new(7, number);
            let terms = terms(&model, &reference.inputs, &reference.labels, &config, Mode::training(&random));
            let mut window = window(&model, &terms.total);
            let schedule = 1.0 / f64::from(u32::try_from(number).unwrap());
            optimizer.step(model, &mut window, schedule, 0.7)
        };
        let mut optimizer_in_memory = Optimizer::new(optimizer());
        for number in 1..4 {
            model = step(model, &mut optimizer_in_memory, number);
        }
        let folder = tempfile::tempdir().unwrap();
        let moments = folder.path().join("optimizer.safetensors");
        checkpoint::save(&model.valid(), &config, folder.path()).unwrap();
        optimizer_in_memory.save(&moments).unwrap();

        let loaded = checkpoint::load::<Cpu>(folder.path(), &FlexDevice).unwrap();
        let mut resumed: Model<Train> = parameters::trainable(loaded.model);
        assert!(weights(&resumed) == weights(&model), "{name}: the weights");
        let mut optimizer_from_file = Optimizer::new(optimizer());
        optimizer_from_file.load(&moments, &FlexDevice).unwrap();
        for number in 4..7 {
            model = step(model, &mut optimizer_in_memory, number);
            resumed = step(resumed, &mut optimizer_from_file, number);
        }
        assert!(weights(&resumed) == weights(&model), "{name}: the weights three steps on");
        let again = folder.path().join("again.safetensors");
        optimizer_in_memory.save(&again).unwrap();
        optimizer_from_file.save(&moments).unwrap();
        assert!(std::fs::read(&again).unwrap() == std::fs::read(&moments).unwrap(), "{name}: the moments");
    }
}

#[test]
fn a_damaged_file_of_moments_is_an_error() {
    let (model, reference, config) = load("adapters");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let mut optimizer = Optimizer::<Train>::new(optimizer());
    let terms = terms(&model, &reference.inputs, &reference.labels, &config, Mode::evaluation());
    let mut window = window(&model, &terms.total);
    let _ = optimizer.step(model, &mut window, 1.0, 1.0);
    optimizer.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = optimizer.load(&path, &FlexDevice).unwrap_err().to_string();
        assert!(message.contains("optimizer.safetensors"), "{message}");
    }
    std::fs::copy(self::folder("adapters").join("model.safetensors"), &path).unwrap();
    let message = optimizer.load(&path, &FlexDevice).unwrap_err().to_string();
    assert!(message.contains("no step counts"), "{message}");
}
