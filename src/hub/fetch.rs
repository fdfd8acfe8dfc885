//! Fetching a model: what the repository has, which files of it are needed, and these into the cache.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::client::{self, Client, Failure};
use super::download::{Download, Remote};
use super::{HubError, Settings, lacks};
use crate::checkpoint::{source, sums};
use crate::config::hub::{self, HubName};
use crate::config::locate::WEIGHTS;
use crate::files;
use crate::files::CONFIG;
use crate::terminal::progress::{Event, Progress};

/// What is fetched beside config and weights, where the repository has it.
const BESIDE: &[&str] = &[
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    sums::FILE,
];

/// A model that was fetched, or that was there.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    pub id: String,
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// The snapshot in the cache.
    pub folder: PathBuf,
    pub files: Vec<ModelFile>,
}

/// A file of a model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelFile {
    pub name: String,
    pub bytes: u64,
}

/// Brings a model into the cache; what is there and complete is not fetched again.
///
/// # Errors
/// [`HubError`]
pub fn fetch(name: &HubName, settings: &Settings, progress: &mut Progress) -> Result<Model, HubError> {
    if settings.is_offline {
        return complete(name, &settings.cache).map_err(|missing| HubError::Offline {
            id: name.to_string(),
            cache: settings.cache.clone(),
            missing,
        });
    }
    let client = Client::new(settings);
    let mut unknown = None;
    for id in name.ids() {
        let hub = Hub { client: &client, cache: &settings.cache, id, revision: name.revision() };
        match hub.fetch(progress) {
            Err(problem) if problem.is_unknown() => {
                unknown.get_or_insert(problem);
            }
            Err(HubError::Unreachable { id, reason }) => {
                let Ok(model) = complete(name, &settings.cache) else {
                    return Err(HubError::Unreachable { id, reason });
                };
                let text = format!("cannot reach the hub ({reason}); {name} is taken from the cache as it is");
                progress.handle(&Event::Message(&text));
                return Ok(model);
            }
            other => return other,
        }
    }
    Err(unknown.unwrap_or_else(|| HubError::Name { name: name.to_string() }))
}

/// The model as the cache has it, else what the cache lacks.
fn complete(name: &HubName, cache: &Path) -> Result<Model, String> {
    let mut missing = None;
    for id in name.ids() {
        let Some(folder) = hub::snapshot(cache, id, name.revision()) else { continue };
        match lacks(&folder) {
            None => {
                let names = [CONFIG].iter().chain(WEIGHTS).chain(BESIDE).map(|name| (*name).to_owned());
                let mut found: Vec<String> = names.filter(|name| folder.join(name).is_file()).collect();
                if let Some(index) = found.iter().find(|name| is_index(name)) {
                    found.extend(source::shards(&folder.join(index)).into_iter().flatten());
                }
                return model(id, name.revision(), folder, found).map_err(|problem| problem.to_string());
            }
            Some(lacking) => missing = Some(format!("{lacking} of {name}")),
        }
    }
    Err(missing.unwrap_or_else(|| name.to_string()))
}

fn model(id: &str, revision: &str, folder: PathBuf, names: Vec<String>) -> Result<Model, HubError> {
    let file = |name: String| {
        let path = folder.join(&name);
        let bytes = std::fs::metadata(&path).map_err(|cause| HubError::Disk { path, cause })?.len();
        Ok(ModelFile { name, bytes })
    };
    let files = names.into_iter().map(file).collect::<Result<_, _>>()?;
    Ok(Model { id: id.to_owned(), revision: revision.to_owned(), folder, files })
}

/// One id at one revision.
struct Hub<'a> {
    client: &'a Client,
    cache: &'a Path,
    id: &'a str,
    revision: &'a str,
}

/// What the hub tells of a repository.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Remote>,
}

