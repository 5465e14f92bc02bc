//! The kinds of values that keys have: how each is read, written, and said to be wrong.
//!
//! A flag and a key of the same kind are read by the same function of [`values`](crate::values). Numbers,
//! `true` and `false` are bare in TOML, all else is in quotes.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_core::Prices;
use mayfly_library::artifacts::Pattern;
use mayfly_link::Endpoint;
use mayfly_provider_fly::Guest;
use mayfly_wire::api::CredentialMode;
use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};

use crate::values::{
    self, HostNames, Hosts, MonitorName, Packages, PrivateHosts, Projects, ProviderName, Regions, SelfSigned,
};

/// What the value of a key is.
pub(crate) trait Kind {
    /// In this program.
    type Value: Clone + fmt::Debug;
    /// Whether TOML has it in quotes.
    const QUOTED: bool;
    /// Reads it, or says what was expected.
    fn read(text: &str) -> Result<Self::Value, String>;
    /// As [`read`](Self::read) takes it.
    fn show(value: &Self::Value) -> String;
}

/// A value as TOML has it.
pub(crate) fn toml<K: Kind>(value: &K::Value) -> String {
    match K::QUOTED {
        true => format!("{:?}", K::show(value)),
        false => K::show(value),
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident: $value:ty, quoted $quoted:literal, $read:expr, $show:expr;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy)]
            pub(crate) enum $kind {}

            impl Kind for $kind {
                type Value = $value;
                const QUOTED: bool = $quoted;

                fn read(text: &str) -> Result<$value, String> {
                    $read(text)
                }

                fn show(value: &$value) -> String {
                    let show: fn(&$value) -> String = $show;
                    show(value)
                }
            }
        )+
    };
}

kinds! {
    /// A number of things, at least one.
    Count: NonZeroU32, quoted false, values::count, ToString::to_string;
    /// A number of processes.
    Processes: u32, quoted false, values::processes, ToString::to_string;
    /// A number of processors.
    Cpus: f64, quoted false, values::cpus, ToString::to_string;
    /// An amount of US dollars.
    Dollars: f64, quoted false, values::dollars, ToString::to_string;
    /// A size of memory.
    Memory: u64, quoted true, values::memory, |bytes| values::show_bytes(*bytes);
    /// A size on the disk.
    Disk: u64, quoted true, values::disk, |bytes| values::show_bytes(*bytes);
    /// A span of time.
    Time: Duration, quoted true, values::duration, |time| values::show_duration(*time);
    /// A span of silence.
    Silence: Duration, quoted true, values::silence, |time| values::show_duration(*time);
    /// A span of being alone.
    Loneliness: Duration, quoted true, values::loneliness, |time| values::show_duration(*time);
    /// How old something may become.
    Age: Duration, quoted true, values::age, |age| values::show_age(*age);
    /// Where to listen.
    Address: SocketAddr, quoted true, values::address, ToString::to_string;
    /// A certificate of our own.
    OwnTls: SelfSigned, quoted true, values::own_tls, |SelfSigned| values::SELF_SIGNED.to_owned();
    /// Where machines are made.
    Provider: ProviderName, quoted true, values::provider, |name| name.word().to_owned();
    /// What virtual machines run in.
    Monitor: MonitorName, quoted true, values::monitor, |name| name.word().to_owned();
    /// A word of Fly's.
    FlyWord: String, quoted true, values::fly_word, Clone::clone;
    /// Regions of Fly's.
    RegionList: Regions, quoted true, values::regions, |Regions(codes)| codes.join(",");
    /// Places that are tried.
    TriedPlaces: Vec<String>, quoted true, values::tried_places, |places| places.join(",");
    /// A size of Fly's.
    FlySize: String, quoted true, values::fly_size, Clone::clone;
    /// What a machine of Fly's is made of.
    FlyGuest: Guest, quoted true, values::fly_guest, ToString::to_string;
    /// Where an orchestrator is reached.
    Way: Endpoint, quoted true, values::endpoint, ToString::to_string;
    /// Names of a host.
    Names: HostNames, quoted true, values::host_names, |HostNames(names)| names.join(",");
    /// Where machines may go.
    Places: Hosts, quoted true, values::rules, values::show_rules;
    /// Patterns for files.
    Patterns: Vec<Pattern>, quoted true, values::patterns, |patterns| values::show_patterns(patterns);
    /// Names that may lead to private networks.
    Private: PrivateHosts, quoted true, values::private_hosts, values::show_private_hosts;
    /// Yes or no.
    Switch: bool, quoted false, values::switch, ToString::to_string;
    /// The name of a credential.
    Name: String, quoted true, values::credential_name, Clone::clone;
    /// What a machine gets of a credential.
    Mode: CredentialMode, quoted true, values::credential_mode, |mode| values::mode_name(*mode).to_owned();
    /// Which projects repositories belong to.
    ProjectTable: Projects, quoted true, values::projects, values::show_projects;
    /// What models cost.
    PriceTable: Prices, quoted true, values::prices, ToString::to_string;
    /// One of Debian's suites.
    SuiteName: String, quoted true, values::suite, Clone::clone;
    /// Debian's packages.
    PackageList: Packages, quoted true, values::packages, |Packages(names)| names.join(",");
    /// The name of a model.
    Model: String, quoted true, values::model, Clone::clone;
    /// A place on this host, the same wherever one stands.
    Place: PathBuf, quoted true, place, |path| path.display().to_string();
}

fn place(text: &str) -> Result<PathBuf, String> {
    match Path::new(text) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err("expected an absolute path, such as /usr/local/bin/claude".to_owned()),
    }
}

/// A value that was read from TOML.
pub(super) struct Raw<K: Kind>(pub(super) K::Value);

impl<'de, K: Kind> Deserialize<'de> for Raw<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Plain(std::marker::PhantomData::<K>)).map(Self)
    }
}

/// Takes what is of the kind, and of it only what TOML writes as it should be written.
struct Plain<K>(std::marker::PhantomData<K>);

impl<K: Kind> Plain<K> {
    fn bare<E: de::Error>(&self, text: &str, is: Unexpected<'_>) -> Result<K::Value, E> {
        match K::QUOTED {
            true => Err(E::invalid_type(is, self)),
            false => K::read(text).map_err(|_| E::invalid_value(is, self)),
        }
    }
}

impl<K: Kind> Visitor<'_> for Plain<K> {
    type Value = K::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = K::read("").err().unwrap_or_default();
        f.write_str(said.strip_prefix("expected ").unwrap_or(&said))
    }

    fn visit_bool<E: de::Error>(self, yes: bool) -> Result<K::Value, E> {
        self.bare(&yes.to_string(), Unexpected::Bool(yes))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<K::Value, E> {
        self.bare(&number.to_string(), Unexpected::Signed(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<K::Value, E> {
        self.bare(&number.to_string(), Unexpected::Float(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<K::Value, E> {
        let is = Unexpected::Str(text);
        match K::QUOTED {
            true => K::read(text).map_err(|said| match said.starts_with("expected ") {
                true => E::invalid_value(is, &self),
                false => E::custom(said),
            }),
            false => Err(E::invalid_type(is, &self)),
        }
    }
}
