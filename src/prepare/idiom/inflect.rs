//! The forms of a word by the rules of English spelling. A form that does not exist does no harm: no text has it.

use std::collections::BTreeSet;

use super::irregular;

/// Which forms of a list word may stand in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inflection {
    /// Singular and plural: what follows an article or a preposition.
    Noun,
    /// Those, and the forms of a verb.
    Any,
}

/// Words in -s that are no plurals.
const NO_PLURALS: [&str; 13] = [
    "always",
    "bus",
    "chaos",
    "christmas",
    "gas",
    "james",
    "lens",
    "news",
    "perhaps",
    "plus",
    "series",
    "species",
    "yes",
];

/// Verbs of more than one syllable whose last one is stressed, so that its consonant doubles; the others of these
/// endings (`open`, `offer`) do not.
const DOUBLING: [&str; 26] = [
    "abet", "abhor", "acquit", "admit", "allot", "annul", "begin", "commit", "compel", "concur", "confer", "control",
    "defer", "deter", "expel", "forget", "incur", "infer", "occur", "omit", "permit", "prefer", "propel", "refer",
    "regret", "transfer",
];

/// Adjectives that idioms have and that can be compared by -er and -est.
const ADJECTIVES: [&str; 50] = [
    "big", "black", "blind", "bright", "broad", "cheap", "clean", "clear", "close", "cold", "cool", "dark", "deaf",
    "deep", "dry", "fast", "few", "fine", "fresh", "great", "green", "hard", "high", "hot", "large", "late", "light",
    "long", "loose", "loud", "low", "mad", "near", "old", "poor", "quick", "rich", "sharp", "short", "slow", "small",
    "soft", "strong", "sweet", "thick", "thin", "tight", "warm", "wide", "wild",
];

/// Every form of `word` that a text may have in its place. With `reduce`, those of the words that `word` may itself be
/// a form of, too (`kicked`, `dogs`).
pub(super) fn forms(word: &str, inflection: Inflection, reduce: bool) -> BTreeSet<String> {
    let mut bases = BTreeSet::from([word.to_owned()]);
    if reduce {
        bases.extend(singulars(word));
        if inflection == Inflection::Any {
            bases.extend(verb_bases(word));
        }
    }
    let mut forms = BTreeSet::new();
    for base in &bases {
        forms.insert(base.clone());
        forms.extend(noun_plurals(base));
        if inflection == Inflection::Any {
            forms.extend(verb_forms(base));
        }
    }
    if ADJECTIVES.contains(&word) {
        forms.extend(compared(word));
    }
    let other_spellings: Vec<String> = forms.iter().filter_map(|form| american(form)).collect();
    forms.extend(other_spellings);
    forms
}

fn is_vowel(letter: char) -> bool {
    matches!(letter, 'a' | 'e' | 'i' | 'o' | 'u')
}

/// The last `N` letters, if there are as many.
fn last<const N: usize>(word: &str) -> Option<[char; N]> {
    let letters: Vec<char> = word.chars().rev().take(N).collect();
    let mut letters: [char; N] = letters.try_into().ok()?;
    letters.reverse();
    Some(letters)
}

fn ends_in_consonant_and(word: &str, end: char) -> bool {
    last::<2>(word).is_some_and(|[before, letter]| letter == end && !is_vowel(before))
}

/// The form in -s, which a noun and a verb share.
fn with_s(word: &str) -> Vec<String> {
    if ends_in_consonant_and(word, 'y') {
        return vec![format!("{}ies", &word[..word.len() - 1])];
    }
    let hisses = ["s", "x", "z", "ch", "sh"].iter().any(|end| word.ends_with(end));
    if hisses {
        vec![format!("{word}es")]
    } else if word.ends_with('o') {
        vec![format!("{word}s"), format!("{word}es")]
    } else {
        vec![format!("{word}s")]
    }
}

fn noun_plurals(noun: &str) -> Vec<String> {
    if let Some(plurals) = irregular::plurals(noun) {
        return plurals.iter().map(|plural| (*plural).to_owned()).collect();
    }
    // Compounds go like their last part: `gentleman`, `housewife`, `forefoot`.
    let compound = ["woman", "man", "child", "wife", "foot", "tooth", "knife", "thief", "wolf"]
        .iter()
        .find_map(|end| noun.strip_suffix(end).filter(|start| start.len() > 1).map(|start| (start, *end)))
        .filter(|_| !matches!(noun, "human" | "german" | "roman" | "norman" | "talisman"));
    match compound {
        Some((start, end)) => {
            irregular::plurals(end).unwrap_or_default().iter().map(|plural| format!("{start}{plural}")).collect()
        }
        None => with_s(noun),
    }
}

