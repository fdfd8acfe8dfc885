//! The cache of what the frozen feature encoder makes of speech: it changes no result, and stopping, killing, damage and
//! company change nothing in it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use burn::backend::flex::FlexDevice;
use clasp::{
    checkpoint,
    config::{FeaturePrecision, Precision},
    data::{
        batch::Batch,
        features::{FeatureCache, FeatureStore},
    },
    encoder::{SpeechEncoder, SpeechEncoderConfig, Wav2Vec2Config},
    inference::pass::{self, inputs_with},
    method,
    model::Model,
    nn::Init,
    ops::{Lengths, Mode},
    random::Random,
};

use crate::{
    devices::batch,
    program::{Said, clasp, folder, lines_of},
    reference::{Cpu, relative_error, values},
    train::{LONG, assert_same, stopped},
};

const FIXTURES: [&str; 3] = ["group-norm", "layer-norm", "adapters"];

fn model(name: &str) -> Model<Cpu> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name);
    checkpoint::load(&folder, &FlexDevice).unwrap().model
}

fn cache(folder: &Path, model: &Model<Cpu>, format: FeaturePrecision) -> FeatureCache {
    let store = FeatureStore::open(folder, format, u64::MAX).unwrap();
    pass::feature_cache(&store, model, Precision::F32, "cpu").unwrap()
}

/// The samples of each utterance, without padding.
fn waveforms(batch: &Batch) -> Vec<&[f32]> {
    let rows = batch.waveforms.chunks(batch.longest_samples());
    rows.zip(&batch.sample_lengths).map(|(row, &samples)| &row[..samples]).collect()
}

/// The batch as the loader gives it where the cache has all of it.
fn found(batch: &Batch, cache: &FeatureCache) -> Batch {
    let features = waveforms(batch).into_iter().map(|waveform| Some(cache.get(waveform).unwrap())).collect();
    Batch { features, waveforms: Vec::new(), ..batch.clone() }
}

/// Every output of the model, of what the batch has and of what the cache adds to it.
fn outputs(model: &Model<Cpu>, batch: &Batch, cache: Option<&FeatureCache>) -> Vec<(&'static str, Vec<f32>)> {
    let inputs = inputs_with(batch, model, cache, Precision::F32, &FlexDevice);
    let named = method::tensors(&*model.forward(&inputs, Mode::evaluation(), &FlexDevice));
    named.into_iter().map(|(name, tensor)| (name, values(tensor.into_data()))).collect()
}

#[test]
fn features_are_those_of_the_encoder_and_give_its_outputs() {
    for name in FIXTURES {
        let folder = tempfile::tempdir().unwrap();
        let (model, batch) = (model(name), batch(name));
        let cache = cache(folder.path(), &model, FeaturePrecision::F32);
        let plain = outputs(&model, &batch, None);
        let computed = outputs(&model, &batch, Some(&cache));
        // What the encoder makes of the padded batch.
        let lengths = Lengths::new(batch.sample_lengths.clone(), batch.longest_samples());
        let encoder = model.speech_encoder.as_ref().unwrap();
        let (features, frames) = encoder.features(&batch.waveforms, &lengths, Precision::F32, &FlexDevice);
        let [_, longest, channels] = features.dims();
        let features = values(features.into_data());
        assert!(!frames.is_full(), "{name}: nothing is padded");
        for ((row, waveform), &valid) in features.chunks(longest * channels).zip(waveforms(&batch)).zip(frames.valid())
        {
            let stored = cache.get(waveform).unwrap();
            assert_eq!((stored.frames, stored.channels), (valid, channels));
            let error = relative_error(&stored.values, &row[..valid * channels], 1e-12);
            assert!(error < 1e-5, "{name}: off by {error:e}");
        }
        for ((tensor, computed), (_, plain)) in computed.iter().zip(&plain) {
            let error = relative_error(computed, plain, 1e-12);
            assert!(error < 1e-5, "{name}: {tensor} is off by {error:e}");
        }
        // Found again, in whole or in part, in any company: the same to the bit.
        let all = found(&batch, &cache);
        let mut mixed = Batch { waveforms: batch.waveforms.clone(), ..all.clone() };
        mixed.features[0] = None;
        for batch in [&all, &mixed] {
            assert!(outputs(&model, batch, Some(&cache)) == computed, "{name}: another result the second time");
        }
        let fresh = tempfile::tempdir().unwrap();
        let alone = self::cache(fresh.path(), &model, FeaturePrecision::F32);
        for row in 0..batch.len() {
            let _ = outputs(&model, &batch.rows(row..row + 1), Some(&alone));
        }
        for waveform in waveforms(&batch) {
            assert!(alone.get(waveform).unwrap() == cache.get(waveform).unwrap(), "{name}: company changes features");
        }
    }
}

