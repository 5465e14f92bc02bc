//! What a machine handed over while it worked, and what becomes of it once the machine is gone.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mayfly_client::Bundle;
use mayfly_engine::Clock as _;
use mayfly_wire::api::{Collected, Problem, Repository, Task};
use mayfly_wire::event::{Event, MayflyEvent};
use mayfly_wire::worker::Checkpoint;
use tempfile::TempDir;

use crate::bed::{Bed, CANARY, Worker, git, git_bytes, raw, task};

/// A task on a repository, and the agent's side of it.
struct Agent {
    dir: TempDir,
    base: String,
    worker: Worker,
    id: String,
}

impl Agent {
    async fn start(bed: &mut Bed) -> Self {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "-b", "base", "."]);
        fs::write(dir.path().join("kept.txt"), "one\n").unwrap();
        git(dir.path(), &["add", "-A"]);
        git(dir.path(), &["commit", "-q", "-m", "base"]);
        git(dir.path(), &["bundle", "create", "-q", "base.bundle", "base"]);
        let mut asked = task("p", None);
        let bundle = Bundle::read(&dir.path().join("base.bundle"), None).await.unwrap();
        let uploaded = bed.client.upload_workspace("repo", &bundle).await;
        fs::remove_file(dir.path().join("base.bundle")).unwrap();
        asked.workspace = Some(uploaded.unwrap());
        let id = bed.client.submit(&asked, "key").await.unwrap().id;
        let mut worker = bed.worker().await;
        worker.ready().await;
        let base = git(dir.path(), &["rev-parse", "base"]);
        Self { dir, base, worker, id }
    }

    /// Makes this the content of a file, in a commit on the base.
    fn commit(&self, file: &str, text: &str) -> String {
        fs::write(self.dir.path().join(file), text).unwrap();
        git(self.dir.path(), &["add", "-A"]);
        let tree = git(self.dir.path(), &["write-tree"]);
        git(self.dir.path(), &["commit-tree", "-p", &self.base, "-m", "Uncommitted work", &tree])
    }

    /// A checkpoint of `commit` that has what `before` has not.
    fn pack(&self, after: u64, commit: &str, before: &[&str]) -> Vec<u8> {
        let head = Checkpoint {
            after,
            head: Some(commit.to_owned()),
            others: [("side".to_owned(), commit.to_owned())].into(),
            repository: Some(Repository { commit: Some(self.base.clone()), ..Repository::default() }),
            files: 2,
            left_out: vec![format!("not in the checkpoint: {CANARY}")],
        };
        let known = before.iter().map(|before| format!("^{before}\n^{before}^{{tree}}\n"));
        let revisions = format!("{commit}\n^{}\n{}", self.base, known.collect::<String>());
        let mut bytes = serde_json::to_vec(&head).unwrap();
        bytes.push(b'\n');
        bytes.extend(git_bytes(self.dir.path(), &["pack-objects", "-q", "--revs", "--stdout"], &revisions));
        bytes
    }

    async fn put(&self, place: &str, bytes: impl Into<reqwest::Body>) -> reqwest::Response {
        let put = raw(&self.worker.door).put(format!("http://mayfly/v1/worker/checkpoint/{place}"));
        put.bearer_auth(self.worker.order.result_token.expose()).body(bytes).send().await.unwrap()
    }

    async fn puts_well(&self, place: &str, bytes: impl Into<reqwest::Body>) {
        let answer = self.put(place, bytes).await;
        assert_eq!(answer.status(), 204, "{}", answer.text().await.unwrap());
    }
}

async fn events(bed: &Bed, id: &str) -> Vec<MayflyEvent> {
    let (mut lines, mut events) = (bed.client.events(id, 0), Vec::new());
    while let Some(line) = lines.next().await.unwrap() {
        events.extend(Event::parse(&line).unwrap().event);
    }
    events
}

/// The task, once it is over.
async fn over(bed: &Bed, id: &str) -> Task {
    events(bed, id).await;
    bed.client.task(id).await.unwrap()
}

fn kept(bed: &Bed, id: &str) -> PathBuf {
    bed.data().join("results").join(id).join("1")
}

