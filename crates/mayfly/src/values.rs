//! The values that flags take, each read into what it means or refused in words.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use mayfly_core::Prices;
use mayfly_core::host::{Host, Rule};
use mayfly_core::prices::BadPrices;
use mayfly_image::debian::{is_package, is_suite};
use mayfly_library::Name;
use mayfly_library::artifacts::Pattern;
use mayfly_link::Endpoint;
use mayfly_provider_fly::{BadGuest, Guest};
use mayfly_wire::api::{
    CredentialKind, CredentialMode, PRIORITY_MAX, RETRIES_MAX, TIMEOUT_MS_MAX, TOKEN_NAME_BYTES_MAX,
    check_token_name,
};

/// The longest duration that a flag takes.
const DURATION_MAX: Duration = Duration::from_millis(TIMEOUT_MS_MAX);

/// The longest name of an image.
const IMAGE_NAME_BYTES_MAX: usize = 64;

/// Reads a duration such as `90s`, `30m`, `1h` or `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a duration such as 90s, 30m, 1h or 1h30m";
    let mut seconds = 0_u64;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            _ => return Err(EXPECTED.to_owned()),
        };
        let count: u64 = digits.parse().map_err(|_| EXPECTED.to_owned())?;
        digits.clear();
        seconds = count.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or(EXPECTED)?;
    }
    let duration = Duration::from_secs(seconds);
    match () {
        () if !digits.is_empty() || text.is_empty() => Err(EXPECTED.to_owned()),
        () if duration.is_zero() => Err("expected more than nothing".to_owned()),
        () if duration > DURATION_MAX => Err("the longest is 168h".to_owned()),
        () => Ok(duration),
    }
}

/// Reads how long a worker may be silent before its owner is told: a link that was cut is back within seconds.
pub(crate) fn silence(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_secs(5), "a link that was cut is back within seconds")
}

/// Reads how long a machine goes on alone: every restart of the orchestrator must fit.
pub(crate) fn loneliness(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_secs(60), "the next orchestrator must have time to start")
}

fn at_least(text: &str, least: Duration, why: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < least => Err(format!("the least is {}: {why}", show_duration(least))),
        time => Ok(time),
    }
}

/// A duration as [`duration`] reads it.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let part = |count: u64, unit: &str| if count > 0 { format!("{count}{unit}") } else { String::new() };
    part(seconds / 3600, "h") + &part(seconds / 60 % 60, "m") + &part(seconds % 60, "s")
}

/// The longest age: some hundred years.
const AGE_MAX: Duration = Duration::from_secs(36_500 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// Reads an age: days, such as `30d`, or less, as [`duration`] reads it.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected an age such as 12h or 30d";
    let Some(days) = text.strip_suffix('d') else {
        return duration(text).map_err(|_| EXPECTED.to_owned());
    };
    let days: u64 = days.parse().ok().filter(|_| days.bytes().all(|b| b.is_ascii_digit())).ok_or(EXPECTED)?;
    let age = Duration::from_secs(days.saturating_mul(DAY));
    match () {
        () if age.is_zero() => Err("expected more than nothing".to_owned()),
        () if age > AGE_MAX => Err("the longest is 36500d".to_owned()),
        () => Ok(age),
    }
}

/// An age as [`age`] reads it.
pub(crate) fn show_age(age: Duration) -> String {
    match age.as_secs() {
        seconds if seconds % DAY == 0 => format!("{}d", seconds / DAY),
        _ => show_duration(age),
    }
}

