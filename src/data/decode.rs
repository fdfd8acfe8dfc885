//! The decoder behind `audio`: bytes of a known container to mono samples, held against what the header claims.

use std::io::Cursor;

use clasp_signal::greatest_common_divisor;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;

use super::container::{self, Container};
use super::{AudioProblem, SAMPLE_RATE, wave};

/// Rates in Hz outside this range are a header that lies.
const RATES: std::ops::RangeInclusive<u32> = 2_000..=768_000;
/// The longest block of frames that becomes a whole number of frames at [`SAMPLE_RATE`]; it bounds the work of
/// resampling. Recorders' rates have shorter ones: 44.1 kHz has 441, the 97,656 Hz of some amplifiers 12,207.
const MAX_BLOCK: u32 = 65_536;
/// More channels than any recording has are a header that lies.
const MAX_CHANNELS: usize = 64;
/// What one utterance's file may decode to, in frames: 3 hours at 48 kHz. Guards the memory against a small file that
/// decodes to a huge one.
pub(super) const MAX_FRAMES: usize = 3 * 3600 * 48_000;
/// Frames of compressed audio at the very beginning that may need data from before the file.
const MPEG_WARM_UP: usize = 3;
/// Ogg states its length in codec blocks; less than one block of difference is no truncation.
const OGG_BLOCK: u64 = 8_192;

/// The bounds that every format's header is held to.
pub(super) fn check_rate_and_channels(rate: u32, channels: usize) -> Result<(), AudioProblem> {
    if !RATES.contains(&rate) || rate / greatest_common_divisor(rate, SAMPLE_RATE) > MAX_BLOCK {
        return Err(AudioProblem::lie(&format!("a sample rate of {rate} Hz")));
    }
    if !(1..=MAX_CHANNELS).contains(&channels) {
        return Err(AudioProblem::lie(&format!("{channels} channels")));
    }
    Ok(())
}

/// A decoded file.
pub(super) struct Decoded {
    /// The mean of the channels, at the file's rate.
    pub mono: Vec<f32>,
    /// In Hz.
    pub rate: u32,
    pub channels: usize,
    /// Whether the file was decoded to its end.
    pub is_whole: bool,
}

/// The time of a frame in seconds.
#[expect(clippy::cast_precision_loss, reason = "a file has far fewer than 2^53 frames")]
pub(super) fn seconds(frames: u64, rate: u32) -> f64 {
    frames as f64 / f64::from(rate.max(1))
}

/// Decodes up to a number of frames, which depends on the rate.
pub(super) fn decode_until(
    mut bytes: Vec<u8>,
    kind: Container,
    limit: impl Fn(u32) -> usize,
) -> Result<Decoded, AudioProblem> {
    let mut claimed = None;
    match kind {
        Container::Wave => {
            let header = wave::check(&mut Cursor::new(&bytes))?;
            let total = u32::try_from(bytes.len().saturating_sub(8)).unwrap_or(u32::MAX);
            let data = u32::try_from(header.data_bytes).unwrap_or(u32::MAX);
            // The decoder trusts the sizes, so it is given the true ones.
            put(&mut bytes, 4, total);
            put(&mut bytes, header.size_field, data);
            if header.data_bytes == 0 {
                return Err(AudioProblem::TooShort { samples: 0 });
            }
            if header.is_plain {
                claimed = Some(header.data_bytes / u64::from(header.block.max(1)));
            }
        }
        Container::Ogg => container::check_ogg(&bytes)?,
        Container::Mpeg => container::check_mpeg(&bytes)?,
        Container::Flac | Container::Aiff => {}
    }
    let has_length_tag = kind != Container::Mpeg || container::has_mpeg_length(&bytes);
    catch_panic(move || decode_stream(bytes, kind, claimed, has_length_tag, limit))
}

fn put(bytes: &mut [u8], at: u64, value: u32) {
    let Ok(at) = usize::try_from(at) else { return };
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

/// Finds the format by content.
pub(super) fn open_format(source: Box<dyn MediaSource>) -> Result<Box<dyn FormatReader>, AudioProblem> {
    let stream = MediaSourceStream::new(source, symphonia::core::io::MediaSourceStreamOptions::default());
    // An empty hint: the content decides.
    symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|error| match error {
            SymphoniaError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                AudioProblem::Truncated { claimed: "a whole header".to_owned(), found: "a part of one".to_owned() }
            }
            SymphoniaError::Unsupported(reason) if reason.contains("no suitable format") => AudioProblem::NotAudio,
            other => AudioProblem::Unreadable { reason: other.to_string() },
        })
}

