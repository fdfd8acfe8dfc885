//! An idiom of a list as the patterns that are looked for: one for each way to read its brackets and slashes.

use std::collections::{BTreeSet, HashMap};

use super::inflect::{Inflection, forms};
use super::irregular;
use super::words::{Break, Kind, Word, kind_of, words};

/// More readings of one idiom than this are a mistake in the list.
const MAX_READINGS: usize = 64;

/// A longer idiom is a mistake in the list.
const MAX_WORDS: usize = 40;

/// The words of all patterns as numbers.
pub(super) type Vocabulary = HashMap<String, u32>;

/// A place that the text fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// `one's`: a possessive pronoun.
    OwnPossessive,
    /// `someone's`: a possessive pronoun or a noun phrase in 's.
    Possessive,
    /// `someone`: an object pronoun or a noun phrase.
    Person,
    /// `something`: those, or `this` and `that`.
    Thing,
    /// `oneself`: a reflexive pronoun.
    Reflexive,
    /// `one` before a verb: a pronoun as subject.
    Subject,
    /// A dash: any one word.
    AnyWord,
}

/// What the text must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Accepts {
    /// One of these words.
    Word(Vec<u32>),
    /// An article, or another determiner in its place at a cost.
    Article {
        numbers: Vec<u32>,
        other: usize,
    },
    Slot(Slot),
}

/// One word or slot of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// What the text must have.
    pub accepts: Accepts,
    /// The kind of the list's word.
    pub kind: Kind,
    /// Whether it may be the verb: an object or a particle may follow it.
    pub is_verb: bool,
    /// Whether it is a form of `be`.
    pub is_be: bool,
    /// The punctuation behind it in the list.
    pub behind: Break,
}

/// One reading of an idiom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// The idiom's place in the list.
    pub idiom: usize,
    /// Its words and slots in order.
    pub elements: Vec<Element>,
    /// How many of the elements are words.
    pub fixed: usize,
    /// What the departures from the list cost that this reading already has.
    pub cost: usize,
    /// What a word costs that stands between two of the idiom's.
    pub word_cost: usize,
}

