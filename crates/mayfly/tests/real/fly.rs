//! `mayfly serve --provider fly`, with the real `claude`: the provider, its HTTP, a stand-in for Fly with faults, the real
//! worker in each machine, and the orchestrator's port.
//!
//! A "VM" is a process with a root folder, mounts and processes of its own, which finds what Fly would have put into it.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mayfly_engine::SystemClock;
use mayfly_fake_fly::vm::{Vms, said};
use mayfly_fake_fly::{Exit, FakeFly, Fault, On, Run as VmRun, Setup, no_room};
use mayfly_provider_fly::BOOT_FILE;
use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_test_needs::skip;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::service::end;
use super::world::{CANARY, Ended, PATH, Run, assert_no_mount_in, git, processes_in};

const APP: &str = "workers";
const TOKEN: &str = "fm2_canary";
const REGIONS: &str = "iad,ord,ams,fra,lhr,sin,syd,nrt";
const PROGRAM: &str = env!("CARGO_BIN_EXE_mayfly");
/// How long the processes of machines that are gone may take to be gone as well.
const ENDED_MAX: Duration = Duration::from_secs(10);

/// An orchestrator whose machines are Fly's, and its user.
struct Place {
    dir: TempDir,
    api: ScriptedApi,
    fake: FakeFly,
    /// Where no machine may get through to: nobody does, while there is a policy.
    outside: TcpListener,
    /// Where the orchestrator listens.
    port: SocketAddr,
}

/// One that serves, until it is dropped.
struct Serving {
    child: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Serving {
    async fn end(mut self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        self.child.wait().await.unwrap();
    }
}

/// An address of this process alone, so that nobody takes a port of it between two uses.
fn own_loopback() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 + high, middle, low)
}

fn free_port() -> SocketAddr {
    TcpListener::bind((own_loopback(), 0)).unwrap().local_addr().unwrap()
}

impl Place {
    /// None: there is no `claude` here, or no root to make roots, and the test is skipped.
    async fn start() -> Option<Self> {
        let claude = mayfly_test_needs::claude()?;
        if !rustix::process::geteuid().is_root() {
            skip("only root can make the roots of machines");
            return None;
        }
        Some(
            Self::running(true, |machines, port| Vms::new(machines, &claude, Path::new(PROGRAM), port).run())
                .await,
        )
    }

    /// One whose machines, with what is theirs in this folder and the orchestrator at this address, run so; with a policy by
    /// which they reach nothing else, or without.
    async fn running(is_shut_in: bool, run: impl FnOnce(&Path, SocketAddr) -> VmRun) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machines = dir.path().join("machines");
        fs::create_dir(&machines).unwrap();
        // The agent's user goes in to what is its own.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let image = format!("registry.fly.io/{APP}@sha256:{}", "ab".repeat(32));
        let mut setup = Setup::new(Arc::new(SystemClock), APP, TOKEN, &image);
        // More than are without room: one that had none is left out for minutes.
        setup.regions = REGIONS.split(',').map(str::to_owned).collect();
        setup.boot = Duration::ZERO;
        let port = free_port();
        (setup.is_shut_in, setup.run) = (is_shut_in, run(&machines, port));
        let fake = FakeFly::start(setup).await;
        let loopback = "127.0.0.1:0".parse().unwrap();
        let api = ScriptedApi::start_paced(loopback, Accepted::Oauth(CANARY.to_owned()), 0.0).await.unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        let outside = TcpListener::bind((own_loopback(), 0)).unwrap();
        outside.set_nonblocking(true).unwrap();
        let closed_to = outside.local_addr().unwrap();
        let configuration = format!(
            "[serve]\nprovider = \"fly\"\nlisten = \"{port}\"\n[fly]\napp = \"{APP}\"\nimage = \"{image}\"\n\
             regions = \"{REGIONS}\"\norchestrator = \"http://{port}\"\nclosed_to = \"{closed_to}\"\n"
        );
        fs::write(dir.path().join("mayfly.toml"), configuration).unwrap();
        Self { dir, api, fake, outside, port }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `mayfly`, as the user of this Fly has it.
    fn command(&self, verb: &str) -> Command {
        let mut command = self.plain_command(verb, &self.data());
        command.env("FLY_API_TOKEN", TOKEN).env("FLY_FLAPS_BASE_URL", self.fake.url());
        command.arg("--config").arg(self.dir.path().join("mayfly.toml"));
        command
    }

