use std::path::Path;

use serde_json::json;

use super::read::{Utterance, head, transcript, without_tags};
use super::*;
use crate::prepare::folder;
use crate::prepare::reading::testing::{declared, ids, never_panics, put, put_wav, silent};

/// The lines of a label file: a head line and what the raters said, for each utterance and its code.
fn labels(end: &str, utterances: &[(&str, &str)]) -> String {
    let block = |(i, (id, code)): (usize, &(&str, &str))| {
        let lines = [
            format!("[{i}.2500 - {i}.7500]\t{id}\t{code}\t[2.5000, 3.0000, 4.5000]"),
            "C-E2:\tNeutral;\t()".to_owned(),
            "C-F1:\tFrustration; Anger;\t(one [2.0 - 3.0] of two)".to_owned(),
            "A-E3:\tval 3; act 2; dom  3;\t()".to_owned(),
        ];
        lines.join(end)
    };
    let blocks: Vec<String> = utterances.iter().enumerate().map(block).collect();
    format!("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]{end}{end}{}", blocks.join(&format!("{end}{end}")))
}

/// Session `n` has six utterances of the four classes, three for each actor, one without a majority, and `n - 1` more
/// neutral ones of the man: 6, 7, 8, 9 and 10, so 40 in all.
fn release(root: &Path) {
    for session in 1..=5 {
        let folder = root.join(format!("Session{session}"));
        let label = |name: &str| folder.join("dialog/EmoEvaluation").join(name);
        let words = |name: &str| folder.join("dialog/transcriptions").join(name);
        // The woman wears the markers, and both talk.
        let one = format!("Ses0{session}F_impro01");
        let [first, second, third, tie] = ["F000", "F001", "M000", "M001"].map(|turn| format!("{one}_{turn}"));
        let rows = [(&*first, "neu"), (&*second, "ang"), (&*third, "hap"), (&*tie, "xxx")];
        put(&label(&format!("{one}.txt")), labels("\n", &rows));
        let lines = format!(
            "F: [BREATHING]\n{first} [000.2500-000.7500]: Well, hello.\n{second} [001.2500-001.7500]: [LAUGHTER] Go \
             [BREATHING_OUT] away!\n{one}_MXX0 [001.8000-001.9000]: Hm.\n{third} [002.2500-002.7500]: \
             [LAUGHTER]\n{tie}: Nobody agrees.\n"
        );
        put(&words(&format!("{one}.txt")), lines);
        // The man wears the markers; line ends of another system.
        let two = format!("Ses0{session}M_script01_1b");
        let [first, second, third] = ["F000", "M000", "M001"].map(|turn| format!("{two}_{turn}"));
        let rows = [(&*first, "exc"), (&*second, "sad"), (&*third, "neu")];
        put(&label(&format!("{two}.txt")), labels("\r\n", &rows) + "\r\n");
        // The first one has times on its second line only; the last has no times at all.
        let lines = format!(
            "{first}: No times.\r\n{first} [000.2500-000.7500]: The moon: is it out?\r\n{second} \
             [001.2500-001.7500]: Oh.\r\nM: Yeah.\r\n{third}: And I said so."
        );
        put(&words(&format!("{two}.txt")), lines);
        let three = format!("Ses0{session}F_impro02a");
        let more: Vec<String> = (1..session).map(|turn| format!("{three}_M{turn:03}")).collect();
        let rows: Vec<(&str, &str)> = more.iter().map(|id| (id.as_str(), "neu")).collect();
        put(&label(&format!("{three}.txt")), labels("\n", &rows));
        put(&words(&format!("{three}.txt")), "");
        // What lies about in the real release.
        put(&label(&format!("._{one}.txt")), "\0\u{5}\u{16}\u{7}[0 - 1]\tx\tneu\t[1, 1, 1]");
        put(&label(".DS_Store"), "x");
        put(&label(&format!("Categorical/e2_{one}.txt")), "[0 - 1]\tx\tneu\t[1, 1, 1]");
        put(&label("Attribute/notes.txt"), "[0 - 1]\tx\tneu\t[1, 1, 1]");
        put(&words(&format!("._{one}.txt")), "x");
        put(&folder.join("sentences/wav/._x"), "x");
        for dialog in [&one, &two] {
            for turn in ["F000", "F001", "M000", "M001"] {
                put_wav(&folder.join(format!("sentences/wav/{dialog}/{dialog}_{turn}.wav")));
            }
        }
        for id in more {
            put_wav(&folder.join(format!("sentences/wav/{three}/{id}.wav")));
        }
    }
}

