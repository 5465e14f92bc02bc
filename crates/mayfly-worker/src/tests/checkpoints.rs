//! What comes out of a workspace while its agent works: real git on both sides.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mayfly_wire::worker::{Checkpoint, OrderedWorkspace, Report};
use tokio::time::Instant;

use super::host::Host;
use super::the_work::{Place, git};
use crate::checkpoint::Pace;
use crate::checkpoint::state::{Look, State};
use crate::reaper::{Realm, Reaper};
use crate::setup::made::Made;

/// The longest that a look may take here.
const MOST: Duration = Duration::from_secs(60);

/// A workspace, and who looks at it.
struct Looks {
    place: Place,
    state: State,
    /// What was packed, with the look that it is of.
    packed: Vec<(Bytes, Look)>,
}

impl Looks {
    fn at(place: Place) -> Self {
        fs::create_dir(place.dir.path().join("ours")).unwrap();
        let state = State {
            reaper: Reaper::start(Realm::Children).unwrap().gentle(),
            workspace: place.work(),
            base: Some(place.base.clone()),
            base_objects: place.dir.path().join("base/.git/objects"),
            places: [place.dir.path().join("ours"), "/nonexistent".into()],
            disk_max: None,
            made: Arc::default(),
            begun: 0,
            folder: None,
        };
        Self { place, state, packed: Vec::new() }
    }

    async fn look(&mut self) -> Look {
        self.state.look(Instant::now() + MOST).await.unwrap()
    }

    /// Looks and packs, on top of what was packed last.
    async fn checkpoint(&mut self) -> (Look, Checkpoint) {
        let look = self.look().await;
        let before = self.packed.len() as u64;
        let before = self.packed.last().map(|(_, look)| (before, look));
        let packed = self.state.pack(&look, before, Instant::now() + MOST).await.unwrap();
        let bytes = Bytes::from(fs::read(packed.file).unwrap());
        assert_eq!(packed.bytes, bytes.len() as u64);
        let (head, _) = take_apart(&bytes);
        self.packed.push((bytes, look.clone()));
        (look, head)
    }

    /// What is in all of the packs, checked out on top of the base.
    fn taken(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        let packs: Vec<_> = self.packed.iter().map(|(bytes, _)| bytes.clone()).collect();
        let head = self.packed.last().unwrap().1.head.clone().unwrap();
        let taken = taken(&self.place.dir.path().join("base"), self.place.dir.path(), &packs, &head);
        files(&taken)
    }

    /// What is on the disk.
    fn there(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        files(&self.place.work())
    }
}

/// A checkpoint's head and its pack.
fn take_apart(bytes: &Bytes) -> (Checkpoint, Bytes) {
    let at = bytes.iter().position(|&byte| byte == b'\n').unwrap();
    (serde_json::from_slice(&bytes[..at]).unwrap(), bytes.slice(at + 1..))
}

/// A clone of the base with the packs in it, checked out at `head`.
fn taken(base: &Path, within: &Path, packs: &[Bytes], head: &str) -> PathBuf {
    let taken = tempfile::Builder::new().prefix("taken").tempdir_in(within).unwrap().keep();
    git(within, &["clone", "--quiet", base.to_str().unwrap(), taken.to_str().unwrap()]);
    for (at, pack) in packs.iter().enumerate() {
        let file = taken.join(format!(".git/{at}.pack"));
        fs::write(&file, take_apart(pack).1).unwrap();
        git(&taken, &["index-pack", "--fsck-objects", file.to_str().unwrap()]);
        let into = taken.join(".git/objects/pack");
        for end in ["pack", "idx"] {
            fs::rename(file.with_extension(end), into.join(format!("pack-{at:040}.{end}"))).unwrap();
        }
    }
    git(&taken, &["checkout", "--quiet", "--detach", head]);
    git(&taken, &["fsck", "--strict"]);
    taken
}

