"""Grammars compiled to token masks; the only module that knows llguidance. Knows no request, no logits, no text."""

import json
import math
import re
import threading
from collections import OrderedDict
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from msgspec import Struct

from speciate.core.errors import InvalidGrammar, LoadFailed
from speciate.core.request import Grammar


class GrammarOptions(Struct, frozen=True):
    """How JSON is spaced, and how much a grammar may cost."""

    item_separator: str = ", ?"
    """Regex between items. The default takes `json.dumps`' spacing and the compact one, and nothing unbounded: with
    free whitespace a small model can emit blanks until its token limit."""
    key_separator: str = ": ?"
    max_source_chars: int = 262_144
    """Longer sources are refused: 400 kB of enums take 0.3 s to compile, and the step waits for it."""
    max_multiple: int = 20_000
    """Greatest least common multiple of a schema's `multipleOf`; the compiler's automaton has one state for each
    remainder and its time grows with the square (20 ms at 10^4, 14 s at 10^6)."""
    max_lexer_states: int = 50_000
    """About 2 kB each."""
    num_cached: int = 128
    """Compiled grammars kept for the next request with the same one."""


class TokenMatcher:
    """One sequence's place in its grammar."""

    __slots__ = ("_bits", "_matcher", "_vocab_size", "_words")

    def __init__(self, matcher: LLMatcher, vocab_size: int, mask_tokens: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._words = np.zeros((mask_tokens + 31) // 32, dtype=np.uint32)
        self._bits = self._words.view(np.uint8)

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, bool [vocab]."""
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        return np.unpackbits(self._bits, count=self._vocab_size, bitorder="little").view(np.bool_)

    def accept(self, token_id: int) -> bool:
        """Move past a token; False where the grammar forbids it or a limit was hit, and `error` says why."""
        return bool(self._matcher.consume_token(token_id))

    @property
    def is_finished(self) -> bool:
        """Whether nothing but an end token may follow."""
        return bool(self._matcher.is_stopped())

    @property
    def error(self) -> str:
        """Why the matcher cannot go on; empty while it can."""
        return str(self._matcher.get_error())


class GrammarCompiler:
    """Compiles grammars for one tokenizer and keeps the latest. Any thread may call it: grammars are compiled one at a
    time, so that a flood of them takes one core and not all; those that are known do not wait for it."""

    def __init__(
        self,
        tokenizer_json: str,
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
        options: GrammarOptions | None = None,
    ) -> None:
        """`vocab_size` is the width of the logits. Costs about a second for 150,000 tokens. Raises LoadFailed where the
        tokenizer is of a kind that llguidance does not read."""
        self._options = options or GrammarOptions()
        self._vocab_size = vocab_size
        self._tokenizer = _build_tokenizer(tokenizer_json, vocab_size, eos_token_ids)
        self._limits = LLParserLimits(max_lexer_states=self._options.max_lexer_states, verbose_errors=False)
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()
        """Guards `_compiled`; never held for long."""
        self._compiling = threading.Lock()

    def matcher(self, grammar: Grammar) -> TokenMatcher:
        """A matcher at the grammar's start. Raises InvalidGrammar with the compiler's reason."""
        prototype = self._known(grammar)
        if prototype is None:
            with self._compiling:
                prototype = self._known(grammar) or self._keep(grammar, self._compile(grammar))
        return TokenMatcher(prototype.deep_copy(), self._vocab_size, self._tokenizer.vocab_size)

    def _known(self, grammar: Grammar) -> LLMatcher | None:
        with self._lock:
            prototype = self._compiled.get(grammar)
            if prototype is not None:
                self._compiled.move_to_end(grammar)
            return prototype

    def _keep(self, grammar: Grammar, prototype: LLMatcher) -> LLMatcher:
        with self._lock:
            self._compiled[grammar] = prototype
            if len(self._compiled) > self._options.num_cached:
                self._compiled.popitem(last=False)
        return prototype

    def _compile(self, grammar: Grammar) -> LLMatcher:
        self._check_cost(grammar)
        matcher = LLMatcher(self._tokenizer, self._lower(grammar), log_level=0, limits=self._limits)
        if matcher.is_error():
            kind = grammar.asked_as or grammar.kind
            raise InvalidGrammar(f"{kind} grammar cannot be compiled: {_first_line(matcher.get_error())}")
        return matcher

    def _lower(self, grammar: Grammar) -> str:
        """llguidance's own form of the grammar."""
        match grammar.kind:
            case "json_schema":
                return self._lower_schema(grammar.source)
            case "json_object":
                return self._lower_schema('{"type": "object"}')
            case "regex":
                return LLMatcher.grammar_from_regex(grammar.source)
            case "lark":
                return LLMatcher.grammar_from_lark(self._space_inline_json(grammar.source))

    def _lower_schema(self, source: str) -> str:
        try:
            schema = json.loads(source)
        except (ValueError, RecursionError) as error:
            raise InvalidGrammar(f"JSON schema is not valid JSON: {error}") from None
        if not isinstance(schema, dict | bool):
            raise InvalidGrammar(f"JSON schema must be an object or a boolean, not {type(schema).__name__}")
        return LLMatcher.grammar_from_json_schema(json.dumps(self._spaced(schema), ensure_ascii=False))

    def _spaced(self, schema: dict[str, Any] | bool) -> dict[str, Any]:
        """The schema with our spacing; a caller's own would bring unbounded blanks back."""
        fields = schema if isinstance(schema, dict) else {} if schema else {"not": {}}
        spacing = {
            "item_separator": self._options.item_separator,
            "key_separator": self._options.key_separator,
            "whitespace_flexible": False,
        }
        return {**fields, "x-guidance": spacing}

    def _space_inline_json(self, source: str) -> str:
        """The same for every `%json {...}` of a Lark grammar. What is not JSON there is left for the compiler."""
        parts, at = [], 0
        for mark in _INLINE_JSON.finditer(source):
            if not mark[0].startswith("%json") or mark.start() < at:
                continue
            try:
                schema, end = _DECODER.raw_decode(source, mark.end())
            except (ValueError, RecursionError):
                continue
            parts += [source[at : mark.end()], json.dumps(self._spaced(schema), ensure_ascii=False)]
            at = end
        return "".join(parts) + source[at:]

    def _check_cost(self, grammar: Grammar) -> None:
        """Refuse what would compile for seconds; the compiler's own limits do not cover these two."""
        if len(grammar.source) > self._options.max_source_chars:
            raise InvalidGrammar(
                f"{grammar.kind} grammar has {len(grammar.source)} characters; "
                f"the limit is {self._options.max_source_chars}"
            )
        multiple = _common_multiple(grammar.source)
        if multiple > self._options.max_multiple:
            raise InvalidGrammar(
                f"the least common multiple of all multipleOf is {multiple}; the limit is {self._options.max_multiple}"
            )


def _build_tokenizer(tokenizer_json: str, vocab_size: int, eos_token_ids: tuple[int, ...]) -> LLTokenizer:
    """The tokenizer may know more tokens than the logits have columns, or fewer: the mask covers both."""
    if not eos_token_ids:
        raise LoadFailed("grammars cannot be followed by this model: it has no end token")
    eos = list(eos_token_ids)
    try:
        return LLTokenizer(tokenizer_json, n_vocab=vocab_size, eos_token=eos)
    except ValueError:  # More tokens than columns: the mask is made for all of them and cut.
        pass
    try:
        return LLTokenizer(tokenizer_json, eos_token=eos)
    except ValueError as error:
        raise LoadFailed(f"grammars cannot be followed with this tokenizer: {error}") from error


_INLINE_JSON = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|%json\s*(?=\{)')
"""Literals are matched too, so that a mark inside of them is passed over."""
_DECODER = json.JSONDecoder()
_MULTIPLE_OF = re.compile(r'"multipleOf"\s*:\s*([-+.0-9eE]+)')
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


def _common_multiple(source: str) -> int:
    """Least common multiple of the digits of every multipleOf in a schema's or grammar's text: 0.25 counts as 25."""
    multiple = 1
    for number in _MULTIPLE_OF.findall(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), source)):
        try:
            digits = int("".join(map(str, Decimal(number).normalize().as_tuple().digits)))
        except InvalidOperation:
            continue  # The compiler says what is wrong with it.
        exponent = max(0, int(Decimal(number).normalize().adjusted()) + 1 - len(str(digits)))
        multiple = math.lcm(multiple, max(1, digits) * 10 ** min(exponent, 30))
    return multiple


def _first_line(error: str) -> str:
    """The compiler's reason without its quotation of the grammar."""
    return error.strip().split("\n   1 |")[0].strip()