/// Utterances of half a second and more, alone and padded, through the convolutions of the base model: the same to the
/// bit where the products are this program's own.
#[test]
#[expect(clippy::cast_possible_truncation, reason = "samples are single precision")]
fn the_published_convolutions_give_the_same_alone_and_padded() {
    let config = Wav2Vec2Config { num_hidden_layers: 1, ..Wav2Vec2Config::default() };
    let config = SpeechEncoderConfig::Wav2Vec2(config);
    let encoder = SpeechEncoder::<Cpu>::new(&config, &mut Init::fresh(1, &FlexDevice));
    let features = |samples: &[f32], lengths: &Lengths| {
        values(encoder.features(samples, lengths, Precision::F32, &FlexDevice).0.into_data())
    };
    let (mut random, valid) = (Random::new(1), vec![8_017, 14_400]);
    let rows: Vec<Vec<f32>> =
        valid.iter().map(|&samples| (0..samples).map(|_| random.normal() as f32).collect()).collect();
    let padded: Vec<f32> =
        rows.iter().flat_map(|row| row.iter().copied().chain(std::iter::repeat(0.0)).take(14_400)).collect();
    let together = features(&padded, &Lengths::new(valid, 14_400));
    for (row, together) in rows.iter().zip(together.chunks(together.len() / 2)) {
        let alone = features(row, &Lengths::full(1, row.len()));
        let together = &together[..alone.len()];
        assert!(relative_error(&alone, together, 1e-12) < 1e-5);
        let has_own = cfg!(target_arch = "x86_64") && std::arch::is_x86_feature_detected!("avx2");
        assert!(!has_own || alone == together, "company changes bits");
    }
}

#[test]
fn other_weights_formats_and_backends_have_other_features() {
    let (group, layer) = (model("group-norm"), model("layer-norm"));
    let identity = |model: &Model<Cpu>, precision, backend: &str| {
        model.speech_encoder.as_ref().unwrap().features_identity(precision, backend)
    };
    let one = identity(&group, Precision::F32, "cpu");
    assert!(one.len() == 64 && one == identity(&model("group-norm"), Precision::F32, "cpu"));
    for other in [
        identity(&layer, Precision::F32, "cpu"),
        identity(&group, Precision::Bf16, "cpu"),
        identity(&group, Precision::F32, "cuda"),
    ] {
        assert_ne!(one, other);
    }
}

/// A config with frozen convolutions and a cache of this name.
fn cached(folder: &str) -> Vec<String> {
    let words = ["speech.freeze_feature_encoder=true".to_owned(), format!("speech.feature_cache={folder}")];
    words.into_iter().flat_map(|word| ["--set".to_owned(), word]).collect()
}

/// Trains as [`LONG`] says, with frozen convolutions and more flags.
fn train(at: &Path, flags: &[String], more: &[&str]) -> Said {
    let flags = flags.iter().map(String::as_str);
    clasp(at, &LONG.into_iter().chain(flags).chain(more.iter().copied()).collect::<Vec<_>>())
}

