use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;

use super::*;

const CANARY: &str = r#"sk-"ca\n/a+ry?~ü"#;

fn whole(secrets: &[&str], text: &str) -> String {
    let redacted = Redactor::new(secrets.iter().copied()).redact(text.as_bytes());
    redacted.map_or_else(|| text.to_owned(), |redacted| String::from_utf8(redacted.bytes).expect("UTF-8"))
}

/// S30: raw, in JSON, in JSON within JSON, in hex, percent-encoded.
#[test]
fn each_way_to_write_a_secret_is_masked_and_all_else_stays() {
    let json = r#"sk-\"ca\\n/a+ry?~ü"#;
    let percent = "sk-%22ca%5Cn%2Fa%2Bry%3F~%C3%BC";
    let forms = [
        CANARY,
        json,
        r#"sk-\"ca\\n\/a+ry?~ü"#,
        r#"sk-\\\"ca\\\\n/a+ry?~ü"#,
        percent,
        "736b2d2263615c6e2f612b72793f7ec3bc",
        "736B2D2263615C6E2F612B72793F7EC3BC",
        "sk-%22ca%5cn%2fa%2bry%3f~%c3%bc",
    ];
    for form in forms {
        let text = format!("before {form}; after {form}");
        let stars = "*".repeat(form.len());
        assert_eq!(whole(&[CANARY], &text), format!("before {stars}; after {stars}"), "{form}");
    }
    assert_eq!(whole(&[CANARY], "sk-ca\nary"), "sk-ca\nary");
}

/// S30: base64 of anything that holds the secret, wherever it begins in it.
#[test]
fn base64_hides_no_secret_at_any_alignment() {
    let secret = "sk-ant-canary-77aa?~>";
    for before in ["", "a", "ab", "abc"] {
        for after in ["", "z", "zy"] {
            for alphabet in [&STANDARD, &URL_SAFE] {
                let written = alphabet.encode(format!("{before}{secret}{after}"));
                let left = whole(&[secret], &written);
                assert_eq!(left.len(), written.len());
                let shown = left.bytes().filter(|&byte| byte != b'*').count();
                // What is before and after, and a character at each end that has some bits of the secret.
                assert!(shown <= (before.len() + after.len()).div_ceil(3) * 4 + 4, "{written} {left}");
                assert!(left.contains(&"*".repeat(secret.len())), "{written} {left}");
            }
        }
    }
}

/// `text` in base64, a line break after so many characters.
fn broken(text: &str, columns: usize, line_break: &str) -> String {
    let written = STANDARD.encode(text).into_bytes();
    let lines = written.chunks(columns).map(|line| std::str::from_utf8(line).expect("base64"));
    lines.collect::<Vec<_>>().join(line_break)
}

/// S30: nor over lines, as programs and JSON break them.
#[test]
fn base64_that_is_broken_over_lines_hides_no_secret() {
    let secret = "sk-ant-canary-".to_owned() + &"77aa?~>0".repeat(12);
    for line_break in ["\n", "\r\n", "\\n", "\\r\\n", "\\\\n", "\\\\r\\\\n"] {
        for (columns, before) in [(76, 0), (64, 1), (76, 20), (64, 47), (76, 200), (4, 2), (1, 5)] {
            let text = "x".repeat(before) + &secret + "and what follows";
            let written = broken(&text, columns, line_break);
            let (begins, ends) = (format!("\"{line_break}"), format!("{line_break}\""));
            let left = whole(&[&secret], &(begins.clone() + &written + &ends));
            let first =
                begins.len() + broken(&text[..before], columns, line_break).trim_end_matches('=').len();
            let masked = left.matches('*').count();
            let alone = broken(&secret, columns, line_break).len();
            assert!(masked + 2 * line_break.len() + 4 >= alone, "{columns} {line_break:?} {left}");
            let stars = left.find('*').expect("masked")..=left.rfind('*').expect("masked");
            assert_eq!(stars.clone().count(), masked, "its line breaks are masked with it: {left}");
            assert!(stars.start().abs_diff(first) <= line_break.len() + 2, "{first} {left}");
            let kept = |range: std::ops::RangeTo<usize>| left[range] == (begins.clone() + &written)[range];
            assert!(kept(..*stars.start()) && left.ends_with(&ends), "{left}");
        }
    }
    let two = broken(&secret, 64, "\\n\\n");
    assert_eq!(whole(&[&secret], &two), two, "two line breaks end a text");
}

#[test]
fn secrets_that_overlap_are_masked_to_the_end_of_the_last() {
    let secrets = ["abcdefgh", "efghijkl", "jklmnopq"];
    assert_eq!(whole(&secrets, "xabcdefghijklmnopqx"), format!("x{}x", "*".repeat(17)));
    assert_eq!(whole(&secrets, "abcdefg efghijk jklmnop"), "abcdefg efghijk jklmnop");
    let twice = Redactor::new(secrets).redact(b"abcdefghjklmnopq").expect("both");
    assert_eq!((twice.bytes, twice.places), (vec![b'*'; 16], 2));
}

#[test]
fn a_secret_that_could_be_any_word_is_left_alone() {
    assert_eq!(whole(&["canary7"], "canary7"), "canary7");
    assert_eq!(whole(&["canary77"], "canary77"), "********");
    assert!(Redactor::new(["short"]).is_clean(b"short", true));
}

