"""What a denoise step runs: whose turn it is, who shares the step, and what is loaded meanwhile. Pure.

who is finished with passes and delays nobody -> who waited for too long, within its share -> who can be in time, the
first due first -> who is late, a model at a time -> who has all the time in the world
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from math import inf

from msgspec import Struct

from speciate.core.denoise import Stage
from speciate.core.denoise_scheduler import Asset, LoadPlan
from speciate.scheduling.denoise.item import Item
from speciate.scheduling.denoise.outlook import Outlook
from speciate.scheduling.denoise.pass_batch import BatchBounds, best_batch, can_share
from speciate.scheduling.denoise.state import DenoiseState
from speciate.scheduling.denoise.turns import ModelGroup, first_group

MAX_TRIES = 16
"""Leaders that are tried where the device's other users leave little time."""


class Choice(Struct, frozen=True):
    """The step to run."""

    items: tuple[Item, ...]
    predicted_s: float
    is_late_turn: bool = False
    """Whether it is charged to the turn of its model."""
    is_rescue: bool = False
    """Whether it is charged to the share of those that waited for too long."""


def choose_step(state: DenoiseState, now_s: float, within_s: float) -> Choice | None:
    """The most urgent step that is expected to take at most `within_s`, margin included."""
    outlook = state.look_out(now_s)
    state.num_uses += 1
    for choice in islice(_choices(state, outlook, now_s, within_s), MAX_TRIES):
        if state.times.gamma * choice.predicted_s <= within_s:
            return choice
    return None


def _choices(state: DenoiseState, outlook: Outlook, now_s: float, within_s: float) -> Iterator[Choice]:
    ready = [item for item in outlook.in_time if state.is_ready(item)]
    late = [item for item in outlook.late if state.is_ready(item)]
    patient = [item for item in outlook.patient if state.is_ready(item)]
    everyone = [*ready, *late, *patient]

    def choice(leader: Item, is_late_turn: bool = False, is_rescue: bool = False) -> Choice:
        items = _shared(state, outlook, leader, everyone, now_s, within_s)
        return Choice(tuple(items), _predict_s(state, items), is_late_turn, is_rescue)

    finisher = next((item for item in everyone if item.stage in (Stage.DECODE, Stage.PREVIEW)), None)
    if finisher is not None and state.times.gamma * state.step_s(finisher) <= outlook.spare_s:
        yield choice(finisher)
    waited = _waited_too_long(state, late, now_s)
    if waited is not None and state.late_credit_s >= state.step_s(waited):
        yield choice(waited, is_rescue=True)
    if ready:
        yield choice(fair_leader(state, ready))
    if late:
        yield choice(_late_leader(state, outlook, late), is_late_turn=True)
    for leader in everyone:
        yield choice(leader)


def fair_leader(state: DenoiseState, ready: list[Item]) -> Item:
    """The first due; of those due about then the least served tenant's, if all due before it can wait for it."""
    first = ready[0]
    until_s = first.due_s + state.options.fairness * (first.promise_s if first.promise_s < inf else 0.0)
    equals, least_s = [first], first.slack_s
    for item in ready[1:]:
        if item.due_s > until_s:
            break
        if least_s >= state.times.gamma * item.alone_s:
            equals.append(item)
        least_s = min(least_s, item.slack_s)
    return min(equals, key=lambda item: (not item.was_started, item.tenant.served, item.due_s, item.order))


def _late_leader(state: DenoiseState, outlook: Outlook, late: list[Item]) -> Item:
    """Of the model whose turn it is; while that is being loaded, the first that can run."""
    model = state.turns.current(_backlog(outlook))
    return next((item for item in late if item.model == model), late[0])


def _backlog(outlook: Outlook) -> dict[str, int]:
    """Late items by model, in the order of the models' most urgent ones."""
    backlog: dict[str, int] = {}
    for item in outlook.late:
        backlog[item.model] = backlog.get(item.model, 0) + 1
    return backlog


