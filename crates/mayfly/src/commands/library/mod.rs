//! `mayfly library`: what tasks share. It is a plain folder that its owner edits, and so no orchestrator is asked but for
//! what a task had.
//!
//! Where the data folder is that of a tunnel, the library is on the machine of the orchestrator, who is asked then; but what
//! is fetched for a lock is fetched on that machine.

mod add;
mod check;
mod diff;
mod ls;
mod show;
mod there;
mod validate;

use std::path::PathBuf;

use mayfly_engine::begin_library;
use mayfly_library::kinds::What;
use mayfly_library::{Library, Lock, Problems, Resource, ResourceId};
use mayfly_server::{ServerConfig, make_data_folder};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::cli::{DataArgs, LibraryArgs};
use crate::config::{Settings, Source};
use crate::contact::Origin;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::fetching::GivenUp;
use crate::interrupts::Interrupts;
use crate::printer::Printer;
use crate::tools::{self, Fetched};
use crate::tunnel::Saved;
use there::There;

const LIBRARY_EXAMPLES: &str = "\
Examples:
  mayfly library init                      # a small one, to start from
  mayfly library add ~/reviewer.md --as agent/_global/reviewer
  mayfly library add 'https://host.example/skills.git#pdf' --as skill/_global/pdf
  mayfly library ls --project site         # what a task of the repository `site` gets
  mayfly library ls --agent reviewer --no-hooks fmt
  mayfly library check                     # what is wrong, as file:line:column
  mayfly run --agent reviewer \"look at the last commit\"

A library is a folder, which may be a checkout. In it each resource has one, KIND/NAMESPACE/NAME:
  skill     SKILL.md, and files beside it
  agent     agent.json or agent.md
  mcp       mcp.json, and files of a server
  hooks     hooks.json, and scripts
  rules     files that end in .md
  settings  settings.json

The namespace `_global` is for every repository, any other for the one that is called so, whose
own comes before what is for all. It is read when a task is accepted: a change counts for later
tasks. What is wrong in it stops the tasks that would get it, and no others.";

const ADD_EXAMPLES: &str = "\
Examples:
  mayfly library add ./style --as rules/_global/style
  mayfly library add reviewer.json --as agent/site/reviewer --replace
  mayfly library add 'ssh://git@host.example/team/skills.git#review' --as skill/_global/review";

const DIFF_EXAMPLES: &str = "\
Examples:
  mayfly library diff 1a2b3c4d 5e6f7a8b                   # what differs between two tasks
  mayfly library lock | mayfly library diff 1a2b3c4d -    # what has changed since

A line begins with `+` for what only the second has, with `-` for what only the first has, and with
`~` for what has another content or comes from another namespace.";

/// Look at and change the library: what tasks share
#[derive(Debug, clap::Args)]
#[command(after_help = LIBRARY_EXAMPLES)]
pub(crate) struct LibraryVerbArgs {
    #[command(subcommand)]
    verb: LibraryVerb,
}

#[derive(Debug, clap::Subcommand)]
enum LibraryVerb {
    Ls(Box<LsArgs>),
    Show(ShowArgs),
    Check(CheckArgs),
    Lock(Box<LockArgs>),
    Diff(DiffArgs),
    Add(AddArgs),
    Remove(RemoveArgs),
    Init(InitArgs),
}

/// List what a task would get, why, and which content it has
#[derive(Debug, clap::Args)]
struct LsArgs {
    /// Print one JSON object, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    wishes: LibraryArgs,
}

/// Show what a resource has in it
#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The resource
    #[arg(value_name = "KIND/NS/NAME")]
    id: ResourceId,
    /// Print one JSON object, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Name all that is wrong, with file, line and column, also by the CLI's own validator where a `claude` is here;
/// exits with 1 if anything is
#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// Print what is wrong, one JSON object a line, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Print the lock that a task would get: its resources, each by its content; first fetch, once, what its MCP
/// servers would download with npx or uvx
#[derive(Debug, clap::Args)]
struct LockArgs {
    /// Print it on one line, as it is stored: its SHA-256 is its name
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    wishes: LibraryArgs,
}

