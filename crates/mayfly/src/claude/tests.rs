//! Finding and fetching, with small files, a digest of their own, and an npm that is a shell script.

use std::fs::Permissions;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha512};
use tempfile::TempDir;

use super::*;

const BINARY: &[u8] = b"\x7fELF, as far as anybody here can tell";

/// A user with a home, and folders for programs.
struct Place {
    dir: TempDir,
    pin: Pin,
}

impl Place {
    /// Nothing is installed, and the pinned binary is [`BINARY`].
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("bin")).expect("made");
        let sha256 = digest::copy::<Sha256>(&mut &BINARY[..], &mut io::sink(), u64::MAX).expect("read");
        let pin = Pin { package: "@scope/cli", integrity: "sha512-none", sha256: leak(sha256) };
        Self { dir, pin }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn program(&self, below: &str, content: &[u8]) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("changed");
        path
    }

    /// Installs an npm that hands over a package with `binary` in it, and counts its runs.
    fn npm(&mut self, binary: &[u8]) {
        self.program("package/claude", binary);
        let package = self.path("package.tgz");
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(self.dir.path()).arg("-czf").arg(&package).arg("package/claude");
        assert!(tar.status().expect("tar runs").success());
        let found = Sha512::digest(fs::read(&package).expect("read"));
        self.pin.integrity = leak(format!("sha512-{}", STANDARD.encode(found)));
        let script = format!(
            "#!/bin/sh\nset -eu\nprintf '%s\\n' \"$*\" >>{dir}/npm-runs\nprintf 'token=%s' \"${{ANTHROPIC_API_KEY-}}\" >{dir}/npm-token\n\
             [ \"$1 $2 $3\" = 'pack @scope/cli@{VERSION} --ignore-scripts' ]\n\
             while [ \"$1\" != --pack-destination ]; do shift; done\ncp {dir}/package.tgz \"$2/cli.tgz\"\n",
            dir = self.dir.path().display(),
        );
        self.program("bin/npm", script.as_bytes());
    }

    fn environment(&self) -> Environment {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let home = self.dir.path().to_str().expect("UTF-8");
        Environment::from([("PATH", path.as_str()), ("HOME", home), ("ANTHROPIC_API_KEY", "canary")])
    }

    fn find(&self, given: Option<&Path>) -> Result<Claude, ClaudeError> {
        find_pinned(given, &self.environment(), Some(&self.pin), &Flag::default())
    }

    fn cached(&self) -> PathBuf {
        self.path(".cache/mayfly/claude").join(VERSION).join("claude")
    }

    fn npm_runs(&self) -> usize {
        fs::read_to_string(self.path("npm-runs")).map_or(0, |runs| runs.lines().count())
    }
}

/// A pin is `'static` everywhere but here.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

#[test]
fn a_given_binary_is_the_users_word_whatever_its_version() {
    let place = Place::new();
    let pinned = place.program("a/claude", BINARY);
    let other = place.program("b/claude", b"\x7fELF of another version");
    assert_eq!(place.find(Some(&pinned)).expect("found").version, Some(VERSION));
    let found = place.find(Some(&other)).expect("found");
    assert_eq!(found, Claude { path: fs::canonicalize(&other).expect("there"), version: None });
}

#[test]
fn a_given_path_that_cannot_run_in_a_machine_is_named() {
    let place = Place::new();
    let script = place.program("claude.js", b"#!/usr/bin/env node\n");
    let short = place.program("short", b"x");
    let plain = place.program("plain", BINARY);
    fs::set_permissions(&plain, Permissions::from_mode(0o644)).expect("changed");
    assert!(matches!(place.find(Some(&script)), Err(ClaudeError::NotNative { .. })));
    assert!(matches!(place.find(Some(&short)), Err(ClaudeError::NotNative { .. })));
    assert!(matches!(place.find(Some(&plain)), Err(ClaudeError::NotExecutable { .. })));
    assert!(matches!(place.find(Some(&place.path("none"))), Err(ClaudeError::NotThere { .. })));
    assert!(matches!(place.find(Some(&place.path("bin"))), Err(ClaudeError::Folder { .. })));
    assert!(matches!(place.find(Some(Path::new("/dev/null"))), Err(ClaudeError::NotNative { .. })));
}

#[tokio::test]
async fn a_binary_of_unknown_digest_must_answer_as_the_cli_does() {
    let place = Place::new();
    // cargo sets variables for tests: none of them may come through.
    let good = "env | grep -q ^CARGO && exit; echo '2.1.400 (Claude Code)'";
    version::check(&place.program("good", format!("#!/bin/sh\n{good}\n").as_bytes()))
        .await
        .expect("it is one");
    for (script, said) in [
        ("", "printed nothing"),
        ("echo 'true (GNU coreutils) 9.1'", "printed `true (GNU coreutils) 9.1`"),
        ("echo '2.1 (Claude Code)'", "printed `2.1 (Claude Code)`"),
        ("yes '2.1.400 (Claude Code) or so'", "printed `2.1.400 (Claude Code) or so`"),
    ] {
        let other = place.program("other", format!("#!/bin/sh\n{script}\n").as_bytes());
        let error = version::check(&other).await.expect_err(said).to_string();
        assert!(error.contains(said) && error.contains("--claude"), "{error}");
    }
}

