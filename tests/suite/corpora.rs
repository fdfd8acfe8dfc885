//! The corpora through the real binary: releases as their owners lay them out become manifests that `clasp check`
//! trusts, and nothing about the machine changes a split.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::program::{Said, clasp, lines_of, program, tone, wav};
use crate::test_data::test_data;

fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A recording that no other one equals.
fn sound(name: &str) -> Vec<u8> {
    let mut samples = tone(1600);
    for (place, byte) in name.bytes().enumerate() {
        samples[2 * place] = byte;
    }
    wav(1, 16, &samples, 3200)
}

fn manifest(path: impl AsRef<Path>) -> Vec<Value> {
    lines_of(path.as_ref())
}

fn strings<'a>(rows: &'a [Value], key: &str) -> BTreeSet<&'a str> {
    rows.iter().filter_map(|row| row[key].as_str()).collect()
}

/// Five sessions, each with an improvised and a scripted dialogue of both actors: four utterances of each class, one
/// without a majority and one of another class. The marker wearer is always the woman. `is_reversed` writes the files
/// in the other order.
fn iemocap(root: &Path, is_reversed: bool) {
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for session in 1..=5 {
        let at = root.join(format!("Session{session}"));
        for (dialog, is_scripted) in
            [(format!("Ses0{session}F_impro01"), false), (format!("Ses0{session}F_script01_1"), true)]
        {
            let mut labels = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n".to_owned();
            let mut words = String::new();
            for (turn, code) in ["neu", "hap", "exc", "sad", "ang", "xxx", "fru"].into_iter().enumerate() {
                for talker in ["F", "M"] {
                    let id = format!("{dialog}_{talker}{turn:03}");
                    let start = f64::from(u8::try_from(turn).unwrap()) * 2.0;
                    writeln!(labels, "[{start:.4} - {:.4}]\t{id}\t{code}\t[2.5000, 2.5000, 2.5000]", start + 1.5)
                        .unwrap();
                    labels += "C-E1:\tNeutral;\t()\nA-E1:\tval 3; act 2; dom  3;\t()\n\n";
                    // Every pair plays the same script; what is improvised is its own.
                    let text = if is_scripted {
                        format!("This is line {turn} of the play that everybody reads from paper.")
                    } else {
                        format!(
                            "[LAUGHTER] Session {session}: {talker} says something of their own, for the {turn}th time."
                        )
                    };
                    writeln!(words, "{id} [{start:08.4}-{:08.4}]: {text}", start + 1.5).unwrap();
                    files.push((at.join(format!("sentences/wav/{dialog}/{id}.wav")), sound(&id)));
                }
            }
            writeln!(words, "{dialog}_FXX0 [001.0000-002.0000]: not labelled\nF: a bare line").unwrap();
            files.push((at.join(format!("dialog/EmoEvaluation/{dialog}.txt")), labels.into_bytes()));
            files.push((at.join(format!("dialog/EmoEvaluation/._{dialog}.txt")), b"\x00\x05resource fork".to_vec()));
            files.push((at.join(format!("dialog/EmoEvaluation/Categorical/{dialog}_cat.txt")), b"not read".to_vec()));
            files.push((at.join(format!("dialog/transcriptions/{dialog}.txt")), words.into_bytes()));
        }
    }
    if is_reversed {
        files.reverse();
    }
    for (path, content) in files {
        put(&path, content);
    }
}

