//! What runs found, for people and for programs: tables, pictures, JSON.

mod distribution;
mod table;
mod timeline;

pub use distribution::distribution;
pub use table::{Table, bytes, time};
pub use timeline::timeline;

use crate::journey::Journey;
use crate::measure::Quantiles;
use crate::network::LinkCounts;
use crate::run::Run;
use serde::Serialize;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// A report that grows, and is written to a folder.
#[derive(Debug, Default)]
pub struct Report {
    text: String,
    markdown: String,
    pictures: Vec<(String, String)>,
}

impl Report {
    /// A headline.
    pub fn headline(&mut self, words: &str) {
        let _ = write!(self.text, "\n{words}\n{}\n", "=".repeat(words.chars().count()));
        let _ = write!(self.markdown, "\n## {words}\n\n");
    }

    /// A paragraph.
    pub fn words(&mut self, words: &str) {
        let _ = write!(self.text, "{words}\n\n");
        let _ = write!(self.markdown, "{words}\n\n");
    }

    /// A table.
    pub fn table(&mut self, table: &Table) {
        if !table.is_empty() {
            let _ = writeln!(self.text, "{}", table.text());
            let _ = writeln!(self.markdown, "{}", table.markdown());
        }
    }

    /// A picture, with a name for its file.
    pub fn picture(&mut self, name: &str, about: &str, svg: String) {
        let _ = writeln!(self.markdown, "![{about}]({name}.svg)\n");
        self.pictures.push((name.into(), svg));
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Writes `report.txt`, `report.md`, `report.json` and the pictures.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path, data: &impl Serialize) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("report.txt"), &self.text)?;
        std::fs::write(folder.join("report.md"), &self.markdown)?;
        std::fs::write(folder.join("report.json"), serde_json::to_vec(data)?)?;
        for (name, svg) in &self.pictures {
            std::fs::write(folder.join(format!("{name}.svg")), svg)?;
        }
        Ok(())
    }

    /// Everything about some runs of one journey: what was measured, step by step, and the picture.
    pub fn journey(&mut self, journey: &Journey, runs: &[Run]) {
        let groups = groups(runs);
        self.headline(&format!("{}: {}", journey.name, journey.about));
        self.table(&whole(&groups));
        self.table(&steps(journey, &groups));
        let typical: Vec<&Run> = groups.iter().filter_map(|(_, runs)| typical(runs)).collect();
        self.picture(&journey.name, &format!("The journey {}", journey.name), timeline(journey, &typical));
    }
}

/// Runs that are the same but for their seeds, by their names, in the order in which each name came first.
#[must_use]
pub fn groups(runs: &[Run]) -> Vec<(String, Vec<&Run>)> {
    let mut groups: Vec<(String, Vec<&Run>)> = Vec::new();
    for run in runs {
        let told = if run.reported { ", reported" } else { "" };
        let name = format!("{}{told}{}", run.transport, if run.quiet { ", quiet" } else { "" });
        match groups.iter_mut().find(|(other, _)| *other == name) {
            Some((_, runs)) => runs.push(run),
            None => groups.push((name, vec![run])),
        }
    }
    groups
}

/// The run whose longest gap is in the middle: what a picture shows.
fn typical<'a>(runs: &[&'a Run]) -> Option<&'a Run> {
    let mut runs = runs.to_vec();
    let longest = |run: &Run| run.up.longest_gap.max(run.down.longest_gap);
    // One that broke a promise is shown first of all.
    runs.sort_by(|one, other| longest(one).total_cmp(&longest(other)));
    runs.iter().find(|run| !run.faults.is_empty()).or(runs.get(runs.len() / 2)).copied()
}

/// Something of each run, each way.
fn over(runs: &[&Run], of: impl Fn(&Run) -> Option<f64>) -> Quantiles {
    Quantiles::of(runs.iter().filter_map(|run| of(run)))
}

/// The middle of some runs and, if there are several, the worst.
fn middle_and_worst(quantiles: Quantiles) -> String {
    match quantiles.count {
        0 => "–".into(),
        1 => time(quantiles.max),
        _ => format!("{} ({})", time(quantiles.p50), time(quantiles.max)),
    }
}

