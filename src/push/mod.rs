//! Who brings hints to devices: the engine's trait [`Push`](crate::engine::Push), implemented.

mod queue;
mod webhook;

pub use webhook::{PushError, Webhook};
