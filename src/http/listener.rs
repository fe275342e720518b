//! TCP connections, plain or TLS, and HTTP/1 on them.
//!
//! A loop of our own around hyper's HTTP/1 connection: the ready-made ones look for HTTP/2 first, and wait without a limit for a peer
//! that connects and says nothing.

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// A TLS handshake has to be over, and the head of a request to be here, within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// What to wait when the system has no more file descriptors: connections have to end before one can begin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` says so; then lets requests under way finish. Upgraded connections are on their own.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<Arc<rustls::ServerConfig>>, mut stop: watch::Receiver<bool>) {
    let tls = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, remote)) => {
                connections.spawn(connection(stream, remote, router.clone(), tls.clone(), stop.clone()));
            }
            Err(why) => {
                tracing::warn!(%why, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, remote: SocketAddr, router: Router, tls: Option<TlsAcceptor>, stop: watch::Receiver<bool>) {
    let served = async {
        // Frames are small and are written together already.
        stream.set_nodelay(true)?;
        match tls {
            None => requests(stream, remote, router, stop).await,
            Some(tls) => {
                let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time");
                let stream = timeout(HEAD_TIMEOUT, tls.accept(stream)).await.map_err(late)??;
                requests(stream, remote, router, stop).await
            }
        }
    };
    if let Err(why) = served.await {
        tracing::debug!(%remote, %why, "a connection ended");
    }
}

async fn requests<S>(stream: S, remote: SocketAddr, router: Router, mut stop: watch::Receiver<bool>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(axum::Extension(ConnectInfo(remote))));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}

/// Waits until the server stops; a server that is gone has stopped.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
