//! Sessions that begin before their handshake is over.
//!
//! What comes until then may be played by somebody who recorded it. So such a session is *provisional*: its commands are decided as any
//! (incarnation, number and nonce make a repeat of a repeat), and it reads; but it is not entered. Nothing is taken over, nobody sees
//! the user come, nothing is acknowledged.
//!
//! As nothing is taken over, another life of the device (it was restored from a backup, and somebody recorded what it said before) might
//! write behind the `Welcome`, under numbers that this one uses for other commands, whose outcomes would be taken for its own. So what comes early
//! counts only for the run of the client that the device is known to be ([`Hub`](super::Hub) remembers), or for the first that comes.

use super::committer::{Said, Work};
use super::decide::Arrival;
use super::queue::Lane;
use super::{End, Engine, Entered, Place, SessionHandle, store_error};
use crate::store::{StoreError, UserNo};
use std::sync::Arc;
use whimbrel_protocol::frame::{Begin, Error, Hello, Origin, Position};
use whimbrel_protocol::{MailboxSeq, UserId};

/// What a provisional session is entered with.
#[derive(Debug)]
pub struct Provisional {
    session: Arc<SessionHandle>,
    user: UserId,
    hello: Hello,
    begin: Begin,
}

impl Provisional {
    /// What `hello` began.
    #[must_use]
    pub fn new(user: UserId, hello: Hello, entered: &Entered) -> Self {
        Self { session: entered.session.clone(), user, hello, begin: entered.begin }
    }

    /// What began it.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    pub(super) fn said(&self) -> (Said, Arc<SessionHandle>) {
        (Said::new(&self.user, &self.hello), self.session.clone())
    }
}

impl Engine {
    /// A device says hello, or somebody plays what it once said. `None` if it cannot be served without being entered: it is not known, or
    /// stands otherwise than it says.
    ///
    /// # Errors
    /// What to tell the client.
    pub async fn provisional(self: &Arc<Self>, user: &UserId, hello: &Hello) -> Result<Option<Entered>, Error> {
        let (said, name) = (Said::new(user, hello), user.clone());
        let (position, origin) = (hello.position, hello.origin);
        // One turn on another thread for both: a crowd that comes back feels each.
        let found = self.on_store(move |engine| engine.place_early(&name, position, origin)).await.map_err(|error| store_error(&error))?;
        let Some((user, place)) = found else { return Ok(None) };
        let looked = self.commit_hello(self.own_turn(), |answer| Work::Look { user, said, answer }).await??;
        Ok(looked.map(|arrived| Self::begin(arrived, place, origin)))
    }

    /// Where a provisional session begins, if its user is known. There is none where it would have to begin with a snapshot: that takes long
    /// enough as it is.
    pub(super) fn place_early(
        &self,
        user: &UserId,
        position: Option<Position>,
        origin: Origin,
    ) -> Result<Option<(UserNo, Place)>, StoreError> {
        let Some(user) = self.store.user(user)? else { return Ok(None) };
        let place = self.place(user, position, origin)?;
        let (_, begin) = place;
        Ok(Some((user, place)).filter(|_| !begin.snapshot && begin.reset.is_none()))
    }

    /// It was the device itself: its session is entered, and takes over. If this future is dropped, [`leave`](Self::leave) must follow.
    ///
    /// # Errors
    /// Why the session ends instead.
    pub async fn confirm(self: &Arc<Self>, provisional: &Provisional) -> Result<(), End> {
        let (said, session) = provisional.said();
        // After its own commands.
        let lane = Lane::User(session.user);
        let confirmed = self.commit_hello(lane, |answer| Work::Confirm { said, session, answer }).await;
        let arrival = confirmed.map_err(End::Error)??;
        let user = provisional.session.user;
        let head = self.on_store(move |engine| Ok(engine.store.mailbox(user)?.head)).await;
        self.settle(provisional, &arrival, head.map_err(|error| End::Error(store_error(&error)))?);
        Ok(())
    }

    /// An entered session goes on where the provisional one was. Nothing woke that one: the `head` is of a moment since.
    pub(super) fn settle(&self, provisional: &Provisional, arrival: &Arrival, head: MailboxSeq) {
        provisional.session.raise_head(head);
        self.speak_for(&provisional.session, arrival, provisional.begin, provisional.hello.position.is_some());
    }
}
