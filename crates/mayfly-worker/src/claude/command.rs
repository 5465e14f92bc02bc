//! How `claude` is started: an environment built from nothing, explicit flags, folders of its own.
//!
//! The prompt is not here: it goes in by standard input, since every process of the machine can read
//! arguments. In the environment is the placeholder credential, which opens the model routes of this attempt
//! and nothing else; where the owner's own is handed to the machine, the placeholder comes in a header beside it, since
//! that is what the gateway knows this attempt by.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mayfly_library::Compiled;
use mayfly_wire::Secret;
use mayfly_wire::api::CredentialKind;
use mayfly_wire::worker::{Handed, PLACEHOLDER_HEADER, WorkOrder};
use serde_json::{Map, Value, json};

use crate::library;

/// Where programs are found in a machine.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Who the agent's commits are from.
pub(crate) const GIT_NAME: &str = "mayfly agent";
/// Its address, which reaches nobody.
pub(crate) const GIT_EMAIL: &str = "agent@mayfly.invalid";
/// Tools that ask somebody who is not there.
pub(crate) const ABSENT_TOOLS: [&str; 3] = ["AskUserQuestion", "EnterPlanMode", "ExitPlanMode"];
/// The machine is the boundary: inside it tools run without asking.
pub(crate) const PERMISSION_MODE: &str = "bypassPermissions";

/// A configuration of MCP servers that has none.
const NO_SERVERS: &str = r#"{"mcpServers":{}}"#;
/// Where servers are named, in the CLI's own folder.
const SERVERS_FILE: &str = "library/servers.json";

/// The longest file of servers of a repository.
const REPOSITORY_SERVERS_BYTES_MAX: u64 = 1 << 20;

/// Where its settings are, in the same folder.
const SETTINGS_FILE: &str = "library/settings.json";

/// What the CLI is told about its own behaviour.
const SETTINGS: [(&str, &str); 8] = [
    // It runs as root in some machines, and then asks for this word before it skips permissions.
    ("IS_SANDBOX", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    // Else a background command holds the process for ten minutes after its result.
    ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
    // Its own ten take minutes.
    ("CLAUDE_CODE_MAX_RETRIES", "4"),
    // A stalled answer is given up after a minute, not five.
    ("CLAUDE_ENABLE_BYTE_WATCHDOG", "1"),
    ("CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS", "60000"),
    ("MCP_TIMEOUT", "5000"),
];

/// What every program of the agent's finds.
const USUAL: [(&str, &str); 5] =
    [("LANG", "C.UTF-8"), ("TERM", "dumb"), ("SHELL", "/bin/bash"), ("USER", "agent"), ("PATH", PATH)];

/// Where programs look for a proxy; each knows some of these names.
const PROXIED: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
/// Where they look for what is to be had without it.
const UNPROXIED: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// The machine itself, as it is called in the machine.
const OWN_HOSTS: &str = "localhost,127.0.0.1,::1";
/// What else would lead the model's requests elsewhere: other makers' APIs, other ways of connecting.
const ELSEWHERE: [&str; 16] = [
    "ANTHROPIC_UNIX_SOCKET",
    "ANTHROPIC_BEDROCK_BASE_URL",
    "ANTHROPIC_VERTEX_BASE_URL",
    "CLAUDE_CODE_API_BASE_URL",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_GATEWAY",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
    "CLAUDE_CODE_RUNNER_MODEL_SOCKET",
    "CLAUDE_CODE_HTTP_PROXY",
    "CLAUDE_CODE_HTTPS_PROXY",
    "ALL_PROXY",
    "all_proxy",
];

/// What one start of the CLI needs to know.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The CLI's binary.
    pub binary: &'a Path,
    /// The agent's home.
    pub home: &'a Path,
    /// Where it works.
    pub cwd: &'a Path,
    /// The port on loopback where the way out begins.
    pub port: u16,
    /// The port on loopback where the way to other hosts begins, if there is one.
    pub egress_port: Option<u16>,
    /// What was asked for.
    pub order: &'a WorkOrder,
    /// What it gets of the library.
    pub library: &'a Compiled,
}