    /// The same where nothing is known of Fly.
    fn plain_command(&self, verb: &str, data: &Path) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("PATH", PATH).env("HOME", self.dir.path()).arg(verb).arg("--data").arg(data);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Waits until it serves.
    async fn serve(&self) -> Serving {
        self.serve_by(self.command("serve")).await
    }

    async fn serve_by(&self, mut command: Command) -> Serving {
        let log =
            fs::File::options().create(true).append(true).open(self.dir.path().join("serve.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = stdout.next_line().await.unwrap();
        assert!(line.is_some_and(|line| line.starts_with("serving on")), "{}", self.logs());
        Serving { child, _stdout: stdout }
    }

    /// `mayfly run --json`, in a folder that is no repository.
    fn run(&self, prompts: &[&str]) -> Run {
        self.run_in(&self.dir.path().join("outside"), prompts)
    }

    /// The same, in this folder.
    fn run_in(&self, folder: &Path, prompts: &[&str]) -> Run {
        self.run_by(self.command("run"), folder, prompts)
    }

    fn run_by(&self, mut command: Command, folder: &Path, prompts: &[&str]) -> Run {
        command.env("CLAUDE_CODE_OAUTH_TOKEN", CANARY).env("ANTHROPIC_BASE_URL", self.api.base_url());
        command.arg("--json").args(prompts).current_dir(folder);
        Run::start(command)
    }

    /// What the orchestrators said, and the machines' first programs.
    fn logs(&self) -> String {
        let orchestrators = fs::read_to_string(self.dir.path().join("serve.log")).unwrap_or_default();
        let background = fs::read_to_string(self.data().join("serve.log")).unwrap_or_default();
        orchestrators + &background + &said(&self.dir.path().join("machines")).unwrap()
    }

    /// Nothing is left, and nothing was asked of Fly that is not in its document.
    async fn end(self) {
        self.fake.calm();
        assert_eq!(self.fake.machines(), []);
        assert_eq!(self.fake.complaints(), [""; 0]);
        assert_no_mount_in(self.dir.path());
        let nobody = self.outside.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(nobody, Err(ErrorKind::WouldBlock), "a machine got through");
        let logs = self.logs();
        self.api.stop().await;
        let machines = self.dir.path().join("machines");
        // Who was killed may be there for a moment longer.
        let ended = async {
            while !processes_in(&machines).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(ENDED_MAX, ended).await.expect("no process is left");
        assert!(!logs.contains(TOKEN) && !logs.contains(CANARY), "{logs}");
    }
}

fn bash(command: &str) -> String {
    format!("[script: steps list={}]", json!([{"tools": [{"name": "Bash", "input": {"command": command}}]}]))
}

fn outcomes(ended: &Ended) -> Vec<&Value> {
    ended.own("finished").map(|event| &event["outcome"]["name"]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_in_a_machine_of_flys_which_has_nothing_that_it_should_not_have() {
    let Some(place) = Place::start().await else { return };
    let serving = place.serve().await;
    let look = "id -u; pwd; cat /.fly/api; ls /.fly; cat /.fly/fly-src.pub; cat /etc/mayfly/boot.json; tr '\\0' '\\n' </proc/1/environ; \
                ps ax -o comm= | head -1; env; echo work >out.txt";
    let ended = place.run(&[&bash(look)]).end().await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stderr, place.logs());
    let said = ended.tool_results().concat();
    assert!(said.starts_with("1000\n/workspace\n"), "{said}");
    for closed in [
        "/.fly/api: Permission denied",
        &format!("{BOOT_FILE}: No such file"),
        "/proc/1/environ: Permission denied",
    ] {
        assert!(said.contains(closed), "{closed}: {said}");
    }
    for secret in [TOKEN, CANARY, "FLY_"] {
        assert!(!said.contains(secret), "{said}");
    }
    serving.end(Signal::TERM).await;
    place.end().await;
}

/// Nothing is known there but the address, and the token that the orchestrator was started with.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_laptop_run_at_fly_by_a_tunnel_as_they_do_on_one_box() {
    const OWNER: &str = "an-owner-token-that-was-made-up-0123456789";
    let Some(place) = Place::start().await else { return };
    let mut serve = place.command("serve");
    serve.env("MAYFLY_OWNER_TOKEN", OWNER);
    let serving = place.serve_by(serve).await;
    let (laptop, file) = (place.dir.path().join("laptop"), place.dir.path().join("owner.token"));
    let tunnel = |token: &str| {
        fs::write(&file, token).unwrap();
        let mut tunnel = place.plain_command("tunnel", &laptop);
        tunnel.args([
            "--listen",
            &format!("{}:0", own_loopback()),
            "--to",
            &format!("http://{}", place.port),
        ]);
        tunnel.arg("--token-file").arg(&file);
        tunnel
    };
    let refused = tunnel(&OWNER.replace("made", "given")).output().await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(3) && said.contains("refuses the token"), "{said}");
    let tunnel = place.serve_by(tunnel(OWNER)).await;
    let outside = place.dir.path().join("outside");
    let at_fly = |provider: &str| {
        let mut run = place.plain_command("run", &laptop);
        run.args(["--provider", provider]);
        place.run_by(run, &outside, &[&bash("cat /.fly/api; id -u")])
    };
    let ended = at_fly("fly").end().await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stderr, place.logs());
    ended.assert_whole();
    assert!(ended.tool_results().concat().ends_with("1000"), "{:?}", ended.tool_results());
    let refused = at_fly("sandbox").end().await;
    let why = "`provider` is \"sandbox\", and this orchestrator's machines are of `fly`";
    assert!(refused.code == Some(2) && refused.stderr.contains(why), "{:?} {}", refused.code, refused.stderr);
    tunnel.end(Signal::TERM).await;
    serving.end(Signal::TERM).await;
    assert!(!place.logs().contains(OWNER));
    place.end().await;
}

/// A policy is what shuts it in: without one it gets through, and then nothing is run there.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_not_shut_in_has_its_task_refused() {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    if !rustix::process::geteuid().is_root() {
        return skip("only root can make the roots of machines");
    }
    let run = |machines: &Path, port| Vms::new(machines, &claude, Path::new(PROGRAM), port).run();
    let place = Place::running(false, run).await;
    let serving = place.serve().await;
    let ended = place.run(&[&bash("echo hello")]).end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(3), "refused"), "{}\n{}", ended.stderr, place.logs());
    let through = place.outside.local_addr().unwrap();
    let why = format!("its machine is not shut in: it gets through to {through}, and nothing was run there");
    assert_eq!(ended.stderr.matches(&why).count(), 1, "{}", ended.stderr);
    assert_eq!((ended.own("started").count(), ended.tool_results().len()), (0, 0));
    place.outside.accept().expect("it has tried");
    serving.end(Signal::TERM).await;
    place.end().await;
}

