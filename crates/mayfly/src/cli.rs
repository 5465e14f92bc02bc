//! The flags. The doc comments are the help that people read; a snapshot test keeps them as they are.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mayfly_core::host::Rule;
use mayfly_library::{Kind, Name, Reference, Wishes};
use mayfly_wire::api::Wanted;

use crate::commands::{
    allow, cancel, credential, fly, image, library, logs, ps, result, resume, retry, token, tunnel,
};
use crate::config::Flags;
use crate::values::{self, HostNames, Hosts, ProviderName, SelfSigned};

const EXAMPLES: &str = "\
Try it, without an account and without the internet:
  mayfly demo

Run it for real, in a git repository; the work comes back as a branch:
  claude setup-token                      # once; prints a token
  mayfly credential add work              # asks for that token, and keeps it sealed
  mayfly run \"fix the failing test\"

A task is named by the digits that `mayfly ps` shows; the last 4 are enough if no other ends so.

Exit codes:
  0 success, 1 a task failed, 2 wrong usage, 3 trouble of the orchestrator or the provider,
  130 cancelled";

const RUN_EXAMPLES: &str = "\
Examples:
  mayfly run \"add a test for the parser\"
  mayfly run \"fix the bug\" \"write the docs\"         # two tasks at once
  mayfly run --repo ~/src/app --timeout 1h \"upgrade the dependencies\"
  mayfly run --repo ssh://git@example.com/app.git#main \"fix it\"
                                            # the work comes back as a clone with a branch more
  mayfly run - < prompt.txt                 # one prompt, read from standard input
  mayfly run -- \"-v is broken, fix it\"      # a prompt that begins with `-` goes after `--`
  mayfly run --file tasks.jsonl --detach    # many tasks, followed by nobody
  mayfly run --allow example.com \"read the page and sum it up\"
  mayfly run --provider fly \"fix it\"       # in a VM of Fly.io's; see `mayfly fly deploy`
  mayfly run --json \"fix it\" | jq .source

A line of --file is a JSON object with `prompt` and, if they are to differ from the flags, any of
`setup`, `model`, `timeout_ms`, `idle_timeout_ms`, `max_turns`, `max_budget_usd`, `trust_repo`, `priority`,
`retries`, `allow`, `workspace`, `credential`, `credential_name`, `project`, `agent`, `resources`,
`without`, `lock`, `provider`. One bad line, and no task is
submitted. The exit code of several tasks is that of the worst.

The credential for the model is --credential, else the first of these that is set:
  ANTHROPIC_AUTH_TOKEN (with ANTHROPIC_BASE_URL), CLAUDE_CODE_OAUTH_TOKEN, ANTHROPIC_API_KEY
else `credential` in [task] of mayfly.toml, else of the orchestrator's pool the one called `default`,
else the only one: `mayfly credential add NAME` adds one.

Ctrl-C cancels the tasks and still brings their work back; a second one does not wait for the work.
Both wait until the machines are gone.";

const DEMO_EXAMPLES: &str = "\
Examples:
  mayfly demo                     # five agents at once
  mayfly demo --tasks 20          # twenty tasks, five at once
  mayfly demo --agent code-reviewer
                                  # run by that agent of your library, which is held to its tools
  mayfly demo --json              # one event a line, nothing else on standard output";

const SERVE_EXAMPLES: &str = "\
Examples:
  mayfly serve                    # until Ctrl-C
  mayfly serve --idle-exit 10m    # until there was nothing to do for ten minutes
  mayfly serve --provider fly     # machines are VMs of Fly.io, which need FLY_API_TOKEN and [fly]
  mayfly serve --listen 0.0.0.0:6293 --tls self-signed --host-names box.example
                                  # for other machines too, by that name or by any address

Whoever comes by --listen needs a token: `mayfly token add` makes one. Where other machines can
come, TLS is needed too, or the word --listen-without-tls.

`mayfly run` starts one by itself when there is none; it needs no attention. Ctrl-C or SIGTERM begins
no more tasks and lets those that run end, for as long as --drain says. What still runs then goes on,
and the next one takes it over. MAYFLY_LOG=debug makes it say more.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  mayfly doctor                   # each part is tried: a machine is made and unmade
  mayfly doctor --settings        # what is in force: a flag, else mayfly.toml, else a default
  mayfly doctor --json | jq '.checks[] | select(.state != \"ok\")'

