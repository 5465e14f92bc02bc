use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_core::{Attempt, Event as Step};
use mayfly_store::{Listing, Sealed, Store, StoreError, Submitted};
use mayfly_wire::event::{Event, MayflyEvent};

use crate::{AT, change, id, log, new, open, policy, submit};

const ALL: Listing = Listing { state: None, before: None, most: 1000 };

/// Makes the tables of the second version out of these.
const SECOND: &str = "
    ALTER TABLE attempts DROP COLUMN result;
    DROP INDEX tasks_by_resumed; ALTER TABLE tasks DROP COLUMN resumes; ALTER TABLE tasks DROP COLUMN session;
    ALTER TABLE tasks DROP COLUMN lock; DROP TABLE locks;
    DROP TABLE allowed; DROP TABLE egress; ALTER TABLE attempts DROP COLUMN egress_dropped;
    DROP TABLE pool; ALTER TABLE tasks DROP COLUMN pooled;
    DROP TABLE usage; ALTER TABLE attempts DROP COLUMN cost_usd; ALTER TABLE attempts DROP COLUMN carry_claude;
    ALTER TABLE attempts DROP COLUMN carry_stderr;
    DROP TABLE runs; DROP TABLE feed; DROP TABLE owner_tokens; ALTER TABLE tasks DROP COLUMN first_seq;
    DROP INDEX tasks_by_due; ALTER TABLE tasks DROP COLUMN due_ms;
    DROP INDEX tasks_by_end;
    ALTER TABLE tasks DROP COLUMN pruned;
    CREATE TABLE events (
        task TEXT NOT NULL REFERENCES tasks (id), seq INTEGER NOT NULL, attempt INTEGER NOT NULL,
        at_ms INTEGER NOT NULL, source INTEGER NOT NULL, ending INTEGER NOT NULL, json INTEGER NOT NULL,
        bytes BLOB NOT NULL, PRIMARY KEY (task, seq)
    ) STRICT;
    PRAGMA user_version = 2";

/// Makes those of the first out of the second.
const FIRST: &str = "
    DROP TABLE credentials; DROP INDEX tasks_by_turn;
    CREATE INDEX tasks_by_state ON tasks (state, id);
    ALTER TABLE tasks DROP COLUMN priority; ALTER TABLE tasks DROP COLUMN result_attempt;
    ALTER TABLE attempts DROP COLUMN logged; ALTER TABLE attempts DROP COLUMN started_ms;
    PRAGMA user_version = 1";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Why a file is not opened; whoever only looks at it is told the same.
fn refused(path: &Path) -> StoreError {
    let looked = Store::look(path).unwrap_err();
    let refused = Store::open(path).unwrap_err();
    assert_eq!(looked.to_string(), refused.to_string());
    refused
}

/// The names and contents of a folder's files.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut content: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    content.sort();
    content
}

/// S32
#[tokio::test]
async fn its_files_are_the_owners_alone() {
    let (store, dir) = open();
    submit(&store, 1).await;
    for name in ["db", "db-wal", "db-shm"] {
        assert_eq!(mode(&dir.path().join(name)), 0o600, "{name}");
    }
    drop(store);
    fs::set_permissions(dir.path().join("db"), fs::Permissions::from_mode(0o644)).unwrap();
    let _store = Store::open(&dir.path().join("db")).unwrap();
    assert_eq!(mode(&dir.path().join("db")), 0o600);
}

#[test]
fn a_file_of_another_program_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (text, other) = (dir.path().join("text"), dir.path().join("other"));
    fs::write(&text, "to do: ".repeat(1000)).unwrap();
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE notes (note)").unwrap();
    for path in [text, other] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let before = fs::read(&path).unwrap();
        let refused = refused(&path);
        assert!(matches!(&refused, StoreError::Foreign(named) if *named == path), "{refused:?}");
        assert_eq!((fs::read(&path).unwrap() == before, mode(&path)), (true, 0o644));
    }
}

/// R26, R27
#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let (store, dir) = open();
    submit(&store, 1).await;
    let path = dir.path().join("db");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 1000).unwrap();
    let refused = refused(&path);
    assert!(matches!(refused, StoreError::Newer { found: 1000, .. }), "{refused:?}");
}

