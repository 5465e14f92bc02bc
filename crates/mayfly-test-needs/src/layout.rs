//! An OCI layout, read as strictly as its specification allows, by types of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};

/// An image of a layout.
#[derive(Debug)]
pub struct Image {
    /// What the layout calls it.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// Its configuration.
    pub config: Value,
    /// Its layers, the lowest first.
    pub layers: Vec<Vec<Member>>,
}

/// An entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path, without a slash at its ends.
    pub path: String,
    /// What it is.
    pub kind: EntryType,
    /// Its permissions.
    pub mode: u32,
    /// Its owner, by numbers.
    pub owner: (u64, u64),
    /// Where it leads, if it is a link.
    pub to: Option<String>,
    /// Its content, if that is short.
    pub text: Option<String>,
}

/// The longest content that is kept.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// Reads a layout, and every byte of what it names.
///
/// # Panics
///
/// If anything in it is not as the specification has it, or if there is a blob that no image names.
pub fn check(folder: &Path) -> Vec<Image> {
    let layout = fs::read_to_string(folder.join("oci-layout")).expect("a layout");
    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = fs::read(folder.join("index.json")).expect("an index");
    let index = document(&index, &["schemaVersion", "mediaType", "manifests"]);
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let mut named = BTreeSet::new();
    let manifests = index["manifests"].as_array().expect("a list");
    let images = manifests.iter().map(|manifest| image(folder, manifest, &mut named)).collect();
    for blob in fs::read_dir(folder.join("blobs/sha256")).expect("a folder") {
        let blob = blob.expect("a file").file_name().into_string().expect("digits");
        assert!(named.contains(&blob), "no image names {blob}");
    }
    images
}

fn image(folder: &Path, named_by: &Value, named: &mut BTreeSet<String>) -> Image {
    let descriptor = fields(named_by, &["mediaType", "digest", "size", "platform", "annotations"]);
    assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let annotations: BTreeMap<String, String> =
        serde_json::from_value(descriptor["annotations"].clone()).expect("texts");
    let name = annotations["org.opencontainers.image.ref.name"].clone();
    assert_eq!(annotations.len(), 1);
    let manifest =
        document(&blob(folder, named_by, named), &["schemaVersion", "mediaType", "config", "layers"]);
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["mediaType"], descriptor["mediaType"]);
    let of_config = fields(&manifest["config"], &["mediaType", "digest", "size"]);
    assert_eq!(of_config["mediaType"], "application/vnd.oci.image.config.v1+json");
    let config = blob(folder, &manifest["config"], named);
    let config = document(&config, &["created", "architecture", "os", "config", "rootfs", "history"]);
    let platform = fields(&descriptor["platform"], &["architecture", "os"]);
    assert!(["amd64", "arm64"].contains(&platform["architecture"].as_str().expect("a text")));
    assert_eq!(platform["os"], "linux");
    assert_eq!((&platform["architecture"], &platform["os"]), (&config["architecture"], &config["os"]));
    let run = fields(&config["config"], &["Env", "Entrypoint", "WorkingDir", "Labels"]);
    assert!(
        run["Env"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|text| text.as_str().expect("a text").contains('='))
    );
    let layers = layers(folder, &manifest["layers"], &config, named);
    let digest = descriptor["digest"].as_str().expect("a text").to_owned();
    Image { name, digest, config: Value::Object(config), layers }
}

fn layers(
    folder: &Path,
    layers: &Value,
    config: &Map<String, Value>,
    named: &mut BTreeSet<String>,
) -> Vec<Vec<Member>> {
    let layers = layers.as_array().expect("a list");
    let rootfs = fields(&config["rootfs"], &["type", "diff_ids"]);
    assert_eq!(rootfs["type"], "layers");
    let ids = rootfs["diff_ids"].as_array().expect("a list");
    let history = config["history"].as_array().expect("a list");
    assert_eq!((ids.len(), history.len()), (layers.len(), layers.len()));
    for of in history {
        fields(of, &["created", "created_by"]);
    }
    let read = |(layer, id): (&Value, &Value)| {
        let descriptor = fields(layer, &["mediaType", "digest", "size"]);
        assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        let (members, tar) = members(&path(folder, layer, named));
        assert_eq!(*id, format!("sha256:{tar}"), "the id is that of the tar");
        members
    };
    layers.iter().zip(ids).map(read).collect()
}

