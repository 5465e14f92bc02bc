//! What a task leaves besides its work: taken strictly, listed, and given out one by one or all at once.

use http::StatusCode;
use mayfly_library::artifacts::{Writer, check};
use mayfly_wire::api::{Artifact, Artifacts, Collected, CreateTask, Problem, Task};

use crate::bed::{Bed, CANARY, Worker, raw, task};

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in files {
        writer.append(path, true, content.len() as u64, *content).unwrap();
    }
    writer.end().unwrap()
}

async fn put(worker: &Worker, bytes: Vec<u8>) -> (StatusCode, String) {
    let put = raw(&worker.door).put("http://mayfly/v1/worker/result/artifacts");
    let answer = put.bearer_auth(worker.order.result_token.expose()).body(bytes).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

async fn get(bed: &Bed, task: &Task, path: &str) -> (StatusCode, Vec<u8>) {
    let url = format!("http://mayfly/v1/tasks/{}/result/{path}", task.id);
    let answer = raw(&bed.server.socket()).get(url).send().await.unwrap();
    (answer.status(), answer.bytes().await.unwrap().to_vec())
}

async fn over(bed: &Bed, task: &Task) {
    let mut events = bed.client.events(&task.id, 0);
    while events.next().await.unwrap().is_some() {}
}

#[tokio::test]
async fn artifacts_are_listed_and_given_out() {
    let mut bed = Bed::start().await;
    let asked = CreateTask { artifacts: vec!["dist/**".to_owned()], ..task("p", None) };
    let submitted = bed.client.submit(&asked, "key").await.unwrap();
    let mut worker = bed.worker().await;
    assert_eq!(worker.order.artifacts, ["dist/**"]);
    worker.ready().await;
    assert_eq!(get(&bed, &submitted, "artifacts").await.0, 404);
    let long = "n".repeat(200);
    let files = [("dist/a b.txt", &b"one"[..]), ("dist/sub/x", b""), (long.as_str(), &[7; 3000])];
    let packed = archive(&files);
    assert_eq!(put(&worker, packed.clone()).await.0, 204);
    let artifacts = Some(Artifacts { files: 3, bytes: 3003 });
    worker.finish(Collected { artifacts, ..Collected::default() }).await;
    over(&bed, &submitted).await;

    let (status, list) = get(&bed, &submitted, "artifacts").await;
    let list: Vec<Artifact> = serde_json::from_slice(&list).unwrap();
    let listed: Vec<_> = list.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
    assert_eq!(
        (status, listed),
        (StatusCode::OK, vec![("dist/a b.txt", 3), ("dist/sub/x", 0), (&long, 3000)])
    );
    for (name, content) in files {
        let path = format!("artifacts/{}", name.replace('/', "%2F").replace(' ', "%20"));
        assert_eq!(get(&bed, &submitted, &path).await, (StatusCode::OK, content.to_vec()), "{name}");
    }
    for name in ["none", "dist", "..%2F1%2Fartifacts", "dist%2Fa"] {
        assert_eq!(get(&bed, &submitted, &format!("artifacts/{name}")).await.0, 404, "{name}");
    }
    let to = bed.data().join("to");
    bed.client.artifacts(&submitted.id, None, &to).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), packed);
    assert_eq!(check(&packed[..]).unwrap().len(), 3);
}

/// The machine was lost after they had come out, and before it could say so.
#[tokio::test]
async fn artifacts_that_came_out_before_their_machine_was_lost_are_there() {
    let mut bed = Bed::start().await;
    let asked = CreateTask { artifacts: vec!["dist/**".to_owned()], ..task("p", None) };
    let submitted = bed.client.submit(&asked, "key").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    assert_eq!(put(&worker, archive(&[("dist/a", b"one"), ("dist/b", b"four")])).await.0, 204);
    drop(worker);
    bed.lose_machines();
    over(&bed, &submitted).await;
    let result = bed.client.task(&submitted.id).await.unwrap().result.unwrap();
    assert_eq!(result.artifacts, Some(Artifacts { files: 2, bytes: 7 }));
    assert_eq!(get(&bed, &submitted, "artifacts/dist%2Fa").await, (StatusCode::OK, b"one".to_vec()));
}

/// S17: what has a secret in it is withheld, and kept; S46: what is no archive of ours is not kept at all.
#[tokio::test]
async fn artifacts_with_a_secret_are_withheld_and_what_is_none_is_refused() {
    let mut bed = Bed::start().await;
    let submitted = bed.client.submit(&task("p", None), "key").await.unwrap();
    let mut worker = bed.worker().await;
    worker.ready().await;
    for files in [
        &[("a", CANARY.as_bytes())][..],
        &[(CANARY, &b"x"[..])],
        &[("a", ["x".repeat(70_000).as_str(), CANARY].concat().as_bytes())],
    ] {
        let (status, said) = put(&worker, archive(files)).await;
        let problem: Problem = serde_json::from_str(&said).unwrap();
        assert_eq!((status.as_u16(), problem.kind.as_str()), (422, "secret-in-result"));
        assert!(problem.detail.contains("/1/artifacts.withheld`"), "{}", problem.detail);
    }
    let folder = bed.data().join("results").join(&submitted.id).join("1");
    assert!(folder.join("artifacts.withheld").exists() && !folder.join("artifacts").exists());
    for (bytes, why) in [
        (archive(&[(".git/config", b"x")]), "could hold a credential"),
        (archive(&[("b", b"x"), ("a", b"x")]), "not in its order"),
        ([archive(&[("a", b"x")]), b"more".to_vec()].concat(), "not packed by mayfly"),
        (b"no archive".repeat(100), "cannot be read"),
    ] {
        let (status, said) = put(&worker, bytes).await;
        assert!(status == 422 && said.contains(why), "{status} {said}");
    }
    assert!(!folder.join("artifacts").exists());
    assert_eq!(std::fs::read_dir(bed.data().join("incoming")).unwrap().count(), 0);
    worker.finish(Collected::default()).await;
    over(&bed, &submitted).await;
    assert_eq!(get(&bed, &submitted, "artifacts.tar").await.0, 404);
}