/// The clock is moved to the end of the time by itself.
#[tokio::test(start_paused = true)]
async fn a_binary_that_does_not_answer_is_given_up() {
    let place = Place::new();
    let silent = place.program("silent", b"#!/bin/sh\nexec tail -f /dev/null\n");
    let error = version::check(&silent).await.expect_err("no answer").to_string();
    assert!(error.contains("printed nothing in 20s"), "{error}");
}

#[test]
fn claude_on_the_path_counts_if_it_is_the_pinned_one_links_resolved() {
    let mut place = Place::new();
    place.npm(BINARY);
    let real = place.program("lib/claude-native", BINARY);
    std::os::unix::fs::symlink(&real, place.path("bin/claude")).expect("made");
    assert_eq!(place.find(None).expect("found").path, fs::canonicalize(&real).expect("there"));
    assert_eq!(place.npm_runs(), 0);
}

/// S61: another version on the path, or a script, is left alone and the pinned one is fetched, once.
#[test]
fn the_pinned_one_is_fetched_once_when_it_is_nowhere() {
    let mut place = Place::new();
    place.npm(BINARY);
    place.program("bin/claude", b"#!/usr/bin/env node\n");
    for _ in 0..2 {
        let found = place.find(None).expect("fetched");
        assert_eq!(found, Claude { path: place.cached(), version: Some(VERSION) });
    }
    assert_eq!(place.npm_runs(), 1);
    assert_eq!(fs::read(place.cached()).expect("read"), BINARY);
    let mode = fs::metadata(place.cached()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    let token = fs::read_to_string(place.path("npm-token")).expect("read");
    assert_eq!(token, "token=", "npm is not shown the owner's credential");
}

#[test]
fn a_cached_binary_that_changed_is_fetched_again_and_leftovers_are_removed() {
    let mut place = Place::new();
    place.npm(BINARY);
    place.find(None).expect("fetched");
    fs::write(place.cached(), b"\x7fELF, tampered with").expect("written");
    let left = place.path(".cache/mayfly/claude/fetch-left");
    fs::create_dir(&left).expect("made");
    place.find(None).expect("fetched again");
    assert_eq!(place.npm_runs(), 2);
    assert_eq!(fs::read(place.cached()).expect("read"), BINARY);
    assert!(!left.exists());
}

#[test]
fn a_package_or_a_binary_that_is_not_the_published_one_is_refused() {
    let mut place = Place::new();
    place.npm(BINARY);
    place.pin.integrity = "sha512-another";
    assert!(matches!(place.find(None), Err(ClaudeError::Forged { what: "its integrity", .. })));
    place.npm(b"\x7fELF, somebody else's");
    assert!(matches!(place.find(None), Err(ClaudeError::Forged { what: "the binary", .. })));
    assert!(!place.cached().exists(), "nothing of it stays");
}

#[test]
fn an_npm_that_fails_is_quoted_and_a_missing_one_has_three_ways_out() {
    let place = Place::new();
    place.program("bin/npm", b"#!/bin/sh\necho 'npm error code E404' >&2\nexit 1\n");
    let error = place.find(None).expect_err("no package").to_string();
    assert!(error.contains("npm error code E404") && error.contains("@scope/cli"), "{error}");

    let home = place.dir.path().to_str().expect("UTF-8");
    let nowhere = Environment::from([("PATH", "/nonexistent"), ("HOME", home)]);
    let error = find_pinned(None, &nowhere, Some(&place.pin), &Flag::default()).expect_err("no npm");
    assert!(matches!(error, ClaudeError::NoNpm { .. }), "{error}");
    for way in ["install npm", "PATH", "--claude"] {
        assert!(error.to_string().contains(way), "{error}");
    }
    assert!(std::error::Error::source(&error).is_none(), "the three ways out come last");
}

#[test]
fn a_fetch_that_is_given_up_ends_npm_and_leaves_nothing() {
    let place = Place::new();
    let begun = place.path("begun");
    assert!(std::process::Command::new("mkfifo").arg(&begun).status().expect("it runs").success());
    let script = format!("#!/bin/sh\necho >{}\nexec tail -f /dev/null\n", begun.display());
    place.program("bin/npm", script.as_bytes());
    let given_up = GivenUp::default();
    let flag = given_up.flag();
    std::thread::scope(|scope| {
        let find = scope.spawn(|| find_pinned(None, &place.environment(), Some(&place.pin), &flag));
        fs::read(&begun).expect("npm has begun");
        drop(given_up);
        assert!(matches!(find.join().expect("no panic"), Err(ClaudeError::GivenUp)));
    });
    let left = fs::read_dir(place.path(".cache/mayfly/claude")).expect("listed");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("fetch-")), "{left:?}");
}

#[test]
fn fetches_at_the_same_time_are_one() {
    let mut place = Place::new();
    place.npm(BINARY);
    std::thread::scope(|scope| {
        let finds: Vec<_> = (0..4).map(|_| scope.spawn(|| place.find(None))).collect();
        for find in finds {
            find.join().expect("no panic").expect("found");
        }
    });
    assert_eq!(place.npm_runs(), 1);
}

#[test]
fn where_nothing_is_pinned_only_a_given_binary_will_do() {
    let place = Place::new();
    let given = place.program("a/claude", BINARY);
    let find = |given| find_pinned(given, &place.environment(), None, &Flag::default());
    assert_eq!(find(Some(given.as_path())).expect("found").version, None);
    assert!(matches!(find(None), Err(ClaudeError::NoPin)));
}
