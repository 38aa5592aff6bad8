"""/v1/completions with the official client."""

import openai
import pytest


def test_a_prompt_in_every_form(server):
    client = server.openai()
    ids = list(server.tokenizer.encode("say abc", False))
    for prompt in ("say abc", ids, ["say abc"], [ids]):
        answer = client.completions.create(model="fake", prompt=prompt, max_tokens=10)
        assert answer.object == "text_completion"
        assert [c.text for c in answer.choices] == ["abc"]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.prompt_tokens == len(ids)


def test_many_prompts_and_choices_keep_their_order(server):
    answer = server.openai().completions.create(model="fake", prompt=["say a", "say b"], n=2, max_tokens=10)
    assert [(c.index, c.text) for c in answer.choices] == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]
    assert answer.usage.prompt_tokens == 2 * len("say a")
    assert answer.usage.completion_tokens == 4 * 2


def test_a_stream(server):
    stream = server.openai().completions.create(
        model="fake", prompt="count 9", stream=True, stream_options={"include_usage": True}, max_tokens=100
    )
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks[:-1]) == "0 1 2 3 4 5 6 7 8"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 18


def test_echo(server):
    client = server.openai()
    whole = client.completions.create(model="fake", prompt="say abc", echo=True, max_tokens=10)
    stream = client.completions.create(model="fake", prompt="say abc", echo=True, stream=True, max_tokens=10)
    assert whole.choices[0].text == "".join(c.choices[0].text for c in stream) == "say abcabc"


def test_logprobs_are_four_parallel_lists(server):
    answer = server.openai().completions.create(model="fake", prompt="say abc", logprobs=0, max_tokens=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs.tokens == ["a", "b", "c"]
    assert logprobs.text_offset == [0, 1, 2]
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 3


def test_a_suffix_is_filled_in(server):
    asked = server.openai().completions.create(model="fake", prompt="def f(", suffix="return x", max_tokens=5)
    marks = 3
    assert asked.usage.prompt_tokens == len("def f(") + len("return x") + marks
    assert asked.choices[0].text == "Hello"


def test_what_cannot_be_honoured_is_refused(server):
    client = server.openai()
    with pytest.raises(openai.BadRequestError) as best_of:
        client.completions.create(model="fake", prompt="a", best_of=3)
    assert best_of.value.param == "best_of"
    with pytest.raises(openai.BadRequestError) as echo:
        client.completions.create(model="fake", prompt="a", echo=True, logprobs=1)
    assert echo.value.param == "echo"
    with pytest.raises(openai.BadRequestError, match="mixes token ids"):
        client.completions.create(model="fake", prompt=["a", 1])
    with pytest.raises(openai.BadRequestError, match="more than 128"):
        client.completions.create(model="fake", prompt=["a"] * 100, n=2)
