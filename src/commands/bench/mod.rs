//! `clasp bench`: seconds of a training step and of a prediction, on the shapes and dropouts of
//! `scripts/clasp_torch.py bench`, with the same fields.

mod cached;
pub mod profile;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use burn::{backend::Autodiff, module::AutodiffModule};
use serde_json::json;

use super::{count, write_output};
use cached::Cached;
use clasp::{
    checkpoint::parameters::trainable,
    cli::{BenchArguments, Job, Size},
    config::LossConfig,
    data::{SAMPLE_RATE, audio::normalise, batch::Batch},
    device::{self, ResolvedDevice, Task},
    encoder::{RobertaConfig, SpeechEncoderConfig, Wav2Vec2Config},
    error,
    inference::pass::{inputs, rows},
    memory::{self, DeviceMemory},
    method::{ClaspOptions, ModelSizes, Options as _},
    model::{Model, ModelConfig},
    nn::Init,
    ops::{Mode, Ops, TrainOps},
    panics,
    profile::{self as recorder, Spent},
    random::{Random, mix},
    train::{
        optimizer::{Optimizer, OptimizerConfig},
        replica::{Objective, Replica, StepPlan},
        step_result::{PendingStep, read_every},
    },
};

/// The most samples of a batch, with its padding: what is more is a slip, and would end in a lack of memory.
const MOST_SAMPLES: usize = 1 << 28;
/// The paper's.
const LEARNING_RATE: f64 = 1e-5;

/// Runs `clasp bench`.
///
/// # Errors
/// A device that is not there; a lengths file that cannot be read.
pub fn run(arguments: &BenchArguments) -> anyhow::Result<u8> {
    cached::check(arguments)?;
    let chosen = device::choose(arguments.device)?;
    if arguments.threads > 0 {
        rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global().context("--threads")?;
    }
    let shapes = match &arguments.lengths {
        Some(path) => grouped(read_lengths(path)?, count(arguments.batch_size)),
        None if samples(arguments.seconds).saturating_mul(count(arguments.batch_size)) > MOST_SAMPLES => {
            return Err(too_large("--seconds and --batch-size").into());
        }
        None => vec![vec![(count(arguments.tokens), samples(arguments.seconds)); count(arguments.batch_size)]],
    };
    let padded =
        |batch: &Vec<(usize, usize)>| batch.iter().map(|shape| shape.1).max().unwrap_or(0).saturating_mul(batch.len());
    if shapes.iter().any(|batch| padded(batch) > MOST_SAMPLES) {
        return Err(too_large("--lengths and --batch-size").into());
    }
    let model = model_config(arguments.size);
    let most_tokens = model.text_encoder.as_ref().map_or(0, RobertaConfig::max_tokens);
    for &(tokens, samples) in shapes.iter().flatten() {
        if tokens < 2 || tokens > most_tokens || model.frames(samples) == 0 {
            bail!(clasp::config::ConfigError::invalid(
                "command line",
                vec![clasp::config::Problem::conflict(
                    "--tokens, --seconds or --lengths",
                    format!(
                        "asks for {tokens} tokens and {samples} samples: this size takes 2 to {most_tokens} tokens and 400 \
                         samples or more"
                    )
                )]
            ));
        }
    }
    let held = memory::device(chosen).map(DeviceMemory::used);
    device::dispatch(chosen, BenchTask { arguments, model, shapes, chosen, held })?;
    Ok(error::SUCCESS)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of audio are few; a negative number becomes 0 and is refused"
)]
fn samples(seconds: f64) -> usize {
    (seconds * f64::from(SAMPLE_RATE)) as usize
}

fn too_large(flags: &str) -> clasp::config::ConfigError {
    let hours = MOST_SAMPLES / (3600 * SAMPLE_RATE as usize);
    let problem =
        clasp::config::Problem::conflict(flags, format!("ask for a batch of more than {hours} hours of audio"));
    clasp::config::ConfigError::invalid("command line", vec![problem])
}

