//! What to do, in words, about what was seen.

use crate::link::{Address, LinkError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::io::{self, ErrorKind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use whimbrel_protocol::frame::Error;
use whimbrel_protocol::{ErrorCode, UserId};

/// What was seen, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub why: String,
    pub mend: String,
}

impl Wrong {
    pub fn new(why: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { why: why.into(), mend: mend.into() }
    }
}

/// A name has no address.
pub(super) fn name(address: &Address, why: &str) -> Wrong {
    Wrong::new(
        format!("{} has no address: {why}", address.host),
        "is the name spelled right? If so: has this machine a network, and does its DNS know other names? The server's IP address may be \
         tried in its place",
    )
}

/// A TCP connection could not be opened.
pub(super) fn tcp(server: &Address, why: &io::Error) -> String {
    let flag = if server.secure { "--secure" } else { "--http" };
    match why.kind() {
        ErrorKind::ConnectionRefused if server.is_loopback() => {
            format!(
                "nothing listens at that port of this machine: start the server, or give the address that it says at its start ({flag})"
            )
        }
        ErrorKind::ConnectionRefused => format!(
            "that machine is there, but nothing listens at that port for others. Is the server running, at this port? Unless told otherwise it \
             listens on 127.0.0.1, for its own machine alone: {flag} gives it an address of the network"
        ),
        ErrorKind::TimedOut => format!(
            "something in between swallows it, or no machine has that address: let TCP port {} through at the server's firewall, and look \
             whether both are in one network (guest networks keep devices apart)",
            server.port
        ),
        _ => "there is no way from here to there: is this machine in a network, and in the right one (VPN)?".into(),
    }
}

/// TLS broke off without a reason of its own.
pub(super) fn tls(server: &Address) -> String {
    format!(
        "is {} the port for TLS (--secure)? Something in between that ends TLS (a proxy, a virus scanner) can break it off too; with http:// the \
         server's other port might answer",
        server.port
    )
}

/// The server did not say how it can be reached.
pub(super) fn discovery(server: &Address, why: &LinkError) -> String {
    match why {
        LinkError::Mismatch(_) if !server.secure => format!("if that is the port for TLS (--secure), use https://{}", server.authority()),
        _ => "is this a Whimbrel server, of a version like this one, and does nothing answer in its place (a proxy in front of it, the sign-in \
              page of a Wi-Fi)? A proxy has to pass /.well-known/whimbrel on"
            .into(),
    }
}

/// Nothing came back over UDP.
pub(super) fn silent(port: u16) -> String {
    format!(
        "let UDP port {port} through at the server's firewall (that of its cloud too), and in this network; a proxy in front of the server \
         has to pass UDP on. Until then WebSocket is used, and each change of network costs a new connection"
    )
}

/// QUIC was answered, and nothing came of it.
pub(super) fn answered(why: &str) -> String {
    if why.contains("certificate") {
        return "UDP gets through; it is the certificate for QUIC that is not believed. Give --ca of this server, or --pin with the hash of its \
                quic.pem (`whimbrel certs show`). Such certificates are good for two weeks: look at this machine's clock, and the server's"
            .into();
    }
    "UDP gets through, but what answers does not speak the same: is another program at that port, or a server of another version? Its log \
     says more"
        .into()
}

/// A WebSocket could not be opened, although the server was reached.
pub(super) const WEBSOCKET: &str = "something between here and the server does not let WebSockets through: a proxy has to pass `Upgrade: \
    websocket` on for /ws, and keep such connections open for minutes";

/// Clocks do not agree.
pub(super) const CLOCK: &str = "set both by the network (NTP): with a wrong clock certificates and tokens are not valid yet, or no longer";

/// The server refused the user.
pub(super) fn refused(error: &Error, user: &UserId, token: &str) -> String {
    match error.code {
        ErrorCode::Unauthorized => token_mend(user, token, SystemTime::now()),
        ErrorCode::UnsupportedVersion => {
            "bring server and client to versions that speak the same protocol: the older of both is to be updated".into()
        }
        ErrorCode::TooManyDevices => "end a session of this user on another device: as many as the server allows are connected".into(),
        ErrorCode::Internal | ErrorCode::Overloaded | ErrorCode::StoreUnavailable => {
            "this is the server's own trouble: /readyz and its log say more (a full disk?). Clients try again by themselves".into()
        }
        _ => "the way to the server is fine; mind what it says".into(),
    }
}

/// What may be wrong with a token, as far as it says so itself: it is read, not verified.
fn token_mend(user: &UserId, token: &str, now: SystemTime) -> String {
    const ANOTHER: &str = "get a new one from whoever runs the server";
    if token.is_empty() {
        return "this server wants a token: give it with --token, or in WHIMBREL_TOKEN".into();
    }
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let Some(claims) = payload.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok()) else {
        return format!("the token is no JWT: was all of it copied, and nothing else? If so, {ANOTHER}");
    };
    let moment =
        |claim: &str| claims[claim].as_f64().and_then(|at| Duration::try_from_secs_f64(at).ok()).and_then(|at| UNIX_EPOCH.checked_add(at));
    if let Some(subject) = claims["sub"].as_str()
        && subject != user.as_str()
    {
        return format!("the token is for {subject:?}, not for {:?}: say --as {subject}, or give a token of {user}'s", user.as_str());
    }
    if moment("exp").is_some_and(|end| end <= now) {
        return format!("by this machine's clock the token has expired: {ANOTHER}, unless the clock is wrong");
    }
    if moment("nbf").is_some_and(|begin| begin > now) {
        return "by this machine's clock the token is not valid yet: wait, or set the clock".into();
    }
    format!(
        "the token says {user} and is in time, so the server does not know its signature: was it made with the secret of this server? {ANOTHER}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(claims: &str) -> String {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        token_mend(&UserId::new("ann").unwrap(), &token, UNIX_EPOCH + Duration::from_secs(1_000))
    }

    #[test]
    fn what_is_wrong_with_a_token() {
        assert!(token_mend(&UserId::new("ann").unwrap(), "", UNIX_EPOCH).contains("wants a token"));
        assert!(token_mend(&UserId::new("ann").unwrap(), "secret", UNIX_EPOCH).contains("no JWT"));
        assert!(mend(r#"{"sub":"bob","exp":1}"#).contains(r#"for "bob", not for "ann""#));
        assert!(mend(r#"{"sub":"ann","exp":1000}"#).contains("has expired"));
        assert!(mend(r#"{"sub":"ann","exp":2000,"nbf":1001.5}"#).contains("not valid yet"));
        assert!(mend(r#"{"sub":"ann","exp":2000,"nbf":1}"#).contains("signature"));
        assert!(mend(r#"{"exp":-1e300,"nbf":1e300}"#).contains("signature"), "what is no moment is passed over");
    }
}
