//! Finds the idioms of a list in texts: what may be an idiom, in its literal sense or not.
//!
//! A match has the idiom's words in their order. Verbs and nouns may be inflected, `one's` and `someone` stand for what
//! fills them, and up to `gap` departures are allowed, as `matcher` says: words in between, another determiner for an
//! article. The words that begin, end or change places otherwise (a passive, `pick the pieces up`) are not found.

mod inflect;
mod irregular;
mod matcher;
mod pattern;
mod words;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use matcher::{Found, Token};
use pattern::{Accepts, Pattern, Vocabulary};
use words::Kind;

use super::table::Layout;
use super::table_reader::read_table;
use crate::data::{DataError, manifest};

/// The gap that finds few words that are not the idiom: one word in between (`take a deep breath`). With 2, determiners
/// may be exchanged too, which finds more of the literal uses, and more that is neither.
pub const DEFAULT_GAP: usize = 1;

/// The column of a table that has the idioms.
const COLUMN: &str = "idiom";

/// A list of idioms, ready to be looked for.
#[derive(Clone, Debug, Default)]
pub struct Idioms {
    names: Vec<String>,
    keys: HashSet<String>,
    /// Idioms of a single word, which are left out.
    pub single_words: usize,
    /// Idioms that the list has more than once, however they are written.
    pub duplicates: usize,
    patterns: Vec<Pattern>,
    vocabulary: Vocabulary,
    /// The number of a word to the patterns that are looked for where it stands, and its place in each.
    index: HashMap<u32, Vec<(usize, usize)>>,
}

/// One idiom in one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The idiom's place in the list; see [`Idioms::name`].
    pub idiom: usize,
    /// The first character, counted in Unicode scalar values.
    pub start: usize,
    /// Behind the last character.
    pub end: usize,
}

impl Idioms {
    /// Reads a list: one idiom a line (blank lines and lines that begin with `#` are skipped), or a table (`.jsonl`,
    /// `.csv`, `.tsv`) with a column `idiom`. Idioms that are there twice count once.
    ///
    /// # Errors
    ///
    /// The file cannot be read, has no idiom of two or more words, or some of its lines are wrong (all are reported).
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(|error| DataError::file(path, &error))?;
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let is_table = matches!(extension.as_deref(), Some("jsonl" | "ndjson" | "csv" | "tsv" | "tab"));
        let lines = if is_table { table_lines(path, &bytes)? } else { text_lines(path, &bytes)? };
        let mut idioms = Self::default();
        let mut problems = Vec::new();
        for (line, text) in &lines {
            if let Err(reason) = idioms.add(text) {
                problems.push(DataError::TableRow { path: path.to_path_buf(), line: *line, reason });
            }
        }
        DataError::check(problems)?;
        if idioms.names.is_empty() {
            let reason = match idioms.single_words {
                0 => "no idiom in it; write one a line".to_owned(),
                count => format!("only single words ({count}), which are no idioms here; write one idiom a line"),
            };
            return Err(DataError::Table { path: path.to_path_buf(), reason });
        }
        idioms.build_index();
        Ok(idioms)
    }

    /// A list from memory, by the same rules.
    ///
    /// # Errors
    ///
    /// The first idiom that is wrong, and why.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut idioms = Self::default();
        for line in lines {
            idioms.add(line)?;
        }
        idioms.build_index();
        Ok(idioms)
    }

    /// How many idioms are looked for.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The idiom as the list writes it; empty beyond the end of the list.
    pub fn name(&self, index: usize) -> &str {
        self.names.get(index).map(String::as_str).unwrap_or_default()
    }

    /// The idioms of a text, in its order; they do not overlap. Of two that would, the one with more words of the list
    /// wins, then the longer one, then the one that departs least from the list, then the earlier one, then the one that
    /// the list has first.
    pub fn find(&self, text: &str, gap: usize) -> Vec<Match> {
        let words = words::words(text);
        let tokens: Vec<Token> = words
            .iter()
            .map(|word| Token {
                word,
                number: self.vocabulary.get(&word.text).copied(),
                kind: words::kind_of(&word.text),
            })
            .collect();
        let mut candidates: Vec<(&Pattern, Found)> = Vec::new();
        for (place, token) in tokens.iter().enumerate() {
            let Some(entries) = token.number.and_then(|number| self.index.get(&number)) else { continue };
            for (pattern, anchor) in entries {
                let pattern = &self.patterns[*pattern];
                let reach = matcher::reach(pattern, *anchor, gap);
                for start in place.saturating_sub(reach)..=place {
                    candidates.extend(matcher::match_at(pattern, &tokens, start, gap).map(|found| (pattern, found)));
                }
            }
        }
        let length = |found: &Found| std::cmp::Reverse(found.end - found.start);
        // Of the same idiom the tightest first, so that `he turned and turned his head` begins at the second verb.
        candidates.sort_by_key(|(pattern, found)| (pattern.idiom, found.cost, length(found), found.start));
        let mut best = apart(&candidates, |left, right| left.idiom == right.idiom);
        best.sort_by_key(|(pattern, found)| {
            (std::cmp::Reverse(pattern.fixed), length(found), found.cost, found.start, pattern.idiom)
        });
        let mut chosen = apart(&best, |_, _| true);
        chosen.sort_by_key(|(_, found)| found.start);
        chosen
            .into_iter()
            .map(|(pattern, found)| Match {
                idiom: pattern.idiom,
                start: words[found.start].start,
                end: words[found.end - 1].end,
            })
            .collect()
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let name = text.split_whitespace().collect::<Vec<&str>>().join(" ");
        if name.is_empty() || name.starts_with('#') {
            return Ok(());
        }
        let patterns = pattern::patterns(&name, self.names.len(), &mut self.vocabulary)?;
        if patterns.is_empty() {
            self.single_words += 1;
            return Ok(());
        }
        let key = name.to_lowercase().replace('’', "'").replace('-', " ");
        if !self.keys.insert(key) {
            self.duplicates += 1;
            return Ok(());
        }
        self.names.push(name);
        self.patterns.extend(patterns);
        Ok(())
    }

    /// Each pattern is looked for where its rarest word of content stands.
    fn build_index(&mut self) {
        let mut counts = vec![0_usize; self.vocabulary.len()];
        let numbers = |accepts: &Accepts| -> Vec<u32> {
            match accepts {
                Accepts::Word(numbers) => numbers.clone(),
                // Another determiner may stand in its place.
                Accepts::Article { .. } | Accepts::Slot(_) => Vec::new(),
            }
        };
        let count_of = |counts: &[usize], number: u32| counts.get(number as usize).copied().unwrap_or_default();
        for element in self.patterns.iter().flat_map(|pattern| &pattern.elements) {
            for number in numbers(&element.accepts) {
                counts[number as usize] += 1;
            }
        }
        for (place, pattern) in self.patterns.iter().enumerate() {
            let anchor = pattern
                .elements
                .iter()
                .enumerate()
                .map(|(anchor, element)| (anchor, element, numbers(&element.accepts)))
                .filter(|(_, _, numbers)| !numbers.is_empty())
                .min_by_key(|(_, element, numbers)| {
                    let count: usize = numbers.iter().map(|number| count_of(&counts, *number)).sum();
                    (element.kind != Kind::Content, count)
                });
            let Some((anchor, _, numbers)) = anchor else { continue };
            for number in numbers {
                self.index.entry(number).or_default().push((place, anchor));
            }
        }
    }
}

