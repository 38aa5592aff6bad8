"""Settings of the front door."""

from msgspec import Struct


class ApiKey(Struct, frozen=True):
    """A secret and whose it is."""

    key: str
    tenant: str = "default"


class ApiOptions(Struct, frozen=True):
    """How requests are read, and how long clients may take."""

    api_keys: tuple[ApiKey, ...] = ()
    """Empty: everybody may enter."""
    max_body_bytes: int = 8 * 1024 * 1024
    heartbeat_s: float = 15.0
    """A comment is sent on a stream that has been silent this long, before the first token too."""
    write_stall_s: float = 60.0
    """A client that takes nothing for this long is given up, and its work stops."""
    max_stored_responses: int = 1024
    """Responses kept in memory for `previous_response_id` and retrieval; the oldest finished one leaves first."""
    max_background_responses: int = 256
    """Responses that may be running in the background at once; more are refused with 429."""
    cors_origins: tuple[str, ...] = ()
    """Browser origins that may call; empty sends no CORS headers."""
