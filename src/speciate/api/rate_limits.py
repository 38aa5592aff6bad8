"""What a tier still takes, as OpenAI's `x-ratelimit-*` headers: clients pace themselves by them."""

from speciate.core.admission import Allowance, Room

RATE_LIMIT_NAMES = tuple(
    f"x-ratelimit-{fact}-{what}" for what in ("requests", "tokens") for fact in ("limit", "remaining", "reset")
)


def rate_limit_headers(room: Room) -> list[tuple[bytes, bytes]]:
    """Limit, remaining and time to reset, of requests and of prompt tokens."""
    return [*_of(b"requests", room.requests), *_of(b"tokens", room.tokens)]


def _of(what: bytes, allowance: Allowance) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit-" + what, b"%d" % allowance.limit),
        (b"x-ratelimit-remaining-" + what, b"%d" % allowance.remaining),
        (b"x-ratelimit-reset-" + what, duration(allowance.reset_s)),
    ]


def duration(seconds: float) -> bytes:
    """As OpenAI writes it (Go's notation): 8ms, 1.25s, 2m0s."""
    ms = max(0, round(seconds * 1000))
    if ms < 1000:
        return b"%dms" % ms
    if ms < 60_000:
        return b"%gs" % (ms / 1000)
    return b"%dm%ds" % divmod(round(seconds), 60)