/// Compare what two tasks had, or two locks
#[derive(Debug, clap::Args)]
#[command(after_help = DIFF_EXAMPLES)]
struct DiffArgs {
    /// A task, a file with a lock, or `-` for one on standard input
    #[arg(value_name = "A")]
    before: String,
    /// Another one
    #[arg(value_name = "B")]
    after: String,
    /// Print the resources that differ, one JSON object a line, and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Put a folder or a file into the library, or a folder of a git repository
#[derive(Debug, clap::Args)]
#[command(after_help = ADD_EXAMPLES)]
struct AddArgs {
    /// A folder, a file such as reviewer.md, or the URL of a git repository with `#FOLDER` after it for a part
    #[arg(value_name = "PATH|URL")]
    from: String,
    /// What it is to be
    #[arg(long = "as", value_name = "KIND/NS/NAME")]
    id: ResourceId,
    /// Take the place of one of this name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Take a resource out of the library
#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The resource
    #[arg(value_name = "KIND/NS/NAME")]
    id: ResourceId,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Put a small library there to start from: agents, rules, a hook, settings; what is there stays as it is
#[derive(Debug, clap::Args)]
struct InitArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, clap::Args)]
struct PlaceArgs {
    /// The library's folder [default: `folder` in [library] of mayfly.toml, else `library` in the data folder]
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

impl LibraryVerbArgs {
    pub(crate) fn data(&self) -> &DataArgs {
        match &self.verb {
            LibraryVerb::Diff(args) => &args.data,
            _ => &self.place().expect("every other verb has one").data,
        }
    }

    /// The folder that the flag names.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.place().and_then(|place| place.library.clone())
    }

    fn place(&self) -> Option<&PlaceArgs> {
        match &self.verb {
            LibraryVerb::Show(ShowArgs { place, .. })
            | LibraryVerb::Check(CheckArgs { place, .. })
            | LibraryVerb::Add(AddArgs { place, .. })
            | LibraryVerb::Remove(RemoveArgs { place, .. })
            | LibraryVerb::Init(InitArgs { place }) => Some(place),
            LibraryVerb::Ls(args) => Some(&args.place),
            LibraryVerb::Lock(args) => Some(&args.place),
            LibraryVerb::Diff(_) => None,
        }
    }
}

pub(crate) async fn library(
    args: LibraryVerbArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    match Where::find(settings, environment)? {
        Where::Here(place) => Box::pin(here(args.verb, place, settings, environment)).await,
        Where::There(origin, to) => Box::pin(elsewhere(args.verb, *origin, to, settings, environment)).await,
    }
}

/// On the folder itself.
async fn here(
    verb: LibraryVerb,
    place: Place,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let printer = |json| Printer::of_lines(json, environment);
    match verb {
        LibraryVerb::Ls(args) => ls::ls(&args.wishes.wishes(), &place, printer(args.json), args.json),
        LibraryVerb::Show(ShowArgs { id, json, .. }) => show::show(&id, &place, printer(json), json),
        LibraryVerb::Check(CheckArgs { json, .. }) => check::check(&place, settings, environment, json).await,
        LibraryVerb::Lock(args) => lock(&args, &place, environment).await,
        LibraryVerb::Remove(RemoveArgs { id, .. }) => remove(&id, &place, printer(false)),
        LibraryVerb::Init(_) => init(&place, printer(false)),
        LibraryVerb::Diff(args) => diff::diff(args, settings, environment).await,
        LibraryVerb::Add(args) => add::add(args, &place, environment).await,
    }
}

