//! Names and labels that look the same: one form for each, and files whose names are written in another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use unicode_normalization_alignments::UnicodeNormalization as _;

/// A name without space around it and in Unicode's normal form C, so that what looks the same is the same.
pub fn normal(name: &str) -> String {
    let is_space = |letter: char| letter.is_whitespace() || matches!(letter, '\u{200b}' | '\u{feff}');
    composed(name.trim_matches(is_space))
}

fn composed(name: &str) -> String {
    if name.is_ascii() { name.to_owned() } else { name.nfc().map(|(letter, _)| letter).collect() }
}

/// Labels that look alike, as sentences: those that differ only by case, space, accents or punctuation.
pub fn look_alikes<'a>(labels: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut alike: BTreeMap<String, BTreeSet<&String>> = BTreeMap::new();
    for label in labels {
        let letters: String =
            label.to_lowercase().nfkd().map(|(letter, _)| letter).filter(|letter| letter.is_alphanumeric()).collect();
        // Signs alone, and numbers (-1, 1.0), differ by just these.
        if letters.chars().any(|letter| !letter.is_numeric()) {
            alike.entry(letters).or_default().insert(label);
        }
    }
    let sentence = |labels: BTreeSet<&String>| {
        let names: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!(
            "the labels {} differ only by case, space, accents or punctuation; if they mean the same, write them the same",
            names.join(" and ")
        )
    };
    alike.into_values().filter(|labels| labels.len() > 1).map(sentence).collect()
}

/// What a folder has: its names by their form, `None` if two names have the same.
type Names = HashMap<String, Option<OsString>>;

/// Files that are looked for by names in any of Unicode's normal forms, as systems and archives change them.
#[derive(Default)]
pub struct FileNames {
    folders: HashMap<PathBuf, Names>,
}

impl FileNames {
    /// The file that a path means: where there is none of that name, the one whose name looks the same, if there is one.
    pub fn find(&mut self, path: PathBuf) -> PathBuf {
        // ASCII has one form.
        if path.as_os_str().is_ascii() || path.exists() {
            return path;
        }
        self.search(&path, composed).unwrap_or(path)
    }

    /// The file whose path, name by name, has the same form as `path`.
    fn search(&mut self, path: &Path, form: fn(&str) -> String) -> Option<PathBuf> {
        let mut found = PathBuf::new();
        for part in path.components() {
            let next = found.join(part);
            let Component::Normal(name) = part else {
                found = next;
                continue;
            };
            found = if next.exists() {
                next
            } else {
                let folder = if found.as_os_str().is_empty() { Path::new(".") } else { &found };
                let names = self.folders.entry(folder.to_path_buf()).or_insert_with(|| names_in(folder, form));
                let name = names.get(&form(name.to_str()?))?.clone()?;
                found.join(name)
            };
        }
        Some(found)
    }
}

fn names_in(folder: &Path, form: fn(&str) -> String) -> Names {
    let mut names = Names::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str() {
            names.entry(form(name)).and_modify(|other| *other = None).or_insert_with(|| Some(entry.file_name()));
        }
    }
    names
}

/// Where a file is missing: the one whose path differs from it only by case, normal form or space around names.
pub fn similar(missing: &Path) -> Option<PathBuf> {
    // Of thousands of files that are missing, each is told of, and each folder is read once.
    static NAMES: LazyLock<Mutex<FileNames>> = LazyLock::new(Mutex::default);
    NAMES.lock().ok()?.search(missing, |name| normal(name).to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_trimmed_and_composed() {
        for name in ["\u{c9}t\u{e9}", " E\u{301}te\u{301}\u{a0}", "\u{feff}\u{c9}t\u{e9}\u{200b}\t"] {
            assert_eq!(normal(name), "\u{c9}t\u{e9}");
        }
        assert_eq!(normal(" two  words "), "two  words");
    }

    #[test]
    fn labels_that_look_alike_are_named() {
        let alike = |labels: &[&str]| look_alikes(&labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>());
        let found = alike(&["play_music", "sad", "Play Music", "\u{e9}t\u{e9}", "ete", "play-music", "sad"]);
        assert_eq!(found.len(), 2);
        assert!(
            found[0].starts_with("the labels `ete` and `\u{e9}t\u{e9}` differ only by case, space, accents"),
            "{found:?}"
        );
        assert!(found[1].starts_with("the labels `Play Music` and `play-music` and `play_music` "), "{found:?}");
        assert_eq!(alike(&["+", "-", "-1", "1", "1.5", "15", "a", "b"]), [""; 0]);
    }

    #[test]
    fn files_are_found_by_any_normal_form_and_similar_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // As macOS writes them.
        std::fs::create_dir(at("U\u{308}ben")).unwrap();
        std::fs::write(at("U\u{308}ben/U\u{308}bung.WAV"), "").unwrap();
        let mut names = FileNames::default();
        assert_eq!(names.find(at("\u{dc}ben/\u{dc}bung.WAV")), at("U\u{308}ben/U\u{308}bung.WAV"));
        assert_eq!(names.find(at("\u{dc}ben/\u{dc}bung.wav")), at("\u{dc}ben/\u{dc}bung.wav"));
        assert_eq!(similar(&at("\u{dc}ben/\u{dc}bung.wav")), Some(at("U\u{308}ben/U\u{308}bung.WAV")));
        assert_eq!((similar(&at("other")), similar(Path::new("Cargo.TOML"))), (None, Some("Cargo.toml".into())));
        // Which of two is meant nobody knows.
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("A.wav"), "").unwrap();
        std::fs::write(at("a.wav"), "").unwrap();
        assert_eq!(similar(&at("A.WAV")), None);
    }
}
