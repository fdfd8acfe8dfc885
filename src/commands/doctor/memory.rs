//! Whether a step of a config fits the memory of its device, and how large a batch does: found out by taking such steps
//! in processes of their own, under the limits that hold here.

use std::{
    fmt::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Finding, bad, good, measure::Measured};
use clasp::{
    checkpoint::folder::checkpoint_folder,
    config::{Config, DataSource},
    data::{SAMPLE_RATE, audio, dataset::Dataset},
    demo::{self, DemoOptions},
    device::{self, ResolvedDevice},
    error,
    memory::{self, shown},
    train::setup::{self, Material},
    units,
};

const WHAT: &str = "memory of a step";
/// Utterances of the demo that stand for all of it.
const SAMPLE: usize = 96;
/// All measurements together end by then.
const LIMIT: Duration = Duration::from_mins(2);
/// Batches that are tried where the config's own does not fit: a single utterance, and halves of what is left.
const TRIES: usize = 4;
/// The largest batch that is spoken of.
const MOST: u64 = 1 << 20;

/// The size of a batch: as many utterances, each as long as the longest.
#[derive(Clone, Copy)]
pub struct Shape {
    pub batch: usize,
    pub samples: usize,
    pub tokens: usize,
}

/// Measures a step. Where the config has problems already (`is_sound` is false), what hinders the measurement is one of
/// those and not told again.
pub fn check(name: &str, config: &Config, is_sound: bool) -> Finding {
    match measure(name, config) {
        Ok(finding) => finding,
        Err(_) if !is_sound => good(WHAT, "not measured: it needs what the problems above lack".into()),
        Err(problem) => bad(WHAT, &problem),
    }
}

/// Where nothing is to be measured.
pub fn skipped() -> Finding {
    good(WHAT, "not measured (--no-measure)".into())
}

fn measure(name: &str, config: &Config) -> anyhow::Result<Finding> {
    let all = device::choose_all(&config.run.device)?;
    let folder = tempfile::tempdir()?;
    let (shape, has_dev) = {
        let material = material(config, folder.path())?;
        let longest = longest(&material.train)?;
        (most(config, longest, material.train.len(), all.len()), material.dev.is_some())
    };
    // Of a device: several CUDA devices have memory of their own, several copies on the CPU share the system's.
    let available = match all[0] {
        ResolvedDevice::Cpu => memory::available().map(|bytes| bytes / all.len() as u64),
        ResolvedDevice::Cuda(_) => all.iter().filter_map(|&each| Some(memory::device(each)?.free)).min(),
    };
    let trials = Trials { name, folder: folder.path(), available, begun: Instant::now() };
    let trial = trials.take(shape.batch)?;
    let place = MemoryReport { shape, available, devices: &all };
    Ok(match trial {
        Trial::TooSlow => good(
            WHAT,
            format!("not measured: {} did not end within {} s (--no-measure skips it)", place.batch(), LIMIT.as_secs()),
        ),
        Trial::Fits(measured) => place.fits(&measured, has_dev, trials.extrapolate(shape, &measured)?.as_ref()),
        Trial::Lacks(reason) => place.lacks(config, &reason, &trials.bisect(shape.batch)?),
    })
}

/// What training would start from; of the demo, whose corpus is not made before, a sample in `folder`.
pub fn material(config: &Config, folder: &Path) -> anyhow::Result<Material> {
    let mut config = config.clone();
    config.train.init = config.train.init.map(|path| checkpoint_folder(&path));
    if let DataSource::Demo { utterances, seed, .. } = config.data.source {
        let options = DemoOptions { utterances: utterances.min(SAMPLE), seed };
        let corpus = demo::write_corpus(&folder.join("corpus"), &options)?;
        config.data.source = DataSource::Manifests { train: corpus.train, dev: Some(corpus.dev), test: None };
    }
    setup::prepare(&config)
}

/// One utterance as long as the longest.
pub fn longest(dataset: &Dataset) -> anyhow::Result<Shape> {
    let samples = dataset.lengths()?.into_iter().max().unwrap_or(0);
    Ok(Shape { batch: 1, samples, tokens: dataset.token_lengths().into_iter().max().unwrap_or(0) })
}

/// A device's part of the largest batch of the longest utterances.
fn most(config: &Config, longest: Shape, utterances: usize, devices: usize) -> Shape {
    let most = config.train.batch_size.min(utterances).max(1).div_ceil(devices);
    let batch = match config.train.batch_seconds.0 {
        Some(seconds) => (audio::samples_of(seconds) / longest.samples.max(1)).clamp(1, most),
        None => most,
    };
    Shape { batch, ..longest }
}

