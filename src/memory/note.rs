//! What is said of a batch when memory is gone while it is computed.

use std::{fmt::Write as _, path::Path};

use crate::{
    data::{SAMPLE_RATE, batch::Batch},
    panics::note::{self, cut},
    units,
};

/// Ids that a message names; of more it says how many.
const IDS: usize = 3;
/// Bytes of a name that a message shows.
const NAME: usize = 60;

/// What is done with a batch.
#[derive(Clone, Copy, Debug)]
pub enum Doing<'a> {
    Training {
        /// The run's last checkpoint, where there is one yet.
        last: &'a Path,
    },
    /// A forward pass alone: scoring, predicting, encoding.
    Scoring,
}

/// Notes what begins now; with several devices the note is that of the last one to begin.
pub fn now(doing: Doing<'_>, batch: &Batch) {
    note::set(&words(doing, batch));
}

/// Notes that no batch is being computed.
pub fn idle() {
    note::set("");
}

fn words(doing: Doing<'_>, batch: &Batch) -> String {
    let mut words = String::with_capacity(note::LENGTH);
    let verb = if matches!(doing, Doing::Training { .. }) { "training" } else { "scoring" };
    let _ = write!(words, " while {verb} on {} utterance{}", batch.len(), if batch.len() == 1 { "" } else { "s" });
    if batch.longest_samples() > 0 {
        let _ = write!(words, " of up to {} s", units::seconds(batch.longest_samples(), SAMPLE_RATE));
    }
    if batch.longest_tokens() > 0 {
        let _ = write!(words, " and {} tokens", batch.longest_tokens());
    }
    let ids: Vec<&str> = batch.ids.iter().take(IDS).map(|id| cut(id, NAME)).collect();
    let _ = write!(words, " ({}", ids.join(", "));
    if batch.len() > IDS {
        let _ = write!(words, " and {} more", batch.len() - IDS);
    }
    words.push(')');
    match doing {
        Doing::Training { last } => {
            words.push_str(
                "; lower train.batch_size and raise train.accumulation_steps by as much, or lower train.batch_seconds \
                 or data.max_seconds, or freeze an encoder (text.freeze, speech.freeze); `clasp doctor --config` says \
                 what fits; ",
            );
            if last.is_dir() {
                let _ = write!(words, "the last checkpoint is kept: {}", last.display());
            } else {
                words.push_str("no checkpoint is written yet");
            }
        }
        Doing::Scoring => words.push_str("; lower the batch: --batch-size, or train.batch_size of a run that scores"),
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(ids: &[&str]) -> Batch {
        Batch {
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
            sample_lengths: vec![16_000, 480_000],
            token_lengths: vec![3, 43],
            ..Batch::default()
        }
    }

    #[test]
    fn a_batch_is_named_with_its_sizes_and_what_to_change() {
        let folder = tempfile::tempdir().unwrap();
        let doing = Doing::Training { last: folder.path() };
        let said = words(doing, &batch(&["a", "b", "c", "d", "e"]));
        assert!(
            said.starts_with(" while training on 5 utterances of up to 30.0 s and 43 tokens (a, b, c and 2 more); "),
            "{said}"
        );
        assert!(said.contains("train.batch_size") && said.ends_with(&folder.path().display().to_string()), "{said}");
        let missing = folder.path().join("last");
        let said = words(Doing::Training { last: &missing }, &batch(&["a", "b"]));
        assert!(said.contains(" (a, b); ") && said.ends_with("no checkpoint is written yet"), "{said}");
        assert!(words(Doing::Scoring, &batch(&["a", "b"])).contains("--batch-size"));
    }

    #[test]
    fn names_without_end_are_cut() {
        let endless = "\u{1F600}".repeat(3000);
        assert!(words(Doing::Scoring, &batch(&[&endless])).len() < note::LENGTH);
    }
}