def _waited_too_long(state: DenoiseState, late: Iterable[Item], now_s: float) -> Item | None:
    limit_s = now_s - state.options.starvation_s
    return min(
        (item for item in late if item.work.arrival_s <= limit_s),
        key=lambda item: (item.work.arrival_s, item.order),
        default=None,
    )


# ---- who shares the step --------------------------------------------------------------------------------------------


def _shared(
    state: DenoiseState, outlook: Outlook, leader: Item, everyone: list[Item], now_s: float, within_s: float
) -> list[Item]:
    if leader.work.is_reproducible:
        return [leader]
    if leader.stage is Stage.PASS:
        joiners = _joiners(state, outlook, leader, everyone, now_s, within_s)
        if joiners:
            return joiners
    others = [item for item in everyone if item is not leader and can_share(leader, item)]
    return _batch(state, outlook, leader, others, now_s, within_s)


def _joiners(
    state: DenoiseState, outlook: Outlook, leader: Item, everyone: list[Item], now_s: float, within_s: float
) -> list[Item]:
    """Items that would share the leader's passes if they were encoded: that is done first, if nobody is late by it."""
    waiting = [item for item in everyone if item.stage is Stage.ENCODE and _would_share(leader, item)]
    if not waiting:
        return []
    partners = [item for item in everyone if item is not leader and (item in waiting or can_share(leader, item))]
    together = _batch(state, outlook, leader, partners, now_s, inf)
    chosen = [item for item in together if item.stage is Stage.ENCODE]
    if not chosen:
        return []
    encode = _batch(state, outlook, chosen[0], chosen[1:], now_s, within_s)
    delay_s = state.times.gamma * _predict_s(state, encode)
    return encode if delay_s <= min(outlook.spare_s, state.slack_alone_s(leader, now_s), within_s) else []


def _would_share(leader: Item, other: Item) -> bool:
    return not other.work.is_reproducible and other.model == leader.model and other.shape == leader.shape


def _batch(
    state: DenoiseState, outlook: Outlook, leader: Item, others: list[Item], now_s: float, within_s: float
) -> list[Item]:
    """Whoever is in time may be delayed by its slack; whoever is late may share only what the others can spare."""
    gamma, options = state.times.gamma, state.options
    in_time = {item.item_id for item in outlook.in_time}
    spare_s = max(0.0, outlook.spare_s) / gamma

    def slack_s(item: Item) -> float:
        if item.item_id not in in_time:
            return spare_s
        return max(0.0, state.slack_alone_s(item, now_s)) / gamma

    sharing = {item.item_id for item in (leader, *others)}
    waiting_s = min((slack_s(item) for item in outlook.in_time if item.item_id not in sharing), default=inf)
    guard_s = min(guard.longest_step_s(now_s) for guard in state.guards.values())
    longest_s = min(waiting_s, guard_s / gamma, within_s / gamma)
    bounds = BatchBounds(options.max_rows, longest_s, options.min_share)
    return best_batch(leader, others, state.times, slack_s, bounds)


def _predict_s(state: DenoiseState, items: list[Item]) -> float:
    first = items[0]
    return state.times.step_s(first.model, first.cost_stage, first.tokens, sum(item.rows for item in items))


# ---- what is loaded meanwhile ----------------------------------------------------------------------------------------


def choose_load(state: DenoiseState, now_s: float) -> LoadPlan | None:
    """The load to begin now. Nothing that can be in time is displaced, unless more can then be in time."""
    residency = state.residency
    if residency is None or residency.loading is not None:
        return None
    outlook = state.look_out(now_s)
    _end_rescue(state, outlook, now_s)
    wanted = next((item for item in outlook.in_time if not state.is_ready(item)), None)
    kept = {asset for item in outlook.in_time for asset in item.assets}
    kept |= _rescued(state)
    if wanted is not None:
        load = residency.plan_load(wanted.assets, kept, now_s)
        if load is not None:
            return load
        wanted = _worth_displacing(state, outlook, now_s)
        load = None if wanted is None else residency.plan_load(wanted.assets, _rescued(state), now_s)
        if load is not None:
            return load
    return (
        _load_for_late(state, outlook, kept, now_s)
        or _load_for_patient(state, outlook, kept, now_s)
        or _load_at_standstill(state, outlook, now_s)
    )


