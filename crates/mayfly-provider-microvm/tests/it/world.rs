//! A host folder with a provider in it, and the door that its guests come to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mayfly_core::AttemptId;
use mayfly_holder::Lock;
use mayfly_provider::conformance::Stage;
use mayfly_provider::{Limits, MachineSpec, Provider as _};
use mayfly_provider_microvm::{Microvm, MicrovmConfig, Vmm};
use mayfly_wire::system::{FILES, KERNEL_ELF, LIST, System};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::net::UnixListener;

/// What every test's ticket is: a text to be looked for.
pub(crate) const TICKET: &str = "canary-4f1c";

pub(crate) struct World {
    pub(crate) config: MicrovmConfig,
    pub(crate) microvm: Microvm,
    /// Its machines' door.
    pub(crate) door: UnixListener,
    pub(crate) dir: TempDir,
}

impl World {
    /// None where there is no guest: the test is skipped.
    pub(crate) fn new() -> Option<Self> {
        let Some(guest) = std::env::var_os("MAYFLY_TEST_MICROVM").map(PathBuf::from) else {
            mayfly_test_needs::skip(
                "MAYFLY_TEST_MICROVM names no folder with a guest (scripts/test makes one)",
            );
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), &guest);
        Some(Self::of(dir, config))
    }

    /// One of stand-ins: Firecracker, and a guest whose kernel is this text.
    pub(crate) fn of_stand_ins(kernel: &str, vmm: Vmm) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (programs, system) = (dir.path().join("programs"), dir.path().join("system"));
        for folder in [&programs, &system] {
            fs::create_dir(folder).unwrap();
        }
        let fake = env!("CARGO_BIN_EXE_mayfly-fake-firecracker");
        std::os::unix::fs::symlink(fake, programs.join("firecracker")).unwrap();
        let mut files = BTreeMap::new();
        for name in FILES {
            let content = if name == KERNEL_ELF { kernel } else { name };
            fs::write(system.join(name), content).unwrap();
            files.insert(name.to_owned(), hex::encode(Sha256::digest(content)));
        }
        let (key, image, kernel) = (String::new(), String::new(), String::new());
        let list = System { key, image, kernel, files };
        fs::write(system.join(LIST), serde_json::to_vec(&list).unwrap()).unwrap();
        let config = MicrovmConfig { path: programs.into(), system, vmm, ..config(dir.path(), dir.path()) };
        Self::of(dir, config)
    }

    fn of(dir: TempDir, config: MicrovmConfig) -> Self {
        fs::create_dir(dir.path().join("way-out")).unwrap();
        let door = UnixListener::bind(dir.path().join("way-out/orchestrator.sock")).unwrap();
        Self { microvm: Microvm::new(config.clone()), config, door, dir }
    }

    pub(crate) fn spec(&self, attempt: AttemptId) -> MachineSpec {
        MachineSpec {
            tools: Vec::new(),
            attempt,
            ticket: TICKET.to_owned().into(),
            workspace: None,
            way_out: self.dir.path().join("way-out"),
            limits: Limits { memory_bytes_max: 512 << 20, ..Limits::default() },
        }
    }

    /// What every provider must do is done by providers like its own.
    pub(crate) fn stage(&self) -> Stage {
        let (config, way_out) = (self.config.clone(), self.dir.path().join("way-out"));
        Stage {
            open: Box::new(move || Arc::new(Microvm::new(config.clone()))),
            spec: Box::new(move |attempt| MachineSpec {
                tools: Vec::new(),
                attempt,
                ticket: "none".to_owned().into(),
                workspace: None,
                way_out: way_out.clone(),
                limits: Limits { memory_bytes_max: 256 << 20, ..Limits::default() },
            }),
        }
    }

    pub(crate) fn state(&self, attempt: AttemptId) -> Value {
        let folder = self.config.machines.join(attempt.to_string());
        serde_json::from_slice(&fs::read(folder.join("state.json")).unwrap()).unwrap()
    }

    /// What its holder has started.
    pub(crate) fn processes(&self, attempt: AttemptId) -> Vec<i64> {
        let state = self.state(attempt);
        state["processes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|process| process["pid"].as_i64().unwrap())
            .collect()
    }

    /// Waits until its holder is gone: a killed one may have had the lock of the making too.
    pub(crate) async fn end_of(&self, attempt: AttemptId) {
        let (machines, name) = (&self.config.machines, attempt.to_string());
        for lock in [machines.join(&name).join("lock"), machines.join(".making").join(&name)] {
            tokio::task::spawn_blocking(move || drop(Lock::acquire(&lock).unwrap())).await.unwrap();
        }
    }

    /// Whether nothing at all is left of any machine: neither a folder nor a process that works in one.
    pub(crate) fn is_empty(&self) -> bool {
        let machines = fs::read_dir(&self.config.machines).into_iter().flatten();
        let left = machines.flatten().filter(|entry| entry.file_name() != ".making").count();
        left == 0 && processes_in(&self.config.machines).is_empty()
    }
}

/// What a failed test leaves would outlive it: that is what machines do.
impl Drop for World {
    fn drop(&mut self) {
        let microvm = Microvm::new(self.config.clone());
        let clear = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for machine in microvm.list().await.unwrap() {
                    microvm.destroy(machine.attempt).await.unwrap();
                }
            });
        };
        let _ = std::thread::spawn(clear).join();
    }
}

fn config(dir: &Path, guest: &Path) -> MicrovmConfig {
    MicrovmConfig {
        machines: dir.join("machines"),
        mayfly: env!("CARGO_BIN_EXE_mayfly-microvm-stub").into(),
        path: std::env::join_paths([guest, Path::new("/usr/bin"), Path::new("/usr/sbin")]).unwrap(),
        system: guest.join("system"),
        vmm: Vmm::Qemu,
        // A busy machine emulates slowly; who hangs is found all the same.
        boot_max: Duration::from_secs(180),
    }
}

/// A system in `folder` like the one that is there, but for one file, of which it is said that it is right.
pub(crate) fn system_with(config: &MicrovmConfig, folder: &Path, name: &str, content: &str) -> PathBuf {
    let system = folder.join("system");
    fs::create_dir(&system).unwrap();
    for file in FILES {
        std::os::unix::fs::symlink(config.system.join(file), system.join(file)).unwrap();
    }
    fs::remove_file(system.join(name)).unwrap();
    fs::write(system.join(name), content).unwrap();
    let mut list: System = serde_json::from_slice(&fs::read(config.system.join(LIST)).unwrap()).unwrap();
    list.files.insert(name.to_owned(), hex::encode(Sha256::digest(content)));
    fs::write(system.join(LIST), serde_json::to_vec(&list).unwrap()).unwrap();
    system
}

/// The processes whose working folder is `folder`, or below it.
pub(crate) fn processes_in(folder: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let works_there =
        |process: &PathBuf| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    processes.filter(works_there).collect()
}

pub(crate) fn kill(pid: i64) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
}

pub(crate) fn attempt(number: u32) -> AttemptId {
    format!("00000000-0000-7000-9000-00000000000a.{number}").parse().unwrap()
}
