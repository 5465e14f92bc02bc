//! `mayfly image`, by stand-ins for both programs and real packages.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use mayfly_test_needs::layout::{self, Member};
use mayfly_test_needs::skip;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{User, program};

/// Where a root tree that was made once is kept for the next time.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/image-cache");

/// Goes into a root, and tries as the agent what an agent needs.
const INSIDE: &str = r#"
mount --make-rprivate /
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
exec chroot --userspec=1000:1000 "$1" /bin/bash -euc '
    export HOME=/home/agent
    cd && git init --quiet repo && rg --version && ps && python3 -c "import ssl, json" && node -e fetch
    test "$(id -un)" = agent && touch /workspace/x && ! touch /etc/x
    mayfly --version'
"#;

/// A user with a static `mayfly` of that version.
fn user_with(version: &str) -> User {
    let user = User::new();
    program::stand_in(&user.home().join("mayfly"), &format!("mayfly {version}\n"));
    user
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let user = User::new();
    for verb in ["inspect", "rm"] {
        let said = user.said(user.mayfly(&["image", verb, "builder"]));
        assert_eq!(
            said,
            "exit 2\nmayfly: there is no image `builder`: `mayfly image ls` lists them, and `mayfly image build --name \
             builder` builds it\n"
        );
    }
    let said = user.said(user.mayfly(&["image", "ls"]));
    assert_eq!(said, "exit 0\nmayfly: there are no images: `mayfly image build` builds one\n");
    assert_eq!(user.said(user.mayfly(&["image", "ls", "--json"])), "exit 0\n");
    assert!(!user.home().join(".cache").exists(), "nothing is made by looking");
}

#[test]
fn names_that_mean_something_else_to_apt_or_to_tools_are_refused() {
    let user = User::new();
    for wrong in [
        &["--package", "git-"][..],
        &["--package", "git=1:2"],
        &["--package", "?essential"],
        &["--suite", "Bookworm/main"],
        &["--name", "../x"],
        &["--name", "A"],
    ] {
        let args = [&["image", "build"], wrong].concat();
        let said = user.said(user.mayfly(&args));
        assert!(said.starts_with("exit 2\n") && said.contains("expected "), "{said}");
    }
}

/// The program under test is one of this system's own libraries.
#[test]
fn a_mayfly_that_is_not_static_or_none_is_refused_before_anything_is_done() {
    let user = User::new();
    let said = user.said(user.mayfly(&["image", "build"]));
    let because = "exit 2\nmayfly: the mayfly of an image has to be static (scripts/build-static makes one; name it with \
                   --mayfly PATH): `";
    assert!(said.starts_with(because) && said.contains("is not static: it needs /lib"), "{said}");
    fs::write(user.cwd().join("script"), "#!/bin/sh\necho mayfly 0.1.0\n").unwrap();
    for (path, words) in [
        ("nowhere", "cannot read `nowhere`: No such file or directory"),
        (".", "cannot read `.`: it is no file"),
        ("script", "`script` is no program for Linux with 64 bits"),
        ("../claude", "`../claude` is not mayfly: with --version that prints a line such as `mayfly "),
    ] {
        let said = user.said(user.mayfly(&["image", "build", "--mayfly", path]));
        assert!(said.starts_with("exit 2\n") && said.contains(words), "{said}");
    }
    assert!(!user.home().join(".cache").exists(), "nothing was made");
}

