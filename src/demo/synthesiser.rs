//! The sounds of the synthetic corpus: a small formant synthesiser after Klatt (Software for a cascade/parallel formant
//! synthesizer, 1980). A pulse train with breath in it goes through four moving resonances, syllable by syllable; noise
//! bursts and hums make the consonants.
//!
//! The result babbles: syllables are drawn at random and have nothing to do with the sentence, so that nothing but the
//! words can tell what was said. The bit that the sound carries is its pitch register.

use crate::data::SAMPLE_RATE;
use crate::random::{Random, mix};

const RATE: f64 = SAMPLE_RATE as f64;
/// Resonances and pitch move in steps of this many samples (5 ms).
const CONTROL_SAMPLES: usize = 80;
const SHORTEST_SECONDS: f64 = 0.6;
const LONGEST_SECONDS: f64 = 1.0;

/// Peaks in [-1, 1) that a sample may reach before it is limited.
const PEAK_LIMIT: f64 = 0.9;

/// How high the voice is: the bit that the sound carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Register {
    /// 90 to 130 Hz.
    Low,
    /// 200 to 280 Hz.
    High,
}

impl Register {
    /// Both registers, in the order of the labels.
    pub const ALL: [Self; 2] = [Self::Low, Self::High];

    /// The lowest and the highest pitch in Hz that an utterance of this register ever has.
    pub fn bounds_hz(self) -> (f64, f64) {
        match self {
            Self::Low => (90.0, 130.0),
            Self::High => (200.0, 280.0),
        }
    }
}

/// A voice. Every speaker uses both registers, so that who speaks says nothing about the label.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Length of the vocal tract as a factor on every formant: 0.88 (long) to 1.18 (short).
    formant_scale: f64,
    /// Usual pitch in Hz in the low and in the high register.
    usual_pitch_hz: [f64; 2],
    /// Level of the breath in the voice against the pulses.
    breath: f64,
    /// Share of a period during which the glottis is open.
    open_quotient: f64,
    /// Colour of the background noise: 0 is white, towards 1 is a rumble.
    room_colour: f64,
    /// Signal-to-noise ratio of the room.
    room_snr_db: f64,
}

impl Speaker {
    /// The speaker of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut usual = |register: Register| {
            let (low, high) = register.bounds_hz();
            // Well inside the register: the contour needs room on both sides.
            low + (high - low) * random.range(0.3, 0.7)
        };
        let usual_pitch_hz = [usual(Register::Low), usual(Register::High)];
        Self {
            formant_scale: random.range(0.88, 1.18),
            usual_pitch_hz,
            breath: random.range(0.02, 0.08),
            open_quotient: random.range(0.5, 0.7),
            room_colour: random.range(0.3, 0.95),
            room_snr_db: random.range(24.0, 36.0),
        }
    }
}

/// First to third formant in Hz of ten vowels: the men's averages of Peterson and Barney (1952).
const VOWELS_HZ: [[f64; 3]; 10] = [
    [270.0, 2290.0, 3010.0],
    [390.0, 1990.0, 2550.0],
    [530.0, 1840.0, 2480.0],
    [660.0, 1720.0, 2410.0],
    [730.0, 1090.0, 2440.0],
    [570.0, 840.0, 2410.0],
    [440.0, 1020.0, 2240.0],
    [300.0, 870.0, 2240.0],
    [640.0, 1190.0, 2390.0],
    [490.0, 1350.0, 1690.0],
];
/// The fourth formant, which hardly moves.
const FOURTH_FORMANT_HZ: f64 = 3500.0;
const BANDWIDTHS_HZ: [f64; 4] = [80.0, 100.0, 140.0, 250.0];
/// Where the formants stand while a hum (m, n) sounds.
const HUM_HZ: [f64; 3] = [250.0, 1100.0, 2200.0];

#[derive(Clone, Copy)]
enum Consonant {
    /// The vowel starts at once.
    None,
    /// Noise around a centre frequency in Hz, as in s and f.
    Hiss(f64),
    /// Silence, then a short burst around a centre frequency in Hz, as in t and k.
    Burst(f64),
    /// A voiced sound with the mouth closed, as in m.
    Hum,
}

/// One syllable: a consonant, then a vowel that glides into another. Positions in samples from the utterance's start.
struct Syllable {
    begin: usize,
    vowel_begin: usize,
    end: usize,
    consonant: Consonant,
    glide: [usize; 2],
    level: f64,
}

