//! The run folder: the only place that names its files, and that decides what may happen to a folder that is not empty.

pub mod log;
pub mod provenance;
pub mod recordings;
pub mod replace;
pub mod tensorboard;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Problems;
use crate::files::{FileError, WEIGHTS, replace_file};
use provenance::{HashedFile, Provenance, ProvenanceError, Session};
use replace::{remove, remove_leftovers};

const CONFIG: &str = "config.toml";
const MANIFEST: &str = "manifest.json";
const LOG: &str = "log.jsonl";
/// TensorBoard reads what has `tfevents` in its name.
const EVENTS: &str = "events.out.tfevents.clasp";
const BEST: &str = "best";
const LAST: &str = "last";
/// What the manifest calls the weights of the best epoch.
const BEST_WEIGHTS: &str = "best weights";
/// Size, time and hash of every recording.
const RECORDINGS: &str = "recordings-sha256.jsonl";
/// What a folder must not hold unless a manifest says that it is a run.
const NAMES: [&str; 6] = [CONFIG, LOG, EVENTS, BEST, LAST, RECORDINGS];

/// Why a run folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing can be written there.
    #[error("cannot write to the run folder {path}: {cause}; choose another with `--set run.dir=`", path = path.display())]
    Unwritable { path: PathBuf, cause: io::Error },
    /// Another process works there.
    #[error(
        "another process is at work in the run folder {path}; wait for it, or choose another folder with `--set run.dir=`",
        path = path.display()
    )]
    Busy { path: PathBuf },
    /// It holds a run, and nothing says what to do with it.
    #[error(
        "{path} already holds {what}; continue it with `--resume`, replace it with `--overwrite`, or choose another \
         folder with `--set run.dir=`",
        path = path.display()
    )]
    Occupied {
        path: PathBuf,
        /// An unfinished or a finished run.
        what: &'static str,
    },
    /// It holds a run of another config.
    #[error(
        "{path} holds {what} with another config or other data ({differences}); {} what it was started with, replace it \
         with `--overwrite`, or choose another folder with `--set run.dir=`",
        if *is_resumed { "go on with" } else { "continue it with `--resume` and" },
        path = path.display()
    )]
    OtherConfig {
        path: PathBuf,
        /// An unfinished or a finished run.
        what: &'static str,
        /// Whether `--resume` was given.
        is_resumed: bool,
        differences: Problems,
    },
    /// It holds files of these names that are not a run's.
    #[error(
        "{path} holds a `{name}` but no run, and is left alone; choose another folder with `--set run.dir=`",
        path = path.display()
    )]
    Foreign { path: PathBuf, name: &'static str },
    /// It holds a run of some epochs whose newest checkpoint is gone.
    #[error(
        "{path} holds a run that can go on, but its `{LAST}` is gone: put it back to continue; or begin it anew with \
         `--overwrite`; or start another from its best epoch with `--set train.init={best}` and another `run.dir`",
        path = path.display(),
        best = best.display()
    )]
    NoLast {
        path: PathBuf,
        /// The checkpoint of its best epoch.
        best: PathBuf,
    },
    /// It is not a run folder.
    #[error("{path} holds no run: it has no {MANIFEST}; name the run folder that `train` wrote", path = path.display())]
    NoRun { path: PathBuf },
    /// Its predictions of a split are asked for, and it was not scored on that split.
    #[error(
        "{path} has no predictions of the split {split}: score it first, with `clasp eval --checkpoint {path} --split \
         {split}`",
        path = path.display()
    )]
    NotScored { path: PathBuf, split: String },
    /// `--resume` and `--overwrite` together.
    #[error("`--resume` and `--overwrite` exclude each other: give one of them")]
    Contradiction,
    /// The manifest cannot be used.
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RunError {
    /// Whether another command line would help (exit code 2), and not the disk or the program (exit code 1).
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::File(_) | Self::Provenance(ProvenanceError::File(_)))
    }
}

/// Why a folder of a config, as it is stated and in full, cannot be that of a run.
pub fn unfit(stated: &str, path: &Path) -> Option<&'static str> {
    let is_root = || fs::canonicalize(path).is_ok_and(|path| path.parent().is_none());
    if stated.is_empty() {
        Some("is empty: name a folder, or remove the key")
    } else if is_root() {
        Some("is the root of the file system: name a folder for this run")
    } else {
        None
    }
}

