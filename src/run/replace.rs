//! Replacing a folder by a whole new one: whoever looks, even after a kill or a full disk, finds either the
//! old one or the new one.
//!
//! A folder is written beside its target, brought to the disk, and then exchanged with the target in one step. Where
//! the file system cannot exchange, the target is a symbolic link to the folder, and a new link is renamed over it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::files::{FileError, TEMPORARY};

/// The folders that links point to where the file system cannot exchange.
const LINKED: &str = ".clasp-linked-";
/// A folder on its way to become a linked one.
const MOVED: &str = ".clasp-moved-";

/// Why a folder was not replaced. Whatever was there is still there.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError<E: std::error::Error + 'static> {
    /// The new folder could not be written.
    #[error("cannot save {path} (what was there before is kept)", path = path.display())]
    Write { path: PathBuf, source: E },
    /// It could not be put in place.
    #[error("cannot save {path} (what was there before is kept)", path = path.display())]
    Files {
        path: PathBuf,
        /// Which operation failed.
        source: FileError,
    },
}

/// How a whole new folder takes the place of the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By exchange where the file system can, by link otherwise.
    Detect,
    Link,
}

/// Writes a folder with `write`, which gets the path of an empty one, and puts it in the place of `target` in one step.
///
/// # Errors
/// When `write` fails or the new folder cannot be put in place. The old folder stays, and what was written is removed.
pub fn replace_folder<E: std::error::Error>(
    target: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), ReplaceError<E>> {
    replace_folder_by(Method::Detect, target, write)
}

/// As [`replace_folder`], with the method chosen by the caller.
///
/// # Errors
/// As [`replace_folder`].
pub fn replace_folder_by<E: std::error::Error>(
    method: Method,
    target: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), ReplaceError<E>> {
    let failed = |source| ReplaceError::Files { path: target.to_owned(), source };
    let place = Place::of(target).map_err(failed)?;
    let new = place.fresh(TEMPORARY);
    fs::create_dir(&new).map_err(|source| failed(FileError::new("create", &new, source)))?;
    let result = write(&new)
        .map_err(|source| ReplaceError::Write { path: target.to_owned(), source })
        .and_then(|()| place.put(method, &new).map_err(failed));
    if result.is_err() {
        // The error to report is the first one; what cannot be removed now is removed at the next start.
        let _ = fs::remove_dir_all(&new);
    }
    result
}

/// Puts right what a killed process left in `folder`: unfinished files and folders are removed, and a folder that was
/// on its way to become a linked one is put back. Call it before anything is read, and only while no other process
/// writes there.
///
/// # Errors
/// When the folder cannot be listed or something in it cannot be removed.
pub fn remove_leftovers(folder: &Path) -> Result<(), FileError> {
    let mut names = Vec::new();
    let mut linked_to = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| FileError::new("list", folder, source))? {
        let entry = entry.map_err(|source| FileError::new("list", folder, source))?;
        if let Ok(destination) = fs::read_link(entry.path()) {
            let is_temporary = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
            linked_to.extend((!is_temporary).then(|| destination.into_os_string()));
        }
        names.push(entry.file_name());
    }
    for name in names {
        let path = folder.join(&name);
        let text = name.to_string_lossy();
        if let Some(original) = text.strip_prefix(MOVED) {
            let original = folder.join(original);
            if fs::symlink_metadata(&original).is_err() {
                fs::rename(&path, &original).map_err(|source| FileError::new("put back", &original, source))?;
                continue;
            }
        } else if !text.starts_with(TEMPORARY) && (!text.starts_with(LINKED) || linked_to.contains(&name)) {
            continue;
        }
        remove(&path).map_err(|source| FileError::new("remove", &path, source))?;
    }
    Ok(())
}

/// Removes a file, a link, or a folder with all that is in it; nothing if there is nothing.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The target of a replacement: the folder it lies in, and its name there.
struct Place {
    parent: PathBuf,
    name: OsString,
}

