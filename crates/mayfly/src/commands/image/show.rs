//! `mayfly image ls|inspect|rm`, and what is said of an image that was built.

use mayfly_image::Image;
use mayfly_wire::system::LIST;
use serde::Serialize;

use super::{CLAUDE, Kept, PACKAGES, SUITE, VERSION};
use crate::exit::{Exit, Stop};
use crate::printer::Printer;

/// The digits of a digest that tell images apart.
const SHORT_CHARS: usize = "sha256:".len() + 12;

/// An image, as `--json` has it.
#[derive(Debug, Clone, Serialize)]
struct Shown<'a> {
    name: &'a str,
    digest: &'a str,
    os: &'a str,
    architecture: &'a str,
    bytes: u64,
    claude: &'a str,
    mayfly: &'a str,
    suite: &'a str,
    /// The layout that it is in, by its own name.
    layout: String,
    /// What virtual machines start from, if that was made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    layers: Vec<ShownLayer<'a>>,
    packages: Vec<&'a str>,
}

#[derive(Debug, Clone, Serialize)]
struct ShownLayer<'a> {
    digest: &'a str,
    bytes: u64,
    has: &'a str,
}

impl<'a> Shown<'a> {
    fn of(image: &'a Image, Kept { store, systems }: &Kept) -> Self {
        let system = systems.place(&image.name);
        let label = |name| image.config.config.labels.get(name).map_or("", String::as_str);
        let layers = image.manifest.layers.iter().zip(&image.config.history);
        Self {
            name: &image.name,
            digest: &image.descriptor.digest,
            os: &image.config.os,
            architecture: &image.config.architecture,
            bytes: image.bytes(),
            claude: label(CLAUDE),
            mayfly: label(VERSION),
            suite: label(SUITE),
            layout: store.folder().display().to_string(),
            system: system.join(LIST).exists().then(|| system.display().to_string()),
            layers: layers
                .map(|(layer, history)| ShownLayer {
                    digest: &layer.digest,
                    bytes: layer.size,
                    has: &history.created_by,
                })
                .collect(),
            packages: label(PACKAGES).split_whitespace().collect(),
        }
    }

    /// A line for each thing about it.
    fn lines(&self) -> Vec<String> {
        let Self { name, digest, os, architecture, bytes, claude, mayfly, suite, layout, .. } = self;
        let Self { system, layers, packages, .. } = self;
        let mut lines = vec![
            format!("name      {name}"),
            format!("digest    {digest}"),
            format!("platform  {os}/{architecture}"),
            format!("size      {}, packed", megabytes(*bytes)),
            format!("claude    {claude}"),
            format!("mayfly    {mayfly}"),
            format!("suite     {suite}, {} packages", packages.len()),
            format!("layout    {layout}"),
        ];
        lines.extend(system.iter().map(|system| format!("system    {system}")));
        let layer = |layer: &ShownLayer<'_>| {
            format!("layer     {}  {:>7}  {}", short(layer.digest), megabytes(layer.bytes), layer.has)
        };
        lines.extend(layers.iter().map(layer));
        lines
    }
}

/// Says what was built.
pub(super) fn built(image: &Image, kept: &Kept, json: bool, printer: &mut Printer) {
    let shown = Shown::of(image, kept);
    match json {
        true => printer.json(&shown),
        false => shown.lines().iter().for_each(|line| printer.closing(line)),
    }
}

pub(super) fn list(kept: &Kept, mut printer: Printer, json: bool) -> Result<Exit, Stop> {
    let images = kept.store.images()?;
    let shown: Vec<Shown<'_>> = images.iter().map(|image| Shown::of(image, kept)).collect();
    match (json, shown.is_empty()) {
        (true, _) => shown.iter().for_each(|image| printer.json(image)),
        (false, true) => printer.aside("there are no images: `mayfly image build` builds one"),
        (false, false) => table(&shown).iter().for_each(|line| printer.closing(line)),
    }
    printer.exit(Exit::Success)
}

pub(super) fn inspect(kept: &Kept, name: &str, mut printer: Printer, json: bool) -> Result<Exit, Stop> {
    let image = kept.store.image(name)?.ok_or_else(|| unknown(name))?;
    built(&image, kept, json, &mut printer);
    printer.exit(Exit::Success)
}

pub(super) fn remove(kept: &Kept, name: &str, mut printer: Printer) -> Result<Exit, Stop> {
    // Nothing is made where nothing is.
    let store = &kept.store;
    store.image(name)?.ok_or_else(|| unknown(name))?;
    let lock = store.lock(|| printer.aside("another mayfly is building an image; waiting for it"))?;
    if !store.remove(name, &lock)? {
        return Err(unknown(name));
    }
    kept.systems.remove(name, &lock)?;
    printer.aside("removed");
    printer.exit(Exit::Success)
}

fn unknown(name: &str) -> Stop {
    Stop::wrong(format!(
        "there is no image `{name}`: `mayfly image ls` lists them, and `mayfly image build --name {name}` builds it"
    ))
}

/// A heading and a line for each.
fn table(images: &[Shown<'_>]) -> Vec<String> {
    let heading = ["NAME", "DIGEST", "PLATFORM", "SIZE", "CLAUDE", "MAYFLY", "SUITE"].map(str::to_owned);
    let row = |image: &Shown<'_>| {
        [
            image.name.to_owned(),
            short(image.digest).to_owned(),
            format!("{}/{}", image.os, image.architecture),
            megabytes(image.bytes),
            short(image.claude).to_owned(),
            image.mayfly.to_owned(),
            image.suite.to_owned(),
        ]
    };
    let rows: Vec<_> = [heading].into_iter().chain(images.iter().map(row)).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; 7]| {
        let cells: Vec<_> =
            row.iter().enumerate().map(|(at, cell)| format!("{cell:0$}", width(at))).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn short(digest: &str) -> &str {
    digest.get(..SHORT_CHARS).unwrap_or(digest)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_and_an_image_are_shown() {
        let image = Shown {
            name: "mayfly",
            digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            os: "linux",
            architecture: "amd64",
            bytes: 262_999_001,
            claude: "2.1.330",
            mayfly: "0.1.0",
            suite: "bookworm",
            layout: "/home/you/.cache/mayfly/images".to_owned(),
            system: Some("/home/you/.cache/mayfly/systems/mayfly".to_owned()),
            layers: vec![ShownLayer {
                digest: "sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210",
                bytes: 1,
                has: "2 packages of bookworm",
            }],
            packages: vec!["bash=5.2", "git=1:2.39"],
        };
        insta::assert_snapshot!(image.lines().join("\n"), @"
        name      mayfly
        digest    sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        platform  linux/amd64
        size      263 MB, packed
        claude    2.1.330
        mayfly    0.1.0
        suite     bookworm, 2 packages
        layout    /home/you/.cache/mayfly/images
        system    /home/you/.cache/mayfly/systems/mayfly
        layer     sha256:fedcba987654     1 MB  2 packages of bookworm
        ");
        let other = Shown { name: "a", claude: image.layers[0].digest, layers: Vec::new(), ..image.clone() };
        insta::assert_snapshot!(table(&[other, image]).join("\n"), @"
        NAME    DIGEST               PLATFORM     SIZE    CLAUDE               MAYFLY  SUITE
        a       sha256:0123456789ab  linux/amd64  263 MB  sha256:fedcba987654  0.1.0   bookworm
        mayfly  sha256:0123456789ab  linux/amd64  263 MB  2.1.330              0.1.0   bookworm
        ");
    }
}
