//! `prepare table` through the real binary: three formats, one result.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::{
    labels::CONFIG,
    program::{clasp, folder, lines_of, tone, wav},
};

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

/// Four short recordings, in folders where a name has one.
fn sounds(at: &Path, names: &[&str]) {
    for name in names {
        fs::create_dir_all(at.join(name).parent().unwrap()).unwrap();
        fs::write(at.join(name), wav(1, 16, &tone(800), 1600)).unwrap();
    }
}

/// The rows that `prepare table` makes of a table, all of them in train; and what it says.
fn prepared(at: &Path, name: &str, table: &[u8], more: &[&str]) -> (Vec<Value>, String) {
    fs::write(at.join(name), table).unwrap();
    let output = format!("out-{name}");
    let words = ["prepare", "table", "--input", name, "--fractions", "1,0,0", "--output", &output];
    let said = clasp(at, &[&words[..], more].concat()).good();
    (lines_of(&at.join(output).join("train.jsonl")), said.stdout)
}

/// The values of a key.
fn values<'a>(rows: &'a [Value], key: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[key].as_str().unwrap()).collect()
}

#[test]
fn a_quotation_mark_too_many_is_an_error_on_its_line() {
    let folder = folder();
    let at = folder.path();
    sounds(at, &["a.wav", "b.wav", "c.wav", "d.wav"]);
    let bad = |text: &str, parts: &[&str]| {
        for (name, delimiter) in [("t.csv", ","), ("s.csv", ";"), ("p.csv", "|")] {
            fs::write(at.join(name), text.replace(',', delimiter)).unwrap();
            let said = clasp(at, &["prepare", "table", "--input", name, "--fractions", "1,0,0", "--output", "out"]);
            let place = format!("{name}, line 2: a quotation mark opens a field");
            said.bad_line(3, &[&[place.as_str()], parts].concat());
        }
    };
    let rest = "c.wav,happy,not now\nd.wav,sad,well\n";
    bad(&format!("audio,label,text\na.wav,happy,\"oh no\nb.wav,sad,we could go\n{rest}"), &["that no mark closes"]);
    bad(&format!("audio,label,text\na.wav,\"happy,oh no\nb.wav,sad,we could go\n{rest}"), &["that no mark closes"]);
    bad(
        &format!("audio,label,text\na.wav,happy,\"oh no\nb.wav,sad,\"we could go\"\n{rest}"),
        &["closes on line 3 in front of more text"],
    );
    // Both marks could be meant, but each line is a row.
    bad(&format!("audio,label,text\na.wav,happy,\"oh no\nb.wav,sad,we could go\"\n{rest}"), &["1 line below"]);
    bad("label,text,audio\nhappy,\"oh no,a.wav\nsad,go,b.wav\nsad,we could\",c.wav\n", &["2 lines below"]);
    // A text of several lines is none of these, nor is a mark inside a field or one in a table with tabs.
    let text = format!("audio,label,text\na.wav,happy,\"oh no\nyes, I say, go\"\nb.wav,sad,he said \"hi\"\n{rest}");
    let (rows, _) = prepared(at, "lines.csv", text.as_bytes(), &[]);
    assert_eq!(values(&rows, "text"), ["oh no\nyes, I say, go", "he said \"hi\"", "not now", "well"]);
    let (rows, _) = prepared(at, "t.tsv", b"audio\tlabel\ttext\na.wav\thappy\t\"oh no\nb.wav\tsad\twe go\n", &[]);
    assert_eq!(values(&rows, "text"), ["\"oh no", "we go"]);
    // With a backslash before it, as MySQL and many scripts write it: `csv.reader(..., escapechar="\\")`.
    let text = b"audio,label,text\na.wav,happy,\"he said \\\"go, now\\\"\"\nb.wav,sad,\\\"no\\\"\n";
    let (rows, said) = prepared(at, "escaped.csv", text, &[]);
    assert_eq!(values(&rows, "text"), ["he said \"go, now\"", "\"no\""]);
    assert!(said.contains("note: a backslash in front of a quotation mark"), "{said}");
}

