//! Compares a document with the table of keys: unknown keys, wrong types, values out of range, unknown words.
//!
//! Every problem is collected. The paths that were rejected are handed on, so that the resolver reports nothing twice.

use std::collections::BTreeSet;

use toml::Value;

use super::document::Document;
use super::encoder_keys;
use super::problem::{Fault, Problem};
use super::table;
use crate::choices::{Devices, Layers};
use crate::keys::{Key, Kind, MOST, Range, nearest_word, number};

/// What is wrong with a document, and the keys whose values must not be used.
#[derive(Debug, Default)]
pub struct Findings {
    /// In no order.
    pub problems: Vec<Problem>,
    /// The keys that a problem is about.
    pub rejected: BTreeSet<String>,
}

/// Checks every table and every value of a document.
pub fn validate(document: &Document) -> Findings {
    let mut findings = Findings::default();
    let mut closed: Vec<&str> = Vec::new();
    for (path, place) in &document.sections {
        if table::is_section(path) || encoder_keys::is_unused(path) || is_inside(path, &closed) {
            continue;
        }
        closed.push(path);
        let fault = table::find(path).map_or_else(
            || unknown(path),
            |key| Fault::Value { expected: key.kind.expected(), found: "a table".to_owned() },
        );
        findings.add(Problem { place: Some(place.clone()), key: path.clone(), fault });
    }
    for (path, entry) in &document.entries {
        if encoder_keys::is_unused(path) || is_inside(path, &closed) {
            continue;
        }
        let fault = match table::find(path) {
            Some(key) => judge(key, &entry.value),
            None if table::is_section(path) => {
                Some(Fault::Value { expected: format!("a table ([{path}])"), found: show(&entry.value) })
            }
            None => Some(unknown(path)),
        };
        if let Some(fault) = fault {
            findings.add(Problem { place: Some(entry.place.clone()), key: path.clone(), fault });
        }
    }
    findings
}

impl Findings {
    fn add(&mut self, problem: Problem) {
        self.rejected.insert(problem.key.clone());
        self.problems.push(problem);
    }
}

