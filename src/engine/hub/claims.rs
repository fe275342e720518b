//! Which run of a client a device is, for a while after it was here, and while its handshake is not over.

use crate::store::DeviceKey;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use whimbrel_protocol::Nonce;

/// A claim that is not used is forgotten after this long, or twice as long: handshakes end sooner.
const FORGET: Duration = Duration::from_secs(60);

/// Claims by device.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Those used since `turned`, and those used in the time before.
    now: HashMap<DeviceKey, Nonce>,
    before: HashMap<DeviceKey, Nonce>,
    turned: Option<Instant>,
}

impl Claims {
    /// Whether the device is this run, or nobody has said otherwise: then it is from now on.
    pub fn claim(&mut self, device: DeviceKey, instance: Nonce) -> bool {
        let claimed = self.now.get(&device).or_else(|| self.before.get(&device));
        let is_ours = claimed.is_none_or(|claimed| *claimed == instance);
        if is_ours {
            self.set(device, instance);
        }
        is_ours
    }

    /// The device is this run: it was there at the end of its handshake.
    pub fn set(&mut self, device: DeviceKey, instance: Nonce) {
        self.now.insert(device, instance);
    }

    /// Forgets what was not used for long.
    pub fn forget_old(&mut self, now: Instant) {
        if now.duration_since(*self.turned.get_or_insert(now)) >= FORGET {
            self.turned = Some(now);
            self.before = std::mem::take(&mut self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::UserNo;

    #[test]
    fn the_first_run_has_it_until_it_is_gone_for_long_or_another_was_there() {
        let (phone, begun) = (DeviceKey { user: UserNo(1), slot: 0 }, Instant::now());
        let [one, other] = [1, 2].map(|byte| Nonce([byte; 8]));
        let mut claims = Claims::default();
        claims.forget_old(begun);
        assert!(claims.claim(phone, one) && claims.claim(phone, one) && !claims.claim(phone, other));
        claims.set(phone, other);
        assert!(!claims.claim(phone, one) && claims.claim(phone, other));
        claims.forget_old(begun + FORGET);
        assert!(!claims.claim(phone, one), "not yet");
        claims.forget_old(begun + 2 * FORGET);
        assert!(claims.claim(phone, one));
        claims.forget_old(begun + 3 * FORGET);
        assert!(claims.claim(phone, one), "used");
        claims.forget_old(begun + 4 * FORGET);
        assert!(!claims.claim(phone, other));
        claims.forget_old(begun + 5 * FORGET);
        claims.forget_old(begun + 6 * FORGET);
        assert!(claims.now.is_empty() && claims.before.is_empty());
    }
}
