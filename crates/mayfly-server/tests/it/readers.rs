//! A reader that stops reading costs its own connection, and nobody's event.

use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_client::Client;
use mayfly_wire::worker::{End, Source};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bed::{Bed, task};
use crate::files;
use crate::port::{ANY, start};

/// More than all buffers on the way hold.
const LINES: usize = 60;
const LINE_BYTES: usize = 60_000;
/// Longer than a reader that takes nothing is waited for.
const TIRED: Duration = Duration::from_secs(31);

/// A way to `door` whose first connection passes so much of the answer on, and then takes nothing for longer than it is
/// waited for; what follows is passed on as it comes. Tells how much of the first answer it was given in the end.
fn tiring(way: &Path, door: PathBuf, bytes: u64) -> oneshot::Receiver<usize> {
    let listener = UnixListener::bind(way).unwrap();
    let (given, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut reader, _) = listener.accept().await.unwrap();
        let mut server = UnixStream::connect(&door).await.unwrap();
        let mut head = vec![0; 64 * 1024];
        let read = reader.read(&mut head).await.unwrap();
        server.write_all(&head[..read]).await.unwrap();
        let passed = copy(&mut (&mut server).take(bytes), &mut reader).await.unwrap();
        sleep(TIRED).await;
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest).await;
        given.send(usize::try_from(passed).unwrap() + rest.len()).unwrap();
        drop(reader);
        let (mut reader, _) = listener.accept().await.unwrap();
        let mut server = UnixStream::connect(&door).await.unwrap();
        let _ = copy_bidirectional(&mut reader, &mut server).await;
    });
    told
}

/// G9, R13: cut after a bounded time, and resumed where it was.
#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_resumes_at_its_position() {
    let mut bed = Bed::start().await;
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let mut worker = bed.worker().await;
    worker.ready().await;
    for number in 0..LINES {
        let line = format!("{number:06}{}", "x".repeat(LINE_BYTES));
        worker.say(Source::Stderr, End::Newline, line).await;
    }
    worker.end("cancelled").await;
    let expected = lines(&bed.client, &id).await;
    let dir = tempfile::tempdir().unwrap();
    let way = dir.path().join("way");
    let given = tiring(&way, bed.server.socket(), 10 * LINE_BYTES as u64);
    // From here on the time passes whenever nobody has anything to do.
    tokio::time::pause();
    let got = lines(&Client::new(&way), &id).await;
    assert!(given.await.unwrap() < LINES * LINE_BYTES, "it was cut");
    assert!(got == expected, "no gap, no repeat");
}

/// The log as it comes to who does not know HTTP/1.1: without a word on lengths, to the end.
async fn ask(socket: &Path, id: &str, after: usize) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let asked = format!("GET /v1/tasks/{id}/events?after={after} HTTP/1.0\r\nhost: mayfly\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    let (mut stream, mut head) = (BufReader::new(stream), Vec::new());
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_until(b'\n', &mut head).await.unwrap(), 0);
    }
    assert!(head.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

async fn rest(mut stream: BufReader<UnixStream>) -> Vec<u8> {
    let mut rest = Vec::new();
    // Of a connection that was cut, what came before.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

/// A number that other bytes hardly have: a thousand logs are too many to be kept.
async fn hash(mut stream: BufReader<UnixStream>) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    loop {
        let bytes = stream.fill_buf().await.unwrap();
        let read = bytes.len();
        if read == 0 {
            return hasher.finish();
        }
        hasher.write(bytes);
        stream.consume(read);
    }
}

/// R13, G9: of a thousand who follow a task some take nothing. The others have every line while it is said, little
/// memory waits for who does not read, and each of those is cut, and goes on where it was with the same bytes.
#[tokio::test]
async fn a_thousand_who_follow_have_all_beside_some_who_take_nothing() {
    const READERS: usize = 1000;
    const LAZY: usize = 20;
    const LINES: usize = 20;
    // Of each: what the system holds for it is no memory of this process.
    const LAZY_BYTES_MAX: usize = 1024 * 1024;
    const FILES: usize = 4 * READERS + 200;
    files::allow(FILES);
    if files::most() < FILES {
        return mayfly_test_needs::skip("a process may not have 4200 files open");
    }
    let mut bed = Bed::start().await;
    let id = bed.client.submit(&task("p", None), "key").await.unwrap().id;
    let mut worker = bed.worker().await;
    worker.ready().await;
    let socket = bed.server.socket();
    let mut lazy = Vec::new();
    for _ in 0..LAZY {
        lazy.push(ask(&socket, &id, 0).await);
    }
    let mut readers = JoinSet::new();
    for _ in LAZY..READERS {
        readers.spawn(hash(ask(&socket, &id, 0).await));
    }
    let before = resident_bytes();
    for number in 0..LINES {
        worker.say(Source::Stderr, End::Newline, format!("{number:06}{}", "x".repeat(LINE_BYTES))).await;
    }
    worker.end("cancelled").await;
    let whole = rest(ask(&socket, &id, 0).await).await;
    let mut expected = std::hash::DefaultHasher::new();
    expected.write(&whole);
    assert_eq!(readers.join_all().await, vec![expected.finish(); READERS - LAZY]);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < LAZY * LAZY_BYTES_MAX, "{grown} bytes");
    // From here on the time passes whenever nobody has anything to do.
    tokio::time::pause();
    sleep(TIRED).await;
    for reader in lazy {
        let mut got = rest(reader).await;
        assert!(got.len() < whole.len(), "it was cut");
        got.truncate(got.iter().rposition(|&byte| byte == b'\n').unwrap() + 1);
        let after = got.split_inclusive(|&byte| byte == b'\n').count();
        got.extend(rest(ask(&socket, &id, after).await).await);
        assert!(got == whole, "no gap, no repeat");
    }
}

/// Ten thousand of them, of which these are a part, have room in 320 MB, in a build without optimisation and with this
/// side of each connection.
#[tokio::test]
async fn a_reader_that_waits_takes_little_memory() {
    const READERS: usize = 500;
    const BYTES_MAX: usize = 32 * 1024;
    let data = tempfile::tempdir().unwrap();
    let server = start(&data, ANY).await.unwrap();
    let id = Client::new(&server.socket()).submit(&task("p", None), "key").await.unwrap().id;
    let token = std::fs::read_to_string(server.token_file()).unwrap();
    let (host, token) = (server.listening().unwrap(), token.trim_end());
    let path = format!("/v1/tasks/{id}/events");
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n");
    let read = async || {
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"}\n\r\n") {
            said.push(stream.read_u8().await.unwrap());
        }
        stream
    };
    // Those before it make what is there once for all.
    let mut readers = vec![read().await, read().await];
    let before = resident_bytes();
    for _ in 0..READERS {
        readers.push(read().await);
    }
    let each = resident_bytes().saturating_sub(before) / READERS;
    assert!(each <= BYTES_MAX, "{each} bytes each");
}

pub(crate) fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

async fn lines(client: &Client, id: &str) -> Vec<String> {
    let mut events = client.events(id, 0);
    let mut lines = Vec::new();
    while let Some(line) = events.next().await.unwrap() {
        lines.push(line);
    }
    lines
}
