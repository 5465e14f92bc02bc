//! The map is of this house.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_file_that_the_architecture_names_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(top.join("ARCHITECTURE.md")).unwrap();
    let named = text.split('`').skip(1).step_by(2).filter(|word| word.starts_with("crates/mayfly"));
    let mut count = 0;
    for file in named {
        assert!(top.join(file).is_file(), "{file}");
        count += 1;
    }
    assert!(count > 20, "{count} files named");
}

#[test]
fn every_room_is_on_the_map() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(top.join("ARCHITECTURE.md")).unwrap();
    for room in fs::read_dir(top.join("crates")).unwrap() {
        let name = room.unwrap().file_name().into_string().unwrap();
        assert!(text.contains(&format!("\n{name} ")), "{name} is not on the map");
    }
}

/// The contract in the README names tests; each is there.
#[test]
fn every_test_that_the_readme_names_exists() {
    assert_tests_exist("README.md", "| G");
}

/// So does the threat model.
#[test]
fn every_test_that_the_threat_model_names_exists() {
    assert_tests_exist("docs/threat-model.md", "| S");
}

fn assert_tests_exist(page: &str, row: &str) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(top.join(page)).unwrap();
    let mut code = String::new();
    read_all(&top.join("crates"), &mut code);
    let cells = text.lines().filter(|line| line.starts_with(row)).filter_map(|line| line.rsplit('|').nth(1));
    let named = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|word| word.contains('_'));
    let mut count = 0;
    for test in named {
        assert!(code.contains(&format!("fn {test}(")), "{test}");
        count += 1;
    }
    assert!(count > 20, "{count} tests named");
}

/// A test that says which attack it tries has a row for it in the threat model.
#[test]
fn every_attack_that_a_test_tries_is_in_the_threat_model() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let model = fs::read_to_string(top.join("docs/threat-model.md")).unwrap();
    let mut code = String::new();
    read_all(&top.join("crates"), &mut code);
    let words = code.lines().filter_map(|line| line.trim_start().strip_prefix("///"));
    let is_case = |word: &&str| {
        word.len() == 3 && word.starts_with('S') && word[1..].bytes().all(|byte| byte.is_ascii_digit())
    };
    let cases: BTreeSet<&str> =
        words.flat_map(|words| words.split(|c: char| !c.is_ascii_alphanumeric())).filter(is_case).collect();
    assert!(cases.len() > 30, "{cases:?}");
    for case in cases {
        assert!(model.contains(&format!("\n| {case} |")), "docs/threat-model.md has no row for {case}");
    }
}

/// The user's side builds on macOS: what needs Linux comes in by one table of one manifest, and by one folder.
#[test]
fn what_needs_linux_is_named_by_the_machines_of_the_program_alone() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut todo, mut seen) = (vec!["mayfly".to_owned()], BTreeSet::new());
    while let Some(room) = todo.pop() {
        let manifest = fs::read_to_string(crates.join(&room).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let needed = manifest.get("dependencies").and_then(toml::Value::as_table);
        for name in needed.into_iter().flat_map(toml::Table::keys) {
            if seen.insert(name.clone()) && crates.join(name).is_dir() {
                todo.push(name.clone());
            }
        }
    }
    assert!(seen.contains("mayfly-client") && seen.contains("mayfly-server"), "{seen:?}");
    for linux in [
        "mayfly-holder",
        "mayfly-provider-microvm",
        "mayfly-provider-sandbox",
        "mayfly-worker",
        "landlock",
        "seccompiler",
    ] {
        assert!(!seen.contains(linux), "{linux}");
    }
    let mut code = String::new();
    read_all(&crates.join("mayfly/src"), &mut code);
    let mut machines = String::new();
    read_all(&crates.join("mayfly/src/machines"), &mut machines);
    for room in ["mayfly_worker::", "mayfly_provider_microvm::", "mayfly_provider_sandbox::", "target_os"] {
        let (all, there) = (code.matches(room).count(), machines.matches(room).count());
        assert!(all == there && there > 0, "{room}: {all} in the program, {there} in its machines");
    }
}

fn read_all(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