Exit codes:
  0 a task could run here, 3 it could not";

/// Claude Code agents, many at once, each in a machine that lives for one task
#[expect(clippy::doc_markdown, reason = "the help is plain text")]
#[derive(Debug, Parser)]
#[command(name = "mayfly", version, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// The Claude Code CLI to run, instead of the pinned version that is found or fetched with npm
    #[arg(long, value_name = "PATH", global = true, display_order = 100)]
    pub(crate) claude: Option<PathBuf>,
    /// The configuration [default: $XDG_CONFIG_HOME/mayfly/mayfly.toml, else ~/.config/mayfly/mayfly.toml]
    #[arg(long, value_name = "PATH", global = true, display_order = 101)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Cli {
    /// The flags that a file could say as well.
    pub(crate) fn flags(&self) -> Flags {
        let flags = Flags { claude: self.claude.clone(), ..Flags::default() };
        match &self.verb {
            Verb::Demo(args) => args.over(flags),
            Verb::Run(args) => args.over(flags),
            Verb::Serve(args) => args.over(flags),
            Verb::Ps(ps::PsArgs { data, .. })
            | Verb::Logs(logs::LogsArgs { data, .. })
            | Verb::Allow(allow::AllowArgs { data, .. })
            | Verb::Cancel(cancel::CancelArgs { data, .. })
            | Verb::Result(result::ResultArgs { data, .. }) => Flags { data: data.folder.clone(), ..flags },
            Verb::Retry(retry::RetryArgs { again }) | Verb::Resume(resume::ResumeArgs { again, .. }) => {
                Flags { data: again.data.folder.clone(), credential: again.credential.clone(), ..flags }
            }
            Verb::Token(args) => Flags { data: args.data().folder.clone(), ..flags },
            Verb::Credential(args) => Flags { data: args.data().folder.clone(), ..flags },
            Verb::Library(args) => Flags { data: args.data().folder.clone(), folder: args.folder(), ..flags },
            Verb::Image(args) => args.over(flags),
            Verb::Doctor(args) => Flags { data: args.data.folder.clone(), ..flags },
            Verb::Tunnel(args) => Flags { data: args.data(), ..flags },
            Verb::Fly(_) | Verb::ClaudePath => flags,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Demo(DemoArgs),
    Run(Box<RunArgs>),
    Ps(ps::PsArgs),
    Logs(logs::LogsArgs),
    Cancel(cancel::CancelArgs),
    Allow(allow::AllowArgs),
    Retry(retry::RetryArgs),
    Resume(resume::ResumeArgs),
    Result(result::ResultArgs),
    Serve(ServeArgs),
    Tunnel(tunnel::TunnelArgs),
    Token(token::TokenArgs),
    Credential(credential::CredentialArgs),
    Library(library::LibraryVerbArgs),
    Image(image::ImageArgs),
    Fly(fly::FlyArgs),
    Doctor(DoctorArgs),
    /// Find or fetch the Claude Code CLI that would be run, and print its path
    #[command(hide = true)]
    ClaudePath,
}

/// Run real agents in real machines on a scripted model: no account, no internet
#[derive(Debug, Args)]
#[command(after_help = DEMO_EXAMPLES)]
pub(crate) struct DemoArgs {
    /// How many tasks to run
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) tasks: u32,
    /// Run each task by this agent of your library, with all else of it; the others have nothing of a library
    #[arg(long, value_name = "[NS/]NAME[@SHA256]")]
    pub(crate) agent: Option<Reference>,
    #[command(flatten)]
    pub(crate) machines: MachineArgs,
    /// Where machines are made on this box: `sandbox`, or `microvm`, as [microvm] of the configuration says
    /// [default: sandbox]
    #[arg(long, value_name = "PROVIDER", value_parser = values::provider_here)]
    pub(crate) provider: Option<ProviderName>,
    /// Print the events, one JSON object a line, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// Run each prompt in a machine of its own, follow it, and bring its work back as a branch
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line are what they are")]
pub(crate) struct RunArgs {
    /// What to do, a task each; `-` reads one from standard input
    #[arg(value_name = "PROMPT", required_unless_present = "file", conflicts_with = "file")]
    pub(crate) prompt: Vec<String>,
    /// Read the tasks from this file, a JSON object a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Submit the tasks and print their ids, without following them
    #[arg(long)]
    pub(crate) detach: bool,
    /// Who comes first: higher before lower, from -1000 to 1000
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::priority, allow_negative_numbers = true)]
    pub(crate) priority: i32,
    /// How often an attempt that failed in a way that may pass is followed by another, at most 10; after
    /// 5s, and twice as long each time, up to 5m
    #[arg(long, value_name = "N", default_value = "0", value_parser = values::retries)]
    pub(crate) retries: u32,
    /// The git repository to work on a copy of: a folder, uncommitted and untracked work included, or a URL (https,
    /// ssh, file), which this machine fetches; with `#` and a branch, a tag or a commit, that commit alone
    /// [default: the one around the current folder, else an empty workspace]
    #[arg(long, value_name = "PATH|URL")]
    pub(crate) repo: Option<String>,
    /// Where machines are made: `sandbox` or `microvm` on this box, or `fly`; an orchestrator that makes them elsewhere
    /// does not take the task [default: wherever it does, `sandbox` if none is there yet]
    #[arg(long, value_name = "PROVIDER", value_parser = values::provider)]
    pub(crate) provider: Option<ProviderName>,
    /// The model, as `claude --model` takes it [default: sonnet]
    #[arg(long, value_name = "MODEL", value_parser = values::model)]
    pub(crate) model: Option<String>,
    /// The time for the whole run [default: 30m]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    /// The longest silence of the agent [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) idle_timeout: Option<Duration>,
    /// The most turns of the agent
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) max_turns: Option<NonZeroU32>,
    /// The most money to spend, in US dollars, as the CLI counts it
    #[arg(long, value_name = "USD", value_parser = values::dollars, allow_negative_numbers = true)]
    pub(crate) max_budget_usd: Option<f64>,
    /// Let the agent reach this host, on ports 443 and 80 if none is named; `*.` before it means all
    /// names below it; can be given again [default: nothing but the model]
    #[arg(long, value_name = "HOST[:PORT]", value_parser = values::rule)]
    pub(crate) allow: Vec<Rule>,
    /// Let the agent reach the hosts that your own configuration of npm, pip, cargo and apt names
    #[arg(long)]
    pub(crate) allow_registries: bool,
    /// The credential for the model, by its name in the orchestrator's pool [default: see below]
    #[arg(long, value_name = "NAME", value_parser = values::credential_name)]
    pub(crate) credential: Option<String>,
    /// Let the repository's own settings count, and its hooks, MCP servers and helpers run in the machine; else
    /// its words alone count: CLAUDE.md, rules, skills, agents, commands
    #[arg(long)]
    pub(crate) trust_repo: bool,
    /// Print the events, one JSON object a line, and nothing else; with --detach the tasks
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) library: LibraryArgs,
    /// Use the library in this folder, instead of the orchestrator's: what tasks get of it is handed over
    #[arg(long = "library", value_name = "PATH")]
    pub(crate) lent: Option<PathBuf>,
}

