//! Where the randomness of a training step comes from: counters and the seeds of the run and the step, never a
//! generator whose state would have to be saved.

use std::cell::Cell;

use crate::random::{Random, mix};

/// One dropout: its probability and the key that decides which elements go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that an element is zeroed, in (0, 1).
    pub probability: f64,
    /// Decides the mask.
    pub key: u64,
}

/// The randomness of one training step: a function of (run seed, step, order of the calls in the forward pass).
#[derive(Debug)]
pub struct StepRandom {
    seed: u64,
    drawn: Cell<u64>,
}

impl StepRandom {
    /// The randomness of a step of a run.
    #[must_use]
    pub fn new(run_seed: u64, step: u64) -> Self {
        Self { seed: mix(run_seed, step), drawn: Cell::new(0) }
    }

    /// A key that no other call of this step gets.
    pub fn key(&self) -> u64 {
        self.drawn.set(self.drawn.get() + 1);
        mix(self.seed, self.drawn.get())
    }
}

/// Whether a forward pass trains, and with which randomness.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// No dropout, no masking, no dropped layers.
    Evaluation,
    /// Dropout, `SpecAugment` and layer drop as the config asks.
    Training(&'a StepRandom),
}

impl Mode<'_> {
    /// The dropout of one place, where it is on.
    #[must_use]
    pub fn dropout(self, probability: f64) -> Option<Dropout> {
        match self {
            Mode::Training(random) if probability > 0.0 => Some(Dropout { probability, key: random.key() }),
            _ => None,
        }
    }

    /// A generator for one use on the host (`SpecAugment`, layer drop); none in evaluation.
    #[must_use]
    pub fn generator(self) -> Option<Random> {
        match self {
            Mode::Training(random) => Some(Random::new(random.key())),
            Mode::Evaluation => None,
        }
    }
}
