//! What a step came to, read from the device at once or several steps later.

use burn::tensor::{Tensor, backend::Backend};

use super::gradients::{GradientNorms, Squares};
use crate::{device::ResolvedDevice, ops::Ops, panics, run::log::LossValues};

/// How many steps a device that works beside the host takes before their losses are read. Reading waits for the device,
/// and then the device waits for the host's next step.
const STEPS_AHEAD: usize = 8;

/// After how many steps of one device their losses are read. The CPU is never behind: what a step came to is there when
/// it ends.
pub fn read_every(device: ResolvedDevice) -> usize {
    if device == ResolvedDevice::Cpu { 1 } else { STEPS_AHEAD }
}

/// The weighted sum of the terms, named `total`, and the terms in the order of the method.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses(pub Vec<(&'static str, f64)>);

impl Losses {
    /// The sum and the terms of these names. Where numbers lack they are 0.
    pub fn new(terms: &[&'static str], numbers: impl IntoIterator<Item = f64>) -> Self {
        let names = std::iter::once("total").chain(terms.iter().copied());
        Self(names.zip(numbers.into_iter().chain(std::iter::repeat(0.0))).collect())
    }

    /// Adds others of the same names, of which this one counts as `share`.
    pub fn add(&mut self, others: impl IntoIterator<Item = f64>, share: f64) {
        self.0.iter_mut().zip(others).for_each(|((_, loss), other)| *loss += other * share);
    }

    /// As the log has them.
    pub fn values(&self) -> LossValues {
        let total = self.0.first().map_or(0.0, |&(_, total)| total);
        LossValues::new(total, self.0.iter().skip(1).copied())
    }
}

/// What a step came to; the same on every device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepResult {
    /// Means over the step's examples.
    pub losses: Losses,
    /// Norms of the gradients, before any clipping.
    pub norms: GradientNorms,
}

impl StepResult {
    /// What is not finite, if anything: a term of the loss, or the gradients.
    pub fn first_non_finite(&self) -> Option<String> {
        // The sum last: it is not finite where any of the others is not.
        let terms = self.losses.0.iter().skip(1).chain(self.losses.0.first());
        let term = terms.into_iter().find(|(_, loss)| !loss.is_finite());
        let term = term.map(|(name, _)| format!("the loss term {name}"));
        let part = || self.norms.groups.iter().find(|(_, norm)| !norm.is_finite()).map(|(name, _)| name);
        term.or_else(|| Some(format!("the gradient norm of {}", part()?)))
            .or_else(|| (!self.norms.total.is_finite()).then(|| "the gradient norm".to_owned()))
    }
}

/// What a step came to, still on the device.
#[derive(Debug)]
pub struct PendingStep<B: Backend> {
    /// The names of the terms, without their sum.
    pub terms: &'static [&'static str],
    /// The sum and the terms of each part, [1 + terms], and its share of the step's examples.
    pub parts: Vec<(Tensor<B, 1>, f64)>,
    /// Squared norms of the gradients; `None` if there are no gradients.
    pub squares: Option<Squares<B>>,
}

impl<B: Ops> PendingStep<B> {
    /// Waits for the device.
    pub fn read(self) -> StepResult {
        let mut losses = Losses::new(self.terms, []);
        for (values, share) in self.parts {
            let values = values.into_data().convert::<f64>();
            // A device that failed gives no numbers.
            let values = values.to_vec::<f64>().unwrap_or_else(|_| vec![f64::NAN; losses.0.len()]);
            losses.add(values, share);
        }
        let norms = self.squares.map(Squares::norms).unwrap_or_default();
        panics::stop_if_out_of_memory();
        StepResult { losses, norms }
    }
}

/// A step that was taken.
#[derive(Debug)]
pub enum StepOutcome<B: Backend> {
    /// With its numbers; no update was made where one of them is not finite.
    Read(StepResult),
    /// With its numbers on the device; the update was made, whatever they are.
    Pending(PendingStep<B>),
}

impl<B: Ops> StepOutcome<B> {
    pub fn read(self) -> StepResult {
        match self {
            Self::Read(result) => result,
            Self::Pending(pending) => pending.read(),
        }
    }
}
