//! `whimbrel chat`: talk, in the terminal.
//!
//! [`app`] is the application without its surroundings: it takes what comes in, and says what it wants done. [`draw`] puts it on the
//! screen, [`worker`] carries out what it wants, and the loop here ties them together.

mod app;
mod clock;
mod composer;
mod draw;
mod geometry;
mod room;
mod terminal;
mod text;
mod thread;
mod worker;

use super::connect::{Connect, LEAVING, SLOTS, failed, reason};
use super::exit;
use app::{App, Input};
use clap::Args;
use clock::{Now, Zone};
use crossterm::event::{Event as TerminalEvent, EventStream};
use futures_util::StreamExt;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;
use terminal::{Screen, Taken};
use tokio::sync::mpsc;
use whimbrel_client::protocol::UserId;
use whimbrel_client::protocol::frame::Origin;
use whimbrel_client::{Client, ConnectError, Events};
use worker::Worker;

/// What is taken in before the screen is drawn again, at most, so that a flood is not drawn message by message.
const BATCH_MAX: usize = 256;

/// Keys that wait; when there are more, the terminal keeps them.
const KEYS_MAX: usize = 256;

/// How it ends, for its help.
const ENDS: &str = "\
What was written without a connection is kept, and sent once there is one: by a later chat, if this one has ended.

Exit codes:
  0  you left, and there was a connection at some time
  1  the server refused, or another client took the device over
  2  the command line is wrong, or something on this machine (the state folder, the terminal) cannot be used
  3  you left, and there was no connection";

type Keys = mpsc::Receiver<std::io::Result<TerminalEvent>>;

/// Who talks, and to whom.
#[derive(Debug, Clone, Args)]
#[command(after_help = ENDS)]
pub(super) struct Chat {
    #[command(flatten)]
    connect: Connect,
    /// Open the conversation with this user.
    #[arg(long, value_name = "USER")]
    to: Option<String>,
}

/// Runs the command. Not async: the time zone can only be asked for while there is one thread.
pub(super) fn run(arguments: &Chat) -> ExitCode {
    if !std::io::stdout().is_terminal() {
        eprintln!("whimbrel: chat needs a terminal; in scripts use `whimbrel send` and `whimbrel listen`");
        return ExitCode::from(exit::USAGE);
    }
    let to = match arguments.to.as_deref().map(str::parse::<UserId>).transpose() {
        Ok(to) => to,
        Err(why) => {
            eprintln!("whimbrel: {:?} cannot be the name of a user: {why}", arguments.to.as_deref().unwrap_or_default());
            return ExitCode::from(exit::USAGE);
        }
    };
    let zone = Zone::local(Now::read().time);
    // The screen has this thread and the connection another: a terminal that takes nothing for a while must not end the session.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            eprintln!("whimbrel: cannot start: {why}");
            return ExitCode::from(exit::USAGE);
        }
    };
    let code = runtime.block_on(chat(arguments, to, zone));
    runtime.shutdown_background();
    code
}

async fn chat(arguments: &Chat, to: Option<UserId>, zone: Zone) -> ExitCode {
    let (client, events) = match arguments.connect.start("chat", Origin::Snapshot, SLOTS, LEAVING).await {
        Ok(started) => started,
        Err(why) => return failed(&ConnectError::Start(why)),
    };
    let size = crossterm::terminal::size().unwrap_or((80, 24));
    let mut app = App::new(client.user().clone(), zone, Now::read(), size);
    if let Some(to) = to {
        app.open_user(&to);
    }
    // Before the terminal is ours: a signal must find somebody who gives it back.
    let stop = stop_signal();
    let result = match Taken::take() {
        Ok((taken, screen)) => {
            let result = talk(&client, events, &mut app, screen, stop).await;
            drop(taken);
            result
        }
        Err(why) => Err(why),
    };
    let why_offline = app.why_offline().map(text::clean_line);
    client.close().await;
    report(&client, &app, result, why_offline)
}

/// Says why it is over, and with which code.
fn report(client: &Client, app: &App, result: std::io::Result<()>, why_offline: Option<String>) -> ExitCode {
    if let Err(why) = result {
        eprintln!("whimbrel: the terminal cannot be used: {why}");
        return ExitCode::from(exit::USAGE);
    }
    match app.waiting() {
        0 => {}
        1 => eprintln!("whimbrel: 1 message waits; a later chat goes on with it, and sends it once there is a connection"),
        waiting => {
            eprintln!("whimbrel: {waiting} messages wait; a later chat goes on with them, and sends them once there is a connection")
        }
    }
    if let Some(why) = app.ended() {
        match why {
            Some(why) => eprintln!("whimbrel: {}", text::clean_line(&reason(client, why))),
            None => eprintln!("whimbrel: the connection has ended"),
        }
        return ExitCode::from(exit::REFUSED);
    }
    if !app.was_connected() {
        eprintln!("whimbrel: there was no connection{}", why_offline.map(|why| format!(": {why}")).unwrap_or_default());
        return ExitCode::from(exit::NO_CONNECTION);
    }
    ExitCode::SUCCESS
}

