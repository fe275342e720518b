//! `send` and `listen` while the server is away: what they wait for, what they keep, and how they end.

use crate::harness::{ServerProcess, binary};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

fn start(server: &ServerProcess, arguments: &[&str]) -> Child {
    let mut command = Command::new(binary());
    command.args(arguments).args(["--url", &server.url()]).current_dir(server.folder()).env("XDG_DATA_HOME", server.folder());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// How it ended, what it printed, and what it said on standard error.
fn run(server: &ServerProcess, arguments: &[&str]) -> (i32, String, String) {
    let output = start(server, arguments).wait_with_output().unwrap();
    let [out, told] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), out, told)
}

#[test]
fn a_server_that_comes_up_in_time_is_used() {
    let mut server = ServerProcess::start();
    for arguments in [
        &["send", "--as", "ann", "--to", "bob", "--timeout", "60", "words"][..],
        &["send", "--as", "ann", "--to", "bob", "--timeout", "60", "-"],
        &["listen", "--as", "bob", "--timeout", "60", "--count", "2"],
    ] {
        assert!(server.terminate().success());
        let away = TcpListener::bind(server.http).unwrap();
        let mut child = start(&server, arguments);
        child.stdin.take().unwrap().write_all(b"words\n").unwrap();
        // It has tried, in vain.
        drop(away.accept().unwrap());
        drop(away);
        server.restart();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn without_a_connection_nothing_is_taken_in_and_what_was_is_kept() {
    let mut server = ServerProcess::start();
    let send = ["send", "--as", "ann", "--to", "bob"];
    let mut stream = start(&server, &[&send[..], &["--timeout", "10", "-"]].concat());
    let mut input = stream.stdin.take().unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap());
    input.write_all(b"one\n").unwrap();
    lines.read_line(&mut String::new()).unwrap();
    server.kill();
    input.write_all(b"two\n").unwrap();
    let mut told = String::new();
    stream.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(stream.wait().unwrap().code(), Some(4), "{told}");
    assert!(told.contains("1 message has not got through yet; it is kept"), "{told}");

    for timeout in [&[][..], &["--timeout", "1"]] {
        let (code, out, told) = run(&server, &[&send[..], timeout, &["not kept"]].concat());
        assert_eq!((code, out.as_str()), (3, ""), "{told}");
        assert!(told.contains("nothing of this run was sent, and nothing of it is kept: run it again"), "{told}");
        assert!(told.contains("1 message that an earlier run left is still kept"), "{told}");
        let (code, _, told) = run(&server, &[&["listen", "--as", "bob"], timeout].concat());
        assert_eq!(code, 3, "{told}");
    }

    server.restart();
    let (code, out, told) = run(&server, &[&send[..], &["three"]].concat());
    assert_eq!((code, out.lines().count()), (0, 2), "{out} {told}");
    assert!(told.contains("first sending 1 message that an earlier run left"), "{told}");
    let (code, heard, _) = run(&server, &["listen", "--as", "bob", "--count", "3"]);
    assert_eq!(code, 0);
    let texts: Vec<_> = heard.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].clone()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
}

#[test]
fn the_help_has_every_exit_code_and_transport() {
    for (command, last) in [("send", 4), ("listen", 4), ("chat", 3)] {
        let output = Command::new(binary()).args([command, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        for transport in ["auto", "quic", "webtransport", "websocket", "websocket-json"] {
            assert!(help.contains(&format!("`{transport}`")), "{command} --help says nothing of {transport}: {help}");
        }
        let codes = help.split_once("Exit codes:").map(|(_, codes)| codes).unwrap_or_default();
        for code in 0..=last {
            assert!(codes.lines().any(|line| line.starts_with(&format!("  {code}  "))), "{command} --help says nothing of {code}: {help}");
        }
    }
}

/// Two at once are two devices, and what the second kept is no less promised than what the first did.
#[test]
fn what_several_sends_at_once_kept_is_sent_by_one_run() {
    let mut server = ServerProcess::start();
    let send = ["send", "--as", "ann", "--to", "bob"];
    let mut streams = ["one", "two"].map(|words| {
        let mut stream = start(&server, &[&send[..], &["--timeout", "10", "-"]].concat());
        let mut input = stream.stdin.take().unwrap();
        input.write_all(format!("{words} is there\n").as_bytes()).unwrap();
        // It is connected, and the next starts beside it.
        BufReader::new(stream.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        (stream, input, words)
    });
    server.kill();
    for (_, input, words) in &mut streams {
        input.write_all(format!("{words} waits\n").as_bytes()).unwrap();
    }
    for (stream, _input, _) in streams {
        let output = stream.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
    }
    let (code, _, told) = run(&server, &[&send[..], &["not kept"]].concat());
    assert!(code == 3 && told.contains("2 messages that earlier runs left are still kept"), "{code} {told}");

    server.restart();
    let (code, out, told) = run(&server, &[&send[..], &["--timeout", "60", "three"]].concat());
    assert_eq!((code, out.lines().count()), (0, 3), "{out} {told}");
    let (code, out, told) = run(&server, &[&send[..], &["the end"]].concat());
    assert_eq!((code, out.lines().count()), (0, 1), "nothing is left: {out} {told}");
    let (code, heard, _) = run(&server, &["listen", "--as", "bob", "--count", "6"]);
    assert_eq!(code, 0);
    let text = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    let mut texts: Vec<_> = heard.lines().map(text).collect();
    assert_eq!(texts.pop().unwrap(), "the end");
    texts.sort();
    assert_eq!(texts, ["one is there", "one waits", "three", "two is there", "two waits"]);
}
