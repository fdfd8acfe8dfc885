//! Walking over a model's parameters by their checkpoint names.

use std::collections::BTreeMap;

use burn::{
    module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{
        Tensor, TensorData,
        backend::{AutodiffBackend, Backend},
    },
};

use super::{CheckpointError, names::checkpoint_name, source::TensorSource};
use crate::encoder::speech;

/// Follows the fields of a module and names the parameter at hand.
#[derive(Debug, Default)]
pub struct ParameterPath {
    fields: Vec<String>,
}

impl ParameterPath {
    /// Enters a field.
    pub fn enter(&mut self, field: &str) {
        self.fields.push(field.to_owned());
    }

    /// Leaves the last field.
    pub fn exit(&mut self) {
        self.fields.pop();
    }

    /// The checkpoint name of the parameter here.
    pub fn name(&self) -> String {
        checkpoint_name(&self.fields.join("."))
    }
}

struct Shapes {
    path: ParameterPath,
    /// Leaves out what does not train.
    only_trained: bool,
    found: BTreeMap<String, Vec<usize>>,
}

impl<B: Backend> ModuleVisitor<B> for Shapes {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        if !self.only_trained || parameter.val().is_require_grad() {
            self.found.insert(self.path.name(), parameter.lazy_shape().to_vec());
        }
    }
}

/// Name and shape of every parameter.
pub fn shapes<B: Backend, M: Module<B>>(module: &M) -> BTreeMap<String, Vec<usize>> {
    visited(module, false)
}

/// The same of those that train.
pub fn trained<A: AutodiffBackend, M: Module<A>>(module: &M) -> BTreeMap<String, Vec<usize>> {
    visited(module, true)
}

fn visited<B: Backend, M: Module<B>>(module: &M, only_trained: bool) -> BTreeMap<String, Vec<usize>> {
    let mut visitor = Shapes { path: ParameterPath::default(), only_trained, found: BTreeMap::new() };
    module.visit(&mut visitor);
    visitor.found
}

struct Fill<F> {
    path: ParameterPath,
    read: F,
}

impl<B: Backend, F: FnMut(&str) -> Option<TensorData>> ModuleMapper<B> for Fill<F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match (self.read)(&self.path.name()) {
            Some(data) => {
                let tensor = Tensor::from_data(data, &parameter.lazy_device());
                let id = parameter.id;
                parameter.transform_for_load(tensor, id)
            }
            None => parameter,
        }
    }
}

/// Replaces every parameter for which `read` gives data; its shape must fit.
pub fn fill<B: Backend, M: Module<B>>(module: M, read: impl FnMut(&str) -> Option<TensorData>) -> M {
    module.map(&mut Fill { path: ParameterPath::default(), read })
}

/// Fills a module from a file; `name_of` says how the file calls a parameter, if it holds it.
///
/// # Errors
/// A file that is damaged.
pub fn fill_from<B: Backend, M: Module<B>>(
    module: M,
    source: &TensorSource,
    name_of: impl Fn(&str) -> Option<&str>,
) -> Result<M, CheckpointError> {
    let shapes = shapes(&module);
    let mut tensors = source.read(shapes.keys().filter_map(|name| name_of(name)))?;
    Ok(fill(module, |name| tensors.remove(name_of(name)?)))
}

#[derive(Default)]
struct Track(ParameterPath);

impl<B: Backend> ModuleMapper<B> for Track {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.exit();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if speech::is_fixed(&self.0.name()) {
            return parameter.set_require_grad(false);
        }
        let (id, tensor, mapper) = parameter.consume();
        Param::from_mapped_value(id, tensor.require_grad(), mapper)
    }
}

/// The module with gradients for every parameter that trains.
pub fn trainable<A: AutodiffBackend, M: AutodiffModule<A>>(module: M::InnerModule) -> M {
    M::from_inner(module).map(&mut Track::default())
}
