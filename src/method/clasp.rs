//! CLASP, the paper's system (section 3; `scripts/clasp_torch.py`, class `Clasp`): projections to a space that both
//! modalities share and to one of each, swap reconstruction, multi-head fusion, and the loss of equations 1 to 5. The
//! ablation `raw-only` has no projections: it fuses the two encoders' vectors.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Adapter, Contrasted, Encoded, HeadMethod, Logits, Misfit, ModelSizes, Options, Output, Reads, Sequence, Sizes,
    Term, Terms, fusion::Fusion,
};
use crate::{
    choices::{FusionKind, FusionVectors},
    encoder::layer::{Activation, LayerConfig},
    keys::{Key, Kind, Values, at_least, section},
    loss::{LossConfig, Targets, contrastive, cross_entropy, divergence, reconstruction},
    nn::{Init, Linear},
    ops::{self, Mode, Ops},
};

/// Added to the variance in the norms (`torch.nn.LayerNorm`).
const EPSILON: f64 = 1e-5;

section! {
    /// The fusion: `[model.fusion]`, and `fusion` of a checkpoint's `config.json`.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct ClaspOptions("model.fusion", sizes: ModelSizes) {
        by_hand {} into {
            /// Which vectors it takes in; all where a file does not say. `model.ablation` decides.
            #[serde(default = "all_vectors", skip_serializing_if = "is_all")]
            vectors: FusionVectors;
        }
        /// cut the six vectors into pieces, or attend over them whole
        kind: FusionKind = FusionKind::MultiHead;
        /// pieces of each vector; divides model.hidden_size
        split_heads: usize [at_least(1)] =
            if kind == FusionKind::MultiHead { sizes.attention_heads } else { 1 },
            "the text encoder's attention heads (H)";
        /// width of the fusion's layers
        hidden_size: usize [at_least(1)] = sizes.hidden, "the model's";
        /// fusion layers
        layers: usize [at_least(1)] =
            if kind == FusionKind::MultiHead { 4 } else { 1 }, "4 (1 with kind = \"attention\")";
        /// attention heads of a fusion layer
        attention_heads: usize [at_least(1)] =
            if kind == FusionKind::MultiHead { 8 } else { 2 }, "8 (2 with kind = \"attention\")";
        /// inner width of a fusion layer
        feed_forward: usize [at_least(1)] = 2048;
        /// dropout in the fusion
        dropout: f64 [Kind::Dropout] = 0.1;
        /// add a learned vector to each fusion token
        slot_embeddings: bool = false;
    }
}

const fn all_vectors() -> FusionVectors {
    FusionVectors::All
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_all(vectors: &FusionVectors) -> bool {
    *vectors == FusionVectors::All
}

impl Options for ClaspOptions {
    const READS: Reads = Reads::Both;
    const TERMS: &'static [&'static str] =
        &["task_text", "task_speech", "task_fusion", "semantic", "modality", "reconstruction", "kl"];
    const FIELD: Option<&'static str> = Some("fusion");
    const KEYS: &'static [Key] = Self::KEYS;

    fn read_from(values: &dyn Values, sizes: ModelSizes) -> Self {
        Self::read(values, FusionVectors::All, sizes)
    }

    fn terms(&self) -> &'static [&'static str] {
        if self.vectors == FusionVectors::All {
            Self::TERMS
        } else {
            &["task_text", "task_speech", "task_fusion", "kl"]
        }
    }

    fn check(&self, hidden: usize) -> Result<(), Misfit> {
        let misfit = |option, problem| Err(Misfit { option, problem });
        let (pieces, heads, width) = (self.pieces(), self.attention_heads, self.hidden_size);
        if hidden == 0 || pieces == 0 || !hidden.is_multiple_of(pieces) {
            return misfit("split_heads", format!("= {pieces} must divide hidden_size = {hidden}"));
        }
        if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
            return misfit("attention_heads", format!("= {heads} must divide fusion.hidden_size = {width}"));
        }
        if self.kind == FusionKind::Attention && width != hidden {
            let problem = format!("= {width} must be hidden_size = {hidden} where fusion.kind is \"attention\"");
            return misfit("hidden_size", problem);
        }
        Ok(())
    }

    fn layers(&self) -> usize {
        self.layers
    }

    fn contrasted_size(&self, hidden: usize) -> usize {
        if self.vectors == FusionVectors::All { hidden } else { 0 }
    }
}

