//! A cache on the disk of what a frozen feature encoder makes of the utterances, so that later epochs and later runs
//! skip its convolutions.
//!
//! An entry is one file, `<encoder>-<format>/<first two digits of the key>/<key>` below the cache's folder: the encoder
//! is known by a SHA-256 of its weights, and the key is the SHA-256 of the samples that it was given, so that an entry
//! can never be out of date. Its bytes, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 16 | [`MAGIC`] |
//! | 4, 4, 4 | frames, channels, bytes a value |
//! | 4 | CRC-32 of the entry's place, of the bytes before, and of the values |
//! | the rest | the values, row-major [frames, channels] |
//!
//! An entry appears under its name when it is whole. Whatever else is found there (damaged, cut short, moved from
//! elsewhere) counts as missing and is replaced. Any number of threads and processes may share a folder.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use burn::tensor::f16;
use sha2::{Digest as _, Sha256};

use crate::hash::hexadecimal;
use crate::{
    choices::FeaturePrecision,
    files::{AtomicFile, FileError, TEMPORARY},
};

/// What an entry begins with; another number for another layout.
const MAGIC: &[u8; 16] = b"clasp-features 1";
/// Bytes in front of the values.
const HEADER: usize = 32;
/// An unfinished entry this old is of a process that was killed.
const ABANDONED: Duration = Duration::from_hours(1);
/// Digits of a SHA-256.
const DIGITS: usize = 64;
/// The folder is looked through again when this share of the bound was written: other processes write there too.
const SHARE_BETWEEN_SURVEYS: u64 = 16;
/// And when this many entries have found no room.
const REFUSALS_BETWEEN_SURVEYS: u64 = 256;

/// What the feature encoder makes of one utterance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// Frames of 20 ms.
    pub frames: usize,
    /// Values of a frame.
    pub channels: usize,
    /// Row-major [frames, channels].
    pub values: Vec<f32>,
}

/// A folder with the features of one or several encoders.
#[derive(Debug)]
pub struct FeatureStore {
    folder: PathBuf,
    format: FeaturePrecision,
    /// Bytes of all entries together, at most.
    bound: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of all entries.
    used: u64,
    /// Bytes written since the folder was looked through.
    written: u64,
    /// Entries that may have to go, the oldest last.
    others: Vec<Found>,
    /// The places whose entries are in use here and stay.
    own: BTreeSet<String>,
    /// Whether nothing is stored any more: writing failed.
    is_off: bool,
    /// Entries that found no room.
    refused: u64,
    /// What the user has not been told yet.
    notes: Vec<String>,
}

