//! A machine's own disk: an ext4 on a sparse file, which takes of the host's disk what is written to it.
//!
//! The host makes it, and never reads what a guest has made of it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mayfly_holder::{Failure, Step, run};

/// How long an empty file system takes to be made.
const MAKE_MAX: Duration = Duration::from_secs(60);
/// No journal: nobody looks at it after a crash. What can be written later is.
const OPTIONS: [&str; 7] =
    ["-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0", "-m0"];

/// Makes it.
pub(super) fn make(mkfs: &Path, at: &Path, bytes: u64) -> Result<(), Failure> {
    let file = File::create_new(at).step("make the machine's disk")?;
    file.set_len(bytes).step("make the machine's disk")?;
    let mut command = Command::new(mkfs);
    command.args(OPTIONS).arg(at).env_clear().env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = run(&mut command, MAKE_MAX).step("make the file system of the machine's disk")?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!("cannot make the file system of the machine's disk ({status})"))),
    }
}
