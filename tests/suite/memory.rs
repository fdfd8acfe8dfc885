//! Memory through the real binary: what `doctor` says a step takes, what happens when there is none left, and that
//! scoring holds no more than a few batches whatever the number of utterances.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::program::{REST, Said, checkpoint, clasp, folder, program, tone, wav};

/// Convolutions wide enough for half a minute of sound to fill hundreds of megabytes.
const ENCODERS: &str = r"
[text.config]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 16
max_position_embeddings = 66
type_vocab_size = 1
[speech.config]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 16
conv_dim = [64, 64, 16, 16, 16, 16, 16]
conv_kernel = [10, 3, 3, 3, 3, 2, 2]
conv_stride = [5, 2, 2, 2, 2, 2, 2]
num_conv_pos_embeddings = 4
num_conv_pos_embedding_groups = 2
";

/// Forty utterances of a third of a second and four of half a minute, which share one batch of eleven.
fn uneven_corpus(folder: &Path) {
    for (name, samples) in [("short.wav", 4_800_u32), ("long.wav", 480_000)] {
        let second = tone(16_000);
        let data: Vec<u8> = second.iter().copied().cycle().take(2 * samples as usize).collect();
        fs::write(folder.join(name), wav(1, 16, &data, 2 * samples)).unwrap();
    }
    let mut rows = String::new();
    for (name, count) in [("short", 40), ("long", 4)] {
        for number in 0..count {
            let label = ["a", "b"][number % 2];
            let _ = writeln!(
                rows,
                r#"{{"id":"{name}-{number}","audio":"{name}.wav","text":"yes please","label":"{label}"}}"#
            );
        }
    }
    fs::write(folder.join("train.jsonl"), rows).unwrap();
    let config = format!("[data]\ntrain = \"train.jsonl\"\n{ENCODERS}{REST}");
    fs::write(folder.join("config.toml"), config).unwrap();
}

