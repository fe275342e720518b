//! The journeys that are scripted, and random ones.

use crate::LinkName::{Cell, Hotspot, Wifi};
use crate::journey::{Act, End, Journey, Step};
use crate::network::{CELL, Dice, Nat, Settings, WIFI_GOOD};
use std::time::Duration;

/// All that are scripted.
#[must_use]
pub fn scripted() -> Vec<Journey> {
    vec![commuter(), lift(), conference(), tunnel(), hotspot(), office(), guesthouse(), garden()]
}

fn journey(
    name: &str,
    about: &str,
    begin: crate::LinkName,
    links: &[(crate::LinkName, Settings)],
    steps: Vec<Step>,
    end_ms: u64,
) -> Journey {
    let end = End::At(Duration::from_millis(end_ms));
    Journey { name: name.into(), about: about.into(), links: links.to_vec(), begin, steps, end }
}

fn blackout(link: crate::LinkName, on: bool) -> Act {
    Act::Blackout { link, up: on, down: on }
}

fn commuter() -> Journey {
    let steps = vec![
        Step::new(3_000, "leaving the house", [Act::Set(Wifi, WIFI_GOOD.jitter_ms(15).loss(0.03))]),
        Step::new(5_000, "Wi-Fi at its edge", [Act::Set(Wifi, WIFI_GOOD.jitter_ms(50).loss(0.12))]),
        Step::new(7_000, "to cell", [Act::Use(Cell)]),
        Step::new(10_000, "cell gets worse", [Act::Set(Cell, Settings::of_round_trip_ms(70).jitter_ms(40).loss(0.04))]),
        Step::new(13_000, "cell is good again", [Act::Set(Cell, CELL)]),
        Step::new(16_000, "to Wi-Fi at work", [Act::Set(Wifi, WIFI_GOOD), Act::Use(Wifi)]),
    ];
    let about = "Wi-Fi to cellular and back, loss and jitter rising before the change";
    journey("commuter", about, Wifi, &[(Cell, CELL.jitter_ms(10))], steps, 20_000)
}

fn lift() -> Journey {
    let steps = vec![Step::new(3_000, "doors close", [blackout(Cell, true)]), Step::new(9_000, "doors open", [blackout(Cell, false)])];
    journey("lift", "nothing gets through for six seconds, and nobody says so", Cell, &[(Cell, CELL)], steps, 14_000)
}

fn conference() -> Journey {
    let hall = Settings::of_round_trip_ms(30);
    let steps = vec![
        Step::new(5_000, "the hall fills", [Act::Set(Wifi, hall.jitter_ms(120).loss(0.15).rate(300_000, 24 * 1024))]),
        Step::new(12_000, "a talk begins", [Act::Set(Wifi, hall.jitter_ms(40).loss(0.05).rate(2_000_000, 64 * 1024))]),
    ];
    let begin = hall.jitter_ms(60).loss(0.08).rate(1_000_000, 32 * 1024);
    journey("conference", "Wi-Fi that too many share: loss, jitter, little room, a queue", Wifi, &[(Wifi, begin)], steps, 18_000)
}

fn tunnel() -> Journey {
    let cell = Settings::of_round_trip_ms(60).jitter_ms(15).loss(0.02);
    let mut steps = Vec::new();
    for (number, (at, until)) in [(2_000, 4_000), (6_000, 7_500), (9_000, 14_000), (16_000, 16_800)].into_iter().enumerate() {
        steps.push(Step::new(at, &format!("tunnel {}", number + 1), [blackout(Cell, true)]));
        steps.push(Step::new(until, "light", [blackout(Cell, false)]));
    }
    journey("tunnel", "a train through four tunnels, cellular only", Cell, &[(Cell, cell)], steps, 20_000)
}

