//! The one table of all keys.
//!
//! Validation, the search for the nearest key, the defaults of the resolver and `clasp config show --defaults` all read
//! this table; there is no other list of keys. A method's own keys are in its file ([`crate::method`]), those of the
//! encoders' configs in [`super::encoder_keys`].

use super::encoder_keys;
use crate::choices::{
    Ablation, ClassWeights, FeaturePrecision, FusionKind, KlDirection, Negatives, OptimizerKind, Precision, Schedule,
    Similarity, SpeechPooling, TextPooling,
};
use crate::keys::{Key, Kind, Range, nearest_by};
use crate::method::Method;

const NONE: &str = "none";

/// Every key but those of one method and those of the encoders' own configs, in the order of the documentation.
const GENERAL: &[Key] = &[
    Key::open("data.train", Kind::Path, "required, unless [data.demo] is there", "manifest to train on (JSON Lines)"),
    Key::open("data.dev", Kind::Path, "none: the last epoch is the best", "manifest that picks the best epoch"),
    Key::open("data.test", Kind::Path, NONE, "manifest that only `eval` and run.test_at_end read"),
    Key::open("data.labels", Kind::Labels, "the sorted labels of train", "the labels, in the order of the outputs"),
    Key::fixed("data.max_seconds", Kind::Number(Range::Frame), "30.0", "longer audio is cut, and counted"),
    Key::open(
        "data.max_tokens",
        Kind::Integer(3),
        "512, or fewer where the text encoder has fewer positions",
        "longer text is cut, and counted",
    ),
    Key::open("data.demo.utterances", Kind::Integer(40), "1200", "size of the corpus that the program makes"),
    Key::open("data.demo.seed", Kind::Seed, "1", "seed of that corpus"),
    Key::open(
        "text.checkpoint",
        Kind::Path,
        "required, unless [text.config] or train.init is there",
        "RoBERTa: a folder or a hub id",
    ),
    Key::open(
        "text.tokenizer",
        Kind::Path,
        "the checkpoint's folder; required with fresh weights",
        "a folder, or \"train\": byte-level BPE on the training text",
    ),
    Key::open(
        "text.vocab_size",
        Kind::Integer(261),
        "text.config.vocab_size, else 1000, with tokenizer = \"train\"",
        "size of a tokenizer that is trained (256 bytes and 5 special tokens at least)",
    ),
    Key::open(
        "text.pooling",
        Kind::Choice(TextPooling::WORDS),
        "\"cls\"",
        "the vector of the text: the state of <s>, or the mean over tokens",
    ),
    Key::fixed("text.freeze", Kind::Boolean, "false", "keep the whole text encoder as it is"),
    Key::fixed("text.freeze_layers", Kind::Integer(0), "0", "keep this many of the lowest layers as they are"),
    Key::open(
        "speech.checkpoint",
        Kind::Path,
        "required, unless [speech.config] or train.init is there",
        "wav2vec 2.0: a folder or a hub id",
    ),
    Key::open(
        "speech.pooling",
        Kind::Choice(SpeechPooling::WORDS),
        "\"mean\"",
        "the vector of the speech: the mean over frames",
    ),
    Key::fixed("speech.freeze", Kind::Boolean, "false", "keep the whole speech encoder as it is"),
    Key::fixed("speech.freeze_layers", Kind::Integer(0), "0", "keep this many of the lowest layers as they are"),
    Key::open(
        "speech.freeze_feature_encoder",
        Kind::Boolean,
        "true for a loaded encoder, false for a fresh one",
        "keep the convolutions as they are",
    ),
    Key::open(
        "speech.feature_cache",
        Kind::Path,
        "none: the convolutions run in every epoch",
        "folder, relative to the current one, that keeps what frozen convolutions make of each utterance",
    ),
    Key::fixed(
        "speech.feature_cache_precision",
        Kind::Choice(FeaturePrecision::WORDS),
        "\"f32\"",
        "number format of what is kept; f16 takes half the disk and rounds",
    ),
    Key::fixed(
        "speech.feature_cache_gib",
        Kind::Number(Range::Positive),
        "20.0",
        "largest size of that folder; entries of other weights are removed for it, the oldest first",
    ),
    Key::fixed("model.method", Kind::Choice(Method::WORDS), "\"clasp\"", "the system"),
    Key::fixed(
        "model.ablation",
        Kind::Choice(Ablation::WORDS),
        "\"none\"",
        "what is left out of clasp; it wins over the weights and the fusion of the file",
    ),
    Key::open(
        "model.hidden_size",
        Kind::Integer(1),
        "the text encoder's, else the speech encoder's",
        "width of all vectors",
    ),
    Key::open(
        "model.dropout",
        Kind::Number(Range::BelowOne),
        "none: each dropout as it is stated",
        "sets every dropout at once, also the encoders'",
    ),
    Key::open("model.classifier_dropout", Kind::Number(Range::BelowOne), "0.1", "dropout before each classifier"),
    Key::open(
        "model.fusion.kind",
        Kind::Choice(FusionKind::WORDS),
        "\"multi_head\"",
        "cut the six vectors into pieces, or attend over them whole",
    ),
    Key::open(
        "model.fusion.split_heads",
        Kind::Integer(1),
        "the text encoder's attention heads (H)",
        "pieces of each vector; divides model.hidden_size",
    ),
    Key::open("model.fusion.hidden_size", Kind::Integer(1), "the model's", "width of the fusion's layers"),
    Key::open("model.fusion.layers", Kind::Integer(1), "4 (1 with kind = \"attention\")", "fusion layers"),
    Key::open(
        "model.fusion.attention_heads",
        Kind::Integer(1),
        "8 (2 with kind = \"attention\")",
        "attention heads of a fusion layer",
    ),
    Key::open("model.fusion.feed_forward", Kind::Integer(1), "2048", "inner width of a fusion layer"),
    Key::open("model.fusion.dropout", Kind::Number(Range::BelowOne), "0.1", "dropout in the fusion"),
    Key::open("model.fusion.slot_embeddings", Kind::Boolean, "false", "add a learned vector to each fusion token"),
    Key::fixed("loss.semantic", Kind::Number(Range::NotNegative), "0.01", "weight of the semantic term (alpha)"),
    Key::fixed("loss.modality", Kind::Number(Range::NotNegative), "0.01", "weight of the modality term (beta)"),
    Key::fixed(
        "loss.reconstruction",
        Kind::Number(Range::NotNegative),
        "0.01",
        "weight of the reconstruction term (gamma)",
    ),
    Key::fixed("loss.kl", Kind::Number(Range::NotNegative), "0.05", "weight of the divergence (delta; zeta)"),
    Key::fixed("loss.temperature", Kind::Number(Range::Positive), "0.1", "divides the similarities"),
    Key::fixed("loss.similarity", Kind::Choice(Similarity::WORDS), "\"cosine\"", "similarity of two vectors"),
    Key::fixed(
        "loss.negatives",
        Kind::Choice(Negatives::WORDS),
        "\"printed\"",
        "what a pair is contrasted with; only within a batch, accumulation adds none",
    ),
    Key::fixed("loss.detach_target", Kind::Boolean, "false", "no gradient into the targets of the reconstruction"),
    Key::fixed(
        "loss.kl_direction",
        Kind::Choice(KlDirection::WORDS),
        "\"fusion_to_unimodal\"",
        "from which distribution the divergence is measured",
    ),
    Key::fixed("loss.kl_detach", Kind::Boolean, "false", "no gradient of the divergence into the fusion"),
    Key::fixed("loss.class_weights", Kind::Choice(ClassWeights::WORDS), "\"none\"", "weights of the labels"),
    Key::fixed("loss.label_smoothing", Kind::Number(Range::BelowOne), "0.0", "label smoothing"),
    Key::fixed("train.optimizer", Kind::Choice(OptimizerKind::WORDS), "\"adam\"", "the optimiser"),
    Key::fixed("train.learning_rate", Kind::Number(Range::Positive), "1e-5", "rate of the new layers"),
    Key::open(
        "train.encoder_learning_rate",
        Kind::Number(Range::Positive),
        "train.learning_rate",
        "rate of both encoders",
    ),
    Key::fixed(
        "train.layer_decay",
        Kind::Number(Range::Share),
        "1.0",
        "factor on the rate per encoder layer downwards",
    ),
    Key::fixed(
        "train.weight_decay",
        Kind::Number(Range::NotNegative),
        "0.0",
        "weight decay; biases and other vectors have none",
    ),
    Key::fixed("train.schedule", Kind::Choice(Schedule::WORDS), "\"constant\"", "the rate after the warm-up"),
    Key::fixed("train.warmup_steps", Kind::Integer(0), "0", "steps in which the rate rises from 0"),
    Key::fixed("train.clip_norm", Kind::Number(Range::NotNegative), "0.0", "largest global gradient norm; 0: no limit"),
    Key::fixed("train.accumulation_steps", Kind::Integer(1), "1", "batches an optimiser step"),
    Key::fixed("train.patience", Kind::Integer(0), "0", "stop after this many epochs without a better one; 0: never"),
    Key::fixed("train.batch_size", Kind::Integer(1), "4", "utterances a batch, over all devices"),
    Key::fixed(
        "train.batch_seconds",
        Kind::Number(Range::NotNegative),
        "0.0",
        "largest padded seconds of audio a batch; 0: no limit",
    ),
    Key::fixed(
        "train.gather_negatives",
        Kind::Boolean,
        "true",
        "with several devices: contrast with the whole batch (true) or with a device's own part of it",
    ),
    Key::fixed("train.epochs", Kind::Integer(1), "25", "passes over the training data"),
    Key::fixed("train.seed", Kind::Seed, "1", "seed of the weights, the order and the dropout"),
    Key::fixed("train.save_every_steps", Kind::Integer(0), "0", "also save within an epoch; 0: only at its end"),
    Key::fixed("train.log_every_steps", Kind::Integer(1), "1", "log each so many steps"),
    Key::open(
        "train.init",
        Kind::Path,
        "none",
        "start from this clasp checkpoint, which decides the architecture; text.checkpoint and speech.checkpoint are then not read",
    ),
    Key::open("run.dir", Kind::Path, "runs/<name of the config>", "folder of the run, relative to the current folder"),
    Key::fixed("run.device", Kind::Devices, "\"auto\"", "auto, cpu, cuda, cuda:N, or several: cuda:0,1"),
    Key::fixed("run.precision", Kind::Choice(Precision::WORDS), "\"f32\"", "number format of training; scoring is f32"),
    Key::fixed("run.test_at_end", Kind::Boolean, "false", "score the test data after training"),
    Key::fixed("run.workers", Kind::Integer(1), "2", "threads that decode audio"),
];

