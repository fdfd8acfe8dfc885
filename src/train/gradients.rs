//! The gradients of a window of batches, by parameter name.

use std::collections::{BTreeMap, BTreeSet};

use burn::{
    module::{ModuleVisitor, Param},
    tensor::{
        Tensor, TensorData, TensorMetadata as _, TensorPrimitive,
        backend::{AutodiffBackend, Backend},
        ops::FloatTensor,
    },
};

use super::group::{GroupError, Member, Message};
use crate::{checkpoint::parameters::ParameterPath, ops::Ops};

/// A tensor whose number of axes is left to the place that uses it.
#[derive(Clone, Debug)]
pub struct AnyTensor<B: Backend>(FloatTensor<B>);

impl<B: Backend> AnyTensor<B> {
    /// Forgets the number of axes.
    pub fn new<const D: usize>(tensor: Tensor<B, D>) -> Self {
        Self(tensor.into_primitive().tensor())
    }

    /// Takes up the number of axes again; it must be the same.
    pub fn into_tensor<const D: usize>(self) -> Tensor<B, D> {
        Tensor::from_primitive(TensorPrimitive::Float(self.0))
    }

    /// From the host, with as many axes as the data has.
    pub fn from_data(data: TensorData, device: &B::Device) -> Self {
        Self(B::float_from_data(data, device))
    }

    /// All elements in a row, and the shape that they had.
    pub fn flat(self) -> (Tensor<B, 1>, Vec<usize>) {
        let shape = self.0.shape();
        let flat = B::float_reshape(self.0, [shape.num_elements()].into());
        (Tensor::from_primitive(TensorPrimitive::Float(flat)), shape.to_vec())
    }

    /// A row of elements in this shape.
    pub fn shaped(flat: Tensor<B, 1>, shape: &[usize]) -> Self {
        Self(B::float_reshape(flat.into_primitive().tensor(), shape.to_vec().into()))
    }

    /// To the host, in this shape.
    pub fn into_data(self, shape: &[usize]) -> TensorData {
        let elements: usize = shape.iter().product();
        let flat: Tensor<B, 1> =
            Tensor::from_primitive(TensorPrimitive::Float(B::float_reshape(self.0, [elements].into())));
        let mut data = flat.into_data();
        data.shape = shape.into();
        data
    }
}

/// Elements that the devices add up in one go.
const BUCKET: usize = 1 << 24;

/// Sums of gradients over the batches of a window.
#[derive(Debug)]
pub struct GradientWindow<B: Backend> {
    sums: BTreeMap<String, AnyTensor<B>>,
}

impl<B: Backend> Default for GradientWindow<B> {
    fn default() -> Self {
        Self { sums: BTreeMap::new() }
    }
}

/// Norms of the gradients of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GradientNorms {
    /// Over all of them.
    pub total: f64,
    /// Over those of each part of the model, by the first word of its parameters' names.
    pub groups: BTreeMap<String, f64>,
}

