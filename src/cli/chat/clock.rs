//! Times as people read them, where they are.

use std::time::Instant;
use time::{Date, Duration, OffsetDateTime, UtcOffset};
use whimbrel_client::protocol::Time;

/// This moment, by both clocks: the one that never jumps, and the one on the wall.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For how long something lasts.
    pub at: Instant,
    /// For when something was.
    pub time: Time,
}

impl Now {
    /// By the machine's clocks.
    pub fn read() -> Self {
        let millis = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        // A clock before 1970 is as wrong as one that says 1970.
        Self { at: Instant::now(), time: Time(u64::try_from(millis).unwrap_or(0)) }
    }
}

/// How far local time is from UTC, over the years that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// From when on (seconds since 1970) which distance, rising; never empty.
    changes: Vec<(i64, UtcOffset)>,
}

impl Zone {
    /// UTC.
    #[cfg(test)]
    pub fn utc() -> Self {
        Self { changes: vec![(i64::MIN, UtcOffset::UTC)] }
    }

    /// The zone of this machine, from five years ago until a year from now. Only a process with one thread can ask for it (the
    /// environment could change meanwhile), so it is asked for once, at the start; without an answer it is UTC.
    pub fn local(now: Time) -> Self {
        let now = OffsetDateTime::from_unix_timestamp(seconds(now)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let ask = |at: OffsetDateTime| UtcOffset::local_offset_at(at).unwrap_or(UtcOffset::UTC);
        let mut day = now - Duration::days(5 * 366);
        let mut changes = vec![(i64::MIN, ask(day))];
        while day < now + Duration::days(366) {
            let next = day + Duration::days(1);
            let (before, after) = (ask(day), ask(next));
            if before != after {
                // Somewhere within the day: halve until it is the second.
                let (mut low, mut high) = (day.unix_timestamp(), next.unix_timestamp());
                while high - low > 1 {
                    let middle = low.midpoint(high);
                    let is_before = OffsetDateTime::from_unix_timestamp(middle).is_ok_and(|at| ask(at) == before);
                    if is_before { low = middle } else { high = middle }
                }
                changes.push((high, after));
            }
            day = next;
        }
        Self { changes }
    }

    fn at(&self, time: Time) -> OffsetDateTime {
        let seconds = seconds(time);
        let offset = self.changes.iter().rev().find(|(from, _)| *from <= seconds).map_or(UtcOffset::UTC, |(_, offset)| *offset);
        // Times beyond the year 9999 are nobody's; they are shown as the beginning.
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH).to_offset(offset)
    }

    /// The day.
    pub fn day(&self, time: Time) -> Date {
        self.at(time).date()
    }

    /// Hours and minutes.
    pub fn clock(&self, time: Time) -> String {
        let at = self.at(time);
        format!("{:02}:{:02}", at.hour(), at.minute())
    }

    /// The day in words, as seen from now.
    pub fn day_name(&self, time: Time, now: Time) -> String {
        let (day, today) = (self.day(time), self.day(now));
        match (today - day).whole_days() {
            0 => "Today".into(),
            1 => "Yesterday".into(),
            2..=6 => day.weekday().to_string(),
            _ if day.year() == today.year() => format!("{} {}", day.day(), day.month()),
            _ => format!("{} {} {}", day.day(), day.month(), day.year()),
        }
    }

    /// As short as it can be said: the time today, the day before that. At most six columns.
    pub fn brief(&self, time: Time, now: Time) -> String {
        let (day, today) = (self.day(time), self.day(now));
        let short = |name: String| name.chars().take(3).collect::<String>();
        match (today - day).whole_days() {
            0 => self.clock(time),
            1..=6 => short(day.weekday().to_string()),
            _ if day.year() == today.year() => format!("{} {}", day.day(), short(day.month().to_string())),
            _ => day.year().to_string(),
        }
    }
}

fn seconds(time: Time) -> i64 {
    i64::try_from(time.0 / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::{datetime, offset};

    fn time(at: OffsetDateTime) -> Time {
        Time(u64::try_from(at.unix_timestamp()).unwrap() * 1000)
    }

    #[test]
    fn days_have_the_names_people_give_them() {
        let zone = Zone::utc();
        let now = time(datetime!(2026-05-20 09:00 UTC));
        for (at, day, brief) in [
            (datetime!(2026-05-20 00:00 UTC), "Today", "00:00"),
            (datetime!(2026-05-19 23:59 UTC), "Yesterday", "Tue"),
            (datetime!(2026-05-16 12:00 UTC), "Saturday", "Sat"),
            (datetime!(2026-03-01 12:00 UTC), "1 March", "1 Mar"),
            (datetime!(2024-02-29 12:00 UTC), "29 February 2024", "2024"),
            (datetime!(2026-05-21 12:00 UTC), "21 May", "21 May"),
        ] {
            assert_eq!(zone.day_name(time(at), now), day);
            assert_eq!(zone.brief(time(at), now), brief);
        }
    }

    #[test]
    fn summer_and_winter_each_have_their_distance() {
        let change = datetime!(2026-03-29 01:00 UTC);
        let zone = Zone { changes: vec![(i64::MIN, offset!(+1)), (change.unix_timestamp(), offset!(+2))] };
        assert_eq!(zone.clock(time(change - Duration::SECOND)), "01:59");
        assert_eq!(zone.clock(time(change)), "03:00");
        assert_eq!(zone.clock(Time(u64::MAX)), "02:00", "nonsense is shown as something");
    }
}
