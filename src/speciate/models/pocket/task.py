"""What a task is: a conversation that ends where the model must answer, and the one right answer.

Knows no particular skill; `tasks.py` holds the list of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
"""A chat message as OpenAI and transformers write it: role, content, and tool_calls where there are any."""

ToolSignature = dict[str, Any]
"""`{"type": "function", "function": {"name", "description", "parameters"}}`."""


@dataclass(frozen=True, slots=True)
class Task:
    """A question with its answer.

    `messages` ends with a user's or a tool's message. `answer` is the exact text that the model should emit, without
    the end-of-turn token. `schema` is the JSON schema of the answer where it is a JSON object.
    """

    kind: str
    messages: tuple[Message, ...]
    answer: str
    tools: tuple[ToolSignature, ...] = ()
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer."""

    question: str
    answer: str
    schema: dict[str, Any] | None = None


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def task_of_turns(kind: str, turns: Sequence[Turn], system: str | None = None) -> Task:
    """The task of answering the last turn, with the earlier ones answered in the conversation."""
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for turn in turns[:-1]:
        messages += [user(turn.question), assistant(turn.answer)]
    last = turns[-1]
    return Task(kind, (*messages, user(last.question)), last.answer, schema=last.schema)
