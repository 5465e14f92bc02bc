//! What a task would get of the library, and what one got, by the API.

use std::fs;

use mayfly_client::{Bundle, ClientError};
use mayfly_library::resolve::From;
use mayfly_library::{File, Library as Folder, Resolution, Resource, Wishes, pack};
use mayfly_wire::api::{
    CreateTask, Library, LibraryChanged, LibraryDifferences, MERGED_MAX, RESOURCES_MAX, STRAYS_MAX, Wanted,
};
use serde_json::Value;

use crate::bed::{Bed, raw, task};

/// A file of the library.
fn put(bed: &Bed, path: &str, text: &str) {
    let path = bed.data().join("library").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

async fn asked(bed: &Bed, query: &str) -> (u16, Value) {
    let url = format!("http://mayfly/v1/library{query}");
    let answer = raw(&bed.server.socket()).get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn what_a_task_would_get_is_what_it_gets() {
    let bed = Bed::start().await;
    let empty = asked(&bed, "").await;
    assert_eq!((empty.0, &empty.1["resources"]), (200, &Value::Array(vec![])));
    put(&bed, "skill/_global/review/SKILL.md", "global");
    put(&bed, "skill/site/review/SKILL.md", "of the site");
    put(&bed, "rules/_global/style/style.md", "Be brief.");
    let (status, told) = asked(&bed, "?project=site").await;
    assert_eq!(status, 200);
    let told: Library = serde_json::from_value(told).unwrap();
    let ids: Vec<_> = told.resources.iter().map(|one| (one.id.as_str(), one.from.as_str())).collect();
    assert_eq!(ids, [("skill/site/review", "project"), ("rules/_global/style", "global")]);
    assert_eq!(
        (told.shadowed, told.projects),
        (vec!["skill/_global/review".into()], vec!["site".to_owned()])
    );

    let of_site = CreateTask { project: Some("site".into()), ..task("p", None) };
    let id = bed.client.submit(&of_site, "key").await.unwrap().id;
    let lock: Value = serde_json::from_str(&bed.client.lock(&id).await.unwrap()).unwrap();
    assert_eq!(lock["resources"].as_array().unwrap().len(), 2);
    put(&bed, "rules/_global/style/style.md", "Be very brief.");
    let named = Some(told.lock);
    let again = CreateTask { lock: named.clone(), ..task("p", None) };
    let again = bed.client.submit(&again, "other").await.unwrap().id;
    let same: Value = serde_json::from_str(&bed.client.lock(&again).await.unwrap()).unwrap();
    assert_eq!(same, lock, "what was listed is named by its lock");
    assert_ne!(asked(&bed, "?project=site").await.1["lock"].as_str(), named.as_deref());
}

/// Whatever a task can ask for can be asked of the list, and of the lock that it would have.
#[tokio::test]
async fn what_a_task_would_get_that_asks_for_more_and_less_is_what_it_gets() {
    let bed = Bed::start().await;
    for (path, text) in [
        ("agent/_global/reader/agent.md", "---\ntools: Read\n---\nRead."),
        ("skill/other/pdf/SKILL.md", "before"),
        ("rules/_global/style/style.md", "Be brief."),
        ("rules/_global/more/more.md", "Be kind."),
        ("rules/site/style/style.md", "Be long."),
    ] {
        put(&bed, path, text);
    }
    let text = |text: &str| Some(text.to_owned());
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let all = Wanted {
        project: text("site"),
        agent: text("reader"),
        resources: texts(&["skill/other/pdf", "rules/_global/style"]),
        without: texts(&["rules/more", "skill/pdf"]),
    };
    let repositorys = Wanted { agent: text("of-the-repository"), ..Wanted::default() };
    let mut asked = Vec::new();
    for wanted in [Wanted::default(), all.clone(), repositorys] {
        asked.push(is_what_a_task_gets(&bed, wanted).await);
    }
    assert_eq!(asked[1].agent, text("reader"));
    let ids: Vec<_> = asked[1].resources.iter().map(|one| format!("{} {}", one.id, one.from)).collect();
    assert_eq!(ids, ["skill/other/pdf task", "agent/_global/reader task", "rules/_global/style task"]);
    assert_eq!((asked[2].resources.len(), &asked[2].agent), (3, &text("of-the-repository")));

    let pinned = texts(&[&format!("skill/other/pdf@{}", &asked[1].resources[0].sha256[..12])]);
    put(&bed, "skill/other/pdf/SKILL.md", "after");
    let old = is_what_a_task_gets(&bed, Wanted { resources: pinned, ..all.clone() }).await;
    assert_eq!(old.resources[0], asked[1].resources[0]);
    assert_ne!(is_what_a_task_gets(&bed, all).await.resources[0], asked[1].resources[0]);
}

/// What is told of it is what a task with these wishes runs with.
async fn is_what_a_task_gets(bed: &Bed, wanted: Wanted) -> Library {
    let listed = bed.client.library(&wanted).await.unwrap();
    let lock = bed.client.library_lock(&wanted).await.unwrap();
    assert_eq!(pack::sha256(lock.as_bytes()), listed.lock);
    let key = format!("{wanted:?} {}", listed.lock);
    let Wanted { project, agent, resources, without } = wanted;
    let task = CreateTask { project, agent, resources, without, ..task("p", None) };
    let id = bed.client.submit(&task, &pack::sha256(key.as_bytes())).await.unwrap().id;
    assert_eq!(bed.client.lock(&id).await.unwrap(), lock);
    listed
}

/// What a server would download is no part of a lock until it was fetched, on the machine that has the library.
#[tokio::test]
async fn nothing_is_fetched_for_a_lock_that_is_asked_for() {
    let bed = Bed::start().await;
    put(&bed, "mcp/site/tiny/mcp.json", r#"{"command": "npx", "args": ["-y", "tiny@1.0.0"]}"#);
    let of_site = Wanted { project: Some("site".to_owned()), ..Wanted::default() };
    assert_eq!(bed.client.library(&of_site).await.unwrap().resources.len(), 1);
    let (kind, detail) = refusal(bed.client.library_lock(&of_site).await);
    assert!(kind == "invalid-library" && detail.contains("on the machine that has the library"), "{detail}");
    assert!(bed.client.library_lock(&Wanted::default()).await.is_ok());
}

/// What is more than is told is counted.
#[tokio::test]
async fn of_what_is_cut_off_it_is_told_how_much_it_is() {
    let bed = Bed::start().await;
    let many = |what: &dyn Fn(usize) -> String| (0..MERGED_MAX + 7).map(what).collect::<Vec<_>>().join(",");
    let env = |value: &str| format!("\"env\": {{{}}}", many(&|i| format!("\"K{i}\": \"{value}\"")));
    let hook = r#"{"type": "command", "command": "true"}"#;
    let hooks = many(&|i| format!("{{\"matcher\": \"T{i}\", \"hooks\": [{hook}]}}"));
    put(&bed, "settings/_global/a/settings.json", &format!("{{{}}}", env("1")));
    let later = format!("{{{}, \"hooks\": {{\"PostToolUse\": [{hooks}]}}}}", env("2"));
    put(&bed, "settings/_global/b/settings.json", &later);
    for i in 0..=STRAYS_MAX {
        std::os::unix::fs::symlink("..", bed.data().join(format!("library/settings/_global/l{i:02}")))
            .unwrap();
    }
    let listed = bed.client.library(&Wanted::default()).await.unwrap();
    let merged = listed.merged;
    assert_eq!((merged.settings.len(), merged.more_settings), (MERGED_MAX, 7));
    assert_eq!((merged.hooks.len(), merged.more_hooks), (MERGED_MAX, 7));
    assert_eq!((listed.strays.len(), listed.more_strays), (STRAYS_MAX, 1));
    assert_eq!(listed.strays[0].file, "settings/_global/l00");
}

#[tokio::test]
async fn what_cannot_be_told_of_the_library_is_said_as_a_problem() {
    let bed = Bed::start().await;
    let many = format!("?{}", "without=rules/x&".repeat(RESOURCES_MAX + 1));
    for (query, words) in [
        ("?project=../x", "`project` is no such name"),
        ("?projects=x", "`projects` is none of `project`, `agent`, `resources` and `without`"),
        ("?agent=a/b/c", "`agent` is no such name"),
        ("?agent=a&agent=b", "`agent` is there more than once"),
        ("?resources=rules/x&resources=pdf", "`resources` has a bad name, number 2"),
        (&many, "`without` has 501 names, and 500 are the most"),
    ] {
        let (status, problem) = asked(&bed, query).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            (status, &problem["type"]) == (400, &"bad-request".into()) && detail.contains(words),
            "{problem}"
        );
    }
    for query in ["?agent=other/none", "?resources=skill/none", "?without=rules/none"] {
        let (status, problem) = asked(&bed, query).await;
        assert_eq!((status, &problem["type"]), (422, &"invalid-library".into()));
        assert!(problem["detail"].as_str().unwrap().contains("none: is "), "{problem}");
    }
    put(&bed, "mcp/site/db/mcp.json", "{\n  // the database\n}");
    let (status, problem) = asked(&bed, "?project=site").await;
    assert_eq!((status, &problem["type"]), (422, &"invalid-library".into()));
    assert!(
        problem["detail"].as_str().unwrap().contains("mcp/site/db/mcp.json:2:3: key must be a string"),
        "{problem}"
    );
    assert_eq!(asked(&bed, "").await.0, 200, "it is wrong for one project alone");
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let none = bed.client.lock(&id).await.unwrap_err();
    assert!(matches!(none, ClientError::Refused(problem) if problem.kind == "no-such-lock"));
}

/// What a library elsewhere has: two resources, and their lock.
fn elsewhere() -> (Vec<(String, Vec<u8>)>, mayfly_library::Lock) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in
        [("agent/_global/reader/agent.md", "---\ntools: Read\n---\nRead."), ("rules/_global/r/r.md", "r")]
    {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let wishes = Wishes { agent: "reader".parse().ok(), ..Wishes::default() };
    let resolution = Folder::at(dir.path()).resolve(&wishes, &|_| None).unwrap();
    let archives = resolution.resources.iter().map(|(one, _)| (one.sha256.clone(), one.archive()));
    (archives.collect(), resolution.lock())
}

/// Covers S46 for what is handed over of a library: nothing is kept but what could have been written here.
#[tokio::test]
async fn a_library_elsewhere_is_handed_over_by_content() {
    let bed = Bed::start().await;
    let (archives, lock) = elsewhere();
    let kind = |error: ClientError| match error {
        ClientError::Refused(problem) => problem.kind,
        other => panic!("{other}"),
    };
    let early = bed.client.keep_lock(&lock.to_json()).await.unwrap_err();
    assert_eq!(kind(early), "invalid-lock");
    for (sha256, archive) in &archives {
        let other = bed.client.keep_resource(&"0".repeat(64), archive).await.unwrap_err();
        assert_eq!(kind(other), "invalid-resource");
        assert!(!bed.client.has_resource(sha256).await.unwrap());
        bed.client.keep_resource(sha256, archive).await.unwrap();
        assert!(bed.client.has_resource(sha256).await.unwrap());
        bed.client.keep_resource(sha256, archive).await.unwrap();
    }
    let huge = vec![0; mayfly_library::pack::ARCHIVE_BYTES_MAX + 1];
    assert_eq!(kind(bed.client.keep_resource(&archives[0].0, &huge).await.unwrap_err()), "too-large");
    let mut away = lock.clone();
    away.resources[0].sha256 = "../../mayfly.db".to_owned();
    let mut more = lock.clone();
    more.resources[0].bytes += 1;
    let mut turned = lock.clone();
    turned.resources.reverse();
    let mut renamed = lock.clone();
    renamed.resources[0].id = "mcp/_global/reader".parse().unwrap();
    for bad in [away, more, turned, renamed] {
        let refused = bed.client.keep_lock(&bad.to_json()).await.unwrap_err();
        assert_eq!(kind(refused), "invalid-lock", "{}", bad.to_json());
    }
    let kept = bed.client.keep_lock(&lock.to_json()).await.unwrap();
    assert_eq!(kept.lock, lock.sha256());
    put(&bed, "rules/_global/own/own.md", "the orchestrator's own");
    let named = CreateTask { lock: Some(kept.lock), ..task("p", None) };
    let id = bed.client.submit(&named, "key").await.unwrap().id;
    assert_eq!(bed.client.lock(&id).await.unwrap(), lock.to_json(), "and nothing of what is here");
}

/// Of two servers of one name the CLI would have but one, whoever puts them together.
#[tokio::test]
async fn a_lock_with_two_servers_of_one_name_is_none() {
    let bed = Bed::start().await;
    let servers = ["db", "more"].map(|name| {
        let text = r#"{"mcpServers": {"db": {"command": "x"}}}"#;
        let file = File { path: "mcp.json".to_owned(), executable: false, bytes: text.as_bytes().to_vec() };
        Resource::read(format!("mcp/_global/{name}").parse().unwrap(), vec![file]).unwrap()
    });
    bed.client.keep_resource(&servers[0].sha256, &servers[0].archive()).await.unwrap();
    let resources = servers.map(|resource| (resource, From::Global)).to_vec();
    let lock = Resolution { resources, ..Resolution::default() }.lock();
    let (kind, detail) = refusal(bed.client.keep_lock(&lock.to_json()).await);
    assert_eq!(kind, "invalid-lock");
    assert!(detail.contains("mcp/_global/more: has a server `db`, and so has mcp/_global/db"), "{detail}");
}

/// What a server runs may be lost, or be missing from a clone: a task would not be accepted.
#[tokio::test]
async fn a_tree_that_is_locked_and_not_there_is_told_of() {
    let bed = Bed::start().await;
    let sha256 = "0123456789abcdef".repeat(4);
    put(&bed, "mcp/_global/tiny/mcp.json", r#"{"command": "npx", "args": ["tiny"]}"#);
    let tool = serde_json::json!({"tiny": {"package": "tiny", "resolved": "tiny@1.0.0", "sha256": sha256,
        "program": "node", "path": "x.js"}});
    put(&bed, "mcp/_global/tiny/tools.json", &tool.to_string());
    let words = "tiny@1.0.0 is not in .tools: `mayfly library lock` fetches it again";
    let wrong = bed.client.check_library().await.unwrap();
    assert_eq!((wrong.len(), wrong[0].file.as_str()), (1, "mcp/_global/tiny/tools.json"));
    assert_eq!(wrong[0].words, words);
    let (kind, detail) = refusal(bed.client.library_lock(&Wanted::default()).await);
    assert!(kind == "invalid-library" && detail.contains(words), "{detail}");
    put(&bed, &format!(".tools/{sha256}/x.js"), "x");
    assert_eq!(bed.client.check_library().await.unwrap(), []);
    assert!(bed.client.library_lock(&Wanted::default()).await.is_ok());
}

/// An archive of one file whose head says something else: its name, its type, its mode.
fn crafted(name: &[u8], kind: u8, mode: [u8; 7]) -> Vec<u8> {
    let file = mayfly_library::File { path: "x".to_owned(), executable: false, bytes: Vec::new() };
    let mut archive = pack::pack(&[file]);
    archive[..name.len()].copy_from_slice(name);
    archive[100..107].copy_from_slice(&mode);
    archive[156] = kind;
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    archive
}

/// Covers S46: what is refused is named, and nothing of it is kept.
#[tokio::test]
async fn an_archive_that_means_harm_is_refused_by_its_entry_and_nothing_is_kept() {
    let bed = Bed::start().await;
    let (plain, setuid) = (*b"0000644", *b"0004755");
    let file =
        |path: &str| mayfly_library::File { path: path.to_owned(), executable: false, bytes: vec![b'x'] };
    let half = vec![0; mayfly_library::tree::BYTES_MAX / 2 + 1];
    let large = |path: &str| mayfly_library::File { bytes: half.clone(), ..file(path) };
    for (archive, words) in [
        (crafted(b"../x", b'0', plain), "`../x` is no path beneath its folder"),
        (crafted(b"/etc/x", b'0', plain), "`/etc/x` is no path beneath its folder"),
        (crafted(b"x", b'1', plain), "`x` is a link"),
        (crafted(b"x", b'2', plain), "`x` is a link"),
        (crafted(b"x", b'3', plain), "`x` is no plain file"),
        (crafted(b"x", b'6', plain), "`x` is no plain file"),
        (crafted(b"x", b'x', plain), "`x` is no plain file"),
        (crafted(b"x", b'0', setuid), "`x` has the mode 4755"),
        (pack::pack(&[file("x"), file("x")]), "`x` is there twice"),
        (pack::pack(&[file("a"), file("a/b")]), "`a/b` needs `a` to be a folder, and it is a file too"),
        (pack::pack(&[file("A"), file("a")]), "`a` is called as `A` is but for upper and lower case"),
        (pack::pack(&[large("a"), large("b")]), "`b` makes the resource larger than 16 MiB"),
    ] {
        let refused = bed.client.keep_resource(&pack::sha256(&archive), &archive).await.unwrap_err();
        let ClientError::Refused(problem) = refused else { panic!("{refused}") };
        assert_eq!(problem.kind, "invalid-resource");
        assert!(problem.detail.contains(words), "{}", problem.detail);
    }
    let kept = fs::read_dir(bed.data().join("resources")).map_or(0, Iterator::count);
    assert_eq!(kept, 0);
}

/// S12: what is too large for one project costs the tasks of another nothing.
#[tokio::test]
async fn what_is_too_large_is_refused_and_others_are_accepted() {
    let bed = Bed::start().await;
    put(&bed, "skill/large/x/SKILL.md", "x");
    let file = fs::File::options().write(true).open(bed.data().join("library/skill/large/x/SKILL.md"));
    file.unwrap().set_len(1 << 40).unwrap();
    put(&bed, "rules/braces/x/x.md", &format!("---\npaths: \"{}\"\n---\nx", "{a,b}".repeat(40)));
    put(&bed, "skill/site/x/SKILL.md", "x");
    let submit = async |project: &str| {
        let task = CreateTask { project: Some(project.to_owned()), ..task("p", None) };
        bed.client.submit(&task, project).await
    };
    for (project, words) in [
        ("large", "skill/large/x/SKILL.md: makes the resource larger than 16 MiB"),
        ("braces", "rules/braces/x/x.md:2:1: `paths` is more than the CLI could match in time"),
    ] {
        let refused = submit(project).await.unwrap_err();
        let ClientError::Refused(problem) = refused else { panic!("{refused}") };
        assert_eq!(problem.kind, "invalid-library");
        assert!(problem.detail.contains(words), "{}", problem.detail);
    }
    let id = submit("site").await.unwrap().id;
    assert!(bed.client.lock(&id).await.unwrap().contains("skill/site/x"));
}

/// A repository is of the project that the configuration says, else of the one that is called as it is.
#[tokio::test]
async fn a_repository_is_mapped_to_a_project() {
    let bed = Bed::start_with(|config| {
        config.projects = [("tally-main".to_owned(), "tally".parse().unwrap())].into();
    })
    .await;
    for project in ["tally", "site", "tally-main"] {
        put(&bed, &format!("rules/{project}/r/r.md"), project);
    }
    let bundle = bed.data().join("to-upload");
    fs::write(&bundle, format!("# v2 git bundle\n{} HEAD\n\nPACK", "1".repeat(40))).unwrap();
    for (repository, asked, expected) in
        [("tally-main", None, "tally"), ("site", None, "site"), ("tally-main", Some("site"), "site")]
    {
        let bundle = Bundle::read(&bundle, None).await.unwrap();
        let workspace = Some(bed.client.upload_workspace(repository, &bundle).await.unwrap());
        let project = asked.map(str::to_owned);
        let task = CreateTask { workspace, project, ..task("p", None) };
        let key = format!("{repository} {asked:?}");
        let id = bed.client.submit(&task, &key).await.unwrap().id;
        let lock: Value = serde_json::from_str(&bed.client.lock(&id).await.unwrap()).unwrap();
        assert_eq!(
            (&lock["project"], &lock["resources"][0]["id"]),
            (&expected.into(), &format!("rules/{expected}/r").into())
        );
        assert_eq!(lock["resources"].as_array().unwrap().len(), 1, "{lock}");
    }
}

/// What an API is refused with.
fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (String, String) {
    match answer.unwrap_err() {
        ClientError::Refused(problem) => (problem.kind, problem.detail),
        other => panic!("{other}"),
    }
}

/// What `mayfly library` does on the folder, the API does too, and the next task sees it.
#[tokio::test]
async fn the_library_is_looked_at_and_changed_by_the_api() {
    let bed = Bed::start().await;
    let (client, id) = (&bed.client, "rules/site/style");
    assert_eq!(refusal(client.library_resource(id).await).0, "no-such-resource");
    assert_eq!(refusal(client.remove_from_library(id).await).0, "no-such-resource");
    let file =
        |text: &str| File { path: "style.md".to_owned(), executable: false, bytes: text.as_bytes().to_vec() };
    let archive = |text: &str| pack::pack(&[file(text)]);
    let added = client.add_to_library(id, &archive("Be brief."), false).await.unwrap();
    assert_eq!(client.library_resource(id).await.unwrap(), added);
    assert_eq!(added.sha256, pack::sha256(&client.library_archive(id).await.unwrap()));
    assert_eq!((added.files[0].path.as_str(), added.bytes), ("style.md", 9));
    let (kind, detail) = refusal(client.add_to_library(id, &archive("Be kind."), false).await);
    assert!(kind == "resource-taken" && detail.contains("`replace=true`"), "{detail}");
    let again = client.add_to_library(id, &archive("Be brief."), false).await.unwrap();
    assert_eq!(again, added, "who has no answer asks again");
    client.add_to_library(id, &archive("Be kind."), true).await.unwrap();
    let there = fs::read_to_string(bed.data().join("library/rules/site/style/style.md")).unwrap();
    assert_eq!(there, "Be kind.");
    let in_site = Wanted { project: Some("site".to_owned()), ..Wanted::default() };
    let count = async |wanted: &Wanted| client.library(wanted).await.unwrap().resources.len();
    assert_eq!((count(&in_site).await, count(&Wanted::default()).await), (1, 0));

    let begun = client.begin_library().await.unwrap();
    assert!(begun.len() == 6 && begun.iter().all(|one| one.added), "{begun:?}");
    assert!(client.begin_library().await.unwrap().iter().all(|one| !one.added));
    assert_eq!(client.check_library().await.unwrap(), []);
    put(&bed, "mcp/site/db/mcp.json", "{\n  // the database\n}");
    let wrong = client.check_library().await.unwrap();
    assert_eq!(
        (wrong[0].file.as_str(), wrong[0].line, wrong[0].column),
        ("mcp/site/db/mcp.json", Some(2), Some(3))
    );
    let (kind, detail) = refusal(client.library_resource("mcp/site/db").await);
    assert!(kind == "invalid-library" && detail.contains("mcp/site/db/mcp.json:2:3"), "{detail}");
    client.remove_from_library("mcp/site/db").await.unwrap();

    let of_site = CreateTask { project: Some("site".into()), ..task("p", None) };
    let before = bed.client.submit(&of_site, "one").await.unwrap().id;
    client.remove_from_library(id).await.unwrap();
    let after = bed.client.submit(&of_site, "two").await.unwrap();
    let lock = pack::sha256(client.lock(&after.id).await.unwrap().as_bytes());
    let differ = client.library_diff(&before, &lock).await.unwrap();
    let [gone] = &differ.resources[..] else { panic!("{differ:?}") };
    assert_eq!((gone.before.as_ref().unwrap().id.as_str(), &gone.after), (id, &None));
    assert_eq!(client.library_diff(&after.short, &after.id).await.unwrap(), LibraryDifferences::default());
    let of_another = CreateTask { project: Some("other".into()), ..task("p", None) };
    let by_another = CreateTask { agent: Some("code-reviewer".into()), ..of_another.clone() };
    let other = bed.client.submit(&of_another, "three").await.unwrap().id;
    let reviewed = bed.client.submit(&by_another, "four").await.unwrap().id;
    let differ = client.library_diff(&other, &reviewed).await.unwrap();
    let agent = LibraryChanged { before: None, after: Some("code-reviewer".to_owned()) };
    assert_eq!(differ, LibraryDifferences { agent: Some(agent), ..LibraryDifferences::default() });
    let project = client.library_diff(&after.id, &other).await.unwrap().project.unwrap();
    assert_eq!((project.before.as_deref(), project.after.as_deref()), (Some("site"), Some("other")));
    let (kind, detail) = refusal(client.library_diff(&"0".repeat(64), &lock).await);
    assert!(kind == "no-such-lock" && detail.contains("no lock of this SHA-256"), "{detail}");
    assert_eq!(refusal(client.library_diff("00000000", &lock).await).0, "no-such-task");
}

/// Of several who add under one name at once, one does, and each of the others is told so.
#[tokio::test]
async fn edits_come_one_after_the_other() {
    let bed = Bed::start().await;
    let adding = (0..8).map(|number| {
        let client = bed.client.clone();
        let bytes = number.to_string().into_bytes();
        let archive = pack::pack(&[File { path: "r.md".to_owned(), executable: false, bytes }]);
        tokio::spawn(async move { client.add_to_library("rules/_global/r", &archive, false).await })
    });
    let mut added = 0;
    for one in adding.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(_) => added += 1,
            refused => assert_eq!(refusal(refused).0, "resource-taken"),
        }
    }
    assert_eq!(added, 1);
}

/// Covers S46 for what is put into the library: it stays as it is if anything is wrong.
#[tokio::test]
async fn what_is_wrong_is_not_put_into_the_library() {
    let bed = Bed::start().await;
    let file = |path: &str| File { path: path.to_owned(), executable: false, bytes: b"x".to_vec() };
    let good = pack::pack(&[file("style.md")]);
    let put = async |id: &str, archive: &[u8]| refusal(bed.client.add_to_library(id, archive, false).await);
    assert_eq!(put("rules/_global/style", b"no archive").await.0, "invalid-resource");
    let foreign = [&good[..], &[1]].concat();
    assert_eq!(put("rules/_global/style", &foreign).await.0, "invalid-resource");
    assert_eq!(put("rules/_global/style", &pack::pack(&[file("style.txt")])).await.0, "invalid-library");
    assert_eq!(put("skill/_global/style", &good).await.0, "invalid-library");
    let (kind, detail) = put("rule/_global/style", &good).await;
    assert!(kind == "bad-request" && detail.contains("names no resource"), "{detail}");
    assert_eq!(put("rules/%2e%2e/style", &good).await.0, "bad-request");
    let huge = vec![0; pack::ARCHIVE_BYTES_MAX + 1];
    assert_eq!(put("rules/_global/style", &huge).await.0, "too-large");
    assert!(!bed.data().join("library").exists());
}
