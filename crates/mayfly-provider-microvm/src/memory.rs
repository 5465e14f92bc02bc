//! Whether this host has the memory that a guest may come to use.
//!
//! A guest takes it bit by bit, so more guests than there is memory for all would start, and some end when it runs short.

use std::fs;

use mayfly_holder::{Failure, Places, Step};

use crate::machine;

/// Refuses what this host never has; what it lacks only for the moment is asked for again. `promised` are the bytes that
/// the other machines may come to use.
pub(crate) fn room(bytes: u64, promised: u64) -> Result<(), Failure> {
    fits(&fs::read_to_string("/proc/meminfo").step("read /proc/meminfo")?, bytes, promised)
}

fn fits(told: &str, bytes: u64, promised: u64) -> Result<(), Failure> {
    let passing = |why: String| Failure {
        may_pass: true,
        ..Failure::new(format!(
            "its memory is to be {}, and {why}: let fewer run at once (`parallel` in [serve])",
            mib(bytes)
        ))
    };
    match (field(told, "MemTotal"), field(told, "MemAvailable")) {
        (Some(total), _) if bytes > total => Err(Failure::new(format!(
            "its memory is to be {}, and this host has {}: give machines less (`memory` in [machine])",
            mib(bytes),
            mib(total)
        ))),
        (Some(total), _) if bytes > total.saturating_sub(promised) => Err(passing(format!(
            "of the {} of this host {} are promised to other machines",
            mib(total),
            mib(promised)
        ))),
        (_, Some(available)) if bytes > available => Err(passing(format!("{} are free now", mib(available)))),
        _ => Ok(()),
    }
}

/// What the machines that live may come to use.
pub(crate) fn promised(places: &Places) -> Result<u64, Failure> {
    let step = || format!("look at the machines in {}", places.folder().display());
    let mut promised = 0;
    for attempt in places.attempts().step(step())? {
        let folder = places.of(attempt);
        if folder.is_alive().step(step())? {
            promised += machine::state(&folder).memory_bytes;
        }
    }
    Ok(promised)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// A line such as `MemTotal:  24590 kB`, in bytes.
fn field(told: &str, name: &str) -> Option<u64> {
    let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use mayfly_holder::Lock;

    use super::*;

    const TOLD: &str = "MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\n";

    #[test]
    fn a_guest_that_this_host_can_never_have_is_refused() {
        fits(TOLD, 4 << 30, 4 << 30).unwrap();
        let failure = fits(TOLD, 9 << 30, 0).unwrap_err();
        assert!(!failure.may_pass);
        assert!(failure.to_string().contains("give machines less"), "{failure}");
        room(1 << 20, 0).unwrap();
    }

    #[test]
    fn more_guests_than_there_is_memory_for_wait_for_others_to_end() {
        let promised = fits(TOLD, 4 << 30, 5 << 30).unwrap_err();
        let words = "its memory is to be 4096 MiB, and of the 8192 MiB of this host 5120 MiB are promised to other \
                     machines: let fewer run at once (`parallel` in [serve])";
        assert_eq!((promised.to_string().as_str(), promised.may_pass), (words, true));
        let used = fits(TOLD, 7 << 30, 0).unwrap_err();
        assert!(used.may_pass && used.to_string().contains("6144 MiB are free now"), "{used}");
    }

    #[test]
    fn only_machines_that_live_count() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path().to_owned());
        assert_eq!(promised(&places).unwrap(), 0);
        let attempt = |number: u32| format!("00000000-0000-7000-9000-00000000000a.{number}").parse().unwrap();
        let state = machine::State { memory_bytes: 5, ..machine::State::default() };
        let lives = [1, 2, 3].map(|number| {
            let folder = places.of(attempt(number));
            fs::create_dir_all(folder.path()).unwrap();
            folder.write_state(&state).unwrap();
            Lock::acquire(&folder.life()).unwrap()
        });
        assert_eq!(promised(&places).unwrap(), 15);
        let [_one, _two, three] = lives;
        drop(three);
        assert_eq!(promised(&places).unwrap(), 10);
    }

    #[test]
    fn the_kernels_lines_are_read_by_their_names() {
        let told = "MemTotal:       24590 kB\nMemFree:  1 kB\nMemAvailable:    7 kB\n";
        assert_eq!(field(told, "MemTotal"), Some(24590 << 10));
        assert_eq!(field(told, "MemAvailable"), Some(7 << 10));
        assert_eq!(field(told, "Mem"), None);
    }
}
