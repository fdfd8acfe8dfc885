//! The network against `scripts/lrmp_torch.py export`; the features of that script agree with librosa's to 5e-8.

use std::{collections::BTreeMap, path::PathBuf};

use burn::{
    backend::{Autodiff, Flex, flex::FlexDevice},
    tensor::TensorData,
};
use safetensors::SafeTensors;

use super::{HeadMethod, LrmpArch, LrmpOptions, Sizes, features};
use crate::{
    checkpoint::parameters,
    choices::Precision,
    encoder::Inputs,
    loss::{Targets, cross_entropy},
    nn::Init,
    ops::{Lengths, Mode, StepRandom},
    train::gradients::GradientWindow,
};

type Train = Autodiff<Flex>;

/// A tensor of a file: its shape and its values, whole numbers as reals.
type Stored = (Vec<usize>, Vec<f64>);

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/methods/lrmp-arch")
}

#[expect(clippy::cast_precision_loss, reason = "tokens and lengths are small")]
fn read(name: &str) -> BTreeMap<String, Stored> {
    let bytes = std::fs::read(folder().join(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |view: &safetensors::tensor::TensorView<'_>| -> Vec<f64> {
        let data = view.data();
        match view.dtype() {
            safetensors::Dtype::F32 => {
                data.chunks_exact(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect()
            }
            _ => data.chunks_exact(8).map(|eight| i64::from_le_bytes(eight.try_into().unwrap()) as f64).collect(),
        }
    };
    file.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(&view)))).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they were whole numbers")]
fn whole(stored: &Stored) -> Vec<usize> {
    stored.1.iter().map(|&value| value as usize).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "they were f32")]
fn single(stored: &Stored) -> Vec<f32> {
    stored.1.iter().map(|&value| value as f32).collect()
}

fn inputs(expected: &BTreeMap<String, Stored>) -> Inputs {
    let of = |name: &str| &expected[&format!("input.{name}")];
    let lengths = |name: &str, of_what: &Stored| Lengths::new(whole(of(name)), of_what.0[1]);
    Inputs {
        tokens: whole(of("tokens")).into_iter().map(|token| i64::try_from(token).unwrap()).collect(),
        text_lengths: lengths("text_lengths", of("tokens")),
        waveforms: single(of("waveforms")),
        speech_lengths: lengths("speech_lengths", of("waveforms")),
        features: None,
    }
}

fn network() -> LrmpArch<Train> {
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder().join("config.json")).unwrap()).unwrap();
    let options: LrmpOptions = serde_json::from_value(config["options"].clone()).unwrap();
    let sizes = Sizes { labels: 3, hidden: 1, text: 0, speech: 0, classifier_dropout: 0.1 };
    let empty = LrmpArch::new(&options, &sizes, &mut Init::empty(&FlexDevice));
    let stored = read("model.safetensors");
    let own = |name: &str| stored[&format!("lrmp_arch.{name}")].clone();
    assert_eq!(parameters::shapes(&empty).len(), stored.len());
    for (name, shape) in parameters::shapes(&empty) {
        assert_eq!(own(&name).0, shape, "{name}");
    }
    parameters::fill(empty, |name| {
        let stored = own(name);
        Some(TensorData::new(single(&stored), stored.0))
    })
}

/// Norm of the difference over that of what is expected, or over `floor` where that is larger.
fn error(found: &[f64], expected: &[f64], floor: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    difference / norm(&mut expected.iter().copied()).max(floor)
}

fn doubles(data: TensorData) -> Vec<f64> {
    data.convert::<f64>().to_vec().unwrap()
}

