//! Rules of the library: there from the start, or only once a file that they are about is touched.

use std::fs;

use serde_json::json;

use super::super::world::World;
use super::{put, steps, tool};

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_for_some_files_is_told_once_one_of_them_is_read_and_not_before() {
    let Some(world) = World::start(|_| {}).await else { return };
    put(&world, "rules/_global/all/all.md", "canary-for-all");
    put(&world, "rules/_global/some/some.md", "---\npaths:\n  - \"**/*.rs\"\n---\ncanary-for-some");
    put(&world, "rules/_global/one/one.md", "---\npaths: src/main.*\n---\ncanary-for-one");
    put(&world, "rules/_global/others/others.md", "---\npaths: [\"docs/**\"]\n---\ncanary-for-others");
    fs::create_dir(world.repo().join("src")).unwrap();
    fs::write(world.repo().join("src/main.rs"), "fn touched() {}\n").unwrap();
    let read = |file: &str| tool("Read", &json!({"file_path": format!("/workspace/repo/{file}")}));
    let ended = world.outcome_of(&[&steps(&[read("a.txt"), read("src/main.rs")])]).await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    let bodies: Vec<String> = world.api.requests().iter().map(|request| request.body.to_string()).collect();
    assert_eq!(bodies.len(), 3, "before, after the one file, after the other");
    for body in bodies {
        let is_touched = body.contains("fn touched()");
        assert!(body.contains("canary-for-all") && !body.contains("canary-for-others"));
        for canary in ["canary-for-some", "canary-for-one"] {
            assert_eq!(body.contains(canary), is_touched, "{canary}");
        }
    }
    world.end().await;
}