#[test]
fn iemocap_becomes_folds_under_each_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    iemocap(&at.join("IEMOCAP_full_release"), false);
    let prepare = |protocol: &str| {
        let words = ["prepare", "iemocap", "--root", ".", "--protocol", protocol, "--out", protocol, "--json"];
        clasp(at, &words).good()
    };
    for (protocol, folds) in [("strict", 5), ("kang2022", 5), ("speaker10", 10)] {
        let written: Value = serde_json::from_str(&prepare(protocol).stdout).unwrap();
        assert_eq!(written["splits"].as_array().unwrap().len(), folds, "{protocol}");
        // By hand: five of seven codes are of the four classes, by two talkers in two dialogues: 20 a session.
        let read = |fold: usize, name: &str| manifest(at.join(format!("{protocol}/fold{fold}/{name}.jsonl")));
        let sizes = ["train", "dev", "test"].map(|name| read(1, name).len());
        let expected = match protocol {
            "strict" => [60, 20, 20],
            "kang2022" => [80, 20, 20],
            _ => [80, 10, 10],
        };
        assert_eq!(sizes, expected, "{protocol}");
        let mut tested: Vec<String> = Vec::new();
        for fold in 1..=folds {
            let [train, dev, test] = ["train", "dev", "test"].map(|name| read(fold, name));
            assert!(strings(&train, "speaker").is_disjoint(&strings(&test, "speaker")));
            assert!(strings(&train, "speaker").is_disjoint(&strings(&dev, "speaker")));
            let sessions =
                |rows: &[Value]| rows.iter().map(|row| row["session"].as_u64().unwrap()).collect::<BTreeSet<_>>();
            if protocol == "strict" {
                let fold = fold as u64;
                assert_eq!((sessions(&test), sessions(&dev)), ([fold].into(), [fold % 5 + 1].into()));
            }
            assert_eq!(protocol == "kang2022", dev == test);
            tested.extend(strings(&test, "id").into_iter().map(str::to_owned));
        }
        tested.sort();
        tested.dedup();
        assert_eq!(tested.len(), 100, "every utterance is tested once");
        // Scripted lines (and dev = test) are declared: told, and no leak.
        let said = clasp(at, &["check", protocol, "--json"]).good();
        let found: Value = serde_json::from_str(&said.stdout).unwrap();
        let kinds: BTreeSet<&str> =
            found["shared"].as_array().unwrap().iter().map(|shared| shared["kind"].as_str().unwrap()).collect();
        let expected: &[&str] = if protocol == "kang2022" { &["audio", "speaker", "text"] } else { &["text"] };
        assert_eq!(kinds, expected.iter().copied().collect(), "{protocol}");
        let published = found["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "published");
        assert!(published.unwrap()["text"].as_str().unwrap().contains("all 100 of the published 5531"));
    }
    let train = manifest(at.join("strict/fold1/train.jsonl"));
    let row = train.iter().find(|row| row["id"] == "Ses03F_impro01_M002").unwrap();
    assert_eq!(
        [&row["label"], &row["speaker"], &row["emotion"], &row["style"], &row["group"]],
        [&json!("happy"), &json!("Ses03M"), &json!("exc"), &json!("improvised"), &json!("Ses03F_impro01")]
    );
    assert_eq!(row["text"], "Session 3: M says something of their own, for the 2th time.");
    assert!(at.join("strict/fold1").join(row["audio"].as_str().unwrap()).is_file());
    // A leak beyond what is declared is one all the same.
    let path = at.join("strict/fold1/test.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + &row.to_string() + "\n").unwrap();
    clasp(at, &["check", "strict/fold1"]).bad(3, &["train and test share 1 speaker", "not declared"]);
}

#[test]
fn neither_the_disk_nor_threads_nor_the_locale_change_a_split() {
    let folder = tempfile::tempdir().unwrap();
    let mut splits: Vec<BTreeMap<String, String>> = Vec::new();
    for (name, threads, locale) in [("one", "1", "C"), ("two", "4", "de_DE.UTF-8"), ("three", "2", "tr_TR.UTF-8")] {
        let at = folder.path().join(name);
        iemocap(&at.join("root"), name == "two");
        librispeech(&at.join("LibriSpeech"), name == "two");
        put(&at.join("idioms.txt"), "kick the bucket\nspill the beans\n");
        let rows: Vec<String> = (0..60).map(|n| format!("t{n},words {n},{}", n % 3)).collect();
        put(&at.join("table.csv"), format!("id,text,label\n{}\n", rows.join("\n")));
        for words in [
            "prepare iemocap --root root --protocol strict --output a",
            "prepare mist --librispeech LibriSpeech --idioms idioms.txt --output b",
            "prepare table --input table.csv --audio-column= --id-column id --folds 4 --output c",
        ] {
            let mut command = program(&at);
            command.args(words.split(' ')).env("RAYON_NUM_THREADS", threads).env("LC_ALL", locale).env("LANG", locale);
            Said::of(&command.output().unwrap()).good();
        }
        let mist: Value = serde_json::from_slice(&fs::read(at.join("b/split.json")).unwrap()).unwrap();
        assert_eq!((&mist["counts"]["unlabelled"], &mist["counts"]["instances"]), (&json!(10), &json!(10)));
        let mut found = BTreeMap::new();
        for split in ["a/fold1", "a/fold5", "b", "c/fold2"] {
            let state: Value = serde_json::from_slice(&fs::read(at.join(split).join("split.json")).unwrap()).unwrap();
            found.insert(format!("{split} hash"), state["sha256"].to_string());
            for name in ["train", "dev", "test"] {
                let rows = fs::read_to_string(at.join(split).join(format!("{name}.jsonl"))).unwrap();
                found.insert(format!("{split} {name}"), rows);
            }
        }
        splits.push(found);
    }
    assert_eq!(splits[0], splits[1]);
    assert_eq!(splits[0], splits[2]);
}

/// Twelve utterances of two speakers, ten of them with an idiom.
fn librispeech(root: &Path, is_reversed: bool) {
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for speaker in [19, 2136] {
        let chapter = root.join(format!("train-clean-100/{speaker}/198"));
        let mut lines = String::new();
        for n in 0..6 {
            let id = format!("{speaker}-198-{n:04}");
            let text = match n {
                5 => format!("NOBODY'S WORD {speaker}"),
                _ if n % 2 == 0 => format!("SHE KICKED THE BUCKET {n} {speaker}"),
                _ => format!("DON'T SPILL THE BEANS {n} {speaker}"),
            };
            writeln!(lines, "{id} {text}").unwrap();
            files.push((chapter.join(format!("{id}.flac")), sound(&id)));
        }
        files.push((chapter.join(format!("{speaker}-198.trans.txt")), lines.into_bytes()));
    }
    let speakers = ";ID |SEX| SUBSET |MINUTES| NAME\n19 | F | train-clean-100 | 25.19 | Somebody\n2136 | M | \
                    train-clean-100 | 25.0 | Somebody | Else\n";
    files.push((root.join("SPEAKERS.TXT"), speakers.into()));
    if is_reversed {
        files.reverse();
    }
    for (path, content) in files {
        put(&path, content);
    }
}

#[test]
fn librispeech_and_mist() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    librispeech(&at.join("LibriSpeech"), false);
    clasp(at, &["prepare", "librispeech", "--root", ".", "--output", "all"]).good();
    let rows = manifest(at.join("all/train-clean-100.jsonl"));
    assert_eq!((rows.len(), strings(&rows, "sex").len()), (12, 2));
    let row = rows.iter().find(|row| row["id"] == "19-198-0005").unwrap();
    assert_eq!((&row["text"], &row["speaker"], &row["sex"]), (&json!("NOBODY'S WORD 19"), &json!("19"), &json!("F")));
    put(&at.join("idioms.txt"), "# of the house\nkick the bucket\nspill the beans\n");
    let labels: String = ["19", "2136"]
        .iter()
        .flat_map(|speaker| {
            (0..5).map(move |n| format!("{speaker}-198-{n:04}\t{}\n", ["literal", "figurative"][n % 2]))
        })
        .collect();
    put(&at.join("labels.tsv"), format!("id\tlabel\n{labels}"));
    let words = "prepare mist --librispeech LibriSpeech --idioms idioms.txt --labels labels.tsv --fractions 0.6,0.2,0.2 \
                 --output mist --convert";
    let said = clasp(at, &words.split_whitespace().collect::<Vec<_>>()).good();
    assert!(said.stdout.contains("idiom types: 2"), "{}", said.stdout);
    // By hand: six literal and four figurative ones at 0.6, 0.2 and 0.2.
    let sizes = ["train", "dev", "test"].map(|name| manifest(at.join(format!("mist/{name}.jsonl"))).len());
    assert_eq!(sizes.iter().sum::<usize>(), 10);
    assert!((5..=7).contains(&sizes[0]), "{sizes:?}");
    let row = &manifest(at.join("mist/train.jsonl"))[0];
    let text: Vec<char> = row["text"].as_str().unwrap().chars().collect();
    let span = |place: usize| usize::try_from(row["span"][0][place].as_u64().unwrap()).unwrap();
    let found: String = text[span(0)..span(1)].iter().collect();
    assert!(["kicked the bucket", "spill the beans"].contains(&found.as_str()), "{found}");
    assert!(row["audio"].as_str().unwrap().starts_with("audio/") && row["duration"] == json!(0.1), "{row}");
    let said = clasp(at, &["check", "mist", "--decode", "--json"]).good();
    let shared: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(shared["shared"].as_array().unwrap().iter().all(|shared| shared["standing"] == "declared"));
}

