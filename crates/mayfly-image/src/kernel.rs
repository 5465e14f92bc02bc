//! The kernel of virtual machines, in both forms, and the initramfs that goes with it: from Debian's packages, or of a file.
//!
//! ```text
//! linux-image-…-cloud-amd64 ─► dpkg-deb ─┬─► boot/vmlinuz-…     ─► the bzImage ─► what is packed in it: an ELF
//!                                        └─► lib/modules/…/*.ko ─┐
//! busybox-static ──────────────► dpkg-deb ─► busybox ────────────┴─► the initramfs
//! ```
//!
//! A kernel of another file is one that has all of [`MODULES`] in itself.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use flate2::read::GzDecoder;

use crate::cpio::{self, Member};
use crate::debian::Programs;

/// What an image is entered with, in the order in which the modules need each other.
const MODULES: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_blk",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "erofs",
    "overlay",
];
/// What some of them need on older kernels, before which one.
const BEFORE: [(&str, &str); 1] = [("erofs", "libcrc32c")];
/// The first program: it loads the modules and enters the image, whichever disk that is.
const INIT: &str = "\
#!/bin/busybox sh
busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do
    [ -e \"$module\" ] && { busybox insmod \"$module\" || echo \"cannot load $module\"; }
done
for disk in /dev/vda /dev/vdb; do
    busybox mount -t erofs -o ro \"$disk\" /root && break
done 2>/dev/null
exec busybox switch_root /root /opt/mayfly/mayfly worker --vm
";
/// The largest file that is read whole.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// Where things are in a bzImage, as the kernel's boot protocol has it, and what it is known by.
const SETUP_SECTORS_AT: usize = 0x1f1;
const BOOT_MAGIC_AT: usize = 0x202;
const BOOT_MAGIC: &[u8] = b"HdrS";
const PAYLOAD_OFFSET_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;
const SECTOR_BYTES: usize = 512;
/// Behind what is packed, its length unpacked, but where the packer has its own.
const LENGTH_BYTES: usize = 4;
/// How what is packed begins, and the program that unpacks it.
const PACKERS: [(&[u8], &str); 3] =
    [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x02\x21\x4c\x18", "lz4")];
const GZIP: &[u8] = b"\x1f\x8b";
const ELF: &[u8] = b"\x7fELF";

/// Files by their paths in a package.
type Files = BTreeMap<String, Vec<u8>>;

/// A kernel, and what its initramfs has.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) bz_image: Vec<u8>,
    modules: Vec<(String, Vec<u8>)>,
    busybox: Vec<u8>,
}

impl Kernel {
    /// Of these archives: of a kernel, and of busybox.
    pub fn of_packages(
        kernel: &Path,
        busybox: &Path,
        scratch: &Path,
        programs: Programs<'_>,
    ) -> Result<Self, BadKernel> {
        let is_part = |path: &str| {
            path.starts_with("boot/vmlinuz-")
                || path.ends_with("/modules.builtin")
                || file_of(path).is_some_and(|name| needed().any(|needed| needed == name))
        };
        let files = unpacked(kernel, programs, is_part)?;
        let bz_image = files.iter().find(|(path, _)| path.starts_with("boot/"));
        let bz_image = bz_image.ok_or_else(|| BadKernel::new(kernel, "has no boot/vmlinuz"))?.1.clone();
        let modules = modules(kernel, &files, scratch, programs)?;
        Ok(Self { bz_image, modules, busybox: busybox_of(busybox, programs)? })
    }

    /// This one, which has all that it needs in itself.
    pub fn own(bz_image: Vec<u8>, busybox: &Path, programs: Programs<'_>) -> Result<Self, BadKernel> {
        Ok(Self { bz_image, modules: Vec::new(), busybox: busybox_of(busybox, programs)? })
    }

    /// What is packed in it.
    pub fn elf(&self, scratch: &Path, programs: Programs<'_>) -> Result<Vec<u8>, BadKernel> {
        let it = Path::new("the kernel");
        let payload =
            payload(&self.bz_image).ok_or_else(|| BadKernel::new(it, "is no bzImage for x86-64"))?;
        let elf = if payload.starts_with(GZIP) {
            whole(GzDecoder::new(payload)).map_err(|error| BadKernel::of(it, "cannot be unpacked", error))?
        } else {
            let packer = PACKERS.iter().find(|(magic, _)| payload.starts_with(magic));
            let (_, program) =
                packer.ok_or_else(|| BadKernel::new(it, "is packed in a way that is not known"))?;
            let without_length = &payload[..payload.len() - LENGTH_BYTES];
            filtered(program, without_length, scratch, programs).map_err(|error| {
                let why = format!("cannot be unpacked by {program}: as root, apt-get install {program}");
                BadKernel::of(it, why, error)
            })?
        };
        match elf.starts_with(ELF) {
            true => Ok(elf),
            false => Err(BadKernel::new(it, "has something else in it than an ELF")),
        }
    }

    /// What it starts with.
    pub(crate) fn initramfs(&self) -> io::Result<Vec<u8>> {
        let mut members: Vec<Member> = ["bin", "dev", "modules", "root"].map(Member::folder).into();
        members.push(Member::program("bin/busybox", self.busybox.clone()));
        for (number, (name, content)) in self.modules.iter().enumerate() {
            members.push(Member::program(&format!("modules/{number:02}-{name}.ko"), content.clone()));
        }
        members.push(Member::program("init", INIT.into()));
        cpio::packed(&members)
    }
}

/// The modules that may be in a package, in their order.
fn needed() -> impl Iterator<Item = &'static str> {
    MODULES.iter().flat_map(|module| {
        let before = BEFORE.iter().filter(move |(of, _)| of == module).map(|(_, before)| *before);
        before.chain([*module])
    })
}

