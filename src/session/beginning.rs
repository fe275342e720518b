//! How a session begins: who it is, where its events begin; and what waits where the handshake is not over.

use super::{Context, error};
use crate::engine::{End, Entered, Provisional, WINDOW, wall_clock};
use crate::transport::{Early, FrameSource, LinkError, Received};
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use whimbrel_protocol::codec::MAX_TEXT;
use whimbrel_protocol::frame::{ClientFrame, Error, Hello, Watch, Welcome};
use whimbrel_protocol::{ErrorCode, MailboxSeq, VERSION_MAX, VERSION_MIN};

/// The first frame on the stream. What comes in datagrams before it is ignored.
pub(super) async fn first<I: FrameSource>(source: &mut I) -> Result<Option<ClientFrame>, LinkError> {
    loop {
        match source.next().await? {
            Some(Received { hint: true, .. }) => {}
            received => return Ok(received.map(|received| received.frame)),
        }
    }
}

/// Enters a session. If its handshake is not over, and the server knows the device just as it says, the session is provisional until it is:
/// then there is something to wait for.
pub(super) async fn enter(context: &Arc<Context>, hello: &Hello, early: Option<Early>) -> Result<(Entered, Option<Waiting>), Error> {
    if hello.min_version > VERSION_MAX || hello.max_version < VERSION_MIN {
        let (min, max) = (hello.min_version, hello.max_version);
        let message = format!("this server speaks versions {VERSION_MIN} to {VERSION_MAX} of the protocol, the client {min} to {max}");
        return Err(error(ErrorCode::UnsupportedVersion, message));
    }
    let user = (context.auth)(hello)?;
    if let Some(early) = early {
        let provisional = context.engine.provisional(&user, hello).await?;
        let begins = if provisional.is_some() { "at_once" } else { "after_the_handshake" };
        metrics::counter!("whimbrel_early_sessions_total", "begins" => begins).increment(1);
        if let Some(entered) = provisional {
            let provisional = Provisional::new(user, hello.clone(), &entered);
            let over = Box::pin(confirm(context.clone(), early, provisional));
            return Ok((entered, Some(Waiting { over, acked: None, watch: None })));
        }
        if !early.confirmed().await {
            return Err(never_over());
        }
    }
    Ok((context.engine.hello(&user, hello).await?, None))
}

async fn confirm(context: Arc<Context>, early: Early, provisional: Provisional) -> Result<(), End> {
    if !early.confirmed().await {
        return Err(End::Error(never_over()));
    }
    // What proves who it is may have been taken back since.
    (context.auth)(provisional.hello()).map_err(End::Error)?;
    context.engine.confirm(&provisional).await
}

fn never_over() -> Error {
    error(ErrorCode::HelloTimeout, "the handshake did not come to its end")
}

/// What a session waits for whose handshake is not over.
pub(super) struct Waiting {
    over: Pin<Box<dyn Future<Output = Result<(), End>> + Send>>,
    /// The highest acknowledgement that came meanwhile.
    pub acked: Option<MailboxSeq>,
    /// The last word on whom to watch, which nobody repeats.
    pub watch: Option<Watch>,
}

impl Waiting {
    /// Waits until the handshake is over and the session entered, or is to end; for ever where nothing is waited for. Cancel-safe.
    pub async fn over(waiting: &mut Option<Self>) -> Result<(), End> {
        match waiting {
            Some(waiting) => waiting.over.as_mut().await,
            None => pending().await,
        }
    }
}

pub(super) fn welcome(context: &Context, entered: &Entered) -> Welcome {
    Welcome {
        version: VERSION_MAX,
        user: entered.session.user_id.clone(),
        session_epoch: entered.session.epoch(),
        epoch: context.engine.epoch(),
        incarnation: entered.arrival.incarnation,
        applied: entered.arrival.applied,
        applied_nonce: entered.arrival.applied_nonce,
        head: entered.head,
        begin: entered.begin,
        window: WINDOW,
        max_text: MAX_TEXT as u32,
        time: wall_clock(),
        endpoints: (context.endpoints)(),
        extensions: Vec::new(),
    }
}