fn is_inside(path: &str, closed: &[&str]) -> bool {
    closed.iter().any(|section| path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}

fn unknown(path: &str) -> Fault {
    let mut section = path;
    while let Some((parent, _)) = section.rsplit_once('.') {
        section = parent;
        if table::is_section(section) {
            return Fault::Unknown { nearest: table::nearest(path), valid: table::valid_in(section) };
        }
    }
    Fault::Unknown { nearest: table::nearest(path), valid: table::valid_in("") }
}

/// What is wrong with a value, if anything.
fn judge(key: &Key, value: &Value) -> Option<Fault> {
    let wrong = || Some(Fault::Value { expected: key.kind.expected(), found: show(value) });
    let fits = match (key.kind, value) {
        (Kind::Boolean, Value::Boolean(_)) | (Kind::File | Kind::Model | Kind::Folder, Value::String(_)) => true,
        (Kind::Integer(least, most), Value::Integer(number)) => match usize::try_from(*number) {
            Ok(number) if number > most => {
                let expected = format!("a whole number of at most {most}");
                return Some(Fault::Value { expected, found: show(value) });
            }
            number => number.is_ok_and(|number| number >= least),
        },
        (Kind::Seed, Value::Integer(number)) => *number >= 0,
        (Kind::Number(range), value) => number(value).is_some_and(|number| range.holds(number)),
        (Kind::Dropout, value) => number(value).is_some_and(|number| Range::BelowOne.holds(number)),
        (Kind::Choice(words), Value::String(word)) => {
            if !words.contains(&word.as_str()) {
                let nearest = nearest_word(word, words);
                return Some(Fault::Choice { found: show(value), choices: words, nearest });
            }
            true
        }
        (Kind::Layers, value) => Layers::is_value(value),
        (Kind::Devices, Value::String(word)) => word.parse::<Devices>().is_ok(),
        (Kind::Labels, Value::Array(labels)) => are_labels(labels),
        (Kind::Integers, Value::Array(numbers)) => {
            !numbers.is_empty()
                && numbers.iter().all(|number| {
                    number
                        .as_integer()
                        .and_then(|number| usize::try_from(number).ok())
                        .is_some_and(|number| (1..=MOST).contains(&number))
                })
        }
        _ => false,
    };
    if fits { None } else { wrong() }
}

fn are_labels(labels: &[Value]) -> bool {
    let words: BTreeSet<&str> = labels.iter().filter_map(Value::as_str).filter(|label| !label.is_empty()).collect();
    words.len() == labels.len() && labels.len() >= 2
}

/// A value for a message: as in TOML, on one line, cut where it is long.
pub fn show(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::Table(_) => "a table".to_owned(),
        Value::String(text) => format!("{text:?}"),
        other => other.to_string().replace('\n', " "),
    };
    if text.chars().count() > LONGEST { text.chars().take(LONGEST).chain("…".chars()).collect() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::KeyOrigin;

    fn problems(text: &str) -> Vec<String> {
        let mut problems = validate(&Document::parse("x", text).unwrap()).problems;
        problems.sort_by(|left, right| left.order().cmp(&right.order()));
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_keys_name_the_nearest_one_and_unknown_tables_are_reported_once() {
        assert_eq!(
            problems("[train]\nepoch = 3\n[trian]\nepochs = 1\nseed = 2\n[loss]\nzzzzzz = 1\n"),
            [
                "unknown key `train.epoch`; did you mean `train.epochs`?",
                "unknown key `trian`; did you mean `train`?",
                "unknown key `loss.zzzzzz`; valid here: semantic, modality, reconstruction, kl, temperature, similarity, \
                 negatives, detach_target, kl_direction, kl_detach, class_weights, label_smoothing",
            ]
        );
    }

    #[test]
    fn types_and_ranges_are_checked() {
        for (text, message) in [
            ("[train]\nepochs = 0", "`train.epochs` must be a whole number of at least 1, found 0"),
            ("[train]\nepochs = 1000001", "`train.epochs` must be a whole number of at most 1000000, found 1000001"),
            ("[run]\nworkers = 257", "`run.workers` must be a whole number of at most 256, found 257"),
            (
                "[data]\nmax_seconds = 0.02",
                "`data.max_seconds` must be a number of at least 0.025 (one frame of speech), found 0.02",
            ),
            ("[train]\nepochs = 3.0", "`train.epochs` must be a whole number of at least 1, found 3.0"),
            ("[train]\nepochs = \"3\"", "`train.epochs` must be a whole number of at least 1, found \"3\""),
            ("[train]\nbatch_size = -4", "`train.batch_size` must be a whole number of at least 1, found -4"),
            ("[train]\nlearning_rate = 0", "`train.learning_rate` must be a number above 0, found 0"),
            ("[train]\nlearning_rate = nan", "`train.learning_rate` must be a number above 0, found nan"),
            ("[train]\nlearning_rate = inf", "`train.learning_rate` must be a number above 0, found inf"),
            ("[loss]\nkl = -0.1", "`loss.kl` must be a number of 0 or more, found -0.1"),
            ("[model]\ndropout = 1.0", "`model.dropout` must be a number from 0 up to, but without, 1, found 1.0"),
            ("[run]\ntest_at_end = 1", "`run.test_at_end` must be true or false, found 1"),
            ("[data]\ntrain = 1", "`data.train` must be a string (a path), found 1"),
            ("train = 1", "`train` must be a table ([train]), found 1"),
            ("[train.epochs]\nx = 1", "`train.epochs` must be a whole number of at least 1, found a table"),
            ("[[train]]\nepochs = 1", "`train` must be a table ([train]), found [{ epochs = 1 }]"),
            (
                "[loss]\nsimilarity = \"cosin\"",
                "`loss.similarity` must be one of cosine, dot, found \"cosin\"; did you mean \"cosine\"?",
            ),
            ("[loss]\nsimilarity = 3", "`loss.similarity` must be one of cosine, dot, found 3"),
            (
                "[run]\ndevice = \"gpu\"",
                "`run.device` must be one of auto, cpu, cuda, cuda:N, or several as in cuda:0,1, found \"gpu\"",
            ),
            (
                "[run]\ndevice = \"cuda:0,0\"",
                "`run.device` must be one of auto, cpu, cuda, cuda:N, or several as in cuda:0,1, found \"cuda:0,0\"",
            ),
            (
                "[data]\nlabels = [\"a\", \"a\"]",
                "`data.labels` must be a list of two or more different strings, none of them empty, found [\"a\", \"a\"]",
            ),
            (
                "[speech.config]\nconv_dim = [32, 0]",
                "`speech.config.conv_dim` must be a list of whole numbers from 1 to 1000000, found [32, 0]",
            ),
        ] {
            assert_eq!(problems(text), [message]);
        }
    }

    #[test]
    fn whole_numbers_are_numbers() {
        assert_eq!(problems("[data]\nmax_seconds = 30\n[loss]\nsemantic = 0\n"), Vec::<String>::new());
    }

    #[test]
    fn what_hugging_face_writes_is_accepted() {
        let text = "[text.config]\nmodel_type = \"roberta\"\nid2label = { 0 = \"a\" }\nhidden_sizes = 3\n";
        assert_eq!(problems(text), ["unknown key `text.config.hidden_sizes`; did you mean `text.config.hidden_size`?"]);
    }

    #[test]
    fn rejected_keys_are_handed_on_and_long_values_cut() {
        let findings = validate(&Document::parse("x", "[train]\nepochs = 0\n").unwrap());
        assert!(findings.rejected.contains("train.epochs"));
        assert_eq!(findings.problems.first().unwrap().place, Some(KeyOrigin::Line(2)));
        assert_eq!(show(&Value::String("x".repeat(200))).chars().count(), 61);
        assert_eq!(show(&Value::String("a\nb".into())), "\"a\\nb\"");
    }
}
