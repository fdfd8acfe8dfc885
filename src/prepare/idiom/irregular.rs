//! Words whose forms no rule gives: verbs, plurals, and the verb `be`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Base, then every past form and past participle (old ones too, for old books). The forms in -s and -ing are regular.
const VERBS: &str = "\
abide abode abided|arise arose arisen|awake awoke awoken awaked|awaken awakened|backslide backslid|bear bore borne born|
beat beaten|become became|befall befell befallen|beget begot begat begotten|begin began begun|behold beheld|
bend bent|bereave bereft bereaved|beseech besought beseeched|beset|bestride bestrode bestridden|bet betted|
betake betook betaken|bid bade bidden|bide bode bided|bind bound|bite bit bitten|bleed bled|blow blew blown|
break broke broken brake|breed bred|bring brought|broadcast broadcasted|browbeat browbeaten|build built|
burn burnt burned|burst|buy bought|cast|catch caught|chide chid chidden chided|choose chose chosen|
cleave clove cleft cloven cleaved|cling clung|clothe clad clothed|come came|cost|creep crept|cut|deal dealt|dig dug|
dive dove dived|draw drew drawn|dream dreamt dreamed|drink drank drunk drunken|drive drove driven drave|
dwell dwelt dwelled|eat ate eaten|fall fell fallen|feed fed|feel felt|fight fought|find found|flee fled|fling flung|
fly flew flown|forbear forbore forborne|forbid forbade forbad forbidden|forecast forecasted|forego forewent foregone|
foresee foresaw foreseen|foretell foretold|forget forgot forgotten|forgive forgave forgiven|forgo forwent forgone|
forsake forsook forsaken|forswear forswore forsworn|freeze froze frozen|get got gotten gat|gild gilt gilded|
gird girt girded|give gave given|go went gone|grind ground|grow grew grown|hamstring hamstrung|hang hung hanged|
hear heard|heave hove heaved|hew hewed hewn|hide hid hidden|hit|hold held holden|hurt|inlay inlaid|input inputted|
keep kept|kneel knelt kneeled|knit knitted|know knew known|lay laid|lead led|lean leant leaned|leap leapt leaped|
learn learnt learned|leave left|lend lent|let|lie lay lain lied|light lit lighted|lose lost|make made|mean meant|
meet met|melt melted molten|miscast|misdeal misdealt|mishear misheard|mislay mislaid|mislead misled|
misread|misspell misspelt misspelled|misspend misspent|mistake mistook mistaken|
misunderstand misunderstood|mow mowed mown|offset|outbid|outdo outdid outdone|outgrow outgrew outgrown|
outrun outran|outshine outshone|outsell outsold|overbear overbore overborne|overcome overcame|overdo overdid overdone|
overdraw overdrew overdrawn|overeat overate overeaten|overhang overhung|overhear overheard|overlay overlaid|
override overrode overridden|overrun overran|oversee oversaw overseen|oversleep overslept|overtake overtook overtaken|
overthrow overthrew overthrown|partake partook partaken|pay paid|plead pled pleaded|prove proved proven|put|quit quitted|
read|rebuild rebuilt|recast|redo redid redone|relay relaid relayed|remake remade|rend rent|repay repaid|resell resold|
reset|retake retook retaken|retell retold|rethink rethought|rewrite rewrote rewritten|rid ridded|ride rode ridden|
ring rang rung|rise rose risen|rive rived riven|run ran|saw sawed sawn|say said|see saw seen|seek sought|sell sold|
send sent|set|sew sewed sewn|shake shook shaken|shave shaved shaven|shear shore sheared shorn|shed|
shine shone shined|shit shat shitted|shoe shod shoed|shoot shot|show showed shown|shred shredded|
shrink shrank shrunk shrunken|shrive shrove shriven|shut|sing sang sung|sink sank sunk sunken|sit sat|slay slew slain|
sleep slept|slide slid|sling slung|slink slunk|slit|smell smelt smelled|smite smote smitten|sneak snuck sneaked|
sow sowed sown|speak spoke spake spoken|speed sped speeded|spell spelt spelled|spend spent|spill spilt spilled|
spin spun span|spit spat|split|spoil spoilt spoiled|spread|spring sprang sprung|stand stood|stave stove staved|
steal stole stolen|stick stuck|sting stung|stink stank stunk|strew strewed strewn|stride strode stridden|
strike struck stricken|string strung|strive strove striven strived|swear swore sware sworn|sweat sweated|
sweep swept|swell swelled swollen|swim swam swum|swing swung|take took taken|teach taught|tear tore torn|
tell told|think thought|thrive throve thriven thrived|throw threw thrown|thrust|tread trod trodden treaded|
unbend unbent|unbind unbound|undercut|undergo underwent undergone|underlie underlay underlain|undersell undersold|
understand understood|undertake undertook undertaken|underwrite underwrote underwritten|undo undid undone|
unwind unwound|uphold upheld|upset|wake woke woken waked|waylay waylaid|wear wore worn|weave wove woven weaved|
wed wedded|weep wept|wet wetted|win won|wind wound|withdraw withdrew withdrawn|withhold withheld|
withstand withstood|wring wrung|write wrote writ written";

