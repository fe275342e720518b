//! A lab that is killed leaves nothing that the next one does not remove.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use whimbrel_lab::{Lab, can_run};

/// Long enough for a loaded machine; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn wait(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_alive(pid: &str) -> bool {
    // A process that has ended and was not waited for yet is no longer alive.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_killed_lab_takes_its_server_along_and_its_folder_is_removed_by_the_next() {
    if !can_run("a lab that is killed") {
        return;
    }
    // Not in a lab of this process: leftovers are looked for when the first one is made, which shall be the next one.
    let folder = std::env::temp_dir().join(format!("whimbrel-lab-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (server, told) = (folder.join("server"), folder.join("pid"));
    // It says that it is ready and is not: the phone tries to connect, for as long as this takes.
    let script =
        format!("#!/bin/sh\necho $$ > {told}.new\nmv {told}.new {told}\necho whimbrel ready\nexec sleep 1000\n", told = told.display());
    std::fs::write(&server, script).unwrap();
    std::fs::set_permissions(&server, PermissionsExt::from_mode(0o755)).unwrap();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_whimbrel-lab"))
        .args(["journeys", "--journey", "lift", "--transport", "quic", "--server"])
        .arg(&server)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait("the server is not started", || told.exists());
    let pid = std::fs::read_to_string(&told).unwrap().trim().to_owned();
    let left: PathBuf = std::env::temp_dir().join(format!("whimbrel-lab-{}", lab.id()));
    assert!(is_alive(&pid) && left.is_dir());
    lab.kill().unwrap();
    lab.wait().unwrap();
    wait("the server outlives its lab", || !is_alive(&pid));
    assert!(left.is_dir(), "nobody could remove it");
    let next = Lab::new("next", 1).unwrap();
    assert!(!left.exists() && next.folder().is_dir());
    assert!(Path::new(&folder).exists(), "what is no lab's is left alone");
    std::fs::remove_dir_all(folder).unwrap();
}