fn prepared(root: &Path, protocol: Protocol) -> Corpus {
    let options = IemocapOptions { root: root.to_path_buf(), protocol };
    prepare(&options, &AudioOptions::default(), &silent).unwrap()
}

fn sizes(corpus: &Corpus) -> Vec<[usize; 3]> {
    corpus.folds.iter().map(|fold| [0, 1, 2].map(|part| fold.parts[part].1.len())).collect()
}

#[test]
fn rows_and_counts_are_those_of_the_label_files() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("IEMOCAP_full_release");
    release(&root);
    let reading = read(temporary.path()).unwrap();
    assert_eq!(reading, read(&root).unwrap());
    assert_eq!(
        ids(&reading.rows[..7]),
        [
            "Ses01F_impro01_F000",
            "Ses01F_impro01_F001",
            "Ses01F_impro01_M000",
            "Ses01M_script01_1b_F000",
            "Ses01M_script01_1b_M000",
            "Ses01M_script01_1b_M001",
            "Ses02F_impro01_F000",
        ]
    );
    let texts: Vec<&str> = reading.rows.iter().take(6).map(|row| row.text.as_deref().unwrap()).collect();
    assert_eq!(texts, ["Well, hello.", "Go away!", "", "The moon: is it out?", "Oh.", "And I said so."]);
    let speakers: Vec<&str> = reading.rows.iter().take(6).map(|row| row.speaker.as_deref().unwrap()).collect();
    // By who talks: the fourth is a woman's turn in a dialogue whose prefix is the man's.
    assert_eq!(speakers, ["Ses01F", "Ses01F", "Ses01M", "Ses01F", "Ses01M", "Ses01M"]);
    let row = &reading.rows[3];
    assert_eq!((row.label.as_deref(), row.group.as_deref()), (Some("happy"), Some("Ses01M_script01_1b")));
    // The column line, a blank one, then the head line.
    assert_eq!((row.line, row.start, row.end), (3, None, None));
    assert_eq!(
        row.audio.as_deref(),
        Some(&*root.join("Session1/sentences/wav/Ses01M_script01_1b/Ses01M_script01_1b_F000.wav"))
    );
    assert_eq!(
        json!(row.extra),
        json!({
            "session": 1, "style": "scripted", "emotion": "exc", "valence": 2.5, "activation": 3.0, "dominance": 4.5,
        })
    );
    assert_eq!(
        json!(reading.counts),
        json!({
            "labelled": 45,
            "utterances": 40,
            "by_code": {"ang": 5, "exc": 5, "hap": 5, "neu": 20, "sad": 5, "xxx": 5},
            "by_class": {"angry": 5, "happy": 10, "neutral": 20, "sad": 5},
            "by_session": {"Ses01": 6, "Ses02": 7, "Ses03": 8, "Ses04": 9, "Ses05": 10},
            "by_speaker": {
                "Ses01F": 3, "Ses01M": 3, "Ses02F": 3, "Ses02M": 4, "Ses03F": 3, "Ses03M": 5, "Ses04F": 3, "Ses04M": 6,
                "Ses05F": 3, "Ses05M": 7,
            },
            "by_style": {"improvised": 25, "scripted": 15},
            // The laughs of five sessions; the ten more that no file transcribes.
            "empty_texts": 15,
            "transcripts_missing": 10,
        })
    );
    let notes = reading.notes.join("\n");
    for expected in [
        "all 40 of the published 5531",
        "Session3 angry 1 of the published 240",
        "Ses05M 7 of the published 651",
        "fru 0 of the published 1849",
        "no transcript, so an empty text: 10 (`Ses02F_impro02a_M001`, ",
        "so empty: 5",
    ] {
        assert!(notes.contains(expected), "{notes}");
    }
    // Three label files and three transcripts in each session.
    assert_eq!((reading.sources.len(), notes.contains("Latin-1")), (30, false));
}

