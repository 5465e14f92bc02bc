//! Each machine has a door of its own: what it does there is no other machine's trouble, and what it took from
//! another opens nothing there.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use mayfly_server::MACHINE_CONNECTIONS_MAX;
use mayfly_wire::api::Collected;
use mayfly_wire::boot::WAY_OUT_SOCKET;
use mayfly_wire::worker::{Down, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::bed::{Bed, Worker, bundle, door, hello, raw, task};

const NOBODY: &str = "0193b2c4-0000-7000-8000-0123456789ab.1";
/// Where a credential of these tests would go, if one went out.
const NOWHERE: &str = "http://127.0.0.1:1";

async fn submit(bed: &Bed, key: &str) -> String {
    bed.client.submit(&task("p", Some(NOWHERE.to_owned())), key).await.unwrap().id
}

/// One who has asked for something, and may be answered.
async fn asks(door: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(door).await.unwrap();
    stream.write_all(b"HEAD / HTTP/1.1\r\nhost: mayfly\r\n\r\n").await.unwrap();
    stream
}

async fn is_answered(stream: &mut UnixStream) {
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap().into());
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Connections that were let in and now keep their place, and ask for nothing.
async fn silent(worker: &Worker, count: usize) -> Vec<UnixStream> {
    let head = format!(
        "GET /v1/egress HTTP/1.1\r\nhost: mayfly\r\nconnection: upgrade\r\nupgrade: mayfly-egress\r\n\
         authorization: Bearer {}\r\n\r\n",
        worker.order.egress_token.as_ref().unwrap().expose()
    );
    let mut all = Vec::new();
    for _ in 0..count {
        let mut stream = UnixStream::connect(&worker.door).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        all.push(stream);
    }
    all
}

/// S38
#[tokio::test]
async fn a_machine_that_fills_its_door_keeps_no_other_machine_waiting() {
    let mut bed = Bed::start().await;
    submit(&bed, "hostile").await;
    let hostile = bed.worker().await;
    let places = silent(&hostile, MACHINE_CONNECTIONS_MAX - 1).await;
    let mut waiting = asks(&hostile.door).await;
    submit(&bed, "other").await;
    let mut other = bed.worker().await;
    other.ready().await;
    is_answered(&mut asks(&other.door).await).await;
    assert!(waiting.read_u8().now_or_never().is_none(), "the door is full");
    drop(places);
    is_answered(&mut waiting).await;
}

/// S38: an upgraded connection is one of the door's, for as long as the link stands.
#[tokio::test]
async fn a_link_has_a_place_at_its_door() {
    let mut bed = Bed::start().await;
    submit(&bed, "key").await;
    let mut worker = bed.worker().await;
    let door = worker.door.clone();
    let _places = silent(&worker, MACHINE_CONNECTIONS_MAX - 1).await;
    let mut waiting = asks(&door).await;
    worker.report(&Report::Started).await;
    assert!(waiting.read_u8().now_or_never().is_none(), "the link has the last place");
    drop(worker);
    is_answered(&mut waiting).await;
}

/// S27, S40: what one machine learnt of another's opens nothing at its own door, and spends nothing.
#[tokio::test]
async fn a_token_of_another_attempt_opens_nothing_at_a_door() {
    let mut bed = Bed::start().await;
    submit(&bed, "thief").await;
    let thief = bed.worker().await;
    submit(&bed, "other").await;
    let spec = bed.machines.recv().await.unwrap();
    let stolen = Worker::join(&thief.door, &hello(&spec)).await;
    assert!(matches!(stolen, Err(Down::Reject { .. })), "{:?}", stolen.err());
    let other = Worker::join(&door(&spec), &hello(&spec)).await.unwrap();
    let statuses = async |door: &Path| {
        let (result, model) = (&other.order.result_token, &other.order.model_token);
        let result = raw(door).put("http://mayfly/v1/worker/result/bundle").bearer_auth(result.expose());
        let model = raw(door).post("http://mayfly/v1/messages").bearer_auth(model.expose());
        let result = result.body(bundle("a.txt", "work", "m", "o")).send().await.unwrap().status();
        (result.as_u16(), model.body("{}").send().await.unwrap().status().as_u16())
    };
    assert_eq!(statuses(&thief.door).await, (401, 401));
    assert_eq!(fs::read_dir(bed.data().join("results")).unwrap().count(), 0, "nothing may be stored");
    let (result, model) = statuses(&other.door).await;
    assert!(result == 204 && model != 401, "{result} {model}");
}

/// A machine that mounted the folder finds the new socket in it; what is left of an attempt that is over goes.
#[tokio::test]
async fn a_restarted_orchestrator_opens_the_doors_of_live_attempts_in_the_same_folders() {
    let mut bed = Bed::start().await;
    submit(&bed, "key").await;
    let spec = bed.machines.recv().await.unwrap();
    let mut worker = Worker::join(&door(&spec), &hello(&spec)).await.unwrap();
    let mounted = File::open(&spec.way_out).unwrap();
    let left = bed.data().join("way-out").join(NOBODY);
    fs::create_dir(&left).unwrap();
    fs::write(left.join(WAY_OUT_SOCKET), "").unwrap();

    let bed = bed.restart().await;
    assert!(worker.heard().await.is_none(), "the old link is over");
    let inode = |is: fs::Metadata| is.ino();
    assert_eq!(inode(fs::metadata(&spec.way_out).unwrap()), inode(mounted.metadata().unwrap()));
    assert!(!left.exists());
    let seen = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd())).join(WAY_OUT_SOCKET);
    let mut worker = Worker::join(&seen, &hello(&spec)).await.unwrap();
    worker.finish(Collected::default()).await;
    let mut events = bed.client.events(spec.attempt.task, 0);
    while events.next().await.unwrap().is_some() {}
    assert_eq!(fs::read_dir(bed.data().join("way-out")).unwrap().count(), 0);
}

/// An attempt's id is long, and a socket's path short: only the owner's own socket bounds the data folder.
#[tokio::test]
async fn a_data_folder_with_the_longest_path_has_doors_too() {
    let dir = tempfile::tempdir().unwrap();
    let room = 100 - "/api.sock".len() - dir.path().as_os_str().len() - 1;
    let mut bed = Bed::start_in(dir.path().join("d".repeat(room)), dir).await;
    submit(&bed, "key").await;
    let spec = bed.machines.recv().await.unwrap();
    assert!(door(&spec).as_os_str().len() > 107, "longer than a socket's path can be");
    // As short as the machine sees it.
    let seen = bed.data().with_file_name("seen");
    std::os::unix::fs::symlink(&spec.way_out, &seen).unwrap();
    Worker::join(&seen.join(WAY_OUT_SOCKET), &hello(&spec)).await.unwrap();
}
