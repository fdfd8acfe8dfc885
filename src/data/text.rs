//! Loads published tokenizers (byte-level BPE as RoBERTa's, `WordPiece` as BERT's, and what else a `tokenizer.json` of these
//! families holds), trains small byte-level ones, and encodes with the truncation that keeps `</s>` (or `[SEP]`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::tokenizer_config::{ADDED_FILE, CONFIG_FILE, TokenizerConfig};
use super::{DataError, FileProblem, catch_panic};
use crate::files;

/// The file that holds everything.
const WHOLE_FILE: &str = "tokenizer.json";
/// Token to id.
const VOCABULARY_FILE: &str = "vocab.json";
/// The merges in the order of their rank.
const MERGES_FILE: &str = "merges.txt";
/// No tokenizer's file is longer: the largest published ones have 35 MB.
const LONGEST_FILE: u64 = 48 << 20;

/// All files of a tokenizer.
pub const FILES: [&str; 5] = [WHOLE_FILE, VOCABULARY_FILE, MERGES_FILE, CONFIG_FILE, ADDED_FILE];

/// The special tokens with the ids 0 to 3.
const FIRST_SPECIALS: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];
/// The fewest tokens that can be learned: the bytes and the special tokens.
pub const SMALLEST_VOCABULARY: usize = FIRST_SPECIALS.len() + 256 + 1;
/// Bytes of a long text that are read for each token that is kept.
const BYTES_A_TOKEN: usize = 64;
/// Bytes that are always read at once.
const SHORT_TEXT: usize = 1 << 14;
/// White space behind which no added token is looked for that would take it along.
const LONGEST_SPACE: usize = 1 << 18;
/// Letters of the longest word that is learned from as one.
const LONGEST_WORD: usize = 500;
/// The special token with the last id.
const MASK: &str = "<mask>";

/// The token ids of one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// `<s> … </s>`, at most `max_tokens` of them.
    pub ids: Vec<u32>,
    /// Whether tokens were left out.
    pub was_cut: bool,
}

