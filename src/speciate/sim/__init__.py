"""The production decisions under a virtual clock. Knows schedulers and admission; no engine, network or real time."""
