//! `events.out.tfevents.clasp`: the scalars of the log in TensorBoard's own format, so that a run can be watched there.
//!
//! The format is `TFRecord` (`tensorflow/core/lib/io/record_writer.h`): the length of a record in eight bytes, a checksum
//! of these, the record, a checksum of it; all little-endian. A record is an `Event` (event.proto) in protocol-buffer
//! encoding, of which only the fields of scalars are needed. `scripts/check_tensorboard.py` holds what is written
//! against TensorBoard's reader.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::log::{Entry, EpochScores};
use crate::files::{FileError, replace_file};

/// The polynomial of CRC-32C (Castagnoli), its bits in reverse.
const CASTAGNOLI: u32 = 0x82F6_3B78;

/// What a checksum is masked with, so that the checksum of data that holds checksums stays a good one.
const MASK: u32 = 0xA282_EAD8;

/// What the first record says.
const VERSION: &str = "brain.Event:2";

/// Bytes around a record: length and two checksums.
const FRAME: usize = 16;

/// Bytes that an event begins with: the field of its time.
const TIME: usize = 9;

/// An event file, open for appending.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Opens the file, or starts it, so that it has a record for each of these entries of the log and no others: what
    /// lies behind them or is torn is removed, what a kill left out is written now.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(path: &Path, entries: &[Entry]) -> Result<Self, FileError> {
        let failed = |source| FileError::new("open", path, source);
        let old = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(failed)?,
        };
        let mut kept = record_at(&old).map_or(0, |(_, length)| length);
        let mut written = 0;
        while let (Some(entry), Some((content, length))) = (entries.get(written), record_at(&old[kept..])) {
            if !is_of(content, entry) {
                break;
            }
            kept += length;
            written += 1;
        }
        if kept < old.len() || kept == 0 {
            let first = record(&event(seconds(), 0, &field_bytes(3, VERSION.as_bytes())));
            replace_file(path, if kept == 0 { &first } else { &old[..kept] })?;
        }
        let file = File::options().append(true).open(path).map_err(failed)?;
        let mut events = Self { path: path.to_owned(), file };
        entries[written..].iter().try_for_each(|entry| events.append(entry))?;
        Ok(events)
    }

    /// Appends the scalars of a line of the log.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(&mut self, entry: &Entry) -> Result<(), FileError> {
        let bytes = record(&of_entry(entry, seconds()));
        self.file.write_all(&bytes).map_err(|source| FileError::new("write", &self.path, source))
    }
}

/// The event of a line of the log.
fn of_entry(entry: &Entry, seconds: f64) -> Vec<u8> {
    let step = match entry {
        Entry::Step(entry) => entry.step,
        Entry::Epoch(entry) => entry.step,
    };
    let summary: Vec<u8> = scalars(entry)
        .into_iter()
        .filter(|(_, value)| value.is_finite())
        .flat_map(|(tag, value)| {
            #[expect(clippy::cast_possible_truncation, reason = "TensorBoard's scalars are single precision")]
            let value = (value as f32).to_le_bytes();
            let mut scalar = field_bytes(1, tag.as_bytes());
            // Field 2, 32 bits: `simple_value`.
            scalar.push(2 << 3 | 5);
            scalar.extend(value);
            field_bytes(1, &scalar)
        })
        .collect();
    event(seconds, step as u64, &field_bytes(5, &summary))
}

/// Whether the content of a record is the event of a line of the log: the same scalars of the same step. The clock says
/// another time.
fn is_of(content: &[u8], entry: &Entry) -> bool {
    content.get(TIME..) == of_entry(entry, 0.0).get(TIME..)
}

/// The scalars of an entry by their tags.
fn scalars(entry: &Entry) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    match entry {
        Entry::Step(entry) => {
            found.push(("loss/total".to_owned(), entry.loss.total));
            found.extend(entry.loss.terms().map(|(name, value)| (format!("loss/{name}"), value)));
            for (name, value) in [
                ("learning_rate", entry.learning_rate),
                ("gradient_norm", entry.gradient_norm),
                ("examples_per_second", entry.examples_per_second),
            ] {
                found.push((format!("train/{name}"), value));
            }
            found.extend(entry.gradient_norms.iter().map(|(part, norm)| (format!("gradient_norm/{part}"), *norm)));
        }
        Entry::Epoch(entry) => {
            if let Some(loss) = &entry.train.loss {
                found.push(("epoch/train_loss".to_owned(), loss.total));
            }
            if let Some(dev) = &entry.dev {
                found.extend(scores(dev));
            }
            found.extend(entry.data_wait.map(|share| ("epoch/data_wait".to_owned(), share)));
            for (tag, bytes) in [("resident", entry.resident_memory), ("device", entry.device_memory)] {
                #[expect(clippy::cast_precision_loss, reason = "TensorBoard's scalars are single precision")]
                found.extend(bytes.map(|bytes| (format!("epoch/{tag}_memory"), bytes as f64)));
            }
        }
    }
    found
}

fn scores(dev: &EpochScores) -> Vec<(String, f64)> {
    let systems = [("dev", dev.fusion), ("dev_text_only", dev.text_only), ("dev_speech_only", dev.speech_only)];
    let named = systems.into_iter().filter_map(|(name, headline)| Some((name, headline?)));
    named
        .flat_map(|(name, headline)| {
            headline
                .named()
                .map(|(metric, value)| (format!("{name}/{}", metric.replace(' ', "_").to_lowercase()), *value))
        })
        .collect()
}

/// Fields 1 and 2 of an event, its time and step, and another field.
fn event(seconds: f64, step: u64, field: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend(seconds.to_le_bytes());
    bytes.push(2 << 3);
    bytes.extend(number(step));
    bytes.extend(field);
    bytes
}