impl Place {
    fn of(target: &Path) -> Result<Self, FileError> {
        let unnamed = || io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a name");
        let name = target.file_name().ok_or_else(|| FileError::new("write", target, unnamed()))?.to_owned();
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Self { parent, name })
    }

    fn target(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// A path beside the target where nothing is.
    fn fresh(&self, prefix: &str) -> PathBuf {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let mut name = OsString::from(prefix);
            name.push(&self.name);
            name.push(format!("-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
            let path = self.parent.join(name);
            // In a container a killed process had the same number.
            if fs::symlink_metadata(&path).is_err() {
                return path;
            }
        }
    }

    /// Puts the whole folder `new` in the place of the target.
    fn put(&self, method: Method, new: &Path) -> Result<(), FileError> {
        sync_tree(new)?;
        let target = self.target();
        let there = fs::symlink_metadata(&target).ok();
        if method == Method::Detect && there.as_ref().is_none_or(fs::Metadata::is_dir) && self.exchange(new)? {
            sync(&self.parent)?;
            if there.is_some() {
                // `new` is now the old folder. The new one is in place: what cannot be removed is no reason to fail.
                let _ = fs::remove_dir_all(new);
            }
            return Ok(());
        }
        self.link(new, there.is_some_and(|metadata| metadata.is_dir()))
    }

    /// Exchanges `new` with the target, or renames it where there is no target yet. False where the file system cannot
    /// exchange: then nothing has changed.
    fn exchange(&self, new: &Path) -> Result<bool, FileError> {
        let target = self.target();
        if fs::symlink_metadata(&target).is_err() {
            if !self.can_exchange()? {
                return Ok(false);
            }
            fs::rename(new, &target).map_err(|source| FileError::new("create", &target, source))?;
            return Ok(true);
        }
        exchanged(new, &target).map_err(|source| FileError::new("replace", &target, source))
    }

    /// Whether two folders beside the target can be exchanged. Asked before the first one is put in place, because a
    /// folder cannot become a link in one step later.
    fn can_exchange(&self) -> Result<bool, FileError> {
        let (first, second) = (self.fresh(TEMPORARY), self.fresh(TEMPORARY));
        let tried =
            fs::create_dir(&first).and_then(|()| fs::create_dir(&second)).and_then(|()| exchanged(&first, &second));
        let _ = (fs::remove_dir(&first), fs::remove_dir(&second));
        tried.map_err(|source| FileError::new("write in", &self.parent, source))
    }

    /// Lets the target be a link to `new`.
    fn link(&self, new: &Path, is_folder: bool) -> Result<(), FileError> {
        let target = self.target();
        let old = fs::read_link(&target).ok().map(|old| self.parent.join(old));
        let linked = self.fresh(LINKED);
        let link = self.fresh(TEMPORARY);
        let action = |action, path: &Path| {
            let path = path.to_owned();
            move |cause| FileError { action, path, cause }
        };
        let name = linked.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(name, &link).map_err(action("link", &link))?;
        let moved = {
            let mut name = OsString::from(MOVED);
            name.push(&self.name);
            self.parent.join(name)
        };
        let placed = fs::rename(new, &linked).map_err(action("rename", new)).and_then(|()| {
            if is_folder {
                // Only where a run was copied from a file system that can exchange to one that cannot: no single step
                // leads from a folder to a link. A process killed between these two renames is put right by
                // `remove_leftovers`.
                fs::rename(&target, &moved).map_err(action("rename", &target))?;
            }
            fs::rename(&link, &target).map_err(action("replace", &target))
        });
        if let Err(error) = placed {
            if is_folder && fs::symlink_metadata(&target).is_err() {
                let _ = fs::rename(&moved, &target);
            }
            let _ = (fs::remove_file(&link), fs::remove_dir_all(&linked));
            return Err(error);
        }
        sync(&self.parent)?;
        // The new one is in place: what cannot be removed is no reason to fail.
        let _ = remove(&moved);
        if let Some(old) = old.filter(|old| is_linked_folder(old)) {
            let _ = fs::remove_dir_all(old);
        }
        Ok(())
    }
}

/// Only folders of our own making are removed: a user may have linked the target to somewhere.
fn is_linked_folder(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LINKED))
}

