//! The lobby at `/chat`: a text is a text to everybody else who is there, as it is.

use crate::harness::{Frames, ServerProcess, binary, http_get, run, within};
use futures_util::{SinkExt, StreamExt};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use whimbrel_protocol::codec::Form;
use whimbrel_protocol::frame::{ClientFrame, Ping, ServerFrame, ServerSignal, Signal, Watch};

/// A client that knows nothing of Whimbrel.
type Plain = WebSocketStream<TcpStream>;

async fn open(server: &ServerProcess, origin: Option<&str>) -> Result<Plain, Error> {
    let mut request = format!("ws://{}/chat", server.http).into_client_request().unwrap();
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    Ok(client_async(request, TcpStream::connect(server.http).await.unwrap()).await?.0)
}

async fn plain(server: &ServerProcess) -> Plain {
    open(server, None).await.unwrap()
}

async fn next(socket: &mut Plain) -> Message {
    within("a line", socket.next()).await.unwrap().unwrap()
}

/// Waits until the server reads what this one says and says to it what others do: who has just connected may not be there yet.
async fn settle(one: &mut Plain, other: &mut Plain) {
    for number in 0.. {
        let line = format!("settle {number}");
        one.send(Message::text(&line)).await.unwrap();
        match tokio::time::timeout(Duration::from_millis(100), other.next()).await {
            Ok(Some(Ok(Message::Text(text)))) if text == line => return,
            Ok(Some(Ok(_))) | Err(_) => {}
            Ok(ended) => panic!("{ended:?}"),
        }
    }
}

