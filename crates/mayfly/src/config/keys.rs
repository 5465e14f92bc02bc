//! Every key of `mayfly.toml`: the one place where a key, its words and its default are written.
//!
//! From this table come the types that the file is read into, the flags beside it, the values in force, their
//! listing, and the reference.

use std::collections::BTreeMap;
use std::time::Duration;

use mayfly_engine::Rules;
use mayfly_provider::Limits;
use mayfly_provider_fly::CLOSED_TO;
use mayfly_wire::api::CredentialMode;
use serde::Deserialize;

#[cfg(test)]
use super::kind::toml;
use super::kind::{
    Address, Age, Count, Cpus, Disk, Dollars, FlyGuest, FlySize, FlyWord, Kind, Loneliness, Memory, Mode,
    Model, Monitor, Name, Names, OwnTls, PackageList, Patterns, Place, Places, PriceTable, Private,
    Processes, ProjectTable, Provider, RegionList, Silence, SuiteName, Switch, Time, TriedPlaces, Way,
};
use super::repos::Repo;
use super::{Given, Row, Source};
use crate::values::{MonitorName, ProviderName};

/// A key, as the reference shows it.
#[cfg(test)]
pub(super) struct Key {
    /// Empty for a key above all sections.
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// Its doc comment, a line each.
    pub(super) words: &'static [&'static str],
    pub(super) default: Default,
}

/// What holds where nobody says otherwise.
#[cfg(test)]
pub(super) enum Default {
    /// A value, as TOML has it.
    Value(String),
    /// None: what happens instead, and a value that it could have.
    Unset { instead: &'static str, example: &'static str },
}

// A key is `name: Kind = default;` or, if it has none, `name: Kind, else "what happens" such as "a value, as TOML";`.

/// What a settled key is: sure of a value if it has a default.
macro_rules! settled {
    ($kind:ident) => { Option<Given<$kind>> };
    ($kind:ident $default:expr) => { Given<$kind> };
}

macro_rules! settle {
    ($given:expr) => {
        $given
    };
    ($given:expr, $default:expr) => {
        $given.unwrap_or_else(|| Given { value: $default, from: Source::Default })
    };
}

#[cfg(test)]
macro_rules! default {
    ($kind:ident, $default:expr) => {
        Default::Value(toml::<$kind>(&$default))
    };
    ($kind:ident, $instead:literal, $example:literal) => {
        Default::Unset { instead: $instead, example: $example }
    };
}

