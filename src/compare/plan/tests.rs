//! Tests of plans: what they expand to, what is refused, and the built-in ones.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::config::builtin::PLANS;

/// A plan in a folder with a base config of this text.
fn parsed(folder: &Path, plan: &str, config: &str, set: &[&str]) -> Result<Plan, ConfigError> {
    fs::write(folder.join("base.toml"), config).unwrap();
    let source = Source { name: "my.toml".into(), text: plan.into(), folder: Some(folder.to_owned()) };
    let set: Vec<String> = set.iter().map(|&assignment| assignment.to_owned()).collect();
    Plan::parse(&source, &set, Path::new("/current"))
}

const CONFIG: &str = "[data]\ntrain = 'a/train.jsonl'\ndev = 'a/dev.jsonl'\ntest = 'a/test.jsonl'\n\
    [text]\ntokenizer = 'train'\n[text.config]\nmax_position_embeddings = 66\n[speech.config]\n";

fn names(plan: &Plan) -> Vec<&str> {
    plan.runs.iter().map(|run| run.name.as_str()).collect()
}

fn problems(plan: &str, config: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let message = parsed(folder.path(), plan, config, &[]).unwrap_err().to_string();
    message.replace(&format!("{}/", folder.path().display()), "").lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_plan_is_systems_by_corpora_by_folds_by_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let plan = r#"
        config = "base.toml"
        ablations = ["none", "no-kl"]
        seeds = [3, 5]
        set = ["train.epochs=7"]
        devices = ["cpu", "cuda:1"]
        cluster = "speaker"
        [[system]]
        name = "tau-1"
        seeds = [3]
        set = ["loss.temperature=1"]
        [[corpus]]
        name = "one"
        data = "d/fold{fold}"
        folds = 2
        [[corpus]]
        name = "two"
        data = ["x"]
        cluster = "group"
        set = ["train.batch_size=2"]
    "#;
    let plan = parsed(folder.path(), plan, CONFIG, &["train.epochs=9"]).unwrap();
    assert_eq!(
        names(&plan),
        [
            "one/clasp/fold1/seed3",
            "one/clasp/fold1/seed5",
            "one/clasp/fold2/seed3",
            "one/clasp/fold2/seed5",
            "one/no-kl/fold1/seed3",
            "one/no-kl/fold1/seed5",
            "one/no-kl/fold2/seed3",
            "one/no-kl/fold2/seed5",
            "one/tau-1/fold1/seed3",
            "one/tau-1/fold2/seed3",
            "two/clasp/fold1/seed3",
            "two/clasp/fold1/seed5",
            "two/no-kl/fold1/seed3",
            "two/no-kl/fold1/seed5",
            "two/tau-1/fold1/seed3",
        ]
    );
    assert_eq!((plan.dir.as_path(), plan.jobs, plan.devices.len()), (Path::new("/current/runs/my"), 2, 2));
    assert_eq!((plan.reference.as_deref(), &plan.dir), (Some("clasp"), &plan.runs_dir));
    let clusters: Vec<_> = plan.corpora.iter().map(|corpus| corpus.cluster.as_deref()).collect();
    assert_eq!(clusters, [Some("speaker"), Some("group")]);
    let run = &plan.runs[9];
    let config = &run.config;
    assert_eq!((run.fold, run.seed, plan.systems[run.system].name.as_str()), (2, 3, "tau-1"));
    assert_eq!(plan.corpus_of(run).folds, 2);
    assert_eq!((config.train.seed, config.train.epochs, config.train.batch_size), (3, 9, 4));
    assert!((config.loss.temperature - 1.0).abs() < 1e-12 && config.loss.kl > 0.0);
    assert_eq!(config.run.dir, Path::new("/current/runs/my/one/tau-1/fold2/seed3"));
    let part = |name: &str| folder.path().join("d/fold2").join(name);
    let (dev, test) = (Some(part("dev.jsonl")), Some(part("test.jsonl")));
    assert_eq!(config.data.source, DataSource::Manifests { train: part("train.jsonl"), dev, test });
    let without = &plan.runs[4].config;
    assert_eq!((without.model.ablation, without.loss.kl.to_bits()), (Ablation::NoKl, 0.0_f64.to_bits()));
    assert_eq!(plan.runs[14].config.train.batch_size, 2);
}

#[test]
fn a_plan_of_one_line_has_one_run_on_the_data_of_its_config() {
    let folder = tempfile::tempdir().unwrap();
    let plan = parsed(folder.path(), "config = 'base.toml'\ndir = '/out'\nruns = 'shared'\n", CONFIG, &[]).unwrap();
    assert_eq!(names(&plan), ["base/clasp/fold1/seed1"]);
    let config = &plan.runs[0].config;
    assert_eq!(config.run.dir, Path::new("/current/shared/base/clasp/fold1/seed1"));
    assert_eq!((plan.dir.as_path(), plan.jobs), (Path::new("/out"), 1));
    assert!(
        matches!(&config.data.source, DataSource::Manifests { train, .. } if *train == folder.path().join("a/train.jsonl"))
    );
}

#[test]
fn a_synthetic_corpus_is_shared_by_all_runs() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        CONFIG.split("[text]").nth(1).map(|rest| format!("[data.demo]\nutterances = 60\n[text]{rest}")).unwrap();
    let plan = parsed(folder.path(), "config = 'base.toml'\nseeds = [1, 2]\n", &config, &[]).unwrap();
    let corpus = Path::new("/current/runs/my/corpora/base-60-1");
    assert_eq!(plan.corpora[0].synthetic, Some((corpus.to_owned(), DemoOptions { utterances: 60, seed: 1 })));
    for run in &plan.runs {
        assert!(matches!(&run.config.data.source, DataSource::Manifests { train, dev: Some(_), test: Some(_) }
                if *train == corpus.join("train.jsonl")));
    }
}

