-- How far the clients of a user have got that keep no position of their own. Written when they have; the log does not know it.
CREATE TABLE position (
    user INTEGER PRIMARY KEY NOT NULL,
    seq  INTEGER NOT NULL
) STRICT;
