//! The one table of all keys, put together from the sections that [`crate::keys::section`] declares.
//!
//! Validation, the search for the nearest key, the keys that a resume may change and `clasp config show --defaults` read
//! it.

use super::{
    DEMO, DataConfig, FeatureCacheConfig, LossConfig, ModelKeys, RunConfig, SpeechConfig, TextConfig, TrainConfig,
};
use crate::encoder::{RobertaConfig, speech};
use crate::keys::{Key, nearest_by};
use crate::method::{ClaspOptions, Method};

/// The sections, in the order of the documentation; the other methods' own follow, then those of the encoders' configs.
const SECTIONS: [&[Key]; 13] = [
    DataConfig::BY_HAND,
    DataConfig::KEYS,
    DEMO,
    TextConfig::BY_HAND,
    TextConfig::KEYS,
    SpeechConfig::BY_HAND,
    SpeechConfig::KEYS,
    FeatureCacheConfig::KEYS,
    ModelKeys::KEYS,
    ClaspOptions::KEYS,
    LossConfig::KEYS,
    TrainConfig::KEYS,
    RunConfig::KEYS,
];
const TEXT_ENCODER: [&[Key]; 2] = [RobertaConfig::KEYS, RobertaConfig::BY_HAND];

/// Every key: those of the sections, of the methods, of the encoders' own configs.
pub fn all() -> impl Iterator<Item = &'static Key> {
    let of_methods = Method::ALL.iter().filter(|method| **method != Method::Clasp).map(|method| method.keys());
    SECTIONS.into_iter().chain(of_methods).chain(TEXT_ENCODER).flatten().chain(of_speech_encoders())
}

/// Those of `[speech.config]`; a key that several families share is listed once.
pub fn of_speech_encoders() -> impl Iterator<Item = &'static Key> {
    speech::KEYS.iter().enumerate().flat_map(|(number, keys)| {
        let earlier = move || speech::KEYS[..number].iter().copied().flatten();
        keys.iter().filter(move |key| earlier().all(|other| other.path != key.path))
    })
}

/// The key of this path.
pub fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.path == path)
}

/// Whether keys lie under this path, as under `model.fusion`.
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
    fn families_of_speech_encoders_agree_on_a_shared_key() {
        for key in speech::KEYS.iter().copied().flatten() {
            let first = find(key.path).unwrap();
            assert_eq!((first.kind, first.is_free_beside_checkpoint), (key.kind, key.is_free_beside_checkpoint));
        }
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
