//! The library in thirty lines: loads a checkpoint, classifies one recording with its text, and prints the label and the
//! probabilities. See docs/library.md.
#![recursion_limit = "256"]
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::{env::args, path::Path};

use burn::backend::{Flex, flex::FlexDevice};
use clasp::{
    data::{batch::BatchOptions, manifest},
    eval::{predictions::Row, report::InputCounts},
    inference::predictor::{Input, Predictor},
};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [checkpoint, audio, text] = arguments.as_slice() else { anyhow::bail!("usage: classify CHECKPOINT WAV TEXT") };
    let predictor = Predictor::<Flex>::load(Path::new(checkpoint), &FlexDevice)?;
    let (audio, text) = (Some(audio.into()), Some(text.clone()));
    let row = manifest::Row { id: "utterance".to_owned(), audio, text, ..manifest::Row::default() };
    let options = BatchOptions { batch_size: 1, batch_seconds: None };
    match predictor.predict(&[Input::given(row)], options, &mut InputCounts::default()).remove(0) {
        Row::Prediction(prediction) => {
            println!("{}", prediction.fusion.label);
            for (label, probability) in &prediction.fusion.probabilities.0 {
                println!("{probability:.4} {label}");
            }
            Ok(())
        }
        Row::Failure(failure) => anyhow::bail!(failure.error),
    }
}
