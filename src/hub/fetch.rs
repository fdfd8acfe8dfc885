//! Fetching a model: what the repository has, which files of it are needed, and these into the cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde::{Deserialize, Serialize};

use super::download::{Download, Remote};
use super::{HubError, Settings, lacks};
use crate::checkpoint::source;
use crate::config::hub::{self, HubName};
use crate::config::locate::{CONFIG, WEIGHTS};
use crate::terminal::progress::{Event, Progress};

/// What is fetched beside config and weights, where the repository has it.
const BESIDE: &[&str] = &[
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
];

/// A hub that does not answer the first question in this time is not there.
const PATIENCE: Duration = Duration::from_secs(30);

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
    let unbuilt = |problem: ApiError| HubError::Unreachable { id: name.to_string(), reason: problem.to_string() };
    let api = api(settings).map_err(unbuilt)?;
    let mut unknown = None;
    for id in name.ids() {
        let hub = Hub { api: &api, cache: &settings.cache, id, revision: name.revision() };
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

/// `hf-hub` itself reads only some of the variables.
fn api(settings: &Settings) -> Result<Api, ApiError> {
    let mut builder = ApiBuilder::from_cache(Cache::new(settings.cache.clone())).with_progress(false);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(token) = &settings.token {
        builder = builder.with_token(Some(token.clone()));
    }
    builder.build()
}

/// One id at one revision.
struct Hub<'a> {
    api: &'a Api,
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
        let cache = Cache::new(self.cache.to_owned());
        // All files are of one commit, also where the branch moves meanwhile.
        let at_commit = self.repository(&listing.sha);
        let in_cache = cache.repo(at_commit.clone());
        let snapshot = in_cache.pointer_path(&listing.sha);
        let remote = self.api.repo(at_commit);
        let download = Download { id: self.id, remote: &remote, cache: &in_cache, snapshot: &snapshot };
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
        // The branch leads to the snapshot only now that this is complete; hf-hub has made a ref of the commit's name.
        let failed = |cause| HubError::Disk { path: snapshot.clone(), cause };
        if self.revision != listing.sha {
            cache.repo(self.repository(self.revision)).create_ref(&listing.sha).map_err(failed)?;
        }
        let _ = std::fs::remove_file(self.cache.join(hub::model_folder(self.id)).join("refs").join(&listing.sha));
        if let Some(missing) = lacks(&snapshot) {
            return Err(self.lacks(missing));
        }
        let names = wanted.into_iter().map(|file| file.name).collect();
        model(self.id, self.revision, snapshot, names)
    }

    fn repository(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.to_owned(), RepoType::Model, revision.to_owned())
    }

    /// Asks what the repository has.
    fn listing(&self) -> Result<Listing, HubError> {
        let request = self.api.repo(self.repository(self.revision)).info_request().query("blobs", "true");
        let request = request.config().timeout_connect(Some(PATIENCE)).timeout_recv_response(Some(PATIENCE)).build();
        let listing: Listing = request
            .call()
            .and_then(|mut response| response.body_mut().read_json())
            .map_err(|problem| self.explain(problem))?;
        // It becomes the name of a folder.
        if listing.sha.is_empty() || !listing.sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.useless(format!("{:?} is no commit", listing.sha)));
        }
        Ok(listing)
    }

    fn explain(&self, problem: ureq::Error) -> HubError {
        let id = self.id.to_owned();
        match problem {
            ureq::Error::StatusCode(404) => HubError::NotFound { id, revision: self.revision.to_owned() },
            ureq::Error::StatusCode(status @ (401 | 403)) => HubError::Refused { id, status },
            ureq::Error::StatusCode(status) => self.useless(format!("status {status}")),
            ureq::Error::Json(problem) => self.useless(problem.to_string()),
            other => HubError::Unreachable { id, reason: other.to_string() },
        }
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
                Ok([config].into_iter().chain(BESIDE.iter().filter_map(find)).chain([weights]).collect())
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
            let file = listing.siblings.iter().find(|file| file.name == name).cloned();
            file.ok_or_else(|| self.lacks(format!("{name}, a shard of its weights")))
        };
        names.into_iter().map(find).collect()
    }
}

fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}
