//! Bytes of bad will: no panic, and no more memory than is promised, whatever comes in.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "an allocator that counts cannot be written without")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use whimbrel_protocol::codec::{Form, MAX_FRAME, MAX_JSON_FRAME, MEMORY_PER_BYTE};
use whimbrel_protocol::frame::{ClientFrame, ServerFrame};

/// Counts what the thread that asks holds at most.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends may free after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: all work is the system allocator's; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Decodes in every way there is, and says how much memory the greediest took.
fn decode(bytes: &[u8]) -> usize {
    let peak = |work: &dyn Fn()| {
        let before = HELD.get();
        PEAK.set(before);
        work();
        (PEAK.get() - before) as usize
    };
    let postcard =
        peak(&|| drop(Form::Postcard.decode::<ClientFrame>(bytes))).max(peak(&|| drop(Form::Postcard.decode::<ServerFrame>(bytes))));
    let json = peak(&|| drop(Form::Json.decode::<ClientFrame>(bytes))).max(peak(&|| drop(Form::Json.decode::<ServerFrame>(bytes))));
    postcard.max(json)
}

/// What decoding may take: by length, and a little for the words of an error.
fn allowed(len: usize) -> usize {
    len * MEMORY_PER_BYTE + 1024
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Config::default() }
}

proptest! {
    #![proptest_config(config(4000))]

    /// A tag first, so that more than the first byte is looked at.
    #[test]
    fn any_bytes(tag in 0u8..12, rest in vec(any::<u8>(), 0..300)) {
        let bytes = [&[tag][..], &rest].concat();
        prop_assert!(decode(&bytes) <= allowed(bytes.len()));
    }

    /// Small numbers look like tags, lengths and kinds: this gets deep into every type.
    #[test]
    fn bytes_that_look_like_frames(bytes in vec(prop_oneof![6 => 0u8..8, 1 => any::<u8>()], 0..300)) {
        prop_assert!(decode(&bytes) <= allowed(bytes.len()));
    }

    #[test]
    fn text_that_looks_like_frames(
        head in prop::sample::select(vec!["{\"", "{\"event\":{\"", "{\"command\":{\"cseq\":1,\"", "{\"hello\":{\"", "{\"welcome\":{\"", "{\"snapshot\":{\""]),
        rest in "[a-z0-9{}\\[\\]\",:.\\\\ue-]{0,200}",
    ) {
        let text = format!("{head}{rest}");
        prop_assert!(decode(text.as_bytes()) <= allowed(text.len()));
    }
}

#[test]
fn long_frames_of_nothing_but_beginnings() {
    for tag in 0..16u8 {
        // Every small byte repeated is a list of the shortest elements of some type.
        for byte in [0, 1, 2, 3, 4, 0x61, 0x7f, 0x80, 0xff] {
            for count in
                [&[][..], &[0], &[1], &[0xff, 0xff, 3], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[1, 0xf0, 0xff, 3], &[1, 1, 0xf0, 0xff, 3]]
            {
                let bytes = [&[tag][..], count, &vec![byte; MAX_FRAME - 8]].concat();
                let peak = decode(&bytes);
                assert!(peak <= allowed(bytes.len()), "tag {tag}, count {count:?}, byte {byte}: {peak}");
            }
        }
    }
}

/// The cheapest elements there are, as many as fit: this is where memory grows most.
#[test]
fn the_greediest_lists() {
    let mut worst = 0.0_f64;
    let names: Vec<u8> = [1, b'a'].repeat(32_000);
    let presences: Vec<u8> = [1, b'a', 1].repeat(21_000);
    let postcard: [(&[u8], u32, &[u8]); 4] = [
        (&[4, 1], 32_000, &names),       // Watch
        (&[5, 1], 21_000, &presences),   // Presence
        (&[3], 12_000, &[0; 60_000]),    // Snapshot of empty conversations
        (&[3, 1, 1, 1], 32_000, &names), // Snapshot of one conversation with many members, cut short
    ];
    let mut frames: Vec<Vec<u8>> =
        postcard.iter().map(|(head, count, rest)| [head, &postcard::to_allocvec(count).unwrap()[..], rest].concat()).collect();
    let json = ["{\"signal\":{\"watch\":{\"users\":[", "{\"event\":{\"seq\":1,\"time\":1,\"kind\":\"later\",\"body\":["];
    for head in json {
        for item in ["\"a\",", "0,", "[],", "{},", "[["] {
            frames.push(format!("{head}{}", item.repeat((MAX_JSON_FRAME - 100) / item.len())).into_bytes());
        }
        frames.push(format!("{head}{}0]}}}}", "0,".repeat(1000)).into_bytes());
    }
    for frame in frames {
        let peak = decode(&frame);
        worst = worst.max(peak as f64 / frame.len() as f64);
        assert!(peak <= allowed(frame.len()), "{} bytes took {peak}", frame.len());
    }
    println!("{worst:.1} bytes of memory for a byte of a frame");
    assert!(worst > 8.0, "these are not the greediest any more: {worst}");
}