/// The units of bytes, the greatest first.
const BYTE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads the size of a machine's memory, such as `512MiB` or `4GiB`.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    /// Less than `claude` itself takes.
    const BYTES_MIN: u64 = 256 << 20;
    match bytes(text)? {
        ..BYTES_MIN => Err("the least memory is 256MiB: claude takes most of that".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Reads what a machine's files may take on the disk, such as `512MiB` or `20GiB`.
pub(crate) fn disk(text: &str) -> Result<u64, String> {
    /// Less than a checkout and what `claude` keeps of its session can take.
    const BYTES_MIN: u64 = 256 << 20;
    match bytes(text)? {
        ..BYTES_MIN => {
            Err("the least disk is 256MiB: the code and what is made of it take most of that".to_owned())
        }
        bytes => Ok(bytes),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let bytes = BYTE_UNITS.iter().find_map(|(unit, size)| {
        let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<u64>().ok()?.checked_mul(*size)
    });
    bytes.ok_or_else(|| "expected a size such as 512MiB or 4GiB".to_owned())
}

/// A size as [`memory`] and [`disk`] read it.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let whole = BYTE_UNITS.iter().find(|(_, size)| bytes.is_multiple_of(*size) && bytes > 0);
    whole.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// Reads how many processes and threads a machine may have: at least those of `claude` and its tools, at most
/// what the kernel can count.
pub(crate) fn processes(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 64..=4_194_304) => Ok(count),
        _ => Err("expected a whole number from 64 to 4194304".to_owned()),
    }
}

/// Reads an address with a port. Whether it may be listened on, the orchestrator knows.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:6293".to_owned())
}

/// Where machines are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProviderName {
    /// As sandboxes on this box.
    Sandbox,
    /// As virtual machines on this box.
    Microvm,
    /// As VMs of Fly.io.
    Fly,
}

impl ProviderName {
    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Microvm => "microvm",
            Self::Fly => "fly",
        }
    }
}

/// Reads where machines are made.
pub(crate) fn provider(text: &str) -> Result<ProviderName, String> {
    let all = [ProviderName::Sandbox, ProviderName::Microvm, ProviderName::Fly];
    let named = all.into_iter().find(|name| name.word() == text);
    named.ok_or_else(|| "expected `sandbox`, `microvm` or `fly`".to_owned())
}

/// Reads where machines are made on this box.
pub(crate) fn provider_here(text: &str) -> Result<ProviderName, String> {
    let named = provider(text).ok().filter(|name| *name != ProviderName::Fly);
    named.ok_or_else(|| "expected `sandbox` or `microvm`".to_owned())
}

/// What virtual machines run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MonitorName {
    /// What this host can do.
    Auto,
    /// With a processor that virtualises.
    Firecracker,
    /// With one that is emulated.
    Qemu,
}

impl MonitorName {
    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Firecracker => "firecracker",
            Self::Qemu => "qemu",
        }
    }
}

/// Reads what virtual machines run in.
pub(crate) fn monitor(text: &str) -> Result<MonitorName, String> {
    let all = [MonitorName::Auto, MonitorName::Firecracker, MonitorName::Qemu];
    let named = all.into_iter().find(|name| name.word() == text);
    named.ok_or_else(|| "expected `auto`, `firecracker` or `qemu`".to_owned())
}

/// Reads for which machines an image is to be made fit.
pub(crate) fn image_for(text: &str) -> Result<ProviderName, String> {
    let named = provider(text).ok().filter(|name| *name == ProviderName::Microvm);
    named.ok_or_else(|| "expected `microvm`: those of Fly take each image as it is".to_owned())
}

/// Reads a name of Fly's, whose form the provider knows.
pub(crate) fn fly_word(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 500;
    match (1..=BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("expected a name of Fly's, such as mayfly-workers".to_owned()),
    }
}

/// Places that are tried, with commas between them.
pub(crate) fn tried_places(text: &str) -> Result<Vec<String>, String> {
    let is_place = |place: &String| {
        let port =
            place.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        port.is_some_and(|port| port.is_ok()) && place.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let places: Vec<String> = text.split(',').map(|place| place.trim().to_owned()).collect();
    match places.iter().all(is_place) {
        true => Ok(places),
        false => Err("expected places as HOST:PORT with commas between them, such as 1.1.1.1:443".to_owned()),
    }
}

/// Regions of Fly's, the most wanted first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Regions(pub(crate) Vec<String>);

/// Reads the codes of regions, with commas between them.
pub(crate) fn regions(text: &str) -> Result<Regions, String> {
    let is_code = |code: &String| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_lowercase());
    let codes: Vec<String> = text.split(',').map(|code| code.trim().to_owned()).collect();
    match codes.iter().all(is_code) {
        true => Ok(Regions(codes)),
        false => {
            Err("expected codes of Fly's regions with commas between them, such as iad,ord (`fly platform \
                      regions` lists them)"
                .to_owned())
        }
    }
}

