"""Draws image traffic of the long tail: few popular bases, many rare ones, hundreds of adapters, bursts, quiet hours.

The statistics are those published for a production trace (GenTD26, Alibaba: 68,195 requests, 105 bases, 874 adapters,
26,823 of them with times over 23 days), computed by us from its files; the requests here are drawn, none is theirs.

    bases       Zipf 1.43 by maximum likelihood; 3 have half of the requests, 8 have 80 %
    locality    a request often repeats one of the last bases: what a cache of 1, 4, 8, 16 slots hits is matched
    adapters    Zipf 0.92; 22 % of requests use one or more
    gaps        three scales (inside bursts, between them, quiet hours), stretched by how busy the hour is: CV 12
    work        88 % are 30 steps; 1, 2, 4, 8 images for 55, 7, 23, 15 % of requests
    loads       a base: 3 s from host memory, 20 s more from disk at the median; an adapter: 4 s from disk
"""

import math
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from random import Random

from msgspec import Struct

from speciate.core.denoise_scheduler import Asset
from speciate.scheduling.denoise.residency import AssetFacts

GIB = 1 << 30
BASE_OFFSET, BASE_POWER = 5.0, 2.85
"""Popularity of the k-th base: (k + offset) ^ -power (Zipf-Mandelbrot); fits the shares of the first 3, 8, 16, 55."""
ADAPTER_OFFSET, ADAPTER_POWER = 1.0, 1.09
REPEATS_LAST, REPEATS_RECENT, RECENT = 0.10, 0.42, 10
"""Chances that a base is the last one's, or one of the last ten's; else it is drawn by popularity."""
IMAGES = ((1, 0.55), (2, 0.07), (4, 0.23), (8, 0.15))
STEPS = ((30, 0.88), (20, 0.06), (40, 0.03), (50, 0.03))
NUM_ADAPTERS = ((0, 0.777), (1, 0.207), (2, 0.011), (3, 0.005))
"""How many adapters a request uses."""
GAPS = ((0.795, 2.5), (0.20385, 450.0), (0.00115, 19_500.0))
"""(chance, mean seconds) of a gap inside a burst, between bursts, and of quiet hours."""
HOUR_SPREAD = 0.75
"""Standard deviation of the logarithm of how busy an hour is."""
BASE_BYTES = 7 * GIB
ADAPTER_BYTES = GIB // 8
BASE_LOAD_S = 3.1
"""Host memory to device: p25 of the trace's loads, which have two humps."""
BASE_FETCH_S, FETCH_SPREAD = 21.0, 0.45
"""Disk to host memory: with the load, p50 and p90 of those that are not from memory come out at about 24 and 41 s."""
ADAPTER_LOAD_S, ADAPTER_FETCH_S = 0.15, 4.2


class TailRequest(Struct, frozen=True):
    """`num_images` pictures of one prompt."""

    at_s: float
    base: str
    adapters: tuple[str, ...]
    num_images: int
    num_steps: int
    tenant: str


class TailOptions(Struct, frozen=True):
    """What to draw."""

    num_requests: int = 26_823
    compression: float = 8.0
    """Time runs so many times as fast: at 1 four devices would idle most of the day."""
    num_bases: int = 105
    num_adapters: int = 874
    num_tenants: int = 4_247
    seed: int = 0


def draw_tail(options: TailOptions) -> Iterator[TailRequest]:
    """By time. Equal options give equal traces."""
    times, choices = Random(f"{options.seed} times"), Random(f"{options.seed} choices")
    popularity = mandelbrot(options.num_bases, BASE_OFFSET, BASE_POWER)
    styles = _styles(options, popularity)
    tenants = list(accumulate(mandelbrot(options.num_tenants, 3.0, 1.1)))
    bases, recent = list(accumulate(popularity)), deque[int](maxlen=RECENT)
    for at_s in _arrivals(times, options):
        base = _base(choices, bases, recent)
        recent.append(base)
        yield TailRequest(
            at_s=at_s,
            base=f"base-{base:03d}",
            adapters=_adapters(choices, styles.get(base)),
            num_images=_pick(choices, IMAGES),
            num_steps=_pick(choices, STEPS),
            tenant=f"tenant-{_draw(choices, tenants)}",
        )


