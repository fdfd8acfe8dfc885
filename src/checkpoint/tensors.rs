//! Writing tensor files.

use std::{borrow::Cow, collections::HashMap, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, Tensor, TensorData, backend::Backend},
};
use safetensors::{Dtype, SafeTensorError, View, serialize_to_file};

use super::{CheckpointError, parameters};

/// A tensor that is brought to the host when it is written, and no longer held there than that.
pub struct LazyTensor<'a> {
    shape: Vec<usize>,
    read: Box<dyn Fn() -> TensorData + 'a>,
}

impl<'a> LazyTensor<'a> {
    /// A tensor of this shape that `read` brings.
    pub fn new(shape: Vec<usize>, read: impl Fn() -> TensorData + 'a) -> Self {
        Self { shape, read: Box::new(read) }
    }
}

impl View for &LazyTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = (self.read)();
        let data = if data.dtype == DType::F32 { data } else { data.convert::<f32>() };
        Cow::Owned(data.as_bytes().to_vec())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

struct Collect<'a> {
    path: parameters::ParameterPath,
    found: Vec<(String, LazyTensor<'a>)>,
}

impl<B: Backend> ModuleVisitor<B> for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        let tensor = parameter.val();
        let shape = tensor.dims().to_vec();
        self.found.push((self.path.name(), LazyTensor::new(shape, move || tensor.clone().into_data())));
    }
}

/// Writes every parameter of a module under its checkpoint name, in f32.
///
/// # Errors
/// The file cannot be written.
pub fn save_module<B: Backend, M: Module<B>>(module: &M, path: &Path) -> Result<(), CheckpointError> {
    let mut visitor = Collect { path: parameters::ParameterPath::default(), found: Vec::new() };
    module.visit(&mut visitor);
    write_tensors(&visitor.found, &[], path)
}

/// Writes named tensors in f32, one after another, with metadata; `format = "pt"` where there is none.
///
/// # Errors
/// The file cannot be written.
pub fn write_tensors(
    tensors: &[(String, LazyTensor<'_>)],
    metadata: &[(&str, String)],
    path: &Path,
) -> Result<(), CheckpointError> {
    let mut metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    if metadata.is_empty() {
        // Only where it is alone: a map of two has no order, and a file's bytes would change from run to run.
        metadata.insert("format".into(), "pt".into());
    }
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    serialize_to_file(views, Some(metadata), path).map_err(|problem| {
        let cause = match problem {
            SafeTensorError::IoError(cause) => cause,
            other => std::io::Error::other(other),
        };
        CheckpointError::Write { path: path.into(), cause }
    })
}
