//! The file that a command writes must be none of those that it reads, whichever links lead there.

use std::fs;
use std::path::{Path, PathBuf};

use clasp::{
    checkpoint::folder::checkpoint_folder,
    data::manifest::Row,
    files::{CONFIG, FileId, OutputIsInput, WEIGHTS},
    run::RunFolder,
};

/// The files of a checkpoint. What users keep beside them is theirs to replace.
const CHECKPOINT: [&str; 9] = [
    CONFIG,
    WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "state.json",
    "optimizer.safetensors",
];

/// A file that will be written.
pub struct Output {
    flag: &'static str,
    path: PathBuf,
    /// `None` if there is nothing yet that could be destroyed.
    id: Option<FileId>,
}

impl Output {
    /// The file that `flag` names.
    pub fn new(flag: &'static str, path: &Path) -> Self {
        Self { flag, path: path.to_owned(), id: FileId::of(path) }
    }

    /// Standard output, where it is appended to a file.
    pub fn stdout() -> Self {
        Self { flag: "standard output", path: PathBuf::from("it"), id: FileId::of_open(std::io::stdout()) }
    }

    /// Refuses the file if it is `input`.
    ///
    /// # Errors
    /// [`OutputIsInput`]
    pub fn is_not(&self, what: &str, input: &Path) -> Result<(), OutputIsInput> {
        self.refuse(self.id.is_some() && self.id == FileId::of(input), what)
    }

    /// Refuses the file if it is the manifest: `-` is standard input.
    ///
    /// # Errors
    /// [`OutputIsInput`]
    pub fn is_not_manifest(&self, manifest: &Path) -> Result<(), OutputIsInput> {
        if manifest == Path::new("-") {
            let is_it = self.id.is_some() && self.id == FileId::of_open(std::io::stdin());
            return self.refuse(is_it, "the manifest on standard input");
        }
        self.is_not("the manifest", manifest)
    }

    /// Refuses the file if it is the recording of a row.
    ///
    /// # Errors
    /// [`OutputIsInput`]
    pub fn is_not_recording(&self, row: &Row) -> Result<(), OutputIsInput> {
        match &row.audio {
            Some(audio) if self.id.is_some() => self.is_not(&format!("the audio of utterance `{}`", row.id), audio),
            _ => Ok(()),
        }
    }

    /// Refuses the file if it is one of a checkpoint, or of the run that the checkpoint is of.
    ///
    /// # Errors
    /// [`OutputIsInput`]
    pub fn is_not_of_checkpoint(&self, checkpoint: &Path) -> Result<(), OutputIsInput> {
        let folder = checkpoint_folder(checkpoint);
        for name in CHECKPOINT {
            self.is_not("a file of the checkpoint", &folder.join(name))?;
        }
        let Some(run) = run_of(&folder) else { return Ok(()) };
        for file in [run.config(), run.manifest(), run.log(), run.events()] {
            self.is_not("a file of the run", &file)?;
        }
        Ok(())
    }

    /// Refuses the file if it has the name of one that the run of a checkpoint keeps, be it there or not.
    ///
    /// # Errors
    /// [`OutputIsInput`]
    pub fn is_not_in_run(&self, checkpoint: &Path) -> Result<(), OutputIsInput> {
        let run = run_of(&checkpoint_folder(checkpoint));
        self.refuse(run.is_some_and(|run| run.writes_real(&self.path)), "a file of the run")
    }

    fn refuse(&self, is_input: bool, what: &str) -> Result<(), OutputIsInput> {
        let Self { flag, path, .. } = self;
        if is_input { Err(OutputIsInput { flag, path: path.clone(), what: what.to_owned() }) } else { Ok(()) }
    }
}

/// The run that a checkpoint folder is the best or the last of.
fn run_of(checkpoint: &Path) -> Option<RunFolder> {
    let real = fs::canonicalize(checkpoint).ok()?;
    real.parent().map(RunFolder::new).filter(|run| run.is_run() && run.writes(&real))
}
