//! Wrong input: one clear message that names the thing and the next step, exit 2, and nothing started.

use super::User;

/// What `mayfly` says to `args`; nothing may be left behind.
fn said(args: &[&str]) -> String {
    let user = User::new();
    let said = user.said(user.with_token(args));
    assert!(user.untouched(), "something was started");
    said
}

#[test]
fn an_unknown_flag_or_verb() {
    insta::assert_snapshot!("unknown_flag", said(&["run", "--paralel", "5", "fix it"]));
    insta::assert_snapshot!("unknown_verb", said(&["rnu", "fix it"]));
}

#[test]
fn a_flag_with_a_wrong_value() {
    insta::assert_snapshot!("wrong_timeout", said(&["run", "--timeout", "soon", "fix it"]));
    insta::assert_snapshot!("wrong_budget", said(&["run", "--max-budget-usd", "-1", "fix it"]));
    insta::assert_snapshot!("wrong_model", said(&["run", "--model", "", "fix it"]));
    insta::assert_snapshot!("wrong_tasks", said(&["demo", "--tasks", "0"]));
    insta::assert_snapshot!("wrong_parallel", said(&["serve", "--parallel", "0"]));
    insta::assert_snapshot!("little_memory", said(&["serve", "--memory", "200MiB"]));
    insta::assert_snapshot!("little_disk", said(&["serve", "--disk", "200MiB"]));
    insta::assert_snapshot!("wrong_after", said(&["logs", "1a2b", "--after", "-1"]));
}

/// Nobody ever writes into it, and nobody waits for that.
#[test]
fn a_configuration_that_is_a_pipe() {
    let user = User::new();
    let made = std::process::Command::new("mkfifo").arg(user.cwd().join("pipe.toml")).status().unwrap();
    assert!(made.success());
    insta::assert_snapshot!("pipe_as_config", user.said(user.with_token(&["ps", "--config", "pipe.toml"])));
}

#[test]
fn a_configuration_that_is_missing_or_wrong() {
    let user = User::new();
    let with = |text: &str| {
        std::fs::write(user.cwd().join("mayfly.toml"), text).unwrap();
        user.said(user.with_token(&["run", "--config", "mayfly.toml", "fix it"]))
    };
    insta::assert_snapshot!("missing_config", said(&["run", "--config", "nowhere.toml", "fix it"]));
    insta::assert_snapshot!("unknown_key", with("[serve]\nparralel = 5\n"));
    insta::assert_snapshot!("wrong_value", with("[task]\ntimeout = \"soon\"\n"));
    insta::assert_snapshot!("wrong_memory", said(&["serve", "--memory", "4GB"]));
    assert!(user.untouched());
}

#[test]
fn no_prompt() {
    insta::assert_snapshot!("no_prompt", said(&["run"]));
    insta::assert_snapshot!("empty_prompt", said(&["run", ""]));
}

#[test]
fn a_prompt_without_quotes_is_not_taken_for_several() {
    insta::assert_snapshot!(said(&["run", "fix", "the", "test"]));
}

#[test]
fn prompts_and_a_file_of_tasks() {
    insta::assert_snapshot!(said(&["run", "--file", "tasks.jsonl", "fix it"]));
}

/// Nothing is submitted, since nothing is even started.
#[test]
fn a_file_of_tasks_with_a_bad_line() {
    let user = User::new();
    let with = |text: &str| {
        std::fs::write(user.cwd().join("tasks.jsonl"), text).unwrap();
        user.said(user.with_token(&["run", "--file", "tasks.jsonl"]))
    };
    let good = r#"{"prompt":"fix it"}"#;
    insta::assert_snapshot!("bad_key", with(&format!("{good}\n{{\"promt\":\"fix it\"}}\n")));
    insta::assert_snapshot!(
        "bad_value",
        with(&format!("{good}\n\n{{\"prompt\":\"fix it\",\"retries\":11}}\n"))
    );
    insta::assert_snapshot!("no_object", with(&format!("fix it\n{good}\n")));
    insta::assert_snapshot!("no_line", with("\n"));
    insta::assert_snapshot!("many_lines", with(&format!("{good}\n").repeat(257)));
    insta::assert_snapshot!("missing_file", user.said(user.with_token(&["run", "--file", "missing"])));
    let mut command = user.with_token(&["run", "--file", "-"]);
    command.write_stdin("{}");
    insta::assert_snapshot!("bad_stdin", user.said(command));
    assert!(user.untouched());
}

