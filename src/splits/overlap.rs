//! What the parts of a split share: speakers, transcripts, recordings. What its protocol declares is reported; what a user
//! allowed is reported as such; anything else is a leak.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use unicode_normalization_alignments::UnicodeNormalization as _;

use super::{Condition, Declaration, Kind};
use crate::data::manifest::Row;

/// Values shown of what is shared.
const EXAMPLES: usize = 5;

/// Values of those that a sentence names, and the letters of each.
const SHOWN: usize = 3;
const LETTERS: usize = 60;

/// The key of a converted piece's row that says of which recording it was which piece.
pub const SOURCE: &str = "source";

/// Two pieces of a recording that overlap by no more than this, in seconds, only touch: manifests round.
const TOUCH_SECONDS: f64 = 0.1;

/// What two parts share, of one kind and one status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    pub kind: Kind,
    pub splits: [String; 2],
    /// How many speakers, texts or recordings are in both.
    pub values: usize,
    /// How many rows of each part have one of them.
    pub rows: [usize; 2],
    /// Some of them: speakers, texts, or ids of the second part.
    pub examples: Vec<String>,
    /// Whether that was to be expected.
    #[serde(flatten)]
    pub status: OverlapStatus,
}

/// Whether what is shared was to be expected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "lowercase")]
pub enum OverlapStatus {
    /// `split.json` declares it.
    Declared {
        reason: String,
    },
    Allowed,
    /// Nobody said so: a leak.
    Leak,
}

impl Overlap {
    /// Whether it is a leak that nobody declared or allowed.
    pub fn is_leak(&self) -> bool {
        self.status == OverlapStatus::Leak
    }

    /// What it is that is shared, as a word for this many.
    pub fn noun(&self) -> &'static str {
        match (self.kind, self.values) {
            (Kind::Speaker, 1) => "speaker",
            (Kind::Speaker, _) => "speakers",
            (Kind::Text, 1) => "text",
            (Kind::Text, _) => "texts",
            (Kind::Audio, 1) => "recording",
            (Kind::Audio, _) => "recordings",
        }
    }

    /// One sentence about it.
    pub fn sentence(&self) -> String {
        let [left, right] = &self.splits;
        let (values, [in_left, in_right]) = (self.values, self.rows);
        let shown: Vec<String> = self.examples.iter().take(SHOWN).map(|value| format!("`{}`", short(value))).collect();
        let more = if self.values > shown.len() { ", ..." } else { "" };
        let status = match &self.status {
            OverlapStatus::Declared { reason } => format!("declared: {reason}"),
            OverlapStatus::Allowed => format!("allowed by --allow-leak {}", self.kind.word()),
            OverlapStatus::Leak => "not declared".to_owned(),
        };
        format!(
            "{left} and {right} share {values} {} ({in_left} and {in_right} utterances; {}{more}): {status}",
            self.noun(),
            shown.join(", ")
        )
    }
}

fn short(value: &str) -> String {
    if value.chars().count() <= LETTERS {
        return value.to_owned();
    }
    value.chars().take(LETTERS).chain("...".chars()).collect()
}

/// A piece of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The same for the same recording: a hash of its content, or its path.
    pub content: String,
    /// Where it begins, in seconds.
    pub start: f64,
    /// Where it ends, in seconds; infinity for the recording's end.
    pub end: f64,
}

impl Piece {
    /// The piece that a row names, of a recording known as `content`.
    pub fn of(row: &Row, content: String) -> Self {
        if let Some(source) = row.extra.get(SOURCE)
            && let Some(content) = source.get("sha256").and_then(Value::as_str)
        {
            let seconds = |key: &str| source.get(key).and_then(Value::as_f64);
            let (start, end) = (seconds("start").unwrap_or(0.0), seconds("end").unwrap_or(f64::INFINITY));
            return Self { content: content.to_owned(), start, end };
        }
        Self { content, start: row.start.unwrap_or(0.0), end: row.end.unwrap_or(f64::INFINITY) }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let shorter = (self.end - self.start).min(other.end - other.start);
        self.end.min(other.end) - self.start.max(other.start) > TOUCH_SECONDS.min(shorter / 2.0)
    }
}

