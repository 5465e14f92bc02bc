//! What an agent cannot do or see.

use std::fs;

use mayfly_provider::Provider;
use mayfly_provider_sandbox::AGENT_HOST_ID;
use serde_json::json;

use crate::world::{TICKET, World, is_root};

/// S53
#[tokio::test]
async fn every_forbidden_system_call_is_denied() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    let outcomes = worker.order(&json!({ "calls": null })).await.unwrap();
    let outcomes = outcomes.as_object().unwrap();
    assert!(outcomes.len() > 40);
    for (call, outcome) in outcomes {
        let expected = if call == "clone3" { "ENOSYS" } else { "EPERM" };
        assert_eq!(outcome, expected, "{call}");
    }
    world.destroy(spec.attempt).await;
}

/// S53
#[tokio::test]
async fn the_kernels_settings_and_the_system_cannot_be_written() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/1/uid_map",
        "/sys/fs/cgroup/cgroup.procs",
        "/usr/x",
        "/etc/passwd",
        "/etc/x",
        "/x",
        "/run/x",
        "/run/mayfly/x",
        "/opt/x",
        "/opt/mayfly/mayfly",
        "/opt/claude/claude",
        "/dev/x",
        "/proc/x",
        "/bin/x",
        "/lib/x",
    ] {
        let answer = worker.try_sh(&format!("echo x > {path}")).await;
        assert_ne!(answer["code"], 0, "{path} was written");
    }
    world.destroy(spec.attempt).await;
}

/// S53: no capability is left, nor to be had again.
#[tokio::test]
async fn the_agent_has_no_capability_and_no_way_to_one() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    let status = worker.sh("cat /proc/self/status").await;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
    assert_eq!(field("Uid"), "1000\t1000\t1000\t1000");
    if is_root() {
        assert_eq!(field("Groups"), "");
    }
    // A program with the setuid bit gives nothing, even where there is one.
    assert_eq!(
        worker.sh("test -u /usr/bin/su && su -c id root </dev/null 2>&1 || echo no").await.lines().last(),
        Some("no")
    );
    world.destroy(spec.attempt).await;
}

/// S54
#[tokio::test]
async fn the_worker_has_only_its_streams() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    // 3 is the folder that lists them.
    assert_eq!(worker.hello["started"]["fds"], json!(["0", "1", "2", "3"]));
    assert_eq!(worker.hello["started"]["cwd"], "/");
    assert_eq!(worker.sh("cd /proc/1/cwd && pwd -P").await, "/");
    world.destroy(spec.attempt).await;
}

/// S14: the ticket is in no environment, argument or file.
#[tokio::test]
async fn the_environment_is_built_from_nothing_and_the_ticket_is_nowhere() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    let started = &worker.hello["started"];
    let mut names: Vec<_> =
        started["env"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "PATH"]);
    assert_eq!(started["args"], json!(["/opt/mayfly/mayfly", "worker"]));
    assert_eq!(worker.hello["boot"]["ticket"], TICKET);
    let search = format!(
        "grep -rsl {TICKET} /etc /run /tmp /home /workspace /dev/shm /proc/1/environ /proc/1/cmdline"
    );
    assert_eq!(worker.try_sh(&search).await["out"], "");
    let on_disk = std::process::Command::new("grep")
        .args(["-rsl", TICKET])
        .arg(world.folder(spec.attempt))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(on_disk.stdout).unwrap(), "");
    world.destroy(spec.attempt).await;
}

/// S55
#[tokio::test]
async fn the_hosts_homes_and_sockets_are_absent() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    assert_eq!(worker.sh("ls /home").await, "agent");
    assert_eq!(
        worker.sh("ls -A /home/agent /tmp /workspace /var/tmp/ /dev/shm | grep -v :").await.trim(),
        ""
    );
    assert_eq!(worker.sh("ls /run").await, "mayfly");
    assert_eq!(worker.sh("ls /run/mayfly").await, "orchestrator.sock");
    for path in ["/root", "/sys", "/mnt", "/media", "/srv", "/boot", "/var/run", "/var/lib", "/tmp/.X11-unix"]
    {
        assert_ne!(worker.try_sh(&format!("test -e {path}")).await["code"], 0, "{path}");
    }
    let sockets = worker
        .sh("find / -xdev -type s 2>/dev/null; find /run /tmp /dev /home /workspace -type s 2>/dev/null")
        .await;
    assert_eq!(sockets, "/run/mayfly/orchestrator.sock");
    world.destroy(spec.attempt).await;
}

