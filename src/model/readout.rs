//! What the heads see of an encoder's states: which layers, and how they become one vector.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation, backend::Backend},
};

use crate::{
    choices::{Layers, Pooling},
    encoder::{Encoded, Wanted},
    nn::Init,
    ops::{Mode, Ops, plain::MASKED_SCORE},
};

/// Of one encoder.
#[derive(Module, Debug)]
pub struct Readout<B: Backend> {
    /// Logits of the weights of all layers' states [layers + 1], where they are mixed; zeros at the start.
    mix: Option<Param<Tensor<B, 1>>>,
    /// The map of a state to its score [1, width], where attention pools; zeros, so that the mean is the start.
    attention: Option<Param<Tensor<B, 2>>>,
    #[module(skip)]
    layers: Layers,
    #[module(skip)]
    pooling: Pooling,
    is_frozen: bool,
}

impl<B: Backend> Readout<B> {
    /// Of an encoder with this many layers of this width.
    pub fn new(layers: Layers, pooling: Pooling, (count, width): (usize, usize), init: &mut Init<'_, B>) -> Self {
        Self {
            mix: (layers == Layers::Mix).then(|| init.constant([count + 1], 0.0)),
            attention: (pooling == Pooling::Attention).then(|| init.constant([1, width], 0.0)),
            layers,
            pooling,
            is_frozen: false,
        }
    }

    /// The same for an encoder that stays as it is, if so: it then runs without dropout, `SpecAugment` and layer drop.
    pub fn with_frozen(mut self, is_frozen: bool) -> Self {
        self.is_frozen = is_frozen;
        self
    }

    /// What the encoder is asked for.
    pub fn wanted(&self) -> Wanted {
        match self.layers {
            Layers::Last => Wanted::Last,
            Layers::One(layer) => Wanted::One(layer),
            Layers::Mix => Wanted::All,
        }
    }

    /// How the encoder runs in a pass of the model.
    pub fn mode<'a>(&self, mode: Mode<'a>) -> Mode<'a> {
        if self.is_frozen { Mode::evaluation().with_precision(mode.precision()) } else { mode }
    }
}

impl<B: Ops> Readout<B> {
    /// The states that the heads see, in place of the last layer's.
    pub fn states(&self, encoded: Encoded<B>) -> Encoded<B> {
        let Some(mix) = &self.mix else { return encoded };
        let weights = activation::softmax(mix.val(), 0);
        let weighted = encoded.states.into_iter().enumerate().map(|(layer, states)| {
            let weight = weights.clone().narrow(0, layer, 1).reshape([1, 1]);
            states * weight
        });
        let hidden = weighted.reduce(|sum, states| sum + states).unwrap_or(encoded.hidden);
        Encoded { hidden, states: Vec::new(), lengths: encoded.lengths }
    }

    /// The vectors of each layer's states, [batch, layers + 1, width].
    pub fn pool_all(&self, encoded: Encoded<B>) -> Tensor<B, 3> {
        let Encoded { states, lengths, .. } = encoded;
        let pool = |hidden| self.pool(Encoded { hidden, states: Vec::new(), lengths: lengths.clone() });
        Tensor::stack(states.into_iter().map(pool).collect::<Vec<_>>(), 1)
    }

    /// The vectors [batch, width] of states.
    pub fn pool(&self, encoded: Encoded<B>) -> Tensor<B, 2> {
        match (self.pooling, &self.attention) {
            (Pooling::Cls, _) => encoded.first(),
            (Pooling::Attention, Some(map)) => attended(encoded, map.val()),
            _ => encoded.mean(),
        }
    }
}

/// The sum of an utterance's valid states, weighted by the softmax of their scores: self-attention pooling (Safari et al.
/// 2020, equation 1).
fn attended<B: Ops>(encoded: Encoded<B>, map: Tensor<B, 2>) -> Tensor<B, 2> {
    let Encoded { hidden, lengths, .. } = encoded;
    let ([_, width], batch, time) = (hidden.dims(), lengths.batch(), lengths.longest());
    let device = hidden.device();
    let scores = <B as Ops>::linear(hidden.clone(), map, None).reshape([batch, time]);
    let scores = scores + (lengths.mask::<B>(&device) - 1.0) * -MASKED_SCORE;
    let weights = activation::softmax(scores, 1).reshape([batch, time, 1]);
    (hidden.reshape([batch, time, width]) * weights).sum_dim(1).reshape([batch, width])
}

#[cfg(test)]
mod tests {
    use burn::backend::{Flex, flex::FlexDevice};

    use super::*;
    use crate::ops::Lengths;

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<Flex, D> {
        Tensor::from_data(burn::tensor::TensorData::new(values.to_vec(), shape), &FlexDevice)
    }

    fn encoded(states: Vec<Tensor<Flex, 2>>, lengths: Lengths) -> Encoded<Flex> {
        Encoded { hidden: states.last().unwrap().clone(), states, lengths }
    }

    /// By hand: weights e^0, e^ln 3 of their sum 4 for two states of an utterance; the third position is padding.
    #[test]
    fn attention_weighs_valid_states_by_their_scores() {
        let hidden = tensor(&[0.0, 8.0, 3.0_f32.ln(), 4.0, 100.0, 7.0], [3, 2]);
        let map = tensor(&[1.0, 0.0], [1, 2]);
        let pooled =
            attended(encoded(vec![hidden], Lengths::new(vec![2], 3)), map).into_data().to_vec::<f32>().unwrap();
        assert!((pooled[0] - 0.75 * 3.0_f32.ln()).abs() < 1e-6 && (pooled[1] - (2.0 + 3.0)).abs() < 1e-6, "{pooled:?}");
    }

    /// Zeros are equal shares; by hand for others: softmax(0, ln 3) = 1/4, 3/4.
    #[test]
    fn layers_are_mixed_by_the_softmax_of_their_weights() {
        let mut init = Init::fresh(1, &FlexDevice);
        let mut readout = Readout::<Flex>::new(Layers::Mix, Pooling::Mean, (1, 2), &mut init);
        assert_eq!(readout.wanted(), Wanted::All);
        let mixed = |readout: &Readout<Flex>| {
            let states = vec![tensor(&[4.0, 0.0], [1, 2]), tensor(&[0.0, 8.0], [1, 2])];
            readout.states(encoded(states, Lengths::full(1, 1))).hidden.into_data().to_vec::<f32>().unwrap()
        };
        assert_eq!(mixed(&readout), [2.0, 4.0]);
        readout.mix = Some(Param::from_tensor(tensor(&[0.0, 3.0_f32.ln()], [2])));
        let found = mixed(&readout);
        assert!((found[0] - 1.0).abs() < 1e-6 && (found[1] - 6.0).abs() < 1e-6, "{found:?}");
    }
}
