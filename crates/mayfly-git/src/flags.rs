//! Which files would run later on the user's machine, or for them elsewhere, without anybody calling them by name: the hooks
//! of git's own tools, pipelines, the tasks of editors, the settings of agents.
//!
//! It is told by their paths, at any depth where one counts there, and without regard to case, since some file systems have
//! none. What a build or a test runs is not among them: that is code like any other, and all of it was the agent's to change.

use crate::hooks::Hooks;

/// What a file with such a path does.
struct Rule {
    /// The last parts of the path, between slashes; one that begins with a slash is the whole path, one that ends with a slash
    /// means everything below.
    paths: &'static [&'static str],
    /// Who runs it, and when.
    words: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        paths: &[
            ".githooks/",
            ".husky/",
            ".pre-commit-config.yaml",
            ".pre-commit-hooks.yaml",
            "lefthook.yml",
            "lefthook.yaml",
            ".lefthook/",
            ".overcommit.yml",
        ],
        words: "a hook of git",
    },
    Rule {
        paths: &["/.gitmodules", ".gitattributes", ".gitconfig", ".lfsconfig"],
        words: "a setting of git",
    },
    Rule {
        paths: &[
            ".github/workflows/",
            ".github/actions/",
            ".gitlab-ci.yml",
            ".gitlab-ci.yaml",
            ".gitlab/ci/",
            ".circleci/",
            ".travis.yml",
            ".drone.yml",
            ".buildkite/",
            ".woodpecker/",
            ".woodpecker.yml",
            ".gitea/workflows/",
            ".forgejo/workflows/",
            "azure-pipelines.yml",
            "bitbucket-pipelines.yml",
            "appveyor.yml",
            "cloudbuild.yaml",
            "jenkinsfile",
        ],
        words: "a pipeline",
    },
    Rule {
        paths: &[
            ".claude/",
            ".mcp.json",
            ".cursor/",
            ".gemini/",
            ".codex/",
            ".aider.conf.yml",
            ".windsurf/",
            ".continue/",
            ".roo/",
            ".kiro/",
            ".amazonq/",
            ".opencode/",
            "opencode.json",
            "opencode.jsonc",
        ],
        words: "a setting of an agent",
    },
    Rule {
        paths: &[
            ".vscode/",
            ".idea/",
            ".zed/",
            ".fleet/",
            ".devcontainer/",
            ".devcontainer.json",
            ".exrc",
            ".vimrc",
            ".nvimrc",
            ".nvim.lua",
            ".lvimrc",
            ".helix/",
            ".dir-locals.el",
            ".dir-locals-2.el",
            ".projectile",
        ],
        words: "a setting of an editor",
    },
    Rule {
        paths: &[
            ".envrc",
            ".direnvrc",
            ".autoenv",
            "mise.toml",
            ".mise.toml",
            ".mise/",
            ".config/mise/",
            ".config/mise.toml",
            ".rprofile",
            ".irbrc",
            ".pryrc",
        ],
        words: "a setting of a shell",
    },
    Rule {
        paths: &[
            ".cargo/config",
            ".cargo/config.toml",
            ".npmrc",
            ".yarnrc",
            ".yarnrc.yml",
            ".pnpmfile.cjs",
            ".bazelrc",
            ".netrc",
            ".bundle/config",
            ".yarn/releases/",
            ".yarn/plugins/",
        ],
        words: "a setting of a tool that runs programs",
    },
];

/// The ends of names that an editor opens as a whole.
const WORKSPACES: [&str; 2] = [".code-workspace", ".sublime-project"];

/// What the file with this path does by itself; none is nothing. `hooks` are those of the user's repository.
pub(crate) fn flag(path: &[u8], hooks: &Hooks) -> Option<&'static str> {
    if hooks.hold(path) {
        return Some("a hook of git");
    }
    let path = path.to_ascii_lowercase();
    let is_meant = |named: &&str| is_at(&path, named.as_bytes()) || is_instead_of(&path, named.as_bytes());
    let rule = RULES.iter().find(|rule| rule.paths.iter().any(is_meant));
    let is_workspace = || WORKSPACES.iter().any(|end| path.ends_with(end.as_bytes()));
    let workspace = || is_workspace().then_some("a setting of an editor");
    rule.map(|rule| rule.words).or_else(workspace)
}