/// The program with no more than so much address space, on two threads that share one heap: what threads reserve and
/// never use counts too.
fn limited(folder: &Path, mib: u32, words: &str) -> Said {
    let command = format!("ulimit -v {}; exec \"$0\" {words}", mib << 10);
    let output = Command::new("sh")
        .args(["-c", &command, env!("CARGO_BIN_EXE_clasp")])
        .current_dir(folder)
        .envs([("RUST_BACKTRACE", "1"), ("RAYON_NUM_THREADS", "2"), ("MALLOC_ARENA_MAX", "1")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said::of(&output)
}

/// Runs to the end, and the most KiB that it had in memory.
fn with_peak(mut command: Command) -> (Said, u64) {
    let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    let [out, err] = files.each_ref().map(|file| file.try_clone().unwrap());
    let mut child = command.stdout(out).stderr(err).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let code = loop {
        if let Some(code) = child.try_wait().unwrap() {
            break code;
        }
        let said = fs::read_to_string(&status).unwrap_or_default();
        let found = said.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        peak = peak.max(found.unwrap_or(0));
        sleep(Duration::from_millis(5));
    };
    let [stdout, stderr] = files.map(|mut file| {
        use std::io::{Read as _, Seek as _};
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    });
    (Said::of(&Output { status: code, stdout, stderr }), peak)
}

/// What `doctor --json` says of a step.
fn step_of(said: &Said) -> Value {
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    let checks = found["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == "memory of a step").unwrap().clone()
}

#[test]
fn a_lack_of_memory_names_the_batch_and_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    uneven_corpus(at);
    // The plan is a function of the seed: with this one the long batch is not the first.
    let train = "train --config config.toml --set train.save_every_steps=1 --set run.workers=1";
    let said = limited(at, 400, train);
    let said = said.bad_line(1, &["out of memory: cannot allocate ", " bytes while training on 4 utterances of up to"]);
    for part in ["30.0 s and ", "long-", "train.batch_size", "train.accumulation_steps", "run/last"] {
        assert!(said.message().contains(part), "no {part:?} in: {}", said.message());
    }
    assert!(at.join("run/last/state.json").is_file(), "the long batch was the first: {}", said.stderr);
    let words: Vec<&str> = train.split(' ').collect();
    clasp(at, &[&words[..], &["--resume"]].concat()).good();
}

/// What `doctor` measures for a config, over what the system says that training by it takes, is within bounds.
#[track_caller]
fn assert_measured(folder: &Path, config: &str, bounds: std::ops::Range<f64>) {
    let on_two_threads = |words: &[&str]| {
        let mut command = program(folder);
        command.args(words).env("RAYON_NUM_THREADS", "2");
        command
    };
    let said = Said::of(&on_two_threads(&["doctor", "--config", config, "--json"]).output().unwrap()).good();
    let bytes = step_of(&said)["step_bytes"].as_u64().unwrap();
    let (said, peak) = with_peak(on_two_threads(&["train", "--config", config, "--overwrite"]));
    said.good();
    let kib = |number: u64| f64::from(u32::try_from(number).unwrap());
    let ratio = kib(bytes >> 10) / kib(peak);
    assert!(bounds.contains(&ratio), "{config}: {} KiB measured by doctor, {peak} KiB taken by training", bytes >> 10);
}

#[test]
fn what_doctor_says_of_a_step_is_what_training_takes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    uneven_corpus(at);
    let config = fs::read_to_string(at.join("config.toml")).unwrap();
    // Activations: what the C library keeps comes to its most only when long batches have come again.
    let again = config.replace("epochs = 1", "epochs = 4");
    for (name, text) in [("unfrozen", again.clone()), ("frozen", again.replace("encoder = false", "encoder = true"))] {
        let path = format!("{name}.toml");
        fs::write(at.join(&path), text).unwrap();
        assert_measured(at, &path, 0.75..1.3);
    }
    // Weights, gradients and moments; saving them holds no copy of the moments, a fifth more.
    let heavy = config
        .replacen("hidden_size = 16\nnum_hidden_layers = 1", "hidden_size = 128\nnum_hidden_layers = 2", 1)
        .replacen("intermediate_size = 16", "intermediate_size = 32768", 1)
        .replace("conv_dim = [64, 64, ", "conv_dim = [8, 8, ")
        .replace("[data]", "[data]\nmax_seconds = 0.3");
    fs::write(at.join("heavy.toml"), heavy.replace("batch_size = 4", "batch_size = 22")).unwrap();
    assert_measured(at, "heavy.toml", 0.88..1.25);
}

#[test]
fn doctor_says_what_fits_and_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    uneven_corpus(at);
    let said = clasp(at, &["doctor", "--config", "config.toml", "--json"]).good();
    let found = step_of(&said);
    assert_eq!((&found["batch"], &found["longest_samples"]), (&4.into(), &480_000.into()), "{found}");
    assert!(found["largest_batch"].as_u64().unwrap() >= 4, "{found}");
    // Where a limit leaves room for less than a batch.
    let said = limited(at, 550, "doctor --config config.toml --json");
    assert_eq!(said.code, Some(1), "{}", said.stdout);
    let found = step_of(&said);
    let largest = found["largest_batch"].as_u64().unwrap();
    assert!((1..4).contains(&largest), "{found}");
    for part in
        [&format!("train.batch_size = {largest}"), "train.accumulation_steps", "data.max_seconds", "speech.freeze"]
    {
        assert!(found["text"].as_str().unwrap().contains(part), "no {part:?} in {found}");
    }
    // Nothing of it is left, the demo's corpus neither.
    let temporary = at.join("temporary");
    fs::create_dir(&temporary).unwrap();
    let mut doctor = program(at);
    doctor.args(["doctor", "--config", "demo", "--json"]).env("TMPDIR", &temporary);
    let said = Said::of(&doctor.output().unwrap()).good();
    assert!(step_of(&said)["step_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(!at.join("runs").exists() && fs::read_dir(&temporary).unwrap().next().is_none());
    let said = clasp(at, &["doctor", "--config", "demo", "--json", "--no-measure"]).good();
    assert!(step_of(&said)["step_bytes"].is_null());
}

/// A thousand utterances of a second are 64 MB of samples more than sixty; what is held of each beyond its batch is a
/// result of a few hundred bytes.
#[test]
fn scoring_holds_a_few_batches_whatever_the_number_of_utterances() {
    let folder = folder();
    let at = folder.path();
    let second = wav(1, 16, &tone(16_000), 32_000);
    fs::write(at.join("second.wav"), second).unwrap();
    let labels = fs::read_to_string(Path::new(checkpoint()).join("best/config.json")).unwrap();
    let labels: Value = serde_json::from_str(&labels).unwrap();
    let label = labels["labels"][0].as_str().unwrap();
    for (name, count) in [("few.jsonl", 60), ("many.jsonl", 1_060)] {
        let row = |number| {
            format!(r#"{{"id":"{number}","audio":"second.wav","text":"stop it now","label":"{label}"}}"#) + "\n"
        };
        fs::write(at.join(name), (0..count).map(row).collect::<String>()).unwrap();
    }
    for command in ["eval --output scores", "predict --output rows.jsonl", "encode --output vectors.safetensors"] {
        let peak = |manifest: &str| {
            let mut scoring = program(at);
            scoring.args(command.split(' ')).args(["--checkpoint", checkpoint(), "--manifest", manifest]);
            let (said, peak) = with_peak(scoring);
            said.good();
            peak
        };
        let (few, many) = (peak("few.jsonl"), peak("many.jsonl"));
        assert!(many < few + (16 << 10), "{command}: {few} KiB for 60 utterances, {many} KiB for 1060");
    }
}
