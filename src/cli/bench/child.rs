//! Servers of the bench's own: this program again, with an empty store in a folder of its own; or another one, by its command.

use super::{BenchError, machine};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it is watched while it ends.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// A folder that is removed when this is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes one where temporary files go.
    pub fn new() -> Result<Self, BenchError> {
        let path = std::env::temp_dir().join(format!("whimbrel-bench-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        std::fs::create_dir(&path).map_err(|why| BenchError::Failed(format!("cannot make the folder {}: {why}", path.display())))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(why) = std::fs::remove_dir_all(&self.0) {
            eprintln!("whimbrel: cannot remove {}: {why}", self.0.display());
        }
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    /// When it was asked to.
    pub asked: Instant,
    /// CPU time that it used from then on.
    pub cpu_time: Option<Duration>,
}

/// A running server; killed when dropped.
pub(super) struct ServerChild {
    child: Child,
    /// Where it serves plain TCP.
    pub url: String,
    /// The address of that, and of TLS and QUIC.
    addresses: [String; 2],
}

impl ServerChild {
    /// Starts one that keeps its data in `folder/name`, on one CPU if told. Blocks until it is ready.
    pub fn start(folder: &Path, name: &str, cpu: Option<usize>) -> Result<Self, BenchError> {
        Self::start_at(folder, name, cpu, ["127.0.0.1:0".into(), "127.0.0.1:0".into()])
    }

    /// Ends it, as a service manager does or without a warning, and starts it again where it was. Blocks until it is ready.
    pub fn restart(mut self, kill: bool, folder: &Path, name: &str, cpu: Option<usize>) -> Result<(Self, Ending), BenchError> {
        let (asked, before) = (Instant::now(), machine::cpu_time(self.id()));
        let cannot = |why| BenchError::Failed(format!("cannot end the server: {why}"));
        if kill {
            self.child.kill().map_err(cannot)?;
        } else {
            Command::new("kill").args(["-TERM", &self.id().to_string()]).status().map_err(cannot)?;
        }
        while !machine::has_ended(self.id()) && asked.elapsed() < END_TIMEOUT {
            std::thread::sleep(Duration::from_millis(2));
        }
        let cpu_time = machine::cpu_time(self.id()).zip(before).map(|(after, before)| after.saturating_sub(before));
        let ended = self.child.wait().map_err(cannot)?;
        if !kill && !ended.success() {
            return Err(BenchError::Failed(format!("the server did not end in order: {ended}")));
        }
        Ok((Self::start_at(folder, name, cpu, self.addresses.clone())?, Ending { asked, cpu_time }))
    }

    fn start_at(folder: &Path, name: &str, cpu: Option<usize>, at: [String; 2]) -> Result<Self, BenchError> {
        let failed = |what: &str| BenchError::Failed(format!("cannot start a server: {what}"));
        let program = std::env::current_exe().map_err(|why| failed(&why.to_string()))?;
        let mut command = command(&program, cpu);
        // Neither settings nor a file of settings of somebody else's server: this load must not get into its store.
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(|key| key.starts_with("WHIMBREL_") || key == "PORT") {
                command.env_remove(key);
            }
        }
        let [http, secure] = &at;
        command.args(["serve", "--http", http, "--secure", secure]);
        command.arg("--data").arg(folder.join(name)).arg("--certs").arg(folder.join("certs"));
        command.env("WHIMBREL_LOG", "error").current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(|why| failed(&why.to_string()))?;
        let output = child.stdout.take();
        let mut server = Self { child, url: String::new(), addresses: at };
        let (sender, ready) = mpsc::channel();
        // A thread, since reading has no time-out. It ends with the server.
        std::thread::spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok) {
                if let Some(addresses) = ready_addresses(&line) {
                    // Nobody listens any more only if the time is over.
                    let _ = sender.send(addresses);
                }
            }
        });
        server.addresses = ready.recv_timeout(START_TIMEOUT).map_err(|_| failed("it did not say that it is ready"))?;
        let [http, _] = &server.addresses;
        server.url = format!("http://{http}");
        Ok(server)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

/// A program, on one CPU if told.
fn command(program: &Path, cpu: Option<usize>) -> Command {
    match cpu {
        // It becomes the server, so the process that we start is the one that we measure and kill.
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &cpu.to_string()]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Somebody else's server; killed when dropped.
pub(super) struct OtherServer {
    child: Child,
    /// Where it serves.
    pub url: String,
}

impl OtherServer {
    /// Starts one by a command for the shell, which finds its port in `PORT`, on one CPU if told. Returns once it takes connections.
    pub async fn start(line: &str, cpu: Option<usize>) -> Result<Self, BenchError> {
        let failed = |what: &str| BenchError::Failed(format!("cannot start `{line}`: {what}"));
        // Free a moment ago, and nobody else is asked for one meanwhile.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|why| failed(&why.to_string()))?;
        let mut command = command(Path::new("sh"), cpu);
        command.args(["-c", &format!("exec {line}")]).env("PORT", free.port().to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|why| failed(&why.to_string()))?;
        let mut server = Self { child, url: format!("http://{free}") };
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(free).await.is_err() {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(failed(&format!("it ended ({status})")));
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err(failed(&format!("it does not listen on {free}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for OtherServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of the ready line.
fn ready_addresses(line: &str) -> Option<[String; 2]> {
    let pairs = line.strip_prefix("whimbrel ready ")?;
    let of = |name| pairs.split(' ').find_map(|pair| pair.strip_prefix(name)).map(str::to_owned);
    Some([of("http=")?, of("secure=")?])
}

impl Drop for ServerChild {
    fn drop(&mut self) {
        // Its data is thrown away, so it need not end in order. It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read() {
        let line = "whimbrel ready http=127.0.0.1:8080 secure=127.0.0.1:8443 quic=127.0.0.1:8443";
        assert_eq!(ready_addresses(line).unwrap(), ["127.0.0.1:8080", "127.0.0.1:8443"]);
        assert_eq!(ready_addresses("  open     http://127.0.0.1:8080/"), None);
    }

    #[test]
    fn a_folder_goes_when_it_is_dropped() {
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
