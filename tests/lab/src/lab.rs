//! A server's network, and phones with their links to it.

use crate::LabError;
use crate::folder::Folder;
use crate::network::{Dice, Link, LinkCounts, Namespace, WIFI_GOOD};
use serde::Serialize;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

/// The links that a phone has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkName {
    /// The Wi-Fi at home, or at work.
    Wifi,
    /// The cellular network.
    Cell,
    /// Another Wi-Fi: another address, another way to the server.
    Hotspot,
}

impl LinkName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wifi, Self::Cell, Self::Hotspot];

    /// As in commands and reports; the phone's device has the same name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wifi => "wifi",
            Self::Cell => "cell",
            Self::Hotspot => "hotspot",
        }
    }
}

impl std::fmt::Display for LinkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A lab: one server's network, and phones. Everything of it is gone when it and its phones are dropped, or the process ends, however.
///
/// Labs do not know each other, so addresses are the same in each: the server is 10.81.0.1; link `k` of phone `n` (both from 0) is the
/// network 10.81.(4n+k+1).0/24, the phone's end .2 and the server's .1.
#[derive(Debug)]
pub struct Lab {
    name: String,
    server: Arc<Namespace>,
    folder: Folder,
    dice: Dice,
    phones: u8,
}

/// The most phones of a lab.
const PHONES_MAX: u8 = 60;

impl Lab {
    /// Where the server is, in every lab.
    pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 1);

    /// A lab with a name, for its folder, and the seed of all its chances.
    ///
    /// # Errors
    /// If this machine does not permit it: the error says what is missing.
    pub fn new(name: &str, seed: u64) -> Result<Self, LabError> {
        let server = Namespace::new()?;
        server.ip(&[&format!("addr add {}/32 dev lo", Self::SERVER)])?;
        let folder = Folder::new(name)?;
        Ok(Self { name: name.into(), server: Arc::new(server), folder, dice: Dice::new(seed), phones: 0 })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's network.
    #[must_use]
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// A folder for the lab's files, removed with the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Another phone, on its Wi-Fi. All its links are [`WIFI_GOOD`] to begin with.
    ///
    /// # Errors
    /// If this machine does not permit it, or there are too many.
    pub fn phone(&mut self) -> Result<Phone, LabError> {
        let number = self.phones;
        if number == PHONES_MAX {
            return Err(LabError::NotPermitted(format!("a lab has at most {PHONES_MAX} phones")));
        }
        self.phones += 1;
        let dice = self.dice.split(1_000 + u64::from(number));
        let space = Namespace::new()?;
        let mut links = Vec::new();
        for (at, name) in LinkName::ALL.into_iter().enumerate() {
            let there = format!("{name}{number}");
            let link = Link::open((&space, name.name()), (&self.server, &there), WIFI_GOOD, &dice.split(at as u64))?;
            let net = net(number, name);
            // Queues that hold a burst until the emulator has its turn: what is dropped is for the link's settings to say.
            // And what has the address of a link leaves through it, where several are in use.
            let table = 10 + at;
            space.ip(&[&format!("link set {name} txqueuelen 10000"), &format!("rule add from 10.81.{net}.2 lookup {table}")])?;
            self.server.ip(&[&format!("addr add 10.81.{net}.1/24 dev {there}"), &format!("link set {there} txqueuelen 10000 up")])?;
            // A packet with the address of another network is dropped, as a carrier would.
            self.server.write(&format!("net/ipv4/conf/{there}/rp_filter"), "1")?;
            space.write(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
            links.push(link);
        }
        let phone = Phone { space, server: Arc::clone(&self.server), number, links };
        phone.select(LinkName::Wifi)?;
        Ok(phone)
    }
}

fn net(phone: u8, link: LinkName) -> u8 {
    4 * phone + link as u8 + 1
}

/// A phone: a network of its own, with links to the server of which one is in use, or more.
#[derive(Debug)]
pub struct Phone {
    space: Namespace,
    server: Arc<Namespace>,
    number: u8,
    /// In the order of [`LinkName::ALL`].
    links: Vec<Link>,
}

impl Phone {
    /// The phone's network.
    #[must_use]
    pub fn space(&self) -> &Namespace {
        &self.space
    }

    /// The handle of a link.
    #[must_use]
    pub fn link(&self, name: LinkName) -> &Link {
        &self.links[name as usize]
    }

    /// The phone's address on a link.
    #[must_use]
    pub fn address(&self, name: LinkName) -> Ipv4Addr {
        Ipv4Addr::new(10, 81, net(self.number, name), 2)
    }

    /// Goes over to a link as phones do: the others lose their address and their routes.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn select(&self, name: LinkName) -> Result<(), LabError> {
        self.use_links(&[name])
    }

    /// Uses Wi-Fi and cell at once; packets go over Wi-Fi, unless a socket is bound to the address of the other.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn both(&self) -> Result<(), LabError> {
        self.use_links(&[LinkName::Wifi, LinkName::Cell])
    }

    /// Uses no link at all, as in a plane.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn none(&self) -> Result<(), LabError> {
        self.use_links(&[])
    }

    /// Uses these links, the first one by default. In one go, but the new link comes up before the old one goes.
    fn use_links(&self, used: &[LinkName]) -> Result<(), LabError> {
        let mut commands = Vec::new();
        for (at, name) in used.iter().enumerate() {
            let net = net(self.number, *name);
            commands.push(format!("addr replace 10.81.{net}.2/24 dev {name}"));
            commands.push(format!("link set {name} up"));
            commands.push(format!("route replace default via 10.81.{net}.1 dev {name} metric {}", 10 + at));
            commands.push(format!("route replace default via 10.81.{net}.1 dev {name} table {}", 10 + *name as u8));
        }
        for name in LinkName::ALL.iter().filter(|name| !used.contains(name)) {
            commands.push(format!("link set {name} down"));
            commands.push(format!("addr flush dev {name}"));
        }
        // Of a link that stays, a route with another metric may be left from before.
        for (at, name) in used.iter().enumerate() {
            for metric in (10..13).filter(|metric| *metric != 10 + at) {
                commands.push(format!("route flush default dev {name} metric {metric}"));
            }
        }
        self.space.ip(&commands.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Sets the MTU, in bytes, that both ends of a link know of.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn set_mtu(&self, name: LinkName, mtu: usize) -> Result<(), LabError> {
        self.space.ip(&[&format!("link set {name} mtu {mtu}")])?;
        self.server.ip(&[&format!("link set {name}{} mtu {mtu}", self.number)])
    }

    /// What went through a link so far.
    #[must_use]
    pub fn counts(&self, name: LinkName) -> LinkCounts {
        self.link(name).counts()
    }
}