#[test]
fn features_outputs_losses_and_gradients_are_those_of_the_reference() {
    let expected = read("expected.safetensors");
    let inputs = inputs(&expected);
    let heard = features::frames(&inputs.waveforms, &inputs.speech_lengths, 16);
    assert_eq!(heard.lengths.valid(), [14, 8, 16]);
    let longest = 16 * features::WIDTH;
    let rows = heard.lengths.valid().iter().enumerate();
    let real: Vec<f64> = rows
        .flat_map(|(row, &frames)| &heard.values[row * longest..row * longest + frames * features::WIDTH])
        .map(|&value| f64::from(value))
        .collect();
    assert!(error(&real, &expected["features"].1, 0.0) < 1e-6);

    let network = network();
    let output = network.of(&inputs, Mode::evaluation(), &FlexDevice);
    for (name, tensor) in [
        ("text_decoded", output.text_decoded),
        ("speech_decoded", output.speech_decoded),
        ("fused", output.fused),
        ("logits", output.logits.clone()),
    ] {
        let error = error(&doubles(tensor.into_data()), &expected[&format!("output.{name}")].1, 0.0);
        assert!(error < 1e-4, "{name} is off by {error:e}");
    }
    let loss = cross_entropy(output.logits, &Targets::new(&whole(&expected["input.labels"]), 3, &[], 0.0));
    assert!(error(&doubles(loss.clone().into_data()), &expected["loss.task_fusion"].1, 0.0) < 1e-4);
    let mut window = GradientWindow::<Flex>::default();
    window.add::<Train, _>(&network, loss.backward());
    let total = window.squares().unwrap().norms().total;
    for (name, shape) in parameters::shapes(&network) {
        let found = window.take(&name).map(|gradient| doubles(gradient.into_data(&shape)));
        let (_, expected) = &expected[&format!("grad.lrmp_arch.{name}")];
        // A key's bias moves no softmax: its gradient is zero but for rounding.
        let error = error(&found.unwrap(), expected, 1e-4 * total);
        assert!(error < 1e-3, "the gradient of {name} is off by {error:e}");
    }
}

/// An utterance alone gives what it gives in a padded batch.
#[test]
fn padding_changes_nothing() {
    let expected = read("expected.safetensors");
    let all = inputs(&expected);
    let network = network();
    let together = doubles(network.of(&all, Mode::evaluation(), &FlexDevice).logits.into_data());
    let (tokens, samples) = (all.text_lengths.longest(), all.speech_lengths.longest());
    for row in 0..3 {
        let (words, heard) = (all.text_lengths.valid()[row], all.speech_lengths.valid()[row]);
        let one = Inputs {
            tokens: all.tokens[row * tokens..row * tokens + words].to_vec(),
            text_lengths: Lengths::full(1, words),
            waveforms: all.waveforms[row * samples..row * samples + heard].to_vec(),
            speech_lengths: Lengths::full(1, heard),
            features: None,
        };
        let alone = doubles(network.of(&one, Mode::evaluation(), &FlexDevice).logits.into_data());
        assert!(error(&alone, &together[3 * row..3 * row + 3], 0.0) < 1e-5);
    }
}

/// Silence has no variance, and one sample gives one frame.
#[test]
fn features_of_silence_and_of_one_sample_are_finite() {
    for samples in [vec![0.0; 1000], vec![0.5], vec![0.0; 199]] {
        let lengths = Lengths::full(1, samples.len());
        let heard = features::frames(&samples, &lengths, 3000);
        assert_eq!(heard.lengths.valid(), [samples.len() / 200 + 1]);
        assert!(heard.values.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn dropout_is_on_in_training_alone() {
    let inputs = inputs(&read("expected.safetensors"));
    let network = network();
    let logits = |mode: Mode<'_>| doubles(network.of(&inputs, mode, &FlexDevice).logits.into_data());
    let trained = |step| logits(Mode::training(&StepRandom::new(1, step)));
    assert_eq!(logits(Mode::evaluation()), logits(Mode::evaluation()));
    assert_eq!(trained(1), trained(1));
    assert_ne!(trained(1), trained(2));
}

/// A number of bf16 is within 2^-9 of its own size: f32 would be within 1e-4, and some ten roundings in a row are
/// within a few hundredths.
#[test]
fn bf16_is_near_f32_and_is_not_f32() {
    let expected = read("expected.safetensors");
    let mode = Mode::evaluation().with_precision(Precision::Bf16);
    let output = network().of(&inputs(&expected), mode, &FlexDevice);
    for (name, tensor) in [("text_decoded", output.text_decoded), ("speech_decoded", output.speech_decoded)] {
        let error = error(&doubles(tensor.into_data()), &expected[&format!("output.{name}")].1, 0.0);
        assert!(error > 1e-4 && error < 5e-2, "{name} is off by {error:e}");
    }
}
