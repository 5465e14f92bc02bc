//! What machines start from, looked at byte by byte before the first machine does.
//!
//! Half a gigabyte is read for that, so what was found good stays so until one of the files is another, by the kernel's word:
//! its number, its length and its times.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mayfly_core::sha256_of;
use mayfly_holder::{Failure, Step};
use mayfly_wire::system::{FILES, IMAGE, INITRAMFS, KERNEL, KERNEL_ELF, LIST, System};
use serde::{Deserialize, Serialize};

/// What makes one.
const FIX: &str = "`mayfly image build --for microvm` makes it anew";
/// The longest list.
const LIST_BYTES_MAX: u64 = 1 << 16;

/// The parts of a system; nobody writes to them any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guest {
    /// A Linux kernel, as a bzImage.
    pub(crate) kernel: PathBuf,
    /// The same, as an ELF.
    pub(crate) kernel_elf: PathBuf,
    /// What loads the kernel's modules, and enters the image.
    pub(crate) initramfs: PathBuf,
    /// The root file system.
    pub(crate) image: PathBuf,
}

/// What was found good last.
#[derive(Debug, Default)]
pub(crate) struct Checked(Mutex<Option<Stamps>>);

/// What the kernel says of each file, and of the list.
type Stamps = BTreeMap<PathBuf, (u64, u64, u64, i64, i64, i64, i64)>;

impl Checked {
    /// The system in a folder, if it is as it was made.
    pub(crate) fn guest(&self, folder: &Path) -> Result<Guest, Failure> {
        let folder = fs::canonicalize(folder)
            .step(format!("find what virtual machines start from at {} ({FIX})", folder.display()))?;
        let mut checked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&folder)?;
        if checked.as_ref() != Some(&stamps) {
            check(&folder)?;
            *checked = Some(stamps);
        }
        Ok(Guest {
            kernel: folder.join(KERNEL),
            kernel_elf: folder.join(KERNEL_ELF),
            initramfs: folder.join(INITRAMFS),
            image: folder.join(IMAGE),
        })
    }
}

fn stamps(folder: &Path) -> Result<Stamps, Failure> {
    let stamp = |is: &Metadata| {
        (is.dev(), is.ino(), is.len(), is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec())
    };
    let one = |name: &&str| {
        let path = folder.join(name);
        let is = fs::metadata(&path).step(format!("find {} ({FIX})", path.display()))?;
        match is.is_file() {
            true => Ok((path, stamp(&is))),
            false => Err(Failure::new(format!("{} is no file: {FIX}", path.display()))),
        }
    };
    [LIST].iter().chain(&FILES).map(one).collect()
}

fn check(folder: &Path) -> Result<(), Failure> {
    let list = folder.join(LIST);
    let mut text = Vec::new();
    let read = File::open(&list)
        .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, LIST_BYTES_MAX), &mut text));
    read.step(format!("read {}", list.display()))?;
    let other = |path: &Path| Failure::new(format!("{} is not as it was made: {FIX}", path.display()));
    let system: System = serde_json::from_slice(&text).map_err(|_| other(&list))?;
    for name in FILES {
        let path = folder.join(name);
        let is = File::open(&path).and_then(sha256_of).step(format!("read {}", path.display()))?;
        if system.files.get(name) != Some(&is) {
            return Err(other(&path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(folder: &Path) {
        let files = FILES.iter().map(|name| {
            fs::write(folder.join(name), name).unwrap();
            ((*name).to_owned(), sha256_of(name.as_bytes()).unwrap())
        });
        let (key, image, kernel) = (String::new(), String::new(), String::new());
        let system = System { key, image, kernel, files: files.collect() };
        fs::write(folder.join(LIST), serde_json::to_vec(&system).unwrap()).unwrap();
    }

    #[test]
    fn a_file_that_is_not_as_it_was_made_is_named_and_one_that_was_put_right_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let folder = fs::canonicalize(dir.path()).unwrap();
        system(&folder);
        let checked = Checked::default();
        assert_eq!(checked.guest(dir.path()).unwrap().image, folder.join(IMAGE));
        for name in FILES.iter().chain(&[LIST]) {
            let good = fs::read(folder.join(name)).unwrap();
            let mut bad = good.clone();
            bad[0] ^= 1;
            fs::write(folder.join(name), bad).unwrap();
            let words = checked.guest(dir.path()).unwrap_err().to_string();
            let path = folder.join(name);
            assert_eq!(
                words,
                format!(
                    "{} is not as it was made: `mayfly image build --for microvm` makes it anew",
                    path.display()
                )
            );
            fs::write(folder.join(name), good).unwrap();
            checked.guest(dir.path()).unwrap();
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        system(dir.path());
        fs::remove_file(dir.path().join(INITRAMFS)).unwrap();
        let words = Checked::default().guest(dir.path()).unwrap_err().to_string();
        assert!(words.contains("initramfs (`mayfly image build --for microvm` makes it anew)"), "{words}");
        let words = Checked::default().guest(&dir.path().join("none")).unwrap_err().to_string();
        assert!(words.contains("/none (`mayfly image build --for microvm` makes it anew)"), "{words}");
    }
}
