//! Which log on this machine an end of an id means.
//!
//! Only the orchestrator knows all tasks. While it cannot be reached, an end that one log here has is enough; the
//! rules are those of the orchestrator. Bound: [`SEVERAL_MAX`] of those that match are named.

use std::fs;
use std::io;
use std::path::Path;

use mayfly_core::TaskId;

use crate::logs::logs_in;

/// The fewest digits that name a task.
const DIGITS_MIN: usize = 4;
/// How many are named where several match.
const SEVERAL_MAX: usize = 10;

/// The tasks whose logs are in `folder` and whose ids end with `end`; none if it is no end of an id.
pub(crate) fn ending_with(folder: &Path, end: &str) -> io::Result<Vec<TaskId>> {
    let digits = end.replace('-', "").to_ascii_lowercase();
    if digits.len() < DIGITS_MIN || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Vec::new());
    }
    let entries = match fs::read_dir(logs_in(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let matching =
            task_of(&entry?.path()).filter(|task| task.uuid().simple().to_string().ends_with(&digits));
        found.extend(matching);
        if found.len() == SEVERAL_MAX {
            break;
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The task of a log, by the name of its file.
fn task_of(path: &Path) -> Option<TaskId> {
    let name = path.file_name()?.to_str()?.strip_suffix(".ndjson")?;
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_names_the_logs_that_have_it() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(ending_with(folder.path(), "1a2b3c4d").expect("looked"), [], "there are no logs yet");
        let ids = ["0193b2c4-0000-7000-8000-01231a2b3c4d", "0193b2c4-0000-7000-8000-0123ffff3c4d"];
        fs::create_dir(logs_in(folder.path())).expect("made");
        for name in
            ids.map(|id| format!("{id}.ndjson")).iter().map(String::as_str).chain(["1a2b3c4d", "x.ndjson"])
        {
            fs::write(logs_in(folder.path()).join(name), "").expect("written");
        }
        let found = |end: &str| {
            let found = ending_with(folder.path(), end).expect("looked").into_iter();
            found.map(|task| task.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("1a2b3c4d"), ids[..1]);
        assert_eq!(found("0123-1A2B3C4D"), ids[..1]);
        assert_eq!(found("3c4d"), ids);
        // S40: what is no end of an id names nothing.
        for end in ["c4d", "", "----", "../1a2b3c4d", "*3c4d", "1a2b3c4e", "é3c4d"] {
            assert_eq!(found(end), [""; 0], "{end}");
        }
    }
}
