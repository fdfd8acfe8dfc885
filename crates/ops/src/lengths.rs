//! The valid lengths of a right-padded batch. Masks are derived from them where they are needed, so that padding
//! cannot be forgotten.

#[cfg(feature = "gpu")]
use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::Ops;

/// The number of valid positions of each example in a batch that is padded to `longest`.
#[derive(Clone, Debug)]
pub struct Lengths {
    valid: Vec<usize>,
    longest: usize,
    /// Where they are on a device.
    #[cfg(feature = "gpu")]
    kept: Arc<OnceLock<Box<dyn Any + Send + Sync>>>,
}

impl PartialEq for Lengths {
    fn eq(&self, other: &Self) -> bool {
        (&self.valid, self.longest) == (&other.valid, other.longest)
    }
}

impl Eq for Lengths {}

impl Lengths {
    /// `valid` positions of each example, in a batch padded to `longest`; larger values are cut to it.
    pub fn new(valid: Vec<usize>, longest: usize) -> Self {
        let valid = valid.into_iter().map(|length| length.min(longest)).collect();
        Self {
            valid,
            longest,
            #[cfg(feature = "gpu")]
            kept: Arc::default(),
        }
    }

    pub fn full(batch: usize, longest: usize) -> Self {
        Self::new(vec![longest; batch], longest)
    }

    /// The same in a batch that is padded to a multiple of `unit`.
    pub fn widened(&self, unit: usize) -> Self {
        Self::new(self.valid.clone(), self.longest.next_multiple_of(unit))
    }

    /// The same in a batch as long as a backend's forms want it.
    pub fn padded_for<B: Ops>(&self) -> Self {
        self.widened(B::TIME_UNIT)
    }

    /// Rows of `longest` values each, padded to be as long as those of another batch of the same examples.
    pub fn pad<T: Copy>(&self, rows: &[T], to: &Self, padding: T) -> Vec<T> {
        if self.longest == to.longest {
            return rows.to_vec();
        }
        let mut padded = Vec::with_capacity(to.batch() * to.longest);
        for (number, row) in rows.chunks(self.longest.max(1)).enumerate() {
            padded.extend_from_slice(row);
            padded.resize((number + 1) * to.longest, padding);
        }
        padded
    }

    pub fn batch(&self) -> usize {
        self.valid.len()
    }

    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The valid length of each example.
    pub fn valid(&self) -> &[usize] {
        &self.valid
    }

    /// Whether no example is padded.
    pub fn is_full(&self) -> bool {
        self.valid.iter().all(|&length| length == self.longest)
    }

    /// What `make` makes of the valid lengths: once for these lengths and all their clones, which belong to one device.
    #[cfg(feature = "gpu")]
    pub(super) fn kept<T: Any + Clone + Send + Sync>(&self, make: impl Fn(&[usize]) -> T) -> T {
        let kept = self.kept.get_or_init(|| Box::new(make(&self.valid))).downcast_ref().cloned();
        kept.unwrap_or_else(|| make(&self.valid))
    }

    /// 1 on valid positions and 0 on padding, [batch, longest].
    pub fn mask<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        let values: Vec<f32> = self
            .valid
            .iter()
            .flat_map(|&length| (0..self.longest).map(move |position| if position < length { 1.0 } else { 0.0 }))
            .collect();
        Tensor::from_data(TensorData::new(values, [self.batch(), self.longest]), device)
    }

    /// The valid lengths as numbers, [batch].
    #[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^24")]
    pub fn counts<B: Backend>(&self, device: &B::Device) -> Tensor<B, 1> {
        let values: Vec<f32> = self.valid.iter().map(|&length| length as f32).collect();
        Tensor::from_data(TensorData::new(values, [self.batch()]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_batch_has_the_same_valid_values() {
        let lengths = Lengths::new(vec![3, 1], 3);
        assert_eq!(lengths.widened(1), lengths);
        let wide = lengths.widened(4);
        assert_eq!((wide.valid(), wide.longest()), (&[3, 1][..], 4));
        assert_eq!(lengths.pad(&[7, 8, 9, 5, 0, 0], &wide, 0), [7, 8, 9, 0, 5, 0, 0, 0]);
        assert_eq!(lengths.pad(&[7, 8, 9, 5, 0, 0], &lengths, 0), [7, 8, 9, 5, 0, 0]);
    }
}
