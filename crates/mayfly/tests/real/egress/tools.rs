//! The tools that agents use reach a host that is allowed, and no other.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::world::git;
use super::record;
use super::sites::{Sites, as_agent, world};

/// A repository of one commit, as files on the web.
fn make_repository(sites: &Sites) {
    let home = tempfile::tempdir().unwrap();
    let work = home.path().join("work");
    fs::create_dir(&work).unwrap();
    git(home.path(), &work, &["init", "-q", "-b", "main"]);
    fs::write(work.join("a.txt"), "from the web\n").unwrap();
    git(home.path(), &work, &["add", "."]);
    git(home.path(), &work, &["commit", "-q", "-m", "first"]);
    let bare = sites.files.path().join("r.git");
    git(home.path(), &work, &["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    git(home.path(), &bare, &["update-server-info"]);
}

/// A package of one file, in a registry of files on the web.
fn make_package(sites: &Sites) {
    let (files, source) = (sites.files.path(), tempfile::tempdir().unwrap());
    fs::create_dir(source.path().join("package")).unwrap();
    let manifest = r#"{"name":"tiny","version":"1.0.0"}"#;
    fs::write(source.path().join("package/package.json"), manifest).unwrap();
    let tar = |to: &Path| {
        Command::new("tar").current_dir(source.path()).arg("-czf").arg(to).arg("package").status().unwrap()
    };
    assert!(tar(&files.join("tiny.tgz")).success());
    let version = r#"{"name":"tiny","version":"1.0.0","dist":{"tarball":"http://good.test/tiny.tgz"}}"#;
    let about =
        format!(r#"{{"name":"tiny","dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{version}}}}}"#);
    fs::write(files.join("tiny"), about).unwrap();
}

/// S20, with git: by plain HTTP and by TLS.
#[tokio::test(flavor = "multi_thread")]
async fn git_clones_from_an_allowed_host_and_from_no_other() {
    let sites = Sites::start(&["good.test", "bad.test"]).await;
    make_repository(&sites);
    let Some(world) = world(&sites).await else { return };
    let command = "export GIT_SSL_NO_VERIFY=1; (cd /tmp; for u in http://good.test https://good.test http://bad.test https://bad.test; \
        do rm -rf c; git clone -q $u/r.git c 2>/dev/null && cat c/a.txt || echo no; done)";
    let ended = as_agent(&world, &["--allow", "good.test"], command).await;
    assert_eq!(ended.tool_results().concat(), "from the web\nfrom the web\nno\nno");
    assert!(
        sites.requests().iter().all(|request| request.starts_with("good.test ")),
        "{:?}",
        sites.requests()
    );
    world.end().await;
}

/// S26: there is no credential of git's in a machine, whatever its owner's git has: a push to a host that asks for one has
/// none to give, and comes to no other host at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_has_no_credential_to_give() {
    let sites = Sites::start(&["good.test", "bad.test"]).await;
    let Some(world) = world(&sites).await else { return };
    let home = world.dir.path();
    fs::write(home.join(".gitconfig"), "[credential]\n\thelper = store\n").unwrap();
    let password = "http://somebody:canary-git-77@good.test\n";
    fs::write(home.join(".git-credentials"), password.to_owned() + &password.replace("good", "bad")).unwrap();
    fs::write(home.join(".netrc"), "default login somebody password canary-git-77\n").unwrap();
    world.git(&["config", "http.extraHeader", "Authorization: Basic canary-git-77"]);
    world.git(&["remote", "add", "origin", "http://somebody:canary-git-77@good.test/locked/r.git"]);
    let command = "export GIT_SSL_NO_VERIFY=1 GIT_TERMINAL_PROMPT=0; for u in origin http://good.test/locked/r.git \
        https://good.test/locked/r.git http://bad.test/locked/r.git; do for how in HEAD:main +HEAD:main --tags :main; do \
        git push $u $how >>/tmp/log 2>&1 </dev/null && echo pushed; done; done; \
        printf 'protocol=http\\nhost=good.test\\n\\n' | git credential fill 2>/dev/null </dev/stdin | grep password; \
        git config --get-all credential.helper; git config --get-all http.extraHeader; git remote; \
        grep -c 'could not read Username' /tmp/log";
    let ended = as_agent(&world, &["--allow", "good.test"], command).await;
    let said = ended.tool_results().concat();
    assert_eq!(said, "8", "{:?}", sites.requests());
    assert_eq!(sites.passwords(), [""; 0]);
    let requests = sites.requests();
    let asked = |request: &String| request == "good.test /locked/r.git/info/refs";
    assert!(!requests.is_empty() && requests.iter().all(asked), "{requests:?}");
    world.end().await;
}

/// S20, with npm.
#[tokio::test(flavor = "multi_thread")]
async fn npm_installs_from_an_allowed_host_and_from_no_other() {
    let sites = Sites::start(&["good.test", "bad.test"]).await;
    make_package(&sites);
    let Some(world) = world(&sites).await else { return };
    let command = "command -v npm >/dev/null || { echo absent; exit 0; }; (cd /tmp; for h in good bad; do rm -rf n; mkdir n; \
        (cd n; npm install --no-audit --no-fund --fetch-retries 0 --registry http://$h.test/ tiny >log 2>&1 \
        && cat node_modules/tiny/package.json || echo no); done); true";
    let ended = as_agent(&world, &["--allow", "good.test"], command).await;
    let said = ended.tool_results().concat();
    if said == "absent" {
        mayfly_test_needs::skip("there is no npm in the machine");
    } else {
        assert_eq!(said, "{\"name\":\"tiny\",\"version\":\"1.0.0\"}no", "{:?}", sites.requests());
        assert!(
            sites.requests().iter().all(|request| request.starts_with("good.test ")),
            "{:?}",
            sites.requests()
        );
    }
    world.end().await;
}

/// S20, with pip.
#[tokio::test(flavor = "multi_thread")]
async fn pip_asks_an_allowed_host_and_no_other() {
    let sites = Sites::start(&["good.test", "bad.test"]).await;
    let Some(world) = world(&sites).await else { return };
    let command = "command -v pip3 >/dev/null || { echo absent; exit 0; }; for h in good bad; do \
        pip3 download --no-cache-dir --retries 0 --timeout 20 --disable-pip-version-check --index-url http://$h.test/simple/ \
        --trusted-host $h.test -d /tmp/p tiny >/tmp/log 2>&1; echo $?; done; true";
    let ended = as_agent(&world, &["--allow", "good.test"], command).await;
    let said = ended.tool_results().concat();
    if said == "absent" {
        mayfly_test_needs::skip("there is no pip in the machine");
    } else {
        // There is no such package: it was asked for.
        assert_eq!(sites.requests(), ["good.test /simple/tiny/"], "{said}");
        let task = ended.events[0]["task"].as_str().unwrap();
        let record = record(&world, task).await;
        assert!(record.contains(&"denied bad.test:80 not-listed".to_owned()), "{record:?}");
    }
    world.end().await;
}

/// S20, with the CLI's own tool, which takes TLS alone and trusts no certificate of ours: its hello comes to the host that is
/// allowed, and nothing to another; and its maker is not asked first.
#[tokio::test(flavor = "multi_thread")]
async fn the_clis_own_fetch_comes_to_an_allowed_host_and_to_no_other() {
    let sites = Sites::start(&["good.test", "bad.test"]).await;
    let Some(world) = world(&sites).await else { return };
    for (host, decision) in
        [("good.test", "allowed good.test:443"), ("bad.test", "denied bad.test:443 not-listed")]
    {
        let input = format!(r#"{{"url":"https://{host}/page","prompt":"what does it say"}}"#);
        let prompt = format!("[script: tool name=WebFetch input={input}]");
        let ended = world.outcome_of(&["--allow", "good.test", &prompt]).await;
        let task = ended.events[0]["task"].as_str().unwrap();
        let record = record(&world, task).await;
        let said = ended.tool_results();
        assert!(
            !record.is_empty() && record.iter().all(|line| line == decision),
            "{host}: {record:?} {said:?}"
        );
    }
    assert_eq!(sites.requests(), [""; 0]);
    world.end().await;
}
