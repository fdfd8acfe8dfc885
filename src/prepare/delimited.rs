//! Delimited text, as spreadsheets and scripts write it, to rows of fields. Quotation marks are read strictly, which the
//! crate `csv` cannot do: it ends a field that never closes at the end of the file, with all rows between inside it.

use std::iter::Peekable;
use std::str::CharIndices;

/// The delimiters that are looked for, besides the one that the format has.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// How a quotation mark is written inside a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quotes {
    /// Marks are letters as any other.
    None,
    /// A field may stand in marks; two of them are one inside it.
    Doubled,
    /// The same, but one inside it has a backslash before it.
    Escaped,
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    /// The line on which it begins, from 1.
    pub line: usize,
    pub values: Vec<String>,
    /// What was read, without the line's end.
    pub raw: &'a str,
}

impl Fields<'_> {
    /// Whether it holds nothing but space.
    pub fn is_blank(&self) -> bool {
        self.values.iter().all(|field| field.trim().is_empty())
    }
}

/// A quotation mark that cannot be meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line of the mark.
    pub line: usize,
    pub reason: String,
}

/// The delimiter of a table: what `sep=` states on its first line, as Excel writes it, else what is most frequent in the
/// first line, else `usual`. And the number of lines that say so instead of naming columns.
pub(super) fn delimiter(text: &str, usual: char) -> (char, usize) {
    let mut lines = text.lines();
    let first = lines.by_ref().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if let Some(stated) = first.trim_end_matches('\r').strip_prefix("sep=")
        && let (Some(letter), true) = (stated.chars().next(), stated.chars().count() == 1)
    {
        return (letter, 1);
    }
    let mut is_inside = false;
    let mut counts = [0; DELIMITERS.len()];
    for letter in first.chars() {
        is_inside ^= letter == '"';
        if let Some(place) = DELIMITERS.iter().position(|delimiter| *delimiter == letter && !is_inside) {
            counts[place] += 1;
        }
    }
    let count = |delimiter: &char| DELIMITERS.iter().position(|known| known == delimiter).map_or(0, |at| counts[at]);
    let most = DELIMITERS.into_iter().rev().max_by_key(count).filter(|found| count(found) > count(&usual));
    (most.unwrap_or(usual), 0)
}

/// Every row that is not blank.
///
/// # Errors
///
/// A mark that opens a field and never closes it, or closes it in front of more text.
pub(super) fn rows(text: &str, delimiter: char, quotes: Quotes) -> Result<Vec<Fields<'_>>, Fault> {
    let mut reader = Reader { text, letters: text.char_indices().peekable(), line: 1, delimiter, quotes };
    let mut rows = Vec::new();
    while let Some(row) = reader.row()? {
        if row.values.len() > 1 || !row.is_blank() {
            rows.push(row);
        }
    }
    Ok(rows)
}

struct Reader<'a> {
    text: &'a str,
    letters: Peekable<CharIndices<'a>>,
    line: usize,
    delimiter: char,
    quotes: Quotes,
}

