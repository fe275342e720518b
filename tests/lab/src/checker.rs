//! The checker of the promises: what was acknowledged to a sender against what a device of the recipient took.

use std::collections::{BTreeMap, HashMap};

/// A message as its sender knows it.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Whose device sent it.
    pub from: String,
    /// To whom.
    pub to: String,
    /// What it says: its name here, so no two say the same.
    pub text: String,
    /// Where it is, conversation and number there, once the sender was told.
    pub place: Option<(u64, u64)>,
}

/// A message as a device took it.
#[derive(Debug, Clone)]
pub struct Got {
    /// Its entry's number in the mailbox.
    pub mailbox: u64,
    /// Where it is: conversation and number there.
    pub place: (u64, u64),
    /// Who wrote it.
    pub from: String,
    /// What it says.
    pub text: String,
}

/// What is wrong.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// Acknowledged, and not there.
    Lost(String),
    /// Taken twice.
    Doubled(String),
    /// Taken after one that its sender sent later.
    OutOfOrder {
        /// This one …
        text: String,
        /// … after this one.
        after: String,
    },
    /// Not where its sender was told.
    Elsewhere(String),
    /// Nobody sent it, or not who it says.
    Unsaid(String),
    /// Its number in the mailbox is not above the one before.
    MailboxBackwards {
        /// Which.
        text: String,
    },
}

/// Checks what one device of `recipient` took: all that was acknowledged, once, each sender's in the order in which they were sent, each
/// where its sender was told. `sent` is in the order in which each sender sent; what was not acknowledged may be there or not.
///
/// # Errors
/// The first fault that it finds.
pub fn check(recipient: &str, sent: &[Sent], got: &[Got]) -> Result<(), Fault> {
    let sent: Vec<&Sent> = sent.iter().filter(|message| message.to == recipient).collect();
    let order: HashMap<&str, usize> = sent.iter().enumerate().map(|(at, message)| (message.text.as_str(), at)).collect();
    let mut seen: HashMap<&str, &Got> = HashMap::new();
    let mut newest: BTreeMap<&str, (usize, &Got)> = BTreeMap::new();
    let mut mailbox = 0;
    for message in got {
        let text = message.text.as_str();
        let Some(&at) = order.get(text) else { return Err(Fault::Unsaid(text.into())) };
        if seen.insert(text, message).is_some() {
            return Err(Fault::Doubled(text.into()));
        }
        if message.mailbox <= mailbox {
            return Err(Fault::MailboxBackwards { text: text.into() });
        }
        mailbox = message.mailbox;
        if sent[at].from != message.from {
            return Err(Fault::Unsaid(text.into()));
        }
        if let Some((before, last)) = newest.insert(&message.from, (at, message))
            && (at < before || message.place.1 <= last.place.1)
        {
            return Err(Fault::OutOfOrder { text: text.into(), after: last.text.clone() });
        }
    }
    for message in sent {
        let Some(place) = message.place else { continue };
        match seen.get(message.text.as_str()) {
            None => return Err(Fault::Lost(message.text.clone())),
            Some(got) if got.place != place => return Err(Fault::Elsewhere(message.text.clone())),
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<Sent>, Vec<Got>) {
        let sent = (1..=9).map(|number| Sent {
            from: "ann".into(),
            to: "bob".into(),
            text: format!("ann {number}"),
            place: (number != 9).then_some((1, number)),
        });
        let got = (1..=8).map(|number| Got { mailbox: number + 1, place: (1, number), from: "ann".into(), text: format!("ann {number}") });
        (sent.collect(), got.collect())
    }

    #[test]
    fn what_is_right_passes() {
        let (sent, mut got) = sample();
        assert_eq!(check("bob", &sent, &got), Ok(()));
        // Not acknowledged, but there: that is right too.
        got.push(Got { mailbox: 10, place: (1, 9), from: "ann".into(), text: "ann 9".into() });
        assert_eq!(check("bob", &sent, &got), Ok(()));
    }

    #[test]
    fn a_planted_loss_is_found() {
        let (sent, mut got) = sample();
        got.remove(4);
        assert_eq!(check("bob", &sent, &got), Err(Fault::Lost("ann 5".into())));
    }

    #[test]
    fn a_planted_double_is_found() {
        let (sent, mut got) = sample();
        let again = Got { mailbox: 11, ..got[3].clone() };
        got.push(again);
        assert_eq!(check("bob", &sent, &got), Err(Fault::Doubled("ann 4".into())));
    }

    #[test]
    fn a_planted_reorder_is_found() {
        let (sent, mut got) = sample();
        got.swap(2, 3);
        assert_eq!(check("bob", &sent, &got), Err(Fault::MailboxBackwards { text: "ann 3".into() }));
        for (at, message) in got.iter_mut().enumerate() {
            message.mailbox = at as u64 + 1;
        }
        assert_eq!(check("bob", &sent, &got), Err(Fault::OutOfOrder { text: "ann 3".into(), after: "ann 4".into() }));
    }

    #[test]
    fn a_message_that_is_elsewhere_or_nobodys_is_found() {
        let (sent, mut got) = sample();
        got[7].place = (1, 12);
        assert_eq!(check("bob", &sent, &got), Err(Fault::Elsewhere("ann 8".into())));
        got[7].text = "mallory".into();
        assert_eq!(check("bob", &sent, &got), Err(Fault::Unsaid("mallory".into())));
    }
}
