//! Comparisons through the real binary: plans that are run, killed, stopped and gone on with; the numbers of their
//! tables computed again; two runs held against each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{ENCODERS, REST, Said, catches_term, checkpoint, clasp, copy_folder, lines_of, program, tiny_run};

/// Two systems with two seeds: `clasp`, and one without the terms that the paper adds. Some seconds in all.
const PLAN: &str = r#"
config = "tiny.toml"
dir = "out"
methods = ["clasp"]
seeds = [1, 2]
set = ["train.epochs=8", "train.batch_size=2", "train.save_every_steps=5"]

[[system]]
name = "plain"
set = ["loss.semantic=0", "loss.modality=0", "loss.reconstruction=0", "loss.kl=0"]
"#;
const RUNS: [&str; 4] =
    ["tiny/clasp/fold1/seed1", "tiny/clasp/fold1/seed2", "tiny/plain/fold1/seed1", "tiny/plain/fold1/seed2"];
const METRICS: [&str; 4] = ["accuracy", "balanced_accuracy", "weighted_f1", "macro_f1"];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

/// A folder with a plan, and the tiny config on the corpus of [`tiny_run`], its test split too.
fn folder(plan: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let corpus = tiny_run().join("corpus");
    let part = |name: &str| format!("{name} = \"{}/{name}.jsonl\"\n", corpus.display());
    let data = ["train", "dev", "test"].map(part).concat();
    fs::write(folder.path().join("tiny.toml"), format!("[data]\n{data}{ENCODERS}{REST}")).unwrap();
    fs::write(folder.path().join("plan.toml"), plan).unwrap();
    folder
}

fn started(folder: &Path) -> Child {
    program(folder).args(["compare", "plan.toml"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn send(signal: &str, id: u32) {
    let sent = std::process::Command::new("bash").args(["-c", &format!("kill -{signal} {id}")]).status();
    assert!(sent.unwrap().success());
}

#[track_caller]
fn wait_until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_mins(2), "it does not come");
        sleep(Duration::from_millis(5));
    }
}

/// How many steps a run has logged.
fn steps(run: &Path) -> usize {
    fs::read_to_string(run.join("log.jsonl")).map_or(0, |text| text.matches("\"event\":\"step\"").count())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap())
}

#[track_caller]
fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap_or_else(|| panic!("no number: {found}"));
    assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
}

/// Of each utterance: whether a run is right about it.
fn right(run: &Path) -> BTreeMap<String, bool> {
    let rows = lines_of(&run.join("predictions-test.jsonl"));
    rows.iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row["label"] == row["truth"])).collect()
}

