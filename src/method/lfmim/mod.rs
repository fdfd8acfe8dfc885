//! LFMIM (Sun et al. 2023) for speech and text: layer-wise fusion with modality independence modelling. Each modality's
//! sequence has Transformer blocks of its own, and a joint sequence takes in their states before every block; nothing
//! flows back but gradients. Each modality's vector and the joint one have a classifier with its own cross-entropy.
//!
//! All sequences have fixed lengths: the text is cut or padded, the speech averaged into a fixed number of bins. The
//! joint sequence is [tokens ; speech ; text], so that padding lies at the end; attention does not see the order, and
//! each position's weight in the readout is learned.
//!
//! Departure: padding is neither attended to nor read (`padding_mask`); the published code has no mask.

mod stream;

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, activation, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Contrasted, Encoded, HeadMethod, Logits, Misfit, ModelSizes, Options, Output, Reads, Sequence, Sizes, Term, Terms,
};
use crate::{
    keys::{Key, Kind, Values, at_least, section},
    loss::{LossConfig, Targets, cross_entropy},
    nn::{Init, Linear},
    ops::{Lengths, Mode, Ops},
};
use stream::Stream;

/// Learned tokens in front of the joint sequence.
const JOINT_TOKENS: usize = 4;

section! {
    /// `[model.lfmim]`, with the published values where two modalities leave them.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct LfmimOptions("model.lfmim", sizes: ModelSizes) {
        /// blocks of each sequence
        stages: usize [at_least(1)] = 4;
        /// attention heads of a block; divides model.hidden_size
        attention_heads: usize [at_least(1)] = sizes.attention_heads, "the text encoder's";
        /// tokens that the text is cut or padded to
        text_positions: usize [at_least(1)] = 80;
        /// bins that the speech is averaged into
        speech_positions: usize [at_least(1)] = 50;
        /// last width of a modality's classifier
        unimodal_head: usize [at_least(1)] = 32;
        /// width in the joint classifier; then its half
        joint_head: usize [at_least(2)] = 128;
        /// dropout on the sequences before the blocks
        input_dropout: f64 [Kind::Dropout] = 0.25;
        /// dropout on the attention weights
        attention_dropout: f64 [Kind::Dropout] = 0.2;
        /// dropout within a feed-forward block
        feed_forward_dropout: f64 [Kind::Dropout] = 0.1;
        /// leave padding out of attention and readout
        padding_mask: bool = true;
    }
}

impl Options for LfmimOptions {
    const READS: Reads = Reads::Both;
    const READS_VECTORS: bool = false;
    const TERMS: &'static [&'static str] = &["task_text", "task_speech", "task_fusion"];
    const KEYS: &'static [Key] = Self::KEYS;

    fn read_from(values: &dyn Values, sizes: ModelSizes) -> Self {
        Self::read(values, sizes)
    }

    fn check(&self, hidden: usize) -> Result<(), Misfit> {
        Misfit::unless_positive(&[
            ("stages", self.stages),
            ("text_positions", self.text_positions),
            ("speech_positions", self.speech_positions),
            ("unimodal_head", self.unimodal_head),
            ("joint_head", self.joint_head / 2),
        ])?;
        Misfit::unless_divides("attention_heads", self.attention_heads, "the model's hidden_size", hidden)
    }
}

/// Linear maps with rectifiers between them.
fn classify<B: Ops>(head: &[Linear<B>], x: &Tensor<B, 2>) -> Tensor<B, 2> {
    let mut x = x.clone();
    for (place, layer) in head.iter().enumerate() {
        x = layer.forward(if place == 0 { x } else { activation::relu(x) });
    }
    x
}

/// The method.
#[derive(Module, Debug)]
pub struct Lfmim<B: Backend> {
    text: Stream<B>,
    speech: Stream<B>,
    joint: Stream<B>,
    /// [2]: of the text's states in the joint sequence and in its own.
    text_mixing: Param<Tensor<B, 1>>,
    /// [2]: the same of the speech's.
    speech_mixing: Param<Tensor<B, 1>>,
    text_head: Vec<Linear<B>>,
    speech_head: Vec<Linear<B>>,
    joint_head: Vec<Linear<B>>,
    #[module(skip)]
    options: LfmimOptions,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct LfmimOutput<B: Backend> {
    text_stream: Tensor<B, 2>,
    speech_stream: Tensor<B, 2>,
    /// [batch, 3 * width]
    fused: Tensor<B, 2>,
    logits: Tensor<B, 2>,
    logits_text: Tensor<B, 2>,
    logits_speech: Tensor<B, 2>,
}

/// A modality's sequence on its way through the blocks.
struct Track<'a, B: Backend> {
    stream: &'a Stream<B>,
    x: Tensor<B, 3>,
    lengths: Lengths,
}