/// The patterns of one idiom, in the order of its readings; none for a single word.
///
/// # Errors
///
/// What is wrong with the idiom, and what to do.
pub(super) fn patterns(text: &str, idiom: usize, vocabulary: &mut Vocabulary) -> Result<Vec<Pattern>, String> {
    if !text.chars().any(char::is_alphanumeric) {
        return Err(format!("`{text}` has no word; correct the line or remove it"));
    }
    let readings = readings(text)?;
    let mut patterns: Vec<Pattern> = Vec::new();
    let mut has_several_words = false;
    for reading in readings {
        let items = items(&reading);
        let parts = items.len();
        if parts > MAX_WORDS {
            return Err(format!("an idiom of {parts} words, more than {MAX_WORDS}; put each idiom on its own line"));
        }
        if reading.split(|letter: char| letter.is_whitespace() || letter == '-').filter(|word| !word.is_empty()).count()
            < 2
        {
            continue;
        }
        has_several_words = true;
        let elements = elements(&items, vocabulary);
        let fixed = elements.iter().filter(|element| !matches!(element.accepts, Accepts::Slot(_))).count();
        if !elements.iter().any(|element| matches!(element.accepts, Accepts::Word(_))) {
            continue;
        }
        let word_cost = if elements.first().is_some_and(|first| is_preposition(first.kind)) { 2 } else { 1 };
        let pattern = Pattern { idiom, elements, fixed, cost: 0, word_cost };
        let bare = without_article(&pattern);
        for pattern in [Some(pattern), bare].into_iter().flatten() {
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
    }
    if patterns.is_empty() && has_several_words {
        return Err(format!(
            "`{text}` has slots and articles only, which match nearly anything; add the words that are always there"
        ));
    }
    Ok(patterns)
}

/// A first article may be missing where two words of content are left (`icing on the cake`).
fn without_article(pattern: &Pattern) -> Option<Pattern> {
    let (first, rest) = pattern.elements.split_first()?;
    let content = rest.iter().filter(|element| element.kind == Kind::Content).count();
    (matches!(first.accepts, Accepts::Article { .. }) && content >= 2).then(|| Pattern {
        idiom: pattern.idiom,
        elements: rest.to_vec(),
        fixed: pattern.fixed - 1,
        cost: 1,
        word_cost: 1,
    })
}

/// Every way to read brackets (with and without what is in them) and slashes (one of the words around them).
fn readings(text: &str) -> Result<Vec<String>, String> {
    let too_many = || format!("`{text}` can be read in more than {MAX_READINGS} ways; give its variants a line each");
    // Brackets first, from the first one on.
    let mut open = vec![text.to_lowercase()];
    let mut flat = Vec::new();
    while let Some(text) = open.pop() {
        match bracket(&text) {
            Some((start, end)) => {
                open.push(format!("{} {}", &text[..start], &text[end + 1..]));
                open.push(format!("{}{}{}", &text[..start], &text[start + 1..end], &text[end + 1..]));
            }
            None => flat.push(text),
        }
        if open.len() + flat.len() > MAX_READINGS {
            return Err(too_many());
        }
    }
    let mut all: Vec<String> = Vec::new();
    for text in flat {
        let text = text.replace(" / ", "/");
        let mut readings = vec![String::new()];
        for chunk in text.split_whitespace() {
            let is_number = chunk.chars().all(|letter| letter.is_numeric() || letter == '/');
            let choices: Vec<&str> =
                if is_number { vec![chunk] } else { chunk.split('/').filter(|part| !part.is_empty()).collect() };
            if choices.is_empty() {
                continue;
            }
            if readings.len() * choices.len() > MAX_READINGS {
                return Err(too_many());
            }
            readings = readings
                .iter()
                .flat_map(|start| choices.iter().map(move |choice| format!("{start} {choice}").trim().to_owned()))
                .collect();
        }
        all.extend(readings.into_iter().filter(|reading| !reading.is_empty()));
    }
    if all.len() > MAX_READINGS { Err(too_many()) } else { Ok(all) }
}

/// The first opening bracket and the one that closes it, as byte places.
fn bracket(text: &str) -> Option<(usize, usize)> {
    let start = text.find('(')?;
    let mut depth = 0_usize;
    for (place, letter) in text[start..].char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((start, start + place));
        }
    }
    None
}

/// A word of the list, or a slot.
enum Item {
    Word(Word),
    Slot(Slot),
}

fn items(reading: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    // Words between slots are read together, since `ca n't` are two chunks.
    let mut run = String::new();
    let flush = |run: &mut String, items: &mut Vec<Item>| {
        items.extend(words(run).into_iter().map(Item::Word));
        run.clear();
    };
    // `in your face` is said of anybody, `hold your tongue` of the one who speaks or acts.
    let has_verb = reading.split_whitespace().next().is_some_and(|first| starts_with_verb(kind_of(first)));
    for chunk in reading.split_whitespace() {
        if let Some(slot) = slot(chunk, has_verb) {
            flush(&mut run, &mut items);
            items.push(Item::Slot(slot));
        } else {
            run.push_str(chunk);
            run.push(' ');
        }
    }
    flush(&mut run, &mut items);
    for place in 1..items.len().saturating_sub(1) {
        if is_subject_one(&items[place - 1], &items[place], &items[place + 1]) {
            items[place] = Item::Slot(Slot::Subject);
        }
    }
    items
}

fn slot(chunk: &str, has_verb: bool) -> Option<Slot> {
    if matches!(chunk, "—" | "―") {
        return Some(Slot::AnyWord);
    }
    let chunk = chunk.replace(['’', 'ʼ', '＇'], "'");
    match chunk.trim_matches(|letter: char| !letter.is_alphanumeric()) {
        "one's" => Some(Slot::OwnPossessive),
        "your" if has_verb => Some(Slot::OwnPossessive),
        "someone's" | "somebody's" | "sb's" | "something's" => Some(Slot::Possessive),
        "someone" | "somebody" | "sb" => Some(Slot::Person),
        "something" | "sth" => Some(Slot::Thing),
        "oneself" => Some(Slot::Reflexive),
        "yourself" if has_verb => Some(Slot::Reflexive),
        _ => None,
    }
}

