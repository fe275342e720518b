//! Where it was measured, and how busy it was there.

use serde::Serialize;
use whimbrel_lab::report::{time, traffic};
use whimbrel_lab::run::Run;

/// What somebody needs to know who compares figures.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cpus: usize,
    kernel: String,
    /// Load at the end: 1, 5 and 15 minutes.
    load: String,
    build: &'static str,
    /// By how much the emulator was late with a packet at most, in each run, in milliseconds: the middle run's and the worst's.
    late_ms: (f64, f64),
}

impl Machine {
    pub fn look(runs: &[Run]) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let late = runs.iter().map(|run| {
            let counts = traffic(run);
            counts.up.late_us_max.max(counts.down.late_us_max) as f64 / 1_000.0
        });
        let late = whimbrel_lab::measure::Quantiles::of(late);
        Self {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            late_ms: (late.p50, late.max),
        }
    }

    pub fn words(&self) -> String {
        format!(
            "`{}`: {} CPUs, Linux {}, load {}, {} build. The emulator's latest packet of a run was {} late in the middle run, {} in the worst.",
            command_line(),
            self.cpus,
            self.kernel,
            self.load,
            self.build,
            time(self.late_ms.0),
            time(self.late_ms.1),
        )
    }
}

/// As it was given, without the path of the program.
pub(super) fn command_line() -> String {
    std::iter::once("whimbrel-lab".to_owned()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" ")
}
