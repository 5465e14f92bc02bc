//! The bodies of the API: no text makes their readers panic, what is taken is written as it is read, and a task that
//! is accepted holds to what is documented.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_engine::check_task;
use mayfly_wire::api::{
    Cancel, CreateTask, CreateToken, PRIORITY_MAX, PROMPT_BYTES_MAX, RETRIES_MAX, Retry, check_token_name,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|input: &[u8]| {
    if let Some(task) = reads_back::<CreateTask>(input)
        && check_task(&task).is_ok()
    {
        is_as_documented(&task);
    }
    reads_back::<Cancel>(input);
    reads_back::<Retry>(input);
    if let Some(token) = reads_back::<CreateToken>(input)
        && check_token_name(&token.name)
    {
        assert!(!token.name.starts_with(['-', '.']) && !token.name.contains('/'));
    }
});

fn reads_back<T: Serialize + DeserializeOwned>(input: &[u8]) -> Option<T> {
    let body = serde_json::from_slice::<T>(input).ok()?;
    let written = serde_json::to_vec(&body).expect("it was JSON");
    let again: T = serde_json::from_slice(&written).expect("ours");
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), written);
    Some(body)
}

/// What becomes an argument is none of the options of `claude`, and what becomes a path is one name.
fn is_as_documented(task: &CreateTask) {
    let CreateTask { prompt, workspace, model, credential, .. } = task;
    assert!((1..=PROMPT_BYTES_MAX).contains(&prompt.len()) && !prompt.contains('\0'));
    assert!(task.priority.abs() <= PRIORITY_MAX && task.retries <= RETRIES_MAX);
    assert!(task.max_budget_usd.is_none_or(|usd| usd > 0.0 && usd.is_finite()));
    assert!([task.timeout_ms, task.idle_timeout_ms].iter().flatten().all(|ms| *ms > 0));
    if let Some(model) = model {
        assert!(!model.starts_with('-') && model.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Some(workspace) = workspace {
        assert!(!workspace.name.starts_with(['-', '.']) && !workspace.name.contains('/'));
        assert!(workspace.id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(workspace.base.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    if let Some(credential) = credential {
        assert!(credential.secret.expose().bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
