//! Where the randomness of a training step comes from: counters and the seeds of the run and the step, never a
//! generator whose state would have to be saved.

use std::cell::Cell;

use crate::random::mix;

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

    /// What all of it follows from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A key that no other call of this step gets.
    pub fn key(&self) -> u64 {
        self.drawn.set(self.drawn.get() + 1);
        mix(self.seed, self.drawn.get())
    }
}
