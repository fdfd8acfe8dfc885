//! Published weights (`scripts/real_weights.py`) against what transformers makes of them (`scripts/make_fixtures.py`).

use std::path::Path;

use burn::{
    backend::{Flex, flex::FlexDevice},
    module::Module,
    tensor::backend::Backend,
};
use clasp::{
    checkpoint::published::{EncoderKind, load_encoder, read_config},
    data::{audio, text::Tokenizer},
    encoder::{RobertaConfig, SpeechEncoder, SpeechEncoderConfig, TextEncoder, Wanted},
    nn::Init,
    ops::{Lengths, Mode},
};
use serde::Deserialize;

use crate::test_data::{test_data, test_model};

#[derive(Module, Debug)]
struct TextOnly<B: Backend> {
    text_encoder: TextEncoder<B>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    ids: Vec<u32>,
    cls: Vec<f32>,
}

/// A BERT of 6 layers: its tokenizer's ids, and the state of `[CLS]` of six texts to 1e-4.
#[test]
fn minilm_gives_the_tokens_and_states_of_transformers() {
    let Some(folder) = test_model("minilm") else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/real/minilm.json");
    let rows: Vec<Row> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(rows.len(), 6);
    let tokenizer = Tokenizer::load(&folder).unwrap();
    let config = RobertaConfig::from_json(&read_config(&folder).unwrap()).unwrap();
    let text_encoder = TextEncoder::<Flex>::new(&config, &mut Init::empty(&FlexDevice));
    let (model, report) = load_encoder(TextOnly { text_encoder }, EncoderKind::Text, &folder).unwrap();
    assert!(report.unused.is_empty(), "{:?}", report.unused);
    for row in rows {
        let ids = tokenizer.encode(&row.text, 512).unwrap().ids;
        assert_eq!(ids, row.ids, "{}", row.text);
        let tokens: Vec<i64> = ids.into_iter().map(i64::from).collect();
        let lengths = Lengths::full(1, tokens.len());
        let encoded = model.text_encoder.forward(&tokens, &lengths, Wanted::Last, Mode::evaluation(), &FlexDevice);
        let found = encoded.first().into_data().to_vec::<f32>().unwrap();
        let largest = found.iter().zip(&row.cls).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-4, "{}: off by {largest:e}", row.text);
    }
}

#[derive(Module, Debug)]
struct SpeechOnly<B: Backend> {
    speech_encoder: SpeechEncoder<B>,
}

#[derive(Deserialize)]
struct Utterance {
    model: String,
    path: String,
    /// The mean over the utterance's own frames of the published encoder's states, which hears 30 s.
    padded: Vec<f32>,
    /// That of the encoder over the utterance's own frames alone (`scripts/clasp_torch.py`).
    own: Vec<f32>,
}

#[test]
fn whisper_gives_the_states_of_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/real/whisper.json");
    let utterances: Vec<Utterance> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(utterances.len(), 3);
    for utterance in utterances {
        let (Some(folder), Some(audio)) = (test_model(&utterance.model), test_data(&utterance.path)) else { return };
        let samples = audio::load(&audio, None, None).unwrap().samples;
        for (is_padded, expected) in [(true, &utterance.padded), (false, &utterance.own)] {
            let mut config = read_config(&folder).unwrap();
            config["padded"] = is_padded.into();
            let config = SpeechEncoderConfig::from_json(&config).unwrap();
            let speech_encoder = SpeechEncoder::<Flex>::new(&config, &mut Init::empty(&FlexDevice));
            let (model, report) = load_encoder(SpeechOnly { speech_encoder }, EncoderKind::Speech, &folder).unwrap();
            assert!(report.unused.is_empty(), "{:?}", report.unused);
            let lengths = Lengths::full(1, samples.len());
            let encoded =
                model.speech_encoder.forward(&samples, &lengths, Wanted::Last, Mode::evaluation(), &FlexDevice);
            let found = encoded.mean().into_data().to_vec::<f32>().unwrap();
            let errors = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
            let largest = errors.fold(0.0, f32::max);
            assert!(largest < 1e-4, "{} {} {is_padded}: off by {largest:e}", utterance.model, utterance.path);
        }
    }
}