/// Of a path such as `lib/modules/6.1/kernel/fs/erofs/erofs.ko.xz`: `erofs`. Some files have `-` where the module has `_`.
fn file_of(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let name = name.strip_suffix(".xz").unwrap_or(name);
    Some(name.strip_suffix(".ko")?.replace('-', "_"))
}

fn modules(
    package: &Path,
    files: &Files,
    scratch: &Path,
    programs: Programs<'_>,
) -> Result<Vec<(String, Vec<u8>)>, BadKernel> {
    let built_in = files.iter().find(|(path, _)| path.ends_with("/modules.builtin"));
    let built_in = String::from_utf8_lossy(built_in.map_or(&[][..], |(_, text)| text)).into_owned();
    let mut modules = Vec::new();
    for name in needed() {
        let found = files.iter().find(|(path, _)| file_of(path).as_deref() == Some(name));
        match found {
            Some((path, content)) if path.strip_suffix(".xz").is_some() => {
                let unpacked = filtered("xz", content, scratch, programs).map_err(|error| {
                    BadKernel::of(package, format!("has a module {name} that cannot be unpacked"), error)
                })?;
                modules.push((name.to_owned(), unpacked));
            }
            Some((_, content)) => modules.push((name.to_owned(), content.clone())),
            None if built_in.lines().any(|path| file_of(path).as_deref() == Some(name)) => {}
            None if BEFORE.iter().any(|(_, before)| *before == name) => {}
            None => return Err(BadKernel::new(package, format!("has no module {name}"))),
        }
    }
    Ok(modules)
}

fn busybox_of(package: &Path, programs: Programs<'_>) -> Result<Vec<u8>, BadKernel> {
    let files = unpacked(package, programs, |path| path.ends_with("bin/busybox"))?;
    files.into_values().next().ok_or_else(|| BadKernel::new(package, "has no busybox"))
}

/// Those of a package's files that are wanted.
fn unpacked(
    package: &Path,
    programs: Programs<'_>,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Files, BadKernel> {
    let unpack = || -> io::Result<Files> {
        let mut dpkg = programs.start("dpkg-deb");
        dpkg.arg("--fsys-tarfile").arg(package).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = dpkg.stderr(Stdio::null()).spawn()?;
        let mut files = Files::new();
        let mut tar = tar::Archive::new(child.stdout.take().expect("a pipe"));
        for entry in tar.entries()? {
            let entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
            if entry.header().entry_type().is_file() && is_wanted(&path) {
                files.insert(path, whole(entry)?);
            }
        }
        // What is left of it is padding, which it waits to be read.
        io::copy(&mut tar.into_inner(), &mut io::sink())?;
        match child.wait()?.success() {
            true => Ok(files),
            false => Err(io::Error::other("dpkg-deb says no")),
        }
    };
    unpack().map_err(|error| BadKernel::of(package, "cannot be unpacked", error))
}

