//! The file system of a machine: a new tmpfs, with the host's system read-only and nothing else of it.
//!
//! ```text
//! /usr /bin /sbin /lib*    the host's, read-only          /etc        ours, with a few of the host's files
//! /dev /proc /tmp /run     the machine's own              /sys /home  not the host's
//! /workspace /home/agent   the machine's folder           /opt        claude, mayfly, the base
//! ```
//!
//! Every mount point is made on the new tmpfs, before any agent ran and never in a tree that one can write: no
//! link planted there can lead a mount astray. What is not bound here cannot be seen: no host socket, no home,
//! no other machine. At the end the old root is gone and the new one read-only.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use mayfly_wire::boot;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    move_mount, open_tree, unmount,
};

use super::spec::{HolderSpec, WorkspaceView};
use crate::cgroup::Events;
use crate::sys;
use mayfly_holder::{Failure, Step};

/// Where the kernel's counts are seen in a machine, if there are any.
pub(super) const MEMORY_EVENTS: &str = "/opt/mayfly/memory.events";
pub(super) const PROCESS_EVENTS: &str = "/opt/mayfly/pids.events";

/// Where the changes to the code are seen apart from the code, for whoever counts them.
const CHANGES: &str = "/opt/mayfly/changes";

/// Where the new root is put together, in the machine's folder; empty for everybody else.
const ROOT: &str = "root";
/// Our own root holds folders and a few small files.
const ROOT_BYTES_MAX: u64 = 1 << 20;
const ROOT_FILES_MAX: u64 = 1024;
/// A machine's `/tmp` takes at most this share of its memory, and `/dev/shm` again as much.
const TMP_SHARE: u64 = 2;
const TMP_FILES_MAX: u64 = 1 << 20;

/// Seen as on the host, links as links; what is missing there is missing here.
const HOST_SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Of `/etc`, what programs need to start, to check certificates and to know the time zone.
const HOST_ETC: [&str; 11] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/mime.types",
];
/// The rest of `/etc`.
const OUR_ETC: [(&str, &str); 7] = [
    (
        "passwd",
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nagent:x:1000:1000:agent:/home/agent:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost mayfly\n::1 localhost\n"),
    ("hostname", "mayfly\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("resolv.conf", ""),
    ("shells", "/bin/sh\n/bin/bash\n"),
];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Of `/proc`, what speaks of the host and could change it; and what tells about it and is nobody's business.
const PROC_READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
const PROC_HIDDEN: [&str; 4] = ["kcore", "keys", "timer_list", "kmsg"];

const NO_SUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const PLAIN: MountAttrFlags = NO_SUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
const READ_ONLY: MountAttrFlags = PLAIN.union(MountAttrFlags::MOUNT_ATTR_RDONLY);
const DEVICE: MountAttrFlags = NO_SUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
const DATA: MountAttrFlags = PLAIN.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Makes what the machine's folder must hold; what the agent writes to is given to `owner`.
pub(super) fn make_folders(spec: &HolderSpec, owner: Option<u32>) -> Result<(), Failure> {
    let step = "make the machine's folders";
    fs::create_dir(spec.folder.path().join(ROOT)).step(step)?;
    for name in folders_of_agent(spec) {
        let path = spec.folder.path().join(name);
        fs::DirBuilder::new().mode(0o755).create(&path).step(step)?;
        match std::os::unix::fs::chown(&path, owner, owner) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Err(no_such_id()),
            given => given.step(step)?,
        }
    }
    Ok(())
}

/// We are root of a user namespace that gives us few ids.
fn no_such_id() -> Failure {
    let id = crate::AGENT_HOST_ID;
    Failure::new(format!(
        "root has not all ids here, and the agent's ({id}) is none of them: \
         run mayfly as an ordinary user, or outside of this container"
    ))
}

fn folders_of_agent(spec: &HolderSpec) -> &'static [&'static str] {
    match spec.workspace {
        Some(_) => &["home", "upper", "work"],
        None => &["home", "workspace"],
    }
}

/// Where the machine's own files are seen inside that take room on the disk.
pub(super) fn on_the_disk(spec: &HolderSpec) -> Vec<PathBuf> {
    let work = if spec.workspace.is_some() { CHANGES } else { boot::WORKSPACE };
    vec![boot::HOME.into(), work.into()]
}

