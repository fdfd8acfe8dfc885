//! Tests of the synthetic corpus as it lies on the disk.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::*;

#[derive(Deserialize)]
struct ReadRow {
    id: String,
    audio: String,
    text: String,
    label: String,
    speaker: String,
    duration: f64,
}

type Measure = fn(&[f64]) -> f64;
type Damage = fn(&Path);

struct Example {
    split: usize,
    row: ReadRow,
    samples: Vec<f64>,
}

impl Example {
    fn stops(&self) -> bool {
        self.row.label.starts_with("stop")
    }

    fn is_urgent(&self) -> bool {
        self.row.label.ends_with("urgent")
    }
}

struct Made {
    folder: tempfile::TempDir,
    examples: Vec<Example>,
}

fn read_split(corpus: &DemoCorpus, split: usize) -> Vec<Example> {
    let path = [&corpus.train, &corpus.dev, &corpus.test][split];
    let manifest = fs::read_to_string(path).unwrap();
    let read = |line: &str| {
        let row: ReadRow = serde_json::from_str(line).unwrap();
        let mut reader = hound::WavReader::open(path.parent().unwrap().join(&row.audio)).unwrap();
        let spec = reader.spec();
        assert_eq!((spec.sample_rate, spec.channels, spec.bits_per_sample), (16_000, 1, 16));
        let samples = reader.samples::<i16>().map(|sample| f64::from(sample.unwrap()) / 32_768.0).collect();
        Example { split, row, samples }
    };
    manifest.lines().map(read).collect()
}

/// The default corpus, made once for all tests that only look at it.
static DEFAULT: LazyLock<Made> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let corpus = write_corpus(folder.path(), &DemoOptions::default()).unwrap();
    let examples = (0..3).flat_map(|split| read_split(&corpus, split)).collect();
    Made { folder, examples }
});

fn small(seed: u64) -> DemoOptions {
    DemoOptions { utterances: 48, seed }
}

