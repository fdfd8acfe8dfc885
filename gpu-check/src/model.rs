//! Some steps of training of a whole tiny model, with dropout: its losses, the norms of its gradients and what it says
//! afterwards.

use burn::{backend::Autodiff, module::AutodiffModule};
use clasp::{
    checkpoint::parameters::trainable,
    config::{Architecture, FusionKind, FusionVectors, LossConfig, Method, SpeechPooling, TextPooling},
    encoder::{Inputs, RobertaConfig, Wav2Vec2Config},
    loss::Targets,
    method::{ClaspOptions, HeadOptions},
    model::{Model, ModelConfig},
    nn::Init,
    ops::{Lengths, Mode, Ops, StepRandom},
    random::Random,
    train::{
        gradients::GradientWindow,
        optimizer::{Optimizer, OptimizerConfig},
    },
};

use crate::Outcome;

const LABELS: usize = 4;
const STEPS: u64 = 4;

fn config(is_stable: bool) -> ModelConfig {
    let text_encoder = RobertaConfig {
        vocab_size: 40,
        hidden_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 96,
        max_position_embeddings: 40,
        ..RobertaConfig::default()
    };
    let speech_encoder = Wav2Vec2Config {
        hidden_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 96,
        conv_dim: vec![32; 7],
        num_conv_pos_embeddings: 16,
        num_conv_pos_embedding_groups: 4,
        do_stable_layer_norm: is_stable,
        feat_extract_norm: if is_stable { "layer" } else { "group" }.to_owned(),
        conv_bias: is_stable,
        layerdrop: 0.0,
        mask_time_prob: 0.0,
        ..Wav2Vec2Config::default()
    };
    ModelConfig {
        method: Method::Clasp,
        labels: (0..LABELS).map(|label| format!("label{label}")).collect(),
        architecture: Architecture {
            hidden_size: 48,
            text_pooling: TextPooling::Cls,
            speech_pooling: SpeechPooling::Mean,
            classifier_dropout: 0.1,
            options: HeadOptions::Clasp(ClaspOptions {
                kind: FusionKind::MultiHead,
                vectors: FusionVectors::All,
                split_heads: 4,
                hidden_size: 48,
                layers: 2,
                attention_heads: 4,
                feed_forward: 64,
                dropout: 0.1,
                slot_embeddings: false,
            }),
        },
        text_encoder: Some(text_encoder),
        speech_encoder: Some(speech_encoder),
    }
}

/// Three utterances of several lengths, the longest ones of a multiple of 32 positions: GPUs pad to that, and the places of
/// dropout follow the padded lengths.
fn inputs() -> Inputs {
    let (tokens, samples) = ([32, 4, 6], [10320, 4100, 5200]);
    let mut random = Random::new(5);
    let (mut all_tokens, mut waveforms) = (Vec::new(), Vec::new());
    for (tokens, samples) in tokens.into_iter().zip(samples) {
        let mut row: Vec<i64> = (0..tokens).map(|_| 4 + random.below(36) as i64).collect();
        row.resize(32, 1);
        all_tokens.extend(row);
        let mut waveform: Vec<f32> = (0..samples).map(|_| random.normal() as f32).collect();
        waveform.resize(10320, 0.0);
        waveforms.extend(waveform);
    }
    Inputs {
        tokens: all_tokens,
        text_lengths: Lengths::new(tokens.to_vec(), 32),
        waveforms,
        speech_lengths: Lengths::new(samples.to_vec(), 10320),
        features: None,
    }
}

/// What training on a backend comes to.
pub fn training<B: Ops>(is_stable: bool, device: &B::Device) -> Outcome {
    let config = config(is_stable);
    let model = Model::<B>::new(&config, &mut Init::fresh(0, device));
    let mut model = trainable::<Autodiff<B>, Model<Autodiff<B>>>(model);
    let mut optimizer = Optimizer::new(OptimizerConfig {
        decoupled: false,
        weight_decay: 0.0,
        learning_rate: 1e-3,
        encoder_learning_rate: 1e-3,
        layer_decay: 1.0,
        text_layers: 2,
        speech_layers: 2,
        speech_norm_is_last: false,
    });
    let (inputs, targets) = (inputs(), Targets::new(&[0, 3, 1], LABELS, &[], 0.0));
    let (mut totals, mut norms) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        let random = StepRandom::new(0, step);
        let output = model.forward(&inputs, Mode::training(&random), device);
        let total = output.losses(None, &targets, &LossConfig::default()).total;
        totals.extend(total.clone().into_data().to_vec::<f32>().unwrap_or_default());
        let mut window = GradientWindow::default();
        window.add::<Autodiff<B>, _>(&model, total.backward());
        let squares = window.squares().map(|squares| squares.norms());
        norms.extend(squares.map(|norms| norms.total as f32));
        model = optimizer.step(model, &mut window, 1.0, 1.0);
    }
    let output = model.valid().forward(&inputs, Mode::evaluation(), device);
    let logits = output.logits().main.into_data().to_vec().unwrap_or_default();
    let named = [("losses", totals), ("norms of the gradients", norms), ("logits", logits)];
    named.into_iter().map(|(name, values)| (name.to_owned(), values)).collect()
}