/// Reads one of Fly's sizes.
pub(crate) fn fly_size(text: &str) -> Result<String, String> {
    Guest::preset(text).map(|_| text.to_owned()).map_err(|bad| bad.to_string())
}

/// Reads what a machine of Fly's is made of.
pub(crate) fn fly_guest(text: &str) -> Result<Guest, String> {
    text.parse().map_err(|bad: BadGuest| bad.to_string())
}

/// A certificate that signs itself: the only one of our own that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SelfSigned;

/// How it is asked for.
pub(crate) const SELF_SIGNED: &str = "self-signed";

/// Reads which certificate of our own to use.
pub(crate) fn own_tls(text: &str) -> Result<SelfSigned, String> {
    match text {
        SELF_SIGNED => Ok(SelfSigned),
        _ => Err("expected `self-signed`".to_owned()),
    }
}

/// Reads where an orchestrator is reached.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error| format!("{error}: expected such as https://box.example:6293"))
}

/// What a host is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostNames(pub(crate) Vec<String>);

/// Reads names of a host, with commas between them.
pub(crate) fn host_names(text: &str) -> Result<HostNames, String> {
    const NAMES_MAX: usize = 20;
    const NAME_BYTES_MAX: usize = 253;
    let plain = |label: &str| {
        let bytes = || label.bytes();
        !label.is_empty()
            && bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let good = |name: &str| {
        let address = name.parse::<IpAddr>().is_ok();
        !address && name.len() <= NAME_BYTES_MAX && name.split('.').all(plain)
    };
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    match names.len() <= NAMES_MAX && names.iter().all(|name| good(name)) {
        true => Ok(HostNames(names)),
        false => {
            Err("expected names of this host with commas between them, such as mayfly.example.com,box"
                .to_owned())
        }
    }
}

/// The projects of repositories that are not called as their projects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Projects(pub(crate) BTreeMap<String, Name>);

/// Reads any number of `REPOSITORY=PROJECT`, with commas between them; a repository can have one.
pub(crate) fn projects(text: &str) -> Result<Projects, String> {
    const EXPECTED: &str =
        "expected projects by repository with commas between them, such as tally-main=tally,site=web";
    let mut projects = BTreeMap::new();
    for part in text.split(',') {
        let (repository, project) = part.split_once('=').ok_or(EXPECTED)?;
        let (repository, project) = (repository.trim(), project.trim());
        // A repository's folder is called by the same letters.
        let repository: Name = repository.parse().map_err(|_| EXPECTED)?;
        let project: Name = project.parse().map_err(|_| EXPECTED)?;
        if projects.insert(repository.to_string(), project).is_some() {
            return Err(format!("the repository `{repository}` has two projects: keep one"));
        }
    }
    Ok(Projects(projects))
}

/// As [`projects`] reads them.
pub(crate) fn show_projects(Projects(projects): &Projects) -> String {
    let pair = |(repository, project): (&String, &Name)| format!("{repository}={project}");
    projects.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// Where machines may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hosts(pub(crate) Vec<Rule>);

/// Reads where machines may go: a host, and a port if it is to be another than those of the web.
pub(crate) fn rule(text: &str) -> Result<Rule, String> {
    text.trim().parse().map_err(|bad: mayfly_core::host::BadHost| bad.to_string())
}

/// Reads any number of them, with commas between them; an empty text is none.
pub(crate) fn rules(text: &str) -> Result<Hosts, String> {
    let parts = text.split(',').filter(|_| !text.trim().is_empty());
    parts.map(rule).collect::<Result<_, _>>().map(Hosts)
}

/// As [`rules`] reads them.
pub(crate) fn show_rules(Hosts(rules): &Hosts) -> String {
    rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Reads any number of patterns for files, with commas between them; an empty text is none.
pub(crate) fn patterns(text: &str) -> Result<Vec<Pattern>, String> {
    text.split(',').filter(|_| !text.trim().is_empty()).map(str::parse).collect()
}

/// As [`patterns`] reads them.
pub(crate) fn show_patterns(patterns: &[Pattern]) -> String {
    patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Names of hosts that may lead to private networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrivateHosts(pub(crate) Vec<Host>);

/// Reads any number of names, with commas between them; an empty text is none.
pub(crate) fn private_hosts(text: &str) -> Result<PrivateHosts, String> {
    let parts = text.split(',').filter(|_| !text.trim().is_empty());
    let read = |part: &str| part.trim().parse().map_err(|bad: mayfly_core::host::BadHost| bad.to_string());
    parts.map(read).collect::<Result<_, _>>().map(PrivateHosts)
}

/// As [`private_hosts`] reads them.
pub(crate) fn show_private_hosts(PrivateHosts(hosts): &PrivateHosts) -> String {
    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Reads yes or no, as TOML has them.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected true or false".to_owned())
}

/// Reads how many processors a machine may use.
pub(crate) fn cpus(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(count) if (0.1..=1024.0).contains(&count) => Ok(count),
        _ => Err("expected a number from 0.1 to 1024, such as 2 or 0.5".to_owned()),
    }
}

/// Reads a number of things, at least one.
pub(crate) fn count(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("expected a whole number from 1 to {}", u32::MAX))
}

/// Reads an amount of US dollars above zero.
pub(crate) fn dollars(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(amount) if f64::is_finite(amount) && amount > 0.0 => Ok(amount),
        _ => Err("expected an amount of US dollars above 0, such as 2.50".to_owned()),
    }
}

/// Writes an amount of US dollars, small ones too.
pub(crate) fn show_dollars(usd: f64) -> String {
    if usd > 0.0 && usd < 0.1 { format!("${usd:.4}") } else { format!("${usd:.2}") }
}

/// Writes a number of things, shortened to thousands or millions.
pub(crate) fn show_count(count: u64) -> String {
    match count {
        0..1000 => count.to_string(),
        1000..10_000 => format!("{}.{}k", count / 1000, count / 100 % 10),
        10_000..1_000_000 => format!("{}k", count / 1000),
        _ => format!("{}.{}M", count / 1_000_000, count / 100_000 % 10),
    }
}

/// Reads a table of prices.
pub(crate) fn prices(text: &str) -> Result<Prices, String> {
    text.parse().map_err(|error: BadPrices| error.to_string())
}

/// Reads the name of a model, by the rule of the orchestrator.
pub(crate) fn model(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 100;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/@[]-".contains(c);
    match (1..=BYTES_MAX).contains(&text.len()) && !text.starts_with('-') && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a model, such as sonnet".to_owned()),
    }
}