/// G11: all that was handed over, in however many parts, is one bundle on top of what the task began with.
#[tokio::test]
async fn what_a_lost_machine_had_handed_over_is_its_result() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    let first = agent.commit("a.txt", "a\n");
    agent.puts_well("1?age_ms=1500", agent.pack(0, &first, &[])).await;
    let second = agent.commit("b.txt", "b\n");
    agent.puts_well("2?age_ms=0", agent.pack(1, &second, &[&first])).await;
    agent.puts_well("transcript?from=0", "{\"n\":1}\n").await;
    agent.puts_well("transcript?from=8", format!("{{\"s\":\"{CANARY}\"}}\n")).await;
    // The answer to it was not heard.
    agent.puts_well("transcript?from=8", format!("{{\"s\":\"{CANARY}\"}}\nhalf")).await;
    let now = bed.clock.now();
    let (id, dir, agent_base) = (agent.id.clone(), agent.dir, agent.base);
    drop(agent.worker);
    bed.lose_machines();

    let task = over(&bed, &id).await;
    let as_of = |ago: u64| now - Duration::from_millis(ago);
    let told: Vec<_> = events(&bed, &id)
        .await
        .into_iter()
        .filter_map(|event| match event {
            MayflyEvent::Checkpoint { number, as_of, files, .. } => Some((number, as_of, files)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(1, as_of(1500), 2), (2, as_of(0), 2)]);
    assert_eq!((task.outcome.unwrap().name.as_str(), task.result_attempt), ("lost", Some(1)));
    let result = task.result.unwrap();
    assert_eq!((result.head.as_deref(), result.bundle, result.transcript), (Some(&*second), true, true));
    assert_eq!(result.others, ["side"]);
    assert_eq!(result.repository.unwrap().commit, Some(agent_base.clone()));
    let unsaved = result.unsaved.join("\n");
    assert!(unsaved.contains(&format!("what was changed after {}", as_of(0))), "{unsaved}");
    assert!(unsaved.contains("not in the checkpoint: **************"), "{unsaved}");
    let (bundle, transcript) = (dir.path().join("out.bundle"), dir.path().join("out"));
    bed.client.bundle(&id, None, &bundle).await.unwrap();
    git(dir.path(), &["fetch", "-q", "out.bundle", "refs/heads/work", "refs/heads/other/side"]);
    assert_eq!(git(dir.path(), &["diff", "--name-only", "base", &second]), "a.txt\nb.txt");
    let header = fs::read(&bundle).unwrap();
    assert!(header.starts_with(format!("# v2 git bundle\n-{agent_base}").as_bytes()), "on top of the base");
    bed.client.transcript(&id, None, &transcript).await.unwrap();
    assert_eq!(fs::read_to_string(transcript).unwrap(), "{\"n\":1}\n{\"s\":\"**************\"}\n");
    assert!(!kept(&bed, &id).join("checkpoints").exists());
    assert_eq!(fs::read_dir(bed.data().join("incoming")).unwrap().count(), 0);
}

/// R01: what was answered with success is there after a restart, and goes on.
#[tokio::test]
async fn checkpoints_outlive_the_orchestrator() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    let first = agent.commit("a.txt", "a\n");
    agent.puts_well("1?age_ms=0", agent.pack(0, &first, &[])).await;
    let (door, hello) = (agent.worker.door.clone(), agent.worker.hello.clone());
    let Agent { dir, base, worker, id } = agent;
    drop(worker);
    let bed = bed.restart().await;
    let worker = Worker::join(&door, &hello).await.unwrap();
    let agent = Agent { dir, base, worker, id };
    let second = agent.commit("b.txt", "b\n");
    agent.puts_well("2?age_ms=0", agent.pack(1, &second, &[&first])).await;
    let id = agent.id.clone();
    drop(agent.worker);
    let bed = {
        bed.lose_machines();
        bed.restart().await
    };
    let task = over(&bed, &id).await;
    assert_eq!(task.result.unwrap().head, Some(second));
}

