//! Whether a file is one that no compression makes shorter, such as a film or another archive: trying takes much longer
//! than bringing it out as it is.
//!
//! Bound: [`SAMPLES`] of it are read.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// How many places of a file are looked at, and how many bytes at each.
const SAMPLES: u64 = 8;
const SAMPLE_BYTES: usize = 64 * 1024;
/// From how many bits on a byte tells nothing of the next.
const BITS_MIN: f64 = 7.9;

/// Whether the file there, of this length, is such.
pub(super) fn is_dense_at(path: &Path, length: u64) -> bool {
    // What takes its place meanwhile must not hold us up, or lead elsewhere.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    file.is_ok_and(|file| is_dense(&file, length))
}

/// Whether a file of this length is such. One that cannot be read is not: whoever takes it says so.
pub(super) fn is_dense(file: &File, length: u64) -> bool {
    count(file, length).is_ok_and(|counts| bits(&counts) >= BITS_MIN)
}

/// How often each byte is in the samples.
fn count(file: &File, length: u64) -> io::Result<[u32; 256]> {
    let (mut counts, mut sample) = ([0; 256], vec![0; SAMPLE_BYTES]);
    for number in 0..SAMPLES {
        let read = file.read_at(&mut sample, length / SAMPLES * number)?;
        sample[..read].iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    }
    Ok(counts)
}

/// How many bits it takes on average to tell such a byte from the others.
fn bits(counts: &[u32; 256]) -> f64 {
    let all = f64::from(counts.iter().sum::<u32>());
    let of_one = |count: f64| count / all * (all / count).log2();
    counts.iter().filter(|&&count| count > 0).map(|&count| of_one(f64::from(count))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_are_dense_and_text_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut state = 88_172_645_463_325_252_u64;
        let random: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(100_000)
        .flatten()
        .collect();
        let is_dense_as = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            is_dense_at(&path, bytes.len() as u64)
        };
        assert!(is_dense_as(&random));
        let text = hex::encode(&random);
        assert!(!is_dense_as(text.as_bytes()), "four bits of each byte tell nothing");
        let half = [&random[..400_000], &vec![0; 400_000]].concat();
        assert!(!is_dense_as(&half), "half of it can be left out");
        assert!(!is_dense_as(b""));
        assert!(!is_dense_at(&dir.path().join("none"), 1));
    }
}
