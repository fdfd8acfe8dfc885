//! The configs that are built into the binary, and how a name becomes a config's text.
//!
//! A file always wins over a built-in config of the same name.

use std::path::{Path, PathBuf};

use super::problem::ConfigError;

/// A config that the binary carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// As in `demo.toml`.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

/// All of them, in the order in which they are listed.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn { name: "demo.toml", text: include_str!("../../configs/demo.toml") },
    BuiltIn { name: "iemocap4.toml", text: include_str!("../../configs/iemocap4.toml") },
    BuiltIn { name: "slurp.toml", text: include_str!("../../configs/slurp.toml") },
    BuiltIn { name: "mist.toml", text: include_str!("../../configs/mist.toml") },
];

impl BuiltIn {
    /// The built-in config of this name, with or without `.toml`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        BUILT_IN.iter().copied().find(|config| config.name.strip_suffix(".toml") == Some(stem(name)))
    }

    /// What it is: the first line of the comment at its head.
    #[must_use]
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
    /// The text.
    pub text: String,
    /// The folder of the file; none for a built-in config.
    pub folder: Option<PathBuf>,
}

impl Source {
    /// The name of the config without folder and ending: `iemocap4`.
    #[must_use]
    pub fn stem(&self) -> &str {
        Path::new(&self.name).file_name().and_then(|name| name.to_str()).map_or("config", stem)
    }
}

/// Finds a config: a file of this path first, else a built-in config of this name.
///
/// # Errors
/// [`ConfigError::NotFound`], which lists the built-in ones, or [`ConfigError::Unreadable`].
pub fn find(name_or_path: &str) -> Result<Source, ConfigError> {
    let path = Path::new(name_or_path);
    if path.is_file() {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let folder = absolute.parent().map(Path::to_owned);
        return Ok(Source { name: name_or_path.to_owned(), text, folder });
    }
    if let Some(config) = BuiltIn::named(name_or_path) {
        return Ok(Source { name: config.name.to_owned(), text: config.text.to_owned(), folder: None });
    }
    if path.is_dir() {
        let source = std::io::Error::other("it is a folder; name the file in it");
        return Err(ConfigError::Unreadable { path: path.to_owned(), source });
    }
    let built_in = BUILT_IN.iter().map(|config| config.name).collect::<Vec<_>>().join(", ");
    Err(ConfigError::NotFound { name: format!("{name_or_path:?}"), built_in })
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
        let folder = tempfile::tempdir().unwrap();
        assert!(find(folder.path().to_str().unwrap()).unwrap_err().to_string().contains("folder"));
        let path = folder.path().join("bytes.toml");
        std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        let message = find(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(message.contains("bytes.toml") && message.contains("UTF-8"), "{message}");
    }
}
