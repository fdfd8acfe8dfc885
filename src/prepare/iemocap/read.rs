//! Reads the release: label files, transcripts, and where the audio of an utterance lies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{PUBLISHED_CODES, SESSIONS, differences};
use crate::data::DataError;
use crate::data::manifest::{self, Row};
use crate::prepare::folder::files_in;
use crate::prepare::reading::{self, Reading, decode, tally};

/// What an id says: `Ses01F_impro04_M007` is the eighth turn of the man in a dialogue of session 1 in which the woman
/// wears the markers of the motion capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Utterance<'a> {
    /// All of it.
    pub id: &'a str,
    pub dialog: &'a str,
    /// 1 to 5.
    pub session: u8,
    /// Who talks, `F` or `M`: the letter before the final digits. The one in front is who wears the markers.
    pub talker: &'a str,
    /// `improvised` or `scripted`.
    pub style: &'static str,
}

impl<'a> Utterance<'a> {
    /// `None` if it is no id of the release.
    pub fn parse(id: &'a str) -> Option<Self> {
        let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let (dialog, turn) = id.rsplit_once('_')?;
        let (number, scene) = dialog.strip_prefix("Ses0")?.split_once('_')?;
        let session = number.strip_suffix(['F', 'M']).filter(|digit| digit.len() == 1)?.parse().ok()?;
        let style = match scene {
            _ if scene.starts_with("impro") => "improvised",
            _ if scene.starts_with("script") => "scripted",
            _ => return None,
        };
        let digits = turn.strip_prefix(['F', 'M'])?;
        let is_id = !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && is_word(id)
            && (1..=SESSIONS).contains(&session);
        is_id.then_some(Self { id, dialog, session, talker: &turn[..1], style })
    }

    /// Session and talker, as `Ses01F`.
    pub fn speaker(&self) -> String {
        format!("Ses0{}{}", self.session, self.talker)
    }
}

/// A head line of a label file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head<'a> {
    pub utterance: Utterance<'a>,
    pub code: &'a str,
    /// Valence, activation, dominance.
    pub ratings: [f64; 3],
}

/// Reads `[start - end] TAB utterance TAB code TAB [valence, activation, dominance]`; none for other lines: the `%`
/// line that names the columns, the lines of the raters (`C-`, `A-`), blank ones.
pub(super) fn head(line: &str) -> Option<Result<Head<'_>, String>> {
    let fields: Vec<&str> = line.trim().split('\t').map(str::trim).collect();
    let names_utterance = fields.get(1).is_some_and(|field| Utterance::parse(field).is_some());
    if !fields[0].starts_with('[') && !names_utterance {
        return None;
    }
    let wrong = |what: &str| {
        Err(format!(
            "{what}; a head line is [start - end], utterance, label and [valence, activation, dominance] between tabs; \
             copy the file from the release again"
        ))
    };
    let [times, id, code, ratings] = fields[..] else {
        return Some(wrong(&format!("{} fields, not 4", fields.len())));
    };
    if parse_times(times).is_none() {
        return Some(wrong(&format!("`{times}` is no time span")));
    }
    let Some(utterance) = Utterance::parse(id) else {
        return Some(wrong(&format!("`{id}` is no utterance of IEMOCAP")));
    };
    let Some(ratings) = parse_ratings(ratings) else {
        return Some(wrong(&format!("`{ratings}` is not three numbers in brackets")));
    };
    if !PUBLISHED_CODES.iter().any(|(known, _)| *known == code) {
        let known: Vec<String> = PUBLISHED_CODES.iter().map(|(known, _)| (*known).to_owned()).collect();
        return Some(Err(format!("unknown label `{code}`; the labels are {}; correct it", crate::data::list(&known))));
    }
    Some(Ok(Head { utterance, code, ratings }))
}

fn parse_times(text: &str) -> Option<(f64, f64)> {
    let (start, end) = bracketed(text)?.split_once('-')?;
    Some((number(start)?, number(end)?))
}

