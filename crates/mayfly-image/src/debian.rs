//! A root tree of Debian packages: which ones, from lists of our own, and how they are installed.
//!
//! ```text
//! apt-get indextargets ─► Debian's own sources ─► apt-get update, --simulate ─► every package with its version
//!                                                                                     │ the same versions, or none
//!                                                            the mirror ─► mmdebstrap ◄┘ ─► a tar
//! ```
//!
//! Which mirror that is, and by which proxy, is this machine's configuration of apt; the keys are Debian's. Nothing of the
//! machine's own lists and packages counts, and nothing of them is touched. What would be installed is known beforehand, so
//! it can be seen whether it is there already. mmdebstrap makes namespaces of its own, as a normal user too.
//!
//! Bound: [`INSTALL_MAX`].

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, geteuid};

use crate::gone::{self, Watch};
use crate::layer::TIME;
use crate::program::{self, Ended, Flag};

/// What is in every image, with what Debian calls essential, and what these need.
pub const PACKAGES: [&str; 7] = ["bash", "ca-certificates", "git", "nodejs", "procps", "python3", "ripgrep"];
/// What leads to the newest kernel for virtual machines, how the names of kernels begin, and what an initramfs runs.
const KERNEL: &str = "linux-image-cloud-amd64";
const KERNEL_IMAGE: &str = "linux-image-";
const BUSYBOX: &str = "busybox-static";
/// Whose lists are taken, and by which keys.
const ORIGINS: [(&str, &str); 2] = [
    ("Debian", "/usr/share/keyrings/debian-archive-keyring.gpg"),
    ("Ubuntu", "/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
];
/// What lists of a suite are called after it.
const AFTER_SUITE: [&str; 3] = ["", "-updates", "-security"];
/// What of this machine's configuration of apt leads to its mirror.
const ACQUIRE: [&str; 2] = ["Acquire::http::", "Acquire::https::"];
/// The program that installs, and the package that has it.
const MMDEBSTRAP: &str = "mmdebstrap";
/// Our configuration of apt, and the sources that it names.
const CONFIG: &str = "apt.conf";
const SOURCES: &str = "apt.sources";
/// The files that say who may take from a mirror.
const NETRC: [(&str, &str); 2] =
    [("Dir::Etc::netrc", "/etc/apt/auth.conf"), ("Dir::Etc::netrcparts", "/etc/apt/auth.conf.d")];
/// The longest that an installation may take.
const INSTALL_MAX: Duration = Duration::from_secs(60 * 60);
/// The last lines that are repeated of what a program said, and the characters of each.
const SAID_LINES_MAX: usize = 6;
const SAID_CHARS_MAX: usize = 200;

/// A package of one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as Debian writes it.
    pub version: String,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.version)
    }
}

/// Whether a text can be the name of a package, and nothing else to apt: a minus at the end would have it take one away.
pub fn is_package(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    (2..=128).contains(&text.len())
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || b"+-.".contains(&byte))
        && !text.ends_with('-')
}

/// Whether a text can be the name of a suite.
pub fn is_suite(text: &str) -> bool {
    (2..=40).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The suite of the system with this `/etc/os-release`.
pub fn suite_of(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_owned()).filter(|suite| is_suite(suite))
}

/// How this machine's programs are started.
#[derive(Clone, Copy)]
pub struct Programs<'a>(pub &'a dyn Fn(&str) -> Command);

impl Programs<'_> {
    /// A program by its name, with the environment that it is to have.
    pub(crate) fn start(self, program: &str) -> Command {
        (self.0)(program)
    }
}

impl fmt::Debug for Programs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Programs(…)")
    }
}

/// Lists of packages, of one suite.
#[derive(Debug)]
pub struct Lists<'a> {
    suite: &'a str,
    processors: &'static str,
    /// As a file of sources has them.
    sources: String,
    /// Where apt has them, and what it makes of them.
    folder: &'a Path,
    programs: Programs<'a>,
}

