//! Files that stand beside a resource's text and are named in it: by [`OWN_FOLDER`], or by `./` before one of them.

use crate::tree::File;

/// What stands for the folder of a resource's own files, as in the CLI's plugins.
pub const OWN_FOLDER: &str = "${CLAUDE_PLUGIN_ROOT}";

/// A text with the folder of a resource's files where it is meant.
pub(crate) fn own_files(text: &str, folder: &str, files: &[File]) -> String {
    let is_own = |path: &str| files.iter().any(|file| file.path == path);
    let parts = text.split_inclusive(ends_word).map(|part| {
        let word = part.trim_end_matches(ends_word);
        match word.strip_prefix("./") {
            Some(path) if is_own(path) => format!("{folder}/{path}{}", &part[word.len()..]),
            _ => part.to_owned(),
        }
    });
    parts.collect::<String>().replace(OWN_FOLDER, folder)
}

/// Where a path may end in a command, or begin after.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || "\"'`;&|()".contains(c)
}

/// The program of a command of the shell.
pub(crate) fn program_of(command: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || ";&|()".contains(c);
    let first = command.split(is_end).find(|word| !word.is_empty()).unwrap_or_default();
    first.replace(['"', '\''], "")
}

/// What is wrong with a program that is to be one of the resource's own, once [`own_files`] has been there with
/// [`OWN_FOLDER`]: what begins with `./` then would be the repository's.
pub(crate) fn unfit_own(program: &str, files: &[File]) -> Option<String> {
    if let Some(path) = program.strip_prefix("./") {
        let words =
            || format!("the CLI would run the repository's: write {OWN_FOLDER}/{}", path.escape_debug());
        return Some(unfit_program(path, files).unwrap_or_else(words));
    }
    unfit_program(program.strip_prefix(OWN_FOLDER)?.strip_prefix('/')?, files)
}

/// What is wrong with a program that a resource brings with it, if something is.
fn unfit_program(path: &str, files: &[File]) -> Option<String> {
    let shown = path.escape_debug();
    match files.iter().find(|file| file.path == path) {
        None => Some(format!("there is no `{shown}` beside it")),
        Some(file) if !file.executable => Some(format!("`{shown}` is to be run and cannot be: chmod +x it")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_wherever_a_word_of_the_shell_may_stand() {
        let files = [File { path: "bin/run".to_owned(), executable: true, bytes: Vec::new() }];
        for (command, put) in [
            ("./bin/run x", "/f/bin/run x"),
            ("./bin/run\tx", "/f/bin/run\tx"),
            ("\"./bin/run\" x", "\"/f/bin/run\" x"),
            ("sh './bin/run';(./bin/run)", "sh '/f/bin/run';(/f/bin/run)"),
            ("\"${CLAUDE_PLUGIN_ROOT}\"/bin/run", "\"/f\"/bin/run"),
            ("./bin/run2 .././bin/run a./bin/run", "./bin/run2 .././bin/run a./bin/run"),
        ] {
            assert_eq!(own_files(command, "/f", &files), put);
        }
    }
}
