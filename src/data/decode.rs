//! The decoder behind `audio`: a stretch of a file whose layout is known, to mono samples.

use std::ops::Range;
use std::sync::Arc;

use clasp_signal::greatest_common_divisor;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP3, CODEC_ID_OPUS};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, SeekMode, SeekTo, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::Timestamp;

use super::audio::Channel;
use super::container::Container;
use super::layout::{Layout, Part, forgive};
use super::opus::{self, Opus};
use super::source::{Peek, Store};
use super::{AudioProblem, SAMPLE_RATE, mpeg};

/// Rates in Hz outside this range are a header that lies.
const RATES: std::ops::RangeInclusive<u32> = 2_000..=768_000;
/// The longest block of frames that becomes a whole number of frames at [`SAMPLE_RATE`]; it bounds the work of
/// resampling. Recorders' rates have shorter ones: 44.1 kHz has 441, the 97,656 Hz of some amplifiers 12,207.
const MAX_BLOCK: u32 = 65_536;
/// More channels than any recording has are a header that lies.
const MAX_CHANNELS: usize = 64;
/// What one utterance may decode to, in frames: 3 hours at 48 kHz. Guards the memory against a small file that decodes to
/// a huge one.
const MAX_FRAMES: usize = 3 * 3600 * 48_000;
/// Packets of compressed audio at the very beginning that may need data from before the file.
const WARM_UP: usize = 3;
/// Frames before a stretch that are decoded for their effect on it, but for MPEG audio, which has its own.
const BEFORE: u64 = 8_192;
/// The same for Opus: half a second.
const BEFORE_OPUS: u64 = 24_000;
/// A stretch that begins later than so many seconds is gone to; else what is before it is decoded.
const SEEK_FROM: u32 = 1;
/// Ogg states its length in codec blocks; less than one block of difference is no truncation.
const OGG_BLOCK: u64 = 8_192;

/// In a second.
const NANOSECONDS: u64 = 1_000_000_000;

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

/// The stretch of a file that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// In seconds.
    pub start: f64,
    /// In seconds; what lies behind is not decoded.
    pub until: f64,
    pub channel: Channel,
}

/// A decoded stretch.
pub(super) struct Decoded {
    /// The mean of the channels from the stretch's start on, at the file's rate.
    pub mono: Vec<f32>,
    /// In Hz.
    pub rate: u32,
    pub channels: usize,
    /// The frames of the whole file, where the stretch goes to its end.
    pub total: Option<u64>,
}

/// The time of a frame in seconds.
#[expect(clippy::cast_precision_loss, reason = "a file has far fewer than 2^53 frames")]
pub(super) fn seconds(frames: u64, rate: u32) -> f64 {
    frames as f64 / f64::from(rate.max(1))
}

/// The nearest frame to a time; saturates.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float to integer cast saturates")]
pub(super) fn frames_at(seconds: f64, rate: u32) -> u64 {
    (seconds * f64::from(rate)).round() as u64
}

/// Decodes a stretch, from near its beginning where the file has it far from its own.
pub(super) fn decode(store: &Arc<Store>, layout: &Layout, stretch: Stretch) -> Result<Decoded, AudioProblem> {
    catch_panic(|| Decoding::new(store, layout, stretch)?.run())
}

/// The frames of a file in all, at which rate: as its headers say where they can be trusted, else by decoding.
pub(super) fn length(store: &Arc<Store>, layout: &Layout) -> Result<(u64, u32), AudioProblem> {
    if let Some(problem) = &layout.truncated {
        return Err(problem.clone());
    }
    catch_panic(|| {
        let nothing = Stretch { start: f64::INFINITY, until: f64::INFINITY, channel: Channel::Mean };
        let mut decoding = Decoding::new(store, layout, nothing)?;
        if let Some(frames) = layout.parts.iter().map(|part| part.frames).sum::<Option<u64>>() {
            return Ok((frames, decoding.rate));
        }
        let mut frames = 0;
        for part in &layout.parts {
            let stated = Stream::open(store, layout.container, part)?.frames;
            frames += match stated.filter(|frames| *frames > 0) {
                Some(stated) => stated,
                None => decoding.part(part)?,
            };
        }
        Ok((frames, decoding.rate))
    })
}