impl<B: Ops> Track<'_, B> {
    fn advance(&mut self, stage: usize, mode: Mode<'_>) {
        self.x = self.stream.advance(stage, self.x.clone(), &self.lengths, mode);
    }

    fn read(&self) -> Tensor<B, 2> {
        self.stream.read(self.x.clone(), &self.lengths)
    }
}

impl<B: Ops> Lfmim<B> {
    fn text_track(&self, text: &Sequence<B>, mode: Mode<'_>) -> Track<'_, B> {
        let positions = self.options.text_positions;
        let real = Lengths::new(text.lengths.valid().to_vec(), positions);
        let batch = real.batch();
        let x = self.text.prepare(batch, Some(cut_or_padded(text, &real)), mode);
        let valid = real.valid().iter().map(|&length| if self.options.padding_mask { length } else { positions } + 1);
        Track { stream: &self.text, x, lengths: Lengths::new(valid.collect(), positions + 1) }
    }

    fn speech_track(&self, speech: &Sequence<B>, mode: Mode<'_>) -> Track<'_, B> {
        let (batch, positions) = (speech.lengths.batch(), self.options.speech_positions);
        let x = self.speech.prepare(batch, Some(pooled(speech, positions)), mode);
        Track { stream: &self.speech, x, lengths: Lengths::full(batch, positions + 1) }
    }

    /// The joint sequence with the modalities' states mixed in: `p` of what is there and `q` of the modality's own.
    fn mixed(&self, joint: &Tensor<B, 3>, speech: &Tensor<B, 3>, text: &Tensor<B, 3>) -> Tensor<B, 3> {
        let factor = |mixing: &Param<Tensor<B, 1>>, place| mixing.val().narrow(0, place, 1).reshape([1, 1, 1]);
        let mut parts = vec![joint.clone().narrow(1, 0, JOINT_TOKENS)];
        let mut start = JOINT_TOKENS;
        for (own, mixing) in [(speech, &self.speech_mixing), (text, &self.text_mixing)] {
            let [_, length, _] = own.dims();
            let there = joint.clone().narrow(1, start, length);
            parts.push(there * factor(mixing, 0) + own.clone() * factor(mixing, 1));
            start += length;
        }
        Tensor::cat(parts, 1)
    }
}

/// The states at valid positions, zeros behind them, cut or padded to the length that `real` has: [batch, positions,
/// width].
fn cut_or_padded<B: Ops>(text: &Sequence<B>, real: &Lengths) -> Tensor<B, 3> {
    let (batch, time, positions) = (real.batch(), text.lengths.longest(), real.longest());
    let [_, width] = text.states.dims();
    let device = text.states.device();
    let states = text.states.clone().reshape([batch, time, width]);
    let states = if time >= positions {
        states.narrow(1, 0, positions)
    } else {
        Tensor::cat(vec![states, Tensor::zeros([batch, positions - time, width], &device)], 1)
    };
    if real.is_full() { states } else { states * real.mask::<B>(&device).reshape([batch, positions, 1]) }
}

/// The means of the valid frames in `bins` bins, as `torch.nn.functional.adaptive_avg_pool1d` cuts them, each example
/// by its own length: [batch, bins, width].
#[expect(clippy::cast_precision_loss, reason = "bins are small")]
fn pooled<B: Ops>(speech: &Sequence<B>, bins: usize) -> Tensor<B, 3> {
    let (batch, time) = (speech.lengths.batch(), speech.lengths.longest());
    let [_, width] = speech.states.dims();
    let mut shares = vec![0.0_f32; batch * bins * time];
    for (row, of_bin) in shares.chunks_mut(time).enumerate() {
        let (frames, bin) = (speech.lengths.valid()[row / bins], row % bins);
        let (start, end) = (bin * frames / bins, ((bin + 1) * frames).div_ceil(bins));
        of_bin[start..end].fill(1.0 / (end - start) as f32);
    }
    let shares = Tensor::from_data(TensorData::new(shares, [batch, bins, time]), &speech.states.device());
    B::stacked_product(shares, speech.states.clone().reshape([batch, time, width]))
}

impl<B: Ops> HeadMethod<B> for Lfmim<B> {
    type Options = LfmimOptions;
    type Output = LfmimOutput<B>;

    fn new(options: &LfmimOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        let width = sizes.hidden;
        let (text, speech) = (options.text_positions + 1, options.speech_positions + 1);
        let joint = JOINT_TOKENS + speech + text;
        let head = |widths: &[usize], init: &mut Init<'_, B>| {
            widths.windows(2).map(|pair| Linear::uniform(pair[0], pair[1], init)).collect()
        };
        let unimodal = [width, width / 2, options.unimodal_head, sizes.labels];
        let joint_widths = [3 * width, 3 * width / 2, options.joint_head, options.joint_head / 2, sizes.labels];
        Self {
            text: Stream::new(Some(sizes.text), [1, text, width], options, init),
            speech: Stream::new(Some(sizes.speech), [1, speech, width], options, init),
            joint: Stream::new(None, [JOINT_TOKENS, joint, width], options, init),
            text_mixing: init.normal([2], 1.0),
            speech_mixing: init.normal([2], 1.0),
            text_head: head(&unimodal, init),
            speech_head: head(&unimodal, init),
            joint_head: head(&joint_widths, init),
            options: options.clone(),
        }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> LfmimOutput<B> {
        let mut text = self.text_track(encoded.text(), mode);
        let mut speech = self.speech_track(encoded.speech(), mode);
        let batch = text.lengths.batch();
        let tokens = self.joint.prepare(batch, None, mode);
        let in_front = JOINT_TOKENS + speech.lengths.longest();
        let valid = text.lengths.valid().iter().map(|length| in_front + length).collect();
        let mut joint = Track {
            stream: &self.joint,
            x: Tensor::cat(vec![tokens, speech.x.clone(), text.x.clone()], 1),
            lengths: Lengths::new(valid, in_front + text.lengths.longest()),
        };
        for stage in 0..self.options.stages {
            if stage > 0 {
                joint.x = self.mixed(&joint.x, &speech.x, &text.x);
            }
            text.advance(stage, mode);
            speech.advance(stage, mode);
            joint.advance(stage, mode);
        }
        let (text_stream, speech_stream) = (text.read(), speech.read());
        let fused = Tensor::cat(vec![text_stream.clone(), speech_stream.clone(), joint.read()], 1);
        LfmimOutput {
            logits: classify(&self.joint_head, &fused),
            logits_text: classify(&self.text_head, &text_stream),
            logits_speech: classify(&self.speech_head, &speech_stream),
            text_stream,
            speech_stream,
            fused,
        }
    }

    fn classify_text(&self, text: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        let mut track = self.text_track(text, mode);
        (0..self.options.stages).for_each(|stage| track.advance(stage, mode));
        Some(classify(&self.text_head, &track.read()))
    }

    fn classify_speech(&self, speech: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        let mut track = self.speech_track(speech, mode);
        (0..self.options.stages).for_each(|stage| track.advance(stage, mode));
        Some(classify(&self.speech_head, &track.read()))
    }
}

impl<B: Backend> Output<B> for LfmimOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits {
            name: "logits_fusion",
            main: self.logits.clone(),
            text: Some(self.logits_text.clone()),
            speech: Some(self.logits_speech.clone()),
        }
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        vec![
            ("text_stream", self.text_stream.clone()),
            ("speech_stream", self.speech_stream.clone()),
            ("fused", self.fused.clone()),
        ]
    }