#[test]
fn tables_as_spreadsheets_write_them() {
    let folder = folder();
    let at = folder.path();
    sounds(at, &["a.wav", "b.wav"]);
    let (expected, _) = prepared(at, "plain.csv", b"audio,text,label\na.wav,hello,x\nb.wav,hi,y\n", &[]);
    let same = |name: &str, text: &[u8], more: &[&str], note: &str| {
        let (rows, said) = prepared(at, name, text, more);
        assert_eq!(rows, expected, "{name}");
        assert!(said.contains(note), "{said}");
    };
    same("semicolons.csv", b"audio;text;label\na.wav;hello;x\nb.wav;hi;y\n\n", &[], "");
    same("sep.csv", b"sep=;\r\naudio;text;label\r\na.wav;hello;x\r\nb.wav;hi;y\r\n", &[], "");
    same("tabs.csv", b"audio\ttext\tlabel\na.wav\thello\tx\nb.wav\thi\ty\n", &[], "");
    same("colons.txt", b"audio:text:label\na.wav:hello:x\nb.wav:hi:y\n", &["--delimiter", ":"], "");
    same("spaces.csv", b" audio , text,label \n a.wav ,hello, x\n\"b.wav\" ,hi,y \n", &[], "");
    let note = "note: left out, columns without a name and without a value: 2";
    same("commas.csv", b"audio,text,label,,\na.wav,hello,x,,\nb.wav,hi,y,,\n", &[], note);
    same("fewer.csv", b"audio,text,label,,\na.wav,hello,x\nb.wav,hi,y\n", &[], note);
    let note = "note: rows with delimiters behind the last column, and nothing behind these: 1";
    same("longer.csv", b"audio,text,label\na.wav,hello,x,,\nb.wav,hi,y\n", &[], note);
    let note = "note: left out, rows of delimiters alone: 2";
    same("blank.csv", b"audio,text,label\na.wav,hello,x\n,,\nb.wav,hi,y\n,,\n", &[], note);
    let (rows, said) = prepared(at, "index.csv", b",audio,text,label\n0,a.wav,hello,x\n1,b.wav,hi,y\n", &[]);
    assert_eq!(values(&rows, "column_1"), ["0", "1"]);
    assert!(said.contains("note: column 1 has no name; its values are kept as `column_1`"), "{said}");
    // More than the first line has names for is no column.
    fs::write(at.join("more.csv"), "audio,text,label\na.wav,hello,x,,z\n").unwrap();
    clasp(at, &["prepare", "table", "--input", "more.csv", "--output", "out"])
        .bad_line(3, &["more.csv, line 2: 5 fields where the first line names 3"]);
    for delimiter in ["", "ab", "\""] {
        clasp(at, &["prepare", "table", "--input", "plain.csv", "--output", "out", "--delimiter", delimiter])
            .bad(2, &["--delimiter", "one character"]);
    }
}

/// "José, naïve" in Windows-1252, in Shift JIS and in UTF-16 as Python's `str.encode` writes it.
#[test]
fn a_table_has_an_encoding() {
    let folder = folder();
    let at = folder.path();
    sounds(at, &["a.wav", "b.wav"]);
    let table = b"audio,text,label\na.wav,Jos\xe9\x85,x\nb.wav,\xe9\xe9,y\n";
    fs::write(at.join("t.csv"), table).unwrap();
    let said = clasp(at, &["prepare", "table", "--input", "t.csv", "--output", "out"]);
    said.bad_line(3, &["t.csv, line 2: not valid UTF-8", "--encoding windows-1252"]);
    let (rows, _) = prepared(at, "latin.csv", table, &["--encoding", "Windows-1252"]);
    assert_eq!(values(&rows, "text"), ["Jos\u{e9}\u{2026}", "\u{e9}\u{e9}"]);
    let japanese = b"audio,text,label\na.wav,\x93\xfa\x96{,x\n";
    assert_eq!(
        values(&prepared(at, "japan.csv", japanese, &["--encoding", "shift_jis"]).0, "text"),
        ["\u{65e5}\u{672c}"]
    );
    // What Excel calls Unicode text says so itself.
    let utf16: Vec<u8> =
        "\u{feff}audio\ttext\tlabel\na.wav\tJos\u{e9}\tx\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(values(&prepared(at, "excel.tsv", &utf16, &[]).0, "text"), ["Jos\u{e9}"]);
    let words = ["prepare", "table", "--input", "t.csv", "--output", "out", "--encoding"];
    clasp(at, &[&words[..], &["latin-9000"]].concat()).bad(2, &["--encoding", "windows-1252"]);
    fs::write(at.join("t.csv"), b"audio,text,label\na.wav,\xff,x\n").unwrap();
    clasp(at, &[&words[..], &["shift_jis"]].concat()).bad_line(3, &["t.csv: not valid Shift_JIS"]);
}