/// A field of bytes: its number and kind, its length, itself.
fn field_bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    bytes.extend(number(content.len() as u64));
    bytes.extend(content);
    bytes
}

/// Seven bits a byte, the lowest first; the eighth bit says that more follow.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let [low, ..] = (value & 0x7F).to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(content);
    bytes.extend(masked(content).to_le_bytes());
    bytes
}

fn masked(content: &[u8]) -> u32 {
    crc32c(content).rotate_right(15).wrapping_add(MASK)
}

fn crc32c(content: &[u8]) -> u32 {
    !content.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ CASTAGNOLI } else { crc >> 1 })
    })
}

/// The content of the record that bytes begin with, and its length; `None` if it is not whole.
fn record_at(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let length = bytes.get(..8)?;
    if masked(length).to_le_bytes() != *bytes.get(8..12)? {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let content = bytes.get(12..length.checked_add(12)?)?;
    if masked(content).to_le_bytes() != *bytes.get(length + 12..length.checked_add(FRAME)?)? {
        return None;
    }
    Some((content, length + FRAME))
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::log::{EpochEntry, LossValues, StepEntry};

    fn entry(step: usize) -> Entry {
        Entry::Step(StepEntry {
            epoch: 1,
            step,
            loss: LossValues::new(1.5, [("kl", f64::NAN)]),
            learning_rate: 1e-5,
            gradient_norm: 2.0,
            gradient_norms: std::collections::BTreeMap::new(),
            examples_per_second: 8.0,
        })
    }

    /// RFC 3720, appendix B.4: 32 bytes of zeros, of ones, and the numbers from 0; and the usual check of nine digits.
    #[test]
    fn checksums_are_the_published_ones() {
        let ascending: Vec<u8> = (0..32).collect();
        for (content, expected) in [
            (&[0; 32][..], 0x8A91_36AA),
            (&[0xFF; 32], 0x62A8_AB43),
            (&ascending, 0x46DD_794E),
            (b"123456789", 0xE306_9283),
        ] {
            assert_eq!(crc32c(content), expected);
        }
    }

    /// By hand from the encoding of protocol buffers: 300 is 0xAC 0x02 (their documentation's example).
    #[test]
    fn events_are_encoded_by_the_book() {
        assert_eq!(number(300), [0xAC, 0x02]);
        assert_eq!((number(0), number(127), number(128)), (vec![0], vec![127], vec![0x80, 1]));
        assert_eq!(field_bytes(3, b"ab"), [0x1A, 2, b'a', b'b']);
        let bytes = event(1.0, 300, &[]);
        assert_eq!(bytes, [0x09, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F, 0x10, 0xAC, 0x02]);
        assert_eq!(record(&bytes).len(), bytes.len() + FRAME);
    }

    #[test]
    fn scalars_that_are_finite_are_written() {
        let tags: Vec<(String, f64)> = scalars(&entry(1)).into_iter().filter(|(_, value)| value.is_finite()).collect();
        let expected = [
            ("loss/total", 1.5),
            ("train/learning_rate", 1e-5),
            ("train/gradient_norm", 2.0),
            ("train/examples_per_second", 8.0),
        ];
        assert_eq!(tags, expected.map(|(tag, value)| (tag.to_owned(), value)));
    }

    /// Contents of the records without what the clock says.
    fn timeless(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut rest, mut found) = (bytes, Vec::new());
        while let Some((content, length)) = record_at(rest) {
            found.push(content[TIME..].to_vec());
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        found
    }

    #[test]
    fn a_resume_leaves_a_record_for_each_line_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.out.tfevents.clasp");
        let epoch = Entry::Epoch(Box::new(EpochEntry { epoch: 1, step: 128, data_wait: Some(0.5), ..epoch_entry() }));
        let entries = [entry(1), entry(127), entry(128), epoch, entry(300)];
        let mut events = Events::open(&path, &[]).unwrap();
        for entry in &entries {
            events.append(entry).unwrap();
        }
        drop(events);
        let whole = fs::read(&path).unwrap();
        let all = timeless(&whole);
        assert_eq!(all.len(), 1 + entries.len());
        Events::open(&path, &entries).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        // Wherever the log is cut back to, also between the last step of an epoch and its end, which have one number;
        // and whatever of the file is there.
        for kept in 0..=entries.len() {
            for length in (0..whole.len()).step_by(11).chain([whole.len()]) {
                fs::write(&path, &whole[..length]).unwrap();
                let mut events = Events::open(&path, &entries[..kept]).unwrap();
                for entry in &entries[kept..] {
                    events.append(entry).unwrap();
                }
                assert!(timeless(&fs::read(&path).unwrap()) == all, "{kept} lines, {length} bytes");
            }
        }
        // Damage in the middle, and an epoch that stands twice, as older programs left it.
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        let ends: Vec<usize> = (0..=all.len())
            .map(|records| all[..records].iter().map(|content| content.len() + TIME + FRAME).sum())
            .collect();
        let twice = [&whole[..ends[5]], &whole[ends[4]..]].concat();
        for bytes in [damaged, twice] {
            fs::write(&path, bytes).unwrap();
            Events::open(&path, &entries).unwrap();
            assert!(timeless(&fs::read(&path).unwrap()) == all);
        }
    }

    fn epoch_entry() -> EpochEntry {
        EpochEntry {
            epoch: 1,
            step: 1,
            train: EpochScores::default(),
            dev: None,
            is_best: true,
            seconds: 1.0,
            data_wait: None,
            resident_memory: None,
            device_memory: None,
        }
    }
}
