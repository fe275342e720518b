//! Frames for the tests of clients in other languages.
//!
//! `frames write COUNT SEED` writes random frames, one a line: who sends it, the frame in postcard as hex, the frame in JSON.
//! `frames check` reads such lines and fails unless both forms of each are the same frame, and the bytes are those that we would write.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test tool that cannot go on has failed")]

#[path = "../tests/wire/strategy.rs"]
mod strategy;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{BufRead, Write};
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

fn line<F: Serialize>(from: &str, frame: &F) -> String {
    let json = String::from_utf8(Form::Json.encode(frame).unwrap()).unwrap();
    format!("{from} {} {json}", hex(&Form::Postcard.encode(frame).unwrap()))
}

fn write(count: usize, seed: u64) {
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() });
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for no in 0..count {
        let line = if no % 3 == 0 {
            line("client", &strategy::client_frame().new_tree(&mut runner).unwrap().current())
        } else {
            line("server", &strategy::server_frame().new_tree(&mut runner).unwrap().current())
        };
        writeln!(out, "{line}").unwrap();
    }
    out.flush().unwrap();
}

fn same<F: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8], json: &str) -> Result<(), String> {
    let one: F = Form::Postcard.decode(bytes).map_err(|why| why.to_string())?;
    let other: F = Form::Json.decode(json.as_bytes()).map_err(|why| why.to_string())?;
    if one != other {
        return Err(format!("{one:?} is not {other:?}"));
    }
    let again = Form::Postcard.encode(&one).map_err(|why| why.to_string())?;
    if again == bytes { Ok(()) } else { Err(format!("we would write {}", hex(&again))) }
}

fn check() -> Result<usize, String> {
    let mut count = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|why| why.to_string())?;
        let mut parts = line.splitn(3, ' ');
        let (from, bytes, json) = (parts.next(), parts.next().and_then(unhex), parts.next());
        let (Some(from), Some(bytes), Some(json)) = (from, bytes, json) else { return Err(format!("not a line of three parts: {line}")) };
        let result = if from == "client" { same::<ClientFrame>(&bytes, json) } else { same::<ServerFrame>(&bytes, json) };
        result.map_err(|why| format!("{line}\n{why}"))?;
        count += 1;
    }
    Ok(count)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", count, seed] => write(count.parse().expect("a count"), seed.parse().expect("a seed")),
        ["check"] => match check() {
            Ok(count) => println!("{count} frames are the same in both forms"),
            Err(why) => {
                eprintln!("{why}");
                std::process::exit(1);
            }
        },
        _ => {
            eprintln!("usage: frames write COUNT SEED | frames check");
            std::process::exit(2);
        }
    }
}
