//! How machines end, and what they outlive.

use std::fs;
use std::path::PathBuf;

use mayfly_provider::Provider;
use serde_json::json;

use crate::world::{World, cgroups_of, is_root, is_running};

/// S52: whatever an agent starts, and however it hides it from its parents.
#[tokio::test]
async fn nothing_survives_a_destroy() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    worker.sh("setsid sleep 1000 </dev/null >/dev/null 2>&1 & (setsid sh -c 'trap \"\" TERM HUP; sleep 1000 & sleep 1000' </dev/null >/dev/null 2>&1 &) ; nohup sleep 1000 </dev/null >/dev/null 2>&1 &").await;
    let init = world.state(spec.attempt)["init"]["pid"].as_i64().unwrap();
    let namespace = fs::read_link(format!("/proc/{init}/ns/pid"));
    let inside = || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| {
            fs::read_link(entry.path().join("ns/pid")).is_ok_and(|own| Some(&own) == namespace.as_ref().ok())
        })
        .count()
    };
    if namespace.is_ok() {
        assert!(inside() >= 4, "the processes are there");
    }
    world.destroy(spec.attempt).await;
    assert_eq!(inside(), 0);
    assert_eq!(worker.answer().await, None);
}

/// S51
#[tokio::test]
async fn a_fork_bomb_ends_with_its_machine() {
    let mut world = World::new();
    let mut spec = world.spec();
    spec.limits.pids_max = 64;
    let mut worker = world.boot(&spec).await;
    let said = worker.try_sh("for i in $(seq 200); do sleep 1000 >/dev/null 2>&1 & done 2>&1; echo").await;
    assert!(said["out"].as_str().unwrap().contains("fork"), "{said}");
    world.destroy(spec.attempt).await;
}

#[tokio::test]
async fn a_machine_whose_worker_ended_is_listed_as_dead_until_it_is_destroyed() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    let holder = world.state(spec.attempt)["holder"]["pid"].as_i64().unwrap();
    let holder = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(i32::try_from(holder).unwrap()).unwrap(),
        rustix::process::PidfdFlags::empty(),
    )
    .unwrap();
    assert_eq!(worker.order(&json!({ "exit": 3 })).await, None);
    wait_for_end(&holder);
    let listed = world.sandbox.list().await.unwrap();
    assert_eq!(
        listed.iter().map(|machine| (machine.attempt, machine.alive)).collect::<Vec<_>>(),
        [(spec.attempt, false)]
    );
    world.destroy(spec.attempt).await;
    assert_eq!(world.sandbox.list().await.unwrap(), []);
}

/// Nobody is there to destroy it, and yet the host gets its cgroups back.
#[tokio::test]
async fn the_cgroups_of_a_machine_go_with_it_though_its_orchestrator_is_gone() {
    let had = cgroups_that_went_with_their_machine().await;
    assert!(!had.is_empty() || !is_root());
}

/// Ends a machine without its provider, and gives the cgroups that it had, of which none is left.
pub(crate) async fn cgroups_that_went_with_their_machine() -> Vec<PathBuf> {
    let mut world = World::new();
    let spec = world.spec();
    world.boot(&spec).await;
    let had = cgroups_of(spec.attempt);
    let init = world.state(spec.attempt)["init"]["pid"].as_i64().unwrap();
    let init = rustix::process::Pid::from_raw(i32::try_from(init).unwrap()).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    // The holder's for its life.
    let life = fs::File::open(world.folder(spec.attempt).join("lock")).unwrap();
    rustix::fs::flock(&life, rustix::fs::FlockOperation::LockShared).unwrap();
    assert_eq!(cgroups_of(spec.attempt), Vec::<PathBuf>::new());
    world.destroy(spec.attempt).await;
    had
}

#[tokio::test]
async fn a_machine_ends_with_its_holder() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    worker.sh("setsid sleep 1000 </dev/null >/dev/null 2>&1 &").await;
    let state = world.state(spec.attempt);
    let (holder, init) = (state["holder"]["pid"].as_i64().unwrap(), state["init"]["pid"].as_i64().unwrap());
    assert!(is_running(init));
    let pid = rustix::process::Pid::from_raw(i32::try_from(holder).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // The worker's end of the link closes when the kernel has killed it.
    assert_eq!(worker.answer().await, None);
    world.destroy(spec.attempt).await;
}

/// R03: the one who made a machine is killed without a word; the machine lives, and another finds it.
#[tokio::test]
async fn a_machine_outlives_the_process_that_made_it() {
    let mut world = World::new();
    let spec = world.spec();
    let output = maker(&world, &spec.attempt.to_string(), None);
    assert!(!output.success(), "it was killed");
    let mut worker = world.hello(spec.attempt).await;
    let listed = world.sandbox.list().await.unwrap();
    assert_eq!(
        listed.iter().map(|machine| (machine.attempt, machine.alive)).collect::<Vec<_>>(),
        [(spec.attempt, true)]
    );
    assert_eq!(worker.sh("echo still here").await, "still here");
    world.destroy(spec.attempt).await;
}

