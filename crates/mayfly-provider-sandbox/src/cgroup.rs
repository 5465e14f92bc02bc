//! Limits of memory, processes and processors, by cgroups of either version.
//!
//! A machine's cgroups are made right below the ones that we are in ourselves, named after the attempt:
//! whatever encloses us goes on enclosing its machines. Version 1 has a tree for each controller; version 2 has
//! one tree, whose controllers must have been delegated to us, and which is used without any as well, because
//! it can kill everything in it at once. A limit that cannot be had becomes a sentence for the owner.
//!
//! The paths are written down before anything is made, so that they can be removed after any crash.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_provider::Limits;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// How long the kernel may take to let go of a cgroup whose processes are dead, and how often we look: version 1
/// has no event for it.
const EMPTY_WAITS_MAX: u32 = 200;
const EMPTY_WAIT: Duration = Duration::from_millis(10);

/// The period over which the processors' quota is counted, in microseconds: the kernel's default.
const CPU_PERIOD_US: u32 = 100_000;

/// The cgroups of one machine, made or about to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Cgroups {
    groups: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    path: PathBuf,
    /// What is written into which file, and which limit that is.
    files: Vec<(String, String, Option<Limit>)>,
}

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Limit {
    Memory,
    Processes,
    Processors,
}

impl Limit {
    const ALL: [Self; 3] = [Self::Memory, Self::Processes, Self::Processors];

    /// The controller's name, the same in both versions.
    const fn controller(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
            Self::Processors => "cpu",
        }
    }

    const fn shown(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "process (other than its own RLIMIT_NPROC)",
            Self::Processors => "processor",
        }
    }
}

impl Cgroups {
    /// Where the cgroups of the machine `name` are to be. Makes nothing.
    pub(crate) fn plan(name: &str, limits: &Limits) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        plan_below(&Positions::read(&own, &mounts), name, limits)
    }

    /// Makes the cgroups and sets their limits.
    pub(crate) fn make(&self) -> Made<'_> {
        let mut missing: BTreeMap<Limit, String> =
            Limit::ALL.map(|limit| (limit, "no such cgroup controller is given to us".to_owned())).into();
        let mut groups = Vec::new();
        for group in &self.groups {
            match group.make(&mut missing) {
                Ok(()) => groups.push(group),
                Err(error) => group.blame(&mut missing, &error),
            }
        }
        Made { groups, missing }
    }

    /// Kills whatever is in them, as far as the kernel offers that for a whole cgroup.
    pub(crate) fn kill(&self) {
        for group in &self.groups {
            // Version 1 has no such file, and what is gone needs no killing.
            let _ = fs::write(group.path.join("cgroup.kill"), "1");
        }
    }

    /// Removes them. Their processes must be dead or dying.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.groups.iter().try_for_each(|group| remove_when_empty(&group.path))
    }

    /// Whether any of them exists.
    #[cfg(test)]
    fn exist(&self) -> bool {
        self.groups.iter().any(|group| group.path.exists())
    }
}

/// Files of this host with the kernel's counts, each there if the limit is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Events {
    /// With a line `oom_kill N`.
    pub(crate) memory: Option<PathBuf>,
    /// With a line `max N`.
    pub(crate) processes: Option<PathBuf>,
}

/// The cgroups that could be made, with nothing in them yet.
#[derive(Debug)]
pub(crate) struct Made<'a> {
    groups: Vec<&'a Group>,
    missing: BTreeMap<Limit, String>,
}

impl Made<'_> {
    /// Where the kernel counts what it does for the limits that are had.
    pub(crate) fn events(&self) -> Events {
        Events {
            memory: self.file_of(Limit::Memory, &["memory.events", "memory.oom_control"]),
            processes: self.file_of(Limit::Processes, &["pids.events"]),
        }
    }

    fn file_of(&self, limit: Limit, names: &[&str]) -> Option<PathBuf> {
        let limiting =
            self.groups.iter().filter(|group| group.limits(limit) && !self.missing.contains_key(&limit));
        let mut files = limiting.flat_map(|group| names.iter().map(|name| group.path.join(name)));
        files.find(|file| file.exists())
    }

    /// Puts `pid` into them, which takes the kernel a while. Gives a sentence for each limit that cannot be had
    /// here; an `ordinary` user is told how to be given more.
    pub(crate) fn enclose(mut self, pid: Pid, ordinary: bool) -> Vec<String> {
        for group in &self.groups {
            if let Err(error) = fs::write(group.path.join("cgroup.procs"), pid.as_raw_nonzero().to_string()) {
                group.blame(&mut self.missing, &error);
            }
        }
        notes(&self.missing, ordinary)
    }
}

