//! The operations under automatic differentiation: each is one node of the graph with the backend's own backward.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            NodeId,
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops as Node, OpsKind},
        },
    },
    tensor::{
        Int, Tensor, TensorPrimitive,
        backend::Backend,
        ops::{FloatTensor, IntTensor},
    },
};

use super::{AttentionShape, Dropout, Lengths, Ops, TrainOps};

fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// Hands each parent that wants one its gradient.
fn register<B: Backend, const N: usize, const M: usize>(
    gradients: &mut Gradients,
    parents: [Option<NodeId>; N],
    results: [Option<FloatTensor<B>>; M],
) {
    for (parent, result) in parents.into_iter().zip(results) {
        if let (Some(parent), Some(result)) = (parent, result) {
            gradients.register::<B>(parent, result);
        }
    }
}

#[derive(Debug)]
struct Gelu<const D: usize>;

impl<B: TrainOps, const D: usize> Backward<B, 1> for Gelu<D> {
    type State = FloatTensor<B>;

    fn backward(self, node: Node<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [x] = node.parents;
        let gradient = gradients.consume::<B>(&node.node);
        if let Some(x) = x {
            let result = <B as TrainOps>::gelu_backward::<D>(tensor(node.state), tensor(gradient));
            gradients.register::<B>(x.id, primitive(result));
        }
    }
}

#[derive(Debug)]
struct Dropped<const D: usize> {
    dropout: Dropout,
}

impl<B: TrainOps, const D: usize> Backward<B, 1> for Dropped<D> {
    type State = ();

    fn backward(self, node: Node<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [x] = node.parents;
        let gradient = gradients.consume::<B>(&node.node);
        if let Some(x) = x {
            gradients.register::<B>(x.id, primitive(<B as Ops>::dropped::<D>(tensor(gradient), self.dropout)));
        }
    }
}

#[derive(Debug)]
struct Rows {
    entries: usize,
}

impl<B: TrainOps> Backward<B, 1> for Rows {
    type State = IntTensor<B>;

    fn backward(self, node: Node<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [table] = node.parents;
        let gradient = gradients.consume::<B>(&node.node);
        if let Some(table) = table {
            let indices = Tensor::from_primitive(node.state);
            let result = <B as TrainOps>::rows_backward(self.entries, indices, tensor(gradient));
            gradients.register::<B>(table.id, primitive(result));
        }
    }
}

#[derive(Debug)]
struct WeightNorm;

impl<B: TrainOps> Backward<B, 2> for WeightNorm {
    type State = [FloatTensor<B>; 2];

    fn backward(self, node: Node<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&node.node);
        let [direction, length] = node.state;
        let result = B::weight_norm_backward(tensor(direction), tensor(length), tensor(gradient));
        let results = [primitive(result.direction), primitive(result.length)].map(Some);
        register::<B, 2, 2>(gradients, node.parents.map(|parent| parent.map(|parent| parent.id)), results);
    }
}

#[derive(Debug)]
struct RoundToBf16<const D: usize>;

impl<B: TrainOps, const D: usize> Backward<B, 1> for RoundToBf16<D> {
    type State = ();

    fn backward(self, node: Node<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [x] = node.parents;
        let gradient = gradients.consume::<B>(&node.node);
        if let Some(x) = x {
            gradients.register::<B>(x.id, primitive(<B as Ops>::round_to_bf16::<D>(tensor(gradient))));
        }
    }
}

/// Parents: x, weight, and bias where there is one.
#[derive(Debug)]
struct Linear<const N: usize>;

impl<B: TrainOps, const N: usize> Backward<B, N> for Linear<N> {
    type State = [FloatTensor<B>; 2];

    fn backward(self, node: Node<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&node.node);
        let [x, weight] = node.state;
        let needed = [0, 1, 2].map(|parent| node.parents.get(parent).is_some_and(Option::is_some));
        let result = B::linear_backward(tensor(x), tensor(weight), tensor(gradient), needed);
        let results = [result.x.map(primitive), result.weight.map(primitive), result.bias.map(primitive)];
        register::<B, N, 3>(gradients, node.parents.map(|parent| parent.map(|parent| parent.id)), results);
    }
}