#[test]
fn published_counts_sum_up() {
    assert_eq!(PUBLISHED.iter().flatten().sum::<usize>(), 5531);
    assert_eq!(PUBLISHED_SPEAKERS.iter().map(|(_, count)| count).sum::<usize>(), 5531);
    assert_eq!(PUBLISHED_CODES.iter().map(|(_, count)| count).sum::<usize>(), 10_039);
    for (i, counts) in PUBLISHED.iter().enumerate() {
        let speakers: usize = PUBLISHED_SPEAKERS[2 * i..2 * i + 2].iter().map(|(_, count)| count).sum();
        assert_eq!(counts.iter().sum::<usize>(), speakers);
    }
}

#[test]
fn kang2022_holds_a_session_out_as_dev_and_test() {
    let temporary = tempfile::tempdir().unwrap();
    release(temporary.path());
    let corpus = prepared(temporary.path(), Protocol::Kang2022);
    assert_eq!((corpus.name, corpus.protocol.as_str()), ("iemocap", "kang2022"));
    assert_eq!(sizes(&corpus), [[34, 6, 6], [33, 7, 7], [32, 8, 8], [31, 9, 9], [30, 10, 10]]);
    for (i, fold) in corpus.folds.iter().enumerate() {
        assert_eq!(fold.parts[1].1, fold.parts[2].1);
        assert!(fold.parts[2].1.iter().all(|row| session(row) as usize == i + 1));
        assert!(fold.parts[0].1.iter().all(|row| session(row) as usize != i + 1));
        let scripted = r#"{"key":"style","value":"scripted"}"#;
        let expected = [
            format!("text train dev {scripted}"),
            format!("text train test {scripted}"),
            format!("text dev test {scripted}"),
            r#"text train dev {"words":7}"#.to_owned(),
            r#"text train test {"words":7}"#.to_owned(),
            r#"text dev test {"words":7}"#.to_owned(),
            "speaker dev test".to_owned(),
            "text dev test".to_owned(),
            "audio dev test".to_owned(),
        ];
        assert_eq!(declared(&fold.shared), expected);
    }
    let written = folder::write(&temporary.path().join("out"), corpus).unwrap();
    assert_eq!((written.manifests.len(), written.splits.len()), (15, 5));
    assert_eq!(written.splits[0].options["protocol"], "kang2022");
}

#[test]
fn strict_keeps_the_next_session_for_dev() {
    let temporary = tempfile::tempdir().unwrap();
    release(temporary.path());
    let corpus = prepared(temporary.path(), Protocol::Strict);
    assert_eq!(sizes(&corpus), [[27, 7, 6], [25, 8, 7], [23, 9, 8], [21, 10, 9], [24, 6, 10]]);
    for (fold, [dev, test]) in corpus.folds.iter().zip([[2, 1], [3, 2], [4, 3], [5, 4], [1, 5]]) {
        assert!(fold.parts[1].1.iter().all(|row| session(row) == dev));
        assert!(fold.parts[2].1.iter().all(|row| session(row) == test));
        assert_eq!(fold.shared.len(), 6);
    }
    no_speaker_crosses(&corpus);
}

#[test]
fn speaker10_holds_one_speaker_out() {
    let temporary = tempfile::tempdir().unwrap();
    release(temporary.path());
    let corpus = prepared(temporary.path(), Protocol::Speaker10);
    assert_eq!(
        sizes(&corpus),
        [
            [34, 3, 3],
            [34, 3, 3],
            [33, 4, 3],
            [33, 3, 4],
            [32, 5, 3],
            [32, 3, 5],
            [31, 6, 3],
            [31, 3, 6],
            [30, 7, 3],
            [30, 3, 7]
        ]
    );
    for (fold, (speaker, _)) in corpus.folds.iter().zip(PUBLISHED_SPEAKERS) {
        assert!(fold.parts[2].1.iter().all(|row| row.speaker.as_deref() == Some(speaker)));
        assert_eq!(fold.shared.len(), 6);
    }
    no_speaker_crosses(&corpus);
    assert!(corpus.notes.iter().any(|note| note.contains("two sides of the same dialogues")));
}

