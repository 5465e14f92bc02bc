//! A repository on the disk, and what the CLI's folder holds afterwards.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::claude::command::{self, tests::order};

struct Bed {
    place: tempfile::TempDir,
    /// What the library has.
    library: Compiled,
}

impl Bed {
    fn new() -> Self {
        let bed = Self { place: tempfile::tempdir().expect("a folder"), library: Compiled::default() };
        fs::create_dir(bed.repo()).expect("a folder");
        command::prepare(&bed.home()).expect("a folder");
        bed
    }

    fn repo(&self) -> PathBuf {
        self.place.path().join("repo")
    }

    fn home(&self) -> PathBuf {
        self.place.path().join("home")
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.repo().join(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("a file");
    }

    /// Carries the words over; what was ignored, by file.
    fn carry(&self) -> BTreeMap<String, Vec<String>> {
        let reports =
            prepare(&order(), &self.repo(), &self.home(), &mut self.library.clone()).expect("carried");
        let ignored = |report| match report {
            Report::Ignored { file, parts } => (file, parts),
            other => panic!("{other:?}"),
        };
        reports.into_iter().map(ignored).collect()
    }

    fn carried(&self, path: &str) -> String {
        fs::read_to_string(config_dir(&self.home()).join(path)).expect("a file")
    }

    fn is_carried(&self, path: &str) -> bool {
        config_dir(&self.home()).join(path).exists()
    }
}

fn names(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|&part| part.to_owned()).collect()
}

