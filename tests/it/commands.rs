//! The command line, as scripts and people use it.

use crate::harness::{ServerProcess, binary};
use serde_json::Value;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

/// Runs a command in the server's folder, as a person would who started it there.
fn whimbrel(server: &ServerProcess, arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).current_dir(server.folder()).env("XDG_DATA_HOME", server.folder()).output().unwrap()
}

/// Says to bob, as ann, what comes over standard input.
fn send_lines(server: &ServerProcess, input: &[u8]) -> Output {
    let mut send = Command::new(binary())
        .args(["send", "--as", "ann", "--to", "bob", "--url", &server.url(), "-"])
        .current_dir(server.folder())
        .env("XDG_DATA_HOME", server.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    send.stdin.take().unwrap().write_all(input).unwrap();
    send.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn send_and_listen_over_every_transport_and_url() {
    let server = ServerProcess::start();
    let secure = format!("https://{}", server.secure);
    let mut expected = Vec::new();
    for (at, transport) in ["quic", "webtransport", "websocket", "websocket-json", "auto"].into_iter().enumerate() {
        for url in [&server.url(), &secure] {
            let words = format!("{transport} {at}");
            let sent = lines(&whimbrel(
                &server,
                &["send", "--as", "ann", "--to", "bob", "--url", url, "--transport", transport, "--state", "s", &words],
            ));
            expected.push(words);
            assert_eq!(sent.len(), 1);
            let number = expected.len() as u64;
            assert_eq!((&sent[0]["message"], &sent[0]["cseq"]), (&number.into(), &number.into()));
            let used = sent[0]["transport"].as_str().unwrap();
            assert!(used == transport || transport == "auto", "{used}");
        }
    }
    let count = expected.len().to_string();
    for (device, transport) in [("a", "webtransport"), ("b", "websocket"), ("c", "websocket-json"), ("d", "quic")] {
        let listen = ["listen", "--as", "bob", "--device", device, "--url", &secure, "--transport", transport, "--count", &count];
        let heard = lines(&whimbrel(&server, &listen));
        let texts: Vec<&str> = heard.iter().map(|line| line["text"].as_str().unwrap()).collect();
        assert_eq!(texts, expected);
        assert!(heard.iter().all(|line| line["from"] == "ann" && line["transport"] == transport));
        // Nothing is heard twice: the device's cursor was kept.
        let again = whimbrel(&server, &["listen", "--as", "bob", "--device", device, "--url", &secure, "--count", "1", "--timeout", "3"]);
        assert_eq!((again.status.code(), again.stdout.len()), (Some(4), 0));
    }
}

#[test]
fn lines_from_standard_input_go_out_as_they_come() {
    let server = ServerProcess::start();
    let input: String = (0..500).map(|number| format!("{number}\n")).collect();
    let sent = lines(&send_lines(&server, input.as_bytes()));
    let numbers: Vec<u64> = sent.iter().map(|line| line["message"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
}

#[test]
fn a_bad_line_does_not_stand_in_the_way_of_good_ones() {
    let server = ServerProcess::start();
    let long = "x".repeat(61 * 1024);
    let output = send_lines(&server, &[b"one\nt\xffo\n", long.as_bytes(), b"\nthree\n\nfour"].concat());
    assert_eq!(output.status.code(), Some(1), "two lines were not sent");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 3);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("line 2 was not sent") && told.contains("line 3 was not sent"), "{told}");
    let heard = lines(&whimbrel(&server, &["listen", "--as", "bob", "--url", &server.url(), "--count", "3"]));
    assert_eq!(heard.iter().map(|line| line["text"].as_str().unwrap()).collect::<Vec<_>>(), ["one", "three", "four"]);
}

#[test]
fn what_people_say_is_nobody_elses_business() {
    use std::os::unix::fs::PermissionsExt;
    let server = ServerProcess::start();
    let state = server.folder().join("state");
    let said = ["send", "--as", "ann", "--to", "bob", "--url", &server.url(), "--state", state.to_str().unwrap(), "hi"];
    assert!(whimbrel(&server, &said).status.success());
    assert!(whimbrel(&server, &["store", "backup", "copy.db"]).status.success());
    let database = |suffix: &str| server.data().join(format!("whimbrel.db{suffix}"));
    for private in [server.data(), state, database(""), database("-wal"), database("-shm"), server.folder().join("copy.db")] {
        let mode = std::fs::metadata(&private).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} can be looked into: {mode:o}", private.display());
    }
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let server = ServerProcess::start();
    let url = server.url();
    let code = |arguments: &[&str]| whimbrel(&server, arguments).status.code();
    assert_eq!(code(&["send", "--as", "ann", "--to", "bob", "--url", "http://127.0.0.1:1", "hi"]), Some(3), "nobody there");
    assert_eq!(code(&["send", "--as", "ann", "--to", "bob"]), Some(2), "no words");
    assert_eq!(code(&["send", "--as", " ", "--to", "bob", "--url", &url, "hi"]), Some(2), "no user");
    assert_eq!(code(&["send", "--as", "ann", "--to", "", "--url", &url, "hi"]), Some(2), "no recipient");
    assert_eq!(code(&["send", "--as", "ann", "--to", "bob", "--url", &url, "--transport", "pigeon", "hi"]), Some(2), "no transport");
    assert_eq!(code(&["send", "--as", "ann", "--to", "bob", "--url", &url, ""]), Some(1), "an empty message is refused");
    assert_eq!(code(&["listen", "--as", "bob", "--url", &url, "--timeout", "3"]), Some(0), "time was all that was asked for");
    assert_eq!(code(&["listen", "--as", "bob", "--url", &url, "--count", "1", "--timeout", "3"]), Some(4));
    assert_eq!(code(&["serve", "--http", "0.0.0.0:0"]), Some(2), "open beyond loopback");
    let flags_alone = whimbrel(&server, &["--http", "0.0.0.0:0"]);
    assert!(String::from_utf8_lossy(&flags_alone.stderr).contains("--open-anywhere"), "the server runs without a command: {flags_alone:?}");
    assert_eq!((code(&["--help"]), code(&["--version"]), code(&["nonsense"])), (Some(0), Some(0), Some(2)));
}

#[test]
fn the_time_counts_from_the_start() {
    let server = ServerProcess::start();
    // Takes connections, and says nothing on them.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    for arguments in [
        &["listen", "--as", "bob", "--url", &url, "--timeout", "1"][..],
        &["listen", "--as", "bob", "--url", &url, "--timeout", "1", "--count", "1"],
        &["send", "--as", "ann", "--to", "bob", "--url", &url, "--timeout", "1", "hi"],
    ] {
        let output = whimbrel(&server, arguments);
        // Without a deadline of its own it would say that the server does not answer, after 10 seconds.
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("before the time was up"), "{arguments:?}: {told}");
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: nobody was reached");
    }
}

