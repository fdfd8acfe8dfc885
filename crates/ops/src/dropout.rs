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

/// What a mask that is a function of its key is made from.
#[derive(Clone, Copy, Debug)]
pub struct MaskConstants {
    /// The lower half of the key.
    pub low: u32,
    /// The upper half of the key.
    pub high: u32,
    /// The bits from which on an element is kept.
    pub threshold: u32,
    /// What a kept element is multiplied by.
    pub scale: f32,
}

impl Dropout {
    /// The constants of its mask.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the halves of a key, and a probability times 2^32"
    )]
    pub(super) fn constants(self) -> MaskConstants {
        MaskConstants {
            low: self.key as u32,
            high: (self.key >> 32) as u32,
            threshold: (self.probability * 4_294_967_296.0) as u32,
            scale: (1.0 / (1.0 - self.probability)) as f32,
        }
    }
}

/// The randomness of one training step: a function of (run seed, step, order of the calls in the forward pass).
#[derive(Debug)]
pub struct StepRandom {
    seed: u64,
    drawn: Cell<u64>,
}

impl StepRandom {
    /// The randomness of a step of a run.
    pub fn new(run_seed: u64, step: u64) -> Self {
        Self { seed: mix(run_seed, step), drawn: Cell::new(0) }
    }

    /// A key that no other call of this step gets.
    pub fn key(&self) -> u64 {
        self.drawn.set(self.drawn.get() + 1);
        mix(self.seed, self.drawn.get())
    }
}
