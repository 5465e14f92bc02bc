//! G11: whoever is killed at whichever step of the way in, the agent's workspace is the user's code, byte for byte, and
//! nothing half made is believed or left: real binary, real CLI, real SIGKILL.
//!
//! A machine has no agent yet that could have it die. Its orchestrator dies first, when the machine has joined and has not
//! been told what to do; so it waits, and meanwhile the file is written from outside by which it dies where it is told to.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::{StreamExt as _, stream};
use mayfly_client::Client;
use mayfly_wire::api::Workspace;
use rustix::process::{Pid, Signal};
use serde_json::json;

use super::failpoints::Life;
use super::kills::{FIRST, Orchestrated, bash, points, script};
use super::service::{User, end};
use super::world::{Ended, PATH, Run, Said, assert_no_cgroup_of, assert_no_mount_in, processes_in};

/// The most lives at once: each has an orchestrator and a machine.
const AT_ONCE: usize = 4;

/// Where an orchestrator dies while code comes in and a machine is made of it: the user's history is one bundle, and what
/// is not committed another one on top of it.
const CODE: [&str; 14] = [
    "part-opened",
    "part-written:6",
    "part-whole",
    "upload-unnamed",
    "upload-named",
    "part-whole:2",
    "upload-named:2",
    "base-begun",
    "base-fetched",
    "base-checked-out",
    "base-unnamed",
    "base-named",
    "base-begun:2",
    "base-unnamed:2",
];
/// And where while it takes what the set-up made, the third file that comes.
const SET_UP_MADE: [&str; 3] = ["upload-unnamed:3", "upload-named:3", "setup-kept"];

/// What there is before a machine dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// What an earlier task's set-up made.
    SetUp,
    /// The same, and that task's work, with which this one goes on.
    Work,
}

/// Where a machine dies before its agent has begun.
const MACHINE: [(&str, Before); 10] = [
    ("order-taken", Before::Nothing),
    ("setup-ran", Before::Nothing),
    ("setup-packed", Before::Nothing),
    ("setup-handed", Before::Nothing),
    ("setup-fetched", Before::SetUp),
    ("setup-unpacked", Before::SetUp),
    ("work-fetched", Before::Work),
    ("work-put-back", Before::Work),
    ("session-fetched", Before::Work),
    ("session-put-back", Before::Work),
];

/// Where the user's end dies, and how many tasks it has submitted by then: with a repository of this machine, and with one
/// elsewhere.
const HERE: [(&str, usize); 6] = [
    ("code-bundled", 0),
    ("code-sending:12", 0),
    ("code-handed", 0),
    ("code-bundled:2", 0),
    ("code-handed:2", 0),
    ("submit-answered", 1),
];
const ELSEWHERE: [(&str, usize); 3] = [("mirror-made", 0), ("mirror-fetched", 0), ("code-handed", 0)];

/// Tells a workspace: every file of it but what the set-up made, with its name, its mode and its content; then what git says.
const LOOK: &str = "tar --exclude=./.git --exclude=./deps --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - . \
                    | sha256sum; git status --porcelain; git log --format=%s; git stash list";
/// What the set-up makes is other bytes each time.
const SET_UP: &str = "[repo.cwd.setup]\nlock_files = [\"deps.lock\"]\nkeep = [\"deps\"]\n\
                      commands = [\"mkdir deps && head -c 1000000 /dev/urandom >deps/made && ln -s made deps/link\"]\n";
const MADE: &str = "sha256sum <deps/link";

