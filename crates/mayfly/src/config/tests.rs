//! Files that are read and files that are refused, and the reference.

use std::fs;

use super::*;

fn read_text(flags: Flags, text: &str) -> Result<Settings, BadConfig> {
    Settings::read(flags, Path::new("/etc/mayfly.toml"), text.to_owned())
}

fn refused(text: &str) -> String {
    read_text(Flags::default(), text).expect_err(text).to_string()
}

fn listed(settings: &Settings) -> Vec<String> {
    let line = |row: &Row| {
        let value = row.value.as_ref().unwrap_or(&row.instead);
        format!("{} = {value} ({})", row.key, settings.origin(row))
    };
    settings.rows().iter().map(line).collect()
}

#[test]
fn a_flag_comes_before_the_file_and_the_file_before_the_default() {
    let text = "data = \"/d\"\n\n[serve]\nparallel = 7\n[machine]\nmemory = \"8GiB\"\ncpus = 0.5\n[task]\n\
                timeout = \"1h\"\nmax_budget_usd = 2\n";
    let flags = Flags { memory: Some(1 << 30), model: Some("opus".to_owned()), ..Flags::default() };
    insta::assert_snapshot!(listed(&read_text(flags, text).expect("settings")).join("\n"));
}

#[test]
fn what_is_in_force_reaches_the_rules() {
    let text = "[serve]\nparallel = 7\nsilent_after = \"1m\"\norphan_after = \"2h\"\nkeep_finished = \"2d\"\n\
                [machine]\nmemory = \"1GiB\"\nprocesses = 100\ncpus = 1\n[task]\n\
                model = \"opus\"\ntimeout = \"1h\"\nidle_timeout = \"5m\"\n";
    let settings = read_text(Flags::default(), text).expect("settings");
    let mut rules = Rules::default();
    settings.bound_machines(&mut rules);
    settings.bound_tasks(&mut rules);
    assert_eq!((rules.policy.machines_max.get(), rules.keep_finished.as_secs()), (7, 172_800));
    assert_eq!((rules.silent_after.as_secs(), rules.orphan_after.as_secs()), (60, 7200));
    assert_eq!((rules.limits.memory_bytes_max, rules.limits.pids_max), (1 << 30, 100));
    assert!((rules.limits.cpus_max - 1.0).abs() < f64::EPSILON);
    assert_eq!(
        (rules.model.as_str(), rules.timeout.as_secs(), rules.idle_timeout.as_secs()),
        ("opus", 3600, 300)
    );
}

#[test]
fn what_holds_for_a_repository_is_known_by_its_name() {
    let text = "[repo.\"my app\".setup]\ncommands = [\"npm ci\"]\nlock_files = [\"package-lock.json\"]\n\
                keep = [\"node_modules\"]\ntimeout = \"1m\"\n[repo.other]\ndepth = 50\n\
                [repo.other.setup]\ncommands = [\"make\"]\n";
    let settings = read_text(Flags::default(), text).expect("settings");
    let setup = settings.setup("my app").expect("named");
    assert_eq!((setup.commands, setup.timeout_ms), (vec!["npm ci".to_owned()], 60_000));
    assert_eq!((setup.lock_files.len(), setup.keep.len()), (1, 1));
    assert_eq!(settings.setup("other").map(|setup| setup.timeout_ms), Some(600_000));
    assert_eq!(settings.setup("app"), None);
    assert_eq!(
        [settings.depth("other"), settings.depth("my app")].map(|depth| depth.map(u32::from)),
        [Some(50), None]
    );
}

#[test]
fn a_wrong_key_of_a_repository_is_refused_with_the_nearest_name() {
    let files = [
        "[repo.app.setup]\ncomands = [\"x\"]\n",
        "[repo.app.set-up]\ncommands = [\"x\"]\n",
        "[repo.app.setup]\ncommands = \"x\"\n",
        "[repo.app.setup]\ntimeout = 5\n",
        "[repo.app]\ndepth = 0\n",
        "[repo]\napp = 5\n",
        "[repos.app.setup]\ncommands = [\"x\"]\n",
    ];
    insta::assert_snapshot!(files.map(refused).join("\n"));
}

