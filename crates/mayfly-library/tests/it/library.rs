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
    assert!(library.ids().unwrap().is_empty() && library.check(&|_| Vec::new()).is_empty());
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
    assert_eq!(library.check(&|_| Vec::new()), []);
}

#[test]
fn an_edit_counts_from_the_next_reading_on_and_changes_the_lock() {
    let top = small();
    let library = Library::at(top.path());
    let before = library.resolve(&of_project("tally"), &nothing).unwrap().lock();
    assert_eq!(before.sha256(), library.resolve(&of_project("tally"), &nothing).unwrap().lock().sha256());
    put(top.path(), "rules/_global/style/style.md", "Be very brief.");
    let after = library.resolve(&of_project("tally"), &nothing).unwrap().lock();
    let found = mayfly_library::lock::differences(&before, &after).resources;
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
    let said: Vec<_> = library.check(&|_| Vec::new()).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    skill/_global/a b: does not count: a name is 1 to 64 of A-Z a-z 0-9 . _ -, and does not begin with . or -
    skill/_global/loop: is a link, and does not count: put the folder itself there
    skill/_global/loose.md: does not count: a resource is a folder KIND/NAMESPACE/NAME
    skils: is no kind of resource: these are skill, agent, mcp, hooks, rules, settings
    ");
    let resolution = library.resolve(&Wishes::default(), &nothing).unwrap();
    assert_eq!(resolution.resources.len(), 2);
    let strays: Vec<_> = resolution.strays.iter().map(ToString::to_string).collect();
    assert_eq!(strays, said, "and to whom it would be for");
}

