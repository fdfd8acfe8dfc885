use std::collections::BTreeSet;

use burn::{
    backend::Autodiff,
    module::{ModuleVisitor, Param},
    tensor::Tensor,
};

use super::*;
use crate::{
    config::{
        self, Architecture, Fusion, FusionKind, FusionVectors, Method, SpeechPooling, TextPooling,
        resolve::Surroundings,
    },
    encoder::{RobertaConfig, Wav2Vec2Config, layer::LayerConfig},
    method::TextSizes,
    train::setup,
};

type Training = Autodiff<Flex>;

const MIB: u64 = 1 << 20;

/// The sizes of `clasp bench --size base`, and of `tiny`.
fn model(is_base: bool) -> ModelConfig {
    let text = RobertaConfig { max_position_embeddings: 514, type_vocab_size: 1, ..RobertaConfig::default() };
    let speech = Wav2Vec2Config { layerdrop: 0.0, ..Wav2Vec2Config::default() };
    let (text_encoder, speech_encoder) = if is_base {
        (text, speech)
    } else {
        let text = RobertaConfig {
            vocab_size: 512,
            hidden_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 96,
            max_position_embeddings: 66,
            ..text
        };
        let speech = Wav2Vec2Config {
            hidden_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 96,
            conv_dim: vec![32; 7],
            num_conv_pos_embeddings: 16,
            num_conv_pos_embedding_groups: 4,
            ..speech
        };
        (text, speech)
    };
    let (hidden_size, split_heads, layers, attention_heads, feed_forward) =
        if is_base { (768, 12, 4, 8, 2048) } else { (48, 4, 2, 4, 64) };
    let fusion = Fusion {
        kind: FusionKind::MultiHead,
        split_heads,
        hidden_size,
        layers,
        attention_heads,
        feed_forward,
        dropout: 0.1,
        slot_embeddings: false,
        vectors: FusionVectors::All,
    };
    let architecture = Architecture {
        hidden_size,
        text_pooling: TextPooling::Cls,
        speech_pooling: SpeechPooling::Mean,
        classifier_dropout: 0.1,
        fusion,
        options: None,
    };
    let labels = ["a", "b", "c", "d"].map(String::from).to_vec();
    ModelConfig {
        method: Method::Clasp,
        labels,
        architecture,
        text_encoder: Some(text_encoder),
        speech_encoder: Some(speech_encoder),
    }
}

fn footprint(is_base: bool) -> Footprint {
    Footprint::new(&model(is_base), Frozen::feature_encoder(), Chosen::Cpu, 2)
}

fn shape(batch: usize, tenths_of_seconds: usize) -> Shape {
    Shape { batch, samples: 1600 * tenths_of_seconds, tokens: 20 }
}

/// Whether it is base, utterances, tenths of a second each, and the peaks in MiB of a step and of a prediction.
type Measured = (bool, usize, usize, Option<u64>, Option<u64>);

/// The peaks in MiB that `clasp bench --threads 2 --only train` and `--only predict` print on x86-64 Linux with glibc.
#[test]
fn estimates_are_within_a_fifth_of_what_was_measured() {
    const MEASURED: [Measured; 17] = [
        (false, 1, 20, Some(27), Some(22)),
        (false, 1, 100, Some(49), Some(33)),
        (false, 4, 20, Some(37), Some(28)),
        (false, 4, 100, Some(82), Some(60)),
        (false, 8, 300, Some(388), Some(265)),
        (true, 1, 20, Some(4004), Some(996)),
        (true, 1, 45, Some(4011), Some(1015)),
        (true, 2, 45, Some(4049), Some(1108)),
        (true, 4, 45, Some(4069), Some(1230)),
        (true, 8, 45, Some(4822), Some(1417)),
        (true, 4, 20, Some(4038), Some(1098)),
        (true, 1, 100, Some(4061), Some(1123)),
        (true, 4, 100, Some(4932), Some(1531)),
        (true, 1, 300, Some(4609), Some(1402)),
        (true, 2, 300, Some(5488), Some(1728)),
        (true, 8, 100, Some(6308), None),
        (true, 4, 300, Some(7931), None),
    ];
    for (is_base, batch, tenths, train, predict) in MEASURED {
        let footprint = footprint(is_base);
        let shape = shape(batch, tenths);
        for (measured, found) in
            [(train, footprint.step(shape).total), (predict, footprint.evaluation(shape, false).total)]
        {
            let Some(measured) = measured else { continue };
            let found = found / MIB;
            println!("base {is_base}, {batch} of {tenths} tenths of a second: {found} MiB for {measured}");
            assert!(found.abs_diff(measured) * 5 <= measured, "{found} MiB for {measured}");
        }
    }
}

