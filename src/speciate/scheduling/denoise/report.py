"""What a denoise scheduler says about itself, to admission, to the arbiter and to `check`. Changes nothing."""

from collections.abc import Iterator
from itertools import chain
from math import inf

from speciate.core.arbiter import DeviceClaim, DeviceGuard
from speciate.core.denoise import Stage
from speciate.core.denoise_scheduler import Asset, DenoiseLoad, Forecast, Pending
from speciate.core.errors import InvariantError
from speciate.core.segment import Tier
from speciate.scheduling.denoise.item import Item
from speciate.scheduling.denoise.outlook import find_room
from speciate.scheduling.denoise.state import DenoiseState


def device_claims(state: DenoiseState, now_s: float) -> tuple[DeviceClaim, ...]:
    """Of each tier with work that could run now. Work that is late anyway has all the time in the world."""
    outlook, laxities, steps = state.look_out(now_s), dict[Tier, float](), dict[Tier, float]()
    for item in outlook.in_time:
        if state.is_ready(item):
            laxity_s = min(item.slack_s, state.slack_alone_s(item, now_s))
            laxities[item.tier] = min(laxity_s, laxities.get(item.tier, inf))
            steps.setdefault(item.tier, state.step_s(item))
    for item in chain(outlook.late, outlook.patient):
        if item.tier not in laxities and state.is_ready(item):
            laxities[item.tier] = inf
            steps.setdefault(item.tier, state.step_s(item))
    gamma = state.times.gamma
    return tuple(DeviceClaim(tier, laxity_s, gamma * steps[tier]) for tier, laxity_s in laxities.items())


def device_guards(state: DenoiseState, now_s: float) -> tuple[DeviceGuard, ...]:
    """By tier, while such arrivals are expected."""
    found = ((tier, guard.longest_step_s(now_s)) for tier, guard in state.guards.items())
    return tuple(DeviceGuard(tier, longest_s) for tier, longest_s in found if longest_s < inf)


def forecast_of(state: DenoiseState, item: Item, num_items: int, now_s: float) -> Forecast:
    """For items that are not in the books: the last of `num_items` like this one."""
    outlook = state.look_out(now_s)
    peers = sum(other.model == item.model and other.shape == item.shape for other in state.live.values())
    item.alone_s = state.remaining_s(item)
    item.share_s = num_items * state.share_s(item, peers + num_items)
    room = find_room(outlook, item, lambda it: state.load_s(it, now_s), state.times.gamma, now_s)
    displaced_s = 0.0 if state.residency is None else state.residency.displaced_s(item.assets, now_s)
    load_s = state.load_s(item, now_s)
    return Forecast(item.alone_s, item.due_s, room.finish_s, room.earliest_due_s, load_s, displaced_s)


def denoise_load(state: DenoiseState, wasted_s: float, num_pauses: int, now_s: float) -> DenoiseLoad:
    """A snapshot; O(live items)."""
    return DenoiseLoad(
        pending=tuple(_pending(state, now_s)),
        margin=state.times.gamma,
        prediction_error=state.times.error.mean,
        resident=() if state.residency is None else state.residency.on_device,
        wasted_s=wasted_s,
        num_pauses=num_pauses,
    )


def _pending(state: DenoiseState, now_s: float) -> Iterator[Pending]:
    outlook, end_s, loaded = state.look_out(now_s), now_s, set[str]()
    for item in chain(outlook.in_time, outlook.late, outlook.patient):
        if item.model not in loaded:
            loaded.add(item.model)
            end_s += state.load_s(item, now_s)
        end_s += item.share_s
        work_s = state.remaining_s(item)
        yield Pending(
            item_id=item.item_id,
            tier=item.tier,
            model=item.model,
            due_s=item.due_s,
            work_s=work_s,
            arrival_s=item.work.arrival_s,
            passes_done=item.passes_done,
            num_passes=item.work.facts.num_passes,
            stage=item.stage,
            eta_s=max(end_s, now_s + work_s),
        )


def check_state(state: DenoiseState) -> None:
    """Raise InvariantError if items, assets or tenants do not add up."""
    for item_id, item in state.live.items():
        _check_item(item_id, item)
    if not state.is_outdated:
        _check_outlook(state)
    if state.residency is not None:
        state.residency.check(_queued(state))
    state.turns.check()
    by_tenant: dict[int, int] = {}
    for item in state.live.values():
        by_tenant[id(item.tenant)] = by_tenant.get(id(item.tenant), 0) + 1
    for item in state.live.values():
        if item.tenant.num_live != by_tenant[id(item.tenant)]:
            raise InvariantError(f"tenant {item.tenant.name} counts {item.tenant.num_live} items")


def _check_item(item_id: int, item: Item) -> None:
    facts = item.work.facts
    if item.is_gone or item.item_id != item_id:
        raise InvariantError(f"item {item_id} is gone but listed")
    if not 0 <= item.passes_done <= facts.num_passes or not 0 <= item.slices_done < facts.num_decode_slices:
        raise InvariantError(f"item {item_id} stands at pass {item.passes_done}, slice {item.slices_done}")
    if (item.stage is Stage.DECODE) != (item.passes_done == facts.num_passes):
        raise InvariantError(f"item {item_id} is in {item.stage} after {item.passes_done} of {facts.num_passes} passes")


def _check_outlook(state: DenoiseState) -> None:
    outlook = state.outlook
    listed = [item.item_id for item in chain(outlook.in_time, outlook.late, outlook.patient)]
    if sorted(listed) != sorted(state.live):
        raise InvariantError(f"the outlook lists {len(listed)} items, {len(state.live)} are there")


def _queued(state: DenoiseState) -> dict[Asset, int]:
    queued: dict[Asset, int] = {}
    for asset in chain.from_iterable(item.assets for item in state.live.values()):
        queued[asset] = queued.get(asset, 0) + 1
    return queued