/// How a measurement ended.
enum Trial {
    Fits(Measured),
    Lacks(String),
    TooSlow,
}

/// The largest batch of a device, as far as it is known.
struct Largest {
    batch: Option<usize>,
    how: String,
}

/// Measurements of one config.
struct Trials<'a> {
    name: &'a str,
    folder: &'a Path,
    available: Option<u64>,
    begun: Instant,
}

impl Trials<'_> {
    /// Measures a batch of this many utterances.
    fn take(&self, batch: usize) -> anyhow::Result<Trial> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["measure-step", "--config", self.name, "--batch", &batch.to_string(), "--folder"])
            .arg(self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a process to measure a step in")?;
        let is_ended = self.wait(&mut child)?;
        if !is_ended {
            child.kill()?;
        }
        // It says no more than a pipe holds, so that waiting first does not block it.
        let output = child.wait_with_output()?;
        // A checkpoint takes room; there may be none.
        let _ = std::fs::remove_dir_all(self.folder.join("run"));
        if !is_ended {
            return Ok(Trial::TooSlow);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or_default();
        let said = said.strip_prefix("error: ").unwrap_or(said);
        match output.status.code() {
            Some(0) => {
                let measured: Measured = serde_json::from_slice(&output.stdout)?;
                Ok(match (measured.checkpoint, self.available) {
                    (Some(taken), Some(available)) if taken > available => {
                        Trial::Lacks(format!("it takes {}", shown(taken)))
                    }
                    _ => Trial::Fits(measured),
                })
            }
            None => Ok(Trial::Lacks(format!("the system ended it: {}", output.status))),
            // What follows names the batch and gives advice.
            Some(_) if said.starts_with("out of memory") => {
                let cause = said.split("; ").next().and_then(|said| said.split(" while ").next());
                Ok(Trial::Lacks(cause.unwrap_or_default().to_owned()))
            }
            Some(_) => anyhow::bail!("a step cannot be measured: {said}"),
        }
    }

    /// Whether the process ended in time.
    fn wait(&self, child: &mut Child) -> std::io::Result<bool> {
        while self.begun.elapsed() < LIMIT {
            if child.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(false)
    }

    /// The largest batch, where this one was measured and fits: by a second measurement and the line through both.
    fn extrapolate(&self, shape: Shape, measured: &Measured) -> anyhow::Result<Option<Largest>> {
        let (Some(taken), Some(available)) = (measured.checkpoint, self.available) else { return Ok(None) };
        let other = if shape.batch > 1 { shape.batch.div_ceil(2) } else { 2 };
        let (low, high) = match self.take(other)? {
            Trial::TooSlow => {
                let how = "measured; a larger one may: no time was left for another measurement".into();
                return Ok(Some(Largest { batch: Some(shape.batch), how }));
            }
            Trial::Lacks(_) => return Ok(Some(Largest { batch: Some(shape.batch), how: "measured".into() })),
            Trial::Fits(second) => {
                let mut points = [(shape.batch, taken), (other, second.checkpoint.unwrap_or(taken))];
                points.sort_unstable();
                (points[0], points[1])
            }
        };
        // Of the smallest models an utterance takes hardly more than the noise, but no less than its own samples.
        let least = (4 * shape.samples + 8 * shape.tokens).max(1) as u64;
        let each = (high.1.saturating_sub(low.1) / (high.0 - low.0) as u64).max(least);
        let more = (available.saturating_sub(high.1) / each).min(MOST);
        Ok(Some(Largest {
            batch: Some(high.0 + usize::try_from(more)?),
            how: format!("extrapolated from measured steps of {} and {}", low.0, high.0),
        }))
    }

    /// The largest batch below one that does not fit: measured.
    fn bisect(&self, batch: usize) -> anyhow::Result<Largest> {
        let (mut low, mut high) = (0, batch);
        for _ in 0..TRIES {
            if high - low <= 1 {
                break;
            }
            let middle = if low == 0 { 1 } else { low.midpoint(high) };
            match self.take(middle)? {
                Trial::Fits(_) => low = middle,
                Trial::Lacks(_) => high = middle,
                Trial::TooSlow => break,
            }
        }
        let how = if high - low <= 1 { "measured".to_owned() } else { format!("measured; {high} do not fit") };
        // Nothing is known where the time was over before a single utterance was tried.
        Ok(Largest { batch: (low > 0 || high == 1).then_some(low), how })
    }
}

/// What was measured, in words and numbers.
struct MemoryReport<'a> {
    shape: Shape,
    available: Option<u64>,
    devices: &'a [ResolvedDevice],
}