/// The bundle comes by the machine's own way, since no folder of the orchestrator's is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_a_repository_has_it_in_its_machine_and_its_work_comes_back() {
    let Some(place) = Place::start().await else { return };
    let serving = place.serve().await;
    let (home, repo) = (place.dir.path(), place.dir.path().join("repo"));
    fs::create_dir(&repo).unwrap();
    let ours = |args: &[&str]| git(home, &repo, args);
    ours(&["init", "-q", "-b", "main"]);
    fs::write(repo.join("a.txt"), "one\n").unwrap();
    ours(&["add", "."]);
    ours(&["commit", "-q", "-m", "first"]);
    fs::write(repo.join("a.txt"), "two\n").unwrap();
    let work = bash(
        "pwd; git status --short --branch; cat a.txt; echo three >a.txt; git commit -qam second; echo 4 >new.txt",
    );
    let ended = place.run_in(&repo, &[&work]).end().await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stderr, place.logs());
    let said = ended.tool_results().concat();
    assert!(said.starts_with("/workspace/repo\n## main\ntwo"), "{said}");
    let branch = ours(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
    assert_eq!(ours(&["show", &format!("{branch}:a.txt")]), "three");
    assert_eq!(ours(&["show", &format!("{branch}:new.txt")]), "4");
    assert_eq!(fs::read_to_string(repo.join("a.txt")).unwrap(), "two\n", "the user's own files");
    serving.end(Signal::TERM).await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_machine_ended_is_told_with_its_loss() {
    let out_of_memory = Exit { code: 137, is_out_of_memory: true };
    let place = Place::running(true, |_, _| Arc::new(move |_| Box::pin(async move { out_of_memory }))).await;
    let serving = place.serve().await;
    let ended = place.run(&["anything"]).end().await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let why = "its machine ended before its worker was heard: its VM ran out of memory (Fly says oom_killed): \
               a larger `size` has more (machine ";
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
    serving.end(Signal::TERM).await;
    place.end().await;
}

/// Each answer that is not what it seems, with five machines at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_end_well_whatever_is_wrong_at_fly_and_leave_no_machine() {
    let Some(place) = Place::start().await else { return };
    let serving = place.serve().await;
    // Done and not told: the next request for the same name is answered by 409.
    place.fake.each(4, On::Create, Fault::Html);
    for disguise in no_room() {
        place.fake.once(On::Create, disguise);
    }
    place.fake.once(On::Create, Fault::refused(503, "unavailable"));
    place.fake.each(2, On::List, Fault::Empty);
    place.fake.each(3, On::Get, Fault::refused(404, "not_found: machine not found"));
    place.fake.each(4, On::Destroy, Fault::Lingers);
    for on in [On::Create, On::List, On::Get, On::Destroy] {
        place.fake.each(7, on, Fault::Rate(Some(1)));
    }
    let prompts: Vec<String> = (0..8).map(|number| bash(&format!("echo number {number}"))).collect();
    let ended = place.run(&prompts.iter().map(String::as_str).collect::<Vec<_>>()).end().await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stderr, place.logs());
    assert_eq!(outcomes(&ended), vec!["succeeded"; 8]);
    assert_eq!(ended.tool_results().len(), 8);
    serving.end(Signal::TERM).await;
    place.end().await;
}

