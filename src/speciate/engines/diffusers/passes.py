"""One pass over the rows of many items: the network once, then every item's own sampler."""

import torch
from torch import Tensor

from speciate.core.errors import InvariantError
from speciate.engines.diffusers.family import Condition, LoadedFamily, PassRows
from speciate.engines.diffusers.items import Item, LastPass
from speciate.engines.diffusers.start import keep_unmasked, step_arguments


def predict(items: list[Item], loaded: LoadedFamily) -> list[Tensor]:
    """Each item's prediction, guided, with a first dimension of one row. Changes no item but for `last`."""
    rows, timesteps, conditions, guidance = [], [], [], []
    for item in items:
        timestep = item.timesteps[item.passes_done]
        taken = _scaled(item, timestep)
        rows += [taken] * item.num_rows
        timesteps += [timestep.float()] * item.num_rows
        conditions += _conditions(item)
        guidance += [item.spec.guidance or 1.0] * item.num_rows
    device, dtype = loaded.denoiser.device, loaded.denoiser.dtype
    batch = PassRows(
        latents=torch.cat(rows),
        timesteps=torch.stack(timesteps).to(device),
        conditions=_joined(conditions),
        guidance=torch.tensor(guidance, device=device, dtype=dtype) if loaded.has_embedded_guidance else None,
    )
    return _guided(items, rows, loaded.family.predict(batch))


def step_samplers(items: list[Item], predictions: list[Tensor]) -> tuple[tuple[int, str], ...]:
    """Take every item one pass on; gives those that cannot go on, and why."""
    failed: list[tuple[int, str]] = []
    for item, prediction in zip(items, predictions, strict=True):
        latents = _stepped(item, prediction)
        if not bool(torch.isfinite(latents).all()):
            failed.append((item.spec.item_id, f"its latents are not finite after pass {item.passes_done}"))
            continue
        item.latents = keep_unmasked(item, latents, item.passes_done)
        item.passes_done += 1
    return tuple(failed)


def cleaned(item: Item) -> Tensor:
    """What the last pass takes the finished latents to be; the noisy ones where nothing is known of it."""
    last = item.last
    table = getattr(item.sampler, "alphas_cumprod", None)
    if last is None:
        return item.noisy()
    if table is None:  # straight flow: x = (1 - s) clean + s noise, and the network predicts noise - clean
        sigma: Tensor = (last.timestep / item.sampler.config.num_train_timesteps).to(last.taken)
        return last.taken - sigma * last.predicted
    kept = table[last.timestep.round().long().cpu()].to(last.taken)
    signal, noise = kept.sqrt(), (1 - kept).sqrt()
    kind: str = item.sampler.config.prediction_type
    if kind == "sample":
        return last.predicted
    clean: Tensor = signal * last.taken - noise * last.predicted
    return clean if kind == "v_prediction" else (last.taken - noise * last.predicted) / signal


def _scaled(item: Item, timestep: Tensor) -> Tensor:
    if not hasattr(item.sampler, "scale_model_input"):
        return item.noisy()
    scaled: Tensor = item.sampler.scale_model_input(item.noisy(), timestep)
    return scaled


def _stepped(item: Item, prediction: Tensor) -> Tensor:
    timestep = item.timesteps[item.passes_done]
    stepped: Tensor = item.sampler.step(prediction, timestep, item.noisy(), **step_arguments(item), return_dict=False)[
        0
    ]
    return stepped


def _conditions(item: Item) -> list[Condition]:
    """The row without the prompt comes first, as in diffusers."""
    if item.conditions is None:
        raise InvariantError(f"Item {item.spec.item_id} was given a pass before its prompt was encoded.")
    given = item.conditions
    return [given.positive] if given.negative is None else [given.negative, given.positive]


def _joined(conditions: list[Condition]) -> Condition:
    return {name: torch.cat([condition[name] for condition in conditions]) for name in conditions[0]}


def _guided(items: list[Item], rows: list[Tensor], predicted: Tensor) -> list[Tensor]:
    predictions, first = [], 0
    for item in items:
        own = predicted[first : first + item.num_rows]
        if item.is_guided:
            without, own = own.chunk(2)
            own = without + float(item.spec.guidance or 1.0) * (own - without)
        item.last = LastPass(rows[first], own, item.timesteps[item.passes_done])
        predictions.append(own)
        first += item.num_rows
    return predictions