impl Group {
    fn make(&self, missing: &mut BTreeMap<Limit, String>) -> io::Result<()> {
        match fs::create_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for (file, value, limit) in &self.files {
            let written = fs::write(self.path.join(file), value);
            match (limit, written) {
                (Some(limit), Ok(())) => drop(missing.remove(limit)),
                (Some(limit), Err(error)) => drop(missing.insert(*limit, format!("{file}: {error}"))),
                (None, _) => {}
            }
        }
        Ok(())
    }

    fn limits(&self, what: Limit) -> bool {
        self.files.iter().any(|(_, _, limit)| *limit == Some(what))
    }

    fn blame(&self, missing: &mut BTreeMap<Limit, String>, why: &io::Error) {
        for (_, _, limit) in &self.files {
            if let Some(limit) = limit {
                missing.insert(*limit, format!("{}: {why}", self.path.display()));
            }
        }
    }
}

/// One sentence for the limits that are missing for the same reason.
fn notes(missing: &BTreeMap<Limit, String>, ordinary: bool) -> Vec<String> {
    let mut by_cause: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (limit, why) in missing {
        by_cause.entry(why).or_default().push(limit.shown());
    }
    by_cause
        .into_iter()
        .map(|(why, limits)| {
            let fix = if ordinary {
                "; run mayfly as root, or where cgroups are delegated to you, to have it"
            } else {
                ""
            };
            format!("no {} limit: {why}{fix}", limits.join(", no "))
        })
        .collect()
}

fn remove_when_empty(path: &Path) -> io::Result<()> {
    for _ in 0..EMPTY_WAITS_MAX {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(EMPTY_WAIT),
            done => return done,
        }
    }
    fs::remove_dir(path)
}

/// The cgroups that we are in ourselves, as folders.
#[derive(Debug, Default, PartialEq, Eq)]
struct Positions {
    /// By controller.
    v1: BTreeMap<String, PathBuf>,
    v2: Option<PathBuf>,
}

impl Positions {
    /// From the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    fn read(own: &str, mounts: &str) -> Self {
        let mut positions = Self::default();
        for line in mounts.lines() {
            let Some(mount) = Mount::read(line) else { continue };
            for (controllers, path) in own.lines().filter_map(membership) {
                match mount.fstype {
                    "cgroup2" if controllers.is_empty() => positions.v2 = mount.folder_of(path),
                    "cgroup" => controllers.split(',').filter(|name| mount.has(name)).for_each(|name| {
                        if let Some(folder) = mount.folder_of(path) {
                            positions.v1.insert(name.to_owned(), folder);
                        }
                    }),
                    _ => {}
                }
            }
        }
        positions
    }
}

/// `N:controllers:path`.
fn membership(line: &str) -> Option<(&str, &str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    Some((parts.next()?, parts.next()?))
}

/// One line of `mountinfo`.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    fstype: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (here, what) = line.split_once(" - ")?;
        let mut here = here.split(' ').skip(3);
        let mut what = what.split(' ');
        let (root, point) = (here.next()?, here.next()?);
        let (fstype, options) = (what.next()?, what.nth(1)?);
        Some(Self { root, point, fstype, options })
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|option| option == controller)
    }

    /// Where a cgroup is seen below this mount, if it is.
    fn folder_of(&self, cgroup: &str) -> Option<PathBuf> {
        let below = Path::new(cgroup).strip_prefix(self.root).ok()?;
        Some(Path::new(self.point).join(below))
    }
}

fn plan_below(positions: &Positions, name: &str, limits: &Limits) -> Cgroups {
    let mut groups: BTreeMap<PathBuf, Vec<(String, String, Option<Limit>)>> = BTreeMap::new();
    for limit in Limit::ALL {
        if let Some(position) = positions.v1.get(limit.controller()) {
            groups.entry(position.join(name)).or_default().extend(files_v1(limit, limits));
        }
    }
    if let Some(position) = &positions.v2 {
        let delegated = delegated_v2(position);
        let limits = Limit::ALL
            .into_iter()
            .filter(|limit| delegated.contains(limit))
            .flat_map(|limit| files_v2(limit, limits));
        groups.entry(position.join(name)).or_default().extend(limits);
    }
    Cgroups { groups: groups.into_iter().map(|(path, files)| Group { path, files }).collect() }
}

/// The controllers that cgroups below `position` have, after asking for them.
fn delegated_v2(position: &Path) -> Vec<Limit> {
    let control = position.join("cgroup.subtree_control");
    let given = |file: &Path| fs::read_to_string(file).unwrap_or_default();
    let available = given(&position.join("cgroup.controllers"));
    for limit in Limit::ALL {
        let has = |text: &str| text.split_whitespace().any(|name| name == limit.controller());
        if has(&available) && !has(&given(&control)) {
            // Refused where processes are in the cgroup itself: then the limit is missing, and said so.
            let _ = fs::write(&control, format!("+{}", limit.controller()));
        }
    }
    let given = given(&control);
    Limit::ALL
        .into_iter()
        .filter(|limit| given.split_whitespace().any(|name| name == limit.controller()))
        .collect()
}

