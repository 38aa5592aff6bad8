CREATE TABLE file (
    key BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    purpose TEXT NOT NULL,
    filename TEXT NOT NULL,
    num_bytes BIGINT NOT NULL,
    created_s BIGINT NOT NULL,
    expires_s BIGINT
);
CREATE INDEX file_of_tenant ON file (tenant, key);
CREATE INDEX file_by_expiry ON file (expires_s) WHERE expires_s IS NOT NULL;

CREATE TABLE batch (
    key BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    dialect TEXT NOT NULL,
    idempotency_key TEXT,
    spec TEXT NOT NULL,
    status TEXT NOT NULL,
    model TEXT,
    created_s DOUBLE PRECISION NOT NULL,
    deadline_s DOUBLE PRECISION NOT NULL,
    marks TEXT NOT NULL DEFAULT '{}',
    errors TEXT NOT NULL DEFAULT '[]',
    total BIGINT NOT NULL DEFAULT 0,
    completed BIGINT NOT NULL DEFAULT 0,
    failed BIGINT NOT NULL DEFAULT 0,
    cancelled BIGINT NOT NULL DEFAULT 0,
    expired BIGINT NOT NULL DEFAULT 0,
    input_tokens BIGINT NOT NULL DEFAULT 0,
    cached_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    reasoning_tokens BIGINT NOT NULL DEFAULT 0,
    steward TEXT NOT NULL DEFAULT '',
    steward_until_s DOUBLE PRECISION NOT NULL DEFAULT 0,
    is_tidy INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX batch_of_tenant ON batch (tenant, key);
CREATE INDEX batch_by_status ON batch (status);
CREATE UNIQUE INDEX batch_by_idempotency ON batch (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- One row a line; what it says stays in the input file.
CREATE TABLE item (
    batch BIGINT NOT NULL,
    idx INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    start BIGINT NOT NULL,
    num_bytes INTEGER NOT NULL,
    state SMALLINT NOT NULL DEFAULT 1,
    attempt INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    fence BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, idx)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
-- Only open lines: who waits, by turn, and who is leased.
CREATE INDEX item_open ON item (batch, state, rank) WHERE state < 3;

CREATE TABLE result (
    batch BIGINT NOT NULL,
    idx INTEGER NOT NULL,
    is_success INTEGER NOT NULL,
    line TEXT NOT NULL,
    provenance TEXT NOT NULL,
    PRIMARY KEY (batch, idx)
);

-- One a worker. A line's fence is lease << 32 | the number of the claim under it: no two claims share one.
CREATE TABLE lease (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner TEXT NOT NULL UNIQUE,
    until_s DOUBLE PRECISION NOT NULL,
    num_claims BIGINT NOT NULL
);
