-- For how long a lease was last given: its full time, which it gets again after this server, or the clock, was away.

ALTER TABLE stream ADD COLUMN lease_ms INTEGER;
