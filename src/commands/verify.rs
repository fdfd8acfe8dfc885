//! `clasp verify`: whether a run can still be had from what it was made from: the hashes of its data, split and
//! weights, and its test score, computed again.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::{eval, write_output};
use clasp::{
    cli::VerifyArguments,
    data::{DataError, manifest},
    device, error,
    eval::{Report, predictions},
    run::{
        RunFolder,
        provenance::{HashedFile, Program, Provenance},
    },
    splits::record::SplitRecord,
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
    let mut manifest = folder.load_manifest()?;
    let mut findings = vec![program(&manifest)];
    findings.extend(manifest.files.iter().map(|stored| file(&folder, stored)));
    findings.extend(split(&manifest));
    if folder.report("test").is_file() {
        // Counted before it is looked at, as any scoring of the test split.
        manifest.count_test_use();
        manifest.save(&folder.manifest())?;
        findings.push(test_score(&folder, &manifest, chosen, arguments.batch_size)?);
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

fn split(manifest: &Provenance) -> Option<Finding> {
    let stored = manifest.split.as_ref()?;
    let parts: Vec<(&str, &Path, Vec<manifest::Row>)> = ["train", "dev", "test"]
        .into_iter()
        .filter_map(|role| manifest.files.iter().find(|file| file.role == role))
        .filter_map(|file| Some((file.role.as_str(), file.path.as_path(), manifest::read(&file.path).ok()?)))
        .collect();
    let used: Vec<(&str, &Path, &[manifest::Row])> =
        parts.iter().map(|(role, path, rows)| (*role, *path, rows.as_slice())).collect();
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
