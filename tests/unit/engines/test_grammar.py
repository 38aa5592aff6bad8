"""Grammars over tiny tokenizers: whatever the logits, what comes out obeys; what cannot be compiled is refused."""

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from speciate.core.engine import SequenceSpec
from speciate.core.errors import InvalidGrammar
from speciate.core.request import Grammar, SamplingParams
from speciate.engines.grammar import GrammarCompiler, GrammarOptions
from speciate.engines.sampling import Sampler

END = 0


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    made.train_from_iterator(['{"name": "Ada", "age": 36, "tags": ["a", "b"]} true false null'] * 5, trainer)
    made.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return made


def compiler(tokenizer: Tokenizer, **options) -> GrammarCompiler:
    return GrammarCompiler(tokenizer.to_str(), tokenizer.get_vocab_size(), (END,), GrammarOptions(**options))


def accepts(compiled: GrammarCompiler, tokenizer: Tokenizer, grammar: Grammar, text: str) -> bool:
    """Whether the whole text may be written, and may end there."""
    matcher = compiled.matcher(grammar)
    for token_id in tokenizer.encode(text).ids:
        if not matcher.allowed()[token_id]:
            return False
        assert matcher.accept(token_id)
    return bool(matcher.allowed()[END])


def generate(
    tokenizer: Tokenizer, grammar: Grammar, seed: int, *, stop: tuple[int, ...] = (END,), steps: int = 400
) -> str:
    """Random logits, a little in favour of closing signs so that texts end."""
    vocab_size = tokenizer.get_vocab_size() + 7  # Logits are often wider than the vocabulary.
    sampler = Sampler(vocab_size, (END,), tokenizer.to_str())
    sampler.add(SequenceSpec(1, (1,), SamplingParams(seed=seed), grammar=grammar, stop_token_ids=stop))
    random = np.random.default_rng(seed)
    closing = [i for i in range(tokenizer.get_vocab_size()) if (tokenizer.id_to_token(i) or "")[:1] in tuple('"}],')]
    tokens: list[int] = []
    for _ in range(steps):
        logits = random.normal(size=(1, vocab_size)).astype(np.float32)
        logits[0, [END, *closing]] += 4
        sampled = sampler.sample([1], logits)
        assert sampled.failed == ()
        (sample,) = sampled.samples
        if sample.token_id in stop:
            return tokenizer.decode(tokens)
        tokens.append(sample.token_id)
        if sample.ends_grammar:
            return tokenizer.decode(tokens)
    raise AssertionError(f"no end after {steps} tokens: {tokenizer.decode(tokens)!r}")


SCHEMAS = {
    "flat": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 9},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b", None, 3]},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["tags"],
        "$defs": {"tag": {"type": "string", "pattern": "^[a-z]{1,4}$"}},
        "additionalProperties": False,
    },
    "union": {
        "anyOf": [
            {"type": "boolean"},
            {"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"], "additionalProperties": False},
        ]
    },
    "closed": {
        "type": "array",
        "items": {"type": "number", "multipleOf": 0.5, "minimum": -2, "maximum": 2},
        "maxItems": 2,
    },
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_logits_under_a_schema_give_valid_json(tokenizer: Tokenizer, name: str) -> None:
    grammar = Grammar("json_schema", json.dumps(SCHEMAS[name]))
    for seed in range(12):
        jsonschema.validate(json.loads(generate(tokenizer, grammar, seed)), SCHEMAS[name])


@pytest.mark.parametrize("seed", range(8))
def test_json_object_gives_an_object(tokenizer: Tokenizer, seed: int) -> None:
    assert isinstance(json.loads(generate(tokenizer, Grammar("json_object"), seed, steps=2000)), dict)


