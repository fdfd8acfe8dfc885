use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::read::{Line, speakers, stem};
use super::*;
use crate::prepare::folder;
use crate::prepare::reading::testing::{declared, ids, never_panics, put, put_wav, silent};
use crate::test_data::test_data;

fn line(id: i64, text: &str, scenario: &Value, action: &Value, intent: &str, files: &[&str]) -> String {
    let recordings: Vec<Value> =
        files.iter().map(|file| json!({"file": file, "wer": 0.25, "ent_wer": 0.0, "status": "correct"})).collect();
    let sentence = json!({
        "slurp_id": id, "sentence": text, "sentence_annotation": text, "intent": intent, "action": action,
        "tokens": [{"surface": "x", "id": 0, "lemma": "x", "pos": "NN"}], "scenario": scenario,
        "recordings": recordings, "entities": [{"span": [0], "type": "date"}],
    });
    sentence.to_string() + "\n"
}

/// Train: three recordings of one sentence, one of a sentence without an action, one of a label that no other has. Dev:
/// two recordings, and a sentence whose intent is only the action. Test: one recording, with a negative number.
fn release(root: &Path) {
    let at = |name: &str| root.join("dataset/slurp").join(name);
    let train = line(
        5,
        "wake me at eight",
        &"alarm".into(),
        &"set".into(),
        "alarm_set",
        &["audio-15-headset.flac", "audio-15.flac", "audio--16.flac"],
    ) + &line(6, "hm", &"general".into(), &Value::Null, "general", &["audio-17.flac"])
        + &line(7, "cook it", &"cooking".into(), &"cook".into(), "cooking_cook", &["audio-18-headset.flac"]);
    put(&at("train.jsonl"), train);
    let devel = line(
        8,
        "what's the date",
        &"datetime".into(),
        &"query".into(),
        "datetime_query",
        &["audio-19-headset.flac", "audio-19.flac"],
    ) + line(9, "louder", &"audio".into(), &"volume_up".into(), "volume_up", &["audio-20.flac"]).trim_end();
    put(&at("devel.jsonl"), devel);
    let test = line(
        10,
        "whats the date",
        &"datetime".into(),
        &"query".into(),
        "datetime_query",
        &["audio--1509-headset.flac"],
    );
    put(&at("test.jsonl"), test.replace('\n', "\r\n"));
    let synthetic = line(5, "wake me at eight", &"alarm".into(), &"set".into(), "alarm_set", &["synth-1.flac"]);
    put(&at("train_synthetic.jsonl"), synthetic);
    put(&at("._train.jsonl"), "\0");
    for file in ["audio-15-headset", "audio-15", "audio--16", "audio-18-headset", "audio-19-headset", "audio-19"] {
        put_wav(&root.join(format!("audio/slurp_real/{file}.flac")));
    }
    put_wav(&root.join("audio/slurp_real/audio-20.flac"));
    put_wav(&root.join("audio/slurp_real/audio--1509-headset.flac"));
    put_wav(&root.join("audio/slurp_synth/synth-1.flac"));
}

fn options(root: &Path) -> SlurpOptions {
    SlurpOptions { root: root.to_path_buf(), audio: None, synthetic: false, microphone: Microphone::Both }
}

fn prepared(options: &SlurpOptions) -> Corpus {
    prepare(options, &AudioOptions::default(), &silent).unwrap()
}

fn parts(corpus: &Corpus) -> Vec<Vec<&str>> {
    corpus.folds[0].parts.iter().map(|(_, rows)| ids(rows)).collect()
}

