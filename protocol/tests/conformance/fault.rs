//! Faults to plant, so that it is known that the checker sees them.

/// One thing that a server or a device does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Server: says that a command is applied when it has only come in.
    AppliesBeforeCommit,
    /// Server: carries out a command again that comes again under the same number.
    CountsRepeats,
    /// Server: does not remember nonces beyond an outbox.
    ForgetsNonces,
    /// Server: lets a session write that a newer one has replaced, and takes whatever stands at a number for that number's command.
    DoesNotFence,
    /// Server: leaves out an event now and then.
    LosesEvents,
    /// Server: does not compare the time at a cursor.
    ForgetsTime,
    /// Server: does not say the time of the entry at which a session begins.
    BeginsWithoutTime,
    /// Device: sends a command, then stores it.
    SendsBeforeStoring,
    /// Device: acknowledges events, then stores them.
    AcksBeforeStoring,
    /// Device: stores the position, then the events that it covers.
    StoresPositionFirst,
    /// Device: gives commands new nonces when it numbers them anew.
    ChangesNonces,
    /// Device: tells nobody that the server has another outbox.
    KeepsSilent,
    /// Device: hands out events that it had.
    TakesDoubles,
    /// Device: hands out events before their turn.
    TakesEarly,
}