impl ClaspOptions {
    /// Pieces of each vector.
    pub fn pieces(&self) -> usize {
        if self.kind == FusionKind::MultiHead { self.split_heads } else { 1 }
    }

    /// Tokens of an example.
    pub fn tokens(&self) -> usize {
        self.pieces() * if self.vectors == FusionVectors::All { 6 } else { 2 }
    }

    /// Length of the fused vector.
    pub fn fused_size(&self) -> usize {
        self.tokens() * self.hidden_size
    }

    /// The shape of its layers.
    pub fn layer(&self) -> LayerConfig {
        LayerConfig {
            width: self.hidden_size,
            heads: self.attention_heads,
            feed_forward: self.feed_forward,
            norm_first: false,
            has_key_bias: true,
            is_gated: false,
            activation: Activation::Relu,
            attention_dropout: self.dropout,
            hidden_dropout: self.dropout,
            activation_dropout: self.dropout,
            epsilon: EPSILON,
        }
    }
}

/// The maps to the invariant space, shared by both modalities, and to each modality's own.
#[derive(Module, Debug)]
pub struct Projection<B: Backend> {
    invariant: Linear<B>,
    text_specific: Linear<B>,
    speech_specific: Linear<B>,
}

/// The maps back from a specific and the other modality's invariant vector.
#[derive(Module, Debug)]
pub struct Reconstruction<B: Backend> {
    text: Linear<B>,
    speech: Linear<B>,
}

/// One linear classifier each on the text, the speech and the fused vector.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    text: Linear<B>,
    speech: Linear<B>,
    fusion: Linear<B>,
}

/// The method.
#[derive(Module, Debug)]
pub struct Clasp<B: Backend> {
    projection: Option<Projection<B>>,
    reconstruction: Option<Reconstruction<B>>,
    fusion: Fusion<B>,
    classifier: Classifier<B>,
    dropout: f64,
}

/// What the projections make of a batch, each [batch, hidden].
#[derive(Clone, Debug)]
pub struct Projected<B: Backend> {
    /// `h_a,inv`, `h_t,inv`, `h_a,spe` and `h_t,spe`.
    vectors: Contrasted<B>,
    /// `r̂_t`
    text_reconstructed: Tensor<B, 2>,
    /// `r̂_a`
    speech_reconstructed: Tensor<B, 2>,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct ClaspOutput<B: Backend> {
    /// `r_t` [batch, hidden]
    text: Tensor<B, 2>,
    /// `r_a` [batch, hidden]
    speech: Tensor<B, 2>,
    /// Not with `raw-only`.
    projected: Option<Projected<B>>,
    /// [batch, fused size]
    fused: Tensor<B, 2>,
    /// [batch, labels]
    logits_text: Tensor<B, 2>,
    /// [batch, labels]
    logits_speech: Tensor<B, 2>,
    /// [batch, labels]
    logits_fusion: Tensor<B, 2>,
}

impl<B: Ops> Clasp<B> {
    /// The projections, and each modality reconstructed from its own vector and the other's invariant one.
    fn project(&self, text: &Tensor<B, 2>, speech: &Tensor<B, 2>) -> Option<Projected<B>> {
        let (projection, reconstruction) = (self.projection.as_ref()?, self.reconstruction.as_ref()?);
        let vectors = Contrasted {
            speech_invariant: projection.invariant.forward(speech.clone()),
            text_invariant: projection.invariant.forward(text.clone()),
            speech_specific: projection.speech_specific.forward(speech.clone()),
            text_specific: projection.text_specific.forward(text.clone()),
        };
        let Contrasted { speech_invariant, text_invariant, speech_specific, text_specific } = vectors.clone();
        Some(Projected {
            text_reconstructed: reconstruction.text.forward(text_specific + speech_invariant),
            speech_reconstructed: reconstruction.speech.forward(speech_specific + text_invariant),
            vectors,
        })
    }

