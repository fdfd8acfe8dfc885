//! `clasp compare`: a plan's runs, one after another or several at a time, and the table of what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context as _;
use serde_json::json;
use tempfile::TempDir;

use super::{bench::profile::matrix_rate, count, train, write_output};
use clasp::{
    cli::CompareArguments,
    compare::{
        CompareError, Plan,
        estimate::Workload,
        result::Results,
        run::{self, Means, Summary},
        status::{self, Estimates, Hashes, RunStatus, status},
        table,
        watch::Watch,
    },
    config::{Config, DataSource, EncoderSource, Precision, locate},
    data::manifest,
    demo::{self, DemoCorpus},
    device::{self, Task},
    error::{self, Problems},
    eval::comparison::key_of,
    ops::Ops,
    panics,
    terminal::table::Table,
    train::setup,
    units::duration,
};

/// Runs `clasp compare`.
///
/// # Errors
/// A plan that cannot be used; data, encoders or devices that are not there; runs that failed.
pub fn run(arguments: &CompareArguments) -> anyhow::Result<u8> {
    let are_begun = Arc::new(AtomicBool::new(false));
    let stops = stops(Arc::clone(&are_begun))?;
    let mut plan = Plan::load(&arguments.plan, &arguments.set)?;
    if !arguments.device.is_empty() {
        plan.devices.clone_from(&arguments.device);
        plan.jobs = plan.jobs.max(plan.devices.len());
    }
    plan.jobs = arguments.jobs.map_or(plan.jobs, count);
    let statuses = statuses(&plan)?;
    let mut estimates = Estimates::of(&plan);
    let left: Vec<usize> = (0..plan.runs.len()).filter(|&place| statuses[place] != RunStatus::Done).collect();
    if arguments.dry_run {
        estimate(&plan, &left, &mut estimates);
        write_output(&dry_run(&plan, &statuses, &estimates, arguments.json))?;
        check(&plan, &left)?;
        check_clusters(&plan)?;
        return Ok(error::SUCCESS);
    }
    check(&plan, &left)?;
    check_clusters(&plan)?;
    let _lock = open(&plan.dir)?;
    for corpus in &plan.corpora {
        if let Some((folder, options)) = &corpus.synthetic {
            demo::write_corpus(folder, options)?;
        }
    }
    // Of what was generated just now too.
    check_clusters(&plan)?;
    let mut watch = Watch::new(&plan, &statuses, plan.jobs, arguments.quiet);
    watch.say(&format!("plan {}: {}; tables go to {}", plan.name, begins(&plan, &statuses), plan.dir.display()));
    let program = std::env::current_exe().context("cannot find this program's file")?;
    are_begun.store(true, Ordering::SeqCst);
    let means = Means { program: &program, jobs: plan.jobs, devices: &plan.devices, stops: &stops };
    let summary = run::run(&plan, &left, means, &mut estimates, &mut watch);
    watch.finish();
    let results = Results::of(&plan)?;
    // Neither a reader that has seen enough nor a folder that cannot be written keeps the table from the other.
    let written = table::write(&results, &plan.dir);
    if arguments.json {
        write_output(&format!("{:#}\n", json!(results)))?;
    } else if results.runs_done > 0 {
        write_output(&table::text(&results))?;
    }
    written?;
    conclude(summary, &results)
}

fn conclude(summary: Summary, results: &Results) -> anyhow::Result<u8> {
    let (done, all) = (results.runs_done, results.runs_planned);
    if summary.is_interrupted && done < all {
        return Err(CompareError::Interrupted { done, all }.into());
    }
    if !summary.failed.is_empty() {
        let failed = summary.failed.len();
        return Err(CompareError::Failed { failed, all, problems: Problems(summary.failed) }.into());
    }
    Ok(error::SUCCESS)
}

/// Where all runs stand; folders that hold something else are refused together.
fn statuses(plan: &Plan) -> anyhow::Result<Vec<RunStatus>> {
    let compare = |stored: &str, config: &Config| train::compare(stored, config, false, train::Allowed::default());
    let mut hashes = Hashes::default();
    let status = |run| status(run, &compare, &mut hashes, plan.corpus_of(run).synthetic.is_some());
    let statuses = plan.runs.iter().map(status).collect::<Result<Vec<_>, _>>()?;
    let others: Vec<String> = statuses
        .iter()
        .filter_map(|status| match status {
            RunStatus::Other(what) => Some(what.clone()),
            _ => None,
        })
        .collect();
    if others.is_empty() { Ok(statuses) } else { Err(CompareError::OtherRuns(Problems(others)).into()) }
}