impl Launch<'_> {
    /// The command, with its three standard streams as pipes, in a process group of its own. The descriptor, if there
    /// is one, is to be kept until the process has been started.
    pub fn command(&self) -> io::Result<(Command, Option<OwnedFd>)> {
        let mut command = Command::new(self.binary);
        command.env_clear().envs(self.limits()).current_dir(self.cwd).args(self.arguments()?);
        give_surroundings(&mut command, self.home, self.egress_port);
        command.env("CLAUDE_CONFIG_DIR", config_dir(self.home));
        command.env("ANTHROPIC_BASE_URL", self.gateway());
        let descriptor = self.credential(&mut command)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        Ok((command, descriptor))
    }

    /// What it is held to by its environment.
    fn limits(&self) -> impl Iterator<Item = (&'static str, String)> {
        let own = SETTINGS.map(|(name, value)| (name, value.to_owned()));
        let tokens =
            self.library.max_tokens.map(|tokens| ("CLAUDE_CODE_MAX_OUTPUT_TOKENS", tokens.to_string()));
        own.into_iter().chain(tokens)
    }

    fn gateway(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn proxy(&self) -> Option<String> {
        self.egress_port.map(proxy_at)
    }

    /// What the CLI is told of its settings, before which no repository's count: to fetch a page without asking its maker
    /// first, to which there is no way out; and, where a repository's `env` counts, the way to the model as it was.
    fn settings(&self) -> io::Result<String> {
        let mut settings = self.library.settings.clone();
        settings.insert("skipWebFetchPreflight".to_owned(), true.into());
        let environment = settings.entry("env").or_insert_with(|| json!({}));
        if let Some(environment) = environment.as_object_mut() {
            if self.order.trust_repo {
                environment.extend(self.way_to_the_model());
            }
            if self.order.trust_repo || !environment.is_empty() {
                // Else a setting could lift what it is held to, such as the time that a server has to begin.
                environment.extend(self.limits().map(|(name, value)| (name.to_owned(), value.into())));
            }
        }
        if !self.order.trust_repo {
            // Whatever the library says: what a repository's words have in them to be run is not.
            settings.insert("disableSkillShellExecution".to_owned(), true.into());
        }
        let settings = Value::from(settings).to_string();
        if self.library.settings.is_empty() {
            return Ok(settings);
        }
        // In a file: they may be longer than an argument, and every process of the machine can read those.
        let path = config_dir(self.home).join(SETTINGS_FILE);
        library::write(&path, settings.as_bytes(), false)?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn way_to_the_model(&self) -> Map<String, Value> {
        let (gateway, proxy) = (self.gateway(), self.proxy().unwrap_or_default());
        // A machine that holds the credential itself has its placeholder among its headers.
        let headers = self.order.credential.is_none().then_some(("ANTHROPIC_CUSTOM_HEADERS", ""));
        let pairs = ELSEWHERE.map(|name| (name, "")).into_iter().chain(headers);
        let pairs = pairs.chain(PROXIED.map(|name| (name, proxy.as_str())));
        let pairs = pairs.chain(UNPROXIED.map(|name| (name, OWN_HOSTS)));
        let pairs = pairs.chain([("ANTHROPIC_BASE_URL", gateway.as_str())]);
        pairs.map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    fn credential(&self, command: &mut Command) -> io::Result<Option<OwnedFd>> {
        let placeholder = Secret::expose(&self.order.model_token);
        let Some(Handed { kind, secret, by_descriptor }) = &self.order.credential else {
            command.env("CLAUDE_CODE_OAUTH_TOKEN", placeholder);
            return Ok(None);
        };
        let name = match kind {
            CredentialKind::OauthToken => "CLAUDE_CODE_OAUTH_TOKEN",
            CredentialKind::ApiKey => "ANTHROPIC_API_KEY",
            CredentialKind::Bearer => "ANTHROPIC_AUTH_TOKEN",
            CredentialKind::Secret => {
                return Err(io::Error::other("a secret is no credential for the model"));
            }
        };
        command.env("ANTHROPIC_CUSTOM_HEADERS", format!("{PLACEHOLDER_HEADER}: {placeholder}"));
        if !by_descriptor {
            command.env(name, Secret::expose(secret));
            return Ok(None);
        }
        let descriptor = readable_once(Secret::expose(secret))?;
        let number = descriptor.as_raw_fd().to_string();
        let name = if *kind == CredentialKind::ApiKey { "CLAUDE_CODE_API_KEY" } else { name };
        command.env(format!("{name}_FILE_DESCRIPTOR"), number);
        Ok(Some(descriptor))
    }

    fn arguments(&self) -> io::Result<Vec<String>> {
        let order = self.order;
        let mut arguments: Vec<String> = ["-p", "--verbose"].map(String::from).to_vec();
        let mut flag = |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
        flag("--input-format", "stream-json");
        flag("--output-format", "stream-json");
        flag("--model", &order.model);
        // Without its session file the CLI has nothing to go on with.
        let resumed = order.resume.as_ref().filter(|resume| resume.transcript.is_some());
        if let Some(resume) = resumed {
            flag("--resume", &resume.session_id);
        }
        flag("--session-id", &order.session_id);
        flag("--permission-mode", PERMISSION_MODE);
        flag("--permission-prompt-tool", "stdio");
        flag("--setting-sources", if order.trust_repo { "user,project,local" } else { "user" });
        flag("--settings", &self.settings()?);
        flag("--mcp-config", &self.servers()?);
        if let Some(agents) = &self.library.agents {
            flag("--agents", &config_dir(self.home).join(agents).to_string_lossy());
        }
        if let Some(agent) = &self.library.agent {
            flag("--agent", agent);
        }
        if let Some(turns) = order.max_turns {
            flag("--max-turns", &turns.to_string());
        }
        if let Some(usd) = order.max_budget_usd {
            flag("--max-budget-usd", &usd.to_string());
        }
        // Last, since these two take all the words that follow up to the next flag.
        flag("--disallowedTools", &ABSENT_TOOLS.join(","));
        arguments.push("--strict-mcp-config".to_owned());
        if resumed.is_some() {
            // Else the session would keep the id of the old one, and the file with that.
            arguments.push("--fork-session".to_owned());
        }
        Ok(arguments)
    }

    /// The only MCP servers there are: the library's, and those of a repository that is trusted. They are in a file,
    /// since every process of the machine can read arguments.
    fn servers(&self) -> io::Result<String> {
        let own = self.cwd.join(".mcp.json");
        let mut servers = match (self.order.trust_repo && own.is_file(), self.library.servers.is_empty()) {
            (false, true) => return Ok(NO_SERVERS.to_owned()),
            (true, true) => return Ok(own.to_string_lossy().into_owned()),
            (true, false) => servers_of(&read_servers(&own)?).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "the repository's .mcp.json is no list of servers")
            })?,
            (false, false) => Map::new(),
        };
        servers.extend(self.library.servers.clone());
        let path = config_dir(self.home).join(SERVERS_FILE);
        library::write(&path, json!({"mcpServers": servers}).to_string().as_bytes(), false)?;
        Ok(path.to_string_lossy().into_owned())
    }
}