/// Every file but the lock, by name.
fn files(folder: &Path) -> HashMap<PathBuf, Vec<u8>> {
    let list = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let all = list(folder.to_owned()).chain(list(folder.join(AUDIO_FOLDER)));
    all.filter(|path| path.is_file() && !path.ends_with(LOCK_FILE))
        .map(|path| (path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect()
}

/// The accuracy of the best single threshold on a number, either way round, at telling a bit.
fn threshold_accuracy(numbers: &[(f64, bool)]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(|x, y| x.0.total_cmp(&y.0));
    let ones = sorted.iter().filter(|(_, bit)| *bit).count();
    // Right when everything below the threshold is called 0 and everything above it 1.
    let (mut right, mut best) = (ones, ones.max(sorted.len() - ones));
    for (_, bit) in &sorted {
        right = if *bit { right - 1 } else { right + 1 };
        best = best.max(right).max(sorted.len() - right);
    }
    best as f64 / sorted.len() as f64
}

/// The pitch of a signal: the median over its loud frames of 60 ms of the shortest lag between 60 and 400 Hz at which
/// the normalised autocorrelation comes close to its highest peak. At half the rate, which is enough and faster.
fn estimate_pitch_hz(samples: &[f64]) -> f64 {
    let halved: Vec<f64> = samples.chunks_exact(2).map(|pair| pair[0] + pair[1]).collect();
    let power = |frame: &[f64]| frame.iter().map(|x| x * x).sum::<f64>();
    let frames: Vec<&[f64]> = halved.windows(480).step_by(240).collect();
    let loudest = frames.iter().map(|frame| power(frame)).fold(0.0, f64::max);
    let mut pitches: Vec<f64> = frames
        .iter()
        .filter(|frame| power(frame) > 0.2 * loudest)
        .filter_map(|frame| {
            let score = |lag: usize| {
                let (head, tail) = (&frame[..frame.len() - lag], &frame[lag..]);
                let product: f64 = head.iter().zip(tail).map(|(x, y)| x * y).sum();
                product / (power(head) * power(tail)).sqrt()
            };
            let scores: Vec<f64> = (20..=133).map(score).collect();
            let highest = scores.iter().copied().fold(0.0, f64::max);
            let is_peak = |n: &usize| scores[*n] > scores[n - 1] && scores[*n] >= scores[n + 1];
            let first = (1..scores.len() - 1).find(|n| is_peak(n) && scores[*n] > 0.9 * highest);
            first.map(|n| 8_000.0 / (n + 20) as f64)
        })
        .collect();
    pitches.sort_by(f64::total_cmp);
    pitches[pitches.len() / 2]
}

#[test]
fn splits_have_the_promised_sizes() {
    let sizes = |utterances| splits(utterances).map(|split| split.utterances);
    assert_eq!(sizes(1200), [800, 200, 200]);
    assert_eq!(sizes(2400), [1600, 400, 400]);
    // A sixth would be too few for a test; it takes what leaves half for training.
    assert_eq!(sizes(900), [550, 150, 200]);
    assert_eq!(sizes(600), [300, 100, 200]);
    assert_eq!(sizes(240), [120, 40, 80]);
    for utterances in LEAST_UTTERANCES..2000 {
        assert_eq!(sizes(utterances).iter().sum::<usize>(), utterances);
        assert!(sizes(utterances).iter().all(|size| *size >= 4));
    }
}

#[test]
fn labels_are_balanced_in_every_split_and_for_every_speaker() {
    assert!(LABELS.is_sorted());
    let options = [DemoOptions::default(), DemoOptions { utterances: 101, seed: 9 }];
    for (split, utterances) in options.iter().flat_map(draw_utterances) {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut by_speaker: HashMap<(u64, &str), usize> = HashMap::new();
        for utterance in &utterances {
            let label = label(utterance.meaning, utterance.register);
            *counts.entry(label).or_default() += 1;
            *by_speaker.entry((utterance.speaker, label)).or_default() += 1;
        }
        let within_one = |counts: &[usize]| counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1;
        assert!(within_one(&LABELS.map(|label| counts.get(label).copied().unwrap_or(0))), "{}", split.name);
        let speakers: HashSet<u64> = utterances.iter().map(|utterance| utterance.speaker).collect();
        for speaker in speakers {
            assert!(within_one(&LABELS.map(|label| by_speaker.get(&(speaker, label)).copied().unwrap_or(0))));
        }
    }
}

#[test]
fn splits_share_neither_speakers_nor_sentences_nor_sounds() {
    let examples = &DEFAULT.examples;
    let mut split_of_text = HashMap::new();
    let mut split_of_speaker = HashMap::new();
    for example in examples {
        assert_eq!(*split_of_text.entry(&example.row.text).or_insert(example.split), example.split);
        assert_eq!(*split_of_speaker.entry(&example.row.speaker).or_insert(example.split), example.split);
    }
    assert_eq!(split_of_text.len(), examples.len() / 2, "a few hundred sentences, each in both registers");
    assert_eq!(split_of_speaker.len(), 12);
    let sounds: HashSet<Vec<u64>> =
        examples.iter().map(|example| example.samples.iter().map(|x| x.to_bits()).collect()).collect();
    assert_eq!(sounds.len(), examples.len());
    let ids: HashSet<&str> = examples.iter().map(|example| example.row.id.as_str()).collect();
    assert_eq!(ids.len(), examples.len());
}

/// With every sentence in both registers, no classifier of the text can be right about more than half of a split.
#[test]
fn words_say_nothing_of_the_register() {
    let examples = &DEFAULT.examples;
    for split in 0..3 {
        let mut registers: HashMap<&str, Vec<bool>> = HashMap::new();
        let mut words: HashMap<&str, [usize; 2]> = HashMap::new();
        for example in examples.iter().filter(|example| example.split == split) {
            registers.entry(&example.row.text).or_default().push(example.is_urgent());
            for word in example.row.text.split(' ') {
                words.entry(word).or_default()[usize::from(example.is_urgent())] += 1;
            }
        }
        for (text, mut urgent) in registers {
            urgent.sort_unstable();
            assert_eq!(urgent, [false, true], "{text}");
        }
        for (word, [calm, urgent]) in words {
            assert_eq!(calm, urgent, "{word}");
        }
    }
}

/// Duration, energy, zero crossings, brightness and pitch of the sound say nothing of the words.
#[test]
fn sounds_say_nothing_of_the_meaning() {
    let measures: [(&str, Measure); 5] = [
        ("duration", |samples| samples.len() as f64),
        ("energy", |samples| samples.iter().map(|x| x * x).sum()),
        ("zero crossings", |samples| samples.windows(2).filter(|pair| pair[0] * pair[1] < 0.0).count() as f64),
        ("brightness", |samples| {
            samples.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum::<f64>()
                / samples.iter().map(|x| x * x).sum::<f64>()
        }),
        ("pitch", estimate_pitch_hz),
    ];
    for (name, measure) in measures {
        let numbers: Vec<(f64, bool)> =
            DEFAULT.examples.par_iter().map(|example| (measure(&example.samples), example.stops())).collect();
        // The best of all thresholds on 1200 fair coins exceeds 1/2 by D/2, where D is the two-sample
        // Kolmogorov-Smirnov distance of 600 against 600: below 1.95 sqrt(2 / 600) = 0.113 with probability 0.999.
        let accuracy = threshold_accuracy(&numbers);
        assert!(accuracy < 0.5 + 0.113 / 2.0, "{name} tells the meaning with accuracy {accuracy}");
    }
}

#[test]
fn the_pitch_of_every_sound_is_in_its_register() {
    let estimates: Vec<(f64, bool)> =
        DEFAULT.examples.par_iter().map(|example| (estimate_pitch_hz(&example.samples), example.is_urgent())).collect();
    // Lags are whole samples (2 Hz at 130 Hz, 10 Hz at 280 Hz), and an estimate may slip by an octave now and then.
    let within = |(pitch, is_urgent): &&(f64, bool)| {
        if *is_urgent { (195.0..=290.0).contains(pitch) } else { (87.0..=134.0).contains(pitch) }
    };
    let right = estimates.iter().filter(within).count();
    assert!(right * 100 >= estimates.len() * 98, "{right} of {}", estimates.len());
}

#[test]
fn sounds_last_as_long_as_promised_and_as_the_manifest_says() {
    for example in &DEFAULT.examples {
        assert!((0.6..=1.0).contains(&example.row.duration), "{}", example.row.duration);
        assert!((example.row.duration * 16_000.0 - example.samples.len() as f64).abs() < 1e-6);
        assert_eq!(example.row.audio, format!("audio/{}.wav", example.row.id));
    }
    let longest = DEFAULT.examples.iter().map(|example| example.row.duration).fold(0.0, f64::max);
    let shortest = DEFAULT.examples.iter().map(|example| example.row.duration).fold(1.0, f64::min);
    assert!(longest > 0.95 && shortest < 0.65, "tempo varies: {shortest} to {longest}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let make = |options: &DemoOptions, threads| {
        let folder = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| write_corpus(folder.path(), options)).unwrap();
        files(folder.path())
    };
    let first = make(&small(7), 1);
    assert_eq!(first.len(), 48 + 4, "the WAVs, three manifests and the record, and nothing temporary");
    assert!(first == make(&small(7), 3));
    let other = make(&small(8), 1);
    let audio = |made: &HashMap<PathBuf, Vec<u8>>| -> HashSet<Vec<u8>> {
        made.iter().filter(|(path, _)| path.starts_with(AUDIO_FOLDER)).map(|(_, bytes)| bytes.clone()).collect()
    };
    assert!(audio(&first).is_disjoint(&audio(&other)));
    assert_ne!(first[Path::new("test.jsonl")], other[Path::new("test.jsonl")]);
}

#[test]
fn a_whole_corpus_is_kept_and_anything_else_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let make = |options: &DemoOptions| write_corpus(path, options).unwrap().is_new;
    assert!(make(&small(7)));
    let whole = files(path);
    assert!(!make(&small(7)), "kept");

    let damages: [(&str, Damage); 6] = [
        ("stopped before the record", |path| fs::remove_file(path.join("corpus.json")).unwrap()),
        ("half a record", |path| fs::write(path.join("corpus.json"), "{\"format\": 1,").unwrap()),
        ("half a manifest", |path| {
            let manifest = fs::read(path.join("dev.jsonl")).unwrap();
            fs::write(path.join("dev.jsonl"), &manifest[..manifest.len() / 2]).unwrap();
        }),
        ("a lost WAV", |path| fs::remove_file(path.join("audio/train-0003.wav")).unwrap()),
        ("a WAV cut short", |path| fs::write(path.join("audio/test-0001.wav"), "RIFF").unwrap()),
        ("of an older program", |path| {
            let record = fs::read_to_string(path.join("corpus.json")).unwrap();
            let older = record.replacen(&generator_digest(), &"0".repeat(64), 1);
            fs::write(path.join("corpus.json"), older).unwrap();
        }),
    ];
    for (name, damage) in damages {
        damage(path);
        assert!(make(&small(7)), "{name}");
        assert!(files(path) == whole, "{name}");
    }
    assert!(make(&small(8)), "another seed");
    assert!(make(&small(7)) && files(path) == whole, "and back");
}