    fn losses(&self, _: Option<Contrasted<B>>, targets: &Targets, _: &LossConfig) -> Terms<B> {
        let task = |name, logits: &Tensor<B, 2>| Term::mean(name, 1.0, cross_entropy(logits.clone(), targets));
        let others = [task("task_speech", &self.logits_speech), task("task_fusion", &self.logits)];
        Terms::sum(task("task_text", &self.logits_text), others)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::flex::FlexDevice;

    use super::{super::fixtures, *};

    #[test]
    fn it_gives_the_reference() {
        fixtures::holds::<Lfmim<fixtures::Train>>("lfmim");
    }

    #[test]
    fn without_its_mask_it_gives_the_reference() {
        fixtures::holds::<Lfmim<fixtures::Train>>("lfmim-unmasked");
    }

    #[test]
    fn awkward_states_give_finite_values_and_gradients() {
        fixtures::stays_finite::<Lfmim<fixtures::Train>>();
    }

    /// Three frames 1, 2, 3 (the fourth is padding) in two bins: frames 1 and 2, and 2 and 3; four bins repeat them.
    #[test]
    fn speech_is_pooled_over_its_own_frames() {
        let device = FlexDevice;
        let states = Tensor::<fixtures::Train, 2>::from_floats([[1.0], [2.0], [3.0], [1e4]], &device);
        let lengths = Lengths::new(vec![3], 4);
        let speech = Sequence { vector: states.clone(), states, lengths };
        fixtures::assert_close(&fixtures::values(pooled(&speech, 2)), &[1.5, 2.5], 1e-6);
        fixtures::assert_close(&fixtures::values(pooled(&speech, 4)), &[1.0, 1.5, 2.5, 3.0], 1e-6);
    }

    #[test]
    fn a_single_modality_gets_the_logits_that_it_has_beside_the_other() {
        let fixture = fixtures::Fixture::read("lfmim");
        let method: Lfmim<fixtures::Train> = fixture.method();
        let encoded = fixture.encoded();
        let logits = method.forward(&encoded, Mode::evaluation()).logits();
        let text = method.classify_text(encoded.text(), Mode::evaluation()).unwrap();
        let speech = method.classify_speech(encoded.speech(), Mode::evaluation()).unwrap();
        fixtures::assert_close(&fixtures::values(text), &fixtures::values(logits.text.unwrap()), 1e-6);
        fixtures::assert_close(&fixtures::values(speech), &fixtures::values(logits.speech.unwrap()), 1e-6);
    }
}
