"""How a wish's tools, reasoning and output format bear on one model: its grammar, and how its text is read."""

import json

from speciate.api.call import new_id
from speciate.api.pieces import CallArguments, CallStart, Piece, PieceReader, PlainReader, ReasoningPiece, TextPiece
from speciate.api.prompt import Prompt
from speciate.api.wish import TurnWish
from speciate.core.errors import InvalidRequest
from speciate.core.request import Grammar
from speciate.models import tool_stream
from speciate.models.reasoning import ReasoningStep, ReasoningStream, grammar_after_thinking
from speciate.models.text_model import TextModel
from speciate.models.tool_formats import ToolFormat, calls_or_answer_grammar, tool_grammar
from speciate.models.tool_stream import ToolCallStream, ToolEvent


def tool_format_of(text: TextModel, wish: TurnWish) -> ToolFormat | None:
    """None when no tools may be called. Raises InvalidRequest where the model cannot call any."""
    if not wish.tools or wish.tool_choice.mode == "none":
        return None
    if text.tool_format is None:
        raise InvalidRequest(
            f"Model {wish.model!r} has not been taught to call tools in a format known here; leave tools out.",
            param="tools",
        )
    return text.tool_format


def grammar_of(text: TextModel, wish: TurnWish) -> Grammar | None:
    """A demanded call counts before an output format; where calls are optional, the format binds the other answers."""
    tool_format = tool_format_of(text, wish)
    if tool_format is None:
        return wish.grammar
    choice = wish.tool_choice
    if wish.grammar is None or choice.mode == "required":
        return tool_grammar(tool_format, wish.tools, choice, wish.may_call_in_parallel, text.tokenizer)
    return calls_or_answer_grammar(tool_format, wish.tools, wish.grammar, wish.may_call_in_parallel, text.tokenizer)


def bound_after_thought(text: TextModel, grammar: Grammar | None, prompt: Prompt) -> Grammar | None:
    """A model that reasons thinks freely; its answer is bound."""
    if grammar is None or not text.reasons or not prompt.may_think:
        return grammar
    return grammar_after_thinking(grammar, text.tokenizer, prompt.starts_thinking)


def shows_special_tokens(text: TextModel, wish: TurnWish) -> bool:
    """Some families mark calls with special tokens; the reader needs to see them."""
    tool_format = tool_format_of(text, wish)
    if tool_format is not None and tool_format.hides_marks(text.tokenizer):
        return True
    return wish.fields.skip_special_tokens is False


def piece_reader(text: TextModel, wish: TurnWish, *, starts_thinking: bool) -> PieceReader:
    """A new reader for one answer."""
    tool_format = tool_format_of(text, wish)
    tools = None if tool_format is None else ToolCallStream(tool_format, frozenset(t.name for t in wish.tools))
    reasoning = ReasoningStream(starts_thinking) if text.reasons else None
    if tools is None and reasoning is None:
        return PlainReader()
    return _StreamReader(reasoning, tools)


class _StreamReader:
    """First what was thought is taken out of the text, then the calls."""

    def __init__(self, reasoning: ReasoningStream | None, tools: ToolCallStream | None) -> None:
        self._reasoning = reasoning
        self._tools = tools
        self._has_arguments = True

    def feed(self, text: str) -> list[Piece]:
        if self._reasoning is None:
            return self._content(text)
        return self._step(self._reasoning.push(text))

    def finish(self) -> list[Piece]:
        pieces = [] if self._reasoning is None else self._step(self._reasoning.flush())
        if self._tools is not None:
            pieces += self._told(self._tools.flush())
        return pieces

    def _step(self, step: ReasoningStep) -> list[Piece]:
        pieces: list[Piece] = [ReasoningPiece(step.reasoning)] if step.reasoning else []
        return pieces + self._content(step.content) if step.content else pieces

    def _content(self, text: str) -> list[Piece]:
        if self._tools is None:
            return [TextPiece(text)] if text else []
        return self._told(self._tools.push(text))

    def _told(self, events: tuple[ToolEvent, ...]) -> list[Piece]:
        pieces: list[Piece] = []
        for event in events:
            match event:
                case tool_stream.ToolText(text):
                    pieces.append(TextPiece(text))
                case tool_stream.CallStarted(index, name):
                    self._has_arguments = False
                    pieces.append(CallStart(index, new_id("call_"), name))
                case tool_stream.CallArguments(index, text):
                    self._has_arguments = True
                    pieces.append(CallArguments(index, text))
                case tool_stream.CallEnded(index) if not self._has_arguments:
                    pieces.append(CallArguments(index, json.dumps({})))
        return pieces
