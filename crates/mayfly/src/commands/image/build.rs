//! `mayfly image build`: what is wrong is said before anything takes its time, and each layer is made if it is not there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, anyhow};
use mayfly_image::debian::{self, DebianError, Lists, Package, Programs};
use mayfly_image::elf;
use mayfly_image::kernel::{Kernel, is_bz_image};
use mayfly_image::parts::{self, Program};
use mayfly_image::program::Flag;
use mayfly_image::system::Parts;
use mayfly_image::{Image, Layer, Lock, Tree, Watch, root};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::{BuildArgs, CLAUDE, Kept, PACKAGES, SUITE, VERSION, WHOSE, boot, show};
use crate::claude::{self, Claude, first_line, on_path};
use crate::config::Settings;
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::fetching::GivenUp;
use crate::interrupts::Interrupts;
use crate::printer::{Printer, Shown};
use crate::progress::{self, Progress};

/// What says which suite this system is.
const OS_RELEASE: &str = "/etc/os-release";
/// What helps against a mayfly that needs this system's libraries.
const NOT_STATIC: &str =
    "the mayfly of an image has to be static (scripts/build-static makes one; name it with --mayfly PATH)";
/// Where programs of the system are.
const SYSTEM_PATH: &str = ":/usr/local/sbin:/usr/sbin:/sbin";
/// How much of a wrong answer is shown.
const SHOWN_CHARS_MAX: usize = 80;

pub(super) async fn build(
    args: BuildArgs,
    kept: Kept,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let mut interrupts = Interrupts::install()?;
    let processors =
        elf::here().ok_or_else(|| anyhow!("images are built on machines with amd64 or arm64 processors"))?;
    let mayfly = Mayfly::find(args.mayfly, processors).await?;
    let wanted = match (args.kind, processors) {
        (None, _) => None,
        (Some(_), "amd64") => Some(match &args.kernel {
            None => Wanted::Debians,
            Some(path) => Wanted::Own(OwnKernel::read(path)?),
        }),
        (Some(_), _) => return Err(anyhow!("virtual machines of this box need an amd64 processor").into()),
    };
    debian::check(|program| on_path(program, environment).is_some(), &user())?;
    let suite = settings.suite().map_or_else(suite_here, Ok)?;
    let claude = interrupts.or_interrupted(claude::find(settings.claude(), environment)).await?;
    let given_up = GivenUp::default();
    let build = Build {
        processors,
        suite,
        packages: settings.packages(),
        claude,
        mayfly,
        wanted,
        kept,
        environment: environment.clone(),
        given_up: given_up.flag(),
    };
    let image = spawn_blocking(move || build.image(&args.name).map(|image| (image, build.kept)));
    let (image, kept) = interrupts.or_interrupted(async { image.await? }).await?;
    let mut printer = Printer::of_lines(args.json, environment);
    show::built(&image, &kept, args.json, &mut printer);
    printer.aside(WHOSE);
    printer.exit(Exit::Success)
}

/// All that an image is built of, and with.
struct Build {
    processors: &'static str,
    suite: String,
    packages: Vec<String>,
    claude: Claude,
    mayfly: Mayfly,
    /// The same for virtual machines of this box, with this kernel.
    wanted: Option<Wanted>,
    kept: Kept,
    environment: Environment,
    given_up: Flag,
}

