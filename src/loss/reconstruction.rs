//! The reconstruction error of one modality (equation 3). The paper prints an un-squared norm and calls it the mean
//! squared error; this is the latter.

use burn::tensor::{Tensor, backend::Backend};

use super::LossConfig;

/// `mean((target - reconstructed)^2)` of two [batch, hidden] -> [1].
#[must_use]
pub fn reconstruction<B: Backend>(
    target: Tensor<B, 2>,
    reconstructed: Tensor<B, 2>,
    config: &LossConfig,
) -> Tensor<B, 1> {
    let target = if config.detach_target { target.detach() } else { target };
    (target - reconstructed).square().mean()
}
