//! Devices of one user, on several computers: each gets everything, and none takes another's place unless both were given one name.

use crate::harness::{ServerProcess, binary};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A command on a computer: what it keeps is in that computer's folder.
fn on(computer: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(computer).env("XDG_DATA_HOME", computer.join("data-home"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn say(computer: &Path, url: &str, to: &str, words: &str) {
    let said = on(computer, &["send", "--as", "ann", "--to", to, "--url", url, words]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

/// Somebody who listens, and what was heard so far.
struct Listener {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Listener {
    fn start(computer: &Path, arguments: &[&str]) -> Self {
        let mut child = on(computer, &[&["listen"], arguments].concat()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let heard: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no message came, but: {line:?} {:?}", self.told()));
        heard["text"].as_str().unwrap().to_owned()
    }

    /// What it says on standard error until it ends.
    fn told(&mut self) -> String {
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        told
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Where it has not ended by itself the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_computers_of_a_user_are_two_devices() {
    let server = ServerProcess::start();
    let url = server.url();
    let computers = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // A state folder that was named is a computer's own, too.
    for (user, state) in [("bob", &[][..]), ("carol", &["--state", "x"])] {
        let arguments = |count| [&["--as", user, "--url", &url, "--count", count], state].concat();
        say(computers[0].path(), &url, user, "one");
        let mut listeners = computers.each_ref().map(|computer| {
            let mut listener = Listener::start(computer.path(), &arguments("2"));
            // The first is there when the second comes.
            assert_eq!(listener.hear(), "one");
            listener
        });
        say(computers[1].path(), &url, user, "two");
        for listener in &mut listeners {
            assert_eq!(listener.hear(), "two");
            assert!(listener.child.wait().unwrap().success(), "{}", listener.told());
        }
        // Each keeps its name, and with it its cursor.
        say(computers[0].path(), &url, user, "three");
        for computer in &computers {
            let mut again = Listener::start(computer.path(), &arguments("1"));
            assert_eq!(again.hear(), "three");
            assert!(again.child.wait().unwrap().success());
        }
    }
}

#[test]
fn a_device_that_another_client_takes_over_says_what_to_do() {
    let server = ServerProcess::start();
    let url = server.url();
    let computers = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let arguments = ["--as", "bob", "--url", &url, "--device", "phone", "--count", "2"];
    say(computers[0].path(), &url, "bob", "one");
    let mut first = Listener::start(computers[0].path(), &arguments);
    assert_eq!(first.hear(), "one");
    let mut second = Listener::start(computers[1].path(), &arguments);
    assert_eq!(second.hear(), "one");
    let told = first.told();
    for part in ["another client is device \"phone\" of bob", "here or on another machine", "--device NAME"] {
        assert!(told.contains(part), "no `{part}` in: {told}");
    }
    assert_eq!(first.child.wait().unwrap().code(), Some(1));
    say(computers[0].path(), &url, "bob", "two");
    assert_eq!(second.hear(), "two");
    assert!(second.child.wait().unwrap().success());
}

/// Each device numbers its commands by itself; no name is that of a command's own device, whichever came first.
#[test]
fn who_sends_may_be_named_too() {
    let server = ServerProcess::start();
    let url = server.url();
    let computer = tempfile::tempdir().unwrap();
    for (state, devices, expected) in
        [("x", ["", "send", "desk", "desk", ""], [1, 1, 1, 2, 2]), ("y", ["send", "", "send", "desk", ""], [1, 1, 2, 1, 2])]
    {
        // Below each folder a user of its own: the server knows a device by its name, wherever its state lies.
        let user = format!("ann-{state}");
        let numbers = devices.map(|device| {
            let device = if device.is_empty() { &[][..] } else { &["--device", device] };
            let arguments = [&["send", "--as", &user, "--to", "bob", "--url", &url, "--state", state], device, &["words"]].concat();
            let said = on(computer.path(), &arguments).output().unwrap();
            assert!(said.status.success(), "{said:?}");
            serde_json::from_slice::<Value>(&said.stdout).unwrap()["cseq"].as_u64().unwrap()
        });
        assert_eq!(numbers, expected, "{devices:?}");
    }
}

#[test]
fn a_named_listener_is_not_in_the_way_of_the_command_s_own() {
    let server = ServerProcess::start();
    let url = server.url();
    let computer = tempfile::tempdir().unwrap();
    let arguments = ["--as", "bob", "--url", &url, "--count", "2"];
    say(computer.path(), &url, "bob", "one");
    let mut named = Listener::start(computer.path(), &[&arguments[..], &["--device", "listen", "--state", "x"]].concat());
    assert_eq!(named.hear(), "one");
    let mut own = Listener::start(computer.path(), &[&arguments[..], &["--state", "x"]].concat());
    assert_eq!(own.hear(), "one");
    say(computer.path(), &url, "bob", "two");
    for listener in [&mut named, &mut own] {
        assert_eq!(listener.hear(), "two");
        assert!(listener.child.wait().unwrap().success());
    }
}
