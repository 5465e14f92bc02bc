//! Limits of memory, processes and processors, by cgroups of either version.
//!
//! A machine's cgroups are made right below the ones that we are in ourselves, named after the attempt:
//! whatever encloses us goes on enclosing its machines. Version 1 has a tree for each controller; version 2 has
//! one tree, whose controllers must have been delegated to us, and which is used without any as well, because
//! it can kill everything in it at once. A limit that cannot be had becomes a sentence for the owner.
//!
//! Version 2 has a rule: a cgroup with processes in it hands no controller down. So an orchestrator that is alone
//! in its own moves into a [`LEAF`] below ([`step_aside`]), and its machines are made beside that.
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

/// The cgroup of an orchestrator that made room for its machines.
const LEAF: &str = "mayfly-orchestrator";

/// Moves this process into a cgroup of its own below the one that it is in, if it is alone there and there is
/// something to hand down. Where that cannot be, the limits are missing, and said so.
pub(crate) fn step_aside() {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Some(position) = Positions::read(&own, &mounts).v2 {
        let _ = make_room(&position, std::process::id(), &Limit::ALL.map(Limit::controller));
    }
}

fn make_room(position: &Path, process: u32, controllers: &[&str]) -> io::Result<()> {
    let given = fs::read_to_string(position.join("cgroup.controllers"))?;
    let in_it = fs::read_to_string(position.join("cgroup.procs"))?;
    let process = process.to_string();
    let alone = in_it.lines().eq([process.as_str()]);
    if !alone || !given.split_whitespace().any(|name| controllers.contains(&name)) {
        return Ok(());
    }
    let leaf = position.join(LEAF);
    fs::create_dir(&leaf)?;
    fs::write(leaf.join("cgroup.procs"), process)
}

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

    /// In one word.
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "process",
            Self::Processors => "processor",
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

    /// Where this process is in the trees of version 1 that have limits.
    pub(crate) fn folders_of_v1() -> Vec<PathBuf> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let Positions { v1, .. } = Positions::read(&own, &mounts);
        let mut folders: Vec<_> =
            Limit::ALL.iter().filter_map(|limit| v1.get(limit.controller()).cloned()).collect();
        // One tree can have several controllers.
        folders.sort();
        folders.dedup();
        folders
    }

    /// Whether this host's version 2 has limits at all, for somebody.
    pub(crate) fn has_limits_of_v2() -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let trees = mounts.lines().filter_map(Mount::read).filter(|mount| mount.fstype == "cgroup2");
        let controllers =
            |mount: Mount<'_>| fs::read_to_string(Path::new(mount.point).join("cgroup.controllers"));
        let all: String = trees.filter_map(|mount| controllers(mount).ok()).collect();
        all.split_whitespace().any(|name| Limit::ALL.iter().any(|limit| limit.controller() == name))
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
        self.put(pid);
        notes(&self.missing, ordinary)
    }

    /// As [`enclose`](Self::enclose), and tells of each limit what became of it.
    pub(crate) fn enclose_each(mut self, pid: Pid) -> Vec<Had> {
        self.put(pid);
        let by = |limit| self.groups.iter().find(|group| group.limits(limit)).map(|group| group.shown());
        let had =
            |limit: Limit| Had { limit: limit.name(), by: by(limit), why: self.missing.get(&limit).cloned() };
        Limit::ALL.map(had).into()
    }

    fn put(&mut self, pid: Pid) {
        for group in &self.groups {
            if let Err(error) = fs::write(group.path.join("cgroup.procs"), pid.as_raw_nonzero().to_string()) {
                group.blame(&mut self.missing, &error);
            }
        }
    }
}

