"""The arbiter over the real token and denoise schedulers, on a virtual clock: promises kept, no second wasted."""

from dataclasses import dataclass, field
from random import Random

from speciate.core.arbiter import Wish
from speciate.core.denoise import ItemFacts, Stage
from speciate.core.denoise_scheduler import DenoiseWork, StepDone
from speciate.core.engine import TokenEngineShape
from speciate.core.scheduler import StepOutcome, TokenWork
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.pass_table import PassCost, PassTable
from speciate.scheduling.denoise.scheduler import DenoiseScheduler
from speciate.scheduling.device.arbiter import Arbiter
from speciate.scheduling.device.shared_tokens import SharedTokenScheduler
from speciate.scheduling.options import StepTimePrior, TokenSchedulerOptions
from speciate.scheduling.token import TokenScheduler

SHAPE = TokenEngineShape("m", 1000, 4096, 16, 4000, 1, ())
PRIOR = StepTimePrior(base_s=0.004, decode_s=0.0005, context_s=1e-7, prefill_s=0.0002, prefill_context_s=1e-9)
TABLE = PassTable("test", (PassCost("film", Stage.PASS, 4096, 1, 0.04),), unknown_s=0.04, unknown_tokens=4096)
VOICE = Segment("voice", Tier.REALTIME, Slo(ttft_s=0.15, tpot_s=0.1))
FILM = Segment("film", Tier.INTERACTIVE, Slo(e2e_s=600.0))


@dataclass
class World:
    """One device: text arrives at random, a film is never done."""

    seed: int
    rate: float
    has_film: bool = True
    now_s: float = 0.0
    ttfts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    busy_s: dict[str, float] = field(default_factory=lambda: {"text": 0.0, "film": 0.0})
    num_passes: int = 0

    def run(self, until_s: float) -> None:
        rng = Random(self.seed)
        text = SharedTokenScheduler(TokenScheduler(SHAPE, TokenSchedulerOptions(prior=PRIOR)))
        film, arbiter = DenoiseScheduler(TABLE), Arbiter()
        if self.has_film:
            film.add(DenoiseWork(1, "film", ItemFacts((1,), 4096, 100_000), FILM, 0.0), 0.0)
        arrivals = [(0.0, 0)]
        while arrivals[-1][0] < until_s:
            arrivals.append((arrivals[-1][0] + rng.expovariate(self.rate), len(arrivals)))
        arrivals = arrivals[1:]
        live: dict[int, tuple[TokenWork, int, float]] = {}
        while self.now_s < until_s:
            while arrivals and arrivals[0][0] <= self.now_s:
                at_s, seq_id = arrivals.pop(0)
                work = TokenWork(seq_id, (seq_id + 7,) * 40, VOICE, at_s, 20)
                text.add(work, self.now_s)
                live[seq_id] = (work, 0, at_s)
            wishes = {"text": text.wish(self.now_s), "film": film.wish(self.now_s)}
            grant = arbiter.choose(wishes)
            if grant is None:
                assert wishes["text"] == Wish((), wishes["text"].guards) or not self.has_film
                self.now_s = arrivals[0][0] if arrivals else until_s
                continue
            began_s = self.now_s
            if grant.name == "text":
                self._text(text, grant.within_s, live, rng)
            else:
                self._film(film, grant.within_s, rng)
            arbiter.charge(grant, self.now_s - began_s)
            self.busy_s[grant.name] += self.now_s - began_s

    def _text(
        self,
        text: SharedTokenScheduler,
        within_s: float,
        live: dict[int, tuple[TokenWork, int, float]],
        rng: Random,
    ) -> None:
        text.allow(within_s)
        decision = text.plan(self.now_s)
        assert decision.plan is not None
        observed_s = decision.predicted_s * rng.uniform(0.97, 1.03)
        self.now_s += observed_s
        tokens, finished = [], set()
        for step in decision.plan.sequences:
            if step.samples:
                work, num, last_s = live[step.seq_id]
                (self.gaps if num else self.ttfts).append(self.now_s - last_s)
                tokens.append((step.seq_id, 1))
                live[step.seq_id] = (work, num + 1, self.now_s)
                if num + 1 == 20:
                    finished.add(step.seq_id)
                    del live[step.seq_id]
        text.commit(StepOutcome(decision.plan, observed_s, tuple(tokens), frozenset(finished)), self.now_s)

    def _film(self, film: DenoiseScheduler, within_s: float, rng: Random) -> None:
        decision = film.plan(self.now_s, within_s)
        assert decision.plan is not None
        observed_s = decision.predicted_s * rng.uniform(0.97, 1.03)
        self.now_s += observed_s
        self.num_passes += decision.plan.stage is Stage.PASS
        film.commit(StepDone(decision.plan, observed_s), self.now_s)


def share_within(found: list[float], limit_s: float) -> float:
    return sum(value <= limit_s for value in found) / len(found)


def test_a_voice_keeps_its_promise_beside_a_film_that_gets_what_is_left() -> None:
    alone = World(seed=3, rate=3.0, has_film=False)
    alone.run(120.0)
    beside = World(seed=3, rate=3.0)
    beside.run(120.0)
    assert share_within(beside.ttfts, 0.15) >= 0.99
    assert share_within(beside.gaps, 0.1) >= 0.99
    left_s = 120.0 - alone.busy_s["text"]
    assert beside.num_passes * 0.04 >= 0.85 * left_s
    assert beside.busy_s["text"] + beside.busy_s["film"] >= 0.99 * 120.0


def test_without_a_film_text_is_as_fast_as_ever() -> None:
    alone = World(seed=3, rate=3.0, has_film=False)
    alone.run(60.0)
    assert max(alone.ttfts) < 0.15
