//! What the doctor says of the place of an orchestrator, beside what `serve` says to it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::User;
use super::doctor::{STAND_IN, checks, content};

/// "mayf", by which a database of ours is known.
const APPLICATION: i64 = 0x6d61_7966;

/// What the doctor says about one thing in the folder `data`, with its exit code.
fn check(user: &User, data: &Path, name: &str, more: &[&str]) -> (i32, Value) {
    let doctor = ["doctor", "--json", "--data", data.to_str().unwrap()];
    let output = user.with_token(&[&STAND_IN[..], more, &doctor].concat()).output().unwrap();
    let (code, checks) = checks(&output);
    let found = checks.into_iter().find(|(found, _)| found == name);
    (code, found.unwrap_or_else(|| panic!("no {name}")).1)
}

/// A data folder in which nothing is yet.
fn ours(data: &Path) {
    fs::create_dir(data).unwrap();
    fs::write(data.join("mayfly-data"), "").unwrap();
}

/// A database of ours with these tables' version, all in one file.
fn database(path: &Path, version: i64) {
    let file = Connection::open(path).unwrap();
    file.execute_batch("CREATE TABLE tasks (id)").unwrap();
    file.pragma_update(None, "application_id", APPLICATION).unwrap();
    file.pragma_update(None, "user_version", version).unwrap();
}

/// R26, R27: the doctor's words are those of a start that refuses, and it leaves everything as it was.
#[test]
fn a_database_that_a_start_would_refuse_is_named_with_what_to_type() {
    let user = User::new();
    let data = |name: &str| user.cwd().join(name);
    for name in ["foreign", "newer", "damaged"] {
        ours(&data(name));
    }
    fs::write(data("foreign").join("mayfly.db"), "to do: ".repeat(1000)).unwrap();
    database(&data("newer").join("mayfly.db"), 1000);
    let damaged = data("damaged").join("mayfly.db");
    database(&damaged, 2);
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[100..4096].fill(0xa5);
    fs::write(&damaged, bytes).unwrap();
    let mut all = Vec::new();
    for name in ["foreign", "newer", "damaged"] {
        let before = content(&data(name));
        let (code, check) = check(&user, &data(name), "database", &[]);
        assert_eq!((code, &check["state"]), (3, &"failed".into()), "{check}");
        assert!(content(&data(name)) == before, "{name}");
        let said = |key: &str| check[key].as_str().unwrap().to_owned();
        all.push((name, said("detail"), said("fix")));
    }
    let home = fs::canonicalize(user.home()).unwrap().display().to_string();
    let lines: Vec<String> = all.iter().map(|(_, detail, fix)| format!("{detail}\n{fix}")).collect();
    // What this one knows grows with each version of its tables.
    let lines = lines.join("\n").replace(&home, "[home]");
    let (before, rest) = lines.split_once("this one knows ").unwrap();
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    insta::assert_snapshot!(format!("{before}this one knows N{rest}"));

    let Some(claude) = mayfly_test_needs::claude() else { return };
    for (name, detail, _) in all {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--data", name, "--claude"];
        let refused = user.mayfly(&[&serve[..], &[claude.to_str().unwrap()]].concat()).output().unwrap();
        let refused = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.ends_with(&format!("mayfly: {detail}\n")), "{refused}");
    }
}

/// The command of the doctor is one: after it, a task could run.
#[test]
fn a_damaged_database_is_put_away_by_the_doctors_command() {
    let user = User::new();
    let data = user.cwd().join("it's here");
    ours(&data);
    database(&data.join("mayfly.db"), 2);
    let mut bytes = fs::read(data.join("mayfly.db")).unwrap();
    bytes[100..4096].fill(0xa5);
    fs::write(data.join("mayfly.db"), bytes).unwrap();
    let (_, refused) = check(&user, &data, "database", &[]);
    let done = Command::new("sh").args(["-c", refused["fix"].as_str().unwrap()]).status().unwrap();
    assert!(done.success());
    let (code, check) = check(&user, &data, "database", &[]);
    assert_eq!((code, &check["state"]), (0, &"ok".into()), "{check}");
    assert!(data.join("damaged/mayfly.db").is_file());
}

/// A folder of the user's is no data folder: neither is anything in it deleted, nor its mode changed.
#[test]
fn a_folder_with_files_of_the_user_is_refused_and_stays_as_it_is() {
    let user = User::new();
    let data = user.cwd().join("precious");
    fs::create_dir_all(data.join("incoming")).unwrap();
    fs::write(data.join("incoming/precious"), "x").unwrap();
    fs::write(data.join("mayfly.db"), "no").unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, check) = check(&user, &data, "data folder", &[]);
    let detail = check["detail"].as_str().unwrap();
    assert!(code == 3 && detail.contains("nothing in it says that it is mayfly's"), "{check}");
    for verb in [&["serve"][..], &["run", "p"], &["tunnel", "--to", "http://127.0.0.1:1"]] {
        let args = [&STAND_IN[..], verb, &["--data", data.to_str().unwrap()]].concat();
        let mut command = user.with_token(&args);
        command.env("MAYFLY_TOKEN", "mayfly-owner-made-up");
        let said = user.said(command);
        assert!(said.starts_with("exit 2\n") && said.contains("name a new folder or an empty one"), "{said}");
    }
    assert_eq!(fs::read_to_string(data.join("incoming/precious")).unwrap(), "x");
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 2);
}