/// Every key: the general ones, those of the methods, those of the encoders' own configs.
pub fn all() -> impl Iterator<Item = &'static Key> {
    let of_methods = Method::ALL.iter().flat_map(|method| method.keys());
    GENERAL.iter().chain(of_methods).chain(encoder_keys::TEXT).chain(encoder_keys::SPEECH)
}

/// The key of this path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.path == path)
}

/// Whether keys lie under this path, as under `model.fusion`.
#[must_use]
pub fn is_section(path: &str) -> bool {
    all().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// All sections, as `model.fusion`.
fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&'static str> = Vec::new();
    for key in all() {
        let ends = key.path.match_indices('.').map(|(end, _)| end);
        for section in ends.filter_map(|end| key.path.get(..end)) {
            if !sections.contains(&section) {
                sections.push(section);
            }
        }
    }
    sections
}

/// The valid key or section that an unknown one most likely stands for.
///
/// A near name in the same section wins, then the same name in another section, then the nearest whole path. Nothing is
/// returned where nothing is near: a wrong hint is worse than the list of what is valid.
#[must_use]
pub fn nearest(path: &str) -> Option<String> {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let candidates: Vec<&'static str> = all().map(|key| key.path).chain(sections()).collect();
    let split = |candidate: &'static str| candidate.rsplit_once('.').unwrap_or(("", candidate));
    let here = candidates.iter().copied().filter(|candidate| split(candidate).0 == section);
    let same_name = candidates.iter().copied().find(|candidate| split(candidate).1 == name);
    nearest_by(name, here, |candidate| split(candidate).1)
        .or(same_name)
        .or_else(|| nearest_by(path, candidates.iter().copied(), |candidate| candidate))
        .or_else(|| nearest_by(name, candidates.iter().copied(), |candidate| split(candidate).1))
        .map(str::to_owned)
}