#[test]
fn the_store_is_looked_after() {
    let mut server = ServerProcess::start();
    let url = server.url();
    lines(&whimbrel(&server, &["send", "--as", "ann", "--to", "bob", "--url", &url, "kept"]));
    let check = whimbrel(&server, &["store", "check"]);
    assert!(check.status.success() && String::from_utf8_lossy(&check.stdout).contains("sound"), "{check:?}");
    assert!(whimbrel(&server, &["store", "backup", "copy.db"]).status.success());
    let again = whimbrel(&server, &["store", "backup", "copy.db"]);
    assert_eq!(again.status.code(), Some(2), "nothing is overwritten");
    let told = String::from_utf8_lossy(&again.stderr);
    assert!(told.contains("copy.db is there already, and is not overwritten: give the copy another name"), "{told}");
    assert_eq!(whimbrel(&server, &["store", "compact"]).status.code(), Some(2), "the server has it");
    // Beside the running one no second server opens the store.
    let second = whimbrel(&server, &["serve", "--http", "127.0.0.1:0", "--secure", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(2));
    assert!(server.terminate().success());
    assert!(whimbrel(&server, &["store", "compact"]).status.success());
    let check = whimbrel(&server, &["store", "check"]);
    assert!(check.status.success(), "{check:?}");

    // A restored store is another life of the log: a device is told, and then has what the copy holds.
    server.restart();
    let heard = lines(&whimbrel(&server, &["listen", "--as", "bob", "--url", &url, "--count", "1"]));
    assert_eq!(heard[0]["text"], "kept");
    lines(&whimbrel(&server, &["send", "--as", "ann", "--to", "bob", "--url", &url, "lost with the disk"]));
    server.kill();
    std::fs::remove_dir_all(server.data()).unwrap();
    std::fs::create_dir(server.data()).unwrap();
    std::fs::rename(server.folder().join("copy.db"), server.data().join("whimbrel.db")).unwrap();
    server.restart();
    let listen = whimbrel(&server, &["listen", "--as", "bob", "--url", &url, "--count", "1", "--all"]);
    let heard = lines(&listen);
    assert!(heard.iter().any(|line| line["kind"] == "reset" && line["reason"] == "otherLog"), "{heard:?}");
    assert!(heard.iter().any(|line| line["text"] == "kept"), "{heard:?}");
    let send = whimbrel(&server, &["send", "--as", "ann", "--to", "bob", "--url", &url, "and on"]);
    assert!(send.status.success());
    assert!(String::from_utf8_lossy(&send.stderr).contains("restored"), "what may be lost is said: {send:?}");
}

#[test]
fn damage_of_the_store_is_said_with_what_to_do() {
    let mut server = ServerProcess::start();
    lines(&whimbrel(&server, &["send", "--as", "ann", "--to", "bob", "--url", &server.url(), "words of the log"]));
    assert!(server.terminate().success());
    let store = server.data().join("whimbrel.db");
    let mut bytes = std::fs::read(&store).unwrap();
    let at = bytes.windows(16).position(|words| words == b"words of the log").unwrap();
    // The header of the page that they are in.
    bytes[at / 4096 * 4096..][..8].fill(0xff);
    std::fs::write(&store, bytes).unwrap();
    let run = |arguments: &[&str]| {
        let output = whimbrel(&server, arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let check = run(&["store", "check"]);
    for part in ["records, 2 users", "problem: ", "the store is damaged", "put a backup in its place"] {
        assert!(check.contains(part), "no `{part}` in: {check}");
    }
    let compact = run(&["store", "compact"]);
    assert!(compact.contains("damaged") && compact.contains("nothing was changed"), "{compact}");
    let backup = run(&["store", "backup", "copy.db"]);
    assert!(backup.contains("the copy is damaged"), "{backup}");
    assert!(server.folder().join("copy.db").is_file());
    assert!(!server.folder().join("copy.db-wal").exists() && !server.folder().join("copy.db.part-wal").exists());
}

#[test]
fn files_are_found_where_the_server_finds_them() {
    let mut server = ServerProcess::start();
    assert!(server.terminate().success());
    let folder = server.folder();
    let move_to = |from: &str, to: &str| std::fs::rename(folder.join(from), folder.join(to));
    let run = |arguments: &[&str]| whimbrel(&server, arguments).status.code();
    move_to("data", "dd").unwrap();
    move_to("certs", "cc").unwrap();
    assert_eq!((run(&["store", "check"]), run(&["certs", "show"])), (Some(2), Some(2)), "nothing is there");
    let told = whimbrel(&server, &["store", "check"]).stderr;
    assert!(String::from_utf8_lossy(&told).contains("there is no store at data/whimbrel.db: run this in the server's folder, or say"));
    // What concerns serving alone does not matter here, such as an address that only --open-anywhere allows.
    std::fs::write(folder.join("other.toml"), "data = 'dd'\ncerts = 'cc'\nhttp = '0.0.0.0:80'\n").unwrap();
    assert_eq!((run(&["store", "check", "--config", "other.toml"]), run(&["certs", "show", "--config", "other.toml"])), (Some(0), Some(0)));
    std::fs::rename(folder.join("other.toml"), folder.join("whimbrel.toml")).unwrap();
    assert_eq!((run(&["store", "check"]), run(&["certs", "show"])), (Some(0), Some(0)));
    assert_eq!(
        (run(&["store", "--data", "data", "check"]), run(&["certs", "--certs", "certs", "show"])),
        (Some(2), Some(2)),
        "flags beat it"
    );
    std::fs::create_dir(folder.join("elsewhere")).unwrap();
    move_to("dd/whimbrel.db", "elsewhere/x.db").unwrap();
    assert_eq!(run(&["store", "check"]), Some(2), "it is no longer there");
    assert_eq!(run(&["store", "check", "--store", "sqlite:elsewhere/x.db"]), Some(0));
    assert_eq!(run(&["store", "compact", "--store", "sqlite:elsewhere/x.db"]), Some(0));
    assert_eq!(run(&["store", "check", "--store", "pigeon:x"]), Some(2));
    std::fs::write(folder.join("whimbrel.toml"), "dada = 'dd'\n").unwrap();
    assert_eq!(run(&["store", "check", "--store", "sqlite:elsewhere/x.db"]), Some(2), "the server would not start with it either");
}

#[test]
fn empty_variables_are_not_set() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["serve", "--config", "nowhere.toml"][..], &[]] {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(folder.path()).env("WHIMBREL_CONFIG", "nowhere.toml");
        for name in ["PORT", "WHIMBREL_HTTP", "WHIMBREL_DATA", "WHIMBREL_STORE", "WHIMBREL_AUTH", "WHIMBREL_PRESENCE_GRACE"] {
            command.env(name, "");
        }
        let output = command.output().unwrap();
        // It got as far as looking for the file.
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains("nowhere.toml is not there"), "{told}");
    }
}

