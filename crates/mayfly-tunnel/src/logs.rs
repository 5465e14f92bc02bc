//! The logs of an orchestrator's tasks on the user's machine, a file of lines for each.
//!
//! ```text
//! <folder>/<store>/position              up to here everything is in the logs, for good
//! <folder>/<store>/logs/<task>.ndjson    the events of one task, a line each, from number 1
//! <folder>/<store>/logs/<task>.damaged   what was no such log, and was set aside
//! <folder>/<store>/logs/<task>.fetched   what was fetched of it so far; while it is there, the task is set aside
//! ```
//!
//! Another database has another folder, since its positions and tasks are others. A log is only ever appended
//! to, and what comes twice is in it once: after a crash the position is older than the logs, and what is sent
//! again is known by its numbers. Event N of a log is its Nth line.
//!
//! A log that cannot be gone on with concerns its task alone: it is set aside, what comes for the task is left out
//! until somebody has fetched the whole ([`Logs::take_back`]), and the others go on. Such a log is found where more comes
//! for it, for the first time by reading all of it, and by whoever reads it ([`Logs::look_at`]).
//!
//! Bounds: [`OPEN_MAX`] files, [`ASIDE_MAX`] logs that are set aside at once.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Buf as _;
use mayfly_core::{TaskId, causes};
use mayfly_failpoint::failpoint;
use mayfly_wire::tunnel::{Chunk, Run};
use serde::Deserialize;

use crate::order;

/// How many logs are kept open for more to come.
const OPEN_MAX: usize = 64;
/// The end of a file in which its last line is looked for, at first.
const TAIL_BYTES: u64 = 64 * 1024;
/// How many logs may be set aside at once, until each was fetched.
const ASIDE_MAX: usize = 64;
/// How many damaged files of one task are kept; the last of them is the newest.
const DAMAGED_MAX: u32 = 9;
/// The file that has the position.
const POSITION: &str = "position";

/// Why the logs cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system did not let us.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} is not as we wrote it: move it away, and all of it comes again", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Events are missing before those that came.
    #[error("of task {task} event {first} came where {} was due", last + 1)]
    Gap {
        /// The task.
        task: TaskId,
        /// The last event that is there.
        last: u64,
        /// The first that came.
        first: u64,
    },
    /// What was fetched of a log is not what was asked for.
    #[error("the log of task {task} came with {last} events instead of {due}")]
    Unlike {
        /// The task.
        task: TaskId,
        /// The last event that is there.
        last: u64,
        /// The last that should be.
        due: u64,
    },
}

impl LogError {
    /// Whether it is the log itself that cannot be gone on with, and not the disk.
    fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied)
            }
            Self::Foreign { .. } | Self::Gap { .. } => true,
            Self::Unlike { .. } => false,
        }
    }
}

/// The logs of one database's tasks.
#[derive(Debug)]
pub struct Logs {
    folder: PathBuf,
    position: u64,
    /// The position on disk.
    durable: u64,
    open: HashMap<TaskId, Log>,
    /// Tasks whose logs were looked through: they are ours alone since.
    looked_through: HashSet<TaskId>,
    /// Tasks whose logs are to be fetched: what comes for them is left out.
    aside: HashSet<TaskId>,
    /// Those of them that nobody has been told of.
    damaged: Vec<TaskId>,
}

#[derive(Debug)]
struct Log {
    file: File,
    last: u64,
    unsynced: bool,
}