#[test]
fn words_are_carried_over_at_their_paths() {
    let bed = Bed::new();
    bed.write("CLAUDE.md", "root @docs/a.md @package.json\n");
    bed.write("docs/a.md", "a @../b.txt");
    bed.write("b.txt", "b");
    bed.write("package.json", "{}");
    bed.write(".claude/rules/style.md", "---\npaths: [\"src/**\"]\n---\nrule");
    bed.write("sub[1]/CLAUDE.md", "below");
    bed.write("sub[1]/AGENTS.md", "not read beside the other");
    bed.write("other/AGENTS.md", "there");
    bed.write(
        ".claude/agents/probe.md",
        "---\nname: probe\ndescription: >\n  It\n  probes\ndeniedTools: Bash\n---\nProbe.",
    );
    bed.write(".claude/skills/s/SKILL.md", "---\nname: s\ndescription: d\n---\nSkill.");
    bed.write(".claude/skills/s/more/table.csv", "1,2");
    bed.write(".claude/commands/ns/c.md", "Command $ARGUMENTS");
    assert_eq!(bed.carry(), BTreeMap::new());

    assert_eq!(bed.carried("rules/repository/CLAUDE.md"), "root @docs/a.md @package.json\n");
    assert_eq!(bed.carried("rules/repository/docs/a.md"), "a @../b.txt");
    assert_eq!(bed.carried("rules/repository/b.txt"), "b");
    assert_eq!(bed.carried("rules/repository/package.json"), "{}");
    assert_eq!(
        bed.carried("rules/repository/.claude/rules/style.md"),
        "---\n\"paths\": [\"src/**\"]\n---\nrule"
    );
    assert_eq!(
        bed.carried("rules/repository/sub[1]/CLAUDE.md"),
        "---\n\"paths\": [\"sub?1?/**\"]\n---\nbelow"
    );
    assert!(!bed.is_carried("rules/repository/sub[1]/AGENTS.md"));
    assert_eq!(bed.carried("rules/repository/other/AGENTS.md"), "---\n\"paths\": [\"other/**\"]\n---\nthere");
    assert_eq!(
        bed.carried("agents/probe.md"),
        "---\n\"name\": \"probe\"\n\"description\": \"It probes\"\n\"disallowedTools\": \"Bash\"\n---\nProbe."
    );
    assert_eq!(bed.carried("skills/s/SKILL.md"), "---\n\"name\": \"s\"\n\"description\": \"d\"\n---\nSkill.");
    assert_eq!(bed.carried("skills/s/more/table.csv"), "1,2");
    assert_eq!(bed.carried("commands/ns/c.md"), "Command $ARGUMENTS");
    assert_eq!(bed.carried("settings.json"), r#"{"disableSkillShellExecution":true}"#);
}

/// Covers S01 to S05: what would run, or widen what may be done, is left out and named.
#[test]
fn what_runs_or_widens_is_left_out_and_named() {
    let bed = Bed::new();
    let settings = r#"{"hooks":{},"env":{"A":"b"},"permissions":{"allow":["*"]},"apiKeyHelper":"x"}"#;
    bed.write(".claude/settings.json", settings);
    bed.write(".claude/settings.local.json", "no JSON");
    bed.write(".mcp.json", r#"{"mcpServers":{}}"#);
    bed.write(".claude/hooks/run.sh", "x");
    bed.write(
        ".claude/agents/a.md",
        "---\nname: a\nhooks:\n  Stop:\n    - x\npermissionMode: plan\nmcpServers: [x]\n---\nA",
    );
    bed.write(".claude/agents/wide.md", "---\nname: wide\ntools: {a: b}\n---\nW");
    bed.write(
        ".claude/skills/s/SKILL.md",
        "---\nname: s\nallowed-tools: Bash\nhooks: {Stop: x}\n---\nS @/etc/passwd",
    );
    bed.write(".claude/skills/s/.claude-plugin/plugin.json", "{}");
    bed.write("sub/.claude/settings.json", settings);
    bed.write("CLAUDE.md", "@~/.ssh/id and @../x");
    let ignored = bed.carry();

    let expected = [
        (".claude/agents/a.md", &["hooks", "permissionMode", "mcpServers"][..]),
        (".claude/agents/wide.md", &["tools", "all of it: what bounds its tools cannot be read"]),
        (".claude/hooks", &[]),
        (".claude/settings.json", &["apiKeyHelper", "env", "hooks", "permissions"]),
        (".claude/settings.local.json", &[]),
        (".claude/skills/s/.claude-plugin", &[]),
        (".claude/skills/s/SKILL.md", &["allowed-tools", "hooks", "@/etc/passwd"]),
        (".mcp.json", &["mcpServers"]),
        ("CLAUDE.md", &["@~/.ssh/id", "@../x"]),
        ("sub/.claude", &[]),
    ];
    let expected = expected.map(|(file, parts)| (file.to_owned(), names(parts)));
    assert_eq!(ignored, BTreeMap::from(expected));
    assert_eq!(bed.carried("agents/a.md"), "---\n\"name\": \"a\"\n---\nA");
    assert!(!bed.is_carried("agents/wide.md") && !bed.is_carried("skills/s/.claude-plugin"));
    assert_eq!(bed.carried("rules/repository/CLAUDE.md"), "@ ~/.ssh/id and @ ../x");
}

/// Covers S06: neither the CLI's folder nor anything beside the tree is read or written by way of a link.
#[test]
fn links_lead_nowhere() {
    let bed = Bed::new();
    let out = bed.place.path().join("out");
    fs::create_dir_all(out.join("skills/s")).expect("a folder");
    fs::write(out.join("skills/s/SKILL.md"), "canary").expect("a file");
    symlink("../out", bed.repo().join(".claude")).expect("a link");
    symlink("/proc/self/environ", bed.repo().join("CLAUDE.md")).expect("a link");
    bed.write("AGENTS.md", "words");
    symlink("AGENTS.md", bed.repo().join("CLAUDE.local.md")).expect("a link");
    let ignored = bed.carry();
    for file in [".claude", "CLAUDE.md"] {
        assert_eq!(ignored[file], ["all of it: leads out of the repository"], "{ignored:?}");
    }
    assert!(!bed.is_carried("skills") && !bed.is_carried("rules/repository/CLAUDE.md"));
    assert_eq!(bed.carried("rules/repository/CLAUDE.local.md"), "words");
    assert_eq!(fs::read_dir(&out).expect("a folder").count(), 1);
}

/// Covers S12 and S11: more than the bounds is named, and not carried.
#[test]
fn there_is_an_end_to_what_is_carried() {
    let bed = Bed::new();
    bed.write("CLAUDE.md", &"x".repeat(2 << 20));
    for number in 0..FILES_MAX {
        bed.write(&format!(".claude/rules/{number}.md"), "r");
    }
    symlink(".", bed.repo().join(".claude/rules/round")).expect("a link");
    for number in 0..120 {
        bed.write(&format!(".claude/skills/{number}/SKILL.md"), "---\nhooks: x\n---\nS");
    }
    bed.write(".mcp.json", "{}");
    let reports = prepare(&order(), &bed.repo(), &bed.home(), &mut bed.library.clone()).expect("carried");
    let ignored = |file: &str, why: &str| Report::Ignored { file: file.to_owned(), parts: names(&[why]) };
    for expected in [
        Report::Ignored { file: ".mcp.json".to_owned(), parts: Vec::new() },
        ignored("CLAUDE.md", "all of it: is larger than 1 MiB"),
        ignored(".claude/rules", "what is in more than 2000 files"),
    ] {
        assert!(reports.contains(&expected), "{expected:?}: {reports:?}");
    }
    let last = reports.last();
    assert!(
        matches!(last, Some(Report::Warning { text }) if text.contains("more parts or files")),
        "{last:?}"
    );
    assert!(reports.len() == 101, "{}", reports.len());
}

/// Covers S12 for patterns: a rule whose patterns would take for ever counts for all files.
#[test]
fn a_pattern_that_multiplies_is_left_out() {
    let bed = Bed::new();
    let bomb = "{a,b}".repeat(30);
    bed.write(".claude/rules/bomb.md", &format!("---\npaths: [\"{bomb}\"]\n---\nrule"));
    assert_eq!(bed.carry()[".claude/rules/bomb.md"], ["paths"]);
    assert_eq!(bed.carried("rules/repository/.claude/rules/bomb.md"), "rule");
}

/// A repository that is trusted is read by the CLI itself.
#[test]
fn a_trusted_repository_is_left_as_it_is() {
    let bed = Bed::new();
    bed.write("CLAUDE.md", "words");
    let order = WorkOrder { trust_repo: true, ..order() };
    assert_eq!(prepare(&order, &bed.repo(), &bed.home(), &mut bed.library.clone()).expect("prepared"), []);
    assert!(!bed.is_carried("rules") && bed.carried(".claude.json").contains("hasTrustDialogAccepted"));
}

/// What the library has stands before what a repository calls by the same name; the rest of the repository's stays.
#[test]
fn the_library_stands_before_a_repositorys_agents_and_skills() {
    let mut bed = Bed::new();
    bed.library.expected.agents = names(&["reviewer", "named"]);
    bed.library.expected.skills = [("deploy".to_owned(), true), ("unlisted".to_owned(), false)].into();
    bed.write(".claude/agents/reviewer.md", "No head.");
    bed.write(".claude/agents/other.md", "---\nname: named\ndescription: d\n---\nBy its settings.");
    bed.write(".claude/agents/named.md", "---\nname: mine\ndescription: d\n---\nBy its settings too.");
    bed.write(".claude/skills/deploy/SKILL.md", "---\nname: deploy\n---\nS");
    bed.write(".claude/skills/deploy/run.sh", "true");
    bed.write(".claude/skills/unlisted/SKILL.md", "---\nname: unlisted\n---\nS");
    bed.write(".claude/skills/deploy2/SKILL.md", "---\nname: deploy2\n---\nS");
    let agent = names(&["all of it: the library has an agent of this name"]);
    let skill = names(&["all of it: the library has a skill of this name"]);
    let ignored = [
        (".claude/agents/other.md", &agent),
        (".claude/agents/reviewer.md", &agent),
        (".claude/skills/deploy/SKILL.md", &skill),
        (".claude/skills/deploy/run.sh", &skill),
        (".claude/skills/unlisted/SKILL.md", &skill),
    ];
    assert_eq!(bed.carry(), ignored.map(|(file, why)| (file.to_owned(), why.clone())).into());
    assert!(bed.is_carried("agents/named.md") && bed.is_carried("skills/deploy2/SKILL.md"));
    for gone in ["agents/reviewer.md", "agents/other.md", "skills/deploy", "skills/unlisted"] {
        assert!(!bed.is_carried(gone), "{gone}");
    }
}

/// What bounds an agent may stand in its text, a line each; the CLI is given it where it looks for it.
#[test]
fn plain_lines_bound_a_repositorys_agent() {
    let bed = Bed::new();
    let text = "---\nname: plain\ndescription: d\n---\nallowedTools: [Read, Grep]\ndeniedTools: Bash\nDo it.";
    bed.write(".claude/agents/plain.md", text);
    let bad = [
        "---\nname: bad\n---\nallowedTools: {a: b}\nDo it.",
        "---\nname: bad\n---\ndeniedTools:\n- Bash\nDo it.",
        "---\n  tools: Read\n---\nDo it.",
        "---\ntools: Read\nDo it.",
        " allowedTools: Read\nDo it.",
    ];
    for (at, text) in bad.iter().enumerate() {
        bed.write(&format!(".claude/agents/bad{at}.md"), text);
    }
    let ignored = bed.carry();
    for (at, text) in bad.iter().enumerate() {
        let told = &ignored[&format!(".claude/agents/bad{at}.md")];
        let why = "all of it: what bounds its tools cannot be read";
        assert!(told.iter().any(|said| said == why), "{text}: {told:?}");
        assert!(!bed.is_carried(&format!("agents/bad{at}.md")), "{text}");
    }
    let carried = bed.carried("agents/plain.md");
    for kept in [r#""tools": ["Read","Grep"]"#, r#""disallowedTools": "Bash""#] {
        assert!(carried.contains(kept), "{carried}");
    }
    assert!(carried.trim_end().ends_with("Do it.") && !carried.contains("allowedTools: [Read"), "{carried}");
}

/// An agent of the repository's that the task is run by is held to what it says, and so is the session.
#[test]
fn an_agent_of_the_repository_is_held_to_its_bounds() {
    let bed = Bed::new();
    bed.write(
        ".claude/agents/x.md",
        "---\nname: reader\ntools: Read, Grep\n---\nRead.\ndeniedTools: Bash(rm:*), Write\n",
    );
    bed.write(".claude/agents/y.md", "---\nname: other\ntools: Bash\n---\nDo.");
    let mut library = Compiled::default();
    library.expected.agent = Some("reader".to_owned());
    prepare(&order(), &bed.repo(), &bed.home(), &mut library).expect("carried");
    assert_eq!(library.expected.tools, Some(vec!["Read".to_owned(), "Grep".to_owned()]));
    assert_eq!(library.expected.denied, ["Write"]);
    assert_eq!(library.settings["permissions"]["deny"], serde_json::json!(["Bash(rm:*)", "Write"]));
}
