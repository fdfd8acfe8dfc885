//! The sizes of the model, once the encoders are known: what the config says, what they say, and where these disagree.
//!
//! `config::resolve` calls this for fresh encoders, `train` for loaded ones. With `train.init` the checkpoint decides,
//! and a config that states something else is an error. What the sizes are of: docs/model.md.

use serde_json::Value;

use super::problem::{ConfigError, Problem};
use super::{Architecture, Config, EncoderMap};
use crate::choices::{Ablation, FusionKind, FusionVectors, Layers, Pooling};
use crate::encoder::{FeatureExtractorKind, RobertaConfig, SpeechEncoderConfig};
use crate::method::{ClaspOptions, HeadOptions, ModelSizes};

const MAX_TOKENS: usize = 512;
/// Tokens of `RoBERTa`'s vocabulary.
const VOCABULARY: usize = 50_265;

impl Config {
    /// Fills in what the encoders decide, and checks what must fit together.
    ///
    /// `text_encoder` and `speech_encoder` are the Hugging Face configs in use, empty where the method does not read that
    /// modality; `initial` is the architecture of the checkpoint of `train.init`. The returned config states everything that the returned architecture does.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every contradiction.
    pub fn settle(
        &self,
        text_encoder: &EncoderMap,
        speech_encoder: &EncoderMap,
        initial: Option<&Architecture>,
    ) -> Result<(Self, Architecture), ConfigError> {
        let mut problems = Vec::new();
        let architecture = match initial {
            Some(initial) => self.as_in(initial, &mut problems),
            None => self.beside(text_encoder, speech_encoder, &mut problems),
        };
        self.check_method(&architecture, &mut problems);
        let max_tokens = self.check_encoders(text_encoder, speech_encoder, &architecture, &mut problems);
        let freezes_features = self.check_speech(speech_encoder, &mut problems);
        if problems.is_empty() {
            let mut config = self.stating(&architecture, max_tokens);
            if self.model.method.encodes_speech() {
                config.speech.freeze_feature_encoder = Some(freezes_features);
                config.speech.padded |= speech_encoder.get("padded").and_then(Value::as_bool).unwrap_or(false);
            }
            Ok((config, architecture))
        } else {
            Err(ConfigError::invalid("config", problems))
        }
    }

    /// What the config says, else what the text encoder's sizes ask for, else the paper's.
    fn beside(&self, text: &EncoderMap, speech: &EncoderMap, problems: &mut Vec<Problem>) -> Architecture {
        let (width, attention_heads) = if self.model.method.reads().text() {
            (whole(text, "hidden_size", 768), whole(text, "num_attention_heads", 12))
        } else {
            // A config that cannot be read is reported where the encoder is made.
            let encoder = SpeechEncoderConfig::from_json(&Value::Object(speech.clone()));
            encoder.map_or((768, 12), |encoder| (encoder.hidden_size(), encoder.attention_heads()))
        };
        let hidden_size = self.model.hidden_size.unwrap_or(width);
        let sizes =
            ModelSizes { hidden: hidden_size, attention_heads, vocabulary: whole(text, "vocab_size", VOCABULARY) };
        let mut options = self.options(sizes, problems);
        if let HeadOptions::Clasp(fusion) = &mut options {
            fusion.vectors = self.vectors();
        }
        Architecture {
            hidden_size,
            text_pooling: self.text.pooling.unwrap_or(Pooling::Cls),
            speech_pooling: self.speech.pooling.unwrap_or(Pooling::Mean),
            text_layers: self.text.layers.unwrap_or_default(),
            speech_layers: self.speech.layers.unwrap_or_default(),
            classifier_dropout: self.model.classifier_dropout.unwrap_or(super::CLASSIFIER_DROPOUT),
            options,
        }
    }

    fn vectors(&self) -> FusionVectors {
        if self.model.ablation == Ablation::RawOnly { FusionVectors::Raw } else { FusionVectors::All }
    }

    /// The options of the method: the published ones but for those that are stated.
    fn options(&self, sizes: ModelSizes, problems: &mut Vec<Problem>) -> HeadOptions {
        let model = &self.model;
        model.method.options(&model.options, sizes).unwrap_or_else(|problem| {
            problems.push(Problem::conflict(&format!("model.{}", model.method), format!("does not fit: {problem}")));
            HeadOptions::default()
        })
    }

