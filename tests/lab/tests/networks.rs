//! The lab itself: what a link is set to is what is measured through it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use whimbrel_lab::network::{CELL, CELL_OLD, LOSSY, Link, Nat, Settings, WIFI_GOOD};
use whimbrel_lab::{Lab, LinkName, Phone, can_run};

/// Long enough for a loaded machine; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 4_000;

fn lab(name: &str) -> Option<(Lab, Phone)> {
    if !can_run(name) {
        return None;
    }
    let mut lab = Lab::new(name, 1).unwrap();
    let phone = lab.phone().unwrap();
    Some((lab, phone))
}

/// A socket of the phone, bound to no address, and one of the server.
fn sockets(lab: &Lab, phone: &Phone) -> (UdpSocket, UdpSocket) {
    let bind = |address: Ipv4Addr, port| move || UdpSocket::bind((address, port)).unwrap();
    let here = phone.space().run(bind(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let there = lab.server().run(bind(Lab::SERVER, PORT)).unwrap();
    here.connect((Lab::SERVER, PORT)).unwrap();
    for socket in [&here, &there] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (here, there)
}

/// Sends numbers from one socket to another, and returns those that arrive, in their order: all that can, once the link has settled what
/// becomes of each.
fn through(link: &Link, from: &UdpSocket, to: &UdpSocket, count: u32) -> Vec<u32> {
    let totals = || {
        let counts = link.counts();
        (counts.up + counts.down).packets_in + counts.up.udp_blocked + counts.up.too_long
    };
    let wanted = totals() + u64::from(count);
    let settled = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            to.set_read_timeout(Some(QUIET)).unwrap();
            let (mut numbers, mut buffer) = (Vec::new(), [0; 2_000]);
            loop {
                let was_settled = settled.load(Ordering::Acquire);
                match to.recv(&mut buffer) {
                    Ok(len) => numbers.push(u32::from_be_bytes(buffer[..len].first_chunk().copied().unwrap())),
                    Err(_) if was_settled => break,
                    Err(_) => {}
                }
            }
            to.set_read_timeout(Some(PATIENCE)).unwrap();
            numbers
        });
        for number in 0..count {
            from.send(&number.to_be_bytes()).unwrap();
            // A burst of all of them would be more than the socket at the other end holds.
            if number % 50 == 49 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        wait(|| totals() >= wanted && under_way(link) == 0);
        settled.store(true, Ordering::Release);
        reader.join().unwrap()
    })
}

/// Packets that have entered a link and whose fate is not known yet.
fn under_way(link: &Link) -> u64 {
    let counts = link.counts();
    let all = counts.up + counts.down;
    all.packets_in - all.packets_out - all.lost - all.queue_full - all.blacked_out
}

fn wait(done: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "it does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether anything comes to a socket that nothing may come to.
fn hears_something(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(QUIET)).unwrap();
    let heard = socket.recv(&mut [0; 2_000]).is_ok();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    heard
}

/// How long to listen where nothing may come, or nothing more.
const QUIET: Duration = Duration::from_millis(300);

#[test]
fn a_round_trip_takes_as_long_as_it_is_set_to_and_a_change_counts_at_once() {
    let Some((lab, phone)) = lab("round trips") else { return };
    let (here, there) = sockets(&lab, &phone);
    std::thread::spawn(move || {
        let mut buffer = [0; 2_000];
        while let Ok((len, from)) = there.recv_from(&mut buffer) {
            there.send_to(&buffer[..len], from).unwrap();
        }
    });
    for (name, settings) in [("good wifi", WIFI_GOOD), ("cell", CELL), ("old cell", CELL_OLD), ("lossy", LOSSY), ("none", WIFI_GOOD)] {
        phone.link(LinkName::Wifi).set(settings.loss(0.0));
        let mut times: Vec<Duration> = (0..9u32)
            .map(|number| {
                let begun = Instant::now();
                here.send(&number.to_be_bytes()).unwrap();
                here.recv(&mut [0; 2_000]).unwrap();
                begun.elapsed()
            })
            .collect();
        times.sort();
        println!("{name}: set to {:?}, measured {:?} to {:?}, median {:?}", settings.round_trip(), times[0], times[8], times[4]);
        // Never sooner; how much later depends on the machine.
        assert!(times[0] >= settings.round_trip(), "{name}: {times:?}");
    }
    println!("late at most {} us", phone.counts(LinkName::Wifi).up.late_us_max);
}

