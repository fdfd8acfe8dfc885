//! Audio files to waveforms: decoded by content (never by name), downmixed, resampled to 16 kHz.
//!
//! Whatever the bytes, the result is a waveform or an [`AudioProblem`]: headers are checked against the file (`layout`), and
//! a decoder that panics is caught.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use clasp_signal::resample;

use super::container::{self, Container};
use super::decode::{Stretch, decode, frames_at, length, seconds};
use super::layout::Layout;
use super::source::{Peek, Store};
use super::{DataError, FileProblem, MIN_SAMPLES, SAMPLE_RATE, flac};

/// How far `end` may lie behind the end of the audio, in seconds: manifests round.
const END_TOLERANCE: f64 = 0.1;

/// The largest sample that is no damage: whole numbers of 32 bits that somebody wrote as floats lie far below. Guards the
/// resampler, whose sums would overflow.
const LARGEST_SAMPLE: f32 = 1e12;

/// Why an audio file cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AudioProblem {
    /// No bytes at all.
    #[error("the audio file is empty (0 bytes); record or copy it again")]
    Empty,
    /// Fewer bytes or frames than the file claims.
    #[error("the audio is truncated: it claims {claimed}, there are only {found}; copy the file again")]
    Truncated { claimed: String, found: String },
    /// Fields of the header contradict each other or the file.
    #[error("the audio's header is wrong: {reason}; write the file again (ffmpeg -i in.wav out.wav)")]
    HeaderLies { reason: String },
    /// Two files in one, in a format of which only the first is read.
    #[error(
        "a second file begins at byte {byte}; split them (head -c {byte}, tail -c +{}), and give each an utterance",
        byte + 1
    )]
    Joined {
        /// Where, from 0.
        byte: u64,
    },
    /// Too few samples for the speech encoder.
    #[error(
        "the audio is too short: {samples} samples at 16 kHz, at least {MIN_SAMPLES} (25 ms) are needed; remove the \
         utterance or correct its start and end"
    )]
    TooShort { samples: usize },
    /// More audio than one utterance can have.
    #[error("the audio is longer than 3 hours; cut it into utterances, or give start and end")]
    TooLong,
    /// A channel that the file does not have.
    #[error(
        "`channel` is {channel}, but the audio has {channels} (0 to {}); correct the manifest, or write \"mean\"",
        channels - 1
    )]
    NoChannel { channel: usize, channels: usize },
    /// Not-a-number or infinite samples.
    #[error(
        "the audio has samples that are not finite (the first at {seconds:.3} s); export it again from the original"
    )]
    NotFinite {
        /// Where, in seconds.
        seconds: f64,
    },
    /// Samples that no recording has.
    #[error(
        "the audio has samples above {LARGEST_SAMPLE:e} (the first at {seconds:.3} s); export it again from the original"
    )]
    TooLoud {
        /// Where, in seconds.
        seconds: f64,
    },
    /// What a clone without Git LFS has in the place of a file.
    #[error("{}", crate::files::LFS_POINTER_ADVICE)]
    LfsPointer,
    /// No known audio format.
    #[error("not an audio file; WAV, FLAC, MP3, OGG (Vorbis, Opus), AIFF, M4A, CAF and WebM are read")]
    NotAudio,
    /// An audio format that is not read.
    #[error("{format} is not read; convert it: ffmpeg -i {name} out.wav")]
    Unsupported {
        format: &'static str,
        /// An example of a file name.
        name: &'static str,
    },
    /// The decoder met damage in the middle.
    #[error("the audio is damaged at {seconds:.2} s ({reason}); copy the file again")]
    Damaged {
        /// Where, in seconds.
        seconds: f64,
        reason: String,
    },
    /// The file cannot be opened as what it seems to be.
    #[error("the audio cannot be decoded ({reason}); copy it again or convert it: ffmpeg -i in out.wav")]
    Unreadable { reason: String },
    /// `start` or `end` lie behind the end.
    #[error("`{key}` is {seconds} s but the audio is only {duration:.3} s long; correct the manifest")]
    OutsideFile {
        /// `start` or `end`.
        key: &'static str,
        seconds: f64,
        /// The file's length in seconds.
        duration: f64,
    },
    /// `duration` is neither that of the piece nor that of the file.
    #[error(
        "`duration` is {stated} s, which is neither `end` less `start` nor the length of the file ({file:.3} s); correct \
         the manifest"
    )]
    OtherDuration { stated: f64, file: f64 },
}

