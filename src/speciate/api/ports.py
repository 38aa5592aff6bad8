"""What the front door needs of the spine, and nothing more of it; `runtime.gateway.Gateway` serves."""

from collections.abc import Sequence
from typing import Protocol

from speciate.core.output import Embeddings
from speciate.core.picture import PictureRequest
from speciate.core.request import EmbedRequest, GenerateRequest
from speciate.runtime.gateway import PictureSubmission, ServedModel, Submission


class Gateway(Protocol):
    """Admits, routes, generates. Refusals are raised as errors of `core.errors`."""

    async def submit(self, requests: Sequence[GenerateRequest]) -> list[Submission]:
        """Sequences of one caller and model, all or none."""
        ...

    async def embed(self, request: EmbedRequest) -> Embeddings: ...

    async def paint(self, requests: Sequence[PictureRequest]) -> list[PictureSubmission]:
        """Pictures of one model that differ in their seeds, all or none. Closing a submission's events cancels it."""
        ...

    def served(self) -> tuple[ServedModel, ...]: ...

    def find(self, name: str) -> ServedModel:
        """Raises ModelNotFound, naming what exists."""
        ...

    def now_s(self) -> float: ...

    def is_ready(self) -> bool: ...
