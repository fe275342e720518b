-- What messages carry beside their text: a list in postcard, empty where there is none.
ALTER TABLE messages ADD COLUMN extensions BLOB NOT NULL DEFAULT x'';