/// A JSON list of [tokens, samples].
fn read_lengths(path: &Path) -> anyhow::Result<Vec<(usize, usize)>> {
    let problem = |reason: String| {
        let problem = clasp::config::Problem::conflict("--lengths", format!("{}: {reason}", path.display()));
        clasp::config::ConfigError::invalid("command line", vec![problem])
    };
    let text = std::fs::read_to_string(path).map_err(|source| problem(source.to_string()))?;
    let lengths: Vec<(usize, usize)> = serde_json::from_str(&text)
        .map_err(|source| problem(format!("it is no JSON list of [tokens, samples]: {source}")))?;
    if lengths.is_empty() {
        return Err(problem("the list is empty".into()).into());
    }
    Ok(lengths)
}

/// Batches of neighbours in length.
fn grouped(mut lengths: Vec<(usize, usize)>, batch_size: usize) -> Vec<Vec<(usize, usize)>> {
    lengths.sort_by_key(|&(_, samples)| samples);
    lengths.chunks(batch_size).map(<[_]>::to_vec).collect()
}

/// The sizes of the reference, and the large encoders; no layer drop and no `SpecAugment`.
fn model_config(size: Size) -> ModelConfig {
    let text = RobertaConfig {
        max_position_embeddings: 514,
        type_vocab_size: 1,
        layer_norm_eps: 1e-5,
        ..RobertaConfig::default()
    };
    let speech = Wav2Vec2Config { layerdrop: 0.0, apply_spec_augment: false, ..Wav2Vec2Config::default() };
    let fusion = |text: &RobertaConfig| {
        let RobertaConfig { hidden_size: hidden, num_attention_heads: attention_heads, vocab_size, .. } = *text;
        ClaspOptions::published(ModelSizes { hidden, attention_heads, vocabulary: vocab_size })
    };
    match size {
        Size::Tiny => ModelConfig::tiny(false),
        Size::TinyLarge => ModelConfig::tiny(true),
        Size::Base => ModelConfig::clasp(fusion(&text), text, SpeechEncoderConfig::Wav2Vec2(speech)),
        Size::Large => {
            let (hidden_size, num_hidden_layers, num_attention_heads, intermediate_size) = (1024, 24, 16, 4096);
            let text = RobertaConfig { hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, ..text };
            let speech =
                Wav2Vec2Config { hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, ..speech };
            ModelConfig::clasp(fusion(&text), text, SpeechEncoderConfig::Wav2Vec2(speech.with_layer_norms()))
        }
    }
}

/// A random batch: a (tokens, samples) pair an example; shorter ones are padded.
fn batch(model: &ModelConfig, shapes: &[(usize, usize)], seed: u64) -> Batch {
    let text = model.text_encoder.clone().unwrap_or_default();
    let mut random = Random::new(mix(seed, 1));
    let to_id = |token: usize| i64::try_from(token).unwrap_or_default();
    let longest_text = shapes.iter().map(|shape| shape.0).max().unwrap_or(0);
    let longest_speech = shapes.iter().map(|shape| shape.1).max().unwrap_or(0);
    let (mut all_tokens, mut waveforms, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for &(tokens, samples) in shapes {
        let mut row: Vec<i64> = (0..tokens).map(|_| to_id(4 + random.below(text.vocab_size - 4))).collect();
        row[0] = to_id(text.bos_token_id);
        row[tokens - 1] = to_id(text.eos_token_id);
        row.resize(longest_text, to_id(text.pad_token_id));
        all_tokens.extend(row);
        #[expect(clippy::cast_possible_truncation, reason = "samples are single precision")]
        let mut waveform: Vec<f32> = (0..samples).map(|_| random.normal() as f32).collect();
        normalise(&mut waveform);
        waveform.resize(longest_speech, 0.0);
        waveforms.extend(waveform);
        labels.push(Some(random.below(model.labels.len())));
    }
    Batch {
        indices: (0..shapes.len()).collect(),
        ids: (0..shapes.len()).map(|number| number.to_string()).collect(),
        tokens: all_tokens,
        token_lengths: shapes.iter().map(|shape| shape.0).collect(),
        waveforms,
        features: Vec::new(),
        sample_lengths: shapes.iter().map(|shape| shape.1).collect(),
        labels,
    }
}

fn failed(problem: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the device failed: {problem}")
}

/// Seconds of each timed step, and where they went if that is asked for.
type Times = (Vec<f64>, Option<Vec<Spent>>);

struct BenchTask<'a> {
    arguments: &'a BenchArguments,
    model: ModelConfig,
    shapes: Vec<Vec<(usize, usize)>>,
    chosen: ResolvedDevice,
    /// Bytes of a device of its own that were held before, by whichever process.
    held: Option<u64>,
}