#[test]
fn a_task_that_is_not_named_by_its_digits() {
    for (verb, bad) in [("logs", "1a2"), ("cancel", "../../x"), ("retry", "fix-it"), ("result", "")] {
        insta::assert_snapshot!(format!("no_id_{verb}"), said(&[verb, bad]));
    }
    insta::assert_snapshot!("no_task", said(&["cancel"]));
}

#[test]
fn verbs_about_tasks_where_there_were_none() {
    let user = User::new();
    insta::assert_snapshot!("ps_of_nobody", user.said(user.mayfly(&["ps"])));
    insta::assert_snapshot!(
        "ps_of_nobody_elsewhere",
        user.said(user.mayfly(&["ps", "--data", "else where"]))
    );
    let nothing = "exit 2\nmayfly: there is no data folder `[home]/.local/share/mayfly`, and so no task of it: name the \
                   right one with --data DIR\n";
    // No socket can be there, but for another reason.
    std::fs::write(user.cwd().join("file"), "").unwrap();
    insta::assert_snapshot!("ps_of_a_file", user.said(user.mayfly(&["ps", "--data", "file/below"])));
    insta::assert_snapshot!(
        "logs_of_a_file",
        user.said(user.mayfly(&["logs", "1a2b", "--data", "file/below"]))
    );
    for verb in ["logs", "cancel", "retry", "result"] {
        assert_eq!(user.said(user.with_token(&[verb, "1a2b"])), nothing, "{verb}");
    }
    assert!(user.untouched());
}

#[test]
fn flags_that_exclude_one_another() {
    insta::assert_snapshot!("two_forms", said(&["result", "1a2b", "--diff", "--apply"]));
    insta::assert_snapshot!("two_branches", said(&["result", "1a2b", "--branch", "a", "--branch", "b"]));
    insta::assert_snapshot!("raw_json", said(&["logs", "1a2b", "--raw", "--json"]));
    insta::assert_snapshot!("wrong_priority", said(&["run", "--priority", "high", "fix it"]));
    insta::assert_snapshot!("wrong_retries", said(&["run", "--retries", "11", "fix it"]));
}

#[test]
fn a_prompt_that_begins_with_a_dash() {
    insta::assert_snapshot!(said(&["run", "-v is broken"]));
}

#[test]
fn a_prompt_on_standard_input_that_is_none() {
    let user = User::new();
    let with = |input: Vec<u8>| {
        let mut command = user.with_token(&["run", "-"]);
        command.write_stdin(input);
        user.said(command)
    };
    insta::assert_snapshot!("empty_stdin", with(Vec::new()));
    insta::assert_snapshot!("long_stdin", with(vec![b'x'; 1024 * 1024 + 1]));
    insta::assert_snapshot!("nul_stdin", with(b"a\0b".to_vec()));
    insta::assert_snapshot!("binary_stdin", with(b"\xff\xfe".to_vec()));
    assert!(user.untouched());
}

