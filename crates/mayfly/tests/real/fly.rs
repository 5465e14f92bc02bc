//! Machines as VMs of Fly, with the real `claude`: the provider, its HTTP, a stand-in for Fly with faults, the real worker
//! in each machine, and the orchestrator's port.
//!
//! A "VM" is a process with a root folder, mounts and processes of its own, which finds what Fly would have put into it.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use mayfly_engine::SystemClock;
use mayfly_fake_fly::{Exit, FakeFly, Fault, On, Run as VmRun, Setup, Start, no_room};
use mayfly_provider::Provider;
use mayfly_provider_fly::{BOOT_FILE, Fly, FlyConfig};
use mayfly_scripted_api::{Accepted, ScriptedApi};
use mayfly_server::{Server, ServerConfig};
use mayfly_test_needs::skip;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::world::{CANARY, Ended, PATH, Run, assert_no_mount_in, git, processes_in};

const APP: &str = "workers";
const TOKEN: &str = "fm2_canary";
/// How long the processes of machines that are gone may take to be gone as well.
const ENDED_MAX: Duration = Duration::from_secs(10);

/// Makes the root that a VM would have of an image, and runs its first program there. Its arguments: the root, `claude`,
/// `mayfly`, the program.
const VM: &str = r#"
root=$1 claude=$2 mayfly=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
for name in bin lib lib64 sbin; do
    if [ -L /$name ]; then ln -s "$(readlink /$name)" "$root/$name"
    elif [ -d /$name ]; then mkdir "$root/$name"; mount --bind /$name "$root/$name"; fi
done
mkdir -p "$root/usr" "$root/proc" "$root/dev" "$root/tmp" "$root/.fly" "$root/opt/claude" "$root/opt/mayfly"
chmod 1777 "$root/tmp"
echo secret >"$root/.fly/api"
cp /etc/passwd /etc/group /etc/ld.so.cache "$root/etc/"
mount --bind /usr "$root/usr"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
touch "$root/opt/claude/claude" "$root/opt/mayfly/mayfly"
mount --bind "$claude" "$root/opt/claude/claude"
mount --bind "$mayfly" "$root/opt/mayfly/mayfly"
exec chroot "$root" "$@"
"#;

/// Starts the program of a VM below `machines`, and waits for its end; dropped, it kills it.
async fn vm(machines: PathBuf, claude: PathBuf, start: Start) -> io::Result<Exit> {
    let root = machines.join(&start.id);
    for (path, bytes) in &start.files {
        let file = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap())?;
        fs::write(&file, bytes)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400))?;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--fork", "--kill-child", "sh", "-euc", VM, "vm"]).arg(&root).arg(claude);
    command.arg(env!("CARGO_BIN_EXE_mayfly")).args(&start.exec).env_clear().env("PATH", PATH);
    let log = fs::File::create(machines.join(format!("{}.log", start.id)))?;
    let status = command.stdout(log.try_clone()?).stderr(log).kill_on_drop(true).status().await?;
    Ok(Exit { code: status.code().unwrap_or(-1).into(), is_out_of_memory: false })
}

/// An orchestrator whose machines are Fly's.
struct Place {
    dir: TempDir,
    api: ScriptedApi,
    fake: FakeFly,
    fly: Fly,
    server: Server,
}

/// An address of this process alone, so that nobody takes a port of it between two uses.
fn own_loopback() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 + high, middle, low)
}

impl Place {
    /// None: there is no `claude` here, or no root to make roots, and the test is skipped.
    async fn start() -> Option<Self> {
        let claude = mayfly_test_needs::claude()?;
        if !rustix::process::geteuid().is_root() {
            skip("only root can make the roots of machines");
            return None;
        }
        let run = |machines: PathBuf| -> VmRun {
            Arc::new(move |start| -> Pin<Box<dyn Future<Output = Exit> + Send>> {
                let (machines, claude) = (machines.clone(), claude.clone());
                Box::pin(async move { vm(machines, claude, start).await.expect("a machine") })
            })
        };
        Some(Self::running(run).await)
    }

