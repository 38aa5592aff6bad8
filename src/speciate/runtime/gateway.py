"""The way in: find the model, ask admission, hand to its replica. A request reads downwards in `submit`."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct

from speciate.admission.admit import AdmissionOptions, Demand, admit
from speciate.admission.room import room_after_refusal, room_beside
from speciate.core.admission import Refused, Room
from speciate.core.denoise import DenoiseShape
from speciate.core.engine import Engine
from speciate.core.errors import InvalidRequest, ModelNotFound, Overloaded
from speciate.core.output import Embeddings, OutputEvent, Whole
from speciate.core.picture import PictureRequest
from speciate.core.ports import Clock
from speciate.core.replica import ReplicaLoad
from speciate.core.request import EmbedRequest, GenerateRequest
from speciate.core.segment import Segment, Tier
from speciate.models.text_model import TextModel
from speciate.runtime.embedder import Embedder
from speciate.runtime.painter import Painter
from speciate.runtime.painter_item import PictureStream
from speciate.runtime.picture_door import PictureDoor
from speciate.runtime.replica import Replica
from speciate.telemetry.metrics import Metrics

MAX_WAITING_EMBEDDINGS = 8192
"""Rows that may wait in one embedder before more are refused."""


class ServedModel(Struct, frozen=True):
    """A name that a request may ask for."""

    name: str
    base: str
    """The loaded model that answers: the key of its replica or embedder."""
    kind: Literal["generate", "embed", "image"]
    context_tokens: int
    created: int
    """Unix seconds."""
    root: str
    """The folder it was loaded from."""
    text: TextModel | None
    """None: it takes no text apart."""
    adapter: str | None = None
    owned_by: str = "speciate"
    segments: dict[Tier, Segment] = {}
    """What each tier promises to this model's requests; all three tiers."""
    default_tier: Tier = Tier.INTERACTIVE
    """Of requests that name none."""
    image: DenoiseShape | None = None
    """What it draws, where it does."""


class Admission(Struct, frozen=True):
    """What let requests in together, and what was seen then."""

    tier: Tier
    demand: Demand
    load: ReplicaLoad
    limits: AdmissionOptions

    def room(self) -> Room:
        """What the tier still takes beside all of them."""
        return room_beside(self.tier, self.demand, self.load, self.limits)


class Submission(Struct, frozen=True):
    """An admitted request. It runs once, by `events` or by `whole`; closing or cancelling that ends it."""

    request: GenerateRequest
    engine: Engine
    admission: Admission

    @property
    def tier(self) -> Tier:
        return self.admission.tier

    def events(self) -> AsyncGenerator[OutputEvent, None]:
        return self.engine.generate(self.request)

    async def whole(self) -> Whole:
        return await self.engine.complete(self.request)


class PictureSubmission(Struct, frozen=True):
    """An admitted picture: closing `events` cancels it."""

    request_id: str
    tier: Tier
    events: PictureStream


