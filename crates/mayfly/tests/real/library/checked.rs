//! What the CLI's own validator says of a library.

use serde_json::Value;

use super::{World, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_also_what_the_cli_finds_by_the_librarys_own_paths() {
    let Some(world) = World::start(|_| {}).await else { return };
    let Some(claude) = mayfly_test_needs::claude() else { return world.end().await };
    let check = async |more: &[&str]| {
        let claude = claude.to_str().unwrap();
        world.mayfly(&[&["library", "check", "--claude", claude], more].concat()).await
    };
    assert_eq!(world.mayfly(&["library", "init"]).await.code, Some(0));
    put(
        &world,
        "agent/site/reader/agent.json",
        r#"{"name": "reader", "system_prompt": "Read.", "tools": ["Read"]}"#,
    );
    put(&world, "agent/site/plain/agent.md", "allowedTools: Read\nRead and say.");
    put(&world, "skill/site/good/SKILL.md", "---\ndescription: helps\n---\nHelp.");
    let good = check(&[]).await;
    assert_eq!(good.code, Some(0), "{}{}", String::from_utf8_lossy(&good.stdout), good.stderr);
    assert!(!good.stderr.contains("validator"), "{}", good.stderr);

    put(&world, "skill/site/odd/SKILL.md", "---\ndescription: odd\nallowed-tools: {a: b}\n---\nx");
    put(&world, "skill/_global/odd/SKILL.md", "Says nothing of itself.");
    let wrong = check(&["--json"]).await;
    assert_eq!(wrong.code, Some(1), "{}", wrong.stderr);
    let found = String::from_utf8(wrong.stdout).unwrap();
    let found: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        found.iter().map(|one| (one["file"].as_str().unwrap(), one["words"].as_str().unwrap())).collect();
    let [(first, frontmatter), (second, tools)] = told[..] else { panic!("{told:?}") };
    assert_eq!((first, second), ("skill/_global/odd/SKILL.md", "skill/site/odd/SKILL.md"));
    assert!(frontmatter.starts_with("claude says of `frontmatter`: No frontmatter"), "{frontmatter}");
    assert!(tools.starts_with("claude says of `allowed-tools`: allowed-tools must be a string"), "{tools}");
    world.end().await;
}
