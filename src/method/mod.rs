//! The methods: what stands on the two encoders, and its losses, each in a file of its own and a line of [`list`].
//! `scripts/clasp_torch.py` states the paper's own, [`clasp`], in `PyTorch`, and `scripts/baselines_torch.py` the others.

mod adapter;
pub mod clasp;
pub mod concat;
#[cfg(test)]
mod fixtures;
mod fusion;
pub mod late_fusion;
pub mod lfmim;
mod list;
pub mod lmf;
pub mod lrmp_arch;
pub mod misa;
pub mod moments;
pub mod options;
pub mod terms;
pub mod unimodal;

use burn::tensor::{Tensor, backend::Backend};

use crate::{
    encoder::Inputs,
    loss::{LossConfig, Targets},
    nn::Init,
    ops::{Lengths, Mode, Ops},
};

pub use adapter::Adapter;
pub use clasp::ClaspOptions;
pub use list::{Head, HeadOptions, Method};
pub use options::{Misfit, ModelSizes, Options, Reads};
pub use terms::{Term, Terms};

/// The sizes of the encoders and the task that a head is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Labels.
    pub labels: usize,
    /// Width of the two utterance vectors.
    pub hidden: usize,
    /// Width of the text encoder's states; 0 where text is not read.
    pub text: usize,
    /// Width of the speech encoder's states; 0 where speech is not read.
    pub speech: usize,
    /// Dropout before each linear classifier.
    pub classifier_dropout: f64,
}

/// What an encoder gives of a batch.
#[derive(Clone, Debug)]
pub struct Sequence<B: Backend> {
    /// [batch * time, the encoder's width]; padded positions hold some finite value.
    pub states: Tensor<B, 2>,
    /// The valid positions of each example.
    pub lengths: Lengths,
    /// The utterance vectors [batch, hidden].
    pub vector: Tensor<B, 2>,
}

/// What both encoders give; the one that a method does not read is not there.
#[derive(Clone, Debug)]
pub struct Encoded<B: Backend> {
    pub text: Option<Sequence<B>>,
    pub speech: Option<Sequence<B>>,
    /// The batch itself, for a method without encoders.
    pub inputs: Option<Inputs>,
}

impl<B: Backend> Encoded<B> {
    /// The text's; only for methods that read it.
    pub fn text(&self) -> &Sequence<B> {
        self.text.as_ref().unwrap_or_else(|| unreachable!("a method that reads text is given text"))
    }

    /// The batch itself; only for methods without encoders.
    pub fn inputs(&self) -> &Inputs {
        self.inputs.as_ref().unwrap_or_else(|| unreachable!("a method without encoders is given the batch"))
    }

    /// The speech's; only for methods that read it.
    pub fn speech(&self) -> &Sequence<B> {
        self.speech.as_ref().unwrap_or_else(|| unreachable!("a method that reads speech is given speech"))
    }
}

/// The logits of a method's classifiers, each [batch, labels].
#[derive(Clone, Debug)]
pub struct Logits<B: Backend> {
    /// What the prediction's are called where everything is written out: `logits_fusion`, or of a method that reads one
    /// modality `logits_text` or `logits_speech`.
    pub name: &'static str,
    pub main: Tensor<B, 2>,
    /// Those of a classifier on the text alone beside it.
    pub text: Option<Tensor<B, 2>>,
    /// Those of a classifier on the speech alone beside it.
    pub speech: Option<Tensor<B, 2>>,
}

impl<B: Backend> Logits<B> {
    pub fn only(name: &'static str, main: Tensor<B, 2>) -> Self {
        Self { name, main, text: None, speech: None }
    }
}

/// The vectors that the terms compare which see more than one example, each [examples, size]: those of the batch, or of
/// a larger one of which other devices compute the rest.
#[derive(Clone, Debug)]
pub struct Contrasted<B: Backend> {
    /// `h_a,inv`
    pub speech_invariant: Tensor<B, 2>,
    /// `h_t,inv`
    pub text_invariant: Tensor<B, 2>,
    /// `h_a,spe`
    pub speech_specific: Tensor<B, 2>,
    /// `h_t,spe`
    pub text_specific: Tensor<B, 2>,
}

/// What a method makes of a batch: all that is predicted, shown and trained on.
pub trait Output<B: Backend> {
    /// The logits of its classifiers.
    fn logits(&self) -> Logits<B>;

    /// Its vectors by name, each [batch, size].
    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)>;

    /// The vectors of which terms compare different examples; `None` if every term is a mean over the examples.
    fn contrasted(&self) -> Option<Contrasted<B>> {
        None
    }

    /// Its losses, in the order of [`Options::terms`]. Where several devices share a batch, `contrasted` has the vectors
    /// of all of them; else the output's own count. `loss` has the weights of the paper's terms.
    fn losses(&self, contrasted: Option<Contrasted<B>>, targets: &Targets, loss: &LossConfig) -> Terms<B>;
}

/// Everything that an output has, by name: its vectors, then its logits.
pub fn tensors<B: Backend>(output: &dyn Output<B>) -> Vec<(&'static str, Tensor<B, 2>)> {
    let mut named = output.representations();
    let logits = output.logits();
    named.extend(logits.text.map(|text| ("logits_text", text)));
    named.extend(logits.speech.map(|speech| ("logits_speech", speech)));
    named.push((logits.name, logits.main));
    named
}

/// What stands on the encoders. Every parameter lies under the method's name in a checkpoint, but for CLASP's and those
/// of a field `classifier`, which stay at the top.
pub trait HeadMethod<B: Ops>: Sized {
    /// Its options.
    type Options: Options;
    /// What it makes of a batch.
    type Output: Output<B>;

    /// Fresh parameters, or empty ones to be filled from a checkpoint.
    fn new(options: &Self::Options, sizes: &Sizes, init: &mut Init<'_, B>) -> Self;

    /// The same with the maps between the encoders' widths and the model's. Both are drawn from `init`, one after the
    /// other.
    fn with_adapter(options: &Self::Options, sizes: &Sizes, init: &mut Init<'_, B>) -> (Adapter<B>, Self) {
        (Adapter::new(sizes, Self::Options::READS_VECTORS, init), Self::new(options, sizes, init))
    }

    /// All that follows from what the encoders give.
    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> Self::Output;

    /// Logits [batch, labels] where there is only text; `None` if the method has no classifier for it.
    fn classify_text(&self, text: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        let _ = (text, mode);
        None
    }

    /// Logits [batch, labels] where there is only speech; `None` if the method has no classifier for it.
    fn classify_speech(&self, speech: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        let _ = (speech, mode);
        None
    }
}
