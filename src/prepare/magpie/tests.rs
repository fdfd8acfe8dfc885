use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::read::{marked_span, records, table};
use super::*;
use crate::prepare::folder;
use crate::prepare::reading::testing::{declared, ids, never_panics, put, silent};
use crate::test_data::test_data;

fn record(id: usize, idiom: &str, label: &str, text: &str, split: Option<&str>) -> Value {
    let mut record = json!({
        "id": id, "idiom": idiom, "label": label, "confidence": 0.5, "judgment_count": 3,
        "label_distribution": {"i": 0.5, "l": 0.5, "f": 0, "o": 0, "?": 0},
        "context": ["Before .", "Just before .", text, "Just after .", "After ."],
        "offsets": [[0, 2]], "sentence_no": "12", "document_id": "A1", "genre": "W fict prose",
        "variant_type": "identical", "non_standard_usage_explanations": [],
    });
    if let Some(split) = split {
        record["split"] = split.into();
    }
    record
}

fn lines(records: &[Value]) -> String {
    records.iter().flat_map(|record| [record.to_string(), "\n".to_owned()]).collect()
}

fn prepared(options: &MagpieOptions) -> Corpus {
    prepare(options, &AudioOptions::default(), &silent).unwrap()
}

fn failed(options: &MagpieOptions) -> String {
    prepare(options, &AudioOptions::default(), &silent).unwrap_err().to_string()
}

fn parts(corpus: &Corpus) -> Vec<Vec<&str>> {
    corpus.folds[0].parts.iter().map(|(_, rows)| ids(rows)).collect()
}

#[test]
fn json_lines_go_where_they_say() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("typebased.jsonl");
    let mut no_span = record(3, "on ice", "i", "On ice .", Some("training"));
    no_span["offsets"] = json!([[0, 9]]);
    let all = [
        record(1, "in the running", "i", "É in the running .", Some("training")),
        record(2, "in the running", "l", "He was in the running .", Some("training")),
        no_span,
        record(10, "spill the beans", "i", "They spilt the beans .", Some("development")),
        record(11, "spill the beans", "f", "They spilt .", Some("development")),
        record(12, "spill the beans", "o", "They spilt .", Some("test")),
        record(13, "on fire", "l", "It's on fire .", Some("test")),
        record(14, "on fire", "?", "It 's .", Some("test")),
        record(15, "on fire", "l", "they , spilt THE beans", Some("test")),
    ];
    put(&path, lines(&all));
    let corpus = prepared(&MagpieOptions::new(vec![path.clone()]));
    assert_eq!((corpus.name, corpus.protocol.as_str()), ("magpie", "official"));
    assert_eq!(
        parts(&corpus),
        [vec!["magpie-1", "magpie-2", "magpie-3"], vec!["magpie-10"], vec!["magpie-13", "magpie-15"]]
    );
    let row = &corpus.folds[0].parts[0].1[0];
    assert_eq!((row.text.as_deref(), row.label.as_deref()), (Some("É in the running ."), Some("figurative")));
    assert_eq!((row.line, &row.audio, &row.group), (1, &None, &None));
    assert_eq!(
        json!(row.extra),
        json!({
            "idiom": "in the running", "span": [[0, 2]],
            "context": ["Before .", "Just before .", "É in the running .", "Just after .", "After ."],
            "confidence": 0.5, "genre": "W fict prose", "variant_type": "identical", "document_id": "A1",
            "sentence_no": "12",
        })
    );
    // Its end is behind the text's.
    assert!(!corpus.folds[0].parts[0].1[2].extra.contains_key("span"));
    assert_eq!(corpus.folds[0].parts[2].1[0].label.as_deref(), Some("literal"));
    assert_eq!(
        json!(corpus.counts),
        json!({
            "rows": 9, "by_label": {"?": 1, "f": 1, "i": 3, "l": 3, "o": 1}, "below_confidence": 0, "kept": 6,
            "idioms": {"train": 2, "dev": 1, "test": 1},
        })
    );
    assert_eq!(
        corpus.notes,
        [
            "rows that are neither idiomatic nor literal (f, o, ?), left out: 3",
            "rows that do not say where the idiom is, kept without `span`: 1",
        ]
    );
    // Ten and fifteen say the same but for case and punctuation.
    assert_eq!(declared(&corpus.folds[0].shared), ["text dev test"]);
    let written = folder::write(&temporary.path().join("out"), corpus).unwrap();
    assert_eq!(written.splits[0].utterances["train"], 3);

    // The random split has idioms in more than one part.
    put(&path, lines(&[all[0].clone(), record(16, "in the running", "l", "Other .", Some("test"))]));
    let corpus = prepared(&MagpieOptions::new(vec![path]));
    assert!(corpus.notes[0].ends_with("as in the random split: 1 of 1"), "{:?}", corpus.notes);
}

