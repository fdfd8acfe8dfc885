//! `clasp models`: fetches a model of the Hugging Face hub into the cache, or lists what the cache has.

use serde_json::json;

use super::write_output;
use clasp::cli::{ModelsAction, ModelsArguments, ModelsFetchArguments, ModelsListArguments};
use clasp::config::hub::{HubName, SHORT_NAMES};
use clasp::error;
use clasp::hub::{self, Cached, HubError, Settings};
use clasp::terminal::progress::{Event, Progress};
use clasp::units;

/// Runs `clasp models …`.
///
/// # Errors
/// [`HubError`], or where standard output cannot be written.
pub fn run(arguments: &ModelsArguments) -> anyhow::Result<u8> {
    match &arguments.action {
        ModelsAction::Fetch(arguments) => fetch(arguments)?,
        ModelsAction::List(arguments) => list(arguments)?,
    }
    Ok(error::SUCCESS)
}

fn fetch(arguments: &ModelsFetchArguments) -> anyhow::Result<()> {
    let name = name(arguments)?;
    let mut progress = Progress::stderr(false);
    let model = hub::fetch(&name, &Settings::from_environment()?, &mut progress)?;
    progress.handle(&Event::Message(&format!("{name} is complete; a config names it as \"{name}\"")));
    drop(progress);
    if arguments.json {
        write_output(&format!("{:#}\n", json!(model)))?;
    } else {
        write_output(&format!("{}\n", model.folder.display()))?;
    }
    Ok(())
}

fn name(arguments: &ModelsFetchArguments) -> Result<HubName, HubError> {
    let typed = &arguments.name;
    let parsed = match &arguments.revision {
        Some(revision) if !typed.contains('@') => HubName::parse(typed).and_then(|name| name.at(revision)),
        Some(_) => None,
        None => HubName::parse(typed),
    };
    let whole = || arguments.revision.as_ref().map_or_else(|| typed.clone(), |revision| format!("{typed}@{revision}"));
    parsed.ok_or_else(|| HubError::Name { name: whole() })
}

fn list(arguments: &ModelsListArguments) -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    let found = hub::list(&settings.cache)?;
    if arguments.json {
        write_output(&format!("{:#}\n", json!(found)))?;
        return Ok(());
    }
    write_output(&table(&found))?;
    if found.is_empty() {
        let short: Vec<&str> = SHORT_NAMES.iter().map(|(name, _)| *name).collect();
        let text = format!(
            "{} has no models; `clasp models fetch NAME` fetches one, by its hub id or a short name: {}",
            settings.cache.display(),
            short.join(", ")
        );
        Progress::stderr(false).handle(&Event::Message(&text));
    }
    Ok(())
}

/// A line a model: name, kind, size, folder.
fn table(models: &[Cached]) -> String {
    let width = |text: fn(&Cached) -> usize| models.iter().map(text).max().unwrap_or_default();
    let (names, kinds) = (width(|model| model.name.len()), width(|model| model.kind.len()));
    let line = |model: &Cached| {
        let size = units::bytes(model.bytes);
        let state = model.missing.as_ref().map(|missing| format!("  (incomplete: no {missing})")).unwrap_or_default();
        format!("{:names$}  {:kinds$}  {size:>10}  {}{state}\n", model.name, model.kind, model.folder.display())
    };
    models.iter().map(line).collect()
}
