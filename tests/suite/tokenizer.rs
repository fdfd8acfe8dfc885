//! The tokenizer against Hugging Face's `RobertaTokenizerFast` on the texts of `scripts/make_fixtures.py`: accents,
//! emoji, other scripts, spaces, contractions, special tokens. Needs the published files in `CLASP_TEST_DATA`.

use clasp::data::text::Tokenizer;

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
