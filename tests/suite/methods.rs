//! Every method through the real binary: training, stopping and going on, scoring, prediction and vectors; with
//! manifests that have only what the method reads.

use std::{collections::BTreeMap, fs, path::Path};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::{
    program::{ENCODERS, REST, audio, clasp, folder, keys, lines_of, tiny_run},
    train::{LONG, assert_same, stopped},
};

/// What is expected of a method.
struct Method {
    name: &'static str,
    /// As small as can be.
    options: &'static [&'static str],
    /// The terms in the order of the log, with their weights.
    terms: &'static [(&'static str, f64)],
    /// The vectors that `encode` writes.
    vectors: &'static [&'static str],
    /// The logits of the prediction.
    main: &'static str,
    /// Whether it has classifiers of one modality beside.
    has_alone: bool,
}

const TASKS: &[(&str, f64)] = &[("task_text", 1.0), ("task_speech", 1.0), ("task_fusion", 1.0)];

const METHODS: &[Method] = &[
    Method {
        name: "text",
        options: &[],
        terms: &[("task_text", 1.0)],
        vectors: &["text"],
        main: "logits_text",
        has_alone: false,
    },
    Method {
        name: "speech",
        options: &[],
        terms: &[("task_speech", 1.0)],
        vectors: &["speech"],
        main: "logits_speech",
        has_alone: false,
    },
    Method {
        name: "late-fusion",
        options: &[],
        terms: &[("task_text", 1.0), ("task_speech", 1.0)],
        vectors: &["text", "speech"],
        main: "logits_fusion",
        has_alone: true,
    },
    Method {
        name: "concat",
        options: &[],
        terms: &[("task_fusion", 1.0)],
        vectors: &["text", "speech", "fused"],
        main: "logits_fusion",
        has_alone: false,
    },
    Method {
        name: "lmf",
        options: &["model.lmf.rank=2"],
        terms: &[("task_fusion", 1.0)],
        vectors: &["text", "speech", "text_reduced", "speech_reduced"],
        main: "logits_fusion",
        has_alone: false,
    },
    Method {
        name: "misa",
        options: &["model.misa.size=8", "model.misa.feed_forward=8"],
        terms: &[("task_fusion", 1.0), ("reconstruction", 1.0), ("difference", 0.3), ("similarity", 1.0)],
        vectors: &[
            "text",
            "speech",
            "text_projected",
            "speech_projected",
            "text_invariant",
            "speech_invariant",
            "text_specific",
            "speech_specific",
            "text_reconstructed",
            "speech_reconstructed",
            "fused",
        ],
        main: "logits_fusion",
        has_alone: false,
    },
    Method {
        name: "lfmim",
        options: &["model.lfmim.stages=2", "model.lfmim.text_positions=8", "model.lfmim.speech_positions=12"],
        terms: TASKS,
        vectors: &["text_stream", "speech_stream", "fused"],
        main: "logits_fusion",
        has_alone: true,
    },
    Method {
        name: "lrmp-arch",
        options: &[
            "model.lrmp-arch.width=8",
            "model.lrmp-arch.attention_heads=2",
            "model.lrmp-arch.feed_forward=12",
            "model.lrmp-arch.layers=1",
            "model.lrmp-arch.embedding=4",
            "model.lrmp-arch.speech_positions=40",
        ],
        terms: &[("task_fusion", 1.0)],
        vectors: &["text_decoded", "speech_decoded", "fused"],
        main: "logits_fusion",
        has_alone: false,
    },
    // Not a method but an ablation; it has a head of its own.
    Method {
        name: "clasp",
        options: &["model.ablation=raw-only"],
        terms: &[("task_text", 1.0), ("task_speech", 1.0), ("task_fusion", 1.0), ("kl", 0.05)],
        vectors: &["text", "speech", "fused"],
        main: "logits_fusion",
        has_alone: true,
    },
];

impl Method {
    fn flags(&self) -> Vec<String> {
        let named = [format!("model.method={}", self.name)];
        let all = named.into_iter().chain(self.options.iter().map(|&option| option.to_owned()));
        all.flat_map(|option| ["--set".to_owned(), option]).collect()
    }

