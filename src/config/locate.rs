//! Where an encoder's files are: a folder, or a model of the Hugging Face cache. Nothing is fetched here.
//!
//! Resolving a config only turns names into folders; `train` and `doctor` call [`encoder`] and [`tokenizer`] to see
//! that the files are there.

use std::path::{Path, PathBuf};

use super::hub::SHORT_NAMES;
pub use super::hub::{hub_cache, in_hub_cache};
use super::problem::ConfigError;
use crate::files::{self, CONFIG};

/// The names of weights, the preferred one first.
pub(crate) const WEIGHTS: &[&str] =
    &[files::WEIGHTS, "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The files of an encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderFiles {
    /// `config.json`.
    pub config: PathBuf,
    /// The weights, or the index of their shards: one of `model.safetensors`, `pytorch_model.bin`, an index of either,
    /// or the folder's only fairseq file (`*.pt`).
    pub weights: PathBuf,
}

/// The files of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerFiles {
    /// `tokenizer.json`.
    Whole(PathBuf),
    /// Byte-level BPE in two files.
    Parts {
        /// `vocab.json`
        vocab: PathBuf,
        /// `merges.txt`
        merges: PathBuf,
    },
}

impl TokenizerFiles {
    /// The file that has the vocabulary.
    pub fn first(&self) -> &Path {
        match self {
            Self::Whole(path) | Self::Parts { vocab: path, .. } => path,
        }
    }
}

/// Finds an encoder's files in its resolved folder; `key` is the config key to name, as `text.checkpoint`.
///
/// # Errors
/// [`ConfigError::NoFolder`] or [`ConfigError::MissingFiles`], which lists all that is missing.
pub fn encoder(key: &'static str, folder: &Path) -> Result<EncoderFiles, ConfigError> {
    check_folder(key, folder, "config.json and model.safetensors (or pytorch_model.bin)")?;
    let config = Some(folder.join(CONFIG)).filter(|path| path.is_file());
    let named = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    match (config, named.or_else(|| only_fairseq_file(folder))) {
        (Some(config), Some(weights)) => Ok(EncoderFiles { config, weights }),
        (config, weights) => {
            let weights = weights.is_none().then_some("weights (model.safetensors or pytorch_model.bin)");
            Err(missing(key, folder, &[config.is_none().then_some(CONFIG), weights]))
        }
    }
}

/// Finds a tokenizer's files in its resolved folder.
///
/// # Errors
/// [`ConfigError::NoFolder`] or [`ConfigError::MissingFiles`].
pub fn tokenizer(folder: &Path) -> Result<TokenizerFiles, ConfigError> {
    const KEY: &str = "text.tokenizer";
    check_folder(KEY, folder, "tokenizer.json (or vocab.json and merges.txt)")?;
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    match (file("tokenizer.json"), file("vocab.json"), file("merges.txt")) {
        (Some(whole), ..) => Ok(TokenizerFiles::Whole(whole)),
        (None, Some(vocab), Some(merges)) => Ok(TokenizerFiles::Parts { vocab, merges }),
        (None, Some(_), None) => Err(missing(KEY, folder, &[Some("tokenizer.json or merges.txt (beside vocab.json)")])),
        (None, None, Some(_)) => Err(missing(KEY, folder, &[Some("tokenizer.json or vocab.json (beside merges.txt)")])),
        (None, None, None) => Err(missing(KEY, folder, &[Some("tokenizer.json, nor vocab.json with merges.txt")])),
    }
}

/// The folder that a text names: an existing path, else a model of the Hugging Face cache, else the path all the same.
pub fn folder(path: PathBuf, text: &str, cache: &Path) -> PathBuf {
    if path.exists() { path } else { in_hub_cache(cache, text).unwrap_or(path) }
}

fn only_fairseq_file(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let found: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ending| ending == "pt")).collect();
    match found.as_slice() {
        [file] => Some(file.clone()),
        _ => None,
    }
}

fn check_folder(key: &'static str, folder: &Path, files: &str) -> Result<(), ConfigError> {
    if folder.is_dir() {
        return Ok(());
    }
    // What is called models/roberta-base is most likely meant to be the hub's.
    let last = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = SHORT_NAMES.iter().map(|(name, _)| *name).find(|name| *name == last).unwrap_or("NAME");
    let (folder, cache, files) = (folder.to_owned(), hub_cache(), files.to_owned());
    Err(ConfigError::NoFolder { key, folder, cache, name, files })
}

fn missing(key: &'static str, folder: &Path, names: &[Option<&str>]) -> ConfigError {
    let missing = names.iter().flatten().copied().collect::<Vec<_>>().join(" and no ");
    ConfigError::MissingFiles { key, folder: folder.to_owned(), missing }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder with these files, each with one line.
    pub(in crate::config) fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "abc123\n").unwrap();
        }
        folder
    }

    #[test]
    fn safetensors_is_preferred_and_all_that_is_missing_is_named() {
        let both = folder(&["config.json", "pytorch_model.bin", "model.safetensors"]);
        let files = encoder("text.checkpoint", both.path()).unwrap();
        assert!(files.weights.ends_with("model.safetensors"));
        let fairseq = folder(&["config.json", "wav2vec_small.pt"]);
        assert!(encoder("speech.checkpoint", fairseq.path()).unwrap().weights.ends_with("wav2vec_small.pt"));
        let message = encoder("text.checkpoint", folder(&[]).path()).unwrap_err().to_string();
        assert!(message.contains("no config.json and no weights (model.safetensors"), "{message}");
        let message = encoder("text.checkpoint", Path::new("/no/such")).unwrap_err().to_string();
        assert!(message.contains("`text.checkpoint`: there is no folder /no/such"), "{message}");
        assert!(message.contains("`clasp models fetch NAME`, then set `text.checkpoint` to NAME"), "{message}");
        assert!(message.contains("or put config.json and model.safetensors"), "{message}");
        let message = encoder("text.checkpoint", Path::new("/no/roberta-base")).unwrap_err().to_string();
        assert!(message.contains("`clasp models fetch roberta-base`, then set"), "{message}");
    }

    #[test]
    fn a_tokenizer_is_one_file_or_two() {
        let whole = folder(&["tokenizer.json", "vocab.json", "merges.txt"]);
        assert_eq!(tokenizer(whole.path()).unwrap(), TokenizerFiles::Whole(whole.path().join("tokenizer.json")));
        let parts = folder(&["vocab.json", "merges.txt"]);
        assert!(matches!(tokenizer(parts.path()).unwrap(), TokenizerFiles::Parts { .. }));
        for files in [&["vocab.json"][..], &["merges.txt"], &[]] {
            assert!(tokenizer(folder(files).path()).unwrap_err().to_string().contains("has no tokenizer.json"));
        }
    }
}
