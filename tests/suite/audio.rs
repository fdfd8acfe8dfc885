//! Recordings as people really have them: tagged, joined, cut, with headers that claim other things, and pieces of them.

use std::fs;
use std::path::PathBuf;

use clasp::data::audio;
use serde_json::{Value, json};

use crate::program::{checkpoint, clasp, folder, tone};

/// The folder that `scripts/make_audio_matrix.py` writes.
fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio-matrix")
}

fn bytes_of(case: &Value) -> Vec<u8> {
    let unhex = |text: &Value| -> Vec<u8> {
        let text = text.as_str().unwrap();
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let mut bytes = Vec::new();
    for part in case["parts"].as_array().unwrap() {
        if let Some(file) = part["file"].as_str() {
            let mut content = fs::read(fixtures().join(file)).unwrap();
            content.truncate(part["bytes"].as_u64().map_or(content.len(), |count| count.try_into().unwrap()));
            bytes.extend(content);
        } else {
            bytes.extend(unhex(&part["hex"]));
        }
    }
    for change in case["changes"].as_array().unwrap() {
        let (at, new) = (usize::try_from(change[0].as_u64().unwrap()).unwrap(), unhex(&change[1]));
        bytes[at..at + new.len()].copy_from_slice(&new);
    }
    bytes
}

/// Every container, in every state: what is read is what ffmpeg reads (counts and windows of samples, from
/// `scripts/make_audio_matrix.py`), or it is an error.
#[test]
fn every_container_in_every_state_is_read_as_ffmpeg_reads_it() {
    let cases = fs::read_to_string(fixtures().join("cases.jsonl")).unwrap();
    let mut wrong = Vec::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let container = case["container"].as_str().unwrap();
        let name = format!("{container}, {}", case["case"].as_str().unwrap());
        let found = audio::from_bytes(bytes_of(&case), case["start"].as_f64(), case["end"].as_f64());
        match (found, case["error"].as_str()) {
            (Err(problem), Some(expected)) if problem.to_string().contains(expected) => {}
            (Err(problem), _) => wrong.push(format!("{name}: {problem}")),
            (Ok(found), Some(expected)) => {
                wrong.push(format!("{name}: {} samples and not {expected}", found.samples.len()));
            }
            (Ok(found), None) => {
                let frames = usize::try_from(case["frames"].as_u64().unwrap()).unwrap();
                if found.samples.len() != frames {
                    wrong.push(format!("{name}: {} samples and not {frames}", found.samples.len()));
                    continue;
                }
                let mut sum = 0.0_f64;
                let mut count = 0.0;
                for window in case["windows"].as_array().unwrap() {
                    let at = usize::try_from(window[0].as_u64().unwrap()).unwrap();
                    for (sample, expected) in found.samples[at..].iter().zip(window[1].as_array().unwrap()) {
                        sum += (f64::from(*sample) - expected.as_f64().unwrap()).powi(2);
                        count += 1.0;
                    }
                }
                let (root_mean_square, lossless) = ((sum / count).sqrt(), ["wav", "flac", "aiff", "caf", "alac.m4a"]);
                // Windows are written with six digits.
                let most = if lossless.contains(&container) { 1e-6 } else { 1e-4 };
                if root_mean_square > most {
                    wrong.push(format!("{name}: off by {root_mean_square:.2e}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A header of a WAV file, and the sound behind it.
fn wave(format: &[u8], before: &[u8], claimed: u32, sound: &[u8]) -> Vec<u8> {
    let mut bytes = b"RIFF\0\0\0\0WAVEfmt ".to_vec();
    bytes.extend(u32::try_from(format.len()).unwrap().to_le_bytes());
    bytes.extend(format);
    bytes.extend(before);
    bytes.extend(b"data");
    bytes.extend(claimed.to_le_bytes());
    bytes.extend(sound);
    let size = u32::try_from(bytes.len() - 8).unwrap();
    bytes[4..8].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// One channel at 16 kHz in 16 bits, as 16 bytes.
fn plain_format() -> Vec<u8> {
    [&[1, 0, 1, 0][..], &16_000_u32.to_le_bytes(), &32_000_u32.to_le_bytes(), &[2, 0, 16, 0]].concat()
}

/// Headers of the wild. ffmpeg reads all samples of each (the last: of all but the byte that is no sample).
#[test]
fn what_players_forgive_in_a_wav_is_read_and_noted() {
    let folder = folder();
    let at = folder.path();
    let sound = tone(16_000);
    let size = u32::try_from(sound.len()).unwrap();
    let plain = plain_format();
    let changed = |place: usize, new: &[u8], mut bytes: Vec<u8>| {
        bytes[place..place + new.len()].copy_from_slice(new);
        bytes
    };
    let good = wave(&plain, &[], size, &sound);
    let all = u32::try_from(good.len()).unwrap();
    let list = [&b"LIST"[..], &26_u32.to_le_bytes(), b"INFOISFT", &200_u32.to_le_bytes(), b"Lavf60.16.100\0"].concat();
    let guid = b"\x01\0\0\0\0\0\x10\0\x80\0\0\xAA\0\x38\x9B\x71";
    let extensible = [&[0xFE, 0xFF], &plain[2..], &[22, 0, 16, 0, 4, 0, 0, 0], guid].concat();
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("outer-size-is-the-file's", changed(4, &all.to_le_bytes(), good.clone()), "32052 bytes in all"),
        ("outer-size-zero", changed(4, &[0; 4], good.clone()), ""),
        ("outer-size-much-more", changed(4, &9_000_000_u32.to_le_bytes(), good.clone()), "9000008 bytes in all"),
        ("byte-rate-in-bits", changed(28, &256_000_u32.to_le_bytes(), good.clone()), "256000 bytes a second"),
        ("block-align", changed(32, &[1, 0], good.clone()), "1 bytes a frame"),
        ("list-subchunk-too-long", wave(&plain, &list, size, &sound), ""),
        ("claims-100-ms-more", wave(&plain, &[], size + 3_200, &sound), "claims 35200 bytes of sound, there are 32000"),
        ("claims-nothing", wave(&plain, &[], 0, &sound), "does not state the length"),
        ("claims-the-most", wave(&plain, &[], u32::MAX, &sound), "does not state the length"),
        ("format-of-18", wave(&[&plain[..], &[0, 0]].concat(), &[], size, &sound), ""),
        ("format-of-20", wave(&[&plain[..], &[2, 0, 0, 0]].concat(), &[], size, &sound), ""),
        ("format-of-40", wave(&extensible, &[], size, &sound), ""),
        (
            "odd-last-byte",
            wave(&plain, &[], size + 1, &[&sound[..], &[7]].concat()),
            "1 bytes of the sound are no whole",
        ),
    ];
    let samples: Vec<f32> =
        sound.chunks(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect();
    let mut rows = String::new();
    for (name, bytes, _) in &cases {
        fs::write(at.join(format!("{name}.wav")), bytes).unwrap();
        let found = audio::from_bytes(bytes.clone(), None, None).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        assert_eq!(found.samples, samples, "{name}");
        rows += &json!({ "id": name, "audio": format!("{name}.wav"), "label": "a" }).to_string();
        rows.push('\n');
    }
    fs::write(at.join("rows.jsonl"), rows).unwrap();
    for more in [&[][..], &["--decode"]] {
        let said = clasp(at, &[&["check", "rows.jsonl", "--json"], more].concat()).good();
        let report: Value = serde_json::from_str(&said.stdout).unwrap();
        let notes = report["findings"].as_array().unwrap().iter();
        let notes = notes
            .filter(|found| found["severity"] == "note" && found["check"] == "audio")
            .map(|found| found["examples"].to_string());
        let notes = notes.collect::<Vec<_>>().join("\n");
        for (name, _, note) in &cases {
            assert_eq!(notes.contains(&format!("`{name}`")), !note.is_empty(), "{name}: {notes}");
            assert!(notes.contains(note), "{name}: {notes}");
        }
    }
}

/// A FLAC that is cut is an error with a tag in front as it is without, and none with something behind it.
#[test]
fn a_flac_is_whole_or_an_error_whatever_stands_around_it() {
    let folder = folder();
    let at = folder.path();
    let flac = fs::read(fixtures().join("a.flac")).unwrap();
    let tag = [&b"ID3\x03\0\0\0\0\x02\0"[..], &[0; 256]].concat();
    let cut = &flac[..flac.len() * 3 / 5];
    for bytes in [cut.to_vec(), [&tag, cut].concat()] {
        fs::write(at.join("a.flac"), bytes).unwrap();
        fs::write(at.join("rows.jsonl"), "{\"id\":\"a\",\"audio\":\"a.flac\",\"label\":\"x\"}\n").unwrap();
        clasp(at, &["check", "--decode", "rows.jsonl"]).bad(3, &["truncated: it claims 19200 frames"]);
        let words = ["predict", "--checkpoint", checkpoint(), "--text", "x", "--audio", "a.flac"];
        clasp(at, &words).bad(3, &["a.flac: the audio is truncated: it claims 19200 frames"]);
    }
}

/// ffmpeg reads 20,736 samples of the first, which is all frames with an encoder's padding, since what tells of it is not
/// the first thing in the file; and 19,200 of the second.
#[test]
fn an_mp3_is_read_with_something_around_it() {
    let mp3 = fs::read(fixtures().join("a.mp3")).unwrap();
    let junk: Vec<u8> = (0..700_u32).map(|n| u8::try_from((n * 37 + 11) % 251).unwrap()).collect();
    let found = audio::from_bytes([&junk[..], &mp3].concat(), None, None).unwrap();
    assert_eq!(found.samples.len(), 20_736);
    let found = audio::from_bytes([&mp3[..], &[0xFF]].concat(), None, None).unwrap();
    assert_eq!(found.samples.len(), 19_200);
}

#[test]
fn what_is_not_read_is_told_by_name_with_the_command_that_converts_it() {
    for (head, name, command) in [
        (&b"\xFF\xF1\x60\x40\x1F\xFC\xDE"[..], "AAC (ADTS)", "ffmpeg -i in.aac out.wav"),
        (b".snd\0\0\0\x20", "AU", "ffmpeg -i in.au out.wav"),
        (b"riff\x2E\x91\xCF\x11\xA5\xD6", "W64", "ffmpeg -i in.w64 out.wav"),
        (b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "WMA", "ffmpeg -i in.wma out.wav"),
        (b"#!AMR\n", "AMR", "ffmpeg -i in.amr out.wav"),
        (b"wvpk", "WavPack", "ffmpeg -i in.wv out.wav"),
        (b"RF64\xFF\xFF\xFF\xFFWAVE", "RF64", "ffmpeg -i in.wav out.wav"),
    ] {
        let problem = audio::from_bytes([head, &[0; 2000]].concat(), None, None).unwrap_err().to_string();
        assert!(problem.contains(name) && problem.contains(command), "{problem}");
    }
}

/// So many samples of 16 bits, of which no two stretches are the same.
fn steps(count: u64) -> Vec<u8> {
    (0..count).flat_map(|n| i16::try_from(n * n / 7 % 20_011).unwrap().to_le_bytes()).collect()
}

/// A long recording and pieces of it as `NeMo` and lhotse write them, and as the others do: the same, everywhere.
#[test]
fn a_piece_is_stated_by_its_duration_or_its_end() {
    let folder = folder();
    let at = folder.path();
    let sound = steps(20 * 16_000);
    fs::write(at.join("long.wav"), wave(&plain_format(), &[], u32::try_from(sound.len()).unwrap(), &sound)).unwrap();
    let table = "id,audio,start,end,duration,text,label\n\
                 a,long.wav,2.0,,1.5,x,one\nb,long.wav,2.0,3.5,,x,two\nc,long.wav,12.0,13.5,1.5,x,one\n\
                 d,long.wav,12.0,13.5,20.0,x,two\ne,long.wav,,1.5,,x,one\n";
    fs::write(at.join("pieces.csv"), table).unwrap();
    let prepare =
        ["prepare", "table", "--input", "pieces.csv", "--id-column", "id", "--fractions", "1,0,0", "--output"];
    clasp(at, &[&prepare[..], &["plain"]].concat()).good();
    clasp(at, &[&prepare[..], &["converted", "--convert"]].concat()).good();
    let rows = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(at.join(name).join("train.jsonl")).unwrap();
        let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        rows.sort_by_key(|row| row["id"].to_string());
        rows
    };
    let samples = |from: usize| -> Vec<f32> {
        let read = |pair: &[u8]| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0;
        sound.chunks(2).skip(from).take(24_000).map(read).collect()
    };
    for (row, begin) in rows("converted").iter().zip([2, 2, 12, 12, 0]) {
        let path = at.join("converted").join(row["audio"].as_str().unwrap());
        let found = audio::load(&path, None, None).unwrap().samples;
        assert_eq!(found, samples(begin * 16_000), "{row}");
        assert_eq!((row["duration"].as_f64(), row.get("start"), row.get("end")), (Some(1.5), None, None));
    }
    // Without `--convert` the manifest says what the table says, and whoever reads it hears the same.
    assert_eq!((&rows("plain")[0]["start"], &rows("plain")[0]["duration"]), (&json!(2.0), &json!(1.5)));
    let said = clasp(at, &["check", "plain/train.jsonl", "--decode", "--json"]).good();
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let seconds = &report["manifests"][0]["seconds"];
    assert_eq!((seconds["least"].as_f64(), seconds["most"].as_f64()), (Some(1.5), Some(1.5)), "{seconds}");
    assert!(said.stdout.contains("`duration` is the file's, and not that of the piece"), "{}", said.stdout);
    let predict = |name: &str| {
        let manifest = format!("{name}/train.jsonl");
        clasp(at, &["predict", "--checkpoint", checkpoint(), "--manifest", &manifest]).good().rows()
    };
    for (plain, converted) in predict("plain").iter().zip(predict("converted")) {
        assert_eq!(plain["probabilities"], converted["probabilities"]);
    }
}

#[test]
fn a_piece_that_contradicts_itself_is_an_error() {
    let folder = folder();
    let at = folder.path();
    let sound = steps(5 * 16_000);
    fs::write(at.join("long.wav"), wave(&plain_format(), &[], u32::try_from(sound.len()).unwrap(), &sound)).unwrap();
    let row = |piece: Value| {
        let mut row = json!({ "id": "a", "audio": "long.wav", "text": "x", "label": "stop_calm" });
        row.as_object_mut().unwrap().extend(piece.as_object().unwrap().clone());
        fs::write(at.join("rows.jsonl"), format!("{row}\n")).unwrap();
    };
    let predict = ["predict", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl"];
    let encode = ["encode", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl", "--output", "out.safetensors"];
    for (piece, expected) in [
        (json!({ "start": 1, "end": 3, "duration": 1.5 }), "`duration` (1.5) is not `end` less `start` (2)"),
        (json!({ "start": 1, "end": 3, "duration": 9 }), "nor the length of the file (5.000 s)"),
        (json!({ "end": 3, "duration": 9 }), "nor the length of the file (5.000 s)"),
        (json!({ "start": 4, "duration": 1.5 }), "`end` is 5.5 s but the audio is only 5.000 s long"),
        (json!({ "start": 3, "end": 2, "duration": 1 }), "`end` (2) is not after `start` (3)"),
        (json!({ "start": 3, "duration": 0 }), "`duration` is 0; it must be more than 0 seconds"),
    ] {
        row(piece);
        let said = clasp(at, &predict).bad(3, &[]);
        assert!(said.rows()[0]["error"].as_str().unwrap().contains(expected), "{}", said.stdout);
        clasp(at, &encode).bad(3, &[expected]);
        clasp(at, &["check", "rows.jsonl"]).bad(3, &[expected]);
    }
}

/// Wherever a piece begins, its samples are those of the whole.
#[test]
fn a_piece_that_is_gone_to_has_the_samples_of_the_whole() {
    let names = ["long.mp3", "long.ogg", "long.m4a", "long.opus", "long.webm"].map(|name| (name, 1e-4));
    for (name, most) in [("long.flac", 0.0)].into_iter().chain(names) {
        let bytes = fs::read(fixtures().join(name)).unwrap();
        let whole = audio::from_bytes(bytes.clone(), None, None).unwrap().samples;
        for step in 0..23_u16 {
            let start = f64::from(step) * 0.25;
            let from = usize::from(step) * 4_000;
            let to = from + 4_800;
            let piece = audio::from_bytes(bytes.clone(), Some(start), Some(start + 0.3)).unwrap().samples;
            let expected = &whole[from..to.min(whole.len())];
            assert_eq!(piece.len(), expected.len(), "{name} from {start}");
            // Opus has 48 kHz, and what is made 16 kHz has ends of its own.
            let inner = 100..piece.len() - 100;
            let (piece, expected) = (&piece[inner.clone()], &expected[inner]);
            let sum: f64 = piece.iter().zip(expected).map(|(left, right)| f64::from(left - right).powi(2)).sum();
            let root_mean_square = (sum / f64::from(u16::try_from(piece.len()).unwrap())).sqrt();
            assert!(root_mean_square <= most, "{name} from {start}: off by {root_mean_square:.2e}");
        }
    }
}

#[test]
fn three_hours_are_the_limit_of_a_piece_and_not_of_its_recording() {
    let folder = folder();
    let path = folder.path().join("day.wav");
    // Four hours in 8 bits at 8 kHz; the file system stores the beginning and the end.
    let format = [&[1, 0, 1, 0][..], &8_000_u32.to_le_bytes(), &8_000_u32.to_le_bytes(), &[1, 0, 8, 0]].concat();
    let bytes = wave(&format, &[], 4 * 3_600 * 8_000, &[]);
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(44 + 4 * 3_600 * 8_000).unwrap();
    let piece = audio::load(&path, Some(12_600.0), Some(12_601.5)).unwrap().samples;
    assert_eq!(piece.len(), 24_000);
    assert!(audio::load(&path, Some(14_390.0), None).unwrap().samples.len() == 160_000);
    assert!(audio::load(&path, Some(14_400.5), None).unwrap_err().to_string().contains("only 14400.000 s long"));
}

/// A telephone call with a speaker on each side.
#[test]
fn a_channel_is_read_alone() {
    let folder = folder();
    let at = folder.path();
    let format = [&[1, 0, 2, 0][..], &16_000_u32.to_le_bytes(), &64_000_u32.to_le_bytes(), &[4, 0, 16, 0]].concat();
    let (left, right) = (tone(16_000), steps(16_000));
    let both: Vec<u8> = left.chunks(2).zip(right.chunks(2)).flat_map(|(one, two)| [one, two].concat()).collect();
    fs::write(at.join("call.wav"), wave(&format, &[], u32::try_from(both.len()).unwrap(), &both)).unwrap();
    let table = "id,audio,channel,text,label\na,call.wav,0,x,one\nb,call.wav,1,x,two\nc,call.wav,mean,x,one\n\
                 d,call.wav,left,x,one\n";
    fs::write(at.join("calls.csv"), table).unwrap();
    let prepare =
        ["prepare", "table", "--input", "calls.csv", "--id-column", "id", "--fractions", "1,0,0", "--convert"];
    clasp(at, &[&prepare[..], &["--output", "by-column"]].concat()).good();
    clasp(at, &[&prepare[..], &["--output", "by-flag", "--channel", "1"]].concat()).good();
    clasp(at, &[&prepare[..], &["--output", "no", "--channel", "2"]].concat())
        .bad(3, &["`channel` is 2, but the audio has 2 (0 to 1)"]);
    clasp(at, &[&prepare[..], &["--output", "no", "--channel", "left"]].concat()).bad(2, &["the number of a channel"]);
    let values = |sound: &[u8]| -> Vec<f32> {
        sound.chunks(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect()
    };
    let (left, right) = (values(&left), values(&right));
    let heard = |name: &str| -> Vec<Vec<f32>> {
        let text = fs::read_to_string(at.join(name).join("train.jsonl")).unwrap();
        let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        rows.sort_by_key(|row| row["id"].to_string());
        let path = |row: &Value| at.join(name).join(row["audio"].as_str().unwrap());
        rows.iter().map(|row| audio::load(&path(row), None, None).unwrap().samples).collect()
    };
    let by_column = heard("by-column");
    assert!(by_column[0] == left && by_column[1] == right);
    // A mean of two numbers of 16 bits is rounded to 16 bits.
    let mean = left.iter().zip(&right).map(|(one, two)| (one + two) / 2.0);
    assert!(by_column[2].iter().zip(mean).all(|(found, mean)| (found - mean).abs() < 1.6e-5));
    assert_eq!(by_column[3], by_column[2]);
    assert!(heard("by-flag").iter().all(|found| *found == right));

    let row = |channel: Value| json!({ "id": channel, "audio": "call.wav", "text": "x", "channel": channel });
    let mut rows = String::new();
    for channel in [json!(0), json!(1), json!("mean"), json!("left"), json!(2)] {
        let mut row = row(channel);
        row["id"] = json!(row["channel"].to_string());
        rows += &row.to_string();
        rows.push('\n');
    }
    fs::write(at.join("rows.jsonl"), rows).unwrap();
    let said = clasp(at, &["predict", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl"]).bad(3, &[]);
    let results = said.rows();
    assert_ne!(results[0]["probabilities"], results[1]["probabilities"]);
    assert_eq!(results[2]["probabilities"], results[3]["probabilities"]);
    assert!(results[4]["error"].as_str().unwrap().contains("`channel` is 2"), "{}", said.stdout);
    let said = clasp(at, &["check", "rows.jsonl", "--decode", "--json"]).bad(3, &["`channel` is 2"]);
    assert!(said.stdout.contains("`channel` is neither a number nor"), "{}", said.stdout);
}
