//! How a forward pass is computed.

use super::{Dropout, StepRandom};
use crate::{choices::Precision, random::Random};

/// Whether a forward pass trains, with which randomness, and in which number format.
#[derive(Clone, Copy, Debug)]
pub struct Mode<'a> {
    random: Option<&'a StepRandom>,
    precision: Precision,
}

impl<'a> Mode<'a> {
    /// No dropout, no masking, no dropped layers; in f32.
    pub fn evaluation() -> Self {
        Self { random: None, precision: Precision::F32 }
    }

    /// Dropout, `SpecAugment` and layer drop as the config asks; in f32.
    pub fn training(random: &'a StepRandom) -> Self {
        Self { random: Some(random), precision: Precision::F32 }
    }

    /// The same in another number format.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The number format of the layers' products, convolutions and attention.
    pub fn precision(self) -> Precision {
        self.precision
    }

    /// The dropout of one place, where it is on.
    pub fn dropout(self, probability: f64) -> Option<Dropout> {
        let random = self.random.filter(|_| probability > 0.0)?;
        Some(Dropout { probability, key: random.key() })
    }

    /// A generator for one use on the host (`SpecAugment`, layer drop); none in evaluation.
    pub fn generator(self) -> Option<Random> {
        self.random.map(|random| Random::new(random.key()))
    }
}
