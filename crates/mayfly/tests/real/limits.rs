//! What a machine may use: who takes more ends with a reason of its own, and nobody beside him notices.

use serde_json::json;

use super::world::{Ended, World};

/// What a machine's files may take here.
const DISK_BYTES_MAX: u64 = 64 << 20;

/// Writes a file, and then runs a command that does not come back.
fn then(file: &str, command: &str) -> String {
    let steps = json!([
        {"tools": [{"name": "Write", "input": {"file_path": format!("{{cwd}}/{file}"), "content": "kept\n"}}]},
        {"tools": [{"name": "Bash", "input": {"command": command, "description": "take too much"}}]},
    ]);
    format!("[script: steps list={steps}]")
}

/// Eight megabytes more, again and again.
fn fill(file: &str) -> String {
    format!("while :; do head -c 8M /dev/zero >> {file}; sleep 0.1; done")
}

fn assert_disk_limit(ended: &Ended) {
    let (outcome, detail) = ended.outcome();
    assert_eq!((ended.code, outcome), (Some(1), "disk-limit"), "{detail}: {}", ended.stderr);
    let bytes = detail.strip_prefix("its files take ").and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(bytes.parse::<u64>().unwrap() > DISK_BYTES_MAX, "{detail}");
    assert!(detail.ends_with(&format!(" bytes, and {DISK_BYTES_MAX} are the most")), "{detail}");
}

/// S51, G11: wherever on the disk its files are, and what it had done comes back.
#[tokio::test(flavor = "multi_thread")]
async fn what_fills_the_disk_is_ended_and_its_work_comes_back() {
    let Some(world) = World::start(|rules| rules.limits.disk_bytes_max = DISK_BYTES_MAX).await else {
        return;
    };
    for (number, file) in ["$HOME/fill", "fill", ".git/fill"].into_iter().enumerate() {
        let kept = format!("kept{number}.txt");
        let ended = world.outcome_of(&[&then(&kept, &fill(file))]).await;
        assert_disk_limit(&ended);
        let branch = world
            .branches()
            .into_iter()
            .find(|branch| world.git(&["ls-tree", "--name-only", branch]).lines().any(|name| name == kept));
        assert_eq!(world.git(&["show", &format!("{}:{kept}", branch.unwrap())]), "kept");
    }
    world.end().await;
}

/// S51: all of them at once, beside two that do nothing wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_a_memory_hog_and_a_disk_filler_harm_none_but_themselves() {
    let started = World::start(|rules| {
        rules.limits.pids_max = 96;
        rules.limits.memory_bytes_max = 768 << 20;
        rules.limits.disk_bytes_max = DISK_BYTES_MAX;
    });
    let Some(world) = started.await else { return };
    let neighbours = ["one.txt", "two.txt"].map(|file| {
        let steps = json!([
            {"tools": [{"name": "Write", "input": {"file_path": format!("{{cwd}}/{file}"), "content": "made\n"}}]},
            {"text": "done", "hold": "neighbours"},
        ]);
        world.run(&[&format!("[script: steps list={steps}]")])
    });
    world.api.held("neighbours", 2).await;
    // Most often `claude` dies of the want of a thread, and else here.
    let bomb = "sh -c 'for i in $(seq 200); do sleep 1000 >/dev/null 2>&1 & done'; kill -ABRT $PPID";
    // In no process's memory but the machine's: `claude` is the largest that is left to kill.
    let hog = "head -c 1G /dev/zero > /tmp/fill; head -c 1G /dev/zero > /dev/shm/fill; tail -f /dev/null";
    let bad = [bomb, hog, &fill("$HOME/fill")].map(|command| world.run(&[&then("kept.txt", command)]));
    let [bomb, hog, filler] = bad;
    let (bomb, hog, filler) = tokio::join!(bomb.end(), hog.end(), filler.end());
    let unlimited = ["memory limit", "no process"];
    let warned = |ended: &Ended| {
        ended.own("warning").any(|warning| {
            let text = warning["text"].as_str().unwrap();
            unlimited.iter().any(|limit| text.contains(limit))
        })
    };
    if warned(&bomb) {
        mayfly_test_needs::skip("neither memory nor processes can be limited here");
    } else {
        assert_eq!(bomb.outcome().0, "process-limit", "{}: {}", bomb.outcome().1, bomb.stderr);
        assert!(bomb.outcome().1.ends_with("the machine reached its limit of 96 processes and threads"));
        assert_eq!(hog.outcome().0, "out-of-memory", "{}: {}", hog.outcome().1, hog.stderr);
    }
    assert_disk_limit(&filler);
    world.api.release("neighbours");
    for run in neighbours {
        let ended = run.end().await;
        assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
        assert_eq!(ended.own("started").count(), 1);
    }
    // Five pieces of work, of those who did wrong too.
    assert_eq!(world.branches().len(), 5);
    world.end().await;
}