impl Build {
    fn image(&self, name: &str) -> Result<Image, Stop> {
        let lock =
            self.kept.store.lock(|| progress::say("another mayfly is building an image; waiting for it"))?;
        let programs = |program: &str| self.program(program);
        let cache = self.kept.store.folder().with_file_name("apt");
        let (lists, packages) = self.lasting("finding the packages", |_| {
            let lists = Lists::update(&self.suite, self.processors, &cache, Programs(&programs));
            let lists = lists.map_err(as_typed)?;
            let packages = lists.resolve(&self.packages).map_err(as_typed)?;
            Ok((lists, packages))
        })?;
        let path = &self.claude.path;
        let claude =
            open(path).and_then(|file| Program::new(file, boot::CLAUDE)).with_context(cannot_read(path))?;
        let claude_version =
            self.claude.version.map_or_else(|| format!("sha256:{}", claude.sha256), str::to_owned);
        let mayfly = &self.mayfly;
        let layer =
            |key: &str, has: String, tree: &dyn Fn() -> Result<Tree, Stop>| self.layer(key, has, tree, &lock);
        let layers = [
            layer(
                &parts::root_key(&self.suite, self.processors, &packages),
                format!("{} packages of {}", packages.len(), self.suite),
                &|| self.root(&lists, &packages),
            )?,
            layer(&claude.key(), format!("claude {claude_version}"), &|| Ok(claude.tree()?))?,
            layer(&mayfly.program.key(), format!("mayfly {}", mayfly.version), &|| {
                Ok(mayfly.program.tree()?)
            })?,
        ];
        let labels = [
            (SUITE, self.suite.clone()),
            (PACKAGES, parts::listed(&packages)),
            (CLAUDE, claude_version),
            (VERSION, mayfly.version.clone()),
        ];
        let labels: BTreeMap<_, _> = labels.into_iter().map(|(name, is)| (name.to_owned(), is)).collect();
        let run = parts::run(boot::MAYFLY, labels);
        let image = self.kept.store.put(name, self.processors, run, &layers, &lock)?;
        if let Some(wanted) = &self.wanted {
            let own = match wanted {
                Wanted::Debians => None,
                Wanted::Own(own) => Some(own),
            };
            self.system(&image, own, &lists, &lock)?;
        }
        Ok(image)
    }

    /// What virtual machines start from, made of the image's layers if it is not there.
    fn system(
        &self,
        image: &Image,
        own: Option<&OwnKernel>,
        lists: &Lists<'_>,
        lock: &Lock,
    ) -> Result<(), Stop> {
        let [kernel, busybox] = lists.kernel().map_err(as_typed)?;
        let name = own.map_or_else(|| kernel.to_string(), |own| own.words.clone());
        let words = format!("{name} {busybox}");
        let parts = Parts { image, kernel: &words };
        let Kept { store, systems } = &self.kept;
        if systems.find(&image.name, &parts, lock).is_some() {
            progress::say(&format!("{name} and a file system of the image: there already"));
            return Ok(());
        }
        let programs = |program: &str| self.program(program);
        let (programs, scratch) = (Programs(&programs), store.folder());
        let kernel = self.lasting("fetching the kernel of virtual machines", |_| {
            let busybox = lists.archive(&busybox)?;
            Ok(match own {
                None => Kernel::of_packages(&lists.archive(&kernel)?, &busybox, scratch, programs)?,
                Some(own) => Kernel::own(own.bz_image.clone(), &busybox, programs)?,
            })
        })?;
        let elf = kernel.elf(scratch, programs)?;
        self.lasting("writing the file system of virtual machines", |watch| {
            Ok(systems.make(&image.name, &parts, (&kernel, &elf), store, watch, lock).map(drop)?)
        })
    }

    /// The layer of what has this key, which is made of this tree if it is not there.
    fn layer(
        &self,
        key: &str,
        has: String,
        tree: &dyn Fn() -> Result<Tree, Stop>,
        lock: &Lock,
    ) -> Result<(Layer, String), Stop> {
        if let Some(layer) = self.kept.store.layer(key, lock)? {
            progress::say(&format!("{has}: there already"));
            return Ok((layer, has));
        }
        let tree = tree()?;
        let packed = self.lasting(&format!("packing {has}"), |watch| {
            Ok(self.kept.store.add_layer(key, &tree, watch, lock)?)
        })?;
        Ok((packed, has))
    }

    /// The root tree, with these very packages.
    fn root(&self, lists: &Lists<'_>, packages: &[Package]) -> Result<Tree, Stop> {
        let what = format!("installing {} packages of {} with mmdebstrap", packages.len(), self.suite);
        let folder = self.kept.store.folder();
        let tar =
            self.lasting(&what, |watch| Ok(lists.install(packages, folder, &self.given_up, watch)?))?;
        let (tree, has) = root::read(tar)?;
        match has == packages {
            true => Ok(tree),
            false => Err(other_packages(packages, &has)),
        }
    }