/// What is in a run folder.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// No run: there is no folder, or nothing in it that a run would touch.
    Empty,
    /// A run that did not come to its end.
    Unfinished {
        /// Whether there is a checkpoint to go on from.
        can_resume: bool,
    },
    /// A run that came to its end, with its result.
    Finished(Value),
    /// Files that have the names of a run's, without a manifest.
    Foreign(&'static str),
}

/// What `train` is asked to do with a folder that holds a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// `--resume`
    pub resume: bool,
    /// `--overwrite`
    pub overwrite: bool,
}

/// What `train` does with its folder.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Start from the beginning; [`RunFolder::begin`] removes what is left of another run.
    Start,
    /// Go on from `last/`.
    Resume,
    /// Show this result and stop: the run is finished.
    Show(Value),
}

/// How another config stands to the one that a run was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The keys that differ, of those that may not.
    pub differences: Vec<String>,
    /// Whether it asks for more than the finished run came to: further epochs, or the score of the test split.
    pub asks_for_more: bool,
}

/// A run folder, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// While it lives no other process can open the folder for work.
#[derive(Debug)]
pub struct Lock {
    // The system releases the lock when the file is closed, also when the process is killed.
    _folder: File,
}

impl RunFolder {
    /// The run folder at `path`.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// What the run was made from.
    pub fn manifest(&self) -> PathBuf {
        self.path.join(MANIFEST)
    }

    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// The hashes of the recordings.
    pub fn recordings(&self) -> PathBuf {
        self.path.join(RECORDINGS)
    }

    /// The log's scalars for TensorBoard.
    pub fn events(&self) -> PathBuf {
        self.path.join(EVENTS)
    }

    /// The checkpoint of the best epoch.
    pub fn best(&self) -> PathBuf {
        self.path.join(BEST)
    }

    /// The newest checkpoint, with what a resume needs.
    pub fn last(&self) -> PathBuf {
        self.path.join(LAST)
    }

    /// The predictions for a split.
    pub fn predictions(&self, split: &str) -> PathBuf {
        self.path.join(predictions_name(split))
    }

    /// The report of a split.
    pub fn report(&self, split: &str) -> PathBuf {
        self.path.join(report_name(split))
    }

    /// Whether a path is that of something that a run writes in its folder, or below it.
    pub fn writes(&self, path: &Path) -> bool {
        let first = path.strip_prefix(&self.path).ok().and_then(|rest| rest.components().next());
        let name = first.map(|first| first.as_os_str().to_string_lossy());
        name.is_some_and(|name| NAMES.contains(&name.as_ref()) || name == MANIFEST || is_of_a_split(&name))
    }