fn whole(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

/// What a program of this machine makes of these bytes.
fn filtered(program: &str, bytes: &[u8], scratch: &Path, programs: Programs<'_>) -> io::Result<Vec<u8>> {
    let mut packed = tempfile::tempfile_in(scratch)?;
    packed.write_all(bytes)?;
    packed.rewind()?;
    let mut command = programs.start(program);
    let said = command.arg("-dc").stdin(packed).stderr(Stdio::null()).output()?;
    match said.status.success() {
        true => Ok(said.stdout),
        false => Err(io::Error::other(format!("{program} says no ({})", said.status))),
    }
}

/// Whether these bytes are a kernel in the form that is known here.
pub fn is_bz_image(bytes: &[u8]) -> bool {
    payload(bytes).is_some()
}

/// What is packed in a bzImage.
fn payload(bz_image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let bytes = bz_image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if bz_image.get(BOOT_MAGIC_AT..BOOT_MAGIC_AT + BOOT_MAGIC.len())? != BOOT_MAGIC {
        return None;
    }
    // What says 0 has 4, as it was before there was such a number.
    let sectors = match usize::from(*bz_image.get(SETUP_SECTORS_AT)?) {
        0 => 4,
        sectors => sectors,
    };
    let from = ((sectors + 1) * SECTOR_BYTES).checked_add(number(PAYLOAD_OFFSET_AT)?)?;
    let payload = bz_image.get(from..from.checked_add(number(PAYLOAD_LENGTH_AT)?)?)?;
    (payload.len() > LENGTH_BYTES).then_some(payload)
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
#[error("{what} {why}")]
pub struct BadKernel {
    what: String,
    why: String,
    source: Option<io::Error>,
}

impl BadKernel {
    fn new(what: &Path, why: impl Into<String>) -> Self {
        Self { what: what.display().to_string(), why: why.into(), source: None }
    }

    fn of(what: &Path, why: impl Into<String>, source: io::Error) -> Self {
        Self { source: Some(source), ..Self::new(what, why) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage with this packed in it.
    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR_BYTES];
        image[SETUP_SECTORS_AT] = 1;
        image[BOOT_MAGIC_AT..BOOT_MAGIC_AT + 4].copy_from_slice(BOOT_MAGIC);
        image.resize(3 * SECTOR_BYTES, 0);
        let put = |image: &mut Vec<u8>, at: usize, value: usize| {
            image[at..at + 4].copy_from_slice(&u32::try_from(value).expect("works").to_le_bytes());
        };
        put(&mut image, PAYLOAD_OFFSET_AT, SECTOR_BYTES);
        put(&mut image, PAYLOAD_LENGTH_AT, payload.len());
        image.extend(payload);
        image
    }

    fn elf_of(bz_image: Vec<u8>) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().expect("works");
        let programs = |program: &str| std::process::Command::new(program);
        let kernel = Kernel { bz_image, modules: Vec::new(), busybox: Vec::new() };
        kernel.elf(dir.path(), Programs(&programs)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_packed_in_a_kernel_is_found() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"\x7fELF and more").expect("works");
        let mut packed = packed.finish().expect("works");
        packed.extend([13, 0, 0, 0]);
        assert_eq!(elf_of(bz_image(&packed)).expect("works"), b"\x7fELF and more");
        // Packed by xz, with its length behind it.
        let packed = filtered_by_xz(b"\x7fELF more");
        assert_eq!(elf_of(bz_image(&packed)).expect("works"), b"\x7fELF more");
    }

    fn filtered_by_xz(bytes: &[u8]) -> Vec<u8> {
        let mut from = tempfile::tempfile().expect("works");
        from.write_all(bytes).expect("works");
        from.rewind().expect("works");
        let mut xz = std::process::Command::new("xz");
        let said = xz.args(["-c", "--check=crc32"]).stdin(from).output().expect("works");
        [said.stdout, vec![10, 0, 0, 0]].concat()
    }

    #[test]
    fn what_is_no_kernel_is_refused_in_words() {
        let whole = bz_image(GZIP);
        for cut in [0, SETUP_SECTORS_AT, 3 * SECTOR_BYTES, whole.len() - 1] {
            assert_eq!(
                elf_of(whole[..cut].to_vec()).expect_err("refused"),
                "the kernel is no bzImage for x86-64",
                "{cut}"
            );
        }
        assert!(elf_of(b"\x7fELF".to_vec()).expect_err("refused").ends_with("is no bzImage for x86-64"));
        assert!(
            elf_of(bz_image(b"unknown")).expect_err("refused").ends_with("packed in a way that is not known")
        );
    }

    #[test]
    fn modules_are_taken_in_their_order_and_one_that_is_nowhere_is_named() {
        let dir = tempfile::tempdir().expect("works");
        let programs = |program: &str| std::process::Command::new(program);
        let mut files: Files = needed()
            .filter(|name| *name != "overlay" && *name != "libcrc32c")
            .map(|name| (format!("lib/modules/6/kernel/{}.ko", name.replace('_', "-")), name.into()))
            .collect();
        let missing =
            modules(Path::new("p.deb"), &files, dir.path(), Programs(&programs)).expect_err("refused");
        assert_eq!(missing.to_string(), "p.deb has no module overlay");
        files.insert("lib/modules/6/modules.builtin".to_owned(), b"kernel/fs/overlay.ko\n".to_vec());
        let found = modules(Path::new("p.deb"), &files, dir.path(), Programs(&programs)).expect("works");
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, MODULES[..8]);
        assert!(found.iter().all(|(name, content)| name.as_bytes() == content));
    }
}
