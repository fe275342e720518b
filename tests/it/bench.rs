//! `whimbrel bench`: its report has the promised shape, and its checks hold. Never how fast.

use crate::harness::binary;
use serde_json::Value;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(binary()).arg("bench").args(arguments).output().unwrap()
}

#[test]
fn a_short_run_reports_everything_over_every_transport() {
    let output = bench(&["--seconds", "2", "--pairs", "4", "--idle", "20", "--rate", "50", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["command"].as_str().unwrap().contains("bench --seconds 2 --pairs 4"));
    assert!(report["machine"]["cpus"].as_u64().unwrap() >= 1);
    let transports = report["transports"].as_array().unwrap();
    let names: Vec<_> = transports.iter().map(|transport| transport["transport"].as_str().unwrap()).collect();
    assert_eq!(names, ["websocket", "webtransport", "quic"]);
    for transport in transports {
        // One every 80 ms for each pair, and the last one that ends it: at most as many as were asked for, and no fewer but for a start.
        let modest = transport["modest"]["messages"].as_u64().unwrap();
        assert!((90..=108).contains(&modest), "{modest} messages at 50 a second for 2 s");
        assert!(transport["saturated"]["messages"].as_u64().unwrap() >= 4);
        for load in ["modest", "saturated"] {
            for times in ["applied", "delivered"] {
                let times = &transport[load][times];
                let (p50, p99) = (times["p50_ms"].as_f64().unwrap(), times["p99_ms"].as_f64().unwrap());
                assert!(p50 > 0.0 && p99 >= p50 && times["max_ms"].as_f64().unwrap() >= p99, "{times}");
            }
        }
        assert_eq!(transport["idle"]["sessions"], 20);
        assert!(transport["idle"]["with_kib"].as_u64().unwrap() > 1000);
        // What 52 bytes of text need, and what is promised.
        let event = transport["wire"]["event_bytes"].as_u64().unwrap();
        assert!((60..=75).contains(&event), "{event} bytes for an event");
        assert!((60..=100).contains(&transport["wire"]["command_bytes"].as_u64().unwrap()));
    }
}

#[test]
fn strangers_are_not_loaded_and_who_is_not_there_is_said() {
    let output = bench(&["--url", "http://chat.example.org"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--yes-load-this-server"));
    let output = bench(&["--url", "http://127.0.0.1:1", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(bench(&["--pairs", "0"]).status.code(), Some(2));
}

#[test]
fn a_session_moves_between_transports_a_thousand_times_under_load_and_loses_nothing() {
    let output = bench(&["moves", "--count", "1000", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // It fails if anything was lost, doubled or out of order.
    assert_eq!(report["moves"].as_u64(), Some(1000), "{report}");
    // A message each 2 ms, and each move takes 20 at least: how many there are depends on the machine, but there is always one on its way.
    for messages in report["messages"].as_array().unwrap() {
        assert!(messages.as_u64().unwrap() > 1000, "{report}");
    }
    println!("{report}");
}

#[test]
fn everybody_comes_back_after_a_restart_in_a_slot_of_their_own() {
    for transport in ["quic", "websocket"] {
        let output = bench(&["storm", "--clients", "200", "--transport", transport, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["clients"], 200);
        // Half a second and 200 slots, of 1 or 2 ms each on this machine or of less on one with more cores.
        let last = report["last_slot_s"].as_f64().unwrap();
        assert!(last >= 0.5, "{report}");
        assert!(report["storm"]["p50_ms"].as_f64().unwrap() > 0.0, "they talk again: {report}");
        println!("{report}");
    }
}

#[test]
fn clients_that_never_read_cost_little_and_find_everything_when_they_read_again() {
    for transport in ["quic", "webtransport", "websocket"] {
        let output = bench(&["stuck", "--readers", "20", "--seconds", "1", "--transport", transport, "--json"]);
        // It fails if anything was lost, doubled or out of order.
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((report["readers"].as_u64(), report["kib_each"].as_u64()), (Some(20), Some(1024)), "{report}");
        for talk in ["quiet", "meanwhile"] {
            assert!(report[talk]["messages_a_second"].as_f64().unwrap() > 0.0, "{report}");
        }
        println!("{report}");
    }
}

#[test]
fn clients_of_socketio_talk_in_pairs_and_beside_another_server() {
    let output = bench(&["socketio", "--pairs", "2", "--seconds", "1", "--rounds", "1", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // It fails if anything was lost, doubled or out of order.
    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 1, "{report}");
    assert!(rounds[0]["messages"].as_u64().unwrap() > 0 && rounds[0]["sent"]["p50_ms"].as_f64().unwrap() > 0.0, "{report}");
    // One that does not get up is said, with its command.
    let output = bench(&["socketio", "--pairs", "1", "--seconds", "1", "--rounds", "1", "--beside", "false"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot start `false`"), "{}", String::from_utf8_lossy(&output.stderr));
}