/// The machine was lost after its work had come out, and before it could say so: whoever goes on there is at the commit
/// that the agent was at by then.
#[tokio::test]
async fn work_that_came_out_before_its_machine_was_lost_counts_before_a_checkpoint() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    let first = agent.commit("a.txt", "a\n");
    agent.puts_well("1?age_ms=0", agent.pack(0, &first, &[])).await;
    let tree = format!("{}^{{tree}}", agent.commit("b.txt", "b\n"));
    let committed = git(agent.dir.path(), &["commit-tree", "-p", &agent.base, "-m", "second", &tree]);
    let uncommitted = ["commit-tree", "-p", &committed, "-m", "Uncommitted work", &tree];
    let last = git(agent.dir.path(), &uncommitted);
    git(agent.dir.path(), &["update-ref", "refs/heads/work", &last]);
    git(agent.dir.path(), &["update-ref", "refs/heads/other/late", &first]);
    let create =
        ["bundle", "create", "-q", "last.bundle", "refs/heads/work", "refs/heads/other/late", "^base"];
    git(agent.dir.path(), &create);
    let bundle = fs::read(agent.dir.path().join("last.bundle")).unwrap();
    agent.puts_well("../result/bundle", bundle.clone()).await;
    let id = agent.id.clone();
    drop(agent.worker);
    bed.lose_machines();
    let result = over(&bed, &id).await.result.unwrap();
    assert_eq!((result.head, result.bundle, result.others), (Some(last), true, vec!["late".to_owned()]));
    assert_eq!(result.repository.unwrap().commit, Some(committed));
    assert_eq!(fs::read(kept(&bed, &id).join("bundle")).unwrap(), bundle);
}

/// It is not shown as work that changed nothing.
#[tokio::test]
async fn of_a_machine_that_left_its_session_alone_the_work_is_told_of() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    agent.puts_well("transcript?from=0", "{}\n").await;
    let id = agent.id.clone();
    drop(agent.worker);
    bed.lose_machines();
    let result = over(&bed, &id).await.result.unwrap();
    assert!(result.transcript && !result.bundle, "{result:?}");
    assert_eq!(result.unsaved, ["the work: its machine was gone before any of it came out"]);
}

#[tokio::test]
async fn work_that_was_brought_out_takes_the_place_of_checkpoints() {
    let mut bed = Bed::start().await;
    let mut agent = Agent::start(&mut bed).await;
    let first = agent.commit("a.txt", "a\n");
    agent.puts_well("1?age_ms=0", agent.pack(0, &first, &[])).await;
    assert!(kept(&bed, &agent.id).join("checkpoints").is_dir());
    agent.worker.finish(Collected::default()).await;
    assert_eq!(over(&bed, &agent.id).await.result, Some(Collected::default()));
    assert!(!kept(&bed, &agent.id).join("checkpoints").exists());
}

/// A new beginning takes the place of all before it, and what does not fit is refused.
#[tokio::test]
async fn a_checkpoint_builds_on_what_is_kept() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    let first = agent.commit("a.txt", "a\n");
    agent.puts_well("1?age_ms=0", agent.pack(0, &first, &[])).await;
    agent.puts_well("1?age_ms=0", agent.pack(0, &first, &[])).await;
    let second = agent.commit("b.txt", "b\n");
    for (place, bytes) in [
        ("3?age_ms=0", agent.pack(2, &second, &[&first])),
        ("0?age_ms=0", agent.pack(0, &second, &[])),
        ("2?age_ms=0", b"no checkpoint\nPACK".to_vec()),
        ("2", agent.pack(1, &second, &[&first])),
        ("two?age_ms=0", agent.pack(1, &second, &[&first])),
        ("transcript?from=1", b"x\n".to_vec()),
    ] {
        assert_eq!(agent.put(place, bytes).await.status(), 400, "{place}");
    }
    let mut broken = agent.pack(1, &second, &[&first]);
    let end = broken.len() - 30;
    broken[end] ^= 1;
    assert_eq!(agent.put("2?age_ms=0", broken).await.status(), 422, "what cannot be searched is not taken");
    agent.puts_well("3?age_ms=0", agent.pack(0, &second, &[])).await;
    let links = fs::read_dir(kept(&bed, &agent.id).join("checkpoints")).unwrap().count();
    assert_eq!(links, 1, "those before it are gone");
    let id = agent.id.clone();
    drop(agent.worker);
    bed.lose_machines();
    assert_eq!(over(&bed, &id).await.result.unwrap().head, Some(second));
}