/// Builds it all and moves into it.
pub(super) fn build(spec: &HolderSpec, events: &Events) -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .step("leave the host's mounts")?;
    let root = Root { path: spec.folder.path().join(ROOT) };
    let (size, files) = (ROOT_BYTES_MAX.to_string(), ROOT_FILES_MAX.to_string());
    let options = [("size", size.as_str()), ("nr_inodes", &files), ("mode", "0755")];
    mount("tmpfs", &options, PLAIN, &root.path)?;
    HOST_SYSTEM.iter().try_for_each(|path| root.mirror(path))?;
    root.etc()?;
    root.dev(spec)?;
    root.proc()?;
    root.data(spec)?;
    root.workspace(spec)?;
    root.opt(spec, events)?;
    root.enter()
}

/// The new root while it is built.
struct Root {
    path: PathBuf,
}

impl Root {
    /// Where `inside` is while we are still outside.
    fn at(&self, inside: &str) -> PathBuf {
        self.path.join(inside.trim_start_matches('/'))
    }

    fn folder(&self, inside: &str) -> Result<PathBuf, Failure> {
        let path = self.at(inside);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).step(format!("make {inside}"))?;
        Ok(path)
    }

    fn file(&self, inside: &str) -> Result<PathBuf, Failure> {
        let path = self.at(inside);
        self.folder(parent(inside))?;
        File::create(&path).step(format!("make {inside}"))?;
        Ok(path)
    }

    /// Shows a file or folder of the host at `inside`.
    fn bind(&self, host: &Path, inside: &str, attributes: MountAttrFlags) -> Result<(), Failure> {
        let is_folder = fs::metadata(host).step(format!("find {}", host.display()))?.is_dir();
        let to = if is_folder { self.folder(inside)? } else { self.file(inside)? };
        let tree = clone_tree(host)?;
        attach(&tree, attributes, &to)
    }

    /// Shows what the host has at `path` at the same place, read-only.
    fn mirror(&self, path: &str) -> Result<(), Failure> {
        let step = format!("look at {path}");
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            found => found.step(&step)?,
        };
        if !found.is_symlink() {
            return self.bind(Path::new(path), path, READ_ONLY);
        }
        self.folder(parent(path))?;
        symlink(fs::read_link(path).step(&step)?, self.at(path)).step(format!("make {path}"))
    }

    fn etc(&self) -> Result<(), Failure> {
        let etc = self.folder("/etc")?;
        for (name, text) in OUR_ETC {
            fs::write(etc.join(name), text).step(format!("write /etc/{name}"))?;
        }
        HOST_ETC.iter().try_for_each(|path| self.mirror(path))
    }

    fn dev(&self, spec: &HolderSpec) -> Result<(), Failure> {
        let dev = self.folder("/dev")?;
        for name in DEVICES {
            let device = format!("/dev/{name}");
            self.bind(Path::new(&device), &device, DEVICE)?;
        }
        for (name, target) in DEVICE_LINKS {
            symlink(target, dev.join(name)).step(format!("make /dev/{name}"))?;
        }
        let options = [("ptmxmode", "0666"), ("mode", "0620")];
        mount("devpts", &options, DEVICE, &self.folder("/dev/pts")?)?;
        self.tmpfs(spec, "/dev/shm")
    }

    /// A fresh one, of the machine's own processes.
    fn proc(&self) -> Result<(), Failure> {
        let proc = self.folder("/proc")?;
        mount("proc", &[], DATA, &proc)?;
        for path in PROC_READ_ONLY.map(|name| proc.join(name)) {
            if path.exists() {
                attach(&clone_tree(&path)?, DATA | READ_ONLY, &path)?;
            }
        }
        for path in PROC_HIDDEN.map(|name| proc.join(name)) {
            if path.exists() {
                attach(&clone_tree(Path::new("/dev/null"))?, DEVICE, &path)?;
            }
        }
        Ok(())
    }

    /// Everything that is the machine's own but its workspace.
    fn data(&self, spec: &HolderSpec) -> Result<(), Failure> {
        self.tmpfs(spec, "/tmp")?;
        self.folder("/var")?;
        symlink("/tmp", self.at("/var/tmp")).step("make /var/tmp")?;
        self.bind(&spec.folder.path().join("home"), boot::HOME, PLAIN)?;
        spec.way_out.iter().try_for_each(|way_out| self.bind(way_out, boot::WAY_OUT, READ_ONLY))
    }

    fn tmpfs(&self, spec: &HolderSpec, inside: &str) -> Result<(), Failure> {
        let (size, files) = ((spec.memory_bytes_max / TMP_SHARE).to_string(), TMP_FILES_MAX.to_string());
        let options = [("size", size.as_str()), ("nr_inodes", &files), ("mode", "1777")];
        mount("tmpfs", &options, PLAIN, &self.folder(inside)?)
    }

    fn workspace(&self, spec: &HolderSpec) -> Result<(), Failure> {
        match &spec.workspace {
            Some(view) => self.overlay(spec, view),
            None => self.bind(&spec.folder.path().join("workspace"), boot::WORKSPACE, PLAIN),
        }
    }

    /// The base with the agent's changes in the machine's own folder.
    fn overlay(&self, spec: &HolderSpec, view: &WorkspaceView) -> Result<(), Failure> {
        self.bind(&view.base, boot::BASE, READ_ONLY)?;
        let to = self.folder(&format!("{}/{}", boot::WORKSPACE, view.name))?;
        let of_agent = |name| spec.folder.path().join(name);
        mount_overlay(&view.base, &of_agent("upper"), &of_agent("work"), &to)?;
        self.bind(&of_agent("upper"), CHANGES, READ_ONLY)
    }

    fn opt(&self, spec: &HolderSpec, events: &Events) -> Result<(), Failure> {
        self.bind(&spec.claude, boot::CLAUDE, READ_ONLY)?;
        self.bind(&spec.mayfly, boot::MAYFLY, READ_ONLY)?;
        for (inside, tree) in &spec.tools {
            self.bind(tree, inside, READ_ONLY)?;
        }
        let counted = [(&events.memory, MEMORY_EVENTS), (&events.processes, PROCESS_EVENTS)];
        let show = |(file, inside): (&Option<PathBuf>, &str)| {
            file.as_ref().map_or(Ok(()), |file| self.bind(file, inside, DATA | READ_ONLY))
        };
        counted.into_iter().try_for_each(show)
    }

    /// Makes it the root, lets go of the old one, and closes it for writing.
    fn enter(&self) -> Result<(), Failure> {
        let step = "enter the machine's root";
        std::env::set_current_dir(&self.path).step(step)?;
        rustix::process::pivot_root(".", ".").step(step)?;
        unmount(".", UnmountFlags::DETACH).step("let go of the host's root")?;
        std::env::set_current_dir("/").step(step)?;
        let root = File::open("/").step(step)?;
        sys::restrict_mount(&root, READ_ONLY.bits().into(), false)
            .step("close the machine's root for writing")
    }
}