#[derive(Debug)]
struct StackedProduct;

impl<B: TrainOps> Backward<B, 2> for StackedProduct {
    type State = [FloatTensor<B>; 2];

    fn backward(self, node: Node<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<B, 3> = tensor(gradients.consume::<B>(&node.node));
        let [x, y] = node.state.map(|state| tensor::<B, 3>(state).swap_dims(1, 2));
        let needed = node.parents.each_ref().map(Option::is_some);
        let results = [
            needed[0].then(|| primitive(B::stacked_product(gradient.clone(), y))),
            needed[1].then(|| primitive(B::stacked_product(x, gradient))),
        ];
        register::<B, 2, 2>(gradients, node.parents.map(|parent| parent.map(|parent| parent.id)), results);
    }
}

#[derive(Debug)]
struct LayerNorm {
    epsilon: f64,
}

impl<B: TrainOps> Backward<B, 3> for LayerNorm {
    type State = [FloatTensor<B>; 2];

    fn backward(self, node: Node<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&node.node);
        let [x, weight] = node.state;
        let result = B::layer_norm_backward(tensor(x), tensor(weight), self.epsilon, tensor(gradient));
        let results = [primitive(result.x), primitive(result.weight), primitive(result.bias)].map(Some);
        register::<B, 3, 3>(gradients, node.parents.map(|parent| parent.map(|parent| parent.id)), results);
    }
}

#[derive(Debug)]
struct MaskedGroupNorm {
    lengths: Lengths,
    epsilon: f64,
}

impl<B: TrainOps> Backward<B, 3> for MaskedGroupNorm {
    type State = [FloatTensor<B>; 2];

    fn backward(self, node: Node<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&node.node);
        let [x, weight] = node.state;
        let result =
            B::masked_group_norm_backward(tensor(x), tensor(weight), &self.lengths, self.epsilon, tensor(gradient));
        let results = [primitive(result.x), primitive(result.weight), primitive(result.bias)].map(Some);
        register::<B, 3, 3>(gradients, node.parents.map(|parent| parent.map(|parent| parent.id)), results);
    }
}

/// Parents: x, weight, and bias where there is one.
#[derive(Debug)]
struct Convolution<const N: usize> {
    stride: usize,
}

impl<B: TrainOps, const N: usize> Backward<B, N> for Convolution<N> {
    type State = [FloatTensor<B>; 2];

    fn backward(self, node: Node<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&node.node);
        let [x, weight] = node.state;
        let needed = [0, 1, 2].map(|parent| node.parents.get(parent).is_some_and(Option::is_some));
        let result = B::convolution_backward(tensor(x), tensor(weight), self.stride, tensor(gradient), needed);
        let results = [result.x.map(primitive), result.weight.map(primitive), result.bias.map(primitive)];
        register::<B, N, 3>(gradients, node.parents.map(|parent| parent.map(|parent| parent.id)), results);
    }
}

#[derive(Debug)]
struct PositionalConvolution {
    groups: usize,
}

impl<B: TrainOps> Backward<B, 3> for PositionalConvolution {
    type State = [FloatTensor<B>; 2];

    fn backward(self, node: Node<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&node.node);
        let [x, weight] = node.state;
        let needed = node.parents.each_ref().map(Option::is_some);
        let (x, weight) = (tensor(x), tensor(weight));
        let result = B::positional_convolution_backward(x, weight, self.groups, tensor(gradient), needed);
        register::<B, 3, 3>(
            gradients,
            node.parents.map(|parent| parent.map(|parent| parent.id)),
            [result.x.map(primitive), result.weight.map(primitive), result.bias.map(primitive)],
        );
    }
}

#[derive(Debug)]
struct Attention {
    heads: usize,
    lengths: Lengths,
    dropout: Option<Dropout>,
}

impl<B: TrainOps> Backward<B, 3> for Attention {
    type State = [FloatTensor<B>; 3];

    fn backward(self, node: Node<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&node.node);
        let shape = AttentionShape { heads: self.heads, lengths: &self.lengths };
        let results = B::attention_backward(node.state.map(tensor), shape, self.dropout, tensor(gradient));
        register::<B, 3, 3>(
            gradients,
            node.parents.map(|parent| parent.map(|parent| parent.id)),
            results.map(|result| Some(primitive(result))),
        );
    }
}