#[test]
fn a_file_of_one_record_or_an_array_is_read() {
    let one = record(1, "on ice", "i", "On ice .", None);
    let pretty = serde_json::to_string_pretty(&one).unwrap();
    let [item] = &records(pretty.as_bytes()).0[..] else { panic!("not one") };
    assert_eq!((item.line, item.id.as_deref(), item.part), (1, Some("magpie-1"), None));
    let many = json!([one, record(2, "on ice", "l", "Off ice .", None), {"id": 3}]);
    for text in [many.to_string(), serde_json::to_string_pretty(&many).unwrap()] {
        let (items, wrong) = records(text.as_bytes());
        assert_eq!(items.len(), 2);
        assert!(wrong[0].1.starts_with("record 3: not a record of MAGPIE (missing field `idiom`)"), "{wrong:?}");
    }
}

#[test]
fn without_a_split_no_idiom_crosses() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("MAGPIE_unfiltered.jsonl");
    // Twenty idioms, the first used once and the last twenty times: 210 rows.
    let mut all: Vec<Value> = Vec::new();
    for idiom in 1..=20 {
        for _ in 0..idiom {
            let number = all.len();
            all.push(record(number, &format!("idiom {idiom}"), "i", &format!("Text {number} ."), None));
        }
    }
    put(&path, lines(&all));
    let options = MagpieOptions::new(vec![path.clone()]);
    let corpus = prepared(&options);
    assert_eq!(corpus.protocol, "idiom-types");
    assert_eq!(corpus.counts["idioms"], json!({"train": 16, "dev": 2, "test": 2}));
    assert_eq!(parts(&corpus).concat().len(), 210);
    assert_eq!(
        corpus.notes,
        ["rows of MAGPIE_unfiltered by label: i 210 of the published 40011, l 0 of the \
                               published 16168, o 0 of the published 436, ? 0 of the published 7"]
    );
    // Neither the order of the rows nor anything but the seed decides.
    all.reverse();
    put(&path, lines(&all));
    assert_eq!(parts(&prepared(&options)), parts(&corpus));
    assert_ne!(parts(&prepared(&MagpieOptions { seed: 2, ..options.clone() })), parts(&corpus));
    let halves = prepared(&MagpieOptions { fractions: [0.5, 0.0, 0.5], ..options.clone() });
    assert_eq!(halves.counts["idioms"], json!({"train": 10, "dev": 0, "test": 10}));
    // Some rows with a split, some without: an idiom could cross.
    all[0]["split"] = "test".into();
    put(&path, lines(&all));
    let error = failed(&options);
    assert!(error.contains("has no split, and others have one"), "{error}");
}

#[test]
fn confidence_is_a_limit() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("a.jsonl");
    let mut all: Vec<Value> = (0..4).map(|id| record(id, "on ice", "i", "On ice .", Some("test"))).collect();
    for (record, confidence) in all.iter_mut().zip([0.74, 0.75, 1.0, 0.0]) {
        record["confidence"] = confidence.into();
    }
    put(&path, lines(&all));
    let options = MagpieOptions { min_confidence: Some(0.75), ..MagpieOptions::new(vec![path.clone()]) };
    let corpus = prepared(&options);
    assert_eq!(parts(&corpus)[2], ["magpie-1", "magpie-2"]);
    assert_eq!(corpus.counts["below_confidence"], 2);
    all[1].as_object_mut().unwrap().shift_remove("confidence");
    put(&path, lines(&all));
    let error = failed(&options);
    assert!(error.contains("a.jsonl, line 2: `magpie-1` has no confidence"), "{error}");
    let error = failed(&MagpieOptions { min_confidence: Some(f64::NAN), ..options.clone() });
    assert!(error.contains("must be 0 to 1"), "{error}");
    let error = failed(&MagpieOptions { fractions: [0.8, 0.1, 0.2], ..options });
    assert!(error.contains("sum to 1"), "{error}");
    assert!(failed(&MagpieOptions::new(Vec::new())).contains("no input"));
}

