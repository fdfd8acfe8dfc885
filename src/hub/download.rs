//! One file of a repository, from the hub into the cache.
//!
//! `hf-hub` downloads into `blobs/<etag>.part`, renames that when it is whole and links to it from the snapshot, so
//! that what a snapshot has is complete. What it does not do is done here: it resumes again while there is progress,
//! compares size and SHA-256 with what the hub states, and takes what another snapshot has already.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use hf_hub::CacheRepo;
use hf_hub::api::sync::{ApiError, ApiRepo};
use serde::Deserialize;

use super::HubError;
use crate::hash;
use crate::panics;
use crate::terminal::progress::{Event, Progress};
use crate::units;

/// A file as the hub lists it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Remote {
    #[serde(rename = "rfilename")]
    pub name: String,
    pub size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

/// What the hub states of a large file.
#[derive(Clone, Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

impl Remote {
    fn sha256(&self) -> Option<&str> {
        self.lfs.as_ref()?.sha256.as_deref()
    }

    /// The name of the file's contents in the cache; it must not lead out of it.
    fn etag(&self) -> Option<&str> {
        let etag = self.sha256().or(self.blob.as_deref())?;
        etag.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(etag)
    }

    fn fits(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| found.is_file() && self.size.is_none_or(|size| size == found.len()))
    }
}

/// Where a file comes from and where it goes.
pub(super) struct Download<'a> {
    pub id: &'a str,
    /// The repository at one commit.
    pub remote: &'a ApiRepo,
    /// Its part of the cache.
    pub cache: &'a CacheRepo,
    /// The snapshot of the commit.
    pub snapshot: &'a Path,
}

impl Download<'_> {
    /// Brings a file into the snapshot, unless it is there.
    pub fn run(&self, file: &Remote, progress: &mut Progress) -> Result<(), HubError> {
        let target = self.snapshot.join(&file.name);
        let failed = |cause| HubError::Disk { path: target.clone(), cause };
        if file.fits(&target) {
            return Ok(());
        }
        // A link that leads nowhere, or to what is cut.
        match fs::remove_file(&target) {
            Err(problem) if problem.kind() != ErrorKind::NotFound => return Err(failed(problem)),
            _ => {}
        }
        if let Some(etag) = file.etag() {
            let blob = self.cache.blob_path(etag);
            if file.size.is_some() && file.fits(&blob) {
                fs::create_dir_all(self.snapshot).map_err(failed)?;
                return std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), &target).map_err(failed);
            }
            let part = blob.with_extension("part");
            // A part that is whole, or more than that, cannot be gone on with.
            if file.size.is_some_and(|size| fs::metadata(&part).is_ok_and(|part| part.len() >= size)) {
                fs::remove_file(&part).map_err(failed)?;
            }
        }
        let size = file.size.map(|size| format!(" ({})", units::bytes(size))).unwrap_or_default();
        progress.handle(&Event::Message(&format!("fetching {}{size}", file.name)));
        self.transfer(&file.name, progress)?;
        self.check(file, &target)
    }

    /// As many connections as it takes, while each of them brings something.
    fn transfer(&self, name: &str, progress: &mut Progress) -> Result<(), HubError> {
        loop {
            let mut received = 0;
            let progress = &mut *progress;
            let watch = Watch { name, progress, done: 0, of: 0, is_resumed: false, received: &mut received };
            // hf-hub panics at some answers that no hub gives.
            match panics::catch(|| self.remote.download_with_progress(name, watch)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(ApiError::IoError(problem))) if received > 0 && !is_of_the_disk(&problem) => {}
                Ok(Err(problem)) => return Err(self.explain(name, problem)),
                Err(words) => return Err(HubError::Answer { id: self.id.to_owned(), reason: words }),
            }
        }
    }

    fn explain(&self, name: &str, problem: ApiError) -> HubError {
        let (id, file) = (self.id.to_owned(), name.to_owned());
        match problem {
            ApiError::RequestError(problem) => match *problem {
                ureq::Error::StatusCode(status @ (401 | 403)) => HubError::Refused { id, status },
                problem => HubError::BrokenOff { id, file, reason: problem.to_string() },
            },
            ApiError::IoError(cause) if is_of_the_disk(&cause) => {
                HubError::Disk { path: self.snapshot.join(name), cause }
            }
            ApiError::IoError(problem) => HubError::BrokenOff { id, file, reason: problem.to_string() },
            ApiError::LockAcquisition(_) => HubError::Busy { id, file },
            other => HubError::Answer { id, reason: format!("{name}: {other}") },
        }
    }

    /// Compares the file with what the hub states, and removes it where it differs.
    fn check(&self, file: &Remote, target: &Path) -> Result<(), HubError> {
        let failed = |cause| HubError::Disk { path: target.to_owned(), cause };
        let found = fs::metadata(target).map_err(failed)?.len();
        let reason = match (file.size, file.sha256()) {
            (Some(size), _) if size != found => format!("{found} bytes instead of {size}"),
            (_, Some(stated)) if hash::of_file(target).map_err(failed)?.1 != stated.to_ascii_lowercase() => {
                "its SHA-256 is not the stated one".to_owned()
            }
            _ => return Ok(()),
        };
        let blob = fs::canonicalize(target).map_err(failed)?;
        fs::remove_file(target).and_then(|()| fs::remove_file(blob)).map_err(failed)?;
        Err(HubError::Damaged { id: self.id.to_owned(), file: file.name.clone(), reason })
    }
}

/// Whether a failure is that of the disk; `hf-hub` reports those of the network as the same kind of error.
fn is_of_the_disk(problem: &io::Error) -> bool {
    use ErrorKind::{
        AlreadyExists, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    [AlreadyExists, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull]
        .contains(&problem.kind())
}

/// Tells of one connection's progress.
struct Watch<'a> {
    name: &'a str,
    progress: &'a mut Progress,
    done: u64,
    of: u64,
    /// Whether what an earlier connection brought was told.
    is_resumed: bool,
    /// Bytes of this connection.
    received: &'a mut u64,
}

impl hf_hub::api::Progress for Watch<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        (self.done, self.of, self.is_resumed) = (0, size as u64, false);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        // The first is what was there before, even if that is nothing.
        if self.is_resumed {
            *self.received += size as u64;
        }
        self.is_resumed = true;
        self.progress.handle(&Event::Bytes { what: self.name, done: self.done, of: self.of });
    }

    fn finish(&mut self) {
        self.progress.handle(&Event::Finished);
    }
}
