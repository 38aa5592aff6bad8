"""The denoise scheduler: deadlines per item, preemption between passes, batches where they pay. Pure.

One round: `plan` drops what expired, looks who can be in time (`outlook`), chooses the step (`denoise_choice`) and what
is loaded meanwhile (`residency`); the engine computes; `commit` books what came back. A pass is the quantum: whoever is
more urgent gets the next one, and the state of who is paused is a few kilobytes.
"""

from heapq import heappop, heappush
from math import inf

from msgspec import structs

from speciate.core.arbiter import Wish
from speciate.core.denoise import DenoisePlan, ItemStep, Stage
from speciate.core.denoise_scheduler import (
    Asset,
    DenoiseDecision,
    DenoiseLoad,
    DenoiseOutcome,
    DenoiseWork,
    Forecast,
    StepDone,
)
from speciate.core.errors import InvalidRequest, InvariantError
from speciate.core.segment import Tier
from speciate.costs.pass_table import PassTable
from speciate.scheduling.denoise.choice import Choice, choose_load, choose_step, wanted_in_host
from speciate.scheduling.denoise.item import Item, assets_of, first_stage, promise_of
from speciate.scheduling.denoise.options import DenoiseOptions
from speciate.scheduling.denoise.pass_time import PassTimeModel
from speciate.scheduling.denoise.promise_guard import PromiseGuard
from speciate.scheduling.denoise.report import check_state, denoise_load, device_claims, device_guards, forecast_of
from speciate.scheduling.denoise.residency import Residency
from speciate.scheduling.denoise.state import DenoiseState
from speciate.scheduling.denoise.turns import Turns
from speciate.scheduling.sequence import BATCH
from speciate.scheduling.tenants import Tenant

DEFAULTS = DenoiseOptions()
MICROSECONDS = 1e6
"""Service of tenants is counted in whole ones."""