impl<B: TrainOps, C: CheckpointStrategy> Ops for Autodiff<B, C> {
    const HAS_BF16: bool = B::HAS_BF16;
    const TIME_UNIT: usize = B::TIME_UNIT;

    fn linear(x: Tensor<Self, 2>, weight: Tensor<Self, 2>, bias: Option<Tensor<Self, 1>>) -> Tensor<Self, 2> {
        let (x, weight, bias) = (primitive(x), primitive(weight), bias.map(primitive));
        let inner_bias = bias.as_ref().map(|bias| tensor(bias.primitive.clone()));
        let y =
            primitive(<B as Ops>::linear(tensor(x.primitive.clone()), tensor(weight.primitive.clone()), inner_bias));
        let state = [x.primitive, weight.primitive];
        tensor(match bias {
            Some(bias) => match Linear::<3>.prepare::<C>([x.node, weight.node, bias.node]).compute_bound().stateful() {
                OpsKind::Tracked(node) => node.finish(state, y),
                OpsKind::UnTracked(node) => node.finish(y),
            },
            None => match Linear::<2>.prepare::<C>([x.node, weight.node]).compute_bound().stateful() {
                OpsKind::Tracked(node) => node.finish(state, y),
                OpsKind::UnTracked(node) => node.finish(y),
            },
        })
    }

    fn stacked_product(x: Tensor<Self, 3>, y: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let (x, y) = (primitive(x), primitive(y));
        let state = [x.primitive, y.primitive];
        let [inner_x, inner_y] = state.clone().map(tensor);
        let product = primitive(B::stacked_product(inner_x, inner_y));
        tensor(match StackedProduct.prepare::<C>([x.node, y.node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish(state, product),
            OpsKind::UnTracked(node) => node.finish(product),
        })
    }

    fn gelu<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        let x = primitive(x);
        let gelu = |x| primitive(<B as Ops>::gelu::<D>(tensor(x)));
        // Where nothing is tracked the input is given away, so that it can be written over.
        tensor(match Gelu::<D>.prepare::<C>([x.node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish(x.primitive.clone(), gelu(x.primitive)),
            OpsKind::UnTracked(node) => node.finish(gelu(x.primitive)),
        })
    }

    fn layer_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, bias: Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        let (x, weight, bias) = (primitive(x), primitive(weight), primitive(bias));
        let inputs = (tensor(x.primitive.clone()), tensor(weight.primitive.clone()), tensor(bias.primitive));
        let y = primitive(<B as Ops>::layer_norm(inputs.0, inputs.1, inputs.2, epsilon));
        let nodes = [x.node, weight.node, bias.node];
        tensor(match (LayerNorm { epsilon }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish([x.primitive, weight.primitive], y),
            OpsKind::UnTracked(node) => node.finish(y),
        })
    }

