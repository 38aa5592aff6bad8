"""Whether a model may live beside promises, and what the refusal says."""

from math import inf

from speciate.core.denoise import Stage
from speciate.scheduling.device.coexist import DevicePromise, SingleStep, refuse_model

VOICE = DevicePromise("voice", ttft_s=0.1, own_step_s=0.03)
CHAT = DevicePromise("chat", ttft_s=1.0, own_step_s=0.1, tpot_s=0.2)


def steps(**seconds: float) -> list[SingleStep]:
    return [SingleStep(Stage.PASS, size.replace("_", ""), s) for size, s in seconds.items()]


def test_a_model_whose_steps_are_short_may_live_here() -> None:
    assert refuse_model("sd", steps(_512x512=0.06), [VOICE, CHAT]) is None


def test_without_promises_anything_may() -> None:
    assert refuse_model("sd", steps(_4096x4096=9.0), []) is None


def test_a_long_step_is_refused_with_the_reason_and_what_would_fit() -> None:
    refusal = refuse_model("sdxl", steps(_512x512=0.05, _768x768=0.069, _1024x1024=0.4), [CHAT, VOICE])
    assert refusal is not None
    for part in ("sdxl", "one pass at 1024x1024", "0.400 s", "'voice'", "0.070 s", "at most 768x768", "device of its"):
        assert part in refusal


def test_only_decoding_is_too_long() -> None:
    slices = [*steps(_512x512=0.05), SingleStep(Stage.DECODE, "512x512", 0.3)]
    refusal = refuse_model("sd", slices, [VOICE])
    assert refusal is not None
    assert "a slice of decoding at 512x512" in refusal
    assert "decode in more slices" in refusal
    assert "serve at most" not in refusal


def test_a_promise_between_tokens_counts_too() -> None:
    assert CHAT.room_s == 0.1
    assert DevicePromise("batch", inf, 0.0).room_s == inf
    assert refuse_model("sd", steps(_512x512=0.12), [CHAT]) is not None
