//! Labels as people write them: what looks the same is the same, what looks alike is told, what is unknown is refused.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Said, clasp, lines_of, program, tone, wav};

/// A method that reads texts alone, as small as it can be.
pub const CONFIG: &str = r#"
[data]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
[text]
tokenizer = "train"
vocab_size = 280
[text.config]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 16
[model]
method = "text"
[train]
epochs = 1
[run]
dir = "run"
device = "cpu"
"#;

fn write(at: &Path, split: &str, labels: &[&str]) {
    let words = ["go", "halt", "start", "quit", "stop"];
    let row = |(place, label): (usize, &&str)| {
        let text = words[place % words.len()];
        json!({ "id": format!("{split}{place}"), "text": text, "label": label }).to_string() + "\n"
    };
    fs::write(at.join(format!("{split}.jsonl")), labels.iter().enumerate().map(row).collect::<String>()).unwrap();
}

/// Manifests of texts with these labels, twice as many of train, beside a config.
pub fn corpus(train: &[&str], dev: &[&str], test: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, "train", &[train, train].concat());
    write(at, "dev", dev);
    write(at, "test", test);
    fs::write(at.join("c.toml"), CONFIG).unwrap();
    folder
}

const TRAIN: [&str; 3] = ["train", "--config", "c.toml"];

#[test]
fn labels_that_look_the_same_are_the_same_everywhere() {
    // Composed and decomposed, with and without space.
    let folder =
        corpus(&["\u{e9}t\u{e9}", " e\u{301}te\u{301}", "hiver", "hiver\u{a0}"], &["hiver "], &["e\u{301}te\u{301} "]);
    let at = folder.path();
    let checked = clasp(at, &["check", "train.jsonl", "--json"]).good();
    let report: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(report["manifests"][0]["labels"], json!({ "hiver": 4, "\u{e9}t\u{e9}": 4 }));
    clasp(at, &[&TRAIN[..], &["--set", "run.test_at_end=true"]].concat()).good();
    let config: Value = serde_json::from_str(&fs::read_to_string(at.join("run/best/config.json")).unwrap()).unwrap();
    assert_eq!(config["labels"], json!(["hiver", "\u{e9}t\u{e9}"]));
    assert_eq!(lines_of(&at.join("run/predictions-test.jsonl"))[0]["truth"], "\u{e9}t\u{e9}");
    // As another program may have written them.
    let path = at.join("run/predictions-test.jsonl");
    let text = fs::read_to_string(&path).unwrap().replace('\u{e9}', "e\u{301}").replace("hiver\"", "hiver \"");
    let other = at.join("other");
    fs::create_dir(&other).unwrap();
    for name in ["config.toml", "manifest.json", "report-test.json"] {
        fs::copy(at.join("run").join(name), other.join(name)).unwrap();
    }
    fs::write(other.join("predictions-test.jsonl"), text).unwrap();
    clasp(at, &["eval", "--checkpoint", "run", "--split", "test", "--against", "other"]).good();
    // Stated labels too; and what is one label twice is refused.
    let set = "data.labels=['hiver ', 'e\u{301}te\u{301}']";
    clasp(at, &[&TRAIN[..], &["--set", "run.dir=stated", "--set", set]].concat()).good();
    let set = "data.labels=['hiver ', 'hiver', '\u{e9}t\u{e9}']";
    clasp(at, &[&TRAIN[..], &["--set", "run.dir=twice", "--set", set]].concat()).bad(3, &["a label is listed twice"]);
    // Nothing but space is no label.
    write(at, "train", &["a", " "]);
    let words = [&TRAIN[..], &["--set", "run.dir=empty"]].concat();
    clasp(at, &words).bad(3, &["train.jsonl, line 2: `label` is empty"]);
}

