//! What a step came to, read from the device at once or several steps later.

use burn::tensor::{Tensor, backend::Backend};

use super::{
    gradients::{GradientNorms, Squares},
    replica::Means,
};
use crate::{ops::Ops, panics};

/// How many steps a device that works beside the host takes before their losses are read. Reading waits for the device,
/// and then the device waits for the host's next step.
pub const STEPS_AHEAD: usize = 8;

/// What a step came to; the same on every device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stepped {
    /// The names of the terms, without their sum.
    pub terms: &'static [&'static str],
    /// The sum of the terms, and each of them.
    pub means: Means,
    /// Norms of the gradients, before any clipping.
    pub norms: GradientNorms,
}

impl Stepped {
    /// What is not finite, if anything: a term of the loss, or the gradients.
    #[must_use]
    pub fn culprit(&self) -> Option<String> {
        // The sum last: it is not finite where any of the others is not.
        let names = self.terms.iter().copied().zip(self.means.iter().skip(1));
        let term = names.chain([("total", &self.means[0])]).find(|(_, mean)| !mean.is_finite());
        let term = term.map(|(name, _)| format!("the loss term {name}"));
        let part = || self.norms.groups.iter().find(|(_, norm)| !norm.is_finite()).map(|(name, _)| name);
        term.or_else(|| Some(format!("the gradient norm of {}", part()?)))
            .or_else(|| (!self.norms.total.is_finite()).then(|| "the gradient norm".to_owned()))
    }
}

/// What a step came to, still on the device.
#[derive(Debug)]
pub struct Unread<B: Backend> {
    /// The names of the terms, without their sum.
    pub terms: &'static [&'static str],
    /// The sum and the terms of each part, [1 + terms], and its share of the step's examples.
    pub parts: Vec<(Tensor<B, 1>, f64)>,
    /// Squared norms of the gradients; none where there are no gradients.
    pub squares: Option<Squares<B>>,
}

impl<B: Ops> Unread<B> {
    /// Waits for the device.
    #[must_use]
    pub fn read(self) -> Stepped {
        let mut means = Means::default();
        for (values, share) in self.parts {
            let values = values.into_data().convert::<f64>();
            match values.as_slice::<f64>() {
                Ok(values) => means.iter_mut().zip(values).for_each(|(mean, value)| *mean += *value * share),
                Err(_) => means.fill(f64::NAN),
            }
        }
        let norms = self.squares.map(Squares::norms).unwrap_or_default();
        panics::stop_if_out_of_memory();
        Stepped { terms: self.terms, means, norms }
    }
}

/// A step that was taken.
#[derive(Debug)]
pub enum Report<B: Backend> {
    /// With its numbers; no update was made where one of them is not finite.
    Read(Stepped),
    /// With its numbers on the device; the update was made, whatever they are.
    Unread(Unread<B>),
}

impl<B: Ops> Report<B> {
    /// The numbers.
    #[must_use]
    pub fn read(self) -> Stepped {
        match self {
            Self::Read(stepped) => stepped,
            Self::Unread(unread) => unread.read(),
        }
    }
}
