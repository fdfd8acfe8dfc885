//! Whether a step of a config fits the memory of its device.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Finding, bad, good};
use clasp::{
    config::{Config, DataSource},
    data::{SAMPLE_RATE, dataset::Dataset},
    demo::{self, DemoOptions},
    device::{self, Chosen},
    error,
    memory::{
        self,
        estimate::{Estimate, Footprint, Shape},
        shown,
    },
    train::setup::{self, Material},
};

const WHAT: &str = "memory of a step";
/// Utterances of the demo that stand for all of it.
const SAMPLE: usize = 96;

/// Estimates a step and the scoring of `dev`. Where the config has problems already (`is_sound` is false), what hinders
/// the estimate is one of those and not told again.
pub fn check(config: &Config, is_sound: bool) -> Finding {
    match estimate(config) {
        Ok(finding) => finding,
        Err(_) if !is_sound => good(WHAT, "not estimated: it needs what the problems above lack".into()),
        Err(problem) => bad(WHAT, &problem),
    }
}

fn estimate(config: &Config) -> anyhow::Result<Finding> {
    let all = device::choose_all(&config.run.device)?;
    let chosen = all[0];
    let material = prepare(config)?;
    // Of a device: several CUDA devices have memory of their own, several copies on the CPU share the system's.
    let available = match chosen {
        Chosen::Cpu => memory::available().map(|bytes| bytes / all.len() as u64),
        Chosen::Cuda(_) => all.iter().filter_map(|&each| Some(memory::device(each)?.free)).min(),
    };
    let samples = material.train.lengths()?.iter().sum();
    let threads = rayon::current_num_threads();
    let footprint = Footprint::of_run(&material.model, &material.config, samples, chosen, threads);
    let longest = longest(&material.train)?;
    let shape = worst(&footprint, &material.config, longest, material.train.len(), all.len());
    let step = footprint.step(shape);
    let scoring = match &material.dev {
        Some(dev) => {
            let shape = worst(&footprint, &material.config, self::longest(dev)?, dev.len(), 1);
            Some(footprint.evaluation(shape, true))
        }
        None => None,
    };
    let most = step.total.max(scoring.map_or(0, |scoring| scoring.total));
    let largest = available.map(|available| footprint.largest_batch(longest, available) * all.len());
    let does_fit = available.is_none_or(|available| most <= available);
    let mut text = sentence(shape, &step, scoring.as_ref(), chosen, available, largest);
    if all.len() > 1 {
        let _ = write!(text, "; on each of {} devices, which share a batch", all.len());
    }
    if let (false, Some(largest)) = (does_fit, largest) {
        text.push_str(&remedies(&material.config, longest, largest, chosen));
    }
    let code = (!does_fit).then_some(error::FAILED);
    Ok(Finding { what: WHAT, text, code, numbers: numbers(shape, &step, scoring.as_ref(), available, largest) })
}

/// What training would start from; of the demo, whose corpus is not made before, a sample.
fn prepare(config: &Config) -> anyhow::Result<Material> {
    let mut config = config.clone();
    let DataSource::Demo { utterances, seed, .. } = config.data.source else { return setup::prepare(&config) };
    let folder = tempfile::tempdir()?;
    let options = DemoOptions { utterances: utterances.min(SAMPLE), seed };
    let corpus = demo::write_corpus(folder.path(), &options)?;
    config.data.source = DataSource::Manifests { train: corpus.train, dev: Some(corpus.dev), test: None };
    let material = setup::prepare(&config)?;
    // Asked for while the files are there.
    material.train.lengths()?;
    if let Some(dev) = &material.dev {
        dev.lengths()?;
    }
    Ok(material)
}

/// One utterance as long as the longest.
fn longest(dataset: &Dataset) -> anyhow::Result<Shape> {
    let samples = dataset.lengths()?.into_iter().max().unwrap_or(0);
    Ok(Shape { batch: 1, samples, tokens: dataset.token_lengths().into_iter().max().unwrap_or(0) })
}