/// A tokenizer with the special tokens of `RoBERTa` or BERT.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
    begin: u32,
    pad: u32,
    end: u32,
    /// The published `tokenizer_config.json`, kept for [`Tokenizer::save`].
    config: Option<String>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or `vocab.json` with `merges.txt`, from a folder, and what lies beside them.
    ///
    /// # Errors
    ///
    /// The files are missing, malformed, or without RoBERTa's special tokens.
    pub fn load(folder: &Path) -> Result<Self, DataError> {
        if !folder.is_dir() {
            let problem = if folder.exists() {
                FileProblem::Other("a folder is needed, this is a file".to_owned())
            } else {
                FileProblem::Missing
            };
            return Err(DataError::File { path: folder.to_path_buf(), problem });
        }
        let whole = folder.join(WHOLE_FILE);
        let (vocabulary, merges) = (folder.join(VOCABULARY_FILE), folder.join(MERGES_FILE));
        let is_whole = whole.exists();
        let (mut inner, source) = if is_whole {
            (inner_of(read(&whole)?, &whole)?, whole)
        } else {
            let missing = match (vocabulary.exists(), merges.exists()) {
                (true, true) => None,
                (true, false) => Some("merges.txt is"),
                (false, true) => Some("vocab.json is"),
                (false, false) => Some("all three are"),
            };
            if let Some(missing) = missing {
                return Err(DataError::NoTokenizer { folder: folder.to_path_buf(), missing });
            }
            (from_parts(folder, &vocabulary, &merges)?, folder.to_path_buf())
        };
        let config = TokenizerConfig::read(folder)?;
        config.apply(&mut inner, is_whole)?;
        Self::new(inner, config.text, &source)
    }

    /// Learns `vocab_size` tokens (special tokens and the 256 bytes included) from texts; the result depends on the
    /// texts and the size alone. A word of more than 500 letters counts as several.
    ///
    /// # Errors
    ///
    /// `vocab_size` is below [`SMALLEST_VOCABULARY`], or the trainer fails.
    pub fn train<Text: AsRef<str> + Sync>(texts: &[Text], vocab_size: usize) -> Result<Self, DataError> {
        let source = Path::new("the training text");
        let floor = SMALLEST_VOCABULARY;
        if vocab_size < floor {
            return Err(failed(source, &format!("a vocabulary of {vocab_size} is below {floor}, the bytes alone")));
        }
        let specials = FIRST_SPECIALS.iter().map(|token| AddedToken::from(*token, true)).collect();
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab_size - 1)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(specials)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut inner = Inner::new(BPE::default());
        inner.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)));
        inner
            .train(&mut TrainerWrapper::from(trainer), texts.iter().flat_map(|text| pieces(text.as_ref())))
            .map_err(|error| failed(source, &error))?;
        let model = model_of(&inner, source)?;
        let mut vocabulary = model.get("vocab").and_then(Value::as_object).cloned().unwrap_or_default();
        vocabulary.insert(MASK.to_owned(), vocabulary.len().into());
        let merges = model.get("merges").cloned().unwrap_or(Value::Null);
        Self::new(assemble(&vocabulary.into(), &merges, source)?, None, source)
    }

    /// Writes `tokenizer.json`, `vocab.json`, `merges.txt`, `added_tokens.json` where there are tokens behind the
    /// vocabulary, and `tokenizer_config.json`, the last as it was published, else with `max_tokens` as the longest text.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn save(&self, folder: &Path, max_tokens: usize) -> Result<(), DataError> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|error| DataError::write(&path, &error))
        };
        let whole = self.inner.to_string(false).map_err(|error| failed(folder, &error))?;
        write(WHOLE_FILE, &whole)?;
        let model = model_of(&self.inner, folder)?;
        if model.get("type").is_some_and(|kind| kind == "BPE") {
            let vocabulary = model.get("vocab").cloned().unwrap_or_default();
            write(VOCABULARY_FILE, &vocabulary.to_string())?;
            write(MERGES_FILE, &merges_of(&model))?;
            let behind = self.inner.get_added_tokens_decoder().into_iter();
            let behind = behind.filter(|(_, token)| vocabulary.get(&token.content).is_none());
            let added: BTreeMap<u32, String> = behind.map(|(id, token)| (id, token.content)).collect();
            if !added.is_empty() {
                let added: Map<String, Value> = added.into_iter().map(|(id, token)| (token, id.into())).collect();
                write(ADDED_FILE, &Value::from(added).to_string())?;
            }
        }
        match &self.config {
            Some(config) => write(CONFIG_FILE, config),
            None => write(CONFIG_FILE, &format!("{:#}\n", self.published_config(max_tokens))),
        }
    }

    /// What Hugging Face's loader needs to know of a tokenizer that came without it.
    fn published_config(&self, max_tokens: usize) -> Value {
        if self.inner.id_to_token(self.begin).is_some_and(|token| token == "[CLS]") {
            return json!({
                "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_tokens, "cls_token": "[CLS]",
                "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]",
            });
        }
        json!({
            "tokenizer_class": "RobertaTokenizer", "add_prefix_space": false, "model_max_length": max_tokens,
            "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
            "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": MASK,
        })
    }

    /// The number of tokens, special ones included: rows of the word embedding.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of `<pad>`.
    pub fn pad_token(&self) -> u32 {
        self.pad
    }

    /// The ids of a text as Hugging Face's `RobertaTokenizerFast` gives them with truncation to `max_tokens` (at least
    /// 2); an empty text is `<s></s>`.
    ///
    /// # Errors
    ///
    /// The tokenizer has no token for a part of the text (a vocabulary without all bytes).
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<Encoding, DataError> {
        let room = max_tokens.saturating_sub(2);
        // Of a long text only as much as is kept, and so much more that what follows makes no other tokens of that.
        let mut length = room.saturating_mul(BYTES_A_TOKEN).max(SHORT_TEXT);
        let (encoded, is_part) = loop {
            let part = beginning(text, length);
            let encoded = self.inner.encode_fast(part, false);
            let encoded = encoded.map_err(|error| failed(Path::new(WHOLE_FILE), &error))?;
            let is_part = part.len() < text.len();
            if !is_part || encoded.len() > room.saturating_add(room) {
                break (encoded, is_part);
            }
            length = length.saturating_mul(4);
        };
        let inner_ids = encoded.get_ids();
        let kept = &inner_ids[..inner_ids.len().min(room)];
        let mut ids = Vec::with_capacity(kept.len() + 2);
        ids.push(self.begin);
        ids.extend_from_slice(kept);
        ids.push(self.end);
        Ok(Encoding { ids, was_cut: is_part || kept.len() < inner_ids.len() })
    }

    fn new(mut inner: Inner, config: Option<String>, source: &Path) -> Result<Self, DataError> {
        // A published file may store how its maker once padded and cut; both are ours to decide.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| failed(source, &error))?;
        let id = |token: &str, in_bert: &str| {
            let found = inner.token_to_id(token).or_else(|| inner.token_to_id(in_bert));
            found.ok_or_else(|| failed(source, &format!("it has no token {token} (or {in_bert})")))
        };
        let (begin, pad, end) = (id("<s>", "[CLS]")?, id("<pad>", "[PAD]")?, id("</s>", "[SEP]")?);
        Ok(Self { inner, begin, pad, end, config })
    }
}