#[test]
fn labels_that_look_alike_are_told() {
    let folder =
        corpus(&["happy", "Happy", "sad", "play_music", "play music"], &["happy", "sad"], &["S\u{e1}d", "sad"]);
    let at = folder.path();
    let alike = |said: &str| {
        for names in ["`Happy` and `happy`", "`play music` and `play_music`"] {
            assert!(said.contains(&format!("the labels {names} differ only by case, space, accents")), "{said}");
        }
    };
    alike(&clasp(at, &TRAIN).good().stderr);
    let said = clasp(at, &["check", "train.jsonl", "test.jsonl", "--allow-leak", "text"]).good();
    alike(&said.stdout);
    assert!(said.stdout.contains("warning: the labels `S\u{e1}d` and `sad` differ only"), "{}", said.stdout);
    alike(&clasp(at, &["doctor", "--config", "c.toml", "--no-measure"]).stdout);
    fs::write(at.join("t.csv"), "text,label\na,happy\nb,Happy\nc,play_music\nd,play music\n").unwrap();
    let words = ["prepare", "table", "--input", "t.csv", "--audio-column=", "--fractions", "1,0,0", "--output", "o"];
    alike(&clasp(at, &words).good().stdout);
    // Numbers and signs differ by just these.
    let numbers = corpus(&["-1", "1", "+", "-"], &["1"], &["1"]);
    let said = clasp(numbers.path(), &["check", "train.jsonl"]).good();
    assert!(!said.stdout.contains("differ only"), "{}", said.stdout);
}

#[test]
fn one_label_is_an_error() {
    let folder = corpus(&["a", "a"], &["a"], &["a"]);
    let at = folder.path();
    for more in [&[][..], &["--set", "data.labels=['a', 'b']"]] {
        clasp(at, &[&TRAIN[..], more].concat())
            .bad_line(3, &["data.train: the label set (`a`) is not valid: it is the only one"]);
    }
    assert!(!at.join("run/config.toml").exists());
    clasp(at, &["doctor", "--config", "c.toml", "--no-measure"]).bad(3, &[]);
    let said = clasp(at, &["check", "train.jsonl"]).good();
    assert!(
        said.stdout.contains("warning: train: all utterances have the same label, and training"),
        "{}",
        said.stdout
    );
}

/// Weighted F1 by its formula, over the labels that are true or predicted (as scikit-learn's `f1_score`).
fn weighted_f1(rows: &[Value]) -> f64 {
    let truths: BTreeSet<&str> = rows.iter().map(|row| row["truth"].as_str().unwrap()).collect();
    let count = |is_it: &dyn Fn(&Value) -> bool| {
        f64::from(u32::try_from(rows.iter().filter(|row| is_it(row)).count()).unwrap())
    };
    let f1 = |label: &str| {
        let both = count(&|row| row["truth"] == label && row["label"] == label);
        2.0 * both / (count(&|row| row["truth"] == label) + count(&|row| row["label"] == label))
    };
    truths.iter().map(|label| f1(label) * count(&|row| row["truth"] == **label)).sum::<f64>() / count(&|_| true)
}