macro_rules! keys {
    (
        top {
            $(
                $(#[doc = $top_words:literal])+
                $top:ident: $top_kind:ident, else $top_instead:literal such as $top_example:literal;
            )+
        }
        $(
            $(#[doc = $about:literal])+
            $section:ident $Section:ident {
                $(
                    $(#[doc = $words:literal])+
                    $key:ident: $kind:ident
                        $(= $default:expr)? $(, else $instead:literal such as $example:literal)?;
                )+
            }
        )+
    ) => {
        /// What the file says.
        #[derive(Debug, Clone, std::default::Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct File {
            $($top: Option<Given<$top_kind>>,)+
            $(#[serde(default)] $section: $Section,)+
            #[serde(default)]
            pub(super) repo: BTreeMap<String, Repo>,
        }

        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, std::default::Default, Deserialize)]
            #[serde(default, deny_unknown_fields, expecting = "a section with keys of its own")]
            struct $Section {
                $($key: Option<Given<$kind>>,)+
            }
        )+

        /// What the flags say.
        #[derive(Debug, Clone, std::default::Default)]
        pub(crate) struct Flags {
            $($(#[doc = $top_words])+ pub(crate) $top: Option<<$top_kind as Kind>::Value>,)+
            $($($(#[doc = $words])+ pub(crate) $key: Option<<$kind as Kind>::Value>,)+)+
        }

        /// What is in force.
        #[derive(Debug, Clone)]
        pub(crate) struct Values {
            $($(#[doc = $top_words])+ pub(crate) $top: Option<Given<$top_kind>>,)+
            $($($(#[doc = $words])+ pub(crate) $key: settled!($kind $($default)?),)+)+
        }

        impl Values {
            /// Flags come before the file, and the file before the defaults.
            pub(super) fn settle(flags: Flags, file: File) -> Self {
                Self {
                    $($top: Given::flag(flags.$top).or(file.$top),)+
                    $($($key: settle!(Given::flag(flags.$key).or(file.$section.$key) $(, $default)?),)+)+
                }
            }

            /// Each key with its value, in the order of the table.
            pub(super) fn rows(&self) -> Vec<Row> {
                vec![
                    $(Row::of::<$top_kind>("", stringify!($top), self.$top.as_ref(), $top_instead),)+
                    $($(Row::of::<$kind>(
                        stringify!($section),
                        stringify!($key),
                        (&self.$key).into(),
                        concat!($($instead)?),
                    ),)+)+
                ]
            }
        }

        /// Every key's section, empty for one above all sections, and name.
        pub(super) const NAMES: &[(&str, &str)] =
            &[$(("", stringify!($top)),)+ $($((stringify!($section), stringify!($key)),)+)+];

        /// The sections, and what each is about.
        pub(super) const SECTIONS: &[(&str, &[&str])] = &[$((stringify!($section), &[$($about),+])),+];

        /// Every key there is.
        #[cfg(test)]
        pub(super) fn all() -> Vec<Key> {
            vec![
                $(Key {
                    section: "",
                    name: stringify!($top),
                    words: &[$($top_words),+],
                    default: default!($top_kind, $top_instead, $top_example),
                },)+
                $($(Key {
                    section: stringify!($section),
                    name: stringify!($key),
                    words: &[$($words),+],
                    default: default!($kind, $($default)? $($instead, $example)?),
                },)+)+
            ]
        }
    };
}

keys! {
    top {
        /// The Claude Code CLI to run.
        claude: Place, else "the pinned version, found or fetched with npm" such as "\"/usr/local/bin/claude\"";
        /// The folder of the queue, the logs and the results; one orchestrator each.
        data: Place, else "$XDG_DATA_HOME/mayfly, else ~/.local/share/mayfly" such as "\"/var/lib/mayfly\"";
    }

    /// The orchestrator.
    serve Serve {
        /// Where machines are made: `sandbox`, on this box, `microvm`, as virtual machines on this box, as [microvm] says,
        /// or `fly`, as VMs of Fly.io, as [fly] says.
        provider: Provider = ProviderName::Sandbox;
        /// How many machines may run at once.
        parallel: Count = Rules::default().policy.machines_max;
        /// Serve the API on this address too, to whoever has a token; port 0 is any.
        listen: Address, else "127.0.0.1:6293; nowhere if `mayfly run` started it" such as "\"127.0.0.1:8080\"";
        /// TLS there with a certificate of its own, which others know by its fingerprint: `self-signed`.
        tls: OwnTls, else "TLS only if there is a tls_cert" such as "\"self-signed\"";
        /// TLS there with this certificate, in PEM, and those that lead from it to one that others trust.
        tls_cert: Place, else "none" such as "\"/etc/mayfly/cert.pem\"";
        /// The certificate's key, in PEM, which nobody else may be able to read.
        tls_key: Place, else "none" such as "\"/etc/mayfly/key.pem\"";
        /// What it is called there besides its address and localhost; a request for another name is refused.
        host_names: Names, else "none" such as "\"mayfly.example.com,box\"";
        /// Listen without TLS where others can come too, and could read a token on its way.
        listen_without_tls: Switch = false;
        /// Hosts whose names may lead to addresses of this host or of private networks, for tasks that may reach them.
        allow_private: Private, else "none" such as "\"mirror.internal,git.internal\"";
        /// How long a signal to stop waits for the tasks that run; a second one does not.
        drain: Time = Duration::from_secs(30);
        /// Exit once there was nothing to do for this long.
        idle_exit: Time, else "never; after 60s if `mayfly run` started it" such as "\"10m\"";
        /// How long a machine may be silent before its task's log says so; nothing else follows from that.
        silent_after: Silence = Rules::default().silent_after;
        /// How long a machine goes on without an orchestrator before it gives up, and an orchestrator waits for a
        /// machine that is silent before it does.
        orphan_after: Loneliness = Rules::default().orphan_after;
        /// How long the log and the result of a task that is over are kept; that it was, and how it ended, stays.
        keep_finished: Age = Rules::default().keep_finished;
    }

    /// What one machine may use.
    machine Machine {
        /// Its memory, that of its /tmp included; a program that takes more is killed, and the task goes on unless that was
        /// `claude`.
        memory: Memory = Limits::default().memory_bytes_max;
        /// Its processes and threads.
        processes: Processes = Limits::default().pids_max;
        /// Its processors.
        cpus: Cpus = Limits::default().cpus_max;
        /// What its files may take on the disk.
        disk: Disk = Limits::default().disk_bytes_max;
    }

    /// Machines as virtual machines on this box.
    microvm MicrovmSection {
        /// The folder of what they start from, as `mayfly image build --for microvm` makes it.
        system: Place, else "what that has made, in the user's cache folder" such as "\"/var/lib/mayfly-system\"";
        /// What they run in: `firecracker`, which needs a processor that virtualises, `qemu`, which emulates one, many times
        /// slower, or `auto`: Firecracker where a guest starts by it, as is tried, and else QEMU.
        vmm: Monitor = MonitorName::Auto;
        /// How long one may take to start. One that QEMU runs is started once more after that.
        start_timeout: Time = Duration::from_secs(120);
    }

    /// Machines as VMs of Fly.io. A deploy token of their app is in `FLY_API_TOKEN`, and nowhere else.
    fly FlySection {
        /// The app that has the machines, and nothing else.
        app: FlyWord, else "none, and `provider = \"fly\"` needs one" such as "\"mayfly-workers\"";
        /// What a machine boots, by its digest.
        image: FlyWord, else "none, and `provider = \"fly\"` needs one"
            such as "\"registry.fly.io/mayfly-workers@sha256:0123...\"";
        /// Where machines may be, the most wanted first, with commas between the codes.
        regions: RegionList, else "none, and `provider = \"fly\"` needs one" such as "\"iad,ord\"";
        /// Where a machine reaches this orchestrator, which listens there or is led to from there.
        orchestrator: Way, else "none, and `provider = \"fly\"` needs it" such as "\"http://mayfly.flycast\"";
        /// What a machine is made of, as one of Fly's sizes.
        size: FlySize, else "the smallest with processors of its own that holds what [machine] says"
            such as "\"performance-2x\"";
        /// What a machine is made of, in Fly's words, instead of a size.
        guest: FlyGuest, else "as `size` says" such as "\"cpu_kind=performance,cpus=2,memory_mb=8192\"";
        /// Where a machine may not get through to, with commas between: it tries first, and runs nothing if it does.
        closed_to: TriedPlaces = CLOSED_TO.map(str::to_owned).to_vec();
        /// How long a machine may take to boot, before it is made elsewhere.
        boot_timeout: Time = Duration::from_secs(120);
        /// How long a machine may live at all, whatever its orchestrator says.
        lifetime: Time = Duration::from_secs(24 * 60 * 60);
    }

    /// What a task gets that does not say otherwise.
    task Task {
        /// The model, as `claude --model` takes it.
        model: Model = Rules::default().model;
        /// The time for the whole run.
        timeout: Time = Rules::default().timeout;
        /// The longest silence of the agent.
        idle_timeout: Time = Rules::default().idle_timeout;
        /// The hosts that the agent may reach, in a task of `mayfly run`; --allow names others instead of these.
        allow: Places, else "nothing but the model" such as "\"example.com,*.example.org:8443\"";
        /// What a task of `mayfly run` leaves besides its work, ignored files too: patterns for files below the workspace, with
        /// commas between them, where `**` stands for any folders. `mayfly result --artifacts` takes them.
        artifacts: Patterns, else "nothing" such as "\"dist/**,target/*/report.xml\"";
        /// The credential for the model, by its name in the orchestrator's pool, where the environment of `mayfly run` has
        /// none.
        credential: Name, else "the one called `default`, else the only one" such as "\"work\"";
        /// What a machine gets of a credential that `mayfly run` takes from its environment, or that is put into the pool:
        /// nothing (`broker`: the gateway puts it into requests), or all of it, in the environment of `claude` (`inject`)
        /// or by a file descriptor (`inject-descriptor`), where the agent can read it, and hand it on.
        credential_mode: Mode = CredentialMode::Broker;
        /// The most turns of the agent, in a task of `mayfly run`.
        max_turns: Count, else "no limit" such as "50";
        /// The most money to spend in US dollars, as the CLI counts it, in a task of `mayfly run`.
        max_budget_usd: Dollars, else "no limit" such as "2.5";
        /// Let the settings of the repository count, and what it names run, in a task of `mayfly run`: hooks, MCP
        /// servers, helpers. Else its words alone count.
        trust_repo: Switch = false;
    }

    /// What tasks share: skills, agents, MCP servers, hooks, rules and settings.
    library LibrarySection {
        /// The library's folder, which may be a checkout.
        folder: Place, else "`library` in the data folder" such as "\"/home/you/agents\"";
        /// The project of each repository that is not called as its project is in the library, with commas between them.
        projects: ProjectTable, else "the one named as the repository is" such as "\"tally-main=tally,site=web\"";
    }

    /// What `mayfly image build` puts into an image.
    image ImageSection {
        /// The suite of Debian.
        suite: SuiteName, else "this machine's own" such as "\"bookworm\"";
        /// Packages besides bash, ca-certificates, git, nodejs, procps, python3 and ripgrep, with commas between them.
        packages: PackageList, else "no more" such as "\"make,g++\"";
    }

    /// What models cost.
    prices PricesSection {
        /// The date of the prices, and after each model US dollars for a million tokens of input, output, cache read and
        /// cache write. It holds where `claude` has not said what a task cost; a model that is not here has no cost.
        per_million: PriceTable, else "no cost but what `claude` says"
            such as "\"2026-01-01: claude-sonnet-5-5 3/15/0.3/3.75\"";
    }
}
