"""May a model live on a device that carries promises? Asked once, when it is loaded; a refusal says what would fit.

A step cannot be interrupted: one that lasts longer than what a promise leaves would break it whenever it runs. So its
longest single step, alone in its batch, is compared with the strictest promise that others made on the device.
"""

from collections.abc import Iterable, Sequence
from math import inf

from msgspec import Struct

from speciate.core.denoise import Stage


class DevicePromise(Struct, frozen=True):
    """A promise on the device, and what keeping it takes once the device is free."""

    name: str
    """The segment, for messages."""
    ttft_s: float
    """Arrival to first token, or whatever comes first."""
    own_step_s: float
    """The step that its typical request needs, margin included, beside what must run with it."""
    tpot_s: float = inf
    """Between tokens: a foreign step fits in this less an own one."""

    @property
    def room_s(self) -> float:
        """How long somebody else's step may last."""
        return max(0.0, min(self.ttft_s, self.tpot_s) - self.own_step_s)


class SingleStep(Struct, frozen=True):
    """The shortest form in which a part of a model's work can run."""

    stage: Stage
    size: str
    """What it is made for, as "1024x1024" or "832x480, 81 frames"."""
    seconds: float
    """Margin included."""


def strictest(promises: Iterable[DevicePromise]) -> DevicePromise | None:
    return min(promises, key=lambda promise: (promise.room_s, promise.name), default=None)


def refuse_model(model: str, steps: Sequence[SingleStep], promises: Iterable[DevicePromise]) -> str | None:
    """Why the model cannot live here, or None. `steps` are those of every size that it is to serve."""
    promise = strictest(promises)
    if promise is None or not steps:
        return None
    longest = max(steps, key=lambda step: step.seconds)
    if longest.seconds <= promise.room_s:
        return None
    return (
        f"{model} cannot share this device: {_name(longest)} takes {longest.seconds:.3f} s and cannot be interrupted, "
        f"but the promise of {promise.name!r} leaves {promise.room_s:.3f} s to others (first answer in "
        f"{promise.ttft_s:.3f} s, of which its own step takes {promise.own_step_s:.3f} s). {_hint(steps, promise)}"
    )


def _name(step: SingleStep) -> str:
    what = {Stage.ENCODE: "encoding a prompt", Stage.PASS: "one pass", Stage.PREVIEW: "a preview's slice"}
    return f"{what.get(step.stage, 'a slice of decoding')} at {step.size}"


def _hint(steps: Sequence[SingleStep], promise: DevicePromise) -> str:
    """The largest size all of whose steps fit; if only decoding is too long, smaller slices."""
    worst: dict[str, float] = {}
    passes: dict[str, float] = {}
    for step in steps:
        worst[step.size] = max(step.seconds, worst.get(step.size, 0.0))
        if step.stage not in (Stage.DECODE, Stage.PREVIEW):
            passes[step.size] = max(step.seconds, passes.get(step.size, 0.0))
    fitting = [size for size, seconds in worst.items() if seconds <= promise.room_s]
    parts = []
    if fitting:
        parts.append(f"serve at most {max(fitting, key=lambda size: worst[size])} here")
    if passes and max(passes.values()) <= promise.room_s:
        parts.append("decode in more slices")
    return f"What would fit: {', or '.join([*parts, 'give it a device of its own'])}."
