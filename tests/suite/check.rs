//! `clasp check` through the real binary: what it finds, what it allows, and that later reports remember.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use crate::program::{Said, clasp, folder, lines_of, tone, wav};

/// A row of a manifest and its own recording, of `samples` samples and a pitch of its own.
fn utterance(at: &Path, id: &str, speaker: &str, text: &str, label: &str) -> Value {
    fs::create_dir_all(at.join("wav")).unwrap();
    let file = format!("wav/{id}.wav");
    // The id in the samples makes every recording another one.
    let mut sound = tone(1600);
    for (place, byte) in id.bytes().enumerate() {
        sound[2 * place] = byte;
    }
    fs::write(at.join(&file), wav(1, 16, &sound, 3200)).unwrap();
    json!({ "id": id, "audio": file, "text": text, "label": label, "speaker": speaker })
}

fn write(path: &Path, rows: &[Value]) {
    let text: String = rows.iter().flat_map(|row| [row.to_string(), "\n".to_owned()]).collect();
    fs::write(path, text).unwrap();
}

/// Eight utterances of two speakers to train on, four of two others of dev and test each: nothing is shared.
fn clean(at: &Path) -> BTreeMap<&'static str, Vec<Value>> {
    let mut manifests = BTreeMap::new();
    for (name, count) in [("train", 8), ("dev", 4), ("test", 4)] {
        let rows: Vec<Value> = (0..count)
            .map(|n| {
                let speaker = format!("{name}-speaker{}", n % 2);
                let label = if n < count / 2 { "tea" } else { "milk" };
                utterance(at, &format!("{name}{n}"), &speaker, &format!("{name} words {n}"), label)
            })
            .collect();
        write(&at.join(format!("{name}.jsonl")), &rows);
        manifests.insert(name, rows);
    }
    manifests
}

fn report(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.stdout))
}

/// The findings of a report as `severity check manifest: count`.
fn findings(report: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("all").to_owned();
    let finding = |found: &Value| {
        let words = [&found["severity"], &found["check"], &found["manifest"]].map(word);
        format!("{} {} {}: {}", words[0], words[1], words[2], found["count"])
    };
    report["findings"].as_array().unwrap().iter().map(finding).collect()
}

const ALL: [&str; 3] = ["train.jsonl", "dev.jsonl", "test.jsonl"];

fn check(at: &Path, more: &[&str]) -> Said {
    clasp(at, &[&["check"], &ALL[..], more].concat())
}

#[test]
fn clean_manifests_are_counted_and_can_be_trusted() {
    let folder = folder();
    let at = folder.path();
    clean(at);
    let said = check(at, &["--json", "--decode"]).good();
    let found = report(&said);
    assert_eq!((found["ok"].as_bool(), found["shared"].as_array().unwrap().len()), (Some(true), 0));
    assert_eq!(findings(&found), Vec::<String>::new());
    let train = &found["manifests"][0];
    assert_eq!((&train["name"], &train["utterances"]), (&json!("train"), &json!(8)));
    assert_eq!(train["labels"], json!({ "milk": 4, "tea": 4 }));
    assert_eq!(train["speakers"], json!({ "train-speaker0": 4, "train-speaker1": 4 }));
    // 1,600 samples at 16 kHz are 0.1 s; "train words 0" has three words.
    assert_eq!((&train["seconds"]["median"], &train["words"]["most"]), (&json!(0.1), &json!(3.0)));
    // For people: counts, a histogram, a verdict; a folder stands for its manifests.
    let said = clasp(at, &["check", "."]).good();
    for part in ["train-speaker0", "seconds of all utterances", "up to 0.5      16 ####", "can be trusted: 0 errors"] {
        assert!(said.stdout.contains(part), "no {part:?} in {}", said.stdout);
    }
    assert!(!at.join("leaks.json").exists());
}