/// The loop, until the user leaves or the client ends.
async fn talk(
    client: &Client,
    mut events: Events,
    app: &mut App,
    mut screen: Screen,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let theme = draw::Theme::from_environment();
    let (worker, mut done) = Worker::start(client);
    worker.watch();
    let mut connection = client.connection();
    connection.mark_changed();
    let mut keys = keyboard();
    let mut stop = std::pin::pin!(stop);
    while !app.is_leaving() && app.ended().is_none() {
        client.active(app.is_focused());
        perform(app, &worker);
        screen.draw(|frame| draw::draw(app, &theme, frame))?;
        let wake = app.wake();
        // What is stored is told before what comes of it.
        tokio::select! {
            biased;
            () = &mut stop => break,
            key = keys.recv() => match key {
                Some(key) => on_terminal(app, key?),
                None => break,
            },
            Some(result) = done.recv() => app.on(Input::Done(result), Now::read()),
            changed = connection.changed() => {
                // A driver that is gone says that it has ended, last.
                let state = connection.borrow_and_update().clone();
                app.on(Input::Connection(state), Now::read());
                if changed.is_err() {
                    break;
                }
            }
            incoming = events.next(), if app.is_loaded() => match incoming.map(worker::input) {
                Some(Some(input)) => app.on(input, Now::read()),
                Some(None) => {}
                // The connection says why.
                None => { let _ = connection.wait_for(|state| matches!(state, whimbrel_client::Connection::Ended { .. })).await; }
            },
            () = at(wake) => app.on(Input::Tick, Now::read()),
        }
        drain(app, &mut keys, &mut done, &mut events)?;
    }
    app.tell_read();
    perform(app, &worker);
    events.done();
    worker.finish(done).await;
    Ok(())
}

/// What the terminal says. From a task of its own: the stream cannot be asked whether there is more without losing its waker.
fn keyboard() -> Keys {
    let (sender, keys) = mpsc::channel(KEYS_MAX);
    tokio::spawn(async move {
        let mut stream = EventStream::new();
        while let Some(key) = stream.next().await {
            if sender.send(key).await.is_err() {
                return;
            }
        }
    });
    keys
}

/// Takes in what is there already.
fn drain(app: &mut App, keys: &mut Keys, done: &mut mpsc::Receiver<app::Done>, events: &mut Events) -> std::io::Result<()> {
    for _ in 0..BATCH_MAX {
        if let Ok(key) = keys.try_recv() {
            on_terminal(app, key?);
        } else if let Ok(result) = done.try_recv() {
            app.on(Input::Done(result), Now::read());
        } else if app.is_loaded()
            && let Some(incoming) = events.try_next()
        {
            if let Some(input) = worker::input(incoming) {
                app.on(input, Now::read());
            }
        } else {
            break;
        }
    }
    Ok(())
}

fn perform(app: &mut App, worker: &Worker) {
    for action in app.take_actions() {
        if let Some(failed) = worker.perform(action) {
            app.on(Input::Done(failed), Now::read());
        }
    }
}

fn on_terminal(app: &mut App, event: TerminalEvent) {
    let input = match event {
        TerminalEvent::Key(key) => Input::Key(key),
        TerminalEvent::Paste(text) => Input::Paste(text),
        TerminalEvent::Mouse(mouse) => Input::Mouse(mouse),
        TerminalEvent::Resize(width, height) => Input::Resize(width, height),
        TerminalEvent::FocusGained => Input::Focus(true),
        TerminalEvent::FocusLost => Input::Focus(false),
    };
    app.on(input, Now::read());
}

async fn at(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

/// Somebody wants the process to end. Noticed from this call on, not from the first poll: until then a signal just ends the process.
fn stop_signal() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()].map(signal)
    };
    async move {
        #[cfg(unix)]
        if let [Ok(mut terminate), Ok(mut hang_up), Ok(mut interrupt)] = signals {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
                // From outside only: on the terminal, Ctrl+C is a key.
                _ = interrupt.recv() => {}
            }
            return;
        }
        std::future::pending().await
    }
}