/// Decodes the parts of a file.
struct Decoding<'file> {
    store: &'file Arc<Store>,
    layout: &'file Layout,
    rate: u32,
    channels: usize,
    channel: Channel,
    /// The first frame that is wanted.
    first: u64,
    /// The frame before which decoding ends.
    until: u64,
    /// Frames of the parts that are done.
    before: u64,
    mono: Vec<f32>,
    /// The decoder of the part before, where the next goes on with it.
    decoder: Option<Box<dyn AudioDecoder>>,
}

impl<'file> Decoding<'file> {
    fn new(store: &'file Arc<Store>, layout: &'file Layout, stretch: Stretch) -> Result<Self, AudioProblem> {
        let Some(part) = layout.parts.first() else {
            return Err(AudioProblem::Unreadable { reason: "there is no sound in it".to_owned() });
        };
        let opened = Stream::open(store, layout.container, part);
        // What is cut in its head cannot be opened for that reason.
        let rate = opened.map_err(|problem| layout.truncated.clone().unwrap_or(problem))?.rate;
        let (first, until) = (frames_at(stretch.start, rate), frames_at(stretch.until, rate));
        Ok(Self {
            store,
            layout,
            rate,
            channels: 0,
            channel: stretch.channel,
            first,
            until,
            before: 0,
            mono: Vec::new(),
            decoder: None,
        })
    }

    fn run(mut self) -> Result<Decoded, AudioProblem> {
        let mut is_whole = true;
        for part in &self.layout.parts {
            // Known to lie before the stretch.
            if let Some(frames) = part.frames.filter(|frames| self.before + frames <= self.first) {
                self.before += frames;
                continue;
            }
            if self.before >= self.until {
                is_whole = false;
                break;
            }
            let frames = self.part(part).map_err(|problem| self.layout.truncated.clone().unwrap_or(problem))?;
            self.before += frames;
            is_whole = self.before < self.until;
        }
        if is_whole && let Some(problem) = &self.layout.truncated {
            return Err(problem.clone());
        }
        let total = is_whole.then_some(self.before);
        if total == Some(0) {
            return Err(AudioProblem::TooShort { samples: 0 });
        }
        Ok(Decoded { mono: self.mono, rate: self.rate, channels: self.channels.max(1), total })
    }