    fn attention(
        query: Tensor<Self, 2>,
        key: Tensor<Self, 2>,
        value: Tensor<Self, 2>,
        shape: AttentionShape<'_>,
        dropout: Option<Dropout>,
    ) -> Tensor<Self, 2> {
        let inputs = [primitive(query), primitive(key), primitive(value)];
        let nodes = inputs.each_ref().map(|input| input.node.clone());
        let state = inputs.map(|input| input.primitive);
        let [query, key, value] = state.clone().map(tensor);
        let y = primitive(<B as Ops>::attention(query, key, value, shape, dropout));
        let attention = Attention { heads: shape.heads, lengths: shape.lengths.clone(), dropout };
        tensor(match attention.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish(state, y),
            OpsKind::UnTracked(node) => node.finish(y),
        })
    }

    fn convolution(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        bias: Option<Tensor<Self, 1>>,
        stride: usize,
    ) -> Tensor<Self, 3> {
        let (x, weight, bias) = (primitive(x), primitive(weight), bias.map(primitive));
        let inner_bias = bias.as_ref().map(|bias| tensor(bias.primitive.clone()));
        let inputs = (tensor(x.primitive.clone()), tensor(weight.primitive.clone()));
        let y = primitive(<B as Ops>::convolution(inputs.0, inputs.1, inner_bias, stride));
        let state = [x.primitive, weight.primitive];
        tensor(match bias {
            Some(bias) => {
                let nodes = [x.node, weight.node, bias.node];
                match (Convolution::<3> { stride }).prepare::<C>(nodes).compute_bound().stateful() {
                    OpsKind::Tracked(node) => node.finish(state, y),
                    OpsKind::UnTracked(node) => node.finish(y),
                }
            }
            None => {
                match (Convolution::<2> { stride }).prepare::<C>([x.node, weight.node]).compute_bound().stateful() {
                    OpsKind::Tracked(node) => node.finish(state, y),
                    OpsKind::UnTracked(node) => node.finish(y),
                }
            }
        })
    }

    fn positional_convolution(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 3>,
        bias: Tensor<Self, 1>,
        groups: usize,
    ) -> Tensor<Self, 3> {
        let (x, weight, bias) = (primitive(x), primitive(weight), primitive(bias));
        let inputs = (tensor(x.primitive.clone()), tensor(weight.primitive.clone()), tensor(bias.primitive));
        let y = primitive(B::positional_convolution(inputs.0, inputs.1, inputs.2, groups));
        let nodes = [x.node, weight.node, bias.node];
        tensor(match (PositionalConvolution { groups }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish([x.primitive, weight.primitive], y),
            OpsKind::UnTracked(node) => node.finish(y),
        })
    }

    fn masked_group_norm(
        x: Tensor<Self, 3>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        lengths: &Lengths,
        epsilon: f64,
    ) -> Tensor<Self, 3> {
        let (x, weight, bias) = (primitive(x), primitive(weight), primitive(bias));
        let (scale, shift) = (tensor(weight.primitive.clone()), tensor(bias.primitive));
        let norm = |x| primitive(B::masked_group_norm(tensor(x), scale, shift, lengths, epsilon));
        let nodes = [x.node, weight.node, bias.node];
        let node = MaskedGroupNorm { lengths: lengths.clone(), epsilon };
        tensor(match node.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish([x.primitive.clone(), weight.primitive], norm(x.primitive)),
            OpsKind::UnTracked(node) => node.finish(norm(x.primitive)),
        })
    }

    fn weight_norm(direction: Tensor<Self, 3>, length: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let (direction, length) = (primitive(direction), primitive(length));
        let state = [direction.primitive, length.primitive];
        let [inner_direction, inner_length] = state.clone().map(tensor);
        let y = primitive(<B as Ops>::weight_norm(inner_direction, inner_length));
        tensor(match WeightNorm.prepare::<C>([direction.node, length.node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish(state, y),
            OpsKind::UnTracked(node) => node.finish(y),
        })
    }

    fn rows(table: Tensor<Self, 2>, indices: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        let [entries, _] = table.dims();
        let (table, indices) = (primitive(table), indices.into_primitive());
        let y = primitive(<B as Ops>::rows(tensor(table.primitive), Tensor::from_primitive(indices.clone())));
        tensor(match (Rows { entries }).prepare::<C>([table.node]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish(indices, y),
            OpsKind::UnTracked(node) => node.finish(y),
        })
    }

    fn dropped<const D: usize>(x: Tensor<Self, D>, dropout: Dropout) -> Tensor<Self, D> {
        let x = primitive(x);
        let y = primitive(<B as Ops>::dropped::<D>(tensor(x.primitive), dropout));
        tensor(Dropped::<D> { dropout }.prepare::<C>([x.node]).compute_bound().stateless(y))
    }

    fn round_to_bf16<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        let x = primitive(x);
        let y = primitive(<B as Ops>::round_to_bf16::<D>(tensor(x.primitive)));
        tensor(RoundToBf16::<D>.prepare::<C>([x.node]).compute_bound().stateless(y))
    }

    fn dropout_mask<const D: usize>(shape: [usize; D], dropout: Dropout, device: &Self::Device) -> Tensor<Self, D> {
        Tensor::from_inner(B::dropout_mask(shape, dropout, device))
    }
}
