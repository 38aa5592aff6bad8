"""Templates render as transformers renders them; what a template refuses becomes InvalidRequest.

The templates are small ones of our own that use the features of the well-known families.
"""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from transformers import PreTrainedTokenizerFast

from speciate.core.errors import InvalidRequest, LoadFailed
from speciate.models.chat_template import MAX_PROMPT_CHARS, ChatTemplate
from speciate.models.tokenizer import Tokenizer

SPECIAL = (("bos_token", "<s>"), ("eos_token", "<|im_end|>"))

FOLDER = Path(__file__).parent / "templates"
TEMPLATES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.jinja"))}
CHATML, MISTRAL, PARTS, QWEN25 = (TEMPLATES[name] for name in ("chatml", "mistral", "parts", "qwen2.5"))

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Wetter für <heute> & morgen",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"id": "abc123def", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln <1>"}}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "  Be <brief> & kind.\n"},
    {"role": "user", "content": "Hi, 你好 'you'"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello."},
    {"role": "user", "content": "And now?"},
]
TOOL_TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "12 °C", "tool_call_id": "abc123def"},
]


def transformers_renders(byte_level: Tokenizer, source: str, messages: list, tools: list | None, **options: Any) -> str:
    library = PreTrainedTokenizerFast(
        tokenizer_object=Library.from_str(byte_level.json_text), bos_token="<s>", eos_token="<|im_end|>"
    )
    return library.apply_chat_template(messages, tools=tools, chat_template=source, tokenize=False, **options)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "options", [{"add_generation_prompt": True}, {"add_generation_prompt": False}, {"enable_thinking": False}]
)
@pytest.mark.parametrize("messages", [TALK, TALK[1:], TOOL_TALK])
@pytest.mark.parametrize("tools", [None, [TOOL], [TOOL, TOOL]])
def test_equal_to_transformers(
    byte_level: Tokenizer, name: str, options: dict, messages: list, tools: list | None
) -> None:
    options = {"add_generation_prompt": True, **options}
    wanted = transformers_renders(byte_level, TEMPLATES[name], messages, tools, **options)
    assert ChatTemplate(TEMPLATES[name], SPECIAL).render(messages, tools, **options) == wanted


def test_arguments_come_as_text_and_are_rendered_as_objects() -> None:
    wire = [TOOL_TALK[0], {**TOOL_TALK[1], "content": None}, TOOL_TALK[2]]
    wire[1]["tool_calls"] = [{**CALL, "function": {"name": "get_weather", "arguments": '{"city": "Köln <1>"}'}}]
    template = ChatTemplate(QWEN25, SPECIAL)
    assert template.render(wire) == template.render(TOOL_TALK)
    wire[1]["tool_calls"][0]["function"]["arguments"] = "{broken"
    assert '"{broken"' in template.render(wire)


def test_parts_are_joined_for_templates_that_want_text_and_left_for_others() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert "one\ntwo<|im_end|>" in ChatTemplate(CHATML).render([{"role": "user", "content": parts}])
    assert ChatTemplate(PARTS).render([{"role": "user", "content": parts}]) == "<user>onetwo"


def test_an_image_is_refused_not_dropped() -> None:
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    with pytest.raises(InvalidRequest, match="image_url"):
        ChatTemplate(CHATML).render([message])


def test_a_developer_speaks_as_system_where_the_template_knows_no_developer() -> None:
    message = [{"role": "developer", "content": "x"}]
    assert ChatTemplate(CHATML).render(message).startswith("<|im_start|>system\nx")
    assert ChatTemplate(CHATML + "{# developer #}").render(message).startswith("<|im_start|>developer\nx")


def test_what_a_template_refuses_names_its_reason() -> None:
    with pytest.raises(InvalidRequest, match="must alternate"):
        ChatTemplate(MISTRAL, SPECIAL).render([TALK[1], TALK[1]])
    with pytest.raises(InvalidRequest, match="no element 0"):
        ChatTemplate(QWEN25, SPECIAL).render([])
    with pytest.raises(InvalidRequest, match=r"cannot render these messages \(TypeError"):
        ChatTemplate("{{ messages[0].content + 1 }}").render([TALK[0]])


def test_a_broken_template_fails_at_load_with_its_line() -> None:
    with pytest.raises(LoadFailed, match="line 2"):
        ChatTemplate("fine\n{% if %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% set x = messages.__init__.__globals__ %}{{ x.os }}",
        "{{ raise_exception.__globals__['sys'] }}",
    ],
)
def test_templates_cannot_leave_the_sandbox(source: str) -> None:
    with pytest.raises(InvalidRequest):
        ChatTemplate(source).render([TALK[0]])


def test_a_template_cannot_fill_the_memory() -> None:
    with pytest.raises(InvalidRequest):
        ChatTemplate("{% for i in range(10**9) %}x{% endfor %}").render([])
    loop = "{% for i in range(90000) %}{% for j in range(90000) %}" + "x" * 1000 + "{% endfor %}{% endfor %}"
    with pytest.raises(InvalidRequest, match=str(MAX_PROMPT_CHARS)):
        ChatTemplate(loop).render([])


def test_whether_a_template_shows_tools() -> None:
    assert ChatTemplate(QWEN25).takes_tools
    assert not ChatTemplate(CHATML).takes_tools