/// Singular, then plurals.
const PLURALS: &str = "\
man men|woman women|child children|foot feet|tooth teeth|goose geese|mouse mice|louse lice|ox oxen|person people|
penny pence pennies|die dice|brother brethren brothers|calf calves|elf elves|half halves|hoof hooves hoofs|knife knives|
leaf leaves|life lives|loaf loaves|scarf scarves|self selves|sheaf sheaves|shelf shelves|thief thieves|wharf wharves|
wife wives|wolf wolves|staff staves|beef beeves|crisis crises|axis axes|oasis oases|basis bases";

/// Words that are all forms of one verb. A contraction leaves `'s` for `is`; as `has` it is no verb of its own.
const WHOLE_VERBS: [&[&str]; 3] = [
    &["be", "am", "is", "are", "was", "were", "been", "being", "art", "wast", "wert", "'s"],
    &["have", "has", "had", "having", "hath", "hast", "hadst"],
    &["do", "does", "did", "done", "doing", "doth", "dost", "didst"],
];

/// Modal verbs and their past.
const MODALS: [&[&str]; 4] = [
    &["can", "could", "canst", "couldst"],
    &["will", "would", "wilt", "wouldst", "'d"],
    &["shall", "should", "shalt", "shouldst"],
    &["may", "might", "mayst"],
];

/// Past forms that are more often another word (`ground`, `felt`, `left`): a list that has them means that word.
const OTHER_WORDS: [&str; 29] = [
    "bit", "bore", "born", "bound", "brake", "broke", "clove", "cleft", "dove", "drove", "fell", "felt", "found",
    "gilt", "ground", "lay", "left", "lost", "rent", "rose", "saw", "shore", "shot", "span", "spoke", "stole", "stove",
    "thought", "wound",
];

/// One word to a verb's base, and back.
struct Table {
    forms: HashMap<&'static str, Vec<&'static str>>,
    bases: HashMap<&'static str, Vec<&'static str>>,
}

fn table(text: &'static str) -> Table {
    let mut table = Table { forms: HashMap::new(), bases: HashMap::new() };
    for entry in text.split('|') {
        let mut words = entry.split_whitespace();
        let Some(base) = words.next() else { continue };
        let others: Vec<&str> = words.collect();
        for form in &others {
            table.bases.entry(form).or_default().push(base);
        }
        table.forms.entry(base).or_default().extend(others);
    }
    table
}

static VERB_TABLE: LazyLock<Table> = LazyLock::new(|| table(VERBS));
static PLURAL_TABLE: LazyLock<Table> = LazyLock::new(|| table(PLURALS));

/// The past forms of an irregular verb; none for a regular one.
pub(super) fn past_forms(base: &str) -> Option<&'static [&'static str]> {
    VERB_TABLE.forms.get(base).map(Vec::as_slice)
}

/// The irregular verbs that `form` is surely a past form of.
pub(super) fn verbs_of(form: &str) -> &'static [&'static str] {
    if OTHER_WORDS.contains(&form) {
        return &[];
    }
    VERB_TABLE.bases.get(form).map(Vec::as_slice).unwrap_or_default()
}

/// The irregular plurals of a noun; none for a regular one.
pub(super) fn plurals(singular: &str) -> Option<&'static [&'static str]> {
    PLURAL_TABLE.forms.get(singular).map(Vec::as_slice)
}

/// The nouns that `form` is an irregular plural of.
pub(super) fn singulars_of(form: &str) -> &'static [&'static str] {
    PLURAL_TABLE.bases.get(form).map(Vec::as_slice).unwrap_or_default()
}

/// All forms of `be`, `have`, `do` or a modal verb, if `word` is one of them.
pub(super) fn closed_verb(word: &str) -> Option<&'static [&'static str]> {
    WHOLE_VERBS.iter().chain(&MODALS).find(|forms| !word.starts_with('\'') && forms.contains(&word)).copied()
}

/// Whether `word` is a form of `be`.
pub(super) fn is_be(word: &str) -> bool {
    WHOLE_VERBS[0].contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_two_hundred_verbs_and_no_word_twice() {
        let bases: Vec<&str> = VERBS.split('|').filter_map(|entry| entry.split_whitespace().next()).collect();
        assert!(bases.len() >= 200, "{}", bases.len());
        assert_eq!(VERB_TABLE.forms.len(), bases.len());
        let plurals = PLURALS.split('|').count();
        assert_eq!(PLURAL_TABLE.forms.len(), plurals);
    }

    #[test]
    fn forms_lead_back_to_their_verb_unless_they_are_another_word() {
        assert_eq!(past_forms("undergo"), Some(["underwent", "undergone"].as_slice()));
        assert_eq!(verbs_of("brought"), ["bring"]);
        assert!(verbs_of("ground").is_empty());
        assert_eq!(singulars_of("wolves"), ["wolf"]);
        assert!(closed_verb("was").is_some_and(|forms| forms.contains(&"be")));
        assert!(closed_verb("'s").is_none());
    }
}