class Gateway:
    """Owns the replicas: `start` and `stop` reach all of them."""

    def __init__(
        self,
        models: tuple[ServedModel, ...],
        replicas: Mapping[str, Replica],
        embedders: Mapping[str, Embedder],
        limits: AdmissionOptions,
        clock: Clock,
        metrics: Metrics,
        pictures: PictureDoor | None = None,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._replicas = replicas
        self._embedders = embedders
        self._pictures = pictures
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        for name, replica in replicas.items():
            metrics.watch(name, replica.load, replica.engine.shape)

    async def submit(self, requests: Sequence[GenerateRequest]) -> list[Submission]:
        """Admit sequences of one caller and model, all or none. Raises ModelNotFound, InvalidRequest, Overloaded."""
        model = self.find(requests[0].model)
        replica = self._replica_of(model)
        admission = self._admit(requests, model, replica)
        segment = requests[0].segment
        if segment.tier is not admission.tier:
            segment = model.segments[admission.tier]
        admitted = (msgspec.structs.replace(r, segment=segment, adapter=model.adapter) for r in requests)
        return [Submission(request, replica, admission) for request in admitted]

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """One vector an input. Raises ModelNotFound, InvalidRequest, Overloaded, EngineFailed."""
        embedder = self._embedder_of(self.find(request.model))
        dimensions = _dimensions(request, embedder.engine.dimensions)
        if embedder.num_waiting + len(request.inputs) > MAX_WAITING_EMBEDDINGS:
            raise Overloaded(
                f"{embedder.num_waiting} inputs already wait for {request.model}; at most {MAX_WAITING_EMBEDDINGS} "
                "may. Send fewer at once, or try again in a moment.",
                retry_after_s=1.0,
            )
        vectors = await embedder.embed(request)
        if dimensions < embedder.engine.dimensions:
            vectors = tuple(_shorten(vector, dimensions) for vector in vectors)
        num_tokens = sum(len(tokens) for tokens in request.inputs)
        self._metrics.embedded(request, num_tokens, self._clock.now_s())
        return Embeddings(vectors, dimensions, num_tokens, request.segment.tier)

    async def paint(self, requests: Sequence[PictureRequest]) -> list[PictureSubmission]:
        """Admit and start pictures of one model that differ in their seeds: all of them or none. Raises ModelNotFound,
        InvalidRequest, Overloaded, ShuttingDown."""
        model = self.find(requests[0].model)
        door = self._door_of(model)
        on_device = [msgspec.structs.replace(request, model=model.base) for request in requests]
        verdict = door.admit(on_device)
        if isinstance(verdict, Refused):
            self._metrics.refused_picture(model.base, requests[0])
            raise Overloaded(verdict.reason, retry_after_s=verdict.retry_after_s)
        if verdict.tier is not requests[0].segment.tier:
            segment = model.segments[verdict.tier]
            on_device = [msgspec.structs.replace(request, segment=segment) for request in on_device]
        return [PictureSubmission(request.request_id, verdict.tier, door.open(request)) for request in on_device]

    def find(self, name: str) -> ServedModel:
        """Raises ModelNotFound that names what exists."""
        model = self._models.get(name)
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise ModelNotFound(f"There is no model {name!r} here. Served models: {known}.", param="model")
        return model

    def served(self) -> tuple[ServedModel, ...]:
        return tuple(self._models.values())

    def loads(self) -> dict[str, ReplicaLoad]:
        """Per loaded generation model."""
        return {name: replica.load() for name, replica in self._replicas.items()}

    def now_s(self) -> float:
        """The clock of arrivals and deadlines."""
        return self._clock.now_s()

    def is_ready(self) -> bool:
        workers = self._workers()
        return bool(workers) and all(worker.is_healthy for worker in workers)

    def start(self) -> None:
        for worker in self._workers():
            worker.start()

    async def stop(self) -> None:
        for worker in self._workers():
            await worker.stop()

    def check(self) -> None:
        """Raise InvariantError if any replica's accounting does not add up."""
        for replica in self._replicas.values():
            replica.check()
        if self._pictures is not None:
            self._pictures.painter.check()

    def _workers(self) -> list[Replica | Embedder | Painter]:
        painters = [] if self._pictures is None else [self._pictures.painter]
        return [*self._replicas.values(), *self._embedders.values(), *painters]

    def _admit(self, requests: Sequence[GenerateRequest], model: ServedModel, replica: Replica) -> Admission:
        """Against one snapshot, as one demand: the last of many choices must find room too."""
        demand, load, now_s = _demand_of(requests), replica.load(), self._clock.now_s()
        verdict = admit(demand, load, self._limits, now_s)
        if isinstance(verdict, Refused):
            self._metrics.refused(model.base, requests[0], now_s)
            room = room_after_refusal(demand.segment.tier, demand, load, self._limits, verdict)
            raise Overloaded(verdict.reason, retry_after_s=verdict.retry_after_s, room=room)
        return Admission(verdict.tier, demand, load, self._limits)

    def _replica_of(self, model: ServedModel) -> Replica:
        if model.kind != "generate":
            makes = "embeddings" if model.kind == "embed" else "pictures"
            raise InvalidRequest(f"{model.name} makes {makes}, not text; ask another model.", param="model")
        return self._replicas[model.base]

    def _door_of(self, model: ServedModel) -> PictureDoor:
        if model.kind != "image" or self._pictures is None:
            able = ", ".join(m.name for m in self._models.values() if m.kind == "image") or "none"
            raise InvalidRequest(f"{model.name} draws no pictures. Models that do: {able}.", param="model")
        return self._pictures

    def _embedder_of(self, model: ServedModel) -> Embedder:
        if model.base not in self._embedders:
            able = ", ".join(m.name for m in self._models.values() if m.base in self._embedders) or "none"
            raise InvalidRequest(f"{model.name} makes no embeddings. Models that do: {able}.", param="model")
        return self._embedders[model.base]


def _demand_of(requests: Sequence[GenerateRequest]) -> Demand:
    """Of sequences that come together. Choices of one prompt lie side by side and share what it costs."""
    first = requests[0]
    prompts = (
        r.prompt_tokens
        for i, r in enumerate(requests)
        if i == 0 or r.prompt_tokens is not requests[i - 1].prompt_tokens
    )
    return Demand(
        segment=first.segment,
        prompt_tokens=sum(map(len, prompts)),
        max_tokens=max(r.stopping.max_tokens for r in requests),
        num_sequences=len(requests),
        deadline_s=first.deadline_s,
        may_downgrade=first.may_downgrade,
        tenant=first.tenant,
    )


def _dimensions(request: EmbedRequest, available: int) -> int:
    wanted = available if request.dimensions is None else request.dimensions
    if not 1 <= wanted <= available:
        raise InvalidRequest(f"dimensions is {wanted}; {request.model} has 1..{available}.", param="dimensions")
    return wanted


def _shorten(vector: bytes, dimensions: int) -> bytes:
    """Leading components, unit length again (Matryoshka representation learning, Kusupati 2022)."""
    head = np.frombuffer(vector, dtype="<f4")[:dimensions]
    return (head / max(float(np.linalg.norm(head)), 1e-12)).astype("<f4").tobytes()
