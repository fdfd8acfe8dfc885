//! `clasp prepare librispeech`: LibriSpeech (Panayotov et al., LibriSpeech: An ASR corpus based on public domain audio
//! books, ICASSP 2015; openslr.org/12), each subset a manifest. It has no labels: it is what other corpora are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::audio::{AudioOptions, settle};
use super::folder::{Corpus, Fold, files_in, folders_in};
use super::reading;
use crate::data::manifest::{self, Row};
use crate::data::{DataError, list};

pub use super::reading::Reading;

/// Utterances of the official subsets, as published.
pub const PUBLISHED: [(&str, usize); 7] = [
    ("dev-clean", 2_703),
    ("dev-other", 2_864),
    ("test-clean", 2_620),
    ("test-other", 2_939),
    ("train-clean-100", 28_539),
    ("train-clean-360", 104_014),
    ("train-other-500", 148_688),
];

/// What to read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LibriSpeechOptions {
    /// `LibriSpeech`, or a folder that holds it.
    pub root: PathBuf,
    /// The subsets, as `train-clean-100`; all that are there where none is named.
    pub subsets: Vec<String>,
    /// Whether texts become lower case; they are published in upper case.
    pub lowercase: bool,
}

/// Reads subsets, each of which becomes a part.
///
/// # Errors
///
/// What [`read`] finds wrong; audio that cannot be used.
pub fn prepare(
    options: &LibriSpeechOptions,
    audio: &AudioOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Corpus, DataError> {
    let mut reading = read(&options.root, &options.subsets, options.lowercase)?;
    let (rows, skipped) = settle(reading.rows, audio, progress)?;
    count(&rows, &mut reading.counts);
    let mut parts: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let subset = row.extra.get("subset").and_then(Value::as_str).unwrap_or_default().to_owned();
        parts.entry(subset).or_default().push(row);
    }
    Ok(Corpus {
        name: "librispeech",
        protocol: "official".to_owned(),
        options: reading::json(options, &options.root)?,
        sources: reading.sources,
        // No speaker is in two official subsets, and no recording.
        folds: vec![Fold { parts: parts.into_iter().collect(), shared: Vec::new() }],
        counts: reading.counts,
        notes: reading.notes,
        skipped,
    })
}

#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    sources: Vec<PathBuf>,
    /// The first place of every utterance.
    places: BTreeMap<String, (PathBuf, usize)>,
    /// Audio files without a transcript.
    silent: Vec<String>,
    problems: Vec<DataError>,
}

/// Reads the utterances of the named subsets, or of all that are there. `root` is `LibriSpeech` or a folder that holds
/// it.
///
/// # Errors
///
/// No subset, or not the named one; transcript lines that are malformed, belong to another chapter or occur twice (all
/// of them).
pub fn read(root: &Path, subsets: &[String], lowercase: bool) -> Result<Reading, DataError> {
    let inner = root.join("LibriSpeech");
    let root = if inner.is_dir() { inner } else { root.to_path_buf() };
    let there = subsets_in(&root)?;
    let wrong = |reason: String| DataError::Table { path: root.clone(), reason };
    if there.is_empty() {
        return Err(wrong("no subsets such as train-clean-100 in it; name LibriSpeech or the folder above".to_owned()));
    }
    let absent = subsets.iter().filter(|name| !there.contains(name));
    let absent = absent.map(|name| wrong(format!("no subset `{name}`; there are {}; name one of them", list(&there))));
    DataError::check(absent.collect())?;

    let mut found = Found::default();
    for subset in there.iter().filter(|name| subsets.is_empty() || subsets.contains(name)) {
        for speaker in folders_in(&root.join(subset))? {
            for chapter in folders_in(&speaker)? {
                read_chapter(&chapter, subset, lowercase, &mut found)?;
            }
        }
    }
    DataError::check(std::mem::take(&mut found.problems))?;
    let mut rows = found.rows;
    rows.sort_by(|left, right| left.id.cmp(&right.id));
    let mut reading = Reading { rows, sources: found.sources, ..Reading::default() };
    if !found.silent.is_empty() {
        let number = found.silent.len();
        reading.notes.push(format!("audio files without a transcript, left out: {number} ({})", list(&found.silent)));
    }
    add_sexes(&root.join("SPEAKERS.TXT"), &mut reading)?;
    count(&reading.rows, &mut reading.counts);
    let counted = |name: &str| usize::try_from(reading.counts.get(name)?.get("utterances")?.as_u64()?).ok();
    let items = PUBLISHED.iter().filter_map(|(name, count)| Some((*name, counted(name)?, *count)));
    let difference = reading::difference("utterances", items);
    reading.notes.extend(difference);
    reading.counts.insert("audio_without_transcript".to_owned(), found.silent.len().into());
    Ok(reading)
}

