//! Doing what is left of a plan. Each run is this program as a child process, so that the end of one cannot take the
//! others along and its memory is given back: `train --resume`, then `eval --split test`.
//!
//! The children are process groups of their own, so that Ctrl-C reaches this process alone, which passes it on once:
//! each child then writes its checkpoint. Children that outlive this process (it was killed) are waited for by the
//! next one.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::plan::{Plan, PlannedRun};
use super::status::{Estimates, folder, is_scored};
use super::watch::Watch;
use crate::config::Device;
use crate::error;
use crate::files::{replace_file, tail};
use crate::run::RunFolder;

/// The resolved config of a run, as its `train` is given it.
const CONFIG: &str = "compare.toml";
/// What its processes said.
const LOG: &str = "compare.log";

/// Bytes at its end that surely hold the last error.
const TAIL: u64 = 1 << 16;

/// Between two looks at a child, and at a folder where another process works.
const PAUSE: Duration = Duration::from_millis(50);

/// Between two looks at what is shown and at whether the user stops.
pub const TICK: Duration = Duration::from_millis(200);

/// How one run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// Trained and scored.
    Done,
    /// The first line of the error at the end of its log, and the exit code.
    Failed(String),
    Interrupted,
}

/// How the program begins an error.
const ERROR: &str = "error: ";

/// How the work ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Runs that failed, each with the first line of its error.
    pub failed: Vec<String>,
    /// Whether the user stopped it.
    pub is_interrupted: bool,
}

/// What the runs are done with.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    pub program: &'a Path,
    /// Runs at a time.
    pub jobs: usize,
    /// What they are spread over; none: each config's own.
    pub devices: &'a [Device],
    /// How often the user asked to stop: once, and the runs write checkpoints; twice, and they end at once.
    pub stops: &'a AtomicUsize,
}

/// Does the runs at these places of the plan.
pub fn run(plan: &Plan, places: &[usize], means: Means, estimates: &mut Estimates, watch: &mut Watch) -> Summary {
    let queue: Mutex<VecDeque<usize>> = Mutex::new(places.iter().copied().collect());
    let jobs = means.jobs.clamp(1, places.len().max(1));
    // As the statuses found them: what is finished by another plan meanwhile is compared with this one by `train`.
    let is_trained = |place: &&usize| {
        let manifest = plan.runs.get(**place).map(|run| folder(run).load_manifest());
        manifest.is_some_and(|manifest| manifest.is_ok_and(|manifest| manifest.finished))
    };
    let trained: BTreeSet<usize> = places.iter().filter(is_trained).copied().collect();
    let slots: Vec<Slot> = (0..jobs).map(|_| Slot::default()).collect();
    let (sender, receiver) = mpsc::channel();
    let mut summary = Summary::default();
    thread::scope(|scope| {
        for (place, slot) in slots.iter().enumerate() {
            let (sender, queue, trained) = (sender.clone(), &queue, &trained);
            let device = place.checked_rem(means.devices.len()).and_then(|place| means.devices.get(place)).copied();
            scope.spawn(move || {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while means.stops.load(Ordering::SeqCst) == 0
                    && let Some(place) = next()
                    && let Some(run) = plan.runs.get(place)
                {
                    // Nobody receives any more only where the whole process ends.
                    let _ = sender.send(JobEvent::Started(place));
                    let began = Instant::now();
                    let cluster = plan.corpus_of(run).cluster.as_deref();
                    let result = Worker { means, device, jobs, slot }.work(run, cluster, trained.contains(&place));
                    let _ = sender.send(JobEvent::Finished(place, result, began.elapsed()));
                }
            });
        }
        drop(sender);
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(JobEvent::Started(place)) => watch.started(place),
                Ok(JobEvent::Finished(place, result, took)) => {
                    if let Some(run) = plan.runs.get(place) {
                        note(run, &result, took, estimates, &mut summary);
                    }
                    watch.finished(place, &result, took, estimates);
                }
                Err(RecvTimeoutError::Timeout) => watch.tick(estimates),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let stops = means.stops.load(Ordering::SeqCst);
            if stops > 0 {
                summary.is_interrupted = true;
                for slot in &slots {
                    slot.stop(stops);
                }
            }
        }
    });
    // Also where the user stopped it before the first run began.
    summary.is_interrupted |= means.stops.load(Ordering::SeqCst) > 0;
    summary
}

enum JobEvent {
    Started(usize),
    Finished(usize, JobResult, Duration),
}

fn note(run: &PlannedRun, result: &JobResult, took: Duration, estimates: &mut Estimates, summary: &mut Summary) {
    match result {
        JobResult::Done => {
            // A run that only went on took less than a whole one.
            let whole = folder(run).load_manifest().ok().and_then(|manifest| manifest.seconds());
            estimates.add(run, whole.unwrap_or(took.as_secs_f64()).max(took.as_secs_f64()));
        }
        JobResult::Failed(line) => summary.failed.push(format!("{}: {line}", run.name)),
        JobResult::Interrupted => {}
    }
}

/// The child of one worker, and how many signals it got.
#[derive(Default)]
struct Slot {
    child: Mutex<Option<(Child, usize)>>,
}

