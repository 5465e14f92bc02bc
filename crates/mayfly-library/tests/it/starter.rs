//! What the hook of the library to start from says.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use mayfly_library::{Library, starter};

#[test]
fn the_hook_tells_of_a_script_that_does_not_read_and_of_nothing_else() {
    let top = tempfile::tempdir().unwrap();
    let library = Library::at(top.path());
    starter::resources().unwrap().iter().for_each(|resource| library.put(resource).unwrap());
    assert_eq!(library.check(&|_| Vec::new()), []);
    let script = top.path().join("hooks/_global/check-syntax/check.sh");
    for (name, text, code) in [
        ("good.sh", "#!/bin/sh\necho ok\n", 0),
        ("bad.sh", "#!/bin/sh\nif true; then\n", 2),
        ("bash.sh", "#!/usr/bin/env bash\na=(1 2)\ndiff <(echo 1) <(echo 1)\n", 0),
        ("notes.md", "if (", 0),
    ] {
        let file = top.path().join(name);
        fs::write(&file, text).unwrap();
        let told = serde_json::json!({"tool_name": "Edit", "tool_input": {"file_path": file, "new_string": "\"file_path\":\"x\""}});
        let mut hook = Command::new(&script);
        let mut hook = hook.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        hook.stdin.take().unwrap().write_all(told.to_string().as_bytes()).unwrap();
        let output = hook.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert_eq!(said.contains("does not read any more"), code == 2, "{name}: {said}");
    }
}
