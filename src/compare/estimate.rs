//! How long a run may take of which there is no other to go by: from the arithmetic that it asks for and how fast the
//! device multiplies matrices. It is rough (a factor of two is nothing unusual), and tells minutes from days before a
//! plan is begun.

use burn::backend::{Autodiff, Flex, flex::FlexDevice};

use crate::{
    checkpoint::parameters,
    config::{Config, DataSource},
    data::dataset::Dataset,
    demo::DemoCorpus,
    encoder::{SpeechEncoderConfig, speech},
    model::{Model, ModelConfig},
    train::setup,
};

/// Of the rate of large products, what steps of the published sizes reach (`benches/RESULTS.md`).
const SHARE: f64 = 0.6;
/// Seconds of a step beside its arithmetic, which are most of it where the model is tiny.
const STEP: f64 = 0.008;
/// The same of an epoch: checkpoints and logs.
const EPOCH: f64 = 0.1;
/// Positions of the fused sequence, over which the layers behind the encoders run.
const SLOTS: f64 = 8.0;

/// What a run asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Floating-point operations, a multiplication and an addition being two.
    pub operations: f64,
    /// Batches that are trained on or scored.
    pub batches: f64,
    /// Epochs.
    pub epochs: f64,
}

impl Workload {
    /// Of a whole run; `made_up` is the corpus that stands for the one that is made before it.
    ///
    /// # Errors
    /// What a run of this config would fail with at its beginning.
    pub fn of(config: &Config, made_up: Option<&DemoCorpus>) -> anyhow::Result<Self> {
        let mut config = config.clone();
        if let Some(DemoCorpus { train, dev, .. }) = made_up {
            config.data.source = DataSource::Manifests { train: train.clone(), dev: Some(dev.clone()), test: None };
        }
        let material = setup::prepare(&config)?;
        let (config, costs) = (&material.config, Costs::of(&material.model, &material.config));
        let epochs = number(config.train.epochs);
        let batches = |dataset: &Dataset| number(dataset.len().div_ceil(config.train.batch_size));
        let mut work = Self {
            operations: epochs * costs.over(&material.train, true)?,
            batches: epochs * batches(&material.train),
            epochs,
        };
        if let Some(dev) = &material.dev {
            work.operations += epochs * costs.over(dev, false)?;
            work.batches += epochs * batches(dev);
        }
        Ok(work)
    }

    /// Seconds on a device that multiplies large matrices with this many operations a second.
    pub fn seconds(self, matrix_rate: f64) -> f64 {
        self.operations / (SHARE * matrix_rate) + STEP * self.batches + EPOCH * self.epochs
    }
}

/// Operations of a forward pass, and how often a step of training does as many.
struct Costs<'a> {
    /// Each part: what it takes for a position of its sequence, and what training takes of that.
    text: (f64, f64),
    speech: (f64, f64),
    features: f64,
    rest: f64,
    encoder: Option<&'a SpeechEncoderConfig>,
}

impl<'a> Costs<'a> {
    fn of(model: &'a ModelConfig, config: &Config) -> Self {
        let empty = Model::<Flex>::empty(model, &FlexDevice);
        let whole: Model<Autodiff<Flex>> = setup::freeze(parameters::trainable(empty), config, true);
        let (shapes, trained) = (parameters::shapes(&whole), parameters::trained(&whole));
        let products = |is_wanted: &dyn Fn(&str) -> bool| -> (f64, f64) {
            let wanted = shapes.iter().filter(|(name, shape)| shape.len() > 1 && is_wanted(name));
            wanted.fold((0.0, 0.0), |(all, training), (name, shape)| {
                let operations = 2.0 * number(shape.iter().product());
                // The backward of a product is two more.
                (all + operations, training + operations * if trained.contains_key(name) { 3.0 } else { 1.0 })
            })
        };
        let is_text = |name: &str| name.starts_with("text_encoder.");
        let is_speech = |name: &str| name.starts_with("speech_encoder.");
        let fronts = model.speech_encoder.as_ref().map_or(&[][..], |encoder| encoder.names().feature_encoder);
        let is_front = |name: &str| {
            name.strip_prefix("speech_encoder.").is_some_and(|own| fronts.iter().any(|front| own.starts_with(front)))
        };
        Self {
            text: products(&|name| is_text(name) && !name.contains("embeddings.")),
            speech: products(&|name| is_speech(name) && !is_front(name) && !speech::is_fixed(name)),
            features: if trained.keys().any(|name| is_front(name)) { 3.0 } else { 1.0 },
            rest: 3.0 * products(&|name| !is_text(name) && !is_speech(name)).0,
            encoder: model.speech_encoder.as_ref(),
        }
    }

    /// Of a whole data set.
    fn over(&self, dataset: &Dataset, is_training: bool) -> anyhow::Result<f64> {
        let pick = |(forward, training): (f64, f64)| if is_training { training } else { forward };
        let tokens: f64 = dataset.token_lengths().into_iter().map(number).sum();
        let mut operations = pick(self.text) * tokens + SLOTS * self.rest * number(dataset.len());
        if let Some(encoder) = self.encoder {
            let passes = if is_training { self.features } else { 1.0 };
            for samples in dataset.lengths()? {
                operations += pick(self.speech) * number(encoder.frames(samples));
                operations += passes * encoder.feature_operations(samples);
            }
        }
        Ok(operations)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of 10^12 operations at 10^10 a second, 0.6 of which is reached, with a hundred batches in two epochs.
    #[test]
    fn seconds_are_those_of_the_arithmetic_and_of_the_steps() {
        let work = Workload { operations: 1e12, batches: 100.0, epochs: 2.0 };
        assert!((work.seconds(1e10) - (1e12 / 6e9 + 0.8 + 0.2)).abs() < 1e-9);
    }
}
