//! What a machine may use, where this host has cgroups to say so.

use mayfly_provider::Provider;
use serde_json::Value;

use crate::world::{World, cgroups_of, is_root};

/// S51: what takes too much dies alone, and the count that the boot names tells of it.
#[tokio::test]
async fn a_memory_hog_is_killed_inside_its_own_limit() {
    let mut world = World::new();
    let mut spec = world.spec();
    spec.limits.memory_bytes_max = 256 << 20;
    let machine = world.sandbox.create(&spec).await.unwrap();
    let mut worker = world.hello(spec.attempt).await;
    if let Some(note) = machine.notes.iter().find(|note| note.contains("memory")) {
        assert!(!is_root(), "root has cgroups here: {note}");
        assert_eq!(worker.hello["boot"]["memory_events"], Value::Null);
        world.destroy(spec.attempt).await;
        mayfly_test_needs::skip("memory cannot be limited here");
        return;
    }
    let events = worker.hello["boot"]["memory_events"].as_str().unwrap().to_owned();
    let kills = format!("grep -w oom_kill {events}");
    assert_eq!(worker.sh(&kills).await, "oom_kill 0");
    let hog = worker.try_sh("dd if=/dev/zero of=/dev/null bs=1G count=1 2>/dev/null; echo $?").await;
    assert_eq!(hog["out"].as_str().unwrap().trim(), "137", "{hog}");
    assert_eq!(worker.sh(&kills).await, "oom_kill 1");
    assert_ne!(worker.try_sh(&format!("echo 0 > {events}")).await["code"], 0);
    world.destroy(spec.attempt).await;
}

/// S51: what is refused for the limit of processes is counted where the boot says.
#[tokio::test]
async fn a_fork_bomb_is_counted_by_its_own_limit() {
    let mut world = World::new();
    let mut spec = world.spec();
    spec.limits.pids_max = 64;
    let mut worker = world.boot(&spec).await;
    let limit = worker.hello["boot"]["processes"].clone();
    if limit.is_null() {
        assert!(!is_root(), "root has cgroups here");
        world.destroy(spec.attempt).await;
        mayfly_test_needs::skip("processes cannot be counted here");
        return;
    }
    assert_eq!(limit["max"], 64);
    // The shell's own words, since nothing can be started any more.
    let count = format!("read word count < {}; echo $word $count", limit["events"].as_str().unwrap());
    assert_eq!(worker.sh(&count).await, "max 0");
    let bomb = "(for i in $(seq 200); do sleep 1000 >/dev/null 2>&1 & done) 2>/dev/null";
    assert_eq!(worker.sh(&format!("{bomb}; {count}")).await, "max 1");
    world.destroy(spec.attempt).await;
}

/// Every place on the disk that an agent can write to is among those that the boot names, and none in memory.
#[tokio::test]
async fn the_boot_names_where_the_machines_files_take_room() {
    for with_code in [true, false] {
        let mut world = World::new();
        let mut spec = world.spec();
        spec.limits.disk_bytes_max = 7 << 20;
        spec.workspace = with_code.then(|| world.bundle("code"));
        let mut worker = world.boot(&spec).await;
        let disk = worker.hello["boot"]["disk"].clone();
        assert_eq!(disk["max"], 7 << 20);
        let folders = disk["folders"].as_array().unwrap().iter().map(|folder| folder.as_str().unwrap());
        let folders = folders.collect::<Vec<_>>().join(" ");
        let code = if with_code { "/workspace/code" } else { "/workspace" };
        let megabytes = format!("du -sm -c {folders} | tail -n 1 | cut -f 1");
        let before: u64 = worker.sh(&megabytes).await.parse().unwrap();
        assert!(before < 2, "the code itself does not count: {before}");
        for place in ["/home/agent", code] {
            worker.sh(&format!("head -c 3M /dev/zero > {place}/fill")).await;
        }
        let after: u64 = worker.sh(&megabytes).await.parse().unwrap();
        assert!((6..=8).contains(&after), "{after}");
        if with_code {
            assert_ne!(worker.try_sh("echo x > /opt/mayfly/changes/fill").await["code"], 0);
            assert_ne!(worker.try_sh("rm /opt/mayfly/changes/fill").await["code"], 0);
        }
        world.destroy(spec.attempt).await;
    }
}

#[tokio::test]
async fn as_root_every_limit_is_had_and_its_cgroups_are_gone_afterwards() {
    if !is_root() {
        mayfly_test_needs::skip("only root can do this");
        return;
    }
    let mut world = World::new();
    let mut spec = world.spec();
    spec.limits.cpus_max = 0.5;
    let machine = world.sandbox.create(&spec).await.unwrap();
    assert_eq!(machine.notes, [""; 0]);
    let mut worker = world.hello(spec.attempt).await;
    let cgroups = cgroups_of(spec.attempt);
    assert!(!cgroups.is_empty());
    // Inside, the machine's own cgroup is all there is.
    let seen = worker.sh("cat /proc/self/cgroup").await;
    assert!(!seen.contains("mayfly-"), "{seen}");
    world.destroy(spec.attempt).await;
}

/// S51
#[tokio::test]
async fn the_folders_in_memory_are_bounded() {
    let mut world = World::new();
    let mut spec = world.spec();
    spec.limits.memory_bytes_max = 64 << 20;
    let mut worker = world.boot(&spec).await;
    for folder in ["/tmp", "/dev/shm"] {
        let answer = worker.try_sh(&format!("head -c 40M /dev/zero > {folder}/big; rm {folder}/big")).await;
        assert!(answer["err"].as_str().unwrap().contains("No space left"), "{answer}");
    }
    world.destroy(spec.attempt).await;
}