/// An entry on the disk.
#[derive(Debug)]
struct Found {
    modified: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl FeatureStore {
    /// Opens a folder, which is made where it is not there, for entries of `bound` bytes in all.
    ///
    /// # Errors
    /// The folder cannot be made or written in.
    pub fn open(folder: &Path, format: FeaturePrecision, bound: u64) -> Result<Arc<Self>, FileError> {
        fs::create_dir_all(folder).map_err(|source| FileError::new("create", folder, source))?;
        // Whether anything can be written there.
        AtomicFile::create(&folder.join("probe"))?;
        let store = Self { folder: folder.to_owned(), format, bound, state: Mutex::default() };
        store.survey(&mut store.state());
        Ok(Arc::new(store))
    }

    /// The cache of one encoder, which is known by the hexadecimal digits of a SHA-256.
    pub fn of(self: &Arc<Self>, encoder: &str) -> FeatureCache {
        let place = format!("{encoder}-{}", self.format);
        let mut state = self.state();
        state.others.retain(|found| !found.path.starts_with(self.folder.join(&place)));
        state.own.insert(place.clone());
        drop(state);
        FeatureCache { store: Arc::clone(self), place }
    }

    /// What the user should know and was not told yet: that the cache is full, or cannot be written.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().notes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A number that a panic left behind is corrected by the next survey.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sums up the entries, and removes what killed processes left.
    fn survey(&self, state: &mut State) {
        state.used = 0;
        state.written = 0;
        state.others.clear();
        for place in names(&self.folder).filter(|name| is_place(name)) {
            let is_own = state.own.contains(&place);
            for two in names(&self.folder.join(&place)).filter(|name| is_hexadecimal(name, 2)) {
                let folder = self.folder.join(&place).join(two);
                for name in names(&folder) {
                    let path = folder.join(&name);
                    let Ok(facts) = fs::symlink_metadata(&path) else { continue };
                    let modified = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    if name.starts_with(TEMPORARY) {
                        if modified.elapsed().is_ok_and(|age| age > ABANDONED) {
                            let _ = fs::remove_file(&path);
                        }
                    } else if is_hexadecimal(&name, DIGITS) && facts.is_file() {
                        state.used += facts.len();
                        if !is_own {
                            state.others.push(Found { modified, bytes: facts.len(), path });
                        }
                    }
                }
            }
        }
        state.others.sort_by_key(|found| std::cmp::Reverse(found.modified));
    }

    /// Takes room for some bytes in the place of what is at a path, if need be from the oldest entries of other encoders;
    /// false where there is none.
    fn take_room(&self, bytes: u64, path: &Path) -> bool {
        let mut state = self.state();
        if state.is_off {
            return false;
        }
        let replaced = fs::symlink_metadata(path).map_or(0, |facts| facts.len());
        // Others write and remove here too. Where it was full it may not be any more, but looking takes its time.
        let looks_again = state.refused > 0 && state.refused.is_multiple_of(REFUSALS_BETWEEN_SURVEYS);
        if looks_again || state.written > self.bound / SHARE_BETWEEN_SURVEYS {
            self.survey(&mut state);
            state.refused += u64::from(looks_again);
        }
        let wanted = |state: &State| state.used.saturating_sub(replaced).saturating_add(bytes);
        if state.refused == 0 && state.others.is_empty() && wanted(&state) > self.bound {
            self.survey(&mut state);
        }
        // Nothing is removed where that does not make room.
        let of_others = |state: &State| state.others.iter().map(|found| found.bytes).sum::<u64>();
        let is_hopeless = wanted(&state) > self.bound && wanted(&state).saturating_sub(of_others(&state)) > self.bound;
        while wanted(&state) > self.bound {
            let oldest = if is_hopeless { None } else { state.others.pop() };
            let Some(oldest) = oldest else {
                state.refused += 1;
                if state.refused == 1 {
                    let note = format!(
                        "note: the feature cache {} is full: features that it does not have are computed anew each time; \
                         speech.feature_cache_gib allows it more",
                        self.folder.display()
                    );
                    state.notes.push(note);
                }
                return false;
            };
            // One that is gone already takes no room either.
            if fs::remove_file(&oldest.path).is_ok() || !oldest.path.exists() {
                state.used = state.used.saturating_sub(oldest.bytes);
            }
        }
        state.used = wanted(&state);
        state.written += bytes;
        true
    }

    /// After a write that failed: training needs no cache.
    fn switch_off(&self, problem: &FileError) {
        let mut state = self.state();
        if !state.is_off {
            state.is_off = true;
            state.notes.push(format!("warning: {problem}; from here on no features are stored in the cache"));
        }
    }
}

/// The features of one encoder.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    store: Arc<FeatureStore>,
    /// The folder of its entries.
    place: String,
}

impl FeatureCache {
    /// The features of a normalised waveform, if they are there.
    pub fn get(&self, waveform: &[f32]) -> Option<Arc<Features>> {
        let key = key(waveform);
        let bytes = read(&self.path(&key))?;
        decode(&bytes, self.store.format, &self.seal(&key)).map(Arc::new)
    }

    /// Stores the features of a normalised waveform and returns them as [`FeatureCache::get`] will. What the cache's
    /// number format cannot hold is not stored, and returned as it is.
    pub fn put(&self, waveform: &[f32], features: Features) -> Arc<Features> {
        let features = match self.store.format {
            FeaturePrecision::F32 => features,
            FeaturePrecision::F16 => match rounded(&features) {
                Some(rounded) => rounded,
                None => return Arc::new(features),
            },
        };
        let key = key(waveform);
        if let Some(bytes) = encode(&features, self.store.format, &self.seal(&key))
            && self.store.take_room(bytes.len() as u64, &self.path(&key))
            && let Err(problem) = write(&self.path(&key), &bytes)
        {
            self.store.switch_off(&problem);
        }
        Arc::new(features)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.store.folder.join(&self.place).join(&key[..2]).join(key)
    }