/// A device's part of the batch that takes most: the longest utterances, or where seconds limit a batch as many as there
/// may be.
fn worst(footprint: &Footprint, config: &Config, longest: Shape, utterances: usize, devices: usize) -> Shape {
    let most = config.train.batch_size.min(utterances).max(1).div_ceil(devices);
    let Some(seconds) = config.train.batch_seconds.0 else { return Shape { batch: most, ..longest } };
    let samples = clasp::data::audio::samples_of(seconds);
    let long = Shape { batch: (samples / longest.samples.max(1)).clamp(1, most), ..longest };
    let many = Shape { batch: most, samples: (samples / most).min(longest.samples), ..longest };
    if footprint.step(long).total < footprint.step(many).total { many } else { long }
}

/// Seconds in tenths, rounded up.
fn seconds(samples: usize) -> String {
    let tenths = (10 * samples).div_ceil(SAMPLE_RATE as usize);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn sentence(
    shape: Shape,
    step: &Estimate,
    scoring: Option<&Estimate>,
    chosen: Chosen,
    available: Option<u64>,
    largest: Option<usize>,
) -> String {
    let mut text = format!(
        "about {} for {} utterance(s) of up to {} s and {} tokens, the longest of train (weights {}, gradients {}, \
         moments {}, activations {}, data {}, at work {})",
        shown(step.total),
        shape.batch,
        seconds(shape.samples),
        shape.tokens,
        shown(step.weights),
        shown(step.gradients),
        shown(step.moments),
        shown(step.activations),
        shown(step.data),
        shown(step.working),
    );
    if let Some(scoring) = scoring {
        let _ = write!(text, ", {} to score dev", shown(scoring.total));
    }
    match available {
        Some(available) => {
            let _ = write!(text, "; {} available on {chosen}", shown(available));
        }
        None => text.push_str("; what is available is unknown"),
    }
    if let Some(largest) = largest {
        let _ = write!(text, "; the largest batch of such utterances that fits: {largest}");
    }
    if chosen != Chosen::Cpu {
        text.push_str("; on CUDA the estimate is worked out, not measured");
    }
    text
}

/// What to change where it does not fit.
fn remedies(config: &Config, longest: Shape, largest: usize, chosen: Chosen) -> String {
    let train = &config.train;
    let mut ways = Vec::new();
    if largest > 0 && largest < train.batch_size {
        let window = (train.batch_size * train.accumulation_steps).div_ceil(largest);
        ways.push(format!(
            "train.batch_size = {largest} (with train.accumulation_steps = {window} the window stays as large)"
        ));
        ways.push(format!("train.batch_seconds = {}", seconds(largest * longest.samples)));
    }
    ways.push("a lower data.max_seconds".to_owned());
    let freezes = [("text.freeze", config.text.freeze), ("speech.freeze", config.speech.freeze)];
    ways.extend(freezes.iter().filter(|(_, is_set)| !is_set).map(|(key, _)| format!("{key} = true")));
    if chosen != Chosen::Cpu {
        ways.push("run.precision = \"bf16\"".to_owned());
    }
    format!("; it does not fit: set {}", ways.join(", or "))
}

fn numbers(
    shape: Shape,
    step: &Estimate,
    scoring: Option<&Estimate>,
    available: Option<u64>,
    largest: Option<usize>,
) -> Value {
    json!({
        "batch": shape.batch,
        "longest_samples": shape.samples,
        "longest_tokens": shape.tokens,
        "weights_bytes": step.weights,
        "gradients_bytes": step.gradients,
        "moments_bytes": step.moments,
        "activations_bytes": step.activations,
        "data_bytes": step.data,
        "working_bytes": step.working,
        "step_bytes": step.total,
        "scoring_bytes": scoring.map(|scoring| scoring.total),
        "available_bytes": available,
        "largest_batch": largest,
    })
}
