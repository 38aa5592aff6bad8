"""A simulated replica: the production loop (plan, step, commit) with a calibration in place of an engine."""

from dataclasses import dataclass

from speciate.core.engine import StepPlan
from speciate.core.errors import InvalidRequest
from speciate.core.scheduler import Decision, StepOutcome, StepScheduler, TokenWork
from speciate.core.segment import Segment, Tier
from speciate.costs.step_calibration import StepCalibration, StepWork
from speciate.sim.faults import Faults
from speciate.sim.fold import TOKEN, Folding, folding_of
from speciate.sim.step_times import StepTimes
from speciate.sim.track import Tally, Track, make_track
from speciate.sim.workload import SimRequest
from speciate.sim.world import Priority, World

_ZEROS: tuple[int, ...] = tuple([TOKEN] * 65_536)


@dataclass(slots=True)
class ReplicaTotals:
    """What a replica did."""

    num_steps: int = 0
    busy_s: float = 0.0


class SimReplica:
    """Steps one scheduler in a `World`. `speed` is its share of the calibrated device."""

    def __init__(
        self,
        world: World,
        scheduler: StepScheduler,
        calibration: StepCalibration,
        tallies: dict[Tier, Tally],
        faults: Faults,
        seed: int,
        speed: float = 1.0,
        may_fold: bool = True,
    ) -> None:
        self.scheduler = scheduler
        self.totals = ReplicaTotals()
        self._world = world
        self._calibration = calibration
        self._tallies = tallies
        self._between_s = calibration.between_s
        self._times = StepTimes(calibration, faults, speed, seed)
        self._jumps = faults.jumps
        self._folding = folding_of(scheduler) if may_fold and not faults.jumps else None
        self._tracks: dict[int, Track] = {}
        self._is_stepping = False
        self._is_planned = False

    def clock_s(self) -> float:
        """What the replica's own clock shows."""
        now_s = self._world.now_s
        return now_s + sum(jump.by_s for jump in self._jumps if jump.at_s <= now_s) if self._jumps else now_s

    def add(
        self, seq_id: int, request: SimRequest, segment: Segment, tier_segment: Segment, may_downgrade: bool
    ) -> bool:
        """Queue a request, promised `segment`, scheduled as `tier_segment`. False if it can never fit."""
        now_s = self.clock_s()
        work = TokenWork(
            seq_id=seq_id,
            prompt_tokens=prompt_of(seq_id, request),
            segment=tier_segment,
            arrival_s=now_s,
            max_tokens=max(request.output_tokens, min(request.max_tokens, self._context_room(request))),
            tenant=request.tenant,
            may_downgrade=may_downgrade,
        )
        try:
            self.scheduler.add(work, now_s)
        except InvalidRequest:
            return False
        self._tracks[seq_id] = make_track(request, segment, self._tallies[request.tier])
        self._wake(self._world.now_s)
        return True

    def _context_room(self, request: SimRequest) -> int:
        return self._calibration.context_tokens - request.prompt_tokens

    def leave(self, seq_id: int) -> None:
        """The client is gone."""
        if self._tracks.pop(seq_id, None) is not None:
            self.scheduler.abort(seq_id, self.clock_s())
            self._wake(self._world.now_s)

    def stop(self) -> None:
        """The run is over; open requests are judged as they are."""
        for track in self._tracks.values():
            track.tally.stop(track, self._world.now_s)

    # ---- the loop --------------------------------------------------------------------------------------------------

    def _wake(self, at_s: float) -> None:
        if not self._is_stepping and not self._is_planned:
            self._is_planned = True
            self._world.at(at_s, Priority.PLAN, self._plan)

    def _plan(self, now_s: float) -> None:
        self._is_planned = False
        if self._is_stepping:
            return
        decision = self.scheduler.plan(self.clock_s())
        self._announce(decision)
        if decision.plan is not None:
            self._begin(decision.plan, now_s)
        elif decision.wake_s is not None:
            self._wake(now_s + max(0.0, decision.wake_s - self.clock_s()))

    def _announce(self, decision: Decision) -> None:
        for seq_id in decision.expired:
            if (track := self._tracks.pop(seq_id, None)) is not None:
                track.tally.drop()
        for seq_id, _ in decision.relegated:
            self._tracks[seq_id].tally.relegated += 1

    def _begin(self, plan: StepPlan, now_s: float) -> None:
        work = work_of(plan)
        self._is_stepping = True
        num_steps = self._num_equal_steps(plan, work)
        if self._folding is not None and num_steps > 1:
            step_s, end_s = self._fold(self._folding, plan, work, now_s, num_steps)
        else:
            step_s = self._times.step_s(work, now_s)
            end_s = now_s + step_s
        self.totals.num_steps += 1
        self.totals.busy_s += step_s
        self._world.at(end_s, Priority.STEP_ENDS, lambda end_s: self._end(plan, step_s, end_s))

    def _num_equal_steps(self, plan: StepPlan, work: StepWork) -> int:
        """How often this plan may run on end: until a sequence ends, at most."""
        if self._folding is None or work.prefill:
            return 1
        num = self._folding.num_equal_steps()
        if num == 1:
            return 1
        tracks = self._tracks
        return min(num, min([tracks[step.seq_id].left for step in plan.sequences]))

    def _fold(self, folding: Folding, plan: StepPlan, work: StepWork, now_s: float, most: int) -> tuple[float, float]:
        """Book all but the last of the steps that begin before the next event. (that last one's duration, its end)."""
        durations_s, ends_s = self._times.run_s(work, now_s, most, self._world.next_s())
        step_s, end_s = durations_s.pop(), ends_s.pop()
        if ends_s:
            self.totals.num_steps += len(ends_s)
            busy_s = self.totals.busy_s
            for duration_s in durations_s:
                busy_s += duration_s
            self.totals.busy_s = busy_s
            folding.advance(durations_s, ends_s)
            longest_s = _longest_gap_s(ends_s)
            tracks = self._tracks
            for step in plan.sequences:
                tracks[step.seq_id].see_run(ends_s, longest_s)
        return step_s, end_s

    def _end(self, plan: StepPlan, step_s: float, now_s: float) -> None:
        tokens, finished = self._deliver(plan, now_s)
        outcome = StepOutcome(plan, step_s, tuple(tokens), frozenset(finished))
        self.scheduler.commit(outcome, self.clock_s())
        self._is_stepping = False
        if not self._is_planned:
            self._is_planned = True
            self._world.soon(now_s + self._between_s, Priority.PLAN, self._plan)

    def _deliver(self, plan: StepPlan, now_s: float) -> tuple[list[tuple[int, int]], list[int]]:
        """Every client sees its token. (what was sampled, who is done)."""
        tokens: list[tuple[int, int]] = []
        finished: list[int] = []
        tracks = self._tracks
        for step in plan.sequences:
            if step.samples:
                seq_id = step.seq_id
                tokens.append((seq_id, TOKEN))
                track = tracks.get(seq_id)
                if track is not None and track.see(now_s):
                    finished.append(seq_id)
        for seq_id in finished:
            tracks.pop(seq_id).end()
        return tokens, finished


def _longest_gap_s(times_s: list[float]) -> float:
    longest_s, last_s = 0.0, times_s[0]
    for at_s in times_s:
        if at_s - last_s > longest_s:
            longest_s = at_s - last_s
        last_s = at_s
    return longest_s


def work_of(plan: StepPlan) -> StepWork:
    """Counts of a plan, as the engine would see them."""
    decodes = context = prefill = chunk_context = 0
    pairs = 0.0
    for step in plan.sequences:
        num, start = len(step.tokens), step.start
        if num == 1 and start:
            decodes += 1
            context += start
        else:
            prefill += num
            chunk_context += start
            pairs += num * (start + num / 2)
    return StepWork(decodes, context, prefill, pairs, chunk_context)


def prompt_of(seq_id: int, request: SimRequest) -> tuple[int, ...]:
    """Tokens that are equal where prompts are said to be equal, and differ at once where not."""
    if not request.spans:
        return (-seq_id,) + _ZEROS[: request.prompt_tokens - 1]  # noqa: RUF005 (one copy less)
    return tuple(token for span in request.spans for token in (span.id, *_ZEROS[: span.num_tokens - 1]))
