-- What a server executes for a stream: a run's specification, NULL for a stream that somebody else produces.

ALTER TABLE stream ADD COLUMN run TEXT;

CREATE INDEX stream_of_active_run ON stream (id) WHERE run IS NOT NULL AND ended_ms IS NULL;