/// What may stand in a section: its keys and the sections in it.
#[must_use]
pub fn valid_in(section: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for key in all() {
        let rest = if section.is_empty() {
            Some(key.path)
        } else {
            key.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'))
        };
        let name = rest.and_then(|rest| rest.split('.').next());
        if let Some(name) = name.filter(|name| names.iter().all(|known| known != name)) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn paths_are_unique_and_documented() {
        let paths: BTreeSet<&str> = all().map(|key| key.path).collect();
        assert_eq!(paths.len(), all().count());
        assert!(all().all(|key| !key.about.is_empty() && key.path.contains('.')));
    }

    #[test]
    fn the_nearest_key_is_named() {
        for (wrong, right) in [
            ("train.epoch", "train.epochs"),
            ("train.Batch-Size", "train.batch_size"),
            ("trian", "train"),
            ("epochs", "train.epochs"),
            ("train.semantic", "loss.semantic"),
            ("model.fusion.layer", "model.fusion.layers"),
            ("model.kind", "model.fusion.kind"),
            ("text.config.hiden_size", "text.config.hidden_size"),
            ("tset_at_end", "run.test_at_end"),
            ("text.poling", "text.pooling"),
        ] {
            assert_eq!(nearest(wrong).as_deref(), Some(right), "{wrong}");
        }
        assert_eq!(nearest("train.unrelated_thing"), None);
        assert_eq!(nearest("x"), None);
    }

    #[test]
    fn a_section_lists_its_keys_and_sections() {
        assert_eq!(valid_in(""), ["data", "text", "speech", "model", "loss", "train", "run"]);
        assert!(valid_in("model").contains(&"fusion".to_owned()));
        assert_eq!(valid_in("data.demo"), ["utterances", "seed"]);
        assert!(is_section("model.fusion") && !is_section("model.fus") && !is_section("train.epochs"));
    }
}