    fn dropped(&self, vector: &Tensor<B, 2>, mode: Mode<'_>) -> Tensor<B, 2> {
        ops::dropout(vector.clone(), mode.dropout(self.dropout))
    }
}

impl<B: Ops> HeadMethod<B> for Clasp<B> {
    type Options = ClaspOptions;
    type Output = ClaspOutput<B>;

    fn new(options: &ClaspOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        Self::with_adapter(options, sizes, init).1
    }

    fn with_adapter(options: &ClaspOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> (Adapter<B>, Self) {
        let Sizes { hidden, labels, .. } = *sizes;
        let is_raw = options.vectors == FusionVectors::Raw;
        // The order of the draws is part of what a seed means, so it stays as it once was.
        let early = is_raw.then(|| Adapter::new(sizes, true, init));
        let fusion = Fusion::new(options, hidden, init);
        let adapter = early.unwrap_or_else(|| Adapter::new(sizes, true, init));
        let head = Self {
            projection: (!is_raw).then(|| Projection {
                invariant: Linear::uniform(hidden, hidden, init),
                text_specific: Linear::uniform(hidden, hidden, init),
                speech_specific: Linear::uniform(hidden, hidden, init),
            }),
            reconstruction: (!is_raw).then(|| Reconstruction {
                text: Linear::uniform(hidden, hidden, init),
                speech: Linear::uniform(hidden, hidden, init),
            }),
            fusion,
            classifier: Classifier {
                text: Linear::uniform(hidden, labels, init),
                speech: Linear::uniform(hidden, labels, init),
                fusion: Linear::uniform(options.fused_size(), labels, init),
            },
            dropout: sizes.classifier_dropout,
        };
        (adapter, head)
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> ClaspOutput<B> {
        let (text, speech) = (encoded.text().vector.clone(), encoded.speech().vector.clone());
        let projected = self.project(&text, &speech);
        let mut vectors = vec![&speech, &text];
        if let Some(Projected { vectors: own, .. }) = &projected {
            vectors.extend([&own.speech_invariant, &own.text_invariant, &own.speech_specific, &own.text_specific]);
        }
        let fused = self.fusion.forward(&vectors, mode);
        // As is the order of the dropout masks.
        let early = projected.is_some().then(|| self.dropped(&fused, mode));
        let (text_dropped, speech_dropped) = (self.dropped(&text, mode), self.dropped(&speech, mode));
        let fused_dropped = early.unwrap_or_else(|| self.dropped(&fused, mode));
        ClaspOutput {
            logits_text: self.classifier.text.forward(text_dropped),
            logits_speech: self.classifier.speech.forward(speech_dropped),
            logits_fusion: self.classifier.fusion.forward(fused_dropped),
            text,
            speech,
            projected,
            fused,
        }
    }

    fn classify_text(&self, text: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        Some(self.classifier.text.forward(self.dropped(&text.vector, mode)))
    }

    fn classify_speech(&self, speech: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        Some(self.classifier.speech.forward(self.dropped(&speech.vector, mode)))
    }
}

impl<B: Backend> Output<B> for ClaspOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits {
            name: "logits_fusion",
            main: self.logits_fusion.clone(),
            text: Some(self.logits_text.clone()),
            speech: Some(self.logits_speech.clone()),
        }
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        let mut named = vec![("text", &self.text), ("speech", &self.speech)];
        if let Some(Projected { vectors, text_reconstructed, speech_reconstructed }) = &self.projected {
            named.extend([
                ("text_invariant", &vectors.text_invariant),
                ("speech_invariant", &vectors.speech_invariant),
                ("text_specific", &vectors.text_specific),
                ("speech_specific", &vectors.speech_specific),
                ("text_reconstructed", text_reconstructed),
                ("speech_reconstructed", speech_reconstructed),
            ]);
        }
        named.push(("fused", &self.fused));
        named.into_iter().map(|(name, vector)| (name, vector.clone())).collect()
    }

    fn contrasted(&self) -> Option<Contrasted<B>> {
        self.projected.as_ref().map(|projected| projected.vectors.clone())
    }

