-- The log is the truth; every other table can be made again from it, except `meta` and the cursors of devices.
-- What is written late is complete up to `meta.tail` at least; what lies behind it is made again from the log at start.

PRAGMA application_id = 0x5768626c; -- "Whbl"

-- epoch: which life of the log this is.        tail: every record before this position is in all tables.
-- identity: the file this was last opened as.  copy: 1 in a backup, until it is opened.
-- settled: rises when a commit is wanted for its own sake.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Append-only. `recipients`: varints, (user, number in that user's mailbox)*.
CREATE TABLE log (
    pos        INTEGER PRIMARY KEY NOT NULL,
    time       INTEGER NOT NULL,
    kind       INTEGER NOT NULL,
    body       BLOB NOT NULL,
    recipients BLOB NOT NULL
) STRICT;

-- Written at once: they are rare.
CREATE TABLE user (
    user INTEGER PRIMARY KEY NOT NULL,
    id   TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE direct (
    one          INTEGER NOT NULL, -- one <= other
    other        INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    PRIMARY KEY (one, other)
) STRICT, WITHOUT ROWID;

CREATE TABLE member (
    user         INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    PRIMARY KEY (user, conversation)
) STRICT, WITHOUT ROWID;

-- Inserted at once, then written late: the state as of `upto` (not included), and the open chunk of the index.
-- `members`: varints, (user, sent, delivered, read)*. `positions`: varints, a position and then differences; `first` is the number
-- of the first of them.
CREATE TABLE conversation (
    conversation INTEGER PRIMARY KEY NOT NULL,
    kind         INTEGER NOT NULL,
    started      INTEGER NOT NULL, -- position of the record that began it
    upto         INTEGER NOT NULL,
    head         INTEGER NOT NULL,
    time         INTEGER NOT NULL,
    members      BLOB NOT NULL,
    first        INTEGER NOT NULL,
    positions    BLOB NOT NULL
) STRICT;

-- Full chunks: never changed again. Few rows are open, so what is written often lies close together.
CREATE TABLE conversation_chunk (
    conversation INTEGER NOT NULL,
    first        INTEGER NOT NULL,
    positions    BLOB NOT NULL,
    PRIMARY KEY (conversation, first)
) STRICT, WITHOUT ROWID;

-- Written late. Entries up to `floor` are gone.
CREATE TABLE mailbox (
    user      INTEGER PRIMARY KEY NOT NULL,
    floor     INTEGER NOT NULL,
    first     INTEGER NOT NULL,
    positions BLOB NOT NULL
) STRICT;

CREATE TABLE mailbox_chunk (
    user      INTEGER NOT NULL,
    first     INTEGER NOT NULL,
    positions BLOB NOT NULL,
    PRIMARY KEY (user, first)
) STRICT, WITHOUT ROWID;

-- Written late. device = user * 32 + slot. `commands`: (varint position or difference, 8 bytes of nonce)*, the newest; those before
-- them lie in `device_commands`, each chunk under the position of its first.
CREATE TABLE device (
    device      INTEGER PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    applied     INTEGER NOT NULL,
    cursor      INTEGER NOT NULL,
    upto        INTEGER NOT NULL,
    commands    BLOB NOT NULL
) STRICT;

CREATE TABLE device_commands (
    device   INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    commands BLOB NOT NULL,
    PRIMARY KEY (device, first)
) STRICT, WITHOUT ROWID;
