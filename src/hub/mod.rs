//! Encoders and checkpoints of the Hugging Face hub: fetching them into the cache, and what the cache has.
//!
//! Only `clasp models fetch` asks the network; wherever a config or a flag takes a folder, it also takes the name of a
//! model that lies in the cache ([`crate::config::hub`]).

mod client;
mod download;
mod fetch;
mod list;

pub use fetch::{Model, ModelFile, fetch};
pub use list::{Cached, list};

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checkpoint::source;
use crate::config::{ConfigError, hub, locate};
use crate::files;
use crate::units;

/// How long nothing may arrive where `HF_HUB_DOWNLOAD_TIMEOUT` is not set.
const PATIENCE: Duration = Duration::from_mins(1);

/// A token in a file is a line.
const TOKEN: u64 = 4096;

/// What decides where models come from and where they go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the cache.
    pub cache: PathBuf,
    /// The address of the hub, where it is not the usual one.
    pub endpoint: Option<String>,
    /// What is shown to the hub.
    pub token: Option<String>,
    /// Whether the network must be left alone.
    pub is_offline: bool,
    /// How long nothing may arrive.
    pub patience: Duration,
}

impl Settings {
    /// Those of `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and `HF_HUB_DOWNLOAD_TIMEOUT`.
    ///
    /// # Errors
    /// [`HubError::Endpoint`], [`HubError::Token`], [`HubError::Timeout`]
    pub fn from_environment() -> Result<Self, HubError> {
        let variable = |name: &str| {
            let value = std::env::var(name).ok()?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let is_offline =
            variable("HF_HUB_OFFLINE").is_some_and(|word| ["1", "on", "yes", "true"].contains(&&*word.to_lowercase()));
        let endpoint = variable("HF_ENDPOINT")
            .map(|typed| {
                let address = typed.trim_end_matches('/').to_owned();
                let is_address = address.starts_with("http://") || address.starts_with("https://");
                is_address.then_some(address).ok_or(HubError::Endpoint { endpoint: typed })
            })
            .transpose()?;
        let cache = hub::hub_cache();
        let token = variable("HF_TOKEN").or_else(|| token_beside(&cache));
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(HubError::Token);
        }
        let patience = match variable("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => PATIENCE,
            Some(typed) => match typed.parse() {
                Ok(seconds @ 1..=86_400) => Duration::from_secs(seconds),
                _ => return Err(HubError::Timeout { typed }),
            },
        };
        Ok(Self { cache, endpoint, token, is_offline, patience })
    }
}

/// The token that other programs have left beside the cache.
fn token_beside(cache: &Path) -> Option<String> {
    let token = files::read_text(&cache.parent()?.join("token"), TOKEN).ok()?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

/// What a folder lacks to be an encoder's or a checkpoint's; `None` if it has all.
pub fn lacks(folder: &Path) -> Option<String> {
    let weights = match locate::encoder("models", folder) {
        Ok(files) => files.weights,
        Err(ConfigError::MissingFiles { missing, .. }) => return Some(missing),
        Err(other) => return Some(other.to_string()),
    };
    if weights.extension().is_none_or(|ending| ending != "json") {
        return None;
    }
    match source::shards(&weights) {
        Ok(shards) => shards.into_iter().find(|shard| !folder.join(shard).is_file()),
        Err(problem) => Some(format!("valid index of its shards ({problem})")),
    }
}

/// Why a model was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A name of another form.
    #[error(
        "{name:?} is no model's name; give a short name (roberta-base, wav2vec2-base) or a hub id \
         (facebook/wav2vec2-base), a revision behind @ or with --revision"
    )]
    Name { name: String },
    /// An address that cannot be one.
    #[error("HF_ENDPOINT is {endpoint:?}; it must be an address that begins with http:// or https://, or not be set")]
    Endpoint { endpoint: String },
    /// It cannot be sent.
    #[error("HF_TOKEN, or the file `token` beside the cache, has a space or a letter that no token has; copy it again")]
    Token,
    /// Not a number of seconds.
    #[error("HF_HUB_DOWNLOAD_TIMEOUT is {typed:?}; it must be whole seconds from 1 to 86400, or not be set")]
    Timeout { typed: String },
    /// The hub does not know the model or the revision.
    #[error("the hub has no model {id} with a revision {revision}; check both names, or {}", by_hand(id))]
    NotFound {
        id: String,
        /// The branch, tag or commit.
        revision: String,
    },
    /// The hub does not give the model out.
    #[error(
        "the hub refuses {id} (status {status}): there is no such model, or it is private or gated; check the name, \
         set HF_TOKEN to a token that may read it, or {}",
        by_hand(id)
    )]
    Refused {
        id: String,
        /// 401 or 403.
        status: u16,
    },
    /// The repository is no model that can be used.
    #[error("the repository {id} has no {missing}; name another model or revision, or {}", by_hand(id))]
    Lacks {
        id: String,
        /// All that it lacks.
        missing: String,
    },
    /// The network was to be left alone, and the cache does not have everything.
    #[error(
        "HF_HUB_OFFLINE is set, so nothing is asked of the hub, and the cache {} has no {missing}; unset it, or {}",
        cache.display(),
        by_hand(id)
    )]
    Offline { id: String, cache: PathBuf, missing: String },
    /// The hub did not answer.
    #[error(
        "cannot reach the hub for {id} ({reason}); try again later, set HF_ENDPOINT to a mirror, or {}",
        by_hand(id)
    )]
    Unreachable { id: String, reason: String },
    /// What the hub answered makes no sense.
    #[error("the hub's answer for {id} is unusable ({reason}); check HF_ENDPOINT, try again later, or {}", by_hand(id))]
    Answer { id: String, reason: String },
    #[error("the download of {file} of {id} was interrupted ({reason}); the same command resumes it")]
    BrokenOff { id: String, file: String, reason: String },
    /// What was downloaded is not what the hub has.
    #[error("{file} of {id} arrived damaged ({reason}) and was removed; run the same command again")]
    Damaged { id: String, file: String, reason: String },
    /// Another process downloads the same file.
    #[error("another process downloads {file} of {id}; wait for it, then run the same command again")]
    Busy { id: String, file: String },
    /// The file is longer than what is free.
    #[error(
        "{file} of {id} has {}, but only {} are free on the disk of {}; make room, or set HF_HUB_CACHE or HF_HOME to \
         another folder",
        units::bytes(*needed), units::bytes(*free), folder.display()
    )]
    Full { id: String, file: String, folder: PathBuf, needed: u64, free: u64 },
    /// The cache cannot be read or written.
    #[error("cannot use the cache folder {}: {cause}; set HF_HUB_CACHE or HF_HOME to another", path.display())]
    Disk { path: PathBuf, cause: std::io::Error },
}

impl HubError {
    /// Whether the command line is at fault, not the network or the disk.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Name { .. }
                | Self::Endpoint { .. }
                | Self::Token
                | Self::Timeout { .. }
                | Self::NotFound { .. }
                | Self::Refused { .. }
                | Self::Lacks { .. }
        )
    }

    /// Whether another id of the same model may do better.
    fn is_unknown(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Refused { .. })
    }
}

/// How to do without the hub.
fn by_hand(id: &str) -> String {
    let last = id.rsplit('/').next().unwrap_or(id);
    format!(
        "put config.json, model.safetensors (or pytorch_model.bin) and, for a text encoder or a checkpoint, \
         tokenizer.json (or vocab.json with merges.txt) into the folder models/{last} and name that folder instead"
    )
}
