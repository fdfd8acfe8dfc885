//! The operations of the model: those of the crate `clasp-ops`, and what a forward pass says of all of them, its number
//! format and its randomness.

mod mode;
mod precision;
#[cfg(test)]
mod tests;

pub use clasp_ops::*;
pub use mode::Mode;
pub use precision::{attention, biased_attention, convolution, linear, positional_convolution, product};