#[test]
fn slurp_with_audio_that_is_converted_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let line = |id: i64, sentence: &str, intent: &str, files: &[&str]| {
        let recordings: Vec<Value> =
            files.iter().map(|file| json!({ "file": file, "wer": 0.0, "ent_wer": 0.0, "status": "correct" })).collect();
        json!({ "slurp_id": id, "sentence": sentence, "sentence_annotation": sentence, "intent": intent, "action": "set",
                "scenario": "alarm", "tokens": [], "recordings": recordings, "entities": [] })
        .to_string()
            + "\n"
    };
    let dataset = at.join("slurp/dataset/slurp");
    let train = ["audio--1490000001.flac", "audio--1490000001-headset.flac"];
    put(&dataset.join("train.jsonl"), line(1, "wake me at six", "alarm_set", &train));
    put(&dataset.join("devel.jsonl"), line(2, "an alarm please", "set", &["audio-1490000002.flac"]));
    put(&dataset.join("test.jsonl"), line(3, "alarm at nine", "alarm_set", &["audio-1490000003-headset.flac"]));
    put(&dataset.join("train_synthetic.jsonl"), line(4, "spoken by nobody", "alarm_set", &["audio-synth.flac"]));
    let audio = at.join("slurp/audio/slurp_real");
    for name in train.iter().chain(&["audio-1490000002.flac"]) {
        put(&audio.join(name), sound(name));
    }
    let words = ["prepare", "slurp", "--root", "slurp", "--audio", "slurp/audio", "--output", "out"];
    let more = |extra: &[&'static str]| clasp(at, &[&words[..], extra].concat());
    // What is missing is listed; nothing is written.
    more(&[]).bad(3, &["1 of 4 utterances", "audio-1490000003-headset", "--skip-bad"]);
    assert!(!at.join("out/train.jsonl").exists());
    let said = more(&["--skip-bad", "--convert"]).good();
    assert!(said.stdout.contains("left out, since their audio cannot be used: 1"), "{}", said.stdout);
    assert!(!at.join("out/test.jsonl").exists());
    let state: Value = serde_json::from_slice(&fs::read(at.join("out/split.json")).unwrap()).unwrap();
    assert_eq!(state["skipped"][0]["id"], "audio-1490000003-headset");
    // Now it is there: the others are not converted anew.
    put(&audio.join("audio-1490000003-headset.flac"), sound("audio-1490000003-headset.flac"));
    let converted = |name: &str| {
        let rows = manifest(at.join(format!("out/{name}.jsonl")));
        rows.iter().map(|row| at.join("out").join(row["audio"].as_str().unwrap())).collect::<Vec<_>>()
    };
    let before = fs::metadata(&converted("train")[0]).unwrap().modified().unwrap();
    more(&["--convert"]).good();
    assert_eq!(fs::metadata(&converted("train")[0]).unwrap().modified().unwrap(), before);
    assert_eq!((converted("train").len(), converted("dev").len(), converted("test").len()), (2, 1, 1));
    let row = &manifest(at.join("out/dev.jsonl"))[0];
    assert_eq!((&row["label"], &row["intent"]), (&json!("alarm_set"), &json!("set")));
    let state: Value = serde_json::from_slice(&fs::read(at.join("out/split.json")).unwrap()).unwrap();
    assert_eq!(state["skipped"], json!([]));
    assert!(state["counts"].to_string().contains("intent"), "{state}");
    // Texts only, and one microphone.
    let words = ["prepare", "slurp", "--root", "slurp", "--output", "texts", "--microphone", "headset"];
    clasp(at, &words).good();
    let rows = manifest(at.join("texts/train.jsonl"));
    assert_eq!((rows.len(), &rows[0]["audio"]), (1, &Value::Null));
    // Which the paper's system cannot be trained on: it says which rows lack what.
    fs::write(at.join("tiny.toml"), crate::program::own_config()).unwrap();
    let set = format!("data.train={}", at.join("texts/train.jsonl").display());
    let said = clasp(at, &["train", "--config", "tiny.toml", "--set", &set, "--set", "data.dev="]);
    said.bad(3, &["utterance `audio--1490000001-headset` (line 1): no `audio`"]);
}