/// A user with a repository of odd files, of which one is large, and changes to it that are not committed.
async fn user() -> User {
    let user = User::new().await;
    user.make_repository();
    fs::write(user.dir.path().join("mayfly.toml"), SET_UP).unwrap();
    let file = |name: &[u8], content: &[u8]| {
        let path = user.dir.path().join("cwd").join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    };
    let mut random = fastrand::Rng::with_seed(7);
    let large: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(8 << 20).collect();
    file(b"large", &large);
    file(b".gitignore", b"deps/\n");
    file(b"deps.lock", b"1\n");
    file(b"a.txt", b"a");
    file(b"new\nline \xff/crlf", b"one\r\ntwo\r\n");
    let run = file(b"-rf/run", b"#!/bin/sh\n");
    fs::set_permissions(run, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../-rf/run", user.dir.path().join("cwd/-rf/link")).unwrap();
    user.git(&["add", "."]);
    user.git(&["commit", "-q", "-m", "second"]);
    file(b"a.txt", b"changed");
    file(b"untracked \x1b[0m", b"\0");
    fs::remove_file(user.dir.path().join("cwd/deps.lock")).unwrap();
    user
}

/// What an agent that looks is to see where the files are those of `folder`.
fn seen_in(folder: &Path, messages: &str) -> String {
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", PATH).current_dir(folder).args(["-c", LOOK.split_once(';').unwrap().0]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    format!("{}{messages}", String::from_utf8(output.stdout).unwrap())
}

/// The same of the user's checkout.
fn seen_here(user: &User) -> String {
    let messages = "Uncommitted work when the task began\nsecond\nfirst";
    seen_in(&user.dir.path().join("cwd"), messages)
}

fn looks() -> String {
    script(&[json!({"tools": bash(LOOK)}), json!({"tools": bash(MADE)})])
}

/// Each with a data folder of its own.
async fn at_each<T>(user: User, points: Vec<T>, dies: impl AsyncFn(Orchestrated<'_>, T)) {
    let Some(claude) = mayfly_test_needs::claude() else { return };
    let lives = points.into_iter().enumerate().map(|(number, point)| {
        let data = user.dir.path().join(format!("data-{number}"));
        dies(Orchestrated { user: &user, claude: &claude, data }, point)
    });
    stream::iter(lives).buffer_unordered(AT_ONCE).collect::<()>().await;
    assert_eq!(processes_in(user.dir.path()).len(), 0);
    assert_no_mount_in(user.dir.path());
    user.api.stop().await;
}

/// Whether a file is of a kind, by its name.
fn is(name: &str, kind: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == kind)
}

/// Checks that an agent saw its workspace so; gives what it saw of what the set-up made.
fn assert_saw(ended: &Ended, expected: &str, point: &str) -> String {
    assert_eq!(ended.outcome().0, "succeeded", "{point}: {}", ended.stderr);
    ended.assert_whole();
    assert_eq!(ended.own("started").count(), 1, "{point}: {:?}", ended.events);
    let [seen, made] = &ended.tool_results()[..] else { panic!("{point}: {:?}", ended.tool_results()) };
    assert_eq!(seen, expected, "{point}");
    made.clone()
}

impl Orchestrated<'_> {
    /// A verb that may have a set-up run.
    fn setting_up(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = self.command(args);
        command.arg("--config").arg(self.user.dir.path().join("mayfly.toml"));
        command
    }

    async fn run(&self, args: &[&str]) -> Ended {
        Run::start(self.setting_up(&[&["run", "--json"], args].concat())).end().await
    }

    /// Runs an agent that looks at its workspace, which is to be so; what it sees of what the set-up made.
    async fn sees(&self, args: &[&str], expected: &str, point: &str) -> String {
        let ended = self.run(&[args, &[&looks()]].concat()).await;
        assert_saw(&ended, expected, point)
    }

    /// The same, where the first orchestrator dies meanwhile.
    async fn run_that_outlives_one(&self, point: &str, expected: &str) -> String {
        let life = self.serve(Some(point)).await;
        let run = Run::start(self.setting_up(&["run", "--json", &looks()]));
        life.killed(point).await;
        assert_saw(&run.end().await, expected, point)
    }

    async fn follow(&self, task: &str) -> Ended {
        Run::start(self.command(&["logs", task, "--json", "--follow"])).end().await
    }

    /// Submits a task; its id.
    async fn submit(&self, args: &[&str]) -> String {
        let said = Said::from(self.setting_up(args).output().await.unwrap()).text();
        said.split_once(' ').unwrap().0.to_owned()
    }

    /// Names of what is in a folder of the data, but what is hidden, in their order.
    fn names(&self, folder: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.data.join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    /// Checks that there is the code of the tasks, of which there are so many, what one set-up made, and nothing else of
    /// what came in; but bundles that no task names, which go by their age.
    async fn assert_nothing_is_left(&self, tasks: usize, unnamed: usize, point: &str) {
        let there = Client::new(&self.data.join("api.sock")).tasks(None, None).await.unwrap();
        assert_eq!(there.len(), tasks, "{point}");
        let (mut bundles, mut bases) = (BTreeSet::new(), BTreeSet::new());
        for task in there {
            assert_eq!(task.state, "finished", "{point}");
            assert_no_cgroup_of(&task.id);
            let Workspace { id, base, on, .. } = task.workspace.unwrap();
            let below = on.map(|on| (on.id, on.base));
            for (id, base) in below.into_iter().chain([(id, base)]) {
                bases.extend([format!("{id}-{base}"), format!("{id}-{base}.lock")]);
                bundles.insert(format!("{id}.bundle"));
            }
        }
        let (of_set_up, came): (BTreeSet<_>, BTreeSet<_>) =
            self.names("workspaces").into_iter().partition(|name| is(name, "setup"));
        assert_eq!(of_set_up.len(), 1, "{point}: {of_set_up:?}");
        assert!(came.is_superset(&bundles), "{point}: {came:?}");
        assert_eq!(came.len(), bundles.len() + unnamed, "{point}: {came:?}");
        assert_eq!(self.names("bases"), bases, "{point}");
        assert_eq!(self.names("incoming").len() + self.names("machines").len(), 0, "{point}");
    }

    /// Ends whichever orchestrator is there.
    fn end(&self) {
        let pid = fs::read_to_string(self.data.join("lock")).unwrap();
        end(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::TERM);
    }

    /// The folder of the one machine that there is, as its agent will have it.
    fn home_of_machine(&self) -> PathBuf {
        let machines: Vec<String> = self.names("machines").into_iter().collect();
        let [machine] = &machines[..] else { panic!("{machines:?}") };
        self.data.join("machines").join(machine).join("home")
    }
}

/// R01: the user's end goes on with the next orchestrator, which takes nothing half made for whole.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_dies_at_each_step_of_the_way_in_has_the_code_as_it_was() {
    let Some(()) = points() else { return };
    let user = user().await;
    let expected = seen_here(&user);
    at_each(user, CODE.to_vec(), async |site, point| {
        site.run_that_outlives_one(point, &expected).await;
        site.assert_nothing_is_left(1, 0, point).await;
        site.end();
    })
    .await;
}