impl Slot {
    /// Sends the child as many signals as the user did.
    fn stop(&self, stops: usize) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((child, sent)) = child.as_mut()
            && *sent < stops
            && let Ok(id) = i32::try_from(child.id())
        {
            *sent += 1;
            // It is ours until it is waited for, which is done under the same lock. It may have ended by itself.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }

    /// Runs a command to its end.
    fn wait_for(&self, command: &mut Command) -> io::Result<ExitStatus> {
        let child = command.spawn()?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some((child, 0));
        loop {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            let status = match child.as_mut() {
                Some((child, _)) => child.try_wait(),
                None => Err(io::Error::other("the process is gone")),
            };
            match status {
                Ok(None) => {}
                Ok(Some(status)) => {
                    *child = None;
                    return Ok(status);
                }
                Err(error) => return Err(error),
            }
            drop(child);
            thread::sleep(PAUSE);
        }
    }
}

struct Worker<'a> {
    means: Means<'a>,
    device: Option<Device>,
    jobs: usize,
    slot: &'a Slot,
}

impl Worker<'_> {
    /// Trains a run, unless it `is_trained`, and scores it.
    fn work(&self, run: &PlannedRun, cluster: Option<&str>, is_trained: bool) -> JobResult {
        let folder = folder(run);
        while folder.is_busy() {
            if self.is_stopped() {
                return JobResult::Interrupted;
            }
            thread::sleep(PAUSE);
        }
        let config = folder.path().join(CONFIG);
        let prepared = std::fs::create_dir_all(folder.path())
            .map_err(|error| format!("cannot create {}: {error}", folder.path().display()))
            .and_then(|()| replace_file(&config, run.config.to_toml().as_bytes()).map_err(|error| error.to_string()));
        if let Err(problem) = prepared {
            return JobResult::Failed(problem);
        }
        let was_finished = folder.load_manifest().is_ok_and(|manifest| manifest.finished);
        // One that was trained already may want to be scored alone; what it saved may be damaged, and is not to be shown.
        if !is_trained {
            let mut train = self.command(&folder, &["train", "--resume", "--config"]);
            train.arg(&config);
            if let Some(device) = self.device {
                train.args(["--device", &device.to_string()]);
            }
            let result = self.finish(&mut train, &folder);
            if result != JobResult::Done {
                return result;
            }
        }
        // By another process, on the same weights: no scores outlive a training that goes on.
        if was_finished && is_scored(&folder) {
            return JobResult::Done;
        }
        if self.is_stopped() {
            return JobResult::Interrupted;
        }
        let mut eval = self.command(&folder, &["eval", "--split", "test", "--checkpoint"]);
        // One of several that train together scores alone.
        let device = self.device.unwrap_or(run.config.run.device.all()[0]);
        eval.arg(folder.path()).args(["--device", &device.to_string()]);
        if let Some(cluster) = cluster {
            eval.args(["--cluster", cluster]);
        }
        match self.finish(&mut eval, &folder) {
            JobResult::Done if !is_scored(&folder) => {
                JobResult::Failed(format!("it was scored, but {} is not whole", folder.report("test").display()))
            }
            ended => ended,
        }
    }

    fn is_stopped(&self) -> bool {
        self.means.stops.load(Ordering::SeqCst) > 0
    }

    fn command(&self, folder: &RunFolder, words: &[&str]) -> Command {
        let mut command = Command::new(self.means.program);
        command.args(words).stdin(Stdio::null()).process_group(0);
        let log = File::options().append(true).create(true).open(log_of(folder));
        let output = || log.as_ref().ok().and_then(|log| log.try_clone().ok()).map_or_else(Stdio::null, Stdio::from);
        command.stdout(output()).stderr(output());
        if self.jobs > 1 && std::env::var_os("RAYON_NUM_THREADS").is_none() {
            // Runs at the same time share the cores; the number of threads changes no result.
            let cores = thread::available_parallelism().map_or(1, usize::from);
            command.env("RAYON_NUM_THREADS", cores.div_euclid(self.jobs).max(1).to_string());
        }
        command
    }

    fn finish(&self, command: &mut Command, folder: &RunFolder) -> JobResult {
        match self.slot.wait_for(command) {
            Ok(status) if status.success() => JobResult::Done,
            Ok(_) if self.is_stopped() => JobResult::Interrupted,
            Ok(status) => {
                let code = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
                // One that was killed has said nothing; what stands in its log is of an earlier process.
                let has_said = status.code().is_some_and(|code| code != i32::from(error::INTERRUPTED));
                let said = if has_said { reason(folder) } else { None };
                JobResult::Failed(said.map_or_else(|| code.clone(), |line| format!("{line} ({code})")))
            }
            Err(error) => JobResult::Failed(format!("cannot start {}: {error}", self.means.program.display())),
        }
    }
}

fn log_of(folder: &RunFolder) -> PathBuf {
    folder.path().join(LOG)
}

/// The first line of the error that a run's last process ended with, and where the others are; `None` if it said none,
/// as one that was killed.
fn reason(folder: &RunFolder) -> Option<String> {
    let log = log_of(folder);
    let text = tail(&File::open(&log).ok()?, TAIL).ok()?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let first = lines.iter().rposition(|line| line.starts_with(ERROR))?;
    let said = lines[first].strip_prefix(ERROR)?;
    Some(match lines.len() - first - 1 {
        0 => said.to_owned(),
        more => format!("{said} ({more} more line(s) in {})", log.display()),
    })
}
