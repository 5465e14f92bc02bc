//! One resource, read whole.

use crate::id::ResourceId;
use crate::kinds::mcp::Server;
use crate::kinds::own::{self, Own};
use crate::kinds::{self, What};
use crate::pack;
use crate::problem::Problems;
use crate::tool::Tool;
use crate::tree::File;

/// A resource with all that is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Which it is.
    pub id: ResourceId,
    /// Its files, by path.
    pub files: Vec<File>,
    /// What they make of it.
    pub what: What,
    /// What mayfly is told beside it.
    pub own: Own,
    /// The SHA-256 of its archive, in hex: what it is, by content.
    pub sha256: String,
}

impl Resource {
    /// What `files`, by path, make of the resource `id`.
    pub fn read(id: ResourceId, files: Vec<File>) -> Result<Self, Problems> {
        let what = kinds::read(&id, &files)?;
        let own = own::read(&id, &files)?;
        let sha256 = pack::name_of(&files);
        Ok(Self { id, files, what, own, sha256 })
    }

    /// It as one archive, whose name is its `sha256`.
    pub fn archive(&self) -> Vec<u8> {
        pack::pack(&self.files)
    }

    /// Its servers.
    pub fn servers(&self) -> &[Server] {
        match &self.what {
            What::Mcp(servers) => servers,
            _ => &[],
        }
    }

    /// What its servers run instead of downloads.
    pub fn tools(&self) -> impl Iterator<Item = &Tool> {
        self.servers().iter().filter_map(|server| server.tool.as_ref())
    }

    /// The bytes of its files.
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|file| file.bytes.len()).sum()
    }
}
