CREATE TABLE file (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    purpose TEXT NOT NULL,
    filename TEXT NOT NULL,
    num_bytes INTEGER NOT NULL,
    created_s INTEGER NOT NULL,
    expires_s INTEGER
);
CREATE INDEX file_of_tenant ON file (tenant, key);
CREATE INDEX file_by_expiry ON file (expires_s) WHERE expires_s IS NOT NULL;

CREATE TABLE batch (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    dialect TEXT NOT NULL,
    idempotency_key TEXT,
    spec TEXT NOT NULL,
    status TEXT NOT NULL,
    model TEXT,
    created_s REAL NOT NULL,
    deadline_s REAL NOT NULL,
    marks TEXT NOT NULL DEFAULT '{}',
    errors TEXT NOT NULL DEFAULT '[]',
    total INTEGER NOT NULL DEFAULT 0,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    expired INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    steward TEXT NOT NULL DEFAULT '',
    steward_until_s REAL NOT NULL DEFAULT 0,
    is_tidy INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX batch_of_tenant ON batch (tenant, key);
CREATE INDEX batch_by_status ON batch (status);
CREATE UNIQUE INDEX batch_by_idempotency ON batch (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- One row a line; what it says stays in the input file. About 40 bytes.
CREATE TABLE item (
    batch INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    start INTEGER NOT NULL,
    num_bytes INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 1,
    attempt INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, idx)
) WITHOUT ROWID;
-- Only open lines: who waits, by turn, and who is leased.
CREATE INDEX item_open ON item (batch, state, rank) WHERE state < 3;

-- key = batch << 32 | idx: rows lie in output order.
CREATE TABLE result (
    key INTEGER PRIMARY KEY,
    is_success INTEGER NOT NULL,
    line TEXT NOT NULL,
    provenance TEXT NOT NULL
);

-- One a worker. A line's fence is lease << 32 | the number of the claim under it: no two claims share one.
CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL UNIQUE,
    until_s REAL NOT NULL,
    num_claims INTEGER NOT NULL
);
