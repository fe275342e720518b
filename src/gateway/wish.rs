//! What a client of Socket.IO wants of its session.

use aws_lc_rs::digest::{Context, SHA256};
use socketioxide::extract::AckSender;
use whimbrel_protocol::{Nonce, UserId};

/// What a client wants.
pub(super) enum Wish {
    /// Write a message. `beside` is what is said beside the text, as it is kept.
    Message { to: UserId, id: Option<String>, text: String, beside: Vec<u8>, answer: Option<AckSender> },
    /// Say that it types.
    Typing { to: UserId, active: bool },
    /// Say how it is.
    Status { background: bool },
    /// Know what was said.
    History { with: UserId, asked: Asked },
}

impl Wish {
    /// Bytes of it that its client chose.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Message { text, beside, .. } => text.len() + beside.len(),
            Self::History { asked, .. } => asked.topic.as_ref().map_or(0, String::len),
            Self::Typing { .. } | Self::Status { .. } => 0,
        }
    }
}

/// A question for what was said with somebody.
pub(super) struct Asked {
    pub friend_id: String,
    pub topic: Option<String>,
    /// If the client wants to be called back.
    pub answer: Option<AckSender>,
}

/// What is sent again is the same: to the same user, with the same words, and the same beside them, its name among it.
pub(super) fn nonce(to: &UserId, beside: &[u8], text: &str) -> Nonce {
    let mut digest = Context::new(&SHA256);
    for part in [to.as_str().as_bytes(), beside, text.as_bytes()] {
        digest.update(&(part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&digest.finish().as_ref()[..8]);
    Nonce(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_has_the_same_nonce_and_nothing_else_has() {
        let user = |name: &str| UserId::new(name).unwrap_or_else(|why| panic!("{why}"));
        let first = nonce(&user("bob"), b"1", "hello");
        assert_eq!(first, nonce(&user("bob"), b"1", "hello"));
        let others = [("ann", "1", "hello"), ("bob", "2", "hello"), ("bob", "1", "hello!"), ("bob", "1h", "ello")];
        for (to, beside, text) in others {
            let other = nonce(&user(to), beside.as_bytes(), text);
            assert_ne!(first, other);
        }
    }
}
