//! `manifest.json`: what a run was made from and with, so that it can be checked and done again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{FileError, absolute, found_from, relative, replace_file};
use crate::hash;
use crate::splits::record::SplitRecord;

/// Git state of the sources at build time: the commit, with `-dirty` where files differed from it. `None` if the
/// program was built outside a checkout.
pub const GIT: Option<&str> = option_env!("CLASP_GIT");

/// The compiler that built the program, as it names itself.
pub const RUST: Option<&str> = option_env!("CLASP_RUST");

/// The version of Burn that the program is built on; `None` if there was no lock file.
const BURN: Option<&str> = option_env!("CLASP_BURN");

/// What `format` says in a manifest that this program reads.
pub const FORMAT: &str = "clasp-run-1";

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    /// It cannot be read or written, or a file cannot be hashed.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not a manifest of a run.
    #[error("{path} is not the manifest of a run: {problem}", path = path.display())]
    Malformed {
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The program and what it was built with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Version of clasp.
    pub version: String,
    /// Git state of its sources.
    pub git: Option<String>,
    pub rust: Option<String>,
    /// Version of Burn.
    pub burn: String,
}

impl Program {
    pub fn current() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: GIT.map(str::to_owned),
            rust: RUST.map(str::to_owned),
            burn: BURN.unwrap_or_default().to_owned(),
        }
    }
}

/// A file that the run depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedFile {
    /// What it is to the run: `train`, `dev`, `test`, `split`, `text weights`, `speech weights`.
    pub role: String,
    pub path: PathBuf,
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl HashedFile {
    /// Hashes a file, piece by piece.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(role: &str, path: &Path) -> Result<Self, FileError> {
        let (bytes, sha256) = hash::of_file(path).map_err(|source| FileError::new("hash", path, source))?;
        Ok(Self { role: role.to_owned(), path: path.to_owned(), bytes, sha256 })
    }
}

/// When this process began to work; no part of what is written.
#[derive(Clone, Copy, Debug, Default)]
struct Clock(Option<Instant>);

impl PartialEq for Clock {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// One process that worked on the run: the first, and one for each resume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// When it started, in UTC.
    pub started: String,
    /// When it ended; null where it was killed or is still at work.
    pub ended: Option<String>,
    pub command: Vec<String>,
    pub program: Program,
    /// The device, as it names itself.
    pub device: String,
    /// Threads of the CPU that it may use.
    pub threads: usize,
    /// Operating system, its version where known, and architecture.
    pub system: String,
    /// How long it worked; null where it was killed or is still at work.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// The most memory that it held on the host (resident, in bytes) until it ended; null where that is not known.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
    #[serde(skip)]
    clock: Clock,
}

impl Session {
    /// A session that starts now, in this process.
    pub fn start(device: &str, threads: usize) -> Self {
        Self {
            started: now(),
            ended: None,
            command: std::env::args_os().map(|part| part.to_string_lossy().into_owned()).collect(),
            program: Program::current(),
            device: device.to_owned(),
            threads,
            system: system(),
            seconds: None,
            peak_memory_bytes: None,
            clock: Clock(Some(Instant::now())),
        }
    }
}

/// One look at the test split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestUse {
    /// When, in UTC.
    pub at: String,
    pub command: Vec<String>,
    /// The process while it is at work. One that was killed has shown nothing, so that doing the same again is no other
    /// use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// The machine of the process: what is at work on another one cannot be seen from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl TestUse {
    fn is_killed(&self) -> bool {
        let is_gone = |process| Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{process}")).exists();
        (self.host.is_none() || self.host == host()) && self.process.is_some_and(is_gone)
    }
}

/// The name of this machine, where the system tells it.
fn host() -> Option<String> {
    Some(std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned())
}

/// The contents of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// [`FORMAT`].
    pub format: String,
    /// Seed of the run.
    pub seed: u64,
    /// The run folder when its config was written: where paths that are relative lead if the folder was moved since
    /// and what they name was not.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// Data, splits and weights that it was made from; in the file their paths are relative to the run folder where
    /// they can be.
    pub files: Vec<HashedFile>,
    /// Its split: the hash, how it was made, what the parts share.
    #[serde(default)]
    pub split: Option<SplitRecord>,
    /// The processes that worked on it, in order.
    pub sessions: Vec<Session>,
    /// Every scoring of the test split; their number is that of the list.
    pub test_uses: Vec<TestUse>,
    /// Whether it came to its end.
    pub finished: bool,
    /// What it came to; null until then.
    pub result: Option<Value>,
}