fn no_speaker_crosses(corpus: &Corpus) {
    for fold in &corpus.folds {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (part, rows) in &fold.parts {
            for row in rows {
                assert_eq!(seen.entry(row.speaker.as_deref().unwrap()).or_insert(part), part);
            }
        }
        assert_eq!(seen.len(), 10);
    }
}

#[test]
fn everything_wrong_is_said_with_its_line() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    release(root);
    let path = root.join("Session2/dialog/EmoEvaluation/Ses02F_impro09.txt");
    let lines = [
        "[1.0 - 2.0]\tSes02F_impro09_F000\tjoy\t[1, 1, 1]",
        "[1.0 - x]\tSes02F_impro09_F001\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes02F_impro09_F002\tneu\t[1, 1]",
        "[1.0 - 2.0]\tSes02F_impro09_F003\tneu",
        "[1.0 - 2.0]\tsomething\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes03F_impro09_F000\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes02F_impro01_F000\tneu\t[1, 1, 1]",
        "1.0 - 2.0]\tSes02F_impro09_F004\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes02F_impro09_F005\tneu\t[1, NaN, 1]",
    ];
    put(&path, lines.join("\n"));
    std::fs::remove_dir_all(root.join("Session5")).unwrap();
    let error = read(root).unwrap_err().to_string();
    for expected in [
        "Ses02F_impro09.txt, line 1: unknown label `joy`; the labels are `ang`, `dis`",
        "line 2: `[1.0 - x]` is no time span",
        "line 3: `[1, 1]` is not three numbers",
        "line 4: 3 fields, not 4",
        "line 5: `something` is no utterance of IEMOCAP",
        "line 6: `Ses03F_impro09_F000` is of another session",
        "line 7: the utterance Ses02F_impro01_F000 is already labelled in",
        "Ses02F_impro01.txt, line 3",
        "line 8: `1.0 - 2.0]` is no time span",
        "line 9: `[1, NaN, 1]` is not three numbers",
        "Session5: no such folder",
    ] {
        assert!(error.contains(expected), "{error}");
    }
    let error = read(&root.join("Session1")).unwrap_err().to_string();
    assert!(error.contains("Session1/Session1: no such folder; name IEMOCAP_full_release"), "{error}");
    std::fs::remove_dir_all(root.join("Session1/dialog/transcriptions")).unwrap();
    std::fs::remove_file(path).unwrap();
    let error = read(root).unwrap_err().to_string();
    assert!(error.contains("Session1/dialog/transcriptions: no text files in it"), "{error}");
}

#[test]
fn other_bytes_are_latin_and_audio_that_is_not_there_is_bad() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    release(root);
    let path = root.join("Session1/dialog/transcriptions/Ses01F_impro01.txt");
    put(&path, b"Ses01F_impro01_F000 [0-1]: Caf\xe9.\nSes01F_impro01_F000 [1-2]: Again.\n");
    let reading = read(root).unwrap();
    assert_eq!(reading.rows[0].text.as_deref(), Some("Café."));
    let notes = reading.notes.join("\n");
    assert!(notes.contains("not UTF-8, read as Latin-1: 1") && notes.contains("more than one timed"), "{notes}");
    std::fs::remove_file(root.join("Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav")).unwrap();
    let options = IemocapOptions { root: root.to_path_buf(), protocol: Protocol::Strict };
    let error = prepare(&options, &AudioOptions::default(), &silent).unwrap_err().to_string();
    assert!(error.contains("1 of 40 utterances") && error.contains("Ses01F_impro01_F000` (line 3)"), "{error}");
    let corpus = prepare(&options, &AudioOptions { convert: None, skip_bad: true }, &silent).unwrap();
    assert_eq!((sizes(&corpus)[0], corpus.skipped.len()), ([27, 7, 5], 1));
    // What is left out is not counted as there.
    assert_eq!((&corpus.counts["utterances"], &corpus.counts["by_speaker"]["Ses01F"]), (&json!(39), &json!(2)));
    // With conversion each row has its length, and the audio lies elsewhere.
    let convert = AudioOptions { convert: Some(root.join("converted")), skip_bad: true };
    let corpus = prepare(&options, &convert, &silent).unwrap();
    let row = &corpus.folds[0].parts[0].1[0];
    assert_eq!((row.duration, row.audio.as_ref().unwrap().starts_with(root.join("converted"))), (Some(0.1), true));
}

