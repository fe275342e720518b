//! What the machine is, and what a process has used of it, as `/proc` has it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Files that are open for other things than connections.
const FILES_SPARE: u64 = 100;
/// `/proc/ID/stat` counts in hundredths of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// The CPUs that this process may use.
pub(super) fn cpus() -> Vec<usize> {
    status_field(std::process::id(), "Cpus_allowed_list").map_or_else(Vec::new, |list| parse_list(&list))
}

/// A list such as `0-2,5`.
fn parse_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Pins this process, all its threads, to one CPU. `false` if that cannot be done.
pub(super) fn pin_self(cpu: usize) -> bool {
    quietly(Command::new("taskset").args(["-acp", &cpu.to_string(), &std::process::id().to_string()]))
}

/// Whether `taskset` is there.
pub(super) fn has_taskset() -> bool {
    quietly(Command::new("taskset").arg("--version"))
}

/// Puts this process on a CPU of its own, if there are two, and leaves another to the server: which, and what to say of it.
pub(super) fn apart() -> (Option<usize>, String) {
    match cpus().as_slice() {
        [server, load, ..] if has_taskset() && pin_self(*load) => {
            (Some(*server), format!("the server on CPU {server}, the load on CPU {load}"))
        }
        _ => (None, "not pinned".into()),
    }
}

fn quietly(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// How many connections this process may open, after asking the system for as many as it allows at most.
pub(super) fn connections_max() -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(256);
    usize::try_from(limit.saturating_sub(FILES_SPARE)).unwrap_or(usize::MAX)
}

/// Resident memory of a process, in KiB.
pub(super) fn resident_kib(process: u32) -> Option<u64> {
    status_field(process, "VmRSS")?.split_whitespace().next()?.parse().ok()
}

fn status_field(process: u32, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

/// CPU time that a process has used.
pub(super) fn cpu_time(process: u32) -> Option<Duration> {
    parse_cpu_time(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Whether a process of ours has ended, and is still there to be looked at because nobody has waited for it yet.
pub(super) fn has_ended(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| is_ended(&stat))
}

fn is_ended(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('Z'))
}

fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The name of the program comes second, in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    Some(TICK * (fields.next()?? + fields.next()??))
}

/// The sort of file system that a folder lies on: on a `tmpfs` nothing is durable.
pub(super) fn file_system(folder: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let at = words.next()?.to_owned();
        let kind = words.next()?.to_owned();
        folder.starts_with(&at).then_some((at.len(), kind))
    };
    mounts.lines().filter_map(mount).max_by_key(|(len, _)| *len).map_or_else(|| "unknown file system".into(), |(_, kind)| kind)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(parse_list("0-2,5,7-8"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(parse_list("3\n"), [3]);
        assert_eq!(parse_list(""), [0usize; 0]);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu_time("nothing"), None);
        assert!(!is_ended(stat) && is_ended("42 (a) S (b) Z 1 2"));
    }

    #[test]
    fn this_process_is_there() {
        assert!(!cpus().is_empty());
        assert!(resident_kib(std::process::id()).unwrap() > 100);
        assert!(cpu_time(std::process::id()).is_some());
        assert!(!file_system(&std::env::temp_dir()).is_empty());
    }
}