/// Folders that hold folders of speakers, whose names are numbers.
fn subsets_in(root: &Path) -> Result<Vec<String>, DataError> {
    let mut subsets = Vec::new();
    for folder in folders_in(root)? {
        if folders_in(&folder)?.iter().any(|inner| is_number(&name_of(inner))) {
            subsets.push(name_of(&folder));
        }
    }
    Ok(subsets)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn read_chapter(folder: &Path, subset: &str, lowercase: bool, found: &mut Found) -> Result<(), DataError> {
    let speaker = folder.parent().map(name_of).unwrap_or_default();
    let chapter = name_of(folder);
    let prefix = format!("{speaker}-{chapter}");
    let files = files_in(folder)?;
    for path in files.iter().filter(|path| name_of(path).ends_with(".trans.txt")) {
        let bytes = reading::read(path)?;
        for (line, text) in manifest::lines(&bytes) {
            let result = transcript(text, &prefix).and_then(|(id, text)| match found.places.get(id) {
                Some((first, number)) => Err(format!(
                    "the utterance {id} is already in {}, line {number}; remove one of the two",
                    first.display()
                )),
                None => Ok((id, text)),
            });
            match result {
                Ok((id, text)) => {
                    found.places.insert(id.to_owned(), (path.clone(), line));
                    let mut extra = Map::new();
                    extra.insert("chapter".to_owned(), chapter.clone().into());
                    extra.insert("subset".to_owned(), subset.into());
                    found.rows.push(Row {
                        id: id.to_owned(),
                        audio: Some(folder.join(format!("{id}.flac"))),
                        text: Some(if lowercase { text.to_lowercase() } else { text.to_owned() }),
                        speaker: Some(speaker.clone()),
                        group: Some(prefix.clone()),
                        extra,
                        line,
                        ..Row::default()
                    });
                }
                Err(reason) => found.problems.push(DataError::TableRow { path: path.clone(), line, reason }),
            }
        }
        found.sources.push(path.clone());
    }
    let audio = files.iter().filter_map(|path| name_of(path).strip_suffix(".flac").map(ToOwned::to_owned));
    found.silent.extend(audio.filter(|id| !found.places.contains_key(id)));
    Ok(())
}

/// Reads `84-121123-0001 WHAT IS SAID`, which must be of the chapter `84-121123`.
fn transcript<'a>(line: &'a [u8], chapter: &str) -> Result<(&'a str, &'a str), String> {
    let Ok(line) = std::str::from_utf8(line) else {
        return Err("not valid UTF-8; copy the file from the release again".to_owned());
    };
    let Some((id, text)) = line.trim().split_once(char::is_whitespace) else {
        return Err("not an id and a text; copy the file from the release again".to_owned());
    };
    let number = id.strip_prefix(chapter).and_then(|rest| rest.strip_prefix('-'));
    if !number.is_some_and(is_number) {
        return Err(format!("`{id}` is not of the chapter {chapter}; copy the file from the release again"));
    }
    Ok((id, text.trim()))
}

/// Whether speakers are men or women, from `SPEAKERS.TXT` where it is there.
fn add_sexes(path: &Path, reading: &mut Reading) -> Result<(), DataError> {
    if !path.is_file() {
        reading.notes.push("SPEAKERS.TXT is not there: the speakers' sex is not known".to_owned());
        return Ok(());
    }
    let (sexes, malformed) = sexes(&reading::read(path)?);
    for row in &mut reading.rows {
        if let Some(sex) = row.speaker.as_ref().and_then(|speaker| sexes.get(speaker)) {
            row.extra.insert("sex".to_owned(), (*sex).into());
        }
    }
    if malformed > 0 {
        reading.notes.push(format!("lines of SPEAKERS.TXT that are malformed, passed over: {malformed}"));
    }
    let unknown: BTreeSet<&str> = reading
        .rows
        .iter()
        .filter(|row| !row.extra.contains_key("sex"))
        .filter_map(|row| row.speaker.as_deref())
        .collect();
    if !unknown.is_empty() {
        reading.notes.push(format!("speakers whose sex SPEAKERS.TXT does not say: {}", unknown.len()));
    }
    reading.sources.push(path.to_path_buf());
    Ok(())
}

/// Reads lines `id | sex | subset | minutes | name`, with comments after `;`; counts the malformed ones.
fn sexes(bytes: &[u8]) -> (BTreeMap<String, &'static str>, usize) {
    let (mut sexes, mut malformed) = (BTreeMap::new(), 0);
    for (_, line) in manifest::lines(bytes) {
        let (line, _) = reading::decode(line);
        if line.trim().is_empty() || line.starts_with(';') {
            continue;
        }
        let mut fields = line.split('|').map(str::trim);
        match (fields.next().filter(|id| is_number(id)), fields.next()) {
            (Some(id), Some("F")) => drop(sexes.insert(id.to_owned(), "F")),
            (Some(id), Some("M")) => drop(sexes.insert(id.to_owned(), "M")),
            _ => malformed += 1,
        }
    }
    (sexes, malformed)
}

