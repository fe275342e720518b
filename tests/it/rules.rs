//! Rules of the house that a reader would otherwise have to trust: what may be depended on, and who may know whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Licences that go with MIT and Apache-2.0.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that stand in the tree in two versions, because crates that we need have not agreed yet. Shrinks over time; whatever else
/// is doubled costs compile time and memory and is looked at before it lands.
const DOUBLED: &[&str] = &[
    "base64",
    "block-buffer",
    "cpufeatures",
    "crypto-common",
    "digest",
    "getrandom",
    "hashbrown",
    "matchit",
    "pem",
    "rand",
    "rand_core",
    "sha1",
    "syn",
    "synstructure",
    "tokio-tungstenite",
    "tungstenite",
    "untrusted",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is compiled into the program on this platform: name, version, licence.
fn packages() -> BTreeSet<(String, String, String)> {
    // `cargo tree` and not `cargo metadata`: only it leaves out what features switch off.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--edges=normal", "--prefix=none", "--format={p}|{l}", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let package = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let (name, version) = package.split_once(" v")?;
        let version = version.split(' ').next().unwrap_or(version);
        Some((name.to_owned(), version.to_owned(), licence.trim_end_matches("(*)").trim().to_owned()))
    };
    lines.lines().filter_map(package).collect()
}

/// Whether an expression such as `MIT OR (Apache-2.0 AND ISC)` can be satisfied with the licences above.
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    expression.split(" OR ").any(|choice| choice.split(" AND ").all(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn every_licence_goes_with_ours() {
    let bad: Vec<String> = packages()
        .into_iter()
        .filter(|(_, _, licence)| !allowed(licence))
        .map(|(name, version, licence)| format!("{name} {version}: {licence:?}"))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(!allowed("GPL-3.0") && !allowed("MIT AND GPL-3.0") && allowed("GPL-3.0 OR MIT"), "the check itself");
}

#[test]
fn there_is_one_crypto_library_and_nothing_is_doubled() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version, _) in packages() {
        versions.entry(name).or_default().push(version);
    }
    assert!(versions.contains_key("aws-lc-rs") && !versions.contains_key("ring"), "aws-lc-rs everywhere, ring nowhere");
    versions.retain(|name, versions| versions.len() > 1 && !DOUBLED.contains(&name.as_str()));
    assert!(versions.is_empty(), "in more than one version: {versions:#?}");
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Which parts of the server must not name which others.
const STRANGERS: &[(&str, &[&str])] = &[
    ("engine", &["crate::session", "crate::transport", "crate::http", "crate::push", "crate::tls", "crate::cli", "store::sqlite"]),
    ("store", &["crate::engine", "crate::session", "crate::transport", "crate::http", "crate::tls", "crate::cli"]),
    ("session", &["crate::store", "crate::http", "crate::tls", "crate::cli", "transport::websocket", "transport::webtransport"]),
    ("transport", &["crate::store", "crate::engine", "crate::session", "crate::http", "crate::cli"]),
    ("http", &["crate::store", "crate::cli", "transport::webtransport"]),
    ("gateway", &["crate::store", "crate::http", "crate::tls", "crate::cli", "transport::websocket", "transport::webtransport"]),
    ("push", &["crate::store", "crate::session", "crate::transport", "crate::http", "crate::tls", "crate::cli"]),
    ("tls", &["crate::store", "crate::engine", "crate::session", "crate::transport", "crate::http", "crate::cli"]),
];

#[test]
fn parts_know_only_whom_they_may() {
    let mut faults = Vec::new();
    for (part, strangers) in STRANGERS {
        let mut files = Vec::new();
        sources(&root().join("src").join(part), &mut files);
        assert!(!files.is_empty(), "{part} is gone: mend this table");
        // A test puts a part together with what it needs.
        files.retain(|file| !file.ends_with("tests.rs"));
        for file in files {
            let source = std::fs::read_to_string(&file).unwrap();
            for stranger in strangers.iter().filter(|stranger| source.contains(**stranger)) {
                faults.push(format!("{} names {stranger}", file.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn files_can_be_read_in_one_sitting() {
    const LINES_MAX: usize = 500;
    let mut files = Vec::new();
    for folder in ["src", "protocol/src", "clients/rust/src", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    let long = files.iter().map(|file| (file, std::fs::read_to_string(file).unwrap().lines().count()));
    let long: Vec<_> = long.filter(|(_, lines)| *lines > LINES_MAX).collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines: {long:#?}");
}
