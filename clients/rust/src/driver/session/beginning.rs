//! How a session begins: the welcome, an outbox that agrees with the server, a snapshot where there is one; and what it means for outcomes
//! that did not come.

use super::*;

impl Driver {
    pub(super) async fn on_welcome(&mut self, session: &mut Session, welcome: Welcome) -> Result<(), Stop> {
        if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
            let why = format!("it chose version {} of the protocol, this client speaks {VERSION_MIN} to {VERSION_MAX}", welcome.version);
            return Err(Stop::End(EndReason::Incompatible(why)));
        }
        if welcome.user != self.config.user {
            let why = format!("it takes us for {:?}, we are {:?}: the token is somebody else's", welcome.user, self.config.user);
            return Err(Stop::End(EndReason::Incompatible(why)));
        }
        self.agree(&welcome).await?;

        let resumed = self.downlink.on_welcome(&welcome);
        session.seen = welcome.begin.cursor;
        let begins_elsewhere = resumed.reset.is_some() || resumed.position.is_some() || welcome.begin.snapshot;
        if begins_elsewhere {
            let done = self.inbox.reset();
            if !done.is_nothing() {
                self.store(done).await.map_err(state)?;
            }
            self.beginnings += 1;
            self.queued = welcome.begin.cursor;
        }
        if resumed.reset == Some(ResetReason::OtherLog) {
            self.directory.clear();
        }
        // Everything applied by now has its outcome in the log up to the head.
        let forget_outcomes = begins_elsewhere && welcome.begin.cursor >= welcome.head;
        if welcome.begin.snapshot {
            session.snapshot = Some(Pages { reset: resumed.reset, forget_outcomes, ..Pages::default() });
        } else if let Some(position) = resumed.position {
            let outcomes = if forget_outcomes { self.outbox.untold() } else { Vec::new() };
            let untold = nonces(&outcomes);
            self.keeper.call(move |store| store.restart(position, resumed.reset, &untold)).await.map_err(state)?;
            self.tell_reset(resumed.reset);
            self.tell_untold(outcomes);
        }
        let awaited = self.outbox.awaited();
        if !awaited.is_empty() {
            session.due = Some((welcome.head, awaited));
        }
        let now = Instant::now();
        session.greeted = Some(now);
        // What was opened early is welcomed at once.
        let round_trip = session.round_trip().max(session.begun.elapsed());
        let quiet = Quiet::new(now, session.pulse.quiet.told);
        session.pulse = Pulse::new(now, round_trip, session.is_steady(), rand::random(), quiet);
        self.on_server_answers(false, now);
        session.head = welcome.head;
        self.backoff.why = None;
        self.remember(session.transport);
        self.upgrade.on_session(now);
        tracing::debug!(transport = %session.transport, session = %welcome.session_epoch, "connected");
        self.connection.send_replace(Connection::Connected { transport: session.transport });
        Ok(())
    }

    /// Everything up to the head that the session began with is here, so outcomes that lay there and did not come will not come.
    pub(super) async fn give_up_what_is_overdue(&mut self, session: &mut Session) -> Result<(), Stop> {
        let here = self.downlink.position().map_or(self.queued, |position| position.cursor.max(self.queued));
        // Where a device is during a snapshot, and with events thrown away, says nothing.
        let is_whole = session.snapshot.is_none() && !session.overflow;
        let Some((_, numbers)) = session.due.take_if(|(head, _)| is_whole && here >= *head) else { return Ok(()) };
        let outcomes = self.outbox.untold_of(&numbers);
        if outcomes.is_empty() {
            return Ok(());
        }
        let untold = nonces(&outcomes);
        self.keeper.call(move |store| store.give_up(&untold)).await.map_err(state)?;
        self.tell_untold(outcomes);
        Ok(())
    }

    /// Makes the outbox and the server agree, or says why they cannot. What is to be stored is, when this returns.
    async fn agree(&mut self, welcome: &Welcome) -> Result<(), Stop> {
        let before = self.outbox.state();
        match self.outbox.on_welcome(welcome) {
            Agreement::Agreed => {
                if self.outbox.state() != before {
                    self.unsaved.get_or_insert_with(Instant::now);
                }
                Ok(())
            }
            Agreement::Renumbered => {
                let (state_now, numbers) = (self.outbox.state(), self.outbox.numbers());
                self.keeper.call(move |store| store.renumber(state_now, &numbers)).await.map_err(state)?;
                // The transaction had it all.
                self.unsaved = None;
                Ok(())
            }
            Agreement::Disagreed(why) => Err(self.disagree(before.incarnation, why).await?),
        }
    }

    async fn disagree(&mut self, incarnation: whimbrel_protocol::Incarnation, why: Disagreement) -> Result<Stop, Stop> {
        let disagreed = self.outbox.on_disagreed(why);
        let (state_now, again, untold) = (disagreed.state, disagreed.again, nonces(&disagreed.untold));
        self.keeper.call(move |store| store.disagree(state_now, &again, &untold, why)).await.map_err(state)?;
        self.unsaved = None;
        self.inbox.push(Item::Disagreement(why));
        self.tell_untold(disagreed.untold);
        // At once, for a new outbox. A server that disagrees with that one too is not worth hurrying for.
        let retry = if incarnation.0 == 0 { Retry::Backoff } else { Retry::Now };
        Ok(Stop::lost(format!("this device needs a new outbox: {why}"), retry))
    }

    /// Tells the application of a reset that the store has gone through with. Until it has taken note the store remembers to tell it.
    fn tell_reset(&self, reset: Option<ResetReason>) {
        if let Some(reason) = reset {
            self.inbox.push(Item::Reset(reason));
        }
    }

    /// The same for outcomes that will not come.
    fn tell_untold(&self, outcomes: Vec<Outcome>) {
        outcomes.into_iter().for_each(|outcome| self.inbox.push(Item::Untold(outcome)));
    }

    pub(super) async fn on_snapshot(&mut self, session: &mut Session, page: Snapshot) -> Result<(), Stop> {
        let Some(mut pages) = session.snapshot.take() else { return Err(out_of_place("a page of a snapshot that was not announced")) };
        self.directory.learn(&page);
        let (last, first) = (page.last, pages.pages == 0);
        pages.pages += 1;
        pages.conversations += page.conversations.len();
        self.keeper.call(move |store| store.stage(&page, first)).await.map_err(state)?;
        if !last {
            session.snapshot = Some(pages);
            return Ok(());
        }
        let Some(position) = self.downlink.on_snapshot_stored() else { return Err(out_of_place("a snapshot")) };
        let outcomes = if pages.forget_outcomes { self.outbox.untold() } else { Vec::new() };
        let untold = nonces(&outcomes);
        // Nothing is read meanwhile, so no event comes before its time.
        self.keeper.call(move |store| store.apply_snapshot(position, pages.reset, &untold)).await.map_err(state)?;
        self.tell_reset(pages.reset);
        self.inbox.push(Item::Notice(Incoming::Snapshot { conversations: pages.conversations }));
        self.tell_untold(outcomes);
        Ok(())
    }
}

/// The commands that outcomes are of.
fn nonces(outcomes: &[Outcome]) -> Vec<Nonce> {
    outcomes.iter().filter_map(|outcome| outcome.nonce).collect()
}