impl<'a> Lists<'a> {
    /// Those of the mirror that this machine's apt asks, as they are now. `folder` is kept for the next time.
    pub fn update(
        suite: &'a str,
        processors: &'static str,
        folder: &'a Path,
        programs: Programs<'a>,
    ) -> Result<Self, DebianError> {
        let mut apt = programs.start("apt-get");
        apt.args(["indextargets", "Created-By: Packages", &format!("Architecture: {processors}")]);
        let said = output(apt, "apt-get")?;
        let lists: Vec<List<'_>> = said.split("\n\n").filter_map(List::read).collect();
        let sources: Vec<String> = lists.iter().filter(|list| list.is_of(suite)).map(List::source).collect();
        if sources.is_empty() {
            let mut others: Vec<_> = lists.iter().map(|list| list.codename.to_owned()).collect();
            others.sort();
            others.dedup();
            return Err(DebianError::NoLists { suite: suite.to_owned(), others });
        }
        let lists = Self { suite, processors, sources: sources.join("\n"), folder, programs };
        lists.write_config().map_err(DebianError::Scratch)?;
        let mut apt = lists.apt();
        apt.arg("update");
        match output(apt, "apt-get") {
            Err(DebianError::Apt { said }) => Err(DebianError::Mirror { said }),
            Err(error) => Err(error),
            Ok(_) => Ok(lists),
        }
    }

    /// All that is installed where these packages are, besides what is essential.
    pub fn resolve(&self, packages: &[String]) -> Result<Vec<Package>, DebianError> {
        let mut apt = self.apt();
        apt.args(["--simulate", "install", "?essential"]).args(PACKAGES).args(packages);
        installs(&output(apt, "apt-get")?)
    }

    /// The packages that the parts of a virtual machine's kernel come from: the kernel itself, and what its initramfs runs.
    pub fn kernel(&self) -> Result<[Package; 2], DebianError> {
        let mut apt = self.apt();
        apt.args(["--simulate", "install", KERNEL, BUSYBOX]);
        let all = installs(&output(apt, "apt-get")?)?;
        // The first name is that of the newest one, which it needs.
        let is_kernel = |name: &str| name.starts_with(KERNEL_IMAGE) && name != KERNEL;
        let find = |is: &dyn Fn(&str) -> bool| {
            let found = all.iter().find(|package| is(&package.name)).cloned();
            found.ok_or_else(|| DebianError::Apt { said: format!("{KERNEL} and {BUSYBOX} lead to none") })
        };
        Ok([find(&is_kernel)?, find(&|name| name == BUSYBOX)?])
    }

    /// The archive of a package, fetched if it is not there; apt checks what comes.
    pub fn archive(&self, package: &Package) -> Result<PathBuf, DebianError> {
        let folder = self.folder.join("packages");
        let place = folder.join(format!("{package}.deb"));
        if place.exists() {
            return Ok(place);
        }
        fs::create_dir_all(&folder).map_err(DebianError::Scratch)?;
        let scratch = tempfile::tempdir_in(&folder).map_err(DebianError::Scratch)?;
        let mut apt = self.apt();
        apt.args(["download", &package.to_string()]).current_dir(scratch.path());
        output(apt, "apt-get")?;
        let mut fetched = fs::read_dir(scratch.path()).map_err(DebianError::Scratch)?;
        let fetched = fetched.next().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
        let moved = fetched.and_then(|fetched| fs::rename(fetched.path(), &place));
        moved.map_err(DebianError::Scratch)?;
        Ok(place)
    }

    /// apt, as if nothing were installed, with these sources alone.
    fn apt(&self) -> Command {
        let mut apt = self.programs.start("apt-get");
        apt.arg("--quiet").arg("--config-file").arg(self.folder.join(CONFIG));
        apt
    }

    /// It is read after the machine's own, of which what leads to the mirror stays.
    fn write_config(&self) -> io::Result<()> {
        let folder = self.folder.display();
        fs::create_dir_all(self.folder.join("lists/partial"))?;
        fs::write(self.folder.join(SOURCES), &self.sources)?;
        fs::write(self.folder.join("status"), "")?;
        let config = format!(
            "#clear APT::Update;\n#clear APT::Architectures;\n\
             APT::Architecture \"{processors}\";\nAPT::Architectures {{ \"{processors}\"; }};\n\
             APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"\";\nAPT::Update::Error-Mode \"any\";\n\
             Acquire::Languages \"none\";\n\
             Dir::Etc::SourceList \"{folder}/{SOURCES}\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             Dir::Etc::Preferences \"/dev/null\";\nDir::Etc::PreferencesParts \"/dev/null\";\n\
             Dir::State \"{folder}\";\nDir::State::status \"{folder}/status\";\nDir::Cache \"{folder}\";\n\
             Dir::Cache::srcpkgcache \"\";\n",
            processors = self.processors,
        );
        fs::write(self.folder.join(CONFIG), config)
    }

