//! A trained model at work through the real binary: `predict`, `eval`, `encode`, and the small commands.

use std::{
    fs,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::program::{Said, audio, checkpoint, clasp, clasp_with_input, folder, keys, lines_of, program, tiny_run};
use crate::test_data::test_data;

const LABELS: [&str; 4] = ["start_calm", "start_urgent", "stop_calm", "stop_urgent"];

/// The fields that every result has.
const FIELDS: [&str; 6] = ["id", "label", "probabilities", "text_only", "speech_only", "provenance"];

/// The probabilities of a classifier, which sum to one and whose largest is that of its label.
#[track_caller]
fn probabilities(classifier: &Value) -> Vec<f64> {
    assert_eq!(keys(&classifier["probabilities"]), LABELS);
    let values: Vec<f64> = LABELS.iter().map(|label| classifier["probabilities"][label].as_f64().unwrap()).collect();
    assert!((values.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{classifier}");
    let own = classifier["probabilities"][classifier["label"].as_str().unwrap()].as_f64().unwrap();
    assert!(values.iter().all(|&value| value <= own), "{classifier}");
    values
}

/// The one result of `predict --json`.
#[track_caller]
fn one(words: &[&str]) -> Value {
    let said = clasp(tiny_run(), &[&["predict", "--checkpoint", ".", "--json"], words].concat()).good();
    let mut rows = said.rows();
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

fn dev() -> String {
    tiny_run().join("corpus/dev.jsonl").display().to_string()
}

#[test]
fn an_utterance_with_both_modalities_or_one() {
    let file = audio("test-0001");
    let both = one(&["--audio", &file, "--text", "turn on the lamp"]);
    assert_eq!(keys(&both)[..6], FIELDS);
    assert_eq!(both["id"], "test-0001");
    assert_eq!(both["provenance"], json!({ "text": "given", "speech": "given" }));
    for classifier in [&both, &both["text_only"], &both["speech_only"]] {
        probabilities(classifier);
    }

    let heard = one(&["--audio", &file]);
    assert_eq!(keys(&heard), FIELDS);
    assert_eq!(heard["provenance"], json!({ "text": "absent", "speech": "given" }));
    assert!(heard["text_only"].is_null());
    assert_eq!(
        (&heard["label"], &heard["probabilities"]),
        (&heard["speech_only"]["label"], &heard["speech_only"]["probabilities"])
    );
    assert_eq!(heard["speech_only"], both["speech_only"]);

    let read = one(&["--text", "turn on the lamp"]);
    assert_eq!(keys(&read)[..6], FIELDS);
    assert_eq!(read["provenance"], json!({ "text": "given", "speech": "absent" }));
    assert!(read["speech_only"].is_null());
    assert_eq!(
        (&read["label"], &read["probabilities"]),
        (&read["text_only"]["label"], &read["text_only"]["probabilities"])
    );
    assert_eq!(read["text_only"], both["text_only"]);

    // What is not read on a terminal is JSON also without the flag.
    let piped = clasp(tiny_run(), &["predict", "--checkpoint", "best", "--audio", &file]).good();
    assert_eq!(piped.rows()[0], heard);
    for words in [&[][..], &["--manifest", "x", "--text", "y"], &["--text", "x", "--batch-size", "0"]] {
        clasp(tiny_run(), &[&["predict", "--checkpoint", "."], words].concat()).bad(2, &[]);
    }
}

/// Six rows; the second, fourth and fifth are bad.
fn mixed_rows() -> String {
    let rows = [
        json!({ "id": "first", "audio": audio("test-0001"), "text": "stop it", "speaker": "ann", "turn": 3 })
            .to_string(),
        json!({ "id": "lost", "audio": "none.wav", "text": "x" }).to_string(),
        json!({ "id": "heard", "audio": audio("test-0002"), "start": 0.1, "end": 0.5 }).to_string(),
        "{\"id\": \"broken\", \"text\":".to_owned(),
        json!({ "id": "nothing" }).to_string(),
        json!({ "id": "read", "text": "go on", "label": "a label that nobody knows" }).to_string(),
    ];
    rows.map(|row| row + "\n").concat()
}

#[test]
fn a_bad_row_stops_no_other() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("rows.jsonl"), mixed_rows()).unwrap();
    let predict = ["predict", "--checkpoint", checkpoint(), "--manifest"];
    let said = clasp(at, &[&predict[..], &["rows.jsonl"]].concat());
    assert_eq!(said.code, Some(3));
    assert!(said.stderr.contains("note: 3 of 6 utterances could not be read: each has its `error`"), "{}", said.stderr);
    let rows = said.rows();
    let ids: Vec<&str> = rows.iter().map(|row| row["id"].as_str().unwrap_or("?")).collect();
    assert_eq!(ids, ["first", "lost", "heard", "?", "nothing", "read"]);
    for (place, part) in [(1, "none.wav: no such file"), (3, "line 4: "), (4, "neither `audio` nor `text`")] {
        assert_eq!(keys(&rows[place]), ["id", "error"]);
        assert!(rows[place]["error"].as_str().unwrap().contains(part), "{}", rows[place]);
    }
    for place in [0, 2, 5] {
        probabilities(&rows[place]);
    }
    // Further keys of the manifest are carried through.
    assert_eq!((&rows[0]["speaker"], &rows[0]["turn"]), (&json!("ann"), &json!(3)));
    assert_eq!(rows[2]["provenance"]["text"], "absent");
    assert_eq!(rows[5]["provenance"]["speech"], "absent");

    let streamed = clasp_with_input(at, &[&predict[..], &["-"]].concat(), mixed_rows().as_bytes());
    assert_eq!((streamed.code, &streamed.stdout), (Some(3), &said.stdout));
    let written = clasp(at, &[&predict[..], &["rows.jsonl", "--output", "out.jsonl"]].concat());
    assert_eq!((written.code, written.stdout.as_str()), (Some(3), ""));
    assert_eq!(fs::read_to_string(at.join("out.jsonl")).unwrap(), said.stdout);
    clasp_with_input(at, &[&predict[..], &["-"]].concat(), b"").bad_line(3, &["standard input", "empty"]);
}

#[test]
fn the_batch_size_changes_no_result() {
    let test = tiny_run().join("corpus/test.jsonl").display().to_string();
    let rows = |size: &str| {
        let words = ["predict", "--checkpoint", ".", "--manifest", &test, "--batch-size", size];
        clasp(tiny_run(), &words).good().rows()
    };
    let alone = rows("1");
    assert_eq!(alone.len(), 16);
    for size in ["3", "16"] {
        for (row, other) in alone.iter().zip(rows(size)) {
            assert_eq!(row["id"], other["id"]);
            for (row, other) in
                [(row, &other), (&row["text_only"], &other["text_only"]), (&row["speech_only"], &other["speech_only"])]
            {
                let pairs = probabilities(row).into_iter().zip(probabilities(other));
                assert!(pairs.into_iter().all(|(value, other)| (value - other).abs() < 1e-5), "{row} {other}");
            }
        }
    }
    // The same as what the run itself wrote at its end.
    for (row, other) in alone.iter().zip(lines_of(&tiny_run().join("predictions-test.jsonl"))) {
        let pairs = probabilities(row).into_iter().zip(probabilities(&other));
        assert!(pairs.into_iter().all(|(value, other)| (value - other).abs() < 1e-5), "{row} {other}");
    }
}

#[test]
fn scores_of_a_manifest_and_of_a_split() {
    let folder = folder();
    let at = folder.path();
    let report = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let best = tiny_run().join("best").display().to_string();
    let eval = ["eval", "--json", "--checkpoint"];
    let said = clasp(at, &[&eval[..], &[&best, "--manifest", &dev(), "--output", "scores"]].concat()).good();
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found, report(&at.join("scores/report-dev.json")));
    // By hand, from the rows.
    let rows = lines_of(&at.join("scores/predictions-dev.jsonl"));
    assert_eq!((rows.len(), found["examples"].as_u64()), (8, Some(8)));
    for (name, key) in [("fusion", ""), ("text_only", "/text_only"), ("speech_only", "/speech_only")] {
        let label = |row: &Value| row.pointer(&format!("{key}/label")).cloned();
        let right = rows.iter().filter(|row| label(row).as_ref() == Some(&row["truth"])).count();
        let expected = f64::from(u32::try_from(right).unwrap()) / 8.0;
        assert_eq!(found[name]["accuracy"]["value"].as_f64(), Some(expected), "{name}");
    }
    // A checkpoint folder holds no results: without --output nothing is written.
    let before = fs::read_dir(&best).unwrap().count();
    clasp(at, &["eval", "--checkpoint", &best, "--manifest", &dev()]).good();
    assert_eq!(fs::read_dir(&best).unwrap().count(), before);

    let words = ["--split", "dev", "--by", "speaker", "--by", "label", "--by", "words", "--by", "provenance.text"];
    let said = clasp(at, &[&eval[..], &[checkpoint()], &words].concat()).good();
    let split: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(split["fusion"], found["fusion"]);
    assert_eq!(split, report(&tiny_run().join("report-dev.json")));
    assert_eq!(lines_of(&tiny_run().join("predictions-dev.jsonl")), rows);
    for (breakdown, key) in split["by"].as_array().unwrap().iter().zip(["speaker", "label", "words", "provenance.text"])
    {
        assert_eq!(breakdown["key"], key);
        let groups = breakdown["groups"].as_array().unwrap();
        assert_eq!(groups.iter().map(|group| group["examples"].as_u64().unwrap()).sum::<u64>(), 8, "{breakdown}");
    }
    assert_eq!(split["by"][1]["groups"].as_array().unwrap().len(), 4);
    let table = clasp(at, &["eval", "--checkpoint", checkpoint(), "--split", "dev", "--by", "speaker"]).good();
    for part in ["dev: 8 examples", "text only", "fusion", "weighted F1", "speaker-"] {
        assert!(table.stdout.contains(part), "no {part}: {}", table.stdout);
    }
    let unknown = ["eval", "--checkpoint", checkpoint(), "--split", "dev", "--by", "none", "--output", "other"];
    clasp(at, &unknown).bad_line(3, &["`none`", "there are: speaker, label, words"]);
    clasp(at, &["eval", "--checkpoint", checkpoint()]).bad(2, &["--split"]);
}

#[test]
fn the_scores_of_another_manifest_are_not_the_runs() {
    let folder = folder();
    let rows = fs::read_to_string(tiny_run().join("corpus/dev.jsonl")).unwrap();
    let audio = format!("\"audio\":\"{}/corpus/", tiny_run().display());
    fs::write(folder.path().join("test.jsonl"), rows.replace("\"audio\":\"", &audio)).unwrap();
    let of_the_run = || fs::read(tiny_run().join("report-test.json")).unwrap();
    let before = of_the_run();
    clasp(folder.path(), &["eval", "--checkpoint", checkpoint(), "--manifest", "test.jsonl"]).good();
    assert!(of_the_run() == before, "the run's report was replaced");
}

#[test]
fn each_use_of_the_test_split_is_counted() {
    let uses = || {
        let text = fs::read_to_string(tiny_run().join("manifest.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["test_uses"].as_array().unwrap().clone()
    };
    // Once at the end of the training.
    assert_eq!(uses().len(), 1);
    let folder = folder();
    clasp(folder.path(), &["eval", "--checkpoint", checkpoint(), "--split", "test", "--output", "scores"]).good();
    let found = uses();
    assert_eq!(found.len(), 2);
    let command: Vec<&str> =
        found[1]["command"].as_array().unwrap()[1..].iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(command[..4], ["eval", "--checkpoint", checkpoint(), "--split"]);
    assert!(found[1]["at"].is_string());
}

/// The vectors in front of the only layer and behind it; the last are those of the model.
#[test]
fn the_vectors_of_every_layer() {
    let folder = folder();
    let at = folder.path();
    let encode = ["encode", "--layers", "--json", "--checkpoint", checkpoint(), "--output", "out.safetensors"];
    let said = clasp(at, &[&encode[..], &["--manifest", &dev(), "--batch-size", "3"]].concat()).good();
    let printed: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(printed["tensors"]["speech_layers"], json!([8, 2, 16]));
    let bytes = fs::read(at.join("out.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 14);
    for (name, layers) in [("text", "text_layers"), ("speech", "speech_layers")] {
        let (own, all) = (file.tensor(name).unwrap(), file.tensor(layers).unwrap());
        assert_eq!(all.shape(), [8, 2, 16]);
        for (own, all) in own.data().chunks(16 * 4).zip(all.data().chunks(2 * 16 * 4)) {
            assert_eq!(own, &all[16 * 4..], "{name}");
            assert_ne!(own, &all[..16 * 4], "{name}");
        }
    }
}

#[test]
fn the_twelve_tensors_of_a_manifest() {
    let folder = folder();
    let at = folder.path();
    let encode = ["encode", "--checkpoint", checkpoint(), "--output", "out.safetensors", "--manifest"];
    clasp(at, &[&encode[..], &[&dev(), "--batch-size", "3"]].concat()).good();
    let bytes = fs::read(at.join("out.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let ids: Vec<String> = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["ids"]).unwrap();
    let rows = lines_of(Path::new(&dev()));
    assert_eq!(ids, rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>());
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // Hidden size 16; six vectors of it in two pieces each, through a fusion of width 16; four labels.
    let widths = [
        ("text", 16),
        ("speech", 16),
        ("text_invariant", 16),
        ("speech_invariant", 16),
        ("text_specific", 16),
        ("speech_specific", 16),
        ("text_reconstructed", 16),
        ("speech_reconstructed", 16),
        ("fused", 6 * 2 * 16),
        ("logits_text", 4),
        ("logits_speech", 4),
        ("logits_fusion", 4),
    ];
    assert_eq!(file.len(), 12);
    for (name, width) in widths {
        assert_eq!(file.tensor(name).unwrap().shape(), [8, width], "{name}");
    }
    // Each row's logits are those of its own prediction.
    let predictions = clasp(at, &["predict", "--checkpoint", checkpoint(), "--manifest", &dev()]).good().rows();
    for (name, key) in [("logits_fusion", ""), ("logits_text", "/text_only"), ("logits_speech", "/speech_only")] {
        let data = file.tensor(name).unwrap().data();
        let logits: Vec<f64> =
            data.chunks(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))).collect();
        for (logits, prediction) in logits.chunks(4).zip(&predictions) {
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            let classifier = if key.is_empty() { prediction } else { prediction.pointer(key).unwrap() };
            for (logit, expected) in logits.iter().zip(probabilities(classifier)) {
                assert!((logit.exp() / sum - expected).abs() < 1e-5, "{name} {prediction}");
            }
        }
    }
    // A row that is bad only in its sound, known when its turn comes.
    let mut bad = fs::read_to_string(dev()).unwrap();
    fs::write(at.join("words.wav"), "no sound").unwrap();
    bad.push_str(&json!({ "id": "bad", "audio": at.join("words.wav"), "text": "x" }).to_string());
    fs::write(
        at.join("bad.jsonl"),
        bad.replace("\"audio\":\"audio/", &format!("\"audio\":\"{}/corpus/audio/", checkpoint())),
    )
    .unwrap();
    fs::remove_file(at.join("out.safetensors")).unwrap();
    clasp(at, &[&encode[..], &["bad.jsonl"]].concat())
        .bad_line(3, &["bad.jsonl", "utterance `bad` (line 9)", "not an audio file"]);
    let left: Vec<String> =
        fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with("out") || name.starts_with('.')), "{left:?}");
}

#[test]
fn a_missing_modality_is_supplied() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("asr.sh"), "echo once >>\"$(dirname \"$0\")/asr.log\"\ntest -s \"$1\" && echo stop the music\n")
        .unwrap();
    fs::write(at.join("tts.sh"), format!("echo once >>\"$(dirname \"$0\")/tts.log\"\ncat '{}'\n", audio("test-0003")))
        .unwrap();
    let asr = format!("sh '{}'", at.join("asr.sh").display());
    let tts = format!("sh '{}'", at.join("tts.sh").display());
    let rows = [
        json!({ "id": "heard", "audio": audio("test-0001"), "label": "stop_calm" }),
        json!({ "id": "read", "text": "turn it on", "label": "start_calm" }),
        json!({ "id": "both", "audio": audio("test-0001"), "text": "stop the music", "label": "stop_calm" }),
    ];
    fs::write(at.join("rows.jsonl"), rows.map(|row| format!("{row}\n")).concat()).unwrap();
    let run =
        |words: &[&str]| Said::of(&program(at).env("CLASP_CACHE", at.join("cache")).args(words).output().unwrap());
    let predict = ["predict", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl", "--asr", &asr, "--tts", &tts];
    for _ in 0..2 {
        let rows = run(&predict).good().rows();
        let provenance: Vec<[&str; 2]> = rows
            .iter()
            .map(|row| ["text", "speech"].map(|modality| row["provenance"][modality].as_str().unwrap()))
            .collect();
        assert_eq!(provenance, [["asr", "given"], ["given", "tts"], ["given", "given"]]);
        // The same words and the same sound.
        for (value, other) in probabilities(&rows[0]).into_iter().zip(probabilities(&rows[2])) {
            assert!((value - other).abs() < 1e-5);
        }
    }
    // The second time they come out of the cache.
    for name in ["asr.log", "tts.log"] {
        assert_eq!(fs::read_to_string(at.join(name)).unwrap(), "once\n");
    }
    let eval = [
        "eval",
        "--json",
        "--checkpoint",
        checkpoint(),
        "--manifest",
        "rows.jsonl",
        "--output",
        "scores",
        "--asr",
        &asr,
    ];
    let report: Value = serde_json::from_str(&run(&eval).good().stdout).unwrap();
    assert_eq!(report["provenance"]["text"], json!({ "given": 2, "asr": 1 }));
    let failing = [
        "predict",
        "--checkpoint",
        checkpoint(),
        "--audio",
        &audio("test-0002"),
        "--asr",
        "echo oh dear >&2; exit 7;:",
    ];
    run(&failing).bad(3, &["the --asr command", "exit code 7", "it said: oh dear"]);
    run(&["predict", "--checkpoint", checkpoint(), "--text", "x", "--tts", " "]).bad_line(2, &["--tts"]);
}

#[test]
fn every_real_audio_format_is_read() {
    let Some(recordings) = test_data("audio-formats") else { return };
    let mut files: Vec<_> = fs::read_dir(recordings).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8);
    let row = |path: &PathBuf| json!({ "id": path.file_name().unwrap().to_str(), "audio": path }).to_string() + "\n";
    let rows: String = files.iter().map(row).collect();
    let folder = folder();
    let said =
        clasp_with_input(folder.path(), &["predict", "--checkpoint", checkpoint(), "--manifest", "-"], rows.as_bytes());
    let results = said.good().rows();
    assert_eq!(results.len(), files.len());
    for row in &results {
        assert_eq!(probabilities(row).len(), 4);
    }
    // One utterance in three formats, none of which has the others' samples.
    let of = |name: &str| probabilities(results.iter().find(|row| row["id"] == name).unwrap());
    for name in ["1272-141231-0002.wav", "1272-141231-0002.mp3"] {
        let pairs = of("1272-141231-0002.flac").into_iter().zip(of(name));
        let most = pairs.map(|(value, other)| (value - other).abs()).fold(0.0, f64::max);
        assert!(most < 0.02, "{name}: {most}");
    }
}

#[test]
fn doctor_tells_what_is_wrong() {
    let folder = folder();
    let at = folder.path();
    let said = clasp(at, &["doctor", "--device", "cpu"]).good();
    for part in ["program", "clasp", "cpu", "memory", "cuda", "device"] {
        assert!(said.stdout.contains(part), "no {part}: {}", said.stdout);
    }
    let report = |words: &[&str]| -> (Option<i32>, Value) {
        let said = clasp(at, &[&["doctor", "--json"], words].concat());
        (said.code, serde_json::from_str(&said.stdout).unwrap())
    };
    let check = |report: &Value, name: &str| -> Value {
        report["checks"].as_array().unwrap().iter().find(|check| check["check"] == name).unwrap().clone()
    };
    let (code, found) = report(&["--config", "tiny.toml"]);
    assert_eq!((code, &found["ok"]), (Some(0), &json!(true)), "{found}");
    assert!(check(&found, "data.train")["text"].as_str().unwrap().ends_with("24 utterances"));
    // A manifest, an encoder and a tokenizer that are not there, all told at once; the data's exit code is the larger.
    let (code, found) = report(&["--config", "iemocap4.toml"]);
    assert_eq!((code, &found["ok"]), (Some(3), &json!(false)));
    for name in ["text encoder", "speech encoder", "tokenizer", "data.train", "data.dev"] {
        assert_eq!(check(&found, name)["ok"], false, "{name}");
    }
    let (code, found) = report(&["--config", "none.toml"]);
    assert_eq!((code, &check(&found, "config")["ok"]), (Some(2), &json!(false)));
}

#[test]
fn the_benchmark_prints_two_lines() {
    let folder = folder();
    let words = [
        "bench",
        "--size",
        "tiny",
        "--device",
        "cpu",
        "--batch-size",
        "2",
        "--seconds",
        "0.5",
        "--steps",
        "3",
        "--warmup",
        "1",
    ];
    let rows = clasp(folder.path(), &words).good().rows();
    assert_eq!(rows.len(), 2);
    for (row, job) in rows.iter().zip(["train", "predict"]) {
        // The fields of the reference's benchmark.
        assert_eq!(
            keys(row),
            [
                "implementation",
                "job",
                "device",
                "precision",
                "compile",
                "batch",
                "batches",
                "seconds_of_audio",
                "tokens",
                "median_s",
                "min_s",
                "steps",
                "peak_gib"
            ]
        );
        assert_eq!((&row["implementation"], &row["job"]), (&json!("clasp"), &json!(job)));
        assert_eq!((&row["device"], &row["precision"], &row["batch"]), (&json!("cpu"), &json!("f32"), &json!(2)));
        let (least, median) = (row["min_s"].as_f64().unwrap(), row["median_s"].as_f64().unwrap());
        assert!(least > 0.0 && least <= median, "{row}");
    }
    let rows = clasp(folder.path(), &[&words[..], &["--precision", "bf16"]].concat()).good().rows();
    assert!(rows.len() == 2 && rows.iter().all(|row| row["precision"] == "bf16"), "{rows:?}");
    fs::write(folder.path().join("lengths.json"), "[[5, 8000], [9, 4000], [7, 6000]]").unwrap();
    let words = [
        "bench",
        "--size",
        "tiny-large",
        "--only",
        "predict",
        "--lengths",
        "lengths.json",
        "--batch-size",
        "2",
        "--steps",
        "1",
    ];
    let rows = clasp(folder.path(), &words).good().rows();
    assert_eq!((rows.len(), &rows[0]["batches"]), (1, &json!(2)));
    fs::write(folder.path().join("lengths.json"), "[]").unwrap();
    clasp(folder.path(), &words).bad_line(2, &["--lengths", "lengths.json", "the list is empty"]);
}

#[test]
fn completions_of_three_shells() {
    let folder = folder();
    for (shell, part) in [("bash", "complete -F _clasp"), ("zsh", "#compdef clasp"), ("fish", "complete -c clasp")] {
        let said = clasp(folder.path(), &["completions", shell]).good();
        assert!(said.stdout.contains(part) && said.stderr.is_empty(), "{shell}");
    }
    clasp(folder.path(), &["completions", "ksh"]).bad(2, &["bash"]);
}