impl Logs {
    /// Opens the logs of the database `store`, and makes their folder if it is not there.
    pub fn open(folder: &Path, store: &str) -> Result<Self, LogError> {
        let folder = folder.join(store);
        let logs = logs_in(&folder);
        let make = DirBuilder::new().recursive(true).mode(0o700).create(&logs);
        make.map_err(failed("make the folder", &logs))?;
        let path = folder.join(POSITION);
        let position = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| LogError::Foreign { path })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let damaged = marked_in(&logs).map_err(failed("read", &logs))?;
        let aside = damaged.iter().copied().collect();
        let (open, looked_through) = (HashMap::new(), HashSet::new());
        Ok(Self { folder, position, durable: position, open, looked_through, aside, damaged })
    }

    /// Up to here everything is in the logs.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether something is in the logs that a loss of power could take.
    pub fn is_unsynced(&self) -> bool {
        self.durable != self.position
    }

    /// The file of a task's log.
    pub fn path(&self, task: TaskId) -> PathBuf {
        path_in(&self.folder, task)
    }

    /// Appends what came. Of a chunk that failed nothing counts, and it can come again. Either way logs may have been
    /// set aside: see [`damaged`](Self::damaged).
    pub fn append(&mut self, chunk: &Chunk) -> Result<(), LogError> {
        for run in &chunk.runs {
            if self.aside.contains(&run.task) {
                continue;
            }
            if let Err(error) = self.append_run(run) {
                self.set_aside(run.task, error)?;
            }
        }
        self.position = chunk.position;
        Ok(())
    }

    /// Reads the whole log of a task, which somebody found to be damaged, and sets it aside if it is. Where that fails it
    /// stays as it is, since no other log has a part in it.
    pub fn look_at(&mut self, task: TaskId) {
        let path = self.path(task);
        if self.aside.contains(&task) || fs::symlink_metadata(&path).is_err() {
            return;
        }
        if let Err(error) = look_through(&path, task).or_else(|error| self.set_aside(task, error)) {
            tracing::warn!(%task, error = causes(&error), "a log that was found damaged cannot be set aside");
        }
    }

    /// Tasks whose logs were set aside since this was asked last, at first also by whoever had the logs before: they are to be fetched, and taken back.
    pub fn damaged(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.damaged)
    }

    fn append_run(&mut self, run: &Run) -> Result<(), LogError> {
        let path = self.path(run.task);
        self.log(run.task)?.append(run).map_err(|error| error.named(&path))
    }

    /// Sets aside what cannot be gone on with, if it is the log itself that is the matter.
    fn set_aside(&mut self, task: TaskId, why: LogError) -> Result<(), LogError> {
        // What it has now is looked up before more comes.
        self.open.remove(&task);
        if !why.is_damage() || self.aside.len() >= ASIDE_MAX {
            return Err(why);
        }
        let path = self.path(task);
        let moved = move_aside(&path).map_err(failed("move away", &path))?;
        // It is on the disk before the position is, as all that is in the folder.
        let mark = self.fetched_path(task);
        open_for_more(&mark).map_err(failed("make", &mark))?;
        let kept = moved.map_or_else(|| "nothing of it".to_owned(), |kept| kept.display().to_string());
        tracing::warn!(%task, cause = %causes(&why), kept, "a log here cannot be gone on with: it is fetched again, from its start");
        self.aside.insert(task);
        self.damaged.push(task);
        Ok(())
    }

    /// Where the log of a task is gathered while it is fetched.
    pub fn fetched_path(&self, task: TaskId) -> PathBuf {
        self.path(task).with_extension("fetched")
    }

    /// Goes on with the log that was fetched, which has all events up to `last`.
    pub fn take_back(&mut self, task: TaskId, last: u64) -> Result<(), LogError> {
        let (fetched, path) = (self.fetched_path(task), self.path(task));
        let mut log = Log::open(&fetched)?;
        if log.last != last {
            return Err(LogError::Unlike { task, last: log.last, due: last });
        }
        look_through(&fetched, task)?;
        log.sync().map_err(failed("write", &fetched))?;
        fs::rename(&fetched, &path).map_err(failed("rename", &fetched))?;
        self.sync_folder()?;
        self.aside.remove(&task);
        Ok(())
    }

    /// The log of a task is nowhere to be had any more.
    pub fn give_up(&mut self, task: TaskId) -> Result<(), LogError> {
        let mark = self.fetched_path(task);
        fs::remove_file(&mark).map_err(failed("remove", &mark))?;
        self.aside.remove(&task);
        Ok(())
    }

    /// Makes all that was appended durable, and then the position.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if !self.is_unsynced() {
            return Ok(());
        }
        for (task, log) in self.open.iter_mut().filter(|(_, log)| log.unsynced) {
            log.sync().map_err(failed("write", &path_in(&self.folder, *task)))?;
        }
        self.sync_folder()?;
        failpoint("tunnel-synced");
        let path = self.folder.join(POSITION);
        replace(&path, &format!("{}\n", self.position)).map_err(failed("write", &path))?;
        self.durable = self.position;
        Ok(())
    }

    /// Makes the names of the logs durable.
    fn sync_folder(&self) -> Result<(), LogError> {
        let logs = logs_in(&self.folder);
        File::open(&logs).and_then(|folder| folder.sync_all()).map_err(failed("write", &logs))
    }

    fn log(&mut self, task: TaskId) -> Result<&mut Log, LogError> {
        if !self.open.contains_key(&task) {
            if self.open.len() >= OPEN_MAX {
                self.close_one()?;
            }
            let path = self.path(task);
            let log = Log::open(&path)?;
            if !self.looked_through.contains(&task) {
                look_through(&path, task)?;
                self.looked_through.insert(task);
            }
            self.open.insert(task, log);
        }
        Ok(self.open.get_mut(&task).expect("it was just put there"))
    }

    /// Any one: the next line of its task opens it again.
    fn close_one(&mut self) -> Result<(), LogError> {
        let Some(task) = self.open.keys().next().copied() else { return Ok(()) };
        let path = self.path(task);
        self.open.remove(&task).map_or(Ok(()), |mut log| log.sync()).map_err(failed("write", &path))
    }
}

