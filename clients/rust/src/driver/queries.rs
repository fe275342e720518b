//! Questions: open until they are answered, however many sessions that takes.

use super::refuse;
use crate::QueryError;
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use whimbrel_protocol::QueryId;
use whimbrel_protocol::frame::{Answer, AnswerBody, HistoryPage, OnlinePage, Query, QueryBody};

/// Questions that may be open at once.
const OPEN_MAX: usize = 64;
/// Messages in an answer, at most: the server cuts there too.
const MESSAGES_MAX: usize = 500;

/// Who gets the answer.
pub(crate) enum Reply {
    History(oneshot::Sender<Result<HistoryPage, QueryError>>),
    Online(oneshot::Sender<Result<OnlinePage, QueryError>>),
}

impl Reply {
    fn refuse(self, why: QueryError) {
        match self {
            Self::History(reply) => refuse(reply, why),
            Self::Online(reply) => refuse(reply, why),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::History(reply) => reply.is_closed(),
            Self::Online(reply) => reply.is_closed(),
        }
    }
}

struct Open {
    body: QueryBody,
    reply: Reply,
    asked: bool,
    /// The server did not answer it on a stream of its own.
    in_line: bool,
    /// What came of a history so far.
    history: Option<HistoryPage>,
    /// What came of a list of users so far.
    online: Option<OnlinePage>,
}

#[derive(Default)]
pub(super) struct Queries {
    last: u64,
    open: BTreeMap<QueryId, Open>,
}

impl Queries {
    pub fn open(&mut self, body: QueryBody, reply: Reply) {
        self.open.retain(|_, open| !open.reply.is_closed());
        if self.open.len() >= OPEN_MAX {
            return reply.refuse(QueryError::TooMany { max: OPEN_MAX });
        }
        self.last += 1;
        self.open.insert(QueryId(self.last), Open { body, reply, asked: false, in_line: false, history: None, online: None });
    }

    /// Whether an answer is awaited.
    pub fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    /// The next question that was not asked in this session, and whether it may have a stream of its own.
    pub fn poll_transmit(&mut self) -> Option<(Query, bool)> {
        let (id, open) = self.open.iter_mut().find(|(_, open)| !open.asked)?;
        open.asked = true;
        Some((Query { id: *id, body: open.body.clone() }, !open.in_line))
    }

    /// The server does not answer it on a stream of its own: it is asked among everything else.
    pub fn ask_again(&mut self, id: QueryId) {
        if let Some(open) = self.open.get_mut(&id) {
            open.forget();
            open.in_line = true;
        }
    }

    /// The session ended: everything is asked again, from the beginning.
    pub fn on_disconnect(&mut self) {
        self.open.retain(|_, open| !open.reply.is_closed());
        for open in self.open.values_mut() {
            open.forget();
        }
    }

    pub fn on_answer(&mut self, answer: Answer) {
        // An answer to nothing: whoever asked was gone.
        let Some(open) = self.open.get_mut(&answer.id) else { return };
        let fits = match (answer.body, &open.reply) {
            (AnswerBody::Refused(refused), _) => Err(QueryError::Refused { code: refused.code, message: refused.message }),
            (AnswerBody::History(page), Reply::History(_)) => open.add_history(page),
            (AnswerBody::Online(page), Reply::Online(_)) => open.add_online(page),
            (AnswerBody::Unknown(unknown), _) => Err(QueryError::BadAnswer(unknown.reason)),
            (body, _) => Err(QueryError::BadAnswer(format!("it is of the kind {}", body.kind_name()))),
        };
        if fits.is_ok() && !answer.last {
            return;
        }
        let Some(open) = self.open.remove(&answer.id) else { return };
        let nothing = || QueryError::BadAnswer("it is empty".into());
        // Whoever asked may be gone.
        match open.reply {
            Reply::History(reply) => {
                let page = open.history.map(|mut page| {
                    page.messages.sort_by_key(|message| message.seq);
                    page
                });
                let _ = reply.send(fits.and_then(|()| page.ok_or_else(nothing)));
            }
            Reply::Online(reply) => drop(reply.send(fits.and_then(|()| open.online.ok_or_else(nothing)))),
        }
    }
}

impl Open {
    /// It is to be asked anew.
    fn forget(&mut self) {
        self.asked = false;
        self.history = None;
        self.online = None;
    }

    fn add_history(&mut self, page: HistoryPage) -> Result<(), QueryError> {
        let whole = match &mut self.history {
            None => self.history.insert(page),
            Some(whole) => {
                whole.messages.extend(page.messages);
                whole.more = page.more;
                whole
            }
        };
        check_length(whole.messages.len())
    }

    fn add_online(&mut self, page: OnlinePage) -> Result<(), QueryError> {
        let whole = match &mut self.online {
            None => self.online.insert(page),
            Some(whole) => {
                whole.users.extend(page.users);
                whole.more = page.more;
                whole
            }
        };
        check_length(whole.users.len())
    }
}

fn check_length(len: usize) -> Result<(), QueryError> {
    if len > MESSAGES_MAX { Err(QueryError::BadAnswer(format!("it holds more than {MESSAGES_MAX}"))) } else { Ok(()) }
}
