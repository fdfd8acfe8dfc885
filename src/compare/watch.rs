//! What is shown while runs are at work, on stderr: on a terminal a live table of what is done, running and left, with
//! the time left; elsewhere a line for each run that begins or ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::{Plan, PlannedRun};
use super::run::JobResult;
use super::status::{Estimates, RunStatus, folder, side_by_side};
use crate::eval::Report;
use crate::files::tail;
use crate::run::log::Entry;
use crate::terminal::{Event, Progress};
use crate::units::duration;

/// Bytes at the end of a log that surely hold a line.
const TAIL: u64 = 8192;

/// Shows how a plan goes on.
pub struct Watch<'a> {
    plan: &'a Plan,
    jobs: usize,
    /// Runs that are done.
    done: usize,
    failed: usize,
    /// Runs to be done, those at work among them.
    left: Vec<usize>,
    /// The runs at work, with when they began.
    running: BTreeMap<usize, Instant>,
    output: Output,
}

enum Output {
    Table(Box<Table>),
    Lines(Progress),
}

/// A line for each system on each corpus, and one for all.
struct Table {
    lines: BTreeMap<(usize, usize), ProgressBar>,
    all: ProgressBar,
    shown: MultiProgress,
}

impl<'a> Watch<'a> {
    /// Of a plan whose runs stand so.
    pub fn new(plan: &'a Plan, statuses: &[RunStatus], jobs: usize, is_quiet: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
        let output = if !is_quiet && io::stderr().is_terminal() && !is_dumb {
            Output::Table(Box::new(Table::new(plan, statuses, ProgressDrawTarget::stderr())))
        } else {
            Output::Lines(Progress::stderr(is_quiet))
        };
        let is_done = |status: &RunStatus| *status == RunStatus::Done;
        let left = statuses.iter().enumerate().filter(|(_, status)| !is_done(status)).map(|(place, _)| place);
        Self {
            plan,
            jobs,
            done: statuses.iter().filter(|status| is_done(status)).count(),
            failed: 0,
            left: left.collect(),
            running: BTreeMap::new(),
            output,
        }
    }

    /// Something that the user should know.
    pub fn say(&mut self, text: &str) {
        match &mut self.output {
            // A terminal that is gone stops no work.
            Output::Table(table) => drop(table.shown.println(text)),
            Output::Lines(progress) => progress.handle(&Event::Message(text)),
        }
    }

    pub fn started(&mut self, place: usize) {
        self.running.insert(place, Instant::now());
        if let (Output::Lines(_), Some(run)) = (&self.output, self.plan.runs.get(place)) {
            self.say(&format!("begins: {}", run.name));
        }
    }

    pub fn finished(&mut self, place: usize, result: &JobResult, took: Duration, estimates: &Estimates) {
        self.running.remove(&place);
        self.left.retain(|left| *left != place);
        let Some(run) = self.plan.runs.get(place) else { return };
        match result {
            JobResult::Done => {
                self.done += 1;
                let score = Report::load(&folder(run).report("test")).map(|report| report.fusion.headline);
                let score = score.map_or_else(
                    |_| String::new(),
                    |score| {
                        format!(": accuracy {:.3}, weighted F1 {:.3}", score.accuracy.value, score.weighted_f1.value)
                    },
                );
                if let Output::Table(table) = &mut self.output
                    && let Some(line) = table.lines.get(&(run.corpus, run.system))
                {
                    line.inc(1);
                }
                let counts = self.counts(estimates);
                self.say(&format!("done: {}{score} ({}); {counts}", run.name, duration(took.as_secs_f64())));
            }
            JobResult::Failed(line) => {
                self.failed += 1;
                self.say(&format!("failed: {}: {line}", run.name));
            }
            JobResult::Interrupted => self.say(&format!("stopped: {}", run.name)),
        }
        self.tick(estimates);
    }

