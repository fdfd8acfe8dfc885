//! The linear maps of encoders whose width is not the model's.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};

use super::Sizes;
use crate::{
    nn::{Init, Linear},
    ops::Ops,
};

/// A map for each encoder that needs one.
#[derive(Module, Debug)]
pub struct Adapter<B: Backend> {
    text: Option<Linear<B>>,
    speech: Option<Linear<B>>,
}

impl<B: Backend> Adapter<B> {
    /// Those that encoders of these widths need; `None` if the method does not read their vectors.
    pub fn new(sizes: &Sizes, reads_vectors: bool, init: &mut Init<'_, B>) -> Self {
        let needs = |width: usize| reads_vectors && width > 0 && width != sizes.hidden;
        let map =
            |width: usize, init: &mut Init<'_, B>| needs(width).then(|| Linear::uniform(width, sizes.hidden, init));
        Self { text: map(sizes.text, init), speech: map(sizes.speech, init) }
    }
}

impl<B: Ops> Adapter<B> {
    /// [batch, the text encoder's width] -> [batch, hidden].
    pub fn text(&self, vector: Tensor<B, 2>) -> Tensor<B, 2> {
        adapted(self.text.as_ref(), vector)
    }

    /// [batch, the speech encoder's width] -> [batch, hidden].
    pub fn speech(&self, vector: Tensor<B, 2>) -> Tensor<B, 2> {
        adapted(self.speech.as_ref(), vector)
    }
}

fn adapted<B: Ops>(map: Option<&Linear<B>>, vector: Tensor<B, 2>) -> Tensor<B, 2> {
    match map {
        Some(map) => map.forward(vector),
        None => vector,
    }
}
