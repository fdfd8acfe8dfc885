//! A text as words in lower case with their places, contractions taken apart, and what kind of word each is.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One word of a text, or one part of a contraction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// In lower case; contracted words in full (`not`, `will`), but for `'s` and `'d`, which may be several.
    pub text: String,
    /// The first character, counted in Unicode scalar values.
    pub start: usize,
    /// Behind the last character.
    pub end: usize,
    /// Whether it ends in s and an apostrophe, as in `the boys' heads`.
    pub is_plural_owner: bool,
    /// What stands between this word and the next.
    pub behind: Break,
}

/// What separates two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Break {
    /// Spaces, hyphens, quotation marks.
    None,
    /// A comma, a bracket or a dash: no word that an idiom does not have may stand next to it.
    Pause,
    /// The end of a sentence.
    Stop,
}

/// What a word is, as far as it decides where it may stand within an idiom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `the`, `this`, `every`.
    Determiner,
    /// `my`, `their`; `her` too.
    Possessive,
    /// `me`, `them`, and `it`, `you` and `one`, which are subjects as well.
    Object,
    /// `I`, `they`.
    Subject,
    /// `myself`.
    Reflexive,
    /// `of`, `with`: they may not stand between the words of an idiom.
    Preposition,
    /// `up`, `out`: prepositions that also go with verbs.
    Particle,
    /// `and`, `because`, `which`.
    Conjunction,
    /// Forms of `be`, `have`, `do`, and modal verbs.
    Auxiliary,
    /// `not`, `only`, `straight`, and words in -ly.
    Adverb,
    /// The mark of a possessive, or a contracted `is` or `has`.
    Clitic,
    /// Any other word.
    Content,
}

const KINDS: [(Kind, &str); 11] = [
    (
        Kind::Determiner,
        "a an the this that these those some any no every each another many much few several all both either neither more \
         most such half",
    ),
    (Kind::Possessive, "my your his her its our their thy thine whose"),
    (Kind::Object, "me you him it us them thee one"),
    (Kind::Subject, "i he she we they thou ye"),
    (Kind::Reflexive, "myself yourself himself herself itself ourselves yourselves themselves oneself thyself"),
    (
        Kind::Preposition,
        "of at for from to into onto upon unto with within without under above below beneath between among amongst during \
         against towards toward till until since per via like than as before after beside besides beyond near amid except",
    ),
    (
        Kind::Particle,
        "up down in out on off over away back through round around about along across by behind apart aside together \
         forth forward",
    ),
    (
        Kind::Conjunction,
        "and or but nor if when while because though although unless whereas which who whom what where why how whether so \
         lest whatever whoever whenever wherever",
    ),
    (
        Kind::Auxiliary,
        "be am is are was were been being art wast wert have has had having hath hast hadst do does did doing doth dost \
         didst can could will would shall should may might must ought canst wilt shalt 'd",
    ),
    (
        Kind::Adverb,
        "not never ever always just only even still again once quite rather almost nearly well very too straight right now \
         then here there also soon often already yet perhaps hard",
    ),
    (Kind::Clitic, "'s"),
];

const NOUNS_IN_LY: [&str; 24] = [
    "anomaly",
    "assembly",
    "belly",
    "billy",
    "bully",
    "butterfly",
    "doily",
    "dolly",
    "emily",
    "family",
    "folly",
    "gully",
    "holly",
    "homily",
    "italy",
    "jelly",
    "kelly",
    "molly",
    "monopoly",
    "polly",
    "rally",
    "reply",
    "sally",
    "supply",
];

static KIND_OF: LazyLock<HashMap<&str, Kind>> = LazyLock::new(|| {
    KINDS.iter().flat_map(|(kind, words)| words.split_whitespace().map(|word| (word, *kind))).collect()
});

/// What kind of word `word` is, on its own.
pub(super) fn kind_of(word: &str) -> Kind {
    match KIND_OF.get(word) {
        Some(kind) => *kind,
        None if word.len() > 4 && word.ends_with("ly") && !NOUNS_IN_LY.contains(&word) => Kind::Adverb,
        None => Kind::Content,
    }
}

fn is_apostrophe(letter: char) -> bool {
    matches!(letter, '\'' | '’' | 'ʼ' | '＇')
}

/// Takes a text apart.
pub(super) fn words(text: &str) -> Vec<Word> {
    let letters: Vec<char> = text.chars().collect();
    let letter_at = |place: usize| letters.get(place).copied().filter(|letter| letter.is_alphanumeric());
    let mut words: Vec<Word> = Vec::new();
    let mut place = 0;
    while place < letters.len() {
        // An apostrophe begins a word in `'tis` and in tokenised text (`he 's`).
        let opens = is_apostrophe(letters[place]) && letter_at(place + 1).is_some();
        if letter_at(place).is_none() && !opens {
            separate(&mut words, &letters, place);
            place += 1;
            continue;
        }
        let start = place;
        place += 1;
        while letter_at(place).is_some()
            || (place < letters.len() && is_apostrophe(letters[place]) && letter_at(place + 1).is_some())
        {
            place += 1;
        }
        push(&mut words, &letters, start, place);
    }
    words
}