/// Counts the rows by subset: of the release, then of what is left of it.
fn count(rows: &[Row], counts: &mut Map<String, Value>) {
    let mut by_subset: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_subset.entry(row.extra.get("subset").and_then(Value::as_str).unwrap_or_default()).or_default().push(row);
    }
    for (subset, rows) in by_subset {
        let values = |key: fn(&Row) -> Option<&str>| -> usize {
            rows.iter().filter_map(|row| key(row)).collect::<BTreeSet<&str>>().len()
        };
        let mut found = Map::new();
        found.insert("utterances".to_owned(), rows.len().into());
        found.insert("speakers".to_owned(), values(|row| row.speaker.as_deref()).into());
        found.insert("chapters".to_owned(), values(|row| row.group.as_deref()).into());
        counts.insert(subset.to_owned(), found.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::prepare::folder;
    use crate::prepare::reading::testing::{ids, never_panics, put, put_wav, silent};
    use crate::test_data::test_data;

    const SPEAKERS: &str = "; one line a speaker\n;ID  |SEX| SUBSET           |MINUTES| NAME\n\n14   | F | \
                            train-clean-5    | 25.03 | Somebody\n60   | M | dev-tiny | 20.18 | |A|B\n";

    /// Two subsets: one speaker with two chapters, of two and one utterances, and one speaker with one chapter of two.
    fn corpus(root: &Path) {
        let chapter = |subset: &str, speaker: &str, chapter: &str, lines: &[&str], end: &str| {
            let folder = root.join(subset).join(speaker).join(chapter);
            let ids: Vec<String> = (0..lines.len()).map(|n| format!("{speaker}-{chapter}-{n:04}")).collect();
            let text: Vec<String> = ids.iter().zip(lines).map(|(id, line)| format!("{id} {line}{end}")).collect();
            put(&folder.join(format!("{speaker}-{chapter}.trans.txt")), text.concat());
            for id in &ids {
                put_wav(&folder.join(format!("{id}.flac")));
            }
        };
        chapter("train-clean-5", "14", "208", &["IT'S THE DOG'S BONE", "AND NOT THE CAT'S"], "\n");
        chapter("train-clean-5", "14", "212", &["WHO SAID IT"], "\r\n");
        chapter("dev-tiny", "60", "9", &["A DOG", "BARKS"], "\n");
        put(&root.join("SPEAKERS.TXT"), SPEAKERS);
        put(&root.join("BOOKS.TXT"), "208 | A book");
        // What lies about.
        put(&root.join("train-clean-5/14/208/._14-208.trans.txt"), "\0\u{5}");
        put(&root.join("train-clean-5/14/208/._14-208-0000.flac"), "\0");
        put(&root.join("train-clean-5/.DS_Store"), "\0");
        put(&root.join("other/readme/x.txt"), "x");
        put_wav(&root.join("train-clean-5/14/212/14-212-0007.flac"));
    }

    #[test]
    fn subsets_become_parts() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("LibriSpeech");
        corpus(&root);
        let reading = read(temporary.path(), &[], false).unwrap();
        assert_eq!(reading, read(&root, &[], false).unwrap());
        assert_eq!(ids(&reading.rows), ["14-208-0000", "14-208-0001", "14-212-0000", "60-9-0000", "60-9-0001"]);
        let row = &reading.rows[1];
        assert_eq!(row.text.as_deref(), Some("AND NOT THE CAT'S"));
        assert_eq!((row.speaker.as_deref(), row.group.as_deref(), row.line), (Some("14"), Some("14-208"), 2));
        assert_eq!(row.audio.as_deref(), Some(&*root.join("train-clean-5/14/208/14-208-0001.flac")));
        assert_eq!(json!(row.extra), json!({"chapter": "208", "subset": "train-clean-5", "sex": "F"}));
        assert_eq!(reading.rows[2].text.as_deref(), Some("WHO SAID IT"));
        assert_eq!(
            json!(reading.counts),
            json!({
                "dev-tiny": {"utterances": 2, "speakers": 1, "chapters": 1},
                "train-clean-5": {"utterances": 3, "speakers": 1, "chapters": 2},
                "audio_without_transcript": 1,
            })
        );
        assert_eq!(reading.notes, ["audio files without a transcript, left out: 1 (`14-212-0007`)"]);
        assert_eq!(reading.sources.len(), 4);

        let options = LibriSpeechOptions { root, subsets: vec!["train-clean-5".into()], lowercase: true };
        let corpus = prepare(&options, &AudioOptions::default(), &silent).unwrap();
        let parts = &corpus.folds[0].parts;
        assert_eq!((parts.len(), parts[0].0.as_str(), parts[0].1.len()), (1, "train-clean-5", 3));
        assert_eq!(parts[0].1[0].text.as_deref(), Some("it's the dog's bone"));
        let all = LibriSpeechOptions { subsets: Vec::new(), ..options };
        let corpus = prepare(&all, &AudioOptions::default(), &silent).unwrap();
        let written = folder::write(&temporary.path().join("out"), corpus).unwrap();
        assert_eq!(written.splits[0].utterances, [("dev-tiny".into(), 2), ("train-clean-5".into(), 3)].into());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let error = read(root, &[], false).unwrap_err().to_string();
        assert!(error.contains("no subsets such as train-clean-100 in it"), "{error}");
        corpus(root);
        let error = read(root, &["train".into(), "../x".into()], false).unwrap_err().to_string();
        assert!(error.contains("no subset `train`; there are `dev-tiny`, `train-clean-5`; name one"), "{error}");
        assert!(error.contains("no subset `../x`"), "{error}");
        let lines = b"14-212-0000 ONE\n14-212-0001\n14-208-0001 TWO\n14-212-000x THREE\n14-212-0000 FOUR\n\n\xFF\nFIVE";
        put(&root.join("train-clean-5/14/212/14-212.trans.txt"), lines);
        let error = read(root, &[], false).unwrap_err().to_string();
        for expected in [
            "14-212.trans.txt, line 2: not an id and a text",
            "line 3: `14-208-0001` is not of the chapter 14-212",
            "line 4: `14-212-000x` is not of the chapter",
            "line 5: the utterance 14-212-0000 is already in",
            "line 6: not an id and a text",
            "line 7: not valid UTF-8",
            "line 8: not an id and a text",
        ] {
            assert!(error.contains(expected), "{error}");
        }
        // A transcript without its audio is bad audio; an audio file without its transcript is only noted.
        put(&root.join("train-clean-5/14/212/14-212.trans.txt"), "14-212-0003 GONE\n");
        let options = LibriSpeechOptions { root: root.to_path_buf(), subsets: Vec::new(), lowercase: false };
        let error = prepare(&options, &AudioOptions::default(), &silent).unwrap_err().to_string();
        assert!(error.contains("1 of 5 utterances") && error.contains("14-212-0003.flac"), "{error}");
        let corpus = prepare(&options, &AudioOptions { convert: None, skip_bad: true }, &silent).unwrap();
        assert_eq!(corpus.skipped.len(), 1);
        assert!(corpus.notes[0].contains("left out: 2 (`14-212-0000`, `14-212-0007`)"), "{:?}", corpus.notes);
    }

    #[test]
    fn sexes_are_tolerant() {
        let (sexes, malformed) = sexes(SPEAKERS.as_bytes());
        assert_eq!((sexes, malformed), ([("14".into(), "F"), ("60".into(), "M")].into(), 0));
        assert_eq!(super::sexes(b"14 | X | a\nx | F\n15\n|\n").1, 4);
        let temporary = tempfile::tempdir().unwrap();
        corpus(temporary.path());
        put(&temporary.path().join("SPEAKERS.TXT"), "14 | F");
        let notes = read(temporary.path(), &[], false).unwrap().notes;
        assert_eq!(notes[1], "speakers whose sex SPEAKERS.TXT does not say: 1");
    }

    #[test]
    fn no_bytes_panic() {
        never_panics(b"14-208-0000 IT'S\n14-208-0001 NOT\n", 3_000, |bytes| {
            for (_, line) in manifest::lines(bytes) {
                let _ = transcript(line, "14-208");
            }
        });
        never_panics(SPEAKERS.as_bytes(), 3_000, |bytes| drop(sexes(bytes)));
    }

    #[test]
    fn a_piece_of_the_real_corpus() {
        let Some(root) = test_data("librispeech") else { return };
        let options = LibriSpeechOptions { root, subsets: Vec::new(), lowercase: false };
        let corpus = prepare(&options, &AudioOptions::default(), &silent).unwrap();
        let parts = &corpus.folds[0].parts;
        let sizes: Vec<(&str, usize)> = parts.iter().map(|(name, rows)| (name.as_str(), rows.len())).collect();
        assert_eq!(sizes, [("test-other", 40), ("train-clean-100", 30)]);
        assert_eq!(parts[1].1[0].speaker.as_deref(), Some("4088"));
        assert!(parts[0].1[0].text.as_deref().unwrap().starts_with("THERE'S IRON THEY SAY"));
        let expected = "utterances: test-other 40 of the published 2939, train-clean-100 30 of the published 28539";
        assert!(corpus.notes.contains(&expected.to_owned()), "{:?}", corpus.notes);
    }
}
