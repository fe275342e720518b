//! The system's notices that its addresses or routes may have changed, where it gives any: Linux does, over netlink. Without them somebody has
//! to look again and again. What a notice says is not read: it is a reason to look.

use std::future::pending;
use tokio::time::{Duration, Instant};

/// Changes come in bursts: an address, its route, another one. One look a burst is enough, so soon after its first.
const BURST: Duration = Duration::from_millis(20);

/// Where notices come from.
pub(super) struct Notices {
    source: Option<Source>,
    /// When to look because of the last one.
    look_at: Option<Instant>,
}

impl Notices {
    /// Begins to listen. Where that is impossible, or not permitted (Android), there are none.
    pub fn listen() -> Self {
        let source = Source::open().inspect_err(|why| tracing::debug!(%why, "the system gives no notice of other networks")).ok();
        Self { source, look_at: None }
    }

    /// Whether there are any.
    pub fn are_given(&self) -> bool {
        self.source.is_some()
    }

    /// Waits until it is time to look. Cancel-safe.
    pub async fn next(&mut self) {
        loop {
            let Some(source) = &self.source else { return pending().await };
            tokio::select! {
                () = tokio::time::sleep_until(self.look_at.unwrap_or_else(Instant::now)), if self.look_at.is_some() => {
                    self.look_at = None;
                    return;
                }
                noticed = source.noticed() => match noticed {
                    Ok(()) => drop(self.look_at.get_or_insert_with(|| Instant::now() + BURST)),
                    Err(why) => {
                        tracing::debug!(%why, "the system gives no more notice of other networks");
                        self.source = None;
                        return;
                    }
                },
            }
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use netlink::Source;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use none::Source;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod netlink {
    use rustix::io::Errno;
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    use std::io;
    use tokio::net::UnixDatagram;

    /// `RTMGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE` of `linux/rtnetlink.h`.
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

    /// A socket of netlink. That it has another family than tokio's datagram socket makes no difference to receiving.
    pub struct Source(UnixDatagram);

    impl Source {
        pub fn open() -> io::Result<Self> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // Its protocol 0 is NETLINK_ROUTE.
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
            UnixDatagram::from_std(socket.into()).map(Self)
        }

        /// Waits for a notice.
        pub async fn noticed(&self) -> io::Result<()> {
            // The rest of it is thrown away.
            match self.0.recv(&mut [0; 16]).await {
                Ok(_) => Ok(()),
                // There were more than fit, which is a notice too.
                Err(why) if why.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => Ok(()),
                Err(why) => Err(why),
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod none {
    use std::io;

    pub enum Source {}

    impl Source {
        pub fn open() -> io::Result<Self> {
            Err(io::Error::from(io::ErrorKind::Unsupported))
        }

        pub async fn noticed(&self) -> io::Result<()> {
            match *self {}
        }
    }
}
