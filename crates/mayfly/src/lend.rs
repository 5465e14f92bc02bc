//! Hands a library of this machine over to an orchestrator that has another, or none: of it what each task gets, by content.
//!
//! What is wrong in it is found before anything is started. The task then names the lock, and the orchestrator's own
//! library has no part in it.

use std::collections::BTreeMap;
use std::path::Path;

use mayfly_client::{Client, ClientError};
use mayfly_engine::{strays_told, wishes_in};
use mayfly_library::{Library, Resolution, Resource, Wishes};
use mayfly_wire::api::CreateTask;

use crate::config::Settings;
use crate::contact::Contact;
use crate::exit::Stop;
use crate::printer::Printer;

/// What tasks get, and which of them.
#[derive(Debug)]
pub(crate) struct Lent(Vec<(Wishes, Resolution, Vec<usize>)>);

impl Lent {
    /// Chooses for each task that names no lock of its own; `repository` is what the code of those that bring none is
    /// called.
    pub(crate) fn choose(
        folder: &Path,
        tasks: &[CreateTask],
        repository: Option<&str>,
        settings: &Settings,
    ) -> Result<Self, Stop> {
        let library = Library::at(folder);
        if !folder.is_dir() {
            return Err(Stop::wrong(format!("there is no library `{}`", folder.display())));
        }
        let mut chosen: Vec<(Wishes, Resolution, Vec<usize>)> = Vec::new();
        for (index, task) in tasks.iter().enumerate().filter(|(_, task)| task.lock.is_none()) {
            let wishes = wishes(task, repository, settings)?;
            if let Some((.., indices)) = chosen.iter_mut().find(|(known, ..)| *known == wishes) {
                indices.push(index);
                continue;
            }
            let resolution = library.resolve(&wishes, &|_| None).map_err(Stop::usage)?;
            can_be_lent(&resolution)?;
            chosen.push((wishes, resolution, vec![index]));
        }
        Ok(Self(chosen))
    }

    /// Hands it over, and has the tasks name it.
    pub(crate) async fn hand_over(
        &self,
        contact: &Contact,
        printer: &mut Printer,
        tasks: &mut [CreateTask],
    ) -> Result<(), Stop> {
        for (_, resolution, indices) in &self.0 {
            strays_told(&resolution.strays).for_each(|words| printer.aside(&words));
            for (resource, _) in &resolution.resources {
                let keep = async |client: &Client| keep(client, resource).await;
                contact.ask_as_typed(printer, keep).await?;
            }
            let lock = resolution.lock().to_json();
            let kept = contact.ask_as_typed(printer, async |client| client.keep_lock(&lock).await).await?;
            for index in indices {
                let task = &mut tasks[*index];
                (task.project, task.agent) = (None, None);
                (task.resources, task.without) = (Vec::new(), Vec::new());
                task.lock = Some(kept.lock.clone());
            }
        }
        Ok(())
    }
}

/// Hands over a resource that the orchestrator does not have yet.
async fn keep(client: &Client, resource: &Resource) -> Result<(), ClientError> {
    if client.has_resource(&resource.sha256).await? {
        return Ok(());
    }
    client.keep_resource(&resource.sha256, &resource.archive()).await
}

/// What a task asks for; without a project, the one that its repository's name means.
fn wishes(task: &CreateTask, repository: Option<&str>, settings: &Settings) -> Result<Wishes, Stop> {
    let own = task.workspace.as_ref().map(|workspace| workspace.name.as_str());
    let none = BTreeMap::new();
    let projects = settings.values.projects.as_ref().map_or(&none, |given| &given.value.0);
    wishes_in(task, own.or(repository), projects).map_err(Stop::usage)
}

