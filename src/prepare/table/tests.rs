use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::data::manifest;
use crate::prepare::folder::{self, Written};
use crate::splits::{SplitFile, split_hash};

/// Prepares and writes, as the command does.
fn write(options: &TableOptions, output: &Path) -> Result<Written, DataError> {
    folder::write(output, prepare(options, &AudioOptions::default(), &|_, _| {})?)
}

fn named(column: &str) -> Column {
    Column::Named(column.to_owned())
}

struct Corpus {
    folder: tempfile::TempDir,
}

impl Corpus {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("wav")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A CSV of `count` rows, four speakers a label and a tail of rare labels.
    fn table(&self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for i in 0..count {
            let audio = format!("wav/u{i:03}.wav");
            std::fs::write(self.path(&audio), "x").unwrap();
            let label = ["sad", "sad", "sad", "happy", "angry"][i % 5];
            lines.push(format!("{audio},\"one, \"\"two\"\" {i}\",{label},s{},{i}", i % 11));
        }
        lines
    }

    fn options(&self, lines: &[String]) -> TableOptions {
        let input = self.path("table.csv");
        std::fs::write(&input, format!("path,words,label,who,turn\n{}\n", lines.join("\n"))).unwrap();
        TableOptions {
            audio: named("path"),
            text: named("words"),
            speaker: Some("who".to_owned()),
            ..TableOptions::new(input)
        }
    }

    fn prepare(&self, options: &TableOptions) -> Result<Written, DataError> {
        write(options, &self.path("out"))
    }

    fn read(&self, name: &str) -> Vec<Row> {
        manifest::read(&self.path(&format!("out/{name}.jsonl"))).unwrap()
    }

    fn read_ids(&self, name: &str) -> Vec<String> {
        self.read(name).into_iter().map(|row| row.id).collect()
    }

    fn ids(&self) -> Vec<Vec<String>> {
        PARTS.iter().map(|name| self.read_ids(name)).collect()
    }
}

#[test]
fn every_label_is_within_one_of_its_share() {
    let corpus = Corpus::new();
    let report = corpus.prepare(&corpus.options(&corpus.table(103))).unwrap();
    for (label, total) in [("sad", 63.0), ("happy", 20.0), ("angry", 20.0)] {
        for (name, share) in PARTS.iter().zip([0.8, 0.1, 0.1]) {
            let count = report.splits[0].labels[label][*name] as f64;
            assert!((count - total * share).abs() < 1.0, "{label} {name}: {count}");
        }
    }
    assert_eq!(report.splits[0].utterances.values().sum::<usize>(), 103);
    let row = &corpus.read("train")[0];
    assert_eq!(
        row.speaker.as_deref(),
        Some(format!("s{}", row.extra["turn"].as_str().unwrap().parse::<usize>().unwrap() % 11).as_str())
    );
    assert!(row.text.as_deref().unwrap().starts_with("one, \"two\" "));
    assert!(row.audio.as_ref().unwrap().is_file());
    let text = std::fs::read_to_string(corpus.path("out/train.jsonl")).unwrap();
    assert!(text.contains("\"audio\":\"../wav/u"), "{text}");
    let split = SplitFile::read(&corpus.path("out")).unwrap().unwrap();
    assert_eq!(split, report.splits[0]);
    let rows = PARTS.map(|name| (name, corpus.read(name)));
    let parts: Vec<(&str, &[Row])> = rows.iter().map(|(name, rows)| (*name, rows.as_slice())).collect();
    assert_eq!(split.sha256, split_hash(&parts));
    assert_eq!(split.sources[0].sha256.len(), 64);
    assert_eq!((split.options["seed"].clone(), split.protocol.as_str()), (json!(1), "stratified"));
}

#[test]
fn the_order_of_the_rows_does_not_matter_and_the_seed_does() {
    let corpus = Corpus::new();
    let mut lines = corpus.table(60);
    corpus.prepare(&corpus.options(&lines)).unwrap();
    let first = corpus.ids();
    lines.reverse();
    corpus.prepare(&corpus.options(&lines)).unwrap();
    assert_eq!(corpus.ids(), first);
    corpus.prepare(&TableOptions { seed: 2, ..corpus.options(&lines) }).unwrap();
    assert_ne!(corpus.ids(), first);
}

