"""Which checkpoints and adapters are on the device, in host memory, or on disk. Pure: it says what to move.

    disk --fetch--> host memory --load--> device          (background; one fetch and one load at a time)
          <--drop--             <--unload--               (at once: the bytes are still below)

What leaves is what is worth least a byte: expected uses in the near future (those that queue, and the arrival rate
times a horizon) times the seconds to have it back, over its bytes (GreedyDual-Size-Frequency, Cherkasova 1998, with
the queue known). An adapter is on the device only while its model is.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from math import expm1

from msgspec import Struct

from speciate.core.denoise_scheduler import Asset, FetchDone, LoadDone, LoadPlan
from speciate.core.errors import InvariantError
from speciate.scheduling.denoise.demand import Demand

BELOW_DEVICE = 0.25
"""Worth of a copy in host memory while the asset is on the device, as a share of one that is not."""
LOAD_FORGETTING = 0.3
"""Weight of the newest observed load."""


class AssetFacts(Struct, frozen=True):
    """What moving an asset costs; corrected by what is observed."""

    asset: Asset
    device_bytes: int
    host_bytes: int
    load_s: float
    """Host memory to device."""
    fetch_s: float
    """Disk to host memory."""


class ResidencyOptions(Struct, frozen=True):
    """What an operator may turn."""

    device_bytes: int
    """For checkpoints and adapters; what passes need is not part of it."""
    host_bytes: int
    horizon_s: float = 300.0
    """Uses expected within so long count beside those that queue."""
    short_half_life_s: float = 600.0
    long_half_life_s: float = 86_400.0
    short_weight: float = 0.5
    """Weight of the short scale in an asset's rate, 0..1."""


FactsOf = Callable[[Asset], AssetFacts]


class AssetUse(Struct, frozen=True, gc=False):
    """What is known of an asset's use when something has to leave."""

    uses: float
    """Expected within the horizon: those that queue, and arrivals at the present rate."""
    last_s: float
    """When it was last asked for."""
    back_s: float
    """Seconds to have it back."""
    num_bytes: int


WorthOf = Callable[[AssetUse], float]


def expected_worth(use: AssetUse) -> float:
    """Seconds that keeping a byte of it is expected to save."""
    return use.uses * use.back_s / max(1, use.num_bytes)


def recency(use: AssetUse) -> float:
    """For comparisons: what was used longest ago leaves (LRU)."""
    return use.last_s