/// Reads a priority.
pub(crate) fn priority(text: &str) -> Result<i32, String> {
    let priority = text.parse().ok().filter(|priority| (-PRIORITY_MAX..=PRIORITY_MAX).contains(priority));
    priority.ok_or_else(|| format!("expected a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"))
}

/// Reads a number of retries.
pub(crate) fn retries(text: &str) -> Result<u32, String> {
    let retries = text.parse().ok().filter(|retries| *retries <= RETRIES_MAX);
    retries.ok_or_else(|| format!("expected a whole number from 0 to {RETRIES_MAX}"))
}

/// Reads the id of a task or an end of one. Which task it is, if any, the orchestrator knows.
pub(crate) fn task(text: &str) -> Result<String, String> {
    const DIGITS: std::ops::RangeInclusive<usize> = 4..=32;
    let digits = text.chars().filter(|c| *c != '-').count();
    match DIGITS.contains(&digits) && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit()) {
        true => Ok(text.to_owned()),
        false => {
            Err("expected the id of a task, or its last digits, at least 4: `mayfly ps` shows them"
                .to_owned())
        }
    }
}

/// Reads the name of a token.
pub(crate) fn token_name(text: &str) -> Result<String, String> {
    match check_token_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "expected 1 to {TOKEN_NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`, the first a letter or a digit"
        )),
    }
}

