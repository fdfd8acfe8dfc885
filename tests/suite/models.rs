//! `clasp models` through the real binary, against a hub on this machine; and the models of the cache wherever a
//! checkpoint folder is taken.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::hub::{COMMIT, Hub};
use crate::program::{Said, keys, program, tiny_run};

/// Variables that would lead elsewhere.
const OTHERS: [&str; 11] = [
    "HF_HUB_CACHE",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "XDG_CACHE_HOME",
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "NO_COLOR",
];

/// A folder with a cache of its own, and a hub.
struct Place {
    folder: TempDir,
    hub: Hub,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), hub: Hub::start() }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = program(self.folder.path());
        for name in OTHERS {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.folder.path().join("hf")).env("HF_ENDPOINT", &self.hub.endpoint).args(words);
        command
    }

    #[track_caller]
    fn clasp(&self, words: &[&str]) -> Said {
        Said::of(&self.command(words).output().unwrap())
    }

    #[track_caller]
    fn with(&self, name: &str, value: &str, words: &[&str]) -> Said {
        Said::of(&self.command(words).env(name, value).output().unwrap())
    }

    #[track_caller]
    fn fetch(&self, name: &str) -> Said {
        self.clasp(&["models", "fetch", name])
    }

    fn snapshot(&self, id: &str, commit: &str) -> PathBuf {
        self.folder
            .path()
            .join("hf/hub")
            .join(format!("models--{}", id.replace('/', "--")))
            .join("snapshots")
            .join(commit)
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/loading").join(name)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A RoBERTa with a tokenizer, and with what a fetch has to leave alone.
fn add_roberta(hub: &Hub, id: &str) {
    hub.add(id, &fixture("roberta-pooler"));
    hub.put(id, "tokenizer.json", fs::read(tiny_run().join("best/tokenizer.json")).unwrap());
    hub.put(id, "pytorch_model.bin", "another form of the weights");
    hub.put(id, "README.md", "about it");
    hub.put(id, "onnx/model.onnx", "a form that is of no use here");
}

const CONFIG: &str = "[data.demo]\nutterances = 48\n[text]\ncheckpoint = \"roberta-base\"\n\
                      [speech]\ncheckpoint = \"wav2vec2-base\"\n[run]\ndir = \"run\"\n";

#[test]
fn fetched_encoders_are_found_by_their_names() {
    let place = Place::new();
    // As on the hub: the short id leads to the long one.
    add_roberta(&place.hub, "FacebookAI/roberta-base");
    place.hub.state().renamed.insert("roberta-base".into(), "FacebookAI/roberta-base".into());
    place.hub.add("facebook/wav2vec2-base", &fixture("wav2vec2-group-pretraining"));
    fs::write(place.folder.path().join("x.toml"), CONFIG).unwrap();
    let advice = ["no folder", "roberta-base", "`clasp models fetch roberta-base`, then set `text.checkpoint`"];
    place.clasp(&["train", "--config", "x.toml"]).bad_line(2, &advice);

    let said = place.fetch("roberta-base").good();
    let text = place.snapshot("roberta-base", COMMIT);
    assert_eq!(said.stdout, format!("{}\n", text.display()));
    for part in ["fetching model.safetensors (14.77 KiB)\n", "fetching config.json (", "names it as \"roberta-base\""] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    assert_eq!(names(&text), ["config.json", "model.safetensors", "tokenizer.json"]);
    let original = fs::read(fixture("roberta-pooler/model.safetensors")).unwrap();
    assert_eq!(fs::read(text.join("model.safetensors")).unwrap(), original);
    place.fetch("wav2vec2-base").good();
    let speech = place.snapshot("facebook/wav2vec2-base", COMMIT);
    assert_eq!(names(&speech), ["config.json", "model.safetensors"]);

    let resolved = place.clasp(&["config", "show", "x.toml", "--resolved"]).good().stdout;
    for folder in [&text, &speech] {
        assert!(resolved.contains(&format!("checkpoint = \"{}\"", folder.display())), "{resolved}");
    }
    let found = place.clasp(&["doctor", "--config", "x.toml"]).stdout;
    let encoders =
        [(&text, "model.safetensors: 1 layers of"), (&speech, "model.safetensors: 1 layers of"), (&text, " entries")];
    for (folder, part) in encoders {
        let is_it = |line: &str| line.contains(&folder.display().to_string()) && line.contains(part);
        assert!(found.lines().any(is_it), "no {part:?} in {found}");
    }
    let tokenizer = ["config", "show", "x.toml", "--set", "text.tokenizer=roberta-base", "--resolved"];
    assert!(place.clasp(&tokenizer).good().stdout.contains(&format!("tokenizer = \"{}\"", text.display())));
    // An existing path wins.
    fs::create_dir(place.folder.path().join("roberta-base")).unwrap();
    let resolved = place.clasp(&["config", "show", "x.toml", "--resolved"]).good().stdout;
    assert!(resolved.contains(&format!("checkpoint = \"{}\"", place.folder.path().join("roberta-base").display())));
}

#[test]
fn the_long_id_is_asked_where_the_short_one_is_unknown() {
    let place = Place::new();
    add_roberta(&place.hub, "FacebookAI/roberta-base");
    let folder = place.snapshot("FacebookAI/roberta-base", COMMIT);
    assert_eq!(place.fetch("roberta-base").good().stdout, format!("{}\n", folder.display()));
}

#[test]
fn what_the_cache_has_is_not_fetched_again() {
    let place = Place::new();
    add_roberta(&place.hub, "some/roberta");
    place.fetch("some/roberta").good();
    assert_eq!(
        place.hub.asked(),
        (["config.json", "model.safetensors", "tokenizer.json"].map(str::to_owned).into(), 2)
    );
    let again = place.fetch("some/roberta").good();
    assert_eq!(place.hub.asked(), (Vec::new(), 1));
    assert!(!again.stderr.contains("fetching"), "{}", again.stderr);
    // A new commit with the same weights.
    place.hub.state().commit = Some("c0ffee0000000000000000000000000000000002");
    place.hub.put("some/roberta", "vocab.json", "{}");
    let folder = place.fetch("some/roberta").good().stdout;
    assert_eq!(place.hub.asked(), (vec!["vocab.json".to_owned()], 1));
    assert_eq!(names(Path::new(folder.trim())), ["config.json", "model.safetensors", "tokenizer.json", "vocab.json"]);
    // A file that another program cut.
    let blob = fs::canonicalize(Path::new(folder.trim()).join("model.safetensors")).unwrap();
    fs::write(&blob, "cut").unwrap();
    place.fetch("some/roberta").good();
    assert_eq!(fs::read(blob).unwrap(), fs::read(fixture("roberta-pooler/model.safetensors")).unwrap());
}

#[test]
fn a_token_is_shown_to_the_hub() {
    let place = Place::new();
    add_roberta(&place.hub, "private/roberta");
    place.hub.state().token = Some("secret");
    let refused = ["private/roberta", "401", "check the name", "HF_TOKEN", "the folder models/roberta"];
    place.fetch("private/roberta").bad_line(2, &refused);
    let fetch = ["models", "fetch", "private/roberta"];
    place.with("HF_TOKEN", "wrong", &fetch).bad_line(2, &refused);
    let said = place.with("HF_TOKEN", "secret", &fetch).good();
    assert!(!(said.stderr + &said.stdout).contains("secret"));
    // The token that other programs have left beside the cache.
    fs::remove_dir_all(place.folder.path().join("hf/hub")).unwrap();
    fs::write(place.folder.path().join("hf/token"), "secret\n").unwrap();
    place.fetch("private/roberta").good();
}

#[test]
fn weights_are_fetched_in_one_form_and_with_their_shards() {
    let place = Place::new();
    for (id, folder) in [("a/speech", "wav2vec2-group-shards"), ("a/text", "roberta-bin-shards")] {
        place.hub.add(id, &fixture(folder));
        place.hub.put(id, "notes.txt", "about it");
        let fetched = place.fetch(id).good().stdout;
        assert_eq!(names(Path::new(fetched.trim())), names(&fixture(folder)), "{id}");
    }
    place.hub.put("a/speech", "pytorch_model.bin", "another form");
    place.hub.asked();
    place.fetch("a/speech").good();
    assert_eq!(place.hub.asked().0, Vec::<String>::new());
    place.hub.state().repositories.get_mut("a/text").unwrap().remove("pytorch_model-00002-of-00002.bin");
    fs::remove_dir_all(place.folder.path().join("hf")).unwrap();
    let parts = ["the repository a/text has no pytorch_model-00002-of-00002.bin", "shard"];
    place.fetch("a/text").bad_line(2, &parts);
}

#[test]
fn what_cannot_be_fetched_is_told_in_one_line() {
    let place = Place::new();
    let parts = ["no model none/such", "revision main", "config.json", "the folder models/such"];
    place.fetch("none/such").bad_line(2, &parts);
    place.hub.put("bare/one", "README.md", "about it");
    let parts = ["the repository bare/one has no config.json and no weights (model.safetensors", "models/one"];
    place.fetch("bare/one").bad_line(2, &parts);
    for name in ["../x", "a/b/c", "", "-", "a b", "http://x", "a@", "a@../x"] {
        place.clasp(&["models", "fetch", "--", name]).bad_line(2, &[&format!("{name:?} is no model's name"), "hub id"]);
    }
    for (name, revision, whole) in [("a/b", "../x", "a/b@../x"), ("a", "../x", "a@../x"), ("a/b@v1", "v2", "a/b@v1@v2")]
    {
        let fetch = ["models", "fetch", name, "--revision", revision];
        place.clasp(&fetch).bad_line(2, &[&format!("{whole:?} is no model's name")]);
    }
    let fetch = ["models", "fetch", "roberta-base"];
    let closed = "http://127.0.0.1:1";
    let by_hand = ["cannot reach the hub", "refused", "tokenizer.json", "the folder models/roberta-base"];
    place.with("HF_ENDPOINT", closed, &fetch).bad_line(1, &by_hand);
    place.with("HF_ENDPOINT", "ftp://x", &fetch).bad_line(2, &["HF_ENDPOINT", "ftp://x", "http://"]);
    place.with("HF_ENDPOINT", "http://", &fetch).bad_line(2, &["HF_ENDPOINT is \"http://\""]);
    place.with("HF_ENDPOINT", "http://a b", &fetch).bad_line(1, &["hub for roberta-base"]);
    // Something that is no hub, and a cache that is no folder.
    let page = format!("{}/page", place.hub.endpoint);
    place.with("HF_ENDPOINT", &page, &fetch).bad_line(1, &["answer for roberta-base is unusable", "HF_ENDPOINT"]);
    add_roberta(&place.hub, "some/roberta");
    fs::write(place.folder.path().join("file"), "").unwrap();
    place
        .with("HF_HUB_CACHE", "file", &["models", "fetch", "some/roberta"])
        .bad_line(1, &["cannot use the cache folder", "HF_HUB_CACHE"]);
}

#[test]
fn a_download_that_breaks_off_goes_on_later() {
    let place = Place::new();
    add_roberta(&place.hub, "some/roberta");
    place.hub.state().breaks_at = Some(5000);
    let parts = ["model.safetensors of some/roberta was interrupted", "the same command resumes it"];
    place.fetch("some/roberta").bad_line(1, &parts);
    let folder = place.snapshot("some/roberta", COMMIT);
    assert_eq!(names(&folder), ["config.json", "tokenizer.json"]);
    // The branch does not lead to it yet.
    let config = CONFIG.replace("roberta-base", "some/roberta");
    fs::write(place.folder.path().join("x.toml"), config).unwrap();
    place.clasp(&["train", "--config", "x.toml"]).bad_line(2, &["no such model"]);
    {
        let mut state = place.hub.state();
        state.breaks_at = None;
        state.requests.clear();
    }
    place.fetch("some/roberta").good();
    let starts: Vec<usize> = place.hub.state().requests.iter().filter_map(|(start, _)| *start).collect();
    assert!(starts.contains(&5000) && starts.iter().all(|start| [0, 5000].contains(start)), "{starts:?}");
    let fetched = fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(fetched, fs::read(fixture("roberta-pooler/model.safetensors")).unwrap());
}

#[test]
fn a_damaged_download_does_not_stay() {
    let place = Place::new();
    add_roberta(&place.hub, "some/roberta");
    place.hub.state().garbles = true;
    place.fetch("some/roberta").bad_line(1, &["model.safetensors of some/roberta arrived damaged", "SHA-256"]);
    assert_eq!(names(&place.snapshot("some/roberta", COMMIT)), ["config.json", "tokenizer.json"]);
    place.hub.state().garbles = false;
    place.hub.state().loses = true;
    place.fetch("some/roberta").bad_line(1, &["the hub's answer for some/roberta is unusable", "HF_ENDPOINT"]);
    place.hub.state().loses = false;
    place.fetch("some/roberta").good();
}

#[test]
fn without_a_network_the_cache_is_enough_or_the_message_says_what_to_do() {
    let place = Place::new();
    add_roberta(&place.hub, "some/roberta");
    let fetch = ["models", "fetch", "some/roberta"];
    let parts = ["HF_HUB_OFFLINE", "nothing is asked", "has no some/roberta", "the folder models/roberta"];
    place.with("HF_HUB_OFFLINE", "1", &fetch).bad_line(1, &parts);
    assert_eq!(place.hub.asked(), (Vec::new(), 0));
    let folder = place.fetch("some/roberta").good().stdout;
    place.hub.asked();
    for word in ["1", "TRUE"] {
        assert_eq!(place.with("HF_HUB_OFFLINE", word, &fetch).good().stdout, folder);
    }
    assert_eq!(place.hub.asked(), (Vec::new(), 0));
    let said = place.with("HF_ENDPOINT", "http://127.0.0.1:1", &fetch).good();
    assert_eq!(said.stdout, folder);
    assert!(said.stderr.contains("some/roberta is taken from the cache"), "{}", said.stderr);
    fs::remove_file(Path::new(folder.trim()).join("model.safetensors")).unwrap();
    place.with("HF_HUB_OFFLINE", "1", &fetch).bad_line(1, &["no weights", "of some/roberta"]);
}

#[test]
fn a_revision_is_a_part_of_the_name() {
    let place = Place::new();
    add_roberta(&place.hub, "some/roberta");
    let said = place.clasp(&["models", "fetch", "some/roberta", "--revision", "v1", "--json"]).good();
    let model: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(keys(&model), ["id", "revision", "folder", "files"]);
    assert_eq!((&model["id"], &model["revision"]), (&json!("some/roberta"), &json!("v1")));
    assert_eq!(model["folder"], json!(place.snapshot("some/roberta", COMMIT)));
    let weights = json!({ "name": "model.safetensors", "bytes": 15120 });
    assert!(model["files"].as_array().unwrap().contains(&weights), "{model}");
    assert_eq!(names(&place.folder.path().join("hf/hub/models--some--roberta/refs")), ["v1"]);
    let show = |name: &str| {
        let config = CONFIG.replace("roberta-base", name);
        fs::write(place.folder.path().join("x.toml"), config).unwrap();
        place.clasp(&["config", "show", "x.toml", "--resolved"]).good().stdout
    };
    assert!(show("some/roberta@v1").contains(COMMIT));
    assert!(show(&format!("some/roberta@{COMMIT}")).contains(COMMIT));
    assert!(!show("some/roberta").contains(COMMIT));
    let listed = place.clasp(&["models", "list"]).good().stdout;
    assert!(listed.starts_with("some/roberta@v1  roberta  "), "{listed}");
    let same: Value =
        serde_json::from_str(&place.clasp(&["models", "fetch", "some/roberta@v1", "--json"]).good().stdout).unwrap();
    assert_eq!(same, model);
}

#[test]
fn a_checkpoint_is_used_by_its_name() {
    let place = Place::new();
    place.hub.add("me/tiny", &tiny_run().join("best"));
    place.hub.put("me/tiny", "README.md", "about it");
    let predict = ["predict", "--checkpoint", "me/tiny", "--text", "we could go now", "--json"];
    place.clasp(&predict).bad_line(2, &["me/tiny", "no such folder", "clasp models fetch NAME"]);
    let folder = place.fetch("me/tiny").good().stdout;
    assert!(!names(Path::new(folder.trim())).contains(&"README.md".to_owned()));
    place.clasp(&predict).good();
    let manifest = tiny_run().join("corpus/dev.jsonl");
    let manifest = manifest.to_str().unwrap();
    let checkpoint = ["--checkpoint", "me/tiny", "--manifest", manifest, "--output"];
    place.clasp(&[&["encode"], &checkpoint[..], &["vectors.safetensors"]].concat()).good();
    place.clasp(&[&["eval"], &checkpoint[..], &["scores"]].concat()).good();
    let config = format!(
        "[data]\ntrain = \"{manifest}\"\n[train]\ninit = \"me/tiny\"\nepochs = 1\n[run]\ndir = \"run\"\ndevice = \"cpu\"\n"
    );
    fs::write(place.folder.path().join("x.toml"), config).unwrap();
    place.clasp(&["train", "--config", "x.toml", "--quiet"]).good();
}

#[test]
fn the_cache_is_listed() {
    let place = Place::new();
    let empty = place.clasp(&["models", "list"]).good();
    assert_eq!(empty.stdout, "");
    assert!(
        empty.stderr.contains("clasp models fetch NAME") && empty.stderr.contains("wav2vec2-base"),
        "{}",
        empty.stderr
    );
    assert_eq!(place.clasp(&["models", "list", "--json"]).good().stdout, "[]\n");
    add_roberta(&place.hub, "some/roberta");
    place.hub.add("me/tiny", &tiny_run().join("best"));
    place.fetch("some/roberta").good();
    let tiny = place.fetch("me/tiny").good().stdout;
    fs::remove_file(Path::new(tiny.trim()).join("model.safetensors")).unwrap();
    let found = place.clasp(&["models", "list", "--json"]).good().stdout;
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(keys(&found[0]), ["name", "id", "revision", "kind", "folder", "bytes", "missing"]);
    assert_eq!((&found[0]["name"], &found[0]["kind"]), (&json!("me/tiny"), &json!("clasp")));
    assert_eq!((&found[1]["name"], &found[1]["missing"]), (&json!("some/roberta"), &Value::Null));
    let table = place.clasp(&["models", "list"]).good().stdout;
    assert!(table.lines().next().unwrap().contains("(incomplete: no weights (model.safetensors"), "{table}");
}