/// Notes what the separator at `place` says of the word before it.
fn separate(words: &mut [Word], letters: &[char], place: usize) {
    let Some(word) = words.last_mut() else { return };
    let letter = letters[place];
    let between = match letter {
        // `Mr. Wolf`, `J. Smith`
        '.' if matches!(word.text.as_str(), "mister" | "missus" | "doctor" | "saint") || word.text.len() == 1 => {
            Break::None
        }
        '.' | '!' | '?' | ';' | ':' | '…' => Break::Stop,
        ',' | '(' | ')' | '[' | ']' | '—' | '–' => Break::Pause,
        _ => Break::None,
    };
    word.behind = word.behind.max(between);
    // Directly behind the s, or between spaces in tokenised text.
    let is_close =
        word.end == place || (letter == '\'' && word.end + 1 == place && letters.get(place + 1) == Some(&' '));
    if is_apostrophe(letter) && is_close && word.text.ends_with('s') {
        word.is_plural_owner = true;
    }
}

/// Adds the letters of one word, contractions taken apart.
fn push(words: &mut Vec<Word>, letters: &[char], start: usize, end: usize) {
    let lower = |from: usize, to: usize| -> String {
        letters[from..to]
            .iter()
            .flat_map(|letter| letter.to_lowercase())
            .map(|letter| if is_apostrophe(letter) { '\'' } else { letter })
            .collect()
    };
    let mut add = |text: &str, start: usize, end: usize| {
        words.push(Word { text: text.to_owned(), start, end, is_plural_owner: false, behind: Break::None });
    };
    let text = lower(start, end);
    // Letters that change their number in lower case are none of those looked for below.
    if text.chars().count() != end - start {
        add(&text, start, end);
        return;
    }
    match text.as_str() {
        "cannot" => {
            add("can", start, start + 3);
            add("not", start + 3, end);
            return;
        }
        "'tis" | "'twas" => {
            add("it", start, start + 2);
            add(if text == "'tis" { "is" } else { "was" }, start + 2, end);
            return;
        }
        "n't" => {
            // Tokenised: `ca n't`, `wo n't`, `sha n't`.
            if let Some(verb) = words.last_mut() {
                verb.text = full_verb(&verb.text).to_owned();
            }
            words.push(Word { text: "not".to_owned(), start, end, is_plural_owner: false, behind: Break::None });
            return;
        }
        _ => {}
    }
    if let Some(verb) = text.strip_suffix("n't").filter(|verb| !verb.is_empty()) {
        add(full_verb(verb), start, end - 3);
        add("not", end - 3, end);
        return;
    }
    for (contracted, full) in
        [("'ll", "will"), ("'re", "are"), ("'ve", "have"), ("'m", "am"), ("'s", "'s"), ("'d", "'d")]
    {
        if let Some(first) = text.strip_suffix(contracted) {
            let middle = end - contracted.len();
            if !first.is_empty() {
                add(in_full(first), start, middle);
            }
            add(full, middle, end);
            return;
        }
    }
    // Other apostrophes separate: `o'clock` is two words in the list and in the text, and `the end’of` a misprint.
    let mut place = start;
    for part in text.split('\'') {
        let length = part.chars().count();
        if length > 0 {
            add(in_full(part), place, place + length);
        }
        place += length + 1;
    }
}

/// The verb before `n't`.
fn full_verb(verb: &str) -> &str {
    match verb {
        "ca" => "can",
        "wo" => "will",
        "sha" => "shall",
        "ai" => "is",
        other => other,
    }
}

/// Titles as they are read aloud.
fn in_full(word: &str) -> &str {
    match word {
        "mr" => "mister",
        "mrs" => "missus",
        "dr" => "doctor",
        "st" => "saint",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn contractions_come_apart_the_same_in_every_writing() {
        for text in ["can't", "CAN’T", "cannot", "ca n't"] {
            assert_eq!(texts(text), ["can", "not"], "{text}");
        }
        assert_eq!(texts("He'll won't I'm they've"), ["he", "will", "will", "not", "i", "am", "they", "have"]);
        assert_eq!(texts("the family 's dog"), texts("the family's dog"));
        assert_eq!(texts("'tis six o'clock, Mr. Wolf"), ["it", "is", "six", "o", "clock", "mister", "wolf"]);
        assert_eq!(texts("wild-goose (chase)"), ["wild", "goose", "chase"]);
    }

    #[test]
    fn places_are_characters_not_bytes() {
        let found = words("Ünder the İce’s can't");
        let places: Vec<(usize, usize)> = found.iter().map(|word| (word.start, word.end)).collect();
        assert_eq!(places, [(0, 5), (6, 9), (10, 15), (16, 18), (18, 21)]);
        assert_eq!(found[3].text, "can");
    }

    #[test]
    fn breaks_and_plural_owners_are_kept() {
        let found = words("the boys' heads, all. Yes");
        assert!(found[1].is_plural_owner);
        assert_eq!(found[2].behind, Break::Pause);
        assert_eq!(found[3].behind, Break::Stop);
        assert_eq!(found[0].behind, Break::None);
    }

    #[test]
    fn the_kinds_name_no_word_twice() {
        let count: usize = KINDS.iter().map(|(_, words)| words.split_whitespace().count()).sum();
        assert_eq!(KIND_OF.len(), count);
        assert_eq!(kind_of("softly"), Kind::Adverb);
        assert_eq!(kind_of("bucket"), Kind::Content);
    }
}
