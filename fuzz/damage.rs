//! Good input made bad, from a seed: what the property tests hand to the parsers.

use clasp::random::Random;

/// What lengths and counts are set to.
const NUMBERS: [u64; 8] = [0, 1, 0x7F, 0x80, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, u64::MAX];

/// Calls `check` with every case, with `rounds` damaged copies of each (`CLASP_FUZZ_ROUNDS` asks for more), and with as
/// many inputs of noise. If it panics, the input is shown.
pub fn each(cases: &[impl AsRef<[u8]>], rounds: usize, mut check: impl FnMut(&[u8])) {
    let asked = std::env::var("CLASP_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds = asked.unwrap_or(rounds);
    let mut random = Random::new(7);
    let mut check = |bytes: &[u8]| {
        let shown = ShownOnPanic(bytes);
        check(shown.0);
    };
    for case in cases {
        check(case.as_ref());
    }
    for _ in 0..rounds {
        for case in cases {
            let mut bytes = case.as_ref().to_vec();
            for _ in 0..=random.below(4) {
                damage(&mut bytes, cases[random.below(cases.len())].as_ref(), &mut random);
            }
            check(&bytes);
        }
        let noise: Vec<u8> = (0..random.below(100)).map(|_| random.next_u64().to_le_bytes()[0]).collect();
        check(&noise);
    }
}

/// One change: a flipped bit, a number, a cut at either end, a piece less, a piece of another case.
fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    // Sizes lie at the beginning of most formats: half of the changes hit the first 100 bytes.
    let reach = if random.below(2) == 0 { bytes.len().min(100) } else { bytes.len() };
    let at = random.below(reach);
    let until = at + random.below((bytes.len() - at).min(9) + 1);
    let from = random.below(other.len());
    let width = [1, 2, 4, 8][random.below(4)];
    let mut number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
    if random.below(2) == 0 {
        number[..width].reverse();
    }
    match random.below(8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(..at)),
        2 => drop(bytes.drain(at..until)),
        3 => drop(bytes.splice(at..until, other[from..].iter().copied().take(random.below(200)))),
        4 => drop(bytes.splice(at..at, number.into_iter().take(width))),
        5 => {
            let end = (at + width).min(bytes.len());
            drop(bytes.splice(at..end, number.into_iter().take(width)));
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

struct ShownOnPanic<'bytes>(&'bytes [u8]);

impl Drop for ShownOnPanic<'_> {
    #[allow(clippy::print_stderr, reason = "the test that fails says with what")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input: {}", self.0.escape_ascii());
        }
    }
}
