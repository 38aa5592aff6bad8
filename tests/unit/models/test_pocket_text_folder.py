"""The shipped folder of the pocket text model: the tokenizer, the chat template, and the shapes of the weights."""

import json
import random

import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from speciate.models.pocket import TEXT_ADAPTER_DIR, TEXT_DIR
from speciate.models.pocket.documents import KINDS, estimate_tokens, make_document
from speciate.models.pocket.prompts import render_messages, render_prompt
from speciate.models.pocket.tasks import sample_tasks
from speciate.models.pocket.tool_tasks import call_text

MOST_WEIGHT_BYTES = 8_000_000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TEXT_DIR / "tokenizer.json"))


@pytest.fixture(scope="module")
def config() -> dict[str, int]:
    return json.loads((TEXT_DIR / "config.json").read_text())


def test_text_survives_the_tokenizer(tokenizer: Tokenizer) -> None:
    for task in sample_tasks(2, 44, "held_out"):
        prompt = render_prompt(task)
        assert tokenizer.decode(tokenizer.encode(prompt).ids, skip_special_tokens=False) == prompt
    odd = "Žluťoučký  kůň\t\n\n日本 🙂"
    assert tokenizer.decode(tokenizer.encode(odd).ids) == odd


def test_tool_tags_survive_the_removal_of_special_tokens(tokenizer: Tokenizer) -> None:
    text = call_text("add", {"a": 1})
    assert tokenizer.decode(tokenizer.encode(f"{text}<|im_end|>").ids, skip_special_tokens=True) == text


def test_digits_stand_alone_and_words_look_the_same_everywhere(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("2048").tokens == list("2048")
    alone = tokenizer.encode("Maronta").ids
    assert tokenizer.encode('{"a": "Maronta"}').ids[-len(alone) - 1 : -1] == alone


def test_lengths_are_estimated_within_a_fifth(tokenizer: Tokenizer) -> None:
    for kind in KINDS:
        for seed in range(10):
            text = make_document(kind, random.Random(seed), 300).text
            assert estimate_tokens(text) == pytest.approx(len(tokenizer.encode(text).ids), rel=0.2)


def test_the_chat_template_writes_what_the_model_was_trained_on() -> None:
    transformers = pytest.importorskip("transformers")
    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(TEXT_DIR)
    for task in sample_tasks(3, 66):
        messages, tools = list(task.messages), list(task.tools) or None
        rendered = hf_tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
        assert rendered == render_prompt(task)
        unprompted = hf_tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        assert unprompted == render_messages(task.messages, task.tools)


def test_the_weights_fit_the_config(config: dict[str, int], tokenizer: Tokenizer) -> None:
    path = TEXT_DIR / "model.safetensors"
    assert path.stat().st_size <= MOST_WEIGHT_BYTES
    with safe_open(path, framework="numpy") as weights:
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    assert shapes["model.embed_tokens.weight"] == (config["vocab_size"], config["hidden_size"])
    assert config["vocab_size"] == tokenizer.get_vocab_size()
    assert f"model.layers.{config['num_hidden_layers'] - 1}.mlp.down_proj.weight" in shapes


def test_the_end_of_a_turn_is_the_end_token(config: dict[str, int], tokenizer: Tokenizer) -> None:
    assert config["eos_token_id"] == tokenizer.token_to_id("<|im_end|>")
    assert config["pad_token_id"] == tokenizer.token_to_id("<|endoftext|>")


def test_the_adapter_names_matrices_of_the_base() -> None:
    settings = json.loads((TEXT_ADAPTER_DIR / "adapter_config.json").read_text())
    with safe_open(TEXT_DIR / "model.safetensors", framework="numpy") as weights:
        base = {name.removesuffix(".weight") for name in weights.keys()}  # noqa: SIM118
    with safe_open(TEXT_ADAPTER_DIR / "adapter_model.safetensors", framework="numpy") as weights:
        for name in weights.keys():  # noqa: SIM118
            matrix, _, part = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
            assert matrix in base
            assert part in ("lora_A", "lora_B")
            assert settings["r"] in weights.get_slice(name).get_shape()