def test_a_grammar_ends_the_sequence_even_when_end_tokens_are_ignored(tokenizer: Tokenizer) -> None:
    assert generate(tokenizer, Grammar("regex", "(yes|no)"), 3, stop=()) in ("yes", "no")
    jsonschema.validate(
        json.loads(generate(tokenizer, Grammar("json_schema", json.dumps(SCHEMAS["flat"])), 4, stop=())),
        SCHEMAS["flat"],
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"name": "Ada", "age": 36}', True),
        ('{"name":"Ada","age":36}', True),
        ('{"name":  "Ada", "age": 36}', False),
        ('{ "name": "Ada", "age": 36}', False),
        ('{"name": "Ada",\n"age": 36}', False),
        ('{"age": 36, "name": "Ada"}', False),
        ('{"name": "Ada"}', False),
        ('{"name": "<tool_call>", "age": 1}', False),
    ],
)
def test_spacing_is_that_of_json_dumps_or_compact(tokenizer: Tokenizer, text: str, wanted: bool) -> None:
    """The last one is 11 characters in a string of at most 9."""
    grammar = Grammar("json_schema", json.dumps(SCHEMAS["flat"]))
    assert accepts(compiler(tokenizer), tokenizer, grammar, text) is wanted


def test_spacing_can_be_chosen_and_a_schema_cannot_loosen_it(tokenizer: Tokenizer) -> None:
    loose = {**SCHEMAS["flat"], "x-guidance": {"whitespace_flexible": True}}
    text = '{"name":  "Ada",   "age": 36}'
    grammar = Grammar("json_schema", json.dumps(loose))
    assert not accepts(compiler(tokenizer), tokenizer, grammar, text)
    wide = compiler(tokenizer, item_separator=", {0,4}", key_separator=": {0,4}")
    assert accepts(wide, tokenizer, grammar, text)


def test_json_inside_of_lark_is_spaced_the_same(tokenizer: Tokenizer) -> None:
    """Two schemas, one with a brace in a string; `%json` in a string literal is no schema."""
    source = (
        'start: a | b | "%json {}"\na: %json {"const": "{"}\nb: "[" %json {"type": "object", "required": ["x"]} "]"'
    )
    made, grammar = compiler(tokenizer), Grammar("lark", source)
    assert accepts(made, tokenizer, grammar, '[{"x": [1, 2]}]')
    assert not accepts(made, tokenizer, grammar, '[{"x":  1}]')
    assert accepts(made, tokenizer, grammar, '"{"')


def test_regex_and_lark(tokenizer: Tokenizer) -> None:
    made = compiler(tokenizer)
    assert accepts(made, tokenizer, Grammar("regex", "[a-c]{2,3}"), "abc")
    assert not accepts(made, tokenizer, Grammar("regex", "[a-c]{2,3}"), "a")
    lark = Grammar("lark", 'start: "a" inner*\ninner: "(" inner* ")"')
    assert accepts(made, tokenizer, lark, "a(()())")
    assert not accepts(made, tokenizer, lark, "a(()")


