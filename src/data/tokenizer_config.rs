//! What lies beside a tokenizer: `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`. What they
//! say of token ids is done as transformers does it, or refused.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::DataError;
use super::text::{failed, read_text};

/// What Hugging Face's loader wants to know beside a vocabulary.
pub(super) const CONFIG_FILE: &str = "tokenizer_config.json";
/// Tokens behind the vocabulary, with their ids.
pub(super) const ADDED_FILE: &str = "added_tokens.json";
/// Special tokens, as older versions wrote them.
const MAP_FILE: &str = "special_tokens_map.json";

/// The keys of single special tokens, in the order in which transformers adds them.
const SPECIALS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The special tokens that are put around a text or behind it: RoBERTa's, else BERT's.
const AROUND: [(&str, &str, &str); 3] =
    [("cls_token", "<s>", "[CLS]"), ("sep_token", "</s>", "[SEP]"), ("pad_token", "<pad>", "[PAD]")];

/// Several special tokens, as older and newer versions call them.
const MORE_SPECIALS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// The classes of tokenizers that make of a vocabulary and merges what RoBERTa's makes of them.
const CLASSES: [&str; 5] = ["Roberta", "Bart", "Longformer", "PreTrainedTokenizer", "TokenizersBackend"];

/// The files beside a tokenizer; empty where they are not there.
pub(super) struct TokenizerConfig {
    path: PathBuf,
    /// `tokenizer_config.json` as it is written.
    pub text: Option<String>,
    config: Map<String, Value>,
    specials: Map<String, Value>,
    added: Map<String, Value>,
}

impl TokenizerConfig {
    /// Reads the files of a folder.
    pub fn read(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(CONFIG_FILE);
        let text = path.exists().then(|| read_text(&path)).transpose()?;
        Ok(Self {
            config: text.as_deref().map(|text| object(text, &path)).transpose()?.unwrap_or_default(),
            specials: object_of(&folder.join(MAP_FILE))?,
            added: object_of(&folder.join(ADDED_FILE))?,
            path,
            text,
        })
    }

    /// Brings what the files say into a tokenizer: one of `tokenizer.json` (`is_whole`), or of its parts.
    pub fn apply(&self, inner: &mut Inner, is_whole: bool) -> Result<(), DataError> {
        self.check(inner, is_whole)?;
        self.set_normalizer(inner)?;
        self.add_tokens(inner)?;
        let Some(prefix_space) = self.config.get("add_prefix_space").filter(|value| !value.is_null()) else {
            return Ok(());
        };
        let Some(prefix_space) = prefix_space.as_bool() else {
            return Err(self.refuse("add_prefix_space", prefix_space, "true or false"));
        };
        match inner.get_pre_tokenizer().cloned() {
            Some(PreTokenizerWrapper::ByteLevel(found)) if found.add_prefix_space == prefix_space => Ok(()),
            // Only RoBERTa's own class changes what tokenizer.json says.
            Some(PreTokenizerWrapper::ByteLevel(found)) if !is_whole || self.class().starts_with("Roberta") => {
                inner.with_pre_tokenizer(Some(found.add_prefix_space(prefix_space)));
                Ok(())
            }
            None if !prefix_space => Ok(()),
            _ => Err(self.refuse("add_prefix_space", &prefix_space.into(), "what tokenizer.json says")),
        }
    }

    /// Refuses what would give other ids and is not done here.
    fn check(&self, inner: &Inner, is_whole: bool) -> Result<(), DataError> {
        let class = self.class();
        if !is_whole && !CLASSES.iter().any(|known| class.starts_with(known)) {
            let words = "a class of RoBERTa's byte-level BPE, where there is no tokenizer.json";
            return Err(self.refuse("tokenizer_class", &class.into(), words));
        }
        for (key, usual) in [("truncation_side", Value::from("right")), ("split_special_tokens", Value::from(false))] {
            if let Some(value) = self.config.get(key).filter(|value| !value.is_null() && **value != usual) {
                return Err(self.refuse(key, value, &usual.to_string()));
            }
        }
        for (key, robertas, berts) in AROUND {
            let token = if inner.token_to_id(robertas).is_some() { robertas } else { berts };
            if let Some((file, value)) = self.special(key).filter(|(_, value)| content(value) != Some(token)) {
                return Err(refuse(&self.path.with_file_name(file), key, value, token));
            }
        }
        Ok(())
    }

