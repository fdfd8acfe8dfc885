//! One file of a repository, from the hub into the cache, as Python's `huggingface_hub` lays it out.
//!
//! A file comes into `blobs/<etag>.incomplete`, under a lock that Python's programs take too; once it is whole and has the
//! stated length and SHA-256 it becomes `blobs/<etag>`, and the snapshot links to it. So what a snapshot has is complete,
//! and what broke off goes on. Every name is made of letters, digits and dashes before it is part of a path, and no more
//! is written than the stated length.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use ureq::http::{StatusCode, header};

use super::HubError;
use super::client::{Answer, Client, Failure};
use crate::hash;
use crate::terminal::progress::{Event, Progress};
use crate::units;

/// Least progress, in bytes, per timeout and per connection.
const LEAST: u64 = 64 << 10;

/// Connections with less progress than that, until a download gives up.
const FEEBLE: usize = 5;

/// Size limit of files other than weights, in bytes: they are read whole.
const SMALL: u64 = 64 << 20;

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

    /// What is wrong with the listed hashes.
    pub fn problem(&self) -> Option<String> {
        let is_hash = |hash: &str, digits: usize| hash.len() == digits && hash.bytes().all(|x| x.is_ascii_hexdigit());
        let is_sound = self.sha256().is_none_or(|hash| is_hash(hash, 64))
            && self.blob.as_deref().is_none_or(|hash| is_hash(hash, 40) || is_hash(hash, 64));
        (!is_sound).then(|| format!("the listed hash of {} is none", self.name))
    }
}

/// A file whose place in the cache is known.
struct Blob {
    etag: String,
    size: u64,
}

/// Where a file comes from and where it goes.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub id: &'a str,
    pub commit: &'a str,
    /// The folder of the cache.
    pub cache: &'a Path,
    /// The name of the repository's folder in it.
    pub folder: &'a str,
    /// The snapshot of the commit.
    pub snapshot: &'a Path,
}

/// Why a connection ended before the file did.
enum End {
    /// The connection broke off; the next may go on.
    Broken(String),
    /// Nothing more is to be tried.
    Final(HubError),
}