/// What a task gets of the library, besides what is there for all and for its project.
#[derive(Debug, Args)]
#[command(next_help_heading = "Library")]
pub(crate) struct LibraryArgs {
    /// The agent that the task is run by: the library's, else one of the repository's; `@` and 8 digits or more of what
    /// `mayfly library ls` shows ask for that content
    #[arg(long, value_name = "[NS/]NAME[@SHA256]")]
    pub(crate) agent: Option<Reference>,
    /// The namespace of the library besides `_global` [default: the one named as the task's repository is]
    #[arg(long, value_name = "NS")]
    pub(crate) project: Option<Name>,
    /// One more skill; can be given again, as all of these can
    #[arg(long, value_name = "[NS/]NAME[@SHA256]")]
    skill: Vec<Reference>,
    /// The MCP servers of one more resource
    #[arg(long, value_name = "[NS/]NAME[@SHA256]")]
    mcp: Vec<Reference>,
    /// Not this skill
    #[arg(long, value_name = "[NS/]NAME")]
    no_skill: Vec<Reference>,
    /// Not this agent
    #[arg(long, value_name = "[NS/]NAME")]
    no_agent: Vec<Reference>,
    /// Not these MCP servers
    #[arg(long, value_name = "[NS/]NAME")]
    no_mcp: Vec<Reference>,
    /// Not these hooks
    #[arg(long, value_name = "[NS/]NAME")]
    no_hooks: Vec<Reference>,
    /// Not these rules
    #[arg(long, value_name = "[NS/]NAME")]
    no_rules: Vec<Reference>,
    /// Not these settings
    #[arg(long, value_name = "[NS/]NAME")]
    no_settings: Vec<Reference>,
}