/// Reads the name of an image.
pub(crate) fn image_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = text.len() <= IMAGE_NAME_BYTES_MAX
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte));
    match is_name {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "expected 1 to {IMAGE_NAME_BYTES_MAX} lower-case letters, digits, `.`, `_` or `-`, the first a letter or a digit"
        )),
    }
}

/// Reads the name of one of Debian's suites.
pub(crate) fn suite(text: &str) -> Result<String, String> {
    match is_suite(text) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a suite such as bookworm".to_owned()),
    }
}

/// Reads the name of one of Debian's packages.
pub(crate) fn package(text: &str) -> Result<String, String> {
    match is_package(text) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a package such as g++, without a version".to_owned()),
    }
}

/// Names of packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packages(pub(crate) Vec<String>);

/// Reads names of packages, with commas between them.
pub(crate) fn packages(text: &str) -> Result<Packages, String> {
    text.split(',').map(|name| package(name.trim())).collect::<Result<_, _>>().map(Packages)
}

/// Reads the name of a credential, by the same rule as that of a token.
pub(crate) fn credential_name(text: &str) -> Result<String, String> {
    token_name(text)
}

/// The kinds of credentials, as they are written.
const KINDS: [(&str, CredentialKind); 4] = [
    ("oauth-token", CredentialKind::OauthToken),
    ("api-key", CredentialKind::ApiKey),
    ("bearer", CredentialKind::Bearer),
    ("secret", CredentialKind::Secret),
];

/// What a machine gets of one, as it is written.
const MODES: [(&str, CredentialMode); 3] = [
    ("broker", CredentialMode::Broker),
    ("inject", CredentialMode::Inject),
    ("inject-descriptor", CredentialMode::InjectDescriptor),
];

/// Reads the kind of a credential.
pub(crate) fn credential_kind(text: &str) -> Result<CredentialKind, String> {
    let found = KINDS.iter().find(|(word, _)| *word == text);
    found
        .map(|(_, kind)| *kind)
        .ok_or_else(|| "expected `oauth-token`, `api-key`, `bearer` or `secret`".to_owned())
}

/// Reads what a machine gets of a credential.
pub(crate) fn credential_mode(text: &str) -> Result<CredentialMode, String> {
    let found = MODES.iter().find(|(word, _)| *word == text);
    found
        .map(|(_, mode)| *mode)
        .ok_or_else(|| "expected `broker`, `inject` or `inject-descriptor`".to_owned())
}

/// The word for a kind.
pub(crate) fn kind_name(kind: CredentialKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(word, _)| word)
}

/// The word for a mode.
pub(crate) fn mode_name(mode: CredentialMode) -> &'static str {
    MODES.iter().find(|(_, known)| *known == mode).map_or("", |(word, _)| word)
}

/// Reads the base URL of a model API, and takes its last slash off.
pub(crate) fn base_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map_or("", |rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match !host.is_empty() && !host.contains('@') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => {
            Err("expected a URL such as https://gateway.example, without a user or a password".to_owned())
        }
    }
}

/// Reads the number of the last event that is not wanted.
pub(crate) fn event(text: &str) -> Result<u64, String> {
    let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let number = number.and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        "expected the number of an event, as in `seq` of --json; 0 is before the first".to_owned()
    })
}

