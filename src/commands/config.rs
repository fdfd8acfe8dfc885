//! `clasp config`: lists the built-in configs, shows one as written or as resolved, copies one to be changed.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{output::Output, write_output};
use clasp::cli::{ConfigAction, ConfigArguments, ConfigCopyArguments, ConfigShowArguments};
use clasp::config::builtin::{self, BUILT_IN, BuiltIn, PLANS};
use clasp::config::{self, ConfigError, render};
use clasp::error;
use clasp::files::{OutputIsInput, replace_file};
use clasp::run::RunFolder;

/// Runs `clasp config …`.
///
/// # Errors
/// [`ConfigError`], or where standard output cannot be written.
pub fn run(arguments: ConfigArguments) -> anyhow::Result<u8> {
    match arguments.action {
        ConfigAction::List(arguments) => write_output(&if arguments.json { list_json() } else { list() })?,
        ConfigAction::Show(arguments) if arguments.json => {
            let text = show(&arguments)?;
            let table = config::document::table(arguments.name.as_deref().unwrap_or("defaults"), &text)?;
            write_output(&format!("{:#}\n", json!(table)))?;
        }
        ConfigAction::Show(arguments) => write_output(&show(&arguments)?)?,
        ConfigAction::Copy(arguments) => {
            let path = copy(&arguments)?;
            write_output(&format!("{}\n", path.display()))?;
        }
    }
    Ok(error::SUCCESS)
}

/// One line a config or plan: its name and what it is.
fn list() -> String {
    let all = || BUILT_IN.iter().chain(PLANS);
    let width = all().map(|config| config.name.len()).max().unwrap_or_default();
    let lines = all().map(|config| format!("{:width$}  {}", config.name, config.about()));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// The same as a JSON list.
fn list_json() -> String {
    let entry = |kind: &'static str| move |config: &BuiltIn| json!({ "name": config.name, "kind": kind, "about": config.about() });
    let all: Vec<_> = BUILT_IN.iter().map(entry("config")).chain(PLANS.iter().map(entry("plan"))).collect();
    format!("{:#}\n", json!(all))
}

/// The file as it is; resolved where that is asked for or flags change it.
fn show(arguments: &ConfigShowArguments) -> Result<String, ConfigError> {
    match &arguments.name {
        Some(name) if arguments.resolved || !arguments.set.is_empty() => {
            Ok(config::load(name, &arguments.set)?.to_toml())
        }
        Some(name) => Ok(builtin::find(name)?.text),
        None => Ok(render::defaults()),
    }
}

/// Writes the config's text into a new file and returns the file's path.
fn copy(arguments: &ConfigCopyArguments) -> anyhow::Result<PathBuf> {
    let source = builtin::find(&arguments.name)?;
    // A plan's name may be that of a config: `demo`.
    let is_plan = source.folder.is_none() && PLANS.iter().any(|plan| plan.name == source.name);
    let name = format!("{}{}.toml", source.stem(), if is_plan { "-plan" } else { "" });
    let path = match &arguments.to {
        Some(to) if to.is_dir() => to.join(name),
        Some(to) => to.clone(),
        None => PathBuf::from(name),
    };
    if source.folder.is_some() {
        Output::new("the copy", &path).is_not("the config itself", Path::new(&source.name))?;
    }
    let folder = RunFolder::new(path.parent().unwrap_or(Path::new("")));
    if folder.is_run() && folder.writes_real(&path) {
        return Err(OutputIsInput { flag: "the copy", path, what: "a file of a run".to_owned() }.into());
    }
    let result = if arguments.force { replace(&path, &source.text) } else { create(&path, &source.text) };
    match result {
        Ok(()) => Ok(path),
        Err(failure) if failure.kind() == ErrorKind::AlreadyExists => Err(ConfigError::Exists { path }.into()),
        Err(cause) => Err(ConfigError::Unwritable { path, cause }.into()),
    }
}

fn create(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    replace_file(path, text.as_bytes()).map_err(|error| error.cause)
}
