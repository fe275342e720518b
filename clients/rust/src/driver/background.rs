//! An application that is suspended, or about to be: its server knows, so that it hands messages over to push and shows nobody online.

use super::Driver;
use super::phase::{Phase, Stop};
use super::session::Session;
use tokio::sync::oneshot;
use tokio::time::Instant;
use whimbrel_protocol::frame::{ClientFrame, Ping};

/// Who waits for the server to know.
#[derive(Default)]
pub(super) struct Suspending {
    waiting: Vec<oneshot::Sender<()>>,
    /// The probe behind the news: its answer shows that the news was taken.
    probe: Option<u32>,
}

impl Suspending {
    /// The server knows, or there is no connection over which it could: it is told when there is one.
    pub fn is_over(&mut self) {
        self.probe = None;
        for waiting in self.waiting.drain(..) {
            // Whoever waited may have gone.
            let _ = waiting.send(());
        }
    }

    /// The answer to a probe came.
    pub fn on_pong(&mut self, pong: &Ping) {
        // That of a later one says as much.
        if self.probe.is_some_and(|probe| pong.id.wrapping_sub(probe) < u32::MAX / 2) {
            self.is_over();
        }
    }
}

impl Driver {
    /// The application says whether it is suspended.
    pub(super) fn on_background(&mut self, background: bool, known: oneshot::Sender<()>) {
        self.watchfulness.on_background(background);
        self.backoff.patient = background;
        self.suspending.waiting.push(known);
        self.suspending.probe = None;
        if !background {
            self.on_wish();
            // Somebody waits for what came meanwhile.
            if matches!(self.phase, Phase::Waiting(_)) && !self.backoff.asked {
                self.retry_now();
            }
        }
        if matches!(self.phase, Phase::Waiting(_)) {
            self.suspending.is_over();
        }
    }

    /// Tells the server how we are, if it knows otherwise.
    pub(super) fn tell_state(&mut self, session: &mut Session) -> Result<(), Stop> {
        let state = self.wanted_state(session);
        if state != session.pulse.quiet.told { session.tell(state) } else { Ok(()) }
    }

    /// Asks for an answer behind the news, where somebody waits for the server to know.
    pub(super) fn await_knowing(&mut self, session: &mut Session) -> Result<(), Stop> {
        if !self.suspending.waiting.is_empty() && self.suspending.probe.is_none() {
            let ping = session.pulse.ask(Instant::now());
            self.suspending.probe = Some(ping.id);
            session.push(&ClientFrame::Ping(ping))?;
        }
        Ok(())
    }

    /// The server asks whether we are there. Where it seldom does it is asked too: the radio is awake now, and should not have to be later.
    pub(super) fn answer(&mut self, session: &mut Session, ping: Ping) -> Result<(), Stop> {
        session.push(&ClientFrame::Pong(ping))?;
        match session.pulse.ask_along(Instant::now()) {
            Some(ping) => session.push(&ClientFrame::Ping(ping)),
            None => Ok(()),
        }
    }
}
