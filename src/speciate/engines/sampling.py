"""From logits to tokens: one sampler for every stepped text engine. Knows no model, no blocks, no text.

Order in a row: repetition, frequency and presence penalties; logit bias; grammar mask; `min_tokens` mask; temperature;
min_p, top_k, top_p; the draw. Log-probabilities are the model's own, before any of these, as in vLLM.
Shapes: V is the vocabulary, N the rows of a step.
"""
# ruff: noqa: N803, N806 -- names end in their shape

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from speciate.core.engine import SampledToken, SequenceSpec
from speciate.core.errors import InvalidGrammar, InvalidRequest, InvariantError, LoadFailed
from speciate.core.request import SamplingParams
from speciate.engines.grammar import GrammarCompiler, GrammarOptions, TokenMatcher

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot say; vLLM's value."""
GROUP_SIZE = 64
"""Rows of the table that a vocabulary is folded into to find its largest entries, and to draw from it."""


class SampledRows(Struct, frozen=True):
    """The tokens of one step in row order, and the sequences that cannot go on, with the reason."""

    samples: tuple[SampledToken, ...]
    failed: tuple[tuple[int, str], ...] = ()


class RowFailed(Exception):
    """One row has no next token; never leaves this module."""


class Sampler:
    """Draws the next token of each sequence. Its seed alone decides a sequence's draws, whatever other rows there are.

    `sample` and `remove` belong to one thread; `add` may run on others meanwhile: compiling a grammar takes time.
    """

    def __init__(
        self,
        vocab_size: int,
        eos_token_ids: tuple[int, ...],
        tokenizer_json: str | None = None,
        grammar_options: GrammarOptions | None = None,
    ) -> None:
        """`vocab_size` is the width of the logits. Without a `tokenizer_json`, or with one that grammars cannot be made
        for, the model is served all the same and every grammar is refused."""
        self._vocab_size = vocab_size
        self._compiler: GrammarCompiler | None = None
        self._why_no_grammar = "grammars cannot be followed by this model: it has no tokenizer.json"
        if tokenizer_json is not None:
            try:
                self._compiler = GrammarCompiler(tokenizer_json, vocab_size, eos_token_ids, grammar_options)
            except LoadFailed as error:
                self._why_no_grammar = error.message
        self._rows: dict[int, _Row] = {}

    def add(self, spec: SequenceSpec) -> None:
        """Make a sequence's state. Raises InvalidRequest for a token id outside the vocabulary, InvalidGrammar."""
        for token_id, _ in spec.sampling.logit_bias:
            if not 0 <= token_id < self._vocab_size:
                raise InvalidRequest(
                    f"logit_bias names token {token_id}; this model's tokens are 0 to {self._vocab_size - 1}",
                    param="logit_bias",
                )
        self._rows[spec.seq_id] = _make_row(spec, self._vocab_size, self._matcher(spec))

    def sample(self, seq_ids: Sequence[int], logits: Floats) -> SampledRows:
        """One token a row of `logits` [N, V], which may be changed in place. Never raises for one row's trouble."""
        rows = [self._row(seq_id) for seq_id in seq_ids]
        if logits.shape != (len(rows), self._vocab_size):
            raise InvariantError(f"logits are {logits.shape}, not {(len(rows), self._vocab_size)}")
        if not rows:
            return SampledRows(())
        greediest = logits.argmax(axis=1)
        samples: list[SampledToken] = []
        failed: list[tuple[int, str]] = []
        for row, logits_V, best in zip(rows, logits, greediest.tolist(), strict=True):
            try:
                samples.append(_sample_row(row, logits_V, best))
            except RowFailed as reason:
                failed.append((row.spec.seq_id, str(reason)))
        return SampledRows(tuple(samples), tuple(failed))

    def remove(self, seq_id: int) -> None:
        """Forget a sequence; unknown ids are ignored."""
        self._rows.pop(seq_id, None)

    def _row(self, seq_id: int) -> "_Row":
        row = self._rows.get(seq_id)
        if row is None:
            raise InvariantError(f"sequence {seq_id} is sampled but was never added")
        return row

    def _matcher(self, spec: SequenceSpec) -> TokenMatcher | None:
        if spec.grammar is None:
            return None
        if self._compiler is None:
            raise InvalidGrammar(self._why_no_grammar)
        return self._compiler.matcher(spec.grammar)


