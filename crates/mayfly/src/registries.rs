//! The hosts of the registries that the user's own npm, pip, cargo and apt are configured for.
//!
//! Their files are read, and nothing of theirs is run; a file of a repository is not among them. None of their defaults
//! is known here: what nobody has configured is not found. Of a URL its host and port are taken and nothing else, since
//! it may hold a password.
//!
//! Bounds: [`FILE_BYTES_MAX`] a file, [`FILES_MAX`] of apt's.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use mayfly_core::host::Rule;

use crate::environment::Environment;

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The most files of one folder.
const FILES_MAX: usize = 100;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where to allow machines to go.
    pub(crate) rules: Vec<Rule>,
    /// How many URLs name no host that can be allowed, such as an address.
    pub(crate) unfit: usize,
}

/// Looks in the user's files, and in those of the system below `root`.
pub(crate) fn find(environment: &Environment, root: &Path) -> Found {
    let user = User { environment, root };
    let urls = [user.npm(), user.pip(), user.cargo(), user.apt()].concat();
    let mut found = Found::default();
    for url in urls {
        match rule(&url) {
            Some(rule) if !found.rules.contains(&rule) => found.rules.push(rule),
            Some(_) => {}
            None => found.unfit += 1,
        }
    }
    found
}

/// Whose configuration it is.
struct User<'a> {
    environment: &'a Environment,
    root: &'a Path,
}

impl User<'_> {
    fn npm(&self) -> Vec<String> {
        let is_registry =
            |key: &str| key == "registry" || (key.starts_with('@') && key.ends_with(":registry"));
        let files = [
            self.named(&["npm_config_userconfig", "NPM_CONFIG_USERCONFIG"])
                .or_else(|| self.at_home(".npmrc")),
            self.named(&["npm_config_globalconfig", "NPM_CONFIG_GLOBALCONFIG"]),
            Some(self.root.join("etc/npmrc")),
        ];
        let mut urls = self.texts(&["npm_config_registry", "NPM_CONFIG_REGISTRY"]);
        urls.extend(in_files(files, '=', is_registry));
        urls
    }

    fn pip(&self) -> Vec<String> {
        let is_index = |key: &str| {
            matches!(key.replace('_', "-").as_str(), "index-url" | "extra-index-url" | "find-links")
        };
        let files = [
            self.named(&["PIP_CONFIG_FILE"]),
            self.environment.config_folder().map(|ours| ours.with_file_name("pip").join("pip.conf")),
            self.at_home(".pip/pip.conf"),
            Some(self.root.join("etc/pip.conf")),
            Some(self.root.join("etc/xdg/pip/pip.conf")),
        ];
        let mut urls = self.texts(&["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"]);
        urls.extend(in_files(files, '=', is_index));
        urls
    }

    fn cargo(&self) -> Vec<String> {
        let home = self.named(&["CARGO_HOME"]).or_else(|| self.at_home(".cargo"));
        let files = home.map(|home| ["config.toml", "config"].map(|name| home.join(name)));
        let texts = files.into_iter().flatten().filter_map(|path| read(&path));
        let tables = texts.filter_map(|text| toml::from_str::<toml::Table>(&text).ok());
        tables.flat_map(|table| cargo_urls(&table)).collect()
    }

    fn apt(&self) -> Vec<String> {
        let folder = self.root.join("etc/apt");
        let mut files = vec![folder.join("sources.list")];
        let parts = fs::read_dir(folder.join("sources.list.d")).into_iter().flatten();
        files.extend(parts.flatten().map(|part| part.path()).take(FILES_MAX));
        let ends = |path: &Path, end: &str| path.extension().is_some_and(|extension| extension == end);
        let (lists, sources): (Vec<_>, Vec<_>) = files
            .into_iter()
            .filter(|path| ends(path, "list") || ends(path, "sources"))
            .partition(|path| ends(path, "list"));
        let one_line = lists.iter().filter_map(|path| read(path)).collect::<Vec<_>>();
        let one_line = one_line.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("deb"));
        let mut urls: Vec<String> = one_line.flat_map(urls_in).collect();
        urls.extend(in_files(sources.into_iter().map(Some), ':', |key| key.eq_ignore_ascii_case("uris")));
        urls
    }

    fn at_home(&self, path: &str) -> Option<PathBuf> {
        Some(self.environment.home()?.join(path))
    }

    fn named(&self, names: &[&str]) -> Option<PathBuf> {
        names.iter().find_map(|name| self.environment.get(name)).map(PathBuf::from)
    }

    fn texts(&self, names: &[&str]) -> Vec<String> {
        let texts = names.iter().filter_map(|name| self.environment.get(name)?.to_str());
        texts.flat_map(urls_in).collect()
    }
}