/// The numbers of a table against those of the runs' reports and predictions.
fn assert_table_fits(out: &Path) {
    let table = json(&out.join("table.json"));
    assert_eq!((table["runs_done"].as_u64(), table["comparisons"].as_u64()), (Some(4), Some(1)));
    let corpus = &table["corpora"][0];
    assert_eq!(
        (&corpus["name"], &corpus["utterances"], &corpus["selects_on_test"]),
        (&json!("tiny"), &json!(16), &json!(false))
    );
    let cells = corpus["systems"].as_array().unwrap();
    let system =
        |place: usize| -> Vec<PathBuf> { RUNS[2 * place..2 * place + 2].iter().map(|run| out.join(run)).collect() };
    for (place, cell) in cells.iter().enumerate() {
        let folders = system(place);
        for metric in METRICS {
            let scores: Vec<f64> = folders
                .iter()
                .map(|run| json(&run.join("report-test.json"))["fusion"][metric]["value"].as_f64().unwrap())
                .collect();
            close(&cell["mean"][metric], mean(&scores));
            // Of two numbers: their distance over the root of two.
            close(&cell["deviation"][metric], (scores[0] - scores[1]).abs() / 2.0_f64.sqrt());
            close(&cell["by_fold"][0]["mean"][metric], mean(&scores));
            // With one fold the seeds' scores are those of the runs.
            close(&cell["pooled"][metric]["value"], mean(&scores));
        }
        let all: Vec<f64> =
            folders.iter().flat_map(|run| right(run).into_values()).map(|right| f64::from(u8::from(right))).collect();
        close(&cell["pooled"]["accuracy"]["value"], mean(&all));
        let [low, high] = [0, 1].map(|bound| cell["pooled"]["accuracy"]["interval"][bound].as_f64().unwrap());
        assert!(low <= mean(&all) && mean(&all) <= high && low < high, "[{low}, {high}]");
        for (run, folder) in cell["runs"].as_array().unwrap().iter().zip(&folders) {
            assert_eq!(Path::new(run["folder"].as_str().unwrap()), folder);
            assert!(run["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
            let uses = json(&folder.join("manifest.json"))["test_uses"].as_array().unwrap().len();
            assert_eq!(run["test_uses"].as_u64(), Some(uses as u64));
        }
        // The numbers in the checkpoint, four bytes each, behind the head of its file.
        let file = fs::read(folders[0].join("best/model.safetensors")).unwrap();
        let head = u64::from_le_bytes(file[..8].try_into().unwrap());
        assert_eq!(cell["parameters"].as_u64(), Some((file.len() as u64 - 8 - head) / 4));
    }
    // Utterance by utterance: which system is right under more of the two seeds.
    let (clasp, plain) = (system(0), system(1));
    let gain = |id: &str| -> i32 {
        let count = |runs: &[PathBuf]| runs.iter().map(|run| i32::from(right(run)[id])).sum::<i32>();
        count(&plain) - count(&clasp)
    };
    let gains: Vec<i32> = right(&clasp[0]).keys().map(|id| gain(id)).collect();
    let against = &cells[1]["against"];
    assert!(cells[0]["against"].is_null() && against["paired_runs"] == 2);
    let comparison = &against["comparison"];
    assert_eq!((&comparison["pairs"], &comparison["utterances"]), (&json!(32), &json!(16)));
    close(&comparison["difference"]["accuracy"]["value"], f64::from(gains.iter().sum::<i32>()) / 32.0);
    let counted = |is_it: fn(&&i32) -> bool| json!(gains.iter().filter(is_it).count());
    assert_eq!(comparison["mcnemar"]["only_first"], counted(|gain| **gain < 0));
    assert_eq!(comparison["mcnemar"]["only_second"], counted(|gain| **gain > 0));
    // One comparison is its own family.
    assert_eq!(against["mcnemar_p_holm"], comparison["mcnemar"]["p_value"]);
    assert_eq!(against["p_holm"]["weighted_f1"], comparison["difference"]["weighted_f1"]["p_value"]);

    let markdown = fs::read_to_string(out.join("table.md")).unwrap();
    let score = |cell: &Value, of: &str| cell[of]["accuracy"].as_f64().unwrap();
    let cell = format!("{:.3} ± {:.3}", score(&cells[0], "mean"), score(&cells[0], "deviation"));
    assert!(markdown.contains(&format!("| clasp | {cell} |")), "{markdown}");
    for run in RUNS {
        assert!(markdown.contains(&format!("| {run} |")) && markdown.contains(&out.join(run).display().to_string()));
    }
    let csv = fs::read_to_string(out.join("table.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    let column = rows[0].iter().position(|name| *name == "weighted_f1_mean").unwrap();
    close(&json!(rows[2][column].parse::<f64>().unwrap()), cells[1]["mean"]["weighted_f1"].as_f64().unwrap());
}

#[test]
fn a_comparison_that_is_stopped_as_it_starts_is_interrupted() {
    let folder = folder(PLAN);
    for pause in [0, 2, 5, 10, 20, 50, 100] {
        let child = started(folder.path());
        wait_until(|| catches_term(&child));
        sleep(Duration::from_millis(pause));
        send("TERM", child.id());
        let said = Said::of(&child.wait_with_output().unwrap());
        assert_eq!(said.code, Some(130), "after {pause} ms: {}", said.stderr);
    }
}

#[test]
fn a_killed_comparison_goes_on_without_repeating() {
    let folder = folder(PLAN);
    let at = folder.path();
    let run = |place: usize| at.join("out").join(RUNS[place]);
    let dry = clasp(at, &["compare", "plan.toml", "--dry-run"]).good();
    assert!(
        dry.stdout.contains("4 runs, 0 done, 0 to go on with, 4 to begin, 1 at a time; roughly "),
        "{}",
        dry.stdout
    );
    assert!(!at.join("out").exists());

    let mut child = started(at);
    wait_until(|| run(0).join("report-test.json").is_file() && steps(&run(1)) > 12);
    send("KILL", child.id());
    child.wait().unwrap();
    assert!(!at.join("out/table.json").exists());
    let before = fs::read(run(0).join("manifest.json")).unwrap();
    let dry = clasp(at, &["compare", "plan.toml", "--dry-run", "--json"]).good();
    let dry: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((&dry["runs"][0]["state"], &dry["runs"][3]["state"]), (&json!("done"), &json!("to begin")));
    let from = |place: usize| (&dry["runs"][place]["estimated_from"], dry["runs"][place]["seconds"].as_f64().unwrap());
    let (timed, guessed) = (from(1), from(3));
    assert!(timed.0 == "runs" && guessed.0 == "arithmetic" && timed.1 > 0.0 && guessed.1 > 0.0, "{dry}");
    assert_eq!(
        (&dry["estimate"]["runs_of_guessed_time"], &dry["estimate"]["runs_of_unknown_time"]),
        (&json!(2), &json!(0))
    );

    // What the killed process began may still be at work: it is waited for.
    let said = clasp(at, &["compare", "plan.toml"]).good();
    assert!(
        said.stderr.contains("plan plan: 4 runs, 1 done, ") && said.stderr.contains("done: tiny/plain/fold1/seed2: ")
    );
    assert!(!said.stderr.contains("begins: tiny/clasp/fold1/seed1"), "{}", said.stderr);
    assert_eq!(fs::read(run(0).join("manifest.json")).unwrap(), before);
    for place in 0..4 {
        let manifest = json(&run(place).join("manifest.json"));
        assert_eq!((&manifest["finished"], manifest["test_uses"].as_array().unwrap().len()), (&json!(true), 1));
        assert_eq!(steps(&run(place)), 12 * 8);
        assert_eq!(json(&run(place).join("report-test.json"))["test_uses"], 1);
    }
    assert_table_fits(&at.join("out"));

    // A third time there is nothing to do, and the table is the same.
    let table = json(&at.join("out/table.json"));
    let again = clasp(at, &["compare", "plan.toml", "--quiet"]).good();
    assert_eq!((again.stdout, again.stderr.as_str()), (said.stdout, ""));
    let again = clasp(at, &["compare", "plan.toml", "--quiet", "--json"]).good();
    assert_eq!(
        (serde_json::from_str::<Value>(&again.stdout).unwrap(), json(&at.join("out/table.json"))),
        (table.clone(), table)
    );

    // What is damaged is scored again, and nothing else is done.
    fs::write(run(0).join("report-test.json"), "{}").unwrap();
    fs::write(run(2).join("predictions-test.jsonl"), "").unwrap();
    let dry = clasp(at, &["compare", "plan.toml", "--dry-run"]).good();
    assert!(dry.stdout.contains("4 runs, 2 done, 2 to go on with, 0 to begin"), "{}", dry.stdout);
    let before = json(&at.join("out/table.json"));
    clasp(at, &["compare", "plan.toml"]).good();
    let pooled = |table: &Value| -> Vec<Value> {
        table["corpora"][0]["systems"].as_array().unwrap().iter().map(|cell| cell["pooled"].clone()).collect()
    };
    assert_eq!(pooled(&before), pooled(&json(&at.join("out/table.json"))));
    for (place, uses) in [2, 1, 2, 1].into_iter().enumerate() {
        assert_eq!(json(&run(place).join("manifest.json"))["test_uses"].as_array().unwrap().len(), uses);
    }

    // Other configs in the same folder are refused before anything is done.
    clasp(at, &["compare", "plan.toml", "--set", "train.epochs=9"])
        .bad_line(2, &["tiny/clasp/fold1/seed1: train.epochs: 8 there, 9 here", "choose another `dir`"]);
}

#[test]
fn an_interrupted_comparison_stops_its_runs_and_goes_on() {
    // All at the same time.
    let folder = folder(&format!("jobs = 4\n{}", PLAN.replace("epochs=8", "epochs=60")));
    let at = folder.path();
    let runs: Vec<PathBuf> = RUNS.iter().map(|run| at.join("out").join(run)).collect();
    let child = started(at);
    wait_until(|| runs.iter().all(|run| steps(run) > 2));
    clasp(at, &["compare", "plan.toml"]).bad_line(2, &["another process is at work on the plan's folder", "out"]);
    send("INT", child.id());
    let said = Said::of(&child.wait_with_output().unwrap());
    said.bad_line(130, &["interrupted: 0 of 4 runs are done; the same command goes on"]);
    for run in &runs {
        assert_eq!(json(&run.join("manifest.json"))["finished"], false);
        assert!(run.join("last/state.json").is_file());
        // No child is left at work: the folder is free.
        clasp(at, &["log", run.to_str().unwrap()]).good();
        let said = fs::read_to_string(run.join("compare.log")).unwrap();
        assert!(said.contains("interrupted at step"), "{said}");
    }
    let dry = clasp(at, &["compare", "plan.toml", "--dry-run"]).good();
    assert!(dry.stdout.contains("4 to go on with, 0 to begin, 4 at a time"), "{}", dry.stdout);
}

/// Two folds of a protocol that selects the epoch on the test data: 16 utterances in the first, 8 in the second.
#[test]
fn folds_are_pooled_and_their_protocol_is_stated() {
    let plan = "config = 'tiny.toml'\ndir = 'out'\nset = ['train.epochs=1']\nseeds = [1, 2]\n\
        [[corpus]]\nname = 'c'\ndata = 'f{fold}'\nfolds = 2\ncluster = 'speaker'\n";
    let folder = folder(plan);
    let at = folder.path();
    for (fold, tested) in [("f1", "test"), ("f2", "dev")] {
        copy_folder(&tiny_run().join("corpus"), &at.join(fold));
        let rows = fs::read(at.join(fold).join(format!("{tested}.jsonl"))).unwrap();
        for part in ["dev", "test"] {
            fs::write(at.join(fold).join(format!("{part}.jsonl")), &rows).unwrap();
        }
        let shared = ["speaker", "text", "audio"]
            .map(|kind| json!({ "kind": kind, "splits": ["dev", "test"], "reason": "the same session" }));
        let split = json!({ "format": "clasp-split-1", "protocol": "kang2022", "shared": shared });
        fs::write(at.join(fold).join("split.json"), split.to_string()).unwrap();
    }
    let said = clasp(at, &["compare", "plan.toml", "--device", "cpu,cpu"]).good();
    assert!(said.stderr.contains("4 to begin, 2 at a time"), "{}", said.stderr);
    let statement = "c: protocol kang2022, 2 folds, 24 test utterances; the best epoch is selected on recordings of \
                     the test data (dev and test share them), so that the scores are too high";
    assert!(said.stdout.replace("\n  ", " ").contains(statement), "{}", said.stdout);
    let table = json(&at.join("out/table.json"));
    let shared = table["corpora"][0]["shared"].as_array().unwrap();
    assert!(shared.iter().any(|note| note.as_str().unwrap().starts_with("note: dev and test share 16 recordings")));
    assert!(said.stdout.replace("\n  ", " ").contains("c: note: dev and test share 16 recordings"), "{}", said.stdout);
    let cell = &table["corpora"][0]["systems"][0];
    let runs = |fold: usize| [1, 2].map(|seed| at.join(format!("out/c/clasp/fold{fold}/seed{seed}")));
    let score = |run: &Path| json(&run.join("report-test.json"))["fusion"]["accuracy"]["value"].as_f64().unwrap();
    for fold in [1, 2] {
        let found = &cell["by_fold"][fold - 1];
        assert_eq!((&found["fold"], &found["runs"]), (&json!(fold), &json!(2)));
        close(&found["mean"]["accuracy"], mean(&runs(fold).map(|run| score(&run))));
    }
    // Utterance by utterance over both folds, of each seed.
    let pooled = [0, 1].map(|seed| {
        let all = [1, 2].map(|fold| right(&runs(fold)[seed])).into_iter().flatten().map(|(_, right)| right);
        mean(&all.map(|right| f64::from(u8::from(right))).collect::<Vec<f64>>())
    });
    close(&cell["pooled"]["accuracy"]["value"], mean(&pooled));
    assert_eq!(json(&runs(1)[0].join("report-test.json"))["bootstrap"]["cluster"], "speaker");
    assert!(fs::read_to_string(at.join("out/table.md")).unwrap().contains("| system | fold 1 | fold 2 |"));

    // Runs on other data do not stand beside what would be made now.
    let tested = at.join("f1/test.jsonl");
    let rows = fs::read_to_string(&tested).unwrap();
    let (_, rest) = rows.split_once('\n').unwrap();
    fs::write(&tested, rest).unwrap();
    for words in [&["compare", "plan.toml"][..], &["compare", "plan.toml", "--dry-run"]] {
        let said = clasp(at, words).bad(2, &["c/clasp/fold1/seed1: test: ", "has changed since"]);
        assert!(!said.stderr.contains("fold2"), "{}", said.stderr);
    }
}

#[test]
fn a_failed_run_does_not_stop_the_others() {
    let plan = PLAN.replace("seeds = [1, 2]", "seeds = [1]").replace("epochs=8", "epochs=1").replace("plain", "wild");
    let folder =
        folder(&plan.replace("set = [\"loss.semantic=0\"", "set = [\"train.learning_rate=1e30\", \"loss.semantic=0\""));
    let at = folder.path();
    let plan = fs::read_to_string(at.join("plan.toml")).unwrap().replace("methods = [\"clasp\"]", "methods = []");
    fs::write(at.join("plan.toml"), format!("{plan}\n[[system]]\nname = \"clasp\"\n")).unwrap();
    let said = clasp(at, &["compare", "plan.toml"]);
    assert!(said.stdout.contains("1 of 2 runs are not done and not included"), "{}", said.stdout);
    said.bad_line(
        1,
        &["1 of 2 runs failed: tiny/wild/fold1/seed1: training diverged at step", "(exit code 4)", "tries them again"],
    );
    let table = json(&at.join("out/table.json"));
    assert_eq!((&table["runs_done"], &table["corpora"][0]["systems"][0]["system"]), (&json!(1), &json!("clasp")));
}

#[test]
fn plans_that_cannot_be_run_are_refused() {
    let folder = folder("config = 'tiny.toml'\nseed = [1]\njobs = 0\n[[system]]\nset = ['train.sed=1']\n");
    let at = folder.path();
    let message = "error: plan.toml has 2 problems:\n  plan.toml:2: unknown key `seed`; did you mean `seeds`?\n  \
                   plan.toml:3: `jobs` must be a whole number from 1 to 1000, found 0\n";
    assert_eq!(clasp(at, &["compare", "plan.toml"]).bad(2, &[]).stderr, message);
    fs::write(at.join("plan.toml"), "config = 'tiny.toml'\n[[corpus]]\nname = 'c'\ndata = 'none/{fold}'\nfolds = 2\n")
        .unwrap();
    clasp(at, &["compare", "plan.toml"])
        .bad_line(3, &["data are missing", "there is no manifest", "none/1/train.jsonl", "none/2/test.jsonl"]);
    let dry = clasp(at, &["compare", "plan.toml", "--dry-run"]).bad(3, &["data are missing"]);
    assert!(dry.stdout.contains("2 runs, 0 done"), "{}", dry.stdout);
    assert!(!at.join("runs").exists());
    fs::write(at.join("plan.toml"), "config = 'tiny.toml'\ncluster = 'spaeker'\n").unwrap();
    for words in [&["compare", "plan.toml"][..], &["compare", "plan.toml", "--dry-run"]] {
        clasp(at, words).bad(2, &["no row of", "test.jsonl has the key `spaeker` of `cluster`"]);
    }
    fs::write(at.join("plan.toml"), "config = 'demo'\ncluster = 'spaeker'\n").unwrap();
    clasp(at, &["compare", "plan.toml"]).bad(2, &["test.jsonl has the key `spaeker` of `cluster`"]);
    assert!(!at.join("runs/plan/demo").exists());
    // What the scoring would fail at in the end is told before the training.
    copy_folder(&tiny_run().join("corpus"), &at.join("data"));
    let plan = "config = 'tiny.toml'\ndir = 'other'\ncluster = 'room'\n[[corpus]]\nname = 'c'\ndata = 'data'\n";
    fs::write(at.join("plan.toml"), plan).unwrap();
    let good = lines_of(&at.join("data/test.jsonl"));
    let write = |change: &dyn Fn(usize, &mut Value)| {
        let rows = good.iter().cloned().enumerate().map(|(place, mut row)| {
            change(place, &mut row);
            format!("{row}\n")
        });
        fs::write(at.join("data/test.jsonl"), rows.collect::<Vec<_>>().concat()).unwrap();
    };
    for words in [&["compare", "plan.toml"][..], &["compare", "plan.toml", "--dry-run"]] {
        write(&|_, row| row["room"] = json!("a"));
        clasp(at, words).bad(2, &["all test utterances of c have the same `room`"]);
        write(&|place, row| row["label"] = json!(if place == 3 { "sing" } else { "start_calm" }));
        clasp(at, words).bad(3, &["c/clasp/fold1/seed1: data.test", "sing"]);
        write(&|place, row| row["id"] = json!(place / 2));
        clasp(at, words).bad(3, &["data.test", "test.jsonl"]);
    }
    assert!(!at.join("other").exists());
    clasp(at, &["compare", "tabel8"]).bad_line(2, &["no plan \"tabel8\"", "demo.toml, table4.toml, table8.toml"]);
    clasp(at, &["compare", "plan.toml", "--device", "gpu"]).bad(2, &["--device"]);
    let listed = clasp(at, &["config", "list"]).good().stdout;
    for name in ["demo", "table4", "table8", "table9", "grid"] {
        assert!(listed.contains(&format!("plans/{name}.toml ")), "{listed}");
        let shown = clasp(at, &["config", "show", &format!("plans/{name}")]).good().stdout;
        let copied = clasp(at, &["config", "copy", &format!("plans/{name}")]).good().stdout;
        assert_eq!(copied, format!("{name}-plan.toml\n"));
        assert_eq!(fs::read_to_string(at.join(copied.trim())).unwrap(), shown);
    }
}

#[test]
fn systems_without_a_common_seed_are_named() {
    let plan = "config = 'tiny.toml'\ndir = 'out'\nset = ['train.epochs=1']\ncluster = 'speaker'\n\
        [[system]]\nname = 'clasp'\n[[system]]\nname = 'other'\nseeds = [2]\n";
    let folder = folder(plan);
    let said = clasp(folder.path(), &["compare", "plan.toml"]).good().stdout.replace("\n  ", " ");
    assert!(said.contains("no difference to clasp for other: they share no fold and seed"), "{said}");
    let speakers: BTreeSet<String> = lines_of(&tiny_run().join("corpus/test.jsonl"))
        .iter()
        .map(|row| row["speaker"].as_str().unwrap().to_owned())
        .collect();
    assert!(said.contains(&format!("intervals over {} clusters by speaker", speakers.len())), "{said}");
    assert!(
        said.contains(&format!("there are only {} clusters, so that intervals are t-intervals", speakers.len())),
        "{said}"
    );
}

/// By its best checkpoint, by its last, and by a copy of the manifest.
#[test]
fn every_way_to_the_test_split_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    copy_folder(tiny_run(), &at.join("run"));
    copy_folder(&tiny_run().join("corpus"), &at.join("corpus"));
    let uses = || json(&at.join("run/manifest.json"))["test_uses"].as_array().unwrap().len();
    let before = uses();
    let score = |checkpoint: &str, data: [&str; 2]| -> Value {
        let words = [&["eval", "--checkpoint", checkpoint, "--json"], &data[..]].concat();
        serde_json::from_str(&clasp(at, &words).good().stdout).unwrap()
    };
    let best = score("run/best", ["--split", "test"]);
    assert_eq!((uses(), &best["test_uses"]), (before + 1, &json!(before + 1)));
    // They are the run's own numbers.
    assert_eq!(json(&at.join("run/report-test.json")), best);
    let saved = || (fs::read(at.join("run/report-test.json")), fs::read(at.join("run/predictions-test.jsonl")));
    let (report, predictions) = saved();
    assert_eq!(score("run/last", ["--split", "test"])["test_uses"], json!(before + 2));
    assert_eq!(score("run", ["--manifest", "corpus/test.jsonl"])["test_uses"], json!(before + 3));
    assert_eq!(uses(), before + 3);
    // Of another part of the data, nothing is counted.
    assert!(score("run/last", ["--split", "dev"])["test_uses"].is_null());
    assert!(score("run", ["--manifest", "corpus/train.jsonl"])["test_uses"].is_null());
    assert_eq!(uses(), before + 3);
    // What the run has saved is of its best weights and of its own files.
    let (report_now, predictions_now) = saved();
    assert_eq!((report_now.unwrap(), predictions_now.unwrap()), (report.unwrap(), predictions.unwrap()));
}

/// The shared run against a copy of it with other answers.
#[test]
fn two_runs_are_tested_from_their_saved_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    copy_folder(tiny_run(), &at.join("other"));
    let path = at.join("other/predictions-test.jsonl");
    let mut rows = lines_of(&path);
    let was_right: Vec<bool> = rows.iter().map(|row| row["label"] == row["truth"]).collect();
    // It is right about all but the first two.
    for (place, row) in rows.iter_mut().enumerate() {
        let truth = row["truth"].as_str().unwrap().to_owned();
        row["label"] = json!(if place > 1 {
            truth.as_str()
        } else if truth == "start_calm" {
            "stop_calm"
        } else {
            "start_calm"
        });
    }
    let write =
        |rows: &[Value]| fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<Vec<_>>().concat());
    write(&rows).unwrap();
    let uses = || json(&at.join("other/manifest.json"))["test_uses"].as_array().unwrap().len();
    let before = uses();
    let words = ["eval", "--checkpoint", "other", "--split", "test", "--against", checkpoint()];
    let found: Value = serde_json::from_str(&clasp(at, &[&words[..], &["--json"]].concat()).good().stdout).unwrap();
    let (lost, won) = (was_right[..2].iter().filter(|right| **right), was_right[2..].iter().filter(|right| !**right));
    let (lost, won) = (lost.count(), won.count());
    let comparison = &found["comparison"];
    assert_eq!((&found["second"], &comparison["utterances"]), (&json!("other"), &json!(16)));
    assert_eq!(
        (&comparison["mcnemar"]["only_first"], &comparison["mcnemar"]["only_second"]),
        (&json!(lost), &json!(won))
    );
    let difference = (f64::from(u32::try_from(won).unwrap()) - f64::from(u32::try_from(lost).unwrap())) / 16.0;
    close(&comparison["difference"]["accuracy"]["value"], difference);
    close(&comparison["second"]["accuracy"], 14.0 / 16.0);
    let said = clasp(at, &words).good();
    assert!(said.stdout.starts_with("test: 16 utterances\na: other\nb: "), "{}", said.stdout);
    assert!(said.stdout.contains(&format!("McNemar: {won} right only in a, {lost} only in b")), "{}", said.stdout);
    assert_eq!(uses(), before);
    clasp(at, &[&words[..], &["--cluster", "speaker"]].concat()).good();
    clasp(at, &[&words[..], &["--cluster", "turn"]].concat()).bad_line(3, &["has the key `turn`"]);
    let best = ["eval", "--checkpoint", "other/best", "--split", "test", "--against", checkpoint()];
    assert_eq!(
        clasp(at, &best).good().stdout.lines().skip(2).collect::<Vec<_>>(),
        said.stdout.lines().skip(2).collect::<Vec<_>>()
    );

    let twice = [&rows[..], &rows[..1]].concat();
    write(&twice).unwrap();
    clasp(at, &words).bad_line(3, &["the predictions of other have several rows of one id: `"]);
    rows[3]["id"] = json!("another");
    write(&rows).unwrap();
    let id = format!("`{}` only in ", lines_of(&tiny_run().join("predictions-test.jsonl"))[3]["id"].as_str().unwrap());
    clasp(at, &words).bad_line(3, &["were not scored on the same utterances", "`another` only in other", &id]);
    let words = ["eval", "--checkpoint", "other", "--split", "train", "--against", checkpoint()];
    clasp(at, &words).bad_line(2, &["has no predictions of the split train", "clasp eval --checkpoint"]);
}