/// Exchanges two paths in one step; false where the file system or the kernel cannot.
fn exchanged(left: &Path, right: &Path) -> io::Result<bool> {
    match renameat_with(CWD, left, CWD, right, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        // Not a pattern: two of these are one number on Linux and two elsewhere.
        Err(error) if [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP].contains(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Brings a folder and all files in it to the disk.
fn sync_tree(folder: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).map_err(|source| FileError::new("list", folder, source))? {
        let path = entry.map_err(|source| FileError::new("list", folder, source))?.path();
        if path.is_dir() { sync_tree(&path) } else { sync(&path) }?;
    }
    sync(folder)
}

fn sync(path: &Path) -> Result<(), FileError> {
    match File::open(path).and_then(|file| file.sync_all()) {
        // Some network file systems do this for files only.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) && path.is_dir() => Ok(()),
        synced => synced.map_err(|source| FileError::new("bring to the disk", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Writes a folder of one version: two files that both say it, one of them in a folder of its own.
    fn version(number: u32) -> impl Fn(&Path) -> io::Result<()> {
        move |folder| {
            fs::write(folder.join("weights"), number.to_string().repeat(10_000))?;
            fs::create_dir(folder.join("deep"))?;
            fs::write(folder.join("deep/config"), number.to_string())
        }
    }

    fn read_version(target: &Path) -> io::Result<String> {
        let config = fs::read_to_string(target.join("deep/config"))?;
        let weights = fs::read_to_string(target.join("weights"))?;
        assert_eq!(weights.len() % 10_000, 0, "half a file");
        Ok(config)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// While a folder is replaced 200 times, whoever looks finds a whole one.
    fn always_whole(method: Method) {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("best");
        replace_folder_by(method, &target, version(1000)).unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut looks = 0;
                while !is_done.load(Ordering::Relaxed) {
                    // The name is always there. Between two files, or while a link is followed, the folder may be
                    // replaced and the old one removed; the next try finds the new one.
                    let found = fs::symlink_metadata(&target).unwrap();
                    assert_eq!(found.is_symlink(), method == Method::Link);
                    (0..20).find_map(|_| read_version(&target).ok()).unwrap();
                    looks += 1;
                }
                looks
            });
            for number in 1001..1201 {
                replace_folder_by(method, &target, version(number)).unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
        });
        assert_eq!(read_version(&target).unwrap(), "1200");
        let left = if method == Method::Link { 2 } else { 1 };
        assert_eq!(names(folder.path()).len(), left, "{:?}", names(folder.path()));
    }

    #[test]
    fn a_folder_that_is_exchanged_is_always_whole() {
        always_whole(Method::Detect);
    }

    #[test]
    fn a_folder_behind_a_link_is_always_whole() {
        always_whole(Method::Link);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_folder_and_nothing_else() {
        for method in [Method::Detect, Method::Link] {
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join("last");
            let full = |folder: &Path| -> io::Result<()> {
                fs::write(folder.join("weights"), "half")?;
                Err(io::Error::from(io::ErrorKind::StorageFull))
            };
            let error = replace_folder_by(method, &target, full).unwrap_err();
            assert!(error.to_string().starts_with("cannot save ") && error.to_string().contains("last"), "{error}");
            assert!(names(folder.path()).is_empty());
            replace_folder_by(method, &target, version(1)).unwrap();
            let before = names(folder.path());
            replace_folder_by(method, &target, full).unwrap_err();
            assert_eq!(read_version(&target).unwrap(), "1");
            assert_eq!(names(folder.path()), before);
        }
    }

    #[test]
    fn a_folder_becomes_a_link_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("last");
        replace_folder(&target, version(1)).unwrap();
        assert!(fs::symlink_metadata(&target).unwrap().is_dir());
        replace_folder_by(Method::Link, &target, version(2)).unwrap();
        assert!(fs::symlink_metadata(&target).unwrap().is_symlink());
        replace_folder(&target, version(3)).unwrap();
        assert!(fs::symlink_metadata(&target).unwrap().is_symlink());
        assert_eq!(read_version(&target).unwrap(), "3");
        assert_eq!(names(folder.path()).len(), 2, "{:?}", names(folder.path()));
    }

    #[test]
    fn a_link_of_the_users_keeps_what_it_points_to() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("precious"), "kept").unwrap();
        let target = folder.path().join("best");
        std::os::unix::fs::symlink(elsewhere.path(), &target).unwrap();
        replace_folder(&target, version(1)).unwrap();
        assert_eq!(read_version(&target).unwrap(), "1");
        assert_eq!(fs::read_to_string(elsewhere.path().join("precious")).unwrap(), "kept");
    }

    #[test]
    fn what_a_killed_process_left_is_put_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        replace_folder_by(Method::Link, &path("best"), version(1)).unwrap();
        fs::create_dir(path(".clasp-temporary-last-1-2")).unwrap();
        fs::write(path(".clasp-temporary-last-1-2/weights"), "half").unwrap();
        fs::write(path(".clasp-temporary-log.jsonl-1-3"), "half").unwrap();
        fs::create_dir(path(".clasp-linked-best-1-4")).unwrap();
        std::os::unix::fs::symlink(".clasp-linked-best-1-4", path(".clasp-temporary-best-1-5")).unwrap();
        fs::create_dir(path(".clasp-moved-last")).unwrap();
        fs::write(path(".clasp-moved-last/weights"), "whole").unwrap();
        fs::write(path("mine"), "kept").unwrap();
        remove_leftovers(folder.path()).unwrap();
        assert_eq!(read_version(&path("best")).unwrap(), "1");
        assert_eq!(fs::read_to_string(path("last/weights")).unwrap(), "whole");
        let left = names(folder.path());
        assert_eq!(left.len(), 4, "{left:?}");
        assert!(left.contains(&"mine".to_owned()) && left.contains(&"last".to_owned()), "{left:?}");
    }
}