impl Hub<'_> {
    fn fetch(&self, progress: &mut Progress) -> Result<Model, HubError> {
        let listing = self.listing()?;
        let mut wanted = self.wanted(&listing)?;
        let folder = hub::model_folder(self.id);
        let snapshot = self.cache.join(&folder).join("snapshots").join(&listing.sha);
        // All files are of one commit, also where the branch moves meanwhile.
        let (commit, snapshot, folder) = (&*listing.sha, &*snapshot, &*folder);
        let download = Download { client: self.client, id: self.id, commit, cache: self.cache, folder, snapshot };
        for file in &wanted {
            download.run(file, progress)?;
        }
        if let Some(index) = wanted.iter().find(|file| is_index(&file.name)) {
            let shards = self.shards(&snapshot.join(&index.name), &listing)?;
            for shard in &shards {
                download.run(shard, progress)?;
            }
            wanted.extend(shards);
        }
        if let Some(missing) = lacks(snapshot) {
            return Err(self.lacks(missing));
        }
        // The branch leads to the snapshot only now that this is complete.
        if self.revision != commit {
            let path = self.cache.join(folder).join("refs").join(self.revision);
            let written = std::fs::create_dir_all(path.parent().unwrap_or(&path))
                .map_err(|cause| HubError::Disk { path: path.clone(), cause })
                .and_then(|()| {
                    files::replace_file(&path, commit.as_bytes())
                        .map_err(|problem| HubError::Disk { path: path.clone(), cause: problem.cause })
                });
            written?;
        }
        let names = wanted.into_iter().map(|file| file.name).collect();
        model(self.id, self.revision, snapshot.to_owned(), names)
    }

    /// Asks what the repository has.
    fn listing(&self) -> Result<Listing, HubError> {
        let id = self.id.to_owned();
        let body = self.client.listing(self.id, self.revision).map_err(|problem| match problem {
            Failure::Status(404) => HubError::NotFound { id, revision: self.revision.to_owned() },
            Failure::Status(status @ (401 | 403)) => HubError::Refused { id, status },
            Failure::Status(status) => self.useless(format!("status {status}")),
            Failure::Unreachable(reason) => HubError::Unreachable { id, reason },
            Failure::Answer(reason) => self.useless(reason),
        })?;
        let listing: Listing =
            serde_json::from_slice(&body).map_err(|problem| self.useless(client::clean(&problem.to_string())))?;
        // It becomes the name of a folder.
        if !(40..=64).contains(&listing.sha.len()) || !listing.sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.useless(format!("{:?} is no commit", client::clean(&listing.sha))));
        }
        Ok(listing)
    }

    fn useless(&self, reason: String) -> HubError {
        HubError::Answer { id: self.id.to_owned(), reason }
    }

    fn lacks(&self, missing: String) -> HubError {
        HubError::Lacks { id: self.id.to_owned(), missing }
    }

    /// Config, one form of weights, and what the repository has of the rest.
    fn wanted(&self, listing: &Listing) -> Result<Vec<Remote>, HubError> {
        let find = |name: &&str| listing.siblings.iter().find(|file| file.name == *name).cloned();
        match (find(&CONFIG), WEIGHTS.iter().find_map(find)) {
            (Some(config), Some(weights)) => {
                let beside = BESIDE.iter().filter_map(find);
                let files: Vec<Remote> = [config].into_iter().chain(beside).chain([weights]).collect();
                files.iter().find_map(Remote::problem).map_or(Ok(files), |problem| Err(self.useless(problem)))
            }
            (config, weights) => {
                let config = config.is_none().then_some(CONFIG);
                let weights = weights.is_none().then_some("weights (model.safetensors or pytorch_model.bin)");
                Err(self.lacks([config, weights].into_iter().flatten().collect::<Vec<_>>().join(" and no ")))
            }
        }
    }

    /// The shards that an index names.
    fn shards(&self, index: &Path, listing: &Listing) -> Result<Vec<Remote>, HubError> {
        let names = source::shards(index).map_err(|problem| self.useless(problem.to_string()))?;
        let find = |name: String| {
            if !hub::is_word(&name) {
                return Err(self.useless(format!("{:?} is no name of a shard", client::clean(&name))));
            }
            let file = listing.siblings.iter().find(|file| file.name == name).cloned();
            let file = file.ok_or_else(|| self.lacks(format!("{name}, a shard of its weights")))?;
            file.problem().map_or(Ok(file), |problem| Err(self.useless(problem)))
        };
        names.into_iter().map(find).collect()
    }
}

fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}
