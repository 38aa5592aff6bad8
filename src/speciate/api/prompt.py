"""From messages or text to prompt tokens. Long texts are tokenised on another thread, so that streams go on."""

import asyncio

from msgspec import Struct

from speciate.api.wish import TurnWish
from speciate.core.errors import InvalidRequest
from speciate.models.reasoning import has_thought, opens_thinking
from speciate.models.text_model import TextModel
from speciate.models.tokenizer import Tokenizer

LONG_TEXT_CHARS = 20_000
"""From about here a tokeniser takes longer than a thread switch costs a stream (some 5 ms)."""


class Prompt(Struct, frozen=True):
    """What the model reads."""

    tokens: tuple[int, ...]
    starts_thinking: bool = False
    """The prompt ends inside a block of thought: the answer begins in it."""
    may_think: bool = False
    """A block of thought may come before the answer."""


async def encode(tokenizer: Tokenizer, text: str, *, add_special: bool) -> tuple[int, ...]:
    if len(text) < LONG_TEXT_CHARS:
        return tokenizer.encode(text, add_special)
    return await asyncio.to_thread(tokenizer.encode, text, add_special)


async def turn_prompt(text: TextModel, wish: TurnWish) -> Prompt:
    """The conversation as the model's template writes it."""
    written = render(text, wish)
    return Prompt(
        await encode(text.tokenizer, written, add_special=False),
        starts_thinking=text.reasons and opens_thinking(written),
        may_think=text.reasons and not wish.continues_last and not has_thought(written),
    )


def render(text: TextModel, wish: TurnWish) -> str:
    """A turn that continues the last message is the prompt before it, and then its text."""
    options = wish.template_options
    tools = [t.for_template() for t in wish.tools] if wish.tool_choice.mode != "none" else None
    if not wish.continues_last:
        return text.template.render(wish.messages, tools, **options)
    last = wish.messages[-1]
    if last["role"] != "assistant" or len(wish.messages) < 2:
        raise InvalidRequest("Only an assistant message after another message can be continued.", param="messages")
    return text.template.render(wish.messages[:-1], tools, **options) + str(last["content"])


async def fill_in_tokens(text: TextModel, before: str, after: str) -> tuple[int, ...]:
    """The prompt for the text between. Raises InvalidRequest where the model was not made for it."""
    if text.fim is None:
        raise InvalidRequest(
            f"{text.name} has no tokens for filling in the middle; leave suffix out, or ask a code model.",
            param="suffix",
        )
    if len(before) + len(after) < LONG_TEXT_CHARS:
        return text.fim.prompt(text.tokenizer, before, after)
    return await asyncio.to_thread(text.fim.prompt, text.tokenizer, before, after)
