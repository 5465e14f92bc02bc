//! Machines as processes of this host: each has a root folder, mounts and processes of its own, and finds in them what Fly
//! would have put into a VM of an image of ours. Only root can make them.
//!
//! One whose app's policies let it reach nothing has a network of its own as well, with nothing in it but its loopback, where
//! a [Flycast](crate::flycast) address is. Any other one is in this process's network, and reaches all that is there.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::flycast::{self, KEY_FILE};
use crate::world::Running;
use crate::{Exit, Run, Start};

/// Where this host's programs are.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// Makes the root that a VM would have of an image, and runs its first program there. Its arguments: the root, `claude`,
/// `mayfly`, how many volumes, each of them and where it is mounted, the program.
const VM: &str = r#"
root=$1 claude=$2 mayfly=$3 volumes=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
for name in bin lib lib64 sbin; do
    if [ -L /$name ]; then ln -s "$(readlink /$name)" "$root/$name"
    elif [ -d /$name ]; then mkdir "$root/$name"; mount --bind /$name "$root/$name"; fi
done
mkdir -p "$root/usr" "$root/proc" "$root/dev" "$root/tmp" "$root/etc" "$root/opt/claude" "$root/opt/mayfly"
chmod 1777 "$root/tmp"
echo secret >"$root/.fly/api"
cp /etc/passwd /etc/group /etc/ld.so.cache "$root/etc/"
mkdir -p "$root/etc/ssl"
mount --bind /etc/ssl "$root/etc/ssl"
mount --bind /usr "$root/usr"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
touch "$root/opt/claude/claude" "$root/opt/mayfly/mayfly"
mount --bind "$claude" "$root/opt/claude/claude"
mount --bind "$mayfly" "$root/opt/mayfly/mayfly"
while [ $volumes -gt 0 ]; do
    mkdir -p "$1" "$root$2"
    mount --bind "$1" "$root$2"
    volumes=$((volumes - 1))
    shift 2
done
exec chroot "$root" "$@"
"#;

/// What comes before that where the network is the machine's own: sets up its loopback, with the Flycast address if that is
/// not of a loopback anyway (the first argument), says so, and waits until it is led on. The second is where to write.
const SHUT_IN: &str = r#"
ip link set lo up
if [ -n "$1" ]; then ip -6 address add "$1/128" dev lo nodad; fi
echo up
read -r _
exec >>"$2" </dev/null
shift 2
"#;

/// What machines are made of.
#[derive(Debug, Clone)]
pub struct Vms {
    folder: PathBuf,
    claude: PathBuf,
    mayfly: PathBuf,
    flycast: SocketAddr,
}

impl Vms {
    /// Their roots, their volumes (`volumes`, by id) and what their first programs say are to be below `folder`, which is
    /// there; in each are the programs `claude` and `mayfly`. The orchestrator is at `flycast`.
    pub fn new(folder: &Path, claude: &Path, mayfly: &Path, flycast: SocketAddr) -> Self {
        let [folder, claude, mayfly] = [folder, claude, mayfly].map(Path::to_owned);
        Self { folder, claude, mayfly, flycast }
    }

    /// What runs each machine.
    ///
    /// # Panics
    ///
    /// The machine's own task, if it cannot be made.
    pub fn run(self) -> Run {
        Arc::new(move |start| -> Running {
            let vms = self.clone();
            Box::pin(async move { vms.one(start).await.expect("a machine") })
        })
    }

    /// Starts the first program of one, and waits for its end; dropped, it kills it.
    async fn one(self, start: Start) -> io::Result<Exit> {
        let root = self.folder.join(&start.id);
        // One that is started again begins anew, but for its volumes.
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let key = (KEY_FILE.to_owned(), start.source.key().into_bytes());
        for (path, bytes) in start.files.iter().chain([&key]) {
            let file = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(file.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
            fs::write(&file, bytes)?;
            fs::set_permissions(&file, Permissions::from_mode(0o400))?;
        }
        for layer in &start.layers {
            unpack(layer, &root).await?;
        }
        let log_path = self.folder.join(format!("{}.log", start.id));
        let log = File::options().create(true).append(true).open(&log_path)?;
        let mut command = Command::new("unshare");
        // With the first process of its own everything in it ends, whoever has become another user.
        command.args(["--mount", "--pid", "--fork", "--kill-child"]).stderr(log.try_clone()?);
        if start.is_shut_in {
            let address = match self.flycast.ip() {
                IpAddr::V6(ip) if !ip.is_loopback() => ip.to_string(),
                _ => String::new(),
            };
            command.args(["--net", "sh", "-euc", &format!("{SHUT_IN}{VM}"), "vm", &address]).arg(&log_path);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.args(["sh", "-euc", VM, "vm"]).stdout(log);
        }
        command.arg(&root).arg(&self.claude).arg(&self.mayfly).arg(start.mounts.len().to_string());
        for (id, place) in &start.mounts {
            command.arg(self.folder.join("volumes").join(id)).arg(place);
        }
        command.args(&start.exec).env_clear().env("PATH", PATH).envs(&start.environment);
        let mut child = command.kill_on_drop(true).spawn()?;
        let status = match start.is_shut_in {
            true => self.shut_in(&mut child, start).await?,
            false => child.wait().await?,
        };
        Ok(Exit { code: status.code().unwrap_or(-1).into(), is_out_of_memory: false })
    }

    /// Waits for its end, and leads it to the Flycast address meanwhile.
    async fn shut_in(&self, child: &mut Child, start: Start) -> io::Result<std::process::ExitStatus> {
        let mut said = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        said.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        let listener = flycast::listen_in(namespace, self.flycast).await?;
        child.stdin.take().expect("it is a pipe").write_all(b"\n").await?;
        tokio::select! {
            ended = child.wait() => ended,
            Err(error) = flycast::lead(listener, self.flycast, start.source) => Err(error),
        }
    }
}

/// Unpacks a layer into a root.
async fn unpack(layer: &Bytes, root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--gzip", "--file=-", "--directory"]).arg(root).stdin(Stdio::piped());
    let mut tar = tar.kill_on_drop(true).spawn()?;
    tar.stdin.take().expect("it is a pipe").write_all(layer).await?;
    match tar.wait().await?.success() {
        true => Ok(()),
        false => Err(io::Error::other("a layer cannot be unpacked")),
    }
}

/// What the first programs of the machines below `folder` said.
///
/// # Errors
/// What the system says.
pub fn said(folder: &Path) -> io::Result<String> {
    let mut said = String::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "log") {
            said += &fs::read_to_string(path)?;
        }
    }
    Ok(said)
}