/// The entries of a cache: path, bytes, time.
fn entries(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            entries.extend(self::entries(&entry));
        } else {
            entries.insert(entry.clone(), (fs::read(&entry).unwrap(), entry.metadata().unwrap().modified().unwrap()));
        }
    }
    entries
}

/// Every loss term and gradient norm of two logs, to within single precision.
fn assert_near(run: &Path, other: &Path, tolerance: f64) {
    let (run, other) = (lines_of(&run.join("log.jsonl")), lines_of(&other.join("log.jsonl")));
    assert_eq!(run.len(), other.len());
    for (found, expected) in run.iter().zip(&other) {
        if expected["event"] == "epoch" {
            assert_eq!(found["dev"], expected["dev"]);
            continue;
        }
        for (term, expected) in expected["loss"].as_object().unwrap() {
            let (found, expected) = (found["loss"][term].as_f64().unwrap(), expected.as_f64().unwrap());
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error < tolerance, "{term}: {found} for {expected}");
        }
    }
}

#[test]
fn a_cache_changes_no_result_and_is_filled_once() {
    let folder = folder();
    let at = folder.path();
    let plain = ["--set".to_owned(), "speech.freeze_feature_encoder=true".to_owned()];
    let epochs = ["--set", "train.epochs=3"];
    train(at, &plain, &[&epochs[..], &["--set", "run.dir=plain"]].concat()).good();
    train(at, &cached("cache"), &[&epochs[..], &["--set", "run.dir=first"]].concat()).good();
    assert_near(&at.join("first"), &at.join("plain"), 1e-5);
    let filled = entries(&at.join("cache"));
    // 24 utterances to train on, 8 of dev.
    assert_eq!(filled.len(), 32);
    train(at, &cached("cache"), &[&epochs[..], &["--set", "run.dir=second"]].concat()).good();
    assert_same(&at.join("second"), &at.join("first"));
    assert!(entries(&at.join("cache")) == filled, "an entry was written again");
    // Damaged and missing ones are made again, the same.
    let mut paths = filled.keys();
    let (short, gone, zero) = (paths.next().unwrap(), paths.next().unwrap(), paths.next().unwrap());
    fs::write(short, &filled[short].0[..100]).unwrap();
    fs::remove_file(gone).unwrap();
    fs::write(zero, vec![0; filled[zero].0.len()]).unwrap();
    train(at, &cached("cache"), &[&epochs[..], &["--set", "run.dir=third"]].concat()).good();
    assert_same(&at.join("third"), &at.join("first"));
    let bytes = |entries: &BTreeMap<PathBuf, (Vec<u8>, SystemTime)>| -> Vec<Vec<u8>> {
        entries.values().map(|(bytes, _)| bytes.clone()).collect()
    };
    assert!(bytes(&entries(&at.join("cache"))) == bytes(&filled), "an entry is another one");
    // Other weights have entries of their own, and no room to take from these where all may stay.
    train(at, &cached("cache"), &["--set", "train.epochs=1", "--set", "train.seed=2", "--set", "run.dir=other"]).good();
    assert_eq!(entries(&at.join("cache")).len(), 64);
}

#[test]
fn rounded_features_are_the_same_from_the_first_epoch_on() {
    let folder = folder();
    let at = folder.path();
    let more = ["--set", "speech.feature_cache_precision=f16", "--set", "train.epochs=3"];
    for run in ["cold", "warm"] {
        train(at, &cached("cache"), &[&more[..], &["--set", &format!("run.dir={run}")]].concat()).good();
    }
    assert_same(&at.join("warm"), &at.join("cold"));
    assert_eq!(entries(&at.join("cache")).len(), 32);
    let shown = fs::read_to_string(at.join("warm/config.toml")).unwrap();
    assert!(shown.contains("feature_cache_precision = \"f16\""), "{shown}");
}