    /// The checkpoint's options; weights and dropouts may be stated anew.
    fn options_as_in(&self, initial: &HeadOptions, problems: &mut Vec<Problem>) -> HeadOptions {
        let method = self.model.method;
        let mut json = initial.to_json();
        for key in method.keys() {
            let name = key.split().1;
            let (Some(stated), Some(own)) = (self.model.options.get(name), json.get_mut(name)) else { continue };
            if key.kind.is_number() {
                own.clone_from(stated);
            } else {
                let [stated, own] =
                    [stated, &*own].map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
                contradict(key.path, Some(stated), &own, problems);
            }
        }
        method.options_from(json).unwrap_or_else(|_| initial.clone())
    }

    /// The checkpoint's architecture; dropouts are no part of it and may be stated anew.
    fn as_in(&self, initial: &Architecture, problems: &mut Vec<Problem>) -> Architecture {
        contradict("model.hidden_size", self.model.hidden_size, &initial.hidden_size, problems);
        contradict("text.pooling", self.text.pooling, &initial.text_pooling, problems);
        contradict("speech.pooling", self.speech.pooling, &initial.speech_pooling, problems);
        contradict("text.layers", self.text.layers, &initial.text_layers, problems);
        contradict("speech.layers", self.speech.layers, &initial.speech_layers, problems);
        if let HeadOptions::Clasp(fusion) = &initial.options {
            let other = if fusion.vectors == FusionVectors::Raw { Ablation::RawOnly } else { Ablation::None };
            let ablation = (self.vectors() != fusion.vectors).then_some(self.model.ablation);
            contradict("model.ablation", ablation, &other, problems);
        }
        let options = self.options_as_in(&initial.options, problems);
        let classifier_dropout = self.model.classifier_dropout.unwrap_or(initial.classifier_dropout);
        Architecture { classifier_dropout, options, ..initial.clone() }
    }

    /// Checks what only the method in use has.
    fn check_method(&self, architecture: &Architecture, problems: &mut Vec<Problem>) {
        match &architecture.options {
            HeadOptions::Clasp(fusion) => check_fusion(fusion, architecture.hidden_size, problems),
            options => {
                if let Err(misfit) = options.check(architecture.hidden_size) {
                    let key = format!("model.{}.{}", self.model.method, misfit.option);
                    problems.push(Problem::conflict(&key, misfit.problem));
                }
            }
        }
    }

    /// Checks what the encoders limit; returns `data.max_tokens`, `None` if text is not read.
    fn check_encoders(
        &self,
        text: &EncoderMap,
        speech: &EncoderMap,
        architecture: &Architecture,
        problems: &mut Vec<Problem>,
    ) -> Option<usize> {
        let of_speech = SpeechEncoderConfig::from_json(&Value::Object(speech.clone())).ok();
        let of_speech = of_speech.map_or(12, |encoder| encoder.layers());
        let of_text = whole(text, "num_hidden_layers", 12);
        let one = |layers: Layers| if let Layers::One(layer) = layers { layer } else { 0 };
        for (key, wanted, layers) in [
            ("text.freeze_layers", self.text.freeze_layers, of_text),
            ("speech.freeze_layers", self.speech.freeze_layers, of_speech),
            ("text.layers", one(architecture.text_layers), of_text),
            ("speech.layers", one(architecture.speech_layers), of_speech),
        ] {
            if wanted > layers {
                problems.push(Problem::conflict(key, format!("is {wanted}, but the encoder has {layers} layers")));
            }
        }
        if !self.model.method.reads().text() {
            return None;
        }
        // A config that cannot be read is reported where the encoder is made.
        let encoder = RobertaConfig::from_json(&Value::Object(text.clone())).unwrap_or_default();
        let of_encoder = encoder.max_tokens();
        let of_method = architecture.options.max_tokens();
        let limit = if self.model.method.has_encoders() { of_encoder.min(of_method) } else { of_method };
        if let Some(wanted) = self.data.max_tokens.filter(|wanted| *wanted > limit) {
            let whose = if limit == of_method { self.model.method.word() } else { "the text encoder" };
            let reason = format!("is {wanted}, but {whose} has positions for {limit} tokens: set it to {limit}");
            problems.push(Problem::conflict("data.max_tokens", reason));
        }
        Some(self.data.max_tokens.unwrap_or(MAX_TOKENS.min(limit)))
    }

    /// Checks what the family of the speech encoder limits; returns whether its convolutions stay as they are.
    fn check_speech(&self, map: &EncoderMap, problems: &mut Vec<Problem>) -> bool {
        let speech = &self.speech;
        // A config that cannot be read is reported where the encoder is made.
        let encoder = SpeechEncoderConfig::from_json(&Value::Object(map.clone())).ok();
        let is_waveform = |encoder: &SpeechEncoderConfig| encoder.feature_extractor() == FeatureExtractorKind::Waveform;
        let default = encoder.as_ref().is_none_or(is_waveform);
        let freezes_features = speech.freeze_feature_encoder.unwrap_or(default);
        if let (Some(encoder), true) = (encoder, speech.feature_cache.is_some()) {
            if let Some(reason) = encoder.uncacheable() {
                problems.push(Problem::conflict("speech.feature_cache", reason.to_owned()));
            } else if !(speech.freeze || speech.freeze_layers > 0 || freezes_features) {
                let reason = "keeps what the convolutions make of speech, but Whisper's train unless \
                              speech.freeze_feature_encoder = true: set that, or remove this";
                problems.push(Problem::conflict("speech.feature_cache", reason.to_owned()));
            }
        }
        freezes_features
    }