/// What became of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Had {
    /// Of what.
    pub(crate) limit: &'static str,
    /// The cgroup that has it, in words.
    pub(crate) by: Option<String>,
    /// Why it cannot be had, if it cannot.
    pub(crate) why: Option<String>,
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

    /// Its version and its place.
    fn shown(&self) -> String {
        let version = if self.path.join("cgroup.controllers").exists() { 2 } else { 1 };
        format!("cgroup version {version}, below {}", self.path.parent().unwrap_or(&self.path).display())
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
                    "cgroup2" if controllers.is_empty() => {
                        positions.v2 = mount.folder_of(path).map(|folder| match folder.parent() {
                            Some(outer) if folder.ends_with(LEAF) => outer.to_owned(),
                            _ => folder,
                        });
                    }
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
    // With processes in it, a cgroup hands down nothing, or turns into one that no machine could be made below.
    // Only the outermost one, which has no type, may have both.
    let free = given(&position.join("cgroup.procs")).is_empty() || !position.join("cgroup.type").exists();
    for limit in Limit::ALL.into_iter().filter(|_| free) {
        let has = |text: &str| text.split_whitespace().any(|name| name == limit.controller());
        if has(&available) && !has(&given(&control)) {
            // Refused where it is not ours: then the limit is missing, and said so.
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
    fn machines_are_made_beside_an_orchestrator_that_stepped_aside() {
        let beside = |own| Positions::read(own, V1_MOUNTS).v2;
        assert_eq!(beside("0::/u/mayfly-orchestrator"), Some("/sys/fs/cgroup/unified/u".into()));
        assert_eq!(beside("0::/mayfly-orchestrator"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(beside("0::/u/my-orchestrator"), Some("/sys/fs/cgroup/unified/u/my-orchestrator".into()));
    }

    #[test]
    fn only_who_is_alone_in_a_cgroup_with_something_to_hand_down_steps_aside() {
        let steps = |in_it: &str, given: &str| {
            let dir = tempfile::tempdir().expect("a folder");
            fs::write(dir.path().join("cgroup.controllers"), given).expect("written");
            fs::write(dir.path().join("cgroup.procs"), in_it).expect("written");
            make_room(dir.path(), 7, &["memory", "pids"]).expect("done");
            fs::read_to_string(dir.path().join(LEAF).join("cgroup.procs")).ok()
        };
        assert_eq!(steps("7\n", "cpuset memory\n").as_deref(), Some("7"));
        for (in_it, given) in
            [("7\n8\n", "memory\n"), ("8\n", "memory\n"), ("7\n", "hugetlb\n"), ("", "memory\n")]
        {
            assert_eq!(steps(in_it, given), None, "{in_it} {given}");
        }
    }

    #[test]
    fn controllers_are_asked_for_where_no_process_stands_in_the_way() {
        let asked = |in_it: &str, outermost: bool| {
            let dir = tempfile::tempdir().expect("a folder");
            let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
            write("cgroup.controllers", "cpuset pids\n");
            write("cgroup.subtree_control", "");
            write("cgroup.procs", in_it);
            if !outermost {
                write("cgroup.type", "domain\n");
            }
            delegated_v2(dir.path());
            fs::read_to_string(dir.path().join("cgroup.subtree_control")).expect("read")
        };
        assert_eq!(["", "7\n"].map(|in_it| asked(in_it, false)), ["+pids", ""]);
        assert_eq!(asked("7\n", true), "+pids");
    }

    /// On the real kernel, as root, with whatever its version 2 has to hand down.
    #[test]
    fn a_cgroup_that_was_stepped_aside_in_hands_its_controllers_down() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read");
        let tree = mounts.lines().filter_map(Mount::read).find(|mount| mount.fstype == "cgroup2");
        let Some(tree) = tree.map(|mount| PathBuf::from(mount.point)) else {
            return mayfly_test_needs::skip("there is no tree of cgroups of version 2 here");
        };
        let given = fs::read_to_string(tree.join("cgroup.controllers")).unwrap_or_default();
        // None of those that can do with processes beside them.
        let strict = ["memory", "io", "hugetlb", "rdma"];
        let Some(controller) = given.split_whitespace().find(|name| strict.contains(name)) else {
            return mayfly_test_needs::skip("version 2 has no such controller here");
        };
        let position = tree.join(format!("mayfly-test-aside-{}", std::process::id()));
        if fs::write(tree.join("cgroup.subtree_control"), format!("+{controller}")).is_err()
            || fs::create_dir(&position).is_err()
        {
            return mayfly_test_needs::skip("this user may make no cgroup here");
        }
        let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("started");
        fs::write(position.join("cgroup.procs"), child.id().to_string()).expect("moved");
        let hand_down = || fs::write(position.join("cgroup.subtree_control"), format!("+{controller}"));
        let before = hand_down();
        make_room(&position, child.id(), &[controller]).expect("moved again");
        let after = hand_down();
        child.kill().and_then(|()| child.wait()).expect("ended");
        for path in [position.join(LEAF), position] {
            remove_when_empty(&path).expect("removed");
        }
        assert_eq!(before.expect_err("it has a process").raw_os_error(), Some(libc::EBUSY));
        after.expect("it has none");
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
