//! The order of the modules in `lib.rs`, held: a module imports only those above it.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules that a file names, in any of the forms `crate::a`, `crate::{a, b::c}` and `super::a` (as many `super::` as
/// lead to the root). `depth` is how deep the file's own module lies: 1 for one of `lib.rs`.
fn named(code: &str, depth: usize) -> Vec<String> {
    let (mut by_crate, mut by_super) = (Vec::new(), Vec::new());
    let mut start = 0;
    // The indents of the modules in this file that the line lies in, as rustfmt lays them out.
    let mut within: Vec<&str> = Vec::new();
    for line in code.split_inclusive('\n') {
        let text = line.trim();
        let indent = &line[..line.find(text).unwrap_or(0)];
        if text == "}" && within.last() == Some(&indent) {
            within.pop();
        } else if text.strip_suffix(" {").and_then(module).is_some() {
            within.push(indent);
        }
        by_crate.extend(roots(line, "crate::").map(|place| start + place));
        by_super.extend(roots(line, &"super::".repeat(depth + within.len())).map(|place| start + place));
        start += line.len();
    }
    by_crate.into_iter().chain(by_super).flat_map(|place| first_names(&code[place..])).collect()
}

/// The places behind a root such as `crate::`, where it begins a path.
fn roots(line: &str, root: &str) -> impl Iterator<Item = usize> {
    let continues = |before: char| before.is_alphanumeric() || before == '_' || before == ':';
    line.match_indices(root)
        .filter(move |(place, _)| !line[..*place].ends_with(continues))
        .map(|(place, _)| place + root.len())
}

/// The name of a module in `mod name` or `pub(super) mod name`.
fn module(declaration: &str) -> Option<&str> {
    let (head, name) = declaration.rsplit_once(' ')?;
    let visibility = head.strip_suffix("mod")?;
    (visibility.is_empty() || visibility.starts_with("pub")).then_some(name)
}

/// The first names of the paths that follow `crate::`: one, or those of a list in braces.
fn first_names(rest: &str) -> Vec<String> {
    let name = |path: &str| path.trim().chars().take_while(|part| part.is_alphanumeric() || *part == '_').collect();
    let Some(list) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (place, part) in list.char_indices() {
        match part {
            ',' | '}' if depth == 0 => {
                names.push(name(&list[start..place]));
                start = place + 1;
                if part == '}' {
                    break;
                }
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// A file without comments and without what is only there for tests, as rustfmt lays them out.
fn code(source: &str) -> String {
    let mut lines = source.lines();
    let mut code = String::new();
    while let Some(line) = lines.next() {
        if line.trim_start() == "#[cfg(test)]" {
            // Behind other attributes: an item of one line, or one whose last brace stands below its first letter.
            let indent = &line[..line.len() - line.trim_start().len()];
            let head = lines.by_ref().find(|line| line.ends_with([';', '{'])).unwrap_or_default();
            if head.ends_with('{') {
                lines.by_ref().find(|line| *line == format!("{indent}}}"));
            }
            continue;
        }
        let end = if line.trim_start().starts_with("//") { 0 } else { line.find(" // ").unwrap_or(line.len()) };
        code.push_str(&line[..end]);
        code.push('\n');
    }
    code
}

/// What a file names that does not lie above its module, in the order of `modules`.
fn against<'names>(modules: &[&str], module: &str, named: &'names [String]) -> Vec<&'names String> {
    let place = |name: &str| modules.iter().position(|module| *module == name);
    let own = place(module);
    named.iter().filter(|name| *name != module && place(name).is_none_or(|place| Some(place) >= own)).collect()
}

/// A file and those of the modules that it declares, without those that are only there for tests; the modules lie in
/// `folder`.
fn files(path: &Path, folder: &Path) -> Vec<PathBuf> {
    let code = code(&fs::read_to_string(path).unwrap());
    let declared = code.lines().filter_map(|line| module(line.strip_suffix(';')?));
    let below = declared.flat_map(|name| {
        let folder = folder.join(name);
        let file = folder.with_extension("rs");
        files(&if file.is_file() { file } else { folder.join("mod.rs") }, &folder)
    });
    std::iter::once(path.to_owned()).chain(below).collect()
}

#[test]
fn no_module_imports_one_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let path = root.join("lib.rs");
    let library = code(&fs::read_to_string(&path).unwrap());
    // Also those of another crate that go by a name of this one.
    let items = library.lines().filter_map(|line| line.strip_prefix("pub ")?.strip_suffix(';'));
    let modules: Vec<&str> = items.filter_map(|item| item.rsplit([' ', ':']).next()).collect();
    let mut problems = Vec::new();
    let mut arrows = 0;
    for path in files(&path, &root).iter().skip(1) {
        let within = path.strip_prefix(&root).unwrap().with_extension("");
        let mut parts: Vec<&str> = within.iter().map(|part| part.to_str().unwrap()).collect();
        parts.pop_if(|name| *name == "mod");
        let named = named(&code(&fs::read_to_string(path).unwrap()), parts.len());
        arrows += named.len();
        problems.extend(against(&modules, parts[0], &named).iter().map(|name| format!("{path:?} uses {name}")));
    }
    assert!(modules.len() > 20 && arrows > 200, "{} modules, {arrows} paths", modules.len());
    assert!(problems.is_empty(), "a module of lib.rs may use only those above it:\n{}", problems.join("\n"));
}

/// The program has `test = false` in `Cargo.toml`: nobody would run them.
#[test]
fn the_program_has_no_tests_of_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files(&root.join("main.rs"), &root);
    assert!(files.len() > 10, "{files:?}");
    for path in files {
        let source = fs::read_to_string(&path).unwrap();
        for word in ["cfg(test)", "#[test]"] {
            assert!(!source.contains(word), "{path:?} has {word}; test it in tests/suite/, through the program");
        }
    }
}

#[test]
fn an_arrow_against_the_order_is_found() {
    let source = "\
use crate::{
    low::{A, b::{C}},
    high::D,
};
use super::higher;
/// See [`crate::comment`].
fn f() { my_crate::foreign(); crate::mid::g() + crate::lower::h() } // crate::comment
#[cfg(test)]
mod fixtures;
#[cfg(test)]
#[expect(
    clippy::lint,
    reason = \"why\"
)]
mod tests {
    mod deeper {
    }
    use crate::test;
}
use crate::unknown as other;
";
    let found = named(&code(source), 1);
    assert_eq!(found, ["low", "high", "mid", "lower", "unknown", "higher"]);
    let modules = ["lower", "low", "mid", "high", "higher"];
    assert_eq!(against(&modules, "mid", &found), ["high", "unknown", "higher"]);
    assert_eq!(named("use super::super::a; use super::b;", 2), ["a"]);
    let inline = "pub(super) mod inner {\n    use super::a;\n    use super::super::b;\n}\nuse super::c;\n";
    assert_eq!(named(inline, 1), ["b", "c"]);
}