fn hotspot() -> Journey {
    let there = Settings::of_round_trip_ms(60).jitter_ms(10).loss(0.02).rate(5_000_000, 64 * 1024).nat(Nat::Addresses);
    let steps = vec![
        Step::new(3_000, "to the hotspot", [Act::Mtu(Hotspot, 1_280), Act::Use(Hotspot)]),
        Step::new(8_000, "its NAT forgets", [Act::Rebind(Hotspot)]),
        Step::new(13_000, "home again", [Act::Use(Wifi)]),
    ];
    let about = "from one Wi-Fi to another: another address, a NAT that forgets, an MTU of 1,280";
    journey("hotspot", about, Wifi, &[(Hotspot, there)], steps, 17_000)
}

fn office() -> Journey {
    let steps = vec![Step::new(3_000, "Wi-Fi without UDP", [Act::Use(Wifi)]), Step::new(13_000, "outside again", [Act::Use(Cell)])];
    let closed = Settings { udp_blocked: true, ..Settings::of_round_trip_ms(10) };
    let about = "cellular to a company Wi-Fi that lets no UDP through, and out again";
    journey("office", about, Cell, &[(Cell, CELL), (Wifi, closed)], steps, 18_000)
}

fn guesthouse() -> Journey {
    let steps =
        vec![Step::new(3_000, "Wi-Fi without long packets", [Act::Use(Wifi)]), Step::new(11_000, "outside again", [Act::Use(Cell)])];
    // QUIC's handshake has packets of 1,228 bytes, and a message none.
    let narrow = Settings { mtu_silent: 1_200, ..Settings::of_round_trip_ms(20) };
    let about = "cellular to a Wi-Fi that swallows packets of more than 1,200 bytes, and out again";
    journey("guesthouse", about, Cell, &[(Cell, CELL), (Wifi, narrow)], steps, 16_000)
}

fn garden() -> Journey {
    let changes = [(3_000, Cell), (11_000, Wifi), (19_000, Cell), (27_000, Wifi)];
    let steps = changes.map(|(at, link)| Step::new(at, if link == Cell { "into the garden" } else { "back inside" }, [Act::Use(link)]));
    journey("garden", "in and out of the reach of Wi-Fi, again and again", Wifi, &[(Cell, CELL)], steps.to_vec(), 35_000)
}

/// Wi-Fi to cellular once, at a moment so many milliseconds after the start; over when messages flow again.
#[must_use]
pub fn switch(at_ms: u64) -> Journey {
    let mut journey = journey(
        "switch",
        "Wi-Fi (5 ms) to cellular (40 ms, 1 % lost each way)",
        Wifi,
        &[(Cell, CELL)],
        vec![Step::new(at_ms, "to cell", [Act::Use(Cell)])],
        0,
    );
    journey.end = End::Recovered { settle: Duration::from_millis(500), at_most: Duration::from_secs(30) };
    journey
}

/// Nothing gets through for so long, from a moment on that is as many milliseconds after the start; over when messages flow again. At its
/// end the phone's system says so: applications that tell the client of that do so then.
#[must_use]
pub fn blackout_of(length: Duration, at_ms: u64) -> Journey {
    let until_ms = at_ms + u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut journey = journey(
        &format!("blackout-{:.0}s", length.as_secs_f64()),
        "cellular (40 ms, 1 % lost each way) where nothing gets through for a while",
        Cell,
        &[(Cell, CELL)],
        vec![
            Step::new(at_ms, "nothing gets through", [blackout(Cell, true)]),
            Step::new(until_ms, "light", [blackout(Cell, false), Act::Announced]),
        ],
        0,
    );
    journey.end = End::Recovered { settle: Duration::from_millis(500), at_most: Duration::from_secs(60) };
    journey
}

/// A network of one quality for so many seconds.
#[must_use]
pub fn steady(settings: Settings, seconds: u64) -> Journey {
    journey("steady", "one network that stays as it is", Cell, &[(Cell, settings)], Vec::new(), seconds * 1_000)
}

