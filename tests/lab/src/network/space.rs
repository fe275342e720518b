//! Network namespaces without names: each lives as long as something holds it, so a lab that is killed leaves none behind.

use crate::LabError;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::thread;

/// A network of its own: devices, addresses, routes and sockets apart from the machine's.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// A new one, with nothing in it but a loopback device that is up. No IPv6: what it says by itself would be counted as traffic.
    ///
    /// # Errors
    /// If this process may not make one.
    pub fn new() -> Result<Self, LabError> {
        // On a thread of its own, which ends: the caller stays where it is.
        let made = thread::spawn(|| {
            leave_for_a_new_one()?;
            File::open("/proc/thread-self/ns/net")
        });
        let handle = joined(made).map_err(|why| LabError::NotPermitted(format!("a network namespace cannot be made: {why}")))?;
        let space = Self { handle };
        space.write("net/ipv6/conf/all/disable_ipv6", "1").ok(); // Absent where the kernel has no IPv6.
        space.ip(&["link set lo up"])?;
        Ok(space)
    }

    /// Moves the calling thread here, for good: what it opens and starts from now on, threads and processes too, is here.
    ///
    /// # Errors
    /// If this process may not.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Does something here, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// If this process may not enter.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| joined_scoped(scope.spawn(|| self.enter().map(|()| work()))))
    }

    /// Starts a thread that lives here.
    ///
    /// # Errors
    /// If the machine has no thread left.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<thread::JoinHandle<io::Result<T>>> {
        let there = Self { handle: self.handle.try_clone()? };
        thread::Builder::new().name(name.into()).spawn(move || there.enter().map(|()| work()))
    }

    /// Carries out commands of the program `ip` here, in order, in one go.
    ///
    /// # Errors
    /// If one fails: the error has what `ip` said.
    pub fn ip(&self, commands: &[&str]) -> Result<(), LabError> {
        let said = |why: String| LabError::Command { command: format!("ip: {}", commands.join("; ")), why };
        let output = self.run(|| {
            let mut ip = Command::new("ip");
            let mut ip = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
            if let Some(mut input) = ip.stdin.take() {
                input.write_all(commands.join("\n").as_bytes())?;
            }
            ip.wait_with_output()
        });
        let output = output.and_then(|output| output).map_err(|why| said(format!("{why} (is iproute2 installed?)")))?;
        if output.status.success() { Ok(()) } else { Err(said(String::from_utf8_lossy(&output.stderr).trim().into())) }
    }

    /// Sets a setting of the kernel for this network: `path` below `/proc/sys`.
    ///
    /// # Errors
    /// If there is no such setting.
    pub fn write(&self, path: &str, value: &str) -> Result<(), LabError> {
        let done = self.run(|| std::fs::write(format!("/proc/sys/{path}"), value)).and_then(|done| done);
        done.map_err(|why| LabError::Command { command: format!("set {path} to {value}"), why: why.to_string() })
    }

    /// How somebody can look into it while the process lives: `nsenter --net=PATH ip addr`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }
}

/// Moves the calling thread into a network namespace that nothing else is in.
#[expect(unsafe_code, reason = "there is no safe wrapper, for other flags than this one are dangerous")]
fn leave_for_a_new_one() -> io::Result<()> {
    // SAFETY: what makes unsharing unsafe is unsharing the table of files; this changes which network the thread is in, nothing else.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}

fn joined<T>(thread: thread::JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn joined_scoped<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
