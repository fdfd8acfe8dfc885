//! Files: the error of an operation that failed, a writer whose file appears only when it is whole, reading what is a
//! regular file of a bounded length, the end of a file, and the folder of the user's cache.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempPath;

use crate::units;

/// What unfinished or outdated files and folders are called while they exist.
pub const TEMPORARY: &str = ".clasp-temporary-";

/// A model's weights, in a checkpoint as on the Hugging Face hub.
pub const WEIGHTS: &str = "model.safetensors";
/// A model's config, likewise.
pub const CONFIG: &str = "config.json";

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {cause}", path = path.display())]
pub struct FileError {
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    pub cause: io::Error,
}

impl FileError {
    /// A failed operation.
    pub fn new(action: &'static str, path: &Path, cause: io::Error) -> Self {
        Self { action, path: path.to_owned(), cause }
    }
}

/// A regular file, by whichever of its names and links it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that a path leads to; `None` if there is none, or where it is a folder, a device or a pipe.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().and_then(|metadata| Self::of_metadata(&metadata))
    }

    /// The same of a file that is open, as standard input.
    pub fn of_open(open: impl AsFd) -> Option<Self> {
        let file = File::from(open.as_fd().try_clone_to_owned().ok()?);
        file.metadata().ok().and_then(|metadata| Self::of_metadata(&metadata))
    }

    fn of_metadata(metadata: &fs::Metadata) -> Option<Self> {
        metadata.is_file().then(|| Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// An output that is what the command reads, or what a run keeps (exit code 2).
#[derive(Debug, thiserror::Error)]
#[error("{flag}: {path} is {what}, and would be replaced; name another", path = path.display())]
pub struct OutputIsInput {
    /// The flag or argument that names the output.
    pub flag: &'static str,
    pub path: PathBuf,
    /// What the file is to the command.
    pub what: String,
}

/// A file that appears under its name only when it is whole: [`AtomicFile::commit`]. Dropped before, it leaves nothing.
/// A link is followed.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    end: End,
    writer: BufWriter<File>,
}

/// What becomes of a whole file.
#[derive(Debug)]
enum End {
    /// It gets its name.
    Renamed(Unfinished),
    /// It is there already: the target is a device or a pipe.
    Written,
    /// It is copied into the target, a device or a pipe.
    Copied(File),
}

/// A file that has not got its name yet. It is locked while its process lives.
#[derive(Debug)]
struct Unfinished(Option<TempPath>);

/// The unfinished files of this process.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Unfinished {
    fn new(path: TempPath) -> Self {
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_path_buf());
        Self(Some(path))
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    fn persist(mut self, target: &Path) -> io::Result<()> {
        let Some(path) = self.0.take() else { return Ok(()) };
        Self::forget(&path);
        path.persist(target).map_err(|problem| problem.error)
    }

    fn forget(path: &Path) {
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != path);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            Self::forget(path);
        }
    }
}

/// Removes the files of this process that are not whole, before it ends at once.
pub fn remove_unfinished() {
    let paths = std::mem::take(&mut *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner));
    for path in paths {
        // The next process removes what cannot be removed now.
        let _ = fs::remove_file(path);
    }
}