#[test]
fn ids_say_who_talks_and_how() {
    let of = |id| Utterance::parse(id).map(|found| (found.session, found.speaker(), found.style, found.dialog));
    for (id, speaker, style, dialog) in [
        ("Ses01F_impro04_M007", "Ses01M", "improvised", "Ses01F_impro04"),
        ("Ses02M_impro08b_F000", "Ses02F", "improvised", "Ses02M_impro08b"),
        ("Ses03F_script03_2_M044", "Ses03M", "scripted", "Ses03F_script03_2"),
        ("Ses05M_script01_1b_F012", "Ses05F", "scripted", "Ses05M_script01_1b"),
    ] {
        assert_eq!(of(id), Some((id.as_bytes()[4] - b'0', speaker.to_owned(), style, dialog)));
    }
    for id in [
        "Ses01F_impro04_MXX0",
        "Ses01F_impro04_X000",
        "Ses01F_impro04",
        "Ses06F_impro04_M007",
        "Ses001F_impro04_M007",
        "Ses01F_other04_M007",
        "Ses01F_impro04/_M007",
        "Ses01F_impro04_M",
        "",
    ] {
        assert_eq!(of(id), None, "{id}");
    }
}

#[test]
fn lines_are_read_with_any_spaces() {
    for line in [
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]",
        "[ 6.2901-8.2357 ] \t Ses01F_impro01_F000\tneu \t[2.5,2.5,2.5] ",
    ] {
        let head = head(line).unwrap().unwrap();
        assert_eq!((head.utterance.id, head.code, head.ratings), ("Ses01F_impro01_F000", "neu", [2.5; 3]));
    }
    for line in ["", "%\t[", "C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  3;\t()"] {
        assert!(head(line).is_none());
    }
    let id = "Ses01F_impro01_F000";
    for (line, expected) in [
        ("Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.", Some((id, true, "Excuse me."))),
        ("Ses01F_impro01_F000 [006.2901 - 008.2357] : Excuse: me.", Some((id, true, "Excuse: me."))),
        ("Ses01F_impro01_F000: [GARBAGE] me.", Some((id, false, "[GARBAGE] me."))),
        ("Ses01F_impro01_F000 [x-y]: Excuse me.", None),
        ("Ses01F_impro01_FXX0 [006.2901-008.2357]: Hm.", None),
        ("F: Yes.", None),
        ("no colon", None),
    ] {
        assert_eq!(transcript(line), expected);
    }
    for (text, expected) in [
        ("[LAUGHTER] Yes. [BREATHING]", "Yes."),
        ("I [LIP SMACK] do [A_B] [LAUGHTER] not.", "I do not."),
        ("[laughter] [Yes] [] [ ] [1] no ] [X", "[laughter] [Yes] [] [ ] [1] no ] [X"),
        ("[[LAUGHTER]]", "[]"),
        ("Two  spaces [LAUGHTER], kept", "Two  spaces , kept"),
        ("[LAUGHTER]", ""),
    ] {
        assert_eq!(without_tags(text), expected);
    }
}

#[test]
fn no_bytes_panic() {
    let good = labels("\n", &[("Ses01F_impro01_F000", "neu"), ("Ses01M_script01_1b_M000", "sad")])
        + "\nSes01F_impro01_F000 [000.2500-000.7500]: [LAUGHTER] Well [BREATHING], hello.\n";
    never_panics(good.as_bytes(), 5_000, |bytes| {
        for (_, line) in crate::data::manifest::lines(bytes) {
            let (line, _) = reading::decode(line);
            let _ = head(&line);
            let _ = transcript(&line);
            let _ = without_tags(&line);
        }
    });
    // The whole way, through files.
    let temporary = tempfile::tempdir().unwrap();
    release(temporary.path());
    let label = temporary.path().join("Session1/dialog/EmoEvaluation/Ses01F_impro01.txt");
    let words = temporary.path().join("Session1/dialog/transcriptions/Ses01F_impro01.txt");
    never_panics(good.as_bytes(), 100, |bytes| {
        put(&label, bytes);
        put(&words, bytes);
        let _ = read(temporary.path());
    });
}