/// What -ing, -ed and -er are put to: the consonant doubled, or a silent e dropped.
fn stems(verb: &str) -> Vec<String> {
    let Some([before, middle, end]) = last::<3>(verb) else { return vec![verb.to_owned()] };
    if end == 'c' {
        return vec![format!("{verb}k")];
    }
    let closed = !is_vowel(end) && !matches!(end, 'w' | 'x' | 'y') && is_vowel(middle);
    // The u of `quit` and `equip` belongs to the q.
    let has_one_vowel = !is_vowel(before) || (before == 'u' && verb.contains("qu"));
    if !closed || !has_one_vowel {
        return vec![verb.to_owned()];
    }
    let doubled = format!("{verb}{end}");
    let syllables = verb.replace("qu", "q").chars().filter(|letter| is_vowel(*letter) || *letter == 'y').count();
    if syllables == 1 && !matches!(verb, "bus" | "gas") {
        return vec![doubled];
    }
    // British English doubles every l (`travelling`), and both spell some others in two ways (`focus`, `worship`).
    let may_double = matches!(end, 'l' | 's' | 'p') || DOUBLING.iter().any(|word| verb.ends_with(word));
    if may_double { vec![verb.to_owned(), doubled] } else { vec![verb.to_owned()] }
}

/// The comparative and the superlative.
fn compared(adjective: &str) -> [String; 2] {
    let stem = match (adjective.strip_suffix('e'), adjective.strip_suffix('y')) {
        (Some(stem), _) => stem.to_owned(),
        (None, Some(stem)) => format!("{stem}i"),
        (None, None) => stems(adjective).remove(0),
    };
    ["er", "est"].map(|end| format!("{stem}{end}"))
}

fn verb_forms(verb: &str) -> Vec<String> {
    if let Some(forms) = irregular::closed_verb(verb) {
        return forms.iter().map(|form| (*form).to_owned()).collect();
    }
    let mut forms = with_s(verb);
    // -ing
    if let Some(stem) = verb.strip_suffix("ie") {
        forms.push(format!("{stem}ying"));
    } else if verb.ends_with('e') && !["ee", "oe", "ye", "nge"].iter().any(|end| verb.ends_with(end)) {
        forms.push(format!("{}ing", &verb[..verb.len() - 1]));
    } else {
        forms.extend(stems(verb).into_iter().map(|stem| format!("{stem}ing")));
        // `singe` keeps its e, `change` does not.
        if verb.ends_with("nge") {
            forms.push(format!("{}ing", &verb[..verb.len() - 1]));
        }
    }
    // -ed
    if let Some(past) = irregular::past_forms(verb) {
        forms.extend(past.iter().map(|form| (*form).to_owned()));
    } else if verb.ends_with('e') {
        forms.push(format!("{verb}d"));
    } else if ends_in_consonant_and(verb, 'y') {
        forms.push(format!("{}ied", &verb[..verb.len() - 1]));
    } else {
        forms.extend(stems(verb).into_iter().map(|stem| format!("{stem}ed")));
    }
    forms
}

/// The nouns that `word` may be the plural of.
fn singulars(word: &str) -> Vec<String> {
    let known = irregular::singulars_of(word);
    if !known.is_empty() {
        return known.iter().map(|noun| (*noun).to_owned()).collect();
    }
    without_s(word)
}

/// The words that `word` may be the form in -s of.
fn without_s(word: &str) -> Vec<String> {
    let is_plain = word.len() < 4 || ["ss", "us", "is"].iter().any(|end| word.ends_with(end));
    if is_plain || NO_PLURALS.contains(&word) {
        return Vec::new();
    }
    if let Some(stem) = word.strip_suffix("ies").filter(|stem| stem.len() > 1) {
        return vec![format!("{stem}y"), format!("{stem}ie")];
    }
    let hisses = |stem: &&str| ["s", "x", "z", "ch", "sh", "o"].iter().any(|end| stem.ends_with(end));
    let short = word.strip_suffix("es").filter(hisses).map(ToOwned::to_owned);
    word.strip_suffix('s').map(ToOwned::to_owned).into_iter().chain(short).collect()
}

/// The verbs that `word` may be a form of.
fn verb_bases(word: &str) -> Vec<String> {
    let mut bases: Vec<String> = irregular::verbs_of(word).iter().map(|verb| (*verb).to_owned()).collect();
    bases.extend(without_s(word));
    for end in ["ing", "ed"] {
        let Some(stem) = word.strip_suffix(end).filter(|stem| stem.chars().any(|x| is_vowel(x) || x == 'y')) else {
            continue;
        };
        if stem.chars().count() < 2 {
            continue;
        }
        bases.push(stem.to_owned());
        bases.push(format!("{stem}e"));
        if let Some(stem) = stem.strip_suffix('i').filter(|_| end == "ed") {
            bases.push(format!("{stem}y"));
        }
        if let Some(stem) = stem.strip_suffix('y').filter(|_| end == "ing") {
            bases.push(format!("{stem}ie"));
        }
        if last::<2>(stem).is_some_and(|[before, letter]| before == letter) {
            let mut single = stem.to_owned();
            single.pop();
            bases.push(single);
        }
    }
    // Only words whose own forms include `word`, so that `string` is no form of `stre`.
    bases.retain(|base| verb_forms(base).iter().any(|form| form == word));
    bases
}