def _rescued(state: DenoiseState) -> set[Asset]:
    return set() if state.rescued is None else {state.rescued}


def _end_rescue(state: DenoiseState, outlook: Outlook, now_s: float) -> None:
    """The model that was loaded for who waited for too long is like any other again once they were served, or had their
    quantum; the next one is loaded when that has been `late_share` of the time."""
    asset = state.rescued
    if asset is None or state.residency is None:
        return
    waiting = _waited_too_long(state, (item for item in outlook.late if item.assets[0] == asset), now_s)
    held_s = now_s - state.rescued_at_s
    is_over = state.residency.is_ready((asset,)) and held_s >= state.rescue_load_s + state.options.quantum_s
    if waiting is None or is_over:
        state.rescued = None
        state.rescue_after_s = now_s + held_s * (1.0 / state.options.late_share - 1.0)


def _worth_displacing(state: DenoiseState, outlook: Outlook, now_s: float) -> Item | None:
    """An item whose model should come first although all room is taken by models that can be in time."""
    items: dict[str, list[Item]] = {}
    for item in outlook.in_time:
        items.setdefault(item.model, []).append(item)
    gamma = state.times.gamma
    groups = [
        ModelGroup(
            model,
            max(state.load_s(item, now_s) for item in members),
            tuple((item.due_s, gamma * item.share_s) for item in members),
        )
        for model, members in items.items()
    ]
    first = first_group(groups, now_s)
    return next((item for item in items[first] if not state.is_ready(item)), None)


def _load_for_late(state: DenoiseState, outlook: Outlook, kept: set[Asset], now_s: float) -> LoadPlan | None:
    """For the model whose turn it is; and for who waited for too long even where others then have to be late."""
    residency = state.residency
    if residency is None or not outlook.late:
        return None
    model = state.turns.current(_backlog(outlook))
    wanted = next(item for item in outlook.late if item.model == model)
    load = residency.plan_load(wanted.assets, kept, now_s)
    if load is not None:
        return load
    cold = [item for item in outlook.late if not state.is_ready(item)]
    waited = _waited_too_long(state, cold, now_s)
    if waited is None or state.rescued not in (None, waited.assets[0]):
        return None
    if state.rescued is None and now_s < state.rescue_after_s:
        return None
    load_s = state.load_s(waited, now_s)
    load = residency.plan_load(waited.assets, (), now_s)
    if load is not None and state.rescued is None:
        state.rescued, state.rescued_at_s, state.rescue_load_s = waited.assets[0], now_s, load_s
    return load


def _load_for_patient(state: DenoiseState, outlook: Outlook, kept: set[Asset], now_s: float) -> LoadPlan | None:
    """Only where nobody else needs the room."""
    residency = state.residency
    cold = next((item for item in outlook.patient if not state.is_ready(item)), None)
    if residency is None or cold is None:
        return None
    ready = (item for item in (*outlook.late, *outlook.patient) if state.is_ready(item))
    return residency.plan_load(cold.assets, {*kept, *(asset for item in ready for asset in item.assets)}, now_s)


def _load_at_standstill(state: DenoiseState, outlook: Outlook, now_s: float) -> LoadPlan | None:
    """Where nothing can run, whoever is first gets what it needs."""
    items = [*outlook.in_time, *outlook.late, *outlook.patient]
    if state.residency is None or not items or any(state.is_ready(item) for item in items):
        return None
    return state.residency.plan_load(items[0].assets, (), now_s)


def wanted_in_host(outlook: Outlook) -> list[Asset]:
    """What the queue will need on the device, the most urgent first, each once."""
    items = (*outlook.in_time, *outlook.late, *outlook.patient)
    return list(dict.fromkeys(asset for item in items for asset in item.assets))