#[test]
fn magpie_and_what_is_wrong_with_a_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let record = |id: usize, label: &str, split: &str| {
        json!({ "id": id, "idiom": "in the running", "label": label, "confidence": 1.0, "judgment_count": 3,
                "label_distribution": {}, "context": ["a", "b", format!("He is in the running {id} ."), "c", "d"],
                "offsets": [[6, 8], [13, 20]], "sentence_no": "1", "document_id": "A", "genre": "W", "split": split,
                "variant_type": "identical", "non_standard_usage_explanations": [] })
        .to_string()
            + "\n"
    };
    let rows =
        [record(1, "i", "training"), record(2, "l", "development"), record(3, "i", "test"), record(4, "?", "test")];
    put(&at.join("magpie.jsonl"), rows.concat());
    clasp(at, &["prepare", "magpie", "--input", "magpie.jsonl", "--output", "magpie"]).good();
    let rows = manifest(at.join("magpie/test.jsonl"));
    assert_eq!(
        (rows.len(), &rows[0]["label"], &rows[0]["span"]),
        (1, &json!("figurative"), &json!([[6, 8], [13, 20]]))
    );
    clasp(at, &["check", "magpie"]).good();
    // Nothing there, or not that corpus.
    for corpus in ["iemocap --protocol strict --root nowhere", "slurp --root nowhere", "librispeech --root nowhere"] {
        let words: Vec<&str> = "prepare".split(' ').chain(corpus.split(' ')).chain(["--output", "none"]).collect();
        clasp(at, &words).bad(3, &["nowhere"]);
    }
    clasp(at, &["prepare", "iemocap", "--root", "magpie", "--protocol", "strict", "--output", "none"])
        .bad(3, &["magpie"]);
    clasp(at, &["prepare", "magpie", "--input", "none.jsonl", "--output", "none"])
        .bad_line(3, &["none.jsonl: no such file"]);
    clasp(at, &["prepare", "iemocap", "--root", ".", "--protocol", "random", "--output", "none"]).bad(2, &["kang2022"]);
    assert!(!at.join("none").exists());
}