impl AudioProblem {
    /// A header that contradicts itself.
    pub(super) fn lie(reason: &str) -> Self {
        Self::HeaderLies { reason: reason.to_owned() }
    }
}

/// Which channel of a recording is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// All, as their mean.
    #[default]
    Mean,
    /// One of them, from 0.
    #[serde(untagged)]
    Number(usize),
}

impl Channel {
    /// The number of a channel, or `mean`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "mean" { Some(Self::Mean) } else { text.parse().ok().map(Self::Number) }
    }
}

/// What of a file is read; the default is all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Piece {
    /// In seconds.
    pub start: Option<f64>,
    /// In seconds.
    pub end: Option<f64>,
    pub channel: Channel,
}

/// One utterance's audio: mono at [`SAMPLE_RATE`], not normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct Waveform {
    /// [samples], in -1..1 for integer formats.
    pub samples: Vec<f32>,
    /// The file's own rate in Hz.
    pub source_rate: u32,
    pub channels: usize,
}

/// Reads a file, or the part from `start` to `end` (seconds) of it.
///
/// # Errors
///
/// [`DataError::File`] or [`DataError::Audio`], with the path.
pub fn load(path: &Path, start: Option<f64>, end: Option<f64>) -> Result<Waveform, DataError> {
    load_piece(path, Piece { start, end, channel: Channel::Mean })
}

/// Reads a piece of a file.
///
/// # Errors
///
/// As [`load`].
pub fn load_piece(path: &Path, piece: Piece) -> Result<Waveform, DataError> {
    load_cut(path, piece, f64::INFINITY).map(|(waveform, _)| waveform)
}

/// Like [`load_piece`], and keeps at most `max_seconds`; also says whether there was more. What lies behind is not decoded.
///
/// # Errors
///
/// As [`load`].
pub fn load_cut(path: &Path, piece: Piece, max_seconds: f64) -> Result<(Waveform, bool), DataError> {
    let (store, layout) = layout_of(path)?;
    waveform(&store, &layout, piece, max_seconds)
        .map_err(|problem| DataError::Audio { path: path.to_path_buf(), problem })
}

/// Like [`load`], for a file that is in memory.
///
/// # Errors
///
/// What is wrong with it.
pub fn from_bytes(bytes: Vec<u8>, start: Option<f64>, end: Option<f64>) -> Result<Waveform, AudioProblem> {
    let store = Store::memory(bytes);
    let piece = Piece { start, end, channel: Channel::Mean };
    waveform(&store, &Layout::of(&store)?, piece, f64::INFINITY).map(|(waveform, _)| waveform)
}

/// The length of a file in seconds: from its header where that says it, else by decoding.
///
/// # Errors
///
/// As [`load`], as far as the header shows it.
pub fn probe(path: &Path) -> Result<f64, DataError> {
    examine(path, false).map(|(seconds, _)| seconds)
}

/// The length of a file in seconds, and where its headers claim something else than it has or other things than sound are
/// in it, one sentence each: all that players forgive. Of a FLAC only where this is `thorough`, since what follows its
/// header is long.
///
/// # Errors
///
/// As [`load`], as far as the headers show it.
pub fn examine(path: &Path, thorough: bool) -> Result<(f64, Vec<String>), DataError> {
    let failed = |problem| DataError::Audio { path: path.to_path_buf(), problem };
    if !thorough {
        let store = store_of(path)?.1;
        let mut peek = Peek::new(&store);
        let begin = container::find(&mut peek).map_err(failed)?;
        if begin.container == Container::Flac
            && let Some((frames, rate)) = flac::claimed(&mut peek, begin.at).map_err(failed)?
        {
            return Ok((seconds(frames, rate), Vec::new()));
        }
    }
    let (store, layout) = layout_of(path)?;
    let (frames, rate) = length(&store, &layout).map_err(failed)?;
    Ok((seconds(frames, rate), layout.notes.clone()))
}

