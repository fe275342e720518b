//! The server's URL, as people give it.

use hyper::Uri;
use std::net::IpAddr;

/// Why a URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not the URL of a server: {reason} (such as https://chat.example.org:8443 or http://127.0.0.1:8080)")]
pub struct BadUrl {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Where a face of the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub secure: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// With its query.
    pub path: String,
}

impl Address {
    /// Takes http, https, ws and wss URLs. Without a port: 443 or 80.
    pub fn parse(url: &str) -> Result<Self, BadUrl> {
        let bad = |reason: &str| BadUrl { url: url.into(), reason: reason.into() };
        let uri: Uri = url.trim().parse().map_err(|why| bad(&format!("{why}")))?;
        let secure = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            Some(other) => return Err(bad(&format!("{other} is not http, https, ws or wss"))),
            None => return Err(bad("it does not begin with https:// or http://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let names_port =
            uri.authority().is_some_and(|authority| authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':')));
        let port = match uri.port_u16() {
            Some(port) if port > 0 => port,
            None if !names_port => {
                if secure {
                    443
                } else {
                    80
                }
            }
            _ => return Err(bad("its port is not a number from 1 to 65535")),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { secure, host, port, path })
    }

    /// Whether the host is this machine, by its name or number: then nobody is in between.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost") || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The server's own URL, which names no page of it.
    pub fn of_server(url: &str) -> Result<Self, BadUrl> {
        let address = Self::parse(url)?;
        if address.path == "/" {
            return Ok(address);
        }
        let reason = format!("it goes on after the port ({}), and Whimbrel is not found below a path", address.path);
        Err(BadUrl { url: url.into(), reason })
    }

    /// Host and port, as they stand in a URL and in a `Host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    /// The same face at another path.
    pub fn with_path(&self, path: &str) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    /// The URL, with the scheme given for a secure and for an open one.
    pub fn url(&self, secure: &str, open: &str) -> String {
        let scheme = if self.secure { secure } else { open };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_as_people_give_them() {
        let address = Address::parse("https://chat.example.org:8443").unwrap();
        assert_eq!((address.secure, address.host.as_str(), address.port), (true, "chat.example.org", 8443));
        assert!(!address.is_loopback());
        let address = Address::parse("ws://[::1]:8080/ws?x=1").unwrap();
        assert_eq!((address.secure, address.host.as_str(), address.port, address.path.as_str()), (false, "::1", 8080, "/ws?x=1"));
        assert!(address.is_loopback());
        assert_eq!(address.url("wss", "ws"), "ws://[::1]:8080/ws?x=1");
        assert_eq!(Address::parse("http://localhost").unwrap().port, 80);
        assert!(Address::parse("http://127.0.0.1:8080").unwrap().is_loopback());
        assert!(Address::of_server("https://chat.example.org/").is_ok());
        let refused = Address::of_server("https://chat.example.org/chat").unwrap_err().to_string();
        assert!(refused.contains("(/chat)"), "{refused}");
        for bad in ["", "chat.example.org", "ftp://x", "https://", "http://x:0", "http://x:99999", "https:/x"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