/// S17: a checkpoint with a secret in it is kept apart, and the one before it stays.
#[tokio::test]
async fn a_checkpoint_with_a_credential_in_it_is_withheld() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    let first = agent.commit("a.txt", "a\n");
    agent.puts_well("1?age_ms=0", agent.pack(0, &first, &[])).await;
    let second = agent.commit(".npmrc", &format!("{}{CANARY}", "x".repeat(100_000)));
    let refused = agent.pack(1, &second, &[&first]);
    let answer = agent.put("2?age_ms=0", refused.clone()).await;
    assert_eq!(answer.status(), 422);
    let problem: Problem = answer.json().await.unwrap();
    assert!(problem.kind == "secret-in-result" && !problem.detail.contains(CANARY), "{problem:?}");
    let id = agent.id.clone();
    drop(agent.worker);
    bed.lose_machines();
    let result = over(&bed, &id).await.result.unwrap();
    assert_eq!((result.head, result.bundle), (Some(first), true));
    assert!(result.unsaved.iter().any(|line| line.contains("checkpoint.withheld")), "{:?}", result.unsaved);
    assert_eq!(fs::read(kept(&bed, &id).join("checkpoint.withheld")).unwrap(), refused);
}

/// What was set aside of an attempt's checkpoints, by the number of each.
fn damaged(bed: &Bed, id: &str) -> Vec<String> {
    let names = fs::read_dir(kept(bed, id).join("checkpoints.damaged")).unwrap();
    let mut numbers: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().split_once('-').unwrap().0.to_owned())
        .collect();
    numbers.sort();
    numbers
}

/// A head that names what is in none of the packs is no result, and nothing is thrown away.
#[tokio::test]
async fn checkpoints_that_are_not_whole_are_kept_and_told_of() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    let (first, second) = (agent.commit("a.txt", "a\n"), agent.commit("b.txt", "b\n"));
    let lies = agent.pack(0, &second, &[&first]);
    agent.puts_well("1?age_ms=0", lies).await;
    let id = agent.id.clone();
    drop(agent.worker);
    bed.lose_machines();
    let result = over(&bed, &id).await.result.unwrap();
    assert!(!result.bundle && result.head.is_none(), "{result:?}");
    let [told] = &result.unsaved[..] else { panic!("{result:?}") };
    assert!(told.contains(&format!("results/{id}/1/checkpoints.damaged/1-")), "{told}");
    assert_eq!(damaged(&bed, &id), ["1"]);
}

/// Of what was handed over last and is of no use nothing is lost but itself.
#[tokio::test]
async fn a_checkpoint_before_those_that_are_damaged_is_the_result() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    let commits = ["a.txt", "b.txt", "c.txt", "d.txt"].map(|file| agent.commit(file, file));
    agent.puts_well("1?age_ms=4000", agent.pack(0, &commits[0], &[])).await;
    agent.puts_well("2?age_ms=3000", agent.pack(1, &commits[1], &[&commits[0]])).await;
    // Its pack lacks what the one before it has, and the last has a head that nobody can read any more.
    agent.puts_well("3?age_ms=2000", agent.pack(2, &commits[3], &[&commits[2]])).await;
    agent.puts_well("4?age_ms=1000", agent.pack(3, &commits[3], &[&commits[2]])).await;
    let checkpoints = fs::read_dir(kept(&bed, &agent.id).join("checkpoints")).unwrap();
    let is_last = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("4-");
    let last = checkpoints.map(|entry| entry.unwrap().path()).find(is_last).unwrap();
    fs::write(last, "no head").unwrap();
    let (id, as_of) = (agent.id.clone(), bed.clock.now() - Duration::from_secs(3));
    drop(agent.worker);
    bed.lose_machines();
    let result = over(&bed, &id).await.result.unwrap();
    assert_eq!((result.head.as_ref(), result.bundle), (Some(&commits[1]), true));
    let unsaved = result.unsaved.join("\n");
    assert!(unsaved.contains(&format!("what was changed after {as_of}")), "{unsaved}");
    for number in ["3", "4"] {
        assert!(unsaved.contains(&format!("results/{id}/1/checkpoints.damaged/{number}-")), "{unsaved}");
    }
    assert_eq!(damaged(&bed, &id), ["3", "4"]);
    assert!(!kept(&bed, &id).join("checkpoints").exists());
}