impl Syllable {
    /// The first three formants in Hz at a position, for a vocal tract of average length.
    fn formants_hz(&self, position: usize) -> [f64; 3] {
        let from = VOWELS_HZ[self.glide[0]];
        if position < self.vowel_begin {
            return if matches!(self.consonant, Consonant::Hum) { HUM_HZ } else { from };
        }
        let along = ease(ratio(position - self.vowel_begin, self.end - self.vowel_begin));
        let to = VOWELS_HZ[self.glide[1]];
        std::array::from_fn(|i| from[i] + (to[i] - from[i]) * along)
    }

    /// How loud the voice is at a position, 0 to 1.
    fn voicing(&self, position: usize) -> f64 {
        let begin = if matches!(self.consonant, Consonant::Hum) { self.begin } else { self.vowel_begin };
        if position < begin || position >= self.end {
            return 0.0;
        }
        let rise = ease(seconds(position - begin) / 0.025);
        let fall = ease(seconds(self.end - position) / 0.035);
        let closed = if position < self.vowel_begin { 0.5 } else { 1.0 };
        self.level * rise * fall * closed
    }

    /// How loud the noise of the consonant is at a position, 0 to 1.
    fn noise(&self, position: usize) -> f64 {
        if position < self.begin || position >= self.vowel_begin {
            return 0.0;
        }
        let along = ratio(position - self.begin, self.vowel_begin - self.begin);
        match self.consonant {
            Consonant::None | Consonant::Hum => 0.0,
            Consonant::Hiss(_) => 0.04 * self.level * (along * std::f64::consts::PI).sin(),
            Consonant::Burst(_) if along < 0.7 => 0.0,
            Consonant::Burst(_) => 0.1 * self.level * (1.0 - (along - 0.7) / 0.3),
        }
    }

    fn noise_centre_hz(&self) -> f64 {
        match self.consonant {
            Consonant::Hiss(centre) | Consonant::Burst(centre) => centre,
            Consonant::None | Consonant::Hum => 3000.0,
        }
    }
}

/// The plan of one utterance, drawn before a single sample is made.
struct Plan {
    samples: usize,
    syllables: Vec<Syllable>,
    /// Pitch in Hz at points spread evenly over the utterance.
    pitch_points_hz: [f64; 4],
    register: Register,
    /// Root mean square of the speech in decibels against full scale.
    level_db: f64,
}

impl Plan {
    fn draw(random: &mut Random, speaker: &Speaker, register: Register) -> Self {
        let samples = count(random.range(SHORTEST_SECONDS, LONGEST_SECONDS) * RATE);
        let head = count(random.range(0.03, 0.08) * RATE);
        let tail = count(random.range(0.03, 0.08) * RATE);
        let syllable_count = 2 + random.below(4);
        let weights: Vec<f64> = (0..syllable_count).map(|_| random.range(0.8, 1.25)).collect();
        let total: f64 = weights.iter().sum();
        let mut begin = head;
        let mut syllables = Vec::with_capacity(syllable_count);
        for weight in weights {
            let length = count(weight / total * real(samples - head - tail));
            syllables.push(draw_syllable(random, begin, length));
            begin += length;
        }
        // The contour rises, falls or bends as it likes: two semitones either way around the speaker's usual pitch.
        let usual = speaker.usual_pitch_hz[usize::from(register == Register::High)];
        let pitch_points_hz = std::array::from_fn(|_| usual * (random.range(-2.0, 2.0) / 12.0).exp2());
        Self { samples, syllables, pitch_points_hz, register, level_db: random.range(-27.0, -17.0) }
    }

    /// The pitch in Hz at a position, never outside the register.
    fn pitch_hz(&self, position: usize) -> f64 {
        let last = self.pitch_points_hz.len() - 1;
        let along = ratio(position, self.samples) * real(last);
        let index = count(along).min(last - 1);
        let (from, to) = (self.pitch_points_hz[index], self.pitch_points_hz[index + 1]);
        let (low, high) = self.register.bounds_hz();
        (from + (to - from) * ease(along - real(index))).clamp(low, high)
    }
}

fn draw_syllable(random: &mut Random, begin: usize, length: usize) -> Syllable {
    let consonant = match random.below(4) {
        0 => Consonant::None,
        1 => Consonant::Hiss(random.range(2500.0, 5500.0)),
        2 => Consonant::Burst(random.range(1500.0, 4500.0)),
        _ => Consonant::Hum,
    };
    let share = if matches!(consonant, Consonant::None) { 0.0 } else { random.range(0.2, 0.35) };
    Syllable {
        begin,
        vowel_begin: begin + count(share * real(length)),
        end: begin + length,
        consonant,
        glide: [random.below(VOWELS_HZ.len()), random.below(VOWELS_HZ.len())],
        level: random.range(0.6, 1.0),
    }
}

