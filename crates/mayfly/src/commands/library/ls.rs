//! `mayfly library ls`: what a task would get, and what others stand before.

use mayfly_engine::library_of;
use mayfly_library::{Problem, Wishes};
use mayfly_wire::api::{Library, LibraryProblem, LibraryResource};

use super::{Place, wrong};
use crate::exit::{Exit, Stop};
use crate::printer::{Printer, merged_lines};

/// How many digits of a content are shown: enough to name it by.
const DIGITS: usize = 12;

pub(super) fn ls(wishes: &Wishes, place: &Place, mut printer: Printer, json: bool) -> Result<Exit, Stop> {
    let listed = library_of(&place.library, wishes, &place.archives).map_err(wrong)?;
    tell(&listed, &format!("`{}`", place.shown()), &mut printer, json);
    printer.exit(Exit::Success)
}

/// Tells what a task would get of a library that is called so.
pub(super) fn tell(listed: &Library, library: &str, printer: &mut Printer, json: bool) {
    match json {
        true => printer.json(listed),
        false => lines(listed, library).iter().for_each(|line| printer.closing(line)),
    }
}

fn lines(listed: &Library, library: &str) -> Vec<String> {
    let mut lines = match listed.resources.is_empty() {
        true => vec![format!(
            "a task would get nothing of {library}; `mayfly library init` puts a small library there"
        )],
        false => table(listed),
    };
    lines.extend(
        listed.shadowed.iter().map(|id| format!("not {id}: another of its kind and name comes first")),
    );
    lines.extend(merged_lines(&listed.merged));
    lines.extend(listed.agent.as_ref().map(|agent| run_by(agent, &listed.resources)));
    lines.extend(listed.strays.iter().map(as_line));
    if listed.more_strays > 0 {
        lines.push(format!(
            "and {} more that do not count: `mayfly library check` names all",
            listed.more_strays
        ));
    }
    if listed.project.is_none() && !listed.projects.is_empty() {
        lines.push(format!("projects, each with more: {}", listed.projects.join(", ")));
    }
    lines
}

/// Who the task is run by.
fn run_by(agent: &str, resources: &[LibraryResource]) -> String {
    let is_it = |id: &str| id.strip_prefix("agent/").is_some_and(|id| id.ends_with(&format!("/{agent}")));
    match resources.iter().find(|one| is_it(&one.id)) {
        Some(one) => format!("run by {}", one.id),
        None => format!("run by `{agent}` of the task's repository: the library has no such agent"),
    }
}

/// A problem as it is told where the library is.
pub(super) fn as_line(problem: &LibraryProblem) -> String {
    let LibraryProblem { file, line, column, words } = problem.clone();
    Problem { file, line, column, words }.to_string()
}

/// A heading and a line for each.
fn table(listed: &Library) -> Vec<String> {
    let mut rows = vec![["KIND", "NAME", "FROM", "CONTENT", "SIZE"].map(str::to_owned)];
    rows.extend(listed.resources.iter().map(|one| {
        let (kind, name) = one.id.split_once('/').unwrap_or(("", &one.id));
        [kind.to_owned(), name.to_owned(), one.from.clone(), short(&one.sha256), size(one.bytes)]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [0, 1, 2, 3].map(width);
    let line = |[kind, name, from, content, size]: &[String; 5]| {
        let [a, b, c, d] = widths;
        format!("{kind:a$}  {name:b$}  {from:c$}  {content:d$}  {size}")
    };
    rows.iter().map(line).collect()
}

/// The beginning of a content's name.
pub(super) fn short(sha256: &str) -> String {
    sha256.chars().take(DIGITS).collect()
}

/// Bytes as a person reads them.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        _ if bytes < 1 << 20 => format!("{}.{}KiB", bytes >> 10, ((bytes & 1023) * 10) >> 10),
        _ => format!("{}.{}MiB", bytes >> 20, (((bytes >> 10) & 1023) * 10) >> 10),
    }
}

#[cfg(test)]
mod tests {
    use mayfly_wire::api::{HookOf, Merged, Overridden};

    use super::*;

    #[test]
    fn a_table_tells_what_a_task_gets_and_what_it_does_not() {
        let resource = |id: &str, from: &str, bytes| LibraryResource {
            id: id.to_owned(),
            from: from.to_owned(),
            sha256: "0123456789abcdef".repeat(4),
            bytes,
        };
        let listed = Library {
            resources: vec![
                resource("skill/site/review", "project", 1536),
                resource("rules/_global/style", "global", 12),
            ],
            shadowed: vec!["skill/_global/review".to_owned()],
            projects: vec!["site".to_owned()],
            merged: Merged {
                settings: vec![Overridden {
                    key: "env.CI".to_owned(),
                    by: "settings/site/more".to_owned(),
                    over: "settings/_global/base".to_owned(),
                }],
                hooks: vec![HookOf {
                    event: "PostToolUse".to_owned(),
                    matcher: Some("Edit".to_owned()),
                    of: "hooks/_global/fmt".to_owned(),
                }],
                more_settings: 0,
                more_hooks: 7,
            },
            project: Some("site".to_owned()),
            agent: Some("own".to_owned()),
            strays: vec![LibraryProblem {
                file: "skills".to_owned(),
                line: None,
                column: None,
                words: "is no kind of resource".to_owned(),
            }],
            more_strays: 2,
            ..Library::default()
        };
        insta::assert_snapshot!(lines(&listed, "`/l`").join("\n"), @r"
        KIND   NAME           FROM     CONTENT       SIZE
        skill  site/review    project  0123456789ab  1.5KiB
        rules  _global/style  global   0123456789ab  12B
        not skill/_global/review: another of its kind and name comes first
        setting env.CI: settings/site/more before settings/_global/base
        hook PostToolUse (Edit): hooks/_global/fmt
        and 7 more hooks
        run by `own` of the task's repository: the library has no such agent
        skills: is no kind of resource
        and 2 more that do not count: `mayfly library check` names all
        ");
        let empty = Library { projects: vec!["site".to_owned()], ..Library::default() };
        insta::assert_snapshot!(lines(&empty, "`/l`").join("\n"), @r"
        a task would get nothing of `/l`; `mayfly library init` puts a small library there
        projects, each with more: site
        ");
    }

    #[test]
    fn a_size_is_short() {
        let sizes = [0, 1023, 1024, 1 << 20, (5 << 20) + (1 << 19)].map(size);
        assert_eq!(sizes, ["0B", "1023B", "1.0KiB", "1.0MiB", "5.5MiB"]);
    }
}