#[test]
fn what_nobody_declared_is_an_error_until_it_is_allowed_and_then_in_every_report() {
    let folder = folder();
    let at = folder.path();
    let mut manifests = clean(at);
    let test = manifests.get_mut("test").unwrap();
    // A speaker, a sentence (but for case and punctuation) and a recording under another name.
    test[0]["speaker"] = json!("train-speaker0");
    test[1]["text"] = json!("Train, words 3!");
    fs::copy(at.join("wav/train5.wav"), at.join("wav/copy.wav")).unwrap();
    test[2]["audio"] = json!("wav/copy.wav");
    write(&at.join("test.jsonl"), test);
    let said = check(at, &["--json"]).bad_line(3, &["3 checks failed", "train and test share 1 speaker"]);
    let found = report(&said);
    let leaks: Vec<String> = found["shared"]
        .as_array()
        .unwrap()
        .iter()
        .map(|leak| format!("{} {} {} {}", leak["kind"], leak["splits"], leak["rows"], leak["standing"]))
        .collect();
    let expected = [("speaker", "[4,1]"), ("text", "[1,1]"), ("audio", "[1,1]")]
        .map(|(kind, rows)| format!(r#""{kind}" ["train","test"] {rows} "leak""#));
    assert_eq!(leaks, expected);
    check(at, &["--allow-leak", "speaker"]).bad(3, &["2 checks failed", "share 1 text"]);
    check(at, &["--allow-leak", "speaker", "--allow-leak", "text,audio"]).good();
    let leaks: Value = serde_json::from_slice(&fs::read(at.join("leaks.json")).unwrap()).unwrap();
    assert_eq!(leaks["allowed"].as_array().unwrap().len(), 3);
    // What was allowed is not allowed for ever: the next check says it again.
    check(at, &[]).bad(3, &["3 checks failed"]);

    // A run on these files tells of it, and so does every report of it.
    let sets = ALL.map(|file| {
        let split = file.trim_end_matches(".jsonl");
        format!("data.{split}={}", at.join(file).display())
    });
    let mut words = vec!["train", "--config", "tiny.toml"];
    for set in &sets {
        words.extend(["--set", set]);
    }
    let said = clasp(at, &words).good();
    assert!(said.stderr.contains("train and test share 1 speaker (4 and 1 utterances"), "{}", said.stderr);
    let manifest: Value = serde_json::from_slice(&fs::read(at.join("run/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["split"]["sha256"].as_str().unwrap().len(), 64);
    let said = clasp(at, &["eval", "--checkpoint", "run", "--split", "test"]).good();
    assert!(said.stdout.contains("allowed by --allow-leak speaker"), "{}", said.stdout);
    let report: Value = serde_json::from_slice(&fs::read(at.join("run/report-test.json")).unwrap()).unwrap();
    let standings: Vec<&Value> =
        report["data_split"]["shared"].as_array().unwrap().iter().map(|shared| &shared["standing"]).collect();
    // The recording has another name, and is found all the same.
    assert_eq!(standings, ["allowed"; 3]);
    assert_eq!(report["data_split"]["sha256"], manifest["split"]["sha256"]);
    // Of dev nothing is shared.
    let said = clasp(at, &["eval", "--checkpoint", "run", "--split", "dev", "--json"]).good();
    assert_eq!(self::report(&said)["data_split"]["shared"], json!([]));
    // It was allowed for these manifests: others of the same name have their own leaks.
    let test = manifests.get_mut("test").unwrap();
    test[3]["speaker"] = json!("train-speaker1");
    write(&at.join("test.jsonl"), test);
    words.push("--overwrite");
    let said = clasp(at, &words).good();
    assert!(said.stderr.contains("train and test share 2 speakers"), "{}", said.stderr);
    assert!(said.stderr.contains("not declared") && !said.stderr.contains("allowed by"), "{}", said.stderr);
}

#[test]
fn what_was_allowed_after_the_run_is_told_after_it() {
    let folder = folder();
    let at = folder.path();
    let mut manifests = clean(at);
    manifests.get_mut("test").unwrap()[0]["speaker"] = json!("train-speaker0");
    write(&at.join("test.jsonl"), &manifests["test"]);
    let sets = ALL.map(|file| format!("data.{}={}", file.trim_end_matches(".jsonl"), at.join(file).display()));
    let mut words = vec!["train", "--config", "tiny.toml"];
    for set in &sets {
        words.extend(["--set", set]);
    }
    clasp(at, &words).good();
    let eval = || clasp(at, &["eval", "--checkpoint", "run", "--split", "test"]).good().stdout;
    assert!(
        eval().contains("warning: train and test share 1 speaker (4 and 1 utterances; `train-speaker0`): not declared")
    );
    check(at, &["--allow-leak", "speaker"]).good();
    assert!(eval().contains("note: train and test share 1 speaker (4 and 1 utterances; `train-speaker0`): allowed by"));
}

#[test]
fn copies_and_pieces_of_recordings_are_found() {
    let folder = folder();
    let at = folder.path();
    let sound = tone(16_000);
    fs::write(at.join("a.wav"), wav(1, 16, &sound, 32_000)).unwrap();
    fs::write(at.join("copy.wav"), wav(1, 16, &sound, 32_000)).unwrap();
    let row = |id: &str, audio: &str, start: f64, end: f64| json!({ "id": id, "audio": audio, "text": id, "label": "x", "start": start, "end": end });
    // The whole of one, a piece of its copy.
    write(&at.join("train.jsonl"), &[json!({ "id": "whole", "audio": "a.wav", "label": "x" })]);
    write(&at.join("test.jsonl"), &[row("piece", "copy.wav", 0.25, 0.75)]);
    let words = ["check", "train.jsonl", "test.jsonl"];
    clasp(at, &words).bad(3, &["train and test share 1 recording"]);
    clasp(at, &[&words[..], &["--decode"]].concat()).bad(3, &["train and test share 1 recording"]);
    // Pieces that overlap still do when they have become files of their own.
    let pieces: Vec<Value> = (0..12_u8)
        .map(|n| {
            let start = f64::from(n) * 0.05;
            let mut row = row(&format!("p{n}"), "a.wav", start, start + 0.4);
            row["text"] = json!(format!("words {n}"));
            row
        })
        .collect();
    write(&at.join("pieces.jsonl"), &pieces);
    let prepare = "prepare table --input pieces.jsonl --id-column id --fractions 0.5,0.25,0.25 --convert --output cut";
    let said = clasp(at, &prepare.split(' ').collect::<Vec<_>>()).good();
    assert!(said.stdout.contains("share 1 recording; the table names a recording twice"), "{}", said.stdout);
    clasp(at, &["check", "cut", "--decode"]).bad(3, &["share 1 recording"]);
}

#[test]
fn an_id_belongs_to_one_part() {
    let folder = folder();
    let at = folder.path();
    let text = |id: &str, text: &str| json!({ "id": id, "text": text, "label": "x" });
    write(&at.join("train.jsonl"), &[text("a", "one"), text("b", "two")]);
    write(&at.join("test.jsonl"), &[text("b", "three")]);
    let words = ["check", "train.jsonl", "test.jsonl"];
    clasp(at, &words).bad_line(3, &["a check failed: test: the same ids as in train", "(1: b)"]);
    clasp(at, &[&words[..], &["--allow-leak", "text"]].concat()).good();
}

#[test]
fn a_declared_split_is_reported_and_its_changes_are_noticed() {
    let folder = folder();
    let at = folder.path();
    let rows: Vec<Value> = (0..30)
        .map(|n| {
            utterance(at, &format!("u{n:02}"), &format!("s{}", n % 3), &format!("words {n}"), ["tea", "milk"][n % 2])
        })
        .collect();
    write(&at.join("table.jsonl"), &rows);
    let prepare = |output: &str, more: &[&str]| {
        let words = ["prepare", "table", "--input", "table.jsonl", "--id-column", "id", "--output", output];
        clasp(at, &[&words, more].concat()).good()
    };
    prepare("drawn", &["--speaker-column", "speaker", "--fractions", "0.6,0.2,0.2"]);
    let said = clasp(at, &["check", "drawn", "--json"]).good();
    let found = report(&said);
    assert_eq!(found["splits"][0]["is_unchanged"], json!(true));
    let shared = found["shared"].as_array().unwrap();
    assert!(shared.len() == 3 && shared.iter().all(|shared| shared["standing"] == "declared"), "{found}");
    // Two utterances change places.
    let mut train = lines_of(&at.join("drawn/train.jsonl"));
    let mut test = lines_of(&at.join("drawn/test.jsonl"));
    std::mem::swap(&mut train[0], &mut test[0]);
    write(&at.join("drawn/train.jsonl"), &train);
    write(&at.join("drawn/test.jsonl"), &test);
    let found = report(&clasp(at, &["check", "drawn", "--json"]).good());
    assert_eq!(found["splits"][0]["is_unchanged"], json!(false));
    assert!(findings(&found).contains(&"warning split all: 1".to_owned()), "{found}");
    // Folds are held against themselves only; no speaker crosses, and every one is in all folds.
    prepare("folds", &["--speaker-column", "speaker", "--folds", "3", "--groups", "speaker"]);
    let found = report(&clasp(at, &["check", "folds", "--json"]).good());
    assert_eq!((found["manifests"].as_array().unwrap().len(), &found["shared"]), (9, &json!([])));
    assert_eq!(found["splits"].as_array().unwrap().len(), 3);
    // What is no split.json of this program declares nothing, and stops nothing.
    fs::write(at.join("drawn/split.json"), "[\"not ours\"]").unwrap();
    let said = clasp(at, &["check", "drawn", "--json"]).bad(3, &["share", "speaker"]);
    assert!(findings(&report(&said)).contains(&"warning split all: 1".to_owned()), "{}", said.stdout);
    // Manifests of two folds that are named by themselves are to be used together.
    clasp(at, &["check", "folds/fold1/dev.jsonl", "folds/fold2/test.jsonl"]).bad(3, &["share", "speaker"]);
    // The same without the folds' split.json are manifests like any: all against all.
    for fold in 1..=3 {
        fs::remove_file(at.join(format!("folds/fold{fold}/split.json"))).unwrap();
    }
    clasp(at, &["check", "folds"]).bad(3, &["fold1/train and fold2/"]);
}

#[test]
fn audio_that_will_not_do() {
    let folder = folder();
    let at = folder.path();
    let mut rows: Vec<Value> =
        ["good", "silent", "clipped", "short", "long", "gone", "text", "cut", "twin", "late", "odd"]
            .map(|id| utterance(at, id, "", id, "tea"))
            .to_vec();
    for row in &mut rows {
        row.as_object_mut().unwrap().remove("speaker");
    }
    let put = |id: &str, bytes: &[u8]| fs::write(at.join(format!("wav/{id}.wav")), bytes).unwrap();
    put("silent", &wav(1, 16, &[0; 3200], 3200));
    let clipped: Vec<u8> =
        (0..1600_u32).flat_map(|n| if n % 8 < 4 { i16::MAX } else { i16::MIN }.to_le_bytes()).collect();
    put("clipped", &wav(1, 16, &clipped, 3200));
    put("short", &wav(1, 16, &tone(399), 798));
    put("long", &wav(1, 16, &tone(40_000), 80_000));
    put("text", b"this is not audio");
    // Half a second and more is missing.
    put("cut", &wav(1, 16, &tone(800), 20_000));
    fs::remove_file(at.join("wav/gone.wav")).unwrap();
    fs::copy(at.join("wav/good.wav"), at.join("wav/twin.wav")).unwrap();
    rows[9]["start"] = json!(5.0);
    rows[10]["duration"] = json!(7.5);
    write(&at.join("data.jsonl"), &rows);
    let check = |more: &[&str]| clasp(at, &[&["check", "data.jsonl", "--json", "--max-seconds", "2"], more].concat());
    let found = report(&check(&[]).bad(3, &["audio that cannot be used (5)", "`short` (line 4)"]));
    // Headers tell what is missing, too short, too long, cut, no audio, or outside its file.
    let expected = [
        "error audio data: 5",
        "warning label data: 1",
        "warning audio data: 1",
        "warning audio data: 1",
        "warning audio data: 1",
        "note audio all: 1",
    ];
    let mut sorted = findings(&found);
    sorted.sort_by_key(|line| expected.iter().position(|other| other == line));
    assert_eq!(sorted, expected);
    let said = check(&["--decode"]);
    let found = report(&said);
    let about = |words: &str| -> Vec<String> {
        let finding = found["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["text"].as_str().unwrap().contains(words));
        finding.map_or_else(Vec::new, |finding| serde_json::from_value(finding["examples"].clone()).unwrap())
    };
    assert_eq!(about("silent"), ["silent"]);
    assert_eq!(about("clipped"), ["clipped"]);
    assert_eq!(about("longer than 2 s"), ["long"]);
    assert_eq!(about("same recording"), ["twin (as good)"]);
    assert_eq!(about("`duration`"), ["odd"]);
    let bad = about("cannot be used");
    for (id, reason) in [
        ("short", "too short: 399 samples"),
        ("gone", "no such file"),
        ("text", "not an audio file"),
        ("cut", "truncated"),
        ("late", "`start` is 5 s but the audio is only 0.100 s"),
    ] {
        assert!(bad.iter().any(|line| line.contains(&format!("`{id}`")) && line.contains(reason)), "{id}: {bad:?}");
    }
}

#[test]
fn the_same_recording_in_two_formats_is_found_by_its_samples() {
    let folder = folder();
    let at = folder.path();
    let sound = tone(1600);
    // The same samples with eight more bits each: other bytes, other length.
    let wide: Vec<u8> = sound.chunks(2).flat_map(|sample| [0, sample[0], sample[1]]).collect();
    fs::write(at.join("a.wav"), wav(1, 16, &sound, 3200)).unwrap();
    fs::write(at.join("b.wav"), wav(1, 24, &wide, 4800)).unwrap();
    write(&at.join("train.jsonl"), &[json!({ "id": "a", "audio": "a.wav", "label": "x" })]);
    write(&at.join("test.jsonl"), &[json!({ "id": "b", "audio": "b.wav", "label": "x" })]);
    let words = ["check", "train.jsonl", "test.jsonl"];
    clasp(at, &words).good();
    clasp(at, &[&words[..], &["--decode"]].concat()).bad(3, &["train and test share 1 recording"]);
}

#[test]
fn labels_and_texts_that_will_not_do() {
    let folder = folder();
    let at = folder.path();
    let mut manifests = clean(at);
    let dev = manifests.get_mut("dev").unwrap();
    dev[0]["label"] = json!("coffee");
    dev[1].as_object_mut().unwrap().remove("label");
    dev[2]["text"] = json!("  ");
    dev[3].as_object_mut().unwrap().remove("text");
    write(&at.join("dev.jsonl"), dev);
    let found = report(&check(at, &["--json"]).bad(3, &["dev: utterances without a label"]));
    let mut sorted = findings(&found);
    sorted.sort();
    let expected =
        ["error label dev: 1", "note audio all: 1", "note text dev: 1", "warning label dev: 1", "warning text dev: 1"];
    assert_eq!(sorted, expected);
    // Malformed manifests are told all at once.
    fs::write(at.join("train.jsonl"), "{\"id\": \"a\"}\n").unwrap();
    fs::write(at.join("test.jsonl"), "").unwrap();
    let said =
        check(at, &[]).bad(3, &["train.jsonl, line 1: neither `audio` nor `text`", "test.jsonl: the manifest is"]);
    assert!(said.stdout.is_empty());
    clasp(at, &["check", "nowhere"]).bad_line(3, &["nowhere: no such file"]);
    clasp(at, &["check", "wav"]).bad_line(3, &["no manifest (.jsonl) is in this folder"]);
    clasp(at, &["check", "train.jsonl", "--max-seconds", "0"]).bad_line(2, &["--max-seconds"]);
}

#[test]
fn a_duplicate_names_the_row_that_it_is_of() {
    let folder = folder();
    let at = folder.path();
    let mut rows: Vec<Value> = ["a", "b", "c"].map(|id| utterance(at, id, "anna", id, "tea")).to_vec();
    rows[2]["audio"] = rows[0]["audio"].clone();
    write(&at.join("rows.jsonl"), &rows);
    let said = clasp(at, &["check", "rows.jsonl"]).good();
    let expected = "warning: rows: the same recording as another row of this manifest (1: c (as a))";
    assert!(said.stdout.contains(expected), "{}", said.stdout);
}