#[test]
fn no_group_crosses_and_shares_are_near() {
    let corpus = Corpus::new();
    let mut options = corpus.options(&corpus.table(220));
    options.fractions = [0.6, 0.2, 0.2];
    let before = corpus.prepare(&options).unwrap();
    // What is shared is known, and said.
    assert_eq!(before.splits[0].shared.iter().filter(|shared| shared.kind == Kind::Speaker).count(), 3);
    assert!(before.notes[0].contains("train and dev share 11 speakers; --groups"), "{:?}", before.notes);
    options.groups = vec!["who".to_owned()];
    let report = corpus.prepare(&options).unwrap();
    assert_eq!((report.splits[0].shared.len(), &report.counts["groups"]), (0, &json!(11)));
    let mut speakers: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in PARTS {
        let found: BTreeSet<String> = corpus.read(name).into_iter().filter_map(|row| row.speaker).collect();
        for speaker in found {
            speakers.entry(speaker).or_default().push(name);
        }
    }
    assert!(speakers.len() == 11 && speakers.values().all(|splits| splits.len() == 1), "{speakers:?}");
    // 11 speakers of 20 utterances each: shares of 132, 44 and 44 can be met to within one speaker.
    for (name, share) in PARTS.iter().zip([132, 44, 44]) {
        assert!(report.splits[0].utterances[*name].abs_diff(share) <= 20, "{name}");
    }
}

#[test]
fn a_share_of_nothing_gives_no_file_and_removes_an_old_one() {
    let corpus = Corpus::new();
    let mut options = corpus.options(&corpus.table(40));
    corpus.prepare(&options).unwrap();
    assert!(corpus.path("out/dev.jsonl").exists());
    options.fractions = [0.9, 0.0, 0.1];
    let report = corpus.prepare(&options).unwrap();
    assert!(!corpus.path("out/dev.jsonl").exists());
    assert_eq!(report.manifests.len(), 2);
    options.fractions = [0.99, 0.005, 0.005];
    assert!(corpus.prepare(&options).unwrap_err().to_string().contains("leave dev empty"));
    options.fractions = [0.9, 0.2, 0.1];
    assert!(corpus.prepare(&options).unwrap_err().to_string().contains("sum to 1"));
}

#[test]
fn tsv_and_jsonl_say_the_same_as_csv() {
    let corpus = Corpus::new();
    corpus.table(20);
    let (mut tsv, mut jsonl) = ("audio\ttext\tlabel\tslots\n".to_owned(), String::new());
    for i in 0..20 {
        let line = format!("wav/u{i:03}.wav\t\"he said\t{}\t{{\"drink\": \"tea\"}}\r\n", i % 2);
        tsv += &line;
        let cells = json!({"audio": format!("wav/u{i:03}.wav"), "text": "", "label": i % 2, "slots": {"drink": "tea"}});
        jsonl = jsonl + &cells.to_string() + "\n";
    }
    std::fs::write(corpus.path("t.tsv"), tsv).unwrap();
    std::fs::write(corpus.path("t.jsonl"), jsonl).unwrap();
    corpus.prepare(&TableOptions::new(corpus.path("t.tsv"))).unwrap();
    let from_tsv = corpus.ids();
    let row = &corpus.read("train")[0];
    assert_eq!((row.text.as_deref(), &row.extra["slots"]), (Some("\"he said"), &json!("{\"drink\": \"tea\"}")));
    let report = corpus.prepare(&TableOptions::new(corpus.path("t.jsonl"))).unwrap();
    assert_eq!((corpus.ids(), &report.counts["empty_texts"]), (from_tsv, &json!(20)));
    assert_eq!(corpus.read("train")[0].extra["slots"], json!({"drink": "tea"}));
}

