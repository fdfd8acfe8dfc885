//! The tokenizer against Hugging Face's `RobertaTokenizerFast` on the texts of `scripts/make_fixtures.py`: accents,
//! emoji, other scripts, spaces, contractions, special tokens. Needs the published files in `CLASP_TEST_DATA`.

use std::collections::BTreeMap;

use clasp::data::text::Tokenizer;
use serde_json::json;

use crate::test_data::test_data;

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../fixtures/tokenizer.json")).unwrap()
}

/// The published files.
const PUBLISHED: &str = "roberta-bpe";

fn give_the_ids_of_hugging_face(tokenizer: &Tokenizer) {
    let cases = cases();
    assert!(cases.len() > 80, "only {} texts", cases.len());
    for Case { text, ids } in cases {
        let found = tokenizer.encode(&text, 512).unwrap();
        assert_eq!((found.ids, found.was_cut), (ids, false), "{text:?}");
    }
}

#[test]
fn tokenizer_json_gives_the_ids_of_hugging_face() {
    let Some(folder) = test_data(PUBLISHED) else { return };
    give_the_ids_of_hugging_face(&Tokenizer::load(&folder).unwrap());
}

#[test]
fn vocabulary_and_merges_give_the_ids_of_hugging_face() {
    let Some(folder) = test_data(PUBLISHED) else { return };
    let parts = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(folder.join(name), parts.path().join(name)).unwrap();
    }
    give_the_ids_of_hugging_face(&Tokenizer::load(parts.path()).unwrap());
}

/// What is cut is the words: `</s>` stays the last token.
#[test]
fn truncation_keeps_the_end() {
    let Some(folder) = test_data(PUBLISHED) else { return };
    let tokenizer = Tokenizer::load(&folder).unwrap();
    for Case { text, ids } in cases() {
        for room in 2..12 {
            let found = tokenizer.encode(&text, room).unwrap();
            let expected: Vec<u32> = if ids.len() <= room { ids.clone() } else { [&ids[..room - 1], &[2]].concat() };
            assert_eq!((found.ids, found.was_cut), (expected, ids.len() > room), "{text:?} in {room} tokens");
        }
    }
}

/// What lies beside a vocabulary, as `scripts/make_tokenizer_parts.py` wrote it, with the ids that transformers gives.
#[derive(serde::Deserialize)]
struct Parts {
    vocab: serde_json::Value,
    merges: String,
    cases: Vec<PartsCase>,
}

#[derive(serde::Deserialize)]
struct PartsCase {
    name: String,
    beside: BTreeMap<String, serde_json::Value>,
    size: usize,
    ids: Vec<(String, Vec<u32>)>,
}

fn parts() -> Parts {
    serde_json::from_str(include_str!("../fixtures/tokenizer-parts.json")).unwrap()
}

/// A folder with the vocabulary and merges and these files.
fn folder_of(parts: &Parts, beside: &BTreeMap<String, serde_json::Value>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("vocab.json", &parts.vocab.to_string());
    write("merges.txt", &parts.merges);
    for (name, value) in beside {
        write(name, &value.to_string());
    }
    folder
}

#[test]
fn what_lies_beside_a_vocabulary_gives_the_ids_of_transformers() {
    let parts = parts();
    assert!(parts.cases.len() > 6);
    for case in &parts.cases {
        let folder = folder_of(&parts, &case.beside);
        let loaded = Tokenizer::load(folder.path()).unwrap();
        // What a checkpoint has of it gives the same, as a whole and in parts.
        let saved = tempfile::tempdir().unwrap();
        loaded.save(saved.path(), 512).unwrap();
        let whole = Tokenizer::load(saved.path()).unwrap();
        std::fs::remove_file(saved.path().join("tokenizer.json")).unwrap();
        let again = Tokenizer::load(saved.path()).unwrap();
        for (form, tokenizer) in [("published", loaded), ("saved", whole), ("saved in parts", again)] {
            assert_eq!(tokenizer.vocab_size(), case.size, "{}, {form}", case.name);
            for (text, ids) in &case.ids {
                assert_eq!(&tokenizer.encode(text, 512).unwrap().ids, ids, "{}, {form}: {text:?}", case.name);
            }
        }
    }
}

#[test]
fn what_would_give_other_ids_and_is_not_done_here_is_refused() {
    let parts = parts();
    let size = parts.vocab.as_object().unwrap().len();
    for (file, value, words) in [
        ("tokenizer_config.json", json!({"tokenizer_class": "GPT2Tokenizer"}), "tokenizer_class = \"GPT2Tokenizer\""),
        ("tokenizer_config.json", json!({"truncation_side": "left"}), "truncation_side = \"left\""),
        ("tokenizer_config.json", json!({"split_special_tokens": true}), "split_special_tokens = true"),
        ("tokenizer_config.json", json!({"add_prefix_space": "yes"}), "add_prefix_space = \"yes\""),
        ("tokenizer_config.json", json!({"cls_token": "[CLS]"}), "cls_token = \"[CLS]\""),
        ("special_tokens_map.json", json!({"pad_token": {"content": "[PAD]"}}), "pad_token"),
        ("added_tokens.json", json!({"[laugh]": size + 1}), "is said to have the id"),
        ("added_tokens.json", json!({"the": size}), "is said to have the id"),
        ("added_tokens.json", json!({"[laugh]": "x"}), "has no number"),
        ("added_tokens.json", json!(["[laugh]"]), "invalid type"),
    ] {
        let folder = folder_of(&parts, &[(file.to_owned(), value.clone())].into());
        let message = Tokenizer::load(folder.path()).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(file.split('_').next().unwrap()) && message.contains(words), "{value}: {message}");
    }
    // tokenizer.json says the opposite, and its class is not one that transformers changes.
    let folder = folder_of(&parts, &BTreeMap::new());
    Tokenizer::load(folder.path()).unwrap().save(folder.path(), 512).unwrap();
    let write = |class: &str| {
        let config = json!({"tokenizer_class": class, "add_prefix_space": true});
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        Tokenizer::load(folder.path())
    };
    assert!(write("PreTrainedTokenizerFast").unwrap_err().to_string().contains("what tokenizer.json says"));
    let spaced = folder_of(&parts, &[("tokenizer_config.json".to_owned(), json!({"add_prefix_space": true}))].into());
    let spaced = Tokenizer::load(spaced.path()).unwrap().encode("the lamp", 512).unwrap();
    assert_eq!(write("RobertaTokenizer").unwrap().encode("the lamp", 512).unwrap(), spaced);
}
