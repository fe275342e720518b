//! A server process in a lab's network.

use crate::{Lab, LabError};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a start may take, on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// A running `whimbrel serve` with a store and keys of its own; killed when dropped, and when this process ends, however.
#[derive(Debug)]
pub struct Server {
    url: String,
    certs: PathBuf,
    /// Dropped, the thread kills the server and ends.
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<io::Result<()>>>,
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
        // The kernel kills the server when the thread that started it ends: so that thread stays as long as the server.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary).args(["serve", "--open-anywhere"]);
        command.args(["--http", &address(8080), "--secure", &address(8443)]);
        command.arg("--data").arg(folder.join("data")).arg("--certs").arg(&certs);
        command.env("WHIMBREL_LOG", std::env::var("WHIMBREL_LOG").unwrap_or_else(|_| "error".into()));
        let log_file = File::create(&log).map_err(|why| LabError::Folder { path: log.clone(), why })?;
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let (stop, stopped) = mpsc::channel();
        let (ready, wait) = mpsc::channel();
        let keeper = lab.server().spawn("server", move || keep(command, &ready, &stopped)).map_err(|why| failed(why.to_string()))?;
        let server = Self { url: format!("https://{}", address(8443)), certs, stop: Some(stop), keeper: Some(keeper) };
        let why = match wait.recv_timeout(START_MAX) {
            Ok(Ok(())) => return Ok(server),
            Ok(Err(why)) => why.to_string(),
            Err(_) => format!("it is not ready within {} s", START_MAX.as_secs()),
        };
        drop(server);
        Err(failed(format!("{why}; it said: {:?}", std::fs::read_to_string(&log).unwrap_or_default().trim())))
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

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// The life of the thread that starts the server and stays.
fn keep(mut command: Command, ready: &Sender<io::Result<()>>, stopped: &Receiver<()>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(why) => {
            // Who started this is there: it waits for the answer.
            let _ = ready.send(Err(io::Error::other(format!("setpriv (of util-linux) cannot be started: {why}"))));
            return;
        }
    };
    let _ = ready.send(become_ready(&mut child));
    // Ends with an error when the other end is dropped.
    let _ = stopped.recv();
    // Killed already, by somebody else: that is fine too.
    let _ = child.kill();
    let _ = child.wait();
}

fn become_ready(child: &mut Child) -> io::Result<()> {
    let output = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
    for line in BufReader::new(output).lines() {
        if line?.starts_with("whimbrel ready ") {
            return Ok(());
        }
    }
    Err(io::Error::other("it ended before it was ready"))
}
