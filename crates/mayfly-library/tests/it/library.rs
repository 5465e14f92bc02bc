//! What is found in a folder, and what is made of it.

use std::fs;
use std::path::Path;

use mayfly_library::{Library, Resource, Wishes};

fn put(top: &Path, path: &str, text: &str) {
    let path = top.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn nothing(_: &str) -> Option<Vec<u8>> {
    None
}

fn of_project(project: &str) -> Wishes {
    Wishes { project: project.parse().ok(), ..Wishes::default() }
}

fn small() -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    put(top.path(), "skill/_global/review/SKILL.md", "---\nname: review\n---\nglobal");
    put(top.path(), "skill/tally/review/SKILL.md", "tally");
    put(top.path(), "skill/other/review/SKILL.md", "other");
    put(top.path(), "rules/_global/style/style.md", "Be brief.");
    put(top.path(), "README.md", "What this is.");
    put(top.path(), ".git/config", "[core]");
    top
}

#[test]
fn a_library_that_is_not_there_is_empty() {
    let library = Library::at("/nonexistent/library");
    assert!(library.ids().unwrap().is_empty() && library.check().is_empty());
    assert_eq!(library.resolve(&Wishes::default(), &nothing).unwrap().resources, []);
}

#[test]
fn two_projects_get_their_own_and_what_is_for_all() {
    let top = small();
    let library = Library::at(top.path());
    for project in ["tally", "other"] {
        let resolution = library.resolve(&of_project(project), &nothing).unwrap();
        let texts: Vec<_> =
            resolution.resources.iter().map(|(one, _)| one.files[0].text().unwrap()).collect();
        assert_eq!(texts, [project, "Be brief."]);
        assert_eq!(resolution.shadowed[0].to_string(), "skill/_global/review");
    }
    assert_eq!(library.check(), []);
}

#[test]
fn an_edit_counts_from_the_next_reading_on_and_changes_the_lock() {
    let top = small();
    let library = Library::at(top.path());
    let before = library.resolve(&of_project("tally"), &nothing).unwrap().lock();
    assert_eq!(before.sha256(), library.resolve(&of_project("tally"), &nothing).unwrap().lock().sha256());
    put(top.path(), "rules/_global/style/style.md", "Be very brief.");
    let after = library.resolve(&of_project("tally"), &nothing).unwrap().lock();
    let found = mayfly_library::lock::differences(&before, &after);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].after.as_ref().unwrap().id.to_string(), "rules/_global/style");
}

#[test]
fn a_content_that_was_kept_can_be_asked_for() {
    let top = small();
    let library = Library::at(top.path());
    let old = library.read(&"rules/_global/style".parse().unwrap()).unwrap();
    put(top.path(), "rules/_global/style/style.md", "New.");
    let named = format!("style@{}", &old.sha256[..12]).parse().unwrap();
    let wishes = Wishes { add: vec![(mayfly_library::Kind::Rules, named)], ..Wishes::default() };
    let kept = |content: &str| old.sha256.starts_with(content).then(|| old.archive());
    let resolution = library.resolve(&wishes, &kept).unwrap();
    assert!(resolution.resources.iter().any(|(one, _)| one.sha256 == old.sha256));
    let said = library.resolve(&wishes, &nothing).unwrap_err().to_string();
    assert!(said.contains("rules/_global/style: is not") && said.contains("any more"), "{said}");
}

/// What is wrong stops the tasks that would get it, and no others.
#[test]
fn what_is_wrong_stops_whom_it_is_for() {
    let top = small();
    put(top.path(), "mcp/tally/db/mcp.json", "{\n  // the database\n  \"command\": \"db\"}");
    let library = Library::at(top.path());
    let said = library.resolve(&of_project("tally"), &nothing).unwrap_err().to_string();
    assert_eq!(said, "mcp/tally/db/mcp.json:2:3: key must be a string: JSON has no comments");
    assert!(library.resolve(&of_project("other"), &nothing).is_ok());
    let without = vec![(mayfly_library::Kind::Mcp, "db".parse().unwrap())];
    assert!(library.resolve(&Wishes { without, ..of_project("tally") }, &nothing).is_ok());
}

#[test]
fn what_does_not_count_is_told_by_a_check_and_stops_nobody() {
    let top = small();
    put(top.path(), "skils/_global/x/SKILL.md", "x");
    put(top.path(), "skill/_global/loose.md", "x");
    put(top.path(), "skill/_global/a b/SKILL.md", "x");
    std::os::unix::fs::symlink("..", top.path().join("skill/_global/loop")).unwrap();
    let library = Library::at(top.path());
    let said: Vec<_> = library.check().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    skill/_global/a b: does not count: a name is 1 to 64 of A-Z a-z 0-9 . _ -, and does not begin with . or -
    skill/_global/loop: is a link, and does not count: put the folder itself there
    skill/_global/loose.md: does not count: a resource is a folder KIND/NAMESPACE/NAME
    skils: is no kind of resource: these are skill, agent, mcp, hooks, rules, settings
    ");
    assert_eq!(library.resolve(&Wishes::default(), &nothing).unwrap().resources.len(), 2);
}

#[test]
fn two_servers_of_one_name_are_one_too_many() {
    let top = small();
    put(top.path(), "mcp/_global/db/mcp.json", r#"{"command": "a"}"#);
    put(top.path(), "mcp/_global/more/mcp.json", r#"{"mcpServers": {"db": {"command": "b"}}}"#);
    let said = Library::at(top.path()).resolve(&Wishes::default(), &nothing).unwrap_err().to_string();
    assert_eq!(said, "mcp/_global/more: has a server `db`, and so has mcp/_global/db: leave one out");
}

#[test]
fn a_resource_is_put_replaced_and_taken_away_whole() {
    let top = small();
    let library = Library::at(top.path().join("new"));
    let resource = Library::at(top.path()).read(&"skill/tally/review".parse().unwrap()).unwrap();
    let mut files = resource.files.clone();
    files.push(mayfly_library::File {
        path: "bin/run".to_owned(),
        executable: true,
        bytes: b"#!/bin/sh\n".to_vec(),
    });
    files.sort();
    let other = Resource::read(resource.id.clone(), files).unwrap();
    for resource in [&resource, &other, &resource] {
        library.put(resource).unwrap();
        assert_eq!(library.read(&resource.id).unwrap(), *resource);
    }
    assert!(library.remove(&resource.id).unwrap() && !library.remove(&resource.id).unwrap());
    assert!(library.ids().unwrap().is_empty());
    assert_eq!(fs::read_dir(top.path().join("new/skill/tally")).unwrap().count(), 0);
}
