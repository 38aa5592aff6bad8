"""Fill-in-the-middle prompts of code models: what `/v1/completions` with a `suffix` sends. Knows no API."""

from typing import Literal

from msgspec import Struct

from speciate.models.tokenizer import Tokenizer


class FimFormat(Struct, frozen=True):
    """One family's marks, as their model cards write them."""

    family: str
    prefix: str
    suffix: str
    middle: str | None
    order: Literal["prefix_first", "suffix_first"] = "prefix_first"
    end: tuple[str, ...] = ()
    """Tokens that end the middle, beside the model's own end tokens."""

    def prompt(self, tokenizer: Tokenizer, before: str, after: str) -> tuple[int, ...]:
        """Token ids of the prompt for the text between `before` and `after`."""
        prefix = (*_ids(tokenizer, self.prefix), *tokenizer.encode(before, add_special=False))
        suffix = (*_ids(tokenizer, self.suffix), *tokenizer.encode(after, add_special=False))
        ordered = (*prefix, *suffix) if self.order == "prefix_first" else (*suffix, *prefix)
        return (*tokenizer.encode("", add_special=True), *ordered, *_ids(tokenizer, self.middle))

    def end_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Ids of `end` that the tokenizer has."""
        found = (tokenizer.token_id(token) for token in self.end)
        return tuple(token_id for token_id in found if token_id is not None)


FIM_FORMATS = (
    FimFormat("qwen", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", end=("<|endoftext|>", "<|file_sep|>")),
    FimFormat("starcoder", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", end=("<|endoftext|>", "<file_sep>")),
    FimFormat("deepseek", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001 (their bars)
    FimFormat("codellama", "▁<PRE>", "▁<SUF>", "▁<MID>", end=("▁<EOT>",)),
    FimFormat("codestral", "[PREFIX]", "[SUFFIX]", None, order="suffix_first"),
)
"""CodeGemma has Qwen's marks; Granite has StarCoder's."""


def find_fim_format(tokenizer: Tokenizer) -> FimFormat | None:
    """The first family whose marks are all single tokens of this tokenizer."""
    return next((fim for fim in FIM_FORMATS if _has_marks(tokenizer, fim)), None)


def _has_marks(tokenizer: Tokenizer, fim: FimFormat) -> bool:
    marks = (fim.prefix, fim.suffix) if fim.middle is None else (fim.prefix, fim.suffix, fim.middle)
    return all(tokenizer.token_id(mark) is not None for mark in marks)


def _ids(tokenizer: Tokenizer, token: str | None) -> tuple[int, ...]:
    token_id = None if token is None else tokenizer.token_id(token)
    return () if token_id is None else (token_id,)