    #[track_caller]
    fn train(&self, at: &Path, words: &[&str]) {
        let flags = self.flags();
        let flags = flags.iter().map(String::as_str);
        clasp(
            at,
            &["train", "--config", "tiny.toml", "--quiet"]
                .into_iter()
                .chain(flags)
                .chain(words.iter().copied())
                .collect::<Vec<_>>(),
        )
        .good();
    }

    fn has(&self, modality: &str) -> bool {
        let other = if modality == "text" { "speech" } else { "text" };
        self.name != other
    }

    fn has_encoders(&self) -> bool {
        self.name != "lrmp-arch"
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The shapes and values of a safetensors file.
fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    file.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(view.data())))).collect()
}

fn dev() -> String {
    tiny_run().join("corpus/dev.jsonl").display().to_string()
}

/// Log, checkpoint, prediction and vectors of a run of one epoch.
#[track_caller]
fn is_whole(method: &Method, at: &Path) {
    let name = method.name;
    let log = lines_of(&at.join("run/log.jsonl"));
    assert_eq!(log.len(), 7, "{name}");
    for entry in &log[..6] {
        let terms: Vec<&str> = std::iter::once("total").chain(method.terms.iter().map(|(term, _)| *term)).collect();
        assert_eq!(keys(&entry["loss"]), terms, "{name}");
        let sum: f64 = method.terms.iter().map(|(term, weight)| entry["loss"][term].as_f64().unwrap() * weight).sum();
        let total = entry["loss"]["total"].as_f64().unwrap();
        assert!((total - sum).abs() < 1e-4 * sum.abs().max(1.0), "{name}: {total} should be {sum}");
    }
    assert_eq!(log[6]["dev"]["text_only"].is_object(), method.has_alone, "{name}");

    let config = json_of(&at.join("run/best/config.json"));
    assert_eq!(config["method"], name);
    for modality in ["text", "speech"] {
        let has_encoder = method.has(modality) && method.has_encoders();
        assert_eq!(config.get(format!("{modality}_encoder")).is_some(), has_encoder, "{name} {modality}");
    }
    assert_eq!(config.get("fusion").is_some(), name == "clasp", "{name}");
    for option in method.options.iter().filter_map(|option| option.strip_prefix(&format!("model.{name}."))) {
        let (option, value) = option.split_once('=').unwrap();
        assert_eq!(config[name][option].to_string(), value, "{name}");
    }
    assert_eq!(at.join("run/best/tokenizer.json").is_file(), method.has("text"), "{name}");
    let has_speech_encoder = method.has("speech") && method.has_encoders();
    assert_eq!(at.join("run/best/preprocessor_config.json").is_file(), has_speech_encoder, "{name}");
}

/// `predict` and `encode` say the same, and have the classifiers and vectors of the method.
#[track_caller]
fn predicts(method: &Method, at: &Path, manifest: &str) {
    let name = method.name;
    let encode = ["encode", "--checkpoint", "run", "--output", "out.safetensors", "--manifest", manifest];
    clasp(at, &encode).good();
    let vectors = tensors(&at.join("out.safetensors"));
    let alone: &[&str] = if method.has_alone { &["logits_text", "logits_speech"] } else { &[] };
    let mut expected: Vec<&str> = [method.vectors, alone, &[method.main]].concat();
    expected.sort_unstable();
    assert_eq!(vectors.keys().collect::<Vec<_>>(), expected, "{name}");
    assert!(vectors.values().all(|(_, values)| values.iter().all(|value| value.is_finite())), "{name}");

    let rows = clasp(at, &["predict", "--checkpoint", "run", "--manifest", manifest]).good().rows();
    let (shape, logits) = &vectors[method.main];
    assert_eq!((rows.len(), shape[0]), (8, 8), "{name}");
    let labels = json_of(&at.join("run/best/config.json"))["labels"].clone();
    for (row, logits) in rows.iter().zip(logits.chunks(4)) {
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        for (label, logit) in labels.as_array().unwrap().iter().zip(logits) {
            let probability = row["probabilities"][label.as_str().unwrap()].as_f64().unwrap();
            assert!((probability - f64::from(logit.exp() / sum)).abs() < 1e-4, "{name}: {row}");
        }
        for classifier in ["text_only", "speech_only"] {
            assert_eq!(row[classifier].is_object(), method.has_alone, "{name}: {row}");
        }
    }
    let report = clasp(at, &["eval", "--checkpoint", "run", "--manifest", manifest, "--json"]).good();
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["text_only"].is_object(), method.has_alone, "{name}");
    assert!(report["fusion"]["weighted_f1"]["value"].is_f64(), "{name}: {report}");
    let told = clasp(at, &["eval", "--checkpoint", "run", "--manifest", manifest]).good();
    assert!(!told.stderr.contains("lack a modality"), "{}", told.stderr);
    assert!(told.stdout.contains(if method.has_alone { "fusion" } else { "prediction" }), "{}", told.stdout);
}