    /// A step that takes its time, and is told of while it does.
    fn lasting<T>(&self, what: &str, step: impl FnOnce(Watch<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        let mut progress = Progress::if_slow(what.to_owned());
        let done = step(&mut |words| {
            progress.note(words);
            !self.given_up.is_given_up()
        })?;
        progress.end();
        Ok(done)
    }

    /// A program of this system, which does not need the owner's credentials. dpkg looks for some that a user's `PATH` need
    /// not lead to.
    fn program(&self, program: &str) -> Command {
        let mut path = self.environment.path();
        path.push(SYSTEM_PATH);
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment.without_credentials()).env("PATH", path);
        command
    }
}

/// Which suite this system is.
fn suite_here() -> Result<String, Stop> {
    let text = fs::read_to_string(OS_RELEASE).unwrap_or_default();
    debian::suite_of(&text).ok_or_else(|| {
        Stop::wrong(format!(
            "{OS_RELEASE} does not say which suite of Debian this system is: name one with --suite"
        ))
    })
}

/// The user's name, as `/etc/passwd` has it.
fn user() -> String {
    let id = rustix::process::getuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = found.filter(|fields| fields.get(2) == Some(&&*id));
    found.next().map_or(id.clone(), |fields| fields[0].to_owned())
}

/// The kernel of virtual machines.
enum Wanted {
    /// The newest of Debian's.
    Debians,
    /// The owner's.
    Own(OwnKernel),
}

/// A kernel of the owner's.
struct OwnKernel {
    bz_image: Vec<u8>,
    /// What it is known by.
    words: String,
}

impl OwnKernel {
    fn read(path: &Path) -> Result<Self, Stop> {
        let mut bz_image = Vec::new();
        let read = open(path).and_then(|mut file| file.read_to_end(&mut bz_image));
        read.with_context(cannot_read(path)).map_err(Stop::usage)?;
        match is_bz_image(&bz_image) {
            true => {
                Ok(Self { words: format!("sha256:{}", hex::encode(Sha256::digest(&bz_image))), bz_image })
            }
            false => Err(Stop::wrong(format!(
                "`{}` is no kernel of Linux for x86-64 as a bzImage, such as /boot/vmlinuz",
                path.display()
            ))),
        }
    }
}

/// The mayfly that is to be in it.
struct Mayfly {
    program: Program,
    version: String,
}

impl Mayfly {
    async fn find(given: Option<PathBuf>, processors: &str) -> Result<Self, Stop> {
        let path = match &given {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("cannot tell where this program is")?,
        };
        let file = open(&path).with_context(cannot_read(&path)).map_err(Stop::usage)?;
        elf::check(&path, &file, processors).context(NOT_STATIC).map_err(Stop::usage)?;
        let version = match given {
            None => env!("CARGO_PKG_VERSION").to_owned(),
            Some(_) => version(&path).await?,
        };
        let program = Program::new(file, boot::MAYFLY).with_context(cannot_read(&path))?;
        Ok(Self { program, version })
    }
}

/// What a mayfly of another path says that it is.
async fn version(path: &Path) -> Result<String, Stop> {
    let said = first_line(path, "--version").await;
    let said = said.with_context(|| format!("cannot run `{}`", path.display())).map_err(Stop::usage)?;
    said.strip_prefix("mayfly ").map(str::to_owned).ok_or_else(|| {
        let said = Shown::line(&said, SHOWN_CHARS_MAX);
        Stop::wrong(format!(
            "`{}` is not mayfly: with --version that prints a line such as `mayfly {}`, and this printed `{said}`",
            path.display(),
            env!("CARGO_PKG_VERSION")
        ))
    })
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe would be waited for.
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file")),
    }
}

fn cannot_read(path: &Path) -> impl FnOnce() -> String {
    move || format!("cannot read `{}`", path.display())
}

/// What is named in a flag or a key, and is not there, is wrong input.
fn as_typed(error: DebianError) -> Stop {
    match error {
        DebianError::Apt { .. } | DebianError::NoLists { .. } => Stop::usage(error),
        error => error.into(),
    }
}

/// The mirror has others than its lists say.
fn other_packages(wanted: &[Package], has: &[Package]) -> Stop {
    let differs = has.iter().find(|package| !wanted.contains(package));
    let differs = differs.or_else(|| wanted.iter().find(|package| !has.contains(package)));
    let differs = differs.map(ToString::to_string).unwrap_or_default();
    anyhow!("mmdebstrap has not installed what the mirror's lists lead to, but for one {differs}: try again")
        .into()
}