const TABLE: &str = "split\tlabel\tidiom\tidiom_token\tsentence\tsentence_marked\tcontext\n\
    dev\tidiomatic\tin a fog\tIDinafogID\tI was in a fog , é .\tI was IDinafogID , é .\tA . B .\n\
    test\tliteral\ton ice\tIDoniceID\t\"\"\"É \t on ice\n\"\t\"\"\"É \t IDoniceID \"\t\"He said \"\"no\"\" .\"\n\
    dev\tliteral\ton ice\tIDoniceID\tAn icy text .\tSomething else .\tC .\n";

#[test]
fn the_table_is_read_packed_or_not() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    put(&at("a.tsv"), TABLE);
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(TABLE.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    put(&at("b.tsv.gz"), &packed);
    for name in ["a.tsv", "b.tsv.gz"] {
        let corpus = prepared(&MagpieOptions::new(vec![at(name)]));
        assert_eq!(parts(&corpus), [vec![], vec!["dev-00001", "dev-00002"], vec!["test-00001"]]);
        let [fog, ice] = [&corpus.folds[0].parts[1].1[0], &corpus.folds[0].parts[2].1[0]];
        assert_eq!((fog.text.as_deref(), fog.line), (Some("I was in a fog , é ."), 2));
        assert_eq!(json!(fog.extra), json!({"idiom": "in a fog", "span": [[6, 14]], "context": "A . B ."}));
        // A quotation mark, an accented letter, a space, a tab, a space: the idiom begins at the sixth character.
        assert_eq!((ice.text.as_deref(), ice.label.as_deref()), (Some("\"É \t on ice"), Some("literal")));
        assert_eq!((ice.line, &ice.extra["span"]), (3, &json!([[5, 11]])));
        assert_eq!(ice.extra["context"], "He said \"no\" .");
        assert!(!corpus.folds[0].parts[1].1[1].extra.contains_key("span"));
    }
    // Numbers go on from table to table, whichever is named first.
    let both = prepared(&MagpieOptions::new(vec![at("b.tsv.gz"), at("a.tsv")]));
    assert_eq!(parts(&both)[1], ["dev-00001", "dev-00002", "dev-00003", "dev-00004"]);
    put(&at("b.tsv.gz"), &packed[..packed.len() / 2]);
    let error = failed(&MagpieOptions::new(vec![at("b.tsv.gz")]));
    assert!(error.contains("b.tsv.gz: cannot be unpacked"), "{error}");
    let error = failed(&MagpieOptions { min_confidence: Some(0.5), ..MagpieOptions::new(vec![at("a.tsv")]) });
    assert!(error.contains("a.tsv, line 2: `dev-00001` has no confidence"), "{error}");
}

