//! Progress of long work, fed by events: a bar with the time left on a terminal, plain lines elsewhere, nothing with
//! `--quiet`. All of it goes to stderr.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::escape;
use crate::run::log::{EpochEntry, LossValues, StepEntry};
use crate::units;

/// Plain lines about a count come no closer than this.
const BETWEEN_COUNTS: Duration = Duration::from_secs(10);

/// Plain lines in an epoch.
const LINES_IN_AN_EPOCH: usize = 10;

/// What happens, in the order in which it happens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'event> {
    /// Training begins, or goes on after `done` steps.
    Training {
        /// Epochs in all.
        epochs: usize,
        /// Steps in all.
        steps: usize,
        /// Steps done before.
        done: usize,
    },
    Step {
        /// Its line in the log.
        entry: &'event StepEntry,
        /// Steps of this epoch done, this one included.
        done: usize,
        /// Steps of this epoch in all.
        of: usize,
    },
    /// Some of a number of things are done: utterances scored, files hashed.
    Count {
        /// What is done, as `scoring dev`.
        what: &'event str,
        done: usize,
        /// How many there are, where it is known.
        of: Option<usize>,
    },
    /// Some of a file is here.
    Bytes {
        what: &'event str,
        /// How much of it is here.
        done: u64,
        of: u64,
    },
    /// An epoch is over and scored.
    Epoch(&'event EpochEntry),
    /// Something that a reader should know.
    Message(&'event str),
    Finished,
}

/// Shows events to whoever watches.
pub struct Progress {
    output: Output,
    epochs: usize,
    steps: usize,
    /// When the work began, and after how many steps.
    start: (Instant, usize),
    /// The part of the epoch, in tenths, that the last line told of.
    tenth: usize,
    counted: Option<Instant>,
    /// Dev score of the last epoch, as it is shown.
    dev: String,
}

enum Output {
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
    Quiet,
}

impl Progress {
    /// A bar where stderr is a terminal, plain lines otherwise, nothing if `is_quiet`.
    pub fn stderr(is_quiet: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
        if is_quiet {
            Self::quiet()
        } else if io::stderr().is_terminal() && !is_dumb {
            let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            Self::bar(ProgressDrawTarget::stderr(), !is_plain)
        } else {
            Self::lines(io::stderr())
        }
    }

    /// Shows nothing.
    pub fn quiet() -> Self {
        Self::new(Output::Quiet)
    }

    /// Writes plain lines to `writer`.
    pub fn lines(writer: impl Write + Send + 'static) -> Self {
        Self::new(Output::Lines(Box::new(writer)))
    }

    fn bar(target: ProgressDrawTarget, is_coloured: bool) -> Self {
        let bar = if is_coloured { "{wide_bar:.cyan/blue}" } else { "{wide_bar}" };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style(bar, "{pos}/{len}"));
        // Not shown before something is counted.
        bar.finish_and_clear();
        Self::new(Output::Bar(bar))
    }

    fn new(output: Output) -> Self {
        Self { output, epochs: 0, steps: 0, start: (Instant::now(), 0), tenth: 0, counted: None, dev: String::new() }
    }

    /// Shows an event.
    pub fn handle(&mut self, event: &Event) {
        match *event {
            Event::Training { epochs, steps, done } => self.begin(epochs, steps, done),
            Event::Step { entry, done, of } => self.step(entry, done, of),
            Event::Count { what, done, of } => self.count(what, done, of),
            Event::Bytes { what, done, of } => self.bytes(what, done, of),
            Event::Epoch(entry) => self.epoch(entry),
            Event::Message(text) => self.line(text),
            Event::Finished => self.finish(),
        }
    }

    fn begin(&mut self, epochs: usize, steps: usize, done: usize) {
        (self.epochs, self.steps, self.start, self.tenth) = (epochs, steps, (Instant::now(), done), 0);
        if let Output::Bar(bar) = &self.output {
            bar.set_length(steps as u64);
            bar.reset();
            bar.set_position(done as u64);
            // The steps of an earlier process say nothing about the speed of this one.
            bar.reset_eta();
        }
    }

    fn step(&mut self, entry: &StepEntry, done: usize, of: usize) {
        match &self.output {
            Output::Bar(bar) => {
                bar.set_prefix(format!("epoch {}/{}", entry.epoch, self.epochs));
                let dev = &self.dev;
                let speed = entry.examples_per_second;
                bar.set_message(format!("{}{dev}, {speed:.1} examples/s{}", total(&entry.loss), terms(&entry.loss)));
                bar.set_position(entry.step as u64);
            }
            Output::Lines(_) => {
                let tenth = done * LINES_IN_AN_EPOCH / of.max(1);
                if tenth != self.tenth {
                    self.tenth = tenth;
                    let percent = done * 100 / of.max(1);
                    let text = format!(
                        "epoch {}/{} {percent}%: step {}, {}{}, {:.1} examples/s{}",
                        entry.epoch,
                        self.epochs,
                        entry.step,
                        total(&entry.loss),
                        terms(&entry.loss),
                        entry.examples_per_second,
                        self.time_left(entry.step)
                    );
                    self.line(&text);
                }
            }
            Output::Quiet => {}
        }
    }

    fn count(&mut self, what: &str, done: usize, of: Option<usize>) {
        if of == Some(0) {
            return;
        }
        let what = escape::text(what);
        let text = of.map_or_else(|| format!("{what}: {done}"), |of| format!("{what}: {done} of {of}"));
        match &self.output {
            // Training has the bar; a count within it is reported below.
            Output::Bar(bar) if self.steps > 0 => bar.set_message(text),
            Output::Bar(bar) => {
                bar.set_prefix(what.into_owned());
                match of {
                    Some(of) => bar.set_length(of as u64),
                    None => bar.unset_length(),
                }
                if bar.is_finished() {
                    bar.reset();
                }
                bar.set_position(done as u64);
            }
            Output::Lines(_) => {
                if self.is_time_to_count() {
                    self.line(&text);
                }
            }
            Output::Quiet => {}
        }
    }

    fn bytes(&mut self, what: &str, done: u64, of: u64) {
        match &self.output {
            Output::Bar(bar) => {
                let what = escape::text(what);
                if bar.prefix() != *what || bar.is_finished() {
                    bar.set_style(style("{wide_bar}", "{bytes}/{total_bytes}"));
                    bar.set_prefix(what.into_owned());
                    bar.set_length(of);
                    bar.reset();
                }
                bar.set_position(done);
            }
            Output::Lines(_) => {
                if self.is_time_to_count() {
                    self.line(&format!("{what}: {} of {}", units::bytes(done), units::bytes(of)));
                }
            }
            Output::Quiet => {}
        }
    }

    /// Whether the last plain line about a count is long enough ago.
    fn is_time_to_count(&mut self) -> bool {
        let is_time = self.counted.get_or_insert_with(Instant::now).elapsed() >= BETWEEN_COUNTS;
        if is_time {
            self.counted = Some(Instant::now());
        }
        is_time
    }

    fn epoch(&mut self, entry: &EpochEntry) {
        let mut text = format!("epoch {}/{} done", entry.epoch, self.epochs);
        if let Some(loss) = &entry.train.loss {
            let _ = write!(text, ": train {}", total(loss));
        }
        let dev = entry.dev.as_ref();
        if let Some(fusion) = dev.and_then(|dev| dev.fusion) {
            self.dev = format!(", dev weighted F1 {:.3}", fusion.weighted_f1);
            let _ = write!(text, "{}, accuracy {:.3}", self.dev, fusion.accuracy);
        }
        let single =
            [("text only", dev.and_then(|dev| dev.text_only)), ("speech only", dev.and_then(|dev| dev.speech_only))];
        for (name, headline) in single {
            if let Some(headline) = headline {
                let _ = write!(text, ", {name} {:.3}", headline.weighted_f1);
            }
        }
        if entry.is_best {
            text.push_str(", the best so far");
        }
        let _ = write!(text, " ({})", units::elapsed(entry.seconds));
        // The lines of the next epoch begin anew.
        self.tenth = 0;
        self.line(&text);
    }

    fn line(&mut self, text: &str) {
        let text = escape::text(text);
        match &mut self.output {
            Output::Bar(bar) => bar.println(text),
            // Who does not listen to the talk does not stop the work.
            Output::Lines(writer) => drop(writeln!(writer, "{text}").and_then(|()| writer.flush())),
            Output::Quiet => {}
        }
    }

    fn finish(&mut self) {
        if let Output::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
        (self.steps, self.counted) = (0, None);
    }

    /// The time left at the speed of this process so far, scoring included.
    fn time_left(&self, step: usize) -> String {
        let (start, before) = self.start;
        let (Ok(done), Ok(left)) =
            (u32::try_from(step.saturating_sub(before)), u32::try_from(self.steps.saturating_sub(step)))
        else {
            return String::new();
        };
        match start.elapsed().checked_div(done) {
            Some(each) if left > 0 => {
                format!(", {} left", units::duration(each.saturating_mul(left).as_secs_f64()))
            }
            _ => String::new(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(bar: &str, count: &str) -> ProgressStyle {
    let template = format!("{{prefix}} {bar} {{percent:>3}}% {count}, {{eta}} left\n{{wide_msg}}");
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn total(loss: &LossValues) -> String {
    format!("loss {:.4}", loss.total)
}

fn terms(loss: &LossValues) -> String {
    loss.terms().fold(String::new(), |mut text, (name, value)| {
        let _ = write!(text, ", {name} {value:.4}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::eval::metrics::Headline;
    use crate::run::log::EpochScores;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn entry(epoch: usize, step: usize) -> StepEntry {
        let loss = LossValues::new(1.5, [("task_text", 0.25), ("kl", 0.125)]);
        StepEntry {
            epoch,
            step,
            loss,
            learning_rate: 1e-5,
            gradient_norm: 1.0,
            examples_per_second: 8.25,
            gradient_norms: std::collections::BTreeMap::new(),
        }
    }

    fn epoch_end(epoch: usize) -> EpochEntry {
        let dev = Headline { accuracy: 0.5, balanced_accuracy: 0.5, weighted_f1: 0.75, macro_f1: 0.5 };
        let loss = LossValues::new(-0.5, []);
        EpochEntry {
            epoch,
            step: epoch * 45,
            train: EpochScores { loss: Some(loss), ..EpochScores::default() },
            dev: Some(EpochScores { fusion: Some(dev), text_only: Some(dev), ..EpochScores::default() }),
            is_best: epoch == 1,
            seconds: 12.34,
            data_wait: None,
            resident_memory: None,
            device_memory: None,
        }
    }

    fn watch(progress: &mut Progress) {
        progress.handle(&Event::Training { epochs: 2, steps: 90, done: 0 });
        for epoch in 1..=2 {
            for done in 1..=45 {
                progress.handle(&Event::Step { entry: &entry(epoch, (epoch - 1) * 45 + done), done, of: 45 });
            }
            progress.handle(&Event::Count { what: "scoring dev", done: 1, of: Some(3) });
            progress.handle(&Event::Epoch(&epoch_end(epoch)));
        }
        progress.handle(&Event::Message("the best epoch is 1"));
        progress.handle(&Event::Finished);
    }

    #[test]
    fn plain_lines_come_ten_times_an_epoch_and_at_its_end() {
        let shared = Shared::default();
        watch(&mut Progress::lines(shared.clone()));
        let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 23, "{text}");
        let start = "epoch 1/2 11%: step 5, loss 1.5000, task_text 0.2500, kl 0.1250, 8.2 examples/s, ";
        assert!(lines[0].starts_with(start) && lines[0].ends_with(" left"), "{text}");
        let end = "epoch 1/2 done: train loss -0.5000, dev weighted F1 0.750, accuracy 0.500, text only 0.750, \
                   the best so far (12.3 s)";
        assert_eq!(lines[10], end);
        assert!(lines[20].starts_with("epoch 2/2 100%: step 90, ") && lines[20].ends_with("examples/s"), "{text}");
        assert_eq!(lines[22], "the best epoch is 1");
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
    }

    #[test]
    fn a_bar_is_shown_only_while_something_is_counted() {
        let mut progress = Progress::bar(ProgressDrawTarget::hidden(), false);
        let is_shown = |progress: &Progress| match &progress.output {
            Output::Bar(bar) => !bar.is_finished(),
            _ => unreachable!("it is a bar"),
        };
        progress.handle(&Event::Message("note: before anything is counted"));
        progress.handle(&Event::Count { what: "hashing", done: 0, of: Some(0) });
        assert!(!is_shown(&progress));
        for _ in 0..2 {
            progress.handle(&Event::Count { what: "hashing", done: 1, of: Some(2) });
            assert!(is_shown(&progress));
            progress.handle(&Event::Finished);
            assert!(!is_shown(&progress));
        }
        progress.handle(&Event::Bytes { what: "weights", done: 1, of: 2 });
        assert!(is_shown(&progress));
        progress.handle(&Event::Finished);
        progress.handle(&Event::Training { epochs: 1, steps: 2, done: 0 });
        assert!(is_shown(&progress));
    }

    #[test]
    fn a_bar_and_silence_take_the_same_events() {
        watch(&mut Progress::quiet());
        for is_coloured in [true, false] {
            let mut progress = Progress::bar(ProgressDrawTarget::hidden(), is_coloured);
            watch(&mut progress);
            progress.handle(&Event::Count { what: "predicting", done: 7, of: None });
            progress.handle(&Event::Count { what: "predicting", done: 8, of: Some(9) });
            let Output::Bar(bar) = &progress.output else { unreachable!("it is a bar") };
            assert_eq!((bar.position(), bar.length(), bar.prefix().as_str()), (8, Some(9), "predicting"));
            let bar = bar.clone();
            progress.handle(&Event::Bytes { what: "model.safetensors", done: 7, of: 4096 });
            assert_eq!((bar.position(), bar.length(), bar.prefix().as_str()), (7, Some(4096), "model.safetensors"));
        }
    }
}
