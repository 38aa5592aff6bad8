"""What the decisions of a denoise step share: who is there, what is loaded, what was learnt. The scheduler owns it."""

from dataclasses import dataclass, field
from math import inf

from speciate.core.denoise import Stage
from speciate.core.denoise_scheduler import Asset
from speciate.core.segment import Tier
from speciate.scheduling.denoise.item import Item
from speciate.scheduling.denoise.options import DenoiseOptions
from speciate.scheduling.denoise.outlook import Outlook, make_outlook
from speciate.scheduling.denoise.pass_time import KindSeconds, PassTimeModel
from speciate.scheduling.denoise.promise_guard import PromiseGuard
from speciate.scheduling.denoise.residency import Residency
from speciate.scheduling.denoise.turns import Turns
from speciate.scheduling.tenants import Tenants

LEAST_USES = 4
ITEMS_A_USE = 16
FRESH_S = 0.5
"""An outlook serves some steps, more with more items, but not for long: what changes who can be in time is news, and
then it is made anew at once."""


@dataclass(slots=True)
class DenoiseState:
    """Everything a decision may read or change."""

    options: DenoiseOptions
    times: PassTimeModel
    residency: Residency | None
    """None: everything that is asked for is on the device."""
    turns: Turns
    guards: dict[Tier, PromiseGuard]
    tenants: Tenants = field(default_factory=Tenants)
    live: dict[int, Item] = field(default_factory=dict)
    """Every item by id, until it finished, expired or was aborted."""
    outlook: Outlook = field(default_factory=Outlook)
    is_outdated: bool = True
    num_uses: int = 0
    """Plans since the outlook was made."""
    looked_s: float = -inf
    late_credit_s: float = 0.0
    """Device seconds that items which wait for too long may take."""
    rescued: Asset | None = None
    """A model that was loaded for items which waited for too long; it stays for a quantum."""
    rescued_at_s: float = -inf
    rescue_load_s: float = 0.0
    """What that load was expected to take."""
    rescue_after_s: float = -inf
    """No such load before this."""

    def is_ready(self, item: Item) -> bool:
        return self.residency is None or self.residency.is_ready(item.assets)

    def load_s(self, item: Item, now_s: float) -> float:
        return 0.0 if self.residency is None else self.residency.missing_s(item.assets, now_s)

    def step_s(self, item: Item) -> float:
        """Of its next step, alone."""
        return self.times.step_s(item.model, item.cost_stage, item.tokens, item.rows)

    def remaining_s(self, item: Item) -> float:
        """Seconds of steps that it still needs if it shares none."""
        cost = self.times.kind(item.kind)
        return cost.pass_s * (item.work.facts.num_passes - item.passes_done) + _around_s(item, cost)

    def slack_alone_s(self, item: Item, now_s: float) -> float:
        """How long it may wait if nobody were before it, margin included."""
        return item.due_s - now_s - self.times.gamma * self.remaining_s(item)

    def look_out(self, now_s: float) -> Outlook:
        """The outlook; a new one if something arrived or left, or the last one served its time."""
        has_served = self.num_uses >= max(LEAST_USES, len(self.live) // ITEMS_A_USE)
        if self.is_outdated or has_served or now_s - self.looked_s >= FRESH_S:
            self._set_work()
            items = self.live.values()
            self.outlook = make_outlook(items, lambda item: self.load_s(item, now_s), self.times.gamma, now_s)
            self.is_outdated, self.num_uses, self.looked_s = False, 0, now_s
        return self.outlook

    def _set_work(self) -> None:
        peers: dict[tuple[str, tuple[int, ...]], int] = {}
        for item in self.live.values():
            peers[item.model, item.shape] = peers.get((item.model, item.shape), 0) + 1
        for item in self.live.values():
            item.alone_s = self.remaining_s(item)
            item.share_s = self.share_s(item, peers[item.model, item.shape])

    def share_s(self, item: Item, num_peers: int) -> float:
        """Seconds of the device that it still takes beside so many of its model and shape, itself included."""
        num = 1 if item.work.is_reproducible else num_peers
        pass_s = self.times.shared_pass_s(item.kind, num, self.options.max_rows, self.options.min_share)
        passes_left = item.work.facts.num_passes - item.passes_done
        return pass_s * passes_left + _around_s(item, self.times.kind(item.kind))

    def leave(self, item: Item) -> None:
        """It ended or is dropped."""
        item.is_gone = True
        self.is_outdated = True
        self.tenants.leave(item.tenant)
        del self.live[item.item_id]
        if self.residency is not None:
            self.residency.leave(item.assets)


def _around_s(item: Item, cost: KindSeconds) -> float:
    """What it still needs beside passes."""
    encode_s = cost.encode_s if item.stage is Stage.ENCODE else 0.0
    return encode_s + cost.slice_s * item.slices_left
