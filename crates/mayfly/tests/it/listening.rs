//! `mayfly serve` where others can come: what is refused before anything starts.

use super::User;

/// S64: the flags and the file alike.
#[test]
fn an_address_that_others_can_reach_needs_tls_or_the_word() {
    let user = User::new();
    let text = "[serve]\nlisten = \"0.0.0.0:6293\"\n";
    std::fs::write(user.cwd().join("mayfly.toml"), text).unwrap();
    let all = [
        &["serve", "--listen", "0.0.0.0:6293"][..],
        &["serve", "--config", "mayfly.toml"],
        &["serve", "--tls-cert", "cert.pem"],
        &["serve", "--tls-key", "key.pem"],
        &["serve", "--tls", "self-signed", "--tls-cert", "cert.pem", "--tls-key", "key.pem"],
        &["serve", "--tls", "yes"],
        &["serve", "--listen", "everywhere"],
        &["serve", "--host-names", "http://box"],
    ];
    let said = all.map(|args| format!("$ mayfly {}\n{}", args.join(" "), user.said(user.mayfly(args))));
    insta::assert_snapshot!(said.concat());
    assert!(user.untouched());
}
