//! What became of messages: a receipt says how far a conversation was delivered and read, and these clients want to hear it of each message.

use std::collections::{BTreeMap, HashMap};
use whimbrel_protocol::frame::{Receipt, StoredMessage};
use whimbrel_protocol::{ConversationId, ConversationSeq, UserId};

/// Conversations that are kept in mind …
const CONVERSATIONS_MAX: usize = 1_000;
/// … and messages in them; beyond either all is forgotten, and looked up again.
const MESSAGES_MAX: usize = 10_000;
/// Messages that are not kept in mind, and are looked up for a receipt: the newest.
const LOOKED_UP_MAX: u64 = 500;

/// What is known of a conversation.
#[derive(Debug, Default)]
struct Known {
    /// From here on all of the user's messages that matter are this session's own; those before are looked up.
    since: Option<ConversationSeq>,
    /// This session's own messages that are not delivered, and what their client calls them.
    own: BTreeMap<ConversationSeq, String>,
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

    /// A message of this session is in the log: a new one, or one that was sent again.
    pub fn on_sent(&mut self, conversation: ConversationId, seq: ConversationSeq, id: String) {
        let is_new = self.of(conversation).own.insert(seq, id).is_none();
        self.messages += usize::from(is_new);
    }

    /// What a receipt says of single messages of the user: what their client calls each, and what became of it. `look_up` finds messages of the
    /// conversation up to a number, at most so many. Cancel-safe.
    ///
    /// # Errors
    /// If they cannot be found; then the receipt has told nothing.
    pub async fn on_receipt<F: Future<Output = Result<Vec<StoredMessage>, E>>, E>(
        &mut self,
        look_up: impl Fn(ConversationSeq, usize) -> F,
        me: &UserId,
        receipt: &Receipt,
        name: impl Fn(&StoredMessage) -> String,
    ) -> Result<Vec<(String, &'static str)>, E> {
        let Known { since, delivered, read, .. } = *self.of(receipt.conversation);
        let news = [("delivered", delivered, receipt.delivered), ("read", read, receipt.read)];
        let news = news.into_iter().filter(|(_, before, now)| before < now);
        let last = news.clone().map(|(_, _, now)| now).max().unwrap_or_default();
        let since = match since {
            Some(since) => since,
            // Earlier sessions may have written whatever is there now.
            None => look_up(ConversationSeq(u64::MAX - 1), 1).await?.last().map_or(last, |newest| newest.seq).next(),
        };
        let earlier = last.0.min(since.0.saturating_sub(1));
        let from = news.clone().map(|(_, before, _)| before.0).min().unwrap_or_default().max(earlier.saturating_sub(LOOKED_UP_MAX));
        let mut found = BTreeMap::new();
        if earlier > from {
            let messages = look_up(ConversationSeq(earlier), usize::try_from(earlier - from).unwrap_or(usize::MAX)).await?;
            found.extend(messages.iter().filter(|message| message.from == *me).map(|message| (message.seq, name(message))));
        }
        let known = self.of(receipt.conversation);
        found.extend(known.own.range(..=last).map(|(seq, id)| (*seq, id.clone())));
        let mut told = Vec::new();
        for (seq, id) in found {
            let of = news.clone().filter(|(_, before, now)| *before < seq && seq <= *now);
            told.extend(of.map(|(status, ..)| (id.clone(), status)));
        }
        known.delivered = known.delivered.max(receipt.delivered);
        known.read = known.read.max(receipt.read);
        // Who reads one later finds it in the log.
        let kept = known.own.split_off(&known.delivered.max(known.read).next());
        let gone = std::mem::replace(&mut known.own, kept).len();
        known.since = Some(since.max(known.delivered.max(known.read).next()));
        self.messages = self.messages.saturating_sub(gone);
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
                assert!(count as u64 <= LOOKED_UP_MAX);
                let last = ConversationSeq(last.0.min(self.0));
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
        assert_eq!(log.told(&mut receipts, 600, 0).await, all("delivered", 101..=600), "the newest 500");
        assert_eq!(log.told(&mut receipts, 600, 3).await, all("read", 1..=3));
    }

    #[tokio::test]
    async fn what_was_sent_before_and_was_not_delivered_is_told_of_beside_what_is_sent_again() {
        let (log, mut receipts) = (Log(7), Receipts::default());
        assert_eq!(log.told(&mut receipts, 4, 0).await, all("delivered", 1..=4));
        receipts.on_sent(CONVERSATION, ConversationSeq(5), "5".into());
        assert_eq!(log.told(&mut receipts, 7, 0).await, all("delivered", 5..=7));
        receipts.on_sent(CONVERSATION, ConversationSeq(8), "8".into());
        assert_eq!(Log(8).told(&mut receipts, 8, 0).await, all("delivered", 8..=8));
    }

    #[tokio::test]
    async fn what_nobody_reads_is_not_kept_for_ever_and_is_told_of_when_it_is_read() {
        let (log, mut receipts) = (Log(1_000), Receipts::default());
        for seq in 1..=1_000 {
            receipts.on_sent(CONVERSATION, ConversationSeq(seq), seq.to_string());
            assert_eq!(log.told(&mut receipts, seq, 0).await, [(seq, "delivered")]);
            assert_eq!(receipts.messages, 0);
        }
        assert_eq!(log.told(&mut receipts, 1_000, 1_000).await, all("read", 501..=1_000), "those that are looked up");
        // Nobody takes anything either: all is forgotten.
        (0..25_000).for_each(|seq| receipts.on_sent(CONVERSATION, ConversationSeq(1_001 + seq), String::new()));
        assert!(receipts.messages <= MESSAGES_MAX && receipts.known[&CONVERSATION].own.len() == receipts.messages);
        (0..2_500).for_each(|number| receipts.on_sent(ConversationId(number), ConversationSeq(1), String::new()));
        assert!(receipts.known.len() <= CONVERSATIONS_MAX);
    }
}