#[test]
fn what_may_become_a_secret_waits_for_what_follows() {
    let redactor = Redactor::new(["canary-77"]);
    assert!(redactor.is_clean(b"a can", false) && !redactor.is_clean(b"a can", true));
    let mut carry = Carry::default();
    assert_eq!(redactor.piece(&mut carry, b"a can", true).bytes, b"a ");
    let mut carry = Carry::from_bytes(&carry.to_bytes()).expect("a carry");
    assert_eq!(redactor.piece(&mut carry.clone(), b"oe", true).bytes, b"canoe");
    assert_eq!(carry.masked(), Redacted { bytes: b"***".to_vec(), places: 1 });
    let Redacted { bytes, places } = redactor.piece(&mut carry, b"ary-77, a c", true);
    assert_eq!((bytes.as_slice(), places), (&b"*********, a "[..], 1));
    assert_eq!(redactor.piece(&mut carry, b"", false).bytes, b"c");
    assert!(carry.is_empty());
}

#[test]
fn a_source_replaces_what_it_knew_and_nothing_of_others() {
    let secrets = Secrets::default();
    let masks = |text: &str| secrets.redactor().redact(text.as_bytes()).is_some();
    secrets.set("pool", ["canary-1".to_owned(), "canary-2".to_owned()]);
    secrets.set("task", ["canary-2".to_owned()]);
    assert!(masks("canary-1") && masks("canary-2"));
    secrets.set("pool", ["canary-3".to_owned()]);
    assert!(!masks("canary-1") && masks("canary-2") && masks("canary-3"));
    secrets.set("task", []);
    assert!(!masks("canary-2"));
    assert!(!format!("{secrets:?}").contains("canary"));
}

/// Two at once each have theirs kept.
#[test]
fn nothing_is_lost_of_what_is_added_at_once() {
    let (secrets, start) = (Secrets::default(), std::sync::Barrier::new(8));
    let name = |at: usize| format!("canary-secret-{at:03}");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (secrets, start, name) = (&secrets, &start, &name);
            scope.spawn(move || {
                start.wait();
                (0..8).for_each(|at| secrets.add("task", &name(thread * 8 + at)));
            });
        }
    });
    let masks = |at| secrets.redactor().redact(name(at).as_bytes()).is_some();
    assert!((0..64).all(masks));
}

/// Cuts a text and checks that nothing of what comes out changes.
fn cut_anywhere(redactor: &Redactor, text: &[u8], cuts: Vec<usize>) -> Result<(), TestCaseError> {
    let expected = redactor.piece(&mut Carry::default(), text, false);
    prop_assert_eq!(expected.bytes.len(), text.len());
    prop_assert_eq!(expected.places == 0, redactor.is_clean(text, false));
    let (mut carry, mut rest, mut got) = (Carry::default(), text, Redacted::default());
    for cut in cuts {
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        let clean = carry.is_empty() && redactor.is_clean(piece, true);
        let part = redactor.piece(&mut carry, piece, true);
        prop_assert!(!clean || (part.bytes == piece && carry.is_empty()));
        got.bytes.extend(part.bytes);
        got.places += part.places;
        rest = after;
    }
    let last = redactor.piece(&mut carry, rest, false);
    got.bytes.extend(last.bytes);
    got.places += last.places;
    prop_assert_eq!(got, expected);
    Ok(())
}

proptest! {
    /// S30: cut across chunks, in the same bytes and as many places.
    #[test]
    fn where_a_text_is_cut_changes_nothing(
        secrets in proptest::collection::vec("[ab/\"]{8,10}", 1..4),
        text in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("/"), Just("\\\""), Just("abbaab/a")], 0..60),
        cuts in proptest::collection::vec(0..12_usize, 0..40),
    ) {
        let redactor = Redactor::new(secrets.iter().map(String::as_str));
        let mut text = text.concat();
        text.insert_str(text.len() / 2, &secrets[0]);
        cut_anywhere(&redactor, text.as_bytes(), cuts)?;
    }

    /// S30: also where base64 is broken over lines, and where it only seems so.
    #[test]
    fn where_broken_base64_is_cut_changes_nothing(
        secrets in proptest::collection::vec("[ab]{8,12}|\\PC{8,12}", 1..3),
        before in 0..5_usize,
        columns in 1..9_usize,
        line_break in prop_oneof![Just("\n"), Just("\r\n"), Just("\\n"), Just("\\r\\n"), Just("\\\\n"), Just("\\\\r\\\\n")],
        changes in proptest::collection::vec((0..200_usize, prop_oneof![
            Just(""), Just("\n"), Just("\\"), Just("n"), Just("\\n"), Just("\r"), Just("\\\\r"), Just("Y"), Just("WFi")
        ]), 0..4),
        cuts in proptest::collection::vec(0..12_usize, 0..60),
    ) {
        let text = "a".repeat(before) + &secrets.concat() + &secrets[0];
        let mut text = broken(&text, columns, line_break).into_bytes();
        for (at, change) in changes {
            let at = at % (text.len() + 1);
            text.splice(at..at, change.bytes());
        }
        cut_anywhere(&Redactor::new(secrets.iter().map(String::as_str)), &text, cuts)?;
    }
}