/// Through the tunnel, which leads there.
async fn elsewhere(
    verb: LibraryVerb,
    origin: Origin,
    to: String,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let reach = |json| There::reach(origin, to.clone(), Printer::of_lines(json, environment));
    match verb {
        LibraryVerb::Ls(args) => reach(args.json).await?.ls(&args.wishes.wanted(), args.json).await,
        LibraryVerb::Show(ShowArgs { id, json, .. }) => reach(json).await?.show(id, json).await,
        LibraryVerb::Check(CheckArgs { json, .. }) => reach(json).await?.check(json).await,
        LibraryVerb::Remove(RemoveArgs { id, .. }) => reach(false).await?.remove(&id).await,
        LibraryVerb::Init(_) => reach(false).await?.init().await,
        LibraryVerb::Lock(args) => reach(args.json).await?.lock(&args.wishes.wanted(), args.json).await,
        LibraryVerb::Diff(args) => diff::diff(args, settings, environment).await,
        LibraryVerb::Add(args) => {
            let resource = add::read_from(&args, environment).await?;
            reach(false).await?.add(&resource, args.replace).await
        }
    }
}

/// Which library is meant.
enum Where {
    Here(Place),
    /// With an orchestrator to which this leads.
    There(Box<Origin>, String),
}

impl Where {
    /// One that was named is here; else it is where the tasks of the data folder are.
    fn find(settings: &Settings, environment: &Environment) -> Result<Self, Stop> {
        let origin = Origin::new(settings, environment)?;
        let is_named = settings.values.folder.as_ref().is_some_and(|named| named.from == Source::Flag);
        match Saved::load(&origin.data)? {
            Some(saved) if !is_named => Ok(Self::There(Box::new(origin), saved.to.without_pin())),
            _ => Ok(Self::Here(Place::find(settings, origin.data)?)),
        }
    }
}

/// A library of this machine.
struct Place {
    library: Library,
    /// What tasks had of it is kept there.
    archives: PathBuf,
    /// The data folder that it is in, if it is.
    data: Option<PathBuf>,
}

impl Place {
    /// The one that was named, else that of the data folder.
    fn find(settings: &Settings, data: PathBuf) -> Result<Self, Stop> {
        let mut config = ServerConfig::in_dir(&data);
        settings.lend(&mut config);
        let library = Library::at(std::path::absolute(&config.library)?);
        let data = settings.values.folder.is_none().then_some(data);
        Ok(Self { library, archives: config.archives(), data })
    }

    /// Sees to it that a data folder which is made for the library is one that an orchestrator takes for its own.
    fn make(&self) -> Result<(), Stop> {
        self.data.as_ref().map_or(Ok(()), |data| make_data_folder(data)).map_err(Stop::usage)
    }

    fn shown(&self) -> String {
        self.library.folder().display().to_string()
    }
}

/// What is wrong is the user's to put right.
fn wrong(problems: Problems) -> Stop {
    Stop::usage(problems)
}

async fn lock(args: &LockArgs, place: &Place, environment: &Environment) -> Result<Exit, Stop> {
    let mut printer = Printer::of_lines(args.json, environment);
    let kept = |content: &str| mayfly_engine::archive_of(&place.archives, content);
    let wishes = args.wishes.wishes();
    let resolve = || place.library.resolve(&wishes, &kept).map_err(wrong);
    let asked = resolve()?.resources.into_iter().map(|(resource, _)| resource);
    let ids =
        asked.filter_map(|resource| fetchable(resource, place).transpose()).collect::<Result<Vec<_>, _>>()?;
    for Fetched { id, server, tool } in fetch(place, ids, environment, &mut printer).await? {
        printer.aside(&format!("{id}: {server} runs {}", tool.resolved));
    }
    tell_lock(&resolve()?.lock(), printer, args.json)
}

fn tell_lock(lock: &Lock, mut printer: Printer, json: bool) -> Result<Exit, Stop> {
    let text = if json { lock.to_json() } else { serde_json::to_string_pretty(lock)? };
    printer.bytes(format!("{text}\n").as_bytes());
    printer.exit(Exit::Success)
}

