"""From what a dialect wants to core requests."""

from typing import Literal

import msgspec

from speciate.api.ports import Gateway
from speciate.api.promise import Promise
from speciate.core.errors import InvalidRequest
from speciate.core.request import GenerateRequest, Grammar, SamplingParams, StopRules
from speciate.models.text_model import TextModel
from speciate.runtime.gateway import ServedModel

MAX_SEQUENCES = 128
"""Sequences that one HTTP request may start: choices times prompts."""


def find_text_model(gateway: Gateway, name: str) -> tuple[ServedModel, TextModel]:
    """Raises ModelNotFound, or InvalidRequest where the model makes no text."""
    model = gateway.find(name)
    if model.kind != "generate" or model.text is None:
        raise InvalidRequest(f"Model {name!r} does not generate text.", param="model")
    return model, model.text


def choice_requests(
    answer_id: str,
    model: ServedModel,
    prompt_tokens: tuple[int, ...],
    promise: Promise,
    sampling: SamplingParams,
    stopping: StopRules,
    grammar: Grammar | None,
    *,
    num_choices: int,
    skip_special_tokens: bool,
    operation: Literal["chat", "text_completion"] = "chat",
) -> list[GenerateRequest]:
    """One request a choice; a seed is moved on for each, or all choices would be the same."""
    return [
        GenerateRequest(
            request_id=f"{answer_id}-{index}",
            model=model.name,
            prompt_tokens=prompt_tokens,
            segment=promise.segment,
            arrival_s=promise.arrival_s,
            sampling=_moved_seed(sampling, index),
            stopping=stopping,
            grammar=grammar,
            adapter=model.adapter,
            tenant=promise.tenant,
            deadline_s=promise.deadline_s,
            may_downgrade=promise.may_downgrade,
            skip_special_tokens=skip_special_tokens,
            operation=operation,
            trace_parent=promise.trace_parent,
        )
        for index in range(num_choices)
    ]


def _moved_seed(sampling: SamplingParams, index: int) -> SamplingParams:
    if sampling.seed is None or index == 0:
        return sampling
    return msgspec.structs.replace(sampling, seed=sampling.seed + index)
