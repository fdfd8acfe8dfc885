//! The gradients of a window of batches, by parameter name.

use std::collections::BTreeMap;

use burn::{
    module::{ModuleVisitor, Param},
    tensor::{
        Tensor, TensorData, TensorPrimitive,
        backend::{AutodiffBackend, Backend},
        ops::FloatTensor,
    },
};

use crate::{checkpoint::parameters::Path, ops::Ops};

/// A tensor whose number of axes is left to the place that uses it.
#[derive(Clone, Debug)]
pub struct AnyTensor<B: Backend>(FloatTensor<B>);

impl<B: Backend> AnyTensor<B> {
    /// Forgets the number of axes.
    #[must_use]
    pub fn new<const D: usize>(tensor: Tensor<B, D>) -> Self {
        Self(tensor.into_primitive().tensor())
    }

    /// Takes up the number of axes again; it must be the same.
    #[must_use]
    pub fn into_tensor<const D: usize>(self) -> Tensor<B, D> {
        Tensor::from_primitive(TensorPrimitive::Float(self.0))
    }

    /// From the host, with as many axes as the data has.
    #[must_use]
    pub fn from_data(data: TensorData, device: &B::Device) -> Self {
        Self(B::float_from_data(data, device))
    }

    /// To the host, in this shape.
    #[must_use]
    pub fn into_data(self, shape: &[usize]) -> TensorData {
        let elements: usize = shape.iter().product();
        let flat: Tensor<B, 1> =
            Tensor::from_primitive(TensorPrimitive::Float(B::float_reshape(self.0, [elements].into())));
        let mut data = flat.into_data();
        data.shape = shape.into();
        data
    }
}

/// Sums of gradients over the batches of a window.
#[derive(Debug)]
pub struct GradientWindow<B: Backend> {
    sums: BTreeMap<String, AnyTensor<B>>,
    squared_norms: BTreeMap<String, Tensor<B, 1>>,
}

impl<B: Backend> Default for GradientWindow<B> {
    fn default() -> Self {
        Self { sums: BTreeMap::new(), squared_norms: BTreeMap::new() }
    }
}

impl<B: Ops> GradientWindow<B> {
    /// Adds the gradients that a backward pass left for the parameters of `model`.
    pub fn add<A, M>(&mut self, model: &M, gradients: A::Gradients)
    where
        A: AutodiffBackend<InnerBackend = B>,
        M: burn::module::Module<A>,
    {
        let mut visitor = Adder::<A> { path: Path::default(), gradients, window: self };
        model.visit(&mut visitor);
    }

    /// Takes the gradient of one parameter out; `None` where no path led to it.
    pub fn take(&mut self, name: &str) -> Option<AnyTensor<B>> {
        self.sums.remove(name)
    }

    /// Names of the parameters that have a gradient.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sums.keys().map(String::as_str)
    }

    /// The norm over all gradients, times `scale`.
    #[must_use]
    pub fn norm(&self, scale: f64) -> f64 {
        let squares: Vec<Tensor<B, 1>> = self.squared_norms.values().cloned().collect();
        if squares.is_empty() {
            return 0.0;
        }
        // One transfer from the device; summed in double precision in the order of the names.
        let squares = Tensor::cat(squares, 0).into_data().convert::<f64>();
        let sum: f64 = squares.as_slice::<f64>().map_or(f64::NAN, |values| values.iter().sum());
        sum.sqrt() * scale
    }
}

struct Adder<'a, A: AutodiffBackend> {
    path: Path,
    gradients: A::Gradients,
    window: &'a mut GradientWindow<A::InnerBackend>,
}

impl<A> ModuleVisitor<A> for Adder<'_, A>
where
    A: AutodiffBackend,
    A::InnerBackend: Ops,
{
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<A, D>>) {
        let Some(gradient) = parameter.val().grad_remove(&mut self.gradients) else { return };
        let name = self.path.name();
        let sum = match self.window.sums.remove(&name) {
            Some(sum) => sum.into_tensor::<D>() + gradient,
            None => gradient,
        };
        let squared_norm = <A::InnerBackend as Ops>::squared_norm(sum.clone());
        self.window.squared_norms.insert(name.clone(), squared_norm);
        self.window.sums.insert(name, AnyTensor::new(sum));
    }
}