async fn closed(socket: &mut Plain) -> CloseCode {
    loop {
        match next(socket).await {
            Message::Close(frame) => return frame.unwrap().code,
            Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_one_says_everybody_else_hears_as_it_is() {
    run(async {
        let server = ServerProcess::start();
        let (mut ann, mut bob, mut cat) = (plain(&server).await, plain(&server).await, plain(&server).await);
        settle(&mut ann, &mut bob).await;
        settle(&mut ann, &mut cat).await;
        settle(&mut bob, &mut ann).await;
        let lines = ["hello", "", "{\"json\": 1}", "何時に着きますか？\n\0 ", &"x".repeat(60 * 1024)];
        for line in lines {
            ann.send(Message::text(line)).await.unwrap();
        }
        for socket in [&mut bob, &mut cat] {
            let mut heard = Vec::new();
            while heard.len() < lines.len() {
                match next(socket).await {
                    Message::Text(text) if text.starts_with("settle ") => {}
                    Message::Text(text) => heard.push(text.to_string()),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(heard, lines);
        }
        // Not oneself: the next that ann hears is of bob.
        bob.send(Message::text("bye")).await.unwrap();
        assert_eq!(next(&mut ann).await, Message::text("bye"));
    });
}

#[test]
fn what_is_no_line_ends_that_connection_with_a_reason_and_no_other() {
    run(async {
        let server = ServerProcess::start();
        let (mut ann, mut bob) = (plain(&server).await, plain(&server).await);
        settle(&mut ann, &mut bob).await;
        for (message, code) in
            [(Message::binary(vec![1, 2, 3]), CloseCode::Unsupported), (Message::text("x".repeat(60 * 1024 + 1)), CloseCode::Size)]
        {
            let mut bad = plain(&server).await;
            bad.send(message).await.unwrap();
            assert_eq!(closed(&mut bad).await, code);
        }
        settle(&mut bob, &mut ann).await;
    });
}

#[test]
fn only_pages_that_may_get_in_and_what_is_no_websocket_is_told() {
    run(async {
        let server = ServerProcess::start();
        assert_eq!(http_get(server.http, "/chat", &[]).await.status(), 426);
        assert!(open(&server, Some("http://localhost:3000")).await.is_ok());
        let refused = open(&server, Some("https://shop.example.org")).await;
        assert!(matches!(&refused, Err(Error::Http(response)) if response.status() == 403), "{refused:?}");

        let shop = ("origin", "https://shop.example.org");
        let allowed = |response: &hyper::Response<_>| response.headers().get("access-control-allow-origin").cloned();
        let status = http_get(server.http, "/api/online-users", &[shop]).await;
        assert_eq!(allowed(&status).unwrap(), "*", "reading is for all, as long as nobody says otherwise");

        let server = ServerProcess::start_with(&["--origins", "https://shop.example.org,https://desk.example.org"]);
        assert!(open(&server, Some("https://shop.example.org")).await.is_ok());
        assert!(open(&server, Some("http://localhost:3000")).await.is_err());
        let own = format!("http://{}", server.http);
        assert!(open(&server, Some(&own)).await.is_ok(), "the server's own page");
        for path in ["/", "/api/online-users", "/.well-known/whimbrel"] {
            let status = http_get(server.http, path, &[shop]).await;
            assert_eq!(allowed(&status).unwrap(), "https://shop.example.org", "{path}");
            assert!(status.headers().get_all("vary").iter().any(|vary| vary == "Origin"), "{path}");
            let other = http_get(server.http, path, &[("origin", "https://evil.example")]).await;
            assert_eq!((other.status().as_u16(), allowed(&other)), (200, None), "{path}");
        }
    });
}

#[test]
fn a_server_that_is_full_or_leaves_says_so() {
    run(async {
        let mut server = ServerProcess::start_with(&["--max-sessions", "1"]);
        let (mut ann, mut bob) = (plain(&server).await, plain(&server).await);
        // Whoever comes second is told.
        let (code, mut there) = tokio::select! {
            code = closed(&mut ann) => (code, bob),
            code = closed(&mut bob) => (code, ann),
        };
        assert_eq!(code, CloseCode::Again);
        let ended = tokio::task::spawn_blocking(move || server.terminate());
        assert_eq!(closed(&mut there).await, CloseCode::Away);
        drop(there);
        assert!(ended.await.unwrap().success());
    });
}

#[test]
fn sessions_read_along_if_they_ask_for_it() {
    run(async {
        let server = ServerProcess::start();
        let (mut ann, mut bob) = (plain(&server).await, plain(&server).await);
        settle(&mut ann, &mut bob).await;
        let mut cat = Frames::enter(server.http, Form::Postcard, "cat", "phone").await;
        let mut dan = Frames::enter(server.http, Form::Json, "dan", "phone").await;
        let lobby = |lobby| ClientFrame::Signal(Signal::Watch(Watch { users: Vec::new(), everyone: false, lobby }));
        for session in [&mut cat, &mut dan] {
            session.link.send(&lobby(true)).await;
            // What was said before the signal was taken is missed; the answer to a later question says that it was.
            assert_eq!(heard(session, 1).await, [""; 0]);
        }
        ann.send(Message::text("hello, whoever you are")).await.unwrap();
        for session in [&mut cat, &mut dan] {
            assert_eq!(session.wait("a line", line).await, "hello, whoever you are");
        }
        dan.link.send(&lobby(false)).await;
        assert_eq!(heard(&mut dan, 2).await, [""; 0]);
        bob.send(Message::text("still there?")).await.unwrap();
        assert_eq!(cat.wait("a line", line).await, "still there?");
        // Twice: what waits goes out between the two at the latest.
        for number in [3, 4] {
            assert_eq!(heard(&mut dan, number).await, [""; 0], "who has had enough hears nothing");
        }
    });
}

fn line(frame: &ServerFrame) -> Option<String> {
    match frame {
        ServerFrame::Signal(ServerSignal::Lobby(line)) => Some(line.text.clone()),
        _ => None,
    }
}

/// What a session heard before the answer to a question.
async fn heard(session: &mut Frames, number: u32) -> Vec<String> {
    session.link.send(&ClientFrame::Ping(Ping { id: number })).await;
    let mut heard = Vec::new();
    session
        .wait("a pong", |frame| {
            heard.extend(line(frame));
            matches!(frame, ServerFrame::Pong(pong) if pong.id == number).then_some(())
        })
        .await;
    heard
}

#[test]
fn the_command_line_hears_it_where_asked() {
    run(async {
        let server = ServerProcess::start();
        let mut ann = plain(&server).await;
        let listen = |more: &[&str]| {
            let mut command = Command::new(binary());
            command.args(["listen", "--as", "bob", "--url", &server.url()]).args(more);
            command.current_dir(server.folder()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
        };
        let (mut hears, mut deaf) = (listen(&["--lobby", "--timeout", "20"]), listen(&["--device", "deaf", "--timeout", "3"]));
        let lines = BufReader::new(hears.stdout.take().unwrap()).lines();
        let heard = std::thread::spawn(move || lines.map_while(Result::ok).find(|line| line.contains("\"lobby\"")));
        // Until the one is there, and for all the time that the other is.
        while !heard.is_finished() || deaf.try_wait().unwrap().is_none() {
            ann.send(Message::text("where is the shop?")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let line: serde_json::Value = serde_json::from_str(&heard.join().unwrap().expect("nothing of the lobby was printed")).unwrap();
        assert_eq!(line, serde_json::json!({ "kind": "lobby", "text": "where is the shop?" }));
        hears.kill().unwrap();
        hears.wait().unwrap();
        let printed = deaf.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&printed.stdout), "", "it did not ask");
    });
}