#[test]
fn what_is_wrong_with_a_table_is_said_at_once() {
    let corpus = Corpus::new();
    let mut lines = corpus.table(12);
    let options = corpus.options(&lines);
    let wrong = TableOptions { text: named("txt"), id: Some("key".to_owned()), ..options };
    let error = corpus.prepare(&wrong).unwrap_err().to_string();
    assert!(
        error.contains("no column `txt` (for text); the columns are `path`, `words`, `label`, `who`, `turn`"),
        "{error}"
    );
    assert!(error.contains("no column `key` (for id)"), "{error}");
    lines[1] = "wav/u001.wav,words,,s1,3".to_owned();
    lines[2] = "wav/none.wav,words,sad,s1,3".to_owned();
    lines[4] = "wav/u003.wav,words,sad,s1,3".to_owned();
    lines[6] = "wav/u006.wav,words,sad".to_owned();
    let error = corpus.prepare(&corpus.options(&lines)).unwrap_err().to_string();
    assert!(error.contains("table.csv, line 8: 3 fields where the first line names 5"), "{error}");
    lines.remove(6);
    let error = corpus.prepare(&corpus.options(&lines)).unwrap_err().to_string();
    for expected in [
        "table.csv, line 3: no label in column `label`",
        "table.csv, line 4: no audio file",
        "table.csv, line 6: the id `u003` is already used on line 5; name an id column",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    let path = corpus.path("latin.csv");
    std::fs::write(&path, b"audio,text,label\na.wav,caf\xe9,x\n").unwrap();
    let error = corpus.prepare(&TableOptions::new(path)).unwrap_err().to_string();
    assert!(error.contains("latin.csv, line 2: not valid UTF-8"), "{error}");
    let path = corpus.path("table.xlsx");
    std::fs::write(&path, "x").unwrap();
    assert!(corpus.prepare(&TableOptions::new(path)).unwrap_err().to_string().contains("name the format"));
}

#[test]
fn every_part_of_a_cross_validation_is_test_once_and_dev_once() {
    let corpus = Corpus::new();
    let options = TableOptions { folds: Some(5), ..corpus.options(&corpus.table(103)) };
    let report = corpus.prepare(&options).unwrap();
    assert_eq!(report.manifests.len(), 15);
    let read = |fold: usize, name: &str| -> Vec<String> { corpus.read_ids(&format!("fold{fold}/{name}")) };
    let mut tested: Vec<String> = (1..=5).flat_map(|fold| read(fold, "test")).collect();
    tested.sort();
    assert_eq!(tested, (0..103).map(|i| format!("u{i:03}")).collect::<Vec<_>>());
    for fold in 1..=5 {
        // 63 sad, 20 happy and 20 angry ones: 4 of each of the others, 12 or 13 sad ones.
        assert!((20..=21).contains(&read(fold, "test").len()));
        assert_eq!(read(fold, "dev"), read(fold % 5 + 1, "test"));
        let split = SplitFile::read(&corpus.path(&format!("out/fold{fold}"))).unwrap().unwrap();
        assert_eq!(split.fold, Some(format!("{fold} of 5")));
        assert_eq!((split.labels["happy"]["test"], split.labels["angry"]["test"]), (4, 4));
    }
    // By speaker: none is on both sides.
    let grouped = TableOptions { groups: vec!["who".into()], ..options.clone() };
    corpus.prepare(&grouped).unwrap();
    for fold in 1..=5 {
        let speakers = |name: &str| -> BTreeSet<String> {
            corpus.read(&format!("fold{fold}/{name}")).into_iter().filter_map(|row| row.speaker).collect()
        };
        assert!(speakers("test").is_disjoint(&speakers("train")) && speakers("test").is_disjoint(&speakers("dev")));
    }
    // Fewer folds leave none of the old ones, and no fold leaves none at all.
    corpus.prepare(&TableOptions { folds: Some(3), ..options.clone() }).unwrap();
    assert!(!corpus.path("out/fold4").exists() && corpus.path("out/fold3/dev.jsonl").exists());
    corpus.prepare(&TableOptions { folds: None, ..options.clone() }).unwrap();
    assert!(!corpus.path("out/fold1").exists() && corpus.path("out/dev.jsonl").exists());
    for folds in [2, 1000] {
        let error = corpus.prepare(&TableOptions { folds: Some(folds), ..options.clone() }).unwrap_err().to_string();
        assert!(error.contains("3 to 100 folds"), "{error}");
    }
}

#[test]
fn an_audio_folder_has_its_splits_and_columns() {
    let corpus = Corpus::new();
    for (folder, count) in [("train", 3), ("validation", 2), ("test", 1)] {
        let at = corpus.path("hub").join(folder);
        std::fs::create_dir_all(at.join("wav")).unwrap();
        let mut table = "file_name,transcription,label\n".to_owned();
        for i in 0..count {
            std::fs::write(at.join(format!("wav/{folder}{i}.wav")), "x").unwrap();
            writeln!(table, "wav/{folder}{i}.wav,words {i},a").unwrap();
        }
        std::fs::write(at.join("metadata.csv"), table).unwrap();
    }
    let options = TableOptions::new(corpus.path("hub"));
    let report = corpus.prepare(&options).unwrap();
    assert_eq!(report.protocol, "given");
    assert_eq!(corpus.ids(), [vec!["train0", "train1", "train2"], vec!["validation0", "validation1"], vec!["test0"]]);
    let row = &corpus.read("dev")[1];
    assert_eq!((row.text.as_deref(), row.audio.as_ref().unwrap().is_file()), (Some("words 1"), true));
    let error = corpus.prepare(&TableOptions { folds: Some(5), ..options }).unwrap_err().to_string();
    assert!(error.contains("says which split each row is in"), "{error}");
    // One folder, no splits: they are drawn.
    let one = TableOptions { fractions: [0.4, 0.3, 0.3], ..TableOptions::new(corpus.path("hub/train")) };
    assert_eq!(corpus.prepare(&one).unwrap().protocol, "stratified");
    let error = corpus.prepare(&TableOptions::new(corpus.path("wav"))).unwrap_err().to_string();
    assert!(error.contains("a folder without metadata.csv"), "{error}");
}

#[test]
fn a_column_can_say_which_split_a_row_is_in() {
    let corpus = Corpus::new();
    let mut lines = corpus.table(10);
    let mut options = corpus.options(&lines);
    for (i, line) in lines.iter_mut().enumerate() {
        *line += if i < 6 { ",train" } else { ",Validation" };
    }
    let text = format!("path,words,label,who,turn,subset\n{}\n", lines.join("\n"));
    std::fs::write(corpus.path("table.csv"), text).unwrap();
    options.split = Some("subset".into());
    let report = corpus.prepare(&options).unwrap();
    assert_eq!(report.splits[0].utterances, [("dev".to_owned(), 4), ("train".to_owned(), 6)].into());
    assert!(!corpus.path("out/test.jsonl").exists());
}

#[test]
fn manifests_of_somebody_else_are_left_alone() {
    let corpus = Corpus::new();
    std::fs::create_dir(corpus.path("out")).unwrap();
    std::fs::write(corpus.path("out/mine.jsonl"), "mine").unwrap();
    let error = corpus.prepare(&corpus.options(&corpus.table(30))).unwrap_err().to_string();
    assert!(error.contains("mine.jsonl: it is there already"), "{error}");
    assert_eq!(std::fs::read_to_string(corpus.path("out/mine.jsonl")).unwrap(), "mine");
}

#[test]
fn nothing_of_somebody_elses_and_no_input_is_overwritten() {
    let corpus = Corpus::new();
    let options = corpus.options(&corpus.table(40));
    std::fs::create_dir_all(corpus.path("out/fold1")).unwrap();
    std::fs::write(corpus.path("out/fold1/train.jsonl"), "mine").unwrap();
    let folds = TableOptions { folds: Some(5), ..options.clone() };
    assert!(corpus.prepare(&folds).unwrap_err().to_string().contains("fold1/train.jsonl: it is there already"));
    assert_eq!(std::fs::read_to_string(corpus.path("out/fold1/train.jsonl")).unwrap(), "mine");
    std::fs::remove_file(corpus.path("out/fold1/train.jsonl")).unwrap();
    corpus.prepare(&options).unwrap();
    let before = std::fs::read(corpus.path("out/train.jsonl")).unwrap();
    let again = TableOptions { id: Some("id".into()), ..TableOptions::new(corpus.path("out/train.jsonl")) };
    assert!(
        corpus.prepare(&again).unwrap_err().to_string().contains("lies in the output folder and would be replaced")
    );
    assert_eq!(std::fs::read(corpus.path("out/train.jsonl")).unwrap(), before);
    std::fs::write(corpus.path("file"), "x").unwrap();
    let error = write(&options, &corpus.path("file")).unwrap_err().to_string();
    assert!(error.contains("it is a file; choose another --output"), "{error}");
}

#[test]
fn what_a_table_lacks_its_manifests_lack() {
    let corpus = Corpus::new();
    let mut lines = String::new();
    for i in 0..20 {
        std::fs::write(corpus.path(&format!("wav/u{i}.wav")), "x").unwrap();
        let mut row = json!({ "id": format!("u{i}"), "audio": format!("wav/u{i}.wav"), "text": "words", "label": "a" });
        match i {
            0 => row["text"] = json!(null),
            1 => row["audio"] = json!(null),
            2 => row["text"] = json!(""),
            _ => {}
        }
        writeln!(lines, "{row}").unwrap();
    }
    std::fs::write(corpus.path("t.jsonl"), lines).unwrap();
    let options = TableOptions { id: Some("id".into()), ..TableOptions::new(corpus.path("t.jsonl")) };
    let report = corpus.prepare(&options).unwrap();
    assert_eq!((&report.counts["without_text"], &report.counts["without_audio"]), (&json!(1), &json!(1)));
    let rows: Vec<Row> = PARTS.iter().flat_map(|name| corpus.read(name)).collect();
    let row = |id: &str| rows.iter().find(|row| row.id == id).unwrap();
    assert_eq!((row("u0").text.as_deref(), row("u2").text.as_deref()), (None, Some("")));
    assert!(row("u1").audio.is_none() && row("u1").text.is_some());
}

#[test]
fn texts_are_kept_apart_as_the_check_compares_them() {
    let corpus = Corpus::new();
    let texts = ["Hello there.", "hello, THERE", "caf\u{e9}", "CAFE\u{301}!", "", " "];
    let mut table = "audio,text,label\n".to_owned();
    for i in 0..60 {
        std::fs::write(corpus.path(&format!("wav/u{i:02}.wav")), format!("{i}")).unwrap();
        let text = if i < 12 { texts[i % 6].to_owned() } else { format!("text {i}") };
        writeln!(table, "wav/u{i:02}.wav,\"{text}\",a").unwrap();
    }
    std::fs::write(corpus.path("t.csv"), table).unwrap();
    for seed in 1..6 {
        let options = TableOptions { groups: vec!["text".into()], seed, ..TableOptions::new(corpus.path("t.csv")) };
        let report = corpus.prepare(&options).unwrap();
        assert!(report.notes.is_empty(), "{:?}", report.notes);
    }
}

#[test]
fn an_audio_folder_with_one_table_has_its_splits_from_the_folders_of_its_files() {
    let corpus = Corpus::new();
    let mut table = "file_name,text,label\n".to_owned();
    for i in 0..12 {
        let folder = ["train", "train", "validation", "test"][i % 4];
        std::fs::create_dir_all(corpus.path(folder)).unwrap();
        std::fs::write(corpus.path(&format!("{folder}/u{i:02}.wav")), "x").unwrap();
        writeln!(table, "{folder}/u{i:02}.wav,words {i},a").unwrap();
    }
    std::fs::write(corpus.path("metadata.csv"), table).unwrap();
    let report = write(&TableOptions::new(corpus.path("")), &corpus.path("out")).unwrap();
    assert_eq!(report.protocol, "given");
    assert_eq!(corpus.read_ids("test"), ["u03", "u07", "u11"]);
}