#[test]
fn as_many_are_lost_as_is_said_each_way_by_itself() {
    let Some((lab, phone)) = lab("loss") else { return };
    let (here, there) = sockets(&lab, &phone);
    here.send(&[0; 4]).unwrap();
    let from = there.recv_from(&mut [0; 4]).unwrap().1;
    there.connect(from).unwrap();
    // One way at a time: that settings of one way do not touch the other is half of what is tested.
    phone.link(LinkName::Wifi).change(|settings| settings.up.loss = 0.1);
    let up = through(phone.link(LinkName::Wifi), &here, &there, 5_000).len();
    let down = through(phone.link(LinkName::Wifi), &there, &here, 500).len();
    println!("of 5,000 arrived {up} at 10 % loss; of 500 the other way {down}");
    assert!((4_400..=4_600).contains(&up), "{up}");
    assert_eq!(down, 500);
    assert_eq!(phone.counts(LinkName::Wifi).up.lost, 5_000 - up as u64);
}

#[test]
fn the_same_seed_loses_the_same_packets() {
    let Some((lab, phone)) = lab("seed") else { return };
    let (other_lab, other_phone) = self::lab("seed again").unwrap();
    let mut runs = Vec::new();
    for (lab, phone) in [(&lab, &phone), (&other_lab, &other_phone)] {
        let (here, there) = sockets(lab, phone);
        phone.link(LinkName::Wifi).set(WIFI_GOOD.loss(0.3));
        runs.push(through(phone.link(LinkName::Wifi), &here, &there, 400));
    }
    assert!(runs[0].len() < 400 && runs[0] == runs[1], "two labs side by side, one seed");
}

#[test]
fn packets_that_are_held_back_are_overtaken_and_jitter_keeps_the_order() {
    let Some((lab, phone)) = lab("order") else { return };
    let (here, there) = sockets(&lab, &phone);
    let link = phone.link(LinkName::Wifi);
    link.set(WIFI_GOOD.jitter_ms(20));
    let numbers = through(link, &here, &there, 1_000);
    assert!(numbers == (0..1_000).collect::<Vec<_>>(), "{} came, in another order or not all", numbers.len());
    link.set(WIFI_GOOD.reorder(0.1, 10));
    let numbers = through(link, &here, &there, 1_000);
    let late = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
    println!("{late} of 1,000 came after a later one, at 10 % held back");
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 1_000);
    let held_back = link.counts().up.held_back as usize;
    assert!((50..=150).contains(&held_back) && late > 0 && late <= held_back, "{late} of {held_back}");
}

#[test]
fn a_rate_is_kept_and_what_the_queue_does_not_hold_is_dropped() {
    let Some((lab, phone)) = lab("rate") else { return };
    let (here, there) = sockets(&lab, &phone);
    // 1,028 bytes of IP each: 500 packets at 8 Mbit/s are 514 ms.
    phone.link(LinkName::Wifi).set(WIFI_GOOD.rate(8_000_000, 1 << 20));
    let begun = Instant::now();
    for number in 0..500u32 {
        let mut packet = [0; 1_000];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        here.send(&packet).unwrap();
    }
    let mut last = begun;
    for _ in 0..500 {
        there.recv(&mut [0; 2_000]).unwrap();
        last = Instant::now();
    }
    let took = last - begun;
    println!("500 packets of 1,028 bytes at 8 Mbit/s: {took:?}, that is {:.2} Mbit/s", 500.0 * 1_028.0 * 8e-6 / took.as_secs_f64());
    assert!(took >= Duration::from_millis(514), "{took:?}");
    // A burst of 500 into room for 20.
    phone.link(LinkName::Wifi).set(WIFI_GOOD.rate(8_000, 20 * 1_028));
    for _ in 0..500 {
        here.send(&[0; 1_000]).unwrap();
    }
    let counts = || phone.counts(LinkName::Wifi).up;
    wait(|| counts().packets_in == 1_000);
    let dropped = counts().queue_full;
    // One packet takes a second here, so hardly any has left meanwhile.
    assert!((460..=480).contains(&dropped), "{dropped}");
}

