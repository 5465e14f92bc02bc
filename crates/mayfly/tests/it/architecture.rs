//! The map is of this house.

use std::fs;
use std::path::Path;

#[test]
fn every_file_that_the_architecture_names_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(top.join("ARCHITECTURE.md")).unwrap();
    let named = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.starts_with("crates/") && word.ends_with(".rs"));
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
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(top.join("README.md")).unwrap();
    let mut code = String::new();
    read_all(&top.join("crates"), &mut code);
    let rows = text.lines().filter(|line| line.starts_with("| G"));
    let named = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(|word| word.contains('_'));
    let mut count = 0;
    for test in named {
        assert!(code.contains(&format!("fn {test}(")), "{test}");
        count += 1;
    }
    assert!(count > 20, "{count} tests named");
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
