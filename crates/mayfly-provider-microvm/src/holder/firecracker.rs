//! Firecracker: the requests that make a guest, over its socket in the machine's folder.
//!
//! ```text
//! GET /version ─► machine-config, boot-source, drives, vsock, entropy ─► actions: InstanceStart
//! ```
//!
//! Its word that a guest was started is no word that one lives: that is its process, and the guest's own request for its
//! handover. There is no network device and no serial console; what it writes into its log is kept like what a console says.
//!
//! Refused are versions with faults that are known and were mended (CVE-2026-5747, and before it CVE-2026-1386).

use std::ffi::OsString;
use std::fmt::Display;
use std::io;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use mayfly_holder::{Failure, Step};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout_at};

use super::{API, DISK, INITRAMFS, LOOK_EVERY, Spec, VSOCK, vmm};

/// What the kernel is told: it has no console, and whatever goes wrong is the machine's end.
const KERNEL_WORDS: &str = "8250.nr_uarts=0 quiet reboot=k panic=-1 i8042.noaux i8042.nomux i8042.dumbkbd";
/// The first version of each line that has all that was mended; later lines have it too.
const MENDED: [(u32, u32, u32); 2] = [(1, 14, 4), (1, 15, 1)];
/// A guest sees no other, so each can have the same.
const GUEST_CID: u32 = 3;
/// The longest answer.
const ANSWER_BYTES_MAX: usize = 1 << 16;
/// The name of the host in a request, which nobody reads.
const HOST: &str = "localhost";

pub(super) fn arguments() -> Vec<OsString> {
    ["--api-sock", API, "--level", "Warn"].map(Into::into).to_vec()
}

/// `PUT /machine-config`.
#[derive(Debug, Serialize)]
struct MachineConfig {
    vcpu_count: u8,
    mem_size_mib: u64,
}

/// `PUT /boot-source`.
#[derive(Debug, Serialize)]
struct BootSource<'a> {
    kernel_image_path: &'a str,
    initrd_path: &'a str,
    boot_args: &'a str,
}

/// `PUT /drives/{drive_id}`.
#[derive(Debug, Serialize)]
struct Drive<'a> {
    #[serde(rename = "drive_id")]
    id: &'a str,
    path_on_host: &'a str,
    is_root_device: bool,
    is_read_only: bool,
}

/// `PUT /vsock`.
#[derive(Debug, Serialize)]
struct Vsock<'a> {
    guest_cid: u32,
    uds_path: &'a str,
}

/// `PUT /entropy`.
#[derive(Debug, Serialize)]
struct Entropy {}

/// `PUT /actions`.
#[derive(Debug, Serialize)]
struct Action<'a> {
    action_type: &'a str,
}

/// What `GET /version` answers.
#[derive(Debug, Deserialize)]
struct Version {
    firecracker_version: String,
}

/// What a refusal says.
#[derive(Debug, Deserialize)]
struct Fault {
    fault_message: String,
}

/// Makes the guest, and has it start.
pub(super) async fn go(monitor: &mut Child, spec: &Spec, until: Instant) -> Result<(), Failure> {
    let dialled = tokio::select! {
        ended = monitor.wait() => {
            return Err(vmm::ended_early("Firecracker", ended.step("wait for Firecracker")?, monitor).await);
        }
        dialled = timeout_at(until, Api::dial()) => dialled,
    };
    let mut api = in_time(dialled).step("speak to Firecracker")?;
    let made = timeout_at(until, make(&mut api, spec)).await;
    let failed = match made {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(failure)) => failure,
        Err(late) => return in_time(Err(late)).step("have Firecracker make the guest in time"),
    };
    if !api.0.is_closed() {
        return Err(failed);
    }
    // One that hangs up has an end, and words about it.
    match timeout_at(until, monitor.wait()).await {
        Ok(Ok(status)) => Err(vmm::ended_early("Firecracker", status, monitor).await),
        _ => Err(failed),
    }
}