/// What is said, without regard to case, accents, punctuation and space; `None` if that leaves nothing.
pub fn plain_text(row: &Row) -> Option<String> {
    plain(row.text.as_ref()?)
}

/// As [`plain_text`], of any text.
pub fn plain(text: &str) -> Option<String> {
    // Taken apart, an accent is a sign of its own: both ways to write it come to the same.
    let words: Vec<String> = text
        .to_lowercase()
        .split(|letter: char| letter.is_whitespace() || "-–—/".contains(letter))
        .map(|word| word.nfkd().map(|(letter, _)| letter).filter(|letter| letter.is_alphanumeric()).collect())
        .filter(|word: &String| !word.is_empty())
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// A part of a split.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub name: &'a str,
    /// Its rows.
    pub rows: &'a [Row],
}

/// What every pair of parts shares. `piece` gives the recording of a row; `is_allowed` says what a user allowed.
pub fn find(
    parts: &[Part],
    declared: &[Declaration],
    piece: &dyn Fn(&Row) -> Option<Piece>,
    is_allowed: &dyn Fn(Kind, [&str; 2]) -> bool,
) -> Vec<Overlap> {
    let pieces: Vec<Vec<Option<Piece>>> = parts.iter().map(|part| part.rows.iter().map(piece).collect()).collect();
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let values: Vec<BTreeMap<String, Vec<usize>>> = parts
            .iter()
            .zip(&pieces)
            .map(|(part, pieces)| {
                let value = |(place, row): (usize, &Row)| match kind {
                    Kind::Speaker => row.speaker.clone(),
                    Kind::Text => plain_text(row),
                    Kind::Audio => pieces[place].as_ref().map(|piece| piece.content.clone()),
                };
                let mut rows: BTreeMap<String, Vec<usize>> = BTreeMap::new();
                for (place, row) in part.rows.iter().enumerate() {
                    if let Some(value) = value((place, row)) {
                        rows.entry(value).or_default().push(place);
                    }
                }
                rows
            })
            .collect();
        for left in 0..parts.len() {
            for right in left + 1..parts.len() {
                let pair = Pair {
                    kind,
                    parts: [parts[left], parts[right]],
                    values: [&values[left], &values[right]],
                    pieces: [&pieces[left], &pieces[right]],
                };
                found.extend(pair.shared(declared, is_allowed));
            }
        }
    }
    found
}