/// Gives a program what all of the agent's have: a home, a way to other hosts, a name for its commits; and no credential.
pub(crate) fn give_surroundings(command: &mut Command, home: &Path, egress_port: Option<u16>) {
    command.envs(USUAL).env("HOME", home);
    if let Some(proxy) = egress_port.map(proxy_at) {
        command.envs(PROXIED.map(|name| (name, &proxy)));
        command.envs(UNPROXIED.map(|name| (name, OWN_HOSTS)));
    }
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), GIT_NAME).env(format!("GIT_{role}_EMAIL"), GIT_EMAIL);
    }
}

fn proxy_at(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// A repository's file of servers.
fn read_servers(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)?.take(REPOSITORY_SERVERS_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > REPOSITORY_SERVERS_BYTES_MAX {
        let words = format!("the repository's .mcp.json has more than {REPOSITORY_SERVERS_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
    }
    Ok(text)
}

/// The servers that a file names.
fn servers_of(text: &[u8]) -> Option<Map<String, Value>> {
    let mut file: Map<String, Value> = serde_json::from_slice(text).ok()?;
    match file.remove("mcpServers") {
        Some(Value::Object(servers)) => Some(servers),
        _ => None,
    }
}

/// A descriptor that the next program inherits, with `text` in it for whoever reads it first. A secret is shorter than
/// what a pipe holds.
fn readable_once(text: &str) -> io::Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe()?;
    rustix::io::fcntl_setfd(&write, rustix::io::FdFlags::CLOEXEC)?;
    File::from(write).write_all(text.as_bytes())?;
    Ok(read)
}

/// The CLI's own folder, where it keeps its settings and sessions.
pub(crate) fn config_dir(home: &Path) -> PathBuf {
    home.join(".claude")
}

/// Makes the CLI's own folder.
pub(crate) fn prepare(home: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(config_dir(home))
}

/// Makes it anew, without what is there.
pub(crate) fn empty(home: &Path) -> io::Result<()> {
    let folder = config_dir(home);
    match folder.symlink_metadata() {
        Ok(there) if there.is_dir() => std::fs::remove_dir_all(&folder)?,
        Ok(_) => std::fs::remove_file(&folder)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    prepare(home)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(crate) fn order() -> WorkOrder {
        WorkOrder {
            prompt: "-canary-prompt".to_owned(),
            workspace: None,
            setup: None,
            model: "sonnet".to_owned(),
            session_id: "0193b2c4-0000-7000-8000-0123456789ab".to_owned(),
            max_turns: Some(7),
            max_budget_usd: Some(0.5),
            trust_repo: false,
            resume: None,
            library: None,
            artifacts: Vec::new(),
            claude_version: Some("2.1.330".to_owned()),
            credential: None,
            model_token: "canary-model".to_owned().into(),
            result_token: "canary-result".to_owned().into(),
            egress_token: Some("canary-egress".to_owned().into()),
            collect_ms_max: 1000,
            orphan_after_ms: 1000,
            log_bytes_max: None,
        }
    }

    fn command(order: &WorkOrder) -> Command {
        let (binary, home, cwd) = (Path::new("/c"), Path::new("/home/agent"), Path::new("/workspace"));
        let library = &Compiled::default();
        let launch = Launch { binary, home, cwd, port: 8080, egress_port: Some(8081), order, library };
        launch.command().expect("pipes").0
    }

    /// Covers S43: whatever the prompt is, it is no argument.
    #[test]
    fn the_prompt_and_the_tokens_are_no_arguments() {
        let order = order();
        let command = command(&order);
        let words: Vec<_> = command.get_args().map(|word| word.to_str().expect("UTF-8")).collect();
        assert!(!words.iter().any(|word| word.contains("canary")), "{words:?}");
        assert!(words.windows(2).any(|pair| pair == ["--max-turns", "7"]), "{words:?}");
        assert!(words.windows(2).any(|pair| pair == ["--max-budget-usd", "0.5"]), "{words:?}");
    }

    /// Covers S01: no setting of the library lets the words of a repository run.
    #[test]
    fn the_library_does_not_switch_the_guard_off() {
        let home = tempfile::tempdir().expect("a folder");
        prepare(home.path()).expect("its folder");
        let lifted = json!({"A": "1", "MCP_TIMEOUT": "9000000", "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "64000"});
        let settings = json!({"disableSkillShellExecution": false, "env": lifted});
        let settings = settings.as_object().cloned().expect("one");
        let library = Compiled { settings, max_tokens: Some(1000), ..Compiled::default() };
        let order = order();
        let (binary, cwd) = (Path::new("/c"), Path::new("/workspace"));
        let launch = Launch {
            binary,
            home: home.path(),
            cwd,
            port: 1,
            egress_port: None,
            order: &order,
            library: &library,
        };
        let file = launch.settings().expect("written");
        let settings: Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
        assert_eq!(settings["disableSkillShellExecution"], true);
        let told = ["A", "MCP_TIMEOUT", "CLAUDE_CODE_MAX_OUTPUT_TOKENS"].map(|name| &settings["env"][name]);
        assert_eq!(told, ["1", "5000", "1000"]);
    }

    #[test]
    fn a_repositorys_servers_have_a_bound() {
        let place = tempfile::tempdir().expect("a folder");
        let own = place.path().join(".mcp.json");
        let file = File::create(&own).expect("a file");
        file.set_len(REPOSITORY_SERVERS_BYTES_MAX).expect("its length");
        assert_eq!(read_servers(&own).expect("read").len() as u64, REPOSITORY_SERVERS_BYTES_MAX);
        file.set_len(REPOSITORY_SERVERS_BYTES_MAX + 1).expect("its length");
        let said = read_servers(&own).expect_err("refused").to_string();
        assert_eq!(said, "the repository's .mcp.json has more than 1048576 bytes");
    }

    #[test]
    fn the_environment_is_this_and_nothing_else() {
        let order = order();
        let command = command(&order);
        let environment: BTreeMap<_, _> = command
            .get_envs()
            .map(|(name, value)| {
                (name.to_str().expect("UTF-8"), value.and_then(|v| v.to_str()).expect("UTF-8"))
            })
            .collect();
        let names: Vec<_> = environment.keys().copied().filter(|name| !name.starts_with("GIT_")).collect();
        assert_eq!(
            names,
            [
                "ANTHROPIC_BASE_URL",
                "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS",
                "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
                "CLAUDE_CODE_MAX_RETRIES",
                "CLAUDE_CODE_OAUTH_TOKEN",
                "CLAUDE_CONFIG_DIR",
                "CLAUDE_ENABLE_BYTE_WATCHDOG",
                "DISABLE_AUTOUPDATER",
                "HOME",
                "HTTPS_PROXY",
                "HTTP_PROXY",
                "IS_SANDBOX",
                "LANG",
                "MCP_TIMEOUT",
                "NO_PROXY",
                "PATH",
                "SHELL",
                "TERM",
                "USER",
                "http_proxy",
                "https_proxy",
                "no_proxy",
            ]
        );
        assert_eq!(environment["CLAUDE_CODE_OAUTH_TOKEN"], "canary-model");
        assert_eq!(environment["https_proxy"], "http://127.0.0.1:8081");
        for secret in ["canary-result", "canary-egress"] {
            assert!(!environment.values().any(|value| value.contains(secret)), "{secret}");
        }
    }
}
