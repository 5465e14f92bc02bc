//! `mayfly library`, on folders alone; what a task had is told by a stand-in for the orchestrator.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::User;
use super::stand_in::{problem, serve};

/// A file of the user's, below the folder where `mayfly` is run.
fn put(user: &User, path: &str, text: &str) -> PathBuf {
    let path = user.cwd().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// What `mayfly library` says, under the line that was typed.
fn said(user: &User, args: &[&str]) -> String {
    format!("$ mayfly library {}\n{}", args.join(" "), user.said(user.mayfly(&[&["library"], args].concat())))
}

fn of_json(user: &User, args: &[&str]) -> Vec<Value> {
    let output = user.mayfly(&[&["library"], args].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One of the usual things to do after the other; no orchestrator is started for any of them.
#[test]
fn a_library_is_begun_looked_at_and_changed() {
    let user = User::new();
    put(&user, "style.md", "Be brief.");
    let all = [
        &["ls"][..],
        &["init"],
        &["init"],
        &["ls"],
        &["check"],
        &["show", "agent/_global/code-reviewer"],
        &["add", "style.md", "--as", "rules/site/style"],
        &["add", "style.md", "--as", "rules/site/style"],
        &["add", "style.md", "--as", "rules/site/working-together", "--replace"],
        &["ls", "--project", "site"],
        &["ls", "--project", "site", "--agent", "fixer", "--no-hooks", "check-syntax"],
        &["lock", "--project", "site", "--agent", "fixer", "--no-hooks", "check-syntax"],
        &["remove", "rules/site/style"],
        &["remove", "rules/site/style"],
    ];
    insta::assert_snapshot!(all.map(|args| said(&user, args)).concat());
    let data = user.home().join(".local/share/mayfly");
    let mut names: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["library", "mayfly-data"], "a later start takes the folder for its own");
}

/// What is listed as JSON is what the API tells, and names the very lock.
#[test]
fn what_is_listed_for_programs_names_the_lock() {
    let user = User::new();
    user.mayfly(&["library", "init"]).assert().success();
    let listed = of_json(&user, &["ls", "--json"]).remove(0);
    assert_eq!(listed["resources"].as_array().unwrap().len(), 6);
    assert_eq!(listed["resources"][0]["from"], "global");
    let lock = user.mayfly(&["library", "lock", "--json"]).output().unwrap().stdout;
    let name =
        Command::new("sha256sum").stdin(file_of(&user, lock.strip_suffix(b"\n").unwrap())).output().unwrap();
    assert!(name.stdout.starts_with(listed["lock"].as_str().unwrap().as_bytes()));
    let shown = of_json(&user, &["show", "hooks/_global/check-syntax", "--json"]).remove(0);
    assert_eq!(shown["files"][0]["executable"], true);
    assert_eq!(shown["what"]["PostToolUse"][0]["hooks"][0]["command"], "./check.sh");
    assert_eq!(shown["sha256"], listed["resources"][3]["sha256"]);
}

fn file_of(user: &User, bytes: &[u8]) -> fs::File {
    let path = user.cwd().join("bytes");
    fs::write(&path, bytes).unwrap();
    fs::File::open(path).unwrap()
}

/// Covers S45 and S46 for what the user is shown: a name in a library is nothing that a terminal obeys.
#[test]
fn everything_that_is_wrong_is_named_with_its_place() {
    let user = User::new();
    put(&user, "lib/mcp/site/db/mcp.json", "{\n  // the database\n  \"command\": \"db\"}");
    put(&user, "lib/mcp/_global/api/mcp.json", r#"{"command": "api", "env": {"T": "${TOKEN}"}}"#);
    put(&user, "lib/mcp/site/more/mcp.json", r#"{"mcpServers": {"api": {"command": "b"}}}"#);
    put(&user, "lib/skill/_global/a\u{1b}[2Jb/SKILL.md", "x");
    put(&user, "lib/agent/_global/x/agent.md", "---\nname: \u{1b}]0;y\n---\nz");
    symlink("/etc", user.cwd().join("lib/skill/_global/etc")).unwrap();
    put(&user, "lib/rules/_global/x/notes.txt", "x");
    let check = ["check", "--library", "lib"];
    let all = [&check[..], &["ls", "--library", "lib"], &["show", "mcp/site/db", "--library", "lib"]];
    let text = all.map(|args| said(&user, args)).concat();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    insta::assert_snapshot!(text);
    let problems = of_json(&user, &["check", "--json", "--library", "lib"]);
    let db = problems.iter().find(|problem| problem["file"] == "mcp/site/db/mcp.json").unwrap();
    assert_eq!((&db["line"], &db["column"]), (&2.into(), &3.into()));
    assert_eq!(problems.len(), text.split("$ mayfly").nth(1).unwrap().lines().count() - 3);
    assert!(user.untouched());
}

/// A validator that fails takes nothing away from what is found without it, and is one thing more that is wrong.
#[test]
fn what_is_wrong_is_told_though_the_validator_fails() {
    let user = User::new();
    put(&user, "lib/rules/_global/x/notes.txt", "x");
    put(&user, "lib/skill/_global/x/SKILL.md", "x");
    let claude = user.home().join("claude");
    put(&user, "mayfly.toml", &format!("claude = \"{}\"\n", claude.display()));
    let check = ["check", "--library", "lib", "--config", "mayfly.toml"];
    let text = said(&user, &check);
    let words = "the library: skills and agents were not looked at by the CLI's own validator: ";
    assert!(text.contains("exit 1\n") && text.contains("rules/_global/x"), "{text}");
    assert!(text.contains(words) && text.contains("gave no report"), "{text}");
    let told = of_json(&user, &[&check[..], &["--json"]].concat());
    let files: Vec<_> = told.iter().map(|problem| problem["file"].as_str().unwrap()).collect();
    assert_eq!((files.len(), files[files.len() - 1]), (2, "the library"));
    // One of the user's cache that others could change is not looked at, and not as good as none.
    let cache = user.home().join(".cache/mayfly/claude");
    fs::create_dir_all(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let text = said(&user, &["check", "--library", "lib"]);
    assert!(
        text.contains("exit 1\n") && text.contains(words) && !text.contains("no `claude` is here"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_added_is_refused_and_the_library_stays_as_it_is() {
    let user = User::new();
    put(&user, "x.txt", "x");
    put(&user, "agent.md", "---\nname: other\n---\nx");
    put(&user, "folder/SKILL.md", "x");
    symlink("/etc/passwd", user.cwd().join("folder/link")).unwrap();
    let all = [
        &["add", "none", "--as", "skill/_global/x"][..],
        &["add", "x.txt", "--as", "agent/_global/x"],
        &["add", "agent.md", "--as", "agent/_global/x"],
        &["add", "folder", "--as", "skill/_global/x"],
        &["add", "folder", "--as", "skil/_global/x"],
        &["add", "folder", "--as", "skill/../x"],
        &["add", "http://127.0.0.1/x", "--as", "skill/_global/x"],
        &["add", "ext::sh -c touch% pwned", "--as", "skill/_global/x"],
        &["show", "skill/_global/x"],
        &["diff", "nothing", "-"],
        &["diff", "-", "-"],
    ];
    insta::assert_snapshot!(all.map(|args| said(&user, args)).concat());
    assert!(user.untouched() && !user.cwd().join("pwned").exists());
}

/// A repository of skills: one good, one that is a link, and traps for whoever takes it for more than files.
fn repository(user: &User) -> PathBuf {
    let top = user.git_init("skills", &[]);
    put(user, "skills/pdf/SKILL.md", "---\nname: pdf\n---\nRead it.");
    let script = put(user, "skills/pdf/run.sh", "#!/bin/sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    put(user, "skills/.gitattributes", "* filter=trap\n");
    symlink("/etc", top.join("link")).unwrap();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.env_clear().env("HOME", user.home()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
        let who = ["-c", "user.name=a", "-c", "user.email=a@localhost"];
        assert!(git.arg("-C").arg(&top).args(who).args(args).status().unwrap().success(), "{args:?}");
    };
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "-m", "skills"]);
    top
}

/// Covers S06 and S07: a part of a repository comes as files; what its configuration or the user's would run is not run.
#[test]
fn a_part_of_a_git_repository_is_added_and_nothing_of_it_runs() {
    let user = User::new();
    let top = repository(&user);
    let trap = user.home().join("sprung");
    let command = format!("touch {}", trap.display());
    let config = format!(
        "[filter \"trap\"]\n\tsmudge = {command}; cat\n\tclean = {command}; cat\n[core]\n\tfsmonitor = {command}\n"
    );
    fs::write(user.home().join(".gitconfig"), &config).unwrap();
    let hook = top.join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\n{command}\n")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let mut own = fs::read_to_string(top.join(".git/config")).unwrap();
    own.push_str(&config);
    fs::write(top.join(".git/config"), own).unwrap();

    let url = format!("file://{}", top.display());
    let add = |below: &str, id: &str| said(&user, &["add", &format!("{url}{below}"), "--as", id]);
    let good = add("#pdf", "skill/_global/pdf");
    assert!(
        good.contains("exit 0\n") && good.contains("skill/_global/pdf is in the library: 36B in 2 files"),
        "{good}"
    );
    let shown = of_json(&user, &["show", "skill/_global/pdf", "--json"]).remove(0);
    assert_eq!(shown["files"][1]["executable"], true);
    for (below, words) in [
        ("#link", "has no folder or file `link`"),
        ("#link/ssh", "has no folder or file `link/ssh`"),
        ("#none", "has no folder or file `none`"),
        ("#../skills", "after `#` stands a folder"),
        ("", "skill/_global/other/link: is a link"),
        ("-none", "cannot fetch `file://"),
    ] {
        let refused = add(below, "skill/_global/other");
        assert!(refused.contains("exit 2\n") && refused.contains(words), "{below}: {refused}");
    }
    assert!(!trap.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_tasks_had_is_compared() {
    let user = User::new();
    user.mayfly(&["library", "init", "--library", "lib"]).assert().success();
    let now = |chosen: &[&str]| {
        let args = [&["library", "lock", "--json", "--library", "lib"], chosen].concat();
        user.mayfly(&args).output().unwrap().stdout
    };
    let before = String::from_utf8(now(&[])).unwrap();
    put(&user, "lib/rules/_global/working-together/rules.md", "Be brief.");
    put(&user, "lib/skill/site/x/SKILL.md", "x");
    fs::remove_dir_all(user.cwd().join("lib/settings")).unwrap();
    put(&user, "lib/skill/_global/new/SKILL.md", "x");
    fs::write(user.cwd().join("after.json"), now(&["--agent", "code-reviewer"])).unwrap();
    put(&user, "other.json", "{}");
    let answer = async move |axum::extract::Path(id): axum::extract::Path<String>| match id.as_str() {
        "1a2b" => before.into_response(),
        _ => problem(404, "no-such-lock", "this task runs with nothing of the library"),
    };
    let data = serve(&user, Router::new().route("/v1/tasks/{id}/lock", get(answer)));
    let data = data.to_str().unwrap();
    let all = [
        &["diff", "1a2b", "after.json"][..],
        &["diff", "1a2b", "1a2b"],
        &["diff", "1a2b", "ffff"],
        &["diff", "1a2b", "other.json"],
    ];
    let text = all.map(|args| {
        let said = user.said(user.mayfly(&[&["library"], args, &["--data", data]].concat()));
        format!("$ mayfly library {}\n{said}", args.join(" "))
    });
    insta::assert_snapshot!(text.concat());
    let mut piped = user.mayfly(&["library", "diff", "1a2b", "-", "--json", "--data", data]);
    let output = piped.write_stdin(fs::read(user.cwd().join("after.json")).unwrap()).output().unwrap();
    let found: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(found.len(), 4);
    assert_eq!(found[0]["agent"], serde_json::json!({"after": "code-reviewer"}));
    assert_eq!(found[1]["after"]["id"], "skill/_global/new");
}

/// An edit whose answer is lost is asked for again, and is not said to have been refused for what itself did.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_elsewhere_is_asked_for_again_and_told_in_words_of_the_command_line() {
    let user = User::new();
    put(&user, "style.md", "Be brief.");
    let asked = std::sync::atomic::AtomicU32::new(0);
    let asked = std::sync::Arc::new(asked);
    let gone = || problem(404, "no-such-resource", "it is not in the library: see `GET /v1/library`");
    let remove = async move |axum::extract::Path(name): axum::extract::Path<String>| {
        let first = name == "style" && asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        // Who dies while it is asked breaks the connection off.
        assert!(!first, "the stand-in ends here");
        gone()
    };
    let add =
        async || problem(409, "resource-taken", "it is in the library already: ask with `replace=true`");
    let of_one = axum::routing::delete(remove).put(add);
    let get = get(async move || gone());
    let routes = Router::new().route("/v1/library/resources/rules/site/{name}", of_one);
    let data = serve(&user, routes.route("/v1/library/resources/rules/site/{name}/archive", get));
    let tunnel = data.join("tunnel.json");
    fs::write(&tunnel, r#"{"to": "https://box.example:6293", "token": "made-up"}"#).unwrap();
    fs::set_permissions(&tunnel, fs::Permissions::from_mode(0o600)).unwrap();
    let data = data.to_str().unwrap();
    let all = [
        &["remove", "rules/site/style"][..],
        &["remove", "rules/site/other"],
        &["show", "rules/site/other"],
        &["add", "style.md", "--as", "rules/site/style"],
    ];
    insta::assert_snapshot!(
        all.map(|args| said(&user, &[args, &["--data", data]].concat()).replace(data, "[data]")).concat()
    );
}

/// Where the tasks are elsewhere, so is their library.
#[test]
fn behind_a_tunnel_only_a_library_that_is_named_is_one() {
    let user = User::new();
    let data = user.home().join("data");
    fs::create_dir(&data).unwrap();
    let tunnel = data.join("tunnel.json");
    fs::write(&tunnel, r#"{"to": "https://box.example:6293", "token": "made-up"}"#).unwrap();
    fs::set_permissions(&tunnel, fs::Permissions::from_mode(0o600)).unwrap();
    let data = data.to_str().unwrap();
    let config =
        put(&user, "mayfly.toml", &format!("[library]\nfolder = \"{}/other\"\n", user.home().display()));
    let text = [
        said(&user, &["init", "--data", data]),
        said(&user, &["ls", "--data", data, "--config", config.to_str().unwrap()]),
        said(&user, &["init", "--data", data, "--library", "lib"]),
    ]
    .concat();
    let home = fs::canonicalize(user.home()).unwrap();
    let text = text
        .replace(&home.display().to_string(), "[home]")
        .replace(&user.home().display().to_string(), "[home]");
    insta::assert_snapshot!(text);
    assert!(!Path::new(data).join("library").exists());
}

/// The folder that the configuration names is the library.
#[test]
fn the_configuration_names_the_library() {
    let user = User::new();
    let folder = user.home().join("agents");
    let config = put(&user, "mayfly.toml", &format!("[library]\nfolder = \"{}\"\n", folder.display()));
    user.mayfly(&["library", "init", "--config", config.to_str().unwrap()]).assert().success();
    assert!(folder.join("agent/_global/fixer/agent.md").is_file() && user.untouched());
}

/// What is wrong in a library that is to be handed over is said before anything is started.
#[test]
fn a_library_that_cannot_be_handed_over_starts_nothing() {
    let user = User::new();
    put(&user, "lib/rules/_global/x/notes.txt", "x");
    let all = [
        &["--library", "none", "p"][..],
        &["--library", "lib", "p"],
        &["--library", "lib", "--no-rules", "y", "p"],
    ];
    let said = all.map(|args| user.said(user.with_token(&[&["run"], args].concat())));
    insta::assert_snapshot!(said.concat());
    assert!(user.untouched());
}

/// Whoever interrupts a lock is obeyed at once: what fetches ends with all that it started, though it obeys nobody, and
/// nothing is left of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_a_lock_and_what_it_fetches_by() {
    let user = User::new();
    put(&user, "lib/mcp/_global/tiny/mcp.json", r#"{"command": "npx", "args": ["tiny"]}"#);
    let alive = user.home().join("alive");
    assert!(Command::new("mkfifo").arg(&alive).status().unwrap().success());
    let deaf = "#!/bin/sh\ntrap '' HUP INT TERM\nexec >\"$HOME/alive\"\ntail -f /dev/null &\necho begun\nexec tail -f /dev/null\n";
    let npm = put(&user, "bin/npm", deaf);
    fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).unwrap();
    let mut lock = tokio::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
    lock.env_clear().env("HOME", user.home()).current_dir(user.cwd());
    lock.env("PATH", format!("{}:/usr/bin:/bin", user.cwd().join("bin").display()));
    lock.args(["library", "lock", "--library", "lib"]).stdin(Stdio::null());
    // A Ctrl-C is for the whole group.
    lock.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let lock = lock.spawn().unwrap();
    let mut alive = tokio::fs::File::open(alive).await.unwrap();
    alive.read_exact(&mut [0; 6]).await.unwrap();
    kill_process_group(Pid::from_raw(lock.id().unwrap().cast_signed()).unwrap(), Signal::INT).unwrap();
    let output = lock.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("fetching `tiny` for mcp/_global/tiny") && said.contains("interrupted"), "{said}");
    // It is open for as long as one of them lives.
    assert_eq!(alive.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    let left = fs::read_dir(user.cwd().join("lib/.tools")).unwrap();
    assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), [""; 0]);
}
