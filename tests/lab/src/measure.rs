//! What a run's notes say in numbers. All times in milliseconds.

use crate::run::Happened;
use crate::traffic::{Notes, number, times};
use serde::Serialize;
use std::time::{Duration, Instant};

/// A duration in milliseconds.
#[must_use]
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Some times, by how many did not exceed them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many there were.
    pub count: usize,
    /// Half took no longer.
    pub p50: f64,
    /// Nine of ten took no longer.
    pub p90: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// None took longer.
    pub max: f64,
}

impl Quantiles {
    /// Of these times.
    #[must_use]
    pub fn of(times: impl IntoIterator<Item = f64>) -> Self {
        let mut times: Vec<f64> = times.into_iter().collect();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let rank = (times.len() as f64 * part).ceil() as usize;
            times.get(rank.max(1) - 1).copied().unwrap_or_default()
        };
        Self { count: times.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// One way of a conversation: from the phone (up), or to it (down).
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stream {
    /// Messages that were sent during the journey.
    pub sent: usize,
    /// Messages of them that arrived.
    pub arrived: usize,
    /// From the call of `send` to the recipient's application.
    pub latency: Quantiles,
    /// The same, of each message in order of arrival.
    pub latencies: Vec<f64>,
    /// The longest time between a message's arrival and the next one's, or between the start and the first one's.
    pub longest_gap: f64,
    /// Each arrival: when, from the start, and how long after the one before, or after the start.
    pub gaps: Vec<(f64, f64)>,
}

/// What one step did to one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StepGap {
    /// From the last arrival at or before the moment when the step was done, to the first arrival of a message that was sent at or after
    /// that moment: what was on its way does not count as recovery. From the start if nothing had arrived before. `None` if there is no
    /// such arrival.
    pub gap: Option<f64>,
    /// If the step ended a blackout: from that moment to the first arrival of any message.
    pub first_after_blackout: Option<f64>,
}

/// One way in numbers: what a sender sent and a recipient got.
#[must_use]
pub fn stream(sender: &Notes, recipient: &Notes, start: Instant) -> Stream {
    let sent_at = times(&sender.sent);
    let arrivals = arrivals(recipient);
    let since = |at: Instant| ms(at.saturating_duration_since(start));
    let latencies = arrivals.iter().filter_map(|(text, at)| Some(ms(at.saturating_duration_since(*sent_at.get(text)?))));
    let latencies: Vec<f64> = latencies.collect();
    let befores = std::iter::once(start).chain(arrivals.iter().map(|(_, at)| *at));
    let gaps: Vec<(f64, f64)> =
        befores.zip(&arrivals).map(|(before, (_, at))| (since(*at), ms(at.saturating_duration_since(before)))).collect();
    Stream {
        sent: sender.sent.iter().filter(|sent| number(&sent.message.text).is_some()).count(),
        arrived: arrivals.len(),
        latency: Quantiles::of(latencies.iter().copied()),
        latencies,
        longest_gap: gaps.iter().map(|(_, gap)| *gap).fold(0.0, f64::max),
        gaps,
    }
}

/// How long each numbered message took that was sent from one moment on and before another.
#[must_use]
pub fn latencies(sender: &Notes, recipient: &Notes, from: Instant, until: Instant) -> Vec<f64> {
    let sent_at = times(&sender.sent);
    let sent = |text: &str| sent_at.get(text).copied().filter(|at| (from..until).contains(at));
    arrivals(recipient).into_iter().filter_map(|(text, at)| Some(ms(at.saturating_duration_since(sent(text)?)))).collect()
}

/// Arrivals of numbered messages: their text and when.
fn arrivals(recipient: &Notes) -> Vec<(&str, Instant)> {
    let numbered = recipient.got.iter().filter(|got| number(&got.message.text).is_some());
    numbered.map(|got| (got.message.text.as_str(), got.at)).collect()
}

/// What a step did to one way.
#[must_use]
pub fn step_gap(sender: &Notes, recipient: &Notes, start: Instant, step: &Happened) -> StepGap {
    let sent_at = times(&sender.sent);
    let arrivals = arrivals(recipient);
    let before = arrivals.iter().rev().find(|(_, at)| *at <= step.done).map_or(start, |(_, at)| *at);
    let fresh = |text: &str| sent_at.get(text).is_some_and(|at| *at >= step.done);
    let after = arrivals.iter().find(|(text, at)| *at >= step.done && fresh(text)).map(|(_, at)| *at);
    let first = arrivals.iter().find(|(_, at)| *at >= step.done).map(|(_, at)| ms(*at - step.done));
    StepGap {
        gap: after.map(|after| ms(after.saturating_duration_since(before))),
        first_after_blackout: first.filter(|_| step.ends_blackout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{Got, Sent};
    use crate::traffic::{GotAt, SentAt};

    /// Messages as (sent, arrived), in milliseconds.
    fn notes(start: Instant, messages: &[(u64, u64)]) -> (Notes, Notes) {
        let (mut sender, mut recipient) = (Notes::default(), Notes::default());
        let at = |ms| start + Duration::from_millis(ms);
        for (index, (sent, got)) in messages.iter().enumerate() {
            let text = format!("ann {index}");
            let message = Sent { from: "ann".into(), to: "bob".into(), text: text.clone(), place: None };
            sender.sent.push(SentAt { message, at: at(*sent), applied: None });
            let message = Got { mailbox: index as u64 + 1, place: (1, index as u64 + 1), from: "ann".into(), text };
            recipient.got.push(GotAt { message, at: at(*got), transport: "quic" });
        }
        (sender, recipient)
    }

    #[test]
    fn a_gap_ends_with_a_message_that_was_sent_after_the_step() {
        let start = Instant::now();
        let (sender, recipient) = notes(start, &[(0, 5), (100, 105), (200, 330), (300, 340), (400, 405)]);
        let step = |ms, ends_blackout| {
            let done = start + Duration::from_millis(ms);
            Happened { begun: done, done, ends_blackout, label: String::new(), noticed: false }
        };
        // The message sent at 200 was on its way at 250: the first of after is the one sent at 300.
        let gap = step_gap(&sender, &recipient, start, &step(250, true));
        assert_eq!((gap.gap.unwrap().round(), gap.first_after_blackout.unwrap().round()), (235.0, 80.0));
        assert_eq!(step_gap(&sender, &recipient, start, &step(250, false)).first_after_blackout, None);
        assert_eq!(step_gap(&sender, &recipient, start, &step(401, false)).gap, None, "nothing was sent after it");
        assert_eq!(step_gap(&sender, &recipient, start, &step(1, false)).gap.unwrap().round(), 105.0, "nothing had arrived before it");
        let stream = stream(&sender, &recipient, start);
        assert_eq!((stream.sent, stream.arrived, stream.longest_gap.round()), (5, 5, 225.0));
        assert_eq!((stream.latency.p50.round(), stream.latency.max.round()), (5.0, 130.0));
    }

    #[test]
    fn quantiles_are_of_what_is_there() {
        assert_eq!(Quantiles::of([]), Quantiles::default());
        let of = Quantiles::of((1..=200).rev().map(f64::from));
        assert_eq!((of.count, of.p50, of.p90, of.p99, of.max), (200, 100.0, 180.0, 198.0, 200.0));
    }
}
