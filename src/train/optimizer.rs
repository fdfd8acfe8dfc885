//! Adam and `AdamW` as `PyTorch` has them, with a rate of its own for each group of parameters and a state that is
//! keyed by checkpoint names.

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData, backend::AutodiffBackend},
};

use super::gradients::{AnyTensor, GradientWindow};
use crate::{
    checkpoint::{CheckpointError, LazyTensor, parameters, source::TensorSource, write_tensors},
    ops::{AdamState, AdamStep, Ops},
};

/// Decays of the moments and the constant in the denominator: `torch.optim.Adam`'s defaults.
const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// What an update depends on beside the schedule.
#[derive(Clone, Debug)]
pub struct OptimizerConfig {
    /// Decoupled weight decay (`adamw`) instead of an L2 penalty (`adam`).
    pub decoupled: bool,
    /// Weight decay of matrices; biases, norms and other vectors have none.
    pub weight_decay: f64,
    /// Rate of the new layers.
    pub learning_rate: f64,
    /// Rate of the two encoders.
    pub encoder_learning_rate: f64,
    /// Factor on the rate for every layer further down in an encoder; 1 for none.
    pub layer_decay: f64,
    /// Layers of the text encoder.
    pub text_layers: usize,
    /// Layers of the speech encoder.
    pub speech_layers: usize,
    /// Whether the speech encoder's own norm lies behind its layers (pre-norm), and not in front of them.
    pub speech_norm_is_last: bool,
}

impl OptimizerConfig {
    /// The base rate of a parameter, before the schedule.
    ///
    /// The highest layer of an encoder has `encoder_learning_rate`, every layer below `layer_decay` times the one
    /// above it, and what lies in front of the layers `layer_decay` times the lowest.
    pub fn rate(&self, name: &str) -> f64 {
        let norms = ["speech_encoder.encoder.layer_norm.", "speech_encoder.layer_norm."];
        if self.speech_norm_is_last && norms.iter().any(|norm| name.starts_with(norm)) {
            return self.encoder_learning_rate;
        }
        let (rest, layers) = if let Some(rest) = name.strip_prefix("text_encoder.") {
            (rest, self.text_layers)
        } else if let Some(rest) = name.strip_prefix("speech_encoder.") {
            (rest, self.speech_layers)
        } else {
            return self.learning_rate;
        };
        let layer = rest
            .strip_prefix("encoder.layer.")
            .or_else(|| rest.strip_prefix("encoder.layers."))
            .or_else(|| rest.strip_prefix("layers."))
            .and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let below = layer.map_or(layers, |layer| layers.saturating_sub(layer + 1));
        self.encoder_learning_rate * self.layer_decay.powi(i32::try_from(below).unwrap_or(i32::MAX))
    }

    fn decay(&self, name: &str, shape: &[usize]) -> f64 {
        let is_vector = shape.iter().filter(|&&size| size > 1).count() < 2;
        if is_vector || name.rsplit('.').next() == Some("bias") { 0.0 } else { self.weight_decay }
    }
}

#[derive(Clone, Debug)]
struct Moments<A: AutodiffBackend> {
    first: AnyTensor<A::InnerBackend>,
    second: AnyTensor<A::InnerBackend>,
    shape: Vec<usize>,
    /// Updates of this parameter: those steps in which it had a gradient.
    steps: usize,
}

/// The optimiser with its state.
#[derive(Debug)]
pub struct Optimizer<A: AutodiffBackend> {
    config: OptimizerConfig,
    moments: BTreeMap<String, Moments<A>>,
}

impl<A> Optimizer<A>
where
    A: AutodiffBackend,
    A::InnerBackend: Ops,
{
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, moments: BTreeMap::new() }
    }

    /// One update. `schedule` multiplies every rate, `gradient_scale` every gradient. Parameters without a gradient
    /// are left alone.
    pub fn step<M: Module<A>>(
        &mut self,
        model: M,
        gradients: &mut GradientWindow<A::InnerBackend>,
        schedule: f64,
        gradient_scale: f64,
    ) -> M {
        let mut update =
            Update { path: parameters::ParameterPath::default(), optimizer: self, gradients, schedule, gradient_scale };
        model.map(&mut update)
    }

    /// Writes the moments as `<name>.exp_avg` and `<name>.exp_avg_sq`, and the number of updates of each parameter in
    /// the metadata.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let mut tensors = Vec::with_capacity(2 * self.moments.len());
        let mut steps = BTreeMap::new();
        for (name, moments) in &self.moments {
            steps.insert(name.as_str(), moments.steps);
            for (kind, tensor) in [("exp_avg", &moments.first), ("exp_avg_sq", &moments.second)] {
                let read = move || tensor.clone().into_data(&moments.shape);
                tensors.push((format!("{name}.{kind}"), LazyTensor::new(moments.shape.clone(), read)));
            }
        }
        write_tensors(&tensors, &[("steps", serde_json::json!(steps).to_string())], path)
    }

    /// Restores what [`Optimizer::save`] wrote.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn load(&mut self, path: &Path, device: &A::Device) -> Result<(), CheckpointError> {
        let source = TensorSource::open_file(path)?;
        let damaged = |problem: String| CheckpointError::Damaged { path: path.into(), problem };
        let steps = source.metadata("steps").ok_or_else(|| damaged("it has no step counts".into()))?;
        let steps: BTreeMap<String, usize> =
            serde_json::from_str(steps).map_err(|problem| damaged(format!("its step counts: {problem}")))?;
        let names = steps.keys().flat_map(|name| ["exp_avg", "exp_avg_sq"].map(|kind| format!("{name}.{kind}")));
        let mut tensors = source.read(names)?;
        for (name, steps) in steps {
            let mut read = |kind: &str| -> Result<TensorData, CheckpointError> {
                let name = format!("{name}.{kind}");
                tensors.remove(&name).ok_or_else(|| damaged(format!("{name} is missing")))
            };
            let (first, second) = (read("exp_avg")?, read("exp_avg_sq")?);
            let moments = Moments {
                shape: first.shape.to_vec(),
                first: AnyTensor::from_data(first, device),
                second: AnyTensor::from_data(second, device),
                steps,
            };
            self.moments.insert(name, moments);
        }
        Ok(())
    }
}