/// A key that test data, where they are there, do not have would be missed only when all runs are done; and of a single
/// cluster nothing can be drawn.
fn check_clusters(plan: &Plan) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for (place, corpus) in plan.corpora.iter().enumerate() {
        let Some(key) = corpus.cluster.as_deref() else { continue };
        let runs = plan.runs.iter().filter(|run| run.corpus == place);
        let paths: BTreeSet<&Path> = runs
            .filter_map(|run| match &run.config.data.source {
                DataSource::Manifests { test: Some(test), .. } if test.is_file() => Some(test.as_path()),
                _ => None,
            })
            .collect();
        let mut clusters = BTreeSet::new();
        let mut lacking = 0;
        for path in &paths {
            let values: Vec<_> = manifest::read(path)?.iter().map(|row| key_of(row, key)).collect();
            if values.iter().all(Option::is_none) {
                problems.push(format!("no row of {} has the key `{key}` of `cluster`", path.display()));
            }
            lacking += values.iter().filter(|value| value.is_none()).count();
            clusters.extend(values.into_iter().flatten());
        }
        if clusters.len() == 1 && lacking == 0 {
            problems
                .push(format!("all test utterances of {} have the same `{key}`, the key of `cluster`", corpus.name));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(CompareError::NoCluster(Problems(problems)).into()) }
}

/// What would fail in every run is reported before the first one.
fn check(plan: &Plan, left: &[usize]) -> anyhow::Result<()> {
    if left.is_empty() {
        return Ok(());
    }
    for device in &plan.devices {
        device::choose(*device)?;
    }
    let mut manifests = BTreeSet::new();
    let mut folders = BTreeSet::new();
    for run in left.iter().map(|&place| &plan.runs[place]) {
        if let (None, DataSource::Manifests { train, dev, test }) =
            (&plan.corpus_of(run).synthetic, &run.config.data.source)
        {
            manifests.extend([Some(train), dev.as_ref(), test.as_ref()].into_iter().flatten());
        }
        for (key, source) in
            [("text.checkpoint", &run.config.text.source), ("speech.checkpoint", &run.config.speech.source)]
        {
            if let EncoderSource::Checkpoint { folder, .. } = source {
                folders.insert((key, folder));
            }
        }
    }
    let missing: Vec<String> = manifests
        .into_iter()
        .filter(|path| !path.is_file())
        .map(|path| format!("there is no manifest {}", path.display()))
        .collect();
    if !missing.is_empty() {
        return Err(CompareError::NoData(Problems(missing)).into());
    }
    for (key, folder) in folders {
        locate::encoder(key, folder)?;
    }
    let mut checked = BTreeSet::new();
    for run in left.iter().map(|&place| &plan.runs[place]) {
        if plan.corpus_of(run).synthetic.is_none()
            && checked.insert((run.corpus, run.fold, run.config.model.method.word()))
        {
            setup::check_splits(&run.config).with_context(|| run.name.clone())?;
        }
    }
    Ok(())
}

/// Makes the folder of the tables, and keeps other processes from it while the file lives.
fn open(folder: &Path) -> anyhow::Result<File> {
    let cannot = || format!("cannot write to the plan's folder {}", folder.display());
    fs::create_dir_all(folder).with_context(cannot)?;
    let file = File::open(folder).with_context(cannot)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(CompareError::Busy { path: folder.to_owned() }.into()),
        // Some network file systems have no locks: then there is none to respect.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Counts Ctrl-C and SIGTERM; the third one ends the program at once, as does the first one where no runs are begun.
fn stops(are_begun: Arc<AtomicBool>) -> anyhow::Result<Arc<AtomicUsize>> {
    let stops = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&stops);
    super::listen(move || {
        if !are_begun.load(Ordering::SeqCst) {
            std::process::exit(i32::from(error::INTERRUPTED));
        }
        if seen.fetch_add(1, Ordering::SeqCst) > 1 {
            // The runs are to hear of it first.
            std::thread::sleep(3 * run::TICK);
            std::process::exit(i32::from(error::INTERRUPTED));
        }
    })?;
    Ok(stops)
}

/// `9 runs, 3 done, 1 to go on with, 5 to begin, 2 at a time`
fn begins(plan: &Plan, statuses: &[RunStatus]) -> String {
    let number = |wanted: &RunStatus| statuses.iter().filter(|status| *status == wanted).count();
    format!(
        "{} runs, {} done, {} to go on with, {} to begin, {} at a time",
        plan.runs.len(),
        number(&RunStatus::Done),
        number(&RunStatus::Started),
        number(&RunStatus::Missing),
        plan.jobs
    )
}

fn state(status: &RunStatus) -> &'static str {
    match status {
        RunStatus::Done => "done",
        RunStatus::Started => "begun",
        RunStatus::Missing => "to begin",
        RunStatus::Other(_) => "other",
    }
}

