"""Every end of a request reaches the exporter once: finished, refused, failed, left."""

import openai
import pytest

from speciate.core.output import Finish
from speciate.core.request import EmbedRequest, GenerateRequest

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}


class Recorder:
    """A `RequestExporter` that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def finished(self, request: GenerateRequest, finish: Finish) -> None:
        self.told.append((request.operation, finish.tier.value, finish.reason.value))

    def failed(self, request: GenerateRequest, code: str, now_s: float) -> None:
        assert now_s >= request.arrival_s
        self.told.append((request.operation, request.segment.tier.value, code))

    def embedded(self, request: EmbedRequest, num_tokens: int, now_s: float) -> None:
        self.told.append(("embeddings", request.segment.tier.value, str(num_tokens)))

    def close(self) -> None:
        pass


@pytest.fixture
def recorded(start_server):
    def start(**more):
        server = start_server(**more)
        server.metrics.exporter = recorder = Recorder()
        return server, recorder.told

    return start


def test_finished_requests_by_operation_and_tier(recorded):
    server, told = recorded()
    client = server.openai()
    client.chat.completions.create(**CHAT, service_tier="priority")
    client.completions.create(model="fake", prompt="hi", max_tokens=2)
    client.embeddings.create(model="fake-embed", input="four")
    assert told == [("chat", "realtime", "stop"), ("text_completion", "interactive", "length"),
                    ("embeddings", "interactive", "4")]  # fmt: skip


def test_refusals_and_failures_have_their_code(recorded, tiny_queues):
    server, told = recorded(limits=tiny_queues)
    with pytest.raises(openai.RateLimitError):
        server.openai().chat.completions.create(**CHAT, service_tier="flex")
    assert told == [("chat", "batch", "rate_limit_exceeded")]
    server, told = recorded()
    server.engine.fail_next_step = True
    with pytest.raises(openai.InternalServerError):
        server.openai().chat.completions.create(**CHAT)
    assert told == [("chat", "interactive", "engine_failed")]
    assert 'speciate:requests_failed_total{code="engine_failed"' in server.metrics.render().decode()


async def test_a_caller_that_leaves_is_told(recorded, slow_steps, eventually):
    server, told = recorded(cost=slow_steps)
    async with server.async_openai() as client:
        asked = {**CHAT, "messages": [{"role": "user", "content": "count 900"}]}
        stream = await client.chat.completions.create(**asked, stream=True)
        await anext(aiter(stream))
        await stream.close()
    await eventually(lambda: bool(told))
    assert told == [("chat", "interactive", "cancelled")]
