//! Credentials of the pool, from `mayfly credential add` to the model API, and what a machine sees of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use mayfly_scripted_api::{Accepted, ScriptedApi};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use super::service::{self, User};
use super::world::{CANARY, Ended, Run, Said, World};

/// What an API key and a gateway's token are called here.
const KEY: &str = "sk-ant-api03-canary-51b2";
const BEARER: &str = "gateway-canary-93aa";

/// What the agent is to run that counts where its machine has what `$1` is a pattern of: in the environments and arguments of
/// processes, in files, and in what can be read of processes' memory.
const SEARCH: &str = r#"
count() { grep -aoe "$1" | wc -l; }
echo environments: $(cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | count "$1")
echo files: $(grep -rlas -e "$1" / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr | wc -l)
echo memory: $(perl -e '
    my ($want, $found, $step) = (shift, 0, 1 << 20);
    # Its own memory has the pattern, which perl takes for the plain text that it stands for.
    for my $process (grep { $_ ne "/proc/$$" } glob "/proc/[0-9]*") {
        open(my $maps, "<", "$process/maps") or next;
        open(my $memory, "<:raw", "$process/mem") or next;
        open(my $pages, "<:raw", "$process/pagemap") or next;
        while (<$maps>) {
            my ($from, $to) = map { hex } /^(\w{1,12})-(\w{1,12}) r/ or next;
            for (my $at = $from; $at < $to; $at += $step) {
                my $bytes = $to - $at < $step ? $to - $at : $step;
                sysseek($pages, $at / 4096 * 8, 0) and sysread($pages, my $there, $bytes / 4096 * 8) or next;
                next unless grep { $_ >> 62 } unpack("Q*", $there);
                sysseek($memory, $at, 0) and sysread($memory, my $text, $bytes + 100) or next;
                $found += () = $text =~ /$want/g;
            }
        }
    }
    print $found' "$1")
echo descriptors: $(ls /proc/self/fd)
"#;

/// The prompt that has the agent search its machine for `secret`.
fn search(world: &World, secret: &str) -> String {
    fs::write(world.repo().join("search.sh"), SEARCH).unwrap();
    // A pattern that does not match itself, so that neither the command nor grep's arguments are a hit.
    bash(&format!("bash search.sh '{}'", secret.replace("canary", "[c]anary")))
}

/// A verb of a user with nothing in the environment, who types `stdin`.
async fn mayfly(world: &World, stdin: &str, args: &[&str]) -> Said {
    let mut command = world.plain_command(args);
    command.env_remove("CLAUDE_CODE_OAUTH_TOKEN").env_remove("ANTHROPIC_BASE_URL");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
    Said::from(child.wait_with_output().await.unwrap())
}

/// `mayfly run --json` of that user.
async fn run(world: &World, args: &[&str]) -> Ended {
    started(world, args).end().await
}

fn started(world: &World, args: &[&str]) -> Run {
    let mut command = world.command(args);
    command.env_remove("CLAUDE_CODE_OAUTH_TOKEN").env_remove("ANTHROPIC_BASE_URL");
    Run::start(command)
}

/// What the doctor says of the credential.
async fn doctor(world: &World, flags: &[&str]) -> serde_json::Value {
    let said = mayfly(world, "", &[flags, &["doctor", "--json"]].concat()).await;
    let report: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == "credential").unwrap().clone()
}

fn bash(command: &str) -> String {
    format!("[script: bash command={}]", serde_json::to_string(command).unwrap())
}