class DenoiseScheduler:
    """Implements the protocol of this name, `Sharer` and `Forecaster`, for all image and video models of a device."""

    def __init__(
        self,
        table: PassTable,
        residency: Residency | None = None,
        options: DenoiseOptions = DEFAULTS,
    ) -> None:
        self._options = options
        self._state = DenoiseState(
            options=options,
            times=PassTimeModel(table, options.min_margin, options.max_margin),
            residency=residency,
            turns=Turns(options.quantum_s),
            guards={tier: PromiseGuard(options.arm_s) for tier in Tier if tier is not BATCH},
        )
        self._expiries: list[tuple[float, int, Item]] = []
        self._num_arrivals = 0
        self._num_plans = 0
        self._in_flight: tuple[DenoisePlan, Choice] | None = None
        self._before: tuple[Item, ...] = ()
        """Items of the last pass that was committed."""
        self._wasted_s = 0.0
        self._num_pauses = 0

    def add(self, work: DenoiseWork, now_s: float) -> None:
        """Queue an item. Raises InvalidRequest if it can never run here or its id is in use."""
        state = self._state
        self._refuse_impossible(work)
        self._num_arrivals += 1
        item = self._item(work, state.tenants.join(work.tenant), self._num_arrivals)
        state.live[item.item_id] = item
        state.is_outdated = True
        if state.residency is not None:
            state.residency.enter(item.assets, now_s)
        if work.deadline_s is not None:
            heappush(self._expiries, (work.deadline_s, item.order, item))
        if item.tier is not BATCH:
            state.guards[item.tier].observe(item.promise_s, state.times.gamma * state.remaining_s(item), now_s)

    def abort(self, item_id: int, now_s: float) -> None:
        """Forget an item; one in the step that runs is let go when that is committed."""
        item = self._state.live.get(item_id)
        if item is not None:
            self._drop(item)

    def plan(self, now_s: float, within_s: float = inf) -> DenoiseDecision:
        """Decide the next step and load. Raises InvariantError while a step is in flight."""
        if self._in_flight is not None:
            raise InvariantError("plan called twice without a commit in between")
        expired = self._expire(now_s)
        relegated = self._relegate(now_s)
        load = choose_load(self._state, now_s)
        fetch, drop = self._move_in_host(now_s)
        choice = choose_step(self._state, now_s, within_s)
        plan = None if choice is None else self._begin(choice)
        return DenoiseDecision(
            plan=plan,
            predicted_s=0.0 if choice is None else choice.predicted_s,
            load=load,
            fetch=fetch,
            drop=drop,
            paused=self._pause() if choice is not None and choice.items[0].stage is Stage.PASS else (),
            relegated=relegated,
            expired=expired,
            wake_s=None if plan is not None else self._next_expiry_s(),
        )

    def commit(self, outcome: DenoiseOutcome, now_s: float) -> None:
        """Book the step that `plan` gave, or a load or fetch that it asked for."""
        state = self._state
        if not isinstance(outcome, StepDone):
            if state.residency is None:
                raise InvariantError("a load ended, but nothing is ever loaded here")
            state.residency.commit(outcome, now_s)
            state.is_outdated = True
            return
        if self._in_flight is None or outcome.plan.step_id != self._in_flight[0].step_id:
            raise InvariantError(f"commit of step {outcome.plan.step_id}, which is not in flight")
        plan, choice = self._in_flight
        self._in_flight = None
        self._charge(choice, outcome.observed_s)
        if outcome.is_failed:
            self._wasted_s += outcome.observed_s
        else:
            self._observe(plan, choice, outcome)
            self._advance(choice, outcome)
        if plan.stage is Stage.PASS:
            self._before = choice.items

    def wish(self, now_s: float) -> Wish:
        """How urgently it wants the device, and what it cannot bear of others."""
        return Wish(device_claims(self._state, now_s), device_guards(self._state, now_s))

    def forecast(self, work: DenoiseWork, now_s: float, num_items: int = 1) -> Forecast:
        """What would become of the last of `num_items` like it if they were added now. Changes nothing."""
        item = self._item(work, Tenant(work.tenant), self._num_arrivals + 1)
        return forecast_of(self._state, item, num_items, now_s)

    def load(self, now_s: float) -> DenoiseLoad:
        """O(live items)."""
        return denoise_load(self._state, self._wasted_s, self._num_pauses, now_s)

    def check(self) -> None:
        """Raise InvariantError if items do not add up. Costs O(live items)."""
        check_state(self._state)

    # ---- in and out ------------------------------------------------------------------------------------------------

    def _refuse_impossible(self, work: DenoiseWork) -> None:
        facts, residency = work.facts, self._state.residency
        if work.item_id in self._state.live:
            raise InvalidRequest(f"item id {work.item_id} is in use; give each item its own")
        if facts.num_passes < 1 or facts.num_rows < 1 or facts.num_decode_slices < 1:
            raise InvalidRequest(
                f"{facts.num_passes} passes of {facts.num_rows} rows, decoded in {facts.num_decode_slices} slices; all "
                "must be at least 1"
            )
        if not 0 <= facts.passes_done <= facts.num_passes:
            raise InvalidRequest(f"{facts.passes_done} of {facts.num_passes} passes are done; that is no checkpoint")
        if list(work.preview_after) != sorted(set(work.preview_after)):
            raise InvalidRequest(f"previews after passes {work.preview_after}; they must rise")
        if facts.num_rows > self._options.max_rows:
            raise InvalidRequest(f"a pass of {facts.num_rows} rows; at most {self._options.max_rows} run here")
        if residency is not None and not residency.can_ever_fit(assets_of(work)):
            raise InvalidRequest(f"{work.model} with its adapters does not fit this device; use fewer adapters")

    def _item(self, work: DenoiseWork, tenant: Tenant, order: int) -> Item:
        promise_s = promise_of(work, self._options.batch_window_s)
        previews = tuple(num for num in work.preview_after if work.facts.passes_done < num < work.facts.num_passes)
        return Item(
            work=structs.replace(work, preview_after=previews),
            item_id=work.item_id,
            order=order,
            tier=work.segment.tier,
            tenant=tenant,
            promise_s=promise_s,
            due_s=work.arrival_s + promise_s,
            assets=assets_of(work),
            stage=first_stage(work),
            passes_done=work.facts.passes_done,
        )

    def _drop(self, item: Item) -> None:
        """Nobody waits for it any more; what was spent on it is waste."""
        self._wasted_s += item.spent_s
        self._state.leave(item)

    def _expire(self, now_s: float) -> tuple[int, ...]:
        expired = []
        while self._expiries and (self._expiries[0][2].is_gone or self._expiries[0][0] <= now_s):
            item = heappop(self._expiries)[2]
            if not item.is_gone:
                self._drop(item)
                expired.append(item.item_id)
        return tuple(expired)

    def _next_expiry_s(self) -> float | None:
        while self._expiries and self._expiries[0][2].is_gone:
            heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None

    def _relegate(self, now_s: float) -> tuple[tuple[int, Tier], ...]:
        """Who is late and may be slower moves to batch, once: it then holds no faster work up."""
        relegated = []
        for item in self._state.look_out(now_s).late:
            if item.work.may_downgrade and item.tier is not BATCH:
                item.tier, item.was_relegated = BATCH, True
                item.promise_s = self._options.batch_window_s if item.work.deadline_s is None else item.promise_s
                item.due_s = item.work.arrival_s + item.promise_s
                relegated.append((item.item_id, item.tier))
                self._state.is_outdated = True
        return tuple(relegated)

    # ---- a step ----------------------------------------------------------------------------------------------------

    def _begin(self, choice: Choice) -> DenoisePlan:
        self._num_plans += 1
        leader = choice.items[0]
        self._state.tenants.raise_level(leader.tenant)
        for item in choice.items:
            item.was_started = True
            item.step_id = self._num_plans
        steps = tuple(ItemStep(item.item_id, item.index) for item in choice.items)
        plan = DenoisePlan(self._num_plans, leader.model, leader.stage, steps)
        self._in_flight = (plan, choice)
        return plan

    def _pause(self) -> tuple[int, ...]:
        """Those of the last pass that would go on and do not: something more urgent took their place."""
        paused = tuple(
            item
            for item in self._before
            if not item.is_gone and item.stage is Stage.PASS and item.step_id < self._num_plans
        )
        for item in paused:
            item.num_pauses += 1
        self._num_pauses += len(paused)
        return tuple(item.item_id for item in paused)

    def _move_in_host(self, now_s: float) -> tuple[tuple[Asset, ...], tuple[Asset, ...]]:
        residency = self._state.residency
        if residency is None:
            return (), ()
        return residency.plan_fetch(wanted_in_host(self._state.look_out(now_s)), now_s)

    def _charge(self, choice: Choice, observed_s: float) -> None:
        """Each item has an equal part of the step's seconds, and so has its tenant."""
        state, part_s = self._state, observed_s / len(choice.items)
        for item in choice.items:
            item.spent_s += part_s
            item.tenant.served += round(part_s * MICROSECONDS)
        if choice.is_late_turn:
            state.turns.charge(choice.items[0].model, observed_s)
        if choice.is_rescue:
            state.late_credit_s -= observed_s
        elif state.outlook.late:
            earned_s = state.options.late_share * observed_s
            state.late_credit_s = min(state.late_credit_s + earned_s, state.options.quantum_s)
        else:
            state.late_credit_s = 0.0

    def _observe(self, plan: DenoisePlan, choice: Choice, outcome: StepDone) -> None:
        if outcome.lost:
            return
        first, num_rows = choice.items[0], sum(item.rows for item in choice.items)
        self._state.times.observe(plan.model, first.cost_stage, first.tokens, num_rows, outcome.observed_s)

    def _advance(self, choice: Choice, outcome: StepDone) -> None:
        part_s = outcome.observed_s / len(choice.items)
        for item in choice.items:
            if item.is_gone:
                self._wasted_s += part_s
            elif item.item_id in outcome.lost:
                self._drop(item)
            else:
                item.advance()
                if item.is_done:
                    self._state.leave(item)