@pytest.mark.parametrize(
    ("kind", "source", "reason"),
    [
        ("json_schema", "{", "not valid JSON"),
        ("json_schema", "[1]", "must be an object"),
        ("json_schema", '{"type": "strin"}', "strin"),
        ("json_schema", '{"not": {"type": "string"}}', "not"),
        ("json_schema", '{"$ref": "#/$defs/x"}', "x"),
        ("json_schema", '{"$ref": "http://example.com/x"}', "example.com"),
        ("json_schema", '{"type": "string", "format": "zip"}', "zip"),
        ("json_schema", '{"oneOf": [{"type": "string"}, {"minLength": 2}]}', "oneOf"),
        ("json_schema", '{"type": "integer", "minimum": 3, "maximum": 2}', "minimum"),
        ("json_schema", "[" * 100_000, "recursion"),
        ("regex", "(ab", "unclosed group"),
        ("regex", "(?=a)b", "look-around"),
        ("lark", "start: nothing", "nothing"),
        ("lark", "", "Empty grammar"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_the_reason(
    tokenizer: Tokenizer, kind: str, source: str, reason: str
) -> None:
    with pytest.raises(InvalidGrammar, match=reason):
        compiler(tokenizer).matcher(Grammar(kind, source))


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", '{"type": "integer", "multipleOf": 1234567}'),
        Grammar("json_schema", '{"type": "integer", "\\u006dultipleOf": 1234567}'),
        Grammar("json_schema", '{"type": "integer", "multipleOf": 1e9}'),
        Grammar("json_schema", '{"allOf": [{"type": "integer", "multipleOf": 9973}, {"multipleOf": 9967}]}'),
        Grammar("lark", 'start: %json {"type": "integer", "multipleOf" : 999999937}'),
        Grammar("json_schema", json.dumps({"enum": [f"value number {i}" for i in range(20_000)]})),
        Grammar("json_schema", json.dumps({"type": "string", "pattern": "(.*a.{30}){10}"})),
        Grammar("regex", "((a|b|c)*d){1000,2000}x(.{500}){500}"),
    ],
)
def test_nothing_hangs(tokenizer: Tokenizer, grammar: Grammar) -> None:
    """Refused or compiled, within a second of CPU time."""
    made = compiler(tokenizer)
    started_s = time.process_time()
    with contextlib.suppress(InvalidGrammar):
        made.matcher(grammar).allowed()
    assert time.process_time() - started_s < 1


def test_harmless_multiples_pass(tokenizer: Tokenizer) -> None:
    for multiple in ("0.01", "5", "0.25", "1000", "1e3", "10000"):
        compiler(tokenizer).matcher(Grammar("json_schema", f'{{"type": "number", "multipleOf": {multiple}}}'))


def test_matchers_of_one_grammar_are_independent_and_cached(tokenizer: Tokenizer) -> None:
    made = compiler(tokenizer, num_cached=2)
    first, second = made.matcher(Grammar("regex", "ab")), made.matcher(Grammar("regex", "ab"))
    a, b = tokenizer.encode("a").ids[0], tokenizer.encode("b").ids[0]
    assert first.accept(a)
    assert first.allowed()[b]
    assert second.allowed()[a]
    assert not second.accept(b)
    assert second.error
    assert not first.error
    for source in ("x", "y", "z"):
        made.matcher(Grammar("regex", source))
    assert len(made._compiled) == 2


def test_threads_may_compile_while_another_samples(tokenizer: Tokenizer) -> None:
    vocab_size = tokenizer.get_vocab_size()
    sampler = Sampler(vocab_size, (END,), tokenizer.to_str(), GrammarOptions(num_cached=4))
    sampler.add(SequenceSpec(0, (1,), SamplingParams(temperature=0)))

    def add(seq_id: int) -> None:
        grammar = Grammar("regex", f"[ab]{{{1 + seq_id % 7}}}")
        sampler.add(SequenceSpec(seq_id, (1,), SamplingParams(seed=seq_id), grammar=grammar))

    with ThreadPoolExecutor(4) as pool:
        adding = [pool.submit(add, seq_id) for seq_id in range(1, 80)]
        while not all(done.done() for done in adding):
            assert sampler.sample([0], np.zeros((1, vocab_size), np.float32)).failed == ()
    for done in adding:
        done.result()
    assert sampler.sample(range(80), np.zeros((80, vocab_size), np.float32)).failed == ()


def test_a_grammar_that_breaks_fails_its_row_alone(tokenizer: Tokenizer) -> None:
    """Its only way on is the end, which min_tokens forbids."""
    vocab_size = tokenizer.get_vocab_size()
    sampler = Sampler(vocab_size, (END,), tokenizer.to_str())
    greedy = SamplingParams(temperature=0)
    letter = Grammar("regex", "a")
    sampler.add(SequenceSpec(1, (1,), greedy, grammar=letter, stop_token_ids=(END,), min_tokens=5))
    sampler.add(SequenceSpec(2, (1,), greedy))
    assert sampler.sample([1, 2], np.zeros((2, vocab_size), np.float32)).samples[0].ends_grammar
    sampled = sampler.sample([1, 2], np.zeros((2, vocab_size), np.float32))
    assert [s.seq_id for s in sampled.samples] == [2]
    ((seq_id, reason),) = sampled.failed
    assert seq_id == 1
    assert "the grammar allows no token" in reason


def test_logits_may_be_narrower_than_the_tokenizer(tokenizer: Tokenizer) -> None:
    narrow = tokenizer.get_vocab_size() - 1
    made = GrammarCompiler(tokenizer.to_str(), narrow, (END,))
    assert made.matcher(Grammar("json_object")).allowed().shape == (narrow,)
