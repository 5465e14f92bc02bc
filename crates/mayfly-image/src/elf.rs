//! Whether a program needs nothing but the kernel, and for which processors it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The length of the head, and that of an entry of its table of segments.
const HEAD_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
/// The most segments that are looked at.
const SEGMENTS_MAX: u16 = 1000;
/// The kind of segment that names the program that loads this one.
const INTERPRETER: u32 = 3;
/// The longest such name.
const INTERPRETER_BYTES_MAX: u64 = 4096;
/// Processors, as ELF numbers them, and as OCI calls them.
const PROCESSORS: [(u16, &str); 2] = [(0x3e, "amd64"), (0xb7, "arm64")];

/// The processors of this machine, as OCI calls them.
pub fn here() -> Option<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Some("amd64"),
        "aarch64" => Some("arm64"),
        _ => None,
    }
}

/// Checks that a program is for these processors and needs no other program or library.
pub fn check(path: &Path, file: &File, processors: &str) -> Result<(), NotStatic> {
    let none = || NotStatic::NoProgram { path: path.to_owned() };
    let head = read::<HEAD_BYTES>(file, 0).map_err(|_| none())?;
    // 64 bits, the low byte first.
    if head[..6] != *b"\x7fELF\x02\x01" {
        return Err(none());
    }
    let half = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let long =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let number = half(&head, 18);
    let is_for = PROCESSORS.iter().find(|(is, _)| *is == number).map(|(_, name)| *name);
    if is_for != Some(processors) {
        let (path, is_for) = (path.to_owned(), is_for.unwrap_or("others"));
        return Err(NotStatic::OtherProcessors { path, is_for, wanted: processors.to_owned() });
    }
    let (table, size, count) = (long(&head, 32), half(&head, 54), half(&head, 56));
    if usize::from(size) != SEGMENT_BYTES || count > SEGMENTS_MAX {
        return Err(none());
    }
    for segment in 0..u64::from(count) {
        let at = table.checked_add(segment * SEGMENT_BYTES as u64).ok_or_else(none)?;
        let segment = read::<SEGMENT_BYTES>(file, at).map_err(|_| none())?;
        if u32::from_le_bytes([segment[0], segment[1], segment[2], segment[3]]) == INTERPRETER {
            let mut loader =
                vec![0; usize::try_from(long(&segment, 32).min(INTERPRETER_BYTES_MAX)).expect("short")];
            file.read_exact_at(&mut loader, long(&segment, 8)).map_err(|_| none())?;
            let loader = String::from_utf8_lossy(&loader).trim_end_matches('\0').to_owned();
            return Err(NotStatic::Dynamic { path: path.to_owned(), loader });
        }
    }
    Ok(())
}

fn read<const N: usize>(file: &File, at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// Why a program cannot be an image's first.
#[derive(Debug, thiserror::Error)]
pub enum NotStatic {
    /// It is none.
    #[error("`{}` is no program for Linux with 64 bits", path.display())]
    NoProgram {
        /// The file.
        path: PathBuf,
    },
    /// It is for other machines.
    #[error("`{}` is a program for {is_for} processors, and the image is for {wanted}", path.display())]
    OtherProcessors {
        /// The file.
        path: PathBuf,
        /// Its processors.
        is_for: &'static str,
        /// Those of the image.
        wanted: String,
    },
    /// It runs only where libraries of a certain system are.
    #[error("`{}` is not static: it needs {loader}, and libraries as old as this system's", path.display())]
    Dynamic {
        /// The file.
        path: PathBuf,
        /// What loads it.
        loader: String,
    },
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A head for x86-64, with these kinds of segments; the loader's name is behind them.
    fn program(kinds: &[u32]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(HEAD_BYTES, 0);
        bytes[18..20].copy_from_slice(&0x3e_u16.to_le_bytes());
        bytes[32..40].copy_from_slice(&(HEAD_BYTES as u64).to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(kinds.len()).expect("few").to_le_bytes());
        let behind = (HEAD_BYTES + kinds.len() * SEGMENT_BYTES) as u64;
        for kind in kinds {
            let mut segment = [0; SEGMENT_BYTES];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[8..16].copy_from_slice(&behind.to_le_bytes());
            segment[32..40].copy_from_slice(&11_u64.to_le_bytes());
            bytes.extend(segment);
        }
        bytes.extend(b"/lib/ld.so\0");
        bytes
    }

    fn checked(bytes: &[u8], processors: &str) -> Result<(), String> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        check(Path::new("/m"), &file, processors).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_that_another_has_to_load_is_refused_by_that_ones_name() {
        checked(&program(&[1, 2, 1]), "amd64").expect("static");
        let dynamic = checked(&program(&[1, INTERPRETER]), "amd64").expect_err("dynamic");
        assert_eq!(dynamic, "`/m` is not static: it needs /lib/ld.so, and libraries as old as this system's");
    }

    #[test]
    fn a_program_for_others_and_what_is_none_are_refused() {
        let other = checked(&program(&[1]), "arm64").expect_err("for others");
        assert_eq!(other, "`/m` is a program for amd64 processors, and the image is for arm64");
        let whole = program(&[1, INTERPRETER]);
        for cut in [0, 5, 63, HEAD_BYTES + 10, whole.len() - 1] {
            let none = checked(&whole[..cut], "amd64").expect_err("cut off");
            assert_eq!(none, "`/m` is no program for Linux with 64 bits", "{cut}");
        }
        checked(b"#!/bin/sh\n", "amd64").expect_err("a script");
    }

    #[test]
    fn this_very_program_is_read() {
        let path = std::env::current_exe().expect("it has a path");
        let checked = check(&path, &File::open(&path).expect("it is there"), here().expect("known"));
        // Which of both it is, is the toolchain's.
        assert!(matches!(checked, Ok(()) | Err(NotStatic::Dynamic { .. })), "{checked:?}");
    }
}
