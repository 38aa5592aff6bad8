import msgspec
import pytest

from speciate.api.sampling import SamplingFields, clamped_budget, output_budget, sampling_params, stop_rules
from speciate.core.errors import ContextLengthExceeded, InvalidRequest
from speciate.core.request import SamplingParams, StopRules

decode = msgspec.json.Decoder(SamplingFields).decode


def test_what_the_caller_leaves_out_is_the_models_own() -> None:
    defaults = SamplingParams(temperature=0.6, top_p=0.9, top_k=20, repetition_penalty=1.1)
    assert sampling_params(decode(b"{}"), defaults, None) == defaults
    greedy = sampling_params(decode(b'{"temperature": 0, "top_k": -1, "logit_bias": {"7": -100}}'), defaults, 3)
    assert greedy == SamplingParams(
        temperature=0.0, top_p=0.9, top_k=0, repetition_penalty=1.1, logit_bias=((7, -100.0),), num_logprobs=3
    )


def test_stop_is_a_string_or_a_list_and_empty_ones_mean_nothing() -> None:
    assert stop_rules(decode(b'{"stop": "a"}'), 5) == StopRules(5, ("a",))
    assert stop_rules(decode(b'{"stop": ["a", "", "b"]}'), 5).stop == ("a", "b")
    assert stop_rules(decode(b'{"stop": ""}'), 5).stop == ()
    extras = decode(b'{"ignore_eos": true, "min_tokens": 2, "stop_token_ids": [3], "include_stop_str_in_output": true}')
    assert stop_rules(extras, 5) == StopRules(5, (), (3,), True, 2, True)


def test_a_budget_is_what_fits_what_was_asked_or_an_error_with_both_numbers() -> None:
    assert output_budget(10, None, 100, "max_tokens") == 90
    assert output_budget(10, 90, 100, "max_tokens") == 90
    with pytest.raises(ContextLengthExceeded, match=r"100 tokens.*101 tokens"):
        output_budget(10, 91, 100, "max_tokens")
    assert clamped_budget(10, 91, 100, "max_tokens") == 90
    with pytest.raises(ContextLengthExceeded, match=r"100 tokens.*100 tokens"):
        clamped_budget(100, 1, 100, "max_tokens")
    with pytest.raises(InvalidRequest, match="no tokens"):
        output_budget(0, 1, 100, "prompt")