/// The same for what the set-up made: the machine hands it over again, and the next one takes it as it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_dies_while_it_takes_what_a_set_up_made_keeps_it_whole() {
    let Some(()) = points() else { return };
    let user = user().await;
    let expected = seen_here(&user);
    at_each(user, SET_UP_MADE.to_vec(), async |site, point| {
        let made = site.run_that_outlives_one(point, &expected).await;
        assert_eq!(site.sees(&[], &expected, point).await, made, "{point}");
        site.assert_nothing_is_left(2, 0, point).await;
        site.end();
    })
    .await;
}

/// R05: the task has not begun, so another machine takes it, and finds everything as the first one did.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_at_each_step_before_its_agent_is_replaced_by_one_like_it() {
    let Some(()) = points() else { return };
    let user = user().await;
    let here = seen_here(&user);
    at_each(user, MACHINE.to_vec(), async |site, (point, before)| {
        let (mut expected, mut made, mut words) = (here.clone(), None, vec!["run", "--detach"]);
        let (looks, mut earlier) = (looks(), String::new());
        if before != Before::Nothing {
            let life = site.serve(None).await;
            let first = if before == Before::Work { format!("{FIRST}; {LOOK}") } else { LOOK.to_owned() };
            let work = [json!({"tools": bash(&first)}), json!({"tools": bash(MADE)})];
            let ended = site.run(&[&script(&work)]).await;
            expected = ended.tool_results()[0].clone();
            made = Some(assert_saw(&ended, &expected, point)).filter(|_| before == Before::SetUp);
            ended.events[0]["task"].as_str().unwrap().clone_into(&mut earlier);
            life.end().await;
        }
        if before == Before::Work {
            words = vec!["resume", "--detach", &earlier];
        }
        let life = site.serve(Some("join-bound")).await;
        let id = site.submit(&[&words[..], &[&looks]].concat()).await;
        life.killed(point).await;
        fs::write(site.home_of_machine().join(".mayfly-failpoint"), point).unwrap();
        let next = site.serve(None).await;
        let ended = site.follow(&id).await;
        let saw = assert_saw(&ended, &expected, point);
        assert!(made.is_none_or(|made| made == saw), "{point}: what the set-up made was kept");
        assert_eq!(ended.own("launching").count(), 2, "{point}: {:?}", ended.events);
        site.assert_nothing_is_left(if before == Before::Nothing { 1 } else { 2 }, 0, point).await;
        next.end().await;
    })
    .await;
}