#[test]
fn names_that_repeat_in_folders_give_paths_as_ids() {
    let folder = folder();
    let at = folder.path();
    sounds(
        at,
        &["f/angry/001.wav", "f/sad/001.wav", "f/sad/002.wav", "s/train/metadata/1.wav", "s/test/metadata/1.wav"],
    );
    fs::write(
        at.join("f/metadata.csv"),
        "file_name,transcription,label\nangry/001.wav,no,angry\n./sad/001.wav,oh,sad\nsad/002.wav,ah,sad\n",
    )
    .unwrap();
    clasp(at, &["prepare", "table", "--input", "f", "--fractions", "1,0,0", "--output", "o"]).good();
    assert_eq!(values(&lines_of(&at.join("o/train.jsonl")), "id"), ["angry/001", "sad/001", "sad/002"]);
    // As MELD has them: the same names in each split.
    for split in ["train", "test"] {
        let table = "file_name,text,label\nmetadata/1.wav,no,angry\n";
        fs::write(at.join("s").join(split).join("metadata.csv"), table).unwrap();
    }
    clasp(at, &["prepare", "table", "--input", "s", "--output", "p"]).good();
    for split in ["train", "test"] {
        let rows = lines_of(&at.join(format!("p/{split}.jsonl")));
        assert_eq!(values(&rows, "id"), [format!("{split}/metadata/1")]);
    }
    // One recording twice still needs a column.
    fs::write(at.join("t.csv"), "audio,text,label\nf/sad/001.wav,no,x\nf/sad/001.wav,oh,x\n").unwrap();
    clasp(at, &["prepare", "table", "--input", "t.csv", "--output", "q"])
        .bad_line(3, &["line 3: the id `001` is already used on line 2; name an id column"]);
}

#[test]
fn splits_that_are_given_as_tables() {
    let folder = folder();
    let at = folder.path();
    for (name, rows) in [("train", "go,on\nhalt,off\n"), ("dev", "start,on\n"), ("more", "quit,off\n")] {
        fs::write(at.join(format!("{name}.csv")), format!("text,label\n{rows}")).unwrap();
    }
    let prepare =
        |more: &[&str]| clasp(at, &[&["prepare", "table", "--audio-column=", "--output", "o"], more].concat());
    prepare(&[
        "--input",
        "train.csv",
        "--split",
        "train",
        "--input",
        "dev.csv",
        "--split",
        "validation",
        "--input",
        "more.csv",
        "--split",
        "train",
    ])
    .good();
    let rows = lines_of(&at.join("o/train.jsonl"));
    assert_eq!(
        (values(&rows, "id"), values(&rows, "text")),
        (vec!["train-1", "train-2", "train-3"], vec!["go", "halt", "quit"])
    );
    assert_eq!(values(&lines_of(&at.join("o/dev.jsonl")), "id"), ["dev-1"]);
    let split: Value = serde_json::from_str(&fs::read_to_string(at.join("o/split.json")).unwrap()).unwrap();
    assert_eq!((&split["protocol"], &split["options"]["inputs"][1]["split"]), (&json!("given"), &json!("validation")));
    // One table without a split is divided, as ever.
    prepare(&["--input", "train.csv", "--fractions", "1,0,0"]).good();
    assert_eq!(values(&lines_of(&at.join("o/train.jsonl")), "id"), ["row-1", "row-2"]);
    let pairs = "one input, or one --split for each";
    prepare(&["--input", "train.csv", "--input", "dev.csv"]).bad_line(2, &[pairs, "2 inputs and 0 splits"]);
    prepare(&["--input", "train.csv", "--split", "train", "--split", "dev"]).bad_line(2, &[pairs]);
    prepare(&["--input", "train.csv", "--split", "../x"]).bad_line(3, &["`../x` cannot be the name of a split"]);
    prepare(&["--input", "train.csv", "--split", "train", "--folds", "5"]).bad(2, &["--folds"]);
    // An id column is taken where there is one.
    fs::write(at.join("ids.csv"), "id,text,label\nu7,go,on\n").unwrap();
    prepare(&["--input", "ids.csv", "--fractions", "1,0,0"]).good();
    assert_eq!(values(&lines_of(&at.join("o/train.jsonl")), "id"), ["u7"]);
}

