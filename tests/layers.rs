//! Checks the code map of ARCHITECTURE.md against every `use` in `src/`: each room uses exactly the rooms in its row,
//! and all of those are above it. So no arrow runs back up, and no two rooms know each other.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One row of the code map: the rooms that it describes, and the rooms that these know.
struct Row {
    rooms: Vec<String>,
    knows: BTreeSet<String>,
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The texts in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn code_map() -> Vec<Row> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').collect();
        let [place, _, knows, ..] = cells[..] else { return None };
        let rooms: Vec<_> = quoted(place).filter_map(|path| path.strip_prefix("src/")).map(room_of).collect();
        let knows = quoted(knows).map(str::to_owned).collect();
        (!rooms.is_empty()).then_some(Row { rooms, knows })
    };
    read("ARCHITECTURE.md").lines().filter_map(row).collect()
}

/// The room of a file, from its path below `src/`.
fn room_of(path: &str) -> String {
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs").to_owned()
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a folder's entry").path();
        match path.extension() {
            None if path.is_dir() => sources(&path, into),
            Some(extension) if extension == "rs" => into.push(path),
            _ => {}
        }
    }
}

/// The code without comments and unit tests.
fn code(source: &str) -> String {
    let tests = source.find("#[cfg(test)]\nmod ").unwrap_or(source.len());
    source[..tests].lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The first name of each path that begins behind `prefix`, in groups (`prefix{a::b, c}`) too.
fn names_behind<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).flat_map(move |(at, _)| {
        let rest = &code[at + prefix.len()..];
        let mut names = Vec::new();
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0_usize, 0);
            for (at, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => {
                        names.push(&group[start..at]);
                        break;
                    }
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        names.push(&group[start..at]);
                        start = at + 1;
                    }
                    _ => {}
                }
            }
        } else {
            names.push(rest);
        }
        names.into_iter().map(first_name).filter(|name| !name.is_empty())
    })
}

fn first_name(path: &str) -> &str {
    let path = path.trim_start();
    path.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or(path)
}

/// Names exported by `lib.rs`, and the rooms that they come from; `None` for those of other crates.
fn exports(rooms: &BTreeMap<String, usize>) -> BTreeMap<String, Option<String>> {
    let lib = code(&read("src/lib.rs"));
    let mut exports = BTreeMap::new();
    for statement in lib.split(';').filter_map(|statement| statement.trim().strip_prefix("pub use ")) {
        let room = first_name(statement);
        let from = rooms.contains_key(room).then(|| room.to_owned());
        let names = statement.rsplit("::").next().unwrap_or(statement);
        for name in names.trim_matches(['{', '}']).split(',').map(first_name).filter(|name| !name.is_empty()) {
            exports.insert(name.to_owned(), from.clone());
        }
    }
    exports
}

#[test]
fn every_room_uses_exactly_the_rooms_in_its_row_which_are_all_above_it() {
    let map = code_map();
    assert!(map.len() > 10, "the code map of ARCHITECTURE.md has a third column, \"knows\"");
    let places: BTreeMap<String, usize> =
        map.iter().enumerate().flat_map(|(at, row)| row.rooms.iter().map(move |room| (room.clone(), at))).collect();
    let exports = exports(&places);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut used: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let path = file.strip_prefix(&root).expect("a file below src").display().to_string();
        let room = room_of(&path);
        let Some(&at) = places.get(&room) else {
            wrong.push(format!("src/{path}: the room `{room}` has no row in the code map"));
            continue;
        };
        let code = code(&fs::read_to_string(&file).expect("a source file"));
        let prefix = if ["main", "command", "settings", "telemetry"].contains(&room.as_str()) {
            "quic_websocket::"
        } else {
            "crate::"
        };
        for name in names_behind(&code, prefix) {
            let target = match exports.get(name) {
                Some(Some(from)) => from,
                Some(None) => continue,
                None => name,
            };
            match places.get(target) {
                Some(&there) if there == at => {}
                Some(&there) => {
                    if there > at {
                        wrong.push(format!("src/{path} knows `{target}`, which is below `{room}` in the code map"));
                    }
                    used.entry(at).or_default().insert(target.to_owned());
                }
                // Names defined in the crate root itself.
                None if room == "lib" || room == "main" => {}
                None => wrong.push(format!("src/{path} knows `{target}`, which has no row in the code map")),
            }
        }
    }
    for (at, row) in map.iter().enumerate() {
        let used = used.remove(&at).unwrap_or_default();
        let rooms = row.rooms.join(", ");
        for name in used.difference(&row.knows) {
            wrong.push(format!("`{rooms}` knows `{name}`, which its row does not name"));
        }
        for name in row.knows.iter().filter(|name| places.contains_key(*name)).filter(|name| !used.contains(*name)) {
            wrong.push(format!("the row of `{rooms}` names `{name}`, which it does not know"));
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md and the code differ:\n{}", wrong.join("\n"));
}
