"""/v1/embeddings: vectors as base64 of little-endian float32 (what the official client asks for) or as numbers."""

import array
import asyncio
import base64
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from speciate.api.body import decode_body
from speciate.api.call import BytesReply, Call, Reply, Services, new_id
from speciate.api.promise import promise_of
from speciate.api.prompt import encode
from speciate.api.sampling import Name, Positive, SamplingFields
from speciate.api.tiers import WORD_OF_TIER
from speciate.core.errors import ContextLengthExceeded, DeadlineExceeded, InvalidRequest
from speciate.core.output import Embeddings
from speciate.core.request import EmbedRequest
from speciate.runtime.gateway import ServedModel

MAX_INPUTS = 2048

TokenId = Annotated[int, Meta(ge=0)]


class EmbeddingsBody(SamplingFields, kw_only=True):
    model: Name
    input: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Positive | None = None


class EmbeddingRow(Struct, frozen=True):
    index: int
    embedding: str | list[float]
    object: str = "embedding"


class EmbeddingsUsage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Struct, frozen=True):
    data: list[EmbeddingRow]
    model: str
    usage: EmbeddingsUsage
    service_tier: str
    object: str = "list"


_DECODER = msgspec.json.Decoder(EmbeddingsBody)
_encode_json = msgspec.json.Encoder().encode


async def create_embeddings(services: Services, call: Call) -> Reply:
    body = decode_body(_DECODER, call.body)
    model = services.gateway.find(body.model)
    promise = promise_of(services, call, body.model, body, may_use_read_timeout=True)
    request = EmbedRequest(
        request_id=new_id("emb-"),
        model=model.name,
        inputs=await _inputs(model, body),
        segment=promise.segment,
        arrival_s=promise.arrival_s,
        dimensions=body.dimensions,
        tenant=promise.tenant,
        deadline_s=promise.deadline_s,
    )
    vectors = await _embed_in_time(services, request)
    tier = [(b"x-speciate-tier", vectors.tier.value.encode())]
    return BytesReply(_encode_json(_answer(body, vectors)), headers=lambda: tier)


async def _embed_in_time(services: Services, request: EmbedRequest) -> Embeddings:
    allowed_s = None if request.deadline_s is None else max(request.deadline_s - services.gateway.now_s(), 0.0)
    try:
        async with asyncio.timeout(allowed_s):
            return await services.gateway.embed(request)
    except TimeoutError as e:
        raise DeadlineExceeded("The deadline of the request passed before its vectors were made.") from e


def _answer(body: EmbeddingsBody, vectors: Embeddings) -> EmbeddingsAnswer:
    written = _base64 if body.encoding_format == "base64" else _floats
    return EmbeddingsAnswer(
        data=[EmbeddingRow(i, written(vector)) for i, vector in enumerate(vectors.vectors)],
        model=body.model,
        usage=EmbeddingsUsage(vectors.prompt_tokens, vectors.prompt_tokens),
        service_tier=WORD_OF_TIER[vectors.tier],
    )


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _floats(vector: bytes) -> list[float]:
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


async def _inputs(model: ServedModel, body: EmbeddingsBody) -> tuple[tuple[int, ...], ...]:
    """Token rows. Raises InvalidRequest for mixed kinds, ContextLengthExceeded for one that is too long."""
    given: Sequence[str | int | list[int]] = [body.input] if isinstance(body.input, str) else body.input
    if all(isinstance(item, int) for item in given):
        given = [[item for item in given if isinstance(item, int)]]
    if len(given) > MAX_INPUTS:
        raise InvalidRequest(f"input has {len(given)} entries; at most {MAX_INPUTS} are read at once.", param="input")
    return tuple([await _row(model, item, f"input[{i}]") for i, item in enumerate(given)])


async def _row(model: ServedModel, item: str | int | list[int], path: str) -> tuple[int, ...]:
    if model.text is None:
        raise InvalidRequest(f"{model.name} draws pictures and makes no embeddings.", param="model")
    if isinstance(item, int):
        raise InvalidRequest("input mixes token ids with texts or token lists; send one kind.", param="input")
    if isinstance(item, str):
        tokens = await encode(model.text.tokenizer, item, add_special=True)
    else:
        tokens = tuple(item)
    if not tokens:
        raise InvalidRequest(f"{path} is empty; every input needs at least one token.", param="input")
    if len(tokens) > model.context_tokens:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {model.context_tokens} tokens. However, {path} has "
            f"{len(tokens)} tokens. Shorten it.",
            param="input",
        )
    return tokens