impl Download<'_> {
    /// Brings a file into the snapshot, unless it is there.
    pub fn run(&self, file: &Remote, progress: &mut Progress) -> Result<(), HubError> {
        let target = self.snapshot.join(&file.name);
        let failed = |cause| HubError::Disk { path: target.clone(), cause };
        if fs::metadata(&target).is_ok_and(|found| found.is_file() && file.size.is_none_or(|size| size == found.len()))
        {
            return Ok(());
        }
        // A link that leads nowhere, or to what is cut.
        match fs::remove_file(&target) {
            Err(problem) if problem.kind() != ErrorKind::NotFound => return Err(failed(problem)),
            _ => {}
        }
        let blob = match (file.sha256().or(file.blob.as_deref()), file.size) {
            (Some(etag), Some(size)) => Blob { etag: etag.to_ascii_lowercase(), size },
            _ => self.ask(file)?,
        };
        let is_weights = [".safetensors", ".bin"].iter().any(|ending| file.name.ends_with(ending));
        if blob.size > SMALL && !is_weights {
            return Err(self.useless(&file.name, &format!("it is said to have {}", units::bytes(blob.size))));
        }
        let blobs = self.cache.join(self.folder).join("blobs");
        let place = blobs.join(&blob.etag);
        fs::create_dir_all(&blobs).and_then(|()| fs::create_dir_all(self.snapshot)).map_err(failed)?;
        if !fs::metadata(&place).is_ok_and(|found| found.is_file() && found.len() == blob.size) {
            self.fetch(file, &blob, &place, progress)?;
        }
        std::os::unix::fs::symlink(Path::new("../../blobs").join(&blob.etag), &target).map_err(failed)
    }

    /// What the listing does not state of a file is in the headers of an answer.
    fn ask(&self, file: &Remote) -> Result<Blob, HubError> {
        let answer = self.client.file(self.id, self.commit, &file.name, 0);
        let answer = answer.map_err(|problem| self.explain(&file.name, problem))?;
        let length = answer.response.body().content_length();
        match (answer.etag, file.size.or(answer.size).or(length)) {
            (Some(etag), Some(size)) => Ok(Blob { etag, size }),
            _ => Err(self.useless(&file.name, "it states no etag that can be a file's name, or no length")),
        }
    }

    fn fetch(&self, file: &Remote, blob: &Blob, place: &Path, progress: &mut Progress) -> Result<(), HubError> {
        let _lock = self.lock(file, blob)?;
        let path = place.with_extension("incomplete");
        let failed = |cause| HubError::Disk { path: path.clone(), cause };
        let mut part = File::options().create(true).append(true).read(true).open(&path).map_err(failed)?;
        let there = part.metadata().map_err(failed)?.len();
        if there > blob.size {
            part.set_len(0).map_err(failed)?;
        }
        self.check_space(file, blob.size.saturating_sub(there), place)?;
        progress.handle(&Event::Message(&format!("fetching {} ({})", file.name, units::bytes(blob.size))));
        let transferred = self.transfer(file, blob.size, &mut part, &path, progress);
        progress.handle(&Event::Finished);
        transferred?;
        part.sync_all().map_err(failed)?;
        if let Some(stated) = file.sha256()
            && hash::of_file(&path).map_err(failed)?.1 != stated.to_ascii_lowercase()
        {
            fs::remove_file(&path).map_err(failed)?;
            let reason = "its SHA-256 is not the stated one".to_owned();
            return Err(HubError::Damaged { id: self.id.to_owned(), file: file.name.clone(), reason });
        }
        fs::rename(&path, place).map_err(failed)
    }

    /// The lock of `huggingface_hub` on a file of the cache.
    fn lock(&self, file: &Remote, blob: &Blob) -> Result<File, HubError> {
        let folder = self.cache.join(".locks").join(self.folder);
        let path = folder.join(format!("{}.lock", blob.etag));
        let opened = fs::create_dir_all(&folder).and_then(|()| File::options().create(true).append(true).open(&path));
        let lock = opened.map_err(|cause| HubError::Disk { path: path.clone(), cause })?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(HubError::Busy { id: self.id.to_owned(), file: file.name.clone() }),
            Err(TryLockError::Error(cause)) => Err(HubError::Disk { path, cause }),
        }
    }

    /// A stated length fills no disk.
    fn check_space(&self, file: &Remote, needed: u64, place: &Path) -> Result<(), HubError> {
        let folder = place.parent().unwrap_or(place).to_owned();
        let Ok(disk) = rustix::fs::statvfs(&folder) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed <= free {
            return Ok(());
        }
        Err(HubError::Full { id: self.id.to_owned(), file: file.name.clone(), folder, needed, free })
    }

    /// As many connections as it takes, while each of them brings something.
    fn transfer(
        &self,
        file: &Remote,
        size: u64,
        part: &mut File,
        path: &Path,
        progress: &mut Progress,
    ) -> Result<(), HubError> {
        let failed = |cause| HubError::Disk { path: path.to_owned(), cause };
        let mut feeble = 0;
        loop {
            let start = part.metadata().map_err(failed)?.len();
            if start == size {
                return Ok(());
            }
            let reason = match self.connection(file, (start, size), part, path, progress) {
                Ok(()) => return Ok(()),
                Err(End::Final(problem)) => return Err(problem),
                Err(End::Broken(reason)) => reason,
            };
            let received = part.metadata().map_err(failed)?.len().saturating_sub(start);
            feeble += usize::from(received < LEAST);
            if received == 0 || feeble > FEEBLE {
                return Err(self.broken_off(file, reason));
            }
        }
    }

    /// One connection: what it brings behind what is there.
    fn connection(
        &self,
        file: &Remote,
        (mut done, size): (u64, u64),
        part: &mut File,
        path: &Path,
        progress: &mut Progress,
    ) -> Result<(), End> {
        let disk = |cause| End::Final(HubError::Disk { path: path.to_owned(), cause });
        let refuse = |problem: String| {
            // Whatever is there fits no answer; the next time begins anew.
            let _ = fs::remove_file(path);
            End::Final(self.useless(&file.name, &problem))
        };
        let mut answer = match self.client.file(self.id, self.commit, &file.name, done) {
            Ok(answer) => answer,
            Err(Failure::Unreachable(reason)) => return Err(End::Broken(reason)),
            Err(Failure::Status(416)) => return Err(refuse("status 416".into())),
            Err(problem) => return Err(End::Final(self.explain(&file.name, problem))),
        };
        if answer.response.status() != StatusCode::PARTIAL_CONTENT && done > 0 {
            // It begins at the front whatever it is asked for.
            part.set_len(0).map_err(disk)?;
            done = 0;
        }
        check_length(&answer, done, size).map_err(refuse)?;
        let mut body = answer.response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        let (mut since, mut recent) = (Instant::now(), 0);
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) if done == size => return Ok(()),
                Ok(0) => return Err(End::Broken(format!("{done} of {size} bytes"))),
                Ok(count) => count,
                Err(problem) if problem.kind() == ErrorKind::Interrupted => continue,
                Err(problem) => return Err(End::Broken(reason(&problem))),
            };
            if count as u64 > size - done {
                return Err(refuse(format!("more than the stated {size} bytes")));
            }
            part.write_all(&buffer[..count]).map_err(disk)?;
            done += count as u64;
            recent += count as u64;
            progress.handle(&Event::Bytes { what: &file.name, done, of: size });
            if recent >= LEAST {
                (since, recent) = (Instant::now(), 0);
            } else if since.elapsed() > self.client.patience && done < size {
                let reason = format!("only {recent} bytes in {}", units::elapsed(since.elapsed().as_secs_f64()));
                return Err(End::Final(self.broken_off(file, reason)));
            }
        }
    }

    fn explain(&self, name: &str, problem: Failure) -> HubError {
        let (id, file) = (self.id.to_owned(), name.to_owned());
        match problem {
            Failure::Status(status @ (401 | 403)) => HubError::Refused { id, status },
            Failure::Status(status) => HubError::BrokenOff { id, file, reason: format!("status {status}") },
            Failure::Unreachable(reason) => HubError::BrokenOff { id, file, reason },
            Failure::Answer(reason) => self.useless(name, &reason),
        }
    }

    fn broken_off(&self, file: &Remote, reason: String) -> HubError {
        HubError::BrokenOff { id: self.id.to_owned(), file: file.name.clone(), reason }
    }

    fn useless(&self, name: &str, reason: &str) -> HubError {
        HubError::Answer { id: self.id.to_owned(), reason: format!("{name}: {reason}") }
    }
}

/// What is stated of an answer's length, against what is listed.
fn check_length(answer: &Answer, start: u64, size: u64) -> Result<(), String> {
    let response = &answer.response;
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let stated = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let range = stated.and_then(|text| text.strip_prefix("bytes ")?.split_once('/'));
        let first = range.and_then(|(range, _)| range.split_once('-')?.0.parse::<u64>().ok());
        let is_whole = range.is_some_and(|(_, all)| all == "*" || all.parse() == Ok(size));
        if (first != Some(start) || !is_whole) && (stated.is_some() || start > 0) {
            return Err(format!("it sends another part than from byte {start} of {size}"));
        }
    }
    match response.body().content_length() {
        Some(length) if length > size - start => Err(format!("it sends {length} bytes instead of {}", size - start)),
        _ => Ok(()),
    }
}

/// Without what `ureq` packs into an error of reading.
fn reason(problem: &io::Error) -> String {
    match problem.kind() {
        ErrorKind::TimedOut => "nothing arrives".to_owned(),
        _ => problem.to_string(),
    }
}
