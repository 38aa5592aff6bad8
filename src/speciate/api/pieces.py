"""What a model said, taken apart: shown text, reasoning, tool calls. No dialect's words for them."""

from typing import Protocol

from msgspec import Struct


class TextPiece(Struct, frozen=True, gc=False):
    text: str


class ReasoningPiece(Struct, frozen=True, gc=False):
    text: str


class CallStart(Struct, frozen=True, gc=False):
    """A tool call begins; calls of one answer are numbered from 0."""

    index: int
    call_id: str
    name: str


class CallArguments(Struct, frozen=True, gc=False):
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


Piece = TextPiece | ReasoningPiece | CallStart | CallArguments


class PieceReader(Protocol):
    """Takes a model's text as it comes; may hold some back until it is clear what it is."""

    def feed(self, text: str) -> list[Piece]: ...

    def finish(self) -> list[Piece]:
        """What was held back."""
        ...


class PlainReader:
    """For models and requests without reasoning and tools: everything is shown text."""

    def feed(self, text: str) -> list[Piece]:
        return [TextPiece(text)] if text else []

    def finish(self) -> list[Piece]:
        return []


class ToolCall(Struct, frozen=True):
    """A finished call; `arguments` is JSON text."""

    call_id: str
    name: str
    arguments: str


class Said(Struct, frozen=True):
    """A whole answer, folded."""

    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]


class PieceFolder:
    """Folds pieces into a whole answer."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._starts: list[CallStart] = []
        self._arguments: list[list[str]] = []

    @property
    def num_calls(self) -> int:
        return len(self._starts)

    def add(self, piece: Piece) -> None:
        match piece:
            case TextPiece(text):
                self._text.append(text)
            case ReasoningPiece(text):
                self._reasoning.append(text)
            case CallStart():
                self._starts.append(piece)
                self._arguments.append([])
            case CallArguments(index, text):
                self._arguments[index].append(text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    def said(self) -> Said:
        calls = (
            ToolCall(start.call_id, start.name, "".join(arguments))
            for start, arguments in zip(self._starts, self._arguments, strict=True)
        )
        return Said("".join(self._text), self.reasoning, tuple(calls))