impl Task for BenchTask<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: TrainOps>(self, device: &B::Device) -> Self::Output {
        let batches: Vec<Batch> =
            (0..).zip(&self.shapes).map(|(seed, shapes)| batch(&self.model, shapes, seed)).collect();
        let mut model = Model::<B>::new(&self.model, &mut Init::fresh(0, device));
        if self.arguments.only != Some(Job::Predict) {
            let mut trainee = Trainee::new(model, &self, device);
            let cached =
                self.arguments.feature_cache.then(|| Cached::new(&batches, &mut trainee.replica)).transpose()?;
            let times = self.time::<B>(device, || match &cached {
                Some(cached) => cached.each(|batch| trainee.step(batch)),
                None => batches.iter().try_for_each(|batch| trainee.step(batch)),
            })?;
            memory::idle();
            if let Some(cached) = &cached {
                cached.check()?;
            }
            self.print::<B>((Job::Train, "train"), times, device)?;
            model = trainee.replica.model().valid();
        }
        if self.arguments.only != Some(Job::Train) {
            let mode = Mode::evaluation().with_precision(self.arguments.precision);
            let times = self.time::<B>(device, || {
                for batch in &batches {
                    // Read back, as the reference does.
                    let _ = rows(model.forward(&inputs(batch), mode, device).logits().main);
                }
                Ok(())
            })?;
            self.print::<B>((Job::Predict, "predict"), times, device)?;
        }
        Ok(())
    }
}