/// Every file that git would keep, with its mode and content: also what is ignored.
fn files(top: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, is) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
            if name == ".git" {
                continue;
            }
            if is.is_dir() {
                folders.push(path);
            } else if is.is_symlink() {
                found.insert(name, (0, fs::read_link(&path).unwrap().to_string_lossy().into_owned().into()));
            } else {
                found.insert(name, (is.mode() & 0o111, fs::read(&path).unwrap()));
            }
        }
    }
    found
}

#[tokio::test]
async fn a_workspace_as_it_was_is_nothing_to_keep() {
    let mut looks = Looks::at(Place::new());
    let look = looks.look().await;
    assert!(look.is_nothing(), "{look:?}");
    assert!(looks.look().await.is_same(&look));
    assert_eq!(looks.state.begun, 1);
}

/// G11: whatever the agent does between two checkpoints, the last has what is on the disk.
#[tokio::test]
async fn each_checkpoint_has_what_is_on_the_disk_and_sends_what_is_new() {
    let mut looks = Looks::at(Place::new());
    let big = "x".repeat(100_000);
    looks.place.write("big", &big);
    looks.place.write("dir/odd \"name\"\n\u{e9}", "odd\n");
    looks.place.write("kept", "two\n");
    fs::remove_file(looks.place.work().join("gone")).unwrap();
    std::os::unix::fs::symlink("kept", looks.place.work().join("link")).unwrap();
    let (_, head) = looks.checkpoint().await;
    assert_eq!((head.after, head.files, head.left_out.len()), (0, 5, 0), "{head:?}");
    assert_eq!(looks.taken(), looks.there());

    fs::set_permissions(looks.place.work().join("big"), fs::Permissions::from_mode(0o755)).unwrap();
    looks.place.write("dir/more", "more\n");
    let (_, head) = looks.checkpoint().await;
    assert_eq!((head.after, head.files), (1, 6));
    assert!(looks.packed[1].0.len() < 2000, "what is known is not sent again: {}", looks.packed[1].0.len());
    assert_eq!(looks.taken(), looks.there());

    // It commits some of it, with a file that is ignored, and goes on.
    looks.place.write("noise.log", "kept by force\n");
    looks.place.git(&["add", "--force", "noise.log", "big"]);
    looks.place.git(&["commit", "--quiet", "--message", "of the agent"]);
    let committed = looks.place.git(&["rev-parse", "HEAD"]);
    looks.place.write("kept", "three\n");
    let (look, _) = looks.checkpoint().await;
    assert_eq!(looks.taken(), looks.there());
    let work = looks.place.dir.path().join("ours");
    let parents = fs::read_dir(work).unwrap().next().unwrap().unwrap().path().join("git");
    let parent = git(&parents, &["rev-parse", &format!("{}^", look.head.unwrap())]);
    assert_eq!(parent, committed, "its commit is kept as it is");

    looks.place.git(&["add", "--all"]);
    looks.place.git(&["commit", "--quiet", "--message", "all of it"]);
    let (look, _) = looks.checkpoint().await;
    assert_eq!(look.head, Some(looks.place.git(&["rev-parse", "HEAD"])));
    assert_eq!(looks.taken(), looks.there());
    assert!(looks.look().await.is_same(&look));

    // And takes all of it back.
    looks.place.git(&["reset", "--quiet", "--hard", &looks.place.base.clone()]);
    let (look, head) = looks.checkpoint().await;
    assert!(look.head.is_some(), "what it committed is in its log: {look:?}");
    assert_eq!(head.after, 4);
}

