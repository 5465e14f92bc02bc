//! Each way to end, from success to a machine without memory.

use serde_json::json;

use super::world::{World, most_at_once};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_comes_back_as_a_branch_and_touches_nothing_else() {
    let Some(world) = World::start(|_| {}).await else { return };
    let before = world.git(&["status", "--porcelain=v2", "--branch"]);
    let ended = world.outcome_of(&["[script: write path=made.txt content=\"made\"] Make a file"]).await;
    assert_eq!((ended.code, ended.outcome()), (Some(0), ("succeeded", "")), "{}", ended.stderr);
    let branches = world.branches();
    let [branch] = &branches[..] else { panic!("{branches:?}") };
    let files = world.git(&["ls-tree", "-r", "--name-only", branch]);
    assert_eq!(files, ".gitattributes\na.txt\nmade.txt\nnew.txt");
    // On top of HEAD is the user's own uncommitted work, and on top of that the agent's.
    assert_eq!(world.git(&["show", &format!("{branch}:a.txt")]), "two");
    assert_eq!(world.git(&["diff", "--name-only", &format!("{branch}^"), branch]), "made.txt");
    assert_eq!(world.git(&["rev-parse", &format!("{branch}^^")]), world.git(&["rev-parse", "HEAD"]));
    assert_eq!(world.git(&["status", "--porcelain=v2", "--branch"]), before);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_the_agent_come_back_as_they_are() {
    let Some(world) = World::start(|_| {}).await else { return };
    let command = "echo x > c.txt && git add c.txt && git commit -q -m 'of the agent' && echo y > loose.txt";
    let ended = world.outcome_of(&[&format!("[script: bash command=\"{command}\"]")]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let branch = &world.branches()[0];
    let log = world.git(&["log", "--format=%s", &format!("HEAD..{branch}")]);
    assert!(log.contains("of the agent"), "{log}");
    assert_eq!(world.git(&["show", &format!("{branch}:loose.txt")]), "y");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_committed_elsewhere_comes_back_as_branches_of_its_own() {
    let Some(world) = World::start(|_| {}).await else { return };
    let command = "git checkout -q -b feature/x && echo x > x.txt && git add x.txt && git commit -q -m 'of x' \
                   && git checkout -q - && echo s > a.txt && git stash -q && echo y > loose.txt && chmod 000 $HOME";
    let ended = world.outcome_of(&[&format!("[script: bash command=\"{command}\"]")]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let branches = world.branches();
    let [work, feature, stash] = &branches[..] else { panic!("{branches:?} {}", ended.stderr) };
    assert_eq!([feature, stash], [&format!("{work}--feature-x"), &format!("{work}--stash")]);
    for (branch, file, text) in [(work, "loose.txt", "y"), (feature, "x.txt", "x"), (stash, "a.txt", "s")] {
        assert_eq!(world.git(&["show", &format!("{branch}:{file}")]), text);
        assert!(ended.stderr.contains(&format!("{branch}\n")), "{}", ended.stderr);
    }
    let result = &ended.own("collected").next().expect("a collection")["result"];
    assert_eq!(result["others"], json!(["feature-x", "stash"]));
    assert_eq!(result["transcript"], true, "its folder was closed, not its file lost: {result}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_tool_is_told_and_the_agent_goes_on() {
    let Some(world) = World::start(|_| {}).await else { return };
    let ended = world.outcome_of(&["[script: tool name=AskUserQuestion]"]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(0), "succeeded"), "{}", ended.stderr);
    let denied = ended.own("denied").next().expect("a denied event");
    assert_eq!(denied["tool"], "AskUserQuestion");
    assert_eq!(world.branches(), [""; 0], "nothing was changed");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_api_is_named_with_its_status() {
    let Some(world) = World::start(|_| {}).await else { return };
    for (status, word) in [(400, "400"), (403, "403")] {
        let ended = world.outcome_of(&[&format!("[script: status code={status}]")]).await;
        let (outcome, detail) = ended.outcome();
        assert_eq!((ended.code, outcome), (Some(1), "api-error"), "{}", ended.stderr);
        assert!(detail.contains(word), "{detail}");
    }
    world.end().await;
}

/// The credential that the user gave is refused by the API.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_credential_is_an_error_of_the_api() {
    let Some(world) = World::start(|_| {}).await else { return };
    let ended = world.outcome_of(&["[script: status code=401]"]).await;
    let (outcome, detail) = ended.outcome();
    assert_eq!((ended.code, outcome), (Some(1), "api-error"), "{}", ended.stderr);
    assert!(detail.contains("401"), "{detail}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usage_limit_is_told_apart_with_its_reset_time() {
    let Some(world) = World::start(|_| {}).await else { return };
    let ended = world.outcome_of(&["[script: usage-limit resets_at=4102444800]"]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "usage-limit"), "{}", ended.stderr);
    let limit = ended.own("limit").next().expect("a limit event");
    assert_eq!(limit["resets_at"], json!(4_102_444_800_u64));
    assert_eq!((ended.own("limit").count(), &limit["kind"]), (1, &json!("usage-limit")));
    assert!(ended.outcome().1.contains("2100-01-01T00:00:00Z"), "{:?}", ended.outcome());
    world.end().await;
}

/// After the retries of `claude`; an overload shows in the middle of an answer too.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_and_an_overload_are_told_apart() {
    let Some(world) = World::start(|_| {}).await else { return };
    let (rate, overload) = (["rate-limit", "rate-limit"], ["overloaded", "overload"]);
    let answers =
        [("status code=429 retry_after=0", rate), ("status code=529", overload), ("stream-error", overload)];
    let runs = answers.map(|(answer, [outcome, kind])| {
        let run = world.run(&[&format!("[script: {answer}]")]);
        async move { (run.end().await, outcome, kind) }
    });
    for (ended, outcome, kind) in futures_util::future::join_all(runs).await {
        assert_eq!((ended.code, ended.outcome().0), (Some(1), outcome), "{}", ended.stderr);
        let kinds: Vec<_> = ended.own("limit").map(|limit| limit["kind"].clone()).collect();
        assert_eq!(kinds, [kind], "{outcome}");
    }
    world.end().await;
}

/// What the task used is counted on its way, and what it cost is what `claude` says.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_used_is_shown() {
    let Some(world) = World::start(|_| {}).await else { return };
    let ended = world.outcome_of(&["[script: bash command=\"echo hello\"]"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let id = ended.events[0]["task"].as_str().unwrap().to_owned();
    let task: serde_json::Value =
        serde_json::from_str(&world.mayfly(&["result", &id, "--json"]).await.text()).unwrap();
    let result = ended.events.iter().rev().find(|event| event["line"]["type"] == "result").unwrap();
    let (usage, said) = (&task["usage"], &result["line"]);
    assert_eq!(usage["requests"], 2);
    for (ours, theirs) in [
        ("input_tokens", "input_tokens"),
        ("output_tokens", "output_tokens"),
        ("cache_read_tokens", "cache_read_input_tokens"),
        ("cache_write_tokens", "cache_creation_input_tokens"),
    ] {
        assert_eq!(usage[ours], said["usage"][theirs], "{usage} {said}");
    }
    assert_eq!((&usage["cost_usd"], &usage["cost_by"]), (&said["total_cost_usd"], &json!("claude")));
    let summary = world.mayfly(&["result", &id]).await.text();
    assert!(summary.contains("2 requests") && summary.contains("by claude"), "{summary}");
    assert!(world.mayfly(&["ps", "--all"]).await.text().contains("USED"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_turns_ends_a_loop() {
    let Some(world) = World::start(|_| {}).await else { return };
    let ended = world.outcome_of(&["--max-turns", "2", "[script: loop]"]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "max-turns"), "{}", ended.stderr);
    world.end().await;
}

/// Another run would be paid for, and end the same way.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_fit_is_not_asked_for_again() {
    let Some(world) = World::start(|_| {}).await else { return };
    let ended = world.outcome_of(&["--retries", "3", "[script: max-tokens]"]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "max-tokens"), "{}", ended.stderr);
    assert_eq!(ended.own("started").count(), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_money_ends_a_loop() {
    let Some(world) = World::start(|_| {}).await else { return };
    let ended = world.outcome_of(&["--max-budget-usd", "0.0001", "[script: loop]"]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "max-budget"), "{}", ended.stderr);
    world.end().await;
}

/// R35, S60: a model that says nothing for too long.
#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_the_task_with_its_own_reason() {
    let Some(world) = World::start(|_| {}).await else { return };
    let ended = world.outcome_of(&["--idle-timeout", "2s", "[script: hang]"]).await;
    let (outcome, detail) = ended.outcome();
    assert_eq!((ended.code, outcome), (Some(1), "idle-timeout"), "{}", ended.stderr);
    assert!(detail.contains("2s"), "{detail}");
    world.end().await;
}

/// G11: the model falls silent after a first step, whose work comes back.
#[tokio::test(flavor = "multi_thread")]
async fn silence_after_a_first_step_brings_its_work_back() {
    let Some(world) = World::start(|_| {}).await else { return };
    let write = json!({"name": "Write", "input": {"file_path": "{cwd}/half.txt", "content": "half\n"}});
    let steps = json!([{"tools": [write]}, {"hold": "for ever", "text": "never said"}]);
    let ended = world.outcome_of(&["--idle-timeout", "5s", &format!("[script: steps list={steps}]")]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "idle-timeout"), "{}", ended.stderr);
    assert_eq!(world.git(&["show", &format!("{}:half.txt", world.branches()[0])]), "half");
    world.end().await;
}

/// G11, S60: the time is over, and what was done until then comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_brings_the_work_back() {
    let Some(world) = World::start(|_| {}).await else { return };
    let steps = json!([
        {"tools": [{"name": "Write", "input": {"file_path": "{cwd}/half.txt", "content": "half\n"}}]},
        {"tools": [{"name": "Bash", "input": {"command": "tail -f /dev/null", "description": "wait"}}]},
    ]);
    let ended = world.outcome_of(&["--timeout", "5s", &format!("[script: steps list={steps}]")]).await;
    assert_eq!((ended.code, ended.outcome().0), (Some(1), "timeout"), "{}", ended.stderr);
    assert_eq!(world.git(&["show", &format!("{}:half.txt", world.branches()[0])]), "half");
    world.end().await;
}

/// R05, S51: `claude` is killed for want of memory: it has less than it takes to start.
#[tokio::test(flavor = "multi_thread")]
async fn too_little_memory_is_named() {
    let limited = World::start(|rules| rules.limits.memory_bytes_max = 80 << 20).await;
    let Some(world) = limited else { return };
    let ended = world.outcome_of(&["[script: text]"]).await;
    if ended.own("warning").any(|warning| warning["text"].as_str().unwrap().contains("memory limit")) {
        mayfly_test_needs::skip("memory cannot be limited here");
    } else {
        assert_eq!((ended.code, ended.outcome().0), (Some(1), "out-of-memory"), "{}", ended.stderr);
    }
    world.end().await;
}

/// S61: a `claude` of another version than the one that is pinned.
#[tokio::test(flavor = "multi_thread")]
async fn what_claude_says_it_runs_with_must_be_what_was_asked_for() {
    let Some(world) = World::start(|rules| rules.claude_version = Some("0.0.1".to_owned())).await else {
        return;
    };
    let ended = world.outcome_of(&["[script: bash command=\"touch ran.txt\"]"]).await;
    let (outcome, detail) = ended.outcome();
    assert_eq!((ended.code, outcome), (Some(1), "init-mismatch"), "{}", ended.stderr);
    assert!(detail.contains("0.0.1"), "{detail}");
    assert_eq!(ended.tool_results(), [""; 0], "no tool may have run");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_tasks_share_two_slots() {
    let Some(world) = World::start(|rules| rules.policy.machines_max = 2.try_into().unwrap()).await else {
        return;
    };
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..5 {
        let run = world.run(&[&format!("[script: write path=n{number}.txt]")]);
        runs.spawn(run.end());
    }
    let all = runs.join_all().await;
    assert!(
        all.iter().all(|ended| ended.code == Some(0)),
        "{:?}",
        all.iter().map(|e| &e.stderr).collect::<Vec<_>>()
    );
    assert_eq!(most_at_once(all.iter().flat_map(|ended| &ended.events)), 2);
    assert_eq!(world.branches().len(), 5);
    world.end().await;
}
