//! `clasp verify`: whether a run can still be had from what it was made from: the hashes of its data, recordings, split
//! and weights, and its test score, computed again.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde_json::json;

use super::{counting, eval, write_output};
use clasp::{
    checkpoint::sums,
    cli::{UnknownLabelPolicy, VerifyArguments},
    data::{
        DataError, audio,
        manifest::{self, Row},
    },
    device,
    error::{self, Problems},
    eval::{Report, predictions},
    run::{
        RunError, RunFolder,
        provenance::{HashedFile, Program, Provenance, ProvenanceError},
        recordings,
    },
    splits::{PARTS, record::SplitRecord},
    terminal::{Event, Progress},
};

/// How far a score may be from the stored one: another machine sums in another order.
const TOLERANCE: f64 = 1e-6;

/// One thing that was computed again.
struct Finding {
    what: String,
    /// What was found, or how it differs.
    text: String,
    differs: bool,
}

/// Runs `clasp verify`.
///
/// # Errors
/// A folder that holds no run; something that differs (exit code 3).
pub fn run(arguments: &VerifyArguments) -> anyhow::Result<u8> {
    let chosen = device::choose(arguments.device)?;
    let folder = RunFolder::new(&arguments.run);
    let manifest = folder.load_manifest()?;
    let mut findings = vec![program(&manifest)];
    findings.extend(manifest.files.iter().map(|stored| file(&folder, stored)));
    let parts = Parts::of(&manifest);
    findings.extend(split(&manifest, &parts));
    findings.push(recorded(&folder, &parts)?);
    findings.extend([("best", folder.best()), ("last", folder.last())].map(|(what, path)| saved(what, &path)));
    if arguments.decode {
        findings.push(decoded(&parts));
    }
    if folder.report("test").is_file() {
        // Counted before it is looked at, as any scoring of the test split.
        let is_counted = count_test_use(&folder)?;
        let found = test_score(&folder, &manifest, chosen, arguments.batch_size);
        if is_counted {
            folder.end_test_use()?;
        }
        findings.push(found?);
    }
    let differing: Vec<&Finding> = findings.iter().filter(|finding| finding.differs).collect();
    let text = if arguments.json {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "what": finding.what, "ok": !finding.differs, "text": finding.text }))
            .collect();
        format!("{:#}\n", json!({ "ok": differing.is_empty(), "checks": rows }))
    } else {
        findings.iter().fold(String::new(), |mut text, finding| {
            let mark = if finding.differs { "DIFFERS" } else { "ok     " };
            let _ = writeln!(text, "{mark}  {:<16} {}", finding.what, finding.text);
            text
        })
    };
    write_output(&text)?;
    match differing.first() {
        None => Ok(error::SUCCESS),
        Some(first) => {
            let first = format!("{}: {}", first.what, first.text);
            Err(DataError::Untrusted { errors: differing.len(), first }.into())
        }
    }
}

/// The files of a checkpoint, against the hashes that it states.
fn saved(what: &str, folder: &Path) -> Finding {
    let (text, differs) = match sums::check(folder, |_| true) {
        Ok(0) if !folder.is_dir() => ("it is not there".to_owned(), false),
        Ok(0) => (format!("it has no {}, as those of older versions", sums::FILE), false),
        Ok(files) => (format!("{files} files as they were saved"), false),
        Err(problem) => (problem.to_string(), true),
    };
    Finding { what: what.to_owned(), text, differs }
}

/// Another program may well give another result, but that is seen in the scores.
fn program(manifest: &Provenance) -> Finding {
    let current = Program::current();
    let made = manifest.sessions.last().map(|session| &session.program);
    let shown =
        |program: &Program| format!("clasp {} ({})", program.version, program.git.as_deref().unwrap_or("no git state"));
    let text = match made {
        Some(made) if *made == current => format!("{}, as this one", shown(made)),
        Some(made) => format!("{}; this one is {}", shown(made), shown(&current)),
        None => "not known".to_owned(),
    };
    Finding { what: "program".to_owned(), text, differs: false }
}

