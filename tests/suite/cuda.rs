//! The CUDA path of the real binary where there is no GPU: stand-ins take the places of the driver and of the compiler of
//! kernels (`tests/stand-in`). They compute nothing, so that what is looked at is never a number of the model: what is
//! said, how often the device is waited for, and how much is launched.
#![cfg(all(feature = "cuda", target_os = "linux"))]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Said, checkpoint, folder, lines_of, program, tiny_run};

/// What the toolkit is asked for.
const HEADERS: [&str; 4] = ["cuda_fp16.h", "cuda_bf16.h", "mma.h", "crt/mma.h"];

/// The program's own kernels (`src/ops/gpu`) that a training step of `bench` needs.
const KERNELS: [&str; 15] = [
    "add_bias",
    "gelu_kernel",
    "gelu_backward",
    "dropped",
    "layer_norm",
    "x_gradient",
    "parameter_gradients",
    "column_sums",
    "heads",
    "softmax_kernel",
    "softmax_backward",
    "squares",
    "row_sums",
    "adam",
    "matmul_entry",
];

/// Too little for any of the tiny models.
const LITTLE: u64 = 100_000;

/// `bench` at its smallest.
const BENCH: [&str; 11] =
    ["bench", "--size", "tiny", "--device", "cuda", "--seconds", "0.5", "--batch-size", "2", "--warmup", "0"];

const TRAIN: [&str; 5] = ["train", "--config", "tiny.toml", "--device", "cuda"];

/// The folder of the two libraries, built once a process.
fn libraries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stand-in");
        fs::create_dir_all(&folder).unwrap();
        // The names that are looked for first, so that none of the machine's own is found before.
        build("driver.rs", &folder.join("libcuda.so"));
        build("compiler.rs", &folder.join("libnvrtc.so"));
        folder
    })
}

