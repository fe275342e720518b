-- since: the record by which the device took its slot. Commands before it are of the devices that had the slot before.
ALTER TABLE device ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