impl Provenance {
    /// The manifest of a run that starts now.
    pub fn new(seed: u64, files: Vec<HashedFile>, session: Session) -> Self {
        Self {
            format: FORMAT.to_owned(),
            seed,
            folder: None,
            files,
            split: None,
            sessions: vec![session],
            test_uses: Vec::new(),
            finished: false,
            result: None,
        }
    }

    /// Counts one more use of the test split, by this process.
    pub fn count_test_use(&mut self) {
        let command = std::env::args_os().map(|part| part.to_string_lossy().into_owned()).collect();
        let process = Some(std::process::id());
        match self.test_uses.iter_mut().find(|used| used.command == command && used.is_killed()) {
            Some(killed) => (killed.process, killed.host) = (process, host()),
            None => self.test_uses.push(TestUse { at: now(), command, process, host: host() }),
        }
    }

    /// Notes that the scoring that this process counted is over, whatever came of it.
    pub fn end_test_use(&mut self) {
        let (process, host) = (Some(std::process::id()), host());
        for used in self.test_uses.iter_mut().filter(|used| used.process == process && used.host == host) {
            (used.process, used.host) = (None, None);
        }
    }

    /// Notes that the last session ends now.
    pub fn end_session(&mut self) {
        if let Some(session) = self.sessions.last_mut() {
            session.ended = Some(now());
            session.seconds = session.clock.0.map(|began| began.elapsed().as_secs_f64());
            session.peak_memory_bytes = peak_memory();
        }
    }

    /// How long all processes together worked on the run; `None` if one of them was killed.
    pub fn seconds(&self) -> Option<f64> {
        self.sessions.iter().map(|session| session.seconds).sum()
    }

    /// The most memory that one of its processes held on the host; `None` if it is not known.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        self.sessions.iter().filter_map(|session| session.peak_memory_bytes).max()
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it cannot be read or is not the manifest of a run.
    pub fn load(path: &Path) -> Result<Self, ProvenanceError> {
        let malformed = |problem: String| ProvenanceError::Malformed { path: path.to_owned(), problem };
        let text = fs::read(path).map_err(|source| FileError::new("read", path, source))?;
        let value: Value = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        let format = value.get("format").and_then(Value::as_str).unwrap_or_default();
        if format != FORMAT {
            return Err(malformed(format!("its `format` is `{format}`, not `{FORMAT}`")));
        }
        let mut manifest: Self = serde_json::from_value(value).map_err(|error| malformed(error.to_string()))?;
        let folder = folder_of(path);
        for file in &mut manifest.files {
            file.path = found_from(&file.path, folder, manifest.folder.as_deref());
        }
        Ok(manifest)
    }

    /// Writes the manifest, in one step.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stays.
    pub fn save(&self, path: &Path) -> Result<(), ProvenanceError> {
        let mut stored = self.clone();
        let folder = folder_of(path).canonicalize().ok();
        for file in &mut stored.files {
            if let (Some(folder), Ok(path)) = (&folder, absolute(&file.path)) {
                file.path = relative(&path, folder);
            }
        }
        let mut text = serde_json::to_vec_pretty(&stored)
            .map_err(|error| FileError::new("write", path, io::Error::from(error)))?;
        text.push(b'\n');
        Ok(replace_file(path, &text)?)
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The present time in UTC, to the second, as RFC 3339 writes it.
pub fn now() -> String {
    let seconds = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(error) => -i64::try_from(error.duration().as_secs()).unwrap_or(i64::MAX),
    };
    rfc3339(seconds)
}

/// Seconds since 1970 as RFC 3339 writes them. The date by Hinnant, "chrono-compatible low-level date algorithms"
/// (`civil_from_days`): years that begin in March put the leap day last.
fn rfc3339(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400) + 719_468;
    let second = seconds.rem_euclid(86_400);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

/// The most memory that this process held so far, in bytes.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    [std::env::consts::OS, release.trim(), std::env::consts::ARCH]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")`
    #[test]
    fn times_are_those_of_python() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_785_412_345, "2026-07-30T11:52:25Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }

    /// FIPS 180-2, appendix B: "abc" and a million times "a".
    #[test]
    fn hashes_are_the_published_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        for (contents, expected) in [
            ("abc".to_owned(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("a".repeat(1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        ] {
            fs::write(&path, &contents).unwrap();
            let hashed = HashedFile::of("train", &path).unwrap();
            assert_eq!((hashed.sha256.as_str(), hashed.bytes), (expected, contents.len() as u64));
        }
        let error = HashedFile::of("train", &folder.path().join("none")).unwrap_err().to_string();
        assert!(error.starts_with("cannot hash ") && error.contains("none"), "{error}");
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let mut manifest = Provenance::new(7, Vec::new(), Session::start("cpu", 2));
        manifest.count_test_use();
        manifest.end_test_use();
        manifest.end_session();
        manifest.result = Some(json!({"best_epoch": 3}));
        manifest.save(&path).unwrap();
        assert_eq!(Provenance::load(&path).unwrap(), manifest);
        assert_eq!(manifest.test_uses.len(), 1);
        assert!(manifest.sessions[0].ended.is_some());
        // A process of the tests holds more than a megabyte, and began less than an hour ago.
        assert!(manifest.peak_memory_bytes().unwrap() > 1 << 20);
        assert!((0.0..3600.0).contains(&manifest.seconds().unwrap()));
        manifest.sessions.push(Session::start("cpu", 2));
        assert_eq!((manifest.seconds(), manifest.peak_memory_bytes().is_some()), (None, true));
    }

    #[test]
    fn a_use_of_test_that_was_killed_is_not_counted_twice() {
        let mut manifest = Provenance::new(7, Vec::new(), Session::start("cpu", 2));
        manifest.count_test_use();
        // This process is at work: another scoring is another use.
        manifest.count_test_use();
        assert_eq!(manifest.test_uses.len(), 2);
        // No process has this number: Linux gives none above 2^22.
        manifest.test_uses[0].process = Some(u32::MAX);
        manifest.count_test_use();
        assert_eq!(manifest.test_uses.len(), 2);
        // Another command is another use, also after a kill.
        manifest.test_uses[0].process = Some(u32::MAX);
        manifest.test_uses[0].command.push("--split".to_owned());
        manifest.count_test_use();
        assert_eq!(manifest.test_uses.len(), 3);
        manifest.end_test_use();
        manifest.count_test_use();
        assert_eq!(manifest.test_uses.len(), 4);
    }

    #[test]
    fn files_are_found_where_the_folder_lies_and_where_it_lay() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().canonicalize().unwrap().join(name);
        for folder in ["project/run", "project/data", "elsewhere"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("project/data/train.jsonl"), "rows").unwrap();
        let file = HashedFile::of("train", &at("project/data/train.jsonl")).unwrap();
        let mut manifest = Provenance::new(7, vec![file], Session::start("cpu", 2));
        manifest.folder = Some(at("project/run"));
        manifest.save(&at("project/run/manifest.json")).unwrap();
        let stored: Value = serde_json::from_slice(&fs::read(at("project/run/manifest.json")).unwrap()).unwrap();
        assert_eq!(stored["files"][0]["path"], "../data/train.jsonl");
        let path = |manifest: &str| Provenance::load(&at(manifest)).unwrap().files[0].path.clone();
        // The whole was moved.
        fs::rename(at("project"), at("renamed")).unwrap();
        assert_eq!(path("renamed/run/manifest.json"), at("renamed/data/train.jsonl"));
        // The run alone.
        fs::rename(at("renamed"), at("project")).unwrap();
        fs::rename(at("project/run"), at("elsewhere/run")).unwrap();
        assert_eq!(path("elsewhere/run/manifest.json"), at("project/data/train.jsonl"));
        Provenance::load(&at("elsewhere/run/manifest.json")).unwrap().save(&at("elsewhere/run/manifest.json")).unwrap();
        assert_eq!(path("elsewhere/run/manifest.json"), at("project/data/train.jsonl"));
    }

    #[test]
    fn another_json_file_is_no_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        for (contents, expected) in [
            (r#"{"name": "site"}"#, "its `format` is ``, not `clasp-run-1`"),
            ("{", "EOF while parsing"),
            (r#"{"format": "clasp-run-1"}"#, "missing field `seed`"),
        ] {
            fs::write(&path, contents).unwrap();
            let error = Provenance::load(&path).unwrap_err().to_string();
            assert!(error.contains("manifest.json") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        Provenance::new(7, Vec::new(), Session::start("cpu", 2)).save(&path).unwrap();
        let good = fs::read(&path).unwrap();
        crate::damage::each(&[good], 2_000, |bytes| {
            fs::write(&path, bytes).unwrap();
            if let Ok(manifest) = Provenance::load(&path) {
                manifest.save(&path).unwrap();
                assert_eq!(Provenance::load(&path).unwrap(), manifest);
            }
        });
    }
}
