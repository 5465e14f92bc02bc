//! A package for Python of a test's own, where the user's pip finds it and asks nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python that machines have too.
const PYTHON: &str = "/usr/bin/python3";

/// Makes `tiny-server` 1.2.3 below `folder`, with two programs, `tiny-server` and `serve`, which both run `main` of this
/// `code`. pip's configuration that leads there, and nowhere else. `None`: there is no pip, and the test is skipped.
///
/// # Panics
///
/// If it cannot be made.
pub fn wheel(folder: &Path, code: &str) -> Option<PathBuf> {
    if !python(&["-m", "pip", "--version"], folder) {
        crate::skip("there is no python3 with pip");
        return None;
    }
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders can be made");
        fs::write(&path, text).expect("a file can be written");
        path
    };
    let about = "tiny_server-1.2.3.dist-info";
    write("tiny_server/__init__.py", code);
    write(&format!("{about}/METADATA"), "Metadata-Version: 2.1\nName: tiny-server\nVersion: 1.2.3\n");
    write(&format!("{about}/WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n");
    let programs = "[console_scripts]\ntiny-server = tiny_server:main\nserve = tiny_server:main\n";
    write(&format!("{about}/entry_points.txt"), programs);
    write(&format!("{about}/RECORD"), "");
    let packed = ["-m", "zipfile", "-c", "tiny_server-1.2.3-py3-none-any.whl", "tiny_server", about];
    assert!(python(&packed, folder), "the package can be packed");
    Some(write("pip.conf", &format!("[install]\nno-index = true\nfind-links = {}\n", folder.display())))
}

fn python(arguments: &[&str], folder: &Path) -> bool {
    let output = Command::new(PYTHON).args(arguments).current_dir(folder).env_clear().output();
    output.is_ok_and(|output| output.status.success())
}
