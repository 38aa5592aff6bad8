"""One item's private state inside the denoise scheduler: which step is its next, and when it is due."""

from dataclasses import dataclass
from math import inf

from speciate.core.denoise import Stage
from speciate.core.denoise_scheduler import Asset, DenoiseWork
from speciate.core.segment import TIER_RANK, Tier
from speciate.scheduling.denoise.pass_time import Kind
from speciate.scheduling.tenants import Tenant

Shape = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Item:
    """Owned by the scheduler that made it."""

    work: DenoiseWork
    item_id: int
    order: int
    """Position among all arrivals: the last tie-break everywhere."""
    tier: Tier
    """The tier that serves it now."""
    tenant: Tenant
    promise_s: float
    """Seconds from arrival in which it should be done; infinite if nothing was promised."""
    due_s: float
    assets: tuple[Asset, ...]
    """What must be on the device, its model first."""
    stage: Stage
    passes_done: int
    slices_done: int = 0
    """Of the preview or the picture that is being decoded."""
    num_previewed: int = 0
    was_started: bool = False
    was_relegated: bool = False
    is_gone: bool = False
    step_id: int = -1
    """The last step it took part in."""
    num_pauses: int = 0
    spent_s: float = 0.0
    """Its share of the seconds of its steps."""
    kind: Kind = ("", 0, 1)
    """What its steps cost depends on."""
    alone_s: float = 0.0
    """Seconds of steps left if it shares none, as of the last outlook."""
    share_s: float = 0.0
    """The same if it shares its passes as they would be shared now."""
    slack_s: float = inf
    """Until its latest start behind those due before it, as of the last outlook."""

    def __post_init__(self) -> None:
        self.kind = (self.work.model, self.work.facts.num_tokens, self.work.facts.num_rows)

    @property
    def rank(self) -> int:
        return TIER_RANK[self.tier]

    @property
    def model(self) -> str:
        return self.work.model

    @property
    def shape(self) -> Shape:
        return self.work.facts.latent_shape

    @property
    def index(self) -> int:
        """Which pass or slice of its stage is next."""
        return self.passes_done if self.stage is Stage.PASS else self.slices_done

    @property
    def rows(self) -> int:
        """Rows that it adds to its next step."""
        return self.work.facts.num_rows if self.stage is Stage.PASS else 1

    @property
    def cost_stage(self) -> Stage:
        """The stage that its next step costs as: a preview is decoded like a picture."""
        return Stage.DECODE if self.stage is Stage.PREVIEW else self.stage

    @property
    def tokens(self) -> int:
        """What its next step's cost depends on: encoding does not depend on the picture's size."""
        return 0 if self.stage is Stage.ENCODE else self.work.facts.num_tokens

    @property
    def slices_left(self) -> int:
        """Decode steps still to come, previews included."""
        facts = self.work.facts
        previews = len(self.work.preview_after) - self.num_previewed
        return facts.num_decode_slices * (previews + 1) - self.slices_done

    @property
    def is_done(self) -> bool:
        return self.stage is Stage.DECODE and self.slices_done == self.work.facts.num_decode_slices

    def advance(self) -> None:
        """Its next step was computed."""
        if self.stage is Stage.ENCODE:
            self.stage = Stage.PASS
        elif self.stage is Stage.PASS:
            self.passes_done += 1
        else:
            self.slices_done += 1
        self.stage = self._next_stage()

    def _next_stage(self) -> Stage:
        facts = self.work.facts
        if self.stage is Stage.PREVIEW:
            if self.slices_done < facts.num_decode_slices:
                return Stage.PREVIEW
            self.slices_done = 0
            self.num_previewed += 1
        if self.passes_done == facts.num_passes:
            return Stage.DECODE
        previews = self.work.preview_after
        wants_preview = self.num_previewed < len(previews) and previews[self.num_previewed] == self.passes_done
        return Stage.PREVIEW if wants_preview else Stage.PASS


def first_stage(work: DenoiseWork) -> Stage:
    """A restored item has its conditioning in its checkpoint."""
    if work.facts.passes_done == 0:
        return Stage.ENCODE
    return Stage.PASS if work.facts.passes_done < work.facts.num_passes else Stage.DECODE


def assets_of(work: DenoiseWork) -> tuple[Asset, ...]:
    """The model first, then its adapters, each once."""
    return (Asset(work.model), *(Asset(work.model, name) for name in dict.fromkeys(work.adapters)))


def promise_of(work: DenoiseWork, batch_window_s: float) -> float:
    """Seconds from arrival: the caller's deadline, else the segment's E2E promise, else a batch window, else none."""
    if work.deadline_s is not None:
        return max(0.0, work.deadline_s - work.arrival_s)
    if work.segment.slo.e2e_s is not None:
        return work.segment.slo.e2e_s
    return batch_window_s if work.segment.tier is Tier.BATCH else inf
