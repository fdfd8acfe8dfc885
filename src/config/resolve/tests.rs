//! Tests of the resolver: every built-in config, every key, the rules between keys, paths, the round trip.

use std::path::Path;

use super::super::FeaturePrecision;
use super::super::builtin::BUILT_IN;
use super::super::{EncoderMap, TokenizerSource};
use super::super::{parse, table, validate};
use super::*;
use crate::encoder::speech;
use crate::keys::{Key, Kind, Preset};

const BASE: &str = "/base";
const LOADED: &str = "[data]\ntrain = 'train.jsonl'\ndev = 'dev.jsonl'\ntest = '/t/test.jsonl'\n\
    [text]\ncheckpoint = 'models/roberta'\n[speech]\ncheckpoint = 'models/wav2vec2'\n";
/// Ends in the section `[speech]`.
const CACHED: &str = "[data]\ntrain = 'train.jsonl'\n[text]\ncheckpoint = 'models/roberta'\n\
    [speech]\ncheckpoint = 'models/wav2vec2'\nfeature_cache = 'features'\n";
const FRESH: &str = "[data]\ntrain = 'train.jsonl'\ndev = 'dev.jsonl'\ntest = 'test.jsonl'\n\
    [text]\ntokenizer = 'train'\n[text.config]\nmax_position_embeddings = 600\n[speech.config]\n";
const INITIAL: &str = "[data]\ntrain = 'train.jsonl'\n[train]\ninit = 'runs/first/best'\n";

fn load(text: &str, overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|&assignment| assignment.to_owned()).collect();
    parse("x.toml", text, &overrides, &Surroundings::plain(Path::new(BASE)))
}

