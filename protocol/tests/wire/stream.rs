//! Frames on a stream, cut anywhere.

use crate::{config, strategy};
use proptest::collection::vec;
use proptest::prelude::*;
use whimbrel_protocol::codec::{CodecError, Form, MAX_FRAME, MAX_PREFIX, find_frame, write_frame};
use whimbrel_protocol::frame::{ClientFrame, Extension, Hello};
use whimbrel_protocol::{DeviceId, UserId};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn frames_come_out_of_a_stream_however_it_is_cut(
        frames in vec(strategy::client_frame(), 1..5),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut stream = Vec::new();
        for frame in &frames {
            write_frame(frame, &mut stream).unwrap();
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        prop_assert_eq!(read(&stream, &cuts), frames);
    }

    #[test]
    fn no_bytes_make_find_frame_go_wrong(bytes in vec(any::<u8>(), 0..20)) {
        match find_frame(&bytes) {
            Ok(Some((start, end))) => {
                prop_assert!((1..=MAX_PREFIX).contains(&start) && start <= end && end <= bytes.len());
                prop_assert_eq!(find_frame(&bytes[..end]), Ok(Some((start, end))), "what follows a frame does not matter");
                for short in 0..end {
                    prop_assert_eq!(find_frame(&bytes[..short]), Ok(None));
                }
            }
            Ok(None) => {}
            Err(CodecError::TooLong { len, max }) => prop_assert!(len > max),
            Err(why) => prop_assert_eq!(why, CodecError::BadLength),
        }
    }
}

fn read(stream: &[u8], cuts: &[usize]) -> Vec<ClientFrame> {
    let (mut buffer, mut frames) = (Vec::new(), Vec::new());
    for piece in cuts.windows(2) {
        buffer.extend(&stream[piece[0]..piece[1]]);
        while let Some((start, end)) = find_frame(&buffer).unwrap() {
            frames.push(Form::Postcard.decode(&buffer[start..end]).unwrap());
            buffer.drain(..end);
        }
    }
    assert!(buffer.is_empty(), "nothing is left over");
    frames
}

/// A frame of exactly `len` bytes.
fn of_length(len: usize) -> ClientFrame {
    let hello = |room| {
        ClientFrame::Hello(Hello {
            min_version: 1,
            max_version: 1,
            user: UserId::new("a").unwrap(),
            device: DeviceId::new("b").unwrap(),
            token: String::new(),
            agent: String::new(),
            instance: Default::default(),
            attempt: 0,
            incarnation: Default::default(),
            position: None,
            origin: Default::default(),
            extensions: vec![Extension { key: 1, value: vec![0; room] }],
        })
    };
    let around = postcard::to_allocvec(&hello(128)).unwrap().len() - 128;
    // The length of the value takes a byte more from 16384 on, and one less below 128.
    let room = len - around;
    hello(if room > 16384 { room - 1 } else { room })
}

#[test]
fn every_cut_of_frames_at_the_steps_of_the_length() {
    for len in [200, 16383, 16384, 16390, MAX_FRAME] {
        let frame = of_length(len);
        let mut stream = Vec::new();
        write_frame(&frame, &mut stream).unwrap();
        let prefix = stream.len() - len;
        assert_eq!(prefix, if len < 16384 { 2 } else { 3 });
        write_frame(&frame, &mut stream).unwrap();
        let near = |at: usize| at.saturating_sub(4)..=(at + 4).min(stream.len());
        for cut in near(0).chain(near(stream.len() / 2)).chain(near(stream.len())) {
            assert_eq!(read(&stream, &[0, cut, stream.len()]).len(), 2);
        }
    }
}

#[test]
fn the_longest_frame_goes_and_one_byte_more_does_not() {
    let mut stream = vec![7];
    write_frame(&of_length(MAX_FRAME), &mut stream).unwrap();
    assert_eq!(stream.len(), 1 + MAX_PREFIX + MAX_FRAME);
    let before = stream.clone();
    let too_long = Err(CodecError::TooLong { len: MAX_FRAME + 1, max: MAX_FRAME });
    assert_eq!(write_frame(&of_length(MAX_FRAME + 1), &mut stream), too_long);
    assert_eq!(stream, before, "nothing of it was written");
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
    assert_eq!(find_frame(&[0x80, 0x80, 0x04]), Ok(None), "64 KiB are announced");
    assert_eq!(find_frame(&[0x81, 0x80, 0x04]), Err(CodecError::TooLong { len: MAX_FRAME + 1, max: MAX_FRAME }));
    assert_eq!(find_frame(&[0xff, 0xff, 0x7f]), Err(CodecError::TooLong { len: (1 << 21) - 1, max: MAX_FRAME }));
    assert_eq!(find_frame(&[0x80, 0x80, 0x80]), Err(CodecError::BadLength));
    assert_eq!(find_frame(&[0x80, 0x80]), Ok(None));
    assert_eq!(find_frame(&[]), Ok(None));
    assert_eq!(find_frame(&[0]), Ok(Some((1, 1))), "an empty frame is found, and is no frame");
    assert!(Form::Postcard.decode::<ClientFrame>(&[]).is_err());
}
