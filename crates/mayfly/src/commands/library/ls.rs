//! `mayfly library ls`: what a task would get, and what others stand before.

use mayfly_engine::library_of;
use mayfly_library::{Name, Wishes};
use mayfly_wire::api::Library;

use super::{Place, wrong};
use crate::exit::{Exit, Stop};
use crate::printer::{Printer, merged_lines};

/// How many digits of a content are shown: enough to name it by.
const DIGITS: usize = 12;

pub(super) fn ls(
    project: Option<Name>,
    place: &Place,
    mut printer: Printer,
    json: bool,
) -> Result<Exit, Stop> {
    let of_none = project.is_none();
    let wishes = Wishes { project, ..Wishes::default() };
    let listed = library_of(&place.library, &wishes, &place.archives).map_err(wrong)?;
    tell(&listed, of_none, &format!("`{}`", place.shown()), &mut printer, json);
    printer.exit(Exit::Success)
}

/// Tells what a task would get of a library that is called so.
pub(super) fn tell(listed: &Library, of_none: bool, library: &str, printer: &mut Printer, json: bool) {
    match json {
        true => printer.json(listed),
        false => lines(listed, of_none, library).iter().for_each(|line| printer.closing(line)),
    }
}

fn lines(listed: &Library, of_none: bool, library: &str) -> Vec<String> {
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
    if of_none && !listed.projects.is_empty() {
        lines.push(format!("projects, each with more: {}", listed.projects.join(", ")));
    }
    lines
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
    use mayfly_wire::api::{HookOf, LibraryResource, Merged, Overridden};

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
            },
            ..Library::default()
        };
        insta::assert_snapshot!(lines(&listed, false, "`/l`").join("\n"), @r"
        KIND   NAME           FROM     CONTENT       SIZE
        skill  site/review    project  0123456789ab  1.5KiB
        rules  _global/style  global   0123456789ab  12B
        not skill/_global/review: another of its kind and name comes first
        setting env.CI: settings/site/more before settings/_global/base
        hook PostToolUse (Edit): hooks/_global/fmt
        ");
        let empty = Library { projects: vec!["site".to_owned()], ..Library::default() };
        insta::assert_snapshot!(lines(&empty, true, "`/l`").join("\n"), @r"
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