/// Why a run was not appended; the caller knows the file.
enum NotAppended {
    Io(io::Error),
    Gap(LogError),
}

impl NotAppended {
    fn named(self, path: &Path) -> LogError {
        match self {
            Self::Io(error) => failed("write", path)(error),
            Self::Gap(error) => error,
        }
    }
}

impl Log {
    /// Opens it for more. Half a line at its end is cut off: it comes again.
    fn open(path: &Path) -> Result<Self, LogError> {
        let mut file = open_for_more(path).map_err(failed("open", path))?;
        let last = last_line(&mut file).map_err(failed("read", path))?;
        file.set_len(last.end).map_err(failed("write", path))?;
        let last = match last.line {
            None => 0,
            Some(line) => Told::of(&line).ok_or_else(|| LogError::Foreign { path: path.to_owned() })?.seq,
        };
        Ok(Self { file, last, unsynced: true })
    }

    fn append(&mut self, run: &Run) -> Result<(), NotAppended> {
        if run.last <= self.last {
            return Ok(());
        }
        if run.first > self.last + 1 {
            let Run { task, first, .. } = *run;
            return Err(NotAppended::Gap(LogError::Gap { task, last: self.last, first }));
        }
        let mut lines = run.lines.clone();
        for _ in run.first..=self.last {
            let line = lines.iter().position(|&byte| byte == b'\n').map_or(lines.len(), |end| end + 1);
            lines.advance(line);
        }
        self.file.write_all(&lines).map_err(NotAppended::Io)?;
        (self.last, self.unsynced) = (run.last, true);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }
}

/// Reads all of a log.
fn look_through(path: &Path, task: TaskId) -> Result<(), LogError> {
    match order::is_kept(path, task).map_err(failed("read", path))? {
        true => Ok(()),
        false => Err(LogError::Foreign { path: path.to_owned() }),
    }
}

fn open_for_more(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// The tasks whose logs were set aside and not taken back yet.
fn marked_in(logs: &Path) -> io::Result<Vec<TaskId>> {
    let mut marked = Vec::new();
    for entry in fs::read_dir(logs)? {
        let name = entry?.file_name();
        let task: Option<TaskId> = name.to_str().and_then(|name| name.strip_suffix(".fetched")?.parse().ok());
        marked.extend(task);
    }
    Ok(marked)
}

/// Gives what is there another name, and tells it; an empty file has nothing to keep.
fn move_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(is) if is.is_file() && is.len() == 0 => return fs::remove_file(path).map(|()| None),
        is => is?,
    };
    let name = |number| match number {
        1 => path.with_extension("damaged"),
        more => path.with_extension(format!("damaged-{more}")),
    };
    let free = (1..DAMAGED_MAX).map(name).find(|name| fs::symlink_metadata(name).is_err());
    let kept = free.unwrap_or_else(|| name(DAMAGED_MAX));
    fs::rename(path, &kept)?;
    Ok(Some(kept))
}

/// What a log's reader must know of a line.
#[derive(Debug, Deserialize)]
pub(crate) struct Told {
    /// The event's number.
    pub(crate) seq: u64,
    #[serde(default)]
    event: Option<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    name: String,
}

