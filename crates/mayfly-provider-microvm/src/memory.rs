//! Whether this host has the memory that a guest may come to use.
//!
//! A guest takes it bit by bit, so more guests than there is memory for all would start, and some end when it runs short.

use std::fs;

use mayfly_holder::{Failure, Step};

/// Refuses what this host never has; what it lacks only for the moment is asked for again.
pub(crate) fn room(bytes: u64) -> Result<(), Failure> {
    let told = fs::read_to_string("/proc/meminfo").step("read /proc/meminfo")?;
    match (field(&told, "MemTotal"), field(&told, "MemAvailable")) {
        (Some(total), _) if bytes > total => Err(Failure::new(format!(
            "its memory is to be {}, and this host has {}: give machines less (`memory` in [machine])",
            mib(bytes),
            mib(total)
        ))),
        (_, Some(available)) if bytes > available => {
            let reason = format!(
                "its memory is to be {}, and {} are free now: let fewer run at once (`parallel` in [serve])",
                mib(bytes),
                mib(available)
            );
            Err(Failure { may_pass: true, ..Failure::new(reason) })
        }
        _ => Ok(()),
    }
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
    use super::*;

    #[test]
    fn a_guest_that_this_host_can_never_have_is_refused() {
        room(1 << 20).unwrap();
        let failure = room(1 << 60).unwrap_err();
        assert!(!failure.may_pass);
        assert!(failure.to_string().contains("give machines less"), "{failure}");
    }

    #[test]
    fn the_kernels_lines_are_read_by_their_names() {
        let told = "MemTotal:       24590 kB\nMemFree:  1 kB\nMemAvailable:    7 kB\n";
        assert_eq!(field(told, "MemTotal"), Some(24590 << 10));
        assert_eq!(field(told, "MemAvailable"), Some(7 << 10));
        assert_eq!(field(told, "Mem"), None);
    }
}
