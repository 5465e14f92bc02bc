//! `mayfly image`: the image that machines elsewhere begin with, built and kept on this machine.

mod build;
mod show;

use std::path::PathBuf;

use mayfly_image::Store;
use mayfly_image::system::Systems;
use mayfly_wire::boot;

use crate::config::{Flags, Settings};
use crate::environment::Environment;
use crate::exit::{Exit, Stop};
use crate::printer::Printer;
use crate::values::{self, Packages, ProviderName};

/// What an image is called that nobody names.
pub(crate) const NAME: &str = "mayfly";
/// What an image says about itself.
const SUITE: &str = "mayfly.suite";
const PACKAGES: &str = "mayfly.packages";
const CLAUDE: &str = "mayfly.claude";
const VERSION: &str = "mayfly.version";
/// Whose the CLI is, wherever an image goes.
const WHOSE: &str =
    "the Claude Code CLI is in it, which others may not be handed: push it to a registry of your own alone";

const IMAGE_EXAMPLES: &str = "\
Examples:
  mayfly image build              # on Debian; as root or as yourself, without Docker
  mayfly image build --package make --package g++
  mayfly image build --mayfly ./mayfly-static
  mayfly image build --for microvm    # for virtual machines of this box
  mayfly image ls
  mayfly image inspect mayfly --json | jq -r .packages[]
  mayfly image rm mayfly

An image is what machines elsewhere begin with: Debian packages, the pinned Claude Code CLI and
mayfly, each a layer of its own. It serves as the orchestrator and as its workers. The same packages
and programs are always the same bytes, and what was made before is not made again; each build asks
your mirror for new versions. All images are one OCI layout, $XDG_CACHE_HOME/mayfly/images, else
~/.cache/mayfly/images.

The CLI is not yours to hand on: push an image to a registry of your own alone.";

const BUILD_EXAMPLES: &str = "\
Examples:
  mayfly image build
  mayfly image build --suite trixie --package make --name builder
  mayfly image build --for microvm --kernel ./bzImage

The packages are bash, ca-certificates, git, nodejs, procps, python3 and ripgrep, with what these
need, and those of --package. They come from the mirror that this machine's own apt asks, and
mmdebstrap installs them, which needs neither root nor Docker: apt-get install mmdebstrap uidmap.
With Docker, deploy/fly/Dockerfile makes the same.

mayfly in it has to be static: scripts/build-static makes it so of mayfly's source.

With --for microvm the image is also made what virtual machines of this box start from, which
$XDG_CACHE_HOME/mayfly/systems/NAME keeps: its files as a file system that is only read, Debian's
newest kernel for virtual machines, and an initramfs. A kernel of your own has its drivers built in:
virtio-mmio with ACPI, virtio-blk, virtio-vsock, devtmpfs, ext4, erofs and overlayfs.";

/// Build, list and remove the images of machines elsewhere
#[derive(Debug, clap::Args)]
#[command(after_help = IMAGE_EXAMPLES)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ImageVerb {
    Build(BuildArgs),
    Ls(LsArgs),
    Inspect(InspectArgs),
    Rm(RmArgs),
}

/// Build an image of Debian packages, the Claude Code CLI and mayfly
#[derive(Debug, clap::Args)]
#[command(after_help = BUILD_EXAMPLES)]
struct BuildArgs {
    /// What to call it; one of that name is replaced
    #[arg(long, value_name = "NAME", default_value = NAME, value_parser = values::image_name)]
    name: String,
    /// The suite of Debian [default: this machine's own]
    #[arg(long, value_name = "SUITE", value_parser = values::suite)]
    suite: Option<String>,
    /// One more package; can be given again
    #[arg(long, value_name = "PACKAGE", value_parser = values::package)]
    package: Vec<String>,
    /// The static mayfly to put into it [default: this program]
    #[arg(long, value_name = "PATH")]
    mayfly: Option<PathBuf>,
    /// Make it fit to start virtual machines of this box too: `microvm`
    #[arg(long = "for", value_name = "KIND", value_parser = values::image_for)]
    kind: Option<ProviderName>,
    /// The kernel of virtual machines, a bzImage [default: Debian's, for clouds]
    #[arg(long, value_name = "PATH", requires = "kind")]
    kernel: Option<PathBuf>,
    /// Print one JSON object, and nothing else
    #[arg(long)]
    json: bool,
}