    /// Installs these very packages, and gives the tree as a tar, in a file without a name in `folder`.
    pub fn install(
        &self,
        packages: &[Package],
        folder: &Path,
        given_up: &Flag,
        watch: Watch<'_>,
    ) -> Result<File, DebianError> {
        let scratch = tempfile::tempdir_in(folder).map_err(DebianError::Scratch)?;
        let (options, said) = (scratch.path().join(CONFIG), scratch.path().join("said"));
        let tar = tempfile::tempfile_in(folder).map_err(DebianError::Scratch)?;
        let stdout = tar.try_clone().map_err(DebianError::Scratch)?;
        fs::write(&options, acquire(self.programs)?).map_err(DebianError::Scratch)?;
        let include: Vec<String> = packages.iter().map(ToString::to_string).collect();
        let mut command = self.programs.start(MMDEBSTRAP);
        command.env("SOURCE_DATE_EPOCH", TIME.to_string());
        command.args(["--mode=unshare", "--variant=essential", "--format=tar", "--skip=check/signed-by"]);
        command.arg(format!("--architectures={}", self.processors));
        command.arg(format!("--include={}", include.join(",")));
        command.arg("--aptopt=APT::Install-Recommends \"false\"").arg("--aptopt=Acquire::Languages \"none\"");
        command.arg(format!("--aptopt={}", options.display()));
        command.args([self.suite, "-"]).arg(self.folder.join(SOURCES));
        command.stdin(Stdio::null()).stdout(stdout);
        command.stderr(File::create(&said).map_err(DebianError::Scratch)?);
        let tell = || {
            watch(&step(&fs::read(&said).unwrap_or_default()));
        };
        // One that is sent that takes away what it has made.
        let ended = program::run(&mut command, Signal::TERM, INSTALL_MAX, given_up, tell);
        match ended.map_err(|_| DebianError::Missing { what: MMDEBSTRAP.to_owned() })? {
            Ended::Itself(status) if status.success() => Ok(tar),
            Ended::Itself(_) => {
                Err(DebianError::Install { said: last_words(&fs::read(&said).unwrap_or_default()) })
            }
            Ended::TooLate | Ended::GivenUp => Err(DebianError::Wait(gone::given_up())),
        }
    }
}

/// Says what is missing of all that an installation needs, before it begins; `has` tells whether there is a program, and
/// `user` is the name of who installs.
pub fn check(has: impl Fn(&str) -> bool, user: &str) -> Result<(), DebianError> {
    let by_root = geteuid().is_root();
    let needed: &[(&str, &str)] = match by_root {
        true => &[(MMDEBSTRAP, MMDEBSTRAP)],
        false => &[(MMDEBSTRAP, MMDEBSTRAP), ("newuidmap", "uidmap")],
    };
    let missing: Vec<&str> =
        needed.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        return Err(DebianError::Missing { what: missing.join(" ") });
    }
    let listed = |file: &str| has_ids(&fs::read_to_string(file).unwrap_or_default(), user);
    match by_root || listed("/etc/subuid") && listed("/etc/subgid") {
        true => Ok(()),
        false => Err(DebianError::NoIds { user: user.to_owned() }),
    }
}

/// Whether a file of ids that users may give away has some for this one.
fn has_ids(file: &str, user: &str) -> bool {
    file.lines().any(|line| line.split(':').next() == Some(user))
}

/// A list, as apt tells of it.
struct List<'a> {
    uri: &'a str,
    release: &'a str,
    codename: &'a str,
    component: &'a str,
    origin: &'a str,
}

impl<'a> List<'a> {
    fn read(paragraph: &'a str) -> Option<Self> {
        let field = |name: &str| {
            let lines = paragraph.lines();
            lines.filter_map(|line| line.split_once(": ")).find(|(is, _)| *is == name).map(|(_, value)| value)
        };
        Some(Self {
            uri: field("Repo-URI")?,
            release: field("Release")?,
            codename: field("Codename").unwrap_or_default(),
            component: field("Component")?,
            origin: field("Origin").unwrap_or_default(),
        })
    }

    fn is_of(&self, suite: &str) -> bool {
        let after = self.codename.strip_prefix(suite);
        self.keys().is_some() && after.is_some_and(|after| AFTER_SUITE.contains(&after))
    }