/// `before one can say`: a pronoun between a conjunction and a finite verb, not the number.
fn is_subject_one(before: &Item, word: &Item, after: &Item) -> bool {
    let (Item::Word(before), Item::Word(word), Item::Word(after)) = (before, word, after) else { return false };
    let opens =
        ["before", "after", "as", "if", "when", "what", "where", "than", "till", "until", "how", "because", "all"];
    let is_finite = irregular::closed_verb(&after.text).is_some()
        || ["knows", "likes", "wants", "thinks", "says", "sows", "makes"].contains(&after.text.as_str());
    word.text == "one" && opens.contains(&before.text.as_str()) && is_finite
}

fn starts_with_verb(kind: Kind) -> bool {
    !matches!(kind, Kind::Preposition | Kind::Particle | Kind::Determiner | Kind::Possessive)
}

/// Decides for each word which forms of it may stand in a text.
fn elements(items: &[Item], vocabulary: &mut Vocabulary) -> Vec<Element> {
    let first = match items.first() {
        Some(Item::Word(word)) => starts_with_verb(kind_of(&word.text)),
        _ => true,
    };
    let opening = if first { Inflection::Any } else { Inflection::Noun };
    let mut role = opening;
    let mut before: Option<&Word> = None;
    let mut elements = Vec::with_capacity(items.len());
    for item in items {
        let word = match item {
            Item::Word(word) => word,
            Item::Slot(slot) => {
                let kind = match slot {
                    Slot::OwnPossessive | Slot::Possessive => Kind::Possessive,
                    Slot::Person | Slot::Thing => Kind::Object,
                    Slot::Reflexive => Kind::Reflexive,
                    Slot::Subject => Kind::Subject,
                    Slot::AnyWord => Kind::Content,
                };
                role = if kind == Kind::Possessive { Inflection::Noun } else { Inflection::Any };
                before = None;
                elements.push(Element {
                    accepts: Accepts::Slot(*slot),
                    kind,
                    is_verb: false,
                    is_be: false,
                    behind: Break::None,
                });
                continue;
            }
        };
        elements.push(element(word, before, opening, role, vocabulary));
        role = next_role(word, before, opening, role);
        before = Some(word);
    }
    let is_long = elements.len() >= 4 && !elements.first().is_some_and(|first| is_preposition(first.kind));
    for element in &mut elements {
        if let (true, Accepts::Article { other, .. }) = (is_long, &mut element.accepts) {
            *other = 1;
        }
    }
    elements
}

fn is_preposition(kind: Kind) -> bool {
    matches!(kind, Kind::Preposition | Kind::Particle)
}

/// `the can`, `a will`: verbs of a closed class that are nouns here.
fn is_noun_here(word: &Word, before: Option<&Word>) -> bool {
    let noun = ["can", "will", "may", "might", "must", "being"].contains(&word.text.as_str());
    let follows_noun_phrase = |before: &Word| {
        let kind = kind_of(&before.text);
        matches!(kind, Kind::Determiner | Kind::Possessive | Kind::Content) && !is_plural(&before.text)
    };
    noun && before.is_some_and(follows_noun_phrase)
}

