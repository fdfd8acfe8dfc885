//! Text without control characters: a name, label or path must not be able to clear the screen or change its title.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a terminal would act on it instead of showing it: control characters, and those that change the direction.
fn is_control(letter: char) -> bool {
    let changes_direction = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (letter.is_control() && !matches!(letter, '\n' | '\t')) || changes_direction
}

/// With a sign in the place of each such character; lines stay lines.
pub fn text(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return text.into();
    }
    text.chars().map(|letter| if is_control(letter) { '\u{fffd}' } else { letter }).collect()
}

/// JSON that says the same: each such character, which can only stand in a string, is escaped.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_control(letter) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_is_left_and_json_says_the_same() {
        let name = "a\u{1b}[2J\u{9b}31m\u{7f}\u{202e}b\tc\nd";
        assert_eq!(text(name), "a\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}b\tc\nd");
        let written = serde_json::to_string(name).unwrap();
        let safe = json(&written);
        assert!(!safe.contains(is_control));
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), name);
        assert!(matches!(text("\u{e9}t\u{e9}"), Cow::Borrowed(_)));
    }
}
