//! What comes out of a printer, byte for byte.

use std::sync::{Arc, Mutex};

use super::*;

/// A place to write to that can be read while it is written to.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("UTF-8")
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A full disk.
#[derive(Debug)]
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn event(source: &str, body: &str) -> String {
    let at = "2026-01-01T00:00:00.000Z";
    format!(r#"{{"task":"t","attempt":1,"seq":1,"at":"{at}","source":"{source}",{body}}}"#)
}

fn printer(form: Form) -> (Printer, Sink, Sink) {
    let (out, asides) = (Sink::default(), Sink::default());
    let mut printer = Printer::with(form, Box::new(out.clone()), Box::new(asides.clone()));
    printer.follow(vec![Row::new("1a2b3c4d", "fix the bug"), Row::new("9f8e7d6c", "add a test now")]);
    (printer, out, asides)
}

const EDIT: &str = r#""line":{"type":"assistant","message":{"id":"m","content":[{"type":"text","text":"Fixing.\u001b[2J"},{"type":"tool_use","name":"Edit","input":{"file_path":"/workspace/d/x.sh"}}]}}"#;

#[test]
fn plain_lines_are_labelled_interleaved_and_escaped() {
    let (mut printer, out, asides) = printer(Form::Plain);
    printer.aside("using CLAUDE_CODE_OAUTH_TOKEN");
    printer.event(0, &event("mayfly", r#""event":{"type":"launching","provider":"sandbox"}"#));
    printer.event(1, &event("claude", EDIT));
    printer.event(0, &event("mayfly", r#""event":{"type":"finished","outcome":{"name":"succeeded"}}"#));
    printer.end();
    printer.closing("1 branch");
    insta::assert_snapshot!(out.text(), @r"
    1a2b3c4d fix the bug     launching
    9f8e7d6c add a test now  Fixing.\u{1b}[2J
    9f8e7d6c add a test now  Edit x.sh
    1a2b3c4d fix the bug     succeeded
    1 branch
    ");
    assert_eq!(asides.text(), "mayfly: using CLAUDE_CODE_OAUTH_TOKEN\n");
}

#[test]
fn json_is_the_events_as_they_came_and_nothing_else() {
    let (mut printer, out, asides) = printer(Form::Json);
    let lines = [event("claude", EDIT), event("mayfly", r#""event":{"type":"sung"},"new":1"#)];
    printer.event(0, &lines[0]);
    printer.aside("a word");
    printer.event(1, &lines[1]);
    printer.end();
    printer.closing("1 branch");
    assert_eq!(out.text(), format!("{}\n{}\n", lines[0], lines[1]));
    assert_eq!(asides.text(), "mayfly: a word\n1 branch\n");
}

#[test]
fn colours_are_ours_alone() {
    let (mut printer, out, _) = printer(Form::Plain);
    printer.colors = true;
    printer.event(1, &event("claude", EDIT));
    let text = out.text();
    assert!(text.contains("\u{1b}[32m9f8e7d6c"), "{text:?}");
    let ours = text.replace("\u{1b}[32m", "").replace("\u{1b}[2m", "").replace("\u{1b}[0m", "");
    assert!(!ours.contains('\u{1b}'), "{text:?}");
}

/// S45: what an agent wrote into a file colours nothing by itself.
#[test]
fn a_diff_has_our_colours_and_no_others() {
    let (mut printer, out, _) = printer(Form::Plain);
    printer.colors = true;
    for line in ["diff --git a/x b/x", "@@ -1 +1 @@", "-\told", "+\tnew\u{1b}[31m\r", " same"] {
        printer.code(line);
    }
    insta::assert_snapshot!(out.text().replace('\u{1b}', "ESC"), @r"
    ESC[1mdiff --git a/x b/xESC[0m
    ESC[36m@@ -1 +1 @@ESC[0m
    ESC[31m-	oldESC[0m
    ESC[32m+	new\u{1b}[31m\u{d}ESC[0m
     same
    ");
}

#[test]
fn a_full_disk_does_not_end_the_run_and_is_told_at_the_end() {
    let mut printer = Printer::with(Form::Json, Box::new(Full), Box::new(Sink::default()));
    printer.follow(vec![Row::new("1a2b3c4d", "fix the bug")]);
    printer.event(0, &event("claude", EDIT));
    assert_eq!(printer.row(0).turns, 1, "what is known goes on");
    assert!(!printer.unread());
    let stop = printer.exit(Exit::Failed).expect_err("an error");
    assert_eq!(stop.exit, Exit::Trouble);
    assert!(stop.lines()[0].as_str().contains("cannot write to standard output"), "{stop:?}");
}