fn parent(inside: &str) -> &str {
    inside.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A copy of the mounts at `path`, attached to nothing yet.
fn clone_tree(path: &Path) -> Result<OwnedFd, Failure> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).step(format!("bind {}", path.display()))
}

fn attach(tree: &OwnedFd, attributes: MountAttrFlags, to: &Path) -> Result<(), Failure> {
    let step = format!("show {}", to.display());
    sys::restrict_mount(tree, attributes.bits().into(), true).step(&step)?;
    move_mount(tree.as_fd(), "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(&step)
}

/// Shows `lower` at `to`, with what is written going into `upper`.
pub(super) fn mount_overlay(lower: &Path, upper: &Path, work: &Path, to: &Path) -> Result<(), Failure> {
    let open = |path: &Path| File::open(path).step(format!("open {}", path.display()));
    let layers = [("lowerdir", open(lower)?), ("upperdir", open(upper)?), ("workdir", open(work)?)];
    // By descriptor: a path could hold what the option's own syntax means, and would be shown inside.
    let paths = layers
        .each_ref()
        .map(|(key, file)| (*key, format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))));
    let options: Vec<_> =
        paths.iter().map(|(key, path)| (*key, path.as_str())).chain([("userxattr", "")]).collect();
    mount("overlay", &options, PLAIN, to)
}

/// Mounts a new file system. An option without a value is a flag.
fn mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags, to: &Path) -> Result<(), Failure> {
    let step = format!("mount a {kind}");
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
        rustix::io::Errno::NODEV => Failure::new(format!("this kernel has no {kind}: try `modprobe {kind}`")),
        errno => Failure::of(format!("cannot {step}"), &errno.into()),
    })?;
    for (key, value) in options {
        let set = if value.is_empty() {
            fsconfig_set_flag(context.as_fd(), *key)
        } else {
            fsconfig_set_string(context.as_fd(), *key, *value)
        };
        set.step(format!("{step} with {key}"))?;
    }
    fsconfig_create(context.as_fd()).step(&step)?;
    let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).step(&step)?;
    move_mount(mounted.as_fd(), "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(&step)
}
