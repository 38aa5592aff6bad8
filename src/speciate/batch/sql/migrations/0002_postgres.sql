-- SQLite uses a partial index only where its very condition stands in a statement: one index a state of open lines.
DROP INDEX item_open;
CREATE INDEX item_suspect ON item (batch, deaths, rank) WHERE state = 0;
CREATE INDEX item_pending ON item (batch, rank) WHERE state = 1;
CREATE INDEX item_leased ON item (batch, rank) WHERE state = 2;