#[test]
fn all_problems_of_a_plan_are_told_at_once() {
    let plan = r#"
config = "nowhere"
method = ["clasp"]
methods = ["text", "claps", "text"]
seeds = [1, 1]
reference = "best"
set = ["run.dir=x", "train.epochs"]
jobs = 0
devices = ["gpu"]
[[system]]
name = "a/b"
set = ["data.train=x", "loss.kl=1"]
seed = [2]
[[system]]
name = "clasp"
[[system]]
ablation = "none"
[[corpus]]
name = "corpora"
folds = 2
[[corpus]]
name = "c"
data = "fold{fold}"
[[corpus]]
name = "d"
data = ["a", "b"]
folds = 3
"#;
    assert_eq!(
        problems(plan, CONFIG),
        [
            "my.toml has 18 problems:",
            "my.toml:3: unknown key `method`; did you mean `methods`?",
            "my.toml:4: `methods` must be one of text, speech, late-fusion, concat, lmf, misa, lfmim, lrmp-arch, clasp, \
             found \"claps\"; did you mean \"clasp\"?",
            "my.toml:4: `methods` has a word twice",
            "my.toml:4: `system` \"text\" is there twice: give one of them another `name`",
            "my.toml:5: `seeds` must be a list of different whole numbers of at least 0, not empty, found [1, 1]",
            "my.toml:6: `reference` is \"best\", which is none of the systems: text, text, a/b, clasp, clasp",
            "my.toml:7: `run.dir` cannot be set here: it is decided by `dir` (or `runs`) and the names of the runs",
            "my.toml:7: expected key.path=value, as in --set train.epochs=3",
            "my.toml:8: `jobs` must be a whole number from 1 to 1000, found 0",
            "my.toml:9: `devices` must be a list of devices: auto, cpu, cuda, cuda:N, found [\"gpu\"]",
            "my.toml:11: `system.name` is \"a/b\": it names a folder, so that only letters, digits, - _ . + may be in it",
            "my.toml:12: `data.train` cannot be set for one system: all are compared on the same data",
            "my.toml:13: unknown key `system.seed`; did you mean `system.seeds`?",
            "my.toml:16: `system` \"clasp\" is there twice: give one of them another `name`",
            "my.toml:19: `corpus.name` cannot be \"corpora\": the folder of that name is taken",
            "my.toml:20: `corpus.folds` is set, but `data` is not: give a folder with {fold} in its name",
            "my.toml:22: `corpus.folds` is missing: how many folders `data` = \"fold{fold}\" stands for",
            "my.toml:27: `corpus.folds` is 3, but `data` names 2 folder(s)",
        ]
    );
}

#[test]
fn what_is_wrong_with_the_configs_is_told_once() {
    let config = CONFIG.replace("test = 'a/test.jsonl'\n", "");
    let plan = "config = 'base.toml'\nablations = ['no-kl', 'none']\nset = ['train.epoch=3']\n";
    assert_eq!(
        problems(plan, &config),
        ["my.toml:2: `base/no-kl` has no valid config: --set train.epoch=3: unknown key `train.epoch`; did you mean \
             `train.epochs`?"]
    );
    assert_eq!(
        problems("config = 'base.toml'\n", &config),
        ["my.toml:1: `base/clasp` has no valid config: there is no data.test to score the systems on: set it, or \
             `data` of the [[corpus]]"]
    );
    assert!(problems("config = 'none.toml'\n", CONFIG)[0].contains("no config file \"none.toml\", and no built-in"));
    assert!(problems("seeds = [1]\n", CONFIG)[0].starts_with("my.toml:1: `config` is missing: the config that"));
    assert_eq!(problems("config = \n", CONFIG).len(), 1);
    assert!(problems("config = \n", CONFIG)[0].starts_with("my.toml:1:10: not valid TOML"));
    assert_eq!(
        problems("config = 'base.toml'\nsystem = 3\n", CONFIG),
        ["my.toml:2: `system` must be tables ([[system]]), found 3"]
    );
}

/// What a built-in plan names and this version has not is the only thing that may be wrong with it.
#[test]
fn the_built_in_plans_are_those_of_the_paper() {
    let counts: BTreeMap<&str, (usize, usize)> = PLANS
        .iter()
        .map(|built_in| {
            let source = Source { name: built_in.name.into(), text: built_in.text.into(), folder: None };
            let table = DeTable::parse(&source.text).unwrap();
            let root = Path::new("/");
            let file = Parsed {
                text: &source.text,
                table: table.get_ref(),
                folder: root,
                current_folder: root,
                name: source.stem(),
            };
            let (plan, problems) = parse::plan(&file, &[]);
            assert_eq!(problems, [], "{}", built_in.name);
            assert_eq!(plan.reference.as_deref(), Some("clasp"));
            let seeds: usize = plan.systems.iter().map(|system| system.seeds.len()).sum();
            let folds: usize = plan.corpora.iter().map(|corpus| corpus.folds).sum();
            (built_in.name, (plan.systems.len(), seeds * folds))
        })
        .collect();
    let expected = [
        // Nine methods with three seeds, seven ablations with one.
        ("plans/demo.toml", (16, 34)),
        ("plans/grid.toml", (13, 65)),
        ("plans/table4.toml", (4, 12)),
        ("plans/table8.toml", (7, 126)),
        ("plans/table9.toml", (6, 108)),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
    for built_in in PLANS {
        if let Err(error) = Plan::load(built_in.name, &[]) {
            let ConfigError::Invalid { problems, .. } = &error else { panic!("{error}") };
            assert!(
                problems.iter().all(|problem| problem.to_string().contains("not available in this version")),
                "{error}"
            );
        }
    }
}