impl LibraryArgs {
    /// What the task is to have, as a task names it.
    pub(crate) fn resources(&self) -> Vec<String> {
        texts(&self.wishes().add)
    }

    /// What it is not to have.
    pub(crate) fn without(&self) -> Vec<String> {
        texts(&self.wishes().without)
    }

    /// What is asked for, as an orchestrator is told of it.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            project: self.project.as_ref().map(ToString::to_string),
            agent: self.agent.as_ref().map(ToString::to_string),
            resources: self.resources(),
            without: self.without(),
        }
    }

    /// What is asked for.
    pub(crate) fn wishes(&self) -> Wishes {
        Wishes {
            project: self.project.clone(),
            agent: self.agent.clone(),
            add: named([(Kind::Skill, &self.skill), (Kind::Mcp, &self.mcp)]),
            without: named([
                (Kind::Skill, &self.no_skill),
                (Kind::Agent, &self.no_agent),
                (Kind::Mcp, &self.no_mcp),
                (Kind::Hooks, &self.no_hooks),
                (Kind::Rules, &self.no_rules),
                (Kind::Settings, &self.no_settings),
            ]),
        }
    }
}

fn named<const N: usize>(of: [(Kind, &Vec<Reference>); N]) -> Vec<(Kind, Reference)> {
    of.into_iter().flat_map(|(kind, names)| names.iter().map(move |name| (kind, name.clone()))).collect()
}

fn texts(named: &[(Kind, Reference)]) -> Vec<String> {
    named.iter().map(|(kind, name)| format!("{kind}/{name}")).collect()
}

/// Run the orchestrator: the queue, the machines, and the way out to the model
#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Exit once there was nothing to do for this long
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) idle_exit: Option<Duration>,
    #[command(flatten)]
    pub(crate) machines: MachineArgs,
    /// Where machines are made: `sandbox`, on this box, `microvm`, as virtual machines on this box, as [microvm] of the
    /// configuration says, or `fly`, as VMs of Fly.io, as [fly] says [default: sandbox]
    #[arg(long, value_name = "PROVIDER", value_parser = values::provider)]
    pub(crate) provider: Option<ProviderName>,
    /// How long a signal to stop waits for the tasks that run; a second one does not [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) drain: Option<Duration>,
    /// Serve the API on this address too, to whoever has a token; port 0 is any [default: 127.0.0.1:6293]
    #[arg(long, value_name = "ADDR", value_parser = values::address)]
    pub(crate) listen: Option<SocketAddr>,
    /// TLS there with a certificate of its own, which others know by its fingerprint: `self-signed`
    #[arg(long, value_name = "KIND", value_parser = values::own_tls)]
    pub(crate) tls: Option<SelfSigned>,
    /// TLS there with this certificate, in PEM, and those that lead from it to one that others trust
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's key, in PEM, which nobody else may be able to read
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// What it is called there besides its address and localhost, with commas between the names
    #[arg(long, value_name = "NAMES", value_parser = values::host_names)]
    pub(crate) host_names: Option<HostNames>,
    /// Listen without TLS where others can come too, and could read a token on its way
    #[arg(long)]
    pub(crate) listen_without_tls: bool,
    /// Leave the terminal's session; `mayfly run` starts it so
    #[arg(long, hide = true)]
    pub(crate) background: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Try what a task needs on this host, and name the command that puts right what is missing
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Try nothing: list every key of the configuration with its value, and where that came from
    #[arg(long)]
    pub(crate) settings: bool,
    /// Print one JSON object, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// How many machines there may be, and what each may use.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// How many machines may run at once [default: 5]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) parallel: Option<NonZeroU32>,
    /// The memory of each machine [default: 4GiB]
    #[arg(long, value_name = "SIZE", value_parser = values::memory)]
    pub(crate) memory: Option<u64>,
    /// The processes and threads of each machine [default: 1024]
    #[arg(long, value_name = "N", value_parser = values::processes)]
    pub(crate) processes: Option<u32>,
    /// The processors of each machine [default: 2]
    #[arg(long, value_name = "N", value_parser = values::cpus)]
    pub(crate) cpus: Option<f64>,
    /// What the files of each machine may take on the disk [default: 20GiB]
    #[arg(long, value_name = "SIZE", value_parser = values::disk)]
    pub(crate) disk: Option<u64>,
}