    fn stating(&self, architecture: &Architecture, max_tokens: Option<usize>) -> Self {
        let Architecture { hidden_size, classifier_dropout, options, .. } = architecture;
        let reads = self.model.method.reads();
        let mut config = self.clone();
        config.data.max_tokens = max_tokens;
        config.text.pooling = reads.text().then_some(architecture.text_pooling);
        config.speech.pooling = reads.speech().then_some(architecture.speech_pooling);
        config.text.layers = reads.text().then_some(architecture.text_layers);
        config.speech.layers = reads.speech().then_some(architecture.speech_layers);
        config.model.hidden_size = Some(*hidden_size);
        config.model.classifier_dropout = Some(*classifier_dropout);
        if let Value::Object(options) = options.to_json() {
            config.model.options = options;
        }
        // No key: the ablation says it.
        config.model.options.remove("vectors");
        config
    }
}

/// Adds what does not fit together.
fn check_fusion(fusion: &ClaspOptions, model_size: usize, problems: &mut Vec<Problem>) {
    let ClaspOptions { kind, split_heads, hidden_size, attention_heads, .. } = *fusion;
    let mut complain = |key: &str, reason: String| problems.push(Problem::conflict(key, reason));
    if model_size == 0 || split_heads == 0 || !model_size.is_multiple_of(split_heads) {
        let reason = format!("is {split_heads}, which does not divide the model's hidden_size, {model_size}");
        complain("model.fusion.split_heads", reason);
    }
    if hidden_size == 0 || attention_heads == 0 || !hidden_size.is_multiple_of(attention_heads) {
        let reason = format!("is {attention_heads}, which does not divide the fusion's hidden_size, {hidden_size}");
        complain("model.fusion.attention_heads", reason);
    }
    if kind == FusionKind::Attention && split_heads != 1 {
        let reason =
            format!("is {split_heads}, but kind = \"attention\" does not cut the vectors: set it to 1, or remove it");
        complain("model.fusion.split_heads", reason);
    }
    if kind == FusionKind::Attention && hidden_size != model_size {
        let reason = format!(
            "is {hidden_size}, but kind = \"attention\" keeps the model's hidden_size, {model_size}: set it to that, or remove it"
        );
        complain("model.fusion.hidden_size", reason);
    }
}
fn contradict<T: PartialEq + std::fmt::Display>(
    key: &str,
    stated: Option<T>,
    initial: &T,
    problems: &mut Vec<Problem>,
) {
    if let Some(stated) = stated.filter(|stated| stated != initial) {
        let reason = format!("is {stated}, but the checkpoint of train.init has {initial}: remove the key");
        problems.push(Problem::conflict(key, reason));
    }
}

