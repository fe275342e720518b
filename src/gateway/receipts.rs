//! What became of messages: a receipt says how far a conversation was delivered and read, and these clients want to hear it of each message.

use std::collections::{HashMap, VecDeque};
use whimbrel_protocol::frame::{Receipt, StoredMessage};
use whimbrel_protocol::{ConversationId, ConversationSeq, UserId};

/// Conversations that are kept in mind …
const CONVERSATIONS_MAX: usize = 1_000;
/// … and messages in them; beyond either all is forgotten, and looked up again.
const MESSAGES_MAX: usize = 10_000;
/// Messages of a conversation that are delivered, not read, and kept in mind.
const DELIVERED_MAX: usize = 100;
/// Messages that are not kept in mind, and are looked up for a receipt: the newest.
const LOOKED_UP_MAX: u64 = 500;

/// What is known of a conversation.
#[derive(Debug, Default)]
struct Known {
    /// The first message that is kept in mind; those before are looked up.
    since: Option<ConversationSeq>,
    /// This session's own messages, and what their client calls them, oldest first.
    own: VecDeque<(ConversationSeq, String)>,
    delivered: ConversationSeq,
    read: ConversationSeq,
}

/// What is known of all conversations.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    known: HashMap<ConversationId, Known>,
    messages: usize,
}

impl Receipts {
    fn of(&mut self, conversation: ConversationId) -> &mut Known {
        let is_new = !self.known.contains_key(&conversation);
        if (is_new && self.known.len() >= CONVERSATIONS_MAX) || self.messages >= MESSAGES_MAX {
            self.known.clear();
            self.messages = 0;
        }
        self.known.entry(conversation).or_default()
    }

    /// A message of this session is in the log.
    pub fn on_sent(&mut self, conversation: ConversationId, seq: ConversationSeq, id: String) {
        let known = self.of(conversation);
        known.since.get_or_insert(seq);
        known.own.push_back((seq, id));
        self.messages += 1;
    }