class _TokenCounts:
    """How often each token was seen, over the distinct tokens only: O(distinct) memory and time, not O(V)."""

    __slots__ = ("_counts", "_ids", "_index", "_size")

    def __init__(self, prompt: tuple[int, ...]) -> None:
        """Prompt tokens are known with count 0: repetition covers them, frequency and presence do not."""
        distinct = dict.fromkeys(prompt)
        self._index = {token_id: place for place, token_id in enumerate(distinct)}
        self._size = len(distinct)
        self._ids: Ints = np.zeros(max(64, 2 * self._size), dtype=np.int64)
        self._ids[: self._size] = list(distinct)
        self._counts: Floats = np.zeros(self._ids.size, dtype=np.float32)

    def add(self, token_id: int) -> None:
        place = self._index.setdefault(token_id, self._size)
        if place == self._size:
            if self._size == self._ids.size:
                self._ids, self._counts = np.resize(self._ids, 2 * self._size), np.resize(self._counts, 2 * self._size)
                self._counts[self._size :] = 0
            self._ids[place] = token_id
            self._size += 1
        self._counts[place] += 1

    def penalise(self, logits_V: Floats, sampling: SamplingParams) -> None:
        ids, counts = self._ids[: self._size], self._counts[: self._size]
        seen = logits_V[ids]
        if sampling.repetition_penalty != 1.0:
            seen = np.where(seen > 0, seen / sampling.repetition_penalty, seen * sampling.repetition_penalty)
        seen -= sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
        logits_V[ids] = seen


@dataclass(slots=True)
class _Row:
    """A sequence's sampling state, owned by the sampler."""

    spec: SequenceSpec
    generator: np.random.Generator | None
    """None for greedy rows."""
    counts: _TokenCounts | None
    """None without penalties."""
    bias: tuple[Ints, Floats] | None
    """Token ids, and what is added to their logits."""
    end_ids: Ints
    """Masked until `min_tokens`."""
    matcher: TokenMatcher | None
    is_bare: bool = field(init=False)
    """Greedy and nothing else: the batch's argmax is the answer."""
    num_output: int = 0

    def __post_init__(self) -> None:
        changes = (self.generator, self.counts, self.bias, self.matcher, self.spec.sampling.num_logprobs)
        self.is_bare = all(change is None for change in changes) and self.spec.min_tokens == 0


def _make_row(spec: SequenceSpec, vocab_size: int, matcher: TokenMatcher | None) -> _Row:
    sampling = spec.sampling
    repeats = sampling.repetition_penalty != 1
    is_penalised = repeats or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
    covered = spec.prompt_tokens if repeats else ()
    bias = dict(sampling.logit_bias)
    return _Row(
        spec=spec,
        generator=None if sampling.temperature == 0 else _make_generator(sampling.seed),
        counts=_TokenCounts(covered) if is_penalised else None,
        bias=(np.array(list(bias), np.int64), np.array(list(bias.values()), np.float32)) if bias else None,
        end_ids=np.array([i for i in spec.stop_token_ids if 0 <= i < vocab_size], dtype=np.int64),
        matcher=matcher,
    )


def _make_generator(seed: int | None) -> np.random.Generator:
    """PCG64 from the seed modulo 2^64 (callers may send negative ones), or from the operating system's entropy."""
    return np.random.Generator(np.random.PCG64(None if seed is None else seed % 2**64))


def _sample_row(row: _Row, logits_V: Floats, best: int) -> SampledToken:
    """`best` is the argmax of the untouched row; NaN wins an argmax, so one look at it covers the row."""
    if not math.isfinite(logits_V[best]):
        raise RowFailed(f"the model's logits hold {logits_V[best]} at token {best}")
    if row.is_bare:
        row.num_output += 1
        return SampledToken(row.spec.seq_id, best)
    raw_V = logits_V.copy() if row.spec.sampling.num_logprobs is not None else None
    if _change(row, logits_V):
        best = int(logits_V.argmax())
        if logits_V[best] == -np.inf:
            raise RowFailed(_why_nothing_is_allowed(row))
    token_id = best if row.generator is None else draw(logits_V, row.spec.sampling, row.generator, best)
    ends_grammar = _take(row, token_id)
    if raw_V is None:
        return SampledToken(row.spec.seq_id, token_id, ends_grammar=ends_grammar)
    chosen, top = logprobs(raw_V, token_id, row.spec.sampling.num_logprobs or 0)
    return SampledToken(row.spec.seq_id, token_id, chosen, top, ends_grammar)


def _change(row: _Row, logits_V: Floats) -> bool:
    """Apply penalties, bias and masks in place; whether any of them did something."""
    changed = False
    if row.counts is not None:
        row.counts.penalise(logits_V, row.spec.sampling)
        changed = True
    if row.bias is not None:
        ids, biases = row.bias
        logits_V[ids] += biases
        changed = True
    if row.matcher is not None:
        np.copyto(logits_V, -np.inf, where=~row.matcher.allowed())
        changed = True
    if row.num_output < row.spec.min_tokens:
        logits_V[row.end_ids] = -np.inf
        changed = True
    return changed


def _why_nothing_is_allowed(row: _Row) -> str:
    if row.matcher is not None:
        return f"the grammar allows no token here: {row.matcher.error or 'min_tokens forbids the end'}"
    return "logit_bias and min_tokens forbid every token"


