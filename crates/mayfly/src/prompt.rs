//! The prompts: from the words of the command line or from standard input, and checked before anything starts.

use std::io::{self, Read};

use mayfly_wire::api::PROMPT_BYTES_MAX;

/// The prompts that `words` are, one each; `-` is all of `stdin`.
pub(crate) fn read(words: &[String], mut stdin: impl Read) -> Result<Vec<String>, BadPrompt> {
    if words.len() > 1 && words.iter().all(|word| word != "-" && !word.contains(char::is_whitespace)) {
        return Err(BadPrompt::Unquoted);
    }
    words.iter().map(|word| read_one(word, &mut stdin)).collect()
}

/// The prompt that `word` is; `-` is all of `stdin`.
pub(crate) fn read_one(word: &str, stdin: impl Read) -> Result<String, BadPrompt> {
    match word {
        "-" => check(from(stdin)?),
        word => check(word.to_owned()),
    }
}

fn check(prompt: String) -> Result<String, BadPrompt> {
    match () {
        () if prompt.trim().is_empty() => Err(BadPrompt::Empty),
        () if prompt.len() > PROMPT_BYTES_MAX => Err(BadPrompt::TooLong),
        () if prompt.contains('\0') => Err(BadPrompt::Nul),
        () => Ok(prompt),
    }
}

/// At most one byte more than allowed is read, so that the endless ends too.
fn from(stdin: impl Read) -> Result<String, BadPrompt> {
    let mut bytes = Vec::new();
    stdin.take(PROMPT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(BadPrompt::Unreadable)?;
    if bytes.len() > PROMPT_BYTES_MAX {
        return Err(BadPrompt::TooLong);
    }
    String::from_utf8(bytes).map_err(|_| BadPrompt::NotText)
}

/// Why a prompt cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadPrompt {
    #[error(
        "each argument would be a task of its own: put a prompt of several words in quotes, as in `mayfly run \"fix \
         the failing test\"`"
    )]
    Unquoted,
    #[error("the prompt is empty: say what to do, as in `mayfly run \"fix the failing test\"`")]
    Empty,
    #[error("the prompt is longer than 1 MiB: put the long part into a file of the repository and name it")]
    TooLong,
    #[error("the prompt has a NUL byte in it: remove it (is standard input a binary file?)")]
    Nul,
    #[error("the prompt is not UTF-8 text: convert it first (is standard input a binary file?)")]
    NotText,
    #[error("cannot read the prompt from standard input")]
    Unreadable(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Result<Vec<String>, BadPrompt> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        read(&words, &b"from standard input"[..])
    }

    fn stdin(bytes: &[u8]) -> Result<Vec<String>, BadPrompt> {
        read(&["-".to_owned()], bytes)
    }

    #[test]
    fn each_argument_and_standard_input_are_a_prompt_as_they_are() {
        assert_eq!(words(&["fix it"]).expect("a prompt"), ["fix it"]);
        assert_eq!(words(&["fix"]).expect("a prompt"), ["fix"]);
        assert_eq!(
            words(&["fix it", "-", "test"]).expect("prompts"),
            ["fix it", "from standard input", "test"]
        );
        assert_eq!(stdin(b"-v is\n broken\n").expect("a prompt"), ["-v is\n broken\n"]);
        let longest = "x".repeat(PROMPT_BYTES_MAX);
        assert_eq!(stdin(longest.as_bytes()).expect("a prompt"), [longest]);
    }

    /// S43: nothing of these reaches the orchestrator.
    #[test]
    fn what_is_no_prompt_is_named() {
        let long = "x".repeat(PROMPT_BYTES_MAX + 1);
        assert!(matches!(words(&["fix", "the", "test"]), Err(BadPrompt::Unquoted)));
        assert!(matches!(words(&["fix it", " "]), Err(BadPrompt::Empty)));
        assert!(matches!(words(&["-", "-"]), Err(BadPrompt::Empty)), "there is only one standard input");
        assert!(matches!(words(&[&long]), Err(BadPrompt::TooLong)));
        assert!(matches!(stdin(b""), Err(BadPrompt::Empty)));
        assert!(matches!(stdin(b"\n \n"), Err(BadPrompt::Empty)));
        assert!(matches!(stdin(long.as_bytes()), Err(BadPrompt::TooLong)));
        assert!(matches!(stdin(b"a\0b"), Err(BadPrompt::Nul)));
        assert!(matches!(stdin(b"\xff"), Err(BadPrompt::NotText)));
        assert!(matches!(read(&["-".to_owned()], io::repeat(b'x')), Err(BadPrompt::TooLong)));
    }
}