/// Speaks one utterance: 0.6 to 1.0 s of 16-bit samples at 16 kHz, a function of the arguments alone.
///
/// The sentence is not among them: the sound cannot tell what the words say.
pub fn speak(seed: u64, speaker: &Speaker, register: Register) -> Vec<i16> {
    let plan = Plan::draw(&mut Random::new(mix(seed, 0)), speaker, register);
    let mut noise = Random::new(mix(seed, 1));
    let speech = voice(&plan, speaker, &mut noise);
    let level = root_mean_square(&speech);
    let peak = speech.iter().fold(0.0_f64, |highest, x| highest.max(x.abs()));
    let gain = (decibels(plan.level_db) / level.max(1e-9)).min(PEAK_LIMIT / peak.max(1e-9));
    let room_level = gain * level * decibels(-speaker.room_snr_db);
    let room = room_noise(plan.samples, speaker.room_colour, &mut noise);
    speech.iter().zip(room).map(|(x, y)| to_sample(gain * x + room_level * y)).collect()
}

/// The voice and the consonants without the room, at no particular level.
fn voice(plan: &Plan, speaker: &Speaker, random: &mut Random) -> Vec<f64> {
    let mut resonators = [Resonator::default(); 4];
    let mut hiss = Resonator::default();
    let mut phase = 0.0;
    let mut wobble = 1.0;
    let mut steady_pitch = plan.pitch_hz(0);
    let mut last_pulse = 0.0;
    let mut syllable = 0;
    let mut output = Vec::with_capacity(plan.samples);
    for position in 0..plan.samples {
        while syllable + 1 < plan.syllables.len() && position >= plan.syllables[syllable].end {
            syllable += 1;
        }
        let current = &plan.syllables[syllable];
        if position % CONTROL_SAMPLES == 0 {
            steady_pitch = plan.pitch_hz(position);
            let [first, second, third] = current.formants_hz(position.clamp(current.begin, current.end));
            let centres = [first, second, third, FOURTH_FORMANT_HZ];
            for ((resonator, centre), bandwidth) in resonators.iter_mut().zip(centres).zip(BANDWIDTHS_HZ) {
                resonator.tune(centre * speaker.formant_scale, bandwidth);
            }
            hiss.tune(current.noise_centre_hz(), 1200.0);
        }
        let pitch = steady_pitch * wobble;
        phase += pitch / RATE;
        if phase >= 1.0 {
            phase -= 1.0;
            // No two periods of a voice are quite alike.
            wobble = 1.0 + 0.004 * random.normal().clamp(-2.0, 2.0);
        }
        let pulse = glottal_pulse(phase, speaker.open_quotient);
        // The lips radiate the change of the flow. Divided by the pitch, both registers are about as loud.
        let change = (pulse - last_pulse) * RATE / (pitch * 20.0);
        last_pulse = pulse;
        let white = white_noise(random);
        let source = (change + speaker.breath * pulse * white) * current.voicing(position);
        let voiced = resonators.iter_mut().fold(source, |signal, resonator| resonator.step(signal));
        let consonant = hiss.step(white) - 0.9 * hiss.previous();
        output.push(voiced + consonant * current.noise(position));
    }
    output
}

/// The flow through the glottis over one period (phase 0 to 1): it opens slowly and closes fast (Rosenberg, 1971).
fn glottal_pulse(phase: f64, open_quotient: f64) -> f64 {
    let opening = open_quotient * 0.7;
    if phase < opening {
        0.5 - 0.5 * (std::f64::consts::PI * phase / opening).cos()
    } else if phase < open_quotient {
        (std::f64::consts::FRAC_PI_2 * (phase - opening) / (open_quotient - opening)).cos()
    } else {
        0.0
    }
}

/// Noise of unit power: white, with the given share of the last value in it.
fn room_noise(samples: usize, colour: f64, random: &mut Random) -> impl Iterator<Item = f64> {
    let fresh = (1.0 - colour * colour).sqrt();
    let mut value = white_noise(random);
    (0..samples).map(move |_| {
        value = colour * value + fresh * white_noise(random);
        value
    })
}

/// Uniform noise of unit power: as white as normal noise, and cheaper.
fn white_noise(random: &mut Random) -> f64 {
    (random.uniform() - 0.5) * 12.0_f64.sqrt()
}

/// A resonance: a two-pole filter with unit gain at 0 Hz (Klatt 1980, eq. 1 and 2).
#[derive(Clone, Copy, Default)]
struct Resonator {
    gain: f64,
    feedback: [f64; 2],
    past: [f64; 2],
}

impl Resonator {
    fn tune(&mut self, centre_hz: f64, bandwidth_hz: f64) {
        let radius = (-std::f64::consts::PI * bandwidth_hz / RATE).exp();
        self.feedback = [2.0 * radius * (std::f64::consts::TAU * centre_hz / RATE).cos(), -radius * radius];
        self.gain = 1.0 - self.feedback[0] - self.feedback[1];
    }