    /// One whose machines, with what is theirs in this folder, run so.
    async fn running(run: impl FnOnce(PathBuf) -> VmRun) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machines = dir.path().join("machines");
        fs::create_dir(&machines).unwrap();
        // The agent's user goes in to what is its own.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let image = format!("registry.fly.io/{APP}@sha256:{}", "ab".repeat(32));
        let clock = Arc::new(SystemClock);
        let mut setup = Setup::new(clock.clone(), APP, TOKEN, &image);
        setup.boot = Duration::ZERO;
        setup.run = run(machines);
        let fake = FakeFly::start(setup).await;
        let port = TcpListener::bind((own_loopback(), 0)).unwrap().local_addr().unwrap();
        let endpoint = format!("http://{port}").parse().unwrap();
        let mut config = FlyConfig::new(APP, TOKEN.to_owned().into(), "d1", endpoint);
        (config.api, config.image) = (fake.url(), image);
        config.regions = vec!["iad".to_owned(), "ord".to_owned()];
        let fly = Fly::new(config, clock.clone()).unwrap();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let api = ScriptedApi::start_paced(loopback, Accepted::Oauth(CANARY.to_owned()), 0.0).await.unwrap();
        let mut config = ServerConfig::in_dir(dir.path().join("data"));
        fs::create_dir(&config.data).unwrap();
        (config.listen, config.machines_by_port) = (Some(port), true);
        let provider: Arc<dyn Provider> = Arc::new(fly.clone());
        let server = Server::start(config, provider, clock).await.unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        Self { dir, api, fake, fly, server }
    }

    /// `mayfly run --json`, in a folder that is no repository.
    async fn run(&self, prompts: &[&str]) -> Ended {
        self.run_in(&self.dir.path().join("outside"), prompts).await
    }

    /// The same, in this folder.
    async fn run_in(&self, folder: &Path, prompts: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
        command.env_clear().env("PATH", PATH).env("HOME", self.dir.path());
        command.env("CLAUDE_CODE_OAUTH_TOKEN", CANARY).env("ANTHROPIC_BASE_URL", self.api.base_url());
        command.args(["run", "--json", "--data"]).arg(self.dir.path().join("data")).args(prompts);
        command.current_dir(folder).stdin(std::process::Stdio::null());
        Run::start(command).end().await
    }

    /// What the machines' first programs said.
    fn logs(&self) -> String {
        let entries =
            fs::read_dir(self.dir.path().join("machines")).unwrap().map(|entry| entry.unwrap().path());
        let logs = entries.filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    /// Nothing is left, and nothing was asked of Fly that is not in its document.
    async fn end(self) {
        assert_eq!(self.fake.machines(), []);
        assert_eq!(self.fake.complaints(), [""; 0]);
        assert_eq!(self.fly.list().await.unwrap(), []);
        assert_no_mount_in(self.dir.path());
        self.server.stop().await;
        self.api.stop().await;
        let machines = self.dir.path().join("machines");
        // Who was killed may be there for a moment longer.
        let ended = async {
            while !processes_in(&machines).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(ENDED_MAX, ended).await.expect("no process is left");
    }
}

fn bash(command: &str) -> String {
    format!("[script: steps list={}]", json!([{"tools": [{"name": "Bash", "input": {"command": command}}]}]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_in_a_machine_of_flys_which_has_nothing_that_it_should_not_have() {
    let Some(place) = Place::start().await else { return };
    let look = "id -u; pwd; cat /.fly/api; ls /.fly; cat /etc/mayfly/boot.json; tr '\\0' '\\n' </proc/1/environ; \
                ps ax -o comm= | head -1; env; echo work >out.txt";
    let ended = place.run(&[&bash(look)]).await;
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
    place.end().await;
}

/// The bundle comes by the machine's own way, since no folder of the orchestrator's is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_a_repository_has_it_in_its_machine_and_its_work_comes_back() {
    let Some(place) = Place::start().await else { return };
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
    let ended = place.run_in(&repo, &[&work]).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stderr, place.logs());
    let said = ended.tool_results().concat();
    assert!(said.starts_with("/workspace/repo\n## main\ntwo"), "{said}");
    let branch = ours(&["for-each-ref", "--format=%(refname:short)", "refs/heads/mayfly"]);
    assert_eq!(ours(&["show", &format!("{branch}:a.txt")]), "three");
    assert_eq!(ours(&["show", &format!("{branch}:new.txt")]), "4");
    assert_eq!(fs::read_to_string(repo.join("a.txt")).unwrap(), "two\n", "the user's own files");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_machine_ended_is_told_with_its_loss() {
    let out_of_memory = Exit { code: 137, is_out_of_memory: true };
    let place = Place::running(|_| Arc::new(move |_| Box::pin(async move { out_of_memory }))).await;
    let ended = place.run(&["anything"]).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let why = "its machine ended before its worker was heard: its VM ran out of memory (Fly says oom_killed): \
               a larger `size` has more (machine ";
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
    place.end().await;
}

/// Each answer that is not what it seems, with five machines at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_end_well_whatever_is_wrong_at_fly_and_leave_no_machine() {
    let Some(place) = Place::start().await else { return };
    place.fake.each(4, On::Create, Fault::Html);
    let [no_room_in_region, _, no_room_on_host, ..] = &no_room()[..] else { unreachable!() };
    place.fake.once(On::Create, no_room_in_region.clone());
    place.fake.each(5, On::Create, no_room_on_host.clone());
    place.fake.once(On::Create, Fault::refused(503, "unavailable"));
    place.fake.each(2, On::List, Fault::Empty);
    place.fake.each(3, On::Get, Fault::refused(404, "not_found: machine not found"));
    place.fake.each(4, On::Destroy, Fault::Lingers);
    let prompts: Vec<String> = (0..8).map(|number| bash(&format!("echo number {number}"))).collect();
    let ended = place.run(&prompts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stderr, place.logs());
    let finished = ended.events.iter().filter(|event| event["event"]["type"] == "finished");
    let outcomes: Vec<_> = finished.map(|event| event["event"]["outcome"]["name"].clone()).collect();
    assert_eq!(outcomes, vec![json!("succeeded"); 8]);
    assert_eq!(ended.tool_results().len(), 8);
    place.fake.calm();
    place.end().await;
}
