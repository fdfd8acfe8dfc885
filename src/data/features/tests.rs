//! The store: what goes in comes out, what does not fit its place is missing, and the bound holds.

use std::fs::FileTimes;

use super::*;

/// Bytes of an entry of four frames: 32 of header and 4 × 3 × 4 of values.
const ENTRY: u64 = 80;

/// Digits of some encoder's hash.
fn encoder(digit: char) -> String {
    digit.to_string().repeat(DIGITS)
}

fn features(frames: usize, values: impl Fn(f32) -> f32) -> Features {
    let numbers = (0_u16..).map(f32::from).take(3 * frames);
    Features { frames, channels: 3, values: numbers.map(values).collect() }
}

fn open(folder: &Path, format: FeaturePrecision, bound: u64) -> Arc<FeatureStore> {
    FeatureStore::open(folder, format, bound).unwrap()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

fn bits(features: &Features) -> Vec<u32> {
    features.values.iter().map(|value| value.to_bits()).collect()
}

fn set_age(path: &Path, age: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(SystemTime::now() - age)).unwrap();
}

#[test]
fn features_come_back_to_the_bit_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), FeaturePrecision::F32, u64::MAX).of(&encoder('a'));
    // Also what is not a usual number.
    let all = [features(5, |number| number.sin() / 3.0), features(1, |_| f32::NAN), Features::default()];
    for (number, given) in [5.0, 1.0, 0.0].into_iter().zip(all) {
        let waveform = [number, 0.25];
        assert_eq!(cache.get(&waveform), None);
        let stored = cache.put(&waveform, given.clone());
        let found = open(folder.path(), FeaturePrecision::F32, 0).of(&encoder('a')).get(&waveform).unwrap();
        for features in [&stored, &found] {
            assert_eq!((features.frames, features.channels), (given.frames, given.channels));
            assert_eq!(bits(features), bits(&given));
        }
    }
    // Other samples, another encoder, another number format: other entries.
    assert_eq!(cache.get(&[5.0, 0.250_000_1]), None);
    assert_eq!(open(folder.path(), FeaturePrecision::F32, 0).of(&encoder('b')).get(&[5.0, 0.25]), None);
    assert_eq!(open(folder.path(), FeaturePrecision::F16, 0).of(&encoder('a')).get(&[5.0, 0.25]), None);
}

#[test]
fn an_entry_is_where_the_documentation_says_and_has_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), FeaturePrecision::F16, u64::MAX).of(&encoder('a'));
    let _ = cache.put(&[], Features { frames: 1, channels: 3, values: vec![1.0, -2.0, 65504.0] });
    // SHA-256 of nothing.
    let key = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let path = folder.path().join(format!("{}-f16/e3/{key}", encoder('a')));
    assert_eq!(files(folder.path()), std::slice::from_ref(&path));
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..28], b"clasp-features 1\x01\0\0\0\x03\0\0\0\x02\0\0\0");
    // IEEE 754: one, minus two, the largest number.
    assert_eq!(&bytes[32..], [0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b]);
}

#[test]
fn f16_rounds_at_once_and_leaves_out_what_it_cannot_hold() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), FeaturePrecision::F16, u64::MAX).of(&encoder('a'));
    let given = features(40, |number| (number - 50.0) * 0.123_456_7);
    let stored = cache.put(&[1.0], given.clone());
    assert_eq!(cache.get(&[1.0]).unwrap(), stored);
    for (found, given) in stored.values.iter().zip(&given.values) {
        // Ten bits behind the point: half of the last one is 2^-11 of the number.
        assert!((found - given).abs() <= given.abs() * 2_f32.powi(-11), "{found} for {given}");
    }
    assert_ne!(stored.values, given.values);
    // 65520 is the first number that would round to infinity.
    let large = features(2, |number| 65_519.0 + number);
    assert_eq!(*cache.put(&[2.0], large.clone()), large);
    assert_eq!(cache.get(&[2.0]), None);
}