/// Every file below `folder`, with what is in it.
fn files(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    found
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// S14, S15, S16, S19, S30, S32, S54, I1: the model API gets the secret, and nobody and nothing else has it, wherever one
/// looks: in the machine, its memory included, in what is told, and on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_the_pool_reaches_the_model_and_no_machine() {
    let Some(world) = World::start(|_| {}).await else { return };
    let url = world.api.base_url();
    let mut said = Vec::new();
    said.push(
        mayfly(&world, &format!("{CANARY}\n"), &["credential", "add", "work", "--base-url", &url]).await,
    );
    said.push(mayfly(&world, "", &["credential", "ls"]).await);
    said.push(mayfly(&world, "", &["credential", "ls", "--json"]).await);
    said.push(mayfly(&world, "", &["credential", "test", "work"]).await);
    for Said { code, stdout, stderr } in &said {
        assert_eq!(*code, Some(0), "{stderr}");
        assert!(!has(stdout, "canary") && !stderr.contains("canary"));
    }
    let doctor = doctor(&world, &[]).await;
    assert_eq!(
        (doctor["state"].as_str(), doctor["detail"].as_str()),
        (Some("ok"), Some("in the orchestrator's pool: `work`"))
    );
    let ended = run(&world, &["--credential", "work", &search(&world, CANARY)]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let found = ended.tool_results().concat();
    assert_eq!(found, "environments: 0\nfiles: 0\nmemory: 0\ndescriptors: 0 1 2 3");
    let seen = world.api.requests();
    assert!(
        seen.iter().filter(|seen| seen.path == "/v1/messages").all(|seen| seen.status == 200),
        "{seen:?}"
    );
    assert!(!serde_json::to_string(&ended.events).unwrap().contains(CANARY));
    let files = files(&world.dir.path().join("data"));
    let (with, without): (Vec<_>, Vec<_>) = files.iter().partition(|(_, bytes)| has(bytes, CANARY));
    assert!(
        with.is_empty() && without.len() > 3,
        "{:?}",
        with.iter().map(|(path, _)| path).collect::<Vec<_>>()
    );
    for name in ["mayfly.db", "mayfly.db-wal", "key"] {
        let mode = fs::metadata(world.dir.path().join("data").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    world.end().await;
}

/// Every kind goes where and as it is to; of several the task's own choice counts, and the only one of none.
#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_credential_is_used_by_those_who_name_it() {
    let Some(world) = World::start(|_| {}).await else { return };
    let loopback = "127.0.0.1:0".parse().unwrap();
    let keyed = ScriptedApi::start_paced(loopback, Accepted::ApiKey(KEY.to_owned()), 0.0).await.unwrap();
    let gateway = ScriptedApi::start_paced(loopback, Accepted::Bearer(BEARER.to_owned()), 0.0).await.unwrap();
    let none = run(&world, &["[script: text]"]).await;
    assert_eq!(none.code, Some(2));
    assert!(none.stderr.contains("mayfly credential add NAME"), "{}", none.stderr);
    let file = world.dir.path().join("secret");
    fs::write(&file, format!("  {KEY}\n")).unwrap();
    let from_file =
        ["credential", "add", "keyed", "--base-url", &keyed.base_url(), "--file", file.to_str().unwrap()];
    mayfly(&world, "", &from_file).await.text();
    assert_eq!(run(&world, &["[script: text]"]).await.code, Some(0), "the only one");
    let print = format!("printf %s {BEARER}");
    let from_command = ["credential", "add", "gw", "--base-url", &gateway.base_url(), "--command", &print];
    mayfly(&world, "", &from_command).await.text();
    let taken =
        mayfly(&world, BEARER, &["credential", "add", "gw", "--base-url", "http://x"]).await.refusal();
    assert!(taken.contains("already"), "{taken}");
    let several = run(&world, &["[script: text]"]).await;
    assert_eq!(several.code, Some(2));
    assert!(several.stderr.contains("--credential NAME"), "{}", several.stderr);
    let unknown = run(&world, &["--credential", "nobody", "[script: text]"]).await;
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("`nobody`"), "{}", unknown.stderr);
    assert_eq!(run(&world, &["--credential", "gw", "[script: text]"]).await.code, Some(0));
    let config = world.dir.path().join("mayfly.toml");
    fs::write(&config, "[task]\ncredential = \"gw\"\n").unwrap();
    let by_config = run(&world, &["--config", config.to_str().unwrap(), "[script: text]"]).await;
    assert_eq!(by_config.code, Some(0), "{}", by_config.stderr);
    let ok = |api: &ScriptedApi| api.requests().iter().filter(|seen| seen.status == 200).count();
    assert!(ok(&keyed) >= 1 && ok(&gateway) >= 2);
    // The environment comes before the configuration, and the flag before both.
    let own = world.outcome_of(&["--config", config.to_str().unwrap(), "[script: text]"]).await;
    assert_eq!(own.code, Some(0), "{}", own.stderr);
    assert!(ok(&world.api) >= 1);
    let before = ok(&keyed);
    assert_eq!(world.outcome_of(&["--credential", "keyed", "[script: text]"]).await.code, Some(0));
    assert!(ok(&keyed) > before);
    world.end().await;
    keyed.stop().await;
    gateway.stop().await;
}

/// S15: what a machine is handed on request can be read there, by the way that was asked for and no other; the way out
/// stays the gateway, which knows the task by its placeholder all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_handed_to_machines_only_where_its_owner_says_so() {
    let Some(world) = World::start(|_| {}).await else { return };
    let loopback = "127.0.0.1:0".parse().unwrap();
    let keyed = ScriptedApi::start_paced(loopback, Accepted::ApiKey(KEY.to_owned()), 0.0).await.unwrap();
    let gateway = ScriptedApi::start_paced(loopback, Accepted::Bearer(BEARER.to_owned()), 0.0).await.unwrap();
    let config = world.dir.path().join("mayfly.toml");
    let config_flag = config.to_str().unwrap().to_owned();
    for (mode, api, secret, environments) in [
        ("inject", &world.api, CANARY, true),
        ("inject-descriptor", &world.api, CANARY, false),
        ("inject", &keyed, KEY, true),
        ("inject-descriptor", &keyed, KEY, false),
        ("inject", &gateway, BEARER, true),
    ] {
        fs::write(&config, format!("[task]\ncredential_mode = \"{mode}\"\n")).unwrap();
        let add = [
            "--config",
            &config_flag,
            "credential",
            "add",
            "one",
            "--replace",
            "--base-url",
            &api.base_url(),
        ];
        mayfly(&world, secret, &add).await.text();
        let listed = mayfly(&world, "", &["credential", "ls"]).await.text();
        assert!(listed.contains(mode), "{listed}");
        let before = api.requests().len();
        let ended = run(&world, &["--credential", "one", &search(&world, secret)]).await;
        assert_eq!(ended.code, Some(0), "{mode} {secret}: {:?} {}", ended.outcome(), ended.stderr);
        let found = ended.tool_results().concat();
        let count = |what: &str| -> u32 {
            let line = found.lines().find_map(|line| line.strip_prefix(what)).unwrap();
            line.trim().parse().unwrap()
        };
        assert_eq!(count("environments:") > 0, environments, "{mode} {secret}: {found}");
        assert!(count("memory:") > 0, "{mode} {secret}: {found}");
        assert!(found.ends_with("descriptors: 0 1 2 3"), "{mode} {secret}: {found}");
        let seen = api.requests().split_off(before);
        assert!(seen.len() > 1 && seen.iter().all(|seen| seen.status == 200), "{mode} {secret}: {seen:?}");
    }
    let told = doctor(&world, &["--config", &config_flag]).await;
    assert!(told["state"] == "warning" && told["detail"].as_str().unwrap().contains("can read it"), "{told}");
    fs::write(&config, "[task]\ncredential_mode = \"inject-descriptor\"\n").unwrap();
    let add = ["--config", &config_flag, "credential", "add", "gw", "--base-url", &gateway.base_url()];
    let refused = mayfly(&world, BEARER, &add).await.refusal();
    assert!(refused.contains("credential.mode"), "{refused}");
    world.end().await;
    keyed.stop().await;
    gateway.stop().await;
}