#[test]
fn a_credential_that_is_missing_or_of_the_wrong_kind() {
    let user = User::new();
    let with = |name: &str, value: &str| {
        let mut command = user.mayfly(&["run", "fix it"]);
        command.env(name, value);
        let said = user.said(command);
        assert!(!said.contains("canary"), "{said}");
        said
    };
    insta::assert_snapshot!("no_credential", user.said(user.mayfly(&["run", "fix it"])));
    insta::assert_snapshot!("key_as_token", with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-api03-canary"));
    insta::assert_snapshot!("token_as_key", with("ANTHROPIC_API_KEY", "sk-ant-oat01-canary"));
    insta::assert_snapshot!("refresh_token", with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-ort01-canary"));
    insta::assert_snapshot!("cut_token", with("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-can\nary"));
    insta::assert_snapshot!("no_gateway", with("ANTHROPIC_AUTH_TOKEN", "canary"));
    assert!(user.untouched());
}

#[test]
fn a_repository_that_cannot_be_worked_on() {
    let user = User::new();
    user.git_init("bare", &["--bare"]);
    user.git_init("empty", &[]);
    std::fs::create_dir(user.cwd().join("plain")).unwrap();
    let with = |repo: &str| user.said(user.with_token(&["run", "--repo", repo, "fix it"]));
    insta::assert_snapshot!("missing_repo", with("missing"));
    insta::assert_snapshot!("url_repo", with("https://user:secret@example.com/x.git"));
    insta::assert_snapshot!("http_repo", with("http://example.com/x.git"));
    insta::assert_snapshot!("empty_revision", with("https://example.com/x.git#"));
    insta::assert_snapshot!("plain_repo", with("plain"));
    insta::assert_snapshot!("bare_repo", with("bare"));
    insta::assert_snapshot!("empty_repo", with("empty"));
    let partial = user.git_init("partial", &[]);
    let script =
        "echo one >a.txt && git add . && git -c user.name=u -c user.email=u@localhost commit -q -m one &&
        git config remote.origin.promisor true && rm -f .git/objects/$(git rev-parse HEAD:a.txt | sed 's,..,&/,')";
    let mut sh = std::process::Command::new("sh");
    sh.args(["-c", script]).current_dir(partial).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    assert!(sh.status().unwrap().success());
    insta::assert_snapshot!("partial_repo", with("partial"));
    assert!(user.untouched());
}

#[test]
fn a_cli_that_cannot_run_in_a_machine() {
    let user = User::new();
    let script = user.cwd().join("claude.js");
    std::fs::write(&script, "#!/usr/bin/env node\n").unwrap();
    insta::assert_snapshot!("script_cli", user.said(user.mayfly(&["demo", "--claude", "claude.js"])));
    insta::assert_snapshot!("missing_cli", user.said(user.mayfly(&["demo", "--claude", "missing"])));
    insta::assert_snapshot!("folder_cli", user.said(user.mayfly(&["demo", "--claude", "."])));
    insta::assert_snapshot!("other_cli", user.said(user.mayfly(&["demo", "--claude", "/bin/true"])));
}

/// S45: a path's name is shown, and obeyed by no terminal.
#[test]
fn a_name_with_control_characters_is_spelled_out() {
    let said = said(&["run", "--repo", "a\u{1b}[2Jb\rc\u{202e}d", "fix it"]);
    assert!(said.contains(r"a\u{1b}[2Jb\u{d}c\u{202e}d"), "{said}");
    assert!(!said.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{said:?}");
}

/// A place where nothing can be written.
#[test]
fn a_home_that_is_nowhere() {
    let user = User::new();
    let mut command = user.with_token(&["run", "fix it"]);
    command.env_remove("HOME");
    insta::assert_snapshot!(user.said(command));
}

/// What is meant would depend on where one stands; of the folders that have a name of their own, such a one is ignored.
#[test]
fn a_home_that_is_no_absolute_path() {
    let user = User::new();
    let with = |vars: &[(&str, &str)], args: &[&str]| {
        let mut command = user.with_token(args);
        command.envs(vars.iter().copied());
        user.said(command)
    };
    insta::assert_snapshot!("relative_home", with(&[("HOME", "rel")], &["run", "fix it"]));
    for verb in ["ps", "doctor", "serve"] {
        assert_eq!(with(&[("HOME", "rel")], &[verb]), with(&[("HOME", "rel")], &["run", "fix it"]), "{verb}");
    }
    let ignored = [("XDG_DATA_HOME", "rel"), ("XDG_CONFIG_HOME", "rel"), ("XDG_CACHE_HOME", "rel")];
    assert_eq!(with(&ignored, &["ps"]), with(&[], &["ps"]));
    assert_eq!(std::fs::read_dir(user.cwd()).unwrap().count(), 0);
    assert!(user.untouched());
}

/// The folder is named before a CLI is looked for, or fetched.
#[test]
fn a_data_folder_that_is_a_file() {
    let user = User::new();
    std::fs::write(user.cwd().join("file"), "").unwrap();
    let serve = user.said(user.mayfly(&["serve", "--data", "file"]));
    assert_eq!(user.said(user.with_token(&["run", "--data", "file", "fix it"])), serve);
    insta::assert_snapshot!("data_file", serve);
    insta::assert_snapshot!("data_below_a_file", user.said(user.mayfly(&["serve", "--data", "file/below"])));
    assert!(user.untouched());
}

/// Some editors begin a file with a mark of the byte order.
#[test]
fn a_file_of_tasks_that_begins_with_a_mark_of_the_byte_order() {
    let user = User::new();
    std::fs::write(user.cwd().join("tasks.jsonl"), "\u{feff}{\"prompt\":\"fix it\"}\n{}\n").unwrap();
    insta::assert_snapshot!(user.said(user.with_token(&["run", "--file", "tasks.jsonl"])));
    assert!(user.untouched());
}

/// S56: what another user's folder holds is not followed, and nothing is written there.
#[test]
fn a_data_folder_of_another_user() {
    use std::os::unix::fs::{chown, symlink};
    if !rustix::process::geteuid().is_root() {
        mayfly_test_needs::skip("only root can give a folder to another user");
        return;
    }
    let user = User::new();
    let (folder, victim) = (user.cwd().join("theirs"), user.cwd().join("victim"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, folder.join("serve.log")).unwrap();
    chown(&folder, Some(54_321), Some(54_321)).unwrap();
    insta::assert_snapshot!(user.said(user.with_token(&["run", "--data", "theirs", "fix it"])));
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}