/// Zero mean and unit variance (population variance, 1e-7 added to it), in place, as Hugging Face's feature extractor.
pub fn normalise(samples: &mut [f32]) {
    const EPSILON: f64 = 1e-7;
    if samples.is_empty() {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "a waveform has far fewer than 2^53 samples")]
    let count = samples.len() as f64;
    let mean = samples.iter().map(|sample| f64::from(*sample)).sum::<f64>() / count;
    let variance = samples.iter().map(|sample| (f64::from(*sample) - mean).powi(2)).sum::<f64>() / count;
    let scale = (variance + EPSILON).sqrt().recip();
    for sample in samples {
        #[expect(clippy::cast_possible_truncation, reason = "the model computes in single precision")]
        let normal = ((f64::from(*sample) - mean) * scale) as f32;
        *sample = normal;
    }
}

/// A sample as 16 bits: 1 is 32,768, as it is read, so that what was 16 bits stays the same; clipped at the ends.
#[expect(clippy::cast_possible_truncation, reason = "a float to integer cast saturates")]
pub(crate) fn to_i16(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16
}

/// Writes mono 16-bit PCM; samples outside -1..1 are clipped.
///
/// # Errors
///
/// The file cannot be written.
pub fn write_wav(path: &Path, samples: &[f32], rate: u32) -> Result<(), DataError> {
    let specification =
        hound::WavSpec { channels: 1, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let written = || -> Result<(), hound::Error> {
        let mut writer = hound::WavWriter::create(path, specification)?;
        for sample in samples {
            writer.write_sample(to_i16(*sample))?;
        }
        writer.finalize()
    };
    written().map_err(|error| match error {
        hound::Error::IoError(error) => DataError::write(path, &error),
        other => DataError::Write { path: path.to_path_buf(), problem: other.to_string() },
    })
}

fn open(path: &Path) -> Result<File, DataError> {
    let failed = |error: std::io::Error| DataError::file(path, &error);
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let facts = std::fs::metadata(path).map_err(failed)?;
    let problem = |problem| Err(DataError::File { path: path.to_path_buf(), problem });
    if facts.is_dir() {
        return problem(FileProblem::Folder);
    }
    if !facts.is_file() {
        return problem(FileProblem::Special);
    }
    if facts.len() == 0 {
        return Err(DataError::Audio { path: path.to_path_buf(), problem: AudioProblem::Empty });
    }
    File::open(path).map_err(failed)
}

fn store_of(path: &Path) -> Result<(File, Arc<Store>), DataError> {
    let file = open(path)?;
    let failed = |error: std::io::Error| DataError::file(path, &error);
    let store = Store::file(file.try_clone().map_err(failed)?).map_err(failed)?;
    Ok((file, store))
}

fn layout_of(path: &Path) -> Result<(Arc<Store>, Arc<Layout>), DataError> {
    let (file, store) = store_of(path)?;
    let layout = Layout::of_file(path, &file, &store)
        .map_err(|problem| DataError::Audio { path: path.to_path_buf(), problem })?;
    Ok((store, layout))
}

fn waveform(
    store: &Arc<Store>,
    layout: &Layout,
    Piece { start, end, channel }: Piece,
    max_seconds: f64,
) -> Result<(Waveform, bool), AudioProblem> {
    // Decoded to whichever comes first, `end` or the cut, and a little more to see whether something lies behind.
    let start_seconds = start.unwrap_or(0.0).max(0.0);
    let until = end.unwrap_or(f64::INFINITY).min(start_seconds + max_seconds) + 2.0 * END_TOLERANCE;
    let decoded = decode(store, layout, Stretch { start: start_seconds, until, channel })?;
    if let Some(total) = decoded.total {
        let duration = seconds(total, decoded.rate);
        let outside = |key, seconds| Err(AudioProblem::OutsideFile { key, seconds, duration });
        if start.is_some() && start_seconds >= duration {
            return outside("start", start_seconds);
        }
        if let Some(end) = end.filter(|end| *end > duration + END_TOLERANCE) {
            return outside("end", end);
        }
    }
    let first = frames_at(start_seconds, decoded.rate);
    let last = end.map_or(u64::MAX, |end| frames_at(end, decoded.rate)).saturating_sub(first);
    let part = &decoded.mono[..usize::try_from(last).unwrap_or(usize::MAX).min(decoded.mono.len())];
    if let Some(bad) = part.iter().position(|sample| !sample.is_finite()) {
        return Err(AudioProblem::NotFinite { seconds: seconds(first + bad as u64, decoded.rate) });
    }
    if let Some(bad) = part.iter().position(|sample| sample.abs() > LARGEST_SAMPLE) {
        return Err(AudioProblem::TooLoud { seconds: seconds(first + bad as u64, decoded.rate) });
    }
    let mut samples =
        resample(part, decoded.rate, SAMPLE_RATE).map_err(|reason| AudioProblem::Unreadable { reason })?;
    if let Some(bad) = samples.iter().position(|sample| !sample.is_finite()) {
        return Err(AudioProblem::NotFinite { seconds: seconds(bad as u64, SAMPLE_RATE) });
    }
    let max_samples = samples_of(max_seconds);
    let was_cut = samples.len() > max_samples;
    samples.truncate(max_samples);
    if samples.len() < MIN_SAMPLES {
        return Err(AudioProblem::TooShort { samples: samples.len() });
    }
    Ok((Waveform { samples, source_rate: decoded.rate, channels: decoded.channels }, was_cut))
}

/// The samples at [`SAMPLE_RATE`] that a length in seconds becomes.
pub fn samples_of(seconds: f64) -> usize {
    usize::try_from(frames_at(seconds, SAMPLE_RATE)).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "small made-up numbers"
)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::test_data::test_data;
    use std::f64::consts::TAU;
    use std::io::Cursor;
    use std::path::PathBuf;

    fn sine(hertz: f64, rate: u32, count: usize) -> Vec<f32> {
        (0..count).map(|n| (0.5 * (TAU * hertz * n as f64 / f64::from(rate)).sin()) as f32).collect()
    }

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio").join(name)
    }

    #[test]
    fn what_was_sixteen_bits_stays_the_same() {
        for value in i16::MIN..=i16::MAX {
            assert_eq!(to_i16(f32::from(value) / 32_768.0), value);
        }
        assert_eq!((to_i16(1.5), to_i16(-1.5), to_i16(f32::NAN)), (i16::MAX, i16::MIN, 0));
    }

    fn load_bytes(bytes: &[u8]) -> Result<Waveform, AudioProblem> {
        from_bytes(bytes.to_vec(), None, None)
    }

    fn wav(specification: hound::WavSpec, write: impl Fn(&mut hound::WavWriter<&mut Cursor<Vec<u8>>>)) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut bytes, specification).unwrap();
        write(&mut writer);
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    fn wav_16(samples: &[f32], rate: u32) -> Vec<u8> {
        let specification = hound::WavSpec {
            channels: 1,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        wav(specification, |writer| {
            for sample in samples {
                writer.write_sample((sample * 32_767.0).round() as i16).unwrap();
            }
        })
    }

    fn wav_float(samples: &[f32]) -> Vec<u8> {
        let specification = hound::WavSpec {
            channels: 1,
            sample_rate: 16_000,
            bits_per_sample: 32,
            sample_format: hound::SampleFormat::Float,
        };
        wav(specification, |writer| samples.iter().for_each(|sample| writer.write_sample(*sample).unwrap()))
    }

    fn wav_double(samples: &[f32]) -> Vec<u8> {
        let mut bytes = b"RIFF".to_vec();
        let data = u32::try_from(samples.len() * 8).unwrap();
        bytes.extend((36 + data).to_le_bytes());
        bytes.extend(b"WAVEfmt \x10\0\0\0\x03\0\x01\0");
        bytes.extend(16_000_u32.to_le_bytes());
        bytes.extend(128_000_u32.to_le_bytes());
        bytes.extend([8, 0, 64, 0]);
        bytes.extend(b"data");
        bytes.extend(data.to_le_bytes());
        for sample in samples {
            bytes.extend(f64::from(*sample).to_le_bytes());
        }
        bytes
    }

    /// Where `worst` is the largest difference in the middle of the clip.
    fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
        let from = expected.len() / 8;
        let worst = (from..expected.len() - from).map(|n| (found[n] - expected[n]).abs()).fold(0.0_f32, f32::max);
        assert!(worst < tolerance, "{what}: off by {worst}");
    }

    #[test]
    fn every_width_of_wav_gives_the_same_samples() {
        let expected = sine(440.0, 16_000, 1_600);
        for bits in [8_u16, 16, 24, 32] {
            let specification = hound::WavSpec {
                channels: 1,
                sample_rate: 16_000,
                bits_per_sample: bits,
                sample_format: hound::SampleFormat::Int,
            };
            let bytes = wav(specification, |writer| {
                for sample in &expected {
                    let scaled = f64::from(*sample) * (2.0_f64.powi(i32::from(bits) - 1) - 1.0);
                    writer.write_sample(scaled.round() as i32).unwrap();
                }
            });
            let found = load_bytes(&bytes).unwrap();
            assert_eq!((found.samples.len(), found.source_rate, found.channels), (1_600, 16_000, 1));
            assert_close(
                &found.samples,
                &expected,
                2.0_f32.powi(2 - i32::from(bits)).max(1e-4),
                &format!("{bits} bits"),
            );
        }
        assert_eq!(load_bytes(&wav_float(&expected)).unwrap().samples, expected);
        assert_eq!(load_bytes(&wav_double(&expected)).unwrap().samples, expected);
    }

    #[test]
    fn samples_over_full_scale_are_kept() {
        let loud = vec![1.5_f32; 800];
        assert_eq!(load_bytes(&wav_float(&loud)).unwrap().samples, loud);
        assert_eq!(load_bytes(&wav_double(&loud)).unwrap().samples, loud);
    }

    #[test]
    fn channels_are_averaged() {
        let specification = hound::WavSpec {
            channels: 3,
            sample_rate: 16_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let bytes = wav(specification, |writer| {
            for _ in 0..500 {
                for sample in [3_000_i16, -6_000, 12_000] {
                    writer.write_sample(sample).unwrap();
                }
            }
        });
        let found = load_bytes(&bytes).unwrap();
        assert_eq!((found.channels, found.samples.len()), (3, 500));
        assert!(found.samples.iter().all(|x| (x - 3_000.0 / 32_768.0).abs() < 1e-6));
    }

    /// The files of the fixture folder hold a 440 Hz tone of amplitude 0.5 (AIFF: that and -0.5 times it), 0.3 s. libopus
    /// is off by 0.078.
    #[test]
    fn every_codec_gives_the_tone() {
        let expected = sine(440.0, 16_000, 4_800);
        for (name, scale, tolerance) in [
            ("tone.flac", 1.0, 0.002),
            ("tone.aiff", 0.25, 0.002),
            ("tone.ogg", 1.0, 0.05),
            ("tone.mp3", 1.0, 0.05),
            ("tone.opus", 1.0, 0.1),
        ] {
            let found = load(&fixture(name), None, None).unwrap();
            assert!(found.samples.len().abs_diff(4_800) <= 1, "{name}: {}", found.samples.len());
            let expected: Vec<f32> = expected.iter().map(|x| x * scale).collect();
            assert_close(&found.samples, &expected, tolerance, name);
            let probed = probe(&fixture(name)).unwrap();
            assert!((probed - 0.3).abs() < 0.002, "{name}: {probed}");
        }
    }

    #[test]
    fn the_content_decides_and_not_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("really-flac.mp3");
        std::fs::copy(fixture("tone.flac"), &path).unwrap();
        assert_eq!(load(&path, None, None).unwrap().source_rate, 22_050);
    }

    #[test]
    fn start_and_end_cut_before_anything_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let samples = sine(440.0, 16_000, 16_000);
        std::fs::write(&path, wav_float(&samples)).unwrap();
        assert_eq!(load(&path, Some(0.25), Some(0.5)).unwrap().samples, samples[4_000..8_000]);
        assert_eq!(load(&path, None, Some(1.05)).unwrap().samples.len(), 16_000);
        let (cut, was_cut) = load_cut(&path, Piece { start: Some(0.25), ..Piece::default() }, 0.5).unwrap();
        assert_eq!((cut.samples.as_slice(), was_cut), (&samples[4_000..12_000], true));
        let (whole, was_cut) = load_cut(&path, Piece::default(), 1.0).unwrap();
        assert_eq!((whole.samples.len(), was_cut), (16_000, false));
        // What lies behind the cut is not decoded, and an `end` there is no error.
        let (cut, was_cut) = load_cut(&path, Piece { end: Some(0.9), ..Piece::default() }, 0.25).unwrap();
        assert_eq!((cut.samples.as_slice(), was_cut), (&samples[..4_000], true));
        let message = |start, end| load(&path, start, end).unwrap_err().to_string();
        assert!(message(Some(1.0), None).contains("`start` is 1 s but the audio is only 1.000 s long"));
        assert!(message(None, Some(1.2)).contains("`end` is 1.2 s but the audio is only 1.000 s long"));
    }

    #[test]
    fn each_bad_file_has_its_own_message() {
        let folder = tempfile::tempdir().unwrap();
        let good = wav_16(&sine(440.0, 16_000, 1_600), 16_000);
        let field = |at: usize, bytes: &[u8]| {
            let mut changed = good.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed
        };
        let mut nan = sine(440.0, 16_000, 1_600);
        nan[800] = f32::NAN;
        let mut infinite = sine(440.0, 16_000, 1_600);
        infinite[0] = f32::INFINITY;
        let ogg = std::fs::read(fixture("tone.ogg")).unwrap();
        // Half a second and more is missing; less is forgiven.
        let long = wav_16(&sine(440.0, 16_000, 32_000), 16_000);
        let cut = |bytes: &[u8]| bytes[..bytes.len() * 7 / 10].to_vec();
        let mut loud = sine(440.0, 16_000, 1_600);
        loud[800] = -1e13;
        let cases: [(&str, Vec<u8>, &str); 19] = [
            ("empty", Vec::new(), "the audio file is empty"),
            ("truncated", cut(&long), "truncated: it claims 64000 bytes of sound"),
            ("header only in part", good[..30].to_vec(), "truncated"),
            ("four bytes", good[..4].to_vec(), "truncated"),
            ("ten samples", wav_16(&[0.0; 10], 16_000), "too short: 10 samples at 16 kHz"),
            ("no samples", wav_16(&[], 16_000), "too short: 0 samples"),
            ("nan", wav_float(&nan), "not finite (the first at 0.050 s)"),
            ("infinite", wav_float(&infinite), "not finite (the first at 0.000 s)"),
            ("loud", wav_float(&loud), "samples above 1e12 (the first at 0.050 s)"),
            ("text", b"this is no audio, it is a sentence\n".to_vec(), "not an audio file"),
            ("zeros", vec![0; 5_000], "not an audio file"),
            ("no channels", field(22, &[0, 0]), "header is wrong: 0 channels"),
            ("too many channels", field(22, &[0, 9]), "header is wrong: 2304 channels"),
            ("no rate", field(24, &[0, 0, 0, 0]), "header is wrong: a sample rate of 0 Hz"),
            ("absurd rate", field(24, &[0xFF; 4]), "header is wrong: a sample rate of 4294967295 Hz"),
            ("odd rate", field(24, &191_999_u32.to_le_bytes()), "header is wrong: a sample rate of 191999 Hz"),
            ("other bits", field(34, &[24, 0]), "header is wrong: 1 channels of 24 bits are 3 bytes a frame"),
            ("larger data", field(40, &9_999_998_u32.to_le_bytes()), "truncated: it claims 9999998 bytes of sound"),
            ("cut ogg", cut(&ogg), "truncated"),
        ];
        for (name, bytes, expected) in cases {
            let path = folder.path().join(format!("{name}.wav"));
            std::fs::write(&path, bytes).unwrap();
            let message = load(&path, None, None).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains(name), "{name}: {message}");
            assert_eq!(message.lines().count(), 1);
        }
        let message = |path: &Path| load(path, None, None).unwrap_err().to_string();
        assert!(message(&folder.path().join("missing.wav")).contains("missing.wav: no such file"));
        assert!(message(folder.path()).contains("this is a folder"));
        assert!(message(Path::new("/dev/zero")).contains("not a regular file"));
    }

    #[test]
    fn a_header_written_into_a_pipe_is_read_to_its_end() {
        let samples = sine(440.0, 16_000, 1_600);
        let good = wav_16(&samples, 16_000);
        for size in [0_u32, u32::MAX, 0x7FFF_F000] {
            for riff in [size, size.wrapping_add(36)] {
                let mut bytes = good.clone();
                bytes[4..8].copy_from_slice(&riff.to_le_bytes());
                bytes[40..44].copy_from_slice(&size.to_le_bytes());
                let found = load_bytes(&bytes).unwrap();
                assert_close(&found.samples, &samples, 1e-4, &format!("size {size}"));
                assert_eq!(found.samples.len(), 1_600);
            }
        }
    }

    #[test]
    fn normalised_audio_has_mean_zero_and_unit_variance() {
        // Python: x = [1, 2, 3, 4]; (x - 2.5) / sqrt(1.25 + 1e-7)
        let mut samples = [1.0, 2.0, 3.0, 4.0];
        normalise(&mut samples);
        for (found, expected) in samples.iter().zip([-1.341_640_7, -0.447_213_57, 0.447_213_57, 1.341_640_7]) {
            assert!((found - expected).abs() < 1e-6);
        }
        let mut silent = [0.25; 10];
        normalise(&mut silent);
        assert_eq!(silent, [0.0; 10]);
        normalise(&mut []);
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let mut samples = sine(440.0, 16_000, 800);
        samples[0] = 2.0;
        write_wav(&path, &samples, 16_000).unwrap();
        samples[0] = 1.0;
        assert_close(&load(&path, None, None).unwrap().samples, &samples, 1e-4, "written");
        assert!((probe(&path).unwrap() - 0.05).abs() < 1e-9);
        assert!(write_wav(&folder.path().join("no/a.wav"), &samples, 16_000).is_err());
    }

    /// Cut anywhere, with any bits flipped, or made of noise: an error or a waveform, never a panic.
    #[test]
    fn no_bytes_panic() {
        let mut random = Random::new(5);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.wav");
        let mut files: Vec<Vec<u8>> = ["tone.flac", "tone.mp3", "tone.ogg", "tone.opus", "tone.aiff"]
            .iter()
            .map(|name| std::fs::read(fixture(name)).unwrap())
            .collect();
        files.push(wav_16(&sine(440.0, 8_000, 900), 8_000));
        files.push(wav_float(&sine(440.0, 8_000, 900)));
        files.push(Vec::new());
        let rounds = std::env::var("CLASP_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(150);
        for round in 0..rounds {
            for file in &files {
                let mut bytes = file.clone();
                if bytes.is_empty() {
                    bytes = (0..random.below(3_000)).map(|_| random.next_u64().to_le_bytes()[0]).collect();
                } else if round % 3 == 0 {
                    bytes.truncate(random.below(bytes.len()));
                }
                // Headers matter most: half of the flips hit the first 100 bytes.
                for _ in 0..random.below(12) {
                    let reach = if random.below(2) == 0 { bytes.len().min(100) } else { bytes.len() };
                    if reach > 0 {
                        bytes[random.below(reach)] ^= 1 << random.below(8);
                    }
                }
                let _ = load_bytes(&bytes);
                if round % 5 == 0 {
                    std::fs::write(&path, &bytes).unwrap();
                    let _ = probe(&path);
                }
            }
        }
    }

    #[test]
    fn public_recordings_load() {
        let Some(folder) = test_data("audio-formats") else { return };
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let found = load(&path, None, None).unwrap();
            let probed = probe(&path).unwrap();
            println!(
                "{}: {} samples, {} Hz, {} channels",
                path.display(),
                found.samples.len(),
                found.source_rate,
                found.channels
            );
            assert!((probed * 16_000.0 - found.samples.len() as f64).abs() < 2.0, "{}: {probed}", path.display());
        }
    }
}
