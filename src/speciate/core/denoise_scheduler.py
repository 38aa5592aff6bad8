"""What a denoise scheduler takes and gives. Pure: time and data in, data out."""

from typing import Protocol

from msgspec import Struct

from speciate.core.denoise import DenoisePlan, ItemFacts, Stage
from speciate.core.segment import Segment, Tier


class DenoiseWork(Struct, frozen=True):
    """An item to schedule."""

    item_id: int
    model: str
    facts: ItemFacts
    segment: Segment
    """Its E2E promise is the item's, unless `deadline_s` says otherwise."""
    arrival_s: float
    tenant: str = "default"
    deadline_s: float | None = None
    """Absolute: past it nobody waits, and the item is dropped and reported in `DenoiseDecision.expired`."""
    adapters: tuple[str, ...] = ()
    is_reproducible: bool = False
    may_downgrade: bool = False
    """Whether it may be relegated to the batch tier; otherwise it stays in its tier, late or not."""
    preview_after: tuple[int, ...] = ()
    """Numbers of passes, rising, after which a preview is decoded."""


class Asset(Struct, frozen=True, order=True):
    """What has to be on the device for an item to run: a checkpoint, or an adapter of one."""

    model: str
    adapter: str = ""
    """Empty: the checkpoint itself."""


class LoadPlan(Struct, frozen=True):
    """Put an asset on the device, beside the steps that go on; those of `unload` leave it first. One load at a time."""

    load_id: int
    asset: Asset
    unload: tuple[Asset, ...] = ()


class DenoiseDecision(Struct, frozen=True):
    """What to do now. `plan` is None when nothing can run before the next arrival, load, or `wake_s` if set."""

    plan: DenoisePlan | None
    predicted_s: float = 0.0
    """The step's expected duration, without margin."""
    load: LoadPlan | None = None
    """Begin this load now; its end is committed like a step's."""
    fetch: tuple[Asset, ...] = ()
    """Bring these from disk to host memory in the background, the most urgent first."""
    drop: tuple[Asset, ...] = ()
    """Let these go from host memory."""
    paused: tuple[int, ...] = ()
    """Items of the step before that sit this one out although they are not done: something more urgent runs."""
    relegated: tuple[tuple[int, Tier], ...] = ()
    """(item_id, the tier it now runs in): told to the client."""
    expired: tuple[int, ...] = ()
    """Dropped because their deadline passed; already forgotten."""
    wake_s: float | None = None


class StepDone(Struct, frozen=True, tag="step"):
    """What a step did. An item whose last decode slice is done is forgotten by the scheduler."""

    plan: DenoisePlan
    observed_s: float
    lost: frozenset[int] = frozenset()
    """Items that cannot go on; the scheduler forgets them."""
    is_failed: bool = False
    """The whole step was lost: nobody advanced."""


class LoadDone(Struct, frozen=True, tag="load"):
    """What a load did; comes at any time, also while a step runs. A failed one left the asset where it was."""

    plan: LoadPlan
    observed_s: float
    is_failed: bool = False


class FetchDone(Struct, frozen=True, tag="fetch"):
    """An asset came into host memory, or did not."""

    asset: Asset
    observed_s: float
    is_failed: bool = False


DenoiseOutcome = StepDone | LoadDone | FetchDone


class Pending(Struct, frozen=True, gc=False):
    """An item that is not done, as far as those behind it are concerned."""

    item_id: int
    tier: Tier
    """The tier that serves it now."""
    model: str
    due_s: float
    """Absolute; infinite where nothing was promised."""
    work_s: float
    """Seconds of steps that it still needs, alone."""
    arrival_s: float
    passes_done: int
    num_passes: int
    stage: Stage
    eta_s: float
    """When it is expected to be done, absolute."""


class DenoiseLoad(Struct, frozen=True):
    """A snapshot for admission, routing and progress: what is pending, in the order in which it is expected to end."""

    pending: tuple[Pending, ...]
    margin: float = 1.0
    """Observed over predicted step time, 95th percentile."""
    prediction_error: float = 0.0
    """Mean absolute error of predicted step times, relative."""
    resident: tuple[Asset, ...] = ()
    """On the device."""
    wasted_s: float = 0.0
    """Step-seconds spent on work that nobody got."""
    num_pauses: int = 0


class DenoiseScheduler(Protocol):
    """Decides what one device runs next. `plan` and `commit` of its step alternate; all else may come in between."""

    def add(self, work: DenoiseWork, now_s: float) -> None:
        """Queue an item. Raises InvalidRequest if it can never run here or its id is in use."""
        ...

    def abort(self, item_id: int, now_s: float) -> None:
        """Forget an item at this step boundary (or the next, if it is in the step that runs); unknown ids are
        ignored."""
        ...

    def plan(self, now_s: float, within_s: float = float("inf")) -> DenoiseDecision:
        """The next step, one that is expected to take at most `within_s` with its margin; None if none is so short.
        Raises InvariantError while one is in flight."""
        ...

    def commit(self, outcome: DenoiseOutcome, now_s: float) -> None: ...

    def load(self, now_s: float) -> DenoiseLoad: ...

    def check(self) -> None:
        """Raise InvariantError if items do not add up."""
        ...


class Forecast(Struct, frozen=True):
    """What would become of an item that is not queued yet. Times are absolute."""

    work_s: float
    """Seconds of steps that it needs, alone."""
    due_s: float
    """What it was promised; infinite if nothing."""
    finish_s: float
    """When it would be done, margin included."""
    earliest_due_s: float
    """The earliest due time that could be kept now without making anyone late."""
    load_s: float = 0.0
    """Seconds that bringing its model and adapters onto the device takes; 0 if they are there."""
    displaced_s: float = 0.0
    """Seconds of loading others again that are expected to follow from that."""


class Forecaster(Protocol):
    """An optional ability of a denoise scheduler: admission asks before it promises."""

    def forecast(self, work: DenoiseWork, now_s: float, num_items: int = 1) -> Forecast:
        """For the last of `num_items` like it. Changes nothing."""
        ...