    /// The same where links or dots lead there.
    pub fn writes_real(&self, path: &Path) -> bool {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return false };
        Self::new(&real(&self.path)).writes(&real(parent).join(name))
    }

    /// Whether a process is at work there; also false where the file system has no locks.
    pub fn is_busy(&self) -> bool {
        File::open(&self.path).is_ok_and(|folder| matches!(folder.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Whether the folder at hand is a run folder, and not a checkpoint folder.
    pub fn is_run(&self) -> bool {
        self.manifest().is_file()
    }

    /// The manifest of the run.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn load_manifest(&self) -> Result<Provenance, RunError> {
        if !self.is_run() {
            return Err(RunError::NoRun { path: self.path.clone() });
        }
        Ok(Provenance::load(&self.manifest())?)
    }

    /// What is in the folder.
    ///
    /// # Errors
    /// When its manifest cannot be read.
    pub fn state(&self) -> Result<State, RunError> {
        if !self.is_run() {
            let foreign = NAMES.into_iter().find(|name| fs::symlink_metadata(self.path.join(name)).is_ok());
            return Ok(foreign.map_or(State::Empty, State::Foreign));
        }
        let manifest = self.load_manifest()?;
        Ok(if manifest.finished {
            State::Finished(manifest.result.unwrap_or_default())
        } else {
            State::Unfinished { can_resume: self.last().is_dir() }
        })
    }

    /// What `train` does with the folder. `compare` gets the text of the config that the run there was started with, and
    /// says how the new one stands to it.
    ///
    /// # Errors
    /// When the folder holds something that must be left alone.
    pub fn decide(&self, existing: Existing, compare: impl FnOnce(&str) -> Comparison) -> Result<Decision, RunError> {
        if existing.resume && existing.overwrite {
            return Err(RunError::Contradiction);
        }
        let path = || self.path.clone();
        let state = self.state()?;
        let what = match &state {
            State::Empty => return Ok(Decision::Start),
            State::Foreign(name) => return Err(RunError::Foreign { path: path(), name }),
            _ if existing.overwrite => return Ok(Decision::Start),
            State::Unfinished { .. } if !existing.resume => {
                return Err(RunError::Occupied { path: path(), what: "an unfinished run" });
            }
            // Killed before its first checkpoint: nothing of it is lost by another start, whatever its config was.
            State::Unfinished { can_resume: false } if !self.best().exists() => return Ok(Decision::Start),
            // Killed between the two checkpoints of its first epoch, which another start does again.
            State::Unfinished { can_resume: false } if self.epochs_logged() < 2 => "an unfinished run",
            State::Unfinished { can_resume: false } => {
                return Err(RunError::NoLast { path: path(), best: self.best() });
            }
            State::Unfinished { .. } => "an unfinished run",
            State::Finished(_) => "a finished run",
        };
        let stored = fs::read_to_string(self.config()).map_err(|cause| FileError {
            action: "read",
            path: self.config(),
            cause,
        })?;
        let Comparison { differences, asks_for_more } = compare(&stored);
        if !differences.is_empty() {
            let (is_resumed, differences) = (existing.resume, Problems(differences));
            return Err(RunError::OtherConfig { path: path(), what, is_resumed, differences });
        }
        Ok(match state {
            State::Finished(_) if asks_for_more && !self.last().is_dir() => {
                return Err(RunError::NoLast { path: path(), best: self.best() });
            }
            State::Finished(result) if !asks_for_more => Decision::Show(result),
            State::Unfinished { can_resume: false } => Decision::Start,
            _ => Decision::Resume,
        })
    }

    /// Epochs that the log tells of; `None` if it cannot be read.
    fn epochs_logged(&self) -> usize {
        let entries = log::read(&self.log()).unwrap_or_default();
        entries.iter().filter(|entry| matches!(entry, log::Entry::Epoch(_))).count()
    }

    /// Makes sure, before any work is done, that the folder exists, that files can be written there, and that nobody
    /// else works there; then removes what a killed process left.
    ///
    /// # Errors
    /// When one of these does not hold.
    pub fn open(&self) -> Result<Lock, RunError> {
        let unwritable = |cause| RunError::Unwritable { path: self.path.clone(), cause };
        fs::create_dir_all(&self.path).map_err(unwritable)?;
        let folder = File::open(&self.path).map_err(unwritable)?;
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(RunError::Busy { path: self.path.clone() }),
            // Some network file systems have no locks: then there is none to respect.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // The same that every save does: a file is created and renamed.
        let probe = self.path.join(".clasp-probe");
        replace_file(&probe, b"").map_err(|error| unwritable(error.cause))?;
        fs::remove_file(&probe).map_err(unwritable)?;
        remove_leftovers(&self.path)?;
        Ok(Lock { _folder: folder })
    }

    /// Starts a run: removes the files of another run, but no file that a run does not write, then writes the config
    /// and the manifest.
    ///
    /// # Errors
    /// When a file cannot be removed or written.
    pub fn begin(
        &self,
        _lock: &Lock,
        config: &str,
        seed: u64,
        files: Vec<HashedFile>,
        session: Session,
    ) -> Result<Provenance, RunError> {
        // The manifest is removed last and written first, so that a folder with any file of a run has one.
        let mut manifest = Provenance::new(seed, files, session);
        if self.is_run() {
            self.clear()?;
        }
        manifest.folder = self.path.canonicalize().ok();
        manifest.save(&self.manifest())?;
        replace_file(&self.config(), config.as_bytes())?;
        Ok(manifest)
    }

    /// Notes that another process goes on with the run, with a config that may ask for more than the first one, and with
    /// these files. What was scored before is of weights that training changes, and is removed where it `trains`.
    ///
    /// # Errors
    /// When the manifest cannot be read or written, or a file not removed.
    pub fn begin_again(
        &self,
        _lock: &Lock,
        config: &str,
        files: Vec<HashedFile>,
        session: Session,
        trains: bool,
    ) -> Result<Provenance, RunError> {
        let mut manifest = self.load_manifest()?;
        for name in self.names()?.into_iter().filter(|name| trains && is_of_a_split(name)) {
            let path = self.path.join(name);
            remove(&path).map_err(|source| FileError::new("remove", &path, source))?;
        }
        manifest.sessions.push(session);
        manifest.finished = false;
        manifest.result = None;
        manifest.files.retain(|old| !files.iter().any(|new| new.role == old.role) && old.role != BEST_WEIGHTS);
        manifest.files.splice(0..0, files);
        // First the mark that the run is not finished: then its config may say more than it came to.
        manifest.save(&self.manifest())?;
        replace_file(&self.config(), config.as_bytes())?;
        manifest.folder = self.path.canonicalize().ok();
        manifest.save(&self.manifest())?;
        Ok(manifest)
    }

    /// Marks the run as finished.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub fn finish(&self, _lock: &Lock, manifest: &mut Provenance, result: Value) -> Result<(), RunError> {
        let best = self.best().join(WEIGHTS);
        if best.is_file() {
            manifest.files.push(HashedFile::of(BEST_WEIGHTS, &best)?);
        }
        self.take_over_uses(manifest);
        manifest.finished = true;
        manifest.result = Some(result);
        manifest.end_session();
        Ok(manifest.save(&self.manifest())?)
    }

    /// Adds the uses of the test split that the stored manifest knows: `eval` may look at it while the run is at work.
    pub fn take_over_uses(&self, manifest: &mut Provenance) {
        for used in self.load_manifest().map(|stored| stored.test_uses).unwrap_or_default() {
            let is_it = |known: &provenance::TestUse| known.at == used.at && known.command == used.command;
            if !manifest.test_uses.iter().any(is_it) {
                manifest.test_uses.push(used);
            }
        }
    }

    /// Counts one more use of the test split, and says how many there are. Several processes may do so at once.
    ///
    /// # Errors
    /// When the manifest cannot be read or written.
    pub fn count_test_use(&self) -> Result<usize, RunError> {
        self.note_test_use(Provenance::count_test_use)
    }

    /// Notes that the scoring that [`RunFolder::count_test_use`] counted is over, whatever came of it.
    ///
    /// # Errors
    /// As there.
    pub fn end_test_use(&self) -> Result<usize, RunError> {
        self.note_test_use(Provenance::end_test_use)
    }

    fn note_test_use(&self, note: impl FnOnce(&mut Provenance)) -> Result<usize, RunError> {
        // A file that lives as long as the run, unlike the manifest, which is replaced. Some network file systems have no
        // locks: then there is none to respect.
        let file = File::open(self.config()).ok();
        let _lock = file.filter(|file| file.lock().is_ok());
        let mut manifest = self.load_manifest()?;
        note(&mut manifest);
        manifest.save(&self.manifest())?;
        Ok(manifest.test_uses.len())
    }

    /// What is in the folder.
    fn names(&self) -> Result<Vec<String>, FileError> {
        let cannot = |source| FileError::new("list", &self.path, source);
        let entries = fs::read_dir(&self.path).map_err(cannot)?;
        entries.map(|entry| Ok(entry.map_err(cannot)?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn clear(&self) -> Result<(), FileError> {
        // First the mark that the run is finished: a kill while its files are removed must not leave a "finished" run.
        let mut names = self.names()?;
        names.retain(|name| NAMES.contains(&name.as_str()) || is_of_a_split(name));
        if let Ok(mut manifest) = Provenance::load(&self.manifest())
            && manifest.finished
        {
            manifest.finished = false;
            manifest.result = None;
            manifest.save(&self.manifest()).map_err(|error| match error {
                ProvenanceError::File(error) => error,
                ProvenanceError::Malformed { path, problem } => {
                    FileError::new("read", &path, io::Error::other(problem))
                }
            })?;
        }
        // Then what could be resumed, so that a kill leaves a run that starts from the beginning.
        names.sort_by_key(|name| name != LAST);
        for name in names {
            let path = self.path.join(name);
            remove(&path).map_err(|source| FileError::new("remove", &path, source))?;
        }
        // What links pointed to.
        remove_leftovers(&self.path)
    }
}

/// File name of the predictions for a split.
pub fn predictions_name(split: &str) -> String {
    format!("predictions-{}.jsonl", plain(split))
}

/// File name of the report of a split.
pub fn report_name(split: &str) -> String {
    format!("report-{}.json", plain(split))
}

fn is_of_a_split(name: &str) -> bool {
    let is_between = |start, end| name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end));
    is_between("predictions-", ".jsonl") || is_between("report-", ".json")
}

/// A split's name without what would make it a path.
fn plain(split: &str) -> String {
    split.chars().map(|letter| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RESUME: Existing = Existing { resume: true, overwrite: false };
    const OVERWRITE: Existing = Existing { resume: false, overwrite: true };
    const NEITHER: Existing = Existing { resume: false, overwrite: false };

    fn session() -> Session {
        Session::start("cpu", 2)
    }

    fn differences(stored: &str) -> Comparison {
        let differences = if stored == "seed = 1\n" { Vec::new() } else { vec!["train.seed".into()] };
        Comparison { differences, asks_for_more: false }
    }

    fn decided(folder: &RunFolder, existing: Existing) -> Result<Decision, String> {
        folder.decide(existing, differences).map_err(|error| {
            assert!(error.is_usage());
            error.to_string()
        })
    }

    #[test]
    fn an_empty_folder_is_started_in() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("notes.txt"), "mine").unwrap();
        for path in [parent.path().join("none"), parent.path().to_owned()] {
            let folder = RunFolder::new(&path);
            assert_eq!(folder.state().unwrap(), State::Empty);
            for existing in [NEITHER, RESUME, OVERWRITE] {
                assert_eq!(decided(&folder, existing), Ok(Decision::Start));
            }
        }
    }

    #[test]
    fn no_scores_outlive_a_training_that_goes_on() {
        let parent = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(parent.path());
        let lock = folder.open().unwrap();
        folder.begin(&lock, "seed = 1\n", 1, Vec::new(), session()).unwrap();
        let mine = parent.path().join("report.md");
        for path in [folder.report("test"), folder.predictions("test"), folder.report("dev"), mine.clone()] {
            fs::write(path, "").unwrap();
        }
        folder.begin_again(&lock, "seed = 1\n", Vec::new(), session(), false).unwrap();
        assert!(folder.report("test").is_file());
        folder.begin_again(&lock, "seed = 1\n", Vec::new(), session(), true).unwrap();
        assert!(mine.is_file() && folder.is_run() && folder.config().is_file());
        assert!(!folder.report("test").exists() && !folder.predictions("test").exists());
        assert!(!folder.report("dev").exists());
    }

    #[test]
    fn uses_of_test_by_several_at_once_are_all_counted() {
        let parent = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(parent.path());
        let lock = folder.open().unwrap();
        folder.begin(&lock, "seed = 1\n", 1, Vec::new(), session()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| folder.count_test_use().unwrap());
            }
        });
        assert_eq!(folder.load_manifest().unwrap().test_uses.len(), 8);
    }

    #[test]
    fn a_run_goes_through_its_states() {
        let parent = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(&parent.path().join("runs/one"));
        let lock = folder.open().unwrap();
        folder.begin(&lock, "seed = 1\n", 1, Vec::new(), session()).unwrap();
        assert_eq!(folder.state().unwrap(), State::Unfinished { can_resume: false });
        assert_eq!(decided(&folder, RESUME), Ok(Decision::Start));
        let error = decided(&folder, NEITHER).unwrap_err();
        for expected in ["runs/one already holds an unfinished run", "--resume", "--overwrite", "--set run.dir="] {
            assert!(error.contains(expected), "{error}");
        }
        fs::create_dir(folder.last()).unwrap();
        assert_eq!(decided(&folder, RESUME), Ok(Decision::Resume));
        assert_eq!(decided(&folder, OVERWRITE), Ok(Decision::Start));
        let mut manifest = folder.begin_again(&lock, "seed = 1\n", Vec::new(), session(), true).unwrap();
        assert_eq!(manifest.sessions.len(), 2);
        folder.finish(&lock, &mut manifest, json!({"best_epoch": 2})).unwrap();
        for existing in [NEITHER, RESUME] {
            assert_eq!(decided(&folder, existing), Ok(Decision::Show(json!({"best_epoch": 2}))));
        }
        // Further epochs go on from `last/`, and a kill at that moment leaves no run that seems finished.
        let more = |_: &str| Comparison { asks_for_more: true, ..Comparison::default() };
        assert_eq!(folder.decide(RESUME, more).unwrap(), Decision::Resume);
        let mut manifest = folder.begin_again(&lock, "seed = 1\n", Vec::new(), session(), true).unwrap();
        assert_eq!(folder.state().unwrap(), State::Unfinished { can_resume: true });
        folder.finish(&lock, &mut manifest, json!({"best_epoch": 4})).unwrap();
        fs::write(folder.config(), "seed = 2\n").unwrap();
        for existing in [NEITHER, RESUME] {
            let error = decided(&folder, existing).unwrap_err();
            for expected in
                ["holds a finished run with another config or other data (train.seed)", "--overwrite", "--set run.dir="]
            {
                assert!(error.contains(expected), "{error}");
            }
        }
        assert_eq!(decided(&folder, OVERWRITE), Ok(Decision::Start));
    }

    #[test]
    fn overwriting_removes_the_files_of_the_run_and_no_others() {
        let parent = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(parent.path());
        let lock = folder.open().unwrap();
        let mut manifest = folder.begin(&lock, "seed = 1\n", 1, Vec::new(), session()).unwrap();
        replace::replace_folder_by(replace::Method::Link, &folder.best(), |new| fs::write(new.join("model"), ""))
            .unwrap();
        fs::create_dir(folder.last()).unwrap();
        for path in [folder.log(), folder.predictions("test"), folder.report("test"), parent.path().join("notes.txt")] {
            fs::write(path, "").unwrap();
        }
        folder.finish(&lock, &mut manifest, Value::Null).unwrap();
        folder.begin(&lock, "seed = 3\n", 3, Vec::new(), session()).unwrap();
        let mut names: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["config.toml", "manifest.json", "notes.txt"]);
        assert_eq!(folder.state().unwrap(), State::Unfinished { can_resume: false });
        assert_eq!(fs::read_to_string(folder.config()).unwrap(), "seed = 3\n");
    }

    #[test]
    fn files_of_somebody_else_are_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("config.toml"), "mine").unwrap();
        let folder = RunFolder::new(parent.path());
        for existing in [NEITHER, RESUME, OVERWRITE] {
            let error = decided(&folder, existing).unwrap_err();
            assert!(error.contains("holds a `config.toml` but no run") && error.contains("--set run.dir="), "{error}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_refused_before_any_work() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("run"), PathBuf::from("/proc/run")] {
            let error = RunFolder::new(&path).open().unwrap_err();
            assert!(error.is_usage());
            let message = error.to_string();
            let start = format!("cannot write to the run folder {}: ", path.display());
            assert!(message.starts_with(&start) && message.ends_with("`--set run.dir=`"), "{message}");
        }
    }

    #[test]
    fn two_processes_do_not_share_a_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(parent.path());
        let lock = folder.open().unwrap();
        let error = folder.open().unwrap_err();
        assert!(matches!(error, RunError::Busy { .. }), "{error}");
        drop(lock);
        folder.open().unwrap();
    }

    #[test]
    fn a_splits_name_stays_in_the_folder() {
        let folder = RunFolder::new(Path::new("run"));
        assert_eq!(folder.predictions("test"), Path::new("run/predictions-test.jsonl"));
        assert_eq!(folder.report("../other set"), Path::new("run/report-.._other_set.json"));
        assert!(matches!(folder.load_manifest(), Err(RunError::NoRun { .. })));
    }
}