/// The American spelling of a British word.
fn american(word: &str) -> Option<String> {
    const OUR: [&str; 16] = [
        "arbour",
        "ardour",
        "armour",
        "behaviour",
        "clamour",
        "colour",
        "favour",
        "flavour",
        "harbour",
        "honour",
        "humour",
        "labour",
        "neighbour",
        "rumour",
        "savour",
        "vapour",
    ];
    if let Some(stem) = OUR.iter().find(|stem| word.starts_with(**stem)) {
        return Some(format!("{}or{}", &stem[..stem.len() - 3], &word[stem.len()..]));
    }
    if word.starts_with("grey") { Some(word.replacen("grey", "gray", 1)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_forms(word: &str, expected: &[&str], absent: &[&str]) {
        let forms = forms(word, Inflection::Any, true);
        for form in expected {
            assert!(forms.contains(*form), "{word}: no {form} in {forms:?}");
        }
        for form in absent {
            assert!(!forms.contains(*form), "{word}: {form} in {forms:?}");
        }
    }

    #[test]
    fn verbs_follow_the_rules_of_spelling() {
        assert_forms("kick", &["kick", "kicks", "kicked", "kicking"], &["kickked"]);
        assert_forms("hop", &["hops", "hopped", "hopping"], &["hoping", "hoped"]);
        assert_forms("hope", &["hopes", "hoped", "hoping"], &["hopping"]);
        assert_forms("carry", &["carries", "carried", "carrying"], &["carrys"]);
        assert_forms("play", &["plays", "played", "playing"], &["plaies"]);
        assert_forms("lie", &["lies", "lying", "lay", "lain", "lied"], &["lieing"]);
        assert_forms("agree", &["agreed", "agreeing"], &["agreing"]);
        assert_forms("open", &["opened", "opening"], &["openned"]);
        assert_forms("prefer", &["preferred", "preferring"], &[]);
        assert_forms("travel", &["travelled", "traveled"], &[]);
        assert_forms("quit", &["quitting", "quits"], &["quiting"]);
        assert_forms("picnic", &["picnicked", "picnicking"], &[]);
        assert_forms("fix", &["fixes", "fixed", "fixing"], &["fixxed"]);
        assert_forms("rain", &["rained", "raining"], &["rainned"]);
        assert_forms("change", &["changing", "changed"], &[]);
        assert_forms("teach", &["teaches", "taught", "teaching"], &["teached"]);
    }

    #[test]
    fn list_words_lead_back_to_their_base() {
        assert_forms("kicked", &["kick", "kicks", "kicking"], &[]);
        assert_forms("stopped", &["stop", "stopping"], &[]);
        assert_forms("dying", &["die", "died"], &[]);
        assert_forms("brought", &["bring", "bringing"], &[]);
        assert_forms("flies", &["fly", "flew"], &[]);
        assert_forms("feet", &["foot"], &[]);
        assert_forms("ashes", &["ash"], &[]);
        assert_forms("news", &[], &["new"]);
        assert_forms("glass", &["glasses"], &["glas"]);
        assert_forms("string", &["strung", "strings"], &["stre", "stred"]);
        assert_forms("bring", &["brought"], &["bred"]);
    }

    #[test]
    fn nouns_get_no_verb_forms() {
        let noun = |word| forms(word, Inflection::Noun, false);
        assert_eq!(noun("run"), BTreeSet::from(["run".to_owned(), "runs".to_owned()]));
        assert!(noun("gentleman").contains("gentlemen") && noun("housewife").contains("housewives"));
        assert!(noun("baby").contains("babies") && noun("half").contains("halves") && noun("hero").contains("heroes"));
        assert!(noun("colours").contains("colors"));
    }

    #[test]
    fn adjectives_are_compared() {
        assert_eq!(compared("wide"), ["wider", "widest"]);
        assert_eq!(compared("dry"), ["drier", "driest"]);
        assert_eq!(compared("hot"), ["hotter", "hottest"]);
        assert_forms("deep", &["deeper", "deepest"], &[]);
    }

    #[test]
    fn odd_words_are_no_trouble() {
        for word in ["", "a", "é", "ée", "ies", "s", "ing", "ed", "qu", "数", "o'clock", "ß", "yy", "iied"] {
            let _ = forms(word, Inflection::Any, true);
        }
    }
}