#[test]
fn labels_that_train_lacks_are_told_at_once_and_scored_as_asked() {
    let folder = corpus(&["on", "off", "on"], &["off", "on"], &["up", "on", "down", "off", "up"]);
    let at = folder.path();
    let lines = [
        "unknown label `down`: 1 utterance, the first is utterance `test2` (line 3)",
        "unknown label `up`: 2 utterances",
    ];
    let said = clasp(at, &TRAIN).good();
    let doctor = clasp(at, &["doctor", "--config", "c.toml", "--no-measure"]).good();
    let refused = clasp(at, &["eval", "--checkpoint", "run", "--split", "test"]).bad(3, &["test.jsonl: "]);
    for line in lines {
        for (place, said) in [("train", &said.stderr), ("doctor", &doctor.stdout), ("eval", &refused.stderr)] {
            assert_eq!(said.matches(line).count(), 1, "{place}: {said}");
        }
    }
    // A line for each, and one of what is known.
    assert_eq!(refused.message().trim_end().lines().count(), 3, "{}", refused.message());
    assert!(refused.message().contains("the known labels are `off`, `on`"), "{}", refused.message());
    assert!(!at.join("run/predictions-test.jsonl").exists());
    let eval = |how: &str| {
        let words = ["eval", "--checkpoint", "run", "--split", "test", "--json", "--unknown-labels", how];
        let report: Value = serde_json::from_str(&clasp(at, &words).good().stdout).unwrap();
        (report, lines_of(&at.join("run/predictions-test.jsonl")))
    };
    let (report, rows) = eval("wrong");
    assert_eq!((rows.len(), &report["examples"]), (5, &json!(5)));
    assert_eq!(report["labels"], json!(["off", "on", "down", "up"]));
    assert_eq!(report["unknown_labels"], json!({ "are_dropped": false, "counts": { "down": 1, "up": 2 } }));
    let headline = &report["fusion"]["weighted_f1"]["value"];
    assert!((headline.as_f64().unwrap() - weighted_f1(&rows)).abs() < 1e-9, "{headline}");
    clasp(at, &["verify", "run"]).good();
    let (report, rows) = eval("drop");
    assert_eq!((rows.len(), &report["examples"], &report["labels"]), (2, &json!(2), &json!(["off", "on"])));
    let headline = &report["fusion"]["weighted_f1"]["value"];
    assert!((headline.as_f64().unwrap() - weighted_f1(&rows)).abs() < 1e-9, "{headline}");
    clasp(at, &["verify", "run"]).good();
    let said = clasp(at, &["eval", "--checkpoint", "run", "--split", "test", "--unknown-labels", "drop"]).good();
    assert!(said.stdout.contains("warning: the model does not know `up`: 2 examples left out"), "{}", said.stdout);
    // Of dev the best epoch is picked, and a test at the end is told before the beginning.
    clasp(at, &[&TRAIN[..], &["--set", "run.dir=b", "--set", "run.test_at_end=true"]].concat())
        .bad(3, &["data.test", lines[0]]);
    write(at, "dev", &["on", "up", "up"]);
    clasp(at, &[&TRAIN[..], &["--set", "run.dir=c"]].concat()).bad_line(3, &["data.dev", lines[1]]);
    clasp(at, &["doctor", "--config", "c.toml", "--no-measure"]).bad(3, &[]);
}

#[test]
fn recordings_are_found_by_names_in_another_normal_form() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir(at.join("U\u{308}ben")).unwrap();
    fs::write(at.join("U\u{308}ben/A\u{308}.wav"), wav(1, 16, &tone(1600), 3200)).unwrap();
    let row = |audio: &str| json!({ "id": "a", "audio": audio, "text": "x", "label": "l" }).to_string() + "\n";
    fs::write(at.join("m.jsonl"), row("\u{dc}ben/\u{c4}.wav")).unwrap();
    clasp(at, &["check", "m.jsonl", "--decode"]).good();
    fs::write(at.join("m.jsonl"), row("\u{dc}ben/\u{e4}.WAV")).unwrap();
    let said = clasp(at, &["check", "m.jsonl"]);
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    assert!(
        said.stdout.contains("; there is ") && said.stdout.contains("A\u{308}.wav, whose name differs"),
        "{}",
        said.stdout
    );
}