fn lines(result: Result<Config, ConfigError>) -> Vec<String> {
    result.unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[track_caller]
fn one_problem(text: &str, overrides: &[&str], message: &str) {
    assert_eq!(lines(load(text, overrides)), [message]);
}

#[test]
fn every_built_in_config_resolves_and_survives_the_round_trip() {
    for config in BUILT_IN {
        let resolved = load(config.text, &[]).unwrap_or_else(|error| panic!("{}: {error}", config.name));
        let text = resolved.to_toml();
        let elsewhere = Surroundings::plain(Path::new("/elsewhere"));
        assert_eq!(parse("config.toml", &text, &[], &elsewhere).unwrap(), resolved, "{text}");
        assert_eq!(resolved.to_toml(), text);
    }
}

#[test]
fn other_configs_survive_the_round_trip() {
    let settings: &[(&str, &[&str])] = &[
        (LOADED, &[]),
        (LOADED, &["model.dropout=0", "speech.config.layerdrop=0", "speech.config.mask_time_prob=0"]),
        (LOADED, &["model.ablation=no-multi-head", "train.clip_norm=1", "train.patience=3", "train.batch_seconds=60"]),
        (LOADED, &["model.fusion.kind=attention", "model.ablation=no-contrastive", "run.device=cuda:0,1"]),
        (FRESH, &["model.dropout=0.25", "train.seed=9223372036854775807", "train.learning_rate=3e-5"]),
        (CACHED, &[]),
        (CACHED, &["speech.feature_cache_precision=f16", "speech.feature_cache_gib=0.5"]),
        (INITIAL, &["model.dropout=0.1", "loss.kl=0.30000000000000004", "model.ablation=no-multi-head"]),
        (INITIAL, &["speech.config.layerdrop=0.1", "data.labels=[\"a \\\"b\\\"\", 'c\\d', 'é\u{1F600}']"]),
    ];
    for (text, overrides) in settings {
        let resolved = load(text, overrides).unwrap();
        let again = resolved.to_toml();
        let elsewhere = Surroundings::plain(Path::new("/elsewhere"));
        assert_eq!(parse("config.toml", &again, &[], &elsewhere).unwrap(), resolved, "{again}");
    }
}

#[test]
fn the_paper_configs_state_the_paper_settings() {
    for name in ["iemocap4.toml", "slurp.toml", "mist.toml"] {
        let config = load(BUILT_IN.iter().find(|config| config.name == name).unwrap().text, &[]).unwrap();
        // Appendix A of the paper: batch 4, 25 epochs, Adam 1e-5, the weights 0.01, 0.01, 0.01 and 0.05.
        assert_eq!((config.train.batch_size, config.train.epochs), (4, 25));
        assert_eq!(config.loss, LossConfig::default());
        assert!((config.train.learning_rate - 1e-5).abs() < 1e-18);
        assert!((config.train.encoder_learning_rate - 1e-5).abs() < 1e-18);
        assert!(
            config.train.clip_norm.0.is_none()
                && config.train.patience.0.is_none()
                && config.speech.freeze_feature_encoder == Some(true)
        );
        assert_eq!(config.model.options["layers"], 4);
    }
    let slurp = load(BUILT_IN.get(2).unwrap().text, &[]).unwrap();
    assert_eq!(slurp.data.labels.map(|labels| labels.len()), Some(60));
}

#[test]
fn the_demo_is_fresh_and_settled() {
    let config = load(BUILT_IN.first().unwrap().text, &[]).unwrap();
    assert_eq!(
        config.data.source,
        DataSource::Demo { utterances: 2400, seed: 1, folder: "/base/runs/demo/corpus".into() }
    );
    assert_eq!(config.data.max_tokens, Some(64));
    assert_eq!(config.model.hidden_size, Some(32));
    assert!(config.run.test_at_end && config.speech.freeze_feature_encoder == Some(false));
    let (EncoderSource::Fresh { config: text }, TokenizerSource::Train { vocab_size }) =
        (&config.text.source, &config.text.tokenizer)
    else {
        panic!("the demo loads nothing");
    };
    assert_eq!(text.get("vocab_size").unwrap().as_u64(), Some(*vocab_size as u64));
    assert_eq!(text.get("hidden_act").unwrap(), "gelu");
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let text = "[data]\ntrian = 'a'\nmax_seconds = -1\n[train]\nepochs = 0\nschedule = 'cosin'\nlearning_rate = nan\n\
                [loss]\nkl = '0.1'\n[modle]\nmethod = 'clasp'\n";
    let method = format!(
        "  --set model.method=mise: `model.method` must be one of {}, found \"mise\"; did you mean \"misa\"?",
        Method::WORDS.join(", ")
    );
    assert_eq!(
        lines(load(text, &["train.epoch=3", "run.device=gpu", "oops", "model.method=mise"])),
        [
            "x.toml has 14 problems:",
            "  x.toml:2: unknown key `data.trian`; did you mean `data.train`?",
            "  x.toml:3: `data.max_seconds` must be a number of at least 0.025 (one frame of speech), found -1",
            "  x.toml:5: `train.epochs` must be a whole number of at least 1, found 0",
            "  x.toml:6: `train.schedule` must be one of constant, linear, cosine, found \"cosin\"; did you mean \"cosine\"?",
            "  x.toml:7: `train.learning_rate` must be a number above 0, found nan",
            "  x.toml:9: `loss.kl` must be a number of 0 or more, found \"0.1\"",
            "  x.toml:10: unknown key `modle`; did you mean `model`?",
            method.as_str(),
            "  --set oops: expected key.path=value, as in --set train.epochs=3",
            "  --set run.device=gpu: `run.device` must be one of auto, cpu, cuda, cuda:N, or several as in cuda:0,1, found \"gpu\"",
            "  --set train.epoch=3: unknown key `train.epoch`; did you mean `train.epochs`?",
            "  x.toml: `data.train` is missing: the manifest to train on (or a [data.demo] table: the program makes a corpus)",
            "  x.toml: `speech.checkpoint` is missing: a folder or a hub id (or a [speech.config] table: fresh weights; or \
             train.init)",
            "  x.toml: `text.checkpoint` is missing: a folder or a hub id (or a [text.config] table: fresh weights; or \
             train.init)",
        ]
    );
}

#[test]
fn one_problem_is_one_line() {
    one_problem(
        LOADED,
        &["train.epoch=3"],
        "--set train.epoch=3: unknown key `train.epoch`; did you mean `train.epochs`?",
    );
    one_problem(
        &format!("{LOADED}[run]\nprecision = 'f16'\n"),
        &[],
        "x.toml:10: `run.precision` must be one of f32, bf16, found \"f16\"; did you mean \"bf16\"?",
    );
}

#[test]
fn a_flag_repairs_what_the_file_has_wrong() {
    let text = format!("{LOADED}[train]\nepochs = 0\n");
    assert_eq!(load(&text, &["train.epochs=2", "train.epochs=3"]).unwrap().train.epochs, 3);
    let config = load(LOADED, &["model.fusion={layers=2, dropout=0}"]).unwrap();
    assert_eq!(config.model.options["layers"], 2);
}

#[test]
fn paths_are_absolute() {
    let mut surroundings = Surroundings::plain(Path::new("/base"));
    surroundings.current_folder = "/here".into();
    let config = parse("x.toml", LOADED, &[], &surroundings).unwrap();
    let DataSource::Manifests { train, dev, test } = config.data.source else { panic!("manifests") };
    assert_eq!((train, dev), ("/base/train.jsonl".into(), Some("/base/dev.jsonl".into())));
    assert_eq!(test, Some("/t/test.jsonl".into()));
    assert_eq!(config.run.dir, Path::new("/here/runs/x"));
    assert_eq!(
        config.text.source,
        EncoderSource::Checkpoint { folder: "/base/models/roberta".into(), overrides: EncoderMap::new() }
    );
    assert_eq!(config.text.tokenizer, TokenizerSource::Folder("/base/models/roberta".into()));
    let initial = load(INITIAL, &[]).unwrap();
    assert_eq!(initial.train.init, Some("/base/runs/first/best".into()));
}

#[test]
fn an_existing_path_wins_over_a_hub_id() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("cache/models--org--model");
    std::fs::create_dir_all(model.join("refs")).unwrap();
    std::fs::create_dir_all(model.join("snapshots/1f2e")).unwrap();
    std::fs::write(model.join("refs/main"), "1f2e").unwrap();
    let mut surroundings = Surroundings::plain(folder.path());
    surroundings.hub_cache = folder.path().join("cache");
    let text = LOADED.replace("models/roberta", "org/model");
    let found = |config: Config| match config.text.source {
        EncoderSource::Checkpoint { folder, .. } => folder,
        other => panic!("{other:?}"),
    };
    let cached = parse("x.toml", &text, &[], &surroundings).unwrap();
    let again = parse("x.toml", &cached.to_toml(), &[], &Surroundings::plain(Path::new("/other"))).unwrap();
    assert_eq!(again, cached);
    assert_eq!(found(cached), model.join("snapshots/1f2e"));
    std::fs::create_dir_all(folder.path().join("org/model")).unwrap();
    assert_eq!(found(parse("x.toml", &text, &[], &surroundings).unwrap()), folder.path().join("org/model"));
}