/// The first audio track, its rate and its channels (0 where only the decoder will know).
pub(super) fn audio_track(
    reader: &dyn FormatReader,
) -> Result<(symphonia::core::formats::Track, u32, usize), AudioProblem> {
    let unreadable = |reason: &str| AudioProblem::Unreadable { reason: reason.to_owned() };
    let track = reader.default_track(TrackType::Audio).ok_or_else(|| unreadable("there is no audio track"))?.clone();
    let parameters = track
        .codec_params
        .as_ref()
        .and_then(|parameters| parameters.audio())
        .ok_or_else(|| unreadable("the audio track has no parameters"))?;
    let rate = parameters.sample_rate.ok_or_else(|| unreadable("the sample rate is not stated"))?;
    let channels = parameters.channels.as_ref().map(symphonia::core::audio::Channels::count);
    check_rate_and_channels(rate, channels.unwrap_or(1))?;
    Ok((track, rate, channels.unwrap_or(0)))
}

fn decode_stream(
    bytes: Vec<u8>,
    kind: Container,
    claimed: Option<u64>,
    has_length_tag: bool,
    limit: impl Fn(u32) -> usize,
) -> Result<Decoded, AudioProblem> {
    let mut reader = open_format(Box::new(Cursor::new(bytes)))?;
    let (track, rate, _) = audio_track(reader.as_ref())?;
    let limit = limit(rate);
    let claimed = claimed.or(track.num_frames.filter(|_| has_length_tag));
    let mut decoder = make_decoder(&track)?;
    let mut mono: Vec<f32> = Vec::new();
    let mut interleaved: Vec<f32> = Vec::new();
    let mut channels = 0;
    let mut packets = 0;
    while mono.len() < limit {
        let at = seconds(mono.len() as u64, rate);
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(SymphoniaError::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(AudioProblem::Damaged { seconds: at, reason: error.to_string() }),
        };
        if packet.track_id != track.id {
            continue;
        }
        packets += 1;
        let buffer = match decoder.decode(&packet) {
            Ok(buffer) => buffer,
            Err(_) if kind == Container::Mpeg && packets <= MPEG_WARM_UP => continue,
            Err(error) => return Err(AudioProblem::Damaged { seconds: at, reason: error.to_string() }),
        };
        let width = buffer.spec().channels().count();
        check_rate_and_channels(buffer.spec().rate(), width)?;
        if buffer.spec().rate() != rate || (channels != 0 && width != channels) {
            let reason = "the rate or the number of channels changes".to_owned();
            return Err(AudioProblem::Damaged { seconds: at, reason });
        }
        channels = width;
        buffer.copy_to_vec_interleaved(&mut interleaved);
        downmix(&interleaved, channels, &mut mono);
        if mono.len() >= MAX_FRAMES {
            return Err(AudioProblem::TooLong);
        }
    }
    let is_whole = mono.len() < limit;
    check_length(kind, claimed.filter(|_| is_whole), mono.len() as u64)?;
    if mono.is_empty() {
        return Err(AudioProblem::TooShort { samples: 0 });
    }
    Ok(Decoded { mono, rate, channels, is_whole })
}

fn make_decoder(track: &symphonia::core::formats::Track) -> Result<Box<dyn AudioDecoder>, AudioProblem> {
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let Some(parameters) = parameters else {
        return Err(AudioProblem::Unreadable { reason: "the audio track has no parameters".to_owned() });
    };
    symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|error| AudioProblem::Unreadable { reason: error.to_string() })
}

fn downmix(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    if channels == 1 {
        mono.extend_from_slice(interleaved);
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 64 channels")]
    let scale = 1.0 / channels.max(1) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "the mean of single-precision samples")]
    mono.extend(
        interleaved
            .chunks_exact(channels.max(1))
            .map(|frame| (frame.iter().map(|sample| f64::from(*sample)).sum::<f64>() * scale) as f32),
    );
}

/// Holds what the header said against what was decoded.
fn check_length(kind: Container, claimed: Option<u64>, found: u64) -> Result<(), AudioProblem> {
    let Some(claimed) = claimed else { return Ok(()) };
    let slack = if kind == Container::Ogg { OGG_BLOCK } else { 0 };
    if found + slack < claimed {
        return Err(AudioProblem::Truncated { claimed: format!("{claimed} frames"), found: format!("{found} frames") });
    }
    if kind == Container::Flac && claimed > 0 && found > claimed {
        return Err(AudioProblem::lie(&format!("it says {claimed} frames, there are {found}")));
    }
    Ok(())
}

/// Runs the decoder, which may panic on damaged input: a panic becomes a problem.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> Result<T, AudioProblem>) -> Result<T, AudioProblem> {
    super::catch_panic::catch_panic(work).unwrap_or_else(|| {
        Err(AudioProblem::Unreadable { reason: "the decoder gave up on damaged content".to_owned() })
    })
}
