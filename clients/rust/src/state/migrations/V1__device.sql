-- One device: who it is, its outbox's state, and its cursor. `epoch`, `cursor` and `time` are NULL until it was at a server.
CREATE TABLE device (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    user          TEXT    NOT NULL,
    device        TEXT    NOT NULL,
    incarnation   INTEGER NOT NULL,
    applied       INTEGER NOT NULL,
    applied_nonce BLOB    NOT NULL,
    epoch         INTEGER,
    cursor        INTEGER,
    time          INTEGER
) STRICT;

-- What the device wants done. A row stays, as `applied`, until the event that tells its outcome was taken.
CREATE TABLE outbox (
    nonce       BLOB    PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    cseq        INTEGER NOT NULL,
    applied     INTEGER NOT NULL,
    command     BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX outbox_number ON outbox (incarnation, cseq);

CREATE TABLE conversations (
    id   INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    head INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
    conversation INTEGER NOT NULL,
    user         TEXT    NOT NULL,
    delivered    INTEGER NOT NULL,
    read         INTEGER NOT NULL,
    PRIMARY KEY (conversation, user)
) STRICT;

CREATE TABLE messages (
    conversation INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    sender       TEXT    NOT NULL,
    time         INTEGER NOT NULL,
    kind         INTEGER NOT NULL,
    text         TEXT    NOT NULL,
    PRIMARY KEY (conversation, seq)
) STRICT;

-- Pages of a snapshot that is not complete yet.
CREATE TABLE staged (
    page INTEGER PRIMARY KEY,
    body BLOB    NOT NULL
) STRICT;

-- Small things worth remembering, such as which transport worked.
CREATE TABLE notes (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
