//! A folder for a lab's files, and the removal of those whose owner was killed.

use crate::LabError;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the folders of all labs begin with; the owner's process id follows.
const PREFIX: &str = "whimbrel-lab-";

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// A new one. No two of a process are the same, whatever they are called.
    pub fn new(name: &str) -> Result<Self, LabError> {
        static LOOKED: Once = Once::new();
        LOOKED.call_once(|| remove_leftovers(&std::env::temp_dir()));
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let plain: String = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
        let path = of_process(&std::env::temp_dir(), std::process::id()).join(format!("{number}-{plain}"));
        fs::create_dir_all(&path).map_err(|why| LabError::Folder { path: path.clone(), why })?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is a leftover of the next run.
        let _ = fs::remove_dir_all(&self.path);
        if let Some(parent) = self.path.parent() {
            // Refused while another lab of this process is there.
            let _ = fs::remove_dir(parent);
        }
    }
}

fn of_process(folder: &Path, pid: u32) -> PathBuf {
    folder.join(format!("{PREFIX}{pid}"))
}

/// Removes the folders of this process: for when it is about to end without dropping anything.
pub fn remove_own() {
    let _ = fs::remove_dir_all(of_process(&std::env::temp_dir(), std::process::id()));
}

/// Removes the folders of processes that are gone.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|pid| pid.parse::<u32>().ok());
        // Of ours there is none yet, but one whose owner had our number before us.
        if pid.is_some_and(|pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_processes_that_are_gone_are_removed_and_no_others() {
        let folder = Folder::new("leftovers").unwrap();
        // Above the largest number that Linux gives to a process.
        let gone = of_process(folder.path(), 1 << 23);
        let alive = of_process(folder.path(), 1);
        let other = folder.path().join("whimbrel-lab-notes");
        for path in [&gone, &alive, &other] {
            fs::create_dir_all(path.join("data")).unwrap();
        }
        remove_leftovers(folder.path());
        assert_eq!([gone.exists(), alive.exists(), other.exists()], [false, true, true]);
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