#[test]
fn bf16_trains_on_features_of_its_own_and_is_scored_on_those_of_f32() {
    let folder = folder();
    let at = folder.path();
    let more = ["--set", "run.precision=bf16", "--set", "train.epochs=1"];
    train(
        at,
        &["--set".into(), "speech.freeze_feature_encoder=true".into()],
        &[&more[..], &["--set", "run.dir=plain"]].concat(),
    )
    .good();
    train(at, &cached("cache"), &more).good();
    // bf16 has 8 bits: what is summed in another order may be rounded to its neighbour.
    assert_near(&at.join("run"), &at.join("plain"), 1e-2);
    let counts = fs::read_dir(at.join("cache")).unwrap().map(|place| entries(&place.unwrap().path()).len());
    let mut counts: Vec<usize> = counts.collect();
    counts.sort_unstable();
    assert_eq!(counts, [8, 24]);
}

#[test]
fn a_killed_run_with_a_cache_goes_on_as_if_nothing_had_been() {
    let folder = folder();
    let at = folder.path();
    train(at, &cached("other"), &["--set", "run.dir=alone"]).good();
    let flags = [cached("cache"), vec!["--set".into(), "train.save_every_steps=4".into()]].concat();
    let words: Vec<&str> = flags.iter().map(String::as_str).collect();
    stopped(at, &words, 1, "KILL");
    let said = stopped(at, &[&words[..], &["--resume"]].concat(), 8, "KILL");
    assert_eq!(said.code, None);
    // With part of the cache gone.
    for path in entries(&at.join("cache")).into_keys().step_by(3) {
        fs::remove_file(path).unwrap();
    }
    let precision = ["--resume", "--set", "speech.feature_cache_precision=f16"];
    train(at, &flags, &precision).bad_line(2, &["speech.feature_cache_precision: not set there, \"f16\" here"]);
    train(at, &flags, &["--resume", "--set", "speech.feature_cache_gib=3"]).good();
    assert_same(&at.join("run"), &at.join("alone"));
    assert_eq!(entries(&at.join("cache")).len(), 32);
}

#[test]
fn a_run_goes_on_without_its_cache_and_with_one_that_it_had_not() {
    let folder = folder();
    let at = folder.path();
    let flags = cached("cache");
    let words: Vec<&str> = flags.iter().map(String::as_str).collect();
    stopped(at, &words, 4, "INT").bad(130, &[]);
    let with = |cache: &str, stop: &str| train(at, &cached(cache), &["--resume", "--set", stop]);
    with("", "run.workers=1").good();
    stopped(at, &[&words[..2], &["--set", "run.dir=late"]].concat(), 0, "KILL");
    with("elsewhere", "run.dir=late").good();
    assert_near(&at.join("late"), &at.join("run"), 1e-4);
}

#[test]
fn two_devices_share_a_cache() {
    let folder = folder();
    let at = folder.path();
    let more = ["--set", "train.epochs=2", "--device", "cpu,cpu"];
    let plain = ["--set".to_owned(), "speech.freeze_feature_encoder=true".to_owned()];
    train(at, &plain, &[&more[..], &["--set", "run.dir=plain"]].concat()).good();
    for run in ["cold", "warm"] {
        train(at, &cached("cache"), &[&more[..], &["--set", &format!("run.dir={run}")]].concat()).good();
    }
    assert_near(&at.join("cold"), &at.join("plain"), 1e-5);
    assert_same(&at.join("warm"), &at.join("cold"));
    assert_eq!(entries(&at.join("cache")).len(), 32);
}