    /// Shows how far the runs at work are.
    pub fn tick(&mut self, estimates: &Estimates) {
        let counts = self.counts(estimates);
        let Output::Table(table) = &self.output else { return };
        table.all.set_position((self.done + self.failed) as u64);
        table.all.set_message(counts);
        for (&key, line) in &table.lines {
            let at_work = self.running.keys().filter_map(|place| self.plan.runs.get(*place));
            let at_work: Vec<String> = at_work.filter(|run| (run.corpus, run.system) == key).map(how_far).collect();
            line.set_message(at_work.join(", "));
        }
    }

    /// `3 of 9 done, 1 running, 5 left, about 12 min`
    fn counts(&self, estimates: &Estimates) -> String {
        let all = self.plan.runs.len();
        let waiting = self.left.len() - self.running.len();
        let mut text = format!("{} of {all} done, {} running, {waiting} left", self.done, self.running.len());
        if self.failed > 0 {
            let _ = write!(text, ", {} failed", self.failed);
        }
        if let Some(seconds) = self.seconds_left(estimates).filter(|_| !self.left.is_empty()) {
            let _ = write!(text, ", about {}", duration(seconds));
        }
        text
    }

    fn seconds_left(&self, estimates: &Estimates) -> Option<f64> {
        let mut all = Vec::new();
        for place in &self.left {
            let whole = estimates.about(self.plan.runs.get(*place)?)?;
            let since = self.running.get(place).map_or(0.0, |began| began.elapsed().as_secs_f64());
            all.push((whole - since).max(0.0));
        }
        Some(side_by_side(&all, self.jobs))
    }

    /// Takes the live table away.
    pub fn finish(&mut self) {
        match &mut self.output {
            Output::Table(table) => drop(table.shown.clear()),
            Output::Lines(progress) => progress.handle(&Event::Finished),
        }
    }
}

/// Longer names stand out of their column.
const MAX_WIDTH: usize = 60;

impl Table {
    fn new(plan: &Plan, statuses: &[RunStatus], target: ProgressDrawTarget) -> Self {
        let shown = MultiProgress::with_draw_target(target);
        let mut counts: BTreeMap<(usize, usize), (u64, u64)> = BTreeMap::new();
        for (run, status) in plan.runs.iter().zip(statuses) {
            let (done, all) = counts.entry((run.corpus, run.system)).or_default();
            *done += u64::from(*status == RunStatus::Done);
            *all += 1;
        }
        let name = |(corpus, system): &(usize, usize)| {
            let corpus = plan.corpora.get(*corpus).map_or("", |corpus| corpus.name.as_str());
            format!("{corpus}/{}", plan.systems.get(*system).map_or("", |system| system.name.as_str()))
        };
        let width = counts.keys().map(|key| name(key).chars().count()).max().unwrap_or_default().min(MAX_WIDTH);
        let line = |length: u64, position: u64, prefix: String, template: &str| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = shown.add(ProgressBar::new(length).with_style(style).with_prefix(prefix));
            bar.set_position(position);
            bar
        };
        let lines = counts
            .iter()
            .map(|(key, &(done, all))| {
                let prefix = format!("{:width$}", name(key));
                (*key, line(all, done, prefix, "{prefix} {bar:16} {pos:>3}/{len:<3} {wide_msg}"))
            })
            .collect();
        let done = statuses.iter().filter(|status| **status == RunStatus::Done).count() as u64;
        let all = line(plan.runs.len() as u64, done, " ".repeat(width), "{prefix} {bar:16} {wide_msg}");
        Self { lines, all, shown }
    }
}

/// `fold1/seed2 epoch 3/25`
fn how_far(run: &PlannedRun) -> String {
    let epochs = run.config.train.epochs;
    let place = match last_entry(&folder(run).log()) {
        Some(Entry::Step(step)) => format!("epoch {}/{epochs}", step.epoch),
        Some(Entry::Epoch(epoch)) if epoch.epoch == epochs => "scoring".to_owned(),
        Some(Entry::Epoch(epoch)) => format!("epoch {}/{epochs}", epoch.epoch + 1),
        None => "begins".to_owned(),
    };
    format!("fold{}/seed{} {place}", run.fold, run.seed)
}

fn last_entry(path: &Path) -> Option<Entry> {
    let tail = tail(&File::open(path).ok()?, TAIL).ok()?;
    tail.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}