/// A run that was killed has left temporary files, some WAVs and no record.
#[test]
fn an_interrupted_run_is_never_taken_for_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join(AUDIO_FOLDER)).unwrap();
    fs::write(path.join("audio/train-0001.wav.partial"), "RI").unwrap();
    fs::write(path.join("train.jsonl"), "").unwrap();
    assert!(write_corpus(path, &small(7)).unwrap().is_new);
    assert!(!path.join("audio/train-0001.wav.partial").exists());
    assert!(is_whole(path, &small(7)));
}

#[test]
fn processes_at_the_same_time_make_one_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let makers = std::thread::scope(|scope| {
        let start = || scope.spawn(|| write_corpus(folder.path(), &small(7)).unwrap().is_new);
        [start(), start(), start()].map(|maker| maker.join().unwrap())
    });
    assert_eq!(makers.iter().filter(|is_new| **is_new).count(), 1);
}

#[test]
fn too_few_utterances_and_an_impossible_folder_are_errors_that_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = write_corpus(folder.path(), &DemoOptions { utterances: 23, seed: 1 }).unwrap_err();
    assert_eq!(error.to_string(), "23 utterances are too few for the demo corpus: ask for 24 or more");
    fs::write(folder.path().join("file"), "").unwrap();
    let error = write_corpus(&folder.path().join("file"), &small(1)).unwrap_err().to_string();
    assert!(error.contains("cannot create") && error.contains("file/audio") && !error.contains('\n'), "{error}");
}

#[test]
fn the_default_corpus_is_there_for_other_programs() {
    let record = read_record(DEFAULT.folder.path()).unwrap();
    assert_eq!((record.format, record.options), (FORMAT, DemoOptions::default()));
}