#[tokio::test]
async fn what_set_up_commands_made_is_in_none() {
    let mut looks = Looks::at(Place::new());
    looks.place.write("gone", "differed before\n");
    let before = looks.state.differing(Instant::now() + MOST).await.unwrap();
    for path in ["kept", "gone", "made", "deps/x"] {
        looks.place.write(path, "set up\n");
    }
    let after = looks.state.differing(Instant::now() + MOST).await.unwrap();
    looks.state.made = Arc::new(Made::between(&looks.place.work(), &before, after, &["deps".to_owned()]));
    looks.place.write("mine", "worked\n");
    looks.place.write("deps/y", "worked\n");
    let (_, checkpoint) = looks.checkpoint().await;
    assert_eq!(checkpoint.files, 2);
    let (taken, there) = (looks.taken(), looks.there());
    let is_there = |path: &&str| taken.get(*path) == there.get(*path);
    assert!(
        ["mine", "gone"].iter().all(is_there) && !["kept", "made", "deps/x", "deps/y"].iter().any(is_there)
    );
}

#[tokio::test]
async fn commits_beside_head_are_in_it() {
    let mut looks = Looks::at(Place::new());
    looks.place.git(&["checkout", "--quiet", "-b", "feature"]);
    let feature = looks.place.commit("of-the-feature");
    looks.place.git(&["checkout", "--quiet", "main"]);
    looks.place.write("kept", "stashed\n");
    looks.place.git(&["stash", "--quiet"]);
    looks.place.write("loose", "x\n");
    let (_, head) = looks.checkpoint().await;
    let names: Vec<_> = head.others.keys().map(String::as_str).collect();
    assert_eq!((names, &head.others["feature"]), (vec!["feature", "stash"], &feature));
    assert_eq!(looks.taken(), looks.there());
}

/// The agent's git does not notice, and its locks hold up nobody.
#[tokio::test]
async fn nothing_of_the_agent_s_is_touched_or_waited_for() {
    let mut looks = Looks::at(Place::new());
    looks.place.write("kept", "two\n");
    fs::write(looks.place.work().join(".git/index.lock"), "").unwrap();
    fs::write(looks.place.work().join(".git/HEAD.lock"), "").unwrap();
    let seen = |path: &Path| {
        let mut seen: Vec<_> = files(path)
            .into_keys()
            .map(|name| {
                let is = fs::symlink_metadata(path.join(&name)).unwrap();
                (name, is.ino(), is.mtime_nsec(), is.ctime_nsec())
            })
            .collect();
        seen.sort();
        seen
    };
    let (work, git) = (looks.place.work(), looks.place.work().join(".git"));
    let before = (seen(&work), seen(&git));
    looks.checkpoint().await;
    assert_eq!((seen(&work), seen(&git)), before);
    assert_eq!(looks.taken(), looks.there());
}

