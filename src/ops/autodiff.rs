//! The operations under automatic differentiation: the plain bodies, whose backward Burn derives, but for what needs
//! no gradient of its own.

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::Tensor,
};

use super::{Dropout, Ops};

impl<B: Ops, C: CheckpointStrategy> Ops for Autodiff<B, C> {
    fn dropout_mask<const D: usize>(shape: [usize; D], dropout: Dropout, device: &Self::Device) -> Tensor<Self, D> {
        Tensor::from_inner(<B as Ops>::dropout_mask(shape, dropout, device))
    }
}