/// The task counts as begun once its machine was heard to begin, and is not begun again by itself; a retry has the same code.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_as_its_agent_begins_is_lost_and_a_retry_has_the_same_code() {
    let Some(()) = points() else { return };
    let user = user().await;
    let expected = seen_here(&user);
    at_each(user, vec!["start-told"], async |site, point| {
        let life = site.serve(Some("join-bound")).await;
        let id = site.submit(&["run", "--detach", &looks()]).await;
        life.killed(point).await;
        fs::write(site.home_of_machine().join(".mayfly-failpoint"), point).unwrap();
        let next = site.serve(None).await;
        let ended = site.follow(&id).await;
        assert_eq!((ended.outcome().0, ended.own("started").count()), ("lost", 1), "{:?}", ended.events);
        let again = site.submit(&["retry", &id, "--detach"]).await;
        assert_saw(&site.follow(&again).await, &expected, point);
        site.assert_nothing_is_left(2, 0, point).await;
        next.end().await;
    })
    .await;
}

/// Whatever the user's end had done by then, the same run brings the same code in when it is typed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_at_each_step_of_the_way_in_can_be_typed_again() {
    let Some(()) = points() else { return };
    let user = user().await;
    let url = format!("file://{}", user.dir.path().join("cwd").display());
    user.git(&["clone", "-q", &url, "../clone"]);
    let cases = HERE.map(|case| (case, None)).into_iter().chain(ELSEWHERE.map(|case| (case, Some(&*url))));
    let [here, elsewhere] = [seen_here(&user), seen_in(&user.dir.path().join("clone"), "second\nfirst")];
    at_each(user, cases.collect(), async |site, ((point, submitted), url)| {
        let life = site.serve(None).await;
        let expected = if url.is_some() { &elsewhere } else { &here };
        let repo: Vec<&str> = url.iter().flat_map(|url| ["--repo", url]).collect();
        let mut killed = site.setting_up(&[&["run", "--json"], &repo[..], &[&looks()]].concat());
        let said = Said::from(killed.env("MAYFLY_FAILPOINT", point).output().await.unwrap());
        assert_eq!(said.code, None, "{point}: {}", said.stderr);
        let part = site.names("workspaces").into_iter().find(|name| is(name, "part"));
        assert_eq!(part.is_some(), point.starts_with("code-sending"), "{point}");
        let made = site.sees(&repo, expected, point).await;
        let there = Client::new(&site.data.join("api.sock")).tasks(None, None).await.unwrap();
        assert_eq!(there.len(), 1 + submitted, "{point}");
        // The one that nobody followed has run beside it; which of the two set-ups is kept is no matter.
        for task in &there[1..] {
            assert_saw(&site.follow(&task.id).await, expected, point);
        }
        if submitted == 0 {
            assert_eq!(site.sees(&repo, expected, point).await, made, "{point}");
            site.assert_nothing_is_left(2, usize::from(point == "code-handed:2"), point).await;
        }
        life.end().await;
    })
    .await;
}

/// R03: a git that outlives its orchestrator goes on writing the base that it was started for, so nobody makes that anew
/// beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_is_held_by_a_git_whose_orchestrator_was_killed() {
    let user = user().await;
    let expected = seen_here(&user);
    at_each(user, vec!["reset"], async |site, point| {
        let bin = site.user.dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let pipes = ["begun", "go"].map(|name| bin.join(name));
        assert!(Command::new("mkfifo").args(&pipes).status().unwrap().success());
        let [begun, go] = &pipes;
        // The first one waits.
        let waits = format!(
            "#!/bin/sh\nown={}\ncase \" $* \" in *' {point} '*) if mkdir $own/first 2>/dev/null; then\n\
             echo >$own/begun; read -r _ <$own/go; fi;; esac\nexec /usr/bin/git \"$@\"\n",
            bin.display()
        );
        fs::write(bin.join("git"), waits).unwrap();
        fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut serve = site.command(&["serve", "--listen", "127.0.0.1:0"]);
        serve.env("PATH", format!("{}:{PATH}", bin.display()));
        let life = Life::start(serve).await;
        let id = site.submit(&["run", "--detach", &looks()]).await;
        tokio::fs::read(begun).await.unwrap();
        life.kill().await;
        let locks = site.names("bases").into_iter().filter(|name| is(name, "lock"));
        let held = locks.filter(|name| {
            let lock = fs::File::open(site.data.join("bases").join(name)).unwrap();
            matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock))
        });
        assert_eq!(held.count(), 1);
        let next = site.serve(None).await;
        tokio::fs::write(go, "\n").await.unwrap();
        assert_saw(&site.follow(&id).await, &expected, point);
        site.assert_nothing_is_left(1, 0, point).await;
        next.end().await;
    })
    .await;
}
