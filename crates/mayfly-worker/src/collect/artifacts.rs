//! Brings out what the task was to leave besides its work: the files that its patterns mean, in one archive.
//!
//! Looked for below the workspace alone, no link is followed, and no folder entered in which none could be; ignored files are
//! taken too, since what is built usually is. What could be a credential by its name never is.
//!
//! Bounds: [`ENTRIES_MAX`] entries are looked at; those of [`mayfly_library::artifacts`] for files and bytes; the caller's time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mayfly_core::causes;
use mayfly_library::artifacts::{BYTES_MAX, FILES_MAX, Pattern, Writer, is_plain, is_private};
use mayfly_wire::api::{Artifacts, Collected};
use mayfly_wire::worker::NO_ARTIFACTS;
use rustix::fs::OFlags;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Collector;

/// The most entries of folders that are looked at.
const ENTRIES_MAX: usize = 1_000_000;

/// What was packed, and what was not.
#[derive(Debug, Default)]
struct Packed {
    artifacts: Artifacts,
    lost: Vec<String>,
    notes: Vec<String>,
}

impl Collector<'_> {
    /// Packs and hands over what was asked for.
    pub(super) async fn artifacts(&self, collected: &mut Collected, deadline: Instant) {
        let patterns: Vec<Pattern> =
            self.order.artifacts.iter().filter_map(|text| text.parse().ok()).collect();
        if patterns.is_empty() {
            return;
        }
        let lost = match timeout_at(deadline, self.bring_out(patterns, collected)).await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => "the time for collecting ran out".to_owned(),
        };
        collected.unsaved.push(format!("the artifacts: {lost}"));
    }

    async fn bring_out(&self, patterns: Vec<Pattern>, collected: &mut Collected) -> Result<(), String> {
        let scratch = self.scratch().map_err(|error| format!("no place for an archive: {error}"))?;
        let (workspace, archive) = (self.workspace.to_owned(), scratch.path().join("artifacts"));
        let (to, given_up) = (archive.clone(), CancellationToken::new());
        let _given_up = given_up.clone().drop_guard();
        let packing = spawn_blocking(move || pack(&workspace, &patterns, &to, &given_up));
        let packed = packing.await.expect("reading does not panic").map_err(|error| error.to_string())?;
        collected.unsaved.extend(packed.lost.into_iter().map(|line| format!("an artifact: {line}")));
        collected.notes.extend(packed.notes);
        if packed.artifacts.files == 0 {
            collected.notes.push(NO_ARTIFACTS.to_owned());
            return Ok(());
        }
        self.upload().put("artifacts", &archive).await.map_err(|error| causes(&error))?;
        collected.artifacts = Some(packed.artifacts);
        Ok(())
    }
}

fn pack(
    workspace: &Path,
    patterns: &[Pattern],
    to: &Path,
    given_up: &CancellationToken,
) -> io::Result<Packed> {
    let mut packed = Packed::default();
    let mut found = find(workspace, patterns, &mut packed, given_up);
    found.sort();
    let mut writer = Writer::new(BufWriter::new(File::create(to)?));
    let mut left_out = 0_u64;
    for path in found {
        if given_up.is_cancelled() {
            break;
        }
        let (file, bytes, executable) = match open(&workspace.join(&path)) {
            Ok(opened) => opened,
            Err(error) => {
                packed.lost.push(format!("`{path}`: {error}"));
                continue;
            }
        };
        let all = packed.artifacts.bytes.saturating_add(bytes);
        if all > BYTES_MAX || packed.artifacts.files >= FILES_MAX as u64 {
            left_out += 1;
            continue;
        }
        // One that cannot be read to its end has spoiled the archive.
        writer.append(&path, executable, bytes, file)?;
        packed.artifacts = Artifacts { files: packed.artifacts.files + 1, bytes: all };
    }
    if left_out > 0 {
        packed.lost.push(format!(
            "{left_out} files are left out: {FILES_MAX} files and {} MiB are the most",
            BYTES_MAX >> 20
        ));
    }
    writer.end()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(packed)
}