/// The same with `--precision bf16`, which the CPU emulates.
#[test]
fn estimates_of_bf16_are_within_a_fifth_of_what_was_measured() {
    for (is_base, batch, tenths, measured) in
        [(false, 4, 100, 83), (false, 8, 300, 402), (true, 1, 20, 4028), (true, 4, 45, 4476), (true, 4, 100, 5455)]
    {
        let found = footprint(is_base).with_precision(Precision::Bf16).step(shape(batch, tenths)).total / MIB;
        println!("bf16, base {is_base}, {batch} of {tenths} tenths of a second: {found} MiB for {measured}");
        assert!(found.abs_diff(measured) * 5 <= measured, "{found} MiB for {measured}");
    }
}

/// Without its pooler `roberta-base` has 124,055,040 parameters, `wav2vec2-base` 94,371,712 (Hugging Face's
/// `num_parameters`).
#[test]
fn the_encoders_have_as_many_parameters_as_the_published_ones() {
    let footprint = footprint(true);
    for (prefix, expected) in [("text_encoder.", 124_055_040), ("speech_encoder.", 94_371_712)] {
        let named = footprint.parameters.iter().filter(|(name, _)| name.starts_with(prefix));
        assert_eq!(named.map(|(_, elements)| elements).sum::<usize>(), expected, "{prefix}");
    }
    let estimate = footprint.step(shape(1, 20));
    let all: usize = footprint.parameters.values().sum();
    // The convolutions and the first one's norm do not train: 4,200,448 parameters.
    assert_eq!(estimate.weights, 4 * all as u64);
    assert_eq!(estimate.gradients, 4 * (all as u64 - 4_200_448));
    assert_eq!(estimate.moments, 2 * estimate.gradients);
}

/// Worked by hand: two utterances of three positions of width 4, with 8 inside.
#[test]
fn a_layer_keeps_eight_narrow_and_two_wide_tensors() {
    let config = LayerConfig {
        width: 4,
        heads: 2,
        feed_forward: 8,
        norm_first: false,
        activation: crate::encoder::layer::Activation::Gelu,
        attention_dropout: 0.1,
        hidden_dropout: 0.1,
        activation_dropout: 0.1,
        epsilon: 1e-5,
    };
    let precision = Precision::F32;
    let place = stages::Place { shape: shape(2, 1), forms: Forms::Cpu, threads: 2, precision, trains: true };
    let (narrow, wide) = (2 * 3 * 4 * 4, 2 * 3 * 8 * 4);
    let stage = place.layer(&config, 3, true);
    // The masks of its dropouts are made again.
    assert_eq!(stage.kept.all(), 8 * narrow + 2 * wide);
    let calm = LayerConfig { hidden_dropout: 0.0, activation_dropout: 0.0, ..config.clone() };
    assert_eq!(place.layer(&calm, 3, true).kept.all(), 8 * narrow + 2 * wide);
    assert_eq!(place.layer(&config, 3, false).kept, Blocks::default());
    // In bf16 each product has its own copy of its operands: of f32 where bf16 is emulated, else of half the size. The
    // inputs of norms and non-linearities stay f32.
    let matrices = (4 * 4 * 4 + 2 * 4 * 8) * 4;
    let rounded = stages::Place { precision: Precision::Bf16, ..place };
    assert_eq!(rounded.layer(&config, 3, true).kept.all(), 10 * narrow + 2 * wide + matrices);
    let halved = stages::Place { forms: Forms::Gpu, ..rounded };
    let expected = 2 * narrow + 8 * narrow / 2 + wide + wide / 2 + matrices / 2;
    assert_eq!(halved.layer(&config, 3, true).kept.all(), expected);
}

