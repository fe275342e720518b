-- Commands that were carried out and whose outcome will not be told, until the application has taken note of that. No longer in the
-- outbox: a new one may use their numbers.
CREATE TABLE untold (
    nonce       BLOB    PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    cseq        INTEGER NOT NULL,
    command     BLOB    NOT NULL
) STRICT;

-- That the outbox and the server contradicted each other, until the application has taken note of it; of each kind the newest.
-- 1: the outbox is older, 2: another command, 3: the server is older, 4: another outbox. What the numbers say depends on it.
CREATE TABLE disagreements (
    kind   INTEGER PRIMARY KEY,
    server INTEGER NOT NULL,
    ours   INTEGER NOT NULL
) STRICT;