fn in_time<T>(done: Result<io::Result<T>, Elapsed>) -> io::Result<T> {
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn make(api: &mut Api, spec: &Spec) -> Result<(), Failure> {
    let Version { firecracker_version } = api.version().await?;
    check(&firecracker_version)?;
    let guest = &spec.guest;
    let (kernel, image) = (text(&guest.kernel_elf)?, text(&guest.image)?);
    let drive =
        |id, path_on_host, is_read_only| Drive { id, path_on_host, is_root_device: false, is_read_only };
    let config = MachineConfig { vcpu_count: spec.cpus, mem_size_mib: spec.memory_bytes.div_ceil(1 << 20) };
    api.put("/machine-config", &config).await?;
    let boot = BootSource { kernel_image_path: kernel, initrd_path: INITRAMFS, boot_args: KERNEL_WORDS };
    api.put("/boot-source", &boot).await?;
    api.put("/drives/image", &drive("image", image, true)).await?;
    api.put("/drives/disk", &drive("disk", DISK, false)).await?;
    api.put("/vsock", &Vsock { guest_cid: GUEST_CID, uds_path: VSOCK }).await?;
    api.put("/entropy", &Entropy {}).await?;
    api.put("/actions", &Action { action_type: "InstanceStart" }).await
}

fn text(path: &std::path::Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| {
        Failure::new(format!("Firecracker takes no path that is not UTF-8: {}", path.display()))
    })
}

/// Refuses what is known to be faulty, or not to be a version.
fn check(version: &str) -> Result<(), Failure> {
    let is_mended = parsed(version).is_some_and(|(major, minor, patch)| {
        let of_line = MENDED.iter().find(|mended| (mended.0, mended.1) == (major, minor));
        match of_line {
            Some(mended) => patch >= mended.2,
            None => MENDED.iter().all(|mended| (major, minor) > (mended.0, mended.1)),
        }
    });
    match is_mended {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "Firecracker {} has faults that later versions have not (CVE-2026-5747): install 1.14.4, 1.15.1 or later",
            version.escape_debug()
        ))),
    }
}

/// Of `1.15.1` or `1.17.0-dev`.
fn parsed(version: &str) -> Option<(u32, u32, u32)> {
    let numbers = version.split('-').next()?;
    let mut numbers = numbers.split('.').map(|number| number.parse().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

/// Its socket.
struct Api(SendRequest<Full<Bytes>>);

impl Api {
    /// Waits until it listens. It says so nowhere.
    async fn dial() -> io::Result<Self> {
        let stream = loop {
            match UnixStream::connect(API).await {
                Err(error) if is_early(error.kind()) => sleep(LOOK_EVERY).await,
                connected => break connected?,
            }
        };
        let (send, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // It ends with the one who sends, and what goes wrong is said to that one.
        tokio::spawn(connection);
        Ok(Self(send))
    }

    async fn version(&mut self) -> Result<Version, Failure> {
        let (status, body) = self.ask(Method::GET, "/version", Bytes::new()).await.step(asked("/version"))?;
        let version = serde_json::from_slice(&body).ok().filter(|_| status == StatusCode::OK);
        version.ok_or_else(|| refused("/version", status, &body))
    }

    async fn put(&mut self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).expect("a request is plain data");
        let (status, body) = self.ask(Method::PUT, path, body.into()).await.step(asked(path))?;
        match status {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(refused(path, status, &body)),
        }
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> io::Result<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(path).header("host", HOST);
        let request = request.header("content-type", "application/json").body(Full::new(body));
        self.0.ready().await.map_err(io::Error::other)?;
        let response =
            self.0.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(io::Error::other)?.to_bytes()))
    }
}

fn is_early(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn asked(path: &str) -> impl Display {
    format!("have an answer of Firecracker's to {path}")
}

fn refused(path: &str, status: StatusCode, body: &[u8]) -> Failure {
    let said = serde_json::from_slice::<Fault>(body).map(|fault| fault.fault_message);
    let said = said.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    Failure::said(format!("Firecracker refuses {path} ({status}: {})", said.escape_debug()), &said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_known_faults_are_refused() {
        for good in ["1.14.4", "1.14.10", "1.15.1", "1.16.0", "1.17.0-dev", "2.0.0"] {
            check(good).unwrap();
        }
        for bad in ["1.15.0", "1.14.3", "1.13.2", "0.25.2", "1.15.0-dev", "1.16", "", "x.y.z", "1.16.0.1"] {
            check(bad).unwrap_err();
        }
        assert_eq!(
            check("1.15.0").unwrap_err().to_string(),
            "Firecracker 1.15.0 has faults that later versions have not (CVE-2026-5747): install 1.14.4, 1.15.1 or later"
        );
    }
}
