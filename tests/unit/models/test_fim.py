"""Fill-in-the-middle prompts, by family."""

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library

from speciate.models.fim import FIM_FORMATS, FimFormat, find_fim_format
from speciate.models.tokenizer import Tokenizer


def with_marks(tokenizer: Tokenizer, fim: FimFormat) -> Tokenizer:
    library = Library.from_str(tokenizer.json_text)
    marks = [mark for mark in (fim.prefix, fim.suffix, fim.middle, *fim.end) if mark]
    library.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return Tokenizer(library.to_str())


WANTED = {
    "qwen": "<|fim_prefix|>def f(<|fim_suffix|>):\n<|fim_middle|>",
    "starcoder": "<fim_prefix>def f(<fim_suffix>):\n<fim_middle>",
    "deepseek": "<｜fim▁begin｜>def f(<｜fim▁hole｜>):\n<｜fim▁end｜>",  # noqa: RUF001 (their bars)
    "codellama": "▁<PRE>def f(▁<SUF>):\n▁<MID>",
    "codestral": "[SUFFIX]):\n[PREFIX]def f(",
}


@pytest.mark.parametrize("fim", FIM_FORMATS, ids=lambda fim: fim.family)
def test_each_family_is_found_and_written_its_way(byte_level: Tokenizer, fim: FimFormat) -> None:
    tokenizer = with_marks(byte_level, fim)
    found = find_fim_format(tokenizer)
    assert found == fim
    ids = fim.prompt(tokenizer, "def f(", "):\n")
    assert tokenizer.decode(ids, skip_special=False) == WANTED[fim.family]
    assert all(token_id in tokenizer.special_ids for token_id in fim.end_ids(tokenizer))


def test_models_without_marks_have_none(byte_level: Tokenizer) -> None:
    assert find_fim_format(byte_level) is None