struct Update<'a, A: AutodiffBackend> {
    path: parameters::ParameterPath,
    optimizer: &'a mut Optimizer<A>,
    gradients: &'a mut GradientWindow<A::InnerBackend>,
    schedule: f64,
    gradient_scale: f64,
}

impl<A> ModuleMapper<A> for Update<'_, A>
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

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        let name = self.path.name();
        let Some(gradient) = self.gradients.take(&name) else { return parameter };
        let (id, tensor, mapper) = parameter.consume();
        let is_tracked = tensor.is_require_grad();
        let shape = tensor.dims();
        let weight = tensor.inner();
        let (first, second, steps) = match self.optimizer.moments.remove(&name) {
            Some(moments) => (moments.first.into_tensor(), moments.second.into_tensor(), moments.steps),
            None => (weight.zeros_like(), weight.zeros_like(), 0),
        };
        let config = &self.optimizer.config;
        let step = AdamStep {
            learning_rate: config.rate(&name) * self.schedule,
            beta1: BETA1,
            beta2: BETA2,
            epsilon: EPSILON,
            weight_decay: config.decay(&name, &shape),
            decoupled: config.decoupled,
            gradient_scale: self.gradient_scale,
            step: steps + 1,
        };
        let state = AdamState { weight, first, second };
        let state = <A::InnerBackend as Ops>::adam(state, gradient.into_tensor(), &step);
        let moments = Moments {
            first: AnyTensor::new(state.first),
            second: AnyTensor::new(state.second),
            shape: shape.to_vec(),
            steps: steps + 1,
        };
        self.optimizer.moments.insert(name, moments);
        let tensor = Tensor::from_inner(state.weight);
        let tensor = if is_tracked { tensor.require_grad() } else { tensor };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> OptimizerConfig {
        OptimizerConfig {
            decoupled: true,
            weight_decay: 0.01,
            learning_rate: 1e-3,
            encoder_learning_rate: 1e-5,
            layer_decay: 0.5,
            text_layers: 12,
            speech_layers: 3,
            speech_norm_is_last: false,
        }
    }

    /// The highest layer has the encoder's rate; each one below, and what lies in front of them all, half of it.
    #[test]
    fn rates_fall_towards_the_input_of_an_encoder() {
        for (name, expected) in [
            ("fusion.layers.0.linear1.weight", 1e-3),
            ("classifier.text.bias", 1e-3),
            ("adapter.speech.weight", 1e-3),
            ("text_encoder.encoder.layer.11.output.dense.weight", 1e-5),
            ("text_encoder.encoder.layer.10.output.dense.weight", 5e-6),
            ("text_encoder.encoder.layer.1.output.dense.weight", 1e-5 / 1024.0),
            ("text_encoder.encoder.layer.0.output.dense.bias", 1e-5 / 2048.0),
            ("text_encoder.embeddings.word_embeddings.weight", 1e-5 / 4096.0),
            ("speech_encoder.encoder.layers.2.attention.q_proj.weight", 1e-5),
            ("speech_encoder.encoder.layers.0.attention.q_proj.weight", 2.5e-6),
            ("speech_encoder.encoder.pos_conv_embed.conv.bias", 1.25e-6),
            ("speech_encoder.feature_extractor.conv_layers.0.conv.weight", 1.25e-6),
            ("speech_encoder.masked_spec_embed", 1.25e-6),
        ] {
            let found = config().rate(name);
            assert!((found - expected).abs() < 1e-12 * expected, "{name}: {found} should be {expected}");
        }
    }

    #[test]
    fn without_layer_decay_an_encoder_has_one_rate() {
        let config = OptimizerConfig { layer_decay: 1.0, ..config() };
        for name in ["text_encoder.embeddings.word_embeddings.weight", "speech_encoder.encoder.layers.0.fc.weight"] {
            assert!((config.rate(name) - 1e-5).abs() < 1e-18);
        }
    }

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        for (name, shape, decays) in [
            ("classifier.text.weight", &[4, 768][..], true),
            ("text_encoder.embeddings.word_embeddings.weight", &[50_265, 768], true),
            ("speech_encoder.feature_extractor.conv_layers.1.conv.weight", &[512, 512, 3], true),
            ("fusion.slot_embedding", &[72, 768], true),
            ("classifier.text.bias", &[4], false),
            ("text_encoder.embeddings.LayerNorm.weight", &[768], false),
            ("speech_encoder.encoder.layers.0.final_layer_norm.weight", &[1024], false),
            ("fusion.layers.0.norm1.bias", &[768], false),
            ("speech_encoder.masked_spec_embed", &[768], false),
            // The lengths of the positional convolution's weight norm.
            ("speech_encoder.encoder.pos_conv_embed.conv.parametrizations.weight.original0", &[1, 1, 128], false),
        ] {
            assert_eq!(config().decay(name, shape) > 0.0, decays, "{name}");
        }
    }
}