fn build(source: &str, library: &Path) {
    let compiler = env::var("RUSTC").ok().or(option_env!("RUSTC").map(str::to_owned));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-in").join(source);
    let built = Command::new(compiler.as_deref().unwrap_or("rustc"))
        .args(["--edition", "2024", "-O", "-D", "warnings", "--crate-type", "cdylib", "-o"])
        .args([library, &source])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// A machine that has one device, a toolkit, and a cache that is empty at first.
struct Machine {
    libraries: PathBuf,
    home: TempDir,
}

/// What a run on it came to.
struct Ran {
    said: Said,
    /// Of the driver; null where it was not started.
    counts: Value,
    /// The kernels that were compiled.
    compiled: Vec<String>,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { libraries: libraries().to_owned(), home: tempfile::tempdir().unwrap() };
        fs::create_dir_all(machine.header("crt")).unwrap();
        for header in HEADERS {
            fs::write(machine.header(header), "").unwrap();
        }
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn header(&self, name: &str) -> PathBuf {
        self.at("toolkit/include").join(name)
    }

    /// Runs the program in a folder.
    #[track_caller]
    fn run(&self, folder: &Path, words: &[&str]) -> Ran {
        self.run_with(folder, words, None)
    }

    /// As [`Machine::run`], with a device of so many bytes.
    #[track_caller]
    fn run_with(&self, folder: &Path, words: &[&str], memory: Option<u64>) -> Ran {
        let (counts, compiled) = (self.at("counts.json"), self.at("compiled.txt"));
        for path in [&counts, &compiled] {
            let _ = fs::remove_file(path);
        }
        let mut command = program(folder);
        command
            .env("LD_LIBRARY_PATH", &self.libraries)
            .env("CUDA_PATH", self.at("toolkit"))
            .env("CLASP_CACHE", self.at("cache"))
            .env("STAND_IN_COUNTS", &counts)
            .env("STAND_IN_COMPILED", &compiled);
        if let Some(memory) = memory {
            command.env("STAND_IN_MEMORY", memory.to_string());
        }
        let said = Said::of(&command.args(words).output().unwrap());
        let counts = fs::read(counts).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
        let compiled = fs::read_to_string(compiled).unwrap_or_default().lines().map(str::to_owned).collect();
        Ran { said, counts, compiled }
    }
}

impl Ran {
    #[track_caller]
    fn count(&self, name: &str) -> u64 {
        self.counts[name].as_u64().unwrap_or_else(|| panic!("no {name}: {}", self.counts))
    }

    #[track_caller]
    fn good(self) -> Self {
        Self { said: self.said.good(), ..self }
    }
}

#[test]
fn a_device_is_found_and_what_is_missing_is_named() {
    let folder = folder();
    let mut machine = Machine::new();
    let doctor = |machine: &Machine| {
        let said = machine.run(folder.path(), &["doctor", "--device", "cuda", "--json"]).said;
        let found: Value = serde_json::from_str(&said.stdout).unwrap();
        let check = |name: &str| found["checks"].as_array().unwrap().iter().find(|row| row["check"] == name).cloned();
        (said.code, check("cuda").unwrap()["text"].as_str().unwrap().to_owned(), check("device").unwrap())
    };
    let (code, cuda, device) = doctor(&machine);
    assert_eq!((code, cuda.as_str()), (Some(0), "1 device(s)"));
    assert_eq!(device["text"], "cuda:0 means cuda:0 here");
    machine
        .run(folder.path(), &["bench", "--size", "tiny", "--device", "cuda:1"])
        .said
        .bad_line(2, &["there is no cuda:1", "1 CUDA device(s)"]);

    let refused = |machine: &Machine, name: &str| {
        let (code, cuda, device) = doctor(machine);
        assert!(code == Some(2) && cuda.contains(name), "{name}: {cuda}");
        assert!(device["ok"] == json!(false) && device["text"].as_str().unwrap().contains(name), "{device}");
        let parts = ["no CUDA device can be used", name, "--device cpu"];
        machine.run(folder.path(), &BENCH).said.bad_line(2, &parts);
        machine.run(folder.path(), &TRAIN).said.bad_line(2, &parts);
    };
    for header in HEADERS {
        fs::remove_file(machine.header(header)).unwrap();
        refused(&machine, &machine.header(header).display().to_string());
        fs::write(machine.header(header), "").unwrap();
    }
    // A library that is none stands before those that the machine may have.
    machine.libraries = machine.at("without-compiler");
    fs::create_dir(&machine.libraries).unwrap();
    fs::copy(libraries().join("libcuda.so"), machine.libraries.join("libcuda.so")).unwrap();
    fs::write(machine.libraries.join("libnvrtc.so"), "").unwrap();
    for release in 9..=20 {
        fs::write(machine.libraries.join(format!("libnvrtc.so.{release}")), "").unwrap();
    }
    refused(&machine, "libnvrtc");
}

/// Both jobs at this precision, on the device.
#[track_caller]
fn check_rows(ran: &Ran, precision: &str) {
    let rows = ran.said.rows();
    assert_eq!(rows.len(), 2);
    for (row, job) in rows.iter().zip(["train", "predict"]) {
        assert_eq!((&row["job"], &row["device"]), (&json!(job), &json!("cuda:0")));
        assert_eq!(row["precision"], precision);
        // Of the device: the process itself holds far more than the tiny model needs there.
        let peak = row["peak_gib"].as_f64().unwrap();
        assert!(peak > 0.0 && peak < 0.1, "{row}");
    }
    assert_eq!(ran.count("refused"), 0);
    assert!(ran.count("launches") > 0 && ran.count("copies_to_device") > 0, "{}", ran.counts);
}

#[test]
fn a_bench_runs_and_a_second_process_compiles_nothing() {
    let folder = folder();
    let machine = Machine::new();
    let bench = |words: &[&str]| machine.run(folder.path(), &[&BENCH[..], words].concat()).good();
    let first = bench(&["--steps", "3"]);
    check_rows(&first, "f32");
    // A kernel that cannot be built is left out by the backend in silence.
    for kernel in KERNELS {
        assert!(first.compiled.iter().any(|name| name.starts_with(kernel)), "no {kernel} among {:?}", first.compiled);
    }
    let second = bench(&["--steps", "3"]);
    check_rows(&second, "f32");
    assert_eq!(second.compiled, [""; 0], "a second process should find its kernels");
    assert!(second.count("modules") > 0, "{}", second.counts);

    // Three steps of each job, with room for another choice among kernels; each of training has the norms of its gradients,
    // a launch for each parameter. The device is waited for where a step ends.
    let launches = second.count("launches");
    assert!((1..=3 * (1450 + 300)).contains(&launches), "{launches} launches");
    assert_eq!(second.count("stops"), 6, "{}", second.counts);
    // Alone it has shapes of its own to try kernels for.
    bench(&["--steps", "3", "--only", "predict"]);
    let predict = bench(&["--steps", "3", "--only", "predict"]);
    let launches = predict.count("launches");
    assert!((1..=3 * 300).contains(&launches), "{launches} launches");
    assert_eq!((predict.compiled.len(), predict.count("stops"), predict.count("copies_from_device")), (0, 3, 3));

    check_rows(&bench(&["--steps", "1", "--precision", "bf16"]), "bf16");
}

/// The corpus of the tiny run, twice: of twelve steps.
fn doubled(folder: &Path) -> String {
    let corpus = tiny_run().join("corpus");
    let copy = |time: u8| {
        let corpus = &corpus;
        lines_of(&corpus.join("train.jsonl")).into_iter().map(move |mut row| {
            row["id"] = format!("{}-{time}", row["id"].as_str().unwrap()).into();
            row["audio"] = corpus.join(row["audio"].as_str().unwrap()).to_str().unwrap().into();
            format!("{row}\n")
        })
    };
    let rows: String = (0..2).flat_map(copy).collect();
    let path = folder.join("doubled.jsonl");
    fs::write(&path, rows).unwrap();
    format!("data.train=\"{}\"", path.display())
}

#[test]
fn a_training_runs_to_its_end_and_no_step_waits_for_the_device() {
    let folder = folder();
    let machine = Machine::new();
    let events = |run: &str| -> Vec<String> {
        let log = lines_of(&folder.path().join(run).join("log.jsonl"));
        log.iter().map(|entry| entry["event"].as_str().unwrap().to_owned()).collect()
    };
    let short = machine.run(folder.path(), &TRAIN).good();
    for kernel in ["squares", "row_sums"] {
        assert!(short.compiled.iter().any(|name| name.starts_with(kernel)), "no {kernel} among {:?}", short.compiled);
    }
    let on_cpu = lines_of(&tiny_run().join("log.jsonl"));
    assert_eq!(events("run"), on_cpu.iter().map(|entry| entry["event"].as_str().unwrap()).collect::<Vec<_>>());
    for name in ["best", "last"] {
        assert!(folder.path().join("run").join(name).join("model.safetensors").is_file(), "no {name}");
    }
    // Twice as many steps, whose losses are read after the eighth and the last: six that waited would be six stops.
    let data = doubled(folder.path());
    let words = [&TRAIN[..], &["--set", &data, "--set", "run.dir=\"long\""]].concat();
    let long = machine.run(folder.path(), &words).good();
    assert_eq!(events("long").iter().filter(|event| *event == "step").count(), 12);
    let (few, many) = (short.count("stops"), long.count("stops"));
    assert!((1..=few + 2).contains(&many), "{few} stops in 6 steps, {many} in 12");
    // Each epoch scores, saves and ends once.
    assert!(few <= 12, "{few} stops in 6 steps: {}", short.counts);
    assert_eq!(short.count("refused") + long.count("refused"), 0);
}

#[test]
fn too_little_memory_of_the_device_is_told_in_one_line() {
    let folder = folder();
    let machine = Machine::new();
    let bench = [&BENCH[..], &["--steps", "1", "--only", "predict"]].concat();
    let predict = ["predict", "--checkpoint", checkpoint(), "--text", "x", "--device", "cuda"];
    for words in [&bench[..], &TRAIN, &predict] {
        let ran = machine.run_with(folder.path(), words, Some(LITTLE));
        assert!(ran.count("refused") > 0, "{}", ran.counts);
        let said = ran.said.bad_line(1, &["error: out of memory: the device cannot allocate ", " bytes"]);
        let message = said.message();
        let bytes = message.split("allocate ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        assert!(bytes.parse::<u64>().is_ok_and(|bytes| bytes > 0), "{message}");
        assert_eq!(said.stdout, "", "{words:?}");
    }
    assert!(!folder.path().join("run/best").exists() && !folder.path().join("run/last").exists());
    // With enough of it the same words are fine.
    let ran = machine.run(folder.path(), &predict).good();
    assert_eq!(ran.said.rows().len(), 1);
    assert!(ran.count("peak_bytes") > LITTLE, "{}", ran.counts);
}