/// S40: the way out of one machine is not to be seen in another.
#[tokio::test]
async fn each_machine_sees_its_own_way_out_alone() {
    let mut world = World::new();
    for name in ["one", "two"] {
        let mut spec = world.spec();
        spec.way_out = world.dir.path().join(name);
        fs::create_dir(&spec.way_out).unwrap();
        fs::set_permissions(&spec.way_out, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        fs::write(spec.way_out.join(name), "").unwrap();
        // The same listener, so that this test hears both.
        let socket = "orchestrator.sock";
        fs::hard_link(world.way_out.join(socket), spec.way_out.join(socket)).unwrap();
        let mut worker = world.boot(&spec).await;
        let seen = worker.sh("cd /run/mayfly; for name in one two orchestrator.sock; do test -e $name && echo $name; done; touch x 2>&1 | grep -o Read-only").await;
        assert_eq!(seen, format!("{name}\norchestrator.sock\nRead-only"));
        world.destroy(spec.attempt).await;
        fs::remove_dir_all(&spec.way_out).expect("nothing holds it");
    }
}

/// S18, S24: there is no network but the loopback.
#[tokio::test]
async fn there_is_no_network_but_the_loopback() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    let interfaces = worker.sh("tail -n +3 /proc/net/dev | cut -d: -f1").await;
    assert_eq!(interfaces.split_whitespace().collect::<Vec<_>>(), ["lo"]);
    assert_eq!(worker.sh("tail -n +2 /proc/net/route").await, "");
    // It is up: nobody listens, which is another answer than an unreachable network.
    let to = |address: &str| format!("bash -c 'exec 3<>/dev/tcp/{address}/9' 2>&1");
    let refused = worker.try_sh(&to("127.0.0.1")).await;
    assert!(refused["out"].as_str().unwrap().contains("refused"), "{refused}");
    for outside in ["169.254.169.254", "192.0.2.1"] {
        let answer = worker.try_sh(&to(outside)).await;
        assert!(answer["out"].as_str().unwrap().contains("unreachable"), "{answer}");
    }
    world.destroy(spec.attempt).await;
}

#[tokio::test]
async fn other_machines_are_invisible() {
    let mut world = World::new();
    let (one, two) = (world.spec(), world.spec());
    let mut first = world.boot(&one).await;
    let mut second = world.boot(&two).await;
    first.sh("echo mine-7b > /workspace/file; echo mine-7b > /tmp/file; echo mine-7b > ~/file; echo mine-7b > /dev/shm/file").await;
    let found = second.try_sh("grep -rsl mine-7b /workspace /tmp /home /dev/shm /run /opt /etc").await;
    assert_eq!(found["out"], "");
    let processes =
        second.sh("ls /proc | grep '^[0-9]' | sort -n | head -1; cat /proc/1/cmdline | tr '\\0' ' '").await;
    assert_eq!(processes, "1\n/opt/mayfly/mayfly worker");
    world.destroy(one.attempt).await;
    world.destroy(two.attempt).await;
}

/// The agent is nobody on this host: neither root, nor anyone who owns something.
#[tokio::test]
async fn the_agent_is_not_root_on_the_host() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    worker.sh("touch /workspace/file").await;
    let init = world.state(spec.attempt)["init"]["pid"].as_i64().unwrap();
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    let uid: u32 = uid.split('\t').next().unwrap().parse().unwrap();
    assert_ne!(uid, 0);
    assert_eq!(uid == AGENT_HOST_ID, is_root());
    let file = fs::metadata(world.folder(spec.attempt).join("workspace/file")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), uid);
    world.destroy(spec.attempt).await;
}