    /// The keys of whose it is.
    fn keys(&self) -> Option<&'static str> {
        ORIGINS.iter().find(|(origin, _)| *origin == self.origin).map(|(_, keys)| *keys)
    }

    /// As a file of sources has it. Where the keys are not in their usual place, they are those that apt trusts.
    fn source(&self) -> String {
        let Self { uri, release, component, .. } = self;
        let keys = self.keys().filter(|keys| Path::new(keys).exists());
        let keys = keys.map(|keys| format!("Signed-By: {keys}\n")).unwrap_or_default();
        format!("Types: deb\nURIs: {uri}\nSuites: {release}\nComponents: {component}\n{keys}")
    }
}

/// The packages of a simulated installation, by name.
fn installs(said: &str) -> Result<Vec<Package>, DebianError> {
    let package = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let version = rest.split_once('(')?.1.split(' ').next()?;
        (is_package(name) && !version.is_empty())
            .then(|| Package { name: name.to_owned(), version: version.to_owned() })
    };
    let lines = said.lines().filter_map(|line| line.strip_prefix("Inst "));
    let read = |line: &str| package(line).ok_or_else(|| DebianError::Unknown { line: line.to_owned() });
    let mut packages = lines.map(read).collect::<Result<Vec<_>, _>>()?;
    packages.sort();
    match packages.is_empty() {
        true => Err(DebianError::Unknown { line: "nothing".to_owned() }),
        false => Ok(packages),
    }
}

/// This machine's settings of apt that lead to its mirror, as a file of settings has them.
fn acquire(programs: Programs<'_>) -> Result<String, DebianError> {
    let mut config = programs.start("apt-config");
    config.arg("dump");
    let dump = output(config, "apt-config")?;
    let kept = dump.lines().filter(|line| ACQUIRE.iter().any(|prefix| line.starts_with(prefix)));
    let netrc = NETRC.iter().filter(|(_, file)| Path::new(file).exists());
    let netrc = netrc.map(|(option, file)| format!("{option} \"{file}\";"));
    Ok(kept.map(str::to_owned).chain(netrc).map(|line| line + "\n").collect())
}

/// What a program says on its standard output.
fn output(mut command: Command, name: &'static str) -> Result<String, DebianError> {
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    let output = command.output().map_err(|_| DebianError::NoApt { program: name })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(DebianError::Apt { said: last_words(&output.stderr) }),
    }
}

/// What it is about.
fn step(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("I: "));
    last.unwrap_or("starting").trim_end_matches("...").to_owned()
}

/// The end of what a program said, in one line, but for how it goes on.
fn last_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with("I: ");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(is_said).collect();
    let cut = |line: &&str| line.chars().take(SAID_CHARS_MAX).collect::<String>();
    let last: Vec<String> = lines[lines.len().saturating_sub(SAID_LINES_MAX)..].iter().map(cut).collect();
    match last.is_empty() {
        true => "it said nothing".to_owned(),
        false => last.join("; "),
    }
}

