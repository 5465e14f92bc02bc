//! What virtual machines of this box start from: an image's root as a file system, with a kernel and an initramfs.
//!
//! A system is a folder, made beside the others and put in its place as a whole. It is known by what it is made of before it
//! is made, and is made once; it is looked at byte by byte before it counts as there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use mayfly_core::sha256_of;
use mayfly_wire::system::{FILES, IMAGE, INITRAMFS, KERNEL, KERNEL_ELF, LIST, System};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::erofs;
use crate::gone::Watch;
use crate::kernel::Kernel;
use crate::layer;
use crate::store::{Image, Lock, Store};
use crate::tree::{BadTree, Tree};

/// Counts the ways in which systems were made: another number makes all of them again.
const RECIPE: u32 = 1;
/// What a folder is called until it is whole.
const UNFINISHED: &str = ".new-";

/// The systems of a user, a folder for each.
#[derive(Debug)]
pub struct Systems {
    folder: PathBuf,
}

/// What a system is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// What its root is.
    pub image: &'a Image,
    /// Where the kernel is from: packages with their versions, or a file and what is in it.
    pub kernel: &'a str,
}

impl Parts<'_> {
    fn key(&self) -> String {
        let parts = format!("{RECIPE}\n{}\n{}", self.image.descriptor.digest, self.kernel);
        hex::encode(Sha256::digest(parts))
    }
}

impl Systems {
    /// Those in a folder, which need not be there yet.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the one of a name is.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The one of a name, if it is there, whole, and made of these parts.
    pub fn find(&self, name: &str, parts: &Parts<'_>, _lock: &Lock) -> Option<System> {
        let place = self.place(name);
        let system: System = serde_json::from_slice(&fs::read(place.join(LIST)).ok()?).ok()?;
        let is_whole = |file: &&str| {
            let is = File::open(place.join(file)).and_then(sha256_of);
            is.is_ok_and(|is| system.files.get(*file) == Some(&is))
        };
        (system.key == parts.key() && FILES.iter().all(is_whole)).then_some(system)
    }

    /// Makes it of this kernel and of what `store` has, in the place of one of its name.
    pub fn make(
        &self,
        name: &str,
        parts: &Parts<'_>,
        (kernel, elf): (&Kernel, &[u8]),
        store: &Store,
        watch: Watch<'_>,
        _lock: &Lock,
    ) -> Result<System, SystemError> {
        let scratch = self.scratch().map_err(|source| self.failed(source))?;
        let at = scratch.path();
        let initramfs = kernel.initramfs().map_err(|source| self.failed(source))?;
        for (file, content) in [(KERNEL, &*kernel.bz_image), (KERNEL_ELF, elf), (INITRAMFS, &*initramfs)] {
            fs::write(at.join(file), content).map_err(|source| self.failed(source))?;
        }
        let image = File::create_new(at.join(IMAGE)).map_err(|source| self.failed(source))?;
        erofs::write(&tree(store, parts.image, at)?, &image, watch)?;
        self.finish(name, parts, scratch).map_err(|source| self.failed(source))
    }

    /// Removes the one of a name, if there is one.
    pub fn remove(&self, name: &str, _lock: &Lock) -> Result<(), SystemError> {
        match fs::remove_dir_all(self.place(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| self.failed(source)),
        }
    }

    /// A folder that is no system yet; those that were given up go.
    fn scratch(&self) -> io::Result<TempDir> {
        fs::create_dir_all(&self.folder)?;
        for entry in fs::read_dir(&self.folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder)
    }

    /// Lists what is there, and puts all of it in its place.
    fn finish(&self, name: &str, parts: &Parts<'_>, made: TempDir) -> io::Result<System> {
        let mut files = BTreeMap::new();
        for file in FILES {
            let is = File::open(made.path().join(file))?;
            is.sync_all()?;
            files.insert(file.to_owned(), sha256_of(&is)?);
        }
        let system = System {
            key: parts.key(),
            image: parts.image.descriptor.digest.clone(),
            kernel: parts.kernel.to_owned(),
            files,
        };
        let mut list = File::create_new(made.path().join(LIST))?;
        list.write_all(&serde_json::to_vec(&system)?)?;
        list.sync_all()?;
        let place = self.place(name);
        match place.exists() {
            // The other one goes with the folder that this one was made in.
            true => renameat_with(CWD, made.path(), CWD, &place, RenameFlags::EXCHANGE)?,
            false => fs::rename(made.keep(), &place)?,
        }
        File::open(&self.folder)?.sync_all()?;
        Ok(system)
    }

    fn failed(&self, source: io::Error) -> SystemError {
        SystemError::Io { folder: self.folder.clone(), source }
    }
}

/// All layers of an image as one.
fn tree(store: &Store, image: &Image, scratch: &Path) -> Result<Tree, BadTree> {
    let mut tree = Tree::default();
    for layer in image.manifest.layers.iter().filter_map(|layer| layer.sha256()) {
        let blob = File::open(store.blob(layer)).map_err(BadTree::Unreadable)?;
        layer::add_to(&mut tree, blob, scratch)?;
    }
    tree.check_folders()?;
    Ok(tree)
}

/// Why there is no system.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The system says no.
    #[error("cannot make a system for virtual machines in `{}`", folder.display())]
    Io {
        /// Where it was to be.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The image's files cannot be one.
    #[error(transparent)]
    Tree(#[from] BadTree),
}
