//! What the tests of the methods share: the fixtures that `scripts/baselines_torch.py export` writes, and inputs that
//! break careless formulas.

use std::{collections::BTreeMap, path::PathBuf};

use burn::{
    backend::{Autodiff, Flex, flex::FlexDevice},
    module::AutodiffModule,
    tensor::{Tensor, TensorData},
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::{Encoded, HeadMethod, ModelSizes, Options, Output, Sequence, Sizes};
use crate::{
    checkpoint::parameters,
    loss::{LossConfig, Targets},
    nn::Init,
    ops::{Lengths, Mode},
    train::gradients::GradientWindow,
};

/// The backend of the tests.
pub(super) type Train = Autodiff<Flex>;

/// Single precision over some ten layers against double precision.
const VALUE_TOLERANCE: f64 = 1e-4;
const GRADIENT_TOLERANCE: f64 = 1e-3;

/// A tensor of a file: reals, or whole numbers as reals.
#[derive(Clone, Debug)]
struct Stored {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// A method's parameters and inputs with what `PyTorch` makes of them.
#[derive(Debug)]
pub(super) struct Fixture {
    config: Value,
    parameters: BTreeMap<String, Stored>,
    expected: BTreeMap<String, Stored>,
    /// The inputs that have gradients.
    leaves: BTreeMap<&'static str, Tensor<Train, 2>>,
}

#[expect(clippy::cast_precision_loss, reason = "lengths and labels are small")]
fn read_file(path: &std::path::Path) -> BTreeMap<String, Stored> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stored = |view: &safetensors::tensor::TensorView<'_>| {
        let values = match view.dtype() {
            Dtype::F32 => {
                view.data().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
            }
            Dtype::I64 => {
                view.data().chunks_exact(8).map(|eight| i64::from_le_bytes(eight.try_into().unwrap()) as f32).collect()
            }
            other => panic!("{other:?}"),
        };
        Stored { shape: view.shape().to_vec(), values }
    };
    file.iter().map(|(name, view)| (name.to_owned(), stored(&view))).collect()
}

impl Fixture {
    pub(super) fn read(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/methods").join(name);
        let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        let expected = read_file(&folder.join("expected.safetensors"));
        let leaves = ["text", "speech", "text_states", "speech_states"].into_iter().filter_map(|leaf| {
            let Stored { shape, values } = expected.get(&format!("input.{leaf}"))?.clone();
            let width = *shape.last().unwrap();
            let rows = values.len() / width;
            Some((leaf, Tensor::from_data(TensorData::new(values, [rows, width]), &FlexDevice).require_grad()))
        });
        let leaves = leaves.collect();
        Self { config, parameters: read_file(&folder.join("model.safetensors")), expected, leaves }
    }

    fn sizes(&self) -> Sizes {
        let size = |name: &str| usize::try_from(self.config["sizes"][name].as_u64().unwrap()).unwrap();
        Sizes {
            labels: size("labels"),
            hidden: size("hidden"),
            text: size("text"),
            speech: size("speech"),
            classifier_dropout: 0.1,
        }
    }

    /// The name without the method's, under which a checkpoint has what is its own.
    fn own_name<'name>(&self, name: &'name str) -> &'name str {
        let method = self.config["method"].as_str().unwrap();
        name.strip_prefix(method).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
    }

    fn options<M: HeadMethod<Train>>(&self) -> M::Options {
        serde_json::from_value(self.config["options"].clone()).unwrap()
    }

    /// The method with the fixture's parameters, every one of which is there and used.
    pub(super) fn method<M: HeadMethod<Train> + AutodiffModule<Train>>(&self) -> M {
        let method = M::new(&self.options::<M>(), &self.sizes(), &mut Init::empty(&FlexDevice));
        let stored: BTreeMap<&str, &Stored> =
            self.parameters.iter().map(|(name, stored)| (self.own_name(name), stored)).collect();
        let shapes = parameters::shapes(&method);
        let expected: BTreeMap<String, Vec<usize>> =
            stored.iter().map(|(name, stored)| ((*name).to_owned(), stored.shape.clone())).collect();
        assert_eq!(shapes, expected);
        parameters::fill(method, |name| {
            let Stored { shape, values } = stored[name].clone();
            Some(TensorData::new(values, shape))
        })
    }

    fn whole_numbers(&self, name: &str) -> Option<Vec<usize>> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they were whole numbers")]
        self.expected.get(name).map(|stored| stored.values.iter().map(|&value| value as usize).collect())
    }

    fn sequence(&self, modality: &'static str, states: &'static str) -> Option<Sequence<Train>> {
        if let Some(vector) = self.leaves.get(modality) {
            let [batch, _] = vector.dims();
            return Some(Sequence { states: vector.clone(), lengths: Lengths::full(batch, 1), vector: vector.clone() });
        }
        let states = self.leaves.get(states)?.clone();
        let valid = self.whole_numbers(&format!("input.{modality}_lengths")).unwrap();
        let longest = states.dims()[0] / valid.len();
        Some(Sequence { vector: states.clone(), states, lengths: Lengths::new(valid, longest) })
    }

    pub(super) fn encoded(&self) -> Encoded<Train> {
        Encoded {
            text: self.sequence("text", "text_states"),
            speech: self.sequence("speech", "speech_states"),
            inputs: None,
        }
    }
}

