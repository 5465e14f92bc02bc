//! The documents of an OCI layout, as far as ours go: nothing in them is left to chance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::layer::TIME_TEXT;

/// The file that says that a folder is a layout, and what it holds.
pub const LAYOUT_FILE: &str = "oci-layout";
/// What that says.
pub const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The file that names the images.
pub const INDEX_FILE: &str = "index.json";
/// The folder of everything else, each by its SHA-256.
pub const BLOBS: &str = "blobs/sha256";

/// What each document is.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The one that names a config and layers.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The one that says how an image is run.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A tar, packed by gzip.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The note that has an image's name in a layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What stands before a SHA-256.
const SHA256: &str = "sha256:";

/// Something that is named by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its SHA-256, with the word before it.
    pub digest: String,
    /// How many bytes it has.
    pub size: u64,
    /// For which machines it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What is noted about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// Its processors.
    pub architecture: String,
    /// Its system.
    pub os: String,
}

/// Which images there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Index {
    /// Of which version it is.
    pub schema_version: u32,
    /// What it is.
    pub media_type: String,
    /// The images.
    pub manifests: Vec<Descriptor>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Of which version it is.
    pub schema_version: u32,
    /// What it is.
    pub media_type: String,
    /// How it is run.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// How an image is run, and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When it was made; the same for all.
    pub created: String,
    /// Its processors.
    pub architecture: String,
    /// Its system.
    pub os: String,
    /// How it is run.
    pub config: Run,
    /// What its layers are when they are unpacked.
    pub rootfs: RootFs,
    /// What each layer has.
    pub history: Vec<History>,
}

/// How an image is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Run {
    /// Its variables.
    pub env: Vec<String>,
    /// Its program.
    pub entrypoint: Vec<String>,
    /// Where that begins.
    pub working_dir: String,
    /// What is noted about it.
    pub labels: BTreeMap<String, String>,
}

/// What layers are when they are unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootFs {
    /// The word `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The SHA-256 of each tar.
    pub diff_ids: Vec<String>,
}

/// What a layer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// When it was made; the same for all.
    pub created: String,
    /// What it has.
    pub created_by: String,
}

impl Descriptor {
    /// Of a blob.
    pub fn new(media_type: &str, sha256: &str, size: u64) -> Self {
        let (media_type, digest) = (media_type.to_owned(), digest(sha256));
        Self { media_type, digest, size, platform: None, annotations: BTreeMap::new() }
    }

    /// Its SHA-256 alone, if it is one.
    pub fn sha256(&self) -> Option<&str> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        self.digest.strip_prefix(SHA256).filter(|text| text.len() == 64 && text.bytes().all(is_digit))
    }

    /// The name that a layout has for it.
    pub fn ref_name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

impl Index {
    /// One that names these.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: INDEX.to_owned(), manifests }
    }
}

impl Manifest {
    /// One of these.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: MANIFEST.to_owned(), config, layers }
    }
}

impl History {
    /// Of a layer with this.
    pub fn of(created_by: &str) -> Self {
        Self { created: TIME_TEXT.to_owned(), created_by: created_by.to_owned() }
    }
}

/// A SHA-256 as OCI writes it.
pub fn digest(sha256: &str) -> String {
    format!("{SHA256}{sha256}")
}