/// Named, and left as it is for whoever may save something of it.
#[tokio::test]
async fn a_damaged_file_is_refused_with_what_to_do() {
    let (store, dir) = open();
    submit(&store, 1).await;
    drop(store);
    let path = dir.path().join("db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // The first page's header stays, and with it what the file is known by.
    bytes[100..4096].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let refused = refused(&path);
    assert!(matches!(&refused, StoreError::Damaged(named) if *named == path), "{refused:?}");
    assert!(refused.to_string().contains("move it away"), "{refused}");
    assert!(fs::read(&path).unwrap() == bytes);
}

/// The first page of a table or an index, by its name.
fn first_page(path: &Path, name: &str) -> usize {
    let file = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    file.query_row(sql, [name], |row| row.get(0)).unwrap()
}

/// A copy of the file at `path` in which the first page of `name` is overwritten.
fn damaged(path: &Path, name: &str) -> PathBuf {
    let page = first_page(path, name);
    let mut bytes = fs::read(path).unwrap();
    // Where the format of the file has the size of a page.
    let size = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    bytes[(page - 1) * size..page * size].fill(0xa5);
    let copy = path.with_extension(name);
    fs::write(&copy, bytes).unwrap();
    copy
}

/// R27: a start reads what the queue needs, and whoever has the time reads the rest.
#[tokio::test]
async fn damage_in_the_middle_is_found_before_the_queue_depends_on_it() {
    let (store, dir) = open();
    submit(&store, 1).await;
    drop(store);
    let path = dir.path().join("db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert_eq!(Store::look(&path).unwrap(), 1, "one task is not over");
    for table in ["tasks", "tasks_by_turn", "attempts", "effects"] {
        let refused = refused(&damaged(&path, table));
        assert!(matches!(&refused, StoreError::Damaged(_)), "{table}: {refused:?}");
    }
    let log = damaged(&path, "runs");
    assert_eq!(Store::look(&log).unwrap(), 1, "it is too long for a start");
    let found = Store::examine(&log, Duration::MAX).unwrap_err();
    assert!(matches!(&found, StoreError::Damaged(named) if *named == log), "{found:?}");
    assert!(Store::examine(&path, Duration::MAX).unwrap());
}

/// R27: what a killed process left in the log counts, and looking leaves each file as it was.
#[tokio::test]
async fn whoever_looks_sees_what_is_in_the_log_and_writes_nothing() {
    let (store, dir) = open();
    submit(&store, 1).await;
    let left = tempfile::tempdir().unwrap();
    let leave = |name: &str, files: &[&str]| {
        let folder = left.path().join(name);
        fs::create_dir(&folder).unwrap();
        for file in files {
            fs::copy(dir.path().join(file), folder.join(file)).unwrap();
        }
        folder
    };
    let ours = leave("ours, 100% of it?", &["db", "db-wal"]);
    let file = rusqlite::Connection::open(dir.path().join("db")).unwrap();
    file.pragma_update(None, "user_version", 1000).unwrap();
    let newer = leave("newer", &["db", "db-wal"]);
    file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let whole = leave("whole", &["db"]);
    let before = [&ours, &newer, &whole].map(|folder| content(folder));
    Store::look(&ours.join("db")).unwrap();
    for newer in [&newer, &whole] {
        let seen = Store::look(&newer.join("db")).unwrap_err();
        assert!(matches!(seen, StoreError::Newer { found: 1000, .. }), "{seen:?}");
    }
    Store::look(&whole.join("none")).unwrap();
    assert!([&ours, &newer, &whole].map(|folder| content(folder)) == before);
}

/// R26: what is in it is kept.
#[tokio::test]
async fn a_file_of_an_older_version_is_brought_up_to_this_one() {
    let (store, dir) = open();
    submit(&store, 1).await;
    store.claim(policy(), "sim", AT).await.unwrap().unwrap();
    let (before, told) = (format!("{:?}", store.live().await.unwrap()), log(&store, id(1), 0).await);
    drop(store);
    let path = dir.path().join("db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(SECOND).unwrap();
    for (seq, line) in told.iter().enumerate() {
        let event = Event::parse(line).unwrap();
        let bytes = serde_json::to_vec(&event.event).unwrap();
        let sql = "INSERT INTO events VALUES (?1, ?2, ?3, ?4, 2, 0, 1, ?5)";
        let values = (id(1).to_string(), seq + 1, event.attempt, event.at.as_millisecond(), bytes);
        file.execute(sql, values).unwrap();
    }
    file.execute_batch(FIRST).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(format!("{:?}", store.live().await.unwrap()), before);
    assert_eq!(log(&store, id(1), 0).await, told);
    assert_eq!(*store.head().borrow(), 2, "each has a position");
    store.keep_credential(id(1), vec![1]).await.unwrap();
    assert_eq!(store.credential(id(1)).await.unwrap(), Some(Sealed::Own(vec![1])));
}

/// R26: a task that ended in the queue was said to have had an attempt.
#[tokio::test]
async fn what_an_older_version_wrote_wrongly_is_set_right() {
    let (store, dir) = open();
    for number in [1, 2] {
        submit(&store, number).await;
    }
    store.claim(policy(), "sim", AT).await.unwrap().unwrap();
    for (number, event) in [(1, Step::Aborted), (1, Step::Gone(Attempt(1))), (2, Step::Cancelled)] {
        store.apply(id(number), change(event)).await.unwrap().unwrap();
    }
    drop(store);
    let path = dir.path().join("db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(SECOND).unwrap();
    file.execute_batch("UPDATE tasks SET attempt = 1").unwrap();
    let store = Store::open(&path).unwrap();
    let attempts = store.tasks(ALL).await.unwrap().into_iter().map(|task| (task.id, task.attempt));
    assert_eq!(attempts.collect::<Vec<_>>(), [(id(2), 0), (id(1), 1)]);
}

/// R26: half of a step is none.
#[tokio::test]
async fn a_file_whose_tables_cannot_be_brought_up_stays_as_it_was() {
    let (store, dir) = open();
    submit(&store, 1).await;
    drop(store);
    let path = dir.path().join("db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(SECOND).unwrap();
    file.execute_batch(FIRST).unwrap();
    // The last thing that a step makes is there already, and its first things must not stay.
    file.execute_batch("CREATE INDEX tasks_by_turn ON tasks (id)").unwrap();
    let tables = || {
        let sql = "SELECT group_concat(sql, char(10)) FROM sqlite_schema";
        file.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let before = tables();
    Store::open(&path).unwrap_err();
    assert_eq!(tables(), before);
    let version: i64 = file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
}

/// A list of long prompts is short.
#[tokio::test]
async fn of_a_listed_prompt_only_the_beginning_is_read() {
    let (store, _dir) = open();
    let mut long = new(1, None);
    long.spec.prompt = format!("fix it\n{}", "ü".repeat(500_000));
    let whole = long.spec.prompt.clone();
    store.submit(long).await.unwrap();
    let listed = store.tasks(ALL).await.unwrap().remove(0).spec.prompt;
    assert!(
        listed.len() < 2001 && whole.starts_with(&listed) && listed.starts_with("fix it\nü"),
        "{}",
        listed.len()
    );
    assert_eq!(store.task(id(1)).await.unwrap().unwrap().spec.prompt, whole);
}

#[tokio::test]
async fn a_listing_goes_on_where_the_last_one_ended_and_keeps_to_its_state() {
    let (store, _dir) = open();
    for number in 1..=5 {
        submit(&store, number).await;
    }
    store.claim(policy(), "sim", AT).await.unwrap().unwrap();
    let list = async |state, before: Option<u32>, most| {
        let listing = Listing { state, before: before.map(id), most };
        store.tasks(listing).await.unwrap().into_iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, 2).await, [id(5), id(4)]);
    assert_eq!(list(None, Some(4), 2).await, [id(3), id(2)]);
    assert_eq!(list(None, Some(1), 2).await, []);
    assert_eq!(list(Some("launching"), None, 9).await, [id(1)]);
    assert_eq!(list(Some("queued"), Some(4), 9).await, [id(3), id(2)]);
}

#[tokio::test]
async fn tasks_are_found_by_the_end_of_their_ids() {
    let (store, _dir) = open();
    for number in [0x1234, 0x0a_1234, 0x9999] {
        submit(&store, number).await;
    }
    let ending = async |digits: &str, most| store.tasks_ending(digits.to_owned(), most).await.unwrap();
    assert_eq!(ending("1234", 9).await, [id(0x0a_1234), id(0x1234)]);
    assert_eq!(ending("1234", 1).await, [id(0x0a_1234)]);
    assert_eq!(ending("0a1234", 9).await, [id(0x0a_1234)]);
    assert_eq!(ending("8000000000009999", 9).await, [id(0x9999)], "beyond a dash");
    assert_eq!(ending("_999", 9).await, []);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let refused = Store::open(Path::new("/nowhere/at/all/db")).unwrap_err();
    assert!(refused.to_string().contains("/nowhere/at/all/db"), "{refused}");
    assert!(std::error::Error::source(&refused).is_some());
}

/// G1, R18
#[tokio::test]
async fn what_was_answered_is_there_when_it_is_opened_again() {
    let (store, dir) = open();
    submit(&store, 1).await;
    store.submit(new(2, Some("key"))).await.unwrap();
    let claimed = store.claim(policy(), "sim", AT).await.unwrap().unwrap();
    let (told, effects) = (log(&store, id(1), 0).await, store.effects().await.unwrap());
    drop(store);
    let store = Store::open(&dir.path().join("db")).unwrap();
    assert_eq!(store.task(id(1)).await.unwrap().unwrap().state, claimed.state);
    assert_eq!(store.effects().await.unwrap(), effects);
    assert_eq!(log(&store, id(1), 0).await, told);
    assert_eq!(store.submit(new(3, Some("key"))).await.unwrap(), Submitted::Known(id(2)));
    assert_eq!((store.unfinished().await.unwrap(), store.live().await.unwrap().len()), (2, 1));
}

/// One commit holds many commands: one that fails is undone alone.
#[tokio::test]
async fn a_command_that_fails_does_not_undo_its_neighbours() {
    let (store, _dir) = open();
    store.submit(new(1, Some("key"))).await.unwrap();
    let commands = (2..40).map(|number| {
        // The same key with another task, and an id that is there already, are refused.
        let mut new = new(if number % 3 == 1 { 1 } else { number }, (number % 3 == 2).then_some("key"));
        new.spec.prompt = format!("task {number}");
        let store = store.clone();
        tokio::spawn(async move { (number, store.submit(new).await) })
    });
    for command in commands.collect::<Vec<_>>() {
        let (number, answer) = command.await.unwrap();
        match number % 3 {
            0 => assert_eq!(answer.unwrap(), Submitted::New(id(number))),
            1 => assert!(matches!(answer, Err(StoreError::Sqlite(_))), "{answer:?}"),
            _ => assert!(matches!(answer, Err(StoreError::KeyConflict)), "{answer:?}"),
        }
    }
    let kept: Vec<_> = store.tasks(ALL).await.unwrap().into_iter().map(|task| task.id).collect();
    let expected: Vec<_> = (1..40).rev().filter(|n| *n == 1 || n % 3 == 0).map(id).collect();
    assert_eq!(kept, expected);
}

/// G8: a reader may have left at the last event, so nothing may follow it.
#[tokio::test]
async fn nothing_is_told_of_an_attempt_that_is_over() {
    let (store, _dir) = open();
    submit(&store, 1).await;
    let attempt = id(1).attempt(Attempt(1));
    let warn = |text: &str| store.tell(attempt, AT, MayflyEvent::Warning { text: text.to_owned() });
    warn("early").await.unwrap();
    store.claim(policy(), "sim", AT).await.unwrap().unwrap();
    warn("in time").await.unwrap();
    for event in [Step::Aborted, Step::Gone(Attempt(1))] {
        store.apply(id(1), change(event)).await.unwrap().unwrap();
    }
    warn("late").await.unwrap();
    let texts = log(&store, id(1), 0).await;
    assert_eq!(texts.len(), 5, "{texts:?}");
    assert!(texts[2].contains("in time") && texts[4].contains("finished"), "{texts:?}");
}