/// The entries of a layer, and the SHA-256 of its tar.
fn members(path: &Path) -> (Vec<Member>, String) {
    let mut tar = Hashed { from: GzDecoder::new(File::open(path).expect("a blob")), hash: Sha256::new() };
    let mut archive = Archive::new(&mut tar);
    let mut members: Vec<Member> = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let text = utf8(&entry.path_bytes());
        let header = entry.header().clone();
        let path = text.trim_end_matches('/').to_owned();
        assert_eq!(text.ends_with('/'), header.entry_type() == EntryType::Directory, "{text}");
        assert!(
            path.split('/').all(|part| !["", ".", ".."].contains(&part) && !part.starts_with(".wh.")),
            "{path}"
        );
        assert!(members.last().is_none_or(|last| last.path < path), "{path} is out of its order");
        assert_eq!(
            (header.username_bytes(), header.groupname_bytes()),
            (Some(&b""[..]), Some(&b""[..])),
            "{path}"
        );
        let mode = header.mode().expect("a number");
        assert_eq!(mode & !0o1777, 0, "{path}");
        let to = entry.link_name_bytes().map(|to| utf8(&to));
        if header.entry_type() == EntryType::Link {
            let same = members.iter().find(|member| Some(&member.path) == to.as_ref());
            assert!(
                same.is_some_and(|same| same.kind == EntryType::Regular),
                "{path} is the same as nothing before it"
            );
        }
        let mut content = String::new();
        let is_text = entry.size() <= TEXT_BYTES_MAX && entry.read_to_string(&mut content).is_ok();
        let owner = (header.uid().expect("a number"), header.gid().expect("a number"));
        let text = is_text.then_some(content);
        members.push(Member { path, kind: header.entry_type(), mode, owner, to, text });
    }
    io::copy(&mut tar, &mut io::sink()).expect("read to its end");
    (members, hex::encode(tar.hash.finalize()))
}

struct Hashed<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

/// The blob that a descriptor names, as short as a document is.
fn blob(folder: &Path, descriptor: &Value, named: &mut BTreeSet<String>) -> Vec<u8> {
    fs::read(path(folder, descriptor, named)).expect("a blob")
}

/// Where it is, if it is what it is called, and as long as it is said to be.
fn path(folder: &Path, descriptor: &Value, named: &mut BTreeSet<String>) -> std::path::PathBuf {
    let digest = descriptor["digest"].as_str().expect("a text");
    let name = digest.strip_prefix("sha256:").expect("a SHA-256");
    let path = folder.join("blobs/sha256").join(name);
    let mut hash = Hashed { from: File::open(&path).expect("a blob"), hash: Sha256::new() };
    let size = io::copy(&mut hash, &mut io::sink()).expect("read");
    assert_eq!(hex::encode(hash.hash.finalize()), name);
    assert_eq!(descriptor["size"], size, "{digest}");
    named.insert(name.to_owned());
    path
}

fn document(bytes: &[u8], names: &[&str]) -> Map<String, Value> {
    fields(&serde_json::from_slice(bytes).expect("JSON"), names)
}

/// The fields of an object, which has all of these, and no other.
fn fields(value: &Value, names: &[&str]) -> Map<String, Value> {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    let (has, is_to_have): (BTreeSet<&str>, BTreeSet<&str>) =
        (object.keys().map(String::as_str).collect(), names.iter().copied().collect());
    assert_eq!(has, is_to_have, "{value}");
    object.clone()
}
