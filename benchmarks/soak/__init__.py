"""Does memory stay flat? Mixed traffic for twenty minutes against a real server; resident size every few seconds."""