/// Whether the path has these parts one after another: at its end, or anywhere before it for a folder.
fn is_at(path: &[u8], named: &[u8]) -> bool {
    let at_parts = |at: usize| at == 0 || path[at - 1] == b'/';
    if let Some(whole) = named.strip_prefix(b"/") {
        return path == whole;
    }
    match named.ends_with(b"/") {
        true => path.windows(named.len()).enumerate().any(|(at, part)| part == named && at_parts(at)),
        false => path.ends_with(named) && at_parts(path.len() - named.len()),
    }
}

/// Whether the path stands where a folder on the way is looked for: a link, or another repository, gives it what it holds
/// under any names.
fn is_instead_of(path: &[u8], named: &[u8]) -> bool {
    let slashes = named.iter().enumerate().filter(|&(at, &byte)| at > 0 && byte == b'/');
    slashes.map(|(at, _)| &named[..at]).any(|folder| is_at(path, folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S48.
    #[test]
    fn what_would_run_later_is_known_by_its_path() {
        for (path, words) in [
            (".github/workflows/ci.yml", "a pipeline"),
            (".GitHub/Workflows/ci.yml", "a pipeline"),
            (".gitlab-ci.yml", "a pipeline"),
            ("Jenkinsfile", "a pipeline"),
            (".husky/pre-commit", "a hook of git"),
            ("web/.husky/pre-commit", "a hook of git"),
            (".githooks/x", "a hook of git"),
            (".gitmodules", "a setting of git"),
            ("a/b/.gitattributes", "a setting of git"),
            (".claude/settings.json", "a setting of an agent"),
            ("sub/.mcp.json", "a setting of an agent"),
            (".vscode/tasks.json", "a setting of an editor"),
            ("x.code-workspace", "a setting of an editor"),
            (".devcontainer/devcontainer.json", "a setting of an editor"),
            (".envrc", "a setting of a shell"),
            ("sub/.npmrc", "a setting of a tool that runs programs"),
            (".cargo/config.toml", "a setting of a tool that runs programs"),
            (".gitlab-ci.yaml", "a pipeline"),
            (".dir-locals-2.el", "a setting of an editor"),
            (".helix/languages.toml", "a setting of an editor"),
            (".lvimrc", "a setting of an editor"),
            ("x.sublime-project", "a setting of an editor"),
            (".mise/config.toml", "a setting of a shell"),
            (".config/mise/conf.d/x.toml", "a setting of a shell"),
            (".Rprofile", "a setting of a shell"),
            (".pryrc", "a setting of a shell"),
            (".irbrc", "a setting of a shell"),
            (".roo/mcp.json", "a setting of an agent"),
            (".kiro/hooks/x.kiro.hook", "a setting of an agent"),
            (".amazonq/mcp.json", "a setting of an agent"),
            ("opencode.json", "a setting of an agent"),
            (".bundle/config", "a setting of a tool that runs programs"),
            (".yarn/releases/yarn-4.cjs", "a setting of a tool that runs programs"),
            // A link, or another repository, in place of the folder.
            (".vscode", "a setting of an editor"),
            ("web/.husky", "a hook of git"),
            (".claude", "a setting of an agent"),
            (".github/workflows", "a pipeline"),
            (".github", "a pipeline"),
            (".cargo", "a setting of a tool that runs programs"),
        ] {
            assert_eq!(flag(path.as_bytes(), &Hooks::default()), Some(words), "{path}");
        }
        for path in [
            "src/main.rs",
            "github/workflows/ci.yml",
            "my.github/workflows/ci.yml",
            ".github/ISSUE_TEMPLATE.md",
            "x.gitmodules",
            "sub/.gitmodules",
            ".yarn/cache/x.zip",
            "x.vscode",
            "workflows",
            ".gitignore",
            "vscode/tasks.json",
            "docs/.envrc.md",
            "package.json",
            "",
        ] {
            assert_eq!(flag(path.as_bytes(), &Hooks::default()), None, "{path}");
        }
    }
}