#[test]
fn a_library_that_is_named_reaches_the_orchestrator() {
    let mut config = ServerConfig::in_dir("/d");
    read_text(Flags::default(), "").expect("settings").lend(&mut config);
    assert_eq!((config.library.as_path(), config.projects.len()), (Path::new("/d/library"), 0));
    let text = "[library]\nfolder = \"/agents\"\nprojects = \"tally-main=tally\"\n";
    read_text(Flags::default(), text).expect("settings").lend(&mut config);
    let projects: Vec<_> = config.projects.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    assert_eq!((config.library.as_path(), projects), (Path::new("/agents"), vec![("tally-main", "tally")]));
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_name() {
    let files = [
        "[serve]\n\nparralel = 5\n",
        "[serve]\nidle-exit = \"10m\"\n",
        "parallel = 5\n",
        "[srve]\nparallel = 5\n",
        "[serve]\nserve.parallel = 5\n",
        "[serve]\nwhatever = 5\n",
        "credential = \"x\"\n",
        "[task]\nmodel = \"opus\"\n[task.more]\nmodel = \"opus\"\n",
    ];
    insta::assert_snapshot!(files.map(refused).join("\n"));
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_it_must_be() {
    let files = [
        "[serve]\nparallel = 0\n",
        "[serve]\nparallel = \"5\"\n",
        "[serve]\nparallel = [5]\n",
        "[serve]\nidle_exit = 10\n",
        "[serve]\nsilent_after = \"4s\"\n",
        "[serve]\norphan_after = \"59s\"\n",
        "[machine]\nmemory = \"4 GB\"\n",
        "[machine]\nmemory = \"1MiB\"\n",
        "[machine]\nprocesses = 1\n",
        "[machine]\ncpus = nan\n",
        "[task]\nmodel = \"-x\"\n",
        "[task]\ntimeout = \"1000h\"\n",
        "[task]\nmax_budget_usd = -1.5\n",
        "claude = \"bin/claude\"\n",
        "data = \"~/data\"\n",
        "[library]\nfolder = \"agents\"\n",
        "[library]\nprojects = \"tally\"\n",
        "[library]\nprojects = \"a=b,a=c\"\n",
        "\nserve = 5\n",
    ];
    insta::assert_snapshot!(files.map(refused).join("\n"));
}

#[test]
fn what_is_no_toml_is_refused_with_its_place() {
    let files = ["[serve\n", "[serve]\nparallel =\n", "[serve]\nparallel = 5\nparallel = 6\n", "\u{1b}[2J"];
    insta::assert_snapshot!(files.map(refused).join("\n"));
}

#[test]
fn the_file_is_looked_for_in_the_users_place_and_one_that_is_named_must_be_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let home = dir.path().to_str().expect("UTF-8");
    let environment = Environment::from([("HOME", home)]);
    let load = |named: Option<&Path>| Settings::load(named, Flags::default(), &environment);
    assert_eq!(load(None).expect("defaults").file(), None);
    let named = dir.path().join("other.toml");
    assert!(matches!(load(Some(&named)), Err(BadConfig::Missing { .. })));

    let usual = dir.path().join(".config/mayfly/mayfly.toml");
    fs::create_dir_all(usual.parent().expect("a folder")).expect("made");
    fs::write(&usual, "[serve]\nparallel = 3\n").expect("written");
    let settings = load(None).expect("read");
    assert_eq!((settings.file(), settings.values.parallel.value.get()), (Some(usual.as_path()), 3));
    fs::write(&named, "").expect("written");
    assert_eq!(
        load(Some(&named)).expect("read").values.parallel.value.get(),
        5,
        "the named one alone is read"
    );
}

/// S64
#[test]
fn a_file_that_anybody_may_change_or_that_is_none_is_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("mayfly.toml");
    fs::write(&path, "").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("changed");
    assert!(matches!(read(&path), Err(BadConfig::Open { .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
    assert_eq!(read(&path).expect("read"), "");
    fs::write(&path, b"\xff").expect("written");
    assert!(matches!(read(&path), Err(BadConfig::NotText { .. })));
    fs::write(&path, " ".repeat(64 * 1024 + 1)).expect("written");
    assert!(matches!(read(&path), Err(BadConfig::TooLong { .. })));
    assert!(matches!(read(dir.path()), Err(BadConfig::NoFile { .. })));
}

/// What the parser says of a text has snapshots of its own, above.
#[test]
fn each_reason_to_refuse_a_file_is_told_in_these_words() {
    let path = || PathBuf::from("/etc/mayfly.toml");
    let text = |text: &str| text.to_owned();
    let reasons = mayfly_test_needs::one_of_each![BadConfig:
        BadConfig::Missing { .. } => BadConfig::Missing { path: path() },
        BadConfig::NoFile { .. } => BadConfig::NoFile { path: path() },
        BadConfig::Unreadable { .. } => {
            BadConfig::Unreadable { path: path(), source: io::ErrorKind::PermissionDenied.into() }
        },
        BadConfig::Open { .. } => BadConfig::Open { path: path() },
        BadConfig::TooLong { .. } => BadConfig::TooLong { path: path() },
        BadConfig::NotText { .. } => BadConfig::NotText { path: path() },
        BadConfig::Syntax { .. } => BadConfig::Syntax { place: text("[place]"), said: text("[what]") },
        BadConfig::UnknownKey { .. } => {
            BadConfig::UnknownKey { key: text("[key]"), place: text("[place]"), advice: text("[advice]") }
        },
        BadConfig::WrongValue { .. } => {
            BadConfig::WrongValue { key: text("[key]"), place: text("[place]"), said: text("[what]") }
        },
    ];
    let lines: Vec<String> = reasons.iter().map(|reason| mayfly_core::causes(reason)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// After a change of the keys: `MAYFLY_RENEW_REFERENCE=1 cargo nextest run -p mayfly the_reference` writes it anew.
#[test]
fn the_reference_is_what_the_keys_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mayfly.toml");
    let page = reference::page();
    if std::env::var_os("MAYFLY_RENEW_REFERENCE").is_some() {
        fs::write(&path, &page).expect("written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, page, "docs/mayfly.toml is not what the keys say: see above this test how to renew it");
}

/// With its comments taken away, it is read, and names every key.
#[test]
fn the_reference_is_a_file_that_is_read() {
    let page = reference::page();
    let assigned = |line: &&str| !line.starts_with("# ") && *line != "#";
    let file: Vec<_> =
        page.lines().filter(assigned).map(|line| line.strip_prefix('#').unwrap_or(line)).collect();
    let settings = read_text(Flags::default(), &file.join("\n")).expect("read");
    let from_file = |row: &Row| settings.origin(row).starts_with("/etc/mayfly.toml:");
    assert!(settings.rows().iter().all(from_file), "{:?}", listed(&settings));
}