#[test]
fn each_recording_is_a_row() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    release(root);
    let corpus = prepared(&options(root));
    assert_eq!(
        parts(&corpus),
        [
            vec!["audio--16", "audio-15", "audio-15-headset", "audio-18-headset"],
            vec!["audio-19", "audio-19-headset", "audio-20"],
            vec!["audio--1509-headset"],
        ]
    );
    let row = &corpus.folds[0].parts[1].1[2];
    assert_eq!((row.label.as_deref(), row.text.as_deref()), (Some("audio_volume_up"), Some("louder")));
    assert_eq!((row.group.as_deref(), row.line, &row.audio, &row.speaker), (Some("9"), 2, &None, &None));
    assert_eq!(
        json!(row.extra),
        json!({
            "slurp_id": 9, "scenario": "audio", "action": "volume_up", "intent": "volume_up", "microphone": "far",
            "recording_wer": 0.25, "status": "correct",
        })
    );
    let counted = |sentences: usize, recordings: usize, headset: usize, intents: usize, without: usize| {
        json!({
            "sentences": sentences, "recordings": recordings, "headset": headset,
            "intent_is_not_scenario_action": intents, "without_scenario_or_action": without, "listed_twice": 0,
        })
    };
    assert_eq!(
        json!(corpus.counts),
        json!({
            "train": counted(3, 5, 2, 0, 1), "dev": counted(2, 3, 1, 1, 0), "test": counted(1, 1, 1, 0, 0), "labels": 4,
        })
    );
    let notes = corpus.notes.join("\n");
    for expected in [
        "speakers are not known",
        "text only",
        "without scenario or action, a known defect, are left out: 1",
        "labels beside the 60 of devel and test: `cooking_cook`",
        "train: sentences 3 of the published 11514, recordings 5 of the published 50628",
        "test: sentences 1 of the published 2974, recordings 1 of the published 13078, headset recordings 1 of",
    ] {
        assert!(notes.contains(expected), "{notes}");
    }
    assert_eq!(
        declared(&corpus.folds[0].shared),
        [
            "text train dev",
            "text train test",
            "text dev test",
            "speaker train dev",
            "speaker train test",
            "speaker dev test"
        ]
    );
    assert_eq!(corpus.sources.len(), 3);
    let written = folder::write(&root.join("out"), corpus).unwrap();
    assert_eq!(written.splits[0].labels["alarm_set"], [("train".to_owned(), 3)].into());
    assert_eq!(written.splits[0].options["microphone"], "both");
}

#[test]
fn microphones_and_synthetic_recordings_are_chosen() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    release(root);
    let far = SlurpOptions { microphone: Microphone::Far, ..options(root) };
    let corpus = prepared(&far);
    assert_eq!(parts(&corpus), [vec!["audio--16", "audio-15"], vec!["audio-19", "audio-20"], vec![]]);
    assert_eq!(declared(&corpus.folds[0].shared), ["text train dev", "speaker train dev"]);
    let headset = SlurpOptions {
        microphone: Microphone::Headset,
        synthetic: true,
        audio: Some(root.join("audio")),
        ..options(root)
    };
    let corpus = prepared(&headset);
    assert_eq!(
        parts(&corpus),
        [
            vec!["audio-15-headset", "audio-18-headset", "synth-1"],
            vec!["audio-19-headset"],
            vec!["audio--1509-headset"]
        ]
    );
    let train = &corpus.folds[0].parts[0].1;
    assert_eq!(train[0].audio.as_deref(), Some(&*root.join("audio/slurp_real/audio-15-headset.flac")));
    assert_eq!(train[2].audio.as_deref(), Some(&*root.join("audio/slurp_synth/synth-1.flac")));
    let microphones: Vec<&Value> = train.iter().map(|row| &row.extra["microphone"]).collect();
    assert_eq!(microphones, ["headset", "headset", "synthetic"]);
    assert_eq!(corpus.counts["train_synthetic"]["recordings"], 1);
    assert_eq!(Microphone::ALL.map(Microphone::word), ["both", "headset", "far"]);
}

#[test]
fn audio_is_found_in_either_layout() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    release(root);
    // The folder above works too, and the folder of the files.
    for audio in [root.to_path_buf(), root.join("audio"), root.join("audio/slurp_real")] {
        let corpus = prepared(&SlurpOptions { audio: Some(audio), ..options(root) });
        assert_eq!(corpus.folds[0].parts[2].1[0].audio.as_ref().map(|path| path.is_file()), Some(true));
    }
    let gone = SlurpOptions { audio: Some(root.join("nowhere")), ..options(root) };
    let error = prepare(&gone, &AudioOptions::default(), &silent).unwrap_err().to_string();
    assert!(error.contains("nowhere: no such folder"), "{error}");
    std::fs::remove_file(root.join("audio/slurp_real/audio-20.flac")).unwrap();
    let one = SlurpOptions { audio: Some(root.join("audio")), ..options(root) };
    let error = prepare(&one, &AudioOptions::default(), &silent).unwrap_err().to_string();
    assert!(error.contains("1 of 8 utterances") && error.contains("slurp_real/audio-20.flac"), "{error}");
}