#[test]
fn no_name_reaches_the_terminal_as_a_command() {
    // Clears the screen, sets the title, turns the direction: as control characters of both sets.
    let wild = "a\u{1b}[2J\u{9b}31m\u{1b}]0;title\u{7}\u{202e}b";
    let folder = corpus(&[wild, "c", wild], &["c", wild], &["c"]);
    let at = folder.path();
    let tame = |said: &str| {
        let bad: Vec<char> =
            said.chars().filter(|letter| letter.is_control() && *letter != '\n' && *letter != '\t').collect();
        assert!(bad.is_empty() && !said.contains('\u{202e}'), "{bad:?} in {said:?}");
    };
    let run = |words: &[&str]| {
        let said = clasp(at, words);
        tame(&said.stdout);
        tame(&said.stderr);
        said
    };
    run(&TRAIN).good();
    run(&["check", "train.jsonl", "dev.jsonl", "--allow-leak", "text"]).good();
    run(&["eval", "--checkpoint", "run", "--split", "dev"]).good();
    let said = run(&["eval", "--checkpoint", "run", "--split", "dev", "--json"]).good();
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(report["labels"][0], wild);
    assert_eq!(run(&["predict", "--checkpoint", "run", "--text", "go"]).code, Some(0));
    assert_eq!(run(&["predict", "--checkpoint", "run", "--manifest", "dev.jsonl"]).good().rows().len(), 2);
    fs::write(at.join("t.csv"), format!("text,label\none,{wild}\ntwo,c\n")).unwrap();
    run(&["prepare", "table", "--input", "t.csv", "--audio-column=", "--fractions", "1,0,0", "--output", "o"]).good();
    // Of the command line, whether a command or clap repeats it.
    run(&["check", wild]).bad(3, &[]);
    run(&["train", "--config", wild]).bad(2, &[]);
    run(&["eval", "--checkpoint", "run", "--split", wild]).bad(2, &["--split"]);
    run(&[wild]).bad(2, &[]);
    let rows = json!({ "id": wild, "text": "x", "label": "unknown" }).to_string();
    fs::write(at.join("rows.jsonl"), rows).unwrap();
    run(&["eval", "--checkpoint", "run", "--manifest", "rows.jsonl"]).bad(3, &["unknown label"]);
}

/// The formatter of the standard library takes no width above 65,535.
#[test]
fn names_of_any_length_are_shown_in_part() {
    let long = "x".repeat(65_536);
    let folder = corpus(&[&long, "c"], &["c", &long], &["c"]);
    let at = folder.path();
    let tables = [
        clasp(at, &["check", "dev.jsonl"]).good().stdout,
        clasp(at, &[&TRAIN[..], &["--set", "run.test_at_end=true"]].concat()).good().stdout,
        clasp(at, &["eval", "--checkpoint", "run", "--split", "dev", "--by", "label"]).good().stdout,
    ];
    let shown = format!("{}...", "x".repeat(60));
    for table in tables {
        assert!(table.contains(&shown), "{table}");
        assert!(table.lines().all(|line| line.len() < 1000), "{table}");
    }
    let rows = json!({ "id": long, "text": "x", "speaker": long, "label": "c" }).to_string();
    fs::write(at.join("rows.jsonl"), rows).unwrap();
    clasp(at, &["check", "rows.jsonl"]).good();
    fs::write(at.join("t.csv"), format!("text,label\none,{long}\ntwo,c\n")).unwrap();
    clasp(at, &["prepare", "table", "--input", "t.csv", "--audio-column=", "--fractions", "1,0,0", "--output", "o"])
        .good();
}

#[test]
fn threads_are_as_many_as_the_machine_has() {
    let folder = tempfile::tempdir().unwrap();
    let threads = std::thread::available_parallelism().unwrap();
    for asked in ["100000", "18446744073709551615"] {
        let mut command = program(folder.path());
        let said = Said::of(&command.arg("doctor").env("RAYON_NUM_THREADS", asked).output().unwrap());
        assert!(said.stdout.contains(&format!("cpu              {threads} threads")), "{}", said.stdout);
        let note = format!("note: RAYON_NUM_THREADS asks for {asked} threads: there are {threads}, ");
        assert!(said.stderr.contains(&note), "{}", said.stderr);
    }
}

#[test]
fn a_config_has_no_more_keys_than_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let keys = |count: u32| (0..count).map(|number| format!("key{number} = 1\n")).collect::<Vec<_>>().concat();
    fs::write(at.join("c.toml"), keys(100_000)).unwrap();
    clasp(at, &TRAIN).bad_line(2, &["c.toml:1:1: ", "100000 keys and tables, and at most 10000 are read"]);
    fs::write(at.join("c.toml"), keys(9_000)).unwrap();
    clasp(at, &TRAIN).bad(2, &["key0"]);
}
