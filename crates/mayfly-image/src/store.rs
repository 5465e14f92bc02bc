//! The images of a user, as one OCI layout, and which layers are in it already.
//!
//! ```text
//! oci-layout, index.json       the images, by name
//! blobs/sha256/                manifests, configs and layers
//! layers/{key}.json            which blob is the layer of what: the key is the SHA-256 of all that goes into it
//! lock                         whoever changes something waits here
//! ```
//!
//! Any tool that reads layouts reads it. A blob has its name only once it is whole and on the disk; what nobody names is removed
//! when an image was added or removed, so that layers of a build that was given up wait for the next.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mayfly_core::sha256_of;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::gone::Watch;
use crate::layer;
use crate::oci::{
    self, BLOBS, CONFIG, Config, Descriptor, History, INDEX_FILE, Index, LAYER, LAYOUT, LAYOUT_FILE,
    MANIFEST, Manifest, Platform, RootFs, Run,
};
use crate::tree::Tree;

/// The folder of notes about layers.
const LAYERS: &str = "layers";
/// What a file is called until it is whole.
const UNFINISHED: &str = ".new-";
/// The largest document.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// The images of a user.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A layer that is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Its blob's SHA-256.
    sha256: String,
    /// How long that is.
    bytes: u64,
    /// The SHA-256 of its tar.
    tar_sha256: String,
}

/// An image that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What it is called here.
    pub name: String,
    /// Its manifest.
    pub descriptor: Descriptor,
    /// What that names.
    pub manifest: Manifest,
    /// How it is run.
    pub config: Config,
}

impl Image {
    /// How much of it travels: its layers, and what names them.
    pub fn bytes(&self) -> u64 {
        let layers: u64 = self.manifest.layers.iter().map(|layer| layer.size).sum();
        layers + self.descriptor.size + self.manifest.config.size
    }
}

