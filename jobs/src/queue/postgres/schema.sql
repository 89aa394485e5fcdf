-- The queue on PostgreSQL, version 1. Applied once, in one transaction, by whoever opens the database first, who goes on to the last version.

CREATE TABLE nightshift_schema (version integer NOT NULL);
INSERT INTO nightshift_schema VALUES (1);

-- The one clock of the queue: every comparison of times asks it.
CREATE FUNCTION nightshift_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()';

CREATE TABLE nightshift_jobs (
    id bytea PRIMARY KEY CHECK (octet_length(id) = 16),
    tenant text NOT NULL,
    idempotency_key text NOT NULL,
    manifest bytea NOT NULL CHECK (octet_length(manifest) = 32),
    priority smallint NOT NULL,
    deadline_unix_ms bigint,
    memory_bytes bigint NOT NULL CHECK (memory_bytes >= 0),
    scratch_bytes bigint NOT NULL CHECK (scratch_bytes >= 0),
    tasks integer NOT NULL CHECK (tasks BETWEEN 1 AND 65536),
    submitted timestamptz NOT NULL,
    generation integer NOT NULL DEFAULT 0,
    -- 0 open, 1 done, 2 failed, 3 cancelled.
    state smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 3),
    -- BATCH.EPOCH of the commit that ended it.
    ended_by text,
    done integer NOT NULL DEFAULT 0 CHECK (done BETWEEN 0 AND tasks),
    failure text,
    is_sealed boolean NOT NULL DEFAULT false,
    UNIQUE (tenant, idempotency_key)
);
CREATE INDEX nightshift_jobs_open ON nightshift_jobs (priority DESC, submitted) WHERE state = 0;
CREATE INDEX nightshift_jobs_unsealed ON nightshift_jobs (submitted) WHERE state IN (1, 2) AND NOT is_sealed;
CREATE INDEX nightshift_jobs_submitted ON nightshift_jobs (submitted DESC, id);

CREATE TABLE nightshift_tasks (
    job bytea NOT NULL REFERENCES nightshift_jobs ON DELETE CASCADE,
    batch integer NOT NULL,
    -- 0 queued, 1 leased, 2 done, 3 given up.
    state smallint NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 3),
    -- The last epoch given out; 0 before the first.
    epoch integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    due timestamptz NOT NULL,
    expires timestamptz,
    worker text,
    -- How the holder of this epoch ended it: done, failed, retry, released; null while it is held, or when it ran out.
    ended text,
    delay_ms bigint NOT NULL DEFAULT 0,
    output_digest bytea CHECK (octet_length(output_digest) = 32),
    output_bytes bigint,
    report text,
    failure text,
    PRIMARY KEY (job, batch)
);
CREATE INDEX nightshift_tasks_queued ON nightshift_tasks (job, batch) WHERE state = 0;
CREATE INDEX nightshift_tasks_leased ON nightshift_tasks (expires) WHERE state = 1;