/// Of the files that the corpora's owners publish.
#[test]
fn the_real_files_give_the_published_counts() {
    let roots = ["slurp", "librispeech", "magpie"].map(|name| test_data(name).map(|root| root.display().to_string()));
    let [Some(slurp), Some(librispeech), Some(magpie)] = roots else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    clasp(at, &["prepare", "slurp", "--root", &slurp, "--output", "slurp"]).good();
    let (dev, test) = (manifest(at.join("slurp/dev.jsonl")), manifest(at.join("slurp/test.jsonl")));
    assert_eq!((dev.len(), strings(&dev, "group").len()), (8_690, 2_033));
    assert_eq!((test.len(), strings(&test, "group").len()), (13_078, 2_974));
    let labels: BTreeSet<&str> = strings(&dev, "label").union(&strings(&test, "label")).copied().collect();
    assert_eq!(labels.len(), 60);
    let disagree = |rows: &[Value]| {
        let rows = rows.iter().filter(|row| row["intent"] != row["label"]);
        rows.map(|row| row["group"].to_string()).collect::<BTreeSet<_>>().len()
    };
    assert_eq!((disagree(&dev), disagree(&test)), (30, 37));
    clasp(at, &["check", "slurp"]).good();
    clasp(at, &["prepare", "librispeech", "--root", &librispeech, "--output", "libri", "--convert"]).good();
    assert_eq!(manifest(at.join("libri/train-clean-100.jsonl")).len(), 30);
    assert_eq!(manifest(at.join("libri/test-other.jsonl")).len(), 40);
    clasp(at, &["check", "libri", "--decode"]).good();
    let table = format!("{magpie}/dev_test.tsv.gz");
    clasp(at, &["prepare", "magpie", "--input", &table, "--output", "magpie"]).good();
    assert_eq!(manifest(at.join("magpie/dev.jsonl")).len() + manifest(at.join("magpie/test.jsonl")).len(), 9_680);
    clasp(at, &["check", "magpie"]).good();
}