/// Removes the files beside `target` that a killed process did not finish: those that no process holds.
pub fn remove_unfinished_beside(target: &Path) {
    // Where a link is followed, the unfinished file lies beside what it leads to.
    let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY)) else { continue };
        // One that was only just created may not be locked yet.
        let is_at_work = rest.split_once('-').is_some_and(|(process, _)| Path::new("/proc").join(process).exists());
        let is_own = rest.starts_with(&format!("{}-", std::process::id()));
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) || (is_at_work && !is_own) {
            continue;
        }
        let is_free = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if is_free() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl AtomicFile {
    /// Starts the file that will be `target`. A target that is no regular file (a pipe, `/dev/stdout`) is written
    /// directly.
    ///
    /// # Errors
    /// When no file can be created beside it.
    pub fn create(target: &Path) -> Result<Self, FileError> {
        Self::open(target, |special| Ok((special, End::Written)))
    }

    /// As [`AtomicFile::create`], for a file that is not written from front to end: a target that is no regular file
    /// gets it when it is whole.
    ///
    /// # Errors
    /// As [`AtomicFile::create`].
    pub fn create_seekable(target: &Path) -> Result<Self, FileError> {
        Self::open(target, |special| Ok((tempfile::tempfile()?, End::Copied(special))))
    }

    fn open(target: &Path, special: impl FnOnce(File) -> io::Result<(File, End)>) -> Result<Self, FileError> {
        let failed = |source| FileError::new("create", target, source);
        let mut target = target.to_owned();
        let (file, end) = match fs::metadata(&target) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => File::options().write(true).open(&target).and_then(special),
            _ => {
                target = fs::canonicalize(&target).unwrap_or(target);
                let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
                // The library's own files are closed to others than the user.
                let made = tempfile::Builder::new()
                    .prefix(&format!("{TEMPORARY}{}-", std::process::id()))
                    .make_in(folder.unwrap_or(Path::new(".")), |path| File::create_new(path));
                made.map(tempfile::NamedTempFile::into_parts).map(|(file, path)| {
                    // Some network file systems have no locks: there it is left to the user.
                    let _ = file.lock();
                    (file, End::Renamed(Unfinished::new(path)))
                })
            }
        }
        .map_err(failed)?;
        Ok(Self { target, end, writer: BufWriter::new(file) })
    }

    /// The file itself, for whoever writes to it by other means than [`Write`].
    pub fn file(&self) -> &File {
        self.writer.get_ref()
    }

    /// Where the file is until it is whole.
    pub fn path(&self) -> &Path {
        if let End::Renamed(unfinished) = &self.end { unfinished.path() } else { &self.target }
    }

    /// Brings the file to the disk and puts it in place.
    ///
    /// # Errors
    /// When it cannot be written whole; then what was there before stays.
    pub fn commit(mut self) -> Result<(), FileError> {
        if matches!(self.end, End::Renamed(_)) {
            let synced = self.writer.flush().and_then(|()| self.file().sync_all());
            synced.map_err(|source| FileError::new("write", &self.target, source))?;
        }
        self.commit_unsynced()
    }

    /// Puts the file in place without waiting for the disk: after a power cut it may be there and not be whole.
    ///
    /// # Errors
    /// As [`AtomicFile::commit`].
    pub fn commit_unsynced(mut self) -> Result<(), FileError> {
        let failed = |source| FileError::new("write", &self.target, source);
        self.writer.flush().map_err(failed)?;
        match self.end {
            End::Renamed(unfinished) => unfinished.persist(&self.target).map_err(failed),
            End::Written => Ok(()),
            End::Copied(mut target) => {
                let mut file = self.writer.get_ref();
                file.rewind().and_then(|()| io::copy(&mut file, &mut target)).map(drop).map_err(failed)
            }
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Writes `contents` as the whole of a file, in one step.
///
/// # Errors
/// When it cannot be written; then what was there before stays.
pub fn replace_file(target: &Path, contents: &[u8]) -> Result<(), FileError> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(contents).map_err(|source| FileError::new("write", target, source))?;
    file.commit()
}

/// Opens a regular file for reading. Anything else (a folder, a pipe, a device) is an error, and does not block.
///
/// # Errors
/// It is no regular file, or it cannot be opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Without this a pipe that nobody writes to would block here.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(file),
        () if kind.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        () if kind.is_fifo() => "a pipe",
        () => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

/// Refuses what a clone without Git LFS has in the place of a file.
///
/// # Errors
/// It is a pointer, or it cannot be read.
pub fn check_no_lfs_pointer(file: &File) -> io::Result<()> {
    let mut start = [0; LFS_POINTER.len()];
    if file.read_at(&mut start, 0)? == LFS_POINTER.len() && is_lfs_pointer(&start) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, LFS_POINTER_ADVICE));
    }
    Ok(())
}

/// Whether a file that begins with these bytes is a pointer of Git LFS.
pub fn is_lfs_pointer(start: &[u8]) -> bool {
    start.starts_with(LFS_POINTER)
}

const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What is said of one.
pub const LFS_POINTER_ADVICE: &str =
    "it is a Git LFS pointer, not the file that it stands for; run `git lfs pull` in its repository";

/// The contents of a regular file of `most` bytes at most.
///
/// # Errors
/// As [`open_regular`] and [`check_no_lfs_pointer`], or it is longer, or it cannot be read.
pub fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    check_no_lfs_pointer(&file)?;
    let too_long = |length: u64| {
        let problem = format!("it has {}; at most {} are read", units::bytes(length), units::bytes(most));
        io::Error::new(io::ErrorKind::FileTooLarge, problem)
    };
    let length = file.metadata()?.len();
    if length > most {
        return Err(too_long(length));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    // It may grow, and what /proc has states no length.
    if bytes.len() as u64 > most { Err(too_long(bytes.len() as u64)) } else { Ok(bytes) }
}

/// As [`read_bounded`], of a text in UTF-8.
///
/// # Errors
/// As [`read_bounded`], or it is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read_bounded(path, most)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// The path from the root, without links where its folder exists, so that `..` means what it says.
///
/// # Errors
/// The path is empty.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        if let Ok(folder) = parent.canonicalize() {
            return Ok(folder.join(name));
        }
    }
    std::path::absolute(path)
}