/// As `| head -1` leaves it.
#[test]
fn a_closed_standard_output_is_no_failure() {
    let server = ServerProcess::start();
    let url = server.url();
    let mut said = Command::new(binary());
    said.args(["send", "--as", "ann", "--to", "bob", "--url", &url, "words"]).current_dir(server.folder());
    assert!(said.env("XDG_DATA_HOME", server.folder()).output().unwrap().status.success());
    // The time has more seconds than a clock can count: it never comes.
    let listen = ["listen", "--as", "bob", "--url", &url, "--timeout", "18446744073709551615"];
    for arguments in [&["certs", "show"][..], &["store", "check"], &listen] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(server.folder()).stdout(writer).stderr(Stdio::piped());
        command.env("XDG_DATA_HOME", server.folder());
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

/// On a terminal, which `script` (of util-linux) makes. In its raw mode Ctrl+C is a key; the signals come from outside.
#[test]
fn a_chat_that_is_ended_by_a_signal_gives_the_terminal_back() {
    const TAKEN: &str = "\x1b[?1049h";
    const GIVEN_BACK: &str = "\x1b[?1049l";
    let server = ServerProcess::start();
    for signal in ["-INT", "-TERM", "-HUP"] {
        let talk = format!("stty rows 24 cols 80; echo $$ > pid; exec {} chat --as ann --url {}", binary().display(), server.url());
        let mut script = Command::new("script")
            .args(["-q", "-f", "-c", &talk, "/dev/null"])
            .current_dir(server.folder())
            .env("XDG_DATA_HOME", server.folder())
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = script.stdout.take().unwrap();
        let mut screen = Vec::new();
        let shows = |screen: &[u8], what: &str| screen.windows(what.len()).any(|bytes| bytes == what.as_bytes());
        while !shows(&screen, TAKEN) {
            let mut bytes = [0; 4096];
            let read = output.read(&mut bytes).unwrap();
            assert!(read > 0, "it never took the terminal: {}", String::from_utf8_lossy(&screen));
            screen.extend_from_slice(&bytes[..read]);
        }
        let pid = std::fs::read_to_string(server.folder().join("pid")).unwrap();
        assert!(Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
        output.read_to_end(&mut screen).unwrap();
        assert!(shows(&screen, GIVEN_BACK), "{signal}: {}", String::from_utf8_lossy(&screen));
        script.wait().unwrap();
    }
}

#[test]
fn certs_are_shown_and_renewed() {
    let server = ServerProcess::start();
    let show = || String::from_utf8(whimbrel(&server, &["certs", "show"]).stdout).unwrap();
    let before = show();
    assert!(before.contains("in use") && before.contains("sha256"), "{before}");
    assert!(whimbrel(&server, &["certs", "renew"]).status.success());
    assert_ne!(show(), before);
}