def mandelbrot(num: int, offset: float, power: float) -> list[float]:
    """Shares of ranks 1..num, summing to 1 (Zipf-Mandelbrot)."""
    weights = [(rank + offset) ** -power for rank in range(1, num + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def tail_facts(seed: int = 0) -> "TailFacts":
    return TailFacts(seed)


class TailFacts:
    """What moving the assets of a trace costs: each base has a loading time of its own."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._known: dict[Asset, AssetFacts] = {}

    def __call__(self, asset: Asset) -> AssetFacts:
        found = self._known.get(asset)
        if found is None:
            found = self._known[asset] = self._facts(asset)
        return found

    def _facts(self, asset: Asset) -> AssetFacts:
        if asset.adapter:
            return AssetFacts(asset, ADAPTER_BYTES, ADAPTER_BYTES, ADAPTER_LOAD_S, ADAPTER_FETCH_S)
        spread = Random(f"{self._seed} {asset.model}").gauss(0.0, FETCH_SPREAD)
        return AssetFacts(asset, BASE_BYTES, BASE_BYTES, BASE_LOAD_S, BASE_FETCH_S * math.exp(spread))


def _arrivals(random: Random, options: TailOptions) -> Iterator[float]:
    """An hour's busyness stretches the short gaps that begin in it; quiet hours are as long as they are."""
    at_s, hour, stretch = 0.0, -1, 1.0
    for _ in range(options.num_requests):
        if int(at_s // 3600) != hour:
            hour = int(at_s // 3600)
            stretch = math.exp(random.gauss(-0.5 * HOUR_SPREAD**2, HOUR_SPREAD))
        chance, short = random.random(), GAPS[0][0] + GAPS[1][0]
        if chance < GAPS[0][0]:
            at_s += random.expovariate(1 / (GAPS[0][1] * stretch))
        elif chance < short:
            at_s += random.expovariate(1 / (GAPS[1][1] * stretch))
        else:
            at_s += random.expovariate(1 / GAPS[2][1])
        yield at_s / options.compression


def _base(random: Random, bases: list[float], recent: deque[int]) -> int:
    chance = random.random()
    if recent and chance < REPEATS_LAST:
        return recent[-1]
    if recent and chance < REPEATS_LAST + REPEATS_RECENT:
        return random.choice(recent)
    return _draw(random, bases)


class _Styles(Struct, frozen=True):
    """The adapters of one base."""

    names: tuple[str, ...]
    cumulative: list[float]


def _styles(options: TailOptions, popularity: list[float]) -> dict[int, _Styles]:
    """Each adapter belongs to one base; popular bases have more of them, so that each keeps its own popularity."""
    random, bases = Random(f"{options.seed} styles"), list(accumulate(popularity))
    members: dict[int, list[tuple[str, float]]] = {}
    for rank, share in enumerate(mandelbrot(options.num_adapters, ADAPTER_OFFSET, ADAPTER_POWER)):
        members.setdefault(_draw(random, bases), []).append((f"style-{rank:03d}", share))
    return {
        base: _Styles(tuple(name for name, _ in found), list(accumulate(share for _, share in found)))
        for base, found in members.items()
    }


def _adapters(random: Random, styles: _Styles | None) -> tuple[str, ...]:
    num = _pick(random, NUM_ADAPTERS)
    if styles is None:
        return ()
    return tuple(sorted({styles.names[_draw(random, styles.cumulative)] for _ in range(num)}))


def _pick(random: Random, choices: tuple[tuple[int, float], ...]) -> int:
    chance = random.random() * sum(share for _, share in choices)
    for value, share in choices:
        chance -= share
        if chance < 0:
            return value
    return choices[-1][0]


def _draw(random: Random, cumulative: list[float]) -> int:
    """Index by cumulative shares."""
    low, high, chance = 0, len(cumulative) - 1, random.random() * cumulative[-1]
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] <= chance:
            low = middle + 1
        else:
            high = middle
    return low