def _take(row: _Row, token_id: int) -> bool:
    """Count the token; whether the grammar ends with it."""
    row.num_output += 1
    if row.counts is not None:
        row.counts.add(token_id)
    if row.matcher is None:
        return False
    if not row.matcher.accept(token_id):
        raise RowFailed(f"the grammar refused token {token_id}: {row.matcher.error}")
    return row.matcher.is_finished


def draw(logits_V: Floats, sampling: SamplingParams, generator: np.random.Generator, best: int) -> int:
    """One token from softmax(logits / temperature) after min_p, top_k and top_p; `best` is the argmax."""
    scaled_V = logits_V - logits_V[best]
    scaled_V *= np.float32(1 / max(sampling.temperature, 1e-5))
    ids: Ints | None = None
    if sampling.min_p > 0:
        ids = np.flatnonzero(scaled_V >= math.log(sampling.min_p))
    if sampling.top_k > 0:
        kept = _top_k(scaled_V if ids is None else scaled_V[ids], sampling.top_k)
        ids = kept if ids is None else ids[kept]
    weights = np.exp(scaled_V if ids is None else scaled_V[ids])
    if sampling.top_p < 1:
        kept = _top_p(weights, sampling.top_p)
        ids, weights = (kept if ids is None else ids[kept]), weights[kept]
    place = _pick(weights, generator.random())
    return place if ids is None else int(ids[place])


def _top_k(values: Floats, count: int) -> Ints:
    """Ascending places of the `count` largest values; whatever ties with the last of them stays too."""
    if count >= values.size:
        return np.arange(values.size)
    contenders = _contenders(values, count)
    some = values[contenders]
    kept: Ints = contenders[some >= np.partition(some, some.size - count)[some.size - count]]
    return kept


def _contenders(values: Floats, count: int) -> Ints:
    """Ascending places that surely hold the `count` largest: split the values into groups; the count-th largest of the
    groups' maxima is reached by at least `count` values. Costs two passes, a tenth of a partition of 150,000."""
    num_groups = max(4 * count, values.size // GROUP_SIZE)
    if 4 * num_groups > values.size:
        return np.arange(values.size)
    group_size = values.size // num_groups
    maxima = values[: group_size * num_groups].reshape(group_size, num_groups).max(axis=0)
    return np.flatnonzero(values >= np.partition(maxima, num_groups - count)[num_groups - count])


def _top_p(weights: Floats, top_p: float) -> Ints:
    """Ascending places of the fewest largest weights that hold `top_p` of the whole mass; whatever ties with the last
    of them stays too.

    Weights under (1 - top_p) * mass / size cannot hold 1 - top_p of the mass together, so only the others are sorted.
    """
    mass = float(weights.sum())
    places = np.flatnonzero(weights >= (1 - top_p) * mass / weights.size)
    some = weights[places]
    falling = np.sort(some)[::-1]
    last = int(np.searchsorted(np.cumsum(falling, dtype=np.float64), top_p * mass))
    kept: Ints = places[some >= falling[min(last, falling.size - 1)]]
    return kept


def _pick(weights: Floats, uniform: float) -> int:
    """The place where the running total of the weights passes `uniform` (in [0, 1)) of their sum; never one of weight
    zero. Many weights are totalled by columns first: a running total of 150,000 floats takes 0.4 ms."""
    num_groups = weights.size // GROUP_SIZE
    if num_groups < GROUP_SIZE:
        return _pick_in_order(weights, uniform)[0]
    padded = np.zeros(GROUP_SIZE * (num_groups + 1), dtype=np.float32)
    padded[: weights.size] = weights
    columns = padded.reshape(GROUP_SIZE, num_groups + 1)
    column, rest = _pick_in_order(columns.sum(axis=0), uniform)
    row, _ = _pick_in_order(columns[:, column], rest)
    return row * (num_groups + 1) + column


def _pick_in_order(weights: Floats, uniform: float) -> tuple[int, float]:
    """The picked place, and where in it, 0 to 1, the draw fell."""
    totals = np.cumsum(weights, dtype=np.float64)
    target = uniform * float(totals[-1])
    place = int(np.searchsorted(totals, target, side="right"))
    before = float(totals[place - 1]) if place else 0.0
    return place, (target - before) / (float(totals[place]) - before)


def logprobs(raw_V: Floats, token_id: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Log-softmax of the chosen token and of the `count` likeliest, likeliest first (ties: smaller id first)."""
    highest = raw_V.max()
    log_mass = float(highest) + math.log(float(np.exp(raw_V - highest).sum()))
    chosen = max(float(raw_V[token_id]) - log_mass, LOWEST_LOGPROB)
    if count == 0:
        return chosen, ()
    places = _top_k(raw_V, count)
    order = places[np.argsort(-raw_V[places], kind="stable")][:count]
    return chosen, tuple((i, max(float(raw_V[i]) - log_mass, LOWEST_LOGPROB)) for i in order.tolist())