impl MachineArgs {
    fn over(&self, flags: Flags) -> Flags {
        let Self { parallel, memory, processes, cpus, disk } = *self;
        Flags { parallel, memory, processes, cpus, disk, ..flags }
    }
}

impl DemoArgs {
    fn over(&self, flags: Flags) -> Flags {
        self.machines.over(Flags { provider: self.provider, ..flags })
    }
}

impl RunArgs {
    fn over(&self, flags: Flags) -> Flags {
        Flags {
            data: self.data.folder.clone(),
            provider: self.provider,
            model: self.model.clone(),
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            max_turns: self.max_turns,
            max_budget_usd: self.max_budget_usd,
            allow: (!self.allow.is_empty()).then(|| Hosts(self.allow.clone())),
            credential: self.credential.clone(),
            trust_repo: self.trust_repo.then_some(true),
            ..flags
        }
    }
}

impl ServeArgs {
    fn over(&self, flags: Flags) -> Flags {
        let Self { provider, listen, tls, idle_exit, drain, .. } = *self;
        let flags = Flags {
            data: self.data.folder.clone(),
            provider,
            listen,
            tls,
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            host_names: self.host_names.clone(),
            listen_without_tls: self.listen_without_tls.then_some(true),
            idle_exit,
            drain,
            ..flags
        };
        self.machines.over(flags)
    }
}

#[expect(clippy::doc_markdown, reason = "the help is plain text")]
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// The folder of the queue, the logs and the results; one orchestrator each [default:
    /// $XDG_DATA_HOME/mayfly, else ~/.local/share/mayfly]
    #[arg(long = "data", value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_do_not_contradict_one_another() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn each_flag_is_taken_for_the_key_of_its_name() {
        let flags = |args: &str| Cli::parse_from(args.split(' ')).flags();
        let machines = "--parallel 2 --memory 1GiB --processes 100 --cpus 0.5";
        let serve = flags(&format!(
            "mayfly --claude /c serve --data /d --listen 127.0.0.1:1 --idle-exit 1m {machines}"
        ));
        assert_eq!((serve.claude.clone(), serve.data.clone()), (Some("/c".into()), Some("/d".into())));
        assert_eq!(
            (serve.listen.map(|to| to.port()), serve.idle_exit),
            (Some(1), Some(Duration::from_secs(60)))
        );
        for flags in [flags(&format!("mayfly demo {machines}")), serve] {
            let whole = (flags.parallel.map(NonZeroU32::get), flags.memory, flags.processes);
            assert_eq!((whole, flags.cpus), ((Some(2), Some(1 << 30), Some(100)), Some(0.5)));
        }
        let run = flags(
            "mayfly run --data /d --model m --timeout 1m --idle-timeout 2m --max-turns 3 --max-budget-usd 4 p",
        );
        let times = [run.timeout, run.idle_timeout].map(|time| time.map(|time| time.as_secs()));
        assert_eq!(
            (run.data, run.model.as_deref(), times),
            (Some("/d".into()), Some("m"), [Some(60), Some(120)])
        );
        assert_eq!((run.max_turns.map(NonZeroU32::get), run.max_budget_usd), (Some(3), Some(4.0)));
    }
}