#[test]
fn labels_are_trimmed_and_names_found_in_any_normal_form() {
    let folder = folder();
    let at = folder.path();
    sounds(at, &["a.wav", "b.wav", "c.wav", "U\u{308}bung.wav", "Loud.WAV"]);
    let table = "audio,text,label\na.wav,one,e\u{301}te\u{301}\nb.wav,two,\u{e9}t\u{e9} \nc.wav,three, \u{e9}t\u{e9}\n\u{dc}bung.wav,four,sad\n";
    let (rows, _) = prepared(at, "t.csv", table.as_bytes(), &[]);
    assert_eq!(values(&rows, "label"), ["\u{e9}t\u{e9}", "\u{e9}t\u{e9}", "\u{e9}t\u{e9}", "sad"]);
    assert_eq!((rows[3]["id"].clone(), rows[3]["audio"].clone()), (json!("\u{dc}bung"), json!("../U\u{308}bung.wav")));
    fs::write(at.join("case.csv"), "audio,text,label\nloud.wav,one,x\n").unwrap();
    clasp(at, &["prepare", "table", "--input", "case.csv", "--output", "out"])
        .bad_line(3, &["no audio file loud.wav; there is Loud.WAV"]);
}

/// As in EMO-DB, RAVDESS and TESS: every speaker says the same sentences.
#[test]
fn fixed_sentences_can_be_declared() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut table = "words,emotion,who\n".to_owned();
    for speaker in 0..12 {
        for (text, label) in
            [("kids are talking", "calm"), ("dogs are sitting", "angry"), ("kids are talking", "angry")]
        {
            table.extend([text, ",", label, ",s", &speaker.to_string(), "\n"]);
        }
    }
    fs::write(at.join("t.csv"), table).unwrap();
    let words = "prepare table --input t.csv --audio-column= --text-column words --label-column emotion --speaker-column who \
                 --fractions 0.5,0.25,0.25 --output o";
    let prepare = |more: &[&str]| clasp(at, &[&words.split(' ').collect::<Vec<_>>(), more].concat());
    let nowhere =
        "they cannot be kept apart, since that leaves too few groups; if that is meant, --declare-shared text";
    for more in [&[][..], &["--groups", "who"]] {
        let said = prepare(more).good();
        assert!(said.stdout.contains(&format!("train and test share 2 texts; {nowhere}")), "{}", said.stdout);
    }
    prepare(&["--groups", "who,words"]).bad_line(3, &["too few groups are left", "--declare-shared text"]);
    clasp(at, &["check", "o"]).bad(3, &["train and dev share 2 texts", "--declare-shared text where that is meant"]);
    let said = prepare(&["--groups", "who", "--declare-shared", "text"]).good();
    assert!(said.stdout.contains("note: train and test share 2 texts, as declared\n"), "{}", said.stdout);
    let split: Value = serde_json::from_str(&fs::read_to_string(at.join("o/split.json")).unwrap()).unwrap();
    let declared: Vec<String> = split["shared"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shared| format!("{} {}", shared["kind"], shared["splits"]))
        .collect();
    assert_eq!(
        declared,
        ["[\"train\",\"dev\"]", "[\"train\",\"test\"]", "[\"dev\",\"test\"]"].map(|pair| format!("\"text\" {pair}"))
    );
    assert_eq!(split["options"]["declared"], json!(["text"]));
    let reason = "declared: as meant, by --declare-shared text";
    let said = clasp(at, &["check", "o"]).good();
    assert!(
        said.stdout.contains(reason) && said.stdout.contains("can be trusted: 0 errors, 0 warnings"),
        "{}",
        said.stdout
    );
    let config = ["train", "dev", "test"].iter().fold(CONFIG.to_owned(), |config, name| {
        config.replace(&format!("\"{name}.jsonl\""), &format!("\"o/{name}.jsonl\""))
    });
    fs::write(at.join("c.toml"), config).unwrap();
    let said = clasp(at, &["train", "--config", "c.toml", "--set", "run.test_at_end=true"]).good();
    assert!(!said.stderr.contains("warning: train and") && !said.stderr.contains("not declared"), "{}", said.stderr);
    assert!(said.stdout.contains(reason), "{}", said.stdout);
    let report = fs::read_to_string(at.join("run/report-test.json")).unwrap();
    assert!(report.contains("as meant, by --declare-shared text"), "{report}");
    // Speakers, with splits that are given; other kinds stay leaks.
    let pairs = "prepare table --input a.csv --split train --input b.csv --split test --audio-column= --output p";
    fs::write(at.join("a.csv"), "text,label,speaker\none,x,anna\ntwo,y,anna\n").unwrap();
    fs::write(at.join("b.csv"), "text,label,speaker\none,x,anna\n").unwrap();
    let pairs: Vec<&str> = pairs.split(' ').chain(["--declare-shared", "speaker"]).collect();
    clasp(at, &pairs).good();
    clasp(at, &["check", "p"]).bad(3, &["a check failed: train and test share 1 text"]);
    let pairs = [&pairs[..], &["--declare-shared", "text"]].concat();
    clasp(at, &pairs).good();
    clasp(at, &["check", "p"]).good();
}
