//! Folders that `scripts/clasp_torch.py export` writes: a checkpoint, inputs and what `PyTorch` makes of them.

use std::{collections::BTreeMap, path::Path};

use burn::{
    backend::{Autodiff, Flex, flex::FlexDevice},
    tensor::TensorData,
};
use clasp::{
    checkpoint,
    config::Precision,
    encoder::Inputs,
    loss::Targets,
    method,
    model::Model,
    ops::{Lengths, Mode},
    train::{
        gradients::GradientWindow,
        optimizer::{Optimizer, OptimizerConfig},
    },
};
use safetensors::{Dtype, SafeTensors};

pub type Cpu = Flex;
pub type Train = Autodiff<Flex>;

/// What the reference was given and what it gave.
pub struct Reference {
    pub inputs: Inputs,
    pub labels: Vec<usize>,
    /// `output.*`, `loss.*` and `grad.*`.
    pub expected: BTreeMap<String, Vec<f32>>,
    pub trajectory: Vec<BTreeMap<String, f64>>,
}

impl Reference {
    pub fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("expected.safetensors")).expect("expected.safetensors");
        let file = SafeTensors::deserialize(&bytes).expect("a tensor file");
        let integers = |name: &str| -> Vec<i64> {
            let view = file.tensor(name).expect(name);
            assert_eq!(view.dtype(), Dtype::I64);
            view.data()
                .chunks_exact(8)
                .map(|bytes| i64::from_le_bytes(bytes.try_into().expect("bytes of one number")))
                .collect()
        };
        let reals = |name: &str| -> Vec<f32> {
            let view = file.tensor(name).expect(name);
            assert_eq!(view.dtype(), Dtype::F32);
            view.data()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("bytes of one number")))
                .collect()
        };
        let labels: Vec<usize> = integers("input.labels").into_iter().map(to_usize).collect();
        let tokens = integers("input.ids");
        let longest_text = tokens.len() / labels.len();
        let text_lengths: Vec<usize> = integers("input.mask")
            .chunks(longest_text)
            .map(|row| row.iter().filter(|&&is_real| is_real == 1).count())
            .collect();
        let waveforms = reals("input.wav");
        let samples: Vec<usize> = integers("input.lengths").into_iter().map(to_usize).collect();
        let longest_speech = waveforms.len() / labels.len();
        let expected = file
            .names()
            .into_iter()
            .filter(|name| !name.starts_with("input."))
            .map(|name| (name.to_owned(), reals(name)))
            .collect();
        let trajectory = std::fs::read_to_string(folder.join("trajectory.jsonl"))
            .map(|text| text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect())
            .unwrap_or_default();
        let inputs = Inputs {
            tokens,
            text_lengths: Lengths::new(text_lengths, longest_text),
            waveforms,
            speech_lengths: Lengths::new(samples, longest_speech),
            features: None,
        };
        Self { inputs, labels, expected, trajectory }
    }

    /// Every output, loss and gradient that the checkpoint in `folder` gives in a number format.
    pub fn compute(&self, folder: &Path, precision: Precision) -> BTreeMap<String, Vec<f32>> {
        let device = FlexDevice;
        let loaded = checkpoint::load::<Cpu>(folder, &device).expect("the checkpoint loads");
        let model = checkpoint::parameters::trainable::<Train, Model<Train>>(loaded.model);
        let output = model.forward(&self.inputs, Mode::evaluation().with_precision(precision), &device);
        let config = &loaded.config;
        let targets = Targets::new(&self.labels, config.labels.len(), &[], config.loss.label_smoothing);
        let terms = output.losses(None, &targets, &config.loss);
        let mut found: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for (name, tensor) in method::tensors(&*output) {
            found.insert(format!("output.{name}"), values(tensor.into_data()));
        }
        let total = terms.total.clone();
        for (name, tensor) in std::iter::once(("total", terms.total)).chain(terms.named) {
            found.insert(format!("loss.{name}"), values(tensor.into_data()));
        }
        let mut window = GradientWindow::<Cpu>::default();
        window.add::<Train, _>(&model, total.backward());
        for (name, shape) in checkpoint::parameters::shapes(&model) {
            if let Some(gradient) = window.take(&name) {
                found.insert(format!("grad.{name}"), values(gradient.into_data(&shape)));
            }
        }
        let missing: Vec<&String> = self.expected.keys().filter(|name| !found.contains_key(*name)).collect();
        assert!(missing.is_empty(), "not computed: {missing:?}");
        found
    }

    /// The relative error of every output, loss and gradient of the checkpoint in `folder`.
    pub fn errors(&self, folder: &Path, precision: Precision) -> BTreeMap<String, f64> {
        let found = self.compute(folder, precision);
        self.expected
            .iter()
            .map(|(name, expected)| {
                // A key's bias moves no softmax: its gradient is zero but for rounding, and is held against the
                // gradient of the query's bias.
                let query = name.replace(".key.bias", ".query.bias").replace(".k_proj.bias", ".q_proj.bias");
                let floor = if query == *name { 1e-12 } else { norm(&self.expected[&query]) };
                (name.clone(), relative_error(&found[name], expected, floor))
            })
            .collect()
    }

    /// The losses of as many full-batch Adam steps as the reference took, at its learning rate.
    pub fn train(&self, folder: &Path, learning_rate: f64) -> Vec<BTreeMap<String, f64>> {
        let device = FlexDevice;
        let loaded = checkpoint::load::<Cpu>(folder, &device).expect("the checkpoint loads");
        let mut model = checkpoint::parameters::trainable::<Train, Model<Train>>(loaded.model);
        let mut optimizer = Optimizer::<Train>::new(OptimizerConfig {
            decoupled: false,
            weight_decay: 0.0,
            learning_rate,
            encoder_learning_rate: learning_rate,
            layer_decay: 1.0,
            text_layers: 0,
            speech_layers: 0,
            speech_norm_is_last: false,
        });
        let targets = Targets::new(&self.labels, loaded.config.labels.len(), &[], loaded.config.loss.label_smoothing);
        let mut steps = Vec::new();
        for _ in &self.trajectory {
            let output = model.forward(&self.inputs, Mode::evaluation(), &device);
            let terms = output.losses(None, &targets, &loaded.config.loss);
            drop(output);
            let total = terms.total.clone();
            let named = std::iter::once(("total", terms.total)).chain(terms.named);
            let named = named.map(|(name, tensor)| (name.to_owned(), f64::from(values(tensor.into_data())[0])));
            steps.push(named.collect());
            let mut window = GradientWindow::<Cpu>::default();
            window.add::<Train, _>(&model, total.backward());
            model = optimizer.step(model, &mut window, 1.0, 1.0);
        }
        steps
    }
}

pub fn values(data: TensorData) -> Vec<f32> {
    data.convert::<f32>().to_vec().expect("numbers")
}

pub fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Norm of the difference over the norm of what is expected, the latter at least `floor`.
pub fn relative_error(found: &[f32], expected: &[f32], floor: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let difference: Vec<f32> = found.iter().zip(expected).map(|(found, expected)| found - expected).collect();
    norm(&difference) / norm(expected).max(floor)
}

fn to_usize(value: i64) -> usize {
    usize::try_from(value).expect("not negative")
}