fn element(
    word: &Word,
    before: Option<&Word>,
    opening: Inflection,
    role: Inflection,
    vocabulary: &mut Vocabulary,
) -> Element {
    let text = word.text.as_str();
    let kind = kind_of(text);
    let after_pronoun = before.is_some_and(|before| follows_verb_clitic(&before.text));
    let mut is_verb = false;
    let forms: BTreeSet<String> = match kind {
        Kind::Determiner if matches!(text, "a" | "an") => ["a", "an"].map(ToOwned::to_owned).into(),
        Kind::Clitic if after_pronoun => ["'s", "is", "has", "was"].map(ToOwned::to_owned).into(),
        Kind::Auxiliary if text == "'d" => ["'d", "had", "would"].map(ToOwned::to_owned).into(),
        Kind::Auxiliary if !is_noun_here(word, before) => {
            is_verb = true;
            irregular::closed_verb(text).unwrap_or(&[]).iter().map(|form| (*form).to_owned()).collect()
        }
        Kind::Auxiliary => forms(text, Inflection::Noun, false),
        Kind::Content => {
            let agrees = before.is_some_and(|before| agrees(&before.text, text));
            let inflection = if agrees { Inflection::Any } else { role };
            is_verb = inflection == Inflection::Any;
            forms(text, inflection, agrees || opening == Inflection::Any)
        }
        _ => BTreeSet::new(),
    };
    let mut numbers: Vec<u32> = forms
        .into_iter()
        .chain([text.to_owned()])
        .map(|form| {
            let next = u32::try_from(vocabulary.len()).unwrap_or(u32::MAX);
            *vocabulary.entry(form).or_insert(next)
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let is_article = matches!(text, "a" | "an" | "the");
    Element {
        accepts: if is_article { Accepts::Article { numbers, other: 2 } } else { Accepts::Word(numbers) },
        kind,
        is_verb,
        is_be: irregular::is_be(text),
        behind: word.behind,
    }
}

/// What the forms of the next word may be, once `word` has been read.
fn next_role(word: &Word, before: Option<&Word>, opening: Inflection, role: Inflection) -> Inflection {
    let text = word.text.as_str();
    match kind_of(text) {
        Kind::Conjunction if matches!(text, "and" | "or" | "but" | "nor") => opening,
        Kind::Clitic if !before.is_some_and(|before| follows_verb_clitic(&before.text)) => Inflection::Noun,
        Kind::Auxiliary if is_noun_here(word, before) => Inflection::Noun,
        Kind::Adverb => role,
        Kind::Determiner | Kind::Possessive | Kind::Preposition | Kind::Particle | Kind::Content => Inflection::Noun,
        Kind::Conjunction | Kind::Clitic | Kind::Auxiliary | Kind::Subject | Kind::Object | Kind::Reflexive => {
            Inflection::Any
        }
    }
}

/// Whether `'s` behind this word is a verb.
fn follows_verb_clitic(word: &str) -> bool {
    matches!(kind_of(word), Kind::Subject | Kind::Object | Kind::Conjunction)
        || matches!(word, "that" | "there" | "here" | "this")
}

fn is_plural(word: &str) -> bool {
    word.ends_with('s') && !word.ends_with("ss")
}

/// Two words of content, one of them in -s: a subject and its verb (`the penny drops`, `the cows come`).
fn agrees(subject: &str, verb: &str) -> bool {
    kind_of(subject) == Kind::Content && is_plural(subject) != is_plural(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Pattern>, String> {
        patterns(text, 0, &mut Vocabulary::new())
    }

    #[test]
    fn brackets_and_slashes_give_every_reading() {
        let mut found = readings("(as) good/fine as gold (or (pure) silver)").unwrap();
        found.sort_unstable();
        assert_eq!(found.len(), 12);
        assert!(found.contains(&"good as gold".to_owned()) && found.contains(&"as fine as gold or silver".to_owned()));
        assert_eq!(readings("honest(ly)").unwrap(), ["honestly", "honest"]);
        assert_eq!(readings("24/7 (").unwrap(), ["24/7 ("]);
    }

    #[test]
    fn slots_are_told_from_words() {
        let slots = |text: &str| -> Vec<Slot> {
            let pattern = read(text).unwrap().remove(0);
            pattern
                .elements
                .iter()
                .filter_map(|element| match element.accepts {
                    Accepts::Slot(slot) => Some(slot),
                    _ => None,
                })
                .collect()
        };
        assert_eq!(slots("hold one’s tongue"), [Slot::OwnPossessive]);
        assert_eq!(slots("give someone a run for somebody's money"), [Slot::Person, Slot::Possessive]);
        assert_eq!(slots("before one can say knife"), [Slot::Subject]);
        assert_eq!(slots("back to square one"), []);
        assert_eq!(slots("in your face"), []);
        assert_eq!(slots("a — in sheep's clothing"), [Slot::AnyWord]);
    }

    #[test]
    fn what_is_no_idiom_is_told() {
        assert!(read("someone's something").unwrap_err().contains("slots and articles only"));
        assert!(read("— ?").unwrap_err().contains("no word"));
        assert!(read(&"word ".repeat(50)).unwrap_err().contains("50 words"));
        assert!(read("(a) (b) (c) (d) (e) (f) (g) h i").unwrap_err().contains("64 ways"));
        assert!(read("nonsense").unwrap().is_empty());
        assert!(read("don't").unwrap().is_empty());
        assert!(!read("wishy-washy").unwrap().is_empty());
    }
}
