//! What can go wrong with a lab itself.

use std::path::PathBuf;

/// Why there is no lab, or no run in it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// This machine does not let this process have networks of its own.
    #[error("{0}: the lab needs Linux, /dev/net/tun and the right to administer networks: run it as root, or with `unshare -Ur`")]
    NotPermitted(String),
    /// The device for made-up networks is not there, or not for this user.
    #[error(
        "the TUN device {name} cannot be made through /dev/net/tun: {why}: load the module (`modprobe tun`), let this user open the device, \
         and give a container both (`--device /dev/net/tun --cap-add NET_ADMIN`)"
    )]
    NoTun {
        /// The interface.
        name: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// A command failed.
    #[error("{command} failed: {why}")]
    Command {
        /// What was to be done.
        command: String,
        /// What it said.
        why: String,
    },
    /// A folder cannot be used.
    #[error("cannot use the folder {}: {why}: set TMPDIR to a folder that can be written", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// The server does not start.
    #[error("the server {} does not start: {why}", binary.display())]
    Server {
        /// The program.
        binary: PathBuf,
        /// What it said last.
        why: String,
    },
    /// A client cannot begin.
    #[error("{who} cannot connect on a good network: {why}")]
    Client {
        /// Whose.
        who: String,
        /// Why.
        why: String,
    },
}
