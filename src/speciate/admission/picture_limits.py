"""How many pictures may wait."""

from msgspec import Struct

from speciate.core.segment import Tier


class PictureLimits(Struct, frozen=True):
    """Pictures that may be pending in a tier on one replica, those that run included."""

    realtime: int = 32
    interactive: int = 256
    batch: int = 20_000

    def of(self, tier: Tier) -> int:
        return {Tier.REALTIME: self.realtime, Tier.INTERACTIVE: self.interactive, Tier.BATCH: self.batch}[tier]