    /// What a receipt says of single messages of the user: what their client calls each, and what became of it. `look_up` finds messages of the
    /// conversation up to a number, at most so many. Cancel-safe.
    ///
    /// # Errors
    /// If they cannot be found; then the receipt has told nothing.
    pub async fn on_receipt<F: Future<Output = Result<Vec<StoredMessage>, E>>, E>(
        &mut self,
        look_up: impl FnOnce(ConversationSeq, usize) -> F,
        me: &UserId,
        receipt: &Receipt,
        name: impl Fn(&StoredMessage) -> String,
    ) -> Result<Vec<(String, &'static str)>, E> {
        let Known { since, delivered, read, .. } = *self.of(receipt.conversation);
        let news = [("delivered", delivered, receipt.delivered), ("read", read, receipt.read)];
        let news = news.into_iter().filter(|(_, before, now)| before < now);
        let mut told = Vec::new();
        let mut tell = |seq: ConversationSeq, id: &str| {
            let of = news.clone().filter(|(_, before, now)| *before < seq && seq <= *now);
            told.extend(of.map(|(status, ..)| (id.to_owned(), status)));
        };
        let last = news.clone().map(|(_, _, now)| now).max().unwrap_or_default();
        let earlier = since.map_or(last, |since| last.min(ConversationSeq(since.0.saturating_sub(1))));
        let from = news.clone().map(|(_, before, _)| before.0).min().unwrap_or_default().max(earlier.0.saturating_sub(LOOKED_UP_MAX));
        if earlier.0 > from {
            let found = look_up(earlier, usize::try_from(earlier.0 - from).unwrap_or(usize::MAX)).await?;
            for message in found.iter().filter(|message| message.from == *me) {
                tell(message.seq, &name(message));
            }
        }
        let known = self.of(receipt.conversation);
        for (seq, id) in &known.own {
            tell(*seq, id);
        }
        known.delivered = known.delivered.max(receipt.delivered);
        known.read = known.read.max(receipt.read);
        let (delivered, read) = (known.delivered, known.read);
        let is_delivered = known.own.iter().take_while(|(seq, _)| *seq <= delivered).count();
        let gone = known.own.iter().take_while(|(seq, _)| *seq <= read).count().max(is_delivered.saturating_sub(DELIVERED_MAX));
        known.own.drain(..gone);
        // Those that are not kept are looked up, if they are ever read.
        known.since = known.own.front().map(|(seq, _)| *seq).or(Some(ConversationSeq(delivered.max(read).0 + 1)));
        self.messages -= gone;
        Ok(told)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use whimbrel_protocol::frame::Content;

    const CONVERSATION: ConversationId = ConversationId(1);

    fn me() -> UserId {
        UserId::new("ann").unwrap()
    }

    /// A log of this many messages, all of this user, named by their number.
    struct Log(u64);

    impl Log {
        async fn told(&self, receipts: &mut Receipts, delivered: u64, read: u64) -> Vec<(u64, &'static str)> {
            let look_up = async |last: ConversationSeq, count: usize| {
                assert!(last.0 <= self.0 && count as u64 <= LOOKED_UP_MAX);
                let message =
                    |seq| StoredMessage { seq: ConversationSeq(seq), time: Default::default(), from: me(), content: Content::text("x") };
                Ok::<_, Infallible>((last.0.saturating_sub(count as u64) + 1..=last.0).map(message).collect())
            };
            let (delivered, read) = (ConversationSeq(delivered), ConversationSeq(read));
            let receipt = Receipt { conversation: CONVERSATION, user: Some(UserId::new("bob").unwrap()), delivered, read };
            let told = receipts.on_receipt(look_up, &me(), &receipt, |message| message.seq.to_string()).await.unwrap();
            told.into_iter().map(|(id, status)| (id.parse().unwrap(), status)).collect()
        }
    }

    fn all(status: &'static str, seqs: impl Iterator<Item = u64>) -> Vec<(u64, &'static str)> {
        seqs.map(|seq| (seq, status)).collect()
    }

    #[tokio::test]
    async fn each_message_is_told_of_once_and_in_order() {
        let (log, mut receipts) = (Log(5), Receipts::default());
        (1..=5).for_each(|seq| receipts.on_sent(CONVERSATION, ConversationSeq(seq), seq.to_string()));
        assert_eq!(log.told(&mut receipts, 2, 0).await, all("delivered", 1..=2));
        assert_eq!(log.told(&mut receipts, 2, 0).await, []);
        assert_eq!(log.told(&mut receipts, 4, 1).await, [(1, "read"), (3, "delivered"), (4, "delivered")]);
        assert_eq!(log.told(&mut receipts, 5, 5).await, [(2, "read"), (3, "read"), (4, "read"), (5, "delivered"), (5, "read")]);
        assert_eq!(receipts.messages, 0);
    }

    #[tokio::test]
    async fn messages_of_an_earlier_session_are_looked_up() {
        let (log, mut receipts) = (Log(600), Receipts::default());
        receipts.on_sent(CONVERSATION, ConversationSeq(600), "600".into());
        assert_eq!(log.told(&mut receipts, 600, 0).await, all("delivered", 100..=600), "the newest 500 and its own");
        assert_eq!(log.told(&mut receipts, 600, 3).await, all("read", 1..=3));
    }

    #[tokio::test]
    async fn what_nobody_reads_is_not_kept_for_ever_and_is_told_of_when_it_is_read() {
        let (log, mut receipts) = (Log(1_000), Receipts::default());
        for seq in 1..=1_000 {
            receipts.on_sent(CONVERSATION, ConversationSeq(seq), seq.to_string());
            assert_eq!(log.told(&mut receipts, seq, 0).await, [(seq, "delivered")]);
            assert!(receipts.messages <= DELIVERED_MAX);
        }
        assert_eq!(log.told(&mut receipts, 1_000, 1_000).await, all("read", 401..=1_000), "500 that were looked up, and those kept");
        // Nobody takes anything either: all is forgotten.
        (0..25_000).for_each(|seq| receipts.on_sent(CONVERSATION, ConversationSeq(1_001 + seq), String::new()));
        assert!(receipts.messages <= MESSAGES_MAX && receipts.known[&CONVERSATION].own.len() == receipts.messages);
        (0..2_500).for_each(|number| receipts.on_sent(ConversationId(number), ConversationSeq(1), String::new()));
        assert!(receipts.known.len() <= CONVERSATIONS_MAX);
    }
}
