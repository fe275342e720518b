//! Journeys: what happens to a phone's networks, as a list of timed steps.

use crate::network::Settings;
use crate::{LabError, LinkName, Phone};
use serde::Serialize;
use std::time::Duration;

/// A journey. Times count from when the traffic flows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Journey {
    /// As in commands and reports.
    pub name: String,
    /// What it stands for, in a line.
    pub about: String,
    /// The networks on the way, as they are at the start; those not named stay [`WIFI_GOOD`](crate::network::WIFI_GOOD).
    pub links: Vec<(LinkName, Settings)>,
    /// The network that the phone is on at the start.
    pub begin: LinkName,
    /// What happens, in order of time.
    pub steps: Vec<Step>,
    /// When the traffic ends.
    pub end: End,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// When.
    pub at: Duration,
    /// What people see of it: a few words, for the report.
    pub label: String,
    /// What is done, in order.
    pub acts: Vec<Act>,
}

/// When the traffic of a journey ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum End {
    /// At this time.
    At(Duration),
    /// A while after messages flow both ways again after the last step.
    Recovered {
        /// How long after that.
        settle: Duration,
        /// At the latest so long after the last step.
        at_most: Duration,
    },
}

/// One change of the networks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Act {
    /// The phone goes over to a network: the others lose address and routes. The phone's system notices.
    Use(LinkName),
    /// The phone has Wi-Fi and cell at once. Its system notices.
    UseBoth,
    /// A network gets better or worse.
    Set(LinkName, Settings),
    /// Nothing gets through a network, or again; each way by itself. Nobody is told.
    Blackout {
        /// Which network.
        link: LinkName,
        /// Whether from the phone to the server.
        up: bool,
        /// Whether from the server to the phone.
        down: bool,
    },
    /// The translation of addresses is forgotten.
    Rebind(LinkName),
    /// An MTU, in bytes, that both ends know of.
    Mtu(LinkName, usize),
    /// The phone's system says that the network is back, as after a tunnel: address and routes are the same.
    Announced,
}

impl Act {
    /// Whether a phone's system tells its applications of it.
    #[must_use]
    pub const fn is_noticed(self) -> bool {
        matches!(self, Self::Use(_) | Self::UseBoth | Self::Announced)
    }

    /// Does it.
    ///
    /// # Errors
    /// If the lab cannot.
    pub fn perform(self, phone: &Phone) -> Result<(), LabError> {
        match self {
            Self::Use(link) => phone.select(link)?,
            Self::UseBoth => phone.both()?,
            Self::Set(link, settings) => phone.link(link).set(settings),
            Self::Blackout { link, up, down } => phone.link(link).change(|settings| {
                settings.up.blackout = up;
                settings.down.blackout = down;
            }),
            Self::Rebind(link) => phone.link(link).rebind(),
            Self::Mtu(link, mtu) => phone.set_mtu(link, mtu)?,
            Self::Announced => {}
        }
        Ok(())
    }
}

impl Step {
    /// A step, so many milliseconds after the start.
    #[must_use]
    pub fn new(at_ms: u64, label: &str, acts: impl Into<Vec<Act>>) -> Self {
        Self { at: Duration::from_millis(at_ms), label: label.into(), acts: acts.into() }
    }

    /// Whether the phone's system notices it.
    #[must_use]
    pub fn is_noticed(&self) -> bool {
        self.acts.iter().any(|act| act.is_noticed())
    }
}

impl Journey {
    /// The same with all times shortened by this factor: for tests, where the order of things counts and not the scenery.
    #[must_use]
    pub fn faster(mut self, factor: u32) -> Self {
        for step in &mut self.steps {
            step.at /= factor;
        }
        if let End::At(end) = &mut self.end {
            *end /= factor;
        }
        self
    }

    /// What a person can get wrong when writing one.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("journey {:?}: {why}", self.name));
        if !self.steps.is_sorted_by_key(|step| step.at) {
            return wrong("its steps are not in order of time");
        }
        if let (End::At(end), Some(last)) = (self.end, self.steps.last())
            && end <= last.at
        {
            return wrong("it ends before its last step");
        }
        let (settings, used) = self.after(self.steps.len());
        let usable = |link: &LinkName| {
            let settings = settings[*link as usize];
            !settings.up.blackout && !settings.down.blackout && settings.up.loss < 0.5 && settings.down.loss < 0.5
        };
        // Whatever was acknowledged could never arrive.
        if !used.iter().all(usable) { wrong("it ends where nothing gets through: add a step that mends the network") } else { Ok(()) }
    }

    /// How its networks are set, in the order of [`LinkName::ALL`], and which the phone uses, after so many of its steps.
    #[must_use]
    pub fn after(&self, steps: usize) -> ([Settings; 3], Vec<LinkName>) {
        let mut settings = [crate::network::WIFI_GOOD; 3];
        for (link, set) in &self.links {
            settings[*link as usize] = *set;
        }
        let mut used = vec![self.begin];
        for act in self.steps.iter().take(steps).flat_map(|step| &step.acts) {
            match *act {
                Act::Use(link) => used = vec![link],
                Act::UseBoth => used = vec![LinkName::Wifi, LinkName::Cell],
                Act::Set(link, set) => settings[link as usize] = set,
                Act::Blackout { link, up, down } => {
                    settings[link as usize].up.blackout = up;
                    settings[link as usize].down.blackout = down;
                }
                Act::Rebind(_) | Act::Mtu(..) | Act::Announced => {}
            }
        }
        (settings, used)
    }
}