/// R41: a credential that is replaced counts from the next request on, and one that is taken away too; one that the model
/// API refuses is told from all other trouble, and asked about no more often than `claude` asks.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_the_pool_counts_from_the_next_request_of_a_task_that_runs() {
    let Some(world) = World::start(|_| {}).await else { return };
    let loopback = "127.0.0.1:0".parse().unwrap();
    let other = ScriptedApi::start_paced(loopback, Accepted::ApiKey(KEY.to_owned()), 0.0).await.unwrap();
    let (old, new) = (world.api.base_url(), other.base_url());
    mayfly(&world, CANARY, &["credential", "add", "work", "--base-url", &old]).await.text();
    let held = |name: &str| {
        let tool = serde_json::json!({"name": "Bash", "input": {"command": "true", "description": "go on"}});
        let steps = serde_json::json!([{"tools": [tool], "hold": name}, {"text": "went on"}]);
        format!("[script: steps list={steps}]")
    };
    // Replaced by a good one of another place.
    let replaced = started(&world, &["--credential", "work", &held("replaced")]);
    world.api.held("replaced", 1).await;
    mayfly(&world, KEY, &["credential", "add", "work", "--replace", "--base-url", &new]).await.text();
    world.api.release("replaced");
    let ended = replaced.end().await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert_eq!(other.requests().iter().filter(|seen| seen.status == 200).count(), 1);
    // Replaced by a bad one.
    let refused = started(&world, &["--credential", "work", &held("refused")]);
    other.held("refused", 1).await;
    let wrong = "sk-ant-api03-canary-wrong";
    mayfly(&world, wrong, &["credential", "add", "work", "--replace", "--base-url", &new]).await.text();
    other.release("refused");
    let ended = refused.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "api-error"), "{}", ended.stderr);
    let warnings: Vec<_> = ended.own("warning").map(|warning| warning["text"].as_str().unwrap()).collect();
    assert!(
        matches!(warnings[..], [text] if text.contains("`work`") && text.contains("401")),
        "{warnings:?}"
    );
    let asked = other.requests().iter().filter(|seen| seen.status == 401).count();
    assert!((1..=3).contains(&asked), "{asked}");
    let test = mayfly(&world, "", &["credential", "test", "work"]).await;
    assert_eq!(test.code, Some(1));
    assert!(has(&test.stdout, "refuses it (401"), "{test:?}");
    // A retry keeps the choice, whatever the environment has.
    mayfly(&world, KEY, &["credential", "add", "work", "--replace", "--base-url", &new]).await.text();
    let before = other.requests().len();
    let id = mayfly_short(&ended);
    let again = world.plain_command(&["retry", &id, "--detach"]).output().await.unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let again = String::from_utf8(again.stdout).unwrap().split_whitespace().next().unwrap().to_owned();
    other.held("refused", 2).await;
    assert!(other.requests().len() >= before);
    // Taken away.
    mayfly(&world, "", &["credential", "remove", "work"]).await.text();
    other.release("refused");
    let mut logs = world.plain_command(&["logs", &again, "--follow", "--json"]);
    let ended = Run::start({
        logs.stdin(Stdio::null());
        logs
    });
    let ended = ended.end().await;
    let (outcome, detail) = ended.outcome();
    assert_eq!(outcome, "api-error");
    assert!(detail.contains("not in the pool any more"), "{detail}");
    world.end().await;
    other.stop().await;
}

