//! What is said before any task, where machines are to be virtual ones.

use std::fs;

use super::doctor::checks;
use super::{User, program};

/// The program, with a configuration that has `more`.
fn with(user: &User, more: &str, args: &[&str]) -> assert_cmd::Command {
    fs::create_dir_all(user.home().join(".config/mayfly")).unwrap();
    fs::write(user.home().join(".config/mayfly/mayfly.toml"), more).unwrap();
    user.with_token(args)
}

#[test]
fn virtual_machines_without_a_system_are_refused_with_what_to_write() {
    let said = |args: &[&str], more: &str| {
        let user = User::new();
        let said = user.said(with(&user, more, args));
        assert!(user.untouched(), "{said}");
        said
    };
    let all = [
        said(&["serve", "--provider", "microvm"], ""),
        said(&["demo", "--provider", "microvm"], ""),
        said(&["demo", "--provider", "fly"], ""),
        said(&["serve"], "[microvm]\nsystem = \"here\"\n"),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn the_doctor_names_what_a_virtual_machine_needs_and_this_host_lacks() {
    let user = User::new();
    let (programs, system) = (user.home().join("programs"), user.home().join("system"));
    let text = format!("[serve]\nprovider = \"microvm\"\n[microvm]\nsystem = {system:?}\n");
    let said = || {
        let mut doctor = with(&user, &text, &["doctor", "--json"]);
        doctor.env("PATH", format!("{}:/bin", programs.display()));
        let (code, checks) = checks(&doctor.output().unwrap());
        let (_, check) = checks.iter().find(|(name, _)| name == "microvm").unwrap();
        assert!(user.untouched(), "a folder is left");
        let detail = check["detail"].as_str().unwrap().replace(&user.home().display().to_string(), "[home]");
        format!("exit {code}: {}: {detail}", check["state"].as_str().unwrap())
    };
    fs::create_dir(&programs).unwrap();
    for name in ["qemu-system-x86_64", "mkfs.ext4"] {
        fs::write(programs.join(name), "").unwrap();
    }
    let without_vsock = said();
    fs::write(programs.join("vhost-device-vsock"), "").unwrap();
    let without_system = said();
    fs::create_dir_all(system.join("vmlinuz")).unwrap();
    fs::write(system.join("system.json"), "{}").unwrap();
    let without_kernel = said();
    fs::remove_dir(system.join("vmlinuz")).unwrap();
    for name in ["vmlinuz", "vmlinux", "initramfs", "image.erofs"] {
        fs::write(system.join(name), name).unwrap();
    }
    insta::assert_snapshot!([without_vsock, without_system, without_kernel, said()].join("\n"));
}

#[test]
fn an_image_for_what_has_no_virtual_machines_and_a_kernel_that_is_none_are_refused() {
    let user = User::new();
    fs::write(user.cwd().join("kernel"), "no kernel").unwrap();
    let mayfly = user.home().join("mayfly");
    program::stand_in(&mayfly, "mayfly 0.0.1\n");
    let said = |args: &[&str]| {
        let mayfly = mayfly.to_str().unwrap();
        user.said(user.mayfly(&[&["image", "build", "--mayfly", mayfly], args].concat()))
    };
    let all = [
        said(&["--for", "fly"]),
        said(&["--kernel", "kernel"]),
        said(&["--for", "microvm", "--kernel", "nowhere"]),
        said(&["--for", "microvm", "--kernel", "kernel"]),
    ];
    assert!(!user.home().join(".cache").exists(), "nothing was made");
    insta::assert_snapshot!(all.join("\n"));
}
