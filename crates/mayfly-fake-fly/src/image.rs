//! An image as small as one can be, where `mayfly image build` would have left it.

use std::collections::BTreeMap;
use std::path::Path;

use mayfly_image::{Data, Entry, Store, StoreError, Tree, parts};

/// A file that is in it, and what that says.
pub const MARK: (&str, &str) = ("/etc/made-up", "of a made-up image\n");

/// Puts one into a user's folder for what can be fetched again (`XDG_CACHE_HOME`); `version` tells it from others. Gives its
/// digest.
///
/// # Errors
/// What the folder says.
///
/// # Panics
/// If what is made up is no tree.
pub fn make_up(cache: &Path, version: &str) -> Result<String, StoreError> {
    let store = Store::in_folder(cache.join("mayfly/images"));
    let lock = store.lock(|| ())?;
    let layer = |path: &str, text: &str| {
        let mut tree = Tree::default();
        let file = Entry::file(0o644, Data::Bytes(text.as_bytes().into()));
        tree.add(path.trim_start_matches('/'), file).expect("a plain tree");
        let key = format!("{path} {text}");
        Ok((store.add_layer(&hex::encode(key), &tree, &mut |_| true, &lock)?, path.to_owned()))
    };
    let layers = [layer(MARK.0, MARK.1)?, layer("/opt/version", version)?];
    let run = parts::run("/opt/mayfly/mayfly", BTreeMap::new());
    Ok(store.put("mayfly", "amd64", run, &layers, &lock)?.descriptor.digest)
}
