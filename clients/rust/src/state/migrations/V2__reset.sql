-- That the mailbox could not be continued, until the application has taken note of it: 1 trimmed, 2 another log. NULL: nothing to tell.
ALTER TABLE device ADD COLUMN reset INTEGER;