impl Told {
    /// Reads it; `None`: the line is no event.
    pub(crate) fn of(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Whether nothing follows it.
    pub(crate) fn is_last(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.name == "finished")
    }
}

/// The last whole line of a file, and where it ends.
struct Last {
    line: Option<Vec<u8>>,
    end: u64,
}

fn last_line(file: &mut File) -> io::Result<Last> {
    let len = file.seek(SeekFrom::End(0))?;
    let mut span = TAIL_BYTES;
    loop {
        let from = len.saturating_sub(span);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.take(span).read_to_end(&mut tail)?;
        let end = tail.iter().rposition(|&byte| byte == b'\n');
        let begin = end.and_then(|end| tail[..end].iter().rposition(|&byte| byte == b'\n')).map(|at| at + 1);
        match (begin.or((from == 0).then_some(0)), end) {
            (Some(begin), Some(end)) => {
                return Ok(Last { line: Some(tail[begin..end].to_vec()), end: from + end as u64 + 1 });
            }
            (_, None) if from == 0 => return Ok(Last { line: None, end: 0 }),
            _ => span *= 8,
        }
    }
}

/// Whether a log has the last event of its task.
pub(crate) fn is_whole(path: &Path) -> io::Result<bool> {
    let line = last_line(&mut File::open(path)?)?.line;
    Ok(line.and_then(|line| Told::of(&line)).is_some_and(|told| told.is_last()))
}

pub(crate) fn logs_in(folder: &Path) -> PathBuf {
    folder.join("logs")
}

pub(crate) fn path_in(folder: &Path, task: TaskId) -> PathBuf {
    logs_in(folder).join(format!("{task}.ndjson"))
}

/// The file has the old text or the new, whatever ends us.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    failpoint("tunnel-file-unnamed");
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