    /// Decodes one part, and gives how many of its frames were passed or taken.
    fn part(&mut self, part: &Part) -> Result<u64, AudioProblem> {
        let mut stream = Stream::open(self.store, self.layout.container, part)?;
        // As players do: an Ogg stream that follows another is decoded on, so that its first packet fades over.
        let kept = self.decoder.take().filter(|kept| kept.codec_params().extra_data == stream.extra_data());
        let goes_on = kept.is_some();
        let mut decoder = match kept {
            Some(kept) => Decoder::Symphonia(kept),
            None => stream.decoder()?,
        };
        // Positions among all frames that are decoded, an encoder's padding too.
        let keep = stream.keep.clone();
        let delay = keep.first().map_or(0, |range| range.start);
        let (first, until) = (self.first.saturating_sub(self.before), self.until.saturating_sub(self.before));
        let is_far = first > u64::from(self.rate * SEEK_FROM) && self.first < u64::MAX;
        let is_opus = matches!(decoder, Decoder::Opus(_));
        let mut position = if is_far { stream.seek(first.saturating_add(delay)) } else { None };
        let was_sought = position.is_some();
        if !was_sought && is_far {
            stream = Stream::open(self.store, self.layout.container, part)?;
        }
        let mut at = position.take().unwrap_or(0);
        let mut interleaved: Vec<f32> = Vec::new();
        let (mut packets, mut taken) = (0, 0);
        // What the container says of the end, and the frames of the last packet.
        let (mut padding, mut last) = (0, 0);
        while taken < until {
            let time = seconds(self.before + taken, self.rate);
            let damaged = |reason: String| AudioProblem::Damaged { seconds: time, reason };
            let Some(packet) = stream.next().map_err(damaged)? else { break };
            packets += 1;
            let begin = stream.position(&packet);
            // A packet of Opus says how long it is, so that what is far before the stretch need not be decoded.
            if is_opus && is_far && at + opus::frames(&packet.data) + BEFORE_OPUS < first + delay {
                at += opus::frames(&packet.data);
                continue;
            }
            match decoder.decode(&packet, &mut interleaved) {
                Ok((rate, width)) => {
                    check_rate_and_channels(rate, width)?;
                    if rate != self.rate || (self.channels != 0 && width != self.channels) {
                        return Err(damaged("the rate or the number of channels changes".to_owned()));
                    }
                    self.channels = width;
                }
                // What it needs is from before the file, or from before the place that was gone to.
                Err(_) if packets <= WARM_UP || at + (WARM_UP as u64) < first => {
                    at += packet.block_dur().get();
                    continue;
                }
                Err(reason) => return Err(damaged(reason)),
            }
            // What the encoder put in front is no sound; what it put behind is dealt with at the end.
            let lead = if goes_on { 0 } else { packet.trim_start.get() };
            let samples = cut(&interleaved, self.channels, lead, u64::MAX);
            let count = (samples.len() / self.channels.max(1)) as u64;
            // After a seek the first packets may give less than they last: what counts is where they end.
            if was_sought
                && let Some(end) =
                    begin.and_then(|begin| begin.checked_add(packet.dur.saturating_add(packet.trim_end).get()))
            {
                at = end.saturating_sub(count);
            }
            for range in &keep {
                // The kept frames of this packet, and how many were kept before them.
                let (from, to) = (at.max(range.start), (at + count).min(range.end));
                if from >= to {
                    continue;
                }
                let kept_before: u64 =
                    keep.iter().map(|other| other.end.min(from).saturating_sub(other.start.min(from))).sum();
                let skip = first.saturating_sub(kept_before).min(to - from);
                let wanted = cut(samples, self.channels, from - at + skip, to - at);
                downmix(wanted, self.channels, self.channel, &mut self.mono)?;
                taken = kept_before + (to - from);
            }
            at += count;
            (padding, last) = (padding + packet.trim_end.get(), count);
            if self.mono.len() >= MAX_FRAMES {
                return Err(AudioProblem::TooLong);
            }
        }
        if taken < until {
            padding += part.padding_nanoseconds.saturating_mul(u64::from(self.rate)).div_ceil(NANOSECONDS);
            // As players do: padding is a part of the last packet, but for Opus; more is a wrong length.
            if padding <= last || is_opus {
                let surplus = usize::try_from(padding.min(taken.saturating_sub(first))).unwrap_or(0);
                self.mono.truncate(self.mono.len().saturating_sub(surplus));
                taken = taken.saturating_sub(padding);
            }
            check_length(self.layout.container, part, taken, stream.frames, self.rate)?;
            self.decoder = match decoder {
                Decoder::Symphonia(decoder) if self.layout.container == Container::Ogg => Some(decoder),
                _ => None,
            };
        }
        Ok(taken)
    }
}

/// The frames from one number to another of interleaved samples.
fn cut(samples: &[f32], channels: usize, from: u64, to: u64) -> &[f32] {
    let place = |frame: u64| usize::try_from(frame).unwrap_or(usize::MAX).saturating_mul(channels);
    samples.get(place(from)..place(to).min(samples.len())).unwrap_or_default()
}

/// The decoder of a part.
enum Decoder {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Opus),
}

impl Decoder {
    /// Decodes a packet to interleaved samples, and gives their rate and channels.
    fn decode(&mut self, packet: &Packet, interleaved: &mut Vec<f32>) -> Result<(u32, usize), String> {
        match self {
            Self::Symphonia(decoder) => {
                let buffer = decoder.decode(packet).map_err(|error| error.to_string())?;
                buffer.copy_to_vec_interleaved(interleaved);
                Ok((buffer.spec().rate(), buffer.spec().channels().count()))
            }
            Self::Opus(decoder) => {
                decoder.decode(&packet.data, interleaved)?;
                Ok((opus::RATE, decoder.channels))
            }
        }
    }
}