/// Every output, loss and gradient of a fixture is what the method gives, and the method gives no other.
pub(super) fn holds<M: HeadMethod<Train> + AutodiffModule<Train>>(name: &str) {
    let fixture = Fixture::read(name);
    let method: M = fixture.method();
    let labels = fixture.whole_numbers("input.labels").unwrap();
    let output = method.forward(&fixture.encoded(), Mode::evaluation());
    let targets = Targets::new(&labels, fixture.sizes().labels, &[], 0.0);
    let terms = output.losses(None, &targets, &LossConfig::default());
    assert_eq!(terms.named.iter().map(|(name, _)| *name).collect::<Vec<_>>(), fixture.options::<M>().terms());
    let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (representation, vector) in output.representations() {
        found.insert(format!("output.{representation}"), values(vector));
    }
    let logits = output.logits();
    found.insert("output.logits".into(), values(logits.main));
    for (modality, logits) in [("text", logits.text), ("speech", logits.speech)] {
        found.extend(logits.map(|logits| (format!("output.logits_{modality}"), values(logits))));
    }
    found.insert("loss.total".into(), values(terms.total.clone()));
    found.extend(terms.named.into_iter().map(|(term, value)| (format!("loss.{term}"), values(value))));
    let mut gradients = terms.total.backward();
    for (leaf, tensor) in &fixture.leaves {
        let gradient = tensor.grad_remove(&mut gradients).unwrap();
        found.insert(format!("grad.input.{leaf}"), gradient.into_data().convert::<f64>().to_vec().unwrap());
    }
    let mut window = GradientWindow::<Flex>::default();
    window.add::<Train, _>(&method, gradients);
    for (parameter, shape) in parameters::shapes(&method) {
        if let Some(gradient) = window.take(&parameter) {
            let gradient = gradient.into_data(&shape).convert::<f64>().to_vec().unwrap();
            found.insert(format!("grad.{parameter}"), gradient);
        }
    }
    let expected = fixture.expected.iter().filter(|(name, _)| !name.starts_with("input."));
    let expected: BTreeMap<String, Vec<f64>> = expected
        .map(|(name, stored)| {
            let name = name.strip_prefix("grad.").map_or(name.clone(), |own| format!("grad.{}", fixture.own_name(own)));
            (name, stored.values.iter().copied().map(f64::from).collect())
        })
        .collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (what, expected_values) in &expected {
        let is_gradient = what.starts_with("grad.");
        // A key's bias moves no softmax: its gradient is zero but for rounding.
        let query = what.replace(".key.bias", ".query.bias").replace(".k_proj.bias", ".q_proj.bias");
        let scale = norm(&expected[&query]).max(norm(expected_values)).max(1e-9);
        let apart: Vec<f64> = found[what].iter().zip(expected_values).map(|(found, wanted)| found - wanted).collect();
        let error = norm(&apart) / scale;
        let tolerance = if is_gradient { GRADIENT_TOLERANCE } else { VALUE_TOLERANCE };
        assert!(error < tolerance, "{name}: {what} is off by {error:e}");
    }
}

/// Identical examples, zeros, large values, and batches of one: every term and gradient is finite. With published
/// options.
pub(super) fn stays_finite<M: HeadMethod<Train> + AutodiffModule<Train>>() {
    stays_finite_with::<M>(&M::Options::published(ModelSizes { hidden: 8, attention_heads: 2, vocabulary: 11 }));
}

/// The same with these options.
pub(super) fn stays_finite_with<M: HeadMethod<Train> + AutodiffModule<Train>>(options: &M::Options) {
    let sizes = Sizes { labels: 3, hidden: 8, text: 8, speech: 8, classifier_dropout: 0.1 };
    options.check(sizes.hidden).unwrap();
    let method = M::new(options, &sizes, &mut Init::fresh(7, &FlexDevice));
    let time = 3;
    for batch in [1, 2, 4] {
        for value in [0.0, 0.7, 1e-15, -1e3] {
            let states = Tensor::<Train, 2>::full([batch * time, 8], value, &FlexDevice).require_grad();
            let vector = Tensor::<Train, 2>::full([batch, 8], value, &FlexDevice).require_grad();
            let lengths = Lengths::new((0..batch).map(|example| 1 + example % time).collect(), time);
            let sequence = Sequence { states: states.clone(), lengths, vector: vector.clone() };
            let encoded = Encoded { text: Some(sequence.clone()), speech: Some(sequence), inputs: None };
            let output = method.forward(&encoded, Mode::evaluation());
            let targets = Targets::new(&[2, 0, 1, 2][..batch], 3, &[], 0.0);
            let terms = output.losses(None, &targets, &LossConfig::default());
            let mut all = vec![("total", values(terms.total.clone()))];
            all.extend(terms.named.into_iter().map(|(name, term)| (name, values(term))));
            let mut gradients = terms.total.backward();
            for leaf in [states, vector] {
                if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                    all.push(("input", gradient.into_data().convert::<f64>().to_vec().unwrap()));
                }
            }
            let mut window = GradientWindow::<Flex>::default();
            window.add::<Train, _>(&method, gradients);
            let mut parameters = 0;
            for (name, shape) in parameters::shapes(&method) {
                if let Some(gradient) = window.take(&name) {
                    parameters += 1;
                    all.push(("parameter", gradient.into_data(&shape).convert::<f64>().to_vec().unwrap()));
                }
            }
            assert!(parameters > 1);
            for (what, values) in all {
                assert!(values.iter().all(|value| value.is_finite()), "{what}, batch {batch}, inputs {value}");
            }
        }
    }
}

/// The elements in row-major order.
pub(super) fn values<const D: usize>(tensor: Tensor<Train, D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().to_vec().unwrap()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Element by element, relative to what is expected or to 1.
pub(super) fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, wanted) in found.iter().zip(expected) {
        assert!((found - wanted).abs() < tolerance * wanted.abs().max(1.0), "{found} should be {wanted}");
    }
}