    /// The three task terms, equations 1 to 4, and their weighted sum (equation 5).
    fn losses(&self, contrasted: Option<Contrasted<B>>, targets: &Targets, loss: &LossConfig) -> Terms<B> {
        let task = |name, logits: &Tensor<B, 2>| Term::mean(name, 1.0, cross_entropy(logits.clone(), targets));
        let mut others = vec![task("task_speech", &self.logits_speech), task("task_fusion", &self.logits_fusion)];
        if let Some(projected) = &self.projected {
            let vectors = contrasted.unwrap_or_else(|| projected.vectors.clone());
            let semantic = contrastive(vectors.speech_invariant, vectors.text_invariant, loss);
            let modality = -contrastive(vectors.speech_specific, vectors.text_specific, loss);
            let reconstructed = (reconstruction(self.speech.clone(), projected.speech_reconstructed.clone(), loss)
                + reconstruction(self.text.clone(), projected.text_reconstructed.clone(), loss))
                * 0.5;
            others.extend([
                Term::contrast("semantic", loss.semantic, semantic),
                Term::contrast("modality", loss.modality, modality),
                Term::mean("reconstruction", loss.reconstruction, reconstructed),
            ]);
        }
        let apart = |logits: &Tensor<B, 2>| divergence(self.logits_fusion.clone(), logits.clone(), loss);
        others.push(Term::mean("kl", loss.kl, apart(&self.logits_text) + apart(&self.logits_speech)));
        Terms::sum(task("task_text", &self.logits_text), others)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};
    use crate::loss::samples::{Train, VALUE_TOLERANCE, assert_close, gradients, matrix, speech, text, value};

    const LABELS: [usize; 4] = [2, 0, 3, 1];

    #[test]
    fn without_projections_it_gives_the_reference() {
        fixtures::holds::<Clasp<fixtures::Train>>("raw-fusion");
    }

    #[test]
    fn awkward_vectors_give_finite_values_and_gradients() {
        let options = ClaspOptions::published(ModelSizes { hidden: 8, attention_heads: 2, vocabulary: 11 });
        fixtures::stays_finite_with::<Clasp<fixtures::Train>>(&options);
        fixtures::stays_finite_with::<Clasp<fixtures::Train>>(&ClaspOptions { vectors: FusionVectors::Raw, ..options });
    }

    fn projected() -> Projected<Train> {
        let vectors = Contrasted {
            text_invariant: text(6),
            speech_invariant: speech(6),
            text_specific: text(6),
            speech_specific: speech(6) * 3.0,
        };
        Projected { vectors, text_reconstructed: text(6), speech_reconstructed: speech(6) * 0.5 }
    }

    /// Every loss term of it is worked out in the tests of [`crate::loss`].
    fn output() -> ClaspOutput<Train> {
        ClaspOutput {
            text: speech(6),
            speech: text(6),
            projected: Some(projected()),
            fused: speech(6),
            logits_text: text(4),
            logits_speech: speech(4) * 2.0,
            logits_fusion: speech(4),
        }
    }

    /// The total, then the terms.
    fn terms(output: &ClaspOutput<Train>, config: &LossConfig) -> Vec<f64> {
        let terms = output.losses(None, &Targets::new(&LABELS, 4, &[], 0.0), config);
        std::iter::once(terms.total).chain(terms.named.into_iter().map(|(_, term)| term)).map(value).collect()
    }

    /// The terms in the order of `ClaspOptions::TERMS`: numpy, the cross-entropies also by torch.
    const EXPECTED: [f64; 7] =
        [1.473_212_407, 1.897_036_991, 1.552_036_758, 15.613_413_528, -15.613_413_528, 1.219_723_021, 0.407_056_233];

    #[test]
    fn the_total_is_the_weighted_sum_of_the_terms() {
        let terms_of = output().losses(None, &Targets::new(&LABELS, 4, &[], 0.0), &LossConfig::default());
        let names: Vec<_> = terms_of.named.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["task_text", "task_speech", "task_fusion", "semantic", "modality", "reconstruction", "kl"]);
        let others = LossConfig { semantic: 0.5, modality: 2.0, reconstruction: 3.0, kl: 5.0, ..LossConfig::default() };
        for (config, weights) in [(LossConfig::default(), [0.01, 0.01, 0.01, 0.05]), (others, [0.5, 2.0, 3.0, 5.0])] {
            let found = terms(&output(), &config);
            assert_eq!(found.len(), 8);
            for (found, expected) in found[1..].iter().zip(EXPECTED) {
                assert_close(*found, expected, VALUE_TOLERANCE);
            }
            let tasks: f64 = EXPECTED[..3].iter().sum();
            let weighted: f64 = EXPECTED[3..].iter().zip(weights).map(|(term, weight)| term * weight).sum();
            assert_close(found[0], tasks + weighted, VALUE_TOLERANCE);
        }
    }