pub(crate) fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { verb, path, source }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn line(seq: u64) -> String {
        format!("{{\"seq\":{seq},\"line\":\"{}\"}}\n", "x".repeat(usize::try_from(seq).expect("small") % 7))
    }

    fn run(task: u128, first: u64, last: u64) -> Run {
        let lines: String = (first..=last).map(line).collect();
        Run { task: TaskId::new(Uuid::from_u128(task)), first, last, lines: lines.into() }
    }

    fn chunk(position: u64, runs: Vec<Run>) -> Chunk {
        Chunk { position, head: position, skipped: 0, runs }
    }

    fn text(logs: &Logs, task: u128) -> String {
        fs::read_to_string(logs.path(TaskId::new(Uuid::from_u128(task)))).unwrap_or_default()
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// The next events of a task.
        More {
            task: u128,
            count: u64,
        },
        Sync,
        /// The process dies, with half a line in one log; what follows the durable position comes again.
        Crash {
            task: u128,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..4_u128, 1..5_u64).prop_map(|(task, count)| Step::More { task, count }),
            1 => Just(Step::Sync),
            1 => (0..4_u128).prop_map(|task| Step::Crash { task }),
        ];
        proptest::collection::vec(step, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// G3, G8: whatever ends the tunnel, and whatever comes again, each event is in its log once.
        #[test]
        fn each_event_is_in_its_log_once_whatever_comes_again(steps in steps()) {
            let folder = tempfile::tempdir().expect("a folder");
            let mut logs = Logs::open(folder.path(), "s").expect("opened");
            let mut sent: Vec<Run> = Vec::new();
            let mut last = [0_u64; 4];
            for step in steps {
                match step {
                    Step::More { task, count } => {
                        let last = &mut last[usize::try_from(task).expect("small")];
                        let next = run(task, *last + 1, *last + count);
                        *last += count;
                        sent.push(next.clone());
                        logs.append(&chunk(sent.len() as u64, vec![next])).expect("appended");
                    }
                    Step::Sync => logs.sync().expect("synced"),
                    Step::Crash { task } => {
                        let path = logs.path(TaskId::new(Uuid::from_u128(task)));
                        drop(logs);
                        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("there");
                        file.write_all(b"{\"task\":\"t\",\"se").expect("written");
                        logs = Logs::open(folder.path(), "s").expect("opened");
                        let after = usize::try_from(logs.position()).expect("small");
                        // As one chunk, as the orchestrator may send it.
                        logs.append(&chunk(sent.len() as u64, sent[after..].to_vec())).expect("appended");
                        // Whether or not something came, the half line is no line.
                    }
                }
            }
            logs.sync().expect("synced");
            for (task, &last) in last.iter().enumerate() {
                let (task, whole): (u128, String) = (task as u128, (1..=last).map(line).collect());
                let is = text(&logs, task);
                let complete = is.rfind('\n').map_or("", |end| &is[..=end]);
                prop_assert_eq!(complete, whole);
            }
            prop_assert_eq!(Logs::open(folder.path(), "s").expect("opened").position(), sent.len() as u64);
        }
    }

    fn id(task: u128) -> TaskId {
        TaskId::new(Uuid::from_u128(task))
    }

    fn lines(seqs: std::ops::RangeInclusive<u64>) -> String {
        seqs.map(line).collect()
    }

    /// What cannot be gone on with is kept under another name, and the other tasks go on.
    #[test]
    fn a_log_with_a_gap_or_a_foreign_line_concerns_its_task_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        logs.append(&chunk(1, vec![run(1, 1, 2)])).expect("appended");
        fs::write(logs.path(id(2)), "my notes\n").expect("written");
        fs::create_dir(logs.path(id(3))).expect("made");
        let next = vec![run(1, 4, 4), run(2, 1, 1), run(3, 1, 1), run(5, 1, 1)];
        logs.append(&chunk(2, next)).expect("appended");
        assert_eq!(logs.damaged(), [id(1), id(2), id(3)]);
        assert_eq!((logs.position(), text(&logs, 5)), (2, lines(1..=1)));
        let kept = |task| logs.path(id(task)).with_extension("damaged");
        assert_eq!(fs::read_to_string(kept(1)).expect("kept"), lines(1..=2));
        assert_eq!(fs::read_to_string(kept(2)).expect("kept"), "my notes\n");
        assert!(kept(3).is_dir());
        logs.append(&chunk(3, vec![run(1, 5, 5), run(5, 2, 2)])).expect("appended");
        assert!(!logs.path(id(1)).exists(), "what comes for it is left out until it was fetched");
        assert_eq!(text(&logs, 5), lines(1..=2));
    }

    /// The tunnel was away meanwhile, and the last line is as it was.
    #[test]
    fn a_foreign_line_in_the_middle_is_found_where_more_comes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        logs.append(&chunk(1, vec![run(1, 1, 3), run(2, 1, 3), run(3, 1, 3)])).expect("appended");
        logs.sync().expect("synced");
        drop(logs);
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        fs::write(logs.path(id(1)), [line(1), "{\"my\":\"note\"}\n".to_owned(), lines(2..=3)].concat())
            .expect("written");
        // Its number is one that is still to come.
        fs::write(logs.path(id(2)), [lines(1..=3), line(9)].concat()).expect("written");
        logs.append(&chunk(2, vec![run(1, 4, 4), run(2, 4, 4), run(3, 4, 4)])).expect("appended");
        assert_eq!(logs.damaged(), [id(1), id(2)]);
        assert_eq!(text(&logs, 3), lines(1..=4));
    }

    /// It is read again where somebody found it so, and stays if it is not.
    #[test]
    fn a_log_that_a_reader_found_damaged_is_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        logs.append(&chunk(1, vec![run(1, 1, 3), run(2, 1, 3)])).expect("appended");
        let foreign = [line(1), line(1), lines(2..=3)].concat();
        fs::write(logs.path(id(1)), &foreign).expect("written");
        for task in [1, 2, 3] {
            logs.look_at(id(task));
        }
        assert_eq!((logs.damaged(), text(&logs, 2)), (vec![id(1)], lines(1..=3)));
        logs.append(&chunk(2, vec![run(1, 4, 4)])).expect("left out");
        let kept = logs.path(id(1)).with_extension("damaged");
        assert_eq!(fs::read_to_string(kept).expect("kept"), foreign);
        fs::write(logs.fetched_path(id(1)), [lines(1..=2), line(2), lines(3..=4)].concat()).expect("written");
        let error = logs.take_back(id(1), 4).expect_err("it is no better");
        assert!(matches!(error, LogError::Foreign { .. }), "{error}");
        logs.look_at(id(1));
        assert_eq!(logs.damaged(), []);
    }

    /// A reader's find ends nothing, also where no more logs may be set aside.
    #[test]
    fn with_too_many_set_aside_a_damaged_log_stays_where_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        let most = ASIDE_MAX as u128;
        logs.append(&chunk(1, (1..=most).map(|task| run(task, 3, 3)).collect())).expect("set aside");
        assert_eq!(logs.damaged().len(), ASIDE_MAX);
        fs::write(logs.path(id(most + 1)), "notes\n").expect("written");
        logs.look_at(id(most + 1));
        assert_eq!(logs.damaged(), []);
        assert_eq!(text(&logs, most + 1), "notes\n");
        logs.append(&chunk(2, vec![run(most + 2, 1, 3)])).expect("the others go on");
    }

    #[test]
    fn a_log_that_was_fetched_is_gone_on_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        logs.append(&chunk(1, vec![run(1, 3, 3)])).expect("appended");
        assert_eq!(logs.damaged(), [id(1)]);
        fs::write(logs.fetched_path(id(1)), lines(1..=3)).expect("written");
        let unlike = logs.take_back(id(1), 4).expect_err("one is missing");
        assert!(matches!(unlike, LogError::Unlike { last: 3, due: 4, .. }), "{unlike}");
        logs.take_back(id(1), 3).expect("taken");
        logs.append(&chunk(2, vec![run(1, 3, 4)])).expect("appended");
        assert_eq!(text(&logs, 1), lines(1..=4));
    }

    /// The position is past what was left out: nothing but the mark tells of it.
    #[test]
    fn a_log_that_was_set_aside_is_still_to_be_fetched_after_a_crash() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Logs::open(folder.path(), "s").expect("opened");
        let mut logs = open();
        logs.append(&chunk(1, vec![run(1, 3, 3), run(2, 2, 2)])).expect("appended");
        logs.sync().expect("synced");
        drop(logs);
        let mut logs = open();
        let mut damaged = logs.damaged();
        damaged.sort_unstable();
        assert_eq!((logs.position(), damaged), (1, vec![id(1), id(2)]));
        logs.append(&chunk(2, vec![run(1, 4, 4)])).expect("left out");
        assert_eq!(logs.damaged(), []);
        fs::write(logs.fetched_path(id(1)), lines(1..=4)).expect("written");
        logs.take_back(id(1), 4).expect("taken");
        logs.give_up(id(2)).expect("given up");
        assert_eq!((open().damaged(), text(&logs, 1)), (Vec::new(), lines(1..=4)));
    }

    #[test]
    fn of_more_damaged_logs_than_are_fetched_at_once_nothing_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        let runs = (0..=ASIDE_MAX as u128).map(|task| run(task, 2, 2)).collect();
        let error = logs.append(&chunk(1, runs)).expect_err("too many");
        assert!(matches!(error, LogError::Gap { .. }), "{error}");
        assert_eq!((logs.position(), logs.damaged().len()), (0, ASIDE_MAX));
    }

    #[test]
    fn a_last_line_longer_than_the_first_look_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        let task = TaskId::new(Uuid::from_u128(1));
        let long = format!("{{\"seq\":2,\"text\":\"{}\"}}\n", "y".repeat(300_000));
        let lines = format!("{}{long}", line(1));
        logs.append(&chunk(1, vec![Run { task, first: 1, last: 2, lines: lines.into() }])).expect("appended");
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        logs.append(&chunk(2, vec![run(1, 2, 3)])).expect("appended");
        assert_eq!(text(&logs, 1), format!("{}{long}{}", line(1), line(3)));
    }

    #[test]
    fn more_tasks_than_files_may_be_open_are_all_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut logs = Logs::open(folder.path(), "s").expect("opened");
        let tasks = OPEN_MAX as u128 + 8;
        for seq in 1..=2 {
            let runs = (0..tasks).map(|task| run(task, seq, seq)).collect();
            logs.append(&chunk(seq, runs)).expect("appended");
        }
        assert!(logs.open.len() <= OPEN_MAX);
        for task in 0..tasks {
            assert_eq!(text(&logs, task), (1..=2).map(line).collect::<String>());
        }
    }
}