#[tokio::test]
async fn what_a_checkpoint_does_not_hold_is_named() {
    let mut looks = Looks::at(Place::new());
    looks.state.disk_max = Some(16 << 20);
    looks.place.write("huge", &"x".repeat((1 << 20) + 1));
    looks.place.write("small", "x\n");
    fs::create_dir(looks.place.work().join("inner")).unwrap();
    git(&looks.place.work().join("inner"), &["init", "--quiet"]);
    looks.place.write("closed", "x");
    fs::set_permissions(looks.place.work().join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let (_, head) = looks.checkpoint().await;
    let root = rustix::process::geteuid().is_root();
    assert_eq!(head.files, if root { 2 } else { 1 });
    let told = head.left_out.join("\n");
    for what in ["inner/: this repository", "huge: 1 MiB, too much"] {
        assert!(told.contains(&format!("not in the checkpoint: {what}")), "{told}");
    }
    assert_eq!(head.left_out.len(), if root { 2 } else { 3 }, "{told}");
    assert!(looks.look().await.is_same(&looks.packed[0].1));
}

/// The folder is the agent's to spoil; what comes of it is a checkpoint that builds on none.
#[tokio::test]
async fn a_folder_that_was_spoilt_is_begun_anew() {
    let mut looks = Looks::at(Place::new());
    looks.place.write("kept", "two\n");
    looks.checkpoint().await;
    let ours = fs::read_dir(looks.place.dir.path().join("ours")).unwrap().next().unwrap().unwrap().path();
    fs::write(ours.join("git/index"), "no index").unwrap();
    looks.place.write("kept", "three\n");
    assert!(looks.state.look(Instant::now() + MOST).await.is_err());
    looks.packed.clear();
    looks.checkpoint().await;
    assert_eq!((looks.state.begun, looks.taken()), (2, looks.there()));
    let ours = fs::read_dir(looks.place.dir.path().join("ours")).unwrap().next().unwrap().unwrap().path();
    fs::remove_dir_all(ours).unwrap();
    looks.packed.clear();
    looks.checkpoint().await;
    assert_eq!((looks.state.begun, looks.taken()), (3, looks.there()));
}

#[tokio::test]
async fn a_workspace_that_began_with_nothing_has_checkpoints_too() {
    let place = Place::new();
    fs::remove_dir_all(place.work()).unwrap();
    fs::create_dir(place.work()).unwrap();
    let mut looks = Looks::at(place);
    (looks.state.base, looks.state.base_objects) = (None, "/nonexistent/objects".into());
    assert!(looks.look().await.is_nothing());
    looks.place.write("made", "x\n");
    let (_, head) = looks.checkpoint().await;
    assert_eq!((head.files, looks.taken()), (1, looks.there()));
    looks.place.git(&["init", "--quiet", "--initial-branch=main"]);
    let committed = looks.place.commit("and-committed");
    let (look, _) = looks.checkpoint().await;
    assert_eq!((look.head, looks.taken()), (Some(committed), looks.there()));
}

/// Files that change, shrink and go while they are read do no harm; once they are still, they are there.
#[tokio::test]
async fn files_that_change_while_they_are_read_do_no_harm() {
    let mut looks = Looks::at(Place::new());
    let (work, stop) = (looks.place.work(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        let long = vec![b'x'; 400_000];
        for round in 0_usize.. {
            let file = work.join(format!("f{}", round % 7));
            fs::write(&file, &long[..(round * 37_777) % long.len()]).unwrap();
            if round % 5 == 0 {
                fs::remove_file(&file).unwrap();
            }
            if stopped.load(Ordering::Relaxed) {
                return;
            }
        }
    });
    for _ in 0..10 {
        // One may fail; what follows is whole.
        let _ = looks.state.look(Instant::now() + MOST).await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    looks.checkpoint().await;
    assert_eq!(looks.taken(), looks.there());
}

/// A call of a tool, and its result, as `claude` tells of them.
fn tool(name: &str, id: &str) -> String {
    let call = format!(
        r#"{{"type":"assistant","message":{{"content":[{{"type":"tool_use","id":"{id}","name":"{name}","input":{{}}}}]}}}}"#
    );
    let end = format!(
        r#"{{"type":"user","message":{{"content":[{{"type":"tool_result","tool_use_id":"{id}","content":"ok"}}]}}}}"#
    );
    format!("echo '{call}'; echo '{end}'")
}

/// A worker with a base, whose workspace is handed over often.
fn host(script: &str, adjust: impl FnOnce(&mut super::host::Desk)) -> Host {
    let mut host = Host::with(script, |desk| {
        desk.result_path = "/v1/worker/";
        adjust(desk);
    });
    host.pace = Pace { every: MOST, settle: Duration::from_millis(1) };
    host
}

/// As the map of the house and the help say.
#[test]
fn work_is_looked_at_each_minute_and_a_second_after_a_tool() {
    let Pace { every, settle } = Pace::USUAL;
    assert_eq!((every, settle), (Duration::from_secs(60), Duration::from_secs(1)));
}

const SESSION: &str = "11111111-2222-4333-8444-555555555555";

#[tokio::test]
async fn after_a_tool_that_may_change_files_a_checkpoint_is_handed_over() {
    let write = tool("Write", "w1");
    let read = tool("Read", "r1");
    let more = tool("Bash", "b1");
    let script = format!(
        "init; read line; {read}; echo one > made; mkdir -p $CLAUDE_CONFIG_DIR/projects/p; \
         printf 'line\\nhalf' > $CLAUDE_CONFIG_DIR/projects/p/{SESSION}.jsonl; {write}; cat go > /dev/null; \
         echo two >> made; printf ' whole\\n' >> $CLAUDE_CONFIG_DIR/projects/p/{SESSION}.jsonl; {more}; cat go > /dev/null; result"
    );
    let host = host(&script, |desk| desk.order.session_id = SESSION.to_owned());
    let go = host.workspace().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
    let (lived, ()) = tokio::join!(host.live(), async {
        let (first, _) = take_apart(&host.handed("checkpoint/1", 1).await);
        assert_eq!((first.after, first.files), (0, 1), "{first:?}");
        assert_eq!(host.handed("checkpoint/transcript", 1).await, "line\n");
        tokio::fs::write(&go, "").await.unwrap();
        let (second, _) = take_apart(&host.handed("checkpoint/2", 1).await);
        assert_eq!((second.after, second.files), (1, 1), "{second:?}");
        assert_eq!(host.handed("checkpoint/transcript", 2).await, "half whole\n");
        tokio::fs::write(&go, "").await.unwrap();
    });
    lived.unwrap();
    assert_eq!(host.ended().0, "succeeded", "{:?}", host.reports());
    assert!(!host.reports().iter().any(|report| matches!(report, Report::Warning { .. })));
    assert_eq!(made(&host, 2), "one\ntwo\n");
    let left = fs::read_dir(host.dir.path().join("home")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != ".claude").collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("mayfly")), "{left:?}");
}