#[test]
fn a_blackout_swallows_both_ways_or_one_and_what_is_on_its_way() {
    let Some((lab, phone)) = lab("blackout") else { return };
    let (here, there) = sockets(&lab, &phone);
    here.send(&[0; 4]).unwrap();
    there.connect(there.recv_from(&mut [0; 4]).unwrap().1).unwrap();
    let link = phone.link(LinkName::Wifi);
    for (up, down) in [(true, true), (true, false), (false, true), (false, false)] {
        link.change(|settings| (settings.up.blackout, settings.down.blackout) = (up, down));
        let got = (through(link, &here, &there, 20).len(), through(link, &there, &here, 20).len());
        assert_eq!(got, (if up { 0 } else { 20 }, if down { 0 } else { 20 }), "up {up}, down {down}");
    }
    link.set(Settings::of_round_trip_ms(2_000));
    let before = link.counts().up;
    here.send(&[0; 4]).unwrap();
    wait(|| link.counts().up.packets_in > before.packets_in);
    link.change(|settings| settings.up.blackout = true);
    wait(|| under_way(link) == 0);
    assert_eq!(link.counts().up.packets_out, before.packets_out, "it was in the air when the lights went out");
    assert!(!hears_something(&there));
}

#[test]
fn blocked_udp_leaves_tcp_alone() {
    let Some((lab, phone)) = lab("udp blocked") else { return };
    let (here, there) = sockets(&lab, &phone);
    phone.link(LinkName::Wifi).change(|settings| settings.udp_blocked = true);
    assert!(through(phone.link(LinkName::Wifi), &here, &there, 20).is_empty());
    assert_eq!(phone.counts(LinkName::Wifi).up.udp_blocked, 20);
    let listener = lab.server().run(|| TcpListener::bind((Lab::SERVER, PORT)).unwrap()).unwrap();
    let server = std::thread::spawn(move || std::io::copy(&mut listener.accept().unwrap().0, &mut std::io::sink()).unwrap());
    let address = SocketAddr::from((Lab::SERVER, PORT));
    let mut stream = phone.space().run(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap()).unwrap();
    stream.write_all(&[7; 200_000]).unwrap();
    drop(stream);
    assert_eq!(server.join().unwrap(), 200_000);
}

#[test]
fn a_rebinding_is_seen_by_the_server_and_answers_find_back() {
    let Some((lab, phone)) = lab("nat") else { return };
    let (here, there) = sockets(&lab, &phone);
    let own = here.local_addr().unwrap().port();
    let seen = |what: &str| {
        here.send(what.as_bytes()).unwrap();
        let mut buffer = [0; 2_000];
        let (len, from) = there.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], what.as_bytes());
        there.send_to(b"answer", from).unwrap();
        assert_eq!(here.recv(&mut buffer).unwrap(), 6, "the kernel found the checksums right");
        from
    };
    let link = phone.link(LinkName::Wifi);
    let phone_address = phone.address(LinkName::Wifi);
    assert_eq!(seen("without"), SocketAddr::from((phone_address, own)));
    for nat in [Nat::Ports, Nat::Addresses] {
        link.change(|settings| settings.nat = nat);
        link.rebind();
        let first = seen("first");
        assert_eq!(first, seen("again"));
        link.rebind();
        let other = seen("after a rebinding");
        assert!(other.port() != first.port() && first.port() != own, "{first} {other}");
        assert_eq!(other.ip() != first.ip(), nat == Nat::Addresses);
        assert_eq!(other.ip() != phone_address, nat == Nat::Addresses);
        // What is sent to where the phone was goes nowhere.
        there.send_to(b"late", first).unwrap();
        let answer = seen("still here");
        assert_eq!(answer, other);
        assert!(link.counts().down.nobodys > 0);
    }
}

