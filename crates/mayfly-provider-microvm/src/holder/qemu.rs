//! QEMU: how it is called, and its word that the processor runs.
//!
//! What is here was measured with QEMU 10 and Debian's kernels: the `microvm` machine with all of ACPI (a kernel of
//! Debian's finds its devices by nothing else), one processor (with two, guests hang now and then under emulation), a
//! bzImage (an uncompressed kernel hangs early). A guest that restarts ends QEMU: `reboot=t`, and no reboot.

use std::ffi::OsString;
use std::io;
use std::iter;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use mayfly_holder::{Failure, Step};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::time::{Instant, timeout_at};

use super::{DEVICE, DISK, INITRAMFS, QMP, vmm};
use crate::system::Guest;

/// What the kernel is told: its console is ours, whatever goes wrong is the machine's end, and its timers come when this
/// host has time for them.
const KERNEL_WORDS: &str = "console=ttyS0 quiet reboot=t panic=-1 no_timer_check";
/// What QEMU may not do to its host, whatever its guest makes it do.
const CONFINED: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
/// A machine's memory is a whole number of these.
const MEMORY_UNIT: u64 = 1 << 20;
/// The longest line of QEMU's.
const LINE_BYTES_MAX: u64 = 1 << 16;

/// It starts stopped, in the machine's folder.
pub(super) fn arguments(guest: &Guest, memory_bytes: u64, tsc_khz: Option<u64>) -> Vec<OsString> {
    let frequency = tsc_khz.map(|khz| format!(" tsc_early_khz={khz}")).unwrap_or_default();
    let kernel_words = KERNEL_WORDS.to_owned() + &frequency;
    let mib = memory_bytes.div_ceil(MEMORY_UNIT);
    let memory = format!("memory-backend-memfd,id=memory,size={mib}M,share=on");
    let (size, device, qmp) =
        (format!("{mib}M"), format!("socket,id=vsock,path={DEVICE}"), format!("unix:{QMP},server=off"));
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut all = words(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-S"]);
    all.extend(words(&["-sandbox", CONFINED, "-M", "microvm,memory-backend=memory"]));
    all.extend(words(&["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", &size, "-object", &memory]));
    all.extend(words(&["-kernel"]).into_iter().chain([guest.kernel.clone().into()]));
    all.extend(words(&["-initrd", INITRAMFS, "-append", &kernel_words, "-serial", "stdio"]));
    all.extend(drive("image", &guest.image, ",readonly=on"));
    all.extend(drive("disk", Path::new(DISK), ""));
    all.extend(words(&["-chardev", &device, "-device", "vhost-user-vsock-device,chardev=vsock"]));
    all.extend(words(&["-device", "virtio-rng-device", "-qmp", &qmp]));
    all
}

fn drive(id: &str, path: &Path, options: &str) -> [OsString; 4] {
    let mut drive = OsString::from(format!("if=none,id={id},format=raw{options},file="));
    drive.push(escaped(path));
    ["-drive".into(), drive, "-device".into(), format!("virtio-blk-device,drive={id}").into()]
}

/// In an option's value a comma is two.
fn escaped(path: &Path) -> OsString {
    let doubled = |byte: &u8| iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 });
    OsString::from_vec(path.as_os_str().as_bytes().iter().flat_map(doubled).collect())
}

/// Has the processor run, once QEMU has made all of the machine. From then on what QEMU says is read and dropped.
pub(super) async fn go(qmp: &UnixListener, qemu: &mut Child, until: Instant) -> Result<(), Failure> {
    let started = timeout_at(until, said_go(qmp));
    let failed = tokio::select! {
        ended = qemu.wait() => return Err(vmm::ended_early("QEMU", ended.step("wait for QEMU")?, qemu).await),
        started = started => match started {
            Ok(Ok(mut lines)) => {
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut lines, &mut tokio::io::sink()).await;
                });
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        },
    };
    // One that hangs up has an end, and words about it.
    match timeout_at(until, qemu.wait()).await {
        Ok(Ok(status)) => Err(vmm::ended_early("QEMU", status, qemu).await),
        _ => Err(failed).step("have QEMU start the guest"),
    }
}

async fn said_go(qmp: &UnixListener) -> io::Result<BufReader<UnixStream>> {
    let mut qemu = BufReader::new(qmp.accept().await?.0);
    // Its greeting.
    line(&mut qemu).await?;
    for word in ["qmp_capabilities", "cont"] {
        let command = format!("{{\"execute\":\"{word}\"}}\n");
        qemu.get_mut().write_all(command.as_bytes()).await?;
        answered(&mut qemu).await?;
    }
    Ok(qemu)
}

/// Skips what it reports by itself.
async fn answered(qemu: &mut BufReader<UnixStream>) -> io::Result<()> {
    loop {
        let said = line(qemu).await?;
        if said.get("return").is_some() {
            return Ok(());
        }
        if let Some(error) = said.get("error") {
            return Err(io::Error::other(error.to_string()));
        }
    }
}

async fn line(qemu: &mut BufReader<UnixStream>) -> io::Result<Value> {
    let mut text = Vec::new();
    if qemu.take(LINE_BYTES_MAX).read_until(b'\n', &mut text).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole call; what is in it was measured, and is changed with a measurement alone.
    #[test]
    fn qemu_is_called_in_this_way() {
        let guest = Guest {
            kernel: "/g/vmlinuz".into(),
            kernel_elf: "/g/vmlinux".into(),
            initramfs: "/g/initramfs".into(),
            image: "/g/a,b.erofs".into(),
        };
        let called: Vec<String> = arguments(&guest, (512 << 20) - 1, Some(2_300_000))
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        let expected = "-nodefaults -no-user-config -no-reboot -display none -S \
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
            -M microvm,memory-backend=memory -accel tcg -cpu max -smp 1 -m 512M \
            -object memory-backend-memfd,id=memory,size=512M,share=on -kernel /g/vmlinuz -initrd initramfs \
            -append @ -serial stdio \
            -drive if=none,id=image,format=raw,readonly=on,file=/g/a,,b.erofs -device virtio-blk-device,drive=image \
            -drive if=none,id=disk,format=raw,file=disk -device virtio-blk-device,drive=disk \
            -chardev socket,id=vsock,path=device.sock -device vhost-user-vsock-device,chardev=vsock \
            -device virtio-rng-device -qmp unix:qmp.sock,server=off";
        let words = "console=ttyS0 quiet reboot=t panic=-1 no_timer_check tsc_early_khz=2300000";
        let expected: Vec<&str> =
            expected.split_whitespace().map(|word| if word == "@" { words } else { word }).collect();
        assert_eq!(called, expected);
    }

    #[tokio::test]
    async fn an_error_of_qemus_is_its_answer_and_what_it_reports_is_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut qemu = BufReader::new(ours);
        theirs
            .write_all(b"{\"event\":\"RESUME\"}\n{\"return\":{}}\n{\"error\":{\"desc\":\"no\"}}\n")
            .await
            .unwrap();
        drop(theirs);
        answered(&mut qemu).await.unwrap();
        assert_eq!(answered(&mut qemu).await.unwrap_err().to_string(), "{\"desc\":\"no\"}");
        assert_eq!(answered(&mut qemu).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
