"""/v1/models: what may be asked for."""

import msgspec
from msgspec import Struct

from speciate.api.call import BytesReply, Call, Reply, Services
from speciate.runtime.gateway import ServedModel


class ModelCard(Struct, frozen=True):
    """OpenAI's four fields, and vLLM's three that routers read."""

    id: str
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int
    kind: str
    object: str = "model"


class ModelList(Struct, frozen=True):
    data: list[ModelCard]
    object: str = "list"


_encode = msgspec.json.Encoder().encode


async def list_models(services: Services, call: Call) -> Reply:
    return BytesReply(_encode(ModelList([_card(m) for m in services.gateway.served()])))


async def retrieve_model(services: Services, call: Call) -> Reply:
    return BytesReply(_encode(_card(services.gateway.find(call.path_params["model"]))))


def _card(model: ServedModel) -> ModelCard:
    return ModelCard(
        id=model.name,
        created=model.created,
        owned_by=model.owned_by,
        root=model.root,
        parent=model.base if model.adapter is not None else None,
        max_model_len=model.context_tokens,
        kind=model.kind,
    )
