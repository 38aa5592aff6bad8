"""One picture as the replica sees it: what was asked, where it stands, when what happened."""

from dataclasses import dataclass, field

from speciate.core.denoise import DenoiseSpec, ItemFacts
from speciate.core.denoise_scheduler import DenoiseWork
from speciate.core.picture import PictureFinish, PictureRequest, PictureTimeline
from speciate.core.segment import Tier
from speciate.runtime.picture_mailbox import PictureMailbox


@dataclass(slots=True)
class RunningPicture:
    """Owned by the replica that serves it; written only between steps."""

    item_id: int
    request: PictureRequest
    facts: ItemFacts
    tier: Tier
    mailbox: PictureMailbox = field(default_factory=PictureMailbox)
    passes_done: int = 0
    num_previews: int = 0
    num_pauses: int = 0
    scheduled_s: float | None = None

    def finish(self, now_s: float) -> PictureFinish:
        request = self.request
        timeline = PictureTimeline(
            request.arrival_s, now_s if self.scheduled_s is None else self.scheduled_s, now_s, self.num_pauses
        )
        return PictureFinish(timeline, self.tier, self.facts.num_passes)


def spec_of(item_id: int, request: PictureRequest) -> DenoiseSpec:
    """What the engine must know of a request."""
    return DenoiseSpec(
        item_id=item_id,
        prompt=request.prompt,
        width=request.width,
        height=request.height,
        num_steps=request.num_steps,
        seed=request.seed,
        negative_prompt=request.negative_prompt,
        num_frames=request.num_frames,
        guidance=request.guidance,
        sampler=request.sampler,
        adapters=request.adapters,
        source=request.source,
        cache_threshold=request.cache_threshold,
        is_reproducible=request.is_reproducible,
    )


def work_of(item_id: int, model: str, request: PictureRequest, facts: ItemFacts) -> DenoiseWork:
    """What the scheduler must know of it."""
    return DenoiseWork(
        item_id=item_id,
        model=model,
        facts=facts,
        segment=request.segment,
        arrival_s=request.arrival_s,
        tenant=request.tenant,
        deadline_s=request.deadline_s,
        adapters=tuple(use.name for use in request.adapters),
        is_reproducible=request.is_reproducible,
        may_downgrade=request.may_downgrade,
        preview_after=preview_passes(request.num_previews, facts.num_passes),
    )


def preview_passes(num_previews: int, num_passes: int) -> tuple[int, ...]:
    """After which passes previews are made: evenly spread, none after the last one."""
    after = {round(num_passes * (n + 1) / (num_previews + 1)) for n in range(num_previews)}
    return tuple(sorted(n for n in after if 0 < n < num_passes))