#[test]
fn what_is_damaged_cut_short_or_moved_is_missing_and_is_replaced() {
    for format in FeaturePrecision::ALL {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path(), *format, u64::MAX).of(&encoder('a'));
        let given = features(4, |number| number);
        let stored = cache.put(&[1.0], given.clone());
        let path = files(folder.path()).remove(0);
        let good = fs::read(&path).unwrap();
        let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
        damaged.push([&good[..], b"\0"].concat());
        damaged.push(vec![0; good.len()]);
        damaged.extend((0..good.len() * 8).map(|bit| {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(cache.get(&[1.0]), None, "{bytes:?}");
        }
        assert_eq!(cache.put(&[1.0], given.clone()), stored);
        assert_eq!(cache.get(&[1.0]).unwrap(), stored);
        // The entry of other samples, and of another encoder.
        let _ = cache.put(&[2.0], features(4, |number| -number));
        let other = files(folder.path()).into_iter().find(|other| *other != path).unwrap();
        fs::copy(&other, &path).unwrap();
        assert_eq!(cache.get(&[1.0]), None);
        let foreign = open(folder.path(), *format, u64::MAX).of(&encoder('b'));
        let _ = foreign.put(&[1.0], features(4, |number| -number));
        let place = path.strip_prefix(folder.path().join(format!("{}-{format}", encoder('a')))).unwrap();
        fs::copy(folder.path().join(format!("{}-{format}", encoder('b'))).join(place), &path).unwrap();
        assert_eq!(cache.get(&[1.0]), None);
        assert_eq!(cache.put(&[1.0], given), stored);
        assert_eq!(cache.get(&[1.0]).unwrap(), stored);
        // A folder in the place of the entry.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(cache.get(&[1.0]), None);
        // A pipe, which nobody writes to, and a file of zeros that takes no room on the disk.
        fs::remove_dir(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(cache.get(&[1.0]), None);
        fs::remove_file(&path).unwrap();
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(cache.get(&[1.0]), None);
    }
}

#[test]
fn a_full_cache_is_mended_and_one_without_a_chance_leaves_others_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let given = || features(4, |number| number);
    let cache = open(at, FeaturePrecision::F32, 2 * ENTRY).of(&encoder('a'));
    let _ = (cache.put(&[1.0], given()), cache.put(&[2.0], given()));
    for path in files(at) {
        fs::write(&path, vec![0; usize::try_from(ENTRY).unwrap()]).unwrap();
    }
    assert_eq!((cache.get(&[1.0]), cache.get(&[2.0])), (None, None));
    let _ = (cache.put(&[1.0], given()), cache.put(&[2.0], given()));
    assert_eq!(*cache.get(&[1.0]).unwrap(), given());
    assert_eq!(*cache.get(&[2.0]).unwrap(), given());
    // Not even all of the other encoder's room would do.
    let store = open(at, FeaturePrecision::F32, ENTRY - 1);
    let _ = store.of(&encoder('b')).put(&[1.0], given());
    assert_eq!(files(at).len(), 2);
    assert_eq!(store.take_notes().len(), 1);
    // Others emptied the folder meanwhile.
    let store = open(at, FeaturePrecision::F32, 2 * ENTRY);
    let cache = store.of(&encoder('a'));
    for path in files(at) {
        fs::remove_file(path).unwrap();
    }
    let _ = (cache.put(&[3.0], given()), cache.put(&[4.0], given()));
    assert_eq!((files(at).len(), store.take_notes().len()), (2, 0));
}

#[test]
fn the_bound_holds_and_only_entries_of_other_encoders_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let waveform = |number: u16| [f32::from(number)];
    let given = || features(4, |number| number);
    let size = || files(at).iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    let old = open(at, FeaturePrecision::F32, u64::MAX).of(&encoder('a'));
    for number in 0..3 {
        let _ = old.put(&waveform(number), given());
        set_age(&old.path(&key(&waveform(number))), Duration::from_secs(100 - u64::from(number)));
    }
    assert_eq!(size(), 3 * ENTRY);
    let store = open(at, FeaturePrecision::F32, 4 * ENTRY + 10);
    let new = store.of(&encoder('b'));
    let has =
        |cache: &FeatureCache| (0..5).filter(|&number| cache.get(&waveform(number)).is_some()).collect::<Vec<_>>();
    let _ = new.put(&waveform(0), given());
    assert_eq!((has(&old), has(&new)), (vec![0, 1, 2], vec![0]));
    // The oldest goes first.
    let _ = new.put(&waveform(1), given());
    assert_eq!((has(&old), has(&new)), (vec![1, 2], vec![0, 1]));
    assert_eq!(store.take_notes(), Vec::<String>::new());
    for number in 2..5 {
        assert_eq!(*new.put(&waveform(number), given()), given());
    }
    assert_eq!((has(&old), has(&new)), (vec![], vec![0, 1, 2, 3]));
    assert_eq!(size(), 4 * ENTRY);
    let notes = store.take_notes();
    assert!(notes.len() == 1 && notes[0].contains("is full") && notes[0].contains("feature_cache_gib"), "{notes:?}");
    let _ = new.put(&waveform(4), given());
    assert_eq!(store.take_notes(), Vec::<String>::new());
    // Two encoders of one run leave each other alone.
    let store = open(at, FeaturePrecision::F32, 4 * ENTRY);
    let (again, other) = (store.of(&encoder('b')), store.of(&encoder('c')));
    let _ = other.put(&waveform(0), given());
    assert_eq!((has(&again), has(&other)), (vec![0, 1, 2, 3], vec![]));
}

