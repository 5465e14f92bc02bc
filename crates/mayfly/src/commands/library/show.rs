//! `mayfly library show`: what a resource has in it, as mayfly reads it.

use mayfly_engine::content_of;
use mayfly_library::kinds::What;
use mayfly_library::kinds::agent::Agent;
use mayfly_library::kinds::mcp::{Server, Transport};
use mayfly_library::kinds::own::Own;
use mayfly_library::{Resource, ResourceId, matter};
use serde_json::{Map, Value};

use super::ls::size;
use super::{Place, wrong};
use crate::exit::{Exit, Stop};
use crate::printer::Printer;

/// The longest value that is shown.
const VALUE_CHARS_MAX: usize = 300;

pub(super) fn show(id: &ResourceId, place: &Place, mut printer: Printer, json: bool) -> Result<Exit, Stop> {
    tell(&place.library.read(id).map_err(wrong)?, &mut printer, json);
    printer.exit(Exit::Success)
}

/// Tells what a resource has in it.
pub(super) fn tell(resource: &Resource, printer: &mut Printer, json: bool) {
    match json {
        true => printer.json(&content_of(resource)),
        false => lines(resource).iter().for_each(|line| printer.closing(line)),
    }
}

/// What is said of it, a name and a value a line.
fn lines(resource: &Resource) -> Vec<String> {
    let mut rows = vec![("content".to_owned(), resource.sha256.clone())];
    rows.extend(of_what(resource).into_iter().chain(of_own(&resource.own)));
    rows.extend(resource.files.iter().map(|file| {
        let runs = if file.executable { ", can be run" } else { "" };
        ("file".to_owned(), format!("{} ({}{runs})", file.path, size(file.bytes.len() as u64)))
    }));
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let line = |(name, value): (String, String)| {
        let mut short: String = value.chars().take(VALUE_CHARS_MAX).collect();
        if short.len() < value.len() {
            short.push('…');
        }
        format!("{name:width$}  {short}")
    };
    [resource.id.to_string()].into_iter().chain(rows.into_iter().map(line)).collect()
}

type Row = (String, String);

fn row(name: &str, value: impl Into<String>) -> Row {
    (name.to_owned(), value.into())
}

fn of_what(resource: &Resource) -> Vec<Row> {
    match &resource.what {
        What::Skill { .. } => of_skill(resource),
        What::Rules => Vec::new(),
        What::Agent(agent) => of_agent(agent),
        What::Mcp(servers) => servers.iter().flat_map(|server| of_server(server, &resource.own)).collect(),
        What::Hooks(hooks) => of_hooks(hooks),
        What::Settings(settings) => {
            settings.iter().map(|(key, value)| (key.clone(), value.to_string())).collect()
        }
    }
}

fn of_skill(resource: &Resource) -> Vec<Row> {
    let file = resource.files.iter().find(|file| file.path == "SKILL.md");
    let settings = file.and_then(|file| file.text()).map(|text| matter::split(text).0).unwrap_or_default();
    let description = settings.iter().find(|setting| setting.key == "description");
    let text = description.and_then(|setting| setting.value.as_ref()?.as_str());
    text.map(|text| row("description", text)).into_iter().collect()
}

fn of_agent(agent: &Agent) -> Vec<Row> {
    let list = |tools: &[String]| if tools.is_empty() { "none".to_owned() } else { tools.join(", ") };
    let mut rows = vec![row("description", &agent.description)];
    rows.extend(agent.model.as_ref().map(|model| row("model", model)));
    rows.push(row("tools", agent.tools.as_ref().map_or_else(|| "all".to_owned(), |tools| list(tools))));
    if !agent.denied.is_empty() {
        rows.push(row("denied", list(&agent.denied)));
    }
    rows.extend(agent.max_tokens.map(|tokens| row("max_tokens", tokens.to_string())));
    rows.extend(agent.rest.iter().map(|(key, value)| (key.clone(), value.to_string())));
    rows
}

fn of_server(server: &Server, own: &Own) -> Vec<Row> {
    let runs = match &server.transport {
        Transport::Stdio { command, args } => [std::slice::from_ref(command), args].concat().join(" "),
        Transport::Http { url } => url.clone(),
    };
    let variable = |name: &String| match own.secrets.get(name) {
        Some(secret) => row("variable", format!("{name} is `{secret}` of the pool")),
        None => row("variable", format!("{name} is bound to nothing: a task with it is refused")),
    };
    let head = row("server", format!("{}: {runs}", server.name));
    [head].into_iter().chain(server.variables.iter().map(variable)).collect()
}

fn of_hooks(hooks: &Map<String, Value>) -> Vec<Row> {
    let matched = hooks.iter().flat_map(|(event, matched)| {
        matched.as_array().into_iter().flatten().map(move |matched| (event, matched))
    });
    let commands = matched.flat_map(|(event, matched)| {
        let when = matched["matcher"].as_str().filter(|text| !text.is_empty()).unwrap_or("always");
        matched["hooks"].as_array().into_iter().flatten().map(move |hook| (event, when, hook))
    });
    let shown = |(event, when, hook): (&String, &str, &Value)| {
        let what = hook["command"].as_str().map_or_else(|| hook.to_string(), str::to_owned);
        (event.clone(), format!("{when}: {what}"))
    };
    commands.map(shown).collect()
}

fn of_own(own: &Own) -> Vec<Row> {
    let mut rows = Vec::new();
    if !own.allow.is_empty() {
        rows.push(row("allow", own.allow.join(", ")));
    }
    rows.extend(own.credential.as_ref().map(|name| row("credential", name)));
    let required = own.required.map(|required| if required { "yes" } else { "no" });
    rows.extend(required.map(|required| row("required", required)));
    if own.allow_secret_in_machine {
        rows.push(row("secrets", "may be in machines, where the agent can read them"));
    }
    rows
}

#[cfg(test)]
mod tests {
    use mayfly_library::File;

    use super::*;

    fn shown(id: &str, files: &[(&str, &str)]) -> String {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            executable: *path == "x.sh",
            bytes: text.as_bytes().to_vec(),
        };
        let files = files.iter().map(file).collect();
        let resource = Resource::read(id.parse().expect("an id"), files).expect("a resource");
        lines(&resource).join("\n").replace(&resource.sha256, "[content]")
    }

    #[test]
    fn each_kind_is_shown_as_what_it_does() {
        let agent = "---\ndescription: reads\ntools: []\ndisallowedTools: [Bash]\nmax_tokens: 9\n---\nRead.";
        let server = r#"{"command": "node", "args": ["x.js"], "env": {"A": "${A}", "B": "${B}"}}"#;
        let own = "required = true\nallow = [\"x.example\"]\nallow-secret-in-machine = true\nsecrets = { A = \"a\" }";
        let hooks =
            r#"{"PostToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "./x.sh"}]}]}"#;
        let all = [
            shown("agent/_global/a", &[("agent.md", agent)]),
            shown("mcp/_global/m", &[("mayfly.toml", own), ("mcp.json", server)]),
            shown("hooks/_global/h", &[("hooks.json", hooks), ("x.sh", "#!/bin/sh\n")]),
            shown("settings/_global/s", &[("settings.json", r#"{"env": {"CI": "1"}}"#)]),
            shown("skill/_global/k", &[("SKILL.md", "---\ndescription: helps\n---\nx")]),
        ];
        insta::assert_snapshot!(all.join("\n\n"));
    }
}