/// Reads a `tokenizer.json`. The reader panics on some that are damaged.
fn inner_of(whole: impl AsRef<[u8]>, source: &Path) -> Result<Inner, DataError> {
    match catch_panic::catch_panic(|| Inner::from_bytes(whole)) {
        Some(inner) => inner.map_err(|error| failed(source, &error)),
        None => Err(failed(source, "it is damaged")),
    }
}

/// The first bytes of a text, about as many as these: up to white space where that comes soon, so that no word is cut,
/// and without white space at the end, which may belong to an added token behind it.
fn beginning(text: &str, length: usize) -> &str {
    if text.len() <= length {
        return text;
    }
    let start = text.ceil_char_boundary(length);
    let end = text.ceil_char_boundary(length.saturating_add(SHORT_TEXT));
    let space = text[start..end].find(char::is_whitespace).map_or(start, |place| start + place);
    let trimmed = text[..space].trim_end();
    if space - trimmed.len() > LONGEST_SPACE { &text[..space] } else { trimmed }
}

/// A text in pieces without a longer run of letters, or of spaces, than is learned from: the time grows with the square
/// of its length.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let (mut run, mut was_space) = (0, false);
    for letter in text.chars() {
        run = if letter.is_whitespace() == was_space { run + 1 } else { 1 };
        was_space = letter.is_whitespace();
        if run > LONGEST_WORD {
            pieces.push(String::new());
            run = 1;
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(letter);
        }
    }
    pieces
}

/// The bytes of one of the files.
fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    files::read_bounded(path, LONGEST_FILE).map_err(|error| DataError::file(path, &error))
}

/// The text of one of the files.
pub(super) fn read_text(path: &Path) -> Result<String, DataError> {
    files::read_text(path, LONGEST_FILE).map_err(|error| DataError::file(path, &error))
}

pub(super) fn failed(path: &Path, error: &(impl ToString + ?Sized)) -> DataError {
    DataError::Tokenizer { path: path.to_path_buf(), reason: error.to_string().replace('\n', " ") }
}

fn model_of(inner: &Inner, source: &Path) -> Result<Value, DataError> {
    serde_json::to_value(inner.get_model()).map_err(|error| failed(source, &error))
}

/// The lines of `merges.txt`.
fn merges_of(model: &Value) -> String {
    let mut merges = "#version: 0.2\n".to_owned();
    for merge in model.get("merges").and_then(Value::as_array).into_iter().flatten() {
        let line = match merge {
            Value::String(line) => line.clone(),
            pair => [0, 1].map(|side| pair.get(side).and_then(Value::as_str).unwrap_or_default()).join(" "),
        };
        merges.push_str(&line);
        merges.push('\n');
    }
    merges
}

fn from_parts(folder: &Path, vocabulary: &Path, merges: &Path) -> Result<Inner, DataError> {
    let tokens: Value = serde_json::from_str(&read_text(vocabulary)?).map_err(|error| failed(vocabulary, &error))?;
    let mut pairs = Vec::new();
    for (at, line) in read_text(merges)?.lines().enumerate() {
        if line.is_empty() || (at == 0 && line.starts_with("#version")) {
            continue;
        }
        match line.split_once(' ') {
            Some((left, right)) => pairs.push(json!([left, right])),
            None => return Err(failed(merges, &format!("line {} is not two tokens", at + 1))),
        }
    }
    assemble(&tokens, &pairs.into(), folder)
}