fn file(folder: &RunFolder, stored: &HashedFile) -> Finding {
    let path = folder.path().join(&stored.path);
    let found = HashedFile::of(&stored.role, &path);
    let path = path.display();
    let (text, differs) = match found {
        Ok(found) if found.sha256 == stored.sha256 => (format!("{path}: sha256 {}", short(&stored.sha256)), false),
        Ok(found) => {
            let (was, is) = (short(&stored.sha256), short(&found.sha256));
            (format!("{path} has changed: sha256 {was} when it was used, {is} now"), true)
        }
        Err(problem) => (format!("{problem}"), true),
    };
    Finding { what: stored.role.clone(), text, differs }
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// Counts this use of the test split; not in a folder that cannot be written, where a note says so.
fn count_test_use(folder: &RunFolder) -> anyhow::Result<bool> {
    match folder.count_test_use() {
        Ok(_) => Ok(true),
        Err(RunError::Provenance(ProvenanceError::File(error)))
            if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem].contains(&error.cause.kind()) =>
        {
            let words = format!("note: this use of the test split is not counted: {error}");
            Progress::stderr(false).handle(&Event::Message(&words));
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The splits of a run as their manifests have them now.
struct Parts<'a> {
    read: Vec<(&'a str, &'a Path, Vec<Row>)>,
    /// Those whose manifest cannot be read.
    missing: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(manifest: &'a Provenance) -> Self {
        let mut parts = Self { read: Vec::new(), missing: Vec::new() };
        for role in PARTS {
            let Some(file) = manifest.files.iter().find(|file| file.role == role) else { continue };
            match manifest::read(&file.path) {
                Ok(rows) => parts.read.push((role, &file.path, rows)),
                Err(_) => parts.missing.push(role),
            }
        }
        parts
    }

    fn used(&self) -> Vec<(&str, &Path, &[Row])> {
        self.read.iter().map(|(role, path, rows)| (*role, *path, rows.as_slice())).collect()
    }
}

/// The recordings as they are now against those that the run was made from.
fn recorded(folder: &RunFolder, parts: &Parts) -> anyhow::Result<Finding> {
    let what = "recordings".to_owned();
    let Some(mut known) = recordings::read(&folder.recordings())? else {
        let text = "not known: the program that trained this run did not hash them".to_owned();
        return Ok(Finding { what, text, differs: false });
    };
    // What their manifests say of them is not known.
    known.retain(|recording| !parts.missing.contains(&recording.split.as_str()));
    let changed = recordings::changed(&known, &recordings::of(&parts.used(), None)?);
    let differs = !changed.is_empty();
    let text = if differs {
        format!("{} of {} differ: {}", changed.len(), known.len(), Problems(changed))
    } else {
        format!("{} have the sha256 that they had", known.len())
    };
    Ok(Finding { what, text, differs })
}

/// Whether every recording can be decoded.
fn decoded(parts: &Parts) -> Finding {
    let rows: Vec<&Row> = parts.read.iter().flat_map(|(.., rows)| rows).filter(|row| row.audio.is_some()).collect();
    let done = AtomicUsize::new(0);
    let problems: Vec<String> = counting("decoding", |progress| {
        rows.par_iter()
            .filter_map(|row| {
                let loaded = audio::load_piece(row.audio.as_deref()?, row.piece());
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, rows.len());
                loaded.err().map(|problem| format!("utterance `{}`: {problem}", row.id))
            })
            .collect()
    });
    let differs = !problems.is_empty();
    let text = if differs {
        format!("{} of {} utterances: {}", problems.len(), rows.len(), Problems(problems))
    } else {
        format!("{} utterances", rows.len())
    };
    Finding { what: "decoded".to_owned(), text, differs }
}

fn split(manifest: &Provenance, parts: &Parts) -> Option<Finding> {
    let stored = manifest.split.as_ref()?;
    if !parts.missing.is_empty() {
        let text = format!("not known: the manifest of {} cannot be read", parts.missing.join(" and "));
        return Some(Finding { what: "parts".to_owned(), text, differs: true });
    }
    let used = parts.used();
    let found = SplitRecord::of(&used);
    let differs = found.used_sha256 != stored.used_sha256;
    let text = if differs {
        format!(
            "{} when it was used, {} now: utterances are in other parts",
            short(&stored.used_sha256),
            short(&found.used_sha256)
        )
    } else {
        format!("sha256 {}", short(&stored.used_sha256))
    };
    Some(Finding { what: "parts".to_owned(), text, differs })
}

/// Scores the best checkpoint on the test split again.
fn test_score(
    folder: &RunFolder,
    manifest: &Provenance,
    chosen: device::ResolvedDevice,
    batch_size: u32,
) -> anyhow::Result<Finding> {
    let what = "test score".to_owned();
    let stored = Report::load(&folder.report("test"))?;
    let file = manifest.files.iter().find(|file| file.role == "test").filter(|file| file.path.is_file());
    let Some(file) = file else {
        return Ok(Finding { what, text: "the test manifest is not there to be scored".to_owned(), differs: true });
    };
    let scoring = eval::Scoring {
        checkpoint: &folder.best(),
        manifest: &file.path,
        split: "test",
        output: None,
        keys: &[],
        cluster: None,
        test_uses: None,
        batch_size: super::count(batch_size),
        batch_seconds: None,
        unknown_labels: match &stored.unknown_labels {
            None => UnknownLabelPolicy::Refuse,
            Some(unknown) if unknown.are_dropped => UnknownLabelPolicy::Drop,
            Some(_) => UnknownLabelPolicy::Wrong,
        },
        supply: None,
        data_split: manifest.split.clone(),
        is_quiet: false,
    };
    let found = eval::score(&scoring, chosen)?;
    let pairs =
        stored.fusion.headline.map(|estimate| estimate.value).zip(found.fusion.headline.map(|estimate| estimate.value));
    let differing: Vec<String> = pairs
        .named()
        .into_iter()
        .filter(|(_, (before, now))| (before - now).abs() > TOLERANCE)
        .map(|(name, (before, now))| format!("{name} {before:.6} in the report, {now:.6} now"))
        .collect();
    let rows = predictions::read(&folder.predictions("test"))?.len();
    if rows != stored.examples + stored.failed + stored.unlabelled {
        let text = format!("{rows} saved predictions, {} in the report", stored.examples + stored.failed);
        return Ok(Finding { what, text, differs: true });
    }
    let text = if differing.is_empty() {
        format!(
            "weighted F1 {:.6} on {} examples, as in the report",
            found.fusion.headline.weighted_f1.value, found.examples
        )
    } else {
        differing.join("; ")
    };
    Ok(Finding { what, text, differs: !differing.is_empty() })
}