/// The next orchestrator, which the run starts by itself, is as the last one was: its machines find it at the same place,
/// and Fly is asked for none twice.
#[tokio::test(flavor = "multi_thread")]
async fn machines_outlive_an_orchestrator_that_is_killed_and_are_taken_over() {
    let Some(place) = Place::start().await else { return };
    let serving = place.serve().await;
    let work = bash("until [ -e /tmp/go ]; do sleep 0.1; done; echo done");
    let mut run = place.run(&[&work, &work]);
    for _ in 0..2 {
        run.until("started").await;
    }
    serving.end(Signal::KILL).await;
    let roots: Vec<PathBuf> = place
        .fake
        .machines()
        .iter()
        .map(|machine| place.dir.path().join("machines").join(&machine.id))
        .collect();
    for root in &roots {
        fs::write(root.join("tmp/go"), "").unwrap();
    }
    let ended = run.end().await;
    assert_eq!((ended.code, roots.len()), (Some(0), 2), "{}\n{}", ended.stderr, place.logs());
    assert_eq!(outcomes(&ended), ["succeeded"; 2]);
    assert_eq!((ended.own("started").count(), ended.tool_results().len()), (2, 2));
    // Two for the tasks, and one that each orchestrator tried.
    assert_eq!(place.fake.count(On::Create), 4);
    let pid = fs::read_to_string(place.data().join("lock")).unwrap();
    end(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::TERM);
    place.end().await;
}

/// Fly does not say why, or that; what its agent did is not done again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_vanishes_is_a_lost_attempt_of_which_the_last_checkpoint_comes_back() {
    let Some(place) = Place::start().await else { return };
    let serving = place.serve().await;
    let work = json!({"name": "Bash", "input": {"command": "echo half >made.txt"}});
    let steps = json!([{"tools": [work]}, {"hold": "later", "text": "done"}]);
    let mut run = place.run(&[&format!("[script: steps list={steps}]")]);
    run.until_event(|event| event["event"]["type"] == "checkpoint" && event["event"]["files"] == 1).await;
    let machines = place.fake.machines();
    let [machine] = &machines[..] else { panic!("{machines:?}") };
    place.fake.vanish(&machine.id);
    let ended = run.end().await;
    assert_eq!((ended.code, ended.outcome().0), (Some(3), "lost"), "{}\n{}", ended.stderr, place.logs());
    assert_eq!(ended.own("started").count(), 1);
    let outside = fs::read_dir(place.dir.path().join("outside")).unwrap();
    let landed: Vec<PathBuf> = outside.map(|entry| entry.unwrap().path()).collect();
    let [folder] = &landed[..] else { panic!("{landed:?}: {}", ended.stderr) };
    assert_eq!(fs::read_to_string(folder.join("made.txt")).unwrap(), "half\n");
    serving.end(Signal::TERM).await;
    place.end().await;
}