/// `target` as seen from `folder`, both from the root: relative where they share more than the root.
pub fn relative(target: &Path, folder: &Path) -> PathBuf {
    let target_parts: Vec<Component> = target.components().collect();
    let folder_parts: Vec<Component> = folder.components().collect();
    let shared = target_parts.iter().zip(&folder_parts).take_while(|(left, right)| left == right).count();
    // One shared component is the root, which says nothing about belonging together.
    if shared < 2 {
        return target.to_path_buf();
    }
    let up = folder_parts.iter().skip(shared).map(|_| Component::ParentDir);
    let path: PathBuf = up.chain(target_parts.iter().skip(shared).copied()).collect();
    // The folder itself: an empty path would be read as none.
    if path.as_os_str().is_empty() { Component::CurDir.as_os_str().into() } else { path }
}

/// What a path that [`relative`] wrote leads to now: from the folder as it lies today, else from where it lay then.
pub fn found_from(path: &Path, folder: &Path, then: Option<&Path>) -> PathBuf {
    let from = |folder: &Path| {
        // Without links, so that `..` can be taken away also where the folder is no more.
        let mut found = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        for part in path.components() {
            match part {
                Component::ParentDir => {
                    found.pop();
                }
                Component::CurDir => {}
                part => found.push(part),
            }
        }
        found
    };
    let today = from(folder);
    if today.exists() { today } else { then.map(from).filter(|path| path.exists()).unwrap_or(today) }
}

/// The last bytes of a file, as many as there are and `most` at most, as text.
///
/// # Errors
/// It cannot be read.
pub fn tail(mut file: &File, most: u64) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The user's cache: the folder `CLASP_CACHE`, else `clasp` in `XDG_CACHE_HOME`, else `~/.cache/clasp`.
pub fn user_cache() -> PathBuf {
    cache_folder(|name| std::env::var_os(name), std::env::home_dir())
}

fn cache_folder(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> PathBuf {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = home.filter(|home| !home.as_os_str().is_empty());
    folder("CLASP_CACHE")
        // The XDG specification wants relative paths ignored.
        .or_else(|| folder("XDG_CACHE_HOME").filter(|cache| cache.is_absolute()).map(|cache| cache.join("clasp")))
        .or_else(|| home.map(|home| home.join(".cache/clasp")))
        .unwrap_or_else(|| std::env::temp_dir().join("clasp-cache"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("report.json");
        replace_file(&target, b"one").unwrap();
        let mut file = AtomicFile::create(&target).unwrap();
        file.write_all(b"half of two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"one");
        drop(file);
        assert_eq!(fs::read(&target).unwrap(), b"one");
        replace_file(&target, b"two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"two");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace_file(&link, b"three").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"three");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(folder.path()), ["link", "report.json"]);
        replace_file(Path::new("/dev/null"), b"gone").unwrap();
        let error = replace_file(folder.path(), b"no").unwrap_err().to_string();
        assert!(error.starts_with("cannot create "), "{error}");
        let error = replace_file(&folder.path().join("none/report.json"), b"no").unwrap_err().to_string();
        assert!(error.contains("none/report.json"), "{error}");
    }

    #[test]
    fn only_regular_files_of_a_bounded_length_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert_eq!(read_bounded(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 5).unwrap_err().to_string(), "it is not UTF-8");
        let zero = folder.path().join("zero");
        std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
        assert_eq!(read_bounded(&zero, 5).unwrap_err().to_string(), "it is a device, not a regular file");
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read_bounded(&pipe, 5).unwrap_err().to_string(), "it is a pipe, not a regular file");
        assert_eq!(read_bounded(folder.path(), 5).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_at_work_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        // Linux gives no process a number above 2^22.
        for name in [&format!("{TEMPORARY}4194305-abc"), &format!("{TEMPORARY}{}-abc", std::process::id()), "mine"] {
            fs::write(folder.path().join(name), "half").unwrap();
        }
        fs::create_dir(folder.path().join(format!("{TEMPORARY}last"))).unwrap();
        let file = AtomicFile::create(&target).unwrap();
        remove_unfinished_beside(&target);
        let own = file.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected = vec![own, format!("{TEMPORARY}last"), "mine".to_owned()];
        expected.sort();
        assert_eq!(names(folder.path()), expected);
        file.commit().unwrap();
        assert!(target.is_file());
    }

    #[test]
    fn the_environment_names_the_cache() {
        let folder = |pairs: &'static [(&str, &str)], home: Option<&str>| {
            let value = |name: &str| Some(OsString::from(pairs.iter().find(|pair| pair.0 == name)?.1));
            cache_folder(value, home.map(PathBuf::from))
        };
        let all = &[("CLASP_CACHE", "/mine"), ("XDG_CACHE_HOME", "/xdg")];
        assert_eq!(folder(all, Some("/home/me")), Path::new("/mine"));
        assert_eq!(folder(&all[1..], Some("/home/me")), Path::new("/xdg/clasp"));
        assert_eq!(
            folder(&[("CLASP_CACHE", ""), ("XDG_CACHE_HOME", "up")], Some("/me")),
            Path::new("/me/.cache/clasp")
        );
        assert_eq!(folder(&[], Some("")), std::env::temp_dir().join("clasp-cache"));
    }
}
