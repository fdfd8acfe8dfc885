//! The terms of the losses, each a number of vectors or logits: cross-entropy, the contrastive term, reconstruction and
//! divergence (paper, equations 1 to 4). A method in [`crate::method`] picks its terms and weighs them.

mod config;
mod contrastive;
mod divergence;
mod reconstruction;
#[cfg(test)]
pub(crate) mod samples;
mod task;

pub use crate::choices::{ClassWeights, KlDirection, Negatives, Similarity};

pub use config::LossConfig;
pub use contrastive::contrastive;
pub use divergence::{divergence, log_softmax};
pub use reconstruction::reconstruction;
pub use task::{Targets, class_weights, cross_entropy};
