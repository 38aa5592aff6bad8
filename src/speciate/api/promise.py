"""What is promised to a call: its segment, its tenant, and until when an answer is of use."""

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from speciate.api.call import Call, Services
from speciate.api.sampling import SamplingFields
from speciate.api.tiers import tier_asked
from speciate.core.errors import InvalidRequest
from speciate.core.segment import Segment, Slo, Tier

_TRACE_PARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Promise(Struct, frozen=True):
    """The part of a core request that does not come from the model or the prompt."""

    segment: Segment
    arrival_s: float
    deadline_s: float | None
    may_downgrade: bool
    tenant: str
    trace_parent: str | None


def promise_of(
    services: Services, call: Call, model_name: str, fields: SamplingFields, *, may_use_read_timeout: bool
) -> Promise:
    """The tier is the caller's wish or the model's default, its promise the model's. A stream keeps its reader alive
    with heartbeats, so a read timeout is a deadline only for whole answers. Raises ModelNotFound."""
    model, now_s = services.gateway.find(model_name), services.gateway.now_s()
    tier = tier_asked(fields.service_tier, fields.priority, call.headers) or model.default_tier
    return Promise(
        segment=model.segments[tier] if call.batch_window_s is None else _line_of(model.segments, call.batch_window_s),
        arrival_s=now_s,
        deadline_s=_deadline_s(call, now_s, may_use_read_timeout),
        may_downgrade=call.headers.get(b"x-speciate-allow-downgrade", b"").lower() in (b"true", b"1"),
        tenant=call.tenant or fields.safety_identifier or fields.user or "default",
        trace_parent=_trace_parent(call),
    )


def _line_of(segments: Mapping[Tier, Segment], window_s: float) -> Segment:
    """The batch tier with the batch's own window."""
    row = segments[Tier.BATCH]
    return msgspec.structs.replace(row, slo=Slo(e2e_s=window_s, share=row.slo.share))


def _trace_parent(call: Call) -> str | None:
    """What is not one is ignored, as its specification says."""
    sent = call.headers.get(b"traceparent")
    return sent.decode() if sent is not None and _TRACE_PARENT.fullmatch(sent) else None


def _deadline_s(call: Call, now_s: float, may_use_read_timeout: bool) -> float | None:
    own = call.headers.get(b"x-speciate-deadline-ms")
    if own is not None:
        return now_s + _positive(own, "x-speciate-deadline-ms") / 1000
    hint = call.headers.get(b"x-stainless-read-timeout")
    if hint is not None and may_use_read_timeout:
        return _hinted_s(hint, now_s)
    return None


def _positive(value: bytes, header: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0.0 < number < 1e12:
        raise InvalidRequest(
            f"Header {header} is {value.decode('latin-1')!r}; it takes a positive number of milliseconds.", param=header
        )
    return number


def _hinted_s(value: bytes, now_s: float) -> float | None:
    """The official clients write their read timeout here, or a word where they have none."""
    try:
        number = float(value)
    except ValueError:
        return None
    return now_s + number if 0.0 < number < 1e9 else None
