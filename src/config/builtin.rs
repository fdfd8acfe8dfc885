//! The configs and plans that are built into the binary, and how a name becomes a config's text.
//!
//! A file always wins over a built-in config of the same name.

use std::path::{Path, PathBuf};

use super::problem::ConfigError;

/// A config that the binary carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// As in `demo.toml`.
    pub name: &'static str,
    pub text: &'static str,
}

/// All of them, in the order in which they are listed.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn { name: "demo.toml", text: include_str!("../../configs/demo.toml") },
    BuiltIn { name: "iemocap4.toml", text: include_str!("../../configs/iemocap4.toml") },
    BuiltIn { name: "slurp.toml", text: include_str!("../../configs/slurp.toml") },
    BuiltIn { name: "mist.toml", text: include_str!("../../configs/mist.toml") },
];

/// The built-in plans of `clasp compare`, in the order in which they are listed.
pub const PLANS: &[BuiltIn] = &[
    BuiltIn { name: "plans/demo.toml", text: include_str!("../../configs/plans/demo.toml") },
    BuiltIn { name: "plans/table4.toml", text: include_str!("../../configs/plans/table4.toml") },
    BuiltIn { name: "plans/table8.toml", text: include_str!("../../configs/plans/table8.toml") },
    BuiltIn { name: "plans/table9.toml", text: include_str!("../../configs/plans/table9.toml") },
    BuiltIn { name: "plans/grid.toml", text: include_str!("../../configs/plans/grid.toml") },
];

/// What is before the name of a plan, so that it is not taken for a config.
const PLANS_FOLDER: &str = "plans/";

impl BuiltIn {
    /// The built-in config of this name, with or without `.toml`.
    pub fn named(name: &str) -> Option<Self> {
        BUILT_IN.iter().copied().find(|config| config.name.strip_suffix(".toml") == Some(stem(name)))
    }

    /// The built-in plan of this name, as `table8`, `table8.toml` or `plans/table8.toml`.
    pub fn plan(name: &str) -> Option<Self> {
        let name = stem(name.strip_prefix(PLANS_FOLDER).unwrap_or(name));
        PLANS.iter().copied().find(|plan| plan.name.strip_prefix(PLANS_FOLDER).map(stem) == Some(name))
    }

    /// What it is: the first line of the comment at its head.
    pub fn about(self) -> &'static str {
        self.text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default()
    }
}

fn stem(name: &str) -> &str {
    name.strip_suffix(".toml").unwrap_or(name)
}

/// The text of a config and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as given, or the built-in config's name.
    pub name: String,
    pub text: String,
    /// The folder of the file; none for a built-in config.
    pub folder: Option<PathBuf>,
}

impl Source {
    /// The name of the config without folder and ending: `iemocap4`.
    pub fn stem(&self) -> &str {
        Path::new(&self.name).file_name().and_then(|name| name.to_str()).map_or("config", stem)
    }
}

/// Finds a config: a file of this path first, else a built-in config of this name (or a plan, as `plans/demo`).
///
/// # Errors
/// [`ConfigError::NotFound`], which lists the built-in ones, or [`ConfigError::Unreadable`].
pub fn find(name_or_path: &str) -> Result<Source, ConfigError> {
    let plan = || BuiltIn::plan(name_or_path).filter(|_| name_or_path.starts_with(PLANS_FOLDER));
    find_among(name_or_path, BuiltIn::named(name_or_path).or_else(plan))?
        .ok_or_else(|| ConfigError::NotFound { name: format!("{name_or_path:?}"), built_in: names(BUILT_IN) })
}

/// Finds a plan: a file of this path first, else a built-in plan of this name.
///
/// # Errors
/// [`ConfigError::NoPlan`], which lists the built-in ones, or [`ConfigError::Unreadable`].
pub fn find_plan(name_or_path: &str) -> Result<Source, ConfigError> {
    find_among(name_or_path, BuiltIn::plan(name_or_path))?
        .ok_or_else(|| ConfigError::NoPlan { name: format!("{name_or_path:?}"), built_in: names(PLANS) })
}

fn names(built_in: &[BuiltIn]) -> String {
    let name = |config: &BuiltIn| config.name.strip_prefix(PLANS_FOLDER).unwrap_or(config.name);
    built_in.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn find_among(name_or_path: &str, built_in: Option<BuiltIn>) -> Result<Option<Source>, ConfigError> {
    let path = Path::new(name_or_path);
    if path.is_file() {
        let text =
            std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let folder = absolute.parent().map(Path::to_owned);
        return Ok(Some(Source { name: name_or_path.to_owned(), text, folder }));
    }
    if let Some(config) = built_in {
        return Ok(Some(Source { name: config.name.to_owned(), text: config.text.to_owned(), folder: None }));
    }
    if path.is_dir() {
        let cause = std::io::Error::other("it is a folder; name the file in it");
        return Err(ConfigError::Unreadable { path: path.to_owned(), cause });
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_config_says_what_it_is() {
        for config in BUILT_IN {
            assert!(config.about().len() > 20, "{}", config.name);
            assert_eq!(BuiltIn::named(config.name), BuiltIn::named(stem(config.name)));
        }
        for plan in PLANS {
            assert!(plan.about().len() > 20, "{}", plan.name);
            assert_eq!(BuiltIn::plan(plan.name), Some(*plan));
            assert_eq!(find(plan.name).unwrap(), find_plan(stem(plan.name)).unwrap());
        }
    }

    #[test]
    fn a_file_wins_over_a_built_in_config() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.toml");
        std::fs::write(&path, "# mine\n").unwrap();
        let source = find(path.to_str().unwrap()).unwrap();
        assert_eq!((source.text.as_str(), source.stem()), ("# mine\n", "demo"));
        assert_eq!(source.folder.as_deref(), Some(folder.path()));
        let built_in = find("demo").unwrap();
        assert_eq!((built_in.name.as_str(), built_in.folder), ("demo.toml", None));
    }

    #[test]
    fn what_is_not_there_is_answered_with_the_list() {
        let message = find("iemocap.toml").unwrap_err().to_string();
        assert!(message.contains("\"iemocap.toml\"") && message.contains("iemocap4.toml, slurp.toml"), "{message}");
        let message = find_plan("table7").unwrap_err().to_string();
        assert!(message.contains("no plan \"table7\"") && message.contains("demo.toml, table4.toml"), "{message}");
        let folder = tempfile::tempdir().unwrap();
        assert!(find(folder.path().to_str().unwrap()).unwrap_err().to_string().contains("folder"));
        let path = folder.path().join("bytes.toml");
        std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        let message = find(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(message.contains("bytes.toml") && message.contains("UTF-8"), "{message}");
    }
}
