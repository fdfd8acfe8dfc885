//! The sentences of the synthetic corpus: everyday requests and statements in which something starts, opens or arrives,
//! or in which something stops, closes or leaves. That is the one bit that the words carry.
//!
//! Everything around the cue (who asks, which thing, where, when) is drawn before the bit is looked at, and both sides
//! have as many cues, so no other word says anything about it. No sentence knows how it will be spoken.

use crate::random::Random;

/// What the words of a sentence say: the bit that the text carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// Something starts, opens or arrives.
    Start,
    /// Something stops, closes or leaves.
    Stop,
}

impl Meaning {
    /// Both meanings, in the order of the labels.
    pub const ALL: [Self; 2] = [Self::Start, Self::Stop];
}

/// Sentences of one pattern: an opening, a cue, a thing, a place or none, a time or none.
struct Family {
    /// Whether the thing comes before the cue ("the train is arriving") or after it ("switch on the lamp").
    thing_first: bool,
    openings: &'static [&'static str],
    things: &'static [&'static str],
    start_cues: &'static [&'static str],
    stop_cues: &'static [&'static str],
    places: &'static [&'static str],
    times: &'static [&'static str],
}

/// Openings of a request; each takes a bare infinitive. None is empty: byte-level BPE gives the first word of a text
/// tokens of its own, and a cue there would be seen too seldom to be learnt.
const REQUESTS: &[&str] =
    &["please", "could you", "would you please", "I want to", "let us", "remember to", "it is time to", "we should"];

/// Openings of a statement; each takes a whole clause.
const STATEMENTS: &[&str] = &["", "", "I think", "I hear that", "they say", "it seems", "look", "my phone says"];

/// Times that fit a request and a statement in the progressive alike.
const TIMES: &[&str] = &["", "", "now", "today", "this morning", "tonight", "at noon", "after lunch", "in a moment"];

const FAMILIES: [Family; 4] = [
    Family {
        thing_first: false,
        openings: REQUESTS,
        things: &[
            "the lamp",
            "the heater",
            "the radio",
            "the fan",
            "the oven",
            "the printer",
            "the speakers",
            "the coffee machine",
        ],
        start_cues: &["switch on", "turn on", "plug in", "start"],
        stop_cues: &["switch off", "turn off", "unplug", "stop"],
        places: &["", "", "in the kitchen", "upstairs", "in the hall", "in the office"],
        times: TIMES,
    },
    Family {
        thing_first: false,
        openings: REQUESTS,
        things: &["the door", "the window", "the gate", "the blinds", "the curtains", "the garage"],
        start_cues: &["open", "unlock", "unbolt", "pull open"],
        stop_cues: &["close", "lock", "shut", "push shut"],
        places: &["", "", "in the bedroom", "upstairs", "at the back", "to the garden"],
        times: TIMES,
    },
    Family {
        thing_first: false,
        openings: REQUESTS,
        things: &[
            "the meeting",
            "the lesson",
            "the game",
            "the film",
            "the music",
            "the recording",
            "the call",
            "the download",
        ],
        start_cues: &["begin", "launch", "resume", "play"],
        stop_cues: &["end", "cancel", "finish", "pause"],
        places: &["", "", "for the children", "for everyone", "in the big room", "with the team"],
        times: TIMES,
    },
    Family {
        thing_first: true,
        openings: STATEMENTS,
        things: &[
            "the train",
            "the last bus",
            "the ferry",
            "your taxi",
            "my sister",
            "the doctor",
            "our guest",
            "the new teacher",
        ],
        start_cues: &["is arriving", "is coming", "is returning", "is on the way here"],
        stop_cues: &["is leaving", "is going", "is departing", "is on the way out"],
        places: &["", "", "with the luggage", "from the south", "by itself", "as planned"],
        times: TIMES,
    },
];

/// Draws one sentence with the given meaning: lower case but for "I", no final stop.
pub fn draw_sentence(random: &mut Random, meaning: Meaning) -> String {
    let family = &FAMILIES[random.below(FAMILIES.len())];
    let opening = pick(random, family.openings);
    let thing = pick(random, family.things);
    let place = pick(random, family.places);
    let time = pick(random, family.times);
    let cue = pick(
        random,
        match meaning {
            Meaning::Start => family.start_cues,
            Meaning::Stop => family.stop_cues,
        },
    );
    let (first, second) = if family.thing_first { (thing, cue) } else { (cue, thing) };
    let words: Vec<&str> = [opening, first, second, place, time].into_iter().filter(|part| !part.is_empty()).collect();
    words.join(" ")
}

fn pick(random: &mut Random, choices: &[&'static str]) -> &'static str {
    choices[random.below(choices.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn draw_many(meaning: Meaning, count: usize) -> Vec<String> {
        let mut random = Random::new(11);
        (0..count).map(|_| draw_sentence(&mut random, meaning)).collect()
    }

    #[test]
    fn both_sides_of_a_family_have_as_many_cues_and_share_none() {
        let mut all = HashSet::new();
        for family in &FAMILIES {
            assert_eq!(family.start_cues.len(), family.stop_cues.len());
            for cue in family.start_cues.iter().chain(family.stop_cues) {
                assert!(all.insert(*cue), "{cue} is listed twice");
            }
        }
        assert!(all.len() >= 32, "many different words carry the bit: {}", all.len());
    }

    #[test]
    fn the_grammar_has_thousands_of_sentences_and_no_sentence_means_both() {
        let start: HashSet<String> = draw_many(Meaning::Start, 3000).into_iter().collect();
        let stop: HashSet<String> = draw_many(Meaning::Stop, 3000).into_iter().collect();
        assert!(start.len() > 2500 && stop.len() > 2500, "{} {}", start.len(), stop.len());
        assert!(start.is_disjoint(&stop));
    }

    #[test]
    fn no_single_word_marks_a_meaning() {
        for meaning in Meaning::ALL {
            let sentences = draw_many(meaning, 2000);
            let other = draw_many(if meaning == Meaning::Start { Meaning::Stop } else { Meaning::Start }, 2000);
            let words = |texts: &[String]| -> HashSet<String> {
                texts.iter().flat_map(|text| text.split(' ').map(str::to_owned)).collect()
            };
            for word in words(&sentences).difference(&words(&other)) {
                let holding = sentences.iter().filter(|text| text.split(' ').any(|part| part == word)).count();
                assert!(holding < 400, "{word} alone marks {holding} of 2000 sentences");
            }
        }
    }

    #[test]
    fn what_surrounds_the_cue_is_the_same_for_both_meanings() {
        // One seed, two meanings: the same draws, so that the sentences differ in the cue alone.
        for seed in 0..200 {
            let start = draw_sentence(&mut Random::new(seed), Meaning::Start);
            let stop = draw_sentence(&mut Random::new(seed), Meaning::Stop);
            let strip = |text: &str| {
                let family_cues = FAMILIES.iter().flat_map(|family| family.start_cues.iter().chain(family.stop_cues));
                let longest = family_cues.filter(|cue| text.contains(**cue)).max_by_key(|cue| cue.len());
                longest.map(|cue| text.replacen(cue, "*", 1))
            };
            assert_eq!(strip(&start), strip(&stop), "{start} / {stop}");
        }
    }

    #[test]
    fn sentences_are_clean() {
        for text in draw_many(Meaning::Start, 500).iter().chain(&draw_many(Meaning::Stop, 500)) {
            assert_eq!(text.trim(), text);
            assert!(!text.contains("  ") && text.split(' ').count() >= 2, "{text}");
            assert!(text.chars().all(|letter| letter.is_ascii_alphabetic() || letter == ' '), "{text}");
        }
    }
}