impl<'a> Reader<'a> {
    fn row(&mut self) -> Result<Option<Fields<'a>>, Fault> {
        let (line, Some(&(start, _))) = (self.line, self.letters.peek()) else { return Ok(None) };
        let mut fields = Vec::new();
        loop {
            fields.push(self.field()?);
            match self.letters.next() {
                Some((_, letter)) if letter == self.delimiter => {}
                end => {
                    let until = end.map_or(self.text.len(), |(place, _)| place);
                    if let Some((_, letter)) = end {
                        self.end_line(letter);
                    }
                    return Ok(Some(Fields { line, values: fields, raw: &self.text[start..until] }));
                }
            }
        }
    }

    /// A field; the delimiter or the line's end behind it is next.
    fn field(&mut self) -> Result<String, Fault> {
        let mut field = String::new();
        while let Some(&(_, letter)) = self.letters.peek() {
            if self.ends_field(letter) {
                break;
            }
            self.letters.next();
            match letter {
                // Space in front of the mark is no part of the field.
                '"' if self.quotes != Quotes::None && field.trim().is_empty() => return self.quoted(),
                '\\' => field.push(self.unescaped()),
                letter => field.push(letter),
            }
        }
        Ok(field)
    }

    /// What stands in marks, the first of which is read.
    fn quoted(&mut self) -> Result<String, Fault> {
        let opened = self.line;
        let mut field = String::new();
        loop {
            let Some((_, letter)) = self.letters.next() else {
                let reason = "a quotation mark opens a field that no mark closes; remove it, or double it where it is \
                              part of a quoted field";
                return Err(Fault { line: opened, reason: reason.to_owned() });
            };
            match letter {
                '"' if self.quotes == Quotes::Doubled && self.is_next('"') => {
                    self.letters.next();
                    field.push('"');
                }
                '"' => break,
                '\\' => field.push(self.unescaped()),
                '\r' | '\n' => {
                    field.push(letter);
                    if self.end_line(letter) {
                        field.push('\n');
                    }
                }
                letter => field.push(letter),
            }
        }
        while let Some(&(_, letter)) = self.letters.peek() {
            if self.ends_field(letter) {
                break;
            }
            if !letter.is_whitespace() {
                let closed = if self.line == opened { String::new() } else { format!(" on line {}", self.line) };
                let reason = format!(
                    "a quotation mark opens a field that closes{closed} in front of more text; remove the mark, or \
                     double those that are part of a quoted field"
                );
                return Err(Fault { line: opened, reason });
            }
            self.letters.next();
        }
        Ok(field)
    }

    /// What a backslash, which is read, stands for.
    fn unescaped(&mut self) -> char {
        match self.letters.peek() {
            Some(&(_, letter @ ('"' | '\\'))) if self.quotes == Quotes::Escaped => {
                self.letters.next();
                letter
            }
            _ => '\\',
        }
    }

    fn is_next(&mut self, letter: char) -> bool {
        self.letters.peek().is_some_and(|(_, next)| *next == letter)
    }

    fn ends_field(&self, letter: char) -> bool {
        letter == self.delimiter || letter == '\n' || letter == '\r'
    }

    /// Counts a line whose last letter is read, and reads the line feed behind a carriage return; whether there was one.
    fn end_line(&mut self, letter: char) -> bool {
        self.line += 1;
        let has_feed = letter == '\r' && self.is_next('\n');
        if has_feed {
            self.letters.next();
        }
        has_feed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str, quotes: Quotes) -> Vec<(usize, Vec<String>)> {
        rows(text, ',', quotes).unwrap().into_iter().map(|row| (row.line, row.values)).collect()
    }

    fn expected(rows: &[(usize, &[&str])]) -> Vec<(usize, Vec<String>)> {
        rows.iter().map(|(line, fields)| (*line, fields.iter().map(|field| (*field).to_owned()).collect())).collect()
    }

    /// Against Python's `csv.reader` with `strict=True` (and `skipinitialspace=True` for space before a mark).
    #[test]
    fn fields_are_those_of_pythons_reader() {
        let text = "a,b\r\n\"x, \"\"y\"\"\nz\", \"w\"\r\n\nhe said \"hi\",\"\"\rlast,";
        let rows =
            expected(&[(1, &["a", "b"]), (2, &["x, \"y\"\nz", "w"]), (5, &["he said \"hi\"", ""]), (6, &["last", ""])]);
        assert_eq!(fields(text, Quotes::Doubled), rows);
        // With `doublequote=False, escapechar="\\"`.
        let rows = expected(&[(1, &["he said \"hi, you\"", "a\\b"]), (2, &["\"c\"", "d"])]);
        assert_eq!(fields("\"he said \\\"hi, you\\\"\",a\\\\b\n\\\"c\\\",d\n", Quotes::Escaped), rows);
        // With `quoting=csv.QUOTE_NONE`.
        assert_eq!(fields("\"a,b\n", Quotes::None), expected(&[(1, &["\"a", "b"])]));
    }

    #[test]
    fn a_mark_too_many_is_a_fault_on_its_line() {
        let line = |text: &str| rows(text, ',', Quotes::Doubled).unwrap_err();
        assert_eq!(line("a,b\nx,\"oh no\ny,z\n").line, 2);
        let fault = line("a,b\nx,\"oh no\ny,\"we go\"\n");
        assert_eq!((fault.line, fault.reason.contains("closes on line 3 in front of more text")), (2, true));
        assert_eq!(line("a,b\n\"oh\" no,x\n").line, 2);
    }

    /// The line that Excel writes in front decides, else the first line.
    #[test]
    fn the_delimiter_is_that_of_the_first_line() {
        for (text, usual, found) in [
            ("audio,text;label\n", ',', (',', 0)),
            ("\naudio;text;label\n", ',', (';', 0)),
            ("audio;\"a,b,c,d\";label\n", ',', (';', 0)),
            ("audio\ttext\n", ',', ('\t', 0)),
            ("audio,text\n", '\t', (',', 0)),
            ("text\na;b;c\n", ',', (',', 0)),
            ("sep=|\r\naudio|text\n", ',', ('|', 1)),
            ("", '\t', ('\t', 0)),
        ] {
            assert_eq!(delimiter(text, usual), found, "{text:?}");
        }
    }
}
