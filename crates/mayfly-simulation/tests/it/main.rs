//! Seeds that are played at every change. `cargo xtask simulate` plays as many others as one likes.

use std::process::Command;

/// The first seed, and how many: half a minute on two processors.
const SEEDS: [&str; 4] = ["--seed", "1", "--seeds", "200"];
/// All that must have come over them.
const FAULTS: [&str; 12] = [
    "all links broken",
    "cut",
    "half-open",
    "machine killed",
    "one byte",
    "orchestrator ended",
    "orchestrator killed",
    "slow",
    "tunnel killed",
    "unclear create",
    "unclear destroy",
    "unclear list",
];

fn play(args: &[&str]) -> (bool, String) {
    let played = Command::new(env!("CARGO_BIN_EXE_mayfly-simulation")).args(args).env_clear().output();
    let played = played.expect("it is built");
    (played.status.success(), String::from_utf8(played.stdout).expect("text"))
}

/// G1, G2, G3, G5, G7, G8: lost, doubled, out of order, run twice, left behind: nothing.
#[test]
fn every_promise_holds_whatever_breaks() {
    let (all_held, said) = play(&SEEDS);
    assert!(all_held, "{said}");
    for fault in FAULTS {
        assert!(said.lines().any(|line| line.ends_with(&format!(" {fault}"))), "{fault} never came: {said}");
    }
}

#[test]
fn a_seed_is_the_same_every_time() {
    let once = play(&["--seed", "3"]);
    assert!(once.1.contains("digest"), "{}", once.1);
    assert_eq!(once, play(&["--seed", "3"]));
}