/// What an agent needs every day works all the same.
#[tokio::test]
async fn ordinary_work_is_possible() {
    let mut world = World::new();
    let spec = world.spec();
    let mut worker = world.boot(&spec).await;
    assert_eq!(worker.sh("whoami; id -g; hostname; echo $HOME").await, "agent\n1000\nmayfly\n/home/agent");
    worker
        .sh("mkdir -p ~/a/b /tmp/c && mv ~/a/b ~/d && echo x > ~/d/f && ln ~/d/f ~/d/g && ln -s f ~/d/h")
        .await;
    worker.sh("printf '#!/bin/sh\necho ran\n' > /workspace/p && chmod +x /workspace/p && /workspace/p").await;
    worker.sh("echo x | tee /dev/null /dev/stderr > /dev/stdout; head -c 4 /dev/urandom > /tmp/r").await;
    worker.sh("bash -c 'cat <(echo from a pipe)'; echo 'echo hi' | bash /dev/stdin").await;
    worker.sh("sleep 100 & kill $!; ls /proc/self/task; nproc; date").await;
    assert_eq!(worker.sh("script -qc 'tty' /dev/null </dev/null").await, "/dev/pts/0");
    assert_eq!(worker.sh("stat -c %a /tmp /home/agent").await, "1777\n755");
    world.destroy(spec.attempt).await;
}

/// S59
#[tokio::test]
async fn a_missing_part_is_refused_with_its_cause_and_nothing_is_left() {
    let world = World::new();
    let mut config = world.config.clone();
    config.claude = world.dir.path().join("no-such-cli");
    let sandbox = mayfly_provider_sandbox::Sandbox::new(config);
    let spec = world.spec();
    let error = sandbox.create(&spec).await.unwrap_err();
    assert!(error.to_string().contains("cannot find the CLI at "), "{error}");
    assert!(matches!(error, mayfly_provider::ProviderError::Refused { .. }));
    world.is_gone(spec.attempt, None);
    let mut config = world.config.clone();
    config.mayfly = script(&world, "exit 1");
    let sandbox = mayfly_provider_sandbox::Sandbox::new(config);
    let error = sandbox.create(&spec).await.unwrap_err();
    assert!(error.to_string().contains("its binary may not be ours"), "{error}");
    world.is_gone(spec.attempt, None);
    for (way_out, words) in [("no-such-folder", "cannot find the way out at "), ("script", "is no folder")] {
        let mut spec = world.spec();
        spec.way_out = world.dir.path().join(way_out);
        let error = world.sandbox.create(&spec).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        world.is_gone(spec.attempt, None);
    }
}

/// What this host lacks for the moment is no refusal: with more of it, the same machine is made.
#[tokio::test]
async fn a_want_that_may_pass_is_to_be_asked_for_again() {
    let mut world = World::new();
    let spec = world.spec();
    let mut config = world.config.clone();
    config.mayfly = script(&world, &format!("ulimit -n 7; exec {} \"$@\"", crate::world::stub().display()));
    let error = mayfly_provider_sandbox::Sandbox::new(config).create(&spec).await.unwrap_err();
    let said = mayfly_core::causes(&error);
    assert!(matches!(error, mayfly_provider::ProviderError::Unclear { .. }), "{said}");
    assert!(
        said.starts_with("no clear answer to `create`: cannot make a pair of sockets: Too many"),
        "{said}"
    );
    world.is_gone(spec.attempt, None);
    world.boot(&spec).await;
    world.destroy(spec.attempt).await;
}

/// S59
#[tokio::test]
async fn a_probe_finds_a_binary_that_runs_on_this_host_and_not_in_a_machine() {
    let world = World::new();
    let mut config = world.config.clone();
    // The stub itself is not seen inside.
    config.mayfly = script(&world, &format!("exec {} \"$@\"", crate::world::stub().display()));
    let sandbox = mayfly_provider_sandbox::Sandbox::new(config);
    let error = sandbox.probe().await.unwrap_err();
    assert!(error.to_string().contains("does not run in a machine"), "{error}");
    assert_eq!(sandbox.list().await.unwrap(), []);
}

fn script(world: &World, text: &str) -> std::path::PathBuf {
    let path = world.dir.path().join("script");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}
