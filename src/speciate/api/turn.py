"""Carries out a wish: prompt, budget, requests, gateway. What comes back is read by the dialect that asked."""

import time
from collections.abc import AsyncGenerator

from msgspec import Struct

from speciate.api.call import Services
from speciate.api.errors import Headers
from speciate.api.pieces import PieceFolder, PieceReader, Said
from speciate.api.promise import Promise
from speciate.api.prompt import Prompt, turn_prompt
from speciate.api.rate_limits import rate_limit_headers
from speciate.api.sampling import clamped_budget, output_budget, sampling_params, stop_rules
from speciate.api.streams import ChoiceEvent, choice_events, whole_answers
from speciate.api.submit import choice_requests, find_text_model
from speciate.api.tool_calls import bound_after_thought, grammar_of, piece_reader, shows_special_tokens
from speciate.api.wish import TurnWish
from speciate.core.output import Whole
from speciate.core.request import SamplingParams
from speciate.core.segment import Tier
from speciate.models.text_model import TextModel
from speciate.runtime.gateway import Submission


class Turn(Struct, frozen=True):
    """An admitted wish: one submission a choice."""

    answer_id: str
    created: int
    """Unix seconds."""
    wish: TurnWish
    text: TextModel
    prompt: Prompt
    sampling: SamplingParams
    submissions: list[Submission]

    @property
    def tier(self) -> Tier:
        """The tier that it was admitted in; relegation may follow."""
        return self.submissions[0].tier

    def headers(self) -> Headers:
        """Before the end: the tier of admission, and what it still takes."""
        return self.headers_in(self.tier)

    def headers_in(self, tier: Tier) -> Headers:
        """Of a whole answer, whose serving tier is known."""
        return answer_headers(tier, self.submissions)

    def reader(self) -> PieceReader:
        """A new one for each choice."""
        return piece_reader(self.text, self.wish, starts_thinking=self.prompt.starts_thinking)

    def events(self) -> AsyncGenerator[ChoiceEvent, None]:
        return choice_events(self.submissions)

    async def wholes(self) -> list[Whole]:
        return await whole_answers(self.submissions)

    def said(self, whole: Whole) -> Said:
        reader, folder = self.reader(), PieceFolder()
        for piece in (*reader.feed(whole.text), *reader.finish()):
            folder.add(piece)
        return folder.said()

    def num_tokens(self, text: str) -> int:
        """For counting reasoning, which engines do not tell apart."""
        return len(self.text.tokenizer.encode(text, False)) if text else 0


def answer_headers(tier: Tier, submissions: list[Submission]) -> Headers:
    """The tier, and what it still takes beside these."""
    limits = rate_limit_headers(submissions[0].admission.room())
    return [(b"x-speciate-tier", tier.value.encode()), *limits]


async def open_turn(services: Services, answer_id: str, wish: TurnWish, promise: Promise) -> Turn:
    """Raises what the gateway refuses, and InvalidRequest or ContextLengthExceeded for what can never run."""
    model, text = find_text_model(services.gateway, wish.model)
    prompt = await turn_prompt(text, wish)
    grammar = bound_after_thought(text, grammar_of(text, wish), prompt)
    budget = clamped_budget if wish.is_upper_bound else output_budget
    max_tokens = budget(len(prompt.tokens), wish.max_tokens, model.context_tokens, wish.max_tokens_param)
    sampling = sampling_params(wish.fields, text.default_sampling, wish.num_logprobs)
    requests = choice_requests(
        answer_id,
        model,
        prompt.tokens,
        promise,
        sampling,
        stop_rules(wish.fields, max_tokens),
        grammar,
        num_choices=wish.num_choices,
        skip_special_tokens=not shows_special_tokens(text, wish),
    )
    submissions = await services.gateway.submit(requests)
    return Turn(answer_id, int(time.time()), wish, text, prompt, sampling, submissions)
