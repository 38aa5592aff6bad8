"""A deterministic stepped denoise engine for tests and simulation. It has no model.

An item's state is a hash of its spec and of every step it took, in order: a skipped, repeated or exchanged pass changes
the picture. `expected_picture` says what must come out, whatever the schedule, batches, pauses and restarts were.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from msgspec import structs

from speciate.core.denoise import (
    DenoisePlan,
    DenoiseResult,
    DenoiseShape,
    DenoiseSpec,
    ItemFacts,
    ItemStep,
    Picture,
    Stage,
)
from speciate.core.errors import EngineFailed, InvalidRequest
from speciate.costs.pass_table import PassTable


class _Saved(msgspec.Struct, frozen=True):
    """A checkpoint."""

    model: str
    spec_digest: bytes
    state: bytes
    passes_done: int


@dataclass(slots=True)
class _Item:
    spec: DenoiseSpec
    facts: ItemFacts
    state: bytes
    passes_done: int = 0
    slices_done: int = 0
    is_encoded: bool = False


class FakeDenoiseEngine:
    """Implements `DenoiseEngine` and `AdapterHost`. `wait` is called with each step's seconds by the table."""

    def __init__(
        self,
        shape: DenoiseShape,
        table: PassTable,
        *,
        num_slices: int = 1,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._shape = shape
        self._curves = table.curves()
        self._num_slices = num_slices
        self._wait = wait
        self._items: dict[int, _Item] = {}
        self._attached: set[str] = set(shape.adapters)
        self.fail_next_step = False
        """Fault injection: the next step raises EngineFailed."""
        self.spoil: set[int] = set()
        """Fault injection: these items fail alone, as if their latents were NaN."""
        self.plans: list[DenoisePlan] = []

    @property
    def shape(self) -> DenoiseShape:
        return structs.replace(self._shape, adapters=tuple(sorted(self._attached)))

    def facts(self, spec: DenoiseSpec) -> ItemFacts:
        for use in spec.adapters:
            if use.name not in self._attached:
                raise InvalidRequest(f"There is no adapter {use.name!r} on {self._shape.model}.", param="adapters")
        return fake_facts(self._shape, spec, self._num_slices)

    def add(self, spec: DenoiseSpec, checkpoint: bytes | None = None) -> ItemFacts:
        facts = self.facts(spec)
        item = _Item(spec, facts, _digest(spec))
        if checkpoint is not None:
            saved = msgspec.msgpack.decode(checkpoint, type=_Saved)
            if (saved.model, saved.spec_digest) != (self._shape.model, _digest(spec)):
                raise InvalidRequest(f"The checkpoint is of another picture or model ({saved.model}); start anew.")
            item = _Item(spec, facts, saved.state, saved.passes_done, is_encoded=saved.passes_done > 0)
            item.facts = structs.replace(facts, passes_done=saved.passes_done)
        self._items[spec.item_id] = item
        return item.facts

    def step(self, plan: DenoisePlan) -> DenoiseResult:
        self.plans.append(plan)
        if plan.model != self._shape.model:
            raise EngineFailed(f"A step of {plan.model} came to {self._shape.model}.")
        self._wait(self._seconds(plan))
        if self.fail_next_step:
            self.fail_next_step = False
            raise EngineFailed("The fake engine was told to fail this step.")
        failed = tuple((step.item_id, "its latents are NaN") for step in plan.items if step.item_id in self.spoil)
        whole = [step for step in plan.items if step.item_id not in self.spoil]
        pictures = [picture for step in whole if (picture := self._advance(plan.stage, step)) is not None]
        return DenoiseResult(tuple(pictures), failed)

    def save(self, item_id: int) -> bytes:
        item = self._items[item_id]
        return msgspec.msgpack.encode(
            _Saved(self._shape.model, _digest(item.spec), item.state, item.passes_done),
        )

    def remove(self, item_id: int) -> None:
        self._items.pop(item_id, None)
        self.spoil.discard(item_id)

    def close(self) -> None:
        self._items.clear()

    def attach(self, name: str, path: str) -> int:
        del path
        self._attached.add(name)
        return 1

    def detach(self, name: str) -> None:
        self._attached.discard(name)

    def forget(self, name: str) -> None:
        self._attached.discard(name)

    def _seconds(self, plan: DenoisePlan) -> float:
        facts = [self._items[step.item_id].facts for step in plan.items]
        stage = Stage.DECODE if plan.stage is Stage.PREVIEW else plan.stage
        rows = sum(f.num_rows for f in facts) if stage is Stage.PASS else len(facts)
        tokens = 0 if stage is Stage.ENCODE else facts[0].num_tokens
        return self._curves.estimate(plan.model, stage, tokens, rows).seconds

    def _advance(self, stage: Stage, step: ItemStep) -> Picture | None:
        """Raises EngineFailed for a step out of order: the scheduler is wrong."""
        item = self._items[step.item_id]
        expected = {
            Stage.ENCODE: 0,
            Stage.PASS: item.passes_done,
            Stage.PREVIEW: item.slices_done,
            Stage.DECODE: item.slices_done,
        }[stage]
        is_ready = item.is_encoded != (stage is Stage.ENCODE)
        is_whole = stage is not Stage.DECODE or item.passes_done == item.facts.num_passes
        if step.index != expected or not is_ready or not is_whole:
            raise EngineFailed(f"Item {step.item_id}: {stage} {step.index} came where {expected} was due.")
        if stage is Stage.ENCODE:
            item.is_encoded = True
        elif stage is Stage.PASS:
            item.state = _mix(item.state, item.passes_done)
            item.passes_done += 1
        else:
            return self._decode(item, stage is Stage.PREVIEW)
        return None

    def _decode(self, item: _Item, is_preview: bool) -> Picture | None:
        item.slices_done += 1
        if item.slices_done < item.facts.num_decode_slices:
            return None
        item.slices_done = 0
        return _picture(item.spec, item.state, is_preview)


def fake_facts(shape: DenoiseShape, spec: DenoiseSpec, num_slices: int = 1) -> ItemFacts:
    """A token a 16 by 16 pixels and frame. Raises InvalidRequest as a real engine would."""
    shape.validate(spec)
    num_tokens = max(1, spec.width * spec.height // 256) * spec.num_frames
    strength = 1.0 if spec.source is None else spec.source.strength
    return ItemFacts(
        latent_shape=(spec.num_frames, spec.height, spec.width),
        num_tokens=num_tokens,
        num_passes=max(1, round(spec.num_steps * strength)),
        num_rows=1 if spec.guidance is None else 2,
        num_decode_slices=num_slices,
        state_bytes=64,
    )


def expected_picture(shape: DenoiseShape, spec: DenoiseSpec) -> Picture:
    """What a FakeDenoiseEngine must paint."""
    state = _digest(spec)
    for index in range(fake_facts(shape, spec).num_passes):
        state = _mix(state, index)
    return _picture(spec, state, False)


def _digest(spec: DenoiseSpec) -> bytes:
    """Of all but the id: another replica gives the same picture."""
    return hashlib.blake2b(msgspec.msgpack.encode(structs.replace(spec, item_id=0)), digest_size=16).digest()


def _mix(state: bytes, index: int) -> bytes:
    return hashlib.blake2b(state + index.to_bytes(4, "little"), digest_size=16).digest()


def _picture(spec: DenoiseSpec, state: bytes, is_preview: bool) -> Picture:
    size = spec.width * spec.height * 3 * spec.num_frames
    rgb = (state * (size // len(state) + 1))[:size]
    return Picture(spec.item_id, spec.width, spec.height, rgb, 0, spec.num_frames, is_preview)
