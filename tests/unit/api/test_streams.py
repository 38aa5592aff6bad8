"""Reading several submissions as one: order inside a choice, errors, cancellation, backpressure."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from speciate.admission.admit import AdmissionOptions, Demand
from speciate.api.streams import ChoiceEvent, choice_events, whole_answers
from speciate.core.errors import EngineFailed
from speciate.core.output import Delta, Finish, FinishReason, OutputEvent, Timeline, Usage, Whole
from speciate.core.replica import ReplicaLoad
from speciate.core.request import GenerateRequest, SamplingParams, StopRules
from speciate.core.segment import Segment, Slo, Tier
from speciate.runtime.gateway import Admission, Submission

FINISH = Finish(FinishReason.STOP, Usage(1, 2), Timeline(0, 0, 0, 0), Tier.INTERACTIVE)

SEGMENT = Segment("chat", Tier.INTERACTIVE, Slo())
REQUEST = GenerateRequest("r", "m", (1,), SEGMENT, 0.0, SamplingParams(), StopRules(1))
ADMISSION = Admission(Tier.INTERACTIVE, Demand(SEGMENT, 1, 1), ReplicaLoad({}, 0, 0), AdmissionOptions())


class Source:
    """A submission that counts what was taken from it and knows whether it was closed."""

    def __init__(self, texts: list[str], error: Exception | None = None, pause_s: float = 0.0) -> None:
        self.num_taken = 0
        self.is_closed = False
        self._texts = texts
        self._error = error
        self._pause_s = pause_s

    def submission(self) -> Submission:
        return Submission(REQUEST, self, ADMISSION)

    async def complete(self, request: GenerateRequest) -> Whole:
        async with aclosing(self.generate(request)) as events:
            text = "".join([event.text async for event in events if isinstance(event, Delta)])
        return Whole(text, (), (), FINISH)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[OutputEvent, None]:
        try:
            for text in self._texts:
                await asyncio.sleep(self._pause_s)
                self.num_taken += 1
                yield Delta(text)
            if self._error is not None:
                raise self._error
            yield FINISH
        finally:
            self.is_closed = True


async def _read_all(events: AsyncGenerator[ChoiceEvent, None]) -> list[ChoiceEvent]:
    async with aclosing(events):
        return [event async for event in events]


@pytest.mark.parametrize("num_choices", [1, 3])
async def test_every_choice_comes_whole_and_in_order(num_choices: int) -> None:
    sources = [Source([f"{i}a", f"{i}b"]) for i in range(num_choices)]
    texts = [""] * num_choices
    async with aclosing(choice_events([s.submission() for s in sources])) as events:
        async for e in events:
            if isinstance(e.event, Delta):
                texts[e.index] += e.event.text
    assert texts == [f"{i}a{i}b" for i in range(num_choices)]
    assert all(s.is_closed for s in sources)


@pytest.mark.parametrize("num_choices", [1, 3])
async def test_leaving_closes_all(num_choices: int) -> None:
    sources = [Source(["a"] * 100) for _ in range(num_choices)]
    async with aclosing(choice_events([s.submission() for s in sources])) as events:
        await anext(events)
    assert all(s.is_closed for s in sources)


async def test_an_error_ends_all() -> None:
    sources = [Source(["a"] * 100, pause_s=0.01), Source([], EngineFailed("lost"))]
    with pytest.raises(EngineFailed, match="lost"):
        await _read_all(choice_events([s.submission() for s in sources]))
    assert all(s.is_closed for s in sources)
    sources = [Source(["a"] * 100, pause_s=0.01), Source([], EngineFailed("lost"))]
    with pytest.raises(EngineFailed, match="lost"):
        await whole_answers([s.submission() for s in sources])
    assert all(s.is_closed for s in sources)


async def test_a_slow_reader_holds_its_sources_back() -> None:
    sources = [Source(["a"] * 100) for _ in range(2)]
    async with aclosing(choice_events([s.submission() for s in sources])) as events:
        await anext(events)
        await asyncio.sleep(0.05)
        assert sum(s.num_taken for s in sources) < 10


async def test_whole_answers_join_text() -> None:
    wholes = await whole_answers([Source(["a", "b"]).submission(), Source([]).submission()])
    assert [w.text for w in wholes] == ["ab", ""]
