//! Networks between a phone and a server: namespaces, links whose quality can be chosen, and what went through them.

mod counts;
mod dice;
mod emulator;
mod nat;
mod packet;
mod settings;
mod space;
mod tun;

pub use counts::{Counts, LinkCounts};
pub use dice::Dice;
pub use emulator::Link;
pub use nat::{Forgets, Nat};
pub use settings::{CELL, CELL_OLD, LOSSY, Settings, WIFI_GOOD, Way};
pub use space::Namespace;