#[test]
fn a_cache_that_is_full_or_fails_is_told_once_and_training_goes_on() {
    let folder = folder();
    let at = folder.path();
    train(at, &cached("cache"), &["--set", "train.epochs=2", "--set", "run.dir=whole"]).good();
    let places: Vec<PathBuf> = fs::read_dir(at.join("cache")).unwrap().map(|place| place.unwrap().path()).collect();
    assert_eq!(places.len(), 1);
    let loud = |more: &[&str]| {
        let flags = cached("cache");
        let words = LONG.into_iter().filter(|word| *word != "--quiet").chain(flags.iter().map(String::as_str));
        clasp(at, &words.chain(["--set", "train.epochs=2"]).chain(more.iter().copied()).collect::<Vec<_>>()).good()
    };
    fs::remove_dir_all(&places[0]).unwrap();
    fs::write(&places[0], "in the way").unwrap();
    let said = loud(&["--set", "run.dir=blocked"]);
    assert_eq!(said.stderr.matches("no features are stored in the cache").count(), 1, "{}", said.stderr);
    assert_same(&at.join("blocked"), &at.join("whole"));
    fs::remove_file(&places[0]).unwrap();
    // 20 KiB: some entries, not all.
    let said = loud(&["--set", "run.dir=full", "--set", "speech.feature_cache_gib=0.00002"]);
    assert_eq!(said.stderr.matches("is full").count(), 1, "{}", said.stderr);
    assert_same(&at.join("full"), &at.join("whole"));
    let kept = entries(&at.join("cache"));
    let size: usize = kept.values().map(|(bytes, _)| bytes.len()).sum();
    assert!((1..32).contains(&kept.len()) && size < 22_000, "{} entries of {size} bytes", kept.len());
}

#[test]
fn a_cache_that_cannot_be_is_refused() {
    let folder = folder();
    let at = folder.path();
    let flags = cached("cache");
    train(at, &flags, &["--set", "speech.freeze_feature_encoder=false"])
        .bad_line(2, &["`speech.feature_cache`", "but they train", "speech.freeze_feature_encoder = true"]);
    train(at, &flags, &["--set", "model.method=text"])
        .bad_line(2, &["`speech.feature_cache`", "model.method = text does not read"]);
    train(at, &flags, &["--set", "speech.feature_cache_precision=f8"]).bad(2, &["one of f32, f16"]);
    let own = cached("run/last/features");
    train(at, &own, &["--set", "run.dir=run"])
        .bad_line(2, &["`speech.feature_cache`", "run/last/features is of the run's own files"]);
    fs::write(at.join("cache"), "a file").unwrap();
    train(at, &flags, &[]).bad_line(2, &["`speech.feature_cache` cannot be used: cannot create", "cache"]);
    let text = fs::read_to_string(at.join("tiny.toml")).unwrap();
    let cached = "freeze_feature_encoder = true\nfeature_cache = \"cache/below\"";
    fs::write(at.join("cached.toml"), text.replace("freeze_feature_encoder = false", cached)).unwrap();
    let said = clasp(at, &["doctor", "--config", "cached.toml"]);
    assert!(said.stdout.contains("cache/below cannot be a folder: "), "{}", said.stdout);
    assert_eq!(said.code, Some(2));
    for path in ["run", "runs"] {
        assert!(!at.join(path).join("log.jsonl").exists());
    }
}

#[test]
fn a_bench_says_that_its_features_come_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let bench = |more: &[&str]| {
        let words =
            ["bench", "--size", "tiny", "--seconds", "0.5", "--steps", "1", "--device", "cpu", "--feature-cache"];
        clasp(folder.path(), &[&words[..], more].concat())
    };
    let rows = bench(&["--warmup", "1"]).good().rows();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0]["job"].as_str(), rows[0]["feature_cache"].as_bool()), (Some("train"), Some(true)));
    assert!(rows[1].get("feature_cache").is_none());
    let rows = bench(&["--warmup", "1", "--only", "train", "--profile"]).good().rows();
    assert_eq!(rows[0]["profile"]["share"]["feature_encoder"].as_f64(), Some(0.0));
    bench(&["--warmup", "0"]).bad_line(2, &["--feature-cache", "--warmup 1"]);
    bench(&["--only", "predict"]).bad_line(2, &["--feature-cache", "is of training"]);
}