/// A tool that takes long is looked at by the clock; where nothing is under way, nothing is.
#[tokio::test]
async fn while_a_tool_is_under_way_the_work_is_looked_at_from_time_to_time() {
    let call = tool("Bash", "b1");
    let (call, end) = call.split_once("; ").unwrap();
    let script = format!(
        "init; read line; {call}; echo one > made; cat go > /dev/null; echo two >> made; cat go > /dev/null; {end}; result"
    );
    let mut host = host(&script, |_| {});
    host.pace = Pace { every: Duration::from_millis(20), settle: MOST };
    let go = host.workspace().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
    let (lived, ()) = tokio::join!(host.live(), async {
        let (mut last, mut number) = (String::new(), 0);
        for step in ["one\n", "one\ntwo\n"] {
            // It may have been looked at before the file was whole.
            while last != step {
                number += 1;
                host.handed(&format!("checkpoint/{number}"), 1).await;
                last = made(&host, number);
            }
            tokio::fs::write(&go, "").await.unwrap();
        }
    });
    lived.unwrap();
    assert_eq!(host.ended().0, "succeeded", "{:?}", host.reports());
}

/// The file `made`, as it is with so many checkpoints.
fn made(host: &Host, checkpoints: usize) -> String {
    let packs: Vec<_> =
        (1..=checkpoints).map(|number| host.result(&format!("checkpoint/{number}")).unwrap()).collect();
    let (last, _) = take_apart(packs.last().unwrap());
    let repo = host.dir.path().join("repo");
    if !repo.exists() {
        fs::create_dir(&repo).unwrap();
        git(&repo, &["init", "--quiet", "--initial-branch=main"]);
    }
    let taken = taken(&repo, host.dir.path(), &packs, &last.head.unwrap());
    fs::read_to_string(taken.join("made")).unwrap_or_default()
}