/// A name that is no tool's denies nothing, which a check tells with its place.
#[test]
fn a_tool_that_is_none_is_told_by_a_check_and_stops_nobody() {
    let top = small();
    put(
        top.path(),
        "agent/tally/x/agent.md",
        "---\ntools: Read, mcp__db__ask, mcp__gone\ndeniedTools: Bsah\n---\nx",
    );
    put(top.path(), "mcp/tally/db/mcp.json", r#"{"command": "db"}"#);
    put(top.path(), "agent/tally/y/agent.md", "---\nmcpServers: [own, db]\ntools: mcp__own__ask\n---\nx");
    put(
        top.path(),
        "settings/_global/s/settings.json",
        "{\"permissions\":\n {\"deny\": [\"WebFech(domain:x)\"]}}",
    );
    let library = Library::at(top.path());
    let said: Vec<_> = library.check(&|_| Vec::new()).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    agent/tally/x/agent.md:2:28: `mcp__gone` is no tool that is known here, and counts for nothing
    agent/tally/x/agent.md:3:14: `Bsah` is no tool that is known here, and counts for nothing; Bash is one
    agent/tally/y/agent.md:2:14: `own` is a server that the library does not have: a task by this agent ends, unless its repository has one and is trusted
    settings/_global/s/settings.json:2:13: `WebFech(domain:x)` is no tool that is known here, and counts for nothing; WebFetch is one
    ");
    let resolution = library.resolve(&of_project("tally"), &nothing).unwrap();
    let compiled = mayfly_library::compile(&resolution, "/c", &std::collections::BTreeMap::new());
    let unknown: Vec<_> = compiled.expected.unknown.iter().map(String::as_str).collect();
    assert_eq!(unknown, ["Bsah", "WebFech(domain:x)", "mcp__gone"]);
}

/// Covers S12 for the library: patterns that multiply, and a skill of 100 MB, stop the tasks that would get them, by name,
/// and no others.
#[test]
fn what_has_no_end_stops_whom_it_is_for() {
    let top = small();
    let choices = "{a,b}".repeat(30);
    put(top.path(), "rules/braces/x/x.md", &format!("---\npaths:\n  - \"{choices}\"\n---\nx"));
    put(top.path(), "rules/stars/x/x.md", &format!("---\nname: y\npaths: {}\n---\nx", "*a".repeat(200)));
    put(top.path(), "skill/braces/y/SKILL.md", &format!("---\ndescription: d\npaths: [{choices}]\n---\nx"));
    put(top.path(), "skill/large/x/SKILL.md", "x");
    for at in 0..10 {
        put(top.path(), &format!("skill/large/x/{at}"), "");
        let file = fs::File::options().write(true).open(top.path().join(format!("skill/large/x/{at}")));
        file.unwrap().set_len(10 << 20).unwrap();
    }
    let library = Library::at(top.path());
    let said = |project: &str| library.resolve(&of_project(project), &nothing).unwrap_err().to_string();
    let most =
        "`paths` is more than the CLI could match in time: at most 4096 bytes, 8 times { and 100 times *";
    assert_eq!(
        said("braces"),
        format!("skill/braces/y/SKILL.md:3:1: {most}\nrules/braces/x/x.md:2:1: {most}")
    );
    assert_eq!(said("stars"), format!("rules/stars/x/x.md:3:1: {most}"));
    let large = said("large");
    assert!(
        large.starts_with("skill/large/x/") && large.ends_with(": makes the resource larger than 16 MiB"),
        "{large}"
    );
    assert!(library.resolve(&of_project("tally"), &nothing).is_ok());
}

/// What is more than one task can have, though each resource is good.
#[test]
fn what_is_too_much_together_is_refused() {
    let top = small();
    for at in 0..5 {
        put(top.path(), &format!("rules/much/r{at}/r.md"), &"x".repeat(15 << 20));
    }
    let said = Library::at(top.path()).resolve(&of_project("much"), &nothing).unwrap_err().to_string();
    assert!(said.contains("bytes for this task, and 67108864 are the most: leave some out"), "{said}");
    put(top.path(), "settings/much/later/settings.json", "no JSON");
    let said = Library::at(top.path()).resolve(&of_project("much"), &nothing).unwrap_err().to_string();
    assert_eq!(said.lines().count(), 1, "what comes after is not read: {said}");
}

/// JSON with comments, wherever they stand, and whatever the kind.
#[test]
fn comments_in_json_are_named_with_their_place() {
    for (path, text, place) in [
        ("agent/_global/x/agent.json", "{\n  // who\n  \"name\": \"x\"}", "2:3: key must be a string"),
        (
            "mcp/_global/x/mcp.json",
            "{\"command\": \"é\", // what\n \"args\": []}",
            "1:18: key must be a string",
        ),
        ("hooks/_global/x/hooks.json", "{\"Stop\": /* none */ []}", "1:10: expected value"),
        ("settings/_global/x/settings.json", "# mine\n{}", "1:1: expected value"),
        ("mcp/_global/x/tools.json", "{\n// what\n}", "2:1: key must be a string"),
    ] {
        let top = tempfile::tempdir().unwrap();
        put(top.path(), "mcp/_global/x/mcp.json", r#"{"command": "x"}"#);
        put(top.path(), path, text);
        let said = Library::at(top.path()).resolve(&Wishes::default(), &nothing).unwrap_err().to_string();
        assert_eq!(said, format!("{path}:{place}: JSON has no comments"));
    }
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

/// What a commit can bring into a library that is a checkout.
#[test]
fn a_link_on_the_way_to_a_resource_leads_nowhere() {
    let outside = small();
    let resource = Library::at(outside.path()).read(&"skill/tally/review".parse().unwrap()).unwrap();
    for link in ["skill", "skill/tally", "skill/tally/review"] {
        let top = tempfile::tempdir().unwrap();
        let at = top.path().join(link);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(outside.path().join(link), &at).unwrap();
        let library = Library::at(top.path());
        let said = format!("{link} is a link, and does not count: put the folder itself there");
        assert!(!library.has(&resource.id));
        assert!(library.read(&resource.id).unwrap_err().to_string().contains(&said));
        assert_eq!(library.put(&resource).unwrap_err().to_string(), said);
        assert_eq!(library.add(&resource).unwrap_err().to_string(), said);
        assert_eq!(library.write_file(&resource.id, &resource.files[0]).unwrap_err().to_string(), said);
        assert_eq!(library.remove(&resource.id).unwrap_err().to_string(), said);
    }
    assert_eq!(Library::at(outside.path()).read(&resource.id).unwrap(), resource);
}

#[test]
fn a_checkout_is_not_replaced_and_one_file_of_it_can_be_written() {
    let top = small();
    let library = Library::at(top.path());
    let resource = library.read(&"skill/tally/review".parse().unwrap()).unwrap();
    put(top.path(), "skill/tally/review/deep/.gitignore", "target");
    fs::create_dir(top.path().join("skill/tally/review/empty")).unwrap();
    let said = library.put(&resource).unwrap_err().to_string();
    assert!(said.starts_with("skill/tally/review/deep/.gitignore would be lost"), "{said}");
    let file = mayfly_library::File { path: "new.md".to_owned(), executable: false, bytes: b"x".to_vec() };
    for bytes in [b"x", b"y"] {
        library
            .write_file(&resource.id, &mayfly_library::File { bytes: bytes.to_vec(), ..file.clone() })
            .unwrap();
        assert_eq!(fs::read(top.path().join("skill/tally/review/new.md")).unwrap(), bytes);
    }
    for path in ["deep/.gitignore", "empty", "SKILL.md"] {
        assert!(top.path().join("skill/tally/review").join(path).exists(), "{path}");
    }
    assert_eq!(fs::read_dir(top.path().join("skill/tally")).unwrap().count(), 1);
}

#[test]
fn two_at_once_are_one_or_the_other_and_one_alone_where_neither_replaces() {
    let top = tempfile::tempdir().unwrap();
    let library = Library::at(top.path());
    let id: mayfly_library::ResourceId = "rules/_global/style".parse().unwrap();
    let of = |says: &str| {
        let files = (0..10).map(|at| mayfly_library::File {
            path: format!("{says}-{at:02}.md"),
            executable: false,
            bytes: says.as_bytes().to_vec(),
        });
        Resource::read(id.clone(), files.collect()).unwrap()
    };
    let both = [of("one"), of("two")];
    let at_once = |put: fn(&Library, &Resource) -> std::io::Result<()>| {
        std::thread::scope(|scope| {
            let puts = both.each_ref().map(|resource| scope.spawn(|| put(&library, resource)));
            puts.map(|put| put.join().unwrap())
        })
    };
    for _ in 0..3 {
        at_once(Library::put).into_iter().for_each(Result::unwrap);
        assert!(both.contains(&library.read(&id).unwrap()));
        assert!(library.remove(&id).unwrap());
        let added = at_once(Library::add);
        let (added, refused): (Vec<_>, Vec<_>) = both.iter().zip(added).partition(|(_, added)| added.is_ok());
        assert_eq!(library.read(&id).unwrap(), *added[0].0);
        let [(_, Err(error))] = &refused[..] else { panic!("{refused:?}") };
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert!(library.remove(&id).unwrap());
    }
    assert_eq!(fs::read_dir(top.path().join("rules/_global")).unwrap().count(), 0);
}

#[test]
fn a_server_that_the_chosen_agent_names_must_be_there() {
    let top = tempfile::tempdir().unwrap();
    put(top.path(), "agent/_global/lead/agent.md", "---\nmcpServers: [db, gone]\n---\nLead.");
    for name in ["db", "other"] {
        put(top.path(), &format!("mcp/_global/{name}/mcp.json"), r#"{"command": "x"}"#);
    }
    let wishes = Wishes { agent: "lead".parse().ok(), ..Wishes::default() };
    let resolution = Library::at(top.path()).resolve(&wishes, &nothing).unwrap();
    let servers =
        mayfly_library::compile(&resolution, "/c", &mayfly_library::Secrets::new()).expected.servers;
    assert_eq!((servers["db"], servers["other"]), (true, false));
    assert!(servers["gone"], "nobody has it");
}
