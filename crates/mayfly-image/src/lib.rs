//! The image that machines elsewhere begin with, built on a Debian machine without a daemon.
//!
//! ```text
//! a mirror ─► debian::Lists ─► resolve ─► install ─► root::read ─► Tree ─┐
//! the pinned claude ──────────────────────────────────────────────► Tree ─┤► Store::layer ─► Store::put ─► an OCI layout
//! mayfly, static ─► elf ──────────────────────────────────────────► Tree ─┘
//!
//! an image's layers ─► Tree ─► erofs ─┐
//! a mirror ─► kernel ─────────────────┴► system: what virtual machines of this box start from
//! ```
//!
//! The same packages, claude and mayfly are always the same bytes, whoever builds: nothing of the machine that it is built
//! on, of its mirror, its clock or its user is in an image. Three layers, of which the last one changes most. A layer is
//! known by what goes into it before it is made, and made once.
//!
//! apt and mmdebstrap ask the mirror that this machine's own configuration names; what is built is brought to a registry by
//! [`push`].

mod cpio;
pub mod debian;
pub mod elf;
mod erofs;
mod gone;
pub mod kernel;
mod layer;
pub mod oci;
pub mod parts;
pub mod program;
pub mod push;
mod reference;
pub mod root;
mod store;
pub mod system;
mod tree;

pub use gone::Watch;
pub use reference::Reference;
pub use store::{Image, Layer, Lock, Store, StoreError};
pub use tree::{BadTree, Content, Data, Entry, Tree};