/// The URLs in `[source.NAME]` and `[registries.NAME]`.
fn cargo_urls(table: &toml::Table) -> Vec<String> {
    let all = |section: &str, key: &str| {
        let entries = table.get(section).and_then(toml::Value::as_table).into_iter().flatten();
        let texts = entries.filter_map(|(_, entry)| entry.get(key)?.as_str());
        texts.flat_map(urls_in).collect::<Vec<_>>()
    };
    [all("source", "registry"), all("registries", "index")].concat()
}

/// The URLs that are the values of some keys, a value being `key=value` and the indented lines after it.
fn in_files(
    files: impl IntoIterator<Item = Option<PathBuf>>,
    sign: char,
    is_it: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut urls = Vec::new();
    for text in files.into_iter().flatten().filter_map(|path| read(&path)) {
        let mut within = false;
        for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
            let value = match line.split_once(sign) {
                _ if line.starts_with([' ', '\t']) => line,
                Some((key, value)) => {
                    within = is_it(key.trim());
                    value
                }
                None => {
                    within = false;
                    ""
                }
            };
            urls.extend(within.then(|| urls_in(value)).into_iter().flatten());
        }
    }
    urls
}

/// The words of a text that are URLs.
fn urls_in(text: &str) -> impl Iterator<Item = String> {
    let words = text.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    words.filter(|word| word.contains("://")).map(str::to_owned)
}

/// The host of a URL on the web, with its port.
fn rule(url: &str) -> Option<Rule> {
    let (scheme, rest) = url.split_once("://")?;
    let usual = match scheme.rsplit('+').next()? {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    match host.contains(':') {
        true => host.parse().ok(),
        false => format!("{host}:{usual}").parse().ok(),
    }
}

fn read(path: &Path) -> Option<String> {
    let file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|is| is.is_file()))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn found(root: &Path, more: &[(&str, &str)]) -> (Vec<String>, usize) {
        let home = root.join("home");
        let mut vars = vec![("HOME", home.to_str().expect("UTF-8"))];
        vars.extend(more);
        let environment = Environment::of(&vars);
        let Found { rules, unfit } = find(&environment, root);
        (rules.iter().map(ToString::to_string).collect(), unfit)
    }

    #[test]
    fn each_file_names_its_hosts_and_nothing_else_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path();
        assert_eq!(found(root, &[]), (Vec::new(), 0));
        write(
            &root.join("home/.npmrc"),
            "registry=https://npm.example/\n@own:registry = \"https://own.example:8443/x\"\n\
             //npm.example/:_authToken=canary\n; registry=https://no.example\nhome=https://no.example\n",
        );
        write(
            &root.join("home/.config/pip/pip.conf"),
            "[global]\nindex-url = https://user:canary@pip.example/simple\nextra-index-url =\n    https://a.example/\n    \
             http://b.example:81/\ntimeout = 60\n",
        );
        write(
            &root.join("home/.cargo/config.toml"),
            "[source.near]\nregistry = \"sparse+https://crates.example/index/\"\n[source.crates-io]\n\
             replace-with = \"near\"\n[registries.own]\nindex = \"https://own.example:8443/git\"\n",
        );
        write(
            &root.join("etc/apt/sources.list"),
            "# deb http://no.example/debian x main\ndeb [signed-by=/x] http://apt.example/debian x main\n",
        );
        write(
            &root.join("etc/apt/sources.list.d/a.sources"),
            "Types: deb\nURIs: https://c.example/debian\n https://d.example/\nSuites: x\nComment: https://no.example\n",
        );
        write(&root.join("etc/apt/sources.list.d/a.bak"), "deb http://no.example/ x main\n");
        let (rules, unfit) = found(root, &[("PIP_EXTRA_INDEX_URL", "https://e.example/ https://10.0.0.1/x")]);
        assert_eq!(
            rules,
            [
                "npm.example:443",
                "own.example:8443",
                "e.example:443",
                "pip.example:443",
                "a.example:443",
                "b.example:81",
                "crates.example:443",
                "apt.example:80",
                "c.example:443",
                "d.example:443",
            ]
        );
        assert_eq!(unfit, 1, "an address");
    }

    #[test]
    fn what_is_no_file_or_no_text_is_passed_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path();
        fs::create_dir_all(root.join("home/.npmrc")).expect("made");
        fs::create_dir_all(root.join("home/.cargo")).expect("made");
        fs::write(root.join("home/.cargo/config.toml"), [0xff, 0xfe]).expect("written");
        assert_eq!(found(root, &[("npm_config_registry", "ftp://a.example")]), (Vec::new(), 1));
    }
}
