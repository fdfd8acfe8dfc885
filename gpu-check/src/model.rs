//! Some training steps of the tiny model, with dropout, as `clasp train` takes them: its losses, the norms of its
//! gradients and what it says afterwards.

use burn::{backend::Autodiff, module::AutodiffModule};
use clasp::{
    checkpoint::parameters::trainable,
    config::{LossConfig, Precision},
    data::batch::Batch,
    inference::pass::inputs,
    model::{Model, ModelConfig},
    nn::Init,
    ops::{Mode, TrainOps},
    random::Random,
    train::{
        optimizer::{Optimizer, OptimizerConfig},
        replica::{Objective, Replica, StepPlan},
    },
};

use crate::Outcome;

const STEPS: u64 = 4;

/// Three utterances of several lengths, the longest ones of a multiple of 32 positions: GPUs pad to that, and the places of
/// dropout follow the padded lengths.
fn batch() -> Batch {
    let (token_lengths, sample_lengths) = (vec![32, 4, 6], vec![10320, 4100, 5200]);
    let mut random = Random::new(5);
    let (mut tokens, mut waveforms) = (Vec::new(), Vec::new());
    for (&length, &samples) in token_lengths.iter().zip(&sample_lengths) {
        let mut row: Vec<i64> = (0..length).map(|_| 4 + random.below(508) as i64).collect();
        row.resize(32, 1);
        tokens.extend(row);
        let mut waveform: Vec<f32> = (0..samples).map(|_| random.normal() as f32).collect();
        waveform.resize(10320, 0.0);
        waveforms.extend(waveform);
    }
    let ids = ["a", "b", "c"].map(String::from).to_vec();
    let labels = [0, 3, 1].map(Some).to_vec();
    Batch { ids, tokens, token_lengths, waveforms, sample_lengths, labels, ..Batch::default() }
}

/// What training on a backend comes to.
pub fn training<B: TrainOps>(has_layer_norms: bool, device: &B::Device) -> Outcome {
    let config = ModelConfig::tiny(has_layer_norms);
    let model = Model::<B>::new(&config, &mut Init::fresh(0, device));
    let optimizer = Optimizer::new(OptimizerConfig {
        decoupled: false,
        weight_decay: 0.0,
        learning_rate: 1e-3,
        encoder_learning_rate: 1e-3,
        layer_decay: 1.0,
        text_layers: 2,
        speech_layers: 2,
        speech_norm_is_last: false,
    });
    let objective = Objective {
        loss: LossConfig::default(),
        labels: config.labels.len(),
        label_weights: Vec::new(),
        gather_negatives: false,
        hidden_size: config.contrasted_size(),
        clip_norm: None,
        precision: Precision::F32,
    };
    let model = trainable::<Autodiff<B>, Model<Autodiff<B>>>(model);
    let mut replica = Replica::new(model, optimizer, objective, device);
    let batch = batch();
    let (mut totals, mut norms) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        let parts = replica.objective().parts(std::slice::from_ref(&batch), 1, |_| Some((0, step)));
        let plan = StepPlan { parts: parts.into_iter().flatten().collect(), schedule: 1.0 };
        // As on a device that is not waited for.
        let result = replica.step_ahead(&plan).expect("it trains alone").read();
        totals.extend(result.losses.0.first().map(|&(_, total)| total as f32));
        norms.push(result.norms.total as f32);
    }
    let output = replica.model().valid().forward(&inputs(&batch), Mode::evaluation(), device);
    let logits = output.logits().main.into_data().to_vec().unwrap_or_default();
    let named = [("losses", totals), ("norms of the gradients", norms), ("logits", logits)];
    named.into_iter().map(|(name, values)| (name.to_owned(), values)).collect()
}