#[test]
fn every_method_trains_scores_predicts_and_encodes() {
    for method in METHODS {
        let folder = folder();
        method.train(folder.path(), &[]);
        is_whole(method, folder.path());
        predicts(method, folder.path(), &dev());
    }
}

/// The CPU emulates the number format; what is asked of it is tested on the layers.
#[test]
fn every_method_trains_in_bf16() {
    for method in METHODS {
        let folder = folder();
        method.train(folder.path(), &["--set", "run.precision=bf16"]);
        is_whole(method, folder.path());
    }
}

#[test]
fn every_method_is_tested() {
    let tested: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    assert_eq!(tested, clasp::config::Method::WORDS);
}

#[test]
fn every_method_goes_on_after_a_stop_as_if_nothing_had_been() {
    for method in METHODS {
        let (stop, whole) = (folder(), folder());
        let flags = method.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--set", "train.epochs=3"]).collect();
        let long: Vec<&str> = LONG.into_iter().filter(|word| !word.contains("epochs")).collect();
        // `--set` of the epochs that were taken out.
        let place = long.iter().position(|word| *word == "--set").unwrap();
        let long: Vec<&str> = [&long[..place], &long[place + 1..], &flags[..]].concat();
        clasp(whole.path(), &long).good();
        stopped(stop.path(), &flags, 4, "INT").bad_line(130, &["interrupted at step"]);
        clasp(stop.path(), &[&long[..], &["--resume"]].concat()).good();
        assert_same(&stop.path().join("run"), &whole.path().join("run"));
    }
}

/// Rows without the key of a modality; audio is named by its whole path.
fn without(key: &str, split: &str, to: &Path) {
    let mut rows = Vec::new();
    for mut row in lines_of(&tiny_run().join(format!("corpus/{split}.jsonl"))) {
        let audio = tiny_run().join("corpus").join(row["audio"].as_str().unwrap());
        row["audio"] = json!(audio);
        row.as_object_mut().unwrap().remove(key);
        row.as_object_mut().unwrap().remove("duration");
        rows.push(format!("{row}\n"));
    }
    fs::write(to.join(format!("{split}.jsonl")), rows.concat()).unwrap();
}