fn mayfly_short(ended: &Ended) -> String {
    ended.events[0]["task"].as_str().unwrap().to_owned()
}

/// R03, R41, S30, S32: an orchestrator that follows one that was killed goes on with the task, whose credential it reads from
/// the pool; and however much both write into their log, nothing that is left on the disk has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_the_pool_goes_on_over_a_restart_and_no_log_has_its_credential() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new().await;
    let mayfly = |args: &[&str]| {
        let mut command =
            user.command(Path::new(env!("CARGO_BIN_EXE_mayfly")), &["--claude", claude.to_str().unwrap()]);
        command
            .args(args)
            .env_remove("ANTHROPIC_API_KEY")
            .env_remove("ANTHROPIC_BASE_URL")
            .env("MAYFLY_LOG", "trace");
        command
    };
    let url = user.api.base_url();
    let print = format!("printf %s {}", service::CANARY);
    let add = ["credential", "add", "default", "--base-url", &url, "--command", &print];
    let added = Said::from(mayfly(&add).output().await.unwrap());
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let task = Run::start(mayfly(&["run", "--json", "[script: hold name=call text=answered]"]));
    user.api.held("call", 1).await;
    let first = user.orchestrator();
    let limits = fs::read_to_string(format!("/proc/{first}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(
        core.split_whitespace().collect::<Vec<_>>()[4..6],
        ["0", "0"],
        "no file of its memory is made"
    );
    service::end(first, Signal::KILL);
    user.api.held("call", 2).await;
    assert_ne!(user.orchestrator(), first);
    user.api.release("call");
    let ended = task.end().await;
    assert_eq!(ended.code, Some(0), "{:?} {}", ended.outcome(), ended.stderr);
    assert!(!serde_json::to_string(&ended.events).unwrap().contains(service::CANARY));
    let socket = user.data().join("api.sock");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().unix_socket(socket).build().unwrap();
    for path in ["metrics", "v1/credentials", "v1/tasks", "v1/openapi.json"] {
        let text = http.get(format!("http://mayfly/{path}")).send().await.unwrap().text().await.unwrap();
        assert!(text.len() > 2 && !text.contains(service::CANARY), "{path}: {text}");
    }
    service::end(user.orchestrator(), Signal::TERM);
    let files = files(user.dir.path());
    assert!(
        files.iter().any(|(path, bytes)| path.ends_with("serve.log") && has(bytes, "TRACE")),
        "the log is looked at"
    );
    let with: Vec<_> =
        files.iter().filter(|(_, bytes)| has(bytes, service::CANARY)).map(|(path, _)| path).collect();
    assert!(with.is_empty(), "{with:?}");
    user.api.stop().await;
}