/// Why there is no tree. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// It is another system.
    #[error(
        "{program} cannot be run: an image is built on Debian, or with Docker from deploy/fly/Dockerfile"
    )]
    NoApt {
        /// What is not there.
        program: &'static str,
    },
    /// Programs are missing.
    #[error("an image is built by programs that are not here: as root, apt-get install {what}")]
    Missing {
        /// The packages that have them.
        what: String,
    },
    /// Namespaces with more than one user cannot be made.
    #[error(
        "{user} has no user ids to give to a root tree's users (/etc/subuid, /etc/subgid): as root, \
         usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    )]
    NoIds {
        /// The user.
        user: String,
    },
    /// The suite is not the machine's, or nothing was ever updated.
    #[error(
        "this machine's apt knows no mirror of Debian's suite `{suite}`{}: as root, add it to /etc/apt/sources.list and run \
         apt-get update; or name another suite with --suite",
        match others.is_empty() { true => String::new(), false => format!(", but of {}", others.join(", ")) }
    )]
    NoLists {
        /// The one that was wanted.
        suite: String,
        /// Those that are there.
        others: Vec<String>,
    },
    /// It does not answer, or not as Debian would.
    #[error("apt cannot take its lists from this machine's mirror: {said}")]
    Mirror {
        /// The end of what it said.
        said: String,
    },
    /// A package is not there, or not beside the others.
    #[error("apt cannot install these packages: {said}")]
    Apt {
        /// The end of what it said.
        said: String,
    },
    /// apt speaks another language.
    #[error("apt says what mayfly does not know: `{line}`")]
    Unknown {
        /// A line of it.
        line: String,
    },
    /// mmdebstrap failed.
    #[error(
        "mmdebstrap could not make the root tree: {said}\n  \
         where a version is not found, the mirror got another meanwhile: try again\n  \
         where namespaces are refused, `mayfly doctor` says how to allow them"
    )]
    Install {
        /// The end of what it said.
        said: String,
    },
    /// Nobody knows how it ended.
    #[error("mmdebstrap was not waited for until its end")]
    Wait(#[source] io::Error),
    /// There is no room, or no right.
    #[error("cannot make a temporary file (is TMPDIR right, and has it room?)")]
    Scratch(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_what_the_system_says() {
        let suite = |text| suite_of(text);
        assert_eq!(suite("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(suite("VERSION_CODENAME=\"noble\"").as_deref(), Some("noble"));
        assert_eq!(suite("ID=arch\n"), None);
        assert_eq!(suite("VERSION_CODENAME=a b;c\n"), None);
    }

    #[test]
    fn a_name_of_a_package_has_no_other_meaning_for_apt() {
        for good in ["git", "g++", "libstdc++6", "python3.11", "7zip", "ca-certificates"] {
            assert!(is_package(good), "{good}");
        }
        for bad in ["", "g", "git-", "?essential", "git=1", "git/sid", "-y", "Git", "a b", "./x", "a*", "++"]
        {
            assert!(!is_package(bad), "{bad}");
        }
    }

    const TOLD: &str = "\
MetaKey: main/binary-amd64/Packages
Codename: bookworm
Origin: Debian
Component: main
Release: stable
Repo-URI: http://mirror.example/debian/

Codename: bookworm-security
Origin: Debian
Component: main
Release: bookworm-security
Repo-URI: http://mirror.example/security/

Codename: bookworm-backports
Origin: Debian Backports
Component: main
Release: bookworm-backports
Repo-URI: http://mirror.example/debian/

Codename: bookworm
Origin: Some Vendor
Component: main
Release: bookworm
Repo-URI: http://vendor.example/
";

    /// A package of the same name from elsewhere is not what is meant.
    #[test]
    fn only_the_suite_of_debian_itself_is_taken_by_the_machines_own_mirror() {
        let lists = TOLD.split("\n\n").filter_map(List::read).filter(|list| list.is_of("bookworm"));
        let sources: Vec<String> = lists.map(|list| list.source()).collect();
        assert_eq!(sources.len(), 2, "{sources:?}");
        let first = "Types: deb\nURIs: http://mirror.example/debian/\nSuites: stable\nComponents: main\n";
        assert!(sources[0].starts_with(first), "{sources:?}");
        assert!(sources[1].contains("\nSuites: bookworm-security\n"), "{sources:?}");
    }

    #[test]
    fn what_would_be_installed_is_read_by_name_and_version() {
        let said = "NOTE: simulation\nInst git (1:2.39.5-0+deb12u3 Debian:12/stable [amd64])\n\
                    Inst adduser (3.134 Debian:12/stable [all]) []\nConf git (1:2.39.5-0+deb12u3 x [amd64])\n";
        let packages: Vec<String> = installs(said).expect("read").iter().map(ToString::to_string).collect();
        assert_eq!(packages, ["adduser=3.134", "git=1:2.39.5-0+deb12u3"]);
        installs("Inst strange").expect_err("no version");
        installs("0 upgraded").expect_err("nothing");
    }

    #[test]
    fn who_has_ids_to_give_away_is_in_the_list_by_name() {
        assert!(has_ids("root:1:2\nme:100000:65536\n", "me"));
        assert!(!has_ids("me2:100000:65536\n", "me"));
    }

    #[test]
    fn it_is_said_what_it_is_about_and_how_it_ended() {
        assert_eq!(step(b""), "starting");
        assert_eq!(step(b"I: running apt-get update...\nGet:1 x\n"), "running apt-get update");
        assert_eq!(last_words(b"1\n2\n\n 3\nI: on\n4\n5\n6\n7\n"), "2; 3; 4; 5; 6; 7");
        assert_eq!(last_words(b"\n"), "it said nothing");
    }
}