#[test]
fn spans_are_where_the_mark_is() {
    // A common beginning of idiom and mark is no part of the text before it.
    for (text, marked, token, expected) in [
        ("ID of it .", "IDitID of it .", "IDitID", Some([0, 2])),
        ("I D", "I IDdID", "IDdID", Some([2, 3])),
        ("a b", "a b", "IDbID", None),
        ("a b", "c IDbID", "IDbID", None),
        ("a ", "a IDbID", "IDbID", None),
        ("a", "a", "", None),
    ] {
        assert_eq!(marked_span(text, marked, token), expected, "{marked}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    let mut short = record(2, "on ice", "i", "x", None);
    short["context"] = json!(["a", "b"]);
    let mut no_id = record(3, "on ice", "i", "x", None);
    no_id["id"] = json!([]);
    let good = record(1, "on ice", "i", "x", None);
    let text = lines(&[
        good.clone(),
        short,
        no_id,
        record(4, "on ice", "z", "x", None),
        record(5, "on ice", "i", "x", Some("somewhere")),
        good,
        json!([]),
    ]) + "{\n";
    put(&at("a.jsonl"), text);
    let error = failed(&MagpieOptions::new(vec![at("a.jsonl")]));
    for expected in [
        "a.jsonl, line 2: `context` has 2 sentences",
        "line 3: `id` is []",
        "line 4: unknown label `z`",
        "line 5: unknown split `somewhere`",
        "line 6: `magpie-1` is already in",
        "line 7: not a record of MAGPIE",
        "line 8: not valid JSON",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    let table = format!("{TABLE}dev\tidiomatic\ntrain\tx\ta\tb\tc\td\te\nnowhere\tliteral\ta\tb\tc\td\te\n");
    put(&at("a.tsv"), table);
    let error = failed(&MagpieOptions::new(vec![at("a.tsv")]));
    // The second row takes two lines.
    for expected in ["a.tsv, line 6: only 2 fields", "line 7: unknown label `x`", "line 8: unknown split `nowhere`"] {
        assert!(error.contains(expected), "{error}");
    }
    put(&at("a.tsv"), "split\tlabel\nx\ty\n");
    let error = failed(&MagpieOptions::new(vec![at("a.tsv")]));
    assert!(error.contains("line 1: no column `idiom`") && error.contains("no column `context`"), "{error}");
    put(&at("a.tsv"), b"split\xFF\n");
    assert!(failed(&MagpieOptions::new(vec![at("a.tsv")])).contains("line 1: not valid UTF-8"));
    put(&at("a.tsv"), "");
    assert!(failed(&MagpieOptions::new(vec![at("a.tsv")])).contains("no rows"));
    assert!(failed(&MagpieOptions::new(vec![at("gone.jsonl")])).contains("gone.jsonl: no such file"));
}

#[test]
fn no_bytes_panic() {
    let all = lines(&[record(1, "on ice", "i", "On ice é .", None), record(2, "on ice", "l", "x", Some("test"))]);
    never_panics(all.as_bytes(), 5_000, |bytes| drop(records(bytes)));
    never_panics(json!([record(1, "on ice", "i", "On ice .", None)]).to_string().as_bytes(), 2_000, |bytes| {
        drop(records(bytes));
    });
    never_panics(TABLE.as_bytes(), 5_000, |bytes| drop(table(bytes)));
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("a.tsv.gz");
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(TABLE.as_bytes()).unwrap();
    never_panics(&packed.finish().unwrap(), 300, |bytes| {
        put(&path, bytes);
        let _ = prepare(&MagpieOptions::new(vec![path.clone()]), &AudioOptions::default(), &silent);
    });
}

fn text_at(row: &Row) -> String {
    let span = |place: usize| usize::try_from(row.extra["span"][0][place].as_u64().unwrap()).unwrap();
    row.text.as_ref().unwrap().chars().skip(span(0)).take(span(1) - span(0)).collect()
}

#[test]
fn the_real_dev_and_test() {
    let Some(root) = test_data("magpie") else { return };
    let corpus = prepared(&MagpieOptions::new(vec![root.join("dev_test.tsv.gz")]));
    let [train, dev, test] = [0, 1, 2].map(|part| &corpus.folds[0].parts[part].1);
    let labelled = |rows: &[Row], label: &str| rows.iter().filter(|row| row.label.as_deref() == Some(label)).count();
    assert_eq!((train.len(), dev.len(), test.len()), (0, 4_840, 4_840));
    assert_eq!((labelled(dev, "figurative"), labelled(dev, "literal")), (3_473, 1_367));
    assert_eq!((labelled(test, "figurative"), labelled(test, "literal")), (3_329, 1_511));
    assert!(dev.iter().chain(test).all(|row| row.extra.contains_key("span")));
    assert_eq!(text_at(&dev[0]), "in a fog");
    assert_eq!((dev[0].id.as_str(), dev[0].line), ("dev-00001", 2));
    let idioms = &corpus.counts["idioms"];
    assert_eq!(idioms["dev"].as_u64().unwrap() + idioms["test"].as_u64().unwrap(), 306);
    assert_eq!(corpus.notes, Vec::<String>::new());
    // 23 sentences are in both, letter by letter, and 4 more without regard to case and punctuation.
    assert_eq!(declared(&corpus.folds[0].shared), ["text dev test"]);
    assert!(corpus.folds[0].shared[0].reason.contains(" 27 sentences"), "{:?}", corpus.folds[0].shared);
    one_real_record(&root);
}

fn one_real_record(root: &Path) {
    let corpus = prepared(&MagpieOptions::new(vec![root.join("sample.json")]));
    let row = &corpus.folds[0].parts[0].1[0];
    assert_eq!((row.id.as_str(), row.text.as_deref()), ("magpie-1", Some("I 'd keep him well in the running .")));
    assert_eq!(row.extra["span"], json!([[19, 21], [26, 33]]));
    assert_eq!((text_at(row).as_str(), row.label.as_deref()), ("in", Some("figurative")));
}