/// RoBERTa's tokenizer out of its vocabulary and merges.
fn assemble(vocabulary: &Value, merges: &Value, source: &Path) -> Result<Inner, DataError> {
    let id = |token: &str| vocabulary.get(token).and_then(Value::as_u64);
    let mut added = Vec::new();
    for token in FIRST_SPECIALS.iter().chain([&MASK]) {
        let Some(id) = id(token) else {
            if *token == MASK || *token == "<unk>" {
                continue;
            }
            return Err(failed(source, &format!("the vocabulary has no token {token}")));
        };
        // `<mask>` takes the space before it along, as in RoBERTa's own tokenizer.
        added.push(json!({
            "id": id, "content": token, "special": true, "single_word": false, "lstrip": *token == MASK,
            "rstrip": false, "normalized": false,
        }));
    }
    let number = |token: &str| id(token).and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
    let processor = RobertaProcessing::new(("</s>".to_owned(), number("</s>")), ("<s>".to_owned(), number("<s>")))
        .trim_offsets(true)
        .add_prefix_space(false);
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": processor, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    });
    inner_of(whole.to_string(), source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::test_data;
    use std::time::Instant;

    const TEXTS: [&str; 4] =
        ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "Ünïcödé ☕ the the"];

    #[test]
    fn a_folder_that_cannot_be_written_is_the_disks_fault() {
        let tokenizer = Tokenizer::train(&TEXTS, 300).unwrap();
        let nowhere = tempfile::tempdir().unwrap().path().join("nowhere");
        let problem = tokenizer.save(&nowhere, 512).unwrap_err();
        assert!(matches!(problem, DataError::Write { .. }), "{problem}");
    }

    /// `0 31414 232 328 2` and `0 2` are what the tokenizer of RoBERTa-base is published to give.
    #[test]
    fn published_tokenizers_load_from_either_form() {
        let Some(folder) = test_data("roberta-bpe") else { return };
        let parts = tempfile::tempdir().unwrap();
        for name in [VOCABULARY_FILE, MERGES_FILE] {
            std::fs::copy(folder.join(name), parts.path().join(name)).unwrap();
        }
        for folder in [folder.as_path(), parts.path()] {
            let tokenizer = Tokenizer::load(folder).unwrap();
            assert_eq!(tokenizer.encode("Hello world!", 512).unwrap().ids, [0, 31_414, 232, 328, 2]);
            assert_eq!(tokenizer.encode("", 512).unwrap(), Encoding { ids: vec![0, 2], was_cut: false });
            let cut = tokenizer.encode("Hello world!", 4).unwrap();
            assert_eq!(cut, Encoding { ids: vec![0, 31_414, 232, 2], was_cut: true });
            assert_eq!(tokenizer.encode("Hello <mask>!</s>", 512).unwrap().ids, [0, 31_414, 50_264, 328, 2, 2]);
            assert_eq!((tokenizer.vocab_size(), tokenizer.pad_token()), (50_265, 1));
        }
    }

    /// By hand: lower case, then the longest pieces of the vocabulary from the left.
    #[test]
    fn a_tokenizer_of_bert_has_its_own_special_tokens() {
        let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let tokens = specials.into_iter().chain(["hello", "wor", "##ld", "!"]);
        let vocabulary: serde_json::Map<String, Value> =
            tokens.enumerate().map(|(id, token)| (token.to_owned(), id.into())).collect();
        let added: Vec<Value> = (0..)
            .zip(specials)
            .map(|(id, token)| {
                json!({"id": id, "content": token, "special": true, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false})
            })
            .collect();
        let whole = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary},
        });
        let (folder, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join(WHOLE_FILE), whole.to_string()).unwrap();
        // transformers 5.24 on the same files: its classes of BERT take this from the config, the general one does not.
        let beside = folder.path().join(CONFIG_FILE);
        for (config, ids) in [
            (json!({"tokenizer_class": "BertTokenizer", "do_lower_case": false}), &[2, 1, 6, 7, 8, 3][..]),
            (json!({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": false}), &[2, 5, 6, 7, 8, 3]),
        ] {
            std::fs::write(&beside, config.to_string()).unwrap();
            let tokenizer = Tokenizer::load(folder.path()).unwrap();
            tokenizer.save(again.path(), 512).unwrap();
            for tokenizer in [tokenizer, Tokenizer::load(again.path()).unwrap()] {
                assert_eq!(tokenizer.encode("Hello world!", 512).unwrap().ids, ids, "{config}");
            }
        }
        std::fs::write(&beside, json!({"do_lower_case": "no"}).to_string()).unwrap();
        let problem = Tokenizer::load(folder.path()).err().unwrap().to_string();
        assert!(problem.contains("do_lower_case = \"no\" is not supported here"), "{problem}");
        std::fs::remove_file(&beside).unwrap();
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        let again = tempfile::tempdir().unwrap();
        tokenizer.save(again.path(), 512).unwrap();
        assert!(!again.path().join(MERGES_FILE).exists());
        for tokenizer in [tokenizer, Tokenizer::load(again.path()).unwrap()] {
            assert_eq!(tokenizer.encode("Hello world!", 512).unwrap().ids, [2, 5, 6, 7, 8, 3]);
            assert_eq!(tokenizer.encode("Hello world!", 4).unwrap().ids, [2, 5, 6, 3]);
            assert_eq!((tokenizer.encode("", 512).unwrap().ids, tokenizer.pad_token()), (vec![2, 3], 0));
        }
    }

    #[test]
    fn long_text_is_quick() {
        let tokenizer = match test_data("roberta-bpe") {
            Some(folder) => Tokenizer::load(&folder).unwrap(),
            None => Tokenizer::train(&TEXTS, 300).unwrap(),
        };
        let texts = [
            "a".repeat(100_000),
            " ".repeat(100_000),
            "word ".repeat(20_000),
            "x1!é ".repeat(20_000),
            "abcdefghij".repeat(10_000),
            format!("{}hello world", " ".repeat(99_989)),
        ];
        for text in texts {
            let begun = Instant::now();
            let encoding = tokenizer.encode(&text, 512).unwrap();
            assert_eq!((encoding.ids.len(), encoding.was_cut), (512, true));
            println!("{:?} {:?}", begun.elapsed(), text.chars().take(4).collect::<String>());
            assert!(
                begun.elapsed().as_secs_f64() < 1.0,
                "{:?} for {:?}…",
                begun.elapsed(),
                text.chars().take(10).collect::<String>()
            );
        }
    }

    /// Against the tokens of the whole text.
    #[test]
    fn a_long_text_gives_the_tokens_of_the_whole() {
        let folder = test_data("roberta-bpe");
        let tokenizer =
            folder.map_or_else(|| Tokenizer::train(&TEXTS, 300).unwrap(), |folder| Tokenizer::load(&folder).unwrap());
        let words = ["the cat ", "sat", " on\n\n", "ö☕", " <mask>", "1234567", "  ", "don't ", "abcabcabd", "."];
        for seed in 0..40_usize {
            let text: String = match seed {
                0 => "abc".repeat(60_000),
                1 => " ".repeat(200_000),
                2 => format!("{}<mask> the cat", " ".repeat(200_000)),
                3 => "éa".repeat(50_000),
                _ => (0..60_000).map(|n| words[(n * n + n * seed + n / (seed + 1)) % words.len()]).collect(),
            };
            for room in [2, 3, 64, 512] {
                let whole = tokenizer.inner.encode_fast(text.as_str(), false).unwrap();
                let ids = &whole.get_ids()[..whole.len().min(room - 2)];
                let found = tokenizer.encode(&text, room).unwrap();
                assert_eq!(&found.ids[1..found.ids.len() - 1], ids, "{seed} {room}");
                assert_eq!(found.was_cut, whole.len() > room - 2, "{seed} {room}");
            }
        }
        let begun = Instant::now();
        let long = "a word and another ".repeat(2_000_000);
        assert_eq!(tokenizer.encode(&long, 512).unwrap().ids.len(), 512);
        let one = "b".repeat(30_000_000);
        assert_eq!(tokenizer.encode(&one, 512).unwrap().ids.len(), 512);
        let spaces = " ".repeat(30_000_000);
        assert!(tokenizer.encode(&spaces, 512).unwrap().was_cut);
        assert!(begun.elapsed().as_secs_f64() < 5.0, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_long_word_is_learned_from_in_linear_time() {
        let begun = Instant::now();
        let letters = |count: usize| (0..count).map(|n| "abcdefghijklmnopqrstuvwxyz".as_bytes()[n * n % 26]);
        let letters = |count| letters(count).map(char::from).collect::<String>();
        for word in [letters(1_000_000), "a".repeat(1_000_000), " ".repeat(1_000_000)] {
            Tokenizer::train(&[word.as_str(), "the cat"], 500).unwrap();
        }
        assert!(begun.elapsed().as_secs_f64() < 20.0, "{:?}", begun.elapsed());
        assert_eq!(pieces(&"a".repeat(1_200)).iter().map(String::len).collect::<Vec<_>>(), [500, 500, 200]);
        let usual = "a text\n of  usual words, ünïcödé";
        assert_eq!(pieces(usual), [usual]);
    }

    #[test]
    fn a_trained_tokenizer_is_deterministic_and_survives_saving() {
        let tokenizer = Tokenizer::train(&TEXTS, 280).unwrap();
        assert_eq!(
            tokenizer.inner.to_string(false).unwrap(),
            Tokenizer::train(&TEXTS, 280).unwrap().inner.to_string(false).unwrap()
        );
        let specials = ["<s>", "<pad>", "</s>", "<unk>"].map(|token| tokenizer.inner.token_to_id(token));
        assert_eq!(specials, [Some(0), Some(1), Some(2), Some(3)]);
        let last = u32::try_from(tokenizer.vocab_size() - 1).unwrap();
        assert_eq!(tokenizer.inner.token_to_id(MASK), Some(last));
        assert!(tokenizer.vocab_size() <= 280 && tokenizer.vocab_size() > 262);
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path(), 126).unwrap();
        let config = std::fs::read_to_string(folder.path().join(CONFIG_FILE)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&config).unwrap()["model_max_length"], 126);
        let whole = Tokenizer::load(folder.path()).unwrap();
        std::fs::remove_file(folder.path().join(WHOLE_FILE)).unwrap();
        let parts = Tokenizer::load(folder.path()).unwrap();
        for text in ["the cat", " the  dog\n", "日本 ☕é", "<mask> a</s>", ""] {
            let expected = tokenizer.encode(text, 512).unwrap();
            assert_eq!(whole.encode(text, 512).unwrap(), expected);
            assert_eq!(parts.encode(text, 512).unwrap(), expected);
            // Every byte is a token, so nothing is lost.
            let text_again = tokenizer.inner.decode(&expected.ids, false).unwrap();
            assert_eq!(text_again.replace(" <mask>", "<mask>"), format!("<s>{text}</s>"));
        }
    }

    #[test]
    fn stored_truncation_and_padding_are_off() {
        let folder = tempfile::tempdir().unwrap();
        Tokenizer::train(&TEXTS, 280).unwrap().save(folder.path(), 512).unwrap();
        let path = folder.path().join(WHOLE_FILE);
        let mut whole: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        whole["truncation"] = json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
        whole["padding"] = json!({"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"});
        std::fs::write(&path, whole.to_string()).unwrap();
        let ids = Tokenizer::load(folder.path()).unwrap().encode("a cat sat on", 512).unwrap().ids;
        assert!(ids.len() > 4 && !ids.contains(&1), "{ids:?}");
    }

    #[test]
    fn missing_and_broken_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = || Tokenizer::load(folder.path()).unwrap_err().to_string();
        assert!(message().contains("put tokenizer.json, or vocab.json and merges.txt, there (all three are missing)"));
        std::fs::write(folder.path().join(VOCABULARY_FILE), "{}").unwrap();
        assert!(message().contains("(merges.txt is missing)"));
        std::fs::write(folder.path().join(MERGES_FILE), "#version: 0.2\nab\n").unwrap();
        assert!(message().contains("line 2 is not two tokens"), "{}", message());
        std::fs::write(folder.path().join(WHOLE_FILE), "{\"version\"").unwrap();
        assert!(message().contains("tokenizer.json: the tokenizer cannot be used"), "{}", message());
        assert!(Tokenizer::train(&TEXTS, 100).unwrap_err().to_string().contains("below 261"));
    }

    #[test]
    fn no_bytes_panic_in_any_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        Tokenizer::train(&TEXTS, 270).unwrap().save(folder.path(), 512).unwrap();
        let names = [WHOLE_FILE, VOCABULARY_FILE, MERGES_FILE];
        let goods = names.map(|name| std::fs::read(folder.path().join(name)).unwrap());
        for (name, good) in names.iter().zip(&goods) {
            let path = folder.path().join(name);
            crate::damage::each(&[good], 300, |bytes| {
                std::fs::write(&path, bytes).unwrap();
                if let Ok(tokenizer) = Tokenizer::load(folder.path()) {
                    for text in ["the cat sat <mask>", "日本 ☕é", ""] {
                        let most = tokenizer.encode(text, 6).map_or(0, |encoding| encoding.ids.len());
                        assert!(most <= 6);
                    }
                }
            });
            // Where there is a tokenizer.json, the other two are not read.
            std::fs::remove_file(path).unwrap();
            let other = folder.path().join(VOCABULARY_FILE);
            std::fs::write(other, &goods[1]).unwrap();
        }
    }
}
