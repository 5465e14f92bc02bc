//! An orchestrator that comes back, and all who come back to it at once.

use mayfly_client::{Client, ClientError};
use mayfly_provider::MachineSpec;
use mayfly_wire::api::Collected;
use mayfly_wire::event::Event;
use tokio::task::JoinSet;

use crate::bed::{Bed, Worker, door, hello, task};
use crate::files;

const MACHINES: u32 = 1000;
/// For each machine its door, its folder and both ends of its link; for each reader both ends of its connection.
const FILES: usize = 8 * MACHINES as usize;

/// Follows a task to its end, whoever serves it: how many of its events came, each once and in order.
async fn follow(client: Client, id: String) -> u64 {
    let (mut events, mut last) = (client.events(&id, 0), 0);
    loop {
        match events.next().await {
            Ok(Some(line)) => {
                let Event { seq, task, .. } = Event::parse(&line).unwrap();
                assert_eq!((seq, &*task), (last + 1, &*id));
                last = seq;
            }
            Ok(None) => return last,
            // It goes on where it was, however long nobody is there.
            Err(ClientError::Unreachable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The worker of a machine that has begun.
async fn begin(spec: MachineSpec) -> Worker {
    let mut worker = Worker::join(&door(&spec), &hello(&spec)).await.unwrap();
    worker.ready().await;
    worker.line("{\"n\":1}").await;
    worker
}

/// The same, to whoever is there now; how many records were kept.
async fn come_back(mut worker: Worker) -> u64 {
    assert!(worker.heard().await.is_none(), "the old link is over");
    let mut worker = Worker::join(&worker.door, &worker.hello).await.unwrap();
    let stored = worker.stored();
    worker.line("{\"n\":2}").await;
    worker.finish(Collected::default()).await;
    stored
}

/// R37: a thousand workers and a thousand readers come back at once, and nothing is lost or told twice. How long that
/// takes is told by `benches/reattach.rs`.
#[tokio::test]
async fn a_thousand_workers_and_readers_come_back_to_the_next_orchestrator() {
    files::allow(FILES);
    if files::most() < FILES {
        return mayfly_test_needs::skip("a process may not have 8000 files open");
    }
    let mut bed =
        Bed::start_with(|config| config.rules.policy.machines_max = MACHINES.try_into().unwrap()).await;
    let (mut readers, mut beginning) = (JoinSet::new(), JoinSet::new());
    for number in 0..MACHINES {
        let client = bed.client.clone();
        readers.spawn(async move {
            let id = client.submit(&task("p", None), &number.to_string()).await.unwrap().id;
            follow(client, id).await
        });
    }
    for _ in 0..MACHINES {
        beginning.spawn(begin(bed.machines.recv().await.unwrap()));
    }
    let workers = beginning.join_all().await;
    let bed = bed.restart().await;
    let coming: JoinSet<u64> = workers.into_iter().map(come_back).collect();
    // `started`, `ready` and the line.
    assert_eq!(coming.join_all().await, vec![3; MACHINES as usize]);
    // What the machine said, and what became of the task beside it.
    assert_eq!(readers.join_all().await, vec![11; MACHINES as usize]);
    bed.nobody_but(0).await;
}