#[test]
fn speakers_come_from_the_metadata() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    release(root);
    let metadata = json!({
        "5": {
            "nlub_id": 1,
            "recordings": {
                "audio-15-headset.flac": {"ansid": 1, "recid": 2, "status": "correct", "usrid": "FO-488"},
                "audio-15.flac": {"usrid": "FO-488"},
                "audio--16.flac": {"usrid": "UNK-323"},
                "audio-18-headset.flac": {"usrid": ""},
                "audio-19.flac": {"usrid": 3},
            },
            "sentence_original": "wake me at eight",
        },
        "6": {"recordings": []},
        "7": null,
    });
    put(&root.join("dataset/slurp/metadata.json"), metadata.to_string());
    let corpus = prepared(&options(root));
    let found: Vec<Option<&str>> = corpus.folds[0].parts[0].1.iter().map(|row| row.speaker.as_deref()).collect();
    assert_eq!(found, [Some("UNK-323"), Some("FO-488"), Some("FO-488"), None]);
    assert_eq!(corpus.counts["speakers"], 2);
    assert!(corpus.notes.iter().any(|note| note.ends_with("does not say: 5 of 8")), "{:?}", corpus.notes);
    put(&root.join("dataset/slurp/metadata.json"), "[1,");
    let error = prepare(&options(root), &AudioOptions::default(), &silent).unwrap_err().to_string();
    assert!(error.contains("metadata.json: not JSON"), "{error}");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    let error = prepare(&options(root), &AudioOptions::default(), &silent).unwrap_err().to_string();
    assert!(error.contains("neither train.jsonl, devel.jsonl nor test.jsonl"), "{error}");
    release(root);
    let path = root.join("dataset/slurp/test.jsonl");
    let lines = [
        "{",
        "[]",
        r#"{"slurp_id": 1, "recordings": []}"#,
        r#"{"slurp_id": 1, "sentence": "x", "recordings": [{"wer": 0}]}"#,
        r#"{"slurp_id": 1, "sentence": "x", "recordings": [{"file": "../x.flac"}]}"#,
        line(1, "x", &"a".into(), &"b".into(), "a_b", &["audio-15.flac"]).trim_end(),
    ]
    .join("\n");
    put(&path, lines);
    let error = prepare(&options(root), &AudioOptions::default(), &silent).unwrap_err().to_string();
    for expected in [
        "test.jsonl, line 1: not a sentence of SLURP (EOF",
        "line 2: not a sentence of SLURP (",
        "line 3: not a sentence of SLURP (missing field `sentence`",
        "line 4: not a sentence of SLURP (missing field `file`",
        "line 5: `../x.flac` is no name of a file",
        "line 6: `audio-15` is already in train.jsonl, line 1",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    std::fs::remove_file(path).unwrap();
    let corpus = prepared(&options(root));
    assert!(corpus.notes[0].starts_with("test.jsonl is not there"), "{:?}", corpus.notes);
    // The files alone, without the folders around them.
    let corpus = prepared(&options(&root.join("dataset/slurp")));
    assert_eq!(parts(&corpus)[0].len(), 4);
}

#[test]
fn no_bytes_panic() {
    let good = line(5, "wake", &"alarm".into(), &"set".into(), "alarm_set", &["audio-15-headset.flac"]);
    never_panics(good.as_bytes(), 5_000, |bytes| {
        if let Ok(sentence) = Line::parse(bytes) {
            let _ = sentence.label();
        }
    });
    let metadata = r#"{"5": {"recordings": {"audio-15.flac": {"usrid": "FO-488"}}}}"#;
    never_panics(metadata.as_bytes(), 5_000, |bytes| drop(speakers(bytes)));
    for (file, expected) in [
        ("audio--123-headset.flac", Some("audio--123-headset")),
        ("audio-1", Some("audio-1")),
        (".flac", None),
        ("", None),
        ("..", None),
        ("a/b.flac", None),
    ] {
        assert_eq!(stem(file), expected);
    }
}

#[test]
fn the_real_devel_and_test() {
    let Some(root) = test_data("slurp") else { return };
    let corpus = prepared(&options(&root));
    for (part, [sentences, recordings, headset, intents]) in
        [("dev", [2_033, 8_690, 4_173, 30]), ("test", [2_974, 13_078, 6_281, 37])]
    {
        let counts = &corpus.counts[part];
        assert_eq!((&counts["sentences"], &counts["recordings"]), (&json!(sentences), &json!(recordings)));
        assert_eq!((&counts["headset"], &counts["intent_is_not_scenario_action"]), (&json!(headset), &json!(intents)));
        assert_eq!(counts["without_scenario_or_action"], 0);
    }
    let [train, dev, test] = [0, 1, 2].map(|part| &corpus.folds[0].parts[part].1);
    assert_eq!((train.len(), dev.len(), test.len()), (0, 8_690, 13_078));
    let labels = |rows: &[Row]| -> BTreeSet<String> { rows.iter().filter_map(|row| row.label.clone()).collect() };
    assert_eq!((labels(dev).len(), labels(test).len()), (59, 59));
    let all: Vec<String> = labels(dev).union(&labels(test)).cloned().collect();
    assert_eq!(all, LABELS);
    // The two files are complete: all that is missing is train, the metadata and the audio.
    assert_eq!(corpus.notes.len(), 3, "{:?}", corpus.notes);
}