#[test]
fn encoders_are_loaded_or_fresh_or_initial() {
    let both = format!("{LOADED}[text.config]\nhidden_size = 48\nhidden_dropout_prob = 0\n");
    one_problem(
        &both,
        &[],
        "x.toml:10: `text.config.hidden_size` is decided by the checkpoint of text.checkpoint: remove one of them",
    );
    let fresh = load(&both, &["text.checkpoint=", "text.tokenizer=train"]).unwrap();
    assert!(matches!(fresh.text.source, EncoderSource::Fresh { .. }));
    let overridden = load(LOADED, &["text.config.hidden_dropout_prob=0"]).unwrap();
    let EncoderSource::Checkpoint { overrides, .. } = overridden.text.source else { panic!("loaded") };
    assert_eq!(serde_json::to_string(&overrides).unwrap(), r#"{"hidden_dropout_prob":0.0}"#);
    // A checkpoint to start from decides, and what the config names for fresh starts is not read.
    let both = load(LOADED, &["train.init=runs/a/best", "speech.checkpoint="]).unwrap();
    let unread = Some("/base/models/roberta".into());
    assert_eq!(both.text.source, EncoderSource::Initial { overrides: EncoderMap::new(), unread });
    assert_eq!(both.speech.source, EncoderSource::Initial { overrides: EncoderMap::new(), unread: None });
    assert_eq!(both.text.tokenizer, TokenizerSource::Initial);
    assert_eq!(
        lines(load(INITIAL, &["text.tokenizer=tok", "text.vocab_size=300", "speech.config.hidden_size=3"])).len(),
        4
    );
    let initial = load(INITIAL, &[]).unwrap();
    assert_eq!((initial.text.pooling, initial.model.options), (None, EncoderMap::new()));
    assert_eq!(initial.speech.freeze_feature_encoder, None);
}

#[test]
fn tokenizers_fit_their_encoders() {
    for (text, overrides, message) in [
        (
            FRESH,
            &["text.tokenizer="][..],
            "x.toml: `text.tokenizer` is missing: fresh weights need one: a folder, or \"train\"",
        ),
        (
            LOADED,
            &["text.tokenizer=train"],
            "--set text.tokenizer=train: `text.tokenizer` is \"train\", but a loaded encoder needs the tokenizer it was \
             trained with: remove it",
        ),
        (
            LOADED,
            &["text.vocab_size=300"],
            "--set text.vocab_size=300: `text.vocab_size` is the size of a trained tokenizer: set tokenizer = \"train\", or \
             remove it",
        ),
        (
            FRESH,
            &["text.config.vocab_size=300", "text.vocab_size=400"],
            "--set text.config.vocab_size=300: `text.config.vocab_size` differs from text.vocab_size, 400: remove it, it \
             follows the tokenizer",
        ),
        (
            FRESH,
            &["text.config.vocab_size=260"],
            "--set text.config.vocab_size=260: `text.config.vocab_size` is too small for a trained tokenizer, which has \
             261 tokens at least (256 bytes and 5 special ones)",
        ),
        (
            FRESH,
            &["text.config.is_decoder=true"],
            "--set text.config.is_decoder=true: `text.config.is_decoder` = true is not available in this \
             version; available: false",
        ),
    ] {
        one_problem(text, overrides, message);
    }
    for (overrides, size) in [
        (&[][..], 1000),
        (&["text.config.vocab_size=512"], 512),
        (&["text.vocab_size=512"], 512),
        (&["text.config.vocab_size=512", "text.vocab_size=512"], 512),
    ] {
        let config = load(FRESH, overrides).unwrap();
        assert_eq!(config.text.tokenizer, TokenizerSource::Train { vocab_size: size }, "{overrides:?}");
        let EncoderSource::Fresh { config } = config.text.source else { panic!("fresh") };
        assert_eq!(config["vocab_size"], size);
    }
}

#[test]
fn rules_between_keys() {
    for (text, overrides, part) in [
        (
            LOADED,
            &["data.demo.seed=2", "data.dev=", "data.test="][..],
            "`data.train` and [data.demo] exclude each other",
        ),
        (LOADED, &["data.test=", "run.test_at_end=true"], "there is no data.test to score"),
        (LOADED, &["data.dev=", "train.patience=3"], "there is no data.dev to judge by"),
        (FRESH, &["text.config.num_attention_heads=7", "speech.config.hidden_size=768"], "does not divide text.config"),
        (FRESH, &["speech.config.num_conv_pos_embedding_groups=7"], "does not divide speech.config.hidden_size, 768"),
        (FRESH, &["speech.config.conv_kernel=[3]"], "has 1 entries, but conv_dim has 7"),
        (FRESH, &["speech.config.add_adapter=true"], "not available in this version"),
        (FRESH, &["text.config.hidden_act=relu"], "must be one of gelu, found \"relu\""),
        (FRESH, &["text.config.pad_token_id=599"], "too few for any text"),
        (FRESH, &["model.fusion.split_heads=7"], "which does not divide the model's hidden_size, 768"),
        (FRESH, &["model.fusion.attention_heads=7"], "which does not divide the fusion's hidden_size, 768"),
        (FRESH, &["data.max_tokens=599"], "set it to 598"),
        (FRESH, &["speech.freeze_layers=13"], "the encoder has 12 layers"),
        (LOADED, &["model.dropout=0", "model.fusion.dropout=0.2"], "both on the command line"),
        (LOADED, &["model.dropout=0", "speech.config.hidden_dropout=0.2"], "both on the command line"),
        (LOADED, &["model.ablation=no-kl", "loss.kl=0.2"], "takes this term out"),
        (CACHED, &["speech.freeze_feature_encoder=false"], "but they train: set speech.freeze_feature_encoder = true"),
        (
            FRESH,
            &["speech.feature_cache=features"],
            "`speech.feature_cache` keeps what the convolutions make of speech",
        ),
        (LOADED, &["speech.feature_cache_gib=3"], "there is no speech.feature_cache: set it"),
        (
            LOADED,
            &["model.method=text", "speech.feature_cache=features"],
            "is of wav2vec 2.0, which model.method = text does not read",
        ),
        (LOADED, &["model.ablation=no-multi-head", "model.fusion.kind=multi_head"], "remove one of them"),
    ] {
        let found = lines(load(text, overrides));
        assert!(found.len() == 1 && found.iter().all(|line| line.contains(part)), "{overrides:?}: {found:?}");
    }
}

#[test]
fn a_feature_cache_needs_convolutions_that_stay() {
    let cache = load(CACHED, &["speech.feature_cache_gib=0.5"]).unwrap().speech.feature_cache.unwrap();
    assert_eq!((cache.folder.as_path(), cache.bytes()), (Path::new("/base/features"), 1 << 29));
    assert_eq!(cache.precision, FeaturePrecision::F32);
    for flags in [&["speech.freeze=true"][..], &["speech.freeze_layers=1"], &["speech.freeze_feature_encoder=true"]] {
        let config = load(FRESH, &[flags, &["speech.feature_cache=/features"]].concat()).unwrap();
        assert_eq!(config.speech.feature_cache.unwrap().folder, Path::new("/features"));
    }
    // Of a method that does not read speech, or without the cache, a file's keys are left alone.
    let text = format!("{CACHED}feature_cache_precision = 'f16'\n");
    assert_eq!(load(&text, &["model.method=text"]).unwrap().speech.feature_cache, None);
    assert_eq!(load(&text, &["speech.feature_cache="]).unwrap().speech.feature_cache, None);
}

#[test]
fn a_rejected_value_makes_no_second_problem() {
    one_problem(
        FRESH,
        &["text.config.hidden_size=0", "text.config.num_attention_heads=5"],
        "--set text.config.hidden_size=0: `text.config.hidden_size` must be a whole number of at least 1, found 0",
    );
    one_problem(LOADED, &["data.train=[1]"], "--set data.train=[1]: `data.train` must be a string (a path), found [1]");
}

#[test]
fn no_text_panics_and_every_accepted_value_survives_the_round_trip() {
    for config in BUILT_IN {
        for (end, _) in config.text.char_indices().step_by(61) {
            let _ = load(&config.text[..end], &[]);
        }
    }
    for key in table::all() {
        for value in
            ["", "0", "-1", "1e400", "9223372036854775807", "[]", "{}", "[[1]]", "nan", "x", "1979-05-27", "\u{0}"]
        {
            for text in [FRESH, LOADED, INITIAL] {
                if let Ok(config) = load(text, &[&format!("{}={value}", key.path)]) {
                    assert_eq!(load(&config.to_toml(), &[]).unwrap(), config, "{}={value}", key.path);
                }
            }
        }
    }
}

#[test]
fn ablations_are_loss_weights_and_fusion_kinds() {
    let weights = |ablation: &str| {
        let loss = load(LOADED, &[&format!("model.ablation={ablation}")]).unwrap().loss;
        [loss.semantic, loss.modality, loss.reconstruction, loss.kl].map(|weight| weight > 0.0)
    };
    assert_eq!(weights("none"), [true; 4]);
    assert_eq!(weights("no-semantic"), [false, true, true, true]);
    assert_eq!(weights("no-modality"), [true, false, true, true]);
    assert_eq!(weights("no-contrastive"), [false, false, true, true]);
    assert_eq!(weights("no-reconstruction"), [true, true, false, true]);
    assert_eq!(weights("no-kl"), [true, true, true, false]);
    assert_eq!(weights("no-multi-head"), [true; 4]);
    assert_eq!(weights("raw-only"), [false, false, false, true]);
    let demo = load(BUILT_IN.first().unwrap().text, &["model.ablation=no-multi-head"]).unwrap().model.options;
    let expected = serde_json::json!({
        "kind": "attention",
        "split_heads": 1,
        "hidden_size": 32,
        "layers": 1,
        "attention_heads": 2,
        "feed_forward": 64,
        "dropout": 0.1,
        "slot_embeddings": false,
    });
    assert_eq!(serde_json::Value::Object(demo), expected);
}

const TEXT: &str = "[data]\ntrain = 'train.jsonl'\n[text]\ncheckpoint = 'models/roberta'\n[model]\nmethod = 'text'\n";
const SPEECH: &str =
    "[data]\ntrain = 'train.jsonl'\n[speech]\ncheckpoint = 'models/wav2vec2'\n[model]\nmethod = 'speech'\n";

#[test]
fn a_method_needs_the_encoders_that_it_reads_and_leaves_the_other_alone() {
    let text = load(TEXT, &[]).unwrap();
    assert_eq!((&text.speech.source, text.speech.freeze_feature_encoder), (&EncoderSource::Absent, Some(false)));
    let speech = load(SPEECH, &[]).unwrap();
    assert_eq!((&speech.text.source, &speech.text.tokenizer), (&EncoderSource::Absent, &TokenizerSource::Absent));
    // A file for both modalities serves methods that read one.
    for (method, section) in [("text", "[speech"), ("speech", "[text")] {
        let config = load(FRESH, &[&format!("model.method={method}")]).unwrap();
        assert!(!config.to_toml().contains(section), "{}", config.to_toml());
        assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
        assert_eq!(config.model.hidden_size, Some(768));
        assert_eq!(config.data.max_tokens.is_some(), method == "text");
    }
    one_problem(
        &SPEECH.replace("'speech'", "'misa'"),
        &[],
        "x.toml: `text.checkpoint` is missing: a folder or a hub id (or a [text.config] table: fresh weights; or train.init)",
    );
}

#[test]
fn a_method_has_its_own_options_as_published() {
    let options = |method: &str, more: &[&str]| {
        let config = load(FRESH, &[&[format!("model.method={method}").as_str()], more].concat()).unwrap();
        assert_eq!(load(&config.to_toml(), &[]).unwrap(), config, "{}", config.to_toml());
        assert!(!config.to_toml().contains("[model.fusion]") && !config.to_toml().contains("semantic"));
        serde_json::Value::Object(config.model.options)
    };
    // Every default of the table of keys is the published value; those that are open follow the text encoder.
    for method in Method::ALL {
        let settled = if *method == Method::Clasp { continue } else { options(method.word(), &[]) };
        for key in method.keys() {
            let found = settled.get(key.split().1).unwrap_or_else(|| panic!("{}", key.path));
            match key.preset {
                Preset::Value(value) => assert_eq!(*found, value(), "{}", key.path),
                // RoBERTa's heads, and the default of text.vocab_size.
                Preset::Depends(_) => {
                    let expected = if key.path.ends_with("vocab_size") { 1000 } else { 12 };
                    assert_eq!(*found, expected, "{}", key.path);
                }
            }
        }
        assert_eq!(settled.as_object().unwrap().len(), method.keys().len(), "{method} has an option without a key");
    }
    let misa = options("misa", &["model.misa.size=64", "model.misa.difference=1"]);
    assert_eq!((&misa["size"], &misa["difference"], &misa["similarity"]), (&64.into(), &1.0.into(), &1.0.into()));
    let without = options("lfmim", &["model.dropout=0"]);
    for name in ["input_dropout", "attention_dropout", "feed_forward_dropout"] {
        assert_eq!(without[name], 0.0, "{name}");
    }
}

#[test]
fn options_of_another_method_are_left_alone_in_a_file_and_refused_as_a_flag() {
    let text = format!("{FRESH}[model.misa]\nsize = 64\n[model.fusion]\nlayers = 2\n[loss]\nsemantic = 0.5\n");
    assert_eq!(load(&text, &["model.method=lmf"]).unwrap(), load(FRESH, &["model.method=lmf"]).unwrap());
    for (flags, part) in [
        (&["model.misa.size=64"][..], "`model.misa.size` is an option of misa, but model.method is clasp"),
        (&["model.method=lmf", "model.fusion.layers=2"], "`model.fusion.layers` is an option of clasp"),
        (&["model.method=lmf", "loss.kl=0.1"], "`loss.kl` is an option of clasp, but model.method is lmf"),
        (&["model.method=lmf", "model.ablation=no-kl"], "`model.ablation` leaves something out of the paper's system"),
        (&["model.method=misa", "model.misa.attention_heads=3"], "is 3, which does not divide model.misa.size, 128"),
        (&["model.method=lfmim", "model.lfmim.attention_heads=5"], "does not divide the model's hidden_size, 768"),
    ] {
        let lines = lines(load(FRESH, flags));
        assert!(lines.len() == 1 && lines[0].contains(part), "{lines:?}");
    }
    let config = load(FRESH, &["model.method=lmf", "loss.label_smoothing=0.1"]).unwrap();
    assert_eq!(config.loss, LossConfig { label_smoothing: 0.1, ..LossConfig::default() });
}

#[test]
fn model_dropout_sets_every_dropout() {
    let config = load(LOADED, &["model.dropout=0.3", "run.device=cpu"]).unwrap();
    assert_eq!((config.model.classifier_dropout, config.model.options["dropout"].as_f64()), (Some(0.3), Some(0.3)));
    for (source, expected) in [
        (config.text.source, r#"{"hidden_dropout_prob":0.3,"attention_probs_dropout_prob":0.3}"#),
        (
            config.speech.source,
            r#"{"hidden_dropout":0.3,"activation_dropout":0.3,"attention_dropout":0.3,"feat_proj_dropout":0.3}"#,
        ),
    ] {
        let EncoderSource::Checkpoint { overrides, .. } = source else { panic!("loaded") };
        assert_eq!(serde_json::to_string(&overrides).unwrap(), expected);
    }
}

#[test]
fn the_defaults_are_valid_and_those_of_a_config_that_sets_nothing() {
    let document = Document::parse("defaults", &super::super::render::defaults()).unwrap();
    assert_eq!(validate::validate(&document).problems, []);
    assert_eq!(load(LOADED, &[]).unwrap().loss, LossConfig::default());
}

#[test]
fn every_key_changes_the_config() {
    for key in table::all() {
        if let Some((text, overrides)) = probe(key) {
            let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
            let (changed, plain) = (load(&text, &overrides).unwrap(), load(&text, &[]).unwrap());
            assert_ne!(changed, plain, "{} changes nothing", key.path);
        }
    }
}

/// A config and a flag that sets the key to another value than it has; `None` if there is only one value.
fn probe(key: &Key) -> Option<(String, Vec<String>)> {
    let only = |value: &str| Some(vec![format!("{}={value}", key.path)]);
    let with = |other: &str, value: &str| Some(vec![other.to_owned(), format!("{}={value}", key.path)]);
    let demo = "[data.demo]\n[text]\ntokenizer = 'train'\n[text.config]\n[speech.config]\n";
    let text = match key.path {
        path if path.starts_with("data.demo") => demo,
        "text.checkpoint" | "speech.checkpoint" | "speech.feature_cache" => LOADED,
        path if path.starts_with("speech.feature_cache_") => CACHED,
        "train.init" => INITIAL,
        _ => FRESH,
    };
    let is_whisper = key.path.starts_with("speech.config.") && speech::KEYS[0].iter().all(|own| own.path != key.path);
    let whisper = FRESH.replace("[speech.config]\n", "[speech.config]\nmodel_type = 'whisper'\n");
    let text = if is_whisper { &whisper } else { text };
    let of_method = Method::ALL.iter().find(|method| method.keys().iter().any(|own| own.path == key.path));
    let text = of_method.map_or(text.to_owned(), |method| format!("{FRESH}[model]\nmethod = '{method}'\n"));
    let overrides = match (key.path, key.kind) {
        (
            "text.config.hidden_act"
            | "speech.config.hidden_act"
            | "speech.config.feat_extract_activation"
            | "speech.config.activation_function"
            | "speech.config.add_adapter"
            | "text.config.is_decoder"
            | "text.config.add_cross_attention"
            | "text.config.position_embedding_type",
            _,
        ) => None, // Only one value is available.
        ("speech.config.conv_kernel" | "speech.config.conv_dim" | "speech.config.conv_stride", _) => {
            only("[1, 1, 1, 1, 1, 1, 1]")
        }
        ("text.config.vocab_size", _) => with("text.tokenizer=folder", "300"),
        (
            "model.fusion.hidden_size"
            | "text.config.hidden_size"
            | "speech.config.hidden_size"
            | "speech.config.d_model",
            _,
        ) => only("96"),
        ("speech.config.encoder_attention_heads", _) => only("12"),
        ("model.hidden_size", _) => only("480"),
        ("model.misa.attention_heads" | "model.lrmp-arch.attention_heads", _) => only("4"),
        ("model.lrmp-arch.width", _) => only("24"),
        (path, _) if path.ends_with("heads") || path.ends_with("groups") => only("6"),
        ("text.config.max_position_embeddings", _) => only("300"),
        (_, Kind::Boolean) => {
            let is_on = matches!(key.preset, Preset::Value(value) if value() == true);
            only(if is_on { "false" } else { "true" })
        }
        (_, Kind::Integer(minimum, _)) => only(&(minimum + 5).to_string()),
        (_, Kind::Seed) => only("7"),
        (_, Kind::Number(_) | Kind::Dropout) => only("0.75"),
        (_, Kind::Choice(words)) => only(words.iter().rev().find(|word| !key.is_default(word))?),
        (_, Kind::File | Kind::Model | Kind::Folder) => only("somewhere/else"),
        (_, Kind::Devices) => only("cuda:3"),
        (_, Kind::Labels) => only("['b', 'a']"),
        (_, Kind::Layers) => only("mix"),
        (_, Kind::Integers) => None,
    };
    overrides.map(|overrides| (text, overrides))
}

impl Key {
    fn is_default(&self, word: &str) -> bool {
        match self.preset {
            Preset::Value(value) => value() == word,
            Preset::Depends(words) => words.contains(word),
        }
    }
}

/// No text and no flag panics, and what resolves survives the round trip.
#[test]
fn damaged_configs_are_errors_or_configs() {
    let goods =
        [LOADED, FRESH, INITIAL, "model.fusion.kind=attention", "train.learning_rate=3e-5", "data.labels=['a']"];
    crate::damage::each(&goods, 1_000, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = load(FRESH, &[&text]).map_err(|error| error.to_string());
        if let Ok(resolved) = load(&text, &[]) {
            let again = parse("config.toml", &resolved.to_toml(), &[], &Surroundings::plain(Path::new("/elsewhere")));
            assert_eq!(again.unwrap(), resolved);
        }
    });
}
