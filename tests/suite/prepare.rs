//! `prepare table` through the real binary: three formats, one result.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::program::{clasp, folder, lines_of, tone, wav};

/// Texts with what a table has to quote.
const TEXTS: [&str; 4] = ["two, please", "she said \"now\"", "", "caf\u{e9} \u{1f600}"];

/// Twenty WAVs, and for each its row: file, text, label and speaker.
fn corpus(folder: &Path) -> Vec<[String; 4]> {
    let sound = tone(800);
    (0..20)
        .map(|number| {
            let file = format!("clip {number:02}.wav");
            fs::write(folder.join(&file), wav(1, 16, &sound, 1600)).unwrap();
            let label = if number % 2 == 0 { "tea" } else { "milk" };
            [file, TEXTS[number % 4].to_owned(), label.to_owned(), format!("speaker{}", number / 4)]
        })
        .collect()
}

fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

/// The manifests of a folder as one list.
fn manifests(folder: &Path) -> Vec<Vec<Value>> {
    ["train", "dev", "test"].map(|split| lines_of(&folder.join(format!("{split}.jsonl")))).to_vec()
}

#[test]
fn a_table_becomes_manifests_whatever_its_format() {
    let folder = folder();
    let at = folder.path();
    let rows = corpus(at);
    let join = |separator: &str| -> String {
        let lines = rows.iter().map(|row| row.each_ref().map(|field| quoted(field)).join(separator));
        std::iter::once(["file", "words", "drink", "who"].join(separator))
            .chain(lines)
            .map(|line| line + "\n")
            .collect()
    };
    fs::write(at.join("table.csv"), join(",")).unwrap();
    fs::write(at.join("table.tsv"), join("\t")).unwrap();
    let lines = rows
        .iter()
        .map(|[file, words, drink, who]| json!({ "file": file, "words": words, "drink": drink, "who": who }));
    fs::write(at.join("table.jsonl"), lines.flat_map(|line| [line.to_string(), "\n".to_owned()]).collect::<String>())
        .unwrap();
    let columns =
        ["--audio-column", "file", "--text-column", "words", "--label-column", "drink", "--speaker-column", "who"];
    let prepare = |input: &str, output: &str, more: &[&str]| {
        clasp(at, &[&["prepare", "table", "--input", input, "--output", output], &columns[..], more].concat())
    };
    let said = prepare("table.csv", "csv", &["--fractions", "0.6,0.2,0.2"]).good();
    assert!(said.stdout.contains("milk") && said.stdout.contains("csv/train.jsonl"), "{}", said.stdout);
    let found = manifests(&at.join("csv"));
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [12, 4, 4]);
    for split in &found {
        // As many of each label in every split.
        assert_eq!(split.iter().filter(|row| row["label"] == "tea").count() * 2, split.len());
    }
    let mut seen = BTreeSet::new();
    for row in found.iter().flatten() {
        let audio = at.join("csv").join(row["audio"].as_str().unwrap());
        let name = audio.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(audio.is_file(), "{row}");
        let [_, words, drink, who] = rows.iter().find(|row| row[0] == name).unwrap();
        assert_eq!(
            [&row["text"], &row["label"], &row["speaker"]],
            [words, drink, who].map(|field| json!(field)).each_ref()
        );
        assert_eq!(row["id"], name.trim_end_matches(".wav"));
        assert!(seen.insert(name));
    }
    assert_eq!(seen.len(), 20);
    for (input, output) in [("table.tsv", "tsv"), ("table.jsonl", "jsonl")] {
        prepare(input, output, &["--fractions", "0.6,0.2,0.2"]).good();
        assert_eq!(manifests(&at.join(output)), found, "{input}");
    }
    // The same seed, the same split; another seed, another.
    prepare("table.csv", "again", &["--fractions", "0.6,0.2,0.2"]).good();
    assert_eq!(manifests(&at.join("again")), found);
    prepare("table.csv", "other", &["--fractions", "0.6,0.2,0.2", "--seed", "2"]).good();
    assert_ne!(manifests(&at.join("other")), found);
    // No speaker is in two splits.
    prepare("table.csv", "grouped", &["--group-by", "who", "--fractions", "0.6,0.2,0.2"]).good();
    let speakers = manifests(&at.join("grouped"))
        .iter()
        .map(|split| split.iter().map(|row| row["speaker"].to_string()).collect::<BTreeSet<_>>().len())
        .sum::<usize>();
    assert_eq!(speakers, 5);
    // What was made can be trained on.
    let (train, dev) = (at.join("csv/train.jsonl"), at.join("csv/dev.jsonl"));
    let sets = [format!("data.train={}", train.display()), format!("data.dev={}", dev.display())];
    clasp(at, &["train", "--config", "tiny.toml", "--set", &sets[0], "--set", &sets[1]]).good();
}

#[test]
fn a_table_that_cannot_be_used() {
    let folder = folder();
    let at = folder.path();
    corpus(at);
    let table = |text: &str| fs::write(at.join("table.csv"), text).unwrap();
    let prepare =
        |more: &[&str]| clasp(at, &[&["prepare", "table", "--input", "table.csv", "--output", "out"], more].concat());
    prepare(&[]).bad_line(3, &["table.csv: no such file"]);
    table("audio,words,label\nclip 00.wav,a,tea\n");
    prepare(&[]).bad_line(3, &["table.csv: no column `text` (for", "the columns are `audio`, `words`, `label`"]);
    prepare(&["--text-column", "words", "--fractions", "0.5,0.5"]).bad_line(2, &["--fractions", "as in 0.8,0.1,0.1"]);
    prepare(&["--text-column", "words", "--fractions", "0.5,0.5,0.5"]).bad(2, &["--fractions"]);
    table("audio,text,label\nnone.wav,a,tea\nclip 00.wav,a\n");
    let said = prepare(&[]);
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    assert!(said.stderr.contains("table.csv, line 3"), "{}", said.stderr);
    fs::write(at.join("table.csv"), b"audio,text,label\nclip 00.wav,\xff,tea\n").unwrap();
    prepare(&[]).bad(3, &["table.csv", "UTF-8"]);
    table("");
    prepare(&[]).bad(3, &["table.csv"]);
    assert!(!at.join("out/train.jsonl").exists());
}