/// Fetches what servers of these resources would download, in a thread of its own: an interrupt is heard meanwhile.
async fn fetch(
    place: &Place,
    ids: Vec<ResourceId>,
    environment: &Environment,
    printer: &mut Printer,
) -> Result<Vec<Fetched>, Stop> {
    let mut interrupts = Interrupts::install()?;
    let (tell, mut told) = mpsc::channel::<String>(1);
    let given_up = GivenUp::default();
    let (library, environment, flag) = (place.library.clone(), environment.clone(), given_up.flag());
    let tell = move |words: &str| drop(tell.blocking_send(words.to_owned()));
    let fetching = spawn_blocking(move || tools::fetch(&library, ids, &environment, &flag, tell));
    let fetched = async {
        while let Some(words) = told.recv().await {
            printer.aside(&words);
        }
        fetching.await
    };
    tokio::select! {
        () = interrupts.next() => Err(Stop::interrupted()),
        fetched = fetched => Ok(fetched??),
    }
}

/// Which resource what its servers would download can be fetched for. `None`: it is asked for as it was once, and has it.
fn fetchable(resource: Resource, place: &Place) -> Result<Option<ResourceId>, Stop> {
    let now = place.library.read(&resource.id).ok();
    if now.is_some_and(|now| now.sha256 == resource.sha256) {
        return Ok(Some(resource.id));
    }
    let What::Mcp(servers) = &resource.what else { return Ok(None) };
    let Some(server) = servers.iter().find(|server| server.unlocked().is_some()) else { return Ok(None) };
    Err(Stop::wrong(format!(
        "`{}` of {}@{} would download what it runs, and that is fetched only for what the library has now: ask for {} \
         without its content",
        server.name,
        resource.id,
        ls::short(&resource.sha256),
        resource.id
    )))
}

fn remove(id: &ResourceId, place: &Place, mut printer: Printer) -> Result<Exit, Stop> {
    if !place.library.remove(id)? {
        return Err(absent(id, &format!("the library `{}`", place.shown())));
    }
    printer.aside(REMOVED);
    printer.exit(Exit::Success)
}

/// Why nothing is put where something is.
fn taken(id: &ResourceId) -> Stop {
    Stop::wrong(format!("{id} is in the library already: --replace puts this one in its place"))
}

/// Why nothing comes of what is not in a library that is called so.
fn absent(id: &ResourceId, library: &str) -> Stop {
    Stop::wrong(format!("{id} is not in {library}: `mayfly library ls` lists what is"))
}

/// What is said of a resource that is gone.
const REMOVED: &str = "removed; tasks that have it keep it";

/// What is said of a resource of the small library.
fn begun(id: &str, added: bool) -> String {
    format!("{}  {id}", if added { "added        " } else { "there already" })
}

fn init(place: &Place, mut printer: Printer) -> Result<Exit, Stop> {
    place.make()?;
    for (id, added) in begin_library(&place.library).map_err(Stop::usage)? {
        printer.closing(&begun(&id.to_string(), added));
    }
    printer.aside(&format!(
        "the library is in `{}`; `mayfly demo --agent code-reviewer` tries it",
        place.shown()
    ));
    printer.exit(Exit::Success)
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn for_what_a_resource_was_once_nothing_is_fetched() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place { library: Library::at(folder.path()), archives: PathBuf::new(), data: None };
        let file = folder.path().join("mcp/_global/x/mcp.json");
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        let id: ResourceId = "mcp/_global/x".parse().expect("an id");
        let read = |server: &str| {
            fs::write(&file, server).expect("written");
            place.library.read(&id).expect("a resource")
        };
        let unlocked = read(r#"{"command": "npx", "args": ["-y", "one"]}"#);
        let without = read(r#"{"command": "serve"}"#);
        let now = read(r#"{"command": "npx", "args": ["-y", "two"]}"#);
        assert_eq!(fetchable(now, &place).expect("the library's"), Some(id.clone()));
        assert_eq!(fetchable(without, &place).expect("nothing to fetch"), None);
        let stop = fetchable(unlocked, &place).expect_err("another content");
        let words = stop.lines().iter().map(ToString::to_string).collect::<String>();
        assert!(words.contains("ask for mcp/_global/x without its content"), "{words}");
    }
}