/// What servers download is kept beside a library, and is not handed over with its resources.
fn can_be_lent(resolution: &Resolution) -> Result<(), Stop> {
    let with_tools = resolution.resources.iter().find(|(resource, _)| resource.tools().next().is_some());
    match with_tools {
        None => Ok(()),
        Some((resource, _)) => Err(Stop::wrong(format!(
            "{} runs what was fetched for it, which only the orchestrator's own library has: leave it out with --no-mcp \
             {}, or add it there",
            resource.id, resource.id.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::Request;
    use axum::http::{Method, StatusCode};
    use mayfly_library::File;
    use mayfly_wire::api::Workspace;
    use tokio::net::UnixListener;

    use super::*;
    use crate::config::Flags;
    use crate::values::projects;

    fn put(top: &Path, path: &str, text: &str) {
        let path = top.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    fn task(workspace: Option<&str>) -> CreateTask {
        let workspace = workspace.map(|name| Workspace {
            id: String::new(),
            name: name.to_owned(),
            base: String::new(),
            on: None,
            origin: None,
        });
        CreateTask { workspace, ..CreateTask::default() }
    }

    #[test]
    fn each_task_gets_what_its_repository_has_and_the_same_is_chosen_once() {
        let top = tempfile::tempdir().expect("a folder");
        put(top.path(), "rules/_global/a/a.md", "a");
        put(top.path(), "rules/site/b/b.md", "b");
        let flags = Flags { projects: projects("web=site").ok(), ..Flags::default() };
        let named = CreateTask { lock: Some("x".to_owned()), ..task(None) };
        let tasks = [task(None), task(Some("web")), task(Some("site")), named, task(Some("other"))];
        let lent = Lent::choose(top.path(), &tasks, Some("site"), &Settings::of(flags)).expect("chosen");
        let told: Vec<_> =
            lent.0.iter().map(|(_, one, tasks)| (one.resources.len(), tasks.clone())).collect();
        assert_eq!(told, [(2, vec![0, 1, 2]), (1, vec![4])]);
    }

    /// Hands a resource over to somebody who has it, or has it not: what was asked of him.
    async fn handed_over(is_there: bool) -> Vec<String> {
        let top = tempfile::tempdir().expect("a folder");
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), StatusCode::NO_CONTENT);
        let heard = Arc::clone(&asked);
        let routes = Router::new().fallback(move |request: Request| {
            heard.lock().expect("nobody panicked").push(request.method().to_string());
            let absent = request.method() == Method::HEAD && !is_there;
            std::future::ready(if absent { StatusCode::NOT_FOUND } else { answer })
        });
        let socket = top.path().join("socket");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
        let id = "rules/_global/a".parse().expect("an id");
        let file = File { path: "a.md".to_owned(), executable: false, bytes: b"a".to_vec() };
        let resource = Resource::read(id, vec![file]).expect("a resource");
        keep(&Client::new(&socket), &resource).await.expect("it is there");
        serving.abort();
        let asked = asked.lock().expect("nobody panicked");
        asked.clone()
    }

    #[tokio::test]
    async fn what_the_orchestrator_has_is_not_handed_over_again() {
        assert_eq!(handed_over(true).await, ["HEAD"]);
        assert_eq!(handed_over(false).await, ["HEAD", "PUT"]);
    }

    #[test]
    fn what_was_fetched_for_a_server_stays_where_it_is() {
        let top = tempfile::tempdir().expect("a folder");
        put(top.path(), "mcp/_global/tiny/mcp.json", r#"{"command": "npx", "args": ["tiny"]}"#);
        let tool = serde_json::json!({"tiny": {"package": "tiny", "resolved": "tiny@1", "sha256": "0".repeat(64),
            "program": "node", "path": "x.js"}});
        put(top.path(), "mcp/_global/tiny/tools.json", &tool.to_string());
        let refused = Lent::choose(top.path(), &[task(None)], None, &Settings::of(Flags::default()));
        let lines = refused.expect_err("refused").lines();
        assert!(lines[0].as_str().contains("mcp/_global/tiny runs what was fetched"), "{lines:?}");
    }
}