fn latency(runs: &[&Run], of: impl Fn(&Run) -> Quantiles) -> String {
    let at = |part: fn(Quantiles) -> f64| time(over(runs, |run| Some(part(of(run)))).p50);
    format!("{} / {} / {}", at(|times| times.p50), at(|times| times.p99), at(|times| times.max))
}

/// What went through all links.
#[must_use]
pub fn traffic(run: &Run) -> LinkCounts {
    run.links.iter().fold(LinkCounts::default(), |sum, (_, counts)| sum + *counts)
}

fn whole(groups: &[(String, Vec<&Run>)]) -> Table {
    let mut table = Table::new(&[
        "transport",
        "runs",
        "faults",
        "messages ↑ / ↓",
        "latency ↑ p50 / p99 / max",
        "latency ↓ p50 / p99 / max",
        "longest gap ↑",
        "longest gap ↓",
        "IP ↑ / ↓",
        "packets ↑ / ↓",
        "sessions",
    ]);
    for (name, runs) in groups {
        let sum = |of: &dyn Fn(&Run) -> u64| runs.iter().map(|run| of(run)).sum::<u64>();
        let mean = |of: &dyn Fn(&Run) -> u64| sum(of) / runs.len() as u64;
        table.row([
            name.clone(),
            runs.len().to_string(),
            sum(&|run| run.faults.len() as u64).to_string(),
            format!("{} / {}", sum(&|run| run.up.arrived as u64), sum(&|run| run.down.arrived as u64)),
            latency(runs, |run| run.up.latency),
            latency(runs, |run| run.down.latency),
            middle_and_worst(over(runs, |run| Some(run.up.longest_gap))),
            middle_and_worst(over(runs, |run| Some(run.down.longest_gap))),
            format!("{} / {}", bytes(mean(&|run| traffic(run).up.bytes_in)), bytes(mean(&|run| traffic(run).down.bytes_in))),
            format!("{} / {}", mean(&|run| traffic(run).up.packets_in), mean(&|run| traffic(run).down.packets_in)),
            format!("{}", mean(&|run| run.connections.iter().filter(|(_, state)| !state.starts_with('-')).count() as u64)),
        ]);
    }
    table
}

fn steps(journey: &Journey, groups: &[(String, Vec<&Run>)]) -> Table {
    let names: Vec<&str> = groups.iter().map(|(name, _)| name.as_str()).collect();
    let mut table = Table::new(&[&["gap around a step ↑ / ↓"], names.as_slice()].concat());
    for (at, step) in journey.steps.iter().enumerate() {
        let reports = |runs: &[&Run]| runs.iter().filter_map(|run| run.steps.get(at).cloned()).collect::<Vec<_>>();
        let cells = groups.iter().map(|(_, runs)| {
            let reports = reports(runs);
            let gap = |ways: fn(&crate::run::StepReport) -> Option<f64>| Quantiles::of(reports.iter().filter_map(ways));
            format!("{} / {}", middle_and_worst(gap(|step| step.up.gap)), middle_and_worst(gap(|step| step.down.gap)))
        });
        table.row(std::iter::once(format!("{} {}", at + 1, step.label)).chain(cells));
        // Only where a blackout ended.
        let after = |ways: fn(&crate::run::StepReport) -> Option<f64>, runs: &[&Run]| {
            let trips = reports(runs).into_iter().filter_map(|step| Some((ways(&step)?, step.round_trip)));
            Quantiles::of(trips.map(|(took, round_trip)| took / round_trip.max(0.1)))
        };
        let cells: Vec<(Quantiles, Quantiles)> = groups
            .iter()
            .map(|(_, runs)| (after(|step| step.up.first_after_blackout, runs), after(|step| step.down.first_after_blackout, runs)))
            .collect();
        if cells.iter().any(|(up, down)| up.count + down.count > 0) {
            let words = cells.iter().map(|(up, down)| format!("{:.1} / {:.1}", up.p50, down.p50));
            table.row(std::iter::once("  first message after it, in round trips".to_owned()).chain(words));
        }
    }
    table
}
