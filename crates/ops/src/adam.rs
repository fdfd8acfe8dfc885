//! One update of Adam: its constants and its plain form.

use burn::tensor::{Tensor, backend::Backend};

/// The constants of one step of Adam for one tensor (Kingma and Ba 2015, as `torch.optim.Adam` and `AdamW`).
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// The rate of this tensor at this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// L2 penalty (`adam`) or decoupled decay (`adamw`).
    pub weight_decay: f64,
    /// Whether the decay is decoupled from the gradient.
    pub decoupled: bool,
    /// Factor on the gradient: the window's average and the clipping of the global norm.
    pub gradient_scale: f64,
    /// 1-based number of this update.
    pub step: usize,
}

/// A tensor's weight and its two moments.
#[derive(Clone, Debug)]
pub struct AdamState<B: Backend, const D: usize> {
    pub weight: Tensor<B, D>,
    /// Running mean of the gradient.
    pub first: Tensor<B, D>,
    /// Running mean of the squared gradient.
    pub second: Tensor<B, D>,
}

/// See [`super::Ops::adam`].
pub fn plain<B: Backend, const D: usize>(
    state: AdamState<B, D>,
    gradient: Tensor<B, D>,
    step: &AdamStep,
) -> AdamState<B, D> {
    let constants = AdamConstants::new(step);
    let AdamState { mut weight, first, second } = state;
    let mut gradient = gradient * step.gradient_scale;
    if step.weight_decay > 0.0 {
        if step.decoupled {
            weight = weight * constants.shrink;
        } else {
            gradient = gradient + weight.clone() * step.weight_decay;
        }
    }
    let first = first * step.beta1 + gradient.clone() * (1.0 - step.beta1);
    let second = second * step.beta2 + gradient.square() * (1.0 - step.beta2);
    let denominator = second.clone().sqrt() / constants.second_correction + step.epsilon;
    let weight = weight - first.clone() / denominator * constants.rate;
    AdamState { weight, first, second }
}

/// What follows from an [`AdamStep`].
struct AdamConstants {
    /// The rate divided by the bias correction of the first moment.
    rate: f64,
    /// Root of the bias correction of the second moment.
    second_correction: f64,
    /// Factor of decoupled weight decay.
    shrink: f64,
}

impl AdamConstants {
    fn new(step: &AdamStep) -> Self {
        let power = i32::try_from(step.step).unwrap_or(i32::MAX);
        Self {
            rate: step.learning_rate / (1.0 - step.beta1.powi(power)),
            second_correction: (1.0 - step.beta2.powi(power)).sqrt(),
            shrink: 1.0 - step.learning_rate * step.weight_decay,
        }
    }
}

/// What an update of Adam multiplies by and adds, in f32.
#[derive(Clone, Copy)]
pub struct AdamFactors {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// One less the first decay.
    pub rest1: f32,
    /// One less the second decay.
    pub rest2: f32,
    /// The rate, corrected for the first moment's start at zero.
    pub rate: f32,
    /// The same for the root of the second moment.
    pub correction: f32,
    /// Added to that root.
    pub epsilon: f32,
    /// On the gradient.
    pub scale: f32,
    /// On the weight, added to the gradient.
    pub decay: f32,
    /// On the weight before the update.
    pub shrink: f32,
}

impl AdamFactors {
    #[expect(clippy::cast_possible_truncation, reason = "the update is computed in f32, as in PyTorch")]
    pub fn new(step: &AdamStep) -> Self {
        let constants = AdamConstants::new(step);
        Self {
            beta1: step.beta1 as f32,
            beta2: step.beta2 as f32,
            rest1: (1.0 - step.beta1) as f32,
            rest2: (1.0 - step.beta2) as f32,
            rate: constants.rate as f32,
            correction: 1.0 / constants.second_correction as f32,
            epsilon: step.epsilon as f32,
            scale: step.gradient_scale as f32,
            decay: if step.decoupled { 0.0 } else { step.weight_decay as f32 },
            shrink: if step.decoupled { constants.shrink as f32 } else { 1.0 },
        }
    }
}
