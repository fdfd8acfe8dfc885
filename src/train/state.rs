//! Where a run stands: what `last/` holds beside the weights and the optimiser's moments.
//!
//! Exact resume: no state of a random generator is saved, because there is none. The order of an epoch's examples is
//! `data::batch::plan(lengths, options, seed, epoch)`, and dropout's masks are `ops::StepRandom::new(seed, batch number)`.
//! Both numbers follow from [`State`], which also has the sums that the epoch's log entry is made of. Adam's moments are
//! in `optimizer.safetensors`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::step_result::Losses;
use crate::checkpoint::CheckpointError;
use crate::files;

/// The file's name in a checkpoint folder.
pub const STATE: &str = "state.json";
/// The name of the optimiser's file.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// A state is some lines.
const LONGEST: u64 = 1 << 20;
/// The format that this program reads and writes.
const FORMAT: &str = "clasp-state-1";

/// The position of a run. The order of the examples and all randomness follow from it and the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    format: String,
    /// Optimiser steps that were taken.
    pub step: usize,
    /// Epochs that are over and scored.
    pub epochs: usize,
    /// Batches of the current epoch that are done.
    pub batches: usize,
    /// Sums over the examples of the current epoch.
    pub sums: LossSums,
    /// The best epoch so far.
    pub best: Option<Best>,
    /// Epochs since the best one.
    pub epochs_without_better: usize,
    /// Whether a frozen encoder runs without dropout, `SpecAugment` and layer drop; a run that began before it did goes on
    /// as it began.
    #[serde(default)]
    pub frozen_in_evaluation: bool,
}

/// The best epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its number, from 1.
    pub epoch: usize,
    /// Its weighted F1 on dev; none without dev.
    pub weighted_f1: Option<f64>,
}

/// Sums of the loss terms over examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossSums {
    /// In the order of [`Losses`], with zeros behind them.
    sums: Vec<f64>,
    examples: usize,
}

impl Default for LossSums {
    fn default() -> Self {
        // The file has had eight numbers since its first version.
        Self { sums: vec![0.0; 8], examples: 0 }
    }
}

impl LossSums {
    /// Adds the mean losses of a batch.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    pub fn add(&mut self, losses: &Losses, examples: usize) {
        self.sums.resize(self.sums.len().max(losses.0.len()), 0.0);
        self.sums.iter_mut().zip(&losses.0).for_each(|(sum, (_, loss))| *sum += loss * examples as f64);
        self.examples += examples;
    }

    /// The means over the examples, of a method that has these terms.
    #[expect(clippy::cast_precision_loss, reason = "numbers of examples are far below 2^52")]
    pub fn mean(&self, terms: &[&'static str]) -> Losses {
        Losses::new(terms, self.sums.iter().map(|sum| sum / self.examples.max(1) as f64))
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            format: FORMAT.into(),
            step: 0,
            epochs: 0,
            batches: 0,
            sums: LossSums::default(),
            best: None,
            epochs_without_better: 0,
            frozen_in_evaluation: true,
        }
    }
}

impl State {
    /// Writes the state into a checkpoint folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), CheckpointError> {
        let path = folder.join(STATE);
        let text = format!("{:#}\n", serde_json::json!(self));
        std::fs::write(&path, text).map_err(|cause| CheckpointError::Write { path, cause })
    }

    /// Reads the state of a checkpoint folder.
    ///
    /// # Errors
    /// The file is missing, damaged, or of another version.
    pub fn load(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(STATE);
        let text =
            files::read_text(&path, LONGEST).map_err(|cause| CheckpointError::Read { path: path.clone(), cause })?;
        let state: Self = serde_json::from_str(&text)
            .map_err(|problem| CheckpointError::Damaged { path: path.clone(), problem: problem.to_string() })?;
        if state.format != FORMAT {
            let problem = format!("its format is {:?}; this program reads {FORMAT:?}", state.format);
            return Err(CheckpointError::Config { path, problem });
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_panic_and_what_is_read_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State { step: 12, epochs: 3, ..State::default() };
        let terms = ["task_text", "kl"];
        state.sums.add(&Losses::new(&terms, [0.1; 3]), 4);
        state.best = Some(Best { epoch: 2, weighted_f1: Some(0.5) });
        state.save(folder.path()).unwrap();
        assert_eq!(State::load(folder.path()).unwrap(), state);
        let good = std::fs::read(folder.path().join(STATE)).unwrap();
        crate::damage::each(&[good], 2_000, |bytes| {
            std::fs::write(folder.path().join(STATE), bytes).unwrap();
            if let Ok(state) = State::load(folder.path()) {
                let _ = state.sums.mean(&terms);
                state.save(folder.path()).unwrap();
                assert_eq!(State::load(folder.path()).unwrap(), state);
            }
        });
    }
}