#[test]
fn an_mtu_is_told_or_silent() {
    let Some((lab, phone)) = lab("mtu") else { return };
    let (here, there) = sockets(&lab, &phone);
    let link = phone.link(LinkName::Wifi);
    link.change(|settings| settings.mtu_silent = 1_280);
    // IP and UDP add 28 bytes.
    for (len, passes) in [(1_252, true), (1_253, false)] {
        here.send(&vec![0; len]).unwrap();
        assert_eq!(hears_something(&there), passes, "{len}");
    }
    link.change(|settings| settings.mtu_silent = 0);
    phone.set_mtu(LinkName::Wifi, 1_280).unwrap();
    // The kernel knows, and makes two packets of it.
    let before = link.counts().up.packets_in;
    here.send(&[0; 1_400]).unwrap();
    assert_eq!(there.recv(&mut [0; 2_000]).unwrap(), 1_400);
    assert_eq!(link.counts().up.packets_in - before, 2);
}

#[test]
fn a_phone_that_goes_to_another_network_has_another_address_and_no_way_back() {
    let Some((lab, phone)) = lab("switch") else { return };
    let (here, there) = sockets(&lab, &phone);
    // Connected, the socket keeps the address it had: as the sockets of TCP do.
    let bound = phone.space().run(|| UdpSocket::bind((phone.address(LinkName::Wifi), 0)).unwrap()).unwrap();
    let here = {
        drop(here);
        phone.space().run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap()
    };
    let seen = |name: LinkName| {
        here.send_to(b"here", (Lab::SERVER, PORT)).unwrap();
        let from = there.recv_from(&mut [0; 10]).unwrap().1;
        assert_eq!(from.ip(), phone.address(name), "{name}");
        from
    };
    let from = seen(LinkName::Wifi);
    for name in [LinkName::Cell, LinkName::Hotspot, LinkName::Wifi, LinkName::Cell] {
        phone.select(name).unwrap();
        seen(name);
    }
    there.send_to(b"old address", from).unwrap();
    // With the old address it either cannot be sent at all, or the server drops it on the wrong link.
    let _ = bound.send_to(b"old address", (Lab::SERVER, PORT));
    assert!(!hears_something(&there));
    phone.both().unwrap();
    assert_eq!(seen(LinkName::Wifi).ip(), phone.address(LinkName::Wifi));
    let over_cell = phone.space().run(|| UdpSocket::bind((phone.address(LinkName::Cell), 0)).unwrap()).unwrap();
    over_cell.send_to(b"here", (Lab::SERVER, PORT)).unwrap();
    assert_eq!(there.recv_from(&mut [0; 10]).unwrap().1.ip(), phone.address(LinkName::Cell));
}

#[test]
fn nothing_is_left_of_a_lab_that_ends_in_a_panic() {
    let Some((lab, _phone)) = lab("panic") else { return };
    let folder = lab.folder().to_owned();
    let links = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| name.trim() == "link hotspot40").count()
    };
    let panicked = std::thread::spawn(move || {
        let mut lab = lab;
        let phones: Vec<Phone> = (0..41).map(|_| lab.phone().unwrap()).collect();
        assert_eq!((phones.len(), links()), (41, 1));
        panic!("planned");
    });
    assert!(panicked.join().is_err());
    assert!(!folder.exists());
    assert_eq!(links(), 0);
}

#[test]
fn what_comes_through_is_what_was_sent() {
    let Some((lab, phone)) = lab("content") else { return };
    phone.link(LinkName::Wifi).set(WIFI_GOOD.loss(0.02).jitter_ms(3).reorder(0.02, 5).nat(Nat::Addresses));
    let listener = lab.server().run(|| TcpListener::bind((Lab::SERVER, PORT)).unwrap()).unwrap();
    let sent: Vec<u8> = (0..500_000u32).map(|number| ((number * 31) >> 3) as u8).collect();
    let server = std::thread::spawn(move || {
        let mut got = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
        got
    });
    let address = SocketAddr::from((Lab::SERVER, PORT));
    let mut stream = phone.space().run(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap()).unwrap();
    stream.write_all(&sent).unwrap();
    drop(stream);
    assert!(server.join().unwrap() == sent);
}
