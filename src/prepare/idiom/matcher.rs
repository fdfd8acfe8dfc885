//! Whether a pattern stands at a place of a text.
//!
//! Every departure from the list costs something:
//!
//! * One: a word between two of the idiom's; a first article that is missing; another determiner for an article in an
//!   idiom of four words or more (`keep the lid on`).
//! * Two: another determiner in a shorter idiom (`have the ball` is rarely `have a ball`); an article or a possessive
//!   pronoun between two words (`see the stars` is rarely `see stars`); an article that is missing within.
//! * In an idiom that begins with a preposition, words in between cost double and other determiners always two: `on the
//!   top shelf` and `in the fog` are rarely the idioms `on the shelf` and `in a fog`.
//!
//! `gap` is the most that one match may cost **in total**, and never more than the idiom has words. The words between
//! must be such as may stand there; [`may_stand_between`] has the rules.

use super::pattern::{Accepts, Element, Pattern, Slot};
use super::words::{Break, Kind, Word};

/// The most words of a noun phrase that fills a slot.
const MAX_PHRASE: usize = 3;

/// What an article costs that the text does not have, but for the first word of an idiom.
const MISSING_ARTICLE: usize = 2;

/// A word of the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub word: &'a Word,
    /// Its number in the vocabulary, if any pattern has it.
    pub number: Option<u32>,
    /// What kind of word it is.
    pub kind: Kind,
}

/// Where a pattern was found, in words of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The first word.
    pub start: usize,
    /// Behind the last word.
    pub end: usize,
    /// What the text has beyond the list.
    pub cost: usize,
}

/// What a match of this pattern may cost.
pub(super) fn budget(pattern: &Pattern, gap: usize) -> usize {
    gap.min(pattern.elements.len())
}

/// The most words before the element at `place` that a match can have.
pub(super) fn reach(pattern: &Pattern, place: usize, gap: usize) -> usize {
    let widths = pattern.elements[..place].iter().map(|element| match element.accepts {
        Accepts::Slot(Slot::OwnPossessive | Slot::Possessive | Slot::Person | Slot::Thing) => MAX_PHRASE + 2,
        _ => 1,
    });
    widths.sum::<usize>() + budget(pattern, gap)
}

/// The cheapest match of the pattern that begins at `start`, the shortest of those.
pub(super) fn match_at(pattern: &Pattern, tokens: &[Token], start: usize, gap: usize) -> Option<Found> {
    let budget = budget(pattern, gap);
    if pattern.cost > budget {
        return None;
    }
    // Where the elements so far may end, and at what cost.
    let mut ends: Vec<(usize, usize)> = Vec::new();
    let last = pattern.elements.len().checked_sub(1)?;
    for (place, element) in pattern.elements.iter().enumerate() {
        let mut next: Vec<(usize, usize)> = Vec::new();
        if place == 0 {
            fill(element, tokens, start, pattern.cost, &mut next);
            next.retain(|(end, _)| is_first_phrase(element, &tokens[start..*end]));
        } else {
            let left = &pattern.elements[place - 1];
            // Nothing stands between a first pronoun and what follows it (`you know`, `you never know`).
            let is_pronoun = place == 1 && matches!(left.kind, Kind::Subject | Kind::Object);
            let is_open = !is_pronoun || matches!(left.accepts, Accepts::Slot(_));
            for (end, cost) in &ends {
                for begin in *end..=end + (budget - cost) / pattern.word_cost {
                    if begin >= tokens.len() {
                        break;
                    }
                    if !is_joined(left, &tokens[end - 1..begin]) {
                        break;
                    }
                    let inserted = &tokens[*end..begin];
                    if inserted.is_empty() || is_open && may_stand_between(left, element, inserted) {
                        fill(element, tokens, begin, cost + cost_of(pattern, inserted), &mut next);
                    }
                }
            }
        }
        if let (true, Accepts::Article { .. }) = (place > 0, &element.accepts) {
            next.extend(ends.iter().map(|(end, cost)| (*end, cost + MISSING_ARTICLE)));
        }
        next.retain(|(_, cost)| *cost <= budget);
        next.sort_unstable();
        next.dedup_by_key(|(end, _)| *end);
        if place == last && matches!(element.accepts, Accepts::Slot(_)) {
            next.truncate(1);
        }
        if next.is_empty() {
            return None;
        }
        ends = next;
    }
    let (end, cost) = ends.into_iter().min_by_key(|(end, cost)| (*cost, *end))?;
    Some(Found { start, end, cost })
}