/// The doctor's words and command for what it finds in a data folder.
#[test]
fn a_data_folder_that_a_start_would_refuse_is_told_with_what_to_type() {
    let user = User::new();
    let told = |name: &str, make: &dyn Fn(&Path)| {
        let data = user.cwd().join(name);
        ours(&data);
        make(&data);
        let (code, check) = check(&user, &data, "data folder", &[]);
        assert_eq!(code, 3, "{check}");
        check["fix"].as_str().unwrap().to_owned()
    };
    assert!(told("a", &|data| fs::create_dir(data.join("lock")).unwrap()).starts_with("mv "));
    let empty = |data: &Path| {
        fs::write(data.join("token"), "").unwrap();
        fs::set_permissions(data.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
    };
    assert!(told("b", &empty).starts_with("rm "));
    let open = |data: &Path| {
        fs::write(data.join("key"), [7; 32]).unwrap();
        fs::set_permissions(data.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    };
    assert!(told("c", &open).starts_with("chmod 600 "));
}

#[test]
fn a_port_that_another_program_has_is_named() {
    let user = User::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = user.cwd().join("mayfly.toml");
    fs::write(&config, format!("[serve]\nlisten = \"{address}\"\n")).unwrap();
    let with = ["--config", "mayfly.toml"];
    let data = user.cwd().join("data");
    let (code, asked) = check(&user, &data, "port", &with);
    let said = asked["detail"].as_str().unwrap();
    assert_eq!((code, &asked["state"]), (3, &"failed".into()));
    assert!(said.starts_with(&format!("cannot listen on {address}")), "{said}");
    let fix = asked["fix"].as_str().unwrap();
    assert!(fix.contains(&format!("'sport = :{}'", address.port())), "{fix}");
    assert!(fix.contains("another port for `listen` at ") && fix.contains("mayfly.toml:2"), "{fix}");
    drop(taken);
    assert_eq!(check(&user, &data, "port", &with).1["state"], "ok");

    // The usual one, whoever has it: only a `serve` by hand would want it.
    let _taken = TcpListener::bind("127.0.0.1:6293");
    let (code, usual) = check(&user, &data, "port", &[]);
    assert_eq!((code, &usual["state"]), (0, &"warning".into()));
    assert!(usual["fix"].as_str().unwrap().ends_with("\nmayfly serve --listen 127.0.0.1:0"), "{usual}");
    assert!(!data.exists());
}

#[test]
fn an_orchestrator_that_runs_in_the_folder_has_its_database_and_its_port() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let user = User::new();
    let data = user.cwd().join("data");
    let mut orchestrator = Serving::start(&user, &claude, &data);
    let address = orchestrator.address;
    fs::write(user.cwd().join("mayfly.toml"), format!("[serve]\nlisten = \"{address}\"\n")).unwrap();
    let who = format!("process {}", orchestrator.process.id());
    for name in ["database", "port"] {
        let (_, check) = check(&user, &data, name, &["--config", "mayfly.toml"]);
        let said = check["detail"].as_str().unwrap();
        assert!(check["state"] == "ok" && said.ends_with(&who), "{check}");
    }
    // Of another folder it is another program.
    let elsewhere = user.cwd().join("elsewhere");
    assert_eq!(check(&user, &elsewhere, "port", &["--config", "mayfly.toml"]).1["state"], "failed");
    orchestrator.end();
    let (_, check) = check(&user, &data, "database", &["--config", "mayfly.toml"]);
    assert!(check["detail"].as_str().unwrap().ends_with("data/mayfly.db"), "{check}");
}

/// An orchestrator started by hand, ended with the test.
struct Serving {
    process: Child,
    address: SocketAddr,
}

impl Serving {
    fn start(user: &User, claude: &Path, data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
        command.env_clear().env("HOME", user.home()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).arg("--claude").arg(claude);
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut ready = BufReader::new(process.stdout.take().unwrap());
        let mut lines = String::new();
        while ready.read_line(&mut lines).unwrap() > 0 && !lines.contains("http://") {}
        let address = lines.split("http://").nth(1).and_then(|rest| rest.split(',').next());
        Self { address: address.expect("it serves").parse().unwrap(), process }
    }

    fn end(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}
