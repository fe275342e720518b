//! Puts the pages, their bundles and the browser SDK (`clients/web/chat`, `doctor`, `dist`, `src`) into the binary: a table of their files, by the path
//! that they are served at.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What browsers are given; types, configuration and tests stay out.
const SERVED: &[&str] = &["css", "html", "js", "png", "svg", "webmanifest"];

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("cargo sets {name}")));
    let web = variable("CARGO_MANIFEST_DIR")?.join("clients/web");
    let mut files = Vec::new();
    for folder in ["chat", "dist", "doctor", "src"] {
        println!("cargo::rerun-if-changed=clients/web/{folder}");
        collect(&web.join(folder), &mut files)?;
    }
    // Of the pages' modules there are bundles; the service worker is a script of its own.
    let of_page = |file: &PathBuf| ["chat", "doctor"].iter().any(|page| file.starts_with(web.join(page)));
    let module = |file: &PathBuf| of_page(file) && file.extension().is_some_and(|extension| extension == "js");
    files.retain(|file| !module(file) || file.ends_with("sw.js"));
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let path = file.strip_prefix(&web).map_err(io::Error::other)?.to_string_lossy().replace('\\', "/");
        // The compiler asks where we are, so that a build folder may be shared between clones.
        let file = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?})", format!("/clients/web/{path}"));
        writeln!(table, "    ({:?}, include_bytes!({file})),", format!("/web/{path}")).map_err(io::Error::other)?;
    }
    table.push_str("]\n");
    fs::write(variable("OUT_DIR")?.join("web.rs"), table)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| SERVED.iter().any(|served| extension == *served)) {
            files.push(path);
        }
    }
    Ok(())
}