#[test]
fn what_others_wrote_meanwhile_counts() {
    let folder = tempfile::tempdir().unwrap();
    let bound = 64 * ENTRY;
    let stores = [0; 4].map(|_| open(folder.path(), FeaturePrecision::F32, bound));
    let caches = ['a', 'b', 'c', 'd'].map(encoder);
    for number in 0_u16..100 {
        for (store, encoder) in stores.iter().zip(&caches) {
            let _ = store.of(encoder).put(&[f32::from(number)], features(4, |number| number));
        }
    }
    let size: u64 = files(folder.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    // Each may have written a sixteenth and an entry since it looked.
    assert!(size <= bound + 4 * (bound / 16 + ENTRY), "{size} of {bound}");
}

#[test]
fn what_is_not_of_the_cache_is_left_alone_and_old_unfinished_entries_go() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let cache = open(at, FeaturePrecision::F32, u64::MAX).of(&encoder('a'));
    let _ = cache.put(&[1.0], features(4, |number| number));
    let own = files(at).remove(0);
    let beside = |name: &str| own.with_file_name(name);
    let (fresh, abandoned) = (beside(".clasp-temporary-fresh"), beside(".clasp-temporary-old"));
    let mine =
        [at.join("thesis.txt"), at.join("photos-f32/aa/picture"), beside("notes"), at.join(".clasp-temporary-x")];
    for path in mine.iter().chain([&fresh, &abandoned]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![0; 1000]).unwrap();
        set_age(path, Duration::from_hours(if *path == fresh { 0 } else { 100 }));
    }
    // Room for one entry: the other encoder's goes, and nothing else.
    let _ = open(at, FeaturePrecision::F32, ENTRY).of(&encoder('b')).put(&[1.0], features(4, |number| number));
    assert!(mine.iter().all(|path| path.exists()) && fresh.exists());
    assert!(!abandoned.exists() && !own.exists());
}

#[test]
fn many_writers_of_the_same_entries_leave_whole_ones() {
    let folder = tempfile::tempdir().unwrap();
    let given = |number: u16| features(1000, move |value| value * f32::from(number + 1));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // As another process: a store of its own.
                let cache = open(folder.path(), FeaturePrecision::F32, u64::MAX).of(&encoder('a'));
                for round in 0..60 {
                    let number = round % 5;
                    if let Some(found) = cache.get(&[f32::from(number)]) {
                        assert_eq!(*found, given(number));
                    }
                    let _ = cache.put(&[f32::from(number)], given(number));
                }
            });
        }
    });
    assert_eq!(files(folder.path()).len(), 5);
}

#[test]
fn a_folder_that_cannot_be_used_is_told_at_once_and_one_that_fails_later_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("file"), "").unwrap();
    for path in ["file", "file/below"] {
        let error = FeatureStore::open(&at.join(path), FeaturePrecision::F32, 1).unwrap_err().to_string();
        assert!(error.starts_with("cannot ") && error.contains("file"), "{error}");
    }
    let store = open(&at.join("new/cache"), FeaturePrecision::F32, u64::MAX);
    let cache = store.of(&encoder('a'));
    fs::write(at.join(format!("new/cache/{}-f32", encoder('a'))), "in the way").unwrap();
    for number in [1.0, 2.0] {
        let given = features(4, |value| value * number);
        assert_eq!(*cache.put(&[number], given.clone()), given);
        assert_eq!(cache.get(&[number]), None);
    }
    let notes = store.take_notes();
    assert!(notes.len() == 1 && notes[0].starts_with("warning: cannot create "), "{notes:?}");
}

/// Whatever the bytes of an entry are: no panic.
#[test]
fn damaged_entries_are_missing() {
    let good = encode(&features(2, |value| value), FeaturePrecision::F32, "place").unwrap();
    let mut large = good.clone();
    large[16..24].fill(0xff);
    for length in [0, 1, HEADER - 1, HEADER, large.len()] {
        assert_eq!(decode(&large[..length], FeaturePrecision::F32, "place"), None);
    }
}