/// Nobody else changes the store while it is there.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// The one in a folder, which need not be there yet.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for its turn to change something, and makes the folder if there is none; `waits` is called before a wait.
    pub fn lock(&self, waits: impl FnOnce()) -> Result<Lock, StoreError> {
        let make = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let path = self.folder.join("lock");
            let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
            if file.try_lock().is_err() {
                waits();
                file.lock()?;
            }
            for folder in [BLOBS, LAYERS] {
                fs::create_dir_all(self.folder.join(folder))?;
            }
            if !self.folder.join(LAYOUT_FILE).exists() {
                self.place(LAYOUT_FILE, LAYOUT.as_bytes())?;
            }
            Ok(Lock { _file: file })
        };
        make().map_err(|source| failed(&self.folder, source))
    }

    /// The layer that is made of what has this key, if it is there, whole and as it was.
    pub fn layer(&self, key: &str, _lock: &Lock) -> Result<Option<Layer>, StoreError> {
        let note = self.folder.join(LAYERS).join(format!("{key}.json"));
        let Ok(text) = fs::read(&note) else { return Ok(None) };
        let Ok(layer) = serde_json::from_slice::<Layer>(&text) else { return Ok(None) };
        let blob = self.blob(&layer.sha256);
        match File::open(&blob).and_then(sha256_of) {
            Ok(is) if is == layer.sha256 => Ok(Some(layer)),
            // It is made again.
            Ok(_) => fs::remove_file(&blob).map(|()| None).map_err(|source| failed(&blob, source)),
            Err(_) => Ok(None),
        }
    }

    /// Makes the layer of what has this key.
    pub fn add_layer(
        &self,
        key: &str,
        tree: &Tree,
        watch: Watch<'_>,
        _lock: &Lock,
    ) -> Result<Layer, StoreError> {
        let mut make = || -> io::Result<Layer> {
            let mut file = self.unfinished()?;
            let written = layer::write(tree, &mut file, watch)?;
            self.name(file, &format!("{BLOBS}/{}", written.sha256))?;
            let layer::Written { sha256, bytes, tar_sha256 } = written;
            let layer = Layer { sha256, bytes, tar_sha256 };
            let note = serde_json::to_vec(&layer).expect("it is JSON");
            self.place(&format!("{LAYERS}/{key}.json"), &note)?;
            Ok(layer)
        };
        make().map_err(|source| failed(&self.folder, source))
    }

    /// Adds an image of these layers, each with what it has, in the place of one of its name; what nobody names then is gone.
    pub fn put(
        &self,
        name: &str,
        processors: &str,
        run: Run,
        layers: &[(Layer, String)],
        lock: &Lock,
    ) -> Result<Image, StoreError> {
        let diff_ids = layers.iter().map(|(layer, _)| oci::digest(&layer.tar_sha256)).collect();
        let config = Config {
            created: layer::TIME_TEXT.to_owned(),
            architecture: processors.to_owned(),
            os: "linux".to_owned(),
            config: run,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
            history: layers.iter().map(|(_, has)| History::of(has)).collect(),
        };
        let of = |(layer, _): &(Layer, String)| Descriptor::new(LAYER, &layer.sha256, layer.bytes);
        let manifest = Manifest::new(self.document(CONFIG, &config)?, layers.iter().map(of).collect());
        let mut descriptor = self.document(MANIFEST, &manifest)?;
        descriptor.platform =
            Some(Platform { architecture: config.architecture.clone(), os: config.os.clone() });
        descriptor.annotations.insert(oci::REF_NAME.to_owned(), name.to_owned());
        let mut others = self.index()?.manifests;
        others.retain(|other| other.ref_name() != Some(name));
        others.push(descriptor.clone());
        others.sort_by(|one, other| one.ref_name().cmp(&other.ref_name()));
        self.set_index(others, lock)?;
        Ok(Image { name: name.to_owned(), descriptor, manifest, config })
    }

    /// All images, by name.
    pub fn images(&self) -> Result<Vec<Image>, StoreError> {
        self.index()?.manifests.into_iter().map(|descriptor| self.image_of(descriptor)).collect()
    }

    /// The image of a name.
    pub fn image(&self, name: &str) -> Result<Option<Image>, StoreError> {
        let found = self.index()?.manifests.into_iter().find(|found| found.ref_name() == Some(name));
        found.map(|descriptor| self.image_of(descriptor)).transpose()
    }

    /// Removes an image, and what nobody names then. Whether there was one of that name.
    pub fn remove(&self, name: &str, lock: &Lock) -> Result<bool, StoreError> {
        let mut manifests = self.index()?.manifests;
        let before = manifests.len();
        manifests.retain(|image| image.ref_name() != Some(name));
        let found = manifests.len() < before;
        if found {
            self.set_index(manifests, lock)?;
        }
        Ok(found)
    }

    /// Where a blob is.
    pub fn blob(&self, sha256: &str) -> PathBuf {
        self.folder.join(BLOBS).join(sha256)
    }

    fn image_of(&self, descriptor: Descriptor) -> Result<Image, StoreError> {
        let name = descriptor.ref_name().unwrap_or_default().to_owned();
        let manifest: Manifest = self.read_blob(&descriptor)?;
        let config = self.read_blob(&manifest.config)?;
        Ok(Image { name, descriptor, manifest, config })
    }

    /// Which images there are; none where there is no store.
    fn index(&self) -> Result<Index, StoreError> {
        let path = self.folder.join(INDEX_FILE);
        match read_short(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::new(Vec::new())),
            Err(source) => Err(failed(&path, source)),
            Ok(bytes) => self.parse(&path, &bytes),
        }
    }

    fn set_index(&self, manifests: Vec<Descriptor>, _lock: &Lock) -> Result<(), StoreError> {
        let index = Index::new(manifests);
        let placed = self.place(INDEX_FILE, &serde_json::to_vec(&index).expect("it is JSON"));
        placed.map_err(|source| failed(&self.folder, source))?;
        let named = self.named(&index)?;
        self.sweep(&named).map_err(|source| failed(&self.folder, source))
    }

    /// All that images name.
    fn named(&self, index: &Index) -> Result<BTreeSet<String>, StoreError> {
        let mut named = BTreeSet::new();
        for descriptor in &index.manifests {
            let manifest: Manifest = self.read_blob(descriptor)?;
            let all = [descriptor, &manifest.config].into_iter().chain(&manifest.layers);
            named.extend(all.filter_map(|blob| Some(blob.sha256()?.to_owned())));
        }
        Ok(named)
    }

    /// Removes what nobody names, and what was never finished.
    fn sweep(&self, named: &BTreeSet<String>) -> io::Result<()> {
        let blobs = self.folder.join(BLOBS);
        remove(&blobs, |name| !named.contains(name))?;
        remove(&self.folder, |name| name.starts_with(UNFINISHED))?;
        let notes = self.folder.join(LAYERS);
        let is_of_none = |name: &str| {
            let note = fs::read(notes.join(name)).unwrap_or_default();
            let layer = serde_json::from_slice::<Layer>(&note);
            layer.map_or(true, |layer| !named.contains(&layer.sha256))
        };
        remove(&notes, is_of_none)
    }

    fn document<T: Serialize>(&self, media_type: &str, document: &T) -> Result<Descriptor, StoreError> {
        let bytes = serde_json::to_vec(document).expect("it is JSON");
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let placed = self.place(&format!("{BLOBS}/{sha256}"), &bytes);
        placed.map_err(|source| failed(&self.folder, source))?;
        Ok(Descriptor::new(media_type, &sha256, bytes.len() as u64))
    }

    fn read_blob<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, StoreError> {
        let path = self.blob(descriptor.sha256().ok_or_else(|| self.damaged(INDEX_FILE.as_ref()))?);
        let bytes = read_short(&path).map_err(|source| failed(&path, source))?;
        let is = hex::encode(Sha256::digest(&bytes));
        match oci::digest(&is) == descriptor.digest {
            true => self.parse(&path, &bytes),
            false => Err(self.damaged(&path)),
        }
    }

    fn parse<T: DeserializeOwned>(&self, path: &Path, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|_| self.damaged(path))
    }

    /// A file that is not what it is to be yet.
    fn unfinished(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)
    }

    /// A reader sees all of it or what was there before.
    fn place(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut file = self.unfinished()?;
        file.write_all(content)?;
        self.name(file, path)
    }

    fn name(&self, file: NamedTempFile, path: &str) -> io::Result<()> {
        file.as_file().sync_all()?;
        let path = self.folder.join(path);
        file.persist(&path)?;
        File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
    }

    fn damaged(&self, path: &Path) -> StoreError {
        StoreError::Damaged { path: self.folder.join(path), folder: self.folder.clone() }
    }
}

fn failed(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

/// Removes the files of a folder that are no folders, and of which this holds.
fn remove(folder: &Path, is_gone: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().to_str().is_some_and(&is_gone) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn read_short(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path)?, DOCUMENT_BYTES_MAX + 1), &mut bytes)?;
    match bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        true => Err(io::Error::other("it is longer than such a file can be")),
        false => Ok(bytes),
    }
}

/// Why the store does not do what it is to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system says no.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file, or the folder that it is in.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error(
        "`{}` is not as mayfly wrote it: remove the folder `{}`, and build the images again",
        path.display(), folder.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// All of the store.
        folder: PathBuf,
    },
}

#[cfg(test)]
mod tests;
