//! The layers of ARCHITECTURE.md, held by a test: a module uses those below it, never a sibling, never one above.
//!
//! It reads the text of `src/`, so it needs no build of it. What a text cannot show is forbidden: `super::super`,
//! which climbs past a module's own folder, and `pub use crate::…`, which would hand a lower layer on under a
//! name of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The layers, from the top. Modules on one line never use each other.
const LAYERS: &[&[&str]] = &[
    &["reload"],
    &["cli", "config"],
    &["server"],
    &["registry"],
    &["access", "cache"],
    &["storage", "upstream"],
    &["oci", "http", "single_flight", "clock", "stamp", "metrics"],
];

/// The two files that join everything and are used by nobody.
const ROOTS: [&str; 2] = ["lib", "main"];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|line| line.contains(&module))
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let sources = sources();
    assert!(sources.len() > 10, "the sources were found");
    let problems: Vec<String> = sources.iter().flat_map(problems_of).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn only_the_shared_tier_knows_the_crate_that_speaks_to_object_stores() {
    let knows = |source: &&Source| source.text.contains("object_store::");
    let sources = sources();
    let mut elsewhere = sources.iter().filter(knows);
    let elsewhere = elsewhere.find(|source| !source.path.starts_with("storage/shared"));
    let elsewhere = elsewhere.map(|source| source.path.display().to_string());
    assert_eq!(elsewhere, None);
}

/// One file of `src/`.
struct Source {
    /// Below `src/`.
    path: PathBuf,
    /// The top-level module it belongs to.
    module: String,
    /// Whether `super` in it is the crate root.
    is_top: bool,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(&root).expect("below src").to_owned();
                sources.push(Source::new(path, &text));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

impl Source {
    fn new(path: PathBuf, text: &str) -> Self {
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        let module = parts[0].trim_end_matches(".rs").to_owned();
        let is_top = parts.len() == 1 || (parts.len() == 2 && parts[1] == "mod.rs");
        let text = without_comments(text);
        Self {
            path,
            module,
            is_top,
            text,
        }
    }
}

/// What is wrong with one file, a line each.
fn problems_of(source: &Source) -> Vec<String> {
    let path = source.path.display();
    let mut problems = Vec::new();
    let mut used = first_names(&source.text, "crate");
    if source.is_top {
        // `super` is the crate there; but within `mod tests` it is the module itself, whose parts may be named
        // like a layer.
        let above = first_names(&source.text, "super");
        let own = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src")
            .join(&source.module);
        used.extend(above.into_iter().filter(|name| {
            layer(name).is_some()
                && !own.join(format!("{name}.rs")).exists()
                && !own.join(name).exists()
        }));
    }
    if source.text.contains("super::super") {
        problems.push(format!("{path}: `super::super` hides which module is used"));
    }
    if ROOTS.contains(&source.module.as_str()) {
        return problems;
    }
    if source.text.contains("pub use crate::") {
        problems.push(format!("{path}: `pub use crate::` hides a lower layer"));
    }
    let Some(own) = layer(&source.module) else {
        problems.push(format!("{path}: `{}` stands in no layer", source.module));
        return problems;
    };
    for name in used {
        if name == source.module {
            continue;
        }
        match layer(&name) {
            Some(other) if other > own => {}
            Some(_) => problems.push(format!("{path}: `{name}` is not below `{}`", source.module)),
            None => problems.push(format!("{path}: `crate::{name}` stands in no layer")),
        }
    }
    problems
}

/// The text without line comments; strings keep theirs apart from what follows `//` outside quotes.
fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quoted = false;
        let mut escaped = false;
        let mut end = line.len();
        for (at, c) in line.char_indices() {
            if !quoted && line[at..].starts_with("//") {
                end = at;
                break;
            }
            quoted ^= c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
        }
        kept.push_str(&line[..end]);
        kept.push('\n');
    }
    kept
}

/// The names that directly follow `root::` in `text`, grouped imports included: `root::{a::b, c}` gives `a` and `c`.
fn first_names(text: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let prefix = format!("{root}::");
    for (at, _) in text.match_indices(&prefix) {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        // `mycrate::`, or `$crate::` in a macro, which is the crate all the same; `x::crate` does not exist.
        if text[..at].ends_with(is_word) {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            names.extend(group_names(group));
        } else {
            names.extend(name(rest));
        }
    }
    names
}

/// The first name of each entry of a group, whose opening brace is already taken.
fn group_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut at_start = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if depth == 0 && at_start && !c.is_whitespace() => {
                names.extend(name(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

/// The module name at the start of `text`. A type or constant re-exported by the crate root (`crate::Config`) is
/// none, and a raw identifier is read without its mark.
fn name(text: &str) -> Option<String> {
    let text = text.trim_start().trim_start_matches("r#");
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let name = &text[..end];
    let is_self = name == "self" || name == "super";
    (!name.is_empty() && !is_self).then(|| name.to_owned())
}

mod tests_of_the_test {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let found = problems_of(&Source::new(PathBuf::from(path), text));
        assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn downward_is_allowed_and_so_is_a_module_of_ones_own() {
        check("cache/mod.rs", "use crate::storage::Storage;", &[]);
        check(
            "cache/fill.rs",
            "use crate::cache::Outcome; use crate::upstream::Error;",
            &[],
        );
        check("registry/mod.rs", "fn f(x: crate::oci::Digest) {}", &[]);
        check(
            "lib.rs",
            "use crate::config::Config; pub use crate::clock::Clock;",
            &[],
        );
    }

    #[test]
    fn upward_and_sideways_are_not() {
        check(
            "oci/name.rs",
            "use crate::cache::Outcome;",
            &["`cache` is not below `oci`"],
        );
        check(
            "storage/mod.rs",
            "use crate::upstream;",
            &["`upstream` is not below"],
        );
        check(
            "upstream/auth.rs",
            "let x = crate::config::Config;",
            &["`config`"],
        );
        check("clock.rs", "use crate::metrics::Metrics;", &["`metrics`"]);
    }

    #[test]
    fn grouped_imports_are_read_entry_by_entry() {
        let text =
            "use crate::{\n    oci::{Digest, cache},\n    single_flight,\n    registry::Route,\n};";
        assert_eq!(
            first_names(text, "crate").into_iter().collect::<Vec<_>>(),
            ["oci", "registry", "single_flight"]
        );
        check("cache/mod.rs", text, &["`registry`"]);
    }

    #[test]
    fn a_way_around_the_crate_root_is_found() {
        check("clock.rs", "use super::metrics::Metrics;", &["`metrics`"]);
        check(
            "cache/fill.rs",
            "use super::super::server::Body;",
            &["super::super"],
        );
        check(
            "cache/mod.rs",
            "pub use crate::storage::Storage;",
            &["pub use"],
        );
    }

    #[test]
    fn a_module_without_a_layer_is_found_on_both_sides() {
        check("util.rs", "", &["`util` stands in no layer"]);
        check(
            "cache/mod.rs",
            "use crate::util;",
            &["`crate::util` stands in no layer"],
        );
    }

    #[test]
    fn comments_and_other_crates_are_not_read() {
        check(
            "oci/mod.rs",
            "// crate::server does not matter\nuse mycrate::server;",
            &[],
        );
        check(
            "oci/mod.rs",
            "/// See [`crate::server`].\npub struct X;",
            &[],
        );
        check(
            "oci/mod.rs",
            "const URL: &str = \"https://x\"; use crate::server;",
            &["`server`"],
        );
    }
}