/// What words between two of the idiom's cost.
fn cost_of(pattern: &Pattern, inserted: &[Token]) -> usize {
    let is_pointing = |token: &&Token| {
        token.kind == Kind::Possessive
            || matches!(token.word.text.as_str(), "a" | "an" | "the" | "this" | "that" | "these" | "those")
    };
    pattern.word_cost * (inserted.len() + inserted.iter().filter(is_pointing).count())
}

/// A phrase of several words that begins a match must begin with a determiner: nothing else tells where it begins.
fn is_first_phrase(element: &Element, phrase: &[Token]) -> bool {
    let is_slot = matches!(element.accepts, Accepts::Slot(_));
    let count = phrase.iter().filter(|token| token.kind != Kind::Clitic).count();
    !is_slot || count < 2 || matches!(phrase[0].kind, Kind::Determiner | Kind::Possessive)
}

/// Whether what stands between the words of `span`, a word of the idiom and those inserted behind it, lets the idiom go
/// on behind them.
fn is_joined(left: &Element, span: &[Token]) -> bool {
    if span.len() == 1 {
        return span[0].word.behind < Break::Stop || left.behind == Break::Stop;
    }
    span.iter().all(|token| token.word.behind == Break::None)
}

/// Adds every end (and cost) that the element can have when it begins at `begin`.
fn fill(element: &Element, tokens: &[Token], begin: usize, cost: usize, ends: &mut Vec<(usize, usize)>) {
    let Some(token) = tokens.get(begin) else { return };
    let has = |numbers: &[u32]| token.number.is_some_and(|number| numbers.binary_search(&number).is_ok());
    match &element.accepts {
        Accepts::Word(numbers) if has(numbers) => ends.push((begin + 1, cost)),
        Accepts::Article { numbers, .. } if has(numbers) => ends.push((begin + 1, cost)),
        Accepts::Article { other, .. } if matches!(token.kind, Kind::Determiner | Kind::Possessive) => {
            ends.push((begin + 1, cost + other));
        }
        Accepts::Word(_) | Accepts::Article { .. } => {}
        Accepts::Slot(slot) => {
            let lengths = slot_lengths(*slot, tokens, begin);
            ends.extend(lengths.into_iter().map(|length| (begin + length, cost)));
        }
    }
}

/// How many words from `begin` on can fill the slot.
fn slot_lengths(slot: Slot, tokens: &[Token], begin: usize) -> Vec<usize> {
    let token = tokens[begin];
    let text = token.word.text.as_str();
    let next_is_owner = tokens.get(begin + 1).is_some_and(|next| next.kind == Kind::Clitic);
    let single = |fits: bool| if fits { vec![1] } else { Vec::new() };
    match slot {
        Slot::AnyWord => single(true),
        Slot::Reflexive => single(token.kind == Kind::Reflexive),
        Slot::Subject => {
            single(matches!(text, "you" | "it" | "one" | "anybody" | "anyone") || token.kind == Kind::Subject)
        }
        Slot::OwnPossessive | Slot::Possessive if text == "one" && next_is_owner => vec![2],
        Slot::OwnPossessive => single(token.kind == Kind::Possessive),
        Slot::Possessive if token.kind == Kind::Possessive && !next_is_owner => {
            let mut lengths = vec![1];
            lengths.extend(phrases(tokens, begin, true));
            lengths
        }
        Slot::Possessive => phrases(tokens, begin, true),
        Slot::Person | Slot::Thing => {
            let is_pronoun = matches!(token.kind, Kind::Object | Kind::Reflexive) || text == "her";
            let is_pointer = slot == Slot::Thing
                && matches!(text, "this" | "that" | "these" | "those" | "all")
                && tokens.get(begin + 1).is_none_or(|next| next.kind != Kind::Content);
            let mut lengths = single(is_pronoun || is_pointer);
            lengths.extend(phrases(tokens, begin, false));
            lengths
        }
    }
}

