//! The table of cases, real text, files, odd input and speed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Instant;

use super::cases::CASES;
use super::*;
use crate::random::Random;
use crate::test_data::test_data;

/// The text without brackets, and what the brackets mark.
fn expected(marked: &str) -> (String, Vec<Match>) {
    let mut text = String::new();
    let mut matches: Vec<Match> = Vec::new();
    let mut is_closed = false;
    for letter in marked.chars() {
        let place = text.chars().count();
        match letter {
            '[' => matches.push(Match { idiom: 0, start: place, end: place }),
            ']' => matches.last_mut().unwrap().end = place,
            '0'..='9' if is_closed => matches.last_mut().unwrap().idiom = letter.to_digit(10).unwrap() as usize,
            _ => text.push(letter),
        }
        is_closed = letter == ']';
    }
    (text, matches)
}

fn part(text: &str, found: &Match) -> String {
    text.chars().skip(found.start).take(found.end - found.start).collect()
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn the_cases_are_found_and_nothing_else() {
    assert!(CASES.len() >= 80);
    let (mut right, mut wanted, mut got) = (0_usize, 0_usize, 0_usize);
    for (list, gap, marked) in CASES {
        let idioms = Idioms::parse(list.iter().copied()).unwrap();
        let (text, expected) = expected(marked);
        let found = idioms.find(&text, *gap);
        right += found.iter().filter(|found| expected.contains(found)).count();
        wanted += expected.len();
        got += found.len();
        if found != expected {
            let shown: Vec<String> = found.iter().map(|found| part(&text, found)).collect();
            println!("{list:?}, gap {gap}: {marked}\n    found {shown:?}");
        }
    }
    let recall = right as f64 / wanted as f64;
    let precision = right as f64 / got as f64;
    println!("{} cases: recall {recall:.4}, precision {precision:.4}", CASES.len());
    assert!(recall >= 0.95, "{recall}");
    assert!(precision >= 0.97, "{precision}");
}

/// A row of MAGPIE: the idiom, the sentence, and where in it the corpus has the idiom.
struct Real {
    idiom: String,
    sentence: String,
    span: Option<(usize, usize)>,
}

/// The development and test parts of MAGPIE, where the test data is.
fn magpie() -> Option<Vec<Real>> {
    let file = std::fs::File::open(test_data("magpie/dev_test.tsv.gz")?).unwrap();
    let reader = flate2::read::GzDecoder::new(std::io::BufReader::new(file));
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').from_reader(reader);
    let rows = reader.records().map(|record| {
        let record = record.unwrap();
        let (token, sentence, marked) = (&record[3], &record[4], &record[5]);
        // Some rows of the corpus have the mark in another sentence.
        let span = marked.split_once(token).and_then(|(before, behind)| {
            let middle = sentence.strip_prefix(before)?.strip_suffix(behind)?;
            Some((before.chars().count(), before.chars().count() + middle.chars().count()))
        });
        Real { idiom: record[2].to_owned(), sentence: sentence.to_owned(), span }
    });
    Some(rows.collect())
}

/// The share of MAGPIE's idioms that are found in their sentence, and of those, the share with the corpus's span (but
/// for a first article and punctuation at the end, which the corpus takes in as it comes).
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn measure_magpie(rows: &[Real], gap: usize) -> (f64, f64) {
    let idioms = Idioms::parse(rows.iter().map(|row| row.idiom.as_str())).unwrap();
    let (mut hits, mut agreeing, mut marked) = (0_usize, 0_usize, 0_usize);
    for row in rows {
        let found: Vec<Match> = idioms.find(&row.sentence, gap);
        let mut same =
            found.iter().filter(|found| idioms.name(found.idiom).eq_ignore_ascii_case(&row.idiom)).peekable();
        let shown: Vec<&str> = found.iter().map(|found| idioms.name(found.idiom)).collect();
        if same.peek().is_none() {
            if std::env::var_os("CLASP_SHOW_MISSES").is_some() {
                let span: String = row
                    .span
                    .map(|(start, end)| row.sentence.chars().skip(start).take(end - start).collect())
                    .unwrap_or_default();
                println!("missed: {} | {span} | {shown:?}", row.idiom);
            }
            continue;
        }
        hits += 1;
        if let Some((start, end)) = row.span {
            marked += 1;
            let same: Vec<&Match> = same.collect();
            let agrees = same.iter().any(|found| is_same_span(&row.sentence, (found.start, found.end), (start, end)));
            agreeing += usize::from(agrees);
            if !agrees && std::env::var_os("CLASP_SHOW_MISSES").is_some() {
                let span: String = row.sentence.chars().skip(start).take(end - start).collect();
                println!("span: {} | {span} | {}", row.idiom, part(&row.sentence, same[0]));
            }
        }
    }
    (hits as f64 / rows.len() as f64, agreeing as f64 / marked as f64)
}

fn is_same_span(sentence: &str, left: (usize, usize), right: (usize, usize)) -> bool {
    let words = |(start, end): (usize, usize)| -> Vec<String> {
        let text: String = sentence.chars().skip(start).take(end - start).collect();
        let mut words: Vec<String> = words::words(&text).into_iter().map(|word| word.text).collect();
        if words.first().is_some_and(|word| matches!(word.as_str(), "a" | "an" | "the")) {
            words.remove(0);
        }
        words
    };
    left.0 < right.1 && right.0 < left.1 && words(left) == words(right)
}

#[test]
fn the_idioms_of_magpie_are_found_in_their_sentences() {
    let Some(rows) = magpie() else { return };
    // The rest are sentences with the words in another order, and other determiners and numbers (`on two levels` for `on
    // the level`), which the corpus counts as its literal sense.
    for (gap, least) in [(0, 0.78), (1, 0.81), (2, 0.9), (3, 0.9)] {
        let (recall, agreement) = measure_magpie(&rows, gap);
        println!("MAGPIE, {} rows, gap {gap}: recall {recall:.4}, same span {agreement:.4}", rows.len());
        assert!(recall >= least && agreement >= 0.99, "gap {gap}: {recall} {agreement}");
    }
}

fn read(name: &str, content: &[u8]) -> Result<Idioms, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    Idioms::read(&path)
}

