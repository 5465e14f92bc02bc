//! The help of every verb, word for word: this list is whole.

use super::User;

fn help(args: &[&str]) -> String {
    let user = User::new();
    user.said(user.mayfly(args))
}

#[test]
fn the_help_of_mayfly() {
    insta::assert_snapshot!(help(&["--help"]));
}

#[test]
fn the_help_of_demo() {
    insta::assert_snapshot!(help(&["demo", "--help"]));
}

#[test]
fn the_help_of_run() {
    insta::assert_snapshot!(help(&["run", "--help"]));
}

#[test]
fn the_help_of_the_verbs_about_tasks() {
    for verb in ["ps", "logs", "cancel", "allow", "retry", "resume", "result"] {
        insta::assert_snapshot!(format!("the_help_of_{verb}"), help(&[verb, "--help"]));
    }
}

#[test]
fn the_help_of_serve() {
    insta::assert_snapshot!(help(&["serve", "--help"]));
}

#[test]
fn the_help_of_tunnel_and_its_verb() {
    insta::assert_snapshot!("the_help_of_tunnel", help(&["tunnel", "--help"]));
    insta::assert_snapshot!("the_help_of_tunnel_status", help(&["tunnel", "status", "--help"]));
}

#[test]
fn the_help_of_token_and_its_verbs() {
    insta::assert_snapshot!("the_help_of_token", help(&["token", "--help"]));
    for verb in ["add", "ls", "revoke"] {
        insta::assert_snapshot!(format!("the_help_of_token_{verb}"), help(&["token", verb, "--help"]));
    }
}

#[test]
fn the_help_of_credential_and_its_verbs() {
    insta::assert_snapshot!("the_help_of_credential", help(&["credential", "--help"]));
    for verb in ["add", "ls", "test", "remove"] {
        insta::assert_snapshot!(
            format!("the_help_of_credential_{verb}"),
            help(&["credential", verb, "--help"])
        );
    }
}

#[test]
fn the_help_of_library_and_its_verbs() {
    insta::assert_snapshot!("the_help_of_library", help(&["library", "--help"]));
    for verb in ["ls", "show", "check", "lock", "diff", "add", "remove", "init"] {
        insta::assert_snapshot!(format!("the_help_of_library_{verb}"), help(&["library", verb, "--help"]));
    }
}

#[test]
fn the_help_of_image_and_its_verbs() {
    insta::assert_snapshot!("the_help_of_image", help(&["image", "--help"]));
    for verb in ["build", "ls", "inspect", "rm"] {
        insta::assert_snapshot!(format!("the_help_of_image_{verb}"), help(&["image", verb, "--help"]));
    }
}

#[test]
fn the_help_of_fly_and_its_verbs() {
    insta::assert_snapshot!("the_help_of_fly", help(&["fly", "--help"]));
    for verb in ["deploy", "status", "upgrade", "destroy"] {
        insta::assert_snapshot!(format!("the_help_of_fly_{verb}"), help(&["fly", verb, "--help"]));
    }
}

#[test]
fn the_help_of_doctor() {
    insta::assert_snapshot!(help(&["doctor", "--help"]));
}

#[test]
fn without_a_verb_the_help_is_shown_as_an_error() {
    let said = help(&[]);
    assert!(said.starts_with("exit 2\n") && said.contains("Usage: mayfly"), "{said}");
}