/// What does not get out is told of once, and ends nothing.
#[tokio::test]
async fn an_orchestrator_that_takes_no_checkpoint_is_told_of_once() {
    let script = format!(
        "init; read line; {}; cat go > /dev/null; {}; cat go > /dev/null; result",
        tool("Write", "1"),
        tool("Write", "2")
    );
    let host = host(&format!("echo x > made; {script}"), |desk| desk.takes_results = false);
    let go = host.workspace().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
    let (lived, ()) = tokio::join!(host.live(), async {
        host.handed("checkpoint/1", 1).await;
        host.reported(|report| matches!(report, Report::Warning { .. })).await;
        tokio::fs::write(&go, "").await.unwrap();
        let (second, _) = take_apart(&host.handed("checkpoint/2", 1).await);
        assert_eq!(second.after, 0, "it builds on nothing that was not taken");
        tokio::fs::write(&go, "").await.unwrap();
    });
    lived.unwrap();
    assert_eq!(host.ended().0, "succeeded");
    let warnings =
        host.reports().into_iter().filter(|report| matches!(report, Report::Warning { .. })).count();
    assert_eq!(warnings, 1);
}

/// What did not come out is tried again, whatever the agent does, and its session does not go ahead of it.
#[tokio::test]
async fn a_checkpoint_that_failed_is_made_again_before_the_session_goes_on() {
    let session = format!("$CLAUDE_CONFIG_DIR/projects/p/{SESSION}.jsonl");
    let script = format!(
        "init; read line; echo x > made; {}; cat go > /dev/null; mkdir -p $CLAUDE_CONFIG_DIR/projects/p; echo line > {session}; cat go > /dev/null; result",
        tool("Write", "1")
    );
    let mut host = host(&script, |desk| {
        desk.takes_results = false;
        desk.order.session_id = SESSION.to_owned();
    });
    host.pace.every = Duration::from_millis(20);
    let go = host.workspace().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
    let (lived, ()) = tokio::join!(host.live(), async {
        let handed = async |name: &str| {
            let handed = tokio::time::timeout(MOST, host.handed(name, 1)).await;
            take_apart(&handed.expect("it is tried again")).0
        };
        assert_eq!(handed("checkpoint/1").await.files, 1);
        // Only now there is a session, which does not go ahead of that.
        tokio::fs::write(&go, "").await.unwrap();
        assert_eq!(handed("checkpoint/4").await.files, 1);
        assert_eq!(host.result("checkpoint/transcript"), None);
        tokio::fs::write(&go, "").await.unwrap();
    });
    lived.unwrap();
}

/// Work that is withheld does not hold up the session.
#[tokio::test]
async fn the_session_goes_on_beside_work_that_is_withheld() {
    let session = format!("$CLAUDE_CONFIG_DIR/projects/p/{SESSION}.jsonl");
    let script = format!(
        "init; read line; echo x > made; mkdir -p $CLAUDE_CONFIG_DIR/projects/p; echo line > {session}; {}; cat go > /dev/null; result",
        tool("Write", "1")
    );
    let host = host(&script, |desk| {
        desk.refuses_work = Some(http::StatusCode::UNPROCESSABLE_ENTITY);
        desk.order.session_id = SESSION.to_owned();
    });
    let go = host.workspace().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
    let (lived, ()) = tokio::join!(host.live(), async {
        let handed = tokio::time::timeout(MOST, host.handed("checkpoint/transcript", 1));
        assert_eq!(handed.await.expect("it is sent"), "line\n");
        assert!(host.result("checkpoint/1").is_some());
        host.reported(|report| matches!(report, Report::Warning { .. })).await;
        tokio::fs::write(&go, "").await.unwrap();
    });
    lived.unwrap();
}

/// Where an agent began with a commit, the work order says which.
#[tokio::test]
async fn without_any_tool_nothing_is_looked_at() {
    let host = host("init; read line; result", |desk| {
        desk.order.workspace = Some(OrderedWorkspace { name: ".".to_owned(), base: "0".repeat(40) });
    });
    host.live().await.unwrap();
    let handed = host.desk.results.borrow();
    assert!(!handed.iter().any(|(name, _)| name.starts_with("checkpoint/")), "{handed:?}");
}
