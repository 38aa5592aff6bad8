"""Items for tests of denoise decisions."""

from speciate.core.denoise import ItemFacts, Stage
from speciate.core.denoise_scheduler import Asset, DenoiseWork
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.pass_table import PassCost, PassTable
from speciate.scheduling.denoise.item import Item
from speciate.scheduling.tenants import Tenant

SEGMENTS = {
    Tier.REALTIME: Segment("draft", Tier.REALTIME, Slo(e2e_s=2.0)),
    Tier.INTERACTIVE: Segment("art", Tier.INTERACTIVE, Slo(e2e_s=20.0)),
    Tier.BATCH: Segment("bulk", Tier.BATCH, Slo(e2e_s=3600.0)),
}
H200_512 = {1: 1.0, 2: 2 / 1.82, 3: 3 / 2.69, 4: 4 / 2.77, 16: 16 / 3.21}
H200_1024 = {1: 1.0, 2: 2 / 1.02, 4: 4 / 1.03}
"""Seconds of a pass by rows in units of one row: Qwen-Image on an H200 (SGLang pull request 22183)."""


def table(costs: dict[int, float], model: str = "ink", unit_s: float = 0.1) -> PassTable:
    """Encoding and decoding cost next to nothing."""
    cells = [PassCost(model, Stage.PASS, 4, rows, unit_s * share) for rows, share in costs.items()]
    cells += [PassCost(model, Stage.ENCODE, 0, 1, 1e-4), PassCost(model, Stage.DECODE, 4, 1, 1e-4)]
    return PassTable("test", tuple(cells))


def work(
    item_id: int, num_passes: int = 30, tier: Tier = Tier.INTERACTIVE, model: str = "ink", **more: object
) -> DenoiseWork:
    fields = {"arrival_s": 0.0, **more}
    facts = ItemFacts(fields.pop("shape", (4,)), 4, num_passes, fields.pop("rows", 1), fields.pop("slices", 1))  # type: ignore[arg-type]
    return DenoiseWork(item_id, model, facts, SEGMENTS[tier], **fields)  # type: ignore[arg-type]


def item(
    item_id: int, due_s: float, seconds: float, tier: Tier = Tier.INTERACTIVE, model: str = "ink", **more: object
) -> Item:
    """One whose work is known."""
    made = Item(
        work=work(item_id, 10, tier, model, **more),
        item_id=item_id,
        order=item_id,
        tier=tier,
        tenant=Tenant("t"),
        promise_s=due_s,
        due_s=due_s,
        assets=(Asset(model),),
        stage=Stage.PASS,
        passes_done=0,
    )
    made.alone_s = made.share_s = seconds
    return made
