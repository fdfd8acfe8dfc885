//! A trained model at work: [`pass`] takes a model over a data set, [`predictor`] a checkpoint over rows that may lack a
//! modality.

pub mod pass;
pub mod predictor;