/// Packets of one part.
struct Stream {
    packets: Packets,
    track: Track,
    rate: u32,
    /// The frames of sound that the container states.
    frames: Option<u64>,
    /// Which of the decoded frames are sound.
    keep: Vec<Range<u64>>,
    is_seekable: bool,
}

enum Packets {
    Reader(Box<dyn FormatReader>),
    Mpeg(mpeg::Packets),
}

impl Stream {
    fn open(store: &Arc<Store>, container: Container, part: &Part) -> Result<Self, AudioProblem> {
        if let Some(index) = &part.mpeg {
            let packets = mpeg::Packets::new(Peek::new(store), part, index);
            let rate = packets.rate();
            let mut parameters = AudioCodecParameters::new();
            parameters.for_codec(CODEC_ID_MP3).with_sample_rate(rate);
            let mut track = Track::new(0);
            track.with_codec_params(symphonia::core::codecs::CodecParameters::Audio(parameters));
            let (packets, keep) = (Packets::Mpeg(packets), part.keep.clone());
            return Ok(Self { packets, track, rate, frames: part.frames, keep, is_seekable: true });
        }
        let reader = open_format(Box::new(part.source(store)))?;
        let (track, rate) = audio_track(reader.as_ref())?;
        // In fragments, an MP4 has its frames where its head cannot count them.
        let stated = track.num_frames.filter(|frames| *frames > 0);
        let (mut keep, mut frames) = (part.keep.clone(), stated);
        if let (true, Some(head)) = (is_opus(&track), extra_data(&track)) {
            keep.push(Opus::delay(&head)..u64::MAX);
        } else if keep.is_empty() {
            let delay = part.delay_nanoseconds.saturating_mul(u64::from(rate));
            keep.push(delay.saturating_add(NANOSECONDS / 2) / NANOSECONDS..u64::MAX);
        }
        // The frames of an MP4 are counted with what its edit list takes away; its last packet ends with them.
        if let (Some(all), Some(range)) = (frames.as_mut(), keep.first_mut()) {
            if container == Container::Mp4 {
                range.end = range.end.min(*all);
            }
            if container != Container::Caf {
                *all = all.saturating_sub(range.start);
            }
        }
        let is_seekable = container != Container::Webm && !is_opus(&track);
        Ok(Self { packets: Packets::Reader(reader), track, rate, frames, keep, is_seekable })
    }

    fn extra_data(&self) -> Option<Box<[u8]>> {
        extra_data(&self.track)
    }

    fn decoder(&self) -> Result<Decoder, AudioProblem> {
        if is_opus(&self.track) {
            return Opus::new(&self.extra_data().unwrap_or_default()).map(Decoder::Opus);
        }
        make_decoder(&self.track).map(Decoder::Symphonia)
    }