impl BenchTask<'_> {
    /// Seconds of each timed step, and where they went if that is asked for.
    fn time<B: Ops>(&self, device: &B::Device, mut step: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Times> {
        let mut times = Vec::new();
        let warmup = count(self.arguments.warmup);
        for number in 0..warmup + count(self.arguments.steps) {
            if number == warmup && self.arguments.profile {
                recorder::start();
            }
            let started = Instant::now();
            step()?;
            // A device that is behind is waited for.
            B::sync(device).map_err(failed)?;
            panics::stop_if_out_of_memory();
            let elapsed: Duration = started.elapsed();
            if number >= warmup {
                times.push(elapsed.as_secs_f64());
            }
        }
        let spent = self.arguments.profile.then(recorder::stop).transpose().map_err(failed)?;
        let spent = spent.map(|spent| spent.to_vec());
        Ok((times, spent))
    }

    /// Of the product of the largest batch.
    fn matrix_rate<B: Ops>(&self, device: &B::Device) -> Result<f64, String> {
        let frames = |batch: &Vec<(usize, usize)>| {
            batch.len() * self.model.frames(batch.iter().map(|shape| shape.1).max().unwrap_or(0))
        };
        let rows = self.shapes.iter().map(frames).max().unwrap_or(1);
        let Some(speech) = &self.model.speech_encoder else { return Ok(f64::NAN) };
        let shape = [rows, speech.hidden_size(), speech.feed_forward()];
        profile::matrix_rate::<B>(shape, self.arguments.precision, device)
    }

    #[expect(clippy::cast_precision_loss, reason = "steps are few")]
    fn print<B: Ops>(&self, (kind, job): (Job, &str), times: Times, device: &B::Device) -> anyhow::Result<()> {
        let (mut times, spent) = times;
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let median =
            if times.len().is_multiple_of(2) { f64::midpoint(times[middle - 1], times[middle]) } else { times[middle] };
        let mut row = json!({
            "implementation": "clasp",
            "job": job,
            "device": self.chosen.to_string(),
            "precision": self.arguments.precision,
            "compile": false,
            "batch": self.arguments.batch_size,
            "batches": self.shapes.len(),
            "seconds_of_audio": self.arguments.seconds,
            "tokens": self.arguments.tokens,
            "median_s": median,
            "min_s": times[0],
            "steps": self.arguments.steps,
            "peak_gib": self.peak_gib(),
        });
        if self.arguments.feature_cache && kind == Job::Train {
            row["feature_cache"] = true.into();
        }
        if let Some(spent) = spent {
            let rate = self.matrix_rate::<B>(device).map_err(failed)?;
            row["profile"] = profile::object(&spent, kind, times.len() as f64, median, rate);
        }
        Ok(write_output(&format!("{row}\n"))?)
    }

    /// The largest resident memory of this process so far, in GiB; of a device of its own what the process holds there,
    /// which never gets less. `None` if the system does not say.
    #[expect(clippy::cast_precision_loss, reason = "a size that is shown")]
    fn peak_gib(&self) -> Option<f64> {
        let bytes = match self.held {
            Some(held) => Some(memory::device(self.chosen)?.used().saturating_sub(held)),
            None => memory::peak(),
        };
        bytes.map(|bytes| bytes as f64 / f64::from(1 << 30))
    }
}

/// A model that takes the steps of `clasp train`.
struct Trainee<B: TrainOps> {
    replica: Replica<B>,
    read_every: usize,
    steps: u64,
    /// Steps whose losses are not read yet.
    pending: Vec<PendingStep<B>>,
}

impl<B: TrainOps> Trainee<B> {
    fn new(model: Model<B>, work: &BenchTask<'_>, device: &B::Device) -> Self {
        let config = &work.model;
        let model = trainable::<Autodiff<B>, Model<Autodiff<B>>>(model);
        let model = model.map_encoders(|text| text, clasp::encoder::SpeechEncoder::freeze_feature_encoder);
        let optimizer = Optimizer::new(OptimizerConfig {
            decoupled: false,
            weight_decay: 0.0,
            learning_rate: LEARNING_RATE,
            encoder_learning_rate: LEARNING_RATE,
            layer_decay: 1.0,
            text_layers: config.text_encoder.as_ref().map_or(0, |encoder| encoder.num_hidden_layers),
            speech_layers: config.speech_encoder.as_ref().map_or(0, |encoder| encoder.layers()),
            speech_norm_is_last: false,
        });
        let objective = Objective {
            loss: LossConfig::default(),
            labels: config.labels.len(),
            label_weights: Vec::new(),
            gather_negatives: false,
            hidden_size: config.contrasted_size(),
            clip_norm: None,
            precision: work.arguments.precision,
        };
        let replica = Replica::new(model, optimizer, objective, device);
        Self { replica, read_every: read_every(work.chosen), steps: 0, pending: Vec::new() }
    }

    /// One optimiser step.
    fn step(&mut self, batch: &Batch) -> anyhow::Result<()> {
        self.steps += 1;
        let parts = self.replica.objective().parts(std::slice::from_ref(batch), 1, |_| Some((0, self.steps)));
        let plan = StepPlan { parts: parts.into_iter().flatten().collect(), schedule: 1.0 };
        if self.read_every == 1 {
            self.replica.step(&plan)?;
            return Ok(());
        }
        self.pending.push(self.replica.step_ahead(&plan)?);
        if self.pending.len() == self.read_every {
            self.pending.drain(..).for_each(|pending| drop(pending.read()));
        }
        Ok(())
    }
}
