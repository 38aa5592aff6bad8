"""The front door: HTTP dialects in, core types out, and back. Read `app.py` first, then one file a dialect."""