    fn next(&mut self) -> Result<Option<Packet>, String> {
        let reader = match &mut self.packets {
            Packets::Mpeg(packets) => return packets.next().map_err(|problem| problem.to_string()),
            Packets::Reader(reader) => reader,
        };
        loop {
            match reader.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track.id => return Ok(Some(packet)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(SymphoniaError::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Ok(None);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Goes to some way before a frame, and gives the frame that the next packet begins with; `None` if the container
    /// cannot, and then the stream is to be opened anew.
    fn seek(&mut self, frame: u64) -> Option<u64> {
        let reader = match &mut self.packets {
            Packets::Mpeg(packets) => return Some(packets.seek(frame)),
            Packets::Reader(reader) => reader,
        };
        if !self.is_seekable {
            return None;
        }
        let early = frame.saturating_sub(BEFORE);
        let ts = Timestamp::new(i64::try_from(early).unwrap_or(i64::MAX).saturating_add(base(&self.track)));
        let sought = reader.seek(SeekMode::Accurate, SeekTo::Timestamp { ts, track_id: self.track.id });
        u64::try_from(sought.ok()?.actual_ts.get() - base(&self.track)).ok()
    }

    /// The frame that a packet begins with, as the container says it.
    fn position(&self, packet: &Packet) -> Option<u64> {
        u64::try_from(packet.pts.get() - if let Packets::Mpeg(_) = self.packets { 0 } else { base(&self.track) }).ok()
    }
}

fn extra_data(track: &Track) -> Option<Box<[u8]>> {
    track.codec_params.as_ref()?.audio()?.extra_data.clone()
}

fn is_opus(track: &Track) -> bool {
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    parameters.is_some_and(|parameters| parameters.codec == CODEC_ID_OPUS)
}

/// The time that a stream which was cut out of a longer one begins with.
fn base(track: &Track) -> i64 {
    track.start_ts.get().max(0)
}

/// Finds the format by content.
fn open_format(source: Box<dyn MediaSource>) -> Result<Box<dyn FormatReader>, AudioProblem> {
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

/// The first audio track and its rate.
fn audio_track(reader: &dyn FormatReader) -> Result<(Track, u32), AudioProblem> {
    let unreadable = |reason: &str| AudioProblem::Unreadable { reason: reason.to_owned() };
    let track = reader.default_track(TrackType::Audio).ok_or_else(|| unreadable("there is no audio track"))?.clone();
    let parameters = track
        .codec_params
        .as_ref()
        .and_then(|parameters| parameters.audio())
        .ok_or_else(|| unreadable("the audio track has no parameters"))?;
    let stated = if parameters.codec == CODEC_ID_OPUS { Some(opus::RATE) } else { parameters.sample_rate };
    let rate = stated.ok_or_else(|| unreadable("the sample rate is not stated"))?;
    let channels = parameters.channels.as_ref().map(symphonia::core::audio::Channels::count);
    check_rate_and_channels(rate, channels.unwrap_or(1))?;
    Ok((track, rate))
}

fn make_decoder(track: &Track) -> Result<Box<dyn AudioDecoder>, AudioProblem> {
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let Some(parameters) = parameters else {
        return Err(AudioProblem::Unreadable { reason: "the audio track has no parameters".to_owned() });
    };
    symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default().gapless(false))
        .map_err(|error| AudioProblem::Unreadable { reason: error.to_string() })
}

fn downmix(interleaved: &[f32], channels: usize, channel: Channel, mono: &mut Vec<f32>) -> Result<(), AudioProblem> {
    if let Channel::Number(channel) = channel {
        if channel >= channels {
            return Err(AudioProblem::NoChannel { channel, channels });
        }
        mono.extend(interleaved.iter().skip(channel).step_by(channels));
        return Ok(());
    }
    if channels == 1 {
        mono.extend_from_slice(interleaved);
        return Ok(());
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 64 channels")]
    let scale = 1.0 / channels.max(1) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "the mean of single-precision samples")]
    mono.extend(
        interleaved
            .chunks_exact(channels.max(1))
            .map(|frame| (frame.iter().map(|sample| f64::from(*sample)).sum::<f64>() * scale) as f32),
    );
    Ok(())
}

/// Compares what the header said with what was decoded.
fn check_length(
    container: Container,
    part: &Part,
    found: u64,
    stated: Option<u64>,
    rate: u32,
) -> Result<(), AudioProblem> {
    let claimed = part.frames.or(part.claimed).or(stated).unwrap_or(0);
    let missing = claimed.saturating_sub(found);
    let what = || (format!("{claimed} frames"), format!("{found} frames"));
    match container {
        // What is known for sure and does not come out of the decoder was lost in it.
        _ if part.frames.is_some() && missing > 0 => {
            let reason = format!("{missing} of {claimed} frames are lost");
            Err(AudioProblem::Damaged { seconds: seconds(found, rate), reason })
        }
        Container::Ogg if missing < OGG_BLOCK => Ok(()),
        _ => forgive(missing, u64::from(rate), what),
    }
}

/// Runs the decoder, which may panic on damaged input: a panic becomes a problem.
fn catch_panic<T>(work: impl FnOnce() -> Result<T, AudioProblem>) -> Result<T, AudioProblem> {
    super::catch_panic::catch_panic(work).unwrap_or_else(|| {
        Err(AudioProblem::Unreadable { reason: "the decoder gave up on damaged content".to_owned() })
    })
}