#[test]
fn the_largest_batch_fits_and_one_more_does_not() {
    let footprint = footprint(false);
    let longest = shape(1, 100);
    let available = 300 * MIB;
    let largest = footprint.largest_batch(longest, available);
    let total = |batch| footprint.step(Shape { batch, ..longest }).total;
    assert!(largest > 1 && total(largest) <= available && total(largest + 1) > available, "{largest}");
    assert_eq!(footprint.largest_batch(longest, PROGRAM), 0);
}

/// A window's sums are held beside a batch's gradients, and scoring in a run has the moments beside it.
#[test]
fn a_window_adds_gradients_and_a_run_moments() {
    let one = footprint(false);
    let window = Footprint { accumulates: true, ..footprint(false) };
    let (alone, summed) = (one.step(shape(1, 10)), window.step(shape(1, 10)));
    assert_eq!(summed.gradients, 2 * alone.gradients);
    assert_eq!(summed.total - alone.total, alone.gradients);
    let (alone, in_run) = (one.evaluation(shape(1, 10), false), one.evaluation(shape(1, 10), true));
    assert_eq!((alone.activations, alone.gradients, alone.moments), (0, 0, 0));
    assert_eq!(in_run.total - alone.total, in_run.moments);
}

/// Two encoders take what each takes alone; a head of twelve blocks takes what its blocks keep.
#[test]
fn other_methods_take_what_their_parts_take() {
    let of = |method: Method| {
        let mut model = model(false);
        model.method = method;
        model.architecture.options =
            method.options(&serde_json::Map::new(), TextSizes { attention_heads: 4, vocabulary: 11 }).unwrap();
        if !method.reads().text() {
            model.text_encoder = None;
        }
        if !method.reads().speech() {
            model.speech_encoder = None;
        }
        Footprint::new(&model, Frozen::feature_encoder(), Chosen::Cpu, 2).step(shape(4, 20))
    };
    let [text, speech, both, lfmim] = [Method::Text, Method::Speech, Method::LateFusion, Method::Lfmim].map(of);
    assert!(text.activations < both.activations && speech.activations < both.activations);
    assert_eq!(text.weights + speech.weights, both.weights);
    // Of four utterances, four blocks each on 81, 51 and 136 positions; a block keeps eight tensors of the width, 48, and
    // two of four times that, or more.
    let least = 4 * 4 * (81 + 51 + 136) * (8 * 48 + 2 * 4 * 48) * 4;
    assert!(lfmim.activations - both.activations > least, "{lfmim:?} {both:?}");
}

struct Trained<'a>(parameters::Path, &'a mut BTreeSet<String>);

impl ModuleVisitor<Training> for Trained<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.exit();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<Training, D>>) {
        if parameter.val().is_require_grad() {
            self.1.insert(self.0.name());
        }
    }
}

#[test]
fn what_is_frozen_here_is_frozen_in_the_model() {
    use burn::module::Module as _;
    let surroundings = Surroundings::of(&config::builtin::find("demo").unwrap());
    for stable in [false, true] {
        let mut model_config = model(false);
        model_config.speech_encoder.as_mut().unwrap().do_stable_layer_norm = stable;
        for (text_keys, speech_keys) in [
            ("", "freeze_feature_encoder = false"),
            ("", "freeze_feature_encoder = true"),
            ("freeze_layers = 2", "freeze_layers = 1\nfreeze_feature_encoder = false"),
            ("freeze = true", ""),
            ("freeze_layers = 1", "freeze = true"),
        ] {
            let text = format!(
                "[data.demo]\n[text]\ntokenizer = 'train'\n{text_keys}\n[text.config]\n[speech]\n{speech_keys}\n\
                 [speech.config]\n"
            );
            let config = config::parse("test", &text, &[], &surroundings).unwrap();
            let fresh = AnySystem::<Flex>::empty(&model_config, &FlexDevice);
            let trainable = parameters::trainable::<Training, AnySystem<Training>>(fresh);
            let mut trained = BTreeSet::new();
            let mut visitor = Trained(parameters::Path::default(), &mut trained);
            setup::freeze(trainable, &config).visit(&mut visitor);
            let frozen = Frozen::of(&config, &model_config);
            let footprint = Footprint::new(&model_config, frozen.clone(), Chosen::Cpu, 1);
            let expected: BTreeSet<String> =
                footprint.parameters.keys().filter(|name| !frozen.holds(name)).cloned().collect();
            assert_eq!(trained, expected, "{text_keys} {speech_keys}");
        }
    }
}