impl<B: Ops> GradientWindow<B> {
    /// Adds the gradients that a backward pass left for the parameters of `model`.
    pub fn add<A, M>(&mut self, model: &M, gradients: A::Gradients)
    where
        A: AutodiffBackend<InnerBackend = B>,
        M: burn::module::Module<A>,
    {
        let mut visitor = Adder::<A> { path: ParameterPath::default(), gradients, window: self };
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

    /// Adds up the gradients of the members of a group, on each of them. A parameter that has a gradient on any has it
    /// on all afterwards; `shapes` are those of the model's parameters.
    ///
    /// # Errors
    /// Another member stopped.
    pub fn sum_over(
        &mut self,
        member: &Member<B>,
        shapes: &BTreeMap<String, Vec<usize>>,
        device: &B::Device,
    ) -> Result<(), GroupError> {
        let own = Message { names: self.sums.keys().cloned().collect(), ..Message::default() };
        let messages = member.all_gather(own)?;
        let names: BTreeSet<&String> = messages.iter().flat_map(|message| &message.names).collect();
        let mut bucket = Bucket::default();
        for name in names {
            let (flat, shape) = match (self.sums.remove(name), shapes.get(name)) {
                (Some(sum), _) => sum.flat(),
                (None, Some(shape)) => (Tensor::zeros([shape.iter().product::<usize>()], device), shape.clone()),
                (None, None) => continue,
            };
            bucket.add(name, flat, shape);
            if bucket.elements >= BUCKET {
                self.sums.extend(std::mem::take(&mut bucket).sum_over(member)?);
            }
        }
        self.sums.extend(bucket.sum_over(member)?);
        Ok(())
    }

    /// The squared norms of the gradients, on the device; `None` if there are no gradients.
    pub fn squares(&self) -> Option<Squares<B>> {
        if self.sums.is_empty() {
            return None;
        }
        let values = B::squared_norms(self.sums.values().map(|sum| sum.clone().flat().0).collect());
        Some(Squares { names: self.sums.keys().cloned().collect(), values })
    }

    /// Multiplies every gradient by a number that is on the device, [1].
    pub fn scale(&mut self, factor: &Tensor<B, 1>) {
        for sum in self.sums.values_mut() {
            let (flat, shape) = sum.clone().flat();
            *sum = AnyTensor::shaped(flat * factor.clone(), &shape);
        }
    }
}

/// Squared norms of gradients, on the device.
#[derive(Clone, Debug)]
pub struct Squares<B: Backend> {
    /// Names of the parameters, in order.
    names: Vec<String>,
    /// [names]
    pub values: Tensor<B, 1>,
}

impl<B: Ops> Squares<B> {
    /// What the gradients are multiplied by so that the norm over all of them is `limit` at most, [1]: on the device,
    /// in single precision.
    pub fn clipping(&self, limit: f64) -> Tensor<B, 1> {
        (self.values.clone().sum().sqrt().recip() * limit).clamp_max(1.0)
    }

    /// The norms. Waits for the device.
    pub fn norms(self) -> GradientNorms {
        // One transfer from the device; summed in double precision in the order of the names.
        let squares = self.values.into_data().convert::<f64>();
        let squares = squares.as_slice::<f64>().unwrap_or_default();
        let mut groups: BTreeMap<String, f64> = BTreeMap::new();
        for (name, square) in self.names.iter().zip(squares) {
            *groups.entry(name.split('.').next().unwrap_or_default().to_owned()).or_default() += square;
        }
        for square in groups.values_mut() {
            *square = square.sqrt();
        }
        GradientNorms { total: squares.iter().sum::<f64>().sqrt(), groups }
    }
}

/// Gradients that lie one behind the other.
struct Bucket<B: Backend> {
    flats: Vec<Tensor<B, 1>>,
    places: Vec<(String, Vec<usize>)>,
    elements: usize,
}

impl<B: Backend> Default for Bucket<B> {
    fn default() -> Self {
        Self { flats: Vec::new(), places: Vec::new(), elements: 0 }
    }
}

impl<B: Ops> Bucket<B> {
    fn add(&mut self, name: &str, flat: Tensor<B, 1>, shape: Vec<usize>) {
        self.elements += flat.dims()[0];
        self.flats.push(flat);
        self.places.push((name.to_owned(), shape));
    }

    fn sum_over(self, member: &Member<B>) -> Result<Vec<(String, AnyTensor<B>)>, GroupError> {
        if self.flats.is_empty() {
            return Ok(Vec::new());
        }
        let sum = member.all_reduce(Tensor::cat(self.flats, 0))?;
        let mut start = 0;
        let cut = |(name, shape): (String, Vec<usize>)| {
            let elements = shape.iter().product();
            let flat = sum.clone().narrow(0, start, elements);
            start += elements;
            (name, AnyTensor::shaped(flat, &shape))
        };
        Ok(self.places.into_iter().map(cut).collect())
    }
}

struct Adder<'a, A: AutodiffBackend> {
    path: ParameterPath,
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
        self.window.sums.insert(name, AnyTensor::new(sum));
    }
}