impl MemoryReport<'_> {
    fn fits(&self, measured: &Measured, has_dev: bool, largest: Option<&Largest>) -> Finding {
        let rest =
            measured.step.map(|step| step.saturating_sub(measured.weights + measured.gradients + measured.moments));
        let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), shown);
        let mut text = format!(
            "{} for {} (weights {}, gradients {}, moments {}, the rest {})",
            bytes(measured.step),
            self.batch(),
            shown(measured.weights),
            shown(measured.gradients),
            shown(measured.moments),
            bytes(rest),
        );
        if has_dev {
            let _ = write!(text, ", {} with the scoring of dev", bytes(measured.scoring));
        }
        let _ = write!(text, ", {} with a checkpoint", bytes(measured.checkpoint));
        text.push_str(&self.surroundings(largest));
        let numbers = self.numbers(Some(measured), rest, largest);
        Finding { what: WHAT, text, code: None, numbers }
    }

    fn lacks(&self, config: &Config, reason: &str, largest: &Largest) -> Finding {
        let mut text = format!("{} do not fit: {reason}", self.batch());
        text.push_str(&self.surroundings(Some(largest)));
        text.push_str(&self.remedies(config, self.in_all(largest).unwrap_or(0)));
        let numbers = self.numbers(None, None, Some(largest));
        Finding { what: WHAT, text, code: Some(error::FAILED), numbers }
    }

    fn batch(&self) -> String {
        let Shape { batch, samples, tokens } = self.shape;
        format!(
            "{batch} utterance(s) of up to {} s and {tokens} tokens, the longest of train",
            units::seconds(samples, SAMPLE_RATE)
        )
    }

    /// The largest batch of all devices.
    fn in_all(&self, largest: &Largest) -> Option<usize> {
        Some(largest.batch? * self.devices.len())
    }

    fn surroundings(&self, largest: Option<&Largest>) -> String {
        let mut text = match self.available {
            Some(available) => format!("; {} available on {}", shown(available), self.devices[0]),
            None => "; what is available is unknown".to_owned(),
        };
        if let Some((largest, batch)) = largest.and_then(|largest| Some((largest, self.in_all(largest)?))) {
            let _ = write!(text, "; the largest batch of such utterances that fits: {batch} ({})", largest.how);
        }
        if self.devices.len() > 1 {
            let _ = write!(text, "; on each of {} devices, which share a batch", self.devices.len());
        }
        text
    }

    /// What to change where it does not fit.
    fn remedies(&self, config: &Config, largest: usize) -> String {
        let train = &config.train;
        let mut ways = Vec::new();
        if largest > 0 && largest < train.batch_size {
            let window = (train.batch_size * train.accumulation_steps).div_ceil(largest);
            ways.push(format!(
                "train.batch_size = {largest} (with train.accumulation_steps = {window} the window stays as large)"
            ));
            ways.push(format!("train.batch_seconds = {}", units::seconds(largest * self.shape.samples, SAMPLE_RATE)));
        }
        ways.push("a lower data.max_seconds".to_owned());
        let freezes = [("text.freeze", config.text.freeze), ("speech.freeze", config.speech.freeze)];
        ways.extend(freezes.iter().filter(|(_, is_set)| !is_set).map(|(key, _)| format!("{key} = true")));
        if self.devices[0] != ResolvedDevice::Cpu {
            ways.push("run.precision = \"bf16\"".to_owned());
        }
        format!("; set {}", ways.join(", or "))
    }

    fn numbers(&self, measured: Option<&Measured>, rest: Option<u64>, largest: Option<&Largest>) -> Value {
        json!({
            "batch": self.shape.batch,
            "longest_samples": self.shape.samples,
            "longest_tokens": self.shape.tokens,
            "weights_bytes": measured.map(|measured| measured.weights),
            "gradients_bytes": measured.map(|measured| measured.gradients),
            "moments_bytes": measured.map(|measured| measured.moments),
            "activations_bytes": rest,
            "data_bytes": measured.map(|measured| measured.data),
            // From outside it cannot be told from the activations.
            "working_bytes": Value::Null,
            "step_bytes": measured.and_then(|measured| measured.step),
            "scoring_bytes": measured.and_then(|measured| measured.scoring),
            "checkpoint_bytes": measured.and_then(|measured| measured.checkpoint),
            "available_bytes": self.available,
            "largest_batch": largest.and_then(|largest| self.in_all(largest)),
            "largest_batch_is": largest.map(|largest| &largest.how),
        })
    }
}
