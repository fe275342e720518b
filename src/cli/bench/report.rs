//! What a run found, for people and for machines.

use super::histogram::Quantiles;
use super::idle::Idle;
use super::load::{Measured, TEXT_BYTES, Wire};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The command line that made it.
    pub command: String,
    pub machine: Machine,
    pub pairs: usize,
    pub seconds: u64,
    pub transports: Vec<TransportReport>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub version: &'static str,
    /// `release` or `debug`.
    pub build: &'static str,
    /// CPUs that may be used.
    pub cpus: usize,
    /// Who ran where.
    pub pinning: String,
    /// Whose server, and where it kept its messages.
    pub store: String,
    /// Load on the machine before the run began: 1, 5 and 15 minutes.
    pub load_before: String,
    /// What was cut, or could not be done.
    pub notes: Vec<String>,
}

/// What was found over one transport.
#[derive(Debug, Serialize)]
pub(super) struct TransportReport {
    pub transport: &'static str,
    /// At a fixed rate.
    pub modest: LoadReport,
    /// With every window full.
    pub saturated: LoadReport,
    /// A message of [`TEXT_BYTES`] bytes of text.
    pub wire: Wire,
    /// `None`: the server is not the bench's own.
    pub idle: Option<Idle>,
}

/// What was found under one load.
#[derive(Debug, Serialize)]
pub(super) struct LoadReport {
    /// Messages a second that were asked for; `None`: as many as it takes.
    pub asked: Option<u32>,
    /// All of them became durable and arrived once and in order.
    pub messages: u64,
    pub seconds: f64,
    pub messages_per_second: f64,
    /// From a command to `Applied` at its sender.
    pub applied: Quantiles,
    /// From a command to the event at its recipient.
    pub delivered: Quantiles,
    /// CPU time of the server for each message, in microseconds.
    pub server_cpu_us: Option<f64>,
    /// CPU time of the load for each message, in microseconds.
    pub load_cpu_us: Option<f64>,
}

impl LoadReport {
    pub fn new(asked: Option<u32>, measured: &Measured, server_cpu: Option<Duration>, load_cpu: Option<Duration>) -> Self {
        let seconds = measured.took.as_secs_f64();
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / measured.messages.max(1) as f64;
        Self {
            asked,
            messages: measured.messages,
            seconds,
            messages_per_second: if seconds > 0.0 { measured.messages as f64 / seconds } else { 0.0 },
            applied: measured.applied.quantiles(),
            delivered: measured.delivered.quantiles(),
            server_cpu_us: server_cpu.map(each),
            load_cpu_us: load_cpu.map(each),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { version, build, cpus, pinning, store, load_before, notes } = &self.machine;
        writeln!(f, "{}", self.command)?;
        writeln!(f, "  whimbrel {version} ({build} build), {cpus} CPUs, load before {load_before}")?;
        writeln!(f, "  {pinning}; store: {store}")?;
        for note in notes {
            writeln!(f, "  note: {note}")?;
        }
        writeln!(f, "\ndirect messages of {TEXT_BYTES} bytes, durable, {} pairs, {} s each; times in ms", self.pairs, self.seconds)?;
        writeln!(
            f,
            "{:<14}{:<10}{:>9}{:>10} | {:>16} | {:>16} | {:>14}",
            "", "", "messages", "a second", "applied after", "event after", "CPU us/message"
        )?;
        writeln!(
            f,
            "{:<14}{:<10}{:>9}{:>10} | {:>8}{:>8} | {:>8}{:>8} | {:>7}{:>7}",
            "", "load", "", "", "p50", "p99", "p50", "p99", "server", "load"
        )?;
        for transport in &self.transports {
            for load in [&transport.modest, &transport.saturated] {
                let name = load.asked.map_or_else(|| "full".to_owned(), |rate| format!("{rate}/s"));
                let cpu = |cpu: Option<f64>| cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1}"));
                writeln!(
                    f,
                    "{:<14}{:<10}{:>9}{:>10.0} | {:>8.2}{:>8.2} | {:>8.2}{:>8.2} | {:>7}{:>7}",
                    transport.transport,
                    name,
                    load.messages,
                    load.messages_per_second,
                    load.applied.p50_ms,
                    load.applied.p99_ms,
                    load.delivered.p50_ms,
                    load.delivered.p99_ms,
                    cpu(load.server_cpu_us),
                    cpu(load.load_cpu_us),
                )?;
            }
        }
        writeln!(f, "\nidle sessions of distinct users, and bytes on the wire with framing")?;
        writeln!(f, "{:<14}{:>9}{:>14}{:>13}{:>14}", "", "sessions", "KiB a session", "event bytes", "command bytes")?;
        for transport in &self.transports {
            let (sessions, each) = transport
                .idle
                .map_or_else(|| ("-".into(), "-".into()), |idle| (idle.sessions.to_string(), format!("{:.1}", idle.kib_each)));
            let Wire { event_bytes, command_bytes } = transport.wire;
            writeln!(f, "{:<14}{sessions:>9}{each:>14}{event_bytes:>13}{command_bytes:>14}", transport.transport)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::histogram::Histogram;
    use super::*;

    fn report() -> Report {
        let mut times = Histogram::new();
        times.record(Duration::from_millis(4));
        let wire = Wire { event_bytes: 74, command_bytes: 90 };
        let measured = Measured { messages: 1000, took: Duration::from_secs(2), applied: times.clone(), delivered: times, wire };
        let load = |asked, cpu| LoadReport::new(asked, &measured, cpu, Some(Duration::from_millis(5)));
        let idle = Idle { sessions: 10, before_kib: 100, with_kib: 260, kib_each: 16.0 };
        let transport = TransportReport {
            transport: "websocket",
            modest: load(Some(500), None),
            saturated: load(None, Some(Duration::from_millis(20))),
            wire,
            idle: Some(idle),
        };
        let machine = Machine {
            version: "0",
            build: "debug",
            cpus: 2,
            pinning: "not pinned".into(),
            store: "sqlite".into(),
            load_before: "0 0 0".into(),
            notes: vec!["something was cut".into()],
        };
        Report { command: "whimbrel bench".into(), machine, pairs: 4, seconds: 2, transports: vec![transport] }
    }

    #[test]
    fn figures_are_worked_out() {
        let report = report();
        let load = &report.transports[0].saturated;
        assert!((load.messages_per_second - 500.0).abs() < 1e-9);
        assert!((load.server_cpu_us.unwrap() - 20.0).abs() < 1e-9);
    }

    #[test]
    fn people_get_a_table_and_machines_get_json() {
        let text = report().to_string();
        for part in ["whimbrel bench\n", "2 CPUs", "note: something was cut", "500/s", "full", "16.0", "74", "90", "4.00"] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["transports"][0]["idle"]["sessions"], 10);
        assert_eq!(json["transports"][0]["modest"]["server_cpu_us"], serde_json::Value::Null);
    }
}
