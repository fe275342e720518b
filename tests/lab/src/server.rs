//! Programs in a lab's networks, and the server.

use crate::{Lab, LabError, Namespace};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a start may take, on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// A running program in a lab's network; killed when dropped, and when this process ends, however.
#[derive(Debug)]
pub struct Process {
    /// Dropped, the thread kills the program and ends.
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<io::Result<()>>>,
    id: u32,
}

impl Process {
    /// Starts a program and waits until it says a line that begins so on its standard output. What it says on standard error goes to a file.
    ///
    /// # Errors
    /// If it does not become ready; with what it said.
    pub fn start(
        space: &Namespace,
        program: &Path,
        setup: impl FnOnce(&mut Command),
        log: &Path,
        ready: &'static str,
    ) -> Result<Self, String> {
        // The kernel kills the program when the thread that started it ends: so that thread stays as long as the program.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        setup(&mut command);
        let log_file = File::create(log).map_err(|why| format!("{}: {why}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let (stop, stopped) = mpsc::channel();
        let (started, wait) = mpsc::channel();
        let keeper = space.spawn("process", move || keep(command, ready, &started, &stopped)).map_err(|why| why.to_string())?;
        let mut process = Self { stop: Some(stop), keeper: Some(keeper), id: 0 };
        let why = match wait.recv_timeout(START_MAX) {
            Ok(Ok(id)) => {
                process.id = id;
                return Ok(process);
            }
            Ok(Err(why)) => why.to_string(),
            Err(_) => format!("it is not ready within {} s", START_MAX.as_secs()),
        };
        drop(process);
        Err(format!("{why}; it said: {:?}", std::fs::read_to_string(log).unwrap_or_default().trim()))
    }

    /// The system's number for it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// A running `whimbrel serve` with a store and keys of its own.
#[derive(Debug)]
pub struct Server {
    url: String,
    certs: PathBuf,
    _process: Process,
}

impl Server {
    /// Starts a program in the server's network of a lab, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start(lab: &Lab, binary: &Path) -> Result<Self, LabError> {
        let failed = |why: String| LabError::Server { binary: binary.into(), why };
        let folder = lab.folder().join("server");
        std::fs::create_dir_all(&folder).map_err(|why| LabError::Folder { path: folder.clone(), why })?;
        let certs = folder.join("certs");
        let address = |port: u16| format!("{}:{port}", Lab::SERVER);
        let log = folder.join("log");
        let setup = |command: &mut Command| {
            command.args(["serve", "--open-anywhere", "--http", &address(8080), "--secure", &address(8443)]);
            command.arg("--data").arg(folder.join("data")).arg("--certs").arg(&certs).current_dir(&folder);
            command.env("WHIMBREL_LOG", std::env::var("WHIMBREL_LOG").unwrap_or_else(|_| "error".into()));
        };
        let process = Process::start(lab.server(), binary, setup, &log, "whimbrel ready ").map_err(failed)?;
        Ok(Self { url: format!("https://{}", address(8443)), certs, _process: process })
    }

    /// Its URL, for clients in the lab's networks.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder of its keys, with the CA that clients must trust.
    #[must_use]
    pub fn certs(&self) -> &Path {
        &self.certs
    }
}

/// The life of the thread that starts the program and stays.
fn keep(mut command: Command, ready: &str, started: &Sender<io::Result<u32>>, stopped: &Receiver<()>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(why) => {
            // Who started this is there: it waits for the answer.
            let _ = started.send(Err(io::Error::other(format!("setpriv (of util-linux) cannot be started: {why}"))));
            return;
        }
    };
    let _ = started.send(become_ready(&mut child, ready).map(|()| child.id()));
    // Ends with an error when the other end is dropped.
    let _ = stopped.recv();
    // Killed already, by somebody else: that is fine too.
    let _ = child.kill();
    let _ = child.wait();
}

fn become_ready(child: &mut Child, ready: &str) -> io::Result<()> {
    let output = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
    for line in BufReader::new(output).lines() {
        if line?.starts_with(ready) {
            return Ok(());
        }
    }
    Err(io::Error::other("it ended before it was ready"))
}
