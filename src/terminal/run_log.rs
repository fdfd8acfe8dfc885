//! A run's log as plain text: an epoch a line, and where the run stands.

use std::fmt::Write as _;

use super::table::Table;
use crate::eval::metrics::Headline;
use crate::run::log::{Entry, EpochEntry, StepEntry};
use crate::units::bytes;

/// The epochs, then the step that the run is at where that is behind the last of them.
pub fn render(entries: &[Entry]) -> String {
    let epochs: Vec<&EpochEntry> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Epoch(epoch) => Some(epoch.as_ref()),
            Entry::Step(_) => None,
        })
        .collect();
    let mut text = if epochs.is_empty() { String::new() } else { table(&epochs).to_string() };
    let done = epochs.last().map_or(0, |epoch| epoch.step);
    let last = entries.iter().rev().find_map(|entry| match entry {
        Entry::Step(step) if step.step > done => Some(step),
        _ => None,
    });
    if let Some(step) = last {
        text.push_str(&stand(step, &epochs));
    }
    text
}

fn table(epochs: &[&EpochEntry]) -> Table {
    let mut table = Table::new([
        "epoch",
        "steps",
        "train loss",
        "dev weighted F1",
        "accuracy",
        "text only",
        "speech only",
        "time",
        "waiting",
        "memory",
        "",
    ]);
    for epoch in epochs {
        let dev = epoch.dev.as_ref();
        let f1 = |headline: Option<Headline>| headline.map(|headline| headline.weighted_f1);
        table.row([
            epoch.epoch.to_string(),
            epoch.step.to_string(),
            number(epoch.train.loss.as_ref().map(|loss| loss.total)),
            number(dev.and_then(|dev| f1(dev.fusion))),
            number(dev.and_then(|dev| dev.fusion).map(|headline| headline.accuracy)),
            number(dev.and_then(|dev| f1(dev.text_only))),
            number(dev.and_then(|dev| f1(dev.speech_only))),
            format!("{:.0} s", epoch.seconds),
            epoch.data_wait.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", 100.0 * share)),
            memory(epoch),
            if epoch.is_best { "best so far" } else { "" }.to_owned(),
        ]);
    }
    table
}

/// That of the process, and of the device where there is one.
fn memory(epoch: &EpochEntry) -> String {
    let shown: Vec<String> = [epoch.resident_memory, epoch.device_memory].into_iter().flatten().map(bytes).collect();
    if shown.is_empty() { "-".to_owned() } else { shown.join(" + ") }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

/// The step of an epoch that is not over, and of how many where an epoch before says it.
fn stand(step: &StepEntry, epochs: &[&EpochEntry]) -> String {
    let mut text = format!("epoch {} at step {}", step.epoch, step.step);
    if let Some(last) = epochs.last() {
        let before = epochs.len().checked_sub(2).map_or(0, |place| epochs[place].step);
        let _ = write!(text, " ({} of about {} of this epoch)", step.step - last.step, last.step - before);
    }
    let _ = write!(text, ": loss {:.4}", step.loss.total);
    for (name, value) in step.loss.terms() {
        let _ = write!(text, ", {name} {value:.4}");
    }
    let _ = writeln!(
        text,
        "; learning rate {:.3e}, gradient norm {:.3}, {:.1} examples/s",
        step.learning_rate, step.gradient_norm, step.examples_per_second
    );
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::run::log::{EpochScores, LossValues};

    fn step(epoch: usize, step: usize) -> Entry {
        Entry::Step(StepEntry {
            epoch,
            step,
            loss: LossValues::new(1.25, [("kl", 0.5)]),
            learning_rate: 1e-5,
            gradient_norm: 2.0,
            gradient_norms: BTreeMap::new(),
            examples_per_second: 8.0,
        })
    }

    fn epoch(epoch: usize, step: usize) -> Entry {
        let headline = Headline { weighted_f1: 0.5, ..Headline::default() };
        let dev = EpochScores { fusion: Some(headline), ..EpochScores::default() };
        let train = EpochScores { loss: Some(LossValues::new(1.0, [])), ..EpochScores::default() };
        Entry::Epoch(Box::new(EpochEntry {
            epoch,
            step,
            train,
            dev: Some(dev),
            is_best: epoch == 1,
            seconds: 61.4,
            data_wait: Some(0.015),
            resident_memory: Some(310 << 20),
            device_memory: None,
        }))
    }

    #[test]
    fn epochs_are_rows_and_a_run_at_work_says_where_it_is() {
        let entries = [step(1, 1), epoch(1, 10), step(2, 11), epoch(2, 20), step(3, 23)];
        let text = render(&entries);
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(lines[1]),
            ["1", "10", "1.0000", "0.5000", "0.0000", "-", "-", "61", "s", "1.5%", "310", "MiB", "best", "so", "far"]
        );
        assert_eq!(words(lines[2])[..2], ["2", "20"]);
        let expected = "epoch 3 at step 23 (3 of about 10 of this epoch): loss 1.2500, kl 0.5000; learning rate 1.000e-5, \
                        gradient norm 2.000, 8.0 examples/s";
        assert_eq!(lines[3..], [expected]);
        assert!(render(&entries[..1]).starts_with("epoch 1 at step 1: loss"));
        assert_eq!(render(&entries[..4]).lines().count(), 3);
        assert_eq!(render(&[]), "");
    }
}
