-- Runs are listed apart from other streams, which can be many more.

CREATE INDEX stream_of_run ON stream (tenant, owner, id) WHERE run IS NOT NULL;
