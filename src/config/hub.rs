//! Models of the Hugging Face hub: their names, short ones too, and their folders in the cache.
//!
//! Nothing is fetched here; [`crate::hub`] does that when it is asked to.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// The branch that is meant where none is named.
pub const MAIN: &str = "main";

/// Short names, and the ids that they stand for: the first that is there counts.
pub const SHORT_NAMES: &[(&str, &[&str])] = &[
    // The hub knows these two by either id.
    ("roberta-base", &["roberta-base", "FacebookAI/roberta-base"]),
    ("roberta-large", &["roberta-large", "FacebookAI/roberta-large"]),
    ("wav2vec2-base", &["facebook/wav2vec2-base"]),
    ("wav2vec2-base-960h", &["facebook/wav2vec2-base-960h"]),
    ("wav2vec2-large", &["facebook/wav2vec2-large"]),
    ("wav2vec2-large-960h", &["facebook/wav2vec2-large-960h"]),
    ("wav2vec2-large-lv60", &["facebook/wav2vec2-large-lv60"]),
    ("wav2vec2-large-xlsr-53", &["facebook/wav2vec2-large-xlsr-53"]),
];

/// A model's name: a short name or a hub id, with `@` and a revision where it is not `main`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    name: String,
    revision: String,
}

impl HubName {
    /// Reads `roberta-base`, `facebook/wav2vec2-base` or `roberta-base@v1.0`; `None` if it has no such form.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let parts: Vec<&str> = name.split('/').collect();
        // A revision may have more parts, as refs/pr/1.
        let is_sound = parts.len() <= 2 && parts.into_iter().chain(revision.split('/')).all(is_word);
        is_sound.then(|| Self { name: name.to_owned(), revision: revision.to_owned() })
    }

    /// The same model at another revision.
    pub fn at(&self, revision: &str) -> Option<Self> {
        Self::parse(&format!("{}@{revision}", self.name))
    }

    /// The name without the revision, as it was typed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The hub's ids of the model, in the order in which they are tried.
    pub fn ids(&self) -> Vec<&str> {
        let short = SHORT_NAMES.iter().find(|(name, _)| *name == self.name);
        short.map_or_else(|| vec![self.name.as_str()], |(_, ids)| ids.to_vec())
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        if self.revision == MAIN { Ok(()) } else { write!(formatter, "@{}", self.revision) }
    }
}

/// Whether a text can be a part of an id or the name of a file: letters, digits, dashes, and dots behind the first.
pub(crate) fn is_word(word: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !word.is_empty() && !word.starts_with(['.', '-']) && word.chars().all(is_letter)
}

/// The folder of hub models: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`; absolute.
pub fn hub_cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("HF_HUB_CACHE")
        .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache/huggingface/hub"));
    std::path::absolute(&folder).unwrap_or(folder)
}

/// The folder of a model in the cache: the snapshot that its revision points to.
pub fn in_hub_cache(cache: &Path, name: &str) -> Option<PathBuf> {
    let name = HubName::parse(name)?;
    name.ids().into_iter().find_map(|id| snapshot(cache, id, name.revision()))
}

/// The folder of one id at a branch, a tag or a commit.
pub fn snapshot(cache: &Path, id: &str, revision: &str) -> Option<PathBuf> {
    let model = cache.join(model_folder(id));
    let written = std::fs::read_to_string(model.join("refs").join(revision)).ok();
    let commit = written.as_deref().map_or(revision, str::trim);
    // A commit is one name; anything else must not lead out of the cache.
    let parts: Vec<Component> = Path::new(commit).components().collect();
    let is_name = matches!(parts.as_slice(), [Component::Normal(_)]);
    Some(model.join("snapshots").join(commit)).filter(|folder| is_name && folder.is_dir())
}

/// What the cache calls the folder of an id.
pub fn model_folder(id: &str) -> String {
    format!("models--{}", id.replace('/', "--"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::locate::tests::folder as cache;

    #[test]
    fn a_model_is_found_in_the_cache_by_id_short_name_and_revision() {
        let cache = cache(&[
            "models--facebook--wav2vec2-base/refs/main",
            "models--facebook--wav2vec2-base/refs/refs/pr/1",
            "models--facebook--wav2vec2-base/snapshots/abc123/config.json",
            "models--FacebookAI--roberta-base/refs/main",
            "models--FacebookAI--roberta-base/snapshots/abc123/config.json",
            "models--broken/refs/main",
        ]);
        for name in ["facebook/wav2vec2-base", "wav2vec2-base", "wav2vec2-base@refs/pr/1", "wav2vec2-base@abc123"] {
            let found = in_hub_cache(cache.path(), name).unwrap_or_else(|| panic!("{name}"));
            assert!(found.ends_with("models--facebook--wav2vec2-base/snapshots/abc123"), "{name}");
        }
        let found = in_hub_cache(cache.path(), "roberta-base").unwrap();
        assert!(found.ends_with("models--FacebookAI--roberta-base/snapshots/abc123"));
        for name in [
            "broken",
            "roberta-large",
            "wav2vec2-base@v1",
            "../x",
            "a/b/c",
            "/abs",
            "",
            "models/",
            "~/models",
            "a@../x",
        ] {
            assert_eq!(in_hub_cache(cache.path(), name), None, "{name}");
        }
    }

    #[test]
    fn a_ref_does_not_lead_out_of_the_cache() {
        let cache = cache(&["models--evil/refs/main", "secret/config.json"]);
        std::fs::create_dir_all(cache.path().join("models--evil/snapshots")).unwrap();
        for commit in ["../../secret", "/", "", ".."] {
            std::fs::write(cache.path().join("models--evil/refs/main"), commit).unwrap();
            assert_eq!(in_hub_cache(cache.path(), "evil"), None, "{commit:?}");
        }
    }

    #[test]
    fn a_name_is_shown_as_it_is_typed() {
        for text in ["roberta-base", "facebook/wav2vec2-base", "org/model@refs/pr/1"] {
            assert_eq!(HubName::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(HubName::parse("a/b@main").unwrap().to_string(), "a/b");
        assert_eq!(HubName::parse("a@v1").unwrap().at("v2").unwrap().to_string(), "a@v2");
        assert_eq!(HubName::parse("a").unwrap().at("../x"), None);
    }
}
