"""/v1/completions: text after text, and text between texts (`suffix`) for code."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from speciate.api.call import BytesReply, Call, Reply, Services, new_id
from speciate.api.chat import error_frame
from speciate.api.completions_body import CompletionBody, Prompt, completion_grammar, decode_completion, prompts_of
from speciate.api.fingerprint import FINGERPRINT
from speciate.api.logprobs import LegacyLogprobs, legacy_logprobs
from speciate.api.promise import promise_of
from speciate.api.prompt import encode, fill_in_tokens
from speciate.api.sampling import output_budget, sampling_params, stop_rules
from speciate.api.sse import DONE, EventStream
from speciate.api.streams import choice_events, whole_answers
from speciate.api.submit import choice_requests, find_text_model
from speciate.api.tiers import WORD_OF_TIER
from speciate.api.turn import answer_headers
from speciate.api.usage import CompletionUsage, served_tier, usage_of
from speciate.core.output import Delta, Finish, Whole
from speciate.core.request import GenerateRequest, StopRules
from speciate.core.segment import Tier
from speciate.models.text_model import TextModel
from speciate.runtime.gateway import Submission


class CompletionChoice(Struct, frozen=True):
    text: str
    index: int
    logprobs: LegacyLogprobs | None
    finish_reason: str | None


class CompletionAnswer(Struct, frozen=True):
    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None
    service_tier: str
    system_fingerprint: str = FINGERPRINT
    object: str = "text_completion"


class Job(Struct, frozen=True):
    """All choices of all prompts of one body; the choices of a prompt lie side by side."""

    answer_id: str
    created: int
    body: CompletionBody
    echoes: list[str]
    """What each choice's text begins with: its prompt, or nothing."""
    submissions: list[Submission]

    @property
    def tier(self) -> Tier:
        return self.submissions[0].tier

    def usage(self, finishes: list[Finish]) -> CompletionUsage:
        return usage_of(finishes, choices_per_prompt=self.body.n or 1)


_encode = msgspec.json.Encoder().encode


async def create_completion(services: Services, call: Call) -> Reply:
    body = decode_completion(call.body)
    job = await _open(services, call, body)
    if not body.stream:
        return await _whole(job)
    return EventStream(
        _frames(job),
        error_frame,
        heartbeat_s=services.options.heartbeat_s,
        write_stall_s=services.options.write_stall_s,
        headers=answer_headers(job.tier, job.submissions),
    )


async def _open(services: Services, call: Call, body: CompletionBody) -> Job:
    model, text = find_text_model(services.gateway, body.model)
    promise = promise_of(services, call, body.model, body, may_use_read_timeout=not body.stream)
    answer_id, num_choices = new_id("cmpl-"), body.n or 1
    sampling = sampling_params(body, text.default_sampling, body.logprobs)
    grammar = completion_grammar(body)
    requests: list[GenerateRequest] = []
    echoes: list[str] = []
    for place, prompt in enumerate(prompts_of(body)):
        tokens = await _prompt_tokens(text, prompt, body.suffix)
        max_tokens = output_budget(len(tokens), body.max_tokens, model.context_tokens, "prompt")
        requests += choice_requests(
            f"{answer_id}-{place}",
            model,
            tokens,
            promise,
            sampling,
            _stopping(text, body, max_tokens),
            grammar,
            num_choices=num_choices,
            skip_special_tokens=body.skip_special_tokens is not False,
            operation="text_completion",
        )
        echoes += [_echo(text, prompt) if body.echo else ""] * num_choices
    submissions = await services.gateway.submit(requests)
    return Job(answer_id, int(time.time()), body, echoes, submissions)


def _stopping(text: TextModel, body: CompletionBody, max_tokens: int) -> StopRules:
    """A middle also ends where the family's own marks end it."""
    rules = stop_rules(body, max_tokens)
    if not body.suffix or text.fim is None:
        return rules
    ends = text.fim.end_ids(text.tokenizer)
    return msgspec.structs.replace(rules, stop_token_ids=(*rules.stop_token_ids, *ends))


async def _prompt_tokens(text: TextModel, prompt: Prompt, suffix: str | None) -> tuple[int, ...]:
    if suffix:
        before = prompt if isinstance(prompt, str) else text.tokenizer.decode(tuple(prompt))
        return await fill_in_tokens(text, before, suffix)
    if isinstance(prompt, str):
        return await encode(text.tokenizer, prompt, add_special=True)
    return tuple(prompt)


def _echo(text: TextModel, prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else text.tokenizer.decode(tuple(prompt))


async def _whole(job: Job) -> Reply:
    wholes = await whole_answers(job.submissions)
    finishes = [whole.finish for whole in wholes]
    tier = served_tier(finishes)
    choices = [_choice(job, i, whole) for i, whole in enumerate(wholes)]
    answer = _answer(job, choices, job.usage(finishes), tier)
    return BytesReply(_encode(answer), headers=lambda: answer_headers(tier, job.submissions))


def _choice(job: Job, index: int, whole: Whole) -> CompletionChoice:
    logprobs = None if job.body.logprobs is None else legacy_logprobs(whole.logprobs, 0)
    return CompletionChoice(job.echoes[index] + whole.text, index, logprobs, whole.finish.reason.value)


def _answer(job: Job, choices: list[CompletionChoice], usage: CompletionUsage | None, tier: Tier) -> CompletionAnswer:
    return CompletionAnswer(job.answer_id, job.created, job.body.model, choices, usage, WORD_OF_TIER[tier])


async def _frames(job: Job) -> AsyncGenerator[bytes, None]:
    writers = [_ChoiceWriter(job, i) for i in range(len(job.submissions))]
    finishes: dict[int, Finish] = {}
    async with aclosing(choice_events(job.submissions)) as events:
        async for choice_event in events:
            writer, event = writers[choice_event.index], choice_event.event
            if isinstance(event, Finish):
                finishes[choice_event.index] = event
                yield writer.finish(event)
            elif event.text or event.logprobs:
                yield writer.delta(event)
    options = job.body.stream_options
    if options is not None and options.include_usage:
        in_order = [finishes[i] for i in range(len(writers))]
        yield b"data: %b\n\n" % _encode(_answer(job, [], job.usage(in_order), served_tier(in_order)))
    yield DONE


class _ChoiceWriter:
    """Chunks of one choice, from a template: only the text between is encoded."""

    def __init__(self, job: Job, index: int) -> None:
        self._job = job
        self._index = index
        self._echo = job.echoes[index]
        self._num_chars = 0
        before, after = _encode(self._chunk_of(job.tier, "\0", None, None)).rsplit(b'"\\u0000"', 1)
        self._before, self._after = b"data: " + before, after + b"\n\n"

    def delta(self, delta: Delta) -> bytes:
        echo, self._echo = self._echo, ""
        if self._job.body.logprobs is None:
            return self._before + _encode(echo + delta.text) + self._after
        logprobs = legacy_logprobs(delta.logprobs, self._num_chars)
        self._num_chars += sum(len(token) for token in logprobs.tokens)
        return b"data: %b\n\n" % _encode(self._chunk_of(self._job.tier, echo + delta.text, logprobs, None))

    def finish(self, finish: Finish) -> bytes:
        return b"data: %b\n\n" % _encode(self._chunk_of(finish.tier, self._echo, None, finish.reason.value))

    def _chunk_of(
        self, tier: Tier, text: str, logprobs: LegacyLogprobs | None, finish_reason: str | None
    ) -> CompletionAnswer:
        return _answer(self._job, [CompletionChoice(text, self._index, logprobs, finish_reason)], None, tier)