/// The candidates in order, without those that overlap an earlier one for which `compete` holds.
fn apart<'a>(
    candidates: &[(&'a Pattern, Found)],
    compete: impl Fn(&Pattern, &Pattern) -> bool,
) -> Vec<(&'a Pattern, Found)> {
    let mut kept: Vec<(&Pattern, Found)> = Vec::new();
    for (pattern, found) in candidates {
        let is_free = kept
            .iter()
            .rev()
            .all(|(other, taken)| !compete(pattern, other) || found.end <= taken.start || taken.end <= found.start);
        if is_free {
            kept.push((*pattern, *found));
        }
    }
    kept
}

fn text_lines(path: &Path, bytes: &[u8]) -> Result<Vec<(usize, String)>, DataError> {
    let mut lines = Vec::new();
    let mut problems = Vec::new();
    for (line, bytes) in manifest::lines(bytes) {
        match std::str::from_utf8(bytes) {
            Ok(text) => lines.push((line, text.to_owned())),
            Err(_) => problems.push(DataError::TableRow {
                path: path.to_path_buf(),
                line,
                reason: "not valid UTF-8; save the file as UTF-8".to_owned(),
            }),
        }
    }
    DataError::check(problems)?;
    Ok(lines)
}

fn table_lines(path: &Path, bytes: &[u8]) -> Result<Vec<(usize, String)>, DataError> {
    let table = read_table(path, bytes, Layout::default())?;
    if !table.records.is_empty() && !table.columns.iter().any(|column| column == COLUMN) {
        return Err(DataError::Column {
            path: path.to_path_buf(),
            column: COLUMN.to_owned(),
            role: "idioms",
            found: table.columns,
        });
    }
    let mut lines = Vec::new();
    let mut problems = Vec::new();
    for record in table.records {
        match record.cells.get(COLUMN) {
            Some(serde_json::Value::String(text)) => lines.push((record.line, text.clone())),
            None | Some(serde_json::Value::Null) => {}
            Some(_) => problems.push(DataError::TableRow {
                path: path.to_path_buf(),
                line: record.line,
                reason: format!("column `{COLUMN}` holds no text; write the idiom as a string"),
            }),
        }
    }
    DataError::check(problems)?;
    Ok(lines)
}