    /// What the classes of BERT's family take from their config, whatever `tokenizer.json` says.
    fn set_normalizer(&self, inner: &mut Inner) -> Result<(), DataError> {
        let Some(NormalizerWrapper::BertNormalizer(mut normalizer)) = inner.get_normalizer().cloned() else {
            return Ok(());
        };
        if self.class().starts_with("PreTrainedTokenizer") || self.class().starts_with("TokenizersBackend") {
            return Ok(());
        }
        let stated = |key: &str| match self.config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(value) => Err(self.refuse(key, value, "true or false")),
        };
        normalizer.lowercase = stated("do_lower_case")?.unwrap_or(normalizer.lowercase);
        normalizer.handle_chinese_chars = stated("tokenize_chinese_chars")?.unwrap_or(normalizer.handle_chinese_chars);
        normalizer.strip_accents = stated("strip_accents")?.or(normalizer.strip_accents);
        inner.with_normalizer(Some(normalizer)).map_err(|error| failed(&self.path, &error))?;
        Ok(())
    }

    fn class(&self) -> &str {
        self.config.get("tokenizer_class").and_then(Value::as_str).unwrap_or("Roberta")
    }

    /// A key of special tokens, and the file that has it.
    fn special(&self, key: &str) -> Option<(&'static str, &Value)> {
        let files = [(CONFIG_FILE, &self.config), (MAP_FILE, &self.specials)];
        files.into_iter().filter_map(|(file, map)| Some((file, map.get(key)?))).find(|(_, value)| !value.is_null())
    }

    /// Adds the tokens in the order of their ids, and those without ids behind them.
    fn add_tokens(&self, inner: &mut Inner) -> Result<(), DataError> {
        let mut stated: Vec<(u64, AddedToken)> = Vec::new();
        for (id, token) in self.config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten() {
            match (id.parse(), token_of(token, false)) {
                (Ok(id), Some(token)) => stated.push((id, token)),
                _ => return Err(self.refuse("added_tokens_decoder", token, "a token for each id")),
            }
        }
        let path = self.path.with_file_name(ADDED_FILE);
        for (token, id) in &self.added {
            let Some(id) = id.as_u64() else { return Err(failed(&path, &format!("{token:?} has no number"))) };
            if !stated.iter().any(|(_, other)| other.content == *token) && !is_added(inner, token) {
                stated.push((id, AddedToken::from(token.clone(), false)));
            } else if !stated.iter().any(|(other, _)| *other == id) && inner.token_to_id(token) != id.try_into().ok() {
                return Err(failed(&path, &format!("the token {token:?} has another id elsewhere than {id}")));
            }
        }
        stated.sort_by_key(|(id, _)| *id);
        for (id, token) in stated {
            let content = token.content.clone();
            let added = if token.special { inner.add_special_tokens([token]) } else { inner.add_tokens([token]) };
            added.map_err(|error| failed(&self.path, &error))?;
            let found = inner.token_to_id(&content);
            if found.map(u64::from) != Some(id) {
                let has = found.map_or_else(String::new, |found| format!(", but would have {found}"));
                return Err(failed(
                    &self.path,
                    &format!("the added token {content:?} is said to have the id {id}{has}"),
                ));
            }
        }
        let more = MORE_SPECIALS.iter().filter_map(|key| self.special(key)).flat_map(|(_, list)| match list {
            Value::Array(tokens) => tokens.iter().collect(),
            Value::Object(tokens) => tokens.values().collect(),
            other => vec![other],
        });
        for value in SPECIALS.iter().filter_map(|key| Some(self.special(key)?.1)).chain(more) {
            let Some(token) = token_of(value, true) else {
                return Err(failed(&self.path, &format!("{value} is no special token")));
            };
            // A name alone changes nothing of a token that is one already.
            if value.is_object() || !is_added(inner, &token.content) {
                inner.add_special_tokens([token]).map_err(|error| failed(&self.path, &error))?;
            }
        }
        Ok(())
    }

    fn refuse(&self, key: &str, value: &Value, only: &str) -> DataError {
        refuse(&self.path, key, value, only)
    }
}

fn refuse(path: &Path, key: &str, value: &Value, only: &str) -> DataError {
    failed(path, &format!("{key} = {value} is not supported here; it must be {only}"))
}

fn is_added(inner: &Inner, token: &str) -> bool {
    inner.get_added_vocabulary().get_vocab().contains_key(token)
}

fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// A token as a name, or as an object with how it is found in a text.
fn token_of(value: &Value, is_special: bool) -> Option<AddedToken> {
    let flag = |key: &str, default: bool| value.get(key).and_then(Value::as_bool).unwrap_or(default);
    let special = flag("special", is_special);
    let token = AddedToken::from(content(value)?, special)
        .lstrip(flag("lstrip", false))
        .rstrip(flag("rstrip", false))
        .single_word(flag("single_word", false))
        .normalized(flag("normalized", !special));
    (!token.content.is_empty()).then_some(token)
}

fn object_of(path: &Path) -> Result<Map<String, Value>, DataError> {
    if path.exists() { object(&read_text(path)?, path) } else { Ok(Map::new()) }
}

fn object(text: &str, path: &Path) -> Result<Map<String, Value>, DataError> {
    serde_json::from_str(text).map_err(|error| failed(path, &error))
}