/// A whole number of a Hugging Face config, else its default.
fn whole(map: &EncoderMap, key: &str, default: usize) -> usize {
    map.get(key).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::resolve::Surroundings;
    use super::*;
    use crate::method::Method;

    fn config(text: &str) -> Config {
        super::super::parse("x.toml", text, &[], &Surroundings::plain(Path::new("/base"))).unwrap()
    }

    fn map(json: &str) -> EncoderMap {
        serde_json::from_str(json).unwrap()
    }

    const LOADED: &str =
        "[data]\ntrain = 'a'\n[text]\ncheckpoint = '/models/roberta'\n[speech]\ncheckpoint = '/models/wav2vec2'\n";
    const INITIAL: &str = "[data]\ntrain = 'a'\n[train]\ninit = 'start'\n";

    fn base() -> EncoderMap {
        map(r#"{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 514,
               "pad_token_id": 1}"#)
    }

    /// CLASP's of `config.json`.
    fn architecture(json: &str) -> Architecture {
        let json: Value = serde_json::from_str(json).unwrap();
        let options = Method::Clasp.options_from(json["fusion"].clone()).unwrap();
        Architecture { options, ..serde_json::from_value(json).unwrap() }
    }

    fn fusion(architecture: &Architecture) -> &ClaspOptions {
        let HeadOptions::Clasp(fusion) = &architecture.options else { unreachable!("it is CLASP's") };
        fusion
    }

    fn tiny() -> Architecture {
        // What `clasp_torch.py export --size tiny` writes.
        architecture(
            r#"{"hidden_size": 48, "text_pooling": "cls", "speech_pooling": "mean", "classifier_dropout": 0.1,
                "fusion": {"kind": "multi_head", "split_heads": 4, "hidden_size": 48, "layers": 2, "attention_heads": 4,
                           "feed_forward": 64, "dropout": 0.1, "slot_embeddings": false}}"#,
        )
    }

    #[test]
    fn the_paper_setting_comes_of_the_base_encoders() {
        let (settled, architecture) = config(LOADED).settle(&base(), &base(), None).unwrap();
        let expected = r#"{"hidden_size":768,"text_pooling":"cls","speech_pooling":"mean","classifier_dropout":0.1,
            "fusion":{"kind":"multi_head","split_heads":12,"hidden_size":768,"layers":4,"attention_heads":8,
            "feed_forward":2048,"dropout":0.1,"slot_embeddings":false}}"#;
        assert_eq!(architecture, self::architecture(expected));
        assert_eq!(settled.data.max_tokens, Some(512));
        assert_eq!(settled.model.options["split_heads"], 12);
        assert_eq!(settled.settle(&base(), &base(), None).unwrap(), (settled, architecture));
    }

    #[test]
    fn attention_has_other_defaults() {
        let text = format!("{LOADED}[model.fusion]\nkind = 'attention'\n");
        let (_, architecture) = config(&text).settle(&base(), &base(), None).unwrap();
        let ClaspOptions { split_heads, hidden_size, layers, attention_heads, .. } = *fusion(&architecture);
        assert_eq!((split_heads, hidden_size, layers, attention_heads), (1, 768, 1, 2));
    }

    #[test]
    fn what_does_not_fit_is_reported_at_once() {
        let text = format!(
            "{LOADED}freeze_layers = 13\n[model]\nhidden_size = 100\n[model.fusion]\nkind = 'attention'\nsplit_heads = 3\n\
             hidden_size = 99\n"
        );
        let message = config(&text).settle(&base(), &base(), None).unwrap_err().to_string();
        for part in [
            "config has 5 problems:",
            "`model.fusion.split_heads` is 3, which does not divide the model's hidden_size, 100",
            "`model.fusion.split_heads` is 3, but kind = \"attention\" does not cut",
            "`model.fusion.hidden_size` is 99, but kind",
            "`model.fusion.attention_heads` is 2, which does not divide the fusion's hidden_size, 99",
            "`speech.freeze_layers` is 13, but the encoder has 12 layers",
        ] {
            assert!(message.contains(part), "{part}\n{message}");
        }
    }

    #[test]
    fn text_is_cut_where_the_positions_end() {
        let mut short = base();
        short.insert("max_position_embeddings".into(), 66.into());
        let (settled, _) = config(LOADED).settle(&short, &base(), None).unwrap();
        assert_eq!(settled.data.max_tokens, Some(64));
        let asked = config(&LOADED.replace("train = 'a'", "train = 'a'\nmax_tokens = 65"));
        let message = asked.settle(&short, &base(), None).unwrap_err().to_string();
        assert!(message.contains("`data.max_tokens` is 65") && message.contains("set it to 64"), "{message}");
    }

    #[test]
    fn the_initial_checkpoint_decides() {
        let (settled, architecture) = config(INITIAL).settle(&base(), &base(), Some(&tiny())).unwrap();
        assert_eq!(architecture, tiny());
        assert_eq!(settled.model.options["layers"], 2);
        let same = config(&format!("{INITIAL}[model]\nhidden_size = 48\ndropout = 0.0\n"));
        let (_, architecture) = same.settle(&base(), &base(), Some(&tiny())).unwrap();
        assert!(architecture.classifier_dropout.abs() + fusion(&architecture).dropout.abs() < 1e-9);
    }

    #[test]
    fn a_config_that_contradicts_the_initial_checkpoint_is_an_error() {
        let text =
            format!("{INITIAL}[text]\npooling = 'mean'\n[model]\nhidden_size = 768\nablation = 'no-multi-head'\n");
        let message = config(&text).settle(&base(), &base(), Some(&tiny())).unwrap_err().to_string();
        for part in [
            "config has 3 problems:",
            "`model.hidden_size` is 768, but the checkpoint of train.init has 48: remove the key",
            "`text.pooling` is mean, but the checkpoint of train.init has cls",
            "`model.fusion.kind` is attention, but the checkpoint of train.init has multi_head",
        ] {
            assert!(message.contains(part), "{part}\n{message}");
        }
    }
}