#[test]
fn an_image_is_built_of_real_packages_and_of_the_same_parts_it_is_the_same() {
    if !["/usr/bin/mmdebstrap", "/usr/bin/apt-get"].iter().all(|program| Path::new(program).exists()) {
        skip("mmdebstrap is not installed");
        return;
    }
    let Some(one) = build(&user_with("0.0.1"), &[]) else { return };
    let again = build(&user_with("0.0.1"), &[]).unwrap();
    assert_eq!(one, again);
    let other = build(&user_with("0.0.2"), &["--for", "microvm"]).unwrap();
    assert_ne!(one["digest"], other["digest"]);
    assert_eq!(one["layers"][0], other["layers"][0], "what changes most is last");
    assert_eq!(one["layers"][1], other["layers"][1]);

    let images = layout::check(Path::new(other["layout"].as_str().unwrap()));
    assert_eq!(images.len(), 1);
    let [root, claude, mayfly] = &images[0].layers[..] else { panic!("three layers") };
    assert_eq!(images[0].digest, other["digest"].as_str().unwrap());
    assert_eq!(images[0].config["config"]["Labels"]["mayfly.version"], "0.0.2");
    let paths = |layer: &[Member]| layer.iter().map(|member| member.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(claude), ["opt", "opt/claude", "opt/claude/claude"]);
    assert_eq!(paths(mayfly), ["opt", "opt/mayfly", "opt/mayfly/mayfly"]);
    assert_root(root);
    let packages: Vec<&str> =
        other["packages"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in ["bash", "ca-certificates", "git", "nodejs", "procps", "python3", "ripgrep"] {
        assert!(packages.iter().any(|package| package.starts_with(&format!("{name}="))), "{name}");
    }
    let path = images[0].config["config"]["Env"][0].as_str().unwrap().strip_prefix("PATH=").unwrap();
    assert_its_programs_run(&other, path);
    let system = assert_system(&other);
    let again = build(&user_with("0.0.2"), &["--for", "microvm"]).unwrap();
    assert_eq!(again["system"], other["system"]);
    assert_eq!(assert_system(&again), system, "the same bytes, and not made again");
}

/// Checks the parts of what virtual machines start from, and says which files they are, by number and content.
fn assert_system(image: &Value) -> Vec<(u64, Vec<u8>)> {
    let folder = Path::new(image["system"].as_str().unwrap());
    let list: Value = serde_json::from_slice(&fs::read(folder.join("system.json")).unwrap()).unwrap();
    assert_eq!(list["image"], image["digest"]);
    let begins: [(&str, usize, &[u8]); 4] = [
        ("vmlinuz", 0x202, b"HdrS"),
        ("vmlinux", 0, b"\x7fELF"),
        ("initramfs", 0, b"\x1f\x8b"),
        ("image.erofs", 1024, &0xe0f5_e1e2_u32.to_le_bytes()),
    ];
    let check = |(name, at, magic): (&str, usize, &[u8])| {
        let path = folder.join(name);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(&bytes[at..at + magic.len()], magic, "{name}");
        let sha256 = Sha256::digest(&bytes).to_vec();
        assert_eq!(list["files"][name], hex::encode(&sha256), "{name}");
        (fs::metadata(path).unwrap().ino(), sha256)
    };
    begins.map(check).into()
}

/// What `mayfly image build --json` says; none where this user cannot make such trees, and the test is skipped.
fn build(user: &User, more: &[&str]) -> Option<Value> {
    let (claude, mayfly) = (user.home().join("claude"), user.home().join("mayfly"));
    let (claude, mayfly) = (claude.to_str().unwrap(), mayfly.to_str().unwrap());
    let args = ["image", "build", "--json", "--claude", claude, "--mayfly", mayfly];
    let mut command = user.mayfly(&[&args, more].concat());
    let output = command.env("XDG_CACHE_HOME", CACHE).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if said.contains("has no user ids to give") || said.contains("apt-get install uidmap") {
        skip("this user has no user ids to give to a root tree's users");
        return None;
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("push it to a registry of your own alone"), "{said}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn assert_root(root: &[Member]) {
    let find = |path: &str| root.iter().find(|member| member.path == path);
    for program in ["bash", "git", "node", "ps", "python3", "rg"] {
        assert!(find(&format!("usr/bin/{program}")).is_some(), "{program}");
    }
    assert!(find("etc/ssl/certs/ca-certificates.crt").is_some());
    assert_eq!(find("etc/machine-id").unwrap().text.as_deref(), Some(""));
    let users = find("etc/passwd").unwrap().text.clone().unwrap();
    assert!(users.ends_with("\nagent:x:1000:1000::/home/agent:/bin/bash\n"), "{users}");
    for path in ["home/agent", "workspace"] {
        assert_eq!(find(path).unwrap().owner, (1000, 1000), "{path}");
    }
    let ours =
        ["etc/hostname", "etc/resolv.conf", "etc/apt/sources.list", "var/lib/apt", "usr/share/man/man1"];
    assert_eq!(root.iter().filter(|member| ours.contains(&&*member.path)).count(), 0);
    let is_below = |folder: &str| root.iter().any(|member| member.path.starts_with(folder));
    for empty in ["var/cache/", "var/log/", "tmp/", "dev/", "proc/", "run/"] {
        assert!(!is_below(empty), "{empty}");
    }
    let builder = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let builder = builder.trim();
    let names_it =
        |member: &&Member| !builder.is_empty() && member.text.as_ref().is_some_and(|text| text == builder);
    assert!(root.iter().find(names_it).is_none());
}

/// Unpacks the layers as a runtime does, and runs what an agent needs, as the agent.
fn assert_its_programs_run(image: &Value, path: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let layout = Path::new(image["layout"].as_str().unwrap());
    for layer in image["layers"].as_array().unwrap() {
        let blob = layout
            .join("blobs/sha256")
            .join(layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap());
        let unpacked = Command::new("tar").arg("-xzf").arg(blob).arg("-C").arg(root.path()).status().unwrap();
        assert!(unpacked.success());
    }
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", INSIDE, "inside"])
        .arg(root.path());
    let output = inside.env_clear().env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("mayfly 0.0.2\n"));
}