/// The lengths of the noun phrases of one to three words that begin at `begin`: a determiner if there is one, then words
/// of content and adverbs. `owning` ones end in the mark of a possessive.
fn phrases(tokens: &[Token], begin: usize, owning: bool) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut count = 0;
    for (length, token) in (1..).zip(&tokens[begin..]) {
        let is_inside = length > 1;
        match token.kind {
            Kind::Determiner | Kind::Possessive if !is_inside => count += 1,
            Kind::Content if count >= MAX_PHRASE => break,
            Kind::Content => {
                count += 1;
                if !owning || token.word.is_plural_owner {
                    lengths.push(length);
                }
            }
            Kind::Adverb if is_inside => count += 1,
            Kind::Clitic if is_inside => {
                if owning {
                    lengths.push(length);
                }
            }
            _ => break,
        }
        if token.word.behind != Break::None {
            break;
        }
    }
    lengths
}

/// Whether these words may stand between two neighbours of an idiom.
///
/// * Nothing stands within a string of function words (`out of`, `up to the`), before `and`, or before a possessive's
///   mark.
/// * Before an article, a possessive or a preposition: adverbs (`put your foot right in it`).
/// * Between the verb and a preposition: a pronoun (`took it for granted`).
/// * A particle may begin what follows the verb or a slot (`rise up from the ashes`, `rub me up the wrong way`).
/// * Before a particle that follows the verb: a pronoun or a noun phrase (`gave it up`).
/// * Before a form of `be`: auxiliaries and adverbs (`the die has been cast`).
/// * Before a word of content: determiners, then adjectives, nouns and adverbs.
///
/// Nowhere: conjunctions, other prepositions, subjects and other auxiliaries, since a new clause or phrase begins there.
fn may_stand_between(left: &Element, right: &Element, inserted: &[Token]) -> bool {
    let is_word = |element: &Element| element.is_verb || element.kind == Kind::Content;
    let is_slot = |element: &Element| matches!(element.accepts, Accepts::Slot(_));
    let is_content = |element: &Element| is_word(element) || is_slot(element);
    if matches!(right.kind, Kind::Clitic | Kind::Conjunction) || (!is_content(left) && !is_content(right)) {
        return false;
    }
    let may_have_particle = is_slot(left) || (left.is_verb && (right.kind == Kind::Preposition || is_word(right)));
    let rest = match inserted {
        [first, rest @ ..] if first.kind == Kind::Particle && may_have_particle => rest,
        all => all,
    };
    let all_are = |kinds: &[Kind]| rest.iter().all(|token| kinds.contains(&token.kind));
    if right.is_be && is_content(left) {
        return all_are(&[Kind::Auxiliary, Kind::Adverb]);
    }
    if left.is_verb && right.kind == Kind::Particle {
        return match rest {
            [only] if only.kind == Kind::Object || only.word.text == "her" => true,
            [first, ..] => !matches!(first.kind, Kind::Content) && is_phrase(rest, true),
            [] => true,
        };
    }
    if left.is_verb
        && right.kind == Kind::Preposition
        && let [only] = rest
        && (only.kind == Kind::Object || matches!(only.word.text.as_str(), "her" | "this" | "that"))
    {
        return true;
    }
    if left.kind == Kind::Conjunction || !is_word(right) || matches!(left.kind, Kind::Object | Kind::Reflexive) {
        return all_are(&[Kind::Adverb]);
    }
    is_phrase(rest, !matches!(left.kind, Kind::Determiner | Kind::Possessive))
}

/// Determiners (where they may be), then words of content, with 's or not; adverbs anywhere.
fn is_phrase(tokens: &[Token], may_have_determiner: bool) -> bool {
    let mut has_content = false;
    tokens.iter().all(|token| match token.kind {
        Kind::Determiner | Kind::Possessive => may_have_determiner && !has_content,
        Kind::Content => {
            has_content = true;
            true
        }
        Kind::Clitic => has_content,
        Kind::Adverb => true,
        _ => false,
    })
}
