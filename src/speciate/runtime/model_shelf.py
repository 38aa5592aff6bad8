"""Where a painter finds the engine of a model: all of them loaded, or moved by residency's word."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from speciate.core.denoise import AdapterHost, DenoiseEngine, DenoiseSpec, ItemFacts, ModelHost
from speciate.core.denoise_scheduler import Asset, LoadPlan
from speciate.core.errors import InvariantError, LoadFailed, ModelNotFound

OnDevice = Callable[[Callable[[], None]], "asyncio.Future[None]"]
"""Runs a function between steps, on the device's thread."""


class ModelShelf(Protocol):
    """The models that a painter serves."""

    def admit(self, model: str, spec: DenoiseSpec, checkpoint: bytes | None) -> tuple[ItemFacts, bool]:
        """What the item will be made of, and whether its engine holds it already (else it is added before its first
        step). Raises InvalidRequest, ModelNotFound."""
        ...

    def engine(self, model: str) -> DenoiseEngine | None:
        """None while it is not on the device."""
        ...

    async def load(self, plan: LoadPlan, on_device: OnDevice) -> None:
        """Carry the plan out. Raises LoadFailed."""
        ...

    async def fetch(self, asset: Asset) -> None:
        """Disk to host memory. Raises LoadFailed."""
        ...

    def drop(self, asset: Asset) -> None: ...

    def close(self) -> None: ...


class LoadedShelf:
    """Implements `ModelShelf` for engines that stay on the device."""

    def __init__(self, engines: Mapping[str, DenoiseEngine]) -> None:
        self._engines = engines

    def admit(self, model: str, spec: DenoiseSpec, checkpoint: bytes | None) -> tuple[ItemFacts, bool]:
        engine = self._engines.get(model)
        if engine is None:
            known = ", ".join(sorted(self._engines)) or "none"
            raise ModelNotFound(f"There is no image model {model!r} on this device. Here are: {known}.", param="model")
        return engine.add(spec, checkpoint), True

    def engine(self, model: str) -> DenoiseEngine | None:
        return self._engines.get(model)

    async def load(self, plan: LoadPlan, on_device: OnDevice) -> None:
        del on_device
        raise InvariantError(f"{plan.asset} was to be loaded where all models stay loaded")

    async def fetch(self, asset: Asset) -> None:
        raise InvariantError(f"{asset} was to be fetched where all models stay loaded")

    def drop(self, asset: Asset) -> None:
        raise InvariantError(f"{asset} was to be dropped where all models stay loaded")

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()


class HostedShelf:
    """Implements `ModelShelf` over a `ModelHost`: checkpoints and adapters come and go.

    Checkpoints load on a thread of their own while steps of other models go on; adapters are put beside their model
    between steps. `adapter_path` says where an adapter's files are.
    """

    def __init__(self, host: ModelHost, adapter_path: Callable[[Asset], str]) -> None:
        self._host = host
        self._adapter_path = adapter_path
        self._engines: dict[str, DenoiseEngine] = {}

    def admit(self, model: str, spec: DenoiseSpec, checkpoint: bytes | None) -> tuple[ItemFacts, bool]:
        return self._host.facts(model, spec), False

    def engine(self, model: str) -> DenoiseEngine | None:
        return self._engines.get(model)

    async def load(self, plan: LoadPlan, on_device: OnDevice) -> None:
        await on_device(lambda: self._unload(plan.unload))
        asset = plan.asset
        if asset.adapter:
            path = self._adapter_path(asset)
            await on_device(lambda: self._attach(asset, path))
        else:
            self._engines[asset.model] = await asyncio.to_thread(self._host.load, asset.model)

    async def fetch(self, asset: Asset) -> None:
        if not asset.adapter:
            await asyncio.to_thread(self._host.fetch, asset.model)

    def drop(self, asset: Asset) -> None:
        if not asset.adapter:
            self._host.drop(asset.model)
        elif isinstance(engine := self._engines.get(asset.model), AdapterHost):
            engine.forget(asset.adapter)

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def _unload(self, assets: tuple[Asset, ...]) -> None:
        """Runs on the device's thread. Adapters leave before their model."""
        for asset in sorted(assets, key=lambda asset: not asset.adapter):
            engine = self._engines.get(asset.model)
            if engine is None:
                continue
            if asset.adapter and isinstance(engine, AdapterHost):
                engine.detach(asset.adapter)
            elif not asset.adapter:
                del self._engines[asset.model]
                self._host.unload(asset.model)

    def _attach(self, asset: Asset, path: str) -> None:
        """Runs on the device's thread."""
        engine = self._engines.get(asset.model)
        if not isinstance(engine, AdapterHost):
            raise LoadFailed(f"{asset.model} takes no adapters, so {asset.adapter} cannot be put beside it.")
        engine.attach(asset.adapter, path)