    fn step(&mut self, input: f64) -> f64 {
        let output = self.gain * input + self.feedback[0] * self.past[0] + self.feedback[1] * self.past[1];
        self.past = [output, self.past[0]];
        output
    }

    /// The output one step before the newest.
    fn previous(&self) -> f64 {
        self.past[1]
    }
}

/// A smooth step from 0 (at 0 and below) to 1 (at 1 and above).
fn ease(along: f64) -> f64 {
    0.5 - 0.5 * (std::f64::consts::PI * along.clamp(0.0, 1.0)).cos()
}

fn decibels(level: f64) -> f64 {
    10.0_f64.powf(level / 20.0)
}

fn root_mean_square(signal: &[f64]) -> f64 {
    (signal.iter().map(|x| x * x).sum::<f64>() / real(signal.len().max(1))).sqrt()
}

fn seconds(samples: usize) -> f64 {
    real(samples) / RATE
}

fn ratio(part: usize, whole: usize) -> f64 {
    real(part) / real(whole.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples are far below 2^53")]
fn real(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float-to-integer cast saturates")]
fn count(value: f64) -> usize {
    value as usize
}

#[expect(clippy::cast_possible_truncation, reason = "a float-to-integer cast saturates")]
fn to_sample(value: f64) -> i16 {
    (value * 32_767.0).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_utterance_is_a_function_of_its_seed() {
        let speaker = Speaker::new(1);
        assert_eq!(speak(5, &speaker, Register::Low), speak(5, &speaker, Register::Low));
        assert_ne!(speak(5, &speaker, Register::Low), speak(6, &speaker, Register::Low));
        assert_ne!(speak(5, &speaker, Register::Low), speak(5, &Speaker::new(2), Register::Low));
    }

    #[test]
    fn the_pitch_stays_in_its_register_and_its_contour_varies() {
        for register in Register::ALL {
            let (low, high) = register.bounds_hz();
            let mut rising = 0;
            for seed in 0..200 {
                let plan = Plan::draw(&mut Random::new(seed), &Speaker::new(seed), register);
                assert!((0..plan.samples).all(|position| (low..=high).contains(&plan.pitch_hz(position))));
                rising += usize::from(plan.pitch_hz(plan.samples - 1) > plan.pitch_hz(0));
            }
            assert!((70..=130).contains(&rising), "{rising} of 200 contours rise");
        }
    }

    /// The register is the only thing that it changes: rhythm, loudness and syllables are drawn alike.
    #[test]
    fn both_registers_have_the_same_plans_otherwise() {
        for seed in 0..50 {
            let speaker = Speaker::new(3);
            let plan = |register| Plan::draw(&mut Random::new(seed), &speaker, register);
            let (low, high) = (plan(Register::Low), plan(Register::High));
            assert_eq!(low.samples, high.samples);
            assert_eq!(low.syllables.len(), high.syllables.len());
            assert_eq!(low.level_db.to_bits(), high.level_db.to_bits());
        }
    }

    #[test]
    fn speech_neither_clips_nor_is_silent_and_lasts_as_long_as_promised() {
        for seed in 0..100 {
            let samples = speak(seed, &Speaker::new(seed), Register::ALL[usize::from(seed % 2 == 0)]);
            assert!((9_600..=16_000).contains(&samples.len()));
            let peak = samples.iter().map(|x| x.unsigned_abs()).max().unwrap();
            // 0.9 of full scale, and 6 % of that (24 dB below, six deviations) for the noise of the room.
            assert!((2_000..=31_500).contains(&peak), "seed {seed}: peak {peak}");
        }
    }

    /// Klatt's resonator passes 0 Hz unchanged and is loudest at its centre.
    #[test]
    fn a_resonator_peaks_at_its_centre() {
        let gain_at = |frequency: f64| {
            let mut resonator = Resonator::default();
            resonator.tune(1000.0, 100.0);
            let wave = (0..16_000).map(|n| (std::f64::consts::TAU * frequency * f64::from(n) / RATE).sin());
            let heard: Vec<f64> = wave.map(|x| resonator.step(x)).collect();
            root_mean_square(&heard[8_000..]) * std::f64::consts::SQRT_2
        };
        assert!((gain_at(10.0) - 1.0).abs() < 0.01);
        assert!(gain_at(1000.0) > gain_at(900.0) && gain_at(1000.0) > gain_at(1100.0));
        assert!(gain_at(1000.0) > 5.0 && gain_at(3000.0) < 0.5);
    }
}
