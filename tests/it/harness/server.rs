//! A server process in a folder of its own.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use tempfile::TempDir;

/// A running `whimbrel serve`; killed when dropped.
pub struct ServerProcess {
    child: Option<Child>,
    folder: TempDir,
    flags: Vec<String>,
    pub http: SocketAddr,
    pub secure: SocketAddr,
}

impl ServerProcess {
    /// Starts with a new, empty folder.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with more flags.
    pub fn start_with(flags: &[&str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut server = Self { child: None, folder: TempDir::new().unwrap(), flags, http: any, secure: any };
        server.restart();
        server
    }

    /// Starts again with the same folder, on the same ports.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let mut command = Command::new("sh");
        // Writing beyond a limit of file sizes shall be an error, as on a full disk, and no signal. And few files, to begin with.
        command.args(["-c", "trap '' XFSZ; ulimit -Sn 128; exec \"$0\" \"$@\""]).arg(binary());
        command.arg("serve").args(["--http", &self.http.to_string(), "--secure", &self.secure.to_string()]);
        command.arg("--data").arg(self.data()).arg("--certs").arg(self.certs()).args(&self.flags);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.env("WHIMBREL_LOG", std::env::var("WHIMBREL_LOG").unwrap_or_else(|_| "error".into()));
        let mut child = command.spawn().expect("cannot start the server");
        let output = BufReader::new(child.stdout.take().unwrap());
        self.child = Some(child);
        for line in output.lines() {
            let line = line.expect("cannot read what the server prints");
            if let Some(addresses) = line.strip_prefix("whimbrel ready ") {
                for pair in addresses.split(' ') {
                    match pair.split_once('=') {
                        Some(("http", address)) => self.http = address.parse().unwrap(),
                        Some(("secure", address)) => self.secure = address.parse().unwrap(),
                        Some(("quic", address)) => assert_eq!(address, self.secure.to_string()),
                        other => panic!("the ready line has {other:?}"),
                    }
                }
                return;
            }
        }
        panic!("the server ended before it was ready");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Lets no file grow beyond so many bytes, as if the disk were full; `None` lifts that again.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let soft = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let mut command = Command::new("prlimit");
        let limited = command.args(["--pid", &self.pid().to_string(), &format!("--fsize={soft}:")]).status().unwrap();
        assert!(limited.success(), "prlimit (of util-linux) refused");
    }

    /// `SIGTERM`; returns how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it is not running");
        signal(&child, "TERM");
        child.wait().unwrap()
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("it is not running"), name);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is not running").id()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The program under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_whimbrel"))
}

/// A plain GET.
pub async fn http_get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::get(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", address.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}