struct Pair<'a> {
    kind: Kind,
    parts: [Part<'a>; 2],
    values: [&'a BTreeMap<String, Vec<usize>>; 2],
    pieces: [&'a [Option<Piece>]; 2],
}

impl Pair<'_> {
    fn shared(&self, declared: &[Declaration], is_allowed: &dyn Fn(Kind, [&str; 2]) -> bool) -> Vec<Overlap> {
        let names = self.parts.map(|part| part.name);
        let is_this = |declaration: &&Declaration| {
            let [left, right] = &declaration.splits;
            declaration.kind == self.kind && (names == [left, right] || names == [right, left])
        };
        let declared: Vec<&Declaration> = declared.iter().filter(is_this).collect();
        let mut overlaps: BTreeMap<OverlapStatus, Overlap> = BTreeMap::new();
        for (value, left) in self.values[0] {
            let Some(right) = self.values[1].get(value) else { continue };
            let Some(rows) = self.rows_of(left, right) else { continue };
            let reason = declared.iter().find(|declaration| self.meets(declaration, value, &rows));
            let status = match reason {
                Some(declaration) => OverlapStatus::Declared { reason: declaration.reason.clone() },
                None if is_allowed(self.kind, names) => OverlapStatus::Allowed,
                None => OverlapStatus::Leak,
            };
            let overlap = overlaps.entry(status.clone()).or_insert_with(|| Overlap {
                kind: self.kind,
                splits: names.map(str::to_owned),
                values: 0,
                rows: [0, 0],
                examples: Vec::new(),
                status,
            });
            overlap.values += 1;
            for (count, rows) in overlap.rows.iter_mut().zip(&rows) {
                *count += rows.len();
            }
            if overlap.examples.len() < EXAMPLES {
                // A hash says nothing to a reader, and a speaker or text is better shown as it is written.
                let row = &self.parts[1].rows[rows[1][0]];
                overlap.examples.push(match self.kind {
                    Kind::Speaker => value.clone(),
                    Kind::Text => row.text.clone().unwrap_or_default(),
                    Kind::Audio => row.id.clone(),
                });
            }
        }
        overlaps.into_values().collect()
    }

    /// The rows of both parts that really share a value: of a recording, those whose pieces overlap.
    fn rows_of(&self, left: &[usize], right: &[usize]) -> Option<[Vec<usize>; 2]> {
        if self.kind != Kind::Audio {
            return Some([left.to_vec(), right.to_vec()]);
        }
        let mut rows = [BTreeSet::new(), BTreeSet::new()];
        for &one in left {
            for &other in right {
                let pieces = (self.pieces[0][one].as_ref(), self.pieces[1][other].as_ref());
                if let (Some(piece), Some(against)) = pieces
                    && piece.overlaps(against)
                {
                    rows[0].insert(one);
                    rows[1].insert(other);
                }
            }
        }
        (!rows[0].is_empty()).then(|| rows.map(|rows| rows.into_iter().collect()))
    }

    fn meets(&self, declaration: &Declaration, value: &str, rows: &[Vec<usize>; 2]) -> bool {
        match &declaration.only {
            None => true,
            Some(Condition::Words { words }) => value.split(' ').count() <= *words,
            Some(Condition::Rows { key, value }) => self.parts.iter().zip(rows).all(|(part, places)| {
                places.iter().all(|place| part.rows[*place].extra.get(key).and_then(Value::as_str) == Some(value))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, speaker: &str, text: &str, audio: &str, style: &str) -> Row {
        let mut row = Row { id: id.into(), text: Some(text.into()), ..Row::default() };
        row.speaker = Some(speaker.to_owned()).filter(|name| !name.is_empty());
        row.audio = Some(audio.into());
        row.extra.insert("style".into(), style.into());
        row
    }

    fn by_name(row: &Row) -> Option<Piece> {
        Some(Piece::of(row, row.audio.as_ref()?.display().to_string()))
    }

    fn found(
        parts: &[Part],
        declared: &[Declaration],
        allowed: &[Kind],
    ) -> Vec<(Kind, String, usize, [usize; 2], OverlapStatus)> {
        find(parts, declared, &by_name, &|kind, _| allowed.contains(&kind))
            .into_iter()
            .map(|overlap| (overlap.kind, overlap.splits.join("-"), overlap.values, overlap.rows, overlap.status))
            .collect()
    }

    #[test]
    fn what_is_shared_is_found_by_kind_and_pair() {
        let train = [
            row("a", "anna", "It's late, you know!", "a.wav", ""),
            row("b", "anna", "something else", "b.wav", ""),
            row("c", "", "", "c.wav", ""),
        ];
        let dev = [row("d", "", "!?", "d.wav", ""), row("e", "eva", "new words", "e.wav", "")];
        let test = [row("f", "anna", "ITS LATE  you-know", "f.wav", ""), row("g", "eva", "", "b.wav", "")];
        let part = |name, rows| Part { name, rows };
        let parts = [part("train", &train[..]), part("dev", &dev[..]), part("test", &test[..])];
        let leak = OverlapStatus::Leak;
        let expected = [
            (Kind::Speaker, "train-test".to_owned(), 1, [2, 1], leak.clone()),
            (Kind::Speaker, "dev-test".to_owned(), 1, [1, 1], leak.clone()),
            (Kind::Text, "train-test".to_owned(), 1, [1, 1], leak.clone()),
            (Kind::Audio, "train-test".to_owned(), 1, [1, 1], leak),
        ];
        assert_eq!(found(&parts, &[], &[]), expected);
        let allowed = found(&parts, &[], &[Kind::Text, Kind::Audio]);
        assert_eq!(allowed.iter().filter(|overlap| overlap.4 == OverlapStatus::Allowed).count(), 2);
        let declared = [Declaration::new(Kind::Speaker, ["test", "train"], "so it is")];
        let status = &found(&parts, &declared, &[])[0].4;
        assert_eq!(*status, OverlapStatus::Declared { reason: "so it is".into() });
    }

    #[test]
    fn accents_may_be_written_either_way() {
        let text = |text: &str| plain_text(&Row { text: Some(text.to_owned()), ..Row::default() });
        assert_eq!(text("Caf\u{e9} ol\u{e9}!"), text("cafe\u{301} ole\u{301}"));
        assert_eq!(text("Caf\u{e9} ol\u{e9}!").as_deref(), Some("cafe ole"));
        assert_eq!(text("\u{65e5}\u{672c}\u{8a9e}").as_deref(), Some("\u{65e5}\u{672c}\u{8a9e}"));
    }

    #[test]
    fn a_condition_limits_what_is_declared() {
        let train = [
            row("a", "", "the long scripted line of a play", "a", "scripted"),
            row("b", "", "yeah", "b", "improvised"),
            row("c", "", "what a long thing to say by chance", "c", "improvised"),
        ];
        let test = [
            row("d", "", "The long, scripted line of a play.", "d", "scripted"),
            row("e", "", "Yeah.", "e", "scripted"),
            row("f", "", "What a long thing to say by chance.", "f", "scripted"),
        ];
        let declared = [
            Declaration::new(Kind::Text, ["train", "test"], "script")
                .only(Condition::Rows { key: "style".into(), value: "scripted".into() }),
            Declaration::new(Kind::Text, ["train", "test"], "reply").only(Condition::Words { words: 5 }),
        ];
        let parts = [Part { name: "train", rows: &train }, Part { name: "test", rows: &test }];
        let statuses: Vec<OverlapStatus> = found(&parts, &declared, &[]).into_iter().map(|overlap| overlap.4).collect();
        let told = |reason: &str| OverlapStatus::Declared { reason: reason.into() };
        assert_eq!(statuses, [told("reply"), told("script"), OverlapStatus::Leak]);
    }

    #[test]
    fn pieces_of_one_recording_leak_only_where_they_overlap() {
        let piece = |id, start, end| Row { start, end, ..row(id, "", "", "long.wav", "") };
        let train = [piece("a", None, Some(5.0)), piece("b", Some(10.0), Some(12.0))];
        let apart = [piece("c", Some(5.0), Some(10.05)), piece("d", Some(12.0), None)];
        let across = [piece("e", Some(11.0), Some(13.0))];
        // As short as a click, and the same.
        let clicks = [piece("f", Some(20.0), Some(20.05))];
        let parts = |rows| [Part { name: "train", rows: &train }, Part { name: "test", rows }];
        assert_eq!(found(&parts(&apart), &[], &[]), []);
        let expected = [(Kind::Audio, "train-test".to_owned(), 1, [1, 1], OverlapStatus::Leak)];
        assert_eq!(found(&parts(&across), &[], &[]), expected);
        let twice = [Part { name: "train", rows: &clicks }, Part { name: "test", rows: &clicks }];
        assert_eq!(found(&twice, &[], &[]), expected);
        // Converted, a piece still says what it was of.
        let mut converted = across[0].clone();
        (converted.start, converted.end, converted.audio) = (None, None, Some("other.wav".into()));
        converted
            .extra
            .insert(SOURCE.to_owned(), serde_json::json!({ "sha256": "long.wav", "start": 11.0, "end": 13.0 }));
        assert_eq!(found(&parts(&[converted]), &[], &[]), expected);
    }

    #[test]
    fn a_sentence_names_what_is_shared() {
        let rows = [row("a", "anna", "hi", "a", "")];
        let parts = [Part { name: "train", rows: &rows }, Part { name: "test", rows: &rows }];
        let sentences: Vec<String> =
            find(&parts, &[], &by_name, &|kind, _| kind == Kind::Text).iter().map(Overlap::sentence).collect();
        assert_eq!(
            sentences,
            [
                "train and test share 1 speaker (1 and 1 utterances; `anna`): not declared",
                "train and test share 1 text (1 and 1 utterances; `hi`): allowed by --allow-leak text",
                "train and test share 1 recording (1 and 1 utterances; `a`): not declared",
            ]
        );
    }
}