    /// What the checksum of an entry covers beside its bytes, so that a file that was moved is not taken for another.
    fn seal(&self, key: &str) -> String {
        format!("{}/{key}", self.place)
    }
}

/// SHA-256 of the samples' bytes.
fn key(waveform: &[f32]) -> String {
    let bytes: Vec<u8> = waveform.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    hexadecimal(&Sha256::digest(&bytes))
}

/// The values as 16-bit floats hold them; `None` if one is too large for that.
fn rounded(features: &Features) -> Option<Features> {
    let values: Vec<f32> = features.values.iter().map(|&value| f16::from_f32(value).to_f32()).collect();
    values.iter().all(|value| value.is_finite()).then_some(Features { values, ..*features })
}

const fn width(format: FeaturePrecision) -> usize {
    match format {
        FeaturePrecision::F32 => 4,
        FeaturePrecision::F16 => 2,
    }
}

/// The bytes of an entry; none for a size that its header cannot state.
fn encode(features: &Features, format: FeaturePrecision, seal: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER + features.values.len() * width(format));
    bytes.extend(MAGIC);
    for number in [features.frames, features.channels, width(format)] {
        bytes.extend(u32::try_from(number).ok()?.to_le_bytes());
    }
    bytes.extend([0; 4]);
    match format {
        FeaturePrecision::F32 => features.values.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
        FeaturePrecision::F16 => {
            features.values.iter().for_each(|&value| bytes.extend(f16::from_f32(value).to_le_bytes()));
        }
    }
    let checksum = checksum(&bytes, seal);
    bytes[HEADER - 4..HEADER].copy_from_slice(&checksum.to_le_bytes());
    Some(bytes)
}

/// The features of an entry; `None` if it is no whole entry of this format and place.
fn decode(bytes: &[u8], format: FeaturePrecision, seal: &str) -> Option<Features> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let number = |place: usize| {
        let bytes = header.get(place..place + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (frames, channels) = (number(16)?, number(20)?);
    let length = frames.checked_mul(channels)?.checked_mul(width(format))?;
    if !header.starts_with(MAGIC) || number(24)? != width(format) || body.len() != length {
        return None;
    }
    if number(HEADER - 4)? != usize::try_from(checksum(bytes, seal)).ok()? {
        return None;
    }
    let values = match format {
        FeaturePrecision::F32 => {
            let (values, _) = body.as_chunks::<4>();
            values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        FeaturePrecision::F16 => {
            let (values, _) = body.as_chunks::<2>();
            values.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
        }
    };
    Some(Features { frames, channels, values })
}

/// Of all bytes but its own, which are the header's last.
fn checksum(bytes: &[u8], seal: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(seal.as_bytes());
    hasher.update(&bytes[..HEADER - 4]);
    hasher.update(&bytes[HEADER..]);
    hasher.finalize()
}

/// Writes an entry and gives it its name. It is not brought to the disk at once: what a power cut leaves of it does not
/// fit its checksum.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|source| FileError::new("create", folder, source))?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|source| FileError::new("write", path, source))?;
    file.commit_unsynced()
}

/// The bytes of an entry; none of what is no file, or not as long as its header says.
fn read(path: &Path) -> Option<Vec<u8>> {
    // Whoever opens a pipe would wait for its other end.
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let facts = file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    let number = |place: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[place + byte]));
    let values = [16, 20, 24].map(|place| u64::from(number(place))).into_iter().try_fold(1, u64::checked_mul)?;
    let length = values.checked_add(HEADER as u64)?;
    if !header.starts_with(MAGIC) || length != facts.len() {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).ok()?);
    bytes.extend(header);
    file.take(values).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The names in a folder; `None` if it cannot be read.
fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn is_hexadecimal(name: &str, digits: usize) -> bool {
    name.len() == digits && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a folder is one of entries: whatever else lies in the cache's folder is left alone.
fn is_place(name: &str) -> bool {
    name.split_once('-').is_some_and(|(encoder, format)| {
        is_hexadecimal(encoder, DIGITS) && FeaturePrecision::from_word(format).is_some()
    })
}

#[cfg(test)]
mod tests;