/// A time as people read it at a glance, such as `12s`, `3m05s` or `26h40m`.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// `text` as one word of a shell.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// The name of a branch, or of a folder, for what a task made: a short id and the first words of the prompt.
pub(crate) fn slug(prompt: &str) -> String {
    const CHARS_MAX: usize = 40;
    const WORDS_MAX: usize = 6;
    let words = prompt.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut slug = String::new();
    for word in words.take(WORDS_MAX) {
        if slug.len() + word.len() + 1 > CHARS_MAX {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(&word.to_ascii_lowercase());
    }
    if slug.is_empty() { "task".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("168h", 604_800)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "0s",
            "10",
            "m",
            "-1s",
            "1.5h",
            "1d",
            "169h",
            "99999999999999999999s",
            "9999999999999999h",
            "1h ",
            "१s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn silence_and_loneliness_have_a_least() {
        assert_eq!(
            (silence("5s"), loneliness("1m")),
            (Ok(Duration::from_secs(5)), Ok(Duration::from_secs(60)))
        );
        for text in ["4s", "0s", "", "169h"] {
            assert!(silence(text).is_err(), "{text}");
        }
        for text in ["59s", "0s", "", "169h"] {
            assert!(loneliness(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_are_read_as_people_write_them() {
        for (text, hours) in [("30d", 720), ("1d", 24), ("12h", 12), ("24h", 24), ("36500d", 876_000)] {
            let read = age(text);
            assert_eq!(read, Ok(Duration::from_secs(hours * 3600)), "{text}");
            assert_eq!(age(&show_age(read.expect("just read"))), Ok(Duration::from_secs(hours * 3600)));
        }
        for text in ["", "d", "0d", "+1d", "1d12h", "36501d", "99999999999999999999d", "forever"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_machine_may_use_is_read_and_shown_as_people_write_it() {
        for text in ["256MiB", "4GiB", "1TiB", "1000000KiB"] {
            assert_eq!(memory(text).map(show_bytes).as_deref(), Ok(text));
        }
        for text in ["", "4", "4GB", "4 GiB", "-1GiB", "1.5GiB", "GiB", "99999999999TiB", "255MiB"] {
            assert!(memory(text).is_err() && disk(text).is_err(), "{text}");
        }
        assert_eq!(disk("256MiB"), Ok(256 << 20));
        for text in ["63", "0", "-1", "4194305", "many", "64.5"] {
            assert!(processes(text).is_err(), "{text}");
        }
        assert_eq!((processes("64"), cpus("0.5")), (Ok(64), Ok(0.5)));
        for text in ["0", "-1", "NaN", "inf", "1025", "two"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_count_is_at_least_one() {
        assert_eq!(count("5").map(NonZeroU32::get), Ok(5));
        for text in ["", "0", "-1", "1.5", "five", "4294967296"] {
            assert!(count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_event_is_named_by_its_number() {
        assert_eq!(["0", "7", "18446744073709551615"].map(event), [Ok(0), Ok(7), Ok(u64::MAX)]);
        for text in ["", "-1", "+1", "1.5", "18446744073709551616", "last"] {
            assert!(event(text).is_err(), "{text}");
        }
    }

    #[test]
    fn priorities_and_retries_have_bounds() {
        assert_eq!(["-1000", "0", "1000"].map(priority), [Ok(-1000), Ok(0), Ok(1000)]);
        assert_eq!(["0", "10"].map(retries), [Ok(0), Ok(10)]);
        for text in ["", "-1001", "1001", "1.5", "high"] {
            assert!(priority(text).is_err(), "{text}");
        }
        for text in ["", "-1", "11", "often"] {
            assert!(retries(text).is_err(), "{text}");
        }
    }

    /// S40: what is no id does not even reach the orchestrator.
    #[test]
    fn a_task_is_named_by_digits() {
        for text in ["1a2b", "1A2B3C4D", "0193b2c4-0000-7000-8000-01231a2b3c4d"] {
            assert_eq!(task(text).as_deref(), Ok(text));
        }
        for text in ["", "1a2", "--1a", "1a2g", "../1a2b", "0193b2c4-0000-7000-8000-01231a2b3c4d0"] {
            assert!(task(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_is_called_by_names() {
        let two = ["box", "mayfly.example.com"].map(str::to_owned).into();
        assert_eq!(host_names("Box, mayfly.example.com"), Ok(HostNames(two)));
        for text in [
            "",
            "a,",
            "a b",
            "http://a",
            "a:1",
            "127.0.0.1",
            "::1",
            "-a",
            "a.-b",
            "a..b",
            "ä",
            "*",
            &"a,".repeat(20),
        ] {
            assert!(host_names(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_repository_has_one_project() {
        let read = projects("tally-main=tally, site=web").expect("projects");
        assert_eq!(show_projects(&read), "site=web,tally-main=tally");
        for text in ["", "a", "a=", "=b", "a=b,", "a=b=c", "a/b=c", "a=-c", "a=b,a=c"] {
            assert!(projects(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_is_named_as_the_orchestrator_takes_it() {
        let longest = "x".repeat(50);
        for text in ["laptop", "CI-2", "a.b_c", "0", &longest] {
            assert_eq!(token_name(text).as_deref(), Ok(text));
        }
        for text in ["", "-x", ".", "a b", "a/b", "ä", "a\u{1b}", &"x".repeat(51)] {
            assert!(token_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dollars_are_above_zero() {
        assert_eq!(dollars("2.50"), Ok(2.5));
        for text in ["", "0", "-1", "NaN", "inf", "1e999", "$2", "2,5"] {
            assert!(dollars(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_and_amounts_are_short() {
        let counts = [999, 1000, 9999, 10_000, 999_999, 1_250_000].map(show_count);
        assert_eq!(counts, ["999", "1.0k", "9.9k", "10k", "999k", "1.2M"]);
        assert_eq!([0.0, 0.0213, 0.1, 12.345].map(show_dollars), ["$0.00", "$0.0213", "$0.10", "$12.35"]);
    }

    #[test]
    fn a_model_is_named_as_the_orchestrator_takes_it() {
        let longest = "x".repeat(100);
        for text in ["sonnet", "claude-sonnet-4-5", "us.anthropic/x:v1@2[1m]", &longest] {
            assert_eq!(model(text).as_deref(), Ok(text));
        }
        for text in ["", "-x", "a b", "a;b", "ä", &"x".repeat(101)] {
            assert!(model(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_word_of_a_shell_is_quoted_where_it_must_be() {
        for text in ["/a/b-c.d", "a b", "it's", "$(x)`y`", "", "~", "a\\b\"c", "-"] {
            let mut shell = std::process::Command::new("sh");
            let said =
                shell.args(["-c", &format!("printf %s {}", shell_word(text))]).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&said.stdout), text);
        }
        assert_eq!(shell_word("/a/b-c.d"), "/a/b-c.d");
    }

    #[test]
    fn a_slug_is_the_first_words() {
        for (prompt, expected) in [
            ("Fix the flaky test!", "fix-the-flaky-test"),
            ("one two three four five six seven", "one-two-three-four-five-six"),
            ("日本語", "task"),
            ("../../etc/passwd\u{1b}[2J", "etc-passwd-2j"),
            (&"a".repeat(100), "task"),
        ] {
            assert_eq!(slug(prompt), expected);
        }
    }

    #[test]
    fn a_span_is_told_in_two_units_at_most() {
        let spans = [0, 59, 60, 3599, 3600, 96_000].map(span);
        assert_eq!(spans, ["0s", "59s", "1m00s", "59m59s", "1h00m", "26h40m"]);
    }

    proptest! {
        #[test]
        fn a_duration_is_shown_as_it_is_read(seconds in 1..=DURATION_MAX.as_secs()) {
            let time = Duration::from_secs(seconds);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
        }

        /// S10, S45: a branch's name can hold nothing that git, a shell or a terminal reads as more than text.
        #[test]
        fn a_slug_is_always_a_plain_name(prompt in any::<String>()) {
            let slug = slug(&prompt);
            prop_assert!((1..=40).contains(&slug.len()));
            prop_assert!(slug.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            prop_assert!(!slug.starts_with('-') && !slug.ends_with('-') && !slug.contains("--"));
        }
    }
}
