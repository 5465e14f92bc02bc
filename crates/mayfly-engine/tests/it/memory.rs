//! How much of a library is in memory at once.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;

use mayfly_engine::check_library;
use mayfly_library::Library;
use mayfly_library::tree::BYTES_MAX;

/// Resources that are as large as they may be.
const LARGE: usize = 20;
/// What may be in memory: what one has in it, twice for whoever reads into what grows, and once more for what is made of it.
const MEMORY_MAX: usize = 4 * BYTES_MAX;

/// A file of zeros, which takes no room on the disk.
fn sparse(path: &Path, bytes: usize) {
    fs::File::create(path).unwrap().set_len(bytes as u64).unwrap();
}

fn skill(top: &Path, name: &str, bytes: usize) {
    let folder = top.join("skill/_global").join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("SKILL.md"), "Look.").unwrap();
    sparse(&folder.join("data"), bytes);
}

/// The most memory that this process has had, in bytes.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Covers S12: of a skill of 100 MB no more is read than a resource may have, and of many large ones one at a time.
#[test]
fn a_check_has_one_resource_in_memory_at_a_time() {
    let top = tempfile::tempdir().unwrap();
    skill(top.path(), "huge", 100_000_000);
    (0..LARGE).for_each(|at| skill(top.path(), &format!("large-{at}"), BYTES_MAX - 5));
    let before = peak();
    let problems: Vec<_> = check_library(&Library::at(top.path())).iter().map(ToString::to_string).collect();
    let together = LARGE * BYTES_MAX;
    assert_eq!(
        problems,
        [
            "skill/_global/huge/data: makes the resource larger than 16 MiB",
            &format!(
                "the library: has at least {together} bytes for this task, and 67108864 are the most: leave some out"
            ),
        ]
    );
    let grown = peak() - before;
    assert!(grown < MEMORY_MAX, "{grown} bytes");
}
