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

/// The doctor asks what a start asks.
#[test]
fn a_doctor_tells_of_a_port_that_a_start_would_refuse() {
    let user = User::new();
    let files = [
        ("listen = \"0.0.0.0:6293\"", "--listen-without-tls"),
        ("tls_cert = \"/nowhere.pem\"", "needs its key"),
        ("tls_cert = \"/nowhere.pem\"\ntls_key = \"/nowhere.pem\"", "cannot read /nowhere.pem"),
    ];
    for (keys, word) in files {
        std::fs::write(user.cwd().join("mayfly.toml"), format!("[serve]\n{keys}\n")).unwrap();
        let said = user.said(user.mayfly(&["doctor", "--config", "mayfly.toml"]));
        assert!(said.starts_with("exit 3\n") && said.contains(word), "{said}");
    }
}
