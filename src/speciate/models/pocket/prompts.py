"""Writes a conversation as the pocket model reads it: the same text as the chat template in its folder, without jinja.

A test holds the two equal.
"""

import json
from collections.abc import Sequence

from speciate.models.pocket.task import Message, Task, ToolSignature

START, END = "<|im_start|>", "<|im_end|>"
ANSWER_HEADER = f"{START}assistant\n"

_TOOLS_HEADER = "# Tools\n\nYou may call these functions:\n<tools>"
_TOOLS_FOOTER = (
    "\n</tools>\n\nTo call one, answer with its name and arguments:\n"
    '<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call>'
)


def render_prompt(task: Task) -> str:
    """The prompt of a task, up to where the model answers."""
    return render_messages(task.messages, task.tools) + ANSWER_HEADER


def render_solved(task: Task) -> str:
    """The prompt with the right answer and the end of its turn, as in training."""
    return f"{render_prompt(task)}{task.answer}{END}\n"


def render_messages(messages: Sequence[Message], tools: Sequence[ToolSignature] = ()) -> str:
    """All messages, without the header of the next answer."""
    system = str(messages[0]["content"]) if messages[0]["role"] == "system" else ""
    parts = [_system_block(system, tools)]
    rest = messages[1:] if messages[0]["role"] == "system" else messages
    parts += [_message(message) for message in rest]
    return "".join(parts)


def _system_block(system: str, tools: Sequence[ToolSignature]) -> str:
    if not tools:
        return f"{START}system\n{system}{END}\n" if system else ""
    opening = f"{system}\n\n" if system else ""
    signatures = "".join(f"\n{json.dumps(tool, ensure_ascii=False)}" for tool in tools)
    return f"{START}system\n{opening}{_TOOLS_HEADER}{signatures}{_TOOLS_FOOTER}{END}\n"


def _message(message: Message) -> str:
    content = message.get("content") or ""
    if message["role"] == "tool":
        return f"{START}user\n<tool_response>\n{content}\n</tool_response>{END}\n"
    calls = "\n".join(_call(call["function"]) for call in message.get("tool_calls") or ())
    return f"{START}{message['role']}\n{content}{calls}{END}\n"


def _call(function: Message) -> str:
    arguments = function["arguments"]
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{function["name"]}", "arguments": {written}}}\n</tool_call>'