    #[test]
    fn each_term_reads_its_own_tensors() {
        let expected = terms(&output(), &LossConfig::default());
        let zero = || matrix(4, 6, |_, _| 0.0);
        let even = || matrix(4, 4, |_, _| 0.0);
        let with = |projected| ClaspOutput { projected: Some(projected), ..output() };
        let vectors = || projected().vectors;
        let invariant = with(Projected { vectors: Contrasted { text_invariant: zero(), ..vectors() }, ..projected() });
        let specific = with(Projected { vectors: Contrasted { speech_specific: zero(), ..vectors() }, ..projected() });
        let reconstructed = with(Projected { text_reconstructed: zero(), ..projected() });
        let logits_text = ClaspOutput { logits_text: even(), ..output() };
        let logits_speech = ClaspOutput { logits_speech: even(), ..output() };
        let logits_fusion = ClaspOutput { logits_fusion: even(), ..output() };
        let fused = ClaspOutput { fused: zero(), ..output() };
        // Numbers as in `EXPECTED`.
        for (changed, wanted) in [
            (invariant, &[3][..]),
            (specific, &[4]),
            (reconstructed, &[5]),
            (logits_text, &[0, 6]),
            (logits_speech, &[1, 6]),
            (logits_fusion, &[2, 6]),
            (fused, &[]),
        ] {
            let found = terms(&changed, &LossConfig::default());
            let moved: Vec<usize> =
                (0..7).filter(|&term| (found[term + 1] - expected[term + 1]).abs() > 1e-3).collect();
            assert_eq!(moved, wanted);
        }
    }

    /// Identical vectors, zeros, certain and wrong logits, each also as a batch of one.
    #[test]
    fn every_term_and_gradient_is_finite_for_awkward_output() {
        for batch in [4, 1] {
            for (vector, logit) in [(0.0, 1e4), (1.0, -1e4), (1e-15, 0.0), (-1e3, 1e4)] {
                let vectors: Vec<_> = (0..9).map(|_| matrix(batch, 6, |_, _| vector)).collect();
                // Each classifier is sure of another label in each row.
                let logits: Vec<_> = [0.0, 1.0, 2.0]
                    .into_iter()
                    .map(|shift| matrix(batch, 4, move |i, j| if (i + j + shift) % 4.0 < 1.0 { logit } else { -logit }))
                    .collect();
                let output = ClaspOutput {
                    text: vectors[0].clone(),
                    speech: vectors[1].clone(),
                    projected: Some(Projected {
                        vectors: Contrasted {
                            text_invariant: vectors[2].clone(),
                            speech_invariant: vectors[3].clone(),
                            text_specific: vectors[4].clone(),
                            speech_specific: vectors[5].clone(),
                        },
                        text_reconstructed: vectors[6].clone(),
                        speech_reconstructed: vectors[7].clone(),
                    }),
                    fused: vectors[8].clone(),
                    logits_text: logits[0].clone(),
                    logits_speech: logits[1].clone(),
                    logits_fusion: logits[2].clone(),
                };
                let targets = Targets::new(&LABELS[..batch], 4, &[], 0.0);
                let terms = output.losses(None, &targets, &LossConfig::default());
                let total = terms.total.clone();
                for (name, term) in std::iter::once(("total", terms.total)).chain(terms.named) {
                    let found = value(term);
                    assert!(found.is_finite(), "{name} is {found}");
                    if batch == 1 && ["semantic", "modality"].contains(&name) {
                        assert!(found.abs() <= 0.0, "{name} is {found}");
                    }
                }
                let all: Vec<&Tensor<Train, 2>> = vectors.iter().chain(&logits).collect();
                let all: [&Tensor<Train, 2>; 12] = all.try_into().unwrap();
                for gradient in gradients(&total, all).into_iter().flatten() {
                    assert!(gradient.iter().all(|element| element.is_finite()), "{gradient:?}");
                }
            }
        }
    }
}
