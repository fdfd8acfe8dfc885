//! The audio of manifests, looked at in parallel: is it there, how long is it, is anything in it, and which files are
//! the same recording.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::{CheckOptions, Finding, Part, Severity};
use crate::data::audio::Channel;
use crate::data::dataset::check_duration;
use crate::data::manifest::{ROUNDING, Row};
use crate::data::{AudioProblem, DataError, MIN_SAMPLES, SAMPLE_RATE, audio};
use crate::hash;
use crate::splits::content;
use crate::splits::overlap::Piece;

/// A peak below this is silence: 60 dB below full scale.
const SILENCE: f32 = 1e-3;

/// A sample from here on is at full scale.
const FULL_SCALE: f32 = 0.999;

/// A share of samples at full scale above this is clipped.
const CLIPPED_SHARE: f64 = 1e-3;

/// A file and the piece of it that a row names.
type Key = (PathBuf, Option<u64>, Option<u64>, Option<Channel>);

/// What is known of the audio of some rows.
pub(super) struct Sounds {
    pieces: HashMap<Key, Result<Sound, String>>,
    /// What each file's content is known by.
    contents: HashMap<PathBuf, String>,
}

/// What is known of one piece.
#[derive(Clone, Debug)]
struct Sound {
    seconds: f64,
    is_silent: bool,
    is_clipped: bool,
    /// What players forgive in the file.
    notes: Vec<String>,
}

fn key(row: &Row) -> Option<Key> {
    Some((row.audio.clone()?, row.start.map(f64::to_bits), row.end.map(f64::to_bits), row.channel))
}

impl Sounds {
    /// Looks at every file and piece once.
    pub fn read<'a>(
        rows: impl Iterator<Item = &'a Row>,
        decode: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Self {
        let rows: HashMap<Key, &Row> = rows.filter_map(|row| Some((key(row)?, row))).collect();
        let (done, of) = (AtomicUsize::new(0), rows.len());
        let looked: HashMap<Key, (Result<Sound, String>, Option<String>)> = rows
            .into_par_iter()
            .map(|(key, row)| {
                let found = if decode { decoded(row) } else { probed(row).map(|sound| (sound, None)) };
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, of);
                match found {
                    Ok((sound, content)) => (key, (Ok(sound), content)),
                    Err(problem) => (key, (Err(problem.to_string()), None)),
                }
            })
            .collect();
        let mut contents = content::known_by(looked.keys().map(|(path, ..)| (path.as_path(), 0)), false);
        // Decoded, a recording is known by its samples, whatever it is packed in; so are copies of its file of which
        // only pieces are named.
        let samples: HashMap<String, String> = looked
            .iter()
            .filter_map(|((path, ..), (_, samples))| Some((contents.get(path)?.clone(), samples.clone()?)))
            .collect();
        for content in contents.values_mut() {
            if let Some(samples) = samples.get(content) {
                content.clone_from(samples);
            }
        }
        Self { pieces: looked.into_iter().map(|(key, (sound, _))| (key, sound)).collect(), contents }
    }

    /// The seconds of a row's audio.
    pub fn seconds(&self, row: &Row) -> Option<f64> {
        Some(self.pieces.get(&key(row)?)?.as_ref().ok()?.seconds)
    }

    /// The recording of a row.
    pub fn piece(&self, row: &Row) -> Option<Piece> {
        Some(Piece::of(row, self.contents.get(row.audio.as_ref()?)?.clone()))
    }

    /// What is wrong with the audio of a manifest.
    pub fn findings(&self, part: &Part, options: &CheckOptions) -> Vec<Finding> {
        let mut bad = Vec::new();
        let (mut long, mut silent, mut clipped, mut misstated) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut odd, mut of_file) = (Vec::new(), Vec::new());
        let channels = part.rows.iter().filter(|row| row.extra.contains_key("channel"));
        let channels: Vec<String> = channels.map(|row| row.id.clone()).collect();
        let mut same: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for row in &part.rows {
            let Some(sound) = key(row).and_then(|key| self.pieces.get(&key)) else { continue };
            let sound = match sound {
                Ok(sound) => sound,
                Err(problem) => {
                    bad.push(format!("`{}` (line {}): {problem}", row.id, row.line));
                    continue;
                }
            };
            for (list, is_so) in [
                (&mut long, sound.seconds > options.max_seconds),
                (&mut silent, sound.is_silent),
                (&mut clipped, sound.is_clipped),
                (&mut misstated, is_misstated(row, sound)),
                (&mut of_file, row.file_seconds().is_some()),
            ] {
                if is_so {
                    list.push(row.id.clone());
                }
            }
            odd.extend(sound.notes.iter().map(|note| format!("`{}` (line {}): {note}", row.id, row.line)));
            if let Some((path, start, end, channel)) = key(row)
                && let Some(content) = self.contents.get(&path)
            {
                same.entry((content, start, end, channel)).or_default().push(&row.id);
            }
        }
        let same: Vec<String> = same
            .into_values()
            .flat_map(|ids| {
                let first = ids[0];
                ids.into_iter().skip(1).map(move |id| format!("{id} (as {first})"))
            })
            .collect();
        let long_text = format!("longer than {} s, and cut there in training", options.max_seconds);
        [
            (Severity::Error, bad, "audio that cannot be used"),
            (Severity::Warning, long, long_text.as_str()),
            (Severity::Warning, silent, "silent: no sample above a thousandth of full scale"),
            (Severity::Warning, clipped, "clipped: more than one in a thousand samples at full scale"),
            (Severity::Warning, misstated, "`duration` is not the file's; correct it, or leave it out"),
            (Severity::Warning, same, "the same recording as another row of this manifest"),
            (
                Severity::Note,
                channels,
                "`channel` is neither a number nor \"mean\": an extra key, and all channels are read",
            ),
            (Severity::Note, of_file, "`duration` is the file's, and not that of the piece between `start` and `end`"),
            (Severity::Note, odd, "header errors that players tolerate; the sound is read as they read it"),
        ]
        .into_iter()
        .filter(|(_, examples, _)| !examples.is_empty())
        .map(|(severity, examples, text)| Finding::new(severity, "audio", part, &examples, text))
        .collect()
    }
}