#[test]
fn a_method_needs_nothing_of_the_modality_that_it_does_not_read() {
    let (text_encoder, speech_encoder) = ENCODERS.split_at(ENCODERS.find("[speech.config]").unwrap());
    for (method, encoder, left_out) in [(&METHODS[0], text_encoder, "audio"), (&METHODS[1], speech_encoder, "text")] {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for split in ["train", "dev"] {
            without(left_out, split, at);
        }
        let rest = if left_out == "text" {
            REST.replace("[text]\ntokenizer = \"train\"\nvocab_size = 300\n", "")
        } else {
            REST.replace("[speech]\nfreeze_feature_encoder = false\n", "")
        };
        let config = format!("[data]\ntrain = \"train.jsonl\"\ndev = \"dev.jsonl\"\n{encoder}{rest}");
        fs::write(
            at.join("tiny.toml"),
            config.replace("[model.fusion]", &format!("[model]\nmethod = \"{}\"\n[model.fusion]", method.name)),
        )
        .unwrap();
        let doctor = clasp(at, &["doctor", "--config", "tiny.toml", "--json"]).good().stdout;
        assert!(doctor.contains(&format!("not needed: {} does not read it", method.name)), "{doctor}");
        method.train(at, &[]);
        is_whole(method, at);
        predicts(method, at, "dev.jsonl");
        // A row that has only the other is told what it lacks; the others go on.
        let (good, bad, lacks) = if left_out == "audio" {
            (json!({"id": "good", "text": "turn"}), json!({"id": "bad", "audio": audio("test-0001")}), "text")
        } else {
            (json!({"id": "good", "audio": audio("test-0001")}), json!({"id": "bad", "text": "turn"}), "audio")
        };
        fs::write(at.join("mixed.jsonl"), format!("{bad}\n{good}\n")).unwrap();
        let said = clasp(at, &["predict", "--checkpoint", "run", "--manifest", "mixed.jsonl"]);
        assert_eq!(said.code, Some(3), "{}", said.stderr);
        let rows = said.rows();
        let error = format!("the row has no `{lacks}`, which {} reads", method.name);
        assert_eq!((&rows[0]["error"], &rows[1]["id"]), (&json!(error), &json!("good")));
    }
}

#[test]
fn a_row_without_one_modality_has_the_other_ones_classifier_or_an_error() {
    for method in METHODS.iter().filter(|method| method.has("text") && method.has("speech")) {
        let folder = folder();
        let at = folder.path();
        method.train(at, &[]);
        let rows =
            [json!({"id": "read", "text": "turn on the lamp"}), json!({"id": "heard", "audio": audio("test-0001")})];
        fs::write(at.join("half.jsonl"), rows.map(|row| format!("{row}\n")).concat()).unwrap();
        let said = clasp(at, &["predict", "--checkpoint", "run", "--manifest", "half.jsonl"]);
        assert_eq!(said.code, Some(if method.has_alone { 0 } else { 3 }), "{}: {}", method.name, said.stderr);
        for (row, (alone, lacks)) in said.rows().iter().zip([("text_only", "audio"), ("speech_only", "text")]) {
            if method.has_alone {
                assert_eq!(
                    (&row["label"], &row["probabilities"]),
                    (&row[alone]["label"], &row[alone]["probabilities"])
                );
            } else {
                let error = format!("the row has no `{lacks}`, and {} has no classifier", method.name);
                assert!(row["error"].as_str().unwrap().starts_with(&error), "{row}");
            }
        }
    }
}

/// Without dropout and in one batch, the text half of late fusion is the text method: the other half leaves no trace.
#[test]
fn late_fusion_is_the_mean_of_two_systems_trained_apart() {
    let plain = ["model.dropout=0", "speech.config.mask_time_prob=0", "speech.config.layerdrop=0"];
    let whole = ["train.batch_size=24", "train.epochs=4"];
    let flags: Vec<&str> = plain.iter().chain(&whole).flat_map(|&flag| ["--set", flag]).collect();
    let (both, alone) = (folder(), folder());
    METHODS[2].train(both.path(), &flags);
    METHODS[0].train(alone.path(), &flags);
    // The seed draws the text classifier first, so that it is the one that starts alike.
    let weights = |at: &Path| tensors(&at.join("run/last/model.safetensors"))["classifier.text.weight"].1.clone();
    for (found, expected) in weights(both.path()).iter().zip(&weights(alone.path())) {
        assert!((found - expected).abs() < 1e-4, "{found} should be {expected}");
    }
    let rows = clasp(both.path(), &["predict", "--checkpoint", "run", "--manifest", &dev()]).good().rows();
    for row in rows {
        for (label, mean) in row["probabilities"].as_object().unwrap() {
            let of = |classifier: &str| row[classifier]["probabilities"][label].as_f64().unwrap();
            let expected = f64::midpoint(of("text_only"), of("speech_only"));
            assert!((mean.as_f64().unwrap() - expected).abs() < 1e-6, "{row}");
        }
    }
}

