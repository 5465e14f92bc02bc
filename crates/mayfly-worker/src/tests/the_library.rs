//! What a machine gets of the library is there whole, or nothing of it.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use http::Response;
use mayfly_library::{Kind, Lock, Locked, Name, ResourceId, lock, pack, resolve};
use mayfly_wire::worker::{OrderedLibrary, RESOURCE_PATH};

use super::host::Host;

fn file(path: &str) -> mayfly_library::File {
    mayfly_library::File { path: path.to_owned(), executable: false, bytes: b"x".to_vec() }
}

/// A good archive, and some that nobody of ours would have written.
fn archives() -> [Vec<u8>; 4] {
    let mut spoiled = pack::pack(&[file("r.md")]);
    spoiled.push(0);
    [
        pack::pack(&[file("r.md")]),
        pack::pack(&[file("r.md"), file("r.md/below")]),
        pack::pack(&[file("a.md"), file("r.md"), file("r.md")]),
        spoiled,
    ]
}

fn locked(name: &str, archive: &[u8]) -> Locked {
    let id = ResourceId { kind: Kind::Rules, namespace: Name::global(), name: name.parse().unwrap() };
    let from = resolve::From::Global;
    Locked { id, sha256: pack::sha256(archive), bytes: 1, from, tools: Vec::new() }
}

/// A machine whose task has a good resource, and after it the one of this number.
fn host(number: usize) -> Host {
    let [good, ..] = archives();
    let resources = vec![locked("a", &good), locked("b", &archives()[number])];
    let lock = Lock { version: lock::VERSION, project: None, agent: None, resources }.to_json();
    Host::with("init; result; cat >/dev/null", |desk| {
        desk.order.library = Some(OrderedLibrary { lock, model_is_default: true, secrets: [].into() });
        desk.model = |request| {
            let name = request.uri().path().strip_prefix(RESOURCE_PATH)?;
            ASKED.fetch_add(1, Ordering::SeqCst);
            let archive = archives().into_iter().find(|archive| pack::sha256(archive) == name)?;
            Some(Response::new(bytes::Bytes::from(archive).into()))
        };
    })
}

/// Covers S46: one entry that cannot be, and nothing of all resources is written, nor is `claude` started.
#[tokio::test]
async fn of_resources_with_one_bad_entry_nothing_is_written() {
    for (number, words) in [
        (1, "`r.md/below` needs `r.md` to be a folder, and it is a file too"),
        (2, "`r.md` is there twice"),
        (3, "it does not end where its files do"),
    ] {
        let host = host(number);
        host.live().await.unwrap();
        let (outcome, detail) = host.ended();
        assert_eq!(outcome, "startup", "{detail}");
        assert!(
            detail.contains("rules/_global/b is not what was locked: ") && detail.contains(words),
            "{detail}"
        );
        assert!(!host.dir.path().join("home/.claude/rules").exists(), "{number}");
    }
    let (good, before) = (host(0), ASKED.load(Ordering::SeqCst));
    good.live().await.unwrap();
    assert_eq!(good.ended().0, "succeeded", "{}", good.ended().1);
    let rule = |name: &str| good.dir.path().join(format!("home/.claude/rules/library/{name}/r.md"));
    assert_eq!(["a", "b"].map(|name| fs::read_to_string(rule(name)).unwrap()), ["x", "x"]);
    assert_eq!(ASKED.load(Ordering::SeqCst) - before, 1, "what two of them have comes once");
}

/// How many archives were asked for.
static ASKED: AtomicU32 = AtomicU32::new(0);