/// Where a row is no piece, `duration` is the file's.
fn is_misstated(row: &Row, sound: &Sound) -> bool {
    let is_piece = row.start.is_some() || row.end.is_some();
    row.duration.is_some_and(|stated| !is_piece && (stated - sound.seconds).abs() > ROUNDING)
}

/// From the header, and from the file's length where there is none.
fn probed(row: &Row) -> Result<Sound, DataError> {
    let path = row.audio.as_deref().unwrap_or(Path::new(""));
    check_duration(row)?;
    let (whole, notes) = audio::examine(path, false)?;
    let failed = |problem| Err(DataError::Audio { path: path.to_path_buf(), problem });
    let outside = |key, seconds| AudioProblem::OutsideFile { key, seconds, duration: whole };
    let start = row.start.unwrap_or(0.0);
    if row.start.is_some() && start >= whole {
        return failed(outside("start", start));
    }
    if let Some(end) = row.end.filter(|end| *end > whole + ROUNDING) {
        return failed(outside("end", end));
    }
    let seconds = row.end.unwrap_or(whole).min(whole) - start;
    let samples = audio::samples_of(seconds);
    if samples < MIN_SAMPLES {
        return failed(AudioProblem::TooShort { samples });
    }
    Ok(Sound { seconds, is_silent: false, is_clipped: false, notes })
}

/// From every sample; also what a whole file's content is known by.
fn decoded(row: &Row) -> Result<(Sound, Option<String>), DataError> {
    let path = row.audio.as_deref().unwrap_or(Path::new(""));
    check_duration(row)?;
    let samples = audio::load_piece(path, row.piece())?.samples;
    let peak = samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    let full = samples.iter().filter(|sample| sample.abs() >= FULL_SCALE).count();
    #[expect(clippy::cast_precision_loss, reason = "a recording has far fewer than 2^53 samples")]
    let (full, count) = (full as f64, samples.len() as f64);
    let content = (row.start.is_none() && row.end.is_none() && row.channel.is_none()).then(|| {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| audio::to_i16(*sample).to_le_bytes()).collect();
        hash::of_bytes(&bytes)
    });
    let (_, notes) = audio::examine(path, true)?;
    let sound = Sound {
        seconds: count / f64::from(SAMPLE_RATE),
        is_silent: peak < SILENCE,
        is_clipped: full / count > CLIPPED_SHARE,
        notes,
    };
    Ok((sound, content))
}