/// A plain file that is no link, its length, and whether it is a program.
fn open(path: &Path) -> io::Result<(File, u64, bool)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata.len(), metadata.permissions().mode() & 0o100 != 0)),
        false => Err(io::Error::other("it is no plain file")),
    }
}

/// The paths of the files that are meant.
fn find(
    workspace: &Path,
    patterns: &[Pattern],
    packed: &mut Packed,
    given_up: &CancellationToken,
) -> Vec<String> {
    let (mut found, mut folders, mut left) = (Vec::new(), vec![String::new()], ENTRIES_MAX);
    let (mut private, mut odd) = (0_u64, 0_u64);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(workspace.join(&folder)).into_iter().flatten().flatten() {
            let over = left == 0 || given_up.is_cancelled();
            if over {
                packed.lost.push(format!("the workspace has more than {ENTRIES_MAX} entries"));
                return found;
            }
            left -= 1;
            let kind = entry.file_type();
            let path = PathBuf::from(&folder).join(entry.file_name());
            let Some(path) = path.to_str().map(str::to_owned) else {
                odd += 1;
                continue;
            };
            let is_meant = patterns.iter().any(|pattern| pattern.matches(&path));
            match kind {
                Ok(kind) if kind.is_dir() => {
                    let goes_on = patterns.iter().any(|pattern| pattern.goes_below(&path));
                    folders.extend((goes_on && !is_private(&path)).then_some(path));
                }
                Ok(kind) if kind.is_file() && is_meant => match () {
                    () if is_private(&path) => private += 1,
                    () if !is_plain(&path) => odd += 1,
                    () => found.push(path),
                },
                _ => {}
            }
        }
    }
    if private > 0 {
        packed.notes.push(format!(
            "the artifacts: {private} files stay behind that could hold a credential by their name"
        ));
    }
    if odd > 0 {
        packed
            .notes
            .push(format!("the artifacts: {odd} files stay behind whose names are no printable UTF-8"));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use mayfly_library::artifacts::check;

    use super::*;

    fn packed(workspace: &Path, patterns: &[&str]) -> (Packed, Vec<String>) {
        let patterns: Vec<Pattern> = patterns.iter().map(|text| text.parse().expect(text)).collect();
        let scratch = tempfile::tempdir().expect("a folder");
        let archive = scratch.path().join("a");
        let packed = pack(workspace, &patterns, &archive, &CancellationToken::new()).expect("packed");
        let members = check(File::open(&archive).expect("there")).expect("an archive");
        (packed, members.into_iter().map(|member| member.path).collect())
    }

    /// S17, S46: files of the workspace that are meant, and nothing that a link leads to, or that could be a credential.
    #[test]
    fn what_is_meant_is_packed_and_nothing_else() {
        let top = tempfile::tempdir().expect("a folder");
        let (workspace, outside) = (top.path().join("workspace"), top.path().join("outside"));
        for folder in ["workspace/dist/deep/.git", "workspace/src", "workspace/.ssh", "outside"] {
            fs::create_dir_all(top.path().join(folder)).expect("made");
        }
        for file in [
            "dist/a",
            "dist/deep/b",
            "dist/deep/.git/config",
            "dist/.npmrc",
            ".netrc",
            ".env.local",
            "dist/.Env.production",
            "dist/id_rsa",
            "src/id_ed25519_work",
            ".ssh/key",
            "src/x",
            "odd\n",
        ] {
            fs::write(workspace.join(file), file).expect("written");
        }
        fs::write(outside.join("secret"), "s").expect("written");
        symlink(&outside, workspace.join("dist/link")).expect("made");
        symlink(outside.join("secret"), workspace.join("dist/file")).expect("made");
        let (all, names) = packed(&workspace, &["**"]);
        assert_eq!(names, ["dist/a", "dist/deep/b", "src/x"]);
        assert_eq!(all.artifacts, Artifacts { files: 3, bytes: 22 });
        assert_eq!(all.notes.len(), 2, "{:?}", all.notes);
        assert_eq!(packed(&workspace, &["dist/*", "src/?"]).1, ["dist/a", "src/x"]);
        assert_eq!(packed(&workspace, &["none"]).0.artifacts, Artifacts::default());
    }
}