/// A journey from a seed: up to ten changes within some seconds, of every sort, then a network that works.
#[must_use]
pub fn random(seed: u64) -> Journey {
    let mut dice = Dice::new(seed).split(77);
    let link = |dice: &mut Dice| [Wifi, Cell, Hotspot][dice.range(0, 3) as usize];
    let links: Vec<_> = [Wifi, Cell, Hotspot].into_iter().map(|link| (link, quality(&mut dice))).collect();
    let begin = link(&mut dice);
    let mut used = begin;
    let mut steps = Vec::new();
    let mut at = dice.range(200, 800);
    for _ in 0..dice.range(3, 11) {
        let (label, acts) = match dice.range(0, 10) {
            0..=3 => {
                used = link(&mut dice);
                (format!("to {used}"), vec![Act::Use(used)])
            }
            4 | 5 => {
                let (up, down) = [(true, true), (true, true), (true, false), (false, true)][dice.range(0, 4) as usize];
                steps.push(Step::new(at, &format!("blackout of {used}"), [Act::Blackout { link: used, up, down }]));
                at += dice.range(50, 2_500);
                ("light".into(), vec![blackout(used, false)])
            }
            6 => (format!("{used}'s NAT forgets"), vec![Act::Rebind(used)]),
            7 => (format!("{used} changes"), vec![Act::Set(used, quality(&mut dice))]),
            8 => {
                let mtu = dice.range(1_280, 1_501) as usize;
                (format!("MTU {mtu} on {used}"), vec![Act::Mtu(used, mtu)])
            }
            _ => {
                used = Wifi;
                ("both at once".into(), vec![Act::UseBoth])
            }
        };
        steps.push(Step::new(at, &label, acts));
        // Sometimes at once, so that changes meet each other's recovery.
        at += if dice.chance(0.3) { dice.range(1, 100) } else { dice.range(100, 1_500) };
    }
    steps.push(Step::new(at, "all is well", [Act::Set(Cell, CELL), Act::Use(Cell)]));
    journey(&format!("random-{seed}"), "whatever the seed says", begin, &links, steps, at + 1_000)
}

/// Some network: mostly one that works, sometimes hardly.
fn quality(dice: &mut Dice) -> Settings {
    let mut settings = Settings::of_round_trip_ms(dice.range(2, 200));
    if dice.chance(0.5) {
        settings = settings.jitter_ms(dice.range(1, 80));
    }
    if dice.chance(0.6) {
        settings = settings.loss(dice.part() * if dice.chance(0.2) { 0.3 } else { 0.05 });
    }
    if dice.chance(0.3) {
        settings = settings.reorder(dice.part() * 0.1, dice.range(1, 50));
    }
    if dice.chance(0.3) {
        settings = settings.rate(dice.range(200_000, 5_000_000), dice.range(16, 128) as usize * 1024);
    }
    if dice.chance(0.4) {
        settings = settings.nat(if dice.chance(0.5) { Nat::Ports } else { Nat::Addresses });
    }
    settings.udp_blocked = dice.chance(0.1);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_journey_is_in_order_and_ends_well() {
        for journey in scripted().into_iter().chain((0..500).map(random)).chain([
            switch(1_000),
            steady(CELL, 5),
            blackout_of(Duration::from_secs(6), 1_000),
        ]) {
            assert_eq!(journey.check(), Ok(()));
            assert_eq!(journey.clone().faster(4).check(), Ok(()));
        }
        assert_eq!(random(7), random(7));
        assert_ne!(random(7), random(8));
    }

    #[test]
    fn a_journey_that_cannot_be_is_refused() {
        let mut unordered = lift();
        unordered.steps.swap(0, 1);
        let mut dark = lift();
        dark.steps.pop();
        let mut short = lift();
        short.end = End::At(Duration::from_secs(4));
        for (journey, why) in [(unordered, "order"), (dark, "mends"), (short, "before its last step")] {
            assert!(journey.check().unwrap_err().contains(why), "{journey:?}");
        }
    }
}
