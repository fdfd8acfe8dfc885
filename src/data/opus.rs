//! Opus: always decoded at 48 kHz, by a decoder of its own, since symphonia has none.

use opus_rs::OpusDecoder;

use super::AudioProblem;

/// The rate in Hz of what the decoder gives.
pub(super) const RATE: u32 = 48_000;

/// The most frames of one packet: 120 ms.
const MAX_FRAMES: u64 = 5_760;

/// A decoder of one stream, with what its header says.
pub(super) struct Opus {
    decoder: Box<OpusDecoder>,
    pub channels: usize,
    gain: f32,
}

impl Opus {
    /// From the identification header (RFC 7845).
    pub fn new(head: &[u8]) -> Result<Self, AudioProblem> {
        let unreadable = |reason: &str| AudioProblem::Unreadable { reason: reason.to_owned() };
        let (Some(channels), Some([low, high])) = (head.get(9), head.get(16..18)) else {
            return Err(unreadable("the header of the Opus stream is cut"));
        };
        let channels = usize::from(*channels);
        super::decode::check_rate_and_channels(RATE, channels)?;
        if channels > 2 {
            return Err(unreadable("Opus with more than two channels is not read"));
        }
        let decoder = OpusDecoder::new(48_000, channels).map_err(unreadable)?;
        let decibels = f32::from(i16::from_le_bytes([*low, *high])) / 256.0;
        Ok(Self { decoder: Box::new(decoder), channels, gain: 10.0_f32.powf(decibels / 20.0) })
    }

    /// The frames at the beginning that are no sound.
    pub fn delay(head: &[u8]) -> u64 {
        head.get(10..12).map_or(0, |bytes| u64::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    /// Decodes a packet to interleaved samples.
    pub fn decode(&mut self, packet: &[u8], interleaved: &mut Vec<f32>) -> Result<(), String> {
        let length = usize::try_from(frames(packet)).unwrap_or(0);
        interleaved.clear();
        if !(1..=MAX_FRAMES).contains(&frames(packet)) {
            return Err("not an Opus packet".to_owned());
        }
        interleaved.resize(length * self.channels, 0.0);
        let decoded = self.decoder.decode(packet, length, interleaved)?;
        interleaved.truncate(decoded * self.channels);
        for sample in interleaved.iter_mut() {
            *sample *= self.gain;
        }
        Ok(())
    }
}

/// The frames of a packet (RFC 6716, section 3.1); 0 for one that is none.
pub(super) fn frames(packet: &[u8]) -> u64 {
    let Some(first) = packet.first() else { return 0 };
    let (kind, place) = (first >> 3, first >> 3 & 3);
    let of_one = match kind {
        0..12 => [480, 960, 1_920, 2_880][usize::from(place)],
        12..16 => 480 << (place & 1),
        _ => 120 << place,
    };
    of_one
        * match first & 3 {
            0 => 1,
            1 | 2 => 2,
            _ => packet.get(1).map_or(0, |count| u64::from(count & 63)),
        }
}
