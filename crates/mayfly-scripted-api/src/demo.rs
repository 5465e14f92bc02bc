//! The demo: a small repository, five jobs for agents to do on it, and one for an agent of the user's own.
//!
//! The repository is a bash program that counts words. It has a bug that its own tests show, checks that are
//! missing, an option that is not documented, a repetition, and a few things for a review to find. It needs
//! bash and coreutils, and nothing else. The jobs touch different files, so their branches merge.
//!
//! The prompts read as a person's would and end with the directive that picks the agent's script; what each
//! agent does is in `scripts`, and is really done: the edits match, the tests fail before and pass after.

pub(crate) mod scripts;

/// A file of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its path in the repository.
    pub path: &'static str,
    /// What is in it.
    pub content: &'static str,
    /// Whether it can be run.
    pub executable: bool,
}

/// A job for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// A few words for a list.
    pub title: &'static str,
    /// What the agent is told.
    pub prompt: &'static str,
}

/// How the repository's folder is to be called.
pub const NAME: &str = "tally";

macro_rules! file {
    ($path:literal, executable: $executable:literal) => {
        File { path: $path, content: include_str!(concat!("../demo/", $path)), executable: $executable }
    };
}

/// The repository.
pub const FILES: &[File] = &[
    file!("README.md", executable: false),
    file!("lib/count.sh", executable: false),
    file!("samples/harbour.txt", executable: false),
    file!("tally", executable: true),
    file!("test.sh", executable: true),
    file!("test/chars.sh", executable: false),
    file!("test/words.sh", executable: false),
];

/// The jobs.
pub const JOBS: &[Job] = &[
    Job {
        title: "fix a bug",
        prompt: "./test.sh fails: tally counts too few words. Find out why, fix it, and show that the tests pass. \
                 [script: demo-fix]",
    },
    Job {
        title: "add a test",
        prompt: "Nothing checks `tally --top`. Add checks for it in the style of the others, and run them. \
                 [script: demo-test]",
    },
    Job {
        title: "write docs",
        prompt: "The README does not mention `--top`. Document it with a real example of its output. \
                 [script: demo-docs]",
    },
    Job {
        title: "refactor",
        prompt: "The script `tally` says the same thing twice, once for standard input and once for files. \
                 Say it once, without changing what it prints. [script: demo-refactor]",
    },
    Job {
        title: "review",
        prompt: "Review this repository: look for real mistakes and show how to see each. Do not change anything. \
                 [script: demo-review]",
    },
];

/// The jobs for an agent that the user has chosen, whatever it may use: what it may not is refused by the CLI.
pub const AGENT_JOBS: &[Job] = &[Job {
    title: "look and write",
    prompt: "Look through this repository for real mistakes, and write down what you find in FINDINGS.md. \
             [script: demo-agent]",
}];
