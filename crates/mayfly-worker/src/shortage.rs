//! Whom the kernel takes when memory runs short: one of the agent's programs rather than the worker, with which
//! the machine and all work in it would end.
//!
//! Each process has a number, which its children inherit: the greater, the sooner it is killed. Nobody needs a
//! right to raise his own, nor to lower it again to where it was. So the worker raises its own for the moment in
//! which it starts a program. Afterwards it could not be sure to reach it: until a new program is wholly
//! there, its files in `/proc` are not the worker's to write, and when it is, it may have started others.
//! A program can lower its number to the worker's; what it wins is to be killed with it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;

/// The worker's own number, in the file where it is kept.
const FILE: &str = "/proc/self/oom_score_adj";
/// The number of every program: there is no greater one.
const FIRST: &[u8] = b"1000";
/// A number is a few characters.
const BYTES_MAX: u64 = 16;

/// The worker's place in the kernel's order.
#[derive(Debug)]
pub(crate) struct Place {
    file: File,
    own: Vec<u8>,
}

impl Place {
    /// Remembers it. To be called while this process may be read by its user: later the file is not ours to open.
    pub(crate) fn own() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(FILE)?;
        let mut own = Vec::new();
        (&file).take(BYTES_MAX).read_to_end(&mut own)?;
        Ok(Self { file, own })
    }

    /// Starts processes that are killed before us. One call at a time.
    pub(crate) fn before_us<T>(&self, start: impl FnOnce() -> T) -> T {
        // Neither is refused; and if one were, a program would be as dear to the kernel as we are, no more.
        let _ = self.file.write_all_at(FIRST, 0);
        let started = start();
        let _ = self.file.write_all_at(&self.own, 0);
        started
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// R05
    #[test]
    fn what_is_started_is_killed_for_memory_before_us_and_we_stay_where_we_were() {
        let own = || std::fs::read_to_string(FILE).unwrap();
        let before = own();
        let place = Place::own().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sh -c 'cat /proc/$$/oom_score_adj; :'"]).stdout(std::process::Stdio::piped());
        let child = place.before_us(|| command.spawn()).unwrap();
        assert_eq!(own(), before);
        assert_eq!(child.wait_with_output().unwrap().stdout, b"1000\n");
    }
}