/// Estimates how long runs take where none like them was timed. What cannot be estimated (data or encoders are missing
/// are told of by the checks) stays unknown.
fn estimate(plan: &Plan, left: &[usize], estimates: &mut Estimates) {
    let mut rates: BTreeMap<String, Option<f64>> = BTreeMap::new();
    // Copies of the synthetic ones: a dry run writes nothing where the plan's runs are.
    let mut corpora: BTreeMap<usize, Option<(DemoCorpus, TempDir)>> = BTreeMap::new();
    for run in left.iter().map(|&place| &plan.runs[place]) {
        if estimates.measured(run).is_some() || estimates.estimated(run).is_some() {
            continue;
        }
        let device = plan.devices.first().copied().unwrap_or(run.config.run.device.all()[0]);
        let Ok(chosen) = device::choose(device) else { continue };
        let precision = run.config.run.precision;
        let rate = rates
            .entry(format!("{chosen} {}", precision.word()))
            .or_insert_with(|| panics::catch(|| device::dispatch(chosen, Rate(precision))).and_then(|rate| rate).ok());
        let synthetic = corpora.entry(run.corpus).or_insert_with(|| {
            let (_, options) = plan.corpus_of(run).synthetic.as_ref()?;
            let folder = tempfile::tempdir().ok()?;
            let corpus = demo::write_corpus(folder.path(), options).ok()?;
            Some((corpus, folder))
        });
        let synthetic = synthetic.as_ref().map(|(corpus, _)| corpus);
        if let (Some(rate), Ok(work)) = (*rate, Workload::of(&run.config, synthetic)) {
            estimates.estimate(run, work.seconds(rate));
        }
    }
}

/// How fast a device multiplies matrices of the size of the encoders'.
struct Rate(Precision);

impl Task for Rate {
    type Output = Result<f64, String>;

    fn run<B: Ops>(self, device: &B::Device) -> Self::Output {
        matrix_rate::<B>([896, 768, 3072], self.0, device)
    }
}

/// The runs, where they stand, and how long those that are left may take.
fn dry_run(plan: &Plan, statuses: &[RunStatus], estimates: &Estimates, is_json: bool) -> String {
    let is_left = |status: &RunStatus| *status != RunStatus::Done;
    let time = |run| {
        estimates
            .measured(run)
            .map(|seconds| (seconds, "runs"))
            .or_else(|| Some((estimates.estimated(run)?, "arithmetic")))
    };
    let rows: Vec<_> = plan.runs.iter().zip(statuses).map(|(run, status)| (run, status, time(run))).collect();
    let left: Vec<Option<(f64, &str)>> =
        rows.iter().filter(|(_, status, _)| is_left(status)).map(|(_, _, time)| *time).collect();
    let unknown = left.iter().filter(|time| time.is_none()).count();
    let arithmetic = left.iter().flatten().filter(|(_, from)| *from == "arithmetic").count();
    let each: Vec<f64> = left.iter().flatten().map(|(seconds, _)| *seconds).collect();
    let seconds = status::side_by_side(&each, plan.jobs);
    if is_json {
        let runs: Vec<_> = rows
            .iter()
            .map(|(run, status, time)| {
                json!({
                    "name": run.name,
                    "folder": status::folder(run).path(),
                    "state": state(status),
                    "seconds": time.map(|(seconds, _)| seconds),
                    "estimated_from": time.map(|(_, from)| from),
                })
            })
            .collect();
        let left =
            json!({ "seconds_left": seconds, "runs_of_guessed_time": arithmetic, "runs_of_unknown_time": unknown });
        return format!(
            "{:#}\n",
            json!({ "plan": plan.name, "folder": plan.dir, "jobs": plan.jobs, "runs": runs, "estimate": left })
        );
    }
    let mut table = Table::new(["run", "state", "time"]);
    for (run, status, time) in &rows {
        let time = match time {
            Some((seconds, "runs")) => format!("about {}", duration(*seconds)),
            Some((seconds, _)) => format!("roughly {}", duration(*seconds)),
            None => "unknown until the first run ends".to_owned(),
        };
        table.row([run.name.as_str(), state(status), if is_left(status) { &time } else { "" }]);
    }
    let mut time = match (unknown, left.len()) {
        (_, 0) => "nothing is left to do".to_owned(),
        (0, _) if arithmetic == 0 => format!("about {} left", duration(seconds)),
        (0, _) => format!("roughly {} left", duration(seconds)),
        (unknown, left) if unknown == left => "time unknown until the first run of a system ends".to_owned(),
        (unknown, _) => {
            format!("about {} left, and {unknown} run(s) of systems of which none has ended yet", duration(seconds))
        }
    };
    if arithmetic > 0 {
        time.push_str("; rough times are estimated from operation counts until a run ends");
    }
    format!("{table}\nplan {}: {}; {time}\n", plan.name, begins(plan, statuses))
}
