//! People on the way: a phone changes its networks under a conversation, and every message arrives once and in order, both ways. The
//! journeys are those of the lab, shortened; how long it takes is measured by `cargo run --release -p whimbrel-lab`, never asserted here.

use crate::harness::binary;
use std::time::Duration;
use whimbrel_client::Transport;
use whimbrel_lab::can_run;
use whimbrel_lab::journey::Journey;
use whimbrel_lab::journeys::scripted;
use whimbrel_lab::run::{Run, Trip};

fn trip<'a>(journey: &'a Journey, transport: Transport, reported: bool, seed: u64) -> Trip<'a> {
    Trip { binary: binary(), journey, transport, reported, pace: Duration::from_millis(20), seed, durable: true }
}

#[test]
fn thin() {
    if !can_run("journeys") {
        return;
    }
    let journey = scripted()[0].clone().faster(4);
    let run: Run = trip(&journey, Transport::Quic, true, 1).run().unwrap();
    println!("{}", serde_json::to_string_pretty(&Run { up: Default::default(), down: Default::default(), ..run.clone() }).unwrap());
    println!("{:?} {:?} {:?} {:?}", run.up.latency, run.up.longest_gap, run.down.latency, run.down.longest_gap);
    assert_eq!(run.faults, Vec::<String>::new());
}
