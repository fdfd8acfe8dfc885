//! Bytes and durations in words.

/// Bytes, with two decimals below a hundred: `1.25 GiB`, `310 MiB`, `2.5 MiB`, `14.77 KiB`.
#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
pub fn bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64 / 1024.0, "KiB");
    for larger in ["MiB", "GiB", "TiB"] {
        if value >= 999.5 {
            (value, unit) = (value / 1024.0, larger);
        }
    }
    let digits = if value < 99.995 { 2 } else { 0 };
    let mut number = format!("{value:.digits$}");
    if number.contains('.') {
        number.truncate(number.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{number} {unit}")
}

/// A time as people say it: `34 s`, `12 min`, `3 h 05 min`, `2 d 4 h`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a wait, not negative")]
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let whole = seconds.round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if whole < 100 {
        format!("{whole} s")
    } else if whole < 3600 {
        format!("{} min", (whole + 30) / 60)
    } else if days == 0 {
        format!("{hours} h {minutes:02} min")
    } else {
        format!("{days} d {hours} h")
    }
}

/// How long some samples last, in tenths of a second, rounded up: `4.5`.
pub fn seconds(samples: usize, rate: u32) -> String {
    let tenths = (10 * samples).div_ceil(rate as usize);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A time that was measured: with tenths below a minute, as in `12.3 s`.
pub fn elapsed(seconds: f64) -> String {
    if seconds < 59.95 { format!("{seconds:.1} s") } else { duration(seconds) }
}

/// A number of things: `1 cluster`, `2 clusters`.
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_people_say_them() {
        for (size, said) in [
            (0, "0 KiB"),
            (758_000, "740 KiB"),
            (1 << 20, "1 MiB"),
            (2_621_440, "2.5 MiB"),
            (15_124, "14.77 KiB"),
            (310 << 20, "310 MiB"),
            (1023 << 20, "1 GiB"),
            (5 << 28, "1.25 GiB"),
            (3 << 29, "1.5 GiB"),
            (80 << 30, "80 GiB"),
        ] {
            assert_eq!(bytes(size), said);
        }
    }

    #[test]
    fn lengths_are_rounded_up() {
        for (samples, said) in
            [(0, "0.0"), (1, "0.1"), (1600, "0.1"), (1601, "0.2"), (71_999, "4.5"), (160_001, "10.1")]
        {
            assert_eq!(seconds(samples, 16_000), said);
        }
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        for (seconds, said) in [
            (0.04, "0.0 s"),
            (9.0, "9.0 s"),
            (34.4, "34 s"),
            (119.0, "2 min"),
            (3599.0, "60 min"),
            (11_100.0, "3 h 05 min"),
            (187_300.0, "2 d 4 h"),
        ] {
            assert_eq!(duration(seconds), said);
        }
    }
}
