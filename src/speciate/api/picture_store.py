"""Pictures that were asked for by URL: kept in memory for a while, under names that nobody can guess."""

import time
from collections import OrderedDict

from msgspec import Struct

from speciate.api.call import BytesReply, Call, Reply, Services, new_id
from speciate.core.errors import NotFound

PATH = "/v1/images/content"
KEEP_S = 3600.0
MAX_BYTES = 256 * 2**20
"""The oldest leave first."""


class _Kept(Struct, frozen=True):
    data: bytes
    content_type: bytes
    until_s: float


class PictureStore:
    """Owned by the app. `answer` serves what `keep` took in."""

    def __init__(self, keep_s: float = KEEP_S, max_bytes: int = MAX_BYTES) -> None:
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._num_bytes = 0

    def keep(self, data: bytes, kind: str) -> str:
        """Gives the path under which it is served."""
        name = f"{new_id('img_')}.{kind}"
        self._kept[name] = _Kept(data, b"image/" + kind.encode(), time.monotonic() + self._keep_s)
        self._num_bytes += len(data)
        self._drop_old()
        return f"{PATH}/{name}"

    async def answer(self, services: Services, call: Call) -> Reply:
        self._drop_old()
        name = call.path_params["name"]
        kept = self._kept.get(name)
        if kept is None:
            raise NotFound(f"There is no picture {name!r} here; pictures are kept for {self._keep_s:.0f} s.")
        return BytesReply(kept.data, content_type=kept.content_type, headers=lambda: [(b"cache-control", b"private")])

    def _drop_old(self) -> None:
        now_s = time.monotonic()
        while self._kept:
            name, oldest = next(iter(self._kept.items()))
            if oldest.until_s > now_s and self._num_bytes <= self._max_bytes:
                return
            del self._kept[name]
            self._num_bytes -= len(oldest.data)