/// What the worker had brought out is no bundle any more: the checkpoints are used, and it is kept.
#[tokio::test]
async fn checkpoints_take_the_place_of_a_bundle_that_cannot_be_read() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    let first = agent.commit("a.txt", "a\n");
    agent.puts_well("1?age_ms=0", agent.pack(0, &first, &[])).await;
    fs::write(kept(&bed, &agent.id).join("bundle"), "# v2 git bundle\ncut off").unwrap();
    let id = agent.id.clone();
    drop(agent.worker);
    bed.lose_machines();
    let result = over(&bed, &id).await.result.unwrap();
    assert_eq!((result.head, result.bundle), (Some(first), true));
    let unsaved = result.unsaved.join("\n");
    assert!(unsaved.contains(&format!("results/{id}/1/bundle.damaged")), "{unsaved}");
    let set_aside = fs::read_to_string(kept(&bed, &id).join("bundle.damaged")).unwrap();
    assert_eq!(set_aside, "# v2 git bundle\ncut off");
}

/// A file that is still on its way when its machine is lost holds up nobody.
#[tokio::test]
async fn an_upload_that_is_under_way_ends_with_its_machine() {
    let mut bed = Bed::start().await;
    let agent = Agent::start(&mut bed).await;
    let first = agent.commit("a.txt", "a\n");
    agent.puts_well("1?age_ms=0", agent.pack(0, &first, &[])).await;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let pieces = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let (id, url) = (agent.id.clone(), "http://mayfly/v1/worker/result/bundle");
    let put = raw(&agent.worker.door).put(url).bearer_auth(agent.worker.order.result_token.expose());
    let upload = tokio::spawn(put.body(reqwest::Body::wrap_stream(pieces)).send());
    sender.send(Ok::<_, std::io::Error>("# v2 git bundle\n")).await.unwrap();
    drop(agent.worker);
    bed.lose_machines();
    let result = over(&bed, &id).await.result.unwrap();
    assert_eq!((result.head, result.bundle), (Some(first), true));
    // Its door is gone by now too, so there may be no answer.
    let answer = upload.await.unwrap().ok();
    assert!(answer.is_none_or(|answer| !answer.status().is_success()));
    drop(sender);
    assert!(!kept(&bed, &id).join("bundle.withheld").exists());
}

/// Work that others' searches had kept waiting is searched once its machine is gone: what is clean is the result after all.
#[tokio::test]
async fn work_that_was_not_searched_in_time_is_searched_when_its_machine_is_gone() {
    for (text, is_clean) in [("b\n", true), (CANARY, false)] {
        let mut bed = Bed::start().await;
        let mut agent = Agent::start(&mut bed).await;
        let last = agent.commit("b.txt", text);
        git(agent.dir.path(), &["update-ref", "refs/heads/work", &last]);
        git(agent.dir.path(), &["bundle", "create", "-q", "last.bundle", "refs/heads/work", "^base"]);
        let folder = kept(&bed, &agent.id);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(agent.dir.path().join("last.bundle"), folder.join("bundle.unsearched")).unwrap();
        let unsaved = ["the work: not searched yet", "an artifact: too long"].map(str::to_owned);
        let told = Collected { head: Some(last), unsaved: unsaved.to_vec(), ..Collected::default() };
        agent.worker.finish(told.clone()).await;
        let unsaved = unsaved[usize::from(is_clean)..].to_vec();
        let result = over(&bed, &agent.id).await.result.unwrap();
        assert_eq!(result, Collected { bundle: is_clean, unsaved, ..told });
        let there = ["bundle", "bundle.withheld", "bundle.unsearched"].map(|name| folder.join(name).exists());
        assert_eq!(there, [is_clean, !is_clean, false]);
    }
}
