//! A reader that stops reading costs its own connection, and nobody's event.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_client::Client;
use mayfly_wire::worker::{End, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::bed::{Bed, task};
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

fn resident_bytes() -> usize {
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