fn parse_ratings(text: &str) -> Option<[f64; 3]> {
    let numbers: Vec<f64> = bracketed(text)?.split(',').map(number).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

fn bracketed(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Reads `utterance [start-end]: text`, or the same without times: the id, whether it has times, and the text. None
/// for other lines.
pub(super) fn transcript(line: &str) -> Option<(&str, bool, &str)> {
    let (head, text) = line.split_once(':')?;
    let (id, times) = head.trim().split_once(char::is_whitespace).unwrap_or((head.trim(), ""));
    let is_timed = !times.is_empty();
    if Utterance::parse(id).is_none() || (is_timed && parse_times(times.trim()).is_none()) {
        return None;
    }
    Some((id, is_timed, text.trim()))
}

/// Takes out tags such as `[LAUGHTER]`, and one of the two spaces that a tag leaves.
pub(super) fn without_tags(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once('[') {
        let is_tag = |inside: &str| {
            inside.chars().all(|character| character.is_ascii_uppercase() || " _".contains(character))
                && inside.contains(|character: char| character.is_ascii_uppercase())
        };
        kept.push_str(before);
        match tag.split_once(']').filter(|(inside, _)| is_tag(inside)) {
            Some((_, after)) if kept.is_empty() || kept.ends_with(' ') => rest = after.trim_start_matches(' '),
            Some((_, after)) => rest = after,
            None => {
                kept.push('[');
                rest = tag;
            }
        }
    }
    kept.push_str(rest);
    kept.trim().to_owned()
}

/// Everything in the release, before it is made into rows.
#[derive(Default)]
struct Found {
    /// The utterances of the four classes.
    rows: Vec<Row>,
    /// How often each code occurs.
    codes: BTreeMap<String, usize>,
    /// The first place of every utterance.
    places: BTreeMap<String, (PathBuf, usize)>,
    /// Transcripts with times, and without.
    timed: BTreeMap<String, String>,
    untimed: BTreeMap<String, String>,
    twice: usize,
    sources: Vec<PathBuf>,
    latin: BTreeSet<PathBuf>,
    problems: Vec<DataError>,
}

/// Reads the utterances of the four classes. `root` is the release or a folder that holds it.
///
/// # Errors
///
/// A session that is not there; head lines that are malformed, have an unknown label or occur twice (all of them).
pub fn read(root: &Path) -> Result<Reading, DataError> {
    let inner = root.join("IEMOCAP_full_release");
    let root = if inner.is_dir() { inner } else { root.to_path_buf() };
    let mut found = Found::default();
    for session in 1..=SESSIONS {
        let folder = root.join(format!("Session{session}"));
        if folder.is_dir() {
            read_labels(&folder, session, &mut found)?;
            read_transcripts(&folder, &mut found)?;
        } else {
            let reason =
                "no such folder; name IEMOCAP_full_release, which has Session1 to Session5, or the folder above";
            let reason = reason.to_owned();
            found.problems.push(DataError::Table { path: folder, reason });
        }
    }
    DataError::check(std::mem::take(&mut found.problems))?;
    Ok(reading_of(found))
}

/// The text files of a folder, which must have some.
fn texts(folder: &Path, found: &mut Found) -> Result<Vec<(PathBuf, Vec<u8>)>, DataError> {
    let is_text = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "txt");
    let paths: Vec<PathBuf> = files_in(folder)?.into_iter().filter(is_text).collect();
    if paths.is_empty() {
        let reason = "no text files in it; unpack the release again, with its folder dialog".to_owned();
        found.problems.push(DataError::Table { path: folder.to_path_buf(), reason });
    }
    found.sources.extend(paths.iter().cloned());
    paths.into_iter().map(|path| reading::read(&path).map(|bytes| (path, bytes))).collect()
}

fn read_labels(folder: &Path, session: u8, found: &mut Found) -> Result<(), DataError> {
    for (path, bytes) in texts(&folder.join("dialog/EmoEvaluation"), found)? {
        for (line, text) in manifest::lines(&bytes) {
            let (text, is_utf8) = decode(text);
            if !is_utf8 {
                found.latin.insert(path.clone());
            }
            let result = match head(&text) {
                None => continue,
                Some(Ok(head)) if head.utterance.session != session => {
                    Err(format!("`{}` is of another session than its folder; move the file", head.utterance.id))
                }
                Some(Ok(head)) => match found.places.get(head.utterance.id) {
                    Some((first, number)) => Err(format!(
                        "the utterance {} is already labelled in {}, line {number}; remove one of the two",
                        head.utterance.id,
                        first.display()
                    )),
                    None => Ok(head),
                },
                Some(Err(reason)) => Err(reason),
            };
            match result {
                Ok(head) => keep(&head, folder, &path, line, found),
                Err(reason) => found.problems.push(DataError::TableRow { path: path.clone(), line, reason }),
            }
        }
    }
    Ok(())
}

fn keep(head: &Head, folder: &Path, path: &Path, line: usize, found: &mut Found) {
    let utterance = &head.utterance;
    found.places.insert(utterance.id.to_owned(), (path.to_path_buf(), line));
    *found.codes.entry(head.code.to_owned()).or_insert(0) += 1;
    let label = match head.code {
        "ang" => "angry",
        "sad" => "sad",
        "neu" => "neutral",
        "hap" | "exc" => "happy",
        _ => return,
    };
    let mut extra = Map::new();
    extra.insert("session".to_owned(), utterance.session.into());
    extra.insert("style".to_owned(), utterance.style.into());
    extra.insert("emotion".to_owned(), head.code.into());
    for (name, rating) in ["valence", "activation", "dominance"].into_iter().zip(head.ratings) {
        extra.insert(name.to_owned(), rating.into());
    }
    let row = Row {
        id: utterance.id.to_owned(),
        audio: Some(folder.join(format!("sentences/wav/{}/{}.wav", utterance.dialog, utterance.id))),
        label: Some(label.to_owned()),
        speaker: Some(utterance.speaker()),
        group: Some(utterance.dialog.to_owned()),
        extra,
        line,
        ..Row::default()
    };
    found.rows.push(row);
}

fn read_transcripts(folder: &Path, found: &mut Found) -> Result<(), DataError> {
    for (path, bytes) in texts(&folder.join("dialog/transcriptions"), found)? {
        for (_, line) in manifest::lines(&bytes) {
            let (line, is_utf8) = decode(line);
            if !is_utf8 {
                found.latin.insert(path.clone());
            }
            let Some((id, is_timed, text)) = transcript(&line) else { continue };
            let texts = if is_timed { &mut found.timed } else { &mut found.untimed };
            if texts.contains_key(id) {
                found.twice += usize::from(is_timed && found.places.contains_key(id));
            } else {
                texts.insert(id.to_owned(), without_tags(text));
            }
        }
    }
    Ok(())
}

fn is_empty(row: &Row) -> bool {
    row.text.as_deref() == Some("")
}

/// Counts the rows that are used: of the release, then of what is left of it.
pub(super) fn count(rows: &[Row], counts: &mut Map<String, Value>) {
    let by = |key: fn(&Row) -> Option<&str>| json!(tally(rows.iter().filter_map(key)));
    counts.insert("utterances".to_owned(), rows.len().into());
    counts.insert("by_class".to_owned(), by(|row| row.label.as_deref()));
    counts.insert("by_session".to_owned(), by(|row| row.speaker.as_deref().map(|speaker| &speaker[..5])));
    counts.insert("by_speaker".to_owned(), by(|row| row.speaker.as_deref()));
    counts.insert("by_style".to_owned(), by(|row| row.extra.get("style").and_then(Value::as_str)));
    counts.insert("empty_texts".to_owned(), rows.iter().filter(|row| is_empty(row)).count().into());
}

fn reading_of(mut found: Found) -> Reading {
    let mut rows = found.rows;
    rows.sort_by(|left, right| left.id.cmp(&right.id));
    let mut missing = Vec::new();
    for row in &mut rows {
        let text = found.timed.remove(&row.id).or_else(|| found.untimed.remove(&row.id));
        if text.is_none() {
            missing.push(row.id.clone());
        }
        row.text = Some(text.unwrap_or_default());
    }
    let empty = rows.iter().filter(|row| is_empty(row)).count();

    let mut counts = Map::new();
    counts.insert("labelled".to_owned(), found.places.len().into());
    counts.insert("by_code".to_owned(), json!(found.codes));
    count(&rows, &mut counts);
    counts.insert("transcripts_missing".to_owned(), missing.len().into());

    let mut notes = differences(&rows, &found.codes);
    if !missing.is_empty() {
        let number = missing.len();
        notes.push(format!("no transcript, so an empty text: {number} ({})", crate::data::list(&missing)));
    }
    if empty > missing.len() {
        notes.push(format!("texts that are nothing but tags such as [LAUGHTER], so empty: {}", empty - missing.len()));
    }
    if found.twice > 0 {
        notes.push(format!(
            "utterances with more than one timed transcript, of which the first is taken: {}",
            found.twice
        ));
    }
    if !found.latin.is_empty() {
        let number = found.latin.len();
        notes.push(format!("files that are not UTF-8, read as Latin-1: {number}"));
    }
    Reading { rows, sources: found.sources, counts, notes }
}