/// List the images
#[derive(Debug, clap::Args)]
struct LsArgs {
    /// Print the images, one JSON object a line, and nothing else
    #[arg(long)]
    json: bool,
}

/// Show what an image has in it
#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// Its name
    #[arg(value_name = "NAME", default_value = NAME, value_parser = values::image_name)]
    name: String,
    /// Print one JSON object, and nothing else
    #[arg(long)]
    json: bool,
}

/// Remove an image, and what no other image has
#[derive(Debug, clap::Args)]
struct RmArgs {
    /// Its name
    #[arg(value_name = "NAME", value_parser = values::image_name)]
    name: String,
}

impl ImageArgs {
    pub(crate) fn over(&self, flags: Flags) -> Flags {
        let ImageVerb::Build(args) = &self.verb else { return flags };
        let packages = (!args.package.is_empty()).then(|| Packages(args.package.clone()));
        Flags { suite: args.suite.clone(), packages, ..flags }
    }
}

pub(crate) async fn image(
    args: ImageArgs,
    settings: &Settings,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let systems = Systems::in_folder(environment.systems_folder().ok_or_else(nowhere)?);
    let kept = Kept { store: store(environment)?, systems };
    match args.verb {
        ImageVerb::Build(args) => build::build(args, kept, settings, environment).await,
        ImageVerb::Ls(LsArgs { json }) => show::list(&kept, Printer::of_lines(json, environment), json),
        ImageVerb::Inspect(InspectArgs { name, json }) => {
            show::inspect(&kept, &name, Printer::of_lines(json, environment), json)
        }
        ImageVerb::Rm(RmArgs { name }) => show::remove(&kept, &name, Printer::of_lines(false, environment)),
    }
}

/// Where this user's images are.
pub(super) fn store(environment: &Environment) -> Result<Store, Stop> {
    Ok(Store::in_folder(environment.cache_folder().ok_or_else(nowhere)?.join("images")))
}

fn nowhere() -> Stop {
    Stop::wrong("cannot tell where to keep images: set HOME, or XDG_CACHE_HOME to an absolute path")
}

/// All that is kept.
struct Kept {
    store: Store,
    systems: Systems,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use mayfly_image::debian;

    use super::*;
    use crate::claude::pin;

    #[test]
    fn the_dockerfile_makes_the_same() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/fly/Dockerfile");
        let text = fs::read_to_string(path).expect("a Dockerfile");
        let image = text.split("\nFROM ").last().expect("the last stage");
        let packages =
            image.split_once("--no-install-recommends").and_then(|(_, after)| after.split_once("&&"));
        let packages: Vec<&str> = packages.expect("packages").0.split(['\\', '\n', ' ']).collect();
        let packages: Vec<&str> = packages.into_iter().filter(|name| !name.is_empty()).collect();
        assert_eq!(packages, debian::PACKAGES);
        for (from, to) in [("claude", boot::CLAUDE), ("mayfly", boot::MAYFLY)] {
            assert!(image.contains(&format!("COPY --from={from} /{from} {to}\n")), "{from}");
        }
        assert!(image.contains(&format!("useradd --uid {0} --gid {0}", boot::AGENT_ID)));
        let run = mayfly_image::parts::run(boot::MAYFLY, std::collections::BTreeMap::new());
        assert!(image.contains(&format!("ENV {}\n", run.env[0])));
        assert!(image.contains(&format!("ENTRYPOINT [\"{}\"]\n", run.entrypoint[0])));
        // What Fly's machines have.
        let pin = pin::X64;
        let named =
            [format!("npm pack {}@{} ", pin.package, pin::VERSION), format!("\"{}  /claude\"", pin.sha256)];
        assert!(named.iter().all(|words| text.contains(words)), "{named:?}");
    }

    #[test]
    fn the_help_names_the_packages() {
        let words: Vec<&str> = BUILD_EXAMPLES.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
        for package in debian::PACKAGES {
            assert!(words.contains(&package), "{package}");
        }
    }
}