fn files_v1(limit: Limit, limits: &Limits) -> Vec<(String, String, Option<Limit>)> {
    let file = |name: &str, value: String, limit| (name.to_owned(), value, limit);
    let memory = limits.memory_bytes_max.to_string();
    match limit {
        Limit::Memory => vec![
            file("memory.limit_in_bytes", memory.clone(), Some(limit)),
            // With swap counted, or the machine swaps instead of ending. Not every kernel has it.
            file("memory.memsw.limit_in_bytes", memory, None),
        ],
        Limit::Processes => vec![file("pids.max", limits.pids_max.to_string(), Some(limit))],
        Limit::Processors => vec![
            file("cpu.cfs_period_us", CPU_PERIOD_US.to_string(), None),
            file("cpu.cfs_quota_us", quota_us(limits).to_string(), Some(limit)),
        ],
    }
}

fn files_v2(limit: Limit, limits: &Limits) -> Vec<(String, String, Option<Limit>)> {
    let file = |name: &str, value: String, limit| (name.to_owned(), value, limit);
    match limit {
        Limit::Memory => vec![
            file("memory.max", limits.memory_bytes_max.to_string(), Some(limit)),
            file("memory.swap.max", "0".to_owned(), None),
        ],
        Limit::Processes => vec![file("pids.max", limits.pids_max.to_string(), Some(limit))],
        Limit::Processors => {
            vec![file("cpu.max", format!("{} {CPU_PERIOD_US}", quota_us(limits)), Some(limit))]
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float beyond the range becomes its end, which is no limit"
)]
fn quota_us(limits: &Limits) -> i64 {
    // The kernel takes no quota below a millisecond.
    ((limits.cpus_max * f64::from(CPU_PERIOD_US)) as i64).max(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
33 32 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 32 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 32 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn our_own_position_is_found_in_both_versions() {
        let own = "4:memory:/outer/x\n2:cpu,cpuacct:/\n0::/u";
        let positions = Positions::read(own, V1_MOUNTS);
        assert_eq!(positions.v1["memory"], Path::new("/sys/fs/cgroup/memory/outer/x"));
        assert_eq!(positions.v1["cpu"], Path::new("/sys/fs/cgroup/cpu"));
        assert_eq!(positions.v2, Some("/sys/fs/cgroup/unified/u".into()));
    }

    #[test]
    fn a_mount_that_shows_only_a_part_is_followed_from_there() {
        let mounts = "35 32 0:30 /outer /cg rw - cgroup2 cgroup2 rw";
        assert_eq!(Positions::read("0::/outer/x", mounts).v2, Some("/cg/x".into()));
        assert_eq!(Positions::read("0::/elsewhere", mounts).v2, None);
    }

    #[test]
    fn version_1_gets_its_limits_below_our_own_position() {
        let positions = Positions::read("4:memory:/outer\n2:cpu,cpuacct:/", V1_MOUNTS);
        let limits = Limits { memory_bytes_max: 7, pids_max: 8, cpus_max: 0.5, ..Limits::default() };
        let plan = plan_below(&positions, "mayfly-a", &limits);
        let files: Vec<_> = plan
            .groups
            .iter()
            .flat_map(|group| {
                group
                    .files
                    .iter()
                    .map(|(file, value, _)| format!("{}={value}", group.path.join(file).display()))
            })
            .collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/cpu/mayfly-a/cpu.cfs_period_us=100000",
                "/sys/fs/cgroup/cpu/mayfly-a/cpu.cfs_quota_us=50000",
                "/sys/fs/cgroup/memory/outer/mayfly-a/memory.limit_in_bytes=7",
                "/sys/fs/cgroup/memory/outer/mayfly-a/memory.memsw.limit_in_bytes=7",
            ]
        );
    }

    #[test]
    fn delegated_controllers_of_version_2_are_used_and_others_are_named() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("cgroup.controllers"), "memory pids cpu").expect("written");
        fs::write(dir.path().join("cgroup.subtree_control"), "memory pids cpu").expect("written");
        let positions = Positions { v2: Some(dir.path().to_owned()), ..Positions::default() };
        let plan = plan_below(&positions, "mayfly-a", &Limits::default());
        let pid = rustix::process::getpid();
        assert_eq!(plan.make().enclose(pid, false), [""; 0]);
        let group = dir.path().join("mayfly-a");
        assert_eq!(fs::read_to_string(group.join("memory.max")).expect("written"), (4_u64 << 30).to_string());
        assert_eq!(fs::read_to_string(group.join("cpu.max")).expect("written"), "200000 100000");
        assert!(plan.exist());
        let notes = Cgroups::default().make().enclose(pid, true);
        assert!(notes[0].contains("no memory") && notes[0].contains("no processor"), "{notes:?}");
    }
}