#[test]
fn a_list_is_read_from_text_and_from_tables() {
    let text = "\u{FEFF}# Idioms\r\nkick the bucket\r\n\r\nKick  the Bucket\r\nnonsense\r\nwild-goose chase\r\nwild goose \
                chase\r\n";
    let idioms = read("list.txt", text.as_bytes()).unwrap();
    assert_eq!((idioms.len(), idioms.single_words, idioms.duplicates), (2, 1, 2));
    assert_eq!((idioms.name(0), idioms.name(1), idioms.name(2)), ("kick the bucket", "wild-goose chase", ""));
    let tables: [(&str, &str); 3] = [
        ("list.csv", "idiom,sense\n\"day in, day out\",always\nby and by,soon\n"),
        ("list.tsv", "sense\tidiom\nalways\tday in, day out\nsoon\tby and by\n"),
        ("list.jsonl", "{\"idiom\": \"day in, day out\"}\n{\"idiom\": \"by and by\", \"sense\": 1}\n"),
    ];
    for (name, content) in tables {
        let idioms = read(name, content.as_bytes()).unwrap();
        assert_eq!((idioms.len(), idioms.name(0)), (2, "day in, day out"), "{name}");
        assert_eq!(idioms.find("BY AND BY", 0), [Match { idiom: 1, start: 0, end: 9 }], "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_list_is_told_with_its_line() {
    let told = |name: &str, content: &[u8]| read(name, content).unwrap_err().to_string();
    assert!(told("list.txt", b"# nothing\n\n").contains("no idiom in it"));
    assert!(told("list.txt", b"").contains("no idiom in it"));
    assert!(told("list.txt", b"word\nother\n").contains("only single words (2)"));
    assert!(told("list.txt", b"by and by\n\xFF\xFE\n").contains("line 2: not valid UTF-8"));
    assert!(
        told("list.txt", b"by and by\n\nsomeone's something\n").contains("line 3: `someone's something` has slots")
    );
    let both = told("list.txt", b"one's someone\n???\n");
    assert!(both.contains("line 1") && both.contains("line 2") && both.contains("2 problems"), "{both}");
    assert!(told("list.csv", b"phrase\nby and by\n").contains("no column `idiom`"));
    assert!(told("list.jsonl", b"{\"idiom\": 3}\n").contains("line 1: column `idiom` holds no text"));
    assert!(told("list.tsv", b"").contains("no idiom in it"));
    let missing = Idioms::read(Path::new("/nowhere/list.txt")).unwrap_err().to_string();
    assert!(missing.contains("no such file"), "{missing}");
}

#[test]
fn idioms_can_be_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Idioms>();
}

/// Strings of pieces that are likely to hit the corners, and of any characters.
fn odd_text(random: &mut Random) -> String {
    const PIECES: [&str; 40] = [
        "one's",
        "someone",
        "someone's",
        "something",
        "oneself",
        "—",
        "(",
        ")",
        "/",
        "the",
        "a",
        "kick",
        "kicked",
        "be",
        "'s",
        "n't",
        "ca",
        "can't",
        "’",
        "'",
        "'tis",
        "it",
        "up",
        "and",
        "of",
        "in",
        "his",
        "her",
        "boys'",
        "-",
        ".",
        ",",
        "İstanbul",
        "ß",
        "é",
        "数",
        "🦀",
        "\u{301}",
        "can",
        "will",
    ];
    let mut text = String::new();
    for _ in 0..random.below(14) {
        if random.below(8) == 0 {
            let code = u32::try_from(random.below(0x2_0000)).unwrap_or_default();
            text.push(char::from_u32(code).unwrap_or('\t'));
        } else {
            text.push_str(PIECES[random.below(PIECES.len())]);
        }
        if random.below(4) > 0 {
            text.push(' ');
        }
    }
    text
}

#[test]
fn any_list_and_any_text_give_matches_within_the_text() {
    let mut random = Random::new(11);
    let mut found = 0_usize;
    for round in 0..3000 {
        let list: Vec<String> = (0..4).map(|_| odd_text(&mut random)).collect();
        let good = list.iter().map(String::as_str).filter(|line| Idioms::parse([*line]).is_ok());
        let idioms = Idioms::parse(good).unwrap();
        // Half of the texts are idioms themselves.
        let text = if round % 2 == 0 { list.join(" ") } else { odd_text(&mut random) };
        let count = text.chars().count();
        let mut reached = 0;
        let matches = idioms.find(&text, random.below(5));
        for one in matches {
            assert!(
                one.idiom < idioms.len() && reached <= one.start && one.start < one.end && one.end <= count,
                "{text:?}"
            );
            reached = one.end;
            found += 1;
        }
    }
    assert!(found > 500, "{found}");
}

#[test]
fn a_long_list_and_a_long_text_of_one_word_take_no_time() {
    let began = Instant::now();
    let list = format!("{} last", "same ".repeat(39));
    let slots = "someone something ".repeat(19) + "end";
    let idioms = Idioms::parse([list.as_str(), slots.as_str()]).unwrap();
    assert_eq!(idioms.find(&"same ".repeat(1000), 100), []);
    let _ = idioms.find(&("word ".repeat(200) + "end"), 100);
    assert!(began.elapsed().as_secs_f64() < 5.0, "{:?}", began.elapsed());
}

/// A made-up word of two or three syllables.
fn made_up_word(random: &mut Random) -> String {
    const SYLLABLES: [&str; 12] = ["ba", "ke", "lo", "mi", "nu", "pra", "ste", "vo", "dri", "ga", "fle", "tu"];
    (0..2 + random.below(2)).map(|_| SYLLABLES[random.below(SYLLABLES.len())]).collect::<String>() + "k"
}

#[test]
fn three_thousand_transcripts_and_a_list_of_seventeen_hundred_take_a_second() {
    const FUNCTION: [&str; 24] = [
        "the", "the", "the", "of", "of", "and", "and", "a", "to", "in", "in", "his", "on", "it", "with", "was", "he",
        "at", "had", "for", "by", "up", "out", "all",
    ];
    let mut random = Random::new(5);
    let content: Vec<String> = {
        let words: BTreeSet<String> = (0..1500).map(|_| made_up_word(&mut random)).collect();
        words.into_iter().collect()
    };
    // Frequent words are few, as in any language.
    let word = |random: &mut Random| -> String {
        let place = random.below(content.len()).min(random.below(content.len())).min(random.below(content.len()));
        content[place].clone()
    };
    let shapes = ["V the N", "in the N", "V N", "on one's N", "V someone's N", "N and N", "V up the N of N", "in N N"];
    let list: Vec<String> = (0..1700)
        .map(|place| {
            let shape = shapes[place % shapes.len()];
            let filled: Vec<String> = shape
                .split(' ')
                .map(|part| if matches!(part, "V" | "N") { word(&mut random) } else { part.to_owned() })
                .collect();
            filled.join(" ")
        })
        .collect();
    let texts: Vec<String> = (0..3000)
        .map(|_| {
            (0..35).fold(String::new(), |mut text, _| {
                let next = if random.below(2) == 0 {
                    FUNCTION[random.below(FUNCTION.len())].to_owned()
                } else {
                    word(&mut random)
                };
                // Writing to a string cannot fail.
                let _ = write!(text, "{} ", next.to_uppercase());
                text
            })
        })
        .collect();
    let began = Instant::now();
    let idioms = Idioms::parse(list.iter().map(String::as_str)).unwrap();
    let built = began.elapsed();
    let count: usize = texts.iter().map(|text| idioms.find(text, 3).len()).sum();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} idioms in {built:?}, then {} texts: {seconds:.3} s in all, {count} matches",
        idioms.len(),
        texts.len()
    );
    assert!(count > 100, "{count}");
    // The target is 28,539 transcripts in 10 s on two cores, so these in 2 s on one; a loaded machine may need longer.
    assert!(seconds < 4.0, "{seconds}");
}