class Residency:
    """Owned by a denoise scheduler. `facts_of` answers for any asset that may be asked for, and is pure."""

    def __init__(
        self,
        options: ResidencyOptions,
        facts_of: FactsOf,
        on_device: Iterable[Asset] = (),
        worth_of: WorthOf = expected_worth,
    ) -> None:
        self._options = options
        self._worth_of = worth_of
        self._facts_of = facts_of
        self._demand = Demand(options.short_half_life_s, options.long_half_life_s, options.short_weight)
        self._queued: dict[Asset, int] = {}
        self._device: dict[Asset, int] = {}
        self._host: dict[Asset, int] = {}
        self._observed: dict[tuple[Asset, bool], float] = {}
        self._loading: LoadPlan | None = None
        self._load_ends_s = 0.0
        self._fetching: Asset | None = None
        self._drops: list[Asset] = []
        self._num_loads = 0
        for asset in on_device:
            self._put_on_device(asset)

    # ---- demand ----------------------------------------------------------------------------------------------------

    def enter(self, assets: Iterable[Asset], now_s: float) -> None:
        """An item that needs them arrived."""
        for asset in assets:
            self._demand.observe(asset, now_s)
            self._queued[asset] = self._queued.get(asset, 0) + 1

    def leave(self, assets: Iterable[Asset]) -> None:
        """It is done or gone."""
        for asset in assets:
            left = self._queued[asset] - 1
            if left:
                self._queued[asset] = left
            else:
                del self._queued[asset]

    def worth(self, asset: Asset, now_s: float) -> float:
        """Of keeping it on the device."""
        facts = self._facts_of(asset)
        return self._worth_of(self._use(asset, self._reload_s(facts), facts.device_bytes, now_s))

    # ---- where it is -----------------------------------------------------------------------------------------------

    @property
    def on_device(self) -> tuple[Asset, ...]:
        return tuple(self._device)

    @property
    def loading(self) -> LoadPlan | None:
        return self._loading

    def is_ready(self, assets: Iterable[Asset]) -> bool:
        return all(asset in self._device for asset in assets)

    def missing_s(self, assets: Iterable[Asset], now_s: float) -> float:
        """Seconds until all of them could be on the device, one after the other."""
        missing_s = 0.0
        for asset in assets:
            if self._loading is not None and asset == self._loading.asset:
                missing_s += max(0.0, self._load_ends_s - now_s)
            elif asset not in self._device:
                missing_s += self._reload_s(self._facts_of(asset))
        return missing_s

    def displaced_s(self, assets: Iterable[Asset], now_s: float) -> float:
        """Seconds of reloading that are expected to follow from making room for these: of each that would leave, the
        time to have it back times the chance that it is asked for within the horizon."""
        missing = [asset for asset in assets if asset not in self._device]
        need = sum(self._facts_of(asset).device_bytes for asset in missing)
        leaving = self._cheapest(need, set(missing), now_s) or {}
        return sum(self._chance(asset, now_s) * self._reload_s(self._facts_of(asset)) for asset in leaving)

    def can_ever_fit(self, assets: Collection[Asset]) -> bool:
        return sum(self._facts_of(asset).device_bytes for asset in set(assets)) <= self._options.device_bytes

    # ---- moves -----------------------------------------------------------------------------------------------------

    def plan_load(self, assets: Collection[Asset], keep: Collection[Asset], now_s: float) -> LoadPlan | None:
        """Begin to load the first of `assets` that is missing, its model first. None while a load runs, and where
        there is no room without those of `keep`. The space of what leaves is free at once."""
        missing = sorted(asset for asset in assets if asset not in self._device)
        if self._loading is not None or not missing:
            return None
        asset = missing[0]
        leaving = self._victims(asset, {*keep, *assets}, now_s)
        if leaving is None:
            return None
        for victim in leaving:
            del self._device[victim]
        self._num_loads += 1
        self._load_ends_s = now_s + self._reload_s(self._facts_of(asset))
        self._loading = LoadPlan(self._num_loads, asset, leaving)
        return self._loading

    def plan_fetch(self, wanted: Iterable[Asset], now_s: float) -> tuple[tuple[Asset, ...], tuple[Asset, ...]]:
        """(to fetch, to drop): the first of `wanted` that is not in host memory and is worth what it displaces, one
        at a time; and all that left host memory since the last call."""
        fetched, dropped = self._choose_fetch(list(wanted), now_s)
        drops, self._drops = self._drops, []
        return fetched, (*drops, *dropped)

    def _choose_fetch(self, wanted: list[Asset], now_s: float) -> tuple[tuple[Asset, ...], tuple[Asset, ...]]:
        if self._fetching is not None:
            return (), ()
        loading = None if self._loading is None else self._loading.asset
        for asset in wanted:
            if asset in self._host or asset in self._device or asset == loading:
                continue
            dropped = self._host_victims(asset, set(wanted), now_s)
            if dropped is not None:
                for victim in dropped:
                    del self._host[victim]
                self._fetching = asset
                return (asset,), dropped
        return (), ()

    def commit(self, done: LoadDone | FetchDone, now_s: float) -> None:
        """Book a move that ended."""
        if isinstance(done, FetchDone):
            if done.asset != self._fetching:
                raise InvariantError(f"{done.asset} was fetched, {self._fetching} was asked for")
            self._fetching = None
            if not done.is_failed:
                self._observe(done.asset, True, done.observed_s)
                self._put_in_host(done.asset, now_s)
            return
        if self._loading is None or done.plan.load_id != self._loading.load_id:
            raise InvariantError(f"load {done.plan.load_id} ended, which is not under way")
        self._loading = None
        if not done.is_failed:
            asset = done.plan.asset
            if asset in self._host:
                self._observe(asset, False, done.observed_s)
            self._put_on_device(asset)
            self._put_in_host(asset, now_s)

    def check(self, queued: Mapping[Asset, int]) -> None:
        """Raise InvariantError if bytes or places do not add up, or the queue is not as it is said to be."""
        for name, held, limit in (
            ("device", self._device_bytes(), self._options.device_bytes),
            ("host memory", sum(self._host.values()), self._options.host_bytes),
        ):
            if held > limit:
                raise InvariantError(f"{held} bytes on the {name}, there is room for {limit}")
        for asset in self._device:
            if asset.adapter and Asset(asset.model) not in self._device:
                raise InvariantError(f"{asset} is on the device without its model")
        if self._queued != queued:
            raise InvariantError(f"{len(self._queued)} assets are said to be needed, {len(queued)} are")

    # ---- choosing --------------------------------------------------------------------------------------------------

    def _victims(self, asset: Asset, keep: set[Asset], now_s: float) -> tuple[Asset, ...] | None:
        """What leaves for `asset`; None where that is not enough without those of `keep`."""
        leaving = self._cheapest(self._facts_of(asset).device_bytes, keep, now_s)
        if leaving is None:
            return None
        need = self._facts_of(asset).device_bytes - (self._options.device_bytes - self._device_bytes())
        return self._pruned(leaving, sum(leaving.values()) - max(0, need), now_s)

    def _cheapest(self, num_bytes: int, keep: set[Asset], now_s: float) -> dict[Asset, int] | None:
        """Least worth first, until there is room for so much; a model takes its adapters along."""
        need = num_bytes - (self._options.device_bytes - self._device_bytes())
        kept_models = {other.model for other in keep}
        free = [a for a in self._device if a not in keep and (a.adapter or a.model not in kept_models)]
        leaving: dict[Asset, int] = {}
        for victim in sorted(free, key=lambda a: (self.worth(a, now_s), a)):
            if need <= 0:
                break
            going = [victim] if victim.adapter else [a for a in self._device if a.model == victim.model]
            for gone in going:
                if gone not in leaving:
                    leaving[gone] = self._device[gone]
                    need -= self._device[gone]
        return None if need > 0 else leaving

    def _pruned(self, leaving: dict[Asset, int], surplus: int, now_s: float) -> tuple[Asset, ...]:
        """Small ones that went first and are not needed after a large one went stay: models with all that is theirs,
        then adapters whose model stays."""
        for asset in sorted(leaving, key=lambda a: (a.adapter != "", -self.worth(a, now_s), a)):
            if asset.adapter and Asset(asset.model) in leaving:
                continue
            unit = [asset] if asset.adapter else [a for a in leaving if a.model == asset.model]
            size = sum(leaving[a] for a in unit if a in leaving)
            if asset in leaving and size <= surplus:
                surplus -= size
                leaving = {a: num for a, num in leaving.items() if a not in unit}
        return tuple(leaving)

    def _host_victims(self, asset: Asset, wanted: set[Asset], now_s: float) -> tuple[Asset, ...] | None:
        """What to drop from host memory; None where only what is worth more than `asset`, or wanted, could go."""
        need = self._facts_of(asset).host_bytes + sum(self._host.values()) - self._options.host_bytes
        if self._facts_of(asset).host_bytes > self._options.host_bytes:
            return None
        leaving: list[Asset] = []
        worth = self._host_worth(asset, now_s)
        for victim in sorted(self._host, key=lambda a: (self._host_worth(a, now_s), a)):
            if need <= 0:
                break
            if self._host_worth(victim, now_s) >= worth or victim in wanted:
                return None
            leaving.append(victim)
            need -= self._host[victim]
        return tuple(leaving) if need <= 0 else None

    def _host_worth(self, asset: Asset, now_s: float) -> float:
        """Of keeping it in host memory; what is on the device anyway is not needed below it soon."""
        facts = self._facts_of(asset)
        share = BELOW_DEVICE if asset in self._device else 1.0
        return share * self._worth_of(self._use(asset, self._seconds(facts, True), facts.host_bytes, now_s))

    def _chance(self, asset: Asset, now_s: float) -> float:
        """That it is asked for within the horizon, if requests come at the present rate."""
        return 1.0 if asset in self._queued else -expm1(-self._demand.rate(asset, now_s) * self._options.horizon_s)

    def _use(self, asset: Asset, back_s: float, num_bytes: int, now_s: float) -> AssetUse:
        expected = self._demand.rate(asset, now_s) * self._options.horizon_s
        return AssetUse(self._queued.get(asset, 0) + expected, self._demand.last_s(asset), back_s, num_bytes)

    # ---- books -----------------------------------------------------------------------------------------------------

    def _put_on_device(self, asset: Asset) -> None:
        self._device[asset] = self._facts_of(asset).device_bytes

    def _put_in_host(self, asset: Asset, now_s: float) -> None:
        """If there is room, or what it displaces is worth less."""
        if asset in self._host:
            return
        dropped = self._host_victims(asset, {asset}, now_s)
        if dropped is None:
            self._drops.append(asset)
        else:
            for victim in dropped:
                del self._host[victim]
            self._drops += dropped
            self._host[asset] = self._facts_of(asset).host_bytes

    def _device_bytes(self) -> int:
        """What is there, and what is on its way."""
        coming = 0 if self._loading is None else self._facts_of(self._loading.asset).device_bytes
        return sum(self._device.values()) + coming

    def _reload_s(self, facts: AssetFacts) -> float:
        load_s = self._seconds(facts, False)
        return load_s if facts.asset in self._host else load_s + self._seconds(facts, True)

    def _seconds(self, facts: AssetFacts, is_fetch: bool) -> float:
        observed_s = self._observed.get((facts.asset, is_fetch))
        if observed_s is not None:
            return observed_s
        return facts.fetch_s if is_fetch else facts.load_s

    def _observe(self, asset: Asset, is_fetch: bool, observed_s: float) -> None:
        key = (asset, is_fetch)
        old_s = self._observed.get(key, observed_s)
        self._observed[key] = old_s + LOAD_FORGETTING * (observed_s - old_s)