/// R02: wherever in the making its maker dies, one `destroy` leaves nothing.
#[tokio::test]
async fn a_maker_that_dies_while_making_leaves_what_can_be_destroyed() {
    let world = World::new();
    for step in 0..12 {
        let attempt = world.spec().attempt;
        assert!(!maker(&world, &attempt.to_string(), Some(step * 500)).success(), "it was killed");
        world.sandbox.destroy(attempt).await.unwrap();
        world.is_gone(attempt, None);
    }
    assert_eq!(world.sandbox.list().await.unwrap(), []);
}

/// A listener that was replaced is seen inside, because its folder is what a machine has.
#[tokio::test]
async fn a_restarted_orchestrator_is_found_by_its_machines() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    let before = worker.sh("stat -c %i /run/mayfly/orchestrator.sock").await;
    fs::rename(world.way_out.join("orchestrator.sock"), world.way_out.join("old.sock")).unwrap();
    let again = std::os::unix::net::UnixListener::bind(world.way_out.join("orchestrator.sock")).unwrap();
    assert_ne!(worker.sh("stat -c %i /run/mayfly/orchestrator.sock").await, before);
    drop(again);
    world.destroy(spec.attempt).await;
}

/// S11, S51: modes, depths and names that get in the way of removing.
#[tokio::test]
async fn whatever_an_agent_wrote_is_removed() {
    let mut world = World::new();
    let mut spec = world.spec();
    spec.workspace = Some(world.bundle("code"));
    let mut worker = world.boot(&spec).await;
    worker.sh("cd /workspace/code && mkdir -p a/b/c && echo x > a/b/c/d && chmod 000 a/b/c && chmod 500 a && rm -r src").await;
    worker.sh("cd ~ && i=0; while [ $i -lt 1500 ]; do mkdir ddddddddddddddd && cd ddddddddddddddd; i=$((i+1)); done").await;
    worker.sh("cd ~ && ln -s / all && ln -s /nowhere gone && mkfifo fifo && touch -- '-rf' \"$(printf 'new\\nline')\"").await;
    world.destroy(spec.attempt).await;
}

#[tokio::test]
async fn the_hosts_mounts_are_the_same_before_and_after() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let mut world = World::new();
    let mut spec = world.spec();
    spec.workspace = Some(world.bundle("code"));
    let mut worker = world.boot(&spec).await;
    assert_eq!(mounts(), before);
    // And nothing of the host's mounts is left inside.
    let inside = worker.sh("cut -d' ' -f5 /proc/self/mountinfo").await;
    assert!(!inside.contains(world.dir.path().to_str().unwrap()), "{inside}");
    world.destroy(spec.attempt).await;
    assert_eq!(mounts(), before);
}

/// Makes a machine from a process of its own, which is killed after so many microseconds, or else when it is made.
fn maker(world: &World, attempt: &str, killed_after_us: Option<u64>) -> std::process::ExitStatus {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.envs(killed_after_us.map(|after| (AFTER_VARIABLE, after.to_string())));
    command
        .args(["--exact", "life::makes_one_and_is_killed", "--ignored"])
        .env(MAKER_VARIABLE, world.dir.path())
        .env(ATTEMPT_VARIABLE, attempt)
        .output()
        .unwrap()
        .status
}

const AFTER_VARIABLE: &str = "MAYFLY_TEST_SANDBOX_KILLED_AFTER";
const MAKER_VARIABLE: &str = "MAYFLY_TEST_SANDBOX_MAKER";
const ATTEMPT_VARIABLE: &str = "MAYFLY_TEST_SANDBOX_ATTEMPT";

#[tokio::test]
#[ignore = "the other half of `a_machine_outlives_the_process_that_made_it`, which runs it"]
async fn makes_one_and_is_killed() {
    let dir = std::env::var_os(MAKER_VARIABLE).expect("run by the other half");
    let sandbox = mayfly_provider_sandbox::Sandbox::new(crate::world::config(dir.as_ref()));
    let spec = mayfly_provider::MachineSpec {
        tools: Vec::new(),
        attempt: std::env::var(ATTEMPT_VARIABLE).unwrap().parse().unwrap(),
        ticket: "none".to_owned().into(),
        workspace: None,
        way_out: crate::world::way_out(dir.as_ref()),
        limits: mayfly_provider::Limits::default(),
    };
    let die =
        || rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    if let Ok(after) = std::env::var(AFTER_VARIABLE) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_micros(after.parse().unwrap());
        std::thread::spawn(move || {
            while std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
            die();
        });
    }
    sandbox.create(&spec).await.unwrap();
    die();
}

fn wait_for_end(process: &rustix::fd::OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    assert_eq!(poll(&mut [PollFd::new(process, PollFlags::IN)], None).unwrap(), 1);
}
