//! Chance from a seed: the same seed gives the same dice for ever, whatever libraries become.

/// SplitMix64: small, and good enough for losing packets.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Other dice, from these and a purpose: what one of them is asked for does not change what another says.
    #[must_use]
    pub fn split(&self, purpose: u64) -> Self {
        let mut dice = Self(self.0 ^ purpose.wrapping_mul(0xd134_2543_de82_ef95));
        Self(dice.roll())
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A part, from 0 up to 1.
    pub fn part(&mut self) -> f64 {
        // 53 bits are what a double holds.
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something happens that happens with this probability. Asks the dice only if it is neither sure nor impossible.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && (probability >= 1.0 || self.part() < probability)
    }

    /// A number from `low` up to, and without, `high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut dice = Dice::new(1);
        assert_eq!([dice.roll(), dice.roll()], [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]);
    }

    #[test]
    fn chances_are_what_they_are_said_to_be() {
        let mut dice = Dice::new(7).split(3);
        let happened = (0..100_000).filter(|_| dice.chance(0.1)).count();
        assert!((9_500..10_500).contains(&happened), "{happened}");
        assert!(!dice.chance(0.0) && dice.chance(1.0));
        assert!((0..1000).all(|_| (3..9).contains(&dice.range(3, 9))));
    }
}
