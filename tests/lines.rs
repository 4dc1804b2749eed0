//! Lines have at most 120 columns in code and 100 in prose, so that two files fit side by side. Excepted are tables,
//! links and code blocks in prose, addresses in code, HTML, and files that are vendored or generated.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::fs;
use std::path::{Path, PathBuf};

const CODE: usize = 120;
const PROSE: usize = 100;

/// Extensions of code; scripts without one are named below.
const CODE_EXTENSIONS: [&str; 8] = ["rs", "toml", "js", "mjs", "ts", "css", "sh", "yml"];
/// Folders whose files are not written here, or not by hand.
const EXCEPTED: [&str; 8] = [".git", "target", "node_modules", "vendor", "seeds", "corpus", "artifacts", "coverage"];

/// The files below a folder.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a folder's entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_symlink() || EXCEPTED.contains(&name) {
            continue;
        }
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

/// The numbers of the lines of code that are too long.
fn long_code(text: &str) -> Vec<usize> {
    let is_long = |line: &str| line.chars().count() > CODE && !line.contains("://");
    text.lines().enumerate().filter(|(_, line)| is_long(line)).map(|(at, _)| at + 1).collect()
}

/// The same for Markdown.
fn long_prose(text: &str) -> Vec<usize> {
    let mut is_block = false;
    let mut is_long = |line: &str| {
        let begun = line.trim_start();
        is_block ^= begun.starts_with("```");
        line.chars().count() > PROSE && !is_block && !begun.starts_with('|') && !has_long_word(line)
    };
    text.lines().enumerate().filter_map(|(at, line)| is_long(line).then_some(at + 1)).collect()
}

/// Whether a link or a path that cannot be wrapped makes a line long.
fn has_long_word(line: &str) -> bool {
    line.split_whitespace().any(|word| word.chars().count() > PROSE - 20)
}

#[test]
fn code_has_at_most_120_columns_and_prose_100() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    files(root, &mut all);
    all.sort();
    let mut long = Vec::new();
    for path in all {
        let name = path.strip_prefix(root).expect("a file below the root").display().to_string();
        let check = match path.extension().and_then(|extension| extension.to_str()) {
            Some("md") => long_prose,
            Some(extension) if CODE_EXTENSIONS.contains(&extension) => long_code,
            None if name.ends_with("/run") => long_code,
            _ => continue,
        };
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        long.extend(check(&text).into_iter().map(|line| format!("{name}:{line}")));
    }
    assert!(long.is_empty(), "{} lines are too long, {CODE} columns in code, {PROSE} in prose: {long:#?}", long.len());
}

#[test]
fn tables_links_and_code_blocks_may_be_wider() {
    let (long, word) = ("a ".repeat(60), "a".repeat(120));
    assert_eq!(long_prose(&format!("{long}\n| {long} |\n```\n{long}\n```\n{long}\n[x](https://{word})\n")), [1, 6]);
    let long = "a ".repeat(70);
    assert_eq!(long_code(&format!("{long}\n// https://{long}\nshort\n")), [1]);
}