/// MISA's moments are those of the whole batch also where two devices share it.
#[test]
fn methods_train_on_several_devices_as_on_one() {
    let plain = ["model.dropout=0", "speech.config.mask_time_prob=0", "speech.config.layerdrop=0", "train.epochs=1"];
    let plain: Vec<&str> = plain.iter().flat_map(|&flag| ["--set", flag]).collect();
    for method in [&METHODS[0], &METHODS[5]] {
        let (one, two) = (folder(), folder());
        method.train(one.path(), &plain);
        method.train(two.path(), &[&plain[..], &["--device", "cpu,cpu"]].concat());
        let log = |at: &Path| lines_of(&at.join("run/log.jsonl"));
        for (found, expected) in log(two.path()).iter().zip(&log(one.path())[..3]) {
            for (term, value) in expected["loss"].as_object().unwrap() {
                let (found, expected) = (found["loss"][term].as_f64().unwrap(), value.as_f64().unwrap());
                assert!((found - expected).abs() < 2e-3 * expected.abs().max(0.1), "{term}: {found} or {expected}");
            }
        }
    }
}

#[test]
fn a_run_starts_from_a_checkpoint_of_its_own_method() {
    let folder = folder();
    let at = folder.path();
    METHODS[5].train(at, &[]);
    let corpus = tiny_run().join("corpus").display().to_string();
    let again = format!(
        "[data]\ntrain = \"{corpus}/train.jsonl\"\n[model]\nmethod = \"misa\"\n[model.misa]\nsimilarity = 0.5\n[train]\n\
         init = \"run/best\"\nepochs = 1\nlearning_rate = 1e-9\n[run]\ndir = \"again\"\ndevice = \"cpu\"\n"
    );
    fs::write(at.join("again.toml"), again).unwrap();
    clasp(at, &["train", "--config", "again.toml"]).good();
    let config = json_of(&at.join("again/best/config.json"));
    assert_eq!((&config["misa"]["size"], &config["misa"]["similarity"]), (&json!(8), &json!(0.5)));
    let weight = |run: &str| tensors(&at.join(run).join("best/model.safetensors"))["misa.invariant.weight"].1.clone();
    assert!(weight("again").iter().zip(weight("run")).all(|(new, old)| (new - old).abs() < 1e-6));
    let train = ["train", "--config", "again.toml", "--set", "run.dir=third", "--set"];
    clasp(at, &[&train[..], &["model.method=lmf"]].concat())
        .bad_line(2, &["`model.method` is lmf, but the checkpoint of train.init has misa: set it to misa"]);
    clasp(at, &[&train[..], &["model.misa.size=16"]].concat())
        .bad_line(2, &["`model.misa.size` is 16, but the checkpoint of train.init has 8: remove the key"]);
}

#[test]
fn a_damaged_config_of_a_method_is_told() {
    let folder = folder();
    let at = folder.path();
    METHODS[5].train(at, &[]);
    let path = at.join("run/best/config.json");
    let good = json_of(&path);
    let predict = ["predict", "--checkpoint", "run", "--text", "x"];
    for (key, value, parts) in [
        ("method", json!("gmf"), &["method \"gmf\" is not in this version, which has text, speech"][..]),
        ("misa", json!({}), &["misa: missing field `size`"]),
        ("text_encoder", Value::Null, &["text encoder"]),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        fs::write(&path, bad.to_string()).unwrap();
        clasp(at, &predict).bad_line(2, parts);
    }
    let mut bad = good.clone();
    bad["misa"]["attention_heads"] = json!(3);
    fs::write(&path, bad.to_string()).unwrap();
    clasp(at, &predict).bad_line(2, &["misa.attention_heads is 3, which does not divide model.misa.size, 8"]);
}

#[test]
fn the_demo_runs_with_any_method() {
    let folder = tempfile::tempdir().unwrap();
    for method in ["misa", "lfmim", "lmf"] {
        let method = format!("model.method={method}");
        let words = ["train", "--config", "demo", "--overwrite", "--set", &method];
        let small = ["data.demo.utterances=48", "train.epochs=1", "run.device=cpu"];
        let small: Vec<&str> = small.iter().flat_map(|&flag| ["--set", flag]).collect();
        clasp(folder.path(), &[&words[..], &small].concat()).good();
    }
}
