//! The model against its statement in `PyTorch` on Hugging Face's encoders (`scripts/make_fixtures.py`): every output,
//! loss and gradient, and ten steps of Adam.

use std::path::PathBuf;

use clasp::config::Precision;

use crate::reference::Reference;

/// Single precision over some ten layers, summed in another order: ten times what `PyTorch` in f32 is off the same
/// values, and below what a wrong epsilon or a tanh approximation would make.
const OUTPUT_TOLERANCE: f64 = 1e-5;
const GRADIENT_TOLERANCE: f64 = 1e-4;
const TRAJECTORY_TOLERANCE: f64 = 1e-3;
/// What bf16, with its eight bits, may make of the logits and of the gradients.
const BF16_LOGITS_TOLERANCE: f64 = 2e-2;
const BF16_GRADIENT_TOLERANCE: f64 = 1e-1;
/// The rate at which the fixtures were trained.
const LEARNING_RATE: f64 = 1e-3;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name)
}

fn holds(name: &str) {
    let folder = folder(name);
    let reference = Reference::read(&folder);
    let errors = reference.errors(&folder, Precision::F32);
    assert!(errors.len() > 100, "only {} tensors compared", errors.len());
    for (tensor, error) in errors {
        let tolerance = if tensor.starts_with("grad.") { GRADIENT_TOLERANCE } else { OUTPUT_TOLERANCE };
        assert!(error < tolerance, "{name}: {tensor} is off by {error:e}");
    }
}

fn trains_alike(name: &str) {
    let folder = folder(name);
    let reference = Reference::read(&folder);
    assert_eq!(reference.trajectory.len(), 10);
    let steps = reference.train(&folder, LEARNING_RATE);
    for (step, (found, expected)) in steps.iter().zip(&reference.trajectory).enumerate() {
        for (term, found) in found {
            let expected = expected[term];
            let error = (found - expected).abs() / expected.abs().max(1e-2);
            assert!(error < TRAJECTORY_TOLERANCE, "{name}, step {step}: {term} is {found} and should be {expected}");
        }
    }
}

#[test]
fn the_group_norm_variant_gives_the_reference() {
    holds("group-norm");
}

#[test]
fn the_layer_norm_variant_gives_the_reference() {
    holds("layer-norm");
}

#[test]
fn encoders_of_other_widths_and_plain_attention_give_the_reference() {
    holds("adapters");
}

/// Each family of text encoders with one of speech encoders, and what the heads may see of their layers.
pub const FAMILIES: [&str; 8] = [
    "bert-hubert",
    "xlm-roberta-data2vec",
    "roberta-unispeech-sat",
    "camembert-wavlm",
    "roberta-whisper",
    "roberta-whisper-padded",
    "layers",
    "layers-whisper",
];

#[test]
fn the_other_families_give_the_reference() {
    for name in FAMILIES {
        holds(name);
    }
}

/// The difference of bf16 to f32: not large, and not nothing either.
#[test]
fn bf16_gives_the_reference_but_for_its_rounding() {
    for name in ["group-norm", "layer-norm", "adapters"] {
        let folder = folder(name);
        let errors = Reference::read(&folder).errors(&folder, Precision::Bf16);
        for (tensor, error) in errors {
            if tensor.starts_with("output.logits") {
                assert!(error < BF16_LOGITS_TOLERANCE, "{name}: {tensor} is off by {error:e}");
                assert!(error > OUTPUT_TOLERANCE, "{name}: {tensor} is off by {error:e}: nothing is rounded");
            } else if tensor.starts_with("grad.") {
                assert!(error < BF16_GRADIENT_TOLERANCE, "{name}: {tensor} is off by {error:e}");
            }
        }
    }
}

#[test]
fn ten_steps_of_adam_follow_the_reference() {
    for name in ["group-norm", "layer-norm", "adapters"].into_iter().chain(FAMILIES) {
        trains_alike(name);
    }
}
